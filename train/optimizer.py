"""Optimisers: Muon for kernels, AdamW for everything else.

Muon (Jordan et al., 2024) replaces a kernel's momentum by the nearest semi-orthogonal matrix, so
that every direction of a layer learns at one speed. torch's own takes two-dimensional parameters
only; a convolution's is four-dimensional and is read here as [out, in * kh * kw].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
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
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [self._momentum(p, group["momentum"]) for p in parameters]
            updates = orthogonalise_shared(gradients)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for parameter, update in zip(parameters, updates, strict=True):
                scale = UPDATE_RMS * max(update.shape) ** 0.5
                update = update.reshape(parameter.shape).float()
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor, beta: float) -> Tensor:
        """The Nesterov gradient of one kernel, [rows, columns]."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        running = state["momentum"].lerp_(gradient, 1 - beta)
        return gradient.lerp(running, beta).flatten(1)


def orthogonalise_shared(matrices: list[Tensor]) -> list[Tensor]:
    """Orthogonalise matrices [r, c], each in one of the processes, which then tell each other.

    All processes must hold the same matrices in the same order; all get every result, bfloat16.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if world > 1 else 0
    owners = share_out([m.numel() * min(m.shape) for m in matrices], world)
    # Matrices of one shape go together, which also fixes the order of the exchange.
    order = sorted(range(len(matrices)), key=lambda i: (owners[i], tuple(matrices[i].shape), i))
    mine = [i for i in order if owners[i] == rank]
    done = {}
    for shape, indices in itertools.groupby(mine, key=lambda i: tuple(matrices[i].shape)):
        kept = list(indices)
        stacked = torch.stack([matrices[i] for i in kept])
        assert stacked.shape[1:] == shape
        done.update(zip(kept, orthogonalise(stacked), strict=True))
    if world == 1:
        return [done[i] for i in range(len(matrices))]
    counts = [sum(matrices[i].numel() for i in order if owners[i] == r) for r in range(world)]
    gathered = [matrices[0].new_empty(max(counts), dtype=torch.bfloat16) for _ in range(world)]
    flat = torch.cat([done[i].reshape(-1) for i in mine])
    flat = torch.cat([flat, flat.new_zeros(max(counts) - len(flat))])
    dist.all_gather(gathered, flat)
    results = list(matrices)
    for owner, buffer in enumerate(gathered):
        theirs = [i for i in order if owners[i] == owner]
        pieces = buffer[: counts[owner]].split([matrices[i].numel() for i in theirs])
        for i, piece in zip(theirs, pieces, strict=True):
            results[i] = piece.reshape(matrices[i].shape)
    return results


def share_out(costs: list[int], workers: int) -> list[int]:
    """Which worker does each task: the dearest first, always to the one with least to do."""
    loads = [0] * workers
    owners = [0] * len(costs)
    for task in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        owners[task] = loads.index(min(loads))
        loads[owners[task]] += costs[task]
    return owners


def orthogonalise(matrices: Tensor) -> Tensor:
    """Matrices [N, r, c] -> the nearest semi-orthogonal ones, roughly, bfloat16."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def make_optimizers(
    model: nn.Module, learning_rate: float, weight_decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for hidden kernels beside it. Only kernels are decayed.

    The first convolution and the layers that answer (offsets, scores, rotations, betas) stay with
    AdamW: their rows are not interchangeable.
    """
    answers = ("hop1", "hop2", "residual", "score.", "global_head", "heatmap_head")
    answers += ("surface_head", "spread", "settling.2")
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
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    ]
    if kernels:
        optimizers.append(Muon(kernels, lr=learning_rate, weight_decay=weight_decay))
    return optimizers
