"""Shuffles that are computed place by place: orders, evenly spread, and the same however they are asked for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit.engine.loops import shuffled
from tests.shared.soak import soaking


def orders(n, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: shuffled(jnp.arange(n), key, n)))(keys))


def surprise(counts, expected):
    """How many standard deviations a chi-squared statistic lies above its mean."""
    free = counts.size - 1
    return (np.sum((counts - expected) ** 2) / expected - free) / math.sqrt(2 * free)


@pytest.mark.parametrize("n", soaking([1, 2, 3, 7, 10, 33, 256, 1000, 4097], keep=(7, 256)))
def test_every_shuffle_is_an_order_of_all_numbers(n):
    assert np.array_equal(np.sort(orders(n, 20), axis=1), np.broadcast_to(np.arange(n), (20, n)))


def test_places_can_be_asked_for_one_by_one():
    key = jax.random.key(3)
    order = jax.jit(lambda places: shuffled(places, key, 100))
    whole = np.asarray(order(np.arange(100)))
    assert [int(order(np.int32(i))) for i in (0, 17, 99)] == whole[[0, 17, 99]].tolist()
    assert np.array_equal(order(np.arange(100).reshape(4, 25)), whole.reshape(4, 25))


@pytest.mark.parametrize("n", soaking([2, 3, 4, 5], keep=(4,)))
def test_all_orders_of_few_numbers_are_equally_likely(n):
    codes = orders(n, 20_000) @ n ** np.arange(n)
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == math.factorial(n)
    assert surprise(counts, 20_000 / math.factorial(n)) < 4


@pytest.mark.parametrize("n", soaking([11, 32, 57], keep=(32,)))
def test_pairs_of_places_hold_every_pair_of_numbers_equally_often(n):
    found = orders(n, 20_000, seed=1)
    for one, other in ((0, 1), (0, n - 1), (n // 2, 3)):
        counts = np.bincount(found[:, one] * n + found[:, other], minlength=n * n).reshape(n, n)
        assert np.all(np.diag(counts) == 0)
        assert surprise(counts[~np.eye(n, dtype=bool)], 20_000 / (n * (n - 1))) < 4


@pytest.mark.parametrize(
    "pattern", soaking([lambda i: i, lambda i: i % 2, lambda i: np.sin(i / 50), lambda i: i < 40], keep=1)
)
def test_means_of_batches_vary_as_the_law_of_sampling_without_replacement_says(pattern):
    n, size = 1000, 32
    values = np.asarray(pattern(np.arange(n)), float)
    means = values[orders(n, 4000, seed=2)[:, : 31 * size].reshape(-1, 31, size)].mean(2)
    law = values.var() / size * (n - size) / (n - 1)
    assert means.mean() == pytest.approx(values.mean(), abs=5 * math.sqrt(law / means.size))
    assert means.var() == pytest.approx(law, rel=0.03)


def test_other_keys_are_unrelated_orders():
    one, other = orders(1000, 2, seed=4)
    assert np.sum(one == other) < 10
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
