"""Limits of the learning rate by experiment: bisection with sweeps, and the range test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

from jaxfit import schedules
from jaxfit.optimizers.building import as_optimizer, with_rate
from jaxfit.problems import Batches, Record, Status, whole_number
from jaxfit.problems.axes import Axis, as_number, is_axis
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import KeyLike, OptimizerLike, PyTree
from jaxfit.verbs.fits import fit
from jaxfit.verbs.results import Fit
from jaxfit.verbs.summaries import short
from jaxfit.verbs.sweeps import sweep

if TYPE_CHECKING:
    import xarray as xr


class MeasuredLimit(NamedTuple):
    """A measured limit: the last learning rate that ended well and the first that did not.

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

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
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
    optimizer: OptimizerLike,
    steps: int = 4000,
    between: tuple[float, float] = (1e-8, 1e4),
    rates: int = 48,
    tolerance: float = 1e-5,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> MeasuredLimit:
    """Return the learning rate above which runs diverge, found by sweeps over learning rates.

    A sweep over `rates` learning rates is followed by another one between the last rate that ended well and the first
    that did not, and so on until the two are close. A run did not end well if its loss ends above its start.

    Args:
      loss, params, data, batches, key, precision: As for `fit`; float64 tells apart what float32 rounds.
      optimizer: As for `fit`; its learning rate is replaced.
      steps: Updates of each run. A run just above the limit needs many steps to grow; twice as many halve the bias.
      between: The smallest and the largest learning rate to try.
      rates: Learning rates in a sweep, spaced evenly in their logarithm.
      tolerance: Relative distance of the two rates at which to stop.

    Returns:
      The last rate that ended well and the first that did not. Where the boundary is not one point, the lowest crossing
      counts.

    Raises:
      ValueError, TypeError: For bad input, as `sweep`; also for an optimizer that takes no learning rate.

    Example:
      >>> options = {"steps": 500, "between": (0.5, 2.0), "rates": 8, "tolerance": 0.02}
      >>> limit = jf.measured_limit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), **options)
      >>> round(float(limit.learning_rate), 1)
      1.0
    """
    optimizer = as_optimizer(optimizer)
    low, high = pair_of_rates("measured_limit", between)
    rates = whole_number("measured_limit: rates", rates, least=3)
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


def pair_of_rates(verb: str, between: tuple[float, float]) -> tuple[float, float]:
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


SAFETY = 10.0  # the turn over the suggested learning rate


class RangeTest(NamedTuple):
    """The result of a learning-rate range test."""

    curve: xr.DataArray  # "loss" along "learning_rate": right after the update with that rate; of the batch
    turn: float  # the rate with the least (smoothed) loss; infinite if the loss fell to the end
    suggested: float  # a tenth of the turn; NaN if the loss never fell
    fit: Fit  # the run itself

    def __repr__(self) -> str:
        rates = np.asarray(self.curve.learning_rate)
        span = f"between {short(rates[0])} and {short(rates[-1])} ({len(rates)} steps)"
        if np.isnan(self.suggested):
            return f"the loss fell at no learning rate {span}; test lower ones with between=(..., {short(rates[0])})"
        if self.turn == np.inf:
            return f"the loss fell all the way {span}; test higher rates, or use {short(self.suggested)}"
        return f"the loss turns up at a learning rate of {self.turn:.3g}; try a tenth of it, {short(self.suggested)}"


@near_keywords
def learning_rate_range(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    between: tuple[float, float] = (1e-6, 10.0),
    steps: int = 200,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> RangeTest:
    """Run a learning-rate range test: the rate grows by a constant factor per step, and the turn of the loss is found.

    On a quadratic the distance along an eigenvector is multiplied by 1 - rate(t) l in each step. The loss along the
    steepest eigenvector, of eigenvalue L, is lowest where the rate crosses 2 / L, and is back at its start where the
    rate reaches 12.6 / L (the zero of the dilogarithm's real part), however slowly the rate grows. The whole loss turns
    up in between, and a tenth of that rate is stable.

    Args:
      loss, params, data, batches, key, precision: As for `fit`.
      optimizer: As for `fit`; its learning rate is replaced.
      between: The rates of the first step and of the last.
      steps: Number of updates.

    Returns:
      The loss against the rate, the rate where it turns up, and a tenth of that as a rate to start with. With batches
      the loss is smoothed over a twentieth of the steps to find the turn.

    Raises:
      ValueError, TypeError: For bad input, as `fit`; also for an optimizer that takes no learning rate.

    Source: Smith (2017), arXiv:1506.01186, section 3.3, with a rate that grows by a factor instead of a constant.

    Example:
      >>> found = jf.learning_rate_range(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=100)
      >>> 0.5 < found.turn < 6.3
      True
    """
    optimizer = as_optimizer(optimizer)
    low, high = pair_of_rates("learning_rate_range", between)
    steps = whole_number("learning_rate_range: steps", steps, least=3)
    factor = (high / low) ** (1 / (steps - 1))
    leaves = jax.tree.leaves((loss, params, data, key, batches, optimizer), is_leaf=is_axis)
    swept = next((x for x in leaves if is_axis(x)), None)
    if swept is not None:
        raise ValueError(f"learning_rate_range got {swept}, but runs one problem; call it for each")
    run = fit(
        loss, params, data, optimizer=with_rate(optimizer, schedules.exponential(low, factor)), steps=steps,
        batches=batches, key=key, record=Record(what=("loss",)), progress=False, precision=precision,
    )  # fmt: skip
    losses = np.asarray(run.history.loss, float)
    rates = low * factor ** np.arange(len(losses) - 1)
    smoothed = losses if batches is None else _smoothed(losses, max(2, steps // 20))
    turn, suggested = _turn(rates, smoothed)
    import xarray as xr

    coords = {"learning_rate": rates, "step": ("learning_rate", np.arange(1, len(losses)))}
    return RangeTest(xr.DataArray(losses[1:], coords, ("learning_rate",), "loss"), turn, suggested, run)


def _turn(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Return the learning rate of the lowest loss, and the suggested one."""
    least = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    if least == 0:
        return float(rates[0]), float("nan")
    turn = float(rates[least - 1])
    return float("inf") if least == len(losses) - 1 else turn, turn / SAFETY


def _smoothed(losses: np.ndarray, window: int) -> np.ndarray:
    """Return the exponential moving average over about `window` steps, corrected for its start at zero."""
    keep, mean, out = 1 - 1 / window, 0.0, []
    for t, value in enumerate(losses):
        mean = keep * mean + (1 - keep) * value
        out.append(mean / (1 - keep ** (t + 1)))
    return np.array(out)
