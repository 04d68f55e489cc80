"""Losses of counts: the deviance of Poisson and binomial numbers from the means that a model predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.scipy.special import gammaln, xlogy

from jaxfit.losses.base import LIKELIHOOD, Block, NoiseModel, as_float, label, leaves_of
from jaxfit.losses.regression import OfPredictions, beside, checked, counted, difference, predicted, read
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Model, Params, PyTree


class Counts(NamedTuple):
    """What a loss of counts compares; zero, one and zero where masked."""

    residuals: Array  # mean - y
    variance: Array  # of y, if the model is right
    deviance: Callable[[Array], Array]  # of each count, as a function of its residual


@dataclass(frozen=True, eq=False, repr=False)
class Deviance(OfPredictions):
    """A loss sum(d), where d is the deviance of a count: twice the drop of its log-likelihood from mean = y."""

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return jnp.sum(self.pointwise(params, *data, key=key))

    @property
    def knows_residuals(self) -> bool:
        return True

    def pointwise(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return the deviance of each count, in the shape of y."""
        counts = self.counts(params, data, key)
        return counts.deviance(counts.residuals)

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        counts = self.counts(params, data, key)
        return (Block(counts.residuals, 1.0, counts.deviance, counts.variance),)

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return mean - y in the shape of y, zero where masked."""
        return self.counts(params, data, key).residuals

    def noise_model(self) -> NoiseModel:
        return NoiseModel(LIKELIHOOD, sigma=False, additive=True, predicts=True, deviance=True)

    def counts(self, params: Params, data: tuple, key: Array | None = None) -> Counts:
        raise NotImplementedError

    def saturated(self, *data: PyTree) -> Array:
        """Return () minus twice the log-likelihood of means that are the counts themselves."""
        raise NotImplementedError

    def draw(self, key: Array, params: Params, *data: PyTree) -> Array:
        """Return counts like y, drawn from the means at the params."""
        raise NotImplementedError

    def _compared(self, params: Params, data: tuple, key: Array | None) -> tuple[Any, ...]:
        """Return the prediction, y as floats, what follows y in the data, and where."""
        x, y, *more, where = read(self, data)
        prediction = predicted(self, params, x, key)
        difference(self, prediction, y)
        if not isinstance(y, Tracer) and (y < 0).any():
            raise ValueError(
                f"{self}: y holds {y[y < 0].ravel()[0]}, but counts cannot be negative; with a background taken off "
                f"they are no counts any more: fit counts and background together, or chi_squared with a sigma"
            )
        return prediction, as_float(y), *more, where

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({label(self.predict)}{', masked=True' * self.masked})"


def _drop(y: Array, residuals: Array) -> Array:
    """Return y * log((y + residuals) / y): zero for y = 0, -inf where the mean is zero, NaN where it is negative."""
    some = y > 0
    ratio = jnp.log1p(residuals / jnp.where(some, y, 1))
    return jnp.where(some, y * ratio, jnp.where(residuals < 0, jnp.nan, 0))


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Poisson(Deviance):
    """The loss made by `poisson`."""

    def counts(self, params: Params, data: tuple, key: Array | None = None) -> Counts:
        mean, y, where = self._compared(params, data, key)
        variance = mean if where is None else jnp.where(beside(where, y), mean, 1)
        return Counts(
            counted(mean - y, where), variance, lambda r: 2 * (r - _drop(jnp.reshape(y, jnp.shape(r)), r))
        )  # fmt: skip

    def saturated(self, *data: PyTree) -> Array:
        _, y, where = read(self, data)
        y = as_float(y)
        return 2 * jnp.sum(counted(y - xlogy(y, y) + gammaln(y + 1), where))

    def draw(self, key: Array, params: Params, *data: PyTree) -> Array:
        mean, y, where = self._compared(params, data, None)
        drawn = jax.random.poisson(key, mean).astype(y.dtype)
        return drawn if where is None else jnp.where(beside(where, y), drawn, y)


@near_keywords
def poisson(predict: Model, *, masked: bool = False) -> Poisson:
    """Return the Poisson deviance, 2 * sum(m - y + y * log(y / m)) of counts y and their means m = predict(params, x).

    It is twice the drop of the log-likelihood from that of m = y: the Cash statistic, less what no param changes, and
    for large counts chi-squared. It is zero where every mean is its count. Errors of the params are those of the Fisher
    information, sum(grad m grad m^T / m). A mean that is negative makes the loss NaN, and a mean of zero for a count
    above zero makes it infinite: Levenberg-Marquardt takes no such step, but start at positive means. If they are not
    positive by themselves, let the model return exp(...).

    The data are x (n, ...) and counts y (n, ...), not negative; a rate is multiplied by its time in the model.

    Args:
      predict, masked: As for `rss`; it returns means, in counts.

    Raises:
      TypeError, ValueError: As for `rss`; also for a negative y.

    Source: Cash (1979), doi:10.1086/156922; McCullagh and Nelder (1989), Generalized Linear Models, section 6.2.

    Example:
      >>> import jax.numpy as jnp
      >>> x, y = np.arange(4), np.array([3, 0, 2, 3])
      >>> rate = lambda params, x: params["m"] * jnp.ones_like(x)
      >>> lm = jf.optimizers.levenberg_marquardt()
      >>> run = jf.fit(jf.losses.poisson(rate), {"m": 1.0}, (x, y), optimizer=lm, steps=50)
      >>> round(float(run.params["m"]), 6), round(float(jf.standard_errors(run)["m"]), 6)  # 2 and sqrt(2 / 4)
      (2.0, 0.707107)
    """
    return Poisson(*checked(predict, masked))


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Binomial(Deviance):
    """The loss made by `binomial`."""

    DATA = ("x", "y", "trials")

    def counts(self, params: Params, data: tuple, key: Array | None = None) -> Counts:
        p, y, trials, where = self._compared(params, data, key)
        trials = _trials(self, y, trials, where)
        variance = trials * p * (1 - p)
        if where is not None:
            variance = jnp.where(beside(where, y), variance, 1)

        def deviance(r):
            hits, misses = (jnp.reshape(x, jnp.shape(r)) for x in (y, trials - y))
            return -2 * (_drop(hits, r) + _drop(misses, -r))

        return Counts(counted(trials * p - y, where), variance, deviance)

    def saturated(self, *data: PyTree) -> Array:
        _, y, trials, where = read(self, data)
        y = as_float(y)
        n = _trials(self, y, trials, where)
        ways = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
        return -2 * jnp.sum(counted(ways + xlogy(y, y) + xlogy(n - y, n - y) - xlogy(n, n), where))

    def draw(self, key: Array, params: Params, *data: PyTree) -> Array:
        p, y, trials, where = self._compared(params, data, None)
        drawn = jax.random.binomial(key, _trials(self, y, trials, where), p)
        return drawn if where is None else jnp.where(beside(where, y), drawn, y)


def _trials(loss: Binomial, y: Array, trials: Array, where: Array | None) -> Array:
    """Return the trials as floats, at least y."""
    if trials.shape != y.shape:
        raise ValueError(
            f"{loss}: trials has shape {trials.shape} and y {y.shape}; give the number of trials behind each entry of "
            f"y: for one shared by all pass np.full({y.shape}, trials)"
        )
    if where is not None:
        trials = jnp.where(beside(where, y), trials, y)
    if not isinstance(trials, Tracer) and not isinstance(y, Tracer) and (trials < y).any():
        raise ValueError(
            f"{loss}: y holds {y[trials < y].ravel()[0]:g} successes of {trials[trials < y].ravel()[0]:g} trials; "
            f"there cannot be more: the data are (x, y, trials), in this order"
        )
    return as_float(trials)


@near_keywords
def binomial(predict: Model, *, masked: bool = False) -> Binomial:
    """Return the binomial deviance, 2 * sum(y * log(y / (n p)) + (n - y) * log((n - y) / (n - n p))).

    The data are (x, y, trials): y successes in n = trials, both of one shape, and p = predict(params, x) is the chance
    of a success, between 0 and 1: let the model return jax.nn.sigmoid(...) for a logistic regression. Yes-or-no data
    have trials of one. Errors of the params are those of the Fisher information, sum(n grad p grad p^T / (p (1 - p))).
    A chance outside of [0, 1] makes the loss NaN.

    Args:
      predict, masked: As for `rss`; it returns chances. Masked data are (x, y, trials, where).

    Raises:
      TypeError, ValueError: As for `rss`; also for a negative y, or more successes than trials.

    Source: McCullagh and Nelder (1989), Generalized Linear Models, section 4.4.

    Example:
      >>> import jax
      >>> dose, deaths, beetles = np.array([1.0, 2.0, 3.0]), np.array([2, 5, 9]), np.array([10, 10, 10])
      >>> chance = lambda params, x: jax.nn.sigmoid(params["a"] + params["b"] * x)
      >>> lm = jf.optimizers.levenberg_marquardt()
      >>> loss = jf.losses.binomial(chance)
      >>> run = jf.fit(loss, {"a": 0.0, "b": 0.0}, (dose, deaths, beetles), optimizer=lm, steps=50)
      >>> round(float(run.params["b"]), 4), round(float(jf.standard_errors(run)["b"]), 4)
      (1.7485, 0.6309)
    """
    return Binomial(*checked(predict, masked))
