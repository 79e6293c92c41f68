"""Real 3D sets: bodies in boxes of the ground truth, compared as the papers of each set do.

Recovered meshes are compared through Human3.6M's 17 joints, which `J_regressor_h36m` reads off
them. A JSON file names the sets, and the files that no set comes with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.body_file import read_body
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Person
from glnet_rt.errors import SourceError
from glnet_rt.skeleton import H36M_17
from train.data.real.coco import read_json
from train.data.real.emdb import read_emdb
from train.data.real.h36m import FRONT_CAMERA, read_h36m
from train.data.real.hybrik import read_hybrik_3dhp, read_hybrik_3dpw, read_hybrik_h36m
from train.data.real.mpi3dhp import read_3dhp_test
from train.data.real.mppe import read_3dmppe
from train.data.real.people import BOX_MARGIN, RecordSet, box_of
from train.data.real.record import Record
from train.data.real.spin import read_spin
from train.data.real.threedpw import read_3dpw
from train.metrics import pve_mm
from train.model.glnet import GLNet
from train.protocols import H36M_PELVIS, h36m_14_errors, mpi_3dhp
from train.recover import FLIPS, recover

EMDB_PARTS = ("emdb1", "emdb2")
# MPI-INF-3DHP's 17 of its test set, among Human3.6M's: crown first, spine and head last.
MPI_FROM_H36M = (10, 8, 14, 15, 16, 11, 12, 13, 4, 5, 6, 1, 2, 3, 0, 7, 9)
H36M_FROM_MPI = tuple(int(i) for i in np.argsort(MPI_FROM_H36M))
# The one camera of protocol 2, by its number and as it comes in names that count the cameras.
H36M_FRONTAL = (f".{FRONT_CAMERA}_", "_ca_04")
FORMAT = (
    '{"bodies": {"male": "SMPL_MALE.npz", "female": "SMPL_FEMALE.npz"}, "regressor": '
    '"J_regressor_h36m.npy", "sets": [{"kind": "3dpw", "path": "3DPW", "split": "test"}, ...]}'
)
FETCH_REGRESSOR = (
    "get J_regressor_h36m.npy with SPIN (https://github.com/nkolot/SPIN, fetch_data.sh) and name "
    'it under "regressor"'
)


@dataclass(frozen=True, eq=False)
class Truth:
    """One person's label.

    Attributes:
        joints: [17, 3] float64, m, Human3.6M's order, camera frame.
        vertices: [V, 3] float32, m, in the same frame, or None where no mesh is labelled.
    """

    joints: Array
    vertices: Array | None = None


@dataclass(frozen=True, eq=False)
class Compared:
    """B people found, and what is true.

    Attributes:
        joints, target: [B, 17, 3] float64, m, Human3.6M's order.
        pve_mm: [B], NaN where no mesh is labelled, or one of another topology.
    """

    joints: Array
    target: Array
    pve_mm: Array

    def of(self, who: Array) -> Compared:
        """Some of the people, [B] bool."""
        return Compared(self.joints[who], self.target[who], self.pve_mm[who])


@dataclass(frozen=True)
class Protocol:
    """How a set is judged.

    Attributes:
        text: for the reader of the figures.
        label: what a record must bear: `smpl`, or the name of a tag.
        truth: reads it.
        report: figures by name.
        groups: of whom figures are given: name -> what the pictures' paths hold any of.
    """

    text: str
    label: str
    truth: Callable[[RecordSet, Record], Truth]
    report: Callable[[Compared], dict[str, float]]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"all": ("",)})

    def fits(self, record: Record) -> bool:
        """Whether the record bears the label."""
        if self.label == "smpl":
            return record.smpl is not None and record.smpl.betas is not None
        return self.label in record.tags

    def members(self, records: Sequence[Record]) -> dict[str, Array]:
        """[B] bool per group: who belongs to it."""
        paths = [str(record.image) for record in records]
        return {
            name: np.array([any(part in path for part in parts) for path in paths])
            for name, parts in self.groups.items()
        }


@dataclass(frozen=True, eq=False)
class RealSet:
    """Labelled people and how they are judged."""

    name: str
    people: RecordSet
    protocol: Protocol


def true_mesh(people: RecordSet, record: Record) -> Truth:
    """The labelled body, posed with the body model of its gender, about its own origin."""
    assert record.smpl is not None
    body = people.bodies[record.smpl.gender]
    betas, rotmats = (v[None].astype(np.float32) for v in (record.smpl.betas, record.smpl.rotmats))
    vertices = body(betas, rotmats).vertices
    return Truth(body.h36m_joints(vertices)[0].astype(np.float64), vertices[0])


def true_h36m(people: RecordSet, record: Record) -> Truth:
    """The recorded skeleton of Human3.6M."""
    return Truth(np.asarray(record.tags["h36m_joints_m"]))


def true_3dhp(people: RecordSet, record: Record) -> Truth:
    """The test set's 17 joints."""
    return Truth(np.asarray(record.tags["joints_m"])[list(H36M_FROM_MPI)])


def report_mesh(found: Compared) -> dict[str, float]:
    """MPJPE, PA-MPJPE, and PVE where the meshes can be compared."""
    errors = h36m_14_errors(found.joints, found.target)
    row = {"mpjpe_mm": float(errors.mpjpe_mm.mean()),
           "pa_mpjpe_mm": float(errors.pa_mpjpe_mm.mean())}  # fmt: skip
    if not np.isnan(found.pve_mm).any():
        row["pve_mm"] = float(found.pve_mm.mean())
    return row


def report_h36m(found: Compared) -> dict[str, float]:
    """MPJPE, and PA-MPJPE in both orders of alignment."""
    chosen_first = h36m_14_errors(found.joints, found.target)
    aligned_first = h36m_14_errors(found.joints, found.target, align_all=True)
    return {
        "mpjpe_mm": float(chosen_first.mpjpe_mm.mean()),
        "pa_mpjpe_mm": float(chosen_first.pa_mpjpe_mm.mean()),
        "pa_mpjpe_17_aligned_mm": float(aligned_first.pa_mpjpe_mm.mean()),
    }


def report_3dhp(found: Compared) -> dict[str, float]:
    """MPJPE, PCK and AUC."""
    order = list(MPI_FROM_H36M)
    return dataclasses.asdict(mpi_3dhp(found.joints[:, order], found.target[:, order]))


MESH = Protocol(
    "14 joints of J_regressor_h36m on both meshes, chosen and then aligned; MPJPE and PVE from "
    "joint 0 of the 17; ground truth by the gendered body models",
    "smpl",
    true_mesh,
    report_mesh,
)
MESH_OFFICIAL = dataclasses.replace(
    MESH, text=f"{MESH.text}; frames with a valid camera and 2D joints"
)
H36M = Protocol(
    "14 of the 17 recorded joints; MPJPE from joint 0; PA-MPJPE: 14 chosen, then aligned, and the "
    "17 aligned, then 14 chosen; P2 is the frontal camera",
    "h36m_joints_m",
    true_h36m,
    report_h36m,
    {"all": ("",), "frontal camera": H36M_FRONTAL},
)
MPI = Protocol(
    "MPI-INF-3DHP's 17 test joints; MPJPE from the pelvis over 17, PCK at 150 mm and AUC (0 to 150 "
    "mm in steps of 5) over 14; truth: univ_annot3 of valid frames",
    "joints_m",
    true_3dhp,
    report_3dhp,
)
# HybrIK's file does not say which of the data set's two scales its joints have.
MPI_OF_HYBRIK = dataclasses.replace(
    MPI, text=MPI.text.replace("univ_annot3 of valid frames", "keypoints_cam of HybrIK's file")
)
Reader = Callable[[Path, Path, str], list[Record]]
# What `kind` may be: a reader of (path, images, split), and the protocol.
KINDS: dict[str, tuple[Reader, Protocol]] = {
    "3dpw": (lambda path, _, split: read_3dpw(path, split, evaluation=True), MESH_OFFICIAL),
    "hybrik-3dpw": (lambda path, images, _: read_hybrik_3dpw(path, images), MESH),
    "spin-3dpw": (
        lambda path, images, _: read_spin(path, images, source="3dpw", gendered=True),
        MESH,
    ),
    "emdb": (lambda path, _, split: read_emdb(path, split if split in EMDB_PARTS else None), MESH),
    "h36m": (lambda path, _, split: read_h36m(path, split), H36M),
    "3dmppe": (lambda path, _, split: read_3dmppe(path, split), H36M),
    "hybrik-h36m": (lambda path, images, _: read_hybrik_h36m(path, images), H36M),
    "3dhp": (lambda path, *_: read_3dhp_test(path), MPI),
    "hybrik-3dhp": (lambda path, images, _: read_hybrik_3dhp(path, images), MPI_OF_HYBRIK),
}


def read_sets(file: Path, body_path: Path) -> tuple[BodyModel, list[RealSet]]:
    """The network's body, with the file's regressor, and the sets that the file names.

    Args:
        file: JSON of `FORMAT`; paths in it count from its folder.
        body_path: the body whose betas the network predicts.

    Raises:
        SourceError: the file or a set it names is missing or is something else, or labels need a
            body model or a regressor that it does not name.
        ArtifactError: a body model is missing or damaged.
    """
    description, folder = read_json(file, f"write one: {FORMAT}"), file.parent
    try:
        regressor = None
        if "regressor" in description:
            regressor = read_regressor(folder / description["regressor"])
        body = load_body(body_path, regressor)
        genders = description.get("bodies", {})
        bodies = {g: load_body(folder / path, regressor) for g, path in genders.items()}
        bodies = {"neutral": body, **bodies}
        return body, [read_set(entry, folder, bodies) for entry in description["sets"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{file.name} names no sets to evaluate on",
            got=f"{type(error).__name__}: {error}",
            expected=FORMAT,
            fix=f"kinds are {', '.join(KINDS)}",
        ) from error


def read_set(entry: Mapping[str, str], folder: Path, bodies: Mapping[str, BodyModel]) -> RealSet:
    """The people of one entry of the file."""
    read, protocol = KINDS[entry["kind"]]
    images = folder / entry.get("images", Path(entry["path"]).parent)
    records = read(folder / entry["path"], images, entry.get("split", "test"))
    name = " ".join(entry[key] for key in ("kind", "split") if key in entry)
    people = RecordSet(records, bodies)
    if not records or not all(protocol.fits(r) for r in records):
        raise SourceError(
            f"{name} has nothing to compare with",
            got=f"{len(records)} people in {entry['path']}",
            expected=protocol.text,
            fix="name the test set's file, not one of the training set",
        )
    return RealSet(name, people, protocol)


def load_body(path: Path, regressor: Array | None) -> BodyModel:
    """A body that can tell Human3.6M's joints, by the regressor or, where it is of another mesh,
    by its own.

    Raises:
        SourceError: it has none.
    """
    arrays = read_body(path)
    if regressor is not None and regressor.shape[1] == len(arrays.v_template):
        arrays = dataclasses.replace(arrays, J_regressor_h36m=regressor)
    if arrays.J_regressor_h36m is None:
        raise SourceError(
            f"no regressor of Human3.6M's joints fits {path.name}",
            got="none" if regressor is None else list(regressor.shape),
            expected=[len(H36M_17), len(arrays.v_template)],
            fix=FETCH_REGRESSOR,
        )
    return BodyModel(arrays)


def read_regressor(path: Path) -> Array:
    """[17, V] float32 of a .npy file.

    Raises:
        SourceError: it is missing or something else.
    """
    try:
        regressor = np.load(path, allow_pickle=False)
        if regressor.ndim == 2 and len(regressor) == len(H36M_17):
            return np.ascontiguousarray(regressor, np.float32)
        got = str(list(regressor.shape))
    except (OSError, ValueError, EOFError) as error:
        got = f"{type(error).__name__}: {error}"
    raise SourceError(
        f"{path.name} is no regressor of Human3.6M's joints",
        got=got,
        expected=f"a .npy file, [{len(H36M_17)}, V]",
        fix=FETCH_REGRESSOR,
    )


def evaluate_bodies(model: GLNet, body: BodyModel, sets: Sequence[RealSet]) -> list[dict[str, Any]]:
    """A row of figures per set and group, without and with flip test.

    Raises:
        SourceError: a picture is missing or damaged.
    """
    return [row for real_set in sets for row in evaluate_set(model, body, real_set)]


def evaluate_set(model: GLNet, body: BodyModel, real_set: RealSet) -> list[dict[str, Any]]:
    """The rows of one set."""
    compared, protocol = compare(model, body, real_set), real_set.protocol
    records = real_set.people.records
    own = all(record.bbox_xyxy is not None for record in records)
    boxes = "the file's boxes" if own else f"boxes {BOX_MARGIN:g} times as wide as the true joints"
    return [
        {
            "set": real_set.name,
            "group": name,
            "protocol": f"{protocol.text}; {boxes}; GLNet's virtual camera",
            "people": int(who.sum()),
            **{f: protocol.report(c.of(who)) for f, c in zip(FLIPS, compared, strict=True)},
        }
        for name, who in protocol.members(records).items()
        if who.any()
    ]


def compare(model: GLNet, body: BodyModel, real_set: RealSet) -> list[Compared]:
    """Everyone of a set recovered, in every way of `FLIPS`."""
    people, records = real_set.people, real_set.people.records
    found = recover(model, body, records, boxes_of(people), tuple(FLIPS.values()))
    rows = []
    for record, persons in zip(records, found, strict=True):
        truth = real_set.protocol.truth(people, record)
        joints = body.h36m_joints(np.stack([p.vertices for p in persons])).astype(np.float64)
        errors = [vertex_error_mm(*one, truth) for one in zip(persons, joints, strict=True)]
        rows.append((joints, truth.joints, np.array(errors)))
    joints, target, errors = (np.stack(column) for column in zip(*rows, strict=True))
    return [Compared(joints[:, i], target, errors[:, i]) for i in range(len(FLIPS))]


def vertex_error_mm(person: Person, joints: Array, truth: Truth) -> float:
    """PVE from joint 0 of the 17, mm; NaN where there is no mesh, or one of another topology."""
    if truth.vertices is None or truth.vertices.shape != person.vertices.shape:
        return float("nan")
    roots = (joints[[H36M_PELVIS]], truth.joints[[H36M_PELVIS]])
    return float(pve_mm(person.vertices[None], truth.vertices[None], *roots)[0])


def boxes_of(people: RecordSet) -> list[Array]:
    """Edges [4] px of everyone: the set's own box, or one around all keypoints there are."""
    return [
        box_of(record, *people.keypoints(record)[:2])
        if record.bbox_xyxy is None
        else record.bbox_xyxy
        for record in people.records
    ]
