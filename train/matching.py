"""Dynamic matching (GLNet §3.4, Eq. 1): which pixels learn to predict the person.

One ground truth repeated T times against N predictions, the rest matched with "no object" at a
constant cost, is a bipartite matching whose optimum is the T pixels of lowest cost. So a `topk`
replaces the Hungarian algorithm; a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class MatchingConfig:
    """What a match costs.

    Attributes:
        positives: T, pixels taught as `person` in each image (Table 5: 1 to 100).
        alpha, beta: of the focal cost; Eq. 1 leaves both open.
        class_weight, keypoint_weight: the loss's own lambdas; 1 and 1 give Eq. 1's raw sum.
        depth_weight, rotation_weight: 3D terms, zero in the paper; Table 6 shows why.
        center: True assigns the pixels nearest the crop's centre instead (Table 2 without DMS).
    """

    positives: int = 20
    alpha: float = 0.25
    beta: float = 2.0
    class_weight: float = 2.0
    keypoint_weight: float = 70.0
    depth_weight: float = 0.0
    rotation_weight: float = 0.0
    center: bool = False


@torch.no_grad()
def match(
    config: MatchingConfig,
    score_logits: Tensor,
    keypoints_uvd: Tensor,
    rotation: Tensor,
    target_uvd: Tensor,
    seen: Tensor,
    target_rotation: Tensor,
    known: Tensor,
) -> Tensor:
    """Pick each image's positive pixels.

    Args:
        score_logits: [B, N].
        keypoints_uvd: [B, N, K, 3].
        rotation: [B, N, R].
        target_uvd: [B, K, 3].
        seen: [B, K] 0..1, keypoints that count.
        target_rotation: [B, R].
        known: [B, J] 0..1, joints whose R / J numbers are labels.

    Returns:
        [B, T] int64, indices into N.
    """
    cost = matching_cost(
        config, score_logits, keypoints_uvd, rotation, target_uvd, seen, target_rotation, known
    )
    return cost.topk(config.positives, dim=1, largest=False).indices


def matching_cost(
    config: MatchingConfig,
    score_logits: Tensor,
    keypoints_uvd: Tensor,
    rotation: Tensor,
    target_uvd: Tensor,
    seen: Tensor,
    target_rotation: Tensor,
    known: Tensor,
) -> Tensor:
    """Cost [B, N] of making each pixel a positive; arguments as in `match`."""
    log_p = F.logsigmoid(score_logits)
    focal = -config.alpha * (1 - log_p.exp()) ** config.beta * log_p
    weight = seen / seen.sum(1, keepdim=True).clamp(min=1e-6)
    error = (keypoints_uvd - target_uvd[:, None]).abs()
    keypoint = (error[..., :2].sum(-1) * weight[:, None]).sum(-1)
    cost = config.class_weight * focal + config.keypoint_weight * keypoint
    if config.depth_weight:
        cost = cost + config.depth_weight * (error[..., 2] * weight[:, None]).sum(-1)
    if config.rotation_weight:
        squared = (rotation - target_rotation[:, None]).square()
        of_joint = squared.unflatten(-1, (known.shape[1], -1)).sum(-1)
        cost = cost + config.rotation_weight * (of_joint * known[:, None]).sum(-1)
    return cost


def center_pixels(grid_xy: Tensor, height: int, width: int, positives: int) -> Tensor:
    """The `positives` pixels of `grid_xy` [N, 2] nearest the grid's centre, [T] int64."""
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=grid_xy.device)
    distance = (grid_xy - center).square().sum(-1)
    return distance.topk(positives, largest=False).indices
