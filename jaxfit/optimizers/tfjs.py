"""The optimizers of TensorFlow.js, with its names, arguments, defaults and arithmetic: `jf.optimizers.tfjs.sgd(0.1)`.

A ported script gives the losses of `tf.train` step by step. An `epsilon` of None is 1e-7, as with its backends of 32
bits. In the formulas g is the gradient at step t = 1, 2, ... Each number may be an `Axis` or a schedule.

What one would not guess: the rate of `momentum` comes after the momentum, that of `rmsprop` before it; `adadelta`
divides by the running mean before the update, which makes it plain gradient descent; `rmsprop` with `centered` takes
the root of a number that turns negative where the gradient is steady, and then all is NaN. In `model.compile`,
"adadelta" has the rate 1, "adagrad" and "sgd" 0.01, "adamax" 0.002, "adam" and "rmsprop" 0.001. Checked against
tfjs 4.22.0 to 1e-6 over 50 steps.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxfit.optimizers.recurrences import (
    carried,
    complement,
    each_array,
    filled,
    is_off,
    mean_with,
    moments,
    rule_of,
    squares,
    zeros,
)
from jaxfit.problems.messages import near_names
from jaxfit.typing import Scalar

_rule = rule_of("tfjs", "learningRate")


def _or_default(epsilon: Scalar | None) -> Scalar:
    return 1e-7 if epsilon is None else epsilon


@_rule
def sgd(learningRate: Scalar):
    """Return tf.train.sgd: params - learningRate * g.

    Example:
      >>> float(jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.tfjs.sgd(0.25)).params)
      1.5
    """
    return each_array(zeros(0), lambda t, g, p: (p - learningRate * g,))


@_rule
def momentum(learningRate: Scalar, momentum: Scalar, useNesterov: bool = False):
    """Return tf.train.momentum, which multiplies by the rate after the momentum.

    buf = momentum * buf + g; params - learningRate * buf, or with `useNesterov` learningRate * (g + momentum * buf).

    Example:
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.tfjs.momentum(0.25, 0.5), steps=2)
      >>> float(run.params)
      0.0
    """

    def step(t, g, p, buf):
        buf = momentum * buf + g
        return p - learningRate * (g + momentum * buf if useNesterov else buf), buf

    return each_array(zeros(1), step)


@_rule
def adagrad(learningRate: Scalar, initialAccumulatorValue: Scalar = 0.1):
    """Return tf.train.adagrad, whose sum starts at 0.1, with 1e-7 inside the root.

    s = s + g**2; params - learningRate * g / sqrt(s + 1e-7).

    Example:
      >>> jf.optimizers.tfjs.adagrad(0.1)
      tfjs.adagrad(learning_rate=0.1)
    """

    def step(t, g, p, s):
        s = s + g * g
        return p - learningRate * g / jnp.sqrt(s + 1e-7), s

    return each_array(filled(initialAccumulatorValue), step)


@_rule
def adadelta(learningRate: Scalar = 0.001, rho: Scalar = 0.95, epsilon: Scalar | None = None):
    """Return tf.train.adadelta, which is plain gradient descent.

    move = sqrt(b + epsilon) / sqrt(a + epsilon) * g with the running means a and b of g**2 and move**2 before the
    update, which are equal; params - learningRate * move.

    Example:
      >>> float(jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.tfjs.adadelta(0.25)).params)
      1.5
    """
    eps = _or_default(epsilon)

    def step(t, g, p, a, b):
        move = jnp.sqrt(b + eps) / jnp.sqrt(a + eps) * g
        return p - learningRate * move, mean_with(a, rho, g * g), mean_with(b, rho, move * move)

    return each_array(zeros(2), step)


@_rule
def adam(learningRate: Scalar = 0.001, beta1: Scalar = 0.9, beta2: Scalar = 0.999, epsilon: Scalar | None = None):
    """Return tf.train.adam: epsilon 1e-7, added after the root is corrected.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
    params - learningRate * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon).

    Example:
      >>> after = jf.step(lambda p: 1e-8 * p, 1.0, optimizer=jf.optimizers.tfjs.adam(0.1), precision="float64")
      >>> round(1 - float(after.params), 5)
      0.00909
    """
    eps = _or_default(epsilon)

    def step(t, g, p, m, v):
        m, v = moments(m, v, (beta1, beta2), g)
        return p - learningRate * m / complement(beta1, t) / (jnp.sqrt(v / complement(beta2, t)) + eps), m, v

    return each_array(zeros(2), step)


@_rule
def adamax(
    learningRate: Scalar = 0.002, beta1: Scalar = 0.9, beta2: Scalar = 0.999, epsilon: Scalar | None = None,
    decay: Scalar = 0.0,
):  # fmt: skip
    """Return tf.train.adamax, whose rate falls as learningRate / (1 + (t - 1) * decay).

    u = max(beta2 * u, |g|); params - rate * m / (1 - beta1**t) / (u + epsilon), m as in `adam`.

    Example:
      >>> jf.optimizers.tfjs.adamax(0.1)
      tfjs.adamax(learning_rate=0.1)
    """
    eps = _or_default(epsilon)

    def step(t, g, p, m, u):
        m, u = mean_with(m, beta1, g), jnp.maximum(beta2 * u, jnp.abs(g))
        rate = learningRate / (1 + (t - 1) * decay)
        return p - rate / complement(beta1, t) * m / (u + eps), m, u

    return each_array(zeros(2), step)


@_rule
def rmsprop(
    learningRate: Scalar, decay: Scalar = 0.9, momentum: Scalar = 0.0, epsilon: Scalar | None = None,
    centered: bool = False,
):  # fmt: skip
    """Return tf.train.rmsprop: epsilon inside the root, the rate before the momentum.

    v = decay * v + (1 - decay) * g**2; buf = momentum * buf + learningRate * g / sqrt(v + epsilon); params - buf. With
    `centered` the root is of v - (mean**2 + epsilon), with a running mean of g.

    Example:
      >>> jf.optimizers.tfjs.rmsprop(0.1)
      tfjs.rmsprop(learning_rate=0.1)
    """
    eps = _or_default(epsilon)

    def step(t, g, p, v, mean, *buf):
        v, mean = squares(v, mean, decay, g, centered)
        move = learningRate * g / jnp.sqrt(v - (mean * mean + eps) if centered else v + eps)
        move = carried(move, momentum, buf)
        return p - move, v, mean, *[move for _ in buf]

    return each_array(zeros(2 if is_off(momentum) else 3), step)


__all__ = ["adadelta", "adagrad", "adam", "adamax", "momentum", "rmsprop", "sgd"]
__getattr__, __dir__ = near_names(__name__, __all__, f"There are: {', '.join(__all__)}")
