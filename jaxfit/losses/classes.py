"""The loss of a classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxfit.keywords import near_keywords
from jaxfit.losses.base import label, leaves_of
from jaxfit.losses.inputs import OfPredictions, as_float, checked, counted, mean_of_rows, predicted, read


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class CrossEntropy(OfPredictions):
    """Made by `softmax_cross_entropy`."""

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        x, y, where = read(self, data)
        logits = predicted(self, params, x, key)
        shares = self._shares(y, logits)
        # A share of zero counts for nothing even where the logit is -inf.
        values = -jnp.sum(jnp.where(shares == 0, 0, shares * jax.nn.log_softmax(logits)), axis=-1)
        return mean_of_rows(counted(values, where), where)

    def _shares(self, y: Array, logits: Array) -> Array:
        """The target's share of each class: (n, classes), NaN for a label that is no class."""
        if y.shape == logits.shape and y.ndim > 1:
            return as_float(y)
        if y.shape != logits.shape[:-1] or not logits.ndim:
            raise ValueError(
                f"{self}: the prediction has shape {logits.shape}, the target y {y.shape}; let predict return logits "
                f"(n, classes), for y give labels (n,) or probabilities (n, classes)"
            )
        if not jnp.issubdtype(y.dtype, jnp.integer):
            raise TypeError(f"{self}: y holds labels of type {y.dtype}; labels must be integers: pass y.astype(int)")
        classes, y = logits.shape[-1], y.astype(int)
        known = (y >= 0) & (y < classes)
        if not isinstance(y, Tracer) and not known.all():
            raise ValueError(
                f"{self}: y holds the label {y[~known][0]}, but predict returns {classes} logits, so that labels must "
                f"lie in 0 .. {classes - 1}: number the classes from 0, or return more logits"
            )
        return jnp.where(jnp.expand_dims(known, -1), jax.nn.one_hot(y, classes, dtype=logits.dtype), jnp.nan)

    def __repr__(self) -> str:
        return f"softmax_cross_entropy({label(self.predict)}{', masked=True' * self.masked})"


@near_keywords
def softmax_cross_entropy(predict: Callable, *, masked: bool = False) -> CrossEntropy:
    """mean over rows of -sum over classes of p * log(softmax(predict(params, x))), in nats.

    Args:
      predict: As for `rss`, but it returns logits (n, classes).
      masked: As for `rss`.

    The target y holds integer labels (n,), counted from 0, or probabilities p (n, classes). A label that is no class
    is a ValueError, or where y is traced a loss of NaN. Other errors as for `rss`.
    """
    return CrossEntropy(*checked(predict, masked))
