"""The row that the GPU tests add to docs/hardware.md."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gpu.record import add_row, main, row_of

RESULTS = {
    "device": {"name": "Orin", "arch": "sm_87", "cuda": "12.6"},
    "outcomes": {"passed": 11, "failed": 1, "skipped": 2},
    "steps_ms": {"8": {"crop": {"p50": 0.25}}, "1": {"crop": {"p50": 0.125}}},
}
PAGE = "# What ran where\n\n| Date | Machine | What ran |\n|---|---|---|\n| d | m | w |\n\nText.\n"


def test_a_row_tells_the_device_the_tests_and_the_times() -> None:
    row = row_of(RESULTS, "2026-12-01")
    assert row.startswith("| 2026-12-01 | Orin (sm_87), CUDA 12.6 driver | 11 of 12 GPU tests")
    assert row.index("median ms for 1: crop 0.125") < row.index("median ms for 8: crop 0.250")


def test_rows_are_added_behind_the_last_and_replaced_on_the_same_day() -> None:
    once = add_row(PAGE, "| 2026-12-01 | Orin | first |")
    assert once == PAGE.replace("| d | m | w |\n", "| d | m | w |\n| 2026-12-01 | Orin | first |\n")
    twice = add_row(once, "| 2026-12-01 | Orin | second |")
    assert twice == once.replace("first", "second")
    assert add_row(twice, "| 2026-12-02 | Orin | third |").count("Orin") == 2


def test_the_page_of_this_project_takes_a_row(tmp_path: Path) -> None:
    page, results = tmp_path / "hardware.md", tmp_path / "gpu.json"
    page.write_text((Path(__file__).parents[1] / "docs" / "hardware.md").read_text())
    results.write_text(json.dumps(RESULTS))
    main(str(results), str(page))
    assert "| Orin (sm_87), CUDA 12.6 driver |" in page.read_text()
