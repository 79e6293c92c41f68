"""Synthetic people: labels that fit the pictures, repeatable sets, poses within limits."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ArtifactError, ContractError
from glnet_rt.kinematics import inverse_kinematics
from glnet_rt.out.raster import rasterize
from glnet_rt.skeleton import INDEX, KEYPOINTS, NUM_SKELETON
from tests.drawn import SIZE, has_flag, mask_of
from train.synthetic import (
    actions,
    actors,
    anatomy,
    appearance,
    background,
    clip,
    limbs,
    poses,
    shards,
    things,
)
from train.synthetic.__main__ import BODY_PATH, main
from train.synthetic.background import BACKGROUND_NAMES, HELD_OUT_BACKGROUNDS, PHOTOGRAPHS
from train.synthetic.dataset import SetSettings, render_set
from train.synthetic.generate import FLAG_NAMES, HIDDEN, OUTSIDE, SEEN, Generator, Sample
from train.synthetic.noise import HELD_OUT_PATTERNS, PATTERN_NAMES, pattern_at
from train.synthetic.poses import FAMILY_NAMES, HELD_OUT_FAMILIES
from train.synthetic.render import hidden_behind, seen_keypoints

COUNT = 60


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load(BODY_PATH)


@pytest.fixture(scope="module")
def samples(body: BodyModel) -> list[Sample]:
    generator = Generator(body, "train", seed=5, size=SIZE)
    return [generator.sample(index) for index in range(COUNT)]


def test_keypoints_project_onto_their_pixels(samples: list[Sample]) -> None:
    for sample in samples:
        xyz = (sample.keypoints_xyz + sample.root_xyz).astype(np.float32)
        uv = np.float32(sample.focal) * xyz[:, :2] / xyz[:, 2:] + sample.principal_uv
        assert np.abs(uv - sample.keypoints_uv).max() < 1e-5


def test_pose_labels_rebuild_the_keypoints(body: BodyModel, samples: list[Sample]) -> None:
    for sample in samples:
        output = body(sample.betas[None], sample.rotmats[None])
        rebuilt = body.keypoints(output)[0] - output.joints[0, 0]
        assert np.abs(rebuilt - sample.keypoints_xyz).max() < 1e-6


def test_twist_and_keypoints_give_the_rotations_back(
    body: BodyModel, samples: list[Sample]
) -> None:
    for sample in samples:
        rest = body.rest_skeleton(sample.betas[None])
        skeleton = sample.keypoints_xyz[None, :NUM_SKELETON]
        solved = inverse_kinematics(skeleton, sample.twist[None], rest)[0]
        # Bones of a posed mesh stretch by the leaf vertices' blendshapes, so not to the last digit.
        joints = body(sample.betas[None], solved[None]).joints[0]
        error = joints - joints[0] - sample.keypoints_xyz[: len(joints)]
        assert np.linalg.norm(error, axis=1).max() < 5e-3


def test_mask_is_the_silhouette_of_the_labelled_body(
    body: BodyModel, samples: list[Sample]
) -> None:
    """Where nothing hides the person, the mask is the bare body and little more than clothes."""
    shares = []
    for sample in samples:
        if any(has_flag(sample, name) for name in ("occluded", "truncated", "skirt", "thing")):
            continue
        vertices = body(sample.betas[None], sample.rotmats[None]).vertices[0]
        bare = _silhouette(body, vertices, sample)
        mask = mask_of(sample)
        assert mask[bare].mean() > 0.97
        shares.append((bare & mask).sum() / (bare | mask).sum())
    assert len(shares) >= 5
    assert min(shares) > 0.6, "wide trousers, a hood and a brim at the most"
    assert np.median(shares) > 0.8


def _silhouette(body: BodyModel, vertices: np.ndarray, sample: Sample) -> np.ndarray:
    root = body(sample.betas[None], sample.rotmats[None]).joints[0, 0]
    xyz = vertices - root + sample.root_xyz
    uv = sample.focal * xyz[:, :2] / xyz[:, 2:] + sample.principal_uv
    zbuffer = np.zeros((SIZE, SIZE), np.float32)
    face_id = np.full((SIZE, SIZE), -1, np.int32)
    bary = np.zeros((SIZE, SIZE, 2), np.float32)
    xy = np.ascontiguousarray((uv + 0.5) * SIZE - 0.5, dtype=np.float32)
    depth = np.ascontiguousarray(xyz[:, 2], dtype=np.float32)
    rasterize(body.faces, xy, depth, zbuffer, face_id, bary)
    return face_id >= 0


def test_surface_names_the_points_of_the_body_that_are_seen(
    body: BodyModel, samples: list[Sample]
) -> None:
    """Each coarse pixel's rest point, posed by the labels, projects back into that pixel."""
    off, behind, covered = [], [], []
    for sample in samples:
        if has_flag(sample, "skirt"):
            continue  # not part of the body model
        rows, columns = np.nonzero(sample.surface[..., 3] > -128)
        found = sample.surface[rows, columns].astype(np.float64) / 100
        squared = ((found[:, None, :3] - body.v_template[None].astype(np.float64)) ** 2).sum(-1)
        posed = body(sample.betas[None], sample.rotmats[None])
        xyz = posed.vertices[0][squared.argmin(1)] - posed.joints[0, 0]
        there = xyz + sample.root_xyz
        uv = sample.focal * there[:, :2] / there[:, 2:] + sample.principal_uv
        cells = sample.surface.shape[0]
        pixel = (np.column_stack([columns, rows]) + 0.5) / cells - 0.5
        off.append(np.abs(uv - pixel).max(1) * cells)
        behind.append(found[:, 3] - xyz[:, 2])
        mask = mask_of(sample)[2::4, 2::4]
        covered.append((mask == (sample.surface[..., 3] > -128)).mean())
    assert np.median(np.concatenate(off)) < 1.0
    assert np.percentile(np.concatenate(off), 90) < 2.5
    assert np.percentile(np.abs(np.concatenate(behind)), 90) < 0.06  # clothes and hair stand off
    assert min(covered) > 0.97  # at the rim a pixel may be half covered


def test_picture_is_centred_on_the_box_at_one_and_a_half_times_its_size(
    samples: list[Sample],
) -> None:
    off_centre, sides = [], []
    for sample in samples:
        rows, columns = np.nonzero(mask_of(sample))
        low = np.array([columns.min(), rows.min()]) / SIZE - 0.5
        high = np.array([columns.max() + 1, rows.max() + 1]) / SIZE - 0.5
        np.testing.assert_allclose(sample.box_uv, [*low, *high], atol=1e-6)
        off_centre.append(np.abs(low + high).max() / 2)
        sides.append(1.5 * (high - low).max())
    # Cloth that hangs over an image border or behind an occluder moves the box by a few pixels.
    assert np.median(off_centre) < 1.5 / SIZE
    assert np.median(np.abs(np.array(sides) - 1)) < 0.03


def test_nothing_is_painted_beyond_the_image_border(samples: list[Sample]) -> None:
    """A keypoint in the picture that is OUTSIDE lies beyond the border, where pixels are black."""
    black = []
    for sample in samples:
        uv = sample.keypoints_uv[(sample.visible == OUTSIDE)]
        cell = np.floor((uv[(np.abs(uv) < 0.5).all(1)] + 0.5) * SIZE).astype(int)
        black += (sample.images[cell[:, 1], cell[:, 0]] == 0).all(-1).tolist()
    assert len(black) > 20
    assert np.mean(black) > 0.97  # the border may run through a keypoint's own pixel


def test_visible_keypoints_lie_near_the_mask(samples: list[Sample]) -> None:
    near = []
    for sample in samples:
        rows, columns = np.nonzero(mask_of(sample))
        pixels = np.stack([columns, rows], 1) + 0.5
        for point in sample.keypoints_uv[sample.visible == SEEN]:
            near.append(np.linalg.norm(pixels - (point + 0.5) * SIZE, axis=1).min() < 4)
    assert np.mean(near) > 0.97


def test_visibility_of_a_constructed_depth_buffer() -> None:
    """A wall 2 m away fills the left half: only what lies well behind it is hidden."""
    zbuffer = np.zeros((64, 64), np.float32)
    zbuffer[:, :32] = 1 / 2.0
    uv = np.tile(np.array([[-0.25, 0.0]]), (len(KEYPOINTS), 1))
    for depth, expected in ((1.9, True), (2.0, True), (2.5, False)):
        seen = seen_keypoints(uv, np.full(len(KEYPOINTS), depth), zbuffer)
        assert (seen == expected).all()
    inside_a_limb = np.full(len(KEYPOINTS), 2.06)
    seen = seen_keypoints(uv, inside_a_limb, zbuffer)
    assert seen[INDEX["left_elbow"]]
    assert not seen[INDEX["nose"]], "the nose is on the skin, so 6 cm behind a surface is hidden"
    uv[:, 0] = 0.25
    assert seen_keypoints(uv, np.full(len(KEYPOINTS), 9.0), zbuffer).all(), "nothing stands there"
    beyond = np.array([[-0.6, 0.0], [0.0, 7.0]])
    assert not hidden_behind(beyond, np.array([9.0, 9.0]), zbuffer).any()


def test_a_turned_back_hides_the_face(samples: list[Sample]) -> None:
    """Camera-from-body's third column is where the chest points; away from the camera is +z."""
    face = [INDEX[name] for name in ("nose", "left_eye", "right_eye")]
    from_behind = [
        s for s in samples if s.rotmats[0][2, 2] > 0.8 and FAMILY_NAMES[s.kind] != "lying"
    ]
    assert from_behind
    assert np.mean([np.mean(s.visible[face] == SEEN) for s in from_behind]) < 0.35


def test_labels_have_the_documented_shapes(samples: list[Sample]) -> None:
    names = {field.name for field in dataclasses.fields(Sample)}
    assert names == set(shards.fields(SIZE))
    for name, (shape, dtype) in shards.fields(SIZE).items():
        value = np.asarray(getattr(samples[0], name))
        assert value.shape == shape, name
        assert np.can_cast(value.dtype, dtype, "same_kind") or value.dtype.kind == "i", name
    for sample in samples:
        assert np.isin(sample.visible, (OUTSIDE, HIDDEN, SEEN)).all()
        assert sample.root_xyz[2] > 0.3
        determinant = np.linalg.det(sample.rotmats)
        np.testing.assert_allclose(determinant, 1, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(sample.twist, axis=1), 1, atol=1e-5)


def test_the_set_holds_what_real_pictures_hold(samples: list[Sample]) -> None:
    shares = {name: np.mean([has_flag(s, name) for s in samples]) for name in FLAG_NAMES}
    assert 0.15 < shares["truncated"] < 0.65
    assert 0.15 < shares["occluded"] < 0.65
    assert 0.0 < shares["grey"] < 0.3
    grey = [s for s in samples if has_flag(s, "grey")]
    spread = [np.ptp(s.images.astype(int), axis=-1).mean() for s in grey]
    assert max(spread) < 3, "grey pictures have equal channels, but for JPEG's rounding"


def test_files_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    settings = SetSettings(BODY_PATH, "heldout", seed=9, size=64)
    for workers, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        render_set(folder, settings, count=12, workers=workers, shard_size=8)
    for number in range(2):
        paths = [tmp_path / name / f"shard-{number:05d}.tar" for name in ("one", "two")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
        one, two = map(shards.open_shard, paths)
        assert one.meta == two.meta
        assert len(one) == (8, 4)[number]
    assert one.meta["start"] == 8
    assert one.meta["body_sha256"] == BodyModel.load(BODY_PATH).sha256
    assert tuple(one.meta["keypoints"]) == KEYPOINTS


def test_splits_and_seeds_draw_different_people(body: BodyModel) -> None:
    first = {
        (split, seed): Generator(body, split, seed, 64).sample(0)
        for split in ("train", "heldout")
        for seed in (1, 2)
    }
    betas = np.stack([sample.betas for sample in first.values()])
    assert len(np.unique(betas, axis=0)) == len(first)
    again = Generator(body, "train", 1, 64).sample(0)
    assert np.array_equal(again.images, first["train", 1].images)


def test_held_out_kinds_never_reach_training() -> None:
    for name in HELD_OUT_FAMILIES:
        assert poses._SHARES["train"][FAMILY_NAMES.index(name)] == 0
        assert poses._SHARES["heldout"][FAMILY_NAMES.index(name)] > 0
    for name in HELD_OUT_PATTERNS:
        assert appearance._pattern_weights("train")[PATTERN_NAMES.index(name)] == 0
        assert appearance._pattern_weights("heldout")[PATTERN_NAMES.index(name)] > 0
    for name in HELD_OUT_BACKGROUNDS:
        assert background._SHARES["train"][BACKGROUND_NAMES.index(name)] == 0
        assert background._SHARES["heldout"][BACKGROUND_NAMES.index(name)] > 0
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["heldout"])


def test_held_out_things_never_reach_training() -> None:
    rng = np.random.default_rng(0)
    drawn = {
        split: {
            name for f in FAMILY_NAMES for _ in range(150)
            for name in things.plan_things(rng, split, f)
        }
        for split in ("train", "heldout")
    }  # fmt: skip
    assert drawn["train"] == set(things.THING_NAMES) - set(things.HELD_OUT_THINGS)
    assert set(things.HELD_OUT_THINGS) <= drawn["heldout"]


def test_no_other_family_has_the_legs_of_the_held_out_one(body: BodyModel) -> None:
    rest = body.rest_skeleton(np.zeros((1, 0), np.float32))[0, :24].astype(np.float64)
    for kind, name in enumerate(FAMILY_NAMES):
        rng = np.random.default_rng(kind)
        alike = [
            poses.resembles_lunge(poses.sample_family(rng, rest, kind).angles) for _ in range(60)
        ]
        if name in HELD_OUT_FAMILIES:
            assert np.mean(alike) > 0.8
        else:
            assert not any(alike), name


def test_odd_poses_are_rare() -> None:
    shares = poses._SHARES["train"] / poses._SHARES["train"].sum()
    odd = [FAMILY_NAMES.index(name) for name in ("wide", "acrobatic")]
    assert shares[odd].sum() <= 0.15


@pytest.mark.parametrize("kind", range(len(FAMILY_NAMES)))
def test_poses_stay_within_joint_limits_and_clear_of_the_body(kind: int, body: BodyModel) -> None:
    rng = np.random.default_rng(kind)
    rest = body.rest_skeleton(np.zeros((1, 0), np.float32))[0, :24].astype(np.float64)
    free = 0
    for _ in range(25):
        pose = poses.sample_family(rng, rest, kind)
        assert (pose.angles >= anatomy.LIMITS[..., 0] - 1e-9).all()
        assert (pose.angles <= anatomy.LIMITS[..., 1] + 1e-9).all()
        np.testing.assert_allclose(
            pose.rotmats @ pose.rotmats.transpose(0, 2, 1), np.eye(3)[None].repeat(24, 0), atol=1e-9
        )
        free += poses.penetration(limbs.posed_joints(pose.angles, rest)) <= 0
    assert free >= 20


def test_the_t_pose_is_the_rest_pose() -> None:
    angles = np.zeros((24, 3))
    angles[[anatomy.JOINT["left_shoulder"], anatomy.JOINT["right_shoulder"]], 1] = 90
    np.testing.assert_allclose(anatomy.angles_to_rotmats(angles), np.eye(3)[None].repeat(24, 0))


def test_equal_angles_left_and_right_make_a_symmetric_pose(body: BodyModel) -> None:
    rng = np.random.default_rng(0)
    angles = anatomy.clip_to_limits(rng.normal(10, 25, (24, 3)))
    for name, j in anatomy.JOINT.items():
        if name.startswith("right_"):
            angles[j] = angles[anatomy.JOINT["left_" + name[6:]]]
        elif not name.startswith("left_"):
            angles[j, [0, 2]] = 0.0
    rest = body.rest_skeleton(np.zeros((1, 0), np.float32))[0, :24].astype(np.float64)
    joints = limbs.posed_joints(angles, rest)
    for name, j in anatomy.JOINT.items():
        if name.startswith("left_"):
            other = joints[anatomy.JOINT["right_" + name[5:]]] * (-1, 1, 1)
            np.testing.assert_allclose(joints[j], other, atol=2e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_wrist_goes_where_it_is_sent(side: str, body: BodyModel) -> None:
    """In reach and away from joint limits, the solved arm puts the wrist onto its target."""
    rest = body.rest_skeleton(np.zeros((1, 0), np.float32))[0, :24].astype(np.float64)
    shoulder, elbow, wrist = (anatomy.JOINT[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist"))
    reach = np.linalg.norm(rest[elbow] - rest[shoulder]) + np.linalg.norm(rest[wrist] - rest[elbow])
    for target in ((0.4, -0.3, 0.5), (0.3, 0.5, 0.3), (0.1, -0.6, 0.5), (0.5, 0.1, 0.5)):
        angles = np.zeros((24, 3))
        limbs.place_wrist(angles, side, np.array(target), np.array([0.7, -0.8, -0.3]), rest)
        np.testing.assert_allclose(anatomy.clip_to_limits(angles)[elbow], angles[elbow])
        joints = limbs.posed_joints(angles, rest)
        mirrored = np.array(target) * (1 if side == "left" else -1, 1, 1)
        got = (joints[wrist] - joints[shoulder]) / reach
        # The rest pose's arm is not quite straight, nor quite along x.
        assert np.linalg.norm(got - mirrored) < 0.06


def test_gait_repeats_after_a_cycle_and_swaps_sides_after_half() -> None:
    for phase in (0.0, 0.7, 2.9):
        now, later = limbs.gait(phase, 1.0, 0.0), limbs.gait(phase + np.pi, 1.0, 0.0)
        np.testing.assert_allclose(limbs.gait(phase + 2 * np.pi, 1.0, 0.0), now, atol=1e-9)
        for joint in ("hip", "knee", "shoulder", "elbow"):
            left, right = anatomy.JOINT[f"left_{joint}"], anatomy.JOINT[f"right_{joint}"]
            np.testing.assert_allclose(now[left], later[right], atol=1e-9)


def test_patterns_stay_between_their_two_colours() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (200, 3))
    for kind in range(len(PATTERN_NAMES)):
        values = [pattern_at(kind, x, y, z, 20.0, 7) for x, y, z in points]
        assert min(values) >= 0
        assert max(values) <= 1


@pytest.mark.parametrize(
    "arguments", [{"split": "test"}, {"size": 100}, {"size": 8}], ids=["split", "size", "small"]
)
def test_wrong_settings_are_refused(body: BodyModel, arguments: dict[str, object]) -> None:
    with pytest.raises(ContractError, match="expected"):
        Generator(body, **arguments)


def _one_shard(folder: Path, people: list[Sample], first: int) -> Path:
    path = folder / "shard-00000.tar"
    shards.create(folder / "partial.tar", len(people), SIZE)
    shards.write(folder / "partial.tar", 0, first, map(vars, people), SIZE)
    shards.finish(folder / "partial.tar", path, {"size": SIZE, "count": len(people)})
    return path


def _by_person(path: Path) -> dict[str, dict[str, bytes]]:
    """What `webdataset` makes of a tar file: members that agree up to their first dot belong
    together, and have to follow each other."""
    people: dict[str, dict[str, bytes]] = {}
    last = ""
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            assert key == last or key not in people
            content = archive.extractfile(member)
            assert content is not None
            people.setdefault(key, {})[extension] = content.read()
            last = key
    return people


def test_a_shard_is_a_tar_file_of_one_group_per_person(
    samples: list[Sample], tmp_path: Path
) -> None:
    found = _by_person(_one_shard(tmp_path, samples[:5], first=998))
    assert list(found) == ["000998", "000999", "001000", "001001", "001002"]
    for sample, members in zip(samples, found.values(), strict=False):
        assert list(members) == ["image.npy", "mask.npy", "surface.npy", "labels.npz"]
        with np.load(io.BytesIO(members["labels.npz"]), allow_pickle=False) as archive:
            read = {name: archive[name] for name in archive.files}
        read["images"] = np.load(io.BytesIO(members["image.npy"]), allow_pickle=False)
        read["mask"] = np.load(io.BytesIO(members["mask.npy"]), allow_pickle=False)
        read["surface"] = np.load(io.BytesIO(members["surface.npy"]), allow_pickle=False)
        for name, (shape, dtype) in shards.fields(SIZE).items():
            assert (read[name].shape, read[name].dtype) == (shape, dtype), name
            expected = np.asarray(getattr(sample, name)).astype(dtype)
            np.testing.assert_array_equal(read.pop(name), expected, err_msg=name)
        assert not read


def test_a_mapped_shard_holds_what_was_written(samples: list[Sample], tmp_path: Path) -> None:
    path = _one_shard(tmp_path, samples[:5], first=0)
    shard = shards.open_shard(path)
    assert len(shard) == 5
    record = np.dtype(
        {
            "names": list(shard.meta["arrays"]),
            "formats": [(a["dtype"], tuple(a["shape"])) for a in shard.meta["arrays"].values()],
            "offsets": [a["offset"] for a in shard.meta["arrays"].values()],
            "itemsize": shard.meta["bytes_per_person"],
        }
    )
    by_json = np.memmap(path, record, "r", shape=(5,))
    for name, array in shard.arrays.items():
        assert isinstance(array, np.memmap), name
        for row, sample in enumerate(samples[:5]):
            expected = np.asarray(getattr(sample, name)).astype(array.dtype)
            np.testing.assert_array_equal(array[row], expected, err_msg=name)
        np.testing.assert_array_equal(by_json[name], array)


def test_an_unfinished_or_altered_shard_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.tar"
    shards.create(path, 2, 64)
    assert not shards.finished_shards(tmp_path)
    with pytest.raises(ArtifactError, match="no finished shard"):
        shards.open_shard(path)
    assert _one_shard(tmp_path, samples[:2], first=0) == path
    assert shards.finished_shards(tmp_path) == [path]
    with path.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ArtifactError, match="does not match"):
        shards.open_shard(path)
    path.with_suffix(".json").write_text('{"format_version": 99}')
    with pytest.raises(ArtifactError, match="another format"):
        shards.open_shard(path)


def test_a_sheet_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert main(["--sheet", str(path), "--count", "3", "--size", "64"]) == 0
    assert path.stat().st_size > 1000
    assert main(["--sheet", str(path), "--body", str(tmp_path / "none.npz")]) == 1


def test_the_demo_clip_is_small_and_moves() -> None:
    path = BODY_PATH.parent / "demo.mp4"
    assert path.stat().st_size < 1_500_000
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    assert round(capture.get(cv2.CAP_PROP_FPS)) == clip.FRAMES_PER_SECOND
    assert len(frames) == round(clip.SECONDS * clip.FRAMES_PER_SECOND)
    assert {frame.shape for frame in frames} == {(clip.HEIGHT, clip.WIDTH, 3)}
    moved = [np.abs(a.astype(int) - b).max() for a, b in zip(frames, frames[10:], strict=False)]
    assert np.mean(np.array(moved) > 60) > 0.6


def test_a_standing_leg_carries_the_body_forward(body: BodyModel) -> None:
    """In half a cycle one foot goes back under the body while the other swings forward."""
    rest = body.rest_skeleton(np.zeros((1, 0), np.float32))[0, :24].astype(np.float64)
    phases = np.linspace(0.6 * np.pi, 1.4 * np.pi, 9)  # the left leg stands
    left, right = anatomy.JOINT["left_ankle"], anatomy.JOINT["right_ankle"]
    joints = [limbs.posed_joints(limbs.gait(phase, 0.85, 0.0), rest) for phase in phases]
    stride = joints[0][left] - joints[-1][left]
    assert stride[2] > 0.3, "the standing foot moves back under the body, so the body moves on"
    assert abs(stride[0]) < 0.03
    assert (joints[-1][right] - joints[0][right])[2] > 0.3, "meanwhile the other one swings forward"


def test_blended_poses_lie_between_their_parents() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 30, (2, 24, 3))
    roots = anatomy.turn(anatomy.X, 10.0), anatomy.turn(anatomy.X, 50.0)
    angles, root = actions.blended(rng, (first, roots[0]), (second, roots[1]))
    low, high = np.minimum(first, second), np.maximum(first, second)
    assert ((angles >= low) & (angles <= high)).all()
    np.testing.assert_allclose(root @ root.T, np.eye(3), atol=1e-12)
    assert roots[1][2, 1] > root[2, 1] > roots[0][2, 1]


def test_betas_stay_within_the_range_of_the_body() -> None:
    rng = np.random.default_rng(0)
    betas = np.stack([actors.sample_betas(rng) for _ in range(2000)])
    assert np.abs(betas).max() <= 3
    assert 0.02 < (np.abs(betas[:, 0]) > 2).mean() < 0.2
