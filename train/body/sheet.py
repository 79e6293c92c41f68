"""Draw a body to look at it: `python -m train.body.sheet glnet_rt/assets/body.npz sheet.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.out.raster import rasterize, vertex_normals
from glnet_rt.skeleton import NUM_JOINTS, SMPL_JOINTS

CELL = (360, 480)  # width, height, px
PX_PER_M = 230.0
CAMERA_M = 10.0
_LIGHT = np.array([0.35, -0.5, -0.8]) / np.linalg.norm([0.35, -0.5, -0.8])

Pose = dict[str, tuple[float, float, float]]  # joint -> rotation vector, degrees
BENDS: dict[str, Pose] = {
    "arms down": {"left_shoulder": (0, 0, -75), "right_shoulder": (0, 0, 75)},
    "arms up": {"left_shoulder": (0, 0, 75), "right_shoulder": (0, 0, -75)},
    "elbows": {"left_elbow": (0, -130, 0), "right_elbow": (0, 90, 0)},
    "arms forward": {"left_shoulder": (0, -85, 0), "right_shoulder": (0, 85, 0)},
    "sit": {"left_hip": (-90, 0, 5), "right_hip": (-90, 0, -5), "left_knee": (95, 0, 0),
            "right_knee": (95, 0, 0), "left_shoulder": (0, 0, -65), "right_shoulder": (0, 0, 65)},
    "lunge": {"left_hip": (-80, 0, 0), "left_knee": (80, 0, 0), "right_hip": (25, 0, 0),
              "right_knee": (50, 0, 0), "left_shoulder": (20, 0, -70),
              "right_shoulder": (-40, 0, 70), "right_elbow": (0, 70, 0)},
    "bow": {"spine1": (30, 0, 0), "spine2": (30, 0, 0), "spine3": (20, 0, 0), "neck": (20, 0, 0),
            "left_shoulder": (0, 0, -75), "right_shoulder": (0, 0, 75)},
}  # fmt: skip


def draw(vertices: Array, faces: Array, yaw_deg: float = 0.0, zoom: float = 1.0) -> Array:
    """[480, 360, 3] uint8: a distant view of one [V, 3] body from the front, turned by yaw."""
    width, height = CELL
    yaw = np.radians(yaw_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    seen = (vertices @ turn.T * [1, -1, -1]).astype(np.float32)
    middle = 0.5 * (seen.max(0) + seen.min(0))
    seen -= middle
    xy = (seen[:, :2] * PX_PER_M * zoom + [(width - 1) / 2, (height - 1) / 2]).astype(np.float32)
    zbuffer = np.zeros((height, width), np.float32)
    face_id = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 2), np.float32)
    rasterize(faces, xy, seen[:, 2] + np.float32(CAMERA_M), zbuffer, face_id, bary)
    normals = vertex_normals(seen, faces)
    hit = face_id >= 0
    corners = normals[faces[face_id[hit]]]
    w = bary[hit]
    normal = (
        corners[:, 0] * (1 - w.sum(1, keepdims=True))
        + corners[:, 1] * w[:, :1]
        + corners[:, 2] * w[:, 1:]
    )
    image = np.full((height, width, 3), 255, np.uint8)
    shade = 0.35 + 0.65 * np.clip(normal @ _LIGHT, 0, 1)
    image[hit] = (shade[:, None] * [190, 205, 235]).astype(np.uint8)
    return image


def sheet(body: BodyModel) -> Array:
    """Rest pose from four sides, each beta at +-2.5, bends from two sides."""
    rest = np.zeros((1, NUM_JOINTS, 3), np.float32)

    def shaped(betas: Array) -> Array:
        return body(betas[None], rest).vertices[0]

    zero = np.zeros(body.num_betas, np.float32)
    rows = [[draw(shaped(zero), body.faces, yaw) for yaw in (0, 45, 90, 180)]]
    for sign in (-2.5, 2.5):
        units = sign * np.eye(body.num_betas, dtype=np.float32)[:10]
        rows.append([draw(shaped(unit), body.faces, 20) for unit in units])
    for yaw in (20, 80):
        rows.append([draw(_bend(body, pose), body.faces, yaw) for pose in BENDS.values()])
    width = max(len(row) for row in rows)
    blank = np.full((CELL[1], CELL[0], 3), 255, np.uint8)
    return np.vstack([np.hstack(row + [blank] * (width - len(row))) for row in rows])


def _bend(body: BodyModel, pose: Pose) -> Array:
    rotvecs = np.zeros((1, NUM_JOINTS, 3), np.float32)
    for joint, degrees in pose.items():
        rotvecs[0, SMPL_JOINTS.index(joint)] = np.radians(degrees)
    return body(np.zeros((1, 0), np.float32), rotvecs).vertices[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.body.sheet", description=__doc__)
    parser.add_argument("body", type=Path)
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    cv2.imwrite(str(args.picture), sheet(BodyModel.load(args.body)))


if __name__ == "__main__":
    main()
