"""Confidence intervals of the params."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxfit.keywords import did_you_mean, near_keywords
from jaxfit.statistics.covariances import Moments, moments, spread

PyTree = Any
METHODS = ("wald", "profile", "bootstrap", "monte_carlo")


class Interval(NamedTuple):
    """From `low` to `high`; an infinite end is open, NaN is not known."""

    low: Any
    high: Any


def check_level(verb: str, level: Any) -> float:
    """A level of confidence.

    Raises:
      TypeError, ValueError: If it is no number between 0 and 1.
    """
    if isinstance(level, (bool, str)) or not np.isscalar(level):
        raise TypeError(f"{verb}: level is {level!r}, but it must be a number between 0 and 1, such as 0.95")
    if not 0 < level < 1:  # pyright: ignore[reportOperatorIssue]
        remedy = f"{level / 100:g}" if 1 < level < 100 else "0.95"  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"{verb}: level is {level}, but it must lie between 0 and 1; pass {remedy}")
    return float(level)  # pyright: ignore[reportArgumentType]


def factor(known: Moments, level: float) -> np.ndarray:
    """() how many standard errors an interval reaches: Student's t, and the normal where the noise is known."""
    import scipy.stats

    freedom = np.where(known.freedom > 0, known.freedom, np.nan)
    return scipy.stats.t.ppf((1 + level) / 2, freedom)


@near_keywords
def intervals(
    result: Any,
    method: str = "wald",
    level: float = 0.95,
    *,
    key: Any = None,
    samples: int = 10_000,
    absolute_sigma: bool | None = None,
) -> Any:
    """Confidence intervals of the params.

    Args:
      result: A fit, or the grid of a sweep (by "wald" or "profile").
      method: "wald": value -+ t * standard error, from the curvature at the minimum, symmetric.
        "profile": where the sum of squares, minimized over all others, has risen by t**2 * s**2; right also where
        predictions bend. An end that is never reached is infinite, one beyond a bound is the bound.
        "bootstrap": between quantiles of refits to resampled residuals; whatever the distribution of the noise.
        "monte_carlo": the same for noise drawn from a normal distribution.
      level: Of confidence, between 0 and 1.
      key: A PRNG key or a seed for the last two, which need one.
      samples: Refits of the last two.
      absolute_sigma: As for `covariance`.

    Returns:
      Of a fit a tree like its params with an `Interval(low, high)` at each leaf; of a grid an `xarray.Dataset` with
      the dimension "end" ("low", "high"). NaN for what is fixed, held or not determined.

    Raises:
      TypeError, ValueError, NotConverged: As `covariance`; for an unknown method, or a level that is none.
    """
    level = check_level("intervals", level)
    if method not in METHODS:
        near = did_you_mean(str(method), METHODS)
        raise ValueError(f"intervals: method is {method!r}{near} It is one of {', '.join(map(repr, METHODS))}")
    if method in ("bootstrap", "monte_carlo"):
        raise NotImplementedError
    if key is not None:
        raise ValueError(f"intervals: a key is given, but method {method!r} draws nothing; leave it out")
    if method == "profile":
        raise NotImplementedError
    known = moments("intervals", result, absolute_sigma)
    half = factor(known, level)[..., None] * known.errors
    return paired(result, known.values - half, known.values + half)


def paired(result: Any, low: np.ndarray, high: np.ndarray) -> Any:
    """(..., K) ends as intervals of the params."""
    import jax

    from jaxfit.fits import Fit

    if isinstance(result, Fit):
        return jax.tree.map(Interval, spread(result, low), spread(result, high))
    return spread(result, np.stack([low, high], axis=-1), {"end": ["low", "high"]})
