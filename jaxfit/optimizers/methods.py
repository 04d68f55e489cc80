"""What a method of optimization is, and its hyperparameters.

The usual method adds a gradient, transformed by Optax, to the params. Hyperparameters are checked, printed, and may
change with the step.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxfit.losses import Block
from jaxfit.losses.base import is_stateful
from jaxfit.problems.axes import Axis, Call, is_array, is_key, refuse_unit
from jaxfit.problems.bounds import bounds
from jaxfit.problems.marks import carried_after, plain, put
from jaxfit.problems.messages import did_you_mean
from jaxfit.typing import PyTree


@dataclass(frozen=True)
class Objective:
    """The loss as a function of the free params alone; a method may also ask for its residuals, and for the bounds."""

    loss: Callable
    data: tuple
    extra: dict[str, Array]  # the step's key, if the loss takes one
    marked: PyTree = None  # the params with their marks, or None if there are no marks
    affine: Callable | None = None  # affine(function, flat): places of the numbers in which the function is affine

    def __call__(self, free: PyTree) -> Array:
        return self.loss(self.complete(free), *self.data, **self.extra)

    def advance(self, free: PyTree) -> tuple[Array, PyTree]:
        """Return the loss as a step of training sees it, and what it carries to the next step; None if nothing."""
        if not is_stateful(self.loss):
            return self(free), None
        loss, after = self.loss.advance(self.complete(free), *self.data, **self.extra)
        return loss, carried_after(self.marked, after)

    def blocks(self, free: PyTree) -> tuple[Block, ...]:
        """Return the residuals of the loss, in blocks; for losses with `knows_residuals`."""
        return self.loss.blocks(self.complete(free), *self.data, **self.extra)

    def complete(self, free: PyTree) -> PyTree:
        """Return the params as the loss knows them."""
        return free if self.marked is None else plain(put(self.marked, free))

    @property
    def bounds(self) -> tuple[PyTree, PyTree] | None:
        """The lowest and highest free params, like them; None if none is bounded."""
        return None if self.marked is None else bounds(self.marked)

    def between_bounds(self, free: PyTree) -> PyTree:
        """Return the nearest free params within their bounds."""
        limits = self.bounds
        return free if limits is None else clipped_to(free, *limits)


class Proposal(NamedTuple):
    """The result of one step of a method: what it found at the params, and the params it proposes."""

    loss: Array  # () at the params it was asked about
    grads: PyTree  # like params; zero where it pushes against a bound
    params: PyTree  # after the step
    memory: PyTree
    converged: Array | bool = False  # () the method's own verdict on the params it was asked about
    undetermined: Array | bool = False  # () the loss is at its least there, but the data do not determine the params
    skipped: Array | bool | None = None  # () whether no step was made, which is then no sign of convergence;
    # None: where the params stay though the gradient is not zero
    state: PyTree = None  # what a stateful loss carries to the next step
    last: PyTree = None  # where the params come to rest if `converged` ends the run; None: where they are
    asks: Array | bool = False  # () whether the verdict is yet to come, from `settle` of the method; of a single run


@dataclass(frozen=True)
class Traits:
    """What jaxfit must know about a method before it builds it; the defaults are those of a gradient method of Optax.

    A factory (a function, or the class of the method) carries its traits as the attribute `traits`.

    Attributes:
      judges: Whether `Proposal.converged` of the method ends the run, so that it is checked after every step.
      residuals: Whether it calls `objective.blocks`, and so needs a loss with residuals.
      deterministic: Whether it compares losses of different steps, and so takes neither batches nor a random loss.
      differentiates: Whether it differentiates the loss, so that a loss without a derivative deserves a warning.
      finds_gradient: Whether `Proposal.grads` is a gradient, which may be watched and recorded.
      fixed_rate: Whether its learning rate sets the first step only, and so takes no schedule.
      precision: What it runs in if the caller names none; None for the default.
      chunk: Steps after which a sweep checks which lanes have ended, small for a method that needs few steps; None for
        the default.
      settles: Whether its verdict is left to a program of its own, `settle(objective, params, memory) -> memory`, where
        it is traced under `judged_apart`. Programs that make steps then compile without it.
      numpy: Whether its arithmetic takes arrays of NumPy too, so that a single run needs no program but that of the
        residuals and their slopes. Then it has `begin`, `look` and `move` as `LevenbergMarquardt` has.
    """

    judges: bool = False
    residuals: bool = False
    deterministic: bool = False
    differentiates: bool = True
    finds_gradient: bool = True
    fixed_rate: bool = False
    precision: str | None = None
    chunk: int | None = None
    settles: bool = False
    numpy: bool = False

    @property
    def takes_gradients(self) -> bool:
        """Whether the method only transforms gradients, so that it can be a part of another optimizer."""
        return self.differentiates and not (self.judges or self.residuals or self.deterministic)


_apart: contextvars.ContextVar[bool] = contextvars.ContextVar("_apart", default=False)
is_judged_apart = _apart.get


@contextlib.contextmanager
def judged_apart(wanted: bool) -> Iterator[None]:
    """Trace for a single run whose method may leave its verdict to `settle`."""
    token = _apart.set(wanted)
    try:
        yield
    finally:
        _apart.reset(token)


class Method(Protocol):
    """A rule that moves the free params; its factory declares its `Traits`."""

    def init(self, objective: Objective, params: PyTree) -> PyTree: ...

    def step(self, objective: Objective, params: PyTree, memory: PyTree) -> Proposal: ...


class GradientMethod(NamedTuple):
    """A gradient, transformed by Optax, added to the params, which are then put back between their bounds."""

    transformation: optax.GradientTransformationExtraArgs

    def init(self, objective: Objective, params: PyTree) -> PyTree:
        return self.transformation.init(params)

    def step(self, objective: Objective, params: PyTree, memory: PyTree) -> Proposal:
        (loss, state), grads = jax.value_and_grad(objective.advance, has_aux=True)(params)
        limits = objective.bounds
        if limits is not None:
            grads = inward(grads, params, *limits)
        updates, memory = self.transformation.update(grads, memory, params, **self._told(loss, grads, objective))
        skipped = ~any_nonzero(updates) & any_nonzero(grads) | accumulating(memory)
        params = optax.apply_updates(params, updates)
        params = params if limits is None else clipped_to(params, *limits)
        return Proposal(loss, grads, params, memory, skipped=skipped, state=state)

    def _told(self, loss: Array, grads: PyTree, objective: Objective) -> dict[str, Any]:
        """Return what else the transformation is told of the step, by the names that those of Optax take."""

        def value(params: PyTree, grad_fn: Callable | None = None, obj_fn: Callable | None = None) -> Array:
            return objective.advance(params)[0]  # the names are there since Optax refuses what nobody takes

        told = {
            "value": loss, "grad": grads, "value_fn": value,
            "obj_fn": value, "grad_fn": lambda params, _: jax.grad(value)(params),  # of Sophia, of SAM
        }  # fmt: skip
        takes = inspect.signature(self.transformation.update).parameters
        if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            return told
        return {name: x for name, x in told.items() if name in takes}


def any_nonzero(tree: PyTree) -> Array:
    nonzero = [jnp.any(x != 0) for x in jax.tree.leaves(tree)]
    return jnp.stack(nonzero).any() if nonzero else jnp.asarray(False)


def accumulating(memory: PyTree) -> Array:
    """Return whether a `MultiSteps`, of all params or of some, has gradients that it has not yet used."""

    def waits(x):
        return isinstance(x, optax.MultiStepsState)

    states = [x for x in jax.tree.leaves(memory, is_leaf=waits) if waits(x)]
    return any_nonzero([state.mini_step for state in states])


def inward(grads: PyTree, params: PyTree, low: PyTree, high: PyTree) -> PyTree:
    """Return the gradient with zeros where it would push a param on a bound beyond it."""

    def leaf(g, p, low, high):
        return jnp.where(((p <= low) & (g > 0)) | ((p >= high) & (g < 0)), 0, g)

    return jax.tree.map(leaf, grads, params, low, high)


def clipped_to(params: PyTree, low: PyTree, high: PyTree) -> PyTree:
    return jax.tree.map(jnp.clip, params, low, high)


@dataclass(frozen=True)
class Mask:
    """A tree of booleans as a value that can be hashed; Optax asks for it as for any function of the params."""

    chosen: tuple[bool, ...]
    structure: Any

    def __call__(self, params: PyTree) -> PyTree:
        return jax.tree.unflatten(self.structure, self.chosen)

    def __repr__(self) -> str:
        return repr(self(None))


def as_static(value: Any) -> Any:
    """Return a dtype as its name, a tree of booleans as a `Mask`, and everything else unchanged."""
    if isinstance(value, np.dtype):
        return value.name
    leaves, structure = jax.tree.flatten(value)
    if isinstance(value, (dict, list, tuple)) and leaves and all(isinstance(x, (bool, np.bool_)) for x in leaves):
        return Mask(tuple(map(bool, leaves)), structure)
    return value


def check_names(name: str, signature: inspect.Signature, given: dict[str, object]) -> None:
    """Raise a TypeError for hyperparameters that the factory does not take, or that are missing.

    Raises:
      TypeError: Which names it takes, or what to write for the missing one.
    """
    parameters = signature.parameters.values()
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in given:
            if key not in takes:
                near = did_you_mean(key, takes)
                raise TypeError(f"{name} takes no hyperparameter {key!r}{near} It takes {', '.join(takes) or 'none'}")
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in given
    ]
    if missing:
        example = "optax.sgd(0.1)" if "optimizer" in missing[0] else "0.1"
        raise TypeError(f"{name} needs the hyperparameter {missing[0]!r}: write {missing[0]}={example}")


_FRACTION = "it must be a number in [0, 1): 0 forgets at once, 1 never does", lambda x: (x >= 0) & (x < 1)
_RATE = "it must be a positive, finite number such as 0.01, or a schedule", lambda x: np.isfinite(x) & (x > 0)
_DAMPING = "it must be a finite number, zero or more", lambda x: np.isfinite(x) & (x >= 0)
_RULES = {
    "learning_rate": _RATE, "damping": _DAMPING,
    **dict.fromkeys(
        ("momentum", "beta", "b1", "b2", "b3", "beta1", "beta2", "beta_1", "beta_2", "betas", "decay", "rho"), _FRACTION
    ),
}  # fmt: skip
_ANY = "it must be a number", lambda x: ~np.isnan(x)


def check_hyperparameter(name: str, key: str, value: Any) -> None:
    """Check a hyperparameter, and refuse numbers with which no optimizer can work.

    Traced values pass, and schedules are checked when a run begins.

    Raises:
      TypeError: If a learning rate or momentum is not one number, or any hyperparameter is complex.
      ValueError: If it is out of its range, or any hyperparameter is NaN.
    """
    refuse_unit(f"{name}: {key}", value)
    if isinstance(value, tuple) and key in _RULES:
        for position, item in enumerate(value):
            check_hyperparameter(name, f"{key}[{position}]", item)
        return
    swept = isinstance(value, Axis)
    numbers = value.values if swept else value
    if swept and not is_array(numbers):
        for position, item in enumerate(numbers):
            check_hyperparameter(f"{name} (value {position} of axis {value.name!r})", key, item)
        return
    known = not (isinstance(numbers, jax.core.Tracer) or callable(numbers) or is_key(numbers))
    if not known or numbers is None or hasattr(numbers, "build"):  # a schedule made by `optimizer`
        return
    array = np.asarray(numbers if np.isscalar(numbers) or is_array(numbers) else None)
    real = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, np.floating)
    rule, holds = _RULES.get(key.split("[")[0], _ANY)
    if (rule is not _ANY[0] and not (real and array.ndim == swept)) or array.dtype.kind == "c":
        raise TypeError(f"{name}: {key} is {reprlib.repr(value)} ({type(numbers).__name__}), but {rule}")
    bad = ~holds(array) if real else np.zeros(0, bool)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f" (value {first[0]} of axis {value.name!r})" if swept else f" at index {first}" if first else ""
        climbs = "; a negative one climbs" if key == "learning_rate" and array[first] < 0 else ""
        raise ValueError(f"{name}: {key} is {array[first]}{where}, but {rule}{climbs}")


def show(value: Any) -> str:
    """Return a hyperparameter as text for the `repr` of its optimizer."""
    if is_key(value):
        return "a key"
    if is_array(value) and np.ndim(value) == 0 and not isinstance(value, jax.core.Tracer):
        return f"{float(value):.6g}"
    if isinstance(value, Call):
        name = getattr(value.function, "__name__", repr(value.function)).removeprefix("_")
        return f"{name}({', '.join(f'{k}={show(v)}' for k, v in value.given.items())})"
    return getattr(value, "__name__", None) or repr(value)


class ScheduledState(NamedTuple):
    """The state of a scheduled optimizer."""

    count: Array  # () int32 updates made
    inner: PyTree  # the optimizer's own


def scheduled(build: Callable[..., Any], schedules: dict[str, Callable]) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer whose update at step t is that of `build(**{name: schedule(t)})`, the state kept."""

    def at(count):
        numbers = {name: jnp.asarray(schedule(count)) for name, schedule in schedules.items()}
        return optax.with_extra_args_support(build(**numbers))

    def init(params):
        count = jnp.int32(0)
        return ScheduledState(count, at(count).init(params))

    def update(updates, state, params=None, **extra):
        updates, inner = at(state.count).update(updates, state.inner, params, **extra)
        return updates, ScheduledState(state.count + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def takes_schedule(factory: Callable, name: str) -> bool:
    """Return whether the factory itself takes a function of the step for this hyperparameter.

    So says its annotation; without one a default that is a number says no, and a function is passed on as it is.
    """
    try:
        parameter = inspect.signature(factory).parameters.get(name)
    except (TypeError, ValueError):
        return True
    if parameter is None or parameter.kind is parameter.VAR_KEYWORD:
        return True
    words = str(parameter.annotation)
    if parameter.annotation is not parameter.empty:
        return "Callable" in words or "Schedule" in words or not ("float" in words or "Array" in words)
    return not isinstance(parameter.default, (int, float)) or isinstance(parameter.default, bool)
