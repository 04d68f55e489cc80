"""The losses that average or add over data, the penalties, and their sums."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import numbers
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

from jaxfit.datasets import as_numbers

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
        return Sum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Callable) -> Sum:
        return Sum((*_terms(other), *_terms(self)))


def _identity(loss: Loss) -> tuple:
    return (type(loss), *(_frozen(getattr(loss, field.name)) for field in fields(loss)))  # pyright: ignore[reportArgumentType]


def _frozen(value: Any) -> Any:
    if isinstance(value, Tracer):
        return "traced", id(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.shape, str(value.dtype), np.asarray(value).tobytes()
    return value


def _terms(loss: Any) -> tuple[Loss, ...]:
    if isinstance(loss, Sum):
        return loss.terms
    if isinstance(loss, Loss):
        return (loss,)
    if not callable(loss):
        raise TypeError(f"{loss!r} cannot be added to a loss; add a loss, a penalty such as l2(0.1), or a function")
    return (Plain(_hashable("the function", loss)),)


def _loss(*leaves: str) -> Callable[[type[_Class]], type[_Class]]:
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


def _key(loss: Loss | Callable, key: Any) -> dict[str, Any]:
    if key is None:
        return {}
    if not takes_key(loss):
        raise TypeError(f"{loss} takes no key: none of its functions has an argument named `key`; leave key out")
    return {"key": key}


@_loss("delta")
@dataclass(frozen=True, eq=False, repr=False)
class Residual(Loss):
    """A function of the residuals, prediction minus target; made by `rss`, `mse`, `mae`, `huber`."""

    kind: str
    predict: Callable
    masked: bool
    delta: Any = None  # a positive number for huber, else None

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("x", "y", "where") if self.masked else ("x", "y")

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        residuals, where = self._residuals(params, data, key)
        values = _OF_RESIDUALS[self.kind](residuals, self.delta)
        return jnp.sum(values) if self.kind == "rss" else _mean(values, where)

    @property
    def knows_residuals(self) -> bool:
        return self.kind != "mae"  # whose second derivative is zero everywhere

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        residuals, where = self._residuals(params, data, key)
        rho = functools.partial(_huber, delta=self.delta) if self.kind == "huber" else None
        return (Block(residuals, 1.0 if self.kind == "rss" else 1 / _count(residuals, where), rho),)

    def residuals(self, params: Any, *data: Any, key: Any = None) -> Array:
        """Prediction minus target in the target's shape and unit, zero where masked."""
        return self._residuals(params, data, key)[0]

    def _residuals(self, params: Any, data: tuple, key: Any) -> tuple[Array, Array | None]:
        x, y, where = _read(self, data)
        residuals = _difference(self, _predict(self, params, x, key), y)
        return (residuals if where is None else jnp.where(_beside(where, y), residuals, 0)), where

    def __repr__(self) -> str:
        options = [f"delta={self.delta!r}"] * (self.delta is not None) + ["masked=True"] * self.masked
        return f"{self.kind}({', '.join([_name(self.predict), *options])})"


def _huber(residuals: Array, delta: Any) -> Array:
    size = jnp.abs(residuals)
    return jnp.where(size <= delta, jnp.square(residuals) / 2, delta * (size - delta / 2))


_OF_RESIDUALS: dict[str, Callable[[Array, Any], Array]] = {
    "rss": lambda residuals, _: jnp.square(residuals),
    "mse": lambda residuals, _: jnp.square(residuals),
    "mae": lambda residuals, _: residuals * jnp.sign(residuals),  # JAX takes the slope of abs at zero to be one
    "huber": _huber,
}


def rss(predict: Callable, *, masked: bool = False) -> Residual:
    """sum(r**2) with r = predict(params, x) - y: the residual sum of squares, in the target's unit squared.

    Args:
      predict: A hashable function of (params, x), and of `key` if it likes, which returns the shape of y.
      masked: Whether the data are (x, y, where) with a boolean where (n,). Rows where it is False count for nothing,
        NaN in them included; predict sees the first row that counts in their place.

    The data are x (n, ...) and y (n, ...), of integers or floats.

    Raises:
      TypeError: If `predict` cannot be called or hashed; when called, if the data are not as many as `data_names`, or
        not real numbers.
      ValueError: When called, if x and y differ in length or are empty, or predictions and targets differ in shape.
    """
    return Residual("rss", *_checked(predict, masked))


def mse(predict: Callable, *, masked: bool = False) -> Residual:
    """mean(r**2) with r = predict(params, x) - y, in the target's unit squared; arguments and errors as for `rss`."""
    return Residual("mse", *_checked(predict, masked))


def mae(predict: Callable, *, masked: bool = False) -> Residual:
    """mean(|r|) with r = predict(params, x) - y, in the target's unit; arguments and errors as for `rss`.

    The derivative where a residual is zero is taken to be zero.
    """
    return Residual("mae", *_checked(predict, masked))


def huber(predict: Callable, *, delta: float = 1.0, masked: bool = False) -> Residual:
    """mean(h(r)) with h(r) = r**2 / 2 where |r| <= delta, else delta * (|r| - delta / 2).

    Args:
      delta: Where the square becomes linear, in the target's unit; positive. A leaf.

    `predict`, `masked` and the errors are as for `rss`; a `delta` that is a number and not positive is a ValueError.

    Source: Huber (1964), doi:10.1214/aoms/1177703732.
    """
    return Residual("huber", *_checked(predict, masked), _number("delta", delta, "positive"))


@_loss()
@dataclass(frozen=True, eq=False, repr=False)
class CrossEntropy(Loss):
    """Made by `softmax_cross_entropy`."""

    predict: Callable
    masked: bool

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("x", "y", "where") if self.masked else ("x", "y")

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        x, y, where = _read(self, data)
        logits = _predict(self, params, x, key)
        shares = self._shares(y, logits)
        # A share of zero counts for nothing even where the logit is -inf.
        values = -jnp.sum(jnp.where(shares == 0, 0, shares * jax.nn.log_softmax(logits)), axis=-1)
        return _mean(values if where is None else jnp.where(where, values, 0), where)

    def _shares(self, y: Array, logits: Array) -> Array:
        """The target's share of each class: (n, classes), NaN for a label that is no class."""
        if y.shape == logits.shape and y.ndim > 1:
            return _float(y)
        if y.shape != logits.shape[:-1] or not logits.ndim:
            raise ValueError(
                f"{self}: the prediction has shape {logits.shape}, the target y {y.shape}; let predict return logits "
                f"(n, classes), for y give labels (n,) or probabilities (n, classes)"
            )
        if not jnp.issubdtype(y.dtype, jnp.integer):
            raise TypeError(f"{self}: y holds labels of type {y.dtype}; labels must be integers: pass y.astype(int)")
        classes, y = logits.shape[-1], y.astype(int)
        known = (y >= 0) & (y < classes)
        if not isinstance(y, Tracer) and not known.all():
            raise ValueError(
                f"{self}: y holds the label {y[~known][0]}, but predict returns {classes} logits, so that labels must "
                f"lie in 0 .. {classes - 1}: number the classes from 0, or return more logits"
            )
        return jnp.where(jnp.expand_dims(known, -1), jax.nn.one_hot(y, classes, dtype=logits.dtype), jnp.nan)

    def __repr__(self) -> str:
        return f"softmax_cross_entropy({_name(self.predict)}{', masked=True' * self.masked})"


def softmax_cross_entropy(predict: Callable, *, masked: bool = False) -> CrossEntropy:
    """mean over rows of -sum over classes of p * log(softmax(predict(params, x))), in nats.

    Args:
      predict: As for `rss`, but it returns logits (n, classes).
      masked: As for `rss`.

    The target y holds integer labels (n,), counted from 0, or probabilities p (n, classes). A label that is no class
    is a ValueError, or where y is traced a loss of NaN. Other errors as for `rss`.
    """
    return CrossEntropy(*_checked(predict, masked))


@_loss("strength")
@dataclass(frozen=True, eq=False, repr=False)
class L2(Loss):
    """Made by `l2`."""

    strength: Any
    of: Callable | None

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Any, *data: Any) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.strength * sum(jnp.sum(jnp.square(leaf)) for leaf in self._chosen(params))

    def blocks(self, params: Any, *data: Any) -> tuple[Block, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(Block(leaf, self.strength) for leaf in self._chosen(params))

    def _chosen(self, params: Any) -> list[Array]:
        leaves = jax.tree.leaves(params if self.of is None else self.of(params))
        if not leaves:
            raise ValueError(f"{self}: there are no params to penalize; choose some with of=")
        return [_float(as_numbers("params", leaf)) for leaf in leaves]

    def __repr__(self) -> str:
        return f"l2({self.strength!r}{'' if self.of is None else f', of={_name(self.of)}'})"


def l2(strength: float, of: Callable | None = None) -> L2:
    """strength * (sum of the squares of all params): a penalty, to be added to a loss. It ignores the data.

    Args:
      strength: Zero or more, in the loss' unit over the params' squared. A leaf.
      of: A hashable function of the params that chooses the penalized ones, such as the weights without the biases.

    Raises:
      ValueError: If `strength` is a number and negative, NaN or infinite.
      TypeError: If `strength` cannot be a number, or `of` cannot be called or hashed.
    """
    return L2(_number("strength", strength, "zero or more"), of if of is None else _hashable("of", of))


@_loss("strength", "x")
@dataclass(frozen=True, eq=False, repr=False)
class Smoothness(Loss):
    """Made by `smoothness`."""

    predict: Callable
    strength: Any
    x: Any

    @property
    def functions(self) -> tuple[Callable, ...]:
        return (self.predict,)

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        return self.strength * jnp.mean(jnp.square(self._bends(params, key)))

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        bends = self._bends(params, key)
        return (Block(bends, self.strength / bends.size),)

    def _bends(self, params: Any, key: Any) -> Array:
        x = _array("x", self.x)
        prediction = _predict(self, params, x, key)
        if prediction.shape[:1] != x.shape:
            raise ValueError(
                f"{self}: the prediction has shape {prediction.shape} on a grid x of shape {x.shape}; "
                f"let predict return one row for each point, {x.shape} or ({len(x)}, outputs)"
            )
        x = _float(x)
        slopes = jnp.diff(prediction, axis=0) / _beside(jnp.diff(x), prediction)
        return 2 * jnp.diff(slopes, axis=0) / _beside(x[2:] - x[:-2], prediction)

    def __repr__(self) -> str:
        return f"smoothness({_name(self.predict)}, strength={self.strength!r})"


def smoothness(predict: Callable, *, strength: float, x: Any) -> Smoothness:
    """strength * mean(bend**2), the bend being the second difference of the predictions over the spacing squared.

    On an uneven grid it is the second divided difference times two, so that a straight line is free on any grid, and a
    finer grid does not weaken the penalty. A penalty, to be added to a loss; it ignores the data.

    Args:
      predict: As for `rss`; it returns (m,) or (m, outputs) for the grid.
      strength: Zero or more, in the loss' unit over the bend's squared. A leaf.
      x: (m,) points, strictly increasing, three or more. A leaf.

    Raises:
      ValueError: If `strength` is a number and negative, NaN or infinite, or `x` is not such a grid.
      TypeError: If `predict` cannot be called or hashed, or the others cannot be numbers.
    """
    predict, _ = _checked(predict, False)
    return Smoothness(predict, _number("strength", strength, "zero or more"), _grid(x))


@_loss()
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
        return self.function(params, *data, **_key(self, key))

    def __repr__(self) -> str:
        return _name(self.function)


@_loss("terms")
@dataclass(frozen=True, eq=False, repr=False)
class Sum(Loss):
    """loss + penalty + ...: every term gets the data, and the key if it takes one."""

    terms: tuple[Loss, ...]

    @property
    def data_names(self) -> tuple[str, ...]:
        return next((term.data_names for term in self.terms if not isinstance(term, (L2, Smoothness))), ())

    @property
    def masked(self) -> bool:
        return any(getattr(term, "masked", False) for term in self.terms)

    @property
    def functions(self) -> tuple[Callable, ...]:
        return tuple(function for term in self.terms for function in term.functions)

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        given = _key(self, key)
        values = [term(params, *data, **(given if takes_key(term) else {})) for term in self.terms]
        return functools.reduce(jnp.add, values)

    @property
    def knows_residuals(self) -> bool:
        return all(term.knows_residuals for term in self.terms)

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        given = _key(self, key)
        parts = [term.blocks(params, *data, **(given if takes_key(term) else {})) for term in self.terms]
        return tuple(block for part in parts for block in part)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


def _read(loss: Any, data: tuple) -> tuple[Any, ...]:
    """x, y and where (or None), checked, before where any further data as they are.

    Masked rows of x and y are replaced, so that nothing in them reaches a gradient.
    """
    names = loss.data_names
    if len(data) != len(names):
        raise TypeError(
            f"{loss} takes the data ({', '.join(names)}), but got {len(data)} array{'s' * (len(data) != 1)}; "
            f"a loss takes (x, y), with masked=True (x, y, where), and chi_squared a sigma after y"
        )
    x, y, *more = (_array(name, value) for name, value in zip(names, data, strict=True))
    where = more.pop() if "where" in names else None
    if not y.size:
        raise ValueError(f"{loss}: y has shape {y.shape}, so there is no data; pass at least one row")
    if y.ndim and x.shape[:1] != y.shape[:1]:
        raise ValueError(
            f"{loss}: x has shape {x.shape} and y {y.shape}; their first axes must be of one length, a row for each "
            f"observation: drop the rows without a partner"
        )
    if where is None:
        return x, y, *more, None
    where = _mask(loss, where, y)
    return _fill(x, where), _fill(y, where), *more, where


def _mask(loss: Loss, where: Array, y: Array) -> Array:
    if where.dtype != bool:
        raise TypeError(f"{loss}: where holds {where.dtype} values; a mask must be boolean: pass where.astype(bool)")
    if where.ndim != 1 or where.shape != y.shape[:1]:
        raise ValueError(f"{loss}: where has shape {where.shape} and y {y.shape}; where must be (n,), one entry a row")
    if not isinstance(where, Tracer) and not where.any():
        raise ValueError(f"{loss}: where is False everywhere, so there is no data; at least one row must count")
    return where


def _fill(values: Array, where: Array) -> Array:
    """Masked rows become the first one that counts, or ones if there is none."""
    row = jnp.where(jnp.any(where), values[jnp.argmax(where)], jnp.ones_like(values[0]))
    return jnp.where(_beside(where, values), values, jnp.expand_dims(row, 0))


def _beside(column: Array, like: Array) -> Array:
    """(n,) as (n, 1, ...) with as many axes as `like`."""
    return jnp.expand_dims(column, tuple(range(1, like.ndim)))


def _mean(values: Array, where: Array | None) -> Array:
    """The mean over rows that count; those that do not hold zeros. Without any it is zero."""
    return jnp.mean(values) if where is None else jnp.sum(values) / _count(values, where)


def _count(values: Array, where: Array | None) -> Any:
    """How many of the values count; one if none does."""
    return values.size if where is None else jnp.maximum(jnp.sum(where) * (values.size // where.size), 1)


def _predict(loss: Any, params: Any, x: Array, key: Any) -> Array:
    prediction = loss.predict(params, x, **_key(loss, key))
    if not isinstance(prediction, (Array, np.ndarray, numbers.Number)):
        raise TypeError(f"{loss}: predict returned a {type(prediction).__name__}; it must return one array")
    return _float(as_numbers("prediction", prediction))


def _difference(loss: Loss, prediction: Array, y: Array) -> Array:
    """Prediction minus target, which must be of one shape."""
    if prediction.shape != y.shape:
        raise ValueError(
            f"{loss}: the prediction has shape {prediction.shape}, the target y {y.shape}; a loss never broadcasts "
            f"targets against predictions: {_reshape(prediction.shape, y.shape)}"
        )
    return prediction - _float(y)


def _reshape(prediction: tuple[int, ...], target: tuple[int, ...]) -> str:
    rule = f"return predictions of shape {target}"
    if prediction == (*target, 1):
        return f"{rule}, for instance prediction[{':, ' * len(target)}0]"
    if target == (*prediction, 1):
        return f"{rule}, or pass y[{':, ' * len(prediction)}0]"
    return rule + (f", or reshape y to {prediction}" if math.prod(prediction) == math.prod(target) else "")


def _array(name: str, value: Any) -> Array:
    given = as_numbers(name, value)
    array = jnp.asarray(given)
    if given.dtype.kind in "iu" and given.dtype != array.dtype and not np.array_equal(given, array):
        raise ValueError(f"{name} holds integers too large for {array.dtype}; convert them: {name}.astype(float)")
    return array


def _float(value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(value, float))


def _checked(predict: Callable, masked: bool) -> tuple[Callable, bool]:
    if not isinstance(masked, (bool, np.bool_)):
        raise TypeError(
            f"masked is {reprlib.repr(masked)}; it is True or False, and the mask is a part of the data: (x, y, where)"
        )
    return _hashable("predict", predict), bool(masked)


def _hashable(name: str, function: Any) -> Callable:
    if not callable(function):
        raise TypeError(
            f"{name} is {reprlib.repr(function)}, which cannot be called; pass a function, such as jaxfit.models.line"
        )
    try:
        hash(function)
    except TypeError:
        raise TypeError(
            f"{name} is {reprlib.repr(function)}, which cannot be hashed, as a part of a compiled program must be; "
            f"pass a plain function, or give its class eq=False"
        ) from None
    return function


def _number(name: str, value: Any, rule: str) -> Any:
    """A plain number, checked, as a float; anything that may become one in a trace or a sweep, as it is."""
    if isinstance(value, (str, bytes, bool, np.bool_, list, tuple, dict, complex, type(None))):
        raise TypeError(f"{name} is {reprlib.repr(value)}; it must be a number, {rule}")
    if not isinstance(value, numbers.Real) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        return value
    if not math.isfinite(value) or value < 0 or (value == 0 and rule == "positive"):
        raise ValueError(f"{name} is {value}; it must be {rule}, and finite")
    return float(value)


def _grid(x: Any) -> Any:
    if isinstance(x, (str, bytes, dict, numbers.Number, type(None))):
        raise TypeError(f"x is {x!r}; it must be a grid of points, such as np.linspace(0, 1, 50)")
    if not isinstance(x, (list, tuple)) and (isinstance(x, Tracer) or not hasattr(x, "__array__")):
        return x
    x = as_numbers("x", x)
    if x.ndim != 1 or len(x) < 3:
        raise ValueError(f"x has shape {x.shape}; a grid must be (m,) with three points or more: np.linspace(0, 1, 50)")
    if not (np.all(np.isfinite(x)) and np.all(np.diff(x) > 0)):
        raise ValueError("x must be finite and strictly increasing; sort it and drop repetitions: np.unique(x)")
    return x if isinstance(x, jax.Array) else np.array(x)


def _name(function: Callable) -> str:
    return getattr(function, "__name__", repr(function))
