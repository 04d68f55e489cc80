"""`Optimizer`: a factory with its hyperparameters, not yet built; made from a factory, a transformation, or others."""

from __future__ import annotations

import functools
import inspect
import numbers
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.optimizers.methods import (
    Traits,
    as_static,
    check_hyperparameter,
    check_names,
    scheduled,
    show,
    takes_schedule,
)
from jaxfit.problems.axes import Axis, Call, is_array, resolve
from jaxfit.problems.messages import did_you_mean, near_keywords
from jaxfit.typing import OptimizerLike, Params, Varied

JUDGES = "levenberg_marquardt", "lbfgs"  # which take no learning rate
NAMES = (
    "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam", "adamax", "amsgrad",
    "adabelief", "radam", "yogi", "lion", "rprop", "muon", *JUDGES,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Optimizer:
    """An optimizer that is not yet built; made by `optimizer` or a named function of `jf.optimizers`.

    Attributes:
      call: The factory and its hyperparameters. Floats and arrays are leaves, which may be traced or hold an `Axis`;
        integers, booleans, strings, None and functions are static.
    """

    call: Call

    @property
    def name(self) -> str:
        if self.call.function is _ready:
            return "optax"
        return getattr(self.call.function, "__name__", type(self.call.function).__name__).removeprefix("_")

    @property
    def traits(self) -> Traits:
        return traits_of(self.call.function)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return self.call.kwargs

    def build(self) -> Any:
        """Return the transformation; call this inside the function that JAX traces.

        A hyperparameter given as a schedule, whose factory takes a number, gets that of each step: `scheduled`.
        """
        factory = self.call.function
        built = {k: v.build() if isinstance(v, Optimizer) else v for k, v in self.hyperparameters.items()}
        given = resolve(built)
        schedules = {k: v for k, v in given.items() if callable(v) and not takes_schedule(factory, k)}
        if not schedules:
            return as_transformation(factory(**given))
        numbers = {k: v for k, v in given.items() if k not in schedules}
        return scheduled(lambda **now: as_transformation(factory(**numbers, **now)), schedules)

    def __repr__(self) -> str:
        if self.name == "optax":
            return "an Optax transformation"
        return f"{self.name}({', '.join(f'{k}={show(v)}' for k, v in self.hyperparameters.items())})"


jax.tree_util.register_pytree_with_keys(
    Optimizer, lambda o: (((jax.tree_util.GetAttrKey(""), o.call),), None), lambda _, children: Optimizer(children[0])
)


@near_keywords
def optimizer(factory: Callable, /, **hyperparameters: Any) -> Optimizer:
    """Make an optimizer of any Optax factory and its hyperparameters: `optimizer(optax.adam, learning_rate=0.1)`.

    Args:
      factory: Any function that returns an `optax.GradientTransformation`. It is called inside the traced function, so
        a function of your own may build a schedule from its arguments.
      **hyperparameters: By keyword. A float is a leaf: it may be an `Axis`, and a new value never recompiles. A
        schedule is one of `jf.schedules` or `optimizer(optax.cosine_decay_schedule, init_value=...)`, whose floats are
        leaves too, or a function of the step (static).

    Any hyperparameter that is a number may be a schedule: the update at step t is then that of the optimizer with the
    numbers of step t and its state unchanged. Where Optax itself takes a schedule, as for a learning rate, it is passed
    on.

    Raises:
      TypeError: If the factory does not take a hyperparameter or lacks one, or if a learning rate is not a number, or
        is None where the updates would then go uphill.
      ValueError: If a learning rate is not positive and finite, or a momentum is outside [0, 1).

    Example:
      >>> import optax
      >>> adam = jf.optimizer(optax.adam, learning_rate=0.1)
      >>> adam.name, adam.hyperparameters
      ('adam', {'learning_rate': 0.1})
    """
    if not callable(factory):
        raise TypeError(
            f"optimizer: factory is {factory!r}, but it takes a function such as optax.adam; "
            f"a transformation already built can be passed to fit and sweep as it is"
        )
    name = getattr(factory, "__name__", repr(factory))
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        check_names(name, signature, hyperparameters)
        _check_rate_given(factory, name, signature, hyperparameters)
        _check_no_none(name, signature, hyperparameters)
    given = {key: as_static(value) for key, value in hyperparameters.items()}
    for key, value in given.items():
        check_hyperparameter(name, key, value)
        _check_schedulable(factory, name, signature, key, value)
    return Optimizer(Call(factory, **given))


def as_optimizer(value: OptimizerLike) -> Optimizer:
    """Return the value itself if it is an `Optimizer`, or an `Optimizer` of a ready transformation.

    Raises:
      TypeError: If it is neither.
    """
    if isinstance(value, Optimizer):
        return value
    if hasattr(value, "init") and hasattr(value, "update") and not isinstance(value, type):
        return Optimizer(Call(_ready, transformation=as_transformation(value)))
    if isinstance(value, str):
        raise TypeError(
            f"optimizer is the text {value!r}, but it must be a value such as jf.optimizers.adam(0.1)"
            f"{did_you_mean(value, NAMES)} There are: {', '.join(NAMES)}"
        )
    if isinstance(value, Call):
        raise TypeError(f"optimizer is {show(value)}, but a schedule is a learning rate: write jf.optimizers.sgd(...)")
    kind = value if isinstance(value, type) else type(value)
    library = next((x for x in ("torch", "keras") if kind.__module__.startswith(f"{x}.")), None)
    if library:
        rate = {"torch": "lr", "keras": "learning_rate"}[library]
        raise TypeError(
            f"optimizer is {kind.__name__} of {library}, but it must be one that works on JAX arrays; write "
            f"jf.optimizers.{library}.{kind.__name__}({rate}=0.1), which makes the same steps"
        )
    if hasattr(value, "tx"):
        raise TypeError(f"optimizer is a {kind.__name__}, which holds an Optax transformation; pass that: optimizer.tx")
    name = getattr(value, "__name__", reprlib.repr(value))
    rate = "0.1" * (name not in JUDGES)
    hint = f"; call it: jf.optimizers.{name}({rate})" if name in NAMES else f"; write jf.optimizer({name}, ...)"
    raise TypeError(
        f"optimizer is {'the function ' * callable(value)}{name}, but it must be jf.optimizer(optax.adam, "
        f"learning_rate=0.1), a named one such as jf.optimizers.adam(0.1), or an Optax transformation"
        + (hint if callable(value) else "")
    )


def _ready(transformation):
    return transformation


def with_rate(optimizer: Optimizer, rate: float | Varied) -> Optimizer:
    """Return the optimizer with another learning rate or schedule.

    Raises:
      ValueError: If it takes none.
    """
    if "learning_rate" not in optimizer.hyperparameters:
        raise ValueError(
            f"optimizer is {optimizer!r}, which has no hyperparameter named learning_rate to be replaced; use a named "
            f"one such as jf.optimizers.adam(0.1), or jf.optimizer(factory, learning_rate=...)"
        )
    return Optimizer(Call(optimizer.call.function, **optimizer.hyperparameters | {"learning_rate": rate}))


def as_transformation(built: Any) -> Any:
    """Return an object with `init` and `update`, such as `optax.MultiSteps`, as an Optax transformation."""
    if isinstance(built, optax.GradientTransformation) or not (hasattr(built, "init") and hasattr(built, "update")):
        return built
    more = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(built.update).parameters.values())
    kind = optax.GradientTransformationExtraArgs if more else optax.GradientTransformation
    return kind(built.init, built.update)


def as_part(value: OptimizerLike, owner: str) -> Optimizer:
    """Return the value as an `Optimizer` that can be a part of another, named `owner`, which works on gradients.

    Raises:
      TypeError: If it is none, or a method that moves the params in its own way.
    """
    part = as_optimizer(value)
    if not part.traits.takes_gradients:
        raise TypeError(
            f"{owner}: {part.name} moves the params in its own way, by the whole loss, but {owner} passes gradients "
            f"on; use one that takes gradients, such as jf.optimizers.adam(0.1)"
        )
    return part


def _check_rate_given(factory: Callable, name: str, signature: inspect.Signature, given: dict[str, object]) -> None:
    """Raise a TypeError for a learning rate of None, given or by default, with which the updates would go uphill."""
    parameter = signature.parameters.get("learning_rate")
    if parameter is None or not _holds_none(given.get("learning_rate", parameter.default)):
        return
    firsts = {key: value.values[0] if isinstance(value, Axis) else value for key, value in given.items()}
    if _climbs(functools.partial(factory, **firsts | {"learning_rate": None})):
        default = "" if "learning_rate" in given else " by default"
        raise TypeError(
            f"{name}: learning_rate is None{default}, which scales nothing and so turns no gradient around: it would "
            f"climb; write learning_rate=1.0"
        )


def _check_no_none(name: str, signature: inspect.Signature, given: dict[str, object]) -> None:
    """Raise a TypeError for None where the default is a number."""
    for key, value in given.items():
        default = signature.parameters[key].default if key in signature.parameters else None
        if isinstance(default, (int, float)) and not isinstance(default, bool) and _holds_none(value):
            raise TypeError(
                f"{name}: {key} is None{f' in {value!r}' * isinstance(value, Axis)}, but it must be a number, as there "
                f"is none to leave it to; write {key}={default}, its default"
            )


def _holds_none(value: object) -> bool:
    values = value.values if isinstance(value, Axis) else [value]
    return not is_array(values) and any(x is None for x in values)


def _climbs(build: Callable) -> bool:
    """Return whether the first update for p**2 / 2 at 1 goes uphill; False if it cannot be built here."""
    try:
        transformation = optax.with_extra_args_support(as_transformation(build()))
        one = jnp.ones(())
        extra = {"value": one / 2, "grad": one, "value_fn": lambda p: p * p / 2}
        updates: Any = transformation.update(one, transformation.init(one), one, **extra)[0]
        return bool(updates > 0)
    except Exception:  # noqa: BLE001 (any factory of a user's own)
        return False


def _check_schedulable(
    factory: Callable, name: str, signature: inspect.Signature | None, key: str, value: object
) -> None:
    """Raise a TypeError for a schedule where one number is needed for the whole run."""
    is_schedule = isinstance(value, (Call, Optimizer)) or callable(value) and not isinstance(value, type)
    parameter = signature.parameters.get(key) if signature is not None else None
    if not is_schedule or parameter is None:
        return
    integer = parameter.annotation in (int, "int") or type(parameter.default) is int
    fixed = key == "learning_rate" and traits_of(factory).fixed_rate
    own = not traits_of(factory).takes_gradients and (factory.__module__ or "").startswith("jaxfit.")
    if integer or fixed or own:
        what = "the first step, which the signs of the gradients then change" if fixed else "the same in every step"
        raise TypeError(
            f"{name}: {key} is {show(value)}, but it takes no schedule, for it is {what}; pass one number, such as "
            f"{key}={parameter.default if isinstance(parameter.default, (int, float)) else 0.1}"
        )


def each(**optimizers: OptimizerLike) -> Optimizer:
    """Return an optimizer with one optimizer for each entry of params that are a dictionary.

    Args:
      **optimizers: By the name of the entry: `each(w=sgd(1e-4), b=sgd(1e-2))`; each as for `fit`.

    Raises:
      ValueError: If no optimizer is given; when it gets the params, if these have other entries.
      TypeError: If one is not an optimizer.

    Example:
      >>> sgd = jf.optimizers.each(w=jf.optimizers.sgd(0.5), b=jf.optimizers.sgd(0.25))
      >>> after = jf.step(lambda p: p["w"] ** 2 + p["b"] ** 2, {"w": 2.0, "b": 2.0}, optimizer=sgd)
      >>> float(after.params["w"]), float(after.params["b"])
      (0.0, 1.0)
    """
    if not optimizers:
        raise ValueError("each: no optimizer is given; name one for every entry of params, such as each(w=sgd(0.1))")
    return Optimizer(Call(_each, **{name: as_part(value, "each") for name, value in optimizers.items()}))


def _each(**transformations: optax.GradientTransformation) -> optax.GradientTransformation:
    by_name: Any = transformations
    return optax.partition(by_name, functools.partial(_entries, tuple(transformations)))


def _entries(names: tuple[str, ...], params: Params) -> dict[str, str]:
    have = tuple(params) if isinstance(params, dict) else None
    moving = {name for name in have or () if jax.tree.leaves(params[name])}  # what is held needs no optimizer
    if have is None or not moving <= set(names) <= set(have):
        came = f"a {type(params).__name__}" if have is None else f"a dictionary of {', '.join(map(str, have))}"
        raise ValueError(
            f"each: params are {came}, but there are optimizers for {', '.join(names)}; each takes one for every entry "
            f"of params that are a dictionary: add {_MISSING} for the others, and leave out those without an entry"
        )
    return {name: name if name in names else names[0] for name in have}


_MISSING = "sgd(0.1), or optax.set_to_zero() to hold them,"


def accumulated(optimizer: OptimizerLike, every: int) -> Optimizer:
    """Return an optimizer that makes one update for the mean of the gradients of `every` steps.

    In between the params do not change. With `every` mini-batches of one size, the update is that of all their rows at
    once. `optax.MultiSteps` does the same, in float32 unless told otherwise, and can be passed to `fit` as it is.

    Args:
      optimizer: As for `fit`.
      every: Number of gradients to average, two or more.

    Raises:
      TypeError: If `optimizer` is not an optimizer.
      ValueError: If `every` is not a whole number of at least 2.

    Example:
      >>> sgd = jf.optimizers.accumulated(jf.optimizers.sgd(0.25), every=2)
      >>> float(jf.fit(lambda p: p**2, 4.0, optimizer=sgd, steps=4).params)
      1.0
    """
    if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 2:
        raise ValueError(
            f"accumulated: every is {every!r}; it must be a whole number of gradients, two or more: for every single "
            f"one pass the optimizer itself"
        )
    return Optimizer(Call(_accumulated, optimizer=as_part(optimizer, "accumulated"), every=int(every)))


def _accumulated(optimizer: optax.GradientTransformation, every: int) -> optax.MultiSteps:
    floating = jnp.result_type(float)  # of the run's precision; Optax accumulates in float32
    return optax.MultiSteps(optimizer, every, accumulator_dtype=floating)


def clipped(optimizer: OptimizerLike, norm: float | Varied, *, eps: float | Varied = 0.0) -> Optimizer:
    """Return an optimizer whose gradients are first scaled down so that their norm together is at most `norm`.

    g * min(1, norm / (|g| + eps)). With eps=1e-6 it is PyTorch's clip_grad_norm_, by default that of Keras and Optax.

    Args:
      optimizer: As for `fit`.
      norm: The largest norm of all gradients together.
      eps: Added to the norm.

    Raises:
      TypeError: If `optimizer` is not an optimizer.
      ValueError: If `norm` is not a positive number.

    Example:
      >>> sgd = jf.optimizers.clipped(jf.optimizers.sgd(0.5), 1.0)
      >>> float(jf.step(lambda p: p**2, 4.0, optimizer=sgd).params)
      3.5
    """
    if isinstance(norm, (int, float)) and not (norm > 0 and not isinstance(norm, bool)):
        raise ValueError(f"clipped: norm is {norm!r}, but it must be a positive number, such as 1.0")
    return Optimizer(Call(_clipped, optimizer=as_part(optimizer, "clipped"), norm=norm, eps=eps))


def _clipped(optimizer: optax.GradientTransformation, norm: float, eps: float) -> optax.GradientTransformation:
    def scaled(grads, _):
        size = optax.tree.norm(grads) + eps
        factor = jnp.where(size > norm, norm / jnp.where(size > norm, size, 1), 1)
        return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads)

    return optax.chain(optax.stateless(scaled), optimizer)


class PlateauState(NamedTuple):
    """The state of an optimizer whose rate is lowered where the loss stays."""

    best: Array  # () the lowest loss so far
    bad: Array  # () int32 losses since then that were not better
    cooldown: Array  # () int32 steps for which none counts
    factor: Array  # () of the rate
    inner: Any  # the optimizer's own


def reduced_on_plateau(
    optimizer: OptimizerLike, *, factor: float | Varied = 0.1, patience: int = 10, threshold: float | Varied = 1e-4,
    relative: bool = True, cooldown: int = 0, least: float | Varied = 0.0,
) -> Optimizer:  # fmt: skip
    """Return an optimizer whose rate is lowered where the loss of the steps no longer falls.

    As a loop in PyTorch that calls ReduceLROnPlateau with the loss after each update: after more than `patience`
    losses in a row that are not better than the best, the rate of the next update is `factor` times what it was. Keras
    lowers it one loss earlier, so patience=n there is n - 1 here, and its threshold is absolute.

    Args:
      optimizer: One with a hyperparameter learning_rate, which is a number or an `Axis`.
      factor: Of the rate, below 1.
      patience: How many losses may be no better.
      threshold: A loss is better if below best * (1 - threshold), or, unless `relative`, below best - threshold.
      relative: Whether the threshold is a part of the best loss.
      cooldown: Number of losses after a drop that count as neither.
      least: The rate is not lowered below it.

    Raises:
      TypeError: If `optimizer` has no learning rate that can be lowered.
      ValueError: If a count is no whole number.

    Example:
      >>> sgd = jf.optimizers.reduced_on_plateau(jf.optimizers.sgd(1.0), factor=0.25, patience=1)
      >>> float(jf.fit(lambda p: p**2, 4.0, optimizer=sgd, steps=4).params)
      -2.0
    """
    part = as_part(optimizer, "reduced_on_plateau")
    rate = part.hyperparameters.get("learning_rate")
    if rate is None or callable(rate) or isinstance(rate, (Call, Optimizer)):
        raise TypeError(
            f"reduced_on_plateau: {part!r} has no learning_rate that is a number, which could be lowered; pass one "
            f"such as jf.optimizers.sgd(0.1)"
        )
    for name, value in (("patience", patience), ("cooldown", cooldown)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
            raise ValueError(f"reduced_on_plateau: {name} is {value!r}; it must be a whole number, zero or more")
    settings = {"factor": factor, "threshold": threshold, "least": least}
    given = {name: value for name, value in part.hyperparameters.items() if name != "learning_rate"}
    return Optimizer(
        Call(
            _reduced_on_plateau, learning_rate=rate, whole=part.call.function, patience=int(patience),
            relative=bool(relative), cooldown=int(cooldown), **{f"{k}_": v for k, v in settings.items()}, **given,
        )
    )  # fmt: skip


def _reduced_on_plateau(
    learning_rate: float, whole: Callable, patience: int, relative: bool, cooldown: int, factor_: float,
    threshold_: float, least_: float, **given: Any,
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    def at(factor):
        return optax.with_extra_args_support(
            Optimizer(Call(whole, learning_rate=learning_rate * factor, **given)).build()
        )

    def init(params):
        one = jnp.ones((), jnp.result_type(float))
        return PlateauState(one * jnp.inf, jnp.int32(0), jnp.int32(0), one, at(one).init(params))

    def update(updates, state, params=None, *, value, **extra):
        updates, inner = at(state.factor).update(updates, state.inner, params, value=value, **extra)
        better = value < (state.best * (1 - threshold_) if relative else state.best - threshold_)
        cooling = state.cooldown > 0
        bad = jnp.where(better | cooling, 0, state.bad + 1)
        drop = bad > patience
        lower = jnp.maximum(state.factor * factor_, least_ / learning_rate)
        return updates, PlateauState(
            jnp.where(better, value, state.best).astype(state.best.dtype),
            jnp.where(drop, 0, bad),
            jnp.where(drop, cooldown, state.cooldown - cooling),
            jnp.where(drop, lower, state.factor).astype(state.factor.dtype),
            inner,
        )

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def traits_of(factory: Callable) -> Traits:
    """Return the traits that the factory of a method carries, or those of a gradient method."""
    if factory is optax.rprop:
        return Traits(fixed_rate=True)
    traits = getattr(factory, "traits", None)
    return traits if isinstance(traits, Traits) else Traits()


def schedules_of(optimizer: Optimizer) -> dict[str, Callable]:
    """Return the hyperparameters of an optimizer that are functions of the step.

    These are a learning rate that is a schedule, and schedules for hyperparameters that the factory takes as numbers.
    """
    schedules = {}
    for name, value in optimizer.hyperparameters.items():
        built = value() if isinstance(value, Call) else value.build() if hasattr(value, "build") else value
        if callable(built) and (name == "learning_rate" or not takes_schedule(optimizer.call.function, name)):
            schedules[name] = built
    return schedules
