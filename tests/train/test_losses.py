"""Losses by hand on small cases, and their masks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from train.data.sample import Batch
from train.losses import (
    SURFACE_SCALE,
    LossConfig,
    Opinions,
    focal_loss,
    gaussian_maps,
    glnet_loss,
    global_errors,
    heatmap_loss,
    opinions,
    posture_loss,
    rotation_error,
    surface_loss,
    tempered,
)
from train.matching import MatchingConfig
from train.model.config import preset
from train.model.glnet import GLNet
from train.model.kinematics import forward_kinematics

REST = torch.randn(24, 3, generator=torch.Generator().manual_seed(9))


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
        has_scale=torch.ones(batch),
        has_rotation=torch.ones(batch, 24),
        has_betas=torch.ones(batch),
        surface=surface_labels(batch, g),
        has_surface=torch.ones(batch),
    )


def surface_labels(batch: int, g: torch.Generator) -> torch.Tensor:
    """Half the pixels show some point of a body, [batch, 5, 16, 16]."""
    mask = (torch.rand(batch, 1, 16, 16, generator=g) < 0.5).float()
    return torch.cat([mask, mask * (torch.rand(batch, 4, 16, 16, generator=g) - 0.5)], 1)


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
    assert rotation_error(other, target, representation).sum(-1).min() > 0.1


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_a_step_downhill_lowers_the_loss(representation: str) -> None:
    torch.manual_seed(0)
    model = GLNet(preset("tiny", input_size=64, representation=representation)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batch, values = labels(), []
    for _ in range(12):
        terms = glnet_loss(LossConfig(), model(batch.image), batch, representation, REST)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.8 * values[0]


def test_without_pixel_weight_only_global_heads_learn() -> None:
    config = dataclasses.replace(preset("tiny", input_size=64, representation="direct"))
    model, batch = GLNet(config).train(), labels()
    terms = glnet_loss(LossConfig(pixel_weight=0.0), model(batch.image), batch, "direct", REST)
    torch.stack(list(terms.values())).sum().backward()
    taught = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"global_head.baseline.weight", "global_head.betas.weight"} <= taught
    assert not any(name.startswith("pixel_head") for name in taught)


def test_corrected_shape_and_camera_are_held_against_the_labels() -> None:
    batch = labels()
    config = preset("tiny", input_size=64, representation="direct")
    config = dataclasses.replace(config, refined=("rotation", "shape", "camera"))
    output = GLNet(config).train()(batch.image)
    positives = torch.tensor([[0, 3]] * 3)
    truth = torch.cat([batch.betas, batch.camera_scale[:, None]], 1)[:, None]
    right = dataclasses.replace(output, globals=truth.expand(-1, 256, -1))
    wrong = dataclasses.replace(output, globals=truth.expand(-1, 256, -1) + 2.0)
    own = global_errors(dataclasses.replace(output, globals=None), batch, positives)
    torch.testing.assert_close(global_errors(right, batch, positives), own)
    off = global_errors(wrong, batch, positives)
    torch.testing.assert_close(off[0] - own[0], torch.full((3,), 40.0))
    torch.testing.assert_close(off[1] - own[1], torch.full((3,), 4.0))


def test_unlabelled_bodies_teach_only_keypoints() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    batch = labels()
    nothing = torch.zeros(3)
    flat = dataclasses.replace(
        batch,
        has_rotation=torch.zeros(3, 24),
        has_betas=nothing,
        has_scale=nothing,
        depth_weight=torch.zeros(3, 36),
    )
    with torch.no_grad():
        out = model(batch.image)
        terms = glnet_loss(LossConfig(), out, flat, "decomposed", REST)
        full = glnet_loss(LossConfig(), out, batch, "decomposed", REST)
    for name in ("rotation", "base", "betas", "camera", "baseline", "depth", "heat_depth"):
        assert terms[name] == 0, name
        assert full[name] > 0, name
    assert terms["uv"] == full["uv"]


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_rotations_that_are_not_told_do_not_count(representation: str) -> None:
    """Hands without a label may be said to stand anyhow, and the others count as before."""
    torch.manual_seed(1)
    model = GLNet(preset("tiny", input_size=64, representation=representation)).train()
    batch = labels()
    hands = torch.ones(3, 24)
    hands[:, 22:] = 0
    told = dataclasses.replace(batch, has_rotation=hands)
    rotmats, twist = batch.rotmats.clone(), batch.twist.clone()
    rotmats[:, 22:], twist[:, 21:] = torch.eye(3), torch.tensor([1.0, 0.0])
    rot6d = rotmats[..., :2].reshape(3, 144)
    other = dataclasses.replace(told, rotmats=rotmats, rot6d=rot6d, twist=twist)
    config = LossConfig(matching=MatchingConfig(rotation_weight=1.0))
    with torch.no_grad():
        out = model(batch.image)
        full, right, same = (
            glnet_loss(config, out, b, representation, REST) for b in (batch, told, other)
        )
        one = rotation_error(
            out.base_rotation,
            batch.twist.flatten(1) if representation == "decomposed" else batch.rot6d,
            representation,
        )
    for name, value in right.items():
        torch.testing.assert_close(value, same[name], msg=name)
    expected = config.rotation_weight * one[:, :-2].sum(1).mean()
    torch.testing.assert_close(right["base"], expected)
    assert right["rotation"] < full["rotation"]
    for name in ("betas", "camera", "depth"):
        torch.testing.assert_close(right[name], full[name], msg=name)


def test_shapes_of_another_model_do_not_count() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    batch = labels()
    told = dataclasses.replace(batch, has_betas=torch.tensor([1.0, 0.0, 1.0]))
    wrong = batch.betas.clone()
    wrong[1] = 99.0
    with torch.no_grad():
        out = model(batch.image)
        right = glnet_loss(LossConfig(), out, told, "decomposed", REST)
        other = dataclasses.replace(told, betas=wrong)
        same = glnet_loss(LossConfig(), out, other, "decomposed", REST)
        full = glnet_loss(LossConfig(), out, batch, "decomposed", REST)
    error = (out.betas - batch.betas).square().sum(1)
    torch.testing.assert_close(same["betas"], 0.1 * (error[0] + error[2]) / 2)
    torch.testing.assert_close(same["betas"], right["betas"])
    torch.testing.assert_close(same["rotation"], full["rotation"])


def test_posture_needs_every_joint_that_bends_a_limb() -> None:
    batch = labels()
    bent = torch.roll(batch.rot6d, 1, 0)
    rest = torch.randn(24, 3, generator=torch.Generator().manual_seed(4))
    whole = posture_of(bent, batch, rest)
    ends = torch.ones(3, 24)
    ends[:, [0, 10, 11, 15, 22, 23]] = 0  # the root, feet, head and hands move no joint
    same = posture_of(bent, dataclasses.replace(batch, has_rotation=ends), rest)
    torch.testing.assert_close(same, whole)
    ends[:, 21] = 0  # a wrist moves its hand
    assert posture_of(bent, dataclasses.replace(batch, has_rotation=ends), rest) == 0


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
        right = glnet_loss(
            LossConfig(), out, dataclasses.replace(batch, **masked), "decomposed", REST
        )
        other = dataclasses.replace(batch, keypoints_uvd=wrong, **masked)
        same = glnet_loss(LossConfig(), out, other, "decomposed", REST)
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


def test_surface_loss_is_lowest_at_the_target() -> None:
    batch = labels()
    mask = batch.surface[:, :1]
    scale = torch.tensor(SURFACE_SCALE)[:, None, None]
    right = torch.cat([20 * (2 * mask - 1), batch.surface[:, 1:] * scale], 1)
    person, points = surface_loss(right, batch)
    assert person < 1e-6
    assert points < 1e-6
    wrong = right + torch.randn(right.shape, generator=torch.Generator().manual_seed(0)) * 30
    assert surface_loss(wrong, batch)[0] > 0.5
    assert surface_loss(wrong, batch)[1] > 10


def test_surface_counts_only_where_the_person_shows_and_where_it_is_known() -> None:
    batch = labels()
    mask = batch.surface[:, :1]
    maps = torch.cat([torch.zeros_like(mask), torch.randn(3, 4, 16, 16)], 1)
    elsewhere = torch.cat([mask * 0, (1 - mask).expand(-1, 4, -1, -1) * 100], 1)
    same = surface_loss(maps + elsewhere, batch)[1]
    torch.testing.assert_close(same, surface_loss(maps, batch)[1])
    unknown = dataclasses.replace(batch, has_surface=torch.tensor([1.0, 0.0, 1.0]))
    changed = maps.clone()
    changed[1] += 5
    for before, after in zip(
        surface_loss(maps, unknown), surface_loss(changed, unknown), strict=True
    ):
        torch.testing.assert_close(before, after)


def posture_of(rot6d: torch.Tensor, batch: Batch, rest: torch.Tensor) -> torch.Tensor:
    """Posture loss of one opinion per image, and of a global estimate that is right."""
    said = Opinions(batch.keypoints_uvd[:, None], rot6d.reshape(3, 1, 144), None, torch.ones(1))
    return posture_loss(said, batch.rot6d[:, None], batch, rest)


def test_posture_is_the_distance_of_joints_whichever_way_the_body_faces() -> None:
    batch = labels()
    rest = torch.randn(24, 3, generator=torch.Generator().manual_seed(4))
    turned = batch.rot6d.reshape(3, 24, 6).clone()
    turned[:, 0] = torch.eye(3)[:, [1, 2]].reshape(6)  # another way to face
    assert posture_of(turned, batch, rest) < 1e-6
    bent = batch.rotmats.clone()
    bent[:, 18] = bent[:, 18] @ torch.diag(torch.tensor([-1.0, -1.0, 1.0]))  # an elbow
    loss = posture_of(bent[..., :2], batch, rest)
    identity = torch.eye(3).expand(3, 1, 3, 3)
    expected = [
        forward_kinematics(torch.cat([identity, r[:, 1:]], 1), rest.expand(3, -1, -1))[1]
        for r in (bent, batch.rotmats)
    ]
    torch.testing.assert_close(loss, (expected[0] - expected[1]).norm(dim=-1).mean())


def test_tempered_error_is_lowest_where_the_spread_tells_it() -> None:
    error = torch.tensor(0.3)
    spreads = torch.linspace(0.05, 1.0, 191)
    values = tempered(error, spreads, 0.1)
    assert spreads[values.argmin()] == pytest.approx(0.3, abs=0.01)
    assert tempered(error, torch.tensor(0.1), 0.1) == pytest.approx(0.3)


def test_what_the_winners_say_together_counts_as_one_more_opinion() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    output = model(labels().image)
    positives = torch.arange(5).expand(3, -1)
    said = opinions(output, positives, 0.5)
    torch.testing.assert_close(said.weight, torch.tensor([0.1] * 5 + [0.5]))
    torch.testing.assert_close(said.rotation[:, -1], output.settled.rotation)
    torch.testing.assert_close(said.keypoints_uvd[:, :5], output.keypoints_uvd[:, :5])
    alone = opinions(output, positives, 0.0)
    torch.testing.assert_close(alone.weight, torch.full((5,), 0.2))
    assert alone.rotation.shape == (3, 5, output.rotation.shape[-1])


def test_doubtful_keypoints_pull_less() -> None:
    model = GLNet(preset("tiny", input_size=64)).train()
    batch = labels()
    output = model(batch.image)
    keypoints = output.keypoints_uvd.detach().requires_grad_()
    spread = output.spread.detach().clone()
    spread[..., :18] *= 3
    spread.requires_grad_()
    told = dataclasses.replace(output, keypoints_uvd=keypoints, spread=spread)
    alone = LossConfig(settled_share=0.0)
    glnet_loss(alone, told, batch, "decomposed", REST)["uv"].backward()
    pull = keypoints.grad[..., :2].abs().sum((0, 1, 3))
    assert pull[:18].mean() == pytest.approx(float(pull[18:].mean()) / 3, rel=0.02)
    assert spread.grad[..., :36].any()
