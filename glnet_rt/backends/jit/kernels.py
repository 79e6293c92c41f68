"""The convolutions and sums of a trunk, on maps [H, W, C] that lie one row after the other.

Every kernel takes the address of an operation, an array of int64 with the fields below. Sums of 8
pixels by 32 channels, with AVX2 of 4 by 16, stay in registers while all that is added to them is
read once: weights in the order in which they are needed, and each pixel's numbers spread over the
lanes.

Winograd, F(4x4, 3x3): 4 x 4 pixels of a 3x3 convolution from 36 products in place of 144, at the
points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016). Its sums are float32 whatever the maps,
but for levels of 16 bits: G without its fractions is one of integers, and so are the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import IntEnum
from typing import Any

from llvmlite import ir

from glnet_rt.backends.jit._code import (
    F32,
    FLOATS,
    I8,
    I32,
    INTS,
    LANES,
    LEVEL,
    SHORTS,
    SIZE,
    WIDE,
    Code,
    kernel,
)

# Of a tile of sums: pixels, and blocks of 16 channels. AVX2 has 16 registers for them, of 8 lanes.
PIXELS, BLOCKS = (8, 2) if WIDE else (4, 1)
TILE = 4  # pixels on a side that Winograd computes at once
REACH = TILE + 2  # that it reads for them
POINTS = REACH * REACH
INTEGERS = ("i8", "i16")


class Field(IntEnum):
    """Of an operation. Steps are bytes: to the next row, to the next pixel; addresses may be 0."""

    CODE = 0
    ROWS = 1  # of the output; rows of tiles for Winograd
    WIDTH = 2  # of the output, px
    X = 3  # address of the first number that the first output pixel reads
    X_ROW = 4
    X_PIXEL = 5
    X_LINE = 6  # to the next row of the kernel
    LINES = 7  # of the kernel
    STEPS = 8  # of four bytes in a line of the kernel; input channels for Winograd
    WEIGHTS = 9
    CHANNELS = 10  # of the output
    SCALE = 11  # one float32 per channel, of integers
    BIAS = 12
    SKIP = 13  # floats that are added before ReLU
    SKIP_ROW = 14  # of SKIP or SKIP_LEVELS
    SKIP_PIXEL = 15
    OUT = 16  # as floats
    OUT_ROW = 17
    OUT_PIXEL = 18
    LEVELS = 19  # as unsigned integers
    LEVELS_ROW = 20
    LEVELS_PIXEL = 21
    INVERSE = 22  # bits of a float32: levels in a float of 1; 0 where these are levels
    RELU = 23
    SCRATCH = 24  # of Winograd
    READ_STEP = 25  # in the scratch, between what was read for two points
    SUM_STEP = 26  # between what is summed for two points
    SUMS = 27  # from the scratch's start
    TILE_ROWS = 28  # at a time
    SKIP_LEVELS = 29  # or levels
    SKIP_LEVEL = 30  # bits of a float32: what one of these stands for
    TERMS = 31  # of a sum: how many
    TERM = 32  # the first


class TermField(IntEnum):
    """Of each of a sum's terms."""

    X = 0
    ROW = 1
    PIXEL = 2
    SHIFT = 3  # by how many bits to shift the output's coordinates
    LEVEL = 4  # bits of a float32: what a level of bytes stands for; 0 of floats


MOST_TERMS = 4
FIELDS = Field.TERM + MOST_TERMS * len(TermField)


def convolution(kind: str, floats: str) -> Any:
    """Direct convolution of maps of `kind`; what it adds and stores are `floats` and bytes."""

    def write(c: Code) -> None:
        width = c.field(Field.WIDTH)
        pixels = c.times(c.field(Field.ROWS), width)
        for blocks, channels in _channel_blocks(c):
            with channels as channel, _tiles(c, pixels, PIXELS) as tile:
                index = [c.at(tile, c.number(i)) for i in range(PIXELS)]
                places = [(c.b.sdiv(i, width), c.b.srem(i, width)) for i in index]
                sums = _direct_sums(c, kind, blocks, channel, places)
                _finish(c, kind, floats, sums, channel, places)

    return kernel(write, kind, floats)


def _channel_blocks(c: Code) -> Iterator[tuple[int, AbstractContextManager[Any]]]:
    """Loops over output channels: two blocks of 16 at a time, then one that is left."""
    channels = c.field(Field.CHANNELS)
    pairs = c.times(c.b.sdiv(channels, c.number(BLOCKS * LANES)), BLOCKS * LANES)
    yield BLOCKS, c.loop(c.number(0), pairs, BLOCKS * LANES)
    yield 1, c.loop(pairs, channels, LANES)


@contextmanager
def _tiles(c: Code, count: Any, size: int) -> Iterator[Any]:
    """Loop over `size` at a time; the last ones end where all do, and are computed again."""
    with c.loop(c.number(0), count, size) as tile:
        last = c.b.sub(count, c.number(size))
        yield c.b.select(c.b.icmp_signed("<", tile, last), tile, last)


def _direct_sums(
    c: Code, kind: str, blocks: int, channel: Any, places: Sequence[tuple[Any, Any]]
) -> list[list[Any]]:
    """[places][blocks] variables that hold the sums of a direct convolution."""
    lines, steps = c.field(Field.LINES), c.field(Field.STEPS)
    row_step, pixel_step = c.field(Field.X_ROW), c.field(Field.X_PIXEL)
    starts = [
        c.at(c.field(Field.X), c.times(row, row_step), c.times(pixel, pixel_step))
        for row, pixel in places
    ]
    each = c.times(c.b.mul(lines, steps), 4)  # bytes of one channel's weights
    its = c.at(c.field(Field.WEIGHTS), c.times(channel, each))
    return _sums(c, kind, blocks, starts, (c.field(Field.X_LINE), lines), steps, its)


def _sums(
    c: Code,
    kind: str | tuple[str, str],
    blocks: int,
    starts: Sequence[Any],
    lines: tuple[Any, Any],
    steps: Any,
    weights: Any,
) -> list[list[Any]]:
    """[starts][blocks] variables that hold the sums.

    Args:
        kind: of the numbers, and of the weights; or a pair, where they differ.
        starts: addresses of what each pixel reads first.
        lines: bytes from a line of the kernel to the next, and how many there are.
        steps: of four bytes in each line.
        weights: address, [lines][steps][blocks][16] times four bytes.
    """
    kind, stored = kind if isinstance(kind, tuple) else (kind, kind)
    vector = INTS if kind in INTEGERS else FLOATS
    size = LANES * SIZE[stored] if kind == "f32" else 64  # bytes of a step's weights in a block
    sums = c.variables(vector, len(starts), blocks)
    for of_pixel in sums:
        for sum_ in of_pixel:
            c.b.store(ir.Constant(vector, None), sum_)
    line_step, count = lines
    whole = c.times(c.b.mul(count, steps), size * blocks)  # where the next channels' weights begin
    with c.loop(c.number(0), count) as line, c.loop(c.number(0), steps) as step:
        further = c.at(c.times(line, line_step), c.times(step, 4))
        its = c.at(weights, c.times(c.at(c.times(line, steps), step), size * blocks))
        places = [c.at(its, c.number(size * i)) for i in range(blocks)]
        if kind == "f32":
            columns = [c.load_floats(place, stored) for place in places]
        else:
            columns = [c.load(place, INTS) for place in places]
        for i in range(0, size * blocks, 64):
            c.prefetch(c.at(its, whole, c.number(i)))
        for start, of_pixel in zip(starts, sums, strict=True):
            spread = c.splat(c.load(c.at(start, further), F32 if kind == "f32" else I32))
            for column, sum_ in zip(columns, of_pixel, strict=True):
                c.b.store(c.dot(kind, spread, column, c.b.load(sum_)), sum_)
    return sums


def _finish(
    c: Code, kind: str, floats: str, sums: Sequence[Sequence[Any]], channel: Any,
    places: Sequence[tuple[Any, Any]],
) -> None:  # fmt: skip
    """From sums to what is stored: scale, bias, skip, ReLU.

    Args:
        sums: [places][blocks] variables.
        channel: of the first block.
        places: row and pixel of each of the sums' first dimension.
    """
    blocks = range(len(sums[0]))
    offsets = [c.at(c.times(channel, 4), c.number(64 * i)) for i in blocks]
    bias = [c.load(c.at(c.field(Field.BIAS), o), FLOATS, align=4) for o in offsets]
    scale = bias
    if kind in INTEGERS:
        scale = [c.load(c.at(c.field(Field.SCALE), o), FLOATS, align=4) for o in offsets]
    values = c.variables(FLOATS, len(sums), len(blocks))
    for i, of_pixel in enumerate(sums):
        for j, sum_ in enumerate(of_pixel):
            value = c.b.load(sum_)
            if kind in INTEGERS:
                value = c.call("fma", c.b.sitofp(value, FLOATS), scale[j], bias[j])
            else:
                value = c.b.fadd(value, bias[j])
            c.b.store(value, values[i][j])
    _store(c, floats, values, channel, places)


def _store(
    c: Code, floats: str, values: Sequence[Sequence[Any]], channel: Any,
    places: Sequence[tuple[Any, Any]],
) -> None:  # fmt: skip
    """Skip and ReLU, and to wherever the operation wants it."""

    def each(address: Any, row_step: Any, pixel_step: Any, size: int) -> list[tuple[Any, Any]]:
        """(Variable, address) of every block."""
        found = []
        for of_pixel, (row, pixel) in zip(values, places, strict=True):
            at = c.at(address, c.times(row, row_step), c.times(pixel, pixel_step))
            at = c.at(at, c.times(channel, size))
            found += [(v, c.at(at, c.number(size * LANES * j))) for j, v in enumerate(of_pixel)]
        return found

    skip, out, levels = c.field(Field.SKIP), c.field(Field.OUT), c.field(Field.LEVELS)
    with c.given(skip):
        steps = c.field(Field.SKIP_ROW), c.field(Field.SKIP_PIXEL)
        for value, at in each(skip, *steps, SIZE[floats]):
            c.b.store(c.b.fadd(c.b.load(value), c.load_floats(at, floats)), value)
    skip = c.field(Field.SKIP_LEVELS)
    with c.given(skip):
        steps = c.field(Field.SKIP_ROW), c.field(Field.SKIP_PIXEL)
        level = c.splat(c.as_float(c.field(Field.SKIP_LEVEL)))
        for value, at in each(skip, *steps, SIZE[LEVEL]):
            c.b.store(c.call("fma", c.load_levels(at), level, c.b.load(value)), value)
    with c.given(c.field(Field.RELU)):
        for of_pixel in values:
            for value in of_pixel:
                c.b.store(c.call("maxnum", c.b.load(value), c.constant(0.0)), value)
    with c.given(out):
        steps = c.field(Field.OUT_ROW), c.field(Field.OUT_PIXEL)
        for value, at in each(out, *steps, SIZE[floats]):
            c.store_floats(c.b.load(value), at, floats)
    with c.given(levels):
        inverse = c.field(Field.INVERSE)
        with c.given(inverse):
            factor = c.splat(c.as_float(inverse))
            for of_pixel in values:
                for value in of_pixel:
                    c.b.store(c.b.fmul(c.b.load(value), factor), value)
        steps = c.field(Field.LEVELS_ROW), c.field(Field.LEVELS_PIXEL)
        for value, at in each(levels, *steps, SIZE[LEVEL]):
            c.store_levels(c.b.load(value), at)


def image(floats: str) -> Any:
    """From a crop's bytes, BGR, to normalised numbers, RGB and a zero."""

    def write(c: Code) -> None:
        width = c.field(Field.WIDTH)
        gain, bias = (c.load(c.field(f), FLOATS) for f in (Field.SCALE, Field.BIAS))
        order = [n for i in range(LANES) for n in (3 * i + 2, 3 * i + 1, 3 * i, 3 * LANES)]
        with c.loop(c.number(0), c.field(Field.ROWS)) as row, _tiles(c, width, LANES) as pixel:
            at = c.at(c.field(Field.X), c.times(row, c.field(Field.X_ROW)), c.times(pixel, 3))
            pixels = c.load(at, ir.VectorType(I8, 3 * LANES))
            to = c.at(c.field(Field.OUT), c.times(row, c.field(Field.OUT_ROW)))
            to = c.at(to, c.times(pixel, 4 * SIZE[floats]))
            for i in range(4):
                some = c.as_floats(c.lanes(pixels, order[LANES * i : LANES * (i + 1)]))
                value = c.call("fma", some, gain, bias)
                c.store_floats(value, c.at(to, c.number(LANES * i * SIZE[floats])), floats)

    return kernel(write, floats)


def addition(floats: str) -> Any:
    """The sum of some maps, each as fine as the output or coarser by a power of two."""

    def write(c: Code) -> None:
        width, channels = c.field(Field.WIDTH), c.field(Field.CHANNELS)
        value = c.variables(FLOATS, 1, 1)
        terms = c.field(Field.TERMS)
        with (
            c.loop(c.number(0), c.field(Field.ROWS)) as row,
            c.loop(c.number(0), width) as pixel,
            c.loop(c.number(0), channels, LANES) as channel,
        ):
            c.b.store(c.constant(0.0), value[0][0])
            for i in range(MOST_TERMS):
                with c.b.if_then(c.b.icmp_signed("<", c.number(i), terms)):
                    _add_term(c, floats, i, (row, pixel, channel), value[0][0])
            _store(c, floats, value, channel, [(row, pixel)])

    return kernel(write, floats)


def _add_term(c: Code, floats: str, index: int, place: tuple[Any, Any, Any], sum_: Any) -> None:
    """16 channels of one term to a variable."""
    row, pixel, channel = place
    x, row_step, pixel_step, shift, level = (
        c.field(Field.TERM + index * len(TermField) + field) for field in TermField
    )
    at = c.at(x, c.times(c.b.ashr(row, shift), row_step))
    at = c.at(at, c.times(c.b.ashr(pixel, shift), pixel_step))
    before = c.b.load(sum_)
    with c.b.if_else(c.b.icmp_signed("!=", level, c.number(0))) as (of_bytes, of_floats):
        with of_bytes:
            some = c.load_levels(c.at(at, c.times(channel, SIZE[LEVEL])))
            c.b.store(c.call("fma", some, c.splat(c.as_float(level)), before), sum_)
        with of_floats:
            some = c.load_floats(c.at(at, c.times(channel, SIZE[floats])), floats)
            c.b.store(c.b.fadd(before, some), sum_)


def winograd(kind: str, floats: str) -> Any:
    """A 3x3 convolution of stride 1 by Winograd's products; rows are rows of tiles.

    Args:
        kind: of the map: "f32", "bf16", or "i16" of levels, whose sums are exact.
        floats: what is added and stored.
    """

    def write(c: Code) -> None:
        across = c.b.sdiv(c.field(Field.WIDTH), c.number(TILE))
        rows = c.field(Field.TILE_ROWS)
        some = c.times(across, rows)  # tiles at a time
        scratch, read_step = c.field(Field.SCRATCH), c.field(Field.READ_STEP)
        sums, sum_step = c.at(scratch, c.field(Field.SUMS)), c.field(Field.SUM_STEP)
        with c.loop(c.number(0), c.field(Field.ROWS)) as turn:
            top = c.times(turn, rows)
            _read_tiles(c, kind, top, across, some, scratch, read_step)
            _multiply(c, kind, some, scratch, read_step, sums, sum_step)
            _write_tiles(c, kind, floats, top, across, some, sums, sum_step)

    return kernel(write, kind, floats)


def _read_tiles(
    c: Code, kind: str, top: Any, across: Any, some: Any, scratch: Any, step: Any
) -> None:
    """What is multiplied at each point, [POINTS][tile][channel] float32, or int16 of levels."""
    x, x_row, x_pixel = c.field(Field.X), c.field(Field.X_ROW), c.field(Field.X_PIXEL)
    channels = c.field(Field.STEPS)
    vector, size = (SHORTS, 2) if kind == "i16" else (FLOATS, 4)
    half = c.variables(vector, REACH, REACH)
    with c.loop(c.number(0), some) as tile, c.loop(c.number(0), channels, LANES) as channel:
        row = c.at(top, c.b.sdiv(tile, across))
        pixel = c.b.srem(tile, across)
        at = c.at(x, c.times(c.times(row, TILE), x_row), c.times(c.times(pixel, TILE), x_pixel))
        at = c.at(at, c.times(channel, SIZE[kind]))
        for j in range(REACH):
            column = c.at(at, c.times(x_pixel, j))
            places = [c.at(column, c.times(x_row, i)) for i in range(REACH)]
            if kind == "i16":
                values = [c.load(place, SHORTS) for place in places]
            else:
                values = [c.load_floats(place, kind) for place in places]
            for i, value in enumerate(_to_points(c, values)):
                c.b.store(value, half[i][j])
        to = c.at(scratch, c.times(c.at(c.times(tile, channels), channel), size))
        for i in range(REACH):
            for j, value in enumerate(_to_points(c, [c.b.load(v) for v in half[i]])):
                c.store(value, c.at(to, c.times(step, REACH * i + j)), align=size * LANES)


def _multiply(
    c: Code, kind: str, some: Any, scratch: Any, read_step: Any, sums: Any, sum_step: Any
) -> None:
    """At each point a product of matrices: [tile][channel] by [channel][output channel]."""
    # Half the bytes where maps have half: weights come from memory, not from the cache. What
    # bfloat16 rounds away of them grows several times on the way back to pixels.
    stored = {"f32": "f32", "bf16": "f16", "i16": "i16"}[kind]
    number = "i16" if kind == "i16" else "f32"
    weights, inputs, channels = (
        c.field(Field.WEIGHTS), c.field(Field.STEPS), c.field(Field.CHANNELS)
    )  # fmt: skip
    steps = c.b.sdiv(inputs, c.number(4 // SIZE[number]))
    at_point = c.times(c.b.mul(inputs, channels), SIZE[stored])
    with c.loop(c.number(0), c.number(POINTS)) as point:
        matrix = c.at(scratch, c.times(point, read_step))
        for blocks, loop in _channel_blocks(c):
            with loop as channel, _tiles(c, some, PIXELS) as tile:
                starts = [
                    c.at(matrix, c.times(c.times(c.at(tile, c.number(i)), inputs), SIZE[number]))
                    for i in range(PIXELS)
                ]
                its = c.times(c.times(channel, inputs), SIZE[stored])
                its = c.at(weights, c.times(point, at_point), its)
                lines = c.number(0), c.number(1)
                found = _sums(c, (number, stored), blocks, starts, lines, steps, its)
                to = c.at(sums, c.times(point, sum_step), c.times(channel, 4))
                for i, of_tile in enumerate(found):
                    row = c.at(to, c.times(c.times(c.at(tile, c.number(i)), channels), 4))
                    for j, sum_ in enumerate(of_tile):
                        c.store(c.b.load(sum_), c.at(row, c.number(64 * j)), align=64)


def _write_tiles(
    c: Code, kind: str, floats: str, top: Any, across: Any, some: Any, sums: Any, step: Any
) -> None:
    """From the products to pixels."""
    channels = c.field(Field.CHANNELS)
    half = c.variables(FLOATS, TILE, REACH)
    values = c.variables(FLOATS, TILE, 1)
    whole = kind in INTEGERS
    with c.loop(c.number(0), some) as tile, c.loop(c.number(0), channels, LANES) as channel:
        at = c.at(sums, c.times(c.at(c.times(tile, channels), channel), 4))
        for j in range(REACH):
            places = [c.at(at, c.times(step, REACH * i + j)) for i in range(REACH)]
            column = [c.load(place, INTS if whole else FLOATS, align=64) for place in places]
            if whole:
                column = [c.b.sitofp(sum_, FLOATS) for sum_ in column]
            for i, value in enumerate(_from_points(c, column, whole=whole)):
                c.b.store(value, half[i][j])
        bias = c.load(c.at(c.field(Field.BIAS), c.times(channel, 4)), FLOATS, align=4)
        if whole:
            scale = c.load(c.at(c.field(Field.SCALE), c.times(channel, 4)), FLOATS, align=4)
        row = c.times(c.at(top, c.b.sdiv(tile, across)), TILE)
        pixel = c.times(c.b.srem(tile, across), TILE)
        for i in range(TILE):
            found = _from_points(c, [c.b.load(v) for v in half[i]], whole=whole)
            for j, value in enumerate(found):
                value = c.call("fma", value, scale, bias) if whole else c.b.fadd(value, bias)
                c.b.store(value, values[j][0])
            places = [(c.at(row, c.number(i)), c.at(pixel, c.number(j))) for j in range(TILE)]
            _store(c, floats, values, channel, places)


def _to_points(c: Code, d: Sequence[Any]) -> list[Any]:
    """B^T d of six vectors, floats or 16-bit integers."""
    add, sub, fma = c.plus, c.minus, c.fma
    even, odd = fma(-4, d[2], d[4]), fma(-4, d[1], d[3])
    near, far = sub(d[4], d[2]), sub(d[3], d[1])
    return [
        fma(4, d[0], fma(-5, d[2], d[4])), add(even, odd), sub(even, odd),
        fma(2, far, near), fma(-2, far, near), fma(4, d[1], fma(-5, d[3], d[5])),
    ]  # fmt: skip


def _from_points(c: Code, m: Sequence[Any], *, whole: bool) -> list[Any]:
    """A^T m of six vectors; six times that of `whole` ones, whose G has no fractions."""
    first, outer, last = (1.5, 0.25, 6.0) if whole else (1.0, 1.0, 1.0)
    near, nearer = c.b.fadd(m[1], m[2]), c.b.fsub(m[1], m[2])
    far, farther = c.b.fadd(m[3], m[4]), c.b.fsub(m[3], m[4])
    return [
        c.fma(first, m[0], c.fma(outer, far, near)),
        c.fma(2 * outer, farther, nearer),
        c.fma(4 * outer, far, near),
        c.fma(last, m[5], c.fma(8 * outer, farther, nearer)),
    ]
