"""The command line as a user meets it: files, words, JSON, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from glnet_rt import __version__
from glnet_rt.artifact import DEFAULT_PATH
from glnet_rt.camera import project
from glnet_rt.cli import common
from glnet_rt.cli.boxes import read_boxes
from glnet_rt.cli.demo import CLIP
from glnet_rt.cli.main import main
from glnet_rt.contracts import Array
from glnet_rt.errors import (
    ArtifactError,
    BackendError,
    ContractError,
    GlnetError,
    MissingDependencyError,
    SourceError,
)
from glnet_rt.skeleton import SMPL_JOINTS

needs_default = pytest.mark.skipif(
    not (DEFAULT_PATH.exists() and CLIP.exists()), reason="the package has no default model yet"
)


def photo(seed: int = 0, size: tuple[int, int] = (96, 128)) -> Array:
    """A picture with something in it, [H, W, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


WHOLE = ("--detector", "none")  # each whole picture is one person


def call(*args: object) -> int:
    """Run the command in this process; returns the exit code."""
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    return int(caught.value.code or 0)


def call_json(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    """The same with `--json`: the exit code, and stdout, which must be one JSON object."""
    capsys.readouterr()
    code = call(*args, "--json")
    return code, json.loads(capsys.readouterr().out)


def write_video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (128, 96))
    for index in range(frames):
        writer.write(photo(index))
    writer.release()
    return path


def read_video(path: Path) -> list[Array]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_run_on_a_picture(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    cv2.imwrite(str(tmp_path / f"photo{suffix}"), photo())
    out = tmp_path / "out"
    args = ("run", tmp_path / f"photo{suffix}", "--artifact", tiny_path, "--out", out, *WHOLE)
    assert call(*args) == 0
    overlay = out / ("overlay.png" if suffix == ".png" else "overlay.jpg")
    assert {p.name for p in out.iterdir()} == {overlay.name, "result.npz", "body.glb"}
    drawn = cv2.imread(str(overlay))
    assert drawn.shape == photo().shape
    assert (np.abs(drawn.astype(int) - photo()).max(-1) > 40).sum() > 20
    told = capsys.readouterr().out
    assert "people    1 in 1 frame\n" in told
    assert " ms for one frame" in told
    for path in out.iterdir():
        assert str(path) in told
    with np.load(out / "result.npz") as data:
        assert data["joints"].shape == (1, 24, 3)
        assert "vertices" in data
        assert str(data["body_id"]) == "octahedra"


def test_run_on_a_video(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "clip.avi")
    args = ("run", video, "--artifact", tiny_path, "--out", tmp_path / "o", *WHOLE)
    code, told = call_json(capsys, *args)
    assert code == told["exit_code"] == 0
    assert (told["frames"], told["people"], told["animated"]) == (5, 5, True)
    assert told["fps"] == pytest.approx(told["frames"] / told["seconds"], rel=0.01)
    assert set(told["stages_ms"]) == {"read", "crop", "infer", "decode", "overlay"}
    assert (told["failed"], told["broke_off"]) == ([], None)
    frames = read_video(Path(told["files"]["overlay"]))
    assert len(frames) == 5
    with np.load(told["files"]["result"]) as data:
        assert data["frame_id"].tolist() == list(range(5))
        assert data["timestamp_ns"].tolist() == [i * 50_000_000 for i in range(5)]
    assert Path(told["files"]["body"]).read_bytes()[:4] == b"glTF"


def test_run_with_two_streams_and_a_trace(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, trace = write_video(tmp_path / "clip.avi"), tmp_path / "trace.json"
    args = ("run", video, "--artifact", tiny_path, "--out", tmp_path / "o", *WHOLE)
    options = ("--backend", "onnxruntime", "--threads", 1, "--streams", 2, "--trace", trace)
    code, told = call_json(capsys, *args, *options)
    assert (code, told["frames"]) == (0, 5)
    assert told["files"]["trace"] == str(trace)
    names = [event["name"] for event in json.loads(trace.read_text())["traceEvents"]]
    assert names.count("decode") == 5


def test_folder_with_one_bad_picture_ends_with_6_and_everything_else_done(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a1.png", "a2.jpg", "a10.bmp"):
        cv2.imwrite(str(folder / name), photo())
    (folder / "a2.jpg").write_bytes(b"broken")
    args = ("run", folder, "--artifact", tiny_path, "--out", tmp_path / "o", *WHOLE)
    code, told = call_json(capsys, *args)
    assert code == told["exit_code"] == 6
    assert (told["frames"], told["people"]) == (2, 2)
    assert [(f["frame_id"], f["name"]) for f in told["failed"]] == [(1, "a2.jpg")]
    assert told["failed"][0]["error"]["type"] == "SourceError"
    assert {p.name for p in (tmp_path / "o/overlay").iterdir()} == {"a1.png", "a10.bmp.jpg"}
    assert call(*args) == 6
    captured = capsys.readouterr()
    assert "failed: a2.jpg" in captured.err
    assert "people    2 in 2 frames\n" in captured.out
    assert " frames per second" in captured.out


def test_truncated_video_is_written_up_to_the_cut(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_video(tmp_path / "clip.avi", 12)
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    args = ("run", video, "--artifact", tiny_path, "--out", tmp_path / "o")
    code, told = call_json(capsys, *args)
    assert code == 6
    assert "12 frames" in told["broke_off"]["expected"]
    assert 0 < told["frames"] < 12
    assert len(read_video(tmp_path / "o/overlay.mp4")) == told["frames"]
    assert call(*args) == 6
    assert "ended early" in capsys.readouterr().err


def test_boxes_from_text_and_from_json(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "photo.png"
    cv2.imwrite(str(picture), photo())
    args = ("run", picture, "--artifact", tiny_path, "--out", tmp_path / "o", "--no-overlay")
    code, told = call_json(capsys, *args, "--boxes", "10,20,60,90;50,10,120,90")
    assert (code, told["people"]) == (0, 2)
    assert set(told["files"]) == {"result", "body"}
    with np.load(told["files"]["result"]) as data:
        np.testing.assert_array_equal(data["bbox_xyxy"], [[10, 20, 60, 90], [50, 10, 120, 90]])
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"photo.png": [[10, 20, 60, 90]]}')
    assert call_json(capsys, *args, "--boxes", boxes)[1]["people"] == 1
    boxes.write_text("[]")
    (tmp_path / "o/body.glb").unlink()
    assert call(*args, "--boxes", boxes) == 0
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "o/body.glb").exists()


def test_boxes_by_frame(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames with two people, none, and a box outside; nobody can be followed, so nobody moves."""
    video = write_video(tmp_path / "clip.avi", 4)
    boxes = tmp_path / "boxes.json"
    rows = {"0": [[10, 20, 60, 90], [50, 10, 120, 90]], "2": [[900, 900, 990, 990]], "3": []}
    boxes.write_text(json.dumps(rows))
    args = ("run", video, "--artifact", tiny_path, "--out", tmp_path / "o", "--boxes", boxes)
    code, told = call_json(capsys, *args)
    assert code == 6
    assert (told["frames"], told["people"], told["animated"]) == (3, 2, False)
    assert [(f["name"], f["error"]["type"]) for f in told["failed"]] == [
        ("frame 2", "ContractError")
    ]


@pytest.mark.parametrize("content", ["{", "3", "[[1, 2, 3]]", '{"0": [[1, 2, 3, "x"]]}'])
def test_boxes_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(content)
    with pytest.raises(ContractError, match="--boxes"):
        read_boxes(str(path))


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", ";", "1,2,3,4;5"])
def test_boxes_text_that_holds_none(text: str) -> None:
    with pytest.raises(ContractError, match="--boxes"):
        read_boxes(text)


def test_boxes_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read the boxes"):
        read_boxes(str(tmp_path / "boxes.json"))


def test_usage_errors_end_with_2(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "photo.png"
    cv2.imwrite(str(picture), photo())
    args = ("run", picture, "--artifact", tiny_path, "--out", tmp_path / "o")
    assert call("run") == 2
    assert call("nonsense") == 2
    assert call(*args, "--boxes", "90,90,10,10") == 2
    assert "inverted" in capsys.readouterr().err
    assert call(*args, "--backend", "abacus") == 2
    assert call(*args, "--threads", 0) == 2


def test_missing_and_unreadable_sources_end_with_6(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--artifact", tiny_path, "--out", tmp_path / "o")
    code, told = call_json(capsys, "run", tmp_path / "nothing.mp4", *args)
    assert code == told["exit_code"] == 6
    assert told["error"]["type"] == "SourceError"
    (tmp_path / "words.mp4").write_text("these are words")
    assert call("run", tmp_path / "words.mp4", *args) == 6
    told_error = capsys.readouterr().err
    for part in ("error: ", "got: ", "expected: ", "fix: "):
        assert part in told_error
    assert "Traceback" not in told_error


def test_folder_that_cannot_be_written_to(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), photo())
    (tmp_path / "o").write_text("a file where the folder should be")
    args = ("run", tmp_path / "photo.png", "--artifact", tiny_path, "--out", tmp_path / "o")
    assert call(*args) == 6
    assert str(tmp_path / "o") in capsys.readouterr().err


def test_bad_artifacts_end_with_5(
    tiny_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.glnet"
    data = bytearray(tiny_path.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    for command in ("info", "verify", "doctor"):
        code, told = call_json(capsys, command, "--artifact", bad)
        assert code == 5
        assert told["error"]["type"] == "ArtifactError"
        assert call(command, "--artifact", tmp_path / "none.glnet") == 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContractError("x"), 2),
        (MissingDependencyError("x"), 4),
        (BackendError("x"), 4),
        (ArtifactError("x"), 5),
        (SourceError("x"), 6),
        (GlnetError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: GlnetError, code: int) -> None:
    assert common.exit_code(error) == code


def test_info(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = call_json(capsys, "info", "--artifact", tiny_path)
    assert code == 0
    assert told["body"]["body_id"] == "octahedra"
    assert told["glnet_rt_version"] == __version__
    assert "model.fp32.onnx" in told["files"]
    assert call("info", "--artifact", tiny_path) == 0
    assert "octahedra" in capsys.readouterr().out


def test_verify(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = call_json(capsys, "verify", "--artifact", tiny_path)
    assert code == 0
    assert told["passed"]
    assert told["reports"][-1]["backend"] == "onnxruntime"
    for report in told["reports"]:
        assert report["precision"] == "fp32"
        assert report["max_mm"] <= report["tolerance"]["max_mm"]
    assert all(attempt["backend"] != "onnxruntime" for attempt in told["rejected"])
    assert call("verify", "--artifact", tiny_path) == 0
    assert "passed" in capsys.readouterr().out


def test_verify_that_fails_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An artifact whose stored answers belong to other crops: whole, but its self-test fails."""
    from dataclasses import replace

    from glnet_rt.artifact import PROBE, Artifact, write_artifact
    from glnet_rt.probe import Probe
    from tests import tiny

    good = Artifact.open(tiny.write(tmp_path / "good.glnet"))
    files = {name: good.read(name) for name in good.manifest.files}
    probe = Probe.read(good)
    swapped = replace(probe, crops_bgr=np.ascontiguousarray(probe.crops_bgr[::-1]))
    files[PROBE] = swapped.to_bytes(good.spec)
    bad = write_artifact(tmp_path / "bad.glnet", good.manifest, files)
    code, told = call_json(capsys, "verify", "--artifact", bad)
    assert code == 3
    assert not told["passed"]
    for report in told["reports"]:
        assert report["max_mm"] > report["tolerance"]["max_mm"]


def test_doctor(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = call_json(capsys, "doctor", "--artifact", tiny_path)
    assert code == 0
    assert told["packages"]["numpy"] == np.__version__
    assert sum(line.startswith("chosen ") for line in told["estimator"]) == 1
    assert call("doctor", "--artifact", tiny_path) == 0
    out = capsys.readouterr().out
    assert "  chosen " in out
    assert f"numpy {np.__version__}" in out


def test_doctor_tells_what_of_cuda_is_there(
    tiny_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package, each part says what to install; none of it makes the command fail."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    code, told = call_json(capsys, "doctor", "--artifact", tiny_path)
    assert code == 0
    assert told["cuda"]["pycuda"]
    for part in ("compiler", "device"):
        assert "fix: pip install" in told["cuda"][part]


def test_doctor_tells_what_is_not_installed(
    tiny_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glnet_rt.cli.doctor.PACKAGES", ("numpy", "no-such-package"))
    told = call_json(capsys, "doctor", "--artifact", tiny_path)[1]
    assert told["packages"]["no-such-package"] == "not installed"


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"glnet-rt {__version__}\n"
    assert call("--help") == 0
    out = capsys.readouterr().out
    for command in ("demo", "run", "live", "info", "verify", "doctor"):
        assert command in out


def test_help_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, glnet_rt.cli.main as m\n"
        "try: m.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'cv2', 'numba', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glnet_rt", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"glnet-rt {__version__}\n"


@needs_default
def test_demo_runs_the_shipped_model_on_the_shipped_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = call_json(capsys, "demo", "--out", tmp_path)
    assert code == 0
    assert told["people"] == told["frames"] > 10
    assert told["animated"]
    assert {p.name for p in tmp_path.iterdir()} == {"overlay.mp4", "result.npz", "body.glb"}
    drawn, clip = read_video(tmp_path / "overlay.mp4"), read_video(CLIP)
    assert len(drawn) == len(clip) == told["frames"]
    changed = np.mean(
        [(cv2.absdiff(a, b).max(-1) > 30).mean() for a, b in zip(drawn, clip, strict=True)]
    )
    assert 0.01 < changed < 0.5
    follows_the_boxes(tmp_path / "result.npz")


def follows_the_boxes(path: Path) -> None:
    """Pelvis and chest, projected, lie inside the person's box in nearly every frame."""
    with np.load(path) as data:
        boxes, joints, K = data["bbox_xyxy"], data["joints"], data["K"]
    chest = joints[:, SMPL_JOINTS.index("spine3")].astype(float)
    for points in (joints[:, 0].astype(float), chest):
        px = project(points[:, None], K)[:, 0]
        inside = (px > boxes[:, :2]).all(1) & (px < boxes[:, 2:]).all(1)
        assert inside.mean() > 0.95
    assert np.ptp(boxes[:, 0]) > 100  # the person does cross the picture


@needs_default
def test_shipped_artifact_passes_its_own_self_test(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = call_json(capsys, "verify")
    assert (code, told["passed"]) == (0, True)
