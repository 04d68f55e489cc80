"""Reports of a fit: every param with its error, interval, start and role, the quality of the fit, and notes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxfit.losses import Joint, Loss, model_of
from jaxfit.losses.base import noise_model_of
from jaxfit.optimizers.bordered import layout_of
from jaxfit.problems import Status, convert_all, name_of, precision_context
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import Bounded, Fixed, Tied, is_mark, values_of, without_kept
from jaxfit.problems.messages import did_you_mean, near_keywords
from jaxfit.problems.posing import as_params
from jaxfit.statistics.confidence import check_asked, interval_ends
from jaxfit.statistics.confidence import derived as propagated
from jaxfit.statistics.covariances import (
    FAR,
    Moments,
    correlation_matrix,
    distance,
    factor,
    moments,
    undetermined,
)
from jaxfit.statistics.diagnosis import notes_on_diagnosis
from jaxfit.statistics.goodness import Goodness, goodness
from jaxfit.statistics.tables import CLOSE, Report, Row, combinations, with_error
from jaxfit.typing import KeyLike, PyTree
from jaxfit.verbs import summaries
from jaxfit.verbs.evaluations import PRECISION, check_result, labels_of
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.multistarts import met
from jaxfit.verbs.results import Fit, numbers_in, problem_of
from jaxfit.verbs.summaries import pace, runaways, separated, silent
from jaxfit.verbs.units import rows_with_units, takes_units


@near_keywords
@takes_units(rows_with_units)
def report(
    fit: Fit | Grid,
    units: PyTree = None,
    *,
    level: float = 0.95,
    method: str = "wald",
    key: KeyLike | None = None,
    samples: int = 10_000,
    absolute_sigma: bool | None = None,
    derived: Mapping[str, Callable] | None = None,
) -> Report:
    """Return a readable report: every param with its error, interval, start and role, and the quality of the fit.

    Below the params stand the numbers that the model derives of them (of jf.models: areas, widths, half-lives, ...) and
    your own, with the errors of `propagate`.

    Args:
      fit: A fit, a lane of a grid, or the grid of a sweep over starts: then the report is of its best run, and says how
        many of the starts found the same optimum.
      units: Names of units by param, {"a": "mm"}: for all of them or some, and for derived numbers; for an array one
        for all its numbers.
      level, method, key, samples: For the intervals; as for `intervals`.
      absolute_sigma: As for `covariance`.
      derived: Functions of the params by the name of what they return: {"ratio": lambda p: p["a"] / p["b"]}. Their
        intervals are those by the standard error, and only given by the method "wald".

    Returns:
      A `Report`: `print` it, or use `.to_markdown()`, `.to_latex()`, `.to_json()`, `.to_dict()`, `.to_dataframe()`,
      `.rows`.

    Raises:
      TypeError, ValueError, NotConverged: As `intervals`; for units of params that do not exist, or a grid whose lanes
        have different data.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> found = jf.report(run, units={"b": "°C"})
      >>> [row.name for row in found.rows]
      ['b', 'w']
    """
    level = check_asked("report", method, level, key, samples)
    others = None
    if isinstance(fit, Grid):
        others = met("report", fit)
        fit = others.fit
    check_result("report", fit)
    params = numbers_in(fit)
    more, units = _derived_rows(fit, derived, units, level, method, absolute_sigma)
    named = _units(params, units, [row.name for row in more])
    known = moments("report", fit, absolute_sigma, warns=False)
    low, high, said = interval_ends("report", fit, method, level, key, samples, absolute_sigma, known)
    labels = labels_of(params)
    roles, start = _roles(fit, known), _start(fit)
    correlations = correlation_matrix(known.covariance)
    errors, (low, high) = known.errors.copy(), (np.array(side, float) for side in (low, high))
    for one in runaways(fit):  # where an error has no meaning
        at = labels.index(one.name if one.name in labels else one.name.removeprefix("params"))
        errors[at] = low[at] = high[at] = correlations[at] = correlations[:, at] = np.nan
        roles[at] = "ran away"
    if apart := bool(separated(fit)):
        free = [at for at, role in enumerate(roles) if not role.startswith(("fixed", "tied"))]
        errors[free] = low[free] = high[free] = correlations[free] = correlations[:, free] = np.nan
        roles = ["ran away" if at in free else role for at, role in enumerate(roles)]
    for at in (idle := _without_influence(fit, known, labels)):
        errors[at] = low[at] = high[at] = correlations[at] = correlations[:, at] = np.nan
        roles[at] = "not determined"
    rows = tuple(
        Row(*row)  # pyright: ignore[reportArgumentType]
        for row in zip(labels, *(x.tolist() for x in (known.values, errors, low, high, start)), roles, named,
                       strict=True)
    )  # fmt: skip
    if (order := _by_set(fit)) is not None:
        rows, correlations = tuple(rows[i] for i in order), correlations[np.ix_(order, order)]
    facts, notes = _facts(fit, known), [*_notes(fit, known), *said]
    notes += _notes_on_ends(rows, level) if method == "profile" else _notes_on_bounds(fit, rows)
    notes += _notes_on_combinations(rows, correlations)
    if not (apart or runaways(fit) or idle):
        notes += notes_on_diagnosis(fit, known)
    if others:
        facts[others.lanes] = others.text
        if others.alone:
            notes.append("no other run found this optimum, so that there may be lower ones; draw more starts")
    quality = Goodness(*(x[()] for x in goodness(fit, known)))
    return Report(rows, more, correlations, quality, level, method, facts, tuple(notes))


def _derived_rows(
    fit: Fit,
    users_functions: Mapping[str, Callable] | None,
    units: PyTree,
    level: float,
    method: str,
    absolute_sigma: bool | None,
) -> tuple[tuple[Row, ...], PyTree]:
    """Return the rows of the numbers that model and user derive of the params, and the units of the params alone."""
    users_functions = {} if users_functions is None else users_functions
    if not isinstance(users_functions, Mapping) or not all(map(callable, users_functions.values())):
        raise TypeError(
            f"report: derived is {users_functions!r}, but it must hold functions of the params by name: "
            f'{{"ratio": lambda p: p["a"] / p["b"]}}'
        )
    model = model_of(problem_of(fit).loss)
    model = model if hasattr(model, "derived") else None
    if not users_functions and (model is None or runaways(fit) or not _shapes(model, fit.params)):
        return (), units
    shape, known = propagated(
        "report", fit, _deriving(model, tuple(users_functions.items())), absolute_sigma, warns=False
    )
    paths = jax.tree_util.tree_leaves_with_path(shape)
    names = [(jax.tree_util.keystr(path, simple=True, separator="."), math.prod(leaf.shape)) for path, leaf in paths]
    taken = [name for name, _ in names if name in labels_of(numbers_in(fit))]
    if taken:
        raise ValueError(f"report: derived has {taken[0]!r}, which is a param; give it another name")
    given = units if isinstance(units, Mapping) else {}
    said = [given.get(name, "") for name, size in names for _ in range(size)]
    if isinstance(units, Mapping):
        units = {name: unit for name, unit in units.items() if name not in dict(names)}
    half = factor(known, level) * known.errors if method == "wald" else np.full(known.errors.shape, np.nan)
    columns = (known.values, known.errors, known.values - half, known.values + half)
    table = zip(labels_of(shape), *(x.tolist() for x in columns), said, strict=True)
    return tuple(
        Row(name, value, error, low, high, math.nan, "derived", unit) for name, value, error, low, high, unit in table
    ), units


@functools.lru_cache(maxsize=64)
def _deriving(model: Callable | None, users_functions: tuple[tuple[str, Callable], ...]) -> Callable:
    def numbers(params):
        return (model.derived(params) if model else {}) | {name: function(params) for name, function in users_functions}

    return numbers


def _shapes(model: Callable, params: PyTree) -> PyTree:
    return jax.eval_shape(_deriving(model, ()), jax.tree.map(np.asarray, params))


def _notes_on_combinations(rows: Sequence[Row], correlations: np.ndarray) -> list[str]:
    """Return notes on params that are strongly correlated, with what the data determine of them."""
    errors, notes = {row.name: row.error for row in rows}, []
    for factors, value, error in combinations(rows, correlations):
        names = list(factors)
        if len(names) > NAMES:
            notes.append(f"{_listed(names)} are correlated by {CLOSE:g} and more: see .combinations()")
            continue
        total = names[0] + "".join(f" {'+-'[factors[n] < 0]} {abs(factors[n]):g} {n}" for n in names[1:])
        better = float(f"{errors[names[0]] / error:.2g}")
        notes.append(
            f"{total} = {with_error(value, error)} is determined {better:,g} times as well as {names[0]}: "
            f"{', '.join(names)} are correlated by {CLOSE:g} and more"
        )
    return notes


def _notes_on_ends(rows: Sequence[Row], level: float) -> list[str]:
    """Return notes on why ends of profiles are missing or infinite."""
    notes = []
    for row in rows:
        sides = [side for side, end in (("below", row.low), ("above", row.high)) if math.isinf(end)]
        if sides:
            notes.append(
                f"{row.name} is open {' and '.join(sides)}: however far it is held there, the data fit too well for a "
                f"level of {100 * level:g} %"
            )
        if math.isfinite(row.error) and (math.isnan(row.low) or math.isnan(row.high)):
            notes.append(f"no end was found for the interval of {row.name}: its profile could not be followed")
    unknown = [row.name for row in rows if math.isnan(row.error)]
    if unknown:
        notes.append(f"no interval is given for {', '.join(unknown)}: see role")
    return notes


def _notes_on_bounds(fit: Fit, rows: Sequence[Row]) -> list[str]:
    """Return a note on the params whose interval reaches where their bounds let no value be."""
    marked = resolved(problem_of(fit).params, PRECISION)
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    limits: list[tuple[float, float]] = []
    for mark, value in zip(leaves, structure.flatten_up_to(numbers_in(fit)), strict=True):
        low, high = (mark.low, mark.high) if isinstance(mark, Bounded) else (None, None)
        sizes = [np.shape(x) for x in jax.tree.leaves(value)]
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        for shape in sizes:
            limits += zip(np.broadcast_to(low, shape).ravel(), np.broadcast_to(high, shape).ravel(), strict=True)
    names = [row.name for row, (low, high) in zip(rows, limits, strict=True) if row.low < low or row.high > high]
    if not names:
        return []
    return [
        f"the {'interval' if len(names) == 1 else 'intervals'} of {', '.join(names)} "
        f"{'reaches' if len(names) == 1 else 'reach'} beyond a bound, where no value can be: "
        'jf.report(fit, method="profile") has ends within it'
    ]


def _roles(fit: Fit, known: Moments) -> list[str]:
    marked = resolved(problem_of(fit).params, PRECISION)
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    held = iter(np.asarray(known.estimate.held))
    unknown = iter(np.isnan(known.estimate.variance))
    roles: list[str] = []
    for mark, value in zip(leaves, structure.flatten_up_to(numbers_in(fit)), strict=True):
        for _ in range(sum(np.size(x) for x in jax.tree.leaves(value))):
            missing = next(unknown)
            if isinstance(mark, (Fixed, Tied)):
                role = "fixed" if isinstance(mark, Fixed) else "tied"
                roles.append(role + ", not determined" * bool(role == "tied" and missing))
                continue
            on_bound = next(held)
            free = "bounded" if isinstance(mark, Bounded) else "free"
            roles.append("at bound" if on_bound else "not determined" if missing else free)
    return roles


UNKNOWN = 1e6  # times its value and its start, which has its unit: a param with so large an error is not determined


def _without_influence(fit: Fit, known: Moments, labels: Sequence[str]) -> list[int]:
    """Return the places among the labels of params that change nothing where the run stands, or next to nothing."""
    places = [labels.index(name if name in labels else name.removeprefix("params")) for name in silent(fit)]
    if fit.status == Status.OUT_OF_STEPS and pace(fit) == "stands" and not runaways(fit):
        start = np.abs(_start(fit))
        sizes = np.where(start > 0, np.maximum(np.abs(known.values), start), np.nan)
        places += np.flatnonzero(known.errors > UNKNOWN * sizes).tolist()
    return sorted(set(places))


def _by_set(fit: Fit) -> np.ndarray | None:
    """Return the places of the params in common, and after them those of each data set; None if there is but one."""
    layout = layout_of(problem_of(fit).loss, numbers_in(fit))
    return None if layout is None else np.concatenate([layout.common, *(own.T.ravel() for own in layout.own)])


def _sets(loss: Joint, params: PyTree, data: tuple) -> str:
    """Return in words what data sets there are, and what they have in common."""
    names = [
        f"{len(jax.tree.leaves(given)[0]):,} of {name}" if many else name
        for name, many, given in zip(loss.names, loss.many, data, strict=True)
    ]
    common = labels_of(loss.apart(params)[0])
    return f"{_listed(names)}; common to all: {_listed(common) or 'nothing'}"


NAMES = 12  # of data sets, or of params in a note


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + f" and {more:,} more" * (more > 0)


def _start(fit: Fit) -> np.ndarray:
    """Return (K,) numbers that the run began from."""
    marked = resolved(problem_of(fit).params, PRECISION)
    with precision_context(PRECISION):
        began = without_kept(values_of(convert_all(as_params(marked, inside=True), PRECISION)))
        return np.concatenate([np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(began)])


def _units(params: PyTree, units: PyTree, derived: Sequence[str]) -> list[str]:
    """Return a unit, or "", for each number of the params; `derived` are other names that a unit could be meant for."""
    paths = [
        (jax.tree_util.keystr(path, simple=True, separator=".") or "params", np.size(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    if units is None:
        given = {}
    elif isinstance(units, str):
        given = dict.fromkeys([name for name, _ in paths], units)
    else:
        leaves = jax.tree_util.tree_leaves_with_path(units)
        given = {jax.tree_util.keystr(path, simple=True, separator=".") or "params": unit for path, unit in leaves}
    for name, unit in given.items():
        if not isinstance(unit, str):
            raise TypeError(f'report: the unit of {name} is {unit!r}, but it must be a text such as "mm"')
        if name not in (names := [n for n, _ in paths]):
            raise ValueError(f"report: units has {name!r}, which is no param{did_you_mean(name, [*names, *derived])}")
    return [given.get(name, "") for name, size in paths for _ in range(size)]


def _facts(fit: Fit, known: Moments) -> dict[str, str]:
    problem = problem_of(fit)
    status = Status(fit.status).name.lower().replace("_", " ")
    n, k, moving = int(known.estimate.count), int(known.estimate.rank), known.estimate.held.size
    loss = problem.loss
    model = noise_model_of(loss)
    named = repr(loss) if isinstance(loss, Loss) else name_of(loss)
    facts = {
        "fit": f"{status}: {summaries.advice(fit)}",
        "loss": f"{named} = {float(known.estimate.loss):.6g}",
        "data": f"{n:,} {model.counted}, {k:,} of {moving:,} free param{'s' * (moving != 1)} determined by them",
        "by": f"{fit.optimizer!r}, {fit.precision or 'float32'}",
        "errors": f"from {model.source(known.absolute)}",
    }
    if isinstance(loss, Joint):
        facts["sets"] = _sets(loss, numbers_in(fit), problem.data)
    if fit.coords:
        facts["lane"] = ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in fit.coords.items())
    return facts


FEW, MANY = 5, 0.2  # expected counts, and the share of points that may have fewer: Cochran (1954), doi:10.2307/3001616
RARE = 1e-3  # a p-value below it is worth a note


def _notes_on_counts(fit: Fit, known: Moments) -> list[str]:
    """Return notes on a fit to counts: that they scatter too much, or are too few for a chi-squared."""
    loss = problem_of(fit).loss
    if not hasattr(loss, "counts"):
        return []
    notes, quality = [], goodness(fit, known)
    scatter = float(known.estimate.scatter)
    if known.absolute and scatter > 1 and quality.p_value < RARE:
        notes.append(
            f"the counts scatter by {math.sqrt(scatter):.3g} times what the loss expects of them, so that the errors "
            f"are too small, or the model is wrong: absolute_sigma=False multiplies them by it"
        )
    with precision_context(PRECISION):
        variance = np.asarray(loss.counts(fit.params, convert_all(problem_of(fit).data, PRECISION)).variance)
    few = float(np.mean(variance < FEW))
    if few > MANY and known.absolute:
        notes.append(
            f"{100 * few:.0f} % of the counts have a variance below {FEW}: the deviance then follows no chi-squared, "
            f"and its p-value is rough"
        )
    return notes


def _notes(fit: Fit, known: Moments) -> list[str]:
    notes = [fit.note] if fit.note else []
    notes += summaries.doubts(fit)
    if separated(fit):  # which the outcome says
        return notes
    endless = ", or no run settles" if fit.status == Status.OUT_OF_STEPS else ""
    idle = [labels_of(numbers_in(fit))[at] for at in _without_influence(fit, known, labels_of(numbers_in(fit)))]
    directions = [{name: 1.0} for name in idle]
    directions += [steps for steps in undetermined(fit, known) if not steps.keys() & set(idle)]
    if len(directions) > NAMES:
        names = _listed([name for name in dict.fromkeys(name for d in directions for name in d)])
        notes.append(f"{names} are not determined, in {len(directions):,} directions: see role; fix them with jf.Fixed")
        directions = []
    for direction in directions:
        together = ", ".join(f"{name} by {step:.3g}" for name, step in direction.items())
        if len(direction) == 1:
            name = next(iter(direction))
            elsewhere = "start it elsewhere, or " if endless else ""
            notes.append(
                f"{name} is not determined: it changes no prediction; {elsewhere}fix it with jf.Fixed{endless}"
            )
        else:
            notes.append(
                f"{', '.join(direction)} are not determined: moving {together} together changes no prediction; "
                f"fix one{endless}"
            )
    names = [
        name for name, role in zip(labels_of(numbers_in(fit)), _roles(fit, known), strict=True) if role == "at bound"
    ]
    if names:
        notes.append(
            f"{', '.join(names)} {'lies' if len(names) == 1 else 'lie'} on a bound and "
            f"{'has' if len(names) == 1 else 'have'} no error; the errors of the others are those with it held there"
            + "; a mean of zero where nothing was counted is one"
            * hasattr(problem_of(fit).loss, "counts")
        )
    notes += _notes_on_counts(fit, known)
    if known.exact:
        notes.append(
            "the residuals are no larger than the rounding of the numbers: they show no noise, and errors and "
            "intervals reflect rounding alone"
        )
    if float(known.freedom) <= 0:
        notes.append(
            "there are no more residuals than params, so that their scatter cannot be estimated: no errors are given"
        )
    if (far := distance(known)) > FAR and not runaways(fit) and not idle:  # which the outcome says
        early = fit.status == Status.STOPPED_EARLY
        what = "where its patience ended it; errors are defined at a minimum" if early else "let it run on"
        notes.append(f"the fit stands {far:.2g} standard errors from the minimum; {what}")
    return notes
