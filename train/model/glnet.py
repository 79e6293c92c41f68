"""GLNet: a global estimate of the body, refined by every pixel (paper §3.2, §3.3).

Letters: B images, C backbone channels, h x w feature grid, N = pixels predicted from, K = 36
keypoints, P = 7 parts, R = rotation numbers (23 x 2 decomposed, 24 x 6 direct).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glnet_rt.skeleton import (
    NUM_JOINTS,
    NUM_KEYPOINTS,
    NUM_PARTS,
    NUM_TWISTS,
    PART_ORDER_INVERSE,
    PARTS,
)
from glnet_rt.spec import NetSpec
from train.model.gather import bilinear_corners, gather_pixels, part_point_gather
from train.model.hrnet import HRNET_PRESETS, HRNet, HRNetConfig, initialise

CLASS_VARIANTS = ("local", "pixel")
REFINABLE = ("rotation", "shape", "camera")
SCORE_PRIOR_BIAS = -2.19  # sigmoid gives 0.1: few pixels are positives when training starts
INITIAL_CAMERA_SCALE = 0.9
# Expected errors before anything is learned: |du| + |dv| of a keypoint, and metres of a joint.
KEYPOINT_SPREAD, JOINT_SPREAD_M = 0.08, 0.13
FEW_WINNERS = 16  # of 29 grid cells each; more would touch as many cells as there are
KEYPOINT_GAIN = 4.0  # keypoints lie within half a crop of the pelvis; features are of size one
DIFFERENCE_GAIN = 20.0  # winners differ by a twentieth of a crop
FIT_PRIOR_RAD = (
    0.05  # of a joint; further, and errors of keypoints are taken over (docs/training.md)
)
NUM_SPREADS = NUM_KEYPOINTS + NUM_JOINTS
INITIAL_SPREADS = (KEYPOINT_SPREAD,) * NUM_KEYPOINTS + (JOINT_SPREAD_M,) * NUM_JOINTS


@dataclass(frozen=True)
class GLNetConfig:
    """Everything that fixes the network's shape.

    Attributes:
        spec: input and output contract, shared with the run time.
        backbone: HRNet's shape.
        branch_channels: width of the keypoint and the class branch (256 in the paper's ancestors).
        part_channels: width of one part's feature.
        fused_channels: 0 takes the highest-resolution branch as F, as the paper does. Otherwise F
            has this many channels, gathered from all four branches: a narrow backbone's first
            branch has fewer channels than there are keypoints to tell apart.
        lifting_width: 0 tells the residual rotation from the sampled features alone, as the paper
            does. Otherwise the width of two hidden layers that also read the pixel's own keypoints
            and the global feature: from joints to rotations is a shorter way than from pixels.
        winners: pixels whose predictions are averaged at run time; 1 is the paper's single best.
        spreads: every pixel also tells how far off it expects each keypoint and joint to be. Errors
            count in training, and pixels in the mean of the winners, by what can be known there.
        settle_width: 0 takes the winners' mean as it is. Otherwise the hidden width of a correction
            of its rotations that also sees how far the winners differ.
        class_variant: what scores a pixel. `local`: the class branch's features at the seven part
            points, as in the paper; `pixel`: the class branch alone, which lets everything behind
            hop 1 run at the winning pixel only.
        local_encoding: False drops the part points: every prediction comes from the pixel's own
            feature (Table 2 without LEM).
        guided: False leaves the part points to whatever helps the sampled features: keypoints are
            then told from them without teaching where they lie (Table 3 without guidance).
        refined: which parameters the pixels correct (Table 4); the paper settles on rotation alone.
        global_baseline: also learn a pose from the global feature alone, the paper's baseline. It
            is never exported.
        heatmaps: also learn one heat map and one depth map per keypoint, in training only. They
            teach the features where the joints are long before two hops can.
        surface: also learn, in training only, which grid pixels show the person, which point of the
            rest body they show and how deep it lies. Front and back, left and right are then told
            apart at every pixel and not only through the joints.
    """

    spec: NetSpec = field(default_factory=NetSpec)
    backbone: HRNetConfig = HRNET_PRESETS["tiny"]
    branch_channels: int = 256
    part_channels: int = 64
    fused_channels: int = 0
    lifting_width: int = 0
    winners: int = 1
    spreads: bool = False
    settle_width: int = 0
    class_variant: str = "local"
    local_encoding: bool = True
    guided: bool = True
    refined: tuple[str, ...] = ("rotation",)
    global_baseline: bool = True
    heatmaps: bool = True
    surface: bool = True

    @property
    def feature_channels(self) -> int:
        """C, channels of F."""
        return self.fused_channels or self.backbone.width

    @property
    def rotation_numbers(self) -> int:
        """R: twist (cos, sin) of 23 joints, or 6D of 24."""
        return NUM_TWISTS * 2 if self.spec.representation == "decomposed" else NUM_JOINTS * 6

    @property
    def globals_refined(self) -> tuple[float, ...]:
        """1 for each number of betas and camera scale that the pixels correct, else 0."""
        shape, camera = float("shape" in self.refined), float("camera" in self.refined)
        return (shape,) * self.spec.num_betas + (camera,)


def preset(name: str, **spec_fields: object) -> GLNetConfig:
    """The configuration of `tiny`, `w32` or `w48`; `spec_fields` override the NetSpec."""
    if name == "tiny":
        fit = FIT_PRIOR_RAD if spec_fields.get("representation") == "direct" else 0.0
        known = {"preset": name, "input_size": 128, "fit_prior_rad": fit}
        spec = NetSpec(**{**known, **spec_fields})
        return GLNetConfig(
            spec,
            HRNET_PRESETS[name],
            branch_channels=64,
            part_channels=32,
            fused_channels=96,
            lifting_width=256,
            winners=64,
            spreads=True,
            settle_width=256,
            class_variant="pixel",
        )
    spec = NetSpec(**{"preset": name, "input_size": 256, **spec_fields})
    return GLNetConfig(spec, HRNET_PRESETS[name])


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
class GlobalPose:
    """The paper's baseline: everything from the global feature (Table 2, first row).

    Attributes:
        rot6d: [B, 24, 6].
        pelvis_uv: [B, 2], where the pelvis lies in the crop.
    """

    rot6d: Tensor
    pelvis_uv: Tensor


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


def folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel that a batch norm amounts to in evaluation mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


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
        total = F.conv2d(features[0], kernels[0], bias)
        for i in range(1, len(features)):
            lower = F.conv2d(features[i], kernels[i])
            total = total + F.interpolate(lower, scale_factor=2.0**i, mode="nearest")
        return total


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
        self.class_branch = nn.Conv2d(channels, width, 3, padding=1)
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
        score_in = width
        if config.class_variant == "local":
            self.class_encoder = point_encoder(width, (NUM_PARTS + 1) * part)
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

    def branches(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """F [B, C, h, w] -> keypoint branch, class branch, part points [B, P, h, w, 2]."""
        keypoint = F.relu(self.keypoint_branch(features))
        class_ = F.relu(self.class_branch(features))
        return keypoint, class_, self.part_points(keypoint)

    def part_points(self, keypoint: Tensor) -> Tensor:
        """Hop 1: absolute grid pixels (x, y) of each pixel's part points, float32."""
        batch, _, height, width = keypoint.shape
        offsets = self.hop1(keypoint).float().reshape(batch, NUM_PARTS, 2, height, width)
        if not self.config.local_encoding:
            offsets = offsets * 0
        grid = pixel_grid(height, width, offsets.device).permute(2, 0, 1)
        return (offsets + grid).permute(0, 1, 3, 4, 2)

    def score_map(self, class_: Tensor, part_points: Tensor) -> Tensor:
        """Person logits [B, h, w]."""
        if self.class_encoder is not None:
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
        self, keypoint: Tensor, points: Tensor, pixel_xy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same for a few pixels per image, touching only the 29 grid cells each needs.

        ReLU stands between the 1x1 convolutions and the sampling, so the branch is read at the four
        corners of each part point, encoded there by that part's own kernel, and interpolated last:
        identical numbers in evaluation mode.

        Args:
            keypoint: [B, width, h, w].
            points: [B, N, P, 2] float32, part points.
            pixel_xy: [B, N, 2] float32, the pixels.
        """
        batch, count = points.shape[:2]
        corners, weights = bilinear_corners(points, keypoint.shape[-2:])  # [B, N, P, 4, 2]
        cells = torch.cat([corners.flatten(1, 3), pixel_xy], dim=1)
        read = part_point_gather(keypoint, cells)  # [B, 29 N, width]
        kernels, shift = self._folded_encoder()  # [P + 1, width, c], [P + 1, c]
        around = read[:, :-count].reshape(batch, count, NUM_PARTS, 4, -1)
        encoded = around.transpose(2, 1).flatten(2, 3) @ kernels[:-1]  # [B, P, 4 N, c]
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


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """[h, w, 2] float32, (x, y) of every pixel."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).float()


class GLNet(nn.Module):
    """The whole network. `forward` predicts from many pixels (training), `top1` from the best one.

    Args:
        config: see `GLNetConfig`.
    """

    def __init__(self, config: GLNetConfig) -> None:
        super().__init__()
        if config.class_variant not in CLASS_VARIANTS:
            raise ValueError(f"class_variant {config.class_variant!r}, not in {CLASS_VARIANTS}")
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
        pooled = self.backbone.pool(features).float()
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

    def top1(self, image: Tensor) -> dict[str, Tensor]:
        """The prediction of the highest-scoring pixel (§3.4, end), as NetSpec names it.

        With `winners` above 1 the mean of that many best pixels. Hop 2 runs at those alone, and
        where they are few the part encoder too. This is the exported graph.
        """
        features = self.backbone(image)
        pooled = self.backbone.pool(features)
        betas, base_rotation, camera_scale = self.global_head(pooled)
        keypoint, class_, part_points = self.pixel_head.branches(self.features(features))
        height, width = keypoint.shape[-2:]
        logits = self.pixel_head.score_map(class_, part_points).flatten(1)
        scores, best = logits.topk(self.config.winners, dim=1)
        points = gather_pixels(part_points.flatten(2, 3), best)  # [B, k, P, 2]
        if self.config.winners < FEW_WINNERS:
            pixel_xy = torch.stack([best % width, best // width], dim=-1).float()
            parts, reference = self.pixel_head.encode_at(keypoint, points, pixel_xy)
        else:
            parts, reference = self.pixel_head.encode_dense(keypoint, points, best)
        told = self.pixel_head.predict(parts, reference, points, (height, width), pooled)
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
