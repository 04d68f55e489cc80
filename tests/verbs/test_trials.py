"""Optuna as the outer loop: what a study asks for runs as lanes, and it is told how they ended."""

import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from tests.shared.interrupts import ended_by

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


def states(study):
    return [trial.state.name for trial in study.trials]


def test_a_study_is_told_how_every_lane_ended(study):
    grid = batch(study, prune=jf.Halving(factor=2, first=10))
    told = {"OUT_OF_STEPS": "COMPLETE", "PRUNED": "PRUNED", "DIVERGED": "PRUNED", "NOT_FINITE": "PRUNED"}
    lanes = [jf.Status(s).name for s in grid.results.status.values]
    assert states(study) == [told[name] for name in lanes]
    assert [trial.user_attrs["status"] for trial in study.trials] == lanes
    assert set(lanes) >= {"OUT_OF_STEPS", "PRUNED", "DIVERGED"}
    for trial, loss, steps in zip(study.trials, grid.results.loss.values, grid.results.steps.values, strict=True):
        if trial.user_attrs["status"] in ("OUT_OF_STEPS", "PRUNED"):
            assert max(trial.intermediate_values) == steps and trial.intermediate_values[steps] == loss
        else:
            assert not trial.intermediate_values
    assert study.best_value == jf.best(grid).loss
    assert study.best_params.keys() == SPACE.keys()


@pytest.mark.soak
def test_a_sampler_learns_from_lanes_that_failed():
    """TPE leaves out trials that failed: told as such, more and more of its trials were of rates that diverge."""

    def failed(seed):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        counts = [int(np.isin(batch(study, 32).results.status, [3, 4]).sum()) for _ in range(4)]
        return counts[0], counts[-1]

    first, last = np.sum([failed(seed) for seed in range(4)], axis=0)
    assert last < first


@pytest.mark.soak
def test_several_objectives_are_told_with_their_states():
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.NSGAIISampler(seed=0))
    for _ in range(2):
        trials, drawn = jf.ask(study, {"rate": jf.LogUniform(1e-3, 2.0)}, 8)
        stop, rule = jf.Stop(loss_below=1e-3), jf.Halving(factor=2, first=10)
        method = jf.optimizers.sgd(drawn["rate"])
        grid = jf.sweep(height, 3.0, optimizer=method, steps=40, stop=stop, prune=rule)
        jf.tell(study, trials, grid, by=["loss", "steps"])
        good = np.isin(grid.results.status, [1, 2])
        assert states(study)[-8:] == np.where(good, "COMPLETE", "PRUNED").tolist() and good.any()
        assert [t.values for t in study.trials[-8:] if t.values] == [
            [loss, steps] for loss, steps in zip(grid.results.loss[good], grid.results.steps[good], strict=True)
        ]


def test_what_an_interrupted_sweep_lacks_is_told_when_it_has_gone_on(study, tmp_path):
    trials, drawn = jf.ask(study, SPACE, 16)
    call = {"optimizer": jf.optimizers.momentum(drawn["rate"], drawn["momentum"]), "steps": 40, "store": tmp_path}
    with using(workers=1, block_lanes=8, block_loads=1):
        with ended_by(KeyboardInterrupt, "block", 2), pytest.raises(jf.Interrupted) as caught:
            jf.sweep(height, 3.0, slots=8, **call)
        jf.tell(study, trials, caught.value.result)
        assert states(study).count("RUNNING") == 8
        jf.tell(study, trials, jf.sweep(height, 3.0, slots=8, **call))
    assert "RUNNING" not in states(study)
    with pytest.raises(ValueError, match="tell: all of these trials have been told; tell the ones that"):
        jf.tell(study, trials, caught.value.result)


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
    with pytest.raises(
        ValueError, match=r"by=\['loss', 'steps'\] names 2, but the study has 1 objectives; give a name"
    ):
        jf.tell(study, trials, grid, by=["loss", "steps"])
    highest = optuna.create_study(direction="maximize")
    with pytest.raises(ValueError, match="'loss' is the better the lower it is, but the study maximizes it; make it"):
        jf.tell(highest, jf.ask(highest, SPACE, 4)[0], grid)
    with pytest.raises(ValueError, match="tell: by='accuracy' is not one number for each lane; there are loss"):
        jf.tell(study, trials, grid, by="accuracy")
