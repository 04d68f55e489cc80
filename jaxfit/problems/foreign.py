"""Data as other libraries hold them: masks and uncertainties are kept, tensors become arrays, the rest is refused with
what to write instead."""

from __future__ import annotations

import dataclasses
import functools
import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.losses.base import Loss, Sum, data_names, is_masked
from jaxfit.problems.axes import Axis, Call, is_array, is_axis, refuse_unit
from jaxfit.problems.marks import Carried, Fixed, Kept, is_mark
from jaxfit.typing import LossFunction, PyTree


def from_other_libraries(
    loss: LossFunction, data: PyTree, name: str = "data", *, masked: bool = False
) -> tuple[Any, PyTree]:
    """Return the loss and the data, as arrays of numbers with the same meaning.

    The mask of a masked array of NumPy becomes the last item of the data, of the loss with masked=True; an array of the
    package `uncertainties` as y becomes y and its standard deviations, for a loss that takes sigma.

    Args:
      loss: A loss of jaxfit's, or any function; a function whose data hold a mask is refused.
      data: As the user gave them; what is no tuple comes back as it is.
      name: "data" or "validation".
      masked: Whether the loss shall be masked though these data are not.

    Raises:
      TypeError: If the loss can take neither, with what to write.
    """
    if not isinstance(data, (tuple, list)) or is_axis(loss):
        return loss, data
    data = with_sigma(loss, tuple(data), name)
    hidden = [i for i, item in enumerate(data) if is_hidden(item)]
    if not hidden and not (masked and not is_masked(loss)):
        return loss, data
    names = data_names(loss)
    if not _can_mask(loss):
        i = hidden[0]
        each = ", ".join(f"{n}[keep]" for n in names[: len(data)]) or "x[keep]"
        rows = f".any(axis={tuple(range(1, np.ndim(data[i])))})" * (np.ndim(data[i]) > 1)
        raise TypeError(
            f"{name}[{i}] is a masked array, whose mask would be lost, since the loss is a function of your own; take "
            f"the rows that count: keep = ~np.ma.getmaskarray({names[i] if i < len(names) else 'y'}){rows}, and "
            f"{name}=({each},)"
        )
    given = is_masked(loss) and len(data) == len(names)
    where = np.asarray(data[-1], bool) if given else np.ones(np.shape(data[0])[:1], bool)
    for i in hidden:
        where = where & _rows(data[i], f"{name}[{i}]")
    plain = [np.ma.asarray(item).filled(0) if i in hidden else item for i, item in enumerate(data)]
    return (loss if is_masked(loss) else _masked(loss)), (*(plain[:-1] if given else plain), where)


def is_hidden(item: object) -> bool:
    """Return whether an item is a masked array in which something is masked."""
    return isinstance(item, np.ma.MaskedArray) and bool(np.ma.getmaskarray(item).any())


def _rows(item: np.ma.MaskedArray, name: str) -> np.ndarray:
    """Return which rows of a masked array count."""
    mask = np.ma.getmaskarray(item)
    if mask.ndim < 2:
        return ~mask
    flat = mask.reshape(len(mask), -1)
    if (flat.any(1) & ~flat.all(1)).any():
        raise TypeError(
            f"{name} is a masked array in which single entries of a row are masked, but a row counts as a whole; mask "
            f"whole rows: np.ma.mask_rows(y), or fit its columns apart"
        )
    return np.asarray(~flat.any(1))


def _can_mask(loss: LossFunction) -> bool:
    if isinstance(loss, Sum):
        return all(_can_mask(term) for term in loss.terms if term.takes_data)
    return isinstance(loss, Loss) and any(field.name == "masked" for field in dataclasses.fields(loss))  # pyright: ignore[reportArgumentType]


def _masked(loss: Any) -> Any:
    if isinstance(loss, Sum):
        return Sum(tuple(_masked(term) if _can_mask(term) else term for term in loss.terms))
    return dataclasses.replace(loss, masked=True)


def with_sigma(loss: LossFunction, data: tuple, name: str) -> tuple:
    """Return data whose y has no uncertainties of its own: for a loss that takes sigma they are appended."""
    uncertain = [i for i, item in enumerate(data) if is_uncertain(item)]
    if not uncertain:
        return data
    names, (i, *more) = data_names(loss), uncertain
    if i == 1 and not more and names[:3] == ("x", "y", "sigma") and len(data) == 2:
        return (data[0], *nominal(data[1]))
    raise TypeError(
        f"{name}[{i}] holds numbers with uncertainties, which only y of jf.curve_fit and of a loss with sigma keeps: "
        f"jf.losses.chi_squared(predict) with data=(x, y); elsewhere pass the numbers alone: "
        f"np.array([v.nominal_value for v in x])"
    )


def is_uncertain(item: object) -> bool:
    """Return whether an item holds numbers of the package `uncertainties`."""
    holds = isinstance(item, (list, tuple)) or getattr(item, "dtype", None) == np.object_
    return holds and hasattr(_first(item), "nominal_value")


def _first(item: Any) -> object:
    """Return the first of the entries of an array, a list, a series or a column; None if there is none."""
    entries = getattr(item, "flat", item)
    entry = next(iter(entries), None) if hasattr(entries, "__iter__") else item
    return _first(entry) if isinstance(entry, (list, tuple)) else entry


def nominal(item: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the standard deviations of numbers with uncertainties, in the shape they had."""
    array = np.asarray(item, object)
    values = [(v.nominal_value, v.std_dev) for v in array.flat]
    return tuple(np.array(column, float).reshape(array.shape) for column in zip(*values, strict=True))  # pyright: ignore[reportReturnType]


def as_array(item: Any, name: str) -> np.ndarray:
    """Return a NumPy array of what is nearly one: a list, a column, a tensor, or an object with DLPack alone.

    Raises:
      TypeError: If its library does not give it away, with what to write.
    """
    try:
        if not hasattr(item, "__array__") and hasattr(item, "__dlpack__"):
            return np.from_dlpack(item)
        return np.asarray(item)
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        if not hasattr(item, "detach"):
            raise
        steps = ".detach()" * bool(getattr(item, "requires_grad", False))
        steps += ".cpu()" * (str(getattr(item, "device", "cpu")) != "cpu") + ".float()" * (
            "bfloat16" in str(item.dtype)
        )
        raise TypeError(
            f"{name} is a tensor that gives no array away ({str(error).splitlines()[0]}); pass x{steps or '.cpu()'}"
        ) from error


def refuse_foreign_start(name: str, x: Any) -> None:
    """Refuse a leaf of params whose names, bounds or mask would be lost, with what to write.

    Raises:
      TypeError: If it is a table, a param of lmfit, or a masked array.
    """
    labels = getattr(getattr(x, "index", None), "values", ())
    if hasattr(x, "vary") and hasattr(x, "min"):
        raise TypeError(
            f"{name} is a {type(x).__name__}, whose bounds would be lost; write jf.Bounded(x.value, x.min, x.max), or "
            f"jf.Fixed(x.value) if it does not vary"
        )
    if columns(x) or hasattr(x, "keys") and (len(labels) == 0 or isinstance(labels[0], str)):
        make = "x.valuesdict()" if hasattr(x, "valuesdict") else "dict(x)" if hasattr(x, "keys") else "x.to_dict()"
        raise TypeError(f"{name} is a {type(x).__name__}, but params by name are a dict; pass {make}")
    if is_hidden(x):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass x.filled(0), or only what counts")


def refuse_foreign_params(name: str, params: Any) -> None:
    """Refuse what holds params in another library, with what to write.

    Raises:
      TypeError: If it is a generator, a module of PyTorch, or a training state of Flax.
    """
    remedy = ""
    if hasattr(params, "__next__"):
        remedy = f"which can be read once; pass list({name})"
    elif hasattr(params, "named_parameters"):
        remedy = "of PyTorch; pass its numbers: {n: x.detach() for n, x in module.named_parameters()}"
    elif hasattr(params, "apply_gradients") and hasattr(params, "params"):
        remedy = "of Flax; pass its params, and with them its optimizer: state.params and optimizer=state.tx"
    if remedy:
        raise TypeError(f"{name} is a {type(params).__name__}, {remedy}")


def as_plain_function(function: Any) -> Any:
    """Return the function itself, or one that is no pytree: JAX would take a filtered function of Equinox apart."""
    if isinstance(function, (Loss, Axis)) or jax.tree_util.all_leaves([function]):
        return function
    if not any(isinstance(x, str) or callable(x) for x in jax.tree.leaves(function)):
        return function
    try:
        return _remembered_plain_function(function)
    except TypeError:  # it cannot be hashed
        return _plain_function(function)


def _plain_function(function: Any) -> Any:
    return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))


_remembered_plain_function = functools.lru_cache(maxsize=256)(_plain_function)


LIBRARIES = {"equinox", "flax.nnx"}  # of modules that hold settings beside what they train


def with_settings_kept(params: PyTree, *, stateful: bool = False) -> PyTree:
    """Return params with a mark at each leaf that the library of a module does not train.

    Equinox trains the arrays of floats in a module, Flax NNX what is an `nnx.Param`; the rest of NNX's variables are
    carried by a loss that is `stateful`.
    """
    equinox, nnx = sys.modules.get("equinox"), sys.modules.get("flax.nnx")
    module = () if equinox is None else equinox.Module
    variable, trained = ((), ()) if nnx is None else (nnx.Variable, nnx.Param)

    def of_module(x):
        return x if is_mark(x) or is_axis(x) or equinox.is_inexact_array(x) else Kept(x)

    def held(x):
        if is_mark(x) or stateful:
            return x if is_mark(x) else Carried(x)
        return Fixed(x) if is_array(x) and jnp.issubdtype(x.dtype, jnp.floating) else Kept(x)

    def one(x):
        if isinstance(x, module):
            return jax.tree.map(of_module, x, is_leaf=_is_whole)
        if isinstance(x, variable) and not isinstance(x, trained):
            return jax.tree.map(held, x, is_leaf=_is_whole)
        return x

    return jax.tree.map(one, params, is_leaf=lambda x: isinstance(x, (module, variable)) or _is_whole(x))


def _is_whole(x: object) -> bool:
    return is_mark(x) or isinstance(x, (Axis, Call))


def columns(table: Any) -> list[str]:
    """Return the names of a table's columns, of pandas, polars or xarray; none if it is no table."""
    if hasattr(table, "collect_schema"):
        return list(table.collect_schema().names())
    names = getattr(table, "data_vars", None) if hasattr(table, "data_vars") else getattr(table, "columns", None)
    return [str(name) for name in names] if names is not None and not callable(names) else []


def as_tuple(table: Any, name: str) -> str:
    """Return how the columns of a table are passed as data."""
    names = columns(table)
    first = "table = table.collect(), then " if hasattr(table, "collect") else ""
    return f"{first}{name}=({', '.join(f'table[{column!r}]' for column in names[:3])}{',' * (len(names) == 1)})"


def check_numbers(array: Any, item: object, name: str) -> None:
    """Refuse what is no array of real numbers, with what makes one of it.

    Args:
      array: The item as an array.
      item: As it was given.
      name: How messages call it.

    Raises:
      TypeError: If it holds text, dates, objects, records or complex numbers.
    """
    kind = array.dtype.kind
    if kind == "O":
        refuse_unit(name, array)
    if kind == "c":
        raise TypeError(
            f"{name} is complex, but a fit needs real numbers; pass its real and imaginary parts, x.real and x.imag, "
            f"as two arrays"
        )
    if kind not in "OSUMmV" or jnp.issubdtype(array.dtype, jnp.floating):
        return
    what = {"U": "text", "S": "bytes", "O": "objects", "M": "dates", "m": "time spans"}.get(kind, "records")
    first = _first(array) if kind == "O" else None
    what = "dates" if hasattr(first, "timetuple") else "time spans" if hasattr(first, "total_seconds") else what
    what = "text" if isinstance(first, str) else what
    raise TypeError(
        f"{name} holds {what} (dtype {array.dtype}), but data must be numbers; {_remedy(array, item, what, first)}"
    )


def _remedy(array: Any, item: object, what: str, first: Any) -> str:
    if what == "dates" and first is None:
        unit = np.datetime_data(array.dtype)[0]
        unit = unit if unit in ("s", "m", "h", "D") else "s"
        array = "" if isinstance(item, np.ndarray) else 't = np.asarray(t, "datetime64[ns]"), then '
        return f'count from the first: {array}(t - t[0]) / np.timedelta64(1, "{unit}")'
    if what == "dates":
        return "count from the first: start = min(t), then np.array([(d - start).total_seconds() for d in t])"
    if what == "time spans":
        if first is None:
            return 'divide them by a unit: t / np.timedelta64(1, "s")'
        return "take their seconds: np.array([d.total_seconds() for d in t])"
    if what == "records":
        return f"pass its fields one by one, such as x[{(array.dtype.names or ('name',))[0]!r}]"
    if hasattr(first, "to_timestamp"):
        return (
            'make dates of them, t = np.asarray([p.to_timestamp() for p in t], "datetime64[ns]"), and count from the '
            'first: (t - t[0]) / np.timedelta64(1, "s")'
        )
    if hasattr(first, "hour") and not hasattr(first, "timetuple"):
        return "take their seconds: np.array([3600 * v.hour + 60 * v.minute + v.second for v in t])"
    if columns(item):
        return f"pass its columns that do, one by one, such as table[{columns(item)[0]!r}]"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            np.asarray(item, float)
    except (TypeError, ValueError):
        if what == "text" and _tell_dates(item):
            return 'make dates of them, t = np.array(t, "datetime64[s]"), and count from the first: (t - t[0]) / ' + (
                'np.timedelta64(1, "s")'
            )
        if what == "text":
            return "give each word a number: np.unique(x, return_inverse=True)[1]"
        return "make an array of floats of them, such as np.array([float(v) for v in x])"
    return "convert them with np.asarray(x, float), or .astype(float) of an array"


def _tell_dates(texts: Any) -> bool:
    """Return whether texts are dates as NumPy reads them, and no single numbers."""
    try:
        return bool(np.isfinite(np.array(texts, "datetime64[s]").astype(float)).all())
    except (TypeError, ValueError):
        return False


def masked_alike(loss: LossFunction, **sets: PyTree) -> tuple[LossFunction, list[PyTree]]:
    """Return the loss and several sets of data as `from_other_libraries` does: all with a mask if one has a mask."""
    masked = any(is_hidden(item) for data in sets.values() if isinstance(data, (tuple, list)) for item in data)
    pairs = [from_other_libraries(loss, data, name, masked=masked) for name, data in sets.items()]
    return pairs[0][0], [data for _, data in pairs]
