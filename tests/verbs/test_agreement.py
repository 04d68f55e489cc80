"""Covariances, intervals and bands of varied problems, against lmfit and scipy started where the fit ended.

Left to its finite differences, whose step is the root of the rounding, lmfit knows a Jacobian to four to six digits
only; it is given slopes by complex steps here (the exact ones, to rounding), and then agrees to more than five.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

lmfit = pytest.importorskip("lmfit")
X = np.linspace(0.1, 5.0, 40)
NOISE = np.random.default_rng(21).normal(size=40)
TIED, FIXED, BOUNDED = jf.Tied, jf.Fixed, jf.Bounded


class Case(NamedTuple):
    model: Callable  # of (np or jnp, x, params)
    truth: dict
    start: dict  # with marks
    exprs: dict = {}  # noqa: RUF012 (never written to)
    sigma: float | None = None  # in front of the noise, growing with x
    absolute: bool = False


def peak(m, x, top, at, width):
    return top * m.exp(-0.5 * ((x - at) / width) ** 2)


CASES = {
    "line": Case(lambda m, x, p: p["a"] * x + p["b"], {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 0.0}),
    "decay": Case(
        lambda m, x, p: p["a"] * m.exp(-p["b"] * x) + p["c"], {"a": 3.0, "b": 1.2, "c": 0.5},
        {"a": 2.0, "b": 1.0, "c": 0.0}, sigma=0.03, absolute=True,
    ),
    "weighted": Case(
        lambda m, x, p: p["a"] * x ** p["b"], {"a": 1.5, "b": 1.4}, {"a": 1.0, "b": 1.0}, sigma=0.05,
    ),
    "bounds that are not met": Case(
        lambda m, x, p: peak(m, x, p["a"], p["b"], p["c"]), {"a": 2.0, "b": 2.5, "c": 0.7},
        {"a": BOUNDED(1.0, low=0.0), "b": BOUNDED(2.0, low=0.0, high=5.0), "c": BOUNDED(1.0, low=0.01)},
    ),
    "a fixed param": Case(
        lambda m, x, p: peak(m, x, p["a"], p["b"], p["c"]) + p["d"], {"a": 2.0, "b": 2.5, "c": 0.7, "d": 0.3},
        {"a": 1.0, "b": 2.2, "c": 1.0, "d": FIXED(0.3)},
    ),
    "two peaks of one width": Case(
        lambda m, x, p: peak(m, x, p["a"], p["b"], p["c"]) + peak(m, x, p["d"], p["e"], p["f"]),
        {"a": 2.0, "b": 1.2, "c": 0.4, "d": 1.0, "e": 3.4, "f": 0.4},
        {"a": 1.5, "b": 1.0, "c": 0.5, "d": 0.8, "e": 3.5, "f": TIED(lambda p: p["c"])}, {"f": "c"},
    ),
    "a ratio held": Case(
        lambda m, x, p: p["a"] * m.sin(x) + p["b"] * m.cos(x) + p["c"] * x, {"a": 1.0, "b": 0.5, "c": 0.3},
        {"a": 0.5, "b": TIED(lambda p: p["a"] / 2), "c": 0.0}, {"b": "a / 2"},
    ),
    "logistic": Case(
        lambda m, x, p: p["a"] / (1 + m.exp(-p["b"] * (x - p["c"]))), {"a": 3.0, "b": 2.0, "c": 2.2},
        {"a": 2.0, "b": 1.0, "c": 2.0},
    ),
    "Michaelis and Menten": Case(
        lambda m, x, p: p["a"] * x / (p["b"] + x), {"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 0.5}, sigma=0.02,
    ),
    "a wave": Case(
        lambda m, x, p: p["a"] * m.sin(p["b"] * x + p["c"]), {"a": 1.0, "b": 2.1, "c": 0.4},
        {"a": 0.8, "b": 2.0, "c": 0.5},
    ),
    "a parabola": Case(
        lambda m, x, p: p["a"] + p["b"] * x + p["c"] * x**2, {"a": 1.0, "b": -2.0, "c": 0.5}, dict.fromkeys("abc", 0.0),
    ),
    "a step": Case(
        lambda m, x, p: p["a"] * m.arctan(p["b"] * (x - p["c"])), {"a": 1.0, "b": 3.0, "c": 2.0},
        {"a": 0.8, "b": 2.0, "c": 2.2},
    ),
}  # fmt: skip


def rows(case, given, step=1e-30):
    """The slopes of the model by each param that varies: it, and what is tied to it, moved along the imaginary axis."""
    found = []
    for key in (key for key, param in given.items() if param.vary):
        values = given.valuesdict()
        values[key] = values[key] + 1j * step
        for follower, of in case.exprs.items():
            values[follower] = eval(of, {}, dict(values))
        found.append(np.asarray(case.model(np, X, values), complex).imag / step)
    return np.stack(found)


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_lmfit_agrees(name):
    case = CASES[name]
    sigma = None if case.sigma is None else case.sigma * (1 + X)
    y = np.asarray(case.model(np, X, case.truth)) + (0.05 if sigma is None else sigma) * NOISE
    fit = jf.curve_fit(lambda p, x: case.model(jnp, x, p), case.start, (X, y), sigma, case.absolute)
    given = lmfit.Parameters()
    for key in case.start:
        mark = case.start[key]
        bounds = {"min": mark.low, "max": mark.high} if isinstance(mark, BOUNDED) else {}
        given.add(key, float(fit.params[key]), vary=not isinstance(mark, (FIXED, TIED)), expr=case.exprs.get(key),
                  **{k: v for k, v in bounds.items() if v is not None})  # fmt: skip

    def residuals(p):
        return (case.model(np, X, p.valuesdict()) - y) / (1 if sigma is None else sigma)

    def slopes(p):
        return rows(case, p) / (1 if sigma is None else sigma)

    fitter = lmfit.Minimizer(residuals, given, scale_covar=not case.absolute)
    theirs = fitter.leastsq(xtol=1e-14, ftol=1e-14, Dfun=slopes, col_deriv=True)
    errors, links, ends = jf.standard_errors(fit), jf.correlations(fit), jf.intervals(fit, "profile", 0.9)
    for key, param in theirs.params.items():
        if isinstance(case.start[key], FIXED):
            assert np.isnan(errors[key])
            continue
        np.testing.assert_allclose(errors[key], param.stderr, rtol=1e-5)
        for other, link in (param.correl or {}).items():
            np.testing.assert_allclose(links[key][other], link, rtol=1e-5, atol=1e-9)
    steep = rows(case, theirs.params)
    expected = np.sqrt(np.einsum("ix,ij,jx->x", steep, theirs.covar, steep))
    np.testing.assert_allclose(jf.band(fit, X).error, expected, rtol=1e-5)
    if not case.absolute:  # lmfit's test is always that of the scatter
        moving = [key for key, param in theirs.params.items() if param.vary]
        found = lmfit.conf_interval(fitter, theirs, p_names=moving, sigmas=[0.9])
        for key in moving:
            expected = [found[key][0][1], found[key][-1][1]]
            np.testing.assert_allclose(ends[key], expected, rtol=1e-5)


@pytest.mark.soak
def test_bands_agree_with_lmfit():
    y = 2.0 * X + 1.0 + 0.1 * NOISE
    theirs = lmfit.models.LinearModel().fit(y, x=X, slope=1.0, intercept=0.0)
    fit = jf.curve_fit(lambda p, x: p["a"] * x + p["b"], {"a": 1.0, "b": 0.0}, (X, y))
    half = theirs.eval_uncertainty(x=X[::7], sigma=0.95)
    curve, new = jf.band(fit, X[::7]), jf.band(fit, X[::7], kind="prediction")
    np.testing.assert_allclose(curve.high - curve.value, half, rtol=1e-5)
    np.testing.assert_allclose(new.high - new.value, theirs.dely_predicted, rtol=1e-5)
