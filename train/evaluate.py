"""Errors of a network on held-out people, beside two baselines: the mean pose and the global head.

What is measured is what the run time would give: the prediction of the best pixel, decoded by
`glnet_rt.decode`. 3D errors are over the 24 SMPL joints (root: pelvis); 2D errors over keypoints
inside the crop, in percent of the longer side of the person's box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.decode import BodyArrays, decode_arrays
from glnet_rt.rotation import rot6d_to_rotmat
from glnet_rt.skeleton import FLIP_JOINTS, FLIP_KEYPOINTS, FLIP_TWISTS, NUM_JOINTS
from train.data.augment import NO_AUGMENTATION, make_crop
from train.data.sample import Batch
from train.data.shards import SyntheticShards
from train.metrics import keypoint_error, mpjpe_mm, pa_mpjpe_mm, pck, pve_mm
from train.model.glnet import GLNet

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Errors:
    """Per-person errors of one way to predict, each [B].

    Attributes:
        mpjpe_mm, pa_mpjpe_mm, pve_mm: 3D.
        body_2d: mean 2D error of the projected 24 joints, % of the box.
        keypoints_2d: the same of the network's own 36 keypoints, or None for baselines.
        pck: threshold (box sides) -> share of the 24 joints within it, over all people.
    """

    mpjpe_mm: Array
    pa_mpjpe_mm: Array
    pve_mm: Array
    body_2d: Array
    keypoints_2d: Array | None
    pck: dict[float, float]

    def mean(self) -> dict[str, float]:
        """Means over people."""
        values = {
            "pa_mpjpe_mm": float(self.pa_mpjpe_mm.mean()),
            "mpjpe_mm": float(self.mpjpe_mm.mean()),
            "pve_mm": float(self.pve_mm.mean()),
            "body_2d_percent": float(np.nanmean(self.body_2d)),
        }
        if self.keypoints_2d is not None:
            values["keypoints_2d_percent"] = float(np.nanmean(self.keypoints_2d))
        return values | {f"pck_{t:g}": value for t, value in self.pck.items()}


@dataclass(frozen=True)
class Report:
    """GLNet, its global-only head, and the mean pose on the same people.

    Attributes:
        glnet, global_only: the network's two heads; `global_only` None without a baseline head.
        mean_pose: the best constant pose of these very people, with mean shape.
        kind: [B] pose family of each person.
        held_out: what training never showed -> [B] bool, in whose picture.
        count: people.
    """

    glnet: Errors
    global_only: Errors | None
    mean_pose: Errors
    kind: Array
    held_out: dict[str, Array]
    count: int

    def summary(self) -> dict[str, float]:
        """One flat row of means."""
        row = {**self.glnet.mean()}
        if self.global_only is not None:
            row |= {f"global_{k}": v for k, v in self.global_only.mean().items()}
        return row | {f"mean_pose_{k}": v for k, v in self.mean_pose.mean().items() if "mm" in k}

    def figures(self, who: Array) -> dict[str, float]:
        """Means of GLNet over some people, [B] bool, at least one; the others' are left out.

        `pa_mpjpe_standard_error_mm` says how far chance may move the first; the mean pose, by how
        much these people are easier or harder than others.
        """
        errors, count = self.glnet, int(who.sum())
        return {
            "people": count,
            "pa_mpjpe_mm": float(errors.pa_mpjpe_mm[who].mean()),
            "pa_mpjpe_standard_error_mm": float(errors.pa_mpjpe_mm[who].std() / count**0.5),
            "mpjpe_mm": float(errors.mpjpe_mm[who].mean()),
            "pve_mm": float(errors.pve_mm[who].mean()),
            "body_2d_percent": float(np.nanmean(errors.body_2d[who])),
            "mean_pose_pa_mpjpe_mm": float(self.mean_pose.pa_mpjpe_mm[who].mean()),
        }


@dataclass(frozen=True)
class Truth:
    """Labels of the evaluated people, in their crops."""

    bodies: BodyArrays
    uv: Array
    inside: Array


@torch.no_grad()
def evaluate(
    model: GLNet,
    people: SyntheticShards,
    body: BodyModel,
    indices: Sequence[int],
    batch_size: int = 64,
    flip: bool = False,
) -> Report:
    """Run the network on crops of `people[indices]` and compare with their labels.

    Args:
        flip: average every prediction with that of the mirrored crop, as some papers do; the run
            time does not.
    """
    training = model.training
    model.eval()
    truths, refined, coarse = [], [], []
    for start in range(0, len(indices), batch_size):
        batch = load_batch(model, people, indices[start : start + batch_size])
        outputs = predict(model, batch.image, flip)
        truths.append(true_bodies(batch, body))
        refined.append(decode_top1(model, outputs, body))
        if model.global_head.baseline is not None:
            coarse.append(decode_global(model, batch, body))
    model.train(training)
    truth = joined(truths)
    box = 1.0 / model.config.spec.box_scale
    focal = model.config.spec.focal
    bodies, uv = (
        joined([r[0] for r in refined]),
        np.concatenate([r[1] for r in refined]),
    )
    report = Report(
        glnet=errors(bodies, truth, box, focal, uv),
        global_only=errors(joined(coarse), truth, box, focal) if coarse else None,
        mean_pose=errors(mean_bodies(truth, body, focal), truth, box, focal),
        kind=people.labels["kind"][list(indices)],
        held_out={name: who[list(indices)] for name, who in people.held_out().items()},
        count=len(indices),
    )
    return report


@torch.no_grad()
def predict(model: GLNet, image: Tensor, flip: bool = False) -> dict[str, Array]:
    """Outputs of `GLNet.top1` for crops [B, 3, S, S]; with `flip` the mean of both mirror images.

    Scores and pixels are those of the crop itself.
    """
    image = image.to(next(model.parameters()).device)
    outputs = model.top1(image)
    if flip:
        mirrored = mirror_outputs(model.top1(image.flip(-1)))
        outputs |= {name: (outputs[name] + value) / 2 for name, value in mirrored.items()}
    return {name: value.float().cpu().numpy() for name, value in outputs.items()}


def mirror_outputs(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was predicted of the mirror image, for the image: sides swapped, x reversed."""
    keypoints = outputs["keypoints_uvd"][:, list(FLIP_KEYPOINTS)]
    mirrored = {
        "keypoints_uvd": keypoints * keypoints.new_tensor([-1.0, 1.0, 1.0]),
        "betas": outputs["betas"],
        "camera_scale": outputs["camera_scale"],
    }
    if "spread" in outputs:
        mirrored["spread"] = outputs["spread"][:, list(FLIP_KEYPOINTS)]
    if "rot6d" in outputs:
        rot6d = outputs["rot6d"][:, list(FLIP_JOINTS)].unflatten(-1, (3, 2))
        signs = rot6d.new_tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]])
        mirrored["rot6d"] = (rot6d * signs).flatten(-2)
    else:
        twist = outputs["twist"][:, list(FLIP_TWISTS)]
        mirrored["twist"] = twist * twist.new_tensor([1.0, -1.0])
    return mirrored


def load_batch(model: GLNet, people: SyntheticShards, indices: Sequence[int]) -> Batch:
    """Crops without augmentation."""
    rng = np.random.default_rng(0)
    spec = model.config.spec
    return Batch.stack([make_crop(people[i], spec, NO_AUGMENTATION, rng) for i in indices])


def true_bodies(batch: Batch, body: BodyModel) -> Truth:
    """Vertices and joints of the labels; the pelvis as far away as the camera scale says."""
    betas, rotmats = batch.betas.numpy(), batch.rotmats.numpy()
    posed = body(betas, rotmats)
    uv = batch.keypoints_uvd.numpy()[..., :2]
    bodies = BodyArrays(
        rotmats=rotmats,
        betas=betas,
        transl=np.zeros((len(betas), 3), np.float32),
        vertices=posed.vertices,
        joints=posed.joints,
    )
    return Truth(bodies, uv, batch.inside.numpy() > 0)


def decode_top1(
    model: GLNet, outputs: dict[str, Array], body: BodyModel
) -> tuple[BodyArrays, Array]:
    """The run time's own decode, of crops seen by themselves (offset zero)."""
    spec = model.config.spec
    net = net_output(model, outputs)
    offset = np.zeros((len(net.score), 2))
    return decode_arrays(body, spec, net, offset, spec.focal), net.keypoints_uvd[..., :2]


def net_output(model: GLNet, outputs: dict[str, Array]) -> NetOutput:
    """What `predict` gives as what the run time's decode takes."""
    pixel = outputs["pixel"].astype(np.int64)
    return NetOutput.from_arrays(model.config.spec, {**outputs, "pixel": pixel})


def decode_global(model: GLNet, batch: Batch, body: BodyModel) -> BodyArrays:
    """Bodies of the global head alone: its rotations, betas, scale and pelvis position."""
    features = model.backbone(batch.image.to(next(model.parameters()).device))
    pooled = model.backbone.pool(features)
    betas, _, scale = (v.cpu().numpy() for v in model.global_head(pooled))
    pose = model.global_head.global_pose(pooled)
    assert pose is not None
    rotmats = rot6d_to_rotmat(pose.rot6d.cpu().numpy())
    depth = model.config.spec.focal / scale
    pelvis = pose.pelvis_uv.cpu().numpy() * (depth / model.config.spec.focal)[:, None]
    posed = body(betas, rotmats)
    transl = np.column_stack([pelvis, depth]) - posed.joints[:, 0]
    return place(rotmats, betas, transl, posed.vertices, posed.joints)


def mean_bodies(truth: Truth, body: BodyModel, focal: float) -> BodyArrays:
    """The mean rotation of every joint, mean betas: what one guesses without looking."""
    total = truth.bodies.rotmats.astype(np.float64).sum(0)
    u, _, vt = np.linalg.svd(total)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    count = len(truth.bodies.betas)
    rotmats = np.repeat((u @ vt).astype(np.float32)[None], count, 0)
    betas = np.repeat(truth.bodies.betas.mean(0, keepdims=True), count, 0)
    posed = body(betas, rotmats)
    # Where the true pelvis is seen, four metres away: only 2D errors notice.
    depth = 4.0
    uv = truth.uv[:, 0] * depth / focal
    transl = np.column_stack([uv, np.full(count, depth)]) - posed.joints[:, 0]
    return place(rotmats, betas, transl, posed.vertices, posed.joints)


def place(
    rotmats: Array, betas: Array, transl: Array, vertices: Array, joints: Array
) -> BodyArrays:
    transl = transl.astype(np.float32)
    return BodyArrays(rotmats, betas, transl, vertices + transl[:, None], joints + transl[:, None])


def errors(
    bodies: BodyArrays, truth: Truth, box: float, focal: float, uv: Array | None = None
) -> Errors:
    """Compare bodies with the truth; `box` is the box's longer side over the crop's."""
    true = truth.bodies
    projected = focal * bodies.joints[..., :2] / np.maximum(bodies.joints[..., 2:], 0.05)
    inside = truth.inside[:, :NUM_JOINTS]
    target = truth.uv[:, :NUM_JOINTS]
    seen = projected if uv is None else uv[:, :NUM_JOINTS]
    return Errors(
        mpjpe_mm=mpjpe_mm(bodies.joints, true.joints),
        pa_mpjpe_mm=pa_mpjpe_mm(bodies.joints, true.joints),
        pve_mm=pve_mm(bodies.vertices, true.vertices, bodies.joints[:, 0], true.joints[:, 0]),
        body_2d=keypoint_error(projected / box, target / box, inside),
        keypoints_2d=None if uv is None else keypoint_error(uv / box, truth.uv / box, truth.inside),
        pck={t: pck(seen / box, target / box, inside, t) for t in PCK_THRESHOLDS},
    )


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Dataclasses of arrays [B, ...], and of such dataclasses, as one of all people."""
    return type(parts[0])(**{f.name: _joined_field(parts, f.name) for f in fields(parts[0])})  # type: ignore[arg-type]


def _joined_field(parts: Sequence[Any], name: str) -> Any:
    values = [getattr(part, name) for part in parts]
    return joined(values) if is_dataclass(values[0]) else np.concatenate(values)
