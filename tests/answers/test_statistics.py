"""Errors of params, of curves and of what follows from them: against closed forms, certified values and other tools."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.optimizers.arrays import short as for_one_lane
from jaxfit.problems import precision_context
from jaxfit.statistics.covariances import moments
from jaxfit.statistics.estimates import directions, directions_of_lane
from tests.shared import nist
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt()
RNG = np.random.default_rng(11)
X = np.linspace(0.0, 4.0, 25)
SIGMA = 0.05 * (1 + X / 2)
Y = 2.0 * np.exp(-1.3 * X) + 0.5 + SIGMA * RNG.normal(size=X.size)
START = {"a": 1.0, "b": 1.0, "c": 0.0}


def decay(params, x):
    return params["a"] * jnp.exp(-params["b"] * x) + params["c"]


def line(params, x):
    return params["w"] * x + params["b"]


@pytest.fixture(scope="module")
def curve():
    return jf.curve_fit(decay, START, (X, Y), SIGMA)


@pytest.fixture(scope="module")
def straight():
    return jf.curve_fit(jf.models.line, {"w": 1.0, "b": 100.0}, jf.datasets.blood_pressure())


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_a_line_has_the_errors_of_the_closed_form(straight):
    x, y = jf.datasets.blood_pressure()
    n, spread = len(x), np.sum((x - x.mean()) ** 2)
    residuals = y - np.polyval(np.polyfit(x, y, 1), x)
    s = np.sqrt(residuals @ residuals / (n - 2))
    errors = jf.standard_errors(straight)
    np.testing.assert_allclose(errors["w"], s / np.sqrt(spread), rtol=1e-10)
    np.testing.assert_allclose(errors["b"], s * np.sqrt(1 / n + x.mean() ** 2 / spread), rtol=1e-10)
    np.testing.assert_allclose(jf.covariance(straight)["w"]["b"], -(s**2) * x.mean() / spread, rtol=1e-10)
    correlation = -x.mean() / np.sqrt(np.mean(x**2))
    np.testing.assert_allclose(jf.correlations(straight)["b"]["w"], correlation, rtol=1e-10)
    at = np.array([20.0, 60.0])
    curve, new = jf.band(straight, at), jf.band(straight, at, kind="prediction")
    np.testing.assert_allclose(curve.error, s * np.sqrt(1 / n + (at - x.mean()) ** 2 / spread), rtol=1e-10)
    np.testing.assert_allclose(new.error, s * np.sqrt(1 + 1 / n + (at - x.mean()) ** 2 / spread), rtol=1e-10)
    found = jf.residuals(straight)
    np.testing.assert_allclose(found.raw, residuals, rtol=1e-7, atol=1e-9)
    leverage = 1 / n + (x - x.mean()) ** 2 / spread
    np.testing.assert_allclose(found.leverage, leverage, rtol=1e-10)
    np.testing.assert_allclose(found.standardized, residuals / s / np.sqrt(1 - leverage), rtol=1e-7, atol=1e-9)
    good = jf.goodness_of_fit(straight)
    np.testing.assert_allclose(good.r_squared, np.corrcoef(x, y)[0, 1] ** 2, rtol=1e-10)
    np.testing.assert_allclose(good.reduced_chi_squared, s**2, rtol=1e-10)


def test_intervals_reach_as_far_as_students_t(straight):
    stats = pytest.importorskip("scipy.stats")
    reach = stats.t.ppf(0.995, 31) * jf.standard_errors(straight)["w"]
    low, high = jf.intervals(straight, level=0.99)["w"]
    np.testing.assert_allclose([low, high], straight.params["w"] + np.array([-reach, reach]), rtol=1e-12)


@pytest.mark.soak
def test_all_certified_errors_are_met():
    """Lanczos1 apart, whose residuals are 1e-13 of the data: what float64 leaves of them is three digits."""
    least = {"Lanczos1": 3, "Misra1a": 6, "MGH09": 6, "Thurber": 6}
    for name, one in nist.read().items():
        fit = jf.curve_fit(one.predict, list(one.starts[1]), one.data)
        if nist.digits(fit.params, one.params) > 6 or least.get(name) == 6:
            assert nist.digits(jf.standard_errors(fit), one.errors) > least.get(name, 4), name


def test_a_weighted_fit_agrees_with_scipy(curve):
    optimize = pytest.importorskip("scipy.optimize")

    def predict(x, a, b, c):
        return a * np.exp(-b * x) + c

    def slopes(x, a, b, c):
        return np.stack([np.exp(-b * x), -a * x * np.exp(-b * x), np.ones_like(x)], axis=1)

    best = [curve.params[k] for k in "abc"]  # scipy's Jacobian is that before its last step
    for absolute in (False, True):
        _, expected = optimize.curve_fit(predict, X, Y, best, SIGMA, absolute_sigma=absolute, jac=slopes)
        found = jf.covariance(curve, absolute_sigma=absolute)
        matrix = np.array([[found[a][b] for b in "abc"] for a in "abc"])
        np.testing.assert_allclose(matrix, expected, rtol=1e-5)


@pytest.mark.soak
def test_the_fit_remembers_whether_sigma_is_absolute(curve):
    told = jf.curve_fit(decay, START, (X, Y), SIGMA, absolute_sigma=True)
    plain = jf.fit(jf.losses.chi_squared(decay), START, (X, Y, SIGMA), optimizer=LM)
    expected = flat(jf.standard_errors(curve, absolute_sigma=True))
    np.testing.assert_allclose(flat(jf.standard_errors(told)), expected, rtol=1e-8)
    np.testing.assert_allclose(flat(jf.standard_errors(plain)), expected, rtol=1e-8)
    scale = jf.goodness_of_fit(curve).reduced_chi_squared
    np.testing.assert_allclose(flat(jf.standard_errors(curve)), expected * np.sqrt(scale), rtol=1e-8)


@pytest.mark.soak
def test_a_mean_of_squares_has_the_errors_of_their_sum(curve):
    options = {"optimizer": LM}
    one = jf.fit(jf.losses.mse(decay), START, (X, Y), **options)
    two = jf.fit(jf.losses.least_squares(lambda p, x, y: decay(p, x) - y), START, (X, Y), **options)
    masked = jf.fit(
        jf.losses.mse(decay, masked=True), START, (np.append(X, 9.0), np.append(Y, np.nan), X.size * [True] + [False]),
        **options,
    )  # fmt: skip
    np.testing.assert_allclose(flat(jf.standard_errors(two)), flat(jf.standard_errors(one)), rtol=1e-8)
    np.testing.assert_allclose(flat(jf.standard_errors(masked)), flat(jf.standard_errors(one)), rtol=1e-8)
    assert np.isnan(jf.residuals(masked).raw[-1]) and jf.goodness_of_fit(masked).points == 25


@pytest.mark.soak
def test_correlated_noise_is_whitened():
    root = np.tril(RNG.normal(size=(25, 25))) * 0.01 + 0.05 * np.eye(25)
    fit = jf.curve_fit(line, {"w": 1.0, "b": 0.0}, (X, Y), root @ root.T, absolute_sigma=True)
    basis = np.stack([np.ones(25), X], axis=1)
    expected = np.linalg.inv(basis.T @ np.linalg.inv(root @ root.T) @ basis)
    found = jf.covariance(fit)
    np.testing.assert_allclose([found["b"]["b"], found["b"]["w"], found["w"]["w"]], expected[[0, 0, 1], [0, 1, 1]])


@pytest.mark.soak
def test_what_is_fixed_tied_or_on_a_bound_is_said_to_be_so(curve):
    start = {
        "a": 1.0,
        "b": 1.0,
        "c": jf.Bounded(0.8, low=0.6),
        "d": jf.Fixed(3.0),
        "e": jf.Tied(lambda p: p["a"] * p["d"]),
    }
    fit = jf.curve_fit(decay, start, (X, Y), SIGMA)
    alone = jf.curve_fit(decay, START | {"c": jf.Fixed(0.6)}, (X, Y), SIGMA)
    errors, expected = jf.standard_errors(fit), jf.standard_errors(alone)
    assert fit.params["c"] == 0.6 and np.isnan(errors["c"]) and np.isnan(errors["d"])
    np.testing.assert_allclose([errors["a"], errors["b"]], [expected["a"], expected["b"]], rtol=1e-7)
    np.testing.assert_allclose(errors["e"], 3 * errors["a"], rtol=1e-12)
    inside = jf.curve_fit(decay, START | {"c": jf.Bounded(0.3, low=0.1)}, (X, Y), SIGMA)
    np.testing.assert_allclose(flat(jf.standard_errors(inside)), flat(jf.standard_errors(curve)), rtol=1e-6)
    assert np.isnan(jf.propagate(fit, lambda p: p["c"]).error) and jf.propagate(fit, lambda p: p["d"]).error == 0
    np.testing.assert_allclose(jf.band(fit, X[:2]).error, jf.band(alone, X[:2]).error, rtol=1e-6)


@pytest.mark.soak
def test_what_the_data_do_not_determine_gets_no_number():
    def redundant(params, x):
        return params["a"] * params["b"] * x + params["c"]

    fit = jf.fit(jf.losses.rss(redundant), START, (X, Y), optimizer=LM, steps=60)
    alone = jf.curve_fit(line, {"w": 1.0, "b": 0.0}, (X, Y))
    errors, expected = jf.standard_errors(fit), jf.standard_errors(alone)
    assert np.isnan(errors["a"]) and np.isnan(errors["b"])
    np.testing.assert_allclose(errors["c"], expected["b"], rtol=1e-7)
    np.testing.assert_allclose(jf.propagate(fit, lambda p: p["a"] * p["b"]).error, expected["w"], rtol=1e-7)
    assert np.isnan(jf.propagate(fit, lambda p: p["a"]).error)
    np.testing.assert_allclose(jf.band(fit, X).error, jf.band(alone, X).error, rtol=1e-7)
    assert jf.goodness_of_fit(fit).params == 2


@pytest.mark.soak
def test_no_error_depends_on_units():
    def other(params, x):
        return decay({"a": params["a"] / 1e8, "b": params["b"] * 1e8, "c": params["c"]}, x)

    one = jf.standard_errors(jf.curve_fit(decay, START, (X, Y)))
    two = jf.standard_errors(jf.curve_fit(other, {"a": 1e8, "b": 1e-8, "c": 0.0}, (X, Y)))
    np.testing.assert_allclose([two["a"] / 1e8, two["b"] * 1e8, two["c"]], flat(one), rtol=1e-7)


def test_any_function_of_params_has_an_error(curve):
    uncertainties = pytest.importorskip("uncertainties")
    covariance = jf.covariance(curve)
    matrix = [[covariance[a][b] for b in "abc"] for a in "abc"]
    a, b, c = uncertainties.correlated_values([curve.params[k] for k in "abc"], matrix)
    found = jf.propagate(curve, lambda p: {"half": jnp.log(2.0) / p["b"], "start": p["a"] + p["c"]})
    for name, expected in (("half", np.log(2) / b), ("start", a + c)):
        np.testing.assert_allclose(found.value[name], expected.nominal_value, rtol=1e-12)
        np.testing.assert_allclose(found.error[name], expected.std_dev, rtol=1e-8)


@pytest.mark.soak
def test_a_likelihood_has_the_errors_of_its_curvature():
    labels = (RNG.random(200) < 1 / (1 + np.exp(-(0.5 + 1.2 * np.tile(X, 8) - 2)))).astype(int)
    x = np.tile(X, 8)

    def logits(params, x):
        z = params["w"] * x + params["b"]
        return jnp.stack([jnp.zeros_like(z), z], axis=1)

    options = {"optimizer": jf.optimizers.lbfgs(), "precision": "float64", "steps": 200}
    fit = jf.fit(jf.losses.softmax_cross_entropy(logits), {"w": 0.0, "b": 0.0}, (x, labels), **options)
    p = 1 / (1 + np.exp(-(fit.params["w"] * x + fit.params["b"])))
    basis = np.stack([np.ones(200), x], axis=1)
    expected = np.sqrt(np.diag(np.linalg.inv(basis.T @ (basis * (p * (1 - p))[:, None]))))
    np.testing.assert_allclose(flat(jf.standard_errors(fit)), expected, rtol=1e-6)
    likelihood = -2 * np.sum(np.where(labels == 1, np.log(p), np.log(1 - p)))
    np.testing.assert_allclose(jf.goodness_of_fit(fit).aic, likelihood + 4, rtol=1e-10)


@pytest.mark.soak
def test_a_robust_fit_that_never_leaves_the_square_has_the_errors_of_least_squares():
    square = jf.fit(jf.losses.rss(line), {"w": 1.0, "b": 0.0}, (X, Y), optimizer=LM)
    robust = jf.fit(jf.losses.huber(line, delta=50.0), {"w": 1.0, "b": 0.0}, (X, Y), optimizer=LM)
    np.testing.assert_allclose(flat(jf.standard_errors(robust)), flat(jf.standard_errors(square)), rtol=1e-8)


@pytest.mark.soak
def test_lanes_have_the_errors_of_their_fits():
    sets = np.stack([Y, Y + 0.02 * np.sin(9 * X), 0 * Y + 1e300])
    start = {"a": 1.0, "b": jf.Axis("b0", [0.7, 1.1]), "c": 0.0}
    grid = jf.sweep(jf.losses.rss(decay), start, (X, jf.Axis("set", sets)), optimizer=LM, steps=40)
    errors, ends = jf.standard_errors(grid), jf.intervals(grid)
    names, good = jf.covariance(grid), jf.goodness_of_fit(grid)
    for i in range(2):
        fit = jf.lane(grid, b0=1.1, set=i)
        own = jf.standard_errors(fit)
        np.testing.assert_allclose([errors[f"params.{k}"].sel(b0=1.1)[i] for k in "abc"], flat(own), rtol=1e-10)
        np.testing.assert_allclose(ends["params.a"].sel(b0=1.1, end="high")[i], jf.intervals(fit)["a"].high, rtol=1e-10)
        np.testing.assert_allclose(names.sel(b0=1.1, param="a", other="b")[i], jf.covariance(fit)["a"]["b"], rtol=1e-9)
        np.testing.assert_allclose(good.aic.sel(b0=1.1)[i], jf.goodness_of_fit(fit).aic, rtol=1e-10)
        band = jf.band(grid, X[:3]).error.sel(b0=1.1)[i]
        np.testing.assert_allclose(band, jf.band(fit, X[:3]).error, rtol=1e-9)
    assert (grid.results.status[:, 2] == jf.Status.DIVERGED).all() and np.isnan(errors["params.a"][:, 2]).all()
    rate = jf.propagate(grid, lambda p: 1 / p["b"])
    np.testing.assert_allclose(rate.error[0, 0], errors["params.b"][0, 0] * rate.value[0, 0] ** 2, rtol=1e-10)


@pytest.mark.soak
def test_the_errors_of_new_data_do_not_compile_anew(traces):
    model = traces(decay)
    fits = [jf.curve_fit(model, START, (X, Y + shift)) for shift in (0.0, 0.1)]
    jf.standard_errors(fits[0]), jf.intervals(fits[0])
    count = model.count
    jf.standard_errors(fits[1])
    assert model.count == count


@pytest.mark.soak
def test_a_param_more_is_worth_it_or_not():
    stats = pytest.importorskip("scipy.stats")
    small = jf.curve_fit(line, {"w": jf.Fixed(0.0), "b": 0.0}, (X, Y))
    large = jf.curve_fit(line, {"w": 0.0, "b": 0.0}, (X, Y))
    found, regression = jf.f_test(small, large), stats.linregress(X, Y)
    np.testing.assert_allclose(found.p_value, regression.pvalue, rtol=1e-8)
    np.testing.assert_allclose(found.f, (regression.slope / regression.stderr) ** 2, rtol=1e-8)
    assert (found.numerator, found.denominator) == (1, 23)


def failed():
    return jf.fit(jf.losses.mse(line), {"w": 1.0, "b": 0.0}, (X, Y), optimizer=jf.optimizers.sgd(10.0), steps=500)


def short():
    return jf.fit(jf.losses.mse(line), {"w": 1.0, "b": 0.0}, (X, Y), optimizer=jf.optimizers.sgd(0.01), steps=3)


def by(loss, params=None):
    options = {"optimizer": jf.optimizers.sgd(1e-3), "steps": 1}
    return jf.fit(loss, params or {"w": 1.0, "b": 0.0}, (X, Y), **options)


REFUSED = {
    "what is no fit": (lambda: jf.standard_errors({"a": 1.0}), TypeError, "standard_errors takes a fit or the grid"),
    "a fit that diverged": (lambda: jf.covariance(failed()), jf.NotConverged, "covariance needs params at a minimum"),
    "a fit that forgot": (lambda: jf.intervals(dataclasses.replace(short(), training=None)), ValueError,
        "no longer knows"),
    "a plain function": (lambda: jf.standard_errors(by(lambda p, x, y: jnp.mean((line(p, x) - y) ** 2))), TypeError,
        r"noise behind the loss, which <lambda> does not tell; .*jf\.losses\.least_squares"),
    "absolute values": (lambda: jf.standard_errors(by(jf.losses.mae(line))), TypeError, "no curvature.*huber"),
    "a penalty": (lambda: jf.standard_errors(by(jf.losses.mse(line) + jf.losses.l2(0.1))), TypeError,
        "adds a penalty.*make it a measurement"),
    "noise on the inputs": (lambda: jf.standard_errors(jf.fit(jf.losses.input_noise(jf.losses.mse(line), scale=0.1),
        {"w": 1.0, "b": 0.0}, (X, Y), key=0, optimizer=jf.optimizers.sgd(1e-3), steps=1)), TypeError, "is random"),
    "sigma that is not there": (lambda: jf.covariance(by(jf.losses.mse(line)), absolute_sigma=True), ValueError,
        "no sigma in mse"),
    "absolute that is no boolean": (lambda: jf.covariance(by(jf.losses.mse(line)), absolute_sigma=1), TypeError,
        "absolute_sigma is 1"),
    "percent": (lambda: jf.intervals(short(), level=95), ValueError, "level is 95.*pass 0.95"),
    "no level": (lambda: jf.intervals(short(), level="95%"), TypeError, "level is '95%'"),
    "no method": (lambda: jf.intervals(short(), "walt"), ValueError, "did you mean wald"),
    "a key for nothing": (lambda: jf.intervals(short(), key=0), ValueError, "draws nothing"),
    "no kind": (lambda: jf.band(short(), X, kind="both"), ValueError, "kind is 'both'"),
    "no function": (lambda: jf.propagate(short(), 3.0), TypeError, "function is 3.0"),
    "no floats": (lambda: jf.propagate(short(), lambda p: p["w"] > 0), TypeError, "errors are of floating numbers"),
    "a keyword misspelled": (lambda: jf.standard_errors(short(), absolut_sigma=True), TypeError, "absolute_sigma"),
    "the larger one first": (lambda: jf.f_test(short(), short()), ValueError, "goes second"),
}  # fmt: skip


COMPILES = ("noise on the inputs", "a penalty", "absolute values", "a fit that diverged", "a plain function")


@pytest.mark.parametrize(
    "case",
    soaking(REFUSED, but=COMPILES),
)
@pytest.mark.filterwarnings("ignore:.*standard errors from the minimum")
def test_refused_with_a_remedy(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_errors_far_from_the_minimum_come_with_a_warning():
    with pytest.warns(UserWarning, match="standard_errors: the fit stands .* standard errors from the minimum"):
        jf.standard_errors(short())


@pytest.mark.soak
def test_the_noise_of_a_new_observation_must_be_known(curve):
    with pytest.raises(ValueError, match="sigma differs from point to point"):
        jf.band(curve, X, kind="prediction")
    one, new = jf.band(curve, X[:2]), jf.band(curve, X[:2], kind="prediction", sigma=0.1)
    scale = jf.goodness_of_fit(curve).reduced_chi_squared
    np.testing.assert_allclose(new.error**2 - one.error**2, 0.01 * scale, rtol=1e-8)


def test_the_program_of_one_lane_calls_lapack_where_that_of_many_rotates_in_place():
    columns, held = RNG.normal(size=(2, 9)).astype(np.float32), np.zeros(2, bool)
    found = []
    for alone in (True, False):
        with for_one_lane(alone):
            traced = jax.jit(lambda *given: directions(*given)).trace(columns, held)
        assert (" svd" in str(traced.jaxpr)) is alone
        found.append(traced.lower().compile()(columns, held)[2])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_covariance_that_overflows_is_infinite_without_a_warning():
    known = moments("covariance", jf.curve_fit(jf.models.line, None, jf.datasets.thermometer()), None)
    unit, variance = known.estimate.unit * 1e300, known.estimate.variance * 1e300
    far = known._replace(estimate=known.estimate._replace(unit=unit, variance=variance), noise=np.asarray(1e300))
    assert np.isinf(np.diagonal(far.covariance)).all() and np.isinf(far.errors).all()


def test_the_directions_of_lanes_are_those_of_singular_vectors_whatever_their_neighbors():
    triangle = np.triu(RNG.normal(size=(3, 3)))
    triangles = np.stack([triangle, triangle * [1, 1, 1e-3], triangle])
    triangles[1, :2, 2], triangles[2, 2] = triangles[0, :2, 2], 0  # nearly and quite dependent
    triangles /= np.linalg.norm(triangles, axis=1)[:, None]
    with precision_context("float64"):
        mapped = jax.jit(jax.vmap(directions_of_lane))
        found, alone = (jax.tree.map(np.asarray, mapped(x)) for x in (triangles, triangles[[0, 0, 0]]))
    root, silent, kept, least = found
    for i in range(3):
        inverse = np.linalg.pinv(triangles[i], rcond=1e-12)
        np.testing.assert_allclose(root[i] @ root[i].T, inverse @ inverse.T, rtol=1e-9)  # of pivots of 1e-5
    assert kept.all(axis=1).tolist() == [True, True, False] and not silent[:2].any()
    np.testing.assert_allclose(triangles[2] @ silent[2].T, 0, atol=4e-15)  # 16 roundings of numbers up to 1
    assert (least > 0).all() and np.linalg.norm(silent[2]) == pytest.approx(1)
    for x, y in zip(found, alone, strict=True):
        np.testing.assert_array_equal(x[0], y[0])


@pytest.mark.soak
def test_the_errors_of_lanes_are_those_of_single_fits_however_nearly_columns_depend_on_each_other():
    random = np.random.default_rng(4)
    columns, y = random.standard_normal((20, 3)), random.standard_normal(20)
    close = [1.0, 1e-2, 1e-4, 1e-6, 0.0]
    tables = np.stack([np.column_stack([columns[:, :2], columns[:, 0] + part * columns[:, 2]]) for part in close])
    loss = jf.losses.rss(lambda p, x: x @ p)

    def errors(tables):
        grid = jf.sweep(loss, np.zeros(3), (jf.Axis("table", tables), y), precision="float64", steps=20,
                        optimizer=jf.optimizers.levenberg_marquardt())  # fmt: skip
        return jf.standard_errors(grid)["params"].values

    found = errors(tables)
    for i, part in enumerate(close[:-1]):  # by the pseudoinverse, which loses as many digits
        noise = np.linalg.lstsq(tables[i], y, rcond=None)[1][0] / 17
        exact = np.sqrt(noise) * np.linalg.norm(np.linalg.pinv(tables[i]), axis=1)
        np.testing.assert_allclose(found[i], exact, rtol=1e3 * np.finfo(float).eps / part)
    assert np.isnan(found[-1, [0, 2]]).all() and np.isfinite(found[-1, 1])
    again = errors(tables[[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(again[:2], found[:2])  # beside lanes that take another way


@pytest.mark.parametrize("marked", [False, True], ids=["free", "one on a bound, one fixed"])
def test_the_errors_of_lanes_are_those_of_their_covariance_and_of_each_lane(marked):
    x, random = np.linspace(0, 3, 20), np.random.default_rng(3)
    start = {
        "a": 2.0,
        "b": 1.0,
        "c": jf.Bounded(0.5, low=0.4) if marked else 0.5,
        "d": jf.Fixed(0.1) if marked else 0.1,
    }
    ys = 2 * np.exp(-1.3 * x) + 0.3 + 0.1 * x + 0.05 * random.normal(size=(5, 20))
    loss = jf.losses.rss(lambda p, x: p["a"] * jnp.exp(-p["b"] * x) + p["c"] + p["d"] * x)
    grid = jf.sweep(loss, start, (x, jf.Axis("set", ys)), optimizer=jf.optimizers.levenberg_marquardt(), steps=50)
    errors = np.stack([jf.standard_errors(grid)[f"params.{name}"].values for name in "abcd"], axis=-1)
    table = np.asarray(jf.covariance(grid))
    np.testing.assert_allclose(errors, np.sqrt(np.diagonal(table, axis1=-2, axis2=-1)), rtol=1e-12)
    assert np.isnan(errors).any() == marked
    for i in range(5):
        alone = jf.standard_errors(jf.lane(grid, set=i))
        np.testing.assert_allclose(errors[i], [alone[name] for name in "abcd"], rtol=1e-9)  # by another factorization
