"""Follow profiles outward from a minimum, in steps that double while the refits stay on one branch.

A refit with a param held can end in another basin than the refit before. On one branch the rise of the sum of squares
is the integral of its slope. So a step is accepted only if the trapezoid rule holds over it; otherwise a quarter of it
is tried. A refit starts on the line through the last two optima, or at the last optimum if the refit from that line was
not finite.

Where a path goes depends on no level: it pauses where its rise passes marks that are the same for all levels, and looks
there for lower branches. A level only says in which of its cells the end lies, and that cell is halved in a way that
depends on the cell alone. So a wider level has its end further out, whatever the refits do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

ROUNDS = 40  # refits from one mark to the next, at most
FIRST = 0.25  # standard errors: the first step
RISE = 1.0  # the largest rise of tau that a step aims at
MARK = 1.5  # tau at the first mark; the next are larger by 1, or by half if that is more
SLACK, SHARE = 0.02, 0.1  # error allowed to the trapezoid rule: of tau**2, and relative to the rise over the step
CLOSE = 4e-7  # relative error of tau**2 in the middle of a cell that is not halved further; of an end 1/32 of it
TINY = 1e-6  # relative to the distance so far: the smallest step; where it is refused, the branch ends
SHORT = 1e-3  # the same where refits are not finite
FAR = 60.0  # standard errors, beyond which an end may be open
LEVEL = 6.0  # the same where there are no finite refits further out
HALVINGS = 12  # of the cell with an end, at most
BRANCHES = 3  # lower branches that a profile changes to at a mark, at most
CROSSINGS = 5  # halvings of the cell in which a lower branch becomes the lower one
BENEATH = 4e-3  # relative to the rise: how much lower a refit must be to go on from it; 0.2 % of tau
EVER = np.log(1e6)  # e-folds of distance over which a profile that hardly rises is extrapolated

Refit = Callable[[Any, Any], "Nodes"]  # of values to hold (n,) and params to start from (n, k)


class Nodes(NamedTuple):
    """One refit with the value held, for each profile."""

    target: Any  # (n,) where it was held
    value: Any  # (n,) where it ended, a little short of that
    rise: Any  # (n,) of the sum of squares, tau**2; not finite where there is no fit
    slope: Any  # (n,) of the rise by the value
    params: Any  # (n, k)


class Way(NamedTuple):
    """Where each profile begins, and where it ends."""

    start: Any  # (n,) the value at the minimum
    side: Any  # (n,) -1 or 1
    scale: Any  # (n,) the standard error
    edge: Any  # (n,) where it ends at the latest
    goal: Any  # (n,) the rise where it ends


class Walk(NamedTuple):
    """The state of each profile while it is followed."""

    inner: Nodes  # the last accepted
    before: Nodes  # the one before that
    left: Nodes  # the first cell over which the rise passes the goal; NaN while there is none
    right: Nodes
    marked: Nodes  # where lower branches were last looked for
    other: Nodes  # the last that was refused, perhaps on another branch; NaN while there is none
    step: Any  # (n,) the longest that may be tried
    astray: Any  # (n,) bool: the refit from the line through the last two optima was not finite
    over: Any  # (n,) bool: it leads no further
    lost: Any  # (n,) bool: as no refit beyond is finite, or the rounds were over
    peak: Any  # (n,) the largest rise so far
    lowest: Any  # (n,) and the least
    several: Any  # (n,) bool: before the goal it has another minimum, or changed to another branch

    @property
    def passed(self) -> np.ndarray:
        """(n,) bool: the cell with the end is known."""
        return ~np.isnan(self.right.target)


def begin(nodes: Nodes, slopes: Any, way: Way) -> Walk:
    """Return the state at the minimum; `slopes` (n, k) are d params / d value in the linear theory."""
    back = way.side * way.scale
    before = nodes._replace(value=nodes.value - back, params=nodes.params - slopes * back[:, None])
    nowhere, zero, no = _nowhere(nodes), np.zeros(len(back)), np.zeros(len(back), bool)
    return Walk(nodes, before, nowhere, nowhere, nodes, nowhere, FIRST * way.scale, no, no, no, zero, zero, no)


def marks(goal: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the marks (n,), as tau**2, up to the first that is not below the goal; -inf for a profile beyond that."""
    last, mark = 0.0, MARK
    while (last**2 < goal).any():
        yield np.where(last**2 < goal, mark**2, -np.inf)
        last, mark = mark, max(mark + 1, 1.5 * mark)


def follow(refit: Refit, walk: Walk, way: Way, mark: Any) -> Walk:
    """Follow all profiles to their marks (n,), their edges, the last finite refit, or where they hardly rise."""
    for _ in range(ROUNDS):
        under_way = _under_way(walk, way, mark)
        if not under_way.any():
            break
        target, params = _next(walk, way)
        inner = walk.inner
        nodes = refit(np.where(under_way, target, inner.target), np.where(under_way[:, None], params, inner.params))
        walk = _moved(walk, nodes, way, under_way)
    left = _under_way(walk, way, mark)
    return walk._replace(over=walk.over | left, lost=walk.lost | left)


def _under_way(walk: Walk, way: Way, mark: Any) -> np.ndarray:
    return ~walk.over & (walk.inner.rise < mark) & ~_never(walk.inner, way, FAR, mark)


def across(refit: Refit, walk: Walk, way: Way, origin: Any, where: np.ndarray) -> Walk:
    """Continue profiles that were lost beyond a gap without finite refits, by a refit from the minimum.

    A logistic curve's rate goes to infinity as its midpoint comes to a point of the data, and is finite beyond.
    """
    inner, stride = walk.inner, FIRST * way.scale
    ahead = _short_of_edge(inner.value + way.side * stride, way)
    nodes = refit(np.where(where, ahead, inner.target), np.where(where[:, None], origin, inner.params))
    there = where & np.isfinite(nodes.rise) & (np.abs(nodes.value - ahead) <= SLACK * stride)
    several = walk.several | there & ~walk.passed
    walk = _bracketed(walk, inner, nodes, there, way)
    walk = _taken_up(walk, nodes, there, way)._replace(several=several, astray=walk.astray | there)
    return walk._replace(before=taken(there, inner, walk.before))


def beneath(refit: Refit, walk: Walk, way: Way, mark: Any, starts: Iterable[Any]) -> tuple[Walk, np.ndarray]:
    """Look for lower branches at the marks, by refits from the other starts, (n, k) each, and change to them.

    Returns the state, and (n,) bool: which have changed.
    """
    at = walk.inner
    fresh = np.isfinite(mark) & (at.target != walk.marked.target)
    least = _least(refit, at, way, starts if fresh.any() else ())
    lower = fresh & (least.rise < at.rise - SLACK - SHARE * np.abs(at.rise))
    on = fresh & (walk.lost | (at.rise >= mark)) & (least.rise < at.rise - BENEATH * np.maximum(1, at.rise))
    walk = walk._replace(several=walk.several | lower & ~walk.passed & ~on)
    if on.any():
        walk = _changed(refit, walk, way, least, on)
    return walk._replace(marked=taken(fresh, walk.inner, walk.marked)), on


def _least(refit: Refit, at: Nodes, way: Way, starts: Iterable[Any]) -> Nodes:
    """Return the least of the refits from the starts, at the same values; the rise is infinite where there is none."""
    least = at._replace(rise=np.full(len(at.rise), np.inf))
    for params in starts:
        nodes = refit(at.target, params)
        there = np.abs(nodes.value - at.value) <= SLACK * np.abs(at.value - way.start)
        with np.errstate(over="ignore", invalid="ignore"):
            rise = nodes.rise + nodes.slope * (at.value - nodes.value)
        least = taken(there & (rise < least.rise), nodes._replace(value=at.value, rise=rise), least)
    return least


def _changed(refit: Refit, walk: Walk, way: Way, least: Nodes, on: np.ndarray) -> Walk:
    """Return the state with some profiles on lower branches, from where the branches cross in their last cell on."""
    at = walk.inner
    left, right = walk.before, least
    for _ in range(CROSSINGS):
        middle = np.where(on, (left.target + right.target) / 2, at.target)
        one, two = (refit(middle, np.where(on[:, None], x.params, at.params)) for x in (left, right))
        first, second = (np.where(np.abs(x.value - middle) <= SLACK * way.scale, x.rise, np.inf) for x in (one, two))
        left, right = taken(on & (first <= second), one, left), taken(on & (first > second), two, right)
    again, nowhere = on & (walk.right.target == at.target), _nowhere(at)
    walk = walk._replace(left=taken(again, nowhere, walk.left), right=taken(again, nowhere, walk.right))
    several = walk.several | on & ~walk.passed & (least.rise < at.rise - SLACK - SHARE * np.abs(at.rise))
    for cell in ((walk.before, left), (left, right), (right, least)):
        walk = _bracketed(walk, *cell, on, way)
    return _taken_up(walk, least, on, way)._replace(several=several)


def reach(refit: Refit, walk: Walk, way: Way, origin: Any, elsewhere: Callable[[Walk], Iterable[Any]]) -> Walk:
    """Return the state with the cells known in which the profiles first pass the goal, as far as they do.

    `origin` (n, k) are the params at the minimum, `elsewhere(walk)` the starts of refits that look for lower branches.
    """
    for mark in marks(way.goal):
        before = walk.lost
        walk = follow(refit, walk, way, mark)
        gaps = walk.lost & ~before
        if gaps.any():
            walk = follow(refit, across(refit, walk, way, origin, gaps), way, mark)
        for _ in range(BRANCHES):
            walk, changed = beneath(refit, walk, way, mark, elsewhere(walk))
            if not changed.any():
                break
            walk = follow(refit, walk, way, mark)
    return follow(refit, walk, way, np.where(walk.passed, -np.inf, way.goal))


def ends(
    refit: Refit, walk: Walk, way: Way, elsewhere: Callable[[Walk], Iterable[Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (n,) values at which the profiles first reach the goal, and two (n,) bool: no refit leads beyond; there is
    another minimum on the way, or there by a refit from elsewhere.

    A cell with an end is halved until the cubic through its rises and slopes holds in the middle.
    """
    left, right, inner, halving = walk.left, walk.right, walk.inner, walk.passed
    for _ in range(HALVINGS):
        if not halving.any():
            break
        middle = _middle(refit, left, right, inner, way, halving)
        with np.errstate(invalid="ignore"):
            good = np.abs(middle.rise - _cubic(left, right, middle.value)) <= CLOSE * np.abs(middle.rise)
        above = middle.rise >= way.goal
        left, right = taken(halving & ~above, middle, left), taken(halving & above, middle, right)
        halving = halving & ~good
    with np.errstate(invalid="ignore"):
        within = inner.rise + inner.slope * (way.edge - inner.value) < way.goal
    level = _never(inner, way, np.where(walk.lost, LEVEL, FAR), way.goal)
    end = np.where(level | (inner.target == way.edge) & within, way.edge, inner.value)
    crossing = np.where(np.isfinite(left.rise), _crossing(left, right, way.goal), right.value)
    lost = np.where(walk.passed, ~np.isfinite(left.rise), walk.lost & ~level)
    end = np.where(walk.passed, crossing, end)
    at = taken(walk.passed, right._replace(target=end, value=end), inner)
    least = _least(refit, at, way, elsewhere(walk._replace(inner=at)))
    return end, lost, walk.several | walk.passed & (least.rise < (1 - BENEATH) * way.goal)


def _middle(refit: Refit, left: Nodes, right: Nodes, inner: Nodes, way: Way, where: np.ndarray) -> Nodes:
    """Return refits in the middle of cells: from between their ends, or the least from these and the ends themselves.

    The rise is NaN where nothing is finite.
    """
    middle = np.where(where, (left.target + right.target) / 2, inner.target)

    def from_(params):
        found = refit(middle, np.where(where[:, None], params, inner.params))
        with np.errstate(invalid="ignore"):
            fine = np.isfinite(found.rise) & (np.abs(found.value - middle) <= SLACK * way.scale)
        return found._replace(rise=np.where(fine, found.rise, np.nan))

    best = from_((left.params + right.params) / 2)
    with np.errstate(invalid="ignore"):
        allowed = SLACK + SHARE * np.abs(right.rise - left.rise)
        poor = where & ~(np.abs(best.rise - _cubic(left, right, best.value)) <= allowed)
    for nodes in (left, right) if poor.any() else ():
        other = from_(nodes.params)
        best = taken(poor & ((other.rise < best.rise) | np.isnan(best.rise)), other, best)
    return best


def _bracketed(walk: Walk, one: Nodes, two: Nodes, where: np.ndarray, way: Way) -> Walk:
    """Return the state with the cells from one node to the next known where the rise first passes the goal."""
    first = where & ~walk.passed & (one.rise < way.goal) & (two.rise >= way.goal)
    return walk._replace(left=taken(first, one, walk.left), right=taken(first, two, walk.right))


def _taken_up(walk: Walk, nodes: Nodes, where: np.ndarray, way: Way) -> Walk:
    """Return the state with some profiles continued from other nodes."""
    return walk._replace(
        inner=taken(where, nodes, walk.inner),
        before=taken(where, nodes, walk.before),
        other=taken(where, _nowhere(nodes), walk.other),
        step=np.where(where, FIRST * way.scale, walk.step),
        over=walk.over & ~where,
        lost=walk.lost & ~where,
        lowest=np.where(where, np.fmin(walk.lowest, nodes.rise), walk.lowest),
    )


def _nowhere(nodes: Nodes) -> Nodes:
    """Return nodes of NaN with the shapes of these."""
    return Nodes(*(np.full(np.shape(x), np.nan) for x in nodes))


def _short_of_edge(target: np.ndarray, way: Way) -> np.ndarray:
    return np.where(way.side < 0, np.maximum(target, way.edge), np.minimum(target, way.edge))


def _next(walk: Walk, way: Way) -> tuple[np.ndarray, np.ndarray]:
    """Return the next values to hold, (n,), and the params to start from, (n, k)."""
    inner, before = walk.inner, walk.before
    target = _short_of_edge(inner.target + way.side * walk.step, way)
    width = np.where(inner.value == before.value, 1, inner.value - before.value)
    with np.errstate(over="ignore", invalid="ignore"):  # the other params run away on a flat profile
        ahead = inner.params + (inner.params - before.params) * ((target - inner.value) / width)[:, None]
    return target, np.where(walk.astray[:, None], inner.params, ahead)


def _cubic(left: Nodes, right: Nodes, value: np.ndarray) -> np.ndarray:
    """Return (n,) the cubic through the rises and slopes of two nodes, at a value between them."""
    width = right.value - left.value
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        s = (value - left.value) / width
        return (
            (1 + 2 * s) * (1 - s) ** 2 * left.rise + s**2 * (3 - 2 * s) * right.rise
            + s * (1 - s) * ((1 - s) * left.slope - s * right.slope) * width
        )  # fmt: skip


def _crossing(left: Nodes, right: Nodes, goal: Any) -> np.ndarray:
    """Return (n,) the value between two nodes at which the cubic through them meets the goal."""
    low, high = left.value, right.value
    for _ in range(50):
        middle = (low + high) / 2
        below = _cubic(left, right, middle) < goal
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _never(nodes: Nodes, way: Way, far: Any, goal: Any) -> np.ndarray:
    """Return (n,) bool: so many errors out or more, and at the present rise per e-fold of distance short of the goal.

    What is out of reach for a goal is so for a higher one.
    """
    so_far = np.abs(nodes.value - way.start)
    pace = way.side * nodes.slope * so_far
    with np.errstate(invalid="ignore"):
        return np.isfinite(goal) & (so_far >= far * way.scale) & (pace * EVER < goal - nodes.rise)


def _moved(walk: Walk, nodes: Nodes, way: Way, under_way: np.ndarray) -> Walk:
    """Return the state after one more refit of each profile."""
    inner = walk.inner
    # A refit stays where it starts if nothing beyond is finite, and if it is asked to move by a rounding only.
    asked = np.abs(nodes.target - inner.target)
    stays = (np.abs(nodes.value - inner.value) <= TINY * asked) & (asked > TINY * way.scale)
    finite = np.isfinite(nodes.rise) & ~stays
    nodes = nodes._replace(rise=np.where(finite, nodes.rise, np.inf))
    change = nodes.rise - inner.rise
    with np.errstate(invalid="ignore", over="ignore"):
        rule = (inner.slope + nodes.slope) / 2 * (nodes.value - inner.value)
        smooth = np.abs(change - rule) <= SLACK + SHARE * np.abs(change)
    size = np.maximum(way.scale, np.abs(inner.value - way.start))
    small = asked <= np.where(finite, TINY, SHORT) * size + 4e-16 * np.abs(inner.value)
    on_branch, jumps = under_way & finite & smooth, under_way & finite & ~smooth & small  # where the branch ends
    accepted, refused = on_branch | jumps, under_way & ~(on_branch | jumps)
    lost = refused & small
    new = taken(accepted, nodes, inner)
    tau = np.sqrt(np.maximum(new.rise, 0))
    steep = np.where(tau > 0, way.side * new.slope / (2 * np.where(tau > 0, tau, 1)), 0)
    aim = RISE * np.maximum(1, tau / 2) / np.where(steep > 0, steep, 1e-300)
    longest = np.where(nodes.target == way.edge, np.maximum(2 * asked, walk.step), 2 * asked)
    step = np.where(refused, asked / 4, np.where(under_way, np.minimum(longest, aim), walk.step))
    peak = np.where(accepted, np.maximum(walk.peak, nodes.rise), walk.peak)
    other_branch = jumps | on_branch & (nodes.rise < peak - SLACK - SHARE * peak)
    walk = walk._replace(several=walk.several | other_branch & ~walk.passed & (nodes.rise < way.goal))
    return _bracketed(walk, inner, nodes, accepted, way)._replace(
        inner=new,
        before=taken(accepted, inner, walk.before),
        other=taken(refused & finite, nodes, walk.other),
        step=np.where(jumps, FIRST * way.scale, step),
        astray=refused & ~finite,
        over=walk.over | lost | accepted & (nodes.target == way.edge),
        lost=walk.lost | lost,
        peak=peak,
        lowest=np.where(accepted, np.fmin(walk.lowest, nodes.rise), walk.lowest),
    )


def taken(where: np.ndarray, new: Nodes, old: Nodes) -> Nodes:
    """Return the new nodes where asked, else the old."""
    return Nodes(*(np.where(where[:, None] if x.ndim > 1 else where, x, y) for x, y in zip(new, old, strict=True)))
