"""Profiles, the bootstrap and Monte Carlo: against lmfit, the linear theory, and coverage over simulated data."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

LM = jf.optimizers.levenberg_marquardt()
X = np.linspace(0.0, 3.0, 20)
TRUTH = {"a": 2.0, "b": 1.0}
START = {"a": 1.0, "b": 0.7}
SETS = 2000


def decay(params, x):
    return params["a"] * jnp.exp(-params["b"] * x)


LOSS = jf.losses.rss(decay)


def simulated(count, noise, seed):
    return 2.0 * np.exp(-X) + noise * np.random.default_rng(seed).normal(size=(count, X.size))


@pytest.fixture(scope="module")
def curve():
    return jf.fit(LOSS, START, (X, simulated(1, 0.15, 3)[0]), optimizer=LM)


def flat(tree):
    return np.array([[end for end in tree[name]] for name in "ab"])


def covered(ends):
    """The share of data sets whose interval holds the truth, for each param."""
    ends = {name: ends[f"params.{name}"] for name in TRUTH}
    return [float(((e.sel(end="low") < TRUTH[n]) & (TRUTH[n] < e.sel(end="high"))).mean()) for n, e in ends.items()]


@pytest.mark.soak
def test_profile_intervals_agree_with_lmfit(curve):
    lmfit = pytest.importorskip("lmfit")
    x, y = curve.problem.data
    given = lmfit.Parameters()
    given.add_many(("a", 1.0), ("b", 0.7))
    fitter = lmfit.Minimizer(lambda p: p["a"] * np.exp(-p["b"] * x) - y, given)
    found = lmfit.conf_interval(fitter, fitter.minimize(xtol=1e-12, ftol=1e-12), sigmas=[0.9])
    expected = [[found[name][0][1], found[name][-1][1]] for name in "ab"]
    np.testing.assert_allclose(flat(jf.intervals(curve, "profile", 0.9)), expected, rtol=1e-5)


@pytest.mark.soak
def test_a_profile_is_where_refits_with_a_fixed_param_end(curve):
    found = jf.profile(curve, points=5, reach=2.0)["b"]
    scatter = curve.loss / (X.size - 2)
    for value, tau in zip(found.values[:2], found.tau[:2], strict=True):
        other = jf.fit(LOSS, {"a": 2.0, "b": jf.Fixed(float(value))}, curve.problem.data, optimizer=LM)
        np.testing.assert_allclose(tau, -np.sqrt((other.loss - curve.loss) / scatter), rtol=1e-6)
    assert found.tau[2] == 0 and (np.diff(found.tau) > 0).all()


@pytest.mark.soak
def test_an_end_that_is_never_reached_is_open_and_one_on_a_bound_is_the_bound():
    def saturating(params, x):
        return params["a"] * (1 - jnp.exp(-jnp.exp(params["b"]) * x))

    x = np.linspace(2.0, 6.0, 12)
    y = 1 - np.exp(-1.2 * x) + 0.1 * np.tile([1.0, -1.0, -1.0, 1.0], 3)
    fit = jf.curve_fit(saturating, {"a": 1.0, "b": 0.5}, (x, y))
    low, high = jf.intervals(fit, "profile")["b"]
    assert high == np.inf and -3 < low < fit.params["b"]
    fit = jf.curve_fit(saturating, {"a": 1.0, "b": jf.Bounded(0.5, high=6.0)}, (x, y))
    assert jf.intervals(fit, "profile")["b"].high == 6.0


@pytest.mark.soak
def test_one_param_alone_and_fixed_ones():
    fit = jf.fit(LOSS, {"a": jf.Fixed(2.0), "b": 0.7}, (X, simulated(1, 0.15, 3)[0]), optimizer=LM)
    found = jf.intervals(fit, "profile")
    assert np.isnan(found["a"]).all()
    low, high = found["b"]
    scale = fit.loss / (X.size - 1)
    reach = jf.intervals(fit)["b"].high - fit.params["b"]
    t = reach / jf.standard_errors(fit)["b"]
    for end in (low, high):
        loss = np.sum((2.0 * np.exp(-end * X) - fit.problem.data[1]) ** 2)
        np.testing.assert_allclose((loss - fit.loss) / scale, t**2, rtol=1e-6)


@pytest.mark.soak
def test_refits_to_drawn_noise_scatter_as_the_linear_theory_says():
    noise = 1e-3  # so small that the curve is straight over it
    fit = jf.fit(LOSS, START, (X, simulated(1, noise, 4)[0]), optimizer=LM)
    errors = jf.standard_errors(fit)
    for found in (jf.monte_carlo(fit, 0, 4000), jf.bootstrap(fit, 0, 4000)):
        assert found.converged.all()
        for name in TRUTH:
            assert abs(found.params[name].std() / errors[name] - 1) < 0.06  # three errors of 4,000 and of 20 residuals
            assert abs(found.params[name].mean() - fit.params[name]) < 0.06 * errors[name]
    wald, drawn = jf.intervals(fit)["a"], jf.intervals(fit, "monte_carlo", key=0, samples=4000)["a"]
    assert abs((drawn.high - drawn.low) / (wald.high - wald.low) - 1) < 0.06


@pytest.mark.soak
def test_refits_are_drawn_from_their_key(curve):
    one, two, other = (jf.bootstrap(curve, key, 4000).params["a"] for key in (0, 0, 1))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.soak
def test_pairs_know_noise_that_differs_from_point_to_point():
    x = np.linspace(1.0, 2.0, 400)
    y = 2.0 * x + 0.1 * (x - 1) * np.random.default_rng(5).normal(size=400)
    fit = jf.fit(jf.losses.rss(lambda p, x: p["a"] * x), {"a": 1.0}, (x, y), optimizer=LM)
    found = jf.bootstrap(fit, 0, 2000, kind="pairs").params["a"].std()
    residuals = y - fit.params["a"] * x
    sandwich = np.sqrt(np.sum((x * residuals) ** 2)) / np.sum(x**2)
    assert abs(found / sandwich - 1) < 0.06 and abs(found / jf.standard_errors(fit)["a"] - 1) > 0.06


@pytest.fixture(scope="module")
def many():
    return jf.sweep(LOSS, START, (X, jf.Axis("set", simulated(SETS, 0.2, 6))), optimizer=LM, steps=60)


@pytest.mark.soak
def test_nineteen_of_twenty_profile_intervals_hold_the_truth(many):
    ends = jf.intervals(many, "profile")
    assert all(0.935 <= share <= 0.965 for share in covered(ends))
    own = jf.intervals(jf.lane(many, set=7), "profile")
    np.testing.assert_allclose([ends[f"params.{n}"].isel(set=7) for n in "ab"], flat(own), rtol=1e-7)


@pytest.mark.soak
def test_nineteen_of_twenty_bootstrap_intervals_hold_the_truth():
    x = np.linspace(0.0, 3.0, 40)
    y = 2.0 * np.exp(-x) + 0.2 * np.random.default_rng(8).normal(size=(SETS, 40))
    grid = jf.sweep(LOSS, START, (x, jf.Axis("set", y)), optimizer=LM, steps=60)
    for method in ("bootstrap", "monte_carlo"):
        shares = covered(jf.intervals(grid, method, key=1, samples=400))
        assert all(0.935 <= share <= 0.965 for share in shares), (method, shares)


def test_as_many_points_as_params_have_no_interval_by_any_method():
    loss, x = jf.losses.rss(lambda p, x: p["a"] * x), np.array([2.0])
    fit = jf.fit(loss, {"a": 1.0}, (x, np.array([5.0])), optimizer=LM)
    for method in ("wald", "profile", "bootstrap", "monte_carlo"):
        given = {"key": 0, "samples": 20} if method in ("bootstrap", "monte_carlo") else {}
        assert np.isnan(jf.intervals(fit, method, **given)["a"]).all(), method
    for kind in ("residuals", "pairs"):
        found = jf.bootstrap(fit, 0, 20, kind=kind)
        assert np.isnan(found.params["a"]).all() and not found.converged.any()


@pytest.mark.soak
def test_nineteen_of_twenty_wald_intervals_of_a_line_hold_the_truth():
    y = 2.0 * X + 1.0 + 0.3 * np.random.default_rng(9).normal(size=(SETS, X.size))
    loss = jf.losses.rss(lambda p, x: p["a"] * x + p["b"])
    grid = jf.sweep(loss, START, (X, jf.Axis("set", y)), optimizer=LM, steps=20)
    assert all(0.935 <= share <= 0.965 for share in covered(jf.intervals(grid)))


REFUSED = {
    "no key": (lambda fit: jf.intervals(fit, "bootstrap"), ValueError, "needs a key: pass key=0"),
    "half a sample": (lambda fit: jf.bootstrap(fit, 0, 0.5), ValueError, "bootstrap: samples is 0.5"),
    "no kind": (lambda fit: jf.bootstrap(fit, 0, kind="cases"), ValueError, "kind is 'cases'"),
    "too many samples": (lambda fit: jf.bootstrap(fit, 0, 2**30), ValueError, "ask for fewer samples"),
    "no points": (lambda fit: jf.profile(fit, points=1), ValueError, "profile: points is 1"),
    "no reach": (lambda fit: jf.profile(fit, reach=0), ValueError, "reach is 0"),
    "a grid": (lambda fit: jf.profile([fit]), TypeError, "profile takes one fit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_remedy(case, curve):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(curve)


@pytest.mark.soak
def test_a_huber_fit_has_residuals_to_draw_but_no_profile():
    """Outliers to one side, which pull no refit away from the fit, nor make it scatter more than its errors say."""
    x = np.linspace(0.0, 3.0, 400)
    y = 2.0 * np.exp(-x) + 0.1 * np.random.default_rng(3).normal(size=400)
    y[::10] += 1.0
    fit = jf.fit(jf.losses.huber(decay, delta=0.15), START, (x, y), optimizer=LM)
    found, errors = jf.bootstrap(fit, 0, 2000).params, jf.standard_errors(fit)
    for name in TRUTH:
        assert abs(found[name].std() / errors[name] - 1) < 0.06
        assert abs(found[name].mean() - fit.params[name]) < 0.2 * errors[name]
    with pytest.raises(TypeError, match="a profile is of sums of squares"):
        jf.profile(fit)
