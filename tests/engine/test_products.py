"""The quadratic model of lanes side by side from products of columns: its digits, and lanes that need more of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit.engine.jaxprs import enclosing_nothing
from jaxfit.optimizers.arrays import by_products, damped, solve, triangularize
from jaxfit.optimizers.lanes import SideBySide, lanes_last, side_by_side, where_asked, where_poor
from jaxfit.optimizers.linearization import Slopes, system_at
from jaxfit.problems import precision_context

products_of = jax.jit(by_products, static_argnums=1)


def columns_and_residuals(closeness):
    """Return columns (3, 30), of which the last is the first but for so much, and residuals (30,)."""
    random = np.random.default_rng(1)
    columns, residuals = random.standard_normal((3, 30)), random.standard_normal(30)
    columns[2] = columns[0] + closeness * columns[2]
    return columns, residuals


def systems(closeness):
    """Return what lanes of these closenesses have side by side."""

    def sums(rows):
        return [jnp.sum(x, axis=1) for x in rows]

    def one(flat, columns, residuals):
        size = jnp.sum(residuals**2)
        return system_at(lambda flat: Slopes(size, 1 + 0 * size, size, 0 * flat, residuals, columns, ()), flat)

    with precision_context("float64"), side_by_side(SideBySide(sums, enclosing_nothing)):
        given = [np.stack(x) for x in zip(*map(columns_and_residuals, closeness), strict=True)]
        found = jax.jit(jax.vmap(one))(np.zeros((len(closeness), 3)), *given)
        return jax.tree.map(np.asarray, found), given


def test_lanes_whose_products_have_too_few_digits_are_triangularized():
    found, (columns, residuals) = systems([1.0, 1e-7, 1e-2, 1e-6])
    for i in range(4):
        triangle, shadow = triangularize(columns[i], residuals[i])
        np.testing.assert_allclose(found.triangle[i], triangle, rtol=1e-8, atol=1e-14)  # eps / 1e-7, with some room
        np.testing.assert_allclose(found.shadow[i], shadow, rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.linalg.norm(columns, axis=2), rtol=1e-14)
    np.testing.assert_allclose(found.loss, (residuals**2).sum(axis=1), rtol=1e-14)


def test_a_lane_has_the_same_bits_beside_lanes_that_are_triangularized_and_beside_others():
    mixed, _ = systems([1.0, 1e-7, 0.5, 1e-6])
    others, _ = systems([1.0, 0.9, 0.5, 0.8])
    poor, _ = systems([1e-6, 1e-7, 1e-5, 1e-6])
    for name, x in mixed._asdict().items():
        np.testing.assert_array_equal(x[[0, 2]], getattr(others, name)[[0, 2]])
        np.testing.assert_array_equal(x[[1, 3]], getattr(poor, name)[[1, 3]])


@pytest.mark.parametrize("closeness", [1.0, 1e-3, 1e-5, 1e-9])
def test_the_products_give_the_triangle_or_say_that_they_are_too_poor(closeness):
    columns, b = columns_and_residuals(closeness)
    rows = [*columns, b]
    with precision_context("float64"):
        products = {(i, j): jnp.asarray([rows[i] @ rows[j]]) for i in range(4) for j in range(i, 4)}
        (triangle, shadow), poor = jax.tree.map(np.asarray, products_of(products, 3))
    exact, right = triangularize(columns, b)
    assert bool(poor[0]) == (closeness < 1e-4)  # eps**(1/2) of a squared pivot, as Q^T b is large here
    if not poor[0]:
        np.testing.assert_allclose(triangle[..., 0], exact, rtol=1e-8)  # eps / 1e-3**2
        np.testing.assert_allclose(shadow[..., 0], right, rtol=1e-8)


@pytest.mark.parametrize("k", [8, 9, 12])
@pytest.mark.parametrize("closeness", [1.0, 1e-9])
def test_the_products_of_more_columns_give_the_triangle_too(k, closeness):
    random = np.random.default_rng(k)
    rows = random.standard_normal((k + 1, 40))
    rows[k - 1] = rows[1] + closeness * rows[k - 1]
    with precision_context("float64"):
        products = {(i, j): jnp.asarray([rows[i] @ rows[j]]) for i in range(k + 1) for j in range(i, k + 1)}
        (triangle, shadow), poor = jax.tree.map(np.asarray, products_of(products, k))
    assert bool(poor[0]) == (closeness < 1)
    if not poor[0]:
        exact = np.linalg.cholesky(rows[:k] @ rows[:k].T).T
        np.testing.assert_allclose(triangle[..., 0], exact, rtol=1e-10)
        np.testing.assert_allclose(shadow[..., 0], np.linalg.solve(exact.T, rows[:k] @ rows[k]), rtol=1e-10)


def damped_side_by_side(triangles, shadows, dampings):
    def one(*given):
        triangle, right = lanes_last(damped, *given)
        return triangle, right, lanes_last(solve, triangle, right)

    with side_by_side(SideBySide(lambda rows: rows, enclosing_nothing)):
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(triangles, shadows, dampings))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 2, 5, 8, 12])
def test_damped_triangles_of_lanes_solve_their_least_squares_and_know_no_neighbors(k, precision):
    random, lanes = np.random.default_rng(k), 16
    triangles = np.triu(random.standard_normal((lanes, k, k)) * 10.0 ** random.uniform(-3, 3, (lanes, 1, k)))
    shadows, dampings = random.standard_normal((lanes, k)), 10.0 ** random.uniform(-9, 3, lanes)
    dampings[:4] = 0
    for lane in (0, 1, 5):  # a param without influence
        triangles[lane, :, k // 2] = triangles[lane, k // 2] = shadows[lane, k // 2] = 0
    with precision_context(precision):
        given = [x.astype(precision) for x in (triangles, shadows, dampings)]
        eps = np.finfo(precision).eps
        found, right, solution = damped_side_by_side(*given)
        others = damped_side_by_side(*(np.concatenate([x[3:6], x[9:] * 3, x[:3], x[6:9] * 5]) for x in given))
    for x, y in zip((found, right, solution), others, strict=True):
        np.testing.assert_array_equal(x[3:6], y[:3])
    assert (np.tril(found, -1) == 0).all() and (found[:, range(k), range(k)] >= 0).all()
    for a, c, damping, triangle, b, z in zip(*(x.astype(float) for x in (*given, found, right, solution)), strict=True):
        rows = np.vstack([a, np.sqrt(damping) * np.eye(k)])
        sizes = np.linalg.norm(rows, axis=0)
        room = 64 * k * eps
        assert (np.abs(triangle.T @ triangle - rows.T @ rows) <= room * np.outer(sizes, sizes)).all()
        scaled = np.abs(triangle.T @ b - a.T @ c) / np.where(sizes > 0, sizes, 1)
        assert (scaled <= room * np.linalg.norm(c)).all()
        assert (z[sizes == 0] == 0).all() and np.isfinite(z).all()


@pytest.mark.parametrize("some", [[], [1], [0, 3], [0, 1, 2, 3]])
def test_what_some_lanes_need_runs_for_those_alone(some):
    """Whatever the function takes, encloses and returns; the others keep what they have, or zeros."""
    runs, x, common = [], np.arange(8.0).reshape(4, 2), np.array([3.0, 4.0])
    chosen = np.isin(np.arange(4), some)

    def function(x, common):
        jax.debug.callback(lambda: runs.append(1))
        return {"number": (x * common).sum(), "flags": x > 4}

    def lane(asked, x, common, own):
        return where_asked(asked, lambda given: function(given["x"] + own, common), {"x": x})

    plain = {"number": -np.arange(4.0), "flags": np.ones((4, 2), bool)}
    with precision_context("float64"), side_by_side(SideBySide(None, enclosing_nothing)):
        kept = jax.jit(lambda *given: where_poor(given[0], function, given[1:3], (True, False), given[3]))(
            chosen, x, common, plain
        )
        asked = jax.jit(jax.vmap(lane, in_axes=(0, 0, None, 0)))(chosen, x, common, x)
        jax.effects_barrier()
    zeros = {"number": np.zeros(4), "flags": np.zeros((4, 2))}
    for found, given, others in ((kept, x, plain), (asked, 2 * x, zeros)):
        np.testing.assert_array_equal(found["number"], np.where(chosen, (given * common).sum(axis=1), others["number"]))
        np.testing.assert_array_equal(found["flags"], np.where(chosen[:, None], given > 4, others["flags"]))
    assert len(runs) == 2 * len(some)
