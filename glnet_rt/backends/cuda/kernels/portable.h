// What lets one source be a GPU kernel under NVRTC and plain C++ under g++.
//
// On a CPU a launch runs its blocks one after the other and each block as one thread, which does
// what all threads of the block would: the loops below hold both forms. Work inside one `each` or
// one `for_all` may run in any order, perhaps at once, so it may write only what no other part of
// the same loop touches. What outlives a loop of a block lies in shared memory.
#pragma once

#if defined(__CUDACC__)
#define GLNET_BOTH __host__ __device__
#define GLNET_TABLE __constant__ const
#define GLNET_ENTRY(kernel)
#else
#define GLNET_BOTH
#define GLNET_TABLE static const
#define __global__
#define __shared__ static thread_local
#endif

#if defined(__CUDACC_RTC__)
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#endif

namespace glnet {

#if !defined(__CUDACC__)
struct Index3 {
  unsigned x, y, z;
};
static thread_local Index3 blockIdx, blockDim, gridDim;
static thread_local bool backwards = false;  // tests run every loop both ways: a race would show
#endif

#if !defined(__CUDACC_RTC__)
using std::cos;
using std::floor;
using std::rint;
using std::sin;
using std::sqrt;
#endif

// f(0) .. f(count - 1), shared out over the threads of the block, which then wait for each other.
// All threads of the block must get here.
template <class F>
GLNET_BOTH inline void each(int count, F f) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += blockDim.x) f(i);
  __syncthreads();
#else
#if !defined(__CUDACC__)
  if (backwards) {
    for (int i = count - 1; i >= 0; --i) f(i);
    return;
  }
#endif
  for (int i = 0; i < count; ++i) f(i);
#endif
}

// f(0) .. f(count - 1), shared out over all threads of the grid; blocks do not wait for each other.
template <class F>
GLNET_BOTH inline void for_all(uint32_t count, F f) {
#if defined(__CUDA_ARCH__)
  const uint32_t stride = gridDim.x * blockDim.x;
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) f(i);
#elif !defined(__CUDACC__)
  const uint32_t stride = gridDim.x * blockDim.x;
  for (uint32_t first = blockIdx.x * blockDim.x; first < count; first += stride) {
    for (uint32_t i = first; i < first + blockDim.x && i < count; ++i) f(i);
  }
#endif
}

GLNET_BOTH inline float from_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  union { uint32_t bits; float value; } both = {bits};
  return both.value;
#endif
}

GLNET_BOTH inline uint32_t to_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  union { float value; uint32_t bits; } both = {value};
  return both.bits;
#endif
}

// IEEE half, rounded to nearest, ties to even: without cuda_fp16.h, which NVRTC's wheel lacks.
GLNET_BOTH inline uint16_t to_half(float value) {
  const uint32_t bits = to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the half's bits at the bottom
    const float shifted = from_bits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

template <class T>
GLNET_BOTH inline bool is_finite(T value) {
  return value - value == T(0);
}

}  // namespace glnet

#if !defined(__CUDACC__)
// A CPU entry for a kernel: `launch_NAME(grid, block, arguments)`, arguments as cuLaunchKernel takes
// them, one pointer each.
namespace glnet {
template <class... P, size_t... I>
inline void launch(void (*kernel)(P...), const unsigned* grid, const unsigned* block,
                   void** arguments, std::index_sequence<I...>) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  for (unsigned z = 0; z < grid[2]; ++z) {
    for (unsigned y = 0; y < grid[1]; ++y) {
      for (unsigned x = 0; x < grid[0]; ++x) {
        blockIdx = {x, y, z};
        kernel(*static_cast<P*>(arguments[I])...);
      }
    }
  }
}
template <class... P>
inline void launch(void (*kernel)(P...), const unsigned* grid, const unsigned* block,
                   void** arguments) {
  launch(kernel, grid, block, arguments, std::make_index_sequence<sizeof...(P)>());
}
// How many arguments there are, and the bytes of each.
template <class... P>
inline int argument_sizes(void (*)(P...), int* sizes) {
  const int each[] = {static_cast<int>(sizeof(P))...};
  for (size_t i = 0; i < sizeof...(P); ++i) sizes[i] = each[i];
  return static_cast<int>(sizeof...(P));
}
}  // namespace glnet
#define GLNET_ENTRY(kernel)                                                              \
  extern "C" void launch_##kernel(const unsigned* grid, const unsigned* block,           \
                                  void** arguments, int backwards) {                     \
    glnet::backwards = backwards != 0;                                                   \
    glnet::launch(kernel, grid, block, arguments);                                       \
  }                                                                                      \
  extern "C" int arguments_##kernel(int* sizes) {                                        \
    return glnet::argument_sizes(kernel, sizes);                                         \
  }
using glnet::blockIdx;
using glnet::blockDim;
using glnet::gridDim;
#endif
