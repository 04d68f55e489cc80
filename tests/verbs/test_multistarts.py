"""Starts between bounds, and the table of optima they lead to, on problems whose minima are known."""

import jax
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.verbs.multistarts import met

BOX = {"x": jf.Bounded(0.0, low=-5.0, high=5.0), "y": jf.Bounded(0.0, low=-5.0, high=5.0)}
MINIMA = np.array([[-3.779310, -3.283186], [-2.805118, 3.131312], [3.0, 2.0], [3.584428, -1.848127]])


def himmelblau(p):
    """Two residuals that vanish together at four points: Himmelblau (1972), Applied Nonlinear Programming."""
    return jax.numpy.stack([p["x"] ** 2 + p["y"] - 11, p["x"] + p["y"] ** 2 - 7])


@pytest.fixture(scope="module")
def grid():
    starts = jf.starts(BOX, 64, key=0)
    return jf.sweep(
        jf.losses.least_squares(himmelblau), starts, optimizer=jf.optimizers.levenberg_marquardt(), steps=99
    )


def test_every_start_has_its_own_part_of_every_range_and_the_parts_are_paired_at_random():
    drawn = jf.starts(BOX | {"v": jf.Bounded(np.ones(2), low=[0.5, 1.0], high=1e4)}, 64, key=3)
    values = np.concatenate([np.stack([drawn[n].value.values for n in "xy"], 1), drawn["v"].value.values], axis=1)
    low, high = np.array([-5, -5, 0.5, 1.0]), np.array([5, 5, 1e4, 1e4])
    parts = np.floor((values - low) / (high - low) * 64)
    np.testing.assert_array_equal(np.sort(parts, axis=0), np.arange(64)[:, None] * np.ones(4))
    assert np.abs(np.corrcoef(parts.T) - np.eye(4)).max() < 0.5  # 0.14 is one deviation
    once, again, other = (jf.starts(BOX, 50, key=k)["x"].value.values for k in (3, 3, 4))
    assert (once == again).all() and (once != other).all()


def test_parts_of_equal_ratio_where_it_is_asked_for():
    params = {"rate": jf.Bounded(1.0, low=1e-3, high=1e3), "shift": jf.Bounded(1.0, low=-1, high=1), "c": jf.Fixed(2.0)}
    drawn = jf.starts(params, 64, key=0, log=["rate"])
    decades = np.log10(drawn["rate"].value.values)
    np.testing.assert_array_equal(np.sort(np.floor((decades + 3) / 6 * 64)), np.arange(64))
    assert drawn["c"] is params["c"] and drawn["shift"].value.values.min() < 0
    with pytest.raises(ValueError, match="'shift' has low=-1, but log needs positive bounds"):
        jf.starts(params, key=0, log=True)


def test_the_starts_find_the_four_known_minima_and_the_table_counts_them(grid):
    table = jf.optima(grid)
    assert len(table) == 4 and table.count.sum() == 64 and table.failed == table.unfinished == 0
    found = np.stack([table.params["x"], table.params["y"]], axis=1)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], MINIMA, atol=1e-5)
    ends = np.stack([grid.results["params.x"], grid.results["params.y"]], axis=1)
    near = np.linalg.norm(ends[:, None] - found[None], axis=2) < 0.01
    np.testing.assert_array_equal(table.count, near.sum(0))
    assert "4 optima from 64 starts\n" in str(table) and "3.5844" in str(table)
    np.testing.assert_allclose(jf.best(grid).loss, table.loss[0])


def test_by_the_loss_alone_minima_of_one_height_are_one(grid):
    table = jf.optima(grid, by="loss")
    assert len(table) == 1 and table.count.tolist() == [64] and "1 optimum from 64 starts" in str(table)


def test_the_report_of_a_sweep_over_starts_is_of_its_best_and_says_how_many_met_it(grid):
    report = jf.report(grid)
    found = np.array([row.value for row in report.rows])
    ends = np.stack([grid.results["params.x"], grid.results["params.y"]], axis=1)
    near = (np.linalg.norm(ends - found, axis=1) < 0.01).sum()
    rounding = 2 * (16 * np.finfo(float).eps) ** 2  # of two residuals, differences of numbers near 11, at their zeros
    assert abs(grid.results.loss.min() - report.goodness.chi_squared) <= rounding and 0 < near < 64
    text = f"64 of 64 found this loss, {near} of them with these params, the only loss"
    assert report.facts["starts"] == text and f"starts  {text}" in str(report)
    assert all(text in page for page in (report.to_json(), report.to_markdown(), report._repr_html_()))


@pytest.mark.soak
def test_minima_of_different_heights_come_in_their_order():
    start = jf.starts({"x": jf.Bounded(0.0, low=-3, high=7)}, 32, key=1)
    loss, rate = (lambda p: -jax.numpy.cos(p["x"]) + 0.05 * p["x"] ** 2), jf.optimizers.sgd(jf.Axis("rate", [0.2, 0.1]))
    many = jf.sweep(loss, start, optimizer=rate, steps=300)
    assert jf.optima(many).count.sum() == 64
    grid = jf.best(many, over="rate")
    table, meeting = jf.optima(grid), met("report", grid)
    first, second = table.count
    assert meeting.fit.loss == table.loss[0] and not meeting.alone and meeting.lanes == "runs"
    assert meeting.text == (
        f"{first} of 32 found this optimum, the lowest of 2; the next has a loss of {table.loss[1]:.6g}; "
        f"32 ran out of steps"
    )
    assert second == (np.abs(grid.results["params.x"] - table.params["x"][1]) < 0.1).sum()
    assert grid.results.loss.values.ravel().min() == table.loss[0]
    assert len(table) == 2 and table.params["x"][0] == pytest.approx(0, abs=1e-5)
    assert 5 < table.params["x"][1] < 6 and table.loss[0] < table.loss[1] and table.unfinished == 32


def test_starts_that_fail_are_counted_apart():
    start = jf.starts({"x": jf.Bounded(1.0, low=-1, high=1)}, 16, key=0)
    grid = jf.sweep(lambda p: jax.numpy.sqrt(p["x"]) + p["x"], start, optimizer=jf.optimizers.sgd(1e-4), steps=3)
    table = jf.optima(grid)
    assert table.failed == 8 and table.count.sum() == 8 and "8 failed" in str(table)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jf.starts({"x": 2.0}, key=0), ValueError, r"'x' is free \(2.0\), but starts are drawn between bounds"),
        (
            lambda: jf.starts({"x": jf.Bounded(1.0, low=0.0)}, key=0),
            ValueError,
            "'x' has no high; .* two finite bounds",
        ),
        (lambda: jf.starts({"x": jf.Axis("a", [1.0])}, key=0), ValueError, "'x' is Axis.*, but starts are drawn"),
        (lambda: jf.starts(jf.starts(BOX, key=0), key=0), ValueError, "'x' has an Axis already"),
        (lambda: jf.starts({"x": jf.Fixed(2.0)}, key=0), ValueError, "nothing to draw"),
        (lambda: jf.starts(BOX, 0, key=0), ValueError, "count is 0"),
        (lambda: jf.starts(BOX, key=0, log="z"), ValueError, "log names 'z', but the params are 'x', 'y'"),
        (lambda: jf.starts(BOX, seed=0), TypeError, "starts has no argument 'seed'"),
        (lambda: jf.optima(3), TypeError, "optima takes the grid of a sweep"),
    ],
)
def test_bad_arguments_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.soak
def test_a_sweep_over_data_sets_has_no_common_optima(grid):
    with pytest.raises(ValueError, match="by is 'x'"):
        jf.optima(grid, by="x")
    with pytest.raises(ValueError, match="tolerance is 0"):
        jf.optima(grid, tolerance=0)
    y = jf.Axis("set", np.ones((2, 3)))
    many = jf.sweep(lambda p, y: jax.numpy.sum((p - y) ** 2), 0.0, (y,), optimizer=jf.optimizers.sgd(0.1), steps=2)
    with pytest.raises(ValueError, match="different data"):
        jf.optima(many)
    with pytest.raises(ValueError, match=r"different data.*take one, jf\.report\(jf\.lane\(grid, \.\.\.\)\)"):
        jf.report(many)
    losses = jf.Axis("kind", [lambda p: jax.numpy.sum(p**2), lambda p: jax.numpy.sum(p**4)])
    with pytest.raises(ValueError, match="different data, losses"):
        jf.optima(jf.sweep(losses, jf.Axis("p", [1.0, 2.0]), optimizer=jf.optimizers.sgd(0.1), steps=2))


def test_the_optima_of_a_stored_sweep_are_those_of_the_sweep(tmp_path):
    start = jf.starts({"x": jf.Bounded(0.0, low=-2.0, high=2.0)}, count=8, key=0)
    loss = lambda p: (p["x"] ** 2 - 1) ** 2  # noqa: E731
    settings = {"optimizer": jf.optimizers.sgd(0.05), "steps": 100}
    assert repr(jf.optima(jf.sweep(loss, start, store=tmp_path / "s", **settings))) == repr(
        jf.optima(jf.sweep(loss, start, **settings))
    )
