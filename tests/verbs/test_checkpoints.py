"""A fit that was stopped goes on to the bits that it would have had."""

import errno
import os
import threading

import jax
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.stores import files
from jaxfit.stores.files import holding
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import LOSS, T_C, T_U
from tests.shared.soak import soaking

DATA = (0.1 * T_U, T_C)
NOISY = jf.optimizer(optax.noisy_sgd, learning_rate=1e-3, key=jax.random.key(0))
WAYS = {
    "adam on batches": {"optimizer": jf.optimizers.adam(0.01), "batches": jf.Batches(4), "key": 3,
                        "record": jf.Record(every=7, what=("loss", "params"))},
    "a rule in float64": {"stop": jf.Stop(gradient_norm_below=1.0), "precision": "float64"},
    "a method that judges": {"optimizer": jf.optimizers.levenberg_marquardt()},
    "a state with a key": {"optimizer": NOISY},
    "divergence": {"optimizer": jf.optimizers.sgd(0.1)},
    "no history": {"record": jf.Record(what=())},
}  # fmt: skip


def fit(checkpoint=None, **keywords):
    how = {"optimizer": jf.optimizers.sgd(1e-2), "steps": 200} | keywords
    return jf.fit(LOSS, {"w": 1.0, "b": 0.0}, DATA, checkpoint=checkpoint, **how)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert str(a) == str(b)


class Killed(Exception):
    pass


@pytest.fixture
def short():
    """Stretches of 21 steps, each written."""
    with using(stretch_steps=21, stretch_seconds=1e6, checkpoint_seconds=-1.0, checkpoint_share=1e9):
        yield


@pytest.mark.parametrize("way", soaking(WAYS, keep=("adam on batches",)))
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(way, short, tmp_path):
    path = tmp_path / "runs" / "fit"
    whole = fit(**WAYS[way])
    for n in (1, 2):
        with ended_by(Killed, "checkpoint", n):
            try:
                fit(path, **WAYS[way])
            except Killed:
                continue
            assert whole.steps <= 42
    same(fit(path, **WAYS[way]), whole)
    with counting() as events:
        same(fit(path, **WAYS[way]), whole)
    assert not events["stretch"]
    assert [item.name for item in path.parent.iterdir()] == ["fit"]


def test_ctrl_c_writes_where_the_run_stands_and_says_how_to_go_on(short, tmp_path):
    path, whole = tmp_path / "fit", fit()
    with (
        using(checkpoint_seconds=1000.0),
        ended_by(KeyboardInterrupt, "stretch", 3),
        pytest.raises(jf.Interrupted, match=rf"after 42 of 200 steps, kept in {path}: the same call goes") as caught,
    ):
        fit(path)
    assert caught.value.result.steps == 42
    same(fit(path), whole)


OTHERS = {
    "batches": ({"batches": jf.Batches(4), "key": 0}, r"the batching was none, is now Batches\("),
    "optimizer": ({"optimizer": jf.optimizers.adam(1e-2)}, r"the optimizer was sgd\(.*, is now adam\("),
    "rate": ({"optimizer": jf.optimizers.sgd(2e-2)}, r"optimizer\.learning_rate was float32 0.0\d+, is now"),
    "precision": ({"precision": "float64"}, "precision was float32, is now float64"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "fit"
    fit(path)
    return path.read_bytes()


@pytest.mark.parametrize("change", OTHERS)
def test_another_fit_is_refused_with_what_differs(change, tmp_path, finished):
    (tmp_path / "fit").write_bytes(finished)
    keywords, text = OTHERS[change]
    with pytest.raises(ValueError, match=f"checkpoint: .* is of another run: .*{text}.*remove the file, or give this"):
        fit(tmp_path / "fit", **keywords)
    assert (tmp_path / "fit").read_bytes() == finished


def test_a_checkpoint_damaged_anywhere_is_refused_with_its_name(tmp_path, finished):
    path = tmp_path / "fit"
    random = np.random.default_rng(0)
    for size in random.integers(0, len(finished), 20):
        path.write_bytes(finished[:size])
        with pytest.raises(jf.StoreError, match=f"{path} is"):
            fit(path)
    for bit in random.integers(0, 8 * len(finished), 60):
        broken = bytearray(finished)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(jf.StoreError, match=f"{path} is"):
            fit(path)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(short, tmp_path, monkeypatch):
    path, whole, write = tmp_path / "fit", fit(), files.os.replace
    count = []

    def third(*args):
        count.append(1)
        if len(count) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", third)
        with pytest.raises(OSError, match=f"No space left on device: what was written before is kept.*{path}"):
            fit(path)
    same(fit(path), whole)


WRONG = {
    "a number": (lambda p: 3, TypeError, r"checkpoint is 3 \(int\), but it must be a path such as checkpoint='runs/a'"),
    "a folder": (lambda p: p, jf.StoreError, "checkpoint: .* is a folder, but a checkpoint is one file; write"),
    "below a file": (lambda p: p / "file" / "fit", OSError, "no checkpoint can be written here, so nothing was"),
    "another file": (lambda p: p / "file", jf.StoreError, "file is no safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_path_that_cannot_be_is_refused(case, tmp_path, monkeypatch):
    make, error, text = WRONG[case]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(error, match=text):
        fit(make(tmp_path))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_in_use_is_refused_with_its_holder(tmp_path):
    with (
        holding(tmp_path / "fit.lock"),
        pytest.raises(jf.StoreError, match=f"in use by process {os.getpid()} on"),
    ):
        fit(tmp_path / "fit")


def test_nothing_is_written_inside_of_a_transformation(tmp_path):
    with pytest.raises(TypeError, match="checkpoint is .*inside of a jit, vmap or grad nothing is written; call fit"):
        jax.jit(lambda r: fit(tmp_path / "fit", optimizer=jf.optimizers.sgd(r)).loss)(0.1)


def test_a_thread_may_keep_a_checkpoint_too(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(tmp_path / "fit")))
    thread.start()
    thread.join()
    same(found[0], fit())


def test_a_number_that_was_fixed_is_told_apart_from_one_that_is_free(tmp_path):
    def go(number):
        start = {"w": 1.0, "i": number}
        method = jf.optimizers.sgd(0.1)
        return jf.fit(of_two_numbers, start, optimizer=method, steps=3, checkpoint=tmp_path / "run")

    go(jf.Fixed(1.0))
    with pytest.raises(ValueError, match=r"run: params\['i'\] \(in a mark\) was float32 1.0, is now float32 2.0\. "):
        go(jf.Fixed(2.0))
    with pytest.raises(
        ValueError, match=r"params\['i'\] \(in a mark\) was float32 1.0, is now absent; params\['i'\] was"
    ):
        go(1.0)


def of_two_numbers(p):
    return (p["w"] - p["i"]) ** 2
