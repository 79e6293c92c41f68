// Runs the kernels' source on the CPU against float64, in buffers of exactly their size, so that a
// sanitizer sees every access beyond an end. Exit code 0 and one line: all is well.
#include "part_point_gather.cu"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using glnet::GatherShape;
using glnet::Half;

std::mt19937 random_bits(1);

float uniform(float low, float high) {
  return std::uniform_real_distribution<float>(low, high)(random_bits);
}

using Kernel = void (*)(const unsigned*, const unsigned*, void**, int);

Kernel kernel_named(const std::string& name) {
  static const std::map<std::string, Kernel> kernels{
      {"part_point_gather_float", launch_part_point_gather_float},
      {"part_point_gather_float4", launch_part_point_gather_float4},
      {"part_point_gather_half", launch_part_point_gather_half},
      {"part_point_gather_half2", launch_part_point_gather_half2},
      {"part_point_gather_hwc8", launch_part_point_gather_hwc8},
  };
  return kernels.at(name);
}

void run_kernel(const void* features, const float* points, void* output, GatherShape shape,
                bool half, bool interleaved) {
  const glnet::Launch plan = glnet::launch_of(shape, half, interleaved);
  const unsigned grid[] = {unsigned(plan.blocks), 1, 1}, block[] = {unsigned(plan.threads), 1, 1};
  void* arguments[] = {&features, &points, &output, &shape};
  for (int backwards : {0, 1}) kernel_named(plan.kernel)(grid, block, arguments, backwards);
}

// 16-byte aligned and not one byte longer than needed.
template <class T>
struct Buffer {
  explicit Buffer(size_t count)
      : size(count), data(new (std::align_val_t(16)) T[count], [](T* p) {
          ::operator delete[](p, std::align_val_t(16));
        }) {}
  size_t size;
  std::shared_ptr<T> data;
  T& operator[](size_t i) { return data.get()[i]; }
};

double at(const std::vector<float>& map, const GatherShape& s, int b, int c, int y, int x) {
  return map[((size_t(b) * s.channels + c) * s.height + y) * s.width + x];
}

// The definition, in float64: clamp the point into the map, mix the four pixels around it.
double expected(const std::vector<float>& map, const GatherShape& s, int b, int c, double x,
                double y) {
  x = std::fmin(std::fmax(x, 0.0), s.width - 1.0);
  y = std::fmin(std::fmax(y, 0.0), s.height - 1.0);
  const int x0 = int(x), y0 = int(y);
  const int x1 = std::min(x0 + 1, s.width - 1), y1 = std::min(y0 + 1, s.height - 1);
  const double fx = x - x0, fy = y - y0;
  return (1 - fy) * ((1 - fx) * at(map, s, b, c, y0, x0) + fx * at(map, s, b, c, y0, x1)) +
         fy * ((1 - fx) * at(map, s, b, c, y1, x0) + fx * at(map, s, b, c, y1, x1));
}

void fill_points(Buffer<float>& points, const GatherShape& s) {
  const float odd[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e30f, -1e-30f, 0.5f};
  for (size_t i = 0; i < points.size; ++i) {
    const float side = float(i % 2 ? s.height : s.width);
    points[i] = i % 3 == 0 ? odd[i / 3 % 7] : uniform(-2, side + 1);
    if (i % 3 == 1) points[i] = std::floor(points[i]);
  }
}

template <class T>
double error_of(const GatherShape& s, bool interleaved) {
  const int padded = interleaved ? glnet::ceil_div(s.channels, 8) * 8 : s.channels;
  std::vector<float> map(size_t(s.batch) * s.channels * s.height * s.width);
  Buffer<T> features(size_t(s.batch) * padded * s.height * s.width);
  for (size_t i = 0; i < features.size; ++i) features[i] = glnet::from_float<T>(NAN);
  const size_t plane = size_t(s.height) * s.width;
  for (size_t i = 0; i < map.size(); ++i) {
    const size_t c = i / plane % s.channels, b = i / plane / s.channels;
    const T value = glnet::from_float<T>(uniform(-1, 1));
    map[i] = glnet::to_float(value);
    features[interleaved ? (b * plane + i % plane) * padded + c : i] = value;
  }
  Buffer<float> points(size_t(s.batch) * s.points * 2);
  fill_points(points, s);
  Buffer<T> output(size_t(s.batch) * s.points * s.channels);
  for (size_t i = 0; i < output.size; ++i) output[i] = glnet::from_float<T>(NAN);
  run_kernel(features.data.get(), points.data.get(), output.data.get(), s,
             sizeof(T) == sizeof(Half), interleaved);
  double worst = 0;
  for (size_t i = 0; i < output.size; ++i) {
    const size_t p = i / s.channels;
    const double want =
        expected(map, s, int(p / s.points), int(i % s.channels), points[2 * p], points[2 * p + 1]);
    const double error = std::fabs(double(glnet::to_float(output[i])) - want);
    if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
  }
  return worst;
}

}  // namespace

int main() {
  const double kFloat = 1e-6, kHalf = 2.5e-4;  // half a step of binary16 below 1
  double floats = 0, halves = 0;
  int cases = 0;
  for (int batch : {1, 3}) {
    for (int channels : {1, 2, 4, 5, 8, 31, 32, 33, 64, 70}) {
      for (auto [height, width] : {std::pair{1, 1}, {1, 9}, {9, 1}, {2, 2}, {7, 13}}) {
        for (int points : {0, 1, 29, 32, 33, 64}) {
          const GatherShape s{batch, channels, height, width, points};
          floats = std::fmax(floats, error_of<float>(s, false));
          halves = std::fmax(halves, error_of<Half>(s, false));
          halves = std::fmax(halves, error_of<Half>(s, true));
          cases += 3;
        }
      }
    }
  }
  std::printf("%d cases, largest error %.2e (float32), %.2e (binary16)\n", cases, floats, halves);
  return floats <= kFloat && halves <= kHalf ? 0 : 1;
}
