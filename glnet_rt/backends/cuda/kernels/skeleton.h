// The tables of `glnet_rt/skeleton.py` that decoding reads; a test holds the two equal.
#pragma once

#include "portable.h"

namespace glnet {

constexpr int NUM_JOINTS = 24;
constexpr int NUM_SKELETON = 29;
constexpr int NUM_KEYPOINTS = 36;
constexpr int NUM_TWISTS = 23;
constexpr int NUM_POSE_FEATURES = 207;
constexpr int DEEPEST = 9;  // bones from the root to the farthest leaf

GLNET_TABLE int32_t PARENT[NUM_SKELETON] = {-1, 0,  0,  0,  1,  2,  3,  4,  5,  6,
                                            7,  8,  9,  9,  9,  12, 13, 14, 16, 17,
                                            18, 19, 20, 21, 15, 22, 23, 10, 11};
GLNET_TABLE int32_t DEPTH[NUM_SKELETON] = {0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4,
                                           5, 5, 5, 6, 6, 7, 7, 8, 8, 6, 9, 9, 5, 5};
GLNET_TABLE int32_t BONE_CHILD[NUM_JOINTS] = {-1, 4,  5,  6,  7,  8,  9,  10, 11, 12, 27, 28,
                                              15, 16, 17, 24, 18, 19, 20, 21, 22, 23, 25, 26};
GLNET_TABLE int32_t ROOT_CHILDREN[3] = {1, 2, 3};

}  // namespace glnet
