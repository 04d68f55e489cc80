"""Confidence intervals of the params."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfit.problems.messages import did_you_mean, near_keywords, warn
from jaxfit.statistics.covariances import Moments, factor, moments, spread
from jaxfit.statistics.lanes import example, labels_of
from jaxfit.statistics.profiles import profile_ends, said
from jaxfit.statistics.resampling import check_draws, quantiles, resample
from jaxfit.verbs.results import Fit

PyTree = Any
DRAWN = ("bootstrap", "monte_carlo")
METHODS = ("wald", "profile", *DRAWN)


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`; an infinite end is unbounded, and NaN is unknown."""

    low: Any
    high: Any


def check_level(verb: str, level: Any) -> float:
    """Return the level of confidence as a float.

    Raises:
      TypeError, ValueError: If it is no number between 0 and 1.
    """
    if isinstance(level, (bool, str)) or not np.isscalar(level):
        raise TypeError(f"{verb}: level is {level!r}, but it must be a number between 0 and 1, such as 0.95")
    if not 0 < level < 1:  # pyright: ignore[reportOperatorIssue]
        remedy = f"{level / 100:g}" if 1 < level < 100 else "0.95"  # pyright: ignore[reportOperatorIssue]
        raise ValueError(f"{verb}: level is {level}, but it must lie between 0 and 1; pass {remedy}")
    return float(level)  # pyright: ignore[reportArgumentType]


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
    """Return confidence intervals of the params.

    Args:
      result: A fit, or the grid of a sweep (by "wald" or "profile").
      method: "wald": value -+ t * standard error, from the curvature at the minimum; symmetric.
        "profile": where the sum of squares, minimized over all other params, has risen by t**2 * s**2; also correct for
        models that are nonlinear in the params. Each side is followed outward from the minimum to the first point with
        this rise, and on from there if a refit from another start (the fit's own, the ends of the other params) is
        lower. An end that is never reached is infinite, one beyond a bound is the bound. A warning is given if a
        profile has another minimum on the way, or one below the fit. A tied param has a profile like any other.
        "bootstrap": between quantiles of refits to resampled residuals, whatever the distribution of the noise; the
        interval is widened by the ratio of Student's t to the normal quantile.
        "monte_carlo": the same for noise drawn from a normal distribution.
      level: Confidence level, between 0 and 1.
      key: A PRNG key or a seed, required by the last two methods.
      samples: Number of refits of the last two methods.
      absolute_sigma: As for `covariance`.

    Returns:
      For a fit a tree like its params with an `Interval(low, high)` at each leaf; for a grid an `xarray.Dataset` with
      the dimension "end" ("low", "high"). NaN for params that are fixed, on a bound or not determined by the data, and
      for all params where there are not more residuals than params, so that they do not tell the noise.

    Raises:
      TypeError, ValueError, NotConverged: As `covariance`; also for an unknown method or a level outside (0, 1).

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> slope = jf.intervals(run)["w"]
      >>> round(float(slope.low), 3), round(float(slope.high), 3)
      (0.456, 0.617)
    """
    low, high, notes = ends("intervals", result, method, level, key, samples, absolute_sigma)
    for note in notes:
        warn(f"intervals: {note}")
    return paired(result, low, high)


def ends(
    verb: str,
    result: Any,
    method: str,
    level: float,
    key: Any,
    samples: int,
    absolute_sigma: bool | None,
    known: Moments | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the (..., K) ends of the intervals, and sentences about them; `known` are the moments, if at hand."""
    level = check_asked(verb, method, level, key, samples)
    known = known or moments(verb, result, absolute_sigma)
    if method in DRAWN:
        kind = "residuals" if method == "bootstrap" else "normal"
        return *quantiles(resample(verb, result, known, kind, key, samples)[0], known, level), []
    if method == "profile":
        found = profile_ends(verb, result, known, level)
        return found.low, found.high, said(found, labels_of(example(result)[1]))
    half = factor(known, level)[..., None] * known.errors
    return known.values - half, known.values + half, []


def check_asked(verb: str, method: Any, level: Any, key: Any, samples: Any) -> float:
    """Return the level, if method, level, key and samples go together."""
    level = check_level(verb, level)
    if method not in METHODS:
        near = did_you_mean(str(method), METHODS)
        raise ValueError(f"{verb}: method is {method!r}{near} It is one of {', '.join(map(repr, METHODS))}")
    if method in DRAWN:
        check_draws(verb, key, samples)
    elif key is not None:
        raise ValueError(f"{verb}: a key is given, but method {method!r} draws nothing; leave it out")
    return level


def paired(result: Any, low: np.ndarray, high: np.ndarray) -> Any:
    """Return (..., K) ends as intervals of the params."""
    if isinstance(result, Fit):
        return jax.tree.map(Interval, spread(result, low), spread(result, high))
    return spread(result, np.stack([low, high], axis=-1), {"end": ["low", "high"]})
