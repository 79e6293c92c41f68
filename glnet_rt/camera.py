"""Crop, image and metres: the only home of the formulas that join them. See docs/conventions.md.

    crop px    (x, y) of the network's S x S input; pixel centres on integers.
    uv         [-0.5, 0.5] across the crop, edge to edge: u = (x_crop + 0.5) / S - 0.5.
    image px   (x, y) of the frame; pixel centres on integers: x_image = center + u * side.
    camera     metres; x right, y down, z forward.

The crop's camera is a pinhole in units of the crop's side, so that none of this depends on S:
focal length `focal` (f_px / side_px) and `offset` (crop centre - principal point) / side_px.
The network gives a scale s, crop sides per metre at the pelvis (weak perspective), hence
pelvis depth = focal / s, metres; every other point is in full perspective from there.
With an unknown lens the principal point is the image centre and `focal` is NetSpec's: the virtual
camera. With known intrinsics both come from K, through `crop_camera`.

Letters: B people, N points each.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.spec import NetSpec

# Nearest pelvis `fit_camera_scale` believes in, metres.
MIN_DEPTH_M = 0.1
# Weight of the camera scale against N keypoints' squared spread in crop sides, about 1 to 2 in all.
DEPTH_TRUST = 0.1


def crop_px_to_uv(crop_px: Array, input_size: int) -> Array:
    """Crop px [..., 2] of an S = `input_size` crop -> uv [..., 2]."""
    return (crop_px + 0.5) / input_size - 0.5


def uv_to_crop_px(uv: Array, input_size: int) -> Array:
    """uv [..., 2] -> px [..., 2] of a crop of side S = `input_size`."""
    return (uv + 0.5) * input_size - 0.5


def uv_to_image_px(uv: Array, center_px: Array, side_px: Array | float) -> Array:
    """Where a crop's points lie in the image.

    Args:
        uv: [..., N, 2].
        center_px: [..., 2], centre of each square crop, image px.
        side_px: [...], its side, px.

    Returns:
        [..., N, 2], image px.
    """
    sides = np.asarray(side_px)[..., None, None]
    return np.asarray(center_px)[..., None, :] + uv * sides


def image_px_to_uv(image_px: Array, center_px: Array, side_px: Array | float) -> Array:
    """Inverse of `uv_to_image_px`, same shapes."""
    sides = np.asarray(side_px)[..., None, None]
    return (image_px - np.asarray(center_px)[..., None, :]) / sides


def image_offset(center_px: Array, side_px: Array | float, image_size: tuple[int, int]) -> Array:
    """Offset of crops in the virtual camera: (crop centre - image centre) / side.

    Args:
        center_px: [..., 2], image px.
        side_px: [...], px.
        image_size: (width, height), px; the image centre is ((W - 1) / 2, (H - 1) / 2).

    Returns:
        [..., 2], crop sides.
    """
    sides = np.asarray(side_px)[..., None]
    return (np.asarray(center_px) - image_center(image_size)) / sides


def image_center(image_size: tuple[int, int]) -> Array:
    """[2] float64, image px, of a (width, height) image."""
    return (np.asarray(image_size, dtype=np.float64) - 1.0) / 2.0


def virtual_intrinsics(side_px: Array | float, image_size: tuple[int, int], spec: NetSpec) -> Array:
    """The camera GLNet assumes where the lens is unknown; each crop has its own focal length.

    Args:
        side_px: [...], side of each crop, px.
        image_size: (width, height), px.
        spec: for its focal length over crop side.

    Returns:
        [..., 3, 3] float64 intrinsics, px, of the full image.
    """
    K = np.zeros((*np.shape(side_px), 3, 3))
    K[..., 0, 0] = K[..., 1, 1] = spec.focal * np.asarray(side_px)
    K[..., :2, 2] = image_center(image_size)
    K[..., 2, 2] = 1.0
    return K


def crop_camera(center_px: Array, side_px: Array | float, K: Array) -> tuple[Array, Array]:
    """A known lens as the camera of each crop, for `lift`.

    Args:
        center_px: [..., 2], image px.
        side_px: [...], px.
        K: [3, 3] intrinsics, px; fx, fy and the principal point are free, skew must be zero.

    Returns:
        focal [..., 2] (fx, fy over side) and offset [..., 2] (crop centre - principal point, over
        side).

    Raises:
        ContractError: K is no pinhole matrix without skew.
    """
    side = np.asarray(side_px)[..., None]
    expected = np.array([[K[0, 0], 0.0, K[0, 2]], [0.0, K[1, 1], K[1, 2]], [0.0, 0.0, 1.0]])
    if not (np.array_equal(K, expected) and min(K[0, 0], K[1, 1]) > 0 and np.isfinite(K).all()):
        raise ContractError(
            "K is not the matrix of a pinhole camera without skew",
            got=K.tolist(),
            expected="[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in px, fx > 0 and fy > 0",
            fix="undistort the image with a new camera matrix of that form (cv2.undistort)",
        )
    focal = np.array([K[0, 0], K[1, 1]]) / side
    return focal, (np.asarray(center_px) - K[:2, 2]) / side


def pelvis_depth(camera_scale: Array, focal: Array | float) -> Array:
    """Metres from camera to pelvis: focal / s; the only place of the weak-perspective convention.

    Args:
        camera_scale: [B], s, crop sides per metre at the pelvis.
        focal: focal length over crop side: one number, or [B, 2] for fx and fy, whose geometric
            mean counts (s is one scale for both axes and cannot tell them apart).

    Returns:
        [B].

    Raises:
        ContractError: a scale is not positive or not finite.
    """
    if not ((camera_scale > 0) & (camera_scale < np.inf)).all():
        raise ContractError(
            "the camera scale does not place the body in front of the camera",
            got=np.asarray(camera_scale)[~(camera_scale > 0)].tolist()[:4] or "non-finite values",
            expected="s > 0, crop sides per metre",
            fix="the model diverged on this picture or is untrained; run `glnet-rt verify`",
        )
    focal = np.asarray(focal)
    return (np.sqrt(focal[:, 0] * focal[:, 1]) if focal.ndim == 2 else focal) / camera_scale


def lift(
    keypoints_uvd: Array,
    camera_scale: Array,
    offset: Array,
    focal: Array | float,
    depth_range_m: float,
) -> Array:
    """Crop coordinates and depths to metres: every point on its own viewing ray.

    Args:
        keypoints_uvd: [B, N, 3]; u, v in the crop, depth d relative to the pelvis.
        camera_scale: [B], s, crop sides per metre at the pelvis.
        offset: [B, 2], from `image_offset` or `crop_camera`; zeros for a crop seen by itself.
        focal: focal length over crop side: one number, or [B, 2] from `crop_camera`.
        depth_range_m: metres spanned by d from -0.5 to 0.5.

    Returns:
        [B, N, 3], m, camera frame, absolute; its projection is (u, v) again, exactly.

    Raises:
        ContractError: a scale is not positive or not finite.
    """
    depth = pelvis_depth(camera_scale, focal)
    z = depth_range_m * keypoints_uvd[..., 2:] + depth[:, None, None]
    rays = keypoints_uvd[..., :2] + offset[:, None, :]
    focal = np.asarray(focal)
    return np.concatenate([rays * z / (focal[:, None, :] if focal.ndim else focal), z], axis=-1)


def fit_translation(
    joints: Array,
    keypoints_uv: Array,
    camera_scale: Array,
    offset: Array,
    focal: Array | float,
) -> Array:
    """Where a posed body stands so that its joints fall onto the predicted 2D keypoints.

    Linear least squares over the pelvis (x, y, z) in x + X_j = ray_j (z + Z_j), with a weak pull of
    z towards the camera scale's depth, which alone decides where the joints lie in one point.

    Args:
        joints: [B, N, 3], m, camera orientation, relative to the pelvis.
        keypoints_uv: [B, N, 2] in the crop.
        camera_scale: [B], s, crop sides per metre at the pelvis.
        offset: [B, 2], as for `lift`.
        focal: focal length over crop side, as for `lift`.

    Returns:
        [B, 3], m, the pelvis in the camera frame; between half and twice the scale's depth.

    Raises:
        ContractError: a scale is not positive or not finite.
    """
    expected = pelvis_depth(camera_scale, focal)
    pelvis = np.empty((len(joints), 3))
    _fit_translations(
        np.ascontiguousarray(joints, np.float64),
        keypoints_uv + offset[:, None, :],
        expected,
        np.full((len(joints), 2), focal, np.float64),
        pelvis,
    )
    return pelvis


def project(points: Array, K: Array) -> Array:
    """Camera metres [..., N, 3] -> image px [..., N, 2] through K [..., 3, 3]; z must not be 0."""
    homogeneous = points @ np.swapaxes(K, -1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def fit_camera_scale(
    keypoints_uv: Array,
    keypoints_xyz: Array,
    offset: Array,
    focal: float,
    weights: Array,
) -> Array:
    """The camera scale that best explains 2D keypoints, given the body: the training target of s.

    Linear least squares over the pelvis depth D in
    D (u_j - u_pelvis) = focal X_j - (u_j + offset) z_j, both axes stacked; s = focal / D.
    Exact where the points were seen by the very camera of `focal` and `offset`.

    Args:
        keypoints_uv: [B, N, 2] in the crop; point 0 is the pelvis.
        keypoints_xyz: [B, N, 3], m, camera frame, relative to the pelvis.
        offset: [B, 2], from `image_offset`.
        focal: focal length over crop side.
        weights: [B, N], >= 0, trust in each point.

    Returns:
        [B], s > 0; D is kept above MIN_DEPTH_M.

    Raises:
        ContractError: in some row no trusted point lies apart from the pelvis.
    """
    spread = keypoints_uv - keypoints_uv[:, :1]
    metres = focal * keypoints_xyz[..., :2]
    metres = metres - (keypoints_uv + offset[:, None, :]) * keypoints_xyz[..., 2:]
    normal = (weights[..., None] * spread * spread).sum((1, 2))
    if not (normal > 0).all():
        raise ContractError(
            "the camera scale is not determined by these keypoints",
            got=f"rows {np.flatnonzero(~(normal > 0)).tolist()[:8]}",
            expected="a point of positive weight that does not coincide with the pelvis",
            fix="leave these samples out of the supervision of the camera scale",
        )
    depth = (weights[..., None] * spread * metres).sum((1, 2)) / normal
    return focal / np.maximum(depth, MIN_DEPTH_M)


@nb.njit(cache=True, nogil=True)
def _fit_translations(
    joints: Array, slopes: Array, expected: Array, focal: Array, pelvis: Array
) -> None:
    """Solve every person's least squares for the pelvis [B, 3].

    Args:
        joints: [B, N, 3], m, relative to the pelvis.
        slopes: [B, N, 2]: keypoints plus offset, crop sides.
        expected: [B], m, depth by the camera scale.
        focal: [B, 2].
    """
    count = joints.shape[1]
    for b in range(len(joints)):
        normal, right = DEPTH_TRUST, DEPTH_TRUST * expected[b]
        means = np.zeros((2, 2))  # per axis, of rays and of metres
        for axis in range(2):
            lens = focal[b, axis]
            for k in range(count):
                ray = slopes[b, k, axis] / lens
                means[axis, 0] += ray / count
                means[axis, 1] += (joints[b, k, axis] - ray * joints[b, k, 2]) / count
            for k in range(count):
                ray = slopes[b, k, axis] / lens
                metres = joints[b, k, axis] - ray * joints[b, k, 2]
                spread = (ray - means[axis, 0]) * lens  # in crop sides, as the error is
                normal += spread * spread
                right += spread * (metres - means[axis, 1]) * lens
        z = min(max(right / normal, 0.5 * expected[b]), 2.0 * expected[b])
        for axis in range(2):
            pelvis[b, axis] = means[axis, 0] * z - means[axis, 1]
        pelvis[b, 2] = z
