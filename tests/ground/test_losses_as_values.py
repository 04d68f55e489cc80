"""Losses as values: equal, hashable, with numbers as leaves, in sums, and with keys."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit import losses
from jaxfit.models import line, polynomial
from jaxfit.problems.axes import Axis
from tests.shared.loss_cases import (
    CLASSES,
    EXPECTED,
    GRID,
    NOISY,
    PARAMS,
    RESIDUALS,
    T_C,
    X,
    huber,
    noisy,
    noisy_loss,
    trimmed,
    weights,
)


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
