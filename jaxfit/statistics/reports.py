"""Reports: numbers with their errors, and tables of them as text, Markdown, LaTeX and JSON."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxfit.losses import Loss, model_of
from jaxfit.losses.base import noise_model_of
from jaxfit.problems import Status, convert_all, name_of, precision_context
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import Bounded, Fixed, Tied, is_mark, values_of, without_kept
from jaxfit.problems.messages import did_you_mean, near_keywords
from jaxfit.problems.posing import as_params
from jaxfit.statistics.confidence import check_asked, ends
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
from jaxfit.statistics.diagnosis import signs
from jaxfit.statistics.goodness import Goodness, goodness
from jaxfit.typing import KeyLike, PyTree, Scalar
from jaxfit.verbs import summaries
from jaxfit.verbs.evaluations import PRECISION, check_result, labels_of
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.multistarts import met
from jaxfit.verbs.results import Fit, numbers_in, problem_of
from jaxfit.verbs.summaries import runaways, text_table

if TYPE_CHECKING:
    from pandas import DataFrame

DIGITS = 15  # that a float holds


def written(value: Scalar, error: Scalar = math.nan) -> str:
    """Return a number with its error in brackets, to two digits of it: 5.367(12) is 5.367 -+ 0.012, and 87.7(1.5).

    Without an error, six digits; with one below the digits that a float holds, all of these. Large and small ones get
    a common power of ten: 1.2340(12)e-07.
    """
    value, error = float(value), float(error)
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.6g}"
    place = _place(error)
    size = max(abs(value), 10.0**place)
    power = math.floor(math.log10(size))
    if power - place >= DIGITS - 1:
        return f"{value:.{DIGITS}g}"
    if -5 < power < 6 and place < 6:
        return _bracketed(value, error, place)
    return f"{_bracketed(value / 10.0**power, error / 10.0**power, place - power)}e{power:+03d}"


def _place(error: float) -> int:
    """Return the power of ten of the first digit of the error, rounded to two."""
    return int(f"{error:.1e}".partition("e")[2])


def _bracketed(value: float, error: float, place: int) -> str:
    digits = 1 - place
    if digits <= 0:
        whole = 10 ** (-digits)
        return f"{round(value / whole) * whole:.0f}({round(error / whole) * whole:.0f})"
    inside = f"{error:.{digits}f}" if place >= 0 else f"{error * 10.0**digits:.0f}"
    return f"{value:.{digits}f}({inside})"


def rounded(value: Scalar, error: Scalar = math.nan) -> str:
    """Return a number with as many digits as its error allows: those up to the second of the error."""
    value, error = float(value), float(error)
    if not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "")
    if not (math.isfinite(error) and error > 0) or not 1e-4 <= max(abs(value), error) < 1e6:
        return f"{value:.5g}"
    most = DIGITS - 1 - math.floor(math.log10(max(abs(value), error)))
    return f"{value:.{max(0, min(1 - _place(error), most))}f}"


def percent(share: float) -> str:
    """Return a share as 2.3 %, or nothing where there is none."""
    if not math.isfinite(share):
        return ""
    return f"{100 * share:.2g} %" if share < 1 or share >= 1e4 else f"{100 * share:.0f} %"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    return "\n".join([line(header), line([":--" if a else "--:" for a in left]), *map(line, rows)])


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    def line(cells, tag):
        styled = zip(cells, left, strict=True)
        look = {True: "text-align:left;white-space:nowrap", False: "text-align:right;white-space:nowrap"}
        return "".join(f'<{tag} style="{look[bool(a)]}">{escape(c)}</{tag}>' for c, a in styled)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "−": "$-$", "²": "$^2$",
    "µ": r"$\mu$", "μ": r"$\mu$", "°": r"$^\circ$", "Ω": r"$\Omega$",
}  # fmt: skip


def latex(text: str) -> str:
    """Return a text with what means something to LaTeX escaped."""
    return "".join(_LATEX.get(c, c) for c in text)


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """Return a tabular with the rules of the package booktabs; numbers in mathematics."""

    def cell(text, number):
        if not number or not text or text[0] not in "-0123456789i":
            return latex(text)
        mantissa, _, power = text.partition("e")
        if power and power.lstrip("+-").isdigit():
            return f"${mantissa} \\times 10^{{{int(power)}}}$"
        return f"${latex(text)}$" if " " not in text else latex(text)

    lines = [
        r"\begin{tabular}{" + "".join("l" if a else "r" for a in left) + "}",
        r"\toprule",
        " & ".join(map(latex, header)) + r" \\",
        r"\midrule",
        *(" & ".join(cell(c, not a) for c, a in zip(row, left, strict=True)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def json_number(value: Scalar) -> float | str | None:
    """Return a number that JSON knows: None for NaN, the words "inf" and "-inf" for an open end."""
    value = float(value)
    return None if math.isnan(value) else value if np.isfinite(value) else str(value)


SHOWN, PAIRS, LEAST = 40, 10, 0.1  # rows of params, pairs of correlations, and the least of these


CLOSE = 0.99  # a correlation worth a note: Bates and Watts (1988), Nonlinear Regression Analysis, chapter 3
TOGETHER = 1e-12  # the least eigenvalue of a matrix of correlations that rounding leaves


class Row(NamedTuple):
    """One number of the params; NaN is not known."""

    name: str
    value: float
    error: float
    low: float
    high: float
    start: float
    role: str  # free, bounded, at bound, fixed, tied, not determined, ran away
    unit: str


@dataclass(frozen=True, repr=False)
class Report:
    """A report of a fit, made by `report`; `print` and notebooks show it."""

    rows: tuple[Row, ...]
    derived: tuple[Row, ...]  # numbers computed from the params
    correlations: np.ndarray  # (K, K)
    goodness: Goodness
    level: float
    method: str
    facts: dict[str, str]  # what was fitted, to what, how, and how it ended
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        rows, more = self.rows[:SHOWN], len(self.rows) - SHOWN
        lines = [f"{name:8}{text}" for name, text in self.facts.items()]
        header, cells, left = _table((*rows, *self.derived), self.level)
        lines += ["", *text_table([header, *cells], left)]
        lines += [f"and {more} more: see .rows"] * (more > 0)
        if pairs := self.pairs():
            texts = [f"{a}, {b}: {r:+.3f}" for a, b, r in pairs[:PAIRS]]
            lines += ["", _pairs_shown(len(pairs)), *(f"  {text}" for text in texts)]
        lines += ["", *(f"{name:26}{text}" for name, text in self.sums())]
        lines += ["", *(f"note    {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)

    def pairs(self) -> list[tuple[str, str, float]]:
        """Return the correlations of LEAST and more, the strongest first."""
        found = [
            (self.rows[i].name, self.rows[j].name, float(self.correlations[i, j]))
            for i, j in zip(*np.triu_indices(len(self.rows), 1), strict=True)
            if abs(self.correlations[i, j]) >= LEAST
        ]
        return sorted(found, key=lambda pair: -abs(pair[2]))

    def combinations(self) -> list[tuple[dict[str, float], float, float]]:
        """Return what the data determine of params that are correlated by CLOSE and more: (factors, sum, error) each.

        The first param of such a group, plus multiples of the others that leave the sum the smallest error.
        """
        return _combinations(self.rows, self.correlations)

    def sums(self) -> list[tuple[str, str]]:
        """Return the names and values of the goodness of the fit, those that are known."""
        g, names = self.goodness, []
        if not math.isnan(float(g.deviance)):
            of = f"{float(g.deviance):.6g} for {float(g.degrees_of_freedom):g} degrees of freedom"
            g, names = g._replace(degrees_of_freedom=math.nan), [("deviance", of)]
        for name, value in (
            ("chi-squared" if not names else "Pearson's chi-squared", g.chi_squared),
            ("reduced chi-squared", g.reduced_chi_squared),
            ("degrees of freedom", g.degrees_of_freedom), ("p-value", g.p_value), ("R squared", g.r_squared),
            ("AIC", g.aic), ("BIC", g.bic),
        ):  # fmt: skip
            if not math.isnan(float(value)):
                names.append((name, f"{float(value):.6g}"))
        return names

    def _repr_html_(self) -> str:
        facts = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in self.facts.items())
        found = self.pairs()
        pairs = [(a, b, f"{r:+.3f}") for a, b, r in found[:PAIRS]]
        tables = [html_table(*self.table())]
        if pairs:
            tables.append(f"<p>{escape(_pairs_shown(len(found)))}</p>")
            tables.append(html_table(("param", "param", "correlation"), pairs, (True, True, False)))
        tables.append(html_table(("fit", ""), self.sums(), (True, False)))
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<ul>{facts}</ul>{''.join(tables)}{notes}"

    def to_markdown(self) -> str:
        """Return the table of the params, the sums and the facts below it, and the notes."""
        sums = markdown_table(("fit", ""), self.sums(), (True, False))
        facts = "\n".join(f"- {name}: {text}" for name, text in self.facts.items())
        parts = [markdown_table(*self.table()), sums, facts, *self.notes]
        return "\n\n".join(parts)

    def to_latex(self) -> str:
        """Return the table of the params as a tabular of the package booktabs."""
        return latex_table(*self.table())

    def table(self) -> tuple[list[str], list[list[str]], list[bool]]:
        """Return the header of the table of params and derived numbers, its rows, and which columns are words."""
        return _table((*self.rows, *self.derived), self.level)

    def to_csv(self) -> str:
        """Return the numbers of the params in full, a line for each; what is not known is empty."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(Row._fields)
        table.writerows(["" if x != x else x for x in row] for row in (*self.rows, *self.derived))
        return text.getvalue()

    def to_dataframe(self) -> DataFrame:
        """Return the table of the params as a `pandas.DataFrame` indexed by their names; NaN is what is not known."""
        import pandas as pd

        return pd.DataFrame([*self.rows, *self.derived], columns=list(Row._fields)).set_index("name")

    def to_dict(self) -> dict[str, Any]:
        """Return everything, in plain Python: None where a number is not known, "inf" for an open end."""
        number = json_number
        params, more = (
          {
            row.name: {
                "value": number(row.value), "error": number(row.error), "interval": [number(row.low), number(row.high)],
                "start": number(row.start), "role": row.role, "unit": row.unit or None,
            }
            for row in rows
          }
          for rows in (self.rows, self.derived)
        )  # fmt: skip
        return {
            "params": params, "derived": more,
            "correlations": [[number(x) for x in row] for row in self.correlations],
            "goodness": {name: number(value) for name, value in self.goodness._asdict().items()},
            "level": self.level, "method": self.method, "facts": dict(self.facts), "notes": list(self.notes),
        }  # fmt: skip

    def to_json(self) -> str:
        """Return the same as a text in JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)


def _pairs_shown(count: int) -> str:
    """Return the heading of the correlations that are shown, of so many."""
    if count <= PAIRS:
        return f"correlations of {LEAST} and more"
    return f"the {PAIRS} strongest of {count:,} correlations of {LEAST} and more; all: see .pairs()"


def _table(rows: Sequence[Row], level: float) -> tuple[list[str], list[list[str]], list[bool]]:
    """Return the header, the cells, and which columns are words."""
    names = ["param", "value", "rel. error", f"{100 * level:g} % interval", "start", "unit", "role"]
    left = [True, False, False, False, False, True, True]
    cells = []
    for row in rows:
        relative = abs(row.error / row.value) if row.value else math.nan
        low, high = (rounded(x, row.error) for x in (row.low, row.high))
        span = f"{low} to {high}" if low and high else ""
        cells.append([
            row.name, written(row.value, row.error), percent(relative), span,
            f"{row.start:.5g}" if math.isfinite(row.start) else "", row.unit, row.role,
        ])  # fmt: skip
    used = [i for i in range(len(names)) if i != 5 or any(row.unit for row in rows)]
    return [names[i] for i in used], [[c[i] for i in used] for c in cells], [left[i] for i in used]


@near_keywords
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
    low, high, said = ends("report", fit, method, level, key, samples, absolute_sigma, known)
    labels = labels_of(params)
    roles, start = _roles(fit, known), _start(fit)
    correlations = correlation_matrix(known.covariance)
    errors, (low, high) = known.errors.copy(), (np.array(side, float) for side in (low, high))
    for one in runaways(fit):  # an error there tells of nothing
        at = labels.index(one.name if one.name in labels else one.name.removeprefix("params"))
        errors[at] = low[at] = high[at] = correlations[at] = correlations[:, at] = np.nan
        roles[at] = "ran away"
    rows = tuple(
        Row(*row)  # pyright: ignore[reportArgumentType]
        for row in zip(labels, *(x.tolist() for x in (known.values, errors, low, high, start)), roles, named,
                       strict=True)
    )  # fmt: skip
    facts, notes = _facts(fit, known), [*_notes(fit, known), *said]
    notes += _of_ends(rows, level) if method == "profile" else _beyond_bounds(fit, rows)
    notes += _of_combinations(rows, correlations)
    if not runaways(fit):
        notes += signs(fit, known)
    if others:
        facts[others.lanes] = others.text
        if others.alone:
            notes.append("no other run found this optimum, so that there may be lower ones; draw more starts")
    found = Goodness(*(x[()] for x in goodness(fit, known)))
    return Report(rows, more, correlations, found, level, method, facts, tuple(notes))


def _derived_rows(
    fit: Fit, own: Mapping[str, Callable] | None, units: PyTree, level: float, method: str, absolute_sigma: bool | None
) -> tuple[tuple[Row, ...], PyTree]:
    """Return the rows of the numbers that model and user derive of the params, and the units of the params alone."""
    own = {} if own is None else own
    if not isinstance(own, Mapping) or not all(map(callable, own.values())):
        raise TypeError(
            f"report: derived is {own!r}, but it must hold functions of the params by name: "
            f'{{"ratio": lambda p: p["a"] / p["b"]}}'
        )
    model = model_of(problem_of(fit).loss)
    model = model if hasattr(model, "derived") else None
    if not own and (model is None or runaways(fit) or not _shapes(model, fit.params)):
        return (), units
    shape, known = propagated("report", fit, _deriving(model, tuple(own.items())), absolute_sigma, warns=False)
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
def _deriving(model: Callable | None, own: tuple[tuple[str, Callable], ...]) -> Callable:
    def numbers(params):
        return (model.derived(params) if model else {}) | {name: function(params) for name, function in own}

    return numbers


def _shapes(model: Callable, params: PyTree) -> PyTree:
    return jax.eval_shape(_deriving(model, ()), jax.tree.map(np.asarray, params))


def _combinations(rows: Sequence[Row], correlations: np.ndarray) -> list[tuple[dict[str, float], float, float]]:
    moving = [i for i, row in enumerate(rows) if row.error > 0 and row.role in ("free", "bounded")]
    found, left = [], list(moving)
    while left:
        group = [left.pop(0)]
        for i in group:
            near = [j for j in left if abs(correlations[i, j]) >= CLOSE]
            left = [j for j in left if j not in near]
            group += near
        table = correlations[np.ix_(group, group)]
        if len(group) == 1 or np.linalg.eigvalsh(table)[0] < TOGETHER:
            continue
        errors, values = (np.array([getattr(rows[i], name) for i in group]) for name in ("error", "value"))
        first = np.linalg.inv(table)[0]
        factors = [float(f"{x:.5g}") for x in first / first[0] * errors[0] / errors]
        scaled = factors * errors
        names = [rows[i].name for i in group]
        found.append(
            (dict(zip(names, factors, strict=True)), float(factors @ values), float(np.sqrt(scaled @ table @ scaled)))
        )
    return found


def _of_combinations(rows: Sequence[Row], correlations: np.ndarray) -> list[str]:
    """Return notes on params that are strongly correlated, with what the data determine of them."""
    errors, notes = {row.name: row.error for row in rows}, []
    for factors, value, error in _combinations(rows, correlations):
        names = list(factors)
        total = names[0] + "".join(f" {'+-'[factors[n] < 0]} {abs(factors[n]):g} {n}" for n in names[1:])
        better = float(f"{errors[names[0]] / error:.2g}")
        notes.append(
            f"{total} = {written(value, error)} is determined {better:,g} times as well as {names[0]}: "
            f"{', '.join(names)} are correlated by {CLOSE:g} and more"
        )
    return notes


def _of_ends(rows: Sequence[Row], level: float) -> list[str]:
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


def _beyond_bounds(fit: Fit, rows: Sequence[Row]) -> list[str]:
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
    unknown = iter(np.isnan(np.diagonal(np.asarray(known.estimate.unit))))
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
        found = jax.tree_util.tree_leaves_with_path(units)
        given = {jax.tree_util.keystr(path, simple=True, separator=".") or "params": unit for path, unit in found}
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
    if fit.coords:
        facts["lane"] = ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in fit.coords.items())
    return facts


FEW, MANY = 5, 0.2  # expected counts, and the share of points that may have fewer: Cochran (1954), doi:10.2307/3001616
RARE = 1e-3  # a p-value below it is worth a note


def _of_counts(fit: Fit, known: Moments) -> list[str]:
    """Return notes on a fit to counts: that they scatter too much, or are too few for a chi-squared."""
    loss = problem_of(fit).loss
    if not hasattr(loss, "counts"):
        return []
    notes, found = [], goodness(fit, known)
    scatter = float(known.estimate.scatter)
    if known.absolute and scatter > 1 and found.p_value < RARE:
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
    endless = ", or no run settles" if fit.status == Status.OUT_OF_STEPS else ""
    for direction in undetermined(fit, known):
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
    notes += _of_counts(fit, known)
    if known.exact:
        notes.append(
            "the residuals are no larger than the rounding of the numbers: there is no noise to speak of, and errors "
            "and intervals tell of rounding alone"
        )
    if float(known.freedom) <= 0:
        notes.append("there are no more residuals than params, so that their scatter says nothing: no errors")
    if (far := distance(known)) > FAR and not runaways(fit):  # which the outcome says
        early = fit.status == Status.STOPPED_EARLY
        what = "as its patience wants it; errors are those of a minimum" if early else "let it run on"
        notes.append(f"the fit stands {far:.2g} standard errors from the minimum; {what}")
    return notes
