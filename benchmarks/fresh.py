"""What needs a process of its own: `python -m benchmarks.fresh TASK` prints one JSON value."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import Seconds

ROOT = Path(__file__).resolve().parent.parent


def run(task: str, *arguments: object) -> Any:
    """The value that a task gives in a fresh process."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    # As installed: an installer compiles every module once, so the first of several runs does it for this folder.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), f"jaxfit-bytecode-{os.getpid()}")
    command = [sys.executable, "-m", "benchmarks.fresh", task, *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def importing(modules: str) -> float:
    """Seconds to import modules, given as "a,b"."""
    start = time.perf_counter()
    for name in modules.split(","):
        __import__(name)
    return time.perf_counter() - start


def first_call(contestant: str, size: str) -> float:
    """Seconds of a contestant's first call, JAX being up: tracing, compiling and running."""
    import jax

    from benchmarks import compiling

    call = compiling.CONTESTANTS[contestant](int(size))
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def whole(task: str, *arguments: object) -> Seconds:
    """The seconds of a fresh process from its start to its end, imports and all."""
    start = time.perf_counter()
    run(task, *arguments)
    return Seconds(time.perf_counter() - start)


def reporting(contestant: str, folder: str = "") -> list[float]:
    """The params that a contestant finds for one decay of 50 points; its report is printed.

    `folder`: where jaxfit keeps its programs, and finds those of an earlier process.
    """
    import numpy as np

    x = np.linspace(0, 5, 50)
    y = 3 * np.exp(-1.2 * x) + 0.5 + 0.05 * np.random.default_rng(0).standard_normal(50)
    start = {"a": 1.0, "b": 1.0, "c": 0.0}
    if contestant == "lmfit":
        import lmfit

        found = lmfit.Model(lambda x, a, b, c: a * np.exp(-b * x) + c).fit(y, x=x, **start)  # pyright: ignore[reportArgumentType]
        print(found.fit_report())
        return [float(found.params[name].value) for name in start]
    import jax.numpy as jnp

    import jaxfit as jf

    if folder:
        jf.cache(folder)
    fit = jf.curve_fit(lambda p, x: p["a"] * jnp.exp(-p["b"] * x) + p["c"], start, (x, y))
    print(jf.report(fit))
    return [float(fit.params[name]) for name in start]


def diverging(how: str) -> str:
    """The status of a fit that diverges; why it does is printed if `how` is "explained"."""
    import jaxfit as jf

    loss, rate = jf.losses.mse(jf.models.line), jf.optimizers.sgd(1e-2)
    fit = jf.fit(loss, {"w": 1.0, "b": 0.0}, jf.datasets.thermometer(), optimizer=rate, steps=100)
    if how == "explained":
        print(jf.explain(fit))
    return fit.status.name


def memory(side: str, steps: str) -> float:
    """Megabytes that a sweep of side x side lanes takes at its peak above what its results hold."""
    from benchmarks import lines

    sweep = lines.sweep_of(int(side), int(steps))
    lines.sweep_of(2, int(steps))()
    before = resident()
    grid = sweep()
    return (peak() - before - grid.results.nbytes) / 1e6


def sets_on_disk(few: str, many: str) -> list[float]:
    """Fit a few decays from an array on disk into a store, and then many.

    Returns the time a set of many, as a multiple of that of few, and the megabytes taken at the peak above what the
    results hold. Pages of the file that the system maps, and takes back when it likes, do not count.
    """
    import numpy as np

    from benchmarks import curves

    seconds, above = {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for turn, count in enumerate((int(few), int(few), int(many))):  # the first compiles
            file = Path(folder, f"{turn}.npy")
            data = np.lib.format.open_memmap(file, "w+", np.float64, (count, 50))
            for first in range(0, count, 10_000):
                data[first : first + 10_000] = curves.decays(min(10_000, count - first)).y
            data.flush()
            sets = curves.Sets(curves.decays(1).x, np.load(file, mmap_mode="r"))
            before, start = own(), time.perf_counter()
            with Peak() as peak_of_it:
                grid = curves.fitted(sets, store=Path(folder, f"store{turn}"))
            seconds[count] = time.perf_counter() - start
            above = (peak_of_it.most - before - grid.results.nbytes) / 1e6
    return [seconds[int(many)] / int(many) / (seconds[int(few)] / int(few)), above]


class Peak:
    """The most memory of its own that the process holds while this is open, seen a hundred times a second."""

    def __enter__(self) -> Peak:
        self.most, self.closed = own(), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.closed.wait(0.01):
            self.most = max(self.most, own())

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.thread.join()


def own() -> int:
    """Bytes of memory held now but for pages of files; with them where the system does not tell them apart."""
    return _of_process("RssAnon") or resident()


def resident() -> int:
    """Bytes of memory held now; the peak until now where the system does not tell."""
    return _of_process("VmRSS") or peak()


def peak() -> int:
    """Most bytes of memory ever held. Linux hands `ru_maxrss` down from the parent's, but not VmHWM."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _of_process("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_process(name: str) -> int | None:
    status = Path("/proc/self/status")
    found = re.search(rf"^{name}:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else None


if __name__ == "__main__":
    tasks = {task.__name__: task for task in (importing, first_call, reporting, diverging, memory, sets_on_disk)}
    print(json.dumps(tasks[sys.argv[1]](*sys.argv[2:])))
