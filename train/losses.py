"""GLNet's losses (§3.4, Eq. 2), each masked per sample by what its data set labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS, SMPL_PARENTS
from train.data.sample import Batch
from train.matching import MatchingConfig, center_pixels, match
from train.model.glnet import DenseOutput, normalise_twist
from train.model.kinematics import forward_kinematics, rot6d_to_rotmat
from train.model.pixel_head import JOINT_SPREAD_M, KEYPOINT_SPREAD, pixel_grid, take

# Front and back are 20 cm apart, hands 1.6 m: scaled, each coordinate counts about the same.
SURFACE_SCALE = (1.0, 1.0, 4.0, 2.0)
# Joints that move others when they turn; the root turns everything alike, which posture leaves out.
BENDING = sorted(set(SMPL_PARENTS) - {-1, 0})


@dataclass(frozen=True)
class LossConfig:
    """Weights of Eq. 2, and of what the paper leaves out.

    Attributes:
        class_weight, keypoint_weight, rotation_weight: lambda_cls, lambda_2D, lambda_3D.
        depth_weight: of the keypoints' depths; lambda_2D in the paper.
        alpha, gamma: of the focal loss.
        heatmap_weight: the train-only heat and depth maps.
        surface_weight: the train-only map of the body's surface.
        baseline_weight: the train-only global baseline.
        posture_weight: `direct` only, 0 in the paper: distance of the joints in the body's own
            frame, so that an upper arm counts more than a hand, as in the metric.
        pixel_weight: of all that single pixels say; 0 trains the global baseline alone (Table 2's
            first row).
        settled_share: of the four losses above that is put on what the winners say together, the
            rest on the positives one by one; nothing in the paper, which has one winner.
        matching: how positives are chosen.
    """

    class_weight: float = 2.0
    keypoint_weight: float = 70.0
    depth_weight: float = 70.0
    rotation_weight: float = 0.1
    alpha: float = 0.25
    gamma: float = 2.0
    heatmap_weight: float = 5.0
    surface_weight: float = 4.0
    baseline_weight: float = 0.1
    posture_weight: float = 10.0
    pixel_weight: float = 1.0
    settled_share: float = 0.5
    matching: MatchingConfig = field(default_factory=MatchingConfig)


def glnet_loss(
    config: LossConfig,
    output: DenseOutput,
    batch: Batch,
    representation: str,
    rest_joints: Tensor,
) -> dict[str, Tensor]:
    """All weighted terms; their sum is what is minimised.

    Args:
        rest_joints: [24, 3] m of the mean shape, for the posture loss.

    Returns:
        name -> scalar, weight included, so that the terms compare.
    """
    target_rotation = batch.twist.flatten(1) if representation == "decomposed" else batch.rot6d
    logits = output.score_logits.flatten(1)[:, output.pixels]
    # Of the 24 rotations or 23 twists, which are labels.
    known = batch.has_rotation[:, 1:] if representation == "decomposed" else batch.has_rotation
    positives = choose_positives(config, output, logits, batch, target_rotation, known)
    said = opinions(output, positives, config.settled_share)
    of_keypoint = None if said.spread is None else said.spread[..., :NUM_KEYPOINTS]
    uv = masked_l1(said, slice(0, 2), batch, batch.uv_weight, of_keypoint)
    loss = {
        "cls": config.class_weight * focal_loss(logits, positives, config.alpha, config.gamma),
        "uv": config.keypoint_weight * uv,
        "depth": config.depth_weight * masked_l1(said, slice(2, 3), batch, batch.depth_weight),
    }
    w3d = config.rotation_weight
    refined = rotation_error(said.rotation, target_rotation[:, None], representation)
    base = rotation_error(output.base_rotation, target_rotation, representation)
    loss["rotation"] = w3d * mean_of_known(said.weight @ refined, known)
    loss = {name: config.pixel_weight * term for name, term in loss.items()}
    loss["base"] = w3d * mean_of_known(base, known)
    betas, camera = global_errors(output, batch, positives)
    loss["betas"] = w3d * masked_mean(betas, batch.has_betas)
    loss["camera"] = masked_mean(camera, batch.has_scale)
    if representation == "direct" and config.posture_weight:
        poses = [output.base_rotation]
        if output.baseline is not None:
            poses.append(output.baseline.rot6d.flatten(1))
        said = replace(said, weight=config.pixel_weight * said.weight)
        posture = posture_loss(said, torch.stack(poses, 1), batch, rest_joints)
        loss["posture"] = config.posture_weight * posture
    if output.baseline is not None:
        direct = rotation_error(output.baseline.rot6d.flatten(1), batch.rot6d, "direct")
        pelvis = (output.baseline.pelvis_uv - batch.keypoints_uvd[:, 0, :2]).abs().sum(1)
        loss["baseline"] = config.baseline_weight * mean_of_known(direct, batch.has_rotation)
        labelled = (batch.uv_weight[:, 0] > 0).to(pelvis)
        loss["baseline_uv"] = config.baseline_weight * 10 * masked_mean(pelvis, labelled)
    if output.heatmaps is not None:
        heat, depth = heatmap_loss(output.heatmaps, batch)
        loss["heat"] = config.heatmap_weight * heat
        loss["heat_depth"] = config.heatmap_weight * depth
    if output.surface is not None:
        person, points = surface_loss(output.surface, batch)
        loss["person"] = config.surface_weight * person
        loss["surface"] = config.surface_weight * points
    return loss


def global_errors(output: DenseOutput, batch: Batch, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors of betas and camera scale, [B] each, of what pixels make of them included."""
    betas = (output.betas - batch.betas).square().sum(1)
    camera = (output.camera_scale - batch.camera_scale).square()
    if output.globals is None:
        return betas, camera
    corrected = take(output.globals, positives)
    refined = (corrected[..., :-1] - batch.betas[:, None]).square().sum(-1).mean(1)
    return betas + refined, camera + (
        corrected[..., -1] - batch.camera_scale[:, None]
    ).square().mean(1)


@dataclass(frozen=True)
class Opinions:
    """Predictions of one image that are held against its labels.

    Attributes:
        keypoints_uvd: [B, T, K, 3].
        rotation: [B, T, R].
        spread: [B, T, K + J], or None.
        weight: [T], what each counts; they sum to one.
    """

    keypoints_uvd: Tensor
    rotation: Tensor
    spread: Tensor | None
    weight: Tensor


def opinions(output: DenseOutput, positives: Tensor, settled_share: float) -> Opinions:
    """The positives' predictions, and the winners' common one where there is one."""
    keypoints, rotation = take(output.keypoints_uvd, positives), take(output.rotation, positives)
    spread = None if output.spread is None else take(output.spread, positives)
    count = positives.shape[1]
    weight = torch.full((count,), 1 / count, device=keypoints.device)
    settled = output.settled
    if settled is None or settled_share == 0:
        return Opinions(keypoints, rotation, spread, weight)
    if spread is not None and settled.spread is not None:
        # How far off it may be is for every pixel to learn; the mean of them only uses it.
        spread = torch.cat([spread, settled.spread[:, None].detach()], 1)
    return Opinions(
        torch.cat([keypoints, settled.keypoints_uvd[:, None]], 1),
        torch.cat([rotation, settled.rotation[:, None]], 1),
        spread,
        torch.cat([weight * (1 - settled_share), weight.new_tensor([settled_share])]),
    )


def choose_positives(
    config: LossConfig,
    output: DenseOutput,
    logits: Tensor,
    batch: Batch,
    target_rotation: Tensor,
    known: Tensor,
) -> Tensor:
    """[B, T] indices into the predicting pixels, by dynamic matching or by position."""
    if config.matching.center:
        height, width = output.score_logits.shape[-2:]
        grid = pixel_grid(height, width, logits.device).reshape(-1, 2)[output.pixels]
        chosen = center_pixels(grid, height, width, config.matching.positives)
        return chosen.expand(len(logits), -1)
    return match(
        config.matching,
        logits.detach(),
        output.keypoints_uvd.detach(),
        output.rotation.detach(),
        batch.keypoints_uvd,
        batch.seen,
        target_rotation,
        known,
    )


def focal_loss(logits: Tensor, positives: Tensor, alpha: float, gamma: float) -> Tensor:
    """Hard 1 for the T positives, 0 elsewhere; sum over pixels / (B * T). logits [B, N]."""
    target = torch.zeros_like(logits).scatter_(1, positives, 1.0)
    p = logits.sigmoid()
    right = torch.where(target > 0, p, 1 - p)
    weight = torch.where(target > 0, alpha, 1 - alpha) * (1 - right) ** gamma
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weight * bce).sum() / positives.numel()


def tempered(error: Tensor, spread: Tensor, scale: float) -> Tensor:
    """Negative log-likelihood of errors under a Laplace law of the told spread.

    In units in which it is the error itself where the spread is `scale`. Lowest, for a given
    expected error, where the spread tells just that: what cannot be known pulls less.
    """
    return scale * (error / spread + (spread / scale).log())


def masked_l1(
    said: Opinions, axes: slice, batch: Batch, weight: Tensor, spread: Tensor | None = None
) -> Tensor:
    """Mean over weighted keypoints of |error|, its axes added, over all opinions.

    Args:
        axes: which of u, v, d.
        weight: [B, K], zero where the data set has no label.
        spread: [B, T, K] expected errors, or None for the plain mean.
    """
    target = batch.keypoints_uvd[:, None, :, axes]
    error = (said.keypoints_uvd[..., axes] - target).abs().sum(-1)
    if spread is not None:
        error = tempered(error, spread, KEYPOINT_SPREAD)
    error = said.weight @ error
    return (error * weight).sum() / weight.sum().clamp(min=1.0)


def rotation_error(numbers: Tensor, target: Tensor, representation: str) -> Tensor:
    """Squared error of each unit twist or rotation matrix, [..., R] -> [..., 23 or 24]."""
    if representation == "decomposed":
        # The raw numbers, not only their direction: keeps them near the unit circle.
        unit = normalise_twist(numbers).flatten(-2)
        error = 0.5 * ((unit - target).square() + (numbers - target).square())
        return error.unflatten(-1, (-1, 2)).sum(-1)
    shape = (*numbers.shape[:-1], -1, 6)
    error = rot6d_to_rotmat(numbers.reshape(shape)) - rot6d_to_rotmat(
        target.reshape(*target.shape[:-1], -1, 6)
    )
    return error.square().sum((-2, -1))


def posture_loss(said: Opinions, coarse: Tensor, batch: Batch, rest_joints: Tensor) -> Tensor:
    """Mean distance of the joints, m, posed in the body's own frame and with the mean shape.

    The global orientation does not matter here: a person taken for facing the other way still
    teaches how the limbs are bent. Neither do the rotations at the ends of the chains, such as the
    hands', which move no joint: they need not be known.

    Args:
        said: 6D rotations; their expected errors temper the distances.
        coarse: [B, M, 144], global estimates; the loss of each is added.
        rest_joints: [24, 3] m.
    """
    # All at once: many small steps.
    rotations = torch.cat([said.rotation, coarse, batch.rot6d[:, None]], 1)
    rotmats = rot6d_to_rotmat(rotations.flatten(0, 1).reshape(-1, NUM_JOINTS, 6))
    rotmats = torch.cat([torch.eye(3).to(rotmats).expand(len(rotmats), 1, 3, 3), rotmats[:, 1:]], 1)
    joints = forward_kinematics(rotmats, rest_joints.expand(len(rotmats), -1, -1))[1]
    joints = joints.reshape(len(batch.rot6d), -1, NUM_JOINTS, 3)
    errors = (joints[:, :-1] - joints[:, -1:]).norm(dim=-1)
    refined, coarse = errors.split((said.rotation.shape[1], coarse.shape[1]), 1)
    if said.spread is not None:
        refined = tempered(refined, said.spread[..., NUM_KEYPOINTS:], JOINT_SPREAD_M)
    known = batch.has_rotation[:, BENDING].amin(1)
    return masked_mean(refined.mean(-1) @ said.weight + coarse.mean(-1).sum(1), known)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [B] over mask [B]; zero when nothing is labelled."""
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def mean_of_known(errors: Tensor, known: Tensor) -> Tensor:
    """Mean, over those of whom any joint is known, of errors [B, J] summed over known [B, J]."""
    return masked_mean((errors * known).sum(1), known.amax(1))


def heatmap_loss(maps: Tensor, batch: Batch, sigma: float = 1.5) -> tuple[Tensor, Tensor]:
    """Where each keypoint is, as a distribution over pixels, and how deep it lies there.

    The heat maps are trained as a softmax over the grid against a normalised Gaussian, the depth
    maps only where the Gaussian has weight.

    Args:
        maps: [B, 2K, h, w]: logits, then depths in grid pixels as the pixel head counts them.
    """
    count, height, width = batch.keypoints_uvd.shape[1], *maps.shape[-2:]
    logits = maps[:, :count].flatten(2)
    target = gaussian_maps(batch.keypoints_uvd[..., :2], height, width, sigma)
    inside = (target.sum(-1) > 1e-3) * batch.inside
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    heat = -(target * logits.log_softmax(-1)).sum(-1)
    depth = (maps[:, count:].flatten(2) / width * target).sum(-1)
    depth_error = (depth - batch.keypoints_uvd[..., 2]).abs()
    weight = inside / inside.sum().clamp(min=1.0)
    # Cross entropy counts in nats, depth error in crops: fifty brings them to one size.
    return 0.2 * (heat * weight).sum(), 10 * (depth_error * weight * (batch.depth_weight > 0)).sum()


def surface_loss(maps: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Which grid pixels show the person, and which point of the rest body, how deep.

    Args:
        maps: [B, 5, h, w]: logit, then rest x, y, z and depth in `SURFACE_SCALE` units per metre.

    Returns:
        binary cross entropy, and the mean over images of the mean |error| where the person shows.
    """
    mask, points = batch.surface[:, 0], batch.surface[:, 1:]
    entropy = F.binary_cross_entropy_with_logits(maps[:, 0], mask, reduction="none")
    scale = torch.tensor(SURFACE_SCALE, device=maps.device)[:, None, None]
    error = (maps[:, 1:] - points * scale).abs().sum(1)
    error = (error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1.0)
    return masked_mean(entropy.mean((1, 2)), batch.has_surface), masked_mean(
        error, batch.has_surface
    )


def gaussian_maps(uv: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Separable unnormalised Gaussians around uv [B, K, 2] -> [B, K, h * w]."""
    x = (uv[..., :1] + 0.5) * width - 0.5
    y = (uv[..., 1:] + 0.5) * height - 0.5
    gx = torch.exp(-((torch.arange(width, device=uv.device) - x) ** 2) / (2 * sigma**2))
    gy = torch.exp(-((torch.arange(height, device=uv.device) - y) ** 2) / (2 * sigma**2))
    return (gy[..., :, None] * gx[..., None, :]).flatten(2)
