"""Synthetic shards as a data set. Pictures stay on disk and are mapped, labels are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glnet_rt.contracts import Array
from glnet_rt.errors import ArtifactError, SourceError
from train.data.sample import Sample
from train.synthetic.background import HELD_OUT_BACKGROUNDS
from train.synthetic.poses import HELD_OUT_FAMILIES
from train.synthetic.shards import finished_shards, open_shard
from train.synthetic.things import HELD_OUT_THINGS

PICTURE_OVER_BOX = 1.5  # side of the stored picture over the longer side of the person's box
LABELS = (
    "keypoints_uv", "visible", "keypoints_xyz", "rotmats", "twist", "betas", "kind", "background",
    "flags", "things",
)  # fmt: skip


class SyntheticShards:
    """All finished shards below a folder, as one indexed list of `Sample`s.

    Args:
        folder: holds `shard-*.tar`, each with its `.json` written last.
        body_sha256: the body the labels must speak of; betas of two bodies do not mix.
        box_scale: side of the network's crop over the longer side of the box.

    Raises:
        SourceError: no finished shard there.
        ArtifactError: a shard has another format or was made with another body.
    """

    description = "synthetic people of glnet-rt, no licensed data"

    def __init__(self, folder: Path, body_sha256: str, box_scale: float = 1.25) -> None:
        self.folder = folder
        self.crop_side = box_scale / PICTURE_OVER_BOX
        paths = finished_shards(folder)
        if not paths:
            raise SourceError(
                "no synthetic people found",
                got=str(folder),
                expected="files shard-*.tar, each with its .json",
                fix=f"python -m train.synthetic --out {folder} --count 20000 --split train",
            )
        opened = [open_shard(path) for path in paths]
        self.names = [path.stem for path in paths]
        self.meta = [shard.meta for shard in opened]
        for path, meta in zip(paths, self.meta, strict=True):
            if meta["body_sha256"] != body_sha256:
                raise ArtifactError(
                    f"{path} was made with another body",
                    got=meta["body_sha256"],
                    expected=body_sha256,
                    fix="render the shards again with this body.npz",
                )
        self.images = [shard.arrays["images"] for shard in opened]
        self.surfaces = [shard.arrays["surface"] for shard in opened]
        self.labels = {n: np.concatenate([shard.arrays[n] for shard in opened]) for n in LABELS}
        self.starts = np.cumsum([0] + [len(shard) for shard in opened])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def image(self, index: int) -> Array:
        """[R, R, 3] uint8, RGB."""
        return self._mapped(self.images, index)

    def _mapped(self, arrays: list[Array], index: int) -> Array:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return np.ascontiguousarray(arrays[shard][index - self.starts[shard]])

    def procedural(self, count: int) -> list[int]:
        """The first people whose background is no photograph: free to be handed on."""
        names = np.array(self.meta[0]["backgrounds"])
        return np.flatnonzero(names[self.labels["background"]] != "photo")[:count].tolist()

    def held_out(self) -> dict[str, Array]:
        """What the held-out split alone shows -> [N] bool, in whose picture; {} for training's."""
        meta = self.meta[0]
        if meta["split"] != "heldout":
            return {}
        kind, background = self.labels["kind"], self.labels["background"]
        things = sum(1 << number for number in codes(meta["things"], HELD_OUT_THINGS))
        pattern = 1 << meta["flags"].index("held_out_pattern")
        return {
            "pose family": np.isin(kind, codes(meta["kinds"], HELD_OUT_FAMILIES)),
            "cloth pattern": (self.labels["flags"] & pattern) > 0,
            "background kind": np.isin(
                background, codes(meta["backgrounds"], HELD_OUT_BACKGROUNDS)
            ),
            "thing": (self.labels["things"] & things) > 0,
            "background photograph": np.isin(background, codes(meta["backgrounds"], ("photo",))),
        }

    def pick(self, epoch: int, index: int) -> Sample:
        """The person of one draw, the same in every epoch."""
        return self[index]

    def __getitem__(self, index: int) -> Sample:
        labels = {name: values[index] for name, values in self.labels.items()}
        return Sample(
            image=self.image(index),
            crop_side=self.crop_side,
            uv=labels["keypoints_uv"],
            labelled=np.ones(len(labels["keypoints_uv"]), np.float32),
            # Hidden joints still guide the match: the person is there, behind something.
            seen=np.where(
                labels["visible"] == 2, 1.0, np.where(labels["visible"] == 1, 0.3, 0.0)
            ).astype(np.float32),
            xyz=labels["keypoints_xyz"],
            located=np.ones(len(labels["keypoints_xyz"]), np.float32),
            rotmats=labels["rotmats"],
            twist=labels["twist"],
            betas=labels["betas"],
            surface=self._mapped(self.surfaces, index),
        )


def codes(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The numbers that labels write for `wanted`."""
    return [number for number, name in enumerate(names) if name in wanted]
