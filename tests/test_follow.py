"""People found, followed and made steady through a whole stream, and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt import load
from glnet_rt.contracts import Frame, Result
from glnet_rt.errors import ContractError
from glnet_rt.estimator import Estimator
from glnet_rt.finder import Found
from tests.test_cli import call, call_json, write_video
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
    code, told = call_json(capsys, *common, "--out", tmp_path / "d")
    assert npz(tmp_path / "d/result.npz")["track_id"].tolist() == [-1] * 5


@pytest.mark.parametrize(
    "options",
    [
        ("--smooth",),
        ("--detector", "motion", "--boxes", "1,2,30,40"),
        ("--detector", "hog"),
    ],
)
def test_options_that_do_not_go_together(
    tiny_path: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    video = write_video(tmp_path / "clip.avi")
    assert call("run", video, "--artifact", tiny_path, "--out", tmp_path / "o", *options) == 2
