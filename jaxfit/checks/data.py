"""Data that no fit can be made of."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.checks.sigma import check_sigma
from jaxfit.checks.wording import path_name
from jaxfit.datasets import refuse_unit
from jaxfit.losses import ChiSquared, CrossEntropy, InputNoise, Residual, Sum, data_names
from jaxfit.markers import Axis, Call, is_array, is_axis, is_key
from jaxfit.problems import PRECISIONS


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
    if is_axis(data):
        each = f"jf.Axis({data.name!r}, xs), jf.Axis({data.name!r}, ys)"
        raise TypeError(
            f"{name} is {data!r}, but an axis stands at the arrays inside of the tuple, where one name moves them "
            f"together: write {name}=({each})"
        )
    if not isinstance(data, (tuple, list)):
        raise TypeError(
            f"{name} is {reprlib.repr(data)} ({type(data).__name__}), but it is the tuple handed to the loss after "
            f"params: write {name}=(x, y)"
        )
    return tuple(_as_item(item, f"{name}[{i}]") for i, item in enumerate(data))


def _as_item(item: Any, name: str) -> Any:
    refuse_unit(name, item)
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
