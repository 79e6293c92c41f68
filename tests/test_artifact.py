"""An artifact comes back as it was written, or not at all, with the name of the file at fault."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glnet_rt.artifact import MANIFEST, Artifact, Manifest, write_artifact
from glnet_rt.contracts import NetOutput
from glnet_rt.errors import ArtifactError, ContractError
from glnet_rt.probe import Probe
from glnet_rt.spec import NetSpec
from tests import tiny

Check = Callable[[Exception], None]
FILES = ("manifest.json", "model.fp32.onnx", "body.npz", "probe.npz", "parity.json")


def contents_of(path: Path) -> dict[str, bytes]:
    """Every member of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, contents: dict[str, bytes]) -> Path:
    """A zip of exactly these members, in whatever order and under whatever names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def seal(values: dict[str, Any]) -> bytes:
    """A manifest whose own digest is right, whatever it says."""
    values = {**values, "manifest_sha256": "0" * 64}
    blank = json.dumps(values, indent=2).encode()
    digest = hashlib.sha256(blank).hexdigest()
    values["manifest_sha256"] = digest
    return json.dumps(values, indent=2).encode()


@pytest.fixture
def contents(tiny_path: Path) -> dict[str, bytes]:
    return contents_of(tiny_path)


@pytest.fixture
def values(contents: dict[str, bytes]) -> dict[str, Any]:
    """The manifest as plain JSON."""
    return json.loads(contents[MANIFEST])


@pytest.fixture
def folder(tmp_path: Path, contents: dict[str, bytes]) -> Path:
    """The artifact unpacked."""
    path = tmp_path / "tiny"
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return path


def refused(path: Path, assert_helpful: Check, *mentions: str) -> ArtifactError:
    """Opening fails with an ArtifactError that mentions the artifact and these words."""
    with pytest.raises(ArtifactError) as caught:
        Artifact.open(path)
    assert_helpful(caught.value)
    for words in (path.name, *mentions):
        assert words in str(caught.value)
    return caught.value


# -- writing and reading --------------------------------------------------------------------------


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    source = tmp_path / "weights.onnx"
    source.write_bytes(os.urandom(3_000_000))
    files = {
        "model.fp32.onnx": source,
        "model.fp16.onnx": b"half",
        "body.npz": b"body",
        "probe.npz": b"probe",
        "parity.json": b'{"fp32": 1}',
        "NOTICE.txt": "© someone".encode(),
    }
    manifest = Manifest(
        name="näme",
        licence="Apache-2.0",
        training_data='"0000" people',
        spec=NetSpec(preset="w32", input_size=256, representation="direct"),
        precisions=("fp32", "fp16"),
    )
    path = write_artifact(tmp_path / "a.glnet", manifest, files)
    artifact = Artifact.open(path)
    assert artifact.spec == manifest.spec
    assert artifact.manifest.precisions == ("fp32", "fp16")
    for name in ("name", "licence", "training_data"):
        assert getattr(artifact.manifest, name) == getattr(manifest, name)
    assert set(artifact.manifest.files) == set(files)
    assert artifact.read_model("fp32") == source.read_bytes()
    assert artifact.read_model("fp16") == b"half"
    assert artifact.read("NOTICE.txt") == files["NOTICE.txt"]
    assert artifact.read_parity() == {"fp32": 1}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, tiny_path: Path) -> None:
    again = tiny.write(tmp_path / "again.glnet")
    assert again.read_bytes() == tiny_path.read_bytes()


def test_a_folder_reads_like_the_zip(folder: Path, tiny_artifact: Artifact) -> None:
    unpacked = Artifact.open(folder)
    assert unpacked.manifest == tiny_artifact.manifest
    for name in unpacked.manifest.files:
        assert unpacked.read(name) == tiny_artifact.read(name)


def test_a_link_to_an_artifact_opens(tmp_path: Path, tiny_path: Path) -> None:
    link = tmp_path / "link.glnet"
    link.symlink_to(tiny_path)
    assert Artifact.open(link).manifest.name == "tiny"


def test_writing_fails_whole(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """A writer that fails leaves the old artifact, and nothing beside it."""
    path = tmp_path / "a.glnet"
    path.write_bytes(b"the old one")
    manifest = Manifest("n", "l", "t", NetSpec())
    files = {name: data for name, data in contents.items() if name != MANIFEST}
    for broken in (
        {**files, "body.npz": tmp_path / "no such file"},
        {name: data for name, data in files.items() if name != "probe.npz"},
        {**files, "../escape": b""},
        {**files, "sub/file": b""},
        {**files, MANIFEST: b"{}"},
    ):
        with pytest.raises((OSError, ContractError)):
            write_artifact(path, manifest, broken)
        assert path.read_bytes() == b"the old one"
        assert os.listdir(tmp_path) == ["a.glnet"]


def test_writing_names_what_is_missing(tmp_path: Path) -> None:
    manifest = Manifest("n", "l", "t", NetSpec(), precisions=("fp32", "int8"))
    with pytest.raises(ContractError, match=r"body\.npz, model\.fp32\.onnx, model\.int8"):
        write_artifact(tmp_path / "a", manifest, {"parity.json": b"", "probe.npz": b""})


# -- changed bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.95])
def test_a_changed_byte_in_a_folder_names_its_file(
    folder: Path, name: str, where: float, assert_helpful: Check
) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 0x01
    (folder / name).write_bytes(data)
    refused(folder, assert_helpful, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.95])
def test_a_changed_byte_in_a_zip_names_its_file(
    tmp_path: Path, tiny_path: Path, name: str, where: float, assert_helpful: Check
) -> None:
    with zipfile.ZipFile(tiny_path) as archive:
        info = archive.getinfo(name)
    start = info.header_offset + 30 + len(name)  # behind the member's local header
    data = bytearray(tiny_path.read_bytes())
    data[start + int(where * (info.compress_size - 1))] ^= 0xFF
    path = tmp_path / "changed.glnet"
    path.write_bytes(data)
    refused(path, assert_helpful, name)


def test_any_changed_byte_in_a_zip_is_noticed(
    tmp_path: Path, tiny_path: Path, assert_helpful: Check
) -> None:
    """Headers, names, dates, directory, padding: wherever it lies."""
    original = tiny_path.read_bytes()
    with zipfile.ZipFile(tiny_path) as archive:
        headers = [i.header_offset + k for i in archive.infolist() for k in range(30)]
        positions = [*headers, *range(archive.start_dir, len(original))]
    rng = np.random.default_rng(1)
    for position in rng.choice(positions, 200, replace=False):
        data = bytearray(original)
        data[position] ^= 1 << rng.integers(8)
        path = tmp_path / "fuzzed.glnet"
        path.write_bytes(data)
        refused(path, assert_helpful)


@pytest.mark.parametrize("tail", [b"\0", b"more", bytes(70_000)])
def test_bytes_behind_a_zip_are_noticed(
    tmp_path: Path, tiny_path: Path, tail: bytes, assert_helpful: Check
) -> None:
    path = tmp_path / "longer.glnet"
    path.write_bytes(tiny_path.read_bytes() + tail)
    refused(path, assert_helpful)


def test_a_zip_packed_by_hand_is_refused(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    refused(pack(tmp_path / "a.glnet", contents), assert_helpful, "a zip sealed by glnet-rt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_zip_is_refused(
    tmp_path: Path, tiny_path: Path, share: float, assert_helpful: Check
) -> None:
    data = tiny_path.read_bytes()
    path = tmp_path / "cut.glnet"
    path.write_bytes(data[: int(share * len(data))])
    refused(path, assert_helpful, "truncated or no zip file")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_in_a_folder_is_refused(
    folder: Path, name: str, assert_helpful: Check
) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    refused(folder, assert_helpful, name)


def test_a_change_after_opening_is_noticed(folder: Path, assert_helpful: Check) -> None:
    artifact = Artifact.open(folder)
    data = bytearray((folder / "body.npz").read_bytes())
    data[100] ^= 1
    (folder / "body.npz").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"body\.npz .* was changed") as caught:
        artifact.read("body.npz")
    assert_helpful(caught.value)
    (folder / "body.npz").unlink()
    with pytest.raises(ArtifactError, match=r"body\.npz .* cannot be read") as caught:
        artifact.read("body.npz")
    assert_helpful(caught.value)


# -- names, missing and extra files ---------------------------------------------------------------


def test_a_missing_artifact_is_told(tmp_path: Path, assert_helpful: Check) -> None:
    refused(tmp_path / "nowhere.glnet", assert_helpful, "missing")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, assert_helpful: Check) -> None:
    path = tmp_path / "model.glnet"
    path.write_text("weights")
    refused(path, assert_helpful, "no zip file")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(
    tmp_path: Path, contents: dict[str, bytes], folder: Path, name: str, assert_helpful: Check
) -> None:
    (folder / name).unlink()
    refused(folder, assert_helpful, name)
    contents.pop(name)
    refused(pack(tmp_path / "a.glnet", contents), assert_helpful, name)


def test_an_extra_file_is_named(
    tmp_path: Path, contents: dict[str, bytes], folder: Path, assert_helpful: Check
) -> None:
    (folder / "extra.bin").write_bytes(b"?")
    refused(folder, assert_helpful, "extra.bin not in the manifest")
    contents["extra.bin"] = b"?"
    refused(pack(tmp_path / "a.glnet", contents), assert_helpful, "extra.bin not in the manifest")


UNSAFE = ("../evil", "/evil", "sub/evil", "..", "C:\\evil", "sub/", ".hidden", "a\nb", "é")


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_lead_out_are_refused(
    tmp_path: Path,
    contents: dict[str, bytes],
    values: dict[str, Any],
    name: str,
    assert_helpful: Check,
) -> None:
    in_zip = pack(tmp_path / "a.glnet", {**contents, name: b""})
    refused(in_zip, assert_helpful, "lead out", repr(name))
    values["files"][name] = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    listed = pack(tmp_path / "b.glnet", {**contents, MANIFEST: seal(values)})
    refused(listed, assert_helpful, "lead out", repr(name))


def test_links_and_folders_inside_are_refused(
    tmp_path: Path, contents: dict[str, bytes], folder: Path, assert_helpful: Check
) -> None:
    path = tmp_path / "a.glnet"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            kind = stat.S_IFLNK if name == "body.npz" else stat.S_IFREG
            info.external_attr = (kind | 0o644) << 16
            archive.writestr(info, content)
    refused(path, assert_helpful, "lead out", "body.npz")

    (folder / "body.npz").rename(tmp_path / "elsewhere.npz")
    (folder / "body.npz").symlink_to(tmp_path / "elsewhere.npz")
    refused(folder, assert_helpful, "lead out", "body.npz")
    (folder / "body.npz").unlink()
    (folder / "body.npz").mkdir()
    refused(folder, assert_helpful, "lead out", "body.npz")


def test_a_name_stored_twice_is_refused(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    path = pack(tmp_path / "a.glnet", contents)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("body.npz", b"another body")
    refused(path, assert_helpful, "body.npz twice")


def test_other_compression_is_refused(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    path = tmp_path / "a.glnet"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    refused(path, assert_helpful, "compression method 12")


def test_a_file_larger_than_promised_is_not_unpacked(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    contents["body.npz"] = bytes(80_000_000)  # 80 kB in the zip
    path = pack(tmp_path / "bomb.glnet", contents)
    refused(path, assert_helpful, "body.npz", "another size", "more than")


# -- the manifest ---------------------------------------------------------------------------------


def change_spec(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["spec"].update(changes)


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer schema": (lambda v: v.update(schema_version=3), "schema_version 3"),
    "no schema": (lambda v: v.pop("schema_version"), "schema_version None"),
    "boolean schema": (lambda v: v.update(schema_version=True), "schema_version True"),
    "unknown field": (lambda v: v.update(colour="red"), "other fields"),
    "missing field": (lambda v: v.pop("licence"), "other fields"),
    "no name": (lambda v: v.update(name=None), "states no name"),
    "no calibration": (lambda v: v.update(calibration_sha256=None), "no calibration_sha256"),
    "unknown precision": (lambda v: v.update(precisions=["fp64"]), "unknown precisions"),
    "nested precision": (lambda v: v.update(precisions=[["fp32"]]), "unknown precisions"),
    "no precision": (lambda v: v.update(precisions=[]), "unknown precisions"),
    "unlisted model": (lambda v: v.update(precisions=["fp32", "int8"]), "model.int8.onnx"),
    "no files": (lambda v: v.update(files=[]), "lists no files"),
    "no size": (lambda v: v["files"]["body.npz"].pop("size"), "describes body.npz badly"),
    "text size": (lambda v: v["files"]["body.npz"].update(size="9"), "describes body.npz badly"),
    "no spec": (lambda v: v.update(spec=None), "no NetSpec"),
    "unknown spec field": (change_spec(colour="red"), "other fields"),
    "text in spec": (change_spec(input_size="128"), "NetSpec.input_size"),
    "unknown representation": (change_spec(representation="quaternion"), "representation"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_manifest_out_of_order_is_refused(
    tmp_path: Path,
    contents: dict[str, bytes],
    values: dict[str, Any],
    name: str,
    assert_helpful: Check,
) -> None:
    change, message = BAD_MANIFESTS[name]
    change(values)
    path = pack(tmp_path / "a.glnet", {**contents, MANIFEST: seal(values)})
    with pytest.raises(ArtifactError) as caught:
        Artifact.open(path)
    assert_helpful(caught.value)
    assert message in str(caught.value)


def test_an_edited_manifest_is_noticed(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    """Not a damaged byte but a deliberate edit: nothing but the digest can tell."""
    edited = contents[MANIFEST].replace(b"CC0-1.0", b"CC0-9.9")
    path = pack(tmp_path / "a.glnet", {**contents, MANIFEST: edited})
    refused(path, assert_helpful, MANIFEST, "was changed", "sha256")
    without = contents[MANIFEST].replace(b"manifest_sha256", b"manifest_sha257")
    path = pack(tmp_path / "b.glnet", {**contents, MANIFEST: without})
    refused(path, assert_helpful, MANIFEST, "its own sha256")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"7", b"[" * 100_000])
def test_a_manifest_that_is_no_object_is_refused(
    tmp_path: Path, contents: dict[str, bytes], data: bytes, assert_helpful: Check
) -> None:
    path = pack(tmp_path / "a.glnet", {**contents, MANIFEST: data})
    refused(path, assert_helpful, MANIFEST)


def test_a_huge_manifest_is_not_read(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    path = pack(tmp_path / "a.glnet", {**contents, MANIFEST: b" " * 50_000_000})
    refused(path, assert_helpful, MANIFEST, "too large")


# -- what lies inside -----------------------------------------------------------------------------


def test_arrays_come_back(tiny_artifact: Artifact) -> None:
    arrays = tiny_artifact.read_arrays("probe.npz")
    assert arrays["crops_bgr"].dtype == np.uint8
    assert set(arrays) == {"crops_bgr", *tiny_artifact.spec.output_shapes}


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize("data", [npz(a=np.array([{}])), b"no archive", b"", b"PK\x03\x04"])
def test_arrays_that_need_unpickling_or_are_none_are_refused(
    tmp_path: Path, contents: dict[str, bytes], data: bytes, assert_helpful: Check
) -> None:
    files = {name: value for name, value in contents.items() if name != MANIFEST}
    manifest = Manifest("n", "l", "t", NetSpec())
    path = write_artifact(tmp_path / "a.glnet", manifest, {**files, "probe.npz": data})
    with pytest.raises(ArtifactError, match=r"probe\.npz .* no archive") as caught:
        Artifact.open(path).read_arrays("probe.npz")
    assert_helpful(caught.value)


def test_unpickling_is_refused_before_it_runs(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """An object array that would leave a file behind if anything ever unpickled it."""
    trace = tmp_path / "trace"

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
            return open, (str(trace), "w")

    files = {name: value for name, value in contents.items() if name != MANIFEST}
    files["probe.npz"] = npz(crops_bgr=np.array([Payload()], object))
    path = write_artifact(tmp_path / "a.glnet", Manifest("n", "l", "t", NetSpec()), files)
    with pytest.raises(ArtifactError):
        Artifact.open(path).read_arrays("probe.npz")
    assert not trace.exists()


def test_what_it_does_not_hold_is_told(tiny_artifact: Artifact, assert_helpful: Check) -> None:
    for name in ("model.int8.onnx", "../evil", MANIFEST):
        with pytest.raises(ArtifactError, match="has no file") as caught:
            tiny_artifact.read(name)
        assert_helpful(caught.value)
    with pytest.raises(ArtifactError, match=r"model\.int8\.onnx"):
        tiny_artifact.read_model("int8")


def test_parity_that_is_no_json_is_told(
    tmp_path: Path, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    files = {name: value for name, value in contents.items() if name != MANIFEST}
    files["parity.json"] = b"{"
    path = write_artifact(tmp_path / "a.glnet", Manifest("n", "l", "t", NetSpec()), files)
    with pytest.raises(ArtifactError, match="not JSON") as caught:
        Artifact.open(path).read_parity()
    assert_helpful(caught.value)


# -- the probe ------------------------------------------------------------------------------------


def test_the_probe_comes_back(tiny_artifact: Artifact) -> None:
    probe = Probe.read(tiny_artifact)
    assert len(probe.crops_bgr) == tiny.NUM_PROBES
    spec = tiny_artifact.spec
    reference = tiny.run_reference(tiny.model(spec), probe.crops_bgr, spec)
    np.testing.assert_array_equal(probe.output.keypoints_uvd, reference.keypoints_uvd)


def test_a_probe_that_does_not_fit_is_refused(
    tmp_path: Path, tiny_artifact: Artifact, contents: dict[str, bytes], assert_helpful: Check
) -> None:
    arrays = tiny_artifact.read_arrays("probe.npz")
    files = {name: value for name, value in contents.items() if name != MANIFEST}
    for broken in (
        {**arrays, "crops_bgr": arrays["crops_bgr"][:, 1:]},
        {**arrays, "crops_bgr": arrays["crops_bgr"][1:]},
        {name: value for name, value in arrays.items() if name != "crops_bgr"},
        {name: value for name, value in arrays.items() if name != "twist"},
        {name: value[:0] for name, value in arrays.items()},
    ):
        files["probe.npz"] = npz(**broken)
        manifest = Manifest("n", "l", "t", tiny_artifact.spec)
        path = write_artifact(tmp_path / "a.glnet", manifest, files)
        with pytest.raises(ArtifactError, match=r"probe\.npz .* does not fit") as caught:
            Probe.read(Artifact.open(path))
        assert_helpful(caught.value)


def test_a_probe_is_checked_before_it_is_written(tiny_artifact: Artifact) -> None:
    probe = Probe.read(tiny_artifact)
    output = NetOutput(
        **{
            name: getattr(probe.output, name).astype(np.float64)
            for name in tiny_artifact.spec.output_shapes
        }
    )
    with pytest.raises(ContractError, match="wrong dtype"):
        Probe(probe.crops_bgr, output).to_bytes(tiny_artifact.spec)
