"""What the detector learns from: Gaussians around person centres, and boxes near them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glnet_rt.contracts import Array
from train.detector.model import STRIDE
from train.detector.scenes import LEAST_VISIBLE, Scene

_REACH = 0.54  # of a Gaussian: TTFNet's alpha, of the box's half side
_ALPHA, _BETA = 2.0, 4.0  # CenterNet's focal exponents


@dataclass(frozen=True)
class Targets:
    """What the maps of B scenes should show; h = H / 8, w = W / 8.

    Attributes:
        heat: [B, h, w] float32, 1 in the cell of a centre and falling off around it.
        counted: [B, h, w] float32, 0 where it cannot be known whether a person is there.
        boxes: [B, 4, h, w] float32, px, of the person each cell near a centre belongs to.
        weight: [B, h, w] float32, of each cell's box; sums to 1 for each person.
    """

    heat: Tensor
    counted: Tensor
    boxes: Tensor
    weight: Tensor


def targets_of(scenes: Sequence[Scene]) -> Targets:
    """Targets of scenes of one size; the nearer person owns a contested cell."""
    side = scenes[0].image.shape[0] // STRIDE
    heat, counted = np.zeros((2, len(scenes), side, side), np.float32)
    boxes = np.zeros((len(scenes), 4, side, side), np.float32)
    weight = np.zeros_like(heat)
    counted += 1
    for b, scene in enumerate(scenes):
        strongest = np.zeros((side, side), np.float32)
        owner = np.full((side, side), -1)
        for number, (box, visible) in enumerate(zip(scene.boxes, scene.visible, strict=True)):
            if visible < LEAST_VISIBLE:
                _blank(counted[b], box)
                continue
            bump = _gaussian(box, side)
            np.maximum(heat[b], bump, out=heat[b])
            mine = (bump > 0.1) & (bump >= strongest)
            owner[mine], strongest[mine] = number, bump[mine]
        for number in set(owner[owner >= 0].tolist()):
            mine = owner == number
            boxes[b][:, mine] = scene.boxes[number][:, None]
            weight[b][mine] = strongest[mine] / strongest[mine].sum()
        counted[b][heat[b] == 1] = 1
    return Targets(*map(torch.from_numpy, (heat, counted, boxes, weight)))


def _gaussian(box: Array, side: int) -> Array:
    """[h, w] bump over a box's middle, exactly 1 in the cell that holds it."""
    x0, y0, x1, y1 = box / STRIDE
    cell_x = min(int((x0 + x1) / 2), side - 1)
    cell_y = min(int((y0 + y1) / 2), side - 1)
    spread_x, spread_y = (max(_REACH * extent / 6, 0.35) for extent in (x1 - x0, y1 - y0))
    line = np.arange(side, dtype=np.float32)
    across = np.exp(-((line - cell_x) ** 2) / (2 * spread_x**2))
    down = np.exp(-((line - cell_y) ** 2) / (2 * spread_y**2))
    bump: Array = down[:, None] * across[None, :]
    return bump


def _blank(counted: Array, box: Array) -> None:
    x0, y0, x1, y1 = (int(v) for v in box / STRIDE)
    counted[y0 : y1 + 1, x0 : x1 + 1] = 0


def detector_loss(logits: Tensor, boxes: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Terms that are added up.

    Args:
        logits: [B, 1, h, w].
        boxes: [B, 4, h, w], px.
        targets: of the same scenes.
    """
    logits = logits[:, 0]
    chance = torch.sigmoid(logits)
    positive = (targets.heat == 1).float()
    hit = -F.logsigmoid(logits) * (1 - chance) ** _ALPHA * positive
    miss = -F.logsigmoid(-logits) * chance**_ALPHA * (1 - targets.heat) ** _BETA * (1 - positive)
    people = positive.sum().clamp(min=1)
    overlap = generalised_iou(boxes, targets.boxes)
    return {
        "heat": ((hit + miss) * targets.counted).sum() / people,
        "box": 2.0 * ((1 - overlap) * targets.weight).sum() / targets.weight.sum().clamp(min=1),
    }


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Boxes [B, 4, ...] each -> [B, ...] in (-1, 1] (Rezatofighi et al., 2019)."""
    low, high = (
        torch.maximum(first[:, :2], second[:, :2]),
        torch.minimum(first[:, 2:], second[:, 2:]),
    )
    outer_low = torch.minimum(first[:, :2], second[:, :2])
    outer_high = torch.maximum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - shared
    outer = (outer_high - outer_low).prod(1)
    return shared / union.clamp(min=1e-6) - (outer - union) / outer.clamp(min=1e-6)
