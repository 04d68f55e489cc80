import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.optimizers.methods import Objective
from jaxfit.searches import CoordinateProbing, FiniteDifferences, RandomSearch
from tests.shared.problems import PROBLEMS
from tests.shared.soak import soaking

CASE = PROBLEMS["line"]
W, B = np.polyfit(*CASE.data, 1)
METHODS = {
    "random_search": jf.searches.random_search(1.0),
    "coordinate_probing": jf.searches.coordinate_probing(1.0),
    "finite_differences": jf.searches.finite_differences(0.02, 0.1),
    "finite_differences, forward": jf.searches.finite_differences(0.02, 0.1, central=False),
    "finite_differences, in turn": jf.searches.finite_differences(0.02, 0.1, in_turn=True),
    "finite_differences, forward, in turn": jf.searches.finite_differences(0.02, 0.1, central=False, in_turn=True),
}


def bowl(params):
    return (params["a"] - 1.0) ** 2 + jnp.sum((params["b"] + 2.0) ** 2)


# What they do


def test_guessing_never_climbs_and_gets_there_late():
    fit = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=METHODS["random_search"], steps=3000)
    assert (np.diff(fit.history.loss) <= 0).all()
    kept = np.diff(fit.history.loss) < 0
    assert 0.001 < kept.mean() < 0.2
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], [W, B], atol=0.3)


def test_a_guess_is_normal_with_the_given_scale():
    def flat(params):
        return -jnp.sum(params["a"] ** 2) * 0 - jnp.sum(jnp.abs(params["a"])) * 1e-9

    start, optimizer = {"a": np.zeros(20_000)}, jf.searches.random_search(3.0, key=5)
    moved = jf.step(flat, start, optimizer=optimizer).params["a"]
    np.testing.assert_allclose([np.mean(moved), np.std(moved)], [0, 3], atol=0.06)


def test_guesses_are_those_of_the_key_and_each_step_has_its_own():
    def losses(key):
        return jf.fit(bowl, START, optimizer=jf.searches.random_search(0.5, key), steps=40).history.loss

    assert np.array_equal(losses(1), losses(1)) and not np.array_equal(losses(1), losses(2))
    taken = jf.step(bowl, START, optimizer=METHODS["random_search"])
    other = jf.step(bowl, START, optimizer=METHODS["random_search"], opt_state=taken.opt_state)
    assert taken.params["a"] != other.params["a"]


START = {"a": 0.0, "b": np.zeros(3)}


def test_probing_turns_the_knob_to_the_better_side():
    def losses(p):  # 0.6 at 0.35, 0.5 at 0.30, 0.4 at 0.25
        return 0.5 + 2.0 * (p - 0.3)

    assert jf.step(losses, 0.3, optimizer=jf.searches.coordinate_probing(0.05)).params == pytest.approx(0.25)
    assert jf.step(losses, 0.3, optimizer=jf.searches.coordinate_probing(0.07)).params == pytest.approx(0.23)


def test_probing_is_what_a_loop_over_the_params_does():
    def obvious(steps):
        here, width = np.array([0.0, 0.0, 0.0, 0.0]), 0.8
        for _ in range(steps):
            before = value(here)
            for i in range(4):
                here = min((here, here + width * np.eye(4)[i], here - width * np.eye(4)[i]), key=value)
            width = width if value(here) < before else width / 4
        return here, width

    def value(p):
        return float((p[0] - 1.0) ** 2 + np.sum((p[1:] + 2.0) ** 2))

    state, params = None, START
    optimizer = jf.searches.coordinate_probing(0.8, finer=0.25)
    for steps in range(1, 9):
        taken = jf.step(bowl, params, optimizer=optimizer, opt_state=state, precision="float64")
        params, state = taken.params, taken.opt_state
        here, width = obvious(steps)
        np.testing.assert_allclose([params["a"], *params["b"]], here, rtol=1e-12)
        assert state == pytest.approx(width)


@pytest.mark.soak
def test_probing_ends_when_the_probe_is_finer_than_asked():
    optimizer = jf.searches.coordinate_probing(1.0, finest=1e-3)
    fit = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=optimizer, steps=5000, precision="float64")
    assert fit.status == jf.Status.CONVERGED
    assert fit.history.loss[-1] < fit.history.loss[0]
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], [W, B], atol=0.05)


def test_descent_on_central_differences_is_gradient_descent_on_a_quadratic():
    optimizer = jf.searches.finite_differences(0.02, 0.1)
    own = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=optimizer, steps=300, precision="float64")
    true = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=jf.optimizers.sgd(0.02), steps=300, precision="float64")
    np.testing.assert_allclose(own.history.loss, true.history.loss, rtol=1e-9)


@pytest.mark.soak
def test_one_after_another_the_second_slope_is_that_at_the_new_first_param():
    t_u, t_c = jf.datasets.thermometer()
    loss = jf.losses.mse(lambda p, x: p[0] * x + p[1])
    optimizer = jf.searches.finite_differences(1e-2, 0.1, in_turn=True)
    taken = jf.step(loss, (1.0, 0.0), (t_u, t_c), optimizer=optimizer, precision="float64")
    slope_w = jax.grad(loss)((1.0, 0.0), t_u, t_c)[0]
    slope_b = jax.grad(loss)((1.0 - 1e-2 * float(slope_w), 0.0), t_u, t_c)[1]
    np.testing.assert_allclose(taken.grads, [slope_w, slope_b], rtol=1e-6)
    np.testing.assert_allclose(taken.params, [1 - 1e-2 * slope_w, -1e-2 * slope_b], rtol=1e-6)


@pytest.mark.parametrize(("central", "order"), soaking([(True, 2), (False, 1)], keep=1, names=2))
def test_the_error_of_differences_falls_with_the_order_of_the_method(central, order):
    def f(p):
        return jnp.exp(p["a"]) + jnp.sin(p["b"]).sum()

    params, errors = {"a": 0.3, "b": np.array([0.1, 2.0])}, []
    for delta in (1e-2, 1e-3):
        found = jf.searches.differences(f, params, delta=delta, central=central, precision="float64")
        assert jax.tree.structure(found) == jax.tree.structure(params)
        errors.append(found["a"] - np.exp(0.3))
        np.testing.assert_allclose(found["b"], np.cos(params["b"]), atol=delta)
    third, second = np.exp(0.3) / 6, np.exp(0.3) / 2
    np.testing.assert_allclose(errors[0] / 1e-2**order, third if central else second, rtol=0.01)
    np.testing.assert_allclose(errors[1] / errors[0], 10.0**-order, rtol=0.02)


def test_a_probe_lost_in_rounding_is_not_taken_for_a_flat_loss():
    found = jf.searches.differences(lambda p: (p - 1.0) ** 2, 1e6, delta=1e-3)
    assert not np.isfinite(found)
    assert jf.fit(lambda p: p**2, 1e6, optimizer=jf.searches.finite_differences(0.1, 1e-3), steps=3).status == (
        jf.Status.NOT_FINITE
    )


def test_losses_that_cannot_be_differentiated_are_minimized_without_a_warning():
    def stairs(p):
        return jnp.abs(jnp.round(p["x"]) - 4.0)

    for optimizer in (jf.searches.random_search(2.0), jf.searches.coordinate_probing(1.0)):
        assert jf.fit(stairs, {"x": 0.0}, optimizer=optimizer, steps=50).loss == 0


# In a sweep


@pytest.mark.soak
def test_a_sweep_over_scales_and_seeds_is_the_fits_one_by_one():
    scales, seeds = jf.Axis("scale", [0.3, 1]), jf.Axis("seed", [0, 7])
    grid = jf.sweep(CASE.loss, CASE.start, CASE.data, optimizer=jf.searches.random_search(scales, key=seeds), steps=60)
    assert len(np.unique(grid.results.loss)) == 4
    for scale in scales.values:
        for seed in (0, 7):
            fit = jf.fit(
                CASE.loss, CASE.start, CASE.data, optimizer=jf.searches.random_search(scale, key=seed), steps=60
            )
            np.testing.assert_allclose(grid.results.loss.sel(scale=scale, seed=seed), fit.loss, rtol=1e-5)


@pytest.mark.parametrize("name", soaking(["width", "delta"], keep=("width",)))
def test_a_new_number_does_not_recompile(name, traces):
    loss = traces(lambda p, x, y: CASE.loss(p, x, y))
    make = {"width": jf.searches.coordinate_probing, "delta": lambda d: jf.searches.finite_differences(0.01, d)}[name]
    jf.fit(loss, CASE.start, CASE.data, optimizer=make(0.3), steps=5)
    seen = loss.count
    jf.fit(loss, CASE.start, CASE.data, optimizer=make(0.7), steps=5)
    assert loss.count == seen


# What they cost


@pytest.mark.parametrize(
    "name", soaking(METHODS, keep=("random_search", "coordinate_probing", "finite_differences, in turn"))
)
@pytest.mark.parametrize("params", soaking([{"a": 0.0, "b": np.zeros(3)}, {"a": 0.0, "b": np.zeros(0)}], keep=1))
def test_evaluations_are_those_that_are_made(name, params):
    calls = []

    def loss(p):
        calls.append(p)
        return bowl(p)

    objective = Objective(loss, (), {})
    optimizer = METHODS[name]
    with jax.disable_jit():
        method, here = optimizer.build(), jax.tree.map(jnp.asarray, params)
        method.step(objective, here, method.init(objective, here))
    assert len(calls) == jf.searches.evaluations(optimizer, params)


def test_a_gradient_costs_a_few_losses_however_many_params_there_are():
    def cost(n):
        return jf.searches.gradient_cost(lambda p: jnp.sum((p * p - 1) ** 2), np.zeros(n))

    x, model = np.linspace(-1, 1, 20), jf.models.dense((1, 40, 40, 1))
    net = jf.searches.gradient_cost(jf.losses.mse(model), model.init(0), (x, x))
    assert 1 < cost(10) < 4 and cost(10_000) == pytest.approx(cost(100), rel=0.05)
    assert net == pytest.approx(3, abs=0.1)  # backwards through a layer are two products for one forwards


# What is refused


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jf.searches.random_search(0.0), ValueError, "scale is 0.0, but it must be a positive"),
        (lambda: jf.searches.random_search(jf.Axis("s", [1.0, -2.0])), ValueError, "-2.0 .value 1 of axis 's'"),
        (lambda: jf.searches.random_search("much"), TypeError, "scale is 'much'"),
        (lambda: jf.searches.random_search(1.0, key=-1), ValueError, "key is -1"),
        (lambda: jf.searches.coordinate_probing(1.0, finer=1.0), ValueError, "finer is 1.0, .*between 0 and 1"),
        (lambda: jf.searches.coordinate_probing(1.0, finest=-1e-3), ValueError, "finest is -0.001"),
        (lambda: jf.searches.finite_differences(0.1, 0.0), ValueError, "delta is 0.0"),
        (lambda: jf.searches.finite_differences(-0.1, 0.1), ValueError, "learning_rate is -0.1"),
        (lambda: jf.searches.finite_differences(0.1, 0.1, central="no"), TypeError, "central is 'no'"),
        (lambda: jf.searches.evaluations(jf.optimizers.sgd(0.1), START), TypeError, "gradient_cost"),
        (lambda: jf.searches.gradient_cost(lambda p: p, 1.0), ValueError, "no arithmetic"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "options",
    [
        {"stop": jf.Stop(gradient_norm_below=1e-3)},
        {"record": jf.Record(what=("loss", "gradient"))},
        {"record": jf.Record(what=("gradient_norm",))},
    ],
)
@pytest.mark.parametrize("name", ["random_search", "coordinate_probing"])
def test_a_gradient_that_nobody_finds_cannot_be_watched_or_recorded(name, options):
    with pytest.raises(ValueError, match="finds no gradient; watch or record the loss"):
        jf.fit(bowl, START, optimizer=METHODS[name], steps=3, **options)


def test_the_methods_are_tuples_whose_numbers_are_leaves():
    for method in (RandomSearch, CoordinateProbing, FiniteDifferences):
        assert issubclass(method, tuple) and not method.traits.differentiates
    assert jax.tree.leaves(jf.searches.finite_differences(0.1, 0.2)) == [0.1, 0.2]
