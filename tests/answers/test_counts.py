"""Counts and other likelihoods: fits, errors, intervals and reports against closed forms, R's glm and a plain IRLS.

The numbers of R are those that `summary(glm(...))` prints for its own data; `irls` below recomputes them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from scipy.special import xlogy

import jaxfit as jf
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt()


def log_linear(params, design):
    return jnp.exp(design @ params)


def straight(params, x):
    return params["a"] + params["b"] * x


def constant(params, x):
    return params["m"] * jnp.ones_like(x)


def chance(params, x):
    return jax.nn.sigmoid(params["a"] + params["b"] * x)


POISSON = jf.losses.poisson(log_linear)


def columns(*factors):
    """Treatment contrasts as R makes them: an intercept, and for each factor a column for each level but the first."""
    levels = [f == level for f in factors for level in range(1, max(f) + 1)]
    return np.stack([np.ones(len(factors[0])), *levels], axis=1).astype(float)


def irls(design, y, steps=30):
    """Poisson regression with a log link, the slow and obvious way: coefficients and their covariance."""
    b = np.linalg.lstsq(design, np.log(y + 0.5), rcond=None)[0]
    for _ in range(steps):
        mean = np.exp(design @ b)
        information = design.T @ (mean[:, None] * design)
        b = b + np.linalg.solve(information, design.T @ (y - mean))
    return b, np.linalg.inv(information)


# Dobson (1990), An Introduction to Generalized Linear Models, page 93: the example of ?glm
DOBSON = np.array([18, 17, 15, 20, 10, 20, 25, 13, 12]), columns(np.tile([0, 1, 2], 3), np.repeat([0, 1, 2], 3))
# Tippett (1950), Technological Applications of Statistics, page 106: `warpbreaks`, wool A and B, tension L, M and H
WARPS = np.array([
    26, 30, 54, 25, 70, 52, 51, 26, 67, 18, 21, 29, 17, 12, 18, 35, 30, 36, 36, 21, 24, 18, 10, 43, 28, 15, 26,
    27, 14, 29, 19, 29, 31, 41, 20, 44, 42, 26, 19, 16, 39, 28, 21, 39, 29, 20, 21, 24, 17, 13, 15, 15, 16, 28,
]), columns(np.repeat([0, 1], 27), np.tile(np.repeat([0, 1, 2], 9), 2))  # fmt: skip
# Bliss (1935), doi:10.1111/j.1744-7348.1935.tb07713.x: log10 of the dose, killed, exposed
BEETLES = (
    np.array([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839]),
    np.array([6, 13, 18, 28, 52, 53, 61, 60]), np.array([59, 60, 62, 56, 63, 59, 62, 60]),
)  # fmt: skip


@pytest.fixture(scope="module")
def dobson():
    return jf.fit(POISSON, np.zeros(5), (DOBSON[1], DOBSON[0]), optimizer=LM, steps=100)


@pytest.fixture(scope="module")
def warps():
    return jf.fit(POISSON, np.zeros(4), (WARPS[1], WARPS[0]), optimizer=LM, steps=100)


@pytest.fixture(scope="module")
def steady():
    y = np.array([3, 0, 2, 3, 5, 1])
    return jf.fit(jf.losses.poisson(constant), {"m": 1.0}, (np.arange(6.0), y), optimizer=LM, steps=50)


@pytest.mark.soak
def test_dobsons_counts_have_the_numbers_of_glm(dobson):
    assert dobson.status == jf.Status.CONVERGED
    np.testing.assert_allclose(dobson.params, [3.04452, -0.45426, -0.29299, 0, 0], atol=5e-6)
    np.testing.assert_allclose(jf.standard_errors(dobson), [0.1709, 0.2022, 0.1927, 0.2, 0.2], atol=5e-5)
    found = jf.goodness_of_fit(dobson)
    np.testing.assert_allclose([found.deviance, found.aic], [5.1291, 56.76], atol=4e-3)
    assert found.degrees_of_freedom == 4


def test_the_breaks_of_yarn_have_the_numbers_of_glm(warps):
    np.testing.assert_allclose(warps.params, [3.69196, -0.20599, -0.32132, -0.51849], atol=5e-6)
    np.testing.assert_allclose(jf.standard_errors(warps), [0.04541, 0.05157, 0.06027, 0.06396], atol=5e-6)
    found = jf.goodness_of_fit(warps)
    np.testing.assert_allclose([found.deviance, found.aic], [210.39, 493.06], atol=5e-3)


def test_with_the_scatter_of_the_counts_the_errors_are_those_of_quasipoisson(warps):
    mean = np.exp(WARPS[1] @ irls(WARPS[1], WARPS[0])[0])
    dispersion = ((WARPS[0] - mean) ** 2 / mean).sum() / 50
    np.testing.assert_allclose(jf.goodness_of_fit(warps).reduced_chi_squared, dispersion, rtol=1e-9)
    np.testing.assert_allclose(dispersion, 4.261537, rtol=5e-6)  # R's is of the weights before its last step
    wide = jf.covariance(warps, absolute_sigma=False)
    np.testing.assert_allclose(wide, dispersion * jf.covariance(warps), rtol=1e-6)
    assert np.isnan(jf.goodness_of_fit(warps, absolute_sigma=False).aic)  # as R's NA: it is no likelihood


@pytest.mark.parametrize("name", soaking(["dobson", "warps"], keep=("warps",)))
def test_the_covariance_is_the_inverse_of_the_information(name, request):
    fit, data = request.getfixturevalue(name), {"dobson": DOBSON, "warps": WARPS}[name]
    expected, covariance = irls(data[1], data[0])
    np.testing.assert_allclose(fit.params, expected, atol=1e-9)
    # an entry that is zero but for rounding has no relative error: atol is below 1e-8 of the smallest other
    np.testing.assert_allclose(jf.covariance(fit), covariance, rtol=1e-8, atol=1e-14)


@pytest.mark.soak
def test_beetles_have_the_numbers_of_a_logistic_regression_by_glm():
    fit = jf.fit(jf.losses.binomial(chance), {"a": 0.0, "b": 0.0}, BEETLES, optimizer=LM, steps=100)
    np.testing.assert_allclose([fit.params["a"], fit.params["b"]], [-60.717, 34.270], atol=5e-4)
    errors, found = jf.standard_errors(fit), jf.goodness_of_fit(fit)
    np.testing.assert_allclose([errors["a"], errors["b"]], [5.181, 2.912], atol=5e-4)
    np.testing.assert_allclose([found.deviance, found.aic], [11.232, 41.430], atol=5e-4)


def test_a_constant_rate_has_its_closed_forms(steady):
    y = np.array([3, 0, 2, 3, 5, 1])
    mean, n = y.mean(), len(y)
    np.testing.assert_allclose(steady.params["m"], mean, rtol=1e-12)
    np.testing.assert_allclose(jf.standard_errors(steady)["m"], np.sqrt(mean / n), rtol=1e-12)
    log_l = scipy.stats.poisson.logpmf(y, mean).sum()
    best = scipy.stats.poisson.logpmf(y, np.where(y > 0, y, 1e-300)).sum()
    found = jf.goodness_of_fit(steady)
    np.testing.assert_allclose(found.deviance, 2 * (best - log_l), rtol=1e-10)
    np.testing.assert_allclose([found.aic, found.bic], [2 - 2 * log_l, np.log(n) - 2 * log_l], rtol=1e-10)
    np.testing.assert_allclose(found.chi_squared, ((y - mean) ** 2 / mean).sum(), rtol=1e-10)
    np.testing.assert_allclose(found.p_value, scipy.stats.chi2.sf(found.deviance, n - 1), rtol=1e-10)
    residuals = jf.residuals(steady)
    # residuals of a few counts: 1e-12 is some thousand roundings of a count
    np.testing.assert_allclose(residuals.raw, y - mean, atol=1e-12)
    np.testing.assert_allclose(residuals.standardized, (y - mean) / np.sqrt(mean * (1 - 1 / n)), atol=1e-12)


def test_the_profile_of_a_rate_ends_where_its_deviance_has_risen(steady):
    total, n = 14, 6

    def rise(m):
        return 2 * (n * m - total - total * np.log(n * m / total)) - scipy.stats.chi2.ppf(0.95, 1)

    low, high = scipy.optimize.brentq(rise, 0.1, total / n), scipy.optimize.brentq(rise, total / n, 9)
    found = jf.intervals(steady, "profile")["m"]
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=1e-5)
    wald = jf.intervals(steady)["m"]
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(total) / n
    np.testing.assert_allclose([wald.low, wald.high], [total / n - half, total / n + half], rtol=1e-10)


@pytest.mark.soak
def test_counts_drawn_from_the_fit_scatter_as_poisson_numbers_do(steady):
    drawn = jf.monte_carlo(steady, key=1, samples=4000).params["m"] * 6  # sums of 6 numbers of mean 14 / 6
    se = np.sqrt(14 / 4000)
    assert abs(drawn.mean() - 14) < 4 * se
    assert abs(drawn.var() - 14) < 4 * 14 * np.sqrt(2 / 4000)
    assert (np.abs(drawn - np.round(drawn)) < 1e-6).all()


@pytest.mark.soak
def test_a_bootstrap_of_counts_draws_points_again(steady):
    drawn = jf.bootstrap(steady, key=0, samples=4000).params["m"]
    y = np.array([3, 0, 2, 3, 5, 1])
    assert abs(drawn.var() - y.var() / 6) < 4 * y.var() / 6 * np.sqrt(2 / 4000) * 1.5
    assert (np.abs(6 * drawn - np.round(6 * drawn)) < 1e-6).all()


def test_a_band_is_that_of_the_mean_and_not_of_a_count(steady):
    curve = jf.band(steady, [0.0])
    np.testing.assert_allclose(curve.error, np.sqrt(14) / 6, rtol=1e-9)
    with pytest.raises(ValueError, match="a new count scatters by its own distribution"):
        jf.band(steady, [0.0], kind="prediction")


def test_a_report_speaks_of_deviance(steady, warps):
    text = str(jf.report(steady))
    assert "for 5 degrees of freedom" in text and "deviance" in text and "6 counts" in text
    assert "the Fisher information" in text and "follows no chi-squared" in text
    text = str(jf.report(warps))
    assert "the counts scatter by 2.06 times what the loss expects" in text
    assert "scaled to the scatter" in str(jf.report(warps, absolute_sigma=False))


@pytest.mark.soak
def test_lanes_of_counts_end_and_err_as_fits_alone():
    counts = np.random.default_rng(0).poisson(np.exp(WARPS[1] @ [1.0, 0.3, 0.0, -0.4]), (3, 54))
    grid = jf.sweep(POISSON, np.zeros(4), (WARPS[1], jf.Axis("set", counts)), optimizer=LM, steps=100)
    errors = jf.standard_errors(grid)["params"].to_numpy()
    deviances = jf.goodness_of_fit(grid).deviance.to_numpy()
    for i, y in enumerate(counts):
        expected, covariance = irls(WARPS[1], y)
        np.testing.assert_allclose(grid.results["params"][i], expected, atol=1e-8)
        np.testing.assert_allclose(errors[i], np.sqrt(np.diag(covariance)), rtol=1e-7)
        mean = np.exp(WARPS[1] @ expected)
        np.testing.assert_allclose(deviances[i], 2 * (y * np.log(np.where(y > 0, y, 1) / mean) - y + mean).sum())


def total_covered(method, n, mean, sets):
    """Which of so many sets of n counts have an interval of this method that holds their mean."""
    counts = np.random.default_rng(1).poisson(mean, (sets, n))
    counts[:, 0] += counts.sum(axis=1) == 0  # a set without counts has no interval; it is counted as one count
    data = (np.arange(float(n)), jf.Axis("set", counts))
    grid = jf.sweep(jf.losses.poisson(constant), {"m": float(mean)}, data, optimizer=LM, steps=50)
    low, high = np.moveaxis(jf.intervals(grid, method)["params.m"].transpose("set", "end").to_numpy(), -1, 0)
    return (low <= mean) & (mean <= high), counts.sum(axis=1)


def expected_coverage(method, n, mean):
    """The chance that the interval of a total, which is a Poisson number, holds the mean: a sum over all totals."""
    totals = np.arange(int(n * mean + 12 * np.sqrt(n * mean) + 12))
    m, z = np.maximum(totals, 1) / n, scipy.stats.norm.ppf(0.975)
    if method == "wald":
        inside = np.abs(m - mean) <= z * np.sqrt(m / n)
    else:
        inside = 2 * n * (mean - m - m * np.log(mean / m)) <= z**2
    return (scipy.stats.poisson.pmf(totals, n * mean) * inside).sum()


@pytest.mark.parametrize("method", soaking(["wald", "profile"], keep=("wald",)))
def test_the_chance_that_an_interval_of_counts_holds_their_mean_is_that_of_theory(method, mean=0.5):
    """The interval of each total from the fit itself, weighted by the chance of that total; one above 12 holds none."""
    holds = np.zeros(13)
    for total in range(1, 13):
        y = np.array([total, 0, 0, 0, 0, 0])
        fit = jf.fit(jf.losses.poisson(constant), {"m": 1.0}, (np.arange(6.0), y), optimizer=LM, steps=50)
        found = jf.intervals(fit, method)["m"]
        holds[total] = found.low <= mean <= found.high
    holds[0] = holds[1]  # a set without counts is counted as one count
    chance = scipy.stats.poisson.pmf(range(13), 6 * mean) @ holds
    np.testing.assert_allclose(chance, expected_coverage(method, 6, mean), rtol=1e-12)


@pytest.mark.soak
@pytest.mark.parametrize("method", ["wald", "profile"])
def test_intervals_of_counts_hold_their_mean_as_often_as_theory_says(method, sets=100, n=3, mean=1):
    covered, _ = total_covered(method, n, mean, sets)
    p = expected_coverage(method, n, mean)
    assert abs(covered.mean() - p) < 4 * np.sqrt(p * (1 - p) / sets)


@pytest.mark.soak
@pytest.mark.parametrize("mean", [1, 3, 10, 100])
@pytest.mark.parametrize("method", ["wald", "profile"])
def test_intervals_of_many_counts_hold_their_mean_as_often_as_theory_says(method, mean):
    test_intervals_of_counts_hold_their_mean_as_often_as_theory_says(method, 2000, 3, mean)


def test_the_profile_holds_a_small_mean_where_wald_does_not():
    """Of three counts of mean one, the symmetric interval holds it in 79.7 % of cases, the profile in 96.6 %."""
    assert expected_coverage("wald", 3, 1) < 0.8 < 0.96 < expected_coverage("profile", 3, 1)


@pytest.mark.soak
def test_lanes_of_counts_are_profiled_and_drawn():
    counts = np.random.default_rng(0).poisson(np.exp(WARPS[1] @ [1.0, 0.3, 0.0, -0.4]), (3, 54))
    grid = jf.sweep(POISSON, np.zeros(4), (WARPS[1], jf.Axis("set", counts)), optimizer=LM, steps=100)
    ends = jf.intervals(grid, "profile")["params"].transpose("set", ..., "end").to_numpy()
    alone = jf.intervals(jf.lane(grid, set=1), "profile")
    np.testing.assert_allclose(ends[1], np.stack([alone.low, alone.high], axis=-1), rtol=1e-6)
    drawn = jf.monte_carlo(grid, key=0, samples=200)
    errors = jf.standard_errors(grid)["params"]
    np.testing.assert_allclose(drawn.params["params"].std("sample"), errors, rtol=0.3)


@pytest.mark.soak
def test_a_masked_count_counts_for_nothing(dobson):
    y, design = np.append(DOBSON[0], 10**6), np.vstack([DOBSON[1], np.full(5, np.nan)])
    where = np.arange(10) < 9
    loss = jf.losses.poisson(log_linear, masked=True)
    fit = jf.fit(loss, np.zeros(5), (design, y, where), optimizer=LM, steps=100)
    np.testing.assert_allclose(fit.params, dobson.params, atol=1e-9)
    np.testing.assert_allclose(jf.standard_errors(fit), jf.standard_errors(dobson), rtol=1e-8)
    np.testing.assert_allclose(jf.goodness_of_fit(fit).aic, jf.goodness_of_fit(dobson).aic, rtol=1e-10)


@pytest.mark.soak
def test_two_sets_of_counts_and_a_measured_param_add_up():
    """A sum of deviances and a squared residual in standard deviations: the information of each adds."""
    both = jf.losses.poisson(constant) + jf.losses.least_squares(lambda p: (p["m"] - 4.0) / 0.5)
    y = np.array([3, 0, 2, 3, 5, 1])
    fit = jf.fit(both, {"m": 1.0}, (np.arange(6.0), y), optimizer=LM, steps=50)
    m = scipy.optimize.brentq(lambda m: 6 - y.sum() / m + (m - 4) / 0.25, 1, 9)
    np.testing.assert_allclose(fit.params["m"], m, rtol=1e-9)
    np.testing.assert_allclose(jf.standard_errors(fit)["m"], (6 / m + 4) ** -0.5, rtol=1e-9)


def test_a_mean_below_zero_is_refused_at_the_start_and_never_stepped_to():
    loss, x = jf.losses.poisson(straight), np.arange(5.0)
    with pytest.raises(ValueError, match="the loss at the start is nan"):
        jf.fit(loss, {"a": -1.0, "b": 1.0}, (x, np.array([1, 2, 2, 5, 9])), optimizer=LM)
    fit = jf.fit(loss, {"a": 50.0, "b": -12.0}, (x, np.array([1, 2, 2, 5, 9])), optimizer=LM, steps=200)
    assert fit.status == jf.Status.CONVERGED and (straight(fit.params, x) > 0).all()
    pull = 1 - np.array([1, 2, 2, 5, 9]) / straight(fit.params, x)
    np.testing.assert_allclose([pull.sum(), pull @ x], 0, atol=1e-8)


def test_where_the_edge_holds_a_mean_no_error_is_claimed():
    """The best line through 0 0 1 5 9 would be negative at 0: it ends at zero there, with a slope that is not zero."""
    fit = jf.fit(
        jf.losses.poisson(straight), {"a": 1.0, "b": 1.0}, (np.arange(5.0), np.array([0, 0, 1, 5, 9])), optimizer=LM,
        steps=200,
    )  # fmt: skip
    assert abs(fit.params["a"]) < 1e-9
    np.testing.assert_allclose(fit.params["b"], 15 / 10, rtol=1e-4)  # the sum of counts over that of x
    errors = jf.standard_errors(fit)
    assert np.isnan(errors["a"])
    np.testing.assert_allclose(errors["b"], (10 / 1.5) ** -0.5, rtol=1e-4)  # with a held at zero
    assert "a lies on a bound and has no error" in str(jf.report(fit))


def test_what_is_no_count_is_refused():
    x, loss = np.arange(3.0), jf.losses.binomial(chance)
    with pytest.raises(ValueError, match="y holds -1, but counts cannot be negative"):
        jf.losses.poisson(straight)({"a": 1.0, "b": 0.0}, x, np.array([1, -1, 2]))
    with pytest.raises(ValueError, match="4 successes of 3 trials"):
        loss({"a": 1.0, "b": 0.0}, x, np.array([1, 4, 2]), np.full(3, 3))
    with pytest.raises(ValueError, match="trials has shape"):
        loss({"a": 1.0, "b": 0.0}, x, np.array([1, 2, 2]), np.array(3))


def test_a_deviance_in_one_line_is_that_of_scipy():
    y, p, n = np.array([0, 2, 5, 9]), np.array([0.1, 0.3, 0.5, 0.6]), np.full(4, 9)
    log_pmf = scipy.stats.binom.logpmf
    expected = 2 * (log_pmf(y, n, y / n) - log_pmf(y, n, p)).sum()
    loss = jf.losses.binomial(lambda params, x: x)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(loss)(0.0, p, y, n), expected, rtol=1e-12)
        np.testing.assert_allclose(jax.jit(loss.saturated)(p, y, n), -2 * log_pmf(y, n, y / n).sum(), rtol=1e-10)


def log_normal(params, x):
    return jax.scipy.stats.norm.logpdf(x, params["mu"], jnp.exp(params["log_s"]))


@pytest.fixture(scope="module")
def spread_fit():
    x = np.random.default_rng(0).normal(3.0, 2.0, 30)
    loss = jf.losses.likelihood(log_normal)
    start = {"mu": 2.5, "log_s": 0.5}  # from where a plain descent gets to the minimum within rounding
    return x, jf.fit(loss, start, (x,), optimizer=jf.optimizers.sgd(0.005), precision="float64", steps=600)


def test_a_normal_likelihood_has_its_closed_forms(spread_fit):
    x, fit = spread_fit
    s, n = x.std(), len(x)
    np.testing.assert_allclose([fit.params["mu"], fit.params["log_s"]], [x.mean(), np.log(s)], atol=1e-7)
    errors = jf.standard_errors(fit)
    np.testing.assert_allclose([errors["mu"], errors["log_s"]], [s / np.sqrt(n), 1 / np.sqrt(2 * n)], rtol=1e-6)
    log_l = scipy.stats.norm.logpdf(x, x.mean(), s).sum()
    np.testing.assert_allclose(jf.goodness_of_fit(fit).aic, 4 - 2 * log_l, rtol=1e-9)
    assert "30 rows, 2 of 2 free params" in str(jf.report(fit))


@pytest.mark.soak
def test_the_profile_of_a_normal_likelihood_is_the_likelihood_ratio(spread_fit):
    """-2 log of it is n log(1 + (mu - mean)**2 / s**2) for mu, and n (s**2 / v**2 - 1) + 2 n log(v / s) for v."""
    x, fit = spread_fit
    s, n, level = x.std(), len(x), scipy.stats.chi2.ppf(0.95, 1)
    half = s * np.sqrt(np.expm1(level / n))
    found = jf.intervals(fit, "profile")
    np.testing.assert_allclose([found["mu"].low, found["mu"].high], [x.mean() - half, x.mean() + half], rtol=1e-4)

    def rise(log_v):
        return n * (np.exp(2 * (np.log(s) - log_v)) - 1) + 2 * n * (log_v - np.log(s)) - level

    ends = [scipy.optimize.brentq(rise, *sorted((np.log(s), np.log(s) + d))) for d in (-1, 1)]
    np.testing.assert_allclose([found["log_s"].low, found["log_s"].high], ends, rtol=1e-4)


@pytest.mark.soak
def test_a_likelihood_is_bootstrapped_by_its_points_and_drawn_by_no_one(spread_fit):
    x, fit = spread_fit
    drawn = jf.bootstrap(fit, key=0, samples=400).params["mu"]
    np.testing.assert_allclose(drawn.std(), x.std() / np.sqrt(len(x)), rtol=4 / np.sqrt(800))
    with pytest.raises(TypeError, match="does not say how its data are drawn"):
        jf.monte_carlo(fit, key=0, samples=10)


EIGHT = np.arange(8.0)
APART = {  # x, successes, trials
    "all": (EIGHT, EIGHT > 3, np.ones(8)),
    "but for a tie": (np.array([0.0, 1, 2, 3, 3, 4, 5, 6]), EIGHT > 3, np.ones(8)),
    "but for one dose": (EIGHT, np.array([0.0, 0, 0, 2, 5, 5, 5, 5]), np.full(8, 5.0)),
}


@pytest.mark.parametrize("name", soaking(APART, keep=("all",)))
def test_separated_outcomes_are_said_and_a_penalty_bounds_the_params(name):
    """No finite params are best there (Albert and Anderson 1984); with the penalty they are those of SciPy."""
    x, y, trials = APART[name]
    fit = jf.fit(jf.losses.binomial(chance), {"a": 0.0, "b": 0.1}, (x, y * 1.0, trials), optimizer=LM)
    why, report = jf.explain(fit), jf.report(fit)
    assert why.kind == "separated outcomes"
    assert all("successes and failures are separated" in str(said) for said in (fit, why, report))
    assert [row.role for row in report.rows] == ["ran away"] * 2 and np.isnan([row.error for row in report.rows]).all()

    def penalized(p):
        logits = p[0] + p[1] * x
        full = xlogy(y, y / trials) + xlogy(trials - y, 1 - y / trials)
        return 2 * np.sum(full + y * np.logaddexp(0, -logits) + (trials - y) * np.logaddexp(0, logits)) + 0.01 * p @ p

    least = scipy.optimize.minimize(penalized, [0.0, 0.1], tol=1e-12)
    again = why.retry()
    assert again.status == jf.Status.CONVERGED and again.loss == pytest.approx(least.fun, rel=1e-9)
    np.testing.assert_allclose([again.params["a"], again.params["b"]], least.x, rtol=1e-4)


@pytest.mark.parametrize("start", soaking([(1.0, 4.0), (0.1, 2.0), (-0.3, 9.0)], keep=1))
def test_separated_outcomes_are_said_where_the_slope_alone_runs_away(start):
    middle = lambda p, x: jax.nn.sigmoid(p["slope"] * (x - p["half"]))  # noqa: E731
    start, data = dict(zip(("slope", "half"), start, strict=True)), (EIGHT, EIGHT > 3.0, np.ones(8))
    fit = jf.fit(jf.losses.binomial(middle), start, data, optimizer=LM)
    why = jf.explain(fit)
    assert why.kind == "separated outcomes" and "separated" in str(fit)
    assert [row.role for row in jf.report(fit).rows] == ["ran away"] * 2
    assert why.retry().status == jf.Status.CONVERGED


def test_outcomes_that_a_held_slope_or_a_bound_tells_apart_are_not_said_to_run_away():
    for start in ({"a": 0.0, "b": jf.Fixed(0.5)}, {"a": 0.0, "b": jf.Bounded(0.1, high=0.5)}):
        fit = jf.fit(jf.losses.binomial(chance), start, (EIGHT, EIGHT > 3.0, np.ones(8)), optimizer=LM)
        assert fit.status == jf.Status.CONVERGED and "separated" not in str(fit)
        assert float(fit.params["a"]) == pytest.approx(-3.5 * 0.5, rel=1e-6)  # by symmetry


def test_outcomes_that_overlap_are_not_said_to_be_separated():
    y = np.array([0.0, 0, 1, 0, 1, 0, 1, 1])
    fit = jf.fit(jf.losses.binomial(chance), {"a": 0.0, "b": 0.1}, (EIGHT, y, np.ones(8)), optimizer=LM)
    assert fit.status == jf.Status.CONVERGED and "separated" not in str(fit) and jf.explain(fit).kind == "converged"
