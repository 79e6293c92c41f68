"""`python -m benchmarks.ablation`: collect what `python -m train ablate` has trained.

Trains nothing: rows and seeds that are not through are left empty, and where no run lies below
`--runs` the results stay as they are.
"""

from __future__ import annotations

import argparse
import json
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
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    found = results_in(arguments.runs)
    if not found:
        print(f"no run below {arguments.runs}: `python -m train ablate 2` trains Table 2's")
        return
    rows = {table: rows_of(table, found) for table in TABLES}
    values: dict[str, Any] = {
        "protocol": NOTE,
        "budget": json.loads((arguments.runs / BUDGET_FILE).read_text()),
        "tables": {str(table): row for table, row in rows.items()},
    }
    path = write("ablation", values)
    tables = [markdown(table, row) for table, row in rows.items()]
    budget = ", ".join(f"{name} {value}" for name, value in values["budget"].items())
    text = "\n\n".join([NOTE, f"Every run: {budget}.", *tables])
    (RESULTS / "ablation.md").write_text(text + "\n")
    print(text)
    print(f"wrote {path.relative_to(path.parents[2])}")


if __name__ == "__main__":
    main()
