"""Curve fitting with defaults: chi-squared and Levenberg-Marquardt, which computes in float64."""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfit.losses import chi_squared, orthogonal_distance
from jaxfit.losses.regression import check_called_with_params
from jaxfit.optimizers import levenberg_marquardt
from jaxfit.problems.axes import is_axis, refuse_unit
from jaxfit.problems.foreign import is_hidden, is_uncertain, nominal
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.problems.problems import Record, Stop
from jaxfit.typing import ArrayLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs.fits import fit
from jaxfit.verbs.results import Fit


@near_keywords
def curve_fit(
    predict: Callable,
    start: PyTree,
    data: tuple,
    sigma: ArrayLike | None = None,
    absolute_sigma: bool = False,
    *,
    x_sigma: ArrayLike | None = None,
    correlation: ArrayLike | None = None,
    optimizer: OptimizerLike | None = None,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    progress: bool | None = None,
    precision: str | None = None,
) -> Fit:
    """Minimize sum(((predict(params, x) - y) / sigma)**2), or with errors in x the distances of points from the curve.

    This is `fit` with the loss `chi_squared` (with `x_sigma` the loss `orthogonal_distance`) and the optimizer
    `levenberg_marquardt`.

    Args:
      predict: A function of (params, x) that returns the shape of y.
      start: The params to start from: any pytree, with `Fixed`, `Bounded` and `Tied` at its leaves if wanted. None for
        a curve of `jf.models`, which guesses them from the data.
      data: (x, y). Masked rows of NumPy's masked arrays do not count; numbers of the package `uncertainties` as y
        give sigma, in the units of y, and as both x_sigma too.
      sigma: The standard deviation of y: one number, one for each entry, or for y (n,) a covariance matrix (n, n).
        None is the same as 1.
      absolute_sigma: Whether sigma is in the units of y. If True, the standard errors of the params are computed from
        sigma; if False, only the ratios of sigma count, and the scatter of the residuals gives their size. The fit
        keeps this flag; the params do not depend on it.
      x_sigma: The standard deviation of x, one number or one for each point; zero where x is certain. It is in units of
        x as sigma is in units of y: only their ratios count if `absolute_sigma` is False.
      correlation: With x_sigma, the correlation of the errors of x and y of a point: one number, or one for each.
      optimizer, steps, stop, record, progress, precision: As for `fit`; by default Levenberg-Marquardt, and so float64.

    Returns:
      A `Fit` whose loss is chi-squared.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> run = jf.curve_fit(jf.models.line, None, (x, y))
      >>> {name: round(float(error), 3) for name, error in jf.standard_errors(run).items()}
      {'b': 1.927, 'w': 0.036}
    """
    _check_predict(predict, start)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"data is {reprlib.repr(data)}, but curve_fit takes the pair (x, y); sigma is given apart: "
            f"jf.curve_fit(predict, start, (x, y), sigma=sigma)"
        )
    if any(is_axis(x) for x in jax.tree.leaves((start, data, sigma, x_sigma, correlation), is_leaf=is_axis)):
        raise ValueError(
            "curve_fit got an Axis, but runs one problem; call jf.sweep(jf.losses.chi_squared(predict), start, "
            "(x, y, sigma), optimizer=jf.optimizers.levenberg_marquardt())"
        )
    if not isinstance(absolute_sigma, (bool, np.bool_)):
        raise TypeError(f"absolute_sigma is {absolute_sigma!r}, but it must be True or False")
    x, y = data
    if is_uncertain(y):
        if sigma is not None:
            raise TypeError(
                "sigma is given, but y holds numbers with uncertainties of their own; leave sigma out, or pass "
                "np.array([v.nominal_value for v in y]) as y"
            )
        if is_uncertain(x) and x_sigma is None:
            x, x_sigma = nominal(x)
        (y, sigma), absolute_sigma = nominal(y), True
    if absolute_sigma and sigma is None:
        raise ValueError("absolute_sigma is True, but there is no sigma; pass sigma in the units of y")
    refuse_unit("sigma", sigma)
    if not (sigma is None or isinstance(sigma, jax.core.Tracer)) and np.asarray(sigma).dtype.kind not in "iuf":
        raise TypeError(
            f"sigma is {reprlib.repr(sigma)}, but it must be a number or an array of numbers, in units of y"
        )
    if correlation is not None and x_sigma is None:
        raise ValueError("correlation is given, but no x_sigma; pass both, or leave it out")
    errors_in_x = (
        ("x_sigma", x_sigma, "zero or more", lambda v: v >= 0),
        ("correlation", correlation, "between -1 and 1", lambda v: abs(v) < 1),
    )
    if start is None:
        if not hasattr(predict, "guess"):
            raise TypeError(
                f"start is None, but {reprlib.repr(predict)} guesses nothing, as the curves of jf.models do; give the "
                f"params to start from"
            )
        start = predict.guess(*_that_count(x, y))
    if sigma is None or np.ndim(sigma) == 0:
        one: Any = 1.0 if sigma is None else sigma
        sigma = np.ones(np.shape(y)) * one
    loss, more = chi_squared(predict), ()
    if x_sigma is not None:
        loss = orthogonal_distance(predict, correlated=correlation is not None)
        more = tuple(_of_points(*given, np.shape(y)) for given in errors_in_x if given[1] is not None)
    found = fit(
        loss, start, (x, y, sigma, *more), steps=steps, stop=stop, record=record, progress=progress,
        optimizer=_usual() if optimizer is None else optimizer, precision=precision,
    )  # fmt: skip
    return dataclasses.replace(found, absolute_sigma=bool(absolute_sigma))


_usual = functools.cache(levenberg_marquardt)


def _of_points(name: str, value: Scalar, rule: str, good: Callable, shape: tuple[int, ...]) -> ArrayLike:
    """Return a number for each point.

    Raises:
      TypeError, ValueError: If they are no numbers, or break the rule.
    """
    refuse_unit(name, value)
    if not isinstance(value, jax.core.Tracer):
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "iuf":
            raise TypeError(f"{name} is {reprlib.repr(value)}, but it must be a number or an array of numbers")
        if not (fine := good(numbers)).all():
            raise ValueError(f"{name} is {numbers[~fine].ravel()[0]}, but it must be {rule}")
    return value if np.ndim(value) else np.ones(shape) * value


def _that_count(x: PyTree, y: PyTree) -> tuple[PyTree, PyTree]:
    """Return the rows of x and y that are not masked."""
    hidden = [np.ma.getmaskarray(item).reshape(len(item), -1).any(1) for item in (x, y) if is_hidden(item)]
    counts = ~np.any(hidden, axis=0) if hidden else None
    return (x, y) if counts is None else (np.asarray(x)[counts], np.asarray(y)[counts])


def _check_predict(predict: Callable, start: PyTree) -> None:
    if not callable(predict):
        raise TypeError(
            f"predict is {shown(predict)}, but it must be a function of (params, x), itself and not its values; "
            f"jf.models.from_function(f) makes one of f(x, a, b)"
        )
    check_called_with_params(predict, "**" if isinstance(start, dict) else "*")
