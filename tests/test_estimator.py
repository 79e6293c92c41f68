"""From a picture to people: the whole chain on a miniature artifact, and every way it can fail."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import glnet_rt
from glnet_rt import (
    ArtifactError,
    BackendError,
    BodyModel,
    ContractError,
    Estimator,
    Frame,
    GlnetError,
    Result,
    SourceError,
)
from glnet_rt.artifact import Artifact
from glnet_rt.contracts import Array
from glnet_rt.crop import cut_crops
from glnet_rt.decode import Decoder
from glnet_rt.estimator import MAX_BATCH
from glnet_rt.parity import Tolerance
from glnet_rt.probe import Probe
from tests import tiny

Check = Callable[[GlnetError], None]
LENS = np.array([[300.0, 0, 45.0], [0, 310.0, 60.0], [0, 0, 1]])


@pytest.fixture(scope="module")
def hmr(tiny_path: Path) -> Iterator[Estimator]:
    with glnet_rt.load(tiny_path, threads=1) as estimator:
        yield estimator


@pytest.fixture(scope="module")
def image() -> Array:
    return tiny.picture(3)


def assert_same_people(result: Result, wanted: Result) -> None:
    assert len(result.people) == len(wanted.people)
    for got, person in zip(result.people, wanted.people, strict=True):
        for name in ("vertices", "joints", "global_orient", "body_pose", "betas", "transl", "K"):
            np.testing.assert_allclose(
                getattr(got, name), getattr(person, name), rtol=1e-4, atol=1e-5, err_msg=name
            )


# -- what comes out -------------------------------------------------------------------------------


def test_without_boxes_the_whole_picture_is_one_person(hmr: Estimator, image: Array) -> None:
    result = hmr(image)
    height, width = image.shape[:2]
    (person,) = result.people
    np.testing.assert_array_equal(person.bbox_xyxy, [0, 0, width, height])
    assert result.image_size == (width, height)
    assert person.vertices.shape == (len(hmr.body.v_template), 3)
    np.testing.assert_array_equal(result.faces, hmr.body.faces)
    assert 0 < person.score < 1
    assert_same_people(result, hmr(image, boxes=[[0, 0, width, height]]))


def test_the_chain_is_its_parts(hmr: Estimator, image: Array) -> None:
    """The estimator adds nothing to cropping, the reference evaluator, and decoding."""
    boxes = np.array([[5.0, 10, 60, 100], [20, -10, 95, 90]])
    batch, crops = cut_crops(image, boxes, hmr.spec)
    output = tiny.run_reference(tiny.model(hmr.spec), batch, hmr.spec)
    size = (image.shape[1], image.shape[0])
    people = Decoder(hmr.body, hmr.spec)(output, crops, size, LENS)
    result = hmr(image, boxes=boxes, K=LENS)
    assert_same_people(result, Result(people, 0, 0, size, hmr.body.faces))


def test_people_come_in_the_order_of_their_boxes(hmr: Estimator, image: Array) -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (2 * MAX_BATCH + 3, 2))
    boxes = np.hstack([corner, corner + rng.uniform(10, 40, corner.shape)])
    together = hmr(image, boxes=boxes)
    assert len(together.people) == len(boxes)
    for i in (0, MAX_BATCH - 1, MAX_BATCH, len(boxes) - 1):
        np.testing.assert_allclose(together.people[i].bbox_xyxy, boxes[i], rtol=1e-6)
        alone = hmr(image, boxes=boxes[i : i + 1]).people[0]
        np.testing.assert_allclose(together.people[i].vertices, alone.vertices, atol=1e-4)


def test_batches_are_bounded(tiny_path: Path, image: Array) -> None:
    with glnet_rt.load(tiny_path) as estimator:
        sizes: list[int] = []
        infer = estimator.backend.infer

        def counted(batch: Array) -> Any:
            sizes.append(len(batch))
            return infer(batch)

        estimator.backend.infer = counted  # type: ignore[method-assign]
        estimator(image, boxes=np.tile([0.0, 0, 50, 50], (MAX_BATCH + 1, 1)))
    assert sizes == [MAX_BATCH, 1]


@pytest.mark.parametrize("boxes", [[], np.empty((0, 4))])
def test_no_boxes_give_no_people(hmr: Estimator, image: Array, boxes: object) -> None:
    result = hmr(image, boxes=boxes)
    assert result.people == ()
    assert result.image_size == (image.shape[1], image.shape[0])


def test_moving_the_picture_moves_the_keypoints(hmr: Estimator, image: Array) -> None:
    wide = cv2.copyMakeBorder(image, 30, 0, 50, 0, cv2.BORDER_CONSTANT)
    box = np.array([10.0, 10, 60, 80])
    here = hmr(image, boxes=[box]).people[0]
    there = hmr(wide, boxes=[box + np.array([50, 30, 50, 30])]).people[0]
    np.testing.assert_allclose(there.keypoints_px - here.keypoints_px, [[50, 30]] * 36, atol=1e-3)
    np.testing.assert_allclose(there.betas, here.betas, atol=1e-5)


def test_a_path_an_array_and_a_frame_agree(hmr: Estimator, image: Array, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image)
    wanted = hmr(image)
    for source in (path, str(path), Frame(image)):
        assert_same_people(hmr(source), wanted)


def test_a_frame_hands_on_its_identity(hmr: Estimator, image: Array) -> None:
    result = hmr(Frame(image, frame_id=9, timestamp_ns=123_456))
    assert (result.frame_id, result.timestamp_ns) == (9, 123_456)


def test_the_lens_may_come_with_the_frame_or_the_call(hmr: Estimator, image: Array) -> None:
    assert not np.array_equal(hmr(image).people[0].K, LENS)
    other = LENS * [[2], [2], [1]]
    for result in (
        hmr(image, K=LENS),
        hmr(image, K=LENS.tolist()),
        hmr(Frame(image, K=LENS)),
        hmr(Frame(image, K=other), K=LENS),
    ):
        np.testing.assert_array_equal(result.people[0].K, LENS)


def test_every_stage_is_timed(hmr: Estimator, image: Array) -> None:
    timings = hmr(image).timings_ms
    assert list(timings) == ["read", "crop", "infer", "decode"]
    assert all(0 < ms < 60_000 for ms in timings.values())
    assert hmr(image, boxes=[]).timings_ms["infer"] == 0


def test_results_own_their_memory(hmr: Estimator, image: Array) -> None:
    first = hmr(image)
    kept = [array.copy() for array in (first.people[0].vertices, first.people[0].betas)]
    hmr(255 - image)
    for array, copy in zip((first.people[0].vertices, first.people[0].betas), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_both_representations_run(tmp_path: Path, image: Array, representation: str) -> None:
    path = tiny.write(tmp_path / "a.glnet", representation=representation)
    with glnet_rt.load(path) as estimator:
        person = estimator(image).people[0]
        assert estimator.verify().passed
    rotations = np.concatenate([person.global_orient[None], person.body_pose])
    identity = np.broadcast_to(np.eye(3), (24, 3, 3))
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), identity, atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-5)


# -- loading --------------------------------------------------------------------------------------


def test_a_folder_loads_like_the_zip(
    hmr: Estimator, tiny_path: Path, tmp_path: Path, image: Array
) -> None:
    shutil.unpack_archive(tiny_path, tmp_path / "tiny", "zip")
    with glnet_rt.load(tmp_path / "tiny") as estimator:
        assert_same_people(estimator(image), hmr(image))


def test_a_body_may_be_given(hmr: Estimator, tiny_path: Path, tmp_path: Path, image: Array) -> None:
    path = tmp_path / "body.npz"
    path.write_bytes(tiny.body_bytes())
    for body in (path, str(path), BodyModel.load(path)):
        with glnet_rt.load(tiny_path, body=body) as estimator:
            assert_same_people(estimator(image), hmr(image))


def test_another_body_than_the_trained_one_is_refused(
    tiny_path: Path, tmp_path: Path, assert_helpful: Check
) -> None:
    path = tmp_path / "taller.npz"
    with np.load(io.BytesIO(tiny.body_bytes())) as arrays:
        np.savez(path, **{**arrays, "v_template": 1.1 * arrays["v_template"]})
    with pytest.raises(ContractError, match="trained on another body") as caught:
        glnet_rt.load(tiny_path, body=path)
    assert_helpful(caught.value)


def test_loading_tells_what_it_chose(hmr: Estimator, tiny_path: Path) -> None:
    told = hmr.explain()
    for words in (
        str(tiny_path), "CC0-1.0", "decomposed", "64 px", "octahedra, 149 vertices",
        f"chosen {hmr.backend.name} fp32",
    ):  # fmt: skip
        assert words in told
    assert hmr.spec == hmr.artifact.spec
    assert hmr.backend.name in ("openvino", "onnxruntime")  # the first that is installed


def test_warming_up_runs_one_and_several(hmr: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    infer = hmr.backend.infer

    def counted(crops: Array) -> Any:
        sizes.append(len(crops))
        return infer(crops)

    monkeypatch.setattr(hmr.backend, "infer", counted)
    hmr.warm_up()
    hmr.warm_up(people=3)
    assert sizes == [1, 1, 3]


def test_a_missing_artifact_or_body_is_told(
    tmp_path: Path, tiny_path: Path, assert_helpful: Check
) -> None:
    with pytest.raises(ArtifactError, match="missing") as caught:
        glnet_rt.load(tmp_path / "nowhere.glnet")
    assert_helpful(caught.value)
    with pytest.raises(ArtifactError, match="does not exist"):
        glnet_rt.load(tiny_path, body=tmp_path / "nowhere.npz")


def test_backend_and_precision_are_handed_on(tiny_path: Path) -> None:
    with pytest.raises(ContractError, match="no such backend"):
        glnet_rt.load(tiny_path, backend="tensorflow")
    with pytest.raises(BackendError, match="holds no int8"):
        glnet_rt.load(tiny_path, backend="onnxruntime", precision="int8")
    with pytest.raises(ContractError, match="threads"):
        glnet_rt.load(tiny_path, threads=-1)


# -- what goes wrong ------------------------------------------------------------------------------

NAN = np.full((40, 30, 3), np.nan, np.float32)
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "nan": (NAN, "NaN or infinity"),
    "no rows": (np.empty((0, 30, 3), np.uint8), "empty"),
    "no columns": (np.empty((40, 0, 3), np.uint8), "empty"),
    "float": (np.zeros((40, 30, 3), np.float32), "wrong dtype"),
    "16 bit": (np.zeros((40, 30, 3), np.uint16), "wrong dtype"),
    "grey": (np.zeros((40, 30), np.uint8), "channels"),
    "grey with a channel": (np.zeros((40, 30, 1), np.uint8), "channels"),
    "with alpha": (np.zeros((40, 30, 4), np.uint8), "channels"),
    "batch": (np.zeros((2, 40, 30, 3), np.uint8), "channels"),
    "list": ([[0, 0, 0]], "no array"),
    "nothing": (None, "no array"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_images_that_cannot_be_used_are_refused(
    hmr: Estimator, name: str, assert_helpful: Check
) -> None:
    bad, message = BAD_IMAGES[name]
    with pytest.raises(ContractError, match=message) as caught:
        hmr(bad)
    assert_helpful(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a picture"])
def test_files_that_cannot_be_read_are_refused(
    hmr: Estimator, tmp_path: Path, content: bytes | None, assert_helpful: Check
) -> None:
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        hmr(path)
    assert_helpful(caught.value)
    assert "photo.jpg" in str(caught.value)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, np.nan, 50]], "box 0 holds NaN"),
        ([[0, 0, 50, 50], [30, 30, 30, 60]], "box 1 is empty"),
        ([[50, 50, 10, 10]], "inverted"),
        ([[200, 0, 300, 50]], "outside"),
        ([[10, 10, 11, 11]], "too small"),
        ([0, 0, 50, 50], "wrong shape"),
    ],
)
def test_boxes_that_hold_no_person_are_refused(
    hmr: Estimator, image: Array, boxes: object, message: str, assert_helpful: Check
) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        hmr(image, boxes=boxes)
    assert_helpful(caught.value)


@pytest.mark.parametrize(
    "K",
    [
        np.eye(2),
        np.diag([-1.0, 1, 1]),
        LENS * np.nan,
        "wide",
        [[1, 2], [3]],
        LENS + np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_intrinsics_that_cannot_be_used_are_refused(
    hmr: Estimator, image: Array, K: object
) -> None:
    with pytest.raises(ContractError, match="K "):
        hmr(image, K=K)


# -- closing and threads --------------------------------------------------------------------------


def test_a_closed_estimator_says_so(tiny_path: Path, image: Array, assert_helpful: Check) -> None:
    estimator = glnet_rt.load(tiny_path)
    estimator.close()
    estimator.close()
    for call in (
        lambda: estimator(image),
        lambda: estimator(image, boxes=[]),
        lambda: estimator.verify(),
    ):
        with pytest.raises(BackendError, match="closed") as caught:
            call()
        assert_helpful(caught.value)


def test_several_threads_get_their_own_answers(hmr: Estimator) -> None:
    pictures = [tiny.picture(seed) for seed in range(8)]
    wanted = [hmr(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for result, expected in zip(pool.map(hmr, pictures), wanted, strict=True):
                assert_same_people(result, expected)


def test_closing_waits_for_the_running_call(tiny_path: Path, image: Array) -> None:
    estimator = glnet_rt.load(tiny_path)
    started, results, errors = threading.Event(), [], []

    def work() -> None:
        try:
            while True:
                results.append(estimator(image))
                started.set()
        except BackendError as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(60)
    estimator.close()
    thread.join(60)
    assert not thread.is_alive()
    assert results
    assert "closed" in str(errors[0])


# -- video ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        cv2.imwrite(str(folder / f"{i}.png"), tiny.picture(i))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 128))
    for i in range(12):
        writer.write(tiny.picture(i, 128, 96))
    writer.release()
    return path


def test_a_folder_gives_its_pictures_in_order(hmr: Estimator, pictures: Path) -> None:
    results = list(hmr.video(pictures))
    assert [result.frame_id for result in results] == list(range(12))
    for i, result in enumerate(results):
        assert_same_people(result, hmr(tiny.picture(i)))


def test_a_video_gives_every_frame_with_its_time(hmr: Estimator, clip: Path) -> None:
    results = list(hmr.video(clip, K=LENS))
    assert [result.frame_id for result in results] == list(range(12))
    times = np.array([result.timestamp_ns for result in results])
    np.testing.assert_allclose(np.diff(times) / 1e6, 40, atol=1)
    assert all(result.image_size == (96, 128) for result in results)
    np.testing.assert_array_equal(results[3].people[0].K, LENS)


def test_a_cut_video_gives_its_good_frames_then_says_so(
    hmr: Estimator, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.avi"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    results: list[Result] = []
    with pytest.raises(SourceError, match="ended early") as caught:
        results.extend(hmr.video(path))
    assert 1 <= len(results) < 12
    assert f"{len(results)} frames" in str(caught.value)


def test_a_missing_video_is_told(hmr: Estimator, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        next(hmr.video(tmp_path / "nowhere.mp4"))


# -- the self-test --------------------------------------------------------------------------------


def test_verify_agrees_with_the_reference_evaluator(hmr: Estimator) -> None:
    report = hmr.verify()
    assert report.passed
    assert (report.num_probes, report.same_pixel) == (tiny.NUM_PROBES, tiny.NUM_PROBES)
    assert 0 <= report.mean_mm <= report.p99_mm <= report.max_mm < 0.05
    assert (report.backend, report.precision) == (hmr.backend.name, "fp32")
    assert str(report).startswith(f"passed: {hmr.backend.name} fp32 on 4 probe crops")


def test_verify_measures_what_is_off(tmp_path: Path) -> None:
    """The same probe, but a network whose scale is off by a known amount: the depth follows."""
    spec, off = tiny.spec_for(tiny.body_bytes()), 0.001
    graph = tiny.model(spec)
    base = next(c for c in graph.graph.initializer if c.name == "camera_scale.base")
    base.raw_data = np.float32(tiny.SCALE + off).tobytes()
    path = tiny.write(tmp_path / "off.glnet", graph=graph)
    with glnet_rt.load(path) as estimator:
        report = estimator.verify()
        lenient = estimator.verify(Tolerance(1000, 1000, 1000))
    scale = Probe.read(Artifact.open(path)).output.camera_scale
    depth_gap_mm = 1000 * (spec.focal / scale - spec.focal / (scale + off))
    assert report.transl_max_mm == pytest.approx(depth_gap_mm.max(), rel=0.01)
    assert not report.passed
    assert str(report).startswith("FAILED")
    assert lenient.passed


def test_verify_notices_another_pose(tmp_path: Path) -> None:
    graph = tiny.model(tiny.spec_for(tiny.body_bytes()))
    gain = next(c for c in graph.graph.initializer if c.name == "twist.gain")
    gain.raw_data = np.float32(0.5).tobytes()
    with glnet_rt.load(tiny.write(tmp_path / "off.glnet", graph=graph)) as estimator:
        report = estimator.verify()
    assert not report.passed
    assert report.transl_max_mm < 0.05 < 1 < report.max_mm
    assert report.same_pixel == tiny.NUM_PROBES


def test_verify_counts_pixels_that_moved(tmp_path: Path) -> None:
    graph = tiny.model(tiny.spec_for(tiny.body_bytes()))
    node = next(node for node in graph.graph.node if node.output[0] == "pixel")
    node.op_type = "ArgMin"
    with glnet_rt.load(tiny.write(tmp_path / "off.glnet", graph=graph)) as estimator:
        report = estimator.verify()
    assert report.same_pixel == 0
    assert report.passed, "millimetres decide"
