"""What an artifact's `parity.json` tells the run time: how fast and how far off each precision is.

Export measures both (docs/export.md); the run time orders precisions by the first and judges its
self-test by the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glnet_rt.artifact import PARITY, Artifact
from glnet_rt.errors import ArtifactError

FLOAT32_MM = 0.1  # float32 on any machine: rounding alone stays well below


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far bodies may be off those of the trained network in float32, over the probe's crops.

    Attributes:
        mean_mm: vertices, mean over all crops, pelvis on pelvis.
        max_mm: the worst vertex.
        transl_mm: the worst pelvis, in the camera frame.
    """

    mean_mm: float = FLOAT32_MM
    max_mm: float = FLOAT32_MM
    transl_mm: float = FLOAT32_MM


@dataclass(frozen=True)
class Parity:
    """The part of the report that the run time acts on.

    Attributes:
        tolerances: precision -> what the self-test allows it.
        times: (backend, precision) -> time of one crop on one thread over float32's, at export.
        cpu: that these times were measured on.
    """

    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    times: Mapping[tuple[str, str], float] = field(default_factory=dict)
    cpu: str = ""

    @classmethod
    def read(cls, artifact: Artifact) -> Parity:
        """Read an artifact's report; what it does not tell is left empty.

        Raises:
            ArtifactError: the report is not of this form.
        """
        report = artifact.read_parity()
        try:
            tolerances = report.get("tolerances", {})
            return cls(
                {name: Tolerance(**_numbers(values)) for name, values in tolerances.items()},
                {
                    (row["backend"], row["precision"]): float(row["over_fp32"])
                    for row in report.get("times", [])
                },
                str(report.get("cpu", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{PARITY} in artifact {artifact.path} is no parity report",
                got=repr(error),
                expected="tolerances and times, as docs/export.md describes them",
                fix="export the artifact again with this version of glnet-rt",
            ) from error

    def tolerance(self, precision: str) -> Tolerance:
        """What the self-test allows a precision; float32's where the report tells none."""
        return self.tolerances.get(precision, Tolerance())

    def fastest_first(self, backend: str, precisions: tuple[str, ...]) -> tuple[str, ...]:
        """Precisions by the time they took at export; those never timed keep their order, last."""
        never = float("inf")
        return tuple(sorted(precisions, key=lambda p: self.times.get((backend, p), never)))

    def why(self, backend: str, precision: str) -> str:
        """In words, how fast a precision was at export; empty where that was not measured."""
        time = self.times.get((backend, precision))
        if time is None:
            return ""
        return f"took {time:.2f} of the time of fp32 at export, on {self.cpu or 'an unknown CPU'}"


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
