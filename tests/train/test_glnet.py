"""The network: its two ways to run agree, gradients reach everything, variants do what they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from glnet_rt.errors import ArtifactError
from train.checkpoint import transfer
from train.model.config import GLNetConfig, preset
from train.model.glnet import BranchFusion, GLNet, normalise_twist


def small(**fields: object) -> GLNetConfig:
    representation = fields.pop("representation", "decomposed")
    fit = {} if fields.get("spreads", True) else {"fit_prior_rad": 0.0}
    config = preset("tiny", input_size=64, representation=representation, **fit)
    return dataclasses.replace(config, **fields)


def stirred(config: GLNetConfig) -> GLNet:
    """A network whose offsets, scores and batch statistics are far from their initial values."""
    torch.manual_seed(3)
    model = GLNet(config)
    head = model.pixel_head
    more = [layer for layer in (head.spread, head.settling and head.settling[-1]) if layer]
    for layer in (head.hop1, head.score, head.residual, *head.hop2, *more):
        torch.nn.init.normal_(layer.weight, std=0.2)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize("class_variant", ["local", "pixel"])
@pytest.mark.parametrize("representation", ["decomposed", "direct"])
@pytest.mark.parametrize(("winners", "spreads"), [(1, False), (9, False), (40, True)])
def test_top1_is_the_dense_prediction_at_the_best_pixels(
    class_variant: str, representation: str, winners: int, spreads: bool
) -> None:
    model = stirred(
        small(
            class_variant=class_variant,
            representation=representation,
            winners=winners,
            spreads=spreads,
            settle_width=0,
        )
    )
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        dense, top = model(image), model.top1(image)
    best = dense.score_logits.flatten(1).topk(winners, 1).indices
    batch = torch.arange(3)[:, None]
    assert torch.equal(top["pixel"], best[:, 0])
    close = {"atol": 2e-5, "rtol": 1e-4}
    if spreads:
        trust = dense.spread[batch, best] ** -2
        of_keypoint = trust[..., :36, None] / trust[..., :36, None].sum(1, keepdim=True)
        told = dense.spread[batch, best, 36:].mean(-1, keepdim=True) ** -2
        whole = told / told.sum(1, keepdim=True)
        assert of_keypoint.std() > 1e-4
    else:
        assert dense.spread is None
        of_keypoint = whole = 1 / winners
    keypoints = (dense.keypoints_uvd[batch, best] * of_keypoint).sum(1)
    torch.testing.assert_close(top["keypoints_uvd"], keypoints, **close)
    rotation = (dense.rotation[batch, best] * whole).sum(1)
    if representation == "decomposed":
        torch.testing.assert_close(top["twist"], normalise_twist(rotation), **close)
    else:
        torch.testing.assert_close(top["rot6d"], rotation.reshape(3, 24, 6), **close)
    assert list(top) == list(model.config.spec.output_shapes)
    for name, shape in model.config.spec.output_shapes.items():
        assert top[name].shape == (3, *shape), name


def test_a_winner_at_the_border_is_read_as_the_dense_network_reads_it() -> None:
    """Hop 1 and the keypoint branch see zeros outside the map, not its nearest cells."""
    model = stirred(small(class_channels=16, winners=1, spreads=False, settle_width=0))
    image = torch.randn(2, 3, 64, 64)
    corners = torch.tensor([0, 15, 240, 255, 7, 128])
    with torch.no_grad():
        dense = model(image)
        for corner in corners:
            top = model.top1(image, corner.expand(2, 1))
            close = {"atol": 2e-5, "rtol": 1e-4}
            torch.testing.assert_close(
                top["keypoints_uvd"], dense.keypoints_uvd[:, corner], **close
            )


@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_winners_settle_alike_in_training_and_at_run_time(representation: str) -> None:
    model = stirred(small(representation=representation, winners=40, settle_width=16))
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        dense, top = model(image), model.top1(image)
        few = model(image, torch.arange(0, 256, 4))
        # A quarter of the pixels has a quarter of the winners: the best 10 of those.
        best = few.score_logits.flatten(1)[:, few.pixels].topk(10, 1).indices
        batch = torch.arange(3)[:, None]
        told = [v[batch, best] for v in (few.keypoints_uvd, few.rotation, few.spread)]
        expected = model.pixel_head.settle(*told)
        torch.nn.init.zeros_(model.pixel_head.settling[-1].weight)
        before = model(image).settled
    assert (dense.settled.rotation - before.rotation).abs().max() > 0.01
    torch.testing.assert_close(dense.settled.keypoints_uvd, before.keypoints_uvd)
    close = {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(top["keypoints_uvd"], dense.settled.keypoints_uvd, **close)
    if representation == "direct":
        settled = dense.settled.rotation.reshape(3, 24, 6)
        torch.testing.assert_close(top["rot6d"], settled, **close)
    torch.testing.assert_close(few.settled.rotation, expected.rotation, **close)


def test_a_kinematic_fit_needs_spreads() -> None:
    told = GLNet(small(representation="direct")).eval().top1(torch.randn(2, 3, 64, 64))
    assert told["spread"].shape == (2, 36)
    assert (told["spread"] > 0).all()
    with pytest.raises(ValueError, match="spreads"):
        GLNet(dataclasses.replace(small(representation="direct"), spreads=False))


def test_top1_reads_the_first_branch_when_nothing_is_fused() -> None:
    model = stirred(small(fused_channels=0, winners=1))
    assert model.fusion is None
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        dense, top = model(image), model.top1(image)
    best = dense.score_logits.flatten(1).argmax(1)
    expected = dense.keypoints_uvd[torch.arange(2), best]
    torch.testing.assert_close(top["keypoints_uvd"], expected, atol=2e-5, rtol=1e-4)


def test_fusion_is_projection_after_raising() -> None:
    """1x1 convolutions and nearest raising commute: the cheap order gives the same numbers."""
    fusion = BranchFusion((4, 8, 16), 5).eval()
    branches = [torch.randn(2, 4 << i, 16 >> i, 16 >> i) for i in range(3)]
    raised = [
        torch.nn.functional.interpolate(b, scale_factor=2**i, mode="nearest")
        for i, b in enumerate(branches)
    ]
    kernel = torch.cat([layer.weight for layer in fusion.project], dim=1)
    plain = torch.nn.functional.conv2d(torch.cat(raised, 1), kernel)
    expected = torch.relu(fusion.bn(plain))
    torch.testing.assert_close(fusion(branches), expected, atol=1e-5, rtol=1e-5)


def test_another_input_size_keeps_the_answers_in_the_crop() -> None:
    source, target = GLNet(small()), GLNet(small(spec=preset("tiny", input_size=128).spec))
    for layer in source.pixel_head.hop2:
        torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(layer.bias, std=0.1)
    transfer(source, target)
    parts, reference = torch.randn(2, 5, 7, 32), torch.randn(2, 5, 32)
    points = torch.rand(2, 5, 7, 2) * 15
    pooled = torch.randn(2, source.backbone.global_channels)
    before = source.pixel_head.predict(parts, reference, points, (16, 16), pooled)
    after = target.pixel_head.predict(parts, reference, 2 * points + 0.5, (32, 32), pooled)
    for name in ("keypoints_uvd", "residual", "spread"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("width", [0, 48])
def test_rotations_read_keypoints_only_when_lifting(width: int) -> None:
    head = stirred(small(lifting_width=width)).pixel_head
    parts, reference = torch.randn(2, 5, 7, 32), torch.randn(2, 5, 32)
    points, pooled = torch.rand(2, 5, 7, 2) * 15, torch.randn(2, 1440)
    with torch.no_grad():
        plain = head.predict(parts, reference, points, (16, 16), pooled)
        moved = head.predict(parts, reference, points + torch.randn(7, 2), (16, 16), pooled)
        other = head.predict(parts, reference, points, (16, 16), pooled + 1)
    assert torch.equal(plain.residual, moved.residual) == (width == 0)
    assert torch.equal(plain.residual, other.residual) == (width == 0)


def test_rotations_teach_the_keypoints_they_are_lifted_from() -> None:
    model = stirred(small(lifting_width=48)).train()
    model(torch.randn(2, 3, 64, 64)).rotation.sum().backward()
    assert all(layer.weight.grad.any() for layer in model.pixel_head.hop2)


def test_transfer_to_another_network_is_refused() -> None:
    with pytest.raises(ArtifactError, match="another network"):
        transfer(GLNet(small()), GLNet(small(part_channels=16)))


def test_pixels_are_a_subset_of_all_pixels() -> None:
    model = stirred(small())
    image = torch.randn(2, 3, 64, 64)
    pixels = torch.tensor([0, 17, 100, 255])
    with torch.no_grad():
        some, every = model(image, pixels), model(image)
    torch.testing.assert_close(some.keypoints_uvd, every.keypoints_uvd[:, pixels])
    torch.testing.assert_close(some.rotation, every.rotation[:, pixels])


@pytest.mark.parametrize("class_variant", ["local", "pixel"])
@pytest.mark.parametrize("representation", ["decomposed", "direct"])
def test_gradient_reaches_every_parameter(class_variant: str, representation: str) -> None:
    model = stirred(small(class_variant=class_variant, representation=representation)).train()
    out = model(torch.randn(4, 3, 64, 64))
    total = out.keypoints_uvd.square().sum() + out.rotation.square().sum()
    total = total + out.base_rotation.square().sum() + out.score_logits.square().sum()
    total = total + out.betas.square().sum() + out.camera_scale.square().sum()
    total = total + out.baseline.rot6d.square().sum() + out.baseline.pelvis_uv.square().sum()
    total = total + out.heatmaps.square().sum() + out.surface.square().sum()
    total = total + out.spread.square().sum() + out.settled.rotation.square().sum()
    total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_keypoint_gradient_moves_the_part_points() -> None:
    model = stirred(small()).train()
    model(torch.randn(2, 3, 64, 64)).keypoints_uvd.sum().backward()
    assert model.pixel_head.hop1.weight.grad.abs().max() > 0


@pytest.mark.parametrize("guided", [True, False])
def test_only_guided_part_points_learn_where_keypoints_lie(guided: bool) -> None:
    """On a map without structure, where moving a point changes nothing that is sampled there."""
    model = stirred(small(guided=guided, local_encoding=True)).train()
    torch.nn.init.zeros_(model.pixel_head.keypoint_branch.weight)
    torch.nn.init.ones_(model.pixel_head.keypoint_branch.bias)
    model(torch.randn(2, 3, 64, 64)).keypoints_uvd[..., :2].sum().backward()
    moved = model.pixel_head.hop1.bias.grad.abs()
    assert (moved.min() > 1.0) if guided else (moved.max() < 1e-3)


@pytest.mark.parametrize(
    "refined",
    [
        (),
        ("rotation",),
        ("rotation", "shape"),
        ("shape", "camera"),
        ("rotation", "shape", "camera"),
    ],
)
def test_pixels_correct_what_they_are_told_to(refined: tuple[str, ...]) -> None:
    model = GLNet(small(refined=refined, winners=9, spreads=False, settle_width=0)).eval()
    layers = (model.pixel_head.residual, model.pixel_head.globals)
    for layer in layers:
        if layer is not None:
            torch.nn.init.normal_(layer.weight, std=0.5)
            torch.nn.init.normal_(layer.bias)
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        dense, top = model(image), model.top1(image)
    best = dense.score_logits.flatten(1).topk(9, 1).indices
    assert ("rotation" in refined) == bool((dense.rotation - dense.base_rotation[:, None]).any())
    if dense.globals is None:
        assert not {"shape", "camera"} & set(refined)
        torch.testing.assert_close(top["betas"], dense.betas)
        return
    mean = dense.globals[torch.arange(3)[:, None], best].mean(1)
    close = {"atol": 2e-5, "rtol": 1e-4}
    torch.testing.assert_close(top["betas"], mean[:, :-1], **close)
    torch.testing.assert_close(top["camera_scale"], mean[:, -1].clamp(min=0.1), **close)
    assert ("shape" in refined) == bool((mean[:, :-1] - dense.betas).abs().max() > 1e-3)
    assert ("camera" in refined) == bool((mean[:, -1] - dense.camera_scale).abs().max() > 1e-3)


def test_a_fresh_network_starts_from_the_mean() -> None:
    torch.manual_seed(3)
    model = GLNet(small()).train()
    with torch.no_grad():
        out = model(torch.randn(2, 3, 64, 64))
    own = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="xy"), -1)
    torch.testing.assert_close(out.part_points, own.expand(2, 7, 16, 16, 2))
    u = (own[..., 0].flatten() + 0.5) / 16 - 0.5
    nose = out.keypoints_uvd[:, :, 29, 0]
    assert (nose - u).abs().max() < 0.1
    assert out.score_logits.sigmoid().mean() == pytest.approx(0.1, abs=0.02)
    assert out.camera_scale.mean() == pytest.approx(0.9, abs=0.25)


def test_without_local_encoding_part_points_stay_on_the_pixel() -> None:
    model = stirred(small(local_encoding=False))
    with torch.no_grad():
        out = model(torch.randn(1, 3, 64, 64))
    assert (out.part_points[0, 0] == out.part_points[0, 6]).all()


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="class_variant"):
        GLNet(small(class_variant="guess"))
    with pytest.raises(ValueError, match="refined"):
        GLNet(small(refined=("rotation", "guess")))
