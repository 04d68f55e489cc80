"""Robust losses: SciPy's least_squares has all but Tukey's, which is held against a search over all params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

import jaxfit as jf

L, LM = jf.losses, jf.optimizers.levenberg_marquardt()
ROBUST = {"huber": L.huber, "soft_l1": L.soft_l1, "cauchy": L.cauchy, "arctan": L.arctan, "tukey": L.tukey}
SCIPY = ("huber", "soft_l1", "cauchy", "arctan")
X = np.linspace(0.0, 4.0, 40)


def decay(params, x):
    return params["a"] * jnp.exp(-params["b"] * x) + params["c"]


def with_outliers(seed):
    rng = np.random.default_rng(seed)
    y = 3.0 * np.exp(-1.2 * X) + 0.5 + 0.05 * rng.normal(size=X.size)
    y[rng.choice(X.size, 5, replace=False)] += rng.uniform(1.0, 4.0, 5)
    return y


def scipy_fit(name, y, delta):
    def residuals(p):
        return p[0] * np.exp(-p[1] * X) + p[2] - y

    return least_squares(residuals, (2.5, 1.0, 0.4), loss=name, f_scale=delta, xtol=1e-15, ftol=1e-15, gtol=1e-15)


@pytest.mark.parametrize("name", ROBUST)
def test_each_is_half_the_square_of_small_residuals_and_even(name):
    loss = jax.jit(ROBUST[name](lambda params, x: params * x, delta=0.7))
    with jax.enable_x64(True):
        small = float(loss(1e-4, np.ones(1), np.zeros(1)))
        both = [float(loss(sign * 1.9, np.ones(1), np.zeros(1))) for sign in (1.0, -1.0)]
    assert small == pytest.approx(0.5e-8, rel=1e-7)  # the next term is of (1e-4 / 0.7)**2
    assert both[0] == both[1] < 1.9**2 / 2


@pytest.mark.parametrize("name", SCIPY)
def test_fits_end_where_scipys_do(name):
    for seed in range(2):
        y = with_outliers(seed)
        for delta in (0.05, 0.15):
            loss, truth = ROBUST[name](decay, delta=delta), scipy_fit(name, y, delta)
            fit = jf.fit(loss, {"a": 2.5, "b": 1.0, "c": 0.4}, (X, y), optimizer=LM, steps=400)
            assert fit.status == jf.Status.CONVERGED
            assert float(fit.loss) * X.size == pytest.approx(truth.cost, rel=1e-9)
            np.testing.assert_allclose([fit.params[k] for k in "abc"], truth.x, rtol=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize("name", SCIPY)
def test_lanes_of_data_sets_and_of_delta_end_where_scipy_does(name):
    sets, deltas = [with_outliers(seed) for seed in range(6)], (0.05, 0.15)
    loss = ROBUST[name](decay, delta=jf.Axis("delta", deltas))
    start = {"a": 2.5, "b": 1.0, "c": 0.4}
    grid = jf.sweep(loss, start, (X, jf.Axis("set", np.stack(sets))), optimizer=LM, steps=400)
    assert (grid.results.status == jf.Status.CONVERGED).all()
    for at, y in enumerate(sets):
        for delta in deltas:
            lane, truth = grid.results.sel(set=at, delta=delta), scipy_fit(name, y, delta)
            # SciPy's cost is a sum; both stop where the loss no longer changes in rounding, params at its root.
            assert float(lane.loss) * X.size == pytest.approx(truth.cost, rel=1e-9)
            np.testing.assert_allclose([lane[f"params.{k}"] for k in "abc"], truth.x, rtol=1e-5)


@pytest.mark.soak
def test_tukey_ends_at_the_least_of_all_params_and_outliers_count_for_nothing():
    x = np.arange(9.0)
    y = 0.5 * x + 1.0 + 0.1 * np.sin(7.0 * x)
    y[[2, 6]] += (5.0, -8.0)
    start = jf.fit(L.huber(jf.models.line, delta=0.2), {"w": 0.0, "b": 0.0}, (x, y), optimizer=LM).params
    fit = jf.fit(L.tukey(jf.models.line, delta=0.5), start, (x, y), optimizer=LM)
    assert fit.status == jf.Status.CONVERGED
    w, b = np.meshgrid(np.linspace(-2.0, 2.0, 801), np.linspace(-5.0, 5.0, 1001), indexing="ij")
    square = np.minimum(((w[..., None] * x + b[..., None] - y) / 0.5) ** 2, 1.0)
    losses = np.mean(0.25 / 6 * (1 - (1 - square) ** 3), axis=-1)
    at = np.unravel_index(losses.argmin(), losses.shape)
    assert float(fit.loss) <= losses.min() and float(fit.loss) == pytest.approx(losses.min(), rel=1e-2)
    np.testing.assert_allclose([fit.params["w"], fit.params["b"]], [w[at], b[at]], atol=0.02)
    kept = np.delete(np.arange(9), [2, 6])
    alone = jf.fit(L.tukey(jf.models.line, delta=0.5), start, (x[kept], y[kept]), optimizer=LM)
    np.testing.assert_allclose(fit.params["w"], alone.params["w"], rtol=1e-7)


@pytest.mark.soak
@pytest.mark.parametrize("name", ROBUST)
def test_standard_errors_are_those_of_the_scatter_of_many_fits(name):
    delta = {"tukey": 4.685 * 0.1}.get(name, 0.15)
    rng = np.random.default_rng(7)
    x = np.linspace(0.0, 1.0, 60)
    sets = 2.0 * x + 1.0 + 0.1 * rng.normal(size=(400, 60))
    start, data = {"w": 1.9, "b": 1.1}, (x, jf.Axis("set", sets))
    grid = jf.sweep(ROBUST[name](jf.models.line, delta=delta), start, data, optimizer=LM, steps=100)
    told = jf.standard_errors(grid)
    for param in ("w", "b"):
        scatter = float(grid.results[f"params.{param}"].std(ddof=1))
        # The standard deviation of 400 is known to 1 / sqrt(798) of itself: three of those, and 2 % for n = 60.
        assert float(told[f"params.{param}"].mean()) == pytest.approx(scatter, rel=3 / 798**0.5 + 0.02)


def test_a_delta_that_is_not_positive_is_refused():
    for make in ROBUST.values():
        with pytest.raises(ValueError, match="^delta is -1.0; it must be positive"):
            make(decay, delta=-1.0)
        with pytest.raises(TypeError, match="argument by position"):
            make(decay, 0.1)
