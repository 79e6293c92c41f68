"""Training of the person detector: one process, one thread, resumable to the bit."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.checkpoint import load_state, only_weights_of, read_tensors, save_state, write_tensors
from train.detector.evaluate import Found, evaluate
from train.detector.loss import detector_loss, targets_of
from train.detector.model import Detector, DetectorConfig
from train.detector.scenes import Scene, Scenes
from train.trainer import append_row, crossed


@dataclass(frozen=True)
class DetectorFit:
    """How the detector is trained.

    Attributes:
        images: scenes in all; the schedule's length. A finished run goes on where it is started
            again with more.
        batch_size: scenes per step.
        learning_rate: peak of AdamW's; falls linearly to zero over the last `cooldown` scenes.
        weight_decay: of AdamW.
        warmup, cooldown: scenes.
        ema: decay per step of the averaged weights, which are evaluated and kept.
        size: side of a scene, px; the network itself takes any.
        bf16: mixed precision.
        seed: of weights and scenes.
        log_every, evaluate_every, checkpoint_every: scenes between two of each.
        evaluate_count: held-out scenes looked at while training.
    """

    images: int = 60_000
    batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 1_000
    cooldown: int = 20_000
    ema: float = 0.995
    size: int = 256
    bf16: bool = True
    seed: int = 0
    log_every: int = 800
    evaluate_every: int = 8_000
    checkpoint_every: int = 1_600
    evaluate_count: int = 200

    def learning_rate_at(self, seen: int) -> float:
        """Learning rate after `seen` scenes."""
        rate = self.learning_rate * min(1.0, (seen + 1) / max(self.warmup, 1))
        return rate * min(1.0, max(self.images - seen, 0) / max(self.cooldown, 1))


class DetectorTrainer:
    """Trains one detector into one run folder.

    Files of a run: `state.pt` (resume), `weights.safetensors` (averaged weights), `log.csv`
    (losses), `metrics.csv` (held-out recall and precision).

    Args:
        config: how to train.
        run: folder of the run; an existing state there is resumed.
        data, heldout: folders of synthetic people, of the two splits.
        network: what to train.
    """

    def __init__(
        self,
        config: DetectorFit,
        run: Path,
        data: Path,
        heldout: Path,
        network: DetectorConfig | None = None,
    ) -> None:
        self.config, self.run = config, run
        torch.manual_seed(config.seed)
        self.model = Detector(network).to(memory_format=torch.channels_last)
        self.average = Detector(network).to(memory_format=torch.channels_last).eval()
        self.average.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.scenes = Scenes(data, "train", config.seed, config.size)
        self.heldout = Scenes(heldout, "heldout", config.seed, config.size)
        self.seen = 0
        run.mkdir(parents=True, exist_ok=True)
        if (run / "state.pt").exists():
            self._resume()

    def fit(self) -> Found | None:
        """Train until `config.images`; the last evaluation, None where nothing was left to do."""
        config, found = self.config, None
        sums: dict[str, float] = defaultdict(float)
        started, logged = time.perf_counter(), self.seen
        while self.seen < config.images:
            for name, value in self.step().items():
                sums[name] += value
            before, self.seen = self.seen, self.seen + config.batch_size
            ended = self.seen >= config.images
            if crossed(before, self.seen, config.log_every) or ended:
                count = (self.seen - logged) / config.batch_size
                rate = (self.seen - logged) / (time.perf_counter() - started)
                means = {name: total / count for name, total in sums.items()}
                row = {"images": self.seen, "lr": config.learning_rate_at(self.seen), **means}
                append_row(self.run / "log.csv", {**row, "img_s": rate})
                sums.clear()
                started, logged = time.perf_counter(), self.seen
            if crossed(before, self.seen, config.evaluate_every) or ended:
                found = evaluate(self.average, self.heldout, range(config.evaluate_count))
                append_row(self.run / "metrics.csv", {"images": self.seen, **found.figures()})
            if crossed(before, self.seen, config.checkpoint_every) or ended:
                self._checkpoint()
        return found

    def step(self) -> dict[str, float]:
        """One optimisation step; returns the loss terms."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.seen)
        first = self.seen
        scenes = [self.scenes.scene(first + i) for i in range(self.config.batch_size)]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            logits, boxes = self.model(as_batch(scenes))
        terms = detector_loss(logits, boxes, targets_of(scenes))
        self.model.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        return {name: value.item() for name, value in terms.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        steps = self.seen // self.config.batch_size
        decay = min(self.config.ema, (1 + steps) / (10 + steps))
        for mine, theirs in zip(
            self.average.state_dict().values(), self.model.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)

    def _checkpoint(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "seen": self.seen,
        }
        save_state(self.run / "state.pt", state)
        info = {"images": self.seen, "seed": self.config.seed, "size": self.config.size}
        save_detector(self.run / "weights.safetensors", self.average, info)

    def _resume(self) -> None:
        state = load_state(self.run / "state.pt")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seen = state["seen"]


def as_batch(scenes: list[Scene]) -> Tensor:
    """[B, 3, R, R] float32 in [0, 1], channels last."""
    pictures = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    batch = pictures.permute(0, 3, 1, 2).float() / 255
    return batch.contiguous(memory_format=torch.channels_last)


def save_detector(path: Path, model: Detector, info: dict[str, Any]) -> None:
    """Write weights with what rebuilds the network; replaced atomically."""
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    config = json.dumps(dataclasses.asdict(model.config))
    write_tensors(path, tensors, {"detector": config, "info": json.dumps(info)})


def load_detector(path: Path) -> tuple[Detector, dict[str, Any]]:
    """Read `save_detector`'s file: the network in evaluation mode, and how it was trained.

    Raises:
        ArtifactError: not such a file, or tensors that do not fit.
    """
    with only_weights_of(path, "detector", "detector"):
        tensors, metadata = read_tensors(path)
        shape = {name: tuple(v) for name, v in json.loads(metadata["detector"]).items()}
        model = Detector(DetectorConfig(**shape))
        model.load_state_dict(tensors)
    return model.eval(), json.loads(metadata.get("info", "{}"))
