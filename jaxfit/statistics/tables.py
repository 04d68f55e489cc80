"""A report as text, Markdown, HTML, LaTeX, CSV and JSON: its numbers with their errors, and tables of them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxfit.statistics.goodness import Goodness
from jaxfit.typing import Scalar
from jaxfit.verbs.summaries import text_table

if TYPE_CHECKING:
    from pandas import DataFrame

DIGITS = 15  # that a float holds


def with_error(value: Scalar, error: Scalar = math.nan) -> str:
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
        unit = 10 ** (-digits)
        return f"{round(value / unit) * unit:.0f}({round(error / unit) * unit:.0f})"
    inside = f"{error:.{digits}f}" if place >= 0 else f"{error * 10.0**digits:.0f}"
    return f"{value:.{digits}f}({inside})"


def to_digits_of(value: Scalar, error: Scalar = math.nan) -> str:
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
    """Return a text with the special characters of LaTeX escaped."""
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
        pairs, count = self._pairs(PAIRS)
        if pairs:
            lines += ["", _pairs_shown(count), *(f"  {a}, {b}: {r:+.3f}" for a, b, r in pairs)]
        lines += ["", *(f"{name:26}{text}" for name, text in self.sums())]
        lines += ["", *(f"note    {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)

    def pairs(self) -> list[tuple[str, str, float]]:
        """Return the correlations of LEAST and more, the strongest first."""
        return self._pairs(None)[0]

    def _pairs(self, most: int | None) -> tuple[list[tuple[str, str, float]], int]:
        """Return the strongest correlations, as many as asked for, and the number of those of LEAST and more."""
        sizes = np.triu(abs(self.correlations), 1)
        i, j = np.nonzero(sizes >= LEAST)
        order = np.argsort(-sizes[i, j], kind="stable")[:most]
        names, table = [row.name for row in self.rows], self.correlations
        return [(names[a], names[b], float(table[a, b])) for a, b in zip(i[order], j[order], strict=True)], len(i)

    def combinations(self) -> list[tuple[dict[str, float], float, float]]:
        """Return what the data determine of params that are correlated by CLOSE and more: (factors, sum, error) each.

        The first param of such a group, plus multiples of the others that leave the sum the smallest error.
        """
        return combinations(self.rows, self.correlations)

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
        pairs_found, count = self._pairs(PAIRS)
        pairs = [(a, b, f"{r:+.3f}") for a, b, r in pairs_found]
        tables = [html_table(*self.table())]
        if pairs:
            tables.append(f"<p>{escape(_pairs_shown(count))}</p>")
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
        low, high = (to_digits_of(x, row.error) for x in (row.low, row.high))
        span = f"{low} to {high}" if low and high else ""
        cells.append([
            row.name, with_error(row.value, row.error), percent(relative), span,
            f"{row.start:.5g}" if math.isfinite(row.start) else "", row.unit, row.role,
        ])  # fmt: skip
    used = [i for i in range(len(names)) if i != 5 or any(row.unit for row in rows)]
    return [names[i] for i in used], [[c[i] for i in used] for c in cells], [left[i] for i in used]


def combinations(rows: Sequence[Row], correlations: np.ndarray) -> list[tuple[dict[str, float], float, float]]:
    moving = [i for i, row in enumerate(rows) if row.error > 0 and row.role in ("free", "bounded")]
    sums, left = [], np.zeros(len(rows), bool)
    left[moving] = True
    close = abs(correlations) >= CLOSE
    for first in moving:
        if not left[first]:
            continue
        left[first], group = False, [first]
        for i in group:
            near = np.flatnonzero(close[i] & left)
            left[near] = False
            group += near.tolist()
        table = correlations[np.ix_(group, group)]
        if len(group) == 1 or np.linalg.eigvalsh(table)[0] < TOGETHER:
            continue
        errors, values = (np.array([getattr(rows[i], name) for i in group]) for name in ("error", "value"))
        inverse = np.linalg.inv(table)[0]
        factors = [float(f"{x:.5g}") for x in inverse / inverse[0] * errors[0] / errors]
        scaled = factors * errors
        names = [rows[i].name for i in group]
        sums.append(
            (dict(zip(names, factors, strict=True)), float(factors @ values), float(np.sqrt(scaled @ table @ scaled)))
        )
    return sums
