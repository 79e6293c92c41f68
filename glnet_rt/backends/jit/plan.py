"""From a trunk to operations: which kernel computes what, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from glnet_rt.backends.jit import weights
from glnet_rt.backends.jit._code import LANES, LEVEL, SIZE, WIDE
from glnet_rt.backends.jit.graph import LEVELS, Convolution, Sum, Term, Trunk
from glnet_rt.backends.jit.kernels import (
    FIELDS,
    MOST_TERMS,
    PIXELS,
    POINTS,
    TILE,
    Field,
    TermField,
)
from glnet_rt.backends.jit.memory import ALIGNED, Arena, aligned
from glnet_rt.backends.jit.program import Operation, run
from glnet_rt.contracts import Array
from glnet_rt.spec import NetSpec

IMAGE_CHANNELS = 4  # three, and one of zeros
_NUMBERS = {"i8": np.uint8, "i16": np.uint16, "bf16": np.uint16, "f32": np.float32}
_DIRECT = {
    (LEVEL, "f32"): Operation.DIRECT_LEVELS_F32, (LEVEL, "bf16"): Operation.DIRECT_LEVELS_BF16,
    ("f32", "f32"): Operation.DIRECT_F32, ("bf16", "bf16"): Operation.DIRECT_BF16,
}  # fmt: skip
_WINOGRAD = {
    ("f32", "f32"): Operation.WINOGRAD_F32, ("bf16", "bf16"): Operation.WINOGRAD_BF16,
    ("i16", "f32"): Operation.WINOGRAD_I16,
}  # fmt: skip
_WINOGRAD_WEIGHTS = {"f32": np.float32, "bf16": np.float16}
_IMAGE = {"f32": Operation.IMAGE_F32, "bf16": Operation.IMAGE_BF16}
_ADD = {"f32": Operation.ADD_F32, "bf16": Operation.ADD_BF16}
# That Winograd computes at a time: what lies between its steps stays in the cache.
_TILES = 32 if WIDE else 16


@dataclass(eq=False)
class Map:
    """Numbers of one value, [H, W, C], with zeros around where a kernel reads over the edge.

    Attributes:
        shape: [H, W, C].
        kind: "f32", "bf16" or LEVEL.
        halo: px of zeros on every side.
        lasting: whether it is never written over by another.
        last: index of the last operation that reads it.
        slot: which memory it lies in.
    """

    shape: tuple[int, int, int]
    kind: str
    halo: int = 1
    lasting: bool = False
    last: int = -1
    slot: int = -1

    @property
    def pixel(self) -> int:
        """Bytes to the next pixel."""
        return self.shape[2] * SIZE[self.kind]

    @property
    def row(self) -> int:
        """Bytes to the next row."""
        return (self.shape[1] + 2 * self.halo) * self.pixel

    @property
    def size(self) -> int:
        return aligned((self.shape[0] + 2 * self.halo) * self.row)

    def at(self, row: int, pixel: int) -> int:
        """Offset of a pixel, -1 is in the halo."""
        return (row + self.halo) * self.row + (pixel + self.halo) * self.pixel

    @property
    def dtype(self) -> type:
        return _NUMBERS[self.kind]


@dataclass
class _Step:
    """An operation whose addresses are not known yet."""

    numbers: dict[int, int] = field(default_factory=dict)
    reads: dict[int, tuple[Map, int]] = field(default_factory=dict)  # field -> map and offset
    writes: dict[int, tuple[Map, int]] = field(default_factory=dict)
    constants: dict[int, int] = field(default_factory=dict)  # field -> offset among the weights


class Plan:
    """Operations and weights of a trunk; `Lane` gives them memory to work in.

    Args:
        trunk: what to compute.
        spec: of the network.
        floats: "f32" or "bf16", what is not bytes.
    """

    def __init__(self, trunk: Trunk, spec: NetSpec, floats: str) -> None:
        self.floats = floats
        size = spec.input_size
        self._image = Map((size, size, IMAGE_CHANNELS), floats)
        self.outputs: dict[str, Map] = {}
        self.scratch = 0  # bytes
        self._trunk = trunk
        self._floats: dict[str, Map] = {trunk.image: self._image}
        self._levels: dict[str, Map] = {}
        self._steps: list[_Step] = []
        self._constants: list[tuple[int, Array]] = []
        self._constants_size = 0
        self._normalise(spec)
        for sum_ in trunk.sums:
            self._compute(sum_)
        self.weights = Arena(self._constants_size)
        for offset, array in self._constants:
            self.weights.write(offset, array)
        self._constants.clear()
        self.slots = _share_slots(self._steps, list(self.outputs.values()))

    def operations(self, slots: list[int], scratch: int) -> Array:
        """[N, FIELDS] int64, for memory at the given addresses."""
        table = np.zeros((len(self._steps), FIELDS), np.int64)
        for row, step in zip(table, self._steps, strict=True):
            for index, number in step.numbers.items():
                row[index] = number
            for index, (map_, offset) in (*step.reads.items(), *step.writes.items()):
                row[index] = slots[map_.slot] + offset
            for index, offset in step.constants.items():
                row[index] = self.weights.address + offset
            row[Field.SCRATCH] = scratch
        return table

    # -- one value

    def _normalise(self, spec: NetSpec) -> None:
        """The first operation: a crop, whose address each run gives, to what the trunk reads."""
        gain = [1 / (255 * std) for std in spec.std]
        bias = [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        width = spec.input_size
        step = _Step({
            Field.CODE: _IMAGE[self.floats], Field.ROWS: width, Field.WIDTH: width,
            Field.X_ROW: 3 * width,
        })  # fmt: skip
        for place, values in ((Field.SCALE, gain), (Field.BIAS, bias)):
            step.constants[place] = self._keep(np.array([*values, 0.0] * (LANES // 4), np.float32))
        _write(step, Field.OUT, self._image)
        self._steps.append(step)

    def _compute(self, sum_: Sum) -> None:
        """All operations of a sum."""
        final = self._final(sum_)
        if sum_.convolutions:
            self._convolve_all(sum_, final)
        else:
            self._add(sum_.terms, sum_.shape, final)
        if sum_.name in self._trunk.outputs and sum_.name not in self.outputs:
            self._copy_out(sum_)

    def _convolve_all(self, sum_: Sum, final: _Step) -> None:
        """Convolutions one after the other, each beginning with what there is so far."""
        before: Map | Term | None = None
        if [term.shift for term in sum_.terms] == [0]:
            before = sum_.terms[0]
        elif sum_.terms:
            before, step = Map(sum_.shape, self.floats), _Step()
            _write(step, Field.OUT, before)
            self._add(sum_.terms, sum_.shape, step)
        for convolution in sum_.convolutions[:-1]:
            so_far, step = Map(sum_.shape, self.floats), _Step()
            _write(step, Field.OUT, so_far)
            self._skip(step, before)
            self._convolve(convolution, sum_.shape, step)
            before = so_far
        self._skip(final, before)
        last = sum_.convolutions[-1]
        if sum_.top and last.scale is not None and not (sum_.floats or Field.SKIP in final.reads):
            last = _in_levels(last, sum_, final)
        self._convolve(last, sum_.shape, final)

    def _final(self, sum_: Sum) -> _Step:
        """The step that ends a sum: where it goes."""
        step = _Step({Field.RELU: int(sum_.relu)})
        if sum_.floats:
            map_ = Map(sum_.shape, self.floats)
            if sum_.name in self._trunk.outputs and not self._is_read(sum_.name):
                map_ = self.outputs[sum_.name] = Map(sum_.shape, self.floats, 0, lasting=True)
            self._floats[sum_.name] = map_
            _write(step, Field.OUT, map_)
        if sum_.top:
            self._levels[sum_.name] = Map(sum_.shape, LEVEL)
            _write(step, Field.LEVELS, self._levels[sum_.name])
            step.numbers[Field.INVERSE] = _bits((LEVELS - 1) / sum_.top)
        return step

    def _is_read(self, name: str) -> bool:
        """Whether the trunk itself reads a value as floats."""
        return any(
            any(c.source == name and c.scale is None for c in sum_.convolutions)
            or any(t.source == name and not t.top for t in sum_.terms)
            for sum_ in self._trunk.sums
        )

    def _copy_out(self, sum_: Sum) -> None:
        """What the rest of the model reads lies by itself, without a halo."""
        self.outputs[sum_.name] = Map(sum_.shape, self.floats, 0, lasting=True)
        step = _Step()
        _write(step, Field.OUT, self.outputs[sum_.name])
        self._add((Term(sum_.name, 0, 0.0),), sum_.shape, step)

    # -- one operation

    def _convolve(self, convolution: Convolution, shape: tuple[int, int, int], step: _Step) -> None:
        """Add a convolution to the steps."""
        scale = convolution.scale
        source = (self._levels if scale is not None else self._floats)[convolution.source]
        kernel = convolution.weights.shape[2]
        step.constants[Field.BIAS] = self._keep(convolution.bias)
        step.reads[Field.X] = source, source.at(-(kernel // 2), -(kernel // 2))
        numbers: dict[int, int] = {
            Field.WIDTH: shape[1], Field.CHANNELS: shape[2], Field.X_LINE: source.row,
            Field.X_ROW: convolution.stride * source.row,
            Field.X_PIXEL: convolution.stride * source.pixel,
        }  # fmt: skip
        packed = _winograd_weights(convolution, shape, self.floats)
        if packed is None:
            numbers |= self._directly(convolution, source, shape, step)
        else:
            numbers |= self._by_winograd(packed, source, shape, step)
        if scale is not None:
            level = np.float32(convolution.top / (LEVELS - 1))
            if packed is not None:
                level /= weights.WHOLE_FACTOR
            step.constants[Field.SCALE] = self._keep(level * scale)
        step.numbers.update(numbers)
        self._steps.append(step)

    def _directly(
        self, convolution: Convolution, source: Map, shape: tuple[int, int, int], step: _Step
    ) -> dict[int, int]:
        """Fields of a direct convolution."""
        array = convolution.weights
        kernel = array.shape[2]
        missing = source.shape[2] - array.shape[1]
        array = np.pad(array, ((0, 0), (0, missing), (0, 0), (0, 0)))
        packed = weights.direct(array, 4 // SIZE[source.kind])
        if source.kind == "bf16":
            packed = weights.bfloat16(packed)
        if source.kind == "i16":
            packed = packed.astype(np.int16)
        step.constants[Field.WEIGHTS] = self._keep(packed)
        return {
            Field.CODE: _DIRECT[source.kind, self.floats], Field.ROWS: shape[0],
            Field.LINES: kernel, Field.STEPS: kernel * source.pixel // 4,
        }  # fmt: skip

    def _by_winograd(
        self, packed: Array, source: Map, shape: tuple[int, int, int], step: _Step
    ) -> dict[int, int]:
        """Fields of a convolution by Winograd's products."""
        step.constants[Field.WEIGHTS] = self._keep(packed)
        height, width, outputs = shape
        inputs = source.shape[2]
        down, across = height // TILE, width // TILE
        rows = _tile_rows(down, across)
        # Not a power of two, whose multiples would all lie in the same few places of the cache.
        number = 2 if source.kind == "i16" else 4
        read_step = number * rows * across * inputs + ALIGNED
        sum_step = 4 * rows * across * outputs + ALIGNED
        self.scratch = max(self.scratch, POINTS * (read_step + sum_step))
        return {
            Field.CODE: _WINOGRAD[source.kind, self.floats], Field.ROWS: down // rows,
            Field.STEPS: inputs, Field.TILE_ROWS: rows, Field.READ_STEP: read_step,
            Field.SUM_STEP: sum_step, Field.SUMS: POINTS * read_step,
        }  # fmt: skip

    def _add(self, terms: tuple[Term, ...], shape: tuple[int, int, int], step: _Step) -> None:
        """Add a sum of maps to the steps."""
        while len(terms) > MOST_TERMS:
            name = f"sum {len(self._steps)}"
            self._floats[name], part = Map(shape, self.floats), _Step()
            _write(part, Field.OUT, self._floats[name])
            self._add(terms[:MOST_TERMS], shape, part)
            terms = (Term(name, 0, 0.0), *terms[MOST_TERMS:])
        for i, term in enumerate(terms):
            at = Field.TERM + i * len(TermField)
            source = (self._levels if term.top else self._floats)[term.source]
            step.reads[at + TermField.X] = source, source.at(0, 0)
            step.numbers[at + TermField.ROW] = source.row
            step.numbers[at + TermField.PIXEL] = source.pixel
            step.numbers[at + TermField.SHIFT] = term.shift
            step.numbers[at + TermField.LEVEL] = _bits(term.top / (LEVELS - 1))
        step.numbers.update({
            Field.CODE: _ADD[self.floats], Field.ROWS: shape[0], Field.WIDTH: shape[1],
            Field.CHANNELS: shape[2], Field.TERMS: len(terms),
        })  # fmt: skip
        self._steps.append(step)

    def _skip(self, step: _Step, before: Map | Term | None) -> None:
        """What a convolution's sum begins with."""
        if before is None:
            return
        source = before
        if isinstance(before, Term):
            source = (self._levels if before.top else self._floats)[before.source]
            step.numbers[Field.SKIP_LEVEL] = _bits(before.top / (LEVELS - 1))
        assert isinstance(source, Map)
        place = Field.SKIP_LEVELS if source.kind == LEVEL else Field.SKIP
        step.reads[place] = source, source.at(0, 0)
        step.numbers[Field.SKIP_ROW] = source.row
        step.numbers[Field.SKIP_PIXEL] = source.pixel

    def _keep(self, array: Array) -> int:
        """Offset of an array among the weights."""
        offset = self._constants_size
        self._constants.append((offset, array))
        self._constants_size += aligned(array.nbytes)
        return offset


class Lane:
    """Memory in which a plan runs: one picture at a time.

    Attributes:
        outputs: name -> [H, W, C] float32, or bfloat16 as uint16; written over by the next run.
    """

    def __init__(self, plan: Plan) -> None:
        offsets, size = [], 0
        for slot in plan.slots:
            offsets.append(size)
            size += slot + ALIGNED  # so that equal maps do not lie in the same places of the cache
        self._plan, self._arena = plan, Arena(size + plan.scratch)
        slots = [self._arena.address + offset for offset in offsets]
        self._operations = plan.operations(slots, self._arena.address + size)
        self.outputs = {
            name: self._arena.array(offsets[map_.slot], map_.shape, map_.dtype)
            for name, map_ in plan.outputs.items()
        }

    def run(self, crop: Array) -> None:
        """Compute the outputs.

        Args:
            crop: [S, S, 3] uint8 BGR, contiguous.
        """
        self._operations[0, Field.X] = crop.ctypes.data
        run(self._operations, self._operations.ctypes.data)


def _in_levels(convolution: Convolution, sum_: Sum, step: _Step) -> Convolution:
    """The same, but what it sums are levels of the bytes it is rounded to: nothing is scaled later.

    ReLU need not be asked for: bytes begin at zero.
    """
    assert convolution.scale is not None
    inverse = np.float32((LEVELS - 1) / sum_.top)
    step.numbers.update({Field.INVERSE: 0, Field.RELU: 0})
    if Field.SKIP_LEVELS in step.reads:
        level = float(np.int32(step.numbers[Field.SKIP_LEVEL]).view(np.float32))
        step.numbers[Field.SKIP_LEVEL] = _bits(level * float(inverse))
    scale, bias = convolution.scale * inverse, convolution.bias * inverse
    return replace(convolution, scale=scale, bias=bias)


def _winograd_weights(
    convolution: Convolution, shape: tuple[int, int, int], floats: str
) -> Array | None:
    """Weights for Winograd's products, None for a convolution that is computed directly."""
    if not _suits_winograd(convolution, shape):
        return None
    if convolution.scale is None:
        return weights.winograd(convolution.weights).astype(_WINOGRAD_WEIGHTS[floats])
    if LEVEL == "i8":  # VNNI multiplies twice as many bytes at once as there would be products
        return None
    return weights.whole_winograd(convolution.weights)


def _suits_winograd(convolution: Convolution, shape: tuple[int, int, int]) -> bool:
    """Whether there are enough tiles to pay for four times the weights."""
    height, width, _ = shape
    inputs, kernel = convolution.weights.shape[1:3]
    whole = kernel == 3 and convolution.stride == 1 and inputs % LANES == 0
    if not whole or height % TILE or width % TILE:
        return False
    down, across = height // TILE, width // TILE
    return down * across >= PIXELS and _tile_rows(down, across) * across >= PIXELS


def _tile_rows(down: int, across: int) -> int:
    """Rows of tiles at a time."""
    rows = min(down, max(1, _TILES // across))
    while down % rows:
        rows -= 1
    return rows


def _write(step: _Step, first: int, map_: Map) -> None:
    """Where a step's output goes: address, row and pixel are three fields in a row."""
    step.writes[first] = map_, map_.at(0, 0)
    step.numbers[first + 1] = map_.row
    step.numbers[first + 2] = map_.pixel


def _bits(value: float) -> int:
    """Of a float32."""
    return int(np.float32(value).view(np.int32))


def _share_slots(steps: list[_Step], lasting: list[Map]) -> list[int]:
    """Give every map a slot, those of one form one after the other in the same, and their sizes.

    Only maps of one form share, so that nobody ever writes into a halo.
    """
    for index, step in enumerate(steps):
        for map_, _ in step.reads.values():
            map_.last = index
    sizes: list[int] = []
    free: dict[tuple[object, ...], list[int]] = {}

    def place(map_: Map) -> None:
        waiting = free.get((map_.shape, map_.kind, map_.halo), [])
        if waiting and not map_.lasting:
            map_.slot = waiting.pop()
        else:
            map_.slot = len(sizes)
            sizes.append(map_.size)

    for map_ in lasting:
        place(map_)
    for index, step in enumerate(steps):
        for map_, _ in step.writes.values():
            if map_.slot < 0:
                place(map_)
        for map_ in {id(m): m for m, _ in step.reads.values()}.values():
            if map_.last == index and not map_.lasting:
                free.setdefault((map_.shape, map_.kind, map_.halo), []).append(map_.slot)
    return sizes
