"""What fixes a GLNet's shape, and the presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from glnet_rt.skeleton import NUM_JOINTS, NUM_TWISTS
from glnet_rt.spec import NetSpec
from train.model.hrnet import HRNET_PRESETS, HRNetConfig

PRESETS = tuple(HRNET_PRESETS)
CLASS_VARIANTS = ("local", "pixel")
REFINABLE = ("rotation", "shape", "camera")
# Of a joint; further, and errors of keypoints are taken over (docs/training.md).
FIT_PRIOR_RAD = 0.05


@dataclass(frozen=True)
class GLNetConfig:
    """Everything that fixes the network's shape.

    Attributes:
        spec: input and output contract, shared with the run time.
        backbone: HRNet's shape.
        branch_channels: width of the keypoint branch, and of the class branch if that has none of
            its own (256 in the paper's ancestors).
        class_channels: width of the class branch; 0 takes `branch_channels`. The score map is the
            one thing that run time needs of every pixel, so width costs most here.
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
    class_channels: int = 0
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
    """The configuration of `tiny`, `w32` or `w48`; `spec_fields` override the NetSpec.

    All score pixels by a class branch of their own, 64 channels wide, which lets run time compute
    the rest at the winners; `as_in_the_paper` gives what §3.3 describes.
    """
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
    backbone = HRNET_PRESETS[name]
    return GLNetConfig(spec, backbone, class_variant="pixel", class_channels=64)


def as_in_the_paper(config: GLNetConfig) -> GLNetConfig:
    """With pixels scored by the class branch's features at their part points (§3.3)."""
    return dataclasses.replace(config, class_variant="local", class_channels=0)
