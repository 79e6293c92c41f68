"""The protocols results are published under, each as its own evaluation code defines it.

All joints are metres in the camera frame, all errors millimetres, one per person; means are the
caller's. H36M's 17 joints are in the regressor's order, left side first.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from glnet_rt.skeleton import LSP_FROM_H36M
from train.data.real.coco import FETCH, read_json
from train.metrics import procrustes

LEFT_HIP, RIGHT_HIP = 3, 2  # of LSP's 14
H36M_PELVIS = 0
COCO_FIGURES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
MPI_PCK_MM = 150.0
MPI_AUC_MM = np.arange(0.0, 155.0, 5.0)
MPI_COUNTED = tuple(range(14))  # of MPI-INF-3DHP's 17: without pelvis, spine and head


@dataclass(frozen=True)
class JointErrors:
    """MPJPE and PA-MPJPE of every person, each [B] mm."""

    mpjpe_mm: Array
    pa_mpjpe_mm: Array


def h36m_14_errors(
    joints: Array, target: Array, *, align_all: bool = False, hip_root: bool = False
) -> JointErrors:
    """Errors over LSP's 14 of Human3.6M's 17 joints, as 3DPW and Human3.6M (P2) are reported.

    Args:
        joints, target: [B, 17, 3] m, what `J_regressor_h36m` gives for both meshes.
        align_all: align the 17 and then choose the 14, as HybrIK does on Human3.6M; otherwise
            choose and then align, as SPIN does and HybrIK on 3DPW.
        hip_root: MPJPE counted from the middle of the hips (HMR, VIBE) and not from the pelvis
            (SPIN, HybrIK).
    """
    chosen = list(LSP_FROM_H36M)
    found, truth = joints[:, chosen], target[:, chosen]
    if hip_root:
        roots = [(j[:, LEFT_HIP] + j[:, RIGHT_HIP])[:, None] / 2 for j in (found, truth)]
    else:
        roots = [j[:, H36M_PELVIS, None] for j in (joints, target)]
    aligned = procrustes(joints, target)[:, chosen] if align_all else procrustes(found, truth)
    return JointErrors(distance_mm(found - roots[0], truth - roots[1]), distance_mm(aligned, truth))


def distance_mm(points: Array, target: Array) -> Array:
    """Mean distance of point sets [B, N, 3] m -> [B] mm."""
    distances: Array = 1000 * np.linalg.norm(points - target, axis=-1).mean(1)
    return distances


@dataclass(frozen=True)
class MpiReport:
    """MPI-INF-3DHP: MPJPE over 17 joints in mm, PCK at 150 mm and AUC over 14 in percent."""

    mpjpe_mm: float
    pck_percent: float
    auc_percent: float


def mpi_3dhp(joints: Array, target: Array, pelvis: int = 14) -> MpiReport:
    """The test set's figures.

    Args:
        joints, target: [B, 17, 3] m, in the test set's own order; the target is `univ_annot3`.
        pelvis: the root, at which both are put together.
    """
    error = 1000 * np.linalg.norm(
        (joints - joints[:, pelvis, None]) - (target - target[:, pelvis, None]), axis=-1
    )
    counted = error[:, list(MPI_COUNTED)]
    curve = [(counted < threshold).mean() for threshold in MPI_AUC_MM]
    pck = (counted < MPI_PCK_MM).mean()
    return MpiReport(float(error.mean()), float(100 * pck), float(100 * np.mean(curve)))


def coco_oks(
    annotations: Path | Sequence[Path], results: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """COCO's ten figures of keypoint results, by pycocotools.

    Args:
        annotations: person_keypoints_*.json, or several as one set.
        results: image_id, category_id, keypoints [51], score of each person.

    Raises:
        SourceError: no results, or of other pictures; a picture in two sets.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    files = [annotations] if isinstance(annotations, Path) else list(annotations)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by printing
        truth = COCO()
        truth.dataset = joined_coco(files)
        truth.createIndex()
        if not results or not {r["image_id"] for r in results} <= set(truth.getImgIds()):
            raise SourceError(
                "keypoint results do not fit the annotations",
                got=f"{len(results)} results",
                expected=f"people in pictures of {', '.join(f.name for f in files)}",
                fix="evaluate the results of this split",
            )
        evaluation = COCOeval(truth, truth.loadRes(list(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(COCO_FIGURES, (float(v) for v in evaluation.stats), strict=True))


def joined_coco(files: Sequence[Path]) -> dict[str, Any]:
    """Several splits as one; people are numbered anew, since splits need not know each other."""
    splits = [read_json(file, FETCH) for file in files]
    images = [image for split in splits for image in split["images"]]
    people = [person for split in splits for person in split["annotations"]]
    if len({image["id"] for image in images}) < len(images):
        raise SourceError(
            "a picture belongs to several splits",
            got=", ".join(file.name for file in files),
            expected="splits without common pictures",
            fix="evaluate one of them: --coco-splits",
        )
    return {
        "info": {},
        "images": images,
        "annotations": [{**person, "id": n} for n, person in enumerate(people, start=1)],
        "categories": splits[0]["categories"],
    }
