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
#define TWELVE(ONE)                                                                          \
  ONE("0") ONE("1") ONE("2") ONE("3") ONE("4") ONE("5")                                      \
  ONE("6") ONE("7") ONE("8") ONE("9") ONE("10") ONE("11")

#define WIDE(OP, SUM) OP " %%zmm12, %%zmm13, %%zmm" SUM "\n"
#define WIDE_FP32(SUM) WIDE("vfmadd231ps", SUM)
#define WIDE_BF16(SUM) WIDE("vdpbf16ps", SUM)
#define WIDE_INT8(SUM) WIDE("vpdpbusd", SUM)

/* Without VNNI bytes take three instructions: products in pairs, pairs of these, the sum. */
#define FP32(SUM) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" SUM "\n"
#define INT8(SUM)                                                                            \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n"                                                   \
  "vpmaddwd %%ymm14, %%ymm15, %%ymm14\n"                                                     \
  "vpaddd %%ymm14, %%ymm" SUM ", %%ymm" SUM "\n"

#define KERNEL(NAME, TARGET, ONE, LIST)                                                      \
  __attribute__((target(TARGET))) static double NAME(void) {                                 \
    double best = 0;                                                                         \
    for (int pass = 0; pass < PASSES; ++pass) {                                              \
      double start = seconds();                                                              \
      for (long r = 0; r < ROUNDS; ++r) __asm__ volatile(TWELVE(ONE)::: LIST);               \
      double found = 12e-9 * ROUNDS / (seconds() - start);                                   \
      if (found > best) best = found;                                                        \
    }                                                                                        \
    return best;                                                                             \
  }
#define ZMM                                                                                  \
  "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",   \
      "zmm11"
#define YMM                                                                                  \
  "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10",   \
      "ymm11", "ymm14"

KERNEL(wide_fp32, "avx512f", WIDE_FP32, ZMM)
KERNEL(wide_bf16, "avx512f", WIDE_BF16, ZMM)
KERNEL(wide_int8, "avx512f", WIDE_INT8, ZMM)
KERNEL(fp32, "avx2", FP32, YMM)
KERNEL(int8, "avx2", INT8, YMM)

int main(void) {
  double single = 0, half = 0, byte = 0;
  if (__builtin_cpu_supports("avx512f")) single = 2 * 16 * wide_fp32();
  else if (__builtin_cpu_supports("fma")) single = 2 * 8 * fp32();
  if (__builtin_cpu_supports("avx512bf16")) half = 2 * 32 * wide_bf16();
  if (__builtin_cpu_supports("avx512vnni")) byte = 2 * 64 * wide_int8();
  else if (__builtin_cpu_supports("avx2")) byte = 2 * 32 * int8();
  printf("{\"fp32\": %.1f, \"bf16\": %.1f, \"int8\": %.1f}\n", single, half, byte);
  return 0;
}
