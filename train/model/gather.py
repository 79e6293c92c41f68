"""Reading feature maps at part points: the gather of GLNet §3.3, and its pieces.

Points are absolute grid pixels (x, y); a point outside the map reads the nearest border pixel, i.e.
grid sampling with align_corners=True and padding_mode="border".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glnet_rt.spec import GATHER_DOMAIN, GATHER_OP, GATHER_VERSION


def part_point_gather(features: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of a feature map at its own list of points.

    Args:
        features: [B, C, h, w].
        points: [B, P, 2] float32, (x, y) in grid pixels.

    Returns:
        [B, P, C] float32; coordinates and interpolation are float32 whatever the features are.

    In an ONNX export it is one node, whose meaning `export.gather_function` states once more.
    """
    if torch.onnx.is_in_onnx_export():
        sampled = torch.onnx.ops.symbolic(
            f"{GATHER_DOMAIN}::{GATHER_OP}",
            (features, points),
            {"plugin_namespace": GATHER_DOMAIN, "plugin_version": str(GATHER_VERSION)},
            dtype=features.dtype,
            shape=(*points.shape[:2], features.shape[1]),
            version=GATHER_VERSION,
        )
        return sampled.float()
    height, width = features.shape[-2:]
    scale = torch.tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)], device=points.device)
    grid = (points * scale - 1.0)[:, :, None]  # [B, P, 1, 2]
    sampled = F.grid_sample(
        features.float(), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[..., 0].transpose(1, 2)


def bilinear_corners(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four grid cells around each point, and their weights.

    Args:
        points: [..., 2] float32, (x, y) in grid pixels.
        size: (h, w).

    Returns:
        corners [..., 4, 2] float32, whole numbers inside the grid; weights [..., 4], sum 1.
    """
    height, width = size
    limit = torch.tensor([width - 1.0, height - 1.0], device=points.device)
    inside = torch.minimum(points.clamp(min=0.0), limit)
    low = inside.floor()
    high = torch.minimum(low + 1.0, limit)
    fraction = inside - low
    x0, y0 = low.unbind(-1)
    x1, y1 = high.unbind(-1)
    fx, fy = fraction.unbind(-1)
    corners = torch.stack([x0, y0, x1, y0, x0, y1, x1, y1], dim=-1)
    weights = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], dim=-1)
    return corners.reshape(*points.shape[:-1], 4, 2), weights


def gather_pixels(values: Tensor, pixels: Tensor) -> Tensor:
    """Values [B, P, N, 2] of each image's pixels [B, k] -> [B, k, P, 2]."""
    index = pixels[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3])
    return values.gather(2, index).transpose(1, 2)
