"""The network typed for half precision, in PyTorch, before it is traced.

Half: the backbone, the dense branches, and the encoders and the scoring convolution that run at
every pixel. Float32: what a pixel or a metre hangs on, i.e. the pooled feature and the global head,
hop 1 and its coordinates, the sampling, the score itself, and everything behind the part points,
which is small since it runs at the winning pixels alone. Inputs and outputs of the graph stay as
NetSpec says.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from train.model.glnet import GLNet


def halved(model: GLNet) -> GLNet:
    """A copy whose dense part computes in half precision; `top1` takes and gives float32.

    Args:
        model: float32, in evaluation mode.
    """
    typed = copy.deepcopy(model).eval()
    for part in dense_parts(typed):
        fold_norms(part)
        part.half()
    head = typed.pixel_head
    for entrance in (typed.backbone.conv1, head.hop1, head.score):
        entrance.register_forward_pre_hook(to_own_type)
    return typed


def dense_parts(model: GLNet) -> list[nn.Module]:
    """Modules that run at every pixel and that no single pixel or coordinate hangs on."""
    head = model.pixel_head
    parts = [model.backbone, head.class_branch, head.score_conv]
    if not head.sparse:  # else it runs at a few cells, behind the sampling
        parts.append(head.keypoint_branch)
    if head.class_encoder is not None:
        parts.append(head.class_encoder)
    if not head.few_winners:
        parts.append(head.part_encoder)
    return parts


def fold_norms(part: nn.Module) -> None:
    """Fold every batch norm into the convolution registered right before it, in float32, in place.

    A running variance below half precision's least number would otherwise be lost.
    """
    for module in part.modules():
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())


def to_own_type(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring a layer's inputs to the type of its weights."""
    dtype: torch.dtype = next(layer.parameters()).dtype
    return tuple(value.to(dtype) for value in inputs)
