"""The base classes of curves: params by name, a guess from the data, and sums of curves."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.datasets import as_floats, as_numbers
from jaxfit.models.guessing import Shape, Span, separate
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import ArrayLike, Number, Params


def whole_number(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r}; it must be a whole number, {at_least} or more")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")
    return int(value)


def array(x: ArrayLike) -> Any:
    """Return lists as arrays and whole numbers as floats; NumPy arrays stay, so that they keep their precision."""
    return x if isinstance(x, numbers.Number) and not isinstance(x, (np.integer, np.bool_)) else as_floats("x", x)


class Curve:
    """The base class of curves, which add with `+` and guess their params from data.

    Guessing takes a curve for a sum of columns, coefficients @ columns(shape, span), where the shape are the params in
    which it is not linear.
    """

    __array_ufunc__ = None  # an array of NumPy leaves `+` to the curve, which refuses it
    dimensions: ClassVar[int] = 1  # of a point: x is (n,), or (n, dimensions)
    ordered_by: ClassVar[str] = ""  # the param that orders several of the kind
    flips: ClassVar[str] = ""  # the param that changes its sign with the height's: the curve is then value - height

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its params."""
        raise NotImplementedError

    @property
    def terms(self) -> tuple[Any, ...]:
        """The terms that it is the sum of."""
        return (self,)

    def shapes(self, span: Span) -> dict[str, Array]:
        """Return candidates for the shape, (candidates,) of each param; {} if there are none."""
        return {}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return (columns, m) at the points of the span."""
        raise NotImplementedError

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        """Return the params, from the shape and a coefficient (columns,) for each column."""
        raise NotImplementedError

    def collect(self, found: Sequence[Params]) -> Params:
        """Return its params from those of its terms."""
        return found[0]

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        raise NotImplementedError

    def derived(self, params: Params) -> dict[str, Array]:
        """Return numbers that follow from its params, by name, such as an area or a half-life; none by default.

        A report of a fit lists them with their errors.
        """
        return {}

    def refuse(self, x: np.ndarray) -> None:
        """Raise a ValueError if no data may lie at some of these points."""

    def guess(self, x: ArrayLike, y: ArrayLike, where: ArrayLike | None = None) -> Params:
        """Return params near those of least squares: the best of a grid of shapes, each with its best heights.

        Where several params describe the same curve, the choice does not depend on the noise: beside a constant, a line
        or a polynomial a logistic or Hill curve has a positive height; several terms of one kind, also under names, are
        in the order of their centers, midpoints or rates; an oscillation has a positive amplitude and frequency; widths
        are positive.

        Pure JAX, for `jit`, `vmap` and `jf.Call(model.guess, x, jf.Axis("spectrum", ys))`; the points may stand in any
        order, and y may have any sign and noise. With numbers that are not traced it computes in float64.

        Args:
          x: (n,), in any unit; (n, 2) for a model of two dimensions.
          y: (n,).
          where: (n,) booleans: the points that count, as for losses with masked=True.

        Returns:
          The params in the units of x and y.

        Raises:
          ValueError: If the shapes do not fit, or a number is not finite.
          TypeError: If there are no real numbers.
        """
        given = [as_floats("x", x), as_floats("y", y), *([] if where is None else [as_numbers("where", where)])]
        self._check(*given)
        if any(isinstance(v, jax.core.Tracer) for v in given):
            return _compiled(self, *given)
        bad = [name for name, v in zip(("x", "y"), given, strict=False)
               if not np.isfinite(np.asarray(v)[np.asarray(where) if where is not None else ...]).all()]  # fmt: skip
        if bad:
            raise ValueError(
                f"{bad[0]} holds NaN or infinity; drop those points, or mask them: by where= for guess, for curve_fit "
                f"by y = np.ma.array(y, mask=~np.isfinite(x + y))"
            )
        given = [np.asarray(v) for v in given]
        for term in dict.fromkeys(self.terms):
            term.refuse(given[0] if where is None else given[0][given[2]])
        with jax.enable_x64(True):
            program = _program(self, tuple((v.shape, v.dtype) for v in given))  # runs at once, also inside of a trace
            return jax.tree.map(lambda v: np.asarray(v)[()], program(*given))

    def _check(self, x: Array, y: Array, where: Array | None = None) -> None:
        wanted = ("n",) if self.dimensions == 1 else ("n", str(self.dimensions))
        rule = f"x ({', '.join(wanted)}{',' * (len(wanted) == 1)}) and y (n,)"
        right = x.ndim == len(wanted) and x.shape[1:] == tuple(map(int, wanted[1:])) and y.shape == x.shape[:1]
        if not right or not len(y):
            raise ValueError(f"{self}: guess got x of shape {x.shape} and y of shape {y.shape}; it takes {rule}")
        if where is not None and (where.shape != y.shape or where.dtype != bool):
            raise ValueError(
                f"{self}: where has shape {where.shape} and type {where.dtype}; it is one boolean for each of the "
                f"{len(y)} points"
            )

    def __add__(self, other: Curve) -> Sum:
        return Sum(tuple((None, part) for part in (*_parts(self), *_parts(other))))

    def __radd__(self, other: Curve) -> Sum:
        return Sum(tuple((None, part) for part in (*_parts(other), *_parts(self))))


def _guess(curve: Curve, x: Array, y: Array, where: Array | None = None) -> Params:
    x, y = (jnp.asarray(v, jnp.result_type(float)) for v in (x, y))
    return curve.collect(on_one_branch(curve.terms, separate(curve.terms, x, y, where)))


def on_one_branch(terms: Sequence[Any], params: Sequence[Params]) -> list[Params]:
    """Return the params of terms, the same ones whatever the noise where several params describe the same curve.

    Beside a level (a constant, a line or a polynomial) a logistic or Hill curve has a mirror image: height * s(x) +
    level and -height * (1 - s(x)) + level + height are one. The height is then positive, and the sign of the rate or
    steepness tells whether the curve rises. Equal terms stand in the order of their centers, places or rates.
    """
    params = list(params)
    level = next((i for i, term in enumerate(terms) if hasattr(term, "raised")), None)
    for i, term in enumerate(terms):
        if level is not None and term.flips:
            turn, other = params[i][term.names[0]] < 0, term.mirrored(params[i])
            rise = jnp.where(turn, params[i][term.names[0]], 0)
            params[i] = {name: jnp.where(turn, other[name], params[i][name]) for name in term.names}
            params[level] = terms[level].raised(params[level], rise)
    for kind in dict.fromkeys(terms):
        places = [i for i, term in enumerate(terms) if term == kind]
        by = (kind.ordered_by or "".join(kind.names[1:2])) if isinstance(kind, Term) else ""
        if len(places) > 1 and by:
            order = jnp.argsort(jnp.stack([jnp.ravel(params[i][by])[0] for i in places]))
            sorted_ = jax.tree.map(lambda *values, order=order: jnp.stack(values)[order], *[params[i] for i in places])
            for k, i in enumerate(places):
                params[i] = jax.tree.map(lambda value, k=k: value[k], sorted_)
    return params


_compiled = functools.partial(jax.jit, static_argnums=0)(_guess)


@functools.lru_cache(maxsize=128)
def _program(curve: Curve, shapes: tuple) -> jax.stages.Compiled:
    return _compiled.lower(curve, *(jax.ShapeDtypeStruct(*x) for x in shapes)).compile()


class Term(Curve):
    """A curve that is proportional to the first of its params, its height; the others are its shape.

    Several of a kind are ordered by the first param of the shape, unless `ordered_by` names another.
    """

    @property
    def names(self) -> tuple[str, ...]:
        code = type(self).value.__code__  # value(self, x, height, center, ...)
        return code.co_varnames[2 : code.co_argcount]

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        return self.value(array(x), *taken(self, params))

    def value(self, x: Array, /, *params: Number) -> Array:
        """Return the curve at x, which may have any shape, for numbers in the order of `names`."""
        raise NotImplementedError

    def mirrored(self, params: Params) -> Params:
        """Return the params of the same curve less its height."""
        return {name: -x if name in (self.names[0], self.flips) else x for name, x in params.items()}

    def columns(self, shape: Shape, span: Span) -> Array:
        """Return the curve of height 1, as (1, m)."""
        return self.value(span.x, 1.0, *(shape[name] for name in self.names[1:]))[None]

    def assemble(self, shape: Shape, coefficients: Array, span: Span) -> Params:
        return {self.names[0]: coefficients[0], **shape}

    def __repr__(self) -> str:
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def taken(curve: Curve, params: Params) -> list[Array]:
    """Return the params in the order of the curve's names.

    Raises:
      ValueError: If names are missing, or there are others.
    """
    if not isinstance(params, dict) or set(params) != set(curve.names):
        got = f"the params {', '.join(map(repr, params))}" if isinstance(params, dict) else repr(type(params).__name__)
        raise ValueError(f"{curve} got {got}, but its params are a dict with {', '.join(map(repr, curve.names))}")
    return [params[name] for name in curve.names]


@dataclass(frozen=True, repr=False)
class Several(Curve):
    """A sum of `count` curves of one kind, with an array (count,) for each param."""

    term: Term
    count: int
    plural: str

    @property
    def names(self) -> tuple[str, ...]:
        return self.term.names

    @property
    def terms(self) -> tuple[Any, ...]:
        return (self.term,) * self.count

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        shapes = {name: jnp.shape(value) for name, value in zip(self.names, taken(self, params), strict=True)}
        odd = next((name for name, shape in shapes.items() if shape != (self.count,)), None)
        if odd is not None:
            raise ValueError(f"{self}: params[{odd!r}] has shape {shapes[odd]}; it takes ({self.count},), one for each")
        return jnp.sum(jax.vmap(self.term, in_axes=(0, None))(params, array(x)), axis=0)

    def derived(self, params: Params) -> dict[str, Array]:
        return jax.vmap(self.term.derived)({name: params[name] for name in self.names})

    def collect(self, found: Sequence[Params]) -> Params:
        return {name: jnp.stack([one[name] for one in found]) for name in self.names}

    def __repr__(self) -> str:
        return f"{self.plural}({self.count})"


def several(term: Term, count: int, plural: str) -> Several:
    return Several(term, whole_number("count", count, at_least=1), plural)


@dataclass(frozen=True, repr=False)
class Sum(Curve):
    """A sum of several curves; made with `+` or `sum`."""

    parts: tuple[tuple[str | None, Curve], ...]  # under its name, or with its params beside those of the others

    def __post_init__(self):
        twice = next((name for i, name in enumerate(self.names) if name in self.names[:i]), None)
        if twice is not None:
            several = " and ".join(str(part) for given, part in self.parts if twice in part.names)
            raise ValueError(
                f"{several} both have a param {twice!r}; give each part a name, models.sum(first=..., second=...), "
                f"or take several of one kind, such as models.gaussians(2)"
            )

    @property
    def dimensions(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return max(part.dimensions for _, part in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for given, part in self.parts for name in ((given,) if given else part.names))

    @property
    def terms(self) -> tuple[Any, ...]:
        return tuple(term for _, part in self.parts for term in part.terms)

    def __call__(self, params: Params, x: ArrayLike) -> Array:
        by_name = dict(zip(self.names, taken(self, params), strict=True))
        values = [
            part(by_name[given] if given else {n: by_name[n] for n in part.names}, x) for given, part in self.parts
        ]
        return functools.reduce(lambda a, b: a + b, values)

    def derived(self, params: Params) -> dict[str, Any]:
        numbers_by_name: dict[str, Any] = {}
        for given, part in self.parts:
            numbers = part.derived(params[given] if given else {name: params[name] for name in part.names})
            numbers_by_name |= ({given: numbers} if given else numbers) if numbers else {}
        return numbers_by_name

    def collect(self, found: Sequence[Params]) -> Params:
        params, at = {}, 0
        for given, part in self.parts:
            of_part = part.collect(found[at : at + len(part.terms)])
            params |= {given: of_part} if given else of_part
            at += len(part.terms)
        return params

    def __repr__(self) -> str:
        if all(given is None for given, _ in self.parts):
            return " + ".join(str(part) for _, part in self.parts)
        return f"sum({', '.join(f'{given}={part}' if given else str(part) for given, part in self.parts)})"


def _parts(curve: Curve) -> tuple[Curve, ...]:
    if isinstance(curve, Sum) and all(given is None for given, _ in curve.parts):
        return tuple(part for _, part in curve.parts)
    if isinstance(curve, Curve):
        return (curve,)
    raise TypeError(
        f"{shown(curve)} cannot be added to a model; add one of models itself, such as models.constant, not its "
        f"values, or write one function of (params, x)"
    )


@near_keywords
def sum(*parts: Curve, **named: Curve) -> Sum:
    """Return the sum of curves, optionally with a name for each: `sum(peak=gaussian, background=line)`.

    With names, the params are a dict with the params of each part under its name. Without names the params of the
    parts, which must have different names, are side by side: `sum(gaussian, line)`, or `gaussian + line`, has
    {"height", "center", "sigma", "w", "b"}.

    Raises:
      TypeError: If a part is not one of the curves of `models`.
      ValueError: If there is none, or two have a param of the same name.

    Example:
      >>> model = jf.models.sum(peak=jf.models.gaussian, background=jf.models.constant)
      >>> params = {"peak": {"height": 2.0, "center": 1.0, "sigma": 0.5}, "background": {"offset": 3.0}}
      >>> model(params, np.array([1.0])).tolist()
      [5.0]
    """
    if not parts and not named:
        raise ValueError("sum got no parts; give some, such as sum(peak=models.gaussian, background=models.line)")
    for name, part in (*enumerate(parts), *named.items()):
        if not isinstance(part, Curve):
            raise TypeError(
                f"sum: part {name!r} is {shown(part)}, but it must be one of models itself, such as models.gaussian"
            )
    return Sum((*((None, part) for part in parts), *named.items()))
