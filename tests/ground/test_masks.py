"""Masks under which no row counts: such a lane has failed, whatever the loss, the method and the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

X = np.linspace(0, 1, 8)
Y, LABELS = 2 * X + 1, (X > 0.5).astype(np.int32)
MASKS = np.array([[True] * 8, [False] * 8, [True] * 5 + [False] * 3])
START = {"w": 0.0, "b": 0.0}


def line(params, x):
    return params["w"] * x + params["b"]


def logits(params, x):
    return jnp.stack([params["w"] * x, params["b"] - x], axis=1)


LOSSES = {
    "mse": (jf.losses.mse(line, masked=True), (X, Y)),
    "rss": (jf.losses.rss(line, masked=True), (X, Y)),
    "mae": (jf.losses.mae(line, masked=True), (X, Y)),
    "huber": (jf.losses.huber(line, delta=0.5, masked=True), (X, Y)),
    "chi squared": (jf.losses.chi_squared(line, masked=True), (X, Y, np.full(8, 0.1))),
    "covariance": (jf.losses.chi_squared(line, masked=True), (X, Y, 0.01 * np.eye(8))),
    "cross entropy": (jf.losses.softmax_cross_entropy(logits, masked=True), (X, LABELS)),
    "with a penalty": (jf.losses.mse(line, masked=True) + jf.losses.l2(0.1), (X, Y)),
    "with noise": (jf.losses.input_noise(jf.losses.mse(line, masked=True), scale=0.1), (X, Y)),
}


@pytest.mark.parametrize("name", soaking(LOSSES, but=("huber", "chi squared")))
def test_a_loss_without_data_is_not_a_number_and_with_some_is_that_of_those_rows(name):
    loss, data = LOSSES[name]
    given = {"key": jax.random.key(0)} if name == "with noise" else {}
    values = np.asarray(jax.jit(jax.vmap(lambda where: loss(START | {"w": 0.5}, *data, where, **given)))(MASKS))
    assert np.isnan(values[1]) and np.isfinite(values[[0, 2]]).all()
    if name not in ("covariance", "with noise"):
        few = jax.jit(loss)(START | {"w": 0.5}, *(x[:5] for x in data), np.ones(5, bool))
        np.testing.assert_allclose(values[2], few, rtol=1e-6)


RUNS = {
    "adam and a rule": {"optimizer": jf.optimizers.adam(0.1), "stop": jf.Stop(gradient_norm_below=1e-3)},
    "no rule": {"optimizer": jf.optimizers.sgd(0.1)},
    "batches and rules": {
        "optimizer": jf.optimizers.sgd(0.1), "batches": jf.Batches(3), "key": 0,
        "stop": jf.Stop(gradient_norm_below=1e-3, loss_below=1e-9),
    },
    "levenberg_marquardt": {"optimizer": jf.optimizers.levenberg_marquardt()},
    "lbfgs": {"optimizer": jf.optimizers.lbfgs()},
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(RUNS, keep=("adam and a rule",)))
def test_a_lane_without_data_has_failed_and_is_never_the_best(name):
    loss, data = LOSSES["mse"]
    grid = jf.sweep(loss, START, (*data, jf.Axis("where", MASKS)), steps=50, **RUNS[name])
    status, losses = grid.results.status.values, grid.results.loss.values
    assert status[1] == jf.Status.NOT_FINITE and np.isnan(losses[1]) and np.isfinite(losses[[0, 2]]).all()
    assert jf.Status.NOT_FINITE not in status[[0, 2]] and jf.best(grid).coords["where"] != 1
    empty = jf.lane(grid, where=1)
    assert str(empty).startswith("not finite: the loss is not a number: where is False everywhere")
    assert jf.explain(empty).kind == "no data"


def test_a_fit_without_data_is_refused_and_inside_of_jit_has_failed():
    loss, data = LOSSES["mse"]
    with pytest.raises(ValueError, match="False everywhere"):
        jf.fit(loss, START, (*data, MASKS[1]), optimizer=jf.optimizers.sgd(0.1))
    fit = jax.jit(lambda where: jf.fit(loss, START, (*data, where), optimizer=jf.optimizers.sgd(0.1), steps=5))(
        MASKS[1]
    )
    assert fit.status == jf.Status.NOT_FINITE and np.isnan(fit.loss)


@pytest.mark.parametrize("replace", soaking([True, False], keep=(False,)))
def test_batches_of_rows_that_seldom_count_see_data_in_every_step(replace):
    where = np.zeros(50, bool)
    where[[7, 30]] = True
    x = np.linspace(0, 1, 50)
    fit = jf.fit(
        LOSSES["mse"][0], START, (x, 3 - x, where), optimizer=jf.optimizers.sgd(0.5), steps=3000,
        batches=jf.Batches(2, replace=replace), key=1, precision="float64",
    )  # fmt: skip
    assert (fit.history.loss[:60] > 0).all()  # a batch without data would have none
    assert fit.loss < 1e-9


@pytest.mark.parametrize("mask", soaking(["shared", "own", "another axis"], but=("shared",)))
@pytest.mark.parametrize("sets", soaking([3, 5], keep=(5,)))  # as many as points
def test_swept_data_may_be_broken_where_no_mask_counts_them(sets, mask):
    x, rng = np.arange(5.0), np.random.default_rng(0)
    y, sigma = 1 + 2 * x + rng.normal(0, 0.1, (sets, 5)), np.ones((sets, 5))
    out = np.zeros((sets, 5), bool)
    out[:, 2] = True  # in any case
    if mask == "own":
        out[np.arange(sets), rng.integers(0, 5, sets)] = True
    y[out], sigma[out] = np.nan, 0
    where = {"shared": ~out[0], "own": jf.Axis("set", ~out), "another axis": jf.Axis("mask", ~out[:2])}[mask]
    loss = jf.losses.chi_squared(jf.models.line, masked=True)
    descent = {"optimizer": jf.optimizers.momentum(0.01, 0.8), "steps": 600, "precision": "float64"}
    method = descent if sets == 5 else {"optimizer": jf.optimizers.levenberg_marquardt(), "steps": 20}

    def run():
        data = (x, jf.Axis("set", y), jf.Axis("set", sigma), where)
        return jf.sweep(loss, START, data, **method)

    slopes = run().results["params.w"].values.reshape(sets, -1)[:, 0]
    expected = [np.polyfit(x[~gone], row[~gone], 1)[0] for row, gone in zip(y, out, strict=True)]
    np.testing.assert_allclose(slopes, expected, rtol=1e-8)
    y[1, np.flatnonzero(~out[1])[0]] = np.inf
    with pytest.raises(ValueError, match=rf"\(y\) has 1 of {5 * sets} values that are not finite"):
        run()


def test_a_mask_on_the_axis_of_the_data_has_as_many_values():
    data = X, jf.Axis("set", np.ones((4, 8))), jf.Axis("set", MASKS)
    with pytest.raises(ValueError, match="different lengths"):
        jf.sweep(LOSSES["mse"][0], START, data, optimizer=jf.optimizers.levenberg_marquardt(), steps=5)


@pytest.fixture(scope="module")
def covariance():
    """A covariance of all rows, of which row 3 means nothing."""
    factor = np.random.default_rng(0).normal(size=(8, 8))
    matrix = 0.02 * factor @ factor.T + 0.05 * np.eye(8)
    matrix[3] = matrix[:, 3] = np.nan
    return matrix


def generalized_least_squares(matrix, mask):
    design = np.stack([X, np.ones(8)], axis=1)[mask]
    weights = np.linalg.inv(matrix[np.ix_(mask, mask)])
    return np.linalg.solve(design.T @ weights @ design, design.T @ weights @ NOISY[mask])


NOISY = Y + np.random.default_rng(1).normal(size=8)
COUNTED = np.array([[i != 3 for i in range(8)], [i not in (3, 5) for i in range(8)]])


def test_rows_of_a_covariance_under_the_mask_do_not_count(covariance):
    loss = jf.losses.chi_squared(line, masked=True)
    fit = jf.fit(loss, START, (X, NOISY, covariance, COUNTED[0]), optimizer=jf.optimizers.levenberg_marquardt())
    expected = generalized_least_squares(covariance, COUNTED[0])
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], expected, rtol=1e-9)
    broken = np.where(np.isnan(covariance), 0, covariance)
    with pytest.raises(ValueError, match="not positive definite"):  # in the second lane, which counts row 3
        masks = jf.Axis("mask", [COUNTED[1], np.arange(8) < 4])
        jf.sweep(loss, START, (X, NOISY, broken, masks), optimizer=jf.optimizers.levenberg_marquardt())


@pytest.mark.soak
def test_each_lane_takes_its_own_rows_of_one_covariance(covariance):
    loss, masks = jf.losses.chi_squared(line, masked=True), jf.Axis("mask", COUNTED)
    method = jf.optimizers.levenberg_marquardt()
    for matrix in (covariance, np.where(np.isnan(covariance), 0, covariance)):
        grid = jf.sweep(loss, START, (X, NOISY, matrix, masks), optimizer=method).results
        for i, mask in enumerate(COUNTED):
            expected = generalized_least_squares(covariance, mask)
            np.testing.assert_allclose([grid["params.w"][i], grid["params.b"][i]], expected, rtol=1e-9)
