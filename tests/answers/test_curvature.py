"""Eigenvalues against dense Hessians and closed forms; the laws of the learning rate against runs."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.curvature import lanczos
from jaxfit.problems import precision_context
from tests.shared.problems import PROBLEMS
from tests.shared.soak import soaking

WIDTH = 30
SPOTS = np.linspace(-1, 1, 16)


def net(params, x):
    return jnp.tanh(x[:, None] * params["w1"][None, :] + params["b1"][None, :]) @ params["w2"]


def start(seed=0, width=WIDTH):
    rng = np.random.default_rng(seed)
    return {
        "w1": 2 * rng.normal(size=width),
        "b1": 0.5 * rng.normal(size=width),
        "w2": rng.normal(size=width) / width**0.5,
    }


NET, DATA = jf.losses.mse(net), (SPOTS, np.sin(3 * SPOTS))


@pytest.fixture(scope="module")
def exact():
    """The slow and obvious: the whole Hessian, and its eigenvalues rising."""
    with precision_context("float64"):
        flat, back = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.float64, start()))
        matrix = np.asarray(jax.jit(jax.hessian(lambda v: NET(back(v), *map(jnp.float64, DATA))))(flat))
    return matrix, np.linalg.eigvalsh(matrix)


def quadratic(params, curvatures):
    return 0.5 * jnp.sum(curvatures * params**2)


def canyon(params):
    return 0.5 * (params["x"] ** 2 + 100 * params["y"] ** 2)


CORNER = {"x": 1.0, "y": 1.0}


# Sharpness


@pytest.fixture(scope="module")
def found():
    """Three eigenvalues from the largest down, at a tolerance."""
    return functools.partial(jf.sharpness, NET, start(), DATA, count=3, precision="float64")


def test_the_largest_eigenvalues_of_a_net_are_those_of_its_dense_hessian(exact, found):
    tight = found(tolerance=1e-6)
    np.testing.assert_allclose(tight.eigenvalues, exact[1][::-1][:3], rtol=1e-9)
    assert tight.products < 3 * WIDTH and tight.value == tight.eigenvalues[0]
    assert isinstance(tight.eigenvalues, np.ndarray) and tight.eigenvalues.dtype == "float64"


@pytest.mark.soak
def test_float32_finds_them_to_its_own_rounding(exact):
    found = jf.sharpness(NET, start(), DATA, count=3, tolerance=1e-5)
    np.testing.assert_allclose(found.eigenvalues, exact[1][::-1][:3], rtol=2e-5)
    assert found.eigenvalues.dtype == "float32"


def test_an_eigenvalue_lies_within_the_error_of_each_and_the_vectors_are_theirs(exact, found):
    matrix, values = exact
    loose = found(tolerance=3e-2)
    assert loose.products < 50
    names = ("b1", "w1", "w2")
    for i, (value, error) in enumerate(zip(loose.eigenvalues, loose.errors, strict=True)):
        assert np.min(np.abs(values - value)) <= error
        v = np.concatenate([loose.vectors[name][i] for name in names])
        np.testing.assert_allclose(np.linalg.norm(v), 1, rtol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(matrix @ v - value * v), error, rtol=1e-6, atol=1e-12)


@pytest.mark.soak
def test_the_smallest_eigenvalue_is_the_most_negative_one(exact):
    found = jf.sharpness(NET, start(), DATA, end="smallest", tolerance=1e-5, precision="float64")
    assert exact[1][0] < 0 and found.products < 90
    np.testing.assert_allclose(found.value, exact[1][0], rtol=1e-5)


@pytest.fixture(scope="module")
def of_diagonal():
    """The 40 largest of 60 eigenvalues, by Lanczos."""

    def pairs(values):
        operator = lambda v: values * v  # noqa: E731
        return lanczos.largest_pairs(operator, 60, 40, most=60, tolerance=1e-4, dtype=np.dtype("float32"))

    return jax.jit(pairs)


@pytest.mark.parametrize(
    "values", [np.arange(60.0), np.zeros(60), -1e-20 * np.arange(60.0)], ids=["plain", "flat", "tiny"]
)
def test_lanczos_finds_as_many_as_are_wanted(of_diagonal, values):
    values = values.astype(np.float32)
    found = of_diagonal(values)
    np.testing.assert_allclose(found.values, np.sort(values)[::-1][:40], rtol=1e-4, atol=1e-6 * np.abs(values).max())
    products = found.vectors @ found.vectors.T
    np.testing.assert_allclose(products, np.eye(40), atol=1e-5)


def test_lanczos_goes_on_elsewhere_where_eigenvalues_repeat(of_diagonal):
    found = of_diagonal(np.repeat(np.float32([4.0, 1.0, -2.0]), 20))
    assert np.min([np.abs(found.values - value) for value in (4, 1, -2)], axis=0).max() < 1e-5
    assert found.values[0] > 3.9 and np.sum(found.values > 3.9) > 10


def test_few_params_are_exact_also_where_eigenvalues_repeat():
    found = jf.sharpness(quadratic, np.ones(5), (np.array([2.0, 7, 7, -1, 7]),), count=4)
    np.testing.assert_allclose(found.eigenvalues, [7, 7, 7, 2], rtol=1e-6)
    assert found.products == 5


def test_marks_take_params_out_of_the_hessian():
    def bowl(p):
        return p["a"] ** 2 + 10 * p["b"] ** 2 + 100 * p["c"] ** 2

    marked = {"a": jf.Bounded(1.0, low=0.0), "b": jf.Fixed(1.0), "c": jf.Tied(lambda p: 0.1 * p["a"])}
    found = jf.sharpness(bowl, marked)
    np.testing.assert_allclose(found.value, 2 + 200 * 0.01, rtol=1e-6)
    assert found.vectors["b"] is None and found.products == 1


def test_sharpness_stands_for_its_value_in_arithmetic():
    found = jf.sharpness(canyon, CORNER)
    assert 2 / found == pytest.approx(0.02) and found > 99 and float(found + 1) == pytest.approx(101)
    assert np.sqrt(found) == pytest.approx(10) and f"{found:.1f}" == "100.0"
    assert str(found) == "100 ± 0 (2 Hessian-vector products)"
    assert float(jax.jit(lambda p: 2 / jf.sharpness(canyon, p))(CORNER)) == pytest.approx(0.02)


@pytest.mark.soak
def test_sharpness_is_one_function_among_others_under_vmap():
    def lane(p):
        return jf.sharpness(lambda q: jnp.sum(q**4) / 12, p).value

    np.testing.assert_allclose(jax.vmap(lane)(jnp.arange(6.0).reshape(3, 2)), [1, 9, 25], rtol=1e-6)


@pytest.mark.soak
def test_axes_label_the_sharpness_at_every_place():
    found = jf.sharpness(
        lambda q, d: d * q**4 / 12, jf.Axis("q", [1.0, 2.0, 3.0]), (jf.Axis("d", [1.0, 10.0]),), precision="float64"
    )
    assert found.dims == ("q", "d") and found.name == "sharpness"
    np.testing.assert_allclose(found, np.outer([1, 4, 9], [1, 10]), rtol=1e-12)


RECORD = jf.Record(every=5, what=("loss", "params", "preconditioner"))


@pytest.fixture(scope="module")
def runs():
    case, rate = PROBLEMS["rosenbrock"], jf.Axis("rate", [0.01, 0.03])
    return jf.sweep(case.loss, case.start, optimizer=jf.optimizers.adam(rate), steps=10, record=RECORD)


def bend(params, k):
    """The Hessian of (1 - x)^2 + 5 (y - x^2)^2 by (x, y), at record k."""
    x, y = float(params["x"][k]), float(params["y"][k])
    return np.array([[2 + 60 * x**2 - 20 * y, -20 * x], [-20 * x, 10.0]])


@pytest.mark.soak
def test_sharpness_along_a_run_is_that_of_every_record(runs):
    fit = jf.lane(runs, rate=0.03)
    along = jf.sharpness(fit, history=True)
    assert along.dims == ("step",) and list(along.step) == [0, 5, 10]
    theory = [np.linalg.eigvalsh(bend(fit.history.params, k))[-1] for k in range(3)]
    np.testing.assert_allclose(along, theory, rtol=1e-5)
    grid = jf.sharpness(runs, history=True)
    assert grid.dims == ("rate", "step")
    np.testing.assert_allclose(grid.sel(rate=0.03), theory, rtol=1e-5)
    np.testing.assert_allclose(jf.sharpness(runs).sel(rate=0.03), theory[-1], rtol=1e-5)
    np.testing.assert_allclose(float(jf.sharpness(fit)), theory[-1], rtol=1e-5)


def test_the_recorded_preconditioner_is_that_of_adam_by_hand(runs):
    fit, case, adam = jf.lane(runs, rate=0.03), PROBLEMS["rosenbrock"], jf.optimizers.adam(0.03)
    params, state, squares = case.start, None, []
    for _ in range(6):
        found = jf.step(case.loss, params, optimizer=adam, opt_state=state)
        params, state = found.params, found.opt_state
        squares.append([float(found.grads[name]) ** 2 for name in ("x", "y")])
    weights = 0.001 * 0.999 ** np.arange(5, -1, -1) / (1 - 0.999**6)
    theory = np.sqrt(weights @ np.array(squares))
    now = jf.preconditioner(adam, state)
    np.testing.assert_allclose([now[name] for name in ("x", "y")], theory, rtol=1e-4)
    np.testing.assert_allclose([fit.history.preconditioner[name][1] for name in ("x", "y")], theory, rtol=1e-4)


def test_the_preconditioned_sharpness_is_that_of_the_scaled_hessian(runs):
    fit = jf.lane(runs, rate=0.03)
    d = np.array([fit.history.preconditioner[name][-1] for name in ("x", "y")])
    theory = np.linalg.eigvalsh(bend(fit.history.params, 2) / np.sqrt(np.outer(d, d)))[-1]
    found = jf.sharpness(fit, preconditioner="recorded")
    np.testing.assert_allclose(found.value, theory, rtol=1e-5)
    assert found.preconditioned and "preconditioned" in str(found)
    along = jf.sharpness(runs, history=True, preconditioner="recorded")
    np.testing.assert_allclose(along.sel(rate=0.03)[-1], theory, rtol=1e-5)


@pytest.mark.parametrize("optimizer", [jf.optimizers.rmsprop(0.1), jf.optimizers.adagrad(0.1)])
def test_one_update_is_the_gradient_over_the_preconditioner(optimizer):
    found = jf.step(canyon, CORNER, optimizer=optimizer)
    scale = jf.preconditioner(optimizer, found.opt_state)
    for name in CORNER:
        np.testing.assert_allclose(CORNER[name] - found.params[name], 0.1 * found.grads[name] / scale[name], rtol=1e-5)


@pytest.mark.soak
def test_a_net_of_a_hundred_thousand_params_takes_fewer_than_sixty_products():
    sizes = [(20, 250), (250, 350), (350, 20)]
    rng = np.random.default_rng(0)
    params = [rng.normal(size=s) / s[0] ** 0.5 for s in sizes]
    assert sum(p.size for p in params) > 99_000
    x, y = rng.normal(size=(64, 20)), rng.normal(size=(64, 20))

    def deep(p, x, y):
        return jnp.mean((jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]) @ p[2] - y) ** 2)

    quick = jf.sharpness(deep, params, (x, y))
    slow = jf.sharpness(deep, params, (x, y), tolerance=1e-9, precision="float64")
    assert quick.products < 60 < slow.products
    np.testing.assert_allclose(float(quick), float(slow), rtol=1e-3)


# The spectrum


@pytest.mark.soak
def test_the_spectrum_of_few_params_is_that_of_the_dense_hessian(exact):
    found = jf.hessian_spectrum(NET, start(), DATA, precision="float64")
    np.testing.assert_allclose(found.values, exact[1], atol=1e-10 * exact[1][-1])
    np.testing.assert_allclose(found.trace, np.trace(exact[0]), rtol=1e-9)
    assert found.exact and found.products == 3 * WIDTH
    np.testing.assert_allclose(found.negative, np.mean(exact[1] < -1e-8), atol=0.05)
    bowl = jf.hessian_spectrum(quadratic, np.ones(3), (np.array([2.0, 5, 50]),))
    np.testing.assert_allclose(bowl.condition, 25, rtol=1e-5)


@pytest.mark.soak
def test_the_density_of_many_eigenvalues_is_that_of_their_law():
    n = 400
    values = 3 + 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)  # the arcsine law on [1, 5]
    found = jf.hessian_spectrum(quadratic, np.ones(n), (values,), probes=16, depth=30, precision="float64")
    assert not found.exact and found.products == 16 * 30
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-9)
    np.testing.assert_allclose(found.trace, values.sum(), rtol=5 * np.sqrt(2 / (16 * n)) * np.std(values) / 3)
    at = np.array([1.5, 3.0, 4.5])
    law = np.mean(np.exp(-0.5 * ((at[:, None] - values) / 0.4) ** 2), axis=1) / (0.4 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found.density(at, 0.4), law, rtol=0.1)


@pytest.mark.soak
def test_a_slice_captures_the_curvature_of_its_directions(exact):
    matrix, values = exact
    rng = np.random.default_rng(1)
    random = rng.normal(size=(2, 3 * WIDTH))
    _, back = jax.flatten_util.ravel_pytree(start())
    found = jf.curvature_along(NET, start(), DATA, directions=jax.vmap(back)(random), precision="float64")
    theory = np.einsum("ki,ij,kj->k", random, matrix, random) / np.sum(random**2, axis=1)
    np.testing.assert_allclose(found.curvatures, theory, rtol=1e-5)
    np.testing.assert_allclose(found.captured, theory / values[-1], rtol=1e-4)


# The laws


LAWS = [  # optimizer, theory on the canyon, what 4,000 steps of bisection found in another program
    (jf.optimizers.sgd(1.0), 0.02, 0.02),
    (jf.optimizers.momentum(1.0, 0.5), 0.03, 0.0299986),
    (jf.optimizers.momentum(1.0, 0.9), 0.038, 0.0379993),
    (jf.optimizers.momentum(1.0, 0.99), 0.0398, 0.0397999),
    (jf.optimizers.nesterov(1.0, 0.5), 0.015, 0.0149997),
    (jf.optimizers.nesterov(1.0, 0.9), 0.0135714, 0.0135710),
    (jf.optimizers.nesterov(1.0, 0.99), 0.0133557, 0.0133553),
]


@pytest.mark.parametrize("case", soaking(LAWS, keep=LAWS[2:3]), ids=lambda case: str(case[0])[:50])
def test_the_measured_limit_is_that_of_the_law(case):
    optimizer, theory, bisected = case
    law = jf.stability_limit(optimizer, jf.sharpness(canyon, CORNER))
    np.testing.assert_allclose(float(law), theory, atol=6e-8)
    found = jf.measured_limit(canyon, CORNER, optimizer=optimizer, rates=24, precision="float64")
    np.testing.assert_allclose(float(found), float(law), rtol=1e-3)
    np.testing.assert_allclose(float(found), bisected, atol=2.5e-7)
    assert found.low < float(found) < found.high <= found.low * (1 + 1e-5)


def test_laws_of_adaptive_optimizers_want_the_preconditioned_sharpness():
    found = jf.step(canyon, CORNER, optimizer=jf.optimizers.adam(0.1))
    scale = jf.preconditioner(jf.optimizers.adam(0.1), found.opt_state)
    sharp = jf.sharpness(canyon, CORNER, preconditioner=scale)
    assert float(sharp) == pytest.approx(1.0, rel=1e-5)  # |g| = (1, 100) after one update
    law = jf.stability_limit(jf.optimizers.adam(0.1), sharp)
    assert float(law) == pytest.approx(38, rel=1e-5) and law.preconditioned
    assert float(jf.stability_limit(jf.optimizers.adam(0.1, b1=0.5), 2.0)) == pytest.approx(3)
    assert float(jf.stability_limit(jf.optimizers.rmsprop(0.1, momentum=0.5), 2.0)) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="that of the plain Hessian, but adam's law takes that of the preconditioned"):
        jf.stability_limit(jf.optimizers.adam(0.1), jf.sharpness(canyon, CORNER))


def frozen_adam(learning_rate, scale):
    """Adam's momentum, its scale of every param held fixed."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads, m, params=None):
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        return {k: -learning_rate * m[k] / scale[i] for i, k in enumerate(m)}, m

    import optax

    return optax.GradientTransformation(init, update)


@pytest.mark.soak
def test_adam_with_its_scale_frozen_has_the_limit_of_the_law():
    scale = np.array([3.0, 40.0])  # eigenvalues of D^-1/2 H D^-1/2: 1/3 and 2.5
    optimizer = jf.optimizer(frozen_adam, learning_rate=1.0, scale=scale)
    found = jf.measured_limit(canyon, CORNER, optimizer=optimizer, rates=24, precision="float64")
    sharp = jf.sharpness(canyon, CORNER, preconditioner={"x": 3.0, "y": 40.0})
    np.testing.assert_allclose(float(found), float(jf.stability_limit(jf.optimizers.adam(1.0), sharp)), rtol=1e-3)


def test_an_optimizer_without_a_law_says_so():
    limit = jf.stability_limit(jf.optimizers.lion(0.1), 3.0)
    assert not limit.known and np.isnan(limit.learning_rate) and str(limit).startswith("no law known: lion")
    with pytest.raises(ValueError, match="jf.measured_limit"):
        float(limit)


@pytest.mark.soak
def test_adam_on_a_quadratic_has_no_limit_but_ends_in_a_cycle():
    adam = jf.optimizers.adam(1.0)
    found = jf.measured_limit(canyon, CORNER, optimizer=adam, rates=24, precision="float64", steps=1000)
    assert found.high == np.inf and str(found).startswith("no limit up to a learning rate of 1000")
    fit = jf.fit(canyon, CORNER, optimizer=jf.optimizers.adam(10.0), steps=8999, precision="float64")
    swings = fit.history.loss[5000:].reshape(-1, 1000)
    assert fit.history.loss.max() < 5000 and (swings.min(axis=1) < 1e-6).all() and (swings.max(axis=1) > 1).all()


def test_optimal_rates_take_the_steps_of_the_table():
    least, most = 1.0, 100.0
    best = 2 / (least + most)
    ball = (2 / (np.sqrt(least) + np.sqrt(most))) ** 2, ((np.sqrt(100) - 1) / (np.sqrt(100) + 1)) ** 2
    stop = jf.Stop(loss_below=1e-6 * 50.5)
    for optimizer, steps in [
        (jf.optimizers.sgd(1 / most), 458),
        (jf.optimizers.sgd(best), 346),
        (jf.optimizers.momentum(*ball), 58),
    ]:
        fit = jf.fit(canyon, CORNER, optimizer=optimizer, steps=1000, stop=stop, precision="float64")
        assert (fit.steps, fit.status) == (steps, jf.Status.CONVERGED)


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jf.sharpness(canyon, CORNER, end="top"), "end is 'top', but it must be 'largest' or 'smallest'"),
        (lambda: jf.sharpness(canyon, CORNER, count=0), "count is 0"),
        (lambda: jf.sharpness(canyon, CORNER, count=3), "count is 3, but 2 free params give the Hessian 2 eigenvalues"),
        (lambda: jf.sharpness(canyon, CORNER, tolerance=2.0), "tolerance is 2.0"),
        (lambda: jf.sharpness(canyon, CORNER, history=True), "there is no run"),
        (lambda: jf.sharpness(canyon, CORNER, preconditioner={"x": 1.0}), "the free params have"),
        (lambda: jf.sharpness(canyon, CORNER, preconditioner={"x": 1.0, "y": 0.0}), "must be positive"),
        (lambda: jf.sharpness(canyon, CORNER, preconditioner="recorded"), "no run that recorded one"),
        (lambda: jf.curvature_along(canyon, CORNER, directions={"x": 1.0, "y": 1.0}), "leading axis"),
        (lambda: jf.preconditioner(jf.optimizers.sgd(0.1), ()), "sgd keeps no scale"),
        (lambda: jf.fit(canyon, CORNER, optimizer=jf.optimizers.sgd(0.1), record=RECORD), "record: preconditioner"),
        (lambda: jf.measured_limit(canyon, CORNER, optimizer=jf.optimizers.lbfgs()), "no hyperparameter named"),
        (lambda: jf.measured_limit(canyon, CORNER, optimizer=jf.optimizers.sgd(1.0), between=(1, 0.1)), "lower one"),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_beside_a_fit_is_refused():
    fit = jf.fit(canyon, CORNER, optimizer=jf.optimizers.sgd(0.01), steps=2)
    with pytest.raises(TypeError, match="params is given beside a Fit"):
        jf.sharpness(fit, CORNER)
    with pytest.raises(ValueError, match="did not record its params"):
        jf.sharpness(fit, history=True)
    with pytest.raises(TypeError, match="optimizer comes first|sharpness is"):
        jf.stability_limit(3.0, jf.optimizers.sgd(0.1))


def looped(params):
    """params[1]**2 * sqrt(params[0]), the root by Newton's method in a loop that has no derivative backward."""
    value, size = params
    closer = lambda state: (0.5 * (state[0] + value / state[0]), state[1] + 1)  # noqa: E731
    return size**2 * jax.lax.while_loop(lambda state: state[1] < 12, closer, (value, 0))[0]


def test_a_loop_of_unknown_length_has_the_curvature_of_its_closed_form():
    hessian = np.array([[-0.25 * 9 / 8, 1.5], [1.5, 4.0]])  # at (4, 3)
    values, vectors = np.linalg.eigh(hessian)
    at = np.array([4.0, 3.0])
    assert jf.sharpness(looped, at, precision="float64").value == pytest.approx(values[1], rel=1e-6)
    along = jf.curvature_along(looped, at, directions=vectors.T, precision="float64")
    np.testing.assert_allclose(along.curvatures, values, rtol=1e-9)
    plane = jf.landscapes.hessian_plane(looped, at, which="ends")
    np.testing.assert_allclose(plane.about["eigenvalues"], values[::-1], rtol=1e-9)
    np.testing.assert_allclose(jf.hessian_spectrum(looped, at, precision="float64").values, values, rtol=1e-6)
