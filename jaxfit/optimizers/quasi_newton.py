"""L-BFGS, for any smooth loss, with a line search of Optax."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxfit.optimizers.arrays import other_places
from jaxfit.optimizers.lanes import where_asked
from jaxfit.optimizers.methods import Objective, Proposal, Traits, clipped_to, inward, is_judged_apart, judged_apart
from jaxfit.typing import ArrayLike, PyTree

PROBED = 64
DOUBLINGS = 20  # of the step, in one line search


class LastStep(NamedTuple):
    """What the verdict takes from the last step."""

    stalled: Array  # ()
    idle: Array  # ()
    crawled: Array  # ()
    leaped: Array  # ()
    asks: Array  # () whether the verdict is yet to come


class LBFGSState(NamedTuple):
    """The state of a run."""

    curvature: Any  # of Optax: differences of params and gradients
    search: Any  # of the line search of Optax
    units: PyTree  # like params: the size of each leaf at the start
    scale: Array  # () of the loss as Optax sees it, a power of two
    reach: Array  # () a factor of the step, until the first that changes the loss
    start: Array  # () loss there
    loss: Array  # ()
    grads: PyTree
    settled: Array  # () whether the params are at a minimum
    undetermined: Array  # () the same, but for params on which the loss does not depend
    leap: PyTree  # like params: Newton's step, to be subtracted, if the last one was idle and it is to be tried; else 0
    last: LastStep | None = None  # of a run that is judged apart


class LBFGS(NamedTuple):
    """L-BFGS as a method, on params divided by their units; `jf.optimizers.lbfgs` makes one."""

    precondition: optax.GradientTransformation
    search: optax.GradientTransformationExtraArgs
    pairs: int  # number of past steps that are kept

    def init(self, objective: Objective, params: PyTree) -> LBFGSState:
        loss, grads = jax.value_and_grad(objective)(params)
        units = jax.tree.map(root_mean_square, params)
        scaled = jax.tree.map(jnp.divide, params, units)
        fresh, no = (self.precondition.init(scaled), self.search.init(scaled)), jnp.asarray(False)
        scale, one = scale_of(loss, grads, units), jnp.ones_like(loss)
        memory = LBFGSState(*fresh, units, scale, one, loss, loss, grads, no, no, jax.tree.map(jnp.zeros_like, params))
        return self.judged(objective, params, memory, no, no, no, no)

    def judged(
        self, objective: Objective, params: PyTree, memory: LBFGSState, stalled: Array, idle: Array, crawled: Array,
        leaped: Array,
    ) -> LBFGSState:  # fmt: skip
        """Return the memory with the verdict, or with what it takes where that is left to `settle`."""
        if is_judged_apart():
            asks = may_end(objective, params, memory, stalled, idle)
            no = jnp.asarray(False)
            leap = jax.tree.map(jnp.zeros_like, params)
            last = LastStep(stalled, idle, crawled, leaped, asks)
            return memory._replace(settled=no, undetermined=no, leap=leap, last=last)
        ended = memory.settled | memory.undetermined  # by the last verdict: nobody takes this step
        settled, undetermined, leap = where_asked(
            ~ended & may_end(objective, params, memory, stalled, idle), functools.partial(judge, objective),
            params, memory.grads, memory.units, memory.loss, memory.start, stalled, idle, crawled, leaped,
        )  # fmt: skip
        return memory._replace(settled=settled, undetermined=undetermined, leap=leap)

    def settle(self, objective: Objective, params: PyTree, memory: LBFGSState) -> LBFGSState:
        with judged_apart(False):
            judged = self.judged(objective, params, memory, *memory.last[:4])  # pyright: ignore[reportOptionalSubscript]
        return judged._replace(last=memory.last._replace(asks=jnp.asarray(False)))  # pyright: ignore[reportOptionalMemberAccess]

    def step(self, objective: Objective, params: PyTree, memory: LBFGSState) -> Proposal:
        limits, units, loss = objective.bounds, memory.units, memory.loss
        verdict = memory.settled, memory.undetermined
        asks = False if memory.last is None else memory.last.asks
        scale, reach = memory.scale, memory.reach
        grads = memory.grads if limits is None else inward(memory.grads, params, *limits)
        slope = jax.tree.map(lambda g, u: g * scale * u, grads, units)
        here = jax.tree.map(jnp.divide, params, units)

        def inside(scaled):
            there = jax.tree.map(jnp.multiply, scaled, units)
            return there if limits is None else clipped_to(there, *limits)

        def value(scaled):
            found = objective(inside(scaled))
            return jnp.where(jnp.isnan(found), jnp.inf, found * scale)

        direction, curvature = self.precondition.update(slope, memory.curvature, here)
        leaped = unequal(memory.leap, jax.tree.map(jnp.zeros_like, params))
        direction = jax.tree.map(
            lambda d, g, n, u: jnp.where(g == 0, 0, jnp.where(leaped, -n / u, -d * reach)),
            direction, slope, memory.leap, units,
        )  # fmt: skip
        updates, search = self.search.update(
            direction, memory.search, here, value=loss * scale, grad=slope, value_fn=value
        )
        there = inside(jax.tree.map(jnp.add, here, updates))
        if limits is None:
            _, reached = jax.lax.while_loop(  # of which `scale` may have lost the last digits
                lambda carry: carry[0],
                lambda _: (False, objective(there)),
                (scale < 1, search.value / scale),  # pyright: ignore[reportArgumentType]
            )
            found = jax.tree.map(lambda g, u: g / u / scale, search.grad, units)
        else:  # a gradient through a bound is zero beyond it
            reached, found = jax.value_and_grad(objective)(there)
        ends = [jnp.all(jnp.isfinite(x)) for x in (reached, *jax.tree.leaves(found))]
        better = jnp.stack(ends).all() & (reached <= loss)

        def pick(new, old):
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

        there, reached, found = pick((there, reached, found), (params, loss, memory.grads))
        info = jnp.finfo(loss.dtype)
        least = info.eps**0.75 * jnp.abs(loss)
        idle = loss - reached <= least
        parts = zip(*map(jax.tree.leaves, (found, memory.grads)), strict=True)
        bent = jnp.stack([jnp.any(jnp.abs(a - b) > info.eps**0.5 * jnp.abs(b)) for a, b in parts]).any()
        crawled = better & ~bent & unequal(there, params)
        unmoved = idle & ~bent & (memory.start - loss <= least)
        units = resized(objective, there, found, units, reached, idle)
        anew = unequal(units, memory.units)
        here = jax.tree.map(jnp.divide, there, units)
        fresh = self.precondition.init(here), self.search.init(here)
        better &= ~(unmoved | anew)
        farther = jnp.where(search.info.decrease_error > 0, 0.5**DOUBLINGS, 2.0**DOUBLINGS)
        memory = LBFGSState(
            pick(curvature, fresh[0]),
            pick(search, fresh[1]),
            units,
            jnp.where(anew, scale_of(reached, found, units), scale),
            jnp.where(unmoved & ~anew, jnp.clip(reach * farther, info.tiny**0.5, info.max**0.5), 1),
            memory.start,
            reached,
            found,
            *verdict,
            memory.leap,
            memory.last,
        )
        pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(slope), strict=True)
        promised = -sum(jnp.sum(d * g) for d, g in pairs) / scale
        learned = curvature.count > min(sum(x.size for x in jax.tree.leaves(params)), self.pairs)
        stalled = learned & (promised <= least) & idle
        memory = self.judged(objective, there, memory, stalled & ~anew, idle & ~anew, crawled, leaped)
        return Proposal(loss, grads, there, memory, *verdict, asks=asks)


def root_mean_square(leaf: Array) -> Array:
    """Return the root mean square of a leaf's entries, or 1 if they are zero, or so small that gradients overflow."""
    about = jnp.ldexp(jnp.ones_like(leaf), -jnp.frexp(jnp.max(jnp.abs(leaf), initial=0))[1])
    size = jnp.sqrt(jnp.mean((leaf * about) ** 2)) / about
    info = jnp.finfo(leaf.dtype)
    return jnp.where(size > info.eps * info.tiny**0.5, size, 1)


def unequal(one: PyTree, other: PyTree) -> Array:
    return jnp.stack([jnp.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)]).any()


def resized(objective: Objective, params: PyTree, grads: PyTree, units: PyTree, loss: Array, idle: Array) -> PyTree:
    """Return the units that fit after an `idle` step; those of other steps, and of most params, stay.

    A leaf so small that doubling it leaves the loss as it is gets a unit of 1, as one that starts at zero; and a leaf
    that is now a millionth of its start gets its size, at least 1.
    """
    eps = jnp.finfo(loss.dtype).eps

    def lost(p, g, u):
        return idle & (jnp.max(u) < eps**0.25) & (jnp.max(jnp.abs(g) * jnp.maximum(u, jnp.abs(p))) <= eps * abs(loss))

    def shrunk(p, u):
        size = jnp.maximum(root_mean_square(p), 1)
        return jnp.where(idle & (size < 0.5**DOUBLINGS * u), size, u)

    small = jax.tree.map(lost, params, grads, units)
    doubled = jax.tree.map(lambda p, now: jnp.where(now, 2 * p, p), params, small)
    _, same = jax.lax.while_loop(  # evaluated only where there are some
        lambda carry: carry[0],
        lambda _: (False, abs(objective(objective.between_bounds(doubled)) - loss) <= 4 * eps * abs(loss)),
        (jnp.stack(jax.tree.leaves(small)).any(), jnp.asarray(False)),  # pyright: ignore[reportArgumentType]
    )
    units = jax.tree.map(lambda u, now: jnp.where(now & same, 1, u), units, small)
    return jax.tree.map(shrunk, params, units)


def scale_of(loss: Array, grads: PyTree, units: PyTree) -> Array:
    """Return 1, or the power of two by which the loss is multiplied so that Optax can square its gradient.

    Its first step is the gradient divided by its norm, or the gradient itself where that is small; too small, and no
    step is seen in the loss.
    """
    info = jnp.finfo(loss.dtype)
    low, high = -DOUBLINGS, 3 * info.maxexp // 7

    def exponent(x):
        return jnp.where(x == 0, info.minexp, jnp.frexp(x)[1])

    tops = [jnp.max(exponent(g) + exponent(u)) for g, u in zip(*map(jax.tree.leaves, (grads, units)), strict=True)]
    top = jnp.stack(tops).max()
    power = jnp.where(top > high, high - top, jnp.where(top < low, -top, 0))
    most = info.maxexp - 8
    return jnp.ldexp(jnp.ones_like(loss), jnp.clip(power, -most, jnp.minimum(most, most - exponent(loss))))


def judge(
    objective: Objective, params: PyTree, grads: PyTree, units: PyTree, loss: Array, start: Array, stalled: Array,
    idle: Array, crawled: Array, leaped: Array,
) -> tuple[Array, Array, PyTree]:  # fmt: skip
    """Return whether the params are at a minimum, as far as the precision can tell, whether they are at one but for
    params on which the loss does not depend, and the step to try next, if not zero. One of these must hold:

    - no param, moved by its own size, would change the loss by more than eps**0.6 of itself, to first order, and
      Newton's step promises at most eps**(5/6) of it, where the Hessian is known; the former is eps**0.25 where the
      search has `stalled`: the step that the learned curvature proposes promises next to nothing; but eps**0.6 also
      there along directions in which the loss does not bend;
    - the loss is zero, as far as the rounding of the params lets one see, and the last step was `idle`: from a start of
      1e15 that rounding is large at first, and the next step sees more. One that `crawled` (the gradient stayed) does
      not count;
    - the last step was idle, it did not lower the loss, and Newton's step would not either: what it promises,
      g H^-1 g / 2 with no curvature of the Hessian H negative, is lost in the `rounding` of the loss.

    What an idle step says is that its direction was poor, unless it was Newton's: where the Hessian is known, the last
    two hold only after a step along it, a `leap`, which the first idle step asks for. A step that the curvature of far
    away makes too short to move the params is idle too, and the `rounding` is a bound, often a hundred times too high.

    A plateau is flat too, so each of up to `PROBED` params, moved by a hundredth, must change some gradient, or those
    that do not are without influence `elsewhere` too. So is a saddle, so no curvature may be negative beyond rounding;
    where params trade against each other along a curve, the gradient that is left bends the loss down along it, so that
    a negative curvature must also be seen where Newton's step leads, if that is near. With more params neither is
    computed.
    """
    eps, limits = jnp.finfo(loss.dtype).eps, objective.bounds
    point, back = jax.flatten_util.ravel_pytree(params)
    sizes, own = jax.flatten_util.ravel_pytree(units)[0], jnp.abs(point)
    raw = jax.flatten_util.ravel_pytree(grads)[0]
    slope = raw if limits is None else jax.flatten_util.ravel_pytree(inward(grads, params, *limits))[0]
    unit = jnp.maximum(own, sizes)
    level = jnp.abs(loss)

    def gradient(point):
        return jax.flatten_util.ravel_pytree(jax.grad(objective)(back(point)))[0]

    def bend(_):  # p |H| p / 2, for one choice of signs in p; a param near zero counts with a little of its start
        part = eps**0.25
        moved = part * jnp.maximum(own, part * sizes) * signs(point)
        change = gradient(point + moved) - raw
        near = jnp.max(jnp.abs(slope * moved)) / part
        return False, jnp.sum(jnp.abs(moved * change)) / 2 / part**2, near

    far = jnp.zeros_like(loss)
    _, size, near = jax.lax.while_loop(
        lambda carry: carry[0], bend, (level <= eps * jnp.abs(start), far, far + jnp.inf)
    )
    zero = (idle & ~crawled | (level == 0)) & (level <= 16 * eps**2 * size) & (near <= 16 * eps * size)
    flat = is_flat(slope, unit, level, stalled)
    if point.size > PROBED:
        return flat | zero, jnp.asarray(False), back(jnp.zeros_like(point))
    index = jnp.arange(point.size)
    held = at_bound = jnp.zeros(point.size, bool)
    low, high = -jnp.inf, jnp.inf
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
        at_bound = (point <= low) | (point >= high)
        held = at_bound & (slope == 0)
    column_at = hessian_columns(gradient, point)

    def probe(carry):
        i, silent, at, newton = carry
        probed = gradient(point + jnp.where(index == i, 0.01 * unit, 0))
        felt = jnp.max(jnp.abs(probed - raw) * unit) > 2 * eps**0.6 * level
        if column_at is not None:
            newton = eliminate(newton, i, column_at(at, i), slope, own, held)
        return i + 1, jnp.where(index == i, ~felt & ~at_bound, silent), at, newton

    def factorized(carry):
        _, first, _, at, _ = carry
        _, silent, at, newton = jax.lax.while_loop(
            lambda carry: carry[0] < point.size, probe, (jnp.int32(0), none, at, Newton.begin(point))
        )
        blur, step = rounding(level, newton.size), newton.step
        near = newton.at_rest(unit, blur) & jnp.all(jnp.abs(step) <= eps**0.5 * unit)
        return first & near & newton.falls(unit, blur), jnp.asarray(False), silent, point - step, newton

    none, ended = jnp.zeros(point.size, bool), flat | zero | (idle & (column_at is not None))
    *_, silent, _, newton = jax.lax.while_loop(
        lambda carry: carry[0], factorized, (ended, jnp.asarray(True), none, point, Newton.begin(point))
    )
    blur = rounding(level, newton.size)
    flat &= (newton.promised <= eps ** (5 / 6) * level) & (newton.unbent(unit) <= eps**0.6 * level)
    tried = leaped | (column_at is None) | (level == 0) | jnp.all(point - newton.step == point)
    falls = newton.falls(unit, blur)
    least = ended & (flat | tried & (zero | newton.at_rest(unit, blur))) & ~falls
    leap = jnp.where(idle & ~tried & ~falls, newton.step / jnp.maximum(jnp.max(jnp.abs(newton.step) / unit), 1), 0)
    dead = silent.any()
    _, same = jax.lax.while_loop(  # evaluated only where there are some
        lambda carry: carry[0],
        lambda _: (False, elsewhere(gradient, point, silent, low, high)),
        (least & dead & ~silent.all(), jnp.asarray(False)),  # pyright: ignore[reportArgumentType]
    )
    return least & ~dead, least & same, back(leap)


def is_flat(slope: Array, unit: Array, level: Array, stalled: Array) -> Array:
    """Return whether no param, moved by its own size, would change the loss by much, to first order."""
    eps = jnp.finfo(level.dtype).eps
    return jnp.max(jnp.abs(slope) * unit) <= jnp.where(stalled, eps**0.25, eps**0.6) * level


def may_end(objective: Objective, params: PyTree, memory: LBFGSState, stalled: Array, idle: Array) -> Array:
    """Return whether `judge` may find the params at a minimum: what it takes without an evaluation of the loss."""
    limits, level = objective.bounds, jnp.abs(memory.loss)
    grads = memory.grads if limits is None else inward(memory.grads, params, *limits)
    slope, point, sizes = (jax.flatten_util.ravel_pytree(x)[0] for x in (grads, params, memory.units))
    return idle | (level == 0) | is_flat(slope, jnp.maximum(jnp.abs(point), sizes), level, stalled)


def elsewhere(gradient: Callable, point: Array, silent: Array, low: ArrayLike, high: ArrayLike) -> Array:
    """Return whether the gradient (k,) has the same bits where params without influence are at `other_places`."""
    places = jnp.concatenate([point[None], other_places(point, silent)])
    found = jax.lax.map(lambda place: gradient(clipped_to(place, low, high)), places)
    return jnp.all(found == found[:1])


def rounding(level: Array, size: Array) -> Array:
    """Return by how much the rounding of params and residuals changes a loss, where size is p |H| p / 2.

    The residuals of a loss sum(r**2) are rounded by d with |d|**2 <= eps**2 * size, which changes it by
    eps * loss + 2 |r| |d| + |d|**2; a factor of 16 is the margin.
    """
    eps = jnp.finfo(level.dtype).eps
    return 16 * eps * (level + 2 * jnp.sqrt(level) * jnp.sqrt(size) + eps * size)


class Newton(NamedTuple):
    """A factorization L D L^T of the Hessian, scaled to a diagonal of 1 or -1, of which the first rows are known."""

    factor: Array  # (k, k) L, of ones on the diagonal; the identity in rows that are not yet known
    pivots: Array  # (k,) D; 1 in rows that are not yet known
    root: Array  # (k,) of the diagonal
    solved: Array  # (k,) L^-1 g
    size: Array  # () p |H| p / 2 of the columns so far

    @staticmethod
    def begin(point: Array) -> Newton:
        zero = jnp.zeros_like(point)
        return Newton(jnp.eye(point.size, dtype=point.dtype), zero + 1, zero + 1, zero, zero.sum())

    @property
    def rounded(self) -> float:
        """Of a pivot."""
        return 8 * self.root.size * float(jnp.finfo(self.root.dtype).eps)

    @property
    def bent(self) -> Array:
        return self.pivots > self.rounded

    @property
    def promised(self) -> Array:
        """() What Newton's step promises, along the directions in which the loss bends up."""
        return jnp.sum(jnp.where(self.bent, self.solved**2 / jnp.where(self.bent, self.pivots, 1), 0)) / 2

    @property
    def step(self) -> Array:
        """(k,) Newton's step, to be subtracted, along the directions in which the loss bends up."""
        along = jnp.where(self.bent, self.solved / jnp.where(self.bent, self.pivots, 1), 0)
        return unit_solve(self.factor.T[::-1, ::-1], along[::-1])[::-1] / self.root

    def falls(self, unit: Array, blur: Array) -> Array:
        """Return whether the loss bends down along some direction, by more than its rounding within the units."""
        return jnp.any((self.pivots < -self.rounded) & (self.pivots * (self.root * unit) ** 2 < -2 * blur))

    def at_rest(self, unit: Array, blur: Array) -> Array:
        """Return whether Newton's step, and a step by the units where nothing bends, promise no more than rounding."""
        return (self.promised <= blur) & (self.unbent(unit) <= blur)

    def unbent(self, unit: Array) -> Array:
        """Return what a step by the units promises, at most, along a direction in which nothing bends."""
        return jnp.max(jnp.where(self.bent, 0, jnp.abs(self.solved) * self.root * unit))


def eliminate(newton: Newton, i: Array, column: Array, slope: Array, own: Array, held: Array) -> Newton:
    """Add a row to the factorization; params that are `held` have none."""
    index = jnp.arange(own.size)
    column = jnp.where(held | held[i], 0, column)
    size = newton.size + jnp.sum(jnp.abs(column) * own) * own[i] / 2
    root = jnp.sqrt(jnp.where(column[i] == 0, 1, jnp.abs(column[i])))
    scaled = jnp.where(index < i, column / newton.root / root, 0)
    row = unit_solve(newton.factor, scaled)
    bent = jnp.abs(newton.pivots) > newton.rounded
    left = jnp.where(bent & (index < i), row / jnp.where(bent, newton.pivots, 1), 0)
    pivot = jnp.where(held[i], 1, jnp.sign(column[i]) - jnp.sum(left * row))
    solved = jnp.where(held[i], 0, slope[i] / root - jnp.sum(left * newton.solved))
    return Newton(
        newton.factor.at[i].set(jnp.where(index == i, 1, left)),
        newton.pivots.at[i].set(pivot),
        newton.root.at[i].set(root),
        newton.solved.at[i].set(solved),
        size,
    )


def unit_solve(factor: Array, b: Array) -> Array:
    """Return L^-1 b of a lower triangle with ones on its diagonal; to ask LAPACK for it takes longer to compile."""
    return jax.lax.fori_loop(0, b.size, lambda i, z: z.at[i].add(z[i] - jnp.sum(factor[i] * z)), b)


def signs(point: Array) -> Array:
    """Return 1 and -1 without order: the highest bits of multiples of the golden ratio."""
    multiples = jnp.arange(point.size, dtype=np.uint32) * np.uint32(0x9E3779B9)
    return jnp.where(multiples >> np.uint32(31) == 0, 1, -1).astype(point.dtype)


def hessian_columns(gradient: Callable, point: Array) -> Callable | None:
    """Return a function from a point and i to column i of the Hessian; None if the gradient has no derivative."""

    def column(at, i):
        return jax.vjp(gradient, at)[1](jnp.where(jnp.arange(at.size) == i, 1, 0).astype(at.dtype))[0]

    try:
        jax.eval_shape(column, point, jnp.int32(0))
    except Exception:  # noqa: BLE001 (a derivative of a user's own may have no second one)
        return None
    return column


def lbfgs(memory: int = 10) -> LBFGS:
    return LBFGS(
        optax.scale_by_lbfgs(memory_size=memory),
        optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),
        memory,
    )


lbfgs.traits = Traits(judges=True, deterministic=True, chunk=32, settles=True)
