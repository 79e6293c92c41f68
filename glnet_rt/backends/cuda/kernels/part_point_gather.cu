// The part-point gather's kernels. nvcc compiles them into the TensorRT plugin's library and NVRTC
// for its Python twin. Tensors start at multiples of 16 bytes. Which kernel serves, in how many
// blocks of how many threads, says launch_of.
#include "part_point_gather.h"

namespace glnet {

template <class T, int N>
GLNET_BOTH inline void gather_tile(const T* features, const float* points, T* output,
                                   const GatherShape& s) {
#if defined(__CUDA_ARCH__) || !defined(__CUDACC__)
  __shared__ float tile[kTileFloats];
  const Tile at = tile_of(blockIdx.x, s);
  each(kTileThreads, [&](int thread) { read_tile(features, points, s, at, thread, tile); });
  each(kTileThreads, [&](int thread) { write_tile<T, N>(tile, s, at, thread, output); });
#endif
}

}  // namespace glnet

#define GLNET_PLANAR(name, T, N)                                                            \
  extern "C" __global__ void name(const T* __restrict__ features,                           \
                                  const float* __restrict__ points, T* __restrict__ output, \
                                  glnet::GatherShape shape) {                               \
    glnet::gather_tile<T, N>(features, points, output, shape);                              \
  }                                                                                         \
  GLNET_ENTRY(name)

GLNET_PLANAR(part_point_gather_float, float, 1)
GLNET_PLANAR(part_point_gather_float4, float, 4)  // C is a multiple of 4
GLNET_PLANAR(part_point_gather_half, glnet::Half, 1)
GLNET_PLANAR(part_point_gather_half2, glnet::Half, 2)  // C is even

extern "C" __global__ void part_point_gather_hwc8(const glnet::Half* __restrict__ features,
                                                  const float* __restrict__ points,
                                                  glnet::Half* __restrict__ output,
                                                  glnet::GatherShape shape) {
  glnet::for_all(glnet::group_count(shape), [&](uint32_t group) {
    glnet::gather_group(features, points, shape, group, output);
  });
}
GLNET_ENTRY(part_point_gather_hwc8)
