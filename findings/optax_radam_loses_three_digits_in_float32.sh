#!/usr/bin/env bash
# optax 0.2.8: radam in float32 goes another way than in float64, by far more than rounding. The length of the averaged
# past, rho = rho_inf - 2 t b2^t / (1 - b2^t) of Liu et al. (2020), is a small difference of two numbers near 1999 for
# b2 = 0.999, so that its rounding in float32 becomes 1e-4 and more of the rectified step, from the sixth step on.
# On p^2 from 1 with a rate of 0.1 both agree to 2e-7 for five steps; after 20 they are 1.7e-4 apart, where adam, whose
# averages are the same, never differs by 1e-5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import numpy as np
import optax

def path(rule, dtype):
    jax.config.update("jax_enable_x64", dtype == jnp.float64)
    at, state, found = jnp.ones((), dtype), rule.init(jnp.ones((), dtype)), []
    for _ in range(20):
        update, state = rule.update(2 * at, state, at)
        at = optax.apply_updates(at, update)
        found.append(float(at))
    return np.array(found)


apart = {}
for name in ("adam", "radam"):
    rule = getattr(optax, name)(0.1)
    apart[name] = np.abs(path(rule, jnp.float32) - path(rule, jnp.float64))
    print(f"{name}: float32 from float64 after 5 steps {apart[name][4]:.1e}, after 20 {apart[name][-1]:.1e}")
assert apart["radam"][4] < 1e-6 and 1e-4 < apart["radam"][-1] < 3e-4
assert max(apart["adam"]) < 1e-5
print("as described")
END
