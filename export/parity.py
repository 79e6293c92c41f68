"""Was anything lost on the way? Torch against ONNX Runtime through the whole chain, in mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.probe import vertex_errors_mm
from glnet_rt.spec import NetSpec


@dataclass(frozen=True)
class Gate:
    """What a model may be off the trained network, vertices in mm, pelvis on pelvis."""

    mean_mm: float
    p99_mm: float
    max_mm: float

    def failures(self, row: Mapping[str, Any]) -> list[str]:
        """One sentence for every limit that a row of `parity` breaks; a NaN breaks it too."""
        return [
            f"vertices {name} {row[f'vertices_{name}_mm']:.3f} mm > {limit:g} mm"
            for name, limit in (("mean", self.mean_mm), ("p99", self.p99_mm), ("max", self.max_mm))
            if not row[f"vertices_{name}_mm"] <= limit
        ]


# fp32: only rounding of sums differs. packed: a few people lie between two readings, and the least
# change decides; the largest error says which, not how good the model is.
GATES = {"fp32": Gate(0.1, 0.1, 0.1), "packed": Gate(1.0, 5.0, float("inf"))}


def parity(
    body: BodyModel, spec: NetSpec, outputs: Mapping[str, Array], reference: Mapping[str, Array]
) -> dict[str, Any]:
    """Decode two answers to the same crops into bodies and compare them.

    Returns:
        JSON values: vertex error in mm with pelvises aligned (mean, p99, max), pelvis distance in
        the camera frame, largest 2D keypoint difference in px of the crop, and how many crops were
        read from the same pixel.
    """
    ours, theirs = NetOutput.from_arrays(spec, outputs), NetOutput.from_arrays(spec, reference)
    vertices, pelvises = vertex_errors_mm(body, spec, ours, theirs)
    uv = np.abs(ours.keypoints_uvd - theirs.keypoints_uvd)[..., :2]
    return {
        "crops": len(vertices),
        "vertices_mean_mm": float(vertices.mean()),
        "vertices_p99_mm": float(np.percentile(vertices, 99)),
        "vertices_max_mm": float(vertices.max()),
        "pelvis_max_mm": float(pelvises.max()),
        "keypoints_max_px": float(uv.max() * spec.input_size),
        "same_pixel": int((ours.pixel == theirs.pixel).sum()),
    }
