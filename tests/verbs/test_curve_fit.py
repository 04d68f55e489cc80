"""`curve_fit`, chi-squared and residuals of one's own: against closed forms, scipy's definition, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

RNG = np.random.default_rng(7)
X = np.linspace(0.0, 3.0, 20)
SIGMA = 0.05 * (1 + X)
Y = 1.5 * X - 0.4 + SIGMA * RNG.normal(size=20)
BASIS = np.stack([X, np.ones(20)], axis=1)
ROOT = np.tril(RNG.normal(size=(20, 20))) * 0.02 + 0.1 * np.eye(20)
COVARIANCE = ROOT @ ROOT.T
START = {"w": 1.0, "b": 0.0}


def line(params, x):
    return params["w"] * x + params["b"]


def generalized(weights, where=slice(None)):
    """The params that solve the normal equations of these points with these weights."""
    basis, y = BASIS[where], Y[where]
    return np.linalg.solve(basis.T @ weights @ basis, basis.T @ weights @ y)


def values(fit):
    return [fit.params["w"], fit.params["b"]]


def test_one_line_fits_a_curve():
    fit = jf.curve_fit(line, START, (X, Y))
    assert isinstance(fit, jf.Fit) and fit.status == jf.Status.CONVERGED and fit.precision == "float64"
    np.testing.assert_allclose(values(fit), np.polyfit(X, Y, 1), rtol=1e-11)
    np.testing.assert_allclose(fit.loss, np.sum((BASIS @ values(fit) - Y) ** 2), rtol=1e-12)


def test_standard_deviations_weigh():
    fit = jf.curve_fit(line, START, (X, Y), SIGMA)
    np.testing.assert_allclose(values(fit), generalized(np.diag(SIGMA**-2)), rtol=1e-11)


def test_a_covariance_weighs():
    fit = jf.curve_fit(line, START, (X, Y), COVARIANCE, absolute_sigma=True)
    inverse = np.linalg.inv(COVARIANCE)
    np.testing.assert_allclose(values(fit), generalized(inverse), rtol=1e-9)
    residuals = BASIS @ values(fit) - Y
    np.testing.assert_allclose(fit.loss, residuals @ inverse @ residuals, rtol=1e-9)
    assert fit.absolute_sigma is True


def test_one_sigma_for_all_scales_chi_squared_alone():
    one, all_ones = jf.curve_fit(line, START, (X, Y), 0.1), jf.curve_fit(line, START, (X, Y))
    np.testing.assert_allclose(values(one), values(all_ones), rtol=1e-12)
    np.testing.assert_allclose(one.loss, all_ones.loss / 0.01, rtol=1e-11)
    assert one.absolute_sigma is False and jf.fit(
        jf.losses.rss(line), START, (X, Y), optimizer=jf.optimizers.sgd(1e-3), steps=1
    ).absolute_sigma is None  # fmt: skip


@pytest.mark.soak
def test_marks_and_other_optimizers_go_with_it():
    start, lbfgs = {"w": 1.0, "b": jf.Fixed(0.0)}, jf.optimizers.lbfgs()
    fit = jf.curve_fit(line, start, (X, Y), SIGMA, optimizer=lbfgs, precision="float64")
    np.testing.assert_allclose(fit.params["w"], (X / SIGMA**2) @ Y / ((X / SIGMA**2) @ X), rtol=1e-7)
    assert fit.params["b"] == 0.0


def test_params_may_be_a_vector_and_x_of_many_columns():
    matrix = RNG.normal(size=(30, 2, 2))
    target = np.einsum("nij,ij->n", matrix, np.arange(4.0).reshape(2, 2)) + 0.1 * RNG.normal(size=30)
    fit = jf.curve_fit(lambda p, x: jnp.einsum("nij,ij->n", x, p), np.zeros((2, 2)), (matrix, target))
    np.testing.assert_allclose(fit.params.ravel(), np.linalg.lstsq(matrix.reshape(30, 4), target)[0], rtol=1e-10)


def test_targets_of_many_columns_have_sigmas_of_many_columns():
    y = np.stack([Y, 2 * Y], axis=1)
    sigma = np.stack([SIGMA, np.full(20, 1e3)], axis=1)  # the second column hardly counts
    fit = jf.curve_fit(lambda p, x: jnp.stack([line(p, x), line(p, x)], axis=1), START, (X, y), sigma)
    np.testing.assert_allclose(values(fit), generalized(np.diag(SIGMA**-2)), rtol=1e-5)


@pytest.mark.parametrize(
    "sigma", [SIGMA, pytest.param(COVARIANCE, marks=pytest.mark.soak)], ids=["deviations", "covariance"]
)
def test_masked_points_count_for_nothing(sigma):
    where = np.arange(20) % 3 != 0
    part = sigma[where] if sigma.ndim == 1 else sigma[np.ix_(where, where)]
    weights = np.diag(part**-2) if part.ndim == 1 else np.linalg.inv(part)
    expected = generalized(weights, where)
    residuals = (BASIS @ expected - Y)[where]
    y, marked = np.where(where, Y, np.nan), sigma.copy()
    marked[~where] = np.nan
    options = {"optimizer": jf.optimizers.levenberg_marquardt()}
    masked = jf.fit(jf.losses.chi_squared(line, masked=True), START, (X, y, marked, where), **options)
    np.testing.assert_allclose(values(masked), expected, rtol=1e-9)
    np.testing.assert_allclose(masked.loss, residuals @ weights @ residuals, rtol=1e-9)


def test_chi_squared_is_the_sum_of_squares_of_its_residuals():
    loss = jf.losses.chi_squared(line)
    with jax.enable_x64(True):
        params = {"w": np.float64(1.2), "b": np.float64(0.1)}
        plain = loss.residuals(params, X, Y, SIGMA)
        white = loss.residuals(params, X, Y, COVARIANCE)
        np.testing.assert_allclose(plain, (1.2 * X + 0.1 - Y) / SIGMA, rtol=1e-12)
        np.testing.assert_allclose(white, np.linalg.solve(np.linalg.cholesky(COVARIANCE), 1.2 * X + 0.1 - Y), rtol=1e-9)
        assert loss(params, X, Y, SIGMA) == jnp.sum(plain**2)
    assert loss == jf.losses.chi_squared(line) != jf.losses.chi_squared(line, masked=True)


def test_residuals_of_ones_own_take_any_data():
    def residuals(params, matrix, target):
        return matrix @ params - target

    loss = jf.losses.least_squares(residuals)
    fit = jf.fit(loss, np.zeros(2), (BASIS, Y), optimizer=jf.optimizers.levenberg_marquardt())
    np.testing.assert_allclose(fit.params, np.polyfit(X, Y, 1), rtol=1e-11)
    assert loss.data_names == ("matrix", "target") and loss == jf.losses.least_squares(residuals)


@pytest.mark.soak
def test_data_sets_and_sigmas_sweep_together():
    sets, sigmas = np.stack([Y, Y + 0.3 * X]), np.stack([SIGMA, SIGMA[::-1]])
    data = (X, jf.Axis("set", sets), jf.Axis("set", sigmas))
    options = {"optimizer": jf.optimizers.levenberg_marquardt()}
    grid = jf.sweep(jf.losses.chi_squared(line), START, data, **options)
    for i in range(2):
        alone = jf.curve_fit(line, START, (X, sets[i]), sigmas[i])
        np.testing.assert_allclose(grid.results["params.w"][i], alone.params["w"], rtol=1e-10)


def test_new_data_do_not_compile_anew(traces):
    model = traces(line)
    jf.curve_fit(model, START, (X, Y), SIGMA)
    count = model.count
    jf.curve_fit(model, {"w": 3.0, "b": 1.0}, (X, 2 * Y), 2 * SIGMA, absolute_sigma=True)
    assert model.count == count


def test_underdetermined_fits_count_what_is_free():
    fit = jf.fit(
        jf.losses.chi_squared(line), START, (X[:1], Y[:1], SIGMA[:1]), optimizer=jf.optimizers.sgd(1e-4), steps=1
    )
    assert "2 params are fitted to 1 point" in str(fit)
    one = jf.curve_fit(line, {"w": 1.0, "b": jf.Fixed(0.0)}, (X[1:2], Y[1:2]), SIGMA[1:2])
    assert "underdetermined" not in str(one) and "settled" in str(one)


def broken(matrix, i, j, value):
    copy = matrix.copy()
    copy[i, j] = value
    return copy


CHI = jf.losses.chi_squared(line)
LM = jf.optimizers.levenberg_marquardt()
REFUSED = {
    "a sigma of zero": (lambda: jf.curve_fit(line, START, (X, Y), np.where(X == X[3], 0.0, SIGMA)), ValueError,
        r"data\[2\] \(sigma\) has 1 of 20 values that are not positive, the first at index 3 \(0\)"),
    "a negative sigma": (lambda: jf.curve_fit(line, START, (X, Y), -0.1), ValueError, "not positive.*-0.1"),
    "a sigma of the wrong length": (lambda: jf.curve_fit(line, START, (X, Y), SIGMA[:5]), ValueError,
        r"sigma.*\(5,\)"),
    "a sigma of the wrong shape": (lambda: jf.curve_fit(line, START, (X, Y), SIGMA[:, None]), ValueError,
        r"sigma\) has shape \(20, 1\) and y \(20,\); give one standard deviation for each.*covariance matrix"),
    "a covariance that is not symmetric": (
        lambda: jf.curve_fit(line, START, (X, Y), broken(COVARIANCE, 2, 5, 9.0)), ValueError,
        r"not symmetric: \[2, 5\] is 9 and \[5, 2\]"),
    "a covariance that is not positive definite": (
        lambda: jf.curve_fit(line, START, (X, Y), np.ones((20, 20))), ValueError, "not positive definite: its least"),
    "a sigma that is not finite": (lambda: jf.curve_fit(line, START, (X, Y), SIGMA * np.inf), ValueError,
        "not finite"),
    "absolute without sigma": (lambda: jf.curve_fit(line, START, (X, Y), absolute_sigma=True), ValueError,
        "absolute_sigma is True, but there is no sigma"),
    "absolute that is no boolean": (lambda: jf.curve_fit(line, START, (X, Y), SIGMA, "yes"), TypeError,
        "absolute_sigma is 'yes'"),
    "sigma among the data": (lambda: jf.curve_fit(line, START, (X, Y, SIGMA)), TypeError, "the pair"),
    "no sigma among the data": (lambda: jf.fit(CHI, START, (X, Y), optimizer=LM), TypeError,
        r"the data \(x, y, sigma\), but got 2 arrays"),
    "an axis": (lambda: jf.curve_fit(line, START | {"w": jf.Axis("w", [1.0])}, (X, Y)), ValueError, "call jf.sweep"),
    "a model of many arguments": (lambda: jf.curve_fit(lambda x, a, b: a * x + b, [1.0, 0.0], (X, Y)), TypeError,
        r"predict takes \(x, a, b\), but it is called as predict\(params, x\); write jf.models.from_function"),
    "no function": (lambda: jf.curve_fit(3, START, (X, Y)), TypeError, "predict is 3"),
    "a keyword misspelled": (lambda: jf.curve_fit(line, START, (X, Y), absolut_sigma=True), TypeError,
        "absolute_sigma"),
    "residuals that are no array": (
        lambda: jf.fit(jf.losses.least_squares(lambda p: (p, p)), 1.0, optimizer=LM), TypeError, "returned a tuple"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_compiles(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        call()
