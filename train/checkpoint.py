"""Weights on disk (safetensors, with the configuration inside) and the state of a run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glnet_rt.errors import ArtifactError
from glnet_rt.spec import NetSpec
from train.model.config import GLNetConfig
from train.model.glnet import GLNet
from train.model.hrnet import HRNetConfig


def save_weights(path: Path, model: GLNet, info: dict[str, Any]) -> None:
    """Write weights with everything needed to rebuild the network.

    Args:
        path: ends in `.safetensors`; replaced atomically.
        model: the network; kernels are written as float16, which halves the file, the rest (batch
            norm, biases, means) as float32.
        info: JSON values on how it was trained, kept for the artifact's manifest.
    """
    tensors = {
        name: (value.half() if value.ndim > 1 else value.float()).contiguous()
        for name, value in model.state_dict().items()
    }
    config = dataclasses.asdict(model.config)
    config["spec"] = model.config.spec.to_dict()
    metadata = {"config": json.dumps(config), "info": json.dumps(info)}
    write_tensors(path, tensors, metadata)


def load_weights(path: Path) -> tuple[GLNet, dict[str, Any]]:
    """Rebuild the network from `save_weights`' file, in evaluation mode.

    Raises:
        ArtifactError: not such a file, or tensors that do not fit.
    """
    with only_weights_of(path, "GLNet", "fit"):
        tensors, metadata = read_tensors(path)
        model = GLNet(config_from_dict(json.loads(metadata["config"])))
        model.load_state_dict(tensors)
    return model.eval(), json.loads(metadata.get("info", "{}"))


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a `.safetensors` file, replaced atomically."""
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=metadata)
    os.replace(part, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a `.safetensors` file."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


@contextmanager
def only_weights_of(path: Path, network: str, command: str) -> Iterator[None]:
    """Raise ArtifactError for whatever shows in the block that a file holds other weights."""
    try:
        yield
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} holds no {network} weights",
            got=error,
            expected=f"a .safetensors file written by `python -m train {command}`",
            fix="train, or name another file",
        ) from error


def transfer(source: GLNet, target: GLNet) -> None:
    """Continue at another input size: every weight is taken over.

    A correction of the settled rotations that only the target has starts at zero.

    Offsets and depths are counted in grid pixels, so the layers that answer in them are scaled.

    Raises:
        ArtifactError: the networks differ in more than the input size.
    """
    tensors = source.state_dict()
    ratio = target.config.spec.input_size / source.config.spec.input_size
    for name, value in tensors.items():
        if name.startswith(("pixel_head.hop1", "pixel_head.hop2")):
            tensors[name] = value * ratio
        elif name.startswith("heatmap_head"):
            logits, depths = value.chunk(2)
            tensors[name] = torch.cat([logits, depths * ratio])
    added = {n: v for n, v in target.state_dict().items() if n.startswith("pixel_head.settling")}
    try:
        target.load_state_dict({**added, **tensors})
    except RuntimeError as error:
        raise ArtifactError(
            "weights of another network",
            got=source.config,
            expected=target.config,
            fix="start from weights of the same preset and representation",
        ) from error


def transfer_backbone(source: GLNet, target: GLNet) -> None:
    """Start from another network's features alone; every head keeps its initial weights.

    Raises:
        ArtifactError: the backbones differ.
    """
    features = ("backbone.", "fusion.")
    tensors = {n: v for n, v in source.state_dict().items() if n.startswith(features)}
    try:
        target.load_state_dict({**target.state_dict(), **tensors})
    except RuntimeError as error:
        raise ArtifactError(
            "weights of another backbone",
            got=source.config.backbone,
            expected=target.config.backbone,
            fix="start from weights of the same preset",
        ) from error


def config_from_dict(values: dict[str, Any]) -> GLNetConfig:
    """What `dataclasses.asdict` made of a GLNetConfig, back."""
    values = dict(values)
    backbone = dict(values.pop("backbone"))
    backbone["modules"] = tuple(backbone["modules"])
    if "refined" in values:
        values["refined"] = tuple(values["refined"])
    # Weights outlive fields that are added for the run time; artifacts are exported again.
    spec = NetSpec.from_dict({**NetSpec().to_dict(), **values.pop("spec")})
    return GLNetConfig(spec=spec, backbone=HRNetConfig(**backbone), **values)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state so that a kill at any moment leaves the old or the new file."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read `save_state`'s file; tensors and plain values only, no code."""
    return torch.load(path, weights_only=True, map_location="cpu")
