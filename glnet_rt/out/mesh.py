"""Bodies as OBJ and PLY meshes, in metres and y up; see `scene.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array, Result
from glnet_rt.out.raster import vertex_normals
from glnet_rt.out.scene import place_yup, shared_depth_shift


def write_obj(result: Result, path: str | Path) -> Path:
    """Write the bodies of one frame as text, one object per person."""
    path = Path(path)
    lines = []
    offset = 1  # OBJ counts from 1, over all objects
    for index, vertices in enumerate(_placed(result)):
        lines.append(f"o person_{index}")
        lines += ["v {:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in vertices.tolist()]
        lines += ["f {} {} {}".format(*face) for face in (result.faces + offset).tolist()]
        offset += len(vertices)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def write_ply(result: Result, path: str | Path) -> Path:
    """Write the bodies of one frame as one binary little-endian mesh with normals."""
    path = Path(path)
    placed = _placed(result)
    counts = np.cumsum([0] + [len(vertices) for vertices in placed])
    faces = [result.faces + offset for offset in counts[:-1]]
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {counts[-1]}\n"
        + "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
        + f"element face {len(placed) * len(result.faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    with open(path, "wb") as file:
        file.write(header.encode("ascii"))
        for vertices in placed:
            normals = vertex_normals(vertices, result.faces)
            file.write(np.hstack([vertices, normals]).astype("<f4").tobytes())
        for block in faces:
            rows = np.empty(len(block), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
            rows["count"], rows["corners"] = 3, block
            file.write(rows.tobytes())
    return path


def _placed(result: Result) -> list[Array]:
    shifts = shared_depth_shift(result.people)
    return [place_yup(p, float(s)) for p, s in zip(result.people, shifts, strict=True)]
