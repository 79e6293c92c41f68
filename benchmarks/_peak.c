/* Operations per second of one core at its best: registers alone, no memory. */
#include <stdio.h>
#include <time.h>

#define ROUNDS 1000000L
#define PASSES 30 /* the best counts: whatever interrupts a pass only makes it slower */

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Twelve sums that do not wait for each other cover the latency of two units. */
#define TWELVE(OP)                                                                           \
  OP " %%zmm12, %%zmm13, %%zmm0\n" OP " %%zmm12, %%zmm13, %%zmm1\n"                          \
  OP " %%zmm12, %%zmm13, %%zmm2\n" OP " %%zmm12, %%zmm13, %%zmm3\n"                          \
  OP " %%zmm12, %%zmm13, %%zmm4\n" OP " %%zmm12, %%zmm13, %%zmm5\n"                          \
  OP " %%zmm12, %%zmm13, %%zmm6\n" OP " %%zmm12, %%zmm13, %%zmm7\n"                          \
  OP " %%zmm12, %%zmm13, %%zmm8\n" OP " %%zmm12, %%zmm13, %%zmm9\n"                          \
  OP " %%zmm12, %%zmm13, %%zmm10\n" OP " %%zmm12, %%zmm13, %%zmm11\n"

#define KERNEL(NAME, OP)                                                                     \
  __attribute__((target("avx512f"))) static double NAME(void) {                              \
    double best = 0;                                                                         \
    for (int pass = 0; pass < PASSES; ++pass) {                                              \
      double start = seconds();                                                              \
      for (long r = 0; r < ROUNDS; ++r)                                                      \
        __asm__ volatile(TWELVE(OP)::: "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5",       \
                         "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11");                  \
      double found = 12e-9 * ROUNDS / (seconds() - start);                                   \
      if (found > best) best = found;                                                        \
    }                                                                                        \
    return best;                                                                             \
  }

KERNEL(fp32, "vfmadd231ps")
KERNEL(bf16, "vdpbf16ps")
KERNEL(int8, "vpdpbusd")

int main(void) {
  double single = 0, half = 0, byte = 0;
  if (__builtin_cpu_supports("avx512f")) single = 2 * 16 * fp32();
  if (__builtin_cpu_supports("avx512bf16")) half = 2 * 32 * bf16();
  if (__builtin_cpu_supports("avx512vnni")) byte = 2 * 64 * int8();
  printf("{\"fp32\": %.1f, \"bf16\": %.1f, \"int8\": %.1f}\n", single, half, byte);
  return 0;
}
