"""L-BFGS: gradients that learn the curvature, for any smooth loss, with a line search of Optax."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax
from jax import Array

from jaxfit.methods import Objective, Proposal, between, inward

PyTree = Any
PROBED = 64


class Memory(NamedTuple):
    """What is known of the point where a run stands."""

    curvature: Any  # Optax's: differences of params and gradients
    search: Any  # Optax's line search
    units: PyTree  # like params: the size of each leaf at the start
    start: Array  # () loss there
    loss: Array  # ()
    grads: PyTree
    settled: Array  # () the verdict


class LBFGS(NamedTuple):
    """The method itself; `jf.optimizers.lbfgs` makes one. It works on params over their units."""

    precondition: optax.GradientTransformation
    search: optax.GradientTransformationExtraArgs
    pairs: int  # past steps to learn from

    def init(self, objective: Objective, params: PyTree) -> Memory:
        loss, grads = jax.value_and_grad(objective)(params)
        units = jax.tree.map(size_of, params)
        scaled = jax.tree.map(jnp.divide, params, units)
        settled = judge(objective, params, grads, units, loss, loss, jnp.asarray(False))
        return Memory(self.precondition.init(scaled), self.search.init(scaled), units, loss, loss, grads, settled)

    def step(self, objective: Objective, params: PyTree, memory: Memory) -> Proposal:
        limits, units, loss, verdict = objective.bounds, memory.units, memory.loss, memory.settled
        grads = memory.grads if limits is None else inward(memory.grads, params, *limits)
        slope = jax.tree.map(jnp.multiply, grads, units)
        here = jax.tree.map(jnp.divide, params, units)

        def inside(scaled):
            there = jax.tree.map(jnp.multiply, scaled, units)
            return there if limits is None else between(there, *limits)

        def value(scaled):
            found = objective(inside(scaled))
            return jnp.where(jnp.isnan(found), jnp.inf, found)

        direction, curvature = self.precondition.update(slope, memory.curvature, here)
        direction = jax.tree.map(lambda d, g: jnp.where(g == 0, 0, -d), direction, slope)
        updates, search = self.search.update(direction, memory.search, here, value=loss, grad=slope, value_fn=value)
        there = inside(jax.tree.map(jnp.add, here, updates))
        if limits is None:
            reached, found = search.value, jax.tree.map(jnp.divide, search.grad, units)
        else:  # a gradient through a bound is zero beyond it
            reached, found = jax.value_and_grad(objective)(there)
        ends = [jnp.all(jnp.isfinite(x)) for x in (reached, *jax.tree.leaves(found))]
        better = jnp.stack(ends).all() & (reached <= loss)

        def pick(new, old):
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

        fresh = self.precondition.init(here), self.search.init(here)
        memory = Memory(
            pick(curvature, fresh[0]),
            pick(search, fresh[1]),
            units,
            memory.start,
            pick(reached, loss),
            pick(found, memory.grads),
            memory.settled,
        )
        promised = -sum(jnp.sum(d * g) for d, g in zip(jax.tree.leaves(direction), jax.tree.leaves(slope), strict=True))
        least = jnp.finfo(loss.dtype).eps ** 0.75 * jnp.abs(loss)
        learned = curvature.count > min(sum(x.size for x in jax.tree.leaves(params)), self.pairs)
        stalled = learned & (promised <= least) & (loss - memory.loss <= least)
        there = pick(there, params)
        settled = judge(objective, there, memory.grads, units, memory.loss, memory.start, stalled)
        return Proposal(loss, grads, there, memory._replace(settled=settled), verdict)


def size_of(leaf: Array) -> Array:
    """The root mean square of a leaf's entries; 1 if they are zero."""
    size = jnp.sqrt(jnp.mean(leaf * leaf))
    return jnp.broadcast_to(jnp.where(size > 0, size, 1), leaf.shape)


def judge(
    objective: Objective, params: PyTree, grads: PyTree, units: PyTree, loss: Array, start: Array, stalled: Array
) -> Array:
    """Whether no param, moved by its own size, would change the loss by more than eps**0.6 of itself, to first order.

    That is eps**0.25 where the search has `stalled`: the step that the learned curvature proposes promises next
    to nothing. Where the loss has fallen to zero as far as its start lets one see, the start's rounding decides.
    On a plateau all is flat too: so each of up to `PROBED` params, moved by a hundredth, must change some gradient.
    """
    eps, limits = jnp.finfo(loss.dtype).eps, objective.bounds

    def steepest(grads, params):
        reach = jax.tree.map(lambda g, p, u: jnp.max(jnp.abs(g) * jnp.maximum(jnp.abs(p), u)), grads, params, units)
        return jnp.max(jnp.stack(jax.tree.leaves(reach)))

    here = steepest(grads if limits is None else inward(grads, params, *limits), params)
    flat = here <= jnp.where(stalled, eps**0.25, eps**0.6) * jnp.abs(loss)
    flat |= (jnp.abs(loss) <= eps**1.5 * jnp.abs(start)) & (here <= eps * jnp.abs(start))
    point, back = jax.flatten_util.ravel_pytree(params)
    if point.size > PROBED:
        return flat
    unit = jnp.maximum(jnp.abs(point), jax.flatten_util.ravel_pytree(units)[0])
    held = jnp.zeros(point.size, bool)
    if limits is not None:
        low, high = (jax.flatten_util.ravel_pytree(x)[0] for x in limits)
        held = (point <= low) | (point >= high)

    def probe(carry):
        i, fine = carry
        there = back(point + jnp.where(jnp.arange(point.size) == i, 0.01 * unit, 0))
        found = jax.grad(objective)(there)
        felt = steepest(jax.tree.map(jnp.subtract, found, grads), params) > 2 * eps**0.6 * jnp.abs(loss)
        return i + 1, fine & (felt | held[i])

    return jax.lax.while_loop(lambda carry: carry[1] & (carry[0] < point.size), probe, (jnp.int32(0), flat))[1]


def lbfgs(memory: int = 10) -> LBFGS:
    return LBFGS(
        optax.scale_by_lbfgs(memory_size=memory),
        optax.scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one"),
        memory,
    )


lbfgs.judges = lbfgs.deterministic = True
lbfgs.chunk = 32
