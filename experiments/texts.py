"""What the five texts show, row by row, and where this project shows it: figures/texts.md.

An experiment declares in ROWS which rows it covers and in which of its pictures, by suffix. The checks of a row are
those whose source is the id of one of its published numbers, or begins with the row's own id.
"""

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jaxfit.experiments import discover, show

from .published import NUMBERS, published

FOLDER = Path(__file__).resolve().parent
TEXTS = json.loads((FOLDER / "texts.json").read_text("utf-8"))
ROWS = {row: facts for text in TEXTS.values() for row, facts in text["rows"].items()}
SHOWN = 3  # numbers of a row in the table; the gallery has the others


class Place(NamedTuple):
    """Where a row is shown."""

    experiment: str
    suffix: str  # of the picture


def row_of(source: str) -> str:
    """The row that a check's source belongs to; "" if to none."""
    if source in NUMBERS:
        return NUMBERS[source]["row"]
    rows = [row for row in ROWS if source.startswith(row) and not source[len(row) : len(row) + 1].isalnum()]
    return max(rows, key=len, default="")


def places() -> dict[str, list[Place]]:
    """The experiments that declare each row."""
    found: dict[str, list[Place]] = {}
    for name in discover(FOLDER):
        for row, suffix in getattr(importlib.import_module(f"experiments.{name}"), "ROWS", {}).items():
            found.setdefault(row, []).append(Place(name, suffix))
    return found


def write_texts(figures: Path) -> None:
    """Write texts.md from the index of figures that the runner left there."""
    index = json.loads((figures / "index.json").read_text("utf-8"))
    where = places()
    sections = [_head(where, index)]
    for text in TEXTS.values():
        lines = [line(row, facts, where.get(row, []), index) for row, facts in text["rows"].items()]
        table = [
            "| where | what | see | printed | computed | verdict |",
            "| --- | --- | --- | --- | --- | --- |",
            *lines,
        ]
        sections += [f"## {text['title']}", "\n".join(table)]
    (figures / "texts.md").write_text("\n\n".join(sections) + "\n", "utf-8")


def _head(where: dict, index: dict) -> str:
    numbers = {cells[4] for entry in index.values() for cells in entry["checks"] if cells[-1] == "ok"} & set(NUMBERS)
    return "\n\n".join(
        [
            "<!-- Written by python -m experiments: what is edited here is lost at the next run. -->",
            "# The five texts, figure by figure",
            f"{len(where)} of {len(ROWS)} figures, tables, listings and ideas, and {len(numbers)} of {len(NUMBERS)} "
            "printed numbers are computed here and met. "
            "*See* leads to the picture, *computed* to all checks of its experiment.",
        ]
    )


def line(row: str, facts: dict, shown: Iterable[Place], index: dict) -> str:
    """The line of one row in texts.md."""
    shown = [place for place in shown if place.experiment in index]
    cells = [(p, c) for p in shown for c in index[p.experiment]["checks"] if row_of(c[4]) == row]
    named = [(p, c) for p, c in cells if c[4] in NUMBERS]
    some = _distinct(named or cells)
    printed = [show(published(c[4]).printed) for _, c in some if c[4] in NUMBERS]
    computed = [f"[{c[0]}: {c[2]}](README.md#{p.experiment})" for p, c in some]
    if len(cells) > len(some):
        computed.append(f"and {len(cells) - len(some)} more")
    sight = [f"[{p.experiment.replace('_', ' ')}]({picture(p, index)})" for p in shown]
    columns = [facts["where"], facts["what"], ", ".join(sight), "<br>".join(printed), "<br>".join(computed)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [*columns, verdict(cells)]) + " |"


def _distinct(cells: list) -> list:
    """The first few numbers of a row, those that are printed wrongly before the others."""
    wrong = [pair for pair in cells if NUMBERS.get(pair[1][4], {}).get("why")]
    return [*wrong, *(pair for pair in cells if pair not in wrong)][: max(SHOWN, len(wrong))]


def picture(place: Place, index: dict) -> str:
    """The file of a picture; the gallery's section where the experiment has none of that name."""
    stem = f"{place.experiment}-{place.suffix}" if place.suffix else place.experiment
    files = [file for file in index[place.experiment]["figures"] if Path(file).stem == stem]
    return files[0] if files else f"README.md#{place.experiment}"


def verdict(cells: list) -> str:
    if not cells:
        return "open"
    if any(c[-1] != "ok" for _, c in cells):
        return "**FAILED**"
    names = {c[4] for _, c in cells} & set(NUMBERS)
    reasons = [NUMBERS[name]["why"] for name in NUMBERS if name in names and NUMBERS[name].get("why")]
    if reasons:
        return "printed otherwise: " + " ".join(reasons)
    return "met" if names else "shown"
