"""Person detectors: what each promises, every layout of an ONNX file, motion on a made street."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from glnet_rt.cli.demo import CLIP, CLIP_BOXES
from glnet_rt.contracts import Array, Frame
from glnet_rt.detect import Detections, open_detector
from glnet_rt.detect.auto import AutoDetector
from glnet_rt.detect.base import GivenBoxes, WholeFrame
from glnet_rt.detect.boxes import clip, covered, iou, suppress
from glnet_rt.detect.camera import CameraWatch
from glnet_rt.detect.motion import MotionConfig, MotionDetector
from glnet_rt.detect.onnx_ import OnnxConfig, OnnxDetector, free_size, layout_of, letterbox
from glnet_rt.detect.own import OwnConfig, OwnDetector
from glnet_rt.errors import BackendError, ContractError, GlnetError, SourceError
from glnet_rt.stream import open_source

Helpful = Callable[[GlnetError], None]
SIDE = 64  # of the networks' input, px
# One sure person, the same person again, an unsure one, and a sure something else; input px.
EDGES = np.array([[8, 4, 24, 44], [9, 5, 25, 45], [40, 8, 56, 48], [30, 30, 60, 60]], np.float32)
PERSON = np.array([0.9, 0.8, 0.1, 0.02], np.float32)
OTHER = np.array([0.01, 0.02, 0.05, 0.95], np.float32)
PICTURE = Frame(np.zeros((128, 64, 3), np.uint8))  # the input holds it at half its size
WANTED = np.array([[16.0, 8.0, 48.0, 88.0]])


def centred(edges: Array) -> Array:
    return np.concatenate([(edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]], 1)


def logit(chance: Array) -> Array:
    return np.log(chance / (1 - chance))


def with_filler(rows: Array, count: int) -> Array:
    """More boxes, of nobody."""
    return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), np.float32)])


def outputs_of(layout: str) -> dict[str, Array]:
    """What a network of that layout tells of the four."""
    classes = np.stack([PERSON, OTHER], 1)
    if layout == "yolo":
        return {"output0": with_filler(np.concatenate([centred(EDGES), classes], 1), 20).T[None]}
    if layout == "yolo-objectness":
        rows = np.concatenate([centred(EDGES), np.full((4, 1), 0.95, np.float32), classes], 1)
        return {"output": with_filler(rows, 20)[None]}
    if layout == "end-to-end":
        sure = np.where(PERSON > OTHER, PERSON, OTHER)
        label = (OTHER > PERSON).astype(np.float32)
        rows = np.concatenate([EDGES, sure[:, None], label[:, None]], 1)
        return {"output0": with_filler(rows, 20)[None]}
    if layout == "detr":
        return {"logits": logit(classes)[None], "pred_boxes": centred(EDGES)[None] / SIDE}
    return {"boxes": EDGES[None], "scores": PERSON[None]}


def write_network(
    path: Path, outputs: dict[str, Array], *, dtype: int = TensorProto.FLOAT, free: bool = False
) -> Path:
    """A real graph that takes a picture and tells the given outputs, whatever it shows."""
    sides = ["height", "width"] if free else [SIDE, SIDE]
    nodes = [helper.make_node("ReduceMax", ["images"], ["bright"], keepdims=0)]
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", ["bright"], ["wide"], to=TensorProto.FLOAT))
    grey = "bright" if dtype == TensorProto.FLOAT else "wide"
    nodes += [
        helper.make_node("Mul", [grey, "zero"], ["nothing"]),
        *(helper.make_node("Add", [f"{name}.value", "nothing"], [name]) for name in outputs),
    ]
    constants = [numpy_helper.from_array(np.float32(0), "zero")]
    constants += [
        numpy_helper.from_array(value.astype(np.float32), f"{n}.value")
        for n, value in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", dtype, [1, 3, *sides])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape))
            for name, value in outputs.items()
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


LAYOUTS = ("yolo", "yolo-objectness", "end-to-end", "detr", "boxes")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_and_read(tmp_path: Path, layout: str) -> None:
    path = write_network(tmp_path / "detector.onnx", outputs_of(layout))
    with OnnxDetector(path) as detector:
        assert detector.layout == layout
        found = detector(PICTURE)
    np.testing.assert_allclose(found.boxes, WANTED, atol=1e-3)
    assert found.scores[0] == pytest.approx(0.9, abs=0.05)


def test_half_precision_input_and_free_sides(tmp_path: Path) -> None:
    path = write_network(
        tmp_path / "d.onnx", outputs_of("boxes"), dtype=TensorProto.FLOAT16, free=True
    )
    found = OnnxDetector(path, OnnxConfig(input_px=64))(PICTURE)
    np.testing.assert_allclose(found.boxes, WANTED, atol=0.1)


def test_labels_choose_people(tmp_path: Path) -> None:
    labels = {"labels": np.array([[1, 1, 1, 0]], np.float32)}
    path = write_network(tmp_path / "d.onnx", {**outputs_of("boxes"), **labels})
    assert len(OnnxDetector(path)(PICTURE)) == 0
    assert len(OnnxDetector(path, OnnxConfig(person=1))(PICTURE)) == 1


def test_ambiguous_outputs_must_be_stated(assert_helpful: Helpful) -> None:
    shapes = {"output0": (1, None, 6)}
    with pytest.raises(ContractError, match="yolo-objectness and end-to-end") as caught:
        layout_of(shapes, "auto")
    assert_helpful(caught.value)
    assert layout_of(shapes, "end-to-end") == "end-to-end"


@pytest.mark.parametrize(
    ("shapes", "stated"),
    [
        ({"logits": (1, 10)}, "auto"),
        ({"a": (1, 3, 64, 64)}, "auto"),
        ({"output0": (1, 84, 8400)}, "detr"),
        ({"output0": (1, 84, 8400)}, "yolov8"),
    ],
)
def test_outputs_that_are_no_detector(
    shapes: dict[str, tuple[int, ...]], stated: str, assert_helpful: Helpful
) -> None:
    with pytest.raises(ContractError) as caught:
        layout_of(shapes, stated)
    assert_helpful(caught.value)


def test_known_exports_are_told_apart() -> None:
    assert layout_of({"output0": (1, 84, 8400)}, "auto") == "yolo"
    assert layout_of({"output0": (1, 5, None)}, "auto") == "yolo"
    assert layout_of({"output": (1, 25200, 85)}, "auto") == "yolo-objectness"
    assert layout_of({"output0": (1, 300, 6)}, "auto") == "end-to-end"
    assert (
        layout_of({"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, "auto") == "boxes"
    )


def test_files_that_cannot_be_used(tmp_path: Path, assert_helpful: Helpful) -> None:
    with pytest.raises(SourceError) as missing:
        open_detector(tmp_path / "none.onnx")
    assert_helpful(missing.value)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(BackendError) as unreadable:
        open_detector(broken)
    assert_helpful(unreadable.value)
    with pytest.raises(ContractError) as unknown:
        open_detector("hog")
    assert_helpful(unknown.value)
    no_class = write_network(tmp_path / "d.onnx", outputs_of("yolo"))
    with pytest.raises(ContractError, match="class") as wrong:
        OnnxDetector(no_class, OnnxConfig(person=7))(PICTURE)
    assert_helpful(wrong.value)
    detector = OnnxDetector(no_class)
    detector.close()
    with pytest.raises(BackendError) as closed:
        detector(PICTURE)
    assert_helpful(closed.value)


def test_input_that_is_no_picture(tmp_path: Path, assert_helpful: Helpful) -> None:
    path = write_network(tmp_path / "d.onnx", outputs_of("boxes"), dtype=TensorProto.DOUBLE)
    with pytest.raises(ContractError, match="one picture") as caught:
        OnnxDetector(path)
    assert_helpful(caught.value)


def test_letterbox_and_free_size() -> None:
    image = np.full((50, 100, 3), (10, 20, 250), np.uint8)
    picture, scale = letterbox(image, (64, 64))
    assert picture.shape == (1, 3, 64, 64)
    assert scale == 0.64
    np.testing.assert_allclose(picture[0, :, 5, 5] * 255, (250, 20, 10), atol=1e-3)  # RGB
    np.testing.assert_allclose(picture[0, :, 60, 5] * 255, 114, atol=1e-3)
    assert free_size((1920, 1080), OnnxConfig(input_px=480)) == (480, 288)
    assert free_size((100, 60), OnnxConfig(input_px=480)) == (128, 64)


def test_box_arithmetic() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], float)
    np.testing.assert_allclose(iou(boxes, boxes)[0], [1, 1 / 3, 0])
    np.testing.assert_allclose(covered(boxes, boxes)[0], [1, 0.5, 0])
    np.testing.assert_allclose(covered(boxes[:1] / 2, boxes)[0], [1, 0, 0])
    np.testing.assert_array_equal(suppress(boxes, np.array([0.5, 0.9, 0.1]), 0.3), [1, 2])
    np.testing.assert_array_equal(suppress(boxes, np.array([0.5, 0.5, 0.5]), 0.3), [0, 2])
    np.testing.assert_allclose(clip(boxes, (12, 8))[1], [5, 0, 12, 8])


def test_detections_refuse_what_is_none(assert_helpful: Helpful) -> None:
    with pytest.raises(ContractError, match="probabilities") as caught:
        Detections(np.zeros((1, 4)), np.array([1.5]))
    assert_helpful(caught.value)
    with pytest.raises(ContractError):
        Detections(np.zeros((1, 4)), np.zeros(2))


def test_whole_and_given() -> None:
    frame = Frame(np.zeros((40, 30, 3), np.uint8), 3)
    np.testing.assert_array_equal(WholeFrame()(frame).boxes, [[0, 0, 30, 40]])
    given = GivenBoxes(lambda f: [[f.frame_id, 0, 20, 20]])
    np.testing.assert_array_equal(given(frame).boxes, [[3, 0, 20, 20]])
    with pytest.raises(ContractError):
        GivenBoxes(lambda f: [[5, 5, 5, 5]])(frame)


def street(step: int, *, shake: int = 0) -> Array:
    """A noisy street with somebody at x = 20 + 8 step, and somebody else coming the other way."""
    ground = np.random.default_rng(1).integers(80, 180, (160, 360, 3)).astype(np.int16)
    image = ground[:, shake : shake + 320]
    image = image + np.random.default_rng(step + 10).integers(-3, 4, image.shape)
    for left, top, colour in ((20 + 8 * step, 20, 20), (290 - 7 * step, 100, 240)):
        image[top : top + 40, left : left + 12] = colour
    return np.clip(image, 0, 255).astype(np.uint8)


def test_motion_finds_who_walks() -> None:
    detector = MotionDetector(MotionConfig(practice=5))
    for step in range(20):
        found = detector(Frame(street(step), step, step * 40_000_000))
        assert step >= 5 or len(found) == 0
    wanted = np.array([[172, 20, 184, 60], [157, 100, 169, 140]], float)
    assert len(found) == 2
    assert iou(wanted, found.boxes).max(1).min() > 0.7


def test_motion_says_when_the_camera_moves(caplog: pytest.LogCaptureFixture) -> None:
    detector = MotionDetector(MotionConfig(practice=2, most_changed=0.2))
    for step in range(30):
        detector(Frame(street(0), step, step))
    assert "stands still" not in caplog.text
    assert len(detector(Frame(street(0, shake=17), 30, 30))) == 0
    assert "stands still" in caplog.text


def test_motion_joins_somebody_behind_a_rail() -> None:
    detector = MotionDetector(MotionConfig(practice=5))
    for step in range(16):
        image = street(step)
        image[45:53] = 60  # it hides the knees
        found = detector(Frame(image, step, step))
    person = np.array([[140, 20, 152, 60]], float)
    assert iou(person, found.boxes).max() > 0.7


def test_motion_starts_anew_with_another_size() -> None:
    detector = MotionDetector(MotionConfig(practice=3))
    for step in range(6):
        detector(Frame(street(step), step, step))
    assert len(detector(Frame(street(6)[:, :150].copy(), 6, 6))) == 0


def test_motion_cannot_tell_while_it_practises_and_anew_once_it_forgot() -> None:
    detector = MotionDetector(MotionConfig(practice=2))
    told = []
    for step in range(6):
        if step == 4:
            detector.forget()
        told.append(detector.look(Frame(street(step), step, step)) is not None)
    assert told == [False, False, True, True, False, False]


@pytest.mark.parametrize(("per_frame", "moves"), [(0, False), (0.2, True), (3, True)])
def test_camera_that_stands_still_or_pans(per_frame: float, moves: bool) -> None:
    watch = CameraWatch()
    told = [
        watch.moved(Frame(street(step % 12, shake=round(per_frame * step)), step, step))
        for step in range(13)
    ]
    assert any(told) == moves
    assert not told[0]


def test_camera_sees_a_cut() -> None:
    watch = CameraWatch()
    assert not watch.moved(Frame(street(0), 0, 0))
    other = np.random.default_rng(9).integers(0, 255, (160, 320, 3)).astype(np.uint8)
    assert watch.moved(Frame(other, 1, 1))
    assert not watch.moved(Frame(other, 2, 2))
    assert watch.moved(Frame(other[:, :200].copy(), 3, 3))


def test_own_finds_people_of_the_clip_in_the_package() -> None:
    """Recall and precision at IoU 0.5; nothing was trained on the clip."""
    detector, found, told = OwnDetector(), 0, 0
    rows = json.loads(CLIP_BOXES.read_text())
    with open_source(CLIP) as source:
        frames = [frame for frame in source if frame.frame_id % 10 == 0]
    for frame in frames:
        overlap = iou(np.array(rows[str(frame.frame_id)], float), detector(frame).boxes)
        found += overlap.max(initial=0.0) >= 0.5
        told += overlap.shape[1]
    assert found >= 0.8 * len(frames)
    assert found >= 0.6 * told


class Scripted:
    """A network that tells given boxes, px, and scores."""

    def __init__(self, rows: list[tuple[list[float], float]]) -> None:
        self.rows, self.calls = rows, 0

    def __call__(self, frame: Frame) -> Detections:
        self.calls += 1
        boxes = np.array([box for box, _ in self.rows], float).reshape(-1, 4)
        return Detections(boxes, np.array([score for _, score in self.rows], float))


def test_own_wants_more_of_small_people_and_drops_parts() -> None:
    detector = OwnDetector(OwnConfig(near=0.3, score_near=0.3, score_far=0.5, part=0.9))
    near, far, part = [10.0, 10, 40, 90], [80.0, 10, 90, 30], [12.0, 12, 38, 45]
    for rows, wanted in (
        ([(near, 0.35), (far, 0.35)], [near]),
        ([(near, 0.35), (far, 0.55)], [near, far]),
        ([(near, 0.35), (part, 0.9)], [near]),
        ([(near, 0.25)], []),
    ):
        detector._network = Scripted(rows)  # type: ignore[assignment]
        found = detector(Frame(np.zeros((100, 100, 3), np.uint8)))
        np.testing.assert_array_equal(found.boxes, np.array(wanted).reshape(-1, 4))


def auto_with(rows: list[tuple[list[float], float]]) -> tuple[AutoDetector, Scripted]:
    detector, network = AutoDetector(), Scripted(rows)
    detector._motion = MotionDetector(MotionConfig(practice=3))
    detector._network._network = network  # type: ignore[assignment]
    return detector, network


def test_auto_adds_who_is_near_to_who_moves() -> None:
    near, far = [200.0, 60, 240, 150], [10.0, 10, 20, 30]
    detector, network = auto_with([(near, 0.4), (far, 0.6)])
    seen = []
    for step in range(12):
        found = detector(Frame(street(step), step, step))
        seen.append((detector.by_motion, len(found)))
    assert seen[:3] == [(False, 2)] * 3  # while motion practises, the network's word alone
    assert all(by_motion for by_motion, _ in seen[3:])
    walkers = np.array([[108, 20, 120, 60], [213, 100, 225, 140]], float)
    assert iou(walkers[:1], found.boxes).max() > 0.7
    assert iou(walkers[1:], found.boxes).max() < 0.4  # within who is near: a part of them
    assert found.boxes[0].tolist() == near
    assert iou(np.array([far]), found.boxes).max() == 0  # small, and does not move
    assert network.calls == 3 + 3  # then every third frame


def test_auto_wants_the_network_surer_where_the_camera_stands_still() -> None:
    near = [200.0, 60, 240, 150]
    detector, _ = auto_with([(near, 0.35)])
    told = [near in detector(Frame(street(step), step, step)).boxes.tolist() for step in range(12)]
    assert told == [True] * 3 + [False] * 9


def test_auto_leaves_it_to_the_network_where_the_camera_moves() -> None:
    far = [10.0, 10, 20, 30]
    detector, network = auto_with([(far, 0.6)])
    for step in range(12):
        found = detector(Frame(street(step, shake=3 * step), step, step))
        assert not detector.by_motion
        assert found.boxes.tolist() == [far]
    assert network.calls == 12
