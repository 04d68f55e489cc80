"""Measurements that are no plain least squares: counts, successes, errors in x, outliers, and params in common."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import jaxfit as jf
from benchmarks.agreement import agree
from benchmarks.curves import LMFIT, US, on_cpu
from benchmarks.results import FITS, MILLISECONDS, SPEED, Row, unmeasured
from benchmarks.timing import Seconds, clock, race, spread

MINUIT, ODRPACK, SCIPY = "iminuit", "odrpack", "scipy"
START = {"amplitude": 40.0, "rate": 1.0, "offset": 3.0}
MIDDLE = {"center": 0.0, "slope": 1.0}
TRIALS = 40
LM = jf.optimizers.levenberg_marquardt()


class Sets(NamedTuple):
    """Data sets of one length."""

    x: np.ndarray  # (sets, points)
    y: np.ndarray  # (sets, points)


def counted(count: int, points: int = 50) -> Sets:
    random = np.random.default_rng(0)
    x = np.broadcast_to(np.linspace(0, 5, points), (count, points))
    amplitude, rate, offset = random.uniform([30, 0.7, 2], [60, 2, 5], (count, 3)).T[:, :, None]
    return Sets(x, random.poisson(amplitude * np.exp(-rate * x) + offset).astype(float))


def blurred(count: int, points: int = 30) -> Sets:
    random = np.random.default_rng(1)
    x = np.broadcast_to(np.linspace(0, 5, points), (count, points))
    amplitude, rate, offset = random.uniform([30, 0.7, 2], [60, 2, 5], (count, 3)).T[:, :, None]
    y = amplitude * np.exp(-rate * x) + offset + random.standard_normal((count, points))
    return Sets(x + 0.05 * random.standard_normal((count, points)), y)


def dosed(count: int, points: int = 12) -> Sets:
    """How many of `TRIALS` responded to each dose."""
    random = np.random.default_rng(2)
    x = np.broadcast_to(np.linspace(-3, 3, points), (count, points))
    center, slope = random.uniform([-1, 0.8], [1, 2], (count, 2)).T[:, :, None]
    return Sets(x, random.binomial(TRIALS, 1 / (1 + np.exp(-slope * (x - center)))).astype(float))


def struck(count: int, points: int = 50) -> Sets:
    """Decays of which one point in ten is an outlier."""
    random = np.random.default_rng(3)
    x = np.broadcast_to(np.linspace(0, 5, points), (count, points))
    amplitude, rate, offset = random.uniform([30, 0.7, 2], [60, 2, 5], (count, 3)).T[:, :, None]
    noise = random.standard_normal((count, points)) + 20 * (random.uniform(size=(count, points)) < 0.1)
    return Sets(x, amplitude * np.exp(-rate * x) + offset + noise)


def doubled(count: int, points: int = 50) -> Sets:
    """Sums of two decays to a level: the rates are those of all sets."""
    random = np.random.default_rng(4)
    x = np.broadcast_to(np.linspace(0, 5, points), (count, points))
    fast, slow, offset = random.uniform([1, 1, 0], [3, 3, 1], (count, 3)).T[:, :, None]
    return Sets(x, two_decays(2.5, 0.5, fast, slow, offset, x) + 0.02 * random.standard_normal((count, points)))


def two_decays(quick, slow, first, second, offset, x, exp=np.exp):
    return first * exp(-quick * x) + second * exp(-slow * x) + offset


def decay(p: dict, x: jax.Array) -> jax.Array:
    return p["amplitude"] * jnp.exp(-p["rate"] * x) + p["offset"]


def response(p: dict, x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(p["slope"] * (x - p["center"]))


def shared_decays(p: dict, x: jax.Array) -> jax.Array:
    return two_decays(p["quick"], p["slow"], p["first"], p["second"], p["offset"], x, jnp.exp)


def swept(loss: jf.losses.Loss, start: dict, data: tuple, **how: bool) -> np.ndarray:
    """(sets, 2, k) params and their standard errors."""
    grid = jf.sweep(loss, start, data, optimizer=LM, steps=100)
    errors = jf.standard_errors(grid, **how)
    return np.stack([np.stack([table[f"params.{n}"].values for n in start], 1) for table in (grid.results, errors)], 1)


def counts_by_sweep(sets: Sets) -> np.ndarray:
    return swept(jf.losses.poisson(decay), START, (sets.x[0], jf.Axis("set", sets.y)))


def deviance(x: np.ndarray, y: np.ndarray) -> Callable[[float, float, float], float]:
    """Twice the negative log-likelihood of counts, but for a constant, whose errors are where it has risen by one."""

    def loss(amplitude, rate, offset):
        mean = np.maximum(amplitude * np.exp(-rate * x) + offset, 1e-9)
        return 2 * np.sum(mean - y * np.log(mean))

    return loss


def by_minuit(loss_of: Callable, start: dict, sets: Sets) -> np.ndarray:
    from iminuit import Minuit  # pyright: ignore[reportMissingImports]

    found = []
    for x, y in zip(*sets, strict=True):
        minuit = Minuit(loss_of(x, y), **start)
        minuit.migrad()
        minuit.hesse()
        found.append([np.array(minuit.values), np.array(minuit.errors)])
    return np.array(found)


def counts_by_minuit(sets: Sets) -> np.ndarray:
    return by_minuit(deviance, START, sets)


def successes_by_sweep(sets: Sets) -> np.ndarray:
    trials = np.full(sets.y.shape[1], float(TRIALS))
    return swept(jf.losses.binomial(response), MIDDLE, (sets.x[0], jf.Axis("set", sets.y), trials))


def successes_by_minuit(sets: Sets) -> np.ndarray:
    def deviance(x, y):
        def loss(center, slope):  # log(p) and log(1 - p) of a logistic p, each without loss of digits
            away = slope * (x - center)
            return 2 * np.sum(y * np.logaddexp(0, -away) + (TRIALS - y) * np.logaddexp(0, away))

        return loss

    return by_minuit(deviance, MIDDLE, sets)


def errors_in_x_by_sweep(sets: Sets) -> np.ndarray:
    points = sets.y.shape[1]
    data = jf.Axis("set", sets.x), jf.Axis("set", sets.y), np.ones(points), np.full(points, 0.05)
    return swept(jf.losses.orthogonal_distance(decay), START, data, absolute_sigma=False)


def errors_in_x_by_odrpack(sets: Sets) -> np.ndarray:
    from odrpack import odr_fit  # pyright: ignore[reportMissingImports]

    def f(x, b):
        return b[0] * np.exp(-b[1] * x) + b[2]

    start = np.array(list(START.values()))
    found = [odr_fit(f, x, y, start, weight_x=1 / 0.05**2, weight_y=1.0) for x, y in zip(*sets, strict=True)]
    return np.array([[one.beta, one.sd_beta] for one in found])


def outliers_by_sweep(sets: Sets) -> np.ndarray:
    return swept(jf.losses.cauchy(decay), START, (sets.x[0], jf.Axis("set", sets.y)))


def outliers_by_scipy(sets: Sets) -> np.ndarray:
    def residuals(p, x, y):
        return p[0] * np.exp(-p[1] * x) + p[2] - y

    start = np.array(list(START.values()))
    found = [scipy.optimize.least_squares(residuals, start, loss="cauchy", args=pair).x for pair in zip(*sets)]  # noqa: B905
    return np.array(found)[:, None]


def shared_by_fit(sets: Sets) -> np.ndarray:
    """(2, 2) the rates that all sets share, and their standard errors."""
    ones = np.ones(len(sets.y))
    start = {"quick": 2.0, "slow": 0.7, "sets": {"first": ones, "second": ones, "offset": 0 * ones}}
    loss = jf.losses.joint(sets=jf.losses.each(jf.losses.rss(shared_decays)))
    fit = jf.fit(loss, start, (tuple(sets),), optimizer=LM)
    return np.array([[tree["quick"], tree["slow"]] for tree in (fit.params, jf.standard_errors(fit))])


def shared_by_lmfit(sets: Sets) -> np.ndarray:
    import lmfit

    start = lmfit.Parameters()
    for name, value in ("quick", 2.0), ("slow", 0.7):
        start.add(name, value)
    for i in range(len(sets.y)):
        for name, value in ("first", 1.0), ("second", 1.0), ("offset", 0.0):
            start.add(f"{name}_{i}", value)

    def residuals(params):
        p = params.valuesdict()
        parts = [
            two_decays(p["quick"], p["slow"], p[f"first_{i}"], p[f"second_{i}"], p[f"offset_{i}"], x) - y
            for i, (x, y) in enumerate(zip(*sets, strict=True))
        ]
        return np.concatenate(parts)

    found: Any = lmfit.minimize(residuals, start)
    rates = found.params["quick"], found.params["slow"]
    return np.array([[rate.value for rate in rates], [rate.stderr for rate in rates]])


def cauchy_sums(sets: Sets, params: np.ndarray) -> np.ndarray:
    """(sets,) what the fits with outliers minimize, but for a factor."""
    amplitude, rate, offset = params.T[:, :, None]
    return np.log1p((amplitude * np.exp(-rate * sets.x) + offset - sets.y) ** 2).sum(axis=1)


def against(
    case: str, sets: Sets, ours: Callable, theirs: Callable, peer: str, *, share: int, near: float, quick: bool,
    sums: Callable | None = None,
) -> list[Row]:  # fmt: skip
    """Rows of one case: speed against the peer, which does a share of the sets, and fits a second of both.

    `near` is how many of their own standard errors the params may differ, since the peer stops earlier. Where there are
    several minima, `sums` are what is minimized: ours must not be higher, and sets whose other is are not compared.
    """
    target = on_cpu(low=50)
    if importlib.util.find_spec(peer) is None:
        return [unmeasured(case, peer, SPEED, f"{peer} is not installed", target)]
    count = len(sets.y)
    few = Sets(*(v[: count // share] for v in sets))
    found, other = ours(sets)[: count // share], theirs(few)
    off = (other[:, 0] - found[:, 0]) / found[:, 1]
    if sums is not None:
        higher = sums(few, other[:, 0]) / sums(few, found[:, 0])
        agree(np.minimum(higher, 1), np.ones_like(higher), rtol=1e-6, what=f"{case}, the sums of {peer}")
        off = off[higher < 1.001]
    agree(off, np.zeros_like(off), rtol=0, atol=near, what=f"{case}, {peer}")
    name = f"{peer} ({count // share:,} of them, times {share})"
    contestants = {US: lambda: ours(sets), name: lambda: Seconds(share * clock(lambda: theirs(few)))}
    times = race(contestants, rounds=2 if quick else 5, warm=False)
    return [
        Row(case, name, SPEED, spread(times[name] / times[US]), target),
        *(Row(case, one, FITS, spread(count / times[one])) for one in times),
    ]


def counts(quick: bool) -> list[Row]:
    """Fits of a Poisson likelihood with standard errors: Fisher scoring against MIGRAD and HESSE."""
    count, share = (64, 8) if quick else (20_000, 200)
    case = f"{count:,} decays of 50 counts, 3 params, Poisson, with standard errors"
    return against(case, counted(count), counts_by_sweep, counts_by_minuit, MINUIT, share=share, near=0.05, quick=quick)


def errors_in_x(quick: bool) -> list[Row]:
    """Orthogonal distance regression with standard errors."""
    count, share = (64, 8) if quick else (20_000, 200)
    case = f"{count:,} decays of 30 points with errors in x and y, 3 params, with standard errors"
    return against(
        case, blurred(count), errors_in_x_by_sweep, errors_in_x_by_odrpack, ODRPACK, share=share, near=0.05, quick=quick
    )


def successes(quick: bool) -> list[Row]:
    """Fits of a binomial likelihood with standard errors: Fisher scoring against MIGRAD and HESSE."""
    count, share = (64, 8) if quick else (20_000, 200)
    case = f"{count:,} curves of 12 doses, 2 params, binomial, with standard errors"
    return against(
        case, dosed(count), successes_by_sweep, successes_by_minuit, MINUIT, share=share, near=0.05, quick=quick
    )


def outliers(quick: bool) -> list[Row]:
    """Fits of a robust loss, ours with standard errors, SciPy's without."""
    count, share = (64, 8) if quick else (20_000, 200)
    case = f"{count:,} decays of 50 points with outliers, 3 params, Cauchy's loss"
    return against(
        case, struck(count), outliers_by_sweep, outliers_by_scipy, SCIPY, share=share, near=0.05, quick=quick,
        sums=cauchy_sums,
    )  # fmt: skip


def shared(quick: bool) -> list[Row]:
    """One fit of many data sets, 2 params of all and 3 of each, with standard errors; lmfit's with a dense Jacobian."""
    few, many = doubled(3 if quick else 20), doubled(5 if quick else 1_000)
    (params, errors), (other, others) = shared_by_fit(few), shared_by_lmfit(few)
    agree((other - params) / errors, np.zeros(2), rtol=0, atol=0.05, what="params in common, lmfit")
    agree(errors, others, rtol=0.05, what="errors of params in common, lmfit")
    rounds = 2 if quick else 5
    times = race({US: lambda: shared_by_fit(few), LMFIT: lambda: shared_by_lmfit(few)}, rounds=rounds)
    alone = race({US: lambda: shared_by_fit(many)}, rounds=rounds)[US]
    cases = [f"{len(sets.y):,} sets of 50 points, 2 params in common and 3 of each" for sets in (few, many)]
    return [
        Row(cases[0], LMFIT, SPEED, spread(times[LMFIT] / times[US]), on_cpu(low=50)),
        *(Row(cases[0], one, MILLISECONDS, spread(1e3 * times[one])) for one in times),
        Row(cases[1], US, MILLISECONDS, spread(1e3 * alone), on_cpu(high=1_000)),
    ]
