"""Draw adults: coefficients of MakeHuman's targets for people of both sexes, 25 to old age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array
from train.body.makehuman import MakeHuman

SEXES = ("female", "male")
AGES = ("young", "old")
ANCESTRIES = ("african", "asian", "caucasian")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
HEIGHTS = ("minheight", "maxheight")
PROPORTIONS = ("uncommonproportions", "idealproportions")

# Folders of local targets (one limb, one measure) that vary on their own, l- and r- together.
LOCAL_FOLDERS = ("arms", "legs", "torso", "stomach", "hip", "pelvis", "buttocks", "neck", "hands",
                 "feet")  # fmt: skip
NOT_SAMPLED = ("measure-", "pregnant", "bulge")
LOCAL_STD = 0.25


@dataclass(frozen=True, eq=False)
class TargetTable:
    """Which target files each coefficient scales.

    Attributes:
        macros: name -> its place; always one file each.
        local_pairs: places of (incr, decr) of each local measure.
        files: per coefficient, the files it scales together.
    """

    macros: dict[str, int]
    local_pairs: tuple[tuple[int, int], ...]
    files: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, source: MakeHuman) -> TargetTable:
        files: list[tuple[str, ...]] = [("macrodetails/" + name,) for name in macro_names()]
        macros = {name: i for i, name in enumerate(macro_names())}
        pairs = []
        for folder in LOCAL_FOLDERS:
            names = source.list_targets(folder)
            for grow in names:
                left = "/l-" in grow
                if (
                    not grow.endswith("-incr")
                    or "/r-" in grow
                    or any(n in grow for n in NOT_SAMPLED)
                ):
                    continue
                shrink = grow[: -len("incr")] + "decr"
                pairs.append((len(files), len(files) + 1))
                for name in (grow, shrink):
                    both = (name, name.replace("/l-", "/r-")) if left else (name,)
                    files.append(both)
        return cls(macros, tuple(pairs), tuple(files))


def macro_names() -> list[str]:
    names = []
    for sex in SEXES:
        for age in AGES:
            names += [f"{ancestry}-{sex}-{age}" for ancestry in ANCESTRIES]
            for muscle in MUSCLES:
                for weight in WEIGHTS:
                    build = f"{sex}-{age}-{muscle}-{weight}"
                    names.append(f"universal-{build}")
                    names += [f"height/{build}-{height}" for height in HEIGHTS]
                    names += [f"proportions/{build}-{kind}" for kind in PROPORTIONS]
    return names


def sample_coefficients(table: TargetTable, count: int, rng: np.random.Generator) -> Array:
    """[S, T] float32 coefficients of `count` adults.

    Sex is near one end for 85 % and anywhere between for the rest; age leans to the young; muscle,
    weight, height and proportions are normal and clipped to MakeHuman's range. MakeHuman's people
    are lean, so weight leans to the heavy side.
    """
    coefficients = np.zeros((count, len(table.files)), np.float32)
    for row in coefficients:
        _sample_macros(table.macros, row, rng)
        for grow, shrink in table.local_pairs:
            amount = LOCAL_STD * rng.standard_normal()
            row[grow], row[shrink] = max(0.0, amount), max(0.0, -amount)
    return coefficients


def _sample_macros(macros: dict[str, int], row: Array, rng: np.random.Generator) -> None:
    def normal(mean: float, std: float) -> float:
        return float(np.clip(mean + std * rng.standard_normal(), 0.02, 0.98))

    if rng.random() < 0.85:
        male = float(np.clip(rng.integers(2) + 0.12 * rng.standard_normal(), 0, 1))
    else:
        male = float(rng.random())
    old = float(np.clip(abs(rng.standard_normal()) * 0.35, 0, 1))
    ancestry = rng.dirichlet([0.6] * 3)
    muscle, weight = _three_way(normal(0.5, 0.22)), _three_way(normal(0.72, 0.32))
    height, proportion = _two_way(normal(0.5, 0.065)), _two_way(normal(0.5, 0.2))
    for sex, share_sex in zip(SEXES, (1 - male, male), strict=True):
        for age, share_age in zip(AGES, (1 - old, old), strict=True):
            share = share_sex * share_age
            for name, part in zip(ANCESTRIES, ancestry, strict=True):
                row[macros[f"{name}-{sex}-{age}"]] = share * part
            for m, share_m in zip(MUSCLES, muscle, strict=True):
                for w, share_w in zip(WEIGHTS, weight, strict=True):
                    build, part = f"{sex}-{age}-{m}-{w}", share * share_m * share_w
                    row[macros[f"universal-{build}"]] = part
                    for h, share_h in zip(HEIGHTS, height, strict=True):
                        row[macros[f"height/{build}-{h}"]] = part * share_h
                    for p, share_p in zip(PROPORTIONS, proportion, strict=True):
                        row[macros[f"proportions/{build}-{p}"]] = part * share_p


def _three_way(x: float) -> Sequence[float]:
    """Shares of (min, average, max) at x in [0, 1]."""
    return max(0.0, 1 - 2 * x), 1 - abs(2 * x - 1), max(0.0, 2 * x - 1)


def _two_way(x: float) -> Sequence[float]:
    """Shares of (min, max); the middle is the base mesh itself."""
    return max(0.0, 1 - 2 * x), max(0.0, 2 * x - 1)
