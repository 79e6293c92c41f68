"""The stages of a frame as they are, and beside each the ways it is usually done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from glnet_rt.artifact import BODY, Artifact
from glnet_rt.backends import BACKENDS
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput, Result
from glnet_rt.crop import crop_from_image_affine, cut_crops, normalise, square_around
from glnet_rt.decode import Decoder
from glnet_rt.errors import GlnetError
from glnet_rt.out import OverlayRenderer
from glnet_rt.probe import Probe
from glnet_rt.rotation import rotmat_to_rotvec
from glnet_rt.spec import NetSpec

if TYPE_CHECKING:
    from train.model.glnet import GLNet

Way = Callable[[], object]


def stages(artifact: str | None, image: Array, boxes: Array) -> dict[str, dict[str, Way]]:
    """Stage -> name -> what to time, ours first; on one thread.

    Args:
        artifact: path, or None for the one in the package.
        image: [H, W, 3] uint8.
        boxes: [B, 4].
    """
    cv2.setNumThreads(1)
    opened = Artifact.open(artifact)
    spec, people = opened.spec, len(boxes)
    body = BodyModel.from_bytes(opened.read(BODY), BODY)
    output = answers(Probe.read(opened).output, people)
    crops, cut = cut_crops(image, boxes, spec)
    decoder, size = Decoder(body, spec), (image.shape[1], image.shape[0])
    found = decoder(output, cut, size)
    result = Result(found, 0, 0, size, body.faces)
    renderer = OverlayRenderer()
    pose = np.stack([np.concatenate([p.global_orient[None], p.body_pose]) for p in found])
    transl = np.stack([p.transl for p in found])
    ways: dict[str, dict[str, Way]] = {
        "crop": {
            "glnet_rt.crop, bytes": lambda: cut_crops(image, boxes, spec),
            "glnet_rt.crop, normalised": lambda: normalise(cut_crops(image, boxes, spec)[0], spec),
            "warpAffine of the whole picture, NumPy": lambda: warp_whole(image, boxes, spec),
        },
        "normalise": {
            "numba": lambda: normalise(crops, spec),
            "NumPy": lambda: normalised_by_numpy(crops, spec),
        },
        "decode": {"glnet_rt.decode, skinning included": lambda: decoder(output, cut, size)},
        "skinning": {"numba": lambda: body(output.betas, pose, transl)},
        "overlay": {"numba z-buffer": lambda: renderer.draw(image, result)},
    }
    oracle = smplx_way(opened, output.betas, pose, transl)
    if oracle is not None:
        ways["skinning"]["smplx"] = oracle
    return ways


def answers(output: NetOutput, people: int) -> NetOutput:
    """The probe's answers, again and again."""
    fields = {name: getattr(output, name) for name in NetOutput.__dataclass_fields__}
    repeat = np.arange(people) % len(output.score)
    return NetOutput(**{n: None if v is None else v[repeat] for n, v in fields.items()})


def warp_whole(image: Array, boxes: Array, spec: NetSpec) -> Array:
    """The usual crop: no care for aliasing, and floats at once."""
    crops = []
    for box in boxes:
        center_px, side_px = square_around(box, spec.box_scale)
        affine = crop_from_image_affine(center_px, side_px, spec.input_size)
        crops.append(cv2.warpAffine(image, affine, (spec.input_size,) * 2))
    return normalised_by_numpy(np.stack(crops), spec)


def normalised_by_numpy(crops: Array, spec: NetSpec) -> Array:
    """The formula as it is usually written."""
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    rgb = (crops[..., ::-1].astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))


def smplx_way(opened: Artifact, betas: Array, pose: Array, transl: Array) -> Way | None:
    """smplx on torch, one thread, the same body; None, and why on stderr, where it is missing."""
    try:
        import torch

        model = smplx_body(opened.read_arrays(BODY), len(betas))
    except ImportError as error:
        print(f"smplx is left out: {error}", file=sys.stderr)
        return None
    torch.set_num_threads(1)
    turns = torch.from_numpy(rotmat_to_rotvec(pose))
    given = {
        "betas": torch.from_numpy(betas),
        "global_orient": turns[:, 0],
        "body_pose": turns[:, 1:].reshape(len(betas), -1),
        "transl": torch.from_numpy(transl),
    }

    def way() -> object:
        with torch.no_grad():
            return model(**given)

    return way


def smplx_body(arrays: Mapping[str, Array], people: int) -> Callable[..., object]:
    """smplx's model of a body file.

    Raises:
        ImportError: without smplx.
    """
    import smplx

    names = smplx.vertex_ids.vertex_ids["smplh"]
    struct = smplx.utils.Struct(**arrays)
    model: Callable[..., object] = smplx.SMPL(
        "", data_struct=struct, batch_size=people, vertex_ids=dict.fromkeys(names, 0)
    )
    return model


@contextmanager
def networks(
    artifact: str | None,
    people: int,
    backends: Sequence[str],
    precisions: Sequence[str],
) -> Iterator[Mapping[str, Way]]:
    """Name -> one inference of so many crops on one thread, the first backend's first.

    Args:
        artifact: path, or None for the one in the package.
        people: crops in the batch.
        backends, precisions: those to open; what does not work here is told on stderr.
    """
    opened = Artifact.open(artifact)
    crops = noise_crops(opened.spec, people)
    ways: dict[str, Way] = {}
    with ExitStack() as sessions:
        for kind in BACKENDS:
            for precision in kind.precisions:
                if kind.name not in backends or precision not in precisions:
                    continue
                if precision not in opened.manifest.computable:
                    continue
                try:
                    session = sessions.enter_context(kind.open(opened, precision, threads=1))
                except GlnetError as error:
                    print(f"{kind.name} {precision}: {error.what}", file=sys.stderr)
                    continue
                ways[f"{kind.name} {precision}"] = _inference(session, crops)
        yield ways


def noise_crops(spec: NetSpec, people: int) -> Array:
    """[people, S, S, 3] uint8."""
    return np.random.default_rng(0).integers(0, 256, (people, *spec.crop_shape), np.uint8)


def _inference(session: Any, crops: Array) -> Way:
    return lambda: session.infer(crops)


def torch_ways(model: GLNet, people: int, *, compiled: bool) -> dict[str, Way]:
    """The network as it was trained, on one thread, on the crops of `networks`.

    Args:
        model: in evaluation mode.
        people: crops in the batch.
        compiled: whether torch.compile is one of the ways: takes minutes.
    """
    import torch

    torch.set_num_threads(1)
    spec = model.config.spec
    images = torch.from_numpy(normalise(noise_crops(spec, people), spec))

    def way(run: Callable[[Any], object]) -> Way:
        def timed() -> object:
            with torch.inference_mode():
                return run(images)

        return timed

    ways = {"torch eager": way(model.top1)}
    if compiled:
        ways["torch compiled"] = way(torch.compile(model.top1))
    return ways


def trained(spec: NetSpec, weights: Path) -> GLNet | None:
    """The network of some weights; None, and why on stderr, where they are of another."""
    from train.checkpoint import load_weights

    if not weights.exists():
        print(f"torch is left out: there is no {weights}", file=sys.stderr)
        return None
    model, _ = load_weights(weights)
    if model.config.spec != spec:
        print(f"torch is left out: {weights} is another network's", file=sys.stderr)
        return None
    return model.eval()
