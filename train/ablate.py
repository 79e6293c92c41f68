"""`python -m train ablate TABLE`: the paper's ablations (Tables 2 to 6) on synthetic people.

Every row is one variant of the network or of its losses, trained with the same budget, the same
people in the same order and the same features to start from, once per seed. Runs are resumable,
and rows that tables share are trained once. The head is the paper's: one winner, no expected
errors, no auxiliary maps, the losses of Eq. 2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.errors import ArtifactError
from train.config import FitConfig
from train.losses import LossConfig
from train.model.config import GLNetConfig, preset
from train.tables import markdown_table
from train.trainer import Trainer

FIGURES = ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "body_2d_percent")
BUDGET_FILE, RESULT_FILE = "budget.json", "result.json"
# Settings that have to be the same for rows to be compared.
SHARED = (
    "images", "batch_size", "learning_rate", "input_size", "people",
    "keypoint_weight", "depth_weight", "posture_weight", "frozen", "subgrid",
)  # fmt: skip
HEADS = ("global_head.", "pixel_head.", "fusion.")
PAPER_HEAD: dict[str, Any] = {
    "winners": 1, "spreads": False, "settle_width": 0, "lifting_width": 0,
    "heatmaps": False, "surface": False, "global_baseline": False,
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What one run differs in from GLNet with direct rotations, all of the paper's parts in place.

    Attributes:
        representation: `direct` or `decomposed`.
        network, loss, matching: fields that differ.
    """

    representation: str = "direct"
    network: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    matching: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether the pose comes from the global feature alone."""
        return bool(self.network.get("global_baseline", False))


@dataclass(frozen=True)
class Row:
    """A variant's line in one table.

    Attributes:
        variant: its name in `VARIANTS`.
        title: as in the paper's table.
        paper: the paper's PA-MPJPE and MPJPE on 3DPW, mm, where it has such a row.
    """

    variant: str
    title: str
    paper: tuple[float | None, float | None] = (None, None)


VARIANTS = {
    "baseline": Variant(network={"global_baseline": True}, loss={"pixel_weight": 0.0}),
    "encoding": Variant(matching={"center": True}),
    "matching": Variant(network={"local_encoding": False}),
    "both": Variant(),
    "decomposed": Variant("decomposed"),
    "unguided": Variant(network={"guided": False}),
    "refine-nothing": Variant(network={"refined": ()}),
    "refine-all": Variant(network={"refined": ("rotation", "shape", "camera")}),
    "refine-shape": Variant(network={"refined": ("rotation", "shape")}),
    "positives-1": Variant(matching={"positives": 1}),
    "positives-10": Variant(matching={"positives": 10}),
    "positives-50": Variant(matching={"positives": 50}),
    "positives-100": Variant(matching={"positives": 100}),
    "cost-depth": Variant(matching={"depth_weight": 70.0}),
    "cost-rotation": Variant(matching={"depth_weight": 70.0, "rotation_weight": 0.1}),
}
# From Table 3 on the paper decomposes rotations; every row of ours but one has direct ones.
TABLES: dict[int, tuple[str, tuple[Row, ...]]] = {
    2: ("what each component gives", (
        Row("baseline", "global feature alone", (49.6, 76.9)),
        Row("encoding", "+ local encoding", (43.7, 74.3)),
        Row("matching", "+ dynamic matching", (43.5, 73.1)),
        Row("both", "+ both", (40.8, 68.7)),
        Row("decomposed", "+ both, decomposed", (39.7, 66.3)),
    )),
    3: ("what guides the local features", (
        Row("matching", "no local features"),
        Row("unguided", "part points left to themselves"),
        Row("both", "part points guided by 2D keypoints", (39.7, 66.3)),
    )),
    4: ("which parameters pixels refine", (
        Row("refine-nothing", "none", (45.5, 73.9)),
        Row("refine-all", "shape + rotation + camera", (42.7, 71.2)),
        Row("refine-shape", "shape + rotation", (40.6, 68.2)),
        Row("both", "rotation", (39.7, 66.3)),
    )),
    5: ("number of positives T", (
        Row("positives-1", "T = 1", (None, 70.5)),
        Row("positives-10", "T = 10", (None, 67.4)),
        Row("both", "T = 20", (None, 66.3)),
        Row("positives-50", "T = 50", (None, 66.5)),
        Row("positives-100", "T = 100", (None, 68.4)),
    )),
    6: ("matching cost", (
        Row("both", "class + 2D", (39.7, 66.3)),
        Row("cost-depth", "class + 2D + depth", (42.3, 70.4)),
        Row("cost-rotation", "class + 2D + depth + rotation", (41.2, 71.3)),
    )),
}  # fmt: skip


@dataclass(frozen=True)
class AblationSettings:
    """What all rows share.

    Attributes:
        data, heldout, body: training shards, held-out shards, body file.
        backbone: weights whose features every run starts from; None starts from nothing.
        out: folder of the runs, one each.
        images: crops each run is trained on.
        batch_size, learning_rate: of AdamW; the rate falls linearly to zero.
        input_size: px.
        people: held-out people each run is judged on.
        keypoint_weight, depth_weight, posture_weight: of the losses; the paper's by default. The
            weights that GLNet's shipped network was trained with are 30, 10 and 40.
        frozen: train the heads alone. Rows then differ in what they read from the same features,
            and no loss can take features from another.
        subgrid: every how many-th pixel, across and down, predicts in a step; of T positives the
            same part is matched, at least one.
    """

    data: Path
    heldout: Path
    body: Path
    backbone: Path | None
    out: Path
    images: int = 20_000
    batch_size: int = 32
    learning_rate: float = 5e-4
    input_size: int = 96
    people: int = 1_000
    keypoint_weight: float = 70.0
    depth_weight: float = 70.0
    posture_weight: float = 0.0
    frozen: bool = False
    subgrid: int = 1

    def budget(self) -> dict[str, Any]:
        """What has to be the same for rows to be compared."""
        digest = None
        if self.backbone is not None:
            digest = hashlib.sha256(self.backbone.read_bytes()).hexdigest()
        return {**{n: getattr(self, n) for n in SHARED}, "backbone_sha256": digest}

    def claim(self) -> None:
        """Note the budget in `out`.

        Raises:
            ArtifactError: the runs there had another one.
        """
        path, budget = self.out / BUDGET_FILE, self.budget()
        if path.exists() and (known := json.loads(path.read_text())) != budget:
            raise ArtifactError(
                f"the runs in {self.out} had another budget",
                got={k: v for k, v in budget.items() if known.get(k) != v},
                expected=known,
                fix="compare rows of one budget: choose another --out, or the same options",
            )
        self.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(budget, indent=1) + "\n")


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    name: str
    seed: int
    settings: AblationSettings

    @property
    def folder(self) -> Path:
        """Where the run and its result lie."""
        return self.settings.out / f"{self.name}-{self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """Its figures, or None while it is not through."""
        path = self.folder / RESULT_FILE
        return json.loads(path.read_text()) if path.exists() else None

    def network(self, body: BodyModel) -> GLNetConfig:
        """The paper's head with this row's changes."""
        variant = VARIANTS[self.name]
        config = preset(
            "tiny",
            input_size=self.settings.input_size,
            representation=variant.representation,
            fit_prior_rad=0.0,
            body_id=body.body_id,
            body_sha256=body.sha256,
        )
        return dataclasses.replace(config, **{**PAPER_HEAD, **variant.network})

    def recipe(self) -> FitConfig:
        """Eq. 2 as it stands, with this row's changes."""
        variant, settings = VARIANTS[self.name], self.settings
        weights = {n: getattr(settings, n) for n in SHARED if n.endswith("_weight")}
        loss = LossConfig(settled_share=0.0, **weights)
        matching = dataclasses.replace(loss.matching, **variant.matching)
        positives = max(1, matching.positives // settings.subgrid**2)
        matching = dataclasses.replace(matching, positives=positives)
        return FitConfig(
            images=settings.images,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup=max(1, min(2_000, settings.images // 10)),
            cooldown=settings.images,
            ema=0.99,
            subgrid=settings.subgrid,
            only=HEADS if settings.frozen else (),
            seed=self.seed,
            evaluate_every=settings.images,
            checkpoint_every=5_000,
            evaluate_count=settings.people,
            loss=dataclasses.replace(loss, matching=matching, **variant.loss),
        )

    def train(self) -> dict[str, Any]:
        """Train, or go on; the result is written once the budget is used up."""
        torch.set_num_threads(1)
        settings = self.settings
        body = BodyModel.load(settings.body)
        trainer = Trainer(
            self.recipe(), self.network(body), self.folder, settings.data, settings.heldout, body,
            backbone=settings.backbone,
        )  # fmt: skip
        summary = (trainer.fit() or trainer.evaluate()).summary()
        prefix = "global_" if VARIANTS[self.name].is_baseline else ""
        result = {
            "variant": self.name,
            "seed": self.seed,
            **{name: summary.get(prefix + name) for name in FIGURES},
            "mean_pose_pa_mpjpe_mm": summary["mean_pose_pa_mpjpe_mm"],
        }
        (self.folder / RESULT_FILE).write_text(json.dumps(result, indent=1) + "\n")
        return result


def runs_of(tables: Sequence[int], seeds: Sequence[int], settings: AblationSettings) -> list[Run]:
    """Every run the tables need, seed by seed, so that a stop leaves whole tables behind."""
    names = list(dict.fromkeys(row.variant for table in tables for row in TABLES[table][1]))
    return [Run(name, seed, settings) for seed in seeds for name in names]


def results_in(out: Path) -> list[dict[str, Any]]:
    """Figures of all runs below a folder that are through, in the order of their seeds."""
    results = [json.loads(path.read_text()) for path in out.glob(f"*/{RESULT_FILE}")]
    return sorted(results, key=lambda result: int(result["seed"]))


def train_all(runs: Sequence[Run], workers: int = 1) -> None:
    """Train what is not through yet, several runs at once, one thread each.

    Raises:
        ArtifactError: the runs' folder holds runs of another budget.
    """
    runs[0].settings.claim()
    waiting = [run for run in runs if run.result is None]
    if workers == 1:
        for run in waiting:
            say(run.train())
        return
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(Run.train, waiting, chunksize=1):
            say(result)


def say(result: Mapping[str, Any]) -> None:
    print(f"{result['variant']} seed {result['seed']}: {result['pa_mpjpe_mm']:.1f} mm", flush=True)


def rows_of(table: int, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per variant: mean and standard deviation over the seeds among the results found."""
    rows = []
    for line in TABLES[table][1]:
        results = [result for result in found if result["variant"] == line.variant]
        row: dict[str, Any] = {
            "variant": line.variant,
            "title": line.title,
            "seeds": [r["seed"] for r in results],
            "paper_3dpw_pa_mpjpe_mm": line.paper[0],
            "paper_3dpw_mpjpe_mm": line.paper[1],
        }
        for figure in FIGURES:
            values = [r[figure] for r in results if r[figure] is not None]
            row[figure] = values
            row[f"{figure}_mean"] = float(np.mean(values)) if values else None
            row[f"{figure}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        rows.append(row)
    return rows


def markdown(table: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table beside the paper's figures; ours in mm, mean ± standard deviation over the seeds."""
    columns = ["", "seeds", "PA-MPJPE", "MPJPE", "PVE", "2D, % of the box",
               "paper, 3DPW: PA-MPJPE", "MPJPE"]  # fmt: skip
    cells = []
    for row in rows:
        paper = [row["paper_3dpw_pa_mpjpe_mm"], row["paper_3dpw_mpjpe_mm"]]
        cells.append([
            row["title"], str(len(row["seeds"])), *(spread_of(row, figure) for figure in FIGURES),
            *("" if value is None else f"{value}" for value in paper),
        ])  # fmt: skip
    return f"**Table {table}**, {TABLES[table][0]}\n\n{markdown_table(columns, cells)}"


def spread_of(row: Mapping[str, Any], figure: str) -> str:
    mean, sd = row[f"{figure}_mean"], row[f"{figure}_sd"]
    if mean is None:
        return ""
    return f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
