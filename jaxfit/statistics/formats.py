"""Numbers with their errors as one writes them, and tables of them in the languages people paste into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

DIGITS = 15  # that a float holds


def written(value: Any, error: Any = math.nan) -> str:
    """A number with its error in brackets, to two digits of it: 5.367(12) is 5.367 -+ 0.012, and 87.7(1.5).

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
    """The power of ten of the first digit of the error, rounded to two."""
    return int(f"{error:.1e}".partition("e")[2])


def _bracketed(value: float, error: float, place: int) -> str:
    digits = 1 - place
    if digits <= 0:
        whole = 10 ** (-digits)
        return f"{round(value / whole) * whole:.0f}({round(error / whole) * whole:.0f})"
    inside = f"{error:.{digits}f}" if place >= 0 else f"{error * 10.0**digits:.0f}"
    return f"{value:.{digits}f}({inside})"


def rounded(value: Any, error: Any = math.nan) -> str:
    """A number with as many digits as its error allows: those up to the second of the error."""
    value, error = float(value), float(error)
    if not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "")
    if not (math.isfinite(error) and error > 0) or not 1e-4 <= max(abs(value), error) < 1e6:
        return f"{value:.5g}"
    most = DIGITS - 1 - math.floor(math.log10(max(abs(value), error)))
    return f"{value:.{max(0, min(1 - _place(error), most))}f}"


def percent(share: float) -> str:
    """A share as 2.3 %, or nothing where there is none."""
    if not math.isfinite(share):
        return ""
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> list[str]:
    """Aligned columns under a rule."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        padded = [c.ljust(w) if a else c.rjust(w) for c, w, a in zip(cells, widths, left, strict=True)]
        return "  ".join(padded).rstrip()

    return [line(header), "─" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]


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
    """A text with what means something to LaTeX escaped."""
    return "".join(_LATEX.get(c, c) for c in text)


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> str:
    """A tabular with the rules of the package booktabs; numbers in mathematics."""

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


def json_number(value: Any) -> Any:
    """A number that JSON knows: None for NaN, the words "inf" and "-inf" for an open end."""
    value = float(value)
    return None if math.isnan(value) else value if np.isfinite(value) else str(value)
