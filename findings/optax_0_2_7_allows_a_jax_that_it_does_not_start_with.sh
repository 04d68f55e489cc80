#!/usr/bin/env bash
# optax 0.2.7 sets the option jax_pmap_shmap_merge of jax when it is imported. jax 0.10.1 no longer has it, so that
# `import optax` raises AttributeError; jax 0.9.0 takes it with a DeprecationWarning. The requirements of optax 0.2.7 allow
# jax 0.10.1: pip installs the pair, and `pip check` finds nothing broken. optax 0.2.8 starts with both.
# Ask for optax>=0.2.8 beside jax>=0.10.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 "$@"; }
says() { "$folder/bin/python" -c 'import optax; print("imported", optax.__version__)' 2>&1 | tail -1 || true; }

install jax==0.10.1 jaxlib==0.10.1 optax==0.2.7
"$folder/bin/python" -m pip check
old=$(says)
install optax==0.2.8
new=$(says)
install jax==0.9.0 jaxlib==0.9.0 optax==0.2.7
earlier=$(says)
printf '%s\n' "jax 0.10.1, optax 0.2.7: $old" "jax 0.10.1, optax 0.2.8: $new" "jax 0.9.0, optax 0.2.7: $earlier"
[[ $old == "AttributeError: Unrecognized config option: jax_pmap_shmap_merge" ]]
[[ $new == "imported 0.2.8" ]]
[[ $earlier == "imported 0.2.7" ]]
