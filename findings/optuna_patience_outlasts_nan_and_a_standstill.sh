#!/usr/bin/env bash
# Optuna 5.0.0: PatientPruner(None, patience=1) stops a trial whose values are worse than before or infinite, but never
# one that turns NaN, nor one that stands still, however long: it stops where the best of the last values is strictly
# worse than the best before, leaves NaN out of both, and a comparison with what remains of NaN alone is false.
# MedianPruner goes by the best value of a trial so far, and so keeps one that was good once, NaN or not; one that is NaN
# from the start it stops at once.
# Tell Optuna of a NaN as a failed trial, and end a standstill by a rule of your own; min_delta only forgives more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check optuna==5.0.0 numpy==2.4.6
"$folder/bin/python" - <<'END'
import warnings

import optuna

warnings.simplefilter("ignore")  # NumPy's, of minima of nothing but NaN
optuna.logging.set_verbosity(optuna.logging.ERROR)
nan, inf = float("nan"), float("inf")
curves = {
    "stands still": [0.5] * 12,
    "gets worse": [0.5] + [5.0] * 11,
    "turns infinite": [0.5] + [inf] * 11,
    "turns NaN": [0.5] + [nan] * 11,
    "is NaN": [nan] * 12,
}


def stopped_at(pruner, curve):
    """The step at which a trial with this curve is stopped, beside three that went well."""
    study = optuna.create_study()
    for _ in range(3):
        trial = study.ask()
        for step in range(12):
            trial.report(1.0 - 0.01 * step, step)
        study.tell(trial, 0.89)
    study.pruner = pruner
    trial = study.ask()
    for step, value in enumerate(curve):
        trial.report(value, step)
        if trial.should_prune():
            return step
    return None


patient = {name: stopped_at(optuna.pruners.PatientPruner(None, patience=1), c) for name, c in curves.items()}
median = {name: stopped_at(optuna.pruners.MedianPruner(3, 0), c) for name, c in curves.items()}
print("patience stops at step:", patient)
print("the median stops at step:", median)
assert patient == {"stands still": None, "gets worse": 2, "turns infinite": 2, "turns NaN": None, "is NaN": None}
assert median == {"stands still": None, "gets worse": None, "turns infinite": None, "turns NaN": None, "is NaN": 0}
print("as described")
END
