"""How alike two sightings of people are, by box and by pose. Keypoints are [K, 2], image px."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array

_MARGIN = 0.04  # of the keypoints' extent, each side: flesh, hair and shoes lie outside of them


def keypoint_box(keypoints: Array) -> Array:
    """[4] float64, edges in px, of the person whose keypoints these are."""
    low, high = keypoints.min(0).astype(np.float64), keypoints.max(0).astype(np.float64)
    margin = _MARGIN * float((high - low).max())
    # Pixel centres lie on integers, edges half a pixel further.
    return np.concatenate([low - margin + 0.5, high + margin + 0.5])


def pose_distance(first: Array, second: Array) -> Array:
    """[N, K, 2] and [M, K, 2] -> [N, M]: mean distance of the keypoints over the person's size.

    The size is the geometric mean of the longer sides of both extents.
    """
    apart = np.linalg.norm(first[:, None] - second[None], axis=-1).mean(-1)
    size = np.sqrt(person_size(first)[:, None] * person_size(second)[None])
    return np.asarray(apart / np.maximum(size, 1e-6))


def person_size(keypoints: Array) -> Array:
    """[N, K, 2] -> [N] px, the longer side of the keypoints' extent."""
    return np.asarray((keypoints.max(1) - keypoints.min(1)).max(-1))
