// Vectors and 3 x 3 matrices, row by row, in any scalar type.
#pragma once

#include "portable.h"

namespace glnet {

template <class T>
struct Vec {
  T x, y, z;
};

template <class T>
GLNET_BOTH inline Vec<T> load(const T* rows, int i) {
  return {rows[3 * i], rows[3 * i + 1], rows[3 * i + 2]};
}

template <class T>
GLNET_BOTH inline void put(T* rows, int i, const Vec<T>& v) {
  rows[3 * i] = v.x;
  rows[3 * i + 1] = v.y;
  rows[3 * i + 2] = v.z;
}

template <class T>
GLNET_BOTH inline Vec<T> operator+(const Vec<T>& a, const Vec<T>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <class T>
GLNET_BOTH inline Vec<T> operator-(const Vec<T>& a, const Vec<T>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <class T>
GLNET_BOTH inline Vec<T> operator*(T factor, const Vec<T>& v) {
  return {factor * v.x, factor * v.y, factor * v.z};
}

template <class T>
GLNET_BOTH inline T dot(const Vec<T>& a, const Vec<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <class T>
GLNET_BOTH inline Vec<T> cross(const Vec<T>& a, const Vec<T>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class T>
GLNET_BOTH inline T norm(const Vec<T>& v) {
  return sqrt(dot(v, v));
}

// m v and mᵀ v.
template <class T>
GLNET_BOTH inline Vec<T> rotate(const T* m, const Vec<T>& v) {
  return {dot(load(m, 0), v), dot(load(m, 1), v), dot(load(m, 2), v)};
}

template <class T>
GLNET_BOTH inline Vec<T> rotate_back(const T* m, const Vec<T>& v) {
  return v.x * load(m, 0) + v.y * load(m, 1) + v.z * load(m, 2);
}

// out = a b; out may be neither.
template <class T>
GLNET_BOTH inline void multiply(const T* a, const T* b, T* out) {
  for (int i = 0; i < 3; ++i) put(out, i, rotate_back(b, load(a, i)));
}

// out = aᵀ b; out may be neither.
template <class T>
GLNET_BOTH inline void multiply_transposed(const T* a, const T* b, T* out) {
  for (int i = 0; i < 3; ++i) {
    const Vec<T> column = {a[i], a[3 + i], a[6 + i]};
    put(out, i, rotate_back(b, column));
  }
}

template <class T>
GLNET_BOTH inline void add_skew(const Vec<T>& v, T factor, T* out) {
  out[1] -= factor * v.z;
  out[2] += factor * v.y;
  out[3] += factor * v.z;
  out[5] -= factor * v.x;
  out[6] -= factor * v.y;
  out[7] += factor * v.x;
}

// k v vᵀ + diagonal I.
template <class T>
GLNET_BOTH inline void outer(const Vec<T>& v, T k, T diagonal, T* out) {
  put(out, 0, (k * v.x) * v);
  put(out, 1, (k * v.y) * v);
  put(out, 2, (k * v.z) * v);
  for (int i = 0; i < 3; ++i) out[4 * i] += diagonal;
}

// Rotation about a unit axis by the angle of (cos, sin), of any length; (0, 0) turns nothing.
template <class T>
GLNET_BOTH inline void axis_turn(const Vec<T>& axis, T cosine, T sine, T* out) {
  const T length = sqrt(cosine * cosine + sine * sine);
  cosine = length < T(1e-12) ? T(1) : cosine / length;
  sine = length < T(1e-12) ? T(0) : sine / length;
  outer(axis, T(1) - cosine, cosine, out);
  add_skew(axis, sine, out);
}

}  // namespace glnet
