"""Reports: numbers as one writes them, tables in every language, and everything said that there is to say."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.statistics import tables

X = np.linspace(0.0, 4.0, 25)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.random.default_rng(0).normal(size=25)


def decay(params, x):
    return params["a"] * params["g"] * jnp.exp(-params["b"] * x) + params["c"]


@pytest.fixture(scope="module")
def report():
    start = {
        "a": 1.0, "b": 1.0, "c": jf.Bounded(0.8, low=0.6), "d": jf.Fixed(3.0), "e": jf.Tied(lambda p: p["b"] * p["d"]),
        "g": 1.0,
    }  # fmt: skip
    fit = jf.curve_fit(decay, start, (X, Y), 0.05, steps=60)
    return jf.report(fit, units={"a": "mm", "b": "1/s"})


@pytest.mark.parametrize("value", [5.3671, 87.67, -1.5, 1.234e-7, 0.00012, 0.0])
@pytest.mark.parametrize("error", [0.0123, 0.0996, 1.52, 10.08, 1.2e-9])
def test_errors_stand_in_brackets_as_uncertainties_writes_them(value, error):
    ufloat = pytest.importorskip("uncertainties").ufloat
    assert tables.with_error(value, error) == f"{ufloat(value, error):.2uS}"


def test_large_errors_keep_the_places_of_their_number():
    assert tables.with_error(12345.0, 678.0) == "12340(680)"
    assert tables.with_error(5.367, np.nan) == "5.367" and tables.with_error(2.0, 0.0) == "2"


def test_every_param_has_its_role(report):
    roles = {row.name: row.role for row in report.rows}
    assert roles == {
        "a": "not determined", "b": "free", "c": "at bound", "d": "fixed", "e": "tied", "g": "not determined",
    }  # fmt: skip
    known = {row.name: np.isfinite([row.error, row.low, row.high]).all() for row in report.rows}
    assert known == {"a": False, "b": True, "c": False, "d": False, "e": True, "g": False}


def test_print_says_it_all(report):
    text = str(report)
    parts = ("mm", "1/s", "b, e: +1.000", "reduced chi-squared", "degrees of freedom", "AIC", "BIC", "R squared",
                 "levenberg_marquardt", "float64", "the scatter of the residuals", "95 % interval",
                 "2 of 4 free params", "a, g are not determined: moving a by 1, g by",
                 "changes no prediction; fix one", "c lies on a bound")  # fmt: skip
    assert not [part for part in parts if part not in text]
    row = next(line for line in text.splitlines() if line.startswith("b "))
    b = next(row for row in report.rows if row.name == "b")
    assert tables.with_error(b.value, b.error) in row
    assert max(map(len, text.splitlines()[6:])) < 120


def test_json_is_json(report):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads(report.to_json(), parse_constant=refuse)
    assert found["params"]["a"]["error"] is None and found["params"]["b"]["unit"] == "1/s"
    assert found["params"]["d"] == {
        "value": 3.0, "error": None, "interval": [None, None], "start": 3.0, "role": "fixed", "unit": None,
    }  # fmt: skip


def test_other_languages_are_well_formed(report):
    lines = report.to_markdown().splitlines()
    assert lines[1].count(":--") == 3 and len({line.count("|") for line in lines[:8]}) == 1
    latex = report.to_latex()
    assert latex.count(r"\\") == 7 and r"95 \% interval" in latex and latex.count("{tabular}") == 2
    html = report._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 3 and html.count("<tr>") == html.count("</tr>")
    assert tables.latex("k_1 & 5 %") == r"k\_1 \& 5 \%" and "&lt;" in tables.html_table(["<"], [], [True])


@pytest.mark.soak
def test_a_report_agrees_with_lmfit_on_all_its_numbers():
    lmfit = pytest.importorskip("lmfit")
    model = lmfit.Model(lambda x, a, b, c: a * np.exp(-b * x) + c)
    theirs = model.fit(Y, x=X, a=1, b=1, c=0, fit_kws={"xtol": 1e-13, "ftol": 1e-13})
    ours = jf.report(
        jf.curve_fit(lambda p, x: p["a"] * jnp.exp(-p["b"] * x) + p["c"], dict.fromkeys("abc", 1.0), (X, Y))
    )
    for row in ours.rows:
        expected = theirs.params[row.name]
        np.testing.assert_allclose([row.value, row.error], [expected.value, expected.stderr], rtol=1e-4)
    good = ours.goodness
    np.testing.assert_allclose(
        [good.chi_squared, good.reduced_chi_squared, good.aic, good.bic, good.r_squared],
        [theirs.chisqr, theirs.redchi, theirs.aic, theirs.bic, theirs.rsquared], rtol=1e-6,
    )  # fmt: skip


def test_refused_with_a_remedy(report):
    fit = jf.fit(
        jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (X, Y), optimizer=jf.optimizers.sgd(0.01), steps=1
    )
    with pytest.raises(ValueError, match="units has 'v', which is no param"):
        jf.report(fit, units={"v": "mm"})
    with pytest.raises(TypeError, match="the unit of w is 3"):
        jf.report(fit, units={"w": 3})
    with pytest.raises(TypeError, match="report takes a fit"):
        jf.report({"w": 1.0})
    assert "standard errors from the minimum; let it run on" in str(jf.report(fit))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_data_of_zero_have_no_noise_either(precision):
    """The squares of what is left underflow: a scatter of them is none, and no minimum is far by it."""
    fit = jf.fit(
        jf.losses.rss(jf.models.line), {"w": 1.0, "b": 1.0}, (np.arange(5.0), np.zeros(5)), precision=precision,
        optimizer=jf.optimizers.levenberg_marquardt(),
    )  # fmt: skip
    text = str(jf.report(fit))
    assert fit.status == jf.Status.CONVERGED and "they show no noise" in text and "standard errors from" not in text


def test_exact_data_are_said_to_be_without_noise():
    """And raise no warning of a minimum not reached; numbers are printed to the digits that a float holds."""

    def parabola(params, x):
        return params["a"] * x + params["b"] * x**2

    x, start = np.arange(1.0, 9.0), {"a": 1.0, "b": 0.0}
    exact = 1.5 * x + 0.1 * x**2
    fit = jf.curve_fit(parabola, start, (x, exact))
    for method in ("wald", "profile"):
        text = str(jf.report(fit, method=method))
        assert "no larger than the rounding of the numbers" in text and "1.500000000000000" not in text
        ends = jf.intervals(fit, method)
        np.testing.assert_allclose(ends["a"], 1.5, rtol=1e-13)
    noisy = jf.curve_fit(parabola, start, (x, exact + 1e-9 * np.sin(x)))
    assert "rounding" not in str(jf.report(noisy))


def test_a_number_has_no_more_digits_than_a_float_holds():
    assert tables.with_error(1.5, 7.4e-17) == "1.5" and tables.to_digits_of(1.5, 7.4e-17) == "1.50000000000000"
    assert tables.with_error(1 / 3, 1e-18) == "0.333333333333333"


def test_a_report_counts_the_correlations_that_it_does_not_show(report):
    x = np.linspace(-1.0, 1.0, 30)
    y = np.sin(3 * x) + 0.1 * np.cos(50 * x)
    fit = jf.curve_fit(lambda p, x: jnp.polyval(p, x), np.zeros(8), (x, y))
    found = jf.report(fit)
    pairs = found.pairs()
    assert len(pairs) > 10 and f"the 10 strongest of {len(pairs)} correlations of 0.1 and more" in str(found)
    assert "\ncorrelations of 0.1 and more" in str(report)  # of few


@pytest.mark.soak
def test_the_loss_of_a_fit_in_float32_is_the_chi_squared_beside_it():
    fit = jf.fit(jf.losses.rss(jf.models.line), {"w": 1.0, "b": 0.0}, (X, 1e4 * Y), optimizer=jf.optimizers.lbfgs())
    text = str(jf.report(fit))
    assert fit.precision != "float64"
    least = np.sum((fit.params["w"].astype(float) * X + fit.params["b"].astype(float) - 1e4 * Y) ** 2)
    assert f") = {least:.6g}\n" in text and f"chi-squared               {least:.6g}\n" in text


def test_a_dataframe_holds_the_rows_under_their_names():
    found = jf.report(jf.curve_fit(jf.models.line, None, jf.datasets.thermometer()), units={"b": "°C"})
    table = found.to_dataframe()
    assert list(table.index) == ["b", "w"] and table.loc["b", "unit"] == "°C"
    for row in found.rows:
        assert table.loc[row.name, "value"] == row.value and table.loc[row.name, "error"] == row.error


@pytest.mark.soak
def test_an_interval_that_reaches_beyond_a_bound_is_told_with_the_method_that_stays_within():
    t, counts = np.arange(6.0), np.array([5, 4, 1, 1, 0, 1])
    start = {"amplitude": jf.Bounded(5.0, low=0.0), "rate": 0.5, "level": jf.Bounded(0.5, low=0.0)}
    lm = jf.optimizers.levenberg_marquardt()
    fit = jf.fit(jf.losses.poisson(lambda p, x: p["amplitude"] * jnp.exp(-p["rate"] * x) + p["level"]), start,
                 (t, counts), optimizer=lm)  # fmt: skip
    wald, along = jf.report(fit), jf.report(fit, method="profile")
    low = {row.name: row.low for row in wald.rows}
    assert low["level"] < 0 < low["amplitude"]
    assert any("interval of level reaches beyond a bound" in note for note in wald.notes)
    assert all(row.low >= 0 for row in along.rows if row.name != "rate")
    assert not any("beyond a bound" in note for note in along.notes)
