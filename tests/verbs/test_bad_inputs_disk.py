"""Disk, processes and the environment: an error before the hours of computing, and the same results everywhere."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import experiments
from jaxfit.engine.settings import counting, using
from jaxfit.stores import files
from tests.shared.bad_inputs import fit, sweep
from tests.shared.small_sweeps import blocks, run

# The disk; stores that are killed, cut short or damaged are looked at in test_surviving.py


def test_a_folder_of_figures_that_cannot_be_written_is_an_error_before_the_computing(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(experiments.UsageError, match="cannot write figures to .*taken/figures: Not a directory"):
        experiments.prepare(tmp_path / "taken" / "figures")


def test_a_store_that_vanishes_while_a_sweep_runs_is_an_error_that_says_so(tmp_path):
    store = tmp_path / "store"

    def vanish(event, times):
        while event == "lanes" and store.exists():  # a block may be written into it while it is removed
            shutil.rmtree(store, ignore_errors=True)

    gone = rf"its folder was removed, .* make the same call again: '{store}/"
    with counting(vanish), pytest.raises(OSError, match=gone):
        run(store)
    assert not store.exists()


def test_a_store_that_vanishes_after_its_last_block_is_the_same_error(tmp_path):
    store = tmp_path / "store"

    def vanish(event, times):
        while event == "lanes" and times == 9 and store.exists():
            if len(blocks(store)) == 9:  # the last is written in the background
                shutil.rmtree(store)

    with counting(vanish), pytest.raises(OSError, match=rf"its folder was removed, .* again: '{store}/manifest.json"):
        run(store)


def test_a_full_disk_under_a_new_folder_is_an_error_with_its_path(tmp_path, monkeypatch):
    def full(path, *rest):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(files.os, "mkdir", full)
    with pytest.raises(OSError, match=rf"No space left on device: .*make room.*{tmp_path}/blocks"):
        run(tmp_path)


# The environment


def test_a_platform_that_is_not_there_is_an_error_that_names_one_that_is(monkeypatch):
    def absent():
        raise AssertionError  # as JAX does for one whose plugin finds no device

    monkeypatch.setattr(jax, "default_backend", absent)
    for call in (fit, sweep):
        with pytest.raises(RuntimeError, match="told to use the platform .*, which is not here; set JAX_PLATFORMS=cpu"):
            call()


def hungry(params, x):
    """A loss that sorts some tens of terabytes."""
    return jnp.sum(jnp.sort(jnp.outer(x, x) * sum(params.values()), axis=0))


def test_a_fit_that_takes_more_memory_than_there_is_says_what_to_change():
    with pytest.raises(jf.OutOfMemory, match=r"ran out of memory \(.*\): make a step smaller, by batches=") as caught:
        jf.fit(hungry, {"w": 1.0}, (np.ones(3_000_000),), optimizer=jf.optimizers.sgd(0.1))
    assert isinstance(caught.value, MemoryError)


@pytest.mark.soak
@pytest.mark.parametrize("stored", [False, True])
def test_a_sweep_that_runs_out_of_memory_keeps_what_was_finished_and_names_a_smaller_width(stored, tmp_path):
    losses = jf.Axis("loss function", [jf.losses.mse(jf.models.line), hungry_line], labels=["mse", "hungry"])
    rates = jf.optimizers.sgd(jf.Axis("rate", [0.1, 0.01, 0.001]))
    x = np.linspace(0, 1, 3_000_000)
    kept = {"store": tmp_path / "store"} if stored else {}
    with (
        using(workers=1),  # one block after the other
        pytest.raises(jf.OutOfMemory, match="4 lanes side by side.*pass slots=1") as caught,
    ):
        jf.sweep(losses, {"w": 0.0, "b": 0.0}, (x, x), optimizer=rates, steps=1, **kept)
    status = caught.value.result.results.status.sel({"loss function": ["mse", "hungry"]})
    assert (status[0] == jf.Status.OUT_OF_STEPS).all() and (status[1] == jf.Status.NOT_RUN).all()
    assert "It stopped after 3 of 6 lanes" in str(caught.value)
    assert ("and another store" in str(caught.value)) == stored


def hungry_line(params, x, y):
    return hungry(params, x - y + 1)


@pytest.mark.soak
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_asked_for_by_the_environment_and_absent_is_an_error_with_the_remedy(platform):
    if platform in {device.platform for device in jax.devices()} | {"cuda" * (jax.default_backend() == "gpu")}:
        pytest.skip("this machine has that platform, so that asking for it is no error")
    program = "import jaxfit as jf; jf.fit(lambda p: p**2, 1.0, optimizer=jf.optimizers.sgd(0.1))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": platform}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"RuntimeError: JAX is told to use the platform '{platform}', which is not here" in done.stderr


PROGRAM = """
import numpy as np, jaxfit as jf
x = np.linspace(0, 1, 8)
data = x, 2 * x + 1
loss = jf.losses.mse(jf.models.line) + jf.losses.l2(1e-3)
found = jf.fit(loss, {"w": 1.0, "b": 0.0}, data, optimizer=jf.optimizers.adam(0.1), steps=20,
               batches=jf.Batches(size=3), key=1, precision="float64")
grid = jf.sweep(loss, {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, data, steps=20,
                optimizer=jf.Axis("opt", [jf.optimizers.sgd(0.1), jf.optimizers.adam(0.1)], ["sgd", "adam"]))
print(found)
print(found.params["w"].tobytes().hex(), grid.results.loss.values.tobytes().hex(), grid.results.status.dims)
"""


@pytest.mark.soak
def test_results_do_not_depend_on_flags_hash_seed_locale_display_or_matplotlib(capsys):
    exec(PROGRAM, {})
    expected = capsys.readouterr().out
    without = "import sys; sys.modules['matplotlib'] = None"
    known = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")}
    odd = {"PYTHONHASHSEED": "12345", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"}
    command = [sys.executable, "-W", "error", "-O", "-c", without + PROGRAM]
    done = subprocess.run(command, env=known | odd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected and "float64" in expected
