"""Arrays that a model takes from outside of its arguments, in one precision after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

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


def damped(kind):
    """A model a * gain * exp(-b * x) that encloses the array `gain` in one way, compiled by the user."""
    gain = np.linspace(1.0, 2.0, 7)

    def plain(p, x):
        return p["a"] * gain * jnp.exp(-p["b"] * x)

    def inner(b, x):
        return gain * jnp.exp(-b * x)

    class Holder:
        def __init__(self):
            self.kept = {"gains": [(gain, "gain")]}

        def __call__(self, p, x):
            return jitted(p, x)

    holder, compiled, ruled = Holder(), jax.jit(inner), jax.custom_jvp(inner)
    ruled.defjvp(lambda at, along: (ruled(*at), -at[1] * ruled(*at) * along[0]))
    jitted = jax.jit(lambda p, x: p["a"] * holder.kept["gains"][0][0] * jnp.exp(-p["b"] * x))
    return {
        "jit": jax.jit(plain),
        "a jit inside": lambda p, x: p["a"] * compiled(p["b"], x),
        "custom_jvp": jax.jit(lambda p, x: p["a"] * ruled(p["b"], x)),
        "default": jax.jit(lambda p, x, gain=gain: p["a"] * gain * jnp.exp(-p["b"] * x)),
        "partial": jax.jit(functools.partial(lambda g, p, x: p["a"] * g * jnp.exp(-p["b"] * x), gain)),
        "attributes": holder,
    }[kind]


DAMPED = {"a": 1.0, "b": 1.0}
NOISY = 2 * np.linspace(1.0, 2.0, 7) * np.exp(-0.7 * X) + 0.01 * np.sin(9 * X)


KINDS = ["jit", "a jit inside", "custom_jvp", "default", "partial", "attributes"]


@pytest.mark.parametrize("kind", soaking(KINDS, keep=("attributes",)))
def test_a_jitted_model_serves_the_user_and_runs_of_both_precisions_in_any_order(kind):
    model = damped(kind)
    single = {k: jnp.float32(v) for k, v in DAMPED.items()}
    exact, own = [], []
    for _ in range(2):
        own.append(np.asarray(model(single, jnp.asarray(X))))
        loss = jf.fit(jf.losses.mse(model), DAMPED, (X, NOISY), optimizer=SGD, steps=1).start_loss
        truth = np.linspace(1.0, 2.0, 7) * np.exp(-X)
        assert loss == pytest.approx(np.mean((truth - NOISY) ** 2), rel=1e-5)
        exact.append(jf.curve_fit(model, DAMPED, (X, NOISY)))
        own.append(np.asarray(model(single, jnp.asarray(X))))
    assert own[0].dtype == "float32" and all(np.array_equal(o, own[0]) for o in own)
    assert exact[0].loss == exact[1].loss and exact[0].params["a"].dtype == "float64"


def test_a_fit_reads_no_digits_off_what_a_jit_of_the_users_holds():
    x, y = X.copy(), Y.copy()
    theirs = jax.jit(lambda w: jnp.mean((w * x - y) ** 2))
    theirs(1.0)
    loss = lambda w: jnp.mean((w * jnp.asarray(x) - jnp.asarray(y)) ** 2)  # noqa: E731
    fit = jf.fit(loss, 1.0, optimizer=SGD, steps=1, precision="float64")
    assert fit.start_loss == pytest.approx(np.mean((x - y) ** 2), rel=1e-14)
    assert jf.fit(lambda w, x, y: theirs(w), 1.0, (x, y), optimizer=SGD, steps=1).loss.dtype == "float32"
    assert x.dtype == y.dtype == "float64"


def test_the_arrays_of_a_function_are_its_own_again_after_an_error():
    gain = X.copy()
    model = lambda p, x: (p["w"] * gain)[:, None] * x[:3]  # noqa: E731
    with pytest.raises(ValueError):
        jf.curve_fit(model, START, (X, Y))
    assert model.__closure__[0].cell_contents is gain


ROWS = jnp.stack([jnp.ones(5), jnp.linspace(0.0, 1.0, 5)], 1)
KERNEL = jnp.array([0.0, 1.0, 0.0])


@jax.custom_jvp
def ruled(p):
    return ROWS @ p


ruled.defjvp(lambda at, along: (ROWS @ at[0], ROWS @ along[0]))
jitted = jax.jit(lambda p: ROWS @ p)
LINEAR = {
    "matmul": lambda p, x: ROWS @ p,
    "lax.conv": lambda p, x: jax.lax.conv_general_dilated(
        (ROWS @ p)[None, None], KERNEL[None, None], (1,), "SAME"
    )[0, 0],
    "scan": lambda p, x: jax.lax.scan(lambda _, row: (row @ p, row @ p), KERNEL[0], ROWS)[1],
    "jit": lambda p, x: jitted(p),
    "custom_jvp": lambda p, x: ruled(p),
    "at": lambda p, x: ROWS.at[0, 1].set(0.0) @ p,
    "dot": lambda p, x: jnp.dot(ROWS, p),
    "einsum": lambda p, x: jnp.einsum("ij,j->i", ROWS, p),
    "cond": lambda p, x: jax.lax.cond(p[0] > -9, lambda: ROWS @ p, lambda: ROWS[:, 0]),
    "vmap": lambda p, x: jax.vmap(lambda row: row @ p)(ROWS),
    "times": lambda p, x: jnp.sum(ROWS * p[None], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(LINEAR, keep=("matmul", "scan", "custom_jvp")))
def test_a_matrix_made_in_float32_outside_of_the_model_serves_in_float64(name):
    x = np.asarray(ROWS[:, 1], float)
    y = 1 + 2 * x + 0.1 * np.sin(7 * x)
    fit = jf.curve_fit(LINEAR[name], np.zeros(2), (x, y))
    np.testing.assert_allclose(fit.params, np.polyfit(x, y, 1)[::-1], rtol=1e-12)


def kepler(params, x):
    """The eccentric anomaly E with E - e * sin(E) = x, by Newton's method for as long as it takes."""

    def solved(mean):
        def closer(state):
            move = (state[0] - params["e"] * jnp.sin(state[0]) - mean) / (1 - params["e"] * jnp.cos(state[0]))
            return state[0] - move, jnp.abs(move)

        return jax.lax.while_loop(lambda state: state[1] > 1e-12, closer, (mean, jnp.ones_like(mean)))[0]

    return params["a"] * jax.vmap(solved)(x)


def test_a_loop_of_unknown_length_is_fitted_by_levenberg_marquardt_with_errors_and_reasons():
    anomaly = np.linspace(0.1, 6.0, 20)
    x, y = anomaly - 0.3 * np.sin(anomaly), 2 * anomaly + 1e-3 * np.sin(50 * anomaly)
    fit = jf.curve_fit(kepler, {"a": 1.0, "e": 0.1}, (x, y))
    assert fit.status == jf.Status.CONVERGED
    assert fit.params["a"] == pytest.approx(2, abs=1e-3) and fit.params["e"] == pytest.approx(0.3, abs=1e-3)
    slopes = np.stack([anomaly, 2 * np.sin(anomaly) / (1 - 0.3 * np.cos(anomaly))], 1)  # by a and e at the truth
    errors = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)) * fit.loss / 18)
    found = jf.standard_errors(fit)
    np.testing.assert_allclose([found["a"], found["e"]], errors, rtol=0.01)
    assert jf.explain(fit).kind == "converged"


def test_a_loop_of_unknown_length_is_refused_backward_with_a_method_that_works():
    with pytest.raises(TypeError, match=r"differentiated backward \(a lax.while_loop.*lax.scan.*levenberg_marquardt"):
        jf.fit(jf.losses.mse(kepler), {"a": 1.0, "e": 0.1}, (X, Y), optimizer=SGD)


@pytest.mark.soak
def test_a_solver_that_goes_backward_only_is_refused_forward_with_a_method_that_works():
    @jax.custom_vjp
    def decay(rate):
        return jnp.exp(-rate * X.astype("float32"))

    decay.defvjp(lambda rate: (decay(rate), decay(rate)), lambda kept, g: (-jnp.sum(g * X.astype("float32") * kept),))
    loss = jf.losses.mse(lambda p, x: decay(p))
    with pytest.raises(TypeError, match=r"differentiated forward, as Levenberg-Marquardt.*ForwardMode.*lbfgs\(\)"):
        jf.fit(loss, 1.0, (X, np.exp(-2 * X)), optimizer=LM, precision="float32")
    fit = jf.fit(loss, 1.0, (X, np.exp(-2 * X)), optimizer=jf.optimizers.lbfgs(), steps=30)
    assert fit.params == pytest.approx(2, rel=1e-3)


@pytest.mark.soak
@pytest.mark.parametrize("second", ["none", "backward"])
def test_a_fit_of_what_goes_backward_only_has_reasons_and_errors(second):
    """As a plain exponential has them, whether or not the user's rule has a derivative itself."""

    @jax.custom_vjp
    def decay(rate, x):
        return jnp.exp(-rate * x)

    @jax.custom_vjp
    def once(x):
        return x

    once.defvjp(lambda x: (x, None), _no_second if second == "none" else lambda _, g: (g,))
    decay.defvjp(
        lambda b, x: (decay(b, x), (b, x)), lambda k, g: (once(-jnp.sum(g * k[1] * jnp.exp(-k[0] * k[1]))), None)
    )
    x = np.linspace(0.1, 2.0, 20)
    y = np.exp(-2 * x) + 0.05 * np.sin(9 * x)
    loss = jf.losses.rss(lambda p, x: decay(p["b"], x))
    fit = jf.fit(loss, {"b": 1.0}, (x, y), optimizer=jf.optimizers.lbfgs(), precision="float64")
    found = jf.explain(fit)
    b, bend = fit.params["b"], -x * np.exp(-fit.params["b"] * x)
    r = np.exp(-b * x) - y
    assert found.kind == "converged"
    np.testing.assert_allclose(jf.standard_errors(fit)["b"], np.sqrt(r @ r / 19 / (bend @ bend)), rtol=1e-9)
    expected = 2 * (bend @ bend + r @ (x**2 * np.exp(-b * x)))
    rounding = 10 * np.finfo("float32").eps ** (2 / 3 if second == "none" else 1)  # differences, or none
    np.testing.assert_allclose(jf.sharpness(loss, fit.params, fit.problem.data).value, expected, rtol=rounding)


def _no_second(_, g):
    raise NotImplementedError("no second derivative")
