"""A fit as a value of JAX and Python: it prints wherever it comes from, keeps what it knows, and is no trap."""

import copy
import pickle
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, START, X, Y
from tests.shared.soak import soaking

DATA = (X, Y)


def run(rate, steps=3):
    return jf.fit(LOSS, START, DATA, optimizer=jf.optimizers.sgd(rate), steps=steps)


@pytest.fixture(scope="module")
def fit():
    return run(0.1)


@pytest.fixture(scope="module")
def lanes():
    return jax.jit(jax.vmap(run))(jnp.array([0.1, 0.2]))


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(run)(0.1)


def test_a_fit_out_of_a_jit_prints_as_any_other(fit, compiled):
    one, other = (re.sub(r"(\.\d{6})\d+", r"\1", str(f)).splitlines()[:4] for f in (fit, compiled))  # last digits round
    assert one == other and compiled.problem is None
    with pytest.raises(jf.NotConverged, match="still running after 3 updates"):
        jf.require_converged(compiled)


def test_a_fit_of_lanes_prints_their_number_and_how_they_ended(fit, lanes):
    text = str(lanes)
    assert text.splitlines()[0] == "Fit of 2 lanes: 2 out of steps" and "w = [" in text and repr(lanes) == text
    assert repr(lanes.history) == "History(step, loss; 4 records of 2 lanes)"
    with pytest.raises(jf.NotConverged, match="Fit of 2 lanes: 2 out of steps"):
        jf.require_converged(lanes)
    stacked = jax.tree.map(lambda *x: np.stack(x), fit, lane_of(lanes, 1), lane_of(lanes, 0))
    assert str(stacked).startswith("Fit of 3 lanes: 3 out of steps") and stacked.problem is None
    square = jax.tree.map(lambda x: np.reshape(np.stack([x] * 6), (2, 3, *np.shape(x))), fit)
    assert str(square).startswith("Fit of 2x3 lanes: 6 out of steps")


def lane_of(lanes, i):
    return jax.tree.map(lambda x: x[i], lanes)


def test_a_lane_taken_out_by_hand_is_a_fit_again(lanes):
    one = lane_of(lanes, 1)
    assert str(one).startswith("out of steps: still running after 3 updates")
    assert float(one.loss) == pytest.approx(float(run(0.2).loss), rel=1e-6)


def test_lanes_that_all_converged_pass():
    stop = jf.Stop(loss_below=1e9)

    def stopped(rate):
        return jf.fit(LOSS, START, DATA, optimizer=jf.optimizers.sgd(rate), steps=3, stop=stop)

    lanes = jax.jit(jax.vmap(stopped))(jnp.array([0.1, 0.2]))
    assert jf.require_converged(lanes) is lanes and "2 converged" in str(lanes)


@pytest.mark.parametrize(
    "function",
    [jnp.shape, lambda x: None, lambda x: object(), lambda x: jnp.asarray(x, float), lambda x: float(np.min(x)), str],
)
def test_whatever_stands_in_its_fields_a_fit_prints(fit, function):
    assert str(jax.tree.map(function, fit))


def test_the_shape_of_a_fit_and_a_traced_fit_print():
    assert str(jax.eval_shape(run, 0.1)).startswith("Fit(params={")
    seen = []
    jax.make_jaxpr(lambda rate: seen.append(str(run(rate))))(0.1)
    assert seen == ["Fit(traced)"]
    with pytest.raises(TypeError, match="the fit is traced.*call it on what the jit"):
        jax.make_jaxpr(lambda rate: jf.require_converged(run(rate)).loss)(0.1)


@pytest.mark.parametrize(
    "same",
    soaking(
        [lambda f: jax.tree.map(lambda x: x, f), copy.copy, jax.device_get, lambda f: jax.tree.map(np.asarray, f)],
        keep=2,
    ),
    ids=["map", "copy", "device_get", "to NumPy"],
)
def test_what_a_fit_knows_outlives_maps_and_copies(same):
    fit = jf.curve_fit(jf.models.line, START, (X, Y + 0.1 * np.sin(9 * X)), sigma=0.1, absolute_sigma=True)
    again = same(fit)
    assert again.problem is fit.problem and again.precision == "float64" and again.absolute_sigma is True
    assert str(jf.explain(again)) == str(jf.explain(fit))
    assert str(jf.report(again)) == str(jf.report(fit))


def test_a_fit_that_was_put_on_a_device_is_explained_as_before():
    fit = run(0.1)
    again = jax.device_put(fit)
    assert again.status is fit.status and again.steps == fit.steps and str(jf.explain(again)) == str(jf.explain(fit))


def test_the_labels_of_a_lane_outlive_maps_and_are_no_hindrance_to_a_jit():
    rate = jf.Axis("rate", [0.1, 0.2])
    kinds = jf.Axis("kind", [jf.optimizers.sgd(rate)], labels=["sgd"])
    lane = jf.lane(jf.sweep(LOSS, START, DATA, optimizer=kinds, steps=3), kind="sgd", rate=0.2)
    assert jax.tree.map(lambda x: x, lane).coords == lane.coords == {"kind": "sgd", "rate": 0.2}
    assert float(jax.jit(lambda f: f.loss)(lane)) == pytest.approx(float(lane.loss))


def test_a_function_of_fits_is_compiled_once_and_hands_on_no_other_fits_problem(traces):
    other = jf.fit(LOSS, START, (X, Y + 5.0), optimizer=jf.optimizers.sgd(0.1), steps=3)
    counted = traces(lambda fit: fit)
    function = jax.jit(counted)
    for fit in (run(0.1), run(0.2), other, jax.tree.map(lambda x: x, other)):
        found = function(fit)
        assert found.problem is None and float(found.loss) == pytest.approx(float(fit.loss))
    assert counted.count == 1
    assert jax.tree.map(lambda x: x, other).problem is other.problem


def test_a_history_is_a_mapping(fit):
    history = fit.history
    assert list(history) == ["step", "loss"] and len(history) == 2 and dict(history).keys() == {"step", "loss"}
    assert history["loss"] is history.loss and "loss" in history and history.get("params") is None
    assert [name for name, _ in history.items()] == ["step", "loss"] and len(pickle.loads(pickle.dumps(history))) == 2
    assert history == history and history != jax.tree.map(lambda x: x, history) and {history: 1}
    for reach in (lambda: history["params"], lambda: history.params):
        with pytest.raises((KeyError, AttributeError), match=r"no 'params'; it holds step, loss.*what=\('loss', 'par"):
            reach()


@pytest.mark.parametrize(
    ("name", "precision"),
    soaking(
        [
            ("mse", "float32"),
            ("chi_squared", "float64"),
            ("masked", "float64"),
            ("sum", "float64"),
            ("noise", "float32"),
        ],
        keep=2,
        names=2,
    ),
)
def test_a_fit_predicts_what_its_model_does(name, precision):
    model = jf.models.line
    where = np.arange(8) > 1
    loss, data = {
        "mse": (jf.losses.mse(model), DATA),
        "chi_squared": (jf.losses.chi_squared(model), (X, Y, np.full(8, 0.1))),
        "masked": (jf.losses.mse(model, masked=True), (X, Y, where)),
        "sum": (jf.losses.l2(0.1) + jf.losses.mse(model), DATA),
        "noise": (jf.losses.input_noise(jf.losses.mse(model), scale=0.1), DATA),
    }[name]
    key = 0 if name == "noise" else None
    found = jf.fit(loss, START, data, optimizer=jf.optimizers.sgd(1e-3), steps=3, key=key, precision=precision)
    at = np.random.default_rng(0).normal(size=5)
    w, b = (np.asarray(found.params[n], float) for n in ("w", "b"))
    eps = np.finfo(precision).eps
    predicted = found.predict(at)
    assert predicted.dtype == precision and isinstance(predicted, np.ndarray) == (precision == "float64")
    np.testing.assert_allclose(np.asarray(predicted, float), w * at + b, atol=4 * eps * (np.abs(w * at) + abs(b)).max())
    assert found.predict([1.0, 2.0]).shape == (2,)


def test_a_fit_without_a_model_cannot_predict(compiled):
    own = jf.fit(lambda p: jnp.square(p), 1.0, optimizer=jf.optimizers.sgd(0.1), steps=3)
    for found, why in ((own, "is of <lambda>"), (compiled, "has no problem any more")):
        with pytest.raises(TypeError, match=rf"predict needs the fit of a loss of a model.* {why}; call the model its"):
            found.predict(X)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("success", "fit.status == jf.Status.CONVERGED"), ("x", "fit.params"), ("stderr", r"jf.standard_errors\(fit\)"),
     ("summary", r"jf.report\(fit\)"), ("plot", r"jf.plots.fit\(fit\)"), ("popt", "fit.params"), ("nfev", "fit.steps"),
     ("best_values", "fit.params"), ("redchi", r"jf.goodness_of_fit\(fit\).reduced_chi_squared")],
)  # fmt: skip
def test_an_attribute_of_another_library_is_answered_with_what_to_write(fit, name, instead):
    with pytest.raises(AttributeError, match=f"a fit has no {name!r}; write {instead}"):
        getattr(fit, name)


def test_an_attribute_that_nearly_exists_is_answered_with_it(fit):
    with pytest.raises(AttributeError, match="a fit has no 'param'; did you mean params"):
        fit.param  # noqa: B018
    assert not hasattr(fit, "_anything") and not hasattr(fit, "__array__")


def test_an_exception_that_is_made_changes_nothing():
    before = sys.excepthook
    assert jf.Interrupted("as text", None).result is None and sys.excepthook is before


def test_the_numbers_of_a_status_are_told_by_its_flags_also_in_a_store(tmp_path):
    start = {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}
    grid = jf.sweep(LOSS, start, DATA, optimizer=jf.optimizers.sgd(0.1), steps=3, store=tmp_path / "store")
    for attributes in (grid.results.status.attrs, jf.open(tmp_path / "store").status.attrs):
        assert list(attributes["flag_values"]) == [int(s) for s in jf.Status]
        assert attributes["flag_meanings"].split() == [s.name for s in jf.Status]
