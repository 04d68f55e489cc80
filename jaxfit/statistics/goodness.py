"""Goodness of fit: standardized residuals, and the numbers that summarize them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.losses.base import LIKELIHOOD, ROBUST, SQUARES, Kind, noise_model_of
from jaxfit.losses.regression import SCALE
from jaxfit.problems import Problem, convert_all, precision_context
from jaxfit.problems.messages import near_keywords
from jaxfit.statistics.covariances import Moments, leverages_in_numpy, moments, of_data
from jaxfit.statistics.distributions import chi_squared_above, f_above
from jaxfit.statistics.estimates import basis_of, counted_residuals, jacobian, objective_at, squares_around_constant
from jaxfit.typing import Array, ArrayLike, PyTree, Scalar
from jaxfit.verbs.evaluations import PRECISION, labelled, one_lane, over_lanes
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, problem_of


class Residuals(NamedTuple):
    """The residuals of a fit, in the shape of the data."""

    raw: ArrayLike  # data minus prediction, in units of sigma if the loss has one
    standardized: ArrayLike  # of variance one, if the model is right: over s * sqrt(1 - leverage), or a count's own s
    leverage: ArrayLike  # by how much a datum pulls its own prediction: from 0 to 1; the sum is the number of params


class Goodness(NamedTuple):
    """The goodness of a fit; NaN where a number is not defined for the loss."""

    chi_squared: Scalar  # sum of the squared residuals (of counts Pearson's), or twice the negative log-likelihood
    reduced_chi_squared: Scalar  # over the degrees of freedom
    points: Scalar  # residuals that count
    params: Scalar  # that were determined
    degrees_of_freedom: Scalar
    p_value: Scalar  # of a chi-squared (of counts a deviance) as large, if sigma is absolute
    r_squared: Scalar  # against the best constant
    adjusted_r_squared: Scalar
    aic: Scalar
    bic: Scalar
    deviance: Scalar  # of counts: twice the log-likelihood below that of means that are the counts


@near_keywords
def residuals(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> Residuals:
    """Return the residuals, data minus prediction, and the same in units of their own standard deviation.

    Args:
      result: A fit by a loss of squares, by a robust one, or of counts, or the grid of a sweep.
      absolute_sigma: As for `covariance`.

    Returns:
      (raw, standardized, leverage) like y, NaN where masked; for a grid `xarray.DataArray`s. For `least_squares` the
      raw ones are minus the result of its function; with a covariance matrix of the data they are decorrelated.

      Those of a robust loss are standardized by their scale 1.4826 * median(|r|), the standard deviation of the bulk if
      it is normal: one beyond 3.5 is an outlier (Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers).

    Raises:
      TypeError: If the loss is neither of squares, nor robust, nor a deviance; otherwise as `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> found = jf.residuals(run)
      >>> round(float(found.raw[0]), 2), round(float(found.leverage.sum()), 3)
      (-1.36, 2.0)
    """
    known = moments("residuals", result, absolute_sigma)
    problem, _ = one_lane(result)
    if known.kind == LIKELIHOOD and not noise_model_of(problem.loss).deviance:
        raise TypeError(
            "residuals: only losses of squares, robust ones and those of counts have residuals of a known scale (rss, "
            "mse, chi_squared, least_squares, huber, tukey, poisson, binomial, ...); call the model for the others"
        )
    standard = standardized(result, known)
    if isinstance(result, Fit):
        return Residuals(*standard)
    axes = len(result.results.status.dims)
    return Residuals(*(labelled(result, x, {f"dim_{i}": None for i in range(x.ndim - axes)}) for x in standard))


def standardized(result: Fit | Grid, known: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the residuals raw, in units of their own standard deviations, and their leverages."""
    each = leverages_in_numpy(result) if isinstance(result, Fit) else None
    raw, pearson, leverage = over_lanes(result, _leverages, (known.kind,)) if each is None else each
    if known.kind == ROBUST:
        axes = tuple(range(np.ndim(known.noise), raw.ndim))
        scale = SCALE * np.nanmedian(np.abs(raw), axis=axes, keepdims=True)
        return raw, np.divide(raw, scale, out=np.full(raw.shape, np.nan), where=scale > 0), leverage
    noise = np.reshape(known.noise, known.noise.shape + (1,) * (raw.ndim - known.noise.ndim))
    spread = noise * np.clip(1 - leverage, 0, None)
    known_spread = spread > 1e-12 * noise
    return raw, np.divide(pearson, np.sqrt(spread), out=np.full(raw.shape, np.nan), where=known_spread), leverage


def _leverages(problem: Problem, params: PyTree, kind: Kind) -> tuple:
    """Return minus the residuals, the same in standard deviations if their variances are known, and the leverages."""
    objective, flat, back = objective_at(problem, params)
    basis = basis_of(problem, params, kind)
    residuals_there, columns = jacobian(objective, flat, back)
    blocks = objective.blocks(back(flat))
    raw = jnp.concatenate([jnp.ravel(block.residuals) for block in blocks])
    each = -raw, -residuals_there, jnp.sum((columns.T @ basis.root) ** 2, axis=1)
    if len(blocks) == 1:
        each = tuple(jnp.reshape(x, jnp.shape(blocks[0].residuals)) for x in each)
        where = counted_residuals(problem.loss, problem.data)
        if where is not None:
            each = tuple(jnp.where(where, x, jnp.nan) for x in each)
    return each


@near_keywords
def goodness_of_fit(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> Goodness:
    """Return chi-squared, reduced chi-squared, R squared, AIC and BIC of a fit.

    With n residuals and k params, AIC = n log(chi_squared / n) + 2 k where the noise is estimated from the residuals,
    and chi_squared + 2 k where sigma is absolute; for a likelihood it is -2 log(L) + 2 k. BIC has k log(n) in place of
    2 k. Only differences between models of the same data are meaningful. Of counts, chi_squared is Pearson's,
    sum((y - mean)**2 / variance), and the p-value is that of the deviance. A likelihood has no R squared; a Huber loss
    has neither R squared nor AIC and BIC.

    Args:
      result: A fit, or the grid of a sweep.
      absolute_sigma: As for `covariance`.

    Returns:
      One number each; for a grid an `xarray.Dataset` with these variables.

    Raises:
      TypeError, ValueError, NotConverged: As `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> quality = jf.goodness_of_fit(run)
      >>> round(float(quality.chi_squared), 2), round(float(quality.r_squared), 3)
      (32.2, 0.962)
    """
    numbers = goodness(result, moments("goodness_of_fit", result, absolute_sigma))
    if isinstance(result, Fit):
        return Goodness(*(x[()] for x in numbers))
    import xarray as xr

    return xr.Dataset({n: labelled(result, x, name=n) for n, x in numbers._asdict().items()})  # pyright: ignore[reportReturnType]


def goodness(result: Fit | Grid, known: Moments) -> Goodness:
    problem, _ = one_lane(result)
    chi, n, k = (np.asarray(x, float) for x in (known.estimate.size, known.estimate.count, known.estimate.rank))
    freedom, nothing = n - k, np.full(chi.shape, np.nan)
    squares = known.kind == SQUARES
    total = _total(result) if squares and noise_model_of(problem.loss).predicts else nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(total > 0, 1 - chi / total, np.nan)
        reduced = np.where(freedom > 0, chi / freedom, np.nan) if squares else nothing
        p = np.where(freedom > 0, chi_squared_above(freedom, chi), np.nan) if known.absolute and squares else nothing
        adjusted = np.where(freedom > 0, 1 - (1 - r) * (n - 1) / freedom, np.nan)
        deviance = chi if known.absolute else n * np.log(chi / n) if squares else nothing
    if known.kind not in (SQUARES, LIKELIHOOD):
        chi = nothing
    counts = nothing
    if noise_model_of(problem.loss).deviance:
        counts, deviance = chi, chi + over_lanes(result, _saturated) if known.absolute else nothing
        p = np.where(freedom > 0, chi_squared_above(freedom, counts), np.nan) if known.absolute else nothing
        reduced = np.asarray(known.estimate.scatter)
        chi = reduced * freedom
    return Goodness(chi, reduced, n, k, freedom, p, r, adjusted, deviance + 2 * k, deviance + k * np.log(n), counts)


def _saturated(problem: Problem, params: PyTree) -> Array:
    loss: Scalar = problem.loss
    return jnp.asarray(loss.saturated(*problem.data))


def _total(result: Fit | Grid) -> np.ndarray:
    """Return the sum of squares around the best constant."""
    if not isinstance(result, Fit):
        return over_lanes(result, _around_constant)
    with precision_context(PRECISION):
        return of_data(convert_all(problem_of(result), PRECISION))[1]


def _around_constant(problem: Problem, params: PyTree) -> Array:
    return squares_around_constant(problem)


class FTest(NamedTuple):
    """The result of an F-test of two nested models."""

    f: Scalar  # how much more a param of the larger one takes off than noise would
    p_value: Scalar  # of an F as large, if the smaller one is right
    numerator: Scalar  # degrees of freedom: params that the larger one has more
    denominator: Scalar  # and those of its residuals


@near_keywords
def f_test(small: Fit, large: Fit) -> FTest:
    """Test whether a larger model describes the data better than a smaller one inside it, beyond the effect of noise.

    F = ((S_small - S_large) / (k_large - k_small)) / (S_large / (n - k_large)), S being sums of squared residuals.

    Args:
      small: A fit, or a grid; its model is the larger one with some params fixed.
      large: A fit of the same data, or a grid over the same axes.

    Returns:
      (f, p_value, numerator, denominator); for grids `xarray.DataArray`s over their axes.

    Raises:
      TypeError: If the losses are not sums of squares.
      ValueError: If they are not fits of the same data, or the larger one does not have more params.

    Example:
      >>> data = jf.datasets.thermometer()
      >>> small = jf.curve_fit(jf.models.line, {"w": jf.Fixed(0.5), "b": 0.0}, data)
      >>> large = jf.curve_fit(jf.models.line, None, data)
      >>> test = jf.f_test(small, large)
      >>> round(float(test.f), 2), round(float(test.p_value), 2)
      (1.07, 0.33)
    """
    sums = []
    for name, result in (("small", small), ("large", large)):
        known = moments(f"f_test: {name}", result, None)
        if known.kind != SQUARES:
            raise TypeError(f"f_test: {name} is no fit by squares (rss, mse, chi_squared, least_squares)")
        sums.append(goodness_of_fit(result))
    one, two = sums
    if not _same_data(small, large) or np.any(np.asarray(one.points) != np.asarray(two.points)):
        raise ValueError("f_test: small and large are fits of different data; fit both to the same (x, y, sigma)")
    more = two.params - one.params
    if np.any(np.asarray(more) <= 0):
        raise ValueError(
            f"f_test: large has {np.min(np.asarray(two.params)):g} params and small "
            f"{np.max(np.asarray(one.params)):g}; the larger model goes second: f_test(small, large)"
        )
    f = (one.chi_squared - two.chi_squared) / more / (two.chi_squared / two.degrees_of_freedom)
    p = f_above(more, two.degrees_of_freedom, f)
    return FTest(f, p if isinstance(small, Fit) else f.copy(data=p), more, two.degrees_of_freedom)


def _same_data(small: Fit, large: Fit) -> bool:
    one, two = (jax.tree.leaves(one_lane(x)[0].data) for x in (small, large))
    return len(one) == len(two) and all(
        np.shape(a) == np.shape(b) and np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(one, two, strict=True)
    )
