"""Curve fitting with defaults: chi-squared and Levenberg-Marquardt, which computes in float64."""

from __future__ import annotations

import dataclasses
import inspect
import reprlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxfit.losses import chi_squared
from jaxfit.optimizers import levenberg_marquardt
from jaxfit.problems.axes import is_axis, refuse_unit
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.problems.problems import Record, Stop
from jaxfit.typing import ArrayLike, OptimizerLike, PyTree
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
    optimizer: OptimizerLike | None = None,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    progress: bool | None = None,
    precision: str | None = None,
) -> Fit:
    """Minimize sum(((predict(params, x) - y) / sigma)**2).

    This is `fit` with the loss `chi_squared` and the optimizer `levenberg_marquardt`.

    Args:
      predict: A function of (params, x) that returns the shape of y.
      start: The params to start from: any pytree, with `Fixed`, `Bounded` and `Tied` at its leaves if wanted. None for
        a curve of `jf.models`, which guesses them from the data.
      data: (x, y).
      sigma: The standard deviation of y: one number, one for each entry, or for y (n,) a covariance matrix (n, n).
        None is the same as 1.
      absolute_sigma: Whether sigma is in the units of y. If True, the standard errors of the params are computed from
        sigma; if False, only the ratios of sigma count, and the scatter of the residuals gives their size. The fit
        keeps this flag; the params do not depend on it.
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
    _check_predict(predict)
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(
            f"data is {reprlib.repr(data)}, but curve_fit takes the pair (x, y); sigma is given apart: "
            f"jf.curve_fit(predict, start, (x, y), sigma=sigma)"
        )
    if any(is_axis(x) for x in jax.tree.leaves((start, data, sigma), is_leaf=is_axis)):
        raise ValueError(
            "curve_fit got an Axis, but runs one problem; call jf.sweep(jf.losses.chi_squared(predict), start, "
            "(x, y, sigma), optimizer=jf.optimizers.levenberg_marquardt())"
        )
    if not isinstance(absolute_sigma, (bool, np.bool_)):
        raise TypeError(f"absolute_sigma is {absolute_sigma!r}, but it must be True or False")
    if absolute_sigma and sigma is None:
        raise ValueError("absolute_sigma is True, but there is no sigma; pass sigma in the units of y")
    refuse_unit("sigma", sigma)
    if not (sigma is None or isinstance(sigma, jax.core.Tracer)) and np.asarray(sigma).dtype.kind not in "iuf":
        raise TypeError(
            f"sigma is {reprlib.repr(sigma)}, but it must be a number or an array of numbers, in units of y"
        )
    x, y = data
    if start is None:
        if not hasattr(predict, "guess"):
            raise TypeError(
                f"start is None, but {reprlib.repr(predict)} guesses nothing, as the curves of jf.models do; give the "
                f"params to start from"
            )
        start = predict.guess(x, y)
    if sigma is None or np.ndim(sigma) == 0:
        one: Any = 1.0 if sigma is None else sigma
        sigma = np.ones(np.shape(y)) * one
    found = fit(
        chi_squared(predict), start, (x, y, sigma), steps=steps, stop=stop, record=record, progress=progress,
        optimizer=levenberg_marquardt() if optimizer is None else optimizer, precision=precision,
    )  # fmt: skip
    return dataclasses.replace(found, absolute_sigma=bool(absolute_sigma))


def _check_predict(predict: Callable) -> None:
    if not callable(predict):
        raise TypeError(
            f"predict is {shown(predict)}, but it must be a function of (params, x), itself and not its values; "
            f"jf.models.from_function(f) makes one of f(x, a, b)"
        )
    try:
        parameters = inspect.signature(predict).parameters.values()
    except (TypeError, ValueError):
        return
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least = [p.name for p in positional if p.default is p.empty and p.name != "key"]
    if len(least) > 2:
        raise TypeError(
            f"predict takes ({', '.join(least)}), but it is called as predict(params, x); wrap it: "
            f"lambda params, x: predict(x, *params), with a dict of params predict(x, **params), or "
            f"jf.models.from_function(predict)"
        )
