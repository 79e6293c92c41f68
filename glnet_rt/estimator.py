"""One image in, people out: crop, infer, decode. The core, readable on one screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glnet_rt import backends
from glnet_rt._closing import Closing
from glnet_rt.artifact import BODY, Artifact
from glnet_rt.backends.base import Backend, run
from glnet_rt.body_model import BodyModel
from glnet_rt.camera import crop_camera
from glnet_rt.contracts import Array, Crop, Frame, NetOutput, Person, Result
from glnet_rt.crop import check_boxes, cut_crops, whole_image_box
from glnet_rt.decode import Decoder
from glnet_rt.detect.base import Detector
from glnet_rt.errors import BackendError, ContractError
from glnet_rt.finder import BoxFinder
from glnet_rt.image import read_image
from glnet_rt.parity import Parity, Tolerance
from glnet_rt.probe import Probe, VerifyReport, compare
from glnet_rt.spec import NetSpec
from glnet_rt.trace import Timings, Trace

if TYPE_CHECKING:
    from glnet_rt.stream.channel import Drop
    from glnet_rt.stream.live import LiveSession
    from glnet_rt.stream.source import Source

MAX_BATCH = 16  # people per inference; bounds memory, and more gain nothing on a CPU
MAX_STREAMS = 16  # inferences at a time, where the backend can
DEFAULT_BATCH = 4  # crops per inference of a video


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

    Several threads may call it; they take turns, unless the backend is `concurrent`. `close` it, or
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
        self._turns = _Turns(MAX_STREAMS if backend.concurrent else 1)
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
        timings = Timings()
        timings.ms.update(dict.fromkeys(("read", "crop", "infer", "decode"), 0.0))
        with timings.stage("read"):
            frame = _as_frame(image, K)
        height, width = frame.image.shape[:2]
        boxes = whole_image_box(frame.image)[None] if boxes is None else boxes
        people = self.people(frame, check_boxes(boxes, (width, height)), timings)
        return Result(
            people=people,
            frame_id=frame.frame_id,
            timestamp_ns=frame.timestamp_ns,
            image_size=(width, height),
            faces=self.body.faces,
            timings_ms=timings.ms,
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

    def people(self, frame: Frame, boxes: Array, timings: Timings) -> tuple[Person, ...]:
        """Crop, infer, decode: the chain on one frame, each step timed.

        Args:
            frame: the picture.
            boxes: [N, 4] float64, checked, edges in image px.
            timings: `crop`, `infer` (the wait for the device with it) and `decode` are added.
        """
        height, width = frame.image.shape[:2]
        people: list[Person] = []
        for start in range(0, len(boxes), MAX_BATCH):
            group = boxes[start : start + MAX_BATCH]
            with timings.stage("crop"):
                batch, crops = cut_crops(frame.image, group, self.spec, frame.frame_id)
            with timings.stage("infer"):
                output = self.infer(batch)
            with timings.stage("decode"):
                people.extend(self.decode(output, crops, (width, height), frame.K))
        return tuple(people)

    def infer(self, batch: Array) -> NetOutput:
        """Run crops through the network, when it is this thread's turn.

        Args:
            batch: [B, S, S, 3] uint8 BGR, as `crop.cut_crops` gives them, B from 1 to MAX_BATCH.

        Raises:
            BackendError: the network failed, or the estimator is closed.
        """
        with self._turns.one():
            self._check_open()
            return run(self.backend, batch, self.spec)

    def decode(
        self,
        output: NetOutput,
        crops: Sequence[Crop],
        image_size: tuple[int, int],
        K: Array | None = None,
    ) -> tuple[Person, ...]:
        """Bodies of crops of one picture; see `decode.Decoder`."""
        return self._decoder(output, crops, image_size, K)

    def video(
        self,
        source: str | Path | int | Iterable[Array | Frame] | Source,
        K: object = None,
        *,
        boxes: str | Path | Detector | None = None,
        smooth: bool = False,
        finder: BoxFinder | None = None,
        batch: int = DEFAULT_BATCH,
        streams: int = 1,
        images: bool = False,
        trace: Trace | None = None,
    ) -> Iterator[Result]:
        """The people of every frame, in order; none is lost. Reading and working overlap.

        A frame that cannot be used gives a Result with an `error` and no people, and the others go
        on.

        Args:
            source: what `glnet_rt.stream.open_source` opens: a video, a folder of pictures, a
                picture, images. One that is open already is closed at the end.
            K: as in a call, the same for every frame.
            boxes: who finds the people, as `glnet_rt.detect.open_detector` takes it: `auto` for
                what suits the source, or `motion`, `own`, `whole`, the path of an ONNX file, a
                Detector. They are then followed, each has a `track_id`, and who is nobody is left
                out; pictures of a folder are looked at one by one instead.
            smooth: make the people that `boxes` finds steady over time (docs/tracking.md); pictures
                of a folder are then frames of one film.
            finder: your own instead of `boxes`; without both, each whole picture is one person.
            batch: crops per inference, packed over frames; a result waits for its batch.
            streams: inferences at a time; wants `load(threads=)` small, and a backend that can.
            images: whether each result carries its picture.
            trace: notes what each stage did when.

        Raises:
            SourceError: missing or unreadable; or broken off, once every good frame was handed on.
            BackendError: the network failed.
            ContractError: an argument that cannot be used.
        """
        from glnet_rt.stream.pipeline import VideoPipeline
        from glnet_rt.stream.source import open_source
        from glnet_rt.track.finder import choose_finder

        with (
            open_source(source) as opened,
            VideoPipeline(
                self,
                opened,
                K=_checked_lens(K),
                finder=choose_finder(self.body, opened.kind, boxes, smooth, finder),
                batch=batch,
                streams=streams,
                images=images,
                trace=trace,
            ) as pipeline,
        ):
            yield from pipeline

    def live(
        self,
        source: str | Path | int | Iterable[Array | Frame] | Source,
        *,
        queue: int = 1,
        drop: Drop = "oldest",
        max_age_ms: float | None = 150.0,
        on_result: Callable[[Result], None] | None = None,
        K: object = None,
        boxes: str | Path | Detector | None = None,
        smooth: bool = False,
        finder: BoxFinder | None = None,
        images: bool = False,
        pace: bool = True,
        trace: Trace | None = None,
        clock: Callable[[], int] | None = None,
    ) -> LiveSession:
        """Start on a camera or another source that does not wait; what comes late is dropped.

        Args:
            source: a camera's index or device, an RTSP or HTTP address, a file, images or Frames.
            queue: frames that may wait for the network, and results for whoever takes them.
            drop: what gives way when the queue is full: `oldest`, `newest`, or `none`, which drops
                nothing at all and makes the source wait.
            max_age_ms: a frame older than this when its turn comes is dropped; None: at any age.
            on_result: called with every result, in a thread of its own. None: iterate the session.
            K, boxes, smooth, finder, images, trace: as for `video`.
            pace: whether files are played at their own rate, or as fast as they can be read.
            clock: ns, what capture times are read from and ages measured with; None for
                `time.monotonic_ns`. Frames that bring their own times must use the same one.

        Returns:
            A running session: a context manager and an iterator over results.

        Raises:
            SourceError: the source cannot be opened.
            ContractError: an argument that cannot be used.
        """
        from glnet_rt.stream.live import LiveSession
        from glnet_rt.stream.source import open_source
        from glnet_rt.track.finder import choose_finder

        self._check_open()
        lens = _checked_lens(K)
        clock = time.monotonic_ns if clock is None else clock
        with ExitStack() as unless_started:
            opened = unless_started.enter_context(open_source(source, clock=clock))
            session = LiveSession(
                self,
                opened,
                queue=queue,
                drop=drop,
                max_age_ms=max_age_ms,
                on_result=on_result,
                K=lens,
                finder=choose_finder(self.body, opened.kind, boxes, smooth, finder),
                images=images,
                pace=pace,
                trace=trace,
                clock=clock,
            )
            unless_started.pop_all()
        return session

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
        with self._turns.one():
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
        """Free the session, after the calls that are running. Calling it again does nothing."""
        with self._turns.all():
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


def _checked_lens(K: object) -> Array | None:
    """A stream's K, refused at once rather than frame by frame."""
    if K is None:
        return None
    lens = _as_intrinsics(K)
    Frame(np.zeros((1, 1, 3), np.uint8), K=lens)
    crop_camera(np.zeros((1, 2)), np.ones(1), lens)
    return lens


class _Turns:
    """Lets up to `limit` threads in at a time, or one that wants to be alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = threading.Semaphore(limit)
        self._alone = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Among others."""
        with self._free:
            yield

    @contextmanager
    def all(self) -> Iterator[None]:
        """Alone, once those inside have left."""
        with self._alone:  # else two could each wait for what the other holds
            for _ in range(self._limit):
                self._free.acquire()
            try:
                yield
            finally:
                self._free.release(self._limit)
