"""The scale by which an adaptive optimizer divides each param's gradient: its diagonal preconditioner D."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxfit.optimizers import Optimizer, as_optimizer
from jaxfit.problems.messages import near_keywords

PyTree = Any


def has_preconditioner(optimizer: Any) -> bool:
    """Return whether `preconditioner` knows the D of this optimizer; not if its hyperparameters are schedules."""
    return (
        isinstance(optimizer, Optimizer)
        and optimizer.call.function in _SCALES
        and not _option(optimizer, "centered")
        and not any(callable(_option(optimizer, name)) for name in ("b2", "eps", "eps_root", "decay"))
    )


@near_keywords
def preconditioner(optimizer: Any, opt_state: PyTree) -> PyTree:
    """Return the preconditioner D of an adaptive optimizer's last update, params - learning_rate * m / D.

    m is a running mean of gradients. Adam: D = sqrt(v / (1 - b2**t)) + eps; RMSprop: sqrt(v + eps); Adagrad:
    sqrt(sum of squares + eps).

    Args:
      optimizer: `adam`, `adamw`, `rmsprop` or `adagrad` of jf.optimizers.
      opt_state: Its state after at least one update: `jf.step(...).opt_state`. A run keeps D at every record with
        `record=jf.Record(what=("loss", "preconditioner"))`.

    Returns:
      Positive numbers, like the free params.

    Raises:
      ValueError: If the optimizer scales all params alike, or in a way that is not known here.

    Example:
      >>> adam = jf.optimizers.adam(0.1)
      >>> after = jf.step(lambda p: p**2, 3.0, optimizer=adam)
      >>> round(float(jf.preconditioner(adam, after.opt_state)), 3)
      6.0
    """
    optimizer = as_optimizer(optimizer)
    if not has_preconditioner(optimizer):
        raise ValueError(unknown(optimizer))
    return _SCALES[optimizer.call.function](optimizer, opt_state)


def unknown(optimizer: Optimizer) -> str:
    names = ", ".join(f.__name__ for f in _SCALES)
    return f"{optimizer.name} keeps no scale of its own for every param that is known here; {names} do"


def _option(optimizer: Optimizer, name: str, default: Any = False) -> Any:
    return optimizer.hyperparameters.get(name, default)


def _adam(optimizer: Optimizer, opt_state: PyTree) -> PyTree:
    state = _only(opt_state, optax.ScaleByAdamState)
    b2, eps = _option(optimizer, "b2", 0.999), _option(optimizer, "eps", 1e-8)
    root = _option(optimizer, "eps_root", 0.0)
    return jax.tree.map(lambda v: jnp.sqrt(v / (1 - b2**state.count) + root) + eps, state.nu)


def _rmsprop(optimizer: Optimizer, opt_state: PyTree) -> PyTree:
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=_has_scale) if _has_scale(x)]
    eps, decay = _option(optimizer, "eps", 1e-8), _option(optimizer, "decay", 0.9)
    corrected = 1 - decay ** states[0].count if _option(optimizer, "bias_correction") else 1.0
    if _option(optimizer, "eps_in_sqrt", True):
        return jax.tree.map(lambda v: jnp.sqrt(v / corrected + eps), states[0].nu)
    return jax.tree.map(lambda v: jnp.sqrt(v / corrected) + eps, states[0].nu)


def _adagrad(optimizer: Optimizer, opt_state: PyTree) -> PyTree:
    state = _only(opt_state, optax.ScaleByRssState)
    return jax.tree.map(lambda s: jnp.sqrt(s + _option(optimizer, "eps", 1e-7)), state.sum_of_squares)


def _has_scale(x: Any) -> bool:
    return hasattr(x, "nu")


def _only(opt_state: PyTree, kind: type) -> Any:
    found = [x for x in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind)) if isinstance(x, kind)]
    if not found:
        raise ValueError(
            f"opt_state is a {type(opt_state).__name__} without the {kind.__name__} of this optimizer; pass the "
            f".opt_state of jf.step with the same optimizer"
        )
    return found[0]


_SCALES: dict[Callable, Callable[[Optimizer, PyTree], PyTree]] = {
    optax.adam: _adam,
    optax.adamw: _adam,
    optax.rmsprop: _rmsprop,
    optax.adagrad: _adagrad,
}
