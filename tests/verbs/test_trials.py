"""Optuna as the outer loop: what a study asks for runs as lanes, and it is told how they ended."""

import numpy as np
import pytest

import jaxfit as jf

optuna = pytest.importorskip("optuna", reason="Optuna is an extra: jaxfit-toolkit[optuna]")
SPACE = {"rate": jf.LogUniform(1e-3, 2.0), "momentum": jf.Uniform(0.0, 0.9)}


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))


def height(p):
    return 3 * p**2


def batch(study, count=16, **keywords):
    trials, drawn = jf.ask(study, SPACE, count)
    method = jf.optimizers.momentum(drawn["rate"], drawn["momentum"])
    grid = jf.sweep(height, 3.0, optimizer=method, steps=40, record=jf.Record(every=10), **keywords)
    jf.tell(study, trials, grid)
    return grid


def test_a_study_is_told_how_every_lane_ended(study):
    grid = batch(study, prune=jf.Halving(factor=2, first=10))
    states = {"OUT_OF_STEPS": "COMPLETE", "PRUNED": "PRUNED", "DIVERGED": "FAIL", "NOT_FINITE": "FAIL"}
    lanes = [jf.Status(s).name for s in grid.results.status.values]
    assert [trial.state.name for trial in study.trials] == [states[name] for name in lanes]
    assert set(lanes) >= {"OUT_OF_STEPS", "PRUNED", "DIVERGED"}
    for trial, loss, steps in zip(study.trials, grid.results.loss.values, grid.results.steps.values, strict=True):
        if trial.state.name != "FAIL":
            assert max(trial.intermediate_values) == steps and trial.intermediate_values[steps] == loss
    assert study.best_value == jf.best(grid).loss
    assert study.best_params.keys() == SPACE.keys()


def test_a_sampler_learns_from_what_it_is_told():
    def next_rates(tells):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        if tells:
            batch(study)
        else:
            jf.ask(study, SPACE, 16)
        return np.asarray(jf.ask(study, SPACE, 16)[1]["rate"].values)

    assert (next_rates(True) != next_rates(False)).any() and (next_rates(True) == next_rates(True)).all()


def test_what_does_not_fit_is_refused(study):
    with pytest.raises(ValueError, match="in which nothing is to be chosen; give it ranges"):
        jf.ask(study, {"rate": 0.1}, 4)
    trials, drawn = jf.ask(study, SPACE, 4)
    grid = jf.sweep(height, 3.0, optimizer=jf.optimizers.sgd(drawn["rate"]), steps=4)
    with pytest.raises(ValueError, match=r"the grid has the shape \(4,\), but there are 3 trials"):
        jf.tell(study, trials[:3], grid)
    with pytest.raises(ValueError, match="tell: by='accuracy' is not one number for each lane; there are loss"):
        jf.tell(study, trials, grid, by="accuracy")
