"""Human3.6M as it is published: `S*/MyPoseFeatures/*/*.cdf` and `metadata.xml`.

`D2_Positions` are pixels, `D3_Positions_mono` millimetres in the camera's frame, 32 joints each, of
which 17 are no copies. Beside them lie the same poses in the world (`D3_Positions`) and scaled to
one skeleton (`D3_Positions_mono_universal`), which are not read. Pictures bear SPIN's names and are
numbered from one: `images/S9_Directions_1.60457274_000001.jpg` is the first frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.data.real.faults import foreign_file, nothing_found
from train.data.real.orders import H36M_LEFT_FIRST
from train.data.real.record import Record, intrinsics

FETCH = "ask for it at http://vision.imar.ro/human3.6m and unpack it as it comes"
SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
# Of the 32 joints, 17 in the order of `H36M_LEFT_FIRST`.
JOINTS = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
FRONT_CAMERA = "60457274"
# (subject, action, subaction) of the recordings whose labels do not fit the pictures.
BLOCKED = ((9, 5, 2), (9, 10, 2), (9, 13, 1))
NUM_SUBJECTS, NUM_CAMERAS = 11, 4
MM = 1e-3


@dataclass(frozen=True)
class Metadata:
    """What `metadata.xml` tells.

    Attributes:
        intrinsics: [3, 3] px of each camera, by its name; lens distortion is left out.
        blocked: (subject, name) of the recordings to leave out, such as (9, "Greeting").
    """

    intrinsics: dict[str, Array]
    blocked: frozenset[tuple[int, str]]


def read_h36m(
    root: Path, split: str, *, protocol: int = 1, every: int = 5, masks: bool = False
) -> list[Record]:
    """People of one split.

    Args:
        root: holds `S1` to `S11`, `metadata.xml` and `images`.
        split: `train` is subjects 1, 5, 6, 7 and 8, `test` 9 and 11; those that are there.
        protocol: 1 takes all four cameras, 2 only 60457274; as SPIN and HMR count.
        every: of the frames, every how many-th.
        masks: take boxes from `MySegmentsMat/ground_truth_bb`, one mask as large as the picture
            for each frame, instead of from the joints.

    Raises:
        SourceError: nothing is there, or a file is another one.
    """
    metadata = read_metadata(root / "metadata.xml")
    cameras = [c for c in metadata.intrinsics if protocol == 1 or c == FRONT_CAMERA]
    files = [
        file
        for subject in SUBJECTS[split]
        for camera in cameras
        for file in sorted(
            (root / f"S{subject}/MyPoseFeatures/D3_Positions_mono").glob(f"*.{camera}.cdf")
        )
        if is_usable(subject, file.stem.partition(".")[0], metadata)
    ]
    if not files:
        raise nothing_found(
            f"recording of Human3.6M's {split} subjects",
            root,
            f"S{SUBJECTS[split][0]}/MyPoseFeatures/D3_Positions_mono/*.cdf",
            FETCH,
        )
    return [record for file in files for record in _recording(file, metadata, every, masks)]


def is_usable(subject: int, name: str, metadata: Metadata) -> bool:
    """Whether a recording is one action, with labels that fit the pictures."""
    return not name.startswith("_ALL") and (subject, name) not in metadata.blocked


def _recording(file: Path, metadata: Metadata, every: int, masks: bool) -> Iterator[Record]:
    subject = file.parents[2]
    action, _, camera = file.stem.partition(".")
    name = f"{subject.name}_{action.replace(' ', '_')}.{camera}"
    joints = positions(file, 3) * MM
    pixels = positions(file.parents[1] / "D2_Positions" / file.name, 2)
    frames = range(0, min(len(joints), len(pixels)), every)
    boxes = mask_boxes(subject, file.stem, frames) if masks else [None] * len(frames)
    for frame, box in zip(frames, boxes, strict=True):
        yield Record(
            source="h36m",
            image=subject.parent / "images" / f"{name}_{frame + 1:06d}.jpg",
            bbox_xyxy=box,
            **H36M_LEFT_FIRST.labels(pixels[frame], joints[frame]),
            K=metadata.intrinsics[camera],
            tags={
                "subject": int(subject.name[1:]),
                "activity": action,
                "sequence": name,
                "frame": frame,
                "h36m_joints_m": joints[frame],
            },
        )


def positions(file: Path, axes: int) -> Array:
    """[F, 17, axes] of one file, in its own unit."""
    import cdflib

    try:
        return np.asarray(cdflib.CDF(file)["Pose"][0], np.float64).reshape(-1, 32, axes)[:, JOINTS]
    except (OSError, ValueError, KeyError, IndexError, EOFError, struct.error, zlib.error) as error:
        raise _other_file(file, error, f"Pose: frames x {32 * axes} numbers") from error


def mask_boxes(subject: Path, name: str, frames: range) -> list[Array]:
    """Edges [4] of the person in each frame, by the masks that come with the set."""
    import h5py

    file = subject / "MySegmentsMat/ground_truth_bb" / f"{name}.mat"
    try:
        with h5py.File(file, "r") as data:
            return [_edges(np.asarray(data[data["Masks"][frame, 0]]).T == 1) for frame in frames]
    except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
        raise _other_file(file, error, "Masks: one reference a frame") from error


def _edges(mask: Array) -> Array:
    """[H, W] bool -> x0, y0, x1, y1."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float64)


def read_metadata(file: Path) -> Metadata:
    """Cameras, and how the subjects' recordings are named.

    `w0` holds six numbers of pose for each camera and subject, then nine for each camera: focal
    lengths, principal point, distortion.

    Raises:
        SourceError: the file is missing, or another one.
    """
    try:
        tree = ElementTree.parse(file).getroot()
        cameras = [str(camera.text) for camera in tree.findall("dbcameras/index2id/*")]
        numbers = np.array(str(tree.findtext("w0")).strip("[] \n").split(), np.float64)
        rows = numbers[6 * NUM_CAMERAS * NUM_SUBJECTS :].reshape(NUM_CAMERAS, 9)
        names = {(s, a, n): name for s, a, n, name in _recording_names(tree)}
        return Metadata(
            {name: intrinsics(r[:2], r[2:4]) for name, r in zip(cameras, rows, strict=True)},
            frozenset((key[0], names[key]) for key in BLOCKED),
        )
    except (OSError, ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
        raise _other_file(file, error, "w0, dbcameras/index2id and the mapping of names") from error


def _recording_names(tree: ElementTree.Element) -> Iterator[tuple[int, int, int, str]]:
    """Subject, action, subaction and the name that his files bear."""
    rows = [[cell.text or "" for cell in row] for row in tree.findall("mapping/*")]
    subjects = [int(name[1:]) for name in rows[0][2:]]
    for action, subaction, *names in rows[1:]:
        if action.isdigit() and subaction.isdigit():
            for subject, name in zip(subjects, names, strict=True):
                yield subject, int(action), int(subaction), name


def _other_file(file: Path, error: Exception, expected: str) -> SourceError:
    return foreign_file(f"{file} is no file of Human3.6M", error, expected, FETCH)
