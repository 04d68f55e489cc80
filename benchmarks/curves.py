"""Curves fitted by least squares, many at once and one alone: against SciPy's `curve_fit` and lmfit in a loop."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize

import jaxfit as jf
from benchmarks import fresh
from benchmarks.agreement import agree
from benchmarks.results import FITS, MILLISECONDS, SPEED, TIME, Row, Target, unmeasured
from benchmarks.timing import Seconds, clock, race, spread

US, SCIPY, LMFIT = "jaxfit", "scipy.optimize.curve_fit", "lmfit"
MINPACK = "a C loop over MINPACK's lmder"
NAMES = "amplitude", "rate", "offset"
MODEL = jf.models.exponential_decay + jf.models.constant
START = {"amplitude": 1.0, "rate": 1.0, "offset": 0.0}


class Sets(NamedTuple):
    """Noisy decays to a level."""

    x: np.ndarray  # (points,)
    y: np.ndarray  # (sets, points)


def decays(count: int, points: int = 50) -> Sets:
    random = np.random.default_rng(0)
    x = np.linspace(0, 5, points)
    amplitude, rate, offset = random.uniform([1, 0.7, 0], [5, 2, 1], (count, 3)).T[:, :, None]
    return Sets(x, amplitude * np.exp(-rate * x[None]) + offset + 0.05 * random.standard_normal((count, points)))


def decay(x: np.ndarray, amplitude: float, rate: float, offset: float) -> np.ndarray:
    return amplitude * np.exp(-rate * x) + offset


def fitted(sets: Sets, tolerance: float | None = None, **keywords: Any) -> jf.Grid:
    axis = jf.Axis("set", sets.y)
    optimizer = jf.optimizers.levenberg_marquardt(tolerance=tolerance)
    return jf.sweep(jf.losses.rss(MODEL), START, (sets.x, axis), optimizer=optimizer, steps=100, **keywords)


def by_sweep(sets: Sets, tolerance: float | None = None, **keywords: Any) -> dict[str, Any]:
    """Params and their standard errors."""
    grid = fitted(sets, tolerance, **keywords)
    errors = jf.standard_errors(grid)
    params = grid.results
    return {name: (params[f"params.{name}"].values, errors[f"params.{name}"].values) for name in NAMES}


def by_scipy(sets: Sets) -> dict[str, Any]:
    found = [scipy.optimize.curve_fit(decay, sets.x, y, list(START.values())) for y in sets.y]
    params, covariances = (np.stack(column) for column in zip(*found, strict=True))
    return {name: (params[:, i], np.sqrt(covariances[:, i, i])) for i, name in enumerate(NAMES)}


def by_lmfit(sets: Sets) -> dict[str, Any]:
    import lmfit

    model = lmfit.Model(decay)
    start = model.make_params(**START)  # pyright: ignore[reportArgumentType]
    found = [model.fit(y, start, x=sets.x).params for y in sets.y]
    return {name: tuple(np.array([[p[name].value, p[name].stderr] for p in found]).T) for name in NAMES}


def case_of(count: int, points: int) -> str:
    return f"{count:,} decays of {points:,} points, 3 params, with standard errors"


def a_share(run: Callable[[Sets], Any], sets: Sets, share: int) -> Callable[[], Seconds]:
    """A loop over the first few of the sets, timed as if over all."""
    few = Sets(sets.x, sets.y[: len(sets.y) // share])
    return lambda: Seconds(share * clock(lambda: run(few)))


def many(quick: bool) -> list[Row]:
    """20,000 data sets of 50 points, three params each, in float64, with the standard errors."""
    count, shares = (64, {SCIPY: 4, LMFIT: 16}) if quick else (20_000, {SCIPY: 20, LMFIT: 200})
    case = case_of(count, 50)
    sets, loops, targets = decays(count), {SCIPY: by_scipy}, {SCIPY: on_cpu(low=15), LMFIT: on_cpu(low=150)}
    rows = []
    try:
        import lmfit  # noqa: F401  # pyright: ignore[reportUnusedImport]

        loops[LMFIT] = by_lmfit
    except ImportError:
        rows.append(unmeasured(case, LMFIT, SPEED, "lmfit is not installed", targets[LMFIT]))
    ours = by_sweep(sets)
    names = {loop: f"{loop} ({count // shares[loop]:,} of them, times {shares[loop]})" for loop in loops}
    for loop, run in loops.items():
        n = count // shares[loop]
        agree(jax.tree.map(lambda v, n=n: v[:n], ours), run(Sets(sets.x, sets.y[:n])), what=f"{case}, {loop}")
    contestants: dict[str, Callable] = {US: lambda: by_sweep(sets)}
    contestants |= {names[loop]: a_share(run, sets, shares[loop]) for loop, run in loops.items()}
    times = race(contestants, rounds=2 if quick else 5, warm=False)
    return [
        *(Row(case, names[x], SPEED, spread(times[names[x]] / times[US]), targets[x]) for x in loops),
        *rows,
        *(Row(case, name, FITS, spread(count / times[name])) for name in times),
    ]


def one(quick: bool) -> list[Row]:
    """Warm fits of 50 points, one after another, as a loop over data sets makes them."""
    sets, count = decays(1), 2 if quick else 50
    case, ours = "one decay of 50 points, 3 params", lambda: jf.curve_fit(MODEL, START, (sets.x, sets.y[0]))
    found, peer = ours(), by_scipy(sets)
    agree({n: found.params[n] for n in NAMES}, {n: peer[n][0][0] for n in NAMES}, what=case)
    case += f": the mean of {count} calls in a row"
    contestants = {US: lambda: [ours() for _ in range(count)], SCIPY: lambda: [by_scipy(sets) for _ in range(count)]}
    times = race(contestants, rounds=2 if quick else 11)
    return [
        Row(case, SCIPY, TIME, spread(times[US] / times[SCIPY])),
        *(Row(case, name, MILLISECONDS, spread(1e3 * times[name] / count), on_cpu(high=2) if name == US else None)
          for name in times),
    ]  # fmt: skip


def process(quick: bool) -> list[Row]:
    """A process that fits one decay of 50 points and prints the report, imports and all."""
    case, target = "a process: a fit of one decay and its printed report", on_cpu(high=1)
    try:
        theirs = fresh.run("reporting", "lmfit")
    except subprocess.CalledProcessError:
        return [unmeasured(case, LMFIT, TIME, "lmfit is not installed", target)]
    agree(np.array(fresh.run("reporting", US)), np.array(theirs), what=case)
    calls: dict[str, Callable] = {name: functools.partial(fresh.whole, "reporting", name) for name in (US, LMFIT)}
    with tempfile.TemporaryDirectory() as folder:
        fresh.run("reporting", US, folder)
        calls["again"] = functools.partial(fresh.whole, "reporting", US, folder)
        times = race(calls, rounds=1 if quick else 9, warm=False)
    return [
        Row(case, LMFIT, TIME, spread(times[US] / times[LMFIT]), target),
        Row(f"{case}, a second time by jf.cache", LMFIT, TIME, spread(times["again"] / times[LMFIT]), on_cpu(high=0.9)),
    ]


SPOT = jf.models.gaussian_2d + jf.models.constant
PIXELS = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), axis=-1).reshape(-1, 2)


def spots(count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images (count, 25) of round spots in noise, and a start near each."""
    random = np.random.default_rng(0)
    truth = {
        "height": random.uniform(300, 700, count), "center": random.uniform(1.5, 2.5, (count, 2)),
        "sigma": random.uniform(0.9, 1.3, count), "offset": random.uniform(5, 15, count),
    }  # fmt: skip
    square = np.sum((PIXELS[None] - truth["center"][:, None]) ** 2, axis=-1)
    clean = truth["height"][:, None] * np.exp(-square / (2 * truth["sigma"][:, None] ** 2)) + truth["offset"][:, None]
    starts = {name: value * random.uniform(0.8, 1.2, value.shape) for name, value in truth.items()}
    images = clean + 10 * random.standard_normal(clean.shape)
    return images.astype(np.float32), {name: value.astype(np.float32) for name, value in starts.items()}


def spot(x: np.ndarray, height: float, first: float, second: float, sigma: float, offset: float) -> np.ndarray:
    return height * np.exp(-((x[:, 0] - first) ** 2 + (x[:, 1] - second) ** 2) / (2 * sigma**2)) + offset


def spots_by_sweep(images: np.ndarray, starts: dict[str, np.ndarray]) -> jf.Grid:
    start = {name: jf.Axis("spot", value) for name, value in starts.items()}
    return jf.sweep(
        jf.losses.rss(SPOT), start, (PIXELS.astype(np.float32), jf.Axis("spot", images)), steps=10,
        optimizer=jf.optimizers.levenberg_marquardt(tolerance=1e-4), precision="float32",
    )  # fmt: skip


def spots_by_scipy(images: np.ndarray, starts: dict[str, np.ndarray]) -> np.ndarray:
    """(count, 2) centers."""
    return np.stack([
        scipy.optimize.curve_fit(spot, PIXELS, image, np.hstack(start), ftol=1e-4)[0][1:3]
        for image, *start in zip(images.astype(float), *(v.astype(float) for v in starts.values()), strict=True)
    ])  # fmt: skip


def localization(quick: bool) -> list[Row]:
    """The problem of Gpufit: a round Gaussian of five params on 5 x 5 pixels, in float32, at most 10 steps.

    Gpufit and SciPy stop when the sum of squares changes by less than 1e-4 of itself, jaxfit where the next step would.
    Source: Przybylski and others (2017), doi:10.1038/s41598-017-15313-9.
    """
    count, share = (64, 4) if quick else (20_000, 20)
    if jax.default_backend() != "cpu" and not quick:
        count, share = 1_000_000, 1_000
    case, few = f"{count:,} spots of 5 x 5 pixels, 5 params, float32, at most 10 steps", count // share
    images, starts = spots(count)
    some = images[:few], {name: value[:few] for name, value in starts.items()}
    ours = spots_by_sweep(images, starts).results["params.center"].values[:few]
    agree(ours, spots_by_scipy(*some), rtol=0, atol=5e-3, what=case)
    peer = f"{SCIPY} ({few:,} of them, times {share})"
    contestants = {
        US: lambda: spots_by_sweep(images, starts),
        peer: lambda: Seconds(share * clock(lambda: spots_by_scipy(*some))),
    }
    times = race(contestants, rounds=2 if quick else 5, warm=False)
    return [
        Row(case, peer, SPEED, spread(times[peer] / times[US])),
        *(Row(case, name, FITS, spread(count / times[name])) for name in times),
    ]


def on_cpu(**goal: float) -> Target | None:
    return Target(**goal) if jax.default_backend() == "cpu" else None
