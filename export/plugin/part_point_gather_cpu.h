// The part-point gather on the CPU: every block and every thread of a kernel, one after another.
#pragma once

#include "part_point_gather.h"

namespace glnet {

template <class T, int N>
void gather_planar_cpu(const T* features, const float* points, T* output, const GatherShape& s) {
    float tile[kTileFloats];
    for (long long block = 0; block < planar_blocks(s); ++block) {
        const Tile at = tile_of(block, s);
        for (float& value : tile) value = NAN;  // what no thread writes must not be read
        for (int t = 0; t < kTileThreads; ++t) read_tile(features, points, s, at, t, tile);
        for (int t = 0; t < kTileThreads; ++t) write_tile<T, N>(tile, s, at, t, output);
    }
}

inline void gather_interleaved_cpu(const Half* features, const float* points, Half* output,
                                   const GatherShape& s) {
    const long long threads = interleaved_blocks(s) * kGroupThreads;
    for (long long group = 0; group < threads; ++group) {
        if (group < group_count(s)) gather_group(features, points, s, group, output);
    }
}

// Runs the kernel that launch_of names.
inline void gather_cpu(const void* features, const float* points, void* output,
                       const GatherShape& s, bool half, bool interleaved) {
    const auto* floats = static_cast<const float*>(features);
    const auto* halves = static_cast<const Half*>(features);
    auto* to_floats = static_cast<float*>(output);
    auto* to_halves = static_cast<Half*>(output);
    if (interleaved) {
        gather_interleaved_cpu(halves, points, to_halves, s);
    } else if (half && s.channels % 2 == 0) {
        gather_planar_cpu<Half, 2>(halves, points, to_halves, s);
    } else if (half) {
        gather_planar_cpu<Half, 1>(halves, points, to_halves, s);
    } else if (s.channels % 4 == 0) {
        gather_planar_cpu<float, 4>(floats, points, to_floats, s);
    } else {
        gather_planar_cpu<float, 1>(floats, points, to_floats, s);
    }
}

}  // namespace glnet
