"""Fewer points than params: Levenberg-Marquardt goes through the points, stays near its start, and claims no more."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

LM, Status = jf.optimizers.levenberg_marquardt, jf.Status
RSS = jf.losses.rss
X, Y = np.array([0.0, 2.0]), np.array([3.0, 1.0])
START = {"a": 2.0, "t": 3.0, "c": 0.5}


def decay(params, x):
    return params["a"] * jnp.exp(-x / params["t"]) + params["c"]


def linear(w, x):
    return x @ w


def fit(params, data=(X, Y), predict=decay, **options):
    return jf.fit(RSS(predict), params, data, **{"optimizer": LM(), "steps": 100} | options)


MARKED = {
    "plain": (START, 2),
    "one point": (START, 1),
    "fixed": (START | {"c": jf.Fixed(0.5)}, 1),
    "bounded": (START | {"c": jf.Bounded(0.5, 0.4, 0.6)}, 2),
    "bounded from below": (START | {"t": jf.Bounded(3.0, low=0.0)}, 2),
    "tied": ({"a": 2.0, "t": 3.0, "c": jf.Tied(lambda p: p["a"] / 4)}, 1),
}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", soaking(MARKED, keep=("plain", "one point", "bounded")))
def test_the_points_are_met_and_the_params_left_open(case, precision):
    params, count = MARKED[case]
    run = fit(params, (X[:count], Y[:count]), precision=precision)
    found = {k: np.float64(v) for k, v in run.params.items()}
    assert run.status == Status.NOT_DETERMINED and run.steps < 30
    np.testing.assert_allclose(decay(found, X[:count]), Y[:count], rtol=64 * np.finfo(precision).eps)


def test_a_bound_that_is_active_may_leave_the_rest_determined():
    """With t at its bound and c at its own, a alone is free: the least squares of two points by one param."""
    params = {"a": 2.0, "t": jf.Bounded(3.0, 2.5, 9.0), "c": jf.Bounded(0.95, 0.9, 3.0)}
    run = fit(params)
    shape = np.exp(-X / 2.5)
    assert run.status == Status.CONVERGED and (run.params["t"], run.params["c"]) == (2.5, 0.9)
    np.testing.assert_allclose(run.params["a"], shape @ (Y - 0.9) / (shape @ shape), rtol=1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("shape", soaking([(1, 2), (2, 6), (4, 7), (5, 12)], keep=((2, 6),)))
def test_a_linear_fit_is_the_nearest_in_units_of_its_columns(shape, precision):
    """The damping makes the step the solution of least norm, as NumPy's pseudoinverse has it."""
    (points, count), eps = shape, np.finfo(precision).eps
    rng = np.random.default_rng(count)
    matrix, y, start = rng.normal(size=(points, count)), rng.normal(size=points), rng.normal(size=count)
    run = fit(start, (matrix, y), linear, optimizer=LM(damping=float(eps)), precision=precision)
    units = np.linalg.norm(matrix, axis=0)
    nearest = start - np.linalg.pinv(matrix / units) @ (matrix @ start - y) / units
    assert run.status == Status.NOT_DETERMINED
    np.testing.assert_allclose(run.params, nearest, rtol=1e4 * eps, atol=1e4 * eps)


@pytest.mark.parametrize("precision", soaking(["float64", "float32"], keep=("float32",)))
def test_columns_that_are_all_but_parallel_end_too(precision):
    matrix = np.vander(np.linspace(1, 1.01, 4), 12)  # the points differ by 1 %, their powers hardly
    run = fit(np.zeros(12), (matrix, np.arange(4.0)), linear, precision=precision)
    assert run.status == Status.NOT_DETERMINED
    assert run.loss < 1e3 * np.finfo(precision).eps ** 2 * np.sum((matrix * np.asarray(run.params)) ** 2)


@pytest.mark.soak
def test_lanes_end_as_they_do_alone():
    sets, levels = np.array([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]]), [0.1, 1.0]
    data = (X, jf.Axis("set", sets))
    grid = jf.sweep(RSS(decay), START | {"c": jf.Axis("c", levels)}, data, optimizer=LM(), steps=100).results
    assert (grid.status == Status.NOT_DETERMINED).all() and (grid.loss < 1e-28).all()
    for i, level in enumerate(levels):
        for j, y in enumerate(sets):
            alone = fit(START | {"c": level}, (X, y))
            found = grid.isel(c=i, set=j)
            assert found.status == alone.status
            # one param of the solution is zero but for rounding (4e-16), which has no relative error
            np.testing.assert_allclose(
                [found[f"params.{k}"] for k in START], [alone.params[k] for k in START], rtol=1e-9, atol=1e-14
            )


def test_points_that_do_not_count_are_no_points():
    where, x = np.arange(5) < 2, np.arange(5.0)
    run = jf.fit(jf.losses.rss(decay, masked=True), START, (x, x + 1, where), optimizer=LM())
    assert run.status == Status.NOT_DETERMINED
    np.testing.assert_allclose(decay({k: np.float64(v) for k, v in run.params.items()}, x[:2]), [1.0, 2.0], rtol=1e-13)


def test_no_error_is_told_and_the_report_says_why():
    run = fit(START)
    assert all(np.isnan(error) for error in jf.standard_errors(run).values())
    for text in (str(run), str(jf.report(run))):
        assert "3 params are fitted to 2 points: underdetermined, others fit as well" in text
    assert "not determined" in str(jf.explain(run)) and "no errors" in str(jf.report(run))


def test_a_loss_of_nothing_ends_the_run():
    """Data that are all zero: the height comes down to zero, where the time says nothing."""

    def peak(params, x):
        return params["a"] * jnp.exp(-x / params["t"])

    run = fit({"a": 1.0, "t": 2.0}, (np.arange(1.0, 9), np.zeros(8)), peak)
    assert run.status == Status.NOT_DETERMINED and run.loss == 0 and run.steps < 40
