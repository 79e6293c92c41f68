// Entry point of the decoder: one block of any number of threads a person.
#include "decode.h"

#ifndef GLNET_DECODE_SCALAR
#define GLNET_DECODE_SCALAR float
#endif

extern "C" __global__ void decode(const glnet::FrameParams* frame, const glnet::NetPointers* net,
                                  const glnet::DecodeSetup* setup, const glnet::SkinInput* skin) {
  typedef GLNET_DECODE_SCALAR Scalar;
  __shared__ glnet::PersonWork<Scalar> work;
  __shared__ glnet::FitWork<Scalar> fit;
  const int b = static_cast<int>(blockIdx.x);
  if (b >= frame->people) return;
  glnet::decode_person<Scalar>(*frame, *net, *setup, *skin, b, work, fit);
}
GLNET_ENTRY(decode)
