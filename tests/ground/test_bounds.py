"""Fixed, Bounded and Tied leaves: the minimum under them is that of the problem written without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.problems.bounds import bounds
from jaxfit.problems.marks import free, plain, put
from tests.shared.soak import soaking

X = np.linspace(0.0, 2.0, 25)
Y = 2.0 * X + 1.0 + 0.1 * np.random.default_rng(0).normal(size=25)
LM, LBFGS = jf.optimizers.levenberg_marquardt(), jf.optimizers.lbfgs()
SGD = jf.optimizers.sgd(0.1)
OPTIMIZERS = {"lm": LM, "lbfgs": LBFGS, "sgd": SGD, "adam": jf.optimizers.adam(0.05)}


def line(params, x):
    return params["w"] * x + params["b"]


def fit(params, optimizer=LM, loss=None, data=(X, Y), **options):
    options = {"steps": 2000, "precision": "float64"} | options
    return jf.fit(loss or jf.losses.mse(line), params, data, optimizer=optimizer, **options)


def through(point):
    """The least-squares slope of a line that goes through (0, point)."""
    return float(X @ (Y - point) / (X @ X))


@pytest.mark.parametrize("name", soaking(OPTIMIZERS, keep=("lm",)))
def test_a_fixed_leaf_stays_and_the_others_find_their_minimum(name):
    found = fit({"w": 0.0, "b": jf.Fixed(0.5)}, OPTIMIZERS[name])
    assert found.params["b"] == 0.5
    np.testing.assert_allclose(found.params["w"], through(0.5), rtol=1e-7)


@pytest.mark.parametrize("name", soaking(OPTIMIZERS, keep=("lm", "sgd")))
def test_a_bound_that_matters_is_reached_exactly(name):
    found = fit({"w": 0.0, "b": jf.Bounded(0.2, low=-1.0, high=0.5)}, OPTIMIZERS[name])
    assert found.params["b"] == 0.5
    np.testing.assert_allclose(found.params["w"], through(0.5), rtol=1e-7)


@pytest.mark.parametrize("name", soaking(OPTIMIZERS, keep=("lm",)))
def test_a_bound_that_does_not_matter_changes_nothing(name):
    plain = fit({"w": 0.0, "b": 0.2}, OPTIMIZERS[name])
    found = fit({"w": 0.0, "b": jf.Bounded(0.2, low=-1.0, high=5.0)}, OPTIMIZERS[name])
    np.testing.assert_allclose(found.params["b"], plain.params["b"], rtol=1e-8)
    np.testing.assert_allclose(found.params["b"], np.polyfit(X, Y, 1)[1], rtol=1e-6)


@pytest.mark.parametrize("name", soaking(OPTIMIZERS, keep=("sgd",)))
def test_a_tied_leaf_follows(name):
    found = fit({"w": 1.0, "b": jf.Tied(lambda p: p["w"] / 2)}, OPTIMIZERS[name])
    shape = X + 0.5
    np.testing.assert_allclose(found.params["w"], shape @ Y / (shape @ shape), rtol=1e-7)
    assert found.params["b"] == found.params["w"] / 2


@pytest.mark.parametrize("optimizer", soaking([LM, LBFGS], keep=[LM]))
def test_both_judges_converge_on_a_bound(optimizer):
    found = fit({"w": 0.0, "b": jf.Bounded(0.2, low=-1.0, high=0.5)}, optimizer, steps=100)
    assert found.status == jf.Status.CONVERGED


def test_a_stop_rule_on_the_gradient_sees_only_what_is_free_to_move():
    params = {"w": 0.0, "b": jf.Bounded(0.2, high=0.5)}
    stopped = fit(params, jf.optimizers.sgd(0.1), stop=jf.Stop(gradient_norm_below=1e-8))
    assert stopped.status == jf.Status.CONVERGED and stopped.params["b"] == 0.5


@pytest.mark.parametrize("optimizer", soaking([LM, LBFGS, SGD], keep=[SGD]))
def test_a_start_on_the_wrong_bound_leaves_it(optimizer):
    found = fit({"w": 0.0, "b": jf.Bounded(-1.0, low=-1.0, high=5.0)}, optimizer)
    np.testing.assert_allclose(found.params["b"], np.polyfit(X, Y, 1)[1], rtol=1e-6)


@pytest.mark.soak
def test_no_step_leaves_the_bounds():
    record = jf.Record(what=("loss", "params"))
    for optimizer in OPTIMIZERS.values():
        found = fit({"w": jf.Bounded(0.0, 0.0, 1.5), "b": 0.0}, optimizer, record=record, steps=50)
        path = np.asarray(found.history.params["w"])
        assert (path >= 0).all() and (path <= 1.5).all() and path[-1] == 1.5


def test_arrays_are_bounded_entry_by_entry():
    matrix = np.random.default_rng(1).normal(size=(30, 3))
    target = matrix @ np.array([1.0, -2.0, 3.0])
    marked = jf.Bounded(np.zeros(3), low=[-np.inf, -1.0, -1.0], high=10.0)
    found = fit(marked, SGD, jf.losses.mse(lambda w, x: x @ w), data=(matrix, target))
    rest = np.linalg.lstsq(matrix[:, [0, 2]], target + matrix[:, 1], rcond=None)[0]
    np.testing.assert_allclose(found.params, [rest[0], -1.0, rest[1]], rtol=1e-9)
    assert found.params[1] == -1.0


def test_marks_stand_anywhere_in_any_tree():
    def predict(params, x):
        (slope, offset), extra = params
        return slope["s"] * x + offset + extra["more"][0] * extra["more"][1]

    fixed = {"more": np.array([0.5, 2.0])}
    found = fit([({"s": jf.Bounded(1.0, 0, None)}, 0.0), jf.Fixed(fixed)], SGD, jf.losses.mse(predict))
    (slope, offset), extra = found.params
    np.testing.assert_allclose([slope["s"], offset + 1.0], np.polyfit(X, Y, 1), rtol=1e-9)
    np.testing.assert_array_equal(extra["more"], fixed["more"])


def test_ties_may_follow_ties_in_any_order():
    def predict(params, x):
        return params["a"] + params["b"] * x + params["c"] * 0

    params = {"a": jf.Tied(lambda p: p["b"] / 2), "b": jf.Tied(lambda p: jnp.sqrt(p["c"])), "c": 1.0}
    found = fit(params, loss=jf.losses.mse(predict))
    shape = X + 0.5
    np.testing.assert_allclose(found.params["c"], (shape @ Y / (shape @ shape)) ** 2, rtol=1e-9)
    assert found.params["a"] * 2 == found.params["b"] == np.sqrt(found.params["c"])


def test_histories_hold_the_users_tree():
    record = jf.Record(what=("params", total))
    found = fit({"w": 1.0, "b": jf.Tied(lambda p: p["w"] / 2)}, SGD, record=record, steps=50)
    np.testing.assert_array_equal(found.history.params["b"] * 2, found.history.params["w"])
    np.testing.assert_array_equal(found.history.total, found.history.params["w"] * 1.5)


def total(params, x, y):
    return params["w"] + params["b"]


def test_axes_stand_inside_marks():
    levels, caps = np.array([0.0, 0.5, 1.0]), np.array([0.3, 9.0])
    params = {"w": jf.Bounded(0.1, high=jf.Axis("cap", caps)), "b": jf.Fixed(jf.Axis("level", levels))}
    rule = jf.Stop(gradient_norm_below=1e-10)
    options = {"optimizer": SGD, "steps": 500, "stop": rule, "precision": "float64"}
    grid = jf.sweep(jf.losses.mse(line), params, (X, Y), **options)
    assert (grid.results.status == jf.Status.CONVERGED).all()
    for i, cap in enumerate(caps):
        for j, level in enumerate(levels):
            here = grid.results.isel(cap=i, level=j)
            assert here["params.b"] == level
            np.testing.assert_allclose(here["params.w"], min(cap, through(level)), rtol=1e-9)


@pytest.mark.soak
def test_marks_stand_inside_an_axis():
    variants = jf.Axis(
        "variant", [jf.Fixed(0.5), jf.Bounded(0.0, high=0.2), jf.Bounded(0.0)], labels=["fixed", "bounded", "free"]
    )
    options = {"optimizer": SGD, "steps": 2000, "precision": "float64"}
    grid = jf.sweep(jf.losses.mse(line), {"w": 0.0, "b": variants}, (X, Y), **options)
    np.testing.assert_allclose(grid.results["params.b"], [0.5, 0.2, np.polyfit(X, Y, 1)[1]], rtol=1e-9)


def test_a_lock_step_sweep_fills_in_what_is_not_free():
    params = {"w": jf.Axis("w0", [0.0, 1.0]), "b": jf.Fixed(jf.Axis("level", [0.0, 0.5, 1.0]))}
    grid = jf.sweep(jf.losses.mse(line), params, (X, Y), optimizer=jf.optimizers.sgd(0.1), steps=300)
    np.testing.assert_allclose(grid.results["params.b"].isel(w0=0), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(grid.results["params.w"].isel(w0=1), [through(b) for b in (0.0, 0.5, 1.0)], rtol=1e-5)
    assert jf.lane(grid, w0=0.0, level=0.5).params["b"] == 0.5


@pytest.mark.soak
def test_a_call_may_return_marks():
    def init(key):
        return {"w": jax.random.normal(key), "b": jf.Fixed(0.5)}

    options = {"optimizer": SGD, "steps": 300, "precision": "float64"}
    grid = jf.sweep(jf.losses.mse(line), jf.Call(init, key=jf.Axis("seed", range(3))), (X, Y), **options)
    np.testing.assert_allclose(grid.results["params.w"], through(0.5), rtol=1e-9)


def test_the_report_tells_the_role_of_each_leaf():
    marked = {"w": jf.Bounded(0.0, 0.0, 1.5), "b": jf.Fixed(0.5), "c": jf.Tied(lambda p: p["w"]), "d": 1.0}

    def predict(params, x):
        return params["w"] * x + params["b"] + params["d"] + 0 * params["c"]

    found = fit(marked, SGD, jf.losses.mse(predict))
    roles = {row.name: row.role for row in jf.report(found).rows}
    assert roles == {"w": "at bound", "b": "fixed", "c": "tied, not determined", "d": "free"}


def test_a_tree_is_taken_apart_and_put_together():
    marked = {
        "a": jf.Fixed(2.0),
        "b": jf.Bounded(1.0, low=0.0),
        "c": jf.Tied(lambda p: p["a"] * p["b"]),
        "d": [3.0, None],
    }
    assert free(marked) == {"a": None, "b": 1.0, "c": None, "d": [3.0, None]}
    assert plain(put(marked, free(marked))) == {"a": 2.0, "b": 1.0, "c": 2.0, "d": [3.0, None]}
    low, high = bounds(marked)
    assert (low["b"], high["b"], low["d"][0], high["d"][0]) == (0.0, np.inf, -np.inf, np.inf)


@pytest.mark.parametrize("optimizer", soaking([jf.optimizers.sgd(0.3), LM], keep=1))
def test_single_steps_keep_the_marks(optimizer):
    params, state = {"w": 0.0, "b": jf.Bounded(0.2, high=0.5)}, None
    for _ in range(30):
        options = {"optimizer": optimizer, "opt_state": state, "precision": "float64"}
        taken = jf.step(jf.losses.mse(line), params, (X, Y), **options)
        params, state = taken.params, taken.opt_state
    assert params["b"].value == 0.5 and params["b"].high == 0.5
    np.testing.assert_allclose(params["w"], through(0.5), rtol=1e-9)


def test_a_tie_written_in_place_does_not_compile_anew(traces):
    model = traces(line)
    loss = jf.losses.mse(model)
    for start in (0.0, 1.0, 2.0):
        fit({"w": start, "b": jf.Tied(lambda p: p["w"] / 2)}, loss=loss)
        count = model.count if start == 0 else count  # noqa: F821
    assert model.count == count


def test_ties_that_enclose_other_values_differ():
    def half_or_third(n):
        return jf.Tied(lambda p: p["w"] / n)

    assert half_or_third(2) == half_or_third(2) != half_or_third(3)
    assert jf.Tied(functools.partial(total)) != jf.Tied(total)


def test_marks_work_inside_ones_own_jit():
    @jax.jit
    def run(b):
        params = {"w": 0.0, "b": jf.Fixed(b)}
        return jf.fit(jf.losses.mse(line), params, (X, Y), optimizer=jf.optimizers.sgd(0.1), steps=300).params

    found = run(0.5)
    np.testing.assert_allclose([found["w"], found["b"]], [through(0.5), 0.5], rtol=1e-5)


def test_a_leaf_that_matters_only_through_a_tie_is_no_reason_to_warn():
    def predict(params, x):
        return params["b"] * x + params["c"]

    found = fit({"a": 1.0, "b": jf.Tied(lambda p: 2 * p["a"]), "c": 0.0}, SGD, jf.losses.mse(predict))
    np.testing.assert_allclose(2 * found.params["a"], np.polyfit(X, Y, 1)[0], rtol=1e-9)


REFUSED = {
    "low above high": (lambda: fit({"w": 0.0, "b": jf.Bounded(1.0, 2.0, 0.0)}), ValueError,
        r"params\['b'\]: low is 2 and high is 0, but low must be below high"),
    "low equal to high": (lambda: fit({"w": 0.0, "b": jf.Bounded(1.0, 1.0, 1.0)}), ValueError, r"jf\.Fixed"),
    "a start below": (lambda: fit({"w": 0.0, "b": jf.Bounded(-1.0, low=0.0)}), ValueError,
        r"params\['b'\] starts at -1, below low=0; start between"),
    "a start above": (lambda: fit({"w": 0.0, "b": jf.Bounded(3.0, high=2.0)}), ValueError, "starts at 3, above high=2"),
    "an axis of starts, one outside": (
        lambda: jf.sweep(jf.losses.mse(line), {"w": 0.0, "b": jf.Bounded(jf.Axis("s", [0.5, 2.5]), 0.0, 1.0)}, (X, Y),
                         optimizer=LM), ValueError, "starts at 2.5, above high=1"),
    "NaN for a bound": (lambda: fit({"w": 0.0, "b": jf.Bounded(1.0, np.nan)}), ValueError,
        r"low is nan.*None for none"),
    "text for a bound": (lambda: fit({"w": 0.0, "b": jf.Bounded(1.0, "0")}), TypeError, "low is '0', but a bound must"),
    "bounds of another shape": (lambda: fit({"w": 0.0, "b": jf.Bounded(1.0, [0.0, 1.0])}), ValueError,
        r"low has shape \(2,\) and the start \(\)"),
    "a NaN start": (lambda: fit({"w": 0.0, "b": jf.Bounded(np.nan, 0.0)}), ValueError, r"params\['b'\] is nan"),
    "a NaN fixed": (lambda: fit({"w": 0.0, "b": jf.Fixed(np.nan)}), ValueError, r"params\['b'\] is nan"),
    "all fixed": (lambda: fit({"w": jf.Fixed(1.0), "b": jf.Tied(lambda p: p["w"])}), ValueError,
        "all fixed or tied, so that nothing can move"),
    "a circle": (lambda: fit({"w": jf.Tied(lambda p: p["b"] + 1), "b": jf.Tied(lambda p: 2 * p["w"]), "c": 1.0}),
        ValueError, r"params\['b'\], params\['w'\] are tied in a circle"),
    "tied to itself": (lambda: fit({"w": 0.0, "b": jf.Tied(lambda p: p["b"])}), ValueError, "tied in a circle"),
    "tied to no number": (lambda: fit({"w": 0.0, "b": jf.Tied(lambda p: "w")}), TypeError, "returned a str"),
    "tied to no function": (lambda: jf.Tied(2.0), TypeError, "function is 2.0, but it must be a function"),
    "marks in marks": (lambda: jf.Fixed(jf.Bounded(1.0, 0.0)), TypeError, "marks do not nest"),
    "an axis of marks in a mark": (lambda: jf.Fixed(jf.Axis("a", [jf.Fixed(1.0)])), TypeError, "marks do not nest"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_compiles(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        call()


@pytest.mark.parametrize(
    "method",
    soaking(
        [
            jf.searches.random_search(0.3),
            jf.searches.coordinate_probing(0.2),
            jf.searches.finite_differences(0.5, 0.1),
            jf.searches.finite_differences(0.5, 0.1, central=False, in_turn=True),
            jf.optimizers.accumulated(jf.optimizers.sgd(0.5), 2),
        ],
        keep=1,
    ),
    ids=str,
)
def test_methods_of_every_kind_stay_between_the_bounds_and_reach_them(method):
    x = np.linspace(0, 1, 9)
    params = {"w": jf.Bounded(1.0, 0.0, 1.5), "b": jf.Fixed(0.5)}
    watched = jf.Record(what=("params",))
    fit = jf.fit(jf.losses.mse(jf.models.line), params, (x, 2 * x + 1), optimizer=method, steps=60, record=watched)
    assert float(fit.params["w"]) == 1.5 and float(fit.params["b"]) == 0.5
    assert np.all(np.asarray(fit.history.params["w"]) <= 1.5)


def test_verbs_that_only_look_see_marked_params_as_plain_ones():
    x = np.linspace(0, 1, 9)
    loss, data = jf.losses.mse(jf.models.line), (x, 2 * x + 1)
    marked = {"w": jf.Bounded(1.0, 0.0, 3.0), "b": jf.Fixed(0.5)}
    along = jf.Axis("w", [0.0, 1.0, 2.0])
    plain = jf.surface(loss, {"w": along, "b": 0.5}, data)
    assert np.array_equal(jf.surface(loss, {"w": along, "b": jf.Fixed(0.5)}, data), plain)
    assert np.array_equal(jf.surface(loss, {"w": jf.Bounded(along, 0.0, 3.0), "b": 0.5}, data), plain)
    assert jf.backprop(loss, marked, data).gradients == jf.backprop(loss, {"w": 1.0, "b": 0.5}, data).gradients
    assert jf.forward_memory(loss, marked, data) == jf.forward_memory(loss, {"w": 1.0, "b": 0.5}, data)
    assert jf.backward_memory(loss, marked, data) <= jf.backward_memory(loss, {"w": 1.0, "b": 0.5}, data)
