"""The wheel, and the names a checkout promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from glnet_rt import __version__

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tracked and new files, built offline, in a copy that nothing else sees."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("glnet_rt", "train", "export", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = ["setup.py", "-q", "bdist_wheel", "--dist-dir", "dist"]
    subprocess.run([sys.executable, *command], cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "dist").iterdir()
    return built


def test_wheel_holds_the_run_time_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"glnet_rt", f"glnet_rt-{__version__}.dist-info"}
    (listed,) = (n for n in names if n.endswith("top_level.txt"))
    assert zipfile.ZipFile(wheel).read(listed).split() == [b"glnet_rt"]


def test_wheel_holds_every_module_and_asset(wheel: Path) -> None:
    package = ROOT / "glnet_rt"
    wanted = list(package.rglob("*.py"))
    wanted += [p for p in (package / "assets").iterdir() if p.is_file()]
    wanted += (package / "backends/cuda/kernels").iterdir()
    wanted.append(package / "py.typed")
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = [p for p in wanted if p.relative_to(ROOT).as_posix() not in names]
    assert not missing


def read_metadata(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith("dist-info/METADATA"))
    return Parser().parsestr(archive.read(name).decode())


def test_wheel_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = read_metadata(wheel)
    assert metadata["Name"] == "glnet-rt"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache-2.0" in (metadata["License"] or metadata["License-Expression"])
    runtime = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert not [r for r in runtime if re.match(r"torch|scipy|onnx(?!runtime)|train|smplx", r)]
    (points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
    assert b"glnet-rt = glnet_rt.cli.main:main" in archive.read(points)
    assert any(n.endswith("LICENSE") for n in archive.namelist())


IMPORT_NAMES = {
    "cuda-bindings": "cuda",
    "nvidia-modelopt": "modelopt",
    "opencv-python-headless": "cv2",
    "pytest-cov": "pytest",
    "scikit-image": "skimage",
    "tensorrt-rtx": "tensorrt_rtx",
}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("glnet_rt", ("openvino", "cuda", "pycuda")),
        ("train", ("train",)),
        ("export", ("export", "fp8")),
        ("benchmarks", ("train", "export", "dev", "oracles", "peers")),
        ("tests", ("openvino", "cuda", "rtx", "train", "export", "dev", "oracles")),
    ],
)
def test_whatever_is_imported_is_a_declared_dependency(
    wheel: Path, folder: str, extras: tuple[str, ...]
) -> None:
    wanted = set()
    for requirement in read_metadata(wheel).get_all("Requires-Dist"):
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if extra is None or extra[1] in extras:
            name = re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
            wanted.add(IMPORT_NAMES.get(name, name))
    ours = {"glnet_rt", "train", "export", "benchmarks", "tests"}
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        found |= set(re.findall(r"^\s*(?:import|from) ([A-Za-z_]\w*)", path.read_text(), re.M))
    assert found - set(sys.stdlib_module_names) - ours <= wanted


def test_makefile_has_the_promised_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-gpu", "check-all", "lint", "bench"):
        assert re.search(rf"^{target}:", text, re.M)
    runner = ROOT / ".ci/run"
    assert "make test" in runner.read_text()
    assert runner.stat().st_mode & 0o111


def test_numba_kernels_are_left_out_of_coverage_and_nothing_else_is() -> None:
    """The pattern in pyproject.toml takes decorators of kernels, however they are spelt."""
    text = (ROOT / "pyproject.toml").read_text()
    (line,) = re.findall(r"^exclude_also = \[\"(.*?)\"", text, re.M)
    pattern = re.compile(line.replace("\\\\", "\\"))
    for spelt in ("@nb.njit(cache=True)", "@njit", "    @numba.njit(", "@nb.njit"):
        assert pattern.search(spelt)
    for spelt in ("# see @nb.njit", "@dataclass", "value = njit(f)", "@njitter"):
        assert not pattern.search(spelt)


def test_links_of_the_readme_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(((?!http|#)[^)]+)\)", readme):
        if not link.startswith("docs/images/"):
            assert (ROOT / link).exists(), link
