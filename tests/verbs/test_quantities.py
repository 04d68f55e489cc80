"""Curve fits of quantities: the plain fit in other units, and units that do not fit are told where they break."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

T = np.linspace(0, 5, 20)
Y = 3 * np.exp(-0.7 * T) + 0.5 + 0.01 * np.random.default_rng(0).normal(size=20)


def decay(params, t):
    return params["a"] * jnp.exp(-params["rate"] * t) + params["c"]


@pytest.fixture(scope="module")
def plain():
    return jf.curve_fit(decay, {"a": 2.0, "rate": 1.0, "c": 0.0}, (T, Y), sigma=0.01, absolute_sigma=True)


@pytest.fixture(scope="module")
def quantity():
    return pytest.importorskip("pint").UnitRegistry().Quantity


@pytest.fixture(scope="module")
def start(quantity):
    return {"a": quantity(2.0, "mV"), "rate": quantity(1.0, "1/ms"), "c": quantity(0.0, "V")}


@pytest.fixture(scope="module")
def data(quantity):
    return quantity(T, "ms"), quantity(Y, "mV")


@pytest.fixture(scope="module")
def run(quantity, start, data):
    return jf.curve_fit(decay, start, data, sigma=quantity(10.0, "uV"), absolute_sigma=True)


UNITS = {"a": ("mV", 1.0), "rate": ("1/ms", 1.0), "c": ("V", 1e-3)}  # and how many of them the plain fit's unit is


def test_params_and_errors_are_those_of_the_plain_fit_in_the_units_of_the_start(plain, run):
    errors, ends = jf.standard_errors(run), jf.intervals(run)
    for name, (unit, factor) in UNITS.items():
        assert run.params[name].units == run.params[name]._REGISTRY.Unit(unit)
        np.testing.assert_allclose(run.params[name].magnitude, factor * plain.params[name], rtol=1e-8)
        np.testing.assert_allclose(errors[name].m_as(unit), factor * jf.standard_errors(plain)[name], rtol=1e-7)
        np.testing.assert_allclose(ends[name].low.m_as(unit), factor * jf.intervals(plain)[name].low, rtol=1e-8)
    np.testing.assert_allclose(run.loss, plain.loss, rtol=1e-9)
    assert run.status == jf.Status.CONVERGED and "rate = 0.699208 1/ms" in str(run)


def test_predictions_are_quantities(plain, run, quantity):
    found = run.predict(quantity([0.0, 1500.0], "us"))
    np.testing.assert_allclose(found.m_as("mV"), plain.predict([0.0, 1.5]), rtol=1e-8)
    with pytest.raises(ValueError, match="x is a number without a unit, but must be in ms, or a unit of the same kind"):
        run.predict(1.5)


def test_the_report_is_in_the_units_of_the_start(plain, run):
    found, expected = jf.report(run), jf.report(plain)
    for one, other in zip(found.rows, expected.rows, strict=True):
        factor = UNITS[one.name][1]
        # Two fits, each to eps**(2/3) of an error; the start of c is 0.
        np.testing.assert_allclose(one[1:6], [factor * x for x in other[1:6]], rtol=1e-7, atol=1e-12)
    assert [row.unit for row in found.rows] == ["mV", "V", "1/ms"]


def test_a_verb_without_units_names_the_fit_in_base_units(run):
    verbs = [
        jf.goodness_of_fit, jf.explain, jf.residuals, jf.influence, jf.correlations, jf.require_converged, jf.plots.fit,
        lambda fit: jf.save(fit, "no.json"), lambda fit: jf.band(fit, T), lambda fit: jf.resume(fit, 100),
        lambda fit: jf.profile(fit=fit),
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(TypeError, match=r"pass its \.fit, whose numbers are in base units"):
            verb(run)
    assert jf.goodness_of_fit(run.fit).degrees_of_freedom == 17


def test_units_that_do_not_fit_are_told_where_they_break(quantity, start, data):
    cases = {
        r"computes exp of \[time\]\*\*2, from rate, x": start | {"rate": quantity(1.0, "ms")},
        r"computes exp of \[time\], from rate, x": start | {"rate": 1.0},
        r"computes add of .*\[mass\] \[time\]\*\*-3 and \[current\], from a, c, rate, x": start
        | {"c": quantity(0.1, "A")},
        r"predicts \[current\], but y is in \[current\]\*\*-1": start
        | {"a": quantity(2, "A"), "c": quantity(0.1, "A")},
        "params.'a'. is in degree_Celsius, whose numbers are no multiples": start | {"a": quantity(2.0, "degC")},
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            jf.curve_fit(decay, wrong, data)
    with pytest.raises(ValueError, match=r"data\[0\] \(x\) is a list of quantities, but must be one: np.array"):
        jf.curve_fit(decay, start, (list(data[0]), data[1]))
    with pytest.raises(ValueError, match="there are no points"):
        jf.curve_fit(decay, start, (data[0][0], data[1][0]))
    with pytest.raises(ValueError, match="sigma is a number without a unit, but must be in mV"):
        jf.curve_fit(decay, start, data, sigma=0.01)
    with pytest.raises(ValueError, match="sigma is in mV, but must be a number without a unit"):
        jf.curve_fit(decay, {"a": 2.0, "rate": 1.0, "c": 0.0}, (T, Y), sigma=quantity(0.01, "mV"))
    with pytest.raises(TypeError, match="give a start, whose units are those of the params"):
        jf.curve_fit(jf.models.line, None, data)


def test_angles_are_computed_in_radians_and_fixed_quantities_stay(quantity):
    def wave(params, x):
        return params["a"] * jnp.sin(x + params["phase"])

    angles = np.arange(0.0, 360.0, 30.0)
    y = quantity(2 * np.sin(np.radians(angles + 20)), "m")
    start = {"a": jf.Fixed(quantity(200.0, "cm")), "phase": quantity(1.0, "degree")}
    run = jf.curve_fit(wave, start, (quantity(angles, "degree"), y))
    np.testing.assert_allclose(run.params["phase"].m_as("degree"), 20, rtol=1e-8)
    assert run.params["a"].magnitude == 200


def test_quantities_of_astropy_are_fitted_too(plain):
    u = pytest.importorskip("astropy.units")
    start = {"a": 2.0 * u.mV, "rate": 1.0 / u.ms, "c": 0.0 * u.V}
    run = jf.curve_fit(decay, start, (T * u.ms, Y * u.mV))
    np.testing.assert_allclose(run.params["c"].to_value("mV"), plain.params["c"], rtol=1e-7)
    with pytest.raises(ValueError, match=r"computes exp of s\*\*2, from rate, x"):
        jf.curve_fit(decay, start | {"rate": 1.0 * u.ms}, (T * u.ms, Y * u.mV))
    with pytest.raises(ValueError, match="is in deg_C, whose numbers are no multiples of it"):
        jf.curve_fit(decay, start | {"a": 1.0 * u.deg_C}, (T * u.ms, Y * u.mV))
