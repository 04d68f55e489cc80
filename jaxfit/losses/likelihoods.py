"""Losses that are likelihoods or sums of squares: chi-squared, cross-entropy, counts, and functions of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.scipy.special import gammaln, xlogy

from jaxfit.datasets import as_numbers
from jaxfit.losses.base import (
    LIKELIHOOD,
    SQUARES,
    Block,
    Loss,
    NoiseModel,
    OfFunction,
    as_float,
    hashable,
    key_for,
    label,
    leaves_of,
)
from jaxfit.losses.regression import (
    OfPredictions,
    beside,
    checked,
    difference,
    mean_of_rows,
    predicted,
    read,
    zero_where_masked,
)
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Model, Params, PyTree


class SumOfSquares(Loss):
    """The loss sum(residuals**2); subclasses define the residuals."""

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return jnp.sum(jnp.square(self.residuals(params, *data, key=key)))

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        return (Block(self.residuals(params, *data, key=key), 1.0),)

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        raise NotImplementedError


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class ChiSquared(OfPredictions, SumOfSquares):
    """The loss made by `chi_squared`."""

    DATA = ("x", "y", "sigma")

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return (prediction - y) / sigma like y, or L^-1 (prediction - y) with L L^T = covariance; zero if masked."""
        x, y, sigma, where = read(self, data)
        apart, sigma = difference(self, predicted(self, params, x, key), y), as_float(sigma)
        if y.ndim == 1 and sigma.shape == y.shape * 2:
            if where is not None:
                together = where[:, None] & where[None, :]
                sigma = jnp.where(together, sigma, jnp.eye(len(y), dtype=sigma.dtype))
                apart = zero_where_masked(apart, where)
            return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(sigma), apart, lower=True)
        if sigma.shape != y.shape:
            raise ValueError(
                f"{self}: sigma has shape {sigma.shape} and y {y.shape}; sigma is one standard deviation for each "
                f"entry of y{', or a covariance matrix of shape ' + str(y.shape * 2) if y.ndim == 1 else ''}: for one "
                f"shared by all pass np.full({y.shape}, sigma)"
            )
        if where is None:
            return apart / sigma
        return zero_where_masked(apart / jnp.where(beside(where, y), sigma, 1), where)

    def noise_model(self) -> NoiseModel:
        return NoiseModel(SQUARES, sigma=True, additive=True, predicts=True)

    def __repr__(self) -> str:
        return f"chi_squared({label(self.predict)}{', masked=True' * self.masked})"


@near_keywords
def chi_squared(predict: Model, *, masked: bool = False) -> ChiSquared:
    """Return the loss chi-squared, sum(r**2) with r = (predict(params, x) - y) / sigma.

    The data are (x, y, sigma) with sigma like y, or with y (n,) a covariance matrix (n, n) in its place: then
    r = L^-1 (predict(params, x) - y), where L L^T is the covariance.

    Args:
      predict: As for `rss`.
      masked: Whether the data are (x, y, sigma, where); rows where it is False count for nothing, as for `rss`.

    Raises:
      TypeError, ValueError: As for `rss`; also for a sigma of another shape.

    Example:
      >>> loss = jf.losses.chi_squared(jf.models.line)
      >>> x, y, sigma = np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([0.5, 0.5])
      >>> float(loss({"w": 2.0, "b": 0.0}, x, y, sigma))
      4.0
    """
    return ChiSquared(*checked(predict, masked))


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class LeastSquares(OfFunction, SumOfSquares):
    """The loss made by `least_squares`."""

    def noise_model(self) -> NoiseModel:
        return NoiseModel(SQUARES, additive=True)

    def residuals(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return the result of the function as one array."""
        residuals = self.function(params, *data, **key_for(self, key))
        if not hasattr(residuals, "shape"):
            raise TypeError(
                f"{self}: the function returned a {type(residuals).__name__}, but it must return one array of "
                f"residuals; join several with jnp.concatenate"
            )
        return as_float(as_numbers("residuals", residuals))

    def __repr__(self) -> str:
        return f"least_squares({label(self.function)})"


@near_keywords
def least_squares(residuals: Callable) -> LeastSquares:
    """Return the loss sum(residuals(params, *data)**2) of a residual function.

    Args:
      residuals: A hashable function of (params, *data), optionally with an argument `key`, that returns one array.

    Raises:
      TypeError: If it cannot be called or hashed; when called, if it returns anything but one array.

    Example:
      >>> loss = jf.losses.least_squares(lambda p, y: p["a"] - y)
      >>> float(loss({"a": 1.0}, np.array([1.0, 3.0])))
      4.0
    """
    return LeastSquares(hashable("residuals", residuals))


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Likelihood(OfFunction):
    """The loss made by `likelihood`."""

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return jnp.sum(self.pointwise(params, *data, key=key))

    def pointwise(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return minus the log-likelihood of each point."""
        log_density = self.function(params, *data, **key_for(self, key))
        if not hasattr(log_density, "shape"):
            raise TypeError(
                f"{self}: the function returned a {type(log_density).__name__}, but it must return one array: the "
                f"log-likelihood of each point"
            )
        return -as_float(as_numbers("log-likelihood", log_density))

    def noise_model(self) -> NoiseModel:
        return NoiseModel(LIKELIHOOD, additive=True)

    def __repr__(self) -> str:
        return f"likelihood({label(self.function)})"


@near_keywords
def likelihood(log_density: Callable) -> Likelihood:
    """Return the loss -sum(log_density(params, *data)): the negative log-likelihood of independent points, in nats.

    Errors of the params are those of the observed information, the second derivative of the loss. Params that a
    density allows on one side only, such as a width, are kept there by `jf.Bounded`, or are logarithms. A loss of a
    sum of squares, or of counts, is minimized in fewer steps by its own name; this one by `jf.optimizers.lbfgs()`.

    Args:
      log_density: A hashable function of (params, *data) that returns log p of each point (n,), or of all of them ().

    Raises:
      TypeError: If it cannot be called or hashed; when called, if it returns anything but one array.

    Source: Fisher (1922), doi:10.1098/rsta.1922.0009; Efron and Hinkley (1978), doi:10.1093/biomet/65.3.457, for the
    observed information.

    Example:
      >>> import jax
      >>> waits = np.array([0.5, 1.0, 1.5, 3.0])
      >>> loss = jf.losses.likelihood(lambda p, t: jax.scipy.stats.expon.logpdf(t, scale=p["tau"]))
      >>> lbfgs = jf.optimizers.lbfgs()
      >>> run = jf.fit(loss, {"tau": 1.0}, (waits,), optimizer=lbfgs, precision="float64")
      >>> round(float(run.params["tau"]), 6), round(float(jf.standard_errors(run)["tau"]), 6)  # 1.5 and 1.5 / sqrt(4)
      (1.5, 0.75)
    """
    return Likelihood(hashable("log_density", log_density))


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class CrossEntropy(OfPredictions):
    """The loss made by `softmax_cross_entropy`."""

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        x, y, where = read(self, data)
        logits = predicted(self, params, x, key)
        shares = self._shares(y, logits)
        # A share of zero counts for nothing even where the logit is -inf.
        values = -jnp.sum(jnp.where(shares == 0, 0, shares * jax.nn.log_softmax(logits)), axis=-1)
        return mean_of_rows(zero_where_masked(values, where), where)

    def noise_model(self) -> NoiseModel:
        return NoiseModel(LIKELIHOOD)

    def _shares(self, y: Array, logits: Array) -> Array:
        """Return the target's share of each class: (n, classes), NaN for a label that is no class."""
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
def softmax_cross_entropy(predict: Model, *, masked: bool = False) -> CrossEntropy:
    """Return the cross-entropy in nats: mean over rows of -sum over classes of p * log(softmax(predict(params, x))).

    The target y holds integer labels (n,), counted from 0, or probabilities p (n, classes). A label outside of the
    classes is a ValueError, or if y is traced a loss of NaN.

    Args:
      predict: As for `rss`, but it returns logits (n, classes).
      masked: As for `rss`.

    Raises:
      TypeError, ValueError: As for `rss`; also for labels outside of the classes.

    Example:
      >>> loss = jf.losses.softmax_cross_entropy(lambda params, x: x * params)
      >>> logits, labels = np.zeros((2, 3)), np.array([0, 2])
      >>> round(float(loss(1.0, logits, labels)), 4)
      1.0986
    """
    return CrossEntropy(*checked(predict, masked))


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
            zero_where_masked(mean - y, where), variance, lambda r: 2 * (r - _drop(jnp.reshape(y, jnp.shape(r)), r))
        )  # fmt: skip

    def saturated(self, *data: PyTree) -> Array:
        _, y, where = read(self, data)
        y = as_float(y)
        return 2 * jnp.sum(zero_where_masked(y - xlogy(y, y) + gammaln(y + 1), where))

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

        return Counts(zero_where_masked(trials * p - y, where), variance, deviance)

    def saturated(self, *data: PyTree) -> Array:
        _, y, trials, where = read(self, data)
        y = as_float(y)
        n = _trials(self, y, trials, where)
        ways = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
        return -2 * jnp.sum(zero_where_masked(ways + xlogy(y, y) + xlogy(n - y, n - y) - xlogy(n, n), where))

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
