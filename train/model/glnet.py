"""GLNet: a global estimate of the body, refined by every pixel (paper §3.2, §3.3).

Letters: B images, C backbone channels, h x w feature grid, N = pixels predicted from, K = 36
keypoints, P = 7 parts, R = rotation numbers (23 x 2 decomposed, 24 x 6 direct).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS, NUM_TWISTS
from train.model.config import CLASS_VARIANTS, REFINABLE, GLNetConfig
from train.model.gather import gather_pixels, part_point_gather
from train.model.hrnet import HRNet, initialise
from train.model.pixel_head import PixelHead, PixelPrediction, Settled, folded, take

INITIAL_CAMERA_SCALE = 0.9
# Of k pixels: part points [B, k, P, 2], their features [B, k, P, c], the pixels' own [B, k, c].
Looked = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class DenseOutput:
    """Predictions of N pixels of each image, and the global estimate they share.

    Attributes:
        score_logits: [B, h, w], of every pixel.
        pixels: [N] int64, row-major index of each predicting pixel.
        keypoints_uvd: [B, N, K, 3].
        rotation: [B, N, R], base plus residual, not yet normalised.
        spread: [B, N, K + J], expected |du| + |dv| of each keypoint and error of each joint in the
            body's own frame, m; or None.
        settled: what the best of these pixels say together; None where one alone wins.
        globals: [B, N, 11], betas and camera scale, corrected; None where pixels leave them alone.
        base_rotation: [B, R], the global estimate.
        betas: [B, 10].
        camera_scale: [B].
        part_points: [B, P, h, w, 2], hop 1, absolute grid pixels (x, y).
        baseline: `GlobalPose` or None.
        heatmaps: [B, 2K, h, w], logits then depths, or None.
        surface: [B, 5, h, w], logit of the person, rest x, y, z and depth times `SURFACE_SCALE`,
            or None.
    """

    score_logits: Tensor
    pixels: Tensor
    keypoints_uvd: Tensor
    rotation: Tensor
    spread: Tensor | None
    settled: Settled | None
    globals: Tensor | None
    base_rotation: Tensor
    betas: Tensor
    camera_scale: Tensor
    part_points: Tensor
    baseline: GlobalPose | None
    heatmaps: Tensor | None
    surface: Tensor | None


@dataclass(frozen=True)
class GlobalPose:
    """The paper's baseline: everything from the global feature (Table 2, first row).

    Attributes:
        rot6d: [B, 24, 6].
        pelvis_uv: [B, 2], where the pelvis lies in the crop.
    """

    rot6d: Tensor
    pelvis_uv: Tensor


class GlobalHead(nn.Module):
    """f_g -> betas, base rotation, camera scale: one linear layer each, plus the mean (§3.2)."""

    def __init__(self, config: GLNetConfig, channels: int) -> None:
        super().__init__()
        self.betas = nn.Linear(channels, config.spec.num_betas)
        self.rotation = nn.Linear(channels, config.rotation_numbers)
        self.camera = nn.Linear(channels, 1)
        self.register_buffer("mean_betas", torch.zeros(config.spec.num_betas))
        self.register_buffer("mean_rotation", identity_rotation(config.spec.representation))
        self.register_buffer("mean_rot6d", identity_rotation("direct"))
        self.baseline = None
        if config.global_baseline:
            self.baseline = nn.Linear(channels, NUM_JOINTS * 6 + 2)
        for layer in self.children():
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        betas = self.mean_betas + self.betas(pooled)
        rotation = self.mean_rotation + self.rotation(pooled)
        scale = INITIAL_CAMERA_SCALE + self.camera(pooled)[:, 0]
        # The scale divides later on: a crop never shows more than ten metres.
        return betas, rotation, scale.clamp(min=0.1)

    def global_pose(self, pooled: Tensor) -> GlobalPose | None:
        """The baseline's own pose, in training and its evaluation only."""
        if self.baseline is None:
            return None
        numbers = self.baseline(pooled)
        rot6d = (self.mean_rot6d + numbers[:, :-2]).reshape(-1, NUM_JOINTS, 6)
        return GlobalPose(rot6d, numbers[:, -2:])


def identity_rotation(representation: str) -> Tensor:
    """The rest pose as R numbers: twist (1, 0) or 6D of the identity (reshape(3, 2) layout)."""
    if representation == "decomposed":
        return torch.tensor([1.0, 0.0]).repeat(NUM_TWISTS)
    return torch.eye(3)[:, :2].reshape(6).repeat(NUM_JOINTS)


class BranchFusion(nn.Module):
    """F from all four branches: projected at their own resolution, raised, added."""

    def __init__(self, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(w, channels, 1, bias=False) for w in widths)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        if self.training:
            return F.relu(self.bn(self.added(features, [p.weight for p in self.project])))
        # No exporter folds a batch norm behind a sum; as kernels and a bias it costs nothing.
        scale, shift = folded(self.bn)
        kernels = [p.weight * scale[:, None, None, None] for p in self.project]
        return F.relu(self.added(features, kernels, shift))

    @staticmethod
    def added(features: list[Tensor], kernels: list[Tensor], bias: Tensor | None = None) -> Tensor:
        """Every branch through its 1x1 kernel at its own resolution, raised to the first's."""
        kernels = [kernel.to(features[0].dtype) for kernel in kernels]
        bias = None if bias is None else bias.to(features[0].dtype)
        total = F.conv2d(features[0], kernels[0], bias)
        for i in range(1, len(features)):
            lower = F.conv2d(features[i], kernels[i])
            total = total + F.interpolate(lower, scale_factor=2.0**i, mode="nearest")
        return total


class GLNet(nn.Module):
    """The whole network. `forward` predicts from many pixels (training), `top1` from the best one.

    Args:
        config: see `GLNetConfig`.
    """

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        if config.class_variant not in CLASS_VARIANTS:
            raise ValueError(f"class_variant {config.class_variant!r}, not in {CLASS_VARIANTS}")
        if not set(config.refined) <= set(REFINABLE):
            raise ValueError(f"refined {config.refined!r}, not of {REFINABLE}")
        if config.spec.fit_prior_rad and not config.spreads:
            raise ValueError("a kinematic fit weighs keypoints by spreads, which this has not")
        self.config = config
        self.backbone = HRNet(config.backbone)
        initialise(self.backbone)
        self.global_head = GlobalHead(config, self.backbone.global_channels)
        self.pixel_head = PixelHead(config, self.backbone.global_channels)
        self.fusion = None
        if config.fused_channels:
            self.fusion = BranchFusion(config.backbone.widths, config.fused_channels)
            initialise(self.fusion)
        self.heatmap_head = None
        if config.heatmaps:
            self.heatmap_head = nn.Conv2d(config.feature_channels, 2 * NUM_KEYPOINTS, 1)
            nn.init.normal_(self.heatmap_head.weight, std=1e-3)
            nn.init.zeros_(self.heatmap_head.bias)
        self.surface_head = None
        if config.surface:
            self.surface_head = nn.Conv2d(config.feature_channels, 5, 1)
            nn.init.normal_(self.surface_head.weight, std=1e-3)
            nn.init.zeros_(self.surface_head.bias)

    def forward(self, image: Tensor, pixels: Tensor | None = None) -> DenseOutput:
        """Predict from `pixels` ([N] int64, row-major; None: all of them).

        Args:
            image: [B, 3, S, S] float32, RGB, normalised.
        """
        features = self.backbone(image)
        pooled = self.backbone.pool(features)
        betas, base_rotation, camera_scale = self.global_head(pooled)
        grid = self.features(features)
        keypoint, class_, part_points = self.pixel_head.branches(grid)
        height, width = keypoint.shape[-2:]
        if pixels is None:
            pixels = torch.arange(height * width, device=image.device)
        points = part_points.flatten(2, 3)[:, :, pixels].transpose(1, 2)
        every = pixels.expand(len(image), -1)
        parts, reference = self.pixel_head.encode_dense(keypoint, points, every)
        told = self.pixel_head.predict(parts, reference, points, (height, width), pooled)
        logits = self.pixel_head.score_map(class_, part_points)
        rotation = base_rotation[:, None] + told.residual
        whole = torch.cat([betas, camera_scale[:, None]], 1)[:, None]
        return DenseOutput(
            score_logits=logits,
            pixels=pixels,
            keypoints_uvd=told.keypoints_uvd,
            rotation=rotation,
            spread=told.spread,
            settled=self.settle_best(logits, pixels, told, rotation),
            globals=None if told.globals is None else whole + told.globals,
            base_rotation=base_rotation,
            betas=betas,
            camera_scale=camera_scale,
            part_points=part_points,
            baseline=self.global_head.global_pose(pooled),
            heatmaps=None if self.heatmap_head is None else self.heatmap_head(grid).float(),
            surface=None if self.surface_head is None else self.surface_head(grid).float(),
        )

    def settle_best(
        self,
        logits: Tensor,
        pixels: Tensor,
        told: PixelPrediction,
        rotation: Tensor,
    ) -> Settled | None:
        """What the best of the predicting pixels say together; None where one alone wins.

        Of a part of the map the same part of the winners is taken.
        """
        if self.config.winners == 1:
            return None
        count = max(1, self.config.winners * len(pixels) // logits[0].numel())
        best = logits.flatten(1)[:, pixels].topk(count).indices
        spread = None if told.spread is None else take(told.spread, best)
        return self.pixel_head.settle(take(told.keypoints_uvd, best), take(rotation, best), spread)

    def features(self, branches: list[Tensor]) -> Tensor:
        """F [B, C, h, w] of the backbone's four branches."""
        return branches[0] if self.fusion is None else self.fusion(branches)

    def top1(self, image: Tensor, winners: Tensor | None = None) -> dict[str, Tensor]:
        """The prediction of the highest-scoring pixel (§3.4, end), as NetSpec names it.

        With `config.winners` above 1 the mean of that many best pixels. Hop 2 runs at those alone,
        and where they are few the part encoder too; if besides the score asks for no part points,
        so do hop 1 and the whole keypoint branch. This is the exported graph.

        Args:
            image: [B, 3, S, S] float32, RGB, normalised.
            winners: [B, k] int64, row-major: predict at these pixels and not at the best, the first
                standing for them; to compare two precisions at the same place.
        """
        features = self.backbone(image)
        pooled = self.backbone.pool(features)
        betas, base_rotation, camera_scale = self.global_head(pooled)
        grid = self.features(features)
        logits, look = self._scored(grid)
        scores, best = logits.topk(self.config.winners, dim=1)
        if winners is not None:
            scores, best = logits.gather(1, winners), winners
        points, parts, reference = look(best)
        size = (grid.shape[-2], grid.shape[-1])
        told = self.pixel_head.predict(parts, reference, points, size, pooled)
        settled = self.pixel_head.settle(
            told.keypoints_uvd, base_rotation[:, None] + told.residual, told.spread
        )
        if told.globals is not None:
            correction = told.globals.mean(1)
            betas = betas + correction[:, :-1]
            camera_scale = (camera_scale + correction[:, -1]).clamp(min=0.1)
        return self._named(
            score=scores[:, 0].sigmoid(),
            pixel=best[:, 0],
            keypoints_uvd=settled.keypoints_uvd,
            betas=betas,
            camera_scale=camera_scale,
            rotation=settled.rotation,
            spread=None if settled.spread is None else settled.spread[:, :NUM_KEYPOINTS],
        )

    def ranked(self, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Logits and pixels, [B, count] float32 and int64, of the best by their score."""
        logits, _ = self._scored(self.features(self.backbone(image)))
        scores, pixels = logits.topk(count, dim=1)
        return scores, pixels

    def _scored(self, grid: Tensor) -> tuple[Tensor, Callable[[Tensor], Looked]]:
        """Logits [B, h w] of F [B, C, h, w], and what looks closer at pixels [B, k] int64."""
        head = self.pixel_head
        height, width = grid.shape[-2:]

        def xy(pixels: Tensor) -> Tensor:
            return torch.stack([pixels % width, pixels // width], dim=-1).float()

        def look_sparse(pixels: Tensor) -> Looked:
            points = head.part_points_at(grid, xy(pixels))
            read_at = partial(head.keypoint_at, grid)
            return points, *head.encode_at(read_at, points, xy(pixels), (height, width))

        if head.sparse:
            return head.score_map(head.class_map(grid), None).flatten(1), look_sparse
        keypoint, class_, part_points = head.branches(grid)

        def look(pixels: Tensor) -> Looked:
            points = gather_pixels(part_points.flatten(2, 3), pixels)  # [B, k, P, 2]
            if not head.few_winners:
                return points, *head.encode_dense(keypoint, points, pixels)
            read_at = partial(part_point_gather, keypoint)
            return points, *head.encode_at(read_at, points, xy(pixels), (height, width))

        return head.score_map(class_, part_points).flatten(1), look

    def _named(self, rotation: Tensor, **outputs: Tensor | None) -> dict[str, Tensor]:
        if self.config.spec.representation == "decomposed":
            outputs["twist"] = normalise_twist(rotation)
        else:
            outputs["rot6d"] = rotation.reshape(-1, NUM_JOINTS, 6)
        return {name: outputs[name] for name in self.config.spec.output_shapes}


def normalise_twist(rotation: Tensor) -> Tensor:
    """[..., 46] -> unit (cos, sin) [..., 23, 2]."""
    twist = rotation.reshape(*rotation.shape[:-1], NUM_TWISTS, 2)
    return twist / twist.norm(dim=-1, keepdim=True).clamp(min=1e-6)
