// The one call between the plugin class, which knows TensorRT, and the kernels, which do not.
#pragma once

#include <cuda_runtime_api.h>

namespace glnet {

struct Gather {
  int batch, channels, height, width, points;
  bool half;         // features and output are binary16, else float32
  bool interleaved;  // features are [B, H, W, C padded to 8], else [B, C, H, W]
  const void* features;
  const void* coordinates;  // [B, P, 2] float32
  void* output;             // [B, P, C]
};

// Queues the gather on the stream; it allocates nothing, so a CUDA graph can capture it.
cudaError_t launch_gather(const Gather& gather, cudaStream_t stream) noexcept;

}  // namespace glnet
