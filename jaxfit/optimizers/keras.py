"""The optimizers of Keras 3, with its names, arguments, defaults and arithmetic: `jf.optimizers.keras.SGD(0.1)`.

A ported script gives the losses of `keras.optimizers` step by step. In the formulas g is the gradient at step t = 1, 2,
... All take `weight_decay`, which multiplies the params by 1 - learning_rate * weight_decay before the update, and one
of `clipnorm` (of each array), `global_clipnorm` (of all) and `clipvalue`. Left out are the moving average of weights,
the scale of the loss, and gradient_accumulation_steps (`jf.optimizers.accumulated`). Each number may be an `Axis` or a
schedule.

Beside Optax and PyTorch: momentum comes after the rate, so that a change of rate acts late; eps stands inside the root
in RMSprop and Adagrad, whose sum starts at 0.1; Adam adds it before the correction of the root; AdamW's decay is 0.004,
Lion's none; Adadelta's rate is 0.001. Checked against keras 3.15.1 to 1e-6 over 50 steps. Not here: Muon, which treats
some arrays by the name of their layer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypedDict, Unpack

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.optimizers.building import Optimizer
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
from jaxfit.typing import Number, PyTree, Scalar

_Declared = ParamSpec("_Declared")


class Clips(TypedDict, total=False):
    """One of these: the largest norm of each array's gradient or of all together, or the largest entry."""

    clipnorm: Scalar
    clipvalue: Scalar
    global_clipnorm: Scalar


class Common(Clips, total=False):
    """What all optimizers of Keras take."""

    weight_decay: Scalar


class _Parts(NamedTuple):
    """A rule before weight decay and clipping."""

    start: Callable[[Array], tuple[Array, ...]]
    step: Callable[..., tuple[Array, ...]]


_COMMON = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm")


def _rule(function: Callable[_Declared, _Parts]) -> Callable[_Declared, Optimizer]:
    """Make a rule into a function that returns an `Optimizer`, and let it take what all optimizers of Keras take."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = {p.name: p.default for p in own}
    own_decay = names.get("weight_decay")
    common = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in _COMMON if n not in names]
    rule: Callable = function

    @functools.wraps(function)
    def whole(
        learning_rate, weight_decay=own_decay, clipnorm=None, clipvalue=None, global_clipnorm=None, **given
    ):  # fmt: skip
        start, step = rule(learning_rate=learning_rate, **given)

        def decayed(t, g, p, *kept):
            return step(t, g, p if is_off(weight_decay) else p - p * weight_decay * learning_rate, *kept)

        clip = _clip(clipnorm, clipvalue, global_clipnorm)
        return optax.chain(clip, each_array(start, decayed)) if clip else each_array(start, decayed)

    with_common: Any = whole
    with_common.__signature__ = signature.replace(parameters=[*own, *common])
    return rule_of("keras", "learning_rate")(with_common)


def _clip(clipnorm: Scalar, clipvalue: Scalar, global_clipnorm: Scalar) -> Any:
    given = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
    some = [name for name, value in given.items() if value is not None]
    if len(some) > 1:
        raise ValueError(f"keras: {' and '.join(some)} are given, but only one of them can clip: leave the others out")
    if not is_off(clipnorm):
        return optax.stateless(lambda grads, _: jax.tree.map(lambda g: within_norm([g], clipnorm)[0], grads))
    if not is_off(global_clipnorm):
        return optax.stateless(lambda grads, _: _all_within(grads, global_clipnorm))
    if not is_off(clipvalue):
        return optax.stateless(lambda grads, _: jax.tree.map(lambda g: jnp.clip(g, -clipvalue, clipvalue), grads))
    return None


def _all_within(grads: PyTree, largest: Number) -> PyTree:
    leaves, structure = jax.tree.flatten(grads)
    return jax.tree.unflatten(structure, within_norm(leaves, largest))


def within_norm(arrays: list[Array], largest: Number) -> list[Array]:
    """Return arrays scaled down so that their norm together is at most `largest`."""
    norm = jnp.sqrt(sum(jnp.sum(x * x) for x in arrays))
    return [x * (largest / jnp.maximum(norm, largest)) for x in arrays]


@_rule
def SGD(learning_rate: Scalar = 0.01, momentum: Scalar = 0.0, nesterov: bool = False, **common: Unpack[Common]):
    """Return keras.optimizers.SGD, which multiplies by the rate before the momentum.

    buf = momentum * buf - learning_rate * g; params + buf, or with `nesterov` momentum * buf - learning_rate * g.

    Example:
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.keras.SGD(0.25, momentum=0.5), steps=2)
      >>> float(run.params)
      0.0
    """
    plain = is_off(momentum)

    def step(t, g, p, *kept):
        if plain:
            return (p - learning_rate * g,)
        buf = momentum * kept[0] - learning_rate * g
        return p + (momentum * buf - learning_rate * g if nesterov else buf), buf

    return _Parts(zeros(0 if plain else 1), step)


@_rule
def RMSprop(
    learning_rate: Scalar = 0.001, rho: Scalar = 0.9, momentum: Scalar = 0.0, epsilon: Scalar = 1e-7,
    centered: bool = False, **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.RMSprop: epsilon inside the root, the rate before the momentum.

    v = rho * v + (1 - rho) * g**2, with `centered` minus the square of a running mean of g;
    buf = momentum * buf + learning_rate * g / sqrt(v + epsilon); params - buf.

    Example:
      >>> jf.optimizers.keras.RMSprop(0.01, rho=0.8)
      keras.RMSprop(learning_rate=0.01, rho=0.8)
    """

    def step(t, g, p, v, mean, *buf):
        v, mean = squares(v, mean, rho, g, centered)
        move = learning_rate * g / jnp.sqrt((v - mean * mean if centered else v) + epsilon)
        move = carried(move, momentum, buf)
        return p - move, v, mean, *[move for _ in buf]

    return _Parts(zeros(2 if is_off(momentum) else 3), step)


@_rule
def Adam(
    learning_rate: Scalar = 0.001, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-7,
    amsgrad: bool = False, **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Adam, which adds epsilon before the root is corrected.

    m = beta_1 * m + (1 - beta_1) * g; v = beta_2 * v + (1 - beta_2) * g**2;
    params - learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon). With `amsgrad` the largest
    v so far.

    Example:
      >>> after = jf.step(lambda p: 1e-8 * p, 1.0, optimizer=jf.optimizers.keras.Adam(0.1), precision="float64")
      >>> round(1 - float(after.params), 6)  # jf.optimizers.torch.Adam moves by 0.05
      0.000315
    """
    return _adam(learning_rate, beta_1, beta_2, epsilon, amsgrad)


@_rule
def AdamW(
    learning_rate: Scalar = 0.001, weight_decay: Scalar = 0.004, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7, amsgrad: bool = False, **common: Unpack[Clips],
):  # fmt: skip
    """Return keras.optimizers.AdamW: `Adam` with a weight decay of 0.004 (PyTorch 0.01, Optax 0.0001).

    Example:
      >>> jf.optimizers.keras.AdamW(0.1)
      keras.AdamW(learning_rate=0.1)
    """
    return _adam(learning_rate, beta_1, beta_2, epsilon, amsgrad)


def _adam(rate: Any, beta_1: Any, beta_2: Any, epsilon: Any, amsgrad: bool) -> _Parts:
    def step(t, g, p, m, v, *most):
        m, v = moments(m, v, (beta_1, beta_2), g)
        most = tuple(jnp.maximum(old, v) for old in most)
        alpha = rate * jnp.sqrt(complement(beta_2, t)) / complement(beta_1, t)
        return p - alpha * m / (jnp.sqrt(most[0] if most else v) + epsilon), m, v, *most

    return _Parts(zeros(3 if amsgrad else 2), step)


@_rule
def Adadelta(learning_rate: Scalar = 0.001, rho: Scalar = 0.95, epsilon: Scalar = 1e-7, **common: Unpack[Common]):
    """Return keras.optimizers.Adadelta, whose default rate is 0.001 (PyTorch 1).

    a = rho * a + (1 - rho) * g**2; move = sqrt(b + epsilon) * g / sqrt(a + epsilon);
    b = rho * b + (1 - rho) * move**2; params - learning_rate * move.

    Example:
      >>> jf.optimizers.keras.Adadelta(1.0)
      keras.Adadelta(learning_rate=1.0)
    """

    def step(t, g, p, a, b):
        a = mean_with(a, rho, g * g)
        move = jnp.sqrt(b + epsilon) * g / jnp.sqrt(a + epsilon)
        return p - learning_rate * move, a, mean_with(b, rho, move * move)

    return _Parts(zeros(2), step)


@_rule
def Adagrad(
    learning_rate: Scalar = 0.001, initial_accumulator_value: Scalar = 0.1, epsilon: Scalar = 1e-7,
    **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Adagrad, whose sum starts at 0.1, with epsilon inside the root.

    s = s + g**2; params - learning_rate * g / sqrt(s + epsilon).

    Example:
      >>> jf.optimizers.keras.Adagrad(0.1)
      keras.Adagrad(learning_rate=0.1)
    """

    def step(t, g, p, s):
        s = s + g * g
        return p - learning_rate * g / jnp.sqrt(s + epsilon), s

    return _Parts(filled(initial_accumulator_value), step)


@_rule
def Adamax(
    learning_rate: Scalar = 0.001, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-7,
    **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Adamax, which adds epsilon to the largest gradient and not to each.

    u = max(beta_2 * u, |g|); params - learning_rate * m / ((1 - beta_1**t) * (u + epsilon)), m as in `Adam`.

    Example:
      >>> jf.optimizers.keras.Adamax(0.1)
      keras.Adamax(learning_rate=0.1)
    """

    def step(t, g, p, m, u):
        m, u = mean_with(m, beta_1, g), jnp.maximum(beta_2 * u, jnp.abs(g))
        return p - learning_rate * m / (complement(beta_1, t) * (u + epsilon)), m, u

    return _Parts(zeros(2), step)


@_rule
def Nadam(
    learning_rate: Scalar = 0.001, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-7,
    **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Nadam, with a momentum schedule that falls 250 times as fast as PyTorch's.

    u(t) = beta_1 * (1 - 0.96**t / 2), U(t) the product of u(1) ... u(t);
    params - learning_rate * (u(t + 1) * m / (1 - U(t + 1)) + (1 - u(t)) * g / (1 - U(t))) / (sqrt(v / (1 - beta_2**t))
    + epsilon), m and v as in `Adam`.

    Example:
      >>> jf.optimizers.keras.Nadam(0.1)
      keras.Nadam(learning_rate=0.1)
    """

    def u(t):
        return beta_1 * (1 - 0.5 * 0.96 ** jnp.asarray(t, float))

    def step(t, g, p, m, v, product):
        product = product * u(t)
        m, v = moments(m, v, (beta_1, beta_2), g)
        ahead = u(t + 1) * m / (1 - product * u(t + 1)) + (1 - u(t)) * g / (1 - product)
        return p - learning_rate * ahead / (jnp.sqrt(v / complement(beta_2, t)) + epsilon), m, v, product

    return _Parts(lambda p: (*zeros(2)(p), jnp.ones((), p.dtype)), step)


@_rule
def Adafactor(
    learning_rate: Scalar = 0.001, beta_2_decay: Scalar = -0.8, epsilon_1: Scalar = 1e-30, epsilon_2: Scalar = 1e-3,
    clip_threshold: Scalar = 1.0, relative_step: bool = True, **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Adafactor: matrices keep the mean squares of rows and columns alone.

    w = t**beta_2_decay; v = (1 - w) * v + w * (g**2 + epsilon_1), for matrices the product of its row and column means
    over the mean of the rows; u = g / sqrt(v); params - max(epsilon_2, rms(params)) * min(learning_rate, 1 / sqrt(t)) *
    u / max(1, rms(u) / clip_threshold). `relative_step` changes nothing, as in Keras, but with a schedule there.

    Example:
      >>> jf.optimizers.keras.Adafactor(0.1)
      keras.Adafactor(learning_rate=0.1)
    """

    def step(t, g, p, *kept):
        share = jnp.asarray(t, p.dtype) ** beta_2_decay
        size = jnp.maximum(epsilon_2, rms(p)) * jnp.minimum(learning_rate, 1 / jnp.sqrt(t))
        v, *columns = kept = factored(kept, share, g * g + epsilon_1)
        if columns:
            v = v / v.mean(-2, keepdims=True) * columns[0]
        move = g / jnp.sqrt(v)
        return (p - size * move / jnp.maximum(1, rms(move) / clip_threshold), *kept)

    return _Parts(factors, step)


@_rule
def Ftrl(
    learning_rate: Scalar = 0.001, learning_rate_power: Scalar = -0.5, initial_accumulator_value: Scalar = 0.1,
    l1_regularization_strength: Scalar = 0.0, l2_regularization_strength: Scalar = 0.0,
    l2_shrinkage_regularization_strength: Scalar = 0.0, beta: Scalar = 0.0, **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Ftrl: the params that minimize the past gradients' sum with penalties.

    n' = n + g**2; z = z + g + 2 * l2_shrinkage * params - (n'**-power - n**-power) / learning_rate * params;
    params = (clip(z, -l1, l1) - z) / (n'**-power / learning_rate + 2 * (l2 + beta / (2 * learning_rate))).

    Source: McMahan et al. (2013), Ad click prediction.

    Example:
      >>> jf.optimizers.keras.Ftrl(0.1)
      keras.Ftrl(learning_rate=0.1)
    """
    power, l1, l2 = -learning_rate_power, l1_regularization_strength, l2_regularization_strength

    def step(t, g, p, n, z):
        shrunk = g + 2 * l2_shrinkage_regularization_strength * p
        more = n + g * g
        z = z + shrunk - (more**power - n**power) / learning_rate * p
        steep = more**power / learning_rate + 2 * (l2 + beta / (2 * learning_rate))
        return (jnp.clip(z, -l1, l1) - z) / steep, more, z

    return _Parts(lambda p: (jnp.full_like(p, initial_accumulator_value), jnp.zeros_like(p)), step)


@_rule
def Lion(learning_rate: Scalar = 0.001, beta_1: Scalar = 0.9, beta_2: Scalar = 0.99, **common: Unpack[Common]):
    """Return keras.optimizers.Lion, without weight decay by default (Optax 0.001).

    params - learning_rate * sign(beta_1 * m + (1 - beta_1) * g); then m = beta_2 * m + (1 - beta_2) * g.

    Example:
      >>> jf.optimizers.keras.Lion(0.01)
      keras.Lion(learning_rate=0.01)
    """

    def step(t, g, p, m):
        return p - learning_rate * jnp.sign(mean_with(m, beta_1, g)), mean_with(m, beta_2, g)

    return _Parts(zeros(1), step)


@_rule
def Lamb(
    learning_rate: Scalar = 0.001, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-7,
    **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.Lamb: Adam's step, scaled to the norm of each array of params.

    step = m / (1 - beta_1**t) / (sqrt(v / (1 - beta_2**t)) + epsilon), m and v as in `Adam`;
    params - learning_rate * |params| / |step| * step, without the ratio where one norm is zero.

    Example:
      >>> jf.optimizers.keras.Lamb(0.01)
      keras.Lamb(learning_rate=0.01)
    """

    def step(t, g, p, m, v):
        m, v = moments(m, v, (beta_1, beta_2), g)
        move = m / complement(beta_1, t) / (jnp.sqrt(v / complement(beta_2, t)) + epsilon)
        norm, length = jnp.sqrt(jnp.sum(p * p)), jnp.sqrt(jnp.sum(move * move))
        some = (norm > 0) & (length > 0)
        ratio = jnp.where(some, norm / jnp.where(some, length, 1), 1)
        return p - learning_rate * ratio * move, m, v

    return _Parts(zeros(2), step)


@_rule
def ScheduleFreeAdamW(
    learning_rate: Scalar = 0.0025, beta_1: Scalar = 0.9, beta_2: Scalar = 0.999, epsilon: Scalar = 1e-8,
    warmup_steps: int = 0, **common: Unpack[Common],
):  # fmt: skip
    """Return keras.optimizers.ScheduleFreeAdamW: params between Adam's path z and its average x.

    z = z - learning_rate * min(t / warmup_steps, 1) * g / (sqrt(v / (1 - beta_2**t)) + epsilon), v as in `Adam`;
    x = (1 - 1 / t) * x + z / t; params = (1 - beta_1) * z + beta_1 * x.

    Source: Defazio et al. (2024), arXiv:2405.15682.

    Example:
      >>> jf.optimizers.keras.ScheduleFreeAdamW(0.01)
      keras.ScheduleFreeAdamW(learning_rate=0.01)
    """

    def step(t, g, p, z, v):
        v = mean_with(v, beta_2, g * g)
        warm = jnp.minimum(t / warmup_steps, 1.0) if warmup_steps else 1.0
        mean = (p - (1 - beta_1) * z) / beta_1
        z = z - learning_rate * warm * g / (jnp.sqrt(v / complement(beta_2, t)) + epsilon)
        mean = (1 - 1 / t) * mean + z / t
        return (1 - beta_1) * z + beta_1 * mean, z, v

    return _Parts(lambda p: (p, jnp.zeros_like(p)), step)


__all__ = [
    "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adafactor", "Adagrad", "Adamax", "Ftrl", "Lamb", "Lion", "Nadam",
    "ScheduleFreeAdamW",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__, f"There are: {', '.join(__all__)}")
