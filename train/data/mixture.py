"""Several data sets as one, each with a fixed share of every epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array
from glnet_rt.errors import SourceError
from train.data.real.bedlam import read_agora, read_bedlam
from train.data.real.coco import read_coco
from train.data.real.emdb import read_emdb
from train.data.real.h36m import read_h36m
from train.data.real.hybrik import read_hybrik_3dhp, read_hybrik_3dpw, read_hybrik_h36m
from train.data.real.mpi3dhp import read_3dhp_train
from train.data.real.mppe import read_3dmppe
from train.data.real.people import RecordSet
from train.data.real.record import Record
from train.data.real.spin import read_spin
from train.data.real.threedpw import read_3dpw
from train.data.sample import Sample
from train.data.shards import SyntheticShards

# What `kind` in a mixture's file may be, and the readers of (path, images).
READERS = {
    "coco": read_coco,
    "spin": read_spin,
    "hybrik-h36m": read_hybrik_h36m,
    "hybrik-3dhp": read_hybrik_3dhp,
    "hybrik-3dpw": read_hybrik_3dpw,
    "bedlam": read_bedlam,
    "agora": read_agora,
    "h36m": lambda path, _: read_h36m(path, "train"),
    "3dmppe": lambda path, _: read_3dmppe(path, "train"),
    "emdb": lambda path, _: read_emdb(path),
    "3dpw": lambda path, _: read_3dpw(path, "train"),
    "3dhp": lambda path, _: read_3dhp_train(path),
}
FORMAT = (
    '{"epoch": 300000, "bodies": {"male": "SMPL_MALE.npz", "female": "SMPL_FEMALE.npz"}, "sets": '
    '[{"kind": "coco", "share": 0.35, "path": "person_keypoints_train2017.json", '
    '"images": "train2017"}, ...]}'
)


class People(Protocol):
    """Samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Part:
    """One set of a mixture and its share of an epoch; shares need not add up to one."""

    people: People
    share: float


class Mixture:
    """Draws each set's share from a walk through that set: nobody twice before everybody once.

    Which person an index means depends on seed, epoch and index alone, so that a resumed run, and
    every process of a run, sees the same.

    Args:
        parts: sets with shares, by name.
        length: draws per epoch.
        seed: of the order of each set.

    Raises:
        SourceError: no part, an empty one, or a share that is not above zero.
    """

    def __init__(self, parts: Mapping[str, Part], length: int, seed: int) -> None:
        if not parts:
            raise SourceError(
                "a mixture of nothing", got="no sets", expected="one or more", fix=FORMAT
            )
        for name, part in parts.items():
            if len(part.people) == 0 or not part.share > 0:
                raise SourceError(
                    f"{name} cannot be a part of a mixture",
                    got=f"{len(part.people)} people, share {part.share}",
                    expected="people, and a share above zero",
                    fix="leave it out, or see `python -m train data check` on its folder",
                )
        self.names, self.parts = list(parts), list(parts.values())
        shares = np.array([part.share for part in self.parts])
        self.starts = np.rint(np.concatenate([[0], shares.cumsum()]) / shares.sum() * length)
        self.starts = self.starts.astype(np.int64)
        self.seed = seed
        self._walks: dict[tuple[int, int], Array] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def description(self) -> str:
        """What weights trained on it have to say of their data."""
        shares = np.diff(self.starts) / len(self)
        return ", ".join(f"{n}: {s:.2f}" for n, s in zip(self.names, shares, strict=True))

    def where(self, epoch: int, index: int) -> tuple[int, int]:
        """Set, and person within it, that a draw means."""
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        per_epoch = int(self.starts[part + 1] - self.starts[part])
        drawn = epoch * per_epoch + index - int(self.starts[part])
        walk, step = divmod(drawn, len(self.parts[part].people))
        return part, int(self._walk(part, walk)[step])

    def _walk(self, part: int, walk: int) -> Array:
        if (part, walk) not in self._walks:
            # A batch may reach over the end of a walk: the one before is kept.
            self._walks = {k: v for k, v in self._walks.items() if k[0] != part or k[1] == walk - 1}
            rng = np.random.default_rng((self.seed, part, walk))
            self._walks[part, walk] = rng.permutation(len(self.parts[part].people))
        return self._walks[part, walk]

    def pick(self, epoch: int, index: int) -> Sample:
        """The person of one draw."""
        part, person = self.where(epoch, index)
        return self.parts[part].people[person]


def read_mixture(file: Path, body: BodyModel, box_scale: float, seed: int) -> Mixture:
    """The mixture that a JSON file describes; paths in it count from the file's folder.

    Args:
        body: whose betas the network predicts; the file may name those of other genders.

    Raises:
        SourceError: the file or a set it names is missing or is something else.
    """
    try:
        description = json.loads(file.read_text())
        folder = file.parent
        bodies = {g: BodyModel.load(folder / p) for g, p in description.get("bodies", {}).items()}
        bodies = {**bodies, "neutral": body}
        parts = {}
        for number, entry in enumerate(description["sets"]):
            name = f"{entry['kind']} {number}"
            people = read_part(entry, folder, bodies, box_scale)
            parts[name] = Part(people, float(entry["share"]))
        return Mixture(parts, int(description["epoch"]), seed)
    except FileNotFoundError as error:
        raise SourceError(
            f"{file.name} is not there", got=str(file), expected="a mixture", fix=FORMAT
        ) from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise SourceError(
            f"{file.name} describes no mixture",
            got=f"{type(error).__name__}: {error}",
            expected=FORMAT,
            fix=f"kinds are {', '.join(['synthetic', *READERS])}",
        ) from error


def read_part(
    entry: dict[str, str], folder: Path, bodies: Mapping[str, BodyModel], box_scale: float
) -> People:
    """The people of one entry of a mixture's file."""
    path = folder / entry["path"]
    if entry["kind"] == "synthetic":
        return SyntheticShards(path, bodies["neutral"].sha256, box_scale)
    images = folder / entry.get("images", Path(entry["path"]).parent)
    records: list[Record] = READERS[entry["kind"]](path, images)
    return RecordSet(records, bodies, box_scale)
