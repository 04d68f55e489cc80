"""Estimates of data sets with many params of their own, from the blocks of their Jacobian: the zeros are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxfit.engine.single import raveled
from jaxfit.losses import Joint
from jaxfit.losses.base import SQUARES, noise_model_of
from jaxfit.optimizers.arrays import Array
from jaxfit.optimizers.bordered import Columns, Layout, inverse, silent, triangularize
from jaxfit.optimizers.linearization import Slopes
from jaxfit.problems import Problem, convert_all
from jaxfit.statistics.estimates import EDGE, Estimate, held_at, objective_at, residual_count
from jaxfit.verbs.evaluations import PRECISION, free_places
from jaxfit.verbs.results import Fit, numbers_in


def is_of_sets(loss: Any) -> bool:
    """Return whether the loss is of data sets, and the noise is in its residuals."""
    return isinstance(loss, Joint) and (noise_model_of(loss).kind == SQUARES or noise_model_of(loss).deviance)


class SetsBasis(NamedTuple):
    """What `Basis` says, of data sets with so many params that the zeros of their Jacobian are left out."""

    layout: Layout
    blocks: list[np.ndarray]  # of sets of one kind (m, m, K): the covariance is their squares, and that of the border
    border: np.ndarray  # (k, c)
    blind: np.ndarray  # (d, k) directions of length one, in units of `scale`, that change no residual
    scale: np.ndarray  # (k,)
    held: np.ndarray  # (k,) bool
    rank: int
    offset: float

    @property
    def unknown(self) -> np.ndarray:
        """(k,) bool: which params are not determined, or held."""
        return self.held | (abs(self.blind) > np.sqrt(np.finfo(float).eps)).any(axis=0)

    def variances(self) -> np.ndarray:
        """Return (k,), for noise of one unit."""
        found = (self.border**2).sum(axis=1)
        for block, own in zip(self.blocks, self.layout.own, strict=True):
            if len(own):
                found[own] += (block**2).sum(axis=1)
        return np.where(self.unknown, np.nan, found)

    def covariance(self) -> np.ndarray:
        """Return (k, k), for noise of one unit."""
        table, unknown = self.border @ self.border.T, self.unknown
        for block, own in zip(self.blocks, self.layout.own, strict=True):
            if len(own):
                table[own[:, None], own[None]] += np.einsum("iak,jak->ijk", block, block)
        table[unknown], table[:, unknown] = np.nan, np.nan
        return table

    def propagated(self, slopes: np.ndarray) -> np.ndarray:
        """Return the covariance (q, q) of numbers, given their derivatives (q, k)."""
        half, along = np.zeros_like(slopes), slopes @ self.border
        for block, own in zip(self.blocks, self.layout.own, strict=True):
            if len(own):
                half[:, own] = np.einsum("qik,iak->qak", slopes[:, own], block)
        table, scaled = half @ half.T + along @ along.T, slopes / self.scale
        moving = np.where(self.held, 0, scaled)
        size = np.sqrt((moving**2).sum(axis=1))
        lost = (abs(moving @ self.blind.T) > np.sqrt(np.finfo(float).eps) * size[:, None]).any(axis=1)
        lost |= (size == 0) & (scaled != 0).any(axis=1)
        table[lost], table[:, lost] = np.nan, np.nan
        return table

    def leverages(self, columns: Columns) -> np.ndarray:
        """Return (n,) of the residuals of each set after the other."""
        found = []
        for part, block, own in zip(columns.parts, self.blocks, self.layout.own, strict=True):
            m = len(own)
            beside, leverage = np.einsum("ink,ic->cnk", part[m:], self.border[self.layout.common]), 0
            if m:
                beside += np.einsum("ink,ikc->cnk", part[:m], self.border[own])
                leverage = (np.einsum("ink,iak->ank", part[:m], block) ** 2).sum(axis=0)
            found.append((leverage + (beside**2).sum(axis=0)).T.ravel())
        return np.concatenate(found)


def basis_of_sets(problem: Problem, flat: np.ndarray, found: Slopes, precisions: Callable) -> SetsBasis:
    """Return the basis at the params where the fit ended; `precisions` returns 1 / variance of each residual."""
    columns: Any = found.columns
    held = held_at(problem, flat)
    layout = columns.layout
    if noise_model_of(problem.loss).deviance:
        held = held | _on_edge(columns, precisions())
    scale = np.where(found.scale > 0, found.scale, 1)
    weights = np.where(held, 0, 1 / scale)
    triangle, shadow = triangularize(columns.scaled(weights), found.residuals)
    blocks, border = inverse(triangle)
    blocks = [x * weights[own][:, None] for x, own in zip(blocks, layout.own, strict=True)]
    blind = silent(triangle)
    blind = blind[~((blind != 0) & held).any(axis=1)]
    rank = int((triangle.diagonal() != 0).sum())
    return SetsBasis(layout, blocks, border * weights[:, None], blind, scale, held, rank, np.sqrt(shadow @ shadow))


def estimate_of_sets(
    fit: Fit, problem: Problem, flat: np.ndarray, found: Slopes, basis: SetsBasis, numbers: tuple | None
) -> Estimate:
    """Return the estimate of data sets with many params.

    Args:
      fit: With its problem, free params, slopes and basis in the precision of statistics.
      numbers: What is estimated, (q,) and its derivatives (q, k) by the free params; None for all params.
    """
    if numbers is None:
        params = numbers_in(fit)
        places = free_places(problem.params, params)
        values = raveled(convert_all(params, PRECISION))
        unit = np.full((values.size,) * 2, np.nan)
        unit[np.ix_(places, places)] = basis.covariance()
    else:
        values, unit = numbers[0], basis.propagated(numbers[1])
    count = residual_count(problem.loss, problem.data, found.residuals)
    size, freedom = found.residuals @ found.residuals, count - basis.rank
    scatter = size / freedom if freedom > 0 else np.nan
    span = np.sqrt(((found.scale * flat) ** 2).sum() / max(count, 1))
    size = found.loss if noise_model_of(problem.loss).deviance else size
    blind = basis.blind / basis.scale
    given = (
        values, np.diagonal(unit), unit, scatter, size, count, basis.rank, basis.offset, basis.held, blind, span,
        found.loss,
    )  # fmt: skip
    return Estimate(*(np.asarray(x)[()] for x in given))


def precisions_at(problem: Problem, flat: Array) -> Array:
    objective, _, back = objective_at(problem, problem.params)
    return jnp.concatenate([jnp.ravel(block.precision) for block in objective.blocks(back(flat))])


def _on_edge(columns: Columns, precision: np.ndarray) -> np.ndarray:
    """Return (k,) which params are known only by means that vanish where nothing was counted; see `estimates`."""
    at, kinds = 0, []
    for part in columns.parts:
        _, n, sets = part.shape
        kinds.append(np.where(precision[at : at + n * sets].reshape(sets, n).T > 1 / EDGE, part, 0))
        at += n * sets
    vanished = columns.norms(kinds) ** 2
    return vanished > (1 - EDGE) * columns.norms(columns.parts) ** 2
