"""Joints and keypoints as weighted means of vertices."""

from __future__ import annotations

import numpy as np

from glnet_rt.body_file import coco_hip_row
from glnet_rt.contracts import Array
from glnet_rt.skeleton import COCO_ONLY, FLIP_JOINTS, H36M_17, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS

CANDIDATES = 1200  # nearest vertices a joint may lean on


def fit_joint_regressor(
    shape_basis: Array, joint_basis: Array, lbs_weights: Array, mirror: Array
) -> Array:
    """Non-negative weights that give the joints of every shape, not of the mean shape alone.

    Both sides are linear in the betas, so the fit needs their bases only: per joint, 3 (n + 1)
    equations, in mm, for the mean and one standard deviation of each beta.

    Args:
        shape_basis: [V, 3, n + 1], m: v_template and shapedirs.
        joint_basis: [24, 3, n + 1], m: the wanted joints in the same form.
        lbs_weights: [V, 24]. mirror: [V].
    Returns:
        [24, V] float64, rows >= 0 that sum to 1, right joints the mirror image of the left.
    """
    from scipy.optimize import nnls

    regressor = np.zeros((NUM_JOINTS, len(shape_basis)))
    for j in range(NUM_JOINTS):
        if FLIP_JOINTS[j] < j:
            regressor[j] = regressor[FLIP_JOINTS[j]][mirror]
            continue
        near = _candidates(j, shape_basis[:, :, 0], joint_basis[j, :, 0], lbs_weights)
        A = shape_basis[near].reshape(len(near), -1).T * 1000.0
        b = joint_basis[j].reshape(-1) * 1000.0
        A = np.vstack([A, np.full((1, len(near)), 1e4), np.eye(len(near))])
        weights, _ = nnls(A, np.concatenate([b, [1e4], np.zeros(len(near))]))
        regressor[j, near] = weights
        if FLIP_JOINTS[j] == j:
            regressor[j] = 0.5 * (regressor[j] + regressor[j][mirror])
        regressor[j] /= regressor[j].sum()
    return regressor


def _candidates(j: int, template: Array, joint: Array, lbs_weights: Array) -> Array:
    """The nearest vertices among those the joint, its parent or its children move."""
    family = [j, *(k for k in range(NUM_JOINTS) if SMPL_PARENTS[k] == j)]
    if j > 0:
        family.append(SMPL_PARENTS[j])
    distance = np.linalg.norm(template - joint, axis=1)
    distance[lbs_weights[:, family].sum(1) < 0.3] = np.inf
    order = np.argsort(distance, kind="stable")[:CANDIDATES]
    return order[np.isfinite(distance[order])]


def coco_regressor(joint_rows: Array, landmarks: dict[str, Array]) -> Array:
    """[7, V] rows of `COCO_ONLY`; `landmarks` gives the vertices whose mean is each face point."""
    rows = np.zeros((len(COCO_ONLY), joint_rows.shape[1]))
    for row, name in zip(rows, COCO_ONLY, strict=True):
        if name.endswith("_coco_hip"):
            row[:] = coco_hip_row(joint_rows, name.split("_")[0])
        else:
            row[landmarks[name]] = 1.0 / len(landmarks[name])
    return rows


def h36m_regressor(joint_rows: Array, coco_rows: Array, head_top: int) -> Array:
    """[17, V] rows in the manner of Human3.6M's marker skeleton, built from the joints.

    Its hips are wide (half-way to COCO's), its spine lies between spine1 and spine2, its neck at
    the base of the neck, its jaw half-way from the head joint to the nose, its head in the skull
    below the crown.
    """
    at = {name: joint_rows[i] for i, name in enumerate(SMPL_JOINTS)}
    top = np.zeros(joint_rows.shape[1])
    top[head_top] = 1.0
    nose = coco_rows[COCO_ONLY.index("nose")]
    rows = {
        **at,
        **{
            f"{s}_hip": 0.5 * (at[f"{s}_hip"] + coco_rows[COCO_ONLY.index(f"{s}_coco_hip")])
            for s in ("left", "right")
        },
        "spine": 0.5 * (at["spine1"] + at["spine2"]),
        "neck_nose": at["neck"],
        "jaw": 0.5 * (at["head"] + nose),
        "head": 0.8 * top + 0.2 * at["head"],
    }
    rows["pelvis"] = 0.5 * (rows["left_hip"] + rows["right_hip"])
    return np.stack([rows[name] for name in H36M_17])
