"""Whether a run of Levenberg-Marquardt has come to a minimum, and whether the data determine it there.

At a point the residuals and their Jacobian are a triangle R and c = Q^T r; see `gauss_newton`. ||c||**2 is what an
undamped step would remove from the sum of squares. All that is said here follows from it, from what the steps before
have left of it, and from the pivots of R.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.optimizers.arrays import (
    Array,
    both,
    either,
    eps_of,
    holds,
    maximum,
    minimum,
    namespace,
    normal,
    on_host,
    pick,
    root,
    squares,
    when_asked,
)
from jaxfit.optimizers.bordered import Triangle, diagonal, norms, reduced
from jaxfit.optimizers.linearization import System
from jaxfit.typing import PyTree

if TYPE_CHECKING:
    from jaxfit.optimizers.gauss_newton import DampingState


class Verdict(NamedTuple):
    """What `judge` finds."""

    ends: Array  # () it is a minimum that is determined
    least: Array  # () it is one but for directions that R does not show, if these bend up
    alive: Array  # () it is one if they do not
    rests: Array  # () the undamped step that is at hand leads to it
    offset: Array  # () ||c||**2 / size
    left: Array  # () ||c||**2


def judge(
    flat: Array, memory: DampingState, triangle: Array | Triangle, shadow: Array, free: Array | None,
    step: Callable[[], Array], linear: bool, tolerance: Any = None,
) -> Verdict:  # fmt: skip
    """Return whether the point is a minimum, and whether the data determine it, as far as the precision and R tell.

    An undamped step would remove ||c||**2 from the sum of squares. It is not worth a step if
    - it is lost in the rounding of the sum, and the last step did not make it much smaller, or an undamped one leads to
      where the params will stay, as far as the last one tells: within eps**(2/3) of their standard errors and eps**0.7
      of their size, or eps**(5/6) of the former. That step is at hand, and the run comes to rest after it; or
    - it moves the predictions by less than their rounding, and the params by less than sqrt(eps) of themselves; or
    - it moves the params by less than eps**0.75 of their size, and ||c||**2 shrinks no faster than 64-fold a step;
      their size at the start, at most 1, counts too unless all residuals are affine: they may go to zero; or
    - it is at most the tolerance of the sum, if there is one; or
    - the run has settled along a direction in which R is nearly singular; see `bottomed`.
    Of squares that are affine in all params the first two hold only where a step has gained nothing more: as each such
    step leads to the minimum, the last one is all that the digits of an orthogonal factorization take.
    If R has rows of zeros, these rules see the other directions only. There it is also enough that all residuals are at
    rounding. Where a param has lost its influence, or no param has any, it is one only if all residuals are at
    rounding, or the slopes show that the sum bends up along all of these.

    Args:
      triangle, shadow: R and c of the params that are free.
      step: Returns what an undamped step subtracts from the params.
      linear: Whether the residuals are affine in all params.
    """
    xp, here, eps = namespace(flat), memory.system, eps_of(flat)
    left = normal(squares(shadow))
    offset = left / pick(here.size > 0, here.size, 1)
    pivots, lengths = diagonal(triangle), norms(triangle)
    held = xp.zeros(flat.shape, bool) if free is None else ~free
    determined = holds(pivots if on_host(flat) and free is None else (pivots != 0) | held)

    def has_influence():
        influence = holds((lengths > eps**2 * memory.scale) | (memory.scale == 0) | held)
        return influence & ((pivots != 0).any(axis=0) | held.all(axis=0))

    influence = when_asked(flat, has_influence)
    reach = root(squares(lengths * flat))
    exact = root(here.size) <= 8 * eps * reach
    alive = when_asked(flat, lambda: influence() | exact)
    move = when_asked(flat, lambda: root(squares(lengths * step())))

    def is_near():
        one = flat.dtype.type(1)
        rate = pick(memory.before < np.inf, offset / memory.before, one)  # what the last step left of it
        rate = minimum(maximum(rate, eps**0.25), one)
        rest = rate * offset
        return ~np.bool_(linear) & either(
            rest <= eps ** (5 / 3),
            lambda: both(rest <= eps ** (4 / 3), lambda: slight(memory, flat, root(rate) * step(), eps**0.7)),
        )

    near = both(offset <= 16 * eps, is_near)
    lost = near | ((offset <= 16 * eps) & (offset > memory.before / 2))
    below = both(root(left) <= 8 * eps * reach, lambda: move() <= xp.sqrt(eps) * reach)
    below = both(below, lambda: (left > memory.left / 64) | (not linear))
    enough = (left == 0) if tolerance is None else (offset <= tolerance)
    least = lost | below | enough | (exact & ~determined)
    sized = memory._replace(sizes=xp.minimum(memory.sizes, abs(flat))) if linear else memory
    tiny = both(determined & (left > memory.left / 64), lambda: slight(sized, flat, step(), eps**0.75))
    if on_host(flat) and not (least or tiny or memory.settled):
        return Verdict(least, least, least, least, offset, left)
    least = least | memory.settled
    ends = alive() & (determined & least | tiny)
    return Verdict(ends, ~determined & least, alive(), near & determined, offset, left)


def is_open(limits: tuple[Array, Array], flat: Array, scale: Array, here: System) -> Array:
    """Return whether a param may leave its bound, with those that are between theirs, and no residual changes.

    Its column then depends on their columns, and where these are at their least its slope is zero but for rounding,
    whose sign tells nothing. If the bound holds it in truth, its column has a part of its own. A column that has all
    but vanished is no sign: a step along it shows whether the loss bends up.
    """
    xp, inside = namespace(flat), (flat > limits[0]) & (flat < limits[1])
    real = ~inside & (norms(here.triangle) > eps_of(flat) ** 0.75 * scale)
    each = xp.eye(len(flat), dtype=bool)

    def rank(more):
        return (diagonal(reduced(here.triangle, inside | more, here.shadow)[0]) != 0).sum()

    if on_host(flat):
        alone = rank(real & inside)
        return np.bool_(any(rank(one) == alone for one in each[real]))
    ranks = jax.lax.map(rank, jnp.concatenate([each, each[:1] & False]))
    return (real & (ranks[:-1] == ranks[-1])).any()


def is_open_traced(asked: Array, *given: PyTree) -> Array:
    """Return `is_open` where it is asked; of one run, which `where_asked` does not spare."""
    given = jax.lax.stop_gradient(given)
    return jax.lax.cond(asked, lambda: is_open(*given), lambda: asked)


def bottomed(memory: DampingState, flat: Array, step: Array, rest: Array, blur: Array, after: System) -> Array:
    """Return whether a run is at the minimum along a direction in which the residuals are curved and R nearly singular.

    This happens at a minimum above zero of as many residuals as params. The slopes at both ends of a step, accepted or
    rejected, give the curvature along it, of which J^T J shows nearly nothing. The run is at the minimum if
    - what is left of this parabola, and what an undamped step would remove along all directions but the weakest, are
      lost in rounding; and
    - the step itself was below sqrt(eps) of the params' size.

    Args:
      rest: () what is left of the parabola along the step.
      blur: () the rounding of the sum of squares.
      after: At the params where the run is after the step.
    """
    xp = namespace(flat)
    pivots = abs(diagonal(after.triangle)) / xp.where(memory.scale > 0, memory.scale, 1)
    others = xp.where(pivots > pivots.min(axis=0), after.shadow, 0)
    at_rest = rest + squares(others) <= blur
    return at_rest & slight(memory, flat, step, eps_of(flat) ** 0.5) & ((pivots == 0).sum(axis=0, dtype=np.int32) <= 1)


def slight(memory: DampingState, flat: Array, step: Array, part: Any) -> Array:
    """Return whether a step moves each param by less than a part of its size; for a start at 0, of the predictions."""
    if on_host(flat):
        for size, value, moved in zip(memory.sizes, flat, step, strict=True):
            if size != 0 and not abs(moved) <= part * maximum(size, abs(value)):
                return np.False_
    xp = namespace(flat)
    sizes = xp.maximum(memory.sizes, abs(flat))
    least = root(squares(memory.scale * sizes))
    unsized = (memory.sizes == 0) & (memory.scale * abs(step) <= part * least)
    return ((abs(step) <= part * sizes) | unsized).all(axis=0)
