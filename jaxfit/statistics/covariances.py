"""Covariances, standard errors and correlations of the params of a finished fit, or of every lane of a grid.

Those of one fit by squares are computed in NumPy, from the program of residuals and Jacobian that the fit used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import numpy as np

from jaxfit.engine.compiling import compiled
from jaxfit.engine.settings import current
from jaxfit.engine.single import linearized, raveled, sizes
from jaxfit.engine.tracing import Structure, undifferentiable
from jaxfit.losses.base import SQUARES, Kind, noise_model_of
from jaxfit.optimizers.arrays import Array
from jaxfit.optimizers.bordered import Columns, layout_of
from jaxfit.optimizers.linearization import Slopes
from jaxfit.problems import PRECISIONS, Problem, convert_all, precision_context
from jaxfit.problems.axes import holds_call, is_axis
from jaxfit.problems.enclosed import resolved
from jaxfit.problems.marks import Tied, free, is_mark
from jaxfit.problems.messages import near_keywords, warn
from jaxfit.statistics.data_sets import SetsBasis, basis_of_sets, estimate_of_sets, is_of_sets, precisions_at
from jaxfit.statistics.distributions import t_quantile
from jaxfit.statistics.estimates import (
    Basis,
    Estimate,
    Placed,
    around_constant,
    basis_of_squares,
    estimate,
    held_at,
    is_absolute,
    noise_model_for,
    of_constants,
    placed,
    propagated,
    residual_count,
    varied,
)
from jaxfit.typing import PyTree
from jaxfit.verbs.evaluations import (
    PRECISION,
    check_result,
    free_places,
    labelled,
    labels_of,
    like,
    one_lane,
    over_lanes,
)
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit, numbers_in, problem_of
from jaxfit.verbs.units import takes_units, with_units_of_params

MOST = 4096  # params, whose covariance then takes 134 MB
FAR = 0.1  # standard errors from the minimum that a fit may stand
EXACT = 8  # times what rounding leaves of residuals: less is no noise


class Moments(NamedTuple):
    """Estimates of a fit, or with a grid's axes leading, and the noise that they assume."""

    estimate: Estimate  # of NumPy arrays
    noise: np.ndarray  # () multiplies the covariance of unit noise
    freedom: np.ndarray  # () of the noise; infinite if it is known
    kind: Kind | None
    absolute: bool
    eps: float  # of the numbers that were fitted, relative to them
    least: float  # the least square that they hold

    @property
    def rounding(self) -> np.ndarray:
        """() what rounding leaves of residuals where there is no noise, about."""
        return self.eps * np.asarray(self.estimate.span)

    @property
    def exact(self) -> np.ndarray:
        """() bool: whether the noise is read from residuals that rounding alone would leave."""
        least = np.maximum((EXACT * self.rounding) ** 2, self.least)
        return (np.asarray(self.noise) <= least) & (not self.absolute)

    @property
    def values(self) -> np.ndarray:
        """(..., K)"""
        return np.asarray(self.estimate.values)

    @property
    def covariance(self) -> np.ndarray:
        """(..., K, K)"""
        with np.errstate(over="ignore"):  # of a lane that ran away: its errors are infinite
            return np.asarray(self.estimate.unit) * self.noise[..., None, None]

    @property
    def errors(self) -> np.ndarray:
        """(..., K)"""
        with np.errstate(over="ignore"):
            return np.sqrt(np.asarray(self.estimate.variance) * self.noise[..., None])


def moments(
    verb: str,
    result: Fit | Grid,
    absolute_sigma: bool | None,
    function: Callable | None = None,
    extra: tuple = (),
    *,
    warns: bool = True,
    covaries: bool = True,
) -> Moments:
    """Return the moments of f(params), or of all params, by the linear theory.

    Args:
      verb, result, absolute_sigma: As for the verb that asks.
      function, extra: f(params, *extra); None for all params.
      warns: Whether a fit far from its minimum warns.
      covaries: Whether the covariance of a grid's lanes is asked for, not their variances alone; a fit has it anyway.

    Raises:
      TypeError, ValueError: For a loss that does not tell its noise, or too many params.
      NotConverged: For a fit that failed.
    """
    check_result(verb, result)
    problem, params = one_lane(result)
    kind = noise_model_for(verb, problem.loss).kind
    absolute = is_absolute(verb, result, problem.loss, absolute_sigma)
    count = sum(np.size(x) for x in jax.tree.leaves(params))
    if count > MOST:
        raise ValueError(
            f"{verb}: there are {count:,} params, whose covariance would take {8 * count**2:,} bytes; at most {MOST:,} "
            f"are done, fixed ones included; let what stays constant stand in the model instead of the params"
        )
    alone = estimate_in_numpy(result, function, extra) if isinstance(result, Fit) else None
    static = kind, function, function is None, covaries or isinstance(result, Fit)
    estimates = over_lanes(result, estimate, static, extra) if alone is None else alone
    noise = np.ones_like(estimates.scatter) if absolute else estimates.scatter
    freedom = np.where(absolute, np.inf, estimates.count - estimates.rank)
    least = float(np.finfo(PRECISIONS[result.precision or PRECISION]).tiny)
    known = Moments(estimates, noise, freedom, kind, absolute, _eps(result, problem), least)
    if warns and isinstance(result, Fit):
        _warn_if_far(verb, known)
    return known


def _eps(result: Fit | Grid, problem: Problem) -> float:
    """Return the relative rounding error of the numbers of a fit: that of the run, or of y if that is larger."""
    names = getattr(problem.loss, "data_names", ())
    y = problem.data[names.index("y")] if "y" in names and len(names) == len(problem.data) else None
    y = y.values if is_axis(y) else y
    y_type = getattr(y, "dtype", np.dtype(float))
    types = [PRECISIONS[result.precision or PRECISION], *([y_type] if np.dtype(y_type).kind == "f" else [])]
    return max(float(np.finfo(x).eps) for x in types)


def _warn_if_far(verb: str, known: Moments) -> None:
    far = distance(known)
    if far > FAR:
        warn(
            f"{verb}: the fit stands {far:.2g} standard errors from the minimum, where the errors of params are "
            f"defined; let it run on, or fit with jf.optimizers.levenberg_marquardt()"
        )


def distance(known: Moments) -> float:
    """Return how far a fit stands from its minimum, in standard errors; 0 where rounding leaves no more to find."""
    noise = float(known.noise)
    if known.exact or not (noise > 0 and np.isfinite(noise)):
        return 0.0
    return float(known.estimate.offset) / np.sqrt(noise)


def factor(known: Moments, level: float) -> np.ndarray:
    """Return () how many standard errors an interval reaches: Student's t; normal where the noise is known."""
    return t_quantile(np.where(known.freedom > 0, known.freedom, np.nan), (1 + level) / 2)


@near_keywords
def covariance(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> PyTree:
    """Return the covariance of the params, s**2 (J^T J)^-1 with the exact Jacobian J of the residuals at the minimum.

    s**2 is 1 if the residuals are in units of their standard deviation, otherwise their sum of squares over (n - k).
    For a Huber loss it is Huber's formula; for a cross-entropy the covariance is the inverse of the second derivative
    of the negative log-likelihood. Params that are fixed, on a bound, or not determined by the data have the covariance
    NaN. The covariance of tied params follows from the params they are tied to.

    Args:
      result: A fit, or the grid of a sweep.
      absolute_sigma: Whether sigma is in the units of y and gives the size of the noise; if False, the scatter of the
        residuals gives it. None: as given to `curve_fit`, and otherwise True exactly for `losses.chi_squared`.

    Returns:
      For a fit a tree of trees, `covariance(fit)["a"]["b"]`; for params that are one array of k numbers one array (k,
      k). For a grid an `xarray.DataArray` over its axes, "param" and "other".

    Raises:
      TypeError, ValueError: If the loss does not define its noise.
      NotConverged: If the fit failed.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> table = jf.covariance(run)
      >>> round(float(table["w"]["w"]), 5), round(float(table["w"]["b"]), 4)
      (0.00126, -0.0654)
    """
    return _matrix("covariance", result, moments("covariance", result, absolute_sigma).covariance)


@near_keywords
def correlations(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> PyTree:
    """Return the correlation matrix of the params: covariances divided by the products of standard errors.

    Args:
      result, absolute_sigma: As for `covariance`.

    Returns:
      As `covariance`, with 1 on the diagonal.

    Raises:
      TypeError, ValueError, NotConverged: As `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> round(float(jf.correlations(run)["w"]["b"]), 3)
      -0.955
    """
    return _matrix(
        "correlations", result, correlation_matrix(moments("correlations", result, absolute_sigma).covariance)
    )


def correlation_matrix(covariance: np.ndarray) -> np.ndarray:
    """Return (..., K, K) correlations of (..., K, K) covariances; NaN where an error is unknown or zero."""
    errors = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    product = errors[..., :, None] * errors[..., None, :]
    known = (product > 0) & np.isfinite(product)
    return np.divide(covariance, product, out=np.full(covariance.shape, np.nan), where=known)


def _matrix(name: str, result: Fit | Grid, matrix: np.ndarray) -> PyTree:
    _, params = one_lane(result)
    if not isinstance(result, Fit):
        names = labels_of(params)
        return labelled(result, matrix, {"param": names, "other": names}, name)
    leaves, structure = jax.tree.flatten(params)
    shapes = [np.shape(x) for x in leaves]
    edges = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    rows = []
    for i, shape in enumerate(shapes):
        row = matrix[edges[i] : edges[i + 1]]
        blocks = [row[:, edges[j] : edges[j + 1]].reshape(shape + other)[()] for j, other in enumerate(shapes)]
        rows.append(jax.tree.unflatten(structure, blocks))
    return jax.tree.unflatten(structure, rows)


@near_keywords
@takes_units(with_units_of_params)
def standard_errors(result: Fit | Grid, *, absolute_sigma: bool | None = None) -> PyTree:
    """Return the standard errors of the params: the square roots of the diagonal of `covariance`.

    Args:
      result: A fit, or the grid of a sweep.
      absolute_sigma: As for `covariance`.

    Returns:
      For a fit a tree like its params, NaN where the covariance is NaN. For a grid an `xarray.Dataset` over its axes
      with
      the names of its results: `params.<path>`.

    Raises:
      TypeError, ValueError, NotConverged: As `covariance`.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> {name: round(float(error), 3) for name, error in jf.standard_errors(run).items()}
      {'b': 1.927, 'w': 0.036}
    """
    errors = _errors_of_sets(result, absolute_sigma) if isinstance(result, Fit) else None
    if errors is None:
        errors = moments("standard_errors", result, absolute_sigma, covaries=False).errors
    return params_tree(result, errors)


def _errors_of_sets(fit: Fit, absolute_sigma: bool | None) -> np.ndarray | None:
    """Return the errors of data sets with so many params that their covariance is not kept; None for fewer."""
    check_result("standard_errors", fit)
    loss: Any = problem_of(fit).loss
    if not is_of_sets(loss) or sum(np.size(x) for x in jax.tree.leaves(fit.params)) <= MOST:
        return None
    absolute = is_absolute("standard_errors", fit, loss, absolute_sigma)
    with precision_context(PRECISION), np.errstate(all="ignore"):
        linear = linear_in_numpy(fit)
        if linear is None or not isinstance(linear.basis, SetsBasis):
            return None
        problem, _, found, basis = linear
        freedom = residual_count(loss, problem.data, found.residuals) - basis.rank
        noise = 1.0 if absolute else found.residuals @ found.residuals / freedom if freedom > 0 else np.nan
        params = numbers_in(fit)
        errors = np.full(sum(np.size(x) for x in jax.tree.leaves(params)), np.nan)
        errors[free_places(problem.params, params)] = np.sqrt(noise * basis.variances())
    return errors


def params_tree(
    result: Fit | Grid, flat: np.ndarray, extra: Mapping[str, Sequence[str] | None] | None = None
) -> PyTree:
    """Return (..., K, *extra) numbers, one a param, as a tree like the params, or a Dataset over a grid's axes."""
    _, params = one_lane(result)
    last = len(extra or {})
    moved = np.moveaxis(flat, -1 - last, -1)
    if isinstance(result, Fit):
        return like(params, moved)
    import xarray as xr

    status, extra = result.results.status, extra or {}
    variables = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(like(params, moved)):
        name = ".".join(s for s in ("params", jax.tree_util.keystr(path, simple=True, separator=".")) if s)
        own = leaf.ndim - len(status.dims) - last
        variables[name] = (*status.dims, *extra, *(f"{name}_dim_{i}" for i in range(own))), leaf
    return xr.Dataset(variables, dict(status.coords) | {k: v for k, v in extra.items() if v is not None})


def undetermined(fit: Fit, known: Moments) -> list[dict[str, float]]:
    """Return the directions of the free params that change no prediction: {name: step}, the largest step one.

    Of a space of them those with few params each, so that they can be read.
    """
    blind = np.asarray(known.estimate.blind)
    params = numbers_in(fit)
    places = free_places(resolved(problem_of(fit).params, PRECISION), params)
    names = [name for name, yes in zip(labels_of(params), places, strict=True) if yes]
    directions = []
    for row in with_own_pivots(blind[~np.isnan(blind).any(axis=-1)]):
        largest = np.abs(row) > (1 - 1e-6) * np.abs(row).max()
        row = row / row[np.argmax(largest)]  # the first of them, whatever the rounding
        directions.append({n: float(x) for n, x in zip(names, row, strict=True) if abs(x) > 1e-6})
    return directions


def with_own_pivots(rows: np.ndarray) -> np.ndarray:
    """Return a basis of the space of some rows by the method of Gauss and Jordan: each has its own pivot."""
    rows = np.array(rows)
    for i in range(len(rows)):
        row, column = np.unravel_index(np.argmax(np.abs(rows[i:])), rows[i:].shape)
        rows[[i, i + row]] = rows[[i + row, i]]
        rows[i] /= rows[i, column]
        others = np.arange(len(rows)) != i
        rows[others] -= np.outer(rows[others, column], rows[i])
    return rows


class Linear(NamedTuple):
    """One problem to first order at the params where its fit ended, in NumPy."""

    problem: Problem  # its numbers in the precision of statistics
    flat: np.ndarray  # (k,) free params
    found: Slopes
    basis: Basis | SetsBasis


def estimate_in_numpy(fit: Fit, function: Callable | None, extra: tuple) -> Estimate | None:
    """Return what `estimate` does for one fit by squares, by the program that the fit itself used.

    None for what is left to a compiled program, see `linear_in_numpy`.
    """
    loss: Any = fit.problem.loss  # pyright: ignore[reportOptionalMemberAccess]
    squares = noise_model_of(loss).kind == SQUARES
    if not (squares or is_of_sets(loss)):
        return None
    with precision_context(PRECISION), np.errstate(all="ignore"):
        if (linear := linear_in_numpy(fit)) is None:
            return None
        problem, flat, linearization, basis = linear
        if isinstance(basis, SetsBasis):
            numbers = None if function is None else _apart(_Varied(function), problem, (flat, extra))
            return estimate_of_sets(fit, problem, flat, linearization, basis, numbers)
        if not squares:
            return None
        ties = any(isinstance(x, Tied) for x in jax.tree.leaves(problem.params, is_leaf=is_mark))
        if function is None and not ties:
            params = numbers_in(fit)
            values = raveled(convert_all(params, PRECISION))
            slopes = np.zeros((values.size, flat.size))
            slopes[free_places(problem.params, params)] = np.eye(flat.size)
        else:
            values, slopes = _apart(_Varied(function), problem, (flat, extra))
        estimate = propagated(basis, values, slopes, function is None, linearization.loss)
        return jax.tree.map(lambda x: np.asarray(x)[()], estimate)


def linear_in_numpy(fit: Fit) -> Linear | None:
    """Return one fit by squares to first order; to be called in the precision of statistics.

    None for what is left to a compiled program: a large Jacobian, one that is not finite or only known backward.
    """
    asked: Any = fit.problem
    if jax.default_backend() != "cpu" or holds_call(asked.params):
        return None
    problem = convert_all(asked, PRECISION)
    flat = raveled(convert_all(free(problem.params, fit.params), PRECISION))
    params, numbers = sizes(problem, whole=True)
    large = params > current().numpy_params or numbers > current().numpy_numbers
    if large and layout_of(problem.loss, free(problem.params), problem.params) is None:
        return None
    try:
        linearization = linearized(problem).slopes(flat)
    except TypeError as error:
        cause = error.__cause__
        if undifferentiable(cause if isinstance(cause, Exception) else error):
            return None
        raise
    if not all(np.isfinite(x).all() for x in jax.tree.leaves((linearization.residuals, linearization.columns))):
        return None
    if large:
        basis = basis_of_sets(problem, flat, linearization, lambda: _apart(precisions_at, problem, (flat,)))
        return Linear(problem, flat, linearization, basis)
    if isinstance(linearization.columns, Columns):
        linearization = linearization._replace(
            columns=linearization.columns.whole(), residuals=linearization.columns.in_order(linearization.residuals)
        )
    count = residual_count(problem.loss, problem.data, linearization.residuals)
    basis = basis_of_squares(
        flat, held_at(problem, flat), linearization.residuals, linearization.columns, count, of_data(problem)[0]
    )
    return Linear(problem, flat, linearization, basis)


def leverages_in_numpy(fit: Fit) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return minus the residuals, raw and in standard deviations, and their leverages, in the shape of y.

    None if there is no y, unless they are of data sets with many params; and as `linear_in_numpy`.
    """
    loss: Any = fit.problem.loss  # pyright: ignore[reportOptionalMemberAccess]
    model = noise_model_of(loss)
    if not (model.kind == SQUARES and model.predicts or is_of_sets(loss)):
        return None
    with precision_context(PRECISION), np.errstate(all="ignore"):
        if (linear := linear_in_numpy(fit)) is None:
            return None
        problem, flat, linearization, basis = linear
        if isinstance(basis, SetsBasis):
            own = -linearization.columns.in_order(linearization.residuals)
            return -linearized(problem).residuals(flat), own, basis.leverages(linearization.columns)
        if not model.predicts:
            return None
        where = of_data(problem)[2].where
        leverage = ((linearization.columns.T @ basis.root) ** 2).sum(axis=1)
        shape = problem.data[loss.data_names.index("y")].shape
        each = (x if where is None else np.where(where, x, np.nan) for x in (-linearization.residuals, leverage))
        raw, leverage = (x.reshape(shape) for x in each)
        return raw, raw, leverage


class _Varied(NamedTuple):
    function: Callable | None

    def __call__(self, problem: Problem, flat: Array, extra: tuple) -> tuple:
        back = jax.flatten_util.ravel_pytree(free(problem.params))[1]
        return varied(problem, back, flat, self.function, extra)


def of_data(problem: Problem) -> tuple[Any, Any, Placed]:
    """Return the sums of squares of y, and of y around the best constant, and where the residuals stand.

    The sums are zero for a loss that does not predict y.
    """
    if not noise_model_of(problem.loss).predicts:
        return 0.0, 0.0, Placed()
    origin, unit, place = _apart(_of_data, problem, ())  # their sums in NumPy, which would take long to compile
    return (origin**2).sum(), around_constant(origin, unit), place


def _of_data(problem: Problem) -> tuple[Array, Array, Placed]:
    return *of_constants(problem), placed(problem)


def _apart(function: Callable, problem: Problem, arguments: tuple) -> PyTree:
    """Return function(problem, *arguments) as NumPy arrays, by a program of its own."""
    leaves, structure = jax.tree.flatten((problem, arguments))
    shapes = tuple((np.shape(x), x.dtype) for x in leaves)
    return jax.tree.map(np.asarray, _program(function, structure, shapes, jax.config.jax_enable_x64)(leaves))


@functools.lru_cache(maxsize=64)
def _program(function: Callable, structure: Structure, shapes: tuple, x64: bool) -> Callable:
    def run(leaves):
        problem, arguments = jax.tree.unflatten(structure, leaves)
        return function(problem, *arguments)

    return compiled(run)
