"""A finished sweep looked at again: the same bits when lanes are run once more, the same numbers from single fits."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from jaxfit.dispatch import Task, run_all
from jaxfit.fits import Fit, fit
from jaxfit.grids import Grid, Part, member, tensors_of
from jaxfit.keywords import near_keywords
from jaxfit.problems import ENDED_WELL, Status, precision_context, whole
from jaxfit.stores import StoreError, as_path, blocks_of, parts_of, read_manifest
from jaxfit.sweeps import run_of

RTOL = {"float32": 1e-2, "float64": 1e-6}


class Verification(NamedTuple):
    """What was looked at, and found to be as it should."""

    blocks: int  # of a store: their bytes are those that were written
    lanes: int  # run again: the same bits
    fits: int  # run alone: the same loss, within rounding


class NotReproduced(RuntimeError):
    """A result that another run does not confirm."""


@near_keywords
def verify(grid: Any, *, sample: int = 4, seed: int = 0, rtol: float | None = None) -> Verification:
    """Looks at a sweep again: at the bytes of all its blocks, and at some lanes by running them once more.

    Lanes run again side by side, by the program that ran them, must have the same bits. A single fit is another
    program, which rounds otherwise, and its loss f is compared with the lane's by

        |f - f_lane| <= rtol * (|f_lane| + 1e-4 * |f_start|).

    This guards against a program that was compiled wrongly, whose losses are off by about as much as they are large; it
    is no bound on rounding, which a long run may amplify, and a chaotic one (at the edge of stability, say) up to
    anything. So rtol is a judgement: by default 1e-2 in float32, 1e-6 in float64. Raise it for such runs, lower it for
    short and smooth ones.

    Args:
      grid: From `sweep`; or the path of a store, which holds no program, so that only its bytes can be looked at.
      sample: How many groups of neighboring lanes to run again, and how many lanes by single fits.
      seed: Of their choice.
      rtol: As said; None for that of the precision.

    Returns:
      How much was looked at. A difference is an error.

    Raises:
      NotReproduced: If a lane run again has other bits, or a single fit another loss: with the lane.
      StoreError: If the bytes of a block are not those that were written: with all such files.
      ValueError, TypeError: If `sample` is no count, `rtol` not positive, or `grid` neither a grid nor a path.
    """
    sample = whole("sample", sample)
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed is {seed!r}, but it must be a whole number, 0 or more")
    number = isinstance(rtol, (int, float, np.number)) and not isinstance(rtol, bool)
    if not (rtol is None or number and 0 < float(rtol) < np.inf):
        raise ValueError(f"rtol is {rtol!r}, but it must be a positive, finite number, such as 1e-3, or None")
    if not isinstance(grid, (Grid, str, os.PathLike)):
        raise TypeError(
            f"verify takes the grid of a sweep or the path of its store, but got a {type(grid).__name__}; pass what "
            f"jf.sweep returned, or what was given to it as store="
        )
    folder = grid.store if isinstance(grid, Grid) else as_path("grid", grid)
    blocks = 0 if folder is None else check_blocks(folder)
    if not isinstance(grid, Grid):
        return Verification(blocks, 0, 0)
    random = np.random.default_rng(seed)
    return Verification(blocks, _run_again(grid, sample, random), _fit_again(grid, sample, random, rtol))


def check_blocks(folder: Any) -> int:
    """Reads every block of a store; how many there are.

    Raises:
      StoreError: With all those that are damaged.
    """
    manifest = read_manifest(folder)
    stored, damaged, found = blocks_of(folder, manifest), [], 0
    for part in parts_of(manifest).values():
        for place in part.blocks():
            try:
                found += stored.read(part, *place) is not None
            except StoreError as error:
                damaged.append(str(error).split(": ")[0])
    if damaged:
        raise StoreError(f"{'; '.join(damaged)}. The same sweep with the same store= computes them again")
    return found


def _run_again(grid: Grid, sample: int, random: np.random.Generator) -> int:
    looked = 0
    for _ in range(sample):
        part = grid.parts[random.integers(len(grid.parts))]
        size, length = len(part.lanes.status), part.shape.lanes
        first = int(random.integers(-(-size // length))) * length
        lanes = np.arange(first, min(first + length, size))
        lanes = lanes[np.asarray(part.lanes.status[lanes]) != Status.NOT_RUN]
        if len(lanes):
            _compare(grid, part, lanes)
            looked += len(lanes)
    return looked


def _compare(grid: Grid, part: Part, lanes: np.ndarray) -> None:
    again: list[Any] = []
    with precision_context(grid.precision):
        run = run_of(part, grid.precision)
    run_all([run], [part.shape], [Task(0, lanes)], grid.precision, lambda _: None, lambda _, found: again.append(found))
    for name, values in tensors_of(part.lanes).items():
        other = _bytes_of(values[lanes]) != _bytes_of(tensors_of(again[0])[name])
        if other.any():
            number = int(lanes[np.argmax(other.any(axis=1))])
            raise NotReproduced(
                f"lane {number} of the part {part.choice or 'of all lanes'} has other bits in {name.lstrip('.')} when "
                f"it is run again; if the machine or the versions are the same, suspect its memory: sweep with rerun="
            )


def _bytes_of(values: Any) -> np.ndarray:
    """(lanes, bytes) of an array with a lane axis in front."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def _fit_again(grid: Grid, sample: int, random: np.random.Generator, rtol: float | None) -> int:
    good = np.argwhere(np.isin(np.asarray(grid.results.status), ENDED_WELL))
    chosen = good[random.choice(len(good), size=min(sample, len(good)), replace=False)]
    for place in chosen:
        before: Fit = member(grid, tuple(int(i) for i in place))
        problem: Any = before.problem
        after = fit(
            problem.loss, problem.params, problem.data, optimizer=problem.optimizer, steps=int(problem.steps),
            stop=problem.stop, batches=problem.batches, key=problem.key, validation=problem.validation,
            precision=grid.precision, progress=False,
        )  # fmt: skip
        allowed = RTOL[grid.precision] if rtol is None else rtol
        near = allowed * (abs(float(before.loss)) + 1e-4 * abs(float(before.start_loss)))
        if not abs(float(before.loss) - float(after.loss)) <= near:
            raise NotReproduced(
                f"the lane {before.coords} has the loss {float(before.loss):.6g}, but a fit of its own gives "
                f"{float(after.loss):.6g}, which is more apart than rtol={allowed:g} allows; if runs like this one "
                f"amplify rounding, raise rtol, else suspect the compiler"
            )
    return len(chosen)
