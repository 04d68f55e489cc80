"""Measurements that are no plain least squares, many at once: counts against iminuit, errors in x against odrpack."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from benchmarks.agreement import agree
from benchmarks.curves import US, on_cpu
from benchmarks.results import FITS, SPEED, Row, unmeasured
from benchmarks.timing import Seconds, clock, race, spread

MINUIT, ODRPACK = "iminuit", "odrpack"
START = {"amplitude": 40.0, "rate": 1.0, "offset": 3.0}


class Sets(NamedTuple):
    """Decays to a level."""

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


def decay(p: dict, x: jax.Array) -> jax.Array:
    return p["amplitude"] * jnp.exp(-p["rate"] * x) + p["offset"]


def swept(loss: jf.losses.Loss, data: tuple, **how: bool) -> np.ndarray:
    """(sets, 2, 3) params and their standard errors."""
    grid = jf.sweep(loss, START, data, optimizer=jf.optimizers.levenberg_marquardt(), steps=100)
    errors = jf.standard_errors(grid, **how)
    return np.stack([np.stack([table[f"params.{n}"].values for n in START], 1) for table in (grid.results, errors)], 1)


def counts_by_sweep(sets: Sets) -> np.ndarray:
    return swept(jf.losses.poisson(decay), (sets.x[0], jf.Axis("set", sets.y)))


def deviance(x: np.ndarray, y: np.ndarray) -> Callable[[float, float, float], float]:
    """Twice the negative log-likelihood of counts, but for a constant, whose errors are where it has risen by one."""

    def loss(amplitude, rate, offset):
        mean = np.maximum(amplitude * np.exp(-rate * x) + offset, 1e-9)
        return 2 * np.sum(mean - y * np.log(mean))

    return loss


def counts_by_minuit(sets: Sets) -> np.ndarray:
    from iminuit import Minuit  # pyright: ignore[reportMissingImports]

    found = []
    for x, y in zip(*sets, strict=True):
        minuit = Minuit(deviance(x, y), **START)
        minuit.migrad()
        minuit.hesse()
        found.append([np.array(minuit.values), np.array(minuit.errors)])
    return np.array(found)


def errors_in_x_by_sweep(sets: Sets) -> np.ndarray:
    points = sets.y.shape[1]
    data = jf.Axis("set", sets.x), jf.Axis("set", sets.y), np.ones(points), np.full(points, 0.05)
    return swept(jf.losses.orthogonal_distance(decay), data, absolute_sigma=False)


def errors_in_x_by_odrpack(sets: Sets) -> np.ndarray:
    from odrpack import odr_fit  # pyright: ignore[reportMissingImports]

    def f(x, b):
        return b[0] * np.exp(-b[1] * x) + b[2]

    start = np.array(list(START.values()))
    found = [odr_fit(f, x, y, start, weight_x=1 / 0.05**2, weight_y=1.0) for x, y in zip(*sets, strict=True)]
    return np.array([[one.beta, one.sd_beta] for one in found])


def against(
    case: str, sets: Sets, ours: Callable, theirs: Callable, peer: str, *, share: int, near: float, quick: bool
) -> list[Row]:
    """Rows of one case: speed against the peer, which does a share of the sets, and fits a second of both.

    `near` is how many of their own standard errors the params may differ, since the peer stops earlier.
    """
    target = on_cpu(low=50)
    if importlib.util.find_spec(peer) is None:
        return [unmeasured(case, peer, SPEED, f"{peer} is not installed", target)]
    count = len(sets.y)
    few = Sets(*(v[: count // share] for v in sets))
    found, other = ours(sets)[: count // share], theirs(few)
    off = (other[:, 0] - found[:, 0]) / found[:, 1]
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
