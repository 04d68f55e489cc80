"""Models against NumPy, and their initial params against the distributions they are documented to have."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit import datasets, losses, models
from tests.shared.soak import soaking

X = np.linspace(-2, 2, 9)


def decay(x, rate, height=2.0, *, offset=0.5):
    return height * jnp.exp(-rate * x) + offset


ALL = [
    (models.line, 2),
    (models.polynomial(3), 4),
    (models.orthogonal_polynomial(3, X), 4),
    (models.dense((1, 5, 1)), 16),
    (models.dense((1, 4, 3, 2), "relu"), 31),
    (models.from_function(decay), 2),
]


@pytest.mark.parametrize(("model", "count"), soaking(ALL, keep=[ALL[1], ALL[3]], names=2), ids=str)
def test_a_model_has_as_many_params_as_its_formula_and_runs_under_jit_grad_and_vmap(model, count):
    params = model.init(0)
    assert sum(jnp.size(p) for p in jax.tree.leaves(params)) == count
    expected = model(params, X)
    np.testing.assert_allclose(jax.jit(model)(params, X), expected, rtol=1e-5)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(model(p, X))))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    many = jax.jit(jax.vmap(model.init))(np.arange(4))
    values = jax.jit(jax.vmap(model, in_axes=(0, None)))(many, X)
    np.testing.assert_allclose(values[0], expected, rtol=1e-5)


@pytest.mark.parametrize(("model", "_"), ALL, ids=str)
def test_init_follows_its_key_and_takes_a_seed_or_the_key_of_it(model, _):
    a, b, c = (np.concatenate([np.ravel(v) for v in jax.tree.leaves(model.init(k))]) for k in (3, jax.random.key(3), 4))
    assert (a == b).all() and (a != c).any()
    with pytest.raises(ValueError, match="key is -1"):
        model.init(-1)


def test_equal_arguments_give_equal_models_and_other_arguments_others():
    def build():
        return [
            models.Line(),
            models.polynomial(2),
            models.polynomial(3),
            models.orthogonal_polynomial(2, X.tolist()),
            models.orthogonal_polynomial(3, X),
            models.orthogonal_polynomial(3, 2 * X),
            models.dense([1, 4, 1]),
            models.dense([1, 4, 1], "relu"),
            models.dense([1, 5, 1]),
            models.from_function(decay),
            models.from_function(lambda x, a: a * x),
        ]

    first, second = build(), build()
    assert first[:-1] == second[:-1] and list(map(hash, first[:-1])) == list(map(hash, second[:-1]))
    assert len(set(first)) == len(first) and first[-1] != second[-1]
    assert pickle.loads(pickle.dumps(first[:-1])) == first[:-1]


def test_models_read_as_they_are_written():
    assert [repr(model) for model, _ in ALL] == [
        "line",
        "polynomial(3)",
        "orthogonal_polynomial(3)",
        "dense((1, 5, 1), 'tanh')",
        "dense((1, 4, 3, 2), 'relu')",
        "from_function(decay)",
    ]


def test_the_line_is_a_slope_and_an_intercept_for_numbers_lists_and_arrays():
    params = {"w": 2.0, "b": -1.0}
    assert models.line(params, 3.0) == 5.0
    for x in ([0, 1, 2], np.arange(3), jnp.arange(3)):
        np.testing.assert_array_equal(models.line(params, x), [-1, 1, 3])


@pytest.mark.parametrize("degree", [0, 1, 4])
def test_a_polynomial_takes_the_constant_first(degree):
    coefficients = np.random.default_rng(degree).normal(size=degree + 1)
    value = models.polynomial(degree)({"coefficients": coefficients}, X)
    assert value.shape == X.shape
    np.testing.assert_allclose(value, np.polynomial.polynomial.polyval(X, coefficients), rtol=1e-6)


def test_models_keep_numpys_float64_outside_of_jax():
    exact = 0.1 + 1e-12
    assert float(models.line({"w": np.float64(1), "b": np.float64(1e-12)}, np.array([0.1]))[0]) == exact
    assert float(models.polynomial(1)({"coefficients": np.array([1e-12, 1.0])}, np.array([0.1]))[0]) == exact


def test_a_polynomial_refuses_params_of_another_degree():
    with pytest.raises(ValueError, match=r"'coefficients'\] has shape \(2,\); a polynomial of degree 2 takes \(3,\)"):
        models.polynomial(2)(models.polynomial(1).init(0), X)


READINGS = np.array([35.7, 55.9, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4])


@pytest.mark.parametrize("points", [READINGS, np.repeat(READINGS, 2), READINGS * 1e-6, READINGS + 1e3], ids=str)
def test_orthogonal_polynomials_are_orthonormal_on_their_points(points):
    model = models.orthogonal_polynomial(8, points)
    with jax.enable_x64(True):
        basis = np.stack([model({"coefficients": unit}, points) for unit in np.eye(9)])
    np.testing.assert_allclose(basis @ basis.T / len(points), np.eye(9), atol=1e-8)


def test_orthogonal_polynomials_are_the_polynomials_of_their_degree():
    x, far = READINGS / 10, np.linspace(0, 10, 7)
    model = models.orthogonal_polynomial(3, x)
    coefficients = np.array([2.0, -1.0, 0.5, 0.3])
    with jax.enable_x64(True):
        fitted = np.polyfit(x, model({"coefficients": coefficients}, x), 3)
        np.testing.assert_allclose(np.polyval(fitted, far), model({"coefficients": coefficients}, far), rtol=1e-9)
        np.testing.assert_allclose(model({"coefficients": np.eye(4)[0]}, far), 1.0)


def test_one_update_of_gradient_descent_fits_an_orthogonal_polynomial():
    y = np.sin(READINGS)
    with jax.enable_x64(True):
        loss = losses.mse(models.orthogonal_polynomial(5, READINGS))
        start = {"coefficients": np.array([3.0, 1.0, -2.0, 0.0, 5.0, 1.0])}
        found = start["coefficients"] - 0.5 * np.asarray(jax.jit(jax.grad(loss))(start, READINGS, y)["coefficients"])
        least = np.mean((np.polyval(np.polyfit(READINGS, y, 5), READINGS) - y) ** 2)
        assert float(jax.jit(loss)({"coefficients": found}, READINGS, y)) == pytest.approx(least, rel=1e-9)


def test_an_orthogonal_polynomial_refuses_params_of_another_degree():
    with pytest.raises(ValueError, match=r"'coefficients'\] has shape \(2,\); a polynomial of degree 2 takes \(3,\)"):
        models.orthogonal_polynomial(2, X)(models.polynomial(1).init(0), X)


NUMPY = {
    "relu": lambda h: np.maximum(h, 0),
    "tanh": np.tanh,
    "sigmoid": lambda h: 1 / (1 + np.exp(-h)),
    "linear": lambda h: h,
}


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_a_network_activates_all_layers_but_the_last(activation):
    rng = np.random.default_rng(1)
    widths = (3, 4, 5, 2)
    pairs = list(zip(widths, widths[1:], strict=False))
    params = [{"w": rng.normal(size=pair), "b": rng.normal(size=pair[1])} for pair in pairs]
    x = rng.normal(size=(7, 3))
    h = x
    for i, layer in enumerate(params):
        h = h @ layer["w"] + layer["b"]
        h = NUMPY[activation](h) if i < 2 else h
    np.testing.assert_allclose(models.dense(widths, activation)(params, x), h, rtol=2e-4, atol=1e-5)


def test_a_network_of_one_input_takes_points_with_and_without_a_column():
    one, two = models.dense((1, 4, 1)), models.dense((1, 4, 2))
    flat, column = one(one.init(0), X), one(one.init(0), X[:, None])
    assert (flat.shape, column.shape) == ((9,), (9, 1))
    np.testing.assert_array_equal(flat, column[:, 0])
    assert two(two.init(0), X).shape == (9, 2)


@pytest.mark.parametrize(
    ("widths", "shape", "message"),
    [
        ((3, 1), (5, 2), r"x has shape \(5, 2\), but 3 inputs need \(n, 3\)$"),
        ((3, 1), (3,), r"x has shape \(3,\), but 3 inputs need \(n, 3\); for one point write x\[None, :\]"),
        ((1, 1), (5, 2), r"1 inputs need \(n, 1\) or \(n,\)"),
        ((1, 1), (), r"x has shape \(\), but 1 inputs"),
        ((3, 1), (2, 2, 3), r"x has shape \(2, 2, 3\)"),
    ],
)
def test_a_network_refuses_inputs_of_another_width(widths, shape, message):
    model = models.dense(widths)
    with pytest.raises(ValueError, match=message):
        model(model.init(0), np.ones(shape))


@pytest.mark.parametrize("other", [(1, 5, 1), (1, 4, 4, 1)])
def test_a_network_refuses_the_params_of_another(other):
    with pytest.raises(ValueError, match=r"these widths need \[\(\(1, 4\), \(4,\)\), \(\(4, 1\), \(1,\)\)\]; see init"):
        models.dense((1, 4, 1))(models.dense(other).init(0), X)


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2 / 100), ("tanh", 2 / 500), ("sigmoid", 2 / 500)])
def test_initial_weights_have_the_variance_of_he_or_glorot_and_biases_are_zero(activation, variance):
    first, last = jax.jit(models.dense((100, 400, 100), activation).init)(0)
    for layer, expected in ((first, variance), (last, 2 / 400 if activation == "relu" else variance)):
        assert np.var(layer["w"]) == pytest.approx(expected, rel=0.03)  # 40,000 draws: one deviation is 0.7 %
        assert abs(np.mean(layer["w"])) < 4 * (expected / 40_000) ** 0.5
        assert (layer["b"] == 0).all()


def test_layers_of_one_shape_start_at_different_weights():
    first, second = models.dense((3, 3, 3)).init(0)
    assert (first["w"] != second["w"]).all()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: models.polynomial(-1), ValueError, "degree is -1; it must be 0 or more"),
        (lambda: models.polynomial(1.0), TypeError, "degree is 1.0; it must be a whole number"),
        (lambda: models.polynomial(True), TypeError, "degree is True"),
        (lambda: models.orthogonal_polynomial(-1, X), ValueError, "degree is -1; it must be 0 or more"),
        (
            lambda: models.orthogonal_polynomial(2, [1, 1, 2]),
            ValueError,
            "degree is 2, but x has 2 distinct points, .* up to degree 1 differ: choose a lower degree",
        ),
        (lambda: models.orthogonal_polynomial(0, X[:, None]), ValueError, r"x has shape \(9, 1\); it must be \(n,\)"),
        (lambda: models.orthogonal_polynomial(0, [1, np.nan]), ValueError, r"must be \(n,\) finite points"),
        (lambda: models.orthogonal_polynomial(0, ["1"]), TypeError, "x holds <U1 values"),
        (lambda: models.dense((1, 0, 1)), ValueError, r"widths\[1\] is 0; it must be 1 or more"),
        (lambda: models.dense((1, 2.5, 1)), TypeError, r"widths\[1\] is 2.5; it must be a whole number"),
        (lambda: models.dense((3,)), ValueError, r"widths is \(3,\); give at least the inputs and the outputs"),
        (lambda: models.dense(3), TypeError, "widths is 3; it must be a sequence of whole numbers"),
        (lambda: models.dense((1, 1), "tahn"), ValueError, "activation is 'tahn'; did you mean 'tanh'.* one of 'relu'"),
        (lambda: models.dense((1, 1), "ReLU"), ValueError, "did you mean 'relu'"),
        (lambda: models.dense((1, 1), jnp.tanh), ValueError, "it must be one of 'relu', 'tanh', 'sigmoid', 'linear'"),
        (lambda: models.from_function(3), TypeError, r"f is 3, but it must be a function f\(x, a, b\)"),
        (lambda: models.from_function(lambda x: x), ValueError, "f has no parameters to fit after its first argument"),
        (lambda: models.from_function(lambda: 0), ValueError, "f has no parameters to fit"),
        (
            lambda: models.from_function(lambda x, *p: x),
            ValueError,
            r"f takes \*args, .*write them out: lambda x, a, b",
        ),
        (lambda: models.from_function(max), ValueError, "whose arguments cannot be read; write them out"),
        (
            lambda: models.from_function(lambda x, mode="cubic": x),
            TypeError,
            "'mode' has the default 'cubic', .*partial",
        ),
    ],
)
def test_bad_arguments_are_refused_when_the_model_is_made(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_function_becomes_a_model_of_its_named_parameters():
    model = models.from_function(decay)
    params = {"height": 3.0, "rate": 0.7}
    np.testing.assert_allclose(model(params, X), 3 * np.exp(-0.7 * X) + 0.5, rtol=1e-6)


def test_a_functions_defaults_are_where_its_parameters_start():
    model = models.from_function(decay)
    assert list(model.init(0)) == ["rate", "height"]
    starts = jax.jit(jax.vmap(model.init))(np.arange(300))
    assert (starts["height"] == 2).all()
    assert abs(starts["rate"].mean()) < 4 / 300**0.5 and float(starts["rate"].std()) == pytest.approx(1, abs=0.15)


def test_parameters_bound_by_keyword_are_constants_and_the_rest_still_params():
    model = models.from_function(functools.partial(decay, height=5.0))
    assert list(model.init(0)) == ["rate"]
    np.testing.assert_allclose(model({"rate": 0.0}, X), np.full(9, 5.5))
    halved = models.from_function(functools.partial(lambda x, a, b: a * x - b, a=0.5))
    np.testing.assert_allclose(halved({"b": 1.0}, X), 0.5 * X - 1)


def test_the_line_of_least_squares_is_where_both_slopes_of_the_loss_vanish():
    age, pressure = datasets.blood_pressure()
    line = models.line.least_squares(age, pressure)
    np.testing.assert_allclose([line["w"], line["b"]], np.polyfit(age, pressure, 1), rtol=1e-12)
    residuals = line["w"] * age + line["b"] - pressure
    assert abs(residuals.sum()) < 1e-9 and abs((residuals * age).sum()) < 1e-7
    large = models.line.least_squares(1e200 * age, pressure)
    assert large["w"] == pytest.approx(line["w"] / 1e200)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([3.0, 3.0], [1.0, 2.0], "x is 3 at every point, .* two different x"),
        ([3.0], [1.0], "x is 3 at every point"),
        ([], [], "x is empty"),
        ([1.0, 2.0], [1.0], r"x has shape \(2,\) and y \(1,\)"),
        ([1.0, np.nan], [1.0, 2.0], "NaN"),
    ],
)
def test_a_line_that_is_not_determined_is_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        models.line.least_squares(x, y)
