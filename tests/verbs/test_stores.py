"""What a sweep leaves on disk: the same results, read when they are looked at, and nothing else."""

import copy
import functools
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import xarray as xr

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.stores import manifests
from jaxfit.stores.blocks import BlockMap
from tests.shared.small_sweeps import RATES, STARTS, blocks, contents, run, same


@pytest.fixture(scope="module")
def memory():
    return run().results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store that nobody writes to."""
    folder = tmp_path_factory.mktemp("stores") / "finished"
    run(folder)
    return folder


@pytest.fixture
def store(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "store")


@pytest.fixture
def ran(events):
    """The lanes that are run while a test lasts."""
    return lambda: [lane for lanes in events["block"] for lane in lanes.tolist()]


def test_a_copy_of_a_stored_grid_and_one_sent_to_another_process_read_its_blocks(finished, memory):
    grid = run(finished)
    for _ in range(2):  # before and after its blocks were read
        for again in (pickle.loads(pickle.dumps(grid)), copy.deepcopy(grid)):
            same(again.results, memory)
            assert jf.best(again).loss == memory.loss.min()
        grid.results.load()
    same(pickle.loads(pickle.dumps(jf.open(finished))), memory)


def test_a_stored_sweep_is_the_sweep_to_the_bit_and_reads_like_it(finished, memory, ran):
    grid = run(finished)
    same(grid.results, memory)
    same(jf.open(finished), memory)
    assert not ran() and grid.results.attrs.keys() == memory.attrs.keys()
    plain = run()
    for where in ({"w0": 1.0, "rate": 1e-2}, {"w0": -2.0, "rate": 1e-1}):
        mine, other = jf.lane(grid, **where), jf.lane(plain, **where)
        assert mine.coords == other.coords and mine.params == other.params and mine.status is other.status
        assert np.array_equal(mine.history.loss, other.history.loss) and str(mine) == str(other)
    assert jf.best(grid).coords == jf.best(plain).coords
    same(jf.best(grid, over="rate").results, jf.best(plain, over="rate").results)
    assert str(grid).splitlines()[0] == str(plain).splitlines()[0]


def test_indices_of_every_kind_read_what_they_would_in_memory(finished, memory):
    opened = functools.partial(jf.open, finished)
    for where in (
        {"w0": 1}, {"w0": -1, "rate": 3}, {"rate": [6, 0, 3]}, {"w0": slice(None, None, -2), "rate": slice(1, 4)},
        {"w0": xr.DataArray([0, 4, 2], dims="z"), "rate": xr.DataArray([6, 0, 1], dims="z")}, {"rate": []},
    ):  # fmt: skip
        same(opened().isel(where), memory.isel(where))
    same(opened().isel(step=slice(1, None, 2), w0=2), memory.isel(step=slice(1, None, 2), w0=2))
    same(opened().sel(rate=4e-3, method="nearest"), memory.sel(rate=4e-3, method="nearest"))


def test_only_the_blocks_that_are_asked_for_are_read(store, memory, events):
    opened = jf.open(store)
    assert not events["block read"]
    assert opened.loss[0, 0] == memory.loss[0, 0] and opened.status[0, 1] == memory.status[0, 1]
    assert [path.name[:12] for path in events["block read"]] == ["all-0-000000"]


def test_a_store_opens_at_any_moment_and_what_has_not_run_says_so(store, memory):
    for path in blocks(store)[2:]:
        path.unlink()
    opened = jf.open(store)
    status = opened.status.values.ravel()
    assert np.array_equal(status[:8], memory.status.values.ravel()[:8]) and not status[8:].any()
    assert np.isnan(opened.loss.values.ravel()[8:]).all() and not opened.steps.values.ravel()[8:].any()


def test_a_call_goes_on_with_what_is_missing_and_ends_with_the_same_files(store, memory, ran):
    before = contents(store)
    for path in blocks(store)[3:7]:
        path.unlink()
    same(run(store).results, memory)
    assert sorted(ran()) == list(range(12, 28)) and contents(store) == before


def test_a_finished_sweep_does_no_work(store, memory, ran, traces):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
    same(run(store).results, memory)
    assert not ran() and {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")} == before


def test_axes_that_grow_at_their_ends_add_lanes_and_leave_the_others(tmp_path, memory, ran):
    run(tmp_path, starts=STARTS[:3], rates=RATES[:4])
    first = contents(tmp_path)
    run(tmp_path, starts=STARTS[:3], rates=RATES)
    grid = run(tmp_path)
    same(grid.results, memory)
    assert len(ran()) == 35 and len(jf.open(tmp_path).attrs) == len(memory.attrs)
    names = {name for name in first if name.startswith("blocks")}
    assert all(contents(tmp_path)[name] == first[name] for name in names)
    same(run(tmp_path).results, memory)
    assert len(ran()) == 35 and jf.lane(grid, w0=3.0, rate=5e-2).loss == memory.loss.sel(w0=3.0, rate=5e-2)


def kinds(*names, **labels):
    """Optimizers on an axis, those of `labels` under another name."""
    made = [getattr(jf.optimizers, name)(jf.Axis("rate", [1e-3, 1e-2])) for name in (*names, *labels.values())]
    return jf.Axis("kind", made, [*names, *labels])


def of_kinds(store, optimizer, **keywords):
    return run(store, starts=[0.0, 1.0], optimizer=optimizer, **keywords).results


@pytest.fixture(scope="module")
def of_two_kinds(tmp_path_factory):
    """A store that grew by a program; and the lanes that were run."""
    folder = tmp_path_factory.mktemp("kinds") / "kinds"
    with counting() as events:
        of_kinds(folder, kinds("sgd"))
        of_kinds(folder, kinds("sgd", "momentum"))
    return folder, [lane for lanes in events["block"] for lane in lanes.tolist()]


def test_a_static_axis_grows_by_a_program(of_two_kinds):
    folder, lanes = of_two_kinds
    assert len(lanes) == 8
    same(jf.open(folder), of_kinds(None, kinds("sgd", "momentum")))


REFUSED = {
    "steps": ({"steps": 29}, r"steps was 30, is now 29 \(a store goes on, not back\)"),
    "the data": (
        {"data": (0.1 * np.ones(11), np.ones(11))},
        r"data\[0\] was float32 \(11,\) of other values, is now float32 \(11,\)",
    ),
    "data of another length": (
        {"data": (np.ones(12), np.ones(12))},
        r"data\[0\] was float32 \(11,\), is now float32 \(12,\)",
    ),
    "the loss": ({"loss": jf.losses.mae(jf.models.line)}, r"the loss was mse\(line\), is now mae\(line\)"),
    "the optimizer": (
        {"optimizer": jf.optimizers.adam(jf.Axis("rate", RATES))},
        r"the program differs: the optimizer was sgd\(.*\), is now adam\(",
    ),
    "a rule": ({"stop": jf.Stop()}, "the stop rule was gradient_norm_below, is now none"),
    "a rule's threshold": (
        {"stop": jf.Stop(gradient_norm_below=40.0)},
        "stop.gradient_norm_below was float32 50.0, is now float32 40.0",
    ),
    "the slots": ({"slots": 8}, "slots was 4, is now 8"),
    "the record": ({"record": jf.Record(every=15)}, "the record was loss every 10, is now loss every 15"),
    "a shorter axis": ({"rates": RATES[:5]}, "axis 'rate' had 7 values, has now 5 .*only grow at its end"),
    "another value": ({"starts": [*STARTS[:2], 9.0, *STARTS[3:]]}, "value 2 of 'w0' on axis 'w0' was 1.0, is now 9.0"),
    "another axis": ({"optimizer": jf.optimizers.sgd(jf.Axis("r", RATES))}, "axes were w0, rate, are now w0, r"),
    "the precision": ({"precision": "float64"}, "precision was float32, is now float64"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_call_that_would_give_other_bits_is_refused_with_what_differs(store, change):
    keywords, text = REFUSED[change]
    before = contents(store)
    with pytest.raises(ValueError, match=rf"holds another sweep: .*{text}.*give this one another store=") as refused:
        run(store, **keywords)
    assert not re.search("[0-9a-f]{16}", str(refused.value)), "a digest, which says nothing to a person"
    assert contents(store) == before


def named_alike(slope):
    def model(params, x):
        return slope * params["w"] * x + params["b"]

    return jf.losses.mse(model)


def test_code_that_changed_under_its_name_is_told_also_of_a_store_without_names(tmp_path):
    keywords = {"starts": [0.0], "rates": [1e-3]}
    run(tmp_path, loss=named_alike(1.0), **keywords)
    with pytest.raises(
        ValueError, match=r"another, though by name the loss is mse\(model\);.* the code of one of these"
    ):
        run(tmp_path, loss=named_alike(2.0), **keywords)
    manifest = manifests.read_manifest(tmp_path)
    parts = {key: part._replace(words={}) for key, part in manifest.parts.items()}
    manifests.write_manifest(tmp_path, manifest._replace(parts=parts))
    with pytest.raises(ValueError, match=r"the program \(loss, model, .*\) was another\. Make the call"):
        run(tmp_path, loss=named_alike(2.0), **keywords)
    run(tmp_path, loss=named_alike(1.0), **keywords)


def test_what_differs_in_one_program_says_in_which_and_in_all_only_once(of_two_kinds):
    folder, _ = of_two_kinds
    with pytest.raises(
        ValueError, match=r"differs: the optimizer was sgd.*adam\(.*\) \(at kind=momentum\)\. Make the call"
    ):
        of_kinds(folder, kinds("sgd", momentum="adam"))
    with pytest.raises(ValueError, match=r"sweep: steps was 30, is now 20 \(.*\)\. Make"):
        of_kinds(folder, kinds("sgd", "momentum"), steps=20)
    alike, rate = jf.Axis("kind", [1.0, 1.0], ["sgd", "momentum"]), jf.Axis("rate", [1e-3, 1e-2])
    with pytest.raises(
        ValueError, match=r"sweep: the axes whose values are programs of their own were kind, are now none"
    ):
        of_kinds(folder, jf.optimizers.momentum(alike, rate))


@pytest.mark.parametrize("name", ["jax", "jaxlib", "optax", "jaxfit", "platform", "device", "PRNG", "instructions"])
def test_other_versions_and_platforms_are_refused(store, name):
    manifest = manifests.read_manifest(store)
    manifests.write_manifest(store, manifest._replace(identity=manifest.identity | {name: "another"}))
    with pytest.raises(ValueError, match=f"{name} was another, is now {re.escape(manifest.identity[name])}"):
        run(store)


def test_an_axis_that_grows_and_changes_is_refused(store):
    with pytest.raises(ValueError, match="value 0 of 'rate' on axis 'rate' was 0.001, is now 0.002"):
        run(store, rates=[2e-3, *RATES[1:], 0.3])


@pytest.mark.soak
def test_arrays_under_an_axis_are_told_apart_by_their_bytes(tmp_path):
    def of(sets, store):
        return run(store, data=(np.arange(11.0), jf.Axis("set", sets)), starts=[0.0], rates=[1e-3])

    sets = np.arange(22.0).reshape(2, 11)
    of(sets, tmp_path)
    of(np.concatenate([sets, sets + 1]), tmp_path)
    with pytest.raises(ValueError, match=r"the values of axis 'set' at data.1 differ"):
        of(np.concatenate([sets + 1, sets]), tmp_path)


def test_the_files_of_a_store_tell_nothing_of_the_run(store, tmp_path):
    with using(workers=3):
        run(tmp_path / "another")
    assert contents(tmp_path / "another") == contents(store)
    assert contents(store)["lock"] == b""
    text = (store / "manifest.json").read_text()
    assert json.loads(text)["version"] == 1 and str(store) not in text and "time" not in text


def test_names_of_axes_and_leaves_never_become_names_of_files(tmp_path):
    up, long = "../../up", "ä" * 300
    start = {up: jf.Axis("/etc/x", [0.0, 1.0]), long: jf.Axis("-rf", [0.0, 1.0])}
    loss = lambda p: (p[up] - 1.0) ** 2 + p[long] ** 2  # noqa: E731
    grid = jf.sweep(loss, start, optimizer=jf.optimizers.sgd(0.1), steps=2, store=tmp_path / "inner" / "store")
    assert f"params.{up}" in grid.results and f"params.{long}" in grid.results and grid.results.loss.shape == (2, 2)
    same(jf.open(tmp_path / "inner" / "store"), grid.results)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert sorted(path.name for path in (tmp_path / "inner" / "store").iterdir())[0] == "blocks"
    assert len(blocks(tmp_path / "inner" / "store")) == 1


def test_a_store_exports_to_zarr_and_netcdf(store, memory, tmp_path):
    jf.open(store).to_zarr(tmp_path / "a.zarr", consolidated=False)
    same(xr.open_zarr(tmp_path / "a.zarr", consolidated=False).load()[list(memory.data_vars)], memory)
    jf.open(store).to_netcdf(tmp_path / "a.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "a.nc", engine="scipy") as read:
        assert np.array_equal(read["loss"].values, memory.loss.values) and read.attrs["slots"] == 4


def test_lanes_of_a_grown_part_are_found_by_segment_and_rank():
    part = BlockMap("all", ((1, 3, 2), (1, 3, 5), (1, 6, 5)), 4, {})
    every = [part.lanes(segment) for segment in range(3)]
    assert sorted(np.concatenate(every)) == list(range(30))
    for segment, lanes in enumerate(every):
        where, rank = part.ranks(lanes)
        assert (where == segment).all() and rank.tolist() == list(range(part.added(segment)))
    assert every[0].tolist() == [0, 1, 5, 6, 10, 11]


WRONG = {
    "a number": (lambda p: 3, TypeError, r"store is 3 \(int\), but it must be a path"),
    "nothing": (lambda p: "", ValueError, "store is '', which no file system takes"),
    "NUL": (lambda p: "a\0b", ValueError, r"store is 'a\\x00b', which no file system takes"),
    "300 characters": (lambda p: p / ("a" * 300), ValueError, r"\.\.\. \(\d+ characters\)', which no file system"),
    "a file": (lambda p: p / "file", jf.StoreError, "store: .*file is a file, but a store is a folder"),
    "a folder of other things": (
        lambda p: p,
        jf.StoreError,
        r"holds other things \(file\) and no manifest.json; use a",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_store_that_cannot_be_is_refused_before_anything_is_made(case, tmp_path, ran):
    make, error, text = WRONG[case]
    (tmp_path / "file").touch()
    with pytest.raises(error, match=text):
        run(make(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and not ran()


def test_what_is_no_store_does_not_open(tmp_path):
    with pytest.raises(jf.StoreError, match="no/such does not exist; pass the folder that was given to jf.sweep"):
        jf.open("no/such")
    with pytest.raises(jf.StoreError, match="holds no manifest.json, so it is no store"):
        jf.open(tmp_path)
    with pytest.raises(ValueError, match='damaged is \'ignore\', but it must be "error", or "skip"'):
        jf.open(tmp_path, damaged="ignore")


def test_labels_that_no_file_takes_are_refused(tmp_path):
    start = {"w": jf.Axis("w0", [0.0, 1.0], labels=[None, "one"]), "b": 0.0}
    with pytest.raises(ValueError, match="coordinate 'w0' holds object values .* pass such labels="):
        run(tmp_path / "store", params=start)
