"""The page of a sweep: all lanes as columns, coarsened where they are too many for a page.

Where a law knows the stability limit of the swept learning rate, it is drawn over the map.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Hashable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from xarray import Dataset

from jaxfit.curvature import sharpness
from jaxfit.optimizers.stability import stability_limit
from jaxfit.pages.packing import MANTISSA, as_float32, made_by, packed, page_of, rounded
from jaxfit.problems import ENDED_WELL, Status
from jaxfit.problems.axes import Axis, is_axis
from jaxfit.problems.dimensions import choose
from jaxfit.stores.manifests import Json
from jaxfit.verbs.grids import Grid, best, last_records

LARGEST = 2_100_000  # packed bytes; a third more as base64, and the page stays below 3 MB
NUMBERS = 4_000_000  # in all columns, which a browser unpacks in less than a second
TRIED = 0.7  # of the size that is expected from the try before; a larger one is not tried
MOST = 16  # numbers of a lane beside status, steps and loss
CALLS = 2_000  # values of an axis up to which they are written with the fewest digits
CURVES = 8  # numbers of an array that get a column each
COMBINATIONS = 10_000  # of hyperparameters, for each of which a law is asked
LADDER = ((65, MANTISSA), (33, MANTISSA), (17, MANTISSA), (17, 12), (9, 10), (0, MANTISSA), (0, 12))


class Law(NamedTuple):
    """A limit on one axis, for every lane; drawn over the map."""

    axis: str
    limit: np.ndarray  # in the shape of the results' status
    words: str


class Measure(NamedTuple):
    """One number of each lane."""

    name: str
    values: np.ndarray  # in the shape of the results' status


def sweep_page(results: Dataset, *, title: str = "sweep", law: Law | None = None) -> str:
    """Return the page of the results of a sweep, also of one under way: what has not run has status 0.

    Args:
      results: The Dataset of a grid or of a store.
      title: What stands above.
      law: A limit to draw, if one is known.
    """
    results = results.load()
    dims = results.status.dims
    measures, left_out = measures_of(results)
    counts = {str(int(s)): int((results.status.values == s).sum()) for s in Status}
    header: dict[str, Json] = {
        "kind": "sweep",
        "title": title,
        "counts": counts,
        "statuses": {str(int(s)): s.name.lower().replace("_", " ") for s in Status},
        "well": [int(s) for s in ENDED_WELL],
        "failed": [int(Status.DIVERGED), int(Status.NOT_FINITE)],
        "provenance": provenance(results),
    }
    notes = [f"not shown: {', '.join(left_out)}, which are no single numbers"] if left_out else []
    density = 0.0  # packed bytes for a bit of the numbers, of the last try
    for stride in _strides(results.status.size):
        chosen = {name: _some(results.sizes[name], stride, at) for name, at in _best(results).items()}
        lanes = math.prod(len(at) for at in chosen.values())
        axes = [_axis(results, name, chosen[name]) for name in dims]
        for records, bits in LADDER:
            curves, steps = _curves(results, records)
            numbers = lanes * (len(measures) + 2 + len(curves) * len(steps))
            if numbers > NUMBERS or TRIED * density * numbers * bits > LARGEST:
                continue
            page_header = {**header, "axes": axes, "records": steps, "curves": list(curves)}
            page_header["plain"] = all(str(n).isidentifier() and not keyword.iskeyword(str(n)) for n in dims)
            page_header["measures"] = [m.name for m in measures]
            page_header["notes"] = notes + _coarsened(results, chosen, curves, steps, bits)
            columns = _columns(results, measures, curves, chosen, bits)
            if law is not None:
                page_header["law"] = {"axis": dims.index(law.axis), "words": law.words}
                columns["law"] = rounded(as_float32(law.limit[np.ix_(*chosen.values())]), bits)
            content = packed(page_header, columns)
            if len(content) <= LARGEST:
                return page_of(title, content)
            density = len(content) / (numbers * bits)
    raise ValueError(f"the axes of this sweep alone are larger than a page of {LARGEST:,} bytes: select a part of it")


def measures_of(results: Dataset) -> tuple[list[Measure], list[str]]:
    """Return what is one number for each lane, and the names of what is not shown: too large, or no number."""
    dims, status = results.status.dims, results.status.values
    measures, left_out = [Measure("loss", results.loss.values)], []
    for name, variable in results.data_vars.items():
        if name in ("loss", "status", "steps"):
            continue
        values, extra = variable.values, variable.dims[len(dims) :]
        if variable.dims[: len(dims)] != dims or values.dtype.kind not in "biuf":
            left_out.append(str(name))
        elif extra == ("step",):
            if name != "history.loss" and not str(name).startswith("history.params."):  # they end as the lane did
                end = np.where(status == Status.NOT_RUN, np.nan, last_records(results, str(name)))
                measures.append(Measure(f"last {str(name).removeprefix('history.')}", end))
        elif "step" in extra or math.prod(values.shape[len(dims) :]) > CURVES:
            left_out.append(str(name))
        else:
            for place in np.ndindex(values.shape[len(dims) :]):
                label = str(name).removeprefix("params.") + (f"[{', '.join(map(str, place))}]" if place else "")
                label = f"final {label}" if label in dims else label  # of a swept start
                measures.append(Measure(label, values[(..., *place)]))
    return measures[: MOST + 1], left_out + [m.name for m in measures[MOST + 1 :]]


def provenance(results: Dataset) -> list[list[str]]:
    """Return rows of what determines the bits of the results, and when the page was made."""
    rows = [[str(name), ", ".join(map(str, np.ravel(value)))] for name, value in results.attrs.items()]
    return [["page", made_by()], *([name, text] for name, text in rows if text)]


def _strides(lanes: int) -> Iterator[int]:
    """Yield n for every n-th value of each axis, from all of them to so few that they always fit."""
    yield from (n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256) if n == 1 or n < lanes)
    yield from (2**k for k in range(9, 40) if 2**k < 2 * lanes)


def _some(size: int, stride: int, best: int) -> np.ndarray:
    """Return every n-th index of an axis, with both ends and that of the best lane; a short axis stays whole."""
    if stride == 1 or size <= 8:
        return np.arange(size)
    return np.unique(np.concatenate([np.arange(0, size, stride), [best, size - 1]]))


def _best(results: Dataset) -> dict[str, int]:
    """Return where the lane with the lowest loss is, by axis."""
    loss = np.where(np.isin(results.status, ENDED_WELL), results.loss.values.astype(float), np.nan)
    at = int(np.nanargmin(loss)) if not np.isnan(loss).all() else 0
    return dict(zip(results.status.dims, map(int, np.unravel_index(at, loss.shape)), strict=True))


def _axis(results: Dataset, name: Hashable, chosen: np.ndarray) -> dict[str, Json]:
    """Return an axis: its numbers, or the words for its values and the Python that names them in a call."""
    values = results[name].values[chosen]
    axis: dict[str, Json] = {"name": str(name)}
    if values.dtype.kind in "iuf":
        axis["values"] = [x if math.isfinite(x) else str(x) for x in _short(values)]
        if len(values) <= CALLS or not np.isfinite(values.astype(float)).all():
            axis["code"] = [_code(results[name].values, x) for x in values]
    else:
        axis["words"] = [str(x) for x in values.tolist()]
        axis["code"] = [repr(x) for x in values.tolist()]
    beside = [(str(c), x.values[chosen].tolist()) for c, x in results.coords.items() if c != name and x.dims == (name,)]
    words = [[c, [f"{x:.6g}" if isinstance(x, float) else str(x) for x in values]] for c, values in beside[:4]]
    return axis | {"beside": words}


def _short(values: np.ndarray) -> list:
    """Return numbers with no more digits than their kind has; in a long axis nine, by which `lane` finds them."""
    if values.dtype.kind != "f":
        return values.tolist()
    if values.dtype.itemsize < 8:
        return [float(str(x)) for x in values]
    return [float(f"{x:.9g}") for x in values.tolist()] if len(values) > 10_000 else values.tolist()


def _code(axis: np.ndarray, value: np.generic) -> str:
    """Return the fewest digits by which `lane` finds a value of an axis, from three on; infinite ones as Python."""
    number = value.item()
    if not math.isfinite(number):
        return f'float("{number}")'
    if value.dtype.kind != "f":
        return str(number)
    near = np.abs(axis[axis != value] - value).min(initial=math.inf)
    low, high = axis.min(), axis.max()
    for digits in range(3, 9):
        rough = float(f"{number:.{digits}g}")
        if abs(rough - number) < 1e-3 * near and low <= rough <= high:
            return repr(rough)
    return repr(float(str(value)))


def _curves(results: Dataset, records: int) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return the histories of one number, at so many records with both ends, and the steps of these."""
    dims = (*results.status.dims, "step")
    names = [n for n, v in results.data_vars.items() if v.dims == dims and v.dtype.kind in "fiu"]
    if not records or not names:
        return {}, []
    size = results.sizes["step"]
    at = np.unique(np.round(np.linspace(0, size - 1, min(size, records))).astype(int))
    return {str(n): results[n].values[..., at] for n in names[:4]}, results.step.values[at].tolist()


def _columns(
    results: Dataset, measures: list[Measure], curves: dict[str, np.ndarray], chosen: dict[str, np.ndarray], bits: int
) -> dict[str, np.ndarray]:
    at = np.ix_(*chosen.values())
    columns = {"status": results.status.values[at].astype(np.uint8), "steps": results.steps.values[at].astype("<i4")}
    columns |= {f"lane {m.name}": rounded(as_float32(m.values[at]), bits) for m in measures}
    return columns | {f"curve {n}": rounded(as_float32(values[at]), min(bits, 12)) for n, values in curves.items()}


def _coarsened(
    results: Dataset, chosen: dict[str, np.ndarray], curves: dict[str, np.ndarray], steps: list[int], bits: int
) -> list[str]:
    """Return what the page leaves out."""
    shares = [f"{len(at):,} of {results.sizes[n]:,} values of {n}" for n, at in chosen.items()
            if len(at) < results.sizes[n]]  # fmt: skip
    notes = []
    if shares:
        shown = math.prod(map(len, chosen.values()))
        notes.append(
            f"coarsened: {shown:,} of {results.status.size:,} lanes are in this page ({', '.join(shares)}), the best "
            f"one among them; the counts are of all"
        )
    records = results.sizes.get("step", 0)
    if records and not curves and any(str(n).startswith("history.") for n in results.data_vars):
        notes.append("the histories were left out: there are too many lanes for them")
    elif curves and len(steps) < records:
        notes.append(f"curves are drawn through {len(steps)} of {records:,} records")
    if bits < MANTISSA:
        notes.append(f"numbers are rounded to {math.floor((bits + 1) * math.log10(2))} digits")
    return notes


def law_of(grid: Grid) -> Law | None:
    """Return the limit of the swept learning rate for every lane, with the sharpness at the end of the best one.

    None where no law is known (of adaptive optimizers the preconditioner is not at hand), where the loss or the data
    differ between lanes, so that one sharpness does not hold for all, or where nothing curves up.
    """
    part, *others = grid.parts
    problem, optimizer = part.training.problem, part.training.optimizer
    rate = optimizer.hyperparameters.get("learning_rate")
    dims = grid.results.status.dims
    if others or not isinstance(rate, Axis) or rate.name not in dims or np.ndim(rate.values) != 1:
        return None
    shown = grid.results[rate.name].values
    if shown.dtype.kind not in "iuf" or not np.array_equal(shown, rate.values):
        return None
    if any(map(is_axis, jax.tree.leaves((problem.loss, problem.data, problem.key), is_leaf=is_axis))):
        return None
    swept = {x.name for x in jax.tree.leaves(optimizer, is_leaf=is_axis) if is_axis(x)} - {rate.name}
    sizes = [grid.results.sizes[name] if name in swept else 1 for name in dims]
    if not np.isin(grid.results.status, ENDED_WELL).any() or np.prod(sizes) > COMBINATIONS:
        return None
    steepest = float(sharpness(best(grid)))
    limits, words = np.empty(sizes), ""
    for place in np.ndindex(*sizes):
        limit = stability_limit(choose(optimizer, dict(zip(dims, place, strict=True))), steepest)
        if not limit.known or limit.preconditioned or not np.isfinite(limit.learning_rate):
            return None
        limits[place], words = limit.learning_rate, limit.law
    if swept:  # the numbers in the words are those of one lane
        words = re.sub(r", [^:]*(?=:)", "", words)
    return Law(rate.name, np.broadcast_to(limits, grid.results.status.shape), f"law: {words}, at the best lane")
