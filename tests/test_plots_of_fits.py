"""Pictures of fits with their errors: what is drawn is what the statistics say."""

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


def test_a_fit_is_drawn_in_its_bands_over_its_residuals(line):
    axes = plots.fit(line, prediction=True)
    curve, residuals = axes["curve"], axes["residuals"]
    labels = {text.get_text() for text in curve.texts}
    assert labels == {"the curve, 95 %", "95 % of new observations"}
    drawn = next(x for x in curve.lines if len(x.get_xdata()) == 300 and x.get_linestyle() == "-")
    np.testing.assert_allclose(drawn.get_ydata(), jf.band(line, drawn.get_xdata()).value)
    points = next(x for x in residuals.lines if len(x.get_xdata()) == 33)
    np.testing.assert_allclose(points.get_ydata(), jf.residuals(line).standardized)
    assert plots.png(curve.figure) == plots.png(plots.fit(line, prediction=True)["curve"].figure)


@pytest.mark.soak
def test_the_profile_of_a_line_is_its_parabola(line):
    ax = plots.profile(jf.profile(line)["w"], jf.standard_errors(line)["w"], reach=2.0, name="w")
    parabola, curve = (x.get_ydata() for x in ax.lines if len(x.get_xdata()) == 300)
    np.testing.assert_allclose(curve, parabola, atol=1e-3)


def test_a_profile_is_drawn_of_one_param(line):
    with pytest.raises(ValueError, match=r"name is '', but the params with an error are b, w; name one"):
        plots.profile(line)
    with pytest.raises(TypeError, match=r"got a dict without an error; pass a fit and name="):
        plots.profile({"w": 1.0})
    ax = plots.profile(line, name="w")
    given = plots.profile(jf.profile(line)["w"], jf.standard_errors(line)["w"], name="w")
    for one, other in zip(ax.lines, given.lines, strict=True):
        np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
    assert ax.get_xlabel() == "w"


@pytest.mark.soak
def test_all_pairs_are_drawn(line):
    axes = plots.corner(line, jf.bootstrap(line, 0, 500))
    assert set(axes) == {("b", "b"), ("w", "b"), ("w", "w")}
    with pytest.raises(ValueError, match="0 params have an error.*choose with names=, of b, w"):
        plots.corner(line, names=["v"])
