"""A network that has learned nothing, for exporting and timing a preset without weights."""

from __future__ import annotations

import torch
from torch import nn

from glnet_rt.body_model import BodyModel
from train.model.config import GLNetConfig, preset
from train.model.glnet import GLNet
from train.model.hrnet import BasicBlock, Bottleneck

BATCHES, BATCH = 3, 4
HEAD_STD = 0.1  # training starts heads near zero, where every crop gets the same answer
# Of what a residual block adds. At full size, blocks of random weights make every error of the
# first layers grow to the size of the answers, which those of trained networks do not.
RESIDUAL_GAIN = 0.2


def random_preset(name: str, body: BodyModel, seed: int) -> GLNet:
    """A random network of preset `tiny`, `w32` or `w48` for a body; see `random_network`."""
    config = preset(name, body_id=body.body_id, body_sha256=body.sha256)
    return random_network(config, seed)


@torch.no_grad()
def random_network(config: GLNetConfig, seed: int) -> GLNet:
    """A network whose features keep their size from layer to layer and whose answers differ.

    The batch norms take their statistics from noise; without them, the residual sums of a deep
    backbone leave half precision's range.
    """
    torch.manual_seed(seed)
    model = GLNet(config)
    head = model.pixel_head
    for layer in (head.hop1, head.score, head.residual, *head.hop2):
        if layer is not None:
            nn.init.normal_(layer.weight, std=HEAD_STD)
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            nn.init.constant_(block.last_norm.weight, RESIDUAL_GAIN)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over batches
    some = torch.arange(BATCH)
    model.train()
    for _ in range(BATCHES):
        model(torch.randn(BATCH, *config.spec.input_shape), some)
    return model.eval()
