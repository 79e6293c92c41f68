"""From a labelled picture to an augmented crop (GLNet §4.1): flip, turn, scale, shift, colour.

Labels follow the pixels exactly: a turn about the optical axis turns the body's root with it, a
mirror swaps left and right in keypoints, rotations and twists.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from glnet_rt.camera import fit_camera_scale
from glnet_rt.contracts import Array
from glnet_rt.rotation import flip_rotmat, rotmat_to_rot6d
from glnet_rt.skeleton import FLIP_JOINTS, FLIP_KEYPOINTS, FLIP_TWISTS, NUM_JOINTS
from glnet_rt.spec import NetSpec
from train.data.sample import CropSample, Sample


@dataclass(frozen=True)
class AugmentConfig:
    """How far crops stray from the person's box.

    Attributes:
        flip: probability of a mirror image.
        rotation_deg: largest turn.
        scale: smallest and largest factor on the crop's side.
        shift: largest offset of the crop, in crop sides.
        colour: strength of brightness, contrast and per-channel gain.
        grey: probability of a grey picture.
        noise: largest standard deviation of added noise, of 255.
        outside_weight: weight of keypoints outside the crop; guessed, but needed for a whole body.
    """

    flip: float = 0.5
    rotation_deg: float = 30.0
    scale: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.06
    colour: float = 0.25
    grey: float = 0.1
    noise: float = 8.0
    outside_weight: float = 0.3


NO_AUGMENTATION = AugmentConfig(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CropTransform:
    """A drawn similarity from picture uv to crop uv: mirror, then shift, scale, turn."""

    flip: bool
    angle: float
    side: float
    center_uv: Array

    @classmethod
    def draw(
        cls, rng: np.random.Generator, config: AugmentConfig, crop_side: float
    ) -> CropTransform:
        # A strong turn on every crop would make upright people rare.
        angle = rng.normal(0.0, 0.3) * np.deg2rad(config.rotation_deg)
        limit = np.deg2rad(config.rotation_deg)
        side = crop_side * rng.uniform(*config.scale)
        return cls(
            flip=bool(rng.random() < config.flip),
            angle=float(np.clip(angle, -limit, limit)),
            side=side,
            center_uv=rng.uniform(-1, 1, 2) * config.shift * side,
        )

    @property
    def turn(self) -> Array:
        """[2, 2] float64, crop axes from picture axes; y down, so a positive angle is clockwise."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, -s], [s, c]])

    def uv(self, uv: Array) -> Array:
        """Picture uv [..., 2] (already mirrored) -> crop uv."""
        return (uv - self.center_uv) @ self.turn.T / self.side

    def affine(self, picture_px: int, crop_px: int) -> Array:
        """[2, 3] float64, picture px -> crop px, pixel centres on integers, mirror included."""
        mirror = np.diag([-1.0 if self.flip else 1.0, 1.0])
        linear = self.turn @ mirror * (crop_px / (picture_px * self.side))
        # The picture's centre in uv is 0; its pixel coordinate is R / 2 - 0.5 on both sides.
        offset = -self.turn @ self.center_uv / self.side * crop_px
        middle = np.full(2, picture_px / 2 - 0.5)
        return np.column_stack([linear, offset + crop_px / 2 - 0.5 - linear @ middle])


def make_crop(
    sample: Sample, spec: NetSpec, config: AugmentConfig, rng: np.random.Generator
) -> CropSample:
    """Draw an augmentation and apply it to pixels and labels."""
    transform = CropTransform.draw(rng, config, sample.crop_side)
    pixels = warp(sample.image, transform, spec.input_size)
    pixels = jitter(pixels, config, rng)
    labels = flipped(sample) if transform.flip else sample
    uv = transform.uv(labels.uv).astype(np.float32)
    roll = np.eye(3)
    roll[:2, :2] = transform.turn
    xyz = (labels.xyz @ roll.T).astype(np.float32)
    rotmats = labels.rotmats.copy()
    rotmats[0] = roll @ rotmats[0]
    # Keypoints far outside (a leg behind the camera) must not dominate the loss.
    uv = uv.clip(-1.5, 1.5)
    inside = labels.labelled * (np.abs(uv) <= 0.5).all(-1)
    weight = labels.labelled * np.where(inside > 0, 1.0, config.outside_weight)
    scale = camera_scale(uv, xyz, labels.located * (inside + 0.05), spec)
    return CropSample(
        image=normalise(pixels, spec),
        keypoints_uvd=np.concatenate([uv, xyz[:, 2:] / spec.depth_range_m], 1).astype(np.float32),
        uv_weight=weight.astype(np.float32),
        depth_weight=(weight * labels.located).astype(np.float32),
        seen=(labels.seen * inside).astype(np.float32),
        inside=inside.astype(np.float32),
        xyz=xyz,
        rotmats=rotmats.astype(np.float32),
        rot6d=rotmat_to_rot6d(rotmats).reshape(-1).astype(np.float32),
        twist=labels.twist.astype(np.float32),
        betas=labels.betas.astype(np.float32),
        camera_scale=np.float32(scale or 1.0),
        has_scale=np.float32(scale is not None),
        has_rotation=labels.has_rotation.astype(np.float32),
        has_betas=np.float32(labels.has_betas),
        surface=warp_surface(labels.surface, transform, spec.input_size // 4),
        has_surface=np.float32(labels.surface is not None),
    )


def camera_scale(uv: Array, xyz: Array, trust: Array, spec: NetSpec) -> float | None:
    """The scale that explains the joints' positions in the crop; None where they do not tell.

    Args:
        uv: [36, 2]. xyz: [36, 3] m. trust: [36], >= 0; without the pelvis' own there is no scale.
    """
    joints = slice(0, NUM_JOINTS)
    if trust[0] <= 0 or np.count_nonzero(trust[joints]) < 3:
        return None
    fitted = fit_camera_scale(
        uv[None, joints], xyz[None, joints], np.zeros((1, 2)), spec.focal, trust[None, joints]
    )
    return float(fitted[0])


def flipped(sample: Sample) -> Sample:
    """The labels of the mirror image; `image` is left to the warp."""
    keypoints, joints, twists = list(FLIP_KEYPOINTS), list(FLIP_JOINTS), list(FLIP_TWISTS)
    return Sample(
        image=sample.image,
        crop_side=sample.crop_side,
        uv=sample.uv[keypoints] * np.array([-1, 1], np.float32),
        labelled=sample.labelled[keypoints],
        seen=sample.seen[keypoints],
        xyz=sample.xyz[keypoints] * np.array([-1, 1, 1], np.float32),
        located=sample.located[keypoints],
        rotmats=flip_rotmat(sample.rotmats[joints]),
        twist=sample.twist[twists] * np.array([1, -1], np.float32),
        betas=sample.betas,
        has_rotation=sample.has_rotation[joints],
        has_betas=sample.has_betas,
        surface=sample.surface,
    )


def warp(image: Array, transform: CropTransform, size: int) -> Array:
    """[R, R, 3] uint8 -> [S, S, 3] uint8; black outside, as the run time crops."""
    affine = transform.affine(image.shape[0], size)
    return cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR)


def warp_surface(surface: Array | None, transform: CropTransform, size: int) -> Array:
    """[r, r, 4] int8 cm -> [5, h, h] float32: mask, rest x, y, z, depth in m; see `CropSample`."""
    if surface is None:
        return np.zeros((5, size, size), np.float32)
    affine = transform.affine(surface.shape[0], size)
    # Nearest: the middle between two limbs is no point of the body.
    found = cv2.warpAffine(
        surface.astype(np.float32), affine, (size, size), flags=cv2.INTER_NEAREST,
        borderValue=(-128.0,) * 4,
    )  # fmt: skip
    mask = (found[..., 3] > -128).astype(np.float32)
    metres = found.transpose(2, 0, 1) * (0.01 * mask)
    if transform.flip:
        metres[0] *= -1
    return np.concatenate([mask[None], metres]).astype(np.float32)


def jitter(pixels: Array, config: AugmentConfig, rng: np.random.Generator) -> Array:
    """Colour, grey and noise on [S, S, 3] uint8."""
    if config.colour:
        gain = 1 + config.colour * rng.uniform(-1, 1) + 0.3 * config.colour * rng.uniform(-1, 1, 3)
        bias = 255 * 0.3 * config.colour * rng.uniform(-1, 1)
        table = np.arange(256)[:, None] * gain + bias
        table = table.clip(0, 255).astype(np.uint8)
        pixels = cv2.LUT(pixels, table.reshape(1, 256, 3))
    if rng.random() < config.grey:
        pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if config.noise and rng.random() < 0.3:
        sigma = rng.uniform(0, config.noise)
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(sigma)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return pixels


def normalise(pixels: Array, spec: NetSpec) -> Array:
    """[S, S, 3] uint8 RGB -> [3, S, S] float32."""
    scale = (1 / (255 * np.array(spec.std))).astype(np.float32)
    offset = (-np.array(spec.mean) / np.array(spec.std)).astype(np.float32)
    return np.ascontiguousarray((pixels * scale + offset).transpose(2, 0, 1))
