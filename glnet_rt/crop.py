"""Person box -> square -> its pixels. The one place that turns box edges into pixel centres.

The square of side `side_px` around `center_px` lands edge to edge on the S input pixels:

    x_crop = (x_image - center_px) / side_px * S + S / 2 - 0.5

in pixel-centre coordinates on both sides. What lies outside the image is black.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from glnet_rt.contracts import Array, Crop, check_image
from glnet_rt.errors import ContractError
from glnet_rt.spec import NetSpec

MIN_BOX_PX = 2.0  # a person needs at least this many pixels across, both ways
MAX_BILINEAR_STEP = 1.5  # source pixels per crop pixel up to which bilinear sampling stays clean
MAX_COORDINATE_PX = 1e7  # beyond this a box is a mistake, and float arithmetic loses pixels


def whole_image_box(image: Array) -> Array:
    """The box that holds the whole picture, [4] float64 `(0, 0, width, height)`."""
    height, width = image.shape[:2]
    return np.array([0.0, 0.0, width, height])


def check_boxes(boxes: object, image_size: tuple[int, int]) -> Array:
    """Read person boxes and refuse the ones no person can be in.

    Args:
        boxes: [N, 4] array-like, `bbox_xyxy` edges in image px; N may be 0.
        image_size: (width, height), px.

    Returns:
        [N, 4] float64.

    Raises:
        ContractError: wrong shape or type, NaN, empty, inverted, tiny or outside the image.
    """
    try:
        values = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(
            "boxes are no array of numbers",
            got=f"{type(boxes).__name__} ({error})",
            expected="[N, 4] numbers, x0 y0 x1 y1",
            fix="give every row four numbers, edges in px",
        ) from error
    if values.shape == (0,):
        values = values.reshape(0, 4)
    if values.ndim != 2 or values.shape[1] != 4:
        raise ContractError(
            "boxes have the wrong shape",
            got=list(values.shape),
            expected="[N, 4], one row x0 y0 x1 y1 per person",
            fix="put a single box into a list: boxes=[box]; no box at all is boxes=[]",
        )
    for i, box in enumerate(values):
        _check_box(f"box {i}", box, image_size)
    return values


def _check_box(name: str, box: Array, image_size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = got = tuple(box.tolist())
    width, height = image_size
    if not all(abs(v) <= MAX_COORDINATE_PX for v in got):
        raise ContractError(
            f"{name} holds NaN, infinity or a coordinate beyond any picture",
            got=got,
            expected=f"finite numbers, at most {MAX_COORDINATE_PX:g} px",
            fix="drop this box: the detector that made it has failed",
        )
    if x1 <= x0 or y1 <= y0:
        raise ContractError(
            f"{name} is empty or inverted",
            got=got,
            expected="x0 < x1 and y0 < y1, edges in px",
            fix="order the corners; from (x, y, width, height) use (x, y, x + width, y + height)",
        )
    if x1 - x0 < MIN_BOX_PX or y1 - y0 < MIN_BOX_PX:
        raise ContractError(
            f"{name} is too small to hold a person",
            got=f"{x1 - x0:g} x {y1 - y0:g} px",
            expected=f"at least {MIN_BOX_PX:g} px each way",
            fix="give edges in px, not in fractions of the image",
        )
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ContractError(
            f"{name} lies entirely outside the image",
            got=got,
            expected=f"an overlap with (0, 0, {width}, {height})",
            fix="drop this box, or check that it was made for a picture of this size",
        )


def square_around(box: Array, box_scale: float) -> tuple[Array, float]:
    """The square the network looks at: same centre, side `box_scale` times the longer side.

    Args:
        box: [4] float64, edges in image px.
        box_scale: from the NetSpec.

    Returns:
        center_px: [2] float64, image px with pixel centres on integers (edges minus a half).
        side_px: its side, px.
    """
    x0, y0, x1, y1 = box.tolist()
    center_px = np.array([(x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5])
    return center_px, box_scale * max(x1 - x0, y1 - y0)


def crop_from_image_affine(center_px: Array, side_px: float, size: int) -> Array:
    """[2, 3] float64: image px -> crop px, of the square laid edge to edge on `size` pixels."""
    scale = size / side_px
    x, y = (size / 2 - 0.5 - center * scale for center in center_px.tolist())
    return np.array([[scale, 0.0, x], [0.0, scale, y]])


def cut_crops(
    image: Array, boxes: Array, spec: NetSpec, frame_id: int = 0
) -> tuple[Array, tuple[Crop, ...]]:
    """Cut every box out of one picture, ready for `backends.base.run`.

    Args:
        image: [H, W, 3] uint8, BGR.
        boxes: [B, 4], edges in image px.
        spec: gives the input size and the crop rule.
        frame_id: handed on to each crop.

    Returns:
        batch: [B, S, S, 3] uint8, contiguous, BGR.
        crops: B crops whose `pixels` are views of `batch`.

    Raises:
        ContractError: an image or a box that cannot be used.
    """
    check_image(image)
    boxes = check_boxes(boxes, (image.shape[1], image.shape[0]))
    size = spec.input_size
    batch = np.empty((len(boxes), *spec.crop_shape), np.uint8)
    crops = []
    for box, pixels in zip(boxes, batch, strict=True):
        center_px, side_px = square_around(box, spec.box_scale)
        _sample_square(image, center_px, side_px, pixels)
        affine = crop_from_image_affine(center_px, side_px, size)
        crops.append(Crop(pixels, affine, box, center_px, side_px, frame_id))
    return batch, tuple(crops)


def normalise(crops: Array, spec: NetSpec) -> Array:
    """[..., S, S, 3] uint8 BGR -> [..., 3, S, S] float32 RGB, `(x / 255 - mean) / std`.

    What the models in an artifact take. Backends call it where the network itself cannot do it.
    """
    out = np.empty((*crops.shape[:-3], 3, *crops.shape[-3:-1]), np.float32)
    gain = np.array([1 / (255 * std) for std in spec.std], np.float32)
    bias = np.array([m / std for m, std in zip(spec.mean, spec.std, strict=True)], np.float32)
    pixels = np.ascontiguousarray(crops).reshape(-1, *crops.shape[-3:])
    _normalise(pixels, gain, bias, out.reshape(-1, *out.shape[-3:]))
    return out


def sample_square(image: Array, center_px: Array, side_px: float, size: int) -> Array:
    """Resample one square of the picture, [size, size, 3] uint8, without aliasing.

    Large squares are first halved, by averaging 2 x 2 pixels, until bilinear sampling steps by
    0.75 to 1.5 pixels. Only the pixels under the square are touched, whatever the picture's size.

    Args:
        image: [H, W, 3] uint8.
        center_px: [2] float64, image px, pixel centres on integers.
        side_px: side of the square, px.
        size: S.
    """
    out = np.empty((size, size, 3), np.uint8)
    _sample_square(image, center_px, side_px, out)
    return out


def _sample_square(image: Array, center_px: Array, side_px: float, out: Array) -> None:
    """The same into `out`, [S, S, 3] uint8, contiguous."""
    image_size = (image.shape[1], image.shape[0])
    window = window_under(center_px, side_px, len(out), image_size)
    rows, columns = window.rows, window.columns
    if not image.flags.c_contiguous:
        image = np.ascontiguousarray(image[rows, columns])
        rows, columns = slice(0, len(image)), slice(0, image.shape[1])
    pixels = image.reshape(len(image), -1)  # [H, 3 W]
    top, left = rows.start, columns.start
    height, width = rows.stop - top, columns.stop - left
    for _ in range(window.halvings):
        half = np.empty(((height + 1) // 2, (width + 1) // 2 * 3), np.uint8)
        _halve(pixels, top, left, height, width, half)
        pixels, top, left = half, 0, 0
        height, width = len(half), half.shape[1] // 3
    window_pixels = pixels[top : top + height, 3 * left : 3 * (left + width)]
    _sample(window_pixels, window.scale, *window.shift, out)


@dataclass(frozen=True, slots=True)
class Window:
    """The pixels under a square, and how they are sampled.

    Attributes:
        columns, rows: of the image, never empty.
        halvings: how often they are averaged 2 x 2 first.
        scale: halved pixels per crop pixel.
        shift: (x, y) of the crop's first pixel in the halved window, pixel centres on integers.
    """

    columns: slice
    rows: slice
    halvings: int
    scale: float
    shift: tuple[float, float]


def window_under(
    center_px: Array, side_px: float, size: int, image_size: tuple[int, int]
) -> Window:
    """The plan by which `sample_square` and the CUDA kernels sample one square.

    Args:
        center_px, side_px, size: as for `sample_square`.
        image_size: (width, height), px.
    """
    step = side_px / size  # image pixels per crop pixel
    halvings = max(0, math.ceil(math.log2(step / MAX_BILINEAR_STEP)))
    block = 2**halvings
    columns, rows = (
        _under_square(center, side_px, margin=block, limit=limit)
        for center, limit in zip(center_px.tolist(), image_size, strict=True)
    )
    # The centre of the window's first pixel, in image px, is that of the block it averages.
    x, y = (
        (center - (size / 2 - 0.5) * step - (pixels.start + (block - 1) / 2)) / block
        for center, pixels in zip(center_px.tolist(), (columns, rows), strict=True)
    )
    return Window(columns, rows, halvings, step / block, (x, y))


def _under_square(center: float, side_px: float, *, margin: int, limit: int) -> slice:
    """Pixels of one axis under the square and `margin` around it, at least one, in the image."""
    first = math.floor(center - side_px / 2) - margin
    last = math.ceil(center + side_px / 2) + margin
    start = min(max(first, 0), limit - 1)
    return slice(start, max(min(last + 1, limit), start + 1))


@nb.njit(cache=True, nogil=True)
def _halve(pixels: Array, top: int, left: int, height: int, width: int, out: Array) -> None:
    """Mean of each 2 x 2 pixels of a window; where they overhang it, black counts.

    Rows are summed first, which the compiler turns into wide arithmetic. OpenCV's INTER_AREA takes
    two and a half times as long, for the same bytes.

    Args:
        pixels: [h, 3 w] uint8, contiguous.
        top, left, height, width: of the window.
        out: [(height + 1) // 2, (width + 1) // 2 * 3] uint8.
    """
    sums = np.zeros(2 * out.shape[1], np.uint16)
    inner = sums[: 3 * width]
    three, six = np.uint64(3), np.uint64(6)  # unsigned: no wrapping around
    start, stop = 3 * left, 3 * (left + width)
    for y in range(len(out)):
        upper, line = pixels[top + 2 * y, start:stop], out[y]
        if 2 * y + 1 < height:
            lower = pixels[top + 2 * y + 1, start:stop]
            for k in range(len(inner)):
                inner[k] = np.uint16(upper[k]) + np.uint16(lower[k])
        else:
            for k in range(len(inner)):
                inner[k] = upper[k]
        for x in range(np.uint64(out.shape[1] // 3)):
            at, to = six * x, three * x
            for c in range(three):
                total = sums[at + c] + sums[at + c + three]
                line[to + c] = np.uint8((total + np.uint16(2)) >> np.uint16(2))


@nb.njit(cache=True, nogil=True, fastmath={"contract"})
def _sample(pixels: Array, scale: float, x0: float, y0: float, out: Array) -> None:
    """Bilinear samples at (scale * column + x0, scale * row + y0); black counts outside.

    Each row is blended from two rows of the window first, which the compiler turns into wide
    arithmetic; then across. OpenCV's warpAffine takes twice the time.

    Args:
        pixels: [h, 3 w] uint8.
        out: [S, S, 3] uint8.
    """
    size, height, width = len(out), len(pixels), pixels.shape[1] // 3
    first = np.empty(size, np.int64)  # entry of `line` that holds the left neighbour, or -1
    across = np.empty(size, np.float32)
    for column in range(size):
        x = scale * column + x0
        left = math.floor(x)
        first[column] = 3 * (left + 1) if -1 <= left < width else -1
        across[column] = x - left
    line = np.zeros(3 * (width + 2), np.float32)  # with a black pixel at both ends
    inner = line[3 : 3 * width + 3]
    for row in range(size):
        y = scale * row + y0
        top = math.floor(y)
        down = np.float32(y - top)
        if top < -1 or top >= height:
            out[row] = 0
            continue
        _blend_rows(pixels, top, down, inner)
        for column in range(size):
            at = first[column]
            for c in range(3):
                value = np.float32(0.0)
                if at >= 0:
                    value = line[at + c]
                    value += across[column] * (line[at + c + 3] - value)
                out[row, column, c] = np.uint8(np.rint(value))


@nb.njit(cache=True, nogil=True, fastmath={"contract"})
def _blend_rows(pixels: Array, top: int, down: Any, out: Array) -> None:
    """out = (1 - down) * row `top` + down * the next; rows outside are black."""
    if top < 0:
        lower = pixels[0]
        for k in range(len(out)):
            out[k] = down * np.float32(lower[k])
    elif top + 1 >= len(pixels):
        upper = pixels[top]
        for k in range(len(out)):
            out[k] = np.float32(upper[k]) - down * np.float32(upper[k])
    else:
        upper, lower = pixels[top], pixels[top + 1]
        for k in range(len(out)):
            value = np.float32(upper[k])
            out[k] = value + down * (np.float32(lower[k]) - value)


@nb.njit(cache=True, nogil=True)
def _normalise(pixels: Array, gain: Array, bias: Array, out: Array) -> None:
    """[B, H, W, 3] uint8 BGR -> [B, 3, H, W] float32 RGB, x * gain - bias."""
    for b in range(pixels.shape[0]):
        for y in range(pixels.shape[1]):
            for c in range(3):
                source, target = pixels[b, y, :, 2 - c], out[b, c, y]
                for x in range(pixels.shape[2]):
                    target[x] = np.float32(source[x]) * gain[c] - bias[c]
