"""Bad arguments, refused before anything compiles: each error names the argument, shows what came, says the remedy.

What is wrong with the structure of a call (shapes, trees, names, counts) is an exception; what goes wrong with the
numbers of a run is a `Status`.
"""

from __future__ import annotations

import inspect
import os
import reprlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.datasets import as_key
from jaxfit.losses import ChiSquared, CrossEntropy, InputNoise, Residual, Sum, data_names, takes_key
from jaxfit.markers import Axis, Call, is_array, is_axis, is_key, seeds
from jaxfit.optimizers import Optimizer, as_optimizer
from jaxfit.parameters import Bounded, Fixed, Tied, check_bounds, free, is_mark
from jaxfit.preconditioners import has_preconditioner, unknown
from jaxfit.problems import PRECISIONS, Batches, Problem, Record, Stop, whole

PyTree = Any


def path_name(root: str, path: tuple) -> str:
    return root + jax.tree_util.keystr(path)


# The door: every verb comes in here


def pose(
    loss: Callable, params: PyTree, data: Any, *, optimizer: Any, steps: Any, stop: Stop, record: Record,
    batches: Batches | None, key: Any, validation: Any, precision: str,
) -> Problem:  # fmt: skip
    """The arguments of a run as a checked problem, its numbers still as the user gave them; axes may stand anywhere."""
    check_platform()
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f'precision is {precision!r}, but it must be "float32" or "float64"')
    if not (callable(loss) or is_axis(loss)):
        raise TypeError(
            f"loss is {reprlib.repr(loss)}, but it must be a function loss(params, *data) -> scalar, such as "
            f"jf.losses.mse(model)"
        )
    if not isinstance(record, Record):
        raise TypeError(f"record is {record!r}, but it must be jf.Record(every=1, what=('loss',))")
    if batches is not None and not isinstance(batches, Batches):
        raise TypeError(f"batches is {batches!r}, but it must be a value such as jf.Batches(size=32)")
    data = as_data(data)
    example = loss.values[0] if is_axis(loss) else loss
    own = getattr(example, "by_row", False)
    check_data(data, example, precision=precision, rows=own or batches is not None)
    if validation is not None:
        validation = as_data(validation, "validation")
        check_data(validation, example, name="validation", precision=precision, rows=own)
    elif "validation_loss" in record.what:
        raise ValueError('record asks for "validation_loss", but there are no validation data; pass validation=(x, y)')
    check_stop(stop, precision=precision, validation=validation)
    check_swept_numbers(loss)
    optimizer = _each(as_optimizer, optimizer)
    _each(lambda one: check_rate(one, precision), optimizer)
    _each(lambda one: check_gradient_known(one, stop, record), optimizer)
    _each(lambda one: check_scale_known(one, record), optimizer)
    problem = Problem(
        loss=_each(as_loss, loss),
        params=as_params(params, precision=precision),
        data=data,
        optimizer=optimizer,
        stop=stop,
        record=record,
        steps=np.int32(whole("steps", steps)),
        batches=batches,
        key=_as_keys(key),
        validation=validation,
    )
    check_batches(problem)
    check_free(problem.params)
    check_methods(problem)
    return problem


def check_platform() -> None:
    """Refuses to run where JAX is told to use what is not there; it says so by an assertion, or at length.

    Raises:
      RuntimeError: With what was asked for, and what there is.
    """
    try:
        jax.default_backend()
    except (AssertionError, RuntimeError) as error:
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise RuntimeError(
            f"JAX is told to use the platform {jax.config.jax_platforms!r}, which is not here{why}; set "
            f"JAX_PLATFORMS=cpu, which is everywhere, or leave it out for the best there is; for an NVIDIA GPU install "
            f'"jaxfit-toolkit[cuda]"'
        ) from error


def refuse_axes(verb: str, problem: Problem) -> None:
    """Refuses the axes of a sweep, for a verb of one run."""
    axes = [x for x in jax.tree.leaves(problem, is_leaf=is_axis) if is_axis(x)]
    if axes:
        raise ValueError(
            f"{axes[0]!r} stands for many runs, but {verb} makes one: pass one of its values, or call sweep"
        )


def _each(f: Callable, x: Any) -> Any:
    """f of x, or an axis of f of its values."""
    return Axis(x.name, [f(v) for v in x.values], x.labels) if is_axis(x) else f(x)


def as_loss(loss: Callable) -> Callable:
    """The loss as a pytree: its own, if it is one, or a `Partial` whose function is part of the program."""
    leaves = jax.tree.leaves(loss)
    return jax.tree_util.Partial(loss) if len(leaves) == 1 and leaves[0] is loss else loss


def check_swept_numbers(loss: Callable) -> None:
    """Refuses an axis of numbers that a loss of jaxfit's would refuse one by one."""
    for path, axis in jax.tree_util.tree_leaves_with_path(loss, is_leaf=is_axis):
        name = getattr(path[-1], "name", None) if path else None
        if is_axis(axis) and is_array(axis.values) and name in ("delta", "strength", "scale"):
            values = np.asarray(axis.values)
            bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)) | ((values == 0) & (name == "delta")))
            if bad.size:
                rule = "finite, and " + ("positive" if name == "delta" else "zero or more")
                raise ValueError(
                    f"{name} is {values[bad[0]]} (value {bad[0]} of axis {axis.name!r}); it must be {rule}"
                )


def _as_keys(key: Any) -> Any:
    return seeds(key) if is_axis(key) else None if key is None else as_key(key)


def warn(message: str) -> None:
    """A warning that points at the caller's own line."""
    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


# Data


def as_data(data: Any, name: str = "data") -> tuple:
    """The data as a tuple of arrays (or pytrees of them); lists, pandas objects and the like become arrays.

    Raises:
      TypeError: If it is not a tuple, or something in it is not numeric.
      ValueError: If a list is ragged.
    """
    if is_array(data) or hasattr(data, "__array__"):
        raise TypeError(
            f"{name} is one array of shape {np.shape(data)}, but it is the tuple handed to the loss after params: "
            f"write {name}=(x, y), or ({name},) if the loss takes one array"
        )
    if not isinstance(data, (tuple, list)):
        raise TypeError(
            f"{name} is {reprlib.repr(data)} ({type(data).__name__}), but it is the tuple handed to the loss after "
            f"params: write {name}=(x, y)"
        )
    return tuple(_as_item(item, f"{name}[{i}]") for i, item in enumerate(data))


def _as_item(item: Any, name: str) -> Any:
    if isinstance(item, Axis):
        return item
    if isinstance(item, jax.Array):
        return item if is_key(item) else _numeric(item, name)
    if isinstance(item, Call):
        raise TypeError(f"{name} is {item!r}, but a Call stands for params; call the function itself to make data")
    if isinstance(item, np.ma.MaskedArray) and np.ma.getmaskarray(item).any():
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost; pass the mask as data, (x, y, ~y.mask), to a loss "
            f"made with masked=True"
        )
    if isinstance(item, Mapping):
        return {key: _as_item(value, f"{name}[{key!r}]") for key, value in item.items()}
    if isinstance(item, (list, tuple)) and any(is_array(x) and np.ndim(x) or is_axis(x) for x in item):
        return type(item)(_as_item(x, f"{name}[{i}]") for i, x in enumerate(item))
    if isinstance(item, (list, tuple)):
        try:
            array = np.asarray(item)
        except ValueError:
            lengths = sorted({len(x) for x in item if hasattr(x, "__len__")})
            raise ValueError(f"{name} is ragged (rows of {lengths} entries); give rows of one length") from None
        return _numeric(array, name)
    if item is None or is_array(item) or hasattr(item, "__array__") or isinstance(item, (int, float, complex, str)):
        return item if item is None else _numeric(np.asarray(item), name)
    return jax.tree_util.tree_map_with_path(lambda p, x: _numeric(np.asarray(x), path_name(name, p)), item)


def _numeric(array: Any, name: str) -> Any:
    if array.dtype.kind in "OSUMmV" and not jnp.issubdtype(array.dtype, jnp.floating):
        what = {"U": "text", "S": "bytes", "O": "objects", "M": "dates", "m": "time spans"}.get(
            array.dtype.kind, "records"
        )
        raise TypeError(
            f"{name} holds {what} (dtype {array.dtype}), but data must be numbers; convert it with .astype(float)"
        )
    if array.dtype.kind == "c":
        raise TypeError(
            f"{name} is complex, but a fit needs real numbers; pass its real and imaginary parts as two arrays"
        )
    return array


def check_data(
    data: tuple,
    loss: Callable,
    *,
    name: str = "data",
    precision: str = "float32",
    rows: bool = False,
    finite: bool = True,
) -> None:
    """Refuses data that no fit can be made of. Traced leaves pass.

    Args:
      data: As `as_data` gives it; leaves may be axes.
      loss: For the names of its arguments, and for whether it masks.
      name: "data" or "validation".
      precision: Whole numbers must fit its integers.
      rows: Whether the loss is jaxfit's own or batches are drawn, so that all arrays must have equally many rows.
      finite: Whether to refuse numbers that are not finite.

    Raises:
      ValueError: If there are none, lengths differ, a number is not finite, or an integer does not fit.
    """
    names = data_names(loss)
    place = (
        names.index("where")
        if getattr(loss, "masked", False) and "where" in names and len(data) == len(names)
        else None
    )
    where = None if place is None else data[place]
    if is_axis(where):
        where = where.values
    if where is not None and not isinstance(where, jax.core.Tracer) and not np.asarray(where).any():
        raise ValueError(
            f"{name}[{place}] (where) is False everywhere, so there are no data; mark at least one row True"
        )
    lengths = {}
    for i, item in enumerate(data):
        if _takes_arrays(loss) and not (is_array(item) or is_axis(item)):
            raise TypeError(
                f"{name}[{i}]{f' ({names[i]})' if i < len(names) else ''} is a {type(item).__name__} of arrays, but "
                f"{loss} takes one array there; join them with np.stack, or write a loss(params, *data) of your own"
            )
        for path, leaf in jax.tree_util.tree_flatten_with_path(item, is_leaf=is_axis)[0]:
            label = path_name(f"{name}[{i}]", path) + (f" ({names[i]})" if i < len(names) else "")
            swept = isinstance(leaf, Axis)
            values = leaf.values if swept else leaf
            if swept and not is_array(values):
                values = _axis_array(leaf, label)
            shape = np.shape(values)[1:] if swept else np.shape(values)
            if 0 in np.shape(values):
                raise ValueError(f"{label} has shape {np.shape(values)}, so there are no data; give at least one point")
            if shape:
                lengths[label] = shape
            if not isinstance(values, jax.core.Tracer) and not is_key(values):
                masked = where if place is not None and i < place else None
                _check_numbers(label, np.asarray(values), precision, masked, finite)
    if rows and len({shape[0] for shape in lengths.values()}) > 1:
        raise ValueError(
            f"{name} differ in length: {', '.join(f'{label} has shape {shape}' for label, shape in lengths.items())}; "
            f"give every array one entry per data point"
        )
    if rows and not lengths:
        raise ValueError(f"{name} holds no array, so there are no points; pass {name}=(x, y)")
    if "sigma" in names and len(data) == len(names) and _of_measurements(loss):
        check_sigma(data, names, loss, name)


def _takes_arrays(loss: Callable) -> bool:
    inner = loss.loss if isinstance(loss, InputNoise) else loss
    terms = inner.terms if isinstance(inner, Sum) else (inner,)
    return any(isinstance(term, (ChiSquared, CrossEntropy, InputNoise, Residual)) for term in terms)


def _of_measurements(loss: Callable) -> bool:
    return any(isinstance(term, ChiSquared) for term in (loss.terms if isinstance(loss, Sum) else (loss,)))


def _axis_array(axis: Axis, label: str) -> np.ndarray:
    shapes = [np.shape(v) for v in axis.values]
    if len(set(shapes)) > 1:
        odd = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"{label}: axis {axis.name!r} holds data sets of different shape (value 0 has {shapes[0]}, value {odd} has "
            f"{shapes[odd]}); pad them to one length with jf.datasets.pad and use a loss with masked=True"
        )
    return _numeric(np.asarray([np.asarray(v) for v in axis.values]), label)


def _check_numbers(label: str, values: np.ndarray, precision: str, where: Any, finite: bool) -> None:
    if values.dtype.kind in "iu" and values.size:
        limit = np.iinfo(np.int64 if precision == "float64" else np.int32)
        if int(values.max()) > limit.max or int(values.min()) < limit.min:
            raise ValueError(
                f"{label} has whole numbers up to {int(np.abs(values.astype(object)).max()):,}, which do not fit the "
                f"{limit.bits}-bit integers of {precision}; convert them with .astype(float)"
                + (', or use precision="float64"' * (precision == "float32"))
            )
    if not finite or values.dtype.kind != "f" and not jnp.issubdtype(values.dtype, jnp.floating):
        return
    bad = ~np.isfinite(values)
    if where is not None and not isinstance(where, jax.core.Tracer):
        mask = np.asarray(where, bool)
        if mask.shape == bad.shape[: mask.ndim]:
            bad &= mask.reshape(mask.shape + (1,) * (bad.ndim - mask.ndim))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        at = first[0] if len(first) == 1 else first
        raise ValueError(
            f"{label} has {int(bad.sum())} of {values.size} values that are not finite, the first at index {at} "
            f"({values[first]}); drop those rows, or keep them with a loss made with masked=True"
        )


def beyond_range(data: tuple, precision: str) -> str | None:
    """Which data are so large or small that their squares leave the precision's range, and what to do; else None."""
    limits = np.finfo(PRECISIONS[precision])
    most, least = float(np.sqrt(limits.max)), float(np.sqrt(limits.tiny))
    for i, leaf in enumerate(jax.tree.leaves(data)):
        if isinstance(leaf, jax.core.Tracer) or np.asarray(leaf).dtype.kind != "f":
            continue
        size = np.abs(np.asarray(leaf, np.float64))
        top = size.max(where=np.isfinite(size), initial=0.0)
        if top > most or 0 < top < least:
            what = "overflow" if top > most else "underflow"
            other = ' or use precision="float64"' if precision == "float32" and 1e-150 < top < 1e150 else ""
            return f"data[{i}] reaches {top:.3g}, whose square {what}s {precision}: scale the data{other}"
    return None


# Params


def as_params(params: PyTree, *, root: str = "params", precision: str = "float64", finite: bool = True) -> PyTree:
    """The params with whole scalars made floats; axes and calls stay. Unless `finite`, NaN and infinity pass.

    Raises:
      ValueError: If there is no leaf, or one is not finite, or not in the precision.
      TypeError: If a leaf is text, a PRNG key, complex, half precision, or an array of integers.
    """

    if hasattr(params, "start_loss") and hasattr(params, "params"):
        raise TypeError(f"{root} is a fit; pass its params: fit.params")

    def leaf(path, x):
        name = path_name(root, path)
        if isinstance(x, (Call, Tied)):  # a call's arguments are not params
            return x
        if isinstance(x, Fixed):
            return Fixed(as_params(x.value, root=name, precision=precision, finite=finite))
        if isinstance(x, Bounded):
            value = leaf(path, x.value)
            low, high = check_bounds(name, value, x.low, x.high)
            return Bounded(value, low, high)
        if isinstance(x, Axis):
            if is_array(x.values):
                return Axis(x.name, check(name + f" (axis {x.name!r})", x.values, swept=True), x.labels)
            return Axis(
                x.name,
                [as_params(v, root=f"{name}[{i}]", precision=precision) for i, v in enumerate(x.values)],
                x.labels,
            )
        return check(name, x)

    def check(name, x, swept=False):
        if isinstance(x, (str, bytes)):
            raise TypeError(
                f"{name} is the text {x!r}, but params are numbers; keep settings out of them, in the model itself"
            )
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{name} is a PRNG key, but params are numbers; run the initializer with it: jf.Call(init, key=key)"
            )
        if isinstance(x, jax.core.Tracer):
            dtype, shape = x.dtype, x.shape
        else:
            array = np.asarray(x)
            dtype, shape = array.dtype, array.shape
        if dtype.kind in "OUSMm":
            raise TypeError(
                f"{name} is {reprlib.repr(x)} ({type(x).__name__}), but params are numbers or arrays of them; convert "
                f"it with np.asarray(x, float), or keep it in the model"
            )
        if dtype.kind == "c":
            raise TypeError(f"{name} is complex, but params are real; use two leaves for its real and imaginary part")
        if dtype.kind == "b":
            raise TypeError(
                f"{name} is boolean, but params are floats; a switch belongs in the model, not in its params"
            )
        if dtype.kind in "iu":
            if shape[1:] if swept else shape:
                raise TypeError(
                    f"{name} is an array of integers (dtype {dtype}), which cannot be moved by a gradient; "
                    f"make it floats with .astype(float), or keep it out of the params"
                )
            return x.astype(float) if isinstance(x, jax.core.Tracer) else np.asarray(x, np.float64)
        if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
            raise TypeError(
                f"{name} is {dtype}, but runs are made in float32 or float64; convert it with .astype('float32')"
            )
        if finite and not isinstance(x, jax.core.Tracer):
            numbers = np.asarray(x)
            bad = ~(np.abs(numbers) <= np.finfo(PRECISIONS[precision]).max)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                at = f" at index {first[0] if len(first) == 1 else first}" if first else ""
                large = np.isfinite(numbers[first])
                raise ValueError(
                    f"{name} is {numbers[first]}{at}, "
                    + (f"too large for {precision}; " if large else "but a run must start from finite numbers; ")
                    + ('choose other units, or precision="float64"' if large else "give another start")
                )
        return x

    def marked(x):
        return isinstance(x, (Axis, Call)) or is_mark(x)

    if not jax.tree.leaves(params, is_leaf=marked):
        raise ValueError(
            f"{root} is {params!r}, which has no leaf to move; give at least one number (None is an empty subtree)"
        )
    return jax.tree_util.tree_map_with_path(leaf, params, is_leaf=marked)


# The optimizer, the stop rule, batches and key


def check_rate(optimizer: Optimizer, precision: str) -> None:
    """Refuses a learning rate that the precision rounds to zero or infinity."""
    rate = optimizer.hyperparameters.get("learning_rate")
    numbers = rate.values if is_axis(rate) else rate
    if isinstance(numbers, jax.core.Tracer) or not (is_array(numbers) or isinstance(numbers, float)):
        return
    limits = np.finfo(PRECISIONS[precision])
    if isinstance(numbers, float) and limits.tiny <= numbers <= limits.max:
        return
    numbers = np.atleast_1d(np.asarray(numbers, np.float64))
    bad = np.flatnonzero((numbers > limits.max) | (numbers < limits.tiny))
    if bad.size:
        raise ValueError(
            f"learning_rate is {numbers[bad[0]]:g}, which {precision} cannot hold; it must lie between "
            f"{limits.tiny:.1g} and {limits.max:.1g}: choose other units for the data"
            + (', or precision="float64"' * (precision == "float32"))
        )


def check_gradient_known(optimizer: Optimizer, stop: Stop, record: Record) -> None:
    """Refuses to watch or record the gradient of a method that finds none."""
    if getattr(optimizer.call.function, "finds_gradient", True):
        return
    asked = [f"record: {name}" for name in ("gradient", "gradient_norm") if name in record.what]
    asked += ["Stop: gradient_norm_below"] if stop.gradient_norm_below is not None else []
    if asked:
        raise ValueError(
            f"{asked[0]} is asked for, but {optimizer.name} finds no gradient; watch or record the loss or the params"
        )


def check_scale_known(optimizer: Optimizer, record: Record) -> None:
    """Refuses to record the preconditioner of an optimizer that has none."""
    if "preconditioner" in record.what and not has_preconditioner(optimizer):
        raise ValueError(f"record: preconditioner is asked for, but {unknown(optimizer)}; leave it out")


def check_stop(stop: Any, *, precision: str, validation: Any) -> None:
    """Refuses a rule that cannot work, and warns of one that cannot be met in the precision."""
    if not isinstance(stop, Stop):
        raise TypeError(f"stop is {stop!r}, but it must be a value such as jf.Stop(gradient_norm_below=1e-4)")
    eps, tiny = float(np.finfo(PRECISIONS[precision]).eps), float(np.finfo(PRECISIONS[precision]).tiny)
    for name, value in vars(stop).items():
        numbers = value.values if is_axis(value) else value
        if value is None or isinstance(numbers, jax.core.Tracer):
            continue
        numbers = np.asarray(numbers)
        if numbers.dtype.kind not in "iuf" or (numbers.ndim and not is_axis(value)) or np.isnan(numbers).any():
            raise ValueError(
                f"Stop: {name} is {reprlib.repr(value)}, but it must be a number, or None for no such rule"
            )
        least = eps / 100 if name in ("gradient_norm_below", "params_change_below") else tiny
        if least != tiny and (numbers <= 0).any():
            raise ValueError(f"Stop: {name} is {value!r}, but a norm is never below that; it must be positive")
        if name != "patience" and ((0 < numbers) & (numbers < least)).any():
            warn(
                f"Stop: {name}={np.min(numbers):.3g} is below what {precision} can tell from zero here, {least:.1g}, "
                f"so that it may never be met; raise it" + (', or use precision="float64"' * (precision == "float32"))
            )
        if name == "patience":
            if (numbers < 1).any() or (numbers % 1 != 0).any():
                raise ValueError(f"Stop: patience is {value!r}, but it counts records: a whole number, at least 1")
            if validation is None:
                raise ValueError(
                    "Stop: patience watches the validation loss, but there is none; pass validation=(x, y)"
                )


def check_batches(problem: Problem) -> None:
    """Refuses batches that the data cannot fill, and randomness without a key."""
    batches = problem.batches
    if batches is not None:
        shapes = [
            np.shape(x.values)[1:] if is_axis(x) else np.shape(x)
            for x in jax.tree.leaves(problem.data, is_leaf=is_axis)
        ]
        rows = next((shape[0] for shape in shapes if shape), 0)
        swept = is_axis(batches.size)
        for position, size in enumerate(batches.size.values if swept else [batches.size]):
            where = f" (value {position} of axis {batches.size.name!r})" if swept else ""
            if whole(f"batches: size{where}", size) > rows:
                raise ValueError(
                    f"batches: size is {size}{where}, but the data have {rows} points; a batch takes from 1 to {rows}"
                )
        if problem.key is None:
            raise ValueError(
                "key is None, but batches are drawn at random; pass a seed, key=0, or a key of jax.random.key"
            )
    losses = problem.loss.values if is_axis(problem.loss) else [problem.loss]
    if problem.key is None and any(map(takes_key, losses)):
        raise ValueError("key is None, but the loss takes a key; pass a seed, key=0, or a key of jax.random.key")


def check_free(params: PyTree) -> None:
    """Refuses params of which none may move."""
    if not jax.tree.leaves(free(params), is_leaf=lambda x: isinstance(x, (Axis, Call))):
        raise ValueError(
            "params are all fixed or tied, so that nothing can move; leave one free, or call the loss itself"
        )


def check_methods(problem: Problem) -> None:
    """Refuses what a method cannot work with: a loss without residuals, batches, randomness, too few data."""
    losses = problem.loss.values if is_axis(problem.loss) else [problem.loss]
    optimizers = problem.optimizer.values if is_axis(problem.optimizer) else [problem.optimizer]
    for optimizer in optimizers:
        if is_axis(optimizer):
            check_methods(problem._replace(optimizer=optimizer))
            continue
        name, factory = optimizer.name, optimizer.call.function
        if getattr(factory, "deterministic", False):
            if problem.batches is not None:
                raise ValueError(
                    f"batches: {name} compares the losses of different steps, so every step needs all the data; "
                    f"leave batches out, or use an optimizer such as jf.optimizers.adam(1e-2)"
                )
            if any(map(takes_key, losses)):
                raise ValueError(
                    f"loss: {name} compares the losses of different steps, which a random one changes; use a loss "
                    f"without a key, or an optimizer such as jf.optimizers.adam(1e-2)"
                )
        if getattr(factory, "residuals", False):
            for loss in losses:
                _check_residuals(name, loss)
                _check_rows(name, loss, problem)


def _check_rows(name: str, loss: Any, problem: Problem) -> None:
    """Refuses a mask that leaves fewer residuals than free params; `inspect_loss` counts where there is no mask."""
    names, params = data_names(loss), jax.tree.leaves(free(problem.params), is_leaf=lambda x: isinstance(x, Call))
    where = problem.data[names.index("where")] if getattr(loss, "masked", False) else None
    if where is None or isinstance(loss, Sum) or not is_array(where) or isinstance(where, jax.core.Tracer):
        return
    y = problem.data[1]
    have = int(np.asarray(where).sum()) * int(np.prod(np.shape(y.values)[2:] if is_axis(y) else np.shape(y)[1:]))
    need = sum(int(np.size(x)) for x in params if not isinstance(x, (Axis, Call)))
    if have < need:
        raise ValueError(too_few(name, have, need))


def too_few(name: str, have: int, need: int) -> str:
    return (
        f"the data make {have} residual{'s' * (have != 1)} for {need} free params; {name} needs at least as many "
        f"residuals: fix some params with jf.Fixed, add a penalty such as jf.losses.l2(1e-3), or measure more"
    )


def _check_residuals(name: str, loss: Any) -> None:
    if not getattr(loss, "knows_residuals", False):
        shown = getattr(getattr(loss, "func", loss), "__name__", None) or repr(loss)
        raise TypeError(
            f"loss: {name} needs the residuals behind the loss, which {shown} does not tell; write a function "
            f"residuals(params, *data) and pass jf.losses.least_squares(residuals), or use mse, rss, chi_squared or "
            f"huber of jf.losses with any penalties of its own; any loss does for jf.optimizers.lbfgs()"
        )


def check_sigma(data: tuple, names: tuple[str, ...], loss: Any, name: str = "data") -> None:
    """Refuses standard deviations that are not positive, and covariances that are none."""
    place = names.index("sigma")
    swept = is_axis(data[place])
    sigma = data[place].values if swept else data[place]
    y = data[1].values if is_axis(data[1]) else data[1]
    if isinstance(sigma, jax.core.Tracer) or isinstance(y, jax.core.Tracer):
        return
    sigma = np.asarray(sigma, np.float64)
    shape, wanted = sigma.shape[swept:], np.shape(y)[is_axis(data[1]) :]
    where = data[names.index("where")] if "where" in names else None
    mask = np.ones(wanted[:1], bool) if where is None or is_axis(where) else np.asarray(where)
    label = f"{name}[{place}] (sigma)"
    if shape == wanted * 2 and len(wanted) == 1:
        for one in sigma if swept else [sigma]:
            _check_covariance(label, one[np.ix_(mask, mask)])
        return
    if shape != wanted:
        matrix = f", or one covariance matrix of shape {wanted * 2}" if len(wanted) == 1 else ""
        raise ValueError(
            f"{label} has shape {shape} and y {wanted}; give one standard deviation for each entry of y{matrix}; for "
            f"one shared by all pass np.full({wanted}, sigma)"
        )
    if where is not None and is_axis(where):
        return
    bad = ~(sigma > 0) & (mask.reshape(mask.shape + (1,) * (len(wanted) - 1)) if wanted else True)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{label} has {int(bad.sum())} of {sigma.size} values that are not positive, the first at index "
            f"{first[0] if len(first) == 1 else first} ({sigma[first]:g}); a standard deviation must be positive: drop "
            f"those points, or mask them with masked=True"
        )


def _check_covariance(label: str, matrix: np.ndarray) -> None:
    scale = np.abs(matrix).max(initial=0.0)
    skew = np.abs(matrix - matrix.T)
    if (skew > 1e-6 * scale).any():
        i, j = (int(k) for k in np.unravel_index(np.argmax(skew), skew.shape))
        raise ValueError(
            f"{label} is a covariance matrix, but not symmetric: [{i}, {j}] is {matrix[i, j]:g} and [{j}, {i}] is "
            f"{matrix[j, i]:g}; pass (c + c.T) / 2 if that is rounding"
        )
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(matrix)[0])
        raise ValueError(
            f"{label} is a covariance matrix, but not positive definite: its least eigenvalue is {least:.3g}; drop "
            f"repeated points, or add a variance to its diagonal"
        ) from None


# Schedules


def check_schedule(optimizer: Optimizer, steps: int) -> None:
    """Refuses a schedule that does not give one finite number, zero or more, at the first step and at the last."""
    rate = optimizer.hyperparameters.get("learning_rate")
    schedule: Any = rate.build() if isinstance(rate, Optimizer) else rate() if isinstance(rate, Call) else rate
    if not callable(schedule):
        return
    for t in (0, steps - 1):
        value: Any = schedule(jnp.int32(t))
        if isinstance(value, jax.core.Tracer) and value.shape == ():
            continue
        if not (isinstance(value, (int, float)) or is_array(value)) or np.shape(value) != ():
            found = f"shape {np.shape(value)}" if is_array(value) else reprlib.repr(value)
            raise ValueError(
                f"learning_rate: the schedule returned {found} at step {t}, but it must return one number, a scalar"
            )
        if not 0 <= float(value) < np.inf:
            raise ValueError(
                f"learning_rate: the schedule returned {float(value):.6g} at step {t}; it must be finite, zero or more"
            )
