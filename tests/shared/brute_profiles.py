"""Profiles the slow and obvious way: at every value of a param, refits of the others from many starts, and the least.

Params in which a curve is linear are eliminated: at any values of the others their best ones are a linear least-squares
solution. So a valley that is long in them (a top of 1e80 with a column of 1e-80) is no valley, and the others are few
enough to be searched as a whole: everywhere first, then by Levenberg and Marquardt's steps from the best of what was
found. All lanes go together, and share no code with jaxfit. A sum that is found is never below the least one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

ITERATIONS = 15  # of one refit; what is slower goes on where its neighbors start from it
FARTHEST = 100.0  # standard errors; an end beyond counts as open
DISTANCES = np.append(np.arange(0.25, 6, 0.25), np.geomspace(6, FARTHEST, 12))  # of the grid, in standard errors
HALVINGS = 8  # of the grid's cell in which the sum passes: to 0.1 % of the distance
EVERYWHERE = 192  # places at which the params that are not linear are tried first
WIDE = 4.0  # they are truth * (1 + sinh(z)), |z| <= WIDE: to 27 times the truth to both sides
STARTS = 2  # refits from the best of them


class Question(NamedTuple):
    """Profiles of several data sets, all of their params, to both sides; n = sets * K * 2 lanes."""

    refit: Callable  # (starts (s, n, K), held values (n,)) -> the best params (n, K) and sums (n,)
    search: Callable  # held values (n,) -> starts (s, n, K)
    best: np.ndarray  # (n, K) the minimum
    truth: np.ndarray  # (n, K) what the data were drawn from
    which: np.ndarray  # (n,) the param held
    side: np.ndarray  # (n,) -1 or 1
    error: np.ndarray  # (n,)
    goal: np.ndarray  # (n,) the sum at the end


def ask(predict: Callable, x: np.ndarray, y: np.ndarray, best: np.ndarray, truth: np.ndarray, error: np.ndarray,
        goal: np.ndarray, linear: list[int], own_name: Callable = lambda p: True) -> Question:  # fmt: skip
    """Return the profiles of `predict(params (K,), x)` for x and y (sets, n), best and error (sets, K), goal (sets,).

    `linear` are the places of the params in which it is linear, and without which it is zero. `own_name(params)` is
    False where a curve has another set of params too, which counts instead: an exchange of two terms, or an alias of a
    frequency.
    """
    sets, count = best.shape
    lane, which, side = (a.ravel() for a in np.meshgrid(np.arange(sets), np.arange(count), [-1.0, 1.0], indexing="ij"))
    places, others = np.array(linear), np.setdiff1d(np.arange(count), linear)
    units = np.eye(len(linear))

    def whole(p, x, y, held):
        """The params with the best linear ones, the residuals, and what takes the part of the linear ones away."""
        p = p.at[places].multiply(held == places)
        curve, columns = predict(p, x), jnp.stack([predict(p.at[places].set(unit), x) for unit in units], axis=1)
        size = jnp.max(jnp.abs(columns), axis=0)
        use = (held != places) & jnp.isfinite(size) & (size > 0)
        size = jnp.where(use, size, 1.0)
        columns = jnp.where(use[None], columns / size[None], 0.0)
        norm = jnp.where(use, jnp.sum(columns**2, axis=0), 1.0)
        matrix = columns.T @ columns + jnp.diag(1e-14 * norm + jnp.where(use, 0, 1))
        c = _solved(matrix, columns.T @ (y - curve)[:, None])
        r = curve + (columns @ c)[:, 0] - y
        return p.at[places].add(c[:, 0] / size), r, lambda rows: rows - columns @ _solved(matrix, columns.T @ rows)

    def one(start, x, y, held):
        def linearized(p):
            """Residuals and their slopes by the other params while the linear ones follow: Kaufman's (1975)."""
            p, r, across = whole(p, x, y, held)
            slopes = jax.jacfwd(lambda few: predict(p.at[others].set(few), x))(p[others])
            slopes = jnp.where((others != held)[None] & jnp.isfinite(slopes), slopes, 0.0)  # inf * 0 is nothing
            return r, across(slopes)

        def step(_, state):
            p, r, slopes, widths, damping = state
            widths = jnp.maximum(widths, jnp.sum(slopes**2, axis=0))
            matrix = slopes.T @ slopes + jnp.diag(damping * widths + jnp.where(widths > 0, 0.0, 1.0))
            new = p.at[others].add(-_solved(matrix, (slopes.T @ r)[:, None])[:, 0])
            there, bend = linearized(new)
            good = (jnp.sum(there**2) <= jnp.sum(r**2)) & (bend**2 < 1e200).all()
            damping = jnp.clip(jnp.where(good, damping / 5, damping * 4), 1e-14, 1e14)
            p, r, slopes = (jnp.where(good, a, b) for a, b in ((new, p), (there, r), (bend, slopes)))
            return p, r, slopes, widths, damping

        r, slopes = linearized(start)
        fine = jnp.isfinite(r).all()
        state = start, jnp.where(fine, r, 0.0), slopes, jnp.zeros(len(others)), jnp.asarray(1e-3)
        p, r, *_ = jax.lax.fori_loop(0, ITERATIONS, step, state)
        p, *_ = whole(p, x, y, held)
        return p, jnp.where(fine & own_name(p), jnp.sum(r**2), jnp.inf)

    halton = scipy.stats.qmc.Halton(count, seed=0).random(EVERYWHERE)
    spots = jnp.asarray(truth * (1 + np.sinh(WIDE * (2 * halton - 1))))

    def looked(x, y, held, value):
        def at(p):
            p, r, _ = whole(p.at[held].set(value), x, y, held)
            sums = jnp.sum(r**2)
            return p, jnp.where(jnp.isfinite(sums) & own_name(p), sums, jnp.inf)

        params, sums = jax.vmap(at)(spots)
        return params[jax.lax.top_k(-sums, STARTS)[1]]

    own = np.arange(len(lane))
    asked = tuple(map(jnp.asarray, (x[lane], y[lane], which)))
    program = jax.jit(jax.vmap(lambda starts: jax.vmap(one)(starts, *asked)))
    looking = jax.jit(lambda values: jax.lax.map(lambda lane: looked(*lane), (*asked, values), batch_size=64))

    def refit(starts, values):
        starts = np.where(np.isfinite(starts), starts, best[lane])
        starts[:, own, which] = values
        found, sums = map(np.asarray, program(starts))
        least = np.argmin(sums, axis=0)
        return found[least, own], sums[least, own]

    def search(values):
        return np.moveaxis(np.asarray(looking(values)), 1, 0)

    minimum = best[lane]
    truth = np.broadcast_to(truth, minimum.shape)
    return Question(refit, search, minimum, truth, which, side, error[lane, which], goal[lane])


def _solved(matrix, b):
    """The solution (k, m) of a small positive definite system, by elimination."""
    rows = [jnp.concatenate(pair) for pair in zip(matrix, b, strict=True)]
    for i in range(len(rows)):
        rows[i] = rows[i] / rows[i][i]
        rows = [row if j == i else row - row[i] * rows[i] for j, row in enumerate(rows)]
    return jnp.stack([row[len(matrix) :] for row in rows])


def ends(question: Question) -> np.ndarray:
    """(n,) values at which the least sum first passes the goal; infinite where it does not on the grid."""
    q, lanes = question, np.arange(len(question.which))
    values = q.best[lanes, q.which] + q.side * DISTANCES[:, None] * q.error
    params = np.broadcast_to(q.best, (len(values), *q.best.shape)).copy()
    sums = np.full(values.shape, np.inf)

    def improve(i, *starts):
        found, least = q.refit(np.stack(starts), values[i])
        better = least < sums[i]
        params[i], sums[i] = np.where(better[:, None], found, params[i]), np.where(better, least, sums[i])

    for i in range(len(values)):
        improve(i, q.best, q.truth, *q.search(values[i]))
    for way in (1, -1):
        for i in range(1, len(values))[::way]:
            if 0 <= i - way < len(values):
                improve(i, *_onward(params, values, i, way))
    above = ~(sums < q.goal)
    first = np.argmax(above, axis=0)
    closed = above.any(axis=0)
    return np.where(closed, _halved(q, values, params, first), q.side * np.inf)


def _onward(params, values, i, way):
    """Starts at the optimum of the value before, and where the line and the power law through the last two lead."""
    two = i - 2 * way if 0 <= i - 2 * way < len(values) else i
    last, before = params[i - way], params[two]
    share = ((values[i] - values[i - way]) / (values[i - way] - values[two]))[:, None]
    with np.errstate(all="ignore"):
        return last, last + share * (last - before), last * np.abs(last / before) ** share


def _halved(q, values, params, first):
    lanes = np.arange(len(first))
    inner = np.where(first > 0, values[first - 1, lanes], q.best[lanes, q.which])
    near = np.where((first > 0)[:, None], params[first - 1, lanes], q.best)
    outer, far = values[first, lanes], params[first, lanes]
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        at, sums = q.refit(np.stack([near, far, (near + far) / 2, q.best]), middle)
        above = ~(sums < q.goal)
        inner, near = np.where(above, inner, middle), np.where(above[:, None], near, at)
        outer, far = np.where(above, middle, outer), np.where(above[:, None], at, far)
    return (inner + outer) / 2
