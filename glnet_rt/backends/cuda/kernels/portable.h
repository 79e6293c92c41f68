// What lets one source be a GPU kernel under NVRTC and plain C++ under g++.
//
// A kernel is written for a team: threads of one block, or one CPU thread. `team.each(n, f)` calls
// f(0) .. f(n - 1) in any order, perhaps at once, and returns when all are done, so an f may write
// only what no other f of the same call touches. All that outlives a call lies in shared memory.
#pragma once

#if defined(__CUDACC__)
#define GLNET_BOTH __host__ __device__
#else
#define GLNET_BOTH
#endif

#if !defined(__CUDACC_RTC__)
#include <cmath>
#include <cstddef>
#include <cstdint>
#endif
