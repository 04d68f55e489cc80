"""python -m benchmarks [CASE ...] [--gpu] [--quick]: runs cases and writes benchmarks/README.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax

from benchmarks import compiling, curves, fits, gpu, measurements, nets, pruning, results, scale, sizes, storing, sweeps
from benchmarks.torch_peers import NoTorch, Torch

FOLDER = Path(__file__).resolve().parent
GROUPS = {
    "One fit": {
        "fit": fits.against_scan,
        "torch": fits.against_torch,
        "progress": fits.progress,
        "import": fits.importing,
    },
    "Sweeps": {
        "descent": sweeps.descent,
        "adam": sweeps.adam,
        "history": sweeps.history,
        "batches": sweeps.batches,
        "stopping": sweeps.stopping,
        "net": nets.trainability,
        "one-lane": sweeps.one_lane,
        "sweep-progress": sweeps.progress,
    },
    "Pruned sweeps": {
        "rules": pruning.rules,
        "optuna": pruning.against_optuna,
        "ray": pruning.against_ray,
        "rungs": pruning.overhead,
    },
    "Curves": {
        "curves": curves.many,
        "curves-in-c": sizes.decays_against_c,
        "curve": curves.one,
        "process": curves.process,
        "spots": curves.localization,
        "sizes-in-c": sizes.against_c,
        "spots-in-c": sizes.spots_against_c,
    },
    "Measurements": {
        "counts": measurements.counts,
        "successes": measurements.successes,
        "x-errors": measurements.errors_in_x,
        "outliers": measurements.outliers,
        "shared-params": measurements.shared,
    },
    "First calls": {
        "compiling": compiling.first_calls,
        "first-fits": compiling.first_fits,
        "explanation": compiling.explanation,
    },
    "A million lanes": {"memory": scale.memory, "linearity": scale.linearity, "sets-on-disk": scale.sets_on_disk},
    "On disk": {"storing": storing.writing, "opening": storing.opening},
    "On a GPU": gpu.CASES,
}
CASES = {name: case for group in GROUPS.values() for name, case in group.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Cases: {', '.join(CASES)}.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which to run; all but the GPU's if none is named")
    parser.add_argument("--gpu", action="store_true", help="the GPU's column, in at most eight minutes")
    parser.add_argument(
        "--quick", action="store_true", help="toy sizes, to see that all runs; keeps and writes nothing"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where README.md and results/ are")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {unknown[0]!r}; there are {', '.join(CASES)}")
    if chosen.gpu and not chosen.quick and jax.default_backend() == "cpu":
        print(f"jax finds no GPU here, so nothing was run. With one: {', '.join(gpu.SECONDS)}; {gpu.BUDGET} s at most.")
        return 0
    machine = {} if chosen.quick else about()
    for name in gpu.in_time() if chosen.gpu else chosen.cases or (name for name in CASES if name not in gpu.CASES):
        rows = run(name, chosen.quick)
        if not chosen.quick:  # at once, so that a run that is interrupted keeps what it has
            results.keep(chosen.folder / "results", machine, {name: rows})
            write_readme(chosen.folder)
    return 0


def run(name: str, quick: bool) -> list[results.Row]:
    """The rows of one case, printed as they come."""
    start = time.perf_counter()
    rows = CASES[name](quick)
    print(f"{name} ({time.perf_counter() - start:.0f} s)", flush=True)
    for row in rows:
        shown = results.cell(row._replace(target=None) if quick else row)  # toys say nothing about targets
        print(f"  {row.case} | {row.peer} | {row.quantity}: {shown}", flush=True)
    return rows


def about() -> dict[str, str]:
    """The machine, with the version of the torch that was a peer."""
    try:
        with Torch() as torch:
            return results.machine() | {"torch": torch.version}
    except NoTorch:
        return results.machine()


def write_readme(folder: Path) -> None:
    columns = results.read(folder / "results")
    (folder / "README.md").write_text(results.render(columns, GROUPS))


if __name__ == "__main__":
    sys.exit(main())
