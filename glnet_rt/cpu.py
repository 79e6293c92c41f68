"""The processor: its name, and how many of its cores this process may use."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from pathlib import Path

_SETS = ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8")
_CGROUPS = Path("/sys/fs/cgroup")


def cpu_name() -> str:
    """The processor's own name and the instruction sets that matter to inference."""
    fields = _cpuinfo()
    flags = set(fields.get("flags", "").split())
    name = fields.get("model name") or platform.processor() or "unknown"
    return " ".join([name, *(f for f in _SETS if f in flags)])


def cpu_sha256() -> str:
    """Of everything that code compiled for one processor and run on another could differ in."""
    fields = _cpuinfo()
    kept = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
    facts = [platform.machine(), *(fields.get(name, "") for name in kept)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def usable_cores() -> int:
    """Physical cores that this process is allowed, by its affinity and its cgroup's quota."""
    allowed = os.sched_getaffinity(0)
    cores = len({_siblings(cpu) for cpu in allowed})
    quota = _cgroup_quota(Path("/proc/self/cgroup"), _CGROUPS)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _cpuinfo() -> dict[str, str]:
    """The last processor's fields; empty where the system tells none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines.items()}


def _siblings(cpu: int) -> str:
    """The hardware threads of a core, as the kernel lists them, else its own number."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota(membership: Path, root: Path) -> float | None:
    """Cores' worth of time that the cgroup may take, the least of it and its parents; or None.

    Args:
        membership: a process's `cgroup` file.
        root: where cgroups are mounted, of version 2, or 1 with its controller in `cpu`.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        folder = top / name.lstrip("/")
        for place in (folder, *folder.parents):
            quotas += _quota_of(place)
            if place == top:
                break
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    """The quota of one cgroup of either version, over its period; empty where it has none."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
        except OSError:
            continue
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
            return [int(words[0]) / int(words[1])]
    return []
