"""HRNet: sizes and names of the official release, and what flows through it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from train.model.hrnet import HRNET_PRESETS, HRNet


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "official"), [("w32", 28_536_113), ("w48", 63_595_745)])
def test_pose_network_has_the_official_number_of_parameters(name: str, official: int) -> None:
    config = dataclasses.replace(HRNET_PRESETS[name], classification_neck=False)
    final_layer = 17 * (config.width + 1)
    assert parameters(HRNet(config, multi_scale_output=False)) + final_layer == official


def test_classification_network_has_the_official_number_of_parameters() -> None:
    classifier = 2048 * 1000 + 1000
    assert parameters(HRNet(HRNET_PRESETS["w32"])) + classifier == 41_232_680


def test_parameter_names_are_the_official_ones() -> None:
    names = set(HRNet(HRNET_PRESETS["w32"]).state_dict())
    expected = {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.downsample.0.weight",
        "transition1.0.0.weight",
        "transition1.1.0.0.weight",
        "transition2.2.0.0.weight",
        "stage2.0.branches.0.0.conv1.weight",
        "stage2.0.fuse_layers.0.1.0.weight",
        "stage2.0.fuse_layers.1.0.0.0.weight",
        "stage3.3.fuse_layers.2.0.0.0.weight",
        "stage3.3.fuse_layers.2.0.1.0.weight",
        "stage4.2.branches.3.3.bn2.bias",
        "incre_modules.0.0.downsample.0.weight",
        "downsamp_modules.2.0.bias",
        "final_layer.0.bias",
    }
    assert expected <= names


@pytest.mark.parametrize("name", ["tiny", "w32"])
def test_four_scales_and_a_global_feature(name: str) -> None:
    config = HRNET_PRESETS[name]
    net = HRNet(config).eval()
    with torch.no_grad():
        features = net(torch.randn(2, 3, 64, 96))
        pooled = net.pool(features)
    assert [tuple(f.shape) for f in features] == [
        (2, w, 16 >> i, 24 >> i) for i, w in enumerate(config.widths)
    ]
    assert pooled.shape == (2, net.global_channels)


def test_moments_say_where_a_channel_fires() -> None:
    net = HRNet(HRNET_PRESETS["tiny"])
    features = [torch.zeros(1, w, 16 >> i, 16 >> i) for i, w in enumerate(net.config.widths)]
    features[0][0, 5, 0, -1] = 256.0  # top right
    features[2][0, 7, -1, 0] = 16.0  # bottom left
    mean, x, y = net.pool(features)[0].chunk(3)
    places = [5, sum(net.config.widths[:2]) + 7]
    assert mean[places].tolist() == [1, 1]
    assert x[places].tolist() == [2, -2]
    assert y[places].tolist() == [-2, 2]
    assert mean.count_nonzero() == x.count_nonzero() == y.count_nonzero() == 2
