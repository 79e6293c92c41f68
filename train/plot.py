"""`python -m train.plot METRICS.csv [MORE.csv ...] --out CURVE.png`: a run's learning curve.

Several files are phases of one training, each started from weights of the one before.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from train.tables import read_rows

SERIES = {
    "PA-MPJPE, mm": {
        "GLNet": "pa_mpjpe_mm",
        "global head only": "global_pa_mpjpe_mm",
        "mean pose": "mean_pose_pa_mpjpe_mm",
    },
    "2D error of the body, % of the box": {
        "GLNet": "body_2d_percent",
        "global head only": "global_body_2d_percent",
        "GLNet's keypoints": "keypoints_2d_percent",
    },
}
# Okabe and Ito's palette: apart for the colour-blind too.
COLOURS = {"GLNet": "#0072B2", "global head only": "#D55E00", "GLNet's keypoints": "#56B4E9",
           "mean pose": "#999999"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.plot", description=__doc__)
    parser.add_argument("metrics", type=Path, nargs="+", help="metrics.csv of the phases, in order")
    parser.add_argument("--out", type=Path, help="picture to write")
    parser.add_argument("--csv", type=Path, help="also write the joined curve here")
    arguments = parser.parse_args()
    rows = joined(arguments.metrics)
    if arguments.csv:
        write_rows(arguments.csv, rows)
    if arguments.out:
        draw(rows, arguments.out)


def joined(files: list[Path]) -> list[dict[str, float]]:
    """Rows of all phases with their `phase`, from 1; `images` counts through, as runs write it."""
    rows: list[dict[str, float]] = []
    for phase, path in enumerate(files, start=1):
        rows += [{**row, "phase": phase} for row in read_rows(path)]
    return rows


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Two panels, 3D and 2D error over images seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    images = [row["images"] / 1000 for row in rows]
    for panel, (title, series) in zip(panels, SERIES.items(), strict=True):
        for label, name in series.items():
            values = [row[name] for row in rows]
            panel.plot(images, values, label=label, color=COLOURS[label], marker=".")
        panel.set(title=title, xlabel="thousand images seen", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
