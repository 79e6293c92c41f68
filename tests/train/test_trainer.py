"""The training loop for real, on a few people: it learns, resumes to the bit, and runs on two."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ArtifactError, SourceError
from train import __main__ as command_line
from train.checkpoint import load_weights
from train.config import FitConfig
from train.data.shards import SyntheticShards
from train.evaluate import evaluate
from train.model.config import preset
from train.synthetic.background import BACKGROUND_NAMES
from train.synthetic.poses import FAMILY_NAMES
from train.synthetic.things import THING_NAMES
from train.trainer import Order, Trainer

QUICK = FitConfig(
    images=48,
    batch_size=4,
    warmup=1,
    cooldown=8,
    log_every=8,
    evaluate_every=48,
    checkpoint_every=16,
    evaluate_count=6,
    bf16=False,
)


def trainer(run: Path, people: Path, body: BodyModel, **fields: object) -> Trainer:
    network = preset("tiny", input_size=64, body_id=body.body_id, body_sha256=body.sha256)
    config = dataclasses.replace(QUICK, **fields)
    return Trainer(config, network, run, people / "train", people / "heldout", body)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "weights.safetensors")[0].state_dict()


def test_training_lowers_the_loss_and_writes_its_files(
    tmp_path: Path, people: Path, body: BodyModel
) -> None:
    trainer(tmp_path, people, body, images=160).fit()
    with (tmp_path / "log.csv").open() as file:
        totals = [float(row["total"]) for row in csv.DictReader(file)]
    assert np.mean(totals[-3:]) < 0.8 * totals[0]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"pa_mpjpe_mm", "global_pa_mpjpe_mm", "mean_pose_pa_mpjpe_mm"} <= set(rows[0])
    model, info = load_weights(tmp_path / "weights.safetensors")
    assert info["images"] == 160
    assert model.config.spec.body_sha256 == body.sha256


def test_a_killed_run_resumes_to_the_bit(tmp_path: Path, people: Path, body: BodyModel) -> None:
    trainer(tmp_path / "whole", people, body).fit()
    cut = trainer(tmp_path / "cut", people, body)
    for _ in range(6):
        cut.step()
        cut.seen += 4
        if cut.seen == 16:
            cut.checkpoint()
    del cut  # two steps after the last checkpoint are lost, as after a kill
    trainer(tmp_path / "cut", people, body).fit()
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batch_statistics_follow_the_weights_unless_frozen(
    tmp_path: Path, people: Path, body: BodyModel
) -> None:
    for frozen in (False, True):
        run = trainer(tmp_path / f"{frozen}", people, body, freeze_norms=frozen)
        before = run.model.backbone.bn1.running_mean.clone()
        for _ in range(3):
            run.step()
        now, averaged = (m.backbone.bn1.running_mean for m in (run.model, run.average))
        assert torch.equal(before, now) == frozen
        assert torch.equal(averaged, now) == frozen  # the average lags behind
        assert (averaged - before).abs().max() <= (now - before).abs().max()


def test_a_backbone_is_taken_over_and_heads_begin_anew(
    tmp_path: Path, people: Path, body: BodyModel
) -> None:
    trainer(tmp_path / "first", people, body, images=16, seed=5).fit()
    path = tmp_path / "first/weights.safetensors"
    source = load_weights(path)[0].state_dict()
    network = preset("tiny", input_size=64, body_id=body.body_id, body_sha256=body.sha256)
    folders = (tmp_path / "second", people / "train", people / "heldout")
    second = Trainer(QUICK, network, *folders, body, backbone=path)
    assert second.images_before == 0
    for name, value in second.model.state_dict().items():
        if name.startswith(("backbone.", "fusion.")):
            torch.testing.assert_close(value, source[name])
    theirs, ours = source["pixel_head.fuse.weight"], second.model.pixel_head.fuse.weight
    assert (theirs - ours).abs().max() > 0.01
    other = dataclasses.replace(network, fused_channels=32)
    with pytest.raises(ArtifactError, match="another backbone"):
        Trainer(QUICK, other, *folders, body, backbone=path)


def test_only_the_named_parameters_are_trained(
    tmp_path: Path, people: Path, body: BodyModel
) -> None:
    run = trainer(tmp_path, people, body, only=("pixel_head.settling", "global_head"))
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    for _ in range(3):
        run.step()
    changed = {n for n, p in run.model.named_parameters() if not torch.equal(p, before[n])}
    heads = {n for n in before if n.startswith(("pixel_head.settling", "global_head"))}
    assert changed == heads


def torchrun(run: Path, people: Path, *options: str) -> subprocess.Popen[str]:
    """Two processes that train one network; a group of their own, to be killed together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(port), "-m", "train", "fit", "--out", str(run),
        "--data", str(people / "train"), "--heldout", str(people / "heldout"),
        "--input-size", "64", "--batch-size", "4", "--evaluate-count", "4", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(process: int) -> list[int]:
    """Process ids of the direct children, on Linux."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            found += [int(path.parent.name)] if parent == process else []
    return found


def finished(run: subprocess.Popen[str]) -> None:
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors[:3000]


def test_two_processes_train_together(tmp_path: Path, people: Path) -> None:
    finished(torchrun(tmp_path, people, "--images", "32", "--muon"))
    assert load_weights(tmp_path / "weights.safetensors")[1]["images"] == 32


@pytest.mark.slow
def test_two_killed_processes_resume_to_the_bit(tmp_path: Path, people: Path) -> None:
    options = ("--images", "320", "--checkpoint-every", "48")
    finished(torchrun(tmp_path / "whole", people, *options))
    cut = torchrun(tmp_path / "cut", people, *options)
    deadline = time.monotonic() + 240
    while not (tmp_path / "cut/weights.safetensors").exists():
        assert cut.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # a few steps on, which are lost
    processes = [*children(cut.pid), cut.pid]  # workers first: each leads a session of its own
    assert len(processes) == 3
    for process in processes:
        os.kill(process, signal.SIGKILL)
    cut.communicate(timeout=60)  # their end of the pipe is closed: they are gone
    seen = load_weights(tmp_path / "cut/weights.safetensors")[1]["images"]
    assert 0 < seen < 320
    finished(torchrun(tmp_path / "cut", people, *options))
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_order_is_a_permutation_that_welcomes_new_people() -> None:
    order = Order(seed=3)
    first = order.take(10, 10)
    assert sorted(i for _, i in first) == list(range(10))
    second = order.take(15, 15)
    assert {e for e, _ in second} == {1}
    assert sorted(i for _, i in second) == list(range(15))


def test_order_continues_from_its_state() -> None:
    order, again = Order(seed=1), Order(seed=1)
    order.take(7, 10)
    again.restore(order.state())
    assert order.take(8, 10) == again.take(8, 10)


@pytest.mark.parametrize("schedule", ["cosine", "step", "hold"])
def test_schedules_rise_and_fall(schedule: str) -> None:
    config = FitConfig(images=100_000, warmup=1_000, cooldown=20_000, schedule=schedule)
    assert config.learning_rate_at(0) < 0.01 * config.learning_rate
    assert config.learning_rate_at(2_000) > 0.99 * config.learning_rate
    assert config.learning_rate_at(99_999) < 0.02 * config.learning_rate


def test_evaluation_of_the_truth_is_zero(people: Path, body: BodyModel) -> None:
    shards = SyntheticShards(people / "heldout", body.sha256)
    network = preset("tiny", input_size=64, body_id=body.body_id, body_sha256=body.sha256)
    from train.evaluate import errors, load_batch, true_bodies
    from train.model.glnet import GLNet

    truth = true_bodies(load_batch(GLNet(network), shards, range(6)), body)
    result = errors(truth.bodies, truth, 0.8, network.spec.focal, truth.uv)
    assert result.pa_mpjpe_mm.max() < 1e-3
    assert result.pve_mm.max() < 1e-3
    assert np.nanmax(result.keypoints_2d) < 1e-6


def test_evaluation_reports_every_way_to_predict(
    tmp_path: Path, people: Path, body: BodyModel
) -> None:
    trainer(tmp_path, people, body, images=8, checkpoint_every=4).fit()
    model, _ = load_weights(tmp_path / "weights.safetensors")
    shards = SyntheticShards(people / "heldout", body.sha256)
    report = evaluate(model, shards, body, range(12), batch_size=5)
    assert len(report.glnet.pa_mpjpe_mm) == 12
    assert report.global_only is not None
    assert report.mean_pose.pa_mpjpe_mm.mean() > 0
    assert np.isfinite(list(report.summary().values())).all()


def test_the_command_line_evaluates(
    tmp_path: Path,
    people: Path,
    body: BodyModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer(tmp_path, people, body, images=8, checkpoint_every=4, evaluate_every=8).fit()
    out = tmp_path / "report.json"
    weights = str(tmp_path / "weights.safetensors")
    arguments = ["train", "evaluate", weights, "--heldout", str(people / "heldout")]
    arguments += ["--json", str(out), "--curve", str(tmp_path / "metrics.csv")]
    monkeypatch.setattr(sys, "argv", arguments)
    command_line.main()
    shown = capsys.readouterr().out
    assert "| mean pose |" in shown
    assert "pa_mpjpe_mm" in shown
    report = json.loads(out.read_text())
    assert report["people"] == 12
    assert {"glnet", "global_only", "mean_pose", "per_kind", "curve"} <= set(report)
    assert sum(kind["people"] for kind in report["per_kind"].values()) == 12
    for pair in report["held_out"].values():
        assert pair["with"]["people"] + pair["without"]["people"] == 12
    monkeypatch.setattr(sys, "argv", [*arguments, "--flip"])
    command_line.main()
    assert json.loads(out.read_text())["glnet"] != report["glnet"]


def test_hold_outs_are_told_by_their_labels(people: Path, body: BodyModel) -> None:
    shards = SyntheticShards(people / "heldout", body.sha256)
    labels = shards.labels
    expected = {
        "pose family": labels["kind"] == FAMILY_NAMES.index("lunge"),
        "cloth pattern": labels["flags"] > 0,
        "background kind": labels["background"] == BACKGROUND_NAMES.index("waves"),
        "thing": labels["things"] == 1 << THING_NAMES.index("guitar"),
        "background photograph": labels["background"] == BACKGROUND_NAMES.index("photo"),
    }
    found = shards.held_out()
    assert set(found) == set(expected)
    for name, who in expected.items():
        assert who.any(), name
        assert not who.all(), name
        np.testing.assert_array_equal(found[name], who)
    assert SyntheticShards(people / "train", body.sha256).held_out() == {}


def test_shards_of_another_body_are_refused(people: Path) -> None:
    with pytest.raises(ArtifactError, match="another body"):
        SyntheticShards(people / "train", "0" * 64)


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"train\.synthetic"):
        SyntheticShards(tmp_path, "0" * 64)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(ArtifactError, match="no GLNet weights"):
        load_weights(path)
