"""Reading what the generator has drawn, for the tests of synthetic people and of their things."""

from __future__ import annotations

import numpy as np

from train.synthetic.generate import FLAG_NAMES, Sample

SIZE = 96  # px, of the tests' pictures


def mask_of(sample: Sample) -> np.ndarray:
    """[SIZE, SIZE] bool: the person's visible pixels."""
    return np.unpackbits(sample.mask, axis=1).astype(bool)


def has_flag(sample: Sample, name: str) -> bool:
    """Whether the generator set a flag of `FLAG_NAMES`."""
    return bool(sample.flags >> FLAG_NAMES.index(name) & 1)
