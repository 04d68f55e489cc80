"""Verify a finished sweep: the same bits when lanes are run again, the same losses from single fits."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.engine.dispatch import run_all
from jaxfit.engine.parts import FinishedPart, Task
from jaxfit.engine.pools import Lanes
from jaxfit.problems import ENDED_WELL, Record, Status, whole_number
from jaxfit.problems.axes import is_key
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import flattened
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.posing import as_params
from jaxfit.stores import StoreError
from jaxfit.stores.files import as_path
from jaxfit.stores.manifests import block_maps, blocks_of, read_manifest
from jaxfit.typing import PyTree, Scalar
from jaxfit.verbs.fits import fit
from jaxfit.verbs.grids import Grid, member, part_of, tensors_of
from jaxfit.verbs.results import Fit, training_of

UNITS = (1, 2, 4, 8)  # in the last place: changes of the size of rounding errors
RTOL = {"float32": 1e-2, "float64": 1e-6}


class _Looked(NamedTuple):
    blocks: int  # of a store: their bytes are those that were written
    lanes: int  # run again: the same bits
    fits: int  # run alone: the same loss, within rounding


class Verification(_Looked):
    """What was checked, and found correct.

    Attributes:
      blocks: Blocks of a store whose bytes are those that were written.
      lanes: Lanes that had the same bits when they were run again by their program.
      fits: Lanes whose loss a single fit confirmed within rounding.
      sensitive: The coordinates of lanes that no single fit can confirm, as they amplify rounding too much: a change of
        their last bits changes the loss about as much as another program does. Their bits were the same, run again.
    """

    sensitive: tuple[dict[str, Scalar | str], ...]

    def __new__(cls, blocks: int, lanes: int, fits: int, sensitive: Sequence[dict[str, Scalar | str]] = ()):
        self = super().__new__(cls, blocks, lanes, fits)
        self.sensitive = tuple(sensitive)
        return self

    def __str__(self) -> str:
        passed = {
            f"bytes: {self._of(self.blocks, 'block')} of the store as written": self.blocks,
            f"bits: {self._of(self.lanes, 'lane')} the same, run again by their program": self.lanes,
            f"within rounding: {self._of(self.fits, 'lane')} confirmed by single fits": self.fits,
        }
        lines = [f"Verification(blocks={self.blocks}, lanes={self.lanes}, fits={self.fits})"]
        lines += [f"  {line}" for line, count in passed.items() if count]
        if self.sensitive:
            named = "; ".join(", ".join(f"{k}={v}" for k, v in coords.items()) for coords in self.sensitive)
            lines.append(
                f"  too sensitive to compare with single fits: {self._of(len(self.sensitive), 'lane')} ({named}): a "
                f"change of the last bits changes their loss as much; their bits were the same, run again"
            )
        return "\n".join(lines)

    @staticmethod
    def _of(count: int, what: str) -> str:
        return f"{count:,} {what}{'s' * (count != 1)}"


class NotReproduced(RuntimeError):
    """A result that a second run does not confirm; raised by `verify`.

    Example:
      >>> issubclass(jf.NotReproduced, Exception)
      True
    """


@near_keywords
def verify(
    grid: Grid | str | os.PathLike, *, sample: int = 4, seed: int = 0, rtol: float | None = None
) -> Verification:
    """Check a sweep: the bytes of all its stored blocks, and some lanes by running them again.

    Lanes are run again side by side, by the program that ran them, and must have the same bits. They are also run as
    single fits. A single fit is another program, with other rounding, so its loss f is compared with the loss of the
    lane by

        |f - f_lane| <= rtol * (|f_lane| + 1e-4 * |f_start|).

    This detects a program that was compiled wrongly, whose losses are off by about their own size. It is not a bound on
    rounding errors, which a long run may amplify. So rtol is a judgment: by default 1e-2 in float32 and 1e-6 in
    float64; lower it for short and smooth runs. A chaotic run (for example at the edge of stability) amplifies rounding
    without limit, and no other program can confirm it. Four more fits, whose start and learning rate are changed by a
    few units in the last place, tell it from a wrong run: if these change loss or params as much, the lane is reported
    as too sensitive to compare, and only its bits are checked.

    Args:
      grid: From `sweep`; or the path of a store, which holds no program, so that only its bytes can be checked.
      sample: Number of groups of neighboring lanes to run again, and of lanes to run as single fits.
      seed: Seed of their choice.
      rtol: As above; None for the default of the precision.

    Returns:
      How much was checked; `print` shows it in words. A difference that rounding does not explain is an error.

    Raises:
      NotReproduced: If a lane that was run again has other bits, or a single fit has another loss; the message names
        it.
      StoreError: If the bytes of a block are not those that were written; the message names all such files.
      ValueError, TypeError: If `sample` is not a count, `rtol` is not positive, or `grid` is neither a grid nor a path.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> type(jf.verify(grid, sample=1)).__name__
      'Verification'
    """
    sample = whole_number("sample", sample)
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
    looked = check_bits(grid, sample, random)
    fits, sensitive = check_fits(grid, sample, random, rtol, looked=looked)
    return Verification(blocks, len(looked), fits, sensitive)


def check_blocks(folder: Path) -> int:
    """Read every block of a store, and return how many there are.

    Raises:
      StoreError: With all those that are damaged.
    """
    manifest = read_manifest(folder)
    stored, damaged, present = blocks_of(folder, manifest), [], 0
    for part in block_maps(manifest).values():
        for segment, block in part.blocks():
            try:
                present += stored.read(part, segment, block) is not None
            except StoreError as error:
                damaged.append(str(error).split(": ")[0])
    if damaged:
        raise StoreError(f"{'; '.join(damaged)}. The same sweep with the same store= computes them again")
    return present


def check_bits(grid: Grid, sample: int, random: np.random.Generator) -> set[int]:
    """Run some blocks again; return the numbers of the lanes that had the same bits.

    Raises:
      NotReproduced: If one has others.
    """
    looked: set[int] = set()
    starts = np.cumsum([0, *(len(part.lanes.status) for part in grid.parts)])
    for _ in range(sample):
        which = int(random.integers(len(grid.parts)))
        part = grid.parts[which]
        blocks = -(-len(part.lanes.status) // part.shape.lanes)
        lanes = _block(part, int(random.integers(blocks)))
        if "prune" in grid.results.attrs:  # of the others a plain sweep knows another end
            lanes = lanes[np.isin(part.lanes.status[lanes], ENDED_WELL)]
        numbers = {int(number) for number in starts[which] + lanes}
        if not numbers <= looked:
            _compare(part, lanes)
        looked |= numbers
    return looked


def _block(part: FinishedPart, number: int) -> np.ndarray:
    """Return the lanes of a block that ran."""
    first, size = number * part.shape.lanes, len(part.lanes.status)
    lanes = np.arange(first, min(first + part.shape.lanes, size))
    return lanes[np.asarray(part.lanes.status[lanes]) != Status.NOT_RUN]


def _compare(part: FinishedPart, lanes: np.ndarray) -> None:
    """Run lanes once more.

    Raises:
      NotReproduced: If one has other bits.
    """
    again: list[Lanes] = []
    task = Task(0, part.numbers(lanes))
    run_all([part.unfinished()], [task], lambda _: None, lambda _, found: again.append(found))
    for name, values in tensors_of(part.lanes).items():
        other = _bytes_of(values[lanes]) != _bytes_of(tensors_of(again[0])[name])
        if other.any():
            number = int(lanes[np.argmax(other.any(axis=1))])
            raise NotReproduced(
                f"lane {number} of the part {part.choice or 'of all lanes'} has other bits in {name.lstrip('.')} when "
                f"it is run again; if the machine or the versions are the same, suspect its memory: sweep with rerun="
            )


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """Return (lanes, bytes) of an array with a lane axis in front."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def check_fits(
    grid: Grid,
    sample: int,
    random: np.random.Generator,
    rtol: float | None,
    alone: Callable[..., Fit] | None = None,
    looked: set[int] | None = None,
) -> tuple[int, list[dict]]:
    """Return how many lanes single fits confirm, and the coordinates of those too sensitive to be compared.

    Args:
      grid, sample, rtol: As for `verify`.
      random: Chooses the lanes.
      alone: alone(lane, precision, units) runs a single fit; by default `fit_of`.
      looked: The numbers of lanes whose bits have been compared; those compared here are added.

    Raises:
      NotReproduced: If a single fit has another loss, and rounding does not explain it.
    """
    run_alone = alone or fit_of
    good = np.argwhere(np.isin(np.asarray(grid.results.status), ENDED_WELL))
    chosen = good[random.choice(len(good), size=min(sample, len(good)), replace=False)]
    allowed, sensitive = RTOL[grid.precision] if rtol is None else rtol, []
    for index in chosen:
        lane: Fit = member(grid, tuple(int(i) for i in index))
        run = run_alone(lane, grid.precision)
        if _apart(lane, run) <= _near(lane, allowed):
            continue
        if not _is_sensitive(lane, run, grid.precision, allowed, run_alone):
            raise NotReproduced(
                f"the lane {lane.coords} has the loss {float(lane.loss):.6g}, but a fit of its own gives "
                f"{float(run.loss):.6g}, which is more apart than rtol={allowed:g} allows; neither loss nor params "
                f"of that fit move so far when its last bits change, so that rounding does not explain it: if such "
                f"runs are known to amplify it, raise rtol, else suspect the compiler"
            )
        number = int(grid.members[tuple(index)])
        if looked is None or number not in looked:
            part, place = part_of(grid, number)
            _compare(part, np.array([place]))
        if looked is not None:
            looked.add(number)
        sensitive.append(lane.coords)
    return len(chosen) - len(sensitive), sensitive


def _apart(one: Fit, other: Fit) -> float:
    """Return the difference of two losses; 0 if both, and infinite if one, is not finite."""
    finite = [bool(np.isfinite(fit.loss)) for fit in (one, other)]
    return abs(float(one.loss) - float(other.loss)) if all(finite) else np.inf if any(finite) else 0.0


def _near(one: Fit, rtol: float) -> float:
    return rtol * (abs(float(one.loss)) + 1e-4 * abs(float(one.start_loss)))


def _is_sensitive(lane: Fit, alone: Fit, precision: str, rtol: float, run_alone: Callable[..., Fit]) -> bool:
    """Return whether changes of the last bits move the loss or the params of a lane's own fit as far.

    The params tell more than the loss, which of a chaotic run may be small most of the time, and large in bursts.
    """
    params = flattened(alone.params)
    for units in UNITS:
        moved = run_alone(lane, precision, units)
        far = _apart(alone, moved)
        if far == np.inf or far > min(_near(alone, rtol), _apart(lane, alone) / 10):
            return True
        if np.linalg.norm(flattened(moved.params) - params) > rtol * np.linalg.norm(params):
            return True
    return False


def fit_of(lane: Fit, precision: str, units: int = 0) -> Fit:
    """Return a fit of its own to a lane's problem, its start and rates made smaller by units in the last place."""
    training = training_of(lane)
    problem = training.problem
    params, optimizer = problem.params, training.optimizer
    if units:
        smaller = functools.partial(_smaller, precision=precision, units=units)
        params, optimizer = jax.tree.map(smaller, (as_params(resolved(params, precision), inside=True), optimizer))
    return fit(
        problem.loss, params, problem.data, optimizer=optimizer, steps=int(np.asarray(training.steps)),
        stop=training.stop, batches=training.batches, key=problem.key, validation=training.validation,
        precision=precision, progress=False, record=Record(training.record.every, ()),  # patience counts records
    )  # fmt: skip


def _smaller(x: PyTree, precision: str, units: int) -> PyTree:
    """Return a floating number or array times 1 - units * eps of the precision; bounds stay in their order."""
    if is_key(x) or np.asarray(x).dtype.kind != "f":
        return x
    wide = np.asarray(x, precision)
    return (wide * wide.dtype.type(1 - units * np.finfo(wide.dtype).eps)).astype(wide.dtype)
