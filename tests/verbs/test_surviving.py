"""Whatever ends a sweep early, its finished blocks stay; whatever happens to its files, no number is wrong."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from jaxfit.stores import files
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import RATES, STARTS, blocks, contents, run, same
from tests.shared.soak import soaking

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surviving") / "finished"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def memory(finished):
    return jf.open(finished).load()


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "store")


# Ctrl-C, and signals


def signalled(number, reports):
    """Inside, a sweep gets a signal at its n-th report of lanes that have ended."""

    def send(event, times):
        if (event, times) == ("lanes", reports):
            signal.raise_signal(number)

    return counting(send)


@pytest.fixture
def one_worker():
    with using(workers=1):
        yield


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path, finished, memory, one_worker):
    message = "after 12 of 35 lanes, kept in .*: the same call goes on"
    with ended_by(KeyboardInterrupt, "lanes", 3), pytest.raises(jf.Interrupted, match=message) as caught:
        run(tmp_path)
    status = caught.value.result.results.status.values.ravel()
    assert status[:12].all() and not status[12:].any()
    same(run(tmp_path).results, memory)
    assert contents(tmp_path) == contents(finished)


def test_sigterm_ends_a_sweep_as_ctrl_c_does_and_goes_on_to_who_waited_for_it(tmp_path, one_worker, capsys):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with signalled(signal.SIGTERM, 2), pytest.raises(jf.Interrupted, match="after 8 of 35 lanes"):
            run(tmp_path)
        assert came == [1] and "after 8 of 35 lanes, kept in" in capsys.readouterr().err
        signal.raise_signal(signal.SIGTERM)
        assert came == [1, 1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_sweep_outside_of_the_main_thread_leaves_signals_alone(store, memory):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(store).results.loss.values))
    thread.start()
    thread.join()
    assert np.array_equal(found[0], memory.loss.values, equal_nan=True)


EXITS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
sys.path.insert(0, {root!r})
from tests.shared.small_sweeps import run
from tests.verbs.test_surviving import signalled
with signalled(getattr(signal, sys.argv[1]), 1):
    run(sys.argv[2])
"""


@pytest.mark.soak
@pytest.mark.parametrize(("name", "codes"), [("SIGINT", (130, -2)), ("SIGTERM", (143, -15))])
def test_a_script_that_was_stopped_has_the_usual_exit_status(name, codes, tmp_path, memory):
    script = [sys.executable, "-c", EXITS.format(root=str(ROOT)), name, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode in codes and f"lanes, kept in {tmp_path}: the same call goes on" in done.stderr
    same(run(tmp_path).results, memory)


# SIGKILL

KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, {root!r})
import jax
from jaxfit.engine.settings import counting
from tests.verbs.test_surviving import run_long
store, log, cache, kills = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(event, times):
    if event == "block":
        os.write(notes, b"began %d\\n" % (events[event][times - 1][0] // 4))
        time.sleep(0.02)
    if event == "block written":
        os.write(notes, b"kept %d\\n" % events[event][times - 1])


random.seed(1)
for kill in range(kills):
    pid = os.fork()
    if pid == 0:
        with counting(note) as events:
            run_long(store)
        os._exit(0)
    sign, wait = b"kept" if kill else b"began", time.monotonic() + 60
    had = open(log, "rb").read().count(sign)
    while open(log, "rb").read().count(sign) == had and time.monotonic() < wait:
        if os.waitpid(pid, os.WNOHANG) != (0, 0):
            break
        time.sleep(0.001)
    time.sleep(random.uniform(0.0, 0.03))
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    os.write(notes, b"killed\\n")
"""


def run_long(store):
    """64 blocks."""
    with using(block_lanes=4, block_loads=1):
        return run(store, starts=np.linspace(-2, 3, 16), rates=np.geomspace(1e-3, 1e-1, 16)).results.load()


@pytest.mark.parametrize("kills", soaking([2, 6, 50], keep=1))
def test_killed_again_and_again_it_ends_with_the_same_files_and_no_finished_block_ran_twice(kills, tmp_path):
    memory, store, log = run_long(tmp_path / "whole"), tmp_path / "store", tmp_path / "log"
    script = [sys.executable, "-c", KILLED.format(root=str(ROOT)), store, log, tmp_path / "cache", str(kills)]
    subprocess.run(script, check=True)
    partial = jf.open(store)
    done = partial.status.values != jf.Status.NOT_RUN
    assert np.array_equal(partial.loss.values[done], memory.loss.values[done])
    lives = [life.split("\n")[:-1] for life in log.read_text().split("killed\n")[:-1]]
    assert len(lives) == kills and (kills > 6 or 4 * kills <= done.sum() + 4 < 256)
    kept: set[str] = set()
    for life in lives:
        assert not {note for note in life if note.replace("began", "kept") in kept}
        kept |= {note for note in life if note.startswith("kept")}
    same(run_long(store), memory)
    assert contents(store) == contents(tmp_path / "whole")


# A disk that is full or fails


class Failing:
    """The module `os`, whose n-th writing call fails, and whose writes are short."""

    def __init__(self, n, kind=errno.ENOSPC):
        self.n, self.kind, self.calls = n, kind, 0

    def __getattr__(self, name):
        found = getattr(os, name)
        if name not in ("mkdir", "open", "write", "fsync", "replace"):
            return found

        def call(*args):
            self.calls += 1
            if self.calls == self.n:
                raise OSError(self.kind, os.strerror(self.kind))
            return found(args[0], args[1][:1000]) if name == "write" else found(*args)

        return call


@pytest.mark.parametrize("size", [(1, 3), pytest.param((5, 7), marks=pytest.mark.soak)])
def test_whichever_write_fails_the_error_names_the_file_and_nothing_before_it_is_lost(
    size, tmp_path, monkeypatch, one_worker
):
    grid = {"starts": STARTS[: size[0]], "rates": RATES[: size[1]], "slots": 1}
    whole = run(tmp_path / "whole", **grid).results.load()
    counting = Failing(0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", counting)
        run(tmp_path / "counted", **grid)
    assert counting.calls > 20
    for n in range(1, counting.calls + 1):
        store = tmp_path / f"{n}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", Failing(n))
            with pytest.raises(
                OSError, match=rf"No space left on device: .*(make room|nothing was computed).*{store}"
            ) as caught:
                run(store, **grid)
            assert caught.value.errno == errno.ENOSPC
        if (store / "manifest.json").exists():
            there = jf.open(store)
            done = there.status.values != jf.Status.NOT_RUN
            assert np.array_equal(there.loss.values[done], whole.loss.values[done])
            assert done.sum() >= len(blocks(store)) and done.any() == bool(blocks(store))
        same(run(store, **grid).results, whole)
        assert contents(store) == contents(tmp_path / "whole")


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_computed(store, tmp_path, monkeypatch, events):
    blocks(store)[0].unlink()

    def read_only(path, *rest):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", read_only)
        with pytest.raises(
            PermissionError, match=r"nothing was computed; choose another folder.*jf\.open\(path\).*store"
        ):
            run(store)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="nothing was computed; choose another folder"):
        run(tmp_path / "file" / "store")
    assert not events["block"]


def test_a_second_sweep_on_a_store_is_refused_at_once_with_who_holds_it(store, memory):
    with (
        files.claim(store),
        pytest.raises(jf.StoreError, match=rf"store is in use by process {os.getpid()} on .* since 20.*wait until"),
    ):
        run(store)
    same(run(store).results, memory)


def test_the_lock_of_a_holder_that_died_is_taken_over(store, memory):
    (store / "lock").write_text("process 1 on another since 2020")
    same(run(store).results, memory)


# Files that are not what was written


def truncated(path, data):
    size = data.draw(st.integers(0, path.stat().st_size - 1), "length")
    path.write_bytes(path.read_bytes()[:size])


def flipped(path, data):
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1), "bit")
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def removed(path, data):
    path.unlink()


def foreign(path, data):
    other = [b"", b"\x80\x04N.", pickle.dumps(np.arange(3)), b"{}", b"\xff" * 16, files.pack({"x": np.zeros(3)})]
    path.write_bytes(data.draw(st.sampled_from(other), "content"))


def dangling(path, data):
    path.unlink()
    path.symlink_to("nowhere")


def a_folder(path, data):
    path.unlink()
    path.mkdir()


def renamed(path, data):
    """To another place, with the digest it has."""
    place, _, digest = path.name.rpartition("-")
    other = data.draw(st.sampled_from(["all-0-000000", "all-0-000008", "all-1-000000", "0-0-000000", "x"]), "place")
    path.rename(path.with_name(f"{other}-{digest}"))


def exchanged(path, data):
    other = data.draw(st.sampled_from([p for p in path.parent.iterdir() if p != path and p.is_file()] or [path]))
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def doubled(path, data):
    copy = path.with_name(path.name.replace(path.name[-20:-12], "00000000"))
    copy.write_bytes(path.read_bytes()[::-1])


BROKEN = [truncated, flipped, removed, foreign, dangling, a_folder, renamed, exchanged, doubled]
few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
many = settings(max_examples=500, deadline=None, derandomize=True, database=None)
few, many = (settings(kind, suppress_health_check=list(HealthCheck)) for kind in (few, many))


def outside(folder) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def check_broken(finished, memory, data):
    """The store opens with the lanes that are whole, or fails with a file's name; and what is broken is made again."""
    store = finished.parent / "broken"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(finished, store)
    there = outside(store)
    for _ in range(data.draw(st.integers(1, 2), "times")):
        paths = [path for path in sorted(store.rglob("*")) if path.is_file() and path.stat().st_size]
        data.draw(st.sampled_from(BROKEN), "what")(data.draw(st.sampled_from(paths), "file"), data)
    try:
        loaded = jf.open(store).load()
    except jf.StoreError as error:
        assert str(store) in str(error)
    else:
        check_lanes(loaded, memory)
    try:
        loaded = jf.open(store, damaged="skip").load()
    except jf.StoreError as error:
        assert "manifest.json" in str(error) or "coordinates-" in str(error)
    else:
        check_lanes(loaded, memory)
        original = {path.name: path.read_bytes() for path in blocks(finished)}
        whole = [path for path in blocks(store) if path.is_file() and original.get(path.name) == path.read_bytes()]
        assert int((loaded.status.values != 0).sum()) == sum(3 if "-000008-" in path.name else 4 for path in whole)
    assert outside(store) == there


def check_lanes(loaded, memory):
    done = loaded.status.values != jf.Status.NOT_RUN
    for name in memory.data_vars:
        assert loaded[name].values[done].tobytes() == memory[name].values[done].tobytes()
    for name in memory.coords:
        assert np.array_equal(loaded[name], memory[name])


@given(data=st.data())
@few
def test_a_broken_store_opens_with_what_is_whole_or_fails_with_the_name_of_a_file(finished, memory, data):
    check_broken(finished, memory, data)


@pytest.mark.soak
@given(data=st.data())
@many
def test_a_store_broken_in_many_ways_opens_with_what_is_whole(finished, memory, data):
    check_broken(finished, memory, data)


@pytest.mark.parametrize("how", [truncated, flipped, foreign, dangling, renamed, doubled])
def test_a_damaged_block_is_computed_again_and_the_warning_names_it(store, memory, finished, how):
    class Middle:
        def draw(self, strategy, label=None):
            return {"length": 100, "bit": 3000, "content": b"", "place": "all-0-000000"}[label]

    path = blocks(store)[4]
    how(path, Middle())
    if how is renamed or how is doubled:
        same(run(store).results, memory)
    else:
        with pytest.raises(jf.StoreError, match=path.name):
            _ = jf.open(store).loss.values
        with pytest.raises(jf.StoreError, match=path.name):
            jf.verify(store)
        with pytest.warns(UserWarning, match=f"store: .*{path.name}.*computed again"):
            same(run(store).results, memory)
    good = {name: text for name, text in contents(store).items() if name in contents(finished)}
    assert good == contents(finished)
    same(jf.open(store), memory)


def test_a_folder_in_place_of_a_block_is_an_error_that_names_it(store):
    path = blocks(store)[4]
    path.unlink()
    path.mkdir()
    with pytest.raises(jf.StoreError, match=f"{path.name} is a folder, but it must be a file; remove it"):
        run(store)


def test_a_manifest_that_is_lost_is_made_again_from_the_call(store, memory, finished, events):
    (store / "manifest.json").unlink()
    same(run(store).results, memory)
    assert contents(store) == contents(finished) and not events["block"]


def test_another_version_is_refused_with_both(store):
    path = store / "manifest.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    for read in (lambda: jf.open(store), lambda: run(store)):
        with pytest.raises(jf.StoreError, match=r"manifest\.json is of version 2, but this jaxfit reads version 1"):
            read()


# A manifest that someone made up, with a digest that fits

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "..", "../../x", "/etc/passwd", "a\0b", "-rf", "x" * 300, "float64", "all", "ä", "0"]),
    st.just([]), st.just({}), st.lists(st.integers(-1, 2**40), max_size=3),
    st.dictionaries(st.sampled_from(["..", "name", "all", "dims"]), st.integers(-1, 9), max_size=2),
)  # fmt: skip


def places(tree, path=()):
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def check_hostile(finished, data):
    store = finished.parent / "hostile"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(finished, store)
    there = outside(store)
    fields = json.loads((store / "manifest.json").read_text())
    fields.pop("digest")
    for _ in range(data.draw(st.integers(1, 3), "times")):
        path = data.draw(st.sampled_from([p for p in places(fields) if p]), "place")
        inside = fields
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = data.draw(ODD, "value")
    (store / "manifest.json").write_bytes(files.with_digest(fields))
    before = contents(store)
    try:
        opened = jf.open(store)
        if opened.nbytes < 1e7:
            opened.load()
    except jf.StoreError as error:
        assert "manifest.json" in str(error) or str(store) in str(error)
    assert contents(store) == before and outside(store) == there


@given(data=st.data())
@few
def test_a_made_up_manifest_opens_or_fails_with_its_name_and_touches_nothing(finished, data):
    check_hostile(finished, data)


@pytest.mark.soak
@given(data=st.data())
@many
def test_many_made_up_manifests_open_or_fail_with_their_name(finished, data):
    check_hostile(finished, data)
