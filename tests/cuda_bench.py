"""The kernels' CPU build on plain arrays, in the layout that a session gives them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.backends.cuda.body import lay_out
from glnet_rt.backends.cuda.frame import write_people
from glnet_rt.backends.cuda.workspace import SlotLayout, Workspace
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.rotation import rotmat_to_rot6d, rotvec_to_rotmat
from glnet_rt.skeleton import NUM_KEYPOINTS, NUM_SKELETON
from glnet_rt.spec import NetSpec
from tests.cuda_emulator import compile_all, launch_on_cpu

BUCKET = 4
IMAGE_SIZE = (640, 480)


@dataclass
class Bench:
    """One workspace and one slot on the host; `scalar` is what decoding and skinning compute in."""

    spec: NetSpec
    body: BodyModel
    scalar: str = "float"
    half_input: bool = False
    backwards: bool = False

    def __post_init__(self) -> None:
        flags = (f"-DGLNET_DECODE_SCALAR={self.scalar}", f"-DGLNET_SKIN_SCALAR={self.scalar}")
        self.kernels = compile_all(flags)
        laid_out = lay_out(self.body, self.spec.num_betas)
        self.workspace = Workspace(self.spec, laid_out, BUCKET, self.half_input)
        self.slot = SlotLayout(self.spec, laid_out.vertices, BUCKET, 4)
        # NaN everywhere: what a kernel forgets to write, or reads too early, shows.
        self._memory = [np.full(n.layout.size, 0xFF, np.uint8) for n in (self.workspace, self.slot)]
        self.shared, self.ring = (memory.ctypes.data for memory in self._memory)
        self.workspace.write_constants(self.shared, self.shared)
        self.params = self.workspace.layout.view(self.shared, "params")
        self.params[...] = 0
        self.slot.write_addresses(self.params, self.ring)

    def crop(self, image: Array, center_px: Array, side_px: Array) -> Array:
        """[BUCKET, 3, S, S]; rows behind the people are padding."""
        self.params["frame"] = image.ctypes.data
        self.params["stride"] = image.strides[0]
        size = (image.shape[1], image.shape[0])
        write_people(self.params, center_px, side_px, size, self.spec, None)
        side = np.int32(self.workspace.side)
        self._launch("crop_halve", 7, "params", "scratch", side)
        sizes = (np.int32(self.spec.input_size), np.int32(BUCKET))
        self._launch(
            "crop_half" if self.half_input else "crop_float", 5,
            "params", "scratch", side, "normalisation", *sizes, self.spec.input_name,
        )  # fmt: skip
        return self.workspace.layout.view(self.shared, self.spec.input_name).copy()

    def decode(
        self, output: NetOutput, center_px: Array, side_px: Array, K: Array | None
    ) -> dict[str, Array]:
        """Name -> rows of the people, after decoding and skinning."""
        count = len(side_px)
        for name in self.spec.output_shapes:
            self.workspace.layout.view(self.shared, name)[:count] = getattr(output, name)
        write_people(self.params, center_px, side_px, IMAGE_SIZE, self.spec, K)
        self._launch("decode", BUCKET, "params", "net_pointers", "decode_setup", "skin_input")
        blocks = -(-len(self.body.v_template) // 128)
        self._launch("skin", (blocks, BUCKET), "params", "skin_input", "body_tables", threads=128)
        outputs = self.slot.outputs(self.ring)
        return {name: rows[:count].copy() for name, rows in outputs.items()}

    def _launch(
        self,
        name: str,
        grid: int | tuple[int, int],
        *arguments: str | np.generic,
        threads: int = 256,
    ) -> None:
        data = [
            np.uint64(self.shared + self.workspace.layout.offset(argument)).tobytes()
            if isinstance(argument, str)
            else argument.tobytes()
            for argument in arguments
        ]
        launcher, sizes = self.kernels[name]
        assert [len(value) for value in data] == sizes
        x, y = (grid, 1) if isinstance(grid, int) else grid
        launch_on_cpu(launcher, (x, y, 1), (threads, 1, 1), data, self.backwards)


def people_seen(
    body: BodyModel, spec: NetSpec, seed: int, count: int = BUCKET
) -> tuple[NetOutput, Array, Array]:
    """What a network might say of random poses, with noise, and the squares it looked at.

    Returns:
        The output of `count` people, centers [count, 2] and sides [count] of the squares, px.
    """
    rng = np.random.default_rng(seed)
    betas = rng.normal(0, 1, (count, spec.num_betas)).astype(np.float32)
    rotvec = rng.normal(0, 0.5, (count, 24, 3))
    rotvec[:, 0] += (np.pi, 0, 0)
    rotmats = rotvec_to_rotmat(rotvec).astype(np.float32)
    posed = body.keypoints(body(betas, rotmats))
    seen = posed - posed[:, :1] + rng.normal(0, 0.01, posed.shape)
    scale = rng.uniform(0.3, 0.6, count).astype(np.float32)
    uvd = np.concatenate([seen[..., :2] * scale[:, None, None], seen[..., 2:] / 2.2], axis=-1)
    turns = rng.normal(size=(count, 23, 2))
    fields = {
        "twist": (turns / np.linalg.norm(turns, axis=-1, keepdims=True)).astype(np.float32),
        "rot6d": (rotmat_to_rot6d(rotmats) + rng.normal(0, 0.05, (count, 24, 6))),
        "spread": rng.uniform(0.005, 0.05, (count, NUM_KEYPOINTS)),
    }
    assert NUM_SKELETON <= uvd.shape[1] == NUM_KEYPOINTS
    output = NetOutput(
        score=rng.uniform(0, 1, count).astype(np.float32),
        pixel=np.arange(count),
        keypoints_uvd=uvd.astype(np.float32),
        betas=betas,
        camera_scale=scale,
        **{
            name: value.astype(np.float32) if name in spec.output_shapes else None
            for name, value in fields.items()
        },
    )
    return output, rng.uniform(150, 400, (count, 2)), rng.uniform(100, 300, count)
