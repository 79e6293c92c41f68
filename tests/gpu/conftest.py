"""What the GPU tests measured and how they ended, as one JSON file for `tests/gpu/record.py`."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(os.environ.get("GLNET_RT_GPU_RESULTS", "out/gpu.json"))
_outcomes: Counter[str] = Counter()
_measured: dict[str, Any] = {}


@pytest.fixture(scope="session")
def measured() -> dict[str, Any]:
    """Name -> number or dict of numbers; ends in the results file."""
    return _measured


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "tests/gpu/" in report.nodeid and (report.when == "call" or report.outcome != "passed"):
        _outcomes[report.outcome] += 1


def pytest_sessionfinish() -> None:
    if _outcomes:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({"outcomes": dict(_outcomes), **_measured}, indent=2) + "\n")
