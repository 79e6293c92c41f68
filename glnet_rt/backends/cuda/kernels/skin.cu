// Entry point of skinning: grid (blocks of vertices, bucket).
#include "skin.h"

#ifndef GLNET_SKIN_SCALAR
#define GLNET_SKIN_SCALAR float
#endif

extern "C" __global__ void skin(const glnet::FrameParams* frame, const glnet::SkinInput* input,
                                const glnet::BodyTables* body) {
  __shared__ glnet::SkinWork work;
  const int b = static_cast<int>(blockIdx.y);
  if (b >= frame->people) return;
  const float* maps = glnet::row_of(input->maps, 12 * glnet::NUM_JOINTS, b);
  const float* features = glnet::row_of(input->features, glnet::NUM_POSE_FEATURES, b);
  const float* betas = glnet::row_of(input->betas, body->num_betas, b);
  float* out = const_cast<float*>(glnet::row_of(frame->vertices, 3 * body->vertices, b));
  glnet::each(12 * glnet::NUM_JOINTS, [=](int i) { work.maps[i] = maps[i]; });
  glnet::each(glnet::NUM_POSE_FEATURES, [=](int i) { work.features[i] = features[i]; });
  const int first = static_cast<int>(blockIdx.x * blockDim.x);
  glnet::each(static_cast<int>(blockDim.x), [=](int i) {
    const int v = first + i;
    if (v >= body->vertices) return;
    glnet::skin_vertex<GLNET_SKIN_SCALAR>(*body, betas, work, v, out + 3 * v);
  });
}
GLNET_ENTRY(skin)
