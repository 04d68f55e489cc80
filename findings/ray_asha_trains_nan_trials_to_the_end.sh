#!/usr/bin/env bash
# Ray Tune 2.60.0: ASHAScheduler never stops a trial whose loss is NaN, though it stops at the first rung every trial
# that is merely worse, infinite ones too: a trial goes on unless its value is strictly beyond the cutoff of its rung,
# and no comparison with NaN is true. Of a search in which a tenth of the trials fail this way, those are the ones that
# get all their steps; the best result is still found among the others.
# Report a large finite number, or infinity, in place of NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'ray[tune]==2.60.0' numpy==2.4.6
FOLDER="$folder" RAY_AIR_NEW_OUTPUT=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 "$folder/venv/bin/python" - <<'END'
import os

import ray
from ray import tune


def train(config):
    for _ in range(9):
        tune.report({"loss": config["loss"]})


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
scheduler = tune.schedulers.ASHAScheduler(max_t=9, grace_period=1, reduction_factor=3)
tuner = tune.Tuner(
    train,
    param_space={"loss": tune.grid_search([1.0, 2.0, float("nan"), 3.0, float("inf")])},
    tune_config=tune.TuneConfig(metric="loss", mode="min", scheduler=scheduler, max_concurrent_trials=1),
    run_config=tune.RunConfig(storage_path=os.environ["FOLDER"], verbose=0),
)
steps = {str(trial.config["loss"]): trial.metrics["training_iteration"] for trial in tuner.fit()}
print("steps of a trial, by its loss:", steps)
assert steps == {"1.0": 9, "2.0": 1, "nan": 9, "3.0": 1, "inf": 1}
print("as described")
END
