// Network output -> a posed skeleton in metres: `glnet_rt/decode.py`, one block a person.
#pragma once

#include "fit.h"
#include "frame.h"

namespace glnet {

// Addresses of the network's outputs, [B, ...] float; 0 where there is none.
struct NetPointers {
  uint64_t score, keypoints_uvd, betas, camera_scale, twist, rot6d, spread;
};

// Of the body and the spec; `glnet_rt/backends/cuda/body.py` fills it.
struct DecodeSetup {
  uint64_t rest_template;  // [29, 3] float, m
  uint64_t rest_dirs;      // [29, 3, n] float
  int32_t num_betas;
  float depth_range_m;
  float stiffness;  // 1 / prior², or 0 without a kinematic fit
  int32_t unused;
};

// What skinning needs of every person, in device memory.
struct SkinInput {
  uint64_t maps;      // [B, 24, 12] float: rest point -> posed point, 3 x 4, row by row
  uint64_t features;  // [B, 207] float: R - I of joints 1 .. 23
  uint64_t betas;     // [B, n] float, the network's
};

template <class T>
struct PersonWork {
  T rest[3 * NUM_SKELETON];
  T points[3 * NUM_SKELETON];
  T placed[3 * NUM_JOINTS];
  T local[9 * NUM_JOINTS];
  T world[9 * NUM_JOINTS];
  T rays[2 * NUM_JOINTS];
  T metres[2 * NUM_JOINTS];
  T offset[2], focal[2];
  T depth;  // of the pelvis, by the camera scale
  T pelvis[3];
};

constexpr float SHIFT_TRUST = 0.1f;  // `camera.DEPTH_TRUST`

template <class T>
GLNET_BOTH inline T row_value(uint64_t address, int i) {
  return T(reinterpret_cast<const float*>(address)[i]);
}

GLNET_BOTH inline const float* row_of(uint64_t address, int width, int person) {
  return reinterpret_cast<const float*>(address) + static_cast<int64_t>(width) * person;
}

template <class T>
GLNET_BOTH inline void set_rest(const DecodeSetup& setup, const float* betas, T* rest) {
  each(3 * NUM_SKELETON, [=](int i) {
    T sum = row_value<T>(setup.rest_template, i);
    const int n = setup.num_betas;
    for (int k = 0; k < n; ++k) sum += row_value<T>(setup.rest_dirs, n * i + k) * T(betas[k]);
    rest[i] = sum;
  });
}

// Columns of the 6D form to a rotation, by Gram-Schmidt.
template <class T>
GLNET_BOTH inline void rot6d_to_rotmat(const float* six, T* out) {
  Vec<T> x = {T(six[0]), T(six[2]), T(six[4])};
  Vec<T> y = {T(six[1]), T(six[3]), T(six[5])};
  x = (T(1) / norm(x)) * x;
  y = y - dot(x, y) * x;
  y = (T(1) / norm(y)) * y;
  const Vec<T> z = cross(x, y);
  put<T>(out, 0, {x.x, y.x, z.x});
  put<T>(out, 1, {x.y, y.y, z.y});
  put<T>(out, 2, {x.z, y.z, z.z});
}

// Where the posed body stands so that its joints fall onto the 2D keypoints.
template <class T>
GLNET_BOTH inline void stand(const float* uvd, PersonWork<T>& work) {
  each(3, [&](int i) { work.points[i] = T(0); });
  pose_skeleton(work.local, work.rest, NUM_JOINTS, work.world, work.points);
  each(2 * NUM_JOINTS, [&](int i) {
    const int k = i / 2, axis = i % 2;
    work.rays[i] = (T(uvd[3 * k + axis]) + work.offset[axis]) / work.focal[axis];
    work.metres[i] = work.points[3 * k + axis] - work.rays[i] * work.points[3 * k + 2];
  });
  each(1, [&](int) {
    T ray[2] = {}, metre[2] = {};
#pragma unroll 1
    for (int i = 0; i < 2 * NUM_JOINTS; ++i) {
      ray[i % 2] += work.rays[i] / T(NUM_JOINTS);
      metre[i % 2] += work.metres[i] / T(NUM_JOINTS);
    }
    T normal = T(SHIFT_TRUST), sum = T(SHIFT_TRUST) * work.depth;
#pragma unroll 1
    for (int i = 0; i < 2 * NUM_JOINTS; ++i) {
      const T lens = work.focal[i % 2];
      const T spread = (work.rays[i] - ray[i % 2]) * lens;
      normal += spread * spread;
      sum += spread * (work.metres[i] - metre[i % 2]) * lens;
    }
    T z = sum / normal;
    if (z < T(0.5) * work.depth) z = T(0.5) * work.depth;
    if (z > T(2) * work.depth) z = T(2) * work.depth;
    work.pelvis[0] = ray[0] * z - metre[0];
    work.pelvis[1] = ray[1] * z - metre[1];
    work.pelvis[2] = z;
  });
}

template <class T>
GLNET_BOTH inline void decode_decomposed(const DecodeSetup& setup, const float* uvd,
                                         const float* twist, PersonWork<T>& work) {
  // Points relative to the pelvis, as differences of what is small: metres away from the camera a
  // float would lose micrometres, and with them the direction of short bones.
  each(NUM_SKELETON, [&](int k) {
    const T range = T(setup.depth_range_m);
    const T z = range * T(uvd[3 * k + 2]), root_z = range * T(uvd[2]);
    for (int axis = 0; axis < 2; ++axis) {
      const T u = T(uvd[3 * k + axis]), root_u = T(uvd[axis]), offset = work.offset[axis];
      const T apart = (u - root_u) * work.depth + (u + offset) * z - (root_u + offset) * root_z;
      work.points[3 * k + axis] = apart / work.focal[axis];
    }
    work.points[3 * k + 2] = z - root_z;
  });
  each(1, [&](int) {
    best_rotation(work.rest, work.points, work.world);
    for (int i = 0; i < 9; ++i) work.local[i] = work.world[i];
    for (int i = 0; i < 3; ++i) work.placed[i] = T(0);
    const T z = T(setup.depth_range_m) * T(uvd[2]) + work.depth;
    work.pelvis[0] = (T(uvd[0]) + work.offset[0]) * z / work.focal[0];
    work.pelvis[1] = (T(uvd[1]) + work.offset[1]) * z / work.focal[1];
    work.pelvis[2] = z;
  });
#pragma unroll 1
  for (int depth = 1; depth < DEEPEST; ++depth) {
    each(NUM_JOINTS, [&](int joint) {
      if (DEPTH[joint] != depth) return;
      const T cosine = T(twist[2 * (joint - 1)]), sine = T(twist[2 * (joint - 1) + 1]);
      solve_joint(work.points, cosine, sine, work.rest, joint, work.placed, work.local,
                  work.world);
    });
  }
}

template <class T>
GLNET_BOTH inline void decode_direct(const DecodeSetup& setup, const float* uvd,
                                     const float* rot6d, const float* spread, PersonWork<T>& work,
                                     FitWork<T>& fit) {
  each(NUM_JOINTS, [&](int j) { rot6d_to_rotmat(rot6d + 6 * j, work.local + 9 * j); });
  stand(uvd, work);
  if (setup.stiffness == 0.0f) return;
  each(3, [&](int i) { work.points[i] = work.pelvis[i]; });
  pose_skeleton(work.local, work.rest, NUM_SKELETON, work.world, work.points);
  solve_step(work.points, uvd, spread, work.offset, work.focal, T(setup.stiffness), fit);
  turn_joints(work.world, fit.step, work.local);
  stand(uvd, work);
}

GLNET_BOTH inline bool all_finite(const float* values, int count) {
  bool finite = true;
#pragma unroll 1
  for (int i = 0; i < count; ++i) finite = finite && is_finite(values[i]);
  return finite;
}

GLNET_BOTH inline int32_t find_faults(const NetPointers& net, const DecodeSetup& setup, int person) {
  const float scale = *row_of(net.camera_scale, 1, person);
  bool finite = is_finite(*row_of(net.score, 1, person)) &&
                all_finite(row_of(net.keypoints_uvd, 3 * NUM_KEYPOINTS, person), 3 * NUM_KEYPOINTS) &&
                all_finite(row_of(net.betas, setup.num_betas, person), setup.num_betas);
  if (net.twist) {
    finite = finite && all_finite(row_of(net.twist, 2 * NUM_TWISTS, person), 2 * NUM_TWISTS);
  }
  if (net.rot6d) {
    finite = finite && all_finite(row_of(net.rot6d, 6 * NUM_JOINTS, person), 6 * NUM_JOINTS);
  }
  int32_t faults = (scale > 0.0f && is_finite(scale)) ? 0 : BAD_SCALE;
  if (net.spread) {
    const float* spread = row_of(net.spread, NUM_KEYPOINTS, person);
    finite = finite && all_finite(spread, NUM_KEYPOINTS);
#pragma unroll 1
    for (int k = 0; k < NUM_SKELETON; ++k) {
      if (!(spread[k] > 0.0f)) faults |= BAD_SPREAD;
    }
  }
  return finite ? faults : faults | NOT_FINITE;
}

// Everything of one person that is no vertex, and what the vertices are made from.
template <class T>
GLNET_BOTH inline void write_person(const FrameParams& frame, const NetPointers& net,
                                    const DecodeSetup& setup, const SkinInput& skin, int b,
                                    PersonWork<T>& work) {
  const PersonParams& person = frame.person[b];
  float* maps = const_cast<float*>(row_of(skin.maps, 12 * NUM_JOINTS, b));
  float* features = const_cast<float*>(row_of(skin.features, NUM_POSE_FEATURES, b));
  float* rotmats = const_cast<float*>(row_of(frame.rotmats, 9 * NUM_JOINTS, b));
  float* joints = const_cast<float*>(row_of(frame.joints, 3 * NUM_JOINTS, b));
  float* transl = const_cast<float*>(row_of(frame.transl, 3, b));
  float* betas = const_cast<float*>(row_of(frame.betas, setup.num_betas, b));
  float* keypoints = const_cast<float*>(row_of(frame.keypoints_px, 2 * NUM_KEYPOINTS, b));
  const float* uvd = row_of(net.keypoints_uvd, 3 * NUM_KEYPOINTS, b);
  each(3, [&](int i) { work.points[i] = work.pelvis[i]; });
  pose_skeleton(work.local, work.rest, NUM_JOINTS, work.world, work.points);
  each(9 * NUM_JOINTS, [&](int i) {
    rotmats[i] = static_cast<float>(work.local[i]);
    const T identity = i % 9 % 4 == 0 ? T(1) : T(0);
    if (i >= 9) features[i - 9] = static_cast<float>(work.local[i] - identity);
  });
  each(NUM_JOINTS, [&](int j) {
    const Vec<T> joint = load(work.points, j);
    const Vec<T> turned = rotate(work.world + 9 * j, load(work.rest, j));
    const T moved[3] = {joint.x - turned.x, joint.y - turned.y, joint.z - turned.z};
    for (int i = 0; i < 3; ++i) {
      for (int c = 0; c < 3; ++c) {
        maps[12 * j + 4 * i + c] = static_cast<float>(work.world[9 * j + 3 * i + c]);
      }
      maps[12 * j + 4 * i + 3] = static_cast<float>(moved[i]);
      joints[3 * j + i] = static_cast<float>(work.points[3 * j + i]);
    }
  });
  each(3, [&](int i) { transl[i] = static_cast<float>(work.pelvis[i] - work.rest[i]); });
  each(NUM_KEYPOINTS, [&](int k) {
    keypoints[2 * k] = static_cast<float>(T(person.center_x) + T(uvd[3 * k]) * T(person.side));
    keypoints[2 * k + 1] =
        static_cast<float>(T(person.center_y) + T(uvd[3 * k + 1]) * T(person.side));
  });
  const float* predicted = row_of(net.betas, setup.num_betas, b);
  each(setup.num_betas, [=](int i) { betas[i] = predicted[i]; });
  each(1, [&](int) {
    *const_cast<float*>(row_of(frame.score, 1, b)) = *row_of(net.score, 1, b);
    reinterpret_cast<int32_t*>(frame.status)[b] = find_faults(net, setup, b);
  });
}

template <class T>
GLNET_BOTH inline void decode_person(const FrameParams& frame, const NetPointers& net,
                                     const DecodeSetup& setup, const SkinInput& skin, int b,
                                     PersonWork<T>& work, FitWork<T>& fit) {
  const PersonParams& person = frame.person[b];
  const float* uvd = row_of(net.keypoints_uvd, 3 * NUM_KEYPOINTS, b);
  each(1, [&](int) {
    work.offset[0] = T(person.offset_u);
    work.offset[1] = T(person.offset_v);
    work.focal[0] = T(person.focal_u);
    work.focal[1] = T(person.focal_v);
    work.depth = T(sqrt(work.focal[0] * work.focal[1])) / T(*row_of(net.camera_scale, 1, b));
  });
  set_rest(setup, row_of(net.betas, setup.num_betas, b), work.rest);
  if (net.twist) {
    decode_decomposed(setup, uvd, row_of(net.twist, 2 * NUM_TWISTS, b), work);
  } else {
    const float* spread = net.spread ? row_of(net.spread, NUM_KEYPOINTS, b) : nullptr;
    decode_direct(setup, uvd, row_of(net.rot6d, 6 * NUM_JOINTS, b), spread, work, fit);
  }
  write_person(frame, net, setup, skin, b, work);
}

}  // namespace glnet
