"""People made of spheres, for the tests of what becomes of results."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array, Person, Result
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS

SIZE = (160, 120)
LENS = np.array([[150.0, 0, 80.0], [0, 155.0, 60.0], [0, 0, 1]])


def sphere(rings: int = 12, sectors: int = 16, radius: float = 0.3) -> tuple[Array, Array]:
    """A closed sphere around the origin: [V, 3] float32, and [F, 3] int32 seen from outside."""
    polar = np.linspace(0, np.pi, rings + 1)[1:-1, None]
    around = np.linspace(0, 2 * np.pi, sectors, endpoint=False)[None]
    grid = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around),
         np.cos(polar) + 0 * around], -1,
    ).reshape(-1, 3)  # fmt: skip
    vertices = np.concatenate([[[0, 0, 1]], grid, [[0, 0, -1]]]) * radius
    last = len(vertices) - 1
    faces = []
    for s in range(sectors):
        t = (s + 1) % sectors
        faces.append((0, 1 + s, 1 + t))
        for r in range(rings - 2):
            a, b = 1 + r * sectors + s, 1 + r * sectors + t
            faces += [(a, a + sectors, b + sectors), (a, b + sectors, b)]
        low = 1 + (rings - 2) * sectors
        faces.append((low + s, last, low + t))
    return vertices.astype(np.float32), np.array(faces, np.int32)


def person_at(
    center: tuple[float, float, float],
    *,
    vertices: Array | None = None,
    K: Array = LENS,
    seed: int = 0,
    track_id: int | None = None,
) -> Person:
    """A ball-shaped person whose pelvis is at `center`, m; everything else is random but valid."""
    rng = np.random.default_rng(seed)
    shape = sphere()[0] if vertices is None else vertices
    joints = (rng.normal(0, 0.2, (NUM_JOINTS, 3)) + center).astype(np.float32)
    joints[0] = center
    rotations = rotvec_to_rotmat(rng.normal(0, 0.7, (NUM_JOINTS, 3))).astype(np.float32)
    return Person(
        vertices=(shape + np.array(center, np.float32)).astype(np.float32),
        joints=joints,
        keypoints_px=rng.uniform(0, 120, (NUM_KEYPOINTS, 2)).astype(np.float32),
        global_orient=rotations[0],
        body_pose=rotations[1:],
        betas=rng.normal(0, 1, 10).astype(np.float32),
        transl=rng.normal(0, 1, 3).astype(np.float32),
        bbox_xyxy=np.array([1, 2, 30, 40], np.float32),
        score=float(rng.uniform()),
        K=K,
        track_id=track_id,
    )


def result_of(*people: Person, size: tuple[int, int] = SIZE, frame_id: int = 0) -> Result:
    return Result(
        people=people,
        frame_id=frame_id,
        timestamp_ns=frame_id * 40_000_000,
        image_size=size,
        faces=sphere()[1],
    )
