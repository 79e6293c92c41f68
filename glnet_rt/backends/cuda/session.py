"""Frames in, people out, by one thread that owns the device and a ring of frames in flight.

    with Session(config, body, spec, open_stage) as session:
        ticket = session.submit(frame, boxes)  # returns while the device works
        people = session.collect(ticket)       # waits for this frame alone

Submit the next frame before collecting the last, and copies run beside computing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.backends.cuda.frame import check_status, write_people
from glnet_rt.backends.cuda.runtime import CudaConfig, DeviceRuntime, Slot
from glnet_rt.backends.cuda.stage import OpenStage
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, Frame, Person
from glnet_rt.crop import check_boxes, square_around
from glnet_rt.decode import BodyArrays, as_people, check_same_body
from glnet_rt.errors import BackendError, ContractError
from glnet_rt.spec import NetSpec

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Ticket:
    """A frame in flight.

    Attributes:
        boxes: [B, 4] float64, edges in image px.
        intrinsics: B times [3, 3] float64, px.
    """

    boxes: Array
    intrinsics: list[Array]
    _slot: Slot = field(repr=False)
    _enqueued: Future[None] = field(repr=False)


class Session(Closing):
    """A network between our kernels, ready for frames. Safe to call from several threads.

    Args:
        config: how the device is used.
        body: the body whose betas the network predicts.
        spec: of the network.
        open_stage: makes the network's stage; called on the thread that owns the device.

    Raises: what `DeviceRuntime` raises, and ContractError for another body than the network's.
    """

    def __init__(
        self, config: CudaConfig, body: BodyModel, spec: NetSpec, open_stage: OpenStage
    ) -> None:
        check_same_body(body, spec)
        self._spec = spec
        self._lock = threading.Condition()
        self._closed = False
        self._writing = 0  # callers that write into pinned memory, which close() waits for
        self._in_flight: set[Ticket] = set()
        self._owner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="glnet-cuda")
        try:
            self._runtime = self._on_owner(DeviceRuntime, config, body, spec, open_stage)
        except BaseException:
            self._owner.shutdown()
            raise
        self._free = list(self._runtime.slots)

    @property
    def max_people(self) -> int:
        """Boxes that one frame may have: the largest bucket."""
        return self._runtime.buckets[-1]

    def describe(self) -> str:
        """The device, and how it is used."""
        device, runtime = self._runtime.binding.device, self._runtime
        how = "one CUDA graph per bucket" if runtime.uses_graphs else "no CUDA graphs"
        return (
            f"{device.name} ({device.arch}, CUDA {'.'.join(map(str, device.driver_version))}) "
            f"through {runtime.binding.name}, {how}, buckets "
            f"{', '.join(map(str, runtime.buckets))}, {len(runtime.slots)} slots"
        )

    def submit(self, frame: Frame, boxes: object) -> Ticket:
        """Put one frame on its way.

        Args:
            frame: a picture; its K, where given, is used.
            boxes: [B, 4] array-like, edges in image px, B from 1 to `max_people`.

        Returns:
            What `collect` takes, once.

        Raises:
            ContractError: a box or K that cannot be used, or a frame larger than the config says.
            BackendError: the session is closed, all slots are in flight, or CUDA failed.
        """
        checked = self._check(frame, boxes)
        with self._filled_slot(frame, checked) as (slot, intrinsics):
            enqueued = self._hand_over(self._runtime.enqueue, slot, frame.image.size)
            ticket = Ticket(checked, intrinsics, slot, enqueued)
            with self._lock:
                self._in_flight.add(ticket)
        return ticket

    def collect(self, ticket: Ticket) -> tuple[Person, ...]:
        """Wait for one frame and give its slot back, whatever became of it.

        Returns:
            One Person per box, in their order; they own their memory.

        Raises:
            ContractError: the ticket was collected before, or is another session's.
            BackendError: CUDA failed, the network's output cannot be decoded, or the session is
                closed.
        """
        with self._lock:
            if ticket not in self._in_flight:
                raise ContractError(
                    "this ticket is not in flight",
                    got="one collected before, or of another session, or of a closed one",
                    expected="what submit() of this session returned, once",
                )
            self._in_flight.remove(ticket)
        try:
            ticket._enqueued.result()
            return self._on_owner(self._finish, ticket)
        finally:
            self._give_back(ticket._slot)

    def time_steps(self, frame: Frame, boxes: object) -> dict[str, float]:
        """Milliseconds of each step of one frame, run one after the other without a graph.

        Raises: what `submit` raises.
        """
        checked = self._check(frame, boxes)
        with self._filled_slot(frame, checked) as (slot, _):
            timings = self._on_owner(self._runtime.time_steps, slot, frame.image.size)
        self._give_back(slot)
        return timings

    def close(self) -> None:
        """Finish what runs, free everything, end the thread. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lock.wait_for(lambda: self._writing == 0)
            self._in_flight.clear()
            closing = self._owner.submit(self._runtime.close)
        try:
            closing.result()
        finally:
            self._owner.shutdown()

    def _finish(self, ticket: Ticket) -> tuple[Person, ...]:
        """On the owner thread, so that a close cannot take the slot's memory away meanwhile."""
        self._runtime.finish(ticket._slot)
        return _people_of(ticket)

    @contextmanager
    def _filled_slot(self, frame: Frame, boxes: Array) -> Iterator[tuple[Slot, list[Array]]]:
        """A free slot with a frame written into it; given back only where the block fails."""
        slot = self._take_slot()
        try:
            yield slot, self._write(slot, frame, boxes)
        except BaseException:
            self._give_back(slot)
            raise
        finally:
            with self._lock:
                self._writing -= 1
                self._lock.notify_all()

    def _check(self, frame: Frame, boxes: object) -> Array:
        height, width = frame.image.shape[:2]
        checked = check_boxes(boxes, (width, height))
        if not 1 <= len(checked) <= self.max_people:
            raise ContractError(
                "the frame has no boxes, or more than fit one batch",
                got=len(checked),
                expected=f"1 to {self.max_people}",
                fix="submit the boxes of a crowded frame in groups",
            )
        capacity = len(self._runtime.slots[0].frame)
        if frame.image.size > capacity:
            raise ContractError(
                "the frame is larger than the session was opened for",
                got=f"{width} x {height} px",
                expected=f"at most {capacity // 3} px in all",
                fix="open the session with a larger CudaConfig.max_pixels",
            )
        return checked

    def _write(self, slot: Slot, frame: Frame, boxes: Array) -> list[Array]:
        """Pixels and parameters into pinned memory; on the caller's thread, beside the device."""
        height, width = frame.image.shape[:2]
        squares = [square_around(box, self._spec.box_scale) for box in boxes]
        center_px = np.stack([center for center, _ in squares])
        side_px = np.array([side for _, side in squares])
        np.copyto(slot.frame[: frame.image.size].reshape(frame.image.shape), frame.image)
        slot.params["stride"] = 3 * width
        return write_people(slot.params, center_px, side_px, (width, height), self._spec, frame.K)

    def _take_slot(self) -> Slot:
        with self._lock:
            self._check_open()
            if not self._free:
                raise BackendError(
                    "all slots of the session are in flight",
                    got=f"{len(self._runtime.slots)} frames submitted and not collected",
                    expected="a free slot",
                    fix="collect a ticket first, or open the session with more CudaConfig.slots",
                )
            self._writing += 1
            return self._free.pop()

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            self._free.append(slot)

    def _on_owner(self, work: Callable[..., T], *arguments: object) -> T:
        return self._hand_over(work, *arguments).result()

    def _hand_over(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        with self._lock:
            self._check_open()
            return self._owner.submit(work, *arguments)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(
                "the CUDA session is closed",
                got="a call after close()",
                expected="an open session",
                fix="open a session anew",
            )


def _people_of(ticket: Ticket) -> tuple[Person, ...]:
    count = len(ticket.boxes)
    arrays = {name: array[:count].copy() for name, array in ticket._slot.outputs.items()}
    check_status(arrays["status"])
    bodies = BodyArrays(
        **{name: arrays[name] for name in ("rotmats", "betas", "transl", "vertices", "joints")}
    )
    boxes = list(ticket.boxes)
    return as_people(bodies, arrays["keypoints_px"], arrays["score"], boxes, ticket.intrinsics)
