"""Multiple starts for one problem: starts between the bounds of its params, and the optima they reach."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.problems import ENDED_WELL, Problem, Status, whole_number
from jaxfit.problems.axes import Axis, Call, is_axis
from jaxfit.problems.bounds import check_bounds
from jaxfit.problems.marks import Bounded, Fixed, Tied, is_mark, kept_of, without_kept
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import KeyLike, PyTree
from jaxfit.verbs.grids import Grid, check_grid, member
from jaxfit.verbs.results import Fit, pages
from jaxfit.verbs.sampling import sobol_points
from jaxfit.verbs.summaries import text_table


@near_keywords
def starts(
    params: PyTree, count: int = 100, *, key: KeyLike, log: bool | str | Sequence[str] = False, name: str = "start"
) -> PyTree:
    """Return starts spread evenly between bounds: the params with an `Axis` in every bounded leaf, for `sweep`.

    The starts are points of a scrambled Sobol sequence, as those of `jf.sample`. If `count` is a power of two and the
    range of a number is cut into `count` equal parts, each part has one start at a random point in it; combinations of
    numbers are covered evenly too.

    Args:
      params: A pytree with `Bounded` at every leaf that moves, both bounds finite; `Fixed`, `Tied` and what is no
        number stay. Of the values of the bounded leaves only the shapes matter.
      count: Number of starts.
      key: A PRNG key or a seed.
      log: Whether the parts have equal ratios rather than equal lengths: True for all numbers, or the names of the
        leaves, such as ["rate"]. Bounds must be positive there.
      name: Name of the axis.

    Returns:
      The same tree, to pass to `sweep`. `jf.best(grid)` is then the best of all runs, and `jf.optima(grid)` lists the
      optima that they reached.

    Raises:
      ValueError: If a leaf that moves has no finite bounds, if nothing moves, or if bounds are not positive where `log`
        is set.
      TypeError: If bounds are not numbers.

    Source: Owen (1998), doi:10.1006/jcom.1998.0487.

    Example:
      >>> tree = jf.starts({"x": jf.Bounded(0.0, low=-2.0, high=2.0)}, count=4, key=0)
      >>> sorted(int(np.floor(value)) for value in tree["x"].value.values)
      [-2, -1, 0, 1]
    """
    count = whole_number("count", count)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: is_mark(x) or _is_marker(x))
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    logs = _as_names(log, names)
    drawn, sizes = [], [int(np.size(leaf.value)) if isinstance(leaf, Bounded) else 0 for _, leaf in leaves]
    shares = iter(np.split(sobol_points(count, max(1, sum(sizes)), key), np.cumsum(sizes)[:-1], axis=1))
    for label, (_, leaf) in zip(names, leaves, strict=True):
        own = next(shares)
        if isinstance(leaf, (Fixed, Tied)) or kept_of(leaf):
            drawn.append(leaf)
            continue
        low, high = _bounds(label, leaf)
        if label in logs and not (low > 0).all():
            raise ValueError(f"starts: params {label!r} has low={low.min():g}, but log needs positive bounds")
        share = own.reshape(count, *np.shape(leaf.value))
        if label in logs:
            values = np.exp(np.log(low) + share * (np.log(high) - np.log(low)))
        else:
            values = low + share * (high - low)
        drawn.append(Bounded(Axis(name, np.clip(values, low, high)), leaf.low, leaf.high))
    if not any(isinstance(leaf, Bounded) for leaf in drawn):
        raise ValueError("starts: all params are fixed or tied, so that there is nothing to draw")
    return jax.tree_util.tree_unflatten(structure, drawn)


def _is_marker(x: object) -> bool:
    return isinstance(x, (Axis, Call))


def _as_names(log: bool | str | Sequence[str], names: Sequence[str]) -> Sequence[str]:
    if isinstance(log, (bool, np.bool_)):
        return names if log else ()
    given = [log] if isinstance(log, str) else list(log)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ValueError(f"starts: log names {unknown[0]!r}, but the params are {', '.join(map(repr, names))}")
    return given


def _bounds(label: str, leaf: object) -> tuple[np.ndarray, np.ndarray]:
    """Return both bounds of a leaf, in its shape."""
    if not isinstance(leaf, Bounded):
        what = repr(leaf) if _is_marker(leaf) else f"free ({leaf!r})"
        raise ValueError(
            f"starts: params {label!r} is {what}, but starts are drawn between bounds; give it some, such as "
            f"jf.Bounded(1.0, low=0.0, high=10.0), or hold it with jf.Fixed"
        )
    if is_axis(leaf.value) or is_axis(leaf.low) or is_axis(leaf.high):
        raise ValueError(f"starts: params {label!r} has an Axis already; leave it out, starts makes one of its own")
    low, high = check_bounds(f"starts: params {label!r}", leaf.value, leaf.low, leaf.high)
    for side, limit in (("low", low), ("high", high)):
        if limit is None or not np.isfinite(limit).all():
            raise ValueError(f"starts: params {label!r} has no {side}; starts are drawn between two finite bounds")
    shape = np.shape(leaf.value)
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


@dataclass(frozen=True, eq=False)
class Optima:
    """The different optima of a sweep over starts, the lowest loss first.

    Attributes:
      loss: (optima,)
      count: (optima,) number of starts that reached each.
      params: The user's tree with a leading axis (optima,): for each optimum the params of its best run.
      lanes: (optima,) the number of that run, as in `grid.members`. If starts are the only axis it is the position
        along it: `jf.lane(grid, start=table.lanes[1])` is the second best optimum as a fit.
      failed: Number of starts that diverged, became NaN, were pruned or never ran.
      unfinished: Number of starts that ran out of steps; they are counted at the params they had reached.

    Example:
      >>> start = jf.starts({"x": jf.Bounded(0.0, low=-2.0, high=2.0)}, count=8, key=0)
      >>> two_minima = lambda p: (p["x"] ** 2 - 1) ** 2
      >>> found = jf.optima(jf.sweep(two_minima, start, optimizer=jf.optimizers.sgd(0.05), steps=200))
      >>> type(found).__name__, len(found.loss), found.failed
      ('Optima', 2, 0)
    """

    loss: np.ndarray
    count: np.ndarray
    params: PyTree = field(repr=False)
    lanes: np.ndarray = field(repr=False)
    failed: int
    unfinished: int

    def __len__(self) -> int:
        return len(self.loss)

    def troubles(self, mark: str) -> str:
        """Return how many starts ended otherwise, each after a mark; "" if none did."""
        counts = [(self.failed, "failed"), (self.unfinished, "ran out of steps")]
        return "".join(f"{mark}{n:,} {what}" for n, what in counts if n)

    def _repr_html_(self) -> str:
        return pages().notebook(self)

    def __repr__(self) -> str:
        total = int(self.count.sum()) + self.failed
        head = f"{len(self)} optim{'um' if len(self) == 1 else 'a'} from {total:,} starts{self.troubles(', ')}"
        leaves = jax.tree_util.tree_leaves_with_path(self.params)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in leaves]
        rows = [["loss", "starts", *names]]
        for i in range(min(len(self), 10)):
            rows.append([f"{self.loss[i]:.6g}", f"{self.count[i]:,}", *(_short(leaf[i]) for _, leaf in leaves)])
        lines = text_table(rows, [False] * len(rows[0]), rule=False)
        more = [f"and {len(self) - 10:,} more"] if len(self) > 10 else []
        return "\n".join([head, *(lines if len(self) else []), *more])


def _short(value: object) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array:.5g}"
    return np.array2string(array, precision=4, separator=", ", threshold=6, edgeitems=2).replace("\n", "")


@near_keywords
def optima(grid: Grid, *, tolerance: float = 1e-3, by: str = "params") -> Optima:
    """Return the optima that the runs of a sweep reached, and how many runs reached each.

    Two runs count as the same optimum if their losses differ by less than `tolerance` of the loss (or by less than
    tolerance**3 of the loss at the starts) and, with by="params", each of their params differs by less than `tolerance`
    of its range over the sweep, or of its own size.

    Args:
      grid: From `sweep`, of one problem from many starts.
      tolerance: Relative; of the order to which the runs converged.
      by: "params", or "loss" alone. With "loss", optima that differ only by an exchange of equal terms, such as the
        peaks of a sum, are one optimum.

    Returns:
      An `Optima`, which prints as a table.

    Raises:
      ValueError: If lanes had different data, so that their losses cannot be compared, or params of different shapes.

    Example:
      >>> start = jf.starts({"x": jf.Bounded(0.0, low=-2.0, high=2.0)}, count=8, key=0)
      >>> two_minima = lambda p: (p["x"] ** 2 - 1) ** 2
      >>> found = jf.optima(jf.sweep(two_minima, start, optimizer=jf.optimizers.sgd(0.05), steps=200))
      >>> sorted(round(float(x), 3) for x in found.params["x"]), int(found.count.sum())
      ([-1.0, 1.0], 8)
    """
    if by not in ("params", "loss"):
        raise ValueError(f'optima: by is {by!r}, but it must be "params" or "loss"')
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
        raise ValueError(f"optima: tolerance is {tolerance!r}, but it must lie between 0 and 1, such as 1e-3")
    check_grid("optima", grid)
    if not _one_problem(grid):
        raise ValueError(
            "optima: lanes of this grid have different data, losses or fixed params, which do not compare; sweep one"
        )
    trees = [without_kept(part.lanes.params) for part in grid.parts]
    layouts = {(jax.tree.structure(t), tuple(x.shape[1:] for x in jax.tree.leaves(t))) for t in trees}
    if len(layouts) > 1:
        raise ValueError("optima: lanes of this grid have params of different shapes; sweep one shape")
    params = jax.tree.map(lambda *x: np.concatenate(x), *trees)
    status, loss = (np.concatenate([getattr(part.lanes, name) for part in grid.parts]) for name in ("status", "loss"))
    looked = np.unique(grid.members)
    good = looked[np.isin(status[looked], ENDED_WELL) & np.isfinite(loss[looked])]
    order = good[np.argsort(loss[good], kind="stable")]
    flat = np.concatenate([np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(params)], axis=1).astype(np.float64)
    began = np.abs(np.concatenate([part.lanes.start_loss for part in grid.parts])[order])
    floor = tolerance**3 * float(np.median(began)) if len(order) else 0.0  # a loss of zero is reached by rounding only
    near = functools.partial(_near, tolerance=tolerance, floor=floor, compare=by == "params")
    first, counts = _grouped(loss[order].astype(np.float64), flat[order], near)
    kept = order[first]
    return Optima(
        loss=loss[kept],
        count=counts,
        params=jax.tree.map(lambda x: x[kept], params),
        lanes=kept,
        failed=len(looked) - len(good),
        unfinished=int((status[good] == Status.OUT_OF_STEPS).sum()),
    )


def _one_problem(grid: Grid) -> bool:
    """Return whether all lanes have the same loss, data, bounds and fixed params."""
    first, *others = [_question(part.training.problem) for part in grid.parts]
    leaves, structure = jax.tree.flatten(first, is_leaf=is_axis)
    if any(map(is_axis, leaves)):
        return False
    return all(
        jax.tree.structure(other) == structure
        and all(x is y or np.array_equal(x, y) for x, y in zip(leaves, jax.tree.leaves(other), strict=True))
        for other in others
    )


def _question(problem: Problem) -> tuple:
    """Return what must be equal for the losses of two lanes to be comparable: everything but the starts."""
    marks = [x for x in jax.tree.leaves(problem.params, is_leaf=is_mark) if is_mark(x)]
    kept = [(x.low, x.high) if isinstance(x, Bounded) else x for x in marks]
    return problem.loss, problem.data, kept


class Met(NamedTuple):
    """The best run of a sweep over starts, and how many others reached the same optimum."""

    fit: Fit
    lanes: str  # what they are: "starts", or "runs" if they differ in more
    text: str  # how many found what
    alone: bool  # whether no other lane met the lowest


def met(verb: str, grid: Grid) -> Met:
    """Find the best run, and the other runs that reached the same optimum.

    Raises:
      ValueError: If the lanes are not of one problem, or none ended well.
    """
    if not _one_problem(grid):
        raise ValueError(
            f"{verb}: lanes of this grid have different data, losses or fixed params, and none of them stands for the "
            f"others; take one, jf.{verb}(jf.lane(grid, ...)), or all errors at once: jf.standard_errors(grid)"
        )
    here, heights = optima(grid), optima(grid, by="loss")
    if not len(here):
        raise ValueError(f"{verb}: no member of the grid ended well; see grid.results.status, and jf.explain of a lane")
    same, high, total = int(here.count[0]), int(heights.count[0]), len(np.unique(grid.members))
    what, rank = "optimum", "only one"
    if same < high:  # as where two terms of a sum may exchange their places
        what, rank = f"loss, {same:,} of them with these params", "only loss"
    table = here if same == high else heights
    if len(table) > 1:
        rank = f"lowest of {len(table):,}; the next has a loss of {table.loss[1]:.6g}"
    text = f"{high:,} of {total:,} found this {what}, the {rank}{here.troubles('; ')}"
    rest = jax.tree.leaves(grid.parts[0].training.at(None), is_leaf=is_axis)
    name = "runs" if len(grid.parts) > 1 or any(map(is_axis, rest)) else "starts"
    fit = member(grid, tuple(np.argwhere(grid.members == here.lanes[0])[0]))
    return Met(fit, name, text, high == 1 < total)


def _grouped(loss: np.ndarray, params: np.ndarray, near: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Return the first run of each group and the size of the group; runs are sorted by loss."""
    first: list[int] = []
    counts: list[int] = []
    span = np.ptp(params, axis=0) if len(params) else np.zeros(params.shape[1:])
    for i in range(len(loss)):
        same = near((loss[first], params[first]), (loss[i], params[i]), span)
        if same.any():
            counts[int(np.argmax(same))] += 1
        else:
            first.append(i)
            counts.append(1)
    return np.asarray(first, int), np.asarray(counts, int)


def _near(
    optimum: tuple, member: tuple, span: np.ndarray, *, tolerance: float, floor: float, compare: bool
) -> np.ndarray:
    """Return for each known optimum whether a run reached it."""
    loss, params = member
    same = np.abs(optimum[0] - loss) <= tolerance * np.abs(loss) + floor
    if compare:
        same &= (np.abs(optimum[1] - params[None]) <= tolerance * np.maximum(span, np.abs(params))[None]).all(axis=1)
    return same
