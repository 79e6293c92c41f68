"""The artifact's self-test: stored crops, what the network said of them, and the error in mm.

Export runs the network in float32 on a few crops and stores both; a user's machine runs the same
crops through its own backend, and both answers become bodies that are compared.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glnet_rt.artifact import PROBE, Artifact
from glnet_rt.backends.base import Backend, run
from glnet_rt.backends.registry import Attempt, open_each
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput, check_array
from glnet_rt.decode import check_same_body, decode_arrays
from glnet_rt.errors import ArtifactError, ContractError
from glnet_rt.parity import Parity, Tolerance
from glnet_rt.spec import NetSpec

_CROPS = "crops_bgr"


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Crops and the trained network's own answers, in float32.

    Attributes:
        crops_bgr: [N, S, S, 3] uint8, BGR, before normalisation.
        output: of all N.
    """

    crops_bgr: Array
    output: NetOutput

    def to_bytes(self, spec: NetSpec) -> bytes:
        """The content of `probe.npz`; the same probe gives the same bytes.

        Raises:
            ContractError: crops and outputs do not fit the spec or each other.
        """
        arrays = {_CROPS: self.crops_bgr}
        arrays |= {name: getattr(self.output, name) for name in spec.output_shapes}
        _check(arrays, spec)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                member = io.BytesIO()
                np.save(member, array, allow_pickle=False)
                archive.writestr(info, member.getvalue())
        return stream.getvalue()

    @classmethod
    def read(cls, artifact: Artifact) -> Probe:
        """Read the probe of an artifact.

        Raises:
            ArtifactError: it does not fit the artifact's spec.
        """
        arrays = artifact.read_arrays(PROBE)
        try:
            return _check(arrays, artifact.spec)
        except ContractError as error:
            raise ArtifactError(
                f"{PROBE} of artifact {artifact.path} does not fit its spec: {error.what}",
                got=error.got,
                expected=error.expected,
                fix="export the artifact again with this version of glnet-rt",
            ) from error


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """How far this machine's answers are from those stored at export.

    Attributes:
        backend, precision: what ran.
        num_probes: crops compared.
        same_pixel: of these, how many were read from the same pixel of the score map.
        mean_mm, p99_mm, max_mm: distance between vertices, pelvis on pelvis.
        transl_max_mm: distance between pelvises in the camera frame.
        tolerance: what `mean_mm`, `max_mm` and `transl_max_mm` may be.
    """

    backend: str
    precision: str
    num_probes: int
    same_pixel: int
    mean_mm: float
    p99_mm: float
    max_mm: float
    transl_max_mm: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether vertices and pelvises are within the tolerance."""
        return (
            self.mean_mm <= self.tolerance.mean_mm
            and self.max_mm <= self.tolerance.max_mm
            and self.transl_max_mm <= self.tolerance.transl_mm
        )

    def __str__(self) -> str:
        verdict, allowed = "passed" if self.passed else "FAILED", self.tolerance
        return (
            f"{verdict}: {self.backend} {self.precision} on {self.num_probes} probe crops, "
            f"vertices {self.mean_mm:.4f} mm mean (allowed {allowed.mean_mm:.3g}), "
            f"{self.p99_mm:.4f} p99, {self.max_mm:.4f} max ({allowed.max_mm:.3g}), "
            f"pelvis {self.transl_max_mm:.4f} max ({allowed.transl_mm:.3g}); "
            f"{self.same_pixel} of {self.num_probes} read from the same pixel"
        )


def verify_each(
    artifact: Artifact,
    body: BodyModel,
    backend: str = "auto",
    precision: str = "auto",
    *,
    threads: int | None = None,
) -> tuple[tuple[VerifyReport, ...], tuple[Attempt, ...]]:
    """Run the probe for every precision of an artifact on every backend that works here.

    Args:
        backend, precision, threads: as for `backends.select`; `auto` is every one.

    Returns:
        A report for each that ran, and why the others did not.

    Raises:
        ContractError: an unknown backend or precision, threads below 1, or another body.
        BackendError, MissingDependencyError: what was named does not work here, or nothing does.
    """
    check_same_body(body, artifact.spec)
    probe, parity = Probe.read(artifact), Parity.read(artifact)
    reports, rejected = [], []
    for session, attempt in open_each(artifact, backend, precision, threads=threads):
        if session is None:
            rejected.append(attempt)
            continue
        with session:
            tolerance = parity.tolerance(session.precision)
            reports.append(compare(probe, session, body, artifact.spec, tolerance))
    return tuple(reports), tuple(rejected)


def compare(
    probe: Probe, backend: Backend, body: BodyModel, spec: NetSpec, tolerance: Tolerance
) -> VerifyReport:
    """Run the probe's crops through a backend and compare the bodies with the stored ones.

    Raises:
        BackendError: the backend failed.
    """
    output = run(backend, probe.crops_bgr, spec)
    vertices_mm, pelvises_mm = vertex_errors_mm(body, spec, output, probe.output)
    return VerifyReport(
        backend=backend.name,
        precision=backend.precision,
        num_probes=len(probe.crops_bgr),
        same_pixel=int((output.pixel == probe.output.pixel).sum()),
        mean_mm=float(vertices_mm.mean()),
        p99_mm=float(np.percentile(vertices_mm, 99)),
        max_mm=float(vertices_mm.max()),
        transl_max_mm=float(pelvises_mm.max()),
        tolerance=tolerance,
    )


def vertex_errors_mm(
    body: BodyModel, spec: NetSpec, output: NetOutput, reference: NetOutput
) -> tuple[Array, Array]:
    """Decode two answers to the same crops, each seen by itself, and compare the bodies.

    Args:
        body: whose betas the network predicts.
        spec: of the network.
        output, reference: B people each.

    Returns:
        vertices: [B, V] float64, mm, distances with the pelvises laid on each other.
        pelvises: [B] float64, mm, distances in the camera frame.
    """
    offset = np.zeros((len(reference.score), 2))
    ours = decode_arrays(body, spec, output, offset, spec.focal)
    theirs = decode_arrays(body, spec, reference, offset, spec.focal)
    roots = [bodies.joints[:, :1].astype(np.float64) for bodies in (ours, theirs)]
    gap = (ours.vertices - roots[0]) - (theirs.vertices - roots[1])
    pelvis_gap = (roots[0] - roots[1])[:, 0]
    return np.linalg.norm(gap, axis=-1) * 1000, np.linalg.norm(pelvis_gap, axis=-1) * 1000


def _check(arrays: Mapping[str, Array], spec: NetSpec) -> Probe:
    """Wrap arrays once they fit the spec; raises ContractError."""
    size = spec.input_size
    crops = arrays.get(_CROPS)
    check_array(_CROPS, crops, (None, size, size, 3), np.uint8)
    assert crops is not None
    output = NetOutput.from_arrays(spec, arrays)
    if len(crops) == 0 or len(crops) != len(output.score):
        raise ContractError(
            "crops and outputs of the probe disagree",
            got=f"{len(crops)} crops, {len(output.score)} outputs",
            expected="as many of one as of the other, at least one",
        )
    return Probe(crops, output)
