"""People found, followed and made steady through a whole stream, and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from glnet_rt import load
from glnet_rt.cli.demo import CLIP, CLIP_BOXES
from glnet_rt.contracts import Array, Frame, Result
from glnet_rt.detect.boxes import iou
from glnet_rt.errors import ContractError, GlnetError
from glnet_rt.estimator import Estimator
from glnet_rt.finder import Found
from glnet_rt.stream import open_source
from tests.test_cli import call, call_json, needs_default, write_video
from tests.test_cli_live import call_lines
from tests.test_detect import street

BOXES = [[10, 5, 60, 90], [60, 10, 120, 95]]


@pytest.fixture(scope="module")
def hmr(tiny_path: Path) -> Estimator:
    return load(tiny_path, backend="onnxruntime", threads=1)


def frames(count: int) -> list[Frame]:
    return [Frame(street(k), k, k * 40_000_000) for k in range(count)]


def test_one_person_who_fills_the_frame_is_followed_and_steady(hmr: Estimator) -> None:
    raw = list(hmr.video(frames(6), boxes="whole"))
    steady = list(hmr.video(frames(6), boxes="whole", smooth=True))
    assert [[p.track_id for p in r.people] for r in raw] == [[0]] * 6
    assert [[p.track_id for p in r.people] for r in steady] == [[0]] * 6
    assert [r.frame_id for r in steady] == list(range(6))
    assert np.array_equal(raw[0].people[0].joints, steady[0].people[0].joints)
    moved = [
        np.abs(a.people[0].body_pose - b.people[0].body_pose).max()
        for a, b in zip(raw[1:], steady[1:], strict=True)
    ]
    assert min(moved) > 1e-6
    assert all(r.timings_ms["settle"] > 0 for r in steady)


def test_steady_live_people_have_ids(hmr: Estimator) -> None:
    with hmr.live(
        [f.image for f in frames(5)], drop="none", max_age_ms=None, boxes="whole", smooth=True
    ) as session:
        results = list(session)
    assert [[p.track_id for p in r.people] for r in results] == [[0]] * 5


def test_a_frame_that_the_finder_refuses_fails_alone(hmr: Estimator) -> None:
    class Choosy:
        lag = 1

        def find(self, frame: Frame, known: Result | None) -> Found:
            assert known is None or known.error is not None or len(known.people) == 1
            return Found(BOXES)

        def settle(self, result: Result) -> Result:
            if result.frame_id == 1:
                raise ContractError("not this one", got="1", expected="another", fix="none")
            return Result(
                result.people[1:], result.frame_id, result.timestamp_ns, result.image_size,
                result.faces,
            )  # fmt: skip

    results = list(hmr.video(frames(3), finder=Choosy()))
    assert [len(r.people) for r in results] == [1, 0, 1]
    assert [r.error is None for r in results] == [True, False, True]
    np.testing.assert_array_equal(results[0].people[0].bbox_xyxy, BOXES[1])


def test_arguments_that_do_not_go_together(hmr: Estimator) -> None:
    with pytest.raises(ContractError, match="not followed"):
        next(hmr.video(frames(1), smooth=True))
    with pytest.raises(ContractError, match="no such detector"):
        next(hmr.video(frames(1), boxes="hog"))


def npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as data:
        return dict(data)


def test_run_with_a_detector(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "clip.avi")
    common = ("run", video, "--artifact", tiny_path, "--no-overlay")
    code, told = call_json(
        capsys, *common, "--out", tmp_path / "a", "--detector", "whole", "--smooth"
    )
    assert (code, told["people"]) == (0, 5)
    assert npz(tmp_path / "a/result.npz")["track_id"].tolist() == [0] * 5
    code, told = call_json(capsys, *common, "--out", tmp_path / "b", "--detector", "motion")
    assert (code, told["people"]) == (0, 0)  # five frames are practice
    code, told = call_json(
        capsys, *common, "--out", tmp_path / "c", "--boxes", "10,5,60,90", "--smooth"
    )
    assert npz(tmp_path / "c/result.npz")["track_id"].tolist() == [0] * 5
    code, told = call_json(capsys, *common, "--out", tmp_path / "d", "--detector", "none")
    assert npz(tmp_path / "d/result.npz")["track_id"].tolist() == [-1] * 5


@pytest.mark.parametrize(
    "options",
    [
        ("--smooth", "--detector", "none"),
        ("--detector", "motion", "--boxes", "1,2,30,40"),
        ("--detector", "auto", "--boxes", "1,2,30,40"),
        ("--detector", "motion", "--detector-layout", "yolo"),
        ("--detector", "hog"),
    ],
)
@pytest.mark.parametrize("command", ["run", "live"])
def test_options_that_do_not_go_together(
    tiny_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: tuple[str, ...],
) -> None:
    video = write_video(tmp_path / "clip.avi")
    assert call(command, video, "--artifact", tiny_path, "--out", tmp_path / "o", *options) == 2
    assert "fix: " in capsys.readouterr().err


def clip_frames(count: int) -> list[Array]:
    """The first pictures of the clip in the package: one person, who walks."""
    with open_source(CLIP) as source:
        return [frame.image for frame, _ in zip(source, range(count), strict=False)]


def clip_boxes() -> list[Array]:
    """Where they are, [1, 4] for each picture."""
    rows = json.loads(CLIP_BOXES.read_text())
    return [np.array(rows[str(k)], float) for k in range(len(rows))]


def write_clip(path: Path, images: list[Array]) -> Path:
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return path


@needs_default
def test_run_finds_and_follows_people_without_being_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = write_clip(tmp_path / "clip.avi", clip_frames(12)), tmp_path / "o"
    code, told = call_json(capsys, "run", clip, "--no-overlay", "--out", out)
    found = npz(out / "result.npz")
    assert code == 0
    assert told["people"] == len(found["score"]) >= 8
    assert set(found["track_id"].tolist()) == {0}
    wanted = np.concatenate([clip_boxes()[frame] for frame in found["person_frame"]])
    assert np.median(iou(found["bbox_xyxy"].astype(float), wanted).diagonal()) > 0.5


def unrest(results: list[dict[str, Any]]) -> float:
    """Mean change of the joints' rotation vectors from one sighting to the next, without the root,
    whose vectors may flip."""
    poses = [person["pose_rotvec"][1:] for result in results for person in result["people"]]
    return float(np.abs(np.diff(poses, axis=0)).mean())


@needs_default
def test_live_finds_follows_and_steadies_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.avi", clip_frames(12))
    common = ("live", clip, "--policy", "none")
    _, raw, told = call_lines(capsys, *common)
    _, steady, _ = call_lines(capsys, *common, "--smooth")
    _, whole, _ = call_lines(capsys, *common, "--detector", "whole")
    ids = [[person["track_id"] for person in result["people"]] for result in raw]
    assert told["people"] == sum(map(len, ids)) >= 8
    assert {track_id for row in ids for track_id in row} == {0}
    assert unrest(steady) < 0.9 * unrest(raw)
    assert [r["people"][0]["bbox_xyxy"] for r in whole] == [[0, 0, 640, 360]] * 12


def test_pictures_of_a_folder_are_looked_at_one_by_one(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "o"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), clip_frames(1)[0])
    cv2.imwrite(str(folder / "b.png"), np.full((200, 300, 3), 90, np.uint8))
    common = ("run", folder, "--artifact", tiny_path, "--no-overlay", "--out", out)
    assert call(*common) == 0
    err = capsys.readouterr().err
    assert "nobody was found in b.png. If one person fills the picture: --detector whole" in err
    found = npz(out / "result.npz")
    assert found["track_id"].tolist() == [-1]  # one look is enough, and nobody is followed
    assert iou(found["bbox_xyxy"].astype(float), clip_boxes()[0])[0, 0] > 0.5
    assert call_json(capsys, *common)[1]["empty"] == ["b.png"]
    code, told = call_json(capsys, *common, "--detector", "whole")
    assert (code, told["people"], told["empty"]) == (0, 2, [])


def test_an_empty_video_says_that_nobody_was_found(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.full((90, 120, 3), 90, np.uint8)
    clip = write_clip(tmp_path / "clip.avi", [grey] * 4)
    assert call("run", clip, "--artifact", tiny_path, "--out", tmp_path / "o") == 0
    assert "nobody was found in clip.avi" in capsys.readouterr().err
    assert call("live", clip, "--artifact", tiny_path, "--policy", "none", "--no-pace") == 0
    assert "nobody was found in clip.avi" in capsys.readouterr().err
    boxes = tmp_path / "boxes.json"
    boxes.write_text("{}")
    args = ("run", clip, "--artifact", tiny_path, "--out", tmp_path / "o", "--boxes", boxes)
    assert call(*args) == 0
    assert "nobody was found" not in capsys.readouterr().err  # nothing looked


def test_one_picture_shows_no_movement(
    hmr: Estimator, tmp_path: Path, assert_helpful: Callable[[GlnetError], None]
) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), clip_frames(1)[0])
    (result,) = hmr.video(path, boxes="auto")
    assert [person.track_id for person in result.people] == [None]
    for options in ({"boxes": "motion"}, {"boxes": "auto", "smooth": True}):
        with pytest.raises(ContractError, match="no movement") as caught:
            next(hmr.video(path, **options))  # type: ignore[arg-type]
        assert_helpful(caught.value)
