"""Loading and skinning: against smplx, against a plain reference, and against bad files."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glnet_rt.body_file import SMPL_LEAVES, SMPL_VERTICES, read_body
from glnet_rt.body_model import BodyModel, BodyOutput, forward_kinematics
from glnet_rt.errors import ArtifactError, ContractError
from glnet_rt.rotation import flip_rotmat, rotvec_to_rotmat
from glnet_rt.skeleton import (
    FLIP_JOINTS,
    FLIP_KEYPOINTS,
    INDEX,
    LSP_FROM_H36M,
    NUM_JOINTS,
    SMPL_PARENTS,
)

BODY = Path(__file__).resolve().parents[1] / "glnet_rt/assets/body.npz"


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(BODY)


def random_inputs(batch, num_betas=10, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    betas = rng.standard_normal((batch, num_betas)).astype(np.float32)
    rotvecs = (spread * rng.standard_normal((batch, NUM_JOINTS, 3))).astype(np.float32)
    transl = rng.standard_normal((batch, 3)).astype(np.float32)
    return betas, rotvecs, transl


def fake_smpl(count=60, num_betas=12, influences=6, seed=3):
    """Arrays of a body nobody has seen: dense posedirs, more influences than SMPL's four."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((count, NUM_JOINTS))
    for row in weights:
        row[rng.choice(NUM_JOINTS, influences, replace=False)] = rng.uniform(0.1, 1, influences)
    parents = np.array(SMPL_PARENTS, np.int64) % 2**32
    return {
        "v_template": rng.standard_normal((count, 3)),
        "shapedirs": 0.1 * rng.standard_normal((count, 3, num_betas)).astype(np.float32),
        "posedirs": 0.01 * rng.standard_normal((count, 3, 207), np.float32),
        "J_regressor": rng.dirichlet(np.ones(count), NUM_JOINTS),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(NUM_JOINTS)]).astype(np.uint32),
        "f": rng.integers(0, count, (40, 3)).astype(np.uint32),
        "leaf_vertices": np.arange(5),
    }


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def plain_lbs(arrays, betas, rotmats, transl):
    """SMPL's formula in float64 with 4x4 matrices, as plainly as it can be written."""
    regressor, weights = arrays["J_regressor"], arrays["weights"]
    vertices, joints = [], []
    for beta, pose, shift in zip(betas.astype(float), rotmats.astype(float), transl, strict=True):
        shaped = arrays["v_template"] + arrays["shapedirs"][..., : len(beta)] @ beta
        rest = regressor @ shaped
        shaped = shaped + arrays["posedirs"] @ (pose[1:] - np.eye(3)).reshape(-1)
        world = np.zeros((NUM_JOINTS, 4, 4))
        for j, p in enumerate(SMPL_PARENTS):
            local = np.eye(4)
            local[:3, :3] = pose[j]
            local[:3, 3] = rest[j] - (rest[p] if p >= 0 else 0)
            world[j] = local if p < 0 else world[p] @ local
        joints.append(world[:, :3, 3] + shift)
        world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rest)
        blend = np.einsum("vj,jab->vab", weights, world)
        vertices.append(np.einsum("vab,vb->va", blend[:, :3, :3], shaped) + blend[:, :3, 3] + shift)
    return np.array(vertices), np.array(joints)


class TestSkinning:
    @pytest.mark.parametrize("batch", [1, 8])
    @pytest.mark.parametrize("num_betas", [0, 1, 4, 10])
    def test_equals_smplx(self, body, batch, num_betas):
        torch = pytest.importorskip("torch")
        smplx = pytest.importorskip("smplx")
        betas, rotvecs, transl = random_inputs(batch, num_betas, seed=batch)
        with np.load(BODY) as arrays:
            struct = smplx.utils.Struct(**{k: arrays[k] for k in arrays.files})
        names = smplx.vertex_ids.vertex_ids["smplh"]
        oracle = smplx.SMPL(
            "", data_struct=struct, batch_size=batch, vertex_ids=dict.fromkeys(names, 0)
        )
        expected = oracle(
            betas=torch.tensor(np.pad(betas, ((0, 0), (0, 10 - num_betas)))),
            global_orient=torch.tensor(rotvecs[:, 0]),
            body_pose=torch.tensor(rotvecs[:, 1:].reshape(batch, -1)),
            transl=torch.tensor(transl),
        )
        for pose in (rotvecs, rotvec_to_rotmat(rotvecs)):
            output = body(betas, pose, transl)
            np.testing.assert_allclose(
                output.vertices, expected.vertices.detach().numpy(), rtol=0, atol=1e-5
            )
            np.testing.assert_allclose(
                output.joints, expected.joints[:, :24].detach().numpy(), rtol=0, atol=1e-5
            )

    @pytest.mark.parametrize("num_betas", [0, 5, 12])
    def test_equals_the_plain_formula_on_a_dense_body(self, tmp_path, num_betas):
        arrays = fake_smpl()
        model = BodyModel.load(save_npz(tmp_path / "dense.npz", arrays))
        betas, rotvecs, transl = random_inputs(3, num_betas, spread=1.0)
        rotmats = rotvec_to_rotmat(rotvecs)
        vertices, joints = plain_lbs(arrays, betas, rotmats, transl)
        output = model(betas, rotmats, transl)
        np.testing.assert_allclose(output.vertices, vertices, rtol=0, atol=2e-5)
        np.testing.assert_allclose(output.joints, joints, rtol=0, atol=2e-5)

    @pytest.mark.parametrize("batch", [0, 1, 2, 3, 8])
    def test_dense_pose_blendshapes_are_rounded_to_a_hundredth_of_a_millimetre(
        self, tmp_path, batch
    ):
        """With blendshapes of SMPL's size, poses as wild as people's, even and odd batches."""
        arrays = fake_smpl(count=200)
        arrays["posedirs"] *= 0.3  # 3 mm per feature
        model = BodyModel.load(save_npz(tmp_path / "dense.npz", arrays))
        assert model._pose_steps is not None
        betas, rotvecs, transl = random_inputs(batch, spread=0.4)
        rotmats = rotvec_to_rotmat(rotvecs)
        kept, model._pose_steps = model._pose_steps, None
        exact = model(betas, rotmats, transl).vertices
        model._pose_steps = kept
        rounded = model(betas, rotmats, transl).vertices
        if batch:
            assert np.abs(rounded - exact).max() < 5.4e-6
            assert np.abs(rounded - exact).max() > 0

    def test_sparse_pose_blendshapes_stay_as_they_are(self, body):
        assert body._pose_steps is None, "ours move a vertex by two joints: no bytes to save"

    def test_output_is_float32_and_a_batch_of_none_is_empty(self, body):
        output = body(np.zeros((0, 10)), np.zeros((0, 24, 3)))
        assert output.vertices.shape == (0, len(body.v_template), 3)
        assert output.joints.shape == (0, 24, 3)
        output = body(np.zeros((2, 3)), np.zeros((2, 24, 3)))
        assert output.vertices.dtype == output.joints.dtype == np.float32

    def test_rest_pose_is_the_template(self, body):
        output = body(np.zeros((1, 0)), np.zeros((1, 24, 3)))
        np.testing.assert_allclose(output.vertices[0], body.v_template, atol=1e-6)

    def test_rest_skeleton_is_what_an_unposed_body_shows(self, body):
        betas, _, _ = random_inputs(4)
        output = body(betas, np.zeros((4, 24, 3)))
        np.testing.assert_allclose(body.rest_skeleton(betas), body.skeleton(output), atol=2e-6)

    def test_global_rotation_and_translation_move_the_body_rigidly(self, body):
        betas, rotvecs, transl = random_inputs(2)
        rotmats = rotvec_to_rotmat(rotvecs)
        turn = rotvec_to_rotmat(np.array([0.3, -1.2, 0.7], np.float32))
        turned = rotmats.copy()
        turned[:, 0] = turn @ rotmats[:, 0]
        plain, moved = body(betas, rotmats), body(betas, turned, transl)
        root = plain.joints[:, :1]
        expected = (plain.vertices - root) @ turn.T + root + transl[:, None]
        np.testing.assert_allclose(moved.vertices, expected, atol=1e-5)

    def test_mirrored_pose_gives_the_mirrored_body(self, body):
        betas, rotvecs, _ = random_inputs(3, seed=5)
        rotmats = rotvec_to_rotmat(rotvecs)
        with np.load(BODY) as arrays:
            mirror = arrays["mirror"]
        here = body(betas, rotmats)
        there = body(betas, np.ascontiguousarray(flip_rotmat(rotmats)[:, list(FLIP_JOINTS)]))
        flip = np.array([-1, 1, 1], np.float32)
        np.testing.assert_allclose(there.vertices, here.vertices[:, mirror] * flip, atol=1e-5)
        np.testing.assert_allclose(
            body.keypoints(there), body.keypoints(here)[:, list(FLIP_KEYPOINTS)] * flip, atol=1e-5
        )

    def test_people_of_a_batch_do_not_touch_each_other(self, body):
        betas, rotvecs, transl = random_inputs(5)
        together = body(betas, rotvecs, transl)
        for i in range(5):
            alone = body(betas[i : i + 1], rotvecs[i : i + 1], transl[i : i + 1])
            np.testing.assert_allclose(alone.vertices[0], together.vertices[i], atol=2e-6)

    def test_threads_get_what_one_thread_gets(self, body):
        inputs = [random_inputs(2, seed=s) for s in range(4)]
        results: dict[int, BodyOutput] = {}

        def work(i):
            for _ in range(5):
                results[i] = body(*inputs[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, given in enumerate(inputs):
            np.testing.assert_array_equal(results[i].vertices, body(*given).vertices)

    def test_forward_kinematics_is_what_the_body_uses(self, body):
        betas, rotvecs, _ = random_inputs(4)
        rotmats = rotvec_to_rotmat(rotvecs)
        world, joints = forward_kinematics(rotmats, body.rest_skeleton(betas)[:, :24])
        np.testing.assert_allclose(joints, body(betas, rotmats).joints, atol=1e-6)
        np.testing.assert_allclose(world[:, 4], rotmats[:, 0] @ rotmats[:, 1] @ rotmats[:, 4],
                                   atol=1e-5)  # fmt: skip


class TestKeypoints:
    def test_the_face_and_hips_lie_where_names_say(self, body):
        at = body.keypoints(body(np.zeros((1, 10)), np.zeros((1, 24, 3))))[0]
        point = {name: at[i] for name, i in INDEX.items()}
        assert point["nose"][2] > point["left_eye"][2] > point["left_ear"][2]
        assert point["left_ear"][0] > point["left_eye"][0] > 0.02
        assert point["left_eye"][1] > point["nose"][1]
        assert point["left_coco_hip"][0] > point["left_hip"][0]
        assert point["left_coco_hip"][1] < point["left_hip"][1]

    def test_lsp_joints_are_a_choice_of_h36m_joints(self, body):
        vertices = body(*random_inputs(2)).vertices
        np.testing.assert_array_equal(
            body.lsp_joints(vertices), body.h36m_joints(vertices)[:, list(LSP_FROM_H36M)]
        )

    def test_regressors_follow_the_joints_of_a_posed_body(self, body):
        output = body(*random_inputs(6, spread=0.15))
        lsp = body.lsp_joints(output.vertices)
        for lsp_index, joint in ((0, 8), (1, 5), (4, 4), (5, 7), (6, 21), (7, 19), (10, 18)):
            apart = np.linalg.norm(lsp[:, lsp_index] - output.joints[:, joint], axis=-1)
            assert apart.max() < 0.03

    def test_missing_regressors_are_named(self, tmp_path):
        model = BodyModel.load(save_npz(tmp_path / "bare.npz", fake_smpl()))
        output = model(np.zeros((1, 10)), np.zeros((1, 24, 3)))
        with pytest.raises(ContractError, match="coco_regressor"):
            model.keypoints(output)
        with pytest.raises(ContractError, match="J_regressor_h36m"):
            model.lsp_joints(output.vertices)

    def test_vertices_of_another_body_are_refused(self, body):
        with pytest.raises(ContractError, match="not this body's vertices"):
            body.h36m_joints(np.zeros((1, SMPL_VERTICES, 3), np.float32))


class TestBadInput:
    @pytest.mark.parametrize("shape", [(10,), (2, 11)])
    def test_betas_that_do_not_fit(self, body, shape):
        with pytest.raises(ContractError, match="betas"):
            body(np.zeros(shape), np.zeros((2, 24, 3)))

    @pytest.mark.parametrize("shape", [(2, 23, 3), (2, 72), (1, 24, 3), (2, 24, 3, 2)])
    def test_poses_that_do_not_fit(self, body, shape):
        with pytest.raises(ContractError, match="pose"):
            body(np.zeros((2, 10)), np.zeros(shape))

    def test_translation_that_does_not_fit(self, body):
        with pytest.raises(ContractError, match="transl"):
            body(np.zeros((2, 10)), np.zeros((2, 24, 3)), np.zeros(3))

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_nan_is_refused(self, body, which):
        inputs = [np.array(x) for x in random_inputs(2)]
        inputs[which].flat[0] = np.nan
        with pytest.raises(ContractError, match="NaN"):
            body(*inputs)

    def test_no_numbers_at_all(self, body):
        with pytest.raises(ContractError, match="numbers"):
            body([["tall"]], np.zeros((1, 24, 3)))

    def test_rest_joints_that_do_not_fit(self):
        with pytest.raises(ContractError, match="rest_joints"):
            forward_kinematics(np.zeros((1, 24, 3, 3)), np.zeros((1, 29, 3)))


class TestFiles:
    def test_shipped_body_knows_itself(self, body):
        assert body.body_id == "glnet-body-1"
        assert body.sha256 == hashlib.sha256(BODY.read_bytes()).hexdigest()
        assert body.num_betas == 10
        assert body.parents == SMPL_PARENTS

    @pytest.mark.parametrize(
        "key",
        ["v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f"],
    )
    def test_each_missing_key_is_named(self, tmp_path, key):
        arrays = fake_smpl()
        del arrays[key]
        with pytest.raises(ArtifactError, match=f"lacks {key}"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    def test_wrong_number_of_joints(self, tmp_path):
        arrays = fake_smpl() | {"kintree_table": np.zeros((2, 52), np.int64)}
        with pytest.raises(ArtifactError, match="number of joints"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    def test_another_tree(self, tmp_path):
        arrays = fake_smpl()
        arrays["kintree_table"][0, 5] = 1
        with pytest.raises(ArtifactError, match="kinematic tree"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    @pytest.mark.parametrize("key", ["shapedirs", "posedirs", "J_regressor", "weights", "f"])
    def test_wrong_shapes(self, tmp_path, key):
        arrays = fake_smpl()
        arrays[key] = arrays[key][:, :-1]
        with pytest.raises(ArtifactError, match=f"{key} has the wrong shape"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, tmp_path, value):
        arrays = fake_smpl()
        arrays["shapedirs"][3, 1, 2] = value
        with pytest.raises(ArtifactError, match="shapedirs holds NaN"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    def test_text_where_numbers_belong(self, tmp_path):
        arrays = fake_smpl()
        arrays["weights"] = np.full(arrays["weights"].shape, "much")
        with pytest.raises(ArtifactError, match="weights holds no numbers"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    @pytest.mark.parametrize("key", ["f", "leaf_vertices"])
    def test_indices_outside(self, tmp_path, key):
        arrays = fake_smpl()
        arrays[key].flat[0] = 60
        with pytest.raises(ArtifactError, match=f"{key} points outside"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    def test_leaves_unknown(self, tmp_path):
        arrays = fake_smpl()
        del arrays["leaf_vertices"]
        with pytest.raises(ArtifactError, match="leaf"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
    @pytest.mark.parametrize("suffix", [".npz", ".pkl"])
    def test_truncated(self, tmp_path, suffix, share):
        whole = BODY.read_bytes() if suffix == ".npz" else pickle.dumps(fake_smpl(), protocol=2)
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ArtifactError):
            read_body(path)

    def test_one_byte_changed(self, tmp_path):
        data = bytearray(BODY.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path = tmp_path / "changed.npz"
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_body(path)

    def test_an_npz_of_pickled_objects_is_not_unpickled(self, tmp_path):
        arrays = fake_smpl() | {"weights": np.array([{"a": 1}], object)}
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_body(save_npz(tmp_path / "body.npz", arrays))

    @pytest.mark.parametrize("name", ["absent.npz", "absent.pkl", "body.txt"])
    def test_no_such_file(self, tmp_path, name):
        with pytest.raises(ArtifactError):
            BodyModel.load(tmp_path / name)


class Ch:
    """Looks like chumpy's array to a pickle."""

    def __init__(self, x):
        self.x = x
        self._dirty_vars = {"x"}


class Select:
    """Looks like chumpy's view of some elements of another array."""

    def __init__(self, a, idxs, preferred_shape):
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


@pytest.fixture
def chumpy_classes(monkeypatch):
    """Give the two classes chumpy's names, so that pickles refer to a package that is not there."""
    for module, cls in (("chumpy.ch", Ch), ("chumpy.reordering", Select)):
        stand_in = types.ModuleType(module)
        setattr(stand_in, cls.__name__, cls)
        monkeypatch.setattr(cls, "__module__", module)
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))


def as_python2_pickle(arrays, tmp_path, monkeypatch, protocol):
    path = tmp_path / "SMPL_TEST.pkl"
    path.write_bytes(pickle.dumps(arrays, protocol=protocol))
    for module in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, module)
    return path


@pytest.mark.usefixtures("chumpy_classes")
class TestPickles:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    @pytest.mark.parametrize("layout", ["csc", "csr"])
    def test_chumpy_and_scipy_values_come_back_as_arrays(
        self, tmp_path, monkeypatch, protocol, layout
    ):
        sparse = pytest.importorskip("scipy.sparse")
        plain = fake_smpl()
        plain["J_regressor"][plain["J_regressor"] < 0.02] = 0.0
        flat = plain["posedirs"].astype(np.float64).ravel()
        order = np.random.default_rng(0).permutation(flat.size)
        matrix = sparse.csc_matrix if layout == "csc" else sparse.csr_matrix
        odd = plain | {
            "shapedirs": Ch(plain["shapedirs"]),
            "v_template": Ch(plain["v_template"]),
            "posedirs": Select(Ch(flat[order]), np.argsort(order), plain["posedirs"].shape),
            "J_regressor": matrix(plain["J_regressor"]),
            "bs_style": "lbs",
            "unused": {"a": [1, (2.0, None)], "b": np.float32(3), "c": b"bytes"},
        }
        read = read_body(as_python2_pickle(odd, tmp_path, monkeypatch, protocol))
        expected = read_body(save_npz(tmp_path / "plain.npz", plain))
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "faces"):
            np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert read.body_id == f"smpl-{read.sha256[:12]}"

    def test_scipy_and_chumpy_stay_unimported(self, tmp_path, monkeypatch):
        path = as_python2_pickle(
            fake_smpl() | {"shapedirs": Ch(fake_smpl()["shapedirs"])}, tmp_path, monkeypatch, 2
        )
        read_body(path)
        assert "chumpy" not in sys.modules

    def test_smpl_sized_mesh_gets_smpls_vertices(self, tmp_path, monkeypatch):
        arrays = fake_smpl(SMPL_VERTICES, num_betas=2)
        del arrays["leaf_vertices"]
        model = BodyModel.load(as_python2_pickle(arrays, tmp_path, monkeypatch, 2))
        assert tuple(model.leaf_vertices) == SMPL_LEAVES
        output = model(np.zeros((1, 2)), np.zeros((1, 24, 3)))
        at = model.keypoints(output)[0]
        for name, vertex in (("nose", 332), ("right_eye", 6260), ("left_ear", 583)):
            np.testing.assert_array_equal(at[INDEX[name]], output.vertices[0, vertex])

    def test_a_sparse_matrix_that_contradicts_itself_is_refused(self, tmp_path, monkeypatch):
        sparse = pytest.importorskip("scipy.sparse")
        matrix = sparse.csc_matrix(np.eye(3))
        matrix.indices[0] = 99
        odd = fake_smpl() | {"J_regressor": matrix}
        with pytest.raises(ArtifactError, match="readable"):
            read_body(as_python2_pickle(odd, tmp_path, monkeypatch, 2))

    def test_a_chumpy_value_without_content_is_named(self, tmp_path, monkeypatch):
        empty = Ch(None)
        del empty.x
        path = as_python2_pickle(
            fake_smpl() | {"shapedirs": empty}, tmp_path, monkeypatch, protocol=2
        )
        with pytest.raises(ArtifactError, match="Ch in the pickle"):
            read_body(path)


class Evil:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class TestForeignPickles:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_a_shell_command_is_refused_and_not_run(self, tmp_path, protocol):
        trace = tmp_path / "trace"
        arrays = fake_smpl() | {"extra": Evil(os.system, f"touch {trace}")}
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(arrays, protocol=protocol))
        with pytest.raises(ArtifactError, match="system"):
            read_body(path)
        assert not trace.exists()

    @pytest.mark.parametrize(
        "function", [eval, exec, getattr, __import__, open, np.load, np.fromfile, type]
    )
    def test_other_doors_are_shut(self, tmp_path, function):
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps({"a": Evil(function, "1")}, protocol=2))
        with pytest.raises(ArtifactError, match="names"):
            read_body(path)

    def test_copyreg_builds_no_other_objects(self, tmp_path):
        import copyreg

        path = tmp_path / "odd.pkl"
        rebuild = Evil(copyreg._reconstructor, dict, object, None)
        path.write_bytes(pickle.dumps({"a": rebuild}, protocol=2))
        with pytest.raises(ArtifactError, match="may not"):
            read_body(path)

    def test_a_pickle_that_is_no_model(self, tmp_path):
        path = tmp_path / "list.pkl"
        path.write_bytes(pickle.dumps([1, 2, 3]))
        with pytest.raises(ArtifactError, match="holds no model"):
            read_body(path)


def test_a_body_can_be_made_from_changed_arrays(body):
    arrays = read_body(BODY)
    rigid = BodyModel(replace(arrays, posedirs=np.zeros_like(arrays.posedirs)))
    betas, rotvecs, _ = random_inputs(1)
    apart = rigid(betas, rotvecs).vertices - body(betas, rotvecs).vertices
    assert 0.001 < np.abs(apart).max() < 0.1
