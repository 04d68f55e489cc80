"""Initial guesses for curves that are linear in some params: a grid over the others, and linear least squares.

For each (center, sigma) the curve height * exp(-((x - center) / sigma)**2 / 2) is a column of numbers times the height.
The column of the grid with the smallest sum of squares is chosen; in a sum of terms one term after another, in several
rounds. This needs no assumption on noise, order or sign, and no branch on a value, so that it can be traced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.typing import Number

if TYPE_CHECKING:
    from jaxfit.models.terms import Curve

Shape = Mapping[str, Array]  # the params that a curve is not linear in, by name
POINTS, PIXELS = 256, 4096  # at most; more points are averaged over neighbors, of more pixels every k-th is used
ROUNDS = 4  # of choices, if there are several terms
LIMITS = np.inf, 0.3, 0.1  # the widest shapes of the first round, as a share of the points; each is tried
SIGNS = 1, -1, 0  # of the heights of several terms of one kind; 0 is any; each is tried
DOUBT = 3  # the factor by which heights of any sign must do better: a wide peak minus a narrow one looks like two
DEPENDENT = 1e-5  # a column is dependent if less of its square is orthogonal to the others


class Span(NamedTuple):
    """The range and spacing of the points x."""

    x: Array  # (m,), or (m, 2)
    low: Array  # (), or (2,): the lowest x
    high: Array
    step: Array  # () the distance from the lowest x to the next

    @property
    def width(self) -> Array:
        """Return high - low, or 1 if that is zero."""
        return jnp.where(self.high > self.low, self.high - self.low, 1)

    @property
    def size(self) -> int:
        return self.x.shape[0]

    def even(self, count: int) -> Array:
        """Return (count,) numbers with the same density as the points x."""
        order = jnp.sort(self.x)
        return jnp.interp(jnp.linspace(0, self.size - 1, count), jnp.arange(self.size, dtype=order.dtype), order)


def grid(**candidates: Array) -> dict[str, Array]:
    """Return all combinations of (a,) candidates with (b,) others, as (a * b,) of each."""
    mesh = jnp.meshgrid(*candidates.values(), indexing="ij")
    return {name: jnp.ravel(values) for name, values in zip(candidates, mesh, strict=True)}


def spaced(low: Number, high: Number, count: int) -> Array:
    """Return (count,) numbers from low to high with equal ratios."""
    return low * (high / low) ** jnp.linspace(0, 1, count)


def separate(terms: Sequence[Curve], x: Array, y: Array, where: Array | None = None) -> list[dict[str, Array]]:
    """Return the params of each term that about minimize the sum of squares of sum(terms) - y.

    Args:
      terms: Hashable; of equal ones each gets params of its own.
      x: (n,), or (n, 2).
      y: (n,).
      where: (n,) booleans: the points that count.
    """
    x, y, weight = gathered(x, y, where)
    least = x if x.ndim == 1 else x[:, 0]
    ahead = jnp.where(least > least.min(), least, jnp.inf).min() - least.min()
    span = Span(x, x.min(0), x.max(0), jnp.where(jnp.isfinite(ahead), ahead, 1))
    scale = jnp.max(jnp.abs(weight * y))
    scale = jnp.where(scale > 0, scale, 1)
    target = weight * y / scale

    kinds = list(dict.fromkeys(terms))
    grids = [kind.shapes(span) for kind in kinds]
    columns, sizes = zip(*(_columns(kind, shapes, span, weight) for kind, shapes in zip(kinds, grids, strict=True)),
                         strict=True)  # fmt: skip
    kind_of = [kinds.index(term) for term in terms]
    moving = [i for i, k in enumerate(kind_of) if grids[k]]
    chosen = _chosen(columns, [kind_of[i] for i in moving], [k for k in kind_of if not grids[k]], target)
    places = dict(zip(moving, chosen, strict=True))

    picked = [columns[k][places.get(i, 0)] for i, k in enumerate(kind_of)]
    rows = jnp.concatenate(picked)
    gram = rows @ rows.T + 64 * jnp.finfo(rows.dtype).eps * jnp.eye(len(rows), dtype=rows.dtype)
    coefficients = jnp.linalg.solve(gram, rows @ target)
    params_of_terms, at = [], 0
    for i, k in enumerate(kind_of):
        heights = coefficients[at : at + len(picked[i])] * scale / sizes[k][places.get(i, 0)]
        shape = {name: values[places[i]] for name, values in grids[k].items()}
        params_of_terms.append(kinds[k].assemble(shape, heights, span))
        at += len(picked[i])
    return params_of_terms


def gathered(x: Array, y: Array, where: Array | None) -> tuple[Array, Array, Array]:
    """Return at most `POINTS` points (m,), (m,), with weights (m,): the square root of how many each averages."""
    if where is not None:  # a point that does not count stands where one does, with no weight
        x = jnp.where(where if x.ndim == 1 else where[:, None], x, x[jnp.argmax(where)])
        y = jnp.where(where, y, 0)
    weight = jnp.ones_like(y) if where is None else where.astype(y.dtype)
    n = len(y)
    if x.ndim == 2:
        thin = slice(None, None, -(-n // PIXELS))
        return x[thin], y[thin], weight[thin]
    if n <= POINTS:
        return x, y, weight
    order = jnp.argsort(x)
    group = np.arange(n) * POINTS // n

    def total(v):
        return jax.ops.segment_sum(v[order], group, POINTS, indices_are_sorted=True)

    count = total(weight)
    share = jnp.where(count > 0, count, 1)
    return jnp.where(count > 0, total(weight * x) / share, x[order[0]]), total(weight * y) / share, jnp.sqrt(count)


def _columns(term: Curve, shapes: Shape, span: Span, weight: Array) -> tuple[Array, Array]:
    """Return (candidates, columns, m) of unit norm, and the norms (candidates, columns)."""
    raw = jax.vmap(lambda shape: term.columns(shape, span))(shapes) if shapes else term.columns({}, span)[None]
    raw = jnp.where(jnp.isfinite(raw), raw, 0) * weight[None, None, :]
    size = jnp.sqrt(jnp.sum(raw * raw, axis=-1))
    size = jnp.where(size > 0, size, 1)
    return raw / size[..., None], size


def _chosen(columns: Sequence[Array], moving: Sequence[int], standing: Sequence[int], target: Array) -> list[Array]:
    """Return the index of the candidate that is chosen for each term with a shape."""
    if not moving:
        return []
    kinds = sorted(set(moving))
    widest = max(columns[k].shape[1] for k in kinds)
    all = jnp.concatenate([jnp.pad(columns[k], ((0, 0), (0, widest - columns[k].shape[1]), (0, 0))) for k in kinds])
    owner = np.repeat(kinds, [len(columns[k]) for k in kinds])
    first = {k: int(np.flatnonzero(owner == k)[0]) for k in kinds}
    base = jnp.concatenate([columns[k][0] for k in standing]) if standing else jnp.zeros((0, len(target)), all.dtype)
    gram = jnp.einsum("gam,gbm->gab", all, all)
    wanted = np.asarray(moving)
    count, repeated = len(moving), np.isin(moving, [k for k in kinds if moving.count(k) > 1])

    filled = jnp.sum(jnp.abs(all), axis=(1, 2)) ** 2 / (widest * len(target))  # share of the points in it, about

    def basis_of(chosen, others):
        rows = all[jnp.maximum(chosen, 0)] * others[:, None, None]
        return _orthonormal(jnp.concatenate([base, rows.reshape(-1, len(target))]))

    def choose(step, chosen, most, sign):
        k = step % count
        basis = basis_of(chosen, (jnp.arange(count) != k) & (chosen >= 0))
        slope = all @ (target - basis.T @ (basis @ target))
        own = jnp.einsum("gam,rm->gar", all, basis)
        gain = _gain(gram - jnp.einsum("gar,gbr->gab", own, own), slope, gram)
        allowed = (jnp.asarray(owner) == jnp.asarray(wanted)[k]) & ((step >= count) | (filled <= most))
        allowed &= ~jnp.asarray(repeated)[k] | (sign * slope[:, 0] >= 0)
        return chosen.at[k].set(jnp.argmax(jnp.where(allowed, gain, -1)).astype(np.int32))

    def attempt(most, sign):
        """Return a choice whose first round excludes wide candidates, each of which could replace several terms."""
        start = jnp.full(count, -1, np.int32)
        chosen = jax.lax.fori_loop(0, 1 if count == 1 else count * ROUNDS, lambda i, c: choose(i, c, most, sign), start)
        return chosen, jnp.sum((basis_of(chosen, chosen >= 0) @ target) ** 2)

    several = bool(repeated.any())
    tries = [(most, sign) for most in LIMITS[: None if count > 1 else 1] for sign in (SIGNS if several else (0,))]
    chosen, explained = jax.vmap(attempt)(*jnp.asarray(tries, all.dtype).T)
    left = jnp.maximum(target @ target - explained, 0) * jnp.where(jnp.asarray(tries)[:, 1] == 0, DOUBT, 1)
    best = chosen[jnp.argmin(left)]
    return [best[i] - first[k] for i, k in enumerate(moving)]


def _orthonormal(rows: Array) -> Array:
    """Return orthonormal rows (r, m) by modified Gram-Schmidt; zero where a row depends on those before."""
    basis: list[Array] = []
    for row in rows:
        before = jnp.sum(row * row)
        for q in basis:
            row = row - jnp.sum(q * row) * q
        square = jnp.sum(row * row)
        basis.append(jnp.where(square > DEPENDENT * before, row / jnp.sqrt(jnp.where(square > 0, square, 1)), 0))
    return jnp.stack(basis) if basis else rows


def _gain(gram: Array, slope: Array, before: Array) -> Array:
    """Return (g,) slope^T gram^-1 slope, the decrease of the sum of squares by each candidate."""
    width, gain = slope.shape[1], jnp.zeros(len(slope), slope.dtype)
    for i in range(width):
        pivot = gram[:, i, i]
        sound = pivot > DEPENDENT * before[:, i, i]
        pivot = jnp.where(sound, pivot, 1)
        gain = gain + jnp.where(sound, slope[:, i] ** 2 / pivot, 0)
        factor = jnp.where(sound[:, None], gram[:, i, :] / pivot[:, None], 0)
        slope = slope - factor * slope[:, i : i + 1]
        gram = gram - factor[:, :, None] * gram[:, i : i + 1, :]
    return gain
