"""One image in, people out: crop, infer, decode. The core, readable on one screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from glnet_rt import backends
from glnet_rt._closing import Closing
from glnet_rt.artifact import BODY, Artifact
from glnet_rt.backends.base import Backend, run
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Frame, Person, Result
from glnet_rt.crop import check_boxes, cut_crops, whole_image_box
from glnet_rt.decode import Decoder
from glnet_rt.errors import BackendError, ContractError
from glnet_rt.image import read_image
from glnet_rt.parity import Parity, Tolerance
from glnet_rt.probe import Probe, VerifyReport, compare
from glnet_rt.spec import NetSpec

MAX_BATCH = 16  # people per inference; bounds memory, and more gain nothing on a CPU


def load(
    artifact: str | Path | None = None,
    *,
    backend: str = "auto",
    precision: str = "auto",
    body: str | Path | BodyModel | None = None,
    threads: int | None = None,
    tune: bool | None = None,
) -> Estimator:
    """Open an artifact, verify it, and choose what runs it.

    Args:
        artifact: a `.glnet` file or folder; None for the one that comes with the package.
        backend: a name, which never falls back, or `auto` for the first that works here.
        precision: `fp32`, `fp16`, `bf16`, `int8`, `fp8`, `packed`, or `auto` for the fastest.
        body: an SMPL-format body file, or a loaded body; None for the artifact's own. It must be
            the body the weights were trained on.
        threads: CPU threads for one inference; None leaves it to the backend.
        tune: True measures here, in about three seconds, which backend, precision and number of
            threads is the fastest, and remembers it; None takes what was remembered; False, and
            where nothing was, takes the order that export recorded.

    Raises:
        ArtifactError: the artifact or the body is missing, damaged or changed.
        BackendError, MissingDependencyError: nothing, or not what was named, can run it here.
        ContractError: the body is another than the weights were trained on, or a bad argument.
    """
    opened = Artifact.open(artifact)
    if body is None:
        body = BodyModel.from_bytes(opened.read(BODY), BODY)
    elif not isinstance(body, BodyModel):
        body = BodyModel.load(body)
    decoder = Decoder(body, opened.spec)
    chosen, attempts = backends.select(opened, backend, precision, threads=threads, tune=tune)
    return Estimator(opened, chosen, decoder, attempts)


class Estimator(Closing):
    """Finds the bodies in pictures. `glnet_rt.load` makes one.

    Several threads may call it; they take turns, since one session owns the device. `close` it, or
    use it in a `with` block.

    Args:
        artifact: the verified artifact.
        backend: an open session of one of its models.
        decoder: of the artifact's body and spec.
        attempts: what was considered before `backend` was chosen.
    """

    def __init__(
        self,
        artifact: Artifact,
        backend: Backend,
        decoder: Decoder,
        attempts: tuple[backends.Attempt, ...] = (),
    ) -> None:
        self.artifact = artifact
        self.backend = backend
        self.attempts = attempts
        self._decoder = decoder
        self._turn = threading.Lock()
        self._closed = False

    def __call__(
        self, image: Array | str | Path | Frame, boxes: object = None, K: object = None
    ) -> Result:
        """Recover the people of one picture.

        Args:
            image: [H, W, 3] uint8 BGR, the path of a picture, or a Frame.
            boxes: [N, 4] array-like, one person's `bbox_xyxy` per row, edges in image px. None
                takes the whole picture as one person; no rows give no people.
            K: [3, 3] array-like, intrinsics in px, no skew; None assumes GLNet's virtual camera.
                Goes before the Frame's own.

        Returns:
            One Person per box, in the order of the boxes.

        Raises:
            ContractError: an image, a box or a K that cannot be used.
            SourceError: the path is missing or no picture.
            BackendError: the network failed, or the estimator is closed.
        """
        self._check_open()
        timings_ms = dict.fromkeys(("read", "crop", "infer", "decode"), 0.0)
        with _timed("read", timings_ms):
            frame = _as_frame(image, K)
        height, width = frame.image.shape[:2]
        boxes = whole_image_box(frame.image)[None] if boxes is None else boxes
        checked = check_boxes(boxes, (width, height))
        people: list[Person] = []
        for start in range(0, len(checked), MAX_BATCH):
            group = checked[start : start + MAX_BATCH]
            with _timed("crop", timings_ms):
                batch, crops = cut_crops(frame.image, group, self.spec, frame.frame_id)
            with self._turn:
                self._check_open()
                with _timed("infer", timings_ms):
                    output = run(self.backend, batch, self.spec)
                with _timed("decode", timings_ms):
                    people.extend(self._decoder(output, crops, (width, height), frame.K))
        return Result(
            people=tuple(people),
            frame_id=frame.frame_id,
            timestamp_ns=frame.timestamp_ns,
            image_size=(width, height),
            faces=self.body.faces,
            timings_ms=timings_ms,
        )

    def warm_up(self, people: int = 1) -> None:
        """Run everything once, on grey pictures, so that the first frame is as quick as others.

        Args:
            people: most of them in a frame; what runs several is compiled for the first time here.

        Raises:
            BackendError: the network failed, or the estimator is closed.
        """
        size = self.spec.input_size
        grey = np.full((size, size, 3), backends.GREY, np.uint8)
        for count in sorted({1, min(people, MAX_BATCH)}):
            self(grey, boxes=whole_image_box(grey)[None].repeat(count, axis=0))

    def video(self, path: str | Path, K: object = None) -> Iterator[Result]:
        """The people of every frame of a video, a folder of pictures or a picture, in order.

        Args:
            path: what `glnet_rt.stream.source.open_source` reads.
            K: as in a call, the same for every frame.

        Raises:
            SourceError: missing or unreadable; or broken off, once every good frame was handed on.
        """
        from glnet_rt.stream.source import open_source

        with open_source(path) as source:
            for frame in source:
                yield self(frame, K=K)

    def verify(self, tolerance: Tolerance | None = None) -> VerifyReport:
        """Run the artifact's probe crops here and compare the bodies with the stored ones.

        Args:
            tolerance: what still passes; None for what the artifact allows its precision.

        Raises:
            ArtifactError: the probe does not fit the artifact.
            BackendError: the network failed, or the estimator is closed.
        """
        probe = Probe.read(self.artifact)
        if tolerance is None:
            tolerance = Parity.read(self.artifact).tolerance(self.backend.precision)
        with self._turn:
            self._check_open()
            return compare(probe, self.backend, self.body, self.spec, tolerance)

    def explain(self) -> str:
        """What is loaded, and which backends were chosen and rejected, each with the reason."""
        manifest = self.artifact.manifest
        lines = [
            f"artifact {self.artifact.path}: {manifest.name}, licence {manifest.licence}",
            f"network {self.spec.preset}, {self.spec.representation}, "
            f"{self.spec.input_size} px, precisions {', '.join(manifest.precisions)}",
            f"body {self.body.body_id}, {len(self.body.v_template)} vertices",
            *map(str, self.attempts),
        ]
        return "\n".join(lines)

    @property
    def spec(self) -> NetSpec:
        """The network's contract."""
        return self.artifact.spec

    @property
    def body(self) -> BodyModel:
        """The body every Person is a pose and a shape of."""
        return self._decoder.body

    def close(self) -> None:
        """Free the session, after the call that is running. Calling it again does nothing."""
        with self._turn:
            self._closed = True
            self.backend.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(
                "the estimator is closed",
                got="a call after close()",
                expected="an open one",
                fix="load the artifact again: glnet_rt.load()",
            )


def _as_frame(image: Array | str | Path | Frame, K: object) -> Frame:
    """Whatever the caller has, as a checked Frame."""
    if isinstance(image, Frame):
        if K is None:
            return image
        return Frame(image.image, image.frame_id, image.timestamp_ns, _as_intrinsics(K))
    if isinstance(image, (str, Path)):
        image = read_image(image)
    return Frame(image, K=None if K is None else _as_intrinsics(K))


def _as_intrinsics(K: object) -> Array:
    try:
        return np.array(K, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(
            "K is no matrix of numbers",
            got=f"{type(K).__name__} ({error})",
            expected="[3, 3] intrinsics, px",
        ) from error


@contextmanager
def _timed(stage: str, timings_ms: dict[str, float]) -> Iterator[None]:
    """Add the wall time of the block to `timings_ms[stage]`."""
    started = time.perf_counter_ns()
    try:
        yield
    finally:
        timings_ms[stage] += (time.perf_counter_ns() - started) / 1e6
