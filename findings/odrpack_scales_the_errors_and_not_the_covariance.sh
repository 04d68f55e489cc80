#!/usr/bin/env bash
# odrpack 0.7.0: of one result, sd_beta holds standard errors scaled by the residual variance res_var, and cov_beta the
# covariance without that factor: sqrt(diag(cov_beta)) is not sd_beta, but sd_beta / sqrt(res_var).
# Multiply cov_beta by res_var before you propagate it beside sd_beta.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check odrpack==0.7.0 numpy==2.4.6
"$folder/bin/python" - <<'END'
import numpy as np
from odrpack import odr_fit

x = np.linspace(0.0, 4.0, 12)
y = 2.0 * x + 1.0 + 0.3 * np.sin(7.0 * x)
start, weights = np.array([1.0, 1.0]), dict(weight_x=np.full(12, 100.0), weight_y=np.full(12, 25.0))
fit = odr_fit(lambda x, beta: beta[0] + beta[1] * x, x, y, beta0=start, **weights)
root = np.sqrt(np.diag(fit.cov_beta))
print("sd_beta:", fit.sd_beta, " roots of cov_beta:", root, " res_var:", fit.res_var)
assert abs(fit.res_var - 1) > 0.1
np.testing.assert_allclose(fit.sd_beta, root * np.sqrt(fit.res_var), rtol=1e-6)
print("as described")
END
