"""Diagnosis of a finished fit: influential points, lack of fit to replicates, residuals that form a pattern.

What is worth a line in a report, by thresholds that are named here:
- Cook's distance beyond the median of F(k, n - k): without the point the params would leave their joint 50 % region.
  Source: Cook (1977), doi:10.1080/00401706.1977.10489493.
- A leverage above 0.99: the point alone determines a param, and no residual shows that it is wrong. Source: Belsley,
  Kuh and Welsch (1980), Regression Diagnostics, doi:10.1002/0471725153, section 2.1.
- An outlier of a robust fit: a residual of 3.5 scales and more. Source: Iglewicz and Hoaglin (1993), How to Detect and
  Handle Outliers, as in the NIST/SEMATECH e-Handbook of Statistical Methods, section 1.3.5.17.
- A test whose p-value is below 0.01: three of them raise a false alarm in at most 3 % of good fits.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfit.losses import Joint
from jaxfit.losses.base import ROBUST, SQUARES, Kind, noise_model_of
from jaxfit.losses.regression import SCALE
from jaxfit.optimizers.arrays import namespace
from jaxfit.problems import Problem, precision_context
from jaxfit.problems.messages import near_keywords
from jaxfit.statistics.covariances import Moments, linear_in_numpy, moments, of_data
from jaxfit.statistics.data_sets import SetsBasis, is_of_sets
from jaxfit.statistics.distributions import beta_below, f_above, f_quantile
from jaxfit.statistics.estimates import Placed, basis_of, jacobian, objective_at, placed
from jaxfit.statistics.goodness import FTest, standardized
from jaxfit.typing import Array, ArrayLike, PyTree, Scalar
from jaxfit.verbs.evaluations import PRECISION, labelled, one_lane, over_lanes
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, problem_of

DOUBT, HIGH, FAR_OUT = 0.01, 0.99, 3.5  # a p-value, a leverage, and scales of a residual
NAMED = 3  # points in a note


class Influence(NamedTuple):
    """How much single points influence a fit, in the shape of the data."""

    leverage: ArrayLike  # h: by how much a datum pulls its own prediction
    studentized: ArrayLike  # the residual over its standard deviation, with the noise that the other points show
    cooks_distance: ArrayLike  # how far the params would move without the point, squared, in their errors, over k
    dffits: ArrayLike  # how far its own prediction would move, in standard errors of the prediction


class Runs(NamedTuple):
    """The runs test of residuals: a run is a stretch of one sign."""

    runs: Scalar
    expected: Scalar  # of signs in random order
    p_value: Scalar  # of as few


class DurbinWatson(NamedTuple):
    """The Durbin-Watson test of residuals."""

    statistic: Scalar  # sum((r[i + 1] - r[i])**2) / sum(r**2): near 2 for independent noise, near 0 for a trend
    expected: Scalar  # for independent noise around a model with as many params
    p_value: Scalar  # of one as small


class Diagnostics(NamedTuple):
    """Tests of the residuals of a fit against its model; NaN where a test does not apply."""

    lack_of_fit: FTest
    runs: Runs
    durbin_watson: DurbinWatson


@near_keywords
def influence(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> Influence:
    """Return how much each point influences a fit: leverage, studentized residual, Cook's distance and DFFITS.

    With the leverage h, the residual r, the noise s and k params, Cook's distance is r**2 h / (k s**2 (1 - h)**2), the
    studentized residual t = r / (s' sqrt(1 - h)) with the noise s' without the point, and DFFITS t sqrt(h / (1 - h)).
    For a model linear in its params they are those of refits without the point; otherwise to first order.

    Args:
      result: A fit by a loss of squares or of counts, or the grid of a sweep.
      absolute_sigma: As for `covariance`; if True, s' is s, the noise as given.

    Returns:
      (leverage, studentized, cooks_distance, dffits) like y, NaN where masked or a leverage is one, infinite
      where all others lie on the curve, and NaN where rounding alone is left; for a grid `xarray.DataArray`s.

    Raises:
      TypeError, ValueError, NotConverged: As `residuals`.

    Source: Cook (1977), doi:10.1080/00401706.1977.10489493; Belsley, Kuh and Welsch (1980), doi:10.1002/0471725153.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> found = jf.influence(run)
      >>> int(found.cooks_distance.argmax()), round(float(found.cooks_distance.max()), 2)
      (7, 0.42)
    """
    measures = _influence(result, _moments("influence", result, absolute_sigma))
    return Influence(*(_labelled(result, np.asarray(x)) for x in measures))


def _moments(verb: str, result: Fit | Grid, absolute_sigma: bool | None) -> Moments:
    known = moments(verb, result, absolute_sigma)
    if not _has_residuals(known, one_lane(result)[0]):
        raise TypeError(
            f"{verb}: only losses of squares and of counts have residuals of a known standard deviation (rss, mse, "
            f"chi_squared, least_squares, poisson, binomial)"
        )
    return known


def _has_residuals(known: Moments, problem: Problem) -> bool:
    return known.kind == SQUARES or noise_model_of(problem.loss).deviance


def _labelled(result: Fit | Grid, values: np.ndarray) -> ArrayLike:
    if isinstance(result, Fit):
        return values if values.ndim else values.item()
    axes = len(result.results.status.dims)
    return labelled(result, values, {f"dim_{i}": None for i in range(values.ndim - axes)})


def _influence(result: Fit | Grid, known: Moments) -> Influence:
    _, standard, leverage = standardized(result, known)
    beside = lambda x: np.reshape(x, np.shape(x) + (1,) * (standard.ndim - np.ndim(x)))  # noqa: E731
    rank, freedom = beside(np.asarray(known.estimate.rank, float)), beside(known.estimate.count - known.estimate.rank)
    standard = np.where(beside(known.exact), np.nan, standard)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = leverage / (1 - leverage)
        rest = (freedom - standard**2) / (freedom - 1)  # (s' / s)**2
        outside = standard if known.absolute else np.where(freedom > 1, standard / np.sqrt(np.maximum(rest, 0)), np.nan)
        return Influence(leverage, outside, standard**2 * odds / rank, outside * np.sqrt(odds))


@near_keywords
def diagnostics(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> Diagnostics:
    """Test whether the residuals of a fit look like noise around the model.

    - Lack of fit: where x has replicates (rows that are equal to the bit), F compares how far the curve misses their
      means with how they scatter around them, whatever the size of sigma.
    - Runs: the number of stretches of residuals of one sign. The p-value is exact for signs in random order.
    - Durbin-Watson: how far residuals resemble the one before. The p-value is that of a beta distribution with the mean
      and variance which the statistic has for independent normal noise and this Jacobian.

    Both are one-sided: few runs and a small statistic speak of a trend that the model misses, or of correlated noise.
    The order is that of x where it is one number a point, otherwise that of the data; several y a point have none.

    Args:
      result: A fit by a loss of squares or of counts, or the grid of a sweep.
      absolute_sigma: As for `covariance`.

    Returns:
      (lack_of_fit, runs, durbin_watson), whose numbers for a grid are `xarray.DataArray`s. NaN without replicates,
      without degrees of freedom, or where residuals are rounding alone, or next to nothing of the sigma given.

    Raises:
      TypeError, ValueError, NotConverged: As `residuals`.

    Source: Draper and Smith (1998), Applied Regression Analysis, doi:10.1002/9781118625590, chapter 2; Wald and
    Wolfowitz (1940), doi:10.1214/aoms/1177731909; Durbin and Watson (1951), doi:10.1093/biomet/38.1-2.159.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> found = jf.diagnostics(run)
      >>> int(found.runs.runs), round(float(found.durbin_watson.statistic), 2)
      (7, 2.02)
    """
    tests = _diagnostics(result, _moments("diagnostics", result, absolute_sigma))
    label = partial(_labelled, result)
    return Diagnostics(FTest(*map(label, tests[0])), Runs(*map(label, tests[1])), DurbinWatson(*map(label, tests[2])))


class _Counts(NamedTuple):
    """What the tests read from the residuals of one lane."""

    size: Array | np.ndarray  # () sum of their squares
    runs: Array | np.ndarray  # ()
    above: Array | np.ndarray  # () residuals above zero
    statistic: Array | np.ndarray  # () of Durbin and Watson
    trace: Array | np.ndarray  # () of M A, with the projection M on residuals and the matrix A of the statistic
    square: Array | np.ndarray  # () the trace of M A M A
    groups: Array | np.ndarray  # () different x
    pure: Array | np.ndarray  # () sum of squares around the means of replicates


def _diagnostics(result: Fit | Grid, known: Moments) -> Diagnostics:
    alone = _in_numpy(result, known.kind) if isinstance(result, Fit) else None
    lane = over_lanes(result, _of_lane, (known.kind,)) if alone is None else alone
    counts = _Counts(*(np.asarray(x, float) for x in lane))
    n, k = (np.asarray(x, float) for x in (known.estimate.count, known.estimate.rank))
    with np.errstate(divide="ignore", invalid="ignore"):
        more, rest = counts.groups - k, n - counts.groups
        noisy = ~known.exact & ~(known.absolute & (np.asarray(known.estimate.scatter) <= known.eps))
        tells = (more > 0) & (rest > 0) & (counts.pure > 0) & noisy
        f = np.where(tells, (counts.size - counts.pure) / more / (counts.pure / rest), np.nan)
        lack = FTest(f, f_above(more, rest, f), more, rest)
        below = n - counts.above
        runs = Runs(
            counts.runs,
            1 + 2 * counts.above * below / n,
            np.where(noisy, _as_few(np.asarray(counts.runs), np.asarray(counts.above), np.asarray(below)), np.nan),
        )
        freedom = n - k
        mean = np.where(freedom > 0, counts.trace / freedom, np.nan)
        variance = 2 * (counts.square - counts.trace * mean) / (freedom * (freedom + 2))
        both = mean * (4 - mean) / variance - 1
        p = beta_below(both * mean / 4, both * (1 - mean / 4), counts.statistic / 4)
        return Diagnostics(lack, runs, DurbinWatson(counts.statistic, mean, np.where((both > 0) & noisy, p, np.nan)))


def _as_few(runs: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the probability of as few runs in a random order of signs; one for a single sign, NaN for none."""
    rows, back = np.unique(np.stack([runs, above, below], -1).reshape(-1, 3), axis=0, return_inverse=True)
    shares = np.array([np.nan if np.isnan(row).any() else _share(*row.astype(int)) for row in rows])
    return shares[back].reshape(np.shape(runs))


def _share(runs: int, above: int, below: int) -> float:
    """Return the share of the orders of so many signs that have as few runs."""
    if not (above and below):
        return 1.0
    factorial = np.cumsum(np.log(np.maximum(np.arange(above + below + 1), 1)))  # its logarithm
    log = lambda n, k: factorial[n] - factorial[k] - factorial[n - k]  # noqa: E731
    counts = np.arange(2, runs + 1)
    half, total = counts // 2, log(above + below, above)
    share = 0.0
    for one, other in ((half - 1, half + counts % 2 - 1), (half + counts % 2 - 1, half - 1)):  # stretches less one
        fits = (one < above) & (other < below)
        ways = log(above - 1, np.where(fits, one, 0)) + log(below - 1, np.where(fits, other, 0)) - total
        share += float(np.where(fits, np.exp(ways), 0).sum())
    return min(share, 1.0)


def _in_numpy(fit: Fit, kind: Kind | None) -> _Counts | None:
    if kind != SQUARES and not is_of_sets(problem_of(fit).loss):
        return None
    with precision_context(PRECISION), np.errstate(all="ignore"):
        if (linear := linear_in_numpy(fit)) is None:
            return None
        if isinstance(linear.basis, SetsBasis):
            return _Counts(
                np.asarray(linear.found.size), *(np.asarray(np.nan),) * 7
            )  # which have no order, nor replicates
        if kind != SQUARES:
            return None
        rows = linear.found.columns.T @ linear.basis.root
        return _counts(linear.found.residuals, rows, of_data(linear.problem)[2], _in_order(linear.problem, fit.params))


def _of_lane(problem: Problem, params: PyTree, kind: Kind) -> _Counts:
    objective, flat, back = objective_at(problem, params)
    residuals, columns = jacobian(objective, flat, back)
    place = placed(problem) if noise_model_of(problem.loss).predicts else Placed()
    rows = columns.T @ basis_of(problem, params, kind).root
    return _counts(residuals, rows, place, _in_order(problem, params))


def _in_order(problem: Problem, params: PyTree) -> bool:
    """Return whether residuals stand in a row: one for each point."""

    def blocks():
        objective, flat, back = objective_at(problem, params)
        return [block.residuals for block in objective.blocks(back(flat))]

    return all(len(residuals.shape) == 1 for residuals in jax.eval_shape(blocks))


def _counts(residuals: Array, rows: Array, place: Placed, in_order: bool) -> _Counts:
    """Return the numbers of the tests.

    Args:
      residuals: (n,) in standard deviations, zero where they do not count.
      rows: (n, k) an orthonormal basis of what the params can reach.
      place: Of the residuals.
      in_order: Whether there are neighbors at all.
    """
    xp = namespace(residuals)
    counts = xp.ones(residuals.shape, bool) if place.where is None else place.where
    keys = () if place.x is None else tuple(place.x.T)
    hidden = (~counts).astype(int)  # sorted behind the others
    order = xp.lexsort((*keys, hidden) if len(keys) == 1 else (hidden,))
    r, q, counted = residuals[order], rows[order], counts[order]
    pairs, above = counted[1:] & counted[:-1], r > 0
    step = xp.where(pairs, r[1:] - r[:-1], 0)
    moved = xp.where(pairs[:, None], q[1:] - q[:-1], 0)
    edge = xp.zeros((1, q.shape[1]))
    back, inner = xp.concatenate([edge, moved]) - xp.concatenate([moved, edge]), moved.T @ moved
    n, size = counts.sum(), (r**2).sum()
    nothing = size * np.nan
    if not in_order:
        return _Counts(size, *(nothing,) * 7)
    groups, pure = (nothing, nothing) if place.steepness is None else _pure(residuals, place, counts, hidden)
    return _Counts(
        size, 1 + (pairs & (above[1:] != above[:-1])).sum(), (counted & above).sum(), (step**2).sum() / size,
        2 * (n - 1) - xp.trace(inner), 6 * n - 8 - 2 * (back**2).sum() + (inner**2).sum(), groups, pure,
    )  # fmt: skip


def _pure(residuals: Array, place: Any, counts: Array, hidden: Array) -> tuple[Array, Array]:
    """Return how many x differ, and the sum of squares around the means of replicates."""
    xp = namespace(residuals)
    rows = xp.concatenate([place.x, hidden[:, None]], axis=1)
    order = xp.lexsort(tuple(rows.T))
    rows, r, s, counted = rows[order], residuals[order], place.steepness[order], counts[order]
    number = xp.concatenate([xp.zeros(1, int), xp.cumsum((rows[1:] != rows[:-1]).any(axis=1))])
    most = {"minlength" if xp is np else "length": r.size}
    weight, slope = (xp.bincount(number, xp.where(counted, x, 0), **most) for x in (s * s, s * r))
    mean = slope / xp.where(weight > 0, weight, 1)
    return (weight > 0).sum(), (xp.where(counted, r - s * mean[number], 0) ** 2).sum()


def notes_on_diagnosis(fit: Fit, known: Moments) -> list[str]:
    """Return sentences for a report, on what lies beyond the thresholds of this module."""
    if known.kind == ROBUST:
        return _notes_on_outliers(fit, known)
    if (
        not _has_residuals(known, problem_of(fit))
        or known.exact
        or float(known.estimate.count - known.estimate.rank) <= 0
    ):
        return []
    return [*_notes_on_points(fit, known), *_notes_on_tests(_diagnostics(fit, known))]


def _notes_on_points(fit: Fit, known: Moments) -> list[str]:
    measures, k = _influence(fit, known), float(known.estimate.rank)
    most = float(f_quantile(k, float(known.estimate.count) - k, 0.5))
    notes = []
    alone = np.flatnonzero(np.ravel(measures.leverage) > HIGH)
    if len(alone):
        has, it = ("has a leverage", "it") if len(alone) == 1 else ("have leverages", "each")
        notes.append(f"{_points(fit, alone)} {has} near 1: a param is known by {it} alone")
    distance = np.nan_to_num(np.ravel(measures.cooks_distance))
    moving = np.flatnonzero(distance > most)
    moving = moving[np.argsort(-distance[moving])]
    if len(moving):
        distances = ", ".join(f"{distance[i]:.3g}" for i in moving[:NAMED])
        notes.append(
            f"without {_points(fit, moving)}{' each' * (len(moving) > 1)} the params would leave their joint 50 % "
            f"region: Cook's distance {distances}"
        )
    return notes


def outliers(fit: Fit, known: Moments) -> np.ndarray:
    """Return bool like the residuals of a robust fit: which are outliers."""
    raw, standard, _ = standardized(fit, known)
    with np.errstate(invalid="ignore"):
        return np.abs(standard) > FAR_OUT


def _notes_on_outliers(fit: Fit, known: Moments) -> list[str]:
    raw, standard, _ = standardized(fit, known)
    far = np.flatnonzero(outliers(fit, known))
    if not len(far):
        return []
    far = far[np.argsort(-np.abs(np.ravel(standard)[far]))]
    scale = SCALE * np.nanmedian(np.abs(raw))
    many = "1 outlier lies" if len(far) == 1 else f"{len(far):,} outliers lie"
    return [f"{many} beyond {FAR_OUT} times the scale of the residuals, {scale:.3g}: {_points(fit, far)}"]


def _points(fit: Fit, places: np.ndarray) -> str:
    """Return the names of points: y[3] (x = 0.2)."""
    problem = problem_of(fit)
    named = [_point(problem.loss, problem.data, int(i)) for i in places[:NAMED]]
    more = len(places) - len(named)
    return ", ".join(named) + f" and {more} more" * (more > 0)


def _point(loss: Any, data: tuple, i: int) -> str:
    """Return the name of the point of one residual; of data sets it tells the set."""
    if isinstance(loss, Joint):
        return _point_of_sets(loss, data, i)
    x = np.asarray(data[0]) if noise_model_of(loss).predicts else np.zeros((0, 0))
    known = x.ndim == 1 and np.ndim(data[loss.data_names.index("y")]) == 1
    return f"y[{i}] (x = {x[i]:g})" if known else f"residual {i}"


def _point_of_sets(loss: Joint, data: tuple, i: int) -> str:
    before = i
    for k, (name, given) in enumerate(zip(loss.names, data, strict=True)):
        member = loss.member(k)
        if not noise_model_of(member).predicts:
            break
        y = np.asarray(given[member.data_names.index("y")])
        if before < y.size and loss.many[k]:
            at, place = divmod(before, y[0].size)
            return f"{_point(member, tuple(np.asarray(whole)[at] for whole in given), place)} of {name}[{at}]"
        if before < y.size:
            return f"{_point(member, given, before)} of {name}"
        before -= y.size
    return f"residual {i}"


def _notes_on_tests(tests: Diagnostics) -> list[str]:
    lack, runs, durbin, notes, trends = *tests, [], []
    if lack.p_value < DOUBT:
        notes.append(
            f"the curve misses the means of replicates: lack of fit F({lack.numerator:g}, {lack.denominator:g}) = "
            f"{lack.f:.3g}, p = {lack.p_value:.2g}"
        )
    if durbin.p_value < DOUBT:
        trends.append(f"Durbin-Watson {durbin.statistic:.2f} (p = {durbin.p_value:.2g})")
    if runs.p_value < DOUBT:
        trends.append(f"{runs.runs:g} runs of one sign (p = {runs.p_value:.2g})")
    return [*notes, f"residuals follow a trend: {', '.join(trends)}"] if trends else notes
