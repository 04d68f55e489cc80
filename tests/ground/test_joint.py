"""Data sets with params in common: one fit whose errors are those of all residuals in one dense Jacobian."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxfit as jf

LM = jf.optimizers.levenberg_marquardt()
RNG = np.random.default_rng(3)
TIMES = [np.linspace(0, 3, n) for n in (12, 7, 20)]


def decay(params, t):
    return params["height"] * jnp.exp(-params["rate"] * t)


def rise(params, t):
    return params["height"] * (1 - jnp.exp(-params["rate"] * t)) + params["level"]


def true(rate, a, b, c, level):
    return [a * np.exp(-rate * TIMES[0]), b * np.exp(-rate * TIMES[1]), c * (1 - np.exp(-rate * TIMES[2])) + level]


SIGMAS = [np.full(12, 0.05), np.full(7, 0.1), np.full(20, 0.2)]
YS = [y + s * RNG.normal(size=len(y)) for y, s in zip(true(1.3, 2.0, 5.0, 3.0, 0.5), SIGMAS, strict=True)]
DATA = tuple(zip(TIMES, YS, SIGMAS, strict=True))
START = {"rate": 1.0, "one": {"height": 1.0}, "two": {"height": 1.0}, "three": {"height": 1.0, "level": 0.0}}
LOSS = jf.losses.joint(
    one=jf.losses.chi_squared(decay), two=jf.losses.chi_squared(decay), three=jf.losses.chi_squared(rise)
)


@pytest.fixture(scope="module")
def fit():
    return jf.fit(LOSS, START, DATA, optimizer=LM)


def dense(ys):
    def residuals(p):
        return np.concatenate([(m - y) / s for m, y, s in zip(true(*p), ys, SIGMAS, strict=True)])

    found = scipy.optimize.least_squares(residuals, [1, 1, 1, 1, 0], jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return found.x, np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac))), 2 * found.cost


def numbers(tree):
    return [tree["rate"], tree["one"]["height"], tree["two"]["height"], tree["three"]["height"], tree["three"]["level"]]


def test_sets_of_unequal_length_share_a_param(fit):
    expected, errors, least = dense(YS)
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(numbers(fit.params), expected, rtol=1e-6)
    np.testing.assert_allclose(fit.loss, least, rtol=1e-9)
    np.testing.assert_allclose(numbers(jf.standard_errors(fit)), errors, rtol=1e-5)
    found = jf.goodness_of_fit(fit)
    assert found.points == 39 and found.degrees_of_freedom == 34


def test_the_report_groups_the_params_by_their_sets(fit):
    found = jf.report(fit)
    assert [row.name for row in found.rows] == ["rate", "one.height", "two.height", "three.height", "three.level"]
    assert found.facts["sets"] == "one, two, three; common to all: rate"
    errors = jf.standard_errors(fit)
    assert [row.error for row in found.rows] == [float(x) for x in numbers(errors)]
    assert "39 residuals, 5 of 5 free params" in str(found) and "sigma, as given" in str(found)


@pytest.mark.soak
def test_lanes_are_fits_alone():
    others = [y + 0.1 * RNG.normal(size=len(y)) for y in YS]
    axes = [jf.Axis("day", np.stack(pair)) for pair in zip(YS, others, strict=True)]
    data = tuple((t, y, s) for t, y, s in zip(TIMES, axes, SIGMAS, strict=True))
    grid = jf.sweep(LOSS, START, data, optimizer=LM)
    errors = jf.standard_errors(grid)
    for i, ys in enumerate((YS, others)):
        expected, own, _ = dense(ys)
        np.testing.assert_allclose(grid.results["params.rate"][i], expected[0], rtol=1e-6)
        np.testing.assert_allclose(errors["params.three.level"][i], own[4], rtol=1e-5)


def test_marks_hold_for_common_and_own_params():
    start = START | {"rate": jf.Fixed(1.3), "one": {"height": jf.Bounded(1.0, 0.0, 1.5)}}
    fit = jf.fit(LOSS, start, DATA, optimizer=LM)
    assert fit.params["rate"] == 1.3 and fit.params["one"]["height"] == 1.5
    expected = YS[1] @ np.exp(-1.3 * TIMES[1]) / np.sum(np.exp(-2.6 * TIMES[1]))
    np.testing.assert_allclose(fit.params["two"]["height"], expected, rtol=1e-9)


@pytest.mark.soak
def test_counts_and_measurements_are_fitted_together():
    """A rate that is counted and measured: its information is the sum of both."""
    loss = jf.losses.joint(
        counted=jf.losses.poisson(lambda p, t: p["m"] * t), weighed=jf.losses.chi_squared(lambda p, x: p["m"] * x)
    )
    data = ([1.0, 2.0, 4.0], [3, 5, 15]), ([1.0], [2.0], [0.5])
    data = tuple(tuple(map(np.asarray, one)) for one in data)
    fit = jf.fit(loss, {"m": 1.0}, data, optimizer=LM)
    m = scipy.optimize.brentq(lambda m: 7 - 23 / m + (m - 2) / 0.25, 0.5, 9)
    np.testing.assert_allclose(fit.params["m"], m, rtol=1e-9)
    np.testing.assert_allclose(jf.standard_errors(fit)["m"], (7 / m + 4) ** -0.5, rtol=1e-9)
    with pytest.raises(TypeError, match="has no points of one kind to draw"):
        jf.bootstrap(fit, key=0, samples=5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="one is .* masked: sets may have any lengths"):
        jf.losses.joint(one=jf.losses.rss(decay, masked=True))
    with pytest.raises(ValueError, match="joint got no losses"):
        jf.losses.joint()
    with pytest.raises(TypeError, match="a tuple for each"):
        LOSS(START, *TIMES)
    with pytest.raises(TypeError, match="they must be a dict"):
        LOSS(np.ones(5), *DATA)
    mixed = jf.losses.joint(one=jf.losses.rss(decay), two=jf.losses.poisson(decay))
    sgd, data = jf.optimizers.sgd(1e-3), (DATA[0][:2], (TIMES[1], np.arange(7)))
    fit = jf.fit(mixed, {"rate": 1.0, "height": 2.0}, data, optimizer=sgd, steps=2)
    with pytest.raises(TypeError, match="joins losses of different units"):
        jf.standard_errors(fit)
    mixed = jf.losses.joint(one=jf.losses.rss(decay), two=jf.losses.chi_squared(decay))  # the scatter of which?
    fit = jf.fit(mixed, {"rate": 1.0, "height": 2.0}, (DATA[0][:2], DATA[1]), optimizer=sgd, steps=2)
    with pytest.raises(TypeError, match="joins losses of different units.*each"):
        jf.standard_errors(fit)


def test_a_point_that_moves_the_fit_is_named_with_its_set():
    line = jf.losses.chi_squared(lambda p, x: p["slope"] * x + p["level"])
    x, far = np.arange(6.0), np.array([0, 0, 0, 0, 9.0, 0])
    sets = np.stack([x, x]), np.stack([x, 2 * x + far]), np.ones((2, 6))
    loss = jf.losses.joint(one=line, more=jf.losses.each(line))
    start = {"slope": 1.0, "one": {"level": 0.0}, "more": {"level": np.zeros(2)}}
    fit = jf.fit(loss, start, ((x, x + 1, np.ones(6)), sets), optimizer=LM)
    assert "without y[4] (x = 4) of more[1], y[0] (x = 0) of more[1] each the params" in str(jf.report(fit))


def test_a_model_of_a_set_gets_the_params_that_the_messages_name(fit):
    for call in (lambda: fit.predict(1.0), lambda: jf.band(fit, 1.0), lambda: jf.plots.fit(fit)):
        with pytest.raises(TypeError, match=r"model\((fit\.)?params \| (fit\.)?params\['one'\], x\)"):
            call()
    found = jf.propagate(fit, lambda params: decay(params | params["one"], 1.0))
    np.testing.assert_allclose(found.value, decay(fit.params | fit.params["one"], 1.0), rtol=1e-6)  # float32
