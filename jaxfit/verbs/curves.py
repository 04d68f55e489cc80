"""Curve fitting with defaults: chi-squared and Levenberg-Marquardt, which computes in float64."""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfit.losses import arctan, cauchy, chi_squared, huber, orthogonal_distance, soft_l1, tukey
from jaxfit.losses.base import label
from jaxfit.losses.regression import SCALE, check_called_with_params
from jaxfit.optimizers import levenberg_marquardt
from jaxfit.problems import Record, Status, Stop
from jaxfit.problems.axes import is_axis, refuse_unit
from jaxfit.problems.foreign import is_hidden, is_uncertain, nominal
from jaxfit.problems.marks import put
from jaxfit.problems.messages import did_you_mean, near_keywords, shown
from jaxfit.typing import ArrayLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs.fits import fit
from jaxfit.verbs.results import Fit
from jaxfit.verbs.units import fit_quantities, holds_quantity


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
    loss: str = "linear",
    delta: float | None = None,
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
      loss: "linear" for least squares, or a robust loss of `jf.losses`, under which outliers count less or for nothing:
        "huber", "soft_l1", "cauchy", "arctan", "tukey".
      delta: With a robust loss the size of a residual where it leaves the square, in the unit of y. None: a multiple of
        the scale of the residuals s = 1.4826 * median(|r|), by which it is 95 % as efficient as least squares where
        all noise is normal: huber 1.345 s, soft_l1 1.287 s, cauchy 2.385 s, arctan 2.571 s, tukey 4.685 s. Scale and
        fit are computed in turns, first with huber, until the scale settles; the fit returned is the last one.
      optimizer, steps, stop, record, progress, precision: As for `fit`; by default Levenberg-Marquardt, and so float64.

    Returns:
      A `Fit` whose loss is chi-squared, or the robust loss with its delta. The errors of the latter are those of
      Huber's formula, a sandwich estimator, see `covariance`; its outliers stand in the report and are marked in
      `jf.plots.fit`.

      With quantities of pint or astropy in start, data and sigma (and of each that goes with them), a fit whose params
      and predictions are quantities too, and so are its `standard_errors`, `intervals` and `report`; its `.fit` is the
      `Fit` in base units, for all else. The model computes with numbers in base units.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles. Of units that do not fit it names the operation of
        the model where they break, such as the exponential of a time.

    Source: Holland and Welsch (1977), doi:10.1080/03610927708827533, for the multiples and the scale.

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
    if holds_quantity(start, data, sigma, x_sigma, delta):
        how = {
            "sigma": sigma, "absolute_sigma": absolute_sigma, "x_sigma": x_sigma, "correlation": correlation,
            "loss": loss, "delta": delta, "optimizer": optimizer, "steps": steps, "stop": stop, "record": record,
            "progress": progress, "precision": precision,
        }  # fmt: skip
        return fit_quantities(curve_fit, predict, start, tuple(data), how)  # pyright: ignore[reportReturnType]
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
                f"start is None, but {label(predict)} guesses nothing, as the curves of jf.models do; give the params "
                f"to start from"
            )
        start = predict.guess(*_that_count(x, y))
    how = {
        "steps": steps, "stop": stop, "record": record, "progress": progress, "precision": precision,
        "optimizer": _usual() if optimizer is None else optimizer,
    }  # fmt: skip
    if loss != "linear":
        given = {"sigma": sigma, "x_sigma": x_sigma}
        return _robust(predict, start, (x, y), loss, delta, [name for name in given if given[name] is not None], how)
    if delta is not None:
        raise ValueError('delta is given, but the loss is "linear"; pass loss="huber" or another robust one with it')
    if sigma is None or np.ndim(sigma) == 0:
        one: Any = 1.0 if sigma is None else sigma
        sigma = np.ones(np.shape(y)) * one
    squares, more = chi_squared(predict), ()
    if x_sigma is not None:
        squares = orthogonal_distance(predict, correlated=correlation is not None)
        more = tuple(_for_each_point(*given, np.shape(y)) for given in errors_in_x if given[1] is not None)
    run = fit(squares, start, (x, y, sigma, *more), **how)
    return dataclasses.replace(run, absolute_sigma=bool(absolute_sigma))


_usual = functools.cache(levenberg_marquardt)
ROBUST = {  # by name the loss, and the delta in scales that makes it 95 % as efficient under normal noise
    "huber": (huber, 1.345), "soft_l1": (soft_l1, 1.287), "cauchy": (cauchy, 2.385), "arctan": (arctan, 2.571),
    "tukey": (tukey, 4.685),
}  # fmt: skip
SETTLED, ROUNDS = 1e-6, 50  # a change of the scale, relative to it


def _robust(
    predict: Callable, start: PyTree, data: tuple, name: str, delta: float | None, with_errors: list[str], how: dict
) -> Fit:
    """Return a fit by a robust loss, whose delta comes from the scale of its own residuals if None is given."""
    if name not in ROBUST:
        near = did_you_mean(str(name), list(ROBUST))
        raise ValueError(f"loss is {name!r}{near} It is 'linear' or one of {', '.join(map(repr, ROBUST))}")
    if with_errors:
        raise ValueError(
            f"{with_errors[0]} is given with the loss {name!r}, whose residuals have one scale, which they show; leave "
            f"it out, or fit jf.losses.least_squares of residuals over sigma"
        )
    make, multiple = ROBUST[name]
    if delta is not None:
        return fit(make(predict, delta=delta), start, data, **how)
    y = np.ma.asarray(data[1], float)
    scale = float(SCALE * np.ma.median(abs(y - np.ma.median(y))))
    run: Any = None
    for stage, times in dict.fromkeys([(huber, 1.345), (make, multiple)]):
        for _ in range(ROUNDS):
            scale = max(scale, 8 * np.finfo(float).eps * float(abs(y).max()), np.finfo(float).tiny)
            run = fit(stage(predict, delta=times * scale), start, data, **how)
            if run.status in (Status.DIVERGED, Status.NOT_FINITE):
                return run
            start, last = put(start, run.params), scale
            scale = float(SCALE * np.ma.median(abs(y - run.predict(data[0]))))
            if abs(scale - last) <= SETTLED * last:
                break
    return run


def _for_each_point(name: str, value: Scalar, rule: str, good: Callable, shape: tuple[int, ...]) -> ArrayLike:
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
        from jaxfit import models  # a single fit does without

        ours = isinstance(predict, str) and predict in models.__all__
        remedy = f"write jf.models.{predict}" if ours else "jf.models.from_function(f) makes one of f(x, a, b)"
        raise TypeError(
            f"predict is {shown(predict)}, but it must be a function of (params, x), itself and not its values; "
            f"{remedy}"
        )
    check_called_with_params(predict, "**" if isinstance(start, dict) else "*")
