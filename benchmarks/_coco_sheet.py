"""A contact sheet of labelled people with what the SDK makes of them: mesh, and COCO's keypoints.

Beside each crop with the 17 keypoints (disc: predicted; line: to its label, where visible) stands
the same crop with the recovered body over it. COCO's pictures bear licences of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

import glnet_rt
from glnet_rt.contracts import Array, Person
from glnet_rt.crop import sample_square, square_around
from glnet_rt.out.overlay import draw_overlay
from glnet_rt.skeleton import COCO_FROM_KEYPOINTS
from train.data.real.people import read_picture
from train.data.real.record import SEEN, Record
from train.evaluate_coco import CocoSplit
from train.synthetic.sheet import side_color, to_px, write_tiles

TILE_PX = 240
COLUMNS = 4
MOST_PEOPLE = 200
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def write_sheet(path: Path, splits: Sequence[CocoSplit]) -> None:
    """Draw people of the splits as the shipped model recovers them, and write one picture.

    Args:
        path: .jpg or .png.
        splits: of whom at most the first MOST_PEOPLE are drawn.

    Raises:
        SourceError: a picture is missing, or the sheet cannot be written.
    """
    with glnet_rt.load() as hmr:
        tiles = chain.from_iterable(split_tiles(hmr, split) for split in splits)
        write_tiles(path, list(islice(tiles, MOST_PEOPLE)), COLUMNS)


def split_tiles(hmr: glnet_rt.Estimator, split: CocoSplit) -> Iterator[Array]:
    """A tile per person; people of one picture are recovered together, as a user would."""
    for image in dict.fromkeys(record.image for record in split.people):
        people = [record for record in split.people if record.image == image]
        picture = read_picture(people[0])
        result = hmr(picture, boxes=[record.bbox_xyxy for record in people])
        for record, person in zip(people, result.people, strict=True):
            overlay = draw_overlay(picture, replace(result, people=(person,)))
            title = f"{split.name} {record.tags['image_id']}/{record.tags['annotation']}"
            yield tile(picture, overlay, record, person, title, hmr.spec.box_scale)


def tile(
    picture: Array, overlay: Array, record: Record, person: Person, title: str, box_scale: float
) -> Array:
    """[TILE_PX + 20, 2 TILE_PX, 3] uint8 BGR: keypoints on the left, bodies on the right."""
    assert record.bbox_xyxy is not None
    center, side = square_around(record.bbox_xyxy, box_scale)
    left, right = (sample_square(p, center, side, TILE_PX) for p in (picture, overlay))
    chosen = list(COCO_FROM_KEYPOINTS)
    points, labels = (
        (p[chosen] - center) / side * TILE_PX + TILE_PX / 2 - 0.5
        for p in (person.keypoints_px, record.keypoints_px)
    )
    for point, label, state in zip(points, labels, record.state[chosen], strict=True):
        if state == SEEN:
            cv2.line(left, to_px(point), to_px(label), _WHITE, 1, cv2.LINE_AA)
    for point, keypoint in zip(points, chosen, strict=True):
        cv2.circle(left, to_px(point), 4, _BLACK, -1, cv2.LINE_AA)
        cv2.circle(left, to_px(point), 3, side_color(keypoint), -1, cv2.LINE_AA)
    strip = np.zeros((20, 2 * TILE_PX, 3), np.uint8)
    text = f"{title}  score {person.score:.2f}"
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _WHITE, 1, cv2.LINE_AA)
    return np.vstack([strip, np.hstack([left, right])])
