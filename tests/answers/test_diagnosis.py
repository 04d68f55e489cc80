"""Diagnosis: influence against refits and published numbers, tests of residuals against slow and exact references."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import jaxfit as jf
from jaxfit.statistics import diagnosis
from tests.shared.soak import soaking

# Age at the first word and Gesell score of 21 children: Mickey, Dunn and Clark (1967), doi:10.1016/0010-4809(67)90020-2
AGE = np.array([15, 26, 10, 9, 15, 20, 18, 11, 8, 20, 7, 9, 10, 11, 11, 10, 12, 42, 17, 11, 10.0])
SCORE = np.array([
    95, 71, 83, 91, 102, 87, 93, 100, 104, 94, 113, 96, 83, 84, 102, 100, 105, 57, 121, 86, 100.0,
])  # fmt: skip
LM = jf.optimizers.levenberg_marquardt()


@pytest.fixture(scope="module")
def gesell():
    return jf.curve_fit(jf.models.line, None, (AGE, SCORE))


def test_the_influence_of_the_gesell_scores_is_the_published_one(gesell):
    """R's influence.measures and statsmodels print the same: child 18 decides much, child 19 is an outlier."""
    found = jf.influence(gesell)
    np.testing.assert_allclose([found.leverage[17], found.cooks_distance[17]], [0.6516, 0.6781], atol=5e-5)
    np.testing.assert_allclose([found.studentized[18], found.cooks_distance[18]], [3.6070, 0.2233], atol=5e-5)


def test_influence_is_that_of_refits_without_the_point(gesell):
    """Of a line: Cook's distance and DFFITS compare predictions, whatever the params are called."""
    found, all_of_it, spread = jf.influence(gesell), gesell.predict(AGE), jf.goodness_of_fit(gesell).reduced_chi_squared
    for i in (0, 17, 18):
        there = np.arange(21) != i
        other = jf.curve_fit(jf.models.line, None, (AGE[there], SCORE[there]))
        moved = all_of_it - other.predict(AGE)
        np.testing.assert_allclose(found.cooks_distance[i], np.sum(moved**2) / (2 * spread), rtol=1e-9)
        noise = np.sqrt(jf.goodness_of_fit(other).reduced_chi_squared * found.leverage[i])
        np.testing.assert_allclose(found.dffits[i], moved[i] / noise, rtol=1e-9)
        own = jf.band(other, AGE[i : i + 1], kind="prediction").error[0]
        np.testing.assert_allclose(found.studentized[i], (SCORE[i] - other.predict(AGE)[i]) / own, rtol=1e-9)
    centered = AGE - AGE.mean()
    np.testing.assert_allclose(found.leverage, 1 / 21 + centered**2 / np.sum(centered**2), rtol=1e-12)


@functools.cache
def sets(seed=0):
    """Weighted and masked sets with replicates, as lanes and as one of them alone."""
    rng = np.random.default_rng(seed)
    x = np.repeat(np.arange(6.0), 3)
    y = 0.6 * x**2 + x + 0.3 * rng.normal(size=(4, 18))
    where = np.ones(18, bool)
    where[[4, 9]] = False
    loss, start = jf.losses.chi_squared(jf.models.line, masked=True), {"w": 1.0, "b": 0.0}
    shuffled = rng.permutation(18)
    data = x[shuffled], y[:, shuffled], rng.uniform(0.5, 2, 18), where
    grid = jf.sweep(loss, start, (data[0], jf.Axis("set", data[1]), *data[2:]), optimizer=LM)
    return grid, jf.fit(loss, start, (data[0], data[1][2], *data[2:]), optimizer=LM), data


def test_lanes_are_diagnosed_as_fits_alone():
    grid, alone, _ = sets()
    for ours, theirs in zip(jf.influence(grid), jf.influence(alone), strict=True):
        # Both are fitted to eps**(2/3), 4e-11, of an error; where a number is zero, that is absolute.
        np.testing.assert_allclose(ours[2], theirs, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(jf.diagnostics(grid), jf.diagnostics(alone), strict=True):
        np.testing.assert_allclose([x[2] for x in ours], theirs, rtol=1e-9)


def test_lack_of_fit_is_the_f_test_against_a_mean_for_each_x():
    _, alone, (x, y, sigma, where) = sets()
    kept = x[where], y[2][where], sigma[where]
    means = jf.losses.chi_squared(lambda p, x: p[x.astype(int)])
    large = jf.fit(means, np.zeros(6), kept, optimizer=LM)
    small = jf.fit(jf.losses.chi_squared(jf.models.line), {"w": 1.0, "b": 0.0}, kept, optimizer=LM)
    np.testing.assert_allclose(jf.diagnostics(alone).lack_of_fit, jf.f_test(small, large), rtol=1e-9)
    assert np.isnan(jf.diagnostics(jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())).lack_of_fit.f)


@pytest.mark.parametrize(("above", "below"), [(4, 5), (3, 3), (1, 6), (2, 7)])
def test_as_few_runs_are_counted_over_all_orders_of_the_signs(above, below):
    n = above + below
    signs = [[i in chosen for i in range(n)] for chosen in itertools.combinations(range(n), above)]
    runs = np.array([1 + np.sum(np.diff(np.array(row, int)) != 0) for row in signs])
    for most in range(1, n + 1):
        found = diagnosis._as_few(np.array(float(most)), np.array(float(above)), np.array(float(below)))
        # Sums of exponentials of log-gamma, each rounded by some 10 eps; a share may be zero.
        np.testing.assert_allclose(found, np.mean(runs <= most), atol=1e-12)


def exactly_as_small(statistic, basis):
    """The probability by Imhof (1961), doi:10.1093/biomet/48.3-4.419: of a quadratic form of normal numbers below 0."""
    n = len(basis)
    project = np.eye(n) - basis @ basis.T
    steps = np.diff(np.eye(n), axis=0)
    weights = np.linalg.eigvalsh(project @ (steps.T @ steps - statistic * np.eye(n)) @ project)
    weights = weights[np.abs(weights) > 1e-9]
    angle = lambda u: 0.5 * np.sum(np.arctan(weights * u))  # noqa: E731
    size = lambda u: np.prod((1 + (weights * u) ** 2) ** 0.25)  # noqa: E731
    integral, _ = integrate.quad(lambda u: np.sin(angle(u)) / (u * size(u)), 0, np.inf, limit=400)
    return 0.5 - integral / np.pi


def polynomial(params, x):
    return jnp.polyval(params, x)


@pytest.mark.parametrize(("count", "degree"), soaking([(12, 1), (40, 3)], keep=1, names=2))
def test_the_p_value_of_durbin_and_watson_is_nearly_the_exact_one(count, degree):
    """The beta distribution has the exact mean and variance; what its higher moments miss is below 0.001 for a p-value
    below 0.05, and 0.003 for any (measured: 0.0009 and 0.0022 of 12 points, 0.0002 and 0.0004 of 40)."""
    x, steps = np.linspace(-1.0, 1.0, count), np.diff(np.eye(count), axis=0)
    basis = np.linalg.qr(np.vander(x, degree + 1))[0]
    project = np.eye(count) - basis @ basis.T
    ways = np.linalg.eigh(project @ steps.T @ steps @ project)[1]
    share = np.linspace(0.02, 0.6, 16)[:, None]  # of the roughest residuals; the rest are the smoothest
    y = np.sqrt(1 - share) * ways[:, degree + 1] + np.sqrt(share) * ways[:, -1]
    fits = [jf.fit(jf.losses.rss(polynomial), np.zeros(degree + 1), (x, row), optimizer=LM) for row in y]
    tests = [jf.diagnostics(fit).durbin_watson for fit in fits]
    statistic, p_value = (np.array([getattr(test, name) for test in tests]) for name in ("statistic", "p_value"))
    left = y - y @ basis @ basis.T
    np.testing.assert_allclose(statistic, np.sum(np.diff(left) ** 2, 1) / np.sum(left**2, 1), rtol=1e-7)
    exact = np.array([exactly_as_small(float(d), basis) for d in statistic])
    assert ((exact > 1e-4) & (exact < 0.05)).sum() >= 2
    assert (np.abs(p_value - exact) < np.where(exact < 0.05, 0.001, 0.003)).all()


@pytest.mark.soak
def test_good_fits_raise_no_more_alarms_than_promised():
    """Of 1,000 sets one in a hundred each, within four standard deviations; the runs are signs that a fit makes
    change more often, and so raise fewer."""
    x = np.repeat(np.arange(12.0), 2)
    y = 2 * np.exp(-0.3 * x) + 0.1 * np.random.default_rng(5).normal(size=(1000, 24))
    loss, start = jf.losses.rss(jf.models.exponential_decay), {"amplitude": 2.0, "rate": 0.3}
    found = jf.diagnostics(jf.sweep(loss, start, (x, jf.Axis("set", y)), optimizer=LM))
    most = 0.01 + 4 * np.sqrt(0.01 * 0.99 / 1000)
    for test, least in zip(found, (0.001, 0.0, 0.001), strict=True):
        assert least <= float((test.p_value < 0.01).mean()) <= most


def test_a_report_tells_what_matters_and_nothing_else(gesell):
    assert "note" not in str(jf.report(gesell))
    _, alone, _ = sets()
    text = str(jf.report(alone))
    assert "lack of fit F(4, 10)" in text and "residuals follow a trend: Durbin-Watson 0.77 (p = 0.0008)" in text
    x, y = np.append(AGE, 90.0), np.append(SCORE, 120.0)
    assert "without y[21] (x = 90) the params would leave" in str(jf.report(jf.curve_fit(jf.models.line, None, (x, y))))
    step = jf.curve_fit(lambda p, x: p["a"] + p["b"] * (x > 30), {"a": 1.0, "b": 1.0}, (AGE, SCORE))
    assert "y[17] (x = 42) has a leverage near 1" in str(jf.report(step))


def test_correlated_params_are_named_with_what_the_data_determine():
    """Of a line far from zero: its height at the mean of x, whose error is s / sqrt(n)."""
    rng = np.random.default_rng(3)
    x = 1900.0 + np.arange(30)
    y = 0.5 * x + rng.normal(size=30)
    report = jf.report(jf.curve_fit(jf.models.line, None, (x, y)))
    ((factors, value, error),) = report.combinations()
    assert list(factors) == ["b", "w"]
    np.testing.assert_allclose([factors["w"], value], [x.mean(), y.mean()], rtol=1e-8)
    np.testing.assert_allclose(error, np.sqrt(report.goodness.reduced_chi_squared / 30), rtol=1e-6)
    assert "b + 1914.5 w = " in str(report)
    assert not jf.report(jf.curve_fit(jf.models.line, None, (x - 1910, y))).combinations()


def test_counts_are_diagnosed_by_their_pearson_residuals():
    """R's glm: cooks.distance is (r / (1 - h))**2 h / k of Pearson's r, for a dispersion of one."""
    x = np.arange(10.0)
    y = np.array([2, 3, 6, 7, 8, 9, 10, 12, 15, 30.0])
    fit = jf.fit(
        jf.losses.poisson(lambda p, x: jnp.exp(p["a"] + p["b"] * x)), {"a": 1.0, "b": 0.1}, (x, y), optimizer=LM
    )
    mean = np.asarray(fit.predict(x))
    root = np.sqrt(mean)[:, None] * np.stack([np.ones(10), x], 1)
    leverage = np.sum(np.linalg.qr(root)[0] ** 2, 1)
    found = jf.influence(fit)
    np.testing.assert_allclose(found.leverage, leverage, rtol=1e-6)
    expected = ((y - mean) / np.sqrt(mean) / (1 - leverage)) ** 2 * leverage / 2
    np.testing.assert_allclose(found.cooks_distance, expected, rtol=1e-6)


def test_losses_without_residuals_are_refused():
    fit = jf.fit(jf.losses.huber(jf.models.line), {"w": 1.0, "b": 0.0}, jf.datasets.thermometer(), optimizer=LM)
    for verb in (jf.influence, jf.diagnostics):
        with pytest.raises(TypeError, match="only losses of squares and of counts"):
            verb(fit)


def test_several_residuals_a_point_have_no_neighbors():
    """Outputs that share their noise would look like a trend, interleaved as they are."""
    x = np.arange(12.0)
    noise = np.random.default_rng(0).normal(size=12)
    y = np.stack([2 * x + noise, 2 * x + noise], 1)
    loss = jf.losses.rss(lambda p, x: jnp.stack([p["w"] * x, p["w"] * x], 1))
    fit = jf.fit(loss, {"w": 1.0}, (x, y), optimizer=LM)
    assert np.isnan(jf.diagnostics(fit).durbin_watson.p_value) and "trend" not in str(jf.report(fit))
    assert jf.influence(fit).cooks_distance.shape == (12, 2)


def test_lack_of_fit_does_not_depend_on_the_size_of_y():
    x, y = np.repeat(np.arange(5.0), 2), np.array([0, 0.2, 1.1, 0.9, 2.4, 2.1, 2.8, 3.1, 4.2, 4.0])
    plain = jf.diagnostics(jf.curve_fit(jf.models.line, None, (x, y))).lack_of_fit
    for size in (1e-40, 1e20, 1e150):
        found = jf.diagnostics(jf.curve_fit(jf.models.line, None, (x, size * y))).lack_of_fit
        np.testing.assert_allclose(found, plain, rtol=1e-9)


def test_a_point_beside_a_line_through_all_others_has_an_infinite_studentized_residual():
    found = jf.influence(jf.curve_fit(jf.models.line, None, (np.arange(5.0), np.array([0, 1, 5, 3, 4.0]))))
    assert np.abs(found.studentized).argmax() == 2 and found.studentized[2] > 1e6
    np.testing.assert_allclose(found.studentized[[0, 4]], -np.sqrt(2 / 7), rtol=1e-9)  # of residuals 6 / 5 - 2 / 5


def test_rounding_alone_is_no_noise_to_test():
    exact = jf.curve_fit(jf.models.line, None, (np.arange(6.0) // 2, 0.3 * (np.arange(6) // 2) + 0.1))
    found, points = jf.diagnostics(exact), jf.influence(exact)
    assert np.isnan([found.lack_of_fit.p_value, found.runs.p_value, found.durbin_watson.p_value]).all()
    assert np.isnan(points[1:]).all() and np.isfinite(points.leverage).all()


@pytest.mark.soak
def test_residuals_of_next_to_nothing_of_their_sigma_show_no_trend():
    """Counts that are all zero leave a mean that vanishes, so that all residuals are equal; nothing is tested then."""
    loss = jf.losses.poisson(lambda params, x: params["m"] * jnp.ones_like(x))
    lm = jf.optimizers.levenberg_marquardt()
    fit = jf.fit(loss, {"m": 1.0}, (np.arange(5.0), np.zeros(5)), optimizer=lm, steps=100)
    tests = jf.diagnostics(fit)
    assert np.isnan(tests.durbin_watson.p_value) and np.isnan(tests.runs.p_value)
    assert "trend" not in str(jf.report(fit))
