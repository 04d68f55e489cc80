"""Leaves of params that are no floats (functions, text, booleans, keys, arrays of integers) stay as they are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.plots.descents import window
from jaxfit.problems import Problem
from jaxfit.problems.posing import with_start
from tests.shared.soak import soaking

X = np.linspace(-1, 1.2, 12).astype(np.float32)
Y = 2 * X + np.sin(3 * X).astype(np.float32)
KEY, ADAM = jax.random.key(3), jf.optimizers.adam(0.1)
BARE = {"w": 1.0, "b": 0.2}
ROUNDED = 1e-12  # where a curve near 1 goes through zero and is flat, float64 of two programs
KEPT = {
    "activation": jnp.tanh, "name": "tanh", "none": None, "flag": True, "key": KEY,
    "order": jf.Fixed(np.array([1, 0])), "mask": np.array([True, False]),
}  # fmt: skip


def bare(params, x):
    return jnp.tanh(params["w"] * x + params["b"])


def model(params, x):
    assert params["flag"] is True and params["name"] == "tanh" and params["none"] is None
    found = jnp.stack([x, params["activation"](params["w"] * x + params["b"])])[params["order"][0]]
    return jnp.where(params["mask"][0], found, jnp.nan) + 0 * jax.random.key_data(params["key"])[0]


LOSS, START = jf.losses.mse(model), BARE | KEPT


def is_as_given(params):
    same = all(params[name] == KEPT[name] for name in ("activation", "name", "none", "flag", "key"))
    return same and params["order"].tolist() == [1, 0] and params["mask"].tolist() == [True, False]


METHODS = [ADAM, jf.optimizers.levenberg_marquardt(), jf.optimizers.lbfgs()]


@pytest.mark.parametrize("optimizer", soaking(METHODS, keep=2), ids=repr)
def test_a_fit_with_leaves_that_are_no_floats_is_that_without_them(optimizer):
    found = jf.fit(LOSS, START, (X, Y), optimizer=optimizer, steps=8)
    alone = jf.fit(jf.losses.mse(bare), BARE, (X, Y), optimizer=optimizer, steps=8)
    np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-6)
    assert is_as_given(found.params) and str(found).count(" = ") == 2
    np.testing.assert_allclose(found.predict(X), alone.predict(X), rtol=1e-5, atol=ROUNDED)


def test_statistics_and_reports_of_such_a_fit_are_those_without_them():
    found, alone = jf.curve_fit(model, START, (X, Y)), jf.curve_fit(bare, BARE, (X, Y))
    assert_rows_equal(jf.report(found), jf.report(alone))
    errors = jf.standard_errors(found)
    assert errors["activation"] is None and errors["order"] is None
    np.testing.assert_allclose(errors["w"], jf.standard_errors(alone)["w"], rtol=1e-6)
    np.testing.assert_allclose(jf.band(found, X).error, jf.band(alone, X).error, rtol=1e-6, atol=ROUNDED)
    given = jf.propagate(found, lambda p: p["activation"](p["w"]))
    np.testing.assert_allclose(given, jf.propagate(alone, lambda p: jnp.tanh(p["w"])), rtol=1e-6)


def assert_rows_equal(found, alone):
    for one, other in zip(found.rows, alone.rows, strict=True):
        assert (one.name, one.role) == (other.name, other.role)
        np.testing.assert_allclose(one[1:5], other[1:5], rtol=1e-5, atol=ROUNDED)


@pytest.mark.soak
def test_profiles_and_resamples_of_such_a_fit_are_those_without_them():
    """Of data within what the curve reaches: of others some resamples are best fitted by a step, which no `w` is."""
    data = X, Y / 4
    found, alone = jf.curve_fit(model, START, data), jf.curve_fit(bare, BARE, data)
    assert_rows_equal(jf.report(found, method="profile"), jf.report(alone, method="profile"))
    drawn, own = (jf.bootstrap(fit, key=0, samples=10).params for fit in (found, alone))
    assert drawn["activation"] is None and np.max(own["w"]) < 2
    np.testing.assert_allclose(drawn["w"], own["w"], rtol=1e-4)


def made(key):
    return START | {"w": jax.random.normal(key), "rng": key}


def test_lanes_hold_what_each_of_them_made_and_equal_single_fits():
    seeds = jf.Axis("seed", [0, 1, 2])
    record = jf.Record(every=5, what=("loss", "params"))
    grid = jf.sweep(LOSS, jf.Call(made, key=seeds), (X, Y), optimizer=ADAM, steps=10, record=record)
    assert {str(name) for name in grid.results if "params" in str(name)} == {
        "params.w", "params.b", "history.params.w", "history.params.b"
    }  # fmt: skip
    one = jf.lane(grid, seed=1)
    alone = jf.fit(LOSS, made(jax.random.key(1)), (X, Y), optimizer=ADAM, steps=10)
    np.testing.assert_allclose(one.loss, alone.loss, rtol=1e-6)
    assert is_as_given(one.params) and one.params["rng"] == jax.random.key(1) == alone.params["rng"]
    assert jf.best(grid).history.params["activation"] is jnp.tanh


@pytest.mark.soak
def test_the_sharpness_of_such_lanes_is_that_of_single_fits():
    grid = jf.sweep(LOSS, jf.Call(made, key=jf.Axis("seed", [0, 1, 2])), (X, Y), optimizer=ADAM, steps=10)
    alone = jf.fit(LOSS, made(jax.random.key(1)), (X, Y), optimizer=ADAM, steps=10)
    np.testing.assert_allclose(jf.sharpness(grid).sel(seed=1), jf.sharpness(alone).value, rtol=1e-3)


def test_an_axis_of_functions_at_a_leaf_is_a_program_for_each():
    kinds = jf.Axis("activation", [jnp.tanh, jnp.sin], ["tanh", "sin"])
    grid = jf.sweep(LOSS, START | {"activation": kinds}, (X, Y), optimizer=ADAM, steps=10)
    alone = jf.fit(LOSS, START | {"activation": jnp.sin}, (X, Y), optimizer=ADAM, steps=10)
    np.testing.assert_allclose(grid.results.loss.sel(activation="sin"), alone.loss, rtol=1e-6)
    assert set(grid.results["params.w"].dims) == {"activation"}


@pytest.mark.soak
def test_whole_params_on_an_axis_may_differ_in_a_switch():
    def loss(params, x, y):
        return jnp.mean((params["w"] * x + (0.5 if params["shift"] else 0) - y) ** 2)

    whole = jf.Axis("start", [{"w": 1.0, "shift": True}, {"w": 1.0, "shift": False}])
    grid = jf.sweep(loss, whole, (X, Y), optimizer=ADAM, steps=5)
    for i, shift in enumerate((True, False)):
        alone = jf.fit(loss, {"w": 1.0, "shift": shift}, (X, Y), optimizer=ADAM, steps=5)
        np.testing.assert_allclose(grid.results.loss[i], alone.loss, rtol=1e-6)


def test_such_a_fit_is_kept_and_read_back_and_goes_on(tmp_path):
    settings = {"optimizer": ADAM, "steps": 10}
    first = jf.fit(LOSS, START, (X, Y), checkpoint=tmp_path / "c", **settings)
    again = jf.fit(LOSS, START, (X, Y), checkpoint=tmp_path / "c", **settings)
    assert again.loss == first.loss and is_as_given(again.params)
    longer = jf.resume(first, 15)
    assert is_as_given(longer.params)
    assert longer.loss == jf.fit(LOSS, START, (X, Y), optimizer=ADAM, steps=15).loss
    jf.save(first, tmp_path / "f")
    with pytest.raises(ValueError, match=r"params.activation is a function, .*give the start again: params="):
        jf.load(tmp_path / "f", loss=LOSS)
    read = jf.load(tmp_path / "f", loss=LOSS, params=START)
    assert is_as_given(read.params) and read.loss == first.loss and read.params["w"] == first.params["w"]
    seeds = jf.Call(made, key=jf.Axis("seed", [0, 1]))
    for _ in range(2):
        grid = jf.sweep(LOSS, seeds, (X, Y), store=tmp_path / "s", **settings)
        assert jf.lane(grid, seed=1).params["rng"] == jax.random.key(1)


def test_a_fit_leaves_a_jit_and_is_mapped_with_what_it_keeps():
    found = jax.jit(lambda w: jf.fit(LOSS, START | {"w": w}, (X, Y), optimizer=ADAM, steps=3))(1.0)
    assert is_as_given(found.params) and is_as_given(jax.tree.map(np.asarray, found).params)


def test_a_step_gives_back_the_marks_and_what_is_kept():
    params, _, grads = jf.step(LOSS, START, (X, Y), optimizer=ADAM)
    assert isinstance(params["order"], jf.Fixed) and params["activation"] is jnp.tanh and grads["activation"] is None
    jf.step(LOSS, params, (X, Y), optimizer=ADAM)


def test_whole_numbers_alone_are_numbers_to_fit_and_an_array_of_them_is_kept_with_a_warning():
    found = jf.fit(jf.losses.mse(bare), {"w": 1, "b": 0}, (X, Y), optimizer=ADAM, steps=3)
    assert found.params["w"] != 1 and found.params["b"] != 0
    with pytest.warns(UserWarning, match=r"params\['order'\] is an array of integers .*\.astype\(float\).*jf\.Fixed"):
        kept = jf.fit(jf.losses.mse(bare), BARE | {"order": np.arange(3)}, (X, Y), optimizer=ADAM, steps=3)
    assert kept.params["order"].tolist() == [0, 1, 2]


def test_starts_are_drawn_beside_what_is_kept_and_optima_compare_what_moves():
    box = {name: jf.Bounded(value, low=0.0, high=3.0) for name, value in BARE.items()}
    starts = jf.starts(KEPT | box, 4, key=0)
    found = jf.optima(jf.sweep(LOSS, starts, (X, Y), optimizer=ADAM, steps=20), tolerance=1e-6)
    drawn = lambda mark, i: jf.Bounded(float(mark.value.values[i]), mark.low, mark.high)  # noqa: E731
    each = [{name: drawn(starts[name], i) for name in BARE} for i in range(4)]
    alone = [jf.fit(jf.losses.mse(bare), start, (X, Y), optimizer=ADAM, steps=20) for start in each]
    assert found.params["order"] is None and found.count.tolist() == [1] * 4
    np.testing.assert_allclose(found.loss, sorted(float(fit.loss) for fit in alone), rtol=1e-5)


@pytest.mark.soak
def test_optima_from_made_starts_that_end_alike_are_one():
    made_alike = jf.Call(lambda key: START | {"rng": key}, key=jf.Axis("seed", [0, 1, 2]))
    grid = jf.sweep(LOSS, made_alike, (X, Y), optimizer=ADAM, steps=20)
    assert jf.optima(grid).count.tolist() == [3]


@pytest.mark.parametrize("call", soaking([False, True], keep=1), ids=["given", "called"])
def test_a_trail_and_its_surface_are_those_of_what_moves(call):
    settings = {"optimizer": ADAM, "steps": 6, "record": jf.Record(what=("loss", "params"))}
    start = {**START, "still": jf.Fixed(2.0), "twice": jf.Tied(lambda p: 2 * p["w"])}
    found = jf.fit(LOSS, jf.Call(lambda w: START | {"w": w}, w=1.0) if call else start, (X, Y), **settings)
    alone = jf.fit(jf.losses.mse(bare), BARE, (X, Y), **settings)
    way, own = (jf.landscapes.trail(fit, between=1) for fit in (found, alone))
    np.testing.assert_allclose(way.loss, own.loss, rtol=1e-5)
    assert way.params["activation"] is None and way.params["w"].shape == (13,)
    moving = {name: np.asarray(alone.history.params[name]) for name in ("b", "w")}
    np.testing.assert_allclose(window(found, moving), window(alone, moving), rtol=1e-4, atol=1e-6)


@pytest.mark.soak
def test_the_descent_of_what_moves_is_drawn():
    record = jf.Record(what=("loss", "params"))
    found = jf.fit(LOSS, START, (X, Y), optimizer=ADAM, steps=6, record=record)
    assert jf.plots.descent_animation(found, frames=2)[:4] == b"GIF8"


def floats(key):
    return {"w": 1.0, "rng": key}


def test_python_numbers_that_a_call_makes_are_arrays_to_the_method():
    made = with_start(Problem(bare, jf.Call(floats, key=KEY), (X, Y), None)).params
    assert isinstance(made["w"], jax.Array) and made["w"].dtype == jnp.float32


@pytest.mark.soak
def test_python_numbers_that_a_call_makes_start_any_method():
    start = jf.Call(floats, key=jf.Axis("seed", [0, 1]))
    grid = jf.sweep(lambda p: (p["w"] - 3) ** 2, start, optimizer=jf.optimizers.lbfgs(), steps=5)
    np.testing.assert_allclose(grid.results["params.w"], 3, rtol=1e-6)


def test_a_part_of_the_params_is_fixed_with_what_is_kept_in_it(tmp_path):
    part = {"slope": 2.0, "power": jnp.sqrt, "name": "part", "on": True, "order": np.array([1, 0]), "key": KEY}

    def model(params, x):
        return params["w"] * x + params["part"]["power"](4.0 * x**2) * params["part"]["slope"]

    found = jf.curve_fit(model, {"w": 1.0, "part": jf.Fixed(part)}, (X, Y))
    alone = jf.curve_fit(lambda p, x: p["w"] * x + 4 * jnp.abs(x), {"w": 1.0}, (X, Y))
    np.testing.assert_allclose(found.params["w"], alone.params["w"], rtol=1e-6)
    assert all(found.params["part"][name] is part[name] for name in ("power", "name", "on"))
    assert found.params["part"]["key"] == KEY and found.params["part"]["order"].tolist() == [1, 0]
    np.testing.assert_allclose(jf.standard_errors(found)["w"], jf.standard_errors(alone)["w"], rtol=1e-6)
    assert [row.name for row in jf.report(found).rows] == ["part.slope", "w"]
    np.testing.assert_allclose(jf.sharpness(found).value, jf.sharpness(alone).value, rtol=1e-6)
    jf.save(found, tmp_path / "f")
    read = jf.load(tmp_path / "f", loss=found.problem.loss, params={"w": 1.0, "part": jf.Fixed(part)})
    assert read.params["part"]["power"] is jnp.sqrt and read.params["w"] == found.params["w"]


def test_distances_from_a_curve_leave_out_what_is_kept():
    """Of the points (1, 0) and (0, 2) from a circle of radius r: (r - 1)**2 + (r - 2)**2, the least at 1.5."""
    loss = jf.losses.implicit_distance(lambda p, x: jnp.sum(p["square"](x), axis=1) - p["r"] ** 2)
    points, start = np.array([[1.0, 0.0], [0.0, 2.0]]), {"r": 1.0, "square": jnp.square, "key": KEY}
    method = jf.optimizers.levenberg_marquardt()
    found = jf.fit(loss, start, (points, np.ones((2, 2))), optimizer=method, steps=20, precision="float64")
    np.testing.assert_allclose([found.params["r"], found.loss], [1.5, 0.5], rtol=1e-9)


def test_a_class_is_kept_as_a_type_of_numbers_is_in_modules_of_other_libraries():
    start = {"w": 1.0, "dtype": jnp.float32, "other": np.float64, "kind": dict}
    found = jf.fit(lambda p: (p["w"].astype(p["dtype"]) - 3) ** 2, start, optimizer=ADAM, steps=2)
    assert all(found.params[name] is start[name] for name in ("dtype", "other", "kind"))


def test_the_warning_of_integers_names_the_callers_line():
    with pytest.warns(UserWarning, match="array of integers") as told:
        jf.fit(lambda p: (p["w"] - 3) ** 2, {"w": 1.0, "order": np.arange(2)}, optimizer=ADAM, steps=2)
    assert told[0].filename == __file__


# Modules of other libraries


class Layer(NamedTuple):
    """A plain double of a module: a class that is a pytree, with settings among its leaves."""

    weight: object
    activation: object = jnp.tanh
    name: str = "layer"

    def __call__(self, x):
        return self.activation(self.weight @ x)


def of_module(module, x, y):
    return jnp.mean((jax.vmap(module)(x) - y) ** 2)


COLUMN = X[:, None]


def layer(key, width=1):
    return Layer(jax.random.normal(key, (1, 1)) * width)


def test_a_module_is_trained_and_called_as_a_whole():
    grid = jf.sweep(
        of_module, jf.Call(layer, key=jf.Axis("seed", [0, 1]), width=2), (COLUMN, COLUMN), optimizer=ADAM, steps=3
    )  # fmt: skip
    one = jf.lane(grid, seed=1)
    params, state = {"w": layer(jax.random.key(1), 2).weight}, None
    rule, gradient = optax.adam(0.1), jax.jit(jax.grad(lambda p: of_module(Layer(p["w"]), COLUMN, COLUMN)))
    for _ in range(3):  # the slow and obvious way
        updates, state = jax.jit(rule.update)(gradient(params), state or rule.init(params))
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(one.params.weight, params["w"], rtol=1e-5)
    assert one.params.name == "layer" and jax.vmap(one.params)(COLUMN).shape == (12, 1)


def test_a_module_of_equinox_is_trained_as_a_whole_as_its_own_loop_does():
    eqx = pytest.importorskip("equinox")

    def init(key, width):
        mlp = eqx.nn.MLP(1, 1, width, 1, key=key)
        return eqx.nn.Sequential([mlp, eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.5, inference=True)])

    model, rule = init(jax.random.key(1), 8), optax.adam(0.02)
    found = jf.fit(of_module, model, (COLUMN, COLUMN), optimizer=jf.optimizers.adam(0.02), steps=20)
    state = rule.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(20):
        grads = eqx.filter_grad(of_module)(model, COLUMN, COLUMN)
        updates, state = rule.update(grads, state)
        model = eqx.apply_updates(model, updates)
    np.testing.assert_allclose(found.loss, of_module(model, COLUMN, COLUMN), rtol=1e-5)
    assert found.params.layers[2].p == 0.5 and jax.vmap(found.params)(COLUMN).shape == (12, 1)
    start = jf.Call(init, key=jf.Axis("seed", [0, 1]), width=jf.Axis("width", [4, 8]))
    grid = jf.sweep(of_module, start, (COLUMN, COLUMN), optimizer=jf.optimizers.adam(0.02), steps=20)
    np.testing.assert_allclose(grid.results.loss.sel(seed=1, width=8), found.loss, rtol=1e-5)


def test_a_module_of_flax_nnx_trains_its_params_alone():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, key, width):
            rngs = nnx.Rngs(key)
            self.first, self.last = nnx.Linear(1, width, rngs=rngs), nnx.Linear(width, 1, rngs=rngs)
            self.norm = nnx.BatchNorm(width, rngs=rngs, use_running_average=True)
            self.drop = nnx.Dropout(0.5, rngs=rngs, deterministic=True)

        def __call__(self, x):
            return self.last(nnx.tanh(self.drop(self.norm(self.first(x)))))

    def loss(net, x, y):
        return jnp.mean((net(x) - y) ** 2)

    target = np.exp(COLUMN)
    found = jf.fit(loss, Net(jax.random.key(1), 8), (COLUMN, target), optimizer=jf.optimizers.adam(0.02), steps=20)
    graph, params, rest = nnx.split(Net(jax.random.key(1), 8), nnx.Param, ...)
    rule = optax.adam(0.02)
    state = rule.init(params)
    for _ in range(20):
        grads = jax.grad(lambda p: loss(nnx.merge(graph, p, rest), COLUMN, target))(params)
        updates, state = rule.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(found.loss, loss(nnx.merge(graph, params, rest), COLUMN, target), rtol=1e-4)
    np.testing.assert_array_equal(found.params.norm.mean[...], np.zeros(8))
    start = jf.Call(Net, key=jf.Axis("seed", [0, 1]), width=jf.Axis("width", [4, 8]))
    grid = jf.sweep(loss, start, (COLUMN, target), optimizer=jf.optimizers.adam(0.02), steps=20)
    np.testing.assert_allclose(grid.results.loss.sel(seed=1, width=8), found.loss, rtol=1e-4)
