"""The result of a sweep: a labeled grid of lanes, and how to read it."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, overload

import jax
import numpy as np

from jaxfit.engine.parts import FinishedPart, Part
from jaxfit.engine.pools import Lanes
from jaxfit.problems import ENDED_WELL, Status, Training
from jaxfit.problems.dimensions import Dimension, all_coordinates, choose, position
from jaxfit.problems.marks import is_kept, released, without_kept
from jaxfit.problems.meanings import OF_GRID
from jaxfit.problems.messages import near_attribute, near_keywords
from jaxfit.stores.manifests import Json, StoredVariable
from jaxfit.typing import Array, PyTree
from jaxfit.verbs.results import Fit, History, best_of, pages

if TYPE_CHECKING:
    import xarray as xr
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Grid:
    """A sweep that has ended: one table of results over its axes.

    Attributes:
      results: An `xarray.Dataset` whose dimensions are the axes: `loss`, `status`, `steps`, `params.<path>` and, if
        asked for, `validation_loss` and `history.<name>` along `step`; with patience `best_validation_loss`,
        `best_step` and `best_params.<path>`.
      members: Integers in the shape of `results.status`: the number of the lane at each point of the grid.
      store: The folder in which the results are kept, or None.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> grid.results.loss.dims, dict(grid.results.sizes)
      (('rate',), {'rate': 3})
    """

    table: xr.Dataset | Callable[[], xr.Dataset] = field(repr=False)  # the results, or the function that makes them
    members: np.ndarray = field(repr=False)
    parts: tuple[FinishedPart, ...] = field(repr=False)
    precision: str = "float32"
    store: Path | None = None

    @functools.cached_property
    def results(self) -> xr.Dataset:  # made when it is first asked for: xarray takes half a second to import
        return self.table() if callable(self.table) else self.table

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            own = [*(f.name for f in fields(self)), "results", "to_dataframe", "to_html"]
            raise AttributeError(near_attribute("a grid", name, OF_GRID, own))

    def _repr_html_(self) -> str:
        return pages().notebook(self)

    def __repr__(self) -> str:
        status = np.asarray(self.results.status)
        counts = ", ".join(f"{int((status == s).sum()):,} {s.name.lower()}" for s in Status if (status == s).any())
        sizes = " x ".join(f"{name} {size}" for name, size in zip(self.results.status.dims, status.shape, strict=True))
        return f"Grid({sizes}: {counts})\n{self.results}"

    def to_dataframe(self) -> DataFrame:
        """Return the lanes as a `pandas.DataFrame` indexed by the axes: what of the results is one number for each.

        Statuses are words. Arrays and histories are left out: they have dimensions of their own, with which
        `grid.results` goes to a table by xarray's `to_dataframe`.

        Example:
          >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
          >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
          >>> table = grid.to_dataframe()
          >>> table.loc[1.5, "status"], table.sort_values("loss").index[0]
          ('DIVERGED', 0.5)
        """
        results = self.results
        own = [name for name, x in results.data_vars.items() if x.dims == results.status.dims]
        table = results[own].to_dataframe()
        return table.assign(status=[Status(value).name for value in table.status])

    def to_html(self, path: str | os.PathLike, title: str | None = None) -> Path:
        """Write a page to explore the sweep in a browser, and return its path.

        The page is one file that needs no server and no network: a map of any two axes, each lane with its curve, the
        best ones in a table, all of them in parallel coordinates. A sweep too large for 3 MB is coarsened, and the page
        says so. Where `jf.stability_limit` knows the limit of a swept learning rate it is drawn.

        Args:
          path: The file to write; one that is there is replaced.
          title: What stands above; by default the name of the file without its ending.

        Raises:
          TypeError, ValueError: If `path` is no path or `title` no string.
          OSError: If it cannot be written.
        """
        return pages().write_sweep(self, path, title)


# Results as a labelled Dataset


def lane_numbers(dimensions: dict[str, Dimension], parts: Sequence[FinishedPart]) -> np.ndarray:
    """Return the number of the lane at each point of the grid, part by part."""
    starts = np.cumsum([0, *(len(part.lanes.status) for part in parts)])
    return arrange([np.arange(a, b) for a, b in itertools.pairwise(starts)], dimensions, parts)


def arrange(columns: Sequence[np.ndarray], dimensions: dict[str, Dimension], parts: Sequence[Part]) -> np.ndarray:
    """Return one array over all dimensions, made of one column of lanes for each part."""
    names = list(dimensions)
    sizes = [d.size for d in dimensions.values()]
    if len(parts) == 1:
        return columns[0].reshape((*sizes, *columns[0].shape[1:]))
    out = np.empty((*sizes, *columns[0].shape[1:]), columns[0].dtype)
    for column, part in zip(columns, parts, strict=True):
        where = tuple(part.choice.get(name, slice(None)) for name in names)
        out[where] = column.reshape((*part.sizes.values(), *column.shape[1:]))
    return out


def lanes_in(values: np.ndarray, part: Part, names: Sequence[str]) -> np.ndarray:
    """Return the values of an array over all dimensions at the lanes of a part, in order: the inverse of `arrange`."""
    return values[tuple(part.choice.get(name, slice(None)) for name in names)].reshape(-1)


def dataset(
    dimensions: dict[str, Dimension], parts: Sequence[FinishedPart], training: Training, attributes: dict[str, Json]
) -> xr.Dataset:
    import xarray as xr

    tensors = [tensors_of(part.lanes) for part in parts]
    variables = {}
    for name, variable in variables_of([part.lanes for part in parts], training).items():
        columns = [own[variable.tensor].astype(variable.dtype, copy=False) for own in tensors]
        variables[name] = (*dimensions, *variable.extra), arrange(columns, dimensions, parts), variable.attributes
    return xr.Dataset(variables, all_coordinates(dimensions, parts[0].shape.records, training.record), attributes)


def tensors_of(lanes: Lanes) -> dict[str, np.ndarray]:
    """Return the arrays of lanes by name, one for each leaf."""
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(lanes)}


def variables_of(lanes: Sequence[Lanes], training: Training) -> dict[str, StoredVariable]:
    """Return the variables of the results that all parts have, with the same shape."""
    variables = {name: StoredVariable(f".{name}", (), _kind(getattr(lanes[0], name)), {}) for name in ("loss", "steps")}
    flags = {"flag_values": [s.value for s in Status], "flag_meanings": " ".join(s.name for s in Status)}  # of CF
    meaning = {"meaning": ", ".join(f"{s.value} {s.name}" for s in Status)}
    variables["status"] = StoredVariable(".status", (), "int8", meaning | flags)
    if training.validation is not None:
        variables["validation_loss"] = StoredVariable(".validation_loss", (), _kind(lanes[0].validation_loss), {})
    shapes = [{name: x.shape[1:] for name, x in tensors_of(own).items()} for own in lanes]
    alike = len({jax.tree.structure(without_kept(own.params)) for own in lanes}) == 1 and _agree(shapes, ".params")
    if alike:
        variables |= _variables_of_params("params", ".params", lanes[0].params)
    best = lanes[0].best
    if best is not None and all(own.best is not None for own in lanes):
        variables["best_validation_loss"] = StoredVariable(".best.validation_loss", (), _kind(best.validation_loss), {})
        variables["best_step"] = StoredVariable(".best.step", (), _kind(best.step), {})
        variables |= _variables_of_params("best_params", ".best.params", best.params) if alike else {}
    for path, leaf in _recorded(lanes[0].rows):
        name, tensor = _dotted("history", path), f".rows{jax.tree_util.keystr(path)}"
        if _agree(shapes, tensor):
            extra = ("step", *(f"{name}_dim_{k}" for k in range(leaf.ndim - 2)))
            variables[name] = StoredVariable(tensor, extra, _kind(leaf), {})
    return variables


def _recorded(tree: PyTree) -> list[tuple[tuple, Array]]:
    """Return the arrays of a tree with their paths, but for what is kept of the params."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_kept)
    return [(path, leaf) for path, leaf in leaves if not is_kept(leaf)]


def _variables_of_params(name: str, tensor: str, params: PyTree) -> dict[str, StoredVariable]:
    variables = {}
    for path, leaf in _recorded(params):
        full_name = _dotted(name, path)
        extra = tuple(f"{full_name}_dim_{k}" for k in range(leaf.ndim - 1))
        variables[full_name] = StoredVariable(f"{tensor}{jax.tree_util.keystr(path)}", extra, _kind(leaf), {})
    return variables


def _dotted(place: str, path: tuple) -> str:
    return ".".join(part for part in (place, jax.tree_util.keystr(path, simple=True, separator=".")) if part)


def _agree(shapes: Sequence[dict[str, tuple]], beginning: str) -> bool:
    selected = [{name: shape for name, shape in each.items() if name.startswith(beginning)} for each in shapes]
    return all(each == selected[0] for each in selected)


def _kind(x: PyTree) -> str:
    return np.dtype(x.dtype).name


# Reading a grid


@near_keywords
def lane(grid: Grid, /, *, method: str | None = None, **coords: object) -> Fit:
    """Return the run of a grid at the given coordinates as a `Fit` with `.coords`; nothing is computed again.

    Args:
      grid: From `sweep`.
      method: "nearest" to accept any number within an axis and take the run nearest to it. (In a grid with a dimension
        called "method", it is a coordinate like any other.)
      **coords: One value for each dimension longer than one: a label, or a number. A number must lie within half a cell
        of a value of the axis, that is within half the distance to the nearest neighbor of that value. On an axis that
        grows by factors, the value nearest to zero counts as if it had one more neighbor, closer to zero by that
        factor.

    Raises:
      ValueError: If a coordinate is missing, unknown, outside of its axis, or between its values; the message names the
        neighbors.
      TypeError: If `grid` is not a grid, or a coordinate is more than one value.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> jf.lane(grid, rate=0.1).steps, float(jf.lane(grid, rate=0.5).params)
      (20, 0.0)
    """
    check_grid("lane", grid)
    dims = grid.results.status.dims
    if "method" in dims:
        coords, method = coords | ({} if method is None else {"method": method}), None
    unknown = [name for name in coords if name not in dims]
    if unknown:
        raise ValueError(f"lane: the grid has no dimension {unknown[0]!r}; it has {', '.join(dims)}")
    for name in dims:
        if name not in coords and grid.results.sizes[name] > 1:
            first = grid.results[name].values.tolist()[0]
            raise ValueError(
                f"lane: {name} is missing; give a value for each of the dimensions, such as {name}={first!r}"
            )
    if method not in (None, "nearest"):
        raise ValueError(f'lane: method is {method!r}, but it is "nearest", or left out')
    axes, how = {name: grid.results[name].values for name in dims}, method or "cell"
    return member(grid, tuple(position("lane", n, axes[n], coords[n], how) if n in coords else 0 for n in dims))


def check_grid(verb: str, grid: object) -> None:
    """Raise a TypeError if it is not a grid."""
    if not isinstance(grid, Grid):
        what = "a fit, which is one run already" if isinstance(grid, Fit) else f"a {type(grid).__name__}"
        raise TypeError(f"{verb} takes the grid of a sweep, but got {what}; pass what jf.sweep returned")


def part_of(grid: Grid, number: int) -> tuple[FinishedPart, int]:
    """Return the part with the lane of this number, and the index of the lane in it."""
    for part in grid.parts[:-1]:
        if number < len(part.lanes.status):
            return part, number
        number -= len(part.lanes.status)
    return grid.parts[-1], number


def member(grid: Grid, index: tuple[int, ...]) -> Fit:
    """Return the run at the index along each dimension of the grid; of a refined grid, the nearest one that ran."""
    part, number = part_of(grid, int(grid.members[index]))
    results = jax.tree.map(lambda x: x[number], part.lanes)
    if part.members is not None:
        number = int(part.members[number])
        index = part.index(number, grid.results.status.dims)
    here = grid.results.isel(dict(zip(grid.results.status.dims, index, strict=True)))
    coords = {str(name): value.item() for name, value in here.coords.items() if value.ndim == 0}
    every, steps = part.training.record.every, int(results.steps)
    history = None
    if results.rows:
        kept = steps // every + 1 if results.status != Status.NOT_RUN else 0
        history = History({"step": np.arange(kept) * every, **jax.tree.map(lambda x: x[:kept], results.rows)})
    return Fit(
        params=released(results.params),
        loss=results.loss,
        status=Status(int(results.status)),
        steps=steps,
        history=history,
        validation_loss=results.validation_loss,
        coords=coords,
        start_loss=results.start_loss,
        training=choose(part.training, {name: int(i) for name, i in part.along(number).items()}),
        precision=grid.precision,
        **best_of(results.best, released),
    )


@overload
def best(grid: Grid, by: str = "loss", over: None = None, *, highest: bool = False) -> Fit: ...
@overload
def best(grid: Grid, by: str = "loss", *, over: str | Sequence[str], highest: bool = False) -> Grid: ...
@near_keywords
def best(
    grid: Grid, by: str = "loss", over: str | Sequence[str] | None = None, *, highest: bool = False
) -> Fit | Grid:  # fmt: skip
    """Return the run of a grid with the lowest final loss.

    Runs that diverged, became non-finite or did not finish are left out.

    Args:
      grid: From `sweep`.
      by: What is to be lowest: "loss", "validation_loss", "steps" or another variable of the results, or something that
        was recorded, by its name in `Record.what`; of a record the last value of each lane counts.
      over: Dimensions to minimize over. The result is then a smaller grid over the other dimensions, and its
        coordinates `over` say which value was chosen. None: over all dimensions, and the result is a `Fit`. Of a
        refined grid only the runs that were computed are compared.
      highest: Whether to take the highest value instead, for example of an accuracy.

    Returns:
      A `Fit`, or with `over` a `Grid`.

    Raises:
      ValueError: If there is no such variable or dimension, or (without `over`) no run ended well; if none of the
        runs to choose from was computed in a refined grid.
      TypeError: If `grid` is not a grid, or `over` is not a name or a sequence of names.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=20)
      >>> jf.best(grid).coords
      {'rate': 0.5}
    """
    check_grid("best", grid)
    results = grid.results
    dims = results.status.dims
    if not (over is None or isinstance(over, (str, Sequence))):
        raise TypeError(f"best: over is {over!r}, but it must be a dimension's name, such as {dims[0]!r}, or several")
    measure = lane_values("best", results, by)
    across: tuple[str, ...] = dims if over is None else (over,) if isinstance(over, str) else tuple(over)
    if not across:
        raise ValueError(f"best: over names no dimension; name some of {', '.join(dims)}, or leave it out for all")
    for name in across:
        if name not in dims:
            raise ValueError(f"best: over={name!r} is not a dimension of the grid; it has {', '.join(dims)}")
    good = np.isin(results.status, ENDED_WELL) & ~np.isnan(measure)
    ran = results.evaluated.values if grid.parts[0].members is not None else np.ones(good.shape, bool)
    good &= ran  # what was filled in has the values of a neighbor, and would be told at the wrong place
    values = np.where(good, -measure if highest else measure, np.inf)
    if set(across) == set(dims):
        if not good.any():
            raise ValueError(
                "best: no member of the grid ended well; see grid.results.status, and jf.explain of a lane"
            )
        return member(grid, tuple(int(i) for i in np.unravel_index(np.argmin(values), values.shape)))
    import xarray as xr

    kept = [name for name in dims if name not in across]
    order = [dims.index(name) for name in (*kept, *across)]
    _refuse_unrun(ran, results, across, kept)
    flat = values.transpose(order).reshape(*[results.sizes[n] for n in kept], -1)
    index = np.unravel_index(np.argmin(flat, axis=-1), [results.sizes[n] for n in across])
    chosen = {name: xr.DataArray(i, dims=kept) for name, i in zip(across, index, strict=True)}
    places = np.indices([results.sizes[n] for n in kept])
    where = tuple(index[across.index(n)] if n in across else places[kept.index(n)] for n in dims)
    return Grid(results.isel(chosen), grid.members[where], grid.parts, grid.precision, grid.store)


def lane_values(verb: str, results: xr.Dataset, by: str) -> np.ndarray:
    """Return one float for each lane: a variable of the results or the last record of its history.

    Raises:
      ValueError: If there is no such thing.
    """
    dims = results.status.dims
    if by in results and results[by].dims == dims:
        return results[by].values.astype(np.float64)
    name = by if str(by).startswith("history.") else f"history.{by}"
    if name not in results or results[name].dims != (*dims, "step"):
        kinds = dims, (*dims, "step")
        given = [str(name).removeprefix("history.") for name in results.data_vars if results[name].dims in kinds]
        raise ValueError(
            f"{verb}: by={by!r} is not one number for each lane; there are {', '.join(dict.fromkeys(given))}"
        )
    return last_records(results, name).astype(np.float64)


def last_records(results: xr.Dataset, name: str) -> np.ndarray:
    """Return the last record of each lane, of a history of single numbers."""
    last = np.searchsorted(results.step.values, results.steps.values, side="right") - 1
    return np.take_along_axis(results[name].values, last[..., None], axis=-1)[..., 0]


def _refuse_unrun(ran: np.ndarray, results: xr.Dataset, across: Sequence[str], kept: Sequence[str]) -> None:
    """Raise a ValueError if at some point of a refined grid no run to choose from was computed."""
    some = ran.any(axis=tuple(results.status.dims.index(name) for name in across))
    if not some.all():
        place = np.argwhere(~some)[0]
        there = ", ".join(f"{n}={results[n].values[i]}" for n, i in zip(kept, place, strict=True))
        raise ValueError(
            f"best: at {there} none of the members along {', '.join(across)} ran, they were filled in, so that there "
            f"is none to choose; refine with over={list(across)!r}, which runs some everywhere, or take a sweep"
        )
