"""Straight slices through the space of all params: lines and planes, for `surface` to evaluate.

A slice is params + a * first + b * second. It shows only what lies along its directions: `about` says how much of the
variance of a path, or of the squared curvature, that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfit.curvature.lanczos import either_way
from jaxfit.engine.loops import objective_of, step_key
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import inspect_loss
from jaxfit.problems import convert_all, precision_context, whole_number
from jaxfit.problems.axes import Axis, Call, as_key, is_array
from jaxfit.problems.marks import Bounded, flattened, free, is_kept, is_mark, is_marked, plain, put, unflattened
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.posing import as_params, pose_question
from jaxfit.typing import ArrayLike, KeyLike, Number, Params, PyTree
from jaxfit.verbs.results import Fit, numbers_in, recorded

POINTS = 61  # along each direction, unless asked


@dataclass(frozen=True)
class _Point:
    """The function from coordinates to params; `about` is no part of the compiled program."""

    about: dict[str, Any] = field(compare=False)

    def __call__(self, center: PyTree, directions: Sequence[PyTree], coordinates: Sequence[Number]) -> PyTree:
        moved = free(center)
        for direction, along in zip(directions, coordinates, strict=True):
            moved = jax.tree.map(lambda x, d, t=along: x + t * d, moved, direction)
        return plain(put(center, moved))


@dataclass(frozen=True, eq=False)
class Slice:
    """A line or a plane through params.

    Attributes:
      center: The params at coordinates zero, with their marks: `Fixed` leaves stay, `Tied` leaves follow.
      directions: One or two trees like the free params.
      names: Names of the dimensions.
      spans: The default range of the coordinates of `at`.
      about: The kind of slice and how it was made; the attributes of its surface.
    """

    center: PyTree = field(repr=False)
    directions: tuple[PyTree, ...] = field(repr=False)
    names: tuple[str, ...]
    spans: tuple[tuple[float, float], ...]
    about: dict[str, Any]

    def __repr__(self) -> str:
        about, held = self.about, ""
        if "captured" in about:
            held = f", with {about['captured']:.1%} of the {about['captures']}"
        return f"Slice({' x '.join(self.names)}: {about['slice']}{held})"

    def at(self, *coordinates: ArrayLike | Axis) -> Call:
        """Return the params over the slice, to go where params go: `surface(loss, plane.at(), data)`.

        Args:
          *coordinates: For each direction the numbers along it, or an `Axis` of them; by default 61 over its span.

        Raises:
          ValueError, TypeError: If there are more or fewer than directions, or they are not numbers.
        """
        given = coordinates or tuple(np.linspace(*span, POINTS) for span in self.spans)
        if len(given) != len(self.names):
            raise ValueError(
                f"at got {len(given)} sets of coordinates, but the slice has {len(self.names)} directions "
                f"({', '.join(self.names)}); give one set for each, or none"
            )
        axes = tuple(_axis(name, one) for name, one in zip(self.names, given, strict=True))
        return Call(_Point(self.about), self.center, self.directions, axes)

    def project(self, path: Fit | Params) -> dict[str, np.ndarray]:
        """Return coordinates of the points of the slice that are nearest to params: a path for `plots.contour`.

        Args:
          path: A fit with its params recorded, or params like the center, with a further first axis for several.

        Raises:
          ValueError: If a fit did not record its params, or they are unlike those of the slice.
        """
        away = _points(self.center, path) - flattened(free(self.center))
        basis = np.stack([flattened(d) for d in self.directions], axis=1)
        coordinates = np.linalg.lstsq(basis, away.T, rcond=None)[0]
        return dict(zip(self.names, coordinates, strict=True))


def _axis(name: str, given: ArrayLike | Axis) -> Axis:
    values = given.values if isinstance(given, Axis) else given
    numbers = np.asarray(values) if is_array(values) or isinstance(values, (Sequence, range)) else np.asarray(None)
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise TypeError(
            f"at: the coordinates along {name!r} are {given!r}, but they must be finite numbers, such as "
            f"np.linspace(-1, 1, 51)"
        )
    return Axis(given.name if isinstance(given, Axis) else name, numbers.astype(np.float64))


@near_keywords
def between(first: PyTree, second: PyTree) -> Slice:
    """Return the line through two params, (1 - t) first + t second; it shows whether a barrier separates two minima.

    Source: Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544.

    Raises:
      ValueError: If the two are unlike, or the same.

    Example:
      >>> line = jf.landscapes.between({"a": 0.0}, {"a": 2.0})
      >>> jf.surface(lambda p: p["a"] ** 2, line.at(np.array([0.0, 0.5, 1.0]))).values.tolist()
      [0.0, 1.0, 4.0]
    """
    first, second = as_center(first, "first"), plain(as_center(second, "second"))
    away = _points(first, second, "second")[0] - flattened(free(first))
    direction, length = unflattened(away, free(first)), float(np.linalg.norm(away))
    if not length:
        raise ValueError("between: first and second are the same params, so there is no line through them")
    about = {"slice": "the line between two params", "distance": length}
    return Slice(first, (direction,), ("between",), ((-0.25, 1.25),), about)


@near_keywords
def random_plane(params: PyTree, *, key: KeyLike, count: int = 2, normalize: str = "filter") -> Slice:
    """Return a plane (or a line) through params along random directions, scaled like the params.

    Each filter of a direction (the weights into one unit or of one channel: all of an array except its last axis) has
    the norm of that filter of the params, and what is not an array of weights (biases, single numbers) stays. A network
    whose weights are twice as large is then shown at twice the distance, so equal networks look equal.

    Such a plane does not show extreme curvature: along a random direction the curvature is near the mean of all
    eigenvalues, without the largest and the negative ones; see `hessian_plane`.

    Args:
      params: The center.
      key: A PRNG key or a seed.
      count: 1 for a line, 2 for a plane.
      normalize: "filter"; "leaf" scales each leaf as a whole, biases and single numbers too; "none" leaves N(0, 1).

    Raises:
      ValueError: If no direction is left, or for another `normalize`.

    Source: Li et al. (2018), arXiv:1712.09913.

    Example:
      >>> plane = jf.landscapes.random_plane({"w": np.ones((3, 2))}, key=0)
      >>> len(plane.directions), plane.directions[0]["w"].shape
      (2, (3, 2))
    """
    params, key = as_center(params, "params"), as_key(key)
    count = whole_number("random_plane: count", count)
    if count > 2:
        raise ValueError(f"random_plane: count is {count}, but a picture has at most two directions: 1 or 2")
    scales = {"filter": _by_filter, "leaf": _by_leaf, "none": lambda draw, x: draw}
    if normalize not in scales:
        raise ValueError(f"normalize is {normalize!r}, but it must be one of {', '.join(map(repr, scales))}")
    scale = scales[normalize]
    leaves, structure = jax.tree.flatten(free(params))
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), np.uint32)))
    directions = tuple(
        jax.tree.unflatten(structure, [scale(rng.normal(size=np.shape(x)), np.asarray(x, float)) for x in leaves])
        for _ in range(count)
    )
    if not all(np.any(flattened(d)) for d in directions):
        raise ValueError(
            'random_plane: no leaf of the params is an array of weights with two axes or more, or all are zero, so '
            'nothing moves; take normalize="leaf" to move biases and single numbers too, or "none"'
        )  # fmt: skip
    about = {"slice": f"random, normalized by {normalize}" if normalize != "none" else "random"}
    return Slice(params, directions, ("random_1", "random_2")[:count], ((-1.0, 1.0),) * count, about)


def _by_filter(draw: np.ndarray, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(x.ndim - 1))
    ratio = np.sum(x**2, axes, keepdims=True) / np.sum(draw**2, axes, keepdims=True)
    return draw * np.sqrt(ratio) if x.ndim > 1 else np.zeros_like(x)


def _by_leaf(draw: np.ndarray, x: np.ndarray) -> np.ndarray:
    return draw * np.sqrt(np.sum(x**2) / np.sum(draw**2))


@near_keywords
def trajectory_plane(fit: Fit) -> Slice:
    """Return the plane through the end of a descent along the two largest principal components of its path.

    `about["captured"]` is their part of the variance of the recorded params. For a random walk of many params it is
    about 0.8, so a large part alone means little.

    Args:
      fit: With its params recorded: `record=jf.Record(what=("loss", "params"))`.

    Raises:
      ValueError: If they were not recorded, or there are fewer than three different points or two params.

    Source: Li et al. (2018), arXiv:1712.09913; on random walks Antognini and Sohl-Dickstein, arXiv:1806.08805.

    Example:
      >>> loss, record = lambda p: p["a"] ** 2 + 3 * p["b"] ** 2, jf.Record(what=("loss", "params"))
      >>> run = jf.fit(loss, {"a": 1.0, "b": 1.0}, optimizer=jf.optimizers.sgd(0.1), steps=20, record=record)
      >>> round(jf.landscapes.trajectory_plane(run).about["captured"], 3)
      1.0
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"trajectory_plane takes a fit, but got a {type(fit).__name__}; pass what jf.fit returned")
    center = _center(fit)
    rows = _points(center, fit)
    if rows.shape[1] < 2:
        raise ValueError("trajectory_plane: the fit moves one number, which makes no plane; draw its loss with surface")
    _, sizes, components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    kind = np.result_type(*(x.dtype for x in map(np.asarray, jax.tree.leaves(numbers_in(fit)))))
    rounding = 10 * np.finfo(kind).eps * np.linalg.norm(rows)
    if len(sizes) < 2 or not sizes[1] > rounding:
        raise ValueError(
            "trajectory_plane: the recorded params lie on one line, or are one point, which makes no plane; record "
            "more of them, or see the line with between(start, end)"
        )
    names = ("component_1", "component_2")
    about = {"slice": "the plane of the descent", "captured": float(np.sum(sizes[:2] ** 2) / np.sum(sizes**2)),
             "captures": "variance of the path"}  # fmt: skip
    directions = tuple(unflattened(components[i], free(center)) for i in range(2))
    along = (rows - rows[-1]) @ components[:2].T
    margins = 0.15 * np.maximum(np.ptp(along, axis=0), 0.2 * np.ptp(along))
    spans = tuple(zip((along.min(0) - margins).tolist(), (along.max(0) + margins).tolist(), strict=True))
    return Slice(center, directions, names, spans, about)


# Params and vectors


def as_center(params: PyTree, name: str) -> PyTree:
    """Return params as arrays of floats, marks kept; refuse Axis and Call."""
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, (Axis, Call)))
    odd = next((x for x in leaves if isinstance(x, (Axis, Call))), None)
    if odd is not None:
        raise TypeError(f"{name} holds {odd!r}, but a slice goes through one point; give its numbers")
    if isinstance(params, Fit):
        raise TypeError(f"{name} is a fit; pass its params: fit.params")
    checked = as_params(params, root=name)
    return jax.tree.map(lambda x: x if is_kept(x) else np.asarray(x, np.float64), checked, is_leaf=is_kept)


def _center(fit: Fit) -> PyTree:
    """Return where a fit ended, with the marks of its problem."""
    marked = fit.params if fit.problem is None else fit.problem.params
    if not is_marked(marked):
        return as_center(fit.params, "params")
    leaves, structure = jax.tree.flatten(marked, is_leaf=is_mark)
    ends = structure.flatten_up_to(fit.params)
    moved = [end if isinstance(x, Bounded) or not is_mark(x) else x for x, end in zip(leaves, ends, strict=True)]
    return as_center(jax.tree.unflatten(structure, moved), "params")


def _points(center: PyTree, path: Fit | Params, name: str = "path") -> np.ndarray:
    """Return (points, numbers): what is free of params like the center, whose leaves may have a further first axis."""
    if isinstance(path, Fit):
        path = recorded(path, "params")
    leaves, structure = jax.tree.flatten(center, is_leaf=is_mark)
    try:
        others = structure.flatten_up_to(path)
    except ValueError as error:
        raise ValueError(
            f"{name} is another tree than the params of the slice ({str(error).rstrip('.')}); give params like them"
        ) from None
    pairs = zip(leaves, others, strict=True)
    moved = [np.asarray(y, np.float64) for x, y in pairs if not is_mark(x) or isinstance(x, Bounded)]
    here, there = [np.shape(x) for x in jax.tree.leaves(free(center))], [y.shape for y in moved]
    if there == here:
        moved = [y[None] for y in moved]
    elif [shape[1:] for shape in there] != here or len({shape[:1] for shape in there}) > 1:
        raise ValueError(
            f"{name} has leaves of shapes {there}, but the params of the slice have {here}; give params like them, or "
            f"with one more first axis for several"
        )
    return np.concatenate([y.reshape(len(y), -1) for y in moved], axis=1)


PROBES = 30  # random vectors that estimate its size beyond


@near_keywords
def hessian_plane(
    loss: Callable, params: PyTree, data: tuple = (), *, which: str = "largest", key: KeyLike | None = None
) -> Slice:
    """Return the plane through params along two eigenvectors of the Hessian of the loss, which are found in float64.

    `about` has the two eigenvalues, and as `captured` their squares' part of the sum of all squared eigenvalues. Beyond
    512 params the eigenvectors come from products of the Hessian with vectors, and that sum from 30 random ones.

    Args:
      loss, params, data, key: As for `surface`, without axes; the params are the center.
      which: "largest" for the two of largest magnitude, "ends" for the largest and the smallest, which at a saddle is
        negative.

    Raises:
      ValueError: If there are fewer than two params, `which` is another, or a derivative is not finite.

    Example:
      >>> plane = jf.landscapes.hessian_plane(lambda p: p["a"] ** 2 + 3 * p["b"] ** 2, {"a": 0.0, "b": 0.0})
      >>> round(float(plane.about["captured"]), 3)
      1.0
    """
    if which not in ("largest", "ends"):
        raise ValueError(f'which is {which!r}, but it must be "largest" or "ends"')
    center = as_center(params, "params")
    problem = pose_question(loss, center, data, key, "float64")
    size = len(flattened(free(center)))
    if size < 2:
        raise ValueError("hessian_plane: there is one number to move, which makes no plane; draw its loss with surface")
    with precision_context("float64"):
        converted = convert_all(problem, "float64")
        inspect_loss(converted, forward=True)
        flat, unravel = ravel_pytree(free(converted.params))
        objective = objective_of(converted, converted.data, step_key(converted, jnp.int32(0)))
        slope = _slope(lambda x: objective(unravel(x)), flat)
        ends = which == "ends"
        values, vectors, total = (_whole if size <= current().dense_plane else _by_products)(slope, flat, ends)
    if not np.isfinite(total):
        raise ValueError(
            "hessian_plane: a second derivative of the loss is not finite at params; take others, at which the loss is "
            "smooth"
        )
    names = ("largest_curvature", "smallest_curvature") if ends else ("eigenvector_1", "eigenvector_2")
    part = min(1.0, float(np.sum(values**2)) / total) if total else 0.0
    about = {"slice": "eigenvectors of the Hessian", "captured": part, "captures": "squared curvature",
             "eigenvalues": [float(v) for v in values]}  # fmt: skip
    reach = 0.5 * float(np.linalg.norm(flattened(free(center)))) or 1.0
    directions = tuple(unflattened(v, free(center)) for v in vectors.T)
    return Slice(center, directions, names, ((-reach, reach),) * 2, about)


def _slope(loss: Callable, at: jax.Array) -> Callable:
    """Return the gradient of a function, forward where there is none backward."""

    def traced(grad: Callable) -> Callable:
        jax.eval_shape(grad(loss), at)
        return grad(loss)

    return either_way(traced, loss, at)


def _whole(slope: Callable, flat: jax.Array, ends: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return two eigenvalues of the Hessian, their eigenvectors as columns, and the sum of all squares."""
    hessian = np.asarray(jax.jit(jax.jacfwd(slope))(flat))
    if not np.isfinite(hessian).all():
        return np.zeros(2), np.eye(len(flat), 2), np.nan
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    order = np.array([-1, 0]) if ends else np.argsort(-np.abs(values), kind="stable")[:2]
    return values[order], _turned(vectors[:, order]), float(np.sum(values**2))


def _by_products(slope: Callable, flat: jax.Array, ends: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the same as `_whole`, without the Hessian."""
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
    """Return the columns, each with its largest entry positive, since its sign is arbitrary."""
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    return vectors * np.where(largest < 0, -1.0, 1.0)
