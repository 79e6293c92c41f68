"""Results as one `.npz` of plain arrays, readable without pickle; docs/cli.md lists its keys.

Rows are people: M of them over F frames, frame after frame and in the order of the boxes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._version import __version__
from glnet_rt.contracts import Array, Person, Result
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS

SCHEMA = 1
MAX_VERTEX_FRAMES = 64  # vertices are 80 kB a person; a longer sequence keeps parameters alone

# Per-person arrays: name -> shape of one row where it does not depend on the body, and dtype.
_ROWS: dict[str, tuple[tuple[int, ...], type]] = {
    "joints": ((NUM_JOINTS, 3), np.float32),
    "keypoints_px": ((NUM_KEYPOINTS, 2), np.float32),
    "global_orient": ((3, 3), np.float32),
    "body_pose": ((NUM_JOINTS - 1, 3, 3), np.float32),
    "transl": ((3,), np.float32),
    "bbox_xyxy": ((4,), np.float32),
    "K": ((3, 3), np.float64),
}


class ResultWriter:
    """Collects results, then writes them: `add` each, `save` once at the end.

    Args:
        body_id, body_sha256: of the body that turns betas and pose into vertices (`NetSpec`'s), so
            that a file without vertices still says how to rebuild them.
        vertices: whether to store them. None stores them up to MAX_VERTEX_FRAMES frames and drops
            all of them once there are more.
    """

    def __init__(
        self, *, body_id: str = "", body_sha256: str = "", vertices: bool | None = None
    ) -> None:
        self._body_id = body_id
        self._body_sha256 = body_sha256
        self._keep_vertices = vertices
        self._frames: list[tuple[int, int, int, int, int]] = []
        self._people: dict[str, list[Array]] = {name: [] for name in (*_ROWS, "betas")}
        self._owner: list[tuple[int, int, int]] = []
        self._scores: list[float] = []
        self._vertices: list[Array] = []
        self._faces = np.zeros((0, 3), np.int32)

    def add(self, result: Result) -> None:
        """Append one frame's people. Nothing of the result but its arrays is kept."""
        if self._keep_vertices is None and len(self._frames) == MAX_VERTEX_FRAMES:
            self._keep_vertices = False
            self._vertices.clear()
        row = len(self._frames)
        width, height = result.image_size
        self._frames.append(
            (result.frame_id, result.timestamp_ns, width, height, len(result.people))
        )
        self._faces = result.faces
        for index, person in enumerate(result.people):
            self._add_person(row, index, person)

    def _add_person(self, row: int, index: int, person: Person) -> None:
        for name, values in self._people.items():
            values.append(getattr(person, name))
        track = -1 if person.track_id is None else person.track_id
        self._owner.append((row, index, track))
        self._scores.append(person.score)
        if self._keep_vertices is not False:
            self._vertices.append(person.vertices)

    def save(self, path: str | Path) -> Path:
        """Write everything added so far."""
        path = Path(path)
        frames = np.array(self._frames, np.int64).reshape(-1, 5)
        owner = np.array(self._owner, np.int64).reshape(-1, 3)
        arrays: dict[str, Any] = {
            "schema": np.array(SCHEMA),
            "glnet_rt_version": np.array(__version__),
            "body_id": np.array(self._body_id),
            "body_sha256": np.array(self._body_sha256),
            "frame_id": frames[:, 0],
            "timestamp_ns": frames[:, 1],
            "image_size": frames[:, 2:4],
            "person_count": frames[:, 4],
            "person_frame": owner[:, 0],
            "person_index": owner[:, 1],
            "track_id": owner[:, 2],
            "score": np.array(self._scores, np.float32),
            "faces": self._faces,
        }
        for name, (shape, dtype) in _ROWS.items():
            arrays[name] = np.array(self._people[name], dtype).reshape(-1, *shape)
        betas = self._people["betas"]
        arrays["betas"] = np.array(betas, np.float32).reshape(len(betas), -1 if betas else 0)
        if self._vertices:
            arrays["vertices"] = np.array(self._vertices, np.float32)
        with open(path, "wb") as file:  # a handle: numpy would add .npz to other names
            np.savez_compressed(file, **arrays)
        return path


def write_npz(result: Result, path: str | Path) -> Path:
    """Write one frame, vertices included."""
    writer = ResultWriter(vertices=True)
    writer.add(result)
    return writer.save(path)
