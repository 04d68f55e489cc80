"""The two lines that most cases fit, as jaxfit's calls and as arguments for the peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optax

import jaxfit as jf

LOSS = jf.losses.mse(jf.models.line)
RATE = 4e-4  # for the blood pressure; its limit is 4.2e-4
SLOPE, INTERCEPT = 0.0, 139.0


def single(data: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(x.astype(np.float32) for x in data)


def blood_pressure() -> tuple[np.ndarray, ...]:
    return single(jf.datasets.blood_pressure())


def thermometer() -> tuple[np.ndarray, ...]:
    """The readings divided by ten, as the book has them before it fits; learning rates up to 0.035 are stable."""
    reading, celsius = jf.datasets.thermometer()
    return single((0.1 * reading, celsius))


def fit_of(steps: int, **keywords: Any) -> Callable[[], jf.Fit]:
    """The blood pressure's line by gradient descent, as a call to be timed."""
    data = blood_pressure()

    def call():
        optimizer = jf.optimizer(optax.sgd, learning_rate=RATE)
        return jf.fit(LOSS, {"w": SLOPE, "b": INTERCEPT}, data, optimizer=optimizer, steps=steps, **keywords)

    return call


def own_fit() -> dict:
    """The same run for a peer."""
    w, b, rate = np.asarray([SLOPE, INTERCEPT, RATE], np.float32)
    return {"params": {"w": w, "b": b}, "rates": {"learning_rate": rate}}


def starts(side: int) -> np.ndarray:
    return np.linspace(-3, 3, side, dtype=np.float32)


def rates(side: int, low: float = 1e-4, high: float = 1e-2) -> np.ndarray:
    return np.geomspace(low, high, side, dtype=np.float32)


def sweep_of(
    side: int, steps: int, factory: Callable = optax.sgd, *, high: float = 1e-2, table: bool = True, **keywords: Any
) -> Callable[[], jf.Grid]:
    """The thermometer's line for side x side starts and learning rates, as a call to be timed.

    `table`: whether the call makes the labelled table of the results, too, as it does for those who look at it.
    """
    data = thermometer()

    def call():
        w = jf.Axis("w0", starts(side))
        optimizer = jf.optimizer(factory, learning_rate=jf.Axis("learning_rate", rates(side, high=high)))
        grid = jf.sweep(LOSS, {"w": w, "b": 0.0}, data, optimizer=optimizer, steps=steps, **keywords)
        assert not table or grid.results is not None
        return grid

    return call


def own_lanes(side: int, *, high: float = 1e-2) -> dict:
    """The same lanes for a peer, in the same order: the learning rate runs fastest."""
    w, rate = (x.ravel() for x in np.meshgrid(starts(side), rates(side, high=high), indexing="ij"))
    return {"params": {"w": w, "b": np.zeros_like(w)}, "rates": {"learning_rate": rate}}


def ends(grid: jf.Grid) -> dict:
    """A grid's results as the peers give them."""
    results = grid.results
    params = {name: results[f"params.{name}"].values.ravel() for name in ("w", "b")}
    return {"params": params, "loss": results.loss.values.ravel()}
