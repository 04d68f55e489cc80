"""The same files whoever runs the blocks: threads, processes, shards, dask; and a second look at what they hold."""

import concurrent.futures as futures
import functools
import multiprocessing
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import jaxfit as jf
from jaxfit import worker
from jaxfit.engine import host
from jaxfit.engine.settings import counting
from jaxfit.stores import files, manifests, verification
from tests.shared.small_sweeps import LOSS, T_C, T_U, arguments, blocks, contents, run, same
from tests.shared.soak import soaking

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling") / "finished"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def memory(finished):
    return jf.open(finished).load()


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "store")


def problem():
    return arguments()


def spawning(n):
    return futures.ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


# Executors


@pytest.mark.parametrize("workers", soaking([1, 4], keep=(4,)))
def test_the_workers_of_an_executor_write_the_same_files(workers, tmp_path, finished, memory):
    with futures.ThreadPoolExecutor(workers) as executor:
        same(run(tmp_path, executor=executor).results, memory)
    assert contents(tmp_path) == contents(finished)


def test_an_executor_goes_on_where_a_sweep_stopped(store, finished, memory):
    for path in blocks(store)[::2]:
        path.unlink()
    with futures.ThreadPoolExecutor(2) as executor:
        same(run(store, executor=executor).results, memory)
    assert contents(store) == contents(finished)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_processes_write_the_same_files(workers, tmp_path, finished, memory):
    with spawning(workers) as executor:
        same(run(tmp_path, executor=executor).results, memory)
    assert contents(tmp_path) == contents(finished)


DYING = """
import os, sys
import jaxfit as jf
from tests.shared.small_sweeps import T_U


def dies_once(params, x):
    flag = os.environ["JAXFIT_TEST_FLAG"]
    if not os.path.exists(flag) and os.environ.get("JAXFIT_TEST_PARENT") != str(os.getpid()):
        open(flag, "w").close()
        os.kill(os.getpid(), 9)
    return jf.models.line(params, x)
"""


@pytest.mark.soak
def test_a_process_that_dies_is_replaced_and_its_block_runs_again(tmp_path, memory, monkeypatch):
    (tmp_path / "dying_model.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("JAXFIT_TEST_FLAG", str(tmp_path / "flag"))
    monkeypatch.setenv("JAXFIT_TEST_PARENT", str(os.getpid()))
    import dying_model  # pyright: ignore[reportMissingImports]

    loss = jf.losses.mse(dying_model.dies_once)
    with spawning(2) as executor:
        found = run(tmp_path / "store", loss=loss, executor=executor).results
    assert (tmp_path / "flag").exists()
    same(found, memory)


@pytest.mark.soak
def test_dask_finishes_when_a_worker_is_killed_in_the_middle(tmp_path, memory):
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            killed = []

            def kill(event, times):
                if event == "lanes" and not killed:
                    pid = next(iter(client.run(os.getpid).values()))
                    killed.append(pid)
                    os.kill(pid, 9)

            with counting(kill):
                found = run(tmp_path, executor=client.get_executor()).results.load()
    assert killed
    same(found, memory)


class Breaking(futures.ThreadPoolExecutor):
    def submit(self, *_):
        raise futures.BrokenExecutor("its workers are gone")


def test_workers_that_are_gone_are_an_error_that_says_what_is_kept(tmp_path):
    with (
        Breaking() as executor,
        pytest.raises(RuntimeError, match="workers died.*finished is kept: make the same call"),
    ):
        run(tmp_path, executor=executor)


class Forking(futures.ThreadPoolExecutor):
    _mp_context = multiprocessing.get_context("fork")


class Client:
    def get_executor(self):
        pass


WRONG = {
    "no executor": (lambda: run("s", executor=4), TypeError, r"executor is int, .*pass ProcessPoolExecutor\("),
    "a client of dask": (lambda: run("s", executor=Client()), TypeError, r"pass client\.get_executor\(\)"),
    "forks": (lambda: run("s", executor=Forking()), ValueError, r"by fork, and JAX hangs .*get_context\(\"spawn\"\)"),
    "no store": (lambda: run(executor=Forking()), ValueError, "executor was given, but no store.*pass store="),
    "rerun without a store": (lambda: run(rerun={"status": 4}), ValueError, "rerun was given, but no store"),
    "rerun of nothing": (lambda: run("s", rerun_of="t"), ValueError, r"rerun does not say what; pass rerun=\{"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused_before_anything_is_made(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, error, text = WRONG[case]
    with pytest.raises(error, match=text):
        call()
    assert not list(tmp_path.iterdir())


def test_what_cannot_travel_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TypeError, match="executor: loss cannot travel .*define its functions with def at the top"):
        host.pickled(arguments(loss=lambda p, x, y: 0.0))
    travelled = host.unpickled(host.pickled(arguments()))
    assert travelled["loss"] == LOSS and travelled["optimizer"].name == "sgd"


def test_a_worker_that_sees_another_store_refuses(tmp_path, store):
    from jaxfit.verbs.sweeps import run_elsewhere

    call = host.pickled(arguments(steps=29))
    with pytest.raises(ValueError, match="steps was 30, is now 29"):
        run_elsewhere(call, str(store), 0, 0, 0, 0)
    with pytest.raises(jf.StoreError, match="not visible from here, but every worker must read the store"):
        run_elsewhere(call, str(tmp_path / "elsewhere"), 0, 0, 0, 0)


# Shards


def test_shards_that_know_nothing_of_each_other_fill_one_store(tmp_path, finished, memory, capsys):
    for shard in ("2/3", "1/3", "3/3"):
        assert worker.main([f"{__name__}:problem", str(tmp_path), "--shard", shard]) == 0
    assert "shard 3/3: 3 blocks run; 35 of 35 lanes are done" in capsys.readouterr().out
    same(jf.open(tmp_path), memory)
    assert contents(tmp_path) == contents(finished)
    same(run(tmp_path).results, memory)


def test_shards_share_a_store_but_not_with_a_sweep_nor_with_themselves(store):
    with files.claim(store, shared=True), files.claim(store, "shard-1-of-2.lock"):
        assert worker.main([f"{__name__}:problem", str(store), "--shard", "2/2"]) == 0
        with pytest.raises(jf.StoreError, match=f"store is in use by process {os.getpid()} on"):
            run(store)
        assert worker.main([f"{__name__}:problem", str(store), "--shard", "1/2"]) == 1


SAID = {
    "no colon": (["problem", "s"], "the problem is 'problem', but it must be MODULE:PROBLEM"),
    "no module": (["no.such:problem", "s"], "No module named 'no'"),
    "no dict": ([f"{__name__}:ROOT", "s"], "is PosixPath, but it must be a dict of the arguments"),
    "share 0": ([f"{__name__}:problem", "s", "--shard", "0/2"], "shares are numbered from 1"),
    "share 3 of 2": ([f"{__name__}:problem", "s", "--shard", "3/2"], "--shard is '3/2'"),
}


@pytest.mark.parametrize("case", SAID)
def test_a_worker_says_what_is_wrong_with_its_command(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, text = SAID[case]
    assert worker.main(words) == 1 and text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def other_steps():
    return {**arguments(), "steps": 31}


def test_a_worker_refuses_a_store_of_another_problem(store, capsys):
    before = contents(store)
    assert worker.main([f"{__name__}:other_steps", str(store)]) == 1
    assert "a share runs without the others, but" in capsys.readouterr().err and contents(store) == before


@pytest.mark.soak
def test_a_worker_is_a_command(tmp_path, finished):
    module = ".".join(Path(__file__).relative_to(ROOT).with_suffix("").parts)
    for shard in ("1/2", "2/2"):
        command = [sys.executable, "-m", "jaxfit.worker", f"{module}:problem", str(tmp_path), "--shard", shard]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(finished)


# A second look


def test_only_the_chosen_blocks_run_again(store, memory, events):
    ran = events["block written"]
    before = contents(store)
    for where in ({"rate": [1e-1], "w0": -2.0}, lambda r: (r.rate == 1e-1) & (r.w0 == -2.0)):
        ran.clear()
        same(run(store, rerun=where).results, memory)
        assert ran == [1] and contents(store) == before
    ran.clear()
    run(store, rerun={"status": jf.Status.DIVERGED})
    diverged = np.flatnonzero(memory.status.values.ravel() == jf.Status.DIVERGED) // 4
    assert sorted(ran) == sorted(set(diverged))


@pytest.mark.soak
def test_another_precision_looks_again_in_a_store_of_its_own_that_names_the_first(store, memory, tmp_path):
    second = run(tmp_path / "wide", precision="float64", rerun={"status": jf.Status.DIVERGED}, rerun_of=store).results
    assert second.attrs["rerun_of"] == str(store) and second.loss.dtype == np.float64
    again = second.status.values != jf.Status.NOT_RUN
    assert again[memory.status.values == jf.Status.DIVERGED].all() and not again.all()


ODD = {
    "an unknown name": ({"stat": 4}, ValueError, "rerun: the results have no 'stat'; they have .*status"),
    "a number": (4, TypeError, "rerun is 4, but it takes a dict such as"),
    "a function of numbers": (lambda r: r.loss, TypeError, "rerun gave DataArray, but it must give a boolean"),
    "a function of nothing": (lambda r: None, TypeError, "rerun gave NoneType, but it must give a boolean"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_a_choice_that_cannot_be_applied_is_refused(case, store):
    where, error, text = ODD[case]
    with pytest.raises(error, match=text):
        run(store, rerun=where)


def test_a_second_look_finds_the_same_bits_and_the_same_fits(store):
    assert jf.verify(run(store), sample=2) == (9, 8, 2)
    assert jf.verify(store) == (9, 0, 0)
    assert jf.verify(run(), sample=1).fits == 1


def test_a_second_look_finds_numbers_that_were_changed(store):
    manifest = manifests.read_manifest(store)
    blocks = manifests.blocks_of(store, manifest)
    for part in manifests.block_maps(manifest).values():
        for place in part.blocks():
            tensors = blocks.read(part, *place)
            blocks.write(part, *place, tensors | {".loss": tensors[".loss"] * np.float32(1.5)})
    grid = run(store)
    with pytest.raises(jf.NotReproduced, match=r"has other bits in loss when it is run again"):
        jf.verify(grid)
    with pytest.raises(jf.NotReproduced, match=r"the lane \{'w0': .* has the loss .*, but a fit of its own gives"):
        verification.check_fits(grid, 2, np.random.default_rng(0), None)


def wander(params):
    """A loss whose descent p - rate * (4 p^2 - 3 p) is at rate 1 the logistic map 4 p (1 - p)."""
    return params["p"] ** 2 * (4.0 * params["p"] / 3.0 - 1.5)


def wandering(*rates):
    start, rate = jf.Axis("p", [0.001, 0.002, 0.003, 0.004]), jf.Axis("rate", rates)
    return jf.sweep(wander, {"p": start}, optimizer=jf.optimizers.sgd(rate), steps=200)


@pytest.mark.soak
def test_chaotic_lanes_are_told_apart_from_wrong_ones():
    """At rate 1 what separates two runs doubles a step (the map's Lyapunov exponent is ln 2); at 0.1 they settle."""

    def rounded(lane, precision, units=0):
        """Another program rounds otherwise; a start that is changed by units in the last place stands for one."""
        return verification.fit_of(lane, precision, units + 3)

    looked = functools.partial(verification.check_fits, random=np.random.default_rng(0), rtol=None, alone=rounded)
    found = verification.Verification(0, 8, *looked(wandering(0.1, 1.0), 8))
    assert found.fits + len(found.sensitive) == 8 and len(found.sensitive) > 1
    assert {coords["rate"] for coords in found.sensitive} == {1.0}
    assert f"within rounding: {found.fits} lanes confirmed by single fits" in str(found)
    assert f"too sensitive to compare with single fits: {len(found.sensitive)} lanes (p=0.00" in str(found)

    # Damaged numbers are found in both: a settled lane is refuted by its fit, a chaotic one by its bits.
    for rate, why in (
        (0.1, "allows; neither loss nor params .* rounding does not explain"),
        (1.0, "has other bits in loss"),
    ):
        damaged = wandering(rate)
        damaged.parts[0].lanes.loss[:] *= 1.5
        with pytest.raises(jf.NotReproduced, match=why):
            looked(damaged, 4)


@pytest.mark.soak
def test_lanes_of_a_refined_grid_are_run_again_as_themselves():
    start = {"w": jf.Axis("w0", np.linspace(-2.0, 2.0, 9)), "b": 0.0}
    rate = jf.optimizers.sgd(jf.Axis("rate", np.logspace(-3, 0, 9)))
    grid = jf.refine(LOSS, start, (0.1 * T_U, T_C), optimizer=rate, steps=10)
    assert (grid.results.evaluated.values == 0).any() and jf.verify(grid, sample=2).fits == 2


def test_how_far_a_single_fit_may_be_is_the_callers_to_say():
    grid, random = run(), np.random.default_rng(0)
    assert len(verification.check_bits(grid, 9, random)) <= grid.results.status.size  # each lane counts once
    grid.parts[0].lanes.loss[:] *= 1.005
    assert verification.check_fits(grid, 1, random, None) == (1, [])
    with pytest.raises(jf.NotReproduced, match=r"more apart than rtol=0\.001 allows; .* raise rtol"):
        verification.check_fits(grid, 1, random, 1e-3)
    assert verification.check_fits(grid, 1, random, 0.1) == (1, [])


def test_what_cannot_be_verified_is_refused():
    with pytest.raises(ValueError, match="sample is 0, but it must be a whole number from 1"):
        jf.verify("s", sample=0)
    with pytest.raises(TypeError, match="verify takes the grid of a sweep or the path of its store"):
        jf.verify(3)
    with pytest.raises(jf.StoreError, match="no/such does not exist"):
        jf.verify("no/such")
