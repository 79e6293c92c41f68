// The kernels as plain C++ functions, and what tests ask besides them.
#include "part_point_gather.cu"

extern "C" {

const char* kernel_of(const glnet::GatherShape* shape, bool half, bool interleaved, int64_t* blocks,
                      int* threads) {
  const glnet::Launch plan = glnet::launch_of(*shape, half, interleaved);
  *blocks = plan.blocks;
  *threads = plan.threads;
  return plan.kernel;
}

float float_of(uint16_t bits) { return glnet::to_float(glnet::Half{bits}); }
}
