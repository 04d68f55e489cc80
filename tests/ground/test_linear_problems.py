"""A problem that is linear in its params ends with no fewer digits than by orthogonal factorization (NIST StRD)."""

import numpy as np
import pytest
import scipy.optimize

import jaxfit as jf
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt

# Norris, calibration of ozone monitors: rows of y and x; intercept and slope as certified.
NORRIS = np.array([
    0.1, 0.2, 338.8, 337.4, 118.1, 118.2, 888.0, 884.6, 9.2, 10.1, 228.1, 226.5, 668.5, 666.3, 998.5, 996.3, 449.1,
    448.6, 778.9, 777.0, 559.2, 558.2, 0.3, 0.4, 0.1, 0.6, 778.1, 775.5, 668.8, 666.9, 339.3, 338.0, 448.9, 447.5, 10.8,
    11.6, 557.7, 556.0, 228.3, 228.1, 998.0, 995.8, 888.8, 887.6, 119.6, 120.2, 0.3, 0.3, 0.6, 0.3, 557.6, 556.8, 339.3,
    339.1, 888.0, 887.2, 998.5, 999.0, 778.9, 779.0, 10.2, 11.1, 117.6, 118.3, 228.9, 229.2, 668.4, 669.1, 449.2, 448.9,
    0.2, 0.5,
]).reshape(-1, 2).T  # fmt: skip
CERTIFIED = -0.262323073774029, 1.00211681802045

# Wampler's: 1 + x + ... + x**5 at 0 to 20, and these times 1, 100 or 10,000, which change no param.
DELTA = np.array([
    759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048, -2048, 1838, -2048, 2048, -2048, 2523, -2048,
    2048, -2048, 759,
])  # fmt: skip
POWERS = np.arange(21.0)[:, None] ** np.arange(6)


def digits(found, right):
    """The least log relative error; 15 where nothing is wrong."""
    return -np.log10(np.max(np.abs(np.asarray(found) / right - 1)) + 1e-15)


def polynomial(w, x):
    return sum(w[i] * x**i for i in range(6))


@pytest.mark.parametrize("start", soaking([0.0, 1e3], keep=(0.0,)))
@pytest.mark.parametrize("times", soaking([1, 100, 10_000], keep=(1, 10_000)))
def test_wamplers_polynomials_have_the_digits_of_a_factorization(times, start):
    x, y = POWERS[:, 1], POWERS.sum(axis=1) + times * DELTA
    fit = jf.fit(jf.losses.rss(polynomial), np.full(6, start), (x, y), optimizer=LM())
    assert fit.status == jf.Status.CONVERGED and fit.steps < 20
    assert digits(fit.params, 1.0) >= digits(np.linalg.lstsq(POWERS, y)[0], 1.0) - 0.1


@pytest.mark.parametrize("start", soaking([(1.0, 0.0), (100.0, -1e4)], keep=((1.0, 0.0),)))
def test_norris_line_has_the_digits_of_a_factorization(start):
    y, x = NORRIS
    fit = jf.fit(jf.losses.rss(jf.models.line), dict(zip("wb", start, strict=True)), (x, y), optimizer=LM())
    by_factors = np.linalg.lstsq(np.stack([np.ones_like(x), x], axis=1), y)[0]
    assert fit.status == jf.Status.CONVERGED and fit.steps < 10
    assert digits([fit.params["b"], fit.params["w"]], CERTIFIED) >= digits(by_factors, CERTIFIED) - 0.1


@pytest.mark.parametrize("times", [2.0, 1e3])
def test_norris_line_in_other_units_has_the_digits_that_rounding_leaves(times):
    """Of the 15 certified ones not two are lost; a run that ends with a step to go has 10.9."""
    y, x = NORRIS
    fit = jf.fit(jf.losses.rss(jf.models.line), {"w": 1.0, "b": 0.0}, (x, times * y), optimizer=LM())
    assert fit.status == jf.Status.CONVERGED and fit.steps < 10
    assert digits([fit.params["b"], fit.params["w"]], times * np.array(CERTIFIED)) > 13


def product(w, x):
    return x @ w


@pytest.mark.parametrize("seed", soaking(range(12), keep=(1,)))
def test_a_start_far_away_leaves_no_params_short_of_their_least_squares(seed):
    """Random lines through many columns and polynomials, from 1e20 and nearer, with bounds and without."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 9))
    n = k + int(rng.integers(4, 20))
    columns = rng.normal(size=(n, k)) if seed % 2 == 0 else rng.uniform(0, 2, n)[:, None] ** np.arange(k)
    truth = rng.normal(size=(8, k))
    ys = truth @ columns.T + 0.1 * rng.normal(size=(8, n))
    starts = 10.0 ** np.array([0, 6, 12, 15, 18, 20, 20, 20])[:, None] * rng.choice([-1, 1], (8, k))
    low = np.where((rng.random(k) < 0.5) & (seed % 3 > 0), rng.choice([-1.0, 0, 0.5], k), -np.inf)
    start, data = jf.Axis("set", np.maximum(starts, low)), (columns, jf.Axis("set", ys))
    start = jf.Bounded(start, low=low) if np.isfinite(low).any() else start
    grid = jf.sweep(jf.losses.rss(product), start, data, optimizer=LM(), steps=300)
    assert (grid.results.status == jf.Status.CONVERGED).all(), grid.results.status.values
    sizes = np.linalg.norm(columns, axis=0)
    for y, loss in zip(ys, grid.results.loss.values, strict=True):
        best = scipy.optimize.lsq_linear(columns / sizes, y, (low * sizes, np.inf), method="bvls", tol=1e-15)
        np.testing.assert_allclose(loss, 2 * best.cost, rtol=1e-9)
