"""The stability limit of the learning rate over a sweep, where a law knows it."""

from __future__ import annotations

import re

import jax
import numpy as np

from jaxfit.curvature import sharpness
from jaxfit.optimizers.stability import stability_limit
from jaxfit.pages.sweeps import Law
from jaxfit.problems.axes import Axis, is_axis
from jaxfit.problems.dimensions import choose
from jaxfit.problems.problems import ENDED_WELL
from jaxfit.verbs.grids import Grid, best

COMBINATIONS = 10_000  # of hyperparameters, for each of which a law is asked


def law_of(grid: Grid) -> Law | None:
    """Return the limit of the swept learning rate for every lane, with the sharpness at the end of the best one.

    None where no law is known (of adaptive optimizers the preconditioner is not at hand), where the loss or the data
    differ between lanes, so that one sharpness does not hold for all, or where nothing curves up.
    """
    part, *others = grid.parts
    problem, optimizer = part.training.problem, part.training.optimizer
    rate = optimizer.hyperparameters.get("learning_rate")
    dims = grid.results.status.dims
    if others or not isinstance(rate, Axis) or rate.name not in dims or np.ndim(rate.values) != 1:
        return None
    shown = grid.results[rate.name].values
    if shown.dtype.kind not in "iuf" or not np.array_equal(shown, rate.values):
        return None
    if any(map(is_axis, jax.tree.leaves((problem.loss, problem.data, problem.key), is_leaf=is_axis))):
        return None
    swept = {x.name for x in jax.tree.leaves(optimizer, is_leaf=is_axis) if is_axis(x)} - {rate.name}
    sizes = [grid.results.sizes[name] if name in swept else 1 for name in dims]
    if not np.isin(grid.results.status, ENDED_WELL).any() or np.prod(sizes) > COMBINATIONS:
        return None
    steepest = float(sharpness(best(grid)))
    limits, words = np.empty(sizes), ""
    for place in np.ndindex(*sizes):
        found = stability_limit(choose(optimizer, dict(zip(dims, place, strict=True))), steepest)
        if not found.known or found.preconditioned or not np.isfinite(found.learning_rate):
            return None
        limits[place], words = found.learning_rate, found.law
    if swept:  # the numbers in the words are those of one lane
        words = re.sub(r", [^:]*(?=:)", "", words)
    return Law(rate.name, np.broadcast_to(limits, grid.results.status.shape), f"law: {words}, at the best lane")
