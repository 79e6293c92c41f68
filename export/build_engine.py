"""`python -m export.build_engine NAME.glnet`: TensorRT engines of an artifact, for this machine.

One engine for each batch size, strongly typed: the precision is that of the artifact's model, and
what TensorRT made of it is read back and told, layer by layer. The engines go into the cache that
`glnet_rt.load(..., backend="tensorrt")` looks in. Needs glnet_rt and TensorRT, nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glnet_rt.artifact import Artifact, model_name
from glnet_rt.backends.cuda.binding import open_binding
from glnet_rt.backends.device import Gpu, find_gpu
from glnet_rt.backends.gather_plugin import NAME, load_plugin
from glnet_rt.backends.onnx_bytes import op_types, without_functions
from glnet_rt.backends.tensorrt_ import PRECISIONS, measure_ms
from glnet_rt.backends.trt import TensorRT, precision_of
from glnet_rt.cli.common import describe, exit_code
from glnet_rt.engine_cache import (
    BUCKETS,
    BuildOptions,
    EngineCache,
    EngineHeader,
    EngineKey,
    Gather,
    model_sha256,
    write_atomically,
)
from glnet_rt.errors import BackendError, ContractError, GlnetError
from glnet_rt.spec import NetSpec

MAX_BATCH = 64
RTX_LIBRARY = "libtensorrt_rtx.so"


@dataclass(frozen=True)
class Request:
    """What was asked for, checked.

    Attributes:
        artifact: holds the model.
        precision: of the model, which the artifact holds.
        batches: ascending.
        routes: of the gather, to build; where there are two, the faster one is kept.
        options: all but the route.
        gpu: that the engines are for; without a name where only its compute capability was given.
        timing_cache: file to start from and to write back to; None for TensorRT for RTX.
        cache: that the engines go into.
    """

    artifact: Artifact
    precision: str
    batches: tuple[int, ...]
    routes: tuple[Gather, ...]
    options: BuildOptions
    gpu: Gpu
    timing_cache: Path | None
    cache: EngineCache

    @property
    def spec(self) -> NetSpec:
        return self.artifact.spec

    @property
    def runs_here(self) -> bool:
        """Whether the engines are for the GPU of this machine."""
        return bool(self.gpu.name)

    def key(self, trt: TensorRT, batch: int) -> EngineKey:
        sha256 = model_sha256(self.artifact, self.precision)
        return trt.key(sha256, self.precision, batch, self.gpu)


@dataclass(frozen=True)
class Built:
    """One engine, and what is known of it.

    Attributes:
        engine: serialised.
        gather: its route.
        plugin_sha256: of the plugin in it, empty where there is none.
        seconds: the build took.
        network: precision -> convolutions and matrix products that the model asks it of.
        layers: name, type and precision of each layer of the engine; None where it cannot be
            opened, since it is for a GPU that is not here.
        ms: median of one inference; None where not measured.
        notes: what whoever builds should know.
    """

    engine: bytes
    gather: Gather
    plugin_sha256: str
    seconds: float
    network: dict[str, int]
    layers: list[dict[str, str]] | None = None
    ms: float | None = None
    notes: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.backend == "tensorrt-rtx" and arguments.gather != "native":
        code = run_linked(sys.argv[1:] if argv is None else argv)
        if code is not None:
            return code
    try:
        trt = TensorRT.load(arguments.backend)
        request = check(arguments, trt)
        with request.cache.lock():
            rows = build_all(request, trt)
    except GlnetError as error:
        print(f"error: {error}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"error": describe(error), "exit_code": int(exit_code(error))}))
        return exit_code(error)
    report = {
        "artifact": str(request.artifact.path),
        "precision": request.precision,
        "backend": trt.backend,
        "tensorrt": trt.version,
        "gpu": dataclasses.asdict(request.gpu),
        "cache": str(request.cache.root),
        "engines": rows,
    }
    print(json.dumps(report, indent=1) if arguments.json else as_text(report))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    command = argparse.ArgumentParser(prog="python -m export.build_engine", description=__doc__)
    command.add_argument("artifact", type=Path, help=".glnet file or folder")
    command.add_argument(
        "--precision", choices=("auto", *PRECISIONS), default="auto", help="auto: what load() takes"
    )
    batches = ",".join(map(str, BUCKETS))
    command.add_argument("--batches", default=batches, help="sizes, joined by commas")
    command.add_argument(
        "--gather",
        choices=("native", "plugin", "auto"),
        default="native",
        help="features at the part points by TensorRT's own layers, by our plugin, or whichever "
        "is measured faster here",
    )
    command.add_argument("--out", type=Path, help="cache folder, instead of the user's own")
    command.add_argument("--timing-cache", type=Path, help="file, instead of the cache's own")
    command.add_argument(
        "--hardware-compatible", action="store_true", help="one engine for all GPUs from Ampere on"
    )
    level = BuildOptions.optimization_level
    command.add_argument("--optimization-level", type=int, choices=range(6), default=level)
    command.add_argument("--workspace-mb", type=int, default=0, help="0 leaves it to TensorRT")
    command.add_argument(
        "--backend",
        choices=("tensorrt", "tensorrt-rtx"),
        help="default: tensorrt, without --target",
    )
    command.add_argument(
        "--target", help="GPU that is not here, such as sm86; TensorRT for RTX only"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = command.parse_args(argv)
    arguments.backend = arguments.backend or ("tensorrt-rtx" if arguments.target else "tensorrt")
    return arguments


def run_linked(argv: Sequence[str], program: str = "export.build_engine") -> int | None:
    """Run a program in a process that finds TensorRT for RTX under the name its parser asks for.

    Once a plugin is met the parser loads `libtensorrt_rtx.so`, or aborts the process; the wheel has
    `libtensorrt_rtx.so.1` alone, and a process reads LD_LIBRARY_PATH only as it starts.

    Returns:
        Its exit code; None where the name is found here, or TensorRT for RTX is not installed.
    """
    spec = find_spec("tensorrt_rtx_libs")
    try:
        ctypes.CDLL(RTX_LIBRARY)
    except OSError:
        if spec is None or spec.origin is None:
            return None
    else:
        return None
    with TemporaryDirectory() as folder:
        (Path(folder) / RTX_LIBRARY).symlink_to(Path(spec.origin).parent / f"{RTX_LIBRARY}.1")
        paths = [folder, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", program, *argv]
        return subprocess.run(command, env=environment, check=False).returncode


# -- what is asked for ----------------------------------------------------------------------------


def check(arguments: argparse.Namespace, trt: TensorRT) -> Request:
    """Refuse what cannot be built before anything is built.

    Raises:
        ContractError: options that contradict each other or make no sense.
        ArtifactError: the artifact is damaged.
        BackendError: it holds no such precision, or there is no GPU to build for.
    """
    check_options(arguments, trt)
    batches = parse_batches(arguments.batches)
    artifact = Artifact.open(arguments.artifact)
    precision = choose_precision(artifact, arguments.precision)
    gpu = Gpu("", arguments.target, "") if arguments.target else find_gpu_to_build_for(trt)
    cache = EngineCache(arguments.out)
    timing_cache = None if trt.is_rtx else arguments.timing_cache or timing_path(cache, trt, gpu)
    options = BuildOptions(
        optimization_level=arguments.optimization_level,
        workspace_mb=arguments.workspace_mb,
        hardware_compatible=arguments.hardware_compatible,
    )
    routes = choose_routes(artifact.read_model(precision), arguments.gather)
    if len(routes) > 1:
        open_binding().close()  # what times them: better missed now than after the first build
    return Request(artifact, precision, batches, routes, options, gpu, timing_cache, cache)


def check_options(arguments: argparse.Namespace, trt: TensorRT) -> None:
    if arguments.workspace_mb < 0:
        raise ContractError(
            "--workspace-mb is no size",
            got=arguments.workspace_mb,
            expected="0 or more, MB",
            fix="leave it out, and TensorRT takes what it needs",
        )
    if arguments.target and arguments.gather == "auto":
        raise ContractError(
            "--gather auto times both routes on the GPU, and with --target none is used",
            got="--gather auto",
            expected="a route by name",
            fix="pass --gather native or --gather plugin",
        )
    if trt.is_rtx:
        for name in ("hardware_compatible", "timing_cache"):
            if getattr(arguments, name):
                raise ContractError(
                    f"TensorRT for RTX has no {name.replace('_', ' ')}",
                    got=f"--{name.replace('_', '-')}",
                    expected="TensorRT's own option left out",
                    fix="leave it out, or build with --backend tensorrt",
                )
        if arguments.target:
            compute_capability(trt, arguments.target)
    elif arguments.target:
        raise ContractError(
            "only TensorRT for RTX builds for a GPU that is not here",
            got=f"--target {arguments.target} --backend {trt.backend}",
            expected="--backend tensorrt-rtx",
            fix="leave --target out on the machine that will run it, or use --backend tensorrt-rtx",
        )


def parse_batches(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= MAX_BATCH for word in words):
        raise ContractError(
            "--batches is no list of sizes",
            got=text,
            expected=f"numbers from 1 to {MAX_BATCH}, joined by commas",
            fix=f"--batches {','.join(map(str, BUCKETS))}",
        )
    return tuple(sorted({int(word) for word in words}))


def choose_precision(artifact: Artifact, wanted: str) -> str:
    held = artifact.manifest.precisions
    names = PRECISIONS if wanted == "auto" else (wanted,)
    for name in names:
        if name in held:
            return name
    raise BackendError(
        f"the artifact holds no model in {' or '.join(names)}",
        got=", ".join(held),
        expected=f"one of {', '.join(names)}",
        fix="export the artifact with that precision",
    )


def choose_routes(model: bytes, gather: str) -> tuple[Gather, ...]:
    """Which routes to build: two only where the choice is left to the clock."""
    if gather == "native":
        return ("native",)
    if NAME in op_types(model):
        return ("plugin",) if gather == "plugin" else ("native", "plugin")
    raise ContractError(
        f"this model has no node {NAME}, so the plugin has no place in it",
        got=f"--gather {gather}",
        expected="--gather native",
        fix="pass --gather native, or export the artifact again with this version of glnet-rt",
    )


def find_gpu_to_build_for(trt: TensorRT) -> Gpu:
    try:
        return find_gpu()
    except BackendError as error:
        other = "--backend tensorrt-rtx --target sm86 (its GPU's) builds for a GPU elsewhere"
        fix = f"run this on the machine that will run the engine; {other}"
        raise BackendError(
            f"{trt.backend} builds engines on the GPU that runs them, and there is none: "
            f"{error.what}",
            got=error.got,
            expected="an NVIDIA GPU and its driver",
            fix=fix,
        ) from error


def compute_capability(trt: TensorRT, target: str) -> Any:
    known = trt.module.ComputeCapability.__members__
    if target.upper() not in known or not target.startswith("sm"):
        raise ContractError(
            "TensorRT for RTX cannot build for this target",
            got=target,
            expected=", ".join(name.lower() for name in known if name.startswith("SM")),
            fix="name the GPU's compute capability, such as --target sm86",
        )
    return known[target.upper()]


# -- building -------------------------------------------------------------------------------------


def build_all(request: Request, trt: TensorRT) -> list[dict[str, Any]]:
    """Build every batch size by every route, keep the faster of each, and say what came out.

    One route after the other: once a plugin is registered, which cannot be taken back, TensorRT
    10.7 and newer would take it for the native route too.
    """
    routes = [[build(request, trt, batch, r) for batch in request.batches] for r in request.routes]
    return [
        keep_faster(request, trt, batch, built)
        for batch, *built in zip(request.batches, *routes, strict=True)
    ]


def keep_faster(
    request: Request, trt: TensorRT, batch: int, built: Sequence[Built]
) -> dict[str, Any]:
    """Put the faster engine of one batch size into the cache; its row of the report."""
    best = min(built, key=lambda one: one.ms or 0.0)
    timed = {one.gather: one.ms for one in built if one.ms is not None and len(built) > 1}
    header = EngineHeader(
        key=replace(request.key(trt, batch), plugin_sha256=best.plugin_sha256),
        options=replace(request.options, gather=best.gather),
        engine_sha256=hashlib.sha256(best.engine).hexdigest(),
        engine_bytes=len(best.engine),
        gather_ms=timed,
    )
    path = request.cache.write(request.artifact, header, best.engine)
    return {
        "batch": batch,
        "path": str(path),
        "bytes": len(best.engine),
        "seconds": round(best.seconds, 2),
        "gather": best.gather,
        "ms": {one.gather: one.ms for one in built},
        "network": best.network,
        "engine": None if best.layers is None else count_layers(best.layers),
        "layers": best.layers,
        "notes": best.notes,
    }


def build(request: Request, trt: TensorRT, batch: int, route: Gather) -> Built:
    """One engine, read back and timed where this machine can run it.

    Raises:
        BackendError: TensorRT refuses the model, or nothing computes in the asked precision.
    """
    module, started = trt.module, time.perf_counter()
    plugin_sha256 = load_plugin(module).sha256 if route == "plugin" else ""
    model = request.artifact.read_model(request.precision)
    builder = module.Builder(trt.log)
    network = parse_model(trt, builder, model, request.precision, route)
    asked = network_precisions(trt, network)
    require_precision(asked, request.precision, "the model")
    config = configure(request, trt, builder, batch)
    label = f"{request.precision} batch {batch} {route}"
    config.progress_monitor = progress_monitor(module, label)
    notes = load_timing_cache(config, request.timing_cache)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise BackendError(
            f"{trt.backend} {trt.version} cannot build {model_name(request.precision)}, "
            f"batch {batch}",
            got=trt.heard(),
            expected="an engine",
            fix="give it more memory (--workspace-mb, other processes), or another --precision",
        )
    save_timing_cache(config, request.timing_cache)
    engine, seconds = bytes(serialised), time.perf_counter() - started
    built = Built(engine, route, plugin_sha256, seconds, asked, notes=notes)
    return (
        read_back(request, trt, built, batch, label)
        if request.runs_here
        else not_here(request, built)
    )


def parse_model(trt: TensorRT, builder: Any, model: bytes, precision: str, route: Gather) -> Any:
    """The model as TensorRT's network, with the gather taking the route it should."""
    module = trt.module
    flags = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = module.OnnxParser(network, trt.log)
    # Up to 10.6 a local function goes before a plugin of the same name, and from 10.7 on after it.
    if not parser.parse(without_functions(model) if route == "plugin" else model):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise BackendError(
            f"{trt.backend} {trt.version} cannot parse {model_name(precision)}",
            got="; ".join(errors) or trt.heard(),
            expected="operators it knows",
            fix="upgrade TensorRT, or choose another --precision or --gather",
        )
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = sum(layer.type == module.LayerType.PLUGIN_V3 for layer in layers)
    if (plugins > 0) != (route == "plugin"):
        raise BackendError(
            f"the gather did not take the route {route}",
            got=f"{plugins} plugin layers in the network",
            expected="at least one" if route == "plugin" else "none",
            fix="build the routes in processes of their own",
        )
    return network


def network_precisions(trt: TensorRT, network: Any) -> dict[str, int]:
    """Precision -> convolutions and matrix products that the model, strongly typed, asks it of."""
    module = trt.module
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    quantized = {
        layer.get_output(0).name: precision_of(layer.get_input(0).dtype.name)
        for layer in layers
        if layer.type == module.LayerType.DEQUANTIZE
    }
    products = (module.LayerType.CONVOLUTION, module.LayerType.MATRIX_MULTIPLY)
    read = [layer.get_input(0) for layer in layers if layer.type in products]
    return count_precisions(
        quantized.get(tensor.name) or precision_of(tensor.dtype.name) for tensor in read
    )


def count_layers(layers: list[dict[str, str]]) -> dict[str, int]:
    """Precision -> layers of an engine that read it."""
    return count_precisions(layer["precision"] for layer in layers)


def count_precisions(names: Iterable[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(Counter(names).most_common())


def require_precision(counts: dict[str, int], precision: str, what: str) -> None:
    """Raise BackendError where nothing is in the precision that was asked for."""
    precision = "fp32" if precision == "packed" else precision
    if not counts.get(precision):
        raise BackendError(
            f"nothing in {what} computes in {precision}",
            got=", ".join(f"{count} layers in {name}" for name, count in counts.items()) or "none",
            expected=f"layers in {precision}",
            fix=f"export the artifact again with --precision {precision}; "
            "TensorRT takes the precision from the model alone",
        )


def configure(request: Request, trt: TensorRT, builder: Any, batch: int) -> Any:
    """How to build: the options, and one profile that leaves no dimension free."""
    module, options = trt.module, request.options
    config = builder.create_builder_config()
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.clear_flag(module.BuilderFlag.TF32)  # else float32 would be multiplied in 10 bits
    if options.workspace_mb:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if trt.is_rtx and not request.runs_here:
        config.num_compute_capabilities = 1
        config.set_compute_capability(compute_capability(trt, request.gpu.sm), 0)
    profile = builder.create_optimization_profile()
    shape = (batch, *request.spec.input_shape)
    profile.set_shape(request.spec.input_name, shape, shape, shape)
    config.add_optimization_profile(profile)
    return config


def read_back(request: Request, trt: TensorRT, built: Built, batch: int, label: str) -> Built:
    """What the engine really does, on the GPU it is for."""
    engine = trt.deserialize(built.engine, label, "build it again")
    layers = trt.layers(engine)
    require_precision(count_layers(layers), request.precision, f"the engine {label}")
    two = len(request.routes) > 1
    ms = measure_ms(trt, engine, request.spec, batch) if two else None
    return replace(built, layers=layers, ms=ms)


def not_here(request: Request, built: Built) -> Built:
    note = (
        f"built for {request.gpu.sm}, which is not here: its layers were not read back and it was "
        "not timed"
    )
    return replace(built, notes=[*built.notes, note])


# -- the timing cache, and how far it is ----------------------------------------------------------


def timing_path(cache: EngineCache, trt: TensorRT, gpu: Gpu) -> Path:
    name = re.sub(r"[^A-Za-z0-9.]", "_", f"{gpu.name}.{gpu.sm}.cuda{gpu.cuda}")
    return cache.root / f"timing.{trt.backend}-{trt.version}.{name}.cache"


def load_timing_cache(config: Any, path: Path | None) -> list[str]:
    """Hand TensorRT what it measured before; a note where that was of no use."""
    if path is None:
        return []
    data = path.read_bytes() if path.exists() else b""
    if data and config.set_timing_cache(config.create_timing_cache(data), False):
        return []
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return [f"TensorRT refuses the timing cache {path}; started anew"] if data else []


def save_timing_cache(config: Any, path: Path | None) -> None:
    if path is not None:
        timing_cache = config.get_timing_cache()
        write_atomically(path, bytes(timing_cache.serialize()))


def progress_monitor(module: Any, label: str) -> Any:
    """Tells on stderr which outer phase the builder is in."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.depth: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.depth[phase] = self.depth.get(parent, -1) + 1 if parent else 0
            if self.depth[phase] <= 1:
                print(f"{label}: {phase}", file=sys.stderr, flush=True)

        def step_complete(self, phase: str, step: int) -> bool:
            return True

        def phase_finish(self, phase: str) -> None:
            self.depth.pop(phase, None)

    return Monitor()


def as_text(report: dict[str, Any]) -> str:
    """The report, a few lines for each engine."""
    gpu = " ".join(filter(None, (report["gpu"]["name"], report["gpu"]["sm"])))
    head = f"{report['precision']} engines of {report['artifact']} for {gpu}"
    lines = [f"{head}, {report['backend']} {report['tensorrt']}"]
    for row in report["engines"]:
        timed = [f"{route} {ms:.2f} ms" for route, ms in row["ms"].items() if ms is not None]
        lines += [
            f"batch {row['batch']}: {row['bytes'] / 1e6:.1f} MB in {row['seconds']:.1f} s, "
            + ", ".join([f"gather {row['gather']}", *timed]),
            f"  the model asks for {as_counts(row['network'])} (convolutions and products)",
        ]
        if row["engine"] is not None:
            lines.append(f"  the engine reads {as_counts(row['engine'])} (layers)")
        lines += [f"  note: {note}" for note in row["notes"]] + [f"  {row['path']}"]
    return "\n".join(lines)


def as_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
