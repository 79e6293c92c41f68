"""Torch twins of the run time's rotations, lifting and inverse kinematics.

The run time computes these person by person in numba (`glnet_rt.kinematics`, `.rotation`,
`.camera`); here they are batched over people and tree levels, differentiable, and made of
operators that ONNX knows: no SVD, no eigenvalue solver. Tests hold both equal; what the formulas
mean is written there.

Gradients are finite everywhere, also where a bone does not swing, swings exactly backwards or has
no length. Letters: B people, N points.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from glnet_rt.errors import ContractError
from glnet_rt.kinematics import FALLBACK_M, SQUARINGS, TINY_M, TINY_SINE, UP
from glnet_rt.skeleton import BONE_CHILD, NUM_JOINTS, PARENTS, ROOT_CHILDREN


def _tree_levels() -> tuple[range, ...]:
    """Joints by distance from the root: what one batched step down the tree solves at once.

    SMPL numbers its joints breadth first, so that each level is a range.
    """
    depth = [0]
    for parent in PARENTS[1:NUM_JOINTS]:
        depth.append(depth[parent] + 1)
    starts = [depth.index(level) for level in range(depth[-1] + 1)] + [NUM_JOINTS]
    return tuple(range(start, stop) for start, stop in pairwise(starts))


LEVELS = _tree_levels()
_CHILDREN = list(BONE_CHILD[1:])
_PARENTS = list(PARENTS[1:NUM_JOINTS])


def inverse_kinematics(
    skeleton_xyz: Tensor,
    twist: Tensor,
    rest: Tensor,
    *,
    detach: bool = True,
    reconstruct: bool = True,
) -> Tensor:
    """Joint rotations that pose the rest skeleton like the predicted one.

    Args:
        skeleton_xyz: [B, 29, 3], m, camera frame, any origin.
        twist: [B, 23, 2], (cos, sin) of the twist of joints 1..23; normalised here.
        rest: [B, 29, 3], m, joints of the unposed body.
        detach: let no gradient through `skeleton_xyz` and `rest`, so that a loss on rotations
            trains the twist alone. False lets it move the joints and the shape too.
        reconstruct: aim each bone from the joint as reconstructed so far, as the run time does.
            False follows the predicted bones alone.

    Returns:
        [B, 24, 3, 3], local; index 0 is the global orientation, camera from body.

    Raises:
        ContractError: called under autocast.
    """
    _refuse_autocast(skeleton_xyz)
    if detach:
        skeleton_xyz, rest = skeleton_xyz.detach(), rest.detach()
    joints, rests = skeleton_xyz[:, 1:NUM_JOINTS], rest[:, 1:NUM_JOINTS]
    children, bones = skeleton_xyz[:, _CHILDREN], rest[:, _CHILDREN] - rests
    offsets = rests - rest[:, _PARENTS]
    lengths = bones.detach().square().sum(-1, keepdim=True).sqrt()
    axes = _unit(bones, _up_like(bones))
    turns = _turn(axes, twist)
    predicted = children - joints
    ends = lengths * _unit(predicted, torch.zeros_like(predicted))

    world = _best_rotation(rest, skeleton_xyz)[:, None]
    placed = skeleton_xyz[:, :1]
    local = [world]
    for above, level in pairwise(LEVELS):
        parents = [PARENTS[joint] - above.start for joint in level]
        row = slice(level.start - 1, level.stop - 1)  # of arrays without the root
        to_camera = world[:, parents]
        placed = placed[:, parents] + _rotate(to_camera, offsets[:, row])
        target = predicted[:, row]
        if reconstruct:
            aimed = children[:, row] - placed
            drift = (aimed - ends[:, row]).square().sum(-1, keepdim=True)
            target = torch.where(drift > FALLBACK_M**2, target, aimed)
        axis = axes[:, row]
        direction = _unit(_rotate(to_camera.mT, target), axis)
        direction = torch.where(lengths[:, row] < TINY_M, axis, direction)
        local.append(_swing(axis, direction) @ turns[:, row])
        world = to_camera @ local[-1]
    return torch.cat(local, 1)


def twist_from_rotations(rotmats: Tensor, rest: Tensor) -> Tensor:
    """The twist `inverse_kinematics` needs to give `rotmats` back: its training target.

    Args:
        rotmats: [B, 24, 3, 3], local.
        rest: [B, 29, 3], m, joints of the unposed body.

    Returns:
        [B, 23, 2], unit (cos, sin) of joints 1..23.

    Raises:
        ContractError: called under autocast.
    """
    _refuse_autocast(rotmats)
    bones = rest[:, _CHILDREN] - rest[:, 1:NUM_JOINTS]
    axes = _unit(bones, _up_like(bones))
    rotations = rotmats[:, 1:]
    turn = _swing(axes, _unit(_rotate(rotations, axes), axes)).mT @ rotations
    skew = torch.stack(
        [
            turn[..., 2, 1] - turn[..., 1, 2],
            turn[..., 0, 2] - turn[..., 2, 0],
            turn[..., 1, 0] - turn[..., 0, 1],
        ],
        -1,
    )
    cos = turn[..., 0, 0] + turn[..., 1, 1] + turn[..., 2, 2] - 1.0
    return _unit_turn(torch.stack([cos, (axes * skew).sum(-1)], -1))


def forward_kinematics(rotmats: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """Pose a rest skeleton.

    Args:
        rotmats: [B, 24, 3, 3], local.
        rest_joints: [B, N, 3], m, N = 24 joints, or 29 with the five leaves.

    Returns:
        world [B, 24, 3, 3], each joint's rotation in the frame of the root's parent (the camera);
        joints [B, N, 3], m, the pelvis where it rests.

    Raises:
        ContractError: called under autocast.
    """
    _refuse_autocast(rotmats)
    points = rest_joints.shape[1]
    parents = list(PARENTS[1:points])
    world = [rotmats[:, :1]]
    for above, level in pairwise(LEVELS):
        to_camera = world[-1][:, [PARENTS[joint] - above.start for joint in level]]
        world.append(to_camera @ rotmats[:, level.start : level.stop])
    rotations = torch.cat(world, 1)
    bones = _rotate(rotations[:, parents], rest_joints[:, 1:] - rest_joints[:, parents])
    joints = [rest_joints[:, 0]]
    for parent, bone in zip(parents, bones.unbind(1), strict=True):
        joints.append(joints[parent] + bone)
    return rotations, torch.stack(joints, 1)


def lift(
    keypoints_uvd: Tensor,
    camera_scale: Tensor,
    offset: Tensor,
    focal: float,
    depth_range_m: float,
) -> Tensor:
    """Crop coordinates and depths to metres, as `glnet_rt.camera.lift` does for the virtual camera.

    Args:
        keypoints_uvd: [B, N, 3]; u, v in the crop, depth d relative to the pelvis.
        camera_scale: [B], s > 0, crop sides per metre at the pelvis.
        offset: [B, 2], (crop centre - image centre) / side.
        focal: focal length over crop side.
        depth_range_m: metres spanned by d from -0.5 to 0.5.

    Returns:
        [B, N, 3], m, camera frame, absolute.
    """
    z = depth_range_m * keypoints_uvd[..., 2:] + (focal / camera_scale)[:, None, None]
    rays = (keypoints_uvd[..., :2] + offset[:, None]) / focal
    return torch.cat([rays * z, z], -1)


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """Gram-Schmidt on two columns, [..., 6] -> [..., 3, 3]; layout reshape(..., 3, 2).

    Parallel or zero columns give a finite matrix that is no rotation.
    """
    columns = rot6d.unflatten(-1, (3, 2))
    x = F.normalize(columns[..., 0], dim=-1, eps=1e-8)
    second = columns[..., 1]
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1, eps=1e-8)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    """Rodrigues' formula, [..., 3] rad -> [..., 3, 3]; smooth through the zero vector."""
    square = rotvec.square().sum(-1)[..., None, None]
    tiny = square < 1e-8
    angle = torch.where(tiny, torch.ones_like(square), square).sqrt()
    sin_over = torch.where(tiny, 1 - square / 6, angle.sin() / angle)
    # (1 - cos a) / a², free of cancellation.
    cos_over = torch.where(
        tiny, 0.5 - square / 24, 0.5 * ((angle / 2).sin() / (angle / 2)).square()
    )
    skew = _skew(rotvec)
    return _eye_like(skew) + sin_over * skew + cos_over * (skew @ skew)


def _swing(t: Tensor, p: Tensor) -> Tensor:
    """Shortest rotation from unit t to unit p, [..., 3] -> [..., 3, 3]; valid at p = -t.

    Both branches are computed and finite; see `glnet_rt.kinematics` for what they are.
    """
    w = torch.linalg.cross(t, p)
    cos = (t * p).sum(-1, keepdim=True)
    backwards = cos < 0
    sign = torch.where(backwards, -1.0, 1.0).to(t.dtype)
    short = _rotation_between(sign * w, (sign * cos)[..., None])
    across = _perpendicular(t)
    clear = w.square().sum(-1, keepdim=True) > TINY_SINE**2
    axis = _unit(torch.where(clear, w - (w * t).sum(-1, keepdim=True) * t, across), across)
    half_turn = 2 * axis[..., :, None] * axis[..., None, :] - _eye_like(short)
    return torch.where(backwards[..., None], short @ half_turn, short)


def _rotation_between(w: Tensor, cos: Tensor) -> Tensor:
    """Rodrigues for the axis w [..., 3] of length sin, and cos [..., 1, 1] >= 0."""
    outer = w[..., :, None] * w[..., None, :]
    skew = _skew(w)
    return cos * _eye_like(skew) + skew + outer / (1 + cos)


def _turn(axis: Tensor, twist: Tensor) -> Tensor:
    """Rotation about unit axis [..., 3] by (cos, sin) [..., 2] of any length."""
    cos, sin = _unit_turn(twist)[..., None, None].unbind(-3)
    skew = _skew(axis)
    outer = axis[..., :, None] * axis[..., None, :]
    return cos * _eye_like(skew) + sin * skew + (1 - cos) * outer


def _unit_turn(turn: Tensor) -> Tensor:
    """(cos, sin) [..., 2] on the unit circle; (0, 0) becomes (1, 0)."""
    still = torch.cat([torch.ones_like(turn[..., :1]), torch.zeros_like(turn[..., :1])], -1)
    return _unit(turn, still, tiny=1e-12)


def _best_rotation(rest: Tensor, points: Tensor) -> Tensor:
    """Rotation [B, 3, 3] that best brings the root's three rest bones onto the predicted ones."""
    a = rest[:, list(ROOT_CHILDREN)] - rest[:, :1]
    b = points[:, list(ROOT_CHILDREN)] - points[:, :1]
    squares = a.square().sum(-1) * b.square().sum(-1)
    degenerate = squares.amax(-1) < TINY_M**4
    s = a.mT @ b
    unturned = torch.diag(s.new_tensor([1.0, 0.0, 0.0, 0.0]))
    # All eigenvalues of N lie in [-total, total]; shifted, the largest is the dominant one.
    safe = torch.where(squares > TINY_M**4, squares, torch.full_like(squares, TINY_M**4))
    total = safe.sqrt().sum(-1)[:, None, None]
    n = _horn_matrix(s) / total + torch.eye(4, dtype=s.dtype, device=s.device)
    n = torch.where(degenerate[:, None, None], unturned, n)
    for _ in range(SQUARINGS):
        n = n / n.amax((1, 2), keepdim=True)
        n = n @ n
    pivot = n.diagonal(dim1=-2, dim2=-1).argmax(-1)[:, None, None].expand(-1, 1, 4)
    return _unitquat_to_rotmat(F.normalize(n.gather(1, pivot)[:, 0], dim=-1))


def _horn_matrix(s: Tensor) -> Tensor:
    """Horn's N [B, 4, 4], quaternions (w, x, y, z), from s = sum of rest x predicted bone."""
    xx, yy, zz = s[:, 0, 0], s[:, 1, 1], s[:, 2, 2]
    wx, wy, wz = s[:, 1, 2] - s[:, 2, 1], s[:, 2, 0] - s[:, 0, 2], s[:, 0, 1] - s[:, 1, 0]
    xy, xz, yz = s[:, 0, 1] + s[:, 1, 0], s[:, 2, 0] + s[:, 0, 2], s[:, 1, 2] + s[:, 2, 1]
    rows = [xx + yy + zz, wx, wy, wz]
    rows += [wx, xx - yy - zz, xy, xz]
    rows += [wy, xy, yy - xx - zz, yz]
    rows += [wz, xz, yz, zz - xx - yy]
    return torch.stack(rows, -1).unflatten(-1, (4, 4))


def _unitquat_to_rotmat(q: Tensor) -> Tensor:
    w, xyz = q[..., :1, None], q[..., 1:]
    outer = xyz[..., :, None] * xyz[..., None, :]
    skew = _skew(xyz)
    return 2 * (outer + w * skew) + (2 * w.square() - 1) * _eye_like(skew)


def _perpendicular(t: Tensor) -> Tensor:
    """A unit vector across unit t: from the coordinate axis that lies least along it."""
    x, y, z = t.abs().unbind(-1)
    first = (x <= y) & (x <= z)
    second = ~first & (y <= z)
    least = torch.stack([first, second, ~(first | second)], -1).to(t.dtype)
    return F.normalize(torch.linalg.cross(least, t), dim=-1)


def _unit(v: Tensor, otherwise: Tensor, tiny: float = TINY_M) -> Tensor:
    """v / |v|, or `otherwise` where v is shorter than `tiny`; no gradient reaches v there."""
    square = v.square().sum(-1, keepdim=True)
    long = square >= tiny**2
    return torch.where(
        long, v / torch.where(long, square, torch.ones_like(square)).sqrt(), otherwise
    )


def _rotate(rotmats: Tensor, vectors: Tensor) -> Tensor:
    return (rotmats @ vectors[..., None])[..., 0]


def _skew(v: Tensor) -> Tensor:
    """[..., 3] -> [..., 3, 3] with skew(a) @ b = a x b."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def _eye_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _up_like(vectors: Tensor) -> Tensor:
    return vectors.new_tensor(UP)


def _refuse_autocast(tensor: Tensor) -> None:
    """Matrix products in half precision would cost degrees, silently."""
    if torch.is_autocast_enabled(tensor.device.type):
        raise ContractError(
            "kinematics called under autocast",
            got="matrix products in half precision",
            expected="float32 or float64 throughout",
            fix="wrap the call in torch.autocast(device_type, enabled=False), inputs as float32",
        )
