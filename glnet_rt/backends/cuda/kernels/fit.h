// One Gauss-Newton step towards the 2D keypoints: `glnet_rt/kinematic_fit.py`.
//
// There one thread adds up one keypoint after the other; here every entry of the normal matrix adds
// up its own, from rows of the Jacobian that are zero where a keypoint does not hang on a joint.
#pragma once

#include "kinematics.h"

namespace glnet {

constexpr int UNKNOWNS = 3 * NUM_JOINTS + 3;  // a turn of every joint, and a shift
constexpr int ROWS = UNKNOWNS + 1;            // of the system: the right-hand side is the last row
constexpr int PACKED = ROWS * (ROWS + 1) / 2;
constexpr int RESIDUALS = 2 * NUM_SKELETON;

// Shared memory of one person: 31 KB in float.
template <class T>
struct FitWork {
  T jacobian[RESIDUALS * ROWS];  // each row times the root of its weight; last: the residual
  T system[PACKED];              // lower triangle, row by row; then its Cholesky factor
  T diagonal[UNKNOWNS];
  T step[UNKNOWNS];
};

GLNET_BOTH inline int packed(int row, int column) { return row * (row + 1) / 2 + column; }

// Row and column of an entry of the packed triangle.
GLNET_BOTH inline void unpack(int index, int* row, int* column) {
  int r = static_cast<int>((sqrt(8.0f * static_cast<float>(index) + 1.0f) - 1.0f) / 2.0f);
  while (packed(r, 0) > index) --r;  // the root may have been rounded up or down
  while (packed(r + 1, 0) <= index) ++r;
  *row = r;
  *column = index - packed(r, 0);
}

// One row of the Jacobian: keypoint `k` along u (axis 0) or v (axis 1).
template <class T>
GLNET_BOTH inline void fill_row(int k, int axis, const T* points, T uv, T spread, T offset,
                                T focal, T* row) {
  const T NEAREST_M = T(0.1);
#pragma unroll 4
  for (int i = 0; i < ROWS; ++i) row[i] = T(0);
  const Vec<T> point = load(points, k);
  if (!(point.z >= NEAREST_M)) return;
  const T slope = focal / point.z;
  const T along = axis == 0 ? point.x : point.y;
  const T fall = -slope * along / point.z;
  const T root_weight = T(1) / spread;
  const Vec<T> gradient = {axis == 0 ? slope : T(0), axis == 1 ? slope : T(0), fall};
  const Vec<T> scaled = root_weight * gradient;
  for (int joint = PARENT[k]; joint >= 0; joint = PARENT[joint]) {
    put(row, joint, cross(point - load(points, joint), scaled));
  }
  put(row, NUM_JOINTS, scaled);
  row[UNKNOWNS] = root_weight * (uv - (slope * along - offset));
}

// The rotation step. `points` [29, 3] and `world` are the posed skeleton in the camera; results are
// left in `work.step`.
template <class T>
GLNET_BOTH inline void solve_step(const T* points, const float* uvd, const float* spread,
                                  const T* offset, const T* focal, T stiffness, FitWork<T>& work) {
  each(RESIDUALS, [&](int i) {
    const int k = i / 2, axis = i % 2;
    fill_row(k, axis, points, T(uvd[3 * k + axis]), T(spread[k]), offset[axis], focal[axis],
             work.jacobian + ROWS * i);
  });
  each(PACKED, [&](int index) {
    int row, column;
    unpack(index, &row, &column);
    T sum = T(0);
    if (row == column) sum = row < 3 * NUM_JOINTS ? stiffness : T(1);
#pragma unroll 2
    for (int i = 0; i < RESIDUALS; ++i) {
      sum += work.jacobian[ROWS * i + row] * work.jacobian[ROWS * i + column];
    }
    work.system[index] = sum;
  });
  // Cholesky by columns; the right-hand side comes along as the last row and ends as L^-1 b.
#pragma unroll 1
  for (int j = 0; j < UNKNOWNS; ++j) {
    each(ROWS - j, [&](int i) {
      const T pivot = sqrt(work.system[packed(j, j)]);
      if (i == 0) {
        work.diagonal[j] = pivot;
      } else {
        work.system[packed(j + i, j)] /= pivot;
      }
    });
    const int left = UNKNOWNS - j;  // rows below
    each(left * (left + 1) / 2, [&](int index) {
      int row, column;
      unpack(index, &row, &column);
      row += j + 1;
      column += j + 1;
      work.system[packed(row, column)] -=
          work.system[packed(row, j)] * work.system[packed(column, j)];
    });
  }
  each(UNKNOWNS, [&](int i) { work.step[i] = work.system[packed(UNKNOWNS, i)]; });
#pragma unroll 1
  for (int j = UNKNOWNS - 1; j >= 0; --j) {
    each(j, [&](int i) {
      work.step[i] -= work.system[packed(j, i)] * (work.step[j] / work.diagonal[j]);
    });
  }
  each(UNKNOWNS, [&](int i) { work.step[i] /= work.diagonal[i]; });
}

// Turns in the camera's frame as local rotations: parentᵀ exp(step) world.
template <class T>
GLNET_BOTH inline void turn_joints(const T* world, const T* step, T* local) {
  each(NUM_JOINTS, [=](int j) {
    const Vec<T> turn = load(step, j);
    const T angle = norm(turn);
    const Vec<T> axis = (angle > T(0) ? T(1) / angle : T(0)) * turn;
    T by[9], moved[9];
    axis_turn(axis, T(cos(angle)), T(sin(angle)), by);
    multiply(by, world + 9 * j, moved);
    if (j == 0) {
      for (int i = 0; i < 9; ++i) local[i] = moved[i];
    } else {
      multiply_transposed(world + 9 * PARENT[j], moved, local + 9 * j);
    }
  });
}

}  // namespace glnet
