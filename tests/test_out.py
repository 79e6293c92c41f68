"""Files written from results, read back by other means and compared."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pygltflib
import pytest

import glnet_rt
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Person
from glnet_rt.errors import ContractError, SourceError
from glnet_rt.out import (
    BodyMotion,
    ResultWriter,
    VideoWriter,
    npz,
    save_result,
    write_animated_glb,
)
from glnet_rt.out.glb import strongest_weights
from glnet_rt.out.motion import MotionRecorder
from glnet_rt.out.raster import vertex_normals
from glnet_rt.rotation import rotmat_to_unitquat, rotvec_to_rotmat
from glnet_rt.skeleton import NUM_JOINTS, SMPL_PARENTS
from glnet_rt.stream import open_source
from tests.out_samples import LENS, SIZE, person_at, result_of, sphere

ASSETS = Path(glnet_rt.__file__).parent / "assets"
YUP = np.diag([1.0, -1.0, -1.0])
SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}


def accessor(gltf: pygltflib.GLTF2, index: int) -> Array:
    """An accessor's values [N, ...], checked to lie inside the buffer and its bounds."""
    item = gltf.accessors[index]
    view = gltf.bufferViews[item.bufferView]
    blob = gltf.binary_blob()
    width = SIZES[item.type]
    data = np.frombuffer(blob, DTYPES[item.componentType], item.count * width, view.byteOffset)
    assert view.byteOffset % 4 == 0
    assert data.nbytes == view.byteLength
    assert view.byteOffset + view.byteLength <= gltf.buffers[0].byteLength == len(blob)
    values = data.reshape(item.count, width)
    if item.min:
        np.testing.assert_array_equal(values.min(0), np.array(item.min, values.dtype))
        np.testing.assert_array_equal(values.max(0), np.array(item.max, values.dtype))
    return values[:, 0] if width == 1 else values


def load(path: Path) -> pygltflib.GLTF2:
    """Read a GLB, checking its container to the byte."""
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    text_length, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    assert text_length % 4 == 0
    json.loads(data[20 : 20 + text_length])
    gltf = pygltflib.GLTF2().load_binary(str(path))
    assert gltf.asset.version == "2.0"
    for mesh in gltf.meshes:
        attributes = mesh.primitives[0].attributes
        assert gltf.accessors[attributes.POSITION].min
        faces = accessor(gltf, mesh.primitives[0].indices)
        assert faces.max() < gltf.accessors[attributes.POSITION].count
    return gltf


def test_still_glb_holds_everyone_y_up(tmp_path: Path) -> None:
    people = person_at((0.2, -0.1, 2.0)), person_at((-0.4, 0.3, 3.0))
    gltf = load(save_result(result_of(*people), tmp_path / "body.glb"))
    assert [gltf.nodes[n].mesh for n in gltf.scenes[0].nodes] == [0, 1]
    colors = set()
    for person, mesh in zip(people, gltf.meshes, strict=True):
        primitive = mesh.primitives[0]
        vertices = accessor(gltf, primitive.attributes.POSITION)
        np.testing.assert_allclose(vertices, person.vertices @ YUP, atol=1e-6)
        faces = accessor(gltf, primitive.indices).reshape(-1, 3)
        np.testing.assert_array_equal(faces, sphere()[1])
        normals = accessor(gltf, primitive.attributes.NORMAL)
        np.testing.assert_allclose(normals, vertex_normals(vertices, sphere()[1]), atol=1e-6)
        assert (normals * (vertices - vertices.mean(0))).sum(1).min() > 0  # outwards
        colors.add(tuple(gltf.materials[primitive.material].pbrMetallicRoughness.baseColorFactor))
    assert len(colors) == 2


def test_people_of_virtual_cameras_share_one_scene(tmp_path: Path) -> None:
    lens = LENS.copy()
    lens[:2, :2] /= 4
    people = person_at((0, 0, 2.0)), person_at((0, 0, 2.0), K=lens)
    gltf = load(save_result(result_of(*people), tmp_path / "body.glb"))
    depths = [
        -accessor(gltf, m.primitives[0].attributes.POSITION)[:, 2].mean() for m in gltf.meshes
    ]
    assert depths == pytest.approx([2.0, 8.0], abs=1e-3)


def make_motion(frames: int, seed: int) -> tuple[BodyMotion, Array]:
    """A ball with 24 joints that turn a little every frame, and where they are [T, 24, 3]."""
    rng = np.random.default_rng(seed)
    vertices, _ = sphere()
    weights = rng.uniform(0, 1, (len(vertices), NUM_JOINTS)) * (
        rng.uniform(size=(len(vertices), NUM_JOINTS)) < 0.1
    )
    weights[:, seed % NUM_JOINTS] += 0.2
    start = rng.normal(0, 1.5, (1, NUM_JOINTS, 3))
    steps = rng.normal(0, 0.3, (frames, NUM_JOINTS, 3)).cumsum(0)
    rotations = rotvec_to_rotmat(start + steps)
    motion = BodyMotion(
        rest_vertices=vertices,
        rest_joints=rng.normal(0, 0.3, (NUM_JOINTS, 3)).astype(np.float32),
        lbs_weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
        global_orient=rotations[:, 0].astype(np.float32),
        body_pose=rotations[:, 1:].astype(np.float32),
        pelvis=rng.normal((0, 0, 3), 1, (frames, 3)).astype(np.float32),
    )
    joints = np.zeros((frames, NUM_JOINTS, 3))
    for t in range(frames):
        world = [motion.global_orient[t].astype(float)]
        joints[t, 0] = motion.pelvis[t]
        for j in range(1, NUM_JOINTS):
            p = SMPL_PARENTS[j]
            bone = motion.rest_joints[j] - motion.rest_joints[p]
            joints[t, j] = joints[t, p] + world[p] @ bone
            world.append(world[p] @ motion.body_pose[t, j - 1])
    return motion, joints


def matrix_of(translation: Array, xyzw: Array) -> Array:
    x, y, z, w = xyzw
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = translation
    return result


def world_matrices(gltf: pygltflib.GLTF2, frame: int | None) -> dict[int, Array]:
    """Node -> [4, 4], as a viewer shows keyframe `frame`, or the pose at rest for None."""
    local = {
        n: [np.array(node.translation or (0, 0, 0)), np.array(node.rotation or (0, 0, 0, 1))]
        for n, node in enumerate(gltf.nodes)
    }
    if frame is not None:
        for channel in gltf.animations[0].channels:
            values = accessor(gltf, gltf.animations[0].samplers[channel.sampler].output)
            slot = {"translation": 0, "rotation": 1}[channel.target.path]
            local[channel.target.node][slot] = values[frame].astype(float)
    world: dict[int, Array] = {}

    def visit(node: int, above: Array) -> None:
        world[node] = above @ matrix_of(*local[node])
        for child in gltf.nodes[node].children or []:
            visit(child, world[node])

    for root in gltf.scenes[0].nodes:
        visit(root, np.eye(4))
    return world


def test_animated_glb_gives_back_the_joints_and_the_skin(tmp_path: Path) -> None:
    frames, faces = 6, sphere()[1]
    motions, joints = zip(*(make_motion(frames, seed) for seed in (1, 2)), strict=True)
    times = 12.0 + np.arange(frames) / 25
    gltf = load(write_animated_glb(motions, faces, times, tmp_path / "body.glb"))

    assert len(gltf.skins) == 2
    for sampler in gltf.animations[0].samplers:
        np.testing.assert_allclose(accessor(gltf, sampler.input), times - 12, atol=1e-6)
    moved = [(c.target.node, c.target.path) for c in gltf.animations[0].channels]
    assert len(set(moved)) == len(moved) == 2 * (NUM_JOINTS + 1)
    for t in (None, *range(frames)):
        world = world_matrices(gltf, t)
        for person in range(2):
            skin = gltf.skins[person]
            got = np.array([world[n][:3, 3] for n in skin.joints])
            np.testing.assert_allclose(got, joints[person][t or 0] @ YUP, atol=1e-4)
            check_skin(gltf, person, world, motions[person], joints[person][t or 0], t or 0)


def check_skin(
    gltf: pygltflib.GLTF2,
    person: int,
    world: dict[int, Array],
    motion: BodyMotion,
    joints: Array,
    frame: int,
) -> None:
    """Skin the mesh as a glTF viewer does; compare with linear blend skinning written out."""
    skin = gltf.skins[person]
    bind = accessor(gltf, skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
    nodes = [n for n in gltf.nodes if n.skin == person]
    assert len(nodes) == 1
    attributes = gltf.meshes[nodes[0].mesh].primitives[0].attributes
    rest = np.c_[accessor(gltf, attributes.POSITION), np.ones(len(motion.rest_vertices))]
    slots = accessor(gltf, attributes.JOINTS_0)
    weights = accessor(gltf, attributes.WEIGHTS_0)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    palette = np.array([world[n] for n in skin.joints]) @ bind
    shown = np.einsum("vk,vkij,vj->vi", weights, palette[slots], rest)[:, :3]

    turn = [motion.global_orient[frame].astype(float)]
    for j in range(1, NUM_JOINTS):
        turn.append(turn[SMPL_PARENTS[j]] @ motion.body_pose[frame, j - 1])
    dense = np.zeros((len(weights), NUM_JOINTS))
    np.add.at(dense, (np.arange(len(weights))[:, None], slots), weights)
    local = motion.rest_vertices[:, None] - motion.rest_joints
    each = np.einsum("jab,vjb->vja", np.array(turn), local) + joints
    expected = (dense[..., None] * each).sum(1)
    np.testing.assert_allclose(shown, expected @ YUP, atol=1e-4)


def test_quaternions_never_jump_to_the_other_sign(tmp_path: Path) -> None:
    motion, _ = make_motion(3, 0)
    spin = rotvec_to_rotmat(np.linspace(0, 4 * np.pi, 60)[:, None] * [0.0, 1.0, 0.0])
    motion = BodyMotion(
        motion.rest_vertices,
        motion.rest_joints,
        motion.lbs_weights,
        spin.astype(np.float32),
        np.repeat(spin[:, None], 23, 1).astype(np.float32),
        np.zeros((60, 3), np.float32),
    )
    gltf = load(write_animated_glb([motion], sphere()[1], np.arange(60) / 30, tmp_path / "a.glb"))
    jumped = (np.diff(np.sign(rotmat_to_unitquat(spin)[:, 2])) != 0).any()
    assert jumped  # plain conversion does jump, so the test can fail
    for channel in gltf.animations[0].channels:
        if channel.target.path == "rotation":
            q = accessor(gltf, gltf.animations[0].samplers[channel.sampler].output)
            assert (q[1:] * q[:-1]).sum(1).min() > 0.9


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(ASSETS / "body.npz")


def posed(body: BodyModel, frame: int, betas: Array) -> Person:
    """The shipped body in a pose that changes smoothly from frame to frame, 3 m away."""
    wave = np.sin(np.arange(72).reshape(24, 3) + 0.4 * frame)
    rotations = rotvec_to_rotmat(np.where(np.arange(24)[:, None] == 0, [np.pi, 0, 0], 0.5 * wave))
    rotations = rotations.astype(np.float32)
    transl = np.array([0.1 * frame, 0.2, 3.0], np.float32)
    out = body(betas[None], rotations[None], transl[None])
    return replace(
        person_at((0, 0, 3)),
        vertices=out.vertices[0],
        joints=out.joints[0],
        global_orient=rotations[0],
        body_pose=rotations[1:],
        betas=betas,
        transl=transl,
    )


def test_recorded_motion_of_the_shipped_body(tmp_path: Path, body: BodyModel) -> None:
    betas = np.linspace(-1, 1, 10, dtype=np.float32)
    people = [posed(body, t, betas) for t in range(5)]
    recorder = MotionRecorder()
    for t, person in enumerate(people):
        recorder.add(replace(result_of(person, frame_id=t), faces=body.faces))
    assert recorder.moves
    path = recorder.save(tmp_path / "body.glb", body)
    assert path is not None
    gltf = load(path)
    for t, person in enumerate(people):
        world = world_matrices(gltf, t)
        joints = np.array([world[n][:3, 3] for n in gltf.skins[0].joints])
        np.testing.assert_allclose(joints, person.joints @ YUP, atol=1e-4)


def test_motion_is_still_where_nobody_can_be_followed(tmp_path: Path, body: BodyModel) -> None:
    person = posed(body, 0, np.zeros(10, np.float32))
    one = replace(result_of(person), faces=body.faces)
    two = replace(result_of(person, person, frame_id=1), faces=body.faces)
    for results in ([one], [one, two], [result_of(), two]):
        recorder = MotionRecorder()
        for result in results:
            recorder.add(result)
        path = recorder.save(tmp_path / "body.glb", body)
        assert path is not None
        gltf = load(path)
        assert not gltf.animations
        first = next(r for r in results if r.people)
        assert len(gltf.meshes) == len(first.people)
        vertices = accessor(gltf, gltf.meshes[0].primitives[0].attributes.POSITION)
        np.testing.assert_allclose(vertices, person.vertices @ YUP, atol=1e-6)
    nobody = MotionRecorder()
    nobody.add(result_of())
    assert nobody.save(tmp_path / "none.glb", body) is None
    assert not (tmp_path / "none.glb").exists()


def test_parameters_of_a_long_sequence_rebuild_the_vertices(
    tmp_path: Path, body: BodyModel
) -> None:
    people = [posed(body, t, np.full(10, 0.1 * t, np.float32)) for t in range(3)]
    writer = ResultWriter(body_id=body.body_id, body_sha256=body.sha256, vertices=False)
    for t, person in enumerate(people):
        writer.add(replace(result_of(person, frame_id=t), faces=body.faces))
    with np.load(writer.save(tmp_path / "a.npz"), allow_pickle=False) as data:
        assert "vertices" not in data
        assert str(data["body_sha256"]) == body.sha256
        pose = np.concatenate([data["global_orient"][:, None], data["body_pose"]], axis=1)
        rebuilt = body(data["betas"], pose, data["transl"])
    expected = np.array([person.vertices for person in people])
    np.testing.assert_allclose(rebuilt.vertices, expected, atol=1e-6)


def test_strongest_weights() -> None:
    dense = np.zeros((2, NUM_JOINTS), np.float32)
    dense[0, [3, 5, 7, 9, 11, 13]] = [0.1, 0.3, 0.05, 0.2, 0.25, 0.1]
    dense[1, 20] = 1
    joints, weights = strongest_weights(dense)
    assert joints[0].tolist() == [5, 11, 9, 3]
    np.testing.assert_allclose(weights[0], np.array([0.3, 0.25, 0.2, 0.1]) / 0.85, rtol=1e-6)
    assert (joints[1].tolist(), weights[1].tolist()) == ([20, 0, 0, 0], [1, 0, 0, 0])


def test_glb_misuse(tmp_path: Path) -> None:
    motion, _ = make_motion(3, 0)
    path = tmp_path / "a.glb"
    with pytest.raises(ContractError, match="nobody"):
        save_result(result_of(), path)
    with pytest.raises(ContractError, match="one time per frame"):
        write_animated_glb([motion], sphere()[1], np.arange(4.0), path)
    with pytest.raises(ContractError, match="do not grow"):
        write_animated_glb([motion], sphere()[1], np.zeros(3), path)
    with pytest.raises(ContractError, match="wrong shape"):
        BodyMotion(**{**fields(motion), "pelvis": motion.pelvis[:2]})
    assert not path.exists()


def fields(motion: BodyMotion) -> dict[str, Any]:
    return {name: getattr(motion, name) for name in BodyMotion.__dataclass_fields__}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_npz_holds_every_field_of_every_person(tmp_path: Path, count: int) -> None:
    people = [person_at((0, 0, 2.0), seed=k, track_id=k or None) for k in range(count)]
    result = result_of(*people, frame_id=7)
    assert result.save(tmp_path / "out.npz") == tmp_path / "out.npz"
    with np.load(tmp_path / "out.npz", allow_pickle=False) as data:
        assert data["frame_id"].tolist() == [7]
        assert data["timestamp_ns"].tolist() == [result.timestamp_ns]
        assert data["image_size"].tolist() == [list(SIZE)]
        assert data["person_count"].tolist() == [count]
        assert data["person_index"].tolist() == list(range(count))
        assert data["track_id"].tolist() == [-1, 1][:count]
        np.testing.assert_array_equal(data["faces"], result.faces)
        for name in ("joints", "keypoints_px", "global_orient", "body_pose", "betas", "transl",
                     "bbox_xyxy", "K", "vertices"):  # fmt: skip
            if count:
                np.testing.assert_array_equal(data[name], [getattr(p, name) for p in people])
                assert data[name].dtype == getattr(people[0], name).dtype
        np.testing.assert_allclose(data["score"], [p.score for p in people], rtol=1e-6)


def test_npz_of_a_sequence_ties_people_to_frames(tmp_path: Path) -> None:
    writer = ResultWriter(body_id="free-1", body_sha256="ab" * 32)
    counts = [1, 0, 2]
    for t, count in enumerate(counts):
        people = [person_at((0, 0, 2.0), seed=10 * t + k) for k in range(count)]
        writer.add(result_of(*people, frame_id=2 * t))
    with np.load(writer.save(tmp_path / "result"), allow_pickle=False) as data:
        assert data["frame_id"].tolist() == [0, 2, 4]
        assert data["person_count"].tolist() == counts
        assert data["person_frame"].tolist() == [0, 2, 2]
        assert data["person_index"].tolist() == [0, 0, 1]
        assert (str(data["body_id"]), str(data["body_sha256"])) == ("free-1", "ab" * 32)
        assert data["vertices"].shape == (3, len(sphere()[0]), 3)
        assert int(data["schema"]) == npz.SCHEMA


@pytest.mark.parametrize(
    ("choice", "frames", "stored"),
    [(None, 4, True), (None, 5, False), (True, 5, True), (False, 1, False)],
)
def test_long_sequences_keep_no_vertices_unless_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: bool | None,
    frames: int,
    stored: bool,
) -> None:
    monkeypatch.setattr(npz, "MAX_VERTEX_FRAMES", 4)
    writer = ResultWriter(vertices=choice)
    for t in range(frames):
        writer.add(result_of(person_at((0, 0, 2.0)), frame_id=t))
    with np.load(writer.save(tmp_path / "a.npz")) as data:
        assert ("vertices" in data) == stored
        assert len(data["joints"]) == frames
        if stored:
            assert len(data["vertices"]) == frames


def test_obj_reads_back(tmp_path: Path) -> None:
    people = person_at((0.2, -0.1, 2.0)), person_at((-0.4, 0.3, 3.0))
    lines = save_result(result_of(*people), tmp_path / "a.obj").read_text().splitlines()
    vertices = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    expected = np.concatenate([p.vertices @ YUP for p in people])
    np.testing.assert_allclose(vertices, expected, atol=1e-6)
    base = sphere()[1] + 1
    np.testing.assert_array_equal(faces, np.concatenate([base, base + len(sphere()[0])]))
    assert [line for line in lines if line.startswith("o ")] == ["o person_0", "o person_1"]


def test_ply_reads_back(tmp_path: Path) -> None:
    people = person_at((0.2, -0.1, 2.0)), person_at((-0.4, 0.3, 3.0))
    data = save_result(result_of(*people), tmp_path / "a.ply").read_bytes()
    header, body = data.split(b"end_header\n", 1)
    count, face_count = 2 * len(sphere()[0]), 2 * len(sphere()[1])
    assert f"element vertex {count}\n".encode() in header
    assert f"element face {face_count}\n".encode() in header
    table = np.frombuffer(body, "<f4", count * 6).reshape(count, 6)
    np.testing.assert_allclose(
        table[:, :3], np.concatenate([p.vertices @ YUP for p in people]), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(table[:, 3:], axis=1), 1, atol=1e-5)
    faces = np.frombuffer(body, np.dtype([("n", "u1"), ("v", "<i4", 3)]), offset=count * 24)
    assert len(faces) == face_count
    assert (faces["n"] == 3).all()
    assert faces["v"].max() == count - 1


@pytest.mark.parametrize("name", ["result.stl", "result", "result.npz.bak"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ContractError, match=r"\.npz \.glb \.obj \.ply"):
        save_result(result_of(person_at((0, 0, 2.0))), tmp_path / name)


def test_video_reads_back(tmp_path: Path) -> None:
    shades = (20, 120, 220)
    with VideoWriter(tmp_path / "a.mp4", 12.5) as video:
        for shade in shades:
            video.write(np.full((49, 65, 3), shade, np.uint8))
    with open_source(tmp_path / "a.mp4") as source:
        frames = [frame.image for frame in source]
        assert (source.fps, source.size) == (12.5, (64, 48))  # MPEG-4 has no odd sizes
    assert [round(f.mean()) for f in frames] == pytest.approx(shades, abs=4)
    with pytest.raises(ContractError, match="closed"):
        video.write(np.zeros((49, 65, 3), np.uint8))
    video.close()


def test_video_misuse(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="cannot write the video"):
        VideoWriter(tmp_path / "no/such/folder/a.mp4", 25).write(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ContractError, match="fps"):
        VideoWriter(tmp_path / "a.mp4", 0)
    with VideoWriter(tmp_path / "a.mp4", 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
        with pytest.raises(ContractError, match="one size"):
            video.write(np.zeros((64, 48, 3), np.uint8))
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 1
    capfd.readouterr()  # OpenCV's own words about the missing folder
