"""The kernels' CPU build equals the NumPy and numba run time: one source for both machines."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from glnet_rt import skeleton
from glnet_rt.backends.cuda import body as cuda_body
from glnet_rt.backends.cuda import frame, kernels, nvrtc, workspace
from glnet_rt.backends.cuda.frame import check_status
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.crop import normalise, sample_square
from glnet_rt.decode import crop_lenses, decode_arrays
from glnet_rt.errors import BackendError, GlnetError
from glnet_rt.kinematic_fit import kinematic_fit
from glnet_rt.kinematics import inverse_kinematics
from glnet_rt.rotation import rotvec_to_rotmat
from glnet_rt.spec import NetSpec
from tests import tiny
from tests.cuda_bench import IMAGE_SIZE, Bench, people_seen
from tests.native import build_library, run_sanitized

Check = Callable[[GlnetError], None]
ASSETS = Path(kernels.__file__).parents[2] / "assets"
SPECS = {
    "decomposed": NetSpec(input_size=48),
    "direct": NetSpec(input_size=48, representation="direct"),
    "fitted": NetSpec(input_size=48, representation="direct", fit_prior_rad=0.2),
}
K = np.array([[700.0, 0.0, 300.0], [0.0, 720.0, 250.0], [0.0, 0.0, 1.0]])
# Sides of the square, px, for a crop of 48: enlarged, 1:1, sampled, halved one to six times.
SIDES = (5.3, 48.0, 60.7, 73.0, 150.0, 300.1, 1000.0, 5000.0)
CENTERS = np.array([[130.3, 101.7], [2.2, 3.9], [255.0, 190.5], [100.0, -9.0]])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    """The body of the package: 6900 vertices, most bent by one or two joints."""
    return BodyModel.load(ASSETS / "body.npz")


@pytest.fixture(scope="module")
def dense_body() -> BodyModel:
    """A body whose every vertex is bent by all joints, as SMPL's are."""
    return BodyModel.from_bytes(tiny.body_bytes(), "body.npz")


# -- crop -----------------------------------------------------------------------------------------


def levels(batch: Array, spec: NetSpec) -> Array:
    """[B, 3, S, S] of a crop as grey levels again, before rounding."""
    std, mean = (np.array(values)[:, None, None] for values in (spec.std, spec.mean))
    return (batch.astype(np.float64) * std + mean) * 255


def exact_crop(image: Array, center: Array, side: float, size: int) -> Array:
    """[3, S, S] float64 grey levels by the rule of crop.py, before the last rounding."""
    step = side / size
    halvings = max(0, math.ceil(math.log2(step / 1.5)))
    block = 2**halvings
    first = np.floor(center - side / 2).astype(int) - block
    last = np.ceil(center + side / 2).astype(int) + block
    start = np.clip(first, 0, np.array(image.shape[1::-1]) - 1)
    stop = np.maximum(np.minimum(last + 1, image.shape[1::-1]), start + 1)
    window = image[start[1] : stop[1], start[0] : stop[0]].astype(np.float64)
    for _ in range(halvings):
        odd = np.array(window.shape[:2]) % 2
        window = np.pad(window, ((0, odd[0]), (0, odd[1]), (0, 0)))
        sums = sum(window[i::2, j::2] for i in (0, 1) for j in (0, 1))
        window = np.floor(sums / 4 + 0.5)
    window = np.pad(window, ((2, 2), (2, 2), (0, 0)))  # black all around
    at = np.arange(size)[None] * step + (center - (size / 2 - 0.5) * step)[:, None]
    x, y = np.clip((at - start[:, None] - (block - 1) / 2) / block, -1.5, 1e4) + 2
    x, y = np.minimum(x, window.shape[1] - 1.001), np.minimum(y, window.shape[0] - 1.001)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[None, :, None], (y - y0)[:, None, None]
    upper = window[y0][:, x0] * (1 - fx) + window[y0][:, x0 + 1] * fx
    lower = window[y0 + 1][:, x0] * (1 - fx) + window[y0 + 1][:, x0 + 1] * fx
    return np.ascontiguousarray((upper * (1 - fy) + lower * fy)[..., ::-1].transpose(2, 0, 1))


def noise(seed: int, height: int = 200, width: int = 260) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("side", SIDES)
def test_crops_follow_the_rule(dense_body: BodyModel, side: float) -> None:
    """On noise, the worst case, at the middle, at two corners and across an edge of the picture."""
    spec, image = SPECS["decomposed"], noise(int(side))
    batch = Bench(spec, dense_body).crop(image, CENTERS, np.full(4, side))
    for got, center in zip(levels(batch, spec), CENTERS, strict=True):
        np.testing.assert_allclose(got, got.round(), atol=1e-4)  # whole levels, as bytes are
        assert np.abs(got - exact_crop(image, center, side, spec.input_size)).max() < 0.502


@pytest.mark.parametrize("side", SIDES)
def test_crops_are_those_of_opencv(dense_body: BodyModel, side: float) -> None:
    """But for ties, and what OpenCV 4 rounds coordinates to."""
    spec, image = SPECS["decomposed"], noise(int(side))
    batch = Bench(spec, dense_body).crop(image, CENTERS, np.full(4, side))
    for got, center in zip(batch, CENTERS, strict=True):
        wanted = normalise(sample_square(image, center, side, spec.input_size), spec)
        apart = np.abs(levels(got - wanted, replace(spec, mean=(0.0, 0.0, 0.0))))
        assert apart.max() < (1.01 if cv2.__version__ >= "5" else 5.0)
        assert (apart > 0.5).mean() < (0.01 if cv2.__version__ >= "5" else 0.5)


def test_padding_rows_are_zeros_and_loops_have_no_order(dense_body: BodyModel) -> None:
    spec, image, sides = SPECS["decomposed"], noise(1), np.array([90.0, 400.0])
    forwards = Bench(spec, dense_body).crop(image, CENTERS[:2], sides)
    backwards = Bench(spec, dense_body, backwards=True).crop(image, CENTERS[:2], sides)
    np.testing.assert_array_equal(forwards, backwards)
    assert (forwards[2:] == 0).all()


def test_rows_of_a_frame_may_be_apart(dense_body: BodyModel) -> None:
    spec, wide = SPECS["decomposed"], noise(2, width=300)
    view, alone = wide[:, :260], np.ascontiguousarray(wide[:, :260])
    crops = [
        Bench(spec, dense_body).crop(image, CENTERS, np.full(4, 150.0)) for image in (view, alone)
    ]
    np.testing.assert_array_equal(*crops)


def test_half_crops_are_rounded_once(dense_body: BodyModel) -> None:
    spec, image = SPECS["decomposed"], noise(3)
    single, half = (
        Bench(spec, dense_body, half_input=half).crop(image, CENTERS, np.full(4, 70.0))
        for half in (False, True)
    )
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_half_is_ieee_half(tmp_path: Path) -> None:
    source = tmp_path / "half.cpp"
    source.write_text(
        '#include "portable.h"\n'
        'extern "C" void halves(const float* x, uint16_t* out, int count) {\n'
        "  for (int i = 0; i < count; ++i) out[i] = glnet::to_half(x[i]);\n}\n"
    )
    library = build_library(source, include=[kernels.SOURCES])
    every = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        between = (halves[:-1] + halves[1:]) / 2  # ties
    values = np.concatenate([every, halves, between])
    got = np.empty(len(values), np.uint16)
    address = ctypes.c_void_p
    library.halves(address(values.ctypes.data), address(got.ctypes.data), len(values))
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = values.astype(np.float16)
    np.testing.assert_array_equal(got.view(np.float16), wanted)
    known = ~np.isnan(wanted)
    np.testing.assert_array_equal(got[known], wanted.view(np.uint16)[known])  # signs of zeros too


# -- decode and skin ------------------------------------------------------------------------------


def reference(
    body: BodyModel,
    spec: NetSpec,
    output: NetOutput,
    centers: Array,
    sides: Array,
    lens: Array | None,
) -> dict[str, Array]:
    """The run time's own decoder."""
    focal, offset, _ = crop_lenses(centers, sides, IMAGE_SIZE, spec, lens)
    bodies = decode_arrays(body, spec, output, offset, focal)
    pixels = centers[:, None] + output.keypoints_uvd[..., :2] * sides[:, None, None]
    names = ("rotmats", "transl", "joints", "vertices", "betas")
    return {
        "keypoints_px": pixels,
        "score": output.score,
        **{name: getattr(bodies, name) for name in names},
    }


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("lens", [None, K])
def test_decoding_in_double_is_the_run_times(
    body: BodyModel, kind: str, lens: Array | None
) -> None:
    spec = SPECS[kind]
    for seed in range(3):
        output, centers, sides = people_seen(body, spec, seed)
        got = Bench(spec, body, "double").decode(output, centers, sides, lens)
        assert (got["status"] == 0).all()
        for name, wanted in reference(body, spec, output, centers, sides, lens).items():
            # All is stored as float32, the squares and lenses too, bodies stand up to 13 m away,
            # and the reference poses its joints and skins in float32.
            atol = {"rotmats": 3e-6, "keypoints_px": 1e-4}.get(name, 2e-5)
            np.testing.assert_allclose(got[name], wanted, rtol=2e-7, atol=atol, err_msg=name)


DOUBLES = """
#include "decode.h"
using namespace glnet;
extern "C" void solve(const double* points, const double* twist, const double* rest,
                      double* local) {
  double placed[3 * NUM_JOINTS] = {}, world[9 * NUM_JOINTS];
  put(placed, 0, load(points, 0));
  best_rotation(rest, points, world);
  for (int i = 0; i < 9; ++i) local[i] = world[i];
  for (int depth = 1; depth < DEEPEST; ++depth) {
    for (int j = 1; j < NUM_JOINTS; ++j) {
      if (DEPTH[j] != depth) continue;
      const double* turn = twist + 2 * (j - 1);
      solve_joint(points, turn[0], turn[1], rest, j, placed, local, world);
    }
  }
}
extern "C" void fit(double* local, const double* rest, const double* pelvis, const float* uvd,
                    const float* spread, const double* offset, const double* focal,
                    double stiffness) {
  static FitWork<double> work;
  double world[9 * NUM_JOINTS], points[3 * NUM_SKELETON];
  put(points, 0, load(pelvis, 0));
  pose_skeleton(local, rest, NUM_SKELETON, world, points);
  solve_step(points, uvd, spread, offset, focal, stiffness, work);
  turn_joints(world, work.step, local);
}
"""


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Inverse kinematics and the fit, float64 in and out."""
    source = tmp_path_factory.mktemp("doubles") / "doubles.cpp"
    source.write_text(DOUBLES)
    return build_library(source, include=[kernels.SOURCES])


def address_of(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def awkward_skeletons(rest: Array) -> list[Array]:
    """[29, 3] each: bones that point backwards, in one point, far off, of zero length."""
    rng = np.random.default_rng(4)
    folded = rest.copy()
    folded[20] = folded[18] + (folded[16] - folded[18])  # the forearm lies on the upper arm
    return [rest, -rest, np.zeros_like(rest), folded, rest + 7.0, rng.normal(0, 1, rest.shape)]


def test_inverse_kinematics_in_double_is_the_reference(
    doubles: ctypes.CDLL, body: BodyModel
) -> None:
    rng = np.random.default_rng(3)
    rest = body.rest_template.astype(np.float64)
    skeletons = awkward_skeletons(rest)
    skeletons += [rest + rng.normal(0, sigma, rest.shape) for sigma in (0.003, 0.05, 0.3) * 10]
    for points in skeletons:
        twist = rng.normal(0, 1, (23, 2))
        twist[5] = 0.0  # says nothing, and turns nothing
        got = np.empty((24, 3, 3))
        doubles.solve(*map(address_of, (points, twist, rest, got)))
        wanted = inverse_kinematics(points[None], twist[None], rest[None])[0]
        np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_the_kinematic_fit_in_double_is_the_reference(
    doubles: ctypes.CDLL, body: BodyModel
) -> None:
    rng = np.random.default_rng(5)
    rest = body.rest_template.astype(np.float64)
    for depth_m in (4.0, 0.2, -1.0):  # also where points lie behind the camera, and say nothing
        rotmats = rotvec_to_rotmat(rng.normal(0, 0.4, (24, 3)))
        pelvis, offset = np.array([0.3, -0.2, depth_m]), np.array([0.1, -0.2])
        focal, uvd = np.array([3.9, 4.1]), rng.normal(0, 0.2, (29, 3)).astype(np.float32)
        spread = rng.uniform(0.005, 0.1, 29).astype(np.float32)
        got = rotmats.copy()
        arrays = (got, rest, pelvis, uvd, spread, offset, focal)
        doubles.fit(*map(address_of, arrays), ctypes.c_double(1 / 0.2**2))
        keypoints = uvd[None, :, :2].astype(np.float64)
        wanted = kinematic_fit(
            rotmats[None], rest[None], pelvis[None], keypoints, spread[None].astype(np.float64),
            offset[None], focal[None], 0.2,
        )[0]  # fmt: skip
        np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("which", ["body", "dense_body"])
def test_decoding_in_float_stays_below_a_hundredth_of_a_millimetre(
    kind: str, which: str, request: pytest.FixtureRequest
) -> None:
    """What the GPU computes in, against double; a dozen people each."""
    body, spec = request.getfixturevalue(which), SPECS[kind]
    for seed in range(3):
        output, centers, sides = people_seen(body, spec, seed)
        got = Bench(spec, body).decode(output, centers, sides, K)
        wanted = Bench(spec, body, "double").decode(output, centers, sides, K)
        gap = (got["vertices"] - got["transl"][:, None]) - (
            wanted["vertices"] - wanted["transl"][:, None]
        )
        assert np.abs(gap).max() < 1e-5
        np.testing.assert_allclose(got["transl"], wanted["transl"], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", SPECS)
def test_loops_of_the_decoder_have_no_order(dense_body: BodyModel, kind: str) -> None:
    """What threads of a block do at once may be done in any order: there is no race."""
    spec = SPECS[kind]
    output, centers, sides = people_seen(dense_body, spec, 7)
    forwards = Bench(spec, dense_body).decode(output, centers, sides, K)
    backwards = Bench(spec, dense_body, backwards=True).decode(output, centers, sides, K)
    for name, values in forwards.items():
        np.testing.assert_array_equal(values, backwards[name], err_msg=name)


@pytest.mark.parametrize(
    ("kind", "name", "value", "text"),
    [
        ("decomposed", "camera_scale", 0.0, "camera scale"),
        ("decomposed", "camera_scale", -1.0, "camera scale"),
        ("direct", "camera_scale", np.nan, "camera scale"),
        ("decomposed", "keypoints_uvd", np.nan, "NaN"),
        ("decomposed", "twist", np.inf, "NaN"),
        ("direct", "rot6d", np.nan, "NaN"),
        ("direct", "score", np.nan, "NaN"),
        ("decomposed", "betas", -np.inf, "NaN"),
        ("fitted", "spread", 0.0, "keypoint error"),
        ("fitted", "spread", np.nan, "NaN"),
    ],
)
def test_numbers_nobody_can_use_are_reported_for_their_person_alone(
    dense_body: BodyModel, kind: str, name: str, value: float, text: str, assert_helpful: Check
) -> None:
    spec = SPECS[kind]
    output, centers, sides = people_seen(dense_body, spec, 1)
    sound = Bench(spec, dense_body).decode(output, centers, sides, K)
    check_status(sound["status"])
    getattr(output, name)[2] = value
    got = Bench(spec, dense_body).decode(output, centers, sides, K)
    with pytest.raises(BackendError, match=text) as caught:
        check_status(got["status"])
    assert "[2]" in str(caught.value.got)
    assert_helpful(caught.value)
    for other in (0, 1, 3):
        np.testing.assert_array_equal(got["vertices"][other], sound["vertices"][other])


def test_bodies_in_one_point_stay_rotations(dense_body: BodyModel) -> None:
    """All keypoints in one point: nothing to follow, and nothing to divide by."""
    spec = SPECS["decomposed"]
    output, centers, sides = people_seen(dense_body, spec, 2)
    output.keypoints_uvd[...] = 0.0
    output.twist[...] = 0.0
    got = Bench(spec, dense_body).decode(output, centers, sides, K)
    eye = np.einsum("bjik,bjil->bjkl", got["rotmats"], got["rotmats"])
    np.testing.assert_allclose(eye, np.broadcast_to(np.eye(3), eye.shape), atol=1e-5)
    assert np.isfinite(got["vertices"]).all()


# -- the twins, the sanitizers and the compiler ---------------------------------------------------


def test_tables_are_those_of_the_skeleton() -> None:
    text = (kernels.SOURCES / "skeleton.h").read_text()

    def table(name: str) -> tuple[int, ...]:
        (inside,) = re.findall(rf"\b{name}\[\w+\] = \{{(.*?)\}}", text, re.DOTALL)
        return tuple(map(int, inside.split(",")))

    depth = [0]
    for parent in skeleton.PARENTS[1:]:
        depth.append(depth[parent] + 1)
    assert table("PARENT") == skeleton.PARENTS
    assert table("DEPTH") == tuple(depth)
    assert table("BONE_CHILD") == skeleton.BONE_CHILD
    assert table("ROOT_CHILDREN") == skeleton.ROOT_CHILDREN
    sizes = {
        "NUM_JOINTS": skeleton.NUM_JOINTS,
        "NUM_SKELETON": skeleton.NUM_SKELETON,
        "NUM_KEYPOINTS": skeleton.NUM_KEYPOINTS,
        "NUM_TWISTS": skeleton.NUM_TWISTS,
        "DEEPEST": max(depth),
    }
    for name, value in sizes.items():
        assert f"constexpr int {name} = {value};" in text


def test_structs_are_as_large_on_both_sides(tmp_path: Path) -> None:
    structs = {
        "PersonParams": frame.PERSON_PARAMS,
        "FrameParams": frame.FRAME_PARAMS,
        "Normalisation": workspace.NORMALISATION,
        "NetPointers": workspace.NET_POINTERS,
        "SkinInput": workspace.SKIN_INPUT,
        "DecodeSetup": cuda_body.DECODE_SETUP,
        "BodyTables": cuda_body.BODY_TABLES,
    }
    lines = ['#include "crop.h"', '#include "skin.h"', "using namespace glnet;"]
    for name, dtype in structs.items():
        lines.append(f'static_assert(sizeof({name}) == {dtype.itemsize}, "{name}");')
        for field, (_, offset) in sorted((dtype.fields or {}).items()):
            member = {"window": "first_column", "shift": "shift_x", "offset": "offset_u"}
            member |= {"focal": "focal_u", "center": "center_x"}
            known = member.get(field, field)
            lines.append(f'static_assert(__builtin_offsetof({name}, {known}) == {offset}, "");')
    source = tmp_path / "structs.cpp"
    source.write_text("\n".join([*lines, 'extern "C" int fine() { return 1; }']))
    flags = ["-Wno-invalid-offsetof"]
    assert build_library(source, include=[kernels.SOURCES], flags=flags).fine() == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["twist", "rot6d"])
def test_no_access_leaves_its_buffer(kind: str) -> None:
    """Every buffer on the heap at its exact size; squares across borders, numbers that are none."""
    source = Path(__file__).parent / "cuda_sanitized.cpp"
    flags = ["-fsanitize=float-cast-overflow"]
    told = run_sanitized(source, include=[kernels.SOURCES], flags=flags, arguments=[kind])
    assert told == "done\n"


@pytest.mark.parametrize(
    "arch", [87, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (75, 90, 110, 120))]
)
@pytest.mark.parametrize("source", kernels.ENTRY_POINTS)
def test_every_kernel_compiles_for_every_architecture(source: str, arch: int) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    cubin = kernels.compile_kernels(source, f"sm_{arch}")
    assert cubin[:4] == b"\x7fELF"
    for name in kernels.ENTRY_POINTS[source]:
        assert name.encode() in cubin


def test_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    first = kernels.compile_kernels("crop.cu", "sm_75", tmp_path)
    monkeypatch.setattr(nvrtc, "compile_cubin", None)  # would fail if it were called
    assert kernels.compile_kernels("crop.cu", "sm_75", tmp_path) == first
    with pytest.raises(TypeError):
        kernels.compile_kernels("crop.cu", "sm_87", tmp_path)
