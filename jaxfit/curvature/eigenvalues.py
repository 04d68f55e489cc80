"""The largest or smallest eigenvalues of the Hessian of a loss: at params, at the records of a run, over a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike

from jaxfit.curvature.lanczos import Pairs, dense, largest, products
from jaxfit.problems import chosen_precision, convert_all, whole
from jaxfit.problems.axes import holds_call, is_traced, resolve
from jaxfit.problems.dimensions import Dimension, read
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import free, put
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.posing import as_params, pose_question
from jaxfit.typing import Array, KeyLike, LossFunction, Params, PyTree
from jaxfit.verbs.evaluations import Arguments, at_one, named, over_axes, over_grid, over_history
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, problem_of, recorded

if TYPE_CHECKING:
    import xarray as xr


DENSE = 48  # params up to which the whole Hessian costs no more
BASIS_BYTES = 2**28


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
            found = dense(operator, size, self.count, start.dtype)
        else:
            room = BASIS_BYTES // (size * start.dtype.itemsize)
            most = min(size, max(32, self.count + 16, min(256, room)))
            found = largest(operator, size, self.count, most=most, tolerance=arguments.number, dtype=start.dtype)
        return found._replace(values=sign * found.values), jax.vmap(back)(found.vectors)


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
    quantity, tolerance = Extreme(whole("sharpness: count", count), end), float(tolerance)
    if isinstance(loss, (Fit, Grid)):
        _refuse_more("sharpness", loss, params, data, key, precision)
        if isinstance(loss, Fit):
            return _of_fit(quantity, tolerance, loss, preconditioner, history)
        return _of_grid(quantity, tolerance, loss, preconditioner, history)
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
        found, _ = over_axes(quantity, arguments, dimensions, precision)
        return _labelled(quantity, found.values, lambda values, *extra: named(values, dimensions, "sharpness", extra))
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


def _of_fit(
    quantity: Extreme, tolerance: float, fit: Fit, preconditioner: PyTree, history: bool
) -> Sharpness | xr.DataArray:
    problem = problem_of(fit)
    scale = recorded(fit, "preconditioner", "sharpness: the fit") if isinstance(preconditioner, str) else preconditioner
    if not history:
        if isinstance(preconditioner, str):
            scale = jax.tree.map(lambda x: x[-1], scale)
        made = as_params(fit.params, inside=True) if holds_call(problem.params) else None
        marked = put(problem.params, fit.params) if made is None else made
        arguments = Arguments(problem._replace(params=marked), scale, tolerance)
        check_scale(scale, free(marked))
        return _answer(at_one(quantity, arguments, fit.precision or "float32"), preconditioner is not None)
    recorded(fit, "params", "sharpness: the fit")
    found, _ = over_history(quantity, fit, scale, tolerance)
    import xarray as xr

    coords = {"step": ("step", np.asarray(fit.history.step))}
    label = lambda values, *extra: xr.DataArray(values, coords, ("step", *extra), "sharpness")  # noqa: E731
    return _labelled(quantity, found.values, label)


def _of_grid(quantity: Extreme, tolerance: float, grid: Grid, preconditioner: PyTree, history: bool) -> xr.DataArray:
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
    found, _ = over_grid(quantity, grid, history=history, extra=preconditioner and "preconditioner", number=tolerance)
    like = grid.results.status
    coords = dict(like.coords) | ({"step": grid.results.step} if history else {})
    dims = (*like.dims, *("step",) * history)
    label = lambda values, *extra: xr.DataArray(values, coords, (*dims, *extra), "sharpness")  # noqa: E731
    return _labelled(quantity, found.values, label)


def _labelled(quantity: Extreme, values: np.ndarray, label: Callable[..., xr.DataArray]) -> xr.DataArray:
    return label(values[..., 0]) if quantity.count == 1 else label(values, "eigenvalue")


def _answer(found: tuple[Pairs, PyTree], preconditioned: bool) -> Sharpness:
    pairs, vectors = found
    return Sharpness(pairs.values, pairs.errors, vectors, pairs.products, preconditioned)
