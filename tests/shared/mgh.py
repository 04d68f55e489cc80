"""The least-squares problems of More, Garbow and Hillstrom, "Testing Unconstrained Optimization Software" (1981).

ACM Transactions on Mathematical Software 7(1), 17-41, doi:10.1145/355934.355936: all 35, in their order, of the sizes
whose least values are printed there. Each is the sum of squares of its residuals.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.shared import nist


class MGH(NamedTuple):
    """A sum of squares: where to start, and what it may come down to."""

    residuals: Callable  # params (n,) -> (m,)
    start: np.ndarray  # (n,)
    least: tuple[float, ...]  # the least value, then those of other places where a run may end, as printed (six digits)


def starts(problem: MGH) -> list[np.ndarray]:
    """The start, and ten and a hundred times it, as the set has them; a start at zero has no others."""
    return [factor * problem.start for factor in ((1, 10, 100) if problem.start.any() else (1,))]


def loss_of(residuals: Callable) -> Callable:
    return lambda x: jnp.sum(residuals(x) ** 2)


@functools.cache
def derivatives(residuals: Callable) -> Callable:
    """Return the program of the sum of squares, its gradient and its Hessian."""
    loss = loss_of(residuals)
    return jax.jit(lambda x: (loss(x), jax.grad(loss)(x), jax.hessian(loss)(x)))


def is_minimum(problem: MGH, params: np.ndarray) -> bool:
    """Whether the gradient is at rounding and no curvature of the loss is negative, by JAX; or the loss is zero.

    Rounding the params, by eps of themselves, rounds residuals and so the loss; what a gradient promises below that is
    not seen. With h the loss and s = p |H| p / 2 that is some eps (h + 2 sqrt(h s) + eps s).
    """

    with jax.enable_x64(True):
        point = jnp.asarray(params)
        height, gradient, hessian = map(np.asarray, derivatives(problem.residuals)(point))
    if problem.least[0] == 0 and height < 1e-18:
        return True
    sizes = np.sqrt(np.abs(np.diag(hessian)))
    sizes = np.where(sizes > 0, sizes, 1)  # along a flat direction the gradient itself is at rounding
    scaled, bends = gradient / sizes, np.linalg.eigvalsh(hessian / np.outer(sizes, sizes))
    own, eps = np.abs(point), np.finfo(float).eps
    size = own @ np.abs(hessian) @ own / 2
    blur = 16 * eps * (height + 2 * np.sqrt(height * size) + eps * size)
    return bends[0] > -1e-8 and scaled @ scaled < max(1e-12 * height, 2 * blur)


def of_many(one: Callable) -> Callable:
    """Make a residual of (params, *row) a function of the rows, which returns the residuals of the params."""

    def build(*rows):
        return lambda x: jax.vmap(lambda *row: one(x, *row))(*rows)

    return build


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def freudenstein_roth(x):
    first = -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1]
    return jnp.stack([first, -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


def powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x):
    return jnp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x):
    return jnp.stack([y - x[0] * (1 - x[1] ** i) for i, y in ((1, 1.5), (2, 2.25), (3, 2.625))])


@of_many
def jennrich_sampson(x, i):
    return 2 + 2 * i - (jnp.exp(i * x[0]) + jnp.exp(i * x[1]))


def helical_valley(x):
    turn = jnp.arctan(x[1] / x[0]) / (2 * np.pi) + jnp.where(x[0] > 0, 0, 0.5)
    return jnp.stack([10 * (x[2] - 10 * turn), 10 * (jnp.hypot(x[0], x[1]) - 1), x[2]])


@of_many
def bard(x, u, y):
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + jnp.minimum(u, v) * x[2]))


@of_many
def gaussian(x, t, y):
    return x[0] * jnp.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


@of_many
def meyer(x, t, y):
    return x[0] * jnp.exp(x[1] / (t + x[2])) - y


@of_many
def gulf(x, t):
    """With |y - x2|, where the paper has a misprint: its minimizer (50, 25, 1.5) is right."""
    y = 25 + (-50 * jnp.log(t)) ** (2 / 3)
    return jnp.exp(-(jnp.abs(y - x[1]) ** x[2]) / x[0]) - t


@of_many
def box(x, i):
    t = i / 10
    return jnp.exp(-t * x[0]) - jnp.exp(-t * x[1]) - x[2] * (jnp.exp(-t) - jnp.exp(-i))


def powell_singular(x):
    a, b, c, d = x.reshape(-1, 4).T
    parts = a + 10 * b, np.sqrt(5) * (c - d), (b - 2 * c) ** 2, np.sqrt(10) * (a - d) ** 2
    return jnp.stack(parts, axis=1).ravel()


def wood(x):
    return jnp.stack(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            np.sqrt(90) * (x[3] - x[2] ** 2),
            1 - x[2],
            np.sqrt(10) * (x[1] + x[3] - 2),
            (x[1] - x[3]) / np.sqrt(10),
        ]
    )


@of_many
def kowalik_osborne(x, u, y):
    return y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


@of_many
def brown_dennis(x, i):
    t = i / 5
    return (x[0] + t * x[1] - jnp.exp(t)) ** 2 + (x[2] + x[3] * jnp.sin(t) - jnp.cos(t)) ** 2


@of_many
def osborne_1(x, t, y):
    return y - (x[0] + x[1] * jnp.exp(-t * x[3]) + x[2] * jnp.exp(-t * x[4]))


@of_many
def biggs(x, i):
    t = i / 10
    y = jnp.exp(-t) - 5 * jnp.exp(-i) + 3 * jnp.exp(-4 * t)
    return x[2] * jnp.exp(-t * x[0]) - x[3] * jnp.exp(-t * x[1]) + x[5] * jnp.exp(-t * x[4]) - y


@of_many
def osborne_2(x, t, y):
    peaks = x[1:4] * jnp.exp(-((t - x[8:11]) ** 2) * x[5:8])
    return y - (x[0] * jnp.exp(-t * x[4]) + jnp.sum(peaks))


def watson(x):
    t = np.arange(1, 30) / 29
    powers = t[:, None] ** np.arange(len(x))[None, :]
    slopes = np.arange(1, len(x))[None, :] * powers[:, :-1]
    return jnp.concatenate([slopes @ x[1:] - (powers @ x) ** 2 - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def extended_rosenbrock(x):
    return jax.vmap(rosenbrock)(x.reshape(-1, 2)).ravel()


def penalty_1(x):
    return jnp.concatenate([np.sqrt(1e-5) * (x - 1), jnp.sum(x**2)[None] - 0.25])


def penalty_2(x):
    n, grown = len(x), jnp.exp(x / 10)
    i = np.arange(2, n + 1)
    first = grown[1:] + grown[:-1] - (np.exp(i / 10) + np.exp((i - 1) / 10))
    second = grown[1:] - np.exp(-0.1)
    last = jnp.sum(np.arange(n, 0, -1) * x**2) - 1
    return jnp.concatenate([x[:1] - 0.2, np.sqrt(1e-5) * first, np.sqrt(1e-5) * second, last[None]])


def variably_dimensioned(x):
    together = jnp.sum(np.arange(1, len(x) + 1) * (x - 1))
    return jnp.concatenate([x - 1, together[None], together[None] ** 2])


def trigonometric(x):
    n, i = len(x), np.arange(1, len(x) + 1)
    return n - jnp.sum(jnp.cos(x)) + i * (1 - jnp.cos(x)) - jnp.sin(x)


def brown_almost_linear(x):
    return jnp.concatenate([x[:-1] + jnp.sum(x) - (len(x) + 1), jnp.prod(x)[None] - 1])


def discrete_boundary_value(x):
    h = 1 / (len(x) + 1)
    t, wide = h * np.arange(1, len(x) + 1), jnp.pad(x, 1)
    return 2 * x - wide[:-2] - wide[2:] + h**2 * (x + t + 1) ** 3 / 2


def discrete_integral_equation(x):
    h = 1 / (len(x) + 1)
    t = h * np.arange(1, len(x) + 1)
    kernel = np.where(t[None, :] <= t[:, None], (1 - t[:, None]) * t[None, :], t[:, None] * (1 - t[None, :]))
    return x + h / 2 * (kernel @ (x + t + 1) ** 3)


def broyden_tridiagonal(x):
    wide = jnp.pad(x, 1)
    return (3 - 2 * x) * x - wide[:-2] - 2 * wide[2:] + 1


def broyden_banded(x):
    apart = np.arange(len(x))[None, :] - np.arange(len(x))[:, None]
    near = np.where((-5 <= apart) & (apart <= 1) & (apart != 0), 1.0, 0.0)
    return x * (2 + 5 * x**2) + 1 - near @ (x * (1 + x))


def linear_full_rank(x, m=20):
    return jnp.pad(x, (0, m - len(x))) - 2 / m * jnp.sum(x) - 1


def linear_rank_one(x, m=20):
    return np.arange(1, m + 1) * jnp.sum(np.arange(1, len(x) + 1) * x) - 1


def linear_rank_one_with_zeros(x, m=20):
    """Without the first and the last row and column, which are zero but for the -1."""
    inner = np.arange(1, m - 1) * jnp.sum(np.arange(2, len(x)) * x[1:-1]) - 1
    return jnp.concatenate([-jnp.ones(1, x.dtype), inner, -jnp.ones(1, x.dtype)])


def chebyquad(x):
    """Means of the shifted Chebyshev polynomials of degree 1 to n, less their integrals over [0, 1]."""
    before, now, rows = jnp.ones_like(x), 2 * x - 1, []
    for i in range(1, len(x) + 1):
        rows.append(jnp.mean(now) + (1 / (i**2 - 1) if i % 2 == 0 else 0))
        before, now = now, 2 * (2 * x - 1) * now - before
    return jnp.stack(rows)


BARD = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
GAUSSIAN = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989]
OSBORNE_2 = [
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606,
    0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423,
    0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
    0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098,
    0.054,
]  # fmt: skip
PUBLISHED = {name: nist.read()[name].data for name in ("MGH09", "MGH10", "MGH17")}  # three that NIST certifies too


def count(m):
    return np.arange(1.0, m + 1)


def grid(n):
    return count(n) / (n + 1)


def problem(residuals, start, *least):
    return MGH(residuals, np.asarray(start, float), least)


PROBLEMS = {
    "Rosenbrock": problem(rosenbrock, [-1.2, 1], 0.0),
    "Freudenstein-Roth": problem(freudenstein_roth, [0.5, -2], 0.0, 48.9842),
    "Powell badly scaled": problem(powell_badly_scaled, [0, 1], 0.0),
    "Brown badly scaled": problem(brown_badly_scaled, [1, 1], 0.0),
    "Beale": problem(beale, [1, 1], 0.0),
    "Jennrich-Sampson": problem(jennrich_sampson(count(10)), [0.3, 0.4], 124.362),
    "helical valley": problem(helical_valley, [-1, 0, 0], 0.0),
    "Bard": problem(bard(count(15), np.array(BARD)), [1, 1, 1], 8.21487e-3, 17.4286),
    "Gaussian": problem(gaussian((8 - count(15)) / 2, np.array(GAUSSIAN + GAUSSIAN[-2::-1])), [0.4, 1, 0], 1.12793e-8),
    "Meyer": problem(meyer(*PUBLISHED["MGH10"]), [0.02, 4000, 250], 87.9458),
    "Gulf": problem(gulf(count(99) / 100), [5, 2.5, 0.15], 0.0),
    "Box": problem(box(count(10)), [0, 10, 20], 0.0),
    "Powell singular": problem(powell_singular, [3, -1, 0, 1], 0.0),
    "Wood": problem(wood, [-3, -1, -3, -1], 0.0),
    "Kowalik-Osborne": problem(kowalik_osborne(*PUBLISHED["MGH09"]), [0.25, 0.39, 0.415, 0.39], 3.07505e-4, 1.02734e-3),
    "Brown-Dennis": problem(brown_dennis(count(20)), [25, 5, -5, -1], 85822.2),
    "Osborne 1": problem(osborne_1(*PUBLISHED["MGH17"]), [0.5, 1.5, -1, 0.01, 0.02], 5.46489e-5),
    # The second is a saddle, where x1 = x5 and x3 = x6: a run from this start, which has x1 = x5 too, may stay there.
    "Biggs": problem(biggs(count(13)), [1, 2, 1, 1, 1, 1], 0.0, 5.65565e-3),
    "Osborne 2": problem(
        osborne_2(np.arange(65) / 10, np.array(OSBORNE_2)),
        [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5],
        4.01377e-2,
    ),
    "Watson 6": problem(watson, np.zeros(6), 2.28767e-3),
    "Watson 9": problem(watson, np.zeros(9), 1.39976e-6),
    "Watson 12": problem(watson, np.zeros(12), 4.72238e-10),
    "extended Rosenbrock": problem(extended_rosenbrock, [-1.2, 1] * 5, 0.0),
    "extended Powell singular": problem(powell_singular, [3, -1, 0, 1] * 3, 0.0),
    "Penalty I 4": problem(penalty_1, count(4), 2.24997e-5),
    "Penalty I 10": problem(penalty_1, count(10), 7.08765e-5),
    "Penalty II 4": problem(penalty_2, [0.5] * 4, 9.37629e-6),
    "Penalty II 10": problem(penalty_2, [0.5] * 10, 2.93660e-4),
    "variably dimensioned": problem(variably_dimensioned, 1 - count(10) / 10, 0.0),
    "trigonometric": problem(trigonometric, [0.1] * 10, 0.0, 2.79506e-5, 4.21863e-5),  # the last is not printed
    "Brown almost linear": problem(brown_almost_linear, [0.5] * 10, 0.0, 1.0),
    "discrete boundary value": problem(discrete_boundary_value, grid(10) * (grid(10) - 1), 0.0),
    "discrete integral equation": problem(discrete_integral_equation, grid(10) * (grid(10) - 1), 0.0),
    "Broyden tridiagonal": problem(broyden_tridiagonal, [-1] * 10, 0.0),
    "Broyden banded": problem(broyden_banded, [-1] * 10, 0.0),
    "linear, full rank": problem(linear_full_rank, [1] * 10, 10.0),
    "linear, rank one": problem(linear_rank_one, [1] * 10, 20 * 19 / (2 * 41)),
    "linear, rank one with zeros": problem(linear_rank_one_with_zeros, [1] * 10, (400 + 60 - 6) / (2 * 37)),
    # The second of ten is printed as its least.
    **{
        f"Chebyquad {n}": problem(chebyquad, grid(n), *{8: [3.51687e-3], 10: [4.77271e-3, 6.50395e-3]}.get(n, [0.0]))
        for n in range(1, 11)
    },
}
