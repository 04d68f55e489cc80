#!/usr/bin/env bash
# iminuit 2.33.0: the slope of a line, limited to b >= 0 and best at -0.1, ends near its limit with valid=True.
# The error that is shown for it, m.errors["b"], is 75 times the square root of its own entry in m.covariance:
# the error comes from the step in the internal, unlimited parameter, the covariance from the derivative there, which
# vanishes at a limit. Neither is a standard error; do not take one for the other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check iminuit==2.33.0 numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np
from iminuit import Minuit

x = np.linspace(0.0, 1.0, 20)


def chi_squared(a, b):
    return np.sum((a + b * x - (0.3 - 0.1 * x)) ** 2 / 0.1**2)


m = Minuit(chi_squared, 0.5, 0.5)
m.errordef = Minuit.LEAST_SQUARES
m.limits["b"] = (0, None)
m.migrad()
m.hesse()
root = np.sqrt(np.diag(m.covariance))
print("valid:", m.valid, " errors:", list(m.errors), " roots of the covariance:", list(root))
assert m.valid and m.values["b"] < 1e-3
assert abs(m.errors["a"] / root[0] - 1) < 1e-3, "far from limits they agree"
assert m.errors["b"] > 10 * root[1]
print("as described")
END
