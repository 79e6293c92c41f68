"""Where a number came from: command, commit, machine, versions. Results files start with it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from glnet_rt.cpu import cpu_name, usable_cores

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
PACKAGES = ("numpy", "numba", "opencv-python-headless", "onnxruntime", "openvino", "torch")


def record() -> dict[str, Any]:
    """What a reader needs to repeat a measurement."""
    module = Path(sys.argv[0]).stem
    return {
        "command": " ".join(["python -m", f"benchmarks.{module}", *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "machine": {
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "governor": governor(),
            "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {name: version(name) for name in PACKAGES},
    }


def governor() -> str:
    """How the first core's clock is set, such as `performance`; empty where Linux does not tell."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return ""


def commit() -> str:
    """The checkout's commit; `+changes` where tracked files differ from it."""
    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def name_here(name: str) -> str:
    """A file's name on this CPU. Without VNNI INT8 is another matter, and has files of its own."""
    return name if "avx512_vnni" in cpu_name() else f"{name}-without-vnni"


def write(name: str, values: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `NAME.json` into the folder, the record first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**record(), **values}, indent=1) + "\n")
    return path
