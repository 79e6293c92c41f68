"""The gather plugin in Python: `IPluginV3` around the kernels, which NVRTC compiles.

TensorRT calls `enqueue` through Python's lock, once per inference; of a captured CUDA graph only
while it is captured. The compiled library has no such cost. The caller hands in the module,
`tensorrt` or `tensorrt_rtx`. Only `on_shape_change` and `enqueue` touch the CUDA driver.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from glnet_rt.backends.cuda import nvrtc
from glnet_rt.backends.cuda.binding import driver_failed
from glnet_rt.errors import BackendError, MissingDependencyError

NAMESPACE, NAME, VERSION = "glnet_rt", "PartPointGather", "1"
KERNELS = Path(__file__).parent / "cuda" / "kernels"
SOURCES = ("portable.h", "part_point_gather.h", "part_point_gather.cu")

_PLANAR, _HALF2, _FLOAT4 = "part_point_gather_", 2, 4
_TILE, _TILE_THREADS = 32, 256
_GROUP, _GROUP_THREADS = 8, 128
_MAX_BLOCKS = 2**31 - 1


@dataclass(frozen=True)
class GatherShape:
    """Sizes, in the order in which the kernels take them: part_point_gather.h."""

    batch: int
    channels: int
    height: int
    width: int
    points: int


@dataclass(frozen=True)
class Launch:
    """Which kernel, in how many blocks of how many threads."""

    kernel: str
    blocks: int
    threads: int


def launch_of(shape: GatherShape, half: bool, interleaved: bool) -> Launch:
    """As `launch_of` in part_point_gather.h; a test holds the two equal."""
    if interleaved:
        groups = shape.batch * shape.points * math.ceil(shape.channels / _GROUP)
        return Launch(_PLANAR + "hwc8", math.ceil(groups / _GROUP_THREADS), _GROUP_THREADS)
    name, pack = ("half", _HALF2) if half else ("float", _FLOAT4)
    tiles = math.ceil(shape.points / _TILE) * math.ceil(shape.channels / _TILE)
    packed = str(pack) if shape.channels % pack == 0 else ""
    return Launch(_PLANAR + name + packed, shape.batch * tiles, _TILE_THREADS)


def kernels_sha256() -> str:
    """SHA-256 over those of the kernels' sources; CMakeLists.txt counts it the same way."""
    hashes = [hashlib.sha256((KERNELS / name).read_bytes()).hexdigest() for name in SOURCES]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def sources_sha256() -> str:
    """SHA-256 of all that the twin is made of."""
    return hashlib.sha256(kernels_sha256().encode() + Path(__file__).read_bytes()).hexdigest()


def read_shape(features: Sequence[int], points: Sequence[int]) -> GatherShape:
    """Sizes of one gather.

    Args:
        features: dimensions [B, C, H, W].
        points: dimensions [B, P, 2].

    Raises:
        BackendError: the dimensions are others, or contradict each other.
    """
    if len(features) == 4 and len(points) == 3:
        batch, channels, height, width = features
        if points[0] == batch and points[2] == 2 and height > 0 and width > 0:
            return GatherShape(batch, channels, height, width, points[1])
    raise BackendError(
        f"{NAME} cannot read these tensors",
        got=f"features {list(features)}, points {list(points)}",
        expected="features [B, C, H, W] and points [B, P, 2], with the same B, and H, W > 0",
        fix="export the model again with this version of glnet-rt",
    )


@cache
def creator(trt: Any) -> Any:
    """The plugin's creator for one TensorRT; it is kept, as the registry keeps no reference."""
    # In the order of the tensors: features, points, output.
    features_at, points_at = 0, 1

    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)

    class PartPointGather(*bases):  # type: ignore[misc]
        def __init__(self) -> None:
            for base in bases:
                base.__init__(self)
            self.plugin_namespace = NAMESPACE
            self.plugin_name = NAME
            self.plugin_version = VERSION
            self.num_outputs = 1
            # Timings may be reused for as long as the kernels are the same.
            self.timing_cache_id = kernels_sha256()
            self.metadata_string = f"kernels {kernels_sha256()}"

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return PartPointGather()

        def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
            return [types[features_at]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
            features, points = inputs
            if len(features) != 4 or len(points) != 3:
                raise ValueError(f"{NAME} takes [B, C, H, W] and [B, P, 2]")
            output = trt.DimsExprs(3)
            output[0], output[1], output[2] = features[0], points[1], features[1]
            return [output]

        def supports_format_combination(self, at: int, tensors: Any, num_inputs: int) -> bool:
            own = tensors[at].desc
            linear = own.format == trt.TensorFormat.LINEAR
            if at == features_at:
                interleaved = own.format == trt.TensorFormat.HWC8
                return (own.type == trt.DataType.FLOAT and linear) or (
                    own.type == trt.DataType.HALF and (linear or interleaved)
                )
            wanted = trt.DataType.FLOAT if at == points_at else tensors[features_at].desc.type
            return own.type == wanted and linear

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            points = inputs[points_at].desc.dims
            if len(inputs[features_at].desc.dims) != 4 or len(points) != 3 or points[2] != 2:
                raise ValueError(f"{NAME} takes [B, C, H, W] and [B, P, 2]")

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            read_shape(inputs[features_at].dims, inputs[points_at].dims)
            _functions(_current_context())  # compiled now: a graph being captured cannot wait

        def enqueue(
            self,
            input_desc: Any,
            output_desc: Any,
            inputs: Sequence[int],
            outputs: Sequence[int],
            workspace: int,
            stream: int,
        ) -> None:
            features, points = input_desc
            plan = launch_of(
                shape := read_shape(features.dims, points.dims),
                features.type == trt.DataType.HALF,
                features.format == trt.TensorFormat.HWC8,
            )
            launch(plan, shape, (*inputs, *outputs), stream)

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def set_tactic(self, tactic: int) -> None:
            pass

        def get_valid_tactics(self) -> list[int]:
            return []

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return 0

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = NAME
            self.plugin_namespace = NAMESPACE
            self.plugin_version = VERSION
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return PartPointGather()

    return Creator()


def launch(plan: Launch, shape: GatherShape, addresses: Sequence[int], stream: int) -> None:
    """Queue a kernel on the stream. `addresses`: of features, points and output, on the device."""
    if plan.blocks == 0:
        return
    if plan.blocks > _MAX_BLOCKS:
        raise BackendError(
            f"{NAME} has more to do than one launch can",
            got=f"{shape}, {plan.blocks} blocks",
            expected=f"at most {_MAX_BLOCKS} blocks",
            fix="use a smaller batch",
        )
    # The driver reads the values through these addresses before the call returns.
    values = [*map(ctypes.c_void_p, addresses), (ctypes.c_int * 5)(*astuple(shape))]
    arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    function = _functions(_current_context())[plan.kernel]
    grid, block = (plan.blocks, 1, 1), (plan.threads, 1, 1)
    _call("cuLaunchKernel", function, *grid, *block, 0, stream, ctypes.addressof(arguments), 0)


def _current_context() -> int:
    """Address of the CUDA context that TensorRT has made current on this thread."""
    return int(_call("cuCtxGetCurrent"))


@cache
def _functions(context: int) -> dict[str, Any]:
    """The kernels by name, compiled for the device of the context and loaded into it."""
    device = _call("cuCtxGetDevice")
    arch = "".join(
        str(_call("cuDeviceGetAttribute", _attribute(f"COMPUTE_CAPABILITY_{part}"), device))
        for part in ("MAJOR", "MINOR")
    )
    source = KERNELS / SOURCES[-1]
    cubin = nvrtc.compile_cubin(source.read_text(), source.name, f"sm_{arch}", [KERNELS])
    module = _call("cuModuleLoadData", cubin)
    endings = ("float", "float4", "half", "half2", "hwc8")
    names = [_PLANAR + ending for ending in endings]
    return {name: _call("cuModuleGetFunction", module, name.encode()) for name in names}


def _attribute(name: str) -> Any:
    return getattr(_driver().CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingDependencyError(
            "the gather plugin's Python twin needs the package cuda-bindings",
            got=str(error),
            expected="cuda-bindings of the driver's CUDA version",
            fix="pip install 'glnet-rt[cuda]' (with a CUDA 12 driver: 'glnet-rt[cuda12]')",
        ) from error
    return driver


def _call(function: str, *arguments: Any) -> Any:
    """The result of a driver function, its status checked and taken off."""
    driver = _driver()
    status, *results = getattr(driver, function)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise driver_failed(function, status.name)
    return results[0] if results else None
