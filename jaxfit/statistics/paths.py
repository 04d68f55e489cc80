"""Follow the smallest sum of squares outward from a minimum, by steps that double while it stays on one branch.

A refit with a param held can end in another basin than its neighbor did. On one branch the rise of the sum is the
integral of its slope, whatever the step; so a step counts only if the trapezoid rule holds over it, and is tried again
at a quarter where it does not. Each refit starts where the line through the last two optima leads, or at the last one
where that line leads out of what is finite. The first step that passes the goal brackets it, and the cubic through
values and slopes finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

ROUNDS = 150
FIRST = 0.25  # of a standard error: the first step
RISE = 1.0  # of tau that a step aims at, at most
SLACK, SHARE = 0.02, 0.1  # of the rise by which the trapezoid rule may be off: in itself, and of the step's own
CLOSE = 1e-8  # of tau
TINY = 1e-6  # of the way, or of a standard error: a step as small, and the branch has ended
SHORT = 1e-3  # the same where a refit is not finite; and how narrow a bracket is good enough when the rounds are over
FAR = 30.0  # times as far as the linear theory has it: from there an end may be open
LEVEL = 3.0  # the same where there are no refits further out
HALVINGS = 8  # of a gap in which a profile passes the goal
BENEATH = 4e-3  # of the goal by which a refit at an end must be lower: 0.2 % of tau
EVER = np.log(1e6)  # e-folds of the way over which a rise would have to go on


class Nodes(NamedTuple):
    """Refits with a value held, one for each profile."""

    target: Any  # (n,) where it was held
    value: Any  # (n,) where it ended, a little short of that
    rise: Any  # (n,) of the sum of squares, tau**2; not finite where there is no fit
    slope: Any  # (n,) of the rise by the value
    params: Any  # (n, k)


class Way(NamedTuple):
    """Where profiles lead."""

    start: Any  # (n,) the value at the minimum
    side: Any  # (n,) -1 or 1
    scale: Any  # (n,) the standard error
    edge: Any  # (n,) where it ends at the latest
    goal: Any  # (n,) the rise where it ends


class Walk(NamedTuple):
    """Profiles on their way."""

    inner: Nodes  # the last below the goal
    before: Nodes  # the one before that
    outer: Nodes  # the first above it; NaN while there is none
    other: Nodes  # the last that was refused, perhaps on another branch; NaN while there is none
    step: Any  # (n,) the longest that may be tried
    astray: Any  # (n,) bool: there was no fit where the line through the last two optima leads
    end: Any  # (n,) NaN while it is not found
    peak: Any  # (n,) the largest rise so far
    lowest: Any  # (n,) and the least
    several: Any  # (n,) bool: it fell again, or went on on another branch
    lost: Any  # (n,) bool: there are no refits beyond its end, or they lead no further


def begin(nodes: Nodes, slopes: Any, way: Way) -> Walk:
    """At the minimum; `slopes` (n, k) are those of the params by the value in the linear theory."""
    back = way.side * way.scale
    before = nodes._replace(value=nodes.value - back, params=nodes.params - slopes * back[:, None])
    nowhere, zero, no = _nowhere(nodes), np.zeros(len(back)), np.zeros(len(back), bool)
    return Walk(nodes, before, nowhere, nowhere, FIRST * way.scale, no, nowhere.value, zero, zero, no, no)


def follow(refit: Callable[[Any, Any], Nodes], walk: Walk, way: Way) -> Walk:
    """All profiles to their ends: the goal, the edge, infinity, or as far as there are refits."""
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
    """The walk with lost profiles taken up beyond the gap, by refits from the minimum.

    A logistic curve's rate goes to infinity as its midpoint comes to a point of the data, and is finite beyond. Where
    the refit beyond is below the goal, the walk goes on from it; where it is above, the end lies in the gap, and is
    found by halving.
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
    """The walk with profiles taken up at their ends where a refit there, from other starts (n, k) each, is lower."""
    closed = np.isfinite(walk.end)
    end = np.where(closed, walk.end, walk.inner.value)
    known = np.where(closed & np.isfinite(walk.outer.rise), way.goal, walk.inner.rise)
    least = walk.inner._replace(rise=np.full(len(end), np.inf))
    for params in starts:
        found = refit(end, params)
        there = np.abs(found.value - end) <= SLACK * np.abs(end - way.start)
        rise = found.rise + found.slope * (end - found.value)
        least = _taken(there & (rise < least.rise), found._replace(rise=rise), least)
    several = walk.several | (least.rise < known - SLACK - SHARE * known)
    on = closed & (end != way.edge) & (least.rise < (1 - BENEATH) * way.goal)
    return _taken_up(walk._replace(several=several), least, on, way)


def _taken_up(walk: Walk, nodes: Nodes, where: np.ndarray, way: Way) -> Walk:
    """The walk begun again at some nodes below the goal, wherever it ended."""
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
    """Nodes of NaN in the shape of these."""
    return Nodes(*(np.full(np.shape(x), np.nan) for x in nodes))


def _next(walk: Walk, way: Way, *, halves: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where to hold the values, and the params to start from."""
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
    ahead = inner.params + tip / width[:, None] * (target - inner.value)[:, None]
    return target, np.where(walk.astray[:, None], inner.params, ahead)


def _crossing(inner: Nodes, outer: Nodes, goal: Any) -> np.ndarray:
    """(n,) the part of the way between two nodes where the cubic through their rises and slopes is at the goal."""
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
    """What a refit is to the path that asked for it; all (n,) bool."""

    inside: Any  # its next node
    outside: Any  # on the branch, and beyond the goal
    refused: Any  # on no branch known, or none at all
    jumps: Any  # the next node, though on another branch: this one has ended
    small: Any  # after a step as small as steps get


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
    """(n,) ends, NaN while not found, and (n,) bool where one is for want of refits further out."""
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
    """(n,) bool: from as far, rising on at the present pace for each e-fold of the way, none would reach the goal."""
    so_far = np.abs(nodes.value - way.start)
    pace = way.side * nodes.slope * so_far
    with np.errstate(invalid="ignore"):
        return np.isfinite(way.goal) & (so_far >= far) & (pace * EVER < way.goal - nodes.rise)


def _moved(walk: Walk, found: Nodes, way: Way, under_way: np.ndarray) -> Walk:
    """The walk after one more refit of each."""
    tried = np.abs(found.target - walk.inner.value)
    stays = (
        np.abs(found.value - walk.inner.value) <= TINY * tried
    )  # as it does at params beyond which nothing is finite
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
    """The new nodes at some places."""
    return Nodes(*(np.where(where[:, None] if x.ndim > 1 else where, x, y) for x, y in zip(new, old, strict=True)))
