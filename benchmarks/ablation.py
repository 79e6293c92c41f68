"""`python -m benchmarks.ablation`: collect what `python -m train ablate` has trained.

Trains nothing: a table with a row that is not through is left out, and where no run lies below
`--runs` the results stay as they are. Every folder is one budget, with tables of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._record import RESULTS, write
from train.ablate import BUDGET_FILE, TABLES, markdown, results_in, rows_of

NOTE = (
    "Synthetic held-out people (24 joints, root pelvis) beside 3DPW (14 joints): orders can be "
    "compared, figures cannot. Mean ± standard deviation over the seeds."
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", default=[Path("runs/ablation")])
    arguments = parser.parse_args()
    budgets = [tables_of(folder) for folder in arguments.runs if results_in(folder)]
    if not budgets:
        folders = ", ".join(map(str, arguments.runs))
        print(f"no run below {folders}: `python -m train ablate 2` trains Table 2's")
        return
    path = write("ablation", {"protocol": NOTE, "budgets": budgets})
    text = "\n\n".join([NOTE, *map(shown, budgets)])
    (RESULTS / "ablation.md").write_text(text + "\n")
    print(text)
    print(f"wrote {path.relative_to(path.parents[2])}")


def tables_of(folder: Path) -> dict[str, Any]:
    """The budget that a folder's runs had, and the rows of its whole tables."""
    found = results_in(folder)
    tables = {str(table): rows_of(table, found) for table in TABLES}
    return {
        "budget": json.loads((folder / BUDGET_FILE).read_text()),
        "tables": {n: rows for n, rows in tables.items() if all(row["seeds"] for row in rows)},
    }


def shown(values: Mapping[str, Any]) -> str:
    """One budget and its tables."""
    budget = ", ".join(f"{name} {value}" for name, value in values["budget"].items())
    tables = [markdown(int(table), rows) for table, rows in values["tables"].items()]
    return "\n\n".join([f"Every run: {budget}.", *tables])


if __name__ == "__main__":
    main()
