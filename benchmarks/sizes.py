"""Fits by numbers of params and of points, against the C loop over MINPACK: where jaxfit wins, and where not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from benchmarks import curves, minpack
from benchmarks.agreement import agree
from benchmarks.curves import MINPACK, PIXELS, START, US, decays, on_cpu, spots
from benchmarks.loop import NotBuilt
from benchmarks.minpack import Form
from benchmarks.results import FITS, SPEED, Row, Target, unmeasured
from benchmarks.timing import race, spread

FORMS = {  # by number of params
    1: Form(decay=2), 2: Form(decay=1), 3: Form(decay=1, level=1), 5: Form(peaks=1, level=2),
    8: Form(peaks=2, level=2), 12: Form(peaks=3, level=3),
}  # fmt: skip
SIZES = [  # params, points, sets; and the target
    (1, 50, 40_000, None), (2, 50, 20_000, None), (3, 10, 40_000, None), (3, 50, 20_000, None), (3, 500, 4_000, None),
    (3, 5_000, 400, None), (5, 50, 10_000, None), (8, 50, 5_000, None), (8, 5_000, 100, 1.0), (12, 50, 2_000, None),
]  # fmt: skip


class Sets(NamedTuple):
    """Noisy curves of one form, each with a start near its own params."""

    x: np.ndarray  # (points,), of spots (points, 2)
    y: np.ndarray  # (sets, points)
    starts: np.ndarray  # (sets, k), or (k,) of all


@functools.cache  # one loss a form, so that its programs are compiled once
def loss_of(form: Form) -> jf.losses.Loss:
    return jf.losses.rss(functools.partial(prediction, form))


def prediction(form: Form, p: jax.Array, x: jax.Array) -> jax.Array:
    """Return the curve (points,) of params (k,), as `minpack.c` has it."""
    if form.spot:
        square = (x[:, 0] - p[1]) ** 2 + (x[:, 1] - p[2]) ** 2
        return p[0] * jnp.exp(-square / (2 * p[3] ** 2)) + p[4]
    y, k = jnp.zeros_like(x), 0
    if form.decay == 1:
        y, k = p[0] * jnp.exp(-p[1] * x), 2
    elif form.decay == 2:
        y, k = jnp.exp(-p[0] * x), 1
    for _ in range(form.peaks):
        y, k = y + p[k] * jnp.exp(-(((x - p[k + 1]) / p[k + 2]) ** 2) / 2), k + 3
    for power in range(form.level):
        y, k = y + p[k] * x**power, k + 1
    return y


def curves_of(form: Form, count: int, points: int) -> Sets:
    random, x = np.random.default_rng(0), np.linspace(0, 5, points)
    own: list[tuple[float, float]] = {0: [], 1: [(1, 5), (0.7, 2)], 2: [(0.7, 2)]}[form.decay]
    for i in range(form.peaks):
        middle = 5 * (i + 1) / (form.peaks + 1)
        own += [(2, 5), (middle - 0.2, middle + 0.2), (0.3, 0.5)]
    own += [(0.1, 0.5), (0.1, 0.3), (-0.05, -0.01)][: form.level]
    low, high = np.array(own).T
    truth = random.uniform(low, high, (count, len(own)))
    clean = np.asarray(jax.vmap(lambda p: prediction(form, p, jnp.asarray(x)))(jnp.asarray(truth)))
    return Sets(x, clean + 0.02 * random.standard_normal(clean.shape), truth * random.uniform(0.95, 1.05, truth.shape))


def by_sweep(form: Form, sets: Sets, tolerance: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the params and their standard errors, each (sets, k)."""
    grid = jf.sweep(
        loss_of(form), jf.Axis("set", sets.starts), (sets.x, jf.Axis("set", sets.y)),
        optimizer=jf.optimizers.levenberg_marquardt(tolerance=tolerance), steps=100,
    )  # fmt: skip
    return grid.results["params"].values, jf.standard_errors(grid)["params"].values


def against_c(quick: bool) -> list[Row]:
    """All sizes: params and errors are compared first."""
    return [row for size in SIZES for row in one_size(*size, quick=quick)]


def one_size(k: int, points: int, count: int, goal: float | None, *, quick: bool) -> list[Row]:
    form, count = FORMS[k], 16 if quick else count
    case = f"{count:,} fits of {k} params to {points:,} points, with standard errors"
    target = None if goal is None else on_cpu(low=goal)
    sets = curves_of(form, count, points)
    return race_in_c({case: None}, functools.partial(by_sweep, form, sets), form, sets, target, quick)


def race_in_c(
    cases: dict[str, float | None], ours: Callable, form: Form, sets: Sets, target: Target | None, quick: bool
) -> list[Row]:
    """A race of jaxfit, ours(tolerance), and the C loop, whose tolerance is 1.5e-8 of the sum of squares.

    Args:
      cases: The names of rows, each with jaxfit's tolerance: None for rounding, its default, or a number that leaves no
        more of the way to the minimum than the loop does, which is checked.
      ours: ours(tolerance) -> params and standard errors, each (sets, k).
    """
    try:
        loop = minpack.build()
    except NotBuilt as why:
        return [unmeasured(case, MINPACK, SPEED, why, target) for case in cases]
    run = functools.partial(minpack.fit, loop, form, sets.x, sets.y, sets.starts)
    theirs, contestants = run(), {MINPACK: run}
    if not np.isin(theirs.info, (1, 2, 3, 4)).all():
        raise AssertionError(f"{form}: the C loop did not converge for all sets")
    for case, tolerance in cases.items():
        params, errors = ours(tolerance)
        agree((params, errors), (theirs.params, theirs.errors), rtol=5e-3, atol=1e-3, what=case)
        if tolerance is not None:
            minpack.check_digits(params, theirs, run(tolerance=minpack.ROUNDING), case)
        contestants[case] = functools.partial(ours, tolerance)
    times = race(contestants, rounds=2 if quick else 9, warm=False)
    first, rates = next(iter(cases)), {name: spread(len(sets.y) / taken) for name, taken in times.items()}
    return [
        *(Row(case, MINPACK, SPEED, spread(times[MINPACK] / times[case]), target) for case in cases),
        *(Row(case, US, FITS, rates[case]) for case in cases),
        Row(first, MINPACK, FITS, rates[MINPACK]),
    ]


def as_near(case: str) -> dict[str, float | None]:
    """Return what `race_in_c` takes: a run to rounding, and one that ends as near to the minimum as the loop."""
    return {case: None, f"{case}, no farther from the minimum (tolerance=1e-12)": 1e-12}


def spots_against_c(quick: bool) -> list[Row]:
    """Round spots on 5 x 5 pixels, five params, in float64, with the standard errors."""
    images, starts = spots(64 if quick else 20_000)
    first = np.hstack(
        [starts["height"][:, None], starts["center"], starts["sigma"][:, None], starts["offset"][:, None]]
    )
    sets = Sets(PIXELS, images.astype(float), first.astype(float))

    case = f"{len(images):,} spots of 5 x 5 pixels, 5 params, float64, with standard errors"
    form = Form(spot=1)
    return race_in_c(as_near(case), functools.partial(by_sweep, form, sets), form, sets, on_cpu(low=2), quick)


def decays_against_c(quick: bool) -> list[Row]:
    """Decays to a level from one start, in float64, with the standard errors."""
    data = decays(64 if quick else 20_000)
    form, case = FORMS[3], curves.case_of(*data.y.shape)
    sets = Sets(data.x, data.y, np.array(list(START.values())))

    def ours(tolerance: float | None) -> tuple[np.ndarray, np.ndarray]:
        found = curves.by_sweep(data, tolerance)
        return tuple(np.stack(x, axis=1) for x in zip(*found.values(), strict=True))  # pyright: ignore[reportReturnType]

    return race_in_c(as_near(case), ours, form, sets, on_cpu(low=2), quick)
