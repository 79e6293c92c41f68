// Runs every kernel on heap buffers of exactly the size they need, for ASAN and UBSAN to watch.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "crop.cu"
#include "decode.cu"
#include "skin.cu"

using namespace glnet;

static uint32_t state = 1;

static float noise() {  // -1 .. 1
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

static std::vector<float> floats(size_t count, float scale = 1.0f, float shift = 0.0f) {
  std::vector<float> values(count);
  for (float& value : values) value = scale * noise() + shift;
  return values;
}

template <class T>
static uint64_t at(std::vector<T>& values) {
  return reinterpret_cast<uint64_t>(values.data());
}

// One window per person: inside, at a corner, one pixel, all of the picture halved often.
static void set_windows(FrameParams& frame, int width, int height, int size) {
  const int windows[4][5] = {{3, 2, 9, 11, 0},
                             {width - 5, height - 3, 5, 3, 1},
                             {0, height - 1, 1, 1, 2},
                             {0, 0, width, height, 3}};
  for (int b = 0; b < 4; ++b) {
    PersonParams& person = frame.person[b];
    person.first_column = windows[b][0];
    person.first_row = windows[b][1];
    person.columns = windows[b][2];
    person.rows = windows[b][3];
    person.halvings = windows[b][4];
    person.scale = 1.4f * static_cast<float>(width) / static_cast<float>(size << windows[b][4]);
    person.shift_x = person.shift_y = b == 2 ? -1e9f : -1.3f;
    person.focal_u = person.focal_v = 3.9f;
    person.side = 30.0f;
  }
}

template <class Out, class Kernel>
static void crop(const FrameParams& frame, Kernel kernel, int size) {
  const int side = 3 * size / 2 + 6;
  std::vector<uint32_t> scratch(4 * side * side);
  std::vector<Out> batch(5 * 3 * size * size);
  const Normalisation normalisation = {{0.01f, 0.01f, 0.01f}, {2.0f, 2.0f, 2.0f}};
  crop_halve(&frame, scratch.data(), side);
  kernel(&frame, scratch.data(), side, &normalisation, size, 5, batch.data());
}

static void decode_and_skin(FrameParams& frame, bool told_twist, float camera_scale) {
  const int n = 3, vertices = 37, padded = 64, people = 4;
  std::vector<float> score = floats(people), uvd = floats(people * 108, 0.5f);
  std::vector<float> betas = floats(people * n), scale = floats(people, 0.1f, camera_scale);
  std::vector<float> twist = floats(people * 46), rot6d = floats(people * 144);
  std::vector<float> spread = floats(people * 36, 0.01f, 0.02f);
  std::vector<float> rest = floats(87), dirs = floats(87 * n, 0.01f);
  std::vector<float> maps(people * 288), features(people * 207);
  std::vector<float> out_score(people), out_betas(people * n), rotmats(people * 216);
  std::vector<float> transl(people * 3), joints(people * 72), keypoints(people * 72);
  std::vector<float> out(people * vertices * 3);
  std::vector<int32_t> status(people);
  frame.score = at(out_score);
  frame.betas = at(out_betas);
  frame.rotmats = at(rotmats);
  frame.transl = at(transl);
  frame.joints = at(joints);
  frame.keypoints_px = at(keypoints);
  frame.vertices = at(out);
  frame.status = at(status);
  const NetPointers net = {at(score), at(uvd), at(betas), at(scale), told_twist ? at(twist) : 0,
                           told_twist ? 0 : at(rot6d), told_twist ? 0 : at(spread)};
  const DecodeSetup setup = {at(rest), at(dirs), n, 2.2f, told_twist ? 0.0f : 25.0f, 0};
  const SkinInput input = {at(maps), at(features), at(betas)};
  for (unsigned b = 0; b < 5; ++b) {  // one block more than there are people
    blockIdx = {b, 0, 0};
    decode(&frame, &net, &setup, &input);
  }
  std::vector<float> rest_vertices = floats(3 * padded), shapes = floats(n * 3 * padded, 0.01f);
  std::vector<float> weights = floats(2 * padded), bends = floats(3 * 3 * 9 * 32);
  std::vector<uint8_t> influencers(2 * padded, 23), bend_joints(3 * 32, 22);
  std::vector<int32_t> first = {0, 2, 3};
  const BodyTables body = {at(rest_vertices), at(shapes),      at(weights), at(influencers),
                           at(first),         at(bend_joints), at(bends),   vertices,
                           padded,            n,               2};
  blockDim = {128, 1, 1};
  for (unsigned b = 0; b < 5; ++b) {
    blockIdx = {0, b, 0};
    skin(&frame, &input, &body);
  }
}

int main(int argc, char** argv) {
  const bool told_twist = argc > 1 && std::strcmp(argv[1], "twist") == 0;
  const int width = 41, height = 29, size = 24;
  std::vector<uint8_t> image(3 * width * height);
  for (uint8_t& byte : image) byte = static_cast<uint8_t>(127.0f * noise() + 128.0f);
  std::vector<FrameParams> held(1);
  FrameParams& frame = held[0];
  frame.frame = at(image);
  frame.stride = 3 * width;
  frame.people = 4;
  set_windows(frame, width, height, size);
  gridDim = {1, 1, 1};
  blockDim = {64, 1, 1};
  crop<float>(frame, crop_float, size);
  crop<uint16_t>(frame, crop_half, size);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float scale : {0.5f, 0.0f, nan}) decode_and_skin(frame, told_twist, scale);
  std::puts("done");
  return 0;
}
