"""What an expert writes by hand in JAX for the same work, without jaxfit.

A lane is one run: a pure function lane(own, data) of its own numbers (start, rate, key) and the data, which is an
argument and never a constant of the program. `wide` runs all lanes side by side, `in_blocks` some of them at a time.
Both take NumPy arrays and give NumPy arrays, as `jf.sweep` does. Nothing is donated: the starts are too small for that
to matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

PyTree = Any
Lane = Callable[[dict[str, PyTree], tuple], dict[str, PyTree]]


def line(params: dict[str, Array], x: Array) -> Array:
    return params["w"] * x + params["b"]


def line_mse(params: dict[str, Array], x: Array, y: Array) -> Array:
    return jnp.mean((line(params, x) - y) ** 2)


def tanh_net(params: dict[str, Array], x: Array) -> Array:
    """Two layers without biases: x (n, 16) to (n,)."""
    hidden = jnp.tanh(jnp.sqrt(2.0) * (x @ params["hidden"]) / jnp.sqrt(x.shape[-1]))
    return hidden @ params["output"] / jnp.sqrt(hidden.shape[-1])


def tanh_net_mse(params: dict[str, Array], x: Array, y: Array) -> Array:
    return jnp.mean((tanh_net(params, x) - y) ** 2)


def sgd_by_layer(hidden: Any, output: Any) -> optax.GradientTransformation:
    """Gradient descent with a learning rate for each of the two layers."""
    rates = {"hidden": hidden, "output": output}
    return optax.stateless(lambda grads, _: jax.tree.map(lambda g, rate: -rate * g, grads, rates))


def descending(loss: Callable, optimizer: Callable, steps: int) -> Lane:
    """A scan of `steps` updates; the end only."""

    def lane(own, data):
        transformation = optimizer(**own["rates"])

        def step(carry, _):
            params, memory = carry
            updates, memory = transformation.update(jax.grad(loss)(params, *data), memory, params)
            return (optax.apply_updates(params, updates), memory), None

        start = own["params"], transformation.init(own["params"])
        (params, _), _ = lax.scan(step, start, length=steps)
        return {"params": params, "loss": loss(params, *data)}

    return lane


def recording(loss: Callable, optimizer: Callable, steps: int, every: int, unroll: int = 1) -> Lane:
    """The same with the loss of every `every`-th step, from the start to the end."""

    def lane(own, data):
        transformation = optimizer(**own["rates"])

        def step(carry):
            params, memory = carry
            value, grads = jax.value_and_grad(loss)(params, *data)
            updates, memory = transformation.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), value

        def record(carry, _):
            carry, value = step(carry)
            return (carry if every == 1 else lax.fori_loop(1, every, lambda _, c: step(c)[0], carry)), value

        start = own["params"], transformation.init(own["params"])
        (params, _), losses = lax.scan(record, start, length=steps // every, unroll=unroll)
        end = loss(params, *data)
        return {"params": params, "loss": end, "losses": jnp.append(losses, end)}

    return lane


def descending_by_batches(loss: Callable, optimizer: Callable, steps: int, size: int) -> Lane:
    """A scan over mini-batches without replacement.

    The rows are permuted once an epoch, under a `lax.cond` whose predicate is the same for all lanes: under vmap it
    stays a branch, and no step sorts in vain.
    """

    def lane(own, data):
        transformation = optimizer(**own["rates"])
        rows = data[0].shape[0]
        per_epoch = rows // size

        def shuffled(t):
            key = jax.random.fold_in(jax.random.fold_in(own["key"], t), 0)
            return jax.random.permutation(key, rows).astype(np.int32)

        def step(carry, t):
            params, memory, order = carry
            order = lax.cond(t % per_epoch == 0, lambda: shuffled(t), lambda: order)
            picked = lax.dynamic_slice(order, (t % per_epoch * size,), (size,))
            grads = jax.grad(loss)(params, *(x[picked] for x in data))
            updates, memory = transformation.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory, order), None

        start = own["params"], transformation.init(own["params"]), jnp.arange(rows, dtype=np.int32)
        (params, *_), _ = lax.scan(step, start, jnp.arange(steps, dtype=np.int32))
        return {"params": params, "loss": loss(params, *data)}

    return lane


def descending_by_epochs(loss: Callable, optimizer: Callable, epochs: int, size: int) -> Lane:
    """A scan over epochs, each a scan over the batches of a permutation; `data` begins with a key for all lanes."""

    def lane(own, data):
        transformation = optimizer(**own["rates"])
        key, *data = data
        rows = data[0].shape[0]

        def step(carry, picked):
            params, memory = carry
            grads = jax.grad(loss)(params, *(x[picked] for x in data))
            updates, memory = transformation.update(grads, memory, params)
            return (optax.apply_updates(params, updates), memory), None

        def epoch(carry, key):
            order = jax.random.permutation(key, rows)[: rows // size * size]
            return lax.scan(step, carry, order.reshape(-1, size))

        start = own["params"], transformation.init(own["params"])
        (params, _), _ = lax.scan(epoch, start, jax.random.split(key, epochs))
        return {"params": params, "loss": loss(params, *data)}

    return lane


def descending_until(loss: Callable, optimizer: Callable, steps: int, gradient_norm_below: float) -> Lane:
    """A while_loop until the gradient's norm is below the threshold, or no longer finite, or the steps are spent.

    The gradient is carried, so that one is taken for each update; its norm stays squared, and no loss is computed on
    the way.
    """

    def lane(own, data):
        transformation = optimizer(**own["rates"])
        slope = jax.grad(loss)

        def goes_on(carry):
            t, _, _, grads = carry
            square = sum(jnp.sum(g * g) for g in jax.tree.leaves(grads))
            return (t < steps) & (square >= gradient_norm_below**2) & (square < jnp.inf)

        def step(carry):
            t, params, memory, grads = carry
            updates, memory = transformation.update(grads, memory, params)
            params = optax.apply_updates(params, updates)
            return t + 1, params, memory, slope(params, *data)

        params = own["params"]
        start = jnp.int32(0), params, transformation.init(params), slope(params, *data)
        t, params, *_ = lax.while_loop(goes_on, step, start)
        return {"params": params, "loss": loss(params, *data), "steps": t}

    return lane


def alone(lane: Lane) -> Callable:
    return _from_host(jax.jit(lane))


def wide(lane: Lane) -> Callable:
    """All lanes in one vmap."""
    return _from_host(jax.jit(jax.vmap(lane, in_axes=(0, None))))


def in_blocks(lane: Lane, size: int) -> Callable:
    """`lax.map` over blocks of lanes, each a vmap."""
    return _from_host(jax.jit(lambda own, data: lax.map(lambda one: lane(one, data), own, batch_size=size)))


def _from_host(program: Callable) -> Callable:
    return lambda own, data: jax.device_get(program(own, data))
