"""The axes in a call as the dimensions of a grid: found, chosen from, filled with a lane's own values, and labelled."""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.problems import Record
from jaxfit.problems.axes import (
    Axis,
    Call,
    Placeholder,
    as_python,
    is_array,
    is_axis,
    is_integer,
    is_number,
    is_static,
    refuse_unit,
    stack,
)
from jaxfit.problems.messages import did_you_mean
from jaxfit.typing import ArrayLike, PyTree, Scalar


class Mention(NamedTuple):
    """One axis at one place of a problem."""

    axis: Axis
    path: str  # where it stands, for messages and coordinates
    number: bool  # whether an integer here is a number (params, data) and not a part of the program


def mentions(tree: PyTree, *, path: str = "", number: bool = True) -> Iterator[Mention]:
    """Yield every axis in the tree, in the order written; an axis before those inside its values."""
    if isinstance(tree, Axis):
        yield Mention(tree, path, number)
        if not is_array(tree.values):
            for i, value in enumerate(tree.values):
                yield from mentions(value, path=f"{path}[{i}]", number=number)
    else:
        inside = number and not isinstance(tree, Call)
        for name, child in _children(tree):
            yield from mentions(child, path=".".join(part for part in (path, name) if part), number=inside)


def _children(tree: PyTree) -> list[tuple[str, PyTree]]:
    """Return the children of one node, by name; a mapping's in the order written, which JAX would sort."""
    if isinstance(tree, Mapping):
        return [(str(name), child) for name, child in tree.items()]
    if isinstance(tree, Call):
        return [(str(name), child) for name, child in tree.given.items() if not is_static(child)]
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    return [(jax.tree_util.keystr(path, simple=True), child) for path, child in pairs if path]


class Dimension(NamedTuple):
    """All that stands under one axis name."""

    name: str
    size: int
    mentions: tuple[Mention, ...]

    @property
    def static(self) -> bool:
        """Whether its values are parts of the program, so that each becomes a program of its own."""
        return any(stacked(m) is None for m in self.mentions)


MOST_PROGRAMS = 64
RESERVED = ("loss", "status", "steps", "validation_loss", "best_validation_loss", "best_step", "step")


def read(tree: Mapping[str, PyTree], *, static_places: Sequence[str] = ()) -> dict[str, Dimension]:
    """Return the dimensions of a problem by name, in the order of first mention.

    Args:
      tree: What stands at each place ("params", "optimizer", ...).
      static_places: Places where an integer is a part of the program, as it is inside any `Call`.

    Raises:
      ValueError: If one name has different lengths, or a name collides with a variable of the results.
    """
    by_name: dict[str, list[Mention]] = {}
    for place, value in tree.items():
        if any(map(is_axis, jax.tree.leaves(value, is_leaf=is_axis))):  # most places have none
            for mention in mentions(value, path=place, number=place not in static_places):
                by_name.setdefault(mention.axis.name, []).append(mention)
    for name, group in by_name.items():
        if name in RESERVED or name.startswith(("params.", "history.")) or name == "params":
            raise ValueError(
                f"axis name {name!r} (at {group[0].path}) is also a variable of the results "
                f"({', '.join(RESERVED)}, params.*, history.*); call the axis something else"
            )
        sizes = {len(m.axis) for m in group}
        if len(sizes) > 1:
            where = ", ".join(f"{m.path} has {len(m.axis)} values" for m in group)
            raise ValueError(
                f"axis {name!r} is used with different lengths: {where}. The same name moves its leaves together: "
                f"give them equally many values, or different names to multiply them"
            )
    return {name: Dimension(name, len(group[0].axis), tuple(group)) for name, group in by_name.items()}


def stacked(mention: Mention) -> PyTree | None:
    """Return the values of a traced axis, stacked along the dimension; None if they are parts of the program."""
    values = mention.axis.values
    if is_array(values):
        kind = getattr(values.dtype, "kind", "V")
        return None if kind in "biu" and not mention.number else values
    flat = [jax.tree.flatten(v, is_leaf=is_axis) for v in values]
    if len({treedef for _, treedef in flat}) > 1 or any(
        not is_array(x) and not is_number(x) for row, _ in flat for x in row
    ):
        return None
    columns = list(zip(*[row for row, _ in flat], strict=True))
    if not columns or any(len({np.shape(x) for x in column}) > 1 for column in columns):
        return None
    if not mention.number and any(is_integer(x) for column in columns for x in column):
        return None
    return jax.tree.unflatten(flat[0][1], [stack(column) for column in columns])


def choices_of(dimensions: Mapping[str, Dimension]) -> list[dict[str, int]]:
    """Return the indices along the static axes, {name: index}, of each program that is to be compiled.

    Raises:
      ValueError: If there are more than 64 programs.
    """
    static = [d for d in dimensions.values() if d.static]
    count = math.prod(d.size for d in static)
    if count > MOST_PROGRAMS:
        sizes = " x ".join(f"{d.name} ({d.size} values)" for d in static)
        raise ValueError(
            f"the axes {sizes} stand at places that are parts of the program, so that {count} programs would be "
            f"compiled; at most {MOST_PROGRAMS} are. Use numbers at traced places (floats instead of integers); for "
            f"data sets of unequal length, pad them (jf.datasets.pad) and use a loss with masked=True"
        )
    indices = itertools.product(*(range(d.size) for d in static))
    return [dict(zip([d.name for d in static], index, strict=True)) for index in indices]


def choose(tree: PyTree, indices: Mapping[str, int]) -> PyTree:
    """Return the tree with each axis named in `indices` replaced by its value there, also inside other axes' values."""

    def pick(x):
        if not isinstance(x, Axis):
            return x
        if x.name in indices:
            return choose(as_python(x.values[indices[x.name]]), indices)
        if is_array(x.values):
            return x
        return Axis(x.name, [choose(v, indices) for v in x.values], x.labels)

    return jax.tree.map(pick, tree, is_leaf=is_axis) if indices else tree


def lanes(tree: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
    """Return a problem whose axes are all traced, taken apart.

    Returns:
      The tree with a `Placeholder` at each axis (of whole optimizers or params: at each leaf of such a value, whose
      structure all values share), and by its key the values with a leading axis. `fill` puts a lane's own values in.
    """
    columns: dict[str, PyTree] = {}

    def replaced(x):
        if not isinstance(x, Axis):
            return x

        def placeholder(values):
            key = f"{x.name}/{len(columns)}"
            columns[key] = values
            return Placeholder(key)

        return jax.tree.map(placeholder, stacked(Mention(x, x.name, True)))

    return jax.tree.map(replaced, tree, is_leaf=is_axis), columns


def fill(tree: PyTree, values: Mapping[str, PyTree]) -> PyTree:
    """Return the tree with every `Placeholder` replaced by the value of its key."""
    return jax.tree.map(
        lambda x: values[x.key] if isinstance(x, Placeholder) else x, tree, is_leaf=lambda x: isinstance(x, Placeholder)
    )


ROUNDING = 1e-6  # relative: a number given in double precision is that of an axis in single


def all_coordinates(
    dimensions: dict[str, Dimension], records: int, record: Record
) -> dict[str, tuple[str, np.ndarray]]:
    coords = coordinates(dimensions)
    if record.what:
        coords["step"] = ("step", np.arange(records) * record.every)
    return coords


def coordinates(dimensions: dict[str, Dimension]) -> dict[str, tuple[str, np.ndarray]]:
    """Return labels if given, else values if they are plain and shared, else 0..n-1 with each leaf's beside.

    Text, of which no two values are equal, names the values of one leaf for the others.
    """
    coords: dict[str, tuple[str, np.ndarray]] = {}
    for name, dimension in dimensions.items():
        labels = next((m.axis.labels for m in dimension.mentions if m.axis.labels is not None), None)
        plain = [(m.path, v) for m in dimension.mentions if (v := _plain_values(m.axis)) is not None]
        names = [values for _, values in plain if values.dtype.kind == "U" and len(set(values)) == len(values)]
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
            chosen = names[0] if names else np.arange(dimension.size)
            coords[name] = (name, chosen)
            coords |= {path.replace("params", "start", 1): (name, x) for path, x in plain if x is not chosen}
    return coords


def _one_each(labels: list) -> np.ndarray:
    """Return labels along one dimension; those of several kinds, or tuples, stay what they are."""
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
    text = _shown(wanted) if "None" in values.tolist() else None
    there = [i for i, value in enumerate(values.tolist()) if _equal(value, wanted) or (text and value == text)]
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


def _shown(value: object) -> str | None:
    """Return the label of a number or None on an axis that has both; None for anything else."""
    return str(value) if value is None or isinstance(value, (int, float)) else None


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
