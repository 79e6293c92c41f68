"""What holds an artifact's files: a flat folder, or a sealed zip of the same names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from glnet_rt.errors import ArtifactError

FETCH_AGAIN = "copy or download the artifact again"
BLANK_DIGEST = "0" * 64
# One flat folder of plain names: no separator, no drive, no "..", so nothing can lead out of it.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_CHUNK_BYTES = 1 << 20
_SEAL = b"sha256:"  # starts the zip's comment; the 64 digits of everything before them follow
# What zipfile raises on damaged input. RuntimeError: encrypted or otherwise unsupported members.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class Container(Protocol):
    """Named files, wherever they lie."""

    def names(self) -> set[str]:
        """Names of all files, each checked to be a plain one."""

    def stream(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Read one file from its start."""

    def check_seal(self) -> None:
        """Raise ArtifactError if anything besides the files' contents was changed."""


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open the folder or zip at `path` for as long as the block lasts.

    Raises:
        ArtifactError: missing, unreadable, truncated or no zip file.
    """
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ArtifactError(
            "the artifact is missing",
            got=str(path),
            expected="a .glnet file or folder",
            fix="check the path, or make one: python -m export --help",
        ) from error
    if stat.S_ISDIR(kind):
        yield _Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        fault = "cannot be read" if isinstance(error, OSError) else "is truncated or no zip file"
        raise ArtifactError(
            f"artifact {path} {fault}",
            got=f"{path.stat().st_size} bytes: {error}",
            expected="a complete .glnet zip",
            fix=FETCH_AGAIN,
        ) from error
    with archive:
        yield _Zip(path, archive)


@dataclass(frozen=True)
class _Folder:
    path: Path

    def names(self) -> set[str]:
        with os.scandir(self.path) as entries:
            kinds = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
        for name, is_file in kinds.items():
            if not is_file or not SAFE_NAME.fullmatch(name):
                raise unsafe_name(self.path, name)
        return set(kinds)

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with open(self.path / name, "rb") as file:
                yield file
        except OSError as error:
            raise _unreadable(self.path, name, error) from error

    def check_seal(self) -> None:
        return None  # a folder is nothing but its files


@dataclass(frozen=True)
class _Zip:
    path: Path
    archive: zipfile.ZipFile

    def names(self) -> set[str]:
        names: set[str] = set()
        for info in self.archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not SAFE_NAME.fullmatch(info.filename) or kind not in (0, stat.S_IFREG):
                raise unsafe_name(self.path, info.filename)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                error = zipfile.BadZipFile(f"compression method {info.compress_type}")
                raise _unreadable(self.path, info.filename, error)
            if info.filename in names:
                raise ArtifactError(
                    f"artifact {self.path} holds {info.filename} twice",
                    got=info.filename,
                    expected="every name once",
                    fix=FETCH_AGAIN,
                )
            names.add(info.filename)
        return names

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self.archive.open(name) as file:
                yield file
        except ZIP_ERRORS as error:
            raise _unreadable(self.path, name, error) from error

    def check_seal(self) -> None:
        comment = self.archive.comment
        seal_size = len(_SEAL) + len(BLANK_DIGEST)
        stated = comment[len(_SEAL) :] if len(comment) == seal_size else b""
        with open(self.path, "rb") as file:
            digest = _digest_start(file, os.fstat(file.fileno()).st_size - len(BLANK_DIGEST))
            tail = file.read()
        if comment.startswith(_SEAL) and digest.encode() == stated == tail:
            return
        sealed = f"sha256 {stated.decode('ascii', 'replace')}" if stated else None
        raise ArtifactError(
            f"the zip of artifact {self.path} was changed, outside what its files hold",
            got=f"sha256 {digest}",
            expected=sealed or "a zip sealed by glnet-rt",
            fix=f"{FETCH_AGAIN}; after unpacking it yourself, use the folder as it is",
        )


def _unreadable(path: Path, name: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{name} in artifact {path} cannot be read",
        got=f"{type(error).__name__}: {error}",
        expected="the bytes that were written",
        fix=FETCH_AGAIN,
    )


def write_zip(file: IO[bytes], contents: Mapping[str, bytes]) -> None:
    """Write a zip whose comment, its last bytes, is the SHA-256 of all before it.

    The digests in the manifest cover what the files hold; this one covers the zip's own headers
    and the padding between compressed blocks, where a changed byte changes no content.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, also where this runs on Windows: the same bytes
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
        archive.comment = _SEAL + BLANK_DIGEST.encode()
    size = file.seek(0, os.SEEK_END) - len(BLANK_DIGEST)
    digest = _digest_start(file, size)
    file.seek(size)
    file.write(digest.encode())


def digest_of(stream: IO[bytes], limit: int) -> tuple[str, int]:
    """SHA-256 and size of a stream, without holding it; stops once it is longer than `limit`."""
    digest, size = hashlib.sha256(), 0
    while size <= limit and (chunk := stream.read(_CHUNK_BYTES)):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _digest_start(stream: IO[bytes], size: int) -> str:
    """SHA-256 of a file's first `size` bytes."""
    digest = hashlib.sha256()
    stream.seek(0)
    while size > 0 and (chunk := stream.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def unsafe_name(path: Path, name: str) -> ArtifactError:
    """The error for a name that is no plain file name, or no plain file."""
    return ArtifactError(
        f"artifact {path} holds a name that could lead out of it",
        got=repr(name),
        expected="plain file names in one flat folder, no links",
        fix="do not use this artifact; get it from where it was published",
    )
