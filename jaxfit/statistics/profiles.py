"""Profiles: the smallest sum of squares with one param held at a value, and where it has risen to a given level.

With S(v) the smallest sum with the param at v, tau(v) = sqrt((S(v) - S) / s**2) is the distance of v from the fit in
standard errors. In the linear theory tau is linear; the profile interval ends where tau is Student's t, whatever its
shape. All params, both sides and all lanes take each step together, as one sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.losses.base import LIKELIHOOD, SQUARES, noise_model_of
from jaxfit.problems import Problem, Status, whole_number
from jaxfit.problems.axes import Axis
from jaxfit.problems.bounds import bounds
from jaxfit.problems.marks import free, is_marked, without_kept
from jaxfit.problems.messages import near_keywords
from jaxfit.statistics.covariances import Moments, factor, moments
from jaxfit.statistics.estimates import objective_at
from jaxfit.statistics.paths import Nodes, Walk, Way, begin, ends, follow, reach, taken
from jaxfit.statistics.resampling import NAME, Held, Refits, refitter
from jaxfit.verbs.evaluations import free_places, like, one_lane, over_lanes
from jaxfit.verbs.results import Fit, numbers_in
from jaxfit.verbs.sweeps import sweep

PyTree = Any
STEPS = 300
STIFFNESS = 1e4  # of the springs that hold params, against how stiffly the data hold them
DRAWN = 10.0  # how many times the share of the rise in a spring may be that in the linear theory
SMALL = 0.01  # the least rise of which the share is taken
STIFFEST = 1e8  # by how much a spring may be stiffer, so that rounding leaves its length some digits
LOWER = 1e-3  # of tau**2: how far below the minimum a sum may be, as the fit may not have fully converged
COARSE = 4096 * float(np.finfo(float).eps)  # relative noise below which rounding hides the shape of a profile


class Ground(NamedTuple):
    """The properties of a lane that its profiles start from."""

    flat: Any  # (k,) free params
    start: Any  # (k,) where the run began
    low: Any  # (k,) bounds
    high: Any
    loss: Any  # ()


def _ground(problem: Problem, params: PyTree) -> Ground:
    objective, flat, back = objective_at(problem, params)
    limits = bounds(problem.params) if is_marked(problem.params) else None
    low, high = (jnp.full(flat.shape, x) for x in (-jnp.inf, jnp.inf))
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
    start = jax.flatten_util.ravel_pytree(free(problem.params))[0]
    return Ground(flat, start, low, high, objective(back(flat)))


class Sides:
    """The profiles of all numbers of a result, two each: to the left and to the right."""

    def __init__(self, verb: str, result: Any, known: Moments):
        model = noise_model_of(one_lane(result)[0].loss)
        if known.kind != SQUARES and not (known.kind == LIKELIHOOD and model.additive):
            raise TypeError(
                f"{verb}: a profile is of sums of squares (rss, mse, chi_squared, least_squares) or of likelihoods "
                f'(poisson, binomial, likelihood); use method="wald"'
            )
        rise = 1.0 if known.kind == SQUARES or model.deviance else 0.5  # of the loss, for one standard error
        refits = Refits(verb, result, 1)
        self.single, self.result = refits.single, result
        ground = jax.tree.map(self.by_lane, over_lanes(result, _ground))
        values, unit, errors, freedom = (
            self.by_lane(np.asarray(x)) for x in (known.values, known.estimate.unit, known.errors, known.freedom)
        )
        moves = free_places(refits.ends, jax.tree.map(lambda x: x[0], refits.group.params))
        coarse = np.sqrt(known.noise) <= COARSE * np.asarray(known.estimate.span)
        self.straight = self.by_lane(coarse | known.exact)
        self.sound = np.isfinite(errors) & (errors > 0) & ~self.straight[:, None]  # (lanes, K)
        lane, self.which = (np.repeat(x, 2) for x in np.nonzero(self.sound))
        self.lane, self.free = lane, np.flatnonzero(moves)
        self.side = np.tile([-1.0, 1.0], len(lane) // 2)
        self.start, self.error = values[lane, self.which], errors[lane, self.which]
        limits = np.full((2, *values.shape), [[[-np.inf]], [[np.inf]]])
        limits[0][:, moves], limits[1][:, moves] = ground.low, ground.high
        self.edge = np.where(self.side < 0, *limits[:, lane, self.which])
        with np.errstate(invalid="ignore"):
            slopes = unit[lane, :, self.which][:, moves] / unit[lane, self.which, self.which][:, None]
        self.slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        self.least = ground.loss[lane]
        noise = self.by_lane(np.broadcast_to(known.noise, known.freedom.shape))[lane]
        scatter = noise if known.absolute or known.kind == LIKELIHOOD else self.least / freedom[lane]
        self.per_rise = rise * scatter
        self.flat, self.low, self.high = ground.flat[lane], ground.low[lane], ground.high[lane]
        self.began = ground.start[lane]
        refits.along = {name: index[lane] for name, index in refits.along.items()}
        refits.lane, self.refits = lane, refits
        problem = refits.problem
        self.loss = Held(refits.collapsed(problem.loss))  # pyright: ignore[reportArgumentType]
        self.data = refits.collapsed(problem.data)
        self.example = free(problem.params, jax.tree.map(lambda x: x[0], refits.group.params))

    def by_lane(self, values: np.ndarray) -> np.ndarray:
        """Return the numbers of each lane once, (lanes, ...), from those with the axes of the result leading."""
        if self.single:
            return np.asarray(values)[None]
        axes, first = self.result.members.ndim, np.unique(self.result.members, return_index=True)[1]
        return values.reshape(-1, *values.shape[axes:])[first]

    def origin(self) -> Nodes:
        """Return the nodes at the minimum."""
        zero = np.zeros(len(self.lane))
        return Nodes(self.start, self.start, zero, zero, self.flat)

    def begin(self, way: Way) -> Walk:
        return begin(self.origin(), self.slopes, way)

    def way(self, goal: Any) -> Way:
        return Way(self.start, self.side, self.error, self.edge, np.broadcast_to(goal, self.start.shape))

    def elsewhere(self, walk: Walk) -> Iterator[np.ndarray]:
        """Yield starts (n, k) of refits that look for lower branches.

        They are the minimum, the start of the run, the point of the linear theory, the refit that was refused last, and
        where the other profiles of the lane are.
        """
        yield self.flat
        yield self.began
        yield self.flat + self.slopes * (walk.inner.value - self.start)[:, None]
        if np.isfinite(walk.other.rise).any():
            yield walk.other.params
        _, first, lane, count = np.unique(self.lane, return_index=True, return_inverse=True, return_counts=True)
        first_of_lane, numbers = first[lane], np.arange(len(lane))
        for shift in range(1, count.max()):
            yield walk.inner.params[first_of_lane + (numbers - first_of_lane + shift) % count[lane]]

    def refit(self, targets: np.ndarray, params: np.ndarray) -> Nodes:
        """Refit with each number held near its target (n,) by a spring, from free params (n, k).

        Such a spring holds 1/STIFFNESS of the rise where the curve is as at the minimum. Where the data pull harder, a
        number is drawn away from its target; it is refitted once more, by a spring that is stiff there too.
        """
        nodes = self._held(targets, params, np.full(len(targets), STIFFNESS))
        size = np.maximum(np.abs(nodes.rise), SMALL)
        with np.errstate(over="ignore", invalid="ignore"):
            share = (nodes.slope * self.error / 2) ** 2 / size  # of the rise in a spring is this by its stiffness
        drawn = np.isfinite(share) & (share > DRAWN)
        if not drawn.any():
            return nodes
        stiff = STIFFNESS * np.clip(np.where(drawn, share, 1.0), 1.0, STIFFEST)
        return taken(drawn, self._held(targets, np.where(drawn[:, None], params, nodes.params), stiff), nodes)

    def _held(self, targets: np.ndarray, params: np.ndarray, stiff: np.ndarray) -> Nodes:
        """Refit once, with springs (n,) so many times as stiff as the data are at the minimum."""
        stiffness = stiff * self.per_rise / self.error**2
        given = Axis(NAME, self.which.astype(np.int64)), Axis(NAME, targets), Axis(NAME, stiffness)
        fine = np.isfinite(params).all(axis=1)
        params = np.clip(np.where(fine[:, None], params, self.flat), self.low, self.high)
        start = self.refits.started(like(self.example, params))
        grid = sweep(self.loss, start, (*given, *self.data), optimizer=refitter(self.loss), steps=STEPS, progress=False)
        ended = np.asarray(grid.results.status)
        fine &= ~np.isin(ended, (Status.NOT_RUN, Status.DIVERGED, Status.NOT_FINITE))
        ends = jax.tree.leaves(without_kept(grid.parts[0].lanes.params))
        columns = [np.asarray(x).reshape(len(targets), -1) for x in ends]
        numbers = np.concatenate(columns, axis=1)
        values = numbers[np.arange(len(targets)), self.which]
        with np.errstate(over="ignore", invalid="ignore"):
            losses = np.asarray(grid.results.loss) - stiffness * (targets - values) ** 2
            rise = np.where(fine, (losses - self.least) / self.per_rise, np.inf)
            slope = 2 * stiff * (targets - values) / self.error**2
        return Nodes(targets, values, rise, slope, numbers[:, self.free])

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return numbers of each side as (..., K, 2), NaN where there is no profile."""
        full = np.full((*self.sound.shape, 2), np.nan if values.dtype.kind == "f" else False, values.dtype)
        full[self.sound] = values.reshape(-1, 2)
        return self.spread_lanes(full)

    def spread_lanes(self, values: np.ndarray) -> np.ndarray:
        """Return (lanes, ...) numbers with the axes of the result leading."""
        if self.single:
            return values[0]
        return values[np.searchsorted(np.unique(self.result.members), self.result.members)]


class Ends(NamedTuple):
    """Where profiles reach a level; NaN where there is no profile."""

    low: Any  # (..., K)
    high: Any  # (..., K)
    several: Any  # (..., K, 2) bool, low and high: on the way there, or just there, it has more than one minimum
    lower: Any  # (..., K, 2) bool: it goes below the minimum
    lost: Any  # (..., K, 2) bool: no refit leads beyond


def profile_ends(verb: str, result: Any, known: Moments, level: float) -> Ends:
    """Return the first values to each side at which tau reaches its quantile for the level."""
    sides = Sides(verb, result, known)
    quantile = np.asarray(factor(known, level))
    half = np.where(sides.spread_lanes(sides.straight), quantile, np.nan)[..., None] * known.errors
    low, high = known.values - half, known.values + half
    several = lower = lost = np.zeros((*low.shape, 2), bool)
    if len(sides.lane):
        way = sides.way(sides.by_lane(quantile)[sides.lane] ** 2)
        walk = reach(sides.refit, sides.begin(way), way, sides.flat, sides.elsewhere)
        sides_ends = *ends(sides.refit, walk, way, sides.elsewhere), walk.lowest < -LOWER
        reached, lost, several, lower = map(sides.spread, sides_ends)
        low, high = (np.where(np.isnan(x), y, x) for x, y in ((low, reached[..., 0]), (high, reached[..., 1])))
    return Ends(low, high, several, lower, lost)


def sentences_about(ends: Ends, names: list[str]) -> list[str]:
    """Return the sentences about profiles that are not what the ends alone say; for a grid with counts of lanes."""
    sentences = []
    for flags, text in (
        (ends.lower, "with {} held elsewhere the loss is lower than where the fit ended, which is no minimum, or not "
         "the least one; fit again from other starts"),
        (ends.several, "the profile of {} has more than one minimum within its interval or next to it; other values "
         "may do as well: draw it with jf.plots.profile(fit, name=...), or fit from other starts"),
        (ends.lost, "the interval of {} ends where no refit leads further: the model or its slope ceases to be finite, "
         "or the other params run away"),
    ):  # fmt: skip
        named = [
            name + _sides_meant(sides)
            for name, sides in zip(names, np.moveaxis(flags, -2, 0), strict=True)
            if sides.any()
        ]
        sentences += [text.format(", ".join(named))] * bool(named)
    return sentences


def _sides_meant(sides: np.ndarray) -> str:
    """Return which end (..., 2) is meant, unless both are, and of how many lanes."""
    low, high = np.asarray(sides.reshape(-1, 2).any(axis=0))
    parts = [] if low and high else ["low end" if low else "high end"]
    if sides.ndim > 1:
        lanes = sides.any(axis=-1)
        parts.append(f"{int(lanes.sum()):,} of {lanes.size:,} lanes")
    return f" ({', '.join(parts)})" if parts else ""


class Profile(NamedTuple):
    """The profile of one param."""

    values: Any  # (points,) of it
    tau: Any  # (points,) how many standard errors away from the fit; negative to the left


@near_keywords
def profile(fit: Any, points: int = 21, reach: float = 3.0, *, absolute_sigma: bool | None = None) -> Any:
    """Return the profile of each param: how the sum of squares rises when it is held and the others are fitted again.

    tau(v) = sign(v - value) * sqrt((S(v) - S) / s**2), where S(v) is the sum of squares with the param held at v. It is
    (v - value) / error where the linear theory holds. The refits follow one branch outward from the fit; where another
    branch is lower, an interval of `report(fit, method="profile")`, which looks for such, ends elsewhere and says so.

    Args:
      fit: A fit by a loss of squares.
      points: Number of values of each param; an odd number includes the fitted value.
      reach: How far the values extend to both sides, in standard errors; limited by the bounds of the param.
      absolute_sigma: As for `covariance`.

    Returns:
      A tree like the params with a `Profile(values, tau)` at each leaf, whose points come last; NaN for params without
      a profile, infinite where the refit fails.

    Raises:
      TypeError: If it is not a fit, or its loss is not a sum of squares.
      ValueError: For bad `points` or `reach`; otherwise as `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> [round(float(tau), 2) for tau in jf.profile(run, points=5, reach=2.0)["w"].tau]
      [-2.0, -1.0, 0.0, 1.0, 2.0]
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"profile takes one fit, but got a {type(fit).__name__}; take a lane: jf.lane(grid, ...)")
    points = whole_number("profile: points", points, least=2)
    if isinstance(reach, bool) or not isinstance(reach, (int, float, np.number)) or not 0 < reach < np.inf:
        raise ValueError(f"profile: reach is {reach!r}, but it must be a positive number of standard errors, such as 3")
    known = moments("profile", fit, absolute_sigma)
    sides = Sides("profile", fit, known)
    offsets = np.linspace(-reach, reach, points)
    values, tau = _straight(known, offsets) if sides.straight.any() else _curves_along(sides, offsets)
    return jax.tree.map(Profile, *(_trailing(fit, x) for x in (values, tau)))


def _straight(known: Moments, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `_curves_along` does, by the linear theory."""
    values = known.values[:, None] + known.errors[:, None] * offsets
    return values, np.where(np.isnan(values), np.nan, offsets)


def _curves_along(sides: Sides, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, points) values at offsets in standard errors, and tau there."""
    curves = np.full((2, *sides.sound.shape[1:], len(offsets)), np.nan)
    if not len(sides.lane):
        return curves[0], curves[1]
    rows = sides.which[::2]
    curves[0][rows] = np.clip(sides.start[::2, None] + offsets * sides.error[::2, None], sides.edge[::2, None],
                            sides.edge[1::2, None])  # fmt: skip
    curves[1][rows] = 0.0
    walk, order = None, np.argsort(np.abs(offsets), kind="stable")
    outward = [order[offsets[order] < 0], order[offsets[order] > 0]]
    for left, right in zip(*outward, strict=True):
        stops = np.stack([curves[0][rows, left], curves[0][rows, right]], axis=1).ravel()
        way = sides.way(np.inf)._replace(edge=stops)
        walk = sides.begin(way) if walk is None else walk._replace(over=np.zeros(len(stops), bool))
        walk = follow(sides.refit, walk, way, way.goal)
        inner = walk.inner
        rise = np.where(inner.target == stops, inner.rise + inner.slope * (stops - inner.value), np.inf)
        tau = sides.side * np.sign(rise) * np.sqrt(np.abs(rise))
        curves[1][rows, left], curves[1][rows, right] = tau[::2], tau[1::2]
    return curves[0], curves[1]


def _trailing(fit: Fit, values: np.ndarray) -> PyTree:
    """Return (K, points) numbers as a tree like the params, the points last."""
    return jax.tree.map(lambda x: np.moveaxis(x, 0, -1), like(numbers_in(fit), values.T))
