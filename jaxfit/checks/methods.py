"""Losses and data that a method cannot work with."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxfit.losses import Sum, data_names, takes_key
from jaxfit.losses.inputs import check_count
from jaxfit.markers import Axis, Call, is_array, is_axis
from jaxfit.parameters import free
from jaxfit.problems import Problem


def check_methods(problem: Problem) -> None:
    """Refuses what a method cannot work with: a loss without residuals, batches, randomness, too few data."""
    losses = problem.loss.values if is_axis(problem.loss) else [problem.loss]
    optimizers = problem.optimizer.values if is_axis(problem.optimizer) else [problem.optimizer]
    for optimizer in optimizers:
        if is_axis(optimizer):
            check_methods(problem._replace(optimizer=optimizer))
            continue
        name, factory = optimizer.name, optimizer.call.function
        if getattr(factory, "deterministic", False):
            if problem.batches is not None:
                raise ValueError(
                    f"batches: {name} compares the losses of different steps, so every step needs all the data; "
                    f"leave batches out, or use an optimizer such as jf.optimizers.adam(1e-2)"
                )
            if any(map(takes_key, losses)):
                raise ValueError(
                    f"loss: {name} compares the losses of different steps, which a random one changes; use a loss "
                    f"without a key, or an optimizer such as jf.optimizers.adam(1e-2)"
                )
        if getattr(factory, "residuals", False):
            for loss in losses:
                _check_residuals(name, loss)
                _check_rows(name, loss, problem)


def _check_rows(name: str, loss: Any, problem: Problem) -> None:
    """Refuses a mask that leaves fewer residuals than free params; `inspect_loss` counts where there is no mask."""
    names, params = data_names(loss), jax.tree.leaves(free(problem.params), is_leaf=lambda x: isinstance(x, Call))
    if getattr(loss, "masked", False):
        check_count(loss, problem.data)
    where = problem.data[names.index("where")] if getattr(loss, "masked", False) else None
    if where is None or isinstance(loss, Sum) or not is_array(where) or isinstance(where, jax.core.Tracer):
        return
    y = problem.data[1]
    have = int(np.asarray(where).sum()) * int(np.prod(np.shape(y.values)[2:] if is_axis(y) else np.shape(y)[1:]))
    need = sum(int(np.size(x)) for x in params if not isinstance(x, (Axis, Call)))
    if have < need:
        raise ValueError(too_few(name, have, need))


def too_few(name: str, have: int, need: int) -> str:
    return (
        f"the data make {have} residual{'s' * (have != 1)} for {need} free params; {name} needs at least as many "
        f"residuals: fix some params with jf.Fixed, add a penalty such as jf.losses.l2(1e-3), or measure more"
    )


def _check_residuals(name: str, loss: Any) -> None:
    if not getattr(loss, "knows_residuals", False):
        shown = getattr(getattr(loss, "func", loss), "__name__", None) or repr(loss)
        raise TypeError(
            f"loss: {name} needs the residuals behind the loss, which {shown} does not tell; write a function "
            f"residuals(params, *data) and pass jf.losses.least_squares(residuals), or use mse, rss, chi_squared or "
            f"huber of jf.losses with any penalties of its own; any loss does for jf.optimizers.lbfgs()"
        )
