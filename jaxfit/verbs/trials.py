"""Optuna as the outer loop: trials that a study asks for run as the lanes of a sweep, whose results it is told."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxfit.problems.axes import Axis
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.problems import ENDED_WELL, Status, whole
from jaxfit.problems.sampling import Choice, LogUniform, is_range
from jaxfit.typing import PyTree
from jaxfit.verbs.grids import Grid, check_grid, lane_values


@near_keywords
def ask(study: Any, space: PyTree, count: int, *, name: str = "trial") -> tuple[list, PyTree]:
    """Return `count` new trials of an Optuna study, and the tree with an `Axis` of their values at every range.

    Args:
      study: An `optuna.Study`, with any sampler.
      space: As for `jf.sample`; a param of the study is called by its path, such as "rate".
      count: How many trials run side by side. A sampler that learns, such as TPE, does so between batches.
      name: Of the dimension.

    Raises:
      ValueError: If there is no range, or `count` is not a whole number.
      ImportError: If Optuna is not installed; it comes with the extra `optuna`.

    Example:
      >>> import optuna  # doctest: +SKIP
      >>> study = optuna.create_study()  # doctest: +SKIP
      >>> trials, drawn = jf.ask(study, {"rate": jf.LogUniform(1e-3, 1.0)}, 64)  # doctest: +SKIP
      >>> grid = jf.sweep(loss, start, data, optimizer=jf.optimizers.adam(drawn["rate"]))  # doctest: +SKIP
      >>> jf.tell(study, trials, grid)  # doctest: +SKIP
    """
    distributions = _optuna().distributions

    def distribution(x):
        if isinstance(x, Choice):
            return distributions.CategoricalDistribution(list(x.values))
        return distributions.FloatDistribution(x.low, x.high, log=isinstance(x, LogUniform))

    pairs, structure = jax.tree_util.tree_flatten_with_path(space, is_leaf=is_range)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "value" for path, _ in pairs]
    asked = {own: distribution(x) for own, (_, x) in zip(names, pairs, strict=True) if is_range(x)}
    if not asked:
        raise ValueError(f"ask: space is {space!r}, in which nothing is to be chosen; give it ranges, as for jf.sample")
    trials = [study.ask(asked) for _ in range(whole("count", count))]
    drawn = [
        Axis(name, [trial.params[own] for trial in trials]) if own in asked else x
        for own, (_, x) in zip(names, pairs, strict=True)
    ]
    return trials, jax.tree.unflatten(structure, drawn)


@near_keywords
def tell(study: Any, trials: Sequence, grid: Grid, by: str | Sequence[str] = "loss") -> None:
    """Write to an Optuna study how its trials ended in a sweep along their dimension.

    A lane that ended well is COMPLETE, one that was PRUNED is pruned, with its value at that step; others have failed.
    What was recorded under `by` becomes the trial's intermediate values.

    Args:
      study, trials: As for `ask`, and from it.
      grid: Of `jf.sweep` with the axes from `ask`.
      by: What the study optimizes, as for `jf.best`; several names for several objectives.

    Raises:
      ValueError: If the grid has other lanes than there are trials, or there is no such result.
      TypeError: If `grid` is not a grid.

    Example:
      >>> trials, drawn = jf.ask(study, {"rate": jf.LogUniform(1e-3, 1.0)}, 64)  # doctest: +SKIP
      >>> grid = jf.sweep(loss, start, data, optimizer=jf.optimizers.adam(drawn["rate"]))  # doctest: +SKIP
      >>> jf.tell(study, trials, grid)  # doctest: +SKIP
    """
    TrialState = _optuna().trial.TrialState

    check_grid("tell", grid)
    names = [by] if isinstance(by, str) else list(by)
    if grid.results.status.shape != (len(trials),):
        raise ValueError(
            f"tell: the grid has the shape {grid.results.status.shape}, but there are {len(trials)} trials; sweep "
            f"along the dimension of jf.ask alone"
        )
    columns = np.stack([lane_values("tell", grid.results, own) for own in names], axis=1)
    status, steps = np.asarray(grid.results.status), np.asarray(grid.results.steps)
    history = grid.results.get(f"history.{names[0]}") if len(names) == 1 else None
    for i, (trial, values) in enumerate(zip(trials, columns.tolist(), strict=True)):
        if len(names) == 1:
            seen = (
                {}
                if history is None
                else dict(zip(history.step.values.tolist(), history.values[i].tolist(), strict=True))
            )
            for step, value in (seen | {int(steps[i]): values[0]}).items():
                if step <= steps[i] and np.isfinite(value):
                    trial.report(value, step)
        good = status[i] in ENDED_WELL and np.isfinite(values).all()
        pruned = status[i] == Status.PRUNED and len(names) == 1
        state = TrialState.COMPLETE if good else TrialState.PRUNED if pruned else TrialState.FAIL
        study.tell(trial, values if good else None, state=state)


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "jf.ask and jf.tell need Optuna, which is not installed: python -m pip install optuna, or install this "
            "package with its extra, '.[optuna]'"
        ) from error
    return optuna
