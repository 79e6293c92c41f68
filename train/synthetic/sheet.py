"""A contact sheet: the first people of a set, every second one with its keypoints drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from glnet_rt.skeleton import KEYPOINTS, PARENTS
from train.synthetic.generate import OUTSIDE, SEEN, Generator, Sample

_COLUMNS = 10
_LEFT, _RIGHT, _MIDDLE = (60, 60, 255), (255, 120, 40), (80, 220, 80)  # BGR


def write_sheet(path: Path, generator: Generator, count: int) -> None:
    """Write `count` people of `generator` as one PNG.

    Raises:
        SourceError: the file cannot be written.
    """
    tiles = []
    for index in range(count):
        sample = generator.sample(index)
        picture = np.ascontiguousarray(sample.images[..., ::-1])
        tiles.append(draw_labels(picture, sample) if index % 2 else picture)
    write_tiles(path, tiles, _COLUMNS)


def write_tiles(path: Path, tiles: Sequence[Array], columns: int) -> None:
    """Write pictures of one size [H, W, 3] uint8 BGR as one, row after row.

    Raises:
        SourceError: the file cannot be written.
    """
    columns = min(columns, len(tiles))
    tiles = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % columns)]
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    try:
        written = cv2.imwrite(str(path), np.vstack(rows))
    except cv2.error:  # no format has this name
        written = False
    if not written:
        raise SourceError(
            "the contact sheet could not be written",
            got=str(path),
            expected="a .jpg or .png in a folder that is there",
            fix="name another file",
        )


def draw_labels(picture: Array, sample: Sample) -> Array:
    """Draw bones, keypoints (filled: seen, ring: hidden), and the box onto a BGR picture."""
    size = picture.shape[0]
    points = (sample.keypoints_uv + 0.5) * size - 0.5
    for child, parent in enumerate(PARENTS):
        if parent >= 0:
            cv2.line(
                picture,
                to_px(points[parent]),
                to_px(points[child]),
                side_color(child),
                1,
                cv2.LINE_AA,
            )
    for k, point in enumerate(points):
        if sample.visible[k] != OUTSIDE:
            thickness = -1 if sample.visible[k] == SEEN else 1
            cv2.circle(picture, to_px(point), 2, side_color(k), thickness, cv2.LINE_AA)
    box = (sample.box_uv.reshape(2, 2) + 0.5) * size
    cv2.rectangle(picture, to_px(box[0]), to_px(box[1] - 1), (255, 255, 255), 1)
    return picture


def to_px(point: Array) -> tuple[int, int]:
    """A point as OpenCV draws it."""
    return round(float(point[0])), round(float(point[1]))


def side_color(keypoint: int) -> tuple[int, int, int]:
    """BGR of a keypoint: left red, right blue, the middle green."""
    name = KEYPOINTS[keypoint]
    return _LEFT if name.startswith("left_") else _RIGHT if name.startswith("right_") else _MIDDLE
