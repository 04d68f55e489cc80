"""Follow profiles outward from a minimum, in steps that double while the refits stay on one branch.

A refit with a param held can end in another basin than the refit before. On one branch the rise of the sum of squares
is the integral of its slope. So a step is accepted only if the trapezoid rule holds over it; otherwise a quarter of it
is tried. A refit starts on the line through the last two optima, or at the last optimum if the refit from that line was
not finite. The first accepted step beyond the goal brackets the end, which is then found by cubic interpolation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

ROUNDS = 150  # at most
FIRST = 0.25  # standard errors: the first step
RISE = 1.0  # the largest rise of tau that a step aims at
SLACK, SHARE = 0.02, 0.1  # error allowed to the trapezoid rule: of tau**2, and relative to the rise over the step
CLOSE = 1e-8  # relative error of tau at an end
TINY = 1e-6  # relative to the distance so far: the smallest step; where it is refused, the branch ends
SHORT = 1e-3  # the same where refits are not finite; also the width of a bracket that is accepted after the last round
FAR = 30.0  # times the distance of the linear theory, beyond which an end may be open
LEVEL = 3.0  # the same where there are no finite refits further out
HALVINGS = 8  # bisections of a gap in which a profile passes the goal
BENEATH = 4e-3  # relative to the goal: how much lower a refit at an end must be to go on from it; 0.2 % of tau
EVER = np.log(1e6)  # e-folds of distance over which a profile that hardly rises is extrapolated


class Nodes(NamedTuple):
    """One refit with the value held, for each profile."""

    target: Any  # (n,) where it was held
    value: Any  # (n,) where it ended, a little short of that
    rise: Any  # (n,) of the sum of squares, tau**2; not finite where there is no fit
    slope: Any  # (n,) of the rise by the value
    params: Any  # (n, k)


class Way(NamedTuple):
    """The task of each profile: where it begins, and where it ends."""

    start: Any  # (n,) the value at the minimum
    side: Any  # (n,) -1 or 1
    scale: Any  # (n,) the standard error
    edge: Any  # (n,) where it ends at the latest
    goal: Any  # (n,) the rise where it ends


class Walk(NamedTuple):
    """The state of each profile while it is followed."""

    inner: Nodes  # the last below the goal
    before: Nodes  # the one before that
    outer: Nodes  # the first above it; NaN while there is none
    other: Nodes  # the last that was refused, perhaps on another branch; NaN while there is none
    step: Any  # (n,) the longest that may be tried
    astray: Any  # (n,) bool: the refit from the line through the last two optima was not finite
    end: Any  # (n,) NaN while it is not found
    peak: Any  # (n,) the largest rise so far
    lowest: Any  # (n,) and the least
    several: Any  # (n,) bool: it has another minimum, or changed to another branch
    lost: Any  # (n,) bool: no refit beyond its end is finite, or the rounds were over


def begin(nodes: Nodes, slopes: Any, way: Way) -> Walk:
    """Return the state at the minimum; `slopes` (n, k) are d params / d value in the linear theory."""
    back = way.side * way.scale
    before = nodes._replace(value=nodes.value - back, params=nodes.params - slopes * back[:, None])
    nowhere, zero, no = _nowhere(nodes), np.zeros(len(back)), np.zeros(len(back), bool)
    return Walk(nodes, before, nowhere, nowhere, FIRST * way.scale, no, nowhere.value, zero, zero, no, no)


def follow(refit: Callable[[Any, Any], Nodes], walk: Walk, way: Way) -> Walk:
    """Follow all profiles to their ends: the goal, the edge, infinity, or the last finite refit."""
    for count in range(ROUNDS):
        under_way = np.isnan(walk.end)
        if not under_way.any():
            break
        target, params = _next(walk, way, halves=count % 5 == 4)
        inner = walk.inner
        found = refit(np.where(under_way, target, inner.target), np.where(under_way[:, None], params, inner.params))
        walk = _moved(walk, found, way, under_way)
    left = np.isnan(walk.end)
    near = np.abs(walk.outer.value - walk.inner.value) <= SHORT * np.abs(walk.inner.value - way.start)
    return walk._replace(end=np.where(left, walk.inner.value, walk.end), lost=walk.lost | left & ~near)


def across(refit: Callable[[Any, Any], Nodes], walk: Walk, way: Way, origin: Any) -> Walk:
    """Continue lost profiles beyond a gap without finite refits, by a refit from the minimum.

    A logistic curve's rate goes to infinity as its midpoint comes to a point of the data, and is finite beyond. If the
    refit beyond is below the goal, the profile continues from it; if it is above, the end lies between and is found by
    bisection.
    """
    inner, stride = walk.inner, FIRST * way.scale
    ahead = inner.value + way.side * stride
    ahead = np.where(way.side < 0, np.maximum(ahead, way.edge), np.minimum(ahead, way.edge))
    found = refit(np.where(walk.lost, ahead, inner.target), np.where(walk.lost[:, None], origin, inner.params))
    there = walk.lost & np.isfinite(found.rise) & (np.abs(found.value - ahead) <= SLACK * stride)
    beyond, known, low = there & (found.rise >= way.goal), np.zeros(len(ahead), bool), inner.value
    for _ in range(HALVINGS if beyond.any() else 0):
        middle = (low + found.value) / 2
        nodes = refit(np.where(beyond, middle, inner.target), np.where(beyond[:, None], found.params, inner.params))
        fine = np.isfinite(nodes.rise) & (np.abs(nodes.value - middle) <= SLACK * stride)
        above = beyond & fine & (nodes.rise >= way.goal)
        known, low = np.where(above, known, fine), np.where(above, low, middle)
        found = _taken(above, nodes, found)
    walk = walk._replace(end=np.where(beyond, found.value, walk.end), lost=walk.lost & ~(beyond & known))
    on = there & ~beyond
    walk = _taken_up(walk, found, on, way)
    return walk._replace(several=walk.several | on)


def beneath(refit: Callable[[Any, Any], Nodes], walk: Walk, way: Way, starts: Iterable[Any]) -> Walk:
    """Continue profiles at whose ends a refit from one of the other starts, (n, k) each, is below the goal."""
    closed = np.isfinite(walk.end)
    end = np.where(closed, walk.end, walk.inner.value)
    known = np.where(closed & np.isfinite(walk.outer.rise), way.goal, walk.inner.rise)
    least = walk.inner._replace(rise=np.full(len(end), np.inf))
    for params in starts:
        found = refit(end, params)
        there = np.abs(found.value - end) <= SLACK * np.abs(end - way.start)
        with np.errstate(over="ignore", invalid="ignore"):
            rise = found.rise + found.slope * (end - found.value)
        least = _taken(there & (rise < least.rise), found._replace(rise=rise), least)
    several = walk.several | (least.rise < known - SLACK - SHARE * known)
    on = closed & (end != way.edge) & (least.rise < (1 - BENEATH) * way.goal)
    return _taken_up(walk._replace(several=several), least, on, way)


def _taken_up(walk: Walk, nodes: Nodes, where: np.ndarray, way: Way) -> Walk:
    """Return the state with some profiles continued from nodes below the goal."""
    return walk._replace(
        inner=_taken(where, nodes, walk.inner),
        before=_taken(where, nodes, walk.before),
        outer=_taken(where, _nowhere(nodes), walk.outer),
        other=_taken(where, _nowhere(nodes), walk.other),
        step=np.where(where, FIRST * way.scale, walk.step),
        end=np.where(where, np.nan, walk.end),
        lost=walk.lost & ~where,
    )


def _nowhere(nodes: Nodes) -> Nodes:
    """Return nodes of NaN with the shapes of these."""
    return Nodes(*(np.full(np.shape(x), np.nan) for x in nodes))


def _next(walk: Walk, way: Way, *, halves: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the next values to hold, (n,), and the params to start from, (n, k)."""
    inner, before, outer = walk.inner, walk.before, walk.outer
    bracketed = ~np.isnan(outer.rise)
    share = np.full(len(way.goal), 0.5) if halves else _crossing(inner, outer, way.goal)
    gap = np.where(bracketed, outer.target - inner.target, np.inf)
    ahead = np.where(bracketed, np.abs(gap) * share, np.inf)
    target = inner.target + way.side * np.minimum(ahead, walk.step)
    target = np.where(way.side < 0, np.maximum(target, way.edge), np.minimum(target, way.edge))
    far, near = (np.where(bracketed, a, b) for a, b in ((outer.value, inner.value), (inner.value, before.value)))
    tip = np.where(bracketed[:, None], outer.params - inner.params, inner.params - before.params)
    width = np.where(far == near, 1, far - near)
    with np.errstate(over="ignore", invalid="ignore"):  # the other params run away on a flat profile
        ahead = inner.params + tip / width[:, None] * (target - inner.value)[:, None]
    return target, np.where(walk.astray[:, None], inner.params, ahead)


def _crossing(inner: Nodes, outer: Nodes, goal: Any) -> np.ndarray:
    """Return (n,) the fraction between two nodes at which the cubic through their rises and slopes meets the goal."""
    width = outer.value - inner.value
    low, high = np.zeros(len(goal)), np.ones(len(goal))
    for _ in range(50):
        s = (low + high) / 2
        rise = (
            (1 + 2 * s) * (1 - s) ** 2 * inner.rise + s**2 * (3 - 2 * s) * outer.rise
            + s * (1 - s) * ((1 - s) * inner.slope - s * outer.slope) * width
        )  # fmt: skip
        low, high = np.where(rise < goal, s, low), np.where(rise < goal, high, s)
    return (low + high) / 2


class Verdict(NamedTuple):
    """How a refit continues its profile; all (n,) bool."""

    inside: Any  # accepted, below the goal
    outside: Any  # accepted, above the goal
    refused: Any  # not on the branch, or not finite
    jumps: Any  # accepted though on another branch, because this branch ends here
    small: Any  # the step was the smallest that is tried


def _judged(inner: Nodes, found: Nodes, way: Way, under_way: np.ndarray) -> Verdict:
    change = found.rise - inner.rise
    with np.errstate(invalid="ignore", over="ignore"):
        rule = (inner.slope + found.slope) / 2 * (found.value - inner.value)
        smooth = np.abs(change - rule) <= SLACK + SHARE * np.abs(change)
    on_branch = under_way & smooth & np.isfinite(found.rise)
    size = np.maximum(way.scale, np.abs(inner.value - way.start))
    least = np.where(np.isfinite(found.rise), TINY, SHORT) * size
    small = np.abs(found.target - inner.target) <= least + 4e-16 * np.abs(inner.value)
    jumps = under_way & small & ~on_branch & (found.rise < way.goal)
    inside = on_branch & (found.rise < way.goal) | jumps
    outside = on_branch & ~inside
    return Verdict(inside, outside, under_way & ~inside & ~outside, jumps, small)


def _ended(walk: Walk, found: Nodes, way: Way, verdict: Verdict) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) ends, NaN while not found, and (n,) bool: ends that are the last finite refit."""
    inner, outer, inside = walk.inner, walk.outer, verdict.inside
    reach = np.sqrt(way.goal) * way.scale
    at_edge = inside & (found.target == way.edge)
    with np.errstate(invalid="ignore"):
        at_goal = (inside | verdict.outside) & (np.abs(found.rise / way.goal - 1) <= 2 * CLOSE)
        within = found.rise + found.slope * (way.edge - found.value) < way.goal
    narrow = np.abs(outer.value - inner.value) <= 1e-12 * way.scale + 4e-16 * np.abs(inner.value)
    stuck = verdict.refused & verdict.small
    lost = stuck & ~np.isfinite(found.rise)
    level = inside & np.isnan(outer.rise) & _never(found, way, FAR * reach) | lost & _never(inner, way, LEVEL * reach)
    end = walk.end
    for where, value in (
        (at_goal, found.value), (at_edge & within, way.edge), (at_edge, found.value), (level, way.edge),
        (narrow | stuck, inner.value),
    ):  # fmt: skip
        end = np.where(np.isnan(end) & where, value, end)
    return end, lost & ~level


def _never(nodes: Nodes, way: Way, far: np.ndarray) -> np.ndarray:
    """Return (n,) bool: at least this far out, and at the present rise per e-fold of distance short of the goal."""
    so_far = np.abs(nodes.value - way.start)
    pace = way.side * nodes.slope * so_far
    with np.errstate(invalid="ignore"):
        return np.isfinite(way.goal) & (so_far >= far) & (pace * EVER < way.goal - nodes.rise)


def _moved(walk: Walk, found: Nodes, way: Way, under_way: np.ndarray) -> Walk:
    """Return the state after one more refit of each profile."""
    # A refit stays where it starts if nothing beyond is finite, and if it is asked to move by a rounding only.
    asked = np.abs(found.target - walk.inner.target)
    stays = (np.abs(found.value - walk.inner.value) <= TINY * asked) & (asked > TINY * way.scale)
    found = found._replace(rise=np.where(stays & under_way, np.inf, found.rise))
    verdict = _judged(walk.inner, found, way, under_way)
    end, lost = _ended(walk, found, way, verdict)
    inside, tried = verdict.inside, np.abs(found.target - walk.inner.target)
    inner = _taken(inside, found, walk.inner)
    tau = np.sqrt(np.maximum(inner.rise, 0))
    steep = np.where(tau > 0, way.side * inner.slope / (2 * np.where(tau > 0, tau, 1)), 0)
    aim = RISE * np.maximum(1, tau / 2) / np.where(steep > 0, steep, 1e-300)
    step = np.where(verdict.refused, tried / 4, np.where(under_way, np.minimum(2 * tried, aim), walk.step))
    peak = np.where(inside, np.maximum(walk.peak, found.rise), walk.peak)
    falls = inside & (found.rise < peak - SLACK - SHARE * peak)
    return Walk(
        inner=inner,
        before=_taken(inside, walk.inner, walk.before),
        outer=_taken(verdict.outside, found, walk.outer),
        other=_taken(verdict.refused & np.isfinite(found.rise), found, walk.other),
        step=np.where(verdict.jumps, FIRST * way.scale, step),
        astray=verdict.refused & ~np.isfinite(found.rise),
        end=end,
        peak=peak,
        lowest=np.where(inside, np.fmin(walk.lowest, found.rise), walk.lowest),
        several=walk.several | falls | verdict.jumps,
        lost=walk.lost | lost,
    )


def _taken(where: np.ndarray, new: Nodes, old: Nodes) -> Nodes:
    """Return the new nodes where asked, else the old."""
    return Nodes(*(np.where(where[:, None] if x.ndim > 1 else where, x, y) for x, y in zip(new, old, strict=True)))
