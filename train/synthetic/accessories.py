"""What stands off the head: peaks and brims of hats, a ponytail, a bun. Rest pose, metres."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array
from train.synthetic.materials import HAIR, HAT
from train.synthetic.solids import ball, join, rod

ACCESSORY_NAMES = ("peak", "peak_behind", "brim", "wide_brim", "ponytail", "bun", "bun_low")
PEAKS_AND_BRIMS = ACCESSORY_NAMES[:4]
HAIR_STYLES = ACCESSORY_NAMES[4:]


def accessory(name: str) -> tuple[Array, Array, int]:
    """Vertices [V, 3], faces [F, 3] int32 and material, on the head of the mean shape."""
    if name in PEAKS_AND_BRIMS:
        reach = {"brim": 0.045, "wide_brim": 0.11}.get(name, 0.072)
        half_turn = np.pi if name.endswith("brim") else np.radians(68)
        facing = -1.0 if name == "peak_behind" else 1.0
        return (*_sheet(reach, half_turn, facing), HAT)
    if name == "ponytail":
        path = np.array([[0, 0.735, -0.05], [0, 0.73, -0.095], [0, 0.66, -0.125],
                         [0, 0.56, -0.13], [0, 0.46, -0.125]])  # fmt: skip
        radii = (0.022, 0.03, 0.034, 0.028, 0.008)
        pieces = [
            rod(path[i], path[i + 1], radii[i], HAIR, radii[i + 1]) for i in range(len(path) - 1)
        ]
        tail = join(*pieces)
        return tail.vertices, tail.faces, HAIR
    centre = (0, 0.80, -0.01) if name == "bun" else (0, 0.70, -0.085)
    bun = ball(centre, (0.042, 0.036, 0.04), HAIR)
    return bun.vertices, bun.faces, HAIR


def _sheet(reach: float, half_turn: float, facing: float) -> tuple[Array, Array]:
    """A thin sheet around the forehead, `reach` m wide in its middle, bent down a little."""
    angles = np.linspace(-half_turn, half_turn, 25)
    across, ahead = np.sin(angles), np.cos(angles)
    width = reach * np.where(half_turn > 3, 1.0, np.cos(angles * np.pi / 2 / half_turn) ** 0.6)
    rows = []
    for share in (0.0, 0.5, 1.0):
        out = share * width
        x, z = (0.086 + out) * across, facing * (0.1 + out) * ahead + 0.036
        y = 0.742 + 0.015 * facing * ahead - 0.012 - 0.25 * out * share
        rows.append(np.stack([x, y, z], 1))
    count = len(angles)
    faces = []
    for row in range(2):
        for k in range(count - 1):
            a, b = row * count + k, (row + 1) * count + k
            faces += [[a, b, b + 1], [a, b + 1, a + 1]]
    return np.concatenate(rows).astype(np.float32), np.array(faces, np.int32)
