"""The `.glnet` artifact: weights, body and self-test in one file (or folder), verified when opened.

docs/artifact.md describes the format. Nothing in it is ever unpickled, no name in it can lead out
of it, and a changed byte is an error that names the file it lies in.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from glnet_rt._container import (
    BLANK_DIGEST,
    FETCH_AGAIN,
    SAFE_NAME,
    ZIP_ERRORS,
    digest_of,
    open_container,
    unsafe_name,
    write_zip,
)
from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError, ContractError
from glnet_rt.spec import NetSpec

SCHEMA_VERSION = 2
PRECISIONS = ("fp32", "fp16", "int8", "fp8", "packed")
# Precisions that are no model of their own: what computes in them -> the model it is made of.
MADE_OF = {"bf16": "fp32"}
MANIFEST, BODY, PROBE, PARITY = "manifest.json", "body.npz", "probe.npz", "parity.json"
DEFAULT_PATH = Path(__file__).parent / "assets" / "default.glnet"

_MAX_MANIFEST_BYTES = 1 << 20
_OWN_DIGEST = re.compile(rb'"manifest_sha256": "([0-9a-f]{64})"')
_EXPORT_AGAIN = "export the artifact again with this version of glnet-rt"


def model_name(precision: str) -> str:
    """File name of the ONNX model of one precision, such as `model.fp32.onnx`."""
    return f"model.{precision}.onnx"


def stored_as(precision: str) -> str:
    """The precision whose model is read to compute in this one, most often itself."""
    return MADE_OF.get(precision, precision)


@dataclass(frozen=True)
class FileEntry:
    """What the manifest promises of one file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The artifact's table of contents.

    Attributes:
        name: of the model, such as `glnet-tiny-synthetic`.
        licence: of the weights, an SPDX expression or a sentence.
        training_data: what the weights were trained on, for the people who must know.
        spec: the network's contract.
        precisions: which models it holds, `fp32` first.
        calibration_sha256: of the crops that decided how numbers are rounded; empty where none did.
        files: name -> entry of every file but the manifest; `write_artifact` fills it.
        schema_version: of this format.
    """

    name: str
    licence: str
    training_data: str
    spec: NetSpec
    precisions: tuple[str, ...] = ("fp32",)
    calibration_sha256: str = ""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def computable(self) -> tuple[str, ...]:
        """Precisions that a backend may compute in: of the models, and what is made of them."""
        return (*self.precisions, *(p for p, of in MADE_OF.items() if of in self.precisions))

    @property
    def required_files(self) -> set[str]:
        """Names that every artifact with these precisions holds besides the manifest."""
        return {BODY, PROBE, PARITY, *(model_name(p) for p in self.precisions)}

    def to_bytes(self) -> bytes:
        """JSON that carries its own SHA-256, taken with the digest's 64 digits set to zero."""
        values = {
            "schema_version": self.schema_version,
            "manifest_sha256": BLANK_DIGEST,
            "name": self.name,
            "licence": self.licence,
            "training_data": self.training_data,
            "spec": self.spec.to_dict(),
            "precisions": list(self.precisions),
            "calibration_sha256": self.calibration_sha256,
            "files": {
                name: {"sha256": entry.sha256, "size": entry.size}
                for name, entry in sorted(self.files.items())
            },
        }
        blank = (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
        digest = hashlib.sha256(blank).hexdigest()
        slot = f'"manifest_sha256": "{BLANK_DIGEST}"'
        return blank.replace(slot.encode(), f'"manifest_sha256": "{digest}"'.encode(), 1)

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Manifest:
        """Read and check what `to_bytes` wrote; `path` is the artifact's, for the messages.

        Raises:
            ArtifactError: not JSON, another schema, a changed byte, or fields out of order.
        """
        values = _parse_manifest(data, path)
        _check_own_digest(data, path)
        names = set(cls.__dataclass_fields__) | {"manifest_sha256"}
        if set(values) != names:
            raise _bad_manifest(path, "has other fields", sorted(values), sorted(names))
        for name in ("name", "licence", "training_data", "calibration_sha256"):
            if not isinstance(values[name], str):
                raise _bad_manifest(path, f"states no {name}", repr(values[name]), "text")
        precisions = values["precisions"]
        if (
            not isinstance(precisions, list)
            or not precisions
            or any(p not in PRECISIONS for p in precisions)
        ):
            raise _bad_manifest(path, "lists unknown precisions", precisions, list(PRECISIONS))
        if not isinstance(values["spec"], dict):
            raise _bad_manifest(path, "holds no NetSpec", repr(values["spec"]), "an object")
        return cls(
            name=values["name"],
            licence=values["licence"],
            training_data=values["training_data"],
            spec=NetSpec.from_dict(values["spec"]),
            precisions=tuple(precisions),
            calibration_sha256=values["calibration_sha256"],
            files=_parse_entries(values["files"], path),
        )


@dataclass(frozen=True)
class Artifact:
    """An opened artifact whose every byte has been checked. Holds no open file.

    Attributes:
        path: the `.glnet` file or folder.
        manifest: what it says of itself.
    """

    path: Path
    manifest: Manifest

    @property
    def spec(self) -> NetSpec:
        """The network's contract."""
        return self.manifest.spec

    @classmethod
    def open(cls, path: str | Path | None = None) -> Artifact:
        """Open an artifact and verify every file in it against the manifest.

        Args:
            path: a `.glnet` zip or folder; None for the one that comes with the package.

        Raises:
            ArtifactError: missing, truncated, of another schema, a file changed, missing, extra,
                or a name that could lead out of the artifact.
        """
        path = DEFAULT_PATH if path is None else Path(path)
        with open_container(path) as container:
            names = container.names()
            if MANIFEST not in names:
                raise ArtifactError(
                    f"artifact {path} has no {MANIFEST}",
                    got=sorted(names),
                    expected=f"a .glnet zip or folder with {MANIFEST} in it",
                    fix=FETCH_AGAIN,
                )
            with container.stream(MANIFEST) as stream:
                data = stream.read(_MAX_MANIFEST_BYTES + 1)
            manifest = Manifest.from_bytes(data, path)
            _check_names(path, manifest, names)
            for name, entry in manifest.files.items():
                with container.stream(name) as stream:
                    _check_entry(path, name, entry, *digest_of(stream, limit=entry.size))
            container.check_seal()
        return cls(path, manifest)

    def read(self, name: str) -> bytes:
        """All bytes of one file, checked again: what is returned is what the manifest promised.

        Raises:
            ArtifactError: no such file, or it changed since the artifact was opened.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise ArtifactError(
                f"artifact {self.path} has no file {name}",
                got=name,
                expected=sorted(self.manifest.files),
                fix=_EXPORT_AGAIN,
            )
        with open_container(self.path) as container, container.stream(name) as stream:
            data = stream.read(entry.size + 1)
        _check_entry(self.path, name, entry, hashlib.sha256(data).hexdigest(), len(data))
        return data

    def read_arrays(self, name: str) -> dict[str, Array]:
        """The arrays of one `.npz` file. Object arrays, which need unpickling, are refused."""
        data = self.read(name)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {key: arrays[key] for key in arrays.files}
        except (*ZIP_ERRORS, AttributeError) as error:  # AttributeError: a bare .npy, no archive
            raise ArtifactError(
                f"{name} in artifact {self.path} is no archive of plain arrays",
                got=str(error),
                expected="an .npz file without object arrays",
                fix=_EXPORT_AGAIN,
            ) from error

    def read_model(self, precision: str) -> bytes:
        """The ONNX model of one precision.

        Raises:
            ArtifactError: the artifact holds no such precision.
        """
        return self.read(model_name(precision))

    def read_parity(self) -> Any:
        """The parity report written at export: errors in millimetres per precision and backend."""
        try:
            return json.loads(self.read(PARITY))
        except ValueError as error:
            raise ArtifactError(
                f"{PARITY} in artifact {self.path} is not JSON",
                got=str(error),
                expected="a JSON object",
                fix=_EXPORT_AGAIN,
            ) from error


def write_artifact(path: str | Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Path:
    """Write an artifact as one zip: the same input gives the same bytes, and all or nothing.

    Args:
        path: where to, usually `NAME.glnet`; an existing file is replaced.
        manifest: its `files` are filled in here.
        files: name -> content, or a file to take the content from; all but the manifest.

    Returns:
        The path written.

    Raises:
        ContractError: an unsafe name, or files other than the manifest's precisions ask for.
        ArtifactError: what was written does not verify.
    """
    path = Path(path)
    unsafe = sorted(name for name in files if not SAFE_NAME.fullmatch(name) or name == MANIFEST)
    if unsafe:
        raise ContractError(
            "names that cannot stand in an artifact",
            got=unsafe,
            expected=f"plain file names, letters, digits, . _ -, and not {MANIFEST}",
            fix="rename them; the manifest is written here",
        )
    missing = sorted(manifest.required_files - set(files))
    if missing:
        raise ContractError(
            f"files are missing for an artifact: {', '.join(missing)}",
            got=sorted(files),
            expected=sorted(manifest.required_files),
            fix="hand over their content too, or change the manifest's precisions",
        )
    contents = {
        name: content if isinstance(content, bytes) else Path(content).read_bytes()
        for name, content in sorted(files.items())
    }
    entries = {n: FileEntry(hashlib.sha256(c).hexdigest(), len(c)) for n, c in contents.items()}
    contents = {MANIFEST: replace(manifest, files=entries).to_bytes(), **contents}
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(draft, "x+b") as file:
            write_zip(file, contents)
            file.flush()
            os.fsync(file.fileno())
        Artifact.open(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


# -- checks ---------------------------------------------------------------------------------------


def _bad_manifest(path: Path, what: str, got: object, expected: object) -> ArtifactError:
    return ArtifactError(
        f"{MANIFEST} of artifact {path} {what}", got=got, expected=expected, fix=_EXPORT_AGAIN
    )


def _parse_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """The manifest's JSON object, once its schema version is known to be ours."""
    if len(data) > _MAX_MANIFEST_BYTES:
        got, expected = f"over {_MAX_MANIFEST_BYTES} bytes", f"at most {_MAX_MANIFEST_BYTES}"
        raise _bad_manifest(path, "is too large", got, expected)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{MANIFEST} of artifact {path} is not JSON",
            got=str(error),
            expected="a JSON object",
            fix=FETCH_AGAIN,
        ) from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ArtifactError(
            f"{MANIFEST} of artifact {path} has a schema this version does not know",
            got=f"schema_version {version!r}",
            expected=f"schema_version {SCHEMA_VERSION}",
            fix="upgrade glnet-rt (pip install -U glnet-rt), or export the artifact again",
        )
    assert isinstance(values, dict)
    return values


def _check_own_digest(data: bytes, path: Path) -> None:
    slots = list(_OWN_DIGEST.finditer(data))
    stated = slots[0].group(1).decode() if len(slots) == 1 else None
    blank = _OWN_DIGEST.sub(f'"manifest_sha256": "{BLANK_DIGEST}"'.encode(), data)
    digest = hashlib.sha256(blank).hexdigest()
    if digest != stated:
        raise ArtifactError(
            f"{MANIFEST} of artifact {path} was changed",
            got=f"sha256 {digest}",
            expected=f"sha256 {stated}" if stated else "its own sha256, once",
            fix=FETCH_AGAIN,
        )


def _parse_entries(values: object, path: Path) -> dict[str, FileEntry]:
    if not isinstance(values, dict):
        raise _bad_manifest(path, "lists no files", repr(values), "an object: name -> entry")
    entries = {}
    for name, entry in values.items():
        if not SAFE_NAME.fullmatch(name) or name == MANIFEST:
            raise unsafe_name(path, name)
        if (
            not isinstance(entry, dict)
            or set(entry) != {"sha256", "size"}
            or not isinstance(entry["sha256"], str)
            or type(entry["size"]) is not int
        ):
            raise _bad_manifest(path, f"describes {name} badly", entry, "its sha256 and size")
        entries[name] = FileEntry(entry["sha256"], entry["size"])
    return entries


def _check_names(path: Path, manifest: Manifest, names: set[str]) -> None:
    """Exactly the files of the manifest are there, and the manifest lists those it must."""
    lost = sorted(manifest.required_files - set(manifest.files))
    if lost:
        got, expected = sorted(manifest.files), sorted(manifest.required_files)
        raise _bad_manifest(path, f"does not list {', '.join(lost)}", got, expected)
    missing = sorted(set(manifest.files) - names)
    extra = sorted(names - set(manifest.files) - {MANIFEST})
    if missing or extra:
        faults = [f"{', '.join(missing)} missing"] if missing else []
        faults += [f"{', '.join(extra)} not in the manifest"] if extra else []
        raise ArtifactError(
            f"artifact {path} holds other files than its manifest lists",
            got="; ".join(faults),
            expected=sorted([MANIFEST, *manifest.files]),
            fix=FETCH_AGAIN,
        )


def _check_entry(path: Path, name: str, entry: FileEntry, sha256: str, size: int) -> None:
    if size != entry.size:
        raise ArtifactError(
            f"{name} in artifact {path} has another size",
            got=f"{size} bytes" if size < entry.size else f"more than {entry.size} bytes",
            expected=f"{entry.size} bytes",
            fix=FETCH_AGAIN,
        )
    if sha256 != entry.sha256:
        raise ArtifactError(
            f"{name} in artifact {path} was changed",
            got=f"sha256 {sha256}",
            expected=f"sha256 {entry.sha256}",
            fix=FETCH_AGAIN,
        )
