// The same as a library, for tests/export/test_part_point_gather.py.
#include "part_point_gather_cpu.h"

extern "C" {

void gather(const void* features, const float* points, void* output, int batch, int channels,
            int height, int width, int count, bool half, bool interleaved) {
    const glnet::GatherShape shape{batch, channels, height, width, count};
    glnet::gather_cpu(features, points, output, shape, half, interleaved);
}

const char* kernel_of(int batch, int channels, int height, int width, int count, bool half,
                      bool interleaved, long long* blocks, int* threads) {
    const glnet::GatherShape shape{batch, channels, height, width, count};
    const glnet::Launch plan = glnet::launch_of(shape, half, interleaved);
    *blocks = plan.blocks;
    *threads = plan.threads;
    return plan.kernel;
}

unsigned short half_of(float value) { return glnet::from_float<glnet::Half>(value).bits; }

float float_of(unsigned short bits) { return glnet::to_float(glnet::Half{bits}); }
}
