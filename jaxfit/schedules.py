"""Learning rates that change with the step t, by name: `jf.optimizers.sgd(jf.schedules.exponential(0.1, 0.99))`.

A schedule is a value whose numbers are leaves: each may be an `Axis`, and a new one never recompiles. Any function of
the step is a schedule too, those of Optax for instance; its numbers are then parts of the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxfit.problems.axes import Axis, Call, as_number
from jaxfit.problems.messages import near_keywords, near_names
from jaxfit.typing import Number, Schedule


def _checked_call(function: Callable[..., Schedule], **given: Number | Axis) -> Call:
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
    return _checked_call(_constant, rate=rate)


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
    return _checked_call(_exponential, rate=rate, factor=factor, every=every)


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
    return _checked_call(_stepwise, rate=rate, factor=factor, every=every)


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
    return _checked_call(_inverse_time, rate=rate, half=half)


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
    return _checked_call(_polynomial, rate=rate, steps=steps, power=power, final=final)


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
    return _checked_call(_cosine, rate=rate, steps=steps, final=final)


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
    return _checked_call(_warmup_cosine, rate=rate, warmup=warmup, steps=steps, final=final)


@near_keywords
def milestones(rate: Number | Axis, factor: Number | Axis, at: Sequence[int]) -> Call:
    """Return the schedule rate(t) = rate * factor**(how many of the steps `at` have come): it falls at each of them.

    PyTorch's MultiStepLR; a single one is a drop.

    Args:
      rate: Before the first of them.
      factor: The factor of the rate at each.
      at: Whole numbers of steps, in order.

    Raises:
      TypeError, ValueError: If a number is not positive, or the steps are not in order.

    Example:
      >>> rate = jf.schedules.milestones(0.5, 0.1, at=(10, 20))()
      >>> [round(float(rate(t)), 4) for t in (0, 9, 10, 20)]
      [0.5, 0.5, 0.05, 0.005]
    """
    steps = tuple(at) if isinstance(at, Iterable) else (at,)
    integral = all(isinstance(x, (int, np.integer)) and not isinstance(x, bool) for x in steps)
    if not steps or not integral or list(steps) != sorted(set(steps)):
        raise ValueError(f"milestones: at is {at!r}, but it must be whole numbers of steps in order, such as (10, 20)")
    return Call(_milestones, **_checked_call(_milestones, rate=rate, factor=factor).kwargs, at=tuple(map(int, steps)))


@near_keywords
def cosine_restarts(
    rate: Number | Axis,
    first: Number | Axis,
    *,
    longer: Number | Axis = 1.0,
    factor: Number | Axis = 1.0,
    final: Number | Axis = 0.0,
) -> Call:
    """Return a schedule that falls as a cosine again and again.

    rate(t) = final + (top - final) * (1 + cos(pi * u)) / 2, where u is the part of the running cycle that has passed.
    Cycle i = 0, 1, ... takes first * longer**i steps and starts from top = rate * factor**i.

    Args:
      rate: At the start of the first cycle.
      first: Number of steps of the first cycle.
      longer: How much longer each cycle is than the one before; one or more.
      factor: How much of its start the next cycle starts from.
      final: The rate at the end of each.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them.

    Source: Loshchilov and Hutter, SGDR (2017), arXiv:1608.03983; PyTorch's CosineAnnealingWarmRestarts, and with
    `factor` Keras' CosineDecayRestarts.

    Example:
      >>> rate = jf.schedules.cosine_restarts(0.5, 10, longer=2)()
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 20, 30)]
      [0.5, 0.25, 0.5, 0.25, 0.5]
    """
    return _checked_call(_cosine_restarts, rate=rate, first=first, longer=longer, factor=factor, final=final)


@near_keywords
def one_cycle(
    rate: Number | Axis,
    steps: Number | Axis,
    *,
    rise: Number | Axis = 0.3,
    start_factor: Number | Axis = 25.0,
    final_factor: Number | Axis = 1e4,
) -> Call:
    """Return a schedule that rises as a cosine to `rate` at step rise * steps - 1, then falls as one until steps - 1.

    It begins at rate / start_factor and ends at rate / start_factor / final_factor, as PyTorch's OneCycleLR with
    cycle_momentum=False. `optax.cosine_onecycle_schedule` reaches its top one step later.

    Args:
      rate: At the top.
      steps: Number of steps of the whole.
      rise: The part of them that rises.
      start_factor, final_factor: PyTorch's div_factor and final_div_factor.

    Raises:
      TypeError, ValueError: If one of them is not a positive finite number, or an `Axis` of them.

    Source: Smith and Topin (2018), arXiv:1708.07120.

    Example:
      >>> rate = jf.schedules.one_cycle(0.5, 100)()
      >>> [round(float(rate(t)), 3) for t in (0, 29, 64)]
      [0.02, 0.5, 0.25]
    """
    return _checked_call(
        _one_cycle, rate=rate, steps=steps, rise=rise, start_factor=start_factor, final_factor=final_factor
    )


@near_keywords
def warmup(schedule: Call | Schedule | Number | Axis, steps: Number | Axis, *, start: Number | Axis = 0.0) -> Call:
    """Return a schedule, or a rate, times a factor that rises linearly from `start` to 1 in the first `steps` steps.

    The schedule itself begins at step 0, as with PyTorch's LinearLR(start_factor=start, total_iters=steps) beside it;
    `warmup_cosine` begins its cosine after the rise.

    Args:
      schedule: One of `jf.schedules`, a function of the step, or a number.
      steps: Number of steps of the rise.
      start: The factor at step 0, zero or more.

    Raises:
      TypeError, ValueError: If one of the numbers is not such a number, or an `Axis` of them.

    Example:
      >>> rate = jf.schedules.warmup(jf.schedules.stepwise(0.5, 0.5, 20), 10)()
      >>> [round(float(rate(t)), 3) for t in (0, 5, 10, 20)]
      [0.0, 0.25, 0.5, 0.25]
    """
    steps = as_number("warmup: steps", steps)
    start = as_number("warmup: start", start, "a finite number, zero or more", lambda x: x >= 0)
    if not isinstance(schedule, Call) and callable(schedule) and not isinstance(schedule, Axis):
        return Call(_warmed, steps=steps, start=start, schedule=schedule)
    if isinstance(schedule, Call):
        given = {f"of_{name}": value for name, value in schedule.given.items()}
        return Call(_warmed_call, steps=steps, start=start, function=schedule.function, **given)
    return Call(_warmed, steps=steps, start=start, rate=as_number("warmup: schedule", schedule))


# The functions of the step, built where their numbers are traced


def _milestones(rate: Number, factor: Number, at: tuple[int, ...]) -> Schedule:
    return lambda t: rate * factor ** jnp.sum(jnp.asarray(at) <= t)


def _cosine_restarts(rate: Number, first: Number, longer: Number, factor: Number, final: Number) -> Schedule:
    def schedule(t):
        grows = jnp.abs(longer - 1) > 1e-6
        ratio = jnp.where(grows, longer, 2.0)  # any other than one, where the geometric series has no closed form
        several = jnp.floor(jnp.log1p(t / first * (ratio - 1)) / jnp.log(ratio) + 1e-5)
        cycle = jnp.where(grows, several, jnp.floor(t / first + 1e-5))
        began = jnp.where(grows, first * (ratio**cycle - 1) / (ratio - 1), first * cycle)
        part = jnp.clip((t - began) / (first * jnp.where(grows, ratio**cycle, 1.0)), 0, 1)
        return final + (rate * factor**cycle - final) * (1 + jnp.cos(jnp.pi * part)) / 2

    return schedule


def _one_cycle(rate: Number, steps: Number, rise: Number, start_factor: Number, final_factor: Number) -> Schedule:
    low, top, last = rate / start_factor, rise * steps - 1, steps - 1

    def between(start, end, part):
        return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1)))

    return lambda t: jnp.where(
        t <= top, between(low, rate, t / top), between(rate, low / final_factor, (t - top) / (last - top))
    )


def _warmed(steps: Number, start: Number, schedule: Schedule | None = None, rate: Number = 1.0) -> Schedule:
    inner = schedule if schedule is not None else _constant(rate)
    return lambda t: inner(t) * (start + (1 - start) * jnp.minimum(t / steps, 1))


def _warmed_call(steps: Number, start: Number, function: Callable[..., Schedule], **given: Number) -> Schedule:
    return _warmed(steps, start, function(**{name.removeprefix("of_"): value for name, value in given.items()}))


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


__all__ = [
    "constant", "cosine", "cosine_restarts", "exponential", "inverse_time", "milestones", "one_cycle", "polynomial",
    "stepwise", "warmup", "warmup_cosine",
]  # fmt: skip
NAMES = __all__
__getattr__, __dir__ = near_names(
    __name__, __all__, f"There are: {', '.join(__all__)}; any function of the step is a schedule too"
)
