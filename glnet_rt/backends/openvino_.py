"""OpenVINO on the CPU: integer and bfloat16 arithmetic at the speed of the processor.

It takes crops as bytes, since normalising them becomes part of its first convolution. Precision is
always asked for by name: left alone, OpenVINO computes float32 models in bfloat16 where it can.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.artifact import Artifact, model_name, stored_as
from glnet_rt.backends.base import check_names, check_shape, run_failed, session_closed
from glnet_rt.backends.openvino_graph import CHANGES, gather, round_where_it_pays
from glnet_rt.contracts import Array
from glnet_rt.cpu import cpu_name, cpu_sha256, usable_cores
from glnet_rt.engine_cache import cache_root, model_sha256, write_atomically
from glnet_rt.errors import ArtifactError, BackendError, MissingDependencyError
from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP, NetSpec

_DEVICE = "CPU"
MOST_LANES = 4  # each holds the weights once more
_DIGEST_CHARS = 64
_log = logging.getLogger(__name__)


class OpenVinoBackend(Closing):
    """A model for one person, with all threads; and lanes of few threads each for several people.

    Several people are handed one by one to the lanes, since threads that work on different people
    wait for nobody; lanes are opened when there first are several. Each lane is a model of its own:
    the streams of one model share prepared weights, and OpenVINO 2026.4 mixes these up in about one
    opening out of ten. The batch is always one: a free batch costs a small network a fifth of its
    time, and a larger one gains nothing on a CPU. Several threads may call `infer`; they take
    turns.
    """

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "packed", "int8", "bf16", "fp16")
    concurrent: ClassVar[bool] = False  # it shares one batch out over its threads by itself

    def __init__(self, compiler: Compiler, threads: int) -> None:
        self._compiler: Compiler | None = compiler
        self._threads = threads
        self._turn = threading.Lock()
        self._one = compiler.compile(threads).create_infer_request()
        self._lanes = self._no_lanes()
        self._output_names = list(compiler.spec.output_shapes)
        self.precision = compiler.precision

    @classmethod
    def open(
        cls, artifact: Artifact, precision: str, *, threads: int | None = None
    ) -> OpenVinoBackend:
        """Open a session; see `Backend.open`. Compiled models are kept in the cache folder."""
        compiler = Compiler(import_openvino(cls.name), artifact, precision)
        return cls(compiler, threads or usable_cores())

    def infer(self, crops: Array) -> Mapping[str, Array]:
        """[B, S, S, 3] uint8 -> name -> array; see `Backend.infer`."""
        with self._turn:
            if self._compiler is None:
                raise session_closed("openvino")
            try:
                people = self._run(self._compiler, crops)
            except RuntimeError as error:
                self._lanes = self._no_lanes()  # some may still be at work: they are opened anew
                raise run_failed("OpenVINO", crops, self._compiler.spec, error) from error
        return {name: np.concatenate([one[name] for one in people]) for name in people[0]}

    def close(self) -> None:
        """Free the session. Calling it again does nothing."""
        with self._turn:
            self._compiler, self._one, self._lanes = None, None, []

    def _run(self, compiler: Compiler, crops: Array) -> list[dict[str, Array]]:
        """Outputs of each crop."""
        requests = [self._one] if len(crops) == 1 else self._opened(compiler)
        people: list[dict[str, Array]] = []
        for i in range(len(crops) + len(requests)):
            request = requests[i % len(requests)]
            if i >= len(requests) and len(people) < len(crops):
                request.wait()
                people.append(self._outputs(request))
            if i < len(crops):
                request.start_async([crops[i : i + 1]])
        return people

    def _outputs(self, request: Any) -> dict[str, Array]:
        """Copies, since the request's own arrays are written over when it runs again."""
        return {name: request.get_tensor(name).data.copy() for name in self._output_names}

    def _no_lanes(self) -> list[Any]:
        """Those that need not be opened."""
        return [self._one] if self._threads == 1 else []

    def _opened(self, compiler: Compiler) -> list[Any]:
        """One request per lane."""
        if not self._lanes:
            lanes = min(self._threads, MOST_LANES)
            each = self._threads // lanes
            self._lanes = [compiler.compile(each).create_infer_request() for _ in range(lanes)]
        return self._lanes


@dataclass(frozen=True, eq=False)
class Compiler:
    """Compiles one model of an artifact, or takes what was compiled before from the cache.

    Attributes:
        openvino: the module.
        artifact: holds the model.
        precision: to compute in, one of `OpenVinoBackend.precisions`.
    """

    openvino: Any
    artifact: Artifact
    precision: str

    @property
    def spec(self) -> NetSpec:
        """Of the network."""
        return self.artifact.spec

    def compile(self, threads: int) -> Any:
        """A CompiledModel that takes [1, S, S, 3] uint8 BGR.

        Raises:
            ArtifactError: the model does not match the spec.
            BackendError: OpenVINO cannot read or compile it, or the CPU lacks the precision.
        """
        core = self.openvino.Core()
        hint = self.hint(core)
        options = run_options(hint, threads)
        path = self._cached(threads)
        try:
            compiled = _read_cached(core, path, options)
            if compiled is None:
                model = self._read_model_of_bytes(core)
                model.reshape([1, *self.spec.crop_shape])
                compiled = core.compile_model(model, _DEVICE, options)
                _write_cached(compiled, path)
        except RuntimeError as error:
            raise self.cannot_open(error) from error
        _check_precision(compiled, hint)
        return compiled

    def cannot_open(self, error: RuntimeError) -> BackendError:
        """What to raise where OpenVINO cannot read or compile the model."""
        return BackendError(
            f"OpenVINO {self.openvino.__version__} cannot open {self._file}",
            got=str(error).strip(),
            expected="an ONNX model of opset 20 or lower, complete",
            fix="pip install -U openvino; if that does not help, export the artifact again",
        )

    def hint(self, core: Any) -> Any:
        """The type to ask for; what a model's own Q/DQ pairs say stays integer whatever it is.

        What INT8 leaves, sums above all, takes bfloat16 where the CPU has it: half the memory to
        read, for a rounding that is finer than the one behind it.

        Raises:
            BackendError: bfloat16 on a CPU without it.
        """
        able, types = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"), self.openvino.Type
        if self.precision == "bf16" and "BF16" not in able:
            raise BackendError(
                "this CPU has no arithmetic in bfloat16",
                got=f"{cpu_name()}: {', '.join(sorted(able))}",
                expected="avx512_bf16 or amx_bf16",
                fix="leave precision at 'auto', or name int8 or fp32",
            )
        if self.precision == "bf16" or (self.precision == "int8" and "BF16" in able):
            return types.bf16
        if self.precision == "fp16" and "FP16" in able:
            return types.f16
        return types.f32

    @property
    def _file(self) -> str:
        return model_name(stored_as(self.precision))

    def read_model(self, core: Any) -> Any:
        """The artifact's model, rounded where it pays; takes floats, as it is stored."""
        from openvino.frontend.onnx import ConversionExtension

        core.add_extension(ConversionExtension(GATHER_OP, GATHER_DOMAIN, gather))
        model = core.read_model(self.artifact.read(self._file), b"")
        _check_signature(model, self.spec)
        round_where_it_pays(model)
        return model

    def _read_model_of_bytes(self, core: Any) -> Any:
        """The same with crops as bytes for its input."""
        from openvino import Layout, Type
        from openvino.preprocess import ColorFormat, PrePostProcessor

        model = self.read_model(core)
        processor = PrePostProcessor(model)
        image = processor.input()
        image.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        image.tensor().set_color_format(ColorFormat.BGR)
        image.model().set_layout(Layout("NCHW"))
        image.preprocess().convert_element_type(Type.f32).convert_color(ColorFormat.RGB)
        image.preprocess().mean([255 * mean for mean in self.spec.mean])
        image.preprocess().scale([255 * std for std in self.spec.std])
        return processor.build()

    def _cached(self, threads: int) -> Path:
        """Where this model lies once it is compiled: a name for everything it is made of."""
        facts = {
            "model": model_sha256(self.artifact, stored_as(self.precision)),
            "spec": self.spec.to_dict(),
            "changes": CHANGES,
            "precision": self.precision,
            "threads": threads,
            "openvino": self.openvino.__version__,
            "cpu": cpu_sha256(),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        return cache_root() / "openvino" / f"{self.precision}.{digest}.blob"


def import_openvino(backend: str) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            f"the {backend} backend needs the package openvino",
            got=str(error),
            expected="openvino >= 2025.0",
            fix="pip install openvino",
        ) from error
    return openvino


def run_options(hint: Any, threads: int) -> dict[str, Any]:
    """What OpenVINO is told about running one model."""
    return {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned, two processes would share the same first cores and leave the rest idle.
        "ENABLE_CPU_PINNING": False,
    }


def _check_precision(compiled: Any, hint: Any) -> None:
    """What was compiled computes in what was asked for; raises BackendError."""
    took = compiled.get_property("INFERENCE_PRECISION_HINT")
    if took != hint:
        raise BackendError(
            "OpenVINO computes in another precision than asked for",
            got=str(took),
            expected=str(hint),
            fix="name another precision, or backend='onnxruntime'",
        )


def _read_cached(core: Any, path: Path, options: Mapping[str, Any]) -> Any:
    """A compiled model of the cache, or None where there is none that is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, blob = data[:_DIGEST_CHARS], data[_DIGEST_CHARS:]
    if digest != hashlib.sha256(blob).hexdigest().encode():
        _log.warning("%s is damaged: the model is compiled again", path)
        return None
    return core.import_model(blob, _DEVICE, options)


def _write_cached(compiled: Any, path: Path) -> None:
    """Keep a compiled model for the next session; one that cannot be kept is compiled each time."""
    blob = compiled.export_model()
    blob = blob if isinstance(blob, bytes) else blob.getvalue()
    try:
        write_atomically(path, hashlib.sha256(blob).hexdigest().encode(), blob)
    except OSError as error:
        _log.warning("a compiled model cannot be kept in %s: %s", path.parent, error)


def _check_signature(model: Any, spec: NetSpec) -> None:
    """The model's names, types and shapes are those of the spec; raises ArtifactError."""
    inputs, outputs = (
        {name: node for node in nodes for name in node.names}
        for nodes in (model.inputs, model.outputs)
    )
    check_names("inputs", set(inputs), {spec.input_name})
    # Equal values may share one node that has further names.
    check_names("outputs", set(outputs) & set(spec.output_shapes), set(spec.output_shapes))
    signature: list[tuple[str, Any, tuple[int, ...]]] = [
        (f"input {spec.input_name}", inputs[spec.input_name], spec.input_shape)
    ]
    signature += [
        (f"output {name}", outputs[name], shape) for name, shape in spec.output_shapes.items()
    ]
    for what, node, wanted in signature:
        dtype = "i64" if what == "output pixel" else "f32"
        if node.element_type.get_type_name() != dtype:
            raise ArtifactError(
                f"the model's {what} has another type than the manifest's spec",
                got=node.element_type.get_type_name(),
                expected=dtype,
                fix="export the artifact again with this version of glnet-rt",
            )
        stated = node.partial_shape
        check_shape(what, tuple(d.get_length() if d.is_static else None for d in stated), wanted)
