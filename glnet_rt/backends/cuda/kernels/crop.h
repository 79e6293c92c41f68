// Box -> network input, by the rule of `glnet_rt/crop.py`: halve the window under the square by
// 2 x 2 means, rounded each time as the bytes there are, then sample it bilinearly.
#pragma once

#include "frame.h"

namespace glnet {

constexpr int MAX_HALVINGS = 24;

// Bits 0, 2, 4, ... of a number, moved together: x of the Morton index x | y << 1.
GLNET_BOTH inline uint32_t every_other_bit(uint64_t n) {
  n &= 0x5555555555555555ull;
  n = (n | (n >> 1)) & 0x3333333333333333ull;
  n = (n | (n >> 2)) & 0x0f0f0f0f0f0f0f0full;
  n = (n | (n >> 4)) & 0x00ff00ff00ff00ffull;
  n = (n | (n >> 8)) & 0x0000ffff0000ffffull;
  return static_cast<uint32_t>(n | (n >> 16));
}

// The mean of each of four summed channels, halves up; 10 bits a channel hold the sum of 4 bytes.
GLNET_BOTH inline uint32_t mean_of_four(uint32_t sums) {
  return ((sums + ((2u << 20) | (2u << 10) | 2u)) >> 2) & ((255u << 20) | (255u << 10) | 255u);
}

// One pixel of the window after `halvings`, channels b | g << 10 | r << 20. Pixels are visited in
// Morton order, in which four quarters end just when their mean is wanted; what overhangs the
// window is black and is skipped in the largest blocks that fit.
GLNET_BOTH inline uint32_t halved_pixel(const uint8_t* window, int64_t stride, uint32_t columns,
                                        uint32_t rows, int halvings, uint32_t x, uint32_t y) {
  uint32_t sums[MAX_HALVINGS] = {};
  uint32_t value = 0;
  const uint64_t count = uint64_t(1) << (2 * halvings);
  for (uint64_t i = 0; i < count;) {
    const uint64_t column = (uint64_t(x) << halvings) + every_other_bit(i);
    const uint64_t row = (uint64_t(y) << halvings) + every_other_bit(i >> 1);
    int level = 0;
    value = 0;
    if (column >= columns || row >= rows) {
      while (level < halvings && (i & ((uint64_t(4) << (2 * level)) - 1)) == 0) ++level;
    } else {
      const uint8_t* bgr = window + static_cast<int64_t>(row) * stride + 3 * column;
      value = bgr[0] | (uint32_t(bgr[1]) << 10) | (uint32_t(bgr[2]) << 20);
    }
    i += uint64_t(1) << (2 * level);
    for (; level < halvings; ++level) {
      value += sums[level];
      if ((i >> (2 * level)) & 3u) {
        sums[level] = value;
        break;
      }
      sums[level] = 0;
      value = mean_of_four(value);
    }
  }
  return value;
}

GLNET_BOTH inline int halved(int extent, int halvings) {
  return static_cast<int>((int64_t(extent) + (int64_t(1) << halvings) - 1) >> halvings);
}

// Pixel `i` of the scratch [people, side, side], which holds every person's halved window.
GLNET_BOTH inline void reduce_pixel(const FrameParams& frame, uint32_t* scratch, int side,
                                    uint32_t i) {
  const PersonParams& person = frame.person[i / (side * side)];
  const int x = i % side, y = i / side % side;
  if (x >= halved(person.columns, person.halvings) || y >= halved(person.rows, person.halvings)) {
    return;
  }
  const uint8_t* pixels = reinterpret_cast<const uint8_t*>(frame.frame);
  const uint8_t* window = pixels + static_cast<int64_t>(person.first_row) * frame.stride +
                          3 * static_cast<int64_t>(person.first_column);
  scratch[i] = halved_pixel(window, frame.stride, person.columns, person.rows, person.halvings, x, y);
}

// One pixel of the halved window, black outside of it.
GLNET_BOTH inline uint32_t window_pixel(const uint32_t* window, int side, int width, int height,
                                        int x, int y) {
  const bool inside = x >= 0 && y >= 0 && x < width && y < height;
  return inside ? window[y * side + x] : 0u;
}

// One pixel of a crop: its three values, RGB, as whole numbers 0 .. 255.
template <class T>
GLNET_BOTH inline void sample_pixel(const PersonParams& person, const uint32_t* window, int side,
                                    int column, int row, T rgb[3]) {
  const int width = halved(person.columns, person.halvings);
  const int height = halved(person.rows, person.halvings);
  const T x = T(person.scale) * T(column) + T(person.shift_x);
  const T y = T(person.scale) * T(row) + T(person.shift_y);
  // Outside by far, a float would not fit an int: black all the same.
  if (!(x > T(-1) && y > T(-1) && x < T(width) && y < T(height))) {
    rgb[0] = rgb[1] = rgb[2] = T(0);
    return;
  }
  const T left = floor(x), top = floor(y);
  const T across = x - left, down = y - top;
  const int x0 = static_cast<int>(left), y0 = static_cast<int>(top);
  const uint32_t a = window_pixel(window, side, width, height, x0, y0);
  const uint32_t b = window_pixel(window, side, width, height, x0 + 1, y0);
  const uint32_t c = window_pixel(window, side, width, height, x0, y0 + 1);
  const uint32_t d = window_pixel(window, side, width, height, x0 + 1, y0 + 1);
  for (int channel = 0; channel < 3; ++channel) {
    const int bit = 20 - 10 * channel;
    const T left_top = T((a >> bit) & 255u), left_bottom = T((c >> bit) & 255u);
    const T upper = left_top + across * (T((b >> bit) & 255u) - left_top);
    const T lower = left_bottom + across * (T((d >> bit) & 255u) - left_bottom);
    rgb[channel] = rint(upper + down * (lower - upper));
  }
}

// x * gain - bias is (x / 255 - mean) / std.
struct Normalisation {
  float gain[3], bias[3];
};

GLNET_BOTH inline void store(float* out, uint64_t i, float value) { out[i] = value; }
GLNET_BOTH inline void store(uint16_t* out, uint64_t i, float value) { out[i] = to_half(value); }

// Pixel `i` of [bucket, S, S], all three channels; padding is zeros.
template <class Out>
GLNET_BOTH inline void fill_pixel(const FrameParams& frame, const uint32_t* scratch, int side,
                                  const Normalisation& norm, int size, Out* batch, uint32_t i) {
  const int column = i % size, row = i / size % size, b = i / (size * size);
  const uint64_t area = uint64_t(size) * size;
  const uint64_t first = 3 * area * b + uint64_t(row) * size + column;
  float rgb[3] = {};
  if (b < frame.people) {
    const uint32_t* window = scratch + uint64_t(side) * side * b;
    sample_pixel<float>(frame.person[b], window, side, column, row, rgb);
  }
  for (int channel = 0; channel < 3; ++channel) {
    const float value = rgb[channel] * norm.gain[channel] - norm.bias[channel];
    store(batch, first + area * channel, b < frame.people ? value : 0.0f);
  }
}

// All of [bucket, S, S], shared out over the grid.
template <class Out>
GLNET_BOTH inline void fill_batch(const FrameParams* frame, const uint32_t* scratch, int side,
                                  const Normalisation* norm, int size, int bucket, Out* batch) {
  for_all(bucket * size * size,
          [=](uint32_t i) { fill_pixel(*frame, scratch, side, *norm, size, batch, i); });
}

}  // namespace glnet
