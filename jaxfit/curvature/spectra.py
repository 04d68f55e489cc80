"""The whole spectrum of a Hessian, all eigenvalues or their distribution, and the curvature along directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxfit.curvature.eigenvalues import Extreme, posed
from jaxfit.curvature.lanczos import begin, extend, products, tridiagonal
from jaxfit.problems import chosen_precision, whole
from jaxfit.problems.axes import refuse_unit
from jaxfit.problems.dimensions import Dimension
from jaxfit.problems.marks import free
from jaxfit.problems.messages import near_keywords, path_name
from jaxfit.typing import ArrayLike, KeyLike, PyTree
from jaxfit.verbs.evaluations import Arguments, at_one

EXACT = 1500  # params up to which the whole Hessian is made


class Spectrum(NamedTuple):
    """Eigenvalues, with the fraction of the spectrum that each represents.

    The integral of f over the spectrum, sum over its `size` eigenvalues of f(l), is size * sum(weights * f(values)).
    """

    values: np.ndarray  # (k,) rising
    weights: np.ndarray  # (k,) of sum 1
    size: int  # of the Hessian
    exact: bool  # whether these are all eigenvalues, each of weight 1 / size
    products: int  # Hessian-vector products made

    @property
    def trace(self) -> float:
        """The sum of all eigenvalues."""
        return float(self.size * np.sum(self.weights * self.values))

    @property
    def condition(self) -> float:
        """The largest magnitude over the smallest, as far as they are known; infinite for a singular Hessian."""
        size = np.abs(self.values)
        tiny = size.max(initial=0.0) * self.size * np.finfo(self.values.dtype).eps
        return float(size.max() / size.min()) if size.min() > tiny else float("inf")

    @property
    def negative(self) -> float:
        """The share of eigenvalues below zero by more than rounding."""
        tiny = np.abs(self.values).max(initial=0.0) * self.size * np.finfo(self.values.dtype).eps
        return float(np.sum(self.weights[self.values < -tiny]))

    def density(self, at: ArrayLike, width: float) -> np.ndarray:
        """Return the density of eigenvalues at each place, each smeared out to a normal of this standard deviation."""
        distance = (np.asarray(at, float)[..., None] - self.values) / width
        return np.sum(self.weights * np.exp(-0.5 * distance**2), axis=-1) / (width * np.sqrt(2 * np.pi))

    def __repr__(self) -> str:
        known = f"all {self.size:,} eigenvalues" if self.exact else f"{self.size:,} eigenvalues, in distribution"
        return (
            f"{known}: from {self.values[0]:.6g} to {self.values[-1]:.6g}, {100 * self.negative:.3g} % of them "
            f"negative ({self.products:,} Hessian-vector products)"
        )


def _all_eigenvalues(arguments: Arguments) -> jax.Array:
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
            krylov = begin(key, start.size, self.depth, start.dtype)
            krylov = jax.lax.fori_loop(0, self.depth, lambda _, k: extend(product, k, key), krylov)
            values, vectors = jnp.linalg.eigh(tridiagonal(krylov))
            return values, vectors[0] ** 2

        return jax.lax.map(probe, jax.random.split(jax.random.key(1), self.probes))


@near_keywords
def hessian_spectrum(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    probes: int | None = None,
    depth: int = 80,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> Spectrum:
    """Return the eigenvalues of the Hessian by the free params: all up to 1,500 params, their distribution beyond.

    Beyond 1,500 params it uses stochastic Lanczos quadrature: `probes` random directions with `depth` products each.
    The ends of the spectrum are then precise, and the bulk is a density.

    Args:
      loss, params, data, key, precision: As for `sharpness`.
      probes: Number of random directions; None for all eigenvalues up to 1,500 params, and 8 directions beyond.
      depth: Number of products for each.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles.

    Source: Golub and Welsch (1969); Ghorbani, Krishnan and Xiao (2019), arXiv:1901.10159.

    Example:
      >>> loss = lambda p: p["a"] ** 2 + 3 * p["b"] ** 2
      >>> found = jf.hessian_spectrum(loss, {"a": 0.0, "b": 0.0})
      >>> sorted(round(float(value), 3) for value in found[0])
      [2.0, 6.0]
    """
    depth = whole("hessian_spectrum: depth", depth, least=2)
    precision = chosen_precision(precision, params, data)
    arguments, dimensions = posed(loss, params, data, key, precision)
    _refuse_axes("hessian_spectrum", dimensions)
    size = sum(int(np.size(x)) for x in jax.tree.leaves(free(arguments.problem.params)))
    if probes is None and size <= EXACT:
        values = at_one(_all_eigenvalues, arguments, precision)
        return Spectrum(values, np.full(size, 1 / size), size, True, size)
    probes = 8 if probes is None else whole("hessian_spectrum: probes", probes)
    depth = min(size, depth)
    values, weights = (np.ravel(x) for x in at_one(Quadrature(probes, depth), arguments, precision))
    order = np.argsort(values)
    return Spectrum(values[order], weights[order] / probes, size, False, probes * depth)


class Along(NamedTuple):
    """The curvature of the loss along directions, and the largest curvature along any direction."""

    curvatures: np.ndarray  # (k,) d'Hd / d'd
    sharpness: float  # the largest eigenvalue

    @property
    def captured(self) -> np.ndarray:
        """(k,) curvatures divided by the sharpness: how much of it a picture along these directions shows."""
        return self.curvatures / self.sharpness


def _rayleigh_quotients(arguments: Arguments) -> jax.Array:
    """Return d'Hd / d'd for each direction."""
    product, start, _ = products(arguments.problem)
    ways = jax.vmap(lambda d: ravel_pytree(d)[0].astype(start.dtype))(arguments.extra)
    return jax.lax.map(lambda d: (d @ product(d)) / (d @ d), ways)


@near_keywords
def curvature_along(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    directions: PyTree,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> Along:
    """Return the curvature d'Hd / d'd along each direction d, and the largest eigenvalue of the Hessian H.

    Args:
      loss, params, data, key, precision: As for `sharpness`.
      directions: Like the free params, with a leading axis (k,); their lengths do not matter.

    Raises:
      ValueError: If directions are not like the free params, or one is zero.

    Example:
      >>> loss = lambda p: p["a"] ** 2 + 3 * p["b"] ** 2
      >>> axes = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
      >>> found = jf.curvature_along(loss, {"a": 0.0, "b": 0.0}, directions=axes)
      >>> [round(float(value), 3) for value in found[0]]
      [2.0, 6.0]
    """
    precision = chosen_precision(precision, params, data)
    arguments, dimensions = posed(loss, params, data, key, precision)
    _refuse_axes("curvature_along", dimensions)
    _check_directions(directions, free(arguments.problem.params))
    curvatures = at_one(_rayleigh_quotients, arguments._replace(extra=directions), precision)
    top, _ = at_one(Extreme(1, "largest"), arguments._replace(extra=None, number=1e-4), precision)
    return Along(curvatures, float(top.values[0]))


def _check_directions(directions: PyTree, params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(directions):
        refuse_unit(path_name("directions", path), leaf)
    shapes, wanted = ([np.shape(x) for x in jax.tree.leaves(tree)] for tree in (directions, params))
    counts = {shape[:1] for shape in shapes}
    alike = jax.tree.structure(directions) == jax.tree.structure(params) and [s[1:] for s in shapes] == wanted
    if not alike or len(counts) != 1 or () in counts:
        raise ValueError(
            f"directions has the shapes {shapes}, but the free params have {wanted}: give every leaf a leading axis, "
            f"one entry for each direction (for a single one, d[None])"
        )
    leaves = [np.reshape(np.asarray(x, float), (len(x), -1)) for x in jax.tree.leaves(directions)]
    lengths = sum(np.sum(x**2, axis=1) for x in leaves)
    bad = np.flatnonzero(~(np.asarray(lengths) > 0) | ~np.isfinite(lengths))
    if bad.size:
        raise ValueError(f"directions: number {bad[0]} has length {np.sqrt(lengths[bad[0]]):g}; give it one")


def _refuse_axes(verb: str, dimensions: dict[str, Dimension]) -> None:
    if dimensions:
        raise ValueError(
            f"{verb} found {next(iter(dimensions.values())).mentions[0].axis}, but looks at one point; call it for "
            f"each, or jf.sharpness, which takes axes"
        )
