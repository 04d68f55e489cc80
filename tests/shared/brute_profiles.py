"""Profiles the slow and obvious way: at every value of a param, refits of the others from many starts, and the least.

The refits are Levenberg and Marquardt's on normal equations, one loop for all lanes, and share no code with jaxfit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ITERATIONS = 40  # of one refit; what is slower goes on where its neighbors start from it
FARTHEST = 100.0  # standard errors; an end beyond counts as open
DISTANCES = np.append(
    np.arange(0.2, 6, 0.2), np.geomspace(6, FARTHEST, 16)
)  # of the grid's values from the minimum, in standard errors
HALVINGS = 8  # of the grid's cell in which the sum passes: to 0.1 % of the distance


class Question(NamedTuple):
    """Profiles of several data sets, all of their params, to both sides; n = sets * K * 2 lanes."""

    refit: Callable  # (starts (s, n, K), held values (n,)) -> the best params (n, K) and sums (n,)
    best: np.ndarray  # (n, K) the minimum
    truth: np.ndarray  # (n, K) what the data were drawn from
    which: np.ndarray  # (n,) the param held
    side: np.ndarray  # (n,) -1 or 1
    error: np.ndarray  # (n,)
    goal: np.ndarray  # (n,) the sum at the end


def ask(predict: Callable, x: np.ndarray, y: np.ndarray, best: np.ndarray, truth: np.ndarray, error: np.ndarray,
        goal: np.ndarray, own_name: Callable = lambda p: True) -> Question:  # fmt: skip
    """Return the profiles of `predict(params (K,), x)` for data y (sets, n), best and error (sets, K), goal (sets,).

    `own_name(params)` is False where a curve has another set of params too, which counts instead: an exchange of two
    terms, or an alias of a frequency.
    """
    sets, count = best.shape
    lane, which, side = (a.ravel() for a in np.meshgrid(np.arange(sets), np.arange(count), [-1.0, 1.0], indexing="ij"))

    def one(start, y, held):
        free = jnp.arange(count) != held

        def linearized(p):
            r = lambda p: predict(p, x) - y  # noqa: E731
            slopes = jax.jacfwd(r)(p) * free[None, :]
            return r(p), jnp.where(jnp.isfinite(slopes), slopes, 0.0)  # inf * 0, where an exponential overflows

        def step(_, state):
            p, r, slopes, units, damping = state
            units = jnp.maximum(units, jnp.sum(slopes**2, axis=0))
            matrix = slopes.T @ slopes + jnp.diag(damping * units + jnp.where(units > 0, 0.0, 1.0))
            new = p - _solved(matrix, slopes.T @ r)
            there, bend = linearized(new)
            good = (jnp.sum(there**2) <= jnp.sum(r**2)) & (bend**2 < 1e200).all()
            damping = jnp.clip(jnp.where(good, damping / 5, damping * 4), 1e-14, 1e14)
            p, r, slopes = (jnp.where(good, a, b) for a, b in ((new, p), (there, r), (bend, slopes)))
            return p, r, slopes, units, damping

        r, slopes = linearized(start)
        fine = jnp.isfinite(r).all()
        state = start, jnp.where(fine, r, 0.0), slopes, jnp.zeros(count), jnp.asarray(1e-3)
        p, r, *_ = jax.lax.fori_loop(0, ITERATIONS, step, state)
        return p, jnp.where(fine & own_name(p), jnp.sum(r**2), jnp.inf)

    rows = jax.vmap(one)
    program = jax.jit(jax.vmap(lambda starts: rows(starts, jnp.asarray(y[lane]), jnp.asarray(which))))

    def refit(starts, values):
        starts = np.where(np.isfinite(starts), starts, best[lane])
        starts[:, own, which] = values
        found, sums = map(np.asarray, program(starts))
        least = np.argmin(sums, axis=0)
        return found[least, own], sums[least, own]

    own = np.arange(len(lane))
    minimum = best[lane]
    truth = np.broadcast_to(truth, minimum.shape)
    return Question(refit, minimum, truth, which, side, error[lane, which], goal[lane])


def _solved(matrix, b):
    """The solution of a small positive definite system, by elimination."""
    rows = [jnp.append(row, value) for row, value in zip(matrix, b, strict=True)]
    for i in range(len(rows)):
        rows[i] = rows[i] / rows[i][i]
        rows = [row if j == i else row - row[i] * rows[i] for j, row in enumerate(rows)]
    return jnp.stack([row[-1] for row in rows])


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
        improve(i, q.best, q.truth)
    for way in (1, -1, 1):
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
