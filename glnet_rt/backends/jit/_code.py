"""LLVM code with vectors of 16, written through llvmlite inside numba's intrinsics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 16
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
BYTES, SHORTS, INTS = (ir.VectorType(kind, LANES) for kind in (I8, I16, I32))
HALVES, FLOATS = (ir.VectorType(kind, LANES) for kind in (F16, F32))

# What numba compiles for: this processor's instructions, unless its settings say otherwise.
_settings: Any = vars(config)
_told = _settings["CPU_FEATURES"] or llvm.get_host_cpu_features().flatten()
FEATURES = frozenset(name[1:] for name in _told.split(",") if name.startswith("+"))
WIDE = "avx512f" in FEATURES  # whether a register holds all 16, or, as AVX2's, half of them
# How a map is held that is rounded to 256 levels: without VNNI nothing multiplies bytes exactly.
LEVEL = "i8" if "avx512vnni" in FEATURES else "i16"
LEVELS_TYPE = {"i8": BYTES, "i16": SHORTS}[LEVEL]
SIZE = {"i8": 1, "i16": 2, "bf16": 2, "f16": 2, "f32": 4}  # bytes of a number

NEEDS = {
    "f32": ["avx512f"] if WIDE else ["avx2", "fma"], "i8": ["avx512vnni"],
    "i16": ["avx512bw"] if WIDE else ["avx2"], "bf16": ["avx512bf16"],
}  # fmt: skip

_ALL = ir.Constant(INTS, list(range(LANES)))

# Integer and bfloat16 dot products are written as assembly: LLVM's names for them changed with its
# versions, the instructions did not.
llvm.initialize_native_asmparser()


class Code:
    """What a kernel is written with: addresses are integers, fields those of its operation."""

    def __init__(self, builder: Any, operation: Any) -> None:
        self.b = builder
        self._operation = operation

    def field(self, index: int) -> Any:
        """A number of the operation."""
        return self.load(self.at(self._operation, self.number(8 * index)), I64, align=8)

    def number(self, value: int) -> Any:
        return ir.Constant(I64, value)

    def at(self, address: Any, *offsets: Any) -> Any:
        for offset in offsets:
            address = self.b.add(address, offset)
        return address

    def times(self, a: Any, b: Any) -> Any:
        return self.b.mul(a, self.number(b) if isinstance(b, int) else b)

    def load(self, address: Any, kind: Any, align: int = 1) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any, align: int = 1) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=align)

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """`for i in range(start, stop, step)`."""
        before = self.b.basic_block
        head, body, done = (self.b.append_basic_block(name) for name in ("head", "body", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(I64)
        i.add_incoming(start, before)
        self.b.cbranch(self.b.icmp_signed("<", i, stop), body, done)
        self.b.position_at_end(body)
        yield i
        i.add_incoming(self.b.add(i, self.number(step)), self.b.basic_block)
        self.b.branch(head)
        self.b.position_at_end(done)

    @contextmanager
    def given(self, value: Any) -> Iterator[None]:
        """`if value != 0`."""
        with self.b.if_then(self.b.icmp_signed("!=", value, self.number(0))):
            yield

    def prefetch(self, address: Any) -> None:
        """Have the 64 bytes at an address brought near; nothing where there are none."""
        kind = ir.FunctionType(ir.VoidType(), [I64])
        self.b.asm(kind, "prefetcht1 ($0)", "r", [address], side_effect=True)

    # -- vectors

    def plus(self, a: Any, b: Any) -> Any:
        return self.b.fadd(a, b) if a.type == FLOATS else self.b.add(a, b)

    def minus(self, a: Any, b: Any) -> Any:
        return self.b.fsub(a, b) if a.type == FLOATS else self.b.sub(a, b)

    def fma(self, factor: float, a: Any, b: Any) -> Any:
        """factor * a + b, of floats or integers."""
        if a.type == FLOATS:
            if factor == 1:
                return self.b.fadd(a, b)
            return self.call("fma", self.constant(factor), a, b)
        times = ir.Constant(a.type, [int(factor)] * LANES)
        return self.b.add(self.b.mul(a, times), b)

    def splat(self, scalar: Any) -> Any:
        """16 times the same."""
        kind = ir.VectorType(scalar.type, LANES)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        lanes = ir.Constant(INTS, [0] * LANES)
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)

    def constant(self, value: float) -> Any:
        return ir.Constant(FLOATS, [value] * LANES)

    def call(self, name: str, *values: Any) -> Any:
        """One of LLVM's functions of vectors of floats."""
        kind = ir.FunctionType(FLOATS, [FLOATS] * len(values))
        insert: Any = cgutils.get_or_insert_function
        function = insert(self.b.module, kind, f"llvm.{name}.v16f32")
        return self.b.call(function, values)

    def dot(self, kind: str, x: Any, weights: Any, sum_: Any) -> Any:
        """sum + x * weights: of one float, two bfloat16 or four bytes in each lane."""
        if kind == "f32":
            return self.call("fma", x, weights, sum_)
        if kind == "i16":
            products = self.instruction("vpmaddwd $2, $1, $0", "=v,v,v", INTS, x, weights)
            return self.b.add(sum_, products)
        name = {"i8": "vpdpbusd", "bf16": "vdpbf16ps"}[kind]
        return self.instruction(f"{name} $2, $1, $0", "=v,v,v,0", sum_.type, x, weights, sum_)

    def instruction(self, text: str, constraints: str, kind: Any, *vectors: Any) -> Any:
        """What an instruction makes of vectors, a vector of `kind`: register by register."""
        parts = []
        size = LANES if WIDE else LANES // 2
        for first in range(0, LANES, size):
            given = [self.lanes(vector, range(first, first + size)) for vector in vectors]
            signature = ir.FunctionType(
                ir.VectorType(kind.element, size), [some.type for some in given]
            )
            parts.append(self.b.asm(signature, text, constraints, given, side_effect=False))
        return parts[0] if WIDE else self.b.shuffle_vector(*parts, _ALL)

    def as_float(self, field: Any) -> Any:
        """The float32 whose bits a field holds."""
        return self.b.bitcast(self.b.trunc(field, I32), F32)

    def lanes(self, vector: Any, order: Sequence[int]) -> Any:
        """Lanes of a vector in some order; one past the last is zero."""
        zero, indices = ir.Constant(vector.type, None), ir.VectorType(I32, len(order))
        return self.b.shuffle_vector(vector, zero, ir.Constant(indices, list(order)))

    def as_floats(self, some: Any) -> Any:
        """16 unsigned integers as float32."""
        return self.b.sitofp(self.b.zext(some, INTS), FLOATS)

    def load_levels(self, address: Any) -> Any:
        """16 levels as float32."""
        return self.as_floats(self.load(address, LEVELS_TYPE))

    def load_floats(self, address: Any, kind: str) -> Any:
        """16 numbers of `kind` as float32."""
        if kind == "f32":
            return self.load(address, FLOATS, align=4)
        if kind == "f16":
            return self.b.fpext(self.load(address, HALVES, align=2), FLOATS)
        wide = self.b.zext(self.load(address, SHORTS, align=2), INTS)
        return self.b.bitcast(self.b.shl(wide, ir.Constant(INTS, [16] * LANES)), FLOATS)

    def store_floats(self, value: Any, address: Any, kind: str) -> None:
        """16 float32 as `kind`, to nearest even."""
        if kind == "bf16":
            value = self.instruction("vcvtneps2bf16 $1, $0", "=v,v", SHORTS, value)
        self.store(value, address, align=SIZE[kind])

    def store_levels(self, value: Any, address: Any) -> None:
        """16 float32 to the nearest of 0 to 255, ties to even."""
        whole = self.instruction("vcvtps2dq $1, $0", "=v,v", INTS, value)
        least, most = (ir.Constant(INTS, [bound] * LANES) for bound in (0, 255))
        some = self.b.select(self.b.icmp_signed(">", whole, least), whole, least)
        some = self.b.select(self.b.icmp_unsigned("<", some, most), some, most)
        self.store(self.b.trunc(some, LEVELS_TYPE), address)

    def variables(self, kind: Any, *shape: int) -> Any:
        """Local vectors, nested lists as `shape` says; LLVM keeps them in registers."""
        if not shape:
            with self.b.goto_entry_block():
                return self.b.alloca(kind)
        return [self.variables(kind, *shape[1:]) for _ in range(shape[0])]


def missing(kind: str) -> list[str]:
    """What the processor lacks for kernels that compute with numbers of `kind`."""
    return [name for name in NEEDS[kind] if name not in FEATURES]


def kernel(write: Any, *kinds: str) -> Any:
    """An intrinsic of numba, from the address of an operation to nothing.

    Args:
        write: (Code), writes the kernel.
        kinds: of the numbers it computes with. Where the processor has no instructions for one,
            or holds levels otherwise, nothing is written: no such operation is planned there.
    """
    others = {"i8", "i16"} - {LEVEL}
    possible = not any(missing(kind) or kind in others for kind in kinds)

    @intrinsic
    def run(typing: Any, operation: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
            if possible:
                write(Code(builder, args[0]))
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return run
