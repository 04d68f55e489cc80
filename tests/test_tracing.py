"""Arrays that a model takes from outside of its arguments, in one precision after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

X = np.linspace(0.1, 1.0, 7)
Y = 2 * X + 1 + 0.01 * np.sin(9 * X)
START = {"w": 1.0, "b": 0.0}
SGD, LM = jf.optimizers.sgd(0.1), jf.optimizers.levenberg_marquardt()
W0 = jf.Axis("w0", [1.0, 2.0])


def enclosing(x):
    """A model, and the loss of all its data, that enclose a NumPy array."""

    def model(params, _):
        return params["w"] * x + params["b"]

    return model, lambda params: jnp.mean((model(params, None) - Y) ** 2)


def test_enclosed_arrays_have_the_precision_of_each_run_whatever_ran_before():
    model, loss = enclosing(X)
    single = jf.fit(jf.losses.mse(model), START, (X, Y), optimizer=SGD, steps=3)
    exact = jf.curve_fit(model, START, (X, Y))
    assert exact.params["w"] == pytest.approx(np.polyfit(X, Y, 1)[0], rel=1e-12)
    value, error = jf.propagate(exact, lambda p: p["w"] * X)
    assert error[0] / X[0] == pytest.approx(error[6] / X[6], rel=1e-12) and value[0] == exact.params["w"] * X[0]
    again = jf.fit(loss, START, optimizer=SGD, steps=3)
    assert single.params["w"].dtype == "float32" and again.loss == pytest.approx(single.loss, rel=1e-6)


@pytest.mark.soak
def test_enclosed_arrays_may_change_their_precision_often_and_in_every_verb():
    model, loss = enclosing(X)
    with_data = jf.standard_errors(jf.curve_fit(jf.models.line, START, (X, Y)))
    for precision in ("float64", "float32", "float64"):
        fit = jf.fit(jf.losses.mse(model), START, (X, Y), optimizer=LM, precision=precision)
        assert jf.standard_errors(fit)["w"] == pytest.approx(with_data["w"], rel=1e-5)
        bend = jf.sharpness(loss, fit.params, precision=precision)
        assert bend == pytest.approx(
            np.linalg.eigvalsh(2 / 7 * np.array([[X @ X, X.sum()], [X.sum(), 7]]))[1], rel=1e-5
        )
        grid = jf.sweep(loss, START | {"w": W0}, optimizer=SGD, steps=1, precision=precision)
        assert grid.results["params.w"].dtype == precision
        looked = jf.surface(loss, START | {"w": W0}, precision=precision)
        assert looked.dtype == precision and looked[0] == pytest.approx(np.mean((X - Y) ** 2), rel=1e-5)
        assert jf.step(loss, START, optimizer=SGD, precision=precision).value == pytest.approx(
            float(looked[0]), rel=1e-5
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda model, loss: jf.fit(loss, START, optimizer=SGD, precision="float64"),
        lambda model, loss: jf.surface(loss, START | {"w": W0}, precision="float64"),
        lambda model, loss: jf.standard_errors(jf.fit(jf.losses.mse(model), START, (X, Y), optimizer=SGD, steps=1)),
    ],
    ids=["fit", "surface", "standard_errors"],
)
def test_an_array_that_a_jit_of_the_users_holds_in_another_precision_is_named(call):
    model, loss = enclosing(X.copy())
    theirs = jax.jit(jax.grad(loss))
    theirs(START)
    with pytest.raises(TypeError, match=r"float32 with float64.*holds that array.*pass the array as data"):
        call(model, loss)
