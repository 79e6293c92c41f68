// glnet_rt::PartPointGather for TensorRT 10 and later: what it takes and gives, and nothing of how.
//
//   features [B, C, H, W] float32 or float16, points [B, P, 2] float32 -> [B, P, C] as features
//
// Only interfaces that TensorRT 10.0 has. Nothing of libnvinfer is called, so nothing of it is
// linked: IPluginRegistry::loadLibrary finds the creator through getCreators.

#include <NvInferRuntime.h>

#include <cstdint>
#include <new>

#include "launch.h"

// GLNET_KERNELS_SHA256 comes from the build: which kernel sources this library holds.
#if defined(TRT_MAJOR_RTX)
#define GLNET_FLAVOUR "tensorrt_rtx"
#define GLNET_MAJOR TRT_MAJOR_RTX
#define GLNET_MINOR TRT_MINOR_RTX
#else
#define GLNET_FLAVOUR "tensorrt"
#define GLNET_MAJOR NV_TENSORRT_MAJOR
#define GLNET_MINOR NV_TENSORRT_MINOR
#endif
#define GLNET_TEXT_OF(x) #x
#define GLNET_TEXT(x) GLNET_TEXT_OF(x)
#define GLNET_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace nvinfer1;

constexpr char kName[] = "PartPointGather";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "glnet_rt";

// As TensorRT numbers tensors: inputs first.
enum Tensor : int32_t { kFeatures = 0, kPoints = 1, kOutput = 2 };

constexpr int32_t kOk = 0, kRefused = 1;
constexpr int64_t kMaxSide = 1 << 24;  // beyond, float32 skips pixels

bool fits(int64_t size) { return size >= 0 && size <= INT32_MAX; }

// The sizes, where the tensors have them right; false where they contradict the contract.
bool read_shape(PluginTensorDesc const* inputs, PluginTensorDesc const* outputs,
                glnet::Gather& gather) {
  Dims const& features = inputs[kFeatures].dims;
  Dims const& points = inputs[kPoints].dims;
  Dims const& output = outputs[0].dims;
  if (features.nbDims != 4 || points.nbDims != 3 || output.nbDims != 3) return false;
  const bool agree = points.d[0] == features.d[0] && points.d[2] == 2 &&
                     output.d[0] == features.d[0] && output.d[1] == points.d[1] &&
                     output.d[2] == features.d[1];
  const bool map = features.d[2] >= 1 && features.d[3] >= 1 && features.d[2] < kMaxSide &&
                   features.d[3] < kMaxSide;
  if (!agree || !map || !fits(features.d[0]) || !fits(features.d[1]) || !fits(points.d[1])) {
    return false;
  }
  gather.batch = static_cast<int>(features.d[0]);
  gather.channels = static_cast<int>(features.d[1]);
  gather.height = static_cast<int>(features.d[2]);
  gather.width = static_cast<int>(features.d[3]);
  gather.points = static_cast<int>(points.d[1]);
  return true;
}

// It has no attributes and keeps no state, so all copies are alike.
class PartPointGather final : public IPluginV3,
                              public IPluginV3OneCore,
                              public IPluginV3OneBuild,
                              public IPluginV3OneRuntime {
 public:
  // -- IPluginV3

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override { return new (std::nothrow) PartPointGather(); }

  // -- core

  AsciiChar const* getPluginName() const noexcept override { return kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

  // -- build

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* outputs, int32_t nbOutputs, DataType const* inputs,
                             int32_t nbInputs) const noexcept override {
    if (nbInputs != 2 || nbOutputs != 1) return kRefused;
    outputs[0] = inputs[kFeatures];
    return kOk;
  }

  int32_t getOutputShapes(DimsExprs const* inputs, int32_t nbInputs, DimsExprs const*, int32_t,
                          DimsExprs* outputs, int32_t nbOutputs, IExprBuilder&) noexcept override {
    if (nbInputs != 2 || nbOutputs != 1) return kRefused;
    DimsExprs const& features = inputs[kFeatures];
    DimsExprs const& points = inputs[kPoints];
    if (features.nbDims != 4 || points.nbDims != 3) return kRefused;
    outputs[0].nbDims = 3;
    outputs[0].d[0] = features.d[0];
    outputs[0].d[1] = points.d[1];
    outputs[0].d[2] = features.d[1];
    return kOk;
  }

  bool supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* tensors,
                                 int32_t nbInputs, int32_t nbOutputs) noexcept override {
    if (nbInputs != 2 || nbOutputs != 1 || at < kFeatures || at > kOutput) return false;
    PluginTensorDesc const& own = tensors[at].desc;
    const bool linear = own.format == TensorFormat::kLINEAR;
    switch (at) {
      case kFeatures:
        return (own.type == DataType::kFLOAT && linear) ||
               (own.type == DataType::kHALF && (linear || own.format == TensorFormat::kHWC8));
      case kPoints:
        return own.type == DataType::kFLOAT && linear;
      default:
        return own.type == tensors[kFeatures].desc.type && linear;
    }
  }

  int32_t configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t nbInputs,
                          DynamicPluginTensorDesc const*, int32_t nbOutputs) noexcept override {
    if (nbInputs != 2 || nbOutputs != 1) return kRefused;
    Dims const& points = inputs[kPoints].desc.dims;
    const bool ranks = inputs[kFeatures].desc.dims.nbDims == 4 && points.nbDims == 3;
    return ranks && points.d[2] == 2 ? kOk : kRefused;
  }

  // Timings may be reused for as long as the kernels are the same.
  char const* getTimingCacheID() noexcept override { return GLNET_KERNELS_SHA256; }
  char const* getMetadataString() noexcept override { return "kernels " GLNET_KERNELS_SHA256; }

  // -- run time

  int32_t onShapeChange(PluginTensorDesc const* inputs, int32_t nbInputs,
                        PluginTensorDesc const* outputs, int32_t nbOutputs) noexcept override {
    glnet::Gather gather{};
    if (nbInputs != 2 || nbOutputs != 1) return kRefused;
    return read_shape(inputs, outputs, gather) ? kOk : kRefused;
  }

  int32_t enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const* outputDesc,
                  void const* const* inputs, void* const* outputs, void*,
                  cudaStream_t stream) noexcept override {
    glnet::Gather gather{};
    if (!read_shape(inputDesc, outputDesc, gather)) return kRefused;
    gather.half = inputDesc[kFeatures].type == DataType::kHALF;
    gather.interleaved = inputDesc[kFeatures].format == TensorFormat::kHWC8;
    gather.features = inputs[kFeatures];
    gather.coordinates = inputs[kPoints];
    gather.output = outputs[0];
    return glnet::launch_gather(gather, stream) == cudaSuccess ? kOk : kRefused;
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &noFields_; }

 private:
  PluginFieldCollection noFields_{0, nullptr};
};

class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(AsciiChar const*, PluginFieldCollection const*,
                          TensorRTPhase) noexcept override {
    return new (std::nothrow) PartPointGather();
  }

  PluginFieldCollection const* getFieldNames() noexcept override { return &noFields_; }
  AsciiChar const* getPluginName() const noexcept override { return kName; }
  AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
  AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  PluginFieldCollection noFields_{0, nullptr};
};

}  // namespace

// What IPluginRegistry::loadLibrary looks for.
GLNET_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static Creator creator;
  static IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

GLNET_EXPORT void setLoggerFinder(ILoggerFinder*) {}

// JSON for glnet_rt.backends.gather_plugin, which asks before it lets TensorRT load the library.
GLNET_EXPORT char const* glnet_rt_plugin_info() {
  return "{\"name\": \"PartPointGather\", \"version\": \"1\", \"tensorrt\": \"" GLNET_FLAVOUR
         " " GLNET_TEXT(GLNET_MAJOR) "." GLNET_TEXT(
             GLNET_MINOR) "\", \"kernels\": \"" GLNET_KERNELS_SHA256 "\"}";
}
