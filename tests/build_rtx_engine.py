"""`python -m tests.build_rtx_engine MODEL SM [SHAPE...] [--plugin | --library PATH]`, as JSON.

Builds an engine for a GPU that is not here, with TensorRT for RTX. A program of its own, because
TensorRT may abort the process, and keeps plugins and its logger for as long as one lives.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from export.build_engine import run_linked
from glnet_rt.backends.gather_plugin import load_plugin


def main() -> None:
    arguments = parse()
    code = run_linked(sys.argv[1:], "tests.build_rtx_engine")
    if code is not None:
        sys.exit(code)
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


if __name__ == "__main__":
    main()
