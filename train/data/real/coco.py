"""COCO keypoints: `annotations/person_keypoints_{train,val}{2014,2017}.json` and the pictures.

Read as HybrIK reads them: crowds, people without keypoints and empty boxes are left out, boxes are
cut to the picture. OCHuman's file has the same structure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.data.real.faults import foreign_file
from train.data.real.orders import COCO
from train.data.real.record import Record, nothing_located, xyxy_from_xywh

FETCH = "fetch it from https://cocodataset.org/#download and unpack it beside the annotations"


def read_coco(annotations: Path, images: Path) -> list[Record]:
    """Every person with at least one labelled keypoint.

    Args:
        annotations: person_keypoints_*.json.
        images: folder of its pictures.

    Raises:
        SourceError: a file is missing, is no JSON, or lacks what COCO files have.
    """
    data = read_json(annotations, FETCH)
    try:
        pictures = {image["id"]: image for image in data["images"]}
        people = [a for a in data["annotations"] if is_usable(a)]
        return [_record(a, pictures[a["image_id"]], images) for a in people]
    except (KeyError, TypeError, ValueError) as error:
        raise foreign_file(
            f"{annotations.name} is no COCO keypoint file",
            error,
            "images, annotations with bbox, area, iscrowd, num_keypoints, keypoints",
            FETCH,
        ) from error


def is_usable(annotation: dict[str, Any]) -> bool:
    """Whether a person can be learned from: one person, a box, a keypoint."""
    _, _, width, height = annotation["bbox"]
    return (
        annotation.get("iscrowd", 0) == 0
        and annotation["area"] > 0
        and annotation["num_keypoints"] > 0
        and max(annotation["keypoints"]) > 0
        and width > 0
        and height > 0
    )


def _record(annotation: dict[str, Any], picture: dict[str, Any], folder: Path) -> Record:
    labels = np.asarray(annotation["keypoints"], np.float64).reshape(17, 3)
    points, state = COCO.keypoints(labels[:, :2], labels[:, 2].astype(np.uint8))
    xyz, located = nothing_located()
    return Record(
        source="coco",
        image=folder / picture["file_name"],
        bbox_xyxy=clip_box(xyxy_from_xywh(annotation["bbox"]), picture),
        keypoints_px=points,
        state=state,
        xyz=xyz,
        located=located,
        tags={"annotation": annotation["id"], "image_id": annotation["image_id"]},
    )


def clip_box(box: Array, picture: dict[str, Any]) -> Array:
    """Edges [4] cut to the picture."""
    limit = np.array([picture["width"], picture["height"]] * 2, np.float64)
    return box.clip(0.0, limit)


def read_json(path: Path, fetch: str) -> Any:
    """Parse a JSON file, or say what is missing and where it comes from."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise SourceError(
            f"{path.name} is not there", got=str(path), expected="a readable file", fix=fetch
        ) from error
    except ValueError as error:
        raise SourceError(
            f"{path.name} is no JSON", got=str(error), expected="a whole file", fix=fetch
        ) from error
