#include "launch.h"

#include <climits>
#include <cstring>

#include "part_point_gather.cu"

namespace glnet {
namespace {

struct Entry {
    const char* name;
    const void* kernel;
};

#define GLNET_ENTRY(kernel) {#kernel, reinterpret_cast<const void*>(&kernel)}
const Entry kKernels[] = {
    GLNET_ENTRY(part_point_gather_float), GLNET_ENTRY(part_point_gather_float4),
    GLNET_ENTRY(part_point_gather_half),  GLNET_ENTRY(part_point_gather_half2),
    GLNET_ENTRY(part_point_gather_hwc8),
};

const void* kernel_named(const char* name) {
    for (const Entry& entry : kKernels) {
        if (std::strcmp(entry.name, name) == 0) return entry.kernel;
    }
    return nullptr;
}

}  // namespace

cudaError_t launch(const Gather& gather, cudaStream_t stream) noexcept {
    const Launch plan = launch_of(gather.shape, gather.half, gather.interleaved);
    if (plan.blocks == 0) return cudaSuccess;
    if (plan.blocks > INT_MAX) return cudaErrorInvalidConfiguration;
    Gather copy = gather;
    void* arguments[] = {&copy.features, &copy.points, &copy.output, &copy.shape};
    return cudaLaunchKernel(kernel_named(plan.kernel), dim3(static_cast<unsigned>(plan.blocks)),
                            dim3(plan.threads), arguments, 0, stream);
}

}  // namespace glnet
