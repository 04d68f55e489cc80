"""Noise on the inputs, drawn in every step."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxfit.losses.base import Loss, Sum, as_array, as_float, is_masked, leaves_of, number, takes_key, terms_of
from jaxfit.problems.messages import near_keywords


@leaves_of("loss", "scale")
@dataclass(frozen=True, eq=False, repr=False)
class InputNoise(Loss):
    """The loss made by `input_noise`."""

    loss: Loss
    scale: Any

    @property
    def data_names(self) -> tuple[str, ...]:
        return self.loss.data_names

    @property
    def by_row(self) -> bool:
        return self.loss.by_row

    @property
    def masked(self) -> bool:
        return is_masked(self.loss)

    @property
    def takes_arrays(self) -> bool:
        return self.loss.takes_arrays

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (_noise, *self.loss.functions)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        if key is None:
            raise TypeError(
                f"{self} draws noise, for which it needs a key: pass key=jax.random.key(0), or to fit key=0"
            )
        if not data:
            raise TypeError(f"{self} takes the data ({', '.join(self.data_names)}), but got none")
        given = {"key": jax.random.fold_in(key, 1)} if takes_key(self.loss) else {}
        return self.loss(params, _noise(self.scale, data[0], key), *data[1:], **given)

    def __repr__(self) -> str:
        return f"input_noise({self.loss!r}, scale={self.scale!r})"


def _noise(scale: Any, x: Any, key: Array) -> Array:
    x = as_float(as_array("x", x))
    return x + scale * jax.random.normal(jax.random.fold_in(key, 0), x.shape, x.dtype)


@near_keywords
def input_noise(loss: Callable, *, scale: float) -> InputNoise:
    """Return a loss with noise on its inputs: loss(params, x + scale * z, ...) with new z from N(0, 1) in every step.

    Noise on the inputs reduces overfitting. Averaged over the noise, a small scale adds the penalty
    scale**2 * mean(slope**2) to a mean squared error near its minimum, where the slope is that of the predictions by x.
    The loss takes a key, so fits and sweeps of it need one. Their final loss and validation loss contain the noise too:
    to see the loss without noise, record it as a function.

    Args:
      loss: A loss, or a function of (params, x, ...), whose first data are an array of numbers.
      scale: Standard deviation of the noise in the unit of x; zero or more. A leaf.

    Raises:
      TypeError: If `loss` cannot be called or hashed, or takes no data, or `scale` cannot be a number; when called,
        if there is no key.
      ValueError: If `scale` is a number and negative, NaN or infinite.

    Source: Bishop (1995), doi:10.1162/neco.1995.7.1.108.

    Example:
      >>> jf.losses.input_noise(jf.losses.mse(jf.models.line), scale=0.1)
      input_noise(mse(line), scale=0.1)
    """
    if not callable(loss):
        raise TypeError(f"loss is {reprlib.repr(loss)}, which cannot be called; pass a loss such as mse(line)")
    terms = terms_of(loss)
    inner = terms[0] if len(terms) == 1 else Sum(terms)
    if not inner.data_names:
        raise TypeError(f"loss is {loss!r}, which takes no data to add noise to; wrap the loss of the data instead")
    return InputNoise(inner, number("scale", scale, "zero or more"))
