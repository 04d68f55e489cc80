"""A fit with its uncertainty: the curve with its bands, profiles of params, and all pairs of params."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxfit import statistics
from jaxfit.losses.base import ROBUST, noise_model_of
from jaxfit.losses.joint import params_of_model
from jaxfit.plots.house import BLUE, DARK, GREY, ONE_LANE, ORANGE, RED, Room, check_drawn, house, number, panels, style
from jaxfit.problems import name_of
from jaxfit.problems.marks import flattened
from jaxfit.problems.messages import near_keywords
from jaxfit.statistics import Resamples
from jaxfit.statistics.covariances import moments
from jaxfit.statistics.diagnosis import FAR_OUT
from jaxfit.statistics.profiles import Profile
from jaxfit.typing import PyTree
from jaxfit.verbs.evaluations import labels_of
from jaxfit.verbs.results import Fit, numbers_in

GRID, EDGE = 300, 7.0  # points of a curve; scales to which residuals of robust fits are drawn


@near_keywords
def fit(
    fit: Fit, *, level: float = 0.95, prediction: bool = False, ax: Axes | None = None, residuals: Axes | None = None
) -> dict[str, Axes]:
    """Draw the data, the fitted curve and its confidence band, and below them the standardized residuals.

    Of a fit by a robust loss the outliers have rings, and residuals beyond 7 scales lie at the edge.

    Args:
      fit: Of a model of one x.
      level: Confidence level of the band, point by point.
      prediction: Whether to draw the limits of new observations too.
      ax: For the curve; new axes for both if None. If the scale of the axes is already set, the points of the curve are
        spaced evenly on it; on other axes the curve stays smooth if the scale becomes logarithmic later.
      residuals: For the residuals; none are drawn if only `ax` is given.

    Returns:
      The axes by name: "curve", "residuals".

    Raises:
      ValueError: If x or y is not one number for each point; otherwise as `jf.band`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> sorted(jf.plots.fit(run))
      ['curve', 'residuals']
    """
    _check_fit("fit", fit)
    loss = fit.problem.loss
    if not noise_model_of(loss).predicts:
        raise TypeError(
            f"fit: {name_of(loss)} has no model that predicts at x, so that there is no curve to draw; draw the points "
            f"and model({params_of_model(loss, 'fit.params')}, x) with matplotlib"
        )
    x, y = (np.asarray(item, float) for item in fit.problem.data[:2])
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(
            f"fit: x has shape {x.shape} and y {y.shape}, but a curve is drawn of one number for each point: fit and "
            f"draw one column at a time"
        )
    if ax is None:
        grid = {"height_ratios": [3, 1], "hspace": 0.12}
        _, axes = panels([["curve"], ["residuals"]], size=(6.4, 5.6), sharex=True, gridspec_kw=grid)
        ax, residuals = axes["curve"], axes["residuals"]
    with style():
        _curve(fit, x, y, level, prediction, ax)
        if residuals is not None:
            _residuals(fit, x, residuals)
    return {"curve": ax} | ({} if residuals is None else {"residuals": residuals})


def _curve(fit: Fit, x: np.ndarray, y: np.ndarray, level: float, prediction: bool, ax: Axes) -> None:
    at = _spaced(x, ax)
    band = statistics.band(fit, at, level)
    wide = statistics.band(fit, at, level, "prediction") if prediction else None
    sigma = _sigma(fit, y)
    ends = np.concatenate([y if sigma is None else np.concatenate([y - sigma, y + sigma]), band.low, band.high]
                          + ([wide.low, wide.high] if wide else []))  # fmt: skip
    room = 0.03 * np.ptp(at) * (ax.get_xscale() == "linear")  # for half a marker, beside data that begin at zero
    ax.set(xlim=(at[0] - room * (at[0] == 0), at[-1] + room * (at[-1] == 0)))
    ax.set(ylim=_height(np.concatenate([ends, y]), ax))
    ax.fill_between(at, band.low, band.high, color=BLUE, alpha=0.22, lw=0)
    if sigma is not None:
        ax.errorbar(x, y, sigma, fmt="none", ecolor=GREY, elinewidth=1, zorder=2)
    ax.plot(x, y, "o", color=DARK, ms=4 if len(x) <= 200 else 2, zorder=3)
    if noise_model_of(fit.problem.loss).kind == ROBUST:
        far = np.abs(statistics.residuals(fit).standardized) > FAR_OUT
        ax.plot(x[far], y[far], "o", color=RED, mfc="none", ms=9, mew=1.4, zorder=3)
    ax.plot(at, band.value, color=BLUE, zorder=4)
    room = Room(ax)
    for point in zip(x, y, strict=True):
        room.block(*point, width=12)
    for edge in (band.low, band.high):
        room.block(at, edge)
    curve, labels = room.block(at, band.value), []
    if wide is not None:
        lines = []
        for edge in (wide.low, wide.high):
            ax.plot(at, edge, color=ORANGE, lw=1.2, ls=(0, (4, 3)), zorder=4)
            lines.append(room.block(at, edge))
        labels.append((lines[1], f"dashed: {100 * level:g} % of new observations", ORANGE))
    labels.append((curve, f"band: the curve, {100 * level:g} % confidence", BLUE))
    for line, words, color in labels:
        if not room.near(line, words, color=color):  # no room among the points: above them
            height = 1.02 + 0.06 * (color == ORANGE)
            ax.text(1, height, words, color=color, ha="right", va="bottom", transform=ax.transAxes)


def _spaced(x: np.ndarray, ax: Axes) -> np.ndarray:
    """Return the points at which a curve through data is drawn: evenly spaced on the scale of the axis, a bit beyond x.

    Data of one sign stay on their side of zero, and get points at equal ratios too, for an axis that becomes
    logarithmic later.
    """
    x = x[x > 0] if ax.get_xscale() == "log" else x
    if not len(x):
        raise ValueError("fit: no x is above zero, and the axis is logarithmic; set_xscale('linear') or 'symlog'")
    scale = ax.xaxis.get_transform()
    left, right = scale.transform(np.array([x.min(), x.max()]))
    room = 0.03 * (right - left) or 0.5
    at = scale.inverted().transform(np.linspace(left - room, right + room, GRID))
    sizes = np.abs(x[x != 0])
    if not len(sizes) or x.min() < 0 < x.max():
        return at
    sign = np.sign(x.sum())
    near = max(0.5 * sizes.min(), np.min(sign * at))
    at = at[sign * at > (0 if len(sizes) < len(x) else near)]
    return np.unique(np.concatenate([at, sign * np.geomspace(near, np.abs(at).max(), GRID), [x.min(), x.max()]]))


def _height(values: np.ndarray, ax: Axes) -> tuple[float, float]:
    """Return the limits of an axis for these values, without those that its scale cannot show."""
    scale = ax.yaxis.get_transform()
    values = values[np.isfinite(values) & ((values > 0) | (ax.get_yscale() != "log"))]
    low, high = scale.transform(np.array([values.min(), values.max()]))
    size = high - low or 1.0
    low, high = scale.inverted().transform(np.array([low - 0.05 * size, high + 0.12 * size]))
    return float(low), float(high)


def _sigma(fit: Fit, y: np.ndarray) -> np.ndarray | None:
    """Return the standard deviations to draw, if the loss has them in the unit of y."""
    names = fit.problem.loss.data_names
    if "sigma" not in names or fit.absolute_sigma is False:
        return None
    sigma = np.asarray(fit.problem.data[names.index("sigma")], float)
    return sigma if sigma.shape == y.shape else np.sqrt(np.diagonal(sigma))


def _residuals(fit: Fit, x: np.ndarray, ax: Axes) -> None:
    left = np.asarray(statistics.residuals(fit).standardized, float)
    robust = noise_model_of(fit.problem.loss).kind == ROBUST
    far = (np.abs(left) > FAR_OUT) & robust
    if robust:  # outliers of a hundred scales leave no room for the others: they lie at the edge
        left = np.clip(left, -EDGE, EDGE)
    most = max(3.0, 1.15 * np.nanmax(np.abs(left)))
    ax.set(ylim=(-most, most), ylabel="residual / scale" if robust else "residual / error")
    ax.set_yticks([-2, 0, 2], ["\N{MINUS SIGN}2", "0", "2"])
    ax.axhspan(-2, 2, color=GREY, alpha=0.12, lw=0)
    ax.axhline(0, color=BLUE, lw=1.2)
    ax.vlines(x, 0, left, color=GREY, lw=1)
    ax.plot(x, left, "o", color=DARK, ms=4)
    ax.plot(x[far], left[far], "o", color=RED, mfc="none", ms=9, mew=1.4)


@house
def profile(found: Fit | Profile, error: float | None = None, *, name: str = "", reach: float = 1.96, ax: Axes) -> Axes:
    """Draw how the sum of squares rises when a param is held at other values, and the parabola of its standard error.

    The curve is that of `jf.profile`, which follows one branch; an interval by profile may end on a lower one.

    Args:
      found: A fit; or for one param the result of `jf.profile`, with its error.
      error: Its standard error; not needed with a fit.
      name: Of the param, such as "rate", or "w[0]" in an array; it is also the label of the axis.
      reach: Standard errors that the interval reaches; the curves end where they are as high as its square.

    Raises:
      TypeError: If `found` is neither, or a profile comes without its error.
      ValueError: If the fit has no such param, or the param has no error.

    Example:
      >>> found = jf.statistics.Profile(np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.0, 1.0]))
      >>> ax = jf.plots.profile(found, 1.0, name="rate")
    """
    if isinstance(found, Fit):
        found, error, name = _of_param(found, name)
    if not hasattr(found, "tau") or error is None:
        raise TypeError(
            f"plots.profile draws one param of a fit, but got a {type(found).__name__} without an error; pass "
            f'a fit and name="a", or jf.profile(fit)["a"] and jf.standard_errors(fit)["a"]'
        )
    values, rise = np.asarray(found.values, float), np.square(np.asarray(found.tau, float))
    best = values[np.nanargmin(rise)]
    dense = np.linspace(values.min(), values.max(), GRID)
    parabola = ((dense - best) / error) ** 2
    curve = _smooth(dense, values, np.asarray(found.tau, float)) ** 2
    top = 2.4 * reach**2
    ax.set(xlim=(dense[0], dense[-1]), ylim=(-0.04 * top, top), xlabel=name)
    ax.set_ylabel("rise of the sum of squares / s²")
    ax.axhline(reach**2, color=GREY, lw=1, ls=(0, (4, 3)))
    ax.plot(dense, parabola, color=ORANGE)
    ax.plot(dense, curve, color=BLUE)
    for line, color, size in ((parabola, ORANGE, 7), (curve, BLUE, 5)):
        ends = _crossings(dense, line, reach**2)
        ax.plot(ends, np.full(len(ends), reach**2), "o", color=color, ms=size, zorder=4)
        ax.vlines(ends, ax.get_ylim()[0], reach**2, color=color, lw=1, ls=(0, (2, 2)))
    room = Room(ax)
    level = room.block(dense, np.full(GRID, reach**2))
    lines = [room.block(dense, np.minimum(line, top)) for line in (parabola, curve)]
    room.near(lines[0], "standard error", color=ORANGE)
    room.near(lines[1], "profile", color=BLUE)
    room.near(level, f"{number(round(reach**2, 2))}", color=GREY, fontsize=8.5, prefer=(0.5, 0.45))
    return ax


def _check_fit(verb: str, fit: object) -> None:
    check_drawn(verb, "a fit", fit, Fit, f"what jf.fit or jf.curve_fit returned, {ONE_LANE}")


def _of_param(fit: Fit, name: str) -> tuple[Profile, float, str]:
    """Return the profile of one param of a fit, its error and its name."""
    labels, errors = labels_of(numbers_in(fit)), flattened(statistics.standard_errors(fit))
    known = [label for label, error in zip(labels, errors, strict=True) if np.isfinite(error)]
    name = known[0] if name == "" and len(known) == 1 else name
    if name not in known:
        raise ValueError(
            f"plots.profile: name is {name!r}, but the params with an error are {', '.join(known) or 'none'}; name one"
        )
    i, profiles = labels.index(name), statistics.profile(fit)
    pairs = jax.tree.leaves(profiles, is_leaf=lambda x: isinstance(x, Profile))
    values, tau = (np.concatenate([getattr(p, k).reshape(-1, p.tau.shape[-1]) for p in pairs]) for k in Profile._fields)
    return Profile(values[i], tau[i]), float(errors[i]), name


def _smooth(at: np.ndarray, values: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Return tau between its points by a smooth interpolation, since it is nearly linear."""
    from scipy.interpolate import PchipInterpolator

    known = np.isfinite(tau)
    order = np.unique(values[known], return_index=True)[1]
    return PchipInterpolator(values[known][order], tau[known][order], extrapolate=False)(at)


def _crossings(x: np.ndarray, y: np.ndarray, level: float) -> np.ndarray:
    above = y > level
    places = np.flatnonzero(above[1:] != above[:-1])
    share = (level - y[places]) / (y[places + 1] - y[places])
    return x[places] + share * (x[places + 1] - x[places])


@near_keywords
def corner(
    fit: Fit, samples: Resamples | None = None, *, names: Sequence[str] | None = None, level: float = 0.95
) -> dict:
    """Draw all params with their intervals, and all pairs of params with their covariance ellipse over the refits.

    The diagonal shows the histogram of the refits, and as bars below it the intervals by the standard error, the
    profile and the refits. Below the diagonal are the refits with the ellipse that contains the fraction `level` of
    them in the linear theory.

    Args:
      fit: With two to six params that have an error.
      samples: Of `jf.bootstrap` or `jf.monte_carlo`; none if None.
      names: Of the params to draw; all that have an error if None.
      level: Of intervals and ellipses.

    Returns:
      The axes by pair of names, (row, column).

    Raises:
      ValueError: If there are no params with an error, or more than six.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> sorted(jf.plots.corner(run))[0]
      ('b', 'b')
    """
    _check_fit("corner", fit)
    labels = labels_of(numbers_in(fit))
    values, errors = (flattened(tree) for tree in (numbers_in(fit), statistics.standard_errors(fit)))
    chosen = [i for i, n in enumerate(labels) if np.isfinite(errors[i]) and (names is None or n in names)]
    if not 1 <= len(chosen) <= 6:
        raise ValueError(
            f"corner: {len(chosen)} params have an error, and one to six are drawn; choose with names=, of "
            f"{', '.join(labels)}"
        )
    k = len(chosen)
    mosaic = [[f"{i} {j}" if j <= i else "." for j in range(k)] for i in range(k)]
    space = {"wspace": 0.12, "hspace": 0.12}
    figure, axes = panels(mosaic, size=(2.1 * k + 1, 2.1 * k + 0.6), gridspec_kw=space)
    table = np.asarray(moments("corner", fit, None).covariance)
    drawn = None if samples is None else np.concatenate(
        [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(samples.params)], axis=1
    )  # fmt: skip
    methods = {ORANGE: "wald", BLUE: "profile"}
    ends = {color: _ends(statistics.intervals(fit, method, level)) for color, method in methods.items()}
    if drawn is not None:
        ends[RED] = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    span = {i: _span(values[i], errors[i], [e[:, i] for e in ends.values()]) for i in chosen}
    profiles = {}
    with style():
        for row, i in enumerate(chosen):
            for column, j in enumerate(chosen[: row + 1]):
                ax = axes[f"{row} {column}"]
                profiles[labels[i], labels[j]] = ax
                ax.set_xlim(*span[j])
                if i == j:
                    _marginal(ax, i, drawn, ends, values)
                else:
                    ax.set_ylim(*span[i])
                    _pair(ax, (j, i), values, table, drawn, level)
                _edges(ax, row, column, k, labels[j], labels[i])
        meaning = [f"bars: intervals of {100 * level:g} %"]
        if k > 1:
            meaning.append(f"ellipse: holds {100 * level:g} % of refits\nif the model were linear")
        if drawn is not None:
            meaning += ["red: the refits"]
        place, side = ((0.9, 0.88), "right") if k > 1 else ((0.125, 0.9), "left")
        figure.text(*place, "\n".join(meaning), ha=side, va="top" if k > 1 else "bottom", color="#555555", fontsize=8)
    return profiles


def _edges(ax: Axes, row: int, column: int, k: int, below: str, beside: str) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    if row == k - 1:
        ax.set_xlabel(below)
    else:
        ax.tick_params(labelbottom=False)
    if row == column:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        return
    ax.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
    if column == 0:
        ax.set_ylabel(beside)
    else:
        ax.tick_params(labelleft=False)


def _span(value: float, error: float, ends: list[np.ndarray]) -> tuple[float, float]:
    known = np.concatenate([*ends, [value - 2.6 * error, value + 2.6 * error]])
    known = known[np.isfinite(known)]
    size = np.ptp(known)
    return known.min() - 0.12 * size, known.max() + 0.12 * size


def _marginal(ax: Axes, i: int, drawn: np.ndarray | None, ends: dict, values: np.ndarray) -> None:
    names = {ORANGE: "standard error", BLUE: "profile", RED: "refits"}
    if drawn is not None:
        inside = drawn[np.isfinite(drawn[:, i]), i]
        counts, edges = np.histogram(inside, 40, range=ax.get_xlim())
        ax.stairs(counts / counts.max(), edges, fill=True, color=RED, alpha=0.25, lw=0)
    ax.set_ylim(-0.62, 1.3)
    low, high = ax.get_xlim()
    for row, (color, pair) in enumerate(ends.items()):
        height = -0.12 - 0.17 * row
        a, b = np.clip(pair[:, i], low, high)
        ax.plot([a, b], [height] * 2, color=color, lw=2.2, solid_capstyle="butt")
        ax.plot(values[i], height, "|", color=color, ms=6)
        if i == 0:
            ax.text(0.97, 0.96 - 0.1 * row, names[color], color=color, ha="right", va="top", transform=ax.transAxes,
                    fontsize=8)  # fmt: skip


def _pair(
    ax: Axes, pair: tuple[int, int], values: np.ndarray, table: np.ndarray, drawn: np.ndarray | None, level: float
) -> None:
    x, y = pair
    if drawn is not None:
        ax.plot(*drawn[:1500, [x, y]].T, ".", color=RED, ms=1.6, alpha=0.35, mew=0, zorder=1)
    lengths, directions = np.linalg.eigh(table[np.ix_(pair, pair)])
    angle = np.linspace(0, 2 * np.pi, 181)
    radius = np.sqrt(-2 * np.log(1 - level))
    circle = radius * np.stack([np.cos(angle), np.sin(angle)])
    ellipse = directions @ (np.sqrt(np.maximum(lengths, 0))[:, None] * circle)
    ax.plot(values[x] + ellipse[0], values[y] + ellipse[1], color=ORANGE, lw=1.6)
    ax.plot(values[x], values[y], "+", color=DARK, ms=7, mew=1.3)


def _ends(tree: PyTree) -> np.ndarray:
    """Return the ends of the intervals of a tree, (2, K)."""
    pairs = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, statistics.Interval))
    return np.stack([np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1)])
