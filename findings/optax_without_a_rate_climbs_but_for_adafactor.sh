#!/usr/bin/env bash
# optax 0.2.8: learning_rate=None is accepted by most factories, and means "do not scale", sign included: the update of
# adadelta, sgd, adam and lion then points along the gradient, so that the loss rises, although adadelta's documented update
# has a minus sign and no rate in it. adafactor with learning_rate=None descends. Give a rate of 1 to adadelta.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check optax==0.2.8 jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
"$folder/bin/python" - <<'END'
import jax.numpy as jnp
import optax

signs = {}
for name in ("adadelta", "sgd", "adam", "lion", "adafactor"):
    rule, at = getattr(optax, name)(learning_rate=None), jnp.ones(())
    update, _ = rule.update(jnp.ones(()), rule.init(at), at)
    signs[name] = "up" if update > 0 else "down"
print("with a gradient of 1 and no rate, params go:", signs)
assert signs == {"adadelta": "up", "sgd": "up", "adam": "up", "lion": "up", "adafactor": "down"}
update, _ = (rule := optax.adadelta(1.0)).update(jnp.ones(()), rule.init(at), at)
assert update < 0
print("as described")
END
