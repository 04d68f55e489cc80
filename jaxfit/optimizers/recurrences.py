"""Optimizers as defined in their papers, where those of Optax differ or lose digits."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.optimizers.methods import Traits
from jaxfit.typing import Number, PyTree, Schedule


class RpropState(NamedTuple):
    """The state of Rprop."""

    sizes: PyTree  # like params: of the next step
    signs: PyTree  # of the gradient before; 0 where it had turned


def rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> optax.GradientTransformation:
    """Return Rprop; that of Optax makes each update one step late."""

    def init(params):
        start = jax.tree.map(lambda p: jnp.full_like(p, learning_rate), params)
        return RpropState(start, jax.tree.map(jnp.zeros_like, params))

    def resized(size, turn):
        factor = jnp.where(turn > 0, eta_plus, eta_minus)
        return jnp.where(turn == 0, size, jnp.clip(size * factor, min_step_size, max_step_size)).astype(size.dtype)

    def update(updates, state, params=None):
        turns = jax.tree.map(lambda g, before: jnp.sign(g) * before, updates, state.signs)
        signs = jax.tree.map(lambda g, turn: jnp.where(turn < 0, 0, jnp.sign(g)), updates, turns)
        sizes = jax.tree.map(resized, state.sizes, turns)
        return jax.tree.map(lambda size, sign: -size * sign, sizes, signs), RpropState(sizes, signs)

    return optax.GradientTransformation(init, update)


rprop.traits = Traits(fixed_rate=True)


class RadamState(NamedTuple):
    """The state of RAdam; its mean of squares is squares / weight, with weights b2**age."""

    count: Array  # () int32
    mu: PyTree
    squares: PyTree
    weight: Array  # () sum of b2**k for k = 0 .. t - 1
    moment: Array  # () sum of (k + 1) b2**k
    last: Array  # () b2**t


def radam(
    learning_rate: Number | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Return RAdam, with its rho(t) as 2 moment / weight - 1: sums of positive numbers, exact to rounding.

    In the paper's form, rho_inf - 2 t b2**t / (1 - b2**t), float32 loses four digits: it is the small difference of
    numbers near 2 / (1 - b2).
    """
    limit = 2 / (1 - b2) - 1

    def init(params):
        zeros, one = jax.tree.map(jnp.zeros_like, params), jnp.ones((), jnp.result_type(float))
        return RadamState(jnp.int32(0), zeros, zeros, 0 * one, 0 * one, one)

    def update(updates, state, params=None):
        t = state.count + 1
        mu = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, updates, state.mu)
        squares = jax.tree.map(lambda g, s: g * g + b2 * s, updates, state.squares)
        weight, moment = state.weight + state.last, state.moment + t * state.last
        rho = 2 * moment / weight - 1
        known = rho >= threshold
        part = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        shrink = jnp.sqrt(jnp.where(known, part, 1))
        mean = jax.tree.map(lambda m: m / (1 - b1**t), mu)
        if nesterov:
            ahead = jax.tree.map(lambda m: m / (1 - b1 ** (t + 1)), mu)
            mean = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g / (1 - b1**t), updates, ahead)
        new = jax.tree.map(
            lambda m, s: jnp.where(known, shrink * m / (jnp.sqrt(s / weight + eps_root) + eps), m).astype(m.dtype),
            mean,
            squares,
        )
        return new, RadamState(t, mu, squares, weight, moment, (b2 * state.last).astype(weight.dtype))

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


class YogiState(NamedTuple):
    """The state of Yogi."""

    count: Array  # () int32
    mu: PyTree
    nu: PyTree


def yogi(
    learning_rate: Number | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    initial_accumulator_value: float = 1e-6,
    *,
    bias_correction: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Return Yogi with a mean of gradients that starts at zero; Optax's starts at 1e-6 and so moves without any."""

    def init(params):
        nu = jax.tree.map(lambda p: jnp.full_like(p, initial_accumulator_value), params)
        return YogiState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), nu)

    def update(updates, state, params=None):
        t = state.count + 1
        mu = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, updates, state.mu)
        nu = jax.tree.map(lambda g, v: v - (1 - b2) * jnp.sign(v - g * g) * g * g, updates, state.nu)
        first, second = (1 - b1**t, 1 - b2**t) if bias_correction else (1, 1)
        new = jax.tree.map(lambda m, v: (m / first / (jnp.sqrt(v / second) + eps)).astype(m.dtype), mu, nu)
        return new, YogiState(t, mu, nu)

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))
