"""Files, folders and workers that cannot be used are refused by name, and the remedy of each message works."""

import concurrent.futures
import json
import multiprocessing
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit import worker
from jaxfit.engine import host
from jaxfit.engine.dispatch import check_executor
from jaxfit.stores import files, manifests
from jaxfit.verbs.sweeps import run_elsewhere
from tests.shared.bad_inputs import START, Case, check, follows, named
from tests.shared.small_sweeps import LOSS, arguments, blocks, run
from tests.shared.soak import soaking

DATA = arguments()["data"]
CHI, SGD = jf.losses.chi_squared(jf.models.line), jf.optimizers.sgd(1e-2)
EXPONENTIAL = jf.optimizer(optax.optimistic_gradient_descent, learning_rate=0.01)


def sum_of(p):
    return (p["a"] + p["b"] - 6.0) ** 2


def doubled(p):
    return 2 * p["a"]


HALF_TIED = {"a": 1.0, "b": jf.Tied(doubled)}
WITH_FUNCTION = {"a": 1.0, "b": 2.0, "f": np.tanh}


def prepare():
    """Make what the cases damage copies of."""
    global KEPT, FINISHED, SAVED, WRITTEN
    KEPT = tempfile.TemporaryDirectory()
    folder = Path(KEPT.name)
    FINISHED, SAVED, WRITTEN = folder / "store", folder / "saved", folder / "written"
    run(FINISHED)
    jf.save(jf.curve_fit(jf.models.line, None, DATA), SAVED)
    fit(WRITTEN)


@pytest.fixture(scope="module", autouse=True)
def prepared():
    prepare()
    yield
    KEPT.cleanup()


def fit(checkpoint=None, **keywords):
    return jf.fit(LOSS, START, DATA, checkpoint=checkpoint, **({"optimizer": SGD, "steps": 20} | keywords))


# What is done with a copy of the finished store, the saved fit or the checkpoint: each function gets its path


def with_copy(original, *uses):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy"
        (shutil.copytree if original.is_dir() else shutil.copy)(original, path)
        return looked_at([use(path) for use in uses][-1])


def looked_at(found):
    """Read all that stands on disk while it is there; in these sweeps some losses are not finite."""
    results = getattr(found, "results", found)
    return results.load().status.values if hasattr(results, "load") else found


def store(*uses):
    return with_copy(FINISHED, *uses)


def saved(*uses):
    return with_copy(SAVED, *uses)


def checkpoint(*uses):
    return with_copy(WRITTEN, *uses)


def empty(*uses):
    with tempfile.TemporaryDirectory() as folder:
        return looked_at([use(Path(folder)) for use in uses][-1])


def rewrite(name, change):
    """Change the text of a file of the store, or of the file itself."""

    def rewritten(path):
        file = path / name if name else path
        file.write_text(change(file.read_text()))

    return rewritten


def signed(name, change):
    """Change the fields of a file that ends with a digest, which then is that of its contents."""

    def rewritten(path):
        file = path / name if name else path
        fields = json.loads(file.read_text())
        fields.pop("digest")
        change(fields)
        file.write_bytes(files.with_digest(fields))

    return rewritten


def cut_block(path):
    file = blocks(path)[3]
    file.write_bytes(file.read_bytes()[:-4])


def block_as_folder(path):
    file = blocks(path)[3]
    file.unlink()
    file.mkdir()


def remove(name):
    def removed(path):
        (shutil.rmtree if (path / name).is_dir() else Path.unlink)(path / name)

    return removed


def remove_block(path):
    file = next(file for file in blocks(path) if file.is_dir())
    file.rmdir()


def other_arrays(path):
    """Exchange two blocks' contents under names that fit them."""
    manifest, file = manifests.read_manifest(path), blocks(path)[3]
    stored = manifests.blocks_of(path, manifest)
    (key, part), *_ = manifests.block_maps(manifest).items()
    (segment, block), *_ = [at for at in part.blocks() if stored.files[(key, *at)][0] == file]
    content = files.pack({"loss": np.zeros(1)})
    digest = stored._digest(key, segment, block, content)
    file.unlink()
    file.with_name(re.sub(r"-[0-9a-f]+\.safetensors$", f"-{digest}.safetensors", file.name)).write_bytes(content)


def other_numbers(path):
    tensors = files.unpack(path.read_bytes(), path)
    path.write_bytes(files.pack(tensors | {"place": tensors["place"] + 1}))


def again(path):
    with pytest.warns(UserWarning, match="computed again"):
        return run(path)


def held(lock, use):
    def using(path):
        with files.holding(path / lock if path.is_dir() else path.with_name(lock)):
            return use(path)

    return using


class Point(NamedTuple):
    a: float


def of_point(p):
    return (p["a"] - 1.0) ** 2


class Forking(concurrent.futures.ThreadPoolExecutor):
    _mp_context = multiprocessing.get_context("fork")


class Client:
    """As that of dask."""

    def get_executor(self):
        return concurrent.futures.ThreadPoolExecutor(1)


def on(executor):
    return lambda path: run(path / "s", executor=executor)


def spawning():
    return concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def checks(executor):
    """Whether an executor is one that a sweep takes; its processes would take longer to start than all tests here."""
    with executor:
        check_executor(executor)


def problem():
    return arguments()


def longer():
    return arguments(steps=31)


ROOT = 3


def works(name, shard="1/1"):
    return lambda path: worker.run_shard(name, str(path / "s"), worker.shard_of(shard), progress=False)


def load(loss=CHI, **keywords):
    return lambda path: jf.load(path, loss, **keywords)


def travels(loss):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cloudpickle", None)
        return host.unpickled(host.pickled(arguments(loss=loss)))


def on_a_worker(path):
    return run_elsewhere(host.pickled(arguments()), str(path), 0, 0, 0, 0)


def line_(params, x):
    return params["w"] * x - params["b"]


line_.__name__ = "line"


def kept_fit(loss, params, **keywords):
    """A fit of functions, saved and then loaded."""
    return lambda then: empty(
        lambda path: jf.save(jf.fit(loss, params, **({"optimizer": SGD, "steps": 3} | keywords)), path / "fit"),
        lambda path: then(path / "fit"),
    )


TIED = kept_fit(sum_of, HALF_TIED)
OWN_OPTIMIZER = kept_fit(sum_of, {"a": 1.0, "b": 2.0}, optimizer=EXPONENTIAL)
HOLDS_FUNCTION = kept_fit(sum_of, WITH_FUNCTION)
MANIFEST = "remove it and make the same sweep with the same store= again: its blocks are kept"
TEXT, NAMED = (jf.Axis("w0", [0.0, 1.0], labels=[first, "one"]) for first in (None, "none"))

STORES = {
    "a block is cut": Case(lambda: store(cut_block, jf.open), jf.StoreError, "is damaged: its bytes are not",
        "the same sweep with the same store= computes this one again", lambda: store(cut_block, again)),
    "a block is cut, and left out": Case(lambda: store(cut_block, jf.open), jf.StoreError, "is damaged",
        r"jf\.open\(path, damaged='skip'\) leaves it out",
        lambda: store(cut_block, lambda path: jf.open(path, damaged="skip"))),
    "a block is cut, looked at": Case(lambda: store(cut_block, jf.verify), jf.StoreError, "is damaged",
        "The same sweep with the same store= computes them again", lambda: store(cut_block, again, jf.verify)),
    "a block is a folder": Case(lambda: store(block_as_folder, run), jf.StoreError, "is a folder, but it must be a fi",
        "remove it", lambda: store(block_as_folder, remove_block, run)),
    "a block holds other arrays": Case(lambda: store(other_arrays, jf.open), jf.StoreError, "holds other arrays than",
        "remove it", lambda: store(other_arrays, lambda path: Path.unlink(blocks(path)[3]), run)),
    "the manifest is cut": Case(
        lambda: store(rewrite("manifest.json", lambda text: text[:99]), jf.open), jf.StoreError,
        "is damaged: it is no JSON", MANIFEST,
        lambda: store(rewrite("manifest.json", lambda text: text[:99]), remove("manifest.json"), run)),
    "the manifest is changed": Case(
        lambda: store(rewrite("manifest.json", lambda text: text.replace('"steps": 30', '"steps": 31')), run),
        jf.StoreError, "is damaged: its digest", MANIFEST,
        lambda: store(rewrite("manifest.json", lambda text: text[:99]), remove("manifest.json"), run)),
    "the manifest cannot be": Case(
        lambda: store(signed("manifest.json", lambda fields: fields.update(segments=3)), run), jf.StoreError,
        "says what cannot be", MANIFEST,
        lambda: store(signed("manifest.json", lambda f: f.update(segments=3)), remove("manifest.json"), run)),
    "the manifest is of something else": Case(
        lambda: empty(lambda path: (path / "manifest.json").write_text("{}"), run), jf.StoreError,
        "is not of a jaxfit sweep", "use another folder for the store",
        lambda: empty(lambda path: run(path / "another"))),
    "the manifest is of a later version": Case(
        lambda: store(rewrite("manifest.json", lambda t: t.replace('"version": 1', '"version": 2')), run),
        jf.StoreError, "is of version 2", "or another folder", lambda: empty(run)),
    "the arrays of the axes are cut": Case(
        lambda: store(lambda path: next(path.glob("coordinates-*")).write_bytes(b"x"), run), jf.StoreError,
        "is damaged",
        "remove manifest.json and make the same sweep",
        lambda: store(lambda path: next(path.glob("coordinates-*")).write_bytes(b"x"), remove("manifest.json"), run)),
    "the arrays of the axes are gone": Case(
        lambda: store(lambda path: next(path.glob("coordinates-*")).unlink(), jf.open), jf.StoreError, "is damaged",
        "remove manifest.json and make the same sweep",
        lambda: store(lambda path: next(path.glob("coordinates-*")).unlink(), remove("manifest.json"), run)),
    "another sweep": Case(lambda: store(lambda path: run(path, steps=20)), ValueError, "steps was 30, is now 20",
        "give this one another store=", lambda: empty(lambda path: run(path, steps=20))),
    "a file": Case(lambda: saved(run), jf.StoreError, "is a file, but a store is a folder", "use another name",
        lambda: saved(lambda path: run(path.with_name("another")))),
    "other things": Case(lambda: empty(lambda path: (path / "mine").touch(), run), jf.StoreError,
        r"holds other things \(mine\)", "use a new folder", lambda: empty(lambda path: run(path / "new"))),
    "blocks that are a file": Case(
        lambda: store(lambda path: shutil.rmtree(path / "blocks"), lambda path: (path / "blocks").touch(), run),
        jf.StoreError, "blocks is a file, but it must be a folder", "remove it",
        lambda: store(lambda path: shutil.rmtree(path / "blocks"), run)),
    "a name that is none": Case(lambda: run(""), ValueError, "store is ''", "a short one such as 'runs/a'",
        lambda: empty(lambda path: run(path / "runs" / "a"))),
    "in use": Case(lambda: store(held("lock", run)), jf.StoreError, "is in use by process", "wait until it ends",
        lambda: store(held("lock", lambda path: None), run)),
    "below a file": Case(lambda: saved(lambda path: run(path / "s")), NotADirectoryError, "nothing can be written to",
        "choose another folder", lambda: empty(run)),
    "labels of no kind": Case(lambda: empty(lambda path: run(path, params={"w": TEXT, "b": 0.0})), ValueError,
        "'w0' holds object values", "pass such labels= to the Axis",
        lambda: empty(lambda path: run(path, params={"w": NAMED, "b": 0.0}))),
    "no store to open": Case(lambda: jf.open("no/such"), jf.StoreError, "does not exist", "the folder that was given",
        lambda: store(jf.open)),
    "a folder that is none": Case(lambda: empty(jf.open), jf.StoreError, "so it is no store", "the folder that was",
        lambda: store(jf.open)),
    "damaged, a word": Case(lambda: store(lambda path: jf.open(path, damaged="ignore")), ValueError, "'ignore'",
        '"skip" to leave', lambda: store(lambda path: jf.open(path, damaged="skip"))),
    "rerun without a store": Case(lambda: run(rerun={"status": 4}), ValueError, "rerun was given, but no store",
        "pass store=", lambda: store(lambda path: run(path, rerun={"status": 4}))),
    "rerun of nothing": Case(lambda: store(lambda path: run(path, rerun_of=path)), ValueError, "does not say what",
        r"pass rerun=\{'status': 4\}", lambda: store(lambda path: run(path, rerun_of=path, rerun={"status": 4}))),
    "rerun, no such variable": Case(lambda: store(lambda path: run(path, rerun={"stat": 4})), ValueError, "no 'stat'",
        "they have .*status", lambda: store(lambda path: run(path, rerun={"status": 4}))),
    "rerun, a number": Case(lambda: store(lambda path: run(path, rerun=4)), TypeError, "rerun is 4", "or a function",
        lambda: store(lambda path: run(path, rerun=lambda results: results.status == 4))),
    "rerun, a function of numbers": Case(lambda: store(lambda path: run(path, rerun=lambda r: r.loss)), TypeError,
        "rerun gave DataArray", "a boolean DataArray", lambda: store(lambda p: run(p, rerun=lambda r: r.loss > 1e9))),
    "rerun of other axes": Case(
        lambda: store(lambda path: run(path / "s", rates=[1e-3], rerun_of=path, rerun={"status": 4})), ValueError,
        "has the axes .* but this sweep has", "", lambda: store(lambda path: run(path, rerun={"status": 4}))),
    "prune and rerun": Case(
        lambda: store(lambda path: run(path, rerun={"status": 4}, prune=jf.Halving(first=10))), ValueError,
        "prune and rerun were both given", "rerun without prune what is to be run again, in another store",
        lambda: store(lambda p: run(p.with_name("another"), rerun={"status": 4}, rerun_of=p))),
}  # fmt: skip

SAVES = {
    "a folder": Case(lambda: empty(load()), jf.StoreError, "is a folder, but it must be a file", "",
        lambda: saved(load())),
    "an empty file": Case(lambda: saved(rewrite("", lambda text: ""), load()), jf.StoreError, "is no saved fit",
        "save it again", lambda: saved(lambda path: jf.save(jf.curve_fit(jf.models.line, None, DATA), path), load())),
    "a file of something else": Case(lambda: saved(rewrite("", lambda text: "[]"), load()), jf.StoreError,
        "is no saved fit", r"give a file that jf\.save wrote", lambda: saved(load())),
    "a later version": Case(lambda: saved(rewrite("", lambda t: t.replace('"version": 1', '"version": 2')), load()),
        jf.StoreError, "has version 2", "use the jaxfit that wrote it", lambda: saved(load())),
    "a digit is changed": Case(lambda: saved(rewrite("", lambda t: t.replace("3", "4", 1)), load()), jf.StoreError,
        "is damaged", "save the fit again",
        lambda: saved(lambda path: jf.save(jf.curve_fit(jf.models.line, None, DATA), path), load())),
    "less in it": Case(lambda: saved(signed("", lambda fields: fields.pop("params")), load()), jf.StoreError,
        "holds no whole fit", "save it again",
        lambda: saved(lambda path: jf.save(jf.curve_fit(jf.models.line, None, DATA), path), load())),
    "another loss": Case(lambda: saved(load(LOSS)), ValueError, r"fit of chi_squared\(line\), but loss is mse",
        "give the loss of the fit", lambda: saved(load(CHI))),
    "another model of the name": Case(lambda: saved(load(jf.losses.chi_squared(line_))), ValueError,
        "records a loss of", "give that of the fit", lambda: saved(load(CHI))),
    "an optimizer of functions": Case(lambda: OWN_OPTIMIZER(load(sum_of)), ValueError, "is a fit by optimistic",
        "give it again: optimizer=", lambda: OWN_OPTIMIZER(load(sum_of, optimizer=EXPONENTIAL))),
    "a tied start": Case(lambda: TIED(load(sum_of)), ValueError, r"params\.b was tied by a function",
        "give the start again: params=", lambda: TIED(load(sum_of, params=HALF_TIED))),
    "a start that holds a function": Case(lambda: HOLDS_FUNCTION(load(sum_of)), ValueError, "f is a function",
        "give the start again: params=", lambda: HOLDS_FUNCTION(load(sum_of, params=WITH_FUNCTION))),
    "another start": Case(lambda: TIED(load(sum_of, params={"a": 9.0, "b": jf.Tied(doubled)})), ValueError,
        "another start than params", "or give what the fit was given", lambda: TIED(load(sum_of, params=HALF_TIED))),
    "a class of one's own": Case(
        lambda: kept_fit(lambda p: (p.a - 1) ** 2, Point(1.0))(load(of_point)), TypeError, "params is a Point",
        "let the params be a dict of arrays", lambda: kept_fit(of_point, Point(1.0)._asdict())(load(of_point))),
    "many fits": Case(
        lambda: jf.save(jax.jit(jax.vmap(lambda r: fit(optimizer=jf.optimizers.sgd(r))))(np.array([1e-3, 1e-2])), "a"),
        TypeError, "not a traced one or many", r"save what jf\.fit returned",
        lambda: empty(lambda path: jf.save(fit(), path / "fit"))),
}  # fmt: skip

CHECKPOINTS = {
    "a folder": Case(lambda: empty(fit), jf.StoreError, "is a folder, but a checkpoint is one file", "write .*fit",
        lambda: empty(lambda path: fit(path / "fit"))),
    "a text": Case(lambda: saved(fit), jf.StoreError, "is no safetensors file", "remove it",
        lambda: saved(Path.unlink, fit)),
    "a file of another program": Case(
        lambda: empty(lambda p: (p / "fit").write_bytes(files.pack({"a": np.zeros(3)})), lambda p: fit(p / "fit")),
        jf.StoreError, "is no checkpoint of this version", "use another path",
        lambda: empty(lambda path: fit(path / "another"))),
    "a number is changed": Case(lambda: checkpoint(other_numbers, fit), jf.StoreError, "is damaged: its digest",
        "remove it", lambda: checkpoint(other_numbers, Path.unlink, fit)),
    "another run": Case(lambda: checkpoint(lambda path: fit(path, optimizer=jf.optimizers.sgd(1e-3))), ValueError,
        "is of another run: .*learning_rate was", "Make the call as it was to go on", lambda: checkpoint(fit)),
    "another run, removed": Case(lambda: checkpoint(lambda path: fit(path, optimizer=jf.optimizers.sgd(1e-3))),
        ValueError, "is of another run", "remove the file, or give this one another checkpoint=",
        lambda: checkpoint(Path.unlink, lambda path: fit(path, optimizer=jf.optimizers.sgd(1e-3)))),
    "fewer steps": Case(lambda: checkpoint(lambda path: fit(path, steps=10)), ValueError, "has made 20 steps",
        "pass steps=20 or more", lambda: checkpoint(lambda path: fit(path, steps=20))),
    "fewer steps, alone": Case(lambda: checkpoint(lambda path: fit(path, steps=10)), ValueError, "has made 20 steps",
        "or make the shorter run on its own", lambda: fit(steps=10)),
    "between two records": Case(
        lambda: jf.resume(fit(record=jf.Record(every=7)), 30), ValueError, "no multiple of Record.every=7",
        "make that run on its own", lambda: fit(record=jf.Record(every=7), steps=30)),
    "a lane goes on": Case(lambda: jf.resume(jf.lane(run(), w0=0.0, rate=1e-3), 40), ValueError, "is a lane of a sw",
        "sweep with store= and make that call again with more steps", lambda: store(lambda path: run(path, steps=40))),
    "inside a jit": Case(
        lambda: jax.jit(lambda r: fit("a", optimizer=jf.optimizers.sgd(r)).loss)(0.1), TypeError, "nothing is written",
        "call fit outside", lambda: empty(lambda path: fit(path / "fit"))),
    "in use": Case(lambda: checkpoint(held("copy.lock", fit)), jf.StoreError, "is in use by process", "wait until",
        lambda: checkpoint(held("copy.lock", lambda path: None), fit)),
    "below a file": Case(lambda: saved(lambda path: fit(path / "fit")), FileExistsError, "no checkpoint can be",
        "choose another folder", lambda: empty(lambda path: fit(path / "runs" / "fit"))),
}  # fmt: skip

WORKERS = {
    "no executor": Case(lambda: empty(on(4)), TypeError, "executor is int", r"pass ProcessPoolExecutor\(",
        lambda: empty(on(concurrent.futures.ThreadPoolExecutor(1)))),
    "forks": Case(lambda: empty(on(Forking(1))), ValueError, "starts its workers by fork",
        r'mp_context=multiprocessing\.get_context\("spawn"\)', lambda: checks(spawning())),
    "a client of dask": Case(lambda: empty(on(Client())), TypeError, "executor is Client", r"client\.get_executor\(\)",
        lambda: empty(on(Client().get_executor()))),
    "an executor without a store": Case(lambda: run(executor=Client().get_executor()), ValueError,
        "executor was given, but no store", "pass store='runs/a'", lambda: empty(on(Client().get_executor()))),
    "a problem without its module": Case(lambda: empty(works("problem")), ValueError, "the problem is 'problem'",
        "MODULE:PROBLEM, such as sweeps:problem", lambda: empty(works(f"{__name__}:problem"))),
    "a loss that cannot travel": Case(lambda: travels(lambda p, x, y: 0.0), TypeError, "executor: loss cannot travel",
        "define its functions with def at the top of a module", lambda: travels(LOSS)),
    "a store on another disk": Case(lambda: empty(lambda path: on_a_worker(path / "elsewhere")), jf.StoreError,
        "is not visible from here", "put it on a shared file system", lambda: store(on_a_worker)),
    "a share from zero": Case(lambda: empty(works(f"{__name__}:problem", "0/2")), ValueError, "--shard is '0/2'",
        "numbered from 1, as 1/4", lambda: empty(works(f"{__name__}:problem", "1/4"))),
    "a problem that is a number": Case(lambda: empty(works(f"{__name__}:ROOT")), TypeError, "ROOT is int",
        "or a function that returns one", lambda: empty(works(f"{__name__}:problem"))),
    "a share of a longer sweep": Case(
        lambda: store(lambda path: worker.run_shard(f"{__name__}:longer", str(path), (1, 2), progress=False)),
        ValueError, "a share runs without the others", r"call jf\.sweep\(\.\.\., store=STORE\) for that",
        lambda: store(lambda path: jf.sweep(**longer(), store=path))),
}  # fmt: skip

CASES = named({"store": STORES, "saved fit": SAVES, "checkpoint": CHECKPOINTS, "worker": WORKERS})


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_read_written_or_run_elsewhere_is_refused_by_name(name, events):
    check(CASES[name], events, may_compile=True)


COMPILES = ["checkpoint: a lane goes on", "store: another sweep"]  # programs of their own


@pytest.mark.parametrize("name", soaking(CASES, but=COMPILES))
def test_the_remedy_of_a_message_about_files_and_workers_works(name):
    assert follows(CASES[name].mended)
