#include <climits>
#include <cstring>

#include "launch.h"
#include "part_point_gather.cu"

namespace glnet {
namespace {

struct Kernel {
  const char* name;
  const void* function;
};

#define KERNEL(kernel) {#kernel, reinterpret_cast<const void*>(&kernel)}
const Kernel kKernels[] = {
    KERNEL(part_point_gather_float), KERNEL(part_point_gather_float4),
    KERNEL(part_point_gather_half),  KERNEL(part_point_gather_half2),
    KERNEL(part_point_gather_hwc8),
};

const void* kernel_named(const char* name) {
  for (const Kernel& kernel : kKernels) {
    if (std::strcmp(kernel.name, name) == 0) return kernel.function;
  }
  return nullptr;  // which cudaLaunchKernel refuses
}

}  // namespace

cudaError_t launch_gather(const Gather& gather, cudaStream_t stream) noexcept {
  GatherShape shape{gather.batch, gather.channels, gather.height, gather.width, gather.points};
  const Launch plan = launch_of(shape, gather.half, gather.interleaved);
  if (plan.blocks == 0) return cudaSuccess;
  if (plan.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  Gather copy = gather;
  void* arguments[] = {&copy.features, &copy.coordinates, &copy.output, &shape};
  return cudaLaunchKernel(kernel_named(plan.kernel), dim3(static_cast<unsigned>(plan.blocks)),
                          dim3(plan.threads), arguments, 0, stream);
}

}  // namespace glnet
