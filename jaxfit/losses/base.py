"""What a loss is: it compares by value, adds up, and knows what data it takes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import reprlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

_Class = TypeVar("_Class")


class Block(NamedTuple):
    """A part of a loss made of residuals: weight * sum(rho(residuals)), with the square for rho if it is None."""

    residuals: Array  # of any shape
    weight: Any  # ()
    rho: Callable | None = None  # even, elementwise, convex near zero


class Loss:
    """What all losses share: they compare by value, and add to each other and to plain functions."""

    @property
    def data_names(self) -> tuple[str, ...]:
        """What the loss is called with after the params; empty for a penalty."""
        return ()

    @property
    def functions(self) -> tuple[Callable, ...]:
        """The functions it calls with the step's key, should they take one."""
        return ()

    @property
    def by_row(self) -> bool:
        """Whether all arrays of the data have one row for each observation."""
        return True

    @property
    def knows_residuals(self) -> bool:
        """Whether it is a sum over residuals that bend, as least-squares methods need it: whether it has `blocks`."""
        return False

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        raise NotImplementedError

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        """The loss taken apart; the sum over the blocks is the loss."""
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


def _identity(loss: Loss) -> tuple:
    return (type(loss), *(_frozen(getattr(loss, field.name)) for field in fields(loss)))  # pyright: ignore[reportArgumentType]


def _frozen(value: Any) -> Any:
    if isinstance(value, Tracer):
        return "traced", id(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.shape, str(value.dtype), np.asarray(value).tobytes()
    return value


def terms_of(loss: Any) -> tuple[Loss, ...]:
    if isinstance(loss, Sum):
        return loss.terms
    if isinstance(loss, Loss):
        return (loss,)
    if not callable(loss):
        raise TypeError(f"{loss!r} cannot be added to a loss; add a loss, a penalty such as l2(0.1), or a function")
    return (Plain(hashable("the function", loss)),)


def leaves_of(*leaves: str) -> Callable[[type[_Class]], type[_Class]]:
    """Makes a dataclass a pytree with these leaves; unflattening checks nothing, so that any marker may stand there."""

    def register(cls: type[_Class]) -> type[_Class]:
        static = [field.name for field in fields(cls) if field.name not in leaves]  # pyright: ignore[reportArgumentType]
        return jax.tree_util.register_dataclass(cls, data_fields=leaves, meta_fields=static)

    return register


def data_names(loss: Callable) -> tuple[str, ...]:
    """The names of a loss' data: ("x", "y"), with masked=True ("x", "y", "where"), for a penalty ().

    A plain function's are its arguments after the params, without `key`, *args and those given by keyword only.
    """
    loss = _unwrapped(loss)
    if isinstance(loss, Loss):
        return loss.data_names
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in _arguments(loss) if p.kind in positional and p.name != "key")


def takes_key(loss: Callable) -> bool:
    """Whether the loss, or any function inside it, may be given `key=`."""
    loss = _unwrapped(loss)
    if isinstance(loss, Loss):
        return any(takes_key(function) for function in loss.functions)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.name == "key" and p.kind in by_name for p in _arguments(loss))


def _unwrapped(loss: Callable) -> Callable:
    """The loss of jaxfit's inside of jax.jit(loss) or jax.checkpoint(loss), which knows better than its signature."""
    inner = inspect.unwrap(loss.func if isinstance(loss, jax.tree_util.Partial) else loss)
    return inner if isinstance(inner, Loss) else loss


_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # what `_arguments` found: it is asked in every call


def _arguments(function: Callable) -> list[inspect.Parameter]:
    """The arguments after the params; none for a built-in function that does not tell."""
    try:
        return _known[function]
    except (KeyError, TypeError):  # new, or not one to remember
        pass
    try:
        found = list(inspect.signature(function).parameters.values())[1:]
    except ValueError:
        found = []
    with contextlib.suppress(TypeError):
        _known[function] = found
    return found


def key_for(loss: Loss | Callable, key: Any) -> dict[str, Any]:
    if key is None:
        return {}
    if not takes_key(loss):
        raise TypeError(f"{loss} takes no key: none of its functions has an argument named `key`; leave key out")
    return {"key": key}


@leaves_of()
@dataclass(frozen=True, eq=False, repr=False)
class Plain(Loss):
    """Anybody's function loss(params, *data) as a term of a sum."""

    function: Callable

    @property
    def data_names(self) -> tuple[str, ...]:
        return data_names(self.function)

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.function,)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        return self.function(params, *data, **key_for(self, key))

    def __repr__(self) -> str:
        return label(self.function)


@leaves_of("terms")
@dataclass(frozen=True, eq=False, repr=False)
class Sum(Loss):
    """loss + penalty + ...: every term gets the data, and the key if it takes one."""

    terms: tuple[Loss, ...]

    @property
    def data_names(self) -> tuple[str, ...]:
        return next((term.data_names for term in self.terms if not isinstance(term, Penalty)), ())

    @property
    def masked(self) -> bool:
        return any(getattr(term, "masked", False) for term in self.terms)

    @property
    def functions(self) -> tuple[Callable, ...]:
        return tuple(function for term in self.terms for function in term.functions)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        given = key_for(self, key)
        values = [term(params, *data, **(given if takes_key(term) else {})) for term in self.terms]
        return functools.reduce(jnp.add, values)

    @property
    def knows_residuals(self) -> bool:
        return all(term.knows_residuals for term in self.terms)

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        given = key_for(self, key)
        parts = [term.blocks(params, *data, **(given if takes_key(term) else {})) for term in self.terms]
        return tuple(block for part in parts for block in part)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


def hashable(name: str, function: Any) -> Callable:
    if not callable(function):
        remedy = "pass a function, such as jaxfit.models.line"
        if hasattr(function, "values") and hasattr(function, "name"):  # an axis
            remedy = f"an axis of models stands around their losses: jf.Axis({function.name!r}, [mse(f), mse(g)])"
        raise TypeError(f"{name} is {reprlib.repr(function)}, which cannot be called; {remedy}")
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
