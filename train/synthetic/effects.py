"""What a camera does to a picture: exposure, casts, blur, low resolution, noise, JPEG, grey."""

from __future__ import annotations

import cv2
import numpy as np

from glnet_rt.contracts import Array

Rng = np.random.Generator

GREY_SHARE = 0.10


def develop(rng: Rng, rgb: Array) -> tuple[Array, bool]:
    """Linear exposure to a finished picture.

    Args:
        rgb: [R, R, 3] float32 sRGB, nominally in [0, 1]; overwritten.

    Returns:
        [R, R, 3] uint8 RGB, and whether it is grey.
    """
    _expose(rng, rgb)
    grey = bool(rng.random() < GREY_SHARE)
    if grey:
        rgb[:] = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None]
    rgb = _soften(rng, rgb)
    if rng.random() < 0.55:
        rgb = _add_noise(rng, rgb, grey)
    image = cv2.convertScaleAbs(np.clip(rgb, 0, 1, out=rgb), alpha=255.0)
    if rng.random() < 0.35:
        image = _compress(rng, image)
    return image, grey


def _expose(rng: Rng, rgb: Array) -> None:
    """Exposure about the picture's own brightness, contrast, gamma and a colour cast, in place."""
    mean = float(rgb.mean())
    target = min(max(rng.normal(0.43, 0.09), 0.2), 0.7)
    gain = (target / max(mean, 0.05)) ** 0.75 * np.exp(rng.normal(0, 0.10))
    if rng.random() < 0.12:  # far too dark or too bright
        gain *= rng.choice((0.4, 0.5, 0.65, 1.5, 1.9, 2.2))
    cast = 1 + rng.normal(0, 0.05, 3) * (2.5 if rng.random() < 0.15 else 1.0)
    rgb *= (gain * cast).astype(np.float32)
    if rng.random() < 0.25:
        _shade_unevenly(rng, rgb)
    if rng.random() < 0.5:  # a film-like shoulder instead of hard clipping
        np.minimum(rgb, 1.6, out=rgb)
        rgb *= 1.15 - 0.24 * rgb
    if rng.random() < 0.3:  # fog or a faded print
        haze = rng.uniform(0.02, 0.25)
        rgb *= np.float32(1 - haze)
        rgb += np.float32(haze * rng.uniform(0.4, 0.9))
    np.clip(rgb, 0, 1, out=rgb)
    if rng.random() < 0.4:  # an S-shaped curve: deeper shadows, brighter lights
        share = np.float32(rng.uniform(0.2, 1.0))
        rgb += share * (rgb * rgb * (3 - 2 * rgb) - rgb)
    if rng.random() < 0.4:
        np.power(rgb, np.float32(np.exp(rng.normal(0, 0.22))), out=rgb)


def _shade_unevenly(rng: Rng, rgb: Array) -> None:
    """Light that falls off across the picture or towards its corners, in place."""
    line = np.linspace(-1, 1, rgb.shape[0], dtype=np.float32)
    if rng.random() < 0.5:
        slope = rng.normal(0, 0.25, 2).astype(np.float32)
        field = 1 + slope[0] * line[None, :] + slope[1] * line[:, None]
    else:
        field = 1 - np.float32(rng.uniform(0.05, 0.3)) * (line[None, :] ** 2 + line[:, None] ** 2)
    rgb *= np.maximum(field, 0.2)[..., None]


def _soften(rng: Rng, rgb: Array) -> Array:
    """The lens' own blur nearly always; motion, defocus or few pixels now and then."""
    size = rgb.shape[0]
    kind = rng.random()
    if kind < 0.14:
        small = max(24, int(size * rng.uniform(0.25, 0.75)))
        rgb = cv2.resize(rgb, (small, small), interpolation=cv2.INTER_AREA)
        how = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[
            rng.choice(3, p=(0.6, 0.3, 0.1))
        ]
        return cv2.resize(rgb, (size, size), interpolation=how)
    if kind < 0.22:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        middle, reach = (
            (length - 1) / 2,
            (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)]),
        )
        ends = np.rint([middle - reach, middle + reach]).astype(int)
        cv2.line(kernel, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1.0)
        return cv2.filter2D(rgb, -1, kernel / kernel.sum())
    sigma = rng.uniform(0.3, 0.75) if kind < 0.85 else rng.uniform(0.8, 2.2)
    rgb = cv2.GaussianBlur(rgb, (0, 0), sigma)
    if rng.random() < 0.15:  # sharpening halos
        rgb += np.float32(rng.uniform(0.3, 1.0)) * (rgb - cv2.GaussianBlur(rgb, (0, 0), 1.5))
    return rgb


def _add_noise(rng: Rng, rgb: Array, grey: bool) -> Array:
    shape = (*rgb.shape[:2], 1) if grey or rng.random() < 0.3 else rgb.shape
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(0.045 * rng.beta(1.0, 2.5))
    return rgb + noise


def _compress(rng: Rng, image: Array) -> Array:
    quality = int(rng.integers(22, 92))
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
