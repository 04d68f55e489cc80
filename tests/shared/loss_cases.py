"""Losses with params and data, and their values by NumPy, which several tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit import datasets, losses
from jaxfit.models import dense, line, polynomial

T_U, T_C = datasets.thermometer()
X, PARAMS = 0.1 * T_U, {"w": 4.5, "b": -12.0}
RESIDUALS = 4.5 * X - 12.0 - T_C
INSIDE = np.abs(RESIDUALS) <= 2.0

LABELS = np.arange(11) % 3
SHARES = np.random.default_rng(0).dirichlet(np.ones(3), 11)
CLASSES = dense((1, 3))
WEIGHTS = [{"w": np.array([[0.5, -0.2, 0.1]]), "b": np.array([0.3, 0.0, -1.0])}]
LOGITS = X[:, None] @ WEIGHTS[0]["w"] + WEIGHTS[0]["b"]

GRID = np.array([0.0, 0.5, 2.0, 3.0, 7.0])
CUBIC = {"coefficients": np.array([0.1, -0.5, 0.3, 0.2])}


def trimmed(params, x, y):
    return jnp.mean(jnp.sort(jnp.square(line(params, x) - y))[:8])


def noisy(params, x, *, key):
    return line(params, x) + jax.random.normal(key, jnp.shape(x))


def noisy_loss(params, x, y, key):
    return jnp.mean(jnp.square(noisy(params, x, key=key) - y))


def weights(params):
    return [layer["w"] for layer in params]


def huber(predict, **options):
    return losses.huber(predict, delta=2.0, **options)


MAKERS = {"rss": losses.rss, "mse": losses.mse, "mae": losses.mae, "huber": huber}
CASES = {name: (make(line), PARAMS, (X, T_C)) for name, make in MAKERS.items()} | {
    "labels": (losses.softmax_cross_entropy(CLASSES), WEIGHTS, (X, LABELS)),
    "shares": (losses.softmax_cross_entropy(CLASSES), WEIGHTS, (X, SHARES)),
    "l2": (losses.l2(0.3), WEIGHTS, ()),
    "l2 of": (losses.l2(0.3, of=weights), WEIGHTS, ()),
    "smoothness": (losses.smoothness(polynomial(3), strength=0.1, x=GRID), CUBIC, ()),
    "sum": (trimmed + losses.l2(0.3) + losses.mae(line), PARAMS, (X, T_C)),
}
QUICK = "huber", "labels", "smoothness", "sum"  # which differ most; make soak has them all
EVERY = pytest.mark.parametrize(
    ("loss", "params", "data"),
    [pytest.param(*case, id=name, marks=[pytest.mark.soak] * (name not in QUICK)) for name, case in CASES.items()],
)
EVERY_RESIDUAL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def cross_entropy(shares):
    return -np.mean(np.sum(shares * np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)), 1))


def bends(x, y):
    """Twice the leading coefficients of the parabolas through three neighbors each."""
    return np.array([2 * np.polyfit(x[i : i + 3], y[i : i + 3], 2)[0] for i in range(len(x) - 2)])


CUBIC_BENDS = bends(GRID, np.polynomial.polynomial.polyval(GRID, CUBIC["coefficients"]))
TRIMMED = np.mean(np.sort(RESIDUALS**2)[:8])
EXPECTED = {
    "rss": np.sum(RESIDUALS**2),
    "mse": np.mean(RESIDUALS**2),
    "mae": np.mean(np.abs(RESIDUALS)),
    "huber": np.mean(np.where(INSIDE, RESIDUALS**2 / 2, 2.0 * (np.abs(RESIDUALS) - 1.0))),
    "labels": cross_entropy(np.eye(3)[LABELS]),
    "shares": cross_entropy(SHARES),
    "l2": 0.3 * (0.25 + 0.04 + 0.01 + 0.09 + 1.0),
    "l2 of": 0.3 * (0.25 + 0.04 + 0.01),
    "smoothness": 0.1 * np.mean(CUBIC_BENDS**2),
    "sum": TRIMMED + 0.3 * (4.5**2 + 12.0**2) + np.mean(np.abs(RESIDUALS)),
}

WHERE = np.ones(11, bool)
WHERE[[0, 3, 10]] = False
NOISY = losses.input_noise(losses.mse(line), scale=0.5)
