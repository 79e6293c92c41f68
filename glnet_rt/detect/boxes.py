"""Arithmetic on person boxes, [N, 4] float64, edges in image px: x0, y0, x1, y1."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array

DUPLICATE_IOU = 0.55  # two boxes that overlap more show one person


def iou(first: Array, second: Array) -> Array:
    """[N, 4] and [M, 4] -> [N, M] intersection over union; empty boxes share nothing."""
    shared = _shared(first, second)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def area(boxes: Array) -> Array:
    """[N, 4] -> [N] px²; inverted boxes have none."""
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1))


def covered(boxes: Array, others: Array) -> Array:
    """[N, 4] and [M, 4] -> [N, M], the share of each box that lies within each of the others."""
    return np.asarray(_shared(boxes, others) / np.maximum(area(boxes)[:, None], 1e-9))


def _shared(first: Array, second: Array) -> Array:
    """[N, 4] and [M, 4] -> [N, M] px² of intersection."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(-1))


def suppress(boxes: Array, scores: Array, overlap: float = DUPLICATE_IOU) -> Array:
    """Greedy non-maximum suppression: the rows that stay, the surest first.

    Args:
        boxes: [N, 4]. scores: [N]; of equal ones the first row wins.
        overlap: boxes whose IoU with a surer one is above this are dropped.

    Returns:
        [K] int64, row numbers.
    """
    shared = iou(boxes, boxes)
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if not kept or shared[row, kept].max() <= overlap:
            kept.append(row)
    return np.array(kept, np.int64)


def clip(boxes: Array, image_size: tuple[int, int]) -> Array:
    """Boxes cut at the border of a (width, height) image, px."""
    width, height = image_size
    return np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64))
