"""Refined maps: what did not run is right, unless its whole region was missed; and that against the full sweep."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxfit as jf
from jaxfit.verbs.refinements import interpolate, mixed, trace_boundary

RATES, STARTS = np.geomspace(0.02, 0.22, 65), np.linspace(-2.5, 2.5, 50)
RATE, START = jf.Axis("learning_rate", RATES), jf.Axis("start", STARTS)


def two_valleys(params):
    return (params["x"] ** 2 - 1) ** 2 + 0.3 * params["x"]


def refined(**options):
    asked = {
        "optimizer": jf.optimizers.sgd(RATE),
        "steps": 200,
        "stop": STOP,
        "depth": 3,
        "record": jf.Record(every=50),
    }
    return jf.refine(two_valleys, {"x": START}, **asked | options)


STOP = jf.Stop(gradient_norm_below=1e-3)


def valley(results):
    """Where a run ended: left, right, or not at all."""
    return (results.status.values == jf.Status.CONVERGED) * np.sign(results["params.x"].values).astype(int)


@pytest.fixture(scope="module")
def grid():
    return refined(by="valley", measure={"valley": valley})


@pytest.fixture(scope="module")
def full():
    return refined(depth=0, measure={"valley": valley})


# The boundary of an array


@pytest.mark.parametrize(("sizes", "axes", "depth"), [
    ((97,), (0,), 4), ((61, 80), (0, 1), 3), ((64, 64), (0, 1), 2), ((3, 50, 41), (1, 2), 3), ((21, 3, 30), (0, 2), 2),
    ((17, 20, 19), (0, 1, 2), 2), ((1, 33), (0, 1), 5),
])  # fmt: skip
def test_a_cell_is_wrong_only_if_its_whole_region_was_missed(sizes, axes, depth):
    rng = np.random.default_rng(sum(sizes))
    missed = 0
    for _ in range(10):
        smooth = [0 if i not in axes else rng.uniform(0.5, 4) for i in range(len(sizes))]
        truth = np.digitize(ndimage.gaussian_filter(rng.normal(size=sizes), smooth), [-0.1, 0.05])
        known = np.zeros(sizes, bool)

        def evaluate(numbers, truth=truth, known=known):
            assert not known.flat[numbers].any()  # nothing twice
            known.flat[numbers] = True
            return truth.flat[numbers]

        labels = trace_boundary(evaluate, sizes, axes, depth)
        near = np.ones([3 if i in axes else 1 for i in range(len(sizes))])
        structure = np.zeros([3] * len(sizes))
        structure[tuple(slice(None) if i in axes else slice(1, 2) for i in range(len(sizes)))] = near
        for label in range(3):
            regions, count = ndimage.label(truth == label, structure)
            hit = ndimage.maximum(known, regions, range(1, count + 1)) if count else []
            for region in np.flatnonzero(hit) + 1:
                assert np.all(labels[regions == region] == label)
        missed += np.sum(labels != truth)
    assert missed > 0 or depth < 3 or len(sizes) == 1  # islands are there to be missed


def test_a_smooth_boundary_is_found_exactly_and_at_the_cost_of_its_length():
    y, x = np.mgrid[:256, :256]
    truth = (x - 130) ** 2 + 2 * (y - 120) ** 2 < 90**2
    asked = []

    def evaluate(numbers):
        asked.extend(numbers)
        return truth.flat[numbers]

    np.testing.assert_array_equal(trace_boundary(evaluate, truth.shape, (0, 1), 5), truth)
    perimeter = np.sum(truth[1:] != truth[:-1]) + np.sum(truth[:, 1:] != truth[:, :-1])
    assert len(asked) < 4 * perimeter < truth.size / 25


# The map of a sweep


def test_a_refined_map_has_the_outcome_of_the_full_one_in_every_cell(grid, full):
    assert full.results.evaluated.all() and full.results.attrs["evaluated"] == 1
    np.testing.assert_array_equal(grid.results.valley, full.results.valley)
    assert len(np.unique(full.results.valley)) == 3
    assert grid.results.attrs["evaluated"] == float(grid.results.evaluated.mean()) < 0.25


def test_what_ran_is_a_member_of_the_sweep_and_the_rest_is_the_nearest_that_ran(grid, full):
    ran = grid.results.evaluated.values
    for name in ("loss", "steps", "status", "params.x"):
        np.testing.assert_array_equal(grid.results[name].values[ran], full.results[name].values[ran])
    place = np.stack(np.nonzero(ran), axis=1)
    for cell in np.argwhere(~ran)[::97]:
        far = np.linalg.norm(place - cell, axis=1)
        value = grid.results["params.x"].values[tuple(cell)]
        assert value in [full.results["params.x"].values[tuple(p)] for p in place[far == far.min()]]


def test_numbers_may_be_interpolated_between_members_of_one_outcome(grid, full):
    def product(results):
        return np.log(results.learning_rate) * results.start

    smooth = refined(by="valley", measure={"valley": valley, "product": product}, fill="linear").results
    ran = smooth.evaluated.values
    for name in ("steps", "params.x"):
        np.testing.assert_array_equal(smooth[name].values[ran], full.results[name].values[ran])
    np.testing.assert_array_equal(smooth.valley, full.results.valley)
    np.testing.assert_allclose(smooth["product"], np.log(RATES) * STARTS[:, None], atol=1e-12)
    off, rough = (np.abs(one.steps - full.results.steps).values[~ran] for one in (smooth, grid.results))
    assert np.median(off) < np.median(rough)


@pytest.mark.parametrize(("sizes", "axes"), [((40, 50), (0, 1)), ((2, 37, 41), (1, 2)), ((60,), (0,))])
def test_interpolation_is_exact_for_what_is_linear_on_each_side_of_a_boundary(sizes, axes):
    grids = np.meshgrid(*map(np.arange, sizes), indexing="ij")
    labels = sum(grids) > sum(sizes) / 2.1
    values = np.where(labels, 3.0 * grids[-1] - grids[0], 100.0 - grids[-1])
    known = np.zeros(sizes, bool)

    def evaluate(numbers):
        known.flat[numbers] = True
        return labels.flat[numbers]

    trace_boundary(evaluate, sizes, axes, 3)
    assert known.mean() < 0.5
    given = np.where(known, values, 0.0)
    np.testing.assert_allclose(interpolate(given, known, labels, axes, 3), values, atol=1e-9)


@pytest.mark.soak
def test_a_refined_map_agrees_with_a_sweep(full):
    swept = jf.sweep(two_valleys, {"x": START}, optimizer=jf.optimizers.sgd(RATE), steps=200, stop=STOP)
    assert full.results.status.dims == swept.results.status.dims == ("start", "learning_rate")
    np.testing.assert_array_equal(full.results.status, swept.results.status)
    np.testing.assert_allclose(full.results.loss, swept.results.loss, rtol=1e-5)
    np.testing.assert_array_equal(full.results.start, STARTS)


def test_a_lane_of_a_refined_map_is_the_member_that_ran(grid):
    ran = grid.results.evaluated
    cell = np.argwhere(~ran.values)[7]
    fit = jf.lane(grid, start=STARTS[cell[0]], learning_rate=RATES[cell[1]])
    assert fit.coords != {"start": STARTS[cell[0]], "learning_rate": RATES[cell[1]]}
    assert bool(ran.sel(fit.coords))
    alone = jf.fit(two_valleys, {"x": fit.coords["start"]}, optimizer=fit.optimizer, steps=200, stop=STOP)
    assert float(fit.params["x"]) == pytest.approx(float(alone.params["x"]), abs=1e-4)
    assert fit.history.loss[0] == pytest.approx(two_valleys({"x": fit.coords["start"]}), rel=1e-5)
    assert jf.best(grid).loss == grid.results.loss.min()


def test_the_best_of_a_refined_map_is_one_that_ran_or_none_is_named(grid, full):
    with pytest.raises(ValueError, match=r"best: at start=.* none of the members along learning_rate ran"):
        jf.best(grid, over="learning_rate")
    lines = refined(by="valley", measure={"valley": valley}, over="learning_rate")
    chosen = jf.best(lines, over="learning_rate").results
    assert chosen.evaluated.all() and lines.results.attrs["evaluated"] < 1
    for start, rate, loss in zip(chosen.start.values, chosen.learning_rate.values, chosen.loss.values, strict=True):
        assert full.results.loss.sel(start=start, learning_rate=rate) == loss


@pytest.mark.soak
def test_what_is_asked_of_all_lanes_of_a_refined_map_is_of_those_that_ran(grid):
    ended = grid.results.status != jf.Status.DIVERGED
    found, expected = jf.sharpness(grid), np.abs(12 * grid.results["params.x"] ** 2 - 4)
    np.testing.assert_allclose(found.where(ended), expected.where(ended), rtol=1e-4)


@pytest.mark.soak
def test_errors_of_a_refined_map_are_those_of_the_lanes_that_ran():
    x = np.linspace(1.0, 9.0, 9)
    start, stretch = jf.Axis("start", np.linspace(-1.0, 1.0, 17)), jf.Axis("x", np.arange(1.0, 10.0)[:, None] * x)
    model = jf.losses.mse(lambda params, x: params["w"] * x)
    optimizer = jf.optimizers.sgd(1e-4)
    grid = jf.refine(model, {"w": start}, (stretch, np.sin(x)), optimizer=optimizer, steps=50, depth=2, by="status")
    assert not grid.results.evaluated.all()
    errors, lanes = jf.standard_errors(grid)["params.w"], [jf.lane(grid, start=0.3, x=i) for i in range(9)]
    for i, lane in enumerate(lanes):
        expected = np.sqrt(9 / 8 * lane.loss / np.sum(lane.problem.data[0] ** 2))
        np.testing.assert_allclose(errors.sel(start=0.3, x=i, method="nearest"), expected, rtol=1e-5)
    assert len({lane.coords["x"] for lane in lanes}) > 1


def test_an_outcome_may_be_a_function_of_the_results(full):
    for by in (lambda results: results["params.x"] > 0, lambda results: results["history.loss"].isel(step=1) < 0.1):
        grid = refined(by=by, measure={"label": by})
        beside = mixed(grid.results.label.values, (0, 1))
        assert beside.any() and grid.results.evaluated.values[beside].all()
        assert grid.results.attrs["evaluated"] < 0.35
    np.testing.assert_array_equal(grid.results.loss.values[beside], full.results.loss.values[beside])


@pytest.mark.soak
def test_axes_over_parts_of_the_program_and_seeds_have_a_map_each():
    def start(*, x, key):
        del key
        return {"x": x}

    kinds = jf.Axis("kind", [jf.optimizers.sgd(RATE), jf.optimizers.adam(RATE)], labels=["sgd", "adam"])
    params = jf.Call(start, x=START, key=jf.Axis("seed", [1, 2]))
    grid = jf.refine(two_valleys, params, optimizer=kinds, steps=30, depth=3)
    assert grid.results.status.dims == ("start", "seed", "kind", "learning_rate")
    np.testing.assert_array_equal(grid.results.loss.isel(seed=0), grid.results.loss.isel(seed=1))
    fit = jf.lane(grid, start=0.5, seed=2, kind="adam", learning_rate=0.1)
    assert fit.coords["kind"] == "adam" and fit.coords["seed"] == 2 and "adam" in str(fit.optimizer)


def test_an_interrupted_map_is_kept_as_far_as_it_was_refined(full):
    count = []

    def stops(results):
        count.append(results.sizes["lane"])
        if len(count) == 3:
            raise KeyboardInterrupt
        return results.loss > 0

    with pytest.raises(jf.Interrupted, match=r"after \d+ lanes") as caught:
        refined(measure={"high": stops})
    results = caught.value.result.results
    assert int(results.evaluated.sum()) == sum(count[:2])
    ran = results.evaluated.values
    np.testing.assert_array_equal(results.loss.values[ran], full.results.loss.values[ran])
    count[:] = [0, 0]
    with pytest.raises(jf.Interrupted, match="before there was a map"):
        refined(measure={"high": stops})


def refuses(error, match, **options):
    with pytest.raises(error, match=match):
        refined(**options)


def test_what_cannot_be_refined_is_refused():
    refuses(ValueError, "depth is -1", depth=-1)
    refuses(ValueError, "depth is 1.5", depth=1.5)
    refuses(TypeError, r"no argument 'deep'; did you mean depth", deep=3)
    refuses(ValueError, "by='statos' .*did you mean status", by="statos")
    refuses(TypeError, "by gives float32 values.*compare or round", by="loss")
    refuses(TypeError, "by is 3", by=3)
    refuses(ValueError, r"by returned an array of shape \(\)", by=lambda results: True)
    refuses(ValueError, "fill is 'smooth'.*nearest.*linear", fill="smooth")
    refuses(TypeError, "measure is .*dictionary of functions", measure=[valley])
    refuses(ValueError, "measure: 'loss' is a variable", measure={"loss": valley})
    refuses(ValueError, "over='x' is no axis; it can be of start, learning_rate", over="x")
    with pytest.raises(ValueError, match="refine found no Axis"):
        jf.refine(two_valleys, {"x": 1.0}, optimizer=jf.optimizers.sgd(0.1))
    with pytest.raises(ValueError, match="axis name 'lane'"):
        jf.refine(two_valleys, {"x": jf.Axis("lane", STARTS)}, optimizer=jf.optimizers.sgd(0.1))
    pairs = jf.Axis("pair", np.ones((3, 2)))
    with pytest.raises(ValueError, match="none of the axes pair runs over plain numbers"):
        jf.refine(lambda p: jnp.sum(p**2), pairs, optimizer=jf.optimizers.sgd(0.1))
