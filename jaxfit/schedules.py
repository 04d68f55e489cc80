"""Learning rates that change with the step t, by name: `jf.optimizers.sgd(jf.schedules.exponential(0.1, 0.99))`.

A schedule is a value whose numbers are leaves: each may be an `Axis`, and a new one never recompiles. Any function of
the step is a schedule too, those of Optax for instance; its numbers are then parts of the program.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxfit.problems.axes import Axis, Call, as_number
from jaxfit.problems.messages import near_keywords, near_names
from jaxfit.typing import Number, Schedule


def _of(function: Callable[..., Schedule], **given: Number | Axis) -> Call:
    """Return the call of a function that makes a schedule, with its numbers checked: positive, `final` zero or more."""
    verb = function.__name__.removeprefix("_")

    def checked(name: str, value: Number | Axis) -> Number | Axis:
        if name == "final":
            return as_number(f"{verb}: {name}", value, "a finite number, zero or more", lambda x: x >= 0)
        return as_number(f"{verb}: {name}", value)

    return Call(function, **{name: checked(name, value) for name, value in given.items()})


@near_keywords
def constant(rate: Number | Axis) -> Call:
    """Return the schedule rate(t) = rate.

    Args:
      rate: One positive number, or an `Axis` of them.

    Raises:
      TypeError, ValueError: If it is not such a number.

    Example:
      >>> float(jf.schedules.constant(0.5)()(10))
      0.5
    """
    return _of(_constant, rate=rate)


@near_keywords
def exponential(rate: Number | Axis, factor: Number | Axis, every: Number | Axis = 1.0) -> Call:
    """Return the schedule rate(t) = rate * factor**(t / every).

    Args:
      rate: At step 0.
      factor: The factor of the rate in `every` steps; above 1 the rate grows, as in a learning-rate range test.
      every: Number of steps; may be a fraction.

    Raises:
      TypeError, ValueError: If one of them is not a positive finite number, or an `Axis` of them.

    Example:
      >>> rate = jf.schedules.exponential(0.5, 0.5, every=10)()
      >>> [round(float(rate(t)), 3) for t in (0, 10, 20)]
      [0.5, 0.25, 0.125]
    """
    return _of(_exponential, rate=rate, factor=factor, every=every)


@near_keywords
def stepwise(rate: Number | Axis, factor: Number | Axis, every: Number | Axis) -> Call:
    """Return the schedule rate(t) = rate * factor**floor(t / every): a staircase with steps of length `every`.

    Args:
      rate: At step 0.
      factor: The factor of the rate from one stair to the next.
      every: Number of steps of a stair.

    Raises:
      TypeError, ValueError: If one of them is not a positive finite number, or an `Axis` of them.

    Example:
      >>> rate = jf.schedules.stepwise(0.5, 0.5, every=10)()
      >>> [round(float(rate(t)), 3) for t in (0, 9, 10)]
      [0.5, 0.5, 0.25]
    """
    return _of(_stepwise, rate=rate, factor=factor, every=every)


@near_keywords
def inverse_time(rate: Number | Axis, half: Number | Axis) -> Call:
    """Return the schedule rate(t) = rate / (1 + t / half), which is half the rate after `half` steps.

    Later it is about rate * half / t. The sum of the rates diverges and the sum of their squares converges, which lets
    gradient descent with noise converge: Robbins and Monro (1951), doi:10.1214/aoms/1177729586.

    Args:
      rate: At step 0.
      half: Number of steps after which the rate is half of that.

    Raises:
      TypeError, ValueError: If one of them is not a positive finite number, or an `Axis` of them.

    Example:
      >>> rate = jf.schedules.inverse_time(0.5, 10)()
      >>> [round(float(rate(t)), 3) for t in (0, 10)]
      [0.5, 0.25]
    """
    return _of(_inverse_time, rate=rate, half=half)


@near_keywords
def polynomial(
    rate: Number | Axis, steps: Number | Axis, *, power: Number | Axis = 1.0, final: Number | Axis = 0.0
) -> Call:
    """Return the schedule rate(t) = final + (rate - final) * (1 - t / steps)**power, and `final` after `steps`.

    Args:
      rate: At step 0.
      steps: Number of steps until `final` is reached.
      power: Positive; 1 is a straight line, and a larger power lowers the rate earlier.
      final: Zero or more.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them.

    Example:
      >>> rate = jf.schedules.polynomial(0.5, 100)()
      >>> [round(float(rate(t)), 3) for t in (0, 50, 100)]
      [0.5, 0.25, 0.0]
    """
    return _of(_polynomial, rate=rate, steps=steps, power=power, final=final)


@near_keywords
def cosine(rate: Number | Axis, steps: Number | Axis, *, final: Number | Axis = 0.0) -> Call:
    """Return the schedule rate(t) = final + (rate - final) * (1 + cos(pi * t / steps)) / 2, and `final` after `steps`.

    Args:
      rate: At step 0.
      steps: Number of steps until `final` is reached.
      final: Zero or more.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them.

    Source: Loshchilov and Hutter, SGDR (2017), arXiv:1608.03983, without restarts.

    Example:
      >>> rate = jf.schedules.cosine(0.5, 100)()
      >>> [round(float(rate(t)), 3) for t in (0, 50, 100)]
      [0.5, 0.25, 0.0]
    """
    return _of(_cosine, rate=rate, steps=steps, final=final)


@near_keywords
def warmup_cosine(
    rate: Number | Axis, warmup: Number | Axis, steps: Number | Axis, *, final: Number | Axis = 0.0
) -> Call:
    """Return a schedule that rises linearly to `rate` at step `warmup`, then falls as a cosine to `final` at `steps`.

    Args:
      rate: At step `warmup`.
      warmup: Number of steps of the linear rise from zero.
      steps: Number of steps of both parts together.
      final: Zero or more.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them; if the warm-up is as long as the
        whole.

    Example:
      >>> rate = jf.schedules.warmup_cosine(0.5, 10, 110)()
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 60)]
      [0.0, 0.25, 0.5, 0.25]
    """
    warmup = as_number("warmup_cosine: warmup", warmup)
    steps = as_number("warmup_cosine: steps", steps)
    if isinstance(warmup, float) and isinstance(steps, float) and warmup >= steps:
        raise ValueError(
            f"warmup_cosine: warmup is {warmup:g} of {steps:g} steps, but something must be left to come down in; "
            f"warm up for fewer"
        )
    return _of(_warmup_cosine, rate=rate, warmup=warmup, steps=steps, final=final)


# The functions of the step, built where their numbers are traced


def _constant(rate: Number) -> Schedule:
    return lambda t: jnp.asarray(rate)


def _exponential(rate: Number, factor: Number, every: Number) -> Schedule:
    return lambda t: rate * factor ** (t / every)


def _stepwise(rate: Number, factor: Number, every: Number) -> Schedule:
    return lambda t: rate * factor ** jnp.floor(t / every)


def _inverse_time(rate: Number, half: Number) -> Schedule:
    return lambda t: rate / (1 + t / half)


def _polynomial(rate: Number, steps: Number, power: Number, final: Number) -> Schedule:
    return lambda t: final + (rate - final) * (1 - jnp.minimum(t / steps, 1)) ** power


def _cosine(rate: Number, steps: Number, final: Number) -> Schedule:
    return lambda t: final + (rate - final) * (1 + jnp.cos(jnp.pi * jnp.minimum(t / steps, 1))) / 2


def _warmup_cosine(rate: Number, warmup: Number, steps: Number, final: Number) -> Schedule:
    falling = _cosine(rate, steps - warmup, final)
    return lambda t: jnp.where(t < warmup, rate * t / warmup, falling(jnp.maximum(t - warmup, 0)))


__all__ = ["constant", "cosine", "exponential", "inverse_time", "polynomial", "stepwise", "warmup_cosine"]
NAMES = __all__
__getattr__, __dir__ = near_names(
    __name__, __all__, f"There are: {', '.join(__all__)}; any function of the step is a schedule too"
)
