#!/usr/bin/env bash
# scikit-learn 1.9.1 and Optuna 5.0.0 count the rounds of successive halving by a quotient of logarithms, rounded down.
# log 243 / log 3 is 4.999... in floating point, so that with a factor of 3
# - scikit-learn's HalvingGridSearchCV ends with one candidate for 9, 27 and 81, and with three for 243, of 4,000 rows;
# - Optuna's Hyperband makes 3, 4, 5 brackets for at most 9, 27, 81 steps, 5 again for 243 (one is missing), and 7 for 729.
# Count rounds by multiplying whole numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 optuna==5.0.0 numpy==2.4.6 scipy==1.17.1
"$folder/bin/python" - <<'END'
import numpy as np
import optuna
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import HalvingGridSearchCV

rng = np.random.default_rng(0)
x = rng.normal(size=(4000, 3))
y = x @ [1.0, 2.0, 3.0] + rng.normal(size=4000)
left = {}
for count in (9, 27, 81, 243):
    grid = {"alpha": np.linspace(0.1, 10.0, count)}
    search = HalvingGridSearchCV(Ridge(), grid, factor=3, min_resources=8, cv=2).fit(x, y)
    left[count] = search.n_candidates_[-1]
print("candidates in the last round, of so many at the start:", left)
assert left == {9: 1, 27: 1, 81: 1, 243: 3}

optuna.logging.set_verbosity(optuna.logging.ERROR)
brackets = {}
for steps in (9, 27, 81, 243, 729):
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=steps, reduction_factor=3)
    trial = optuna.create_study(pruner=pruner).ask()
    trial.report(1.0, 1)
    trial.should_prune()
    brackets[steps] = len(pruner._pruners)
print("brackets, for at most so many steps:", brackets)
assert brackets == {9: 3, 27: 4, 81: 5, 243: 5, 729: 7}
print("as described")
END
