"""`Call`: a function run once per lane, in place of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.datasets import as_key, refuse_unit
from jaxfit.problems.axes import Axis, Place, is_array, is_axis, is_integer, is_number, plain, repetition, stack
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import PyTree


@near_keywords
class Call:
    """A function call that each lane makes for itself, used in place of the value that it returns.

    Among the arguments, floats, arrays, keys and axes of them are traced; integers, booleans, strings, None, functions
    and tuples of such are static: parts of the program. An integer for an argument named `key` is a seed.

    Raises:
      TypeError: If `function` is not callable, or a static argument cannot be hashed.

    Example:
      >>> import jax
      >>> start = jf.Call(jax.random.normal, key=jf.Axis("seed", [0, 1, 2]))
      >>> grid = jf.sweep(lambda p: p**2, start, optimizer=jf.optimizers.sgd(0.5), steps=5)
      >>> grid.results.params.values.tolist()
      [0.0, 0.0, 0.0]
    """

    def __init__(self, function: Callable, /, *args, **kwargs):
        if not callable(function):
            raise TypeError(
                f"Call: function is {shown(function)}, which cannot be called; pass the function and its "
                f"arguments apart: Call(init, key=0), not Call(init(key=0))"
            )
        self.function = function
        self.args = tuple(plain(a) for a in args)
        self.kwargs = {name: seeds(value) if name == "key" else plain(value) for name, value in kwargs.items()}
        for name, value in self.given.items():
            refuse_unit(f"Call: argument {name!r}", value)
            if is_static(value):
                _check_hashable(function, name, value)

    @property
    def given(self) -> dict[int | str, PyTree]:
        return dict(enumerate(self.args)) | self.kwargs

    def __call__(self) -> PyTree:
        return self.function(*resolve(self.args), **resolve(self.kwargs))

    def __repr__(self) -> str:
        given = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"Call({', '.join([getattr(self.function, '__name__', repr(self.function)), *given])})"


def is_static(value: object) -> bool:
    """Whether an argument is a part of the program (True) or a number that it works on (False)."""
    leaves = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, (Axis, Place)))
    return all(isinstance(x, (bool, int, str, np.bool_, np.integer)) or _is_function(x) for x in leaves)


def _is_function(x: object) -> bool:
    return callable(x) and not isinstance(x, (Axis, jax.Array))


def _check_hashable(function: Callable, name: int | str, value: PyTree) -> None:
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{getattr(function, '__name__', function)}: argument {name!r} is {value!r}, a part of the program that "
            f"cannot be hashed; use a tuple instead of a list, or floats if these are numbers to sweep"
        ) from None


def _flatten_call(call: Call):
    traced = {name: value for name, value in call.given.items() if not is_static(value)}
    static = tuple((name, value) for name, value in call.given.items() if name not in traced)
    children = [(jax.tree_util.GetAttrKey(str(name)), value) for name, value in traced.items()]
    return children, (call.function, tuple(traced), static)


def _unflatten_call(aux, children) -> Call:
    function, names, static = aux
    given = dict(static) | dict(zip(names, children, strict=True))
    call = object.__new__(Call)
    call.function = function
    call.args = tuple(given[i] for i in range(sum(isinstance(k, int) for k in given)))
    call.kwargs = {k: v for k, v in given.items() if isinstance(k, str)}
    return call


jax.tree_util.register_pytree_with_keys(Call, _flatten_call, _unflatten_call)


def resolve(tree: PyTree) -> PyTree:
    """The tree with every `Call` in it replaced by its result."""
    return jax.tree.map(lambda x: x() if is_call(x) else x, tree, is_leaf=is_call)


def is_call(x: object) -> bool:
    return isinstance(x, Call)


def holds_call(tree: PyTree) -> bool:
    return any(map(is_call, jax.tree.leaves(tree, is_leaf=is_call)))


def seeds(value: PyTree) -> PyTree:
    """Seeds as keys: an integer, or an axis of integers, whose labels stay the integers."""
    if isinstance(value, Axis):
        if isinstance(value.values, np.ndarray) and value.values.ndim == 1:
            _check_seeds(value.name, value.values)
            keys = jax.numpy.stack([as_key(plain(seed)) for seed in value.values])
            return Axis(value.name, keys, value.labels if value.labels is not None else value.values.tolist())
        return value
    return as_key(value) if is_number(value) else value


def _check_seeds(name: str, values: np.ndarray) -> None:
    whole = values == np.floor(values) if values.dtype.kind == "f" else np.full(values.shape, values.dtype.kind in "iu")
    bad = np.flatnonzero(~(whole & (values >= 0) & (values < 2**32))) if values.dtype.kind != "b" else [0]
    if len(bad):
        raise ValueError(
            f"Axis {name!r}: value {bad[0]} is {values[bad[0]]}, but a seed must be an integer of 0 to 2**32 - 1; "
            f"pass such integers, or keys made by jax.random.split"
        )
    if values.dtype.kind == "f":
        raise ValueError(f"Axis {name!r}: value 0 is {values[0]}, but seeds must be integers; use values.astype(int)")
    repeated = repetition(values.tolist())
    if repeated is not None:
        raise ValueError(
            f"Axis {name!r}: value {repeated} ({values[repeated]}) is a repetition, as its lanes would be; leave it out"
        )


class Mention(NamedTuple):
    """One axis at one place of a problem."""

    axis: Axis
    path: str  # where it stands, for messages and coordinates
    number: bool  # whether an integer here is a number (params, data) and not a part of the program


def mentions(tree: PyTree, *, path: str = "", number: bool = True) -> Iterator[Mention]:
    """Every axis in the tree, in the order written; an axis before those inside its values."""
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
    """The children of one node, by name; a mapping's in the order written, which JAX would sort."""
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
    """The dimensions of a problem, in the order of first mention.

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
    """The values of a traced axis with a leading axis along the dimension; None if they are parts of the program."""
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
    """The tree with each axis named in `indices` replaced by its value there, also inside other axes' values."""

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
    """A problem whose axes are all traced, taken apart.

    Returns:
      The tree with a `Place` at each axis (of whole optimizers or params: at each leaf of such a value, whose structure
      all values share), and by the key of the place the values with a leading axis. `fill` puts a lane's own values in.
    """
    columns: dict[str, PyTree] = {}

    def places(x):
        if not isinstance(x, Axis):
            return x

        def place(values):
            key = f"{x.name}/{len(columns)}"
            columns[key] = values
            return Place(key)

        return jax.tree.map(place, stacked(Mention(x, x.name, True)))

    return jax.tree.map(places, tree, is_leaf=is_axis), columns


def fill(tree: PyTree, values: Mapping[str, PyTree]) -> PyTree:
    """The tree with every `Place` replaced by the value of its key."""
    return jax.tree.map(
        lambda x: values[x.key] if isinstance(x, Place) else x, tree, is_leaf=lambda x: isinstance(x, Place)
    )
