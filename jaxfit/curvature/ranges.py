"""The range test: one run whose learning rate grows in every step, until the loss turns up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxfit import schedules
from jaxfit.curvature.limits import pair_of_rates, with_rate
from jaxfit.fits import Fit, fit
from jaxfit.keywords import near_keywords
from jaxfit.markers import is_axis
from jaxfit.optimizers import as_optimizer
from jaxfit.outcomes import short
from jaxfit.problems import Batches, Record, whole

PyTree = Any
SAFETY = 10.0  # the suggested rate is this much below the turn


class RangeTest(NamedTuple):
    """What a range test found."""

    curve: Any  # xarray.DataArray "loss" along "learning_rate": right after the update with that rate; of the batch
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
    optimizer: Any,
    between: tuple[float, float] = (1e-6, 10.0),
    steps: int = 200,
    batches: Batches | None = None,
    key: Any = None,
    precision: str | None = None,
) -> RangeTest:
    """A run whose learning rate grows by the same factor in every step; where the loss turns up, it is too large.

    On a quadratic the distance along an eigenvector is multiplied by 1 - rate(t) l. The loss along the steepest one, of
    eigenvalue L, is least where the rate crosses 2 / L, and back at its start where it reaches 12.6 / L (the zero of
    the dilogarithm's real part), however slowly the rate grows: the whole loss turns up in between, and a tenth of that
    is a stable rate.

    Args:
      loss, params, data, batches, key, precision: As for `fit`.
      optimizer: As for `fit`; its learning rate is replaced.
      between: The rates of the first step and of the last.
      steps: Updates.

    Returns:
      The loss against the rate, where it turns, and a tenth of that as a rate to start with. With batches the loss is
      smoothed over a twentieth of the steps to find the turn.

    Raises:
      ValueError, TypeError: For bad input, as `fit`; also for an optimizer that takes no learning rate.

    Source: Smith (2017), arXiv:1506.01186, section 3.3, with a rate that grows by a factor instead of a constant.
    """
    optimizer = as_optimizer(optimizer)
    low, high = pair_of_rates("learning_rate_range", between)
    steps = whole("learning_rate_range: steps", steps, least=3)
    factor = (high / low) ** (1 / (steps - 1))
    swept = next((x for x in (params, *optimizer.hyperparameters.values()) if is_axis(x)), None)
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
    """The rate of the least loss, and the one to suggest."""
    known = np.where(np.isfinite(losses), losses, np.inf)
    least = int(np.argmin(known))
    if least == 0:
        return float(rates[0]), float("nan")
    if least == len(losses) - 1:
        return float("inf"), float(rates[-1] / SAFETY)
    return float(rates[least - 1]), float(rates[least - 1] / SAFETY)


def _smoothed(losses: np.ndarray, window: int) -> np.ndarray:
    """The exponential mean over about `window` steps, corrected for its start."""
    keep, mean, out = 1 - 1 / window, 0.0, []
    for t, value in enumerate(losses):
        mean = keep * mean + (1 - keep) * value
        out.append(mean / (1 - keep ** (t + 1)))
    return np.array(out)
