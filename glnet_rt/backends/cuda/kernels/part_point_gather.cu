// The part-point gather's kernels. Compiled by nvcc into the TensorRT plugin's library and by NVRTC
// for its Python twin, so they include no CUDA header. Tensors start at multiples of 16 bytes;
// blocks are one-dimensional, as many as planar_blocks or interleaved_blocks says.
#include "part_point_gather.h"

namespace glnet {

template <class T, int N>
__device__ inline void gather_tile(const T* features, const float* points, T* output,
                                   const GatherShape& s) {
    __shared__ float tile[kTileFloats];
    const Tile at = tile_of(blockIdx.x, s);
    read_tile(features, points, s, at, threadIdx.x, tile);
    __syncthreads();
    write_tile<T, N>(tile, s, at, threadIdx.x, output);
}

}  // namespace glnet

#define GLNET_PLANAR(name, T, N)                                                              \
    extern "C" __global__ void __launch_bounds__(glnet::kTileThreads)                         \
        name(const T* __restrict__ features, const float* __restrict__ points,                \
             T* __restrict__ output, glnet::GatherShape shape) {                              \
        glnet::gather_tile<T, N>(features, points, output, shape);                            \
    }

GLNET_PLANAR(part_point_gather_float, float, 1)
GLNET_PLANAR(part_point_gather_float4, float, 4)  // C is a multiple of 4
GLNET_PLANAR(part_point_gather_half, glnet::Half, 1)
GLNET_PLANAR(part_point_gather_half2, glnet::Half, 2)  // C is even

extern "C" __global__ void __launch_bounds__(glnet::kGroupThreads)
    part_point_gather_hwc8(const glnet::Half* __restrict__ features,
                           const float* __restrict__ points, glnet::Half* __restrict__ output,
                           glnet::GatherShape shape) {
    const long long group = (long long)blockIdx.x * glnet::kGroupThreads + threadIdx.x;
    if (group < glnet::group_count(shape)) {
        glnet::gather_group(features, points, shape, group, output);
    }
}
