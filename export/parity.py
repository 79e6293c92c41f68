"""Was anything lost on the way? Every precision and backend against torch in float32, in mm."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Any

import numpy as np
import onnx
import torch

from export.crops import Crops
from export.graph import run_graph, run_torch, winners_of
from glnet_rt.artifact import MADE_OF, Artifact
from glnet_rt.backends import BACKENDS
from glnet_rt.backends.base import Backend, run
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput
from glnet_rt.decode import BodyArrays, decode_arrays
from glnet_rt.errors import GlnetError
from glnet_rt.parity import FLOAT32_MM
from glnet_rt.spec import NetSpec
from train.metrics import pa_mpjpe_mm
from train.model.glnet import GLNet
from train.tables import markdown_table

PROBES = 16
BATCHES = (1, 3, 8)
TIMED_RUNS = 25
# What one thread computes is the process's own CPU time, which a busy machine hardly changes.
CPU_BACKENDS = ("onnxruntime", "openvino", "jit")
COLUMNS = (
    "precision",
    "backend",
    "batch",
    "crops",
    "read at",
    "vertices mean / p99 / max, mm",
    "joints mean, mm",
    "rotation mean, °",
    "2D mean, px",
    "pixel changed",
    "PA-MPJPE, mm",
)
OWN, SAME = "its own", "float32 at the same"
# Logits so near each other are equal to float32: sums in another order change them by as much. Then
# it is no matter of right and wrong which of the two is among the winners.
TIE = 2e-6
HELD_OUT, PROBE = "held-out", "probe"
# A machine whose answers are as good as those judged here passes its self-test but once in 1000.
DRAWS, SURE = 2000, 99.9
BEYOND = 1.5  # the worst of other crops may be so much worse than the worst of these


@dataclass(frozen=True)
class Gate:
    """What a precision may be off the trained network in float32.

    Attributes:
        mean_mm, p99_mm, max_mm: vertices, pelvis on pelvis.
        pa_mpjpe_mm: by how much the error against the ground truth may grow.
        noise: of a network that has learned nothing, whose millimetres mean nothing: error of its
            outputs at the same pixels, over how much they differ from crop to crop.
    """

    mean_mm: float = inf
    p99_mm: float = inf
    max_mm: float = inf
    pa_mpjpe_mm: float = inf
    noise: float = inf

    def failures(self, row: Mapping[str, Any]) -> list[str]:
        """One sentence for every limit that a row breaks; a NaN breaks it too."""
        limits = {
            "vertices_mean_mm": self.mean_mm,
            "vertices_p99_mm": self.p99_mm,
            "vertices_max_mm": self.max_mm,
            "pa_mpjpe_change_mm": self.pa_mpjpe_mm,
        }
        return [
            f"{name} {row[name]:.3f} > {limit:g}"
            for name, limit in limits.items()
            if limit < inf and not row[name] <= limit
        ]

    def noise_failures(self, row: Mapping[str, Any]) -> list[str]:
        """The same for a network that has learned nothing."""
        return [] if row["noise"] <= self.noise else [f"noise {row['noise']:.4f} > {self.noise:g}"]


# fp32: only rounding of sums differs. fp16, packed: a few people lie between two readings, and the
# least change decides; the largest error says which, not how good the model is. int8 changes what
# every body looks like a little, so that it is judged by whether bodies are worse. Noise: unrelated
# answers have 1.4, and layers that learned nothing amplify rounding, so that INT8 comes to more.
GATES = {
    "fp32": Gate(0.1, 0.1, 0.1, noise=1e-3),
    "fp16": Gate(1.0, 5.0, noise=0.1),
    "int8": Gate(pa_mpjpe_mm=1.0, noise=3.0),
    "fp8": Gate(pa_mpjpe_mm=1.0, noise=3.0),
    "packed": Gate(1.0, 5.0, noise=0.1),
    "bf16": Gate(pa_mpjpe_mm=1.0, noise=3.0),
}


@dataclass(frozen=True, eq=False)
class Judged:
    """What every precision is judged on: crops, and what the trained network says of them.

    Attributes:
        bgr: [N, S, S, 3] uint8, as backends take them.
        images: [N, 3, S, S] float32, the same as the models take them.
        reference: torch's outputs in float32.
        bodies: of the reference.
        joints: [N, 24, 3] ground truth, or None.
        model: the trained network.
    """

    bgr: Array
    images: Array
    reference: Mapping[str, Array]
    bodies: BodyArrays
    joints: Array | None
    model: GLNet

    @classmethod
    def of(cls, model: GLNet, body: BodyModel, crops: Crops) -> Judged:
        """Run the trained network on crops."""
        spec = model.config.spec
        images = crops.images(spec)
        reference = run_torch(model, images)
        bodies = decoded(body, spec, reference)
        return cls(crops.bgr, images, reference, bodies, crops.joints, model)

    def told_otherwise(self, body: BodyModel, who: Array) -> tuple[Array, Judged]:
        """What float32 may say as well, where the last winner and the next pixel are tied.

        Args:
            who: [M] int64, indices of crops.

        Returns:
            [M'] int64, those of them that are tied, and these with the other pixel among winners.
        """
        spec, count = self.model.config.spec, self.model.config.winners
        with torch.inference_mode():
            ranked = self.model.eval().ranked(torch.from_numpy(self.images[who]), count + 1)
        logits, pixels = (values.numpy() for values in ranked)
        tied = logits[:, count - 1] - logits[:, count] < TIE
        who, pixels = who[tied], pixels[tied]
        winners = np.concatenate([pixels[:, : count - 1], pixels[:, count:]], 1)
        images = self.images[who]
        reference = run_torch(self.model, images, winners) if len(who) else self.reference
        joints = None if self.joints is None else self.joints[who]
        bodies = decoded(body, spec, reference)
        return who, Judged(self.bgr[who], images, reference, bodies, joints, self.model)


@dataclass(frozen=True, eq=False)
class Differences:
    """Two answers to the same N crops, person by person.

    Attributes:
        vertices_mm: [N, V] and joints_mm: [N, 24], pelvis on pelvis.
        rotation_deg: [N, 24], of local rotations.
        keypoints_px: [N, 36], in the crop.
        pelvises_mm: [N], in the camera frame.
        same_pixel: [N] bool.
        tied: [N] bool, where these are differences from the other of two right answers.
        pa_mpjpe_mm: [N], error against the ground truth, or None.
        reference_pa_mpjpe_mm: the same of float32.
    """

    vertices_mm: Array
    joints_mm: Array
    rotation_deg: Array
    keypoints_px: Array
    pelvises_mm: Array
    same_pixel: Array
    tied: Array
    pa_mpjpe_mm: Array | None
    reference_pa_mpjpe_mm: Array | None

    def row(self, who: slice = slice(None)) -> dict[str, Any]:
        """JSON values over some of the crops."""
        values: dict[str, Any] = {"crops": len(self.tied[who]), "ties": int(self.tied[who].sum())}
        for name, unit in (("vertices", "mm"), ("joints", "mm"), ("rotation", "deg")):
            values |= spread(f"{name}_%s_{unit}", getattr(self, f"{name}_{unit}")[who])
        values |= spread("keypoints_%s_px", self.keypoints_px[who])
        values["pelvis_max_mm"] = float(self.pelvises_mm[who].max())
        values["pixel_changed"] = float(1 - self.same_pixel[who].mean())
        if self.pa_mpjpe_mm is not None and self.reference_pa_mpjpe_mm is not None:
            ours = float(self.pa_mpjpe_mm[who].mean())
            values["pa_mpjpe_mm"] = ours
            values["pa_mpjpe_change_mm"] = ours - float(self.reference_pa_mpjpe_mm[who].mean())
        return values

    def tolerance(self) -> dict[str, float]:
        """What the self-test may allow, from what these crops show."""
        each = self.vertices_mm.mean(1)
        draws = np.random.default_rng(0).choice(each, (DRAWS, PROBES)).mean(1)
        return {
            "mean_mm": float(np.percentile(draws, SURE)) + FLOAT32_MM,
            "max_mm": BEYOND * float(self.vertices_mm.max()) + FLOAT32_MM,
            "transl_mm": BEYOND * float(self.pelvises_mm.max()) + FLOAT32_MM,
        }


def spread(name: str, values: Array) -> dict[str, float]:
    """Mean, 99th percentile and maximum, under `name` with each in its place."""
    figures = {"mean": values.mean(), "p99": np.percentile(values, 99), "max": values.max()}
    return {name % kind: float(value) for kind, value in figures.items()}


def decoded(body: BodyModel, spec: NetSpec, outputs: Mapping[str, Array]) -> BodyArrays:
    """Bodies of crops seen by themselves."""
    output = NetOutput.from_arrays(spec, outputs)
    return decode_arrays(body, spec, output, np.zeros((len(output.score), 2)), spec.focal)


def compare(
    body: BodyModel,
    spec: NetSpec,
    outputs: Mapping[str, Array],
    judged: Judged,
    *,
    tied: bool = False,
) -> Differences:
    """Decode a precision's answers into bodies and hold them against the reference's.

    Args:
        tied: whether `judged` holds the other of two right answers.
    """
    ours, theirs = decoded(body, spec, outputs), judged.bodies
    roots = [bodies.joints[:, :1].astype(np.float64) for bodies in (ours, theirs)]
    vertices, joints = (
        1000 * np.linalg.norm((a - roots[0]) - (b - roots[1]), axis=-1)
        for a, b in ((ours.vertices, theirs.vertices), (ours.joints, theirs.joints))
    )
    uv = outputs["keypoints_uvd"][..., :2] - judged.reference["keypoints_uvd"][..., :2]
    truth = judged.joints
    return Differences(
        vertices_mm=vertices,
        joints_mm=joints,
        rotation_deg=angles_deg(ours.rotmats, theirs.rotmats),
        keypoints_px=np.linalg.norm(uv, axis=-1) * spec.input_size,
        pelvises_mm=1000 * np.linalg.norm(roots[0] - roots[1], axis=-1)[:, 0],
        same_pixel=outputs["pixel"] == judged.reference["pixel"],
        tied=np.full(len(uv), tied),
        pa_mpjpe_mm=None if truth is None else pa_mpjpe_mm(ours.joints, truth),
        reference_pa_mpjpe_mm=None if truth is None else pa_mpjpe_mm(theirs.joints, truth),
    )


def angles_deg(a: Array, b: Array) -> Array:
    """Angle between rotations [..., 3, 3]; its sine from the chord, which small angles keep."""
    chord = np.linalg.norm(a.astype(np.float64) - b, axis=(-2, -1)) / 8**0.5
    return np.degrees(2 * np.arcsin(np.minimum(chord, 1.0)))


def noise(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> float:
    """Error of the worst output over how much it differs from crop to crop, root mean squares."""
    worst = 0.0
    for name, values in reference.items():
        if name != "pixel":
            signal = np.sqrt(np.mean((values - values.mean(0)) ** 2))
            worst = max(worst, float(np.sqrt(np.mean((outputs[name] - values) ** 2)) / signal))
    return worst


def run_backend(session: Backend, bgr: Array, spec: NetSpec, batch: int) -> dict[str, Array]:
    """Outputs of an open session, `batch` crops at a time."""
    parts = [run(session, bgr[i : i + batch], spec) for i in range(0, len(bgr), batch)]
    return {name: np.concatenate([getattr(p, name) for p in parts]) for name in spec.output_shapes}


def judge(
    artifact: Artifact, body: BodyModel, judged: Judged
) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]], list[dict[str, str]]]:
    """Every precision of an artifact on every backend that works here, at every batch size.

    Returns:
        Rows of the report; precision -> what its self-test allows; what could not run, and why. A
        precision that is no model of its own, and breaks its gate, is told there and not allowed.
    """
    rows, missing = [], []
    tolerances: dict[str, dict[str, float]] = {}
    for kind in BACKENDS:
        for precision in artifact.manifest.computable:
            told = {"precision": precision, "backend": kind.name}
            if precision not in kind.precisions:
                continue
            try:
                session = kind.open(artifact, precision, threads=None)
            except GlnetError as error:
                missing.append({**told, "reason": error.what})
                continue
            with session:
                for batch in BATCHES:
                    outputs = run_backend(session, judged.bgr, artifact.spec, batch)
                    found = compare(body, artifact.spec, outputs, judged)
                    told |= {"batch": batch, "pixels": OWN}
                    if precision == "fp32":
                        found = but_for_ties(body, outputs, judged, found)
                    rows.append({**told, "crops_of": HELD_OUT, **found.row()})
                    rows.append({**told, "crops_of": PROBE, **found.row(slice(PROBES))})
                    tolerances[precision] = widest(tolerances.get(precision), found.tolerance())
    tolerances |= {"fp32": dict.fromkeys(("mean_mm", "max_mm", "transl_mm"), FLOAT32_MM)}
    for precision in MADE_OF:
        broken = gate_failures(rows, precision) if judged.joints is not None else ["no labels"]
        if precision in tolerances and broken:
            del tolerances[precision]
            missing += [
                {"precision": precision, "backend": row["backend"], "reason": "; ".join(broken)}
                for row in rows
                if row["precision"] == precision and row["batch"] == 1
            ][:1]
    return rows, tolerances, missing


def but_for_ties(
    body: BodyModel, outputs: Mapping[str, Array], judged: Judged, found: Differences
) -> Differences:
    """Float32's differences from whichever of two right answers is nearer: every vertex still has
    to be where one of them puts it."""
    far = np.flatnonzero(found.vertices_mm.max(1) > FLOAT32_MM)
    if not len(far):
        return found
    who, other = judged.told_otherwise(body, far)
    if not len(who):
        return found
    theirs = {name: values[who] for name, values in outputs.items()}
    again = compare(body, judged.model.config.spec, theirs, other, tied=True)
    nearer = again.vertices_mm.max(1) < found.vertices_mm[who].max(1)
    changed = {}
    for field in fields(Differences):
        values, instead = getattr(found, field.name), getattr(again, field.name)
        if values is not None:
            values = values.copy()
            values[who[nearer]] = instead[nearer]
        changed[field.name] = values
    return Differences(**changed)


def gate_failures(rows: Sequence[Mapping[str, Any]], precision: str) -> list[str]:
    """What broke the gate of one precision on held-out crops."""
    return [
        f"{row['precision']} on {row['backend']} at batch {row['batch']}: {failure}"
        for row in rows
        if row["precision"] == precision and row["pixels"] == OWN and row["crops_of"] == HELD_OUT
        for failure in GATES[precision].failures(row)
    ]


def widest(a: dict[str, float] | None, b: dict[str, float]) -> dict[str, float]:
    """The larger of each number."""
    return b if a is None else {name: max(a[name], b[name]) for name in b}


def at_the_same_pixels(
    model: GLNet, body: BodyModel, proto: onnx.ModelProto, judged: Judged, precision: str
) -> dict[str, Any]:
    """One row: a graph on ONNX Runtime beside torch, which predicts at the graph's own winners.

    What is left is loss of precision; what the plain rows show beyond it comes of pixels that won
    by a hair and win no more.
    """
    spec, winners = model.config.spec, winners_of(proto)
    outputs = run_graph(proto, spec, judged.images, max(BATCHES), (winners,))
    reference = run_torch(model, judged.images, outputs.pop(winners))
    bodies = decoded(body, spec, reference)
    there = Judged(judged.bgr, judged.images, reference, bodies, judged.joints, model)
    return {
        "precision": precision,
        "backend": "onnxruntime",
        "batch": max(BATCHES),
        "pixels": SAME,
        "crops_of": HELD_OUT,
        **compare(body, spec, outputs, there).row(),
        "noise": noise(outputs, reference),
    }


def times(artifact: Artifact, crop: Array) -> list[dict[str, Any]]:
    """Milliseconds of one crop on one thread, runs of all precisions interleaved; over fp32's.

    CPU time where the CPU computes, wall time elsewhere.

    Medians; a backend that does not run fp32 here is left out.
    """
    rows = []
    for kind in BACKENDS:
        sessions: dict[str, Backend] = {}
        for precision in artifact.manifest.computable:
            if precision in kind.precisions:
                try:
                    sessions[precision] = kind.open(artifact, precision, threads=1)
                except GlnetError:
                    continue  # told by `judge`
        if "fp32" in sessions:
            on_cpu = kind.name in CPU_BACKENDS
            medians = interleaved_ms(sessions, crop, cpu_time=on_cpu)
            rows += [
                {
                    "backend": kind.name,
                    "precision": precision,
                    "ms": medians[precision],
                    "over_fp32": medians[precision] / medians["fp32"],
                }
                for precision in sessions
            ]
        for session in sessions.values():
            session.close()
    return rows


def interleaved_ms(
    sessions: Mapping[str, Backend], crop: Array, *, cpu_time: bool
) -> dict[str, float]:
    """Median CPU or wall time of each session, the first run of each left out."""
    clock_ns = time.process_time_ns if cpu_time else time.perf_counter_ns
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(TIMED_RUNS + 1):
        for name, session in sessions.items():
            started = clock_ns()
            session.infer(crop)
            taken[name].append((clock_ns() - started) / 1e6)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def failures(
    rows: Sequence[Mapping[str, Any]], precisions: Sequence[str], learned: bool
) -> list[str]:
    """What broke its gate, and which precision ran nowhere.

    Args:
        learned: False judges a random network, by its noise at the same pixels alone.
    """
    if learned:
        broken = [failure for p in precisions for failure in gate_failures(rows, p)]
    else:
        broken = [
            f"{row['precision']} on {row['backend']}: {failure}"
            for row in rows
            if row["pixels"] == SAME
            for failure in GATES[row["precision"]].noise_failures(row)
        ]
    judged = {row["precision"] for row in rows if row["pixels"] == OWN}
    return broken + [f"{p} ran on no backend here" for p in precisions if p not in judged]


def markdown(report: Mapping[str, Any]) -> str:
    """The report for readers: a table of errors and one of times."""
    errors = markdown_table(
        COLUMNS,
        [
            [
                row["precision"],
                row["backend"],
                str(row["batch"]),
                f"{row['crops']} {row['crops_of']}",
                row["pixels"],
                " / ".join(f"{row[f'vertices_{kind}_mm']:.3g}" for kind in ("mean", "p99", "max"))
                + (f" ({row['ties']} tied)" if row["ties"] else ""),
                f"{row['joints_mean_mm']:.3g}",
                f"{row['rotation_mean_deg']:.3g}",
                f"{row['keypoints_mean_px']:.3g}",
                f"{100 * row['pixel_changed']:.1f} %",
                f"{row['pa_mpjpe_change_mm']:+.3f}" if "pa_mpjpe_mm" in row else "-",
            ]
            for row in report["rows"]
        ],
    )
    taken = markdown_table(
        ["backend", "precision", "ms", "over fp32"],
        [
            [row["backend"], row["precision"], f"{row['ms']:.1f}", f"{row['over_fp32']:.2f}"]
            for row in report["times"]
        ],
    )
    missing = "".join(
        f"\n{row['precision']} on {row['backend']} did not run: {row['reason']}.\n"
        for row in report["not_run"]
    )
    return (
        "Against torch in float32. PA-MPJPE: change of the error against the ground truth.\n\n"
        f"{errors}\n\nOne crop on one thread of {report['cpu']}, CPU time, medians of interleaved "
        "runs:\n\n"
        f"{taken}\n{missing}"
    )
