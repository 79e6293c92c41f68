// Shape, bend and skin a body: `glnet_rt/body_model.py`, one thread a vertex.
//
// Tables lie with the vertex as the fastest axis, so that a warp reads whole cache lines. Pose
// directions are kept for the joints that move a vertex alone: in slices of 32 vertices, each as
// deep as its deepest vertex (sliced ELLPACK), since a table of all 23 joints is mostly zeros.
#pragma once

#include "decode.h"

namespace glnet {

constexpr int SLICE = 32;  // vertices, a warp

// Written by `glnet_rt/backends/cuda/body.py`. V is `vertices`, padded is V up to whole slices.
struct BodyTables {
  uint64_t v_template;   // [3, padded] float
  uint64_t shapedirs;    // [n, 3, padded] float
  uint64_t weights;      // [influences, padded] float
  uint64_t influencers;  // [influences, padded] uint8, joints
  uint64_t slice_first;  // [slices + 1] int32: places, of `bend_joints` and of `bends`
  uint64_t bend_joints;  // [places, 32] uint8, joint - 1
  uint64_t bends;        // [places, 3, 9, 32] float
  int32_t vertices, padded, num_betas, influences;
};

// What a block of vertices reads of its person, in shared memory.
struct SkinWork {
  float maps[12 * NUM_JOINTS];
  float features[NUM_POSE_FEATURES];
};

template <class T>
GLNET_BOTH inline void bend_vertex(const BodyTables& body, const float* features, int v, T at[3]) {
  const int slice = v / SLICE, lane = v % SLICE;
  const int32_t* first = reinterpret_cast<const int32_t*>(body.slice_first);
  const uint8_t* joints = reinterpret_cast<const uint8_t*>(body.bend_joints);
  const float* bends = reinterpret_cast<const float*>(body.bends);
  for (int place = first[slice]; place < first[slice + 1]; ++place) {
    const float* feature = features + 9 * joints[SLICE * place + lane];
    for (int axis = 0; axis < 3; ++axis) {
      const float* along = bends + static_cast<int64_t>(SLICE) * (9 * (3 * place + axis)) + lane;
      for (int i = 0; i < 9; ++i) at[axis] += T(along[SLICE * i]) * T(feature[i]);
    }
  }
}

template <class T>
GLNET_BOTH inline void skin_vertex(const BodyTables& body, const float* betas, const SkinWork& work,
                                   int v, float* out) {
  const float* rest = reinterpret_cast<const float*>(body.v_template);
  const float* dirs = reinterpret_cast<const float*>(body.shapedirs);
  const float* weights = reinterpret_cast<const float*>(body.weights);
  const uint8_t* joints = reinterpret_cast<const uint8_t*>(body.influencers);
  const int padded = body.padded;
  T at[3];
  for (int axis = 0; axis < 3; ++axis) {
    at[axis] = T(rest[axis * padded + v]);
    for (int k = 0; k < body.num_betas; ++k) {
      at[axis] += T(dirs[static_cast<int64_t>(3 * k + axis) * padded + v]) * T(betas[k]);
    }
  }
  bend_vertex(body, work.features, v, at);
  T moved[3] = {};
  for (int i = 0; i < body.influences; ++i) {
    const T weight = T(weights[i * padded + v]);
    const float* map = work.maps + 12 * joints[i * padded + v];
    for (int axis = 0; axis < 3; ++axis) {
      const float* m = map + 4 * axis;
      moved[axis] += weight * (T(m[0]) * at[0] + T(m[1]) * at[1] + T(m[2]) * at[2] + T(m[3]));
    }
  }
  for (int axis = 0; axis < 3; ++axis) out[axis] = static_cast<float>(moved[axis]);
}

}  // namespace glnet
