"""Explanations of runs whose params ran away, and of runs that stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxfit.curvature.limits import with_rate
from jaxfit.explanations.findings import Finding, Remedy, finding, rate_of
from jaxfit.problems.marks import Bounded, Fixed, Tied, free, is_mark
from jaxfit.problems.problems import Problem
from jaxfit.verbs.fits import Fit
from jaxfit.verbs.judgments import Runaway, loss_at, put
from jaxfit.verbs.summaries import advice, ran_away, short

ROOM = 100  # times its start: how far a param that ran away may go when it is bounded


def of_runaways(run: Fit, far: Sequence[Runaway]) -> Finding:
    """Params that went to where the loss no longer depends on them, and a start with the other sign, or bounds."""
    problem: Any = run.problem
    story = [
        f"{ran_away(far)}.",
        f"The loss is {float(run.loss):.6g} there, and the same at a tenth of that.",
    ]
    numbers = {"loss": float(run.loss), "runaways": {one.name: (one.start, one.end) for one in far}}
    return finding("runaway params", story, numbers, _turned(run, problem, far) or _bounded(problem, far))


def _turned(run: Fit, problem: Problem, far: Sequence[Runaway]) -> Remedy | None:
    """The start with the other sign of what ran away, if the loss is lower there and no bound is in the way."""
    if any(isinstance(x, Bounded) for x in jax.tree.leaves(problem.params, is_leaf=is_mark)):
        return None
    leaves = [np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(free(problem.params))]
    start = np.concatenate(leaves)
    other = start.copy()
    other[[one.place for one in far]] *= -1
    if not loss_at(problem, run.precision, put(problem, other)) < loss_at(problem, run.precision, put(problem, start)):
        return None
    turned = ", ".join(f"{one.name}={-one.start:.4g}" for one in far[:4])
    return Remedy(f"a start with the other sign, {turned}", {"params": put(problem, other)})


def _bounded(problem: Problem, far: Sequence[Runaway]) -> Remedy:
    """Bounds around the start of what ran away: on its side of zero, a hundred times as far or as near."""
    places, at = {one.place for one in far}, 0

    def leaf(x):
        nonlocal at
        if isinstance(x, (Fixed, Tied)):
            return x
        value, old = (x.value, (x.low, x.high)) if isinstance(x, Bounded) else (x, (None, None))
        flat = np.ravel(np.asarray(value, np.float64))
        which = np.isin(np.arange(at, at + flat.size), list(places)).reshape(np.shape(value))
        at += flat.size
        if not which.any():
            return x
        start = flat.reshape(np.shape(value))
        size = np.where(start == 0, 1.0, np.abs(start))
        low = np.where(which, np.where(start > 0, size / ROOM, -size * ROOM), -np.inf)
        high = np.where(which, np.where(start < 0, -size / ROOM, size * ROOM), np.inf)
        low, high = (
            np.fmax(low, np.nan if old[0] is None else old[0]),
            np.fmin(high, np.nan if old[1] is None else old[1]),
        )
        return Bounded(value, low[()], high[()])

    params = jax.tree.map(leaf, problem.params, is_leaf=is_mark)
    names = ", ".join(one.name for one in far[:4])
    return Remedy(f"jf.Bounded for {names}, within {ROOM} times the start", {"params": params})


def of_patience(run: Fit) -> Finding:
    """A run that its patience ended: the best params are kept, unless it never got better than at its start."""
    problem: Any = run.problem
    numbers = {
        "best_validation_loss": float(run.best_validation_loss), "best_step": int(run.best_step),
        "validation_loss": float(run.validation_loss), "loss": float(run.loss),
    }  # fmt: skip
    story = [advice(run)]
    if run.best_step > 0:
        return finding("stopped early", story, numbers, None)
    story.append("It never got better than at its start: either the steps are too large, or the patience too short.")
    changes: dict[str, Any] = {"stop": replace(problem.stop, patience=10 * int(problem.stop.patience))}
    words, rate = f"patience={10 * int(problem.stop.patience)}", rate_of(problem.optimizer)
    if rate is not None:
        changes["optimizer"] = with_rate(problem.optimizer, rate / 10)
        words += f" and learning_rate={short(rate / 10)}"
    return finding("stopped early", story, numbers, Remedy(words, changes))
