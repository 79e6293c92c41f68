"""The body: from shape and pose to a mesh, by SMPL's linear blend skinning in numba.

Letters: B people, V vertices, F faces, n betas given, J = 24 joints. All lengths are metres. The
frame is that of the body file (T-pose, y up, facing +z, left at +x) turned by the global rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba as nb
import numpy as np

from glnet_rt.body_file import NUM_POSE_FEATURES, BodyFile, parse_body, read_body
from glnet_rt.contracts import Array
from glnet_rt.errors import ContractError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import H36M_17, LSP_FROM_H36M, NUM_JOINTS, NUM_SKELETON, SMPL_PARENTS

_PARENTS = np.array(SMPL_PARENTS, np.int64)
_FASTMATH = {"contract", "arcp", "nsz", "reassoc"}
DENSE = 0.25  # share of pose blendshapes that are not zero, above which they are kept whole
PADDED_FEATURES = 208  # 207 and a zero: a multiple of the four and eight that are summed at once
LARGEST_STEP = 32767
BLOCK = 512  # coordinates whose sums stay in the nearest cache
TOGETHER = 4  # people who share the widened pose blendshapes


@dataclass(frozen=True, slots=True, eq=False)
class BodyOutput:
    """Posed bodies.

    Attributes:
        vertices: [B, V, 3] float32, m, translation included.
        joints: [B, 24, 3] float32, m, translation included.
    """

    vertices: Array
    joints: Array


class BodyModel:
    """An SMPL-format body, ready to pose. Safe to call from several threads.

    Args:
        arrays: the checked contents of a body file; `BodyModel.load` reads them.

    Attributes: those of `BodyFile`, `parents` (24 ints, -1 for the root), `num_betas`, and the rest
        skeleton as `rest_template` [29, 3] + `rest_dirs` [29, 3, num_betas] @ betas, float64, m.
    """

    def __init__(self, arrays: BodyFile) -> None:
        self.v_template = arrays.v_template
        self.shapedirs = arrays.shapedirs
        self.posedirs = arrays.posedirs
        self.J_regressor = arrays.J_regressor
        self.lbs_weights = arrays.lbs_weights
        self.faces = arrays.faces
        self.leaf_vertices = arrays.leaf_vertices
        self.J_regressor_h36m = arrays.J_regressor_h36m
        self.coco_regressor = arrays.coco_regressor
        self.part_labels = arrays.part_labels
        self.body_id = arrays.body_id
        self.sha256 = arrays.sha256
        self.parents = SMPL_PARENTS
        self.num_betas = self.shapedirs.shape[2]
        self._shape_blocks = _in_blocks(self.shapedirs.reshape(-1, self.num_betas))
        self._influences = _compact_weights(self.lbs_weights)
        self._pose_parts = _compact_posedirs(self.posedirs)
        dense = self._pose_parts[2].size > DENSE * self.posedirs.size
        self._pose_steps = _round_posedirs(self.posedirs) if dense else None
        self.rest_template, self.rest_dirs = self._rest_basis()
        self._coco = None if self.coco_regressor is None else _Regressor(self.coco_regressor)
        self._h36m = None if self.J_regressor_h36m is None else _Regressor(self.J_regressor_h36m)

    @classmethod
    def load(cls, path: str | Path) -> BodyModel:
        """Read our own `body.npz`, or a real SMPL `.npz` or `.pkl`.

        Raises:
            ArtifactError: missing, damaged, naming a foreign class, or not an SMPL-format body.
        """
        return cls(read_body(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> BodyModel:
        """Read the content of a body file that is not a file of its own, as inside an artifact.

        Args:
            data: all of it.
            name: its file name, for the format and the messages.

        Raises:
            ArtifactError: damaged, or not an SMPL-format body.
        """
        return cls(parse_body(data, name))

    def rest_skeleton(self, betas: Array) -> Array:
        """[B, 29, 3] float32: rest positions of the 24 joints and 5 leaf vertices.

        Args:
            betas: [B, n], n from 0 to `num_betas`; missing ones are zero.
        """
        return self._rest_skeleton(self._check_betas(betas))

    def _rest_skeleton(self, betas: Array) -> Array:
        count = betas.shape[1]
        dirs = self.rest_dirs[:, :, :count].reshape(3 * NUM_SKELETON, count)
        moved = (betas.astype(np.float64) @ dirs.T).reshape(len(betas), NUM_SKELETON, 3)
        return np.asarray(self.rest_template + moved, dtype=np.float32)

    def __call__(self, betas: Array, pose: Array, transl: Array | None = None) -> BodyOutput:
        """Shape and pose B bodies.

        Args:
            betas: [B, n], n from 0 to `num_betas`; missing ones are zero.
            pose: [B, 24, 3, 3] rotation matrices or [B, 24, 3] rotation vectors (rad), each joint
                relative to its parent; joint 0 is the global rotation.
            transl: [B, 3], m, added to everything; None leaves the bodies where they are.
        Raises:
            ContractError: a wrong shape, or values that are not finite.
        """
        betas = self._check_betas(betas)
        rotmats = _check_pose(pose, len(betas))
        shift = _check_transl(transl, len(betas))
        rest = self._rest_skeleton(betas)
        joints, features, maps = _pose_joints(rotmats, rest, shift)
        vertices = np.empty((len(betas), *self.v_template.shape), np.float32)
        flat = vertices.reshape(len(betas), self.v_template.size)
        _shape(self.v_template.reshape(-1), self._shape_blocks, betas, flat)
        if self._pose_steps is None:
            _bend(*self._pose_parts, features, flat)
        else:
            _bend_dense(*self._pose_steps, features, flat)
        _skin(*self._influences, maps, vertices)
        return BodyOutput(vertices, joints)

    def skeleton(self, output: BodyOutput) -> Array:
        """[B, 29, 3] float32, m: posed joints and leaf vertices, order of `skeleton.SKELETON`."""
        return np.concatenate([output.joints, output.vertices[:, self.leaf_vertices]], axis=1)

    def keypoints(self, output: BodyOutput) -> Array:
        """[B, 36, 3] float32, m, order of `skeleton.KEYPOINTS`.

        Raises:
            ContractError: the body file has no `coco_regressor` and is not SMPL's mesh.
        """
        if self._coco is None:
            raise self._lacks("coco_regressor", "[7, V]")
        return np.concatenate([self.skeleton(output), self._coco(output.vertices)], axis=1)

    def h36m_joints(self, vertices: Array) -> Array:
        """[B, V, 3] vertices, m -> [B, 17, 3] float32, order of `skeleton.H36M_17`.

        Raises:
            ContractError: the body file has no `J_regressor_h36m`.
        """
        if self._h36m is None:
            raise self._lacks("J_regressor_h36m", f"[{len(H36M_17)}, V]")
        if vertices.ndim != 3 or vertices.shape[1:] != self.v_template.shape:
            raise ContractError(
                "these are not this body's vertices",
                got=list(vertices.shape),
                expected=["B", *self.v_template.shape],
            )
        return self._h36m(vertices)

    def lsp_joints(self, vertices: Array) -> Array:
        """[B, V, 3] vertices, m -> [B, 14, 3] float32: LSP's 14, right ankle first.

        Raises:
            ContractError: the body file has no `J_regressor_h36m`.
        """
        return self.h36m_joints(vertices)[:, list(LSP_FROM_H36M)]

    def _rest_basis(self) -> tuple[Array, Array]:
        """Rest joints and leaves, linear in the betas: [29, 3] and [29, 3, num_betas] float64."""
        regressor = self.J_regressor.astype(np.float64)
        leaves = self.leaf_vertices
        template = np.concatenate([regressor @ self.v_template, self.v_template[leaves]])
        flat = regressor @ self.shapedirs.reshape(len(self.v_template), -1)
        dirs = flat.reshape(NUM_JOINTS, 3, self.num_betas)
        return template, np.concatenate([dirs, self.shapedirs[leaves]])

    def _check_betas(self, betas: Array) -> Array:
        betas = _as_float32("betas", betas)
        if betas.ndim != 2 or betas.shape[1] > self.num_betas:
            raise ContractError(
                "betas do not fit this body",
                got=list(betas.shape),
                expected=f"[B, n] with n <= {self.num_betas}",
                fix="one row per person: betas[None] for a single one",
            )
        return betas

    def _lacks(self, key: str, shape: str) -> ContractError:
        return ContractError(
            f"body {self.body_id} has no {key}",
            expected=f"the key {key}, {shape}, in the body file",
            fix=f"store your regressor in a copy of the .npz under {key}",
        )


def forward_kinematics(rotmats: Array, rest_joints: Array) -> tuple[Array, Array]:
    """Turn local rotations into world rotations and joint positions, down SMPL's tree.

    Args:
        rotmats: [B, 24, 3, 3], each relative to its parent; the first is global.
        rest_joints: [B, 24, 3], m.
    Returns:
        ([B, 24, 3, 3], [B, 24, 3] m), both float32; the root joint stays where it is.
    Raises:
        ContractError: a wrong shape, or values that are not finite.
    """
    rest = _as_float32("rest_joints", rest_joints)
    if rest.ndim != 3 or rest.shape[1:] != (NUM_JOINTS, 3):
        raise ContractError(
            "rest_joints has the wrong shape", got=list(rest.shape), expected="[B, 24, 3]"
        )
    world, joints = _forward_kinematics(_check_pose(rotmats, len(rest)), rest)
    return world, joints


class _Regressor:
    """A few rows of weights over many vertices, applied to the vertices they use alone."""

    def __init__(self, rows: Array) -> None:
        self._columns = np.flatnonzero(rows.any(axis=0))
        self._rows = np.ascontiguousarray(rows[:, self._columns])

    def __call__(self, vertices: Array) -> Array:
        """[B, V, 3] -> [B, rows, 3] float32."""
        return np.asarray(self._rows @ vertices[:, self._columns], dtype=np.float32)


def _check_pose(pose: Array, batch: int) -> Array:
    """[B, 24, 3, 3] float32 rotation matrices from either form."""
    pose = _as_float32("pose", pose)
    if pose.shape not in ((batch, NUM_JOINTS, 3, 3), (batch, NUM_JOINTS, 3)):
        raise ContractError(
            "the pose has the wrong shape",
            got=list(pose.shape),
            expected=f"[{batch}, 24, 3, 3] rotation matrices or [{batch}, 24, 3] rotation vectors",
        )
    return pose if pose.ndim == 4 else rotvec_to_rotmat(pose)


def _check_transl(transl: Array | None, batch: int) -> Array:
    if transl is None:
        return np.zeros((batch, 3), np.float32)
    transl = _as_float32("transl", transl)
    if transl.shape != (batch, 3):
        raise ContractError(
            "transl has the wrong shape", got=list(transl.shape), expected=[batch, 3]
        )
    return transl


def _as_float32(name: str, value: object) -> Array:
    """Contiguous, finite float32."""
    try:
        array = np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"{name} is no array of numbers", got=type(value).__name__, expected="floats"
        ) from error
    if not np.isfinite(array).all():
        raise ContractError(
            f"{name} holds NaN or infinity", got="non-finite values", expected="finite numbers"
        )
    return array


def _compact_weights(lbs_weights: Array) -> tuple[Array, Array, Array]:
    """Drop the zeros of [V, 24].

    Returns:
        first: [V + 1] uint64; entries first[v] to first[v + 1] belong to vertex v. Unsigned, as
            all that kernels index by: numba lets negative ones count from the end, which takes a
            third of the time.
        joints: [W] uint64 and weights: [W] float32, the entries.
    """
    vertex, joints = np.nonzero(lbs_weights)
    first = np.searchsorted(vertex, np.arange(len(lbs_weights) + 1)).astype(np.uint64)
    return first, joints.astype(np.uint64), lbs_weights[vertex, joints]


def _compact_posedirs(posedirs: Array) -> tuple[Array, Array, Array]:
    """Keep of each joint the coordinates it moves: for SMPL nearly all, for ours one in ten.

    Returns:
        first: [24] int64; entries first[j] to first[j + 1] belong to joint j + 1.
        places: [N] uint64, the coordinates, 3 * vertex + axis.
        values: [9, N] float32, their weights.
    """
    per_joint = posedirs.reshape(-1, NUM_JOINTS - 1, 9)
    joint, places = np.nonzero(per_joint.any(axis=2).T)
    first = np.searchsorted(joint, np.arange(NUM_JOINTS)).astype(np.int64)
    values = np.ascontiguousarray(per_joint[places, joint].T)
    return first, places.astype(np.uint64), values


def _round_posedirs(posedirs: Array) -> tuple[Array, Array]:
    """Pose blendshapes as int16, half the bytes: SMPL's 17 MB are what posing one body waits for.

    Returns:
        values: [blocks, 208, BLOCK] int16, the last feature 0; of BLOCK coordinates after another,
            x, y and z of vertex after vertex, those beyond the last 0.
        step: [3 V] float32, m; what one is of each coordinate. Rounding moves no vertex by more
            than half a step times the sum of the features' sizes.
    """
    largest = np.abs(posedirs).max(axis=(1, 2))
    step = np.where(largest > 0, largest / LARGEST_STEP, 1).astype(np.float32)
    rounded = np.zeros((largest.size * 3, PADDED_FEATURES), np.int16)
    rounded[:, :NUM_POSE_FEATURES] = np.rint(posedirs / step[:, None, None]).reshape(
        -1, NUM_POSE_FEATURES
    )
    return _in_blocks(rounded), np.repeat(step, 3)


def _in_blocks(rows: Array) -> Array:
    """[N, n] -> [blocks, n, BLOCK], zeros beyond the last, so that summing over n reads onwards."""
    blocks = -(-len(rows) // BLOCK)
    padded = np.zeros((blocks * BLOCK, rows.shape[1]), rows.dtype)
    padded[: len(rows)] = rows
    return np.ascontiguousarray(padded.reshape(blocks, BLOCK, rows.shape[1]).transpose(0, 2, 1))


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _forward_kinematics(rotmats, rest):  # type: ignore[no-untyped-def]
    """[B, 24, 3, 3] and [B, 24, 3] float32 -> world rotations and joints, same shapes."""
    world = np.empty_like(rotmats)
    joints = np.empty_like(rest)
    for b in range(rotmats.shape[0]):
        world[b, 0] = rotmats[b, 0]
        joints[b, 0] = rest[b, 0]
        for j in range(1, NUM_JOINTS):
            p = _PARENTS[j]
            for r in range(3):
                w0, w1, w2 = world[b, p, r, 0], world[b, p, r, 1], world[b, p, r, 2]
                for c in range(3):
                    world[b, j, r, c] = (
                        w0 * rotmats[b, j, 0, c]
                        + w1 * rotmats[b, j, 1, c]
                        + w2 * rotmats[b, j, 2, c]
                    )
                joints[b, j, r] = joints[b, p, r] + (
                    w0 * (rest[b, j, 0] - rest[b, p, 0])
                    + w1 * (rest[b, j, 1] - rest[b, p, 1])
                    + w2 * (rest[b, j, 2] - rest[b, p, 2])
                )
    return world, joints


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _pose_joints(rotmats, rest, transl):  # type: ignore[no-untyped-def]
    """Joints, and what moves vertices, of [B, 24, 3, 3], [B, 29, 3] and [B, 3].

    Returns:
        joints: [B, 24, 3] float32, m, translation included.
        features: [B, 208] float32, R - I of joints 1..23, row by row, and a zero.
        maps: [B, 24, 12] float32, rest point -> posed point as a 3 x 4 matrix, row by row.
    """
    people = rotmats.shape[0]
    world, joints = _forward_kinematics(rotmats, rest[:, :NUM_JOINTS])
    features = np.zeros((people, PADDED_FEATURES), np.float32)
    maps = np.empty((people, NUM_JOINTS, 12), np.float32)
    for b in range(people):
        for j in range(NUM_JOINTS):
            for r in range(3):
                joints[b, j, r] += transl[b, r]
                shift = joints[b, j, r]
                for c in range(3):
                    maps[b, j, 4 * r + c] = world[b, j, r, c]
                    shift -= world[b, j, r, c] * rest[b, j, c]
                    if j > 0:
                        identity = np.float32(1.0) if r == c else np.float32(0.0)
                        features[b, 9 * (j - 1) + 3 * r + c] = rotmats[b, j, r, c] - identity
                maps[b, j, 4 * r + 3] = shift
    return joints, features, maps


# Three passes over the vertices are twice as fast as one that does all: each loop stays simple
# enough for the compiler, and a person's vertices stay in the cache between them. Where a sum runs
# over blendshapes, coordinates lie side by side, so that no sum has to be taken across a register.


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _shape(template, blocks, betas, out):  # type: ignore[no-untyped-def]
    """Write the shaped T-pose into `out`, [B, 3 V], from [3 V] and [blocks, n, BLOCK]."""
    count = betas.shape[1]
    for b in range(out.shape[0]):
        for block in range(blocks.shape[0]):
            start = BLOCK * block
            stop = min(start + BLOCK, out.shape[1])
            shaped = out[b, start:stop]
            shaped[:] = template[start:stop]
            for k in range(0, count, 2):
                other = min(k + 1, count - 1)
                one, two = betas[b, k], betas[b, other] if other > k else np.float32(0.0)
                along_one, along_two = blocks[block, k], blocks[block, other]
                for c in range(len(shaped)):
                    shaped[c] += one * along_one[c] + two * along_two[c]


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _bend(first, places, values, features, out):  # type: ignore[no-untyped-def]
    """Add the pose blendshapes of `_compact_posedirs` to `out`, [B, 3 V]."""
    moved = np.empty(np.diff(first).max(), np.float32)
    for b in range(out.shape[0]):
        coordinates = out[b]
        for j in range(NUM_JOINTS - 1):
            start, stop = first[j], first[j + 1]
            f, to = features[b, 9 * j : 9 * j + 9], places[start:stop]
            w0, w1, w2 = values[0, start:stop], values[1, start:stop], values[2, start:stop]
            w3, w4, w5 = values[3, start:stop], values[4, start:stop], values[5, start:stop]
            w6, w7, w8 = values[6, start:stop], values[7, start:stop], values[8, start:stop]
            for i in range(len(to)):
                moved[i] = (
                    f[0] * w0[i] + f[1] * w1[i] + f[2] * w2[i]
                    + f[3] * w3[i] + f[4] * w4[i] + f[5] * w5[i]
                    + f[6] * w6[i] + f[7] * w7[i] + f[8] * w8[i]
                )  # fmt: skip
            for i in range(len(to)):
                coordinates[to[i]] += moved[i]


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _bend_dense(values, step, features, out):  # type: ignore[no-untyped-def]
    """The same from `_round_posedirs`, into [B, 3 V]; people go in fours, or one by himself."""
    people, size = out.shape
    sums = np.empty((TOGETHER, BLOCK), np.float32)
    padded = np.zeros((people + TOGETHER - 1, PADDED_FEATURES), np.float32)
    padded[:people] = features
    for block in range(values.shape[0]):  # read once for all people
        start = BLOCK * block
        stop = min(start + BLOCK, size)
        for first in range(0, people, TOGETHER):
            count = min(TOGETHER, people - first)
            sums[:] = 0.0
            if count == 1:
                _sum_one(values[block], padded[first], sums[0])
            else:
                four = padded[first : first + TOGETHER]
                _sum_four(values[block], four, sums[0], sums[1], sums[2], sums[3])
            for i in range(count):
                moved, by, unit = out[first + i, start:stop], sums[i], step[start:stop]
                for c in range(len(moved)):
                    moved[c] += unit[c] * by[c]


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _sum_one(values, f, sums):  # type: ignore[no-untyped-def]
    """sums += f @ values, eight features in one pass."""
    for k in range(0, PADDED_FEATURES, 8):
        w0, w1, w2, w3 = values[k], values[k + 1], values[k + 2], values[k + 3]
        w4, w5, w6, w7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
        for c in range(BLOCK):
            sums[c] += (
                f[k] * np.float32(w0[c]) + f[k + 1] * np.float32(w1[c])
                + f[k + 2] * np.float32(w2[c]) + f[k + 3] * np.float32(w3[c])
                + f[k + 4] * np.float32(w4[c]) + f[k + 5] * np.float32(w5[c])
                + f[k + 6] * np.float32(w6[c]) + f[k + 7] * np.float32(w7[c])
            )  # fmt: skip


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _sum_four(values, f, one, two, three, four):  # type: ignore[no-untyped-def]
    """The same for four people, four features in one pass."""
    for k in range(0, PADDED_FEATURES, 4):
        a, b, c, d = values[k], values[k + 1], values[k + 2], values[k + 3]
        p, q, r, s = f[0, k : k + 4], f[1, k : k + 4], f[2, k : k + 4], f[3, k : k + 4]
        for i in range(BLOCK):
            w0, w1 = np.float32(a[i]), np.float32(b[i])
            w2, w3 = np.float32(c[i]), np.float32(d[i])
            one[i] += p[0] * w0 + p[1] * w1 + p[2] * w2 + p[3] * w3
            two[i] += q[0] * w0 + q[1] * w1 + q[2] * w2 + q[3] * w3
            three[i] += r[0] * w0 + r[1] * w1 + r[2] * w2 + r[3] * w3
            four[i] += s[0] * w0 + s[1] * w1 + s[2] * w2 + s[3] * w3


@nb.njit(cache=True, nogil=True, fastmath=_FASTMATH)
def _skin(first, joints, weights, maps, out):  # type: ignore[no-untyped-def]
    """Carry every vertex of `out` along with its joints, in place."""
    one = np.uint64(1)
    for b in range(out.shape[0]):
        points, by_joint = out[b], maps[b]
        for v in range(np.uint64(out.shape[1])):
            x, y, z = points[v, 0], points[v, 1], points[v, 2]
            px = py = pz = np.float32(0.0)
            for i in range(first[v], first[v + one]):
                w, m = weights[i], by_joint[joints[i]]
                px += w * (m[0] * x + m[1] * y + m[2] * z + m[3])
                py += w * (m[4] * x + m[5] * y + m[6] * z + m[7])
                pz += w * (m[8] * x + m[9] * y + m[10] * z + m[11])
            points[v, 0], points[v, 1], points[v, 2] = px, py, pz
