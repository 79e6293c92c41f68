"""A data set on disk: tar files that `webdataset` reads person by person, and that map into memory.

`shard-00000.tar` holds, for each person, `NNNNNN.image.npy`, `.mask.npy`, `.surface.npy` and
`.labels.npz`, uncompressed; NNNNNN is the person's number in the whole set. Everybody takes the
same number of bytes, so the file is also an array of records. `shard-00000.json`, written last,
describes the set and where in a record each array lies.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError
from glnet_rt.skeleton import KEYPOINTS, NUM_JOINTS, NUM_KEYPOINTS, NUM_TWISTS
from train.synthetic.actors import NUM_BETAS
from train.synthetic.background import BACKGROUND_NAMES
from train.synthetic.generate import FLAG_NAMES
from train.synthetic.poses import FAMILY_NAMES
from train.synthetic.things import THING_NAMES

FORMAT_VERSION = 3  # of the files
GENERATOR_VERSION = 7  # of the pictures: raise it when the same seed gives other ones
_MEMBERS = {"images": "image.npy", "mask": "mask.npy", "surface": "surface.npy"}
_LABELS = "labels.npz"  # holds the other fields
_BLOCK = 512  # of a tar file
_END = 2 * _BLOCK
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest there is: the same bytes on every day


def fields(size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape of one sample, dtype) for pictures of side `size`."""
    return {
        "images": ((size, size, 3), np.uint8),
        "mask": ((size, size // 8), np.uint8),
        "surface": ((size // 4, size // 4, 4), np.int8),
        "keypoints_uv": ((NUM_KEYPOINTS, 2), np.float32),
        "visible": ((NUM_KEYPOINTS,), np.uint8),
        "keypoints_xyz": ((NUM_KEYPOINTS, 3), np.float32),
        "root_xyz": ((3,), np.float32),
        "focal": ((), np.float32),
        "principal_uv": ((2,), np.float32),
        "rotmats": ((NUM_JOINTS, 3, 3), np.float32),
        "twist": ((NUM_TWISTS, 2), np.float32),
        "betas": ((NUM_BETAS,), np.float32),
        "box_uv": ((4,), np.float32),
        "kind": ((), np.uint8),
        "background": ((), np.uint8),
        "flags": ((), np.uint8),
        "things": ((), np.uint32),
    }


@dataclass(frozen=True, eq=False)
class Shard:
    """A finished shard: `meta` and one memory-mapped array [N, ...] per name of `fields`."""

    path: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return int(self.meta["count"])


def encode(number: int, values: Mapping[str, Array], size: int) -> bytes:
    """One person as members of a tar file.

    Args:
        number: in the whole set; names the members.
        values: an array per name of `fields(size)`, converted to its dtype.
    """
    typed = {
        name: np.ascontiguousarray(values[name], dtype).reshape(shape)
        for name, (shape, dtype) in fields(size).items()
    }
    members = {suffix: _npy(typed.pop(name)) for name, suffix in _MEMBERS.items()}
    members[_LABELS] = _npz(typed)
    pieces = []
    for suffix, content in members.items():
        info = tarfile.TarInfo(f"{number:06d}.{suffix}")
        info.size = len(content)
        pieces += [info.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK)]
    return b"".join(pieces)


def _npy(array: Array) -> bytes:
    return _npy_header(array.shape, array.dtype.str) + array.tobytes()


@lru_cache(maxsize=64)
def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, dtype), allow_pickle=False)
    return stream.getvalue()[: -_bytes(shape, dtype)]


def _npz(arrays: Mapping[str, Array]) -> bytes:
    """Stored, not deflated: every array stays where it is in the file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE), _npy(array))
    return stream.getvalue()


@lru_cache(maxsize=4)
def record_dtype(size: int) -> np.dtype[np.void]:
    """What `encode` writes, as a record: every field at its offset, names and headers between."""
    wanted = fields(size)
    blank = encode(0, {n: np.zeros(shape, dtype) for n, (shape, dtype) in wanted.items()}, size)
    ends = _ends_of_arrays(blank)
    return np.dtype(
        {
            "names": list(wanted),
            "formats": [(dtype, shape) for shape, dtype in wanted.values()],
            "offsets": [ends[name] - _bytes(*wanted[name]) for name in wanted],
            "itemsize": len(blank),
        }
    )


def _ends_of_arrays(person: bytes) -> dict[str, int]:
    """Field -> where its last byte ends within what `encode` made."""
    with tarfile.open(fileobj=io.BytesIO(person + bytes(_END))) as archive:
        members = {info.name.partition(".")[2]: info for info in archive}
    ends = {n: members[s].offset_data + members[s].size for n, s in _MEMBERS.items()}
    start = members[_LABELS].offset_data
    with zipfile.ZipFile(io.BytesIO(person[start : start + members[_LABELS].size])) as archive_in:
        for info in archive_in.infolist():
            at = start + info.header_offset
            name_bytes, extra_bytes = struct.unpack_from("<HH", person, at + 26)
            end = at + 30 + name_bytes + extra_bytes + info.file_size
            ends[info.filename.removesuffix(".npy")] = end
    return ends


def _bytes(shape: tuple[int, ...], dtype: type | str) -> int:
    return int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize


def create(path: Path, count: int, size: int) -> None:
    """Make a tar file of the right length, still empty; without its `.json` it is unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(count * record_dtype(size).itemsize + _END)


def write(
    path: Path, row: int, number: int, people: Iterable[Mapping[str, Array]], size: int
) -> None:
    """Write people into rows `row` and following; the first has `number` in the whole set."""
    with path.open("r+b") as file:
        file.seek(row * record_dtype(size).itemsize)
        for i, values in enumerate(people):
            file.write(encode(number + i, values, size))


def finish(partial: Path, path: Path, meta: Mapping[str, Any]) -> None:
    """Give a complete tar file its place and its `.json`; who has an older one open keeps it."""
    record = record_dtype(int(meta["size"]))
    assert record.fields is not None
    described = {
        "format_version": FORMAT_VERSION,
        "keypoints": KEYPOINTS,
        "kinds": FAMILY_NAMES,
        "backgrounds": BACKGROUND_NAMES,
        "flags": FLAG_NAMES,
        "things": THING_NAMES,
        "bytes_per_person": record.itemsize,
        "arrays": {
            name: {"offset": field[1], "shape": field[0].shape, "dtype": field[0].base.str}
            for name, field in record.fields.items()
        },
    }
    beside = path.with_suffix(".json")
    beside.unlink(missing_ok=True)
    partial.replace(path)
    unfinished = beside.with_suffix(".partial")
    unfinished.write_text(json.dumps({**meta, **described}, indent=1) + "\n")
    os.replace(unfinished, beside)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The `.json` beside a finished tar file, or None where there is none."""
    beside = path.with_suffix(".json")
    if not beside.is_file() or not path.is_file():
        return None
    meta: dict[str, Any] = json.loads(beside.read_text())
    return meta


def open_shard(path: Path) -> Shard:
    """Map a finished shard `shard-NNNNN.tar`, read-only.

    Raises:
        ArtifactError: unfinished, of another format, or with a length that does not match its meta.
    """
    meta = read_meta(path)
    if meta is None:
        raise ArtifactError(
            f"{path.name} is no finished shard", expected=path.with_suffix(".json").name,
            fix="let python -m train.synthetic end, or start it again with the same --out",
        )  # fmt: skip
    if meta.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(
            f"{path.name} has another format", got=meta.get("format_version"),
            expected=FORMAT_VERSION, fix="render the set again with python -m train.synthetic",
        )  # fmt: skip
    record, count = record_dtype(int(meta["size"])), int(meta["count"])
    length = count * record.itemsize + _END
    if path.stat().st_size != length or meta["bytes_per_person"] != record.itemsize:
        raise ArtifactError(
            f"{path.name} does not match its {path.with_suffix('.json').name}",
            got=f"{path.stat().st_size} bytes", expected=f"{length} bytes",
            fix="render the shard again",
        )  # fmt: skip
    rows = np.memmap(path, record, "r", shape=(count,))
    return Shard(path, meta, {name: rows[name] for name in fields(int(meta["size"]))})


def finished_shards(folder: Path) -> list[Path]:
    """The tar files of the finished shards in a set's folder, in order."""
    return sorted(p for p in folder.glob("shard-*.tar") if p.with_suffix(".json").is_file())
