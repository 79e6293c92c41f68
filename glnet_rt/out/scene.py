"""What all outputs share: a colour per person, one depth scale for all, y up for viewers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glnet_rt.contracts import Array, Person

# Okabe and Ito's colours, told apart by colour-blind eyes too; RGB.
PALETTE_RGB = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)

# Camera frame (x right, y down, z forward) -> viewers' frame (x right, y up, z towards the viewer).
# A half turn about x: triangles keep their winding.
YUP_FROM_CAMERA = np.diag([1.0, -1.0, -1.0]).astype(np.float32)


def color_rgb(index: int) -> tuple[int, int, int]:
    """The colour of person `index`; the palette repeats."""
    return PALETTE_RGB[index % len(PALETTE_RGB)]


def shared_depth_shift(people: Sequence[Person]) -> Array:
    """Metres to push each person back so that depths compare between people.

    With an unknown lens each person is seen by a virtual camera of its own, whose focal length
    grows with the person's box: a figure far away and one close by both stand some metres in front
    of *their* camera. Through the longest of these lenses the same picture is seen when each stands
    at depth * f_longest / f_own. With one known lens for all, nothing moves.

    Returns:
        [N] float64, m, >= 0, along z.
    """
    if not people:
        return np.zeros(0)
    focal = np.array([np.sqrt(p.K[0, 0] * p.K[1, 1]) for p in people])
    pelvis_z = np.array([float(p.joints[0, 2]) for p in people])
    return np.asarray(np.maximum(pelvis_z, 0.0) * (focal.max() / focal - 1.0))


def place_yup(person: Person, depth_shift: float = 0.0) -> Array:
    """[V, 3] float32, m: the person's vertices for a viewer, y up."""
    shift = np.array([0.0, 0.0, depth_shift], np.float32)
    return np.ascontiguousarray((person.vertices + shift) @ YUP_FROM_CAMERA.T)
