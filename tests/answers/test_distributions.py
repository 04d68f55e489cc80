"""Quantiles and probabilities in plain Python are those of SciPy, which a report of one fit does without."""

import math
import sys

import numpy as np
import pytest
import scipy
from scipy import special

import jaxfit as jf
from jaxfit.statistics import distributions

RIGHT = 2e-11  # of a gamma function of some thousand, whose logarithm has 16 digits
OF_SCIPY = RIGHT if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15) else 1e-10  # stdtrit had ten digits


@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.5, 47.0, 998.0, 4999.0, 5001.0, 9e4])
def test_quantiles_of_t(freedom):
    for share in (0.5005, 0.75, 0.8415, 0.975, 0.99995, 1 - 1e-10):
        found = distributions.t_quantile(freedom, share)
        np.testing.assert_allclose(found, special.stdtrit(freedom, share), rtol=OF_SCIPY)
        np.testing.assert_allclose(distributions.t_quantile(freedom, 1 - share), -found, rtol=1e-5)


def test_quantiles_of_t_in_closed_form():
    np.testing.assert_allclose(distributions.t_quantile(1.0, 0.9), math.tan(0.4 * math.pi), rtol=1e-14)
    np.testing.assert_allclose(distributions.t_quantile(2.0, 0.75), math.sqrt(2 / 3), rtol=1e-14)  # of a half above
    np.testing.assert_allclose(distributions.t_quantile(np.inf, 0.975), special.ndtri(0.975), rtol=1e-14)
    assert np.isnan(distributions.t_quantile(np.array([np.nan, -1.0]), 0.9)).all()


def test_probabilities_of_beta_and_f():
    random = np.random.default_rng(0)
    for a, b in np.exp(random.uniform(-1, 7, (100, 2))):
        x = random.beta(a, b)
        np.testing.assert_allclose(distributions.beta_below(a, b, x), special.betainc(a, b, x), rtol=RIGHT)
        f = random.f(a, b)
        np.testing.assert_allclose(distributions.f_above(a, b, f), special.fdtrc(a, b, f), rtol=RIGHT)
    np.testing.assert_allclose(distributions.beta_below(1.0, 3.0, 0.2), 1 - 0.8**3, rtol=1e-14)
    for x in (0.0, 1.0):
        assert distributions.beta_below(2.0, 3.0, x) == x
    assert np.isnan(distributions.f_above([0.0, 2.0, 3.0], 4.0, [1.0, np.nan, -1.0])).all()


@pytest.mark.parametrize("more", [1, 3, 8])
def test_quantiles_of_f(more):
    for rest in (1, 5, 40, 3000):
        for share in (0.05, 0.5, 0.95):
            found = distributions.f_quantile(more, rest, share)
            np.testing.assert_allclose(found, special.fdtri(more, rest, share), rtol=RIGHT)


def test_many_numbers_are_scipys():
    freedom = np.linspace(1, 50, 40)
    assert (distributions.t_quantile(freedom, 0.9) == special.stdtrit(freedom, 0.9)).all()
    np.testing.assert_allclose(distributions.beta_below(2e5, 3e5, 0.4), special.betainc(2e5, 3e5, 0.4), rtol=0)


def test_a_report_of_one_fit_does_without_scipy(monkeypatch):
    fit = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "95 % interval" in str(jf.report(fit))
