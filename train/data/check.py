"""What data is there: recognises data sets by their files and counts what they label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from glnet_rt.errors import ArtifactError, GlnetError, SourceError
from train.data.real.bedlam import FETCH_AGORA, FETCH_BEDLAM, read_agora, read_bedlam
from train.data.real.coco import FETCH as FETCH_COCO
from train.data.real.coco import read_coco, read_json
from train.data.real.emdb import FETCH as FETCH_EMDB
from train.data.real.emdb import read_emdb
from train.data.real.h36m import FETCH as FETCH_H36M
from train.data.real.h36m import SUBJECTS, read_h36m
from train.data.real.hybrik import FETCH as FETCH_HYBRIK
from train.data.real.hybrik import read_hybrik_3dhp, read_hybrik_3dpw, read_hybrik_h36m
from train.data.real.mpi3dhp import FETCH as FETCH_3DHP
from train.data.real.mpi3dhp import read_3dhp_test, read_3dhp_train
from train.data.real.mppe import FETCH as FETCH_3DMPPE
from train.data.real.mppe import STEM as MPPE_STEM
from train.data.real.mppe import read_3dmppe, stems_of
from train.data.real.record import UNKNOWN, Record
from train.data.real.spin import FETCH as FETCH_SPIN
from train.data.real.spin import read_spin
from train.data.real.threedpw import FETCH as FETCH_3DPW
from train.data.real.threedpw import read_3dpw
from train.synthetic.shards import finished_shards, open_shard

KNOWN_SETS = f"""\
  COCO         person_keypoints_*.json: {FETCH_COCO}
  3DPW         sequenceFiles/ and imageFiles/: {FETCH_3DPW}
  MPI-INF-3DHP S1/Seq1/annot.mat, mpi_inf_3dhp_test_set/: {FETCH_3DHP}
  Human3.6M    S1/MyPoseFeatures/*/*.cdf, metadata.xml: {FETCH_H36M}
  3DMPPE style annotations/{MPPE_STEM}1_data.json: {FETCH_3DMPPE}
  EMDB         P0/*/P0_*_data.pkl: {FETCH_EMDB}
  BEDLAM       *.npz with pose_cam and gtkps: {FETCH_BEDLAM}
  AGORA        the same: {FETCH_AGORA}
  SPIN style   *.npz: {FETCH_SPIN}
  HybrIK style *.json of Human3.6M, MPI-INF-3DHP, 3DPW: {FETCH_HYBRIK}
  synthetic    shard-*.tar: python -m train.synthetic --out FOLDER --count 20000"""
PICKLE_HEAD = 4096  # bytes, within which a pickle names the class it is of
PICTURES_LOOKED_FOR = 1000  # file systems answer slowly for a million


@dataclass(frozen=True)
class Found:
    """One data set, or a part of one.

    Attributes:
        name: which set, and which part.
        path: the file or folder that told.
        people: labelled people.
        with_2d, with_3d, with_smpl: how many of them have such labels.
        pictures: share of their pictures that are there; of the first thousand people.
        missing: the first picture that is not there, or None.
        problem: why the rest could not be told, or None.
    """

    name: str
    path: Path
    people: int = 0
    with_2d: int = 0
    with_3d: int = 0
    with_smpl: int = 0
    pictures: float = 0.0
    missing: Path | None = None
    problem: str | None = None


def check(path: Path, images: Path | None = None) -> list[Found]:
    """Every data set in a folder, or in one file.

    Args:
        images: folder that picture names of annotation files count from; default: theirs.

    Raises:
        SourceError: there is nothing, or nothing known.
    """
    if not path.exists():
        raise SourceError(
            "no such file or folder", got=str(path), expected="a data set", fix=KNOWN_SETS
        )
    found = [inspect(name, where, read) for name, where, read in readers(path, images)]
    found += synthetic(path)
    if not found:
        raise SourceError(
            "no data set recognised",
            got=str(path),
            expected="files of one of these",
            fix="put one of these there\n" + KNOWN_SETS,
        )
    return found


def readers(
    path: Path, images: Path | None
) -> Iterator[tuple[str, Path, Callable[[], list[Record]]]]:
    """Name, place and reader of everything that looks like a real data set."""
    if path.is_dir():
        yield from folder_sets(path)
    files = [path] if path.is_file() else [*path.glob("*.*"), *path.glob("annotations/*.*")]
    for file in sorted(files):
        name, reader = file_kind(file)
        if reader is not None:
            yield name, file, partial(reader, file, images or pictures_of(file))


def folder_sets(path: Path) -> Iterator[tuple[str, Path, Callable[[], list[Record]]]]:
    """Sets that are known by how their folders are laid out."""
    for split in ("train", "validation", "test"):
        if (path / "sequenceFiles" / split).is_dir():
            yield f"3DPW {split}", path, partial(read_3dpw, path, split)
    if next(path.glob("S?/Seq?/annot.mat"), None):
        yield "MPI-INF-3DHP train", path, partial(read_3dhp_train, path)
    if (path / "mpi_inf_3dhp_test_set").is_dir():
        yield "MPI-INF-3DHP test", path, partial(read_3dhp_test, path)
    for split, subjects in SUBJECTS.items():
        if any((path / f"S{s}/MyPoseFeatures").is_dir() for s in subjects):
            yield f"Human3.6M {split}", path, partial(read_h36m, path, split)
        if stems_of(path, split):
            yield f"Human3.6M {split}, 3DMPPE style", path, partial(read_3dmppe, path, split)
    if next(path.glob("P*/*/*_data.pkl"), None):
        yield "EMDB", path, partial(read_emdb, path)


def file_kind(file: Path) -> tuple[str, Callable[[Path, Path], list[Record]] | None]:
    """Which data set a file belongs to, by what it holds."""
    if file.suffix == ".npz":
        return npz_kind(file)
    if file.suffix == ".json" and not file.name.startswith(MPPE_STEM):
        return json_kind(file)
    if file.suffix == ".pkl" and is_dataframe(file):
        return "AGORA", read_agora
    return "", None


def is_dataframe(file: Path) -> bool:
    """Whether a pickle holds something of pandas'; it is not read."""
    with file.open("rb") as pickle:
        return b"pandas" in pickle.read(PICKLE_HEAD)


def npz_kind(file: Path) -> tuple[str, Callable[[Path, Path], list[Record]]]:
    """BEDLAM's and AGORA's files tell the pose in the camera; AGORA's no translation of it."""
    try:
        with np.load(file) as data:
            names = set(data.files)
    except (OSError, ValueError, BadZipFile, EOFError):
        return "SPIN style", read_spin  # which says what is amiss
    if {"pose_cam", "gtkps"} <= names:
        return ("BEDLAM", read_bedlam) if "trans_cam" in names else ("AGORA", read_agora)
    return "SPIN style", read_spin


def pictures_of(file: Path) -> Path:
    """COCO's pictures lie in a folder named as the split, beside that of the annotations."""
    beside = file.parent.parent / file.stem.rsplit("_", 1)[-1]
    return beside if beside.is_dir() else file.parent


def json_kind(file: Path) -> tuple[str, Callable[[Path, Path], list[Record]] | None]:
    """Which data set a JSON file belongs to, by what its annotations hold."""
    try:
        annotations = read_json(file, FETCH_COCO)["annotations"]
        keys = set(annotations[0])
    except (GlnetError, KeyError, IndexError, TypeError):
        return "", None
    if "smpl_joint_cam" in keys:
        return "3DPW, HybrIK style", read_hybrik_3dpw
    if "smpl_joints" in keys:
        return "Human3.6M, HybrIK style", read_hybrik_h36m
    if "keypoints_cam" in keys:
        return "MPI-INF-3DHP, HybrIK style", read_hybrik_3dhp
    if {"keypoints", "bbox"} <= keys:
        return "COCO keypoints", read_coco
    return "", None


def inspect(name: str, path: Path, read: Callable[[], list[Record]]) -> Found:
    """Read it all and count; an unreadable set is reported, not raised."""
    try:
        records = read()
    except SourceError as error:
        return Found(name, path, problem=str(error))
    looked_for = records[:PICTURES_LOOKED_FOR]
    missing = [r.image for r in looked_for if not r.image.exists()]
    return Found(
        name,
        path,
        people=len(records),
        with_2d=sum(bool((r.state > UNKNOWN).any()) for r in records),
        with_3d=sum(has_positions(r) for r in records),
        with_smpl=sum(r.smpl is not None for r in records),
        pictures=1 - len(missing) / max(len(looked_for), 1),
        missing=missing[0] if missing else None,
    )


def has_positions(record: Record) -> bool:
    """Whether joints are told in space, or follow from a whole body."""
    smpl = record.smpl
    return bool(record.located.any()) or (smpl is not None and smpl.betas is not None)


def synthetic(path: Path) -> list[Found]:
    """Finished shards of synthetic people at or below a folder."""
    found = []
    for folder in sorted({shard.parent for shard in path.glob("**/shard-*.tar")}):
        try:
            n = sum(len(open_shard(shard)) for shard in finished_shards(folder))
            found.append(Found("synthetic people", folder, n, n, n, n, 1.0))
        except ArtifactError as error:
            found.append(Found("synthetic people", folder, problem=str(error)))
    return found


def found_table(found: list[Found]) -> str:
    """A table, and below it what is amiss."""
    rows = ["data set                       people       2D       3D     SMPL  pictures  where"]
    notes = []
    for f in found:
        rows.append(
            f"{f.name:<27} {f.people:>9} {f.with_2d:>8} {f.with_3d:>8} {f.with_smpl:>8}"
            f"  {f.pictures:>7.0%}  {f.path}"
        )
        if f.problem:
            notes.append(f"{f.path}: {f.problem}")
        if f.missing:
            notes.append(f"{f.name}: a picture is not there, {f.missing}")
    return "\n".join([*rows, *notes])
