"""Put what the GPU tests found into the table of docs/hardware.md:

    python -m tests.gpu.record out/gpu.json docs/hardware.md

A row of the same day and GPU is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any


def row_of(results: Mapping[str, Any], day: str) -> str:
    """The table's row for one results file."""
    device, outcomes = results["device"], results["outcomes"]
    passed = outcomes.get("passed", 0)
    told = [f"{passed} of {sum(outcomes.values()) - outcomes.get('skipped', 0)} GPU tests passed"]
    for people, steps in sorted(results.get("steps_ms", {}).items(), key=lambda item: int(item[0])):
        times = ", ".join(f"{name} {value['p50']:.3f}" for name, value in steps.items())
        told.append(f"median ms for {people}: {times}")
    machine = f"{device['name']} ({device['arch']}), CUDA {device['cuda']} driver"
    return f"| {day} | {machine} | {'; '.join(told)} |"


def add_row(text: str, row: str) -> str:
    """The document with the row behind the table's last; one of the same day and GPU goes."""
    key = row.split("|")[1:3]
    lines = [line for line in text.splitlines() if line.split("|")[1:3] != key]
    last = max(i for i, line in enumerate(lines) if line.startswith("|"))
    return "\n".join([*lines[: last + 1], row, *lines[last + 1 :]]) + "\n"


def main(results: str, document: str) -> None:
    """Read one, change the other."""
    row = row_of(json.loads(Path(results).read_text()), date.today().isoformat())
    page = Path(document)
    page.write_text(add_row(page.read_text(), row))
    print(row)


if __name__ == "__main__":
    main(*sys.argv[1:])
