"""Rows of measurements, the file that keeps a machine's, and the README made of all files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loop import cores
from benchmarks.timing import Spread

TIME = "time, as a multiple of the peer's"
SPEED = "speed, as a multiple of the peer's"
STEPS = "lane-steps, as a share of the peer's"
THROUGHPUT = "million useful lane-steps a second"
FITS = "fits a second"
MILLISECONDS = "milliseconds of one call"
MEMORY = "MB of memory at the peak, above the outputs"
QUANTITIES = (STEPS, TIME, SPEED, THROUGHPUT, FITS, MILLISECONDS, MEMORY)
GPU = "GPU"


class Target(NamedTuple):
    """Where the median should lie."""

    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None:
            return f"at most {number(self.high)}"
        return f"at least {number(self.low)}" if self.high is None else f"{number(self.low)} to {number(self.high)}"

    def met(self, spread: Spread) -> bool:
        return (self.low is None or spread.median >= self.low) and (self.high is None or spread.median <= self.high)


class Row(NamedTuple):
    """One measurement, or why there is none."""

    case: str
    peer: str
    quantity: str
    value: Spread | None
    target: Target | None = None
    why: str = ""  # not measured

    @property
    def place(self) -> tuple[str, str, str]:
        return self.quantity, self.case, self.peer


def unmeasured(case: str, peer: str, quantity: str, why: object, target: Target | None = None) -> Row:
    return Row(case, peer, quantity, None, target, str(why))


def machine() -> dict[str, str]:
    """The machine and the versions, in words."""
    import jax

    kinds = sorted({device.device_kind for device in jax.devices()})
    accelerator = "" if jax.default_backend() == "cpu" else f", {jax.device_count()} x {', '.join(kinds)}"
    return {
        "platform": jax.default_backend(),
        "machine": f"{cores()} cores, {platform.machine()}, {platform.system()}{accelerator}",
        "load before": f"{os.getloadavg()[0]:.1f} processes" if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "numpy")},
    }


def keep(folder: Path, about: Mapping[str, str], measured: Mapping[str, Iterable[Row]]) -> Path:
    """Writes the rows of some cases into the file of this jax and platform; those of other cases stay."""
    path = folder / f"{about['jax']}-{about['platform']}.json"
    before = json.loads(path.read_text()) if path.exists() else {"about": {}, "cases": {}}
    cases = before["cases"] | {name: [_as_json(row) for row in rows] for name, rows in measured.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"about": before["about"] | dict(about), "cases": cases}, indent=1, sort_keys=True, allow_nan=False
    )
    path.write_text(text + "\n")
    return path


def _as_json(row: Row) -> dict[str, Any]:
    digits = None if row.value is None else [float(f"{x:.4g}") for x in row.value]
    return row._asdict() | {"value": digits, "target": row.target and list(row.target)}


def _from_json(row: dict[str, Any]) -> Row:
    value, target = row["value"], row["target"]
    return Row(**row | {"value": value and Spread(*value), "target": target and Target(*target)})


class Column(NamedTuple):
    """One file: a version of jax on a platform."""

    about: dict[str, str]
    cases: dict[str, list[Row]]

    @property
    def title(self) -> str:
        return f"jax {self.about['jax']}, {self.about['platform'].upper()}"


def read(folder: Path) -> list[Column]:
    """All files: the newest jax first, CPUs before the rest."""
    files = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    columns = [
        Column(f["about"], {name: [_from_json(r) for r in rows] for name, rows in f["cases"].items()}) for f in files
    ]
    columns.sort(key=lambda c: release(c.about["jax"]), reverse=True)
    return sorted(columns, key=lambda c: c.about["platform"] != "cpu")


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: "0.10.1" to (0, 10, 1)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


INTRODUCTION = """# Benchmarks

`make bench` (or `python -m benchmarks [CASE ...] [--quick]`) runs jaxfit and its peers on the same work, side by side
in one run, and writes this page; `make bench-gpu` runs the cases that tell most on a GPU, in at most eight minutes.
Every peer's numbers are compared with jaxfit's before anything is timed.

Contestants take turns (A B A B ...), and a ratio is taken within a round, so that a busy machine slows both. A cell
holds the **median** and, in brackets, the minimum and the maximum over the rounds. A call is timed from Python to
Python, with NumPy arrays in and out and the data as arguments of every program; a short call counts as the quickest of
a few in its round. The targets are for a CPU of two cores, and for the newest jax unless they name two.

The peers written by hand in JAX are in `peers.py`. PyTorch's loops (`torch_loops.py`) run in a process of their own, by
the interpreter that `TORCH_PYTHON` names; the slow ones run a share of the steps and are scaled up, as their rows say.
The C loop (`loop.c`) is built with `cc -O3 -march=native` for the run.
"""

BOUNDS = """## What bounds the rows that are not met

Of profiles on two cores under jax 0.12.0.1, unless another is named.

- **Gradient descent against C.** Of a call of 16,384 lanes x 1,000 steps, 11 to 12 ms when the machine is quiet, the
  compiled loop takes 7, what comes before (reading the axes, laying the lanes out, starting two threads) 2.2, and what
  comes after (copying the results, the Dataset) 2. With ten times the steps it has 0.93 of the C loop's speed.
- **One lane.** The loops take the same time. Of the 1.4 ms that a sweep takes beside its loop (a fit takes 0.6),
  reading and checking the arguments are 0.4, handing 27 arrays to the program 0.25, copying results and labels 0.2 and
  the Dataset 0.4.
- **The first fit.** Its program has 15 kernels and compiles in 0.2 s of CPU, as the scan by hand, which has 18. The
  rest is tracing: the scan is traced once in 0.03 s, the loss of a fit three times and its gradient twice (to see that
  it is pure and a number, which params do not move it, what is recorded) before the program is, 0.15 s in all.
- **The first sweep.** Its program holds the step, the step once more with a judgment (to find where a lane failed), the
  start and the check at the end: 46 kernels of 7 ms each to compile, where the scan by hand has 8. 9 of them load the
  next lanes, 11 merge states after a chunk, 6 write results, 6 are the judged step. Of 0.58 s of CPU compiling takes
  0.34, tracing and lowering 0.17, the plan 0.03; all of the scan by hand takes 0.15, of which tracing 0.04, so that the
  ratio is larger in seconds: compilation uses both cores, tracing one. LLVM's second level of optimization, which
  programs of lanes take, is no faster than the third in one so small, since every kernel passes through MLIR all the
  same; the lowest took a third off. Without the judged step it takes 18 % less (0.44 s where it takes 0.54), but a
  sweep in which a lane fails, as in every map of rates, would compile as much once more. The check after a chunk takes
  the gradient anew; if the loop handed on what it found at its last params instead, a sweep would take 15 % less, one
  by Levenberg-Marquardt 20 %, one of a net 8.
  The table is made when it is asked for: to import xarray, and dask where it is installed, takes longer than the sweep.
- **The first sweep of a net.** Of 5.0 s of CPU (by hand 3.3) a second call takes 1.6 (by hand 1.7), so that the steps
  are no slower; tracing and compiling take 3.4 (by hand 1.6). The program has 265 kernels, 19 of them products of
  matrices, that by hand 91 and 7: the step on a batch stands in it three times (plain, judged, and in the check after a
  chunk), and the loss of all rows twice.
- **The first sweep of fits.** Of 4.8 s for 16,384 decays and their errors the sweep takes 3.1 and the errors 1.7, a
  third of a second of that to import xarray; a second call of both takes 0.05, SciPy's loop, which compiles nothing,
  2.9. So the first call pays from some 25,000 sets on. Of the sweep compiling takes 2.1 (2.5 of CPU, as most of it is
  one function, the steps), tracing and lowering 0.7, the plan 0.3. At LLVM's third level of optimization, and with the
  triangles that few lanes need written out number by number, it took 2.9, and for fits of five params in bounds 13 s of
  CPU, now 5.
- **One `curve_fit` after another.** The parts of a call, each at its quickest, add up to 2.5 ms. The nine evaluations
  of the residuals with their Jacobian take 0.5 of it: 34 us each back to back, but 50 to 56 with the work of a step
  between them. XLA hands a program to a thread of its own, which sleeps by then, if it has a thousand operations or
  more, as for this decay from 25 to 30 points on. While both cores are busy an evaluation takes 100 to 300 us on
  average, which is why a loop takes longer than the sum of its parts; collecting garbage has no part in it. In the
  thread of the caller, where smaller programs run, and all of them after
  `jax.config.update("jax_cpu_enable_async_dispatch", False)` before the first array, it takes 20 us, and a call a tenth
  to a fifth less CPU time, to the same bits. The eight steps beside their evaluations are 8 x 110 us, 18 of these the
  triangle of 50 rows, the rest a hundred calls of Python and NumPy; the start of the run is 0.2 ms, and reading and
  checking the arguments and making state and result 0.75, in which nothing stands out. SciPy's own evaluations, in
  NumPy, are cheaper than the way to a program.
- **A process with one fit and its report.** Of 1.6 s of CPU the imports of NumPy, JAX and Optax are 0.95 and that of
  jaxfit 0.1; `curve_fit` takes 0.37, a third of it to compile its one program and the rest to trace the loss and its
  derivatives, and the report 0.19, half to compile the residuals of constant predictions and a third to import what it
  needs.
- **A printed explanation.** It adds 0.23 s of CPU to a process of 1.2: a fifth is to load 27 modules, a third to trace
  the loss with its gradient and Hessian at the start, and a third to compile that one program. Without the Hessian
  there is no limit of the learning rate to tell.
- **Optuna and a net.** Of the digits, in CPU time on one core: a step called from Python takes 165 us, of which the
  compiled program works for 19, and the losses of the rows held out and Optuna some 50 more. A lane-step takes 8 to 12
  us, as in `vmap` by hand: the gradient 6 to 7, its products of matrices 1.6 if they ran at the speed of large ones.
  To that come the losses at rungs, of all rows too, since what stands above its start is a failure: as much as 30
  steps a rung. So 13 times less CPU time than Optuna, 28 if a rung cost nothing; of two cores Optuna's loop uses one.
  The softmax regression takes 1.7 us for all of a lane-step, which is 100 times less CPU time.
- **Rungs.** One costs 0.7 ms of a core, however few its lanes, and 0.06 us more a lane: of the 1.6 ms of 16,384 lanes
  1.1 are two blocks (0.2 each for the call of the program before it does anything, 0.15 to lay its lanes out and to
  read them), 0.3 ranking and marking, and 0.2 threads and reports. Six are 2 to 6 % of the CPU time of 40,000 steps of
  the line, which take 0.28 s. On the wall a rung takes 4 to 5 ms, since one core waits until the other has ended its
  blocks; twice as many blocks would shorten the wait, and cost more than that: then six take 21 % of the sweep. With
  batches the losses of all rows are dear: of the softmax regression on digits 80 us a lane at each rung, as much as 25
  of its steps, so that six are 5 % from some 3,000 steps on. Four fifths of that is the loss of the rows trained on,
  half of it one product of matrices at 60 GFLOP/s. It cannot be left out: it alone tells that a lane stands above its
  start, which ends the lane, and it is the loss of those that are pruned. To make it only where a lane ends would save
  a third of it under halving by 3, where lanes make it 1.5 times each, and let lanes above their start go on.
- **Fits against C.** In CPU time, both cores at work, a decay with its standard errors takes 3.7 us, a spot 5.9, a fit
  of twelve params 55, where C takes 9.0, 9.1 and 41; the errors are 0.7, 0.8 and 10 of that. On the wall less is won: a
  call of `sweep` and one of `standard_errors` take some 7 ms of one core before and after their programs, a sixth of
  what 20,000 decays take. A lane goes on to rounding, in 7.3 steps (7.5 of a spot), where C stops at 1.5e-8 of the sum
  of squares, after 5.9 (5.1). With `tolerance=1e-12` lanes make 6.4 (5.3), and end three to sixteen times nearer to the
  minimum than C does. Of a spot's sweep on one core the passes over 25 points take 37 %, a third of which is the 25th
  point alone and the ends of 21 sums in each lane; 47 % are the other operations of steps, starts and checks, some 250
  loops over 64 lanes, none of more than 3 %; memory, Python and XLA's calls take 16 %. Blocks of 32 or of 256 lanes
  side by side are no faster, nor a load where a quarter or two fifths of the lanes have ended, nor one that starts no
  more than half of the lanes at once and lays them out. A pass that goes from point to point with all lanes at once,
  without ends of sums, took 130 to 190 ns a lane where this one takes 120. Twelve params take an orthogonal triangle in
  many lanes, one by one.
- **Errors in x.** 50 times the speed of odrpack would be 6.6 us of a core, where a fit of the same points without
  errors in x takes 12, with standard errors. Ours take 28, a quarter of which is the way to the nearest points of the
  curve.
- **Params in common.** A fiftieth of lmfit's time for 20 sets is 2 ms, less than one call of `fit` and one of
  `standard_errors` take before and after their programs. lmfit's Jacobian is dense, so that its time grows with the
  third power of the sets; a thousand take jaxfit ten times as long as twenty.
- **A progress bar on a short fit.** Drawing and clearing a bar once takes 0.2 ms, of a fit that takes 2.5.
- **`import jaxfit`.** 52 modules of 1.4 ms of CPU each, 75 ms on top of the 790 that JAX and Optax take: 30 dataclasses
  are 12 ms of it, 0.4 each, as much as a module of medium size takes to load.
- **A store.** One flushed file costs about 1 ms, and a small sweep has 16 of them beside the manifest, so that as many
  workers may share it: some 30 ms, whatever the steps. From a second of sweeping on that is less than 5 %; of the 15 ms
  that 16,384 lanes x 1,000 steps take, one flushed file alone would be more.
"""


def render(columns: list[Column], groups: Mapping[str, Iterable[str]]) -> str:
    """The README: a table for each group of cases and each quantity, a column for each file.

    Args:
      columns: What `read` gave.
      groups: Names of cases by title, in the order to show.
    """
    titles = [column.title for column in columns]
    if all(column.about["platform"] == "cpu" for column in columns):
        titles.append(GPU)
    parts = [INTRODUCTION]
    for title, names in groups.items():
        parts.append(f"## {title}\n")
        rows = {name: _by_place(name, columns) for name in names}
        parts += [f"Not measured: {name}.\n" for name, found in rows.items() if not found]
        for quantity in QUANTITIES:
            places = [(name, place) for name, found in rows.items() for place in found if place[0] == quantity]
            if places:
                head = [
                    "case",
                    "contestant" if quantity in (THROUGHPUT, FITS, MILLISECONDS) else "against",
                    "target",
                    *titles,
                ]
                body = [_line(rows[name][place], len(titles)) for name, place in places]
                parts.append(f"{quantity[0].upper()}{quantity[1:]}:\n\n{_table(head, body)}")
    parts.append(BOUNDS)
    parts.append("## Machines\n")
    parts.append(_table(["", *(c.title for c in columns)], _abouts(columns)))
    return "\n".join(parts)


def _by_place(name: str, columns: list[Column]) -> dict[tuple, list[Row | None]]:
    """The rows of a case, each with its place in every column."""
    found: dict[tuple, list[Row | None]] = {}
    for i, column in enumerate(columns):
        for row in column.cases.get(name, ()):
            found.setdefault(row.place, [None] * len(columns))[i] = row
    return found


def _line(rows: list[Row | None], cells: int) -> list[str]:
    first = next(row for row in rows if row is not None)
    targets = list(dict.fromkeys(str(row.target) for row in rows if row is not None and row.target is not None))
    measured = [cell(row, own_target=len(targets) > 1) for row in rows]
    return [first.case, first.peer, " or ".join(targets), *measured, *["not measured"] * (cells - len(rows))]


def cell(row: Row | None, *, own_target: bool = False) -> str:
    """A row's numbers and verdict; with its own target if that is not the one of its line."""
    if row is None or row.value is None:
        return "not measured" + (f": {row.why}" if row is not None and row.why else "")
    least, median, most = map(number, row.value)
    verdict = ""
    if row.target is not None:
        verdict = ", met" if row.target.met(row.value) else ", **not met**"
        verdict += f" ({row.target})" if own_target else ""
    return f"**{median}** ({least} to {most}){verdict}"


def _abouts(columns: list[Column]) -> list[list[str]]:
    names = ["machine", "load before", "python", "jax", "jaxlib", "optax", "numpy", "torch"]
    return [[name, *(c.about.get(name, "not measured") for c in columns)] for name in names]


def number(x: float | None) -> str:
    """Three digits: 0.0123, 1.23, 12.3, 1,234."""
    if x is None or x == 0:
        return str(x)
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines) + "\n"
