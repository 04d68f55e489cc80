"""Marks at the leaves of params: `Fixed`, `Bounded`, `Tied`, `Carried`. Methods move what is free; the loss gets the
whole tree.

What is no float (a function, text, a boolean, a PRNG key, an array of integers) is `Kept`: it comes back as it was.

Bounds are kept by projection: a step that leads beyond a bound ends on it. So params move in the user's own units,
inside of the bounds as if there were none, and a bound is reached exactly, not as a limit where a change of variables
flattens.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Hashable
from typing import NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxfit.problems.axes import Axis, Call, is_array, is_key, refuse_unit
from jaxfit.problems.messages import near_keywords, nothing_there, shown
from jaxfit.typing import PyTree

Bound: TypeAlias = "ArrayLike | Axis | None"  # of a leaf, or of each of its entries


@near_keywords
class Fixed:
    """A leaf, or a whole subtree, of the params that does not change.

    Example:
      >>> loss = lambda p: (p["a"] * p["b"] - 6) ** 2
      >>> run = jf.fit(loss, {"a": jf.Fixed(2.0), "b": 1.0}, optimizer=jf.optimizers.sgd(0.1), steps=100)
      >>> float(run.params["a"]), round(float(run.params["b"]), 3)
      (2.0, 3.0)
    """

    def __init__(self, value: PyTree):
        _refuse_marks("Fixed", value)
        self.value = value

    def __repr__(self) -> str:
        return f"Fixed({self.value!r})"


@near_keywords
class Carried(Fixed):
    """A leaf, or a whole subtree, of the params that a stateful loss changes in each step, and no optimizer moves.

    Batch statistics and counters are such; `jf.losses.stateful` says how the loss tells. All else takes it as fixed at
    its last value.

    Example:
      >>> def loss(params, x):
      ...     mean = 0.9 * params["mean"] + 0.1 * x.mean()
      ...     return (params["w"] - mean) ** 2, params | {"mean": mean}
      >>> start = {"w": 1.0, "mean": jf.Carried(0.0)}
      >>> sgd, x = jf.optimizers.sgd(0.1), np.array([1.0, 3.0])
      >>> run = jf.fit(jf.losses.stateful(loss), start, (x,), optimizer=sgd, steps=2)
      >>> round(float(run.params["mean"]), 6)
      0.38
    """

    def __repr__(self) -> str:
        return f"Carried({self.value!r})"


class Kept(Fixed):
    """A leaf that is no float, which a loss gets and a result holds as it was given.

    An array is data of a program, a key as its numbers; all else (functions, text, booleans, None) is part of it.
    """

    def __init__(self, value: object):
        self.impl = str(jax.random.key_impl(value)) if is_key(value) else None  # pyright: ignore[reportArgumentType]
        self.value = jax.random.key_data(value) if is_key(value) else value  # pyright: ignore[reportArgumentType]
        self.static = not is_array(value)

    @property
    def own(self) -> PyTree:
        value: PyTree = self.value
        return value if self.impl is None else jax.random.wrap_key_data(value, impl=self.impl)

    def __repr__(self) -> str:
        return f"Fixed({self.value!r})" if self.impl is None else f"Fixed(key of {self.impl})"


class _Static:
    """A value that is part of a program; two are equal if they have the same type and are equal, or are one object."""

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or _hashes(self.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash((type(self.value), self.value)) if _hashes(self.value) else id(self.value)


def _hashes(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@near_keywords
class Bounded:
    """A leaf of the params that stays between bounds.

    Args:
      value: The start, a number or an array, within the bounds or on them.
      low, high: Numbers, or arrays of the shape of the value; None or infinite for no bound on that side.

    Raises:
      ValueError: If low is not below high, the start is outside, or shapes do not fit.

    Example:
      >>> loss = lambda p: (p["a"] - 3) ** 2
      >>> run = jf.fit(loss, {"a": jf.Bounded(1.0, high=2.0)}, optimizer=jf.optimizers.sgd(0.1), steps=50)
      >>> float(run.params["a"])
      2.0
    """

    value: PyTree
    low: PyTree
    high: PyTree

    def __init__(self, value: PyTree, low: Bound = None, high: Bound = None):
        for name, x in (("value", value), ("low", low), ("high", high)):
            _refuse_marks(f"Bounded: {name}", x)
        self.value, self.low, self.high = value, low, high

    def __repr__(self) -> str:
        return f"Bounded({self.value!r}, low={self.low!r}, high={self.high!r})"


@near_keywords
class Tied:
    """A leaf of the params that is a function of the whole tree, such as `Tied(lambda p: 2 * p["a"])`.

    Two of them are equal if they have the same code and the same enclosed values, so one written in place does not
    recompile.

    Raises:
      TypeError: If `function` cannot be called.

    Example:
      >>> loss = lambda p: (p["a"] + p["b"] - 6) ** 2
      >>> start = {"a": 1.0, "b": jf.Tied(lambda p: 2 * p["a"])}
      >>> run = jf.fit(loss, start, optimizer=jf.optimizers.sgd(0.02), steps=100)
      >>> round(float(run.params["a"]), 3), round(float(run.params["b"]), 3)
      (2.0, 4.0)
    """

    def __init__(self, function: Callable):
        if not callable(function):
            raise TypeError(
                f"Tied: function is {shown(function)}, but it must be a function of the params: "
                f'Tied(lambda p: 2 * p["a"])'
            )
        self.function = function

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tied) and _meaning(self.function) == _meaning(other.function)

    def __hash__(self) -> int:
        return hash(_meaning(self.function))

    def __repr__(self) -> str:
        return f"Tied({getattr(self.function, '__name__', repr(self.function))})"


def _meaning(function: object) -> Hashable:
    """Return what tells two functions apart: the code, and what it encloses."""
    if not hasattr(function, "__code__"):
        return function
    cells = tuple(_content(cell) for cell in function.__closure__ or ())
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items())
    try:
        meaning = function.__code__, cells, defaults, id(function.__globals__)
        hash(meaning)
    except TypeError:
        return function
    return meaning


def _content(cell: types.CellType) -> Hashable:
    try:
        value = cell.cell_contents
    except ValueError:  # not yet bound
        return id(cell)
    return _meaning(value) if hasattr(value, "__code__") else (type(value), value)


_VALUE = jax.tree_util.GetAttrKey("")  # the mark's own place in the tree


def _made(cls: type, **fields: PyTree) -> PyTree:
    mark = object.__new__(cls)
    mark.__dict__.update(fields)
    return mark


for _cls in (Fixed, Carried):
    jax.tree_util.register_pytree_with_keys(
        _cls, lambda m: (((_VALUE, m.value),), None), lambda _, children, cls=_cls: _made(cls, value=children[0])
    )


def _flatten_kept(mark: Kept) -> tuple:
    if mark.static:
        return (), (None, _Static(mark.value))
    return ((_VALUE, mark.value),), (mark.impl, None)


def _unflatten_kept(aux: tuple, children: tuple) -> PyTree:
    impl, static = aux
    return _made(Kept, value=children[0] if static is None else static.value, impl=impl, static=static is not None)


jax.tree_util.register_pytree_with_keys(Kept, _flatten_kept, _unflatten_kept)  # pyright: ignore[reportArgumentType]
jax.tree_util.register_pytree_with_keys(
    Bounded,
    lambda m: (
        ((_VALUE, m.value), (jax.tree_util.GetAttrKey("low"), m.low), (jax.tree_util.GetAttrKey("high"), m.high)),
        None,
    ),
    lambda _, children: _made(Bounded, value=children[0], low=children[1], high=children[2]),
)
jax.tree_util.register_pytree_with_keys(Tied, lambda m: ((), m), lambda m, _: m)


def is_mark(x: object) -> bool:
    return isinstance(x, (Fixed, Bounded, Tied))


_SETTINGS = (bool, str, bytes, np.dtype, enum.Enum, type)


def kept_of(x: object) -> Kept | None:
    """Return the mark of a leaf that is no number to fit; None for all others, among them whole numbers alone."""
    if is_array_of_integers(x) or is_key(x):
        return Kept(x)
    if is_array(x) and x.dtype == np.bool_:  # pyright: ignore[reportAttributeAccessIssue]
        return Kept(bool(x) if isinstance(x, np.bool_) else x)
    return Kept(x) if isinstance(x, _SETTINGS) or callable(x) and not hasattr(x, "dtype") else None


def counted(x: PyTree) -> PyTree:
    """Return a leaf that is carried, integers and booleans as arrays that are `Kept`: counters stay whole."""
    whole = is_array(x) and (x.dtype == np.bool_ or jnp.issubdtype(x.dtype, jnp.integer))
    if not (whole or type(x) is int):
        return x
    return Kept(x if isinstance(x, jax.Array) else np.asarray(x, jax.dtypes.canonicalize_dtype(np.asarray(x).dtype)))


def is_array_of_integers(x: object) -> bool:
    return is_array(x) and bool(np.shape(x)) and jnp.issubdtype(x.dtype, jnp.integer)  # pyright: ignore


def is_kept(x: object) -> bool:
    return isinstance(x, Kept)


def is_marked(params: PyTree) -> bool:
    """Return whether there is any mark in the tree."""
    return any(map(is_mark, jax.tree.leaves(params, is_leaf=is_mark)))


def _refuse_marks(where: str, value: PyTree) -> None:
    leaves = jax.tree.leaves(value, is_leaf=lambda x: is_mark(x) or isinstance(x, Axis))
    inner = [v for x in leaves if isinstance(x, Axis) and not is_array(x.values) for v in x.values]
    inner_mark = next((x for x in (*leaves, *inner) if is_mark(x) and not is_kept(x)), None)
    if inner_mark is not None:
        raise TypeError(f"{where} is {inner_mark!r}, but marks do not nest; put one mark at each leaf")


# The tree taken apart, and put together


def free(marked: PyTree, values: PyTree | None = None) -> PyTree:
    """Return what moves: the tree with None where a leaf is fixed or tied.

    Args:
      marked: Params with their marks.
      values: The user's whole tree of other values to take it from; by default those of the marked tree.
    """
    if values is None:
        values = jax.tree.map(lambda x: x.value if isinstance(x, Bounded) else x, marked, is_leaf=is_mark)
    elif not is_marked(marked):
        return values
    leaves, structure = jax.tree.flatten(marked, is_leaf=_is_whole)
    pairs = zip(leaves, structure.flatten_up_to(values), strict=True)
    return jax.tree.unflatten(structure, [None if isinstance(x, (Fixed, Tied)) else value for x, value in pairs])


def carried(marked: PyTree) -> PyTree:
    """Return what a stateful loss updates: the tree with None where a leaf is not carried."""
    return jax.tree.map(lambda x: x.value if isinstance(x, Carried) else None, marked, is_leaf=_is_whole)


def carried_after(marked: PyTree, after: PyTree) -> PyTree:
    """Return, like `carried(marked)`, what the params `after` a step have there.

    Raises:
      TypeError: If they are another tree, or have other shapes there.
    """
    leaves, structure = jax.tree.flatten(marked, is_leaf=_is_whole)
    try:
        return jax.tree.unflatten(structure, [
            _renewed(x.value, value) if isinstance(x, Carried) else None
            for x, value in zip(leaves, structure.flatten_up_to(after), strict=True)
        ])  # fmt: skip
    except ValueError as error:
        raise TypeError(
            f"the function of jf.losses.stateful must return its loss and the params as they are after it, in the same "
            f"tree, such as `return loss, params | {{'stats': stats}}`; {error}"
        ) from error


def _renewed(old: PyTree, new: PyTree) -> PyTree:
    """Return the new values in the types of the old ones, with `Kept` where these have it."""
    leaves, structure = jax.tree.flatten(old, is_leaf=is_kept)

    def leaf(x, value):
        if is_kept(x) and x.static:
            return x
        if is_kept(x):
            value = value if x.impl is None else jax.random.key_data(value)
            return _made(Kept, value=leaf(x.value, value), impl=x.impl, static=False)
        if np.shape(value) != np.shape(x):
            raise ValueError(f"what is carried had shape {np.shape(x)}, and has {np.shape(value)} after the step")
        return jnp.asarray(value, x.dtype)

    return jax.tree.unflatten(structure, map(leaf, leaves, structure.flatten_up_to(new)))


def joined(marked: PyTree, moved: PyTree, state: PyTree) -> PyTree:
    """Return what a run of a stateful loss goes on with: like `free(marked)`, with what is carried in its place."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=_is_whole)
    both = structure.flatten_up_to(moved), structure.flatten_up_to(state)
    return jax.tree.unflatten(
        structure, [s if isinstance(x, Carried) else m for x, m, s in zip(leaves, *both, strict=True)]
    )


def holds_carried(marked: PyTree) -> bool:
    return any(isinstance(x, Carried) for x in jax.tree.leaves(marked, is_leaf=is_mark))


def put(marked: PyTree, values: PyTree) -> PyTree:
    """Return the marks around other values; of a tree without marks, these values.

    Args:
      marked: Params with their marks.
      values: What moves, like `free(marked)`, or the user's whole tree. A fixed leaf of which it has none stays as it
        is, and so does a tied one.
    """
    if not is_marked(marked):
        return values
    leaves, structure = jax.tree.flatten(marked, is_leaf=_is_whole)

    def leaf(x, value):
        if isinstance(x, Tied) or isinstance(x, Fixed) and value is None or is_kept(x) and not is_kept(value):
            return x
        if is_kept(x):
            return value
        if isinstance(x, Fixed):
            return _made(type(x), value=put(x.value, value))
        return _made(Bounded, value=value, low=x.low, high=x.high) if isinstance(x, Bounded) else value

    return jax.tree.unflatten(structure, map(leaf, leaves, structure.flatten_up_to(values)))


def _is_whole(x: object) -> bool:
    """Return whether one value, or one whole subtree of values, stands for it."""
    return isinstance(x, (Fixed, Bounded, Tied, Axis, Call))


def plain(marked: PyTree) -> PyTree:
    """Return the user's own tree of values: without marks, the tied leaves computed from the others.

    Raises:
      ValueError: If leaves are tied in a circle.
    """
    return released(values_of(marked))


def released(tree: PyTree) -> PyTree:
    """Return a tree with what is kept in its place."""
    if not any(map(is_kept, jax.tree.leaves(tree, is_leaf=is_kept))):
        return tree
    return jax.tree.map(lambda x: x.own if is_kept(x) else x, tree, is_leaf=is_kept)


def values_of(marked: PyTree) -> PyTree:
    """Return what `plain` does as a program can return it: with `Kept` around what is kept."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    if all(not is_mark(x) or is_kept(x) for x in leaves):
        return marked
    filled = [Unknown() if isinstance(x, Tied) else x.value if is_mark(x) and not is_kept(x) else x for x in leaves]
    waiting = [i for i, x in enumerate(leaves) if isinstance(x, Tied)]
    while waiting:
        tree, later = released(jax.tree.unflatten(structure, filled)), []
        known = {}
        for i in waiting:
            try:
                value = leaves[i].function(tree)
            except _NotYetKnown:
                later.append(i)
                continue
            except (KeyError, IndexError) as error:
                names, paths = _paths(marked, simple=True), _paths(marked)
                raise ValueError(f"params{paths[i]} is tied, but {nothing_there(error, names)}") from error
            if any(isinstance(x, Unknown) for x in jax.tree.leaves(value)):
                later.append(i)
            else:
                known[i] = _number(leaves[i], value)
        if not known:
            names = [name for name, x in zip(_paths(marked), leaves, strict=True) if isinstance(x, Tied)]
            raise ValueError(
                f"params{', params'.join(names)} are tied in a circle, each waiting for another; tie them to leaves "
                f"that are free or fixed"
            )
        for i, value in known.items():
            filled[i] = value
        waiting = later
    return jax.tree.unflatten(structure, filled)


def without_kept(params: PyTree, marked: PyTree = None) -> PyTree:
    """Return the tree with None where a leaf is kept.

    Args:
      params: The user's tree, or one of `values_of`.
      marked: The marks of the same tree, if they are known. If not, all but arrays of floats is kept, unless all are
        plain numbers.
    """
    if marked is not None and is_marked(marked):
        leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
        if not any(isinstance(x, Fixed) for x in leaves):
            return params
        pairs = zip(leaves, structure.flatten_up_to(params), strict=True)
        inner = [None if is_kept(x) else without_kept(value) if isinstance(x, Fixed) else value for x, value in pairs]
        return jax.tree.unflatten(structure, inner)
    leaves = jax.tree.leaves(params, is_leaf=is_kept)
    if marked is not None or all(map(_is_floating, leaves)) or all(type(x) in (float, int) for x in leaves):
        return params
    return jax.tree.map(lambda x: x if not is_kept(x) and _is_floating(x) else None, params, is_leaf=is_kept)


def with_kept(marked: PyTree, params: PyTree) -> PyTree:
    """Return the params with what the marks keep in its place; what is carried has its own."""
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    pairs = zip(leaves, structure.flatten_up_to(params), strict=True)

    def leaf(x, value):
        if isinstance(x, Carried):
            return jax.tree.map(lambda own, v: own.own if is_kept(own) and own.static else v, x.value, value,
                                is_leaf=is_kept)  # fmt: skip
        return x.own if is_kept(x) else with_kept(x.value, value) if isinstance(x, Fixed) else value

    return jax.tree.unflatten(structure, [leaf(x, value) for x, value in pairs])


def filled(numbers: PyTree, params: PyTree) -> PyTree:
    """Return the numbers, such as those of `without_kept`, with what the params have where there is None."""
    return jax.tree.map(lambda x, own: own if x is None else x, numbers, params, is_leaf=lambda x: x is None)


def _is_floating(x: object) -> bool:
    dtype = getattr(x, "dtype", None)  # also of what a store reads when it is indexed
    return isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating)


def _paths(marked: PyTree, *, simple: bool = False) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(marked, is_leaf=is_mark)
    return [jax.tree_util.keystr(path, simple=simple, separator="." if simple else "") for path, _ in leaves]


def _number(tied: Tied, value: object) -> Array:
    refuse_unit(f"what {tied} returned", value)
    if not (isinstance(value, (int, float)) or is_array(value)) or value is True or value is False:
        raise TypeError(f"{tied} returned a {type(value).__name__}; it must return one number or array")
    return jnp.asarray(value, jnp.result_type(value, float))


class _NotYetKnown(Exception):
    pass


class Unknown:
    """A tied leaf that is not computed yet: every use of its value raises `_NotYetKnown`."""

    def _wait(self, *_: object, **__: object) -> NoReturn:
        raise _NotYetKnown

    __array__ = __jax_array__ = __float__ = __int__ = __bool__ = __iter__ = __len__ = __getitem__ = __call__ = _wait
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _wait
    __rpow__ = __matmul__ = __rmatmul__ = __neg__ = __pos__ = __abs__ = __lt__ = __le__ = __gt__ = __ge__ = _wait
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = _wait

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name) if name.startswith("__") else _NotYetKnown


def flattened(tree: PyTree) -> np.ndarray:
    """Return all numbers of a tree in float64, in the order of its leaves."""
    return np.concatenate([np.zeros(0), *(np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree))])


def unflattened(numbers: np.ndarray, like: PyTree) -> PyTree:
    """Return (..., K) numbers as a tree of arrays in the shapes of another one, with (...) leading at every leaf."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([np.size(x) for x in leaves], dtype=int).tolist()
    pieces = [numbers[..., end - np.size(x) : end] for x, end in zip(leaves, ends, strict=True)]
    shaped = [piece.reshape((*numbers.shape[:-1], *np.shape(x))) for piece, x in zip(pieces, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
