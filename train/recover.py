"""People of real pictures as the run time would recover them, by a network that is not exported.

Crops, boxes and decoding are the run time's own; only the graph is torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from glnet_rt.body_model import BodyModel
from glnet_rt.contracts import Array, NetOutput, Person
from glnet_rt.crop import cut_crops, normalise
from glnet_rt.decode import Decoder
from train.data.real.people import read_picture
from train.data.real.record import Record
from train.evaluate import net_output, predict
from train.model.glnet import GLNet

BATCH = 32
FLIPS = {"plain": False, "flip test": True}  # every protocol is reported both ways


@torch.no_grad()
def recover(
    model: GLNet,
    body: BodyModel,
    records: Sequence[Record],
    boxes: Sequence[Array],
    flips: Sequence[bool] = (False,),
) -> Iterator[tuple[Person, ...]]:
    """Everyone of `records`, in their order, in the virtual camera of each picture.

    Args:
        model: in evaluation mode.
        body: the one whose betas the network predicts.
        boxes: of each record [4], edges in image px.
        flips: for each a Person: without flip test, or with it.

    Raises:
        SourceError: a picture is missing or damaged.
        ContractError: another body, or a box no person can be in.
    """
    decoder = Decoder(body, model.config.spec)
    for start in range(0, len(records), BATCH):
        here = slice(start, start + BATCH)
        pictures = [read_picture(record) for record in records[here]]
        cuts = [
            cut_crops(picture, box[None], model.config.spec)
            for picture, box in zip(pictures, boxes[here], strict=True)
        ]
        pixels = np.concatenate([pixels for pixels, _ in cuts])
        batch = torch.from_numpy(normalise(pixels, model.config.spec))
        outputs = [net_output(model, predict(model, batch, flip)) for flip in flips]
        for i, (picture, (_, crop)) in enumerate(zip(pictures, cuts, strict=True)):
            size = (picture.shape[1], picture.shape[0])
            yield tuple(decoder(row(output, i), crop, size)[0] for output in outputs)


def row(output: NetOutput, index: int) -> NetOutput:
    """One person of a batch."""
    values = {name: getattr(output, name) for name in NetOutput.__dataclass_fields__}
    return NetOutput(**{n: None if v is None else v[index : index + 1] for n, v in values.items()})
