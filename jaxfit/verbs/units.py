"""Curve fits of quantities with units, of pint or astropy: numbers in base units inside, quantities outside.

A prediction has the unit of y if it scales as y does whenever the base units of params and x are scaled. That is tried,
with numbers alone: operation by operation, so that the first one whose result has no unit is named, such as the
exponential of a time. Source: Buckingham (1914), doi:10.1103/PhysRev.4.345.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxfit.engine.jaxprs import inline
from jaxfit.problems import precision_context
from jaxfit.problems.marks import Fixed, is_mark, values_of
from jaxfit.typing import ArrayLike, Params, PyTree, Scalar
from jaxfit.verbs.results import Fit, numbers_in

PACKAGES = {"pint", "astropy"}
TIMES = 1.25  # by which a base unit is scaled
BLUR = 1e-6  # of a power of it, by rounding


def is_quantity(x: object) -> bool:
    """Return whether it is a quantity of pint or astropy."""
    kind = type(x)  # a property of a value may raise
    return hasattr(kind, "to_base_units") and hasattr(kind, "units") or hasattr(kind, "si") and hasattr(kind, "unit")


def holds_quantity(*trees: PyTree) -> bool:
    """Return whether there is a quantity in one of the trees."""
    if not any(name in sys.modules for name in PACKAGES):
        return False
    return any(_quantity(x) is not None for x in jax.tree.leaves(trees, is_leaf=_is_whole))


def _is_whole(x: object) -> bool:
    return is_quantity(x) or is_mark(x)


def _quantity(x: Any) -> Any:
    """Return the quantity, or that which is fixed; None if there is none."""
    if isinstance(x, Fixed) and is_quantity(x.value):
        return x.value
    return x if is_quantity(x) else None


@dataclass(frozen=True, eq=False)
class Unit:
    """The unit of a number: what the user wrote, and the base units that are computed with; a leaf of trees."""

    make: Callable | None = None  # of a number and a unit a quantity; None without a unit
    own: Any = None
    base: Any = None
    dimensions: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def factor(self) -> float:
        """How many of the user's units a base unit is."""
        return 1.0 if self.make is None else float(_number(self.make(1.0, self.base).to(self.own)))

    def of(self, number: ArrayLike) -> Any:
        """Return a number in base units as a quantity in the user's unit."""
        return number if self.make is None else self.make(np.asarray(number)[()], self.base).to(self.own)

    def __str__(self) -> str:
        if self.make is None:
            return ""
        return f"{self.own:~P}" if hasattr(self.own, "dimensionality") else self.own.to_string()


def _number(quantity: Any) -> Any:
    return quantity.magnitude if hasattr(quantity, "magnitude") else quantity.value


def _in_base(quantity: Any) -> Any:
    return quantity.to_base_units() if hasattr(quantity, "to_base_units") else quantity.si


def unit_of(name: str, value: Any) -> Unit:
    """Return the unit of a quantity, or of a plain number.

    Raises:
      ValueError: If its numbers are not multiples of it, as degrees Celsius are not; or if it is a list of quantities.
    """
    quantity = _quantity(value)
    if quantity is None:
        if holds_quantity(value):
            raise ValueError(
                f"{name} is a {type(value).__name__} of quantities, but must be one: np.array([1.0, 2.0]) * unit"
            )
        return Unit()
    own, make = getattr(quantity, "units", None), type(quantity)
    own = quantity.unit if own is None else own
    try:
        none, one, two = (float(_number(_in_base(make(x, own)))) for x in (0.0, 1.0, 2.0))
    except Exception:
        none = one = two = 1.0
    if none != 0 or not np.isclose(two, 2 * one, rtol=1e-12):
        raise ValueError(
            f"{name} is in {own}, whose numbers are no multiples of it; convert it to a unit that starts at zero, such "
            f"as kelvin"
        )
    base = _in_base(make(1.0, own))
    if hasattr(base, "dimensionality"):
        return Unit(make, own, base.units, {str(d): float(p) for d, p in base.dimensionality.items()})
    pairs = zip(base.unit.bases, base.unit.powers, strict=True)
    return Unit(make, own, base.unit, {str(b): float(p) for b, p in pairs if str(b) != "rad"})


def stripped(name: str, value: Any, unit: Unit) -> Any:
    """Return a quantity as its number in the base units of `unit`, without which it must be a plain number.

    Raises:
      ValueError: If it is in another unit, or has none where there is one.
    """
    if value is None:
        return None
    own = unit_of(name, value)
    if dict(own.dimensions) != dict(unit.dimensions) or (own.make is None) != (unit.make is None):
        raise ValueError(
            f"{name} is {_told(own)}, but must be {_told(unit)}" + ", or a unit of the same kind" * bool(str(unit))
        )
    if own.make is None:
        return value
    number = np.asarray(_number(_in_base(_quantity(value))), float)
    return Fixed(number) if isinstance(value, Fixed) else number


def _told(unit: Unit) -> str:
    return f"in {unit}" if str(unit) else "a number without a unit"


def fit_quantities(
    curve_fit: Callable, predict: Callable, start: PyTree, data: tuple, how: dict[str, Any]
) -> FitWithUnits:
    """Return the curve fit of quantities.

    Args:
      curve_fit: The verb, for plain numbers.
      how: Its other arguments, of which sigma, delta and x_sigma may be quantities.

    Raises:
      ValueError, TypeError: If a unit does not fit; which one, and where.
    """
    if start is None:
        raise TypeError("start is None, but there are quantities: give a start, whose units are those of the params")
    x, y = (unit_of(f"data[{i}] ({'xy'[i]})", data[i]) for i in (0, 1))
    plain = {"sigma": y, "delta": y, "x_sigma": x}
    how = how | {name: stripped(name, how[name], unit) for name, unit in plain.items()}
    paths, structure = jax.tree_util.tree_flatten_with_path(start, is_leaf=_is_whole)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in paths]
    units = [unit_of(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
    leaves = [stripped(name, leaf, unit) for name, (_, leaf), unit in zip(names, paths, units, strict=True)]
    start = jax.tree.unflatten(structure, leaves)
    data = stripped("x", data[0], x), stripped("y", data[1], y)
    tree = jax.tree.unflatten(structure, units)
    with precision_context("float64"):
        check_units(predict, values_of(start), tree, data[0], x, y)
    return FitWithUnits(curve_fit(predict, start, data, **how), tree, x, y)


def check_units(predict: Callable, params: Params, units: PyTree, x: PyTree, of_x: Unit, of_y: Unit) -> None:
    """Check that predictions are in the unit of y; to be called in double precision.

    Raises:
      ValueError: If they are not; it names the operation whose result has no unit, with the units of its operands.
    """
    each = jax.tree.leaves(jax.tree.map(lambda unit, tree: jax.tree.map(lambda _: unit, tree), units, params))
    of_inputs = [*each, *(of_x for _ in jax.tree.leaves(x))]
    every = sorted({d for unit in (*of_inputs, of_y) for d in unit.dimensions})
    with np.errstate(all="ignore"):
        few = jax.tree.map(_first_middle_last, x)
        inputs = [np.asarray(a, float) for a in jax.tree.leaves((params, few))]
        listing = inline(jax.make_jaxpr(predict)(params, few), lambda operation, inner, scope: True)

        def values(dimension, times):
            known = dict(listing.constants)
            for number, value, unit in zip(listing.inputs, inputs, of_inputs, strict=True):
                known[number] = value * times ** unit.dimensions.get(dimension, 0.0)
            for row in listing.rows:
                found = row.operation(*(known[number] for number in row.inputs))
                known.update(zip(row.outputs, found, strict=True))
            return {number: np.asarray(value) for number, value in known.items()}

        plain = values(None, 1.0)
        powers = {d: _powers(plain, values(d, TIMES), values(d, TIMES**2)) for d in every}

    labels = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in
              jax.tree_util.tree_leaves_with_path(params)]  # fmt: skip
    sources = dict.fromkeys(listing.constants, frozenset())
    sources |= {n: frozenset([name]) for n, name in zip(listing.inputs, [*labels, *["x"] * len(inputs)], strict=False)}
    for row in listing.rows:
        sources.update(dict.fromkeys(row.outputs, frozenset().union(*(sources[n] for n in row.inputs))))

    def broken(number):
        return any(powers[d][number][1] for d in every)

    def told(number):
        found = {d: powers[d][number][0] for d in every}
        return " ".join(f"{d}" if p == 1 else f"{d}**{p:g}" for d, p in found.items() if p) or "no unit"

    for row in listing.rows:
        if any(map(broken, row.outputs)) and not any(map(broken, row.inputs)):
            operands = " and ".join(told(n) for n in row.inputs if np.issubdtype(plain[n].dtype, np.floating))
            names = ", ".join(sorted(sources[row.outputs[0]]))
            raise ValueError(
                f"the model computes {row.operation.name} of {operands}, from {names}: "
                f"the argument of such a function, as any exponent, must have no unit, and what is added one unit. "
                f"Check the units of start and x, and give constants of the model as params, jf.Fixed(quantity)"
            )
    wanted = " ".join(f"{d}" if p == 1 else f"{d}**{p:g}" for d, p in sorted(of_y.dimensions.items())) or "no unit"
    if (found := told(listing.results[0])) != wanted and np.any(plain[listing.results[0]]):
        raise ValueError(f"the model predicts {found}, but y is in {wanted}: check the units of start, x and y")


def _first_middle_last(a: ArrayLike) -> np.ndarray:
    a = np.asarray(a)
    return a if a.ndim == 0 or a.size == 0 else a[np.unique([0, len(a) // 2, len(a) - 1])]


def _powers(plain: dict, once: dict, twice: dict) -> dict[int, tuple[float, bool]]:
    """Return by which power of the scale each value grows, and whether it is no power of it."""
    found = {}
    for number, value in plain.items():
        if not np.issubdtype(value.dtype, np.floating):
            found[number] = 0.0, False
            continue
        first = np.log(abs(once[number] / value)) / np.log(TIMES)
        second = np.log(abs(twice[number] / value)) / np.log(TIMES) / 2
        known = np.isfinite(first) & np.isfinite(second)
        bent = known & (abs(first - second) > BLUR * (1 + abs(first)))
        some = first[known & ~bent]
        found[number] = round(float(some.flat[0]), 5) + 0.0 if some.size else 0.0, bool(bent.any())
    return found


class FitWithUnits:
    """A curve fit of quantities: params and predictions with units, and the fit of plain numbers in base units.

    Attributes:
      fit: The `Fit` in base units, which every verb takes; its other fields are attributes here too.
      params: Like the start, in its units.
    """

    with_units = True

    def __init__(self, fit: Fit, units: PyTree, x: Unit, y: Unit) -> None:
        self.fit, self.units, self.x, self.y = fit, units, x, y

    @property
    def params(self) -> PyTree:
        return self.like_params(self.fit.params)

    def like_params(self, numbers: PyTree) -> PyTree:
        """Return numbers in base units, in a tree like the params, in the units of the start."""
        return jax.tree.map(lambda unit, tree: jax.tree.map(unit.of, tree), self.units, numbers)

    def predict(self, x: Any) -> Any:
        """Return the prediction at a quantity x, in the unit of y."""
        return self.y.of(self.fit.predict(stripped("x", x, self.x)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "fit":
            raise AttributeError(name)
        return getattr(self.fit, name)

    def by_label(self) -> dict[str, Unit]:
        """Return the unit of each number of the params."""
        from jaxfit.verbs.evaluations import labels_of  # which a fit of plain numbers does not load

        params = numbers_in(self.fit)
        each = jax.tree.map(lambda unit, tree: jax.tree.map(lambda x: [unit] * np.size(x), tree), self.units, params)
        return dict(zip(labels_of(params), jax.tree.leaves(each), strict=True))

    def __repr__(self) -> str:
        units, first = self.by_label(), repr(self.fit).splitlines()[0]
        numbers = np.concatenate([np.ravel(x) for x in jax.tree.leaves(numbers_in(self.fit))])
        lines = [f"  {n} = {u.factor * x:.6g} {u}" for (n, u), x in zip(units.items(), numbers, strict=True)]
        return "\n".join([first, *(line.rstrip() for line in lines)])


def takes_units(dress: Callable[[FitWithUnits, Any], Any]) -> Callable[[Callable], Callable]:
    """Return a decorator for a verb of a fit, which gives what it returns for a fit of quantities its units."""

    def decorate(verb):
        @functools.wraps(verb)
        def called(*args, **kwargs):
            name = "fit" if "fit" in kwargs else "result"
            result = args[0] if args else kwargs.get(name)
            if not isinstance(result, FitWithUnits):
                return verb(*args, **kwargs)
            given = (result.fit, *args[1:]) if args else ()
            return dress(result, verb(*given, **kwargs) if args else verb(**(kwargs | {name: result.fit})))

        called.takes_units = True  # which `near_keywords` reads
        return called

    return decorate


def with_units_of_params(result: FitWithUnits, numbers: PyTree) -> PyTree:
    """Return numbers like the params in their units."""
    return result.like_params(numbers)


def rows_with_units(result: FitWithUnits, report: Any) -> Any:
    """Return a report whose rows are in the units of the start."""
    units = result.by_label()

    def scaled(row):
        unit = units[row.name]
        numbers: dict[str, Scalar] = {
            n: getattr(row, n) * unit.factor for n in ("value", "error", "low", "high", "start")
        }
        return row._replace(**numbers, unit=row.unit or str(unit))

    rows = tuple(map(scaled, report.rows))
    derived = tuple(row._replace(unit=row.unit or "base units") for row in report.derived)
    notes = report.notes
    if notes and any(unit.factor != 1 for unit in units.values()):
        notes = (*notes, "numbers in notes are in base units")
    return dataclasses.replace(report, rows=rows, derived=derived, notes=notes)
