"""The base class of losses: they compare by value, add up, declare their data, and say what noise they assume."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
import reprlib
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxfit.datasets import as_numbers
from jaxfit.problems.axes import refuse_unit
from jaxfit.problems.messages import shown
from jaxfit.typing import ArrayLike, LossFunction, Number, Params, PyTree, Varied

Kind = Literal["squares", "robust", "likelihood"]
SQUARES: Kind = "squares"  # a sum or mean of squares of residuals
ROBUST: Kind = "robust"  # a mean of rho(residuals), such as Huber's
LIKELIHOOD: Kind = "likelihood"  # the negative log-likelihood: its mean over rows, its sum, or a deviance


@dataclass(frozen=True)
class NoiseModel:
    """What statistics and reports need to know about a loss; it is what `Loss.noise_model` returns.

    Attributes:
      kind: One of the three above, which says where the noise is read: in the residuals (or a sigma), in the slopes of
        rho, in the second derivative. None if the loss does not tell its noise, so that params have no errors.
      sigma: Whether the residuals are in units of the standard deviation of the data. True if the loss takes this as
        the data `sigma`, False if it takes none, None if only the user knows.
      additive: Whether the loss is a sum itself (of squares or log-likelihoods) and no mean, so that the sum of two is
        one again.
      predicts: Whether the loss has `predict` and `residuals`, and these compare predict(params, x) with the data `y`.
      deviance: Whether the loss of a likelihood is a deviance: twice the drop of the log-likelihood from that of a
        model that predicts every datum, so that it tells how good the fit is. Such a loss has `saturated` and `draw`.
      why_unknown: If the kind is None: why, and what to use instead; "" for a message in general terms.
    """

    kind: Kind | None = None
    sigma: bool | None = None
    additive: bool = False
    predicts: bool = False
    deviance: bool = False
    why_unknown: str = ""

    @property
    def counted(self) -> str:
        """What is counted as one observation."""
        if self.deviance:
            return "counts"
        return "rows" if self.kind == LIKELIHOOD else "residuals"

    def source(self, absolute: bool) -> str:
        """Return in words what the errors of the params are computed from.

        Args:
          absolute: Whether the residuals are in units of their standard deviation.
        """
        if self.deviance:
            return "the Fisher information" + ", scaled to the scatter of the counts" * (not absolute)
        if self.kind == LIKELIHOOD:
            return "the curvature of the likelihood"
        if self.kind == ROBUST:
            return "Huber's formula, from the scatter of the residuals"
        return "sigma, as given" if absolute else "the scatter of the residuals"


_Class = TypeVar("_Class")


class Block(NamedTuple):
    """A part of a loss made of residuals: sum(weight * rho(residuals)), where rho is the square if it is None.

    With a variance, the slope of rho is 2 * residuals / variance, as that of the deviance of counts whose mean is
    y + residuals. The curvature that steps and errors take is then that expected from the mean, 2 / variance: Fisher
    scoring.
    """

    residuals: Array  # of any shape
    weight: Number  # (), or with a rho like the residuals
    rho: Callable | None = None  # elementwise, convex near zero; even if there is no variance
    variance: Array | None = None  # like the residuals

    @property
    def precision(self) -> Array:
        """Return 1 / variance like the residuals, and zero where the variance is; ones if there is none."""
        if self.variance is None:
            return jnp.ones_like(self.residuals)
        return jnp.where(self.variance == 0, 0, 1 / jnp.where(self.variance == 0, 1, self.variance))


class Loss:
    """The base class of losses, which compare by value and add to each other and to plain functions."""

    __array_ufunc__ = None  # an array of NumPy leaves `+` to the loss, which refuses it

    DATA: ClassVar[tuple[str, ...]] = ()  # names of the data that the loss takes after the params; none for a penalty
    takes_arrays = False  # whether each of the data must be one array
    stateful = False  # whether it has `advance`, by which it changes the params that are `Carried`

    @property
    def data_names(self) -> tuple[str, ...]:
        """Names of the data that the loss takes after the params, with those of a mask; empty for a penalty."""
        return (*self.DATA, "where") if getattr(self, "masked", False) else self.DATA

    @property
    def takes_data(self) -> bool:
        """Whether it may be called with data."""
        return bool(self.data_names)

    @property
    def functions(self) -> tuple[Callable, ...]:
        """The functions it calls with the step's key, should they take one: by default the model."""
        return (self.predict,) if hasattr(self, "predict") else ()

    @property
    def by_row(self) -> bool:
        """Whether all arrays of the data have one row for each observation."""
        return True

    @property
    def knows_residuals(self) -> bool:
        """Whether it is a sum over residuals, as least-squares methods need it, so that it has `blocks`."""
        return False

    def noise_model(self) -> NoiseModel:
        """Return what the loss says about the noise of the data, for statistics and reports; by default nothing."""
        return NoiseModel()

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        raise NotImplementedError

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        """Return the loss taken apart; the sum over the blocks is the loss."""
        raise NotImplementedError

    def advance(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Array, Params]:
        """Return the loss as a step of training sees it, and the params after it; for losses that are `stateful`."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and _identity(self) == _identity(other)

    def __hash__(self) -> int:
        return hash(_identity(self))

    def __add__(self, other: Callable) -> Sum:
        return Sum((*terms_of(self), *terms_of(other)))

    def __radd__(self, other: Callable) -> Sum:
        return Sum((*terms_of(other), *terms_of(self)))


class Penalty(Loss):
    """A loss of the params alone, which ignores the data."""

    @property
    def by_row(self) -> bool:
        return False


def _identity(loss: Loss) -> tuple:
    return (type(loss), *(_frozen(getattr(loss, field.name)) for field in fields(loss)))  # pyright: ignore[reportArgumentType]


def _frozen(value: object) -> object:
    if isinstance(value, Tracer):
        return "traced", id(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.shape, str(value.dtype), np.asarray(value).tobytes()
    return value


def terms_of(loss: LossFunction) -> tuple[Loss, ...]:
    if isinstance(loss, Sum):
        return loss.terms
    if isinstance(loss, Loss):
        return (loss,)
    if not callable(loss):
        raise TypeError(
            f"{shown(loss)} cannot be added to a loss; add a loss, a penalty such as l2(0.1), or a function, itself "
            f"and not its value"
        )
    return (Plain(hashable("the function", loss)),)


def leaves_of(*leaves: str) -> Callable[[type[_Class]], type[_Class]]:
    """Return a decorator that registers a class of losses: its fields of these names are leaves, the others static."""

    def register(cls: type[_Class]) -> type[_Class]:
        static = [field.name for field in fields(cls) if field.name not in leaves]  # pyright: ignore[reportArgumentType]
        return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static)

    return register


def data_names(loss: LossFunction) -> tuple[str, ...]:
    """Return the names of a loss's data: ("x", "y"), with masked=True ("x", "y", "where"), for a penalty ().

    For a plain function they are its arguments after the params, without `key`, *args and keyword-only arguments.

    Example:
      >>> jf.losses.data_names(jf.losses.chi_squared(jf.models.line))
      ('x', 'y', 'sigma')
    """
    loss = _unwrapped(loss)
    if isinstance(loss, Loss):
        return loss.data_names
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in _arguments(loss) if p.kind in positional and p.name != "key")


def takes_data(loss: LossFunction) -> bool:
    """Return whether the loss takes data after the params; penalties and functions of params alone do not.

    Example:
      >>> jf.losses.takes_data(jf.losses.mse(jf.models.line)), jf.losses.takes_data(jf.losses.l2(0.1))
      (True, False)
    """
    loss = _unwrapped(loss)
    if isinstance(loss, Loss):
        return loss.takes_data
    return bool(data_names(loss)) or any(p.kind is p.VAR_POSITIONAL for p in _arguments(loss))


def model_of(loss: LossFunction) -> Callable | None:
    """Return the model whose predictions a loss compares with data; for a sum the first one, and None if there is none.

    Example:
      >>> jf.losses.model_of(jf.losses.mse(jf.models.line)) == jf.models.line
      True
    """
    loss = _unwrapped(loss)
    if isinstance(loss, Sum):
        return next((model for term in loss.terms if (model := model_of(term)) is not None), None)
    if isinstance(loss, Penalty) or not isinstance(loss, Loss):
        return None
    inner = getattr(loss, "loss", None)
    return getattr(loss, "predict", None) if inner is None else model_of(inner)


def is_masked(loss: LossFunction) -> bool:
    """Return whether the loss takes a mask of the rows that count, as its last data."""
    return getattr(_unwrapped(loss), "masked", False)


def is_stateful(loss: LossFunction) -> bool:
    """Return whether the loss has `advance`, which tells the params after a step."""
    return getattr(_unwrapped(loss), "stateful", False)


def noise_model_of(loss: LossFunction) -> NoiseModel:
    """Return what a loss says about the noise of the data; of a plain function nothing is known."""
    return loss.noise_model() if isinstance(loss, Loss) else NoiseModel()


def takes_key(loss: LossFunction) -> bool:
    """Return whether the loss, or any function inside it, takes an argument `key`.

    Example:
      >>> plain = jf.losses.mse(jf.models.line)
      >>> jf.losses.takes_key(plain), jf.losses.takes_key(jf.losses.input_noise(plain, scale=0.1))
      (False, True)
    """
    loss = _unwrapped(loss)
    if isinstance(loss, Loss):
        return any(takes_key(function) for function in loss.functions)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.name == "key" and p.kind in by_name for p in _arguments(loss))


def _unwrapped(loss: LossFunction) -> Callable:
    """Return the loss of jaxfit inside of jax.jit(loss) or jax.checkpoint(loss); a signature does not show it."""
    inner = inspect.unwrap(loss.func if isinstance(loss, jax.tree_util.Partial) else loss)
    return inner if isinstance(inner, Loss) else loss


_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # what `_arguments` found: it is asked in every call


def _arguments(function: Callable) -> list[inspect.Parameter]:
    """Return the arguments after the params; one of any number for a built-in function without a signature."""
    try:
        return _known[function]
    except (KeyError, TypeError):  # new, or not one to remember
        pass
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:
        parameters = [inspect.Parameter("data", inspect.Parameter.VAR_POSITIONAL)]
    with contextlib.suppress(TypeError):
        _known[function] = parameters
    return parameters


def key_for(loss: LossFunction, key: Array | None) -> dict[str, Array]:
    if key is None:
        return {}
    if not takes_key(loss):
        raise TypeError(f"{loss} takes no key: none of its functions has an argument named `key`; leave key out")
    return {"key": key}


@dataclass(frozen=True, eq=False, repr=False)
class OfFunction(Loss):
    """A loss made of one function of (params, *data), whose arguments name the data that it takes."""

    function: Callable

    @property
    def by_row(self) -> bool:
        return False

    @property
    def data_names(self) -> tuple[str, ...]:
        return data_names(self.function)

    @property
    def takes_data(self) -> bool:
        return takes_data(self.function)

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.function,)


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Plain(OfFunction):
    """A user's function loss(params, *data) as a term of a sum."""

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        given = key_for(self, key)
        self._check(params, data, given)
        value = self.function(params, *data, **given)
        if not (hasattr(value, "shape") or isinstance(value, numbers.Number)):
            raise TypeError(
                f"{self}, a term of a sum, returned {reprlib.repr(value)}, but it must return one scalar; return the "
                f"number alone"
            )
        return jnp.asarray(value)

    def _check(self, params: Params, data: tuple, key: dict[str, Array]) -> None:
        """Raise an error for data that the function cannot be called with."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # a built-in function that does not tell
            return
        try:
            signature.bind(params, *data, **key)
        except TypeError as error:
            raise TypeError(
                f"{self}{signature}, as a term of a sum, is called with the params and all {len(data)} data ({error}); "
                f"let it take them all, as *data if it ignores them, or the params alone"
            ) from error

    def __repr__(self) -> str:
        return label(self.function)


@leaves_of("terms")
@dataclass(frozen=True, eq=False, repr=False)
class Sum(Loss):
    """A sum of losses and penalties; every term gets the data and the key if it takes them."""

    terms: tuple[Loss, ...]

    @property
    def data_names(self) -> tuple[str, ...]:
        return next((names for term in self.terms if (names := term.data_names)), ())

    @property
    def takes_data(self) -> bool:
        return any(term.takes_data for term in self.terms)

    @property
    def by_row(self) -> bool:
        return any(term.by_row for term in self.terms)

    @property
    def masked(self) -> bool:
        return any(map(is_masked, self.terms))

    @property
    def takes_arrays(self) -> bool:
        return any(term.takes_arrays for term in self.terms)

    def noise_model(self) -> NoiseModel:
        why = (
            f"{self} adds a penalty, or losses of different units, to a loss; a penalty pulls params away "
            f"from what the data say, and a standard error would not tell by how much. Fit without it, or make it a "
            f"measurement: a residual (param - expected) / sigma in jf.losses.least_squares"
        )
        return noise_model_of_sum([term.noise_model() for term in self.terms], why)

    @property
    def functions(self) -> tuple[Callable, ...]:
        return tuple(function for term in self.terms for function in term.functions)

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return functools.reduce(jnp.add, self._each(lambda term: term, params, data, key))

    @property
    def knows_residuals(self) -> bool:
        return all(term.knows_residuals for term in self.terms)

    def saturated(self, *data: PyTree) -> Array | float:
        """Return () minus twice the log-likelihood of predictions that are the data, of a sum of deviances."""
        takers = [term for term in self.terms if term.noise_model().deviance]
        return sum(term.saturated(*data) for term in takers)  # pyright: ignore[reportAttributeAccessIssue]

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        parts = self._each(lambda term: term.blocks, params, data, key)
        return tuple(block for part in parts for block in part)

    @property
    def stateful(self) -> bool:
        return any(term.stateful for term in self.terms)

    def advance(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Array, Params]:
        changing = [i for i, term in enumerate(self.terms) if term.stateful]
        if len(changing) > 1:
            raise TypeError(f"{self} has {len(changing)} terms that change the state; make one function of them")
        found = self._each(lambda term: term.advance if term.stateful else term, params, data, key)
        found[changing[0]], after = found[changing[0]]
        return functools.reduce(jnp.add, found), after

    def _each(self, what: Callable, params: Params, data: tuple, key: Array | None) -> list:
        """Return a function of each term, called with what the term takes of the arguments."""
        given = key_for(self, key)
        return [
            what(term)(params, *(data if term.takes_data else ()), **(given if takes_key(term) else {}))
            for term in self.terms
        ]

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


def noise_model_of_sum(models: Sequence[NoiseModel], why: str) -> NoiseModel:
    """Return the noise model of a sum of losses; `why` says why it is not known, if they do not add up."""
    known = {model.sigma for model in models}
    if all(model.kind == SQUARES and model.additive for model in models) and not known >= {True, False}:
        return NoiseModel(SQUARES, sigma=True if all(model.sigma for model in models) else None, additive=True)
    if all(model.deviance or model.kind == SQUARES and model.additive and model.sigma is not False for model in models):
        return NoiseModel(LIKELIHOOD, sigma=False, additive=True, deviance=True)
    if all(model.kind == LIKELIHOOD and model.additive and not model.deviance for model in models):
        return NoiseModel(LIKELIHOOD, additive=True)
    return NoiseModel(why_unknown=why)


def refuse_module(name: str, module: Any) -> None:
    """Refuse a module of another library, whose weights would not be the params, with the function to write.

    Raises:
      TypeError: If it is one.
    """
    remedy, kind, nnx = "", type(module), sys.modules.get("flax.nnx")
    if hasattr(module, "apply") and hasattr(module, "init"):
        takes = {**getattr(inspect.signature(module.apply), "parameters", {})}
        remedy = "lambda params, x: module.apply(params, None, x)" if "rng" in takes else "module.apply"
    elif hasattr(module, "stateless_call"):
        remedy = "lambda params, x: module.stateless_call(params, [], x)[0], with params=module.trainable_variables"
    elif kind.__module__.startswith("equinox.nn") or nnx is not None and isinstance(module, nnx.Module):
        remedy = "lambda module, x: module(x), with the module as params (of Equinox jax.vmap(module)(x))"
    elif hasattr(module, "named_parameters"):
        remedy = "what it computes with jax.numpy, as a function of (params, x)"
    if remedy:
        raise TypeError(f"{name} is the module {kind.__name__}, but it is called as predict(params, x); write {remedy}")


def hashable(name: str, function: Callable) -> Callable:
    refuse_module(name, function)
    if not callable(function):
        remedy = "pass a function, such as jaxfit.models.line"
        if hasattr(function, "shape"):  # of an array, which a call returned
            remedy = (
                "pass the function itself, not its values: mse(model), where model takes (params, x), or "
                "mse(jf.models.from_function(f)) for f(x, a, b)"
            )
        if hasattr(function, "values") and hasattr(function, "name"):  # an axis
            remedy = f"an axis of models stands around their losses: jf.Axis({function.name!r}, [mse(f), mse(g)])"
        raise TypeError(f"{name} is {shown(function)}, which cannot be called; {remedy}")
    try:
        hash(function)
    except TypeError:
        raise TypeError(
            f"{name} is {reprlib.repr(function)}, which cannot be hashed, as a part of a compiled program must be; "
            f"pass a plain function, or give its class eq=False"
        ) from None
    return function


def label(function: Callable) -> str:
    return getattr(function, "__name__", repr(function))


def as_array(name: str, value: ArrayLike) -> Array:
    given = as_numbers(name, value)
    array = jnp.asarray(given)
    if given.dtype.kind in "iu" and given.dtype != array.dtype and not np.array_equal(given, given.astype(array.dtype)):
        raise ValueError(f"{name} holds integers too large for {array.dtype}; convert them: {name}.astype(float)")
    return array


def as_float(value: Array | np.ndarray) -> Array:
    return jnp.asarray(value, jnp.result_type(value, float))


def number(name: str, value: Number | Varied, rule: str) -> Any:
    """Return a checked number as a float; a tracer or an `Axis` as it is."""
    refuse_unit(name, value)
    if isinstance(value, (str, bytes, bool, np.bool_, list, tuple, dict, complex, type(None))):
        raise TypeError(f"{name} is {reprlib.repr(value)}; it must be a number, {rule}")
    if not isinstance(value, numbers.Real) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        return value
    if not math.isfinite(value) or value < 0 or (value == 0 and rule == "positive"):
        raise ValueError(f"{name} is {value}; it must be {rule}, and finite")
    return float(value)
