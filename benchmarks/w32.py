"""`python -m benchmarks.w32`: GLNet-W32 in real time on a CPU, beside the usual way.

*Network*: one inference of one crop by each backend beside torch eager of the same sparse network,
and which share of the core's measured peak a direct convolution would need for that; Winograd needs
less, so that it may be more than one. *Chain*: a 1080p video from the file to vertices, beside
OpenCV, the dense network in torch eager, and smplx. Both in CPU time of one thread, everything in
turns in one process. *Video*: frames per second of a 720p video end to end, with W32 and with the
model of the package. The weights of W32 are random: they cost the same. What a CPU without VNNI
comes to goes into a file of its own, without what cannot run there.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch

import glnet_rt
from benchmarks import _alternatives as alternatives
from benchmarks._peak import peaks
from benchmarks._record import ROOT, name_here, write
from benchmarks.latency import interleaved, spread
from export.random_network import random_network, random_preset
from glnet_rt import Frame, Result
from glnet_rt.artifact import BODY, Artifact, model_name
from glnet_rt.body_file import parse_body
from glnet_rt.body_model import BodyModel
from glnet_rt.cli.demo import CLIP
from glnet_rt.contracts import Array
from glnet_rt.errors import BackendError
from glnet_rt.finder import Found
from glnet_rt.stream import open_source
from train.model.config import as_in_the_paper, preset
from train.model.glnet import GLNet
from train.tables import markdown_table

ARTIFACT = ROOT / "out" / "w32.glnet"
PRECISIONS = ("fp32", "bf16", "int8")
CHAINS = [(backend, precision) for backend in ("openvino", "jit") for precision in PRECISIONS]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.w32", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--artifact", type=Path, default=ARTIFACT, help="made where it is missing")
    parser.add_argument("--runs", type=int, default=40, help="of each network and chain")
    parser.add_argument("--frames", type=int, default=300, help="of the 720p video")
    parser.add_argument("--rounds", type=int, default=5, help="of the 720p video")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    make_artifact(arguments.artifact)
    with tempfile.TemporaryDirectory() as folder:
        full_hd = clip(Path(folder) / "1080p.mp4", (1920, 1080), 60)
        hd = clip(Path(folder) / "720p.mp4", (1280, 720), arguments.frames)
        network, operations, peak = network_rows(arguments.artifact, arguments.runs)
        chains = [way for way in CHAINS if opens(arguments.artifact, *way)]
        chain = chain_rows(arguments.artifact, chains, full_hd, arguments.runs)
        video = video_rows(arguments.artifact, chains, hd, arguments.rounds)
    values = {
        "weights": "random, seed 0", "network_gmac": operations / 2e9, "peak_gops": peak,
        "network": network, "chain": chain, "video": video,
    }  # fmt: skip
    text = "\n\n".join(
        f"### {name.capitalize()}\n\n{table(rows)}"
        for name, rows in (("network", network), ("chain", chain), ("video", video))
    )
    path = write(name_here("w32"), values)
    path.with_suffix(".md").write_text(text + "\n")
    print(f"{text}\n\nwrote {path.relative_to(ROOT)} and .md")


def make_artifact(path: Path) -> None:
    """Export a random W32 where there is none: some five minutes."""
    if not path.exists():
        command = [sys.executable, "-m", "export", "--random", "w32", "--judged", "16"]
        subprocess.run([*command, "--out", str(path)], cwd=ROOT, check=True)


def opens(artifact: Path, backend: str, precision: str) -> bool:
    """Whether a backend runs a precision on this CPU; told on stderr where it does not."""
    try:
        glnet_rt.load(artifact, backend=backend, precision=precision, threads=1).close()
    except BackendError as error:
        print(f"{backend} {precision}: {error.what}", file=sys.stderr)
        return False
    return True


def clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """The package's clip again and again, enlarged, as MPEG-4."""
    with open_source(CLIP) as source:
        pictures = [cv2.resize(frame.image, size) for frame in source]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, size)
    for i in range(frames):
        writer.write(pictures[i % len(pictures)])
    writer.release()
    return path


def person_box(size: tuple[int, int]) -> Array:
    """[1, 4], an upright box half as high as the picture."""
    width, height = size
    return np.array([[0.4 * width, 0.25 * height, 0.4 * width + 0.2 * height, 0.75 * height]])


# -- the network -----------------------------------------------------------------------------------


def network_rows(path: Path, runs: int) -> tuple[list[dict[str, Any]], float, dict[str, float]]:
    """Rows, operations of one inference, and the core's peaks before and after, the higher."""
    opened = Artifact.open(path)
    body = BodyModel.from_bytes(opened.read(BODY), BODY)
    model = random_preset("w32", body, seed=0)
    operations = 2 * multiplications(onnx.load_from_string(opened.read(model_name("fp32"))))
    before = peaks()
    backends = ("openvino", "jit", "onnxruntime")
    with alternatives.networks(str(path), 1, backends, PRECISIONS) as ways:
        rows = interleaved({**alternatives.torch_ways(model, 1, compiled=False), **ways}, runs)
    after = peaks()
    peak = {name: max(before[name], after[name]) for name in before}
    slowest = rows[0]["p50_ms"]
    for row in rows:
        row["faster_than_eager"] = slowest / row["p50_ms"]
        precision = row["name"].split()[-1]
        if precision in peak:
            row["share_of_peak"] = operations / row["p50_ms"] / 1e6 / peak[precision]
    return rows, operations, peak


def multiplications(proto: onnx.ModelProto) -> float:
    """Of all convolutions, for one person: nearly all the work there is."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    kernels = {tensor.name: tensor.dims for tensor in graph.initializer}
    return float(
        sum(
            np.prod(kernels[node.input[1]]) * np.prod(shapes[node.output[0]][2:])
            for node in graph.node
            if node.op_type == "Conv"
        )
    )


# -- from the file to vertices ---------------------------------------------------------------------


def chain_rows(
    path: Path, chains: Sequence[tuple[str, str]], video: Path, runs: int
) -> list[dict[str, Any]]:
    """CPU time of one frame with one person, on one thread, by ours and by the usual chain."""
    taken: dict[str, list[float]] = {}
    stages: dict[str, dict[str, list[float]]] = {}
    ways: dict[str, Iterator[dict[str, float]]] = {"cv2, torch eager dense, smplx": usual(video)}
    for backend, precision in chains:
        ways[f"glnet_rt, {backend} {precision}"] = ours(path, backend, precision, video)
    for i in range(2 + runs):
        for name, frames in ways.items():
            started = time.process_time()
            told = next(frames)
            if i >= 2:
                taken.setdefault(name, []).append(1000 * (time.process_time() - started))
                for stage, ms in told.items():
                    stages.setdefault(name, {}).setdefault(stage, []).append(ms)
    longest = statistics.median(next(iter(taken.values())))
    return [
        {
            "name": name,
            **spread(values),
            "faster": longest / statistics.median(values),
            **{f"{s}_ms": statistics.median(v) for s, v in stages.get(name, {}).items()},
        }
        for name, values in taken.items()
    ]


def ours(path: Path, backend: str, precision: str, video: Path) -> Iterator[dict[str, float]]:
    """Frame after frame; yields the stages' wall milliseconds."""
    with glnet_rt.load(path, backend=backend, precision=precision, threads=1) as hmr:
        while True:
            with open_source(video) as source:
                for frame in source:
                    size = (frame.image.shape[1], frame.image.shape[0])
                    told = hmr(frame, boxes=person_box(size)).timings_ms
                    yield {stage: told[stage] for stage in ("crop", "infer", "decode")}


def usual(video: Path) -> Iterator[dict[str, float]]:
    """OpenCV reads, warps and normalises; torch predicts from every pixel; smplx poses."""
    path = ROOT / "glnet_rt/assets/body.npz"
    file = parse_body(path.read_bytes(), path.name)
    body = BodyModel(file)
    config = preset("w32", representation="direct", body_id=body.body_id, body_sha256=body.sha256)
    config = dataclasses.replace(
        as_in_the_paper(config), heatmaps=False, surface=False, global_baseline=False
    )
    model = random_network(config, seed=0)
    pose = alternatives.smplx_body(file, 1)
    with torch.inference_mode():
        while True:
            capture = cv2.VideoCapture(str(video))
            while True:
                there, image = capture.read()
                if not there:
                    break
                box = person_box((image.shape[1], image.shape[0]))
                crops = alternatives.warp_whole(image, box, config.spec)
                dense_bodies(model, pose, torch.from_numpy(crops))
                yield {}


def dense_bodies(model: GLNet, pose: Callable[..., object], images: torch.Tensor) -> object:
    """Every pixel predicts; the best one's rotations, shape and place become vertices."""
    told = model(images)
    best = told.score_logits.flatten(1).argmax(1)
    some = torch.arange(len(best))
    x, y = told.rotation[some, best].reshape(-1, 24, 3, 2).unbind(-1)
    x = torch.nn.functional.normalize(x, dim=-1)
    y = torch.nn.functional.normalize(y - (x * y).sum(-1, keepdim=True) * x, dim=-1)
    rotmats = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    spec = model.config.spec
    depth = spec.focal / told.camera_scale
    pelvis = told.keypoints_uvd[some, best, 0, :2] * depth[:, None] / spec.focal
    return pose(
        betas=told.betas,
        global_orient=rotmats[:, :1],
        body_pose=rotmats[:, 1:],
        transl=torch.cat([pelvis, depth[:, None]], 1),
        pose2rot=False,
    )


# -- frames per second -----------------------------------------------------------------------------


class OnePerson:
    """Knows where the person is: nothing is spent on finding."""

    lag = 0

    def find(self, frame: Frame, known: Result | None) -> Found:
        return Found(person_box((frame.image.shape[1], frame.image.shape[0])))


def video_rows(
    path: Path, chains: Sequence[tuple[str, str]], video: Path, rounds: int
) -> list[dict[str, Any]]:
    """Frames per second of wall time, all cores, decoding the file included, overlay off."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cases = {("w32", *chain): path for chain in chains} | {
        ("default.glnet", backend, "packed"): None for backend in ("openvino", "jit", "onnxruntime")
    }
    loaded = {
        case: glnet_rt.load(artifact, backend=case[1], precision=case[2])
        for case, artifact in cases.items()
    }
    fps: dict[Any, list[float]] = {case: [] for case in cases}
    for number in range(1 + rounds):
        for case, hmr in loaded.items():
            started = time.perf_counter()
            frames = sum(1 for _ in hmr.video(video, finder=OnePerson()))
            if number:
                fps[case].append(frames / (time.perf_counter() - started))
    return [
        {"model": model, "backend": backend, "precision": precision, "cores": cores,
         "fps": statistics.median(values), "fps_slowest_round": min(values)}
        for (model, backend, precision), values in fps.items()
    ]  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[shown(row.get(column, "")) for column in columns] for row in rows]
    return markdown_table(columns, cells)


def shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
