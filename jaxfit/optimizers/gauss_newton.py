"""Levenberg-Marquardt: damped Gauss-Newton steps for losses that know their residuals.

At each point the residuals r and their exact Jacobian J are reduced to a triangle, J = Q R and c = Q^T r, and nothing
else is kept: no step evaluates the model twice at the same params. ||c|| is the part of r that an undamped step would
remove, whatever the units of params and data; convergence is judged by it, in `convergence`.

Where the residuals are affine in some params, an amplitude say, a step may be refused only because these do not fit the
others after it. R and c there tell what they would come down to: if that is low enough, the next trial is of the same
step with these params at their least squares, before the damping rises. Golub and Pereyra (1973) solve them so at every
step; here no step but a refused one costs a residual more.

At a minimum where residuals are large and curved, a step leaves a part of c, and the next one about the same part of
that. Near the minimum a step knows this part from the one before, and allows for it; see `share_of`. A run ends where
the next step leads to the minimum, by that step: the model is not evaluated there once more.

A column that depends on earlier columns, within rounding, gets a row of zeros in R, and no step goes along it. At a
minimum along all other columns, a short step is tried along each such direction. If the loss rises because the
residuals are curved, the params are determined all the same (J is always singular at a minimum above zero of as many
residuals as params). If it does not change, the data do not determine them. If it falls, the run continues there.

The arithmetic takes arrays of NumPy or of JAX. Of many lanes, and under a user's own `jit`, all of it is traced; of one
run only `linearization` is, and the rest is done in NumPy, so that next to nothing has to be compiled; see `arrays`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from jaxfit.optimizers.arrays import (
    Array,
    are_finite,
    both,
    eps_of,
    holds,
    inner,
    maximum,
    minimum,
    namespace,
    on_host,
    other_places,
    pick,
    root,
    squares,
    when_asked,
)
from jaxfit.optimizers.arrays import reduced as reduced_columns
from jaxfit.optimizers.bordered import (
    Triangle,
    damped,
    diagonal,
    per,
    product,
    reduced,
    solve,
    transposed_product,
)
from jaxfit.optimizers.convergence import bottomed, is_open, is_open_traced, judge
from jaxfit.optimizers.lanes import TOGETHER, lanes_last, where_asked
from jaxfit.optimizers.linearization import Place, System, is_finite, place_of, system_at
from jaxfit.optimizers.methods import Objective, Proposal, Traits
from jaxfit.typing import PyTree


class View(NamedTuple):
    """What is known of a point before a step is made from it."""

    ends: Array  # () it is a minimum
    undetermined: Array  # () it is one but for directions that R does not show
    probing: Array  # () one of these is to be tried
    slope: Array  # (k,) R^T c, zero where it pushes against a bound
    free: Array | None  # (k,) bool: not held by a bound
    triangle: Array | Triangle  # R and c of the params that are free
    shadow: Array
    silent: Array | None  # (k,) bool: without a pivot; of a run on the host only where the others have settled
    offset: Array  # () ||c||**2 / size
    left: Array  # () ||c||**2
    last: Array  # (k,) where a run that ends here comes to rest
    share: Array  # () of the way from the aim of the last step to that of the next one, to be taken back
    doubtful: Any  # () it is a minimum where params may be held by rounding alone; None without bounds


class DampingState(NamedTuple):
    """The state of a run: the model at its params, and the control of its steps."""

    system: System
    scale: Array  # (k,) largest norms of the columns of J so far: the units of a step
    sizes: Array  # (k,) absolute values of the params at the start, at most 1: a start far away tells no size
    damping: Array  # ()
    growth: Array  # () what a refused step multiplies the damping by
    before: Array  # () ||c||**2 / size at the point before
    left: Array  # () ||c||**2 at the point before
    ceiling: Array  # () the least loss so far, plus its rounding
    settled: Array  # () whether the last step found the minimum along the direction that R does not show
    probed: Array  # () number of directions that R does not show and that were tried at these params
    bent: Array  # () whether the loss rises along all of them
    aimed: Array  # (k,) where the last step was to lead
    shadow: Array  # (k,) c at the point before
    repeats: Any  # () whether the refused step is tried again; None if the residuals are affine in no param
    shift: Any  # (k,) with what change of the params in which they are affine; None too


class Trial(NamedTuple):
    """Where a step is to lead."""

    aimed: Array  # (k,) by the damped step
    planned: Array  # (k,) by it and the one before
    there: Array  # (k,) with the params in which the residuals are affine moved to fit the others, after a refusal


class LevenbergMarquardt(NamedTuple):
    """Levenberg-Marquardt as a method; `jf.optimizers.levenberg_marquardt` makes one."""

    damping: Any  # () at the start
    tolerance: Any = None  # () fraction of the sum of squares that a step may still remove; None: down to rounding

    def init(self, objective: Objective, params: PyTree) -> DampingState:
        flat, back = jax.flatten_util.ravel_pytree(params)
        return self.begin(place_of(objective, back), flat)

    def step(self, objective: Objective, params: PyTree, memory: DampingState) -> Proposal:
        flat, back = jax.flatten_util.ravel_pytree(params)
        place, here = place_of(objective, back), memory.system
        view = self.look(place, flat, memory)
        there, memory = self.move(place, flat, memory, view)
        gradient = back(2 * here.weight * view.slope)
        return Proposal(here.loss, gradient, back(there), memory, view.ends, view.undetermined, last=back(view.last))

    def begin(self, place: Place, flat: Array) -> DampingState:
        """Return the state at the start."""
        system = system_at(place.slopes, flat)
        one = 1 + 0 * system.loss if on_host(flat) else jnp.ones_like(system.loss)
        silent = system.scale == 0
        if on_host(flat):
            others = elsewhere(place, flat, silent) if silent.any() else 0 * flat
        else:
            others = where_asked(silent.any(), lambda *args: elsewhere(place, *args), flat, silent)
        scale = namespace(flat).where(system.scale > 0, system.scale, others)
        far = np.inf * one
        repeating = on_host(flat) or 0 < len(place.affine(flat)) < flat.size
        repeats, shift = (one < 0, 0 * flat) if repeating else (None, None)
        return DampingState(
            system=system,
            scale=scale,
            sizes=namespace(flat).minimum(abs(flat), flat.dtype.type(1)),
            damping=self.damping * one,
            growth=2 * one,
            before=far,
            left=far,
            ceiling=far,
            settled=one < 0,
            probed=0 * one,
            bent=one > 0,
            aimed=flat,
            shadow=0 * flat,
            repeats=repeats,
            shift=shift,
        )

    def look(self, place: Place, flat: Array, memory: DampingState) -> View:
        """Judge a point."""
        view = of_lanes(look, place, flat, memory, self.tolerance)
        if place.limits is None or (on_host(flat) and not view.doubtful):
            return view
        given = place.limits, flat, memory.scale, memory.system
        opens = is_open(*given) if on_host(flat) else where_asked(view.doubtful, is_open_traced, view.doubtful, *given)
        return view._replace(ends=view.ends & ~opens, undetermined=view.undetermined | opens)

    def move(self, place: Place, flat: Array, memory: DampingState, view: View) -> tuple[Array, DampingState]:
        """Return the params after a step, and the state there; those from before if the step is refused."""
        trial = of_lanes(plan, place, flat, memory, view)
        system = system_at(place.slopes, trial.there)
        return of_lanes(weigh, place, flat, memory, view, trial, system)


def levenberg_marquardt(damping: Any = 1e-3, tolerance: Any = None) -> LevenbergMarquardt:
    return LevenbergMarquardt(damping, tolerance)


levenberg_marquardt.traits = Traits(
    judges=True, residuals=True, deterministic=True, precision="float64", chunk=16, numpy=True
)


# The steps, one by one or side by side


def of_lanes(function: Callable, place: Place, flat: Array, *args: PyTree) -> PyTree:
    """Return function(place, flat, *args) of a function that evaluates no residuals; of lanes by `lanes_last`."""
    if on_host(flat) or len(flat) > TOGETHER or isinstance(args[0].system.triangle, Triangle):
        return function(place, flat, *args)
    affine = place.affine(flat)

    def of_arrays(limits, *args):
        return function(place._replace(limits=limits, affine=lambda _: affine), *args)

    return lanes_last(of_arrays, place.limits, flat, *args)


def look(place: Place, flat: Array, memory: DampingState, tolerance: Any) -> View:
    """Judge a point, as `LevenbergMarquardt.look` does."""
    xp, here, free, doubtful = namespace(flat), memory.system, None, None
    triangle, shadow = here.triangle, here.shadow
    slope = transposed_product(triangle, shadow)
    if place.limits is not None:
        low, high = place.limits
        inert = memory.scale == 0  # without influence on its bound: the bound determines it
        free = ~(((flat <= low) & ((slope > 0) | inert)) | ((flat >= high) & ((slope < 0) | inert)))
        slope = xp.where(free, slope, 0)
        triangle, shadow = reduced(triangle, free, shadow)
    step = when_asked(flat, lambda: solve(triangle, shadow))
    linear = len(place.affine(flat)) == len(flat)
    verdict = judge(flat, memory, triangle, shadow, free, step, linear, tolerance)
    ends, least, alive, rests, offset, left = verdict
    share = pick(linear, 0 * offset, lambda: share_of(memory, shadow, offset))

    def after_a_step():
        aimed = flat - step()
        return within(place, aimed - taken_back(memory, share, free, aimed))

    last = pick(rests, after_a_step, flat)
    if on_host(flat) and not (ends or least):
        return View(ends, ends, ends, slope, free, triangle, shadow, None, offset, left, last, share, ends)
    silent = diagonal(triangle) == 0 if free is None else (diagonal(triangle) == 0) & free
    tried = memory.probed >= silent.sum(axis=0, dtype=np.int32)
    ends, undetermined = ends | (least & tried & memory.bent), least & ~memory.bent & alive
    probing = least & memory.bent & ~tried
    if place.limits is not None:
        bounded, dependent = (flat <= low) | (flat >= high), diagonal(here.triangle) == 0
        doubtful = ends & bounded.any(axis=0) & dependent.any(axis=0)
    return View(ends, undetermined, probing, slope, free, triangle, shadow, silent, offset, left, last, share, doubtful)


def plan(place: Place, flat: Array, memory: DampingState, view: View) -> Trial:
    """Return where to look next."""
    xp, triangle, units = namespace(flat), view.triangle, memory.scale
    if not (on_host(flat) and holds(units > 0)):
        units = xp.where(units > 0, units, 1)
    straight = view.offset <= 16 * eps_of(flat)  # what is left is a straight line
    damping = pick(straight, flat.dtype.type(0), memory.damping)
    move = solve(*damped(per(triangle, units), view.shadow, damping)) / units
    move = pick(view.probing, lambda: constant(unseen(place, flat, memory, triangle, view.silent)), move)
    aimed = within(place, flat - move)
    planned = pick(view.probing, aimed, lambda: within(place, aimed - taken_back(memory, view.share, view.free, aimed)))
    if memory.shift is None:
        return Trial(aimed, planned, planned)
    return Trial(aimed, *pick(memory.repeats, lambda: (aimed, within(place, aimed + memory.shift)), (planned, planned)))


def constant(x: Array) -> Array:
    """Return x, in which a derivative of the run takes no part."""
    return x if on_host(x) else jax.lax.stop_gradient(x)


def share_of(memory: DampingState, shadow: Array, offset: Array) -> Array:
    """Return () the share of the way from the aim of the last step, g', to that of the next one, g, to take back.

    That is the share of the least ||c - share * (c - c')||: as far as c is linear, it is the c at the point that leads
    to g - share * (g - g'). Zero away from a minimum, after a refused step, and where it would be most of the way.

    Source: Anderson (1965), doi:10.1145/321296.321305, with one step before.
    """
    change = shadow - memory.shadow
    size = squares(change)
    length = root(pick(size > 0, size, 1 + 0 * size))
    share = inner(shadow, change / length) / length
    return pick((offset < 1e-3) & (size > 0) & (abs(share) < 0.9), share, 0 * share)


def taken_back(memory: DampingState, share: Array, free: Array | None, aimed: Array) -> Array:
    """Return (k,) what to take back of a step's aim; nothing of a param that is held by a bound."""
    way = share * (aimed - memory.aimed)
    return way if free is None else namespace(aimed).where(free, way, 0)


def unseen(place: Place, flat: Array, memory: DampingState, triangle: Array, silent: Array) -> Array:
    """Return a short step along which R is zero, for the next param without a pivot: a small part of its size."""
    xp = namespace(flat)
    part = eps_of(flat) ** 0.375  # so that slopes show a curvature, and rounding hides higher powers
    sizes = xp.maximum(memory.sizes, abs(flat))
    earlier = xp.cumsum(silent, axis=0, dtype=np.int32) - silent
    chosen = silent & (earlier == memory.probed)
    along = xp.where(chosen, part * xp.where(sizes > 0, sizes, 1), 0)
    step = along - solve(triangle, product(triangle, along))
    if place.limits is None:
        return step
    units = xp.where(memory.scale > 0, memory.scale, 1)
    one, other = (room(flat, way, units, *place.limits) for way in (step, -step))
    return pick(one >= other, lambda: one * step, lambda: -other * step)


def room(flat: Array, step: Array, units: Array, low: Array, high: Array) -> Array:
    """Return what part of the way from `flat` back along a step lies between the bounds; 1 if all of it.

    A part of the step that rounding may have left, in these units, does not count.
    """
    xp, far = namespace(flat), abs(step)
    real = far * units > eps_of(flat) ** 0.75 * (far * units).max(axis=0)
    free = xp.where(step > 0, flat - low, high - flat) / xp.where(real, far, 1)
    return xp.where(real, free, 1).min(axis=0).clip(0, 1)


def weigh(
    place: Place, flat: Array, memory: DampingState, view: View, trial: Trial, system: System
) -> tuple[Array, DampingState]:
    """Return the params after a step that has been tried, and the state there, as `LevenbergMarquardt.move` does."""
    xp, here, eps, there = namespace(flat), memory.system, eps_of(flat), trial.there
    probing, slope, repeated = view.probing, view.slope, np.False_ if memory.shift is None else memory.repeats
    change = product(view.triangle, trial.planned - flat)
    gain = -inner(change, 2 * view.shadow + change) * here.weight
    step, ahead = there - flat, transposed_product(system.triangle, system.shadow)
    actual = here.loss - system.loss
    reach = root(squares(here.scale * flat))
    blur = 16 * eps * here.weight * root(here.size) * (root(here.size) + reach)
    unresolved = (gain <= blur) & (abs(actual) <= blur) & (system.loss <= memory.ceiling)
    # by the slopes at both ends, which rounding spares for longer
    means = when_asked(flat, lambda: -inner(slope + ahead, step))
    hidden = when_asked(flat, lambda: 16 * eps * root(here.size * squares(here.scale * step)))

    def by_slopes():
        return pick(abs(means()) <= hidden(), gain, means() * here.weight)

    actual = pick(unresolved, by_slopes, actual)
    ratio = pick(gain > 0, lambda: actual / pick(gain > 0, gain, 1), lambda: pick(unresolved, 1.0, 0.0))
    accepted = both((ratio > 1e-3) & (gain >= 0), lambda: is_finite(system))
    accepted = pick(probing, lambda: (system.loss < here.loss - blur) & is_finite(system), accepted)
    if place.limits is not None:
        accepted = accepted & ~stranded(flat, there, *place.limits, memory, system).any(axis=0)
    repeats, shift, waits = memory.repeats, memory.shift, np.False_
    if shift is not None:
        repeats = ~(accepted | repeated | probing) & (gain > blur)
        worth, shift = pick(
            repeats, lambda: fitted(place, flat, there, system, here.loss - 1e-3 * gain), (repeats, shift)
        )
        repeats = waits = repeats & worth
    most = 1 / eps**2
    after = pick(accepted, system, here)
    bend, curvature = inner(step, ahead - slope), squares(change)

    def is_bent():
        straight = maximum(curvature, squares(product(system.triangle, step)))
        unsure = hidden() + 16 * eps * reach * root(straight)  # by the rounding of J, and of the residuals
        unseen_yet = pick(probing, 16 * eps**1.75 * here.size, 0 * here.size)  # even by a step of the param's size
        return bend > maximum(maximum(2 * straight, unsure), unseen_yet)

    bent = bend > 2 * curvature if on_host(flat) else True
    bent = both(bent, is_bent)
    if place.limits is not None:
        bent = bent | (probing & ~(step != 0).any(axis=0))  # no step leads there between the bounds

    def at_the_bottom():
        rest = inner(step, pick(accepted, ahead, slope)) ** 2 / pick(bend > 0, bend, 1)
        return bottomed(memory, flat, step, rest, blur / here.weight, after)

    settled = both(bent & ~probing & ~repeated, at_the_bottom)
    memory = DampingState(
        after,
        pick(
            accepted,
            lambda: pick(  # those of before belong to other values of the params in which the residuals are affine
                repeated,
                lambda: xp.where(system.scale > 0, system.scale, memory.scale),
                lambda: xp.maximum(memory.scale, system.scale),
            ),
            memory.scale,
        ),
        memory.sizes,
        pick(
            accepted,
            lambda: memory.damping * maximum(1 / 5, 1 - (2 * ratio - 1) ** 3),
            lambda: pick(waits, memory.damping, lambda: xp.clip(memory.damping * memory.growth, eps, most)),
        ),
        pick(
            accepted,
            flat.dtype.type(2),
            lambda: pick(waits, memory.growth, lambda: minimum(2 * memory.growth, most)),
        ),
        view.offset,
        view.left,
        minimum(memory.ceiling, here.loss + blur),
        pick(accepted, settled, lambda: memory.settled | settled),
        pick(accepted, flat.dtype.type(0), lambda: memory.probed + probing),
        accepted | pick(probing, bent, memory.bent),
        trial.aimed,
        view.shadow,
        repeats,
        shift,
    )
    return pick(accepted, there, flat), memory


def stranded(flat: Array, there: Array, low: Array, high: Array, memory: DampingState, system: System) -> Array:
    """Return which params a long step would put on a bound where they have no influence, and so would stay there."""
    on = ((there <= low) & (flat > low)) | ((there >= high) & (flat < high))
    far = abs(there - flat) > 0.01 * namespace(flat).maximum(memory.sizes, abs(flat))
    return on & far & (system.scale <= eps_of(flat) * memory.scale)


def fitted(place: Place, flat: Array, there: Array, system: System, most: Array) -> tuple[Array, Array]:
    """Return whether a refused step is worth another trial, and with what change of its params.

    The params in which the residuals are affine go to their least squares. It is worth one if the loss then falls below
    `most`, no param goes beyond a bound, and no other param has moved by more than a quarter of itself: longer steps
    lead past a pole, or to another branch, where the loss is lower for a while and then comes to an end. Nor is it one
    if their columns nearly depend on each other: their least squares are then large numbers that cancel.
    """
    xp, affine, k = namespace(flat), place.affine(flat), len(flat)
    if not 0 < len(affine) < k:
        return np.False_, flat
    if not on_host(flat):  # a derivative of the run has no use for it, and it would be NaN where a column is zero
        system = jax.lax.stop_gradient(system)
    triangle, shadow, apart = system.triangle, system.shadow, float(eps_of(flat)) ** 0.25
    first = sum(i == column for i, column in enumerate(affine))  # of these columns the triangle has it done
    fall, best = sum((shadow[i] ** 2 for i in range(first)), 0 * system.loss), []
    if affine[first:]:
        columns = xp.stack([triangle[first:, i] for i in affine[first:]])
        norms = xp.stack([system.scale[i] for i in affine[first:]])  # whole: what depends on the first leaves rounding
        rest, shorter = reduced_columns(columns, shadow[first:], apart, norms)
        fall, best = fall + squares(shorter), list(solve(rest, shorter))
    for i in reversed(range(first)):
        left, pivot = shadow[i], triangle[i, i]
        for j, x in zip(affine[i + 1 :], best, strict=True):
            left = left - triangle[i, j] * x
        best = [pick(pivot == 0, 0 * left, lambda left=left, pivot=pivot: left / pivot), *best]
    worth = system.loss - system.weight * fall < most
    for i in range(first):
        worth = worth & (triangle[i, i] ** 2 > apart**2 * sum(triangle[j, i] ** 2 for j in range(i + 1)))
    for i in range(k):
        if i not in affine:
            worth = worth & ((abs(there[i] - flat[i]) <= abs(flat[i]) / 4) | (flat[i] == 0))
    shift = xp.stack([-best[affine.index(i)] if i in affine else 0 * flat[i] for i in range(k)])
    if place.limits is not None:
        worth = worth & (within(place, there + shift) == there + shift).all(axis=0)
    return worth & are_finite(shift), shift


def within(place: Place, flat: Array) -> Array:
    """Return the nearest params between their bounds."""
    return flat if place.limits is None else namespace(flat).clip(flat, *place.limits)


def elsewhere(place: Place, flat: Array, silent: Array) -> Array:
    """Estimate the norms of the columns of params without influence here, from other values; zero if they have none.

    Residuals that change at `other_places`, or are not finite, show that the point lies on a plateau; otherwise the
    loss does not depend on the param. An estimate has no derivative: that of a root of no change is infinite.
    """
    xp, there = namespace(flat), other_places(flat, silent)
    if place.limits is not None:
        there = xp.stack([xp.clip(x, *place.limits) for x in there])
    points = xp.concatenate([flat[None], there])
    if on_host(flat):
        found = xp.stack([place.residuals(x) for x in points])
    else:
        found = jax.lax.stop_gradient(jax.lax.map(place.residuals, points))
    change, moved = xp.sqrt(((found[1:] - found[:1]) ** 2).sum(axis=1)), abs(there - flat[None])
    change = xp.where(xp.isfinite(change), change, 1)[:, None]
    return xp.where(silent[None] & (moved > 0), change / xp.where(moved > 0, moved, 1), 0).max(axis=0)
