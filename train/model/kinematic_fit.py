"""Torch twin of the run time's kinematic fit, of operators that ONNX and TensorRT have.

`glnet_rt.kinematic_fit` solves person by person, joint by joint along the tree: hundreds of small
operators for either. Here Jacobians are one masked product over all keypoints and joints, and the
dense system is solved by inverting it with a fixed number of matrix products. Tests hold both
equal.

Letters: B people, J = 24 joints, S = 29 points of the skeleton, U = 75 unknowns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glnet_rt.kinematic_fit import NEAREST_M, SHIFT_PRIOR_M
from glnet_rt.skeleton import NUM_JOINTS, NUM_SKELETON, PARENTS
from train.model.kinematics import forward_kinematics, rotvec_to_rotmat

# Each squares what is still wrong. At the shipped prior 12 leave what float32 does (2e-5 degrees),
# at one six times as loose 16; conjugate gradients take 64 and more, and seven times the operators.
SQUARINGS = 16
LEAST_SPREAD = 1e-3  # crop sides; no network tells less, and zero would weigh infinitely


def _turns_by() -> list[list[float]]:
    """[S, J]: 1 where turning a joint moves a point, that is, where it is an ancestor of it."""
    table = [[0.0] * NUM_JOINTS for _ in range(NUM_SKELETON)]
    for point in range(NUM_SKELETON):
        joint = PARENTS[point]
        while joint >= 0:
            table[point][joint] = 1.0
            joint = PARENTS[joint]
    return table


MOVES = _turns_by()


def kinematic_fit(
    rotmats: Tensor,
    rest: Tensor,
    pelvis: Tensor,
    keypoints_uv: Tensor,
    spread: Tensor,
    offset: Tensor,
    focal: Tensor,
    prior_rad: float,
) -> Tensor:
    """Rotations after one Gauss-Newton step; see `glnet_rt.kinematic_fit.kinematic_fit`.

    Finite for finite inputs: points behind the camera and bones without length say nothing.

    Args:
        rotmats: [B, 24, 3, 3], local; index 0 is camera from body.
        rest: [B, 29, 3] m, the unposed skeleton.
        pelvis: [B, 3] m, where it stands in the camera.
        keypoints_uv: [B, 29, 2] in the crop.
        spread: [B, 29], expected |du| + |dv| of each; below `LEAST_SPREAD` counts as that.
        offset: [B, 2], as for `camera.lift`.
        focal: [B, 2], focal lengths over crop side.
        prior_rad: standard deviation of a joint's rotation, above zero.

    Returns:
        [B, 24, 3, 3].

    Raises:
        ContractError: called under autocast.
    """
    world, joints = forward_kinematics(rotmats, rest)
    points = joints - joints[:, :1] + pelvis[:, None]
    jacobian, residual = _linearised(points, keypoints_uv, spread, offset, focal)
    stiffness = points.new_tensor([prior_rad**-2] * (3 * NUM_JOINTS) + [SHIFT_PRIOR_M**-2] * 3)
    turns = _solve(jacobian, stiffness, residual)[:, : 3 * NUM_JOINTS]
    moved = rotvec_to_rotmat(turns.unflatten(1, (NUM_JOINTS, 3))) @ world
    above = world[:, list(PARENTS[1:NUM_JOINTS])]
    return torch.cat([moved[:, :1], above.mT @ moved[:, 1:]], 1)


def _linearised(
    points: Tensor, keypoints_uv: Tensor, spread: Tensor, offset: Tensor, focal: Tensor
) -> tuple[Tensor, Tensor]:
    """Projections by turns and shift [B, 2S, U], and what they miss [B, 2S], both over spreads."""
    seen = points[..., 2] >= NEAREST_M
    depth = torch.where(seen, points[..., 2], torch.ones_like(points[..., 2]))[..., None]
    slope = focal[:, None] / depth  # [B, S, 2]
    fall = -slope * points[..., :2] / depth
    along = slope[..., None] * torch.eye(2, dtype=points.dtype, device=points.device)
    gradient = torch.cat([along, fall[..., None]], -1)  # [B, S, 2, 3], by the point itself
    arms = points[:, :, None] - points[:, None, :NUM_JOINTS]  # [B, S, J, 3]
    arms = arms * points.new_tensor(MOVES)[..., None]
    turns = torch.linalg.cross(arms[:, :, None], gradient[:, :, :, None])
    rows = torch.cat([turns.flatten(3), gradient], -1)
    missed = keypoints_uv - (slope * points[..., :2] - offset[:, None])
    weight = (seen.to(points.dtype) / spread.clamp(min=LEAST_SPREAD))[..., None]
    return (rows * weight[..., None]).flatten(1, 2), (missed * weight).flatten(1, 2)


def _solve(jacobian: Tensor, stiffness: Tensor, residual: Tensor) -> Tensor:
    """x [B, U] of (J^T J + diag(stiffness)) x = J^T r, by the Newton-Schulz inverse.

    Scaled to a unit diagonal, so that shifts and turns weigh alike, and started below the inverse,
    so that it only rises; one correction at the end takes the rounding of the inverse away.
    """
    normal = jacobian.mT @ jacobian + stiffness.diag()
    scale = normal.diagonal(dim1=1, dim2=2).rsqrt()
    normal = normal * scale[:, :, None] * scale[:, None, :]
    target = (jacobian.mT @ residual[..., None]) * scale[..., None]
    eye = torch.eye(len(stiffness), dtype=normal.dtype, device=normal.device)
    inverse = eye / normal.abs().sum(-1).amax(-1)[:, None, None]
    for _ in range(SQUARINGS):
        inverse = inverse @ (2 * eye - normal @ inverse)
    solution = inverse @ target
    solution = solution + inverse @ (target - normal @ solution)
    return solution[..., 0] * scale
