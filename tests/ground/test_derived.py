"""Numbers that models derive of their params, against the curves themselves; and their rows in a report."""

import json

import jax
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

M = jf.models
GRID = np.linspace(-400.0, 400.0, 800_001)
PEAKS = {
    "gaussian": {"height": 2.0, "center": 1.0, "sigma": -0.7},
    "lorentzian": {"height": 2.0, "center": 1.0, "gamma": -0.01},
    "pseudo_voigt": {"height": 2.0, "center": 1.0, "gamma": 0.01, "fraction": 0.3},
    "moffat": {"height": 2.0, "center": 1.0, "width": 0.7, "exponent": 2.5},
    "split_lorentzian": {"height": 2.0, "center": 1.0, "left": 0.01, "right": 0.03},
    "log_normal": {"height": 2.0, "center": 3.0, "sigma": 0.4},
    "rectangle": {"height": 2.0, "start": 0.0, "end": 3.0, "sigma": 0.2},
}


def derived(curve, params):
    return jax.jit(curve.derived)(params)


@pytest.mark.parametrize("name", PEAKS)
def test_the_area_of_a_peak_is_its_integral(name):
    """Lorentzians lose 2 gamma / (pi 400) of it beyond the ends."""
    curve, params = getattr(M, name), PEAKS[name]
    x = np.maximum(GRID, 0) if name == "log_normal" else GRID
    y = np.asarray(jax.jit(curve)(params, x), float)
    np.testing.assert_allclose(derived(curve, params)["area"], np.trapezoid(y, x), rtol=1e-4)


def half_width(curve, params, around):
    x = np.linspace(*around, 200_001)
    y = np.asarray(jax.jit(curve)(params, x), float)
    inside = x[y >= y.max() / 2]
    return inside[-1] - inside[0]


@pytest.mark.parametrize("name", [name for name in PEAKS if name != "rectangle"])
def test_the_full_width_at_half_maximum_is_that_of_the_curve(name):
    curve, params = getattr(M, name), PEAKS[name]
    narrow = params.get("gamma", params.get("left", 1.0)) in (0.01, -0.01)
    around = (0.9, 1.1) if narrow else (0.01 if name == "log_normal" else -3.0, 8.0)
    found = half_width(curve, params, around)
    np.testing.assert_allclose(derived(curve, params)["fwhm"], found, atol=2e-5 * np.ptp(around))


@pytest.mark.parametrize("gamma", soaking([0.05, 0.5, 3.0], keep=(0.5,)))
def test_the_width_of_a_voigt_peak_is_right_to_three_parts_in_ten_thousand(gamma):
    params = {"area": 2.0, "center": 1.0, "sigma": 0.5, "gamma": gamma}
    found = derived(M.voigt, params)
    np.testing.assert_allclose(found["fwhm"], half_width(M.voigt, params, (-9.0, 11.0)), rtol=4e-4)
    np.testing.assert_allclose(found["height"], float(jax.jit(M.voigt)(params, np.array([1.0]))[0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "params", "at", "value"),
    [
        ("exponential_decay", {"amplitude": 3.0, "rate": 0.4}, "half_life", 1.5),
        ("exponential_decay", {"amplitude": 3.0, "rate": 0.4}, "lifetime", 3 / np.e),
        ("exponential_growth", {"amplitude": 3.0, "rate": 0.4}, "doubling_time", 6.0),
        ("exponential_rise", {"height": 3.0, "rate": 0.4}, "half_time", 1.5),
        ("delayed_rise", {"height": 3.0, "rate": 0.4, "onset": 2.0}, "half_time", 1.5),
        ("stretched_exponential", {"amplitude": 3.0, "rate": 0.4, "stretch": 0.6}, "half_life", 1.5),
        ("substrate_inhibition", {"vmax": 3.0, "km": 1.0, "ki": 4.0}, "optimum", 1.5),
    ],
)
def test_a_time_is_where_the_curve_has_the_value_it_is_named_for(name, params, at, value):
    curve = getattr(M, name)
    np.testing.assert_allclose(jax.jit(curve)(params, derived(curve, params)[at]), value, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "params", "x", "y"),
    [
        ("oral_dose", {"exposure": 3.0, "absorption": 2.0, "elimination": 0.3}, "peak_time", "peak"),
        ("oral_dose", {"exposure": 3.0, "absorption": 0.3, "elimination": 0.3}, "peak_time", "peak"),
        ("substrate_inhibition", {"vmax": 3.0, "km": 1.0, "ki": 5.0}, "optimum", "fastest"),
        ("doniach", {"height": 3.0, "center": 4.0, "gamma": 1.0, "skew": 0.2}, "peak", None),
        ("planck", {"scale": 1.0, "temperature": 800.0}, "peak", None),
    ],
)
def test_a_maximum_is_the_highest_point_of_the_curve(name, params, x, y):
    curve = getattr(M, name)
    at = np.linspace(0.5, 15.0, 290_001)
    values = np.asarray(jax.jit(curve)(params, at), float)
    found = derived(curve, params)
    np.testing.assert_allclose(found[x], at[np.argmax(values)], atol=2e-3)
    np.testing.assert_allclose(found[y] if y else values.max(), values.max(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("skewed_gaussian", {"area": 2.0, "location": 1.0, "sigma": 1.5, "skew": 3.0}),
        ("exponential_gaussian", {"area": 2.0, "center": 1.0, "sigma": 0.5, "rate": 0.8}),
    ],
)
def test_the_moments_of_a_skewed_peak_are_its_integrals(name, params):
    x = np.linspace(-20.0, 60.0, 400_001)
    curve = getattr(M, name)
    y = np.asarray(jax.jit(curve)(params, x), float) / 2
    mean = np.trapezoid(x * y, x)
    found = derived(curve, params)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], np.sqrt(np.trapezoid((x - mean) ** 2 * y, x)), rtol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "gompertz", "michaelis_menten"])
def test_a_slope_is_the_steepest_of_the_curve(name):
    params = {
        "logistic": {"capacity": 3.0, "rate": 0.7, "midpoint": 2.0},
        "gompertz": {"capacity": 3.0, "rate": 0.7, "inflection": 2.0},
        "michaelis_menten": {"vmax": 3.0, "km": 0.7},
    }[name]
    curve = getattr(M, name)
    slopes = jax.jit(jax.vmap(jax.grad(lambda x: curve(params, x))))(np.linspace(0.0, 6.0, 601))
    np.testing.assert_allclose(derived(curve, params)["slope"], slopes.max(), rtol=1e-5)


def test_sums_derive_what_their_parts_do_under_their_names():
    pair = M.gaussians(2)
    params = {"height": np.array([1.0, 2.0]), "center": np.zeros(2), "sigma": np.array([1.0, 3.0])}
    named = M.sum(peaks=pair, decay=M.exponential_decay, level=M.constant)
    found = named.derived({"peaks": params, "decay": {"amplitude": 1.0, "rate": 2.0}, "level": {"offset": 1.0}})
    assert set(found) == {"peaks", "decay"} and found["peaks"]["area"].shape == (2,)
    beside = (M.gaussian + M.line).derived({"height": 1.0, "center": 0.0, "sigma": 1.0, "w": 0.0, "b": 0.0})
    assert set(beside) == {"fwhm", "area"} and M.line.derived({"w": 1.0, "b": 0.0}) == {}


@pytest.fixture(scope="module")
def fit():
    x = np.linspace(0.0, 5.0, 30)
    y = 3 * np.exp(-0.7 * x) + 0.05 * np.random.default_rng(0).normal(size=30)
    return jf.curve_fit(M.exponential_decay, None, (x, y))


def product(params):
    return params["amplitude"] * params["rate"]


def test_a_report_has_rows_of_the_derived_numbers_with_the_errors_of_the_delta_method(fit):
    report = jf.report(fit, {"rate": "1/min", "half_life": "min"}, derived={"flux": product})
    rows = {row.name: row for row in report.derived}
    assert set(rows) == {"half_life", "lifetime", "flux"} and "flux" not in {row.name for row in report.rows}
    rate, error = (float(tree["rate"]) for tree in (fit.params, jf.standard_errors(fit)))
    half = rows["half_life"]
    np.testing.assert_allclose([half.value, half.error], [np.log(2) / rate, np.log(2) / rate**2 * error], rtol=1e-12)
    own = jf.propagate(fit, product)
    np.testing.assert_allclose([rows["flux"].value, rows["flux"].error], [own.value, own.error], rtol=1e-12)
    a = jf.intervals(fit)["amplitude"]
    reach = (a.high - a.low) / 2 / float(jf.standard_errors(fit)["amplitude"])
    np.testing.assert_allclose(half.high - half.value, reach * half.error, rtol=1e-9)
    assert half.unit == "min" and half.role == "derived"
    assert report.to_dataframe().loc["flux", "role"] == "derived" and "\nhalf_life," in report.to_csv()
    assert json.loads(report.to_json())["derived"]["half_life"]["unit"] == "min"
    for text in (str(report), report.to_markdown(), report.to_latex().replace("\\", ""), report._repr_html_()):
        assert "half_life" in text and "flux" in text


@pytest.mark.soak
def test_other_methods_give_derived_numbers_an_error_and_no_interval(fit):
    (row, *_) = jf.report(fit, method="profile").derived
    assert row.error > 0 and np.isnan(row.low)


@pytest.mark.parametrize(
    ("derived", "error", "message"),
    [
        (product, TypeError, "derived is .* but it must hold functions of the params by name"),
        ({"rate": product}, ValueError, "derived has 'rate', which is a param"),
        ({"flux": lambda p: 1}, TypeError, r"returned int64 at \['flux'\], but errors are of floating numbers"),
        ({"flux": lambda p: "a"}, TypeError, "no number or array: a str"),
        ({"flux": lambda p: p["speed"]}, ValueError, "finds no 'speed'"),
    ],
)
def test_what_is_no_function_of_the_params_is_refused(fit, derived, error, message):
    with pytest.raises(error, match=message):
        jf.report(fit, derived=derived)


def test_a_unit_of_a_misspelled_derived_number_is_refused_with_its_name(fit):
    with pytest.raises(ValueError, match="units has 'halflife', which is no param; did you mean half_life"):
        jf.report(fit, {"halflife": "s"})
