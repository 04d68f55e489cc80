"""Jacobians of data sets with params of their own and params in common, and their triangles: block by block.

The residuals of a set depend on its own params and on those in common, so that the Jacobian is block diagonal but for a
border, the columns in common. The own columns of each set are eliminated first, all sets at once, and what is left of
the border is reduced to a triangle. This is Gram-Schmidt on the whole Jacobian without the zeros: a few numbers a set,
and the digits of orthogonal triangularization. The functions take whole triangles too.

Source: Bjorck (1996), Numerical Methods for Least Squares Problems, section 6.3: block angular problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxfit.losses.base import LossFunction
from jaxfit.losses.joint import Joint
from jaxfit.optimizers import arrays
from jaxfit.optimizers.arrays import Array, are_finite, eps_of, flat_root, namespace, on_host, total
from jaxfit.optimizers.lanes import TOGETHER
from jaxfit.problems.marks import Tied, is_mark
from jaxfit.typing import PyTree


class Layout:
    """Which of the numbers of an array (k,) are the sets' own, and which are common to all."""

    def __init__(self, own: Sequence[np.ndarray], common: np.ndarray) -> None:
        self.own = tuple(own)  # of sets of one kind (m, K) places
        self.common = common  # (c,) places
        self.order = np.concatenate([*(x.ravel() for x in self.own), common])
        self.inverse = np.argsort(self.order)
        self.width = max((len(x) for x in self.own), default=0) + len(common)
        self._key = tuple((x.shape, x.tobytes()) for x in (*self.own, common))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def split(self, numbers: Array) -> tuple[list[Array], Array]:
        """Return the numbers (k,) of the sets, each kind (m, K), and those in common (c,)."""
        return [numbers[x] for x in self.own], numbers[self.common]

    def join(self, own: Sequence[Array], common: Array) -> Array:
        return namespace(common).concatenate([*(x.reshape(-1) for x in own), common])[self.inverse]


def layout_of(loss: LossFunction, free: PyTree, marked: PyTree = None) -> Layout | None:
    """Return how the free params of the loss are shared out to its data sets; None if they are not.

    Args:
      free: The free params, with None where a leaf is not free.
      marked: The params with their marks; where one is tied to others, its set would depend on these.
    """
    if not isinstance(loss, Joint) or not isinstance(free, dict):
        return None
    if any(isinstance(x, Tied) for x in jax.tree.leaves(marked, is_leaf=is_mark)):
        return None
    leaves, structure = jax.tree.flatten(free)
    sizes = [math.prod(np.shape(x)) for x in leaves]
    places = [np.arange(end - n, end).reshape(np.shape(x)) for x, n, end in zip(leaves, sizes, np.cumsum(sizes),
                                                                                strict=True)]  # fmt: skip
    common, owned = loss.apart(jax.tree.unflatten(structure, places))
    none = np.zeros(0, int)
    own = []
    for many, tree in zip(loss.many, owned, strict=True):
        leaves = jax.tree.leaves(tree)
        rows = [x.reshape(len(x), -1).T if many else x.reshape(-1, 1) for x in leaves]
        own.append(np.concatenate(rows) if rows else none.reshape(0, 1))
    return Layout(own, np.concatenate([none, *(x.ravel() for x in jax.tree.leaves(common))]))


@dataclass(frozen=True)
class Columns:
    """The columns of a Jacobian: of sets of one kind (m + c, n, K), those in common last."""

    parts: tuple[Array, ...]
    layout: Layout

    def in_order(self, residuals: Array) -> Array:
        """Return the residuals of each set after the other."""
        ends = np.cumsum([part[0].size for part in self.parts])[:-1]
        pairs = zip(np.split(residuals, ends), self.parts, strict=True)
        return np.concatenate([x.reshape(part.shape[1:]).T.ravel() for x, part in pairs])

    def whole(self) -> Array:
        """Return all columns (k, n) with their zeros, the residuals of each set after the other; of NumPy."""
        table, at = np.zeros((self.layout.order.size, sum(x[0].size for x in self.parts))), 0
        for part, own in zip(self.parts, self.layout.own, strict=True):
            m, (_, n, sets) = len(own), part.shape
            rows = np.arange(at, at + n * sets).reshape(sets, n)
            for i in range(m):
                table[own[i][:, None], rows] = part[i].T
            table[self.layout.common[:, None, None], rows] = part[m:].transpose(0, 2, 1)
            at += n * sets
        return table

    def norms(self, parts: Sequence[Array]) -> Array:
        """Return the norms (k,) of columns of this layout."""
        xp, m = namespace(parts[0]), [len(own) for own in self.layout.own]
        squares = [(part * part).sum(axis=1) for part in parts]
        border = sum(x[i:].sum(axis=1) for x, i in zip(squares, m, strict=True))
        return xp.sqrt(self.layout.join([x[:i] for x, i in zip(squares, m, strict=True)], border))

    def scaled(self, weights: Array) -> Columns:
        """Return the columns times their weights (k,)."""
        own, border = self.layout.split(weights)
        return Columns(
            tuple(part * _beside(x, border)[:, None] for part, x in zip(self.parts, own, strict=True)), self.layout
        )


def _beside(own: Array, common: Array) -> Array:
    """Return numbers (m + c, K) of the columns of each set, those in common last."""
    xp = namespace(own)
    return xp.concatenate(
        [own, xp.broadcast_to(common[:, None], (common.size, own.shape[1]))]
    )  # of no own numbers (c, 1)


@dataclass(frozen=True)
class Triangle:
    """R of A = Q R, where the row of a pivot has the place of its column."""

    parts: tuple[Array, ...]  # of sets of one kind (m, m + c, K): triangles of their own columns, and the border
    common: Array  # (c, c) the triangle of the border
    layout: Layout

    __array_ufunc__ = None  # an array of NumPy leaves `@` to the triangle

    def diagonal(self) -> Array:
        own = [part[np.arange(len(part)), np.arange(len(part))] for part in self.parts]
        return self.layout.join(own, self.common.diagonal())

    def __matmul__(self, numbers: Array) -> Array:
        own, common = self.layout.split(numbers)
        each = []
        for part, x in zip(self.parts, own, strict=True):
            m = len(x)
            each.append((part[:, :m] * x[None]).sum(axis=1) + (part[:, m:] * common[None, :, None]).sum(axis=1))
        return self.layout.join(each, self.common @ common)

    def __rmatmul__(self, numbers: Array) -> Array:
        own, common = self.layout.split(numbers)
        each, border = [], common @ self.common
        for part, x in zip(self.parts, own, strict=True):
            m, found = len(x), (part * x[:, None]).sum(axis=0)
            each.append(found[:m])
            border = border + found[m:].sum(axis=1)
        return self.layout.join(each, border)

    def columns(self, weights: Array | None = None) -> tuple[list[Array], Array]:
        """Return what `eliminated` takes: the columns of each kind of sets, and those of the border alone."""
        xp = namespace(self.common)
        parts, common = [xp.moveaxis(part, 0, 1) for part in self.parts], self.common.T
        if weights is not None:
            own, border = self.layout.split(weights)
            parts = [part * _beside(x, border)[:, None] for part, x in zip(parts, own, strict=True)]
            common = common * border[:, None]
        return parts, common


for _kind in (Columns, Triangle):
    _arrays = [name for name in _kind.__dataclass_fields__ if name != "layout"]
    jax.tree_util.register_dataclass(_kind, data_fields=_arrays, meta_fields=["layout"])


def eliminated(
    layout: Layout, parts: Sequence[Array], residuals: Sequence[Array], border: Array, rest: Array, rounding: float
) -> tuple[Triangle, Array]:
    """Return R and Q^T b of rows that belong to sets, and of rows of the border alone.

    Args:
      parts: Of sets of one kind the columns (m + c, n, K).
      residuals: Of the same rows b, (n, K).
      border: Columns (c, n) of further rows, whose own columns are zero.
      rest: Of the same rows b, (n,).
      rounding: A column whose part orthogonal to earlier ones is at most this part of its norm depends on them.
    """
    xp, c = namespace(rest), layout.common.size
    found, shadows, left = [], [], [xp.concatenate([border, rest[None]])]
    squares = total((border * border).T) if border.size else xp.zeros(c, rest.dtype)
    for part, b in zip(parts, residuals, strict=True):
        m = len(part) - c
        norms = xp.sqrt((part * part).sum(axis=1))  # (m + c, K)
        squares = squares + (norms[m:] ** 2).sum(axis=1)
        columns, rows = xp.concatenate([part, b[None]]), []
        for i in range(m):
            column, columns = columns[0], columns[1:]
            length = xp.sqrt((column * column).sum(axis=0))
            length = xp.where(length <= rounding * norms[i], 0, length)
            unit = column / xp.where(length > 0, length, np.inf)[None]
            along = (columns * unit[None]).sum(axis=1)
            columns = columns - along[:, None] * unit[None]
            rows.append(xp.concatenate([xp.zeros((i, length.size), b.dtype), length[None], along]))
        table = xp.stack(rows) if m else xp.zeros((0, c + 1, b.shape[1]), b.dtype)
        found.append(table[:, :-1])
        shadows.append(table[:, -1])
        left.append(columns.reshape(c + 1, -1))
    last = xp.concatenate(left, axis=1)
    triangle, shadow = arrays.triangularize(last[:c], last[c], xp.sqrt(squares))
    return Triangle(tuple(found), triangle, layout), layout.join(shadows, shadow)


def _rounding(layout: Layout, rows: int, eps: Any) -> float:
    return (8 * layout.width + rows**0.5) * float(eps)


def triangularize(columns: Array | Columns, b: Array) -> tuple[Array | Triangle, Array]:
    """Return R and Q^T b of A = Q R, given the columns of A and b (n,), as `arrays.triangularize` does."""
    if not isinstance(columns, Columns):
        return arrays.triangularize(columns, b)
    layout, xp, at, each = columns.layout, namespace(b), 0, []
    for part in columns.parts:
        each.append(b[at : at + part[0].size].reshape(part.shape[1:]))
        at += part[0].size
    c = layout.common.size
    most = max(part.shape[1] for part in columns.parts)
    return eliminated(layout, columns.parts, each, xp.zeros((c, 0), b.dtype), xp.zeros(0, b.dtype),
                      _rounding(layout, most, eps_of(b)))  # fmt: skip


def reduced(triangle: Array | Triangle, free: Array, shadow: Array) -> tuple[Array | Triangle, Array]:
    """Return R and Q^T b without the columns that are not free."""
    if not isinstance(triangle, Triangle):
        return arrays.reduced(
            (triangle * free[None, :]).swapaxes(0, 1), shadow, 8 * len(shadow) * float(eps_of(shadow))
        )
    layout = triangle.layout
    own, common = layout.split(shadow)
    parts, border = triangle.columns(free)
    own = [x.reshape(len(x), part.shape[-1]) for x, part in zip(own, parts, strict=True)]
    return eliminated(layout, parts, own, border, common, 8 * layout.width * float(eps_of(shadow)))


def per(triangle: Array | Triangle, units: Array) -> Array | Triangle:
    """Return the triangle with its columns divided by their units."""
    if not isinstance(triangle, Triangle):
        return triangle / units[None, :]
    xp = namespace(units)
    parts, common = triangle.columns(1 / units)
    return Triangle(tuple(xp.moveaxis(part, 0, 1) for part in parts), common.T, triangle.layout)


def damped(triangle: Array | Triangle, shadow: Array, damping: Array) -> tuple[Array | Triangle, Array]:
    """Return the triangle and the right side of min ||R z - c||**2 + damping * ||z||**2."""
    if not isinstance(triangle, Triangle):
        return arrays.damped(triangle, shadow, damping)
    xp, layout, least = namespace(shadow), triangle.layout, flat_root(damping)
    own, common = layout.split(shadow)
    parts, border = triangle.columns()
    taller, longer = [], []
    for part, x in zip(parts, own, strict=True):
        m, sets = len(x), part.shape[-1]
        x = x.reshape(m, sets)
        below = xp.zeros((len(part), m, sets), x.dtype) + least * np.eye(len(part), m, dtype=x.dtype)[:, :, None]
        taller.append(xp.concatenate([part, below], axis=1))
        longer.append(xp.concatenate([x, xp.zeros_like(x)]))
    border = xp.concatenate([border, least * np.eye(common.size, dtype=common.dtype)], axis=1)
    common = xp.concatenate([common, xp.zeros_like(common)])
    return eliminated(layout, taller, longer, border, common, _rounding(layout, 2 * layout.width, eps_of(shadow)))


def solve(triangle: Array | Triangle, b: Array) -> Array:
    """Return z with R z = b, with zeros where a pivot is zero."""
    if not isinstance(triangle, Triangle):
        return arrays.solve(triangle, b)
    layout = triangle.layout
    own, common = layout.split(b)
    common = arrays.solve(triangle.common, common) if common.size else common
    each = []
    for part, x in zip(triangle.parts, own, strict=True):
        each.append(_backward(part, x - (part[:, len(x) :] * common[None, :, None]).sum(axis=1)))
    return layout.join(each, common)


def _backward(part: Array, b: Array) -> Array:
    """Return z (m, ..., K) with R z = b for the triangles of sets of one kind, with zeros where a pivot is zero."""
    xp, m = namespace(b), len(b)
    z: list[Array] = [b] * m
    for i in reversed(range(m)):
        left = b[i]
        for j in range(i + 1, m):
            left = left - part[i, j] * z[j]
        pivot = part[i, i]
        z[i] = xp.where(pivot == 0, 0, left / xp.where(pivot == 0, 1, pivot))
    return xp.stack(z) if m else b


def inverse(triangle: Triangle) -> tuple[list[np.ndarray], np.ndarray]:
    """Return what of R^-1 is not zero: the blocks (m, m, K) of each kind of sets, and the columns (k, c) of the border.

    Of arrays of NumPy; with zeros in the rows and columns of pivots that are zero.
    """
    layout, c = triangle.layout, triangle.layout.common.size
    last = np.stack([arrays.solve(triangle.common, x) for x in np.eye(c)], axis=1) if c else np.zeros((0, 0))
    last[:, triangle.common.diagonal() == 0] = 0
    border, blocks = np.zeros((layout.order.size, c)), []
    border[layout.common] = last
    for part, places in zip(triangle.parts, layout.own, strict=True):
        m, sets = places.shape
        if not m:
            blocks.append(np.zeros((0, 0, part.shape[-1])))
            continue
        one = np.broadcast_to(np.eye(m)[:, :, None], (m, m, sets))
        pivots = part[np.arange(m), np.arange(m)] != 0
        blocks.append(_backward(part, one) * pivots[None])
        along = _backward(part, -np.einsum("imk,mc->ick", part[:, m:], last))
        border[places] = np.moveaxis(along, 1, 2)
    return blocks, border


def silent(triangle: Triangle) -> np.ndarray:
    """Return directions (d, k) of length one that change no residual, one for each pivot that is zero; of NumPy."""
    layout, pivots, found = triangle.layout, triangle.diagonal(), []
    for places in (*(row for own in layout.own for row in own), *layout.common[:, None]):
        if not (zero := pivots[places] == 0).any():
            continue
        along = np.zeros(pivots.size)
        along[places[zero]] = 1
        direction = along - solve(triangle, triangle @ along)
        for place in places[zero]:  # one set for itself
            own = np.zeros(pivots.size)
            mine = _of_set(layout, place)
            own[mine] = direction[mine]
            found.append(own / np.sqrt((own**2).sum()))
    return np.array(found).reshape(-1, pivots.size)


def _of_set(layout: Layout, place: int) -> np.ndarray | slice:
    """Return the places of the set that has this place; for one in common all of them."""
    for own in layout.own:
        for row in own:
            if (at := np.flatnonzero(row == place)).size:
                return own[:, at[0]]
    return slice(None)


def diagonal(triangle: Array | Triangle) -> Array:
    """Return the pivots (k,)."""
    if isinstance(triangle, Triangle) or on_host(triangle) or len(triangle) > TOGETHER:
        return triangle.diagonal()
    return jax.numpy.stack([triangle[i, i] for i in range(len(triangle))])


def product(triangle: Array | Triangle, x: Array) -> Array:
    """Return R x."""
    if isinstance(triangle, Triangle) or triangle.ndim == 2:
        return triangle @ x
    return (triangle * x[None, :]).sum(axis=1)


def transposed_product(triangle: Array | Triangle, x: Array) -> Array:
    """Return R^T x."""
    if isinstance(triangle, Triangle) or triangle.ndim == 2:
        return x @ triangle
    return (triangle * x[:, None]).sum(axis=0)


def norms(triangle: Array | Triangle) -> Array:
    """Return the norms (k,) of the columns."""
    if not isinstance(triangle, Triangle):
        return namespace(triangle).sqrt(total(triangle**2))
    xp, layout = namespace(triangle.common), triangle.layout
    own, squares = [], total(triangle.common**2)
    for part in triangle.parts:
        m, found = len(part), (part**2).sum(axis=0)
        own.append(xp.sqrt(found[:m]))
        squares = squares + found[m:].sum(axis=1)
    return layout.join(own, xp.sqrt(squares))


def is_finite(triangle: Array | Triangle) -> Any:
    if not isinstance(triangle, Triangle):
        return are_finite(triangle, (0, 1))
    found = [are_finite(x, tuple(range(x.ndim))) for x in (*triangle.parts, triangle.common)]
    return all(found) if on_host(triangle.common) else jax.numpy.stack(found).all()
