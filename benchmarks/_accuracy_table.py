"""accuracy.json as Markdown: every table under the protocol its figures were taken by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from train.recover import FLIPS
from train.tables import markdown_table

Values = Mapping[str, Any]
SYNTHETIC = {
    "PA-MPJPE, mm": "pa_mpjpe_mm",
    "MPJPE, mm": "mpjpe_mm",
    "PVE, mm": "pve_mm",
    "2D error of the body, % of the box": "body_2d_percent",
}
MEAN_POSE = {"PA-MPJPE of the mean pose, mm": "mean_pose_pa_mpjpe_mm"}
PCK = {"PCK@0.05": "pck_0.05", "PCK@0.1": "pck_0.1", "PCK@0.2": "pck_0.2"}
WAYS = {"glnet": "GLNet", "global_only": "global head only", "mean_pose": "mean pose"}
JOINTS = {
    "keypoints": "17 keypoints",
    "keypoints_shared": "10 of them, limbs",
    "body_shared": "the body's 10 limb joints",
}


def markdown(values: Values) -> str:
    """The whole page."""
    parts = [f"# Accuracy of `{values['weights']['file']}`"]
    if "synthetic" in values:
        parts += synthetic(values["synthetic"])
    if "coco" in values:
        parts += coco(values["coco"])
    if "sets" in values:
        parts += real_sets(values["sets"])
    parts += [f"Skipped: {note}." for note in values["skipped"]]
    return "\n\n".join(parts) + "\n"


def synthetic(values: Values) -> list[str]:
    """Means, hold-outs, pose families."""
    means = {title: values[way] for way, title in WAYS.items() if values[way]}
    names = SYNTHETIC | PCK
    groups = {
        f"{name}: {which}": figures
        for name, pair in values["held_out"].items()
        for which, figures in pair.items()
    }
    return [
        f"## Synthetic people ({values['people']})",
        values["protocol"],
        table("", names, {title: row(names, figures) for title, figures in means.items()}),
        "What training never showed: people with it, and the others (± standard error):",
        people_table(groups),
        "Pose families:",
        people_table(values["per_kind"]),
    ]


def people_table(groups: Mapping[str, Values]) -> str:
    """A row per group of people, with the error that chance may make."""
    names = SYNTHETIC | MEAN_POSE
    rows = {}
    for title, figures in groups.items():
        cells = row(names, figures)
        cells[0] += f" ± {number(figures['pa_mpjpe_standard_error_mm'])}"
        rows[title] = [str(figures["people"]), *cells]
    return table("", ["people", *names], rows)


def coco(values: Values) -> list[str]:
    """PCK and OKS per split, and each joint over all of them."""
    splits = values["splits"]
    last = list(splits)[-1]  # all splits together, or the only one
    return [
        "## COCO keypoints",
        values["protocol"],
        table("", ["people", "visible", *PCK, "labelled", *PCK], pck_rows(splits)),
        table("OKS of the 17", ["people", *splits[last]["plain"]["oks"]], oks_rows(splits)),
        f"Visible joints of {last} one by one, with flip test and without:",
        table("", ["visible", *joint_columns()], joint_rows(splits[last])),
    ]


def pck_rows(splits: Mapping[str, Values]) -> dict[str, list[str]]:
    """Split, flip and set of joints -> people, PCK of visible and of labelled ones."""
    rows = {}
    for name, split in splits.items():
        for flip in FLIPS:
            for joints, title in JOINTS.items():
                cells = [str(split["people"])]
                for which in ("visible", "labelled"):
                    figures = split[flip][joints][which]
                    cells += [str(figures["joints"]), *row(PCK, figures)]
                rows[f"{name}, {flip}, {title}"] = cells
    return rows


def oks_rows(splits: Mapping[str, Values]) -> dict[str, list[str]]:
    """Split and flip -> people and the ten figures."""
    return {
        f"{name}, {flip}": [str(split["people"]), *map(number, split[flip]["oks"].values())]
        for name, split in splits.items()
        for flip in FLIPS
    }


def joint_columns() -> list[str]:
    """Titles of `joint_rows`, after the count."""
    return [f"{title}, {flip}" for flip in FLIPS for title in PCK]


def joint_rows(split: Values) -> dict[str, list[str]]:
    """Joint -> how many are visible, and their PCK without and with flip test."""
    rows = {}
    for set_name, prefix in (("keypoints", ""), ("body_shared", "body's ")):
        per_flip = [split[flip][set_name]["visible_per_joint"] for flip in FLIPS]
        for joint, figures in per_flip[0].items():
            cells = [cell for way in per_flip for cell in row(PCK, way[joint])]
            name = prefix + joint.replace("_coco_", "_").replace("_", " ")
            rows[name] = [str(figures["joints"]), *cells]
    return rows


def real_sets(rows: Sequence[Values]) -> list[str]:
    """A table per protocol, and in it a row per set, group and flip."""
    parts = ["## Real 3D sets"]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        lines = {}
        for values in (row for row in rows if row["protocol"] == protocol):
            for flip in FLIPS:
                title = f"{values['set']}, {values['group']}, {flip}"
                lines[title] = [str(values["people"]), *map(number, values[flip].values())]
            columns = ["people", *values[flip]]
        parts += [protocol, table("", columns, lines)]
    return parts


def row(names: Mapping[str, str], figures: Values) -> list[str]:
    """Cells of the named figures, empty where there is none."""
    return [number(figures.get(key)) for key in names.values()]


def number(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(title: str, columns: Iterable[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table; rows by name."""
    return markdown_table([title, *columns], [[name, *cells] for name, cells in rows.items()])
