"""Patience: when a run stops early, which params it keeps, and that lanes, stores and checkpoints keep the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.loops import begin
from tests.shared.soak import soaking

RATE, START = 0.05, {"a": 0.0, "b": 0.0, "c": 0.0}


def parabola(params, x):
    return params["a"] + params["b"] * x + params["c"] * x**2


LOSS = jf.losses.mse(parabola)


def draws(seed):
    """Six points to train on and six to validate: few enough that training on goes wrong."""
    rng = np.random.default_rng(seed)
    x, held = rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 6)
    return (x, x + 0.5 * rng.normal(size=6)), (held, held + 0.5 * rng.normal(size=6))


def options(patience, every, steps, validation):
    return dict(
        optimizer=jf.optimizers.sgd(RATE), steps=steps, stop=jf.Stop(patience=patience), validation=validation,
        record=jf.Record(every=every, what=("loss", "validation_loss")), precision="float64",
    )  # fmt: skip


def by_hand(train, held, rate, steps, patience, every):
    """The steps, the status and the best (step, validation loss, params) of gradient descent in plain NumPy."""
    rows, y = np.vander(train[0], 3, increasing=True), train[1]
    p, best, stale = np.zeros(3), (0, np.inf, np.zeros(3)), 0
    for t in range(steps + 1):
        value = np.mean((np.vander(held[0], 3, increasing=True) @ p - held[1]) ** 2)
        if value < best[1] and (t % every == 0 or t == steps):
            best, stale = (t, value, p), 0
        elif t % every == 0:
            stale += 1
        if stale >= patience:
            return t, jf.Status.STOPPED_EARLY, best
        if t == steps:
            return t, jf.Status.OUT_OF_STEPS, best
        p = p - rate * 2 / len(y) * rows.T @ (rows @ p - y)


@pytest.mark.parametrize("every", [1, 7])
def test_a_run_stops_where_the_plain_loop_does_and_keeps_its_best_params(every):
    stopped = 0
    for seed in range(6):
        train, held = draws(seed)
        patience, steps = 1 + seed % 4, (40, 600, 1501)[seed % 3]
        fit = jf.fit(LOSS, START, train, **options(patience, every, steps, held))
        made, status, (step, value, params) = by_hand(train, held, RATE, steps, patience, every)
        assert (fit.steps, fit.status, fit.best_step) == (made, status, step)
        np.testing.assert_allclose(fit.best_validation_loss, value, rtol=1e-10)
        np.testing.assert_allclose([fit.best_params[k] for k in "abc"], params, rtol=1e-8, atol=1e-12)
        stopped += status == jf.Status.STOPPED_EARLY
    assert stopped >= 3


BOUNDED = {"a": 0.0, "b": jf.Bounded(0.0, high=0.9), "c": jf.Fixed(0.1)}
RATES = [0.05, 0.02, 0.2, 1e-4]


def swept(given, train, **more):
    rate = jf.Axis("rate", RATES)
    return jf.sweep(LOSS, BOUNDED, train, **given | {"optimizer": jf.optimizers.sgd(rate)}, **more)


@pytest.mark.parametrize("steps", soaking([60, 1400], keep=(60,)))  # the lanes end in the first chunk, or later
def test_lanes_stop_where_single_fits_do(steps):
    train, held = draws(1)
    given = options(3, 7, steps, held)
    grid = swept(given, train)
    for rate in RATES:
        lane = jf.lane(grid, rate=rate)
        fit = jf.fit(LOSS, BOUNDED, train, **given | {"optimizer": jf.optimizers.sgd(rate)})
        assert (lane.steps, lane.status, lane.best_step) == (fit.steps, fit.status, fit.best_step)
        for ours, alone in zip(jax.tree.leaves(lane.best_params), jax.tree.leaves(fit.best_params), strict=True):
            np.testing.assert_allclose(ours, alone, rtol=1e-9)
    assert len(set(grid.results.status.values)) == 2


@pytest.mark.soak
@pytest.mark.parametrize("steps", [60, 1400])
def test_stores_keep_the_best_params_of_their_lanes(steps, tmp_path):
    train, held = draws(1)
    given = options(3, 7, steps, held)
    grid = swept(given, train)
    jf.verify(grid, sample=1)  # whose own fits count records as the lanes do
    kept = swept(given, train, store=tmp_path / "store")
    names = ["best_validation_loss", "best_step", "best_params.a", "best_params.b", "best_params.c"]
    for found in (kept, jf.open(tmp_path / "store")):
        results = getattr(found, "results", found)
        assert all(results[name].equals(grid.results[name]) for name in names)
    assert jf.best(kept, by="best_validation_loss").best_params == jf.best(grid, by="best_validation_loss").best_params


@pytest.mark.soak
def test_a_checkpoint_and_a_run_inside_of_jit_keep_the_same_best_params(tmp_path):
    train, held = draws(0)
    given = options(3, 7, 600, held) | {"precision": "float32"}
    fit = jf.fit(LOSS, START, train, **given)
    kept = [jf.fit(LOSS, START, train, checkpoint=tmp_path / "run", **given) for _ in range(2)]
    traced = jax.jit(lambda rate: jf.fit(LOSS, START, train, **given | {"optimizer": jf.optimizers.sgd(rate)}))(RATE)
    for other in (*kept, traced):
        assert (other.steps, other.status, other.best_step) == (fit.steps, fit.status, fit.best_step)
        np.testing.assert_allclose(
            [other.best_params[k] for k in "abc"], [fit.best_params[k] for k in "abc"], rtol=1e-5
        )
    assert fit.status == jf.Status.STOPPED_EARLY


def test_a_stopped_run_says_for_how_long_and_where_it_was_best():
    train, held = draws(0)
    text = str(fit := jf.fit(LOSS, START, train, **options(3, 7, 600, held)))
    assert text.startswith("stopped early: ") and "in 3 records, one every 7 steps," in text
    assert f"step {fit.best_step:,}" in text and "best_params" in text and f"{fit.best_validation_loss:.6g}" in text
    with pytest.raises(jf.NotConverged):
        jf.require_converged(fit)


@pytest.mark.soak
def test_without_patience_nothing_is_kept():
    train, held = draws(1)
    given = options(3, 1, 5, held) | {"stop": jf.Stop()}
    fit, grid = (
        jf.fit(LOSS, START, train, **given),
        jf.sweep(LOSS, START | {"a": jf.Axis("a", [0.0, 1.0])}, train, **given),
    )
    assert fit.best_params is fit.best_step is fit.best_validation_loss is None and begin(fit.training).best is None
    assert not [name for name in grid.results if "best" in str(name)]


def test_a_validation_loss_that_is_never_a_number_is_a_failed_run():
    train, (x, y) = draws(1)
    loss = jf.losses.mse(parabola, masked=True)
    where = jf.Axis("where", np.array([[True] * 6, [False] * 6]))
    grid = jf.sweep(
        loss, START, (*train, np.ones(6, bool)), optimizer=jf.optimizers.sgd(RATE), steps=50,
        stop=jf.Stop(patience=5), validation=(x, y, where),
    )  # fmt: skip
    assert grid.results.status.values[1] == jf.Status.NOT_FINITE and np.isnan(grid.results.best_validation_loss[1])
    assert "validation loss" in str(jf.lane(grid, where=1))
    assert jf.best(grid, by="validation_loss").coords["where"] == 0


@pytest.mark.soak
def test_the_best_member_is_chosen_by_any_recorded_number():
    train, _ = draws(1)

    def accuracy(params, x, y):
        return jnp.mean((parabola(params, x) > 0) == (y > 0))

    rates = [1e-3, 0.5, 0.05]
    grid = jf.sweep(
        LOSS, START, train, optimizer=jf.optimizers.sgd(jf.Axis("rate", rates)), steps=50,
        record=jf.Record(every=7, what=(accuracy, "gradient_norm")),
    )  # fmt: skip
    last = {name: grid.results[f"history.{name}"].values[:, 7] for name in ("accuracy", "gradient_norm")}
    assert jf.best(grid, by="gradient_norm").coords["rate"] == rates[np.argmin(last["gradient_norm"])]
    assert jf.best(grid, by="accuracy", highest=True).coords["rate"] == rates[np.argmax(last["accuracy"])]
    assert jf.best(grid, by="history.gradient_norm").coords["rate"] == rates[np.argmin(last["gradient_norm"])]
    with pytest.raises(ValueError, match="'loos' is not one number for each lane; there are .*accuracy, gradient_norm"):
        jf.best(grid, by="loos")


@pytest.mark.soak
def test_a_run_that_patience_stops_above_its_start_has_diverged():
    """Gradient descent far beyond its limit: the validation loss rises from the start, and so does the loss."""
    train, held = draws(0)
    given = options(3, 1, 100, held)
    fit = jf.fit(LOSS, START, train, **given | {"optimizer": jf.optimizers.sgd(2.0)})
    assert fit.status == jf.Status.DIVERGED and fit.steps < 10 and fit.loss > fit.history.loss[0]
    assert fit.best_step == 0 and fit.best_params == START
    grid = jf.sweep(LOSS, START, train, **given | {"optimizer": jf.optimizers.sgd(jf.Axis("rate", [RATE, 2.0]))})
    assert list(grid.results.status) == [jf.Status.STOPPED_EARLY, jf.Status.DIVERGED]
