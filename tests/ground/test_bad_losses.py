"""What a loss says of arguments and data that it does not take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit import losses
from jaxfit.models import dense, line
from tests.shared.loss_cases import CLASSES, GRID, LABELS, PARAMS, T_C, WEIGHTS, WHERE, X


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
