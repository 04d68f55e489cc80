"""Models whose params `init(key)` makes: functions of one's own, dense networks, lines and polynomials."""

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

from jaxfit.datasets import as_numbers
from jaxfit.models.guessing import Shape, Span
from jaxfit.models.terms import Curve, Term, array, whole_number
from jaxfit.problems.axes import as_key
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import ArrayLike, Number, Params


@dataclass(frozen=True, repr=False)
class FromFunction:
    """A function f(x, a, b) as a model with params {"a", "b"}; made by `from_function`."""

    function: Callable

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        free = _parameters(self.function)
        by_position = [params[p.name] for p in free if p.kind is not p.KEYWORD_ONLY]
        by_name = {p.name: params[p.name] for p in free if p.kind is p.KEYWORD_ONLY}
        x = x if isinstance(x, numbers.Number) else as_numbers("x", x)
        return self.function(x, *by_position, **by_name)

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return the function's own defaults; N(0, 1) for parameters without one."""
        key = as_key(key)
        return {
            p.name: jax.random.normal(jax.random.fold_in(key, i))
            if p.default is p.empty
            else jnp.asarray(p.default, float)
            for i, p in enumerate(_parameters(self.function))
        }

    def __repr__(self) -> str:
        return f"from_function({getattr(self.function, '__name__', self.function)})"


@near_keywords
def from_function(f: Callable) -> FromFunction:
    """Make a model of a function that takes x and then its parameters, as `scipy.optimize.curve_fit` does.

    `f(x, a, b=2.0)` has the params {"a", "b"}, and `init` starts b at 2. Keyword-only arguments with a default stay
    constants; so do arguments bound by keyword with `functools.partial`.

    Raises:
      TypeError: If `f` is not callable or not hashable, or a parameter's default is not a number.
      ValueError: If `f` has no parameters after x, takes *args, or has no signature to read them from.

    Example:
      >>> model = jf.models.from_function(lambda x, a, b=2.0: a * x + b)
      >>> float(model({"a": 3.0, "b": 2.0}, 1.0))
      5.0
    """
    if not callable(f):
        raise TypeError(f"f is {shown(f)}, but it must be a function f(x, a, b), itself and not its values")
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
        remedy = "give it some: lambda x, a, b: a * f(x) + b"
        if any(p.kind is p.VAR_KEYWORD for p in given):
            remedy = "write out those that come by name: lambda x, a, b: f(x, a=a, b=b)"
        raise ValueError(f"f has no parameters to fit after its first argument; {remedy}")
    return free


_WRITE_OUT = "write them out: lambda x, a, b: f(x, a, b)"


ACTIVATIONS: dict[str, Callable] = {
    "relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "linear": lambda x: x,
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Dense:
    """A fully connected network; made by `dense`."""

    widths: tuple[int, ...]
    activation: str

    def __call__(self, params: Sequence[Params], x: ArrayLike) -> Array:
        shape = np.shape(x)
        self._check(params, shape)
        h = jnp.reshape(array(x), (-1, self.widths[0]))
        for i, layer in enumerate(params):
            h = h @ layer["w"] + jnp.expand_dims(layer["b"], 0)
            h = ACTIVATIONS[self.activation](h) if i < len(params) - 1 else h
        return h if len(shape) == 2 or self.widths[-1] > 1 else jnp.reshape(h, shape)

    def _check(self, params: Sequence[Params], shape: tuple[int, ...]) -> None:
        fan_in = self.widths[0]
        if not (len(shape) == 2 and shape[-1] == fan_in) and not (fan_in == 1 and len(shape) == 1):
            rule = "(n, 1) or (n,)" if fan_in == 1 else f"(n, {fan_in})"
            remedy = f"; for one point write x[None, :], of shape (1, {fan_in})" if shape == (fan_in,) else ""
            raise ValueError(f"{self}: x has shape {shape}, but {fan_in} inputs need {rule}{remedy}")
        got = [(jnp.shape(layer["w"]), jnp.shape(layer["b"])) for layer in params]
        rule = [((m, n), (n,)) for m, n in zip(self.widths, self.widths[1:], strict=False)]
        if got != rule:
            raise ValueError(f"{self}: params have (w, b) of shapes {got}, but these widths need {rule}; see init(key)")

    def init(self, key: int | Array, like: str | None = None) -> list[dict[str, Array]]:
        """Return w from a normal distribution of variance 2 / fan_in (relu) or 2 / (fan_in + fan_out), and b zero.

        Args:
          key: A seed or a key.
          like: Another framework, whose distribution is taken instead. "torch": w and b uniform between plus and minus
            1 / sqrt(fan_in), as its Linear. "keras": w uniform between plus and minus sqrt(6 / (fan_in + fan_out)), b
            zero, as its Dense. "tfjs": w normal of variance 2 / (fan_in + fan_out), drawn anew beyond two standard
            deviations, b zero. The numbers drawn are JAX's own.

        Source: He et al. (2015), arXiv:1502.01852; Glorot and Bengio (2010), PMLR 9:249-256.
        """
        if like not in (None, *_INITS):
            raise ValueError(f"init: like is {like!r}, but it must be one of {', '.join(map(repr, _INITS))}, or None")
        key = as_key(key)
        keys = [jax.random.fold_in(key, i) for i in range(len(self.widths) - 1)]
        layers = zip(keys, self.widths, self.widths[1:], strict=False)
        if like is not None:
            return [dict(zip("wb", _INITS[like](key, m, n), strict=True)) for key, m, n in layers]
        return [{"w": self._scale(m, n) * jax.random.normal(key, (m, n)), "b": jnp.zeros(n)} for key, m, n in layers]

    def _scale(self, fan_in: int, fan_out: int) -> float:
        return (2 / (fan_in if self.activation == "relu" else fan_in + fan_out)) ** 0.5

    def __repr__(self) -> str:
        return f"dense({self.widths}, {self.activation!r})"


def _as_torch(key: Array, m: int, n: int) -> tuple[Array, Array]:
    w, b = (jax.random.uniform(one, shape, minval=-1, maxval=1) for one, shape in zip(
        jax.random.split(key), ((m, n), (n,)), strict=True))  # fmt: skip
    return w / m**0.5, b / m**0.5


def _as_keras(key: Array, m: int, n: int) -> tuple[Array, Array]:
    return (6 / (m + n)) ** 0.5 * jax.random.uniform(key, (m, n), minval=-1, maxval=1), jnp.zeros(n)


def _as_tfjs(key: Array, m: int, n: int) -> tuple[Array, Array]:
    return (2 / (m + n)) ** 0.5 * jax.random.truncated_normal(key, -2, 2, (m, n)), jnp.zeros(n)


_INITS = {"torch": _as_torch, "keras": _as_keras, "tfjs": _as_tfjs}


@near_keywords
def dense(widths: Sequence[int], activation: str = "tanh") -> Dense:
    """Make a fully connected network: h = activation(h @ w + b) for every layer except the last, which is linear.

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

    Example:
      >>> net = jf.models.dense((1, 8, 1))
      >>> [{name: leaf.shape for name, leaf in layer.items()} for layer in net.init(0)]
      [{'w': (1, 8), 'b': (8,)}, {'w': (8, 1), 'b': (1,)}]
    """
    if isinstance(widths, (str, bytes)) or not hasattr(widths, "__iter__"):
        raise TypeError(f"widths is {widths!r}; it must be a sequence of whole numbers, such as (1, 16, 1)")
    checked = tuple(whole_number(f"widths[{i}]", width, at_least=1) for i, width in enumerate(widths))
    if len(checked) < 2:
        raise ValueError(f"widths is {checked}; give at least the inputs and the outputs, such as (1, 1)")
    if activation not in ACTIVATIONS:
        near = difflib.get_close_matches(str(activation).lower(), ACTIVATIONS)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"activation is {activation!r}; {hint}it must be one of {', '.join(map(repr, ACTIVATIONS))}")
    return Dense(checked, activation)


@dataclass(frozen=True, repr=False)
class Line(Curve):
    """A straight line, w * x + b for x of any shape, with params {"w": (), "b": ()}.

    Example:
      >>> jf.models.line({"w": 2.0, "b": 1.0}, np.array([0.0, 3.0])).tolist()
      [1.0, 7.0]
    """

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        return params["w"] * array(x) + params["b"]

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return w from N(0, 1) and b zero."""
        return {"w": jax.random.normal(as_key(key)), "b": jnp.zeros(())}

    @property
    def names(self) -> tuple[str, ...]:
        return "w", "b"

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return columns that are orthogonal for evenly spaced points."""
        return jnp.stack([(span.x - (span.low + span.high) / 2) / span.width, jnp.ones_like(span.x)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        w = coefficients[0] / span.width
        return {"w": w, "b": coefficients[1] - w * (span.low + span.high) / 2}

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the line that is higher everywhere."""
        return params | {"b": params["b"] + rise}

    @staticmethod
    def least_squares(x: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """Return the params of least mean squared error: w = sum (x - mean x)(y - mean y) / sum (x - mean x)**2, and b.

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
        if not x.size or not np.ptp(x):
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
class Constant(Term):
    """A constant, with params {"offset": ()} in the unit of y: a background, as in `gaussian + constant`.

    Example:
      >>> jf.models.constant({"offset": 2.0}, np.array([0.0, 1.0])).tolist()
      [2.0, 2.0]
    """

    def value(self, x: Array, offset: Number) -> Array:
        points = jnp.shape(x)
        return jnp.broadcast_to(offset, points[:-1] if len(points) > 1 else points)

    def columns(self, shape: Shape, span: Span) -> Array:
        return jnp.ones((1, span.size), span.x.dtype)

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the constant that is higher."""
        return {"offset": params["offset"] + rise}


constant = Constant()


def _coefficients(model: object, params: Params, degree: int) -> Array:
    coefficients = params["coefficients"]
    if jnp.shape(coefficients) != (degree + 1,):
        raise ValueError(
            f"{model}: params['coefficients'] has shape {jnp.shape(coefficients)}; a polynomial of degree {degree} "
            f"takes ({degree + 1},), the constant first"
        )
    return coefficients


@dataclass(frozen=True, repr=False)
class Polynomial(Curve):
    """A polynomial c[0] + c[1] x + ... + c[degree] x**degree; made by `polynomial`."""

    degree: int

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        points, coefficients = array(x), _coefficients(self, params, self.degree)
        value = coefficients[-1]
        for power in reversed(range(self.degree)):
            value = value * points + coefficients[power]
        return value if self.degree else jnp.broadcast_to(value, jnp.shape(points))

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (self.degree + 1,))}

    @property
    def names(self) -> tuple[str, ...]:
        return ("coefficients",)

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return powers of x, in units of the largest."""
        return jnp.stack([(span.x / self._unit(span)) ** power for power in range(self.degree + 1)])

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> dict[str, Array]:
        return {"coefficients": coefficients / self._unit(span) ** jnp.arange(self.degree + 1)}

    def raised(self, params: Params, rise: Array) -> Params:
        """Return the params of the polynomial that is higher everywhere."""
        return {"coefficients": params["coefficients"].at[0].add(rise)}

    @staticmethod
    def _unit(span: Span) -> Array:
        largest = jnp.maximum(jnp.abs(span.low), jnp.abs(span.high))
        return jnp.where(largest > 0, largest, 1)

    def __repr__(self) -> str:
        return f"polynomial({self.degree})"


@near_keywords
def polynomial(degree: int) -> Polynomial:
    """Return the model c[0] + c[1] x + ... + c[degree] x**degree for x of any shape, computed by Horner's rule.

    The params are {"coefficients": (degree + 1,)}, the constant first.

    Raises:
      TypeError: If `degree` is not a whole number.
      ValueError: If it is negative.

    Example:
      >>> jf.models.polynomial(2)({"coefficients": np.array([1.0, 0.0, 2.0])}, np.array([0.0, 3.0])).tolist()
      [1.0, 19.0]
    """
    return Polynomial(whole_number("degree", degree, at_least=0))


@dataclass(frozen=True, repr=False)
class OrthogonalPolynomial:
    """A polynomial c[0] p_0(x) + ... + c[degree] p_degree(x); made by `orthogonal_polynomial`."""

    shifts: tuple[float, ...]
    scales: tuple[float, ...]

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        points, coefficients = array(x), _coefficients(self, params, len(self.shifts))
        value: Any = sum(coefficients[k] * basis for k, basis in enumerate(self._basis(points)))
        return value

    def _basis(self, x: Array) -> list[Array]:
        """Return the polynomials p_k+1 = ((x - shift_k) p_k - scale_k p_k-1) / scale_k+1, from p_0 = 1."""
        basis = [0 * x + 1.0]
        for k, (shift, scale) in enumerate(zip(self.shifts, self.scales, strict=True)):
            raised = (x - shift) * basis[k] - (self.scales[k - 1] * basis[k - 1] if k else 0.0)
            basis.append(raised / scale)
        return basis

    def init(self, key: int | Array) -> dict[str, Array]:
        """Return coefficients from N(0, 1)."""
        return {"coefficients": jax.random.normal(as_key(key), (len(self.shifts) + 1,))}

    def __repr__(self) -> str:
        return f"orthogonal_polynomial({len(self.shifts)})"


@near_keywords
def orthogonal_polynomial(degree: int, x: ArrayLike) -> OrthogonalPolynomial:
    """Return the model c[0] p_0(x) + ... + c[degree] p_degree(x), with p_k orthonormal on the given points.

    p_k is of degree k, and the mean over the points of p_j p_k is 1 if j = k, else 0. So these are the functions of
    `polynomial(degree)`, but the Hessian of their mean squared error on those points is 2 in every direction: gradient
    descent with a learning rate of 0.5 needs one update, while with powers of x it would take far too many. The params
    are {"coefficients": (degree + 1,)}, the constant first.

    Args:
      degree: Zero or more, and less than the number of distinct points.
      x: (n,) points, usually those of the data.

    Raises:
      TypeError: If `degree` is not a whole number, or `x` holds no numbers.
      ValueError: If `degree` is negative or too high for the points, or these are not (n,) finite numbers.

    Source: Forsythe (1957), doi:10.1137/0105007.

    Example:
      >>> x = np.array([-1.0, 0.0, 1.0])
      >>> line = jf.models.orthogonal_polynomial(1, x)
      >>> [round(float(y), 3) for y in line({"coefficients": np.array([0.0, 1.0])}, x)]
      [-1.225, 0.0, 1.225]
    """
    degree = whole_number("degree", degree, at_least=0)
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
