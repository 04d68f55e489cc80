"""Guesses of curves that several params describe: always the same of them, whatever the noise."""

import jax
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import models
from tests.shared.soak import soaking

X = np.linspace(0, 10, 30)
DOSES = np.geomspace(0.05, 12.5, 16)
LEVELS = {"constant": models.constant, "line": models.line, "polynomial": models.polynomial(1)}


def noisy(curve, seeds=12, noise=0.05):
    return [curve + noise * np.random.default_rng(seed).normal(size=curve.shape) for seed in range(seeds)]


@pytest.mark.parametrize("level", soaking(LEVELS, keep=("constant",)))
@pytest.mark.parametrize("way", soaking([1, -1], keep=(-1,)))
def test_a_logistic_or_hill_curve_beside_a_level_is_guessed_with_a_positive_height(level, way):
    for term, height, direction, x, curve in (
        (models.logistic, "capacity", "rate", X, 1 / (1 + np.exp(-way * (X - 5)))),
        (models.hill, "top", "steepness", DOSES, 1 / (1 + DOSES ** (-1.5 * way))),
    ):
        model = term + LEVELS[level]
        curve_of = jax.jit(model)
        for y in noisy(1.3 + 2 * curve, 8):
            start = model.guess(x, y)
            assert start[height] > 0
            if level == "constant":
                assert start[direction] * way > 0 and start["offset"] == pytest.approx(1.3, abs=0.6)
            assert np.mean((curve_of(start, x) - y) ** 2) < 0.02


def test_the_branch_does_not_change_the_curve():
    params = {"capacity": -2.0, "rate": 1.1, "midpoint": 4.0}
    other = models.logistic.mirrored(params)
    np.testing.assert_allclose(models.logistic(other, X) - 2, models.logistic(params, X), rtol=1e-5, atol=1e-6)
    x, params = np.r_[0, DOSES], {"top": -2.0, "half": 0.7, "steepness": 1.3}
    other = models.hill.mirrored(params)
    np.testing.assert_allclose(models.hill(other, x) - 2, models.hill(params, x), rtol=1e-5, atol=1e-6)


# Run 1 of R's DNase
CONC = np.repeat([0.04882812, 0.1953125, 0.390625, 0.78125, 1.5625, 3.125, 6.25, 12.5], 2)
DENSITY = np.array([0.017, 0.018, 0.121, 0.124, 0.206, 0.215, 0.377, 0.374, 0.614, 0.609, 1.019, 1.001, 1.334, 1.364,
                    1.73, 1.71])  # fmt: skip


def test_an_assay_has_the_params_that_r_finds():
    """SSlogis of log(conc) has Asym 2.345, xmid 1.483, scal 1.041."""
    alone = jf.curve_fit(models.logistic, models.logistic.guess(np.log(CONC), DENSITY), (np.log(CONC), DENSITY))
    found = [alone.params["capacity"], alone.params["midpoint"], 1 / alone.params["rate"]]
    np.testing.assert_allclose(found, [2.345, 1.483, 1.041], atol=6e-4)


@pytest.mark.soak
def test_assays_of_one_kind_have_one_table_of_params():
    """Also turned upside down."""
    for model, x, names in (
        (models.logistic + models.constant, np.log(CONC), ("capacity", "rate")),
        (models.hill + models.constant, CONC, ("top", "steepness")),
    ):
        for y in noisy(DENSITY, seeds=2, noise=0.02):
            up, down = (jf.curve_fit(model, model.guess(x, v), (x, v)).params for v in (y, 2 - y))
            assert up[names[0]] > 0 and up[names[1]] > 0 and down[names[0]] > 0 and down[names[1]] < 0


@pytest.mark.soak
def test_equal_terms_under_names_come_in_the_order_of_their_places():
    peaks = 2 * np.exp(-0.5 * ((X - 7) / 0.6) ** 2) + np.exp(-0.5 * ((X - 2.5) / 0.6) ** 2)
    decays = 3 * np.exp(-3 * X) + 2 * np.exp(-0.2 * X)
    two = models.sum(first=models.gaussian, second=models.gaussian)
    both = models.sum(slow=models.exponential_decay, fast=models.exponential_decay)
    for y, z in zip(noisy(peaks, 6), noisy(decays, 6, 0.01), strict=True):
        found, gone = two.guess(X, y), both.guess(X, z)
        assert found["first"]["center"] == pytest.approx(2.5, abs=0.4) and found["second"]["center"] > 6
        assert gone["slow"]["rate"] < 1 < gone["fast"]["rate"]


def test_an_oscillation_is_guessed_with_a_positive_amplitude_and_frequency():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        amplitude, phase = rng.choice([-1, 1]) * rng.uniform(1, 3), rng.uniform(-6, 6)
        y = amplitude * np.exp(-0.1 * X) * np.cos(2 * np.pi * 0.4 * X + phase) + 0.02 * rng.normal(size=30)
        found = models.damped_oscillation.guess(X, y)
        assert found["amplitude"] > 0 and found["frequency"] > 0 and -np.pi <= found["phase"] <= np.pi
