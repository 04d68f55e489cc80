"""Axes whose values are drawn from ranges, one lane for each: spread evenly, or asked from an Optuna study."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxfit.problems import ENDED_WELL, Status, whole_number
from jaxfit.problems.axes import Axis, as_key, is_array, refuse_unit
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import KeyLike, PyTree
from jaxfit.verbs.grids import Grid, check_grid, lane_values

MOST_SOBOL = 21_201  # dimensions for which direction numbers are known (Joe and Kuo 2008)


@near_keywords
@dataclass(frozen=True)
class Uniform:
    """A range of numbers, all lengths alike: low + u (high - low) for u in [0, 1).

    Args:
      low, high: Its ends, two finite numbers.

    Raises:
      TypeError, ValueError: If they are not, or low is not below high.

    Example:
      >>> jf.Uniform(0.0, 2.0).at(np.array([0.0, 0.25]))
      array([0. , 0.5])
    """

    low: float
    high: float

    def __post_init__(self):
        _check_ends("Uniform", self.low, self.high)

    def at(self, shares: ArrayLike) -> np.ndarray:
        """Return the numbers at these shares of the range, each in [0, 1)."""
        u = np.asarray(shares, np.float64)
        return np.clip(self.low + u * (self.high - self.low), self.low, self.high)


@near_keywords
@dataclass(frozen=True)
class LogUniform:
    """A range of positive numbers, all ratios alike: low (high / low)**u for u in [0, 1).

    Args:
      low, high: Its ends, two finite, positive numbers.

    Raises:
      TypeError, ValueError: If they are not, or low is not below high.

    Example:
      >>> jf.LogUniform(1e-4, 1.0).at(np.array([0.0, 0.5])).round(6)
      array([0.0001, 0.01  ])
    """

    low: float
    high: float

    def __post_init__(self):
        _check_ends("LogUniform", self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"LogUniform: low is {self.low}, but ratios need positive numbers; see jf.Uniform")

    def at(self, shares: ArrayLike) -> np.ndarray:
        """Return the numbers at these shares of the range, each in [0, 1)."""
        ends = np.log([self.low, self.high])
        return np.clip(np.exp(ends[0] + np.asarray(shares, np.float64) * (ends[1] - ends[0])), self.low, self.high)


@near_keywords
@dataclass(frozen=True)
class Choice:
    """A list of values, all equally often: values[floor(u n)] for u in [0, 1).

    What is a part of the program (a width, a batch size, a kind of optimizer) is better an `Axis` of its own: as a
    choice it needs a program for each lane.

    Args:
      values: Numbers, or anything else that an `Axis` takes, in order.

    Raises:
      TypeError, ValueError: If they are no sequence, or empty.

    Example:
      >>> jf.Choice([16.0, 32.0, 64.0]).at(np.array([0.0, 0.5, 0.9]))
      [16.0, 32.0, 64.0]
    """

    values: Sequence

    def __post_init__(self):
        if isinstance(self.values, (str, bytes)) or not isinstance(self.values, Sequence) and not is_array(self.values):
            raise TypeError(f"Choice: values is {self.values!r}, but it must be a list of them, such as [16, 32, 64]")
        if not len(self.values):
            raise ValueError("Choice: values is empty; give at least one")

    def at(self, shares: ArrayLike) -> Sequence:
        """Return the values at these shares, each in [0, 1)."""
        at = np.floor(np.asarray(shares, np.float64) * len(self.values)).astype(int)
        values: PyTree = self.values
        return values[at] if is_array(values) else [values[i] for i in at]


@near_keywords
def sample(space: PyTree, count: int, key: KeyLike, *, name: str = "trial") -> PyTree:
    """Return the tree with an `Axis` at every range: `count` points, drawn together, one lane of a sweep each.

    The points are those of a scrambled Sobol sequence: they cover the ranges and all combinations of two of them much
    more evenly than independent numbers, best where `count` is a power of two. All axes have one name, so that they
    move together along one dimension.

    Args:
      space: Any pytree, such as a dictionary, with `LogUniform`, `Uniform` and `Choice` at some leaves; others stay.
      count: Number of points.
      key: A PRNG key or a seed of the scrambling; the same one gives the same points.
      name: Of the dimension.

    Raises:
      ValueError: If there is no range, or `count` is not a whole number.
      TypeError: If `key` is not a key.

    Source: Owen (1998), doi:10.1006/jcom.1998.0487; Joe and Kuo (2008), doi:10.1137/070709359; scipy.stats.qmc.

    Example:
      >>> space = {"rate": jf.LogUniform(1e-3, 1.0), "momentum": jf.Uniform(0.0, 0.9)}
      >>> drawn = jf.sample(space, 64, key=0)
      >>> method = jf.optimizers.momentum(drawn["rate"], drawn["momentum"])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=method, steps=30, prune=jf.Halving(factor=4, first=5))
      >>> grid.results.loss.dims, int((grid.results.status == jf.Status.OUT_OF_STEPS).sum())
      (('trial',), 4)
    """
    count = whole_number("count", count)
    leaves, structure = jax.tree.flatten(space, is_leaf=is_range)
    ranges = [x for x in leaves if is_range(x)]
    if not ranges:
        raise ValueError(
            f"sample: space is {reprlib.repr(space)}, in which nothing is to be drawn; give it ranges, such as "
            f"{{'rate': jf.LogUniform(1e-5, 1e-1)}}"
        )
    columns = iter(sobol_points(count, len(ranges), key).T)
    drawn = [Axis(name, x.at(next(columns))) if is_range(x) else x for x in leaves]
    return jax.tree.unflatten(structure, drawn)


def is_range(x: object) -> bool:
    return isinstance(x, (Uniform, LogUniform, Choice))


def sobol_points(count: int, dimensions: int, key: KeyLike) -> np.ndarray:
    """Return (count, dimensions) numbers in [0, 1), spread evenly, from a key: the first of a scrambled Sobol sequence.

    In more dimensions than such a sequence has they are a Latin hypercube.
    """
    from scipy.stats import qmc

    random = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))))
    if dimensions > MOST_SOBOL:
        return qmc.LatinHypercube(dimensions, seed=random).random(count)  # pyright: ignore[reportCallIssue]
    sobol = qmc.Sobol(dimensions, seed=random)  # pyright: ignore[reportCallIssue]
    return sobol.random_base2((count - 1).bit_length())[:count]


def _check_ends(name: str, low: float, high: float) -> None:
    for end, value in (("low", low), ("high", high)):
        refuse_unit(f"{name}: {end}", value)
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number:
            raise TypeError(f"{name}: {end} is {value!r}, but it must be a number")
        if not np.isfinite(value):
            raise ValueError(f"{name}: {end} is {value}, but it must be finite")
    if not low < high:
        raise ValueError(f"{name}: low is {low} and high is {high}, but low must be below high")


# Optuna as the outer loop: the trials of a study run as lanes, whose results it gets


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
    trials = [study.ask(asked) for _ in range(whole_number("count", count))]
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
