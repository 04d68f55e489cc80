"""Counts: what R's `summary(glm(...))` prints for its own data, and what iminuit finds for the same likelihoods."""

import jax
import numpy as np
import pytest

import jaxfit as jf
from tests.answers.test_counts import BEETLES, DOBSON, WARPS, chance, columns, log_linear

LM = jf.optimizers.levenberg_marquardt()

# Dalal, Fowlkes and Hoadley (1989), doi:10.1080/01621459.1989.10478858: degrees Fahrenheit at 23 launches of the space
# shuttle, and whether an O-ring was damaged
LAUNCHES = (
    np.array([66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58.0]),
    np.isin(np.arange(23), (1, 8, 9, 10, 13, 20, 22)).astype(int), np.ones(23, int),
)  # fmt: skip
# Beall (1942), doi:10.2307/2332128: `InsectSprays`, 12 counts for each of six sprays, two of them zeros
SPRAYS = np.array([
    10, 7, 20, 14, 14, 12, 10, 23, 17, 20, 14, 13, 11, 17, 21, 11, 16, 14, 17, 17, 19, 21, 7, 13,
    0, 1, 7, 2, 3, 1, 2, 1, 3, 0, 1, 4, 3, 5, 12, 6, 4, 3, 5, 5, 5, 5, 2, 4,
    3, 5, 3, 5, 3, 6, 1, 1, 3, 2, 6, 4, 11, 9, 15, 22, 15, 16, 13, 10, 26, 26, 24, 13,
]), columns(np.repeat(np.arange(6), 12))  # fmt: skip


@pytest.fixture(scope="module")
def launches():
    return jf.fit(jf.losses.binomial(chance), {"a": 0.0, "b": 0.0}, LAUNCHES, optimizer=LM, steps=100)


def test_the_launches_of_the_shuttle_have_the_numbers_of_glm(launches):
    found, errors = jf.goodness_of_fit(launches), jf.standard_errors(launches)
    np.testing.assert_allclose([launches.params["a"], launches.params["b"]], [15.0429, -0.2322], atol=5e-5)
    np.testing.assert_allclose([errors["a"], errors["b"]], [7.3786, 0.1082], atol=5e-5)
    np.testing.assert_allclose([found.deviance, found.aic], [20.315, 24.315], atol=5e-4)
    assert found.degrees_of_freedom == 21


@pytest.mark.soak
def test_the_sprays_have_the_numbers_of_glm_and_of_the_means_of_their_counts():
    fit = jf.fit(jf.losses.poisson(log_linear), np.zeros(6), SPRAYS[::-1], optimizer=LM, steps=100)
    found, errors = jf.goodness_of_fit(fit), jf.standard_errors(fit)
    published = [2.67415, 0.05588, -1.94018, -1.08152, -1.42139, 0.13926]
    np.testing.assert_allclose(fit.params, published, atol=5e-6)
    np.testing.assert_allclose(errors, [0.07581, 0.10574, 0.21389, 0.15065, 0.17192, 0.10367], atol=5e-6)
    np.testing.assert_allclose([found.deviance, found.aic], [98.33, 376.6], atol=5e-2)
    total = SPRAYS[0].reshape(6, 12).sum(1)
    np.testing.assert_allclose(fit.params[1:], np.log(total[1:] / total[0]), rtol=1e-9)
    np.testing.assert_allclose(errors[1:], np.sqrt(1 / total[1:] + 1 / total[0]), rtol=1e-9)


# iminuit 2.33.0, migrad of strategy 2 on twice the negative log-likelihood, then hesse
IMINUIT = {
    "dobson": ([3.0445233, -0.45425602, -0.29298779, 0, 0], [0.17092103, 0.20218058, 0.19275239, 0.200015, 0.200015]),
    "warps": ([3.6919636, -0.20598924, -0.32132093, -0.51848913], [0.04541352, 0.0515734, 0.06026786, 0.06396002]),
    "sprays": (
        [2.6741485, 0.05588035, -1.9401822, -1.0815188, -1.4213872, 0.139262],
        [0.07581925, 0.10575345, 0.21389235, 0.15066036, 0.17192757, 0.10367733],
    ),
    "beetles": ([-60.71747, 34.270334], [5.1437119, 2.8913427]),
    "launches": ([15.042903, -0.23216276], [7.4016705, 0.10857444]),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", IMINUIT)
def test_a_likelihood_has_the_params_and_errors_of_iminuit(name):
    """Its params to a small part of their errors; these, by differences of its own, to a percent."""
    params, errors = IMINUIT[name]
    if name in ("beetles", "launches"):
        loss, data = jf.losses.binomial(chance), BEETLES if name == "beetles" else LAUNCHES
        start = {"a": 0.0, "b": 0.0}
    else:
        loss, (y, design) = jf.losses.poisson(log_linear), {"dobson": DOBSON, "warps": WARPS, "sprays": SPRAYS}[name]
        data, start = (design, y), np.zeros(len(params))
    fit = jf.fit(loss, start, data, optimizer=LM, steps=100)
    off = np.array(jax.tree.leaves(fit.params)).ravel() - params
    assert (np.abs(off) < 1e-4 * np.array(errors)).all()
    found = np.array(jax.tree.leaves(jf.standard_errors(fit))).ravel()
    np.testing.assert_allclose(found, errors, rtol=1e-2)  # differences that iminuit stops at: up to 0.7 % off here
