// Swing-twist inverse kinematics: `glnet_rt/kinematics.py`, where the reasons stand.
#pragma once

#include "skeleton.h"
#include "vector.h"

namespace glnet {

template <class T>
struct Limits {
  static constexpr T FALLBACK_M = T(0.015);
  static constexpr T TINY_M = T(1e-8);
  static constexpr T TINY_SINE = T(1e-6);
};
constexpr int SQUARINGS = 20;

template <class T>
GLNET_BOTH inline Vec<T> unit(const Vec<T>& v, const Vec<T>& otherwise) {
  const T length = norm(v);
  return length < Limits<T>::TINY_M ? otherwise : (T(1) / length) * v;
}

// A unit vector across unit `t`: from the coordinate axis that lies least along it.
template <class T>
GLNET_BOTH inline Vec<T> perpendicular(const Vec<T>& t) {
  const T x = t.x < 0 ? -t.x : t.x, y = t.y < 0 ? -t.y : t.y, z = t.z < 0 ? -t.z : t.z;
  if (x <= y && x <= z) return unit<T>({T(0), -t.z, t.y}, t);
  if (y <= z) return unit<T>({t.z, T(0), -t.x}, t);
  return unit<T>({-t.y, t.x, T(0)}, t);
}

// Rodrigues' formula for the axis `w` of length sin, free of division by the sine; cos >= 0.
template <class T>
GLNET_BOTH inline void rotation_between(const Vec<T>& w, T cosine, T* out) {
  outer(w, T(1) / (T(1) + cosine), cosine, out);
  add_skew(w, T(1), out);
}

// Shortest rotation from unit `t` to unit `p`; valid up to and at p = -t.
template <class T>
GLNET_BOTH inline void swing_between(const Vec<T>& t, const Vec<T>& p, T* out) {
  const Vec<T> w = cross(t, p);
  const T cosine = dot(t, p);
  if (cosine >= T(0)) {
    rotation_between(w, cosine, out);
    return;
  }
  const T sine = norm(w);
  Vec<T> axis = perpendicular(t);
  if (sine > Limits<T>::TINY_SINE) axis = unit(w - dot(w, t) * t, axis);
  rotation_between(T(-1) * w, -cosine, out);
  for (int i = 0; i < 3; ++i) {
    const Vec<T> row = load(out, i);
    put(out, i, (T(2) * dot(row, axis)) * axis - row);
  }
}

// N of Horn (1987) from s = sum of rest bone x predicted bone; quaternions are (w, x, y, z).
template <class T>
GLNET_BOTH inline void horn_matrix(const T* s, T* n) {
  n[0] = s[0] + s[4] + s[8];
  n[5] = s[0] - s[4] - s[8];
  n[10] = s[4] - s[0] - s[8];
  n[15] = s[8] - s[0] - s[4];
  n[1] = n[4] = s[5] - s[7];
  n[2] = n[8] = s[6] - s[2];
  n[3] = n[12] = s[1] - s[3];
  n[6] = n[9] = s[1] + s[3];
  n[7] = n[13] = s[6] + s[2];
  n[11] = n[14] = s[5] + s[7];
}

template <class T>
GLNET_BOTH inline void unitquat_to_rotmat(const T* q, T* out) {
  const T scale = T(2) / (q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  const Vec<T> axis = {q[1], q[2], q[3]};
  outer(axis, scale, scale * q[0] * q[0] - T(1), out);
  add_skew(axis, scale * q[0], out);
}

// Rotation that best brings the root's three rest bones onto the predicted ones.
template <class T>
GLNET_BOTH inline void best_rotation(const T* rest, const T* points, T* out) {
  T s[9] = {};
  T total = T(0);
  for (int c = 0; c < 3; ++c) {
    const int child = ROOT_CHILDREN[c];
    const Vec<T> a = load(rest, child) - load(rest, 0), b = load(points, child) - load(points, 0);
    total += norm(a) * norm(b);
    for (int j = 0; j < 3; ++j) {
      const T component = j == 0 ? a.x : j == 1 ? a.y : a.z;
      put(s, j, load(s, j) + component * b);
    }
  }
  if (total < Limits<T>::TINY_M * Limits<T>::TINY_M) {
    axis_turn<T>({T(0), T(1), T(0)}, T(1), T(0), out);
    return;
  }
  T n[16], square[16];
  horn_matrix(s, n);
  for (int i = 0; i < 4; ++i) n[5 * i] += total;  // all eigenvalues lie in [-total, total]
#pragma unroll 1
  for (int round = 0; round < SQUARINGS; ++round) {
    const T trace = n[0] + n[5] + n[10] + n[15];
    for (int i = 0; i < 16; ++i) square[i] = n[i] / trace;
    for (int i = 0; i < 16; ++i) {
      const T *row = square + i / 4 * 4, *column = square + i % 4;
      n[i] = row[0] * column[0] + row[1] * column[4] + row[2] * column[8] + row[3] * column[12];
    }
  }
  int pivot = 0;
  for (int i = 1; i < 4; ++i) {
    if (n[5 * i] > n[5 * pivot]) pivot = i;
  }
  unitquat_to_rotmat(n + 4 * pivot, out);
}

// The bone to aim at, from the reconstructed joint, or the predicted one where that has drifted.
template <class T>
GLNET_BOTH inline Vec<T> target_bone(const T* points, int child, int joint, const T* placed,
                                     T length) {
  const Vec<T> aimed = load(points, child) - load(placed, joint);
  const Vec<T> predicted = load(points, child) - load(points, joint);
  const Vec<T> gap = aimed - length * unit<T>(predicted, {T(0), T(0), T(0)});
  return norm(gap) > Limits<T>::FALLBACK_M ? predicted : aimed;
}

// One joint, once its parent is done: where it stands, its local and its world rotation.
template <class T>
GLNET_BOTH inline void solve_joint(const T* points, T cosine, T sine, const T* rest, int joint,
                                   T* placed, T* local, T* world) {
  const int parent = PARENT[joint], child = BONE_CHILD[joint];
  const T* to_camera = world + 9 * parent;
  const Vec<T> offset = load(rest, joint) - load(rest, parent);
  put(placed, joint, load(placed, parent) + rotate(to_camera, offset));
  const Vec<T> bone = load(rest, child) - load(rest, joint);
  const T length = norm(bone);
  const Vec<T> axis = unit<T>(bone, {T(0), T(1), T(0)});
  const Vec<T> target = target_bone(points, child, joint, placed, length);
  Vec<T> direction = unit(rotate_back(to_camera, target), axis);
  if (length < Limits<T>::TINY_M) direction = axis;
  T swing[9], turn[9];
  swing_between(axis, direction, swing);
  axis_turn(axis, cosine, sine, turn);
  multiply(swing, turn, local + 9 * joint);
  multiply(to_camera, local + 9 * joint, world + 9 * joint);
}

// Camera rotations and positions of a posed skeleton, `world` [24, 9] and `points` [count, 3], from
// the root's position in `points`. The tree is descended level by level.
template <class T>
GLNET_BOTH inline void pose_skeleton(const T* local, const T* rest, int count, T* world,
                                     T* points) {
  each(9, [=](int i) { world[i] = local[i]; });
#pragma unroll 1
  for (int depth = 1; depth <= DEEPEST; ++depth) {
    each(count, [=](int k) {
      if (DEPTH[k] != depth) return;
      const int parent = PARENT[k];
      const Vec<T> bone = load(rest, k) - load(rest, parent);
      put(points, k, load(points, parent) + rotate(world + 9 * parent, bone));
      if (k < NUM_JOINTS) multiply(world + 9 * parent, local + 9 * k, world + 9 * k);
    });
  }
}

}  // namespace glnet
