"""The training loop: resumable to the bit, one process or many."""

from __future__ import annotations

import csv
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from glnet_rt.body_model import BodyModel
from glnet_rt.skeleton import NUM_JOINTS
from train.checkpoint import (
    load_state,
    load_weights,
    save_state,
    save_weights,
    transfer,
    transfer_backbone,
)
from train.config import FitConfig
from train.data.augment import make_crop
from train.data.mixture import Mixture, read_mixture
from train.data.sample import Batch
from train.data.shards import SyntheticShards
from train.evaluate import Report, evaluate
from train.losses import glnet_loss
from train.model.config import GLNetConfig
from train.model.glnet import GLNet
from train.optimizer import make_optimizers


class Order:
    """Which sample comes when: a fresh permutation every epoch, a function of seed and position.

    Shards that were finished meanwhile join at the next epoch, so rendering may go on beside
    training; the number of people each epoch drew from is part of the run's state.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.size = 0
        self._permutation: np.ndarray | None = None

    def take(self, count: int, available: int) -> list[tuple[int, int]]:
        """The next `count` (epoch, index) pairs; `available` people exist by now."""
        taken = []
        while len(taken) < count:
            if self.size == 0 or self.position == self.size:
                self.epoch += self.size > 0
                self.size, self.position, self._permutation = available, 0, None
            if self._permutation is None:
                rng = np.random.default_rng((self.seed, self.epoch))
                self._permutation = rng.permutation(self.size)
            taken.append((self.epoch, int(self._permutation[self.position])))
            self.position += 1
        return taken

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "size": self.size}

    def restore(self, state: dict[str, int]) -> None:
        self.epoch, self.position, self.size = state["epoch"], state["position"], state["size"]
        self._permutation = None


class Trainer:
    """Trains one network into one run folder.

    Files of a run: `state.pt` (resume), `weights.safetensors` (averaged weights, what is shipped),
    `log.csv` (losses), `metrics.csv` (held-out errors; its images count those of the initial
    weights too).

    Args:
        config: how to train.
        network: what to train.
        run: folder of the run; an existing state there is resumed.
        data: folder of training shards, or the .json file of a mixture (`train.data.mixture`).
        heldout: folder of held-out shards.
        body: the body the labels speak of.
        start: weights to start from, of the same network at any input size.
        backbone: weights whose features alone are started from; the heads begin anew.
    """

    def __init__(
        self,
        config: FitConfig,
        network: GLNetConfig,
        run: Path,
        data: Path,
        heldout: Path,
        body: BodyModel,
        start: Path | None = None,
        backbone: Path | None = None,
    ) -> None:
        self.config, self.run, self.data, self.body = config, run, data, body
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        torch.manual_seed(config.seed)
        self.model = GLNet(network)
        self.images_before = 0
        if start is not None:
            source, info = load_weights(start)
            transfer(source, self.model)
            self.images_before = int(info.get("images", 0))
        if backbone is not None:
            transfer_backbone(load_weights(backbone)[0], self.model)
        self.model = self.model.to(self.device, memory_format=torch.channels_last)
        self.average = GLNet(network).to(self.device, memory_format=torch.channels_last)
        self.average.load_state_dict(self.model.state_dict())
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not config.only or name.startswith(tuple(config.only)))
        if config.compile:
            self.model.compile()
        self.wrapped = (
            DistributedDataParallel(self.model, gradient_as_bucket_view=True)
            if self.world > 1
            else self.model
        )
        self.optimizers = make_optimizers(
            self.model, config.learning_rate, config.weight_decay, config.muon
        )
        self.people = self.open_people()
        if config.epochs:
            self.config = replace(config, images=round(config.epochs * len(self.people)))
        self.heldout = SyntheticShards(heldout, body.sha256, network.spec.box_scale)
        rest = body.rest_skeleton(np.zeros((1, network.spec.num_betas), np.float32))
        self.rest_joints = torch.from_numpy(rest[0, :NUM_JOINTS]).float().to(self.device)
        self.order = Order(config.seed)
        self.seen = 0
        self.steps = 0
        run.mkdir(parents=True, exist_ok=True)
        if (run / "state.pt").exists():
            self.resume()

    def fit(self) -> Report | None:
        """Train until `config.images`, logging, evaluating and checkpointing on the way.

        Returns:
            the last evaluation: none on other ranks than 0, nor where nothing was left to train.
        """
        config, report = self.config, None
        sums: dict[str, float] = defaultdict(float)
        started, logged = time.perf_counter(), self.seen
        per_step = config.batch_size * self.world
        while self.seen < config.images:
            losses = self.step()
            before, self.seen = self.seen, self.seen + per_step
            for name, value in losses.items():
                sums[name] += value
            if crossed(before, self.seen, config.log_every):
                count = (self.seen - logged) / per_step
                rate = (self.seen - logged) / (time.perf_counter() - started)
                self.log({name: value / count for name, value in sums.items()}, rate)
                sums.clear()
                started, logged = time.perf_counter(), self.seen
            if crossed(before, self.seen, config.evaluate_every) or self.seen >= config.images:
                report = self.evaluate() if self.rank == 0 else None
            if crossed(before, self.seen, config.checkpoint_every) or self.seen >= config.images:
                self.checkpoint()
        return report

    def step(self) -> dict[str, float]:
        """One optimisation step; returns the weighted loss terms."""
        self.model.train()
        if self.config.freeze_norms:
            freeze_norms(self.model)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate_at(self.seen)
        batch = self.next_batch().to(self.device)
        pixels = self.subgrid(batch.image.shape[-1] // 4).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            output = self.wrapped(batch.image.contiguous(memory_format=torch.channels_last), pixels)
        representation = self.model.config.spec.representation
        terms = glnet_loss(self.config.loss, output, batch, representation, self.rest_joints)
        total = torch.stack(list(terms.values())).sum()
        self.model.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.steps += 1
        self.update_average()
        return {"total": total.item(), **{k: v.item() for k, v in terms.items()}}

    def next_batch(self) -> Batch:
        """This process's share of the next crops."""
        size = self.config.batch_size
        everyone = self.order.take(size * self.world, self.available())
        mine = everyone[self.rank * size : (self.rank + 1) * size]
        spec, augment = self.model.config.spec, self.config.augment
        return Batch.stack(
            [
                make_crop(
                    self.people.pick(epoch, index),
                    spec,
                    augment,
                    np.random.default_rng((self.config.seed, epoch, index)),
                )
                for epoch, index in mine
            ]
        )

    def available(self) -> int:
        """People there are by now; looked up only when an epoch begins, and agreed on by all."""
        if self.order.position < self.order.size - self.config.batch_size * self.world:
            return self.order.size
        if self.data.is_dir():  # of synthetic shards there may be more than before
            self.people = self.open_people()
        count = torch.tensor(len(self.people))
        if self.world > 1:
            dist.all_reduce(count, dist.ReduceOp.MIN)
        return int(count)

    def open_people(self) -> SyntheticShards | Mixture:
        """Whom to train on."""
        scale = self.model.config.spec.box_scale
        if self.data.suffix == ".json":
            return read_mixture(self.data, self.body, scale, self.config.seed)
        return SyntheticShards(self.data, self.body.sha256, scale)

    def subgrid(self, side: int) -> Tensor:
        """Row-major indices of every `subgrid`-th pixel, phase drawn per step."""
        stride = self.config.subgrid
        rng = np.random.default_rng((self.config.seed, self.steps, 7))
        dy, dx = rng.integers(0, stride, 2)
        grid = torch.arange(side * side).reshape(side, side)
        return grid[dy::stride, dx::stride].reshape(-1)

    @torch.no_grad()
    def update_average(self) -> None:
        """Exponential moving average of the weights and of the batch norms' statistics.

        The statistics of the last few batches alone would neither be those of the averaged weights
        nor steady: 1 % more MPJPE.
        """
        decay = min(self.config.ema, (1 + self.steps) / (10 + self.steps))
        averaged, current = list(self.average.parameters()), list(self.model.parameters())
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def log(self, values: dict[str, float], images_per_second: float) -> None:
        if self.rank == 0:
            rate = {"lr": self.config.learning_rate_at(self.seen), "img_s": images_per_second}
            append_row(self.run / "log.csv", {"images": self.seen, **rate, **values})

    def evaluate(self) -> Report:
        """Held-out errors of the averaged weights, also written to `metrics.csv`."""
        count = min(self.config.evaluate_count, len(self.heldout))
        report = evaluate(self.average, self.heldout, self.body, range(count))
        images = self.images_before + self.seen
        append_row(self.run / "metrics.csv", {"images": images, **report.summary()})
        return report

    def checkpoint(self) -> None:
        """Write the run's state and its weights; rank 0 writes for all."""
        if self.rank == 0:
            state = {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "order": self.order.state(),
                "images_before": self.images_before,
                "seen": self.seen,
                "steps": self.steps,
            }
            save_state(self.run / "state.pt", state)
            save_weights(self.run / "weights.safetensors", self.average, self.info())
        if self.world > 1:
            dist.barrier()

    def resume(self) -> None:
        """Continue from `state.pt`."""
        state = load_state(self.run / "state.pt")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.order.restore(state["order"])
        self.seen, self.steps = state["seen"], state["steps"]
        self.images_before = state["images_before"]

    def info(self) -> dict[str, Any]:
        """How these weights came about, for the artifact's manifest."""
        return {
            "images": self.images_before + self.seen,
            "people": len(self.people),
            "data": self.people.description,
            "seed": self.config.seed,
        }


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms use the statistics they have, until the next `model.train()`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file, with a header when it is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
