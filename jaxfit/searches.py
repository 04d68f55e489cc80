"""Methods without gradients: random search, coordinate search, and finite differences.

They are values for `optimizer=`, in `fit` and `sweep` alike, and need no loss that can be differentiated. What they
cost beside a gradient is a matter of counting: `evaluations` of the loss in a step, which for all but guessing grows
with the number of params, against `gradient_cost`, which does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxfit.optimizers import Optimizer, optimizer
from jaxfit.optimizers.methods import Objective, Proposal, Traits
from jaxfit.problems import convert_all
from jaxfit.problems.axes import as_number
from jaxfit.problems.data import as_data, check_data, floating_of_loss
from jaxfit.problems.messages import near_keywords, near_names
from jaxfit.problems.posing import as_params
from jaxfit.typing import KeyLike, PyTree, Varied
from jaxfit.verbs.fits import step


@near_keywords
def random_search(scale: float | Varied, key: KeyLike = 0) -> Optimizer:
    """Return a random search, which tries params + scale * N(0, 1) and keeps them only if the loss is lower.

    A step evaluates the loss twice: at the params (with mini-batches the loss differs in every step) and at the trial.

    Args:
      scale: Standard deviation of the trials, in the units of the params; a number or an `Axis` of them.
      key: A PRNG key or a seed for the trials, or an `Axis` of them.

    Raises:
      TypeError, ValueError: If `scale` is not one positive, finite number, or `key` is not a key.

    Example:
      >>> run = jf.fit(lambda p: p**2, 3.0, optimizer=jf.searches.random_search(0.5), steps=100)
      >>> bool(run.loss < 0.1)
      True
    """
    return optimizer(RandomSearch, scale=as_number("random_search: scale", scale), key=key)


@near_keywords
def coordinate_probing(
    width: float | Varied, *, finer: float | Varied = 0.5, finest: float | Varied = 0.0
) -> Optimizer:
    """Return a search that tries each param in turn at +width and -width, and keeps the best of the three values.

    If no param improves the loss, width is multiplied by `finer`. One step tries every param once, in the order of the
    tree's leaves, and evaluates the loss 2 n + 1 times for n params.

    Args:
      width: The first probe, in the units of the params.
      finer: Factor of the width after a step without improvement, between 0 and 1.
      finest: CONVERGED where the width is below; 0 means never.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them.

    Example:
      >>> search = jf.searches.coordinate_probing(1.0, finest=1e-3)
      >>> run = jf.fit(lambda p: (p - 2.5) ** 2, 0.0, optimizer=search)
      >>> run.status.name, float(run.params)
      ('CONVERGED', 2.5)
    """
    return optimizer(
        CoordinateProbing,
        width=as_number("coordinate_probing: width", width),
        finer=as_number("coordinate_probing: finer", finer, "a number between 0 and 1", lambda x: (x > 0) & (x < 1)),
        finest=as_number("coordinate_probing: finest", finest, "a finite number, zero or more", lambda x: x >= 0),
    )


@near_keywords
def finite_differences(
    learning_rate: float | Varied, delta: float | Varied, *, central: bool = True, in_turn: bool = False
) -> Optimizer:
    """Return gradient descent with a gradient from finite differences.

    The update is params - learning_rate * d with d_i = (loss(params + delta e_i) - loss(params - delta e_i)) / (2
    delta).

    Central differences are exact for a quadratic loss; otherwise their error is the third derivative * delta**2 / 6,
    plus the rounding error of the loss / delta. A step evaluates the loss 2 n + 1 times for n params. With forward
    differences, whose error is the second derivative * delta / 2, it evaluates the loss n + 1 times, if all params
    change at once.

    Args:
      learning_rate: A number.
      delta: The distance of the evaluations, in the units of the params. Where a param is so large that adding delta
        does not change it, d is not finite, and the run ends as NOT_FINITE.
      central: False for (loss(params + delta e_i) - loss(params)) / delta.
      in_turn: True updates every param before the next is probed, in the order of the tree's leaves.

    Raises:
      TypeError, ValueError: If one of them is not such a number, or an `Axis` of them.

    Example:
      >>> search = jf.searches.finite_differences(0.25, delta=0.5)
      >>> float(jf.fit(lambda p: p**2, 4.0, optimizer=search, steps=2).params)
      1.0
    """
    for name, value in (("central", central), ("in_turn", in_turn)):
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"finite_differences: {name} is {value!r}, but it must be True or False")
    return optimizer(
        FiniteDifferences,
        learning_rate=learning_rate,
        delta=as_number("finite_differences: delta", delta),
        central=bool(central),
        in_turn=bool(in_turn),
    )


@near_keywords
def differences(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    delta: float | Varied,
    central: bool = True,
    precision: str | None = None,
) -> PyTree:
    """Return the gradient of the loss by finite differences, like params; by default by central ones.

    Args:
      loss, params, data, precision: As for `fit`.
      delta, central: As for `finite_differences`.

    Example:
      >>> float(jf.searches.differences(lambda p: p**2, 3.0, delta=0.5))
      6.0
    """
    method = finite_differences(1.0, delta, central=central)
    return step(loss, params, data, optimizer=method, precision=precision).grads


@near_keywords
def evaluations(optimizer: Optimizer, params: PyTree) -> int:
    """Return how often one step of a search evaluates the loss, for params of this size.

    Raises:
      TypeError: If the optimizer is another one, which takes gradients.

    Example:
      >>> jf.searches.evaluations(jf.searches.coordinate_probing(1.0), {"a": 0.0, "b": 0.0})
      5
    """
    method = optimizer.call.function if isinstance(optimizer, Optimizer) else None
    if method not in (RandomSearch, CoordinateProbing, FiniteDifferences):
        raise TypeError(
            f"optimizer is {optimizer!r}, but evaluations counts those of a method that only evaluates the loss, such "
            f"as jf.searches.random_search(0.1); for a gradient see jf.searches.gradient_cost"
        )
    n = sum(int(np.prod(np.shape(leaf), dtype=int)) for leaf in jax.tree.leaves(as_params(params)))
    if method is RandomSearch:
        return 2
    given = optimizer.hyperparameters
    one_sided = method is FiniteDifferences and not (given["central"] or given["in_turn"])
    return n + 1 if one_sided else 2 * n + 1


@near_keywords
def gradient_cost(loss: Callable, params: PyTree, data: tuple = ()) -> float:
    """Return the cost of the loss with its gradient in units of the loss alone: 2 to 4, for any number of params.

    Counted by XLA in the program as it is written, before it is compiled: no clock is involved.

    Source: Baur and Strassen (1983), doi:10.1016/0304-3975(83)90110-X, who prove a bound that does not depend on the
    number of params.

    Example:
      >>> import jax.numpy as jnp
      >>> 1 < jf.searches.gradient_cost(lambda p: jnp.sum(p**2), np.ones(9)) < 5
      True
    """
    data = floating_of_loss(loss, params, as_data(data), None, "float32")
    check_data(data, loss, rows=False)
    arguments = convert_all((as_params(params), data), "float32")

    def arithmetic(function):
        found = jax.jit(function).lower(arguments[0], *arguments[1]).cost_analysis()
        return (found or {}).get("flops", 0.0)

    alone, both = arithmetic(loss), arithmetic(jax.value_and_grad(loss))
    if not alone > 0:
        raise ValueError("gradient_cost: no arithmetic was counted in the loss, so there is nothing to compare with")
    return float(both / alone)


# The methods


def inside(objective: Objective, back: Callable, flat: Array) -> Array:
    """Return the flat params put back between their bounds."""
    return ravel_pytree(objective.between_bounds(back(flat)))[0]


class RandomSearch(NamedTuple):
    """Random search; the memory is the number of guesses made."""

    scale: Array
    key: Array

    traits = Traits(differentiates=False, finds_gradient=False)

    def init(self, objective: Objective, params: PyTree) -> Array:
        return jnp.int32(0)

    def step(self, objective: Objective, params: PyTree, memory: Array) -> Proposal:
        here, back = ravel_pytree(params)
        there = here + self.scale * jax.random.normal(jax.random.fold_in(self.key, memory), here.shape, here.dtype)
        there = inside(objective, back, there)
        loss = objective(params)
        better = objective(back(there)) < loss
        return Proposal(loss, None, back(jnp.where(better, there, here)), memory + 1)


class CoordinateProbing(NamedTuple):
    """Coordinate search; the memory is the width of the probes."""

    width: Array
    finer: Array
    finest: Array

    traits = Traits(judges=True, differentiates=False, finds_gradient=False)

    def init(self, objective: Objective, params: PyTree) -> Array:
        return jnp.asarray(self.width, ravel_pytree(params)[0].dtype)

    def step(self, objective: Objective, params: PyTree, memory: Array) -> Proposal:
        start, back = ravel_pytree(params)
        loss = objective(params)

        def turn(i, carry):
            here, least = carry
            for signed in (memory, -memory):
                there = inside(objective, back, carry[0].at[i].add(signed))
                loss_there = objective(back(there))
                better = loss_there < least
                here, least = jnp.where(better, there, here), jnp.where(better, loss_there, least)
            return here, least

        there, least = jax.lax.fori_loop(0, start.size, turn, (start, loss))
        width = jnp.where(least < loss, memory, memory * self.finer)
        return Proposal(loss, None, back(there), width, memory < self.finest)


class FiniteDifferences(NamedTuple):
    """Gradient descent by finite differences, which count as the gradient; it has no memory."""

    learning_rate: Array
    delta: Array
    central: bool
    in_turn: bool

    traits = Traits(differentiates=False)

    def init(self, objective: Objective, params: PyTree) -> tuple:
        return ()

    def step(self, objective: Objective, params: PyTree, memory: tuple) -> Proposal:
        start, back = ravel_pytree(params)
        loss = objective(params)

        def turn(i, carry):
            here, slopes = carry
            right = inside(objective, back, here.at[i].add(self.delta))
            if self.central:
                left = inside(objective, back, here.at[i].add(-self.delta))
                fall = objective(back(right)) - objective(back(left))
            else:
                left = here
                known = objective(back(here)) if self.in_turn else loss
                fall = objective(back(right)) - known
            slopes = slopes.at[i].set(fall / (right[i] - left[i]))  # what was really added, after rounding
            if self.in_turn:
                here = inside(objective, back, here.at[i].add(-self.learning_rate * slopes[i]))
            return here, slopes

        here, slopes = jax.lax.fori_loop(0, start.size, turn, (start, jnp.zeros_like(start)))
        there = here if self.in_turn else inside(objective, back, start - self.learning_rate * slopes)
        return Proposal(loss, back(slopes), back(there), memory, skipped=False)


__all__ = [
    "coordinate_probing", "differences", "evaluations", "finite_differences", "gradient_cost", "random_search",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
