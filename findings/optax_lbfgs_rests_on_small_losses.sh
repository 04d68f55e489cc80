#!/usr/bin/env bash
# optax 0.2.8: whether lbfgs moves at all depends on the unit of the loss. From p = 10 it finds the minimum of
# c (p - 3)^2 for c = 1 (float32) and 1e-6, but for c = 1e-8 (float32) or 1e-18 (float64) it stays at 10 for ever, without a sign: the
# first trial is at most as long as the gradient, which adds nothing to 10 in this precision, and so every later step
# begins as short. Multiply such a loss by a constant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_enable_x64", True)


def end(unit, dtype):
    def loss(p):
        return unit * (p - 3) ** 2

    method, ask = optax.lbfgs(), optax.value_and_grad_from_state(loss)

    @jax.jit
    def step(p, state):
        value, grad = ask(p, state=state)
        update, state = method.update(grad, state, p, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(p, update), state

    p = jnp.asarray(10, dtype)
    state = method.init(p)
    for _ in range(50):
        p, state = step(p, state)
    return float(p)


for dtype, units in ((jnp.float32, (1.0, 1e-6, 1e-8)), (jnp.float64, (1e-6, 1e-8, 1e-18))):
    ends = {unit: round(end(unit, dtype), 3) for unit in units}
    print(f"{dtype.__name__}: after 50 steps at", ends)
    assert ends == {unit: 10.0 if unit == units[-1] else 3.0 for unit in units}
print("as described")
END
