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

    A lane that ended well is COMPLETE; what was recorded under `by` becomes the trial's intermediate values. One that
    was pruned is PRUNED, with its value at that step, and so is one that failed, without values: a sampler takes no
    notice of a trial that FAILed, and would ask for its like again. The trial's user attribute "status" tells them
    apart. A lane that has not run is not told, so that its trial can be when the sweep has gone on.

    Args:
      study, trials: As for `ask`, and from it.
      grid: Of `jf.sweep` with the axes from `ask`.
      by: What the study optimizes, as for `jf.best`; several names for several objectives.

    Raises:
      ValueError: If the grid has other lanes than there are trials, the study has another number of objectives, or
        maximizes a loss; if there is no such result, or all trials have been told.
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
    _check_objectives(study, names)
    columns = np.stack([lane_values("tell", grid.results, own) for own in names], axis=1)
    status = [Status(number) for number in np.asarray(grid.results.status).tolist()]
    running = {trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}
    if not any(trial.number in running for trial in trials):
        raise ValueError("tell: all of these trials have been told; tell the ones that jf.ask gave last")
    for i, (trial, values) in enumerate(zip(trials, columns.tolist(), strict=True)):
        if trial.number not in running or status[i] == Status.NOT_RUN:
            continue
        good = status[i] in ENDED_WELL and np.isfinite(values).all()
        if len(names) == 1 and (good or status[i] == Status.PRUNED):  # of pruned trials TPE prefers those of most steps
            for step, value in _seen(grid, i, names[0], values[0]):
                trial.report(value, step)
        trial.set_user_attr("status", status[i].name)
        study.tell(trial, values if good else None, state=TrialState.COMPLETE if good else TrialState.PRUNED)


def _seen(grid: Grid, lane: int, by: str, last: float) -> list[tuple[int, float]]:
    """Return the steps at which a lane was recorded, with the finite values there; at its end `last`."""
    results, steps = grid.results, int(grid.results.steps[lane])
    history = results.get(f"history.{by}")
    seen = (
        {} if history is None else dict(zip(history.step.values.tolist(), history.values[lane].tolist(), strict=True))
    )
    return [(step, value) for step, value in (seen | {steps: last}).items() if step <= steps and np.isfinite(value)]


def _check_objectives(study: Any, names: Sequence[str]) -> None:
    """Refuse what a study does not optimize."""
    directions = [direction.name for direction in study.directions]
    if len(directions) != len(names):
        raise ValueError(
            f"tell: by={list(names)} names {len(names)}, but the study has {len(directions)} objectives; give a name "
            f"for each, as in by=['loss', 'steps']"
        )
    for name, direction in zip(names, directions, strict=True):
        if direction == "MAXIMIZE" and name in ("loss", "validation_loss"):
            raise ValueError(
                f"tell: by={name!r} is the better the lower it is, but the study maximizes it; make it with "
                f"direction='minimize'"
            )


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "jf.ask and jf.tell need Optuna, which is not installed: python -m pip install optuna, or install this "
            "package with its extra, '.[optuna]'"
        ) from error
    return optuna
