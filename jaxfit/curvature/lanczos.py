"""The Hessian of a loss: its products with vectors, and its eigenvalues by Lanczos iteration.

What a verb asks of it (the ends of the spectrum, all of it, curvatures along directions) is a function of a problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxfit.engine.loops import full_loss
from jaxfit.engine.tracing import undifferentiable
from jaxfit.problems import Problem
from jaxfit.problems.marks import free
from jaxfit.typing import Number, PyTree
from jaxfit.verbs.evaluations import Arguments

Found = TypeVar("Found")


def flat_loss(problem: Problem) -> tuple[Callable, Array, Callable]:
    """Return the loss of all data as a function of one vector, the params as that vector, and the inverse of that."""
    start, back = ravel_pytree(free(problem.params))
    return lambda vector: full_loss(problem, back(vector), jnp.int32(0)), start, back


def either_way(use: Callable[[Callable], Found], loss: Callable, at: Array) -> Found:
    """Return `use(jax.grad)`, or `use(jax.jacfwd)` for a loss without reverse mode, such as a `while` loop."""
    try:
        return use(jax.grad)
    except Exception:
        try:
            jax.eval_shape(jax.grad(loss), at)
        except Exception as error:
            if undifferentiable(error):
                return use(jax.jacfwd)
        raise


def gradient_and_product(loss: Callable, at: Array) -> tuple[Array, Callable]:
    """Return the gradient of the loss at a vector, and the function v -> Hv.

    H is the gradient's derivative forward; where the loss has no derivative backward, that of its derivative forward;
    where a rule of `jax.custom_vjp` has none forward, the gradient's derivative backward; where it has neither, central
    differences of the gradient, correct to about eps**(2/3).
    """
    first: Exception | None = None
    for way in (_forward(jax.grad), _forward(jax.jacfwd), _backward, _differences):
        try:
            gradient, product = way(loss, at)
            jax.eval_shape(jax.vmap(product), at[None])  # an operation without a rule raises only here
            return gradient, product
        except Exception as error:  # noqa: BLE001 (a rule of a user's own may refuse in any words)
            first = first or error
    assert first is not None
    raise first


def _forward(slope: Callable) -> Callable:
    return lambda loss, at: jax.linearize(slope(loss), at)


def _backward(loss: Callable, at: Array) -> tuple[Array, Callable]:
    gradient, pull = jax.vjp(jax.grad(loss), at)
    return gradient, lambda vector: pull(vector)[0]


def _differences(loss: Callable, at: Array) -> tuple[Array, Callable]:
    slope = jax.grad(loss)
    step = jnp.finfo(at.dtype).eps ** (1 / 3) * jnp.maximum(1, jnp.max(jnp.abs(at)))

    def product(vector):
        length = jnp.max(jnp.abs(vector))
        move = step * vector / jnp.where(length > 0, length, 1)
        return (slope(at + move) - slope(at - move)) / (2 * step) * length

    return slope(at), product


def products(problem: Problem, preconditioner: PyTree = None) -> tuple[Callable, Array, Callable]:
    """Return v -> Hv, or v -> D^-1/2 H D^-1/2 v, the params as a vector, and the inverse of that.

    The gradient is linearized once, so that a product costs about as much as a gradient.
    """
    loss, start, back = flat_loss(problem)
    _, product = gradient_and_product(loss, start)
    if preconditioner is None:
        return product, start, back
    scale = 1 / jnp.sqrt(ravel_pytree(preconditioner)[0])
    return lambda vector: scale * product(scale * vector), start, back


Operator = Callable[[Array], Array]  # (n,) -> (n,), linear and symmetric
STAGES = 32, 128  # sizes in which the tridiagonal eigenproblem is solved: the smallest that holds it


class Pairs(NamedTuple):
    """Eigenvalues in decreasing order, with bounds of their errors."""

    values: Array  # (count,)
    errors: Array  # (count,) norm of A v - value v: an eigenvalue lies within
    vectors: Array  # (count, n) of unit length
    products: Array  # () int32 products with a vector


class Krylov(NamedTuple):
    """An orthonormal basis of span(q, Aq, A^2 q, ...) and the operator in it, a tridiagonal matrix."""

    steps: Array  # () int32
    basis: Array  # (most + 1, n); zero beyond
    diagonal: Array  # (most,)
    beside: Array  # (most,) next to the diagonal; entry j joins j and j + 1


def dense_pairs(operator: Operator, size: int, count: int, dtype: np.dtype) -> Pairs:
    """Return eigenpairs from the whole matrix, for few dimensions."""
    matrix = jax.vmap(operator)(jnp.eye(size, dtype=dtype))
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    values, vectors = values[::-1][:count], vectors.T[::-1][:count]
    errors = jnp.linalg.norm(vectors @ matrix - values[:, None] * vectors, axis=1)
    return Pairs(values, errors, vectors, jnp.int32(size))


def krylov_begin(key: Array, size: int, most: int, dtype: np.dtype) -> Krylov:
    """Return the basis with a random first vector."""
    return krylov_begin_at(jax.random.normal(key, (size,), dtype), most)


def krylov_begin_at(start: Array, most: int) -> Krylov:
    """Return the basis with a given first vector, which is not zero."""
    dtype = start.dtype
    basis = jnp.zeros((most + 1, start.size), dtype).at[0].set(start / _length(start))
    return Krylov(jnp.int32(0), basis, jnp.zeros(most, dtype), jnp.zeros(most, dtype))


def krylov_extend(operator: Operator, krylov: Krylov, key: Array) -> Krylov:
    """Return the basis after one more product; if the span is exhausted, it continues with a random direction."""
    j, basis, diagonal, beside = krylov
    image = operator(basis[j])
    height = basis[j] @ image
    rest = _orthogonal(_orthogonal(image, basis), basis)
    length = _length(rest)
    scale = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.maximum(jnp.abs(height), jnp.max(beside)))
    spent = length <= 4 * jnp.finfo(rest.dtype).eps * scale

    def anew():
        other = jax.random.normal(jax.random.fold_in(key, j), rest.shape, rest.dtype)
        other = _orthogonal(_orthogonal(other / jnp.linalg.norm(other), basis), basis)
        return other / jnp.maximum(jnp.linalg.norm(other), jnp.finfo(rest.dtype).tiny)

    new = jax.lax.cond(spent, anew, lambda: rest / length)
    return Krylov(
        j + 1, basis.at[j + 1].set(new), diagonal.at[j].set(height), beside.at[j].set(jnp.where(spent, 0, length))
    )


def tridiagonal(krylov: Krylov) -> Array:
    """Return the operator in a basis that is filled, (most, most)."""
    beside = krylov.beside[:-1]
    return jnp.diag(krylov.diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)


def _orthogonal(vector: Array, basis: Array) -> Array:
    return vector - basis.T @ (basis @ vector)


def _length(vector: Array) -> Array:
    """Return the norm, without overflow or underflow of the squares."""
    most = jnp.max(jnp.abs(vector))
    return most * jnp.linalg.norm(vector / jnp.maximum(most, jnp.finfo(vector.dtype).tiny))


def ritz(krylov: Krylov, count: int, size: int) -> tuple[Array, Array, Array]:
    """Return the eigenvalues of the tridiagonal matrix, of which at most `size` rows are filled, in decreasing order.

    Returns:
      (count,) values, (count,) residual norms, (count, most) vectors in the basis.
    """
    steps, _, diagonal, beside = krylov
    filled = jnp.arange(size) < steps
    inner = jnp.where(filled[1:], beside[: size - 1], 0)
    heights = jnp.where(filled, diagonal[:size], 0)
    floor = -jnp.finfo(heights.dtype).tiny - 4 * (jnp.max(jnp.abs(heights)) + jnp.max(inner, initial=0))  # below all
    matrix = jnp.diag(jnp.where(filled, heights, floor)) + jnp.diag(inner, 1) + jnp.diag(inner, -1)
    values, vectors = jnp.linalg.eigh(matrix)
    values, vectors = values[::-1][:count], vectors.T[::-1][:count]
    last = jnp.take(beside, steps - 1) * jnp.abs(jnp.take(vectors, steps - 1, axis=1))
    return values, last, jnp.pad(vectors, ((0, 0), (0, len(diagonal) - size)))


def largest_pairs(operator: Operator, size: int, count: int, *, most: int, tolerance: Number, dtype: np.dtype) -> Pairs:
    """Return the largest eigenvalues, each with a residual norm below `tolerance` times its magnitude.

    Args:
      operator: Symmetric.
      size: Its dimensions.
      count: Eigenvalues wanted; one that repeats exactly may be found fewer times than it does.
      most: Products at most.
      tolerance: () relative to the eigenvalue, or to 1/100 of the largest magnitude where that is more; no smaller than
        what rounding leaves.
      dtype: Of the vectors.

    Source: Lanczos (1950); the bound is that of Parlett, The Symmetric Eigenvalue Problem (1980), section 13.2.
    """
    key = jax.random.key(0)
    sizes = [*(s for s in STAGES if count < s < most), most]
    strides = [max(4, s // 8) for s in sizes]
    tolerance = jnp.maximum(tolerance, 8 * jnp.finfo(dtype).eps)

    def look(krylov):
        stage = jnp.searchsorted(np.asarray(sizes), krylov.steps)
        return jax.lax.switch(jnp.minimum(stage, len(sizes) - 1), [lambda s=s: ritz(krylov, count, s) for s in sizes])

    def turn(carry):
        krylov, _ = carry
        stage = jnp.searchsorted(np.asarray(sizes), krylov.steps, side="right")
        last = jnp.minimum(krylov.steps + jnp.take(np.asarray(strides), stage, mode="clip"), most)
        krylov = jax.lax.while_loop(lambda k: k.steps < last, lambda k: krylov_extend(operator, k, key), krylov)
        return krylov, look(krylov)

    def unsure(carry):
        krylov, (values, errors, _) = carry
        scale = jnp.maximum(jnp.max(jnp.abs(values)), jnp.max(jnp.abs(krylov.diagonal)))
        rounding = 8 * jnp.finfo(dtype).eps * scale
        precise = jnp.all(errors <= jnp.maximum(tolerance * jnp.maximum(jnp.abs(values), 0.01 * scale), rounding))
        # The errors may be small by chance before the span contains the eigenvector, so take a few more products.
        enough = krylov.steps >= min(max(8, count + 2), most)
        return (krylov.steps < most) & jnp.all(jnp.isfinite(krylov.diagonal)) & ~(precise & enough)

    blank = jnp.full(count, jnp.inf, dtype), jnp.full(count, jnp.inf, dtype), jnp.zeros((count, most), dtype)
    krylov, (values, errors, vectors) = jax.lax.while_loop(unsure, turn, (krylov_begin(key, size, most, dtype), blank))
    finite = jnp.isfinite(krylov.diagonal).all()
    rounding = size**0.5 * jnp.finfo(dtype).eps * jnp.max(jnp.abs(krylov.diagonal))
    values, errors = jnp.where(finite, values, jnp.nan), jnp.where(finite, jnp.maximum(errors, rounding), jnp.nan)
    return Pairs(values, errors, vectors @ krylov.basis[:most], krylov.steps)


# Functions of a problem, for `verbs.evaluations`

DENSE = 48  # params up to which the whole Hessian costs no more
BASIS_BYTES = 2**28


@dataclass(frozen=True)
class Extreme:
    """The function that computes eigenvalues of a problem's Hessian; its number is the tolerance."""

    count: int
    end: str

    def __call__(self, arguments: Arguments) -> tuple[Pairs, PyTree]:
        product, start, back = products(arguments.problem, arguments.extra)
        sign = 1 if self.end == "largest" else -1
        operator = product if sign > 0 else lambda vector: -product(vector)
        size = start.size
        if self.count > size:
            raise ValueError(
                f"sharpness: count is {self.count}, but {size} free param{'s' * (size != 1)} give the Hessian {size} "
                f"eigenvalue{'s' * (size != 1)}; ask for at most so many"
            )
        if size <= DENSE:
            pairs = dense_pairs(operator, size, self.count, start.dtype)
        else:
            room = BASIS_BYTES // (size * start.dtype.itemsize)
            most = min(size, max(32, self.count + 16, min(256, room)))
            pairs = largest_pairs(operator, size, self.count, most=most, tolerance=arguments.number, dtype=start.dtype)
        return pairs._replace(values=sign * pairs.values), jax.vmap(back)(pairs.vectors)


def all_eigenvalues(arguments: Arguments) -> jax.Array:
    """Return all eigenvalues of the Hessian."""
    product, start, _ = products(arguments.problem)
    matrix = jax.lax.map(product, jnp.eye(start.size, dtype=start.dtype), batch_size=64)
    return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)


@dataclass(frozen=True)
class Quadrature:
    """The function that computes Gauss quadrature of the spectrum, by Lanczos iterations from random directions."""

    probes: int
    depth: int

    def __call__(self, arguments: Arguments) -> tuple[jax.Array, jax.Array]:
        product, start, _ = products(arguments.problem)

        def probe(key):
            krylov = krylov_begin(key, start.size, self.depth, start.dtype)
            krylov = jax.lax.fori_loop(0, self.depth, lambda _, k: krylov_extend(product, k, key), krylov)
            values, vectors = jnp.linalg.eigh(tridiagonal(krylov))
            return values, vectors[0] ** 2

        return jax.lax.map(probe, jax.random.split(jax.random.key(1), self.probes))


def rayleigh_quotients(arguments: Arguments) -> jax.Array:
    """Return d'Hd / d'd for each direction."""
    product, start, _ = products(arguments.problem)
    ways = jax.vmap(lambda d: ravel_pytree(d)[0].astype(start.dtype))(arguments.extra)
    return jax.lax.map(lambda d: (d @ product(d)) / (d @ d), ways)
