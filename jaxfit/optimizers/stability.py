"""Where an optimizer is stable: limits of the learning rate, by theory and from the growth of a diverged run.

Along an eigenvector of the Hessian with eigenvalue l an optimizer is a linear recurrence in a = learning_rate * l. It
is stable while all roots of its characteristic polynomial lie inside of the unit circle; with growing a the first one
leaves it at -1. An adaptive optimizer divides each param's gradient by a scale, its diagonal preconditioner D; for it
the Hessian is D^-1/2 H D^-1/2.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import DTypeLike

from jaxfit.optimizers import Optimizer
from jaxfit.optimizers.building import as_optimizer
from jaxfit.problems.axes import is_array
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import ArrayLike, OptimizerLike, PyTree


@dataclass(frozen=True)
class Limit:
    """A learning rate above which an optimizer leaves every minimum of this sharpness; or that no law is known.

    Attributes:
      learning_rate: Like the sharpness; infinite where nothing curves up, NaN if no law is known.
      law: In words, with the formula; or why there is none.
      known: Whether there is a law.
      preconditioned: Whether the law takes the sharpness of D^-1/2 H D^-1/2, D the optimizer's scale of every param.
    """

    learning_rate: float | np.ndarray
    law: str
    known: bool = True
    preconditioned: bool = False

    def __float__(self) -> float:
        if not self.known:
            raise ValueError(f"no law known: {self.law}")
        return float(self.learning_rate)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.learning_rate if self.known else float(self), dtype)

    def __repr__(self) -> str:
        if not self.known:
            return f"no law known: {self.law}"
        rate = np.asarray(self.learning_rate)
        shown = f"{rate:.8g}" if rate.ndim == 0 else np.array2string(rate, precision=6, separator=", ")
        return f"learning rate < {shown} ({self.law})"


@near_keywords
def stability_limit(optimizer: OptimizerLike, sharpness: ArrayLike) -> Limit:
    """Return the largest learning rate at which an optimizer is stable at a minimum with the given sharpness.

    Gradient descent: 2 / L; heavy ball: 2 (1 + b) / L; Nesterov: 2 (1 + b) / (L (1 + 2 b)). With L the largest
    eigenvalue of D^-1/2 H D^-1/2 and D held fixed: RMSprop and Adagrad 2 / L, Adam 2 (1 + b1) / ((1 - b1) L). The
    learning rate of the optimizer itself does not matter.

    Args:
      optimizer: As for `fit`.
      sharpness: L, the largest eigenvalue of the Hessian, from `jf.sharpness`; a number or an array.

    Returns:
      The limit, which prints with its law; for other optimizers it says that no law is known.

    Raises:
      ValueError: If the sharpness is that of another Hessian than the law needs.
      TypeError: If it is not a number.

    Source: Polyak (1964); Goh (2017), doi:10.23915/distill.00006; Cohen et al. (2021), arXiv:2103.00065, and (2022),
    arXiv:2207.14484.

    Example:
      >>> jf.stability_limit(jf.optimizers.momentum(0.1, beta=0.5), 2.0)
      learning rate < 1.5 (heavy ball, b = 0.5: 2 (1 + b) / sharpness)
    """
    largest = None if isinstance(sharpness, (Optimizer, str)) else np.asarray(sharpness)
    if largest is None or largest.dtype.kind not in "iuf" and not hasattr(sharpness, "preconditioned"):
        raise TypeError(
            f"stability_limit: sharpness is {reprlib.repr(sharpness)} ({type(sharpness).__name__}), but it is a "
            f"number, jf.sharpness(loss, params, data); the optimizer comes first"
        )
    optimizer = as_optimizer(optimizer)
    law = _law(optimizer)
    if law is None:
        return Limit(np.full(largest.shape, np.nan)[()], _why_not(optimizer), known=False)
    words, a, preconditioned = law
    given = getattr(sharpness, "preconditioned", preconditioned)
    if given != preconditioned:
        which, how = ("preconditioned Hessian", "..., preconditioner=D") if preconditioned else ("plain one", "...")
        raise ValueError(
            f"stability_limit: the sharpness is that of {'the preconditioned' if given else 'the plain'} Hessian, but "
            f"{optimizer.name}'s law takes that of the {which}: jf.sharpness({how})"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(largest > 0, a / largest, np.where(np.isnan(largest), np.nan, np.inf))[()]
    return Limit(rate, words, preconditioned=preconditioned)


def critical(momentum: float, *, nesterov: bool = False) -> float:
    """Return the largest stable learning_rate * eigenvalue of heavy ball or Nesterov momentum."""
    return 2 * (1 + momentum) / ((1 + 2 * momentum) if nesterov else 1)


def _law(optimizer: Optimizer) -> tuple[str, float, bool] | None:
    """Return (the law in words, the largest stable learning_rate * L, whether L is preconditioned), or None."""
    given, factory = optimizer.hyperparameters, optimizer.call.function
    b = given.get("momentum")
    if factory in (optax.sgd, optax.rmsprop) and not (b is None or is_concrete_number(b)):
        return None
    nesterov = bool(given.get("nesterov"))
    momentum = 0.0 if b is None else float(b)
    if factory is optax.sgd:
        if not momentum:
            return "gradient descent: 2 / sharpness", 2.0, False
        return (*_with_momentum(momentum, nesterov), False)
    if factory is optax.rmsprop and not given.get("centered"):
        words, a = _with_momentum(momentum, nesterov) if momentum else ("2 / sharpness", 2.0)
        return f"RMSprop, its scale held fixed: {words}", a, True
    if factory is optax.adagrad:
        return "Adagrad, its scale held fixed: 2 / sharpness", 2.0, True
    if factory is optax.adam and not nesterov and (b1 := given.get("b1", 0.9)) is not None and is_concrete_number(b1):
        a = 2 * (1 + float(b1)) / (1 - float(b1))
        return f"Adam, its scale held fixed, b1 = {float(b1):.4g}: 2 (1 + b1) / ((1 - b1) sharpness)", a, True
    return None


def _with_momentum(b: float, nesterov: bool) -> tuple[str, float]:
    formula = "2 (1 + b) / ((1 + 2 b) sharpness)" if nesterov else "2 (1 + b) / sharpness"
    return f"{'Nesterov' if nesterov else 'heavy ball'}, b = {b:.4g}: {formula}", critical(b, nesterov=nesterov)


def _why_not(optimizer: Optimizer) -> str:
    if optimizer.name == "optax":
        return "an Optax transformation built elsewhere does not tell its hyperparameters"
    if optimizer.traits.judges:
        return f"{optimizer.name} takes no learning rate"
    return (
        f"{optimizer!r} has none in terms of the sharpness; jf.measured_limit(loss, params, optimizer=...) measures it"
    )


def limit_from_growth(optimizer: Optimizer, growth: float) -> float | None:
    """Return the learning rate at which growth turns into decay, for a loss that is quadratic where it is steepest.

    There the error is multiplied by -r in every step, the loss by r**2 = growth, so that z = -r is a root: gradient
    descent 1 - a = z, heavy ball z**2 - (1 + b - a) z + b = 0, Nesterov z**2 - (1 + b)(1 - a) z + b (1 - a) = 0.

    Returns:
      The limit, or None where no law is known (adaptive methods, schedules, transformations built elsewhere).
    """
    given = optimizer.hyperparameters
    rate = given.get("learning_rate")
    if (
        optimizer.call.function is not optax.sgd
        or rate is None
        or not is_concrete_number(rate)
        or _law(optimizer) is None
    ):
        return None
    b = float(given.get("momentum") or 0.0)
    r, nesterov = float(np.sqrt(growth)), bool(given.get("nesterov"))
    a = 1 + r**2 / ((1 + b) * r + b) if nesterov else (r + 1) * (r + b) / r
    return float(rate) * critical(b, nesterov=nesterov) / a


def is_concrete_number(x: Any) -> bool:
    """Return whether x is one number that is not traced."""
    return isinstance(x, (int, float)) or (is_array(x) and np.ndim(x) == 0 and not isinstance(x, jax.core.Tracer))


def has_preconditioner(optimizer: object) -> bool:
    """Return whether `preconditioner` knows the D of this optimizer; not if its hyperparameters are schedules."""
    return (
        isinstance(optimizer, Optimizer)
        and optimizer.call.function in _SCALES
        and not _option(optimizer, "centered")
        and not any(callable(_option(optimizer, name)) for name in ("b2", "eps", "eps_root", "decay"))
    )


@near_keywords
def preconditioner(optimizer: OptimizerLike, opt_state: PyTree) -> PyTree:
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


def _option(optimizer: Optimizer, name: str, default: float = False) -> Any:
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


def _has_scale(x: object) -> bool:
    return hasattr(x, "nu")


def _only(opt_state: PyTree, kind: type) -> Any:
    states = [x for x in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind)) if isinstance(x, kind)]
    if not states:
        raise ValueError(
            f"opt_state is a {type(opt_state).__name__} without the {kind.__name__} of this optimizer; pass the "
            f".opt_state of jf.step with the same optimizer"
        )
    return states[0]


_SCALES: dict[Callable, Callable[[Optimizer, PyTree], PyTree]] = {
    optax.adam: _adam,
    optax.adamw: _adam,
    optax.rmsprop: _rmsprop,
    optax.adagrad: _adagrad,
}
