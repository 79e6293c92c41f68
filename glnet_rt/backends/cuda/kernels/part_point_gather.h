// The part-point gather: bilinear samples of each image's feature map at its own list of points.
//
// Letters: B images, C channels, H x W map, P points per image. A point is (x, y) in grid pixels;
// it is moved to the nearest place on the map, then the four pixels around it are mixed in float32:
// grid sampling with align_corners=True and padding_mode="border". A NaN coordinate reads pixel 0
// of its axis, as torch's grid_sample does.
//
// The kernels are in part_point_gather.cu. Sizes of the map stay below 2^24, up to where float32
// counts whole pixels.
#pragma once

#include "portable.h"

namespace glnet {

struct GatherShape {
  int batch, channels, height, width, points;
};

// IEEE binary16 by its bits, see portable.h.
struct Half {
  uint16_t bits;
};

// N neighbours that travel in one load or store.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T value[N];
};

GLNET_BOTH inline float to_float(float value) { return value; }

GLNET_BOTH inline float to_float(Half value) {
#if defined(__CUDA_ARCH__)
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value.bits));
  return out;
#else
  const float sign = value.bits & 0x8000 ? -1.0f : 1.0f;
  const int exponent = value.bits >> 10 & 0x1f;
  const int mantissa = value.bits & 0x3ff;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * ldexpf(float(mantissa), -24);
  return sign * ldexpf(float(mantissa | 0x400), exponent - 25);
#endif
}

template <class T>
GLNET_BOTH T from_float(float value);

template <>
GLNET_BOTH inline float from_float<float>(float value) {
  return value;
}

// To the nearest, ties to even, beyond 65504 to infinity.
template <>
GLNET_BOTH inline Half from_float<Half>(float value) {
#if defined(__CUDA_ARCH__)
  Half out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
  return out;
#else
  return {to_half(value)};
#endif
}

// Where a point reads: offsets in pixels of the four corners (y0 x0, y0 x1, y1 x0, y1 x1).
struct Footprint {
  int64_t corner[4];
  float weight[4];
};

GLNET_BOTH inline Footprint footprint(const float* point, int height, int width) {
  const float x = fminf(fmaxf(point[0], 0.0f), float(width - 1));  // fmaxf(NaN, 0) is 0
  const float y = fminf(fmaxf(point[1], 0.0f), float(height - 1));
  const int x0 = int(x), y0 = int(y);
  const int x1 = x0 + 1 < width ? x0 + 1 : x0;
  const int y1 = y0 + 1 < height ? y0 + 1 : y0;
  const float fx = x - float(x0), fy = y - float(y0);
  const int64_t top = int64_t(y0) * width, bottom = int64_t(y1) * width;
  return {{top + x0, top + x1, bottom + x0, bottom + x1},
          {(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy}};
}

GLNET_BOTH inline float mix(const Footprint& at, float a, float b, float c, float d) {
  return at.weight[0] * a + at.weight[1] * b + at.weight[2] * c + at.weight[3] * d;
}

GLNET_BOTH inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Which kernel serves, and how many blocks and threads of it.
struct Launch {
  const char* kernel;
  int64_t blocks;
  int threads;
};

// -- planar features, [B, C, H, W] ----------------------------------------------------------------
//
// What lies side by side in memory is a channel's pixels along x, but in the output [B, P, C] it is
// a point's channels. So lanes run over points to read, where the dense head's neighbouring pixels
// point at neighbouring places of one plane and share cache lines, and over channels to write; a
// tile in shared memory turns the one into the other. Scattered points touch a line each either
// way.

constexpr int kTile = 32;          // points, and channels, of a tile
constexpr int kPitch = kTile + 1;  // floats from channel to channel: no two lanes meet in a bank
constexpr int kRows = 8;           // channels that a block reads at once
constexpr int kTileThreads = kTile * kRows;
constexpr int kTileFloats = kTile * kPitch;

GLNET_BOTH inline int64_t planar_blocks(const GatherShape& s) {
  return int64_t(s.batch) * ceil_div(s.points, kTile) * ceil_div(s.channels, kTile);
}

struct Tile {
  int image, point, channel;  // the first of each
};

GLNET_BOTH inline Tile tile_of(int64_t block, const GatherShape& s) {
  const int channels = ceil_div(s.channels, kTile), points = ceil_div(s.points, kTile);
  const int64_t row = block / channels;
  return {int(row / points), int(row % points) * kTile, int(block % channels) * kTile};
}

// Thread 0 .. kTileThreads - 1 fills its part of the tile: one point, every kRows-th channel.
template <class T>
GLNET_BOTH inline void read_tile(const T* features, const float* points, const GatherShape& s,
                                 const Tile& at, int thread, float* tile) {
  const int point = thread % kTile;
  if (at.point + point >= s.points) return;
  const int64_t listed = int64_t(at.image) * s.points + at.point + point;
  const Footprint from = footprint(points + 2 * listed, s.height, s.width);
  const int64_t plane = int64_t(s.height) * s.width;
  const T* map = features + (int64_t(at.image) * s.channels + at.channel) * plane;
  const int last = s.channels - at.channel - 1;
#pragma unroll
  for (int k = 0; k < kTile / kRows; ++k) {
    const int c = thread / kTile + k * kRows;
    const T* in = map + (c < last ? c : last) * plane;  // no branch: all loads fly at once
    const float value = mix(from, to_float(in[from.corner[0]]), to_float(in[from.corner[1]]),
                            to_float(in[from.corner[2]]), to_float(in[from.corner[3]]));
    if (c <= last) tile[c * kPitch + point] = value;
  }
}

// After every thread has read: writes its part of the tile, N channels at a time. N divides C.
template <class T, int N>
GLNET_BOTH inline void write_tile(const float* tile, const GatherShape& s, const Tile& at,
                                  int thread, T* output) {
  constexpr int kPacks = kTile / N;
#pragma unroll
  for (int k = 0; k < kPacks / kRows; ++k) {
    const int i = thread + k * kTileThreads;
    const int point = i / kPacks, channel = i % kPacks * N;
    if (at.point + point >= s.points || at.channel + channel >= s.channels) continue;
    Pack<T, N> out;
    for (int j = 0; j < N; ++j) {
      out.value[j] = from_float<T>(tile[(channel + j) * kPitch + point]);
    }
    const int64_t listed = int64_t(at.image) * s.points + at.point + point;
    *reinterpret_cast<Pack<T, N>*>(output + listed * s.channels + at.channel + channel) = out;
  }
}

// -- interleaved features, [B, H, W, C padded to a multiple of 8]
// -----------------------------------
//
// Half-precision convolutions on tensor cores leave their output this way (TensorRT's kHWC8).
// Taking it as it is saves a pass over the whole map, of which a sparse head reads 29 pixels; and
// channels lie side by side on both ends, so a thread moves 16 bytes at a time and no tile is
// needed.

constexpr int kGroup = 8;  // channels of a thread
constexpr int kGroupThreads = 128;

GLNET_BOTH inline int64_t group_count(const GatherShape& s) {
  return int64_t(s.batch) * s.points * ceil_div(s.channels, kGroup);
}

GLNET_BOTH inline int64_t interleaved_blocks(const GatherShape& s) {
  return (group_count(s) + kGroupThreads - 1) / kGroupThreads;
}

// `group`: which eight channels of which point, 0 .. group_count - 1.
GLNET_BOTH inline void gather_group(const Half* features, const float* points, const GatherShape& s,
                                    int64_t group, Half* output) {
  using Eight = Pack<Half, kGroup>;
  const int groups = ceil_div(s.channels, kGroup);
  const int channel = int(group % groups) * kGroup;
  const int64_t listed = group / groups, image = listed / s.points;
  const Footprint from = footprint(points + 2 * listed, s.height, s.width);
  const Half* map = features + image * s.height * s.width * groups * kGroup + channel;
  Eight in[4], out;
  for (int k = 0; k < 4; ++k) {
    in[k] = *reinterpret_cast<const Eight*>(map + from.corner[k] * groups * kGroup);
  }
  for (int j = 0; j < kGroup; ++j) {
    out.value[j] = from_float<Half>(mix(from, to_float(in[0].value[j]), to_float(in[1].value[j]),
                                        to_float(in[2].value[j]), to_float(in[3].value[j])));
  }
  Half* to = output + listed * s.channels + channel;
  if (s.channels % kGroup == 0) {
    *reinterpret_cast<Eight*>(to) = out;
  } else {
    for (int j = 0; j < kGroup && channel + j < s.channels; ++j) to[j] = out.value[j];
  }
}

// The kernel for these features; a Python twin of this stands in backends/gather_twin.py.
GLNET_BOTH inline Launch launch_of(const GatherShape& s, bool half, bool interleaved) {
  if (interleaved) return {"part_point_gather_hwc8", interleaved_blocks(s), kGroupThreads};
  const char* kernel = "part_point_gather_float";
  if (half) {
    kernel = s.channels % 2 ? "part_point_gather_half" : "part_point_gather_half2";
  } else if (s.channels % 4 == 0) {
    kernel = "part_point_gather_float4";
  }
  return {kernel, planar_blocks(s), kTileThreads};
}

}  // namespace glnet
