"""HRNet (Sun et al., CVPR 2019): high-resolution features kept all the way, fused across scales.

Module and parameter names are those of the official release, so that its published checkpoints load
without renaming. `HRNET_PRESETS` adds `tiny`, the same code narrower and shallower, for CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HRNetConfig:
    """Shape of the backbone.

    Attributes:
        width: channels of the highest-resolution branch; each lower branch doubles them.
        stem: channels of the two stride-2 convolutions and of layer1's bottlenecks.
        layer1_blocks: bottleneck blocks before the first transition.
        modules: fusion modules in stages 2, 3 and 4.
        blocks: residual blocks per branch and module.
        classification_neck: the official classification head up to its 2048 pooled features (the
            paper's global features); without it the pooled branches are concatenated.
        moments: beside its mean, pool every channel weighted by x and by y: where it fires, which
            a narrow backbone has no channels to spare for. Not with the classification head.
    """

    width: int = 32
    stem: int = 64
    layer1_blocks: int = 4
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    classification_neck: bool = True
    moments: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four branches of stage 4."""
        return tuple(self.width * 2**i for i in range(4))


HRNET_PRESETS = {
    "w32": HRNetConfig(width=32),
    "w48": HRNetConfig(width=48),
    "tiny": HRNetConfig(
        width=32,
        stem=16,
        layer1_blocks=1,
        modules=(1, 2, 1),
        blocks=2,
        classification_neck=False,
        moments=True,
    ),
}


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + residual)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Whose scale is that of what the block adds."""
        return self.bn2


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; four times wider outside than inside."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + residual)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Whose scale is that of what the block adds."""
        return self.bn3


def make_layer(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, planes: int, blocks: int
) -> nn.Sequential:
    """A run of residual blocks; the first widens its shortcut where the channels differ."""
    out_channels = planes * block.expansion
    downsample = None
    if in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
    layers = [block(in_channels, planes, downsample)]
    layers += [block(out_channels, planes) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


class HighResolutionModule(nn.Module):
    """Parallel branches of residual blocks, then every branch receives all others."""

    def __init__(self, channels: Sequence[int], blocks: int, multi_scale_output: bool = True):
        super().__init__()
        self.branches = nn.ModuleList(make_layer(BasicBlock, c, c, blocks) for c in channels)
        outputs = len(channels) if multi_scale_output else 1
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(fuse_layer(channels, i, j) for j in range(len(channels)))
            for i in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(features) for branch, features in zip(self.branches, x, strict=True)]
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            terms = [x[j] if j == i else layer(x[j]) for j, layer in enumerate(layers)]
            fused.append(self.relu(sum_terms(terms)))
        return fused


def sum_terms(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def fuse_layer(channels: Sequence[int], i: int, j: int) -> nn.Module | None:
    """What brings branch j to the resolution and width of branch i."""
    if j == i:
        return None
    if j > i:
        return nn.Sequential(
            nn.Conv2d(channels[j], channels[i], 1, bias=False),
            nn.BatchNorm2d(channels[i]),
            nn.Upsample(scale_factor=2 ** (j - i), mode="nearest"),
        )
    steps: list[nn.Module] = []
    for k in range(i - j):
        last = k == i - j - 1
        out_channels = channels[i] if last else channels[j]
        step = [conv3x3(channels[j], out_channels, stride=2), nn.BatchNorm2d(out_channels)]
        steps.append(nn.Sequential(*step) if last else nn.Sequential(*step, nn.ReLU(inplace=True)))
    return nn.Sequential(*steps)


def make_transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """Adapts the widths of kept branches and opens new, lower ones."""
    layers: list[nn.Module | None] = []
    for i, out_channels in enumerate(after):
        if i < len(before):
            same = before[i] == out_channels
            layers.append(None if same else conv_bn_relu(before[i], out_channels, stride=1))
            continue
        steps = []
        for j in range(i + 1 - len(before)):
            last = j == i - len(before)
            steps.append(conv_bn_relu(before[-1], out_channels if last else before[-1], stride=2))
        layers.append(nn.Sequential(*steps))
    return nn.ModuleList(layers)


def conv_bn_relu(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(in_channels, out_channels, stride),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class HRNet(nn.Module):
    """Image [B, 3, S, S] -> four feature maps, [B, width * 2^i, S / 2^(i+2), S / 2^(i+2)].

    Args:
        config: see `HRNetConfig`.
        multi_scale_output: keep all four outputs of the last module. The official pose network
            keeps only the first, the classification network all.
    """

    def __init__(self, config: HRNetConfig, multi_scale_output: bool = True) -> None:
        super().__init__()
        stem, widths = config.stem, config.widths
        self.config = config
        self.conv1 = conv3x3(3, stem, stride=2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = conv3x3(stem, stem, stride=2)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = make_layer(Bottleneck, stem, stem, config.layer1_blocks)
        before: Sequence[int] = (stem * Bottleneck.expansion,)
        for stage, modules in enumerate(config.modules, start=2):
            after = widths[:stage]
            setattr(self, f"transition{stage - 1}", make_transition(before, after))
            last_stage = stage == len(config.modules) + 1
            setattr(
                self,
                f"stage{stage}",
                nn.Sequential(
                    *(
                        HighResolutionModule(
                            after,
                            config.blocks,
                            multi_scale_output or not last_stage or m < modules - 1,
                        )
                        for m in range(modules)
                    )
                ),
            )
            before = after
        if config.classification_neck:
            self._add_classification_neck(widths)

    def _add_classification_neck(self, widths: Sequence[int]) -> None:
        heads = (32, 64, 128, 256)
        outer = [h * Bottleneck.expansion for h in heads]
        self.incre_modules = nn.ModuleList(
            make_layer(Bottleneck, w, h, 1) for w, h in zip(widths, heads, strict=True)
        )
        # These convolutions carry a bias in the official release.
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(outer[i], outer[i + 1], 3, stride=2, padding=1),
                nn.BatchNorm2d(outer[i + 1]),
                nn.ReLU(inplace=True),
            )
            for i in range(3)
        )
        self.final_layer = nn.Sequential(
            nn.Conv2d(outer[3], 2048, 1), nn.BatchNorm2d(2048), nn.ReLU(inplace=True)
        )

    @property
    def global_channels(self) -> int:
        """Length of the pooled global feature."""
        if self.config.classification_neck:
            return 2048
        return sum(self.config.widths) * (3 if self.config.moments else 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        features = [self.layer1(x)]
        for stage in (2, 3, 4):
            transition = getattr(self, f"transition{stage - 1}")
            # A new or re-dimensioned branch starts from the lowest resolution there is.
            features = [
                features[i] if layer is None else layer(features[-1])
                for i, layer in enumerate(transition)
            ]
            features = getattr(self, f"stage{stage}")(features)
        return features

    def pool(self, features: list[Tensor]) -> Tensor:
        """The global feature f_g [B, global_channels] of GLNet §3.2, float32."""
        if not self.config.classification_neck:
            pooled = [spatial_mean(f) for f in features]
            if self.config.moments:
                pooled += [spatial_mean(f * ramp(f, -1)) for f in features]
                pooled += [spatial_mean(f * ramp(f, -2)) for f in features]
            return torch.cat(pooled, dim=1)
        y = self.incre_modules[0](features[0])
        for i, downsample in enumerate(self.downsamp_modules):
            y = self.incre_modules[i + 1](features[i + 1]) + downsample(y)
        return spatial_mean(self.final_layer(y))


def spatial_mean(features: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C] float32: a sum of thousands is no matter for half precision."""
    return features.mean((2, 3), dtype=torch.float32)


def ramp(features: Tensor, axis: int) -> Tensor:
    """-2 to 2 along one axis of maps [B, C, h, w], so that moments are of the means' size."""
    steps = features.shape[axis]
    values = torch.linspace(-2, 2, steps, device=features.device, dtype=features.dtype)
    return values if axis == -1 else values[:, None]


def initialise(module: nn.Module) -> None:
    """He initialisation, as the official classification network."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
