"""Curves that lmfit has too: the values of its functions, finite ends, and derived numbers by SciPy's root finders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lmfit import lineshapes
from scipy.optimize import brentq, minimize_scalar

import jaxfit as jf
from tests.shared.soak import soaking

M = jf.models
X = np.linspace(0.2, 12, 60)
BOSE, FERMI, MAXWELL = map(M.thermal_distribution, ("bose_einstein", "fermi_dirac", "maxwell_boltzmann"))


def pearson_of_lmfit(x, height, center, width, exponent, skew):
    """Its own center lies beside the maximum, its amplitude is the area, and its skew has the other sign."""
    own = functools.partial(
        lineshapes.pearson4, center=center - width * skew / (2 * exponent), sigma=width, expon=exponent, skew=-skew
    )
    return height * own(x) / own(np.array(center))


CURVES = {  # the model, its params in order, and lmfit's function of x and these
    "pearson_iv": (M.pearson_iv, (3.0, 5.0, 0.8, 1.7, 2.2), pearson_of_lmfit),
    "pearson_iv to the left": (M.pearson_iv, (-3.0, 5.0, 0.8, 0.9, -4.0), pearson_of_lmfit),
    "skewed_voigt": (M.skewed_voigt, (6.0, 4.0, 0.7, 0.4, 2.5), lineshapes.skewed_voigt),
    "skewed_voigt to the left": (M.skewed_voigt, (6.0, 7.0, 0.2, 0.9, -0.8), lineshapes.skewed_voigt),
    "driven_oscillator": (M.driven_oscillator, (2.0, 6.0, 0.1), lineshapes.damped_oscillator),
    "bose_einstein": (BOSE, (3.0, -0.5, 2.0), lambda x, h, c, kt: h * lineshapes.thermal_distribution(x, 1, c, kt)),
    "fermi_dirac": (
        FERMI, (3.0, 5.0, -0.6), lambda x, h, c, kt: h * lineshapes.thermal_distribution(x, 1, c, kt, "fermi"),
    ),
    "maxwell_boltzmann": (
        MAXWELL, (3.0, 2.0), lambda x, h, kt: h * lineshapes.thermal_distribution(x, 1, 0, kt, "maxwell"),
    ),
    "linear_step": (M.linear_step, (3.0, 5.0, 1.8), lineshapes.step),
    "linear_step down": (M.linear_step, (3.0, 5.0, -1.8), lineshapes.step),
    "linear_rectangle": (
        M.linear_rectangle, (3.0, 4.0, 8.0, 1.2), lambda x, h, a, b, w: lineshapes.rectangle(x, h, a, w / 2, b, w / 2),
    ),
    "arctan_rectangle": (
        M.arctan_rectangle, (3.0, 4.0, 8.0, 0.4), lambda x, h, a, b, w: lineshapes.rectangle(x, h, a, w, b, w, "atan"),
    ),
    "logistic_rectangle": (
        M.logistic_rectangle, (3.0, 4.0, 8.0, 0.3),
        lambda x, h, a, b, w: lineshapes.rectangle(x, h, a, w, b, w, "logistic"),
    ),
}  # fmt: skip


def named(name):
    model, values, theirs = CURVES[name]
    return model, dict(zip(model.names, values, strict=True)), theirs


OTHER_WAY = [name for name in CURVES if " " in name]


@pytest.mark.parametrize("name", soaking(CURVES, but=OTHER_WAY))
def test_a_curve_has_the_values_of_lmfits_function(name):
    model, params, theirs = named(name)
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(model)(params, X))
    # heights are about 1: what is left in the tails is rounding
    np.testing.assert_allclose(found, theirs(X, *params.values()), rtol=1e-9, atol=1e-12)


WIDTHS = {"sigma", "gamma", "width", "kt", "ramp", "scale", "damping"}
FAR = np.array([-1e12, -1e6, -100, 0, 4, 5, 6, 7, 8, 100, 1e6, 1e12], np.float32)


@pytest.mark.parametrize("name", soaking(CURVES, keep=("pearson_iv", "bose_einstein", "driven_oscillator")))
def test_values_and_slopes_are_finite_in_far_tails_and_down_to_a_width_of_zero(name):
    """In float32. Only exp(-x / kt) of Maxwell and Boltzmann has an end that is infinite, at the left."""
    model, params, _ = named(name)
    x = jnp.asarray(FAR[3:] if model is MAXWELL else FAR)
    narrow = jnp.asarray([1.0, 1e-3, 1e-8, 0.0], jnp.float32)
    shrunk = {key: jnp.float32(v) * (narrow if key in WIDTHS else jnp.ones(4)) for key, v in params.items()}
    both = jax.vmap(jax.vmap(jax.value_and_grad(model, argnums=(0, 1)), (None, 0)), (0, None))
    values, slopes = jax.jit(both)(shrunk, x)
    assert all(np.isfinite(v).all() for v in jax.tree.leaves((values, slopes)))
    assert np.ptp(values[0]) > 0


def test_at_the_pole_of_bose_and_einstein_is_the_mean_of_both_sides():
    found = np.asarray(BOSE({"height": 2.0, "center": 1.0, "kt": 0.5}, np.array([1 - 2.0**-10, 1, 1 + 2.0**-10])))
    np.testing.assert_allclose(found[1], found[[0, 2]].mean(), rtol=1e-4)


def test_a_voigt_peak_without_gaussian_is_a_lorentzian():
    found = jax.jit(M.skewed_voigt)({"area": np.pi, "location": 0.0, "sigma": 0.0, "gamma": 1.0, "skew": 0.0}, X)
    np.testing.assert_allclose(found, 1 / (1 + X**2), rtol=1e-5)


def top_and_width(theirs, values, low, high):
    """The x and the value of the maximum of a function, and its full width at half of it."""
    peak = minimize_scalar(lambda x: -theirs(np.array(x), *values), (low, high), (low, high), options={"xatol": 1e-10})
    height = -peak.fun
    left, right = (brentq(lambda x: theirs(np.array(x), *values) - height / 2, peak.x, end) for end in (low, high))
    return np.array([peak.x, height, right - left])


DERIVED = {  # where the maximum and both halves of it lie, and the names of the three numbers
    "pearson_iv": (0.0, 20.0, (None, None, "fwhm")),
    "skewed_voigt": (1.0, 12.0, ("peak", "height", "fwhm")),
    "skewed_voigt to the left": (1.0, 10.0, ("peak", "height", "fwhm")),
    "driven_oscillator": (0.1, 12.0, ("peak", "maximum", "fwhm")),
}


@pytest.mark.parametrize("name", soaking(DERIVED, keep=("driven_oscillator",)))
def test_the_maximum_and_the_width_and_their_slopes_are_those_by_scipy(name):
    model, params, theirs = named(name)
    low, high, names = DERIVED[name]
    with jax.enable_x64(True):
        found, slopes = jax.jit(lambda p: (model.derived(p), jax.jacfwd(model.derived)(p)))(params)
    expected = top_and_width(theirs, params.values(), low, high)
    for i, number in enumerate(names):
        if number is None:
            continue
        np.testing.assert_allclose(found[number], expected[i], rtol=1e-6)
        for param, value in params.items():
            ends = [top_and_width(theirs, (params | {param: value + e}).values(), low, high)[i] for e in (-1e-3, 1e-3)]
            np.testing.assert_allclose(slopes[number][param], (ends[1] - ends[0]) / 2e-3, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("skew", [0.0, 1.3, -40.0])
def test_the_area_of_a_pearson_iv_peak_is_the_amplitude_of_lmfit(skew):
    own = {"center": 1.0, "sigma": 0.7, "expon": 2.5, "skew": -skew}
    center = 1.0 + 0.7 * skew / 5.0
    height = float(lineshapes.pearson4(np.array(center), 3.0, **own))
    with jax.enable_x64(True):
        params = {"height": height, "center": center, "width": 0.7, "exponent": 2.5, "skew": skew}
        found = jax.jit(M.pearson_iv.derived)(params)
    np.testing.assert_allclose(found["area"], 3.0, rtol=1e-12)


def test_an_oscillator_damped_strongly_has_its_maximum_at_rest():
    found = M.driven_oscillator.derived({"height": 2.0, "center": 3.0, "damping": 0.8})
    assert found["peak"] == 0 and found["maximum"] == 2 and np.isinf(found["fwhm"])


@pytest.mark.parametrize("name", soaking(CURVES, keep=("fermi_dirac",)))
def test_a_fit_from_the_guess_finds_the_truth(name):
    model, params, theirs = named(name)
    clean = theirs(X, *params.values())
    fit = jf.curve_fit(model, None, (X, clean + 1e-3 * clean.std() * np.random.default_rng(0).normal(size=len(X))))
    assert fit.status == jf.Status.CONVERGED
    errors = jf.standard_errors(fit)
    assert all(abs(fit.params[key] - value) < 5 * errors[key] for key, value in params.items())


def test_an_unknown_kind_of_thermal_distribution_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="kind is 'bose'; did you mean 'bose_einstein'"):
        M.thermal_distribution("bose")
