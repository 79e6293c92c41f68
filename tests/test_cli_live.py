"""`glnet-rt live` as a user meets it: lines of JSON, files, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt.cli import live_job
from glnet_rt.cli.live import _as_camera
from glnet_rt.estimator import Estimator
from tests.streams import no_thread_left
from tests.test_cli import WHOLE, call, read_video, write_video

PEOPLE_KEYS = {"track_id", "score", "bbox_xyxy", "transl", "joints", "betas", "pose_rotvec"}


def call_lines(
    capsys: pytest.CaptureFixture[str], *args: object
) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, one object per result, and the summary."""
    capsys.readouterr()
    code = call(*args, "--json")
    *results, summary = map(json.loads, capsys.readouterr().out.splitlines())
    return code, results, summary


def test_a_file_played_as_lines(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.avi", 8)
    trace, out = tmp_path / "trace.json", tmp_path / "o"
    with no_thread_left():
        code, results, summary = call_lines(
            capsys, "live", clip, "--artifact", tiny_path, "--policy", "none", "--threads", 1,
            "--trace", trace, "--out", out, *WHOLE,
        )  # fmt: skip
    assert code == summary["exit_code"] == 0
    assert [result["frame_id"] for result in results] == list(range(8))
    for result in results:
        (person,) = result["people"]
        assert set(person) == PEOPLE_KEYS
        assert np.shape(person["joints"]) == np.shape(person["pose_rotvec"]) == (24, 3)
        assert result["timings_ms"]["age"] > 0
        assert (result["dropped"], result["error"]) == (0, None)
    assert (summary["frames_in"], summary["frames_out"], summary["failed"]) == (8, 8, 0)
    assert summary["age_ms"]["p50"] <= summary["age_ms"]["p99"] <= summary["age_ms"]["max"]
    assert set(summary["files"]) == {"overlay", "result", "trace"}
    with np.load(out / "result.npz") as data:
        assert data["frame_id"].tolist() == list(range(8))
        assert data["timestamp_ns"].tolist() == [result["timestamp_ns"] for result in results]
    assert 8 <= len(read_video(out / "overlay.mp4")) <= 30
    assert json.loads(trace.read_text())["traceEvents"]


def test_what_runs_several_people_is_opened_before_the_first_frame(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """OpenVINO's lanes take most of a second to open, for which a stream would stand still."""
    asked: list[int] = []
    monkeypatch.setattr(Estimator, "warm_up", lambda self, people=1: asked.append(people))
    clip = write_video(tmp_path / "clip.avi", 2)
    code, _, _ = call_lines(capsys, "live", clip, "--artifact", tiny_path, "--threads", 1, *WHOLE)
    assert (code, asked) == (0, [2])


def test_drops_are_told(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.avi", 60)
    code, results, summary = call_lines(
        capsys, "live", clip, "--artifact", tiny_path, "--no-pace", "--max-age", 0, "--threads", 1
    )
    assert code == 0
    assert summary["frames_in"] == 60 == len(results) + sum(summary["dropped"].values())
    assert summary["frames_out"] == len(results)
    for k, result in enumerate(results):
        assert result["dropped"] == result["frame_id"] - k


def test_words_for_people_and_a_time_limit(
    tiny_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_job, "TOLD_EVERY_S", 0.1)
    clip = write_video(tmp_path / "clip.avi", 20 * 60)
    with no_thread_left():
        assert call("live", clip, "--artifact", tiny_path, "--duration", 1) == 0
    captured = capsys.readouterr()
    assert "results per second" in captured.err
    for word in ("frames ", "dropped ", "speed ", "age "):
        assert word in captured.out


def test_ctrl_c_ends_it_with_its_summary(
    tiny_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = write_video(tmp_path / "clip.avi", 20)

    def interrupt(result: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(live_job, "as_line", interrupt)
    with no_thread_left():
        code, results, summary = call_lines(capsys, "live", clip, "--artifact", tiny_path)
    assert (code, results) == (0, [])
    assert summary["in_flight"] == 0


def test_a_broken_picture_ends_with_6(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.avi", 12)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    code, results, summary = call_lines(
        capsys, "live", clip, "--artifact", tiny_path, "--policy", "none"
    )
    assert code == 6
    assert 0 < len(results) < 12
    assert summary["error"]["type"] == "SourceError"


def test_what_cannot_be_opened_or_used(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("live", "97", "--artifact", tiny_path) == 6
    assert "camera 97 cannot be opened" in capsys.readouterr().err
    assert call("live", tmp_path / "nothing.mp4", "--artifact", tiny_path) == 6
    clip = write_video(tmp_path / "clip.avi")
    assert call("live", clip, "--artifact", tiny_path, "--policy", "some") == 2
    assert call("live", clip, "--artifact", tiny_path, "--boxes", "1,2") == 2


def test_a_number_is_a_camera_unless_a_file_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _as_camera("0") == 0
    assert _as_camera("rtsp://host/1") == "rtsp://host/1"
    (tmp_path / "0").touch()
    assert _as_camera("0") == "0"
