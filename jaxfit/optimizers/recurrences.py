"""Optimizers that Optax does not have: as defined in a paper, or array by array as other frameworks write theirs."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.optimizers.building import Optimizer, optimizer
from jaxfit.optimizers.methods import Traits
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Number, PyTree, Schedule

_Declared = ParamSpec("_Declared")


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


class EachState(NamedTuple):
    """The state of a rule that updates every array separately."""

    count: Array  # () int32 updates made
    kept: tuple[tuple[Array, ...], ...]  # of every array: what the rule keeps of it


def each_array(
    start: Callable[[Array], tuple[Array, ...]], step: Callable[..., tuple[Array, ...]]
) -> optax.GradientTransformation:
    """Return the transformation that updates every array of the params separately, as frameworks define theirs.

    Args:
      start: start(p) is what is kept of an array p beside it, such as zeros for a running mean.
      step: step(t, g, p, *kept) is the array after update t = 1, 2, ... with gradient g, and what is kept then.
    """

    def init(params):
        return EachState(jnp.int32(0), tuple(start(p) for p in map(jnp.asarray, jax.tree.leaves(params))))

    def update(updates, state, params=None):
        grads, structure = jax.tree.flatten(updates)
        t = state.count + 1
        before = [jnp.asarray(p) for p in jax.tree.leaves(params)]
        after = [step(t, g, p, *kept) for g, p, kept in zip(grads, before, state.kept, strict=True)]
        moves = [(new[0] - p).astype(p.dtype) for new, p in zip(after, before, strict=True)]
        kept = tuple(
            tuple(jnp.asarray(x).astype(old.dtype) for x, old in zip(new[1:], olds, strict=True))
            for new, olds in zip(after, state.kept, strict=True)
        )
        return jax.tree.unflatten(structure, moves), EachState(t, kept)

    return optax.GradientTransformation(init, update)


def zeros(count: int) -> Callable[[Array], tuple[Array, ...]]:
    """Return the function that keeps `count` arrays of zeros like each array."""
    return lambda p: (jnp.zeros_like(p),) * count


def filled(value: Number) -> Callable[[Array], tuple[Array, ...]]:
    """Return the function that keeps an array of this value like each array, as Adagrad's sum at its start."""
    return lambda p: (jnp.full_like(p, value),)


def is_off(number: Any) -> bool:
    """Return whether a term is left out of the program: its factor is None, or zero and not traced."""
    return number is None or isinstance(number, (int, float)) and number == 0


def complement(beta: Number, t: Array) -> Array:
    """Return 1 - beta**t, with all digits where beta is a Python number: float32 loses four of them near 1."""
    if isinstance(beta, (int, float)) and 0 < beta < 1:
        return -jnp.expm1(t * math.log(beta))
    return 1 - beta**t


def mean_with(mean: Array, beta: Number, new: Array) -> Array:
    """Return the running mean with a new value: beta * mean + (1 - beta) * new."""
    return beta * mean + (1 - beta) * new


def moments(m: Array, v: Array, betas: tuple[Number, Number], g: Array) -> tuple[Array, Array]:
    """Return the running means of the gradient and of its square, as Adam and its kin keep them."""
    return mean_with(m, betas[0], g), mean_with(v, betas[1], g * g)


def squares(v: Array, mean: Array, beta: Number, g: Array, centered: bool) -> tuple[Array, Array]:
    """Return the running means of the squared gradient and, for the centered RMSprop, of the gradient."""
    return mean_with(v, beta, g * g), mean_with(mean, beta, g) if centered else mean


def carried(move: Array, momentum: Number, before: tuple[Array, ...]) -> Array:
    """Return the move with the momentum of the move before; of none if the rule keeps none."""
    return momentum * before[0] + move if before else move


def rms(x: Array) -> Array:
    """Return the root of the mean square of an array."""
    return jnp.sqrt(jnp.mean(x * x))


def factors(p: Array) -> tuple[Array, ...]:
    """Return what Adafactor keeps of an array: zeros for its rows and for its columns, or of a vector for all."""
    if p.ndim < 2:
        return (jnp.zeros_like(p),)
    return jnp.zeros_like(p[..., :1]), jnp.zeros_like(p[..., :1, :])


def factored(kept: tuple[Array, ...], share: Array, square: Array) -> tuple[Array, ...]:
    """Return what Adafactor keeps after new squares, which count by a share: means of rows and of columns, or all."""
    new = (square,) if square.ndim < 2 else (square.mean(-1, keepdims=True), square.mean(-2, keepdims=True))
    return tuple(mean_with(old, 1 - share, one) for old, one in zip(kept, new, strict=True))


class Rule:
    """The rule of an optimizer of another framework, as a factory that takes the rate as `learning_rate`.

    Attributes:
      function: It takes the framework's own arguments and returns the transformation.
      rate: What the framework calls the learning rate.
    """

    def __init__(self, function: Callable, framework: str, rate: str):
        self.function, self.rate = function, rate
        self.__name__, self.__doc__ = f"{framework}.{function.__name__}", function.__doc__
        self.traits = getattr(function, "traits", Traits())
        own = inspect.signature(function).parameters.values()
        self.__signature__ = inspect.Signature([
            p.replace(
                name="learning_rate" if p.name == rate else p.name, kind=p.KEYWORD_ONLY, annotation=_kind(p.default),
                default=p.empty if p.name == rate else p.default,
            )
            for p in own
        ])  # fmt: skip

    def __call__(self, learning_rate: Number, **given: Any) -> optax.GradientTransformation:
        return self.function(**{self.rate: learning_rate}, **given)

    def __reduce__(self):
        return _rule_of, (self.function.__module__, self.function.__name__)


def _kind(default: object) -> str:
    """Return the annotation that tells where a schedule may stand: for one number."""
    return "float" if default is None or default is inspect.Parameter.empty else type(default).__name__


def _rule_of(module: str, name: str) -> Rule:
    return getattr(importlib.import_module(module), name).rule


def rule_of(framework: str, rate: str) -> Callable[[Callable[_Declared, Any]], Callable[_Declared, Optimizer]]:
    """Make a framework's rule, with its own arguments and defaults, into a function that returns an `Optimizer`.

    Args:
      framework: Its name.
      rate: What it calls the learning rate; the `Optimizer` calls it learning_rate, as all.
    """

    def declare(function: Callable[_Declared, Any]) -> Callable[_Declared, Optimizer]:
        rule, signature = Rule(function, framework, rate), inspect.signature(function)
        defaults = {name: p.default for name, p in signature.parameters.items()}

        @functools.wraps(function)
        def make(*args, **kwargs):
            given = {rate: defaults[rate]} | signature.bind(*args, **kwargs).arguments
            given = {k: _as_pair(declared, k, v, defaults[k]) for k, v in given.items()}
            said = {k: v for k, v in given.items() if k != rate and not _same(v, defaults[k])}
            return optimizer(rule, learning_rate=given[rate], **said)

        declared: Any = make
        declared.rule, declared.__signature__ = rule, signature.replace(return_annotation=Optimizer)
        return near_keywords(declared)

    return declare


def _as_pair(function: Callable, name: str, value: Any, default: object) -> Any:
    """Return what stands for several numbers, such as betas, as a tuple of as many as the default has."""
    if not isinstance(default, tuple):
        return value
    if not isinstance(value, (list, tuple)) or len(value) != len(default):
        raise TypeError(f"{function.__name__}: {name} is {value!r}, but it takes {len(default)} numbers, as {default}")
    return tuple(value)


def _same(value: object, default: object) -> bool:
    """Return whether a default is given as it is, which then stays a Python number."""
    return type(value) is type(default) and isinstance(value, (int, float, str, tuple, type(None))) and value == default
