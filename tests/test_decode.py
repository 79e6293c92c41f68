"""From exact network output back to the body it was computed from, through every camera."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from glnet_rt.body_model import BodyModel
from glnet_rt.camera import (
    crop_camera,
    fit_camera_scale,
    image_offset,
    image_px_to_uv,
    project,
    uv_to_image_px,
    virtual_intrinsics,
)
from glnet_rt.contracts import Array, Crop, NetOutput
from glnet_rt.crop import crop_from_image_affine, square_around
from glnet_rt.decode import Decoder, decode_arrays
from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.kinematics import twist_from_rotations
from glnet_rt.rotation import rot6d_to_rotmat, rotmat_to_rot6d
from glnet_rt.skeleton import COCO_ONLY, NUM_JOINTS, NUM_KEYPOINTS, NUM_SKELETON
from glnet_rt.spec import NetSpec
from tests.human import pose, random_rotations
from tests.tiny import body_bytes

IMAGE_SIZE = (1920, 1080)
LENS = np.array([[1150.0, 0.0, 1010.0], [0.0, 1190.0, 500.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.from_bytes(body_bytes(), "body.npz")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@dataclasses.dataclass
class Scene:
    """People somewhere in a picture, and what a perfect network says about them."""

    crops: list[Crop]
    output: NetOutput
    vertices: Array
    joints: Array
    skeleton: Array


def spec_of(representation: str = "decomposed") -> NetSpec:
    return NetSpec(representation=representation)


def make_scene(
    body: BodyModel,
    rng: np.random.Generator,
    count: int,
    *,
    spec: NetSpec,
    K: Array | None = None,
    fitted_scale: bool = False,
) -> Scene:
    """Random bodies in random crops.

    K None puts each before its crop's virtual camera. `fitted_scale` takes the scale as training
    does, by least squares through the virtual camera, whatever camera took the picture.
    """
    rotmats = random_rotations(rng, count, NUM_JOINTS, up_to_deg=90).astype(np.float32)
    betas = rng.normal(size=(count, 10)).astype(np.float32)
    rest = body.rest_skeleton(betas)
    posed = pose(rotmats.astype(np.float64), rest.astype(np.float64))
    relative = posed - posed[:, :1]
    boxes = rng.uniform([200, 100], [900, 500], (count, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(200, 500, (count, 2))], 1)
    crops = [make_crop(box, spec) for box in boxes]
    center, side = np.stack([c.center_px for c in crops]), np.array([c.side_px for c in crops])
    lenses = [virtual_intrinsics(s, IMAGE_SIZE, spec) if K is None else K for s in side]
    lenses = np.stack(lenses)
    f_px = np.sqrt(lenses[:, 0, 0] * lenses[:, 1, 1])
    # The pelvis within the crop, at a depth where the body about fills it.
    depth = f_px / side * rng.uniform(1.5, 3.0, count)
    pelvis_px = uv_to_image_px(rng.uniform(-0.2, 0.2, (count, 1, 2)), center, side)
    ray = np.concatenate([pelvis_px, np.ones((count, 1, 1))], -1) @ np.linalg.inv(lenses).swapaxes(
        1, 2
    )
    points = relative + ray * depth[:, None, None]
    uv = image_px_to_uv(project(points, lenses), center, side)
    scale = f_px / side / depth
    if fitted_scale:
        offset = image_offset(center, side, IMAGE_SIZE)
        scale = fit_camera_scale(uv, relative, offset, spec.focal, np.ones(uv.shape[:2]))
    uvd = np.concatenate([uv, relative[..., 2:] / spec.depth_range_m], -1)
    face = rng.uniform(-0.5, 0.5, (count, len(COCO_ONLY), 3))  # decoding does not read these
    direct = spec.representation == "direct"
    truth = body(betas, rotmats, points[:, 0] - rest[:, 0])
    output = NetOutput(
        score=rng.uniform(size=count).astype(np.float32),
        pixel=np.zeros(count, np.int64),
        keypoints_uvd=np.concatenate([uvd, face], 1).astype(np.float32),
        betas=betas,
        camera_scale=scale.astype(np.float32),
        twist=None if direct else twist_from_rotations(rotmats, rest),
        rot6d=rotmat_to_rot6d(rotmats) if direct else None,
    )
    return Scene(crops, output, truth.vertices, truth.joints, points)


def make_crop(box: Array, spec: NetSpec) -> Crop:
    center_px, side_px = square_around(box, spec.box_scale)
    affine = crop_from_image_affine(center_px, side_px, spec.input_size)
    return Crop(np.zeros(spec.crop_shape, np.uint8), affine, box, center_px, side_px)


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize("K", [None, LENS], ids=["virtual", "lens"])
def test_a_perfect_network_gives_the_body_back(
    body: BodyModel, rng: np.random.Generator, representation: str, K: Array | None
) -> None:
    spec = spec_of(representation)
    scene = make_scene(body, rng, 30, spec=spec, K=K)
    people = Decoder(body, spec)(scene.output, scene.crops, IMAGE_SIZE, K)
    for i, person in enumerate(people):
        np.testing.assert_allclose(person.vertices, scene.vertices[i], atol=1e-4)
        np.testing.assert_allclose(person.joints, scene.joints[i], atol=1e-4)


def test_the_shipped_body_comes_back_too(rng: np.random.Generator) -> None:
    from importlib.resources import files

    shipped = BodyModel.load(str(files("glnet_rt") / "assets" / "body.npz"))
    scene = make_scene(shipped, rng, 5, spec=spec_of())
    people = Decoder(shipped, spec_of())(scene.output, scene.crops, IMAGE_SIZE)
    for person, vertices in zip(people, scene.vertices, strict=True):
        np.testing.assert_allclose(person.vertices, vertices, atol=1e-4)


@pytest.mark.parametrize("K", [None, LENS], ids=["virtual", "lens"])
def test_joints_project_onto_the_keypoints(
    body: BodyModel, rng: np.random.Generator, K: Array | None
) -> None:
    scene = make_scene(body, rng, 10, spec=spec_of(), K=K)
    for person in Decoder(body, spec_of())(scene.output, scene.crops, IMAGE_SIZE, K):
        seen = project(person.joints.astype(np.float64), person.K)
        np.testing.assert_allclose(seen, person.keypoints_px[:NUM_JOINTS], atol=0.02)


def test_rotations_that_disagree_with_the_keypoints_are_placed_to_fit_them(
    body: BodyModel, rng: np.random.Generator
) -> None:
    spec = spec_of("direct")
    scene = make_scene(body, rng, 8, spec=spec)
    # Another pelvis point and scale: eleven of twelve keypoints still say where the body is.
    uvd = scene.output.keypoints_uvd.copy()
    uvd[:, 0, :2] += 0.1
    output = dataclasses.replace(
        scene.output, keypoints_uvd=uvd, camera_scale=scene.output.camera_scale * np.float32(1.25)
    )
    people = Decoder(body, spec)(output, scene.crops, IMAGE_SIZE)
    for i, (person, crop) in enumerate(zip(people, scene.crops, strict=True)):
        seen = project(person.joints.astype(np.float64), person.K)
        true = project(scene.joints[i].astype(np.float64), person.K)
        assert np.abs(seen - true).mean() < 0.02 * crop.side_px
        assert abs(person.joints[0, 2] / scene.joints[i, 0, 2] - 1) < 0.08


def test_people_carry_what_they_were_made_from(body: BodyModel, rng: np.random.Generator) -> None:
    scene = make_scene(body, rng, 4, spec=spec_of())
    people = Decoder(body, spec_of())(scene.output, scene.crops, IMAGE_SIZE)
    for i, (person, crop) in enumerate(zip(people, scene.crops, strict=True)):
        assert person.score == pytest.approx(float(scene.output.score[i]))
        np.testing.assert_allclose(person.bbox_xyxy, crop.bbox_xyxy, rtol=1e-6)
        np.testing.assert_array_equal(person.betas, scene.output.betas[i])
        np.testing.assert_allclose(
            person.K, virtual_intrinsics(crop.side_px, IMAGE_SIZE, spec_of())
        )
        # SMPL's own translation: the body model gives the same person from the parameters alone.
        rotmats = np.concatenate([person.global_orient[None], person.body_pose])[None]
        again = body(person.betas[None], rotmats, person.transl[None])
        np.testing.assert_allclose(again.vertices[0], person.vertices, atol=1e-6)
        # Crop px and image px of the keypoints agree through the affine that cut the crop.
        affine, uv = crop.crop_from_image, scene.output.keypoints_uvd[i, :, :2]
        crop_px = person.keypoints_px @ affine[:, :2].T + affine[:, 2]
        np.testing.assert_allclose((crop_px + 0.5) / spec_of().input_size - 0.5, uv, atol=1e-6)


def test_known_intrinsics_are_used_as_given(body: BodyModel, rng: np.random.Generator) -> None:
    scene = make_scene(body, rng, 3, spec=spec_of(), K=LENS)
    for person in Decoder(body, spec_of())(scene.output, scene.crops, IMAGE_SIZE, LENS):
        np.testing.assert_array_equal(person.K, LENS)


def test_a_wrong_scale_moves_the_body_along_the_pelvis_ray(
    body: BodyModel, rng: np.random.Generator
) -> None:
    scene = make_scene(body, rng, 5, spec=spec_of(), K=LENS)
    nearer = dataclasses.replace(scene.output, camera_scale=scene.output.camera_scale * 1.5)
    for i, person in enumerate(Decoder(body, spec_of())(nearer, scene.crops, IMAGE_SIZE, LENS)):
        pelvis = project(person.joints[:1].astype(np.float64), LENS)
        np.testing.assert_allclose(pelvis, person.keypoints_px[:1], atol=0.01)
        np.testing.assert_allclose(person.joints[0, 2], scene.skeleton[i, 0, 2] / 1.5, rtol=1e-5)


def test_knowing_the_lens_makes_bodies_truer(body: BodyModel, rng: np.random.Generator) -> None:
    """A wide lens from near, labels as training makes them, by the virtual camera."""
    scene = make_scene(body, rng, 100, spec=spec_of(), K=LENS, fitted_scale=True)
    decoder = Decoder(body, spec_of())

    def error_m(K: Array | None) -> float:
        people = decoder(scene.output, scene.crops, IMAGE_SIZE, K)
        joints = np.stack([p.joints - p.joints[:1] for p in people])
        truth = scene.joints - scene.joints[:, :1]
        return float(np.linalg.norm(joints - truth, axis=-1).mean())

    assert error_m(LENS) < 0.5 * error_m(None)


def test_each_person_is_decoded_as_if_alone(body: BodyModel, rng: np.random.Generator) -> None:
    scene = make_scene(body, rng, 6, spec=spec_of())
    decoder = Decoder(body, spec_of())
    together = decoder(scene.output, scene.crops, IMAGE_SIZE)
    for i, person in enumerate(together):
        fields = {f.name: getattr(scene.output, f.name) for f in dataclasses.fields(NetOutput)}
        one = NetOutput(**{n: None if v is None else v[i : i + 1] for n, v in fields.items()})
        (alone,) = decoder(one, scene.crops[i : i + 1], IMAGE_SIZE)
        np.testing.assert_allclose(alone.vertices, person.vertices, atol=1e-6)


@pytest.mark.parametrize("K", [None, LENS], ids=["virtual", "lens"])
def test_evaluation_decodes_as_the_run_time_does(
    body: BodyModel, rng: np.random.Generator, K: Array | None
) -> None:
    spec = spec_of()
    scene = make_scene(body, rng, 3, spec=spec, K=K)
    center = np.stack([c.center_px for c in scene.crops])
    side = np.array([c.side_px for c in scene.crops])
    if K is None:
        focal, offset = spec.focal, image_offset(center, side, IMAGE_SIZE)
    else:
        focal, offset = crop_camera(center, side, K)
    arrays = decode_arrays(body, spec, scene.output, offset, focal)
    for name in ("rotmats", "betas", "transl", "vertices", "joints"):
        assert getattr(arrays, name).dtype == np.float32
    for i, person in enumerate(Decoder(body, spec)(scene.output, scene.crops, IMAGE_SIZE, K)):
        np.testing.assert_array_equal(person.vertices, arrays.vertices[i])
        np.testing.assert_array_equal(person.joints, arrays.joints[i])
        np.testing.assert_array_equal(person.global_orient, arrays.rotmats[i, 0])
        np.testing.assert_array_equal(person.body_pose, arrays.rotmats[i, 1:])
        np.testing.assert_array_equal(person.transl, arrays.transl[i])


def test_nobody_in_nobody_out(body: BodyModel, rng: np.random.Generator) -> None:
    scene = make_scene(body, rng, 1, spec=spec_of())
    fields = {f.name: getattr(scene.output, f.name) for f in dataclasses.fields(NetOutput)}
    empty = NetOutput(**{n: None if v is None else v[:0] for n, v in fields.items()})
    assert Decoder(body, spec_of())(empty, [], IMAGE_SIZE) == ()


# Errors.


def test_another_body_than_the_networks_is_refused(
    body: BodyModel, assert_helpful: Callable[[GlnetError], None]
) -> None:
    spec = NetSpec(body_id="somebody", body_sha256="0" * 64)
    with pytest.raises(ContractError, match="another body") as caught:
        Decoder(body, spec)
    assert_helpful(caught.value)
    message = str(caught.value)
    for part in ("somebody", "0" * 64, body.body_id, body.sha256, "body.npz"):
        assert part in message


def test_the_networks_own_body_is_accepted(body: BodyModel) -> None:
    assert Decoder(body, NetSpec(body_sha256=body.sha256)).body is body


def test_every_crop_needs_its_output(
    body: BodyModel, rng: np.random.Generator, assert_helpful: Callable[[GlnetError], None]
) -> None:
    scene = make_scene(body, rng, 3, spec=spec_of())
    with pytest.raises(ContractError, match="disagree") as caught:
        Decoder(body, spec_of())(scene.output, scene.crops[:2], IMAGE_SIZE)
    assert_helpful(caught.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_a_scale_that_places_nobody_is_refused(
    body: BodyModel,
    rng: np.random.Generator,
    scale: float,
    assert_helpful: Callable[[GlnetError], None],
) -> None:
    scene = make_scene(body, rng, 3, spec=spec_of())
    scene.output.camera_scale[1] = scale
    with pytest.raises(ContractError, match="camera scale") as caught:
        Decoder(body, spec_of())(scene.output, scene.crops, IMAGE_SIZE)
    assert_helpful(caught.value)


def test_output_without_rotations_is_refused(
    body: BodyModel, rng: np.random.Generator, assert_helpful: Callable[[GlnetError], None]
) -> None:
    scene = make_scene(body, rng, 1, spec=spec_of())
    with pytest.raises(ContractError, match="no rotations") as caught:
        decode_arrays(
            body, spec_of(), dataclasses.replace(scene.output, twist=None), np.zeros((1, 2)), 3.9
        )
    assert_helpful(caught.value)


def test_the_skeleton_is_what_kinematics_reads() -> None:
    """Changing the seven COCO-only keypoints leaves the body as it is."""
    rng = np.random.default_rng(0)
    body = BodyModel.from_bytes(body_bytes(), "body.npz")
    scene = make_scene(body, rng, 2, spec=spec_of())
    decoder = Decoder(body, spec_of())
    before = decoder(scene.output, scene.crops, IMAGE_SIZE)
    scene.output.keypoints_uvd[:, NUM_SKELETON:] += 0.3
    after = decoder(scene.output, scene.crops, IMAGE_SIZE)
    np.testing.assert_array_equal(before[0].vertices, after[0].vertices)
    assert not np.allclose(before[0].keypoints_px, after[0].keypoints_px)


def test_a_kinematic_fit_brings_joints_to_their_keypoints(
    body: BodyModel, rng: np.random.Generator
) -> None:
    plain = spec_of("direct")
    fitting = dataclasses.replace(plain, fit_prior_rad=0.2)
    scene = make_scene(body, rng, 20, spec=plain)
    spread = np.full((20, NUM_KEYPOINTS), 0.02, np.float32)
    right = dataclasses.replace(scene.output, spread=spread)
    for i, person in enumerate(Decoder(body, fitting)(right, scene.crops, IMAGE_SIZE)):
        np.testing.assert_allclose(person.joints, scene.joints[i], atol=1e-4)
    turns = random_rotations(rng, 20, NUM_JOINTS, up_to_deg=8)
    rotmats = rot6d_to_rotmat(scene.output.rot6d) @ turns
    wrong = dataclasses.replace(right, rot6d=rotmat_to_rot6d(rotmats).astype(np.float32))
    off = []
    for spec in (plain, fitting):
        people = Decoder(body, spec)(wrong, scene.crops, IMAGE_SIZE)
        seen = np.stack([project(p.joints[None], p.K[None])[0] for p in people])
        off.append(np.linalg.norm(seen - np.stack([p.keypoints_px[:24] for p in people]), axis=-1))
    assert off[1].mean() < 0.4 * off[0].mean()


def test_a_fit_without_expected_errors_is_refused(
    body: BodyModel, rng: np.random.Generator
) -> None:
    plain = spec_of("direct")
    scene = make_scene(body, rng, 2, spec=plain)
    fitting = dataclasses.replace(plain, fit_prior_rad=0.2)
    with pytest.raises(ContractError, match="how far off keypoints"):
        Decoder(body, fitting)(scene.output, scene.crops, IMAGE_SIZE)
