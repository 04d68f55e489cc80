"""The optimizers of PyTorch, with its names, arguments, defaults and arithmetic: `jf.optimizers.torch.SGD(lr=0.1)`.

A ported script gives the losses of `torch.optim` step by step. Left out are the params, and what says how PyTorch
computes (foreach, fused, ...). Each number may be an `Axis` or a schedule, where PyTorch changes `group["lr"]`. In the
formulas g is the gradient at step t = 1, 2, ...; `weight_decay` * params is added to it first, unless it is said to be
decoupled, which multiplies the params by 1 - lr * weight_decay first.

Beside Optax and Keras: eps stands outside the root, also in RMSprop and Adagrad, whose sum starts at 0; momentum comes
before the rate, so that a change of rate acts at once; AMSGrad takes the maximum before the correction; NAdam has its
momentum schedule. Checked against torch 2.13.0 to 1e-6 over 50 steps. Not here: LBFGS (`jf.optimizers.lbfgs`),
SparseAdam, and Muon, which rounds to bfloat16.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxfit.optimizers.methods import Traits
from jaxfit.optimizers.recurrences import (
    carried,
    complement,
    each_array,
    factored,
    factors,
    filled,
    is_off,
    mean_with,
    moments,
    rms,
    rule_of,
    squares,
    zeros,
)
from jaxfit.problems.messages import near_names
from jaxfit.typing import Number, Scalar

_rule = rule_of("torch", "lr")


def _decayed(g: Array, p: Array, lr: Number, weight_decay: Number, decoupled: bool = False) -> tuple[Array, Array]:
    """Return the gradient and the params with weight decay in one of them."""
    if is_off(weight_decay):
        return g, p
    return (g, p * (1 - lr * weight_decay)) if decoupled else (g + weight_decay * p, p)


@_rule
def SGD(
    lr: Scalar = 1e-3, momentum: Scalar = 0.0, dampening: Scalar = 0.0, weight_decay: Scalar = 0.0,
    nesterov: bool = False,
):  # fmt: skip
    """Return torch.optim.SGD, which multiplies by the rate after the momentum.

    buf = momentum * buf + (1 - dampening) * g, at first g; params - lr * buf, or with `nesterov` lr * (g + momentum *
    buf).

    Example:
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.torch.SGD(lr=0.25, momentum=0.5), steps=2)
      >>> float(run.params)
      0.0
    """
    plain = is_off(momentum)

    def step(t, g, p, *kept):
        g, p = _decayed(g, p, lr, weight_decay)
        if plain:
            return (p - lr * g,)
        buf = jnp.where((t == 1) | (momentum == 0), g, momentum * kept[0] + (1 - dampening) * g)
        return p - lr * (g + momentum * buf if nesterov else buf), buf

    return each_array(zeros(0 if plain else 1), step)


@_rule
def Adam(
    lr: Scalar = 1e-3, betas: tuple[Scalar, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0,
    amsgrad: bool = False, *, decoupled_weight_decay: bool = False,
):  # fmt: skip
    """Return torch.optim.Adam.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
    params - lr * m / (1 - beta1**t) / (sqrt(v) / sqrt(1 - beta2**t) + eps). With `amsgrad` the largest v so far.

    Example:
      >>> jf.optimizers.torch.Adam(lr=0.1, betas=(0.9, 0.99))
      torch.Adam(learning_rate=0.1, betas=(0.9, 0.99))
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay)


@_rule
def AdamW(
    lr: Scalar = 1e-3, betas: tuple[Scalar, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
):  # fmt: skip
    """Return torch.optim.AdamW: `Adam` with decoupled weight decay, by default 0.01 (Keras 0.004, Optax 0.0001).

    Example:
      >>> jf.optimizers.torch.AdamW(lr=0.1)
      torch.AdamW(learning_rate=0.1)
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, True)


def _adam(lr: Any, betas: tuple, eps: Any, weight_decay: Any, amsgrad: bool, decoupled: bool):
    beta1, beta2 = betas

    def step(t, g, p, m, v, *most):
        g, p = _decayed(g, p, lr, weight_decay, decoupled)
        m, v = moments(m, v, betas, g)
        most = tuple(jnp.maximum(old, v) for old in most)
        size = jnp.sqrt(most[0] if most else v) / jnp.sqrt(complement(beta2, t)) + eps
        return p - lr / complement(beta1, t) * m / size, m, v, *most

    return each_array(zeros(3 if amsgrad else 2), step)


@_rule
def Adamax(
    lr: Scalar = 2e-3, betas: tuple[Scalar, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0
):
    """Return torch.optim.Adamax.

    u = max(beta2 * u, |g| + eps); params - lr * m / (1 - beta1**t) / u, m as in `Adam`.

    Example:
      >>> jf.optimizers.torch.Adamax(lr=0.1)
      torch.Adamax(learning_rate=0.1)
    """
    beta1, beta2 = betas

    def step(t, g, p, m, u):
        g, p = _decayed(g, p, lr, weight_decay)
        m, u = mean_with(m, beta1, g), jnp.maximum(beta2 * u, jnp.abs(g) + eps)
        return p - lr / complement(beta1, t) * m / u, m, u

    return each_array(zeros(2), step)


@_rule
def NAdam(
    lr: Scalar = 2e-3, betas: tuple[Scalar, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0,
    momentum_decay: Scalar = 4e-3, decoupled_weight_decay: bool = False,
):  # fmt: skip
    """Return torch.optim.NAdam, with its momentum schedule.

    mu(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2), M(t) the product of mu(1) ... mu(t);
    params - lr * ((1 - mu(t)) * g / (1 - M(t)) + mu(t + 1) * m / (1 - M(t + 1))) / (sqrt(v / (1 - beta2**t)) + eps),
    m and v as in `Adam`.

    Example:
      >>> jf.optimizers.torch.NAdam(lr=0.1)
      torch.NAdam(learning_rate=0.1)
    """
    beta1, beta2 = betas

    def mu(t):
        return beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def step(t, g, p, m, v, product):
        g, p = _decayed(g, p, lr, weight_decay, decoupled_weight_decay)
        (m, v), product = moments(m, v, betas, g), product * mu(t)
        size = jnp.sqrt(v / complement(beta2, t)) + eps
        ahead = mu(t + 1) / (1 - product * mu(t + 1)) * m
        return p - lr * ((1 - mu(t)) / (1 - product) * g + ahead) / size, m, v, product

    return each_array(lambda p: (*zeros(2)(p), jnp.ones((), jnp.float32)), step)  # as PyTorch keeps it


@_rule
def RAdam(
    lr: Scalar = 1e-3, betas: tuple[Scalar, Scalar] = (0.9, 0.999), eps: Scalar = 1e-8, weight_decay: Scalar = 0.0,
    decoupled_weight_decay: bool = False,
):  # fmt: skip
    """Return torch.optim.RAdam: `Adam` that uses its scale only from rho(t) > 5 on.

    rho(t) = rho_inf - 2 * t * beta2**t / (1 - beta2**t), rho_inf = 2 / (1 - beta2) - 1; then
    params - lr * r * m / (1 - beta1**t) * sqrt(1 - beta2**t) / (sqrt(v) + eps) with r**2 = (rho - 4) (rho - 2) rho_inf
    / ((rho_inf - 4) (rho_inf - 2) rho), before that params - lr * m / (1 - beta1**t).

    Example:
      >>> jf.optimizers.torch.RAdam(lr=0.1)
      torch.RAdam(learning_rate=0.1)
    """
    beta1, beta2 = betas
    limit = 2 / (1 - beta2) - 1

    def step(t, g, p, m, v, weight, moment, last):
        g, p = _decayed(g, p, lr, weight_decay, decoupled_weight_decay)
        m, v = moments(m, v, betas, g)
        weight, moment = weight + last, moment + t * last  # sums of beta2**k and (k + 1) beta2**k: rho to all digits
        rho = 2 * moment / weight - 1
        part = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        scale = jnp.sqrt(jnp.where(rho > 5, part, 1) * complement(beta2, t)) / (jnp.sqrt(v) + eps)
        move = lr / complement(beta1, t) * m
        return p - move * jnp.where(rho > 5, scale, 1), m, v, weight, moment, beta2 * last

    def start(p):
        zero = jnp.zeros((), p.dtype)
        return (*zeros(2)(p), zero, zero, zero + 1)

    return each_array(start, step)


@_rule
def RMSprop(
    lr: Scalar = 1e-2, alpha: Scalar = 0.99, eps: Scalar = 1e-8, weight_decay: Scalar = 0.0, momentum: Scalar = 0.0,
    centered: bool = False,
):  # fmt: skip
    """Return torch.optim.RMSprop: alpha 0.99, eps outside the root, the rate after the momentum.

    v = alpha * v + (1 - alpha) * g**2, with `centered` minus the square of a running mean of g;
    buf = momentum * buf + g / (sqrt(v) + eps); params - lr * buf.

    Example:
      >>> jf.optimizers.torch.RMSprop(lr=0.01, alpha=0.9, momentum=0.9)
      torch.RMSprop(learning_rate=0.01, alpha=0.9, momentum=0.9)
    """

    def step(t, g, p, v, mean, *buf):
        g, p = _decayed(g, p, lr, weight_decay)
        v, mean = squares(v, mean, alpha, g, centered)
        move = carried(g / (jnp.sqrt(v - mean * mean if centered else v) + eps), momentum, buf)
        return p - lr * move, v, mean, *[move for _ in buf]

    return each_array(zeros(2 if is_off(momentum) else 3), step)


def _fixed_rate(function):
    function.traits = Traits(fixed_rate=True)
    return function


@_rule
@_fixed_rate
def Rprop(
    lr: Scalar = 1e-2, etas: tuple[Scalar, Scalar] = (0.5, 1.2), step_sizes: tuple[Scalar, Scalar] = (1e-6, 50.0)
):
    """Return torch.optim.Rprop, whose rate is that of the first step alone, multiplied by no eta there.

    As `jf.optimizers.rprop`, but each step size is held within `step_sizes` from the first one on.

    Example:
      >>> jf.optimizers.torch.Rprop(lr=0.1)
      torch.Rprop(learning_rate=0.1)
    """
    (low, high), (smallest, largest) = etas, step_sizes

    def step(t, g, p, before, size):
        turn = g * before
        size = jnp.clip(size * jnp.where(turn > 0, high, jnp.where(turn < 0, low, 1)), smallest, largest)
        g = jnp.where(turn < 0, 0, g)
        return p - jnp.sign(g) * size, g, size

    return each_array(lambda p: (jnp.zeros_like(p), jnp.full_like(p, lr)), step)


@_rule
def Adagrad(
    lr: Scalar = 1e-2, lr_decay: Scalar = 0.0, weight_decay: Scalar = 0.0, initial_accumulator_value: Scalar = 0.0,
    eps: Scalar = 1e-10,
):  # fmt: skip
    """Return torch.optim.Adagrad, whose sum starts at 0, with eps outside the root.

    s = s + g**2; params - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps).

    Example:
      >>> jf.optimizers.torch.Adagrad(lr=0.1)
      torch.Adagrad(learning_rate=0.1)
    """

    def step(t, g, p, s):
        g, p = _decayed(g, p, lr, weight_decay)
        s = s + g * g
        return p - lr / (1 + (t - 1) * lr_decay) * g / (jnp.sqrt(s) + eps), s

    return each_array(filled(initial_accumulator_value), step)


@_rule
def Adadelta(lr: Scalar = 1.0, rho: Scalar = 0.9, eps: Scalar = 1e-6, weight_decay: Scalar = 0.0):
    """Return torch.optim.Adadelta, whose default rate is 1 (Keras 0.001).

    a = rho * a + (1 - rho) * g**2; move = sqrt(b + eps) / sqrt(a + eps) * g; b = rho * b + (1 - rho) * move**2;
    params - lr * move.

    Example:
      >>> jf.optimizers.torch.Adadelta(lr=0.5)
      torch.Adadelta(learning_rate=0.5)
    """

    def step(t, g, p, a, b):
        g, p = _decayed(g, p, lr, weight_decay)
        a = mean_with(a, rho, g * g)
        move = jnp.sqrt(b + eps) / jnp.sqrt(a + eps) * g
        return p - lr * move, a, mean_with(b, rho, move * move)

    return each_array(zeros(2), step)


@_rule
def ASGD(lr: Scalar = 1e-2, lambd: Scalar = 1e-4, alpha: Scalar = 0.75, t0: Scalar = 1e6, weight_decay: Scalar = 0.0):
    """Return torch.optim.ASGD, gradient descent with a rate that falls; its average of params is not computed.

    params * (1 - lambd * eta) - eta * g with eta = lr at first, then lr / (1 + lambd * lr * t)**alpha of the step
    before. `t0` is where PyTorch's average would begin, which changes no params.

    Example:
      >>> jf.optimizers.torch.ASGD(lr=0.1)
      torch.ASGD(learning_rate=0.1)
    """

    def step(t, g, p, eta):
        g, p = _decayed(g, p, lr, weight_decay)
        return p * (1 - lambd * eta) - eta * g, lr / (1 + lambd * lr * t) ** alpha

    return each_array(lambda p: (jnp.asarray(lr, jnp.float32),), step)  # as PyTorch keeps it, whatever the params are


@_rule
def Adafactor(
    lr: Scalar = 1e-2, beta2_decay: Scalar = -0.8, eps: tuple[Scalar | None, Scalar] = (None, 1e-3), d: Scalar = 1.0,
    weight_decay: Scalar = 0.0,
):  # fmt: skip
    """Return torch.optim.Adafactor: `lr` is the largest relative step, and matrices keep rows and columns alone.

    w = t**beta2_decay; v = (1 - w) * v + w * g**2, for matrices the product of its row and column means over their
    mean; u = g / sqrt(v); params * (1 - lr * weight_decay) - max(eps[1], rms(params)) * min(lr, 1 / sqrt(t)) * u /
    max(1, rms(u) / d). `eps[0]` is that of the precision if it is None.

    Example:
      >>> jf.optimizers.torch.Adafactor(lr=0.1)
      torch.Adafactor(learning_rate=0.1)
    """

    def step(t, g, p, *kept):
        least = jnp.finfo(p.dtype).eps if eps[0] is None else eps[0]
        share = jnp.asarray(t, p.dtype) ** beta2_decay
        size = jnp.maximum(eps[1], rms(p)) * jnp.minimum(lr, 1 / jnp.sqrt(t))
        p = p * (1 - lr * weight_decay)
        v, *columns = kept = factored(kept, share, g * g)
        if columns:
            v = v * columns[0] / jnp.maximum(v.mean(-2, keepdims=True), least)
        move = g / jnp.sqrt(jnp.maximum(v, least * least))
        return (p - size / jnp.maximum(1, rms(move) / d) * move, *kept)

    return each_array(factors, step)


__all__ = [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__, f"There are: {', '.join(__all__)}")
