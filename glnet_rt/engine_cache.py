"""Built TensorRT engines on disk, each under a header that says what it was built of, and for what.

An engine runs only where it was built: with this model, this TensorRT, this GPU. The header is
compared with what is here *before* TensorRT sees the engine's bytes, so that whoever changes one
of these is told which, from what to what, and the command that builds the engine again.

One file holds: a line with the header's size and SHA-256, the header as JSON, the engine.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from glnet_rt._version import __version__
from glnet_rt.artifact import Artifact, model_name
from glnet_rt.errors import EngineError

BUCKETS = (1, 2, 4, 8)  # batch sizes engines are built for; smaller batches are padded up
BUILDER = "python -m export.build_engine"
Gather = Literal["native", "plugin"]

_MAGIC = b"glnet-rt engine 1 "
_FIRST_LINE = re.compile(re.escape(_MAGIC) + rb"(\d{8}) ([0-9a-f]{64})\n")
_AMPERE = 80
_FIRST_LINE_BYTES = len(_MAGIC) + 8 + 1 + 64 + 1
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Where engines live: $GLNET_CACHE, else glnet-rt in the user's cache folder."""
    named = os.environ.get("GLNET_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "glnet-rt"


@dataclass(frozen=True)
class BuildOptions:
    """What whoever builds may choose. Any choice runs; another one only runs faster or slower.

    Attributes:
        gather: how features are read at the part points, by TensorRT's own layers or our plugin.
        optimization_level: TensorRT's builder_optimization_level, 0 to 5.
        workspace_mb: most scratch memory a layer may take; 0 leaves it to TensorRT.
        hardware_compatible: whether to run on any GPU from Ampere on, for some loss of speed.
    """

    gather: Gather = "native"
    optimization_level: int = 3
    workspace_mb: int = 0
    hardware_compatible: bool = False


@dataclass(frozen=True)
class EngineKey:
    """What an engine is bound to.

    Attributes:
        onnx_sha256: of the model, as the artifact's manifest states it.
        plugin_sha256: of the gather plugin; empty where there is none.
        precision: of the model.
        batch: people per inference, fixed.
        backend: `tensorrt` or `tensorrt-rtx`.
        tensorrt: its full version.
        cuda: newest CUDA version of the driver; empty where built without a GPU.
        sm: compute capability, such as `sm87`.
        gpu: its name; empty where built without a GPU.
        platform: operating system and processor, such as `linux-aarch64`.
    """

    onnx_sha256: str
    plugin_sha256: str
    precision: str
    batch: int
    backend: str
    tensorrt: str
    cuda: str
    sm: str
    gpu: str
    platform: str


@dataclass(frozen=True)
class EngineHeader:
    """What stands before an engine.

    Attributes:
        key: what it is bound to.
        options: how it was built.
        engine_sha256, engine_bytes: of what follows.
        gather_ms: route -> median ms of one inference, where both were built and timed.
        glnet_rt: version of what built it.
    """

    key: EngineKey
    options: BuildOptions
    engine_sha256: str
    engine_bytes: int
    gather_ms: Mapping[str, float] = field(default_factory=dict)
    glnet_rt: str = __version__

    def to_bytes(self) -> bytes:
        """First line and JSON, as they stand in the file."""
        text = json.dumps(dataclasses.asdict(self), indent=1).encode() + b"\n"
        return _MAGIC + f"{len(text):08d} {hashlib.sha256(text).hexdigest()}\n".encode() + text

    def differences(self, here: EngineKey) -> dict[str, tuple[object, object]]:
        """Name -> (the engine's, here) of every fact that must be equal and is not."""
        free = _free_fields(self, here)
        built, now = dataclasses.asdict(self.key), dataclasses.asdict(here)
        return {
            name: (built[name], now[name])
            for name in built
            if name not in free and built[name] != now[name]
        }


@dataclass(frozen=True)
class EngineFile:
    """One engine of a cache.

    Attributes:
        path: of the file.
        header: what it says of itself.
        rebuild: the command that builds it again.
    """

    path: Path
    header: EngineHeader
    rebuild: str

    def read(self) -> bytes:
        """The engine, checked against its header.

        Raises:
            EngineError: truncated or changed, or gone since it was found.
        """
        with _open(self.path, self.rebuild) as file:
            _read_header(file, self.path, self.rebuild)
            data = file.read(self.header.engine_bytes + 1)
        if len(data) != self.header.engine_bytes:
            short = len(data) < self.header.engine_bytes
            raise EngineError(
                f"the engine {self.path} {'is truncated' if short else 'has bytes to spare'}",
                got=f"{'' if short else 'over '}{min(len(data), self.header.engine_bytes)} bytes",
                expected=f"{self.header.engine_bytes} bytes",
                fix=self.rebuild,
            )
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.header.engine_sha256:
            raise EngineError(
                f"the engine {self.path} was changed",
                got=f"engine_sha256 {digest}",
                expected=f"engine_sha256 {self.header.engine_sha256}",
                fix=self.rebuild,
            )
        return data


class EngineCache:
    """The engines of one folder. Several processes may use it at once.

    Args:
        root: of the cache; None for `cache_root()`.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = cache_root() if root is None else Path(root)

    @property
    def engines(self) -> Path:
        """The folder that engines lie in."""
        return self.root / "engines"

    def path(self, artifact: Artifact, key: EngineKey) -> Path:
        """Where the engine of a key lies: one for each model, batch and machine."""
        facts = {k: v for k, v in dataclasses.asdict(key).items() if k != "plugin_sha256"}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return self.engines / f"{_stem(artifact, key)}.{digest}.engine"

    def find(self, artifact: Artifact, here: EngineKey) -> EngineFile | None:
        """The engine that fits, its header checked and its bytes not read yet.

        Args:
            artifact: what it was built of.
            here: what is wanted on this machine.

        Returns:
            None where none of this model, precision and batch was ever built.

        Raises:
            EngineError: what is there is damaged, or was built for something else; `got` names each
                fact that differs with both values, and `fix` is the command that builds it again.
        """
        damaged: EngineError | None = None
        others: list[tuple[EngineFile, dict[str, tuple[object, object]]]] = []
        exact = self.path(artifact, here)
        found = sorted(
            self.engines.glob(f"{_stem(artifact, here)}.*.engine"),
            key=lambda path: (path != exact, path.name),
        )
        for path in found:
            command = self.build_command(artifact, here)
            try:
                with _open(path, command) as file:
                    header = _read_header(file, path, command)
            except EngineError as error:
                damaged = damaged or error
                continue
            command = self.build_command(artifact, here, header.options)
            engine = EngineFile(path, header, command)
            differences = header.differences(here)
            if not differences:
                return engine
            others.append((engine, differences))
        if damaged is not None:
            raise damaged
        if others:
            raise _mismatch(*min(others, key=lambda other: len(other[1])))
        return None

    def missing(
        self, artifact: Artifact, here: EngineKey, batches: Sequence[int] = BUCKETS
    ) -> EngineError:
        """What to raise where there is no engine at all."""
        return EngineError(
            f"no {here.backend} engine of {artifact.manifest.name} in {here.precision} was built",
            got=f"no engine for batch {', '.join(map(str, batches))} in {self.engines}",
            expected="at least one, built on this machine",
            fix=self.build_command(artifact, here, batches=batches),
        )

    def write(self, artifact: Artifact, header: EngineHeader, engine: bytes) -> Path:
        """Put an engine where `find` looks, all or nothing; replaces the one that was there."""
        path = self.path(artifact, header.key)
        write_atomically(path, header.to_bytes(), engine)
        return path

    def build_command(
        self,
        artifact: Artifact,
        key: EngineKey,
        options: BuildOptions | None = None,
        batches: Sequence[int] = BUCKETS,
    ) -> str:
        """The shell command, run in a checkout, that builds a model's engines."""
        options = options or BuildOptions()
        words = [*shlex.split(BUILDER), str(artifact.path), "--precision", key.precision]
        if tuple(batches) != BUCKETS:
            words += ["--batches", ",".join(map(str, batches))]
        if key.backend != "tensorrt":
            words += ["--backend", key.backend]
        if not key.gpu:
            words += ["--target", key.sm]
        if options.gather != BuildOptions.gather:
            words += ["--gather", options.gather]
        if options.optimization_level != BuildOptions.optimization_level:
            words += ["--optimization-level", str(options.optimization_level)]
        if options.workspace_mb:
            words += ["--workspace-mb", str(options.workspace_mb)]
        if options.hardware_compatible:
            words += ["--hardware-compatible"]
        if self.root != cache_root():
            words += ["--out", str(self.root)]
        return shlex.join(words)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the cache against other processes, waiting for the one that has it.

        Builds take turns too: what one times would be disturbed by the other.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.root / "lock", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("waiting for the process that holds %s", file.name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file lets go of it


def write_atomically(path: Path, *parts: bytes) -> None:
    """Write a file so that readers see the old one or the new one, and never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(draft, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def model_sha256(artifact: Artifact, precision: str) -> str:
    """SHA-256 of one model, which `Artifact.open` has checked."""
    return artifact.manifest.files[model_name(precision)].sha256


# -- headers --------------------------------------------------------------------------------------


def _stem(artifact: Artifact, key: EngineKey) -> str:
    """How the names of all engines of one model, precision and batch begin."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", artifact.manifest.name)[:64]
    return f"{name}.{key.precision}.b{key.batch}"


def _free_fields(header: EngineHeader, here: EngineKey) -> set[str]:
    """Facts that may differ from what the engine was built with."""
    free = set()
    if header.options.gather == "native":
        free.add("plugin_sha256")
    if header.key.backend == "tensorrt-rtx":  # finishes its kernels on the GPU that runs it
        free |= {"cuda", "gpu"}
    if header.options.hardware_compatible:
        free |= {"gpu"} if _number(here.sm) < _AMPERE else {"gpu", "sm"}
    return free


def _number(sm: str) -> int:
    """87 of `sm87`."""
    return int(sm.removeprefix("sm") or 0)


def _mismatch(engine: EngineFile, differences: dict[str, tuple[object, object]]) -> EngineError:
    told = [
        f"{name}: engine {then or 'none'}, here {now or 'none'}"
        for name, (then, now) in differences.items()
    ]
    return EngineError(
        f"the engine {engine.path} was built for something else",
        got="; ".join(told),
        expected="the same facts as here",
        fix=engine.rebuild,
    )


@contextmanager
def _open(path: Path, rebuild: str) -> Iterator[IO[bytes]]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise EngineError(
            f"the engine {path} cannot be read",
            got=error.strerror or str(error),
            expected="a file written by export.build_engine",
            fix=rebuild,
        ) from error


def _read_header(file: IO[bytes], path: Path, rebuild: str) -> EngineHeader:
    """Read up to where the engine begins.

    Raises:
        EngineError: it is no engine of this format, or its header was changed.
    """
    first = file.read(_FIRST_LINE_BYTES)
    match = _FIRST_LINE.fullmatch(first)
    if match is None:
        raise EngineError(
            f"{path} is no engine of this version's format",
            got=repr(first[:40]),
            expected=f"a file that begins with {_MAGIC.decode()!r}",
            fix=rebuild,
        )
    text = file.read(int(match[1]))
    digest = hashlib.sha256(text).hexdigest()
    if digest != match[2].decode():
        raise EngineError(
            f"the header of the engine {path} was changed",
            got=f"sha256 {digest}",
            expected=f"sha256 {match[2].decode()}",
            fix=rebuild,
        )
    try:
        return _parse(json.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"the header of the engine {path} has other fields than this version knows",
            got=str(error),
            expected=", ".join(f.name for f in dataclasses.fields(EngineHeader)),
            fix=rebuild,
        ) from error


def _parse(values: dict[str, Any]) -> EngineHeader:
    key, options = EngineKey(**values.pop("key")), BuildOptions(**values.pop("options"))
    return EngineHeader(key=key, options=options, **values)
