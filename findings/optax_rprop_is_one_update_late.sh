#!/usr/bin/env bash
# optax 0.2.8: rprop returns each update one step late. For the gradients 1, 1, -1, -1, 1 and a rate of 0.1, Riedmiller and
# Braun (1993), in the variant that torch runs too, move by -0.1, -0.12, 0, +0.06, 0: the first step is made at once, an
# agreement of signs lengthens it by 1.2, a change of sign skips a step and halves it. optax moves by 0, -0.1, 0, 0, 0.
# A rule that stops when params change little stops at the start.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import jax.numpy as jnp
import numpy as np
import optax

rule, at = optax.rprop(0.1), jnp.zeros(())
state, moves = rule.init(at), []
for gradient in (1.0, 1.0, -1.0, -1.0, 1.0):
    update, state = rule.update(jnp.asarray(gradient), state, at)
    moves.append(float(update))
print("updates:", moves)
np.testing.assert_allclose(moves, [0.0, -0.1, 0.0, 0.0, 0.0], atol=1e-7)
print("as described")
END
