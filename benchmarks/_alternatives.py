"""The stages of a frame as they are, and beside each the ways it is usually done."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from glnet_rt.artifact import BODY, Artifact
from glnet_rt.backends import BACKENDS
from glnet_rt.body_file import BodyFile, parse_body
from glnet_rt.body_model import BodyModel, BodyOutput
from glnet_rt.contracts import Array, Crop, NetOutput, Result
from glnet_rt.crop import crop_from_image_affine, cut_crops, normalise, square_around
from glnet_rt.decode import Decoder
from glnet_rt.errors import GlnetError
from glnet_rt.kinematics import twist_from_rotations
from glnet_rt.out import OverlayRenderer
from glnet_rt.probe import Probe
from glnet_rt.rotation import rotmat_to_rotvec
from glnet_rt.skeleton import NUM_JOINTS, SMPL_PARENTS
from glnet_rt.spec import NetSpec

if TYPE_CHECKING:
    from train.model.glnet import GLNet

Way = Callable[[], object]
Pose = tuple[Array, Array, Array]  # betas, rotation matrices and translations, as BodyModel takes
LARGE = 256  # px, the input of the larger networks, whose crops are timed whatever the artifact's
LENS = np.array([[1500.0, 0.0, 959.5], [0.0, 1500.0, 539.5], [0.0, 0.0, 1.0]])


def stages(artifact: str | None, image: Array, boxes: Array) -> dict[str, dict[str, Way]]:
    """Stage -> name -> what to time, ours first; on one thread.

    Args:
        artifact: path, or None for the one in the package.
        image: [H, W, 3] uint8.
        boxes: [B, 4].
    """
    cv2.setNumThreads(1)
    opened = Artifact.open(artifact)
    ways = {
        f"crop, {size} px": crop_ways(replace(opened.spec, input_size=size), image, boxes)
        for size in sorted({opened.spec.input_size, LARGE})
    }
    crops, cut = cut_crops(image, boxes, opened.spec)
    ways["normalise"] = {
        "numba": lambda: normalise(crops, opened.spec),
        "NumPy": lambda: normalised_by_numpy(crops, opened.spec),
    }
    file = parse_body(opened.read(BODY), BODY)
    body, size = BodyModel(file), (image.shape[1], image.shape[0])
    output = answers(Probe.read(opened).output, len(boxes))
    found = Decoder(body, opened.spec)(output, cut, size, LENS)
    rotmats = np.stack([np.concatenate([p.global_orient[None], p.body_pose]) for p in found])
    pose = (output.betas, rotmats, np.stack([p.transl for p in found]))
    ways["kinematics and decoding"] = decode_ways(body, opened.spec, output, pose, cut, size)
    ways["skinning"] = skinning_ways(file, pose)
    ways["skinning of a dense body"] = skinning_ways(dense(file), pose)
    ways["overlay"] = overlay_ways(image, Result(found, 0, 0, size, body.faces))
    return ways


def crop_ways(spec: NetSpec, image: Array, boxes: Array) -> dict[str, Way]:
    """From a picture to what a network of this input size takes."""
    return {
        "glnet_rt.crop, bytes": lambda: cut_crops(image, boxes, spec),
        "glnet_rt.crop, normalised": lambda: normalise(cut_crops(image, boxes, spec)[0], spec),
        "warpAffine of the whole picture, NumPy": lambda: warp_whole(image, boxes, spec),
    }


def decode_ways(
    body: BodyModel,
    spec: NetSpec,
    output: NetOutput,
    pose: Pose,
    crops: Sequence[Crop],
    size: tuple[int, int],
) -> dict[str, Way]:
    """All that decoding does but skinning, from each kind of rotations that can be had."""
    posed = _Posed(body, pose)
    told = Decoder(posed, spec)
    ways: dict[str, Way] = {spec.representation: lambda: told(output, crops, size)}
    if spec.representation == "direct":
        twist = twist_from_rotations(pose[1], body.rest_skeleton(output.betas))
        other = replace(output, twist=twist, rot6d=None, spread=None)
        solved = Decoder(posed, replace(spec, representation="decomposed", fit_prior_rad=0.0))
        ways["decomposed"] = lambda: solved(other, crops, size)
    return ways


class _Posed(BodyModel):
    """A body that was posed beforehand, so that decoding is timed without skinning."""

    def __init__(self, body: BodyModel, pose: Pose) -> None:
        self.__dict__.update(body.__dict__)
        self._answer = body(*pose)

    def __call__(self, betas: Array, pose: Array, transl: Array | None = None) -> BodyOutput:
        return self._answer


def skinning_ways(file: BodyFile, pose: Pose) -> dict[str, Way]:
    """Ours and, where it can be imported, smplx."""
    body = BodyModel(file)
    ways: dict[str, Way] = {"numba": lambda: body(*pose)}
    oracle = smplx_way(file, *pose)
    return ways if oracle is None else {**ways, "smplx": oracle}


def dense(file: BodyFile) -> BodyFile:
    """The same body with pose blendshapes that move every vertex by every joint, as SMPL's do."""
    rng = np.random.default_rng(0)
    posedirs = rng.normal(scale=1e-3, size=file.posedirs.shape).astype(np.float32)
    return replace(file, posedirs=posedirs)


def overlay_ways(image: Array, result: Result) -> dict[str, Way]:
    """Ours and, where it can be imported, pyrender."""
    renderer = OverlayRenderer()
    ways: dict[str, Way] = {"numba z-buffer": lambda: renderer.draw(image, result)}
    other = pyrender_way(image, result)
    return ways if other is None else {**ways, "pyrender": other}


def open_system(name: str) -> Callable[[Array, Array], object]:
    """Another system: `module:function`, as docs/performance.md describes.

    Returns:
        What takes a picture [H, W, 3] uint8 BGR and boxes [N, 4], and gives N bodies.
    """
    module, _, function = name.partition(":")
    recover = getattr(importlib.import_module(module), function or "open_system")()

    def checked(image: Array, boxes: Array) -> object:
        bodies = recover(image, boxes)
        if len(bodies) != len(boxes):
            raise SystemExit(f"{name} gave {len(bodies)} bodies for {len(boxes)} boxes")
        return bodies

    return checked


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


def smplx_way(file: BodyFile, betas: Array, rotmats: Array, transl: Array) -> Way | None:
    """smplx on torch, one thread, the same body; None, and why on stderr, where it is missing."""
    try:
        import torch

        model = smplx_body(file, len(betas))
    except ImportError as error:
        print(f"smplx is left out: {error}", file=sys.stderr)
        return None
    torch.set_num_threads(1)
    turns = torch.from_numpy(rotmat_to_rotvec(rotmats))
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


def smplx_body(file: BodyFile, people: int) -> Callable[..., object]:
    """smplx's model of a body.

    Raises:
        ImportError: without smplx.
    """
    import smplx

    arrays = {
        "v_template": file.v_template, "shapedirs": file.shapedirs, "posedirs": file.posedirs,
        "J_regressor": file.J_regressor, "weights": file.lbs_weights, "f": file.faces,
        "kintree_table": np.array([SMPL_PARENTS, range(NUM_JOINTS)]),
    }  # fmt: skip
    names = dict.fromkeys(smplx.vertex_ids.vertex_ids["smplh"], 0)
    struct = smplx.utils.Struct(**arrays)
    model: Callable[..., object] = smplx.SMPL(
        "", data_struct=struct, batch_size=people, vertex_ids=names
    )
    return model


def pyrender_way(image: Array, result: Result) -> Way | None:
    """pyrender with OSMesa, the usual way; None, and why on stderr, where either is missing.

    As demos of other packages do, each picture gets a scene of its own, whose colours go where it
    has depth. Everyone must have the same K.
    """
    os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
    try:
        import pyrender
        import trimesh

        renderer = pyrender.OffscreenRenderer(*result.image_size)
    except Exception as error:  # PyOpenGL raises what it likes where a library is missing
        print(f"pyrender is left out: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    K = result.people[0].K
    # Its pixels begin at their edge, its cameras look along -z, and up is +y.
    camera = pyrender.IntrinsicsCamera(K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5, zfar=100.0)
    light = pyrender.DirectionalLight(intensity=4.0)
    skin = pyrender.MetallicRoughnessMaterial(metallicFactor=0.2, baseColorFactor=(0.6, 0.7, 1, 1))

    def way() -> Array:
        scene = pyrender.Scene(ambient_light=(0.3, 0.3, 0.3))
        for person in result.people:
            mesh = trimesh.Trimesh(person.vertices * [1, -1, -1], result.faces, process=False)
            scene.add(pyrender.Mesh.from_trimesh(mesh, material=skin))
        scene.add(camera)
        scene.add(light)
        drawn, depth = renderer.render(scene)
        blended = 0.4 * image + 0.6 * drawn[..., ::-1]
        return np.where(depth[..., None] > 0, blended, image).astype(np.uint8)

    return way


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
