"""Stages of a stored sweep: rungs at which lanes are pruned, and more steps for a store that was finished."""

import concurrent.futures
import functools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.worker import main
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import LOSS, contents, run, same
from tests.shared.soak import soaking

ROOT = Path(__file__).parent.parent.parent
NO_RULE, RULE = {"stop": jf.Stop()}, {"stop": jf.Stop(gradient_norm_below=2.0)}
WAYS = {
    "a rule": RULE,
    "lock-step": NO_RULE,
    "adam": {**NO_RULE, "optimizer": jf.optimizers.adam(jf.Axis("rate", [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1]))},
    "programs": {
        **RULE, "optimizer": jf.Axis("by", [jf.optimizers.sgd(1e-2), jf.optimizers.adam(1e-2)], ["sgd", "adam"]),
    },
}  # fmt: skip
HALVING = jf.Halving(factor=3, first=10)


def pruned(store, **keywords):
    return run(store, **{"steps": 50, "prune": HALVING, **RULE, **keywords})


class Killed(Exception):
    pass


@functools.cache
def in_memory(way, **keywords):
    return run(**WAYS[way], **keywords).results


@pytest.mark.parametrize("way", soaking(WAYS, keep=["a rule"]))
def test_a_pruned_store_is_the_pruned_sweep_to_the_bit(way, tmp_path):
    memory = in_memory(way, steps=50, prune=HALVING)
    with counting() as events:
        same(pruned(tmp_path, **WAYS[way]).results, memory)
    assert sum(events["lanes"]) == memory.status.size  # the bar is full at the end
    same(jf.open(tmp_path), in_memory(way, steps=50, prune=HALVING))
    with counting() as events:
        same(pruned(tmp_path, **WAYS[way]).results, in_memory(way, steps=50, prune=HALVING))
    assert not events["block"]


@pytest.mark.parametrize(
    ("event", "times"),
    soaking(
        [("block written", 2), ("block written", 11), ("stage", 1), ("stage", 2), ("block", 12), ("block", 13)],
        keep=(("block written", 11), ("stage", 1), ("block", 13)),
        names=2,
    ),
)
def test_a_pruned_sweep_that_was_killed_goes_on_inside_of_its_rung(event, times, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pruned(whole)
    with using(workers=1), ended_by(Killed, event, times), pytest.raises(Killed):
        pruned(killed)
    seen = jf.open(killed)
    assert (seen.status == jf.Status.NOT_RUN).any()
    memory = in_memory("a rule", steps=50, prune=HALVING)
    with counting() as events:
        same(pruned(killed).results, memory)
    assert contents(killed) == contents(whole)
    assert 0 < sum(len(lanes) for lanes in events["block"]) < 35 + 11 + 3


def test_a_rung_under_way_shows_who_waits_and_who_is_out(tmp_path):
    with using(workers=1), ended_by(KeyboardInterrupt, "stage", 1), pytest.raises(KeyboardInterrupt):
        pruned(tmp_path)
    seen = jf.open(tmp_path)
    out = seen.status == jf.Status.PRUNED
    assert out.any() and (seen.steps.values[out] == 10).all() and (seen.status == jf.Status.NOT_RUN).any()


@pytest.mark.parametrize("kind", soaking(["threads", "processes"], keep=["threads"]))
def test_two_workers_prune_as_one(kind, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    make = {
        "threads": lambda: concurrent.futures.ThreadPoolExecutor(2),
        "processes": lambda: concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn),
    }[kind]
    with make() as pool:
        grid = pruned(tmp_path, executor=pool)
    same(grid.results, in_memory("a rule", steps=50, prune=HALVING))


DEVICES = """
import sys
sys.path.insert(0, {root!r})
import jax, numpy as np
from tests.shared.small_sweeps import run
from tests.verbs.test_stages import HALVING, NO_RULE, RULE, pruned
assert len(jax.local_devices()) == {count}
for rule in (RULE, NO_RULE):
    grid = run(steps=50, prune=HALVING, **rule)
    whole = run(steps=50, **rule).results
    there = (grid.results.status == 2).values
    for name in whole.data_vars:
        assert grid.results[name].values[there].tobytes() == whole[name].values[there].tobytes(), name
    print(grid.results.loss.values.tobytes().hex(), grid.results.status.values.tolist())
pruned({store!r})
"""


@pytest.mark.soak
def test_eight_devices_prune_as_one(tmp_path):
    told = []
    for count in (1, 8):
        flags = f"--xla_force_host_platform_device_count={count}"
        code = DEVICES.format(root=str(ROOT), count=count, store=str(tmp_path / str(count)))
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(done.stdout)
    assert told[0] == told[1]
    assert contents(tmp_path / "1") == contents(tmp_path / "8")


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from jaxfit.engine.settings import counting, using
from tests.verbs.test_stages import pruned
def end(event, times):
    if (event, times) == ({event!r}, {times}):
        os.kill(os.getpid(), signal.SIGKILL)
with using(workers=1), counting(end):
    pruned({store!r})
"""


@pytest.mark.soak
def test_sigkill_between_and_inside_of_rungs_changes_no_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    pruned(whole)
    for event, times in (("block", 3), ("block written", 8), ("stage", 2), ("block", 2), ("stage", 2), ("block", 1)):
        code = KILLED.format(root=str(ROOT), event=event, times=times, store=str(killed))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode in (-9, 0), done.stderr[-2000:]
    same(pruned(killed).results, in_memory("a rule", steps=50, prune=HALVING))
    assert contents(killed) == contents(whole)


CHANGES = {
    "another rule": (
        {"prune": jf.Halving(factor=2, first=10)}, r"prune was Halv.*factor=3.*is now .*factor=2[^)]*\)\. Make"),
    "no rule": ({"prune": None}, r"prune was Halving\([^)]*\), is now absent\. Make"),
    "more steps": ({"steps": 60}, r"sweep: steps was 50, is now 60 \(a pruned sweep does not go on .*\)\. Make"),
    "fewer steps": ({"steps": 40}, r"sweep: steps was 50, is now 40 \(a pruned sweep does not go on .*\)\. Make"),
    "more lanes": ({"starts": [-2.0, 0.0, 1.0, 2.0, 3.0, 4.0]}, "cannot grow after lanes are compared with all others"),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages") / "finished"
    pruned(folder)
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_a_pruned_store_takes_no_other_call(change, finished):
    keywords, text = CHANGES[change]
    before = contents(finished)
    with pytest.raises(ValueError, match=f"store: .* holds another .*{text}"):
        pruned(finished, **keywords)
    assert contents(finished) == before


def test_an_edited_function_of_a_rule_is_another_rule(tmp_path):
    def rule(limit):
        return jf.Rungs([10], lambda rung: rung.values < limit * rung.values.min())

    pruned(tmp_path, prune=rule(2.0))
    with counting() as events:
        pruned(tmp_path, prune=rule(2.0))
    assert not events["block"]
    with pytest.raises(ValueError, match="holds another sweep: what prune keeps was [0-9a-f]*, is now"):
        pruned(tmp_path, prune=rule(3.0))


def test_a_damaged_block_of_an_early_rung_is_run_again(tmp_path):
    pruned(tmp_path)
    before = contents(tmp_path)
    path = sorted((tmp_path / "blocks").glob("all-0-*"))[1]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.warns(UserWarning, match="what was in there is computed again"):
        same(pruned(tmp_path).results, in_memory("a rule", steps=50, prune=HALVING))
    assert contents(tmp_path) == before


def test_verify_reads_every_round_and_compares_survivors_with_the_plain_sweep(finished):
    grid = pruned(finished)
    checked = jf.verify(grid, sample=2)
    assert checked.blocks == len(list((finished / "blocks").iterdir()))


def test_a_share_does_not_prune(tmp_path, capsys):
    assert main(["tests.verbs.test_stages:shared", str(tmp_path / "a")]) == 1
    assert "a share runs without the others" in capsys.readouterr().err


def shared():
    from tests.shared.small_sweeps import arguments

    return arguments(steps=50, prune=HALVING, **RULE)


# More steps


@pytest.mark.parametrize("before", soaking([(20,), (20, 30)], keep=1))
@pytest.mark.parametrize("way", soaking(WAYS, keep=["lock-step"]))
def test_a_finished_store_goes_on_with_more_steps(way, before, tmp_path):
    for steps in before:
        shorter = run(tmp_path, steps=steps, **WAYS[way]).results.status
    whole = in_memory(way, steps=70)
    with counting() as events:
        same(run(tmp_path, steps=70, **WAYS[way]).results, whole)
    same(jf.open(tmp_path), whole)
    assert sum(len(lanes) for lanes in events["block"]) <= (shorter != jf.Status.CONVERGED).sum()
    with counting() as events:
        run(tmp_path, steps=70, **WAYS[way])
    assert not events["block"]


OTHERS = {
    "between two records": {"record": jf.Record(every=7)},
    "no history": {"record": jf.Record(what=())},
    "a method that judges": {"optimizer": jf.optimizers.lbfgs(), "stop": jf.Stop()},
    "lanes above their start": {"optimizer": jf.optimizers.momentum(jf.Axis("rate", [5e-3, 2e-2]), 0.97), **NO_RULE},
    "bounds": {"params": {"w": jf.Bounded(jf.Axis("w0", [0.5, 1.0]), 0.0, 2.0), "b": 0.0}, **NO_RULE},
}  # fmt: skip


@pytest.mark.parametrize("way", soaking(OTHERS, keep=["no history"]))
def test_what_cannot_go_on_starts_anew_and_ends_alike(way, tmp_path):
    run(tmp_path, steps=5, **OTHERS[way])
    same(run(tmp_path, steps=40, **OTHERS[way]).results, run(steps=40, **OTHERS[way]).results)


def test_more_steps_may_be_asked_for_while_the_first_are_not_done(tmp_path):
    with using(workers=1), ended_by(KeyboardInterrupt, "block", 4), pytest.raises(jf.Interrupted):
        run(tmp_path, **NO_RULE)
    with using(workers=1), ended_by(KeyboardInterrupt, "block", 9), pytest.raises(jf.Interrupted):
        run(tmp_path, steps=70, **NO_RULE)
    same(run(tmp_path, steps=70, **NO_RULE).results, in_memory("lock-step", steps=70))


@pytest.mark.soak
def test_axes_grow_before_steps_do_and_not_after(tmp_path):
    few, more = [-2.0, 0.0], [-2.0, 0.0, 1.0]
    run(tmp_path, starts=few, **NO_RULE)
    same(run(tmp_path, starts=more, steps=70, **NO_RULE).results, run(starts=more, steps=70, **NO_RULE).results)
    with pytest.raises(ValueError, match="the axes were .* cannot grow after its steps grew"):
        run(tmp_path, starts=[*more, 5.0], steps=70, **NO_RULE)


@pytest.mark.soak
def test_fewer_steps_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"steps was 30, is now 20 \(a store goes on, not back\)"):
        run(tmp_path, steps=20)


@pytest.mark.soak
def test_a_schedule_made_for_the_former_steps_is_another_program(tmp_path):
    def falling(steps):
        rate = jf.schedules.cosine(1e-2, steps)
        return {"optimizer": jf.optimizers.sgd(rate), **NO_RULE}

    run(tmp_path, steps=20, **falling(20))
    with pytest.raises(ValueError, match="holds another sweep"):
        run(tmp_path, steps=40, **falling(40))
    assert LOSS is not None
