"""Optimizers as values: any Optax factory with its hyperparameters as leaves, so that they can be swept and traced.

The transformation is built inside the traced function: a new learning rate never recompiles.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfit import least_squares, quasi_newton
from jaxfit.keywords import did_you_mean, near_keywords
from jaxfit.markers import Axis, Call, is_array, is_key, resolve


@dataclass(frozen=True, eq=False)
class Optimizer:
    """An optimizer not yet built; make one with `optimizer` or a named function of this module.

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
    def hyperparameters(self) -> dict[str, Any]:
        return self.call.kwargs

    def build(self) -> Any:
        """The transformation itself; call it inside the function that JAX traces."""
        built = {k: v.build() if isinstance(v, Optimizer) else v for k, v in self.hyperparameters.items()}
        return self.call.function(**resolve(built))

    def __repr__(self) -> str:
        if self.name == "optax":
            return "an Optax transformation"
        return f"{self.name}({', '.join(f'{k}={_show(v)}' for k, v in self.hyperparameters.items())})"


jax.tree_util.register_pytree_with_keys(
    Optimizer, lambda o: (((jax.tree_util.GetAttrKey(""), o.call),), None), lambda _, children: Optimizer(children[0])
)


def optimizer(factory: Callable, /, **hyperparameters: Any) -> Optimizer:
    """An Optax factory with its hyperparameters: `optimizer(optax.adam, learning_rate=0.1)`.

    Args:
      factory: Any function that returns an `optax.GradientTransformation`; it runs inside the traced function, so a
        function of your own may build a schedule from its arguments.
      **hyperparameters: By keyword. A float is a leaf: it may be an `Axis`, and a new value never recompiles. A
        schedule is one of `jf.schedules` or `optimizer(optax.cosine_decay_schedule, init_value=...)`, whose floats are
        leaves too, or a function of the step (static).

    Raises:
      TypeError: If the factory does not take a hyperparameter, lacks one, or a learning rate is not a number.
      ValueError: If a learning rate is not positive and finite, or a momentum is outside [0, 1).
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
        _check_names(name, signature, hyperparameters)
    for key, value in hyperparameters.items():
        check_hyperparameter(name, key, value)
    return Optimizer(Call(factory, **hyperparameters))


def as_optimizer(value: Any) -> Optimizer:
    """The value itself, or a ready transformation as an `Optimizer`.

    Raises:
      TypeError: If it is neither.
    """
    if isinstance(value, Optimizer):
        return value
    if hasattr(value, "init") and hasattr(value, "update"):
        return Optimizer(Call(_ready, transformation=value))
    if isinstance(value, str):
        raise TypeError(
            f"optimizer is the text {value!r}, but it must be a value such as jf.optimizers.adam(0.1)"
            f"{did_you_mean(value, NAMES)} There are: {', '.join(NAMES)}"
        )
    if isinstance(value, Call):
        raise TypeError(f"optimizer is {_show(value)}, but a schedule is a learning rate: write jf.optimizers.sgd(...)")
    name = getattr(value, "__name__", reprlib.repr(value))
    rate = "0.1" * (name not in JUDGES)
    hint = f"; call it: jf.optimizers.{name}({rate})" if name in NAMES else f"; write jf.optimizer({name}, ...)"
    raise TypeError(
        f"optimizer is {'the function ' * callable(value)}{name}, but it must be jf.optimizer(optax.adam, "
        f"learning_rate=0.1), a named one such as jf.optimizers.adam(0.1), or an Optax transformation"
        + (hint if callable(value) else "")
    )


def chosen_precision(precision: str | None, optimizer: Any) -> str:
    """The precision, or if it is None what the optimizer (one on an axis of them) prefers."""
    if precision is not None:
        return precision
    if isinstance(optimizer, Axis) and not is_array(optimizer.values):
        return max(chosen_precision(None, one) for one in optimizer.values)
    factory = optimizer.call.function if isinstance(optimizer, Optimizer) else None
    return getattr(factory, "precision", "float32")


def _ready(transformation):
    return transformation


def _check_names(name: str, signature: inspect.Signature, given: dict[str, Any]) -> None:
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
        raise TypeError(f"{name} needs the hyperparameter {missing[0]!r}: write {missing[0]}=0.1")


_FRACTION = "it must be a number in [0, 1): 0 forgets at once, 1 never does", lambda x: (x >= 0) & (x < 1)
_RATE = "it must be a positive, finite number such as 0.01, or a schedule", lambda x: np.isfinite(x) & (x > 0)
_DAMPING = "it must be a finite number, zero or more", lambda x: np.isfinite(x) & (x >= 0)
_RULES = {
    "learning_rate": _RATE,
    "damping": _DAMPING, "momentum": _FRACTION, "beta": _FRACTION, "b1": _FRACTION, "b2": _FRACTION, "b3": _FRACTION,
}  # fmt: skip
_ANY = "it must be a number", lambda x: ~np.isnan(x)


def check_hyperparameter(name: str, key: str, value: Any) -> None:
    """Refuses numbers that no optimizer can work with. Tracers pass, and functions are checked where they are called.

    Raises:
      TypeError: If a learning rate or momentum is not one number, or any hyperparameter is complex.
      ValueError: If it is out of its range, or any hyperparameter is NaN.
    """
    swept = isinstance(value, Axis)
    numbers = value.values if swept else value
    if swept and not is_array(numbers):
        for position, item in enumerate(numbers):
            check_hyperparameter(f"{name} (value {position} of axis {value.name!r})", key, item)
        return
    if isinstance(numbers, (jax.core.Tracer, Optimizer)) or callable(numbers) or is_key(numbers):
        return
    if numbers is None and key != "learning_rate":
        return
    array = np.asarray(numbers if np.isscalar(numbers) or is_array(numbers) else None)
    real = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, np.floating)
    rule, holds = _RULES.get(key, _ANY)
    if (key in _RULES and not (real and array.ndim == swept)) or array.dtype.kind == "c":
        raise TypeError(f"{name}: {key} is {reprlib.repr(value)} ({type(numbers).__name__}), but {rule}")
    bad = ~holds(array) if real else np.zeros(0, bool)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f" (value {first[0]} of axis {value.name!r})" if swept else f" at index {first}" if first else ""
        climbs = "; a negative one climbs" if key == "learning_rate" and array[first] < 0 else ""
        raise ValueError(f"{name}: {key} is {array[first]}{where}, but {rule}{climbs}")


def _show(value: Any) -> str:
    if is_key(value):
        return "a key"
    if is_array(value) and np.ndim(value) == 0 and not isinstance(value, jax.core.Tracer):
        return f"{float(value):.6g}"
    if isinstance(value, Call):
        name = getattr(value.function, "__name__", repr(value.function)).removeprefix("_")
        return f"{name}({', '.join(f'{k}={_show(v)}' for k, v in value.given.items())})"
    return getattr(value, "__name__", None) or repr(value)


def _given(**values: Any) -> dict[str, Any]:
    """Those that were given: a default left to Optax stays a Python number, which keeps its bits."""
    return {key: value for key, value in values.items() if value is not None}


@near_keywords
def sgd(learning_rate: Any) -> Optimizer:
    """Gradient descent: params - learning_rate * grads."""
    return optimizer(optax.sgd, learning_rate=learning_rate)


@near_keywords
def momentum(learning_rate: Any, beta: Any = 0.9) -> Optimizer:
    """Heavy ball: velocity = beta * velocity + grads; params - learning_rate * velocity. Polyak (1964)."""
    check_hyperparameter("momentum", "beta", beta)
    return optimizer(optax.sgd, learning_rate=learning_rate, momentum=beta)


@near_keywords
def nesterov(learning_rate: Any, beta: Any = 0.9) -> Optimizer:
    """Momentum that looks ahead: params - learning_rate * (grads + beta * velocity). Nesterov (1983)."""
    check_hyperparameter("nesterov", "beta", beta)
    return optimizer(optax.sgd, learning_rate=learning_rate, momentum=beta, nesterov=True)


@near_keywords
def adagrad(learning_rate: Any, *, eps: Any = None) -> Optimizer:
    """Each gradient over the root of the sum of its squares so far. Duchi, Hazan and Singer (2011)."""
    return optimizer(optax.adagrad, learning_rate=learning_rate, **_given(eps=eps))


@near_keywords
def adadelta(learning_rate: Any = 1.0, *, rho: Any = None, eps: Any = None) -> Optimizer:
    """Each gradient scaled by the ratio of running sizes of past steps and gradients. Zeiler (2012)."""
    return optimizer(optax.adadelta, learning_rate=learning_rate, **_given(rho=rho, eps=eps))


@near_keywords
def rmsprop(learning_rate: Any, *, decay: Any = None, eps: Any = None, momentum: Any = None) -> Optimizer:
    """Each gradient over the root of a running mean of its squares. Hinton (2012), lecture 6e."""
    return optimizer(optax.rmsprop, learning_rate=learning_rate, **_given(decay=decay, eps=eps, momentum=momentum))


@near_keywords
def adam(learning_rate: Any, *, b1: Any = None, b2: Any = None, eps: Any = None) -> Optimizer:
    """A running mean of gradients over the root of one of squares, both corrected for their start. Kingma, Ba 2015."""
    return optimizer(optax.adam, learning_rate=learning_rate, **_given(b1=b1, b2=b2, eps=eps))


@near_keywords
def adamw(learning_rate: Any, *, weight_decay: Any = None, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam with params shrunk apart from the gradient. Loshchilov and Hutter (2019)."""
    return optimizer(optax.adamw, learning_rate=learning_rate, **_given(weight_decay=weight_decay, b1=b1, b2=b2))


@near_keywords
def nadam(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam with Nesterov's look ahead. Dozat (2016)."""
    return optimizer(optax.nadam, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def adamax(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam with the largest recent gradient as its scale. Kingma and Ba (2015), section 7.1."""
    return optimizer(optax.adamax, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def amsgrad(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam whose scale never shrinks. Reddi, Kale and Kumar (2018)."""
    return optimizer(optax.amsgrad, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def adabelief(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam scaled by the surprise in the gradient instead of its size. Zhuang et al. (2020)."""
    return optimizer(optax.adabelief, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def radam(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam that waits with its scale until the scale is known well enough. Liu et al. (2020)."""
    return optimizer(optax.radam, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def yogi(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """Adam whose scale moves by steps of bounded size. Zaheer et al. (2018)."""
    return optimizer(optax.yogi, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def lion(learning_rate: Any, *, b1: Any = None, b2: Any = None) -> Optimizer:
    """The sign of a running mean of gradients. Chen et al. (2023)."""
    return optimizer(optax.lion, learning_rate=learning_rate, **_given(b1=b1, b2=b2))


@near_keywords
def rprop(learning_rate: Any) -> Optimizer:
    """The sign of each gradient, with a step that grows while the sign stays. Riedmiller and Braun (1993)."""
    return optimizer(optax.rprop, learning_rate=learning_rate)


def each(**optimizers: Any) -> Optimizer:
    """An optimizer of its own for every entry of params that are a dictionary: `each(w=sgd(1e-4), b=sgd(1e-2))`.

    Raises:
      ValueError: If none is given; when it meets the params, if these have other entries.
      TypeError: If one is not an optimizer.
    """
    if not optimizers:
        raise ValueError("each: no optimizer is given; name one for every entry of params, such as each(w=sgd(0.1))")
    return Optimizer(Call(_each, **{name: as_optimizer(value) for name, value in optimizers.items()}))


def _each(**transformations: Any) -> Any:
    by_name: Any = transformations
    return optax.partition(by_name, functools.partial(_entries, tuple(transformations)))


def _entries(names: tuple[str, ...], params: Any) -> dict[str, str]:
    have = tuple(params) if isinstance(params, dict) else None
    if have is None or set(have) != set(names):
        came = f"a {type(params).__name__}" if have is None else f"a dictionary of {', '.join(map(str, have))}"
        raise ValueError(
            f"each: params are {came}, but there are optimizers for {', '.join(names)}; each takes one for every entry "
            f"of params that are a dictionary: add {_MISSING} for the others, and leave out those without an entry"
        )
    return {name: name for name in names}


_MISSING = "sgd(0.1), or optax.set_to_zero() to hold them,"


def accumulated(optimizer: Any, every: int) -> Optimizer:
    """One update of the optimizer for the mean of the gradients of `every` steps; the params stay in between.

    With `every` mini-batches of one size it is the update by all of their rows at once.

    Args:
      optimizer: What `fit` takes.
      every: Gradients to a mean, two or more.

    Raises:
      TypeError: If `optimizer` is none.
      ValueError: If `every` is not a whole number from 2.
    """
    if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 2:
        raise ValueError(
            f"accumulated: every is {every!r}; it must be a whole number of gradients, two or more: for every single "
            f"one pass the optimizer itself"
        )
    return Optimizer(Call(_accumulated, optimizer=as_optimizer(optimizer), every=int(every)))


def _accumulated(optimizer: Any, every: int) -> Any:
    return optax.MultiSteps(optimizer, every).gradient_transformation()


@near_keywords
def levenberg_marquardt(*, damping: Any = 1e-3, tolerance: Any = None) -> Optimizer:
    """Gauss-Newton steps, damped until they go down: for losses that know their residuals, in float64 by default.

    Judges convergence itself: CONVERGED where an undamped step would change nothing that the precision can tell, and
    the params are determined by the data. `steps` counts refused steps too. No step depends on the units of params.

    Args:
      damping: At the start, against the squared norms of the Jacobian's columns. A leaf.
      tolerance: CONVERGED already where an undamped step would take no more than this part off the sum of squares; the
        params are then about sqrt(tolerance * (n - k)) of their standard errors from the minimum. A leaf.

    Raises:
      ValueError: If `tolerance` is not between 0 and 1.

    Source: Levenberg (1944), Marquardt (1963), scaled as by More (1978), the damping moved as by Nielsen (1999).
    """
    if tolerance is None:
        return optimizer(least_squares.levenberg_marquardt, damping=damping)
    if isinstance(tolerance, (bool, str)) or isinstance(tolerance, (int, float, np.floating)) and not 0 < tolerance < 1:
        raise ValueError(
            f"levenberg_marquardt: tolerance is {tolerance!r}, but it is a part of the sum of squares, from 0 to 1: "
            f"pass 1e-4, or None for as far as the precision tells"
        )
    return optimizer(least_squares.levenberg_marquardt, damping=damping, tolerance=tolerance)


@near_keywords
def lbfgs(*, memory: int = 10) -> Optimizer:
    """Gradients that learn the curvature from `memory` past ones, with a line search. Liu and Nocedal (1989).

    Judges convergence itself: CONVERGED where no param, moved by its own size, would change the loss by more than
    eps**0.6 of itself. Params are measured in units of their start; no learning rate is needed.

    Raises:
      ValueError: If `memory` is not a whole number, at least 1.
    """
    if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
        raise ValueError(f"lbfgs: memory is {memory!r}, but it counts past steps: a whole number, at least 1")
    return optimizer(quasi_newton.lbfgs, memory=memory)


JUDGES = "levenberg_marquardt", "lbfgs"  # which take no learning rate
NAMES = (
    "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "nadam", "adamax", "amsgrad",
    "adabelief", "radam", "yogi", "lion", "rprop", *JUDGES,
)  # fmt: skip


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"jaxfit.optimizers has no {name!r}{did_you_mean(name, NAMES)} There are: {', '.join(NAMES)}; "
        f"any other Optax factory goes through jf.optimizer(factory, ...)"
    )
