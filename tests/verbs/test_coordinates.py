"""Where a value is found along an axis: that very value, a number within half a cell, or none."""

import numpy as np
import pytest

import jaxfit as jf
from jaxfit.problems.dimensions import by_factors, position


def at(axis, wanted, method="cell"):
    return position("lane", "a", np.asarray(axis), wanted, method)


@pytest.mark.parametrize("seed", range(4))
def test_within_half_the_distance_to_the_nearest_neighbor_a_value_is_found_and_beyond_it_is_not(seed):
    rng = np.random.default_rng(seed)
    differences = np.cumsum(rng.uniform(0.5, 1.0, 9)) - 4.0
    for axis in (differences, differences[::-1], rng.permutation(differences), differences.astype(np.float32)):
        for i, value in enumerate(axis):
            gap = np.abs(np.delete(axis, i) - value).min()
            assert at(axis, value) == at(axis, float(value)) == at(axis, np.asarray(value)) == i
            for side in (-1, 1):
                beside = value + side * gap * 0.49
                if axis.min() <= beside <= axis.max():
                    assert at(axis, beside) == i
                between = value + side * gap * 0.51
                free = np.abs(axis - between).min() > 0.501 * gap
                if axis.min() <= between <= axis.max() and free:
                    with pytest.raises(ValueError, match="is none of the axis' values, nor within half a cell of one"):
                        at(axis, between)


@pytest.mark.parametrize(
    "axis",
    [[1e-4, 1e-3], [1e-5, 1e-4, 1e-3], [1e-4, 1e-2], [1e-1, 1e-4, 1e-2], np.logspace(-4, 0, 5), [0.0, 1e-4, 1e-3]],
)
def test_a_rate_between_two_decades_is_refused_with_its_neighbors(axis):
    low, high = 1e-4, min(value for value in axis if value > 3e-4)
    with pytest.raises(ValueError, match=rf"a=0.0003 is none .* are {low} and {high}: pass one of them, or method="):
        at(axis, 3e-4)
    assert axis[at(axis, 3e-4, "nearest")] == 1e-4
    assert axis[at(axis, 1.2e-4)] == 1e-4
    with pytest.raises(ValueError, match="is none of the axis' values; its neighbors"):
        at(axis, 1.2e-4, "exact")
    assert axis[at(np.asarray(axis, np.float32), 1e-4, "exact")] == 1e-4


def test_negative_values_are_spaced_by_factors_as_their_mirror_images_are():
    axis = -np.logspace(-4, -1, 4)
    assert at(axis, -1.2e-4) == 0
    with pytest.raises(ValueError, match="neighbors there are -0.001 and -0.0001"):
        at(axis, -3e-4)


def test_even_steps_are_no_factors_and_leave_no_gap():
    for axis in (np.linspace(-1, 1, 9), np.linspace(0.1, 1.0, 10), [1, 2, 3], [1, 2]):
        assert not by_factors(np.asarray(axis, float))
        inside = np.random.default_rng(0).uniform(min(axis), max(axis), 50)
        assert [at(axis, w) for w in inside] == [int(np.argmin(np.abs(np.asarray(axis) - w))) for w in inside]


def test_outside_of_the_axis_is_an_error_also_for_the_nearest():
    for axis, extent in (([1.0, 2.0], "runs from 1.0 to 2.0"), ([1.5], "has one value, 1.5")):
        for wanted in (2.3, 0.4, -np.inf, np.inf, np.nan, 1.5e9):
            for method in ("cell", "nearest", "exact"):
                with pytest.raises(ValueError, match=rf"lies outside of the axis, which {extent}"):
                    at(axis, wanted, method)
    assert at([1.5], 1.5 + 1e-9) == 0 and at([1.0, np.inf], np.inf) == 1 and at([0.0, 1e-9, 1.0], 1e-9) == 1
    assert at(np.arange(-0.3, 0.05, 0.1), 0.0) == 3  # which holds 5.6e-17


def test_labels_are_found_by_what_they_are():
    assert at(["sgd", "adam"], "adam") == 1 and at([True, False], False) == 1
    with pytest.raises(
        ValueError, match=r"a='adma' is not on the axis; did you mean adam\? Its values are 'sgd', 'adam'"
    ):
        at(["sgd", "adam"], "adma")
    with pytest.raises(ValueError, match=r"a=1 is not on the axis\. Its values are True, False"):
        at([True, False], 1)
    with pytest.raises(ValueError, match=r"a='0.1' is not on the axis.* Its values are 0.1, 0.2"):
        at([0.1, 0.2], "0.1")
    with pytest.raises(ValueError, match="'l7', and 12 more"):
        at([f"l{i}" for i in range(20)], "x")
    with pytest.raises(TypeError, match="a lane is at one value of every axis"):
        at([0.1, 0.2], [0.1, 0.2])


def bowl(params):
    return params["w"] ** 2


@pytest.mark.soak
def test_lane_finds_labels_of_several_kinds_a_dimension_named_method_and_nothing_between():
    labels = [(1, 2), "one", 1, (2, 1)]
    start = {"w": jf.Axis("method", [1.0, 2.0])}
    rate = jf.Axis("rate", [0.1, 0.2, 0.3, 0.4], labels=labels)
    grid = jf.sweep(bowl, start, optimizer=jf.optimizers.sgd(rate), steps=1)
    for i, label in enumerate(labels):
        assert jf.lane(grid, method=2.0, rate=label).loss == grid.results.loss.values[1, i]
    with pytest.raises(ValueError, match="method is missing"):
        jf.lane(grid, rate=1)

    rates = jf.optimizers.sgd(jf.Axis("rate", [1e-2, 1e-4, 1e-3]))
    grid = jf.sweep(bowl, {"w": 1.0}, optimizer=rates, steps=1)
    with pytest.raises(ValueError, match="neighbors there are 0.0001 and 0.001: pass one of them, or method='nearest'"):
        jf.lane(grid, rate=3e-4)
    assert jf.lane(grid, rate=3e-4, method="nearest").coords == {"rate": 1e-4}
    with pytest.raises(ValueError, match="method is 'linear', but it is \"nearest\", or left out"):
        jf.lane(grid, rate=1e-4, method="linear")
    with pytest.raises(ValueError, match="over names no dimension; name some of rate, or leave it out for all"):
        jf.best(grid, over=())


def test_lanes_and_records_become_tables_of_pandas():
    x = np.linspace(0, 1, 8)
    loss, rates = jf.losses.mse(jf.models.line), jf.optimizers.sgd(jf.Axis("rate", [0.1, 9.0]))
    grid = jf.sweep(loss, {"w": jf.Axis("w0", [0.0, 1.0, 2.0]), "b": 0.0}, (x, 2 * x), optimizer=rates, steps=3)
    table = grid.to_dataframe()
    assert table.index.names == ["w0", "rate"] and list(table) == ["loss", "steps", "status", "params.b", "params.w"]
    for (w0, rate), row in table.iterrows():
        one = grid.results.sel(w0=w0, rate=rate)
        assert row["loss"] == one.loss and row["params.w"] == one["params.w"]
        assert row["status"] == jf.Status(int(one.status)).name
    record = jf.Record(what=("loss", "params"))
    run = jf.fit(loss, {"w": 1.0, "b": 0.0}, (x, 2 * x), optimizer=jf.optimizers.sgd(0.1), steps=3, record=record)
    told = run.history.to_dataframe()
    assert list(told) == ["loss", "params.b", "params.w"] and told.index.name == "step"
    np.testing.assert_array_equal(told["params.w"], run.history.params["w"])


def test_text_names_the_values_of_an_axis_whose_other_leaves_are_numbers():
    def init(kind, width):
        return {"narrow": 1.0, "wide": 2.0}[kind] + width

    call = jf.Call(init, kind=jf.Axis("shape", ["narrow", "wide"]), width=jf.Axis("shape", [0.5, 0.25]))
    results = jf.sweep(lambda p: p**2, call, optimizer=jf.optimizers.sgd(0.5), steps=1).results
    assert results["shape"].values.tolist() == ["narrow", "wide"]
    assert results["start.width"].values.tolist() == [0.5, 0.25]
    assert results.params.sel(shape="wide") == 0


def test_a_number_names_a_label_only_on_an_axis_that_has_none_among_numbers():
    texts, mixed = np.array(["0.5", "1.0"]), np.array(["None", "0.5"])
    with pytest.raises(ValueError, match="m=0.5 is not on the axis. Its values are '0.5', '1.0'"):
        position("lane", "m", texts, 0.5)
    assert position("lane", "m", texts, "0.5") == 0
    assert [position("lane", "m", mixed, wanted) for wanted in (None, 0.5, "0.5")] == [0, 1, 1]
