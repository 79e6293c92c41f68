"""NetSpec: what a GLNet model expects and returns. Export writes it, the run time checks it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from glnet_rt.errors import ArtifactError
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS, NUM_TWISTS

REPRESENTATIONS = ("decomposed", "direct")
# Name of the one tensor that holds the zero of all activations of an INT8 model, a signed byte.
ZERO_POINT = "glnet_rt.activation_zero_point"
# The one node of a model that is not plain ONNX; docs/export.md states its contract. A plugin of
# this name may take its place, and the function that the file carries runs where there is none.
GATHER_DOMAIN, GATHER_OP, GATHER_VERSION = "glnet_rt", "PartPointGather", 1


@dataclass(frozen=True)
class NetSpec:
    """The contract between training, export and run time.

    Attributes:
        preset: backbone preset, `tiny`, `w32` or `w48`.
        representation: `decomposed` (swing from keypoints, twist predicted) or `direct` (24 x 6D).
        input_size: side S of the square input, px.
        mean, std: RGB, of pixels in [0, 1].
        box_scale: side of the square crop over the longer side of the person's box.
        focal: focal length over crop side, no unit. GLNet's 1000 px on a 256 px crop is 3.90625.
        depth_range_m: metres spanned by a keypoint depth from -0.5 to 0.5, relative to the pelvis.
        num_betas: shape coefficients predicted.
        body_id, body_sha256: the body whose betas and rest joints the weights were trained on.
        fit_prior_rad: how far a joint's rotation is expected to be off, for the kinematic fit that
            follows `direct` rotations; 0 leaves them as they are. The network then also tells how
            far off its keypoints may be.
        align_corners, padding_mode: of the part-point gather; absolute grid pixels, clamped.
    """

    preset: str = "tiny"
    representation: str = "decomposed"
    input_size: int = 128
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    box_scale: float = 1.25
    focal: float = 1000.0 / 256.0
    depth_range_m: float = 2.2
    num_betas: int = 10
    body_id: str = ""
    body_sha256: str = ""
    fit_prior_rad: float = 0.0
    align_corners: bool = True
    padding_mode: str = "border"
    input_name: str = field(default="image", init=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input of a model, [3, S, S] float32, RGB, normalised."""
        return (3, self.input_size, self.input_size)

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """Shape of one crop, [S, S, 3] uint8, BGR, which backends normalise into such an input."""
        return (self.input_size, self.input_size, 3)

    @property
    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of one person's output, in the order the model returns them."""
        shapes: dict[str, tuple[int, ...]] = {
            "score": (),
            "pixel": (),
            "keypoints_uvd": (NUM_KEYPOINTS, 3),
            "betas": (self.num_betas,),
            "camera_scale": (),
        }
        if self.representation == "decomposed":
            shapes["twist"] = (NUM_TWISTS, 2)
        else:
            shapes["rot6d"] = (NUM_JOINTS, 6)
        if self.fit_prior_rad:
            shapes["spread"] = (NUM_KEYPOINTS,)
        return shapes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = dataclasses.asdict(self)
        values.pop("input_name")
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetSpec:
        """Read what `to_dict` wrote.

        Raises:
            ArtifactError: unknown or missing fields, or an unknown representation.
        """
        names = {f.name for f in dataclasses.fields(cls) if f.init}
        if set(values) != names:
            raise ArtifactError(
                "NetSpec has other fields than this version knows",
                got=sorted(values),
                expected=sorted(names),
                fix="export the artifact again with this version of glnet-rt",
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for f in dataclasses.fields(cls):
            if f.init and not _is_like(values[f.name], f.default):
                raise ArtifactError(
                    f"NetSpec.{f.name} has another type than this version knows",
                    got=repr(values[f.name]),
                    expected=f"the like of {f.default!r}",
                    fix="export the artifact again with this version of glnet-rt",
                )
        if values["representation"] not in REPRESENTATIONS:
            raise ArtifactError(
                "unknown pose representation",
                got=values["representation"],
                expected=REPRESENTATIONS,
                fix="export the artifact again with this version of glnet-rt",
            )
        return cls(**values)


def _is_like(value: object, default: object) -> bool:
    """Whether a JSON value has the type of a field's default; an int may stand for a float."""
    if isinstance(default, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(map(_is_like, value, default))
        )
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)
