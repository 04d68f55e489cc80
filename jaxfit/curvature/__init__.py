"""Curvature: eigenvalues of the Hessian of a loss, and the learning rates that they allow.

The sharpness at params, along a run or over a grid, and whole spectra stand here; limits by experiment in `limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from jaxfit.curvature.lanczos import Extreme, Pairs, Quadrature, all_eigenvalues, rayleigh_quotients
from jaxfit.curvature.limits import MeasuredLimit, RangeTest, learning_rate_range, measured_limit
from jaxfit.problems import chosen_precision, convert_all, whole_number
from jaxfit.problems.axes import holds_call, is_traced, refuse_unit, resolve
from jaxfit.problems.dimensions import Dimension, read
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import free, put
from jaxfit.problems.messages import near_keywords, near_names, path_name
from jaxfit.problems.posing import as_params, pose_question
from jaxfit.typing import Array, ArrayLike, KeyLike, LossFunction, Params, PyTree
from jaxfit.verbs.evaluations import Arguments, at_one, data_array, over_axes, over_grid, over_history
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, problem_of, recorded

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Along", "MeasuredLimit", "RangeTest", "Sharpness", "Spectrum", "curvature_along", "hessian_spectrum",
    "learning_rate_range", "measured_limit", "sharpness",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)


@dataclass(frozen=True, eq=False, repr=False)
class Sharpness(NDArrayOperatorsMixin):
    """Eigenvalues at one end of the Hessian's spectrum. In arithmetic it acts as the first one: `2 / sharpness`.

    Attributes:
      value: () the largest eigenvalue, or the smallest if those were asked for.
      error: () some eigenvalue lies within this of `value`: the norm of H v - value v, |v| = 1.
      eigenvalues: (count,) from the end inwards.
      errors: (count,) for each.
      vectors: Eigenvectors, like the free params with a leading axis (count,); of unit length over all leaves.
      products: () Hessian-vector products made.
      preconditioned: Whether they are those of D^-1/2 H D^-1/2.
    """

    eigenvalues: Array
    errors: Array
    vectors: PyTree
    products: Array
    preconditioned: bool = False

    value = property(lambda self: self.eigenvalues[0])
    error = property(lambda self: self.errors[0])

    def __float__(self) -> float:
        return float(self.value)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype)

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(self.value)

    def __format__(self, how: str) -> str:
        return format(float(self), how) if how else repr(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        numbers = [x.value if isinstance(x, Sharpness) else x for x in inputs]
        if any(isinstance(x, jax.core.Tracer) for x in numbers):
            return getattr(jnp, ufunc.__name__)(*numbers, **options)
        return getattr(ufunc, method)(*numbers, **options)

    def __repr__(self) -> str:
        if isinstance(self.eigenvalues, jax.core.Tracer):
            return "Sharpness(traced)"
        several = len(self.eigenvalues) > 1
        pairs = zip(self.eigenvalues, self.errors, strict=True)
        shown = ", ".join(f"{value:.6g} ± {error:.1g}" for value, error in pairs)
        kind = " of the preconditioned Hessian" * self.preconditioned
        return f"{'eigenvalues ' * several}{shown}{kind} ({self.products} Hessian-vector products)"


jax.tree_util.register_pytree_node(
    Sharpness,
    lambda s: ((s.eigenvalues, s.errors, s.vectors, s.products), s.preconditioned),
    lambda preconditioned, children: Sharpness(*children, preconditioned=preconditioned),
)


@near_keywords
def sharpness(
    loss: LossFunction | Fit | Grid,
    params: PyTree = None,
    data: tuple = (),
    *,
    count: int = 1,
    end: str = "largest",
    preconditioner: PyTree | None = None,
    tolerance: float = 1e-3,
    history: bool = False,
    key: KeyLike | None = None,
    precision: str | None = None,
) -> Sharpness | xr.DataArray:
    """Return the largest eigenvalue of the Hessian of the loss, computed from Hessian-vector products (Lanczos).

    `sharpness(loss, params, data)` is the sharpness at params, `sharpness(fit)` at the end of a run,
    `sharpness(fit, history=True)` at every record of it, and `sharpness(grid)` at the end of every lane. With `Axis` at
    the leaves of params or data, as in `sweep`, it is the sharpness at all their combinations.

    Args:
      loss: A function loss(params, *data) -> scalar; or a `Fit` or `Grid`, which need no further arguments.
      params: Where to evaluate. Fixed and tied params are not part of the Hessian. At a bound it is the Hessian of the
        loss itself.
      data: Passed to the loss after params.
      count: Number of eigenvalues, from the end inwards; at most the number of free params.
      end: "largest" or "smallest" (most negative).
      preconditioner: Positive numbers D like the free params, for the eigenvalues of D^-1/2 H D^-1/2, which decide the
        stability of adaptive optimizers: `jf.preconditioner(optimizer, opt_state)`. "recorded" takes those that a run
        kept with `record=jf.Record(what=("params", "preconditioner"))`.
      tolerance: Stop where the norm of H v - value v is below this, relative to the eigenvalue, whose own error is then
        about the square of that. Up to 48 params the result is exact to rounding.
      history: For a fit or grid: at every record; the params must have been recorded.
      key: For a loss that takes one: a key or a seed; the loss gets the key of step 0 of a fit.
      precision: "float32" or "float64"; by default as JAX has it, see `fit`. A fit or grid has its own.

    Returns:
      A `Sharpness`, which acts as the eigenvalue in arithmetic; for a history, a grid or axes an `xarray.DataArray` of
      eigenvalues, with a last dimension "eigenvalue" if `count` is above one.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles.

    Source: Lanczos (1950); Pearlmutter (1994), doi:10.1162/neco.1994.6.1.147, for the products.

    Example:
      >>> loss = lambda p: p["a"] ** 2 + 3 * p["b"] ** 2
      >>> round(float(jf.sharpness(loss, {"a": 1.0, "b": 1.0})), 3)
      6.0
    """
    if end not in ("largest", "smallest"):
        raise ValueError(f"sharpness: end is {end!r}, but it must be 'largest' or 'smallest'")
    if not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
        raise ValueError(f"sharpness: tolerance is {tolerance!r}, but it is relative: between 0 and 1, such as 1e-3")
    quantity, tolerance = Extreme(whole_number("sharpness: count", count), end), float(tolerance)
    if isinstance(loss, (Fit, Grid)):
        _refuse_more("sharpness", loss, params, data, key, precision)
        if isinstance(loss, Fit):
            return _sharpness_of_fit(quantity, tolerance, loss, preconditioner, history)
        return _sharpness_of_grid(quantity, tolerance, loss, preconditioner, history)
    if history:
        raise ValueError("sharpness: history is True, but there is no run; pass a fit or a grid: sharpness(fit, ...)")
    if isinstance(preconditioner, str):
        raise ValueError(
            f"sharpness: preconditioner is {preconditioner!r}, but there is no run that recorded one; pass the numbers "
            f"themselves, or a fit: sharpness(fit, preconditioner='recorded')"
        )
    precision = chosen_precision(precision, params, data)
    arguments, dimensions = posed(loss, params, data, key, precision, preconditioner)
    arguments = arguments._replace(number=tolerance)
    if is_traced(jax.tree.leaves(arguments)):
        return _answer(quantity(arguments), preconditioner is not None)
    if dimensions:
        pairs, _ = over_axes(quantity, arguments, dimensions, precision)
        return _labelled(
            quantity, pairs.values, lambda values, *extra: data_array(values, dimensions, "sharpness", extra)
        )
    return _answer(at_one(quantity, arguments, precision), preconditioner is not None)


def posed(
    loss: Callable, params: PyTree, data: tuple, key: KeyLike | None, precision: str, extra: PyTree = None
) -> tuple[Arguments, dict[str, Dimension]]:
    """Return a checked problem without an optimizer, and its dimensions."""
    if params is None:
        raise TypeError("sharpness: params are missing; pass sharpness(loss, params, data), or a fit or grid alone")
    problem = pose_question(loss, params, data, key, precision)
    traced = is_traced(jax.tree.leaves((problem, extra)))
    dimensions = {} if traced else read(problem._asdict() | {"params": params, "preconditioner": extra})
    if traced:
        problem = convert_all(problem._replace(params=resolve(problem.params)), precision)
    elif holds_call(problem.params) and not dimensions:
        problem = problem._replace(params=as_params(resolved(problem.params, precision), precision=precision))
    if not dimensions:
        check_scale(extra, free(problem.params))
    return Arguments(problem, extra), dimensions


def check_scale(preconditioner: PyTree, params: PyTree) -> None:
    """Raise a ValueError for a preconditioner that is not positive numbers like the free params."""
    if preconditioner is None:
        return
    shapes, wanted = ([np.shape(x) for x in jax.tree.leaves(tree)] for tree in (preconditioner, params))
    if jax.tree.structure(preconditioner) != jax.tree.structure(params) or shapes != wanted:
        raise ValueError(
            f"preconditioner has the shapes {shapes} in the tree {jax.tree.structure(preconditioner)}, but the free "
            f"params have {wanted} in {jax.tree.structure(params)}; pass numbers like them: "
            f"jf.preconditioner(optimizer, opt_state)"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(preconditioner):
        if not isinstance(leaf, jax.core.Tracer) and not (np.asarray(leaf) > 0).all():
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"preconditioner{name} has {np.asarray(leaf).min():.6g}, but a scale must be positive; take it after "
                f"one update at least"
            )


def _refuse_more(
    verb: str, run: Fit | Grid, params: Params, data: tuple, key: KeyLike | None, precision: str | None
) -> None:
    given = {"params": params, "key": key, "precision": precision} | ({"data": data} if data != () else {})
    for name, value in given.items():
        if value is not None:
            raise TypeError(
                f"{verb}: {name} is given beside a {type(run).__name__}, which has its own; pass the loss itself: "
                f"{verb}(fit.problem.loss, params, data)"
            )


def _sharpness_of_fit(
    quantity: Extreme, tolerance: float, fit: Fit, preconditioner: PyTree, history: bool
) -> Sharpness | xr.DataArray:
    problem = problem_of(fit)
    scale = recorded(fit, "preconditioner", "sharpness: the fit") if isinstance(preconditioner, str) else preconditioner
    if not history:
        if isinstance(preconditioner, str):
            scale = jax.tree.map(lambda x: x[-1], scale)
        called = as_params(fit.params, inside=True) if holds_call(problem.params) else None
        marked = put(problem.params, fit.params) if called is None else called
        arguments = Arguments(problem._replace(params=marked), scale, tolerance)
        check_scale(scale, free(marked))
        return _answer(at_one(quantity, arguments, fit.precision or "float32"), preconditioner is not None)
    recorded(fit, "params", "sharpness: the fit")
    pairs, _ = over_history(quantity, fit, scale, tolerance)
    import xarray as xr

    coords = {"step": ("step", np.asarray(fit.history.step))}
    label = lambda values, *extra: xr.DataArray(values, coords, ("step", *extra), "sharpness")  # noqa: E731
    return _labelled(quantity, pairs.values, label)


def _sharpness_of_grid(
    quantity: Extreme, tolerance: float, grid: Grid, preconditioner: PyTree, history: bool
) -> xr.DataArray:
    import xarray as xr

    if preconditioner is not None and preconditioner != "recorded":
        raise TypeError("sharpness: of a grid the preconditioner is 'recorded' or None; pass the fit of one lane else")
    if preconditioner is not None and not history:
        raise ValueError("sharpness: a grid keeps no preconditioner of its lanes' ends; ask with history=True")
    rows = grid.parts[0].lanes.rows
    for name in ("params",) * history + ("preconditioner",) * (preconditioner is not None):
        if name not in rows:
            raise ValueError(
                f"sharpness: the grid did not record its {name}; sweep with record=jf.Record(every=..., "
                f"what=({', '.join(repr(n) for n in [*rows, name])},))"
            )
    pairs, _ = over_grid(quantity, grid, history=history, extra=preconditioner and "preconditioner", number=tolerance)
    like = grid.results.status
    coords = dict(like.coords) | ({"step": grid.results.step} if history else {})
    dims = (*like.dims, *("step",) * history)
    label = lambda values, *extra: xr.DataArray(values, coords, (*dims, *extra), "sharpness")  # noqa: E731
    return _labelled(quantity, pairs.values, label)


def _labelled(quantity: Extreme, values: np.ndarray, label: Callable[..., xr.DataArray]) -> xr.DataArray:
    return label(values[..., 0]) if quantity.count == 1 else label(values, "eigenvalue")


def _answer(result: tuple[Pairs, PyTree], preconditioned: bool) -> Sharpness:
    pairs, vectors = result
    return Sharpness(pairs.values, pairs.errors, vectors, pairs.products, preconditioned)


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
    depth = whole_number("hessian_spectrum: depth", depth, least=2)
    precision = chosen_precision(precision, params, data)
    arguments, dimensions = posed(loss, params, data, key, precision)
    _refuse_axes("hessian_spectrum", dimensions)
    size = sum(int(np.size(x)) for x in jax.tree.leaves(free(arguments.problem.params)))
    if probes is None and size <= EXACT:
        values = at_one(all_eigenvalues, arguments, precision)
        return Spectrum(values, np.full(size, 1 / size), size, True, size)
    probes = 8 if probes is None else whole_number("hessian_spectrum: probes", probes)
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
    curvatures = at_one(rayleigh_quotients, arguments._replace(extra=directions), precision)
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
