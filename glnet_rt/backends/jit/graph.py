"""Which part of a model the kernels can compute, read from OpenVINO's graph of it.

A trunk is what can be reached from the image through convolutions, sums, ReLUs and up-sampling
alone, all of whose shapes the kernels take. What it hands on, the rest of the model reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glnet_rt.backends.jit._code import LANES
from glnet_rt.backends.jit.kernels import PIXELS
from glnet_rt.contracts import Array

LEVELS = 256  # of an unsigned byte


@dataclass(frozen=True)
class Convolution:
    """A convolution with its bias, of whatever a node gives.

    Attributes:
        name: of the node.
        source: name of the node it reads.
        weights: [O, C, k, k] float32, or int8 where `scale` is not None.
        scale: [O] float32, of integer weights; None computes with floats.
        top: what the largest byte stands for, where the input is rounded to bytes; else 0.
        bias: [O] float32.
        stride: 1 or 2.
    """

    name: str
    source: str
    weights: Array
    scale: Array | None
    top: float
    bias: Array
    stride: int


@dataclass(frozen=True)
class Term:
    """Another map that is added.

    Attributes:
        source: name of the node.
        shift: its sides are 2**shift smaller.
        top: what its largest byte stands for, where it is read as bytes; else 0.
    """

    source: str
    shift: int
    top: float


@dataclass(frozen=True)
class Sum:
    """A node that is computed: the sum of convolutions and maps, perhaps without what is negative.

    Attributes:
        name: of the node.
        shape: [H, W, C].
        convolutions, terms: what is added.
        relu: whether ReLU follows.
        floats: whether anyone reads it as floats.
        top: as of `Convolution`, where anyone reads it as bytes; else 0.
    """

    name: str
    shape: tuple[int, int, int]
    convolutions: tuple[Convolution, ...]
    terms: tuple[Term, ...]
    relu: bool
    floats: bool
    top: float


@dataclass(frozen=True)
class Trunk:
    """What is computed, in order.

    Attributes:
        image: name of the node that gives the picture.
        sums: in an order in which each reads only what comes before.
        outputs: names of those that the rest of the model reads.
    """

    image: str
    sums: tuple[Sum, ...]
    outputs: tuple[str, ...]


def integer_weights(model: Any) -> dict[str, Array]:
    """Name of each convolution with INT8 weights -> their scales, [O] float32.

    To be asked before constants are folded, which makes floats of them.
    """
    scales = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        times = node.input_value(1).get_node()
        if times.get_type_name() == "Multiply":
            scale = times.input_value(1).get_node()
            while scale.get_type_name() in ("Reshape", "Convert"):
                scale = scale.input_value(0).get_node()
            if scale.get_type_name() == "Constant":
                scales[node.get_friendly_name()] = scale.data.astype(np.float32).reshape(-1)
    return scales


def read_trunk(model: Any, scales: Mapping[str, Array]) -> Trunk:
    """The trunk of a model whose constants are folded.

    Args:
        scales: of `integer_weights`.
    """
    reader = _Reader(model, scales)
    sums = tuple(reader.read(node) for node in reader.nodes if reader.is_kept(node))
    kept = {sum_.name for sum_ in sums}
    outputs = tuple(
        name for node in reader.nodes
        if (name := node.get_friendly_name()) in kept and reader.leaves(node)
    )  # fmt: skip
    return Trunk(model.inputs[0].get_node().get_friendly_name(), sums, outputs)


class _Reader:
    """Walks a model once; `nodes` are those inside the trunk, in order."""

    def __init__(self, model: Any, scales: Mapping[str, Array]) -> None:
        self._scales = scales
        self._image = model.inputs[0].get_node().get_friendly_name()
        self._inside: set[str] = {self._image}
        self.nodes = []
        for node in model.get_ordered_ops():
            if self._computable(node):
                self._inside.add(node.get_friendly_name())
                self.nodes.append(node)

    def _computable(self, node: Any) -> bool:
        """Whether the kernels can do this node, and all before it."""
        kind = node.get_type_name()
        if kind not in ("Convolution", "Relu", "Add", "Interpolate", "FakeQuantize"):
            return False
        if self._source(node) not in self._inside:
            return False
        if kind == "Convolution":
            return _is_plain(node, self._image)
        if self._source(node) == self._image:  # which has no 16 channels
            return False
        if kind == "Add" and _is_bias(node):
            return _only_read_by_one(_before(node))
        if kind == "Add":
            inside = self._source(node, 1) in self._inside - {self._image}
            return inside and node.input(0).get_shape() == node.input(1).get_shape()
        if kind == "Interpolate":
            return _doublings(node) is not None
        return kind == "Relu" or _rounds_to_bytes(node)

    def _source(self, node: Any, index: int = 0) -> str:
        return str(_before(node, index).get_friendly_name())

    # -- what is kept in memory

    def is_kept(self, node: Any) -> bool:
        """Whether a node's values are stored: they are read by more than what they flow into."""
        if node.get_type_name() == "FakeQuantize":
            return False
        readers = _readers(node)
        if self.leaves(node) or len(readers) != 1:
            return True
        reader = readers[0]
        kind = reader.get_type_name()
        if kind in ("Convolution", "FakeQuantize", "Interpolate"):
            return True
        if kind == "Relu":
            return False
        # An addition: a convolution or a sum flows into it, anything else is read.
        return node.get_type_name() not in ("Convolution", "Add", "Interpolate")

    def leaves(self, node: Any) -> bool:
        """Whether anything outside the trunk reads a node."""
        for reader in _readers(node):
            if reader.get_friendly_name() not in self._inside:
                return True
            if reader.get_type_name() == "FakeQuantize" and self.leaves(reader):
                return True
        return False

    def _reads_floats(self, reader: Any) -> bool:
        """Whether a reader takes a value as it is; a rounding's, where weights are no integers.

        What the kernels then compute is neither rounded nor cut off as the model says.
        """
        if not _is_rounding(reader):
            return True
        behind = [node for node in _readers(reader) if node.get_type_name() == "Convolution"]
        return any(self._integers(node) is None for node in behind)

    # -- how it is computed

    def read(self, node: Any) -> Sum:
        """The sum that gives a kept node."""
        _, channels, height, width = node.output(0).get_shape()
        relu = node.get_type_name() == "Relu"
        convolutions: list[Convolution] = []
        terms: list[Term] = []
        self._add(_before(node) if relu else node, convolutions, terms, first=not relu)
        readers = _readers(node)
        tops = {_top(reader) for reader in readers if reader.get_type_name() == "FakeQuantize"}
        floats = self.leaves(node) or any(map(self._reads_floats, readers))
        return Sum(
            node.get_friendly_name(), (height, width, channels), tuple(convolutions),
            tuple(terms), relu, floats, tops.pop() if tops else 0.0,
        )  # fmt: skip

    def _add(
        self, node: Any, convolutions: list[Convolution], terms: list[Term], *, first: bool = False
    ) -> None:
        """What a node is the sum of; `first` is the kept node itself."""
        kind = node.get_type_name()
        if kind == "FakeQuantize" or (not first and self.is_kept(node)):
            terms.append(self._term(node, 0))
        elif kind == "Add" and _is_bias(node):
            convolutions.append(self._convolution(_before(node), _constant(node, 1).reshape(-1)))
        elif kind == "Add":
            self._add(_before(node, 0), convolutions, terms)
            self._add(_before(node, 1), convolutions, terms)
        elif kind == "Convolution":
            convolutions.append(self._convolution(node, np.zeros(node.output(0).get_shape()[1])))
        else:
            shift = _doublings(node)
            assert shift is not None, kind
            terms.append(self._term(_before(node), shift))

    def _term(self, node: Any, shift: int) -> Term:
        """A map that is added, as floats or, behind a rounding, as bytes."""
        if node.get_type_name() == "FakeQuantize":
            return Term(self._source(node), shift, _top(node))
        return Term(node.get_friendly_name(), shift, 0.0)

    def _integers(self, node: Any) -> tuple[Array, Array] | None:
        """Weights [O, C, k, k] int8 and their scales [O]; None where they are floats."""
        scale = self._scales.get(node.get_friendly_name())
        if scale is None:
            return None
        levels = np.rint(_constant(node, 1) / scale[:, None, None, None])
        return (levels.astype(np.int8), scale) if np.abs(levels).max() <= 127 else None

    def _convolution(self, node: Any, bias: Array) -> Convolution:
        """With integers where both sides are."""
        before, weights, scale = _before(node), _constant(node, 1).astype(np.float32), None
        source, top = before.get_friendly_name(), 0.0
        if _is_rounding(before):
            source = self._source(before)
            if (integers := self._integers(node)) is not None:
                weights, scale = integers
                top = _top(before)
        stride = node.get_attributes()["strides"][0]
        bias = bias.astype(np.float32)
        return Convolution(node.get_friendly_name(), source, weights, scale, top, bias, stride)


def _is_rounding(node: Any) -> bool:
    return bool(node.get_type_name() == "FakeQuantize")


def _before(node: Any, index: int = 0) -> Any:
    return node.input_value(index).get_node()


def _readers(node: Any) -> list[Any]:
    return [reader.get_node() for reader in node.output(0).get_target_inputs()]


def _only_read_by_one(node: Any) -> bool:
    return len(_readers(node)) == 1


def _constant(node: Any, index: int) -> Array:
    return np.asarray(_before(node, index).data)


def _is_bias(node: Any) -> bool:
    """Whether an addition adds one number per channel to a convolution."""
    constant, other = _before(node, 1), _before(node, 0)
    if constant.get_type_name() != "Constant" or other.get_type_name() != "Convolution":
        return False
    return list(constant.output(0).get_shape()) == [1, node.output(0).get_shape()[1], 1, 1]


def _is_plain(node: Any, image: str) -> bool:
    """A convolution of a size that the kernels take, padded so that stride alone shrinks it."""
    if _before(node, 1).get_type_name() != "Constant":
        return False
    outputs, inputs, height, width = node.input(1).get_shape()
    told = node.get_attributes()
    pads = [height // 2, width // 2]
    stride = told["strides"][0]
    rows, columns = node.output(0).get_shape()[2:]
    fits = outputs % LANES == 0 and rows * columns >= PIXELS
    whole = [n * stride for n in (rows, columns)] == list(node.input(0).get_shape()[2:])
    of_image = _before(node).get_friendly_name() == image
    return (
        fits and whole and height == width and height in (1, 3) and told["strides"][1] == stride
        and list(told["pads_begin"]) == pads == list(told["pads_end"])
        and told["dilations"] == [1, 1] and stride in (1, 2)
        and (inputs % LANES == 0 or (of_image and inputs == 3))
    )  # fmt: skip


def _doublings(node: Any) -> int | None:
    """By how many powers of two the nearest pixel is repeated; None for any other up-sampling."""
    if node.get_type_name() != "Interpolate":
        return None
    told = node.get_attributes()
    wanted = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
              "nearest_mode": "floor"}  # fmt: skip
    if any(told[name] != value for name, value in wanted.items()):
        return None
    small, large = node.input(0).get_shape()[2:], node.output(0).get_shape()[2:]
    for shift in range(5):
        if [side << shift for side in small] == list(large):
            return shift
    return None


def _rounds_to_bytes(node: Any) -> bool:
    """Whether what is not negative is rounded to 256 levels from zero up."""
    if node.get_attributes()["levels"] != LEVELS:
        return False
    low, high, out_low, out_high = (_constant(node, i) for i in (1, 2, 3, 4))
    if any(bound.size != 1 for bound in (low, high, out_low, out_high)):
        return False
    others = [n for n in _readers(_before(node)) if n.get_type_name() == "FakeQuantize"]
    alike = all(_constant(n, 2).size == 1 and _top(n) == _top(node) for n in others)
    return bool(low == 0 and out_low == 0 and high == out_high and alike)


def _top(node: Any) -> float:
    """What the largest level of a rounding stands for."""
    return float(_constant(node, 2).item())
