"""Coordinates of a grid: labels of its dimensions, and finding the index of a value."""

from __future__ import annotations

import reprlib

import jax
import numpy as np

from jaxfit.problems.axes import Axis, is_array, refuse_unit
from jaxfit.problems.messages import did_you_mean
from jaxfit.problems.problems import Record
from jaxfit.problems.reading import Dimension
from jaxfit.typing import ArrayLike, Scalar

ROUNDING = 1e-6  # relative: a number given in double precision is that of an axis in single


def all_coordinates(
    dimensions: dict[str, Dimension], records: int, record: Record
) -> dict[str, tuple[str, np.ndarray]]:
    coords = coordinates(dimensions)
    if record.what:
        coords["step"] = ("step", np.arange(records) * record.every)
    return coords


def coordinates(dimensions: dict[str, Dimension]) -> dict[str, tuple[str, np.ndarray]]:
    """Labels if given, else values if they are plain and shared by all leaves, else 0..n-1 with each leaf's beside."""
    coords: dict[str, tuple[str, np.ndarray]] = {}
    for name, dimension in dimensions.items():
        labels = next((m.axis.labels for m in dimension.mentions if m.axis.labels is not None), None)
        plain = [(m.path, v) for m in dimension.mentions if (v := _plain_values(m.axis)) is not None]
        shared = (
            bool(plain)
            and len(plain) == len(dimension.mentions)
            and all(np.array_equal(plain[0][1], v) for _, v in plain)
        )
        if labels is not None:
            coords[name] = (name, _one_each(list(labels)))
        elif shared:
            coords[name] = (name, plain[0][1])
        else:
            coords[name] = (name, np.arange(dimension.size))
            coords |= {path.replace("params", "start", 1): (name, values) for path, values in plain}
    return coords


def _one_each(labels: list) -> np.ndarray:
    """Labels along one dimension; those of several kinds, or tuples, stay what they are."""
    kinds = {"text" if isinstance(x, str) else "flag" if isinstance(x, (bool, np.bool_)) else "number" for x in labels}
    if len(kinds) == 1 and all(np.ndim(x) == 0 and x is not None for x in labels):
        return np.asarray(labels)
    array = np.empty(len(labels), object)
    for i, label in enumerate(labels):  # one by one, or tuples would be rows
        array[i] = label
    return array


def _plain_values(axis: Axis) -> np.ndarray | None:
    values = axis.values
    if is_array(values):
        extended = isinstance(values, jax.Array) and jax.numpy.issubdtype(values.dtype, jax.dtypes.extended)
        return np.asarray(values) if values.ndim == 1 and not extended else None
    return np.asarray(values) if all(isinstance(v, str) for v in values) else None


def position(verb: str, name: str, axis: ArrayLike, wanted: Scalar, method: str = "cell") -> int:
    """Return the index of a value along an axis: the equal value, up to rounding, or for numbers the nearest one.

    Half a cell of a value is half the distance to its nearest neighbor. On an axis that grows by factors, as rates do,
    the value nearest to zero counts as having one more neighbor, by the same factor nearer to zero.

    Args:
      verb, name: For the messages.
      axis: (n,) values or labels, in any order.
      wanted: A number, or a label.
      method: How far the nearest number may be: "cell", half a cell; "nearest", anywhere within the axis; "exact".

    Raises:
      ValueError: If it is not there, with its neighbors.
      TypeError: If `wanted` is more than one value.
    """
    refuse_unit(f"{verb}: {name}", wanted)
    values = np.asarray(axis)
    there = [i for i, value in enumerate(values.tolist()) if _equal(value, wanted)]
    if there:
        return there[0]
    if np.ndim(wanted):
        raise TypeError(
            f"{verb}: {name} is {reprlib.repr(wanted)}, but a lane is at one value of every axis; for more of them "
            f"take grid.results.sel({name}=...)"
        )
    number = isinstance(wanted, (int, float, np.number, np.ndarray)) and not isinstance(wanted, bool)
    if values.dtype.kind not in "fiu" or not number:
        near = did_you_mean(wanted, [str(v) for v in values]) if isinstance(wanted, str) else "."
        more = f", and {len(values) - 8} more" * (len(values) > 8)
        raise ValueError(
            f"{verb}: {name}={wanted!r} is not on the axis{near} Its values are "
            f"{', '.join(map(repr, values[:8].tolist()))}{more}"
        )
    given, wanted = wanted, float(wanted)
    known = np.unique(values[np.isfinite(values)].astype(float))
    i = int(np.argmin(np.abs(known - wanted))) if len(known) and np.isfinite(wanted) else 0
    half = _half_cell(known, i)
    apart, rounding = abs(known[i] - wanted) if len(known) else np.inf, ROUNDING * max(half, abs(known[i]))
    if not (apart <= rounding or known[0] <= wanted <= known[-1]):
        raise ValueError(f"{verb}: {name}={given} lies outside of the axis, {_extent(values)}")
    if apart > rounding + {"exact": 0.0, "cell": half, "nearest": np.inf}[method]:
        low, high = values[values < wanted].max(), values[values > wanted].min()
        reach, remedy = (", nor within half a cell of one", ", or method='nearest'") if method == "cell" else ("", "")
        raise ValueError(
            f"{verb}: {name}={given} is none of the axis' values{reach}; its neighbors there are {low} and {high}: "
            f"pass one of them{remedy}"
        )
    return int(np.flatnonzero(values == known[i].astype(values.dtype))[0])


def _equal(value: object, wanted: object) -> bool:
    """Return whether a label is the requested one; a boolean is not equal to a number."""
    if isinstance(value, bool) is not isinstance(wanted, (bool, np.bool_)):
        return False
    try:
        return bool(value == wanted)
    except (TypeError, ValueError):
        return False


def _extent(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"which has one value, {values[0]}"
    return f"which runs from {values.min()} to {values.max()}"


def _half_cell(known: np.ndarray, i: int) -> float:
    """Return half the distance from a value to its nearest neighbor; `known` are sorted and distinct."""
    if len(known) == 1:
        return 0.0
    gaps = np.abs(np.delete(known, i) - known[i])
    by_zero = i == (0 if known[0] > 0 else len(known) - 1)
    if by_zero and by_factors(known):
        return min(gaps.min(), gaps.min() * abs(known[i]) / (abs(known[i]) + gaps.min())) / 2
    return gaps.min() / 2


def by_factors(known: np.ndarray) -> bool:
    """Return whether sorted values grow by factors, not differences; two do if one is three times the other."""
    if known[0] <= 0 <= known[-1]:
        return False
    steps, factors = np.diff(known), np.abs(np.diff(np.log(np.abs(known))))
    if len(known) == 2:
        return bool(factors[0] >= np.log(3) * (1 - ROUNDING))
    return bool(factors.max() / factors.min() < steps.max() / steps.min())
