"""The pixel refinement sub-network (GLNet §3.3): what pixels tell, and what the best settle on.

Letters: B images, C backbone channels, h x w feature grid, N = pixels predicted from, K = 36
keypoints, P = 7 parts, R = rotation numbers, J = 24 joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS, NUM_PARTS, PART_ORDER_INVERSE, PARTS
from train.model.config import GLNetConfig
from train.model.gather import bilinear_corners, part_point_gather
from train.model.hrnet import initialise

SCORE_PRIOR_BIAS = -2.19  # sigmoid gives 0.1: few pixels are positives when training starts
# Expected errors before anything is learned: |du| + |dv| of a keypoint, and metres of a joint.
KEYPOINT_SPREAD, JOINT_SPREAD_M = 0.08, 0.13
KEYPOINT_GAIN = 4.0  # keypoints lie within half a crop of the pelvis; features are of size one
DIFFERENCE_GAIN = 20.0  # winners differ by a twentieth of a crop
FEW_WINNERS = 16  # of 29 grid cells each; more would touch as many cells as there are
NUM_SPREADS = NUM_KEYPOINTS + NUM_JOINTS
INITIAL_SPREADS = (KEYPOINT_SPREAD,) * NUM_KEYPOINTS + (JOINT_SPREAD_M,) * NUM_JOINTS


@dataclass(frozen=True)
class Settled:
    """The winners' common prediction, what the run time gets.

    Attributes:
        keypoints_uvd: [B, K, 3].
        rotation: [B, R], not yet normalised.
        spread: [B, K + J], mean of what the winners expect, or None.
    """

    keypoints_uvd: Tensor
    rotation: Tensor
    spread: Tensor | None


@dataclass(frozen=True)
class PixelPrediction:
    """What pixels tell, from the features at their part points; float32.

    Attributes:
        keypoints_uvd: [B, N, K, 3].
        residual: [B, N, R], to be added to the base rotation.
        spread: [B, N, K + J], as in `DenseOutput`, or None.
        globals: [B, N, 11], to be added to betas and camera scale, or None.
    """

    keypoints_uvd: Tensor
    residual: Tensor
    spread: Tensor | None
    globals: Tensor | None


def folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel that a batch norm amounts to in evaluation mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


class PixelHead(nn.Module):
    """The pixel refinement sub-network and its 2D keypoint-guided local encoding (§3.3).

    A pixel points at seven part points (hop 1), reads a feature at each, and from these tells its
    keypoints (hop 2), their depths, and the residual rotation.
    """

    def __init__(self, config: GLNetConfig, global_channels: int) -> None:
        super().__init__()
        channels, width, part = (
            config.feature_channels,
            config.branch_channels,
            config.part_channels,
        )
        self.config = config
        self.keypoint_branch = nn.Conv2d(channels, width, 3, padding=1)
        class_width = config.class_channels or width
        self.class_branch = nn.Conv2d(channels, class_width, 3, padding=1)
        self.hop1 = nn.Conv2d(width, NUM_PARTS * 2, 3, padding=1)
        # One 1x1 convolution per part and one for the reference pixel, in a single kernel.
        self.part_encoder = point_encoder(width, (NUM_PARTS + 1) * part)
        self.hop2 = nn.ModuleList(nn.Linear(part, 3 * len(k)) for k in PARTS.values())
        hidden = config.lifting_width or width
        self.fuse = nn.Linear((NUM_PARTS + 1) * part, hidden)
        if config.lifting_width:
            self.fuse_keypoints = nn.Linear(NUM_KEYPOINTS * 3, hidden, bias=False)
            self.fuse_global = nn.Linear(global_channels, hidden, bias=False)
            self.lifting = nn.Linear(hidden, hidden)
        self.residual = None
        if "rotation" in config.refined:
            self.residual = nn.Linear(hidden, config.rotation_numbers)
        self.globals = None
        if any(config.globals_refined):
            self.globals = nn.Linear(hidden, len(config.globals_refined))
        self.spread = None
        if config.spreads:
            self.spread = nn.Linear(hidden, NUM_SPREADS)
        self.settling = None
        if config.settle_width and config.winners > 1:
            numbers = 6 * NUM_KEYPOINTS + config.rotation_numbers
            self.settling = nn.Sequential(
                nn.Linear(numbers + config.spreads * NUM_SPREADS, config.settle_width),
                nn.ReLU(inplace=True),
                nn.Linear(config.settle_width, config.rotation_numbers),
            )
        self.class_encoder = None
        score_in = class_width
        if config.class_variant == "local":
            self.class_encoder = point_encoder(class_width, (NUM_PARTS + 1) * part)
            score_in = (NUM_PARTS + 1) * part
        self.score_conv = nn.Conv2d(score_in, part, 3, padding=1)
        self.score = nn.Conv2d(part, 1, 1)
        self.register_buffer("keypoint_order", torch.tensor(PART_ORDER_INVERSE), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        nn.init.zeros_(self.hop1.weight)
        for layer in (*self.hop2, self.residual, self.globals, self.spread):
            if layer is not None:
                nn.init.normal_(layer.weight, std=1e-3)
                nn.init.zeros_(layer.bias)
        if self.settling is not None:
            nn.init.zeros_(self.settling[-1].weight)
            nn.init.zeros_(self.settling[-1].bias)
        nn.init.normal_(self.score.weight, std=1e-3)
        nn.init.constant_(self.score.bias, SCORE_PRIOR_BIAS)

    @property
    def few_winners(self) -> bool:
        """Whether run time encodes the winners' cells alone, and not the whole map."""
        return self.config.winners < FEW_WINNERS

    @property
    def sparse(self) -> bool:
        """Whether the score map is all that run time needs of every pixel."""
        return self.few_winners and self.class_encoder is None

    def branches(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F [B, C, h, w] -> keypoint branch, class branch, part points [B, P, h, w, 2]."""
        keypoint = F.relu(self.keypoint_branch(features))
        return keypoint, self.class_map(features), self.part_points(keypoint)

    def class_map(self, features: Tensor) -> Tensor:
        """F [B, C, h, w] -> class branch."""
        return F.relu(self.class_branch(features))

    def part_points(self, keypoint: Tensor) -> Tensor:
        """Hop 1: absolute grid pixels (x, y) of each pixel's part points, float32."""
        batch, _, height, width = keypoint.shape
        offsets = self.hop1(keypoint).float().reshape(batch, NUM_PARTS, 2, height, width)
        if not self.config.local_encoding:
            offsets = offsets * 0
        grid = pixel_grid(height, width, offsets.device).permute(2, 0, 1)
        return (offsets + grid).permute(0, 1, 3, 4, 2)

    def part_points_at(self, features: Tensor, pixel_xy: Tensor) -> Tensor:
        """Part points [B, N, P, 2] of a few pixels [B, N, 2], of whose surroundings alone the
        keypoint branch is computed.

        Args:
            features: F [B, C, h, w].
        """
        height, width = features.shape[-2:]
        cells = around(pixel_xy)
        last = cells.new_tensor([width - 1.0, height - 1.0])
        inside = ((cells >= 0) & (cells <= last)).all(-1, keepdim=True)
        read = self.keypoint_at(features, cells) * inside  # hop 1 pads with zeros
        read = read.reshape(*pixel_xy.shape[:2], -1)
        offsets = read @ as_matrix(self.hop1) + self.hop1.bias
        if not self.config.local_encoding:
            offsets = offsets * 0
        return pixel_xy[:, :, None] + offsets.reshape(*pixel_xy.shape[:2], NUM_PARTS, 2)

    def keypoint_at(self, features: Tensor, cells: Tensor) -> Tensor:
        """The keypoint branch at a few cells alone: [B, M, width] float32.

        Args:
            features: F [B, C, h, w].
            cells: [B, M, 2] float32, whole numbers.
        """
        padded = F.pad(features, (1, 1, 1, 1))
        read = part_point_gather(padded, around(cells + 1)).reshape(*cells.shape[:2], -1)
        return F.relu(read @ as_matrix(self.keypoint_branch) + self.keypoint_branch.bias)

    def score_map(self, class_: Tensor, part_points: Tensor | None) -> Tensor:
        """Person logits [B, h, w]; the variant `pixel` needs no part points."""
        if self.class_encoder is not None:
            assert part_points is not None
            batch, _, height, width = class_.shape
            encoded = self.class_encoder(class_)
            parts, reference = self._split(encoded)
            points = part_points.reshape(batch * NUM_PARTS, height * width, 2)
            sampled = part_point_gather(parts, points)
            sampled = sampled.reshape(batch, NUM_PARTS, height, width, -1)
            sampled = sampled.permute(0, 1, 4, 2, 3).reshape(batch, -1, height, width)
            class_ = torch.cat([sampled.to(reference.dtype), reference], dim=1)
        return self.score(F.relu(self.score_conv(class_)))[:, 0].float()

    def _split(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """[B, (P+1) c, h, w] -> the parts' maps [B*P, c, h, w] and the reference's [B, c, h, w]."""
        part = self.config.part_channels
        batch, _, height, width = encoded.shape
        parts = encoded[:, : NUM_PARTS * part].reshape(batch * NUM_PARTS, part, height, width)
        return parts, encoded[:, NUM_PARTS * part :]

    def encode_dense(
        self, keypoint: Tensor, points: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features of N pixels: parts [B, N, P, c] at their part points, reference [B, N, c].

        Args:
            keypoint: [B, width, h, w].
            points: [B, N, P, 2] float32, part points.
            pixels: [B, N] int64, row-major.
        """
        batch, count = pixels.shape
        parts, reference = self._split(self.part_encoder(keypoint))
        sampled = part_point_gather(parts, points.transpose(1, 2).flatten(0, 1))  # [B*P, N, c]
        sampled = sampled.reshape(batch, NUM_PARTS, count, -1).transpose(1, 2)
        reference = reference.flatten(2).transpose(1, 2)
        own = reference.gather(1, pixels[..., None].expand(-1, -1, reference.shape[-1]))
        return sampled, own

    def encode_at(
        self,
        read_at: Callable[[Tensor], Tensor],
        points: Tensor,
        pixel_xy: Tensor,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """The same for a few pixels per image, touching only the 29 grid cells each needs.

        ReLU stands between the 1x1 convolutions and the sampling, so the branch is read at the four
        corners of each part point, encoded there by that part's own kernel, and interpolated last:
        identical numbers in evaluation mode.

        Args:
            read_at: keypoint branch [B, M, width] at cells [B, M, 2].
            points: [B, N, P, 2] float32, part points.
            pixel_xy: [B, N, 2] float32, the pixels.
            size: (h, w) of the grid.
        """
        batch, count = points.shape[:2]
        corners, weights = bilinear_corners(points, size)  # [B, N, P, 4, 2]
        read = read_at(torch.cat([corners.flatten(1, 3), pixel_xy], dim=1))  # [B, 29 N, width]
        kernels, shift = self._folded_encoder()  # [P + 1, width, c], [P + 1, c]
        corner = read[:, :-count].reshape(batch, count, NUM_PARTS, 4, -1)
        encoded = corner.transpose(2, 1).flatten(2, 3) @ kernels[:-1]  # [B, P, 4 N, c]
        encoded = F.relu(encoded + shift[:-1, None])
        encoded = encoded.reshape(batch, NUM_PARTS, count, 4, -1).transpose(2, 1)
        sampled = (encoded * weights[..., None]).sum(3)
        return sampled, F.relu(read[:, -count:] @ kernels[-1] + shift[-1])

    def _folded_encoder(self) -> tuple[Tensor, Tensor]:
        """The part encoder with its batch norm folded in: one matrix and shift per part."""
        convolution, norm = self.part_encoder[0], self.part_encoder[1]
        scale, shift = folded(norm)
        kernel = convolution.weight[:, :, 0, 0] * scale[:, None]
        groups = NUM_PARTS + 1
        return kernel.reshape(groups, -1, kernel.shape[1]).transpose(1, 2), shift.reshape(
            groups, -1
        )

    def predict(
        self,
        parts: Tensor,
        reference: Tensor,
        points: Tensor,
        size: tuple[int, int],
        pooled: Tensor,
    ) -> PixelPrediction:
        """Hop 2, the residual rotation, and how far off both may be.

        Args:
            parts: [B, N, P, c]. reference: [B, N, c].
            points: [B, N, P, 2] float32, part points, absolute grid pixels.
            size: (h, w) of the grid.
            pooled: [B, global channels], the global feature.
        """
        height, width = size
        if not self.config.guided:
            points = points.detach()
        located = []
        for p, layer in enumerate(self.hop2):
            offsets = layer(parts[:, :, p]).float()
            offsets = offsets.reshape(*offsets.shape[:2], -1, 3)
            xy = points[:, :, p, None] + offsets[..., :2]
            u = (xy[..., :1] + 0.5) / width - 0.5
            v = (xy[..., 1:] + 0.5) / height - 0.5
            # Depth is counted in grid pixels like x and y, so that one learning rate suits all.
            located.append(torch.cat([u, v, offsets[..., 2:] / width], dim=-1))
        keypoints = torch.cat(located, dim=2)[:, :, self.keypoint_order]
        fused = self.fuse(torch.cat([parts.flatten(2), reference], dim=-1))
        if self.config.lifting_width:
            # With its gradient: what rotations ask of the keypoints is clearer than their own loss.
            shape = KEYPOINT_GAIN * (keypoints - keypoints[:, :, :1]).flatten(2)
            fused = fused + self.fuse_keypoints(shape) + self.fuse_global(pooled)[:, None]
            fused = self.lifting(F.relu(fused))
        fused = F.relu(fused)
        spread = None if self.spread is None else expected_error(self.spread(fused).float())
        if self.residual is None:
            residual = keypoints.new_zeros(*fused.shape[:2], self.config.rotation_numbers)
        else:
            residual = self.residual(fused).float()
        return PixelPrediction(keypoints, residual, spread, self.corrections(fused))

    def corrections(self, fused: Tensor) -> Tensor | None:
        """[B, N, 11] for betas and camera scale, zero for what is not refined; None for neither."""
        if self.globals is None:
            return None
        numbers = self.globals(fused).float()
        return numbers * numbers.new_tensor(self.config.globals_refined)

    def settle(self, keypoints: Tensor, rotation: Tensor, spread: Tensor | None) -> Settled:
        """One prediction from k pixels': their mean, corrected by what they differ in.

        Args:
            keypoints: [B, k, K, 3]. rotation: [B, k, R], base included. spread: [B, k, K + J] or
                None.
        """
        mean, turned = trusted_mean(keypoints, rotation, spread)
        told = None if spread is None else spread.mean(1)
        if self.settling is not None:
            shape = KEYPOINT_GAIN * (mean - mean[:, :1]).flatten(1)
            differing = DIFFERENCE_GAIN * (keypoints - mean[:, None]).abs().mean(1).flatten(1)
            facts = [shape, differing, turned]
            if told is not None:
                facts.append((told / told.new_tensor(INITIAL_SPREADS)).log())
            turned = turned + self.settling(torch.cat(facts, 1)).float()
        return Settled(mean, turned, told)


def take(values: Tensor, index: Tensor) -> Tensor:
    """values [B, N, ...], index [B, T] -> [B, T, ...]."""
    return values[torch.arange(len(values), device=values.device)[:, None], index]


def expected_error(numbers: Tensor) -> Tensor:
    """Raw numbers [..., K + J] -> expected errors, at most e^3 times what they start from."""
    return (3 * torch.tanh(numbers / 3)).exp() * numbers.new_tensor(INITIAL_SPREADS)


def trusted_mean(
    keypoints: Tensor, rotation: Tensor, spread: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean of k pixels' predictions, by the inverse squares of their expected errors if told.

    Args:
        keypoints: [B, k, K, 3]. rotation: [B, k, R]. spread: [B, k, K + J] or None.

    Returns:
        [B, K, 3] and [B, R].
    """
    if spread is None:
        return keypoints.mean(1), rotation.mean(1)
    of_keypoint, of_joint = spread.split((NUM_KEYPOINTS, NUM_JOINTS), -1)
    trust = of_keypoint.pow(-2)[..., None]
    whole = of_joint.mean(-1, keepdim=True).pow(-2)
    keypoints = (keypoints * trust).sum(1) / trust.sum(1)
    return keypoints, (rotation * whole).sum(1) / whole.sum(1)


def point_encoder(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def around(cells: Tensor) -> Tensor:
    """The 3x3 cells about each of [B, M, 2], row by row: [B, 9 M, 2]."""
    offsets = pixel_grid(3, 3, cells.device).flatten(0, 1) - 1
    return (cells[:, :, None] + offsets).flatten(1, 2)


def as_matrix(convolution: nn.Conv2d) -> Tensor:
    """[9 C_in, C_out], for 3x3 surroundings as `around` lists them, channels last."""
    return convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """[h, w, 2] float32, (x, y) of every pixel."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).float()
