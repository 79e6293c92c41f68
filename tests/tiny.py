"""A whole artifact in miniature, made from nothing: a body of octahedra and a network of one layer.

Small, but no stand-in: the network is a real ONNX graph whose every output depends on the picture,
and the body is a real SMPL-format file.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from glnet_rt.artifact import Manifest, write_artifact
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.probe import Probe
from glnet_rt.skeleton import (
    COCO_ONLY,
    H36M_17,
    INDEX,
    LEAVES,
    NUM_JOINTS,
    NUM_TWISTS,
    SMPL_PARENTS,
)
from glnet_rt.spec import NetSpec
from tests.human import rest_skeleton

SIZE = 64  # side of the input, px
GRID = 4  # the network sees the mean colour of GRID x GRID tiles
SCALE = 0.45  # crop sides per metre: the whole body fills about four fifths of the crop
NUM_PROBES = 4
_CORNERS = np.array(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64
)
_OCTAHEDRON = np.array(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
)


def body_bytes() -> bytes:
    """`body.npz` of a body whose joints are the centres of octahedra, 5 cm across."""
    rng = np.random.default_rng(1)
    rest = rest_skeleton()
    joints, leaves = rest[:NUM_JOINTS], rest[NUM_JOINTS:]
    corners = (joints[:, None] + 0.025 * _CORNERS).reshape(-1, 3)
    template = np.concatenate([corners, leaves])
    owner = np.repeat(np.arange(NUM_JOINTS), len(_CORNERS))
    leaf_owner = [INDEX[n] for n in ("head", "left_hand", "right_hand", "left_foot", "right_foot")]
    owner = np.concatenate([owner, leaf_owner])
    weights = np.eye(NUM_JOINTS)[owner]
    regressor = weights[: len(corners)].T / len(_CORNERS)
    regressor = np.concatenate([regressor, np.zeros((NUM_JOINTS, len(LEAVES)))], axis=1)
    joint_row = {name: regressor[INDEX[name]] for name in ("head", "left_hip", "right_hip")}
    coco = [joint_row.get(name.replace("_coco", ""), joint_row["head"]) for name in COCO_ONLY]
    parents = [2**32 - 1, *SMPL_PARENTS[1:]]
    stream = io.BytesIO()
    np.savez(
        stream,
        v_template=template.astype(np.float32),
        shapedirs=rng.normal(0, 0.004, (len(template), 3, 10)).astype(np.float32),
        posedirs=rng.normal(0, 0.001, (len(template), 3, 207)).astype(np.float32),
        J_regressor=regressor.astype(np.float32),
        weights=weights.astype(np.float32),
        kintree_table=np.array([parents, range(NUM_JOINTS)], np.int64),
        f=np.concatenate([_OCTAHEDRON + 6 * j for j in range(NUM_JOINTS)]).astype(np.uint32),
        leaf_vertices=np.arange(len(corners), len(template)),
        coco_regressor=np.array(coco, np.float32),
        J_regressor_h36m=np.repeat(regressor[:1], len(H36M_17), 0).astype(np.float32),
        body_id="octahedra",
    )
    return stream.getvalue()


def spec_for(body: bytes, representation: str = "decomposed") -> NetSpec:
    """The contract of the network below."""
    return NetSpec(
        representation=representation,
        input_size=SIZE,
        body_id="octahedra",
        body_sha256=hashlib.sha256(body).hexdigest(),
    )


def model(spec: NetSpec) -> onnx.ModelProto:
    """A graph with the names and shapes of `spec`: colours of tiles -> one layer -> all outputs.

    With nothing to see it predicts a person standing upright, facing the camera.
    """
    rng = np.random.default_rng(2)
    tile, heads = SIZE // GRID, _heads(spec)
    sizes = [base.size for base, _, _ in heads.values()]
    constants = {
        "weight": rng.normal(0, 1.0, (3 * GRID * GRID, sum(sizes))).astype(np.float32),
        "bias": rng.normal(0, 0.3, sum(sizes)).astype(np.float32),
        "sizes": np.array(sizes, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("AveragePool", ["image"], ["tiles"], kernel_shape=[tile] * 2, strides=[tile] * 2),
        node("Flatten", ["tiles"], ["colours"]),
        node("ArgMax", ["colours"], ["pixel"], axis=1, keepdims=0),
        node("Gemm", ["colours", "weight", "bias"], ["layer"]),
        node("Tanh", ["layer"], ["code"]),
        node("Split", ["code", "sizes"], [f"{name}.code" for name in heads], axis=1),
    ]
    for name, (base, gain, last) in heads.items():
        constants[f"{name}.shape"] = np.array([0, *base.shape] if base.shape else [-1], np.int64)
        constants[f"{name}.base"] = base.astype(np.float32)
        constants[f"{name}.gain"] = np.array(gain, np.float32)
        nodes += [
            node("Reshape", [f"{name}.code", f"{name}.shape"], [f"{name}.shaped"]),
            node("Mul", [f"{name}.shaped", f"{name}.gain"], [f"{name}.moved"]),
            node("Add", [f"{name}.moved", f"{name}.base"], [f"{name}.sum"]),
            node(last, [f"{name}.sum"], [name], **({"axis": 2} if last.startswith("Lp") else {})),
        ]
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "pixel" else TensorProto.FLOAT, ["batch", *shape]
        )
        for name, shape in spec.output_shapes.items()
    ]
    shape = ["batch", *spec.input_shape]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


def _heads(spec: NetSpec) -> dict[str, tuple[Array, float, str]]:
    """Output -> its value with nothing to see, how far the picture moves it, and its last node."""
    rest = rest_skeleton()
    points = np.concatenate([rest, np.repeat(rest[[INDEX["head"]]], len(COCO_ONLY), 0)])
    heads = {
        "score": (np.array(1.0), 1.0, "Sigmoid"),
        # The body has y up and faces +z, the crop has v down and d forward: half a turn about x.
        "keypoints_uvd": (
            points * (SCALE, -SCALE, -1 / spec.depth_range_m), 0.02, "Identity",
        ),
        "betas": (np.zeros(spec.num_betas), 0.5, "Identity"),
        "camera_scale": (np.array(SCALE), 0.05, "Identity"),
    }  # fmt: skip
    if spec.representation == "decomposed":
        heads["twist"] = (np.tile([1.0, 0.0], (NUM_TWISTS, 1)), 0.3, "LpNormalization")
    else:
        upright = np.tile([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], (NUM_JOINTS, 1))
        upright[0] = [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]
        heads["rot6d"] = (upright, 0.2, "Identity")
    return heads


def run_reference(graph: onnx.ModelProto, crops: Array, spec: NetSpec) -> NetOutput:
    """What the graph says of [B, S, S, 3] uint8, by onnx's own slow evaluator."""
    names = list(spec.output_shapes)
    rgb = crops[..., ::-1].astype(np.float64) / 255
    batch = ((rgb - spec.mean) / spec.std).transpose(0, 3, 1, 2).astype(np.float32)
    values = ReferenceEvaluator(graph).run(names, {spec.input_name: batch})
    return NetOutput.from_arrays(spec, dict(zip(names, values, strict=True)))


def picture(seed: int, height: int = 120, width: int = 90) -> Array:
    """[H, W, 3] uint8: soft coloured clouds."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (5, 5, 3)).astype(np.float32)
    return (
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)
    )


def write(
    path: Path, *, representation: str = "decomposed", graph: onnx.ModelProto | None = None
) -> Path:
    """Write the miniature artifact; `graph` replaces its model but not its probe."""
    body = body_bytes()
    spec = spec_for(body, representation)
    crops = np.stack([picture(seed, SIZE, SIZE) for seed in range(NUM_PROBES)])
    trained = model(spec)
    probe = Probe(crops, run_reference(trained, crops, spec))
    manifest = Manifest(
        name="tiny",
        licence="CC0-1.0",
        training_data="none: the weights are random numbers",
        spec=spec,
    )
    files = {
        "model.fp32.onnx": (trained if graph is None else graph).SerializeToString(),
        "body.npz": body,
        "probe.npz": probe.to_bytes(spec),
        "parity.json": b"{}",
    }
    return write_artifact(path, manifest, files)
