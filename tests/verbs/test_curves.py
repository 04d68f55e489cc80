"""The curves that people fit: against what defines them, against SciPy, and their sums."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import jaxfit as jf
from jaxfit import models

X = np.linspace(0.1, 4, 9)
PARAMS = {
    models.gaussian: {"height": 2.0, "center": 1.5, "sigma": 0.7},
    models.lorentzian: {"height": 2.0, "center": 1.5, "gamma": 0.7},
    models.voigt: {"area": 2.0, "center": 1.5, "sigma": 0.7, "gamma": 0.3},
    models.exponential_decay: {"amplitude": 2.0, "rate": 0.7},
    models.exponential_growth: {"amplitude": 2.0, "rate": 0.7},
    models.exponential_rise: {"height": 2.0, "rate": 0.7},
    models.logistic: {"capacity": 2.0, "rate": 0.7, "midpoint": 1.5},
    models.gompertz: {"capacity": 2.0, "rate": 0.7, "inflection": 1.5},
    models.power_law: {"scale": 2.0, "exponent": 0.7},
    models.michaelis_menten: {"vmax": 2.0, "km": 1.5},
    models.hill: {"top": 2.0, "half": 1.5, "steepness": 0.7},
    models.damped_oscillation: {"amplitude": 2.0, "rate": 0.7, "frequency": 0.4, "phase": 0.3},
    models.constant: {"offset": 2.0},
}


def at(model, x, **changed):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(model)(PARAMS[model] | changed, np.asarray(x, float)))


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        (models.gaussian, [1.5, 1.5 + 0.7 * np.sqrt(2 * np.log(2)), 1.5 - 0.7], [2.0, 1.0, 2 / np.sqrt(np.e)]),
        (models.lorentzian, [1.5, 2.2, 0.1], [2.0, 1.0, 0.4]),
        (models.exponential_decay, [0, np.log(2) / 0.7, -1 / 0.7], [2.0, 1.0, 2 * np.e]),
        (models.exponential_growth, [0, np.log(2) / 0.7, 1 / 0.7], [2.0, 4.0, 2 * np.e]),
        (models.exponential_rise, [0, np.log(2) / 0.7, 1e3], [0.0, 1.0, 2.0]),
        (models.logistic, [1.5, -1e3, 1e3, 1.5 + np.log(3) / 0.7], [1.0, 0.0, 2.0, 1.5]),
        (models.gompertz, [1.5, -1e3, 1e3], [2 / np.e, 0.0, 2.0]),
        (models.power_law, [0, 1, 32], [0.0, 2.0, 2 * 32**0.7]),
        (models.michaelis_menten, [0, 1.5, 4.5], [0.0, 1.0, 1.5]),
        (models.hill, [0, 1.5, 1.5 * 3 ** (1 / 0.7)], [0.0, 1.0, 1.5]),
        (models.damped_oscillation, [0, 1.25, 2.5], 2 * np.cos(0.3) * np.array([1, -1, 1]) * np.exp(-0.7 * X[:1] * 0)),
        (models.constant, [0, 5], [2.0, 2.0]),
    ],
    ids=str,
)
def test_a_curve_has_its_heights_half_heights_and_limits_where_they_belong(model, x, expected):
    if model is models.damped_oscillation:
        expected = expected * np.exp(-0.7 * np.asarray(x))
    np.testing.assert_allclose(at(model, x), expected, rtol=1e-12, atol=1e-15)


def test_the_voigt_peak_is_scipys_and_so_are_its_slopes():
    x = np.concatenate([-np.geomspace(1e-3, 1e3, 40), [0.0], np.geomspace(1e-3, 1e3, 40)])
    for sigma, gamma in [(1.0, 0.0), (1.0, 1e-6), (1.0, 0.1), (0.3, 2.0), (1e-3, 1.0), (-0.5, -0.5)]:
        ours = at(models.voigt, x, area=1.0, center=0.0, sigma=sigma, gamma=gamma)
        theirs = scipy.special.voigt_profile(x, abs(sigma), abs(gamma))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12 * theirs.max())
    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacfwd(models.voigt))(PARAMS[models.voigt], X)
    h = 1e-5
    for name, column in {"center": 0, "sigma": 1, "gamma": 2}.items():
        up, down = (scipy.special.voigt_profile(X - 1.5 - s[0], 0.7 + s[1], 0.3 + s[2]) for s in h * np.eye(3)[column]
                    * np.array([[1.0], [-1.0]]))  # fmt: skip
        np.testing.assert_allclose(slopes[name], 2 * (up - down) / (2 * h), rtol=1e-7, atol=1e-8)


def test_a_voigt_peak_has_its_area():
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20_001)[1:-1]  # x = tan(angle) reaches all the tails
    heights = at(models.voigt, np.tan(angle), area=3.0, center=0.0)
    assert np.trapezoid(heights / np.cos(angle) ** 2, angle) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("model", PARAMS, ids=str)
def test_every_slope_is_finite_also_at_a_dose_of_zero(model):
    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacfwd(model))(PARAMS[model], np.array([0.0, 1.0]))
    assert set(slopes) == set(PARAMS[model]) and all(np.isfinite(s).all() for s in slopes.values())


def test_a_falling_hill_curve_starts_at_its_top():
    np.testing.assert_allclose(at(models.hill, [0, 1.5, 1e9], steepness=-2.0), [2.0, 1.0, 0.0], atol=1e-15)


def test_a_peak_of_two_dimensions_is_a_product_and_may_be_round():
    x = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0), indexing="ij"), -1).reshape(-1, 2)
    own = {"height": 3.0, "center": np.array([2.0, 1.5]), "sigma": np.array([0.5, 2.0])}
    parts = [at(models.gaussian, x[:, i], height=1.0, center=own["center"][i], sigma=own["sigma"][i]) for i in (0, 1)]
    np.testing.assert_allclose(models.gaussian_2d(own, x), 3 * parts[0] * parts[1], rtol=1e-5, atol=1e-12)
    ring = models.gaussian_2d(own | {"sigma": 0.5}, own["center"] + 0.7 * np.array([[1.0, 0], [0, -1], [0.6, 0.8]]))
    np.testing.assert_allclose(ring, 3 * np.exp(-0.98), rtol=1e-5)


def test_several_curves_are_the_sum_of_each():
    params = {"height": np.array([1.0, -2.0]), "center": np.array([1.0, 3.0]), "sigma": np.array([0.5, 0.2])}
    each = [models.gaussian({name: v[i] for name, v in params.items()}, X) for i in (0, 1)]
    np.testing.assert_allclose(models.gaussians(2)(params, X), each[0] + each[1], rtol=1e-5)


def test_sums_have_the_params_of_their_parts_side_by_side_or_under_names():
    peak, line = PARAMS[models.gaussian], {"w": 0.5, "b": -1.0}
    expected = models.gaussian(peak, X) + models.line(line, X)
    plain, named = models.gaussian + models.line, models.sum(peak=models.gaussian, background=models.line)
    assert plain.names == ("height", "center", "sigma", "w", "b") and named.names == ("peak", "background")
    np.testing.assert_array_equal(plain(peak | line, X), expected)
    np.testing.assert_array_equal(models.sum(models.gaussian, models.line)(peak | line, X), expected)
    np.testing.assert_array_equal(named({"peak": peak, "background": line}, X), expected)
    three = models.gaussian + models.line + models.exponential_decay
    assert str(three) == "gaussian + line + exponential_decay" and three == models.gaussian + (
        models.line + models.exponential_decay
    )


def test_equal_curves_are_equal_values_that_can_be_kept_in_a_file():
    def build():
        return [*PARAMS, models.gaussians(2), models.exponentials(2), models.gaussian + models.polynomial(2)]

    assert build() == build() and len(set(build())) == len(build())
    assert pickle.loads(pickle.dumps(build())) == build()
    assert str(models.sum(a=models.voigts(2), b=models.constant)) == "sum(a=voigts(2), b=constant)"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: models.gaussian({"height": 1, "mu": 2, "sigma": 3}, X),
            ValueError,
            "params 'height', 'mu', 'sigma', bu",
        ),
        (
            lambda: models.gaussian([1, 2, 3], X),
            ValueError,
            "gaussian got 'list', but its params are a dict with 'heig",
        ),
        (
            lambda: models.gaussians(2)(PARAMS[models.gaussian], X),
            ValueError,
            r"'height'\] has shape \(\); it takes \(2,",
        ),
        (
            lambda: models.gaussian + models.voigt,
            ValueError,
            "gaussian and voigt both have a param 'center'; give each",
        ),
        (lambda: models.gaussian + models.dense((1, 1)), TypeError, "cannot be added to a model; add one of models"),
        (lambda: 3 + models.gaussian, TypeError, "3 cannot be added to a model"),
        (lambda: models.sum(), ValueError, "sum got no parts"),
        (lambda: models.sum(models.line, 3), TypeError, "sum: part 1 is 3"),
        (lambda: models.sum(peak=np.sin), TypeError, "sum: part 'peak' is <ufunc 'sin'>"),
        (lambda: models.gaussians(0), ValueError, "count is 0; it must be 1 or more"),
        (lambda: models.exponentials(2.0), TypeError, "count is 2.0; it must be a whole number"),
        (
            lambda: models.gaussian.guess(X, X[1:]),
            ValueError,
            r"of shape \(9,\) and y of shape \(8,\); it takes x \(n,\) and",
        ),
        (lambda: models.gaussian.guess(X[:, None], X), ValueError, r"it takes x \(n,\) and y \(n,\)"),
        (lambda: models.gaussian_2d.guess(X, X), ValueError, r"it takes x \(n, 2\) and y \(n,\)"),
        (lambda: models.gaussian.guess([], []), ValueError, r"x of shape \(0,\)"),
        (
            lambda: models.gaussian.guess(X, np.where(X > 3, np.nan, X)),
            ValueError,
            "y holds NaN or infinity; drop those",
        ),
        (lambda: models.gaussian.guess(X, X, where=X), ValueError, "where has shape .* one boolean for each of the 9"),
        (
            lambda: jf.curve_fit(np.polyval, None, (X, X)),
            TypeError,
            "start is None, but poly.* guesses nothing",
        ),
    ],
)
def test_bad_arguments_say_what_is_wrong_and_what_to_do(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_curves_keep_their_type_under_jit():
    value = jax.jit(models.gaussian)(PARAMS[models.gaussian], jnp.asarray(X))
    assert value.dtype == np.float32 and value.shape == X.shape
