"""Which blocks of a stored sweep to run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxfit.coordinates import position
from jaxfit.dispatch import Task
from jaxfit.resuming import Plan, Stored, runs_and_parts
from jaxfit.stores import as_path, open_dataset


def chosen(plan: Plan, folder: Path, rerun: Any, other: Any) -> np.ndarray:
    """Over the grid, whether a lane is to be run again.

    Raises:
      ValueError, TypeError: If `rerun` cannot be applied, or the other store is of other axes.
    """
    source = folder if other is None else as_path("rerun_of", other)
    if rerun is None:
        raise ValueError("rerun_of names a store to choose from, but rerun does not say what; pass rerun={'status': 4}")
    results = open_dataset(source)
    sizes = {name: d.size for name, d in plan.dimensions.items()}
    if {name: results.sizes.get(name) for name in sizes} != sizes:
        raise ValueError(f"rerun: {source} has the axes {dict(results.status.sizes)}, but this sweep has {sizes}")
    if callable(rerun):
        found = rerun(results)
    elif isinstance(rerun, Mapping):
        found = True
        for name, values in rerun.items():
            if name not in results.variables:
                there = ", ".join(map(str, results.variables))
                raise ValueError(f"rerun: the results have no {name!r}; they have {there}")
            own = np.atleast_1d(np.asarray(values))
            if name in results.dims:  # of an axis the values themselves, also where they were rounded
                places = [position("rerun", name, results[name].values, value, "exact") for value in own.tolist()]
                own = results[name].values[places]
            found = found & results[name].isin(own)
    else:
        raise TypeError(f"rerun is {rerun!r}, but it takes a dict such as {{'status': 4}} or a function of the results")
    if getattr(getattr(found, "dtype", None), "kind", "") != "b" or not set(getattr(found, "dims", [None])) <= set(
        sizes
    ):
        raise TypeError(f"rerun gave {type(found).__name__}, but it must give a boolean DataArray over {list(sizes)}")
    return found.broadcast_like(results.status).transpose(*sizes).values


def wanted(stored: Stored, again: np.ndarray) -> list[Task]:
    """The blocks with a lane that is to be run again."""
    tasks, names = [], list(stored.manifest.sizes)
    for i, (run, part) in enumerate(runs_and_parts(stored)):
        own = again[tuple(run.choice.get(name, slice(None)) for name in names)].reshape(-1)
        for segment, block in part.blocks():
            lanes = part.lanes(segment)[block * part.block :][: part.block]
            if own[lanes].any():
                tasks.append(Task(i, lanes, (part, segment, block)))
    return tasks
