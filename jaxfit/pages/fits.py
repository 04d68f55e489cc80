"""The page of a fit: data and curve, residuals, the report to copy, correlations, profiles, and the loss' history."""

from __future__ import annotations

import warnings

import jax
import numpy as np
from scipy.interpolate import PchipInterpolator

from jaxfit.losses.base import ROBUST, data_names, is_masked, noise_model_of
from jaxfit.pages.packing import as_float32, made_by, packed, page_of
from jaxfit.problems.marks import flattened
from jaxfit.statistics import band, profile, report, residuals
from jaxfit.statistics.profiles import Profile
from jaxfit.statistics.tables import Report
from jaxfit.stores.identity import environment
from jaxfit.stores.manifests import Json
from jaxfit.verbs import summaries
from jaxfit.verbs.evaluations import labels_of
from jaxfit.verbs.results import Fit, NotConverged, numbers_in

CURVE, POINTS = 300, 5_000  # points of a curve, and the most of data
PARAMS, PAIRED, PROFILED = 200, 12, 6  # the most params with errors, with a table of correlations, with profiles
REACHED = 1.96**2  # the rise of the sum of squares, in variances, at the ends of a 95 % interval
TOP = 2.4 * REACHED  # up to which profiles are drawn
PROFILES = "How the sum of squares rises when a param is held, in variances"
REFUSED = NotConverged, TypeError, ValueError  # of statistics that a fit does not have


class PageBlocks:
    """The parts of a page in their order, and the columns that its charts read by name."""

    def __init__(self):
        self.blocks: list[dict[str, Json]] = []
        self.columns: dict[str, np.ndarray] = {}

    def add(self, **block: Json) -> None:
        self.blocks.append(block)

    def series(self, color: str, words: str = "", **numbers: np.ndarray | bool) -> dict[str, Json]:
        """Return a series of a chart, its arrays kept as columns."""
        chart: dict[str, Json] = {"color": color, "words": words}
        for name, values in numbers.items():
            if isinstance(values, np.ndarray):
                column = f"{len(self.columns)} {name}"
                self.columns[column], values = as_float32(values), column
            chart[name] = values
        return chart


def fit_page(fit: Fit, *, title: str = "fit") -> str:
    """Return the page of a fit, with as much as is known of it.

    Raises:
      ValueError: If the fit holds many runs, as `jax.vmap` returns it.
      TypeError: If it is traced.
    """
    if isinstance(fit.status, jax.core.Tracer):
        raise TypeError("to_html: the fit is traced; call it on what the jit, vmap or grad returns")
    if np.ndim(fit.status):
        raise ValueError(
            f"to_html: the fit holds {np.size(fit.status):,} runs; take one, jax.tree.map(lambda x: x[0], fit), or use "
            f"jf.sweep, whose grid has a page"
        )
    page = PageBlocks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page has them as notes
        report_of_fit = _report(fit)
        _fill(page, fit, report_of_fit)
    facts = report_of_fit.facts if isinstance(report_of_fit, Report) else {}
    versions = {name: text for name, text in environment(fit.precision or "float32").items() if text}
    rows = [["page", made_by()], *map(list, facts.items()), *map(list, versions.items())]
    header = {"kind": "fit", "title": title, "blocks": page.blocks, "provenance": rows}
    return page_of(title, packed(header, page.columns))


def _fill(page: PageBlocks, fit: Fit, report_of_fit: Report | str) -> None:
    page.add(text=str(fit).splitlines()[0])
    notes = (
        report_of_fit.notes
        if isinstance(report_of_fit, Report)
        else (*([fit.note] if fit.note else []), *summaries.doubts(fit))
    )
    for note in notes:
        page.add(text=note, note=True)
    _curve(fit, page)
    _residuals(fit, page)
    _table(fit, report_of_fit, page)
    _profiles(fit, report_of_fit, page)
    _history(fit, page)


def _report(fit: Fit) -> Report | str:
    """Return the report, or why there is none."""
    count = sum(np.size(x) for x in jax.tree.leaves(numbers_in(fit)))
    if count > PARAMS:
        return f"the errors of {count:,} params are not computed for a page; see jf.report(fit)"
    try:
        return report(fit)
    except REFUSED as error:
        return str(error)


def _data(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Return x, y, which rows are shown, and the standard deviations; None where no curve can be drawn through them."""
    if fit.problem is None or not noise_model_of(fit.problem.loss).predicts:
        return None
    x, y = (np.asarray(item, float) for item in fit.problem.data[:2])
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        return None
    counts = np.asarray(fit.problem.data[-1], bool) if is_masked(fit.problem.loss) else np.ones(x.shape, bool)
    shown = np.flatnonzero(counts & np.isfinite(x) & np.isfinite(y))
    if not len(shown):
        return None
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, min(len(shown), POINTS)).astype(int))]
    names, sigma = data_names(fit.problem.loss), None
    if "sigma" in names and fit.absolute_sigma is not False:
        sigma = np.asarray(fit.problem.data[names.index("sigma")], float)
        sigma = np.sqrt(np.diagonal(sigma)) if sigma.ndim == 2 else np.broadcast_to(sigma, y.shape)
    return x, y, shown, sigma


def _reach(x: np.ndarray) -> dict[str, float | bool]:
    """Return the scale of x, which reaches a bit beyond the data."""
    low, high = x.min(), x.max()
    room = 0.02 * (high - low) or 0.5
    return {"low": float(low - room), "high": float(high + room), "log": False}


def _curve(fit: Fit, page: PageBlocks) -> None:
    data = _data(fit)
    if data is None:
        return
    x, y, shown, sigma = data
    reach, (first, last) = _reach(x[shown]), (x[shown].min(), x[shown].max())
    # A model may not be defined on the other side of zero.
    at = np.linspace(reach["low"] if first else 0.0, reach["high"] if last else 0.0, CURVE)
    try:
        limits = band(fit, at)
        curve = page.series("blue", "curve with its 95 % confidence band", x=at, y=np.asarray(limits.value),
                            low=np.asarray(limits.low), high=np.asarray(limits.high))  # fmt: skip
    except REFUSED:
        curve = page.series("blue", "curve", x=at, y=np.asarray(fit.predict(at)))
    bars = {} if sigma is None else {"bars": sigma[shown]}
    points = page.series("ink", "data" if sigma is None else "data with their errors", x=x[shown], y=y[shown],
                         dots=True, **bars)  # fmt: skip
    page.add(title="Data and curve")
    if len(shown) == POINTS:
        page.add(text=f"{POINTS:,} of {len(x):,} points are shown", note=True)
    page.add(series=[curve, points], height=340, x=reach, xlabel="x", label="data and curve")


def _residuals(fit: Fit, page: PageBlocks) -> None:
    data = _data(fit)
    if data is None:
        return
    try:
        left = np.asarray(residuals(fit).standardized, float)
    except REFUSED:
        return
    x, _, shown, _ = data
    most = max(3.0, 1.1 * float(np.max(np.abs(left[shown]), initial=0.0, where=np.isfinite(left[shown]))))
    drawn = page.series("ink", x=x[shown], y=left[shown], dots=True, stems=True)
    robust = noise_model_of(fit.problem.loss).kind == ROBUST  # pyright: ignore[reportOptionalMemberAccess]
    page.add(title=f"Residuals over their {'scale' if robust else 'standard deviation'}")
    page.add(
        series=[drawn], height=190, x=_reach(x[shown]), y={"low": -most, "high": most, "log": False}, xlabel="x",
        label="standardized residuals",
    )  # fmt: skip


def _table(fit: Fit, report_of_fit: Report | str, page: PageBlocks) -> None:
    page.add(title="Params")
    if isinstance(report_of_fit, str):
        pairs = zip(labels_of(numbers_in(fit))[:PARAMS], flattened(numbers_in(fit)), strict=False)
        rows = [[name, f"{x:.6g}"] for name, x in pairs]
        page.add(head=["param", "value"], rows=rows, left=[True, False])
        page.add(text=f"No errors are given: {report_of_fit}", note=True)
        return
    head, rows, left = report_of_fit.table()
    page.add(head=head, rows=rows, left=left)
    page.add(copies=[["Copy as CSV", report_of_fit.to_csv()], ["Copy as LaTeX", report_of_fit.to_latex()],
                     ["Copy as Markdown", report_of_fit.to_markdown()]])  # fmt: skip
    page.add(title="Goodness of fit")
    page.add(head=["", ""], rows=[[name, text] for name, text in report_of_fit.sums()], left=[True, False])
    names = [row.name for row in report_of_fit.rows]
    if 1 < len(names) <= PAIRED:
        page.add(title="Correlations")
        cells = [[f"{r:+.3f}" if np.isfinite(r) else "" for r in row[: i + 1]] for i, row in
                 enumerate(report_of_fit.correlations)]  # fmt: skip
        rows = [[name, *row, *[""] * (len(names) - len(row))] for name, row in zip(names, cells, strict=True)]
        page.add(head=["", *names], rows=rows, left=[True])
    elif pairs := report_of_fit.pairs()[:PAIRED]:
        page.add(title="The strongest correlations")
        page.add(head=["param", "param", "correlation"], rows=[[a, b, f"{r:+.3f}"] for a, b, r in pairs],
                 left=[True, True, False])  # fmt: skip


def _profiles(fit: Fit, report_of_fit: Report | str, page: PageBlocks) -> None:
    if isinstance(report_of_fit, str) or len(report_of_fit.rows) > PROFILED:
        return
    try:
        profiles = jax.tree.leaves(profile(fit), is_leaf=lambda x: isinstance(x, Profile))
    except REFUSED:
        return
    shown = []
    for one in profiles:
        points = np.shape(one.values)[-1]
        shown += zip(np.reshape(one.values, (-1, points)), np.reshape(one.tau, (-1, points)), strict=True)
    for row, (values, tau) in zip(report_of_fit.rows, shown, strict=True):
        if not (np.isfinite(row.error) and np.isfinite(tau).sum() > 2):
            continue
        if not any(block.get("title") == PROFILES for block in page.blocks):
            page.add(title=PROFILES)
        known, at = np.isfinite(tau), np.linspace(values.min(), values.max(), CURVE)
        smooth = PchipInterpolator(values[known], tau[known], extrapolate=False)(at)
        rises = [np.where(rise <= TOP, rise, np.nan) for rise in (((at - row.value) / row.error) ** 2, smooth**2)]
        straight = page.series("orange", "by the standard error", x=at, y=rises[0])
        curve = page.series("blue", "profile", x=at, y=rises[1])
        level = page.series("ink", "95 %", x=at, y=np.full(len(at), REACHED))
        page.add(
            series=[straight, curve, level], height=190, xlabel=row.name, label=f"profile of {row.name}",
            x={"low": float(at[0]), "high": float(at[-1]), "log": False}, y={"low": 0.0, "high": TOP, "log": False},
        )  # fmt: skip


def _history(fit: Fit, page: PageBlocks) -> None:
    history = fit.history
    if history is None or "loss" not in history or np.ndim(history["loss"]) != 1 or len(history["step"]) < 2:
        return
    steps, drawn = np.asarray(history["step"], float), []
    at = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).astype(int))
    for name, color in (("loss", "blue"), ("validation_loss", "orange")):
        if name in history:
            values = np.asarray(history[name], float)[at]
            drawn.append((values, page.series(color, name.replace("_", " "), x=steps[at], y=values)))
    finite = np.concatenate([values[np.isfinite(values)] for values, _ in drawn])
    least = np.min(finite, initial=np.inf, where=finite > 0)
    log = bool(len(finite) and finite.min() >= 0 and finite.max() > 50 * least)
    page.add(title="History of the loss")
    page.add(series=[series for _, series in drawn], height=260, ylog=log, xlabel="step", label="history of the loss")
