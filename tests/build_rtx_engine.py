"""`python -m tests.build_rtx_engine MODEL SM [SHAPE...] [--plugin | --library PATH]`, as JSON.

Builds an engine for a GPU that is not here, with TensorRT for RTX. A program of its own, because
TensorRT may abort the process, and keeps plugins and its logger for as long as one lives.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from glnet_rt.backends.gather_plugin import load_plugin


def main() -> None:
    arguments = parse()
    if "GLNET_TEST_LINKED" not in os.environ:
        restart_with_library_name()
    import tensorrt_rtx as trt

    plugin = load_plugin(trt, arguments.library) if arguments.plugin else None
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(arguments.model.read_bytes()):
        sys.exit("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, arguments.sm), 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        sys.exit("no engine")
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    report = {
        "layers": {layer.name: layer.type.name for layer in layers},
        "types": {layer.name: layer.get_output(0).dtype.name for layer in layers},
        "shapes": {layer.name: list(layer.get_output(0).shape) for layer in layers},
        "bytes": engine.nbytes,
        "holds_namespace": b"glnet_rt" in bytes(engine),
        "plugin": None if plugin is None else plugin.sha256,
    }
    print(json.dumps(report))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("sm")
    parser.add_argument("--plugin", action="store_true", help="register it, the twin by default")
    parser.add_argument("--library", type=Path, help="the compiled one")
    return parser.parse_args()


def restart_with_library_name() -> None:
    """Run this again where `libtensorrt_rtx.so` is found.

    The parser asks for that name once a plugin node is met; the wheel has `.so.1` alone.
    """
    spec = find_spec("tensorrt_rtx_libs")
    assert spec is not None
    assert spec.origin is not None
    with TemporaryDirectory() as folder:
        library = Path(spec.origin).parent / "libtensorrt_rtx.so.1"
        (Path(folder) / "libtensorrt_rtx.so").symlink_to(library)
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "GLNET_TEST_LINKED": "1"}
        command = [sys.executable, "-m", "tests.build_rtx_engine", *sys.argv[1:]]
        sys.exit(os.spawnve(os.P_WAIT, sys.executable, command, environment))


if __name__ == "__main__":
    main()
