"""What the network says -> bodies in metres. Evaluation and export checks decode with this too.

The network gives 2D keypoints, their depths, a scale, a shape and either twists or rotations.
Lifting makes keypoints metres, inverse kinematics makes them rotations, the body model makes those
a mesh, and the pelvis is put where the lifted pelvis is; where the network gave the rotations
itself, where the posed joints fit the 2D keypoints best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glnet_rt.body_model import BodyModel, forward_kinematics
from glnet_rt.camera import (
    crop_camera,
    fit_translation,
    image_offset,
    lift,
    uv_to_image_px,
    virtual_intrinsics,
)
from glnet_rt.contracts import Array, Crop, NetOutput, Person
from glnet_rt.errors import ContractError
from glnet_rt.kinematic_fit import kinematic_fit
from glnet_rt.kinematics import inverse_kinematics
from glnet_rt.rotation import rot6d_to_rotmat
from glnet_rt.skeleton import NUM_JOINTS, NUM_SKELETON
from glnet_rt.spec import NetSpec


@dataclass(frozen=True, slots=True, eq=False)
class BodyArrays:
    """B bodies in metres in the camera frame, all float32.

    Attributes:
        rotmats: [B, 24, 3, 3], local; index 0 is the global orientation, camera from body.
        betas: [B, n].
        transl: [B, 3], m; SMPL's own: joints = joints(betas, pose) + transl.
        vertices: [B, V, 3], m, translation included.
        joints: [B, 24, 3], m, translation included.
    """

    rotmats: Array
    betas: Array
    transl: Array
    vertices: Array
    joints: Array


def decode_arrays(
    body: BodyModel, spec: NetSpec, output: NetOutput, offset: Array, focal: Array | float
) -> BodyArrays:
    """The one way from network output to bodies.

    Args:
        body: the body whose betas the network predicts.
        spec: of the network.
        output: B people.
        offset: [B, 2], of each crop's camera: `camera.image_offset`, `camera.crop_camera`, or
            zeros for crops seen by themselves.
        focal: focal length over crop side: `spec.focal`, or [B, 2] from `camera.crop_camera`.

    Returns:
        B bodies; the whole batch goes through the body model at once.

    Raises:
        ContractError: a camera scale is not positive.
    """
    rest = body.rest_skeleton(output.betas)
    if output.twist is not None:
        skeleton = output.keypoints_uvd[:, :NUM_SKELETON]
        skeleton = lift(skeleton, output.camera_scale, offset, focal, spec.depth_range_m)
        rotmats = inverse_kinematics(skeleton, output.twist, rest).astype(np.float32)
        pelvis = skeleton[:, 0]
    else:
        rotmats = _told_rotations(output).astype(np.float32)
        pelvis = _stand(rotmats, rest, output, offset, focal)
        if spec.fit_prior_rad:
            skeleton = output.keypoints_uvd[:, :NUM_SKELETON, :2]
            spread = _told_spread(output)[:, :NUM_SKELETON]
            rotmats = kinematic_fit(
                rotmats, rest, pelvis, skeleton, spread, offset, focal, spec.fit_prior_rad
            ).astype(np.float32)
            pelvis = _stand(rotmats, rest, output, offset, focal)
    transl = (pelvis - rest[:, 0]).astype(np.float32)
    posed = body(output.betas, rotmats, transl)
    return BodyArrays(rotmats, output.betas, transl, posed.vertices, posed.joints)


def _stand(
    rotmats: Array, rest: Array, output: NetOutput, offset: Array, focal: Array | float
) -> Array:
    """[B, 3] pelvis of bodies not solved for from keypoints: all joints vote on their place."""
    _, joints = forward_kinematics(rotmats, rest[:, :NUM_JOINTS])
    keypoints = output.keypoints_uvd[:, :NUM_JOINTS, :2]
    relative = joints - joints[:, :1]
    return fit_translation(relative, keypoints, output.camera_scale, offset, focal)


def _told_rotations(output: NetOutput) -> Array:
    """[B, 24, 3, 3] of a network that tells rotations itself."""
    if output.rot6d is not None:
        return rot6d_to_rotmat(output.rot6d)
    raise ContractError(
        "the network output holds no rotations",
        got="twist None, rot6d None",
        expected="one of them",
        fix="wrap raw outputs with NetOutput.from_arrays",
    )


def _told_spread(output: NetOutput) -> Array:
    """[B, 36] of a network whose rotations are fitted to its keypoints."""
    if output.spread is not None:
        return output.spread
    raise ContractError(
        "the network output does not say how far off keypoints may be",
        got="spread None",
        expected="[B, 36], since fit_prior_rad is above zero",
        fix="wrap raw outputs with NetOutput.from_arrays",
    )


class Decoder:
    """Turns the network's output for the crops of one image into people.

    Args:
        body: body model.
        spec: of the network.

    Raises:
        ContractError: the network was trained on another body.
    """

    def __init__(self, body: BodyModel, spec: NetSpec) -> None:
        check_same_body(body, spec)
        self.body = body
        self.spec = spec

    def __call__(
        self,
        output: NetOutput,
        crops: Sequence[Crop],
        image_size: tuple[int, int],
        K: Array | None = None,
    ) -> tuple[Person, ...]:
        """Decode all people of an image in one batch.

        Args:
            output: one row per crop.
            crops: where each person was looked for.
            image_size: (width, height), px.
            K: [3, 3] float64 intrinsics of the image, px, without skew. None assumes the virtual
                camera, which differs from crop to crop; all people of one picture share a frame of
                reference only under a known K.

        Returns:
            One Person per crop, in their order.

        Raises:
            ContractError: crops and output disagree in number, a camera scale is not positive, or
                K is no pinhole matrix.
        """
        if len(crops) != len(output.score):
            raise ContractError(
                "crops and network output disagree",
                got=f"{len(output.score)} outputs",
                expected=f"{len(crops)}, one per crop",
                fix="hand over the crops of this very batch, all of one image",
            )
        if not crops:
            return ()
        center_px = np.stack([crop.center_px for crop in crops])
        side_px = np.array([crop.side_px for crop in crops])
        focal, offset, intrinsics = crop_lenses(center_px, side_px, image_size, self.spec, K)
        bodies = decode_arrays(self.body, self.spec, output, offset, focal)
        keypoints_px = uv_to_image_px(output.keypoints_uvd[..., :2], center_px, side_px)
        keypoints_px = keypoints_px.astype(np.float32)
        boxes = [crop.bbox_xyxy for crop in crops]
        return as_people(bodies, keypoints_px, output.score, boxes, intrinsics)


def as_people(
    bodies: BodyArrays,
    keypoints_px: Array,
    score: Array,
    boxes: Sequence[Array],
    intrinsics: Sequence[Array],
) -> tuple[Person, ...]:
    """One Person per row.

    Args:
        bodies: B of them.
        keypoints_px: [B, 36, 2] float32, image px.
        score: [B].
        boxes: B times [4], edges in image px.
        intrinsics: B times [3, 3] float64, px.
    """
    return tuple(
        Person(
            vertices=bodies.vertices[i],
            joints=bodies.joints[i],
            keypoints_px=keypoints_px[i],
            global_orient=bodies.rotmats[i, 0],
            body_pose=bodies.rotmats[i, 1:],
            betas=bodies.betas[i],
            transl=bodies.transl[i],
            bbox_xyxy=box.astype(np.float32),
            score=float(score[i]),
            K=intrinsics[i],
        )
        for i, box in enumerate(boxes)
    )


def crop_lenses(
    center_px: Array,
    side_px: Array,
    image_size: tuple[int, int],
    spec: NetSpec,
    K: Array | None,
) -> tuple[Array | float, Array, list[Array]]:
    """The camera of each crop: through K, or the virtual one where the lens is unknown.

    Args:
        center_px: [B, 2], image px.
        side_px: [B], px.
        image_size: (width, height), px.
        spec: for the virtual camera.
        K: [3, 3] intrinsics, px, or None.

    Returns:
        focal: over crop side; one number, or [B, 2].
        offset: [B, 2], crop sides.
        intrinsics: B times [3, 3] float64, px, of the full image.

    Raises:
        ContractError: K is no pinhole matrix.
    """
    if K is None:
        intrinsics = list(virtual_intrinsics(side_px, image_size, spec))
        return spec.focal, image_offset(center_px, side_px, image_size), intrinsics
    focal, offset = crop_camera(center_px, side_px, K)
    return focal, offset, [K] * len(side_px)


def check_same_body(body: BodyModel, spec: NetSpec) -> None:
    """Raise ContractError unless `body` is the one whose betas the network learned.

    A NetSpec that names no body fits any: its writer took on the checking.
    """
    if spec.body_sha256 and spec.body_sha256 != body.sha256:
        raise ContractError(
            "the network was trained on another body; its betas mean nothing to this one",
            got=f"{body.body_id or 'unnamed'}, sha256 {body.sha256}",
            expected=f"{spec.body_id or 'unnamed'}, sha256 {spec.body_sha256}",
            fix="use the body.npz of the model's own artifact, or train on this body",
        )
