"""Pages: a sweep or a fit as one HTML file to explore in a browser, without a server or a network.

`notebook` is the small HTML, without a script, that a notebook shows of a result.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import jax
import numpy as np

from jaxfit.explanations import Explanation
from jaxfit.graphs.graph import Graph, number_text
from jaxfit.pages.fits import fit_page
from jaxfit.pages.packing import write_page
from jaxfit.pages.sweeps import law_of, sweep_page
from jaxfit.problems import ENDED_WELL, Status
from jaxfit.problems.marks import flattened
from jaxfit.problems.messages import near_names
from jaxfit.statistics.tables import html_table
from jaxfit.stores import StoreError, as_path, open_dataset
from jaxfit.verbs.evaluations import labels_of
from jaxfit.verbs.grids import Grid, best
from jaxfit.verbs.multistarts import Optima
from jaxfit.verbs.results import Fit, numbers_in

__all__ = ["notebook", "write_fit", "write_sweep"]
__getattr__, __dir__ = near_names(__name__, __all__)

COLORS = {
    Status.NOT_RUN: "#cccccc", Status.CONVERGED: "#0072b2", Status.OUT_OF_STEPS: "#56b4e9",
    Status.DIVERGED: "#d55e00", Status.NOT_FINITE: "#cc79a7", Status.STOPPED_EARLY: "#009e73",
    Status.PRUNED: "#8a8a8a", Status.NOT_DETERMINED: "#e69f00",
}  # fmt: skip
ROWS = 12  # of a table


def write_sweep(grid: Grid, path: str | os.PathLike, title: str | None = None) -> Path:
    """Write the page of a sweep and return its path; `Grid.to_html` calls it."""
    path = as_path("path", path)
    return write_page(sweep_page(grid.results, title=_title(title, path), law=law_of(grid)), path)


def write_fit(fit: Fit, path: str | os.PathLike, title: str | None = None) -> Path:
    """Write the page of a fit and return its path; `Fit.to_html` calls it."""
    path = as_path("path", path)
    return write_page(fit_page(fit, title=_title(title, path)), path)


def _title(title: str | None, path: Path) -> str:
    """Return the heading of a page, which is its file's name if none is given.

    Raises:
      TypeError: If it is no string.
    """
    if not isinstance(title, str | None):
        raise TypeError(f"to_html: title is {title!r}, but it must be a string, or None for the file's name")
    return path.stem if title is None else title


def main(words: Sequence[str] | None = None) -> int:
    """Run `python -m jaxfit explore`; the exit status is 0 when the page is written, 1 after an error."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxfit explore", description="Write the page of a store, also while its sweep runs."
    )
    parser.add_argument("store", metavar="STORE", help="the folder given to jf.sweep(..., store=)")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the page; by default STORE.html")
    parser.add_argument("--title", help="what stands above; by default the folder's name")
    given = parser.parse_args(words)
    try:
        store = Path(given.store)
        title = store.resolve().name if given.title is None else given.title
        page = sweep_page(open_dataset(store, damaged="skip"), title=title)
        print(write_page(page, given.file or store.resolve().with_suffix(".html").name))
    except (StoreError, OSError, ValueError, TypeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


@functools.singledispatch
def notebook(result: object) -> str:
    """Return the HTML of a result; its text if it is of no kind that has HTML."""
    return f"<pre>{escape(repr(result))}</pre>"


@notebook.register
def _(fit: Fit) -> str:
    text = repr(fit)
    if np.ndim(fit.status) or isinstance(fit.status, jax.core.Tracer) or not isinstance(fit.status, Status):
        return f"<pre>{escape(text)}</pre>"
    head, *rest = text.splitlines()
    names = labels_of(numbers_in(fit))
    rows = [[name, f"{x:.6g}"] for name, x in zip(names[:ROWS], flattened(numbers_in(fit)), strict=False)]
    lines = [line.strip() for line in rest if line.startswith(("  loss", "  with", "  note"))]
    return (
        f"<p>{_swatch(fit.status)}{escape(head)}</p>{_table(['param', 'value'], rows, len(names), [True, False])}"
        f"{_curve(fit)}{''.join(f'<p>{escape(line)}</p>' for line in lines)}"
    )


@notebook.register
def _(grid: Grid) -> str:
    status, results = grid.results.status, grid.results
    counts = {s: int((status.values == s).sum()) for s in Status if (status.values == s).any()}
    bar = "".join(f'<span style="flex:{n};background:{COLORS[s]}"></span>' for s, n in counts.items())
    key = " &nbsp; ".join(f"{_swatch(s)}{n:,} {s.name.lower().replace('_', ' ')}" for s, n in counts.items())
    rows = []
    for name in status.dims:
        values = [f"{x:.6g}" if isinstance(x, float) else str(x) for x in results[name].values[[0, -1]].tolist()]
        rows.append([str(name), f"{results.sizes[name]:,}", *values])
    found = ""
    if np.isin(status, ENDED_WELL).any() and not np.isnan(results.loss.values[np.isin(status, ENDED_WELL)]).all():
        lane = best(grid)
        where = ", ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in lane.coords.items())
        found = f"<p>{escape(f'the lowest loss is {float(lane.loss):.6g}, at {where}')}</p>"
    return (
        f"<p>{status.size:,} lanes: {key}</p>"
        f'<div style="display:flex;height:8px;max-width:480px;border-radius:4px;overflow:hidden">{bar}</div>'
        f"{_table(['axis', 'values', 'first', 'last'], rows, len(rows), [True, False, False, False])}{found}"
        "<p>grid.results is the table; grid.to_html(&quot;sweep.html&quot;) is a page to explore</p>"
    )


@notebook.register
def _(optima: Optima) -> str:
    head = repr(optima).splitlines()[0]
    leaves = jax.tree_util.tree_leaves_with_path(optima.params)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in leaves]
    rows = [
        [f"{optima.loss[i]:.6g}", f"{optima.count[i]:,}", *(number_text(np.asarray(x[i]), 5) for _, x in leaves)]
        for i in range(min(len(optima), ROWS))
    ]
    table = _table(["loss", "starts", *names], rows, len(optima), [False] * (len(names) + 2))
    return f"<p>{escape(head)}</p>{table}"


@notebook.register
def _(explanation: Explanation) -> str:
    lines = "".join(f"<li>{escape(sentence)}</li>" for sentence in explanation.story)
    advice = f"<p><b>try</b> {escape(explanation.advice)}; .retry() does it</p>" if explanation.advice else ""
    return f"<p><b>{escape(explanation.kind)}</b></p><ul>{lines}</ul>{advice}"


@notebook.register
def _(graph: Graph) -> str:
    head = f"{len(graph.nodes)} nodes, {len(graph.edges)} edges, loss {number_text(graph.loss)}"
    rows = [
        [node.name, node.label, number_text(node.value), number_text(node.gradient)] for node in graph.nodes[: 3 * ROWS]
    ]
    table = _table(["node", "operation", "value", "gradient"], rows, len(graph.nodes), [True, True, False, False])
    return f"<p>{escape(head)}</p>{table}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], all_rows: int, left: Sequence[bool]) -> str:
    more = f"<p>and {all_rows - len(rows):,} more</p>" if all_rows > len(rows) else ""
    return f'<div style="overflow-x:auto">{html_table(head, rows, left)}</div>{more}'


def _swatch(status: Status) -> str:
    style = f"display:inline-block;width:11px;height:11px;border-radius:2px;background:{COLORS[status]}"
    return f'<span style="{style}"></span> '


def _curve(fit: Fit) -> str:
    """Return the history of the loss as a small line, logarithmic if it is positive."""
    if fit.history is None or "loss" not in fit.history or np.ndim(fit.history["loss"]) != 1:
        return ""
    loss = np.asarray(fit.history["loss"], float)
    loss = loss[np.isfinite(loss)]
    if len(loss) < 2:
        return ""
    loss = loss[np.unique(np.linspace(0, len(loss) - 1, 200).astype(int))]
    height = np.log(loss) if (loss > 0).all() else loss
    y = 54 - 48 * (height - height.min()) / (np.ptp(height) or 1)
    x = np.linspace(4, 236, len(y))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        '<svg viewBox="0 0 240 60" width="240" height="60" role="img" aria-label="history of the loss">'
        f'<polyline points="{points}" fill="none" stroke="{COLORS[Status.CONVERGED]}" stroke-width="1.6"/></svg>'
    )
