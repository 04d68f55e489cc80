"""Many refits of a finished problem as one sweep: to resampled data, or with one of its params held."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.losses import Block, Joint, Loss
from jaxfit.losses.base import LIKELIHOOD, SQUARES
from jaxfit.optimizers import Optimizer, lbfgs, levenberg_marquardt
from jaxfit.problems import ENDED_WELL, Problem, precision_context, whole_number
from jaxfit.problems.axes import Axis, as_key, is_axis
from jaxfit.problems.dimensions import Mention, stacked
from jaxfit.problems.marks import put, without_kept
from jaxfit.problems.messages import near_keywords, warn
from jaxfit.statistics.covariances import Moments, factor, moments, params_tree
from jaxfit.statistics.estimates import basis_of, counted_residuals, jacobian, objective_at
from jaxfit.typing import ArrayLike, KeyLike, PyTree
from jaxfit.verbs.evaluations import PRECISION, Group, groups_of, labelled, like, one_lane, over_lanes
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, numbers_in
from jaxfit.verbs.sweeps import sweep

NAME = "refit"


def refitter(loss: Loss) -> Optimizer:
    """Return the method that refits a loss."""
    return levenberg_marquardt() if loss.knows_residuals else lbfgs()


class _LossOfBlocks(Loss):
    """A loss defined by its blocks of residuals."""

    loss: Loss

    @property
    def by_row(self) -> bool:
        return False

    @property
    def knows_residuals(self) -> bool:
        return self.loss.knows_residuals

    def __call__(self, params: PyTree, *data: PyTree, key: Array | None = None) -> Array:
        total = jnp.zeros(())
        for block in self.blocks(params, *data):
            rho = block.rho or jnp.square
            total = total + jnp.sum(block.weight * rho(block.residuals))
        return total

    def __repr__(self) -> str:
        return f"refit of {self.loss!r}"


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Shifted(_LossOfBlocks):
    """A loss with its residuals moved and weighed: scale * (residuals - shift), block by block."""

    loss: Loss

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("shift", "scale", *self.loss.data_names)

    def blocks(self, params: PyTree, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        shifts, scales, *data = data  # pyright: ignore[reportAssignmentType]
        return tuple(
            block._replace(residuals=scale * (block.residuals - shift))
            for block, shift, scale in zip(self.loss.blocks(params, *data), shifts, scales, strict=True)
        )


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Held(_LossOfBlocks):
    """A loss and a spring, stiffness * (number - target)**2, at one number of the user's tree.

    Its data begin with which number, the target and the stiffness. At the minimum of the sum, the loss is the least
    one with the number held at its value, and its derivative by the number is 2 * stiffness * (target - number).
    """

    loss: Loss

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("which", "target", "stiffness", *self.loss.data_names)

    def __call__(self, params: PyTree, *data: PyTree, key: Array | None = None) -> Array:
        spring = self._spring(params, *data[:3])
        return self.loss(params, *data[3:]) + spring.weight * jnp.square(spring.residuals)

    def blocks(self, params: PyTree, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        return (*self.loss.blocks(params, *data[3:]), self._spring(params, *data[:3]))

    def _spring(self, params: PyTree, which: Array, target: Array, stiffness: Array) -> Block:
        return Block(jax.flatten_util.ravel_pytree(without_kept(params))[0][which] - target, stiffness)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class WeightedLoss(_LossOfBlocks):
    """A likelihood in which each point counts as often as its data begin with: sum(weight * pointwise)."""

    loss: Loss

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("weight", *self.loss.data_names)

    def __call__(self, params: PyTree, *data: PyTree, key: Array | None = None) -> Array:
        loss: Any = self.loss
        return jnp.sum(data[0] * loss.pointwise(params, *data[1:]))

    def blocks(self, params: PyTree, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        return tuple(block._replace(weight=data[0]) for block in self.loss.blocks(params, *data[1:]))


class Refits:
    """The lanes of a result, each repeated, for a sweep over one axis.

    Raises:
      ValueError: If the lanes belong to several programs.
    """

    def __init__(self, verb: str, result: Fit | Grid, times: int):
        groups = groups_of(result)
        if len(groups) != 1:
            raise ValueError(
                f"{verb}: the grid was run by {len(groups)} programs, one for each value of an axis that is part of a "
                f"program; take one lane at a time: jf.lane(grid, ...)"
            )
        self.group: Group = groups[0]
        self.single = isinstance(result, Fit)
        self.lane = np.repeat(np.arange(self.group.size), times)
        self.along = {name: places[self.lane] for name, places in self.group.along.items()}

    @property
    def problem(self) -> Problem:
        return self.group.problem

    def of_lanes(self, values: ArrayLike) -> np.ndarray | Axis:
        """Return numbers of each lane, (lanes, ...), as an axis over the refits; for one fit unchanged."""
        values = np.asarray(values)
        return values[0] if self.single else Axis(NAME, values[self.lane])

    def collapsed(self, tree: PyTree) -> PyTree:
        """Return the tree with every axis replaced by one over the refits."""

        def one(x):
            if not is_axis(x):
                return x
            taken = self.along[x.name]
            return jax.tree.map(lambda v: Axis(NAME, np.asarray(v)[taken]), stacked(Mention(x, "", True)))

        return jax.tree.map(one, tree, is_leaf=is_axis)

    @property
    def ends(self) -> PyTree:
        """Return the marks of the problem around the final params of the lanes."""
        return put(self.collapsed(self.problem.params), jax.tree.map(self.of_lanes, self.group.params))

    def started(self, values: PyTree) -> PyTree:
        """Return the marks around a start for each refit; `values` are the free params, (refits, ...) at each leaf."""
        return put(self.ends, jax.tree.map(lambda x: Axis(NAME, np.asarray(x)), values))


STEPS = 200
MOST_BYTES = 2**31
FEW = 0.05  # share of refits that may fail without a warning


class Resamples(NamedTuple):
    """The params of refits."""

    params: PyTree  # (samples, ...) at each leaf; of a grid an xarray.Dataset with the dimension "sample"
    converged: ArrayLike  # (samples,) bool; params of the others are NaN


@near_keywords
def bootstrap(result: Fit | Grid, key: KeyLike, samples: int = 10_000, *, kind: str = "residuals") -> Resamples:
    """Return the params of refits to the fitted curve plus noise drawn from the residuals.

    All refits are one sweep. For a likelihood the points themselves are drawn, each counting as often as it is drawn.
    Residuals are taken in units of sigma, divided by sqrt(1 - leverage), and (except those of a robust loss) centered,
    so that each has the variance of the noise.

    Args:
      result: A fit, or the grid of a sweep (every lane has its own samples).
      key: A PRNG key or a seed.
      samples: Number of refits.
      kind: "residuals", for noise of one distribution in units of sigma; "pairs" draws the data points themselves (each
        counts as often as it is drawn), for noise that differs from point to point.

    Returns:
      (params, converged), with a leading axis of samples; `jf.intervals(fit, "bootstrap", key=)` takes quantiles.

    Raises:
      TypeError: If the loss has no residuals.
      ValueError: For another kind, or if the samples would not fit in memory; otherwise as `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> refits = jf.bootstrap(run, key=0, samples=50)
      >>> refits.params["w"].shape, bool(refits.converged.all())
      ((50,), True)
    """
    if kind not in ("residuals", "pairs"):
        raise ValueError(f'bootstrap: kind is {kind!r}, but it must be "residuals" or "pairs"')
    check_draws("bootstrap", key, samples)
    known = moments("bootstrap", result, None)
    flat, good = resample("bootstrap", result, known, kind, key, samples)
    return _resamples(result, flat, good)


@near_keywords
def monte_carlo(
    result: Fit | Grid, key: KeyLike, samples: int = 10_000, *, absolute_sigma: bool | None = None
) -> Resamples:
    """Return the params of refits to the fitted curve plus normally distributed noise, or to counts drawn from it.

    Args:
      result, key, samples: As for `bootstrap`.
      absolute_sigma: As for `covariance`: whether the noise has the data's sigma, or is scaled to the residuals.

    Returns:
      As `bootstrap`.

    Raises:
      TypeError, ValueError: As `bootstrap`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> refits = jf.monte_carlo(run, key=0, samples=50)
      >>> refits.params["w"].shape, bool(refits.converged.all())
      ((50,), True)
    """
    check_draws("monte_carlo", key, samples)
    known = moments("monte_carlo", result, absolute_sigma)
    flat, good = resample("monte_carlo", result, known, "normal", key, samples)
    return _resamples(result, flat, good)


def _resamples(result: Fit | Grid, flat: np.ndarray, good: np.ndarray) -> Resamples:
    if isinstance(result, Fit):
        return Resamples(like(numbers_in(result), flat), good)
    params = params_tree(result, np.moveaxis(flat, -1, -2), {"sample": None})
    return Resamples(params, labelled(result, good, {"sample": None}, "converged"))


def check_draws(verb: str, key: KeyLike | None, samples: int) -> int:
    """Return the number of samples.

    Raises:
      TypeError, ValueError: If it is no positive whole number, or there is no key.
    """
    samples = whole_number(f"{verb}: samples", samples)
    if key is None:
        raise ValueError(f"{verb} draws random numbers and needs a key: pass key=0, or a key of jax.random")
    as_key(key)
    return samples


def resample(
    verb: str, result: Fit | Grid, known: Moments, kind: str, key: KeyLike | None, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (..., samples, K) params of refits, NaN if one failed or a param has no error; and (..., samples) bool."""
    samples = check_draws(verb, key, samples)
    if known.kind == LIKELIHOOD:
        return _resampled_points(verb, result, known, kind, key, samples)
    if known.kind != SQUARES and kind == "normal":
        raise TypeError(f"{verb}: a Huber loss is there for noise that is not normal; use jf.bootstrap")
    silent = _silent(known, kind)
    if silent.all():
        return np.full((*silent.shape, samples, known.values.shape[-1]), np.nan), np.zeros(
            (*silent.shape, samples), bool
        )
    count = samples * (1 if isinstance(result, Fit) else len(np.unique(result.members)))
    residuals, leverage, counts = over_lanes(result, _in_blocks, (known.kind,))
    size = count * sum(np.size(x) for x in residuals) // (count // samples if not isinstance(result, Fit) else 1) * 8
    if size > MOST_BYTES:
        raise ValueError(f"{verb}: {count:,} data sets take {size:,} bytes; ask for fewer samples, or take some lanes")
    refits = Refits(verb, result, samples)
    lanes = refits.group.size
    take = (lambda x: x[None]) if refits.single else (lambda x: _per_lane(result, x, lanes))
    residuals, leverage, counts = (tuple(take(x) for x in each) for each in (residuals, leverage, counts))
    noise = np.nan_to_num(np.sqrt(take(np.asarray(known.noise))))
    with precision_context(PRECISION):
        drawn = _draw(kind, as_key(key), residuals, leverage, counts, noise, samples, centered=known.kind == SQUARES)
    problem = refits.problem
    shifts, scales = (tuple(_axis(x) for x in each) for each in drawn)
    grid = sweep(
        Shifted(refits.collapsed(problem.loss)), refits.ends,  # pyright: ignore[reportArgumentType]
        (shifts, scales, *refits.collapsed(problem.data)), optimizer=levenberg_marquardt(), steps=STEPS, progress=False,
    )  # fmt: skip
    flat, good = _gathered(verb, result, refits, grid, samples, ~take(silent)[refits.lane])
    unknown = np.isnan(known.estimate.variance)
    good &= ~silent[..., None]
    return np.where(unknown[..., None, :] | silent[..., None, None], np.nan, flat), good


def _gathered(
    verb: str, result: Fit | Grid, refits: Refits, grid: Grid, samples: int, spoken: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    """Return (..., samples, K) params where refits ended, NaN if one failed, and (..., samples) bool: which did not."""
    ended, lanes = np.asarray(grid.results.status), refits.group.size
    good = np.isin(ended, ENDED_WELL)
    ends = jax.tree.leaves(without_kept(grid.parts[0].lanes.params))
    lane_params = [np.asarray(x).reshape(len(ended), -1) for x in ends]
    flat = np.where(good[:, None], np.concatenate(lane_params, axis=1), np.nan)
    failed = 1 - good[spoken].mean()
    if failed > FEW:
        warn(f"{verb}: {100 * failed:.0f} % of the refits failed, and are left out; their intervals may be too narrow")
    back = (lambda x: x.reshape(samples, *x.shape[1:])) if refits.single else (
        lambda x: x.reshape(lanes, samples, *x.shape[1:])[np.searchsorted(np.unique(result.members), result.members)]
    )  # fmt: skip
    return back(flat), back(good)


def _resampled_points(
    verb: str, result: Fit | Grid, known: Moments, kind: str, key: KeyLike | None, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `resample` does for a likelihood: of points drawn again, or of counts drawn from the fitted means."""
    loss: Any = one_lane(result)[0].loss
    if not hasattr(loss, "pointwise") or isinstance(loss, Joint):
        raise TypeError(f"{verb}: {loss} has no points of one kind to draw; use jf.intervals(fit)")
    if kind == "normal" and not hasattr(loss, "draw"):
        raise TypeError(
            f"{verb}: {loss} does not say how its data are drawn; use jf.bootstrap, which draws points again"
        )
    losses, counts = over_lanes(result, _pointwise)
    size = samples * np.size(losses) * 8
    if size > MOST_BYTES:
        raise ValueError(f"{verb}: the data sets take {size:,} bytes; ask for fewer samples, or take some lanes")
    refits, own = Refits(verb, result, samples), as_key(key)
    loss, data = refits.collapsed(refits.problem.loss), refits.collapsed(refits.problem.data)
    if kind == "normal":
        keys = jax.random.split(own, samples)
        drawn = over_lanes(result, _redrawn, (), (keys,))
        at = loss.data_names.index("y")
        flat = drawn[None] if refits.single else _per_lane(result, drawn, refits.group.size)
        data = (*data[:at], Axis(NAME, flat.reshape(-1, *flat.shape[2:])), *data[at + 1 :])
    else:
        good = counts[None] if refits.single else _per_lane(result, counts, refits.group.size)
        with precision_context(PRECISION):
            places = _places(own, good.reshape(len(good), -1), samples)
        weights = np.zeros(places.shape)
        at = np.indices(places.shape)
        np.add.at(weights, (at[0], at[1], places), 1.0)
        loss, data = WeightedLoss(loss), (Axis(NAME, weights.reshape(-1, *good.shape[1:])), *data)
    grid = sweep(loss, refits.ends, data, optimizer=refitter(loss), steps=STEPS, progress=False)
    flat, good = _gathered(verb, result, refits, grid, samples)
    unknown = np.isnan(known.estimate.variance)
    return np.where(unknown[..., None, :], np.nan, flat), good


def _pointwise(problem: Problem, params: PyTree) -> tuple[Array, Array]:
    """Return the likelihood of each point, and whether it counts."""
    loss: Any = problem.loss
    losses = loss.pointwise(params, *problem.data)
    where = counted_residuals(loss, problem.data)
    return losses, jnp.ones(losses.shape, bool) if where is None else where


def _redrawn(problem: Problem, params: PyTree, keys: Array) -> Array:
    """Return (samples, n) counts drawn from the means at the params."""
    loss: Any = problem.loss
    return jax.vmap(lambda key: loss.draw(key, params, *problem.data))(keys)


def _silent(known: Moments, kind: str) -> np.ndarray:
    """Return () bool: the noise is not known, as there are not more residuals than params."""
    few = np.asarray(known.estimate.count - known.estimate.rank) <= 0
    return few & (not (known.absolute and kind == "normal"))


def _per_lane(grid: Fit | Grid, values: np.ndarray, lanes: int) -> np.ndarray:
    """Return numbers with the axes of a grid leading as (lanes, ...), in the order of the program."""
    axes = grid.members.ndim
    flat, first = values.reshape(-1, *values.shape[axes:]), np.unique(grid.members, return_index=True)[1]
    return flat[first][:lanes]


def _axis(values: np.ndarray) -> np.ndarray | Axis:
    """Return values for each refit as an axis; a single number unchanged."""
    return np.asarray(values) if np.ndim(values) == 0 else Axis(NAME, np.asarray(values))


def _in_blocks(problem: Problem, params: PyTree, kind: str) -> tuple:
    """Return for each block the residuals, their leverages and whether they count."""
    objective, flat, back = objective_at(problem, params)
    basis = basis_of(problem, params, kind)
    _, columns = jacobian(objective, flat, back)
    leverage = jnp.sum((columns.T @ basis.root) ** 2, axis=1)
    residuals, pulls, counts, first = [], [], [], 0
    where = counted_residuals(problem.loss, problem.data)
    for block in objective.blocks(back(flat)):
        r = jnp.asarray(block.residuals)
        residuals.append(r)
        pulls.append(jnp.reshape(leverage[first : first + r.size], r.shape))
        counts.append(jnp.ones(r.shape, bool) if where is None else where)
        first += r.size
    return tuple(residuals), tuple(pulls), tuple(counts)


def _draw(
    kind: str, key: Array, residuals: tuple, leverage: tuple, counts: tuple, noise: np.ndarray, samples: int, *,
    centered: bool,
) -> tuple:  # fmt: skip
    """Return the shifts and scales of each block, (lanes * samples, ...).

    Residuals are centered for least squares, whose noise has the mean zero, but not for a robust loss, as outliers move
    their mean.
    """
    shifts, scales = [], []
    for i, (r, pull, good) in enumerate(zip(residuals, leverage, counts, strict=True)):
        own, (lanes, *shape) = jax.random.fold_in(key, i), r.shape
        r, pull, good = (np.reshape(x, (lanes, -1)) for x in (r, pull, good))
        n = r.shape[1]
        if kind == "normal":
            drawn = np.asarray(jax.random.normal(own, (lanes, samples, n))) * noise[:, None, None]
        else:
            places = _places(own, good, samples)  # (lanes, samples, n)
        if kind == "pairs":
            scale = np.zeros((lanes, samples, n))
            at = np.indices(places.shape)
            np.add.at(scale, (at[0], at[1], places), 1.0)
            shifts.append(np.zeros(()))
            scales.append(np.sqrt(scale).reshape(lanes * samples, *shape))
            continue
        if kind == "residuals":
            worth = -r / np.sqrt(np.maximum(1 - pull, 1e-12))
            worth = np.where(good & (pull < 1 - 1e-9), worth, 0.0)
            if centered:
                total = np.maximum(good.sum(axis=1, keepdims=True), 1)
                worth = np.where(good, worth - worth.sum(axis=1, keepdims=True) / total, 0.0)
            drawn = np.take_along_axis(np.broadcast_to(worth[:, None], places.shape), places, axis=2)
        shift = np.where(good, r, 0.0)[:, None] + np.where(good[:, None], drawn, 0.0)
        shifts.append(shift.reshape(lanes * samples, *shape))
        scales.append(np.ones(()))
    return tuple(shifts), tuple(scales)


def _places(key: Array, good: np.ndarray, samples: int) -> np.ndarray:
    """Return (lanes, samples, n) random indices of data that count."""
    lanes, n = good.shape
    total, order = good.sum(axis=1), np.argsort(~good, axis=1, kind="stable")
    uniform = np.asarray(jax.random.uniform(key, (lanes, samples, n)))
    rank = np.minimum((uniform * total[:, None, None]).astype(int), total[:, None, None] - 1)
    return np.take_along_axis(np.broadcast_to(order[:, None], rank.shape), rank, axis=2)


def quantiles(flat: np.ndarray, known: Moments, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the (..., K) ends of intervals of this level from (..., samples, K) refits.

    The share of refits below the lower end is Phi(-t) with Student's t of the level, not with the normal quantile, as
    refits scatter by an estimate of the noise. The quantile of a share p is the order statistic p (samples + 1); no
    end lies beyond the samples.

    Source: Hesterberg (2015), What Teachers Should Know About the Bootstrap, The American Statistician 69, section 5.
    """
    from scipy import special

    ordered = np.sort(flat, axis=-2)  # NaN last
    count = np.sum(~np.isnan(flat), axis=-2)  # (..., K)
    share = special.ndtr(-factor(known, level))[..., None]
    low, high = (_between(ordered, count, rank) for rank in (share * (count + 1) - 1, (1 - share) * (count + 1) - 1))
    return low, high


def _between(ordered: np.ndarray, count: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return (..., K) interpolated at ranks in sorted (..., samples, K), of which the first `count` are valid."""
    rank = np.clip(np.where(np.isnan(rank), 0, rank), 0, np.maximum(count - 1, 0))
    below = rank.astype(int)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low, high = (np.take_along_axis(ordered, at[..., None, :], axis=-2)[..., 0, :] for at in (below, above))
    return np.where(below == rank, low, low + (rank - below) * (high - low))
