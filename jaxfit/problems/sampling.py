"""Axes whose values are drawn: points spread evenly over ranges, one lane for each."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxfit.problems.axes import Axis, as_key, is_array, refuse_unit
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.problems import whole
from jaxfit.typing import KeyLike, PyTree

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
        if isinstance(self.values, str) or not hasattr(self.values, "__len__"):
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
    count = whole("count", count)
    leaves, structure = jax.tree.flatten(space, is_leaf=is_range)
    ranges = [x for x in leaves if is_range(x)]
    if not ranges:
        raise ValueError(
            f"sample: space is {reprlib.repr(space)}, in which nothing is to be drawn; give it ranges, such as "
            f"{{'rate': jf.LogUniform(1e-5, 1e-1)}}"
        )
    columns = iter(spread(count, len(ranges), key).T)
    drawn = [Axis(name, x.at(next(columns))) if is_range(x) else x for x in leaves]
    return jax.tree.unflatten(structure, drawn)


def is_range(x: object) -> bool:
    return isinstance(x, (Uniform, LogUniform, Choice))


def spread(count: int, dimensions: int, key: KeyLike) -> np.ndarray:
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
