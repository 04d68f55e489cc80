"""Confidence intervals of the params, of the curve, and of any function of the params."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.engine.tracing import trace, traced
from jaxfit.losses.base import LIKELIHOOD, ROBUST, Loss, noise_model_of
from jaxfit.losses.joint import params_of_model
from jaxfit.problems import Problem, convert, convert_all, precision_context
from jaxfit.problems.axes import refuse_unit
from jaxfit.problems.data import as_data, floating
from jaxfit.problems.marks import released
from jaxfit.problems.messages import did_you_mean, near_keywords, path_name, shown, warn
from jaxfit.statistics.covariances import Moments, factor, moments, params_tree
from jaxfit.statistics.profiles import profile_ends, sentences_about
from jaxfit.statistics.resampling import check_draws, quantiles, resample
from jaxfit.typing import Array, ArrayLike, KeyLike, PyTree
from jaxfit.verbs.evaluations import (
    PRECISION,
    check_result,
    labelled,
    labels_of,
    like,
    one_lane,
    over_lanes,
    whole_params,
)
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit
from jaxfit.verbs.units import takes_units, with_units_of_params

if TYPE_CHECKING:
    import xarray as xr

DRAWN = ("bootstrap", "monte_carlo")
METHODS = ("wald", "profile", *DRAWN)


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`; an infinite end is unbounded, and NaN is unknown."""

    low: ArrayLike
    high: ArrayLike


def check_level(verb: str, level: float) -> float:
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
@takes_units(with_units_of_params)
def intervals(
    result: Fit | Grid,
    method: str = "wald",
    level: float = 0.95,
    *,
    key: KeyLike | None = None,
    samples: int = 10_000,
    absolute_sigma: bool | None = None,
) -> PyTree:
    """Return confidence intervals of the params.

    Args:
      result: A fit, or the grid of a sweep (by "wald" or "profile").
      method: "wald": value -+ t * standard error, from the curvature at the minimum; symmetric.
        "profile": where the sum of squares, minimized over all other params, has risen by t**2 * s**2; also correct for
        models that are nonlinear in the params. Each side is followed outward from the minimum to the first point with
        this rise. On the way, at distances that are the same for all levels, refits from other starts (the fit's own,
        the other params' profiles) look for a lower branch, so that a wider level contains a narrower one. An end that
        is never reached is infinite, one beyond a bound is the bound. A warning names the ends where
        a profile has another minimum on the way, or one below the fit. A tied param has a profile like any other.
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
    low, high, notes = interval_ends("intervals", result, method, level, key, samples, absolute_sigma)
    for note in notes:
        warn(f"intervals: {note}")
    return paired(result, low, high)


def interval_ends(
    verb: str,
    result: Fit | Grid,
    method: str,
    level: float,
    key: KeyLike | None,
    samples: int,
    absolute_sigma: bool | None,
    known: Moments | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the (..., K) ends of the intervals, and sentences about them; `known` are the moments, if at hand."""
    level = check_asked(verb, method, level, key, samples)
    known = known or moments(verb, result, absolute_sigma, covaries=method != "wald")
    if method in DRAWN:
        kind = "residuals" if method == "bootstrap" else "normal"
        return *quantiles(resample(verb, result, known, kind, key, samples)[0], known, level), []
    if method == "profile":
        profiles = profile_ends(verb, result, known, level)
        return profiles.low, profiles.high, sentences_about(profiles, labels_of(one_lane(result)[1]))
    half = factor(known, level)[..., None] * known.errors
    return known.values - half, known.values + half, []


def check_asked(verb: str, method: str, level: float, key: KeyLike | None, samples: int) -> float:
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


def paired(result: Fit | Grid, low: np.ndarray, high: np.ndarray) -> PyTree:
    """Return (..., K) ends as intervals of the params."""
    if isinstance(result, Fit):
        return jax.tree.map(Interval, params_tree(result, low), params_tree(result, high))
    return params_tree(result, np.stack([low, high], axis=-1), {"end": ["low", "high"]})


class Derived(NamedTuple):
    """The value of a function of the params, with its standard error."""

    value: PyTree
    error: PyTree  # standard errors, in the same tree


class Band(NamedTuple):
    """A fitted curve with its error and its limits, each like the predictions."""

    value: np.ndarray | xr.DataArray
    error: np.ndarray | xr.DataArray  # standard error of the curve, or of a new observation
    low: np.ndarray | xr.DataArray
    high: np.ndarray | xr.DataArray


@near_keywords
def propagate(result: Fit | Grid, function: Callable, *, absolute_sigma: bool | None = None) -> Derived:
    """Return f(params) and its standard error sqrt(g^T C g), with the gradient g of f and the covariance C of params.

    This is correct as far as f is linear over the errors of the params. Params that are fixed or on a bound count as
    exact.

    Args:
      result: A fit, or the grid of a sweep.
      function: A function of the params, with their tree and in their units, that returns numbers or a tree of arrays.
        A new lambda in every call compiles anew.
      absolute_sigma: As for `covariance`.

    Returns:
      (value, error), each like the result of f; for a grid `xarray.DataArray`s over its axes at its leaves. The error
      is NaN where f depends on params that the data do not determine, and zero where it depends on nothing that varies.

    Raises:
      TypeError: If `function` cannot be called, or returns no floats; otherwise as `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> freezing = jf.propagate(run, lambda p: -p["b"] / p["w"])
      >>> round(float(freezing.value), 2), round(float(freezing.error), 2)
      (32.24, 1.68)
    """
    shape, known = derived("propagate", result, function, absolute_sigma)
    return Derived(*(_shaped(result, shape, x) for x in (known.values, known.errors)))


def derived(
    verb: str, result: Fit | Grid, function: Callable, absolute_sigma: bool | None, *, warns: bool = True
) -> tuple[PyTree, Moments]:
    """Return the shapes of f(params), and the moments of its numbers by the linear theory."""
    if not callable(function):
        raise TypeError(
            f"{verb}: function is {shown(function)}, but it must be a function of the params: "
            f'jf.propagate(fit, lambda p: p["a"] / p["b"])'
        )
    check_result(verb, result)
    _check_takes_params(verb, function)
    one_lane(result)  # refuses lanes of different shapes
    with precision_context(PRECISION):
        _, shape = traced(lambda params: function(released(params)), (_like_params(result),), f"{verb}: the function")
    leaves = jax.tree_util.tree_leaves_with_path(shape)
    odd = [(path_name("", path), x) for path, x in leaves if not jnp.issubdtype(x.dtype, jnp.floating)]
    if odd or not leaves:
        place, what = (f" at {odd[0][0]}" * bool(odd[0][0]), odd[0][1].dtype.name) if odd else ("", f"{shape}")
        raise TypeError(
            f"{verb}: the function returned {what}{place}, but errors are of floating numbers that depend on the "
            f"params; return one, or a tree of arrays of them"
        )
    return shape, moments(verb, result, absolute_sigma, function, warns=warns)


def _check_takes_params(verb: str, function: Callable) -> None:
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise TypeError(
            f"{verb}: function takes ({takes}), but it is called as function(params); bind the others: "
            f"lambda params: function(params, x)"
        ) from error
    except ValueError:  # a built-in function that does not tell
        pass


def _shaped(result: Fit | Grid, shape: PyTree, flat: np.ndarray) -> PyTree:
    tree = like(shape, flat)
    if isinstance(result, Fit):
        return tree
    axes = len(result.results.status.dims)
    return jax.tree.map(lambda x: labelled(result, x, {f"dim_{i}": None for i in range(x.ndim - axes)}), tree)


def _like_params(result: Fit | Grid) -> PyTree:
    """Return shapes and types of the params in double precision, with marks around what is kept."""
    return jax.eval_shape(lambda: convert_all(whole_params(result), PRECISION))


def prediction(loss: Loss, params: PyTree, x: PyTree) -> Array:
    """Return the prediction of the loss's model at x."""
    return jnp.asarray(loss.predict(params, x), float)


@functools.lru_cache(maxsize=64)
def _predictor(loss: Loss) -> Callable:
    return lambda params, x: prediction(loss, released(params), x)


@near_keywords
def band(
    result: Fit | Grid,
    x: ArrayLike,
    level: float = 0.95,
    kind: str = "confidence",
    *,
    sigma: ArrayLike | None = None,
    absolute_sigma: bool | None = None,
) -> Band:
    """Return the fitted curve at x with its standard error and confidence limits, point by point.

    Args:
      result: A fit of a model, or the grid of a sweep.
      x: Where to evaluate the curve; like the x of the data, of any length.
      level: Confidence level, between 0 and 1.
      kind: "confidence": limits of the curve. "prediction": limits of a new observation, whose own noise is added.
      sigma: For predictions with `chi_squared`: the standard deviation of an observation at x, in the unit of the
        data's sigma; one number, or one for each x. None if all data have the same.
      absolute_sigma: As for `covariance`.

    Returns:
      (value, error, low, high), each like the predictions at x; for a grid `xarray.DataArray`s over its axes. A param
      on a bound is treated as fixed there.

    Raises:
      TypeError: If the loss has no model, such as `least_squares` of your own residuals.
      ValueError: For another kind; if the noise at x is not known; otherwise as `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> curve = jf.band(run, [50.0])
      >>> round(float(curve.value[0]), 2), round(float(curve.error[0]), 2)
      (9.53, 0.57)
    """
    level = check_level("band", level)
    refuse_unit("band: x", x)
    refuse_unit("band: sigma", sigma)
    if kind not in ("confidence", "prediction"):
        raise ValueError(f'band: kind is {kind!r}, but it must be "confidence" or "prediction"')
    check_result("band", result)
    problem, _ = one_lane(result)
    loss = problem.loss
    if not (noise_model_of(loss).predicts and isinstance(loss, Loss)):
        raise TypeError(
            f"band: {loss} has no model that predicts at x; use jf.propagate(fit, lambda params: "
            f"model({params_of_model(loss, 'params')}, x)), whose error is that of the curve"
        )
    start = released(jax.tree.map(lambda x: np.zeros_like(x), whole_params(result)))
    (x,) = floating(as_data((x,), "x"), lambda given: prediction(loss, start, *given), PRECISION, "x")
    if sigma is not None and kind == "confidence":
        raise ValueError('band: sigma is given, but the curve has no noise of its own; pass kind="prediction"')
    with precision_context(PRECISION):
        at = _like_params(result)
        where = jax.tree.map(lambda x: convert(x, PRECISION), x)
        _, shape = trace(_predictor(loss), at, where)
    known = moments("band", result, absolute_sigma, _predictor(loss), (where,), covaries=False)
    variance = known.errors**2
    if kind == "prediction":
        variance = variance + _noise(result, loss, known, sigma, shape.shape)
    error = np.sqrt(variance)
    half = factor(known, level)[..., None] * error
    value = known.values
    return Band(*(_shaped(result, shape, flat) for flat in (value, error, value - half, value + half)))


def _noise(
    result: Fit | Grid, loss: Loss, known: Moments, sigma: ArrayLike | None, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the variance of a new observation, (..., 1) or (..., m)."""
    model = noise_model_of(loss)
    if not model.sigma:
        if model.kind == LIKELIHOOD:
            raise ValueError(
                "band: a new count scatters by its own distribution, which is not symmetric: take its quantiles at the "
                'prediction, scipy.stats.poisson.interval(level, fit.predict(x)), or use kind="confidence"'
            )
        if model.kind == ROBUST:
            raise ValueError(
                "band: a Huber loss says how the bulk of the observations scatters, not how far a new one may fall; "
                'use kind="confidence"'
            )
        if sigma is not None:
            raise ValueError(f"band: sigma is given, but {loss} takes it from the residuals; leave it out")
        return known.noise[..., None]
    if sigma is None:
        spreads = over_lanes(result, _sigmas)
        if not np.array_equal(spreads.low, spreads.high):
            raise ValueError(
                "band: the data's sigma differs from point to point, so the noise at x is not known; pass sigma=, one "
                "standard deviation or one for each x"
            )
        return known.noise[..., None] * spreads.low[..., None] ** 2
    sigma = np.asarray(sigma, float)
    if sigma.ndim and sigma.shape != shape or not (np.isfinite(sigma) & (sigma > 0)).all():
        raise ValueError(
            f"band: sigma has shape {sigma.shape} and the predictions {shape}; give one positive standard deviation, "
            f"or one for each prediction"
        )
    return known.noise[..., None] * np.ravel(sigma) ** 2


class _Spread(NamedTuple):
    low: Array
    high: Array


def _sigmas(problem: Problem, params: PyTree) -> _Spread:
    """Return the least and the largest standard deviation that counts."""
    y, sigma = problem.data[1:3]
    if sigma.shape != y.shape:
        sigma = jnp.sqrt(jnp.diagonal(sigma))
    where = jnp.ones(y.shape[:1], bool) if len(problem.data) < 4 else problem.data[3]
    where = jnp.expand_dims(where, tuple(range(1, sigma.ndim)))
    return _Spread(
        jnp.min(jnp.where(where, sigma, jnp.inf)), jnp.max(jnp.where(where, sigma, -jnp.inf))
    )  # fmt: skip
