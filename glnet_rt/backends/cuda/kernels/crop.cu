// Entry points of the crop: `crop_halve`, then `crop_float` or `crop_half`.
#include "crop.h"

// Grid over [people, side, side].
extern "C" __global__ void crop_halve(const glnet::FrameParams* frame, uint32_t* scratch,
                                      int32_t side) {
  glnet::for_all(frame->people * side * side,
                 [=](uint32_t i) { glnet::reduce_pixel(*frame, scratch, side, i); });
}
GLNET_ENTRY(crop_halve)

// Grid over [bucket, size, size]; `batch` is [bucket, 3, size, size].
extern "C" __global__ void crop_float(const glnet::FrameParams* frame, const uint32_t* scratch,
                                      int32_t side, const glnet::Normalisation* norm, int32_t size,
                                      int32_t bucket, float* batch) {
  glnet::fill_batch(frame, scratch, side, norm, size, bucket, batch);
}
GLNET_ENTRY(crop_float)

extern "C" __global__ void crop_half(const glnet::FrameParams* frame, const uint32_t* scratch,
                                     int32_t side, const glnet::Normalisation* norm, int32_t size,
                                     int32_t bucket, uint16_t* batch) {
  glnet::fill_batch(frame, scratch, side, norm, size, bucket, batch);
}
GLNET_ENTRY(crop_half)
