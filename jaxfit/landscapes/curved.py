"""The plane in which the loss is curved most, which random directions miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfit import optimizers
from jaxfit.checks import pose
from jaxfit.keywords import near_keywords
from jaxfit.landscapes.slices import Slice, as_center, tree, vector
from jaxfit.parameters import free
from jaxfit.problems import Record, Stop, convert_all, precision_context
from jaxfit.steps import objective_of, step_key
from jaxfit.tracing import inspect_loss

PyTree = Any
DENSE = 512  # params up to which the whole Hessian is formed
PROBES = 30  # random vectors that estimate its size beyond


@near_keywords
def hessian_plane(
    loss: Callable, params: PyTree, data: tuple = (), *, which: str = "largest", key: Any = None
) -> Slice:
    """The plane through params along two eigenvectors of the Hessian of the loss there; found in float64.

    `about` has the two eigenvalues, and as `captured` their squares' part of the sum of all squared eigenvalues. Beyond
    512 params the eigenvectors come from products of the Hessian with vectors, and that sum from 30 random ones.

    Args:
      loss, params, data, key: As for `surface`, without axes; the params are the center.
      which: "largest" for the two of largest magnitude, "ends" for the largest and the smallest, which at a saddle is
        negative.

    Raises:
      ValueError: If there are fewer than two params, `which` is another, or a derivative is not finite.
    """
    if which not in ("largest", "ends"):
        raise ValueError(f'which is {which!r}, but it must be "largest" or "ends"')
    center = as_center(params, "params")
    problem = pose(
        loss, center, data, optimizer=optimizers.sgd(1.0), steps=1, stop=Stop(), record=Record(what=()), batches=None,
        key=key, validation=None, precision="float64",
    )  # fmt: skip
    size = len(vector(free(center)))
    if size < 2:
        raise ValueError("hessian_plane: there is one number to move, which makes no plane; draw its loss with surface")
    with precision_context("float64"):
        converted = convert_all(problem, "float64")
        inspect_loss(converted)
        flat, unravel = ravel_pytree(free(converted.params))
        objective = objective_of(converted, converted.data, step_key(converted, jnp.int32(0)))
        slope = jax.grad(lambda x: objective(unravel(x)))
        ends = which == "ends"
        values, vectors, total = (_whole if size <= DENSE else _by_products)(slope, flat, ends)
    if not np.isfinite(total):
        raise ValueError(
            "hessian_plane: a second derivative of the loss is not finite at params; take others, at which the loss is "
            "smooth"
        )
    names = ("largest_curvature", "smallest_curvature") if ends else ("eigenvector_1", "eigenvector_2")
    part = min(1.0, float(np.sum(values**2)) / total) if total else 0.0
    about = {
        "slice": "eigenvectors of the Hessian",
        "captured": part,
        "captures": "squared curvature",
        "eigenvalues": [float(v) for v in values],
    }
    reach = 0.5 * float(np.linalg.norm(vector(free(center)))) or 1.0
    directions = tuple(tree(v, free(center)) for v in vectors.T)
    return Slice(center, directions, names, ((-reach, reach),) * 2, about)


def _whole(slope: Callable, flat: jax.Array, ends: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Two eigenvalues, their eigenvectors as columns, and the sum of all squares."""
    hessian = np.asarray(jax.jit(jax.jacfwd(slope))(flat))
    if not np.isfinite(hessian).all():
        return np.zeros(2), np.eye(len(flat), 2), np.nan
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    order = np.array([-1, 0]) if ends else np.argsort(-np.abs(values), kind="stable")[:2]
    return values[order], _turned(vectors[:, order]), float(np.sum(values**2))


def _by_products(slope: Callable, flat: jax.Array, ends: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """The same without the Hessian."""
    import scipy.sparse.linalg

    sparse: Any = scipy.sparse.linalg
    size = len(flat)
    product = jax.jit(lambda x, v: jax.jvp(slope, (x,), (v,))[1])
    rng = np.random.default_rng(0)
    probes = [np.asarray(product(flat, rng.choice([-1.0, 1.0], size))) for _ in range(PROBES)]
    if not np.isfinite(probes).all():
        return np.zeros(2), np.eye(size, 2), np.nan
    operator = sparse.LinearOperator((size, size), matvec=lambda v: np.asarray(product(flat, np.ravel(v))), dtype=float)
    values, vectors = sparse.eigsh(operator, k=2, which="BE" if ends else "LM", v0=rng.normal(size=size), tol=1e-6)
    order = np.argsort(-values if ends else -np.abs(values), kind="stable")
    return values[order], _turned(vectors[:, order]), float(np.mean(np.sum(np.square(probes), axis=1)))


def _turned(vectors: np.ndarray) -> np.ndarray:
    """Each column with its largest entry positive, since its sign is arbitrary."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return vectors * np.where(largest < 0, -1.0, 1.0)
