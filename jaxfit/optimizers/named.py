"""The named optimizers: what each takes, with Optax's defaults, and the recurrence of the paper that it follows.

In the formulas g is the gradient at step t = 1, 2, ..., params move by the last line, and products, roots and signs are
of every param for itself. Each hyperparameter that is a number may be an `Axis`, or a schedule of `jf.schedules`; a
`mask` is a tree of booleans like the params, or a function that makes one of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np
import optax

from jaxfit.optimizers import gauss_newton, quasi_newton, recurrences
from jaxfit.optimizers.building import Optimizer, optimizer
from jaxfit.optimizers.hyperparameters import Varied, check_hyperparameter
from jaxfit.problems.messages import near_keywords

_Declared = ParamSpec("_Declared")


def _of(factory: Callable) -> Callable[[Callable[_Declared, Any]], Callable[_Declared, Optimizer]]:
    """Make a function that declares hyperparameters into one that returns the factory's `Optimizer`.

    A default that is the factory's own is left to it, where it stays a Python number; what is given is a leaf.
    """

    def declare(function: Callable[_Declared, Any]) -> Callable[_Declared, Optimizer]:
        signature, theirs = inspect.signature(function), inspect.signature(factory).parameters
        own = {
            name: p.default
            for name, p in signature.parameters.items()
            if p.default is not p.empty and p.default != theirs[name].default
        }

        @functools.wraps(function)
        def make(*args, **kwargs):
            return optimizer(factory, **own | signature.bind_partial(*args, **kwargs).arguments)

        made: Any = make
        made.__signature__ = signature.replace(return_annotation=Optimizer)
        return near_keywords(made)

    return declare


@_of(optax.sgd)
def sgd(
    learning_rate: float | Varied,
    *,
    momentum: float | Varied | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
):
    """Gradient descent: params - learning_rate * g. With `momentum` it is `momentum`, or `nesterov`, by that name."""


@near_keywords
def momentum(learning_rate: float | Varied, beta: float | Varied = 0.9, *, accumulator_dtype: Any = None) -> Optimizer:
    """Heavy ball: velocity = beta * velocity + g; params - learning_rate * velocity. Polyak (1964)."""
    check_hyperparameter("momentum", "beta", beta)
    return sgd(learning_rate, momentum=beta, **_given(accumulator_dtype))


@near_keywords
def nesterov(learning_rate: float | Varied, beta: float | Varied = 0.9, *, accumulator_dtype: Any = None) -> Optimizer:
    """Momentum that looks ahead: params - learning_rate * (g + beta * velocity), the velocity with g. Nesterov (1983).

    The params are those at which the gradient is taken, as in Sutskever et al. (2013), section 2.
    """
    check_hyperparameter("nesterov", "beta", beta)
    return sgd(learning_rate, momentum=beta, nesterov=True, **_given(accumulator_dtype))


def _given(accumulator_dtype: Any) -> dict[str, Any]:
    return {} if accumulator_dtype is None else {"accumulator_dtype": accumulator_dtype}


@_of(optax.adagrad)
def adagrad(
    learning_rate: float | Varied,
    *,
    initial_accumulator_value: float | Varied = 0.1,
    eps: float | Varied = 1e-7,
):
    """Each gradient over the root of the sum of its squares so far. Duchi, Hazan and Singer (2011).

    s = s + g**2, from `initial_accumulator_value` (0 in the paper); params - learning_rate * g / sqrt(s + eps).
    """


@_of(optax.adadelta)
def adadelta(
    learning_rate: float | Varied = 1.0,
    *,
    rho: float | Varied = 0.9,
    eps: float | Varied = 1e-6,
    weight_decay: float | Varied = 0.0,
    weight_decay_mask: Any = None,
):
    """Each gradient scaled by the ratio of running sizes of past steps and gradients. Zeiler (2012), Algorithm 1.

    a = rho * a + (1 - rho) * g**2; step = g * sqrt(b + eps) / sqrt(a + eps); b = rho * b + (1 - rho) * step**2;
    params - learning_rate * step. `weight_decay` * params is first added to g.
    """


@_of(optax.rmsprop)
def rmsprop(
    learning_rate: float | Varied,
    *,
    decay: float | Varied = 0.9,
    eps: float | Varied = 1e-8,
    initial_scale: float | Varied = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | Varied | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
):
    """Each gradient over the root of a running mean of its squares. Hinton (2012), lecture 6e.

    v = decay * v + (1 - decay) * g**2; params - learning_rate * g / sqrt(v + eps). `centered` takes the square of a
    running mean of g off v: Graves (2013), arXiv:1308.0850. `momentum` works on the steps so made.
    """


@_of(optax.adam)
def adam(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = False,
):
    """A running mean of gradients over the root of one of squares, both corrected for their start. Kingma, Ba (2015).

    m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g**2;
    params - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t) + eps_root) + eps).
    """


@_of(optax.adamw)
def adamw(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: Any = None,
    weight_decay: float | Varied = 1e-4,
    mask: Any = None,
    nesterov: bool = False,
):
    """Adam with params shrunk apart from the gradient. Loshchilov and Hutter (2019), Algorithm 2.

    `adam`'s step, and learning_rate * weight_decay * params off the params where `mask` is True.
    """


@_of(optax.nadam)
def nadam(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = True,
):
    """Adam with Nesterov's look ahead. Dozat (2016), Algorithm 2, its v / (1 - b2**t) without one more b2.

    `adam` with b1 * m / (1 - b1**(t + 1)) + (1 - b1) * g / (1 - b1**t) in place of m / (1 - b1**t).
    """


@_of(optax.adamax)
def adamax(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
):
    """Adam with the largest recent gradient as its scale. Kingma and Ba (2015), section 7.1.

    u = max(b2 * u, |g| + eps); params - learning_rate * m / (1 - b1**t) / u.
    """


@_of(optax.amsgrad)
def amsgrad(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
):
    """Adam whose scale never shrinks: the largest v / (1 - b2**t) so far. Reddi, Kale and Kumar (2018), Algorithm 2.

    The paper corrects no mean for its start: that is bias_correction_mu=False, bias_correction_nu=False.
    """


@_of(optax.adabelief)
def adabelief(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-16,
    eps_root: float | Varied = 1e-16,
    nesterov: bool = False,
):
    """Adam scaled by the surprise in the gradient instead of its size. Zhuang et al. (2020), Algorithm 2.

    s = b2 * s + (1 - b2) * (g - m)**2 + eps_root; params - learning_rate * m / (1 - b1**t) / (sqrt(s / (1 - b2**t)) +
    eps), m as in `adam`.
    """


@_of(recurrences.radam)
def radam(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    threshold: float | Varied = 5.0,
    nesterov: bool = False,
):
    """Adam that waits with its scale until the scale is known well enough. Liu et al. (2020), Algorithm 2.

    rho_inf = 2 / (1 - b2) - 1; rho = rho_inf - 2 * t * b2**t / (1 - b2**t). From rho = `threshold` on (5 as in the
    authors' code; the paper says 4) `adam`'s step times sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2)
    rho)); before that params - learning_rate * m / (1 - b1**t).
    """


@_of(recurrences.yogi)
def yogi(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-3,
    initial_accumulator_value: float | Varied = 1e-6,
    bias_correction: bool = True,
):
    """Adam whose scale moves by steps of bounded size. Zaheer et al. (2018), Algorithm 2.

    v = v - (1 - b2) * sign(v - g**2) * g**2, from `initial_accumulator_value`, in place of `adam`'s v. The paper
    corrects no mean for its start: that is bias_correction=False.
    """


@_of(optax.lion)
def lion(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.99,
    mu_dtype: Any = None,
    weight_decay: float | Varied = 1e-3,
    mask: Any = None,
):
    """The sign of a running mean of gradients. Chen et al. (2023), Algorithm 2.

    params - learning_rate * (sign(b1 * m + (1 - b1) * g) + weight_decay * params), the last where `mask` is True;
    then m = b2 * m + (1 - b2) * g.
    """


@_of(recurrences.rprop)
def rprop(
    learning_rate: float | Varied,
    *,
    eta_minus: float | Varied = 0.5,
    eta_plus: float | Varied = 1.2,
    min_step_size: float | Varied = 1e-6,
    max_step_size: float | Varied = 50.0,
):
    """The sign of each gradient, with a step that grows while the sign stays. Riedmiller and Braun (1993).

    Each param's step, `learning_rate` at first, is multiplied by `eta_plus` where the gradient has the sign of the one
    before, and by `eta_minus` where it has turned, between the smallest and the largest; params - step * sign(g). Where
    it has turned the param stays, and the next gradient counts as the first.
    """


@near_keywords
def levenberg_marquardt(*, damping: Any = 1e-3, tolerance: Any = None) -> Optimizer:
    """Gauss-Newton steps, damped until they go down: for losses that know their residuals, in float64 by default.

    Judges convergence itself: CONVERGED where no step would change anything that the precision can tell, and the params
    are determined by the data; NOT_DETERMINED where the loss is at its least as well, but some params, or combinations
    of them, have no influence on it, and so stay where they were. `steps` counts refused steps too. No step depends on
    the units of params.

    Args:
      damping: At the start, against the squared norms of the Jacobian's columns. A leaf.
      tolerance: CONVERGED already where an undamped step would take no more than this part off the sum of squares; the
        params are then about sqrt(tolerance * (n - k)) of their standard errors from the minimum. A leaf.

    Raises:
      ValueError: If `tolerance` is not between 0 and 1.

    Source: Levenberg (1944), Marquardt (1963), scaled as by More (1978), the damping moved as by Nielsen (1999).
    """
    if tolerance is None:
        return optimizer(gauss_newton.levenberg_marquardt, damping=damping)
    if isinstance(tolerance, (bool, str)) or isinstance(tolerance, (int, float, np.floating)) and not 0 < tolerance < 1:
        raise ValueError(
            f"levenberg_marquardt: tolerance is {tolerance!r}, but it is a part of the sum of squares, from 0 to 1: "
            f"pass 1e-4, or None for as far as the precision tells"
        )
    return optimizer(gauss_newton.levenberg_marquardt, damping=damping, tolerance=tolerance)


@near_keywords
def lbfgs(*, memory: int = 10) -> Optimizer:
    """Gradients that learn the curvature from `memory` past ones, with a line search. Liu and Nocedal (1989).

    Judges convergence itself: CONVERGED where no param, moved by its own size, would change the loss by more than
    eps**0.6 of itself; or, for up to 64 params, where a step did not lower the loss and Newton's step would not either:
    what it promises is lost in the rounding of the loss. Params are measured in units of their start; no learning rate
    is needed.

    Raises:
      ValueError: If `memory` is not a whole number, at least 1.
    """
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise ValueError(f"lbfgs: memory is {memory!r}, but it counts past steps: a whole number, at least 1")
    return optimizer(quasi_newton.lbfgs, memory=memory)
