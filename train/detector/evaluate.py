"""Recall and precision of boxes, and the detector's on held-out scenes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from glnet_rt.contracts import Array
from glnet_rt.detect.boxes import iou, suppress
from train.detector.model import Deployed, Detector
from train.detector.scenes import LEAST_VISIBLE, Scenes

IOU = 0.5
SCORE = 0.3


@dataclass(frozen=True)
class Found:
    """Counts over many pictures.

    Attributes:
        people: who had to be found. found: of them, who was.
        boxes: what was told, without boxes on people that need not be found.
    """

    people: int = 0
    found: int = 0
    boxes: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(self.people + other.people, self.found + other.found, self.boxes + other.boxes)

    def figures(self) -> dict[str, float]:
        """Recall and precision; 1 where there was nothing to find or nothing was told."""
        return {
            "recall": self.found / self.people if self.people else 1.0,
            "precision": self.found / self.boxes if self.boxes else 1.0,
        }


def count_found(told: Array, people: Array, free: Array | None = None) -> Found:
    """Match boxes [N, 4], the surest first, with people [M, 4]: each person once, at IoU 0.5.

    Args:
        told, people: edges in px.
        free: [F, 4], people who need not be found; a box on one of them does not count.
    """
    overlap = iou(told, people)
    open_rows = np.ones(len(people), bool)
    found, counted = 0, 0
    for row, box in zip(overlap, told, strict=True):
        free_row = np.where(open_rows, row, 0.0)
        if free_row.max(initial=0.0) >= IOU:
            open_rows[int(free_row.argmax())] = False
            found += 1
        elif free is not None and len(free) and iou(box[None], free).max() >= IOU:
            continue
        counted += 1
    return Found(len(people), found, counted)


@torch.no_grad()
def evaluate(
    model: Detector, scenes: Scenes, indices: Iterable[int], score: float = SCORE
) -> Found:
    """What the detector finds in scenes, at one threshold of its score."""
    model.eval()
    deployed, total = Deployed(model), Found()
    for index in indices:
        scene = scenes.scene(index)
        picture = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255
        boxes, scores = (value[0].numpy() for value in deployed(picture))
        sure = np.flatnonzero(scores >= score)
        sure = sure[np.argsort(-scores[sure], kind="stable")]
        told = boxes[sure][suppress(boxes[sure], scores[sure])]
        must = scene.visible >= LEAST_VISIBLE
        total = total + count_found(
            told.clip(0, scenes.size), scene.boxes[must], scene.boxes[~must]
        )
    return total
