"""Real 3D sets through the whole chain: files, pictures, crops, the run time's decode, protocols.

The network alone is told what to answer: it reads off each crop whom it shows, and whether in a
mirror.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from glnet_rt.body_file import read_body
from glnet_rt.body_model import BodyModel
from glnet_rt.camera import image_offset
from glnet_rt.contracts import Array
from glnet_rt.crop import square_around
from glnet_rt.errors import GlnetError, SourceError
from glnet_rt.kinematics import twist_from_rotations
from glnet_rt.rotation import rotmat_to_rot6d, rotvec_to_rotmat
from glnet_rt.skeleton import H36M_17, LSP_FROM_H36M, NUM_KEYPOINTS
from glnet_rt.spec import NetSpec
from tests import tiny
from tests.train.conftest import BODY
from train.data.real import orders
from train.data.real.record import Record, intrinsics, project
from train.evaluate import mirror_outputs
from train.evaluate_bodies import (
    KINDS,
    MPI_FROM_H36M,
    RealSet,
    boxes_of,
    evaluate_bodies,
    read_sets,
)
from train.recover import recover

SHARED = Path(__file__).resolve().parents[3] / "shared/data/real"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no real data rows in {SHARED}")
SIZE = (640, 480)
SPEC = NetSpec(input_size=64, representation="direct")
CODE = 25  # levels of red from one person to the next
BESIDE, PATCH = 0.3, 0.05  # where the patch is, and half its side, in crop sides
UPRIGHT = np.array([np.pi, 0.0, 0.0])  # the body's y is up, the camera's down


class Told:
    """Answers `outputs` of whom a patch in the crop names; mirrored ones where it is on the left.

    Attributes:
        seen: (person, mirrored) of every crop it was shown.
    """

    def __init__(self, spec: NetSpec, outputs: dict[str, Array]) -> None:
        self.config = SimpleNamespace(spec=spec)
        self.outputs = {name: torch.from_numpy(v.astype(np.float32)) for name, v in outputs.items()}
        self.seen: list[tuple[int, bool]] = []

    def parameters(self) -> object:
        return iter([torch.zeros(1)])

    def top1(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        spec = self.config.spec
        mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
        middle, beside = spec.input_size // 2, round(BESIDE * spec.input_size)
        rows = 255 * (image * std + mean)[:, :, middle - 1 : middle + 1].mean(2)
        left, right = rows[..., middle - 1 - beside], rows[..., middle + beside]
        on_left, on_right = left[:, 2] > 200, right[:, 2] > 200
        mirrored = bool(on_left.all())
        assert mirrored or on_right.all()
        who = ((left if mirrored else right)[:, 0] / CODE).round().long() - 1
        self.seen += [(int(i), mirrored) for i in who]
        chosen = {name: value[who] for name, value in self.outputs.items()}
        if mirrored:
            chosen = {**chosen, **mirror_outputs(chosen)}
        return chosen


def paint(records: Sequence[Record], boxes: Sequence[Array], size: tuple[int, int]) -> None:
    """Write the records' pictures: right of the middle of each crop a patch that says whose."""
    pictures: dict[Path, Array] = {}
    for i, (record, box) in enumerate(zip(records, boxes, strict=True)):
        default = np.full((size[1], size[0], 3), 90, np.uint8)
        picture = pictures.setdefault(record.image, default)
        (x, y), side = square_around(box, SPEC.box_scale)
        low, high = ((round(y + d * side), round(x + (BESIDE + d) * side)) for d in (-PATCH, PATCH))
        assert 0 <= low[1] < high[1] <= size[0]
        picture[low[0] : high[0], low[1] : high[1]] = (255, 0, CODE * (i + 1))
    for path, picture in pictures.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])


def answers(
    body: BodyModel, spec: NetSpec, rotmats: Array, betas: Array, real_set: RealSet | None = None,
    size: tuple[int, int] = SIZE,
) -> dict[str, Array]:  # fmt: skip
    """Outputs that decode to these poses and shapes; keypoints only where the spec needs them."""
    count = len(rotmats)
    outputs = {
        "score": np.full(count, 0.9),
        "pixel": np.zeros(count),
        "keypoints_uvd": np.zeros((count, NUM_KEYPOINTS, 3)),
        "betas": betas,
        "camera_scale": np.full(count, 0.5),
    }
    if spec.representation == "direct":
        return {**outputs, "rot6d": rotmat_to_rot6d(rotmats)}
    assert real_set is not None
    squares = [square_around(box, spec.box_scale) for box in boxes_of(real_set.people)]
    posed = body(betas, rotmats)
    xyz = (body.keypoints(posed) - posed.joints[:, :1]).astype(np.float64)
    offset = np.stack([image_offset(center, side, size) for center, side in squares])[:, None]
    depth = spec.focal / outputs["camera_scale"][:, None, None]
    pelvis_xy = offset * depth / spec.focal  # seen in the middle of the crop
    z = xyz[..., 2:] + depth
    uv = spec.focal * (xyz[..., :2] + pelvis_xy) / z - offset
    outputs["keypoints_uvd"] = np.concatenate([uv, xyz[..., 2:] / spec.depth_range_m], -1)
    return {**outputs, "twist": twist_from_rotations(rotmats, body.rest_skeleton(betas))}


def poses(count: int) -> tuple[Array, Array]:
    """[count, 24, 3, 3] float32 local rotations of people who stand in front of a camera, and
    their betas [count, 10] float32."""
    rng = np.random.default_rng(count)
    rotvec = 0.25 * rng.normal(size=(count, 24, 3))
    rotvec[:, 0] = UPRIGHT
    return rotvec_to_rotmat(rotvec).astype("f"), rng.normal(size=(count, 10)).astype("f")


def standing_joints(body: BodyModel, rotmats: Array, betas: Array) -> Array:
    """[N, 17, 3] float64, m, Human3.6M's order, four metres before the camera."""
    joints = body.h36m_joints(body(betas, rotmats).vertices).astype(np.float64)
    return joints + np.array([0.0, 0.0, 4.0])


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values))


def boxes(count: int) -> list[list[float]]:
    """x, y, width, height, side by side."""
    return [[40.0 + 150 * (i % 4), 150.0, 100.0, 180.0] for i in range(count)]


def hybrik_3dpw(folder: Path, rotmats: Array, betas: Array) -> None:
    """Two people to a picture, men and women by turns."""
    pictures = [
        {
            "id": i, "file_name": f"image_0000{i}.jpg", "sequence": "walk", "width": SIZE[0],
            "height": SIZE[1], "cam_param": {"focal": [700.0, 700.0], "princpt": [320.0, 240.0]},
        }
        for i in range((len(betas) + 1) // 2)
    ]  # fmt: skip
    annotations = [
        {
            "id": i, "image_id": i // 2, "bbox": box,
            "smpl_joint_cam": np.ones((24, 3)).tolist(),
            "smpl_param": {
                "pose": [v for r in rotmats[i] for v in cv2.Rodrigues(r)[0].ravel().tolist()],
                "shape": betas[i].tolist(), "gender": "mf"[i % 2],
            },
        }
        for i, box in enumerate(boxes(len(betas)))
    ]  # fmt: skip
    write_json(folder / "3dpw.json", {"images": pictures, "annotations": annotations})


def h36m_file(folder: Path, joints_m: Array) -> None:
    """People of cameras 1 and 4 by turns, with these joints [N, 17, 3]."""
    pictures = [
        {
            "file_name": f"s_09_act_02_subact_01_ca_0{1 + 3 * (i % 2)}/{i}.jpg", "width": SIZE[0],
            "height": SIZE[1], "cam_param": {"f": [700.0, 700.0], "c": [320.0, 240.0]},
        }
        for i in range(len(joints_m))
    ]  # fmt: skip
    annotations = [
        {
            "image_id": i, "bbox": box, "smpl_joints": np.ones((24, 3)).tolist(),
            "thetas": [0.0] * 72, "betas": [0.0] * 10, "root_coord": [0.0, 0.0, 4000.0],
            "h36m_joints": (1000 * joints_m[i]).tolist(),
        }
        for i, box in enumerate(boxes(len(joints_m)))
    ]  # fmt: skip
    write_json(folder / "h36m.json", {"images": pictures, "annotations": annotations})


def read_one(folder: Path, entry: dict[str, str], body: Path = BODY) -> tuple[BodyModel, RealSet]:
    """The set of a file that names this one alone, and the network's body."""
    bodies = {"male": str(BODY), "female": str(BODY)}
    write_json(folder / "sets.json", {"bodies": bodies, "sets": [entry]})
    network_body, (real_set,) = read_sets(folder / "sets.json", body)
    return network_body, real_set


def figures(network: Told, body: BodyModel, real_set: RealSet) -> dict[str, dict[str, object]]:
    """Rows by group; both ways must have seen everyone, in order, once as is and twice mirrored."""
    rows = evaluate_bodies(network, body, [real_set])
    everyone = list(range(len(real_set.people)))
    assert [i for i, mirrored in network.seen if mirrored] == everyone
    assert [i for i, mirrored in network.seen if not mirrored] == 2 * everyone
    for row in rows:
        assert row["protocol"].startswith(real_set.protocol.text)
        assert row["plain"] == pytest.approx(row["flip test"], abs=0.02)
    return {row["group"]: row for row in rows}


@pytest.mark.parametrize("representation", ["direct", "decomposed"])
def test_labels_as_predictions_are_without_error(
    tmp_path: Path, body: BodyModel, representation: str
) -> None:
    rotmats, betas = poses(4)
    hybrik_3dpw(tmp_path, rotmats, betas)
    network_body, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    spec = dataclasses.replace(SPEC, representation=representation)
    network = Told(spec, answers(body, spec, rotmats, betas, real_set))
    row = figures(network, network_body, real_set)["all"]
    assert row["people"] == 4
    assert set(row["plain"]) == {"mpjpe_mm", "pa_mpjpe_mm", "pve_mm"}
    for name, value in row["plain"].items():
        assert value == pytest.approx(0, abs=0.01 if representation == "direct" else 0.2), name


def test_a_turned_body_errs_by_its_joints_way_round_the_pelvis(
    tmp_path: Path, body: BodyModel
) -> None:
    """Half a turn about the vertical moves a point by twice its distance from the axis."""
    rotmats, betas = poses(3)
    hybrik_3dpw(tmp_path, rotmats, betas)
    network_body, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    turned = rotmats.copy()
    turned[:, 0] = np.diag([-1.0, 1, -1]) @ rotmats[:, 0]
    row = figures(Told(SPEC, answers(body, SPEC, turned, betas)), network_body, real_set)["all"]
    vertices = body(betas, rotmats).vertices
    joints = body.h36m_joints(vertices)
    of_joints = joints[:, list(LSP_FROM_H36M)] - joints[:, :1]
    of_vertices = vertices - joints[:, :1]
    for name, points in (("mpjpe_mm", of_joints), ("pve_mm", of_vertices)):
        expected = 2000 * np.linalg.norm(points[..., [0, 2]], axis=-1).mean()
        assert row["plain"][name] == pytest.approx(expected, rel=1e-4)
        assert expected > 100
    assert row["plain"]["pa_mpjpe_mm"] == pytest.approx(0, abs=0.01)


def test_another_shape_errs_by_what_its_beta_moves(tmp_path: Path, body: BodyModel) -> None:
    """In the rest pose, so that nothing but the file's own directions moves a vertex."""
    rotmats = np.tile(np.eye(3, dtype="f"), (2, 24, 1, 1))
    betas = np.zeros((2, 10), "f")
    hybrik_3dpw(tmp_path, rotmats, betas)
    network_body, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    taller = betas.copy()
    taller[:, 1] = 2.0
    row = figures(Told(SPEC, answers(body, SPEC, rotmats, taller)), network_body, real_set)["all"]
    moved = 2.0 * body.shapedirs[:, :, 1].astype(np.float64)
    regressed = body.J_regressor_h36m @ moved
    joints = regressed[list(LSP_FROM_H36M)] - regressed[0]
    vertices = moved - regressed[0]
    for name, points in (("mpjpe_mm", joints), ("pve_mm", vertices)):
        expected = 1000 * np.linalg.norm(points, axis=-1).mean()
        assert row["plain"][name] == pytest.approx(expected, rel=1e-3)
        assert expected > 5


def test_truth_is_posed_with_the_body_of_its_gender(tmp_path: Path, body: BodyModel) -> None:
    """Women's model a tenth larger: men exact, women off by a tenth of their joints' distance."""
    large = tmp_path / "large.npz"
    with np.load(BODY) as file:
        scaled = {k: 1.1 * file[k] for k in ("v_template", "shapedirs", "posedirs")}
        np.savez(large, **{**file, **scaled})
    rotmats, betas = poses(4)
    hybrik_3dpw(tmp_path, rotmats, betas)
    sets = [{"kind": "hybrik-3dpw", "path": "3dpw.json"}]
    write_json(
        tmp_path / "sets.json",
        {"bodies": {"male": str(BODY), "female": "large.npz"}, "sets": sets},
    )
    network_body, (real_set,) = read_sets(tmp_path / "sets.json", BODY)
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    row = figures(Told(SPEC, answers(body, SPEC, rotmats, betas)), network_body, real_set)["all"]
    joints = body.h36m_joints(body(betas, rotmats).vertices)
    reach = np.linalg.norm(joints[:, list(LSP_FROM_H36M)] - joints[:, :1], axis=-1).mean(1)
    expected = 1000 * 0.1 * reach[1::2].sum() / 4
    assert row["plain"]["mpjpe_mm"] == pytest.approx(expected, rel=1e-3)
    assert row["plain"]["pa_mpjpe_mm"] == pytest.approx(0, abs=0.01)


def aligned_mm(found: Array, truth: Array, fitted: object) -> float:
    """PA-MPJPE over the 14 by OpenCV's similarity of the `fitted` joints."""
    similarity, scale = cv2.estimateAffine3D(found[fitted], truth[fitted], force_rotation=True)
    chosen = list(LSP_FROM_H36M)
    moved = scale * found[chosen] @ similarity[:, :3].T + similarity[:, 3]
    return float(1000 * np.linalg.norm(moved - truth[chosen], axis=-1).mean())


def test_human36m_by_both_orders_of_alignment_and_by_camera(
    tmp_path: Path, body: BodyModel
) -> None:
    """A wrong jaw, which is none of the 14, is felt only where all 17 are aligned."""
    rotmats, betas = poses(4)
    joints = standing_joints(body, rotmats, betas)
    joints[0, H36M_17.index("left_knee"), 0] += 0.14
    joints[1, H36M_17.index("jaw"), 1] += 0.2
    h36m_file(tmp_path, joints)
    network_body, real_set = read_one(
        tmp_path, {"kind": "hybrik-h36m", "path": "h36m.json", "images": "pictures"}
    )
    assert real_set.people.records[0].image.parent.parent == tmp_path / "pictures"
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    rows = figures(Told(SPEC, answers(body, SPEC, rotmats, betas)), network_body, real_set)
    everyone, frontal = rows["all"]["plain"], rows["frontal camera"]["plain"]
    assert rows["all"]["people"] == 4
    assert rows["frontal camera"]["people"] == 2
    assert everyone["mpjpe_mm"] == pytest.approx(140 / 14 / 4, abs=0.01)
    truth, found = joints, standing_joints(body, rotmats, betas)
    for name, fitted in (("pa_mpjpe_mm", list(LSP_FROM_H36M)), ("pa_mpjpe_17_aligned_mm", ...)):
        expected = np.mean([aligned_mm(f, t, fitted) for f, t in zip(found, truth, strict=True)])
        assert everyone[name] == pytest.approx(expected, abs=0.01)
    assert frontal["mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert frontal["pa_mpjpe_mm"] == pytest.approx(0, abs=0.01)
    assert frontal["pa_mpjpe_17_aligned_mm"] > 1


def mpi_test_set(root: Path, joints_m: Array) -> None:
    """The data set's own file, joints [N, 17, 3] in Human3.6M's order."""
    h5py = pytest.importorskip("h5py")
    folder = root / "mpi_inf_3dhp_test_set/TS1"
    folder.mkdir(parents=True)
    joints = joints_m[:, list(MPI_FROM_H36M)]
    K = intrinsics(np.array([700.0, 700.0]), np.array([320.0, 240.0]))
    with h5py.File(folder / "annot_data.mat", "w") as file:
        file["valid_frame"] = np.ones((len(joints), 1))
        file["annot2"] = np.stack([project(j, K) for j in joints])[:, None]
        file["univ_annot3"] = 1000 * joints[:, None]
        file["activity_annotation"] = np.ones((len(joints), 1))


def test_mpi_inf_3dhp_by_its_own_files(tmp_path: Path, body: BodyModel) -> None:
    rotmats, betas = poses(2)
    joints = standing_joints(body, rotmats, betas)
    joints[0, H36M_17.index("left_wrist"), 2] += 0.17  # beyond every threshold
    joints[1, H36M_17.index("spine"), 2] += 0.34  # not among the 14 that are counted
    mpi_test_set(tmp_path, joints)
    network_body, real_set = read_one(tmp_path, {"kind": "3dhp", "path": "."})
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    row = figures(Told(SPEC, answers(body, SPEC, rotmats, betas)), network_body, real_set)["all"]
    assert row["plain"]["mpjpe_mm"] == pytest.approx((170 + 340) / 17 / 2, abs=0.01)
    assert row["plain"]["pck_percent"] == pytest.approx(100 * 27 / 28)
    assert row["plain"]["auc_percent"] == pytest.approx(100 * 27 / 28 * 30 / 31)


def test_mpi_order_agrees_with_names() -> None:
    ours = orders.H36M_LEFT_FIRST.names
    named = {a: ours[i] for a, i in zip(orders.MPI_17.names, MPI_FROM_H36M, strict=True)}
    assert len(set(named.values())) == 17
    assert {name: other for name, other in named.items() if name != other} == {
        "head_top": "h36m_head", "mpi_head": "h36m_nose", "mpi_neck": "h36m_neck",
        "mpi_spine": "h36m_spine", "left_mpi_hip": "left_h36m_hip",
        "right_mpi_hip": "right_h36m_hip",
    }  # fmt: skip


@needs_shared
def test_3dpw_as_it_is_published(tmp_path: Path, body: BodyModel) -> None:
    """Its own pickle, structure and traps, with pictures made up here."""
    shutil.copytree(SHARED / "formats/3dpw_synthetic/sequenceFiles", tmp_path / "sequenceFiles")
    network_body, real_set = read_one(tmp_path, {"kind": "3dpw", "path": ".", "split": "test"})
    records = real_set.people.records
    assert real_set.name == "3dpw test"
    assert len(records) == 8  # two of ten have no camera or no 2D joints
    paint(records, boxes_of(real_set.people), (1080, 1920))
    rotmats = np.stack([r.smpl.rotmats for r in records]).astype("f")
    betas = np.stack([r.smpl.betas for r in records]).astype("f")
    row = figures(Told(SPEC, answers(body, SPEC, rotmats, betas)), network_body, real_set)["all"]
    assert "times as wide" in row["protocol"]  # it has no boxes of its own
    for name, value in row["plain"].items():
        assert value == pytest.approx(0, abs=0.01), name
    shrugged = rotmats.copy()
    shrugged[:, 18] = np.eye(3)  # another elbow moves one wrist of fourteen joints, and the arm
    row = figures(Told(SPEC, answers(body, SPEC, shrugged, betas)), network_body, real_set)["all"]
    wrong = body.h36m_joints(body(betas, shrugged).vertices) - body.h36m_joints(
        body(betas, rotmats).vertices
    )
    expected = 1000 * np.linalg.norm(wrong[:, list(LSP_FROM_H36M)], axis=-1).mean()
    assert row["plain"]["mpjpe_mm"] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_people_are_put_where_the_picture_has_them(tmp_path: Path, body: BodyModel) -> None:
    """The decode is that of whole pictures: joints project onto the keypoints of their crops."""
    rotmats, betas = poses(4)
    hybrik_3dpw(tmp_path, rotmats, betas)
    network_body, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    records, edges = real_set.people.records, boxes_of(real_set.people)
    paint(records, edges, SIZE)
    spec = dataclasses.replace(SPEC, representation="decomposed")
    network = Told(spec, answers(body, spec, rotmats, betas, real_set))
    for box, (person,) in zip(edges, recover(network, network_body, records, edges), strict=True):
        middle = (box[:2] + box[2:]) / 2 - 0.5
        np.testing.assert_allclose(project(person.joints, person.K)[0], middle, atol=0.1)
        np.testing.assert_allclose(
            project(person.joints, person.K), person.keypoints_px[:24], atol=0.5
        )


def test_meshes_of_another_topology_have_no_pve(tmp_path: Path) -> None:
    """Our body against labels of another mesh: joints can be compared, vertices cannot."""
    (tmp_path / "octahedra.npz").write_bytes(tiny.body_bytes())
    rotmats, betas = poses(2)
    hybrik_3dpw(tmp_path, rotmats, betas)
    octahedra = BodyModel.load(tmp_path / "octahedra.npz")
    network_body, real_set = read_one(
        tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"}, tmp_path / "octahedra.npz"
    )
    paint(real_set.people.records, boxes_of(real_set.people), SIZE)
    network = Told(SPEC, answers(octahedra, SPEC, rotmats, betas))
    assert set(figures(network, network_body, real_set)["all"]["plain"]) == {
        "mpjpe_mm", "pa_mpjpe_mm",
    }  # fmt: skip


def test_a_regressor_replaces_those_of_bodies_it_fits(tmp_path: Path, body: BodyModel) -> None:
    rows = np.roll(body.J_regressor_h36m, 1, axis=0).astype(np.float64)
    np.save(tmp_path / "J.npy", rows)
    rotmats, betas = poses(2)
    hybrik_3dpw(tmp_path, rotmats, betas)
    (tmp_path / "octahedra.npz").write_bytes(tiny.body_bytes())
    bodies = {"male": str(BODY), "female": "octahedra.npz"}
    sets = [{"kind": "hybrik-3dpw", "path": "3dpw.json"}]
    write_json(tmp_path / "sets.json", {"bodies": bodies, "regressor": "J.npy", "sets": sets})
    network_body, (real_set,) = read_sets(tmp_path / "sets.json", BODY)
    for changed in (network_body, real_set.people.bodies["male"]):
        np.testing.assert_allclose(changed.J_regressor_h36m, rows, atol=1e-7)
    own = read_body(tmp_path / "octahedra.npz").J_regressor_h36m
    np.testing.assert_array_equal(real_set.people.bodies["female"].J_regressor_h36m, own)


def without_regressor(path: Path) -> None:
    """Our body as an SMPL file comes: without Human3.6M's joints."""
    with np.load(BODY) as file:
        np.savez(path, **{k: file[k] for k in file.files if k != "J_regressor_h36m"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sets": [{"kind": "3dpw", "path": "nowhere"}]}, "virtualhumans"),
        ({"sets": [{"kind": "3dhp", "path": "nowhere"}]}, "vcai"),
        ({"sets": [{"kind": "hybrik-h36m", "path": "nowhere.json"}]}, "HybrIK"),
        ({"sets": [{"kind": "spin-3dpw", "path": "nowhere.npz"}]}, "fetch_data"),
        ({"sets": [{"kind": "lsp", "path": "."}]}, "kinds are 3dpw"),
        ({"sets": [{"path": "."}]}, "names no sets"),
        ({"sets": None}, "names no sets"),
        ({"sets": [{"kind": "hybrik-3dpw", "path": "3dpw.json"}]}, r"smpl\.is\.tue"),
        ({"sets": [{"kind": "hybrik-h36m", "path": "train.json"}]}, "nothing to compare"),
        ({"regressor": "nowhere.npy"}, "no regressor"),
        ({"regressor": "flat.npy"}, "no regressor"),
        ({"bodies": {"male": "nowhere.npz"}}, "does not exist"),
        ({"bodies": {"male": "plain.npz"}}, "SPIN"),
    ],
)  # fmt: skip
def test_what_is_absent_is_named_with_its_source(
    tmp_path: Path,
    changes: dict[str, object],
    says: str,
    assert_helpful: Callable[[GlnetError], None],
) -> None:
    hybrik_3dpw(tmp_path, *poses(2))
    h36m_file(tmp_path, np.ones((1, 17, 3)))
    labels = json.loads((tmp_path / "h36m.json").read_text())
    del labels["annotations"][0]["h36m_joints"]
    write_json(tmp_path / "train.json", labels)
    np.save(tmp_path / "flat.npy", np.zeros(17))
    without_regressor(tmp_path / "plain.npz")
    write_json(tmp_path / "sets.json", {"sets": [], **changes})
    with pytest.raises(GlnetError, match=says) as raised:
        read_sets(tmp_path / "sets.json", BODY)
    if "nowhere.npz" not in str(changes):
        assert_helpful(raised.value)


def test_missing_descriptions_and_pictures_are_named(tmp_path: Path, body: BodyModel) -> None:
    with pytest.raises(SourceError, match="J_regressor_h36m"):
        read_sets(tmp_path / "sets.json", BODY)
    rotmats, betas = poses(2)
    hybrik_3dpw(tmp_path, rotmats, betas)
    network_body, real_set = read_one(tmp_path, {"kind": "hybrik-3dpw", "path": "3dpw.json"})
    with pytest.raises(SourceError, match="unpack the pictures"):
        evaluate_bodies(Told(SPEC, answers(body, SPEC, rotmats, betas)), network_body, [real_set])


def test_every_kind_states_its_protocol() -> None:
    for kind, (_, protocol) in KINDS.items():
        assert "joint" in protocol.text, kind
