"""The ablations for real on a few people: every row trains, shared rows once, results are kept."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ArtifactError
from train import __main__ as command_line
from train.ablate import (
    TABLES,
    VARIANTS,
    AblationSettings,
    Run,
    markdown,
    results_in,
    rows_of,
    runs_of,
    train_all,
)
from train.checkpoint import load_state
from train.losses import LossConfig
from train.model.glnet import GLNet

BODY = Path(__file__).resolve().parents[2] / "glnet_rt/assets/body.npz"


@pytest.fixture
def settings(tmp_path: Path, people: Path) -> AblationSettings:
    return AblationSettings(
        people / "train", people / "heldout", BODY, None, tmp_path, images=8, batch_size=4,
        input_size=64, people=4,
    )  # fmt: skip


def test_every_row_of_every_table_is_a_variant_and_every_variant_is_used() -> None:
    used = {row.variant for _, rows in TABLES.values() for row in rows}
    assert used == set(VARIANTS)


def test_rows_that_tables_share_are_trained_once(settings: AblationSettings) -> None:
    runs = runs_of((2, 5), (0, 1), settings)
    assert len(runs) == 2 * 9
    assert len({run.folder for run in runs}) == len(runs)
    assert [run.seed for run in runs] == [0] * 9 + [1] * 9


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_differ_in_what_they_name_alone(
    name: str, settings: AblationSettings, body: BodyModel
) -> None:
    variant, run, full = VARIANTS[name], Run(name, 0, settings), Run("both", 0, settings)
    network = dataclasses.asdict(run.network(body))
    usual = dataclasses.asdict(full.network(body))
    differing = {key for key in network if network[key] != usual[key]} - {"spec"}
    assert differing == set(variant.network)
    assert run.network(body).spec.representation == variant.representation
    loss, plain = run.recipe().loss, full.recipe().loss
    changed = {
        f.name for f in dataclasses.fields(LossConfig)
        if getattr(loss, f.name) != getattr(plain, f.name)
    }  # fmt: skip
    assert changed == set(variant.loss) | ({"matching"} if variant.matching else set())
    GLNet(run.network(body))


def test_runs_are_kept_and_not_repeated(
    settings: AblationSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [Run(name, seed, settings) for seed in (0, 1) for name in ("baseline", "encoding")]
    train_all(runs)
    assert capsys.readouterr().out.count("seed") == 4
    found = [run.result for run in runs]
    assert all(r is not None and r["pa_mpjpe_mm"] > 0 for r in found)
    train_all(runs)
    assert capsys.readouterr().out == ""
    rows = {row["variant"]: row for row in rows_of(2, results_in(settings.out))}
    both = [r["pa_mpjpe_mm"] for r in found if r is not None and r["variant"] == "encoding"]
    assert rows["encoding"]["pa_mpjpe_mm_mean"] == pytest.approx(sum(both) / 2)
    assert rows["encoding"]["pa_mpjpe_mm_sd"] == pytest.approx(abs(both[0] - both[1]) / 2**0.5)
    assert rows["matching"]["pa_mpjpe_mm_mean"] is None
    table = markdown(2, list(rows.values()))
    assert "| + local encoding | 2 |" in table
    assert "43.7" in table


def test_frozen_rows_train_their_heads_alone(settings: AblationSettings, body: BodyModel) -> None:
    run = Run("both", 0, dataclasses.replace(settings, frozen=True))
    torch.manual_seed(0)
    initial = dict(GLNet(run.network(body)).named_parameters())
    train_all([run])
    trained = load_state(run.folder / "state.pt")["model"]
    moved = {name for name, value in initial.items() if not torch.equal(trained[name], value)}
    assert any(name.startswith("pixel_head.") for name in moved)
    assert not any(name.startswith("backbone.") for name in moved)


def test_a_run_of_another_budget_is_not_taken_for_this_one(settings: AblationSettings) -> None:
    train_all([Run("both", 0, settings)])
    more = dataclasses.replace(settings, images=12)
    with pytest.raises(ArtifactError, match="another budget"):
        train_all([Run("both", 1, more)])
    assert [result["seed"] for result in results_in(settings.out)] == [0]


def test_the_command_line_prints_the_table(
    settings: AblationSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "train", "ablate", "6", "--scratch", "--seeds", "4", "--images", "8", "--batch-size", "4",
        "--input-size", "64", "--people", "4", "--out", str(settings.out),
        "--data", str(settings.data), "--heldout", str(settings.heldout), "--body", str(BODY),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    command_line.main()
    shown = capsys.readouterr().out
    assert "**Table 6**" in shown
    assert "| class + 2D + depth + rotation | 1 |" in shown
