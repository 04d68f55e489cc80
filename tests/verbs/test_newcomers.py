"""What people who come from other libraries try first: it works, or the error says what to write instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, SGD, START, X, Y

DATA = (X, Y)

# A loss without data


def bowl(params):
    return jnp.square(params - 3.0)


WITHOUT_DATA = {  # (loss, its only minimum): d/dp ((p - 3)**2 + s p**2) = 0 at p = 3 / (1 + s)
    "a penalty alone": (jf.losses.l2(0.5), 0.0),
    "a function and a penalty": (bowl + jf.losses.l2(0.5), 2.0),
    "a penalty and a function": (jf.losses.l2(0.5) + bowl, 2.0),
    "residuals and a penalty": (jf.losses.least_squares(lambda p: jnp.atleast_1d(p - 3.0)) + jf.losses.l2(0.5), 2.0),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_every_verb_takes_a_loss_without_data(name, tmp_path):
    loss, least = WITHOUT_DATA[name]
    curvature = 1.0 if name == "a penalty alone" else 3.0
    fit = jf.fit(loss, 1.0, optimizer=SGD, steps=200)
    assert float(fit.params) == pytest.approx(least, abs=1e-5)
    quick = jf.fit(loss, 1.0, optimizer=jf.optimizers.lbfgs(), steps=20, precision="float64")
    assert float(quick.params) == pytest.approx(least, abs=1e-9)
    bounded = jf.fit(loss, jf.Bounded(1.0, -5.0, 1.5), optimizer=SGD, steps=200)
    assert float(bounded.params) == pytest.approx(min(least, 1.5), abs=1e-2)
    grid = jf.sweep(loss, jf.Axis("p", np.linspace(-1, 1, 3)), optimizer=SGD, steps=200, store=tmp_path / "store")
    np.testing.assert_allclose(grid.results["params"], least, atol=1e-5)
    surface = jf.surface(loss, jf.Axis("p", np.linspace(-1, 1, 3)))
    assert float(surface[1]) == pytest.approx(float(loss(0.0)), abs=1e-6)
    assert float(jf.sharpness(loss, 1.0)) == pytest.approx(curvature, rel=1e-5)
    assert float(jf.hessian_spectrum(loss, 1.0).values[0]) == pytest.approx(curvature, rel=1e-5)
    assert float(jf.step(loss, 1.0, optimizer=SGD)[1]) == pytest.approx(float(loss(1.0)), rel=1e-6)
    assert float(jf.backprop(loss, 1.0).loss) == pytest.approx(float(loss(1.0)), rel=1e-6)
    assert jf.backward_memory(loss, 1.0) > 0 and str(jf.explain(fit))


def test_a_function_and_a_penalty_are_fitted_without_data():
    loss, least = WITHOUT_DATA["a function and a penalty"]
    assert float(jf.fit(loss, 1.0, optimizer=SGD, steps=200).params) == pytest.approx(least, abs=1e-5)


def test_batches_of_a_loss_without_data_are_refused():
    with pytest.raises(ValueError, match="takes no data of which rows could be drawn; leave batches out"):
        jf.fit(bowl + jf.losses.l2(0.1), 1.0, optimizer=SGD, batches=jf.Batches(2), key=0)


# Losses with more than a number, states from outside, params in the manner of other libraries


def with_aux(params, x, y):
    residuals = params["w"] * x + params["b"] - y
    return jnp.mean(jnp.square(residuals)), {"largest": jnp.max(jnp.abs(residuals))}


VERBS = {
    "fit": lambda loss, params, data: jf.fit(loss, params, data, optimizer=SGD, steps=3),
    "step": lambda loss, params, data: jf.step(loss, params, data, optimizer=SGD),
    "sharpness": lambda loss, params, data: jf.sharpness(loss, params, data),
    "sweep": lambda loss, params, data: jf.sweep(
        loss, params, data, optimizer=jf.optimizers.sgd(jf.Axis("rate", [0.1, 0.2])), steps=3
    ),
    "surface": lambda loss, params, data: jf.surface(loss, params, data),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_loss_that_returns_more_than_its_value_is_told_to_record_it(verb):
    start = START | {"w": jf.Axis("w", [0.0, 1.0])} if verb == "surface" else START
    with pytest.raises(TypeError, match=r"returned a tuple.*return the number alone .*jf.Record\(what=\('loss', f\)\)"):
        VERBS[verb](with_aux, start, DATA)


def test_the_remedy_for_a_loss_that_returns_more_works():
    def largest(params, x, y):
        return with_aux(params, x, y)[1]["largest"]

    what = jf.Record(what=("loss", largest))
    found = jf.fit(lambda p, x, y: with_aux(p, x, y)[0], START, DATA, optimizer=SGD, steps=3, record=what)
    assert found.history.largest[0] == pytest.approx(np.abs(X - Y).max())


class TraceContextError(Exception):
    """As Flax NNX has it."""


@pytest.mark.parametrize("verb", ["fit", "sweep", "sharpness"])
def test_a_state_from_outside_of_the_loss_is_told_to_be_copied(verb):
    def predict(params, x):
        raise TraceContextError("Cannot mutate RngCount from a different trace level (https://flax.readthedocs.io/x)")

    with pytest.raises(
        TypeError, match=r"changes a state .*\(Cannot mutate RngCount from a different trace level\).*copy=True"
    ):
        VERBS[verb](jf.losses.mse(predict), START, DATA)


def test_a_key_among_the_params_stays_as_it_is():
    key = jax.random.key(0)
    found = jf.fit(LOSS, START | {"rngs": {"key": key}}, DATA, optimizer=SGD, steps=3)
    assert found.params["rngs"]["key"] == key


def first(params, x):
    return params[0] * x + params[1]


WHOLE = {  # start, model, the part that is no number, its kind
    "value and bounds": ({"w": (1.0, 0, 10), "b": 0.0}, jf.models.line, r"params\['w'\]", "tuple of 3"),
    "in a list": ([(1.0, 0, 10), 0.0], first, r"params\[0\]", "tuple of 3"),
    "a list": ({"w": [1.0, 0, 10], "b": 0.0}, jf.models.line, r"params\['w'\]", "list of 3"),
    "open ends": ({"w": 1.0, "b": (0.0, None, None)}, jf.models.line, r"params\['b'\]", "tuple of 3"),
    "a pair of a pair": ({"w": (1.0, (0, 10)), "b": 0.0}, jf.models.line, r"params\['w'\]", "tuple of 2"),
    "a dict": ({"w": {"value": 1.0, "min": 0.0}, "b": 0.0}, jf.models.line, r"params\['w'\]", "dict of 2"),
    "the whole": ((1.0, 0.0), lambda params, x: params * x, "params", "tuple of 2"),
    "the whole dict": (START, lambda params, x: jnp.exp(params) * x, "params", "dict of 2"),
}


@pytest.mark.parametrize("verb", ["fit", "sweep", "step"])
@pytest.mark.parametrize("name", WHOLE)
def test_params_that_are_no_numbers_are_told_to_be_marked(name, verb):
    start, model, part, kind = WHOLE[name]
    with pytest.raises(TypeError, match=rf"computes with {part} as .*{kind}; .*jf.Bounded\(value, low, high\)"):
        VERBS[verb](jf.losses.mse(model), start, DATA)


def test_the_remedy_for_a_param_with_bounds_works():
    found = jf.fit(LOSS, {"w": jf.Bounded(1.0, 0, 10), "b": jf.Fixed(0.0)}, DATA, optimizer=SGD, steps=3)
    assert 0 < found.params["w"] < 10 and found.params["b"] == 0


def test_a_switch_among_the_params_is_told_to_be_a_mark():
    with pytest.raises(TypeError, match=r"params\['w'\] as with a number, but it is a dict of 2.*jf.Fixed\(value\)"):
        jf.curve_fit(jf.models.line, {"w": {"value": 1.0, "vary": False}, "b": 0.0}, DATA)


def test_masked_data_without_sigma_are_told_to_have_one():
    loss = jf.losses.chi_squared(jf.models.line, masked=True)
    for optimizer in (SGD, jf.optimizers.levenberg_marquardt()):
        with pytest.raises(TypeError, match=r"takes the data \(x, y, sigma, where\), but got 3 arrays"):
            jf.fit(loss, START, (X, Y, X > 0.1), optimizer=optimizer)


def decay(t, A, tau, bg):
    return A * jnp.exp(-t / tau) + bg


def test_a_model_of_one_argument_for_each_param_is_told_how_to_be_wrapped():
    start = {"A": 2.0, "tau": 0.5, "bg": 0.0}
    y = 3.0 * np.exp(-X / 0.4) + 1.0
    with pytest.raises(TypeError, match=r"from_function\(predict\).*lambda params, x: predict\(x, \*\*params\)"):
        jf.curve_fit(decay, start, (X, y))
    for model in (lambda params, x: decay(x, **params), jf.models.from_function(decay)):
        assert float(jf.curve_fit(model, start, (X, y)).params["tau"]) == pytest.approx(0.4, rel=1e-6)
    with pytest.raises(TypeError, match=r"jf.curve_fit\(predict, start, \(x, y\), sigma=sigma\)"):
        jf.curve_fit(jf.models.line, START, X, Y)


def test_one_fit_alone_is_a_path_on_a_surface():
    axes = {"w": jf.Axis("w", np.linspace(0.0, 3.0, 9)), "b": jf.Axis("b", np.linspace(-1.0, 2.0, 9))}
    surface = jf.surface(LOSS, axes, (X, Y))
    fit = jf.fit(LOSS, START, (X, Y), optimizer=SGD, steps=3, record=jf.Record(what=("loss", "params")))
    assert jf.plots.contour(surface, fit).lines and jf.plots.surface_3d(surface, fit).lines
    with pytest.raises(TypeError, match="descent_animation takes 1 argument by position .*name the others: surface="):
        jf.plots.descent_animation(surface, fit)


TUPLE, CURVE_FIT = "all data in one tuple the third: ", r"jf.curve_fit\(predict, start, \(x, y\)\)"


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: jf.losses.huber(decay, 5.0), r"huber takes 1 argument by position \(predict\), but got 2; .*delta="),
     (lambda: jf.fit(LOSS, START, (X, Y)), r"fit lacks optimizer; call it as jf.fit\(loss, params, data, optimizer="),
     (lambda: jf.fit(LOSS, START, X, Y, optimizer=SGD), r"put all data into one tuple: \(x, y\)"),
     (lambda: jf.fit(LOSS, START, (X, Y), loss=LOSS, optimizer=SGD), "fit got 'loss' twice"),
     (lambda: jf.curve_fit(jf.models.line, X, Y, start=START), rf"'start' twice, .* {TUPLE}{CURVE_FIT}"),
     (lambda: jf.curve_fit(jf.models.line, X, Y, p0=START), rf"no argument 'p0'; .* {TUPLE}{CURVE_FIT}"),
     (lambda: jf.sharpness(LOSS, X, Y, params=START), rf"'params' twice, .* {TUPLE}jf.sharpness\(loss, params, "),
     (lambda: jf.fit(LOSS, X, Y, start=START, optimizer=SGD), rf"no argument 'start'; .* {TUPLE}jf.fit\(loss, "),
     (lambda: jf.losses.mse(decay, X, Y), r"go to the verb: jf.fit\(jf.losses.mse\(predict\), params, \(x, y\), "),
     (lambda: jf.fit(jf.losses.mse, START, (X, Y), optimizer=SGD), r"makes a loss; call it: jf.losses.mse\(predict\)"),
     (lambda: jf.curve_fit(jf.models.polynomial, None, (X, Y)), r"makes a model; .* jf.models.polynomial\(degree\)"),
     (lambda: jf.curve_fit("gaussian", None, (X, Y)), r"predict is 'gaussian', .*; write jf.models.gaussian$"),
     (lambda: jf.optimizer(decay, 0.1), r"name the others, as in jf.optimizer\(factory, learning_rate=0.01\)"),
     (lambda: jf.Axis("rate"), r"Axis lacks values; call it as jf.Axis\(name, values\)"),
     (lambda: jf.plots.line_fit(X, Y), r"line_fit lacks lines; call it as jf.plots.line_fit\(x, y, lines\)"),
     (lambda: jf.open(), r"lacks path; call it as jf.open\(path\)")],
)  # fmt: skip
def test_a_call_that_does_not_fit_is_answered_with_one_that_does(call, message):
    with pytest.raises(TypeError, match=message):
        call()
