"""Models: values called as `model(params, x)`, each with an `init(key)` that makes its params.

Equal arguments give equal models, so a model written in place never recompiles.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_key, as_numbers


@dataclass(frozen=True, repr=False)
class Line:
    """w * x + b for x of any shape, with params {"w": (), "b": ()}; `line` is the one there is."""

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        return params["w"] * _array(x) + params["b"]

    def init(self, key: int | Array) -> dict[str, Array]:
        """w from N(0, 1), b zero."""
        return {"w": jax.random.normal(as_key(key)), "b": jnp.zeros(())}

    @staticmethod
    def least_squares(x: Any, y: Any) -> dict[str, float]:
        """The params of least mean squared error: w = sum (x - mean x)(y - mean y) / sum (x - mean x)**2, and b.

        b = mean y - w * mean x. In float64, whatever the arrays are; x and y are (n,).

        Raises:
          ValueError: If the shapes are others, a number is not finite, or x is the same at every point: a line through
            one x has any slope.
        """
        x, y = (np.asarray(as_numbers(name, value), float) for name, value in (("x", x), ("y", y)))
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"x has shape {x.shape} and y {y.shape}; a line takes two arrays (n,) of one length")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("x or y holds NaN or infinity; drop those points")
        if not np.ptp(x) if x.size else True:
            raise ValueError(
                f"x is {f'{x[0]:g} at every point' if x.size else 'empty'}, so that the slope is not determined; a "
                f"line takes at least two different x"
            )
        apart = (x - x.mean()) / np.ptp(x)  # squares of these neither overflow nor underflow
        w = float(np.sum(apart * (y - y.mean())) / np.sum(apart**2) / np.ptp(x))
        return {"w": w, "b": float(y.mean() - w * x.mean())}

    def __repr__(self) -> str:
        return "line"


line = Line()


@dataclass(frozen=True, repr=False)
class Polynomial:
    """c[0] + c[1] x + ... + c[degree] x**degree; make one with `polynomial`."""

    degree: int

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        x, coefficients = _array(x), params["coefficients"]
        if jnp.shape(coefficients) != (self.degree + 1,):
            raise ValueError(
                f"{self}: params['coefficients'] has shape {jnp.shape(coefficients)}; "
                f"a polynomial of degree {self.degree} takes ({self.degree + 1},), the constant first"
            )
        value = coefficients[-1]
        for power in reversed(range(self.degree)):
            value = value * x + coefficients[power]
        return value if self.degree else jnp.broadcast_to(value, jnp.shape(x))

    def init(self, key: int | Array) -> dict[str, Array]:
        """Coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (self.degree + 1,))}

    def __repr__(self) -> str:
        return f"polynomial({self.degree})"


def polynomial(degree: int) -> Polynomial:
    """c[0] + c[1] x + ... + c[degree] x**degree for x of any shape, by Horner's rule.

    The params are {"coefficients": (degree + 1,)}, the constant first.

    Raises:
      TypeError: If `degree` is not a whole number.
      ValueError: If it is negative.
    """
    return Polynomial(_whole("degree", degree, at_least=0))


@dataclass(frozen=True, repr=False)
class OrthogonalPolynomial:
    """c[0] p_0(x) + ... + c[degree] p_degree(x); make one with `orthogonal_polynomial`."""

    shifts: tuple[float, ...]
    scales: tuple[float, ...]

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        x, coefficients = _array(x), params["coefficients"]
        count = len(self.shifts) + 1
        if jnp.shape(coefficients) != (count,):
            raise ValueError(
                f"{self}: params['coefficients'] has shape {jnp.shape(coefficients)}; "
                f"a polynomial of degree {count - 1} takes ({count},), the constant first"
            )
        return sum(coefficients[k] * basis for k, basis in enumerate(self._basis(x)))

    def _basis(self, x: Any) -> list:
        """p_k+1 = ((x - shift_k) p_k - scale_k p_k-1) / scale_k+1, from p_0 = 1."""
        found = [0 * x + 1.0]
        for k, (shift, scale) in enumerate(zip(self.shifts, self.scales, strict=True)):
            raised = (x - shift) * found[k] - (self.scales[k - 1] * found[k - 1] if k else 0.0)
            found.append(raised / scale)
        return found

    def init(self, key: int | Array) -> dict[str, Array]:
        """Coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (len(self.shifts) + 1,))}

    def __repr__(self) -> str:
        return f"orthogonal_polynomial({len(self.shifts)})"


def orthogonal_polynomial(degree: int, x: Any) -> OrthogonalPolynomial:
    """c[0] p_0(x) + ... + c[degree] p_degree(x), the p_k being orthonormal on the points given here.

    p_k is of degree k, and the mean over the points of p_j p_k is 1 if j = k, else 0. So these are the functions of
    `polynomial(degree)`, but the Hessian of their mean squared error on those points is 2 in every direction: gradient
    descent with a learning rate of 0.5 is there after one update, where with powers of x it would take longer than
    anybody can wait. The params are {"coefficients": (degree + 1,)}, the constant first.

    Args:
      degree: Zero or more, and less than the number of distinct points.
      x: (n,) points, usually those of the data.

    Raises:
      TypeError: If `degree` is not a whole number, or `x` holds no numbers.
      ValueError: If `degree` is negative or too high for the points, or these are not (n,) finite numbers.

    Source: Forsythe (1957), doi:10.1137/0105007.
    """
    degree = _whole("degree", degree, at_least=0)
    points = np.asarray(as_numbers("x", x), float)
    if points.ndim != 1 or not len(points) or not np.all(np.isfinite(points)):
        raise ValueError(f"x has shape {points.shape}; it must be (n,) finite points, such as those of the data")
    distinct = len(np.unique(points))
    if degree >= distinct:
        raise ValueError(
            f"degree is {degree}, but x has {distinct} distinct points, on which only polynomials up to degree "
            f"{distinct - 1} differ: choose a lower degree, or more points"
        )
    shifts, scales = [], []
    before, here = np.zeros_like(points), np.ones_like(points)
    for k in range(degree):
        shifts.append(float(np.mean(points * here**2)))
        raised = (points - shifts[k]) * here - (scales[k - 1] * before if k else 0.0)
        scales.append(float(np.sqrt(np.mean(raised**2))))
        before, here = here, raised / scales[k]
    return OrthogonalPolynomial(tuple(shifts), tuple(scales))


def _linear(x: Any) -> Any:
    return x


ACTIVATIONS: dict[str, Callable] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "linear": _linear,
}


@dataclass(frozen=True, repr=False)
class Dense:
    """Layers activation(h @ w + b), the last one without activation; make one with `dense`."""

    widths: tuple[int, ...]
    activation: str

    def __call__(self, params: Sequence[dict[str, Any]], x: Any) -> Array:
        self._check(params, jnp.shape(x))
        shape = jnp.shape(x)
        h = jnp.reshape(_array(x), (-1, self.widths[0]))
        for i, layer in enumerate(params):
            h = h @ layer["w"] + jnp.expand_dims(layer["b"], 0)
            h = ACTIVATIONS[self.activation](h) if i < len(params) - 1 else h
        return h if len(shape) == 2 or self.widths[-1] > 1 else jnp.reshape(h, shape)

    def _check(self, params: Sequence[dict[str, Any]], shape: tuple[int, ...]) -> None:
        fan_in = self.widths[0]
        if not (len(shape) == 2 and shape[-1] == fan_in) and not (fan_in == 1 and len(shape) == 1):
            rule = "(n, 1) or (n,)" if fan_in == 1 else f"(n, {fan_in})"
            remedy = f"; for one point write x[None, :], of shape (1, {fan_in})" if shape == (fan_in,) else ""
            raise ValueError(f"{self}: x has shape {shape}, but {fan_in} inputs need {rule}{remedy}")
        got = [(jnp.shape(layer["w"]), jnp.shape(layer["b"])) for layer in params]
        rule = [((m, n), (n,)) for m, n in zip(self.widths, self.widths[1:], strict=False)]
        if got != rule:
            raise ValueError(f"{self}: params have (w, b) of shapes {got}, but these widths need {rule}; see init(key)")

    def init(self, key: int | Array) -> list[dict[str, Array]]:
        """w from a normal distribution of variance 2 / fan_in (relu) or 2 / (fan_in + fan_out), b zero.

        Source: He et al. (2015), arXiv:1502.01852; Glorot and Bengio (2010), PMLR 9:249-256.
        """
        key = as_key(key)
        return [
            {"w": self._scale(m, n) * jax.random.normal(jax.random.fold_in(key, i), (m, n)), "b": jnp.zeros(n)}
            for i, (m, n) in enumerate(zip(self.widths, self.widths[1:], strict=False))
        ]

    def _scale(self, fan_in: int, fan_out: int) -> float:
        return (2 / (fan_in if self.activation == "relu" else fan_in + fan_out)) ** 0.5

    def __repr__(self) -> str:
        return f"dense({self.widths}, {self.activation!r})"


def dense(widths: Sequence[int], activation: str = "tanh") -> Dense:
    """A fully connected network: h = activation(h @ w + b) for every layer but the last, which is linear.

    The params are a list with {"w": (in, out), "b": (out,)} for each layer.

    Args:
      widths: Numbers of units from the input to the output, such as (1, 16, 1); two or more.
      activation: "relu", "tanh", "sigmoid" or "linear".

    Returns:
      A model of x (n, in), giving (n, out). With one input x may also be (n,), which with one output gives (n,).
      Any other shape is a ValueError, one point of shape (in,) too.

    Raises:
      TypeError: If a width is not a whole number.
      ValueError: If there are fewer than two widths, one is below 1, or the activation is unknown.
    """
    if isinstance(widths, (str, bytes)) or not hasattr(widths, "__iter__"):
        raise TypeError(f"widths is {widths!r}; it must be a sequence of whole numbers, such as (1, 16, 1)")
    checked = tuple(_whole(f"widths[{i}]", width, at_least=1) for i, width in enumerate(widths))
    if len(checked) < 2:
        raise ValueError(f"widths is {checked}; give at least the inputs and the outputs, such as (1, 1)")
    if activation not in ACTIVATIONS:
        near = difflib.get_close_matches(str(activation).lower(), ACTIVATIONS)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"activation is {activation!r}; {hint}it must be one of {', '.join(map(repr, ACTIVATIONS))}")
    return Dense(checked, activation)


@dataclass(frozen=True, repr=False)
class FromFunction:
    """A function f(x, a, b) as a model with params {"a", "b"}; make one with `from_function`."""

    function: Callable

    def __call__(self, params: dict[str, Any], x: Any) -> Any:
        free = _parameters(self.function)
        by_position = [params[p.name] for p in free if p.kind is not p.KEYWORD_ONLY]
        by_name = {p.name: params[p.name] for p in free if p.kind is p.KEYWORD_ONLY}
        return self.function(_array(x), *by_position, **by_name)

    def init(self, key: int | Array) -> dict[str, Array]:
        """The function's own defaults; N(0, 1) for parameters without one."""
        key = as_key(key)
        return {
            p.name: jax.random.normal(jax.random.fold_in(key, i))
            if p.default is p.empty
            else jnp.asarray(p.default, float)
            for i, p in enumerate(_parameters(self.function))
        }

    def __repr__(self) -> str:
        return f"from_function({getattr(self.function, '__name__', self.function)})"


def from_function(f: Callable) -> FromFunction:
    """A model of a function that takes x and then its parameters one by one, as `scipy.optimize.curve_fit` does.

    `f(x, a, b=2.0)` has the params {"a", "b"}, and `init` starts b at 2. Keyword-only arguments with a default stay
    constants; so do arguments bound by keyword with `functools.partial`.

    Raises:
      TypeError: If `f` is not callable or not hashable, or a parameter's default is not a number.
      ValueError: If `f` has no parameters after x, takes *args, or has no signature to read them from.
    """
    if not callable(f):
        raise TypeError(f"f is {f!r}; it must be a function f(x, a, b)")
    try:
        hash(f)
    except TypeError:
        raise TypeError(f"f is {f!r}, which cannot be hashed; wrap it in a plain function") from None
    for p in _parameters(f):
        if p.default is not p.empty and (isinstance(p.default, bool) or not isinstance(p.default, numbers.Real)):
            raise TypeError(
                f"f: parameter {p.name!r} has the default {p.default!r}, which is no number to fit; "
                f"bind it first: functools.partial(f, {p.name}={p.default!r})"
            )
    return FromFunction(f)


def _parameters(f: Callable) -> list[inspect.Parameter]:
    try:
        given = list(inspect.signature(f).parameters.values())
    except ValueError:
        raise ValueError(f"f is {f!r}, whose arguments cannot be read; {_WRITE_OUT}") from None
    if any(p.kind is p.VAR_POSITIONAL for p in given):
        raise ValueError(f"f takes *args, so its parameters have no names; {_WRITE_OUT}")
    constant = {p.name for p in given if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    free = [p for p in given[1:] if p.kind is not p.VAR_KEYWORD and p.name not in constant]
    if not free:
        raise ValueError(f"f has no parameters to fit after its first argument; {_WRITE_OUT}")
    return free


_WRITE_OUT = "write them out: lambda x, a, b: f(x, a, b)"


def _whole(name: str, value: Any, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number, {at_least} or more")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")
    return int(value)


def _array(x: Any) -> Any:
    """Lists as arrays; NumPy's arrays stay NumPy's, so that float64 params keep their precision outside of JAX."""
    return x if isinstance(x, numbers.Number) else as_numbers("x", x)
