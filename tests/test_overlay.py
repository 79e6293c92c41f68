"""The overlay against slow references, at the borders, and between people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import glnet_rt.out.overlay as overlay
from glnet_rt.camera import project
from glnet_rt.contracts import Array, Person, Result
from glnet_rt.errors import ContractError
from glnet_rt.out import OverlayRenderer, draw_overlay
from glnet_rt.out.raster import NEAR_M, rasterize, vertex_normals
from glnet_rt.out.scene import PALETTE_RGB, shared_depth_shift
from tests.out_samples import LENS, SIZE, person_at, result_of, sphere

GREY = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)


def reference_raster(faces: Array, xy: Array, depth: Array, size: tuple[int, int]) -> Array:
    """[H, W] int: the nearest face at each pixel, -1 for none, by trying every face everywhere."""
    owner = np.full((size[1], size[0]), -1)
    for y in range(size[1]):
        for x in range(size[0]):
            nearest = np.inf
            for f, corners in enumerate(faces):
                if (depth[corners] < NEAR_M).any():
                    continue
                matrix = np.vstack([xy[corners].T.astype(float), np.ones(3)])
                if np.linalg.det(matrix) >= -1e-9:
                    continue
                weights = np.linalg.solve(matrix, [x, y, 1])
                if (weights < 0).any():
                    continue
                z = 1 / (weights @ (1 / depth[corners].astype(float)))
                if z < nearest:
                    nearest, owner[y, x] = z, f
    return owner


def reference_shade(owner: Array, xy: Array, depth: Array, result: Result, image: Array) -> Array:
    """What the overlay promises, pixel after pixel, for one person and alpha 1."""
    out = image.astype(float)
    normals = vertex_normals(result.people[0].vertices, result.faces).astype(float)
    for y, x in np.argwhere(owner >= 0):
        corners = result.faces[owner[y, x]]
        matrix = np.vstack([xy[corners].T.astype(float), np.ones(3)])
        weights = np.linalg.solve(matrix, [x, y, 1]) / depth[corners]
        normal = (weights / weights.sum()) @ normals[corners]
        normal /= np.linalg.norm(normal)
        lamp = max(0.0, normal @ overlay._LIGHT)
        brightness = 0.35 + 0.5 * lamp + 0.25 * max(0.0, -normal[2])
        out[y, x] = np.minimum(255, np.array(PALETTE_RGB[0][::-1]) * brightness)
    return np.floor(out + 0.5).astype(np.uint8)


def test_the_screen_is_where_the_camera_projects_to() -> None:
    people = (person_at((0.2, 0.1, 2.0)), person_at((0.0, 0.0, 0.2)))  # partly behind the camera
    xy_px, depth, seen = overlay._to_screen(people, np.array([0.5, 0.0]))
    vertices = np.concatenate([p.vertices for p in people]).astype(np.float64)
    shift = np.repeat([0.5, 0.0], len(people[0].vertices))
    ahead = vertices[:, 2] >= NEAR_M
    assert 0 < (~ahead).sum() < len(ahead) / 2
    wanted = project(vertices[ahead], LENS)
    np.testing.assert_allclose(xy_px[ahead], wanted, rtol=1e-6)
    np.testing.assert_allclose(depth, np.where(ahead, vertices[:, 2] + shift, 0), rtol=1e-6)
    np.testing.assert_allclose(seen, [*wanted.min(0), *wanted.max(0)], rtol=1e-9)


def test_rasterizer_agrees_with_trying_every_face_everywhere() -> None:
    rng = np.random.default_rng(3)
    size = (23, 17)
    xy = rng.uniform(-8, 30, (18, 2)).astype(np.float32)
    depth = rng.uniform(0.01, 3, 18).astype(np.float32)
    faces = rng.permutation(18).reshape(6, 3).astype(np.int32)
    faces = np.concatenate([faces, faces[:, ::-1]])  # one of each pair faces the camera
    zbuffer = np.zeros(size[::-1], np.float32)
    face_id = np.full(size[::-1], -1, np.int32)
    bary = np.zeros((*size[::-1], 2), np.float32)
    rasterize(faces, xy, depth, zbuffer, face_id, bary)
    expected = reference_raster(faces, xy, depth, size)
    assert (expected >= 0).any()
    np.testing.assert_array_equal(face_id, expected)


def test_no_pixel_falls_between_two_triangles() -> None:
    """Pixel centres on the edge that a left and a right triangle share, in 2,000 random pairs."""
    rng = np.random.default_rng(0)
    size, holes, drawn = 64, 0, set[int]()
    for _ in range(2000):
        faces = np.array([np.roll(f, rng.integers(3)) for f in ([0, 2, 1], [0, 1, 3])], np.int32)
        x = rng.integers(8, size - 8)
        y = np.sort(rng.uniform(2, size - 2, 2))[::-1]
        corners = [[x, y[0]], [x, y[1]]]
        corners += [[x + side * rng.uniform(1, 7), rng.uniform(*y[::-1])] for side in (1, -1)]
        face_id = np.full((size, size), -1, np.int32)
        rasterize(
            faces, np.array(corners, np.float32),
            rng.uniform(1, 3, 4).astype(np.float32), np.zeros((size, size), np.float32),
            face_id, np.zeros((size, size, 2), np.float32),
        )  # fmt: skip
        drawn |= set(face_id[face_id >= 0].tolist())
        holes += int((face_id[int(np.ceil(y[1])) : int(np.floor(y[0])), x] < 0).sum())
    assert (holes, drawn) == (0, {0, 1})


def test_normals_point_away_from_the_middle_of_a_ball() -> None:
    vertices, faces = sphere()
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (normals * vertices).sum(1).min() > 0.3 * 0.98


def test_shading_agrees_with_the_reference() -> None:
    vertices, faces = sphere(4, 5, 0.3)
    lens = np.array([[30.0, 0, 12.3], [0, 31.0, 9.1], [0, 0, 1]])
    person = person_at((0.05, -0.02, 1.1), vertices=vertices, K=lens)
    result = Result((person,), 0, 0, (25, 19), faces)
    image = np.random.default_rng(0).integers(0, 256, (19, 25, 3), dtype=np.uint8)
    xy = project(person.vertices.astype(np.float64), lens)
    depth = person.vertices[:, 2]
    owner = reference_raster(faces, xy, depth, (25, 19))
    expected = reference_shade(owner, xy, depth, result, image)
    drawn = draw_overlay(image, result, alpha=1.0)
    assert (owner >= 0).sum() > 100
    assert np.abs(drawn.astype(int) - expected).max() <= 1


def silhouette(person: Person, faces: Array, size: tuple[int, int]) -> Array:
    """Every projected triangle, filled by OpenCV with sub-pixel corners."""
    mask = np.zeros(size[::-1], np.uint8)
    corners = np.rint(project(person.vertices.astype(np.float64), person.K) * 16).astype(np.int32)
    for face in faces:
        cv2.fillConvexPoly(mask, corners[face], 255, cv2.LINE_8, 4)
    return mask > 0


@pytest.mark.parametrize("center", [(0.0, 0.0, 2.0), (0.9, -0.6, 3.0), (-0.3, 0.4, 1.5)])
def test_silhouette_lies_where_the_projection_says(center: tuple[float, float, float]) -> None:
    size = (640, 480)
    lens = np.array([[700.0, 0, 331.0], [0, 690.0, 242.0], [0, 0, 1]])
    person = person_at(center, K=lens)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    drawn = draw_overlay(image, result_of(person, size=size), alpha=1.0).any(-1)
    expected = silhouette(person, sphere()[1], size)
    assert (drawn & expected).sum() / (drawn | expected).sum() > 0.98


def test_the_picture_stays_and_only_the_body_changes() -> None:
    person = person_at((0, 0, 2.0))
    image = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    before = image.copy()
    drawn = draw_overlay(image, result_of(person))
    np.testing.assert_array_equal(image, before)
    changed = (drawn != image).any(-1)
    mask = silhouette(person, sphere()[1], SIZE)
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.9
    np.testing.assert_array_equal(draw_overlay(image, result_of(person), alpha=0.0), image)
    np.testing.assert_array_equal(draw_overlay(image, result_of()), image)


def test_alpha_blends() -> None:
    result = result_of(person_at((0, 0, 2.0)))
    solid = draw_overlay(GREY, result, alpha=1.0).astype(float)
    half = draw_overlay(GREY, result, alpha=0.25).astype(float)
    assert np.abs(half - (0.75 * GREY + 0.25 * solid)).max() <= 1


def test_moving_the_lens_moves_the_drawing() -> None:
    moved = LENS.copy()
    moved[:2, 2] += (11, -7)
    first = draw_overlay(GREY, result_of(person_at((0, 0, 2.5))))
    second = draw_overlay(GREY, result_of(person_at((0, 0, 2.5), K=moved)))
    np.testing.assert_array_equal(np.roll(first, (-7, 11), (0, 1)), second)


@pytest.mark.parametrize("swap", [False, True])
def test_nearer_person_hides_the_farther_whatever_the_order(swap: bool) -> None:
    near, far = person_at((0, 0, 1.5)), person_at((0.1, 0, 3.0))
    people = (far, near) if swap else (near, far)
    drawn = draw_overlay(GREY, result_of(*people), alpha=1.0)
    center = drawn[60, 80].astype(float)
    color = np.array(PALETTE_RGB[people.index(near)][::-1], float)
    cosine = center @ color / np.linalg.norm(center) / np.linalg.norm(color)
    assert cosine > 0.999


def test_depths_compare_between_virtual_cameras() -> None:
    """A small figure far off and a big one close by, each 2 m in front of its own camera."""
    wide = np.array([[300.0, 0, 80.0], [0, 300.0, 60.0], [0, 0, 1]])
    long = np.array([[100.0, 0, 80.0], [0, 100.0, 60.0], [0, 0, 1]])
    big, small = person_at((0, 0, 2.0), K=wide), person_at((0, 0, 1.9), K=long)
    np.testing.assert_allclose(shared_depth_shift((big, small)), [0, 1.9 * 2], rtol=1e-6)
    np.testing.assert_array_equal(shared_depth_shift((big, person_at((0, 0, 9), K=wide))), [0, 0])
    drawn = draw_overlay(GREY, result_of(small, big), alpha=1.0)
    alone = draw_overlay(GREY, result_of(person_at((0, 0, 40.0)), big), alpha=1.0)
    np.testing.assert_array_equal(drawn, alone)


@pytest.mark.parametrize(
    "center",
    [
        (0.0, 0.0, -2.0),  # behind the camera
        (0.0, 0.0, 0.0),  # around it
        (0.0, 0.0, 0.2),  # so near that the picture is full
        (0.7, 0.5, 1.2),  # partly outside
        (50.0, 0.0, 2.0),  # outside
        (1e30, -1e30, 1e-3),
    ],
)
def test_odd_places_do_no_harm(center: tuple[float, float, float]) -> None:
    drawn = draw_overlay(GREY, result_of(person_at(center), person_at((0, 0, 2.0))))
    assert drawn.shape == GREY.shape
    assert (drawn != GREY).any()


def test_body_that_is_cut_by_the_border_is_the_same_inside() -> None:
    person = person_at((-0.9, 0.5, 2.0))
    wide = np.full((SIZE[1] + 80, SIZE[0] + 100, 3), 90, np.uint8)
    shifted = person.K + np.array([[0, 0, 50.0], [0, 0, 40.0], [0, 0, 0]])
    whole = draw_overlay(
        wide, result_of(person_at((-0.9, 0.5, 2.0), K=shifted), size=(SIZE[0] + 100, SIZE[1] + 80))
    )
    part = draw_overlay(GREY, result_of(person))
    assert (part != GREY).any()
    difference = np.abs(part.astype(int) - whole[40:-40, 50:-50])
    assert (difference > 1).sum() <= 3 * 3  # single pixels on the outline may round apart


def test_bands_and_used_buffers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    big = result_of(person_at((0, 0, 1.0)), person_at((0.4, 0.1, 1.3)))
    small = result_of(person_at((0.2, 0, 3.0)))
    expected = [draw_overlay(GREY, big), draw_overlay(GREY, small)]
    monkeypatch.setattr(overlay, "MAX_BAND_PX", 700)
    renderer = OverlayRenderer()
    for _ in range(2):
        np.testing.assert_array_equal(renderer.draw(GREY, big), expected[0])
        np.testing.assert_array_equal(renderer.draw(GREY, small), expected[1])
    assert renderer._pixels <= 700


def test_a_view_of_a_picture_is_drawn_like_a_copy() -> None:
    result = result_of(person_at((0, 0, 2.0)))
    view = np.full((2 * SIZE[1], SIZE[0], 3), 90, np.uint8)[::2]
    np.testing.assert_array_equal(draw_overlay(view, result), draw_overlay(GREY, result))


def test_skeleton_is_drawn_on_the_keypoints() -> None:
    person = person_at((0, 0, -1.0))  # no body in sight
    drawn = OverlayRenderer(skeleton=True).draw(GREY, result_of(person))
    for x, y in np.rint(person.keypoints_px).astype(int):
        assert (drawn[y, x] != 90).any()


def test_misuse() -> None:
    result = result_of(person_at((0, 0, 2.0)))
    with pytest.raises(ContractError, match="not the one this result came from"):
        draw_overlay(GREY[::2], result)
    with pytest.raises(ContractError, match="alpha"):
        OverlayRenderer(alpha=1.5)
    with pytest.raises(ContractError, match="channels"):
        draw_overlay(GREY[..., 0], result)
    broken = person_at((0, 0, 2.0))
    broken.vertices[3] = np.nan
    with pytest.raises(ContractError, match="NaN"):
        draw_overlay(GREY, result_of(broken))
