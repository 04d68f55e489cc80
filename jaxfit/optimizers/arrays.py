"""Arithmetic that takes arrays of NumPy or of JAX, of one run or traced for many; triangles of least squares by it.

`both`, `either` and `pick` leave out what is not needed where a condition is known. A triangle is R of A = Q R, with a
row of zeros for a column that depends on earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Array: TypeAlias = Any  # of NumPy, or of JAX


def on_host(x: Array) -> bool:
    return isinstance(x, np.ndarray)


def namespace(x: Array) -> ModuleType:
    return np if on_host(x) else jnp


def eps_of(x: Array) -> Any:
    return np.finfo(x.dtype).eps


def normal(x: Any) -> Any:
    """Return a number, or zero for one that is too small to have all digits; a compiled program does so by itself."""
    return x.dtype.type(0) if isinstance(x, np.floating) and x < np.finfo(x.dtype).tiny else x


def is_known(condition: Any) -> bool:
    return isinstance(condition, (bool, np.bool_))


def pick(condition: Any, yes: Any, no: Any) -> Any:
    """Return one of two trees, or of what two functions return; if the condition is known, the other is not called."""
    if is_known(condition):
        chosen = yes if condition else no
        return chosen() if callable(chosen) else chosen
    yes, no = (x() if callable(x) else x for x in (yes, no))
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def both(condition: Any, then: Callable) -> Any:
    """Return whether a condition and one that a function returns hold."""
    return (condition and then()) if is_known(condition) else condition & then()


def either(condition: Any, otherwise: Callable) -> Any:
    """Return whether a condition or one that a function returns holds."""
    return (condition or otherwise()) if is_known(condition) else condition | otherwise()


UNROLLED = 6  # params up to which a triangle is made in place: many lanes then share each operation


def triangularize(columns: Array, b: Array) -> tuple[Array, Array]:
    """Return R (k, k) and Q^T b (k,) of A = Q R, given the columns of A (k, n) and b (n,); as `reduced` does."""
    xp, (k, n) = namespace(b), columns.shape
    rounding = (8 * k + n**0.5) * float(eps_of(b))
    if k > UNROLLED:
        joined = xp.linalg.qr(xp.concatenate([columns, b[None]]).T, mode="r")
        columns, b = joined[:k, :k].T, joined[:k, k]
    return reduced(columns, b, rounding)


def reduced(columns: Array, b: Array, rounding: float) -> tuple[Array, Array]:
    """Return R and Q^T b by modified Gram-Schmidt, with a row of zeros for a column that depends on earlier ones.

    With b as one more column this is as accurate as reflections: Bjorck (1967). A column depends on earlier ones if its
    part orthogonal to them is at most `rounding` of its norm.
    """
    xp, k = namespace(b), len(columns)
    least = rounding * xp.sqrt((columns * columns).sum(axis=1))

    def pivot(row, least):
        length = xp.sqrt(normal((row * row).sum()))
        length = pick(length <= least, b.dtype.type(0), length)
        return row / pick(length > 0, length, b.dtype.type(np.inf)), length

    if k > UNROLLED and not on_host(b):

        def body(i, carry):
            rest, triangle = carry
            q, length = pivot(rest[i], least[i])
            along = jnp.where(jnp.arange(k + 1) > i, jnp.sum(rest * q[None, :], axis=1), 0)
            row = jnp.where(jnp.arange(k + 1) == i, length, along)
            return rest - along[:, None] * q[None, :], triangle.at[i].set(row)

        rest = jnp.concatenate([columns, b[None]])
        joined = jax.lax.fori_loop(0, k, body, (rest, jnp.zeros((k, k + 1), b.dtype)))[1]
        return joined[:, :k], joined[:, k]
    rows, rest = [], xp.concatenate([columns, b[None]])
    triangle = np.zeros((k, k + 1), b.dtype)
    for i in range(k):
        q, length = pivot(rest[0], least[i])
        if on_host(b):
            triangle[i, i], triangle[i, i + 1 :] = length, rest[1:] @ q
            rest = rest[1:] - triangle[i, i + 1 :, None] * q
            continue
        along = jnp.sum(rest[1:] * q[None, :], axis=1)
        rest = rest[1:] - along[:, None] * q[None, :]
        rows.append(jnp.concatenate([jnp.zeros(i, b.dtype), length[None], along]))
    joined = triangle if on_host(b) else jnp.stack(rows)
    return joined[:, :k], joined[:, k]


def damped(triangle: Array, shadow: Array, damping: Array) -> tuple[Array, Array]:
    """Return the triangle and the right side of min ||R z - c||**2 + damping * ||z||**2."""
    xp = namespace(shadow)
    below = xp.sqrt(damping) * xp.eye(shadow.size, dtype=triangle.dtype)
    return triangularize(xp.concatenate([triangle.T, below], axis=1), xp.concatenate([shadow, xp.zeros_like(shadow)]))


def solve(triangle: Array, b: Array) -> Array:
    """Return z with R z = b, with zeros where a pivot is zero."""
    k, host = b.size, on_host(b)
    if k > UNROLLED:
        xp = namespace(b)
        pivots = triangle.diagonal()
        safe = triangle + xp.diag(xp.where(pivots == 0, 1, 0).astype(b.dtype))
        found = np.linalg.solve(safe, b) if host else jax.scipy.linalg.solve_triangular(safe, b)
        return xp.where(pivots == 0, 0, found)
    z: list[Array] = [b[0]] * k
    for i in reversed(range(k)):
        rest = b[i] - sum((triangle[i, j] * z[j] for j in range(i + 1, k)), 0.0 if host else jnp.zeros_like(b[i]))
        pivot = triangle[i, i]
        z[i] = pick(pivot == 0, b.dtype.type(0), lambda: rest / pick(pivot == 0, 1, pivot))  # noqa: B023 (called here)
    return np.array(z) if host else jnp.stack(z)
