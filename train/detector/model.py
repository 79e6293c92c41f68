"""The person detector: one map of person centres and one of boxes, an eighth of the picture's size.

CenterNet's output (Zhou et al., 2019) on a small residual network; boxes are told as distances from
the cell to their four edges, as in TTFNet (Liu et al., 2020), since every cell near a centre can
then learn from one person.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.model.hrnet import BasicBlock, conv3x3, make_layer

STRIDE = 8  # picture px per cell
ALIGNMENT = 32  # a picture's sides are multiples of it: the coarsest features have this stride
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PRIOR = -2.19  # logit of 0.1
_SPREAD = 16.0  # px that a distance of exp(0) stands for


@dataclass(frozen=True)
class DetectorConfig:
    """Shape of the network.

    Attributes:
        widths: channels at strides 2, 4, 8, 16 and 32. Cost grows with the square of each; those at
            8 and 16 hold most of it.
        blocks: residual blocks at strides 4, 8, 16 and 32.
    """

    widths: tuple[int, int, int, int, int] = (16, 24, 40, 64, 80)
    blocks: tuple[int, int, int, int] = (1, 2, 2, 1)


class Detector(nn.Module):
    """Picture -> centre logits and boxes."""

    def __init__(self, config: DetectorConfig | None = None) -> None:
        super().__init__()
        self.config = config = DetectorConfig() if config is None else config
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.stem = _down(3, config.widths[0])
        stages, before = [], config.widths[0]
        for width, blocks in zip(config.widths[1:], config.blocks, strict=True):
            stages.append(
                nn.Sequential(_down(before, width), make_layer(BasicBlock, width, width, blocks))
            )
            before = width
        self.stages = nn.ModuleList(stages)
        finest = config.widths[2]
        self.lateral = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1)
            for coarse, fine in zip(config.widths[:2:-1], config.widths[-2:1:-1], strict=True)
        )
        self.neck = nn.Sequential(
            conv3x3(finest, finest), nn.BatchNorm2d(finest), nn.ReLU(inplace=True)
        )
        self.centre = nn.Conv2d(finest, 1, 1)
        self.edges = nn.Conv2d(finest, 4, 1)
        nn.init.constant_(self.centre.bias, _PRIOR)
        nn.init.normal_(self.centre.weight, std=0.01)
        nn.init.normal_(self.edges.weight, std=0.01)
        nn.init.zeros_(self.edges.bias)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Run B pictures.

        Args:
            picture: [B, 3, H, W] float32, RGB in [0, 1]; H and W multiples of `ALIGNMENT`.

        Returns:
            logits [B, 1, H/8, W/8] of a person's centre, and boxes [B, 4, H/8, W/8], edges in px.
        """
        x = self.stem((picture - self.mean) / self.std)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        for lateral, finer in zip(self.lateral, features[-2:0:-1], strict=True):
            x = finer + F.interpolate(lateral(x), scale_factor=2.0, mode="nearest")
        x = self.neck(F.relu(x))
        return self.centre(x).float(), boxes_of_cells(self.edges(x).float())


def boxes_of_cells(edges: Tensor) -> Tensor:
    """Log distances [B, 4, h, w] to left, top, right, bottom -> boxes [B, 4, h, w], px."""
    distance = _SPREAD * torch.exp(edges.clamp(max=5.0))
    x, y = cell_centres(edges.shape[-2], edges.shape[-1], edges.device)
    left, top, right, bottom = distance.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


def cell_centres(
    rows: int, columns: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """x [1, w] and y [h, 1], px edges, of the middle of every cell."""
    x = (torch.arange(columns, device=device) + 0.5) * STRIDE
    y = (torch.arange(rows, device=device) + 0.5) * STRIDE
    return x[None, :], y[:, None]


class Deployed(nn.Module):
    """What is exported: picture -> boxes and scores, where all cells but local peaks score 0."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[1, 3, H, W] float32 RGB in [0, 1] -> boxes [1, N, 4] px, scores [1, N]."""
        logits, boxes = self.detector(image)
        score = torch.sigmoid(logits)
        peak = F.max_pool2d(score, 3, 1, 1)
        score = score * (score >= peak).float()
        return boxes.flatten(2).transpose(1, 2), score.flatten(1)


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(in_channels, out_channels, 2), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )
