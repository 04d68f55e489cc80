"""Losses against NumPy and finite differences, the laws they obey, and the words of their errors."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxfit import datasets, losses
from jaxfit.losses import regularization
from jaxfit.models import dense, line, polynomial
from jaxfit.problems.axes import Axis

T_U, T_C = datasets.thermometer()
X, PARAMS = 0.1 * T_U, {"w": 4.5, "b": -12.0}
RESIDUALS = 4.5 * X - 12.0 - T_C
INSIDE = np.abs(RESIDUALS) <= 2.0

LABELS = np.arange(11) % 3
SHARES = np.random.default_rng(0).dirichlet(np.ones(3), 11)
CLASSES = dense((1, 3))
WEIGHTS = [{"w": np.array([[0.5, -0.2, 0.1]]), "b": np.array([0.3, 0.0, -1.0])}]
LOGITS = X[:, None] @ WEIGHTS[0]["w"] + WEIGHTS[0]["b"]

GRID = np.array([0.0, 0.5, 2.0, 3.0, 7.0])
CUBIC = {"coefficients": np.array([0.1, -0.5, 0.3, 0.2])}


def trimmed(params, x, y):
    return jnp.mean(jnp.sort(jnp.square(line(params, x) - y))[:8])


def noisy(params, x, *, key):
    return line(params, x) + jax.random.normal(key, jnp.shape(x))


def noisy_loss(params, x, y, key):
    return jnp.mean(jnp.square(noisy(params, x, key=key) - y))


def weights(params):
    return [layer["w"] for layer in params]


def huber(predict, **options):
    return losses.huber(predict, delta=2.0, **options)


MAKERS = {"rss": losses.rss, "mse": losses.mse, "mae": losses.mae, "huber": huber}
CASES = {name: (make(line), PARAMS, (X, T_C)) for name, make in MAKERS.items()} | {
    "labels": (losses.softmax_cross_entropy(CLASSES), WEIGHTS, (X, LABELS)),
    "shares": (losses.softmax_cross_entropy(CLASSES), WEIGHTS, (X, SHARES)),
    "l2": (losses.l2(0.3), WEIGHTS, ()),
    "l2 of": (losses.l2(0.3, of=weights), WEIGHTS, ()),
    "smoothness": (losses.smoothness(polynomial(3), strength=0.1, x=GRID), CUBIC, ()),
    "sum": (trimmed + losses.l2(0.3) + losses.mae(line), PARAMS, (X, T_C)),
}
EVERY = pytest.mark.parametrize(("loss", "params", "data"), CASES.values(), ids=CASES)
EVERY_RESIDUAL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


# Values and gradients


def cross_entropy(shares):
    return -np.mean(np.sum(shares * np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)), 1))


def bends(x, y):
    """Twice the leading coefficients of the parabolas through three neighbors each."""
    return np.array([2 * np.polyfit(x[i : i + 3], y[i : i + 3], 2)[0] for i in range(len(x) - 2)])


CUBIC_BENDS = bends(GRID, np.polynomial.polynomial.polyval(GRID, CUBIC["coefficients"]))
TRIMMED = np.mean(np.sort(RESIDUALS**2)[:8])
EXPECTED = {
    "rss": np.sum(RESIDUALS**2),
    "mse": np.mean(RESIDUALS**2),
    "mae": np.mean(np.abs(RESIDUALS)),
    "huber": np.mean(np.where(INSIDE, RESIDUALS**2 / 2, 2.0 * (np.abs(RESIDUALS) - 1.0))),
    "labels": cross_entropy(np.eye(3)[LABELS]),
    "shares": cross_entropy(SHARES),
    "l2": 0.3 * (0.25 + 0.04 + 0.01 + 0.09 + 1.0),
    "l2 of": 0.3 * (0.25 + 0.04 + 0.01),
    "smoothness": 0.1 * np.mean(CUBIC_BENDS**2),
    "sum": TRIMMED + 0.3 * (4.5**2 + 12.0**2) + np.mean(np.abs(RESIDUALS)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_its_formula_with_and_without_jit(name):
    loss, params, data = CASES[name]
    for evaluate in (loss, jax.jit(loss)):
        value = evaluate(params, *data)
        assert value.shape == () and float(value) == pytest.approx(EXPECTED[name], rel=1e-5)
    assert 2 < INSIDE.sum() < 9  # both branches of the Huber loss are tried


@EVERY
def test_a_gradient_agrees_with_finite_differences(loss, params, data):
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(lambda p: jnp.asarray(p, float), params))
        shifts = 1e-6 * jnp.eye(flat.size)
        up, down = (jax.vmap(lambda p: loss(unravel(p), *data))(flat[None] + sign * shifts) for sign in (1, -1))
        np.testing.assert_allclose(
            ravel_pytree(jax.grad(loss)(unravel(flat), *data))[0], (up - down) / 2e-6, rtol=1e-6, atol=1e-7
        )


@EVERY
def test_a_lane_of_many_params_has_the_value_it_has_alone(loss, params, data):
    params = jax.tree.map(lambda p: np.asarray(p, np.float32), params)
    many = jax.tree.map(lambda p: np.stack([p, 2 * p]), params)
    values = jax.vmap(lambda p: loss(p, *data))(many)
    np.testing.assert_allclose(values[0], loss(params, *data), rtol=1e-5)
    assert values[0] != values[1]


def test_the_thermometer_has_the_printed_loss_and_slopes_at_the_start():
    value, grads = jax.value_and_grad(losses.mse(line))({"w": 1.0, "b": 0.0}, T_U, T_C)
    assert float(value) == pytest.approx(1763.8846, abs=1e-3)
    assert [float(grads["w"]), float(grads["b"])] == pytest.approx([4517.2964, 82.6], rel=1e-5)


@EVERY_RESIDUAL
def test_residuals_are_prediction_minus_target(make):
    np.testing.assert_allclose(make(line).residuals(PARAMS, X, T_C), RESIDUALS, rtol=1e-4, atol=1e-5)


def test_the_huber_loss_tends_to_half_the_squares_and_to_the_absolute_values():
    wide, narrow = losses.huber(line, delta=1e3)(PARAMS, X, T_C), losses.huber(line, delta=1e-3)(PARAMS, X, T_C)
    assert float(wide) == pytest.approx(EXPECTED["mse"] / 2, rel=1e-5)
    assert float(narrow) / 1e-3 == pytest.approx(EXPECTED["mae"], rel=1e-3)


def test_smoothness_is_free_for_straight_lines_and_strength_times_the_squared_second_derivative_for_parabolas():
    for x in (GRID, np.linspace(0, 1, 21)):
        penalty = losses.smoothness(polynomial(2), strength=0.5, x=x)
        assert float(penalty({"coefficients": np.array([4.0, -3.0, 0.0])})) == pytest.approx(0, abs=1e-5)
        assert float(penalty({"coefficients": np.array([4.0, -3.0, 1.5])})) == pytest.approx(0.5 * 3.0**2, rel=1e-3)


def test_on_a_grid_of_spacing_one_smoothness_is_the_mean_squared_second_difference():
    y = np.random.default_rng(1).normal(size=(9, 2))
    penalty = losses.smoothness(lambda params, x: params, strength=2.0, x=np.arange(9))
    assert float(penalty(y)) == pytest.approx(2 * np.mean(np.diff(y, 2, axis=0) ** 2), rel=1e-5)


def test_cross_entropy_of_a_class_ruled_out_by_an_infinite_logit_is_finite_with_its_gradient():
    def ruled_out(params, x):
        return jnp.stack([params * x, x, jnp.full_like(x, -jnp.inf)], axis=1)

    for y in (np.array([0, 1]), np.eye(3)[[0, 1]]):
        value, slope = jax.value_and_grad(losses.softmax_cross_entropy(ruled_out))(0.0, np.array([0.0, 1.0]), y)
        assert float(value) == pytest.approx((np.log(2) + np.log(1 + np.exp(-1))) / 2, rel=1e-5)
        assert float(slope) == pytest.approx(1 / (1 + np.e) / 2, rel=1e-5)


# Laws of the data


def test_the_residual_sum_of_squares_is_n_times_the_mean():
    assert float(losses.rss(line)(PARAMS, X, T_C)) == pytest.approx(11 * float(losses.mse(line)(PARAMS, X, T_C)))


@pytest.mark.parametrize("name", ["rss", "mse", "mae", "huber", "labels", "shares"])
def test_doubling_the_data_doubles_a_sum_and_keeps_a_mean(name):
    loss, params, data = CASES[name]
    doubled = loss(params, *(np.concatenate([column, column]) for column in data))
    assert float(doubled) == pytest.approx((2 if name == "rss" else 1) * float(loss(params, *data)), rel=1e-5)


def test_numbers_of_every_kind_and_container_give_the_same_loss():
    x, y = np.array([0, 1, 2, 3]), np.array([1, 0, 2, 200])
    expected = float(losses.mse(line)({"w": 2.0, "b": 1.0}, x * 1.0, y * 1.0))
    assert expected == np.mean((2 * x + 1 - y) ** 2)
    for convert in (list, jnp.asarray, np.uint8, lambda a: a.astype(">f8"), lambda a: np.repeat(a, 2)[::2]):
        assert float(losses.mse(line)({"w": 2, "b": 1}, convert(x), convert(y))) == expected


def test_one_point_needs_no_axis_so_that_gradients_can_be_taken_point_by_point():
    loss = losses.mse(line)
    assert float(loss({"w": 0.0, "b": 139.0}, 58, 153)) == 196.0
    points = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(PARAMS, X, T_C)
    whole = jax.grad(loss)(PARAMS, X, T_C)
    np.testing.assert_allclose([points[k].mean() for k in "wb"], [whole[k] for k in "wb"], rtol=1e-5)
    row = losses.mse(lambda params, x: jnp.sum(params * x))
    assert float(row(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0]), 4.0)) == 25.0


# Masks

WHERE = np.ones(11, bool)
WHERE[[0, 3, 10]] = False


def reciprocal(params, x):
    """A model that is infinite at zero, where padding often stands."""
    return params["w"] / x + params["b"]


MASKED = {
    **{name: (lambda m, make=make: make(reciprocal, masked=m), PARAMS, T_C) for name, make in MAKERS.items()},
    "columns": (lambda m: losses.mse(lambda p, x: CLASSES(p, x), masked=m), WEIGHTS, SHARES),
    "labels": (lambda m: losses.softmax_cross_entropy(CLASSES, masked=m), WEIGHTS, LABELS),
    "shares": (lambda m: losses.softmax_cross_entropy(CLASSES, masked=m), WEIGHTS, SHARES),
    "sum": (lambda m: losses.mse(reciprocal, masked=m) + losses.l2(0.1), PARAMS, T_C),
}


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_loss_and_its_gradient_are_those_of_the_shortened_data(name, fill):
    make, params, y = MASKED[name]
    x, spoiled = X.copy(), y.copy()
    x[~WHERE] = fill
    spoiled[~WHERE] = fill if spoiled.dtype.kind == "f" else -1
    value, grads = jax.jit(jax.value_and_grad(make(True)))(params, x, spoiled, WHERE)
    expected, expected_grads = jax.value_and_grad(make(False))(params, X[WHERE], y[WHERE])
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, expected_grads)


@pytest.mark.parametrize("make", [losses.rss, losses.mse, losses.mae, losses.huber])
def test_a_residual_of_zero_pulls_in_no_direction(make):
    x = np.array([0.0, 1.0, -2.0])
    value, grads = jax.value_and_grad(make(line))({"w": 3.0, "b": 1.0}, x, 3 * x + 1)
    assert value == 0 and grads == {"w": 0, "b": 0}


def test_masked_residuals_are_zero_and_masked_data_have_no_gradient():
    loss = losses.mse(reciprocal, masked=True)
    x = np.where(WHERE, X, np.nan)
    assert (loss.residuals(PARAMS, x, T_C, WHERE)[~WHERE] == 0).all()
    slopes = np.asarray(jax.grad(loss, argnums=1)(PARAMS, x, T_C, WHERE))
    assert (slopes[~WHERE] == 0).all() and (slopes[WHERE] != 0).all()


def test_padded_data_sets_have_the_losses_they_have_alone():
    sets = [(X[:n], T_C[:n]) for n in (4, 11, 7)]
    values = jax.vmap(losses.mse(reciprocal, masked=True), in_axes=(None, 0, 0, 0))(PARAMS, *datasets.pad(sets))
    np.testing.assert_allclose(values, [losses.mse(reciprocal)(PARAMS, *data) for data in sets], rtol=1e-5)


@EVERY_RESIDUAL
def test_without_any_row_that_counts_a_loss_is_not_a_number(make):
    value = jax.jit(make(reciprocal, masked=True))(PARAMS, 0 * X, T_C, np.zeros(11, bool))
    assert np.isnan(value)


# Losses as values


def every_kind(predict=line, number=0.5, masked=False, grid=GRID):
    return [
        losses.rss(predict, masked=masked),
        losses.mse(predict, masked=masked),
        losses.mae(predict, masked=masked),
        losses.huber(predict, delta=number, masked=masked),
        losses.softmax_cross_entropy(predict, masked=masked),
        losses.l2(number),
        losses.l2(number, of=weights),
        losses.smoothness(predict, strength=number, x=grid),
        losses.mse(predict, masked=masked) + losses.l2(number),
        losses.l2(number) + losses.mse(predict, masked=masked),
        trimmed + losses.l2(number),
    ]


def test_equal_arguments_give_equal_losses_with_equal_hashes():
    first, second = every_kind(polynomial(2), grid=GRID.tolist()), every_kind(polynomial(2), np.float64(0.5))
    assert first == second and list(map(hash, first)) == list(map(hash, second))
    assert pickle.loads(pickle.dumps(first)) == first


def test_other_arguments_give_other_losses():
    kinds = [every_kind(), every_kind(polynomial(1)), every_kind(number=0.7), every_kind(masked=True)]
    assert [len(set(kind)) for kind in kinds] == [11] * 4
    assert [len(set(same)) for same in zip(*kinds, strict=True)] == [3, 3, 3, 4, 3, 2, 2, 3, 4, 4, 2]
    assert losses.smoothness(line, strength=1.0, x=GRID) != losses.smoothness(line, strength=1.0, x=2 * GRID)


def test_a_grid_changed_afterwards_does_not_change_the_loss():
    grid = GRID.copy()
    penalty = losses.smoothness(line, strength=1.0, x=grid)
    grid[:] = 0
    assert penalty == losses.smoothness(line, strength=1.0, x=GRID)


def test_the_numbers_of_a_loss_are_its_leaves_under_their_names():
    loss = losses.huber(line, delta=2) + losses.l2(0.1) + losses.smoothness(line, strength=3, x=GRID) + trimmed
    leaves = {jax.tree_util.keystr(path, simple=True): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(loss)}
    names = [f"terms{i}{leaf}" for i, leaf in [(0, "delta"), (1, "strength"), (2, "strength"), (2, "x")]]
    assert list(leaves) == names
    assert [leaves[name] for name in names[:3]] == [2.0, 0.1, 3.0]
    assert all(jax.tree.leaves(make(line)) == [] for make in (losses.rss, losses.mse, losses.mae))


def test_a_loss_rebuilt_in_place_with_other_numbers_is_not_traced_again():
    traces = []

    def counted(params, x):
        traces.append(x)
        return line(params, x)

    evaluate = jax.jit(lambda loss, params: loss(params, X, T_C))
    values = [
        evaluate(losses.huber(counted, delta=d) + losses.l2(s), PARAMS) for d, s in [(1.0, 0.1), (2, 0.0), (2, 1.0)]
    ]
    assert len(traces) == 1
    assert float(values[1]) == pytest.approx(EXPECTED["huber"], rel=1e-5)
    assert float(values[2] - values[1]) == pytest.approx(4.5**2 + 12.0**2, rel=1e-4)


def test_numbers_can_be_traced_mapped_and_differentiated():
    deltas = jnp.array([0.5, 1.0, 2.0])
    values = jax.vmap(lambda d: losses.huber(line, delta=d)(PARAMS, X, T_C))(deltas)
    np.testing.assert_allclose(
        values, [losses.huber(line, delta=d)(PARAMS, X, T_C) for d in deltas.tolist()], rtol=1e-6
    )
    assert float(jax.grad(lambda s: losses.l2(s)(PARAMS))(0.1)) == pytest.approx(4.5**2 + 12.0**2)


@pytest.mark.parametrize("transform", [lambda loss: loss, jax.jit, jax.checkpoint])
def test_a_loss_with_traced_numbers_can_be_transformed_inside_the_trace(transform):
    slope = jax.jit(lambda loss: jax.grad(transform(loss))(PARAMS, X, T_C)["b"])(huber(line))
    assert float(slope) == pytest.approx(np.mean(np.clip(RESIDUALS, -2, 2)), rel=1e-5)


def test_any_marker_may_stand_at_a_number():
    axis = Axis("delta", [1.0, 2.0])
    for build in (
        lambda v: losses.huber(line, delta=v),
        losses.l2,
        lambda v: losses.smoothness(line, strength=v, x=v),
        lambda v: trimmed + losses.l2(v),
    ):
        loss = build(axis)
        assert set(jax.tree.leaves(loss)) == {axis} and hash(loss) == hash(build(axis)) and loss == build(axis)
        assert set(jax.tree.leaves(jax.tree.map(lambda _: "anything", loss))) == {"anything"}


def test_losses_read_as_they_are_written():
    loss = losses.mse(line) + losses.huber(line, delta=2, masked=True) + losses.l2(0.1, of=weights) + trimmed
    assert repr(loss) == "mse(line) + huber(line, delta=2.0, masked=True) + l2(0.1, of=weights) + trimmed"
    assert repr(trimmed + losses.l2(0.1)) == "trimmed + l2(0.1)"
    assert repr(losses.smoothness(polynomial(2), strength=1, x=GRID)) == "smoothness(polynomial(2), strength=1.0)"
    assert repr(losses.softmax_cross_entropy(CLASSES)) == "softmax_cross_entropy(dense((1, 3), 'tanh'))"


# Sums


def test_sums_add_the_values_of_their_terms_in_any_grouping():
    a, b, c = losses.mse(line), losses.l2(0.1), losses.mae(line)
    assert (a + b) + c == a + (b + c)
    data = (PARAMS, X, T_C)
    assert float((a + b + c)(*data)) == pytest.approx(float(a(*data) + b(*data) + c(*data)), rel=1e-6)
    for mixed in (trimmed + b, b + trimmed):
        assert float(mixed(*data)) == pytest.approx(float(trimmed(*data) + b(*data)), rel=1e-6)


@pytest.mark.parametrize("other", [0.1, None, "l2", np.float64(1.0)])
def test_only_losses_and_functions_can_be_added(other):
    for add in (lambda: losses.mse(line) + other, lambda: other + losses.mse(line)):
        with pytest.raises(TypeError, match="cannot be added to a loss; add a loss, a penalty such as l2"):
            add()


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (losses.mse(line), ("x", "y")),
        (losses.softmax_cross_entropy(line, masked=True), ("x", "y", "where")),
        (losses.l2(0.1), ()),
        (losses.l2(0.1) + losses.mse(line, masked=True), ("x", "y", "where")),
        (losses.l2(0.1) + trimmed, ("x", "y")),
        (lambda params: 0.0, ()),
        (lambda params, images, labels, key=None, *rest, scale=1: 0.0, ("images", "labels")),
        (jax.jit(noisy_loss), ("x", "y")),
        (max, ()),
    ],
)
def test_a_loss_knows_the_names_of_its_data(loss, names):
    assert losses.data_names(loss) == names
    if isinstance(loss, losses.Loss):
        assert loss.data_names == names


def test_a_sum_knows_whether_its_data_are_masked():
    assert (losses.l2(0.1) + losses.mse(line, masked=True)).masked
    assert not (losses.l2(0.1) + losses.mse(line)).masked


# Keys


@pytest.mark.parametrize(
    ("loss", "takes"),
    [
        (losses.mse(line), False),
        (losses.mse(noisy), True),
        (losses.softmax_cross_entropy(noisy, masked=True), True),
        (losses.smoothness(noisy, strength=1.0, x=GRID), True),
        (losses.l2(0.1), False),
        (losses.mse(line) + losses.l2(0.1), False),
        (losses.mse(line) + losses.l2(0.1) + noisy_loss, True),
        (noisy_loss, True),
        (jax.jit(noisy_loss), True),
        (trimmed, False),
        (lambda key, x: 0.0, False),
        (lambda params, **key: 0.0, False),
        (max, False),
    ],
)
def test_a_loss_takes_a_key_if_a_function_in_it_has_an_argument_of_that_name(loss, takes):
    assert losses.takes_key(loss) is takes


def test_a_key_reaches_the_terms_that_take_it_and_no_other():
    key = jax.random.key(0)
    expected = np.mean((RESIDUALS + np.asarray(jax.random.normal(key, (11,)))) ** 2)
    assert float(losses.mse(noisy)(PARAMS, X, T_C, key=key)) == pytest.approx(expected, rel=1e-5)
    both = losses.mse(noisy) + losses.mae(line) + noisy_loss + losses.l2(0.0)
    assert float(both(PARAMS, X, T_C, key=key)) == pytest.approx(2 * expected + EXPECTED["mae"], rel=1e-5)
    np.testing.assert_allclose(
        losses.mse(noisy).residuals(PARAMS, X, T_C, key=key), noisy(PARAMS, X, key=key) - T_C, rtol=1e-4, atol=1e-5
    )


NOISY = losses.input_noise(losses.mse(line), scale=0.5)


def test_input_noise_is_the_loss_at_other_inputs_of_that_spread():
    seen = []

    def watching(params, x):
        seen.append(x)
        return line(params, x)

    value = losses.input_noise(losses.mse(watching), scale=0.5)(PARAMS, X, T_C, key=jax.random.key(1))
    assert float(value) == pytest.approx(float(losses.mse(line)(PARAMS, seen[0], T_C)), rel=1e-6)
    keys = jax.random.split(jax.random.key(0), 2000)
    draws = jax.vmap(lambda key: regularization._noise(0.5, X, key))(keys) - X[None, :]
    assert float(jnp.abs(draws.mean(0)).max()) < 4 * 0.5 / 2000**0.5
    np.testing.assert_allclose(draws.std(0), 0.5, rtol=4 / 4000**0.5)
    assert abs(np.corrcoef(np.asarray(draws).T) - np.eye(11)).max() < 4.5 / 2000**0.5


def test_input_noise_adds_its_variance_times_the_squared_slope_on_average():
    keys = jax.random.split(jax.random.key(2), 4000)
    values = jax.vmap(lambda key: NOISY(PARAMS, X, T_C, key=key))(keys)
    expected = EXPECTED["mse"] + 0.5**2 * 4.5**2
    assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std()) / 4000**0.5)
    assert float(values.std()) / 4000**0.5 < 0.02 * (expected - EXPECTED["mse"])


def test_no_input_noise_is_a_scale_of_zero():
    quiet = losses.input_noise(losses.mse(line), scale=0)
    assert float(quiet(PARAMS, X, T_C, key=jax.random.key(0))) == pytest.approx(EXPECTED["mse"], rel=1e-6)


def test_input_noise_wraps_sums_functions_and_masked_losses_and_hands_them_a_key_of_their_own():
    key = jax.random.key(3)
    masked = losses.input_noise(losses.mse(line, masked=True), scale=0.5)
    assert masked.masked and masked.data_names == ("x", "y", "where")
    assert np.isfinite(masked(PARAMS, np.where(WHERE, X, np.nan), T_C, WHERE, key=key))
    both = losses.input_noise(trimmed + losses.l2(0.3), scale=0.5)
    apart = losses.input_noise(trimmed, scale=0.5)(PARAMS, X, T_C, key=key) + losses.l2(0.3)(PARAMS)
    assert float(both(PARAMS, X, T_C, key=key)) == pytest.approx(float(apart), rel=1e-6)
    deep = losses.input_noise(losses.mse(noisy), scale=0.5)
    inner = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (11,)))
    outer = np.asarray(regularization._noise(0.5, X, key))
    expected = np.mean((4.5 * outer - 12.0 + inner - T_C) ** 2)
    assert float(deep(PARAMS, X, T_C, key=key)) == pytest.approx(expected, rel=1e-5)


def test_input_noise_is_a_value_with_its_scale_as_a_leaf():
    assert NOISY == losses.input_noise(losses.mse(line), scale=0.5) and len({NOISY, NOISY + losses.l2(0.1)}) == 2
    assert NOISY != losses.input_noise(losses.mse(line), scale=0.4) and losses.takes_key(NOISY)
    both = losses.input_noise(losses.huber(line, delta=2.0), scale=0.5)
    assert jax.tree.leaves(both) == [2.0, 0.5]
    assert repr(both) == "input_noise(huber(line, delta=2.0), scale=0.5)"


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: NOISY(PARAMS, X, T_C), TypeError, r"needs a key: pass key=jax.random.key\(0\), or to fit key=0"),
        (lambda: NOISY(PARAMS, key=jax.random.key(0)), TypeError, r"takes the data \(x, y\), but got none"),
        (lambda: losses.input_noise(losses.l2(0.1), scale=1), TypeError, "takes no data to add noise to"),
        (lambda: losses.input_noise(3, scale=1), TypeError, "^loss is 3, which cannot be called; pass a loss"),
        (lambda: losses.input_noise(losses.mse(line), scale=-1), ValueError, "^scale is -1; it must be zero or more"),
        (lambda: losses.input_noise(losses.mse(line), scale="1"), TypeError, "^scale is '1'"),
    ],
)
def test_bad_arguments_of_input_noise_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def prior(params):
    return jnp.square(params["w"] - 1.0)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_function_of_the_params_alone_is_a_term_that_ignores_the_data(seed, turned):
    rng = np.random.default_rng(seed)
    x, y, w, b = rng.normal(size=7), rng.normal(size=7), *rng.normal(size=2)
    params = {"w": w, "b": b}
    loss = prior + losses.mse(line) if turned else losses.mse(line) + prior
    assert losses.data_names(loss) == ("x", "y") and losses.takes_data(loss) and loss.by_row
    expected = np.mean((w * x + b - y) ** 2) + (w - 1) ** 2
    assert float(loss(params, x, y)) == pytest.approx(expected, rel=1e-5)
    residual = losses.rss(line) + losses.least_squares(lambda params: jnp.atleast_1d(params["w"] - 1.0))
    blocks = residual.blocks(params, x, y)
    assert sum(float(jnp.sum(b.weight * b.residuals**2)) for b in blocks) == pytest.approx(
        7 * np.mean((w * x + b - y) ** 2) + (w - 1) ** 2, rel=1e-5
    )


def test_sums_without_data_take_none_and_have_no_rows():
    for loss in (losses.l2(0.1), prior + losses.l2(0.1), losses.l2(0.1) + prior + prior):
        assert losses.data_names(loss) == () and not losses.takes_data(loss) and not loss.by_row
    assert losses.takes_data(losses.l2(0.1) + (lambda params, *data: 0.0))
    ragged = losses.l2(0.1) + (lambda params, x, y: jnp.sum(x) + jnp.sum(y))  # not rows of observations
    assert losses.data_names(ragged) == ("x", "y") and not ragged.by_row


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda params, strength=0.1: 0.0, r"called with the params and all 2 data .*let it take them all, as \*data"),
        (lambda params, x, y, z: 0.0, r"called with the params and all 2 data \(missing a required argument: 'z'\)"),
        (lambda params, x, y: (0.0, x), "a term of a sum, returned .* must return one scalar; return the number alone"),
        (lambda params, x, y: None, "a term of a sum, returned None, but it must return one scalar"),
    ],
)
def test_a_function_that_cannot_be_a_term_of_a_sum_is_refused(term, message):
    with pytest.raises(TypeError, match=message):
        (losses.mse(line) + term)(PARAMS, X, T_C)


@pytest.mark.parametrize("loss", [jax.jit(losses.mse(line)), jax.checkpoint(losses.mse(line))])
def test_a_transformed_loss_tells_of_the_loss_inside(loss):
    assert not losses.takes_key(loss) and losses.data_names(loss) == ("x", "y")
    assert losses.takes_key(jax.checkpoint(NOISY))


@pytest.mark.parametrize("loss", [losses.mse(line), losses.mse(line) + losses.l2(0.1)], ids=repr)
def test_a_key_that_nothing_takes_is_refused(loss):
    with pytest.raises(
        TypeError, match="takes no key: none of its functions has an argument named `key`; leave key out"
    ):
        loss(PARAMS, X, T_C, key=jax.random.key(0))


# Errors


class Unhashable:
    __hash__ = None

    def __call__(self, params, x):
        return x


NET = dense((1, 1))
NET_PARAMS = NET.init(0)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("predict", "y", "message"),
    [
        (lambda p, x: x[:, None], T_C, r"\(11, 1\), the target y \(11,\); .* never broadcasts .* prediction\[:, 0\]$"),
        (lambda p, x: x, T_C[:, None], r"\(11,\), the target y \(11, 1\); .* of shape \(11, 1\), or pass y\[:, 0\]$"),
        (lambda p, x: x[0], T_C, r"prediction has shape \(\), .* return predictions of shape \(11,\)$"),
        (lambda p, x: x[:1], T_C, r"prediction has shape \(1,\), .* return predictions of shape \(11,\)$"),
        (lambda p, x: jnp.ones((2, 11)), np.ones((11, 2)), r"return .* \(11, 2\), or reshape y to \(2, 11\)$"),
    ],
)
def test_predictions_are_never_broadcast_against_targets(predict, y, message, jit):
    loss = losses.mse(predict)
    with pytest.raises(ValueError, match=f"(?m){message}"):  # under jit JAX adds lines of its own
        (jax.jit(loss) if jit else loss)(PARAMS, X, y)


@pytest.mark.parametrize(
    ("loss", "data", "error", "message"),
    [
        (losses.mse(line), (X, T_C[:9]), ValueError, r"x has shape \(11,\) and y \(9,\); .* drop the rows"),
        (losses.mse(line), (X, [1.0]), ValueError, r"x has shape \(11,\) and y \(1,\); .* one length"),
        (losses.mse(line), (3.0, T_C), ValueError, r"x has shape \(\) and y \(11,\)"),
        (losses.mse(line), (X[:0], T_C[:0]), ValueError, r"y has shape \(0,\), so there is no data; pass at least one"),
        (losses.mse(line), (X, T_C, WHERE), TypeError, r"takes the data \(x, y\), but got 3 .* masked=True"),
        (losses.mse(line, masked=True), (X, T_C), TypeError, r"takes the data \(x, y, where\), but got 2 arrays"),
        (
            losses.mse(line, masked=True),
            (X, T_C, WHERE * 1),
            TypeError,
            r"where holds int32 .*pass where.astype\(bool\)",
        ),
        (losses.mse(line, masked=True), (X, T_C, WHERE[:9]), ValueError, r"where has shape \(9,\) .* one entry a row"),
        (losses.mse(line, masked=True), (X, T_C, WHERE & False), ValueError, "where is False everywhere"),
        (losses.mse(line), (X, ["1"] * 11), TypeError, "y holds <U1 values, but must hold real numbers"),
        (losses.mse(line), (X + 1j, T_C), TypeError, "x holds complex128 values"),
        (losses.mse(line), (X, np.full(11, 2**40)), ValueError, r"y holds integers too large .*y.astype\(float\)"),
        (losses.mse(lambda p, x: (x, x)), (X, T_C), TypeError, "predict returned a tuple; it must return one array"),
        (losses.mse(lambda p, x: 1j * x), (X, T_C), TypeError, "prediction holds complex64 values"),
        (
            losses.softmax_cross_entropy(line),
            (X, LABELS),
            ValueError,
            r"logits \(n, classes\), for y give labels \(n,\)",
        ),
        (losses.smoothness(lambda p, x: x[1:], strength=1.0, x=GRID), (), ValueError, r"\(4,\) on a grid x .* \(5,\)"),
        (losses.l2(0.1, of=lambda p: ()), (), ValueError, "no params to penalize; choose some with of="),
    ],
)
def test_data_of_the_wrong_structure_are_refused(loss, data, error, message):
    with pytest.raises(error, match=message):
        loss(PARAMS, *data)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (LABELS * 1.0, TypeError, r"y holds labels of type float32; labels must be integers: pass y.astype\(int\)"),
        (LABELS + 1, ValueError, r"y holds the label 3, but predict returns 3 logits, .* 0 .. 2: number the classes"),
        (LABELS - 1, ValueError, "y holds the label -1"),
        (LABELS[:, None], ValueError, r"prediction has shape \(11, 3\), the target y \(11, 1\)"),
        (np.eye(4)[LABELS], ValueError, r"the target y \(11, 4\); .* probabilities \(n, classes\)"),
    ],
)
def test_targets_that_are_no_classes_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        losses.softmax_cross_entropy(CLASSES)(WEIGHTS, X, y)


@pytest.mark.parametrize("shift", [1, -1])
def test_a_traced_label_that_is_no_class_makes_the_loss_nan_instead_of_a_wrong_number(shift):
    assert jnp.isnan(jax.jit(losses.softmax_cross_entropy(CLASSES))(WEIGHTS, X, LABELS + shift))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: losses.mse(PARAMS), TypeError, "^predict is {.*}, which cannot be called; pass a function, such as"),
        (lambda: losses.softmax_cross_entropy(None), TypeError, "^predict is None"),
        (
            lambda: losses.huber(Unhashable()),
            TypeError,
            "^predict is .*, which cannot be hashed, .* pass a plain function",
        ),
        (lambda: losses.l2(0.1) + Unhashable(), TypeError, "^the function is .*, which cannot be hashed"),
        (lambda: losses.mse(line, masked=WHERE), TypeError, r"^masked is array.* part of the data: \(x, y, where\)"),
        (lambda: losses.huber(line, delta=0), ValueError, "^delta is 0; it must be positive, and finite"),
        (lambda: losses.huber(line, delta=np.nan), ValueError, "^delta is nan; it must be positive"),
        (lambda: losses.huber(line, delta=True), TypeError, "^delta is True; it must be a number, positive"),
        (lambda: losses.l2(-0.1), ValueError, "^strength is -0.1; it must be zero or more, and finite"),
        (lambda: losses.l2(np.array(np.inf)), ValueError, "^strength is inf"),
        (lambda: losses.l2("0.1"), TypeError, "^strength is '0.1'; it must be a number, zero or more"),
        (lambda: losses.l2(None), TypeError, "^strength is None"),
        (lambda: losses.l2(0.1, of="w"), TypeError, "^of is 'w', which cannot be called"),
        (lambda: losses.smoothness(line, strength=-1, x=GRID), ValueError, "^strength is -1"),
        (lambda: losses.smoothness(3, strength=1, x=GRID), TypeError, "^predict is 3"),
        (
            lambda: losses.smoothness(line, strength=1, x=GRID[::-1]),
            ValueError,
            "^x must be finite and .* increasing; sort",
        ),
        (lambda: losses.smoothness(line, strength=1, x=[0, 1, np.inf]), ValueError, "^x must be finite"),
        (lambda: losses.smoothness(line, strength=1, x=[0, 0, 1]), ValueError, "np.unique"),
        (
            lambda: losses.smoothness(line, strength=1, x=[0, 1]),
            ValueError,
            r"^x has shape \(2,\); .* three points or more",
        ),
        (lambda: losses.smoothness(line, strength=1, x="grid"), TypeError, "^x is 'grid'; it must be a grid"),
    ],
)
def test_bad_arguments_are_refused_when_the_loss_is_made(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_no_penalty_at_all_is_a_strength_of_zero():
    assert float(losses.l2(0)(PARAMS)) == 0
