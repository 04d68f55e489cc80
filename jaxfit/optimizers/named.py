"""The named optimizers: what each takes, with Optax's defaults, and the recurrence of the paper that it follows.

In the formulas g is the gradient at step t = 1, 2, ..., params move by the last line, and products, roots and signs are
of every param for itself. Each hyperparameter that is a number may be an `Axis`, or a schedule of `jf.schedules`; a
`mask` is a tree of booleans like the params, or a function that makes one of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias

import jax
import numpy as np
import optax
from numpy.typing import DTypeLike

from jaxfit.optimizers import gauss_newton, quasi_newton, recurrences
from jaxfit.optimizers.building import Optimizer, optimizer
from jaxfit.optimizers.methods import check_hyperparameter
from jaxfit.problems.axes import Axis
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import Params, PyTree, Varied

Mask: TypeAlias = (
    "PyTree | Callable[[Params], PyTree]"  # a tree of booleans like the params, or a function that makes one
)
_Declared = ParamSpec("_Declared")


def _hyperparameters_of(factory: Callable) -> Callable[[Callable[_Declared, None]], Callable[_Declared, Optimizer]]:
    """Make a function that declares hyperparameters into one that returns the factory's `Optimizer`.

    A default that is the factory's own is left to it, where it stays a Python number; what is given is a leaf.
    """

    def declare(function: Callable[_Declared, None]) -> Callable[_Declared, Optimizer]:
        signature, theirs = inspect.signature(function), inspect.signature(factory).parameters
        own = {
            name: p.default
            for name, p in signature.parameters.items()
            if p.default is not p.empty and p.default != theirs[name].default
        }

        @functools.wraps(function)
        def make(*args, **kwargs):
            return optimizer(factory, **own | signature.bind_partial(*args, **kwargs).arguments)

        declared: Any = make
        declared.__signature__ = signature.replace(return_annotation=Optimizer)
        return near_keywords(declared)

    return declare


@_hyperparameters_of(optax.sgd)
def sgd(
    learning_rate: float | Varied,
    *,
    momentum: float | Varied | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
):
    """Return gradient descent: params - learning_rate * g.

    With `momentum` it is the same as `momentum`, or with `nesterov=True` as `nesterov`.

    Example:
      >>> after = jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.25))
      >>> float(after.params)
      1.5
    """


@near_keywords
def momentum(
    learning_rate: float | Varied, beta: float | Varied = 0.9, *, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """Return gradient descent with momentum (heavy ball). Polyak (1964).

    velocity = beta * velocity + g; params - learning_rate * velocity.

    Example:
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.momentum(0.25, beta=0.5), steps=2)
      >>> float(run.params)
      0.0
    """
    check_hyperparameter("momentum", "beta", beta)
    return sgd(learning_rate, momentum=beta, **_given(accumulator_dtype))


@near_keywords
def nesterov(
    learning_rate: float | Varied, beta: float | Varied = 0.9, *, accumulator_dtype: DTypeLike | None = None
) -> Optimizer:
    """Return gradient descent with Nesterov momentum. Nesterov (1983).

    velocity = beta * velocity + g; params - learning_rate * (g + beta * velocity).

    The params are those at which the gradient is taken, as in Sutskever et al. (2013), section 2.

    Example:
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=jf.optimizers.nesterov(0.25, beta=0.5), steps=2)
      >>> float(run.params)
      -0.25
    """
    check_hyperparameter("nesterov", "beta", beta)
    return sgd(learning_rate, momentum=beta, nesterov=True, **_given(accumulator_dtype))


def _given(accumulator_dtype: DTypeLike | None) -> dict[str, Any]:
    return {} if accumulator_dtype is None else {"accumulator_dtype": accumulator_dtype}


@_hyperparameters_of(optax.adagrad)
def adagrad(
    learning_rate: float | Varied,
    *,
    initial_accumulator_value: float | Varied = 0.1,
    eps: float | Varied = 1e-7,
):
    """Return Adagrad: each gradient divided by the root of the sum of its squares so far.

    Duchi, Hazan and Singer (2011).

    s = s + g**2, from `initial_accumulator_value` (0 in the paper); params - learning_rate * g / sqrt(s + eps).

    Example:
      >>> jf.optimizers.adagrad(0.1)
      adagrad(learning_rate=0.1)
    """


@_hyperparameters_of(optax.adadelta)
def adadelta(
    learning_rate: float | Varied = 1.0,
    *,
    rho: float | Varied = 0.9,
    eps: float | Varied = 1e-6,
    weight_decay: float | Varied = 0.0,
    weight_decay_mask: Mask | None = None,
):
    """Return Adadelta: each gradient scaled by the ratio of running sizes of past steps and gradients.

    Zeiler (2012), Algorithm 1.

    a = rho * a + (1 - rho) * g**2; step = g * sqrt(b + eps) / sqrt(a + eps); b = rho * b + (1 - rho) * step**2;
    params - learning_rate * step. `weight_decay` * params is first added to g.

    Example:
      >>> jf.optimizers.adadelta(1.0, rho=0.95)
      adadelta(learning_rate=1.0, rho=0.95)
    """


@_hyperparameters_of(optax.rmsprop)
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
    """Return RMSprop: each gradient divided by the root of a running mean of its squares. Hinton (2012), lecture 6e.

    v = decay * v + (1 - decay) * g**2; params - learning_rate * g / sqrt(v + eps). `centered` subtracts from v the
    square of a running mean of g: Graves (2013), arXiv:1308.0850. `momentum` is applied to the steps.

    Example:
      >>> jf.optimizers.rmsprop(0.1)
      rmsprop(learning_rate=0.1)
    """


@_hyperparameters_of(optax.adam)
def adam(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = False,
):
    """Return Adam: a running mean of gradients divided by the root of a running mean of their squares.

    Both means are corrected for their start at zero. Kingma and Ba (2015).

    m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g**2;
    params - learning_rate * m / (1 - b1**t) / (sqrt(v / (1 - b2**t) + eps_root) + eps).

    Example:
      >>> after = jf.step(lambda p: p**2, 3.0, optimizer=jf.optimizers.adam(0.1))
      >>> round(float(after.params), 3)
      2.9
    """


@_hyperparameters_of(optax.adamw)
def adamw(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: float | Varied = 1e-4,
    mask: Mask | None = None,
    nesterov: bool = False,
):
    """Return AdamW: Adam with weight decay that is separate from the gradient.

    Loshchilov and Hutter (2019), Algorithm 2.

    The update of `adam`, minus learning_rate * weight_decay * params where `mask` is True.

    Example:
      >>> jf.optimizers.adamw(0.1, weight_decay=0.01)
      adamw(learning_rate=0.1, weight_decay=0.01)
    """


@_hyperparameters_of(optax.nadam)
def nadam(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
):
    """Return NAdam: Adam with Nesterov momentum.

    Dozat (2016), Algorithm 2, with v / (1 - b2**t) in place of b2 * v / (1 - b2**t).

    `adam` with b1 * m / (1 - b1**(t + 1)) + (1 - b1) * g / (1 - b1**t) in place of m / (1 - b1**t).

    Example:
      >>> jf.optimizers.nadam(0.1).hyperparameters
      {'learning_rate': 0.1}
    """


@_hyperparameters_of(optax.adamax)
def adamax(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
):
    """Return AdaMax: Adam scaled by the largest recent gradient. Kingma and Ba (2015), section 7.1.

    u = max(b2 * u, |g| + eps); params - learning_rate * m / (1 - b1**t) / u.

    Example:
      >>> jf.optimizers.adamax(0.1)
      adamax(learning_rate=0.1)
    """


@_hyperparameters_of(optax.amsgrad)
def amsgrad(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-8,
    eps_root: float | Varied = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
):
    """Return AMSGrad: Adam whose scale never shrinks, because it is the largest v / (1 - b2**t) so far.

    Reddi, Kale and Kumar (2018), Algorithm 2.

    The paper does not correct the means for their start: bias_correction_mu=False, bias_correction_nu=False.

    Example:
      >>> jf.optimizers.amsgrad(0.1)
      amsgrad(learning_rate=0.1)
    """


@_hyperparameters_of(optax.adabelief)
def adabelief(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-16,
    eps_root: float | Varied = 1e-16,
    nesterov: bool = False,
):
    """Return AdaBelief: Adam scaled by the variance of the gradient around its running mean.

    Zhuang et al. (2020), Algorithm 2.

    s = b2 * s + (1 - b2) * (g - m)**2 + eps_root; params - learning_rate * m / (1 - b1**t) / (sqrt(s / (1 - b2**t)) +
    eps), m as in `adam`.

    Example:
      >>> jf.optimizers.adabelief(0.1)
      adabelief(learning_rate=0.1)
    """


@_hyperparameters_of(recurrences.radam)
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
    """Return RAdam: Adam that uses its scale only once the scale is known well enough.

    Liu et al. (2020), Algorithm 2.

    rho_inf = 2 / (1 - b2) - 1; rho = rho_inf - 2 * t * b2**t / (1 - b2**t). From rho = `threshold` on (5 as in the
    authors' code; the paper says 4) `adam`'s step times sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2)
    rho)); before that params - learning_rate * m / (1 - b1**t).

    Example:
      >>> jf.optimizers.radam(0.1)
      radam(learning_rate=0.1)
    """


@_hyperparameters_of(recurrences.yogi)
def yogi(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.999,
    eps: float | Varied = 1e-3,
    initial_accumulator_value: float | Varied = 1e-6,
    bias_correction: bool = True,
):
    """Return Yogi: Adam whose scale changes by bounded amounts. Zaheer et al. (2018), Algorithm 2.

    v = v - (1 - b2) * sign(v - g**2) * g**2, from `initial_accumulator_value`, in place of `adam`'s v. The paper
    does not correct the means for their start: bias_correction=False.

    Example:
      >>> jf.optimizers.yogi(0.1)
      yogi(learning_rate=0.1)
    """


@_hyperparameters_of(optax.lion)
def lion(
    learning_rate: float | Varied,
    *,
    b1: float | Varied = 0.9,
    b2: float | Varied = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: float | Varied = 1e-3,
    mask: Mask | None = None,
):
    """Return Lion: the sign of a running mean of gradients. Chen et al. (2023), Algorithm 2.

    params - learning_rate * (sign(b1 * m + (1 - b1) * g) + weight_decay * params), the last where `mask` is True;
    then m = b2 * m + (1 - b2) * g.

    Example:
      >>> jf.optimizers.lion(0.1)
      lion(learning_rate=0.1)
    """


@_hyperparameters_of(optax.contrib.muon)
def muon(
    learning_rate: float | Varied,
    *,
    beta: float | Varied = 0.95,
    eps: float | Varied = 1e-8,
    ns_steps: int = 5,
    nesterov: bool = True,
    weight_decay: float | Varied = 0.0,
    weight_decay_mask: Mask | None = None,
    adam_b1: float | Varied = 0.9,
    adam_b2: float | Varied = 0.999,
    adam_weight_decay: float | Varied = 0.0,
    adam_learning_rate: float | Varied | None = None,
):
    """Return Muon: for matrices the momentum with its singular values made about one, for all other params Adam.

    The factor of momentum is `beta`; `ns_steps` iterations of Newton and Schulz make m = U S V' about U V', which is
    multiplied by sqrt(columns / rows) where that is above 1. What is no matrix moves by Adam, at `adam_learning_rate`
    (by default the same). `jf.optimizer(optax.contrib.muon, ...)` takes its other settings. Jordan (2024),
    kellerjordan.github.io/posts/muon.

    Example:
      >>> jf.optimizers.muon(0.02)
      muon(learning_rate=0.02)
    """


@_hyperparameters_of(recurrences.rprop)
def rprop(
    learning_rate: float | Varied,
    *,
    eta_minus: float | Varied = 0.5,
    eta_plus: float | Varied = 1.2,
    min_step_size: float | Varied = 1e-6,
    max_step_size: float | Varied = 50.0,
):
    """Return Rprop: the sign of each gradient, with a step that grows while the sign stays the same.

    The step of each param is `learning_rate` at first. It is multiplied by `eta_plus` where the gradient has the same
    sign as before, and by `eta_minus` where the sign has changed, within `min_step_size` and `max_step_size`. The
    update is params - step * sign(g). Where the sign has changed, the param stays, and the next gradient counts as the
    first.

    Source: Riedmiller and Braun (1993).

    Example:
      >>> jf.optimizers.rprop(0.1)
      rprop(learning_rate=0.1)
    """


@near_keywords
def levenberg_marquardt(*, damping: float | Varied = 1e-3, tolerance: float | Varied | None = None) -> Optimizer:
    """Return Levenberg-Marquardt: damped Gauss-Newton steps for losses made of residuals, in float64 by default.

    The run judges its own convergence. It is CONVERGED where no step would change the loss by more than the precision
    can resolve and the data determine all params. It is NOT_DETERMINED where the loss is at its minimum too, but some
    params, or combinations of them, do not change it, as wherever there are fewer residuals than params; these stay at
    their start. `steps` includes rejected steps. The steps do not depend on the units of params. The params at the end
    are a step beyond those that were judged, where nothing is left to take after it; the loss is that of both but for
    rounding.

    Args:
      damping: At the start, relative to the squared norms of the Jacobian's columns. A leaf.
      tolerance: If given, CONVERGED already where an undamped step would lower the sum of squares by no more than this
        fraction; the params are then about sqrt(tolerance * (n - k)) of their standard errors from the minimum. A leaf.

    Raises:
      ValueError: If `tolerance` is not between 0 and 1.

    Source: Levenberg (1944), Marquardt (1963), scaled as by More (1978), the damping updated as by Nielsen (1999); near
      the minimum a step allows for what the last one left, as by Anderson (1965).

    Example:
      >>> loss = jf.losses.rss(jf.models.line)
      >>> method = jf.optimizers.levenberg_marquardt()
      >>> run = jf.fit(loss, {"w": 0.0, "b": 0.0}, jf.datasets.thermometer(), optimizer=method)
      >>> run.status.name, round(float(run.params["w"]), 3)
      ('CONVERGED', 0.537)
    """
    if tolerance is None:
        return optimizer(gauss_newton.levenberg_marquardt, damping=damping)
    swept = isinstance(tolerance, Axis) and not isinstance(tolerance.values, jax.core.Tracer)
    for i, part in enumerate(np.asarray(tolerance.values).tolist() if swept else [tolerance]):
        if isinstance(part, (bool, str)) or isinstance(part, (int, float, np.floating)) and not 0 < part < 1:
            where = f" (value {i} of axis {tolerance.name!r})" if swept else ""
            raise ValueError(
                f"levenberg_marquardt: tolerance is {part!r}{where}, but it is a part of the sum of squares, from 0 to "
                f"1: pass 1e-4, or None for as far as the precision tells"
            )
    return optimizer(gauss_newton.levenberg_marquardt, damping=damping, tolerance=tolerance)


@near_keywords
def lbfgs(*, memory: int = 10) -> Optimizer:
    """Return L-BFGS: a quasi-Newton method with a line search, which learns the curvature from past gradients.

    The run judges its own convergence. It is CONVERGED where no param, changed by its own size, would change the loss
    by more than eps**0.6 of the loss, to first order; or, for up to 64 params, where Newton's step did not lower the
    loss and what it promised is below the rounding error of the loss. In float32 eps**0.6 is 7e-5: in a long valley,
    along which params change by orders of magnitude, as much and more may be left far away, which float64 finds.
    Params are measured in units of their start; there is no learning rate.

    Args:
      memory: Number of past gradients to learn from.

    Raises:
      ValueError: If `memory` is not a whole number of at least 1.

    Source: Liu and Nocedal (1989).

    Example:
      >>> run = jf.fit(lambda p: (p - 2) ** 2, 0.0, optimizer=jf.optimizers.lbfgs())
      >>> run.status.name, round(float(run.params), 3)
      ('CONVERGED', 2.0)
    """
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise ValueError(f"lbfgs: memory is {memory!r}, but it counts past steps: a whole number, at least 1")
    return optimizer(quasi_newton.lbfgs, memory=memory)
