"""Everything that lives on the device: memory, streams, kernels, the network and its graphs.

One thread makes it, uses it and closes it. Per frame:

    copy-in stream    frame: pinned slot -> device slot
    compute stream    wait; parameters of the frame; the bucket's graph: crop, infer, decode, skin
    copy-out stream   wait; outputs: device slot -> pinned slot

so that the copies of one frame run beside the computing of another. Crop, network, decode and skin
of one frame follow on each other and share buffers, hence one stream: captured, they are one graph.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.backends.cuda.binding import Argument, Binding, Size3, open_binding
from glnet_rt.backends.cuda.body import lay_out
from glnet_rt.backends.cuda.frame import FRAME_PARAMS, MAX_PEOPLE
from glnet_rt.backends.cuda.kernels import ENTRY_POINTS, load_kernels
from glnet_rt.backends.cuda.stage import NetworkStage, OpenStage
from glnet_rt.backends.cuda.workspace import SlotLayout, Workspace
from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.errors import BackendError, ContractError, GlnetError
from glnet_rt.spec import NetSpec

# Threads of a block. Decoding: enough for the 75 unknowns of a fit, few enough to meet often.
_PIXEL_THREADS, _PERSON_THREADS, _VERTEX_THREADS = 256, 128, 128
STEPS = ("crop", "infer", "decode", "skin")


@dataclass(frozen=True)
class CudaConfig:
    """How a session uses the device.

    Attributes:
        max_pixels: of the largest frame; each slot holds one on both sides.
        slots: frames in flight; 2 let copies run beside computing, more smooth jitter.
        graphs: whether to capture CUDA graphs; None does where the binding has them.
        binding: `cuda-bindings` or `pycuda`.
        ordinal: of the device.
        cache: folder for compiled kernels, or None to compile at every start, which takes seconds.
    """

    max_pixels: int = 1920 * 1080
    slots: int = 3
    graphs: bool | None = None
    binding: str = "cuda-bindings"
    ordinal: int = 0
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name in ("max_pixels", "slots"):
            if getattr(self, name) < 1:
                raise ContractError(
                    f"{name} is no count", got=getattr(self, name), expected="at least 1"
                )


@dataclass(frozen=True, eq=False)
class Slot:
    """One frame's place in the ring.

    Attributes:
        host, device: where its `SlotLayout` lies on both sides.
        frame: [3 * max_pixels] uint8, pinned.
        params: [] of FRAME_PARAMS, pinned; its addresses are set, the rest is of the frame.
        outputs: name -> pinned array, rows for the largest bucket.
        copied, computed, done: events.
    """

    host: int
    device: int
    frame: Array
    params: Array
    outputs: dict[str, Array]
    copied: int
    computed: int
    done: int


class DeviceRuntime(Closing):
    """The device side of a session.

    Args:
        config: how the device is used.
        body: the body whose betas the network predicts.
        spec: of the network.
        open_stage: makes the network's stage, once the device is bound.

    Attributes:
        binding: to the device.
        buckets: batch sizes, ascending.
        slots: the ring.
        uses_graphs: whether frames run as graphs.

    Raises:
        MissingDependencyError: cuda-bindings, NVRTC or the driver is missing.
        BackendError: no device, too little memory, or a step fails; nothing is left behind.
        ContractError: the stage's buckets cannot be used.
    """

    def __init__(
        self, config: CudaConfig, body: BodyModel, spec: NetSpec, open_stage: OpenStage
    ) -> None:
        self._spec = spec
        self._functions: dict[str, int] = {}
        self._graphs: dict[int, int] = {}
        self._stack = ExitStack()
        try:
            self._open(config, body, open_stage)
        except BaseException:
            with suppress(GlnetError):  # the first failure is the one to tell
                self.close()
            raise

    def _open(self, config: CudaConfig, body: BodyModel, open_stage: OpenStage) -> None:
        stack = self._stack
        self.binding = stack.enter_context(open_binding(config.binding, config.ordinal))
        self.uses_graphs = _choose_graphs(config, self.binding)
        self._load_kernels(config.cache)
        self._streams = [self._make_stream() for _ in range(3)]
        self._copy_in, self._compute, self._copy_out = self._streams
        self._stage = open_stage(self.binding)
        stack.callback(self._stage.close)
        self.buckets = _checked_buckets(self._stage)
        kernel_body = lay_out(body, self._spec.num_betas)
        self._vertices = kernel_body.vertices
        most, half_input = self.buckets[-1], self._stage.half_input
        self._plan = Workspace(self._spec, kernel_body, most, half_input)
        self._workspace = self._malloc(self._plan.layout.size)
        self._slot_layout = SlotLayout(self._spec, self._vertices, most, config.max_pixels)
        self.slots = tuple(self._make_slot() for _ in range(config.slots))
        stack.callback(self._stage.close)  # again, so that it goes before the memory goes
        stack.callback(self.synchronize)
        self._upload_constants()
        self._warm_up()
        stack.callback(self.synchronize)  # again, so that graphs go when they have run

    def enqueue(self, slot: Slot, frame_bytes: int) -> None:
        """Put one frame on its way; `slot.frame` and `slot.params` are written.

        Args:
            slot: not in flight.
            frame_bytes: how much of `slot.frame` is used.
        """
        binding = self.binding
        self._send_frame(slot, frame_bytes, self._copy_in)
        binding.record(slot.copied, self._copy_in)
        binding.wait(self._compute, slot.copied)
        self._send_params(slot)
        self._run(self._bucket_of(slot))
        binding.record(slot.computed, self._compute)
        binding.wait(self._copy_out, slot.computed)
        self._fetch(slot, self._copy_out)
        binding.record(slot.done, self._copy_out)

    def finish(self, slot: Slot) -> None:
        """Wait until `slot.outputs` hold the frame's results."""
        self.binding.synchronize_event(slot.done)

    def time_steps(self, slot: Slot, frame_bytes: int) -> dict[str, float]:
        """Run a written slot step by step on one stream, without a graph; milliseconds of each."""
        binding, stream = self.binding, self._compute
        names = ("start", "copy_in", *STEPS, "copy_out")
        self.synchronize()
        with ExitStack() as stack:
            events = {}
            for name in names:
                events[name] = binding.create_event(timing=True)
                stack.callback(binding.destroy_event, events[name])

            def mark(name: str) -> None:
                binding.record(events[name], stream)

            mark("start")
            self._send_frame(slot, frame_bytes, stream)
            self._send_params(slot)
            mark("copy_in")
            self._enqueue_steps(self._bucket_of(slot), mark)
            self._fetch(slot, stream)
            mark("copy_out")
            binding.synchronize(stream)
            elapsed, steps = binding.elapsed_ms, pairwise(names)
            return {name: elapsed(events[before], events[name]) for before, name in steps}

    def synchronize(self) -> None:
        """Wait for all streams."""
        for stream in self._streams:
            self.binding.synchronize(stream)

    def close(self) -> None:
        """Wait for what runs, then free everything, last made first. Again, it does nothing."""
        self._stack.close()

    # -- the steps of a frame -------------------------------------------------------------------

    def _bucket_of(self, slot: Slot) -> int:
        people = int(slot.params["people"])
        return next(bucket for bucket in self.buckets if bucket >= people)

    def _send_frame(self, slot: Slot, frame_bytes: int, stream: int) -> None:
        offset = self._slot_layout.layout.offset("frame")
        self.binding.copy_to_device(slot.device + offset, slot.host + offset, frame_bytes, stream)

    def _send_params(self, slot: Slot) -> None:
        """In the compute stream, after the graph before, which read the same place."""
        source = slot.host + self._slot_layout.layout.offset("params")
        self.binding.copy_to_device(
            self._at("params"), source, FRAME_PARAMS.itemsize, self._compute
        )

    def _run(self, bucket: int) -> None:
        if self.uses_graphs:
            self.binding.launch_graph(self._graphs[bucket], self._compute)
        else:
            self._enqueue_steps(bucket)

    def _fetch(self, slot: Slot, stream: int) -> None:
        size = self._slot_layout.output_bytes(int(slot.params["people"]))
        self.binding.copy_to_host(slot.host, slot.device, size, stream)

    def _enqueue_steps(self, bucket: int, mark: Callable[[str], None] = lambda _: None) -> None:
        """Everything between the copies, on the compute stream; `mark` is called after each."""
        self._crop(bucket)
        mark("crop")
        self._stage.enqueue(bucket, self._compute)
        mark("infer")
        names = ["params", "net_pointers", "decode_setup", "skin_input"]
        self._launch("decode", (bucket, 1, 1), _PERSON_THREADS, *map(self._pointer, names))
        mark("decode")
        blocks = -(-self._vertices // _VERTEX_THREADS)
        names = ["params", "skin_input", "body_tables"]
        self._launch("skin", (blocks, bucket, 1), _VERTEX_THREADS, *map(self._pointer, names))
        mark("skin")

    def _crop(self, bucket: int) -> None:
        size, side = self._spec.input_size, self._plan.side
        params, scratch, batch = map(self._pointer, ("params", "scratch", self._spec.input_name))
        blocks = -(-bucket * side * side // _PIXEL_THREADS)
        self._launch("crop_halve", (blocks, 1, 1), _PIXEL_THREADS, params, scratch, np.int32(side))
        self._launch(
            "crop_half" if self._stage.half_input else "crop_float",
            (-(-bucket * size * size // _PIXEL_THREADS), 1, 1),
            _PIXEL_THREADS,
            params,
            scratch,
            np.int32(side),
            self._pointer("normalisation"),
            np.int32(size),
            np.int32(bucket),
            batch,
        )

    def _launch(self, name: str, grid: Size3, threads: int, *arguments: Argument) -> None:
        block = (threads, 1, 1)
        self.binding.launch(self._functions[name], grid, block, self._compute, arguments)

    def _at(self, name: str) -> int:
        return self._workspace + self._plan.layout.offset(name)

    def _pointer(self, name: str) -> Argument:
        return np.uint64(self._at(name))

    # -- making ---------------------------------------------------------------------------------

    def _load_kernels(self, cache: Path | None) -> None:
        for name in ENTRY_POINTS:
            module, functions = load_kernels(self.binding, name, cache)
            self._stack.callback(self.binding.unload_module, module)
            self._functions |= functions

    def _make_stream(self) -> int:
        stream = self.binding.create_stream()
        self._stack.callback(self.binding.destroy_stream, stream)
        return stream

    def _make_event(self) -> int:
        event = self.binding.create_event()
        self._stack.callback(self.binding.destroy_event, event)
        return event

    def _malloc(self, size: int) -> int:
        address = self.binding.malloc(size)
        self._stack.callback(self.binding.free, address)
        return address

    def _make_slot(self) -> Slot:
        layout = self._slot_layout.layout
        device = self._malloc(layout.size)
        host = self.binding.malloc_host(layout.size)
        self._stack.callback(self.binding.free_host, host)
        params = layout.view(host, "params")
        params[...] = 0
        self._slot_layout.write_addresses(params, device)
        frame, outputs = layout.view(host, "frame"), self._slot_layout.outputs(host)
        events = [self._make_event() for _ in range(3)]
        return Slot(host, device, frame, params, outputs, *events)

    def _upload_constants(self) -> None:
        size = self._plan.constant_bytes
        with ExitStack() as stack:
            staging = self.binding.malloc_host(size)
            stack.callback(self.binding.free_host, staging)
            stack.callback(self.synchronize)
            self._plan.write_constants(staging, self._workspace)
            self.binding.copy_to_device(self._workspace, staging, size, self._compute)

    def _warm_up(self) -> None:
        """Run every bucket once with nobody in it, then capture it."""
        rest = self._plan.layout.size - self._plan.constant_bytes
        start = self._workspace + self._plan.constant_bytes
        self.binding.fill_zeros(start, rest, self._compute)
        self._send_params(self.slots[0])
        for bucket in self.buckets:
            self._stage.bind(bucket, self._plan.tensors(self._workspace))
            self._enqueue_steps(bucket)
            self.binding.synchronize(self._compute)
            if self.uses_graphs:
                self._graphs[bucket] = self._capture(bucket)

    def _capture(self, bucket: int) -> int:
        binding = self.binding
        binding.begin_capture(self._compute)
        with ExitStack() as stack:
            try:
                self._enqueue_steps(bucket)
            finally:  # a stream must not be left capturing
                graph = binding.end_capture(self._compute)
                stack.callback(binding.destroy_graph, graph)
            executable = binding.instantiate(graph)
            self._stack.callback(binding.destroy_executable, executable)
        return executable


def _choose_graphs(config: CudaConfig, binding: Binding) -> bool:
    if config.graphs and not binding.has_graphs:
        raise BackendError(
            f"the {binding.name} binding has no CUDA graphs",
            got="graphs=True",
            expected="a binding with graphs, or graphs=None",
            fix="use the binding cuda-bindings: pip install 'glnet-rt[cuda]'",
        )
    return binding.has_graphs if config.graphs is None else config.graphs


def _checked_buckets(stage: NetworkStage) -> tuple[int, ...]:
    buckets = stage.buckets
    ascending = all(small < large for small, large in zip((0, *buckets), buckets, strict=False))
    if not buckets or not ascending or buckets[-1] > MAX_PEOPLE:
        raise ContractError(
            "the network's buckets cannot be used",
            got=buckets,
            expected=f"batch sizes from 1 to {MAX_PEOPLE}, ascending, at least one",
        )
    return buckets
