"""The narrow network and its graph, exported once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.crops import Crops
from export.graph import build_graph
from glnet_rt.body_model import BodyModel
from glnet_rt.spec import NetSpec
from tests.narrow import BODY, network, noise_crops
from train.model.glnet import GLNet


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.load(BODY)


@pytest.fixture(scope="session")
def narrow(body: BodyModel) -> GLNet:
    return network(body)


@pytest.fixture(scope="session")
def narrow_spec(narrow: GLNet) -> NetSpec:
    return narrow.config.spec


@pytest.fixture(scope="session")
def narrow_graph(narrow: GLNet) -> onnx.ModelProto:
    """In float32; not to be changed."""
    return build_graph(narrow)


@pytest.fixture(scope="session")
def labelled() -> Crops:
    """Noise, and joints that belong to nobody."""
    joints = np.random.default_rng(1).normal(0, 0.3, (20, 24, 3)).astype(np.float32)
    return Crops(noise_crops(20), joints)
