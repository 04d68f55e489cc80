"""Many data sets of one kind with params in common: the fit and the errors of one dense Jacobian, at linear cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from jaxfit.engine.single import sizes
from jaxfit.optimizers.bordered import Columns, Layout, norms, per, silent, solve, triangularize
from jaxfit.problems import convert_all, precision_context
from jaxfit.statistics.covariances import linear_in_numpy
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt()
RNG = np.random.default_rng(5)
LENGTHS = [9, 4, 6, 7, 5]
SETS = [(t := np.sort(RNG.uniform(0, 3, n)), (1 + i) * np.exp(-1.3 * t) + 0.02 * RNG.normal(size=n),
         np.full(n, 0.01 * (1 + i))) for i, n in enumerate(LENGTHS)]  # fmt: skip
X, Y, SIGMA, WHERE = DATA = jf.datasets.pad(SETS)
ONES = np.ones(len(SETS))
START = {"rate": 1.0, "days": {"height": ONES, "level": 0 * ONES}}


def decay(params, t):
    return params["height"] * jnp.exp(-params["rate"] * t) + params["level"]


LOSS = jf.losses.joint(days=jf.losses.each(jf.losses.chi_squared(decay, masked=True)))


@jf.losses.least_squares
def dense(params, x, y, sigma, where):
    own = {name: value[:, None] for name, value in params["days"].items()}
    return jnp.where(where, (decay({"rate": params["rate"], **own}, x) - y) / jnp.where(where, sigma, 1), 0)


def equal(found, expected, rtol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=0), found, expected)


@pytest.fixture(scope="module")
def fit():
    return jf.fit(LOSS, START, (DATA,), optimizer=LM)


@pytest.fixture(scope="module")
def whole():
    return jf.fit(dense, START, DATA, optimizer=LM)


def test_sets_of_unequal_length_are_fitted_as_one_dense_problem(fit, whole):
    assert fit.status == jf.Status.CONVERGED and fit.steps == whole.steps
    equal(fit.params, whole.params, 1e-11)
    equal(fit.loss, whole.loss, 1e-12)


@pytest.mark.parametrize("most", soaking([128, 5], keep=(5,)))
def test_errors_are_those_of_the_dense_jacobian(fit, whole, most):
    """Few params are estimated from the whole Jacobian, more than the setting says from its blocks."""
    with using(numpy_params=most):
        equal(jf.covariance(fit), jf.covariance(whole, absolute_sigma=True), 1e-9)
        found = jf.goodness_of_fit(fit)
        assert found.points == sum(LENGTHS) and found.params == 11
        residuals = jf.residuals(fit)
    leverage = np.zeros(WHERE.shape)
    leverage[WHERE] = np.ravel(residuals.leverage)[WHERE.ravel()]
    np.testing.assert_allclose(np.sum(leverage), 11, rtol=1e-12)
    # Both fits are at rest to eps**(2/3) of an error, 4e-11; a leverage is at most 1, and that of a masked point is 0.
    np.testing.assert_allclose(leverage, np.reshape(jf.residuals(whole).leverage, WHERE.shape), rtol=1e-9, atol=1e-12)


def test_what_is_masked_may_be_no_number(fit):
    hidden = [np.where(WHERE, array, np.nan) for array in (X, Y, SIGMA)]
    equal(jf.fit(LOSS, START, ((*hidden, WHERE),), optimizer=LM).params, fit.params, 0)


def test_numbers_of_params_have_the_errors_of_the_dense_jacobian(fit, whole):
    def areas(params):
        return params["days"]["height"] / params["rate"], 2 * params["rate"]

    with using(numpy_params=5):
        found = jf.propagate(fit, areas)
    equal(found.error, jf.propagate(whole, areas, absolute_sigma=True).error, 1e-9)


def test_the_report_groups_params_by_set_and_names_those_in_common(fit):
    with using(numpy_params=5):
        found = jf.report(fit)
    names = [row.name for row in found.rows]
    assert names[:5] == ["rate", "days.height[0]", "days.level[0]", "days.height[1]", "days.level[1]"]
    assert found.facts["sets"] == "5 of days; common to all: rate"
    expected = jf.correlations(fit)["days"]["height"]["days"]["level"]
    np.testing.assert_allclose(found.correlations[1, 2], expected[0, 0], rtol=1e-9)


@pytest.mark.parametrize("shape", soaking([(3, 4), (4, 1), (5, 7), (6, 2), (7, 3), (8, 50)], keep=1))
def test_a_common_slope_is_that_within_sets(shape):
    """Lines with one slope: sums of squares within sets, and the scatter of y given by sigma. A closed form."""
    sets, n = shape
    random = np.random.default_rng(sets)
    x = random.normal(size=(sets, n)) + np.arange(sets)[:, None]
    y = 2 * x + random.normal(size=(sets, n)) + 5 * np.arange(sets)[:, None]
    line = jf.losses.chi_squared(lambda p, x: p["w"] * x + p["b"])
    loss = jf.losses.joint(own=jf.losses.each(line))
    start = {"w": 0.0, "own": {"b": np.zeros(sets)}}
    if n == 1:  # each set has as many own params as points: nothing is left for the slope
        fit = jf.fit(loss, start, ((x, y, np.ones_like(x)),), optimizer=LM)
        assert fit.status == jf.Status.NOT_DETERMINED and np.isnan(jf.standard_errors(fit)["w"])
        return
    fit = jf.fit(loss, start, ((x, y, np.ones_like(x)),), optimizer=LM)
    around, level = x - x.mean(1, keepdims=True), y.mean(1)
    square = np.sum(around**2)
    w = np.sum(around * y) / square
    with using(numpy_params=2):
        errors = jf.standard_errors(fit)
    np.testing.assert_allclose(fit.params["w"], w, rtol=1e-9)
    np.testing.assert_allclose(fit.params["own"]["b"], level - w * x.mean(1), rtol=1e-9)
    np.testing.assert_allclose(errors["w"], square**-0.5, rtol=1e-12)
    np.testing.assert_allclose(errors["own"]["b"], np.sqrt(1 / n + x.mean(1) ** 2 / square), rtol=1e-12)


@pytest.mark.parametrize("marked", soaking([
    {"rate": jf.Bounded(1.0, 0.5, 1.2), "days": {"height": jf.Bounded(ONES, 0.0, 4.2), "level": jf.Fixed(0.1 * ONES)}},
    {"rate": jf.Fixed(1.3), "days": {"height": ONES, "level": 0 * ONES}},
    {"rate": 1.0, "days": {"height": jf.Fixed(1 + np.arange(5.0)), "level": jf.Bounded(0 * ONES, -0.01, 0.01)}},
], keep=1))  # fmt: skip
def test_bounds_and_fixed_params_hold_as_in_the_dense_fit(marked):
    one, other = jf.fit(LOSS, marked, (DATA,), optimizer=LM), jf.fit(dense, marked, DATA, optimizer=LM)
    assert one.status == other.status == jf.Status.CONVERGED
    equal(one.params, other.params, 1e-9)
    with using(numpy_params=2):
        found = jf.standard_errors(one)
    equal(found, jf.standard_errors(other, absolute_sigma=True), 1e-9)


def test_a_set_without_influence_leaves_the_others_as_they_are(fit):
    """All points of the last set at one time: its height and level change together, and the rate hears nothing."""
    x = X.copy()
    x[-1] = 0.5
    fit = jf.fit(LOSS, START, ((x, *DATA[1:]),), optimizer=LM)
    start = {"rate": 1.0, "days": {"height": ONES[:-1], "level": 0 * ONES[:-1]}}
    without = jf.fit(LOSS, start, (tuple(a[:-1] for a in DATA),), optimizer=LM)
    for most in (128, 5):
        with using(numpy_params=most):
            errors = jf.standard_errors(fit)
            notes = jf.report(fit).notes
        assert np.isnan(errors["days"]["height"][-1]) and np.isnan(errors["days"]["level"][-1])
        np.testing.assert_allclose(errors["rate"], jf.standard_errors(without)["rate"], rtol=1e-9)
        equal(errors["days"]["height"][:-1], jf.standard_errors(without)["days"]["height"], 1e-9)
        assert "days.height[4], days.level[4] are not determined" in notes[0]
    np.testing.assert_allclose(fit.params["rate"], without.params["rate"], rtol=1e-9)


@pytest.mark.soak
def test_counts_of_many_sets_have_their_fisher_information():
    """Rates of their own and a background in common, measured alone: n / m**2 a set."""
    counts, background = np.array([[3.0, 5.0], [20.0, 30.0], [0.0, 0.0]]), np.array([8.0, 9.0, 10.0])
    both = jf.losses.joint(
        on=jf.losses.each(jf.losses.poisson(lambda p, t: p["rate"] * t)), off=jf.losses.poisson(lambda p, t: p["b"] * t)
    )
    start, data = (
        {"on": {"rate": np.full(3, 2.0)}, "off": {"b": 3.0}},
        ((np.ones((3, 2)), counts), (np.ones(3), background)),
    )
    fit = jf.fit(both, start, data, optimizer=LM)
    np.testing.assert_allclose(fit.params["on"]["rate"], counts.mean(1), rtol=1e-9, atol=1e-9)
    expected = [2**0.5, 12.5**0.5, np.nan]  # the last lies at the edge of its range
    for most in (128, 2):
        with using(numpy_params=most):
            errors = jf.standard_errors(fit)
            found = jf.goodness_of_fit(fit)
            residuals = jf.residuals(fit)
        np.testing.assert_allclose(errors["on"]["rate"], expected, rtol=1e-9)
        np.testing.assert_allclose(errors["off"]["b"], 3.0**0.5, rtol=1e-9)
        np.testing.assert_allclose(found.deviance, fit.loss, rtol=1e-12)
        np.testing.assert_allclose(np.ravel(residuals.raw)[:4], [-1, 1, -5, 5], rtol=1e-9)


def test_insect_sprays_have_the_numbers_of_glm():
    """R's InsectSprays, Beall (1942): glm(count ~ spray, poisson) has the residual deviance 98.33 on 66 degrees."""
    counts = np.array([
        [10, 7, 20, 14, 14, 12, 10, 23, 17, 20, 14, 13], [11, 17, 21, 11, 16, 14, 17, 17, 19, 21, 7, 13],
        [0, 1, 7, 2, 3, 1, 2, 1, 3, 0, 1, 4], [3, 5, 12, 6, 4, 3, 5, 5, 5, 5, 2, 4],
        [3, 5, 3, 5, 3, 6, 1, 1, 3, 2, 6, 4], [11, 9, 15, 22, 15, 16, 13, 10, 26, 26, 24, 13],
    ])  # fmt: skip
    mean = jf.losses.poisson(lambda p, x: jnp.exp(p["log"]) + 0 * x)
    loss = jf.losses.joint(sprays=jf.losses.each(mean))
    data = ((np.zeros(counts.shape), counts),)
    fit = jf.fit(loss, {"sprays": {"log": np.ones(6)}}, data, optimizer=LM)
    found = jf.goodness_of_fit(fit)
    assert round(float(found.deviance), 2) == 98.33 and found.degrees_of_freedom == 66
    np.testing.assert_allclose(fit.params["sprays"]["log"], np.log(counts.mean(1)), rtol=1e-8)
    np.testing.assert_allclose(jf.standard_errors(fit)["sprays"]["log"], counts.sum(1) ** -0.5, rtol=1e-8)


def test_sets_without_params_of_their_own_add_up():
    """Means of three sets of two: all six points weigh alike."""
    y = np.array([[1.0, 2.0], [4.0, 5.0], [9.0, 9.0]])
    mean = jf.losses.chi_squared(lambda p, x: p["m"] + 0 * x)
    loss = jf.losses.joint(days=jf.losses.each(mean), beside=mean)
    data = (y, y, np.ones((3, 2))), (np.ones(1), np.array([12.0]), np.ones(1))
    bounded = {"m": jf.Bounded(0.0, -100.0, 100.0), "days": {}}
    fit = jf.fit(loss, bounded, data, optimizer=LM)
    np.testing.assert_allclose(fit.params["m"], 6.0, rtol=1e-9)
    with using(numpy_params=0):
        np.testing.assert_allclose(jf.standard_errors(fit)["m"], 7**-0.5, rtol=1e-14)


@pytest.mark.soak
def test_lanes_are_fits_alone(fit):
    rate = jf.Axis("rate", np.array([0.5, 1.0, 2.0]))
    grid = jf.sweep(LOSS, START | {"rate": rate}, (DATA,), optimizer=LM)
    assert (grid.results.status == jf.Status.CONVERGED).all()
    np.testing.assert_allclose(
        grid.results["params.days.height"], np.tile(fit.params["days"]["height"], (3, 1)), rtol=1e-7
    )
    equal(jf.lane(grid, rate=1.0).params, fit.params, 1e-9)


@pytest.mark.soak
@pytest.mark.parametrize("make", [jf.losses.huber, jf.losses.cauchy])
def test_robust_losses_have_their_scale_in_each_set(make):
    """Sets without params in common are fitted as if alone."""
    loss = jf.losses.joint(days=jf.losses.each(make(decay, delta=0.02)))
    x, y = np.tile(np.linspace(0, 3, 12), (2, 1)), np.stack([np.exp(-np.linspace(0, 3, 12)) * h for h in (1, 2)])
    y += 0.02 * np.random.default_rng(0).standard_t(2, size=y.shape)
    own = {"rate": np.ones(2), "height": np.ones(2), "level": np.zeros(2)}
    fit = jf.fit(loss, {"days": own}, ((x, y),), optimizer=LM)
    for i in range(2):
        start = {name: value[i] for name, value in own.items()}
        alone = jf.fit(make(decay, delta=0.02), start, (x[i], y[i]), optimizer=LM)
        equal({name: value[i] for name, value in fit.params["days"].items()}, alone.params, 1e-6)


@pytest.mark.soak
def test_three_thousand_sets_are_fitted_and_reported():
    random = np.random.default_rng(0)
    n, t = 3000, np.sort(random.uniform(0, 3, (3000, 20)), axis=1)
    height, level = random.uniform(1, 3, n), random.normal(size=n)
    y = height[:, None] * np.exp(-1.3 * t) + level[:, None] + 0.05 * random.normal(size=t.shape)
    loss = jf.losses.joint(days=jf.losses.each(jf.losses.chi_squared(decay)))
    start = {"rate": 1.0, "days": {"height": np.ones(n), "level": np.zeros(n)}}
    data = (t, y, np.full(t.shape, 0.05))
    fit = jf.fit(loss, start, (data,), optimizer=LM)
    errors = jf.standard_errors(fit)
    assert fit.status == jf.Status.CONVERGED and abs(fit.params["rate"] - 1.3) < 5 * errors["rate"]
    pulls = (fit.params["days"]["height"] - height) / errors["days"]["height"]
    assert abs(np.mean(pulls**2) - 1) < 5 * np.sqrt(2 / n)  # of a chi-squared with as many degrees of freedom


def test_variances_without_the_covariance_are_its_diagonal(fit):
    with using(numpy_params=5), precision_context("float64"):
        basis = linear_in_numpy(fit).basis
    np.testing.assert_allclose(basis.variances(), np.diagonal(basis.covariance()), rtol=1e-12)


def test_the_jacobian_is_never_whole():
    problem = convert_all(jf.fit(LOSS, START, (DATA,), optimizer=LM, steps=1).problem, "float64")
    assert sizes(problem) == (3, 3 * X.size) and sizes(problem, whole=True) == (11, 11 * X.size)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"params of days\['level'\] have shape \(\), but there are 5 sets.*np.full"):
        jf.fit(LOSS, {"rate": 1.0, "days": {"height": ONES, "level": 0.0}}, (DATA,), optimizer=LM)
    with pytest.raises(ValueError, match=r"data of days\[1\] have shape \(4, 9\), but there are 5 sets"):
        jf.fit(LOSS, START, ((X, Y[:4], SIGMA, WHERE),), optimizer=LM)
    with pytest.raises(ValueError, match=r"data\[0\]\[3\] \(where\) is False everywhere in set 1"):
        jf.fit(LOSS, START, ((X, Y, SIGMA, WHERE & (np.arange(5) != 1)[:, None]),), optimizer=LM)
    with pytest.raises(ValueError, match=r"data\[0\]\[2\] \(sigma\) has 31 of 45 values that are not positive"):
        jf.fit(LOSS, START, ((X, Y, 0 * SIGMA, WHERE),), optimizer=LM)
    with pytest.raises(TypeError, match=r"is a loss of many data sets, for joint: jf.losses.joint\(sets=each"):
        jf.losses.each(jf.losses.rss(decay))(START, X, Y)
    for loss in (LOSS, LOSS + jf.losses.l2(0.1)):
        with pytest.raises(ValueError, match="batches: a row of these data is a whole set.*leave batches out"):
            jf.fit(loss, START, (DATA,), optimizer=jf.optimizers.adam(0.1), batches=jf.Batches(2), key=0)
    with pytest.raises(TypeError, match=r"write data=\(data\['days'\],\), in the order in which the loss takes them"):
        jf.fit(LOSS, START, {"days": DATA}, optimizer=LM)
    with pytest.raises(TypeError, match="each: the loss is .* is no loss of jaxfit"):
        jf.losses.each(decay)


# The blocks


def blocks(random, sets, own, common, n):
    """Return columns of two kinds of sets, the same as one table, and residuals."""
    kinds = [(sets, own, n), (1, 2, n + 3)]
    places, end = [], common
    for count, m, _ in kinds:
        places.append(np.arange(end, end + count * m).reshape(count, m).T)
        end += count * m
    parts = tuple(random.normal(size=(m + common, rows, count)) for count, m, rows in kinds)
    columns = Columns(parts, Layout(places, np.arange(common)))
    return columns, np.concatenate([random.normal(size=part[0].size) for part in parts])


@pytest.mark.parametrize("common", [0, 2, 8])
def test_the_triangle_of_blocks_is_that_of_the_whole(common):
    columns, b = blocks(np.random.default_rng(1), 4, 3, common, 9)
    table, residuals = columns.whole(), columns.in_order(b)
    triangle, shadow = triangularize(columns, b)
    x, y = np.random.default_rng(2).normal(size=(2, len(table)))
    # Sums of some 70 products of numbers of about 1: rounded by 1e-14 each, also where they cancel to less.
    np.testing.assert_allclose((triangle @ x) @ (triangle @ y),
                               x @ table @ table.T @ y, rtol=1e-12)  # fmt: skip
    np.testing.assert_allclose(shadow @ triangle, table @ residuals, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(solve(triangle, shadow), np.linalg.lstsq(table.T, residuals)[0], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(norms(triangle), np.sqrt((table**2).sum(1)), rtol=1e-13)
    units = 1 + np.arange(len(table))
    np.testing.assert_allclose(per(triangle, units) @ (units * x), triangle @ x, rtol=1e-12, atol=1e-13)


def test_ill_conditioned_blocks_keep_the_digits_of_an_orthogonal_triangle():
    """Polynomials of degree 5 and a common column of degree 6 on [1, 2]: conditions of 1e7, exact params."""
    x = np.linspace(1, 2, 20)
    part = np.stack([np.stack([x**d for d in range(7)])] * 3, axis=-1)
    columns = Columns((part,), Layout([np.arange(18).reshape(3, 6).T], np.array([18])))
    true = np.arange(1.0, 20)
    b = (part * true[np.vstack([columns.layout.own[0], np.full((1, 3), 18)])][:, None]).sum(0).ravel()
    triangle, shadow = triangularize(columns, b)
    condition = np.linalg.cond(columns.whole().T)
    assert 1e6 < condition < 1e9
    assert abs(solve(triangle, shadow) - true).max() < condition * 2.0**-52 * 20 * abs(true).max()


def test_a_direction_that_changes_nothing_is_found_in_its_set():
    columns, b = blocks(np.random.default_rng(1), 4, 3, 2, 9)
    columns.parts[0][2, :, 1] = 2 * columns.parts[0][0, :, 1]
    triangle, _ = triangularize(columns, b)
    (direction,) = silent(triangle)
    assert set(np.flatnonzero(abs(direction) > 1e-12)) == {columns.layout.own[0][0, 1], columns.layout.own[0][2, 1]}
    np.testing.assert_allclose(columns.whole().T @ direction, 0, atol=1e-13)  # residuals of about 1, to rounding
