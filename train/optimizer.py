"""Optimisers: Muon for kernels, AdamW for everything else.

Muon (Jordan et al., 2024) replaces a kernel's momentum by the nearest semi-orthogonal matrix, so
that every direction of a layer learns at one speed. torch's own takes two-dimensional parameters
only; a convolution's is four-dimensional and is read here as [out, in * kh * kw].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients: singular values end between about 0.7 and 1.2 in five steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
UPDATE_RMS = 0.4  # of a step over the learning rate; AdamW's lies between 0.2 and 0.4


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; steps are scaled to the size AdamW's would have.

    Args:
        parameters: tensors of two or more dimensions.
        lr: learning rate, as AdamW's.
        momentum: of the running gradient, Nesterov.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One update. `closure` is not supported and must be None."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            # Kernels of one shape are orthogonalised together.
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.flatten(1).shape].append(parameter)
            for shape, parameters in by_shape.items():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                updates = orthogonalise(updates) * (UPDATE_RMS * max(shape) ** 0.5)
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"])

    def _momentum(self, parameter: Tensor, beta: float) -> Tensor:
        """The Nesterov gradient of one kernel, [rows, columns]."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        running = state["momentum"].lerp_(gradient, 1 - beta)
        return gradient.lerp(running, beta).flatten(1)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices [N, r, c] -> the nearest semi-orthogonal ones, roughly, float32."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def make_optimizers(
    model: nn.Module, learning_rate: float, weight_decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for hidden kernels beside it. Only kernels are decayed.

    The first convolution and the layers that answer (offsets, scores, rotations, betas) stay with
    AdamW: their rows are not interchangeable.
    """
    answers = ("hop1", "hop2", "residual", "score.", "global_head", "heatmap_head")
    answers += ("backbone.conv1",)
    kernels, answering, others = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim <= 1:
            others.append(parameter)
        elif muon and not any(part in name for part in answers):
            kernels.append(parameter)
        else:
            answering.append(parameter)
    groups = [
        {"params": answering, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate)]
    if kernels:
        optimizers.append(Muon(kernels, lr=learning_rate, weight_decay=weight_decay))
    return optimizers
