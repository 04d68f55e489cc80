"""Levenberg-Marquardt and L-BFGS: against certified values, closed forms, a loop of fits, and laws."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.optimizers import gauss_newton
from jaxfit.optimizers.arrays import damped, singular, triangularize
from tests.shared import nist
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt
SMALL = ("MGH09", "Misra1a"), ("BoxBOD", "Eckerle4")
X = np.linspace(0.0, 4.0, 30)


def decay(params, x):
    return params["a"] * jnp.exp(-params["b"] * x) + params["c"]


def noisy(seed=0, a=2.0, b=1.3, c=0.5):
    return a * np.exp(-b * X) + c + 0.05 * np.random.default_rng(seed).normal(size=X.size)


START = {"a": 1.0, "b": 1.0, "c": 0.0}
PATH = jf.Record(what=("params", "loss"))


def compiled(method, below):
    """A run with a record of params and a stop rule: one compiled program, whatever the rule's value."""
    rule = {"stop": jf.Stop(loss_below=below), "record": PATH}
    return jf.fit(jf.losses.mse(decay), START, (X, noisy()), optimizer=method(), steps=50, **rule)


@pytest.fixture(scope="module", params=soaking(SMALL, keep=SMALL[:1]), ids=" and ".join)
def certified(request):
    return nist.table(LM(), names=request.param)


def test_certified_problems_are_solved_to_the_digits_that_are_certified(certified):
    assert len(certified) == 2 * 2  # starts
    worst = min(certified, key=lambda row: row[-1])
    assert worst[-1] > 8, worst
    assert np.mean([row[-1] for row in certified]) > 10


def test_certified_problems_are_known_to_be_solved(certified):
    assert all(status == jf.Status.CONVERGED for _, _, status, _, _ in certified)


@pytest.mark.parametrize("method", soaking([LM, jf.optimizers.lbfgs], keep=(LM,)))
def test_single_precision_claims_nothing_that_is_false(method):
    rows = nist.table(method(), "float32", steps=300, names=("BoxBOD", "Eckerle4"))
    claimed = [row for row in rows if row[2] == jf.Status.CONVERGED]
    assert claimed and all(row[-1] >= 2 for row in claimed), rows


@pytest.mark.soak
def test_lbfgs_solves_certified_problems():
    rows = nist.table(jf.optimizers.lbfgs(), steps=1000, names=("Misra1a",))
    assert min(row[-1] for row in rows) > 4, rows
    assert all(row[2] == jf.Status.CONVERGED for row in rows), rows


def test_a_line_takes_the_closed_form_in_few_steps():
    t_u, t_c = jf.datasets.thermometer()
    fit = jf.fit(jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (t_u, t_c), optimizer=LM())
    slope, intercept = np.polyfit(t_u, t_c, 1)
    assert fit.status == jf.Status.CONVERGED and fit.steps <= 6 and fit.precision == "float64"
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], [slope, intercept], rtol=1e-10)


def test_the_loss_is_the_loss_at_params_and_never_rises():
    fit = compiled(LM, 1e-9)  # which is never reached
    residuals = noisy() - (fit.params["a"] * np.exp(-fit.params["b"] * X) + fit.params["c"])
    np.testing.assert_allclose(fit.loss, np.mean(residuals**2), rtol=1e-12)
    assert (np.diff(fit.history.loss) <= 1e-12 * fit.history.loss[0]).all()


def test_the_gradient_is_that_of_the_loss():
    loss = jf.losses.mse(decay)
    taken = jf.step(loss, START, (X, noisy()), optimizer=LM())
    with jax.enable_x64(True):
        grads = jax.jit(jax.grad(loss))({k: np.float64(v) for k, v in START.items()}, X, noisy())
    for name in START:
        np.testing.assert_allclose(taken.grads[name], grads[name], rtol=1e-10)


@pytest.mark.parametrize("unit", soaking([1e-6, 1e8], keep=(1e8,)))
def test_no_step_depends_on_units(unit):
    def other(params, x):
        return decay({"a": params["a"] / unit, "b": params["b"] * unit, "c": params["c"]}, x)

    one, two = jf.losses.rss(decay), jf.losses.rss(other)
    for steps in range(1, 5):
        options = {"optimizer": LM(), "steps": steps}
        here = jf.fit(one, START, (X, noisy()), **options)
        there = jf.fit(two, {"a": unit, "b": 1 / unit, "c": 0.0}, (X, noisy()), **options)
        np.testing.assert_allclose(there.loss, here.loss, rtol=1e-9)
        np.testing.assert_allclose(there.params["b"] * unit, here.params["b"], rtol=1e-7)


@pytest.mark.soak
def test_huber_ends_where_its_gradient_is_zero():
    y = noisy()
    y[::7] += 3.0
    loss = jf.losses.huber(decay, delta=0.1)
    fit = jf.fit(loss, START, (X, y), optimizer=LM(), steps=100)
    assert fit.status == jf.Status.CONVERGED and fit.steps < 60
    with jax.enable_x64(True):
        grads = jax.grad(loss)(fit.params, X, y)
    assert max(abs(float(g)) for g in grads.values()) < 1e-9
    assert abs(fit.params["b"] - 1.3) < 0.3  # the outliers hardly count


def test_penalties_are_residuals_too():
    matrix = np.random.default_rng(1).normal(size=(20, 4))
    y = matrix @ np.array([1.0, -2.0, 0.5, 3.0])

    def predict(w, x):
        return x @ w

    ridge = jf.fit(jf.losses.mse(predict) + jf.losses.l2(0.3), np.zeros(4), (matrix, y), optimizer=LM())
    exact = np.linalg.solve(matrix.T @ matrix / 20 + 0.3 * np.eye(4), matrix.T @ y / 20)
    np.testing.assert_allclose(ridge.params, exact, rtol=1e-9)
    assert ridge.status == jf.Status.CONVERGED


@pytest.mark.soak
def test_smoothness_is_a_residual_too():
    grid = np.linspace(0, 1, 6)
    y = np.sin(5 * grid) + 0.1 * np.random.default_rng(2).normal(size=6)

    def free(params, x):
        return params

    loss = jf.losses.mse(free) + jf.losses.smoothness(free, strength=1e-4, x=grid)
    fit = jf.fit(loss, np.zeros(6), (grid, y), optimizer=LM())
    bend = np.diff(np.eye(6), 2, axis=0) * 5**2
    exact = np.linalg.solve(np.eye(6) / 6 + 1e-4 * bend.T @ bend / 4, y / 6)
    np.testing.assert_allclose(fit.params, exact, rtol=1e-9)


def test_residuals_of_ones_own():
    def rosenbrock(params):
        return jnp.stack([1 - params["x"], 10 * (params["y"] - params["x"] ** 2)])

    fit = jf.fit(jf.losses.least_squares(rosenbrock), {"x": -1.2, "y": 1.0}, optimizer=LM())
    assert fit.status == jf.Status.CONVERGED and fit.steps < 40
    np.testing.assert_allclose([fit.params["x"], fit.params["y"]], 1, rtol=1e-12)


def test_more_params_than_are_unrolled():
    matrix = np.random.default_rng(3).normal(size=(40, 15))
    y = np.random.default_rng(4).normal(size=40)
    fit = jf.fit(jf.losses.rss(lambda w, x: x @ w), np.zeros(15), (matrix, y), optimizer=LM())
    np.testing.assert_allclose(fit.params, np.linalg.lstsq(matrix, y)[0], rtol=1e-10)
    assert fit.status == jf.Status.CONVERGED


def test_a_triangle_is_that_of_the_qr_factorization():
    rng = np.random.default_rng(5)
    matrix, b = rng.normal(size=(9, 4)) * np.logspace(0, 5, 4), rng.normal(size=9)
    with jax.enable_x64(True):
        found, shadow = jax.jit(triangularize)(jnp.asarray(matrix.T), jnp.asarray(b))
    q, r = np.linalg.qr(matrix)
    signs = np.sign(np.diag(r))
    np.testing.assert_allclose(found, r * signs[:, None], rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(shadow, q.T @ b * signs, rtol=1e-10)


def test_convergence_is_not_claimed_on_a_plateau():
    def far(params, x):
        return params["a"] * jnp.exp(-params["b"] * x)

    x = X[1:]
    fit = jf.fit(jf.losses.mse(far), {"a": 1.0, "b": 1e5}, (x, np.exp(-x)), optimizer=LM(), steps=60)
    assert fit.status == jf.Status.OUT_OF_STEPS


def test_refused_steps_are_not_convergence():
    def walled(params, x):  # every step beyond 1 is refused
        return jnp.where(params["a"] > 1, jnp.nan, params["a"] * x)

    fit = jf.fit(jf.losses.mse(walled), {"a": 0.5}, (X, 3 * X), optimizer=LM(), steps=100)
    assert fit.status == jf.Status.OUT_OF_STEPS and 0.5 <= fit.params["a"] <= 1
    assert np.isfinite(fit.loss)


def left_to_take(params, y):
    """The part of the sum of squares that lies along the Jacobian's columns, by NumPy; and the standard errors."""
    a, b, c = params
    e = np.exp(-b * X)
    r, columns = a * e + c - y, np.stack([e, -a * X * e, np.ones_like(X)], axis=1)
    along = columns @ np.linalg.lstsq(columns, r, rcond=None)[0]
    errors = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * np.sum(r**2) / (X.size - 3))
    return np.sum(along**2) / np.sum(r**2), errors


def ends_of_fits(sets, tolerances):
    fits = [
        [jf.fit(jf.losses.rss(decay), START, (X, y), optimizer=LM(tolerance=t), steps=60) for t in tolerances]
        for y in sets
    ]
    read = lambda number: np.array([[number(fit) for fit in row] for row in fits])  # noqa: E731
    params = read(lambda fit: [fit.params[name] for name in "abc"])
    return read(lambda fit: fit.status), read(lambda fit: fit.steps), params


def ends_of_lanes(sets, tolerances):
    data, optimizer = (X, jf.Axis("set", sets)), LM(tolerance=jf.Axis("tolerance", tolerances))
    found = jf.sweep(jf.losses.rss(decay), START, data, optimizer=optimizer, steps=60).results
    return found.status, found.steps, np.stack([found[f"params.{name}"] for name in "abc"], axis=-1)


@pytest.mark.parametrize("ends", soaking([ends_of_fits, ends_of_lanes], keep=1))
def test_with_a_tolerance_no_more_than_that_part_of_the_sum_of_squares_is_left_to_take(ends):
    sets, tolerances = np.stack([noisy(seed) for seed in range(6)]), [1e-2, 1e-4, 1e-8]
    status, steps, params = ends(sets, tolerances)
    assert (status == jf.Status.CONVERGED).all() and (np.diff(steps, axis=-1) >= 0).all()
    left = np.array([[left_to_take(p, y)[0] for p in row] for row, y in zip(params, sets, strict=True)])
    assert (left <= 1.01 * np.array(tolerances)).all() and (left[:, 0] > 1e-6).any()  # it did stop there
    for row, y in zip(params, sets, strict=True):
        errors = left_to_take(row[2], y)[1]
        assert (np.abs(row[:2] - row[2]) < 1.5 * np.sqrt(27 * np.array(tolerances[:2]))[:, None] * errors).all()


COMPILED = {"stop": jf.Stop(loss_below=0.0), "record": PATH}
HELD_OUT = {"validation": (X, noisy(99)), "record": jf.Record(what=("params", "validation_loss"))}


@pytest.mark.parametrize("more", [{}, COMPILED, HELD_OUT], ids=["in NumPy", "compiled", "with validation"])
def test_a_run_comes_to_rest_where_next_to_nothing_is_left_to_take(more):
    """A step beyond the point where it was judged; a factor of 16 for the rate, of which the last step tells."""
    for seed in range(8):
        run = jf.fit(jf.losses.rss(decay), START, (X, noisy(seed)), optimizer=LM(), steps=60, **more)
        a, b, c = found = [run.params[name] for name in "abc"]
        assert run.status == jf.Status.CONVERGED
        assert left_to_take(found, noisy(seed))[0] < 16 * np.finfo(float).eps ** (4 / 3)
        np.testing.assert_allclose(run.loss, np.sum((a * np.exp(-b * X) + c - noisy(seed)) ** 2), rtol=1e-13)
        if more:
            assert [run.history.params[name][-1] for name in "abc"] == found
        if "validation" in more:
            held_out = np.sum((a * np.exp(-b * X) + c - noisy(99)) ** 2)
            np.testing.assert_allclose([run.validation_loss, run.history.validation_loss[-1]], held_out, rtol=1e-13)


def peak(params, x):
    return params["height"] * jnp.exp(-0.5 * ((x - params["center"]) / params["width"]) ** 2) + params["level"]


def a_peak_in_noise(seed):
    """A start, and data whose residuals at the minimum are large."""
    rng = np.random.default_rng(seed)
    center, width = rng.uniform(1.5, 2.5), rng.uniform(0.4, 0.8)
    y = 2 * np.exp(-0.5 * ((X - center) / width) ** 2) + 0.3 + 0.4 * rng.normal(size=X.size)
    return {"height": 1.5, "center": center + 0.2, "width": 1.2 * width, "level": 0.0}, (X, y)


def test_a_share_of_a_step_taken_back_saves_steps_and_leads_to_the_same_minimum(monkeypatch):
    def runs():
        return [jf.fit(jf.losses.rss(peak), *a_peak_in_noise(seed), optimizer=LM()) for seed in range(30)]

    found = runs()
    monkeypatch.setattr(gauss_newton, "share_of", lambda memory, shadow, offset: 0 * offset)
    plain = runs()
    assert {run.status for run in found + plain} == {jf.Status.CONVERGED}
    assert sum(run.steps for run in found) < 0.8 * sum(run.steps for run in plain)
    for one, other in zip(found, plain, strict=True):
        errors = jf.standard_errors(other)
        assert all(abs(one.params[name] - other.params[name]) < 1e-8 * errors[name] for name in errors)


def test_nothing_is_taken_back_of_a_param_that_a_bound_holds():
    memory = SimpleNamespace(aimed=np.array([1.0, 0.4]))  # before the second came to its bound, at 0.6
    free, aimed = np.array([True, False]), np.array([2.0, 0.6])
    found = gauss_newton.taken_back(memory, np.float64(0.25), free, aimed)
    np.testing.assert_array_equal(found, [0.25, 0.0])


def test_an_exact_fit_converges():
    y = 2.0 * np.exp(-1.3 * X) + 0.5
    fit = jf.fit(jf.losses.mse(decay), START, (X, y), optimizer=LM())
    assert fit.status == jf.Status.CONVERGED and fit.steps < 20
    np.testing.assert_allclose([fit.params[k] for k in "abc"], [2.0, 1.3, 0.5], rtol=1e-12)


@pytest.mark.soak
def test_a_sweep_over_starts_and_data_sets_equals_a_loop_of_fits(traces):
    model = traces(decay)
    sets, starts = np.stack([noisy(seed) for seed in range(4)]), [0.5, 1.0, 2.0]

    def grid(sets, starts):
        start = START | {"b": jf.Axis("b0", starts)}
        return jf.sweep(loss, start, (X, jf.Axis("set", sets)), optimizer=LM(), steps=60)

    loss = jf.losses.mse(model)
    found = grid(sets, starts)
    assert (found.results.status == jf.Status.CONVERGED).all()
    for i, y in enumerate(sets):
        for j, b in enumerate(starts):
            fit = jf.fit(jf.losses.mse(decay), START | {"b": b}, (X, y), optimizer=LM(), steps=60)
            lane = found.results.isel(set=i, b0=j)
            np.testing.assert_allclose(lane["params.b"], fit.params["b"], rtol=1e-9)
            np.testing.assert_allclose(lane.loss, fit.loss, rtol=1e-12)
    count = model.count
    grid(sets + 0.01, [0.6, 1.1, 1.9])
    assert model.count == count


def test_new_starts_and_data_do_not_compile_anew(traces):
    model = traces(decay)
    jf.fit(jf.losses.mse(model), START, (X, noisy()), optimizer=LM())
    count = model.count
    jf.fit(jf.losses.mse(model), START | {"a": 3.0}, (X, noisy(1)), optimizer=LM(damping=1.0))
    assert model.count == count


@pytest.mark.parametrize("method", soaking([LM, jf.optimizers.lbfgs], keep=(LM,)))
def test_stop_rules_work_beside_the_methods_own_verdict(method):
    fit = compiled(method, 0.01)
    assert fit.status == jf.Status.CONVERGED and fit.loss < 0.01
    assert (fit.history.loss[:-1] >= 0.01).all()


def test_a_step_without_damping_has_a_derivative():
    """As R z = b has, of which the root of the damping takes no part."""
    triangle, b = jnp.array([[2.0, 1.0], [0.0, 4.0]]), jnp.array([1.0, 3.0])
    none = jnp.zeros(())
    slopes = jax.jit(lambda *moves: jax.jvp(lambda b, damping: damped(triangle, b, damping), (b, none), moves)[1])
    tangents = slopes(jnp.ones(2), none)
    np.testing.assert_allclose(tangents[0], np.zeros((2, 2)), atol=1e-6)
    np.testing.assert_allclose(tangents[1], np.ones(2), rtol=1e-6)


def test_a_fit_can_be_differentiated_with_respect_to_its_data():
    def slope(y):
        fit = jf.fit(jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (X, y), optimizer=LM(), steps=6)
        return fit.params["w"]

    with jax.enable_x64(True):
        found = jax.jit(jax.grad(slope))(jnp.asarray(noisy()))
    centered = X - X.mean()
    np.testing.assert_allclose(found, centered / (centered**2).sum(), atol=1e-9)


def crowded(params, x):
    """A decay of which one param has no influence, and two do the same."""
    return (params["a"] + params["d"]) * jnp.exp(-params["b"] * x) + params["c"] + 0 * params["e"]


def test_a_triangle_with_a_column_of_zeros_has_a_derivative():
    """Its length is zero, where a root has no slope; so is that of a column that another repeats."""
    columns = jnp.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [2.0, 4.0, 4.0]])
    moves = jnp.ones((3, 3)), jnp.ones(3)
    found = jax.jit(lambda *moves: jax.jvp(triangularize, (columns, jnp.array([1.0, 0.0, 2.0])), moves)[1])(*moves)
    assert all(np.isfinite(x).all() for x in found)
    np.testing.assert_allclose(found[0][0, 0], 5 / 3, rtol=1e-6)  # of a length of 3


@pytest.mark.parametrize("rows", [20, 8])
def test_a_triangle_that_lapack_makes_has_a_derivative_where_columns_depend_on_others(rows):
    """That of R^T R = A^T A and of R^T c = A^T b, where a column repeats another and one is zero, and stay so."""
    rng = np.random.default_rng(0)
    (columns, move), (b, other) = rng.normal(size=(2, 8, rows)), rng.normal(size=(2, rows))
    for a in (columns, move):
        a[3], a[5] = a[1], 0
    with jax.enable_x64(True):
        given = jnp.asarray(columns), jnp.asarray(b)
        (r, c), (dr, dc) = jax.jit(lambda *moves: jax.jvp(triangularize, given, moves))(move, other)
        back = jax.jit(lambda *weights: jax.vjp(triangularize, *given)[1](weights))(r, c)
        r, c, dr, dc, *back = map(np.asarray, (r, c, dr, dc, *back))
    assert not r[3].any() and not r[5].any() and not dr[3].any() and not dr[5].any()
    # sums of at most 20 products of numbers up to 4: a thousand roundings of the largest
    np.testing.assert_allclose(dr.T @ r + r.T @ dr, move @ columns.T + columns @ move.T, atol=1e-12)
    np.testing.assert_allclose(dr.T @ c + r.T @ dc, move @ b + columns @ other, atol=1e-12)
    np.testing.assert_allclose(np.sum(back[0] * move) + back[1] @ other, np.sum(r * dr) + c @ dc, rtol=1e-10)


@pytest.mark.soak
@pytest.mark.parametrize("waves", [0, 5])
def test_params_that_do_not_move_take_no_derivative_of_the_others(waves):
    """The lengths of their columns are zero in the triangle, where a root has no slope."""
    start = START | {"c": jf.Bounded(0.8, low=0.6), "d": 0.5, "e": 1.0, "w": np.zeros(waves)}  # c ends on its bound
    columns = np.cos(3 * X[:, None] * np.arange(1.0, waves + 1))

    def crowded_waves(params, x):
        return crowded(params, x) + columns @ params["w"]

    def rate(y):
        params = jf.fit(jf.losses.rss(crowded_waves), start, (X, y), optimizer=LM(), steps=10).params
        return params["b"], params

    def rss(free, y):
        return jnp.sum((free[0] * jnp.exp(-free[1] * X) + 0.6 + columns @ free[2:] - y) ** 2)

    with jax.enable_x64(True):
        y = jnp.asarray(noisy())
        found, params = jax.jit(jax.grad(rate, has_aux=True))(y)
        at = jnp.array([params["a"] + params["d"], params["b"], *params["w"]])
        bend, cross = jax.jit(lambda free, y: (jax.hessian(rss)(free, y), jax.jacfwd(jax.grad(rss), 1)(free, y)))(at, y)
        assert params["c"] == 0.6
    np.testing.assert_allclose(found, -np.linalg.solve(bend, cross)[1], rtol=1e-6, atol=1e-9)


@pytest.mark.soak
def test_lbfgs_finds_the_minimum_of_any_smooth_loss():
    def loss(params):
        return (1 - params["x"]) ** 2 + 100 * (params["y"] - params["x"] ** 2) ** 2 + 3

    fit = jf.fit(loss, {"x": -1.2, "y": 1.0}, optimizer=jf.optimizers.lbfgs(), steps=200, precision="float64")
    assert fit.status == jf.Status.CONVERGED and fit.steps < 100
    np.testing.assert_allclose([fit.params["x"], fit.params["y"]], 1, rtol=1e-5)
    assert (np.diff(fit.history.loss) <= 0).all()


@pytest.mark.soak
def test_lbfgs_of_an_exact_fit_converges():
    y = 2.0 * np.exp(-1.3 * X) + 0.5
    options = {"optimizer": jf.optimizers.lbfgs(), "steps": 300, "precision": "float64"}
    fit = jf.fit(jf.losses.mse(decay), START, (X, y), **options)
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose([fit.params[k] for k in "abc"], [2.0, 1.3, 0.5], rtol=1e-7)


def mean_of(params, x, y):
    return jnp.mean((params["a"] * x - y) ** 2)


REFUSED = {
    "a loss without residuals": (
        lambda: jf.fit(mean_of, {"a": 1.0}, (X, X), optimizer=LM()), TypeError,
        r"loss: levenberg_marquardt needs the residuals behind the loss, which mean_of.*jf\.losses\.least_squares"),
    "the mean of absolute values": (
        lambda: jf.fit(jf.losses.mae(decay), START, (X, X), optimizer=LM()), TypeError, "mae.*least_squares"),
    "a plain function among the terms": (
        lambda: jf.sweep(jf.losses.mse(decay) + mean_of, START | {"a": jf.Axis("a", [1.0])}, (X, X), optimizer=LM()),
        TypeError, "needs the residuals"),
    "mini-batches": (
        lambda: jf.fit(jf.losses.mse(decay), START, (X, X), optimizer=LM(), batches=jf.Batches(3), key=0), ValueError,
        "batches: levenberg_marquardt compares the losses.*leave batches out"),
    "mini-batches for lbfgs": (
        lambda: jf.fit(mean_of, {"a": 1.0}, (X, X), optimizer=jf.optimizers.lbfgs(), batches=jf.Batches(3), key=0),
        ValueError, "batches: lbfgs"),
    "a random loss": (
        lambda: jf.fit(jf.losses.mse(lambda p, x, key: p["a"] * x), {"a": 1.0}, (X, X), optimizer=LM(), key=0),
        ValueError, "a random one changes"),
    "negative damping": (lambda: LM(damping=-1.0), ValueError, "damping is -1.0, but it must be a finite number"),
    "a tolerance of nothing": (lambda: LM(tolerance=0.0), ValueError, "tolerance is 0.0.*pass 1e-4, or None"),
    "a tolerance as a text": (lambda: LM(tolerance="1e-4"), ValueError, "tolerance is '1e-4'"),
    "no memory": (lambda: jf.optimizers.lbfgs(memory=0), ValueError, "memory is 0, but it counts past steps"),
    "float64 in a float32 trace": (
        lambda: jax.jit(lambda y: jf.fit(jf.losses.mse(decay), START, (X, y), optimizer=LM()).loss)(X), ValueError,
        'enable_x64.*or pass precision="float32"'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_compiles(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_a_run_that_only_creeps_is_not_called_converged_before_it_is_there():
    """Residuals whose bend makes Gauss-Newton take off a tenth of the way a step: the minimum is at 0."""

    def residuals(params):
        x = params["x"]
        return jnp.stack([x + 1, 0.9 * x**2 + x - 1])

    fit = jf.fit(jf.losses.least_squares(residuals), {"x": 1.0}, optimizer=LM(), steps=500)
    assert fit.status == jf.Status.CONVERGED and fit.steps > 50
    assert abs(float(fit.params["x"])) < 1e-6


@pytest.mark.parametrize("k", soaking([1, 3, 6], keep=(1, 3)))
def test_rotations_find_the_singular_values_that_lapack_finds(k):
    random = np.random.default_rng(k)
    made = np.triu(random.standard_normal((200, k, k)) * 10.0 ** random.uniform(-8, 0, (200, 1, k)))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made[:9, -1, -1] = 0
    with jax.enable_x64(True):
        lengths, rows = (np.asarray(x) for x in jax.jit(jax.vmap(singular))(made))
    rounding = 64 * k * np.finfo(float).eps  # a rounding for each rotation, of the largest
    np.testing.assert_allclose(lengths, np.linalg.svd(made, compute_uv=False), rtol=0, atol=rounding)
    np.testing.assert_allclose(rows @ rows.transpose(0, 2, 1), np.broadcast_to(np.eye(k), made.shape), atol=rounding)
    again = np.einsum("lm,lmj,lmk->ljk", lengths**2, rows, rows)
    np.testing.assert_allclose(again, made.transpose(0, 2, 1) @ made, rtol=0, atol=rounding)
