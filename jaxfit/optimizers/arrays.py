"""Arithmetic that takes arrays of NumPy or of JAX, of one run or traced for many; triangles of least squares by it.

`both`, `either`, `pick` and `when_asked` leave out what is not needed where a condition is known. A call of NumPy takes
longer than the arithmetic of a few numbers: `root`, `maximum`, `minimum`, `holds` and `solve` compute with plain ones.
A triangle is R of A = Q R, with a row of zeros for a column that depends on earlier ones.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.optimizers.lanes import TOGETHER, at_once, lanes_side_by_side

Array: TypeAlias = Any  # of NumPy, or of JAX


def on_host(x: Array) -> bool:
    return isinstance(x, np.ndarray)


def namespace(x: Array) -> ModuleType:
    return np if on_host(x) else jnp


NUMBER = frozenset((float, np.float64, np.float32))
KNOWN = frozenset((bool, np.bool_))
limits_of = functools.cache(np.finfo)


def eps_of(x: Array) -> Any:
    return limits_of(x.dtype).eps


def normal(x: Any) -> Any:
    """Return a number, or zero for one that is too small to have all digits; a compiled program does so anyway."""
    return x.dtype.type(0) if isinstance(x, np.floating) and x < limits_of(x.dtype).tiny else x


def root(x: Any) -> Any:
    """Return the square root of a number."""
    if not isinstance(x, np.floating):
        return jnp.sqrt(x)
    return type(x)(math.sqrt(x) if not x < 0 else math.nan)


def maximum(a: Any, b: Any) -> Any:
    """Return the larger one of two numbers, or NaN if one of them is."""
    if not (type(a) in NUMBER and type(b) in NUMBER):
        return jnp.maximum(a, b)
    return a if a >= b or a != a else b


def minimum(a: Any, b: Any) -> Any:
    """Return the smaller one of two numbers, or NaN if one of them is."""
    if not (type(a) in NUMBER and type(b) in NUMBER):
        return jnp.minimum(a, b)
    return a if a <= b or a != a else b


def total(x: Array) -> Any:
    """Return the sum of an array along its first axis."""
    return np.add.reduce(x) if on_host(x) else x.sum(axis=0)


def inner(a: Array, b: Array) -> Any:
    """Return the sum of the products of two arrays (k,)."""
    return a.dot(b) if on_host(a) else (a * b).sum(axis=0)


def squares(x: Array) -> Any:
    """Return the sum of the squares of an array (k,)."""
    return x.dot(x) if on_host(x) else (x**2).sum(axis=0)


def holds(x: Array) -> Any:
    """Return whether all of an array (k,) is true, or not zero."""
    return np.bool_(all(x.tolist())) if on_host(x) else x.all(axis=0)


def are_finite(x: Array, axes: int | tuple[int, ...] = 0) -> Any:
    """Return whether all numbers of an array are finite, along its axes."""
    if on_host(x) and math.isfinite(np.add.reduce(x, axis=None)):
        return True
    return namespace(x).isfinite(x).all(axis=axes)


def pick(condition: Any, yes: Any, no: Any) -> Any:
    """Return one of two trees, or of what two functions return; if the condition is known, the other is not called."""
    if type(condition) in KNOWN:
        chosen = yes if condition else no
        return chosen() if type(chosen) is FunctionType else chosen
    yes, no = (x() if callable(x) else x for x in (yes, no))
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def both(condition: Any, then: Callable) -> Any:
    """Return whether a condition and one that a function returns hold."""
    return (condition and then()) if type(condition) in KNOWN else condition & then()


def either(condition: Any, otherwise: Callable) -> Any:
    """Return whether a condition or one that a function returns holds."""
    return (condition or otherwise()) if type(condition) in KNOWN else condition | otherwise()


def when_asked(x: Array, function: Callable[[], Any]) -> Callable[[], Any]:
    """Return the function if `x` is of NumPy, so that it is called where it is needed; traced, it is called here."""
    if on_host(x):
        return function
    value = function()
    return lambda: value


PLACES = 0.0, 1.0, -10.0


def other_places(flat: Array, silent: Array) -> Array:
    """Return points (k, n) at which params without influence may have some: all of them at 0, at 1, at -10.

    The width and position of a peak far from the data have no influence where its height is 0.
    """
    xp = namespace(flat)
    return xp.stack([xp.where(silent, value + (flat == value), flat).astype(flat.dtype) for value in PLACES])


UNROLLED = 6  # params up to which a triangle is made in place: many lanes then share each operation
_short = contextvars.ContextVar("_short", default=False)


@contextlib.contextmanager
def short(wanted: bool) -> Iterator[None]:
    """Trace for a single lane: what `is_unrolled` asks for is left to LAPACK, and compiles several times faster."""
    token = _short.set(wanted)
    try:
        yield
    finally:
        _short.reset(token)


def is_unrolled(size: int) -> bool:
    """Return whether the singular values of a triangle of this size are computed in place, for many lanes."""
    return size <= UNROLLED and not _short.get()


def _in_place(size: int) -> bool:
    """Return whether a triangle of this size is made, and solved with, in place: column after column."""
    return size <= (UNROLLED if lanes_side_by_side() is None else TOGETHER)


def triangularize(columns: Array, b: Array, norms: Array | None = None) -> tuple[Array, Array]:
    """Return R (k, k) and Q^T b (k,) of A = Q R, given the columns of A (k, n) and b (n,); as `reduced` does."""
    k, n = columns.shape
    rounding = (8 * k + n**0.5) * float(eps_of(b))
    if _in_place(k):
        return reduced(columns, b, rounding, norms)
    if on_host(b):
        return _by_lapack(rounding, columns, b, norms)
    return _by_lapack_traced(rounding, columns, b, norms)


def _by_lapack(rounding: float, columns: Array, b: Array, norms: Array | None) -> tuple[Array, Array]:
    xp, k = namespace(b), len(columns)
    joined = xp.linalg.qr(xp.concatenate([columns, b[None]]).T, mode="r")
    return reduced(joined[:k, :k].T, joined[:k, k], rounding, norms)


_by_lapack_traced = jax.custom_jvp(_by_lapack, nondiff_argnums=(0,))


@_by_lapack_traced.defjvp
def _(rounding, given, tangents):
    """Return the derivative of `reduced`, with the same rows of zeros; that of LAPACK is NaN where a pivot is zero."""
    found = _by_lapack_traced(rounding, *given)
    least = jnp.where(found[0].diagonal() == 0, np.inf, 0).astype(given[1].dtype)
    return found, jax.jvp(lambda columns, b: reduced(columns, b, 1.0, least), given[:2], tangents[:2])[1]


NUMBER_BY_NUMBER = 5  # params up to which orthogonal triangles of such lanes are written out; of more a loop is as fast


def by_products(products: dict[tuple[int, int], Array], k: int) -> tuple[tuple[Array, Array], Array]:
    """Return R and Q^T b (..., lanes) from the products (lanes,) of A's columns and b, and where they are too poor.

    With d the least pivot of columns of length one, such an R is right to eps / d**2 of itself, and Q^T b to eps / d of
    b. Far from a minimum, where Q^T b is large, a step with some right digits does; near it all of Q^T b is looked at.
    """
    size, eps = products[k, k], float(eps_of(products[k, k]))
    rows, least = [], jnp.ones_like(size)
    for i in range(k):  # by Cholesky's way
        row = jnp.stack([products[i, j] for j in range(i, k + 1)])
        for earlier in rows:
            row = row - earlier[i][None] * earlier[i:]
        part = row[0] / products[i, i]
        least = jnp.where(part >= least, least, part)  # NaN stays
        row = at_once(row / jnp.sqrt(row[:1]))
        rows.append(jnp.concatenate([jnp.zeros((i, *size.shape), size.dtype), row]))
    joined = jnp.stack(rows)
    triangle, shadow = joined[:, :k], joined[:, k]
    far = (least > eps**0.5) & (least * squares(shadow) > eps**1.5 * size)
    return (triangle, shadow), ~((least > eps**0.25) | far) & jnp.isfinite(size)


def reduced(columns: Array, b: Array, rounding: float, norms: Array | None = None) -> tuple[Array, Array]:
    """Return R and Q^T b by modified Gram-Schmidt, with a row of zeros for a column that depends on earlier ones.

    With b as one more column this is as accurate as reflections: Bjorck (1967). A column depends on earlier ones if its
    part orthogonal to them is at most `rounding` of its norm; `norms` (k,) if it was longer before.
    """
    k = len(columns)
    if on_host(b):
        return _reduced_on_host(columns, b, rounding, norms)
    least = rounding * (jnp.sqrt((columns * columns).sum(axis=1)) if norms is None else norms)

    def pivot(row, least):
        length = flat_root((row * row).sum(axis=0))
        length = jnp.where(length <= least, b.dtype.type(0), length)
        return row / jnp.where(length > 0, length, b.dtype.type(np.inf)), length

    rest, lanes = jnp.concatenate([columns, b[None]]), b.shape[1:]
    alone = lanes_side_by_side() is not None and not lanes  # one of few lanes: not worth compiling it written out
    if alone or k > NUMBER_BY_NUMBER or not _in_place(k):
        places = np.arange(k + 1).reshape(-1, *(1 for _ in lanes))

        def body(i, carry):
            rest, triangle = carry
            q, length = pivot(rest[i], least[i])
            along = jnp.where(places > i, jnp.sum(rest * q[None, :], axis=1), 0)
            row = jnp.where(places == i, length, along)
            return rest - along[:, None] * q[None, :], triangle.at[i].set(row)

        joined = jax.lax.fori_loop(0, k, body, (rest, jnp.zeros((k, k + 1, *lanes), b.dtype)))[1]
        return joined[:, :k], joined[:, k]
    rows = []
    for i in range(k):
        q, length = pivot(rest[0], least[i])
        along = jnp.sum(rest[1:] * q[None, :], axis=1)
        rest = rest[1:] - along[:, None] * q[None, :]
        rows.append(jnp.concatenate([jnp.zeros((i, *lanes), b.dtype), length[None], along]))
    joined = jnp.stack(rows)
    return joined[:, :k], joined[:, k]


def _reduced_on_host(
    columns: np.ndarray, b: np.ndarray, rounding: float, norms: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    (k, n), tiny = columns.shape, limits_of(b.dtype).tiny
    lengths = np.sqrt(np.add.reduce(columns * columns, axis=1)) if norms is None else norms
    rest, triangle = np.empty((k + 1, n), b.dtype), np.zeros((k, k + 1), b.dtype)
    rest[:k], rest[k] = columns, b
    for i, norm in enumerate(lengths):
        row, rest = rest[0], rest[1:]
        square = row.dot(row)
        length = 0.0 if square < tiny else math.sqrt(square)
        if length <= rounding * norm:
            length = 0.0
        q = row / b.dtype.type(length if length > 0 else math.inf)
        triangle[i, i] = length
        triangle[i, i + 1 :] = along = rest.dot(q)
        if i + 1 < k:
            rest -= along[:, None] * q
    return triangle[:, :k], triangle[:, k]


identity = functools.lru_cache(maxsize=64)(lambda size, dtype: np.eye(size, dtype=dtype))


def flat_root(x: Array) -> Array:
    """Return the root, with a slope of zero at zero: the true one, infinite, would make derivatives of a run NaN."""
    none = x == 0
    return pick(none, 0 * x, lambda: root(pick(none, 1 + x, x)))


def damped(triangle: Array, shadow: Array, damping: Array) -> tuple[Array, Array]:
    """Return the triangle and the right side of min ||R z - c||**2 + damping * ||z||**2."""
    xp = namespace(shadow)
    eye = identity if on_host(shadow) else jnp.eye
    least = flat_root(damping)
    if on_host(shadow) and shadow.dtype == np.float64 and shadow.size <= UNROLLED:
        rows = _damped_rows(triangle.tolist(), shadow.tolist(), float(least))
        if rows is not None:
            return np.array(rows[0]), np.array(rows[1])
    if shadow.ndim == 2:  # lanes last
        return _damped_by_reflections(triangle, shadow, least)
    below = least * eye(shadow.size, dtype=triangle.dtype)
    more = xp.concatenate([triangle.T, below], axis=1)
    return triangularize(more, xp.concatenate([shadow, xp.zeros(shadow.shape, shadow.dtype)]))


def _damped_rows(rows: list, right: list, least: float) -> tuple[list, list] | None:
    """Return the same of a few numbers of Python, by rotations; None if a column may depend on earlier ones."""
    k = len(right)
    if least <= 1e-12 * max([max(map(abs, row)) for row in rows]):
        return None
    for first in range(k):
        below, rest = [0.0] * first + [least] + [0.0] * (k - first - 1), 0.0
        for i in range(first, k):
            row, other = rows[i], below[i]
            if other == 0:
                continue
            length = math.hypot(row[i], other)
            cosine, sine = row[i] / length, other / length
            row[i] = length
            for j in range(i + 1, k):
                x, y = row[j], below[j]
                row[j], below[j] = cosine * x + sine * y, cosine * y - sine * x
            x = right[i]
            right[i], rest = cosine * x + sine * rest, cosine * rest - sine * x
    return rows, right


def _damped_by_reflections(triangle: Array, shadow: Array, least: Array) -> tuple[Array, Array]:
    """Return the same of arrays with their lanes last. Column i finds zeros in all rows below but the first i + 1."""
    k, lanes = len(shadow), shadow.shape[1:]
    above, rows = at_once(jnp.concatenate([triangle, shadow[:, None]], axis=1)), []
    below = jnp.zeros((0, k + 1, *lanes), shadow.dtype)
    for i in range(k):
        fresh = jnp.concatenate([least[None], jnp.zeros((k - i, *lanes), shadow.dtype)])
        below = at_once(jnp.concatenate([below, fresh[None]]))
        row, column = above[i, i:], below[:, 0]
        square = row[0] ** 2 + squares(column)
        length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        first = row[0] + jnp.where(row[0] < 0, -length, length)
        part = 1 / jnp.where(length > 0, length * abs(first), np.inf)
        length, first, part = at_once((length, first, part))
        along = part * (first * row[1:] + (column[:, None] * below[:, 1:]).sum(axis=0))
        rest, along, below = at_once((row[1:] - first * along, along, below))
        below = below[:, 1:] - below[:, :1] * along[None]
        rest = jnp.where(row[0] < 0, rest, -rest)  # so that the pivot is positive
        rows.append(jnp.concatenate([jnp.zeros((i, *lanes), shadow.dtype), length[None], rest]))
    joined = jnp.stack(rows)
    return joined[:, :k], joined[:, k]


def solve(triangle: Array, b: Array) -> Array:
    """Return z with R z = b, with zeros where a pivot is zero; of lanes side by side b may be (k, m)."""
    k, host = len(b), on_host(b)
    if not _in_place(k):
        xp = namespace(b)
        pivots = triangle.diagonal()
        safe = triangle + xp.diag(xp.where(pivots == 0, 1, 0).astype(b.dtype))
        solution = np.linalg.solve(safe, b) if host else jax.scipy.linalg.solve_triangular(safe, b)
        return xp.where(pivots == 0, 0, solution)
    if host:
        exact = b.dtype == np.float64  # as the numbers of Python, which are faster
        rows, z = (triangle.tolist(), b.tolist()) if exact else (triangle, list(b))
        for i in reversed(range(k)):
            row, along = rows[i], 0.0
            for j in range(i + 1, k):
                along += row[j] * z[j]
            z[i] = (z[i] - along) / row[i] if row[i] != 0 else 0.0
        return np.array(z, b.dtype)
    z = [b[0]] * k  # each at once: a loop that fills an array of them would compute those after it anew for each
    for i in reversed(range(k)):
        rest = b[i]
        for j in range(i + 1, k):  # a sum of two products is rounded in one of two ways, in one loop now so, now so
            rest = rest - triangle[i, j] * z[j]
        pivot = triangle[i, i]
        z[i] = at_once(jnp.where(pivot == 0, b.dtype.type(0), rest / jnp.where(pivot == 0, 1, pivot)))
    return jnp.stack(z)


SWEEPS = 8  # of rotations; with columns in order of length they converge quadratically: 6 are enough up to 6 params


def singular(triangle: Array) -> tuple[Array, Array]:
    """Return the singular values (k,) of a traced triangle (k, k), the largest first, and the rows (k, k) of V^T.

    By rotations of its columns until all are at right angles, which is exact to rounding even of small values: Hestenes
    (1958), with the longer column first as in de Rijk (1989). Many lanes share each operation.
    """
    k, eps = len(triangle), eps_of(triangle)
    tiny = float(limits_of(triangle.dtype).tiny)

    def sweep(_, columns):
        columns = list(columns)  # each of R V, then of V
        for i in range(k):
            for j in range(i + 1, k):
                a, b = columns[i], columns[j]
                one, other, along = (jnp.sum(x[:k] * y[:k]) for x, y in ((a, a), (b, b), (a, b)))
                swap = one < other
                a, b = jnp.where(swap, b, a), jnp.where(swap, a, b)
                one, other = jnp.where(swap, other, one), jnp.where(swap, one, other)
                turns = abs(along) > eps * jnp.sqrt(one) * jnp.sqrt(other) + tiny
                ratio = (one - other) / jnp.where(turns, 2 * along, 1)
                tangent = jnp.sign(jnp.where(ratio == 0, 1, ratio)) / (abs(ratio) + jnp.sqrt(1 + ratio * ratio))
                tangent = jnp.where(turns, tangent, 0)
                cosine = 1 / jnp.sqrt(1 + tangent * tangent)
                columns[i], columns[j] = cosine * (a + tangent * b), cosine * (b - tangent * a)
        return jnp.stack(columns)

    columns = jnp.concatenate([triangle, jnp.eye(k, dtype=triangle.dtype)]).T
    columns = jax.lax.fori_loop(0, SWEEPS, sweep, columns)
    return jnp.sqrt(jnp.sum(columns[:, :k] ** 2, axis=1)), columns[:, k:]
