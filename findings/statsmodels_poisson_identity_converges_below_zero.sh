#!/usr/bin/env bash
# statsmodels 0.15.0: counts with a mean that falls along a line, fitted by a Poisson GLM with the identity link. The fit
# warns of the link when the model is made; then it says converged=True, with finite standard errors and a finite deviance,
# at coefficients whose mean is negative at the last point, where a Poisson distribution does not exist; only the
# log-likelihood is NaN. Here that happens for each of six simulated sets, and the line returned is the one that crosses zero.
# Check fittedvalues.min() > 0, or that llf is a number, before you report such a fit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check statsmodels==0.15.0 numpy==2.4.6 scipy==1.17.1
"$folder/bin/python" - <<'END'
import warnings

import numpy as np
import statsmodels.api as sm

warnings.simplefilter("ignore")
x = np.arange(12.0)
for seed in range(6):
    y = np.random.default_rng(seed).poisson(np.maximum(8.0 - 0.9 * x, 0.05))
    link = sm.families.links.Identity()
    fit = sm.GLM(y, np.column_stack([np.ones(12), x]), family=sm.families.Poisson(link)).fit()
    lowest = fit.fittedvalues.min()
    print(f"converged {fit.converged}, errors {fit.bse}, lowest mean {lowest:.3f}, log-likelihood {fit.llf}")
    assert fit.converged and np.isfinite(fit.bse).all() and np.isfinite(fit.deviance)
    assert lowest < 0 and np.isnan(fit.llf)
print("as described")
END
