"""The limit of the learning rate, measured: a few sweeps over rates, each between two neighbors of the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxfit.keywords import near_keywords
from jaxfit.markers import Axis, Call, as_number
from jaxfit.optimizers import Optimizer, as_optimizer
from jaxfit.problems import Batches, Status, whole
from jaxfit.sweeps import sweep

PyTree = Any


class MeasuredLimit(NamedTuple):
    """Between the last learning rate that ended well and the first that did not.

    `float(limit)` is the geometric middle.
    """

    low: float  # ended well, as did all below that were tried; 0 if none did
    high: float  # diverged, or became not finite; infinite if none did
    runs: int
    steps: int  # updates of each

    @property
    def learning_rate(self) -> float:
        return float(np.sqrt(self.low * self.high)) if 0 < self.low and self.high < np.inf else float("nan")

    def __float__(self) -> float:
        return self.learning_rate

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.learning_rate, dtype)

    def __repr__(self) -> str:
        tried = f"{self.runs:,} runs of {self.steps:,} steps"
        if self.high == np.inf:
            return f"no limit up to a learning rate of {self.low:.6g} ({tried})"
        if self.low == 0:
            return f"the learning rate {self.high:.6g} is too large already ({tried})"
        return f"learning rate < {self.learning_rate:.8g}, between {self.low:.8g} and {self.high:.8g} ({tried})"


@near_keywords
def measured_limit(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: Any,
    steps: int = 4000,
    between: tuple[float, float] = (1e-8, 1e4),
    rates: int = 48,
    tolerance: float = 1e-5,
    batches: Batches | None = None,
    key: Any = None,
    precision: str | None = None,
) -> MeasuredLimit:
    """The learning rate from which on runs diverge: the least, among those tried, that ends above its start.

    A sweep over `rates` learning rates, then another between the last that ended well and the first that did not, until
    the two are close.

    Args:
      loss, params, data, batches, key, precision: As for `fit`; float64 tells apart what float32 rounds.
      optimizer: As for `fit`; its learning rate is replaced.
      steps: Updates of each run. A run just above the limit needs many to grow; twice as many, half the bias.
      between: Where to look.
      rates: Learning rates in a sweep, spaced evenly in their logarithm.
      tolerance: Relative, between the two.

    Returns:
      The last rate that ended well and the first that did not, which may be above that: where the boundary is not one
      point, the lowest crossing counts.

    Raises:
      ValueError, TypeError: For bad input, as `sweep`; also for an optimizer that takes no learning rate.
    """
    optimizer = as_optimizer(optimizer)
    low, high = pair_of_rates("measured_limit", between)
    rates = whole("measured_limit: rates", rates, least=3)
    tolerance = as_number("measured_limit: tolerance", tolerance)
    first, last, runs = 0.0, np.inf, 0
    while True:
        tried = np.geomspace(low, high, rates)
        grid = sweep(
            loss, params, data, optimizer=with_rate(optimizer, Axis("learning_rate", tried)), steps=steps,
            batches=batches, key=key, precision=precision, progress=False,
        )  # fmt: skip
        runs += rates
        failed = np.isin(np.asarray(grid.results.status), (Status.DIVERGED, Status.NOT_FINITE))
        place = int(np.argmax(failed)) if failed.any() else rates
        first = tried[place - 1] if place else first
        last = tried[place] if place < rates else last
        if not (0 < first and last < np.inf) or last / first - 1 <= tolerance:
            return MeasuredLimit(float(first), float(last), runs, int(steps))
        low, high = first, last


def with_rate(optimizer: Optimizer, rate: Any) -> Optimizer:
    """The optimizer with another learning rate, or a schedule of them.

    Raises:
      ValueError: If it takes none.
    """
    if "learning_rate" not in optimizer.hyperparameters:
        raise ValueError(
            f"optimizer is {optimizer!r}, which has no hyperparameter named learning_rate to be replaced; use a named "
            f"one such as jf.optimizers.adam(0.1), or jf.optimizer(factory, learning_rate=...)"
        )
    return Optimizer(Call(optimizer.call.function, **optimizer.hyperparameters | {"learning_rate": rate}))


def pair_of_rates(verb: str, between: Any) -> tuple[float, float]:
    try:
        low, high = (as_number(f"{verb}: between", x) for x in between)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high:
        raise ValueError(
            f"{verb}: between is {between!r}, but it takes two positive learning rates, the lower one first: "
            f"between=(1e-6, 1.0)"
        )
    return low, high
