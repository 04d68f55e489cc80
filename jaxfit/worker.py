"""python -m jaxfit.worker MODULE:PROBLEM STORE --shard I/N: run one of N shares of a sweep in a process of its own.

PROBLEM is a dict of the arguments of `jf.sweep`, or a function that returns one. It is imported here, and never read
from the store, which only tells whether it is the same. Shares need no scheduler and do not communicate: an
array of jobs on a cluster runs one each, and `jf.open(STORE)` or the same `jf.sweep(..., store=STORE)` reads them all.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxfit.engine.dispatch import run_all
from jaxfit.engine.host import OutOfMemory, terminating_as_interrupted
from jaxfit.engine.parts import Task
from jaxfit.problems import Status
from jaxfit.stores import StoreError, open_dataset
from jaxfit.stores.files import claim
from jaxfit.stores.manifests import as_folder, has_manifest, read_manifest
from jaxfit.stores.resuming import Stored, missing_blocks, writing_in_background
from jaxfit.verbs.sweeps import bar_of_lanes, begin_store, plan_sweep


def main(words: list[str] | None = None) -> int:
    """Run a share; the exit status is 0 when all of it is done, 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m jaxfit.worker", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("problem", metavar="MODULE:PROBLEM", help="a dict of jf.sweep's arguments, or what makes one")
    parser.add_argument("store", metavar="STORE", help="the folder that all shares write to")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="which share, from 1/N to N/N")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, default=None, help="show a bar")
    given = parser.parse_args(words)
    try:
        with terminating_as_interrupted():
            print(run_shard(given.problem, given.store, shard_of(given.shard), given.progress))
    except (StoreError, OutOfMemory, OSError, ValueError, TypeError, LookupError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(error or "interrupted", file=sys.stderr)
        return 130
    return 0


def shard_of(text: str) -> tuple[int, int]:
    """Return I and N of "I/N".

    Raises:
      ValueError: If there is no such share.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--shard is {text!r}, but shares are numbered from 1, as 1/4, 2/4, 3/4, 4/4")
    return int(match[1]), int(match[2])


def arguments_of(name: str) -> dict[str, Any]:
    """Return the arguments of a sweep, given as module:name.

    Raises:
      ValueError, ImportError, LookupError, TypeError: If there is none.
    """
    module, _, inside = name.partition(":")
    if not module or not inside:
        raise ValueError(f"the problem is {name!r}, but it must be MODULE:PROBLEM, such as sweeps:problem")
    if "" not in sys.path:
        sys.path.insert(0, "")  # what stands in the working directory can be named
    problem = getattr(importlib.import_module(module), inside, None)
    problem = problem() if callable(problem) else problem
    if not isinstance(problem, Mapping):
        raise TypeError(
            f"{name} is {type(problem).__name__}, but it must be a dict of the arguments of jf.sweep, or a function "
            f"that returns one: def problem(): return dict(loss=..., params=..., data=..., optimizer=...)"
        )
    return {key: value for key, value in problem.items() if key not in ("store", "executor", "progress")}


def run_shard(name: str, store: str, shard: tuple[int, int], progress: bool | None = None) -> str:
    """Run a share of a sweep, and return how many of all lanes are done, as text."""
    number, shares = shard
    folder, plan = as_folder(store), plan_sweep(**arguments_of(name))
    old = read_manifest(folder) if has_manifest(folder) else None
    longer = old is not None and (old.stages or 0 < old.steps < int(np.asarray(plan.training.steps)))
    if plan.prune is not None or longer:
        raise ValueError(
            "a share runs without the others, but to prune, or to go on with more steps, all of them must be done: "
            "call jf.sweep(..., store=STORE) for that, with executor= for several processes"
        )
    label = f"shard-{number}-of-{shares}.lock"
    with claim(folder, shared=True), claim(folder, label):
        try:
            stored = begin_store(plan, folder)
            tasks = [task for task in missing_blocks(stored) if _number(stored, task) % shares == number - 1]
            done = plan.size - sum(len(task.members) for task in tasks)
            with bar_of_lanes(plan, done, progress) as report, writing_in_background(stored) as sink:
                interrupted = run_all(stored.plan.parts, tasks, report, sink)
        finally:
            (folder / label).unlink(missing_ok=True)
    status = np.asarray(open_dataset(folder, damaged="skip").status)
    done = f"{int((status != Status.NOT_RUN).sum()):,} of {status.size:,} lanes are done"
    if interrupted:
        raise KeyboardInterrupt(f"interrupted; {done}, kept in {folder}: the same command goes on from there")
    return f"shard {number}/{shares}: {len(tasks)} blocks run; {done}"


def _number(stored: Stored, task: Task) -> int:
    """Return the number of a block among all, done or not: shares stay what they are while others work."""
    part = stored.maps[task.part]
    before = sum(-(-part.added(s) // part.block) for s in range(task.segment))
    return task.part + before + task.block


if __name__ == "__main__":
    sys.exit(main())
