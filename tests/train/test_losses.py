"""Losses by hand on small cases, and their masks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from train.data.sample import Batch
from train.losses import (
    LossConfig,
    focal_loss,
    gaussian_maps,
    glnet_loss,
    heatmap_loss,
    rotation_error,
)
from train.model.glnet import GLNet, preset


def labels(batch: int = 3, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    ones = torch.ones(batch, 36)
    rotmats = torch.linalg.qr(torch.randn(batch, 24, 3, 3, generator=g))[0]
    rotmats = rotmats * torch.linalg.det(rotmats)[..., None, None]
    twist = torch.nn.functional.normalize(torch.randn(batch, 23, 2, generator=g), dim=-1)
    return Batch(
        image=torch.randn(batch, 3, 64, 64, generator=g),
        keypoints_uvd=torch.rand(batch, 36, 3, generator=g) * 0.8 - 0.4,
        uv_weight=ones,
        depth_weight=ones,
        seen=ones,
        inside=ones,
        xyz=torch.randn(batch, 36, 3, generator=g),
        rotmats=rotmats,
        rot6d=rotmats[..., :2].reshape(batch, 144),
        twist=twist,
        betas=torch.randn(batch, 10, generator=g),
        camera_scale=torch.rand(batch, generator=g) + 0.5,
        has_smpl=torch.ones(batch),
    )


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    p = logits.sigmoid()[0]
    expected = -0.25 * (1 - p[0]) ** 2 * p[0].log()
    expected = expected - 0.75 * p[1] ** 2 * (1 - p[1]).log() - 0.75 * p[2] ** 2 * (1 - p[2]).log()
    actual = focal_loss(logits, torch.tensor([[0]]), alpha=0.25, gamma=2.0)
    torch.testing.assert_close(actual, expected)


def test_focal_loss_divides_by_the_positives() -> None:
    logits = torch.randn(2, 50)
    one = focal_loss(logits, torch.tensor([[0, 1], [2, 3]]), 0.25, 2.0)
    doubled = torch.cat([logits, logits])
    again = focal_loss(doubled, torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]]), 0.25, 2.0)
    torch.testing.assert_close(one, again)


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_rotation_error_is_zero_at_the_target_only(representation: str) -> None:
    batch = labels()
    target = batch.twist.flatten(1) if representation == "decomposed" else batch.rot6d
    assert rotation_error(target, target, representation).abs().max() < 1e-9
    other = torch.roll(target, 1, 0)
    assert rotation_error(other, target, representation).min() > 0.1


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_a_step_downhill_lowers_the_loss(representation: str) -> None:
    torch.manual_seed(0)
    model = GLNet(preset("tiny", input_size=64, representation=representation)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batch, values = labels(), []
    for _ in range(12):
        terms = glnet_loss(LossConfig(), model(batch.image), batch, representation)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.8 * values[0]


def test_unlabelled_bodies_teach_only_keypoints() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    batch = labels()
    nothing = torch.zeros(3)
    flat = dataclasses.replace(batch, has_smpl=nothing, depth_weight=torch.zeros(3, 36))
    with torch.no_grad():
        out = model(batch.image)
        terms = glnet_loss(LossConfig(), out, flat, "decomposed")
        full = glnet_loss(LossConfig(), out, batch, "decomposed")
    for name in ("rotation", "base", "betas", "camera", "baseline", "depth", "heat_depth"):
        assert terms[name] == 0, name
        assert full[name] > 0, name
    assert terms["uv"] == full["uv"]


def test_unlabelled_keypoints_do_not_count() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    batch = labels()
    weight = torch.ones(3, 36)
    weight[:, 5] = 0
    wrong = batch.keypoints_uvd.clone()
    wrong[:, 5] = 77.0
    masked = {"uv_weight": weight, "depth_weight": weight, "seen": weight, "inside": weight}
    with torch.no_grad():
        out = model(batch.image)
        right = glnet_loss(LossConfig(), out, dataclasses.replace(batch, **masked), "decomposed")
        other = dataclasses.replace(batch, keypoints_uvd=wrong, **masked)
        same = glnet_loss(LossConfig(), out, other, "decomposed")
    for name, value in right.items():
        torch.testing.assert_close(value, same[name], msg=name)


def test_gaussian_peaks_at_the_keypoint() -> None:
    uv = torch.tensor([[[0.0, 0.0], [-0.5 + 2.5 / 16, -0.5 + 5.5 / 16]]])
    maps = gaussian_maps(uv, 16, 16, 1.5).reshape(2, 16, 16)
    assert maps[1].argmax() == 5 * 16 + 2
    assert maps[0, 7, 7] == maps[0, 8, 8]
    assert maps[1, 5, 2] == 1.0


def test_heatmap_loss_is_lowest_at_the_target() -> None:
    batch = labels()
    target = gaussian_maps(batch.keypoints_uvd[..., :2], 16, 16, 1.5).reshape(3, 36, 16, 16)
    right = torch.cat([(target + 1e-9).log(), batch.keypoints_uvd[..., 2, None, None].expand(
        3, 36, 16, 16) * 16], 1)  # fmt: skip
    heat, depth = heatmap_loss(right, batch)
    assert depth < 1e-5
    noisy = right + torch.randn(right.shape, generator=torch.Generator().manual_seed(0))
    assert heat < heatmap_loss(noisy, batch)[0]
    assert math.isfinite(float(heat))
