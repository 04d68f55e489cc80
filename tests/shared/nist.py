"""The certified problems of NIST: nonlinear regression, 27 data sets with two starts each (NIST StRD)."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf

NONE = jf.Record(what=())
PI = 3.141592653589793238462643383279


def rational(top, bottom):
    """A quotient of polynomials with `top` and `bottom` params, 1 leading below."""

    def predict(b, x):
        above = sum(b[i] * x**i for i in range(top))
        return above / (1 + sum(b[top + i] * x ** (i + 1) for i in range(bottom)))

    return predict


def exponentials(b, x):
    return b[0] * jnp.exp(-b[1] * x) + b[2] * jnp.exp(-b[3] * x) + b[4] * jnp.exp(-b[5] * x)


def two_peaks(b, x):
    first = b[2] * jnp.exp(-(((x - b[3]) / b[4]) ** 2))
    return b[0] * jnp.exp(-b[1] * x) + first + b[5] * jnp.exp(-(((x - b[6]) / b[7]) ** 2))


def seasons(b, x):
    def wave(period, a, c):
        return a * jnp.cos(2 * PI * x / period) + c * jnp.sin(2 * PI * x / period)

    return b[0] + wave(12, b[1], b[2]) + wave(b[3], b[4], b[5]) + wave(b[6], b[7], b[8])


def saturating(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def decay(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


MODELS = {
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": saturating,
    "Chwirut1": decay,
    "Chwirut2": decay,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "ENSO": seasons,
    "Eckerle4": lambda b, x: b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Gauss1": two_peaks,
    "Gauss2": two_peaks,
    "Gauss3": two_peaks,
    "Hahn1": rational(4, 3),
    "Kirby2": rational(3, 2),
    "Lanczos1": exponentials,
    "Lanczos2": exponentials,
    "Lanczos3": exponentials,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH10": lambda b, x: b[0] * jnp.exp(b[1] / (x + b[2])),
    "MGH17": lambda b, x: b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4]),
    "Misra1a": saturating,
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[:, 0] * jnp.exp(-b[2] * x[:, 1]),  # of log(y)
    "Rat42": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)),
    "Rat43": lambda b, x: b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / PI,
    "Thurber": rational(4, 3),
}


class Certified(NamedTuple):
    predict: object
    starts: np.ndarray  # (2, k)
    data: tuple
    params: np.ndarray  # (k,)
    errors: np.ndarray  # (k,) standard deviations
    rss: float


def read() -> dict[str, Certified]:
    stored = json.loads((Path(__file__).parent / "nist.json").read_text())["problems"]
    return {name: _problem(name, one) for name, one in stored.items()}


def _problem(name: str, one: dict) -> Certified:
    x, y, starts = np.array(one["x"]), np.array(one["y"]), np.array(one["starts"])
    y = np.log(y) if name == "Nelson" else y
    return Certified(MODELS[name], starts, (x, y), np.array(one["params"]), np.array(one["errors"]), one["rss"])


def digits(found, certified) -> float:
    """The least log relative error over the params, from 0 to 11, as many as are certified."""
    found = np.asarray(found, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        lre = -np.log10(np.abs(found - certified) / np.abs(certified))
    return float(np.clip(np.nan_to_num(lre, nan=0.0, posinf=11.0), 0, 11).min())


def table(optimizer, precision: str = "float64", steps: int = 1000, names=None) -> list[tuple]:
    """Of each run: the problem, the start, the status, the steps, and the right digits."""
    rows = []
    for name, one in read().items():
        if names is not None and name not in names:
            continue
        loss = jf.losses.rss(one.predict)
        for i, start in enumerate(one.starts):  # a list: each param in its own units
            run = jf.fit(
                loss, list(start), one.data, optimizer=optimizer, steps=steps, precision=precision, record=NONE
            )
            rows.append((name, i + 1, run.status, run.steps, digits(run.params, one.params)))
    return rows


if __name__ == "__main__":  # python tests/shared/nist.py levenberg_marquardt float64
    method, precision = (*sys.argv[1:], "levenberg_marquardt", "float64")[:2] if len(sys.argv) < 3 else sys.argv[1:3]
    rows = table(getattr(jf.optimizers, method)(), precision)
    for name, start, status, steps, right in rows:
        print(f"{name:9} {start} {status.name:12} {steps:5} {right:6.2f}")
    right = np.array([row[-1] for row in rows])
    false = [row[:2] for row in rows if row[2] == jf.Status.CONVERGED and row[-1] < 2]
    print(f"{(right >= 4).sum()} of {len(rows)} with 4 digits, mean {right.mean():.2f}; false claims: {false}")
