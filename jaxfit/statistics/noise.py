"""What a loss says about the noise of the data: where the size of the errors of the params comes from.

Squares: the loss is a sum (or mean) of squares of residuals. Either these are in units of their standard deviation
(sigma is absolute), or their scatter around the fit tells it: s**2 = sum(r**2) / (n - k).
Robust: residuals in a Huber loss; the scatter of their slopes tells it.
Likelihood: the loss is a mean of negative log-likelihoods; its second derivative tells it.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxfit.fits import Fit
from jaxfit.losses import ChiSquared, CrossEntropy, InputNoise, LeastSquares, Loss, Residual, Sum, takes_key
from jaxfit.markers import is_axis

SQUARES, ROBUST, LIKELIHOOD = "squares", "robust", "likelihood"
_OWN = "write the residuals as a function and fit jf.losses.least_squares(residuals)"


def kind_of(verb: str, loss: Any) -> str:
    """Of the three kinds above, which a loss is.

    Raises:
      TypeError: If it is none, with what to use instead.
    """
    if is_axis(loss):
        raise TypeError(f"{verb}: the loss is an axis; take one lane: jf.lane(grid, ...)")
    if isinstance(loss, InputNoise) or (isinstance(loss, Loss) and takes_key(loss)):
        raise TypeError(f"{verb}: {loss} is random, so that its minimum is not a point; fit the loss without noise")
    terms = loss.terms if isinstance(loss, Sum) else (loss,)
    if all(isinstance(term, (ChiSquared, LeastSquares)) or _is(term, "rss") for term in terms):
        return SQUARES
    if len(terms) == 1 and isinstance(loss, Residual):
        if loss.kind == "mse":
            return SQUARES
        if loss.kind == "huber":
            return ROBUST
        raise TypeError(
            f"{verb}: the second derivative of {loss} is zero wherever it exists, so that it has no curvature to read "
            f"errors from; fit jf.losses.huber with a small delta, or use jf.bootstrap on a fit of that"
        )
    if isinstance(loss, CrossEntropy):
        return LIKELIHOOD
    if isinstance(loss, Sum):
        raise TypeError(
            f"{verb}: {loss} adds a penalty, or means of different data, to a loss; a penalty pulls params away from "
            f"what the data say, and a standard error would not tell by how much. Fit without it, or make it a "
            f"measurement: a residual (param - expected) / sigma in jf.losses.least_squares"
        )
    raise TypeError(
        f"{verb} needs to know the noise behind the loss, which {getattr(loss, '__name__', loss)} does not tell; "
        f"{_OWN}, or use jf.losses.rss, mse, huber, chi_squared or softmax_cross_entropy"
    )


def _is(term: Any, kind: str) -> bool:
    return isinstance(term, Residual) and term.kind == kind


def is_absolute(verb: str, result: Any, loss: Any, asked: bool | None) -> bool:
    """Whether the residuals are in units of their standard deviation.

    As asked; else as the fit was told (`curve_fit`); else whether the loss has a sigma (`chi_squared`).

    Raises:
      TypeError: If what was asked is not a boolean.
      ValueError: If it is asked for a loss whose residuals have no such unit.
    """
    kind = kind_of(verb, loss)
    if asked is not None:
        if not isinstance(asked, (bool, np.bool_)):
            raise TypeError(f"{verb}: absolute_sigma is {asked!r}, but it must be True, False or None")
        if asked and kind != SQUARES:
            raise ValueError(
                f"{verb}: absolute_sigma is True, but {loss} has no sigma; leave it out, or fit jf.losses.chi_squared"
            )
        if asked and isinstance(loss, Residual):
            raise ValueError(
                f"{verb}: absolute_sigma is True, but there is no sigma in {loss}; fit jf.losses.chi_squared with "
                f"(x, y, sigma), or leave it out"
            )
        return bool(asked) or kind == LIKELIHOOD
    told = result.absolute_sigma if isinstance(result, Fit) else None
    if told is not None:
        return told
    terms = loss.terms if isinstance(loss, Sum) else (loss,)
    return kind == LIKELIHOOD or all(isinstance(term, ChiSquared) for term in terms)


def counted(loss: Any, data: tuple, residuals: Any) -> Any:
    """How many of the residuals (or of the rows, for a likelihood) count."""
    if getattr(loss, "masked", False):
        where = data[loss.data_names.index("where")]
        return jnp.sum(where) * (residuals.size // where.size)
    return residuals.size


def points(loss: Any, data: tuple) -> Any:
    """Which residuals count, in y's shape; None if all do."""
    if not getattr(loss, "masked", False):
        return None
    where, y = (data[loss.data_names.index(name)] for name in ("where", "y"))
    return jnp.broadcast_to(jnp.expand_dims(where, tuple(range(1, y.ndim))), y.shape)
