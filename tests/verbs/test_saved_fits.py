"""Fits in files: the same bits back, from a text without code, and damage refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

LM = jf.optimizers.levenberg_marquardt()
LOSS = jf.losses.chi_squared(jf.models.line)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, two in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


@pytest.fixture(scope="module")
def line():
    return jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())


def test_a_fit_reads_back_to_the_bit_and_answers_alike(line, tmp_path):
    path = jf.save(line, tmp_path / "fit.json")
    again = jf.load(path, loss=LOSS)
    for name in ("params", "loss", "start_loss", "history"):
        same(getattr(again, name), getattr(line, name))
    assert (again.status, again.steps, again.precision) == (line.status, line.steps, line.precision)
    assert again.absolute_sigma is False
    assert str(again) == str(line) and str(jf.report(again)) == str(jf.report(line))
    same(again.predict([3.0]), line.predict([3.0]))
    assert "line" in path.read_text() and path.read_bytes() == jf.save(again, tmp_path / "two.json").read_bytes()


def test_float32_marks_keys_and_odd_numbers_read_back(tmp_path):
    def loss(p, x, key=None):
        noise = 0 if key is None else jax.random.normal(key)
        return (
            jnp.sum((p["a"] * x + p["b"][0] - 1 / 3) ** 2) + jnp.sum((p["c"] - noise) ** 2) + jnp.sum(p["b"][1][0] ** 2)
        )

    start = {
        "a": jf.Bounded(0.1, 0.0, np.inf),
        "b": (jf.Fixed(1e-40), [np.arange(3.0)]),
        "c": np.array([1.0, 0.3], "f4"),
    }
    x = np.array([1.0, -0.0, 3e-38], "f4")
    sgd = jf.optimizers.sgd(1e-3, momentum=0.9)
    fit = jf.fit(loss, start, (x,), optimizer=sgd, steps=7, record=jf.Record(every=2, what=("loss", "params")), key=3)
    again = jf.load(jf.save(fit, tmp_path / "a"), loss)
    same(again.params, fit.params)
    same(dict(again.history), dict(fit.history))
    assert isinstance(again.params["a"], jax.Array) and again.problem.params["a"].low == 0
    assert str(again) == str(fit) and again.optimizer.hyperparameters.keys() == fit.optimizer.hyperparameters.keys()
    same(jax.random.key_data(again.problem.key), jax.random.key_data(fit.problem.key))


def test_failed_runs_read_back_too(tmp_path):
    fit = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(3.0), steps=500)
    assert fit.status == jf.Status.DIVERGED
    again = jf.load(jf.save(fit, tmp_path / "a"), lambda p: p**2)
    same((again.params, again.loss), (fit.params, fit.loss))
    assert again.status is jf.Status.DIVERGED and str(again) == str(fit)


def test_a_lane_and_its_coordinates_read_back(tmp_path):
    rates = jf.Axis("rate", [0.1, 0.2])
    grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
    lane = jf.lane(grid, rate=0.2)
    again = jf.load(jf.save(lane, tmp_path / "a"), lambda p: p**2)
    assert again.coords == lane.coords and str(again) == str(lane)


def test_tied_params_and_optimizers_of_ones_own_are_given_again(tmp_path):
    import optax

    def loss(p):
        return (p["a"] + p["b"] - 6.0) ** 2

    start = {"a": 1.0, "b": jf.Tied(lambda p: 2 * p["a"])}
    fit = jf.fit(loss, start, optimizer=jf.optimizer(optax.optimistic_gradient_descent, learning_rate=0.01), steps=5)
    path = jf.save(fit, tmp_path / "a")
    with pytest.raises(ValueError, match="give it again: optimizer="):
        jf.load(path, loss)
    with pytest.raises(ValueError, match=r"params.b was tied by a function"):
        jf.load(path, loss, optimizer=fit.optimizer)
    with pytest.raises(ValueError, match="another start"):
        jf.load(path, loss, optimizer=fit.optimizer, params={"a": 2.0, "b": jf.Tied(lambda p: 2 * p["a"])})
    same(jf.load(path, loss, optimizer=fit.optimizer, params=start).params, fit.params)


def test_another_loss_is_refused(line, tmp_path):
    path = jf.save(line, tmp_path / "fit.json")
    with pytest.raises(ValueError, match=r"fit of chi_squared\(line\), but loss is mse\(line\)"):
        jf.load(path, loss=jf.losses.mse(jf.models.line))

    def line_(params, x):
        return params["w"] * x - params["b"]

    line_.__name__ = "line"
    with pytest.raises(ValueError, match="the model is another than that of the fit"):
        jf.load(path, loss=jf.losses.chi_squared(line_))


@pytest.mark.parametrize("damage", [
    lambda t: t[: len(t) // 2], lambda t: t.replace('"steps"', '"stepz"', 1), lambda t: t.replace("3", "4", 1),
    lambda t: "[]", lambda t: "", lambda t: t.replace('"version": 1', '"version": 2'),
    lambda t: json.dumps({"format": "jaxfit fit", "version": 1}),
])  # fmt: skip
def test_a_damaged_file_is_refused_by_its_name(line, tmp_path, damage):
    path = jf.save(line, tmp_path / "fit.json")
    path.write_text(damage(path.read_text()))
    with pytest.raises(jf.StoreError, match=r"fit\.json"):
        jf.load(path, loss=LOSS)


def test_a_file_with_a_right_digest_and_less_in_it_is_refused(line, tmp_path):
    from jaxfit.stores.files import with_digest

    path = jf.save(line, tmp_path / "fit.json")
    fields = json.loads(path.read_text())
    del fields["params"], fields["digest"]
    path.write_bytes(with_digest(fields))
    with pytest.raises(jf.StoreError, match="holds no whole fit"):
        jf.load(path, loss=LOSS)


def test_what_cannot_be_saved_says_what_to_do(line, tmp_path):
    from typing import NamedTuple

    class Point(NamedTuple):
        a: float

    with pytest.raises(TypeError, match="save takes a fit, but got a dict"):
        jf.save({}, tmp_path / "a")
    fit = jf.fit(lambda p: p.a**2, Point(1.0), optimizer=jf.optimizers.sgd(0.1), steps=2)
    with pytest.raises(TypeError, match="params is a Point, but a file holds dicts"):
        jf.save(fit, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(jf.StoreError, match="none does not exist; check the path"):
        jf.load(tmp_path / "none", loss=LOSS)
