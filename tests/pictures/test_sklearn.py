"""The estimator: scikit-learn's own checks, and agreement with its linear regression and with `curve_fit`."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import jaxfit as jf
from jaxfit.sklearn import Regressor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(20, 2)) * [1.0, 30.0] + [0.0, 500.0]
Y = X @ [2.0, -0.1] + 3 + 0.1 * RNG.normal(size=20)
T = np.linspace(0, 5, 20)
DECAY = 2 * np.exp(-1.3 * T) + 0.01 * RNG.normal(size=20)


@pytest.mark.soak
def test_scikit_learns_own_checks_pass_all_of_them():
    found = estimator_checks.check_estimator(Regressor(), on_skip=None)
    assert len(found) > 40
    skipped = {one["check_name"] for one in found if one["status"] == "skipped"}
    assert {one["status"] for one in found} <= {"passed", "skipped"} and skipped <= {"check_array_api_input"}


@pytest.mark.parametrize(
    "check",
    ["check_no_attributes_set_in_init", "check_get_params_invariance", "check_set_params", "check_estimator_cloneable"],
)
def test_the_quick_ones_of_its_checks_pass(check):
    getattr(estimator_checks, check)("Regressor", Regressor())


def test_without_a_model_it_is_linear_regression_and_so_with_weights_and_in_a_pipeline():
    weight = RNG.uniform(0, 2, 20)
    ours, theirs = Regressor().fit(X, Y, weight), LinearRegression().fit(X, Y, weight)
    np.testing.assert_allclose(ours.params_["w"], theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    assert ours.status_ == jf.Status.CONVERGED and ours.n_iter_ < 20 and ours.n_features_in_ == 2
    piped = make_pipeline(StandardScaler(), Regressor()).fit(X, Y)
    np.testing.assert_allclose(piped.predict(X), LinearRegression().fit(X, Y).predict(X), rtol=1e-9)
    assert piped.score(X, Y) > 0.99


@pytest.mark.soak
def test_of_features_that_depend_on_each_other_the_smallest_slopes_are_taken():
    twice = np.concatenate([X, X[:, :1], np.ones((20, 1))], axis=1)
    ours, theirs = Regressor().fit(twice, Y), LinearRegression().fit(twice, Y)
    assert ours.status_ == jf.Status.CONVERGED
    np.testing.assert_allclose(ours.params_["w"], theirs.coef_, rtol=1e-6, atol=1e-6)


def test_a_weight_of_two_counts_a_sample_twice_and_one_of_zero_leaves_it_out():
    weight = np.array([0, 1, 2, 1] * 5)
    repeated = np.repeat(np.arange(20), weight)
    one, other = Regressor().fit(X, Y, weight), LinearRegression().fit(X[repeated], Y[repeated])
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=1e-9)


@pytest.mark.soak
def test_a_curve_starts_itself_and_ends_where_curve_fit_does():
    model = jf.models.exponential_decay
    ours = Regressor(model).fit(T[:, None], DECAY)
    theirs = jf.curve_fit(model, None, (T, DECAY))
    assert ours.params_["rate"] == pytest.approx(theirs.params["rate"], rel=1e-9)
    np.testing.assert_allclose(ours.predict(T[:3, None]), model(theirs.params, T[:3]), rtol=1e-5)


@pytest.mark.soak
def test_a_search_over_models_and_settings_clones_them():
    candidates = {"model": [jf.models.line, jf.models.exponential_decay]}
    search = GridSearchCV(Regressor(), candidates, cv=2).fit(T[::-1][:, None], DECAY[::-1])
    assert search.best_params_["model"] == jf.models.exponential_decay
    start = {"amplitude": jf.Bounded(1.0, low=0.0), "rate": jf.Fixed(1.3)}
    fixed = clone(Regressor(jf.models.exponential_decay, start)).fit(T[:, None], DECAY)
    assert fixed.params_["rate"] == 1.3 and fixed.params_["amplitude"] == pytest.approx(2, abs=0.05)


@pytest.mark.soak
def test_a_loss_and_an_optimizer_of_ones_own():
    wild = np.where(np.arange(20) == 7, 50.0, T * 2 - 1)
    settings = {"loss": jf.losses.mae, "optimizer": jf.optimizers.adam(0.05), "steps": 600}
    robust = Regressor(jf.models.line, {"w": 0.0, "b": 0.0}, **settings).fit(T[:, None], wild)
    assert robust.params_["w"] == pytest.approx(2, abs=0.05) and Regressor().fit(T[:, None], wild).params_["w"] < 1.9
    with pytest.raises(ValueError, match="leave one of the two out"):
        robust.fit(T[:, None], wild, np.ones(20))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Regressor().predict(X), NotFittedError, "not fitted yet"),
        (lambda: Regressor(lambda p, x: p * x).fit(X, Y), ValueError, "start is None, but .* give the params to start"),
        (
            lambda: Regressor().fit(X, Y, -np.ones(20)),
            ValueError,
            "sample_weight has shape .* 20 finite numbers, zero or",
        ),
        (lambda: Regressor().fit(X, Y, np.zeros(20)), ValueError, "sample_weight is zero for every sample"),
        (lambda: Regressor().fit(X, Y, np.ones(3)), ValueError, r"sample_weight has shape \(3,\)"),
    ],
)
def test_bad_arguments_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_fit_that_did_not_converge_warns():
    with pytest.warns(ConvergenceWarning, match="still running after 1 update"):
        Regressor(jf.models.exponential_decay, {"amplitude": 9.0, "rate": 0.1}, steps=1).fit(T[:, None], DECAY)


def test_scores_are_scikit_learns():
    assert cross_val_score(Regressor(), X, Y, cv=2).min() > 0.9
