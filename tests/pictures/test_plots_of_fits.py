"""Pictures of fits with their errors: what is drawn is what the statistics say."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import plots

X, Y = jf.datasets.blood_pressure()


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def line():
    return jf.curve_fit(jf.models.line, {"w": 1.0, "b": 100.0}, (X, Y))


def curve_of(ax):
    """The fitted curve: the solid line with the most points."""
    return max((x for x in ax.lines if x.get_linestyle() == "-"), key=lambda x: len(x.get_xdata()))


def hill(p, dose):
    return p["top"] * dose / (p["half"] + dose)


DOSES = {
    "four decades": np.geomspace(0.01, 100, 9),
    "with a zero": np.append(0.0, np.geomspace(0.01, 100, 8)),
    "one decade": np.linspace(1, 10, 9),
    "hardly apart": np.linspace(100, 101, 9),
}


@pytest.mark.parametrize("when", ["before", "after", "never"])
@pytest.mark.parametrize("doses", DOSES)
def test_a_curve_over_doses_is_smooth_on_a_logarithmic_axis_and_stays_on_their_side_of_zero(doses, when):
    dose = DOSES[doses]
    fit = jf.curve_fit(
        hill, {"top": 1.0, "half": 1.0}, (dose, hill({"top": 2.0, "half": 3.0}, dose) + 0.05 * np.cos(7 * dose))
    )
    ax = plots.panels("A", size=(4, 3))[1]["A"]
    zero = dose.min() == 0
    if when == "before":
        ax.set_xscale("symlog", linthresh=0.01) if zero else ax.set_xscale("log")
    plots.fit(fit, ax=ax)
    if when == "after" and not zero:
        ax.set_xscale("log")
    at, value = curve_of(ax).get_data()
    assert at[0] >= 0 and (zero or at[0] > 0) and at[0] <= dose.min() and at[-1] >= dose.max()
    assert ax.get_xlim()[0] <= at[0] and ax.get_xlim()[1] >= at[-1] and (zero or ax.get_xlim()[0] > 0)
    np.testing.assert_allclose(value, hill({k: float(v) for k, v in fit.params.items()}, at), rtol=1e-9)
    pixels = ax.transData.transform(np.stack([at, value], 1))
    assert np.max(np.diff(pixels[:, 0])) <= 2 * np.ptp(pixels[:, 0]) / 300 or (zero and when == "never")


def test_data_below_zero_are_drawn_below_it():
    x = -np.geomspace(0.1, 10, 8)
    fit = jf.curve_fit(lambda p, x: p * jnp.log(-x), 1.0, (x, np.log(-x) + 0.1 * np.sin(9 * x)))
    at = curve_of(plots.fit(fit)["curve"]).get_xdata()
    assert np.all(at < 0) and at[0] < -10 and at[-1] > -0.1


@pytest.mark.soak
def test_a_logarithmic_height_shows_what_it_can():
    decay = jf.curve_fit(
        jf.models.exponential_decay, None, (X := np.linspace(0, 9, 12), 5 * np.exp(-X) + 0.02 * np.cos(9 * X))
    )
    ax = plots.panels("A", size=(4, 3))[1]["A"]
    ax.set_yscale("log")
    plots.fit(decay, ax=ax)
    assert 0 < ax.get_ylim()[0] < ax.get_ylim()[1] < 20


def test_points_do_not_hide_the_curve_and_what_the_band_is_is_said_among_any_number_of_them():
    x = np.linspace(0, 1, 4000)
    y = 2 * x + np.random.default_rng(0).normal(size=len(x))
    ax = plots.fit(jf.curve_fit(jf.models.line, {"w": 1.0, "b": 0.0}, (x, y)), prediction=True)["curve"]
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert curve_of(ax).get_zorder() > points.get_zorder()
    assert {t.get_text() for t in ax.texts} == {"band: the curve, 95 % confidence", "dashed: 95 % of new observations"}


def test_a_fit_is_drawn_in_its_bands_over_its_residuals(line):
    axes = plots.fit(line, prediction=True)
    curve, residuals = axes["curve"], axes["residuals"]
    labels = {text.get_text() for text in curve.texts}
    assert labels == {"band: the curve, 95 % confidence", "dashed: 95 % of new observations"}
    drawn = curve_of(curve)
    np.testing.assert_allclose(drawn.get_ydata(), jf.band(line, drawn.get_xdata()).value)
    points = next(x for x in residuals.lines if len(x.get_xdata()) == 33)
    np.testing.assert_allclose(points.get_ydata(), jf.residuals(line).standardized)
    assert plots.png(curve.figure) == plots.png(plots.fit(line, prediction=True)["curve"].figure)


@pytest.mark.soak
def test_the_profile_of_a_line_is_its_parabola(line):
    ax = plots.profile(jf.profile(line)["w"], jf.standard_errors(line)["w"], reach=2.0, name="w")
    parabola, curve = (x.get_ydata() for x in ax.lines if len(x.get_xdata()) == 300)
    np.testing.assert_allclose(curve, parabola, atol=1e-3)


def test_a_profile_is_of_one_param(line):
    with pytest.raises(ValueError, match=r"name is '', but the params with an error are b, w; name one"):
        plots.profile(line)
    with pytest.raises(TypeError, match=r"got a dict without an error; pass a fit and name="):
        plots.profile({"w": 1.0})


@pytest.mark.soak
def test_a_fits_profile_is_drawn_as_its_numbers_are(line):
    ax = plots.profile(line, name="w")
    given = plots.profile(jf.profile(line)["w"], jf.standard_errors(line)["w"], name="w")
    for one, other in zip(ax.lines, given.lines, strict=True):
        np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
    assert ax.get_xlabel() == "w"


@pytest.mark.soak
def test_all_pairs_are_drawn(line):
    axes = plots.corner(line, jf.bootstrap(line, 0, 500))
    assert set(axes) == {("b", "b"), ("w", "b"), ("w", "w")}
    (words,) = (text.get_text() for text in axes["w", "w"].figure.texts)
    assert "ellipse: holds 95 % of refits" in words and "bars: intervals of 95 %" in words
    with pytest.raises(ValueError, match="0 params have an error.*choose with names=, of b, w"):
        plots.corner(line, names=["v"])


@pytest.mark.parametrize("draw", [jf.plots.fit, jf.plots.corner])
def test_what_is_no_fit_is_not_drawn_as_one(draw):
    grid = jf.sweep(lambda p: p**2, jf.Axis("start", [1.0, 2.0]), optimizer=jf.optimizers.sgd(0.1), steps=2)
    with pytest.raises(TypeError, match=r"draws a fit, but got a Grid; .*jf.lane\(grid, ...\)"):
        draw(grid)
