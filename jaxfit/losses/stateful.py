"""Losses that change a state as they are trained, such as batch statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxfit.losses.base import OfFunction, hashable, key_for, label, leaves_of, takes_key
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Params, PyTree


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Stateful(OfFunction):
    """The loss made by `stateful`."""

    evaluate: Callable | None = None

    stateful = True

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.function,) if self.evaluate is None else (self.function, self.evaluate)

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        if self.evaluate is None:
            return self.advance(params, *data, key=key)[0]
        return self.evaluate(params, *data, **(key_for(self.evaluate, key) if takes_key(self.evaluate) else {}))

    def advance(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Array, Params]:
        found = self.function(params, *data, **(key_for(self.function, key) if takes_key(self.function) else {}))
        if not (isinstance(found, tuple) and len(found) == 2):
            kind = "None" if found is None else f"a {type(found).__name__}"
            raise TypeError(
                f"{self}: {label(self.function)} returned {kind}, but it must return its loss and the params as they "
                f"are after it: `return loss, params`"
            )
        return jnp.asarray(found[0]), found[1]

    def __repr__(self) -> str:
        more = "" if self.evaluate is None else f", evaluate={label(self.evaluate)}"
        return f"stateful({label(self.function)}{more})"


@near_keywords
def stateful(function: Callable, evaluate: Callable | None = None) -> Stateful:
    """Return a loss that tells, beside its value, the state that the next step begins with.

    What the state is, the params say: `jf.Carried(value)` at a leaf, or around a subtree. No optimizer moves it; after
    each step it is what the function returned there. Of a module of Flax NNX all variables but `nnx.Param` are carried,
    so that batch statistics and dropout work as in a loop by hand. Params with their state are in every result, record,
    checkpoint and store, and `jf.resume` goes on with both.

    Args:
      function: f(params, *data) -> (loss, params after it), in the tree that it got; what is not carried is ignored
        there. It is what a step of training evaluates; with an argument `key` it gets the key of the step.
      evaluate: f(params, *data) -> loss, as it is outside of training (running averages instead of those of the batch,
        no dropout): for `fit.loss`, the validation loss and every verb that looks at a loss. By default `function`,
        whose new state is then ignored.

    With `evaluate` the history has the loss of training in each step, and `fit.loss` is that of `evaluate` at
    `fit.params`. Whether a run ended above its start is judged by the loss of training.

    Raises:
      TypeError: If a function cannot be called or hashed; in a fit, if it does not return the params, or nothing is
        carried; with a method that evaluates the loss more than once in a step, such as L-BFGS.

    Example:
      >>> def loss(params, x, y):
      ...     mean = x.mean()
      ...     found = ((params["w"] * (x - mean) - y) ** 2).mean()
      ...     return found, params | {"mean": 0.5 * params["mean"] + 0.5 * mean}
      >>> def later(params, x, y):
      ...     return ((params["w"] * (x - params["mean"]) - y) ** 2).mean()
      >>> x = np.array([1.0, 2.0, 3.0])
      >>> start = {"w": 0.0, "mean": jf.Carried(0.0)}
      >>> adam = jf.optimizers.adam(0.1)
      >>> run = jf.fit(jf.losses.stateful(loss, later), start, (x, 2 * x - 4), optimizer=adam, steps=200)
      >>> round(float(run.params["w"]), 3), round(float(run.params["mean"]), 3)
      (2.0, 2.0)
    """
    if evaluate is not None:
        hashable("evaluate", evaluate)
    return Stateful(hashable("function", function), evaluate)
