"""The axes in a problem: found, chosen from, and replaced by places that each lane fills with its own values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.problems.axes import (
    Axis,
    Call,
    Placeholder,
    is_array,
    is_axis,
    is_integer,
    is_number,
    is_static,
    plain,
    stack,
)
from jaxfit.typing import PyTree


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


RESERVED = ("loss", "status", "steps", "validation_loss", "best_validation_loss", "best_step", "step")


def read(tree: Mapping[str, PyTree], *, static_places: Sequence[str] = ()) -> dict[str, Dimension]:
    """Return the dimensions of a problem by name, in the order of first mention.

    Args:
      tree: What stands at each place ("params", "optimizer", ...).
      static_places: Places where an integer is a part of the program, as it is inside any `Call`.

    Raises:
      ValueError: If one name has different lengths, or a name collides with a variable of the results.
    """
    found: dict[str, list[Mention]] = {}
    for place, value in tree.items():
        if any(map(is_axis, jax.tree.leaves(value, is_leaf=is_axis))):  # most places have none
            for mention in mentions(value, path=place, number=place not in static_places):
                found.setdefault(mention.axis.name, []).append(mention)
    for name, group in found.items():
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
    return {name: Dimension(name, len(group[0].axis), tuple(group)) for name, group in found.items()}


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


def choose(tree: PyTree, indices: Mapping[str, int]) -> PyTree:
    """Return the tree with each axis named in `indices` replaced by its value there, also inside other axes' values."""

    def pick(x):
        if not isinstance(x, Axis):
            return x
        if x.name in indices:
            return choose(plain(x.values[indices[x.name]]), indices)
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
