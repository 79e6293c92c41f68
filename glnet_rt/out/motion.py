"""From a sequence of results to one GLB: people who move where that is known, else who stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Person, Result
from glnet_rt.out.glb import BodyMotion, write_animated_glb, write_glb
from glnet_rt.out.scene import shared_depth_shift
from glnet_rt.skeleton import NUM_JOINTS


class MotionRecorder:
    """Collects results and writes them as one GLB.

    Where every frame has the same number of people, person i is taken to be the same one from frame
    to frame (the same row of the boxes), and each becomes a skinned mesh that moves. Where the
    number changes, nothing says who is who: the first frame with people is written, standing still.
    A single frame is written still as well, since a still mesh has all its pose detail.
    """

    def __init__(self) -> None:
        self._first: Result | None = None
        self._counts: set[int] = set()
        self._times_ns: list[int] = []
        self._frames: list[list[_Pose]] = []

    def add(self, result: Result) -> None:
        """Append one frame. Of its arrays only the pose is kept."""
        if self._first is None and result.people:
            self._first = result
        self._counts.add(len(result.people))
        shifts = shared_depth_shift(result.people)
        self._times_ns.append(result.timestamp_ns)
        self._frames.append(
            [
                _Pose(person, float(shift))
                for person, shift in zip(result.people, shifts, strict=True)
            ]
        )

    @property
    def moves(self) -> bool:
        """Whether `save` writes an animation."""
        return len(self._frames) > 1 and len(self._counts) == 1 and self._first is not None

    def save(self, path: str | Path, body: BodyModel) -> Path | None:
        """Write the GLB; None, and no file, where nobody was seen.

        Args:
            path: where to write.
            body: whose shapes and poses the results hold.
        """
        if self._first is None:
            return None
        if not self.moves:
            return write_glb(self._first, path)
        times_s = (np.array(self._times_ns) - self._times_ns[0]) / 1e9
        people = [list(poses) for poses in zip(*self._frames, strict=True)]
        motions = [_motion(poses, body) for poses in people]
        return write_animated_glb(motions, body.faces, times_s, path)


class _Pose:
    """What a moving mesh needs of one person in one frame."""

    def __init__(self, person: Person, depth_shift: float) -> None:
        self.betas = person.betas
        self.global_orient = person.global_orient
        self.body_pose = person.body_pose
        self.pelvis = person.joints[0] + np.array([0.0, 0.0, depth_shift], np.float32)


def _motion(poses: list[_Pose], body: BodyModel) -> BodyMotion:
    """One person's poses on the mean of the shapes seen."""
    betas = np.array([pose.betas for pose in poses]).mean(0, keepdims=True, dtype=np.float64)
    betas = betas.astype(np.float32)
    upright = np.zeros((1, NUM_JOINTS, 3), np.float32)
    return BodyMotion(
        rest_vertices=body(betas, upright).vertices[0],
        rest_joints=np.ascontiguousarray(body.rest_skeleton(betas)[0, :NUM_JOINTS]),
        lbs_weights=body.lbs_weights,
        global_orient=np.array([pose.global_orient for pose in poses]),
        body_pose=np.array([pose.body_pose for pose in poses]),
        pelvis=np.array([pose.pelvis for pose in poses], np.float32),
    )
