"""A sweep that stops lanes at rungs: which go on, and that those end with the bits of the sweep without rungs."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.problems.pruning import lowest, survivors
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import LOSS, T_C, T_U
from tests.shared.soak import soaking

ROOT = Path(__file__).parents[2]
OUT, PRUNED = jf.Status.OUT_OF_STEPS, jf.Status.PRUNED
DATA = (0.1 * T_U, T_C)
HELD_OUT = tuple(x[:4] for x in DATA)
RATE = jf.Axis("rate", np.logspace(-4, -0.5, 18))
STARTS = jf.Axis("w0", [0.0, 1.0, 2.0])


def sweep(prune=None, **keywords):
    how = {"optimizer": jf.optimizers.adam(RATE), "steps": 81, "slots": 8} | keywords
    return jf.sweep(LOSS, {"w": STARTS, "b": 0.0}, DATA, prune=prune, **how)


def square(p):
    return p**2


def steps_of(count, **keywords):
    """The steps of lanes whose loss falls by one constant factor a step, the better the higher their number."""
    rates = jf.Axis("rate", np.linspace(0.001, 0.3, count))
    grid = jf.sweep(square, 1.0, optimizer=jf.optimizers.sgd(rates), **keywords)
    return grid.results.steps.values


def same_survivors(pruned, whole):
    """All of a lane that went to its end is, to the bit, as in the sweep without rungs."""
    there = np.isin(pruned.results.status, [OUT, jf.Status.CONVERGED, jf.Status.STOPPED_EARLY])
    assert there.any() and list(pruned.results.data_vars) == list(whole.results.data_vars)
    for name in whole.results.variables:
        x, y = pruned.results[name].values, whole.results[name].values
        if x.shape[: there.ndim] == there.shape:
            x, y = x[there], y[there]
        assert x.tobytes() == y.tobytes(), name


WAYS = {
    "lock-step": {},
    "histories of batches": {"batches": jf.Batches(4), "key": 3, "record": jf.Record(every=3, what=("loss", "params"))},
    "a rule in float64": {"stop": jf.Stop(gradient_norm_below=20.0), "precision": "float64"},
    "patience": {"stop": jf.Stop(patience=6), "validation": HELD_OUT, "record": jf.Record(every=3, what=("loss",))},
    "bounds": {"stop": jf.Stop(params_change_below=1e-3)},
    "programs": {"optimizer": jf.Axis("by", [jf.optimizers.adam(RATE), jf.optimizers.momentum(RATE, 0.9)], ["a", "m"])},
}  # fmt: skip
RULES = {
    "halving": jf.Halving(factor=3, first=3), "hyperband": jf.Hyperband(factor=3, first=3),
    "median": jf.Median(first=15, every=30), "groups": jf.Halving(factor=2, first=9, over="rate"),
}  # fmt: skip


@functools.cache
def whole_sweep(way):
    return sweep(**WAYS[way])


@functools.cache
def pruned_sweep(way, rule):
    return sweep(RULES[rule], **WAYS[way])


@pytest.mark.parametrize("rule", soaking(RULES, keep=["halving"]))
@pytest.mark.parametrize("way", soaking(WAYS, keep=["patience"]))
def test_survivors_have_the_bits_of_the_sweep_without_rungs(way, rule):
    pruned = pruned_sweep(way, rule)
    same_survivors(pruned, whole_sweep(way))
    out = pruned.results.where(pruned.results.status == PRUNED)
    assert out.steps.max() < 81 and np.isfinite(out.loss).sum() == (pruned.results.status == PRUNED).sum()


def test_a_pruned_lane_tells_what_it_was_at_its_rung():
    pruned, whole = pruned_sweep("patience", "halving").results, whole_sweep("patience").results
    for step in (3, 9):
        there = ((pruned.status == PRUNED) & (pruned.steps == step)).values
        rows = pruned["history.loss"].values[there]
        assert there.any() and np.isnan(rows[:, step // 3 + 1 :]).all()
        assert rows[:, : step // 3 + 1].tobytes() == whole["history.loss"].values[there][:, : step // 3 + 1].tobytes()
        assert np.allclose(pruned.loss.values[there], rows[:, step // 3], rtol=1e-6)


def test_rungs_and_lanes_are_counted_in_whole_numbers():
    """floor(log(243) / log(3)) is 4 in floating point, and floor(log(1000) / log(10)) is 2."""
    values, counts = np.unique(steps_of(243, steps=243, prune=jf.Halving(factor=3, first=1)), return_counts=True)
    assert values.tolist() == [1, 3, 9, 27, 81, 243] and counts.tolist() == [162, 54, 18, 6, 2, 1]
    assert jf.Halving(factor=10, first=1).rungs(1000) == [1, 10, 100]
    assert jf.Halving(factor=10, first=1).rungs(1001) == [1, 10, 100, 1000]


@pytest.mark.soak
def test_a_thousand_lanes_are_counted_in_whole_numbers():
    values, counts = np.unique(steps_of(1000, steps=1000, prune=jf.Halving(factor=10)), return_counts=True)
    assert values.tolist() == [1, 10, 100, 1000] and counts.tolist() == [900, 90, 9, 1]


def test_hyperband_has_the_brackets_of_its_paper():
    """Table 1 of Li et al. (2018): R = 81 and a factor of 3 give brackets of 81, 34, 15, 8 and 5 settings."""
    rule, lanes = jf.Hyperband(factor=3, first=1), np.arange(81 + 34 + 15 + 8 + 5)
    assert rule.rungs(81) == [1, 3, 9, 27]
    counts = np.bincount(rule.brackets(lanes, 4), minlength=5)
    assert np.abs(counts - [81, 34, 15, 8, 5]).max() <= 1
    every = np.bincount(rule.brackets(np.arange(0, 1430, 10), 4), minlength=5)  # one index of another axis
    assert np.abs(every - [81, 34, 15, 8, 5]).max() <= 3
    assert len(jf.Hyperband(factor=3).rungs(243)) + 1 == 6 and len(jf.Hyperband(factor=10).rungs(1000)) + 1 == 4
    steps = steps_of(143, steps=81, prune=rule)
    assert {*steps.tolist()} == {1, 3, 9, 27, 81} and (steps == 81).sum() >= 5


def test_equal_lanes_are_told_apart_by_their_numbers():
    starts = jf.Axis("w0", np.ones(9))
    kept = jf.sweep(square, starts, optimizer=jf.optimizers.sgd(0.1), steps=20, prune=jf.Halving(first=10))
    assert (kept.results.steps.values == 20).tolist() == [True] * 3 + [False] * 6
    assert lowest(np.array([2.0, 1.0, np.inf, 1.0, 2.0]), 3).tolist() == [True, True, False, True, False]


def test_groups_are_ranked_apart():
    pruned = sweep(jf.Halving(factor=3, first=9, over="rate"))
    left = (pruned.results.status == OUT).sum("rate").values
    assert left.tolist() == [2, 2, 2]  # 18, 6, 2 of each start
    alone = sweep(jf.Halving(factor=3, first=9)).results
    assert (alone.status == OUT).sum() == 6  # 54, 18, 6 of all


@pytest.mark.soak
def test_what_is_high_may_be_good():
    def height(params, x, y):
        return params["w"] + params["b"]

    record = jf.Record(every=9, what=(height,))
    high, low = (
        sweep(jf.Halving(factor=27, first=9, by="height", highest=highest), record=record).results
        for highest in (True, False)
    )
    at = high["history.height"].isel(step=1).values
    assert sorted(at[(high.status == OUT).values]) == sorted(at.ravel())[-2:]
    assert sorted(at[(low.status == OUT).values]) == sorted(at.ravel())[:2]


def test_a_failed_lane_never_goes_on_and_ranks_worst():
    rates = jf.Axis("rate", [0.1, 1e30, 1.2, 0.2])  # the second one overflows, the third one rises
    calls = []

    def all_of_them(rung):
        calls.append(rung)
        return np.ones(len(rung.values), bool)

    grid = jf.sweep(square, 1.0, optimizer=jf.optimizers.sgd(rates), steps=30, prune=jf.Rungs([10, 20], all_of_them))
    assert [jf.Status(s).name for s in grid.results.status.values] == [
        "OUT_OF_STEPS", "DIVERGED", "DIVERGED", "OUT_OF_STEPS",
    ]  # fmt: skip
    first, second = calls[1:]
    assert (first.step, first.number, second.step, second.number) == (10, 0, 20, 1)
    assert np.isinf(first.values).tolist() == [False, True, True, False] and second.lanes.tolist() == [0, 3]


@pytest.mark.parametrize("highest", [False, True])
def test_infinity_of_either_sign_ranks_worst(highest):
    values = np.array([np.inf, 1.0, -np.inf, np.nan, 2.0, 3.0])
    every = np.ones(6, bool)
    rule = jf.Halving(factor=2, highest=highest)
    goes = survivors(rule, 1, 0, 1, values, every, every, {"rate": 6})
    assert goes.tolist() == [False, True, False, False, True, True]


@pytest.mark.soak
def test_a_loss_of_nan_is_pruned_not_kept():
    """Under Ray 2.60's ASHA such a trial runs to the end."""

    def root(params, x, y):
        return np.sqrt(1.5) - (1.5 - params["w"]) ** 0.5

    results = sweep(jf.Median(first=9, every=80, by="root"), record=jf.Record(every=9, what=(root,))).results
    lost = np.isnan(results["history.root"].isel(step=1).values)
    assert lost.any() and (~lost).any() and (results.status.values[lost] == PRUNED).all()


def test_all_lanes_may_fail_at_the_first_rung():
    grid = steps_of(4, steps=30, prune=jf.Halving(first=3))
    assert grid.max() == 30
    rates = jf.Axis("rate", [1.1, 1.2, 1e30])
    grid = jf.sweep(square, 1.0, optimizer=jf.optimizers.sgd(rates), steps=30, prune=jf.Halving(first=3))
    assert (grid.results.status == jf.Status.DIVERGED).all() and grid.results.steps.max() == 3


@pytest.mark.soak
def test_a_lane_that_has_converged_is_ranked_with_its_last_value():
    stop = jf.Stop(loss_below=1e-2)
    rates = jf.Axis("rate", [0.4, 0.3, 0.01, 0.02, 0.03, 0.001])
    with counting() as events:
        grid = jf.sweep(square, 1.0, optimizer=jf.optimizers.sgd(rates), steps=60, stop=stop, prune=jf.Halving(3, 10))
    assert grid.results.status.values.tolist() == [1, 1, 6, 6, 6, 6]  # the two places are taken
    assert sum(len(lanes) for lanes in events["block"]) == 6


@pytest.mark.parametrize(
    "settings", soaking([{"workers": 1, "block_lanes": 8, "block_loads": 1}, {"workers": 3}, {"chunk": 8}], keep=1)
)
def test_nothing_is_trained_twice_and_blocks_change_no_bit(settings):
    with using(**settings), counting() as events:
        pruned = sweep(jf.Halving(factor=3, first=9))
    same_survivors(pruned, whole_sweep("lock-step"))
    assert sum(len(lanes) for lanes in events["block"]) == 54 + 18 + 6 and sum(events["lanes"]) == 54


@pytest.mark.soak
def test_ctrl_c_keeps_what_was_decided_and_calls_the_rest_not_run():
    with using(workers=1), ended_by(KeyboardInterrupt, "block", 2), pytest.raises(jf.Interrupted) as caught:
        sweep(jf.Halving(factor=3, first=9))
    status = caught.value.result.results.status.values
    assert (status == PRUNED).sum() == 36 and (status == jf.Status.NOT_RUN).sum() == 18


def test_ctrl_c_while_lanes_are_ranked_keeps_what_was_decided():
    def keep(rung):
        if rung.step == 27 and len(rung.values) < 54:  # not with made-up values
            raise KeyboardInterrupt
        return lowest(rung.values, len(rung.values) // 3)

    with pytest.raises(jf.Interrupted, match="after 36 of 54 lanes") as caught:
        sweep(jf.Rungs([9, 27], keep))
    found, whole = caught.value.result.results, sweep(jf.Halving(factor=3, first=9)).results
    out = (found.status == PRUNED).values
    assert out.sum() == 36 and (found.status.values[~out] == jf.Status.NOT_RUN).all()
    assert found.loss.values[out].tobytes() == whole.loss.values[out].tobytes()


INTERRUPTED = """
import sys, threading, signal, time, numpy as np
sys.path.insert(0, {root!r})
import jaxfit as jf
from tests.verbs.test_pruning import sweep
every = jf.Rungs(range(1000, 900_000, 1000), lambda rung: np.ones(len(rung.values), bool))
sweep(jf.Halving(factor=3, first=9))
def later():
    time.sleep({seconds})
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=later).start()
try:
    sweep(every, steps=1_000_000)
except jf.Interrupted as error:
    print("interrupted", error.result.results.status.values.max())
"""


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [0.5, 0.71, 0.93, 1.17, 1.39])
def test_sigint_at_any_time_of_a_sweep_with_many_rungs_ends_it_in_order(seconds):
    code = INTERRUPTED.format(root=str(ROOT), seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted 0\n"), done.stderr[-2000:]


def test_best_verify_and_explain_know_what_pruned_means():
    grid = sweep(jf.Halving(factor=3, first=9))
    assert jf.best(grid).status == OUT and "36 pruned" not in str(jf.best(grid))
    assert "pruned" in str(grid).splitlines()[0] and jf.verify(grid, sample=1).lanes >= 0
    assert "PRUNED" in grid.results.status.attrs["flag_meanings"].split()
    assert grid.results.attrs["prune"].startswith("Halving(factor=3, first=9")
    place = np.argwhere((grid.results.status == PRUNED).values)[0]
    lane = jf.lane(grid, w0=STARTS.values[place[0]], rate=RATE.values[place[1]])
    assert f"pruned after {lane.steps} updates" in str(lane)
    why = jf.explain(lane)
    assert why.kind == "pruned" and why.remedy == {"steps": 81} and "tested" not in str(why)
    assert why.retry().steps == 81


class Own:
    """A rule without jaxfit's classes."""

    by, over, highest = "loss", None, False

    def __init__(self, at, keep=lambda rung: rung.values <= np.median(rung.values)):
        self.at, self.keep = at, keep

    def rungs(self, steps):
        return self.at


def test_a_rule_may_be_any_class():
    same_survivors(sweep(Own(np.array([3, 30]))), whole_sweep("lock-step"))


def sorts_in_place(rung):
    rung.values.sort()
    return rung.values < np.median(rung.values)


BAD = {
    "falling rungs": (Own([30, 3]), ValueError, r"the rungs of Own are \[30, 3\], but every rung must lie after"),
    "a rung at the start": (Own([0, 3]), ValueError, r"Own.rungs\[0\] is 0, but it must be a whole number from 1"),
    "no rungs": (Own([]), ValueError, "prune: Own has no rungs in 81 steps"),
    "words": (Own([3], lambda rung: rung.lanes), TypeError, "returned int64 of shape .* one boolean"),
    "a rule that changes what it reads": (jf.Rungs([3], sorts_in_place), ValueError, "read-only"),
    "no rule": ("halving", TypeError, "prune is 'halving', but it must be a rule such as jf.Halving"),
    "a class": (jf.Halving, TypeError, "prune is <class .*Halving'>, but it must be a rule"),
    "a rung beyond": (jf.Halving(first=81), ValueError, "the rung at step 81 is not below steps=81"),
    "a far rung of one's own": (jf.Rungs([3, 90], lambda r: r.values < 1), ValueError, "the rung at step 90 is not"),
    "not recorded": (jf.Halving(by="accuracy"), ValueError, "by='accuracy' is not recorded.*there is loss"),
    "no validation": (jf.Halving(by="validation_loss"), ValueError, "there are no validation data; pass"),
    "no dimension": (jf.Halving(over="rates"), ValueError, "over='rates' is not a dimension.*did you mean rate"),
    "half booleans": (jf.Rungs([3], lambda r: r.values), TypeError, "returned float64 of shape .* one boolean"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rules_are_refused_before_anything_compiles(case):
    rule, error, text = BAD[case]
    with counting() as events, pytest.raises(error, match=text):
        sweep(rule)
    assert not events["program"]


def test_other_bad_calls_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Halving: factor is 1, but it must be a whole number from 2 to"):
        jf.Halving(factor=1)
    with pytest.raises(ValueError, match=r"at is \[5, 5\], but every rung must lie after the one before"):
        jf.Rungs([5, 5], lambda rung: rung.values < 1)
    with pytest.raises(ValueError, match="the rung at step 4 lies between two records, which are made every 3 steps"):
        sweep(jf.Halving(first=4), record=jf.Record(every=3))
    with pytest.raises(ValueError, match=r"Halving: over is \('rate', 'rate'\), but it must name every dimension once"):
        jf.Halving(over=("rate", "rate"))
    with pytest.raises(TypeError, match=r"Median: over is \('rate', 4\), but it must be a dimension's name"):
        jf.Median(over=("rate", 4))
    with pytest.raises(ValueError, match="every group has one lane, so that there is nothing to rank"):
        sweep(jf.Halving(first=9, over="rate"), optimizer=jf.optimizers.adam(jf.Axis("rate", [0.1])))
    with pytest.raises(ValueError, match="prune and rerun were both given"):
        sweep(jf.Halving(first=9), store=tmp_path / "a", rerun={"status": 4})
