"""Training options: one frozen dataclass, working defaults, every field with its trade-off."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from train.data.augment import AugmentConfig
from train.losses import LossConfig

SCHEDULES = ("cosine", "step", "hold")


@dataclass(frozen=True)
class FitConfig:
    """How `python -m train fit` trains.

    Attributes:
        images: crops to train on in all; the schedule's length.
        epochs: instead of `images`, how often everybody is seen.
        batch_size: crops per process and step.
        learning_rate: peak; the paper's 2.5e-4 is for Adam, batch 128 and pretrained features.
        weight_decay: of AdamW, on convolution and linear weights only.
        muon: Muon for hidden kernels, AdamW for the rest. Where gradients are mostly noise, as in
            small batches of hard pictures, AdamW for all came lower (docs/training.md).
        schedule: `cosine`; `step` (a tenth at 4/7 and 6/7 of the images, as the paper's 40 and 60
            of 70 epochs); `hold` (constant, then linear to zero over `cooldown` images, so that a
            run can be prolonged by resuming with more images).
        warmup: images over which the rate rises from zero.
        cooldown: see `hold`.
        ema: decay per step of the averaged weights, which are what is evaluated and shipped.
        clip: largest gradient norm.
        subgrid: predict from every `subgrid`-th pixel, at a random phase each step. 2 keeps a
            quarter of the dense cost and still reaches every pixel.
        compile: let torch.compile fuse the network: two minutes at the start, a fifth less a step.
        freeze_norms: batch norms keep the statistics of the initial weights. Less noise and a tenth
            less a step, for late phases at a low rate.
        only: beginnings of the names of the parameters that are trained; all of them if empty. For
            last touches to a head: with the backbone kept, batches can be large and steps are fast.
        bf16: mixed precision; weights, losses and coordinates stay float32.
        seed: of weights, order and augmentation.
        log_every, evaluate_every, checkpoint_every: images between two of each.
        evaluate_count: held-out people looked at while training.
    """

    images: int = 300_000
    epochs: float = 0.0
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    muon: bool = False
    schedule: str = "hold"
    warmup: int = 5_000
    cooldown: int = 60_000
    ema: float = 0.998
    clip: float = 5.0
    subgrid: int = 2
    compile: bool = False
    freeze_norms: bool = False
    only: tuple[str, ...] = ()
    bf16: bool = True
    seed: int = 0
    log_every: int = 3_200
    evaluate_every: int = 20_000
    checkpoint_every: int = 10_000
    evaluate_count: int = 256
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def learning_rate_at(self, seen: int) -> float:
        """Learning rate after `seen` images."""
        rate = self.learning_rate * min(1.0, (seen + 1) / self.warmup)
        progress = min(1.0, seen / self.images)
        if self.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "step":
            return rate * 0.1 ** ((progress >= 4 / 7) + (progress >= 6 / 7))
        left = (self.images - seen) / max(self.cooldown, 1)
        return rate * min(1.0, max(left, 0.0))


# §4.1: Adam, 128 crops a step on four GPUs, 70 epochs, a tenth of the rate after 40 and after 60;
# the losses of Eq. 2 alone. Defaults of `python -m train fit --recipe paper`.
PAPER_RECIPE: dict[str, object] = {
    "preset": "w32",
    "representation": "decomposed",
    "class_variant": "local",
    "epochs": 70,
    "batch_size": 32,
    "learning_rate": 2.5e-4,
    "weight_decay": 0.0,
    "warmup": 1,
    "schedule": "step",
    "subgrid": 1,
    "augment": AugmentConfig(scale=(0.7, 1.3), outside_weight=0.0),
    "posture_weight": 0.0,
    "settled_share": 0.0,
    "auxiliary": False,
}
