"""What a method of optimization is, and the usual one: a gradient, transformed by Optax, added to the params."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.losses import Block
from jaxfit.problems.marks import bounds, plain, put
from jaxfit.typing import PyTree


@dataclass(frozen=True)
class Objective:
    """The loss as a function of the free params alone; a method may also ask for its residuals, and for the bounds."""

    loss: Callable
    data: tuple
    extra: dict[str, Array]  # the step's key, if the loss takes one
    marked: PyTree = None  # the params with their marks, or None if there are no marks

    def __call__(self, free: PyTree) -> Array:
        return self.loss(self.complete(free), *self.data, **self.extra)

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
        return free if limits is None else between(free, *limits)


class Proposal(NamedTuple):
    """What a method found at params, and where it would go."""

    loss: Array  # () at the params it was asked about
    grads: PyTree  # like params; zero where it pushes against a bound
    params: PyTree  # after the step
    memory: PyTree
    converged: Array | bool = False  # () the method's own verdict on the params it was asked about
    undetermined: Array | bool = False  # () the loss is at its least there, but the data do not determine the params
    skipped: Array | bool | None = None  # () whether no step was made, which then says nothing about the next one;
    # None: where the params stay though the gradient is not zero


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
    numpy: bool = False

    @property
    def takes_gradients(self) -> bool:
        """Whether the method only transforms gradients, so that it can be a part of another optimizer."""
        return self.differentiates and not (self.judges or self.residuals or self.deterministic)


class Method(Protocol):
    """How to move the free params; `Traits` tells what else its factory may say about it."""

    def init(self, objective: Objective, params: PyTree) -> PyTree: ...

    def step(self, objective: Objective, params: PyTree, memory: PyTree) -> Proposal: ...


class GradientMethod(NamedTuple):
    """A gradient, transformed by Optax, added to the params, which are then put back between their bounds."""

    transformation: optax.GradientTransformationExtraArgs

    def init(self, objective: Objective, params: PyTree) -> PyTree:
        return self.transformation.init(params)

    def step(self, objective: Objective, params: PyTree, memory: PyTree) -> Proposal:
        loss, grads = jax.value_and_grad(objective)(params)
        limits = objective.bounds
        if limits is not None:
            grads = inward(grads, params, *limits)
        updates, memory = self.transformation.update(grads, memory, params, value=loss, grad=grads, value_fn=objective)
        skipped = ~any_nonzero(updates) & any_nonzero(grads) | accumulating(memory)
        params = optax.apply_updates(params, updates)
        return Proposal(loss, grads, params if limits is None else between(params, *limits), memory, skipped=skipped)


def any_nonzero(tree: PyTree) -> Array:
    found = [jnp.any(x != 0) for x in jax.tree.leaves(tree)]
    return jnp.stack(found).any() if found else jnp.asarray(False)


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


def between(params: PyTree, low: PyTree, high: PyTree) -> PyTree:
    return jax.tree.map(jnp.clip, params, low, high)
