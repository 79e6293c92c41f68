"""What every data set yields: typed samples, with masks for what it labels, and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from glnet_rt.contracts import Array
from glnet_rt.skeleton import NUM_JOINTS


@dataclass(frozen=True)
class Sample:
    """One person in one square picture, before augmentation.

    Camera frame: x right, y down, z forward.

    Attributes:
        image: [R, R, 3] uint8, RGB; the square picture.
        crop_side: side of the network's crop (box times 1.25) over the picture's side.
        uv: [36, 2] float32, keypoints in the picture, [-0.5, 0.5].
        labelled: [36] float32, 1 where `uv` is known.
        seen: [36] float32, 1 where the keypoint is inside the image and not hidden.
        xyz: [36, 3] float32, m, relative to the pelvis; its z is the keypoint's depth.
        located: [36] float32, 1 where `xyz` is a label.
        rotmats: [24, 3, 3] float32, local; index 0 is camera from body.
        twist: [23, 2] float32, (cos, sin).
        betas: [10] float32.
        has_rotation: [24] float32, 1 where a joint's rotation, and the twist it holds, is a label.
        has_betas: 1.0 where betas are a label.
        surface: [r, r, 4] int8, rest x, y, z and depth behind the pelvis, cm, of what each coarse
            pixel of the picture shows of the person, -128 elsewhere; None where not known.
    """

    image: Array
    crop_side: float
    uv: Array
    labelled: Array
    seen: Array
    xyz: Array
    located: Array
    rotmats: Array
    twist: Array
    betas: Array
    has_rotation: Array = field(default_factory=lambda: np.ones(NUM_JOINTS, np.float32))
    has_betas: float = 1.0
    surface: Array | None = None


@dataclass(frozen=True)
class CropSample:
    """One augmented crop as the loss reads it; `Batch` is the same, stacked.

    Attributes:
        image: [3, S, S] float32, RGB, normalised.
        keypoints_uvd: [36, 3] float32, u, v in the crop, depth in units of the depth range.
        uv_weight, depth_weight: [36] float32, weight of each keypoint's loss.
        seen: [36] float32, keypoints that count in the matching cost.
        inside: [36] float32, labelled and inside the crop.
        xyz: [36, 3] float32, m, relative to the pelvis, turned and mirrored with the crop.
        rotmats: [24, 3, 3]. rot6d: [144]. twist: [23, 2]. betas: [10]. All float32.
        camera_scale: float32, crop widths per metre at the pelvis.
        has_scale: 1.0 where `camera_scale` is a label.
        has_rotation: [24] float32, 1 where rotmats, rot6d and twist of a joint are labels.
        has_betas: 1.0 where `betas` is a label.
        surface: [5, S/4, S/4] float32: 1 where a grid pixel shows the person, then rest x, y, z and
            depth behind the pelvis there, m; zero elsewhere.
        has_surface: 1.0 where `surface` is a label.
    """

    image: Array
    keypoints_uvd: Array
    uv_weight: Array
    depth_weight: Array
    seen: Array
    inside: Array
    xyz: Array
    rotmats: Array
    rot6d: Array
    twist: Array
    betas: Array
    camera_scale: Array
    has_scale: Array
    has_rotation: Array
    has_betas: Array
    surface: Array
    has_surface: Array


@dataclass(frozen=True)
class Batch:
    """`CropSample`s stacked along a first axis, as tensors. Same names, same meaning."""

    image: Tensor
    keypoints_uvd: Tensor
    uv_weight: Tensor
    depth_weight: Tensor
    seen: Tensor
    inside: Tensor
    xyz: Tensor
    rotmats: Tensor
    rot6d: Tensor
    twist: Tensor
    betas: Tensor
    camera_scale: Tensor
    has_scale: Tensor
    has_rotation: Tensor
    has_betas: Tensor
    surface: Tensor
    has_surface: Tensor

    @classmethod
    def stack(cls, samples: Sequence[CropSample]) -> Batch:
        """Stack crops of one size."""
        names = [f.name for f in dataclasses.fields(CropSample)]
        return cls(
            **{n: torch.from_numpy(np.stack([getattr(s, n) for s in samples])) for n in names}
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        values = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return Batch(**values)
