"""COCO keypoints: PCK and OKS of people in their ground-truth boxes.

Two answers are judged: the network's own 17 keypoints (both hops), and the recovered body's joints
where COCO annotates the same ones. Who is found is not: every labelled person has a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.camera import project
from glnet_rt.contracts import Array, Person
from glnet_rt.errors import SourceError
from glnet_rt.skeleton import COCO_17, COCO_FROM_KEYPOINTS, SMPL_JOINTS
from train.data.check import pictures_of
from train.data.real.coco import FETCH, read_coco
from train.data.real.record import SEEN, UNKNOWN, Record
from train.evaluate import PCK_THRESHOLDS, joined
from train.metrics import pck
from train.model.glnet import GLNet
from train.protocols import coco_oks
from train.recover import FLIPS, recover

PROTOCOL = (
    "COCO keypoints of people with at least one label, ground-truth boxes; PCK: distance at most a "
    "fraction of the longer side of the box; visible: v = 2, labelled: v > 0; OKS: pycocotools"
)
Figures = dict[str, Any]  # JSON values by name
# Joints that COCO and the body share: shoulders, elbows, wrists, knees, ankles.
SHARED = tuple(i for i, name in enumerate(COCO_17) if name in SMPL_JOINTS)
SHARED_JOINTS = tuple(SMPL_JOINTS.index(COCO_17[i]) for i in SHARED)


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """One annotation file and its people."""

    annotations: Path
    people: list[Record]

    @property
    def name(self) -> str:
        """`val2017` of person_keypoints_val2017.json."""
        return self.annotations.stem.removeprefix("person_keypoints_")


@dataclass(frozen=True, eq=False)
class Answers:
    """What was found of B people, image px, and what is true.

    Attributes:
        keypoints_px: [B, 17, 2], the network's own.
        body_px: [B, 10, 2], the body's joints of `SHARED`, projected.
        score: [B].
        target_px: [B, 17, 2].
        state: [B, 17] uint8, UNKNOWN, HIDDEN or SEEN.
        side_px: [B], longer side of the box.
        image_id: [B].
    """

    keypoints_px: Array
    body_px: Array
    score: Array
    target_px: Array
    state: Array
    side_px: Array
    image_id: Array


def read_splits(folder: Path, names: Sequence[str] = ()) -> tuple[list[CocoSplit], list[str]]:
    """The splits of a COCO folder whose pictures are there, and notes on those left out.

    Args:
        folder: holds `annotations/person_keypoints_*.json`, and pictures in a folder per split.
        names: which splits; none for all there are.

    Raises:
        SourceError: no annotations, a named split is not there, or none has pictures.
    """
    files = {
        file.stem.removeprefix("person_keypoints_"): file
        for file in sorted((folder / "annotations").glob("person_keypoints_*.json"))
    }
    if not files or not set(names) <= set(files):
        raise SourceError(
            "no COCO keypoints found",
            got=f"{folder}, with splits {sorted(files)}",
            expected=" and ".join(f"annotations/person_keypoints_{n}.json" for n in names or "*"),
            fix=FETCH,
        )
    chosen = {name: files[name] for name in names or files}
    missing = [name for name, file in chosen.items() if pictures_of(file) == file.parent]
    if (names and missing) or len(missing) == len(chosen):
        raise SourceError(
            "COCO's pictures are not there",
            got=f"{folder} without {', '.join(missing)}",
            expected="a folder of pictures, named as the split, beside annotations/",
            fix=FETCH,
        )
    splits = [
        CocoSplit(file, read_coco(file, pictures_of(file)))
        for name, file in chosen.items()
        if name not in missing
    ]
    return splits, [f"{name} left out: its pictures are not there" for name in missing]


def evaluate_coco(model: GLNet, body: BodyModel, splits: Sequence[CocoSplit]) -> Figures:
    """Figures per split and of all splits together, without and with flip test.

    Raises:
        SourceError: a picture is missing or damaged.
    """
    answers = {split.name: answer(model, body, split.people) for split in splits}
    report = {s.name: figures([s.annotations], answers[s.name]) for s in splits}
    if len(splits) > 1:
        everyone = [joined(parts) for parts in zip(*answers.values(), strict=True)]
        report["pooled"] = figures([s.annotations for s in splits], everyone)
    return {"protocol": PROTOCOL, "splits": report}


def answer(model: GLNet, body: BodyModel, people: Sequence[Record]) -> list[Answers]:
    """Everyone recovered in every way of `FLIPS`."""
    boxes = [person.bbox_xyxy for person in people]
    found = list(recover(model, body, people, boxes, tuple(FLIPS.values())))
    return [answers_of(people, persons) for persons in zip(*found, strict=True)]


def answers_of(people: Sequence[Record], persons: Sequence[Person]) -> Answers:
    """Recovered people beside their labels."""
    chosen, sizes = list(COCO_FROM_KEYPOINTS), [p.bbox_xyxy[2:] - p.bbox_xyxy[:2] for p in people]
    joints = [project(p.joints[list(SHARED_JOINTS)].astype(np.float64), p.K) for p in persons]
    return Answers(
        keypoints_px=np.stack([p.keypoints_px[chosen] for p in persons]).astype(np.float64),
        body_px=np.stack(joints),
        score=np.array([p.score for p in persons]),
        target_px=np.stack([p.keypoints_px[chosen] for p in people]),
        state=np.stack([p.state[chosen] for p in people]),
        side_px=np.max(sizes, axis=1),
        image_id=np.array([p.tags["image_id"] for p in people]),
    )


def figures(annotations: Sequence[Path], answers: Sequence[Answers]) -> Figures:
    """All figures of one set of people; `answers` in the order of `FLIPS`."""
    state = answers[0].state
    counts = {"people": len(state), "visible": int((state == SEEN).sum()),
              "labelled": int((state > UNKNOWN).sum())}  # fmt: skip
    return counts | {
        name: {**pck_figures(found), "oks": coco_oks(annotations, results(found))}
        for name, found in zip(FLIPS, answers, strict=True)
    }


def pck_figures(found: Answers) -> Figures:
    """PCK of the 17 keypoints, of those the body shares, and of the body's own joints."""
    side, shared = found.side_px[:, None, None], list(SHARED)
    target, names = found.target_px / side, [COCO_17[i] for i in SHARED]
    keypoints, body, state = found.keypoints_px / side, found.body_px / side, found.state
    return {
        "keypoints": pck_rows(keypoints, target, state, COCO_17),
        "keypoints_shared": pck_rows(keypoints[:, shared], target[:, shared], state[:, shared]),
        "body_shared": pck_rows(body, target[:, shared], state[:, shared], names),
    }


def pck_rows(points: Array, target: Array, state: Array, names: Sequence[str] = ()) -> Figures:
    """PCK over visible and over all labelled joints, and of each named joint where visible.

    Args:
        points, target: [B, N, 2], in longer sides of the box.
        state: [B, N].
        names: of the N joints, or none.
    """
    rows: Figures = {
        "visible": pck_row(points, target, state == SEEN),
        "labelled": pck_row(points, target, state > UNKNOWN),
    }
    if names:
        rows["visible_per_joint"] = {
            name: pck_row(points[:, [j]], target[:, [j]], state[:, [j]] == SEEN)
            for j, name in enumerate(names)
        }
    return rows


def pck_row(points: Array, target: Array, counts: Array) -> dict[str, float]:
    """How many joints count [B, N] bool, and their PCK at every threshold; nobody has none."""
    joints = int(counts.sum())
    shares = {f"pck_{t:g}": pck(points, target, counts, t) for t in PCK_THRESHOLDS}
    return {"joints": joints, **(shares if joints else {})}


def results(found: Answers) -> list[Figures]:
    """The 17 keypoints as COCO's result files list them."""
    ones = np.ones((len(found.score), len(COCO_17), 1))
    keypoints = np.concatenate([found.keypoints_px, ones], axis=2).reshape(len(ones), -1)
    return [
        {"image_id": int(i), "category_id": 1, "keypoints": k.tolist(), "score": float(s)}
        for i, k, s in zip(found.image_id, keypoints, found.score, strict=True)
    ]
