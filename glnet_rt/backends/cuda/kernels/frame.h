// What the host tells the kernels of one frame; `glnet_rt/backends/cuda/frame.py` is its twin.
#pragma once

#include "portable.h"

namespace glnet {

constexpr int MAX_PEOPLE = 32;  // the largest bucket

// Where one person is looked for, and through what camera.
struct PersonParams {
  int32_t first_column, first_row;  // of the window under the square, image px
  int32_t columns, rows;            // of that window, before it is halved
  int32_t halvings;
  float scale;             // halved window px per crop px
  float shift_x, shift_y;  // centre of the crop's first pixel in the halved window
  float offset_u, offset_v, focal_u, focal_v;  // of the crop's camera, crop sides
  float center_x, center_y, side;              // of the square, image px
  int32_t unused;
};

// Addresses of the frame and of what is made from it: those of a slot in the ring, so that one
// captured graph serves all slots.
struct FrameParams {
  uint64_t frame;         // [height, stride] uint8, rows of BGR pixels
  uint64_t score;         // [B] float, as all below
  uint64_t betas;         // [B, n]
  uint64_t rotmats;       // [B, 24, 3, 3]
  uint64_t transl;        // [B, 3]
  uint64_t joints;        // [B, 24, 3]
  uint64_t keypoints_px;  // [B, 36, 2]
  uint64_t vertices;      // [B, V, 3]
  uint64_t status;        // [B] int32, bits of `Fault`
  int32_t stride;         // bytes from row to row
  int32_t people;         // the rows behind them are padding
  PersonParams person[MAX_PEOPLE];
};

// Why a person's numbers cannot be used.
enum Fault : int32_t {
  BAD_SCALE = 1,     // camera scale not positive or not finite
  BAD_SPREAD = 2,    // an expected keypoint error not above zero
  NOT_FINITE = 4,    // a network output is NaN or infinite
};

}  // namespace glnet
