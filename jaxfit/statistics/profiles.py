"""Profiles: the least sum of squares with one param held at a value, and where it has risen too far.

With S(v) the least sum with the param at v, tau(v) = sqrt((S(v) - S) / s**2) is how many standard errors the data say
v is away. The linear theory has it straight; the profile interval ends where it is Student's t, however it bends. All
params, both ends and all lanes take each probe together, as one sweep.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.checks import warn
from jaxfit.fits import Fit
from jaxfit.keywords import near_keywords
from jaxfit.landscapes import surface
from jaxfit.markers import Axis
from jaxfit.optimizers import levenberg_marquardt
from jaxfit.parameters import Bounded, bounds, is_marked
from jaxfit.problems import Problem, Status, whole
from jaxfit.statistics.covariances import Moments, factor, moments
from jaxfit.statistics.estimates import basis_of, held_at, objective_at
from jaxfit.statistics.lanes import PRECISION, free_places, like, over_lanes
from jaxfit.statistics.noise import SQUARES
from jaxfit.statistics.refits import NAME, Pinned, Refits
from jaxfit.sweeps import sweep

PyTree = Any
STEPS = 200
PROBES = 40
FAR = 100  # times as far as the linear theory has it, and an end counts as open
CLOSE = 1e-8  # of tau


class Ground(NamedTuple):
    """Where a lane's profiles start."""

    flat: Any  # (k,) free params
    low: Any  # (k,) bounds
    high: Any
    loss: Any  # ()
    slopes: Any  # (k, k) by how much each moves with the one held, [held, other]
    held: Any  # (k,) bool


def _ground(problem: Problem, params: PyTree) -> Ground:
    objective, flat, back = objective_at(problem, params)
    limits = bounds(problem.params) if is_marked(problem.params) else None
    low, high = (jnp.full(flat.shape, x) for x in (-jnp.inf, jnp.inf))
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
    root = basis_of(problem, params, SQUARES).root
    covariance = root @ root.T
    variance = jnp.diagonal(covariance)
    slopes = jnp.where(variance[:, None] > 0, covariance / jnp.where(variance > 0, variance, 1)[:, None], 0)
    return Ground(flat, low, high, objective(back(flat)), slopes, held_at(problem, flat))


class Probes:
    """All (lane, param) of a result whose profile exists, `times` over; each call of `tau` is one sweep."""

    def __init__(self, verb: str, result: Any, known: Moments, times: int):
        if known.kind != SQUARES:
            raise TypeError(
                f'{verb}: a profile is of sums of squares (rss, mse, chi_squared, least_squares); use method="wald"'
            )
        probe = Refits(verb, result, 1)
        self.single, lanes = probe.single, probe.group.size
        ground = over_lanes(result, _ground)
        errors, noise = known.errors, np.asarray(known.noise)
        if self.single:
            ground = jax.tree.map(lambda x: x[None], ground)
            errors, noise = errors[None], noise[None]
        else:
            axes, first = result.members.ndim, np.unique(result.members, return_index=True)[1]
            every = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:])[first], (ground, errors, noise))
            ground, errors, noise = every
        self.places = _places(probe, result)
        self.errors = errors[:, self.places]
        sound = np.isfinite(self.errors) & (self.errors > 0) & ~ground.held
        self.sound = sound & np.isfinite(noise)[:, None]
        k = sound.shape[1]
        self.lane, self.which = (np.repeat(x, times) for x in np.nonzero(self.sound))
        self.ground, self.noise, self.k, self.lanes = ground, noise[self.lane], k, lanes
        self.at = ground.flat[self.lane, self.which]
        self.error = self.errors[self.lane, self.which]
        self.low, self.high = (x[self.lane, self.which] for x in (ground.low, ground.high))
        every = np.arange(k)[None, :] + (np.arange(k)[None, :] >= np.arange(k)[:, None])
        others = every[:, : k - 1][self.which]  # (probes, k - 1) places of the other params
        rows = self.lane[:, None]
        self.others = ground.flat[rows, others]
        self.slopes = ground.slopes[rows, self.which[:, None], others]
        self.lowest, self.highest = ground.low[rows, others], ground.high[rows, others]
        refits = Refits(verb, result, 1)
        refits.lane = self.lane
        refits.along = {name: index[self.lane] for name, index in probe.along.items()}
        problem = refits.problem
        self.loss = Pinned(
            refits.collapsed(problem.loss),  # pyright: ignore[reportArgumentType]
            refits.marked(refits.group.params),
        )
        self.data = refits.collapsed(problem.data)
        self.weight = 1.0 if known.absolute else None
        self.freedom = (np.asarray(known.freedom)[None] if self.single else self._lanes(result, known.freedom))[
            self.lane
        ]

    def _lanes(self, result: Any, values: Any) -> np.ndarray:
        return np.ravel(values)[np.unique(result.members, return_index=True)[1]]

    def tau(self, values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(probes,) tau at values, infinite where there is no fit, and (probes, k - 1) the other params there.

        Below zero where the sum of squares is lower than where the fit ended.
        """
        given = Axis(NAME, self.which.astype(np.int64)), Axis(NAME, np.asarray(values))
        if self.k == 1:
            losses = np.asarray(surface(self.loss, np.zeros(1), (*given, *self.data), precision=PRECISION))
            found = others
        else:
            start = np.clip(others, self.lowest, self.highest)
            params: Any = Axis(NAME, start)
            if np.isfinite(self.lowest).any() or np.isfinite(self.highest).any():
                params = Bounded(params, Axis(NAME, self.lowest), Axis(NAME, self.highest))
            grid = sweep(
                self.loss, params, (*given, *self.data), optimizer=levenberg_marquardt(), steps=STEPS, progress=False
            )
            ended = np.asarray(grid.results.status)
            fine = (ended == Status.CONVERGED) | (ended == Status.OUT_OF_STEPS)
            losses = np.where(fine, np.asarray(grid.results.loss), np.inf)
            found = np.where(fine[:, None], np.asarray(grid.parts[0].lanes.params), others)
        least = self.ground.loss[self.lane]
        with np.errstate(invalid="ignore", divide="ignore"):
            rise = losses - least if self.weight else (losses / least - 1) * self.freedom
        rise = np.where(np.isfinite(rise), rise, np.inf)
        return np.sign(rise) * np.sqrt(np.abs(rise)), found

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(probes,) numbers as (lanes, K, times), NaN where there is no profile."""
        full = np.full((*self.sound.shape, len(values) // max(self.sound.sum(), 1)), np.nan)
        full[self.sound] = values.reshape(-1, full.shape[-1])
        out = np.full((len(full), len(self.places), full.shape[-1]), np.nan)
        out[:, self.places] = full
        return out


def _places(refits: Refits, result: Any) -> np.ndarray:
    params = jax.tree.map(lambda x: x[0], refits.group.params)
    marked = refits.marked(refits.group.params)
    return free_places(marked, params)


def profile_ends(verb: str, result: Any, known: Moments, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The (..., K) ends where tau is as large as the level has it; NaN where there is no profile."""
    probes = Probes(verb, result, known, 2)
    if not len(probes.lane):
        nothing = np.full(known.values.shape, np.nan)
        return nothing, nothing
    reach = factor(known, level)
    reach = (np.asarray(reach)[None] if probes.single else probes._lanes(result, reach))[probes.lane]
    found, below = _search(probes, reach)
    if below:
        warn(
            f"{verb}: with a param held elsewhere the loss is lower than where the fit ended, which is no minimum, or "
            f"not the least one; fit again from other starts"
        )
    low, high = np.moveaxis(probes.spread(found), -1, 0)
    if probes.single:
        return low[0], high[0]
    order = np.searchsorted(np.unique(result.members), result.members)
    return low[order], high[order]


def _search(probes: Probes, reach: np.ndarray) -> tuple[np.ndarray, bool]:
    """(probes,) where tau = reach, to the left and to the right in turn; and whether a lower minimum was met.

    Outwards by steps that grow, then by regula falsi in the form of Illinois between the last probe inside and the
    first one outside.
    """
    side = np.tile([-1.0, 1.0], len(reach) // 2)
    edge = np.where(side < 0, probes.low, probes.high)
    inner, outer = probes.at.copy(), np.full(len(reach), np.nan)
    under, over = np.zeros(len(reach)), np.full(len(reach), np.nan)  # tau there; `over` may be halved
    inner_others, outer_others = probes.others.copy(), probes.others.copy()
    now = probes.at + side * reach * probes.error
    found, last = np.full(len(reach), np.nan), np.zeros(len(reach))
    below = False
    for _ in range(PROBES):
        now = np.where(side < 0, np.maximum(now, edge), np.minimum(now, edge))
        open_ = np.isnan(found)
        here = np.where(open_, now, np.where(np.isfinite(found), found, inner))
        tau, others = probes.tau(here, _guess(probes, here, inner, inner_others, outer, outer_others))
        below |= bool(np.any(open_ & (tau < -1e-3)))
        inside = tau < reach
        done = open_ & (np.abs(tau - reach) <= CLOSE * reach)
        at_edge = open_ & inside & (here == edge)
        found = np.where(done | at_edge, here, found)
        move_in, move_out = open_ & inside, open_ & ~inside
        bracketed = ~np.isnan(outer)
        over = np.where(move_in & bracketed & (last == 1), (over + reach) / 2, over)
        under = np.where(move_out & bracketed & (last == -1), (under + reach) / 2, under)
        inner, under = np.where(move_in, here, inner), np.where(move_in, tau, under)
        outer, over = np.where(move_out, here, outer), np.where(move_out, tau, over)
        inner_others = np.where(move_in[:, None], others, inner_others)
        outer_others = np.where(move_out[:, None], others, outer_others)
        last = np.where(move_in, 1, np.where(move_out, -1, last))
        far = np.abs(inner - probes.at) >= FAR * reach * probes.error
        open_end = np.isnan(found) & np.isnan(outer) & far
        found = np.where(open_end, side * np.inf, found)
        narrow = np.isnan(found) & (np.abs(outer - inner) <= 4e-16 * np.abs(inner) + 1e-12 * probes.error)
        found = np.where(narrow, inner, found)
        if not np.isnan(found).any():
            break
        now = _next(probes.at, inner, outer, under, over, reach)
    return found, below


def _guess(probes: Probes, now: np.ndarray, inner: Any, inner_others: Any, outer: Any, outer_others: Any) -> np.ndarray:
    """The other params: between those of the bracket, else along the valley of the linear theory."""
    share = (now - inner) / np.where(outer == inner, 1, outer - inner)
    along = inner_others + probes.slopes * (now - inner)[:, None]
    between = inner_others + (outer_others - inner_others) * share[:, None]
    return np.where(np.isnan(outer)[:, None], along, between)


def _next(at: Any, inner: Any, outer: Any, under: Any, over: Any, reach: Any) -> np.ndarray:
    """The next probe: out, by the slope so far but at least twice as far; or between, by halves where it has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        growth = np.clip(np.where(under > 0, 1.05 * reach / under, 8), 2, 8)
        out = at + (inner - at) * growth
        share = (reach - under) / (over - under)
        share = np.where(np.isfinite(over) & (share > 0) & (share < 1), share, 0.5)
    return np.where(np.isnan(outer), out, inner + (outer - inner) * share)


class Profile(NamedTuple):
    """What the data say of one param, whatever the others are."""

    values: Any  # (points,) of it
    tau: Any  # (points,) how many standard errors away from the fit; negative to the left


@near_keywords
def profile(fit: Any, points: int = 21, reach: float = 3.0, *, absolute_sigma: bool | None = None) -> Any:
    """The signed root of the rise of the sum of squares, with each param held in turn and the others fitted anew.

    tau(v) = sign(v - value) * sqrt((S(v) - S) / s**2), which is (v - value) / error where the linear theory is right.

    Args:
      fit: A fit by a loss of squares.
      points: Values of each param, the fitted one among them if odd.
      reach: How far they reach to both sides, in standard errors; within its bounds.
      absolute_sigma: As for `covariance`.

    Returns:
      A tree like the params with a `Profile(values, tau)` at each leaf, whose points come last; NaN for what has none,
      infinite where there is no fit.

    Raises:
      TypeError: If it is no fit, or its loss is not of squares.
      ValueError: For points or a reach that are none; else as `covariance`.
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"profile takes one fit, but got a {type(fit).__name__}; take a lane: jf.lane(grid, ...)")
    points = whole("profile: points", points, least=2)
    if isinstance(reach, bool) or not isinstance(reach, (int, float, np.number)) or not 0 < reach < np.inf:
        raise ValueError(f"profile: reach is {reach!r}, but it must be a positive number of standard errors, such as 3")
    known = moments("profile", fit, absolute_sigma)
    probes = Probes("profile", fit, known, points)
    offsets = np.tile(np.linspace(-reach, reach, points), len(probes.lane) // points)
    values = np.clip(probes.at + offsets * probes.error, probes.low, probes.high)
    tau, _ = probes.tau(values, probes.others + probes.slopes * (values - probes.at)[:, None])
    tau = np.where(values == probes.at, 0.0, np.sign(offsets) * tau)
    return jax.tree.map(Profile, *(_trailing(fit, probes.spread(x)[0]) for x in (values, tau)))


def _trailing(fit: Fit, values: np.ndarray) -> PyTree:
    """(K, points) numbers as a tree like the params, the points last."""
    return jax.tree.map(lambda x: np.moveaxis(x, 0, -1), like(fit.params, values.T))
