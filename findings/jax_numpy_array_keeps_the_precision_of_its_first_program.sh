#!/usr/bin/env bash
# jax 0.10.1: a NumPy array in float64 that a jitted function encloses becomes float32 when the function is first compiled
# in 32-bit mode. As long as that program lives, the same array stays float32 in every other function that encloses it, also
# in one that is first traced under jax.enable_x64(True): the result has the type float64 and seven digits, without a word.
# A copy of the array, or the array as an argument, has all digits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np

x = np.linspace(0.0, 1.0, 5) + 1e-9
exact = x.sum()


def total_of(array):
    return jax.jit(lambda scale: jnp.sum(scale * jnp.asarray(array)))


first, second, third = total_of(x), total_of(x), total_of(x.copy())
first(np.float32(1))
with jax.enable_x64(True):
    found, copied = second(np.float64(1)), third(np.float64(1))
print(f"{found.dtype}: off by {float(found) - exact:.1e}; with a copy of the array by {float(copied) - exact:.1e}")
assert found.dtype == copied.dtype == np.float64
assert abs(float(found) - exact) > 1e-9 and abs(float(copied) - exact) < 1e-15
print("as described")
END
