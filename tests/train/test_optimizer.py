"""Muon: its steps are orthogonal, and it learns."""

from __future__ import annotations

import pytest
import torch

from train.model.config import preset
from train.model.glnet import GLNet
from train.optimizer import UPDATE_RMS, Muon, make_optimizers, orthogonalise, share_out


@pytest.mark.parametrize("shape", [(3, 32, 288), (2, 64, 16), (1, 24, 24)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices).float())
    assert values.max() < 1.3
    assert values.median() > 0.65


def test_direction_is_the_gradients_own() -> None:
    gradient = torch.randn(1, 16, 40, generator=torch.Generator().manual_seed(1))
    u, _, vt = torch.linalg.svd(gradient[0], full_matrices=False)
    result = orthogonalise(gradient)[0].float()
    cosine = (result * (u @ vt)).sum() / (result.norm() * (u @ vt).norm())
    assert cosine > 0.97


def test_a_step_has_the_promised_size() -> None:
    kernel = torch.nn.Parameter(torch.zeros(32, 16, 3, 3))
    kernel.grad = torch.randn(32, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    Muon([kernel], lr=0.01).step()
    rms = kernel.detach().square().mean().sqrt()
    assert rms == pytest.approx(0.01 * UPDATE_RMS, rel=0.3)


def test_muon_solves_a_linear_problem() -> None:
    g = torch.Generator().manual_seed(3)
    target = torch.randn(8, 20, generator=g)
    kernel = torch.nn.Parameter(torch.zeros(8, 20))
    optimizer = Muon([kernel], lr=0.03)
    for _ in range(300):
        x = torch.randn(20, 64, generator=g)
        loss = ((kernel - target) @ x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * (target @ x).square().mean()


@pytest.mark.parametrize("muon", [True, False])
def test_every_parameter_has_one_optimizer(muon: bool) -> None:
    model = GLNet(preset("tiny", input_size=64))
    optimizers = make_optimizers(model, 1e-3, 1e-2, muon)
    held = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert len(optimizers) == 1 + muon


def test_work_is_shared_out_evenly() -> None:
    costs = [9, 1, 4, 4, 1, 1]
    owners = share_out(costs, 2)
    loads = [sum(c for c, o in zip(costs, owners, strict=True) if o == w) for w in (0, 1)]
    assert loads == [10, 10]
    assert share_out(costs, 1) == [0] * 6
