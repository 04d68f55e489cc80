import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxfit as jf
from jaxfit.engine.settings import using
from jaxfit.verbs import sweeps
from tests.shared.interrupts import ended_by
from tests.shared.problems import METHODS, PROBLEMS, line, quadratic, thermometer
from tests.shared.soak import soaking

LINE = PROBLEMS["line"]
RATES = np.array([1e-3, 5e-3, 1e-2, 3e-2, 1e-1])


def rates_and_starts(**kwargs):
    start = {"w": jf.Axis("w0", [-2.0, 0.0, 1.0]), "b": 0.0}
    rate = jf.Axis("learning_rate", RATES)
    return jf.sweep(LINE.loss, start, LINE.data, optimizer=jf.optimizers.sgd(rate), steps=200, **kwargs)


def test_the_table_of_a_sweep_is_made_once_and_only_when_it_is_asked_for():
    grid = rates_and_starts()
    assert "results" not in vars(grid) and grid.results is grid.results and grid.results.status.shape == (3, 5)
    again = pickle.loads(pickle.dumps(grid))
    xr.testing.assert_identical(again.results, grid.results)


@pytest.mark.parametrize("method", soaking(METHODS, keep=()))
def test_every_lane_is_the_single_fit(method):
    mine, _ = METHODS[method]
    case = PROBLEMS["net"]
    rates = [1e-4, 1e-3, 1e-2]
    how = dict(steps=60, precision="float64")
    grid = jf.sweep(case.loss, case.start, case.data, optimizer=mine(jf.Axis("rate", rates)), **how)
    for rate in rates:
        fit = jf.fit(case.loss, case.start, case.data, optimizer=mine(rate), **how)
        lane = jf.lane(grid, rate=rate)
        assert lane.status == fit.status and lane.steps == fit.steps
        np.testing.assert_allclose(lane.loss, fit.loss, rtol=1e-9)
        for a, b in zip(jax.tree.leaves(lane.params), jax.tree.leaves(fit.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("stop", soaking([jf.Stop(), jf.Stop(gradient_norm_below=0.5)], keep=1))
def test_outcomes_steps_and_histories_are_those_of_single_fits(stop):
    grid = rates_and_starts(stop=stop, record=jf.Record(every=7))
    for i, w in enumerate((-2.0, 0.0, 1.0)):
        for j, rate in enumerate(RATES):
            fit = jf.fit(
                LINE.loss, {"w": w, "b": 0.0}, LINE.data, optimizer=jf.optimizers.sgd(rate), steps=200, stop=stop,
                record=jf.Record(every=7),
            )  # fmt: skip
            own = grid.results.isel(w0=i, learning_rate=j)
            assert own.status == fit.status and own.steps == fit.steps
            row = own["history.loss"].values
            np.testing.assert_allclose(row[: len(fit.history.loss)], fit.history.loss, rtol=2e-3)
            assert np.isnan(row[len(fit.history.loss) :]).all()
            np.testing.assert_allclose(
                jf.lane(grid, w0=w, learning_rate=rate).history.loss, fit.history.loss, rtol=2e-3
            )


def test_results_are_labelled_by_the_axes_in_order_of_first_mention():
    results = rates_and_starts().results
    assert isinstance(results, xr.Dataset)
    assert results.status.dims == ("w0", "learning_rate") and results.loss.shape == (3, 5)
    assert set(results.data_vars) == {"loss", "status", "steps", "params.w", "params.b"}
    assert results.status.sel(learning_rate=1e-2, w0=0.0, method="nearest") == jf.Status.OUT_OF_STEPS
    assert (results.status.sel(learning_rate=1e-1) == jf.Status.DIVERGED).all()


def test_one_name_at_two_leaves_moves_them_together():
    start = {"w": jf.Axis("start", [1.0, 2.0, 3.0]), "b": jf.Axis("start", [10.0, 20.0, 30.0])}
    grid = jf.sweep(LINE.loss, start, LINE.data, optimizer=jf.optimizers.sgd(1e-30), steps=1)
    assert grid.results.status.dims == ("start",)
    np.testing.assert_allclose(grid.results["params.b"], [10, 20, 30])
    assert grid.results.start.values.tolist() == [0, 1, 2]
    assert grid.results["params.w"].dims == ("start",)
    assert grid.results["start.w"].values.tolist() == [1, 2, 3]
    assert grid.results["start.b"].values.tolist() == [10, 20, 30]


def test_static_axes_become_programs_and_join_in_one_dataset():
    rate = jf.Axis("rate", [1e-3, 1e-2])
    kinds = jf.Axis("optimizer", [jf.optimizers.sgd(rate), jf.optimizers.adam(rate)], labels=["sgd", "adam"])
    grid = jf.sweep(LINE.loss, LINE.start, LINE.data, optimizer=kinds, steps=50)
    assert grid.results.loss.dims == ("optimizer", "rate")
    for kind, make in (("sgd", jf.optimizers.sgd), ("adam", jf.optimizers.adam)):
        for r in (1e-3, 1e-2):
            fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=make(r), steps=50)
            np.testing.assert_allclose(grid.results.loss.sel(optimizer=kind, rate=r), fit.loss, rtol=1e-4)
            lane = jf.lane(grid, optimizer=kind, rate=r)
            assert lane.coords == {"optimizer": kind, "rate": r}
            np.testing.assert_allclose(lane.params["w"], fit.params["w"], rtol=1e-4)
            assert f"learning_rate={r:g}" in str(lane) and lane.optimizer.name == kind


STRETCH = np.array([1.0, 2.0])
RATE, BETA = jf.Axis("rate", [1e-4, 3e-4, 1e-3]), jf.Axis("beta", [0.1, 0.5])


def axes_of_some_programs():
    kinds = [jf.optimizers.sgd(RATE), jf.optimizers.momentum(1e-3, BETA)]
    optimizer = jf.Axis("optimizer", kinds, labels=["sgd", "momentum"])
    x, y = LINE.data
    data = jf.Axis("stretch", STRETCH[:, None] * x), y
    grid = jf.sweep(LINE.loss, LINE.start, data, optimizer=optimizer, steps=20)
    assert grid.results.loss.sizes == {"stretch": 2, "optimizer": 2, "rate": 3, "beta": 2}
    return grid


@pytest.mark.soak
def test_a_lane_knows_its_own_problem_where_an_axis_stands_in_some_programs_only():
    grid = axes_of_some_programs()
    for place in np.ndindex(grid.results.loss.shape):
        coords = zip(grid.results.coords.items(), place, strict=True)
        lane = jf.lane(grid, **{str(name): values.values[i] for (name, values), i in coords})
        np.testing.assert_array_equal(lane.problem.data[0], STRETCH[place[0]] * LINE.data[0])
        asked = {"learning_rate": RATE.values[place[2]]}, {"learning_rate": 1e-3, "momentum": BETA.values[place[3]]}
        assert lane.optimizer.hyperparameters == asked[place[1]]


@pytest.mark.soak
def test_what_is_asked_of_all_lanes_is_of_each_where_an_axis_stands_in_some_programs_only():
    grid = axes_of_some_programs()
    sharpness, errors = jf.sharpness(grid), jf.standard_errors(grid)["params.w"]
    for i, stretch in enumerate(STRETCH):
        basis = np.stack([stretch * LINE.data[0], np.ones(11)], axis=1)
        np.testing.assert_allclose(sharpness[i], 2 / 11 * np.linalg.norm(basis, 2) ** 2, rtol=1e-5)
        scatter = 11 / 9 * grid.results.loss[i]
        np.testing.assert_allclose(errors[i], np.sqrt(scatter * np.linalg.inv(basis.T @ basis)[0, 0]), rtol=1e-5)


def init(key, width):
    a, b = jax.random.split(key)
    return {"hidden": jax.random.normal(a, (width,)), "out": jax.random.normal(b, (width,)) / width}


def net(params, x):
    return jnp.tanh(x[:, None] * params["hidden"][None, :]) @ params["out"]


@pytest.mark.soak
def test_widths_and_seeds_sweep_through_a_call():
    x, y = thermometer()
    keys = jax.random.split(jax.random.key(0), 3)
    params = jf.Call(init, key=jf.Axis("seed", keys), width=jf.Axis("width", [2, 5]))
    grid = jf.sweep(jf.losses.mse(net), params, (x, y), optimizer=jf.optimizers.sgd(1e-3), steps=30)
    assert grid.results.loss.shape == (3, 2) and not any(str(v).startswith("params") for v in grid.results)
    for i, key in enumerate(keys):
        for width in (2, 5):
            lane = jf.lane(grid, seed=i, width=width)
            assert lane.params["hidden"].shape == (width,)
        fit = jf.fit(jf.losses.mse(net), init(key, 5), (x, y), optimizer=jf.optimizers.sgd(1e-3), steps=30)
        np.testing.assert_allclose(lane.loss, fit.loss, rtol=1e-4)


@pytest.mark.soak
def test_data_sets_and_keys_sweep():
    x, y = thermometer()
    ys = jf.Axis("set", np.stack([y, y + 1, 2 * y]))
    seeds = jf.Axis("seed", [4, 5])
    grid = jf.sweep(
        LINE.loss, LINE.start, (x, ys), optimizer=jf.optimizers.adam(0.1), steps=80, batches=jf.Batches(4), key=seeds
    )
    assert grid.results.loss.dims == ("set", "seed") and grid.results.seed.values.tolist() == [4, 5]
    for k, shifted in enumerate((y, y + 1, 2 * y)):
        for seed in (4, 5):
            fit = jf.fit(
                LINE.loss, LINE.start, (x, shifted), optimizer=jf.optimizers.adam(0.1), steps=80,
                batches=jf.Batches(4), key=seed,
            )  # fmt: skip
            np.testing.assert_allclose(grid.results.loss.sel(set=k, seed=seed), fit.loss, rtol=1e-3)


def test_data_sets_that_are_lists_sweep_as_arrays_do():
    x, y = LINE.data
    sets = np.stack([y, y + 1])

    def swept(x, sets):
        start, data = {"w": 1.0, "b": 0.0}, (x, jf.Axis("set", sets))
        return jf.sweep(LINE.loss, start, data, optimizer=jf.optimizers.sgd(1e-2), steps=20).results

    xr.testing.assert_identical(swept(x.tolist(), sets.tolist()), swept(x, sets))


@pytest.mark.soak
def test_data_sets_of_unequal_length_sweep_padded_and_masked():
    x, y = thermometer()
    xs, ys, where = jf.datasets.pad([(x, y), (x[:7], y[:7])])
    data = tuple(jf.Axis("set", a) for a in (xs, ys, where))
    grid = jf.sweep(jf.losses.mse(line, masked=True), LINE.start, data, optimizer=jf.optimizers.sgd(1e-2), steps=50)
    for k, n in enumerate((11, 7)):
        fit = jf.fit(LINE.loss, LINE.start, (x[:n], y[:n]), optimizer=jf.optimizers.sgd(1e-2), steps=50)
        np.testing.assert_allclose(grid.results.loss[k], fit.loss, rtol=1e-4)


@pytest.mark.soak
def test_numbers_of_losses_and_stop_rules_sweep():
    delta, tol = jf.Axis("delta", [0.5, 5.0]), jf.Axis("tol", [1.0, 0.1])
    grid = jf.sweep(
        jf.losses.huber(line, delta=delta), LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=4000,
        stop=jf.Stop(gradient_norm_below=tol),
    )  # fmt: skip
    for d in (0.5, 5.0):
        for t in (1.0, 0.1):
            fit = jf.fit(
                jf.losses.huber(line, delta=d), LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=4000,
                stop=jf.Stop(gradient_norm_below=t),
            )  # fmt: skip
            own = grid.results.sel(delta=d, tol=t)
            assert own.status == fit.status and abs(int(own.steps) - fit.steps) <= 2


@pytest.mark.soak
def test_validation_losses_come_along():
    train, held_out = jf.datasets.thermometer_split()
    grid = jf.sweep(
        LINE.loss, LINE.start, train, optimizer=jf.optimizers.sgd(jf.Axis("rate", [1e-5, 1e-4])), steps=50,
        validation=held_out,
    )  # fmt: skip
    fit = jf.fit(LINE.loss, LINE.start, train, optimizer=jf.optimizers.sgd(1e-4), steps=50, validation=held_out)
    np.testing.assert_allclose(grid.results.validation_loss[1], fit.validation_loss, rtol=1e-5)
    assert jf.best(grid, by="validation_loss").validation_loss == grid.results.validation_loss.min()


@pytest.mark.soak
def test_a_lanes_bits_do_not_depend_on_its_place_or_the_order_of_axes():
    case = PROBLEMS["net"]

    def run(rates, seeds, swap):
        rate, seed = jf.Axis("rate", rates), jf.Axis("seed", seeds)
        o, k = (jf.optimizers.adam(rate), seed)
        grid = jf.sweep(case.loss, case.start, case.data, optimizer=o, key=k, batches=jf.Batches(5), steps=40, slots=4)
        return grid.results.loss.transpose("rate", "seed")

    rates, seeds = [1e-3, 1e-2, 2e-2, 3e-2, 5e-2], [1, 2, 3]
    whole = run(rates, seeds, False)
    shuffled = run(rates[::-1], seeds[::-1], True).values[::-1, ::-1]
    part = run(rates[2:4], seeds[1:], False)
    assert np.array_equal(whole.values, shuffled)
    assert np.array_equal(whole.values[2:4, 1:], part.values)


def test_what_lanes_share_is_kept_once():
    from jaxfit.engine.inspections import layout_of
    from jaxfit.engine.parts import spec_of

    optimizer = jf.optimizers.adam(jf.Axis("rate", np.array([1e-3, 1e-2], np.float32)))
    (part,) = sweeps.plan_sweep(LINE.loss, LINE.start, thermometer(), optimizer=optimizer, steps=5).parts
    structure, leaves, columns = part.template
    layout = layout_of(structure, tuple((x.shape, x.dtype) for x in leaves), spec_of(columns), False)
    axes = layout and layout.axes
    assert axes.memory[0].count is None and axes.memory[0].mu == {"w": 0, "b": 0}


def test_new_values_compile_nothing(traces):
    model = traces(line)

    def run(rates, shift):
        loss = jf.losses.mse(model)
        x, y = thermometer()
        rate = jf.Axis("rate", rates)
        return jf.sweep(loss, LINE.start, (x + shift, y), optimizer=jf.optimizers.sgd(rate), steps=20)

    run([1e-3, 2e-3, 1e-2], 0.0)
    seen = model.count
    run([1e-1, 2e-1, 1e-2], 1.0)
    run([1e-1, 2e-1, 1e3, 1e-2], 1.0)
    assert model.count == seen


def test_lane_reads_the_nearest_member_and_refuses_what_lies_outside():
    grid = rates_and_starts()
    lane = jf.lane(grid, w0=0.1, learning_rate=0.9e-2)
    assert lane.coords == {"w0": 0.0, "learning_rate": 0.01}
    assert lane.loss == grid.results.loss.values[1, 2]
    with pytest.raises(ValueError, match="learning_rate=0.5 lies outside of the axis, which runs from 0.001 to 0.1"):
        jf.lane(grid, w0=0.0, learning_rate=0.5)
    with pytest.raises(ValueError, match="w0 is missing"):
        jf.lane(grid, learning_rate=0.01)
    with pytest.raises(ValueError, match="no dimension 'rate'"):
        jf.lane(grid, rate=0.01, w0=0.0)


def test_best_ignores_failures_and_chooses_along_dimensions():
    grid = rates_and_starts()
    best = jf.best(grid)
    ended_well = grid.results.loss.where(grid.results.status == jf.Status.OUT_OF_STEPS)
    assert best.loss == ended_well.min() and best.coords["learning_rate"] == 3e-2
    smaller = jf.best(grid, over="learning_rate")
    assert smaller.results.loss.dims == ("w0",) and (smaller.results.learning_rate == 3e-2).all()
    lane = jf.lane(smaller, w0=1.0)
    assert lane.coords == {"w0": 1.0, "learning_rate": 3e-2}
    assert lane.loss == grid.results.loss.sel(w0=1.0, learning_rate=3e-2)
    assert "learning_rate=0.03" in str(lane)
    with pytest.raises(ValueError, match="by='los' is not one number for each lane; there are loss, steps, status"):
        jf.best(grid, by="los")


def test_more_programs_than_anyone_wants_are_an_error_that_names_the_remedy():
    params = jf.Call(init, key=jax.random.key(0), width=jf.Axis("width", range(1, 66)))
    with pytest.raises(ValueError, match="65 programs would be compiled; at most 64.*pad"):
        jf.sweep(jf.losses.mse(net), params, thermometer(), optimizer=jf.optimizers.sgd(1e-3), steps=3)


def test_results_that_do_not_fit_are_refused_before_anything_runs():
    with (
        using(free_bytes=10_000, unasked_bytes=0),
        pytest.raises(ValueError, match=r"bytes \(.* a lane\), but 10,000 bytes of memory are free: record less often"),
    ):
        rates_and_starts(record=jf.Record())


@pytest.mark.soak
def test_the_map_of_convergence_has_the_law_as_its_boundary():
    rates = np.geomspace(0.02, 0.6, 64)
    grid = jf.sweep(
        quadratic, [jf.Axis("start", [1.0, 3.0]), jf.Axis("start", [-1.0, 2.0])],
        optimizer=jf.optimizers.sgd(jf.Axis("rate", rates)), steps=2000,
    )  # fmt: skip
    for row in grid.results.status.values:
        edge = rates[np.flatnonzero(row == jf.Status.DIVERGED)[0]]
        assert 0.2 <= edge <= 0.2 * (rates[1] / rates[0])


@pytest.mark.soak
def test_a_params_axis_of_whole_trees_and_a_ready_transformation_work():
    starts = jf.Axis("start", [{"w": 1.0, "b": 0.0}, {"w": 2.0, "b": 1.0}])
    grid = jf.sweep(LINE.loss, starts, LINE.data, optimizer=optax.sgd(1e-2), steps=20)
    fit = jf.fit(LINE.loss, {"w": 2.0, "b": 1.0}, LINE.data, optimizer=optax.sgd(1e-2), steps=20)
    np.testing.assert_allclose(grid.results.loss[1], fit.loss, rtol=1e-5)


def test_ctrl_c_keeps_the_finished_blocks():
    with (
        using(block_lanes=4, block_loads=1, workers=1),
        ended_by(KeyboardInterrupt, "lanes", 2),
        pytest.raises(jf.Interrupted, match="interrupted after 8 of 15 lanes") as caught,
    ):
        rates_and_starts(slots=4)
    results = caught.value.result.results
    status = results.status.values.ravel()
    assert (status[:8] != jf.Status.NOT_RUN).all() and (status[8:] == jf.Status.NOT_RUN).all()
    assert np.isnan(results.loss.values.ravel()[8:]).all() and caught.value.__cause__ is None
