"""What Levenberg-Marquardt says at a least value: that the data determine the params, that they do not, or neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.optimizers.arrays import triangularize
from jaxfit.statistics.covariances import correlation_matrix, with_own_pivots
from tests.shared import mgh
from tests.shared.soak import soaking

LM, Status = jf.optimizers.levenberg_marquardt, jf.Status
RSS = jf.losses.rss
X = np.arange(1.0, 11)
Y = 1 + 0.1 * np.sin(5 * X)


def fit(predict, start, data=(X, Y), **options):
    return jf.fit(RSS(predict), start, data, **{"optimizer": LM(), "steps": 1000} | options)


def lowest_and_last(run):
    return np.min(run.history.loss), run.loss


def doubled(params, x):
    return (params["a"] + 2 * params["b"]) * x


def summed(params, x):
    return params["a"] * x + params["b"] * x + params["c"]


def unused(params, x):
    return params["a"] * x + 0 * params["b"]


def product(params, x):
    return params["a"] * params["b"] * x


# The least of each, by the line that it comes to.
SLOPE = X @ Y / (X @ X)
THROUGH_ZERO = np.sum((Y - SLOPE * X) ** 2)
LINE = np.sum((Y - np.polyval(np.polyfit(X, Y, 1), X)) ** 2)
REDUNDANT = {
    "a sum": (doubled, {"a": 1.0, "b": 1.0}, THROUGH_ZERO),
    "two slopes": (summed, {"a": 1.0, "b": 1.0, "c": 0.0}, LINE),
    "two slopes far away": (summed, {"a": 1e8, "b": 1.0, "c": -1e3}, LINE),
    "a param without influence": (unused, {"a": 1.0, "b": 3.0}, THROUGH_ZERO),
    "a product": (product, {"a": 1.0, "b": 3.0}, THROUGH_ZERO),
}


def test_directions_that_change_no_prediction_are_told_with_few_params_each():
    """A sum of four params leaves three directions open, each of which moves two of them."""
    run = fit(lambda p, x: (p[0] + p[1] + p[2] + p[3]) * x, np.ones(4))
    notes = [note for note in str(jf.report(run)).splitlines() if "changes no prediction" in note]
    assert len(notes) == 3 and all(note.count(" by ") == 2 for note in notes)
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0].T
    found = with_own_pivots(rows)
    np.testing.assert_allclose(found @ rows.T @ rows, found, atol=1e-12)  # in the same space
    assert np.linalg.matrix_rank(found) == 3 and (np.abs(found) < 1e-12).sum() == 6


def test_a_param_with_an_infinite_error_has_no_correlation():
    """As far from all data, where the slopes of a peak are 1e-190."""
    links = correlation_matrix(np.array([[np.inf, np.inf, 0.0], [np.inf, np.inf, 0.0], [0.0, 0.0, 4.0]]))
    assert np.isnan(links[:2]).all() and np.isnan(links[2, :2]).all() and links[2, 2] == 1


@pytest.mark.parametrize("case", soaking(REDUNDANT, keep=("two slopes",)))
def test_redundant_params_end_at_the_least_loss_as_not_determined(case):
    predict, start, least = REDUNDANT[case]
    run = fit(predict, start)
    lowest, last = lowest_and_last(run)
    assert run.status == Status.NOT_DETERMINED and run.steps < 40
    rounded = 4 * np.finfo(float).eps * max(map(abs, start.values())) * np.linalg.norm(X) / np.sqrt(least)
    np.testing.assert_allclose(last, least, rtol=1e-12 + rounded)  # params so large round the predictions
    assert last <= lowest * (1 + 1e-13 + rounded)
    assert max(abs(float(p)) for p in run.params.values()) <= 2 * max(map(abs, start.values()))  # it stays near
    with pytest.raises(jf.NotConverged, match="data do not determine all of the params.*jf.Fixed"):
        jf.require_converged(run)


def test_a_step_goes_no_farther_than_the_data_tell():
    """The least squares solution nearest to the start, in units of the columns' norms, as NumPy's pseudoinverse has it.

    One step, all but undamped; the columns' norms are the units.
    """
    matrix = np.random.default_rng(0).normal(size=(12, 5))
    matrix[:, 4] = matrix[:, 0] - 2 * matrix[:, 2]
    y, start = np.random.default_rng(1).normal(size=12), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    options = {"optimizer": LM(damping=1e-12), "steps": 50}
    run = jf.fit(RSS(lambda w, x: x @ w), start, (matrix, y), **options)
    units = np.linalg.norm(matrix, axis=0)
    nearest = start - np.linalg.pinv(matrix / units, rcond=1e-10) @ (matrix @ start - y) / units
    assert run.status == Status.NOT_DETERMINED
    np.testing.assert_allclose(run.params, nearest, rtol=1e-7)


@pytest.mark.soak
def test_a_sweep_tells_lanes_whose_params_are_determined_from_those_where_they_are_not():
    sets = np.stack([X, np.ones(10), X**2])  # of one x alone only a + b is determined

    def line(params, x):
        return params["a"] + params["b"] * x

    grid = jf.sweep(RSS(line), {"a": 1.0, "b": 2.0}, (jf.Axis("set", sets), Y), optimizer=LM(), steps=50)
    assert list(grid.results.status) == [Status.CONVERGED, Status.NOT_DETERMINED, Status.CONVERGED]
    for i, x in enumerate(sets):
        least = np.sum((Y - np.polyval(np.polyfit(x, Y, 1 if np.ptp(x) else 0), x)) ** 2)
        np.testing.assert_allclose(grid.results.loss[i], least, rtol=1e-12)
    alone = jf.sweep(RSS(line), {"a": 1.0, "b": 2.0}, (jf.Axis("set", sets[[1, 1, 1]]), Y), optimizer=LM(), steps=50)
    assert jf.best(alone).status == Status.NOT_DETERMINED  # whose loss is as good as any


@pytest.mark.soak
@pytest.mark.usefixtures("nothing_was_compiled_before")  # each model is a new function of one name
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("count", [2, 3, 5, 7, 9, 12])
def test_random_redundant_models_end_at_the_least_loss(count, precision):
    rng, eps = np.random.default_rng(count), np.finfo(precision).eps
    rank = max(1, count - 1 - count // 4)
    mix = rng.normal(size=(rank, count))
    matrix, ys = rng.normal(size=(40, rank)), rng.normal(size=(6, 40))

    def predict(w, x):
        return x @ (mix.astype(x.dtype) @ w)

    starts = jf.Axis("start", 10 * rng.normal(size=(6, count)))
    data = (matrix, jf.Axis("start", ys))
    grid = jf.sweep(RSS(predict), starts, data, optimizer=LM(), steps=300, precision=precision)
    least = [np.sum((y - matrix @ np.linalg.lstsq(matrix, y)[0]) ** 2) for y in ys]
    assert (grid.results.status == Status.NOT_DETERMINED).all(), grid.results.status.values
    np.testing.assert_allclose(grid.results.loss, least, rtol=1e4 * eps)


@pytest.mark.usefixtures("nothing_was_compiled_before")
@pytest.mark.parametrize("lanes", soaking([False, True], keep=1), ids=["alone", "lanes"])
@pytest.mark.parametrize("count", soaking([2, 6, 7, 8, 12], keep=(2,)))
def test_a_param_on_its_bound_lets_the_others_converge(count, lanes):
    rng = np.random.default_rng(count)
    matrix, truth = rng.normal(size=(40, count)), rng.normal(size=count)
    truth[1] = -1.0

    def predict(params, x):
        return x @ jnp.concatenate([params["u"], params["v"]])

    ys = matrix @ truth + 0.1 * rng.normal(size=(8, 40))
    start = {"u": jf.Bounded(np.full(2, 0.5), low=np.array([-9.0, 0.0])), "v": np.zeros(count - 2)}
    how = {"optimizer": LM(), "steps": 100}
    if lanes:
        grid = jf.sweep(RSS(predict), start, (matrix, jf.Axis("set", ys)), **how)
        runs = [jf.lane(grid, set=i) for i in range(8)]
    else:
        runs = [jf.fit(RSS(predict), start, (matrix, y), **how) for y in ys]
    inside = np.delete(matrix, 1, axis=1)
    for run, y in zip(runs, ys, strict=True):
        assert run.status == Status.CONVERGED and run.steps < 10
        exact = np.linalg.lstsq(inside, y)[0]
        found = np.concatenate([run.params["u"], run.params["v"]])
        np.testing.assert_allclose(found, np.insert(exact, 1, 0.0), rtol=1e-10, atol=1e-12)


def equal(w, x):
    return x[:, 0] * (w[0] - w[1]) + x[:, 1] * w[2]


def mixed(w, x):
    return x @ (jnp.array([[1.0, 0.3, -0.7], [0.2, 1.1, 0.4]], w.dtype) @ w)


def apart(w, x):
    return x[:, 0] * w[0] + x[:, 1] * w[1] + x[:, 0] * x[:, 1] * w[2]


# Of each the model, the lowest and highest of its three params, their truth, the noise, and the verdict: a column of a
# param on its bound may depend on that of one between its bounds, on that of another on a bound, or on none.
INF = np.inf
ON_BOUNDS = {
    "one of a difference": (equal, [-INF, 0, -INF], [INF] * 3, [2.0, 0.0, 1.0], 0.1, Status.NOT_DETERMINED),
    "of a mixture": (mixed, [0, -INF, -INF], [INF, 0, INF], [0.0, -1.0, 1.0], 0.1, Status.NOT_DETERMINED),
    "both pushed": (equal, [0, -INF, -INF], [INF, 0, INF], [-1.0, 1.0, 1.0], 0.1, Status.CONVERGED),
    "another pushed": (equal, [-INF, -INF, 0], [INF, INF, 1], [1.0, 0.0, 5.0], 0.1, Status.NOT_DETERMINED),
    "none depends": (apart, [0, -INF, 0], [INF, 0, INF], [0.0, 0.0, 1.0], 0.1, Status.CONVERGED),
}


@pytest.mark.parametrize("lanes", soaking([False, True], keep=1), ids=["alone", "lanes"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", soaking(ON_BOUNDS, keep=("one of a difference", "both pushed")))
def test_rounding_does_not_decide_what_is_said_of_params_on_bounds(name, precision, lanes):
    """The noise is orthogonal to all columns: slopes are zero but for rounding if no truth is out of bounds."""
    predict, low, high, truth, noise, status = ON_BOUNDS[name]
    rng, x = np.random.default_rng(0), np.random.default_rng(1).normal(size=(40, 2))
    columns = np.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1]])
    noises = rng.normal(size=(12, 40))
    noises -= noises @ columns.T @ np.linalg.pinv(columns.T)
    with jax.enable_x64(True):
        ys = np.asarray(predict(jnp.asarray(truth), jnp.asarray(x))) + noise * noises
    starts = np.clip(np.array(truth) + rng.normal(size=(12, 3)), low, high)
    how = {"optimizer": LM(), "steps": 60, "precision": precision}

    def bounded(values):
        return jf.Bounded(values, low=np.array(low, float), high=np.array(high, float))

    if lanes:
        grid = jf.sweep(RSS(predict), bounded(jf.Axis("set", starts)), (x, jf.Axis("set", ys)), **how)
        runs = [jf.lane(grid, set=i) for i in range(12)]
    else:
        runs = [jf.fit(RSS(predict), bounded(start), (x, y), **how) for start, y in zip(starts, ys, strict=True)]
    assert [run.status for run in runs] == [status] * 12
    ends = np.array([run.params for run in runs])
    assert ((ends == low) | (ends == high)).any()


@pytest.mark.soak
def test_a_triangle_has_rows_of_zeros_for_columns_that_depend_on_others():
    rng = np.random.default_rng(2)
    for k in (4, 9):
        matrix, b = rng.normal(size=(30, k)), rng.normal(size=30)
        matrix[:, 2] = matrix[:, 0] - 3 * matrix[:, 1]
        with jax.enable_x64(True):
            triangle, shadow = map(np.asarray, triangularize(jnp.asarray(matrix.T), jnp.asarray(b)))
        assert not np.any(triangle[2]) and shadow[2] == 0
        assert (np.abs(np.delete(np.diag(triangle), 2)) > 0.1).all()
        np.testing.assert_allclose(triangle.T @ triangle, matrix.T @ matrix, atol=1e-12)
        np.testing.assert_allclose(triangle.T @ shadow, matrix.T @ b, atol=1e-12)


@pytest.mark.soak
def test_a_bound_at_zero_of_a_param_that_enters_as_a_square_is_no_trap():
    """Hyperbolas: from any start the loss comes down to where it comes without the bound, as the sign means nothing."""

    def hyperbola(params, x):
        return params["a"] + params["b"] * jnp.sqrt((x - params["m"]) ** 2 + params["c"] ** 2)

    rng, x = np.random.default_rng(0), np.linspace(-3, 5, 30)
    y = 0.3 + 1.5 * np.sqrt((x - 0.7) ** 2 + 0.2**2) + 0.05 * rng.normal(size=30)
    starts = jf.Axis("start", rng.uniform(0.05, 3, 40))
    params = {"a": 0.0, "b": 1.0, "m": jf.Axis("start", rng.uniform(-1, 3, 40))}
    free, bounded = (
        jf.sweep(RSS(hyperbola), params | {"c": c}, (x, y), optimizer=LM(), steps=200).results
        for c in (starts, jf.Bounded(starts, low=0.0))
    )
    assert (free.status == Status.CONVERGED).all() and (bounded.status == Status.CONVERGED).all()
    assert (bounded.loss <= free.loss * (1 + 1e-9)).all() and (bounded["params.c"] > 0.01).all()


def test_scipys_hyperbola_leaves_its_bound_alone():
    """Exact data of c = 9.5 from c = .5 with c >= 0, of SciPy's own tests: a step onto c = 0 would be the last."""

    def hyperbola(p, x):
        root = jnp.sqrt((x - p["ox"]) ** 2 + p["c"] ** 2 / 4)
        return p["oy"] + (p["s2"] - p["s1"]) / 2 * (x - p["ox"]) + (p["s1"] + p["s2"]) / 2 * root

    truth = {"s1": -2.0, "s2": 0.4, "ox": -1.0, "oy": -5.0, "c": 9.5}
    start = {
        "s1": jf.Bounded(-2.5 / 3, -3.0, 0.0), "s2": jf.Bounded(4 / 3, 0.0, 3.0), "ox": jf.Bounded(1.0, -2.0, 3.0),
        "oy": jf.Bounded(-4.0, -10.0, 0.0), "c": jf.Bounded(0.5, 0.0, 10.0),
    }  # fmt: skip
    x = np.array([-32.0, -16.0, -8.0, 4.0, 4.0, 8.0, 16.0, 32.0])
    run = fit(hyperbola, start, (x, np.asarray(hyperbola(truth, x), float)), steps=100)
    assert run.status == Status.CONVERGED
    np.testing.assert_allclose([run.params[k] for k in truth], list(truth.values()), rtol=1e-5)


# What ended without a claim, though there: least values that are not zero of as many residuals as params, where J is
# singular and only the second derivatives tell; a minimum where J is singular; one that is reached slowly.
SETTLES = {
    "Freudenstein-Roth": 48.9842, "Jennrich-Sampson": 124.362, "Powell singular": 0.0, "Brown-Dennis": 85822.2,
    "trigonometric": 2.79506e-5, "Penalty II 4": 9.37629e-6, "Penalty II 10": 2.93660e-4, "Chebyquad 8": 3.51687e-3,
    "Chebyquad 10": 6.50395e-3,
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(SETTLES, keep=("Powell singular",)))
def test_a_minimum_is_known_where_the_jacobian_is_singular_or_steps_are_slow(name):
    problem, least = mgh.PROBLEMS[name], SETTLES[name]
    run = jf.fit(jf.losses.least_squares(problem.residuals), problem.start, optimizer=LM(), steps=600)
    lowest, last = lowest_and_last(run)
    assert run.status == Status.CONVERGED
    np.testing.assert_allclose(last, least, rtol=1e-5, atol=1e-30)  # six digits are printed
    assert last <= max(lowest * (1 + 1e-12), 1e-30)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["Chebyquad 8", "Chebyquad 10", "trigonometric"])
def test_a_minimum_that_only_second_derivatives_tell_is_known_whatever_the_rounding(name):
    """At a least value that is not zero J is singular, once or twice, and the params are determined nevertheless."""
    problem, rng = mgh.PROBLEMS[name], np.random.default_rng(0)
    starts = problem.start * (1 + 1e-9 * rng.normal(size=(12, problem.start.size)))
    loss = jf.losses.least_squares(problem.residuals)
    found = jf.sweep(loss, jf.Axis("start", starts), optimizer=LM(), steps=300).results
    assert (found.status == Status.CONVERGED).all(), found.status.values
    np.testing.assert_allclose(found.loss, SETTLES[name], rtol=1e-5)


@pytest.mark.parametrize("place", soaking([0, 3], keep=(0,)))
def test_redundant_params_at_a_minimum_of_curved_residuals_are_not_determined(place):
    """Brown and Dennis, with a sum of two params in one place: the run settles, and the sum stays open."""
    problem, rng = mgh.PROBLEMS["Brown-Dennis"], np.random.default_rng(0)

    def residuals(p):
        return problem.residuals(jnp.concatenate([p[:place], p[place : place + 1] + p[4:], p[place + 1 : 4]]))

    starts = np.append(problem.start, 0) * (1 + 0.1 * rng.normal(size=(24, 5)))
    starts[:, 4] = rng.normal(size=24)
    starts[:, place] -= starts[:, 4]
    loss = jf.losses.least_squares(residuals)
    found = jf.sweep(loss, jf.Axis("start", starts), optimizer=LM(), steps=2000).results
    assert (found.status == Status.NOT_DETERMINED).all(), found.status.values
    np.testing.assert_allclose(found.loss, SETTLES["Brown-Dennis"], rtol=1e-5)


def test_a_run_far_from_its_minimum_claims_nothing_whatever_the_units_of_its_columns():
    """Meyer's function from a hundred times its start: one column grows to 1e24 while the others still matter."""
    problem = mgh.PROBLEMS["Meyer"]
    options = {"optimizer": LM(), "steps": 40, "record": jf.Record(what=())}
    run = jf.fit(jf.losses.least_squares(problem.residuals), 100 * problem.start, **options)
    assert run.status == Status.OUT_OF_STEPS and run.loss > 1e4 * problem.least[0]


@pytest.mark.soak
@pytest.mark.parametrize("name", mgh.PROBLEMS)
def test_nothing_false_is_claimed_of_the_problems_of_more_garbow_and_hillstrom(name):
    problem = mgh.PROBLEMS[name]
    loss = jf.losses.least_squares(problem.residuals)
    for start in mgh.starts(problem):
        with jax.enable_x64(True):
            if not np.isfinite(loss(jnp.asarray(start))):
                continue
        run = jf.fit(loss, start, optimizer=LM(), steps=600, record=jf.Record(what=()))
        claimed = run.status in (Status.CONVERGED, Status.NOT_DETERMINED)
        assert not claimed or mgh.is_minimum(problem, run.params), (start, run.loss)
        undetermined = name in ("linear, rank one", "linear, rank one with zeros")
        assert (run.status == Status.NOT_DETERMINED) == undetermined, (start, run.status)


SQUARED = {  # starts of c, of which the model has the square and the data want a negative one: the least is at 0
    "low bound": jf.Bounded(0.5, 0.0, 5.0), "high bound": jf.Bounded(-0.5, -5.0, 0.0), "at the bound":
    jf.Bounded(0.0, 0.0, 5.0), "free": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(SQUARED, keep=("low bound",)))
def test_a_param_that_ends_at_zero_where_its_column_is_zero_is_at_a_minimum(name):
    """Sums of (a + c**2 x - y)**2: the derivative by c is zero at c = 0, where the sum bends up by c."""
    x = np.linspace(-3, 4, 30)
    y = 1 - 0.25 * x
    fit = jf.curve_fit(lambda p, x: p["a"] + p["c"] ** 2 * x, {"a": 0.0, "c": SQUARED[name]}, (x, y), steps=60)
    assert fit.status == Status.CONVERGED
    np.testing.assert_allclose([fit.params["a"], fit.params["c"]], [y.mean(), 0], atol=1e-8)
    np.testing.assert_allclose(fit.loss, np.sum((y - y.mean()) ** 2), rtol=1e-12)


@pytest.mark.parametrize(("power", "farthest"), soaking([(2, 1e20), (3, 1e12), (4, 1e6)], keep=1, names=2))
def test_a_power_of_a_param_that_starts_far_away_comes_to_its_least_before_it_is_called_converged(power, farthest):
    """Each step takes a part of the param, as at a minimum at zero; from 1e20 a step of 1e8 is no small one.

    From farther away its influence is lost, as far as its largest one tells.
    """
    starts = np.geomspace(3.0, farthest, 5)
    loss = RSS(lambda p, x: p**power * x)
    found = jf.sweep(loss, jf.Axis("start", starts), (X, Y), optimizer=LM(), steps=400).results
    assert (found.status == Status.CONVERGED).all(), found.status.values
    np.testing.assert_allclose(found.params, SLOPE ** (1 / power), rtol=1e-10)


def test_a_column_that_underflows_shows_no_curvature():
    """Box' function from ten times its start: exp(-645) is left of one param, whose slopes of 1e-282 bend up."""
    problem = mgh.PROBLEMS["Box"]
    options = {"optimizer": LM(), "steps": 30, "record": jf.Record(what=())}
    run = jf.fit(jf.losses.least_squares(problem.residuals), 10 * problem.start, **options)
    assert run.status == Status.OUT_OF_STEPS and run.loss > 0.07  # the least is 0
