"""The space of body shapes: principal components of symmetric people, ten of them kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glnet_rt.contracts import Array

NUM_BETAS = 10
_FLIP_X = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class ShapeSpace:
    """vertices = v_template + shapedirs @ betas, betas standard normal over the sampled people.

    Attributes:
        v_template: [V, 3] float64, m.
        shapedirs: [V, 3, n] float64, m per standard deviation.
        betas: [S, n] float64, of the sampled people.
        explained: [n] float64, share of the variance each holds.
    """

    v_template: Array
    shapedirs: Array
    betas: Array
    explained: Array

    @classmethod
    def fit(cls, people: Array, components: int) -> ShapeSpace:
        """PCA of [S, V, 3] people; each component's sign makes its positive end the taller one."""
        count = len(people)
        mean = people.mean(0, dtype=np.float64)
        flat = (people - mean).reshape(count, -1)
        # The Gram matrix is far smaller than the covariance and has the same spectrum.
        values, vectors = np.linalg.eigh(flat @ flat.T)
        order = np.argsort(values)[::-1][:components]
        betas = vectors[:, order] * np.sqrt(count)
        height = people[:, :, 1].max(1) - people[:, :, 1].min(1)
        betas *= np.where(betas.T @ (height - height.mean()) < 0, -1.0, 1.0)
        shapedirs = fit_linear(people, mean, betas)
        return cls(mean, shapedirs, betas, values[order] / values.sum())

    def first(self, components: int) -> ShapeSpace:
        """The leading components alone."""
        n = components
        return ShapeSpace(
            self.v_template, self.shapedirs[..., :n], self.betas[:, :n], self.explained[:n]
        )


def fit_linear(points: Array, mean: Array, betas: Array) -> Array:
    """[n, 3, 10]: least-squares change of [S, n, 3] points per unit of the [S, 10] betas."""
    flat = (points - mean).reshape(len(points), -1)
    solution = np.linalg.lstsq(betas, flat, rcond=None)[0]
    return np.asarray(solution.T.reshape(*mean.shape, betas.shape[1]))


def mirror_exactly(values: Array, mirror: Array) -> Array:
    """Copy the left half of [V, 3, ...] offsets onto the right, sign of x turned; bit for bit.

    `mirror` pairs the rows; rows that mirror onto themselves get x = 0.
    """
    out = values.copy()
    left = np.arange(len(mirror)) < mirror
    middle = np.arange(len(mirror)) == mirror
    sign = _FLIP_X.reshape(1, 3, *[1] * (values.ndim - 2))
    out[mirror[left]] = values[left] * sign
    out[middle, 0] = 0.0
    return out
