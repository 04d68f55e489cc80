"""The range test against its closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.problems import PROBLEMS

CURVATURES = np.array([1.0, 100.0])


def bowl(params, curvatures):
    return 0.5 * jnp.sum(curvatures * params**2)


@pytest.fixture(scope="module")
def tested():
    def run(start, steps=400):
        return jf.learning_rate_range(
            bowl, start, (CURVATURES,), optimizer=jf.optimizers.sgd(1.0), between=(1e-4, 1.0), steps=steps,
            precision="float64",
        )  # fmt: skip

    return run


def test_the_curve_on_a_quadratic_is_the_product_of_the_factors(tested):
    found = tested(np.ones(2))
    rates = np.geomspace(1e-4, 1.0, 400)[: found.curve.size]
    np.testing.assert_allclose(found.curve.learning_rate, rates, rtol=1e-12)
    law = 0.5 * np.sum(CURVATURES[None] * np.cumprod(1 - rates[:, None] * CURVATURES[None], axis=0) ** 2, axis=1)
    np.testing.assert_allclose(found.curve, law, rtol=1e-9)
    assert found.turn == pytest.approx(rates[np.argmin(law)]) and found.suggested == found.turn / 10
    assert str(found) == "the loss turns up at a learning rate of 0.112; try a tenth of it, 0.011"
    assert list(found.curve.step[:3]) == [1, 2, 3] and found.curve.name == "loss"


def test_the_loss_turns_up_between_the_law_and_the_zero_of_the_dilogarithm(tested):
    steep = tested(np.array([0.0, 1.0]))
    cell = 10 ** (4 / 399)
    assert 0.02 / cell < steep.turn < 0.02 * cell  # the factor of a step passes through -1
    rates, losses = np.asarray(steep.curve.learning_rate), np.asarray(steep.curve)
    back = rates[np.argmax((losses > 50) & (rates > 0.02))]
    assert 0.125951703698 / cell < back < 0.125951703698 * cell**2
    for steps in (100, 1600):
        assert 0.02 < tested(np.ones(2), steps).turn < 0.126


@pytest.mark.parametrize(
    ("between", "turn", "words"),
    [((1e-6, 1e-3), np.inf, "fell all the way"), ((1.0, 10.0), 1.0, "fell at no learning rate")],
)
def test_a_range_that_misses_the_turn_says_so(between, turn, words):
    found = jf.learning_rate_range(
        bowl, np.ones(2), (CURVATURES,), optimizer=jf.optimizers.sgd(1.0), between=between, steps=50
    )
    assert found.turn == turn and words in str(found)
    assert np.isnan(found.suggested) == (turn == 1.0)


@pytest.mark.soak
def test_batches_are_smoothed_before_the_turn_is_read():
    case = PROBLEMS["line"]
    found = jf.learning_rate_range(
        case.loss, case.start, case.data, optimizer=jf.optimizers.adam(1.0), between=(1e-4, 100.0), steps=200,
        batches=jf.Batches(2), key=0,
    )  # fmt: skip
    fit = jf.fit(case.loss, case.start, case.data, optimizer=jf.optimizers.adam(found.suggested), steps=2000)
    assert fit.loss < 3.2  # the least is 2.93


def test_a_bad_range_is_named():
    for between in [(1.0, 0.1), (0.0, 1.0), (1.0,), "ab"]:
        with pytest.raises(ValueError, match="learning_rate_range: between is .*the lower one first"):
            jf.learning_rate_range(bowl, np.ones(2), (CURVATURES,), optimizer=jf.optimizers.sgd(1.0), between=between)
    with pytest.raises(ValueError, match="no hyperparameter named learning_rate"):
        jf.learning_rate_range(bowl, np.ones(2), (CURVATURES,), optimizer=jf.optimizers.lbfgs())


def test_the_picture_says_where_it_turns_up_and_what_to_use(tested):
    ax = jf.plots.learning_rate_range(tested(np.ones(2)), law=0.02, law_label="2 / L")
    words = {text.get_text() for text in ax.texts}
    assert {"turns up at 0.112", "suggested: 0.011", "2 / L"} <= words
    assert ax.get_xlabel() == "learning rate of the step"
