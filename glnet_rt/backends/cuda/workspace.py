"""What lies where: the memory all frames share, and that of each slot in the ring."""

from __future__ import annotations

import numpy as np

from glnet_rt.backends.cuda.body import BODY_TABLES, DECODE_SETUP, KernelBody
from glnet_rt.backends.cuda.frame import FRAME_PARAMS, WRITTEN, scratch_side
from glnet_rt.backends.cuda.memory import Layout
from glnet_rt.contracts import Array
from glnet_rt.skeleton import NUM_JOINTS, NUM_KEYPOINTS
from glnet_rt.spec import NetSpec

NET_POINTERS = np.dtype(
    [
        (name, np.uint64)
        for name in (
            "score", "keypoints_uvd", "betas", "camera_scale", "twist", "rot6d", "spread",
        )
    ]
)  # fmt: skip
SKIN_INPUT = np.dtype([(name, np.uint64) for name in ("maps", "features", "betas")])
NORMALISATION = np.dtype([("gain", np.float32, 3), ("bias", np.float32, 3)])
_STRUCTS = {
    "normalisation": NORMALISATION,
    "net_pointers": NET_POINTERS,
    "decode_setup": DECODE_SETUP,
    "skin_input": SKIN_INPUT,
    "body_tables": BODY_TABLES,
}
_POSE_FEATURES = 9 * (NUM_JOINTS - 1)


class Workspace:
    """The memory all frames share: constants first, then the network's tensors and scratch.

    Args:
        spec: of the network.
        body: in the kernels' layout.
        bucket: the largest.
        half_input: whether the network reads float16.

    Attributes:
        layout: of all of it.
        constant_bytes: how much of its beginning never changes.
        side: of the crop's scratch, px.
    """

    def __init__(self, spec: NetSpec, body: KernelBody, bucket: int, half_input: bool) -> None:
        self._spec = spec
        self._body = body
        self.side = scratch_side(spec.input_size)
        self.layout = Layout()
        for name, table in body.tables.items():
            self.layout.add(name, table.shape, table.dtype)
        for name, struct in _STRUCTS.items():
            self.layout.add(name, (), struct)
        self.constant_bytes = self.layout.size
        self.layout.add("params", (), FRAME_PARAMS)
        self._add_tensors(bucket, np.dtype(np.float16 if half_input else np.float32))

    def _add_tensors(self, bucket: int, input_dtype: np.dtype[np.generic]) -> None:
        layout, spec = self.layout, self._spec
        layout.add(spec.input_name, (bucket, *spec.input_shape), input_dtype)
        for name, shape in spec.output_shapes.items():
            layout.add(name, (bucket, *shape), np.int64 if name == "pixel" else np.float32)
        layout.add("scratch", (bucket, self.side, self.side), np.uint32)
        layout.add("maps", (bucket, NUM_JOINTS, 12), np.float32)
        layout.add("features", (bucket, _POSE_FEATURES), np.float32)

    def tensors(self, address: int) -> dict[str, int]:
        """Addresses of the network's input and outputs, the workspace lying at `address`."""
        names = (self._spec.input_name, *self._spec.output_shapes)
        return {name: address + self.layout.offset(name) for name in names}

    def write_constants(self, host: int, address: int) -> None:
        """Write the constants at `host` for a workspace that will lie at `address`."""
        for name, table in self._body.tables.items():
            self.layout.view(host, name)[...] = table
        for name, fields in self._structs(address).items():
            struct = self.layout.view(host, name)
            struct[...] = 0
            for field, value in fields.items():
                struct[field] = value

    def _structs(self, address: int) -> dict[str, dict[str, object]]:
        spec, body = self._spec, self._body
        at = {name: address + self.layout.offset(name) for name in self._names()}
        std = np.array(spec.std)
        prior = spec.fit_prior_rad
        return {
            "normalisation": {"gain": 1 / (255 * std), "bias": np.array(spec.mean) / std},
            "net_pointers": {
                name: at[name] for name in NET_POINTERS.fields or {} if name in spec.output_shapes
            },
            "decode_setup": {
                "rest_template": at["rest_template"],
                "rest_dirs": at["rest_dirs"],
                "num_betas": spec.num_betas,
                "depth_range_m": spec.depth_range_m,
                "stiffness": 1 / prior**2 if prior else 0.0,
            },
            "skin_input": {name: at[name] for name in SKIN_INPUT.fields or {}},
            "body_tables": {
                **{name: at[name] for name in BODY_TABLES.fields or {} if name in at},
                "vertices": body.vertices,
                "padded": body.padded,
                "num_betas": body.num_betas,
                "influences": body.influences,
            },
        }

    def _names(self) -> list[str]:
        scratch = ["maps", "features"]
        return [*self._body.tables, *self._spec.output_shapes, *scratch]


class SlotLayout:
    """One frame's memory, the same on both sides: outputs, parameters, pixels.

    Args:
        spec: of the network.
        vertices: of the body.
        bucket: the largest.
        max_pixels: of a frame.
    """

    def __init__(self, spec: NetSpec, vertices: int, bucket: int, max_pixels: int) -> None:
        self._vertex_bytes = 3 * 4 * vertices
        shapes: dict[str, tuple[int, ...]] = {
            "score": (),
            "betas": (spec.num_betas,),
            "rotmats": (NUM_JOINTS, 3, 3),
            "transl": (3,),
            "joints": (NUM_JOINTS, 3),
            "keypoints_px": (NUM_KEYPOINTS, 2),
            "status": (),
            "vertices": (vertices, 3),  # last: only the rows in use are copied
        }
        self.layout = Layout()
        for name, shape in shapes.items():
            dtype = np.int32 if name == "status" else np.float32
            self.layout.add(name, (bucket, *shape), dtype)
        self.layout.add("params", (), FRAME_PARAMS)
        self.layout.add("frame", (3 * max_pixels,), np.uint8)

    def output_bytes(self, people: int) -> int:
        """From the slot's beginning to the last vertex of so many people."""
        return self.layout.offset("vertices") + people * self._vertex_bytes

    def outputs(self, host: int) -> dict[str, Array]:
        """The output arrays of a slot on the host."""
        return {name: self.layout.view(host, name) for name in WRITTEN}

    def write_addresses(self, params: Array, device: int) -> None:
        """Point a frame's parameters at the slot on the device."""
        for name in ("frame", *WRITTEN):
            params[name] = device + self.layout.offset(name)
