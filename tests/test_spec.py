"""What a NetSpec promises survives the way through JSON, and nothing else passes for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from glnet_rt.errors import ArtifactError
from glnet_rt.spec import NetSpec

DIRECT = NetSpec(
    preset="w32",
    representation="direct",
    input_size=256,
    mean=(0.0, 0.5, 1.0),
    box_scale=1.1,
    num_betas=16,
    body_id="smpl",
    body_sha256="ab" * 32,
)


@pytest.mark.parametrize("spec", [NetSpec(), DIRECT])
def test_json_brings_it_back(spec: NetSpec) -> None:
    assert NetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_shapes_follow_the_representation() -> None:
    common = {
        "score": (),
        "pixel": (),
        "keypoints_uvd": (36, 3),
        "betas": (10,),
        "camera_scale": (),
    }
    assert NetSpec().output_shapes == {**common, "twist": (23, 2)}
    assert DIRECT.output_shapes == {**common, "betas": (16,), "rot6d": (24, 6)}
    assert NetSpec().input_shape == (3, 128, 128)
    assert DIRECT.input_shape == (3, 256, 256)


def test_whole_numbers_may_stand_for_floats() -> None:
    values = {**NetSpec().to_dict(), "box_scale": 1, "mean": [0, 0, 0]}
    assert NetSpec.from_dict(values).box_scale == 1


BAD: dict[str, dict[str, Any]] = {
    "unknown field": {"colour": "red"},
    "the input's name": {"input_name": "picture"},
    "text for a number": {"input_size": "128"},
    "float for a count": {"input_size": 128.0},
    "boolean for a count": {"num_betas": True},
    "boolean for a float": {"focal": False},
    "number for a flag": {"align_corners": 1},
    "nothing": {"preset": None},
    "two channels": {"mean": [0.5, 0.5]},
    "text in a channel": {"std": [1.0, 1.0, "1"]},
    "number for a list": {"std": 0.5},
    "unknown representation": {"representation": "quaternion"},
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_spec_is_refused(name: str, assert_helpful: Callable[[Exception], None]) -> None:
    with pytest.raises(ArtifactError) as caught:
        NetSpec.from_dict({**NetSpec().to_dict(), **BAD[name]})
    assert_helpful(caught.value)


@pytest.mark.parametrize("name", NetSpec().to_dict())
def test_every_field_is_needed(name: str) -> None:
    values = NetSpec().to_dict()
    values.pop(name)
    with pytest.raises(ArtifactError, match="other fields"):
        NetSpec.from_dict(values)
