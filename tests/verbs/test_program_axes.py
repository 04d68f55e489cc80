"""Sweeps whose axes stand at parts of the program (optimizers, losses, widths, batch sizes), also at nothing else."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import LOSS, T_C, T_U, same
from tests.shared.soak import soaking

L, O = jf.losses, jf.optimizers  # noqa: E741
DATA = (0.1 * T_U, T_C)
START = {"w": 1.0, "b": 0.0}
RTOL = 2**10 * np.finfo(np.float32).eps  # of some 10 steps, by another program


def widths_of(params, x, y):
    return jnp.mean((params["w"].sum() * x - y) ** 2)


def ones(width, depth=1):
    return {"w": jnp.full((width,), 0.5 / depth)}


def plain(params, x, y):
    return jnp.mean(jnp.abs(params["w"] * x + params["b"] - y))


FORMS = {
    "two kinds of optimizers": dict(optimizer=jf.Axis("o", [O.sgd(1e-4), O.adam(0.1)], labels=["s", "a"])),
    "one kind with two rates": dict(optimizer=jf.Axis("o", [O.sgd(1e-4), O.sgd(1e-3)])),
    "one optimizer": dict(optimizer=jf.Axis("o", [O.adam(0.1)])),
    "losses": dict(loss=jf.Axis("l", [LOSS, L.huber(jf.models.line, delta=1.0), plain])),
    "one loss with two numbers": dict(loss=jf.Axis("l", [L.huber(jf.models.line, delta=d) for d in (1.0, 3.0)])),
    "batch sizes": dict(batches=jf.Batches(jf.Axis("size", [2, 5])), key=0),
    "static arguments of a call": dict(loss=widths_of, params=jf.Call(ones, jf.Axis("width", [2, 3]))),
    "a flag": dict(
        optimizer=jf.optimizer(optax.sgd, learning_rate=1e-4, momentum=0.9, nesterov=jf.Axis("flag", [True, False]))
    ),
    "whole params": dict(params=jf.Axis("p", [START, {"w": 2.0, "b": 1.0}])),
    "methods that judge": dict(
        loss=L.rss(jf.models.line), optimizer=jf.Axis("o", [O.levenberg_marquardt(), O.lbfgs()])
    ),
    "a stop rule": dict(
        optimizer=jf.Axis("o", [O.adam(0.1), O.adam(0.2), O.sgd(1e-4)]), stop=jf.Stop(params_change_below=1e-3)
    ),
}


@pytest.mark.parametrize("form", soaking(FORMS, keep=["one kind with two rates", "static arguments of a call"]))
def test_axes_of_program_parts_need_no_axis_of_numbers(form):
    arguments = {"loss": LOSS, "params": START, "data": DATA, "optimizer": O.adam(0.1), "steps": 10} | FORMS[form]
    grid = jf.sweep(**arguments)
    (name,) = grid.results.status.dims
    for label in grid.results[name].values.tolist():
        lane = jf.lane(grid, **{name: label})
        problem, training = lane.problem, lane.training
        alone = jf.fit(
            problem.loss, problem.params, problem.data, optimizer=training.optimizer, steps=10, stop=training.stop,
            batches=training.batches, key=problem.key, precision=grid.precision,
        )  # fmt: skip
        assert (lane.status, lane.steps) == (alone.status, alone.steps)
        np.testing.assert_allclose(lane.loss, alone.loss, rtol=RTOL, atol=RTOL * float(alone.start_loss))


def two_program_axes(methods=2, **keywords):
    """Axes in the order z, m, a, none of which is where an alphabet would have it."""
    optimizers = [O.momentum(jf.Axis("a", [1e-4, 1e-3])), O.sgd(jf.Axis("a", [1e-4, 1e-3]))][:methods]
    return jf.sweep(
        widths_of, jf.Call(ones, depth=jf.Axis("z", [2, 1]), width=4), DATA,
        optimizer=jf.Axis("m", optimizers, labels=["z", "a"][:methods]), steps=5,
        record=jf.Record(2, ("params", "loss")),
        **keywords,
    )  # fmt: skip


@pytest.mark.parametrize("methods", soaking([1, 2], keep=()))
def test_a_store_keeps_every_order_whatever_the_alphabet_says(methods, tmp_path):
    grid = two_program_axes(methods)
    memory = grid.results
    assert memory.status.dims == ("z", "m", "a")
    for _ in range(2):  # made, and gone on with
        stored = two_program_axes(methods, store=tmp_path / "s")
        opened = jf.open(tmp_path / "s")
        for found in (stored.results, opened):
            same(memory, found)
            assert list(found.attrs.items()) == list(memory.attrs.items())
            assert list(found.variables) == list(memory.variables) and list(found.coords) == list(memory.coords)
        assert [part.choice for part in stored.parts] == [{"z": i, "m": j} for i in range(2) for j in range(methods)]
    last = {"z": 1, "m": "za"[methods - 1], "a": 1e-4}
    assert jf.lane(stored, **last).coords == jf.lane(grid, **last).coords


@pytest.mark.soak
def test_ctrl_c_in_a_store_of_program_axes_says_how_to_go_on(tmp_path):
    message = "the same call goes on from there"
    with using(workers=1), ended_by(KeyboardInterrupt, "block", 2), pytest.raises(jf.Interrupted, match=message):
        two_program_axes(store=tmp_path / "s")
    same(two_program_axes().results, two_program_axes(store=tmp_path / "s").results)


def test_an_axis_of_models_or_of_whole_data_says_where_it_stands():
    models = jf.Axis("m", [jf.models.line, jf.models.constant])
    with pytest.raises(TypeError, match=r"write jf.Axis|stands around their losses: jf.Axis\('m'"):
        L.mse(models)
    sets = jf.Axis("d", [DATA, DATA])
    with pytest.raises(TypeError, match=r"write data=\(jf.Axis\('d', xs\), jf.Axis\('d', ys\)\)"):
        jf.sweep(LOSS, START, sets, optimizer=O.adam(0.1))


def test_none_among_numbers_stands_for_what_an_optimizer_does_without_the_argument(tmp_path):
    momentum = jf.Axis("momentum", [None, 0.5])
    grid = jf.sweep(LOSS, START, DATA, optimizer=O.sgd(1e-2, momentum=momentum), steps=5, store=tmp_path / "s")
    assert grid.results.momentum.values.tolist() == ["None", "0.5"]
    plain = jf.fit(LOSS, START, DATA, optimizer=O.sgd(1e-2), steps=5)
    np.testing.assert_allclose(jf.lane(grid, momentum=None).loss, plain.loss, rtol=RTOL)
    assert jf.lane(grid, momentum=0.5).coords == {"momentum": "0.5"}
    assert jf.open(tmp_path / "s").equals(grid.results)


@pytest.mark.parametrize("wrong", [lambda: O.adam(0.1, b1=None), lambda: O.adam(0.1, b1=jf.Axis("b1", [None, 0.9]))])
def test_none_is_refused_where_only_a_number_will_do(wrong):
    with pytest.raises(TypeError, match="adam: b1 is None.* it must be a number.*write b1=0.9, its default"):
        wrong()
    assert O.adam(0.1, b1=0.9) is not None


def test_a_rate_of_none_in_an_axis_is_refused():
    with pytest.raises(TypeError, match=r"learning_rate is None.* climb; write learning_rate=1.0"):
        O.adam(jf.Axis("rate", [None, 0.1]))


def test_numbers_among_schedules_are_refused_and_run_as_constant_schedules():
    with pytest.raises(ValueError, match=r"of one kind.*jf\.schedules\.constant\(0\.1\)"):
        jf.Axis("rate", [1e-3, jf.schedules.cosine(1e-3, 5)])
    rates = jf.Axis("rate", [jf.schedules.constant(1e-3), jf.schedules.constant(2e-3)], labels=["flat", "steep"])
    grid = jf.sweep(LOSS, START, DATA, optimizer=O.sgd(rates), steps=1)
    assert grid.results.rate.values.tolist() == ["flat", "steep"]
