"""The loss around one point: gradient, curvature, and what a quadratic model predicts from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxfit.curvature.lanczos import (
    either_way,
    flat_loss,
    gradient_and_product,
    krylov_begin_at,
    krylov_extend,
    largest_pairs,
    tridiagonal,
)
from jaxfit.optimizers.methods import inward
from jaxfit.optimizers.stability import critical
from jaxfit.problems import Problem, precision_context
from jaxfit.problems.axes import holds_call
from jaxfit.problems.bounds import bounds
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import free, is_marked
from jaxfit.problems.posing import as_params, with_start
from jaxfit.typing import ArrayLike, PyTree
from jaxfit.verbs.evaluations import Arguments, at_one

DENSE = 256  # params up to which the whole Hessian is made
DEPTH = 48  # Lanczos steps from the gradient beyond that


class LocalModel(NamedTuple):
    """Gradient and curvature of a loss at a point, in float64; vectors are over the free params in leaf order."""

    loss: float
    point: np.ndarray  # (n,)
    gradient: np.ndarray  # (n,) without what pushes against a bound
    idle: np.ndarray  # (n,) whether gradient and Hessian are zero there
    curvatures: np.ndarray  # (k,) eigenvalues, or nodes of the quadrature for the gradient's part of the spectrum
    shares: np.ndarray  # (k,) squared components of the gradient along them
    largest: float
    smallest: float
    downward: np.ndarray  # (n,) a direction of the most negative curvatures, those of about one size mixed
    scaled: float  # as `excess`, with each param in units of its own curvature; 0 if it was not computed
    newton: np.ndarray  # (n,) the Newton step where the loss curves up; zeros if it was not computed

    @property
    def norm(self) -> float:
        """The norm of the gradient."""
        return float(np.linalg.norm(self.gradient))

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient).all() and np.isfinite(self.largest))

    @property
    def curved(self) -> np.ndarray:
        """Which curvatures are positive beyond rounding."""
        return self.curvatures > 1e-10 * max(abs(self.largest), abs(self.smallest), 1e-300)

    @property
    def excess(self) -> float:
        """How far the loss is above its minimum by the quadratic model: half the squared Newton decrement."""
        return float(0.5 * np.sum(self.shares[self.curved] / self.curvatures[self.curved]))

    @property
    def left(self) -> float:
        """The excess, also along directions whose curvature is small only in the units of the params."""
        return max(self.excess, self.scaled)

    @property
    def condition(self) -> float:
        """The largest curvature over the smallest along which the loss can decrease."""
        up, shares = self.curvatures[self.curved], self.shares[self.curved]
        matters = shares / up > 1e-6 * np.sum(shares / up) if len(up) else np.zeros(0, bool)
        return float(self.largest / up[matters].min()) if matters.any() else 1.0

    @property
    def bends_down(self) -> bool:
        """Whether there is a direction along which the loss curves down by more than rounding."""
        return self.smallest < -1e-6 * max(self.largest, 0.0) and self.smallest < 0

    def steps_to(self, share: float, rate: float, momentum: float = 0.0) -> float:
        """Return the steps of gradient descent or heavy ball that reduce the excess to a share; inf if it diverges.

        Momentum b makes a step of `rate` one of rate / (1 - b) along flat directions; along steep ones the distance is
        multiplied by sqrt(b).
        """
        up, shares = self.curvatures[self.curved], self.shares[self.curved]
        if not len(up) or rate * self.largest >= critical(momentum):
            return float("inf")
        factors = 1 - rate * up / (1 - momentum)
        factors = np.abs(factors) if momentum == 0 else np.maximum(factors, np.sqrt(momentum))
        heights, logs = 0.5 * shares / up, 2 * np.log(np.maximum(factors, 1e-300))
        target, low, high = share * np.sum(heights), 0.0, 1.0
        if target == 0:
            return 0.0
        while np.sum(heights * np.exp(high * logs)) > target and high < 1e12:
            low, high = high, 2 * high
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if np.sum(heights * np.exp(middle * logs)) > target else (low, middle)
        return high


class Hessian(NamedTuple):
    """The loss around a point of few params; vectors and the matrix are over the free ones."""

    loss: Array  # ()
    point: Array  # (n,)
    gradient: Array  # (n,)
    moves: Array  # (n,) whether the gradient does not push it against a bound
    matrix: Array  # (n, n) zero for those that do not move


def _derivatives_around(arguments: Arguments) -> Hessian | LocalModel:
    """Return the whole Hessian of few params, which NumPy reads, and the `LocalModel` of many, as arrays."""
    problem = arguments.problem
    loss, start, back = flat_loss(problem)
    value = loss(start)
    gradient, product = gradient_and_product(loss, start)
    moves = jnp.ones_like(start)
    limits = bounds(problem.params) if is_marked(problem.params) else None
    if limits is not None:
        kept = ravel_pytree(inward(back(gradient), back(start), *limits))[0]
        moves = jnp.where((kept == 0) & (gradient != 0), 0.0, 1.0)
        gradient = kept

    def operator(vector):
        return moves * product(moves * vector)

    size = start.size
    if size <= DENSE:
        return Hessian(value, start, gradient, moves, jax.vmap(operator)(jnp.eye(size, dtype=start.dtype)))
    probe = operator(jax.random.normal(jax.random.key(2), start.shape, start.dtype))
    options = {"most": min(size, 200), "tolerance": 1e-2, "dtype": start.dtype}
    top = largest_pairs(operator, size, 1, **options)
    bottom = largest_pairs(lambda v: -operator(v), size, 1, **options)
    safe = jnp.where(jnp.any(gradient != 0), gradient, jnp.ones_like(gradient))
    krylov = jax.lax.fori_loop(
        0, DEPTH, lambda _, k: krylov_extend(operator, k, jax.random.key(3)), krylov_begin_at(safe, DEPTH)
    )
    values, vectors = jnp.linalg.eigh(tridiagonal(krylov))
    record: Any = LocalModel
    return record(
        loss=value, point=start, gradient=gradient, idle=(gradient == 0) & (probe == 0) & (moves > 0),
        curvatures=values, shares=jnp.sum(gradient**2) * vectors[0] ** 2, largest=top.values[0],
        smallest=-bottom.values[0], downward=bottom.vectors[0], scaled=jnp.zeros_like(value),
        newton=jnp.zeros_like(start),
    )  # fmt: skip


def _model_of_hessian(
    loss: float, point: np.ndarray, gradient: np.ndarray, moves: np.ndarray, matrix: np.ndarray
) -> LocalModel:
    """Return the local model with the spectrum of the whole Hessian."""
    values, vectors = _spectrum(matrix)
    parts = vectors.T @ gradient
    up = values > 1e-10 * np.max(np.abs(values))
    downward, steep = np.zeros_like(point), values <= 0.5 * values[0]
    if values[0] < 0:
        mixed = np.zeros_like(point)
        if steep.sum() > 1:
            with precision_context("float64"):
                mixed = np.where(steep, jax.random.normal(jax.random.key(4), point.shape, point.dtype), 0)
        mixed[0] = 1.0
        downward = vectors @ mixed
        downward /= max(np.linalg.norm(downward), 1e-300)
    return LocalModel(
        loss=loss, point=point, gradient=gradient, idle=(gradient == 0) & (matrix == 0).all(0) & (moves > 0),
        curvatures=values, shares=parts**2, largest=float(values[-1]), smallest=float(values[0]), downward=downward,
        scaled=scaled_excess(matrix, gradient), newton=vectors @ np.where(up, -parts / np.where(up, values, 1), 0),
    )  # fmt: skip


def _spectrum(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues, the smallest first, and eigenvectors of the symmetric part; NaN if it is not finite."""
    if not np.isfinite(matrix).all():
        return np.full(len(matrix), np.nan), np.full(matrix.shape, np.nan)
    return np.linalg.eigh((matrix + matrix.T) / 2)


def scaled_excess(matrix: np.ndarray, gradient: np.ndarray) -> float:
    """Return half the squared Newton decrement with each param in units of its own curvature."""
    diagonal = np.abs(np.diag(matrix))
    unit = np.where(diagonal > 0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0)
    values, vectors = _spectrum(unit[:, None] * matrix * unit[None, :])
    up = values > 1e-10 * np.max(np.abs(values))
    parts = vectors.T @ (unit * gradient)
    return float(0.5 * np.sum(np.where(up, parts**2 / np.where(up, values, 1), 0)))


def local_model(problem: Problem) -> LocalModel:
    """Return the local model of the loss at the params of a problem, in float64."""
    problem = problem._replace(params=as_params(resolved(problem.params, "float64"), inside=True, finite=False))
    around: Any = at_one(_derivatives_around, Arguments(problem), "float64")
    fields = [x.item() if np.ndim(x) == 0 else x for x in around]
    if isinstance(around, LocalModel):
        return LocalModel(*fields)
    with np.errstate(all="ignore"):  # of a loss that is not finite
        return _model_of_hessian(*fields)


def _losses(arguments: Arguments) -> jax.Array:
    """Return the loss at points that are given as rows."""
    loss, _, _ = flat_loss(arguments.problem)
    return jax.lax.map(loss, arguments.extra)


def _losses_and_gradients(arguments: Arguments) -> tuple[jax.Array, jax.Array]:
    """Return the loss and its gradient at points that are given as rows."""
    loss, _, _ = flat_loss(arguments.problem)
    points = arguments.extra
    return either_way(lambda grad: jax.lax.map(lambda x: (loss(x), grad(loss)(x)), points), loss, points[0])


def gradients_at(problem: Problem, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (k,) losses and (k, n) gradients by the free params at (k, n) points."""
    return at_one(_losses_and_gradients, Arguments(problem, points), "float64")


def losses_at(problem: Problem, points: np.ndarray) -> np.ndarray:
    """Return (k,) losses at (k, n) points."""
    return at_one(_losses, Arguments(problem, points), "float64")


def marks_of(problem: Problem) -> PyTree:
    """Return the start with its marks; a `Call` is run."""
    return with_start(problem).params if holds_call(problem.params) else problem.params


def times_text(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.3g} times"


def steps_text(steps: float) -> str:
    return f"{steps:,.0f}" if steps < 1e9 else "more than a billion"


def free_leaves(problem: Problem) -> list[tuple[tuple, ArrayLike, slice]]:
    """Return path, value and position among all free numbers of each free leaf of the start."""
    leaves = jax.tree_util.tree_leaves_with_path(free(marks_of(problem)))
    ends = np.cumsum([np.size(leaf) for _, leaf in leaves], dtype=int).tolist()
    return [(path, leaf, slice(end - np.size(leaf), end)) for (path, leaf), end in zip(leaves, ends, strict=True)]


def leaf_names(problem: Problem, where: np.ndarray) -> str:
    """Return the names of the leaves that a mask over the free params touches."""
    names = [leaf_name(path) for path, _, own in free_leaves(problem) if where[own].any()]
    return ", ".join(names[:6]) + (" and others" if len(names) > 6 else "")


def gradient_by_leaf(problem: Problem, here: LocalModel) -> dict[str, float]:
    """Return the root mean square of the gradient in each leaf."""
    return {leaf_name(path): float(np.sqrt(np.mean(here.gradient[own] ** 2))) for path, _, own in free_leaves(problem)}


def leaf_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".") or "params"


def scales(problem: Problem) -> str:
    """Return a clause that says which columns of the first data differ in scale, or that it is off center; or ""."""
    if not problem.data or np.ndim(problem.data[0]) not in (1, 2) or not np.size(problem.data[0]):
        return ""
    x = np.asarray(problem.data[0], float)
    columns = x[:, None] if x.ndim == 1 else x
    if columns.shape[0] < 2 or not np.isfinite(columns).all():
        return ""
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    if len(sizes) > 1 and sizes.min() > 0 and sizes.max() / sizes.min() > 10:
        large, small = int(np.argmax(sizes)), int(np.argmin(sizes))
        return (
            f": in data[0], column {large} is {sizes.max() / sizes.min():,.0f} times as large as column {small}; "
            f"jf.datasets.standardize would even them out"
        )
    if x.ndim == 1 and (sizes[0] > 10 or sizes[0] < 0.1 or abs(x.mean()) > 3 * x.std()):
        return (
            f": data[0] lies around {x.mean():.3g} ± {x.std():.2g}; jf.datasets.standardize would center and scale it"
        )
    return ""
