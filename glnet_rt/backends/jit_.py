"""Convolutions of our own for x86 CPUs; what is left of the network runs on OpenVINO.

HRNet is 3x3 convolutions on small maps. For these there are kernels here, compiled by numba for the
processor at hand: float32 and bfloat16 by Winograd's products, INT8 directly where there is VNNI
(docs/performance.md).
One thread computes one person; several people, and several callers, get a thread each.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.artifact import Artifact
from glnet_rt.backends.base import run_failed, session_closed
from glnet_rt.backends.openvino_ import Compiler, import_openvino, run_options
from glnet_rt.contracts import Array
from glnet_rt.cpu import cpu_name, usable_cores
from glnet_rt.errors import BackendError
from glnet_rt.spec import NetSpec

if TYPE_CHECKING:
    from glnet_rt.backends.jit.graph import Trunk
    from glnet_rt.backends.jit.plan import Lane, Plan

LEAST_SHARE = 0.9  # of the convolutions' work: with less there is little to gain
LEAST_SIZE = 16  # px, of which a kernel normalises so many at a time


class JitBackend(Closing):
    """One set of weights, and memory to work in for each thread that is at work."""

    name: ClassVar[str] = "jit"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "packed", "int8", "bf16")
    concurrent: ClassVar[bool] = True

    def __init__(self, network: _Network, threads: int) -> None:
        self._lanes: _Lanes | None = _Lanes(network, threads)
        self._workers = ThreadPoolExecutor(threads, "glnet-jit")
        self._spec = network.compiler.spec
        self.precision = network.compiler.precision

    @classmethod
    def open(cls, artifact: Artifact, precision: str, *, threads: int | None = None) -> JitBackend:
        """Open a session; see `Backend.open`."""
        compiler = Compiler(import_openvino(cls.name), artifact, precision)
        _check_cpu(precision)
        return cls(_Network(compiler), threads or usable_cores())

    def infer(self, crops: Array) -> Mapping[str, Array]:
        """[B, S, S, 3] uint8 -> name -> array; see `Backend.infer`."""
        lanes = self._lanes
        if lanes is None:
            raise session_closed("jit")
        try:
            if len(crops) == 1:
                people = [lanes.run(crops[0])]
            else:
                people = list(self._workers.map(lanes.run, crops))
        except RuntimeError as error:
            raise run_failed("OpenVINO", crops, self._spec, error) from error
        return {name: np.concatenate([one[name] for one in people]) for name in people[0]}

    def close(self) -> None:
        """Free the session, once what runs has ended. Calling it again does nothing."""
        self._lanes = None
        self._workers.shutdown()


class _Network:
    """What all lanes share: the trunk's plan and weights, and the model of the rest."""

    def __init__(self, compiler: Compiler) -> None:
        from glnet_rt.backends.jit.graph import integer_weights, read_trunk
        from glnet_rt.backends.jit.plan import Plan

        self.compiler = compiler
        self._core = compiler.openvino.Core()
        self._hint = compiler.hint(self._core)
        spec = compiler.spec
        try:
            model = compiler.read_model(self._core)
            model.reshape([1, *spec.input_shape])
            scales = integer_weights(model)
            _fold_constants(model)
        except RuntimeError as error:
            raise compiler.cannot_open(error) from error
        trunk = read_trunk(model, scales)
        _check_trunk(model, trunk, spec)
        floats = "bf16" if self._hint == compiler.openvino.Type.bf16 else "f32"
        self.plan: Plan = Plan(trunk, spec, floats)
        self._rest = _cut(compiler.openvino, model, trunk, self._hint)

    def request(self) -> Any:
        """Runs the rest of the model, on the caller's thread."""
        try:
            compiled = self._core.compile_model(self._rest, "CPU", run_options(self._hint, 1))
            return compiled.create_infer_request()
        except RuntimeError as error:
            raise self.compiler.cannot_open(error) from error


class _Lanes:
    """Hands out lanes, and makes them while there are fewer than threads."""

    def __init__(self, network: _Network, limit: int) -> None:
        self._network, self._left = network, limit
        self._free: list[_Runner] = []
        self._changed = threading.Condition()
        self._free.append(self._made())

    def run(self, crop: Array) -> dict[str, Array]:
        """Outputs for one crop, [S, S, 3] uint8."""
        lane = self._take()
        try:
            return lane.run(crop)
        finally:
            with self._changed:
                self._free.append(lane)
                self._changed.notify()

    def _take(self) -> _Runner:
        with self._changed:
            while not self._free and not self._left:
                self._changed.wait()
            return self._free.pop() if self._free else self._made()

    def _made(self) -> _Runner:
        self._left -= 1
        return _Runner(self._network)


class _Runner:
    """Runs one crop at a time."""

    def __init__(self, network: _Network) -> None:
        from glnet_rt.backends.jit.plan import Lane

        self._lane: Lane = Lane(network.plan)
        self._request = network.request()
        self._names = list(network.compiler.spec.output_shapes)
        openvino = network.compiler.openvino
        kind = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}[network.plan.floats]
        for name, array in self._lane.outputs.items():
            tensor = openvino.Tensor(array, openvino.Shape([1, *array.shape]), kind)
            self._request.set_tensor(name, tensor)

    def run(self, crop: Array) -> dict[str, Array]:
        """Name -> output, [1, ...], copied."""
        self._lane.run(crop)
        self._request.infer()
        return {name: self._request.get_tensor(name).data.copy() for name in self._names}


def _check_cpu(precision: str) -> None:
    """Raises BackendError where the processor lacks what the kernels are written in."""
    from glnet_rt.backends.jit._code import LEVEL, missing

    kinds = ["f32", *({"int8": [LEVEL], "bf16": ["bf16"]}.get(precision, []))]
    lacking = [name for kind in kinds for name in missing(kind)]
    if lacking:
        raise BackendError(
            f"the jit backend has no {precision} kernels for this CPU",
            got=f"{cpu_name()}, without {lacking[0]}",
            expected="an x86 CPU with AVX2, for bf16 with AVX-512's BF16",
            fix="leave backend at 'auto', or name openvino or onnxruntime",
        )


def _check_trunk(model: Any, trunk: Trunk, spec: NetSpec) -> None:
    """Raises BackendError where the kernels cannot do nearly all of the convolutions' work."""
    done = {c.name for sum_ in trunk.sums for c in sum_.convolutions}
    work = {
        node.get_friendly_name(): float(
            np.prod(node.input(1).get_shape()) * np.prod(node.output(0).get_shape()[2:])
        )
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convolution"
    }
    share = sum(work[name] for name in done) / max(sum(work.values()), 1)
    if share < LEAST_SHARE or spec.input_size < LEAST_SIZE:
        raise BackendError(
            "the jit backend has no kernels for this network",
            got=f"{share:.0%} of its convolutions' work, crops of {spec.input_size} px",
            expected=f"{LEAST_SHARE:.0%}: 1x1 and 3x3, stride 1 or 2, channels by the 16; crops of "
            f"{LEAST_SIZE} px or more",
            fix="leave backend at 'auto', or name openvino or onnxruntime",
        )


def _fold_constants(model: Any) -> None:
    from openvino import passes

    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)


def _cut(openvino: Any, model: Any, trunk: Trunk, hint: Any) -> Any:
    """What is left of a model, with the trunk's outputs, [1, H, W, C], for its inputs."""
    from openvino import opset13 as ops

    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    kind = hint if hint == openvino.Type.bf16 else openvino.Type.f32
    inputs = []
    for name in trunk.outputs:
        output = nodes[name].output(0)
        readers = list(output.get_target_inputs())
        batch, channels, height, width = output.get_shape()
        given = ops.parameter([batch, height, width, channels], kind)
        given.output(0).set_names({name})
        inputs.append(given)
        floats = given if kind == openvino.Type.f32 else ops.convert(given, openvino.Type.f32)
        turned = ops.transpose(floats, ops.constant([0, 3, 1, 2], openvino.Type.i64))
        for reader in readers:
            reader.replace_source_output(turned.output(0))
    return openvino.Model(model.get_results(), inputs, "rest")
