"""Crops in, arrays out, over any network stage: its memory, its stream, and a graph per bucket.

For callers whose crops and results live on the host, such as the backends that `load` chooses
from; crops and decoding on the device have a session of their own.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from glnet_rt._closing import Closing
from glnet_rt.backends.cuda.binding import Binding
from glnet_rt.backends.cuda.stage import NetworkStage, OpenStage
from glnet_rt.contracts import Array
from glnet_rt.spec import NetSpec

WARM_UP, TIMED = 20, 100


class HostSession(Closing):
    """One network, run for host memory. Every call must come from the thread that made it.

    An inference is one graph: crops to the device, the network, the outputs back. Where the
    binding has no graphs, the same is enqueued anew each time.

    Args:
        binding: to the device; closed with the session.
        open_stage: makes the stage, which is closed with the session.
        spec: of the network.

    Raises:
        BackendError: memory or a graph cannot be had.
    """

    def __init__(self, binding: Binding, open_stage: OpenStage, spec: NetSpec) -> None:
        self._binding, self._spec = binding, spec
        self._resources = ExitStack()
        self._resources.callback(binding.close)
        try:
            self._open(open_stage)
        except BaseException:
            self._resources.close()
            raise

    def _open(self, open_stage: OpenStage) -> None:
        self._stream = self._binding.create_stream()
        self._resources.callback(self._binding.destroy_stream, self._stream)
        memory = self._resources.enter_context(ExitStack())
        self._stage: NetworkStage = open_stage(self._binding)
        self._resources.callback(self._stage.close)
        self._device: dict[str, int] = {}
        self._host: dict[str, Array] = {}
        shapes = {self._spec.input_name: self._spec.input_shape, **self._spec.output_shapes}
        for name, shape in shapes.items():
            self._allocate(memory, name, (self._stage.buckets[-1], *shape))
        self._graphs = {bucket: self._record(bucket) for bucket in self._stage.buckets}

    @property
    def buckets(self) -> tuple[int, ...]:
        """Batch sizes it runs, ascending."""
        return self._stage.buckets

    def infer(self, batch: Array) -> dict[str, Array]:
        """Run B crops, padded up to a bucket, or in several turns where there is none that large.

        Args:
            batch: [B, 3, S, S] float32, normalised, B > 0.

        Returns:
            Name -> array of B rows, which the caller owns.
        """
        image = self._host[self._spec.input_name]
        outputs = {
            name: np.empty((len(batch), *shape), self._host[name].dtype)
            for name, shape in self._spec.output_shapes.items()
        }
        start = 0
        for count, bucket in split(len(batch), self.buckets):
            image[:count] = batch[start : start + count]
            image[count:bucket] = 0.0
            self._launch(bucket)
            self._binding.synchronize(self._stream)
            for name, output in outputs.items():
                output[start : start + count] = self._host[name][:count]
            start += count
        return outputs

    def time_ms(self, bucket: int) -> float:
        """Median milliseconds of one inference on the device, copies included, after a warm-up."""
        events = [self._binding.create_event(timing=True) for _ in range(2)]
        try:
            for _ in range(WARM_UP):
                self._launch(bucket)
            return statistics.median(self._time_once(bucket, *events) for _ in range(TIMED))
        finally:
            for event in events:
                self._binding.destroy_event(event)

    def close(self) -> None:
        """Free graphs, stage, memory, stream and binding, in this order. Again does nothing."""
        self._resources.close()

    def _allocate(self, memory: ExitStack, name: str, shape: tuple[int, ...]) -> None:
        """The same tensor on the device and in pinned memory."""
        dtype = np.dtype(np.int64 if name == "pixel" else np.float32)
        if name == self._spec.input_name and self._stage.half_input:
            dtype = np.dtype(np.float16)
        size = int(np.prod(shape)) * dtype.itemsize
        self._device[name] = self._binding.malloc(size)
        memory.callback(self._binding.free, self._device[name])
        address = self._binding.malloc_host(size)
        memory.callback(self._binding.free_host, address)
        pinned = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self._host[name] = pinned.view(dtype).reshape(shape)
        self._host[name][:] = 0

    def _record(self, bucket: int) -> int | None:
        """An inference as an executable graph; run once before, since first runs may allocate."""
        self._stage.bind(bucket, self._device)
        self._enqueue(bucket)
        self._binding.synchronize(self._stream)
        if not self._binding.has_graphs:
            return None
        self._binding.begin_capture(self._stream)
        try:
            self._enqueue(bucket)
        finally:
            graph = self._binding.end_capture(self._stream)
        try:
            executable = self._binding.instantiate(graph)
        finally:
            self._binding.destroy_graph(graph)
        self._resources.callback(self._binding.destroy_executable, executable)
        return executable

    def _enqueue(self, bucket: int) -> None:
        """Put an inference of a whole bucket on the stream."""
        name = self._spec.input_name
        image = self._host[name][:bucket]
        self._binding.copy_to_device(
            self._device[name], image.ctypes.data, image.nbytes, self._stream
        )
        self._stage.enqueue(bucket, self._stream)
        for name in self._spec.output_shapes:
            output = self._host[name][:bucket]
            self._binding.copy_to_host(
                output.ctypes.data, self._device[name], output.nbytes, self._stream
            )

    def _launch(self, bucket: int) -> None:
        executable = self._graphs[bucket]
        if executable is None:
            self._enqueue(bucket)
        else:
            self._binding.launch_graph(executable, self._stream)

    def _time_once(self, bucket: int, start: int, end: int) -> float:
        self._binding.record(start, self._stream)
        self._launch(bucket)
        self._binding.record(end, self._stream)
        self._binding.synchronize_event(end)
        return self._binding.elapsed_ms(start, end)


def split(count: int, buckets: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(people, bucket) of each turn: the smallest bucket that holds the rest, else the largest."""
    while count > 0:
        bucket = next((b for b in buckets if b >= count), buckets[-1])
        people = min(count, bucket)
        yield people, bucket
        count -= people
