"""Vertices with a meaning, found on MakeHuman's full mesh, so that the decimation keeps them."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.skeleton import LEAVES, SMPL_JOINTS
from train.body.makehuman import MakeHuman

NEAR_TIP_M = 0.025
EAR_RADIUS_M = 0.022


def find_landmarks(source: MakeHuman, t_vertices: Array) -> dict[str, int]:
    """Name -> vertex of the five leaves, the nose tip, the pupils and the ears' outmost points.

    Args:
        t_vertices: [N, 3] float64, m, the whole mesh in the T-pose.
    """
    body = source.groups["body"]
    head = body[source.lbs_weights[body, SMPL_JOINTS.index("head")] > 0.5]
    middle = head[source.mirror[head] == head]

    def furthest(among: Array, axis: int) -> int:
        return int(among[t_vertices[among, axis].argmax()])

    def tip(cube: str, axis: int) -> int:
        """Furthest along the axis, of the skin around the end of a finger or toe."""
        end = t_vertices[source.groups[cube]].mean(0)
        near = body[np.linalg.norm(t_vertices[body] - end, axis=1) < NEAR_TIP_M]
        return furthest(near, axis)

    left = {
        "left_fingertip": tip("joint-l-finger-3-4", 0),
        "left_toe": tip("joint-l-toe-1-3", 2),
        "left_eye": furthest(source.groups["helper-l-eye"], 2),
        "left_ear": furthest(head, 0),
    }
    right = {f"right_{name[5:]}": int(source.mirror[v]) for name, v in left.items()}
    return {"head_top": furthest(middle, 1), "nose": furthest(middle, 2), **left, **right}


def leaf_vertices(landmarks: dict[str, int], new_index: Array) -> Array:
    """[5] int64 leaves in the order of `skeleton.LEAVES`, in the new numbering."""
    return np.array([new_index[landmarks[name]] for name in LEAVES], np.int64)


def face_points(landmarks: dict[str, int], new_index: Array, v_template: Array) -> dict[str, Array]:
    """New vertex ids whose mean is each face keypoint; an ear is the mean of its outer shell."""
    points = {
        name: np.array([new_index[landmarks[name]]]) for name in ("nose", "left_eye", "right_eye")
    }
    for name in ("left_ear", "right_ear"):
        outmost = v_template[new_index[landmarks[name]]]
        near = np.linalg.norm(v_template - outmost, axis=1) < EAR_RADIUS_M
        points[name] = np.flatnonzero(near & (np.abs(v_template[:, 0]) > 0.85 * abs(outmost[0])))
    return points
