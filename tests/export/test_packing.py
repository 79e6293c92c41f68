"""Packed weights: every bit comes through, and bits go where rounding harms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.graph import run_graph, serialised
from export.packing import SMALL, bits_at, deflated, large_weights, pack, pack_into
from glnet_rt.errors import ContractError
from glnet_rt.spec import NetSpec


@pytest.fixture
def packable(
    narrow_graph: onnx.ModelProto, narrow_spec: NetSpec
) -> tuple[onnx.ModelProto, NetSpec]:
    """The float32 graph of a narrow network."""
    return narrow_graph, narrow_spec


def equal_harm(proto: onnx.ModelProto) -> dict[str, float]:
    return {weight.name: 1.0 for weight in large_weights(proto)}


@pytest.mark.parametrize("bits", [5, 8, 9, 16])
def test_packed_weights_are_the_rounded_ones(
    packable: tuple[onnx.ModelProto, NetSpec], bits: int
) -> None:
    """Every bit comes through, and no more than half a step is lost in any channel."""
    proto, spec = onnx.ModelProto(), packable[1]
    proto.CopyFrom(packable[0])
    weights = large_weights(proto)
    packed = pack(proto, {w.name: bits for w in weights})
    assert not {w.name for w in weights} & {t.name for t in packed.graph.initializer}
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for weight in weights:
        steps, step = weight.rounded(bits)
        assert (np.abs(steps * step - weight.values) <= step * 0.501).all()
        assert np.abs(steps).max() in (2 ** (bits - 1) - 1, 0)  # 0: a layer that starts at zero
        rounded = (steps * step).astype(np.float32)
        tensors[weight.name].CopyFrom(onnx.numpy_helper.from_array(rounded, weight.name))
    images = np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32)
    wanted, got = run_graph(proto, spec, images), run_graph(packed, spec, images)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_onnxruntime_unpacks_at_load_time(
    tmp_path: Path, packable: tuple[onnx.ModelProto, NetSpec]
) -> None:
    """What runs per crop is the graph of floats: as many nodes of every kind, no piece left."""
    proto, _ = packable
    packed = pack(proto, {w.name: 9 for w in large_weights(proto)})
    kinds = []
    for graph in (proto, packed):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(serialised(graph), options)
        kinds.append(sorted(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node))
    assert kinds[0] == kinds[1]


def test_bits_go_where_rounding_harms(packable: tuple[onnx.ModelProto, NetSpec]) -> None:
    proto, _ = packable
    weights = large_weights(proto)
    harm = equal_harm(proto)
    bits = bits_at(18.0, weights, harm)
    small, large = (f(weights, key=lambda w: w.values.size) for f in (min, max))
    assert SMALL <= small.values.size < large.values.size
    assert bits[small.name] > bits[large.name]
    assert bits_at(18.0, weights, {**harm, large.name: 4.0})[large.name] == bits[large.name] + 2
    size = deflated(pack(proto, dict.fromkeys(harm, 8)))
    fine, coarse = (pack_into(proto, harm, int(share * size)) for share in (1.2, 0.9))
    assert 0.85 < deflated(coarse) / size <= 0.9
    assert 1.15 < deflated(fine) / size <= 1.2
    with pytest.raises(ContractError, match="does not fit"):
        pack_into(proto, harm, size // 4)
