"""What a session asks of whatever runs the network between its crop and decode kernels.

The session owns the device memory, the streams and the graphs; the stage owns the network (for
TensorRT: the engine, and one execution context per bucket). In order, all on the session's owner
thread, with the device's primary context current:

    stage = open_stage(binding)             # the factory handed to the session
    for bucket in stage.buckets:
        stage.bind(bucket, addresses)       # once; addresses stay valid and fixed until `close`
        stage.enqueue(bucket, stream)       # direct, to warm up; the session synchronises
        stage.enqueue(bucket, stream)       # under stream capture, into the bucket's graph
    ...                                     # from here on the graphs alone are launched
    stage.close()                           # after the graphs are destroyed, before the memory goes

A stage for TensorRT calls `context.set_tensor_address(name, addresses[name])` in `bind`, and
`context.execute_async_v3(stream)` in `enqueue`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from glnet_rt.backends.cuda.binding import Binding


class NetworkStage(Protocol):
    """The network as work that can be put on a stream.

    Attributes:
        buckets: batch sizes it runs, ascending, each at least 1; B people are padded up to the
            next bucket. The padding rows of the input are crops all of the mean colour, zeros.
        half_input: whether its input is float16; otherwise it is float32. Outputs are always
            float32, `pixel` int64.
    """

    @property
    def buckets(self) -> tuple[int, ...]: ...

    @property
    def half_input(self) -> bool: ...

    def bind(self, bucket: int, addresses: Mapping[str, int]) -> None:
        """Fix where one bucket reads its input and writes its outputs.

        Args:
            bucket: one of `buckets`.
            addresses: tensor name -> device address, of the input (`NetSpec.input_name`,
                [bucket, 3, S, S]) and of every output (`NetSpec.output_shapes`, each with the
                bucket in front), contiguous, aligned to 256 bytes. The rows behind the bucket's
                belong to larger buckets; every bucket gets the same addresses.

        Raises:
            BackendError: the network refuses them.
        """

    def enqueue(self, bucket: int, stream: int) -> None:
        """Put one inference on a stream and return at once.

        It may be called while the stream is being captured, so it must not allocate device memory,
        synchronise, or leave work on another stream unjoined; that belongs into `bind`.

        Args:
            bucket: one that was bound.
            stream: the CUstream, as a number.

        Raises:
            BackendError: the network cannot be enqueued.
        """

    def close(self) -> None:
        """Free what the stage made. Calling it again does nothing."""


# Called once, on the owner thread with the context current; may raise any `GlnetError`.
OpenStage = Callable[[Binding], NetworkStage]
