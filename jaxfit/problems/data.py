"""Checks of data, before anything compiles: shapes, numbers, standard deviations, and whole numbers that stay whole."""

from __future__ import annotations

import itertools
import reprlib
import warnings
from collections.abc import Callable, Container, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.losses import Joint, Loss, Sum, data_names, takes_key
from jaxfit.losses.base import is_masked, noise_model_of
from jaxfit.problems import PRECISIONS, convert, precision_context, row_blocks
from jaxfit.problems.axes import Axis, Call, is_array, is_axis, is_key, is_number, refuse_unit, resolve
from jaxfit.problems.dimensions import choose, read
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.foreign import as_array, as_tuple, check_numbers, columns, is_hidden
from jaxfit.problems.marks import kept_of, plain
from jaxfit.problems.messages import path_name, warn
from jaxfit.typing import ArrayLike, KeyLike, LossFunction, PyTree


def as_data(data: PyTree, name: str = "data") -> tuple:
    """Return the data as a tuple of arrays (or pytrees of them); lists, pandas objects and the like become arrays.

    Raises:
      TypeError: If it is not a tuple, or something in it is not numeric.
      ValueError: If a list is ragged.
    """
    if not isinstance(data, (tuple, list)) and columns(data):
        raise TypeError(
            f"{name} is one table ({type(data).__name__}), but it is the tuple handed to the loss after params; pass "
            f"its columns, such as {as_tuple(data, name)}, or ({name},) if the loss takes the whole of it as one array"
        )
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
        remedy = f"write {name}=(x, y)"
        if isinstance(data, dict) and data:
            each = ", ".join(f"{name}[{key!r}]" for key in data) + "," * (len(data) == 1)
            remedy = f"write {name}=({each}), in the order in which the loss takes them"
        raise TypeError(
            f"{name} is {reprlib.repr(data)} ({type(data).__name__}), but it is the tuple handed to the loss after "
            f"params: {remedy}"
        )
    return tuple(_as_item(item, f"{name}[{i}]") for i, item in enumerate(data))


def _as_item(item: PyTree, name: str) -> PyTree:
    refuse_unit(name, item)
    if isinstance(item, Axis):
        return _as_axis(item, name)
    if isinstance(item, jax.Array):
        return item if is_key(item) else _numeric(item, name)
    if isinstance(item, Call):
        raise TypeError(f"{name} is {item!r}, but a Call stands for params; call the function itself to make data")
    if isinstance(item, np.ma.MaskedArray) and is_hidden(item):
        raise TypeError(
            f"{name} is a masked array, whose mask would be lost; pass y.filled(0), and ~np.ma.getmaskarray(y) as the "
            f"last of the data, to a loss made with masked=True"
        )
    if isinstance(item, Mapping):
        return {key: _as_item(value, f"{name}[{key!r}]") for key, value in item.items()}
    if isinstance(item, (list, tuple)) and any(is_array(x) and np.ndim(x) or is_axis(x) for x in item):
        return type(item)(_as_item(x, f"{name}[{i}]") for i, x in enumerate(item))
    if isinstance(item, (list, tuple)):
        try:
            array = as_array(item, name)
        except ValueError:
            lengths = sorted({len(x) for x in item if hasattr(x, "__len__")})
            raise ValueError(f"{name} is ragged (rows of {lengths} entries); give rows of one length") from None
        return _numeric(array, name, item)
    arrays = is_array(item) or hasattr(item, "__array__") or hasattr(item, "__dlpack__")
    if item is None or arrays or isinstance(item, (int, float, complex, str)):
        return item if item is None else _numeric(item if is_array(item) else as_array(item, name), name, item)
    return jax.tree_util.tree_map_with_path(lambda p, x: _numeric(np.asarray(x), path_name(name, p), x), item)


def _as_axis(axis: Axis, name: str) -> Axis:
    """Return an axis of data; data sets that are lists of numbers become arrays, as a single one does."""
    values = axis.values
    if is_array(values) and not is_key(values):
        _numeric(values, name, axis)
    elif not is_array(values) and all(map(_is_list_of_numbers, values)):
        sets = [_as_item(value, f"{name} (value {i} of axis {axis.name!r})") for i, value in enumerate(values)]
        return Axis(axis.name, sets, axis.labels)
    return axis


def _is_list_of_numbers(value: object) -> bool:
    return type(value) in (list, tuple) and all(map(is_number, jax.tree.leaves(value)))


def _numeric(array: PyTree, name: str, item: object = None) -> PyTree:
    if array.dtype.kind not in "biuf":
        check_numbers(array, array if item is None else item, name)
    return array


def is_foreign(*data: PyTree) -> bool:
    """Return whether data may hold a mask or uncertainties, which `from_other_libraries` keeps."""
    items = [item for some in data if isinstance(some, (tuple, list)) for item in some]
    return not all(is_array(item) and type(item) is not np.ma.MaskedArray and item.dtype != object for item in items)


def check_data(
    data: tuple,
    loss: Callable,
    *,
    name: str = "data",
    precision: str = "float32",
    rows: bool = False,
    finite: bool = True,
) -> None:
    """Refuse data that cannot be fitted: empty, of unequal lengths, not finite. Traced leaves pass.

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
    if isinstance(loss, Joint) and len(data) == len(loss.names) and all(isinstance(own, tuple) for own in data):
        for i, (many, own) in enumerate(zip(loss.many, data, strict=True)):
            one = loss.member(i)
            label = f"{name}[{i}]"
            given = _as_lanes(own, one, label) if many else own
            check_data(given, one, name=label, precision=precision, rows=one.by_row, finite=finite)
        return
    names = data_names(loss)
    place = names.index("where") if is_masked(loss) and "where" in names and len(data) == len(names) else None
    where = None if place is None else data[place]
    mask = where.values if is_axis(where) else where
    if mask is not None and not isinstance(mask, jax.core.Tracer) and not np.asarray(mask).any():
        raise ValueError(
            f"{name}[{place}] (where) is False everywhere, so there are no data; mark at least one row True"
        )
    lengths = {}
    for i, item in enumerate(data):
        if isinstance(loss, Loss) and loss.takes_arrays and not (is_array(item) or is_axis(item)):
            raise TypeError(
                f"{name}[{i}]{f' ({names[i]})' if i < len(names) else ''} is a {type(item).__name__} of arrays, but "
                f"{loss} takes one array there, a row for each observation; join them: np.stack([a, b], axis=1), or "
                f"write a loss(params, *data) of your own"
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
                values = np.asarray(values)
                masked = where if place is not None and i < place else None
                counts = _counts(leaf, values, masked)
                if names[i : i + 1] == ("sigma",) and len(shape) == 2 and np.ndim(counts) == values.ndim:
                    counts = counts & np.swapaxes(counts, -1, -2)  # of a covariance, if it is one
                _check_numbers(label, values, precision, counts, finite)
    if rows and len({shape[0] for shape in lengths.values()}) > 1:
        raise ValueError(
            f"{name} differ in length: {', '.join(f'{label} has shape {shape}' for label, shape in lengths.items())}; "
            f"give every array one entry per data point"
        )
    if rows and not lengths:
        raise ValueError(f"{name} holds no array, so there are no points; pass {name}=(x, y)")
    if "sigma" in names and len(data) == len(names) and _has_sigma(loss):
        check_sigma(data, names, loss, name)


def _as_lanes(data: tuple, loss: Loss, name: str) -> tuple:
    """Return the data of many sets as an axis of them; as they are if they are swept themselves.

    Raises:
      ValueError: If nothing counts in one of the sets.
    """
    leaves = jax.tree.leaves(data, is_leaf=is_axis)
    if any(is_axis(x) or isinstance(x, jax.core.Tracer) or not np.ndim(x) for x in leaves):
        return data
    if is_masked(loss) and len(data) == len(loss.data_names):
        where = np.asarray(data[-1], bool)
        empty = np.flatnonzero(~where.reshape(len(where), -1).any(axis=1))
        if len(empty):
            raise ValueError(
                f"{name}[{len(data) - 1}] (where) is False everywhere in set {empty[0]}, so that its params are known "
                f"by nothing; leave the set out"
            )
    return jax.tree.map(lambda x: Axis("set", x), data)


def _has_sigma(loss: Callable) -> bool:
    """Return whether the loss, or a term of it, takes the standard deviations of the data."""
    return any(noise_model_of(term).sigma for term in (loss.terms if isinstance(loss, Sum) else (loss,)))


def _axis_array(axis: Axis, label: str) -> np.ndarray:
    shapes = [np.shape(v) for v in axis.values]
    if len(set(shapes)) > 1:
        odd = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        raise ValueError(
            f"{label}: axis {axis.name!r} holds data sets of different shape (value 0 has {shapes[0]}, value {odd} has "
            f"{shapes[odd]}); pad them to one length with jf.datasets.pad and use a loss with masked=True"
        )
    return _numeric(np.asarray([np.asarray(v) for v in axis.values]), label)


def _counts(leaf: PyTree, values: np.ndarray, where: PyTree) -> np.ndarray | np.bool_:
    """Return which values of a leaf of the data count in any lane, in a shape that broadcasts to them.

    Args:
      leaf: The leaf, which may be an axis.
      values: Its numbers, with the axis leading.
      where: The mask of its rows, which may be an axis too; of one name with the leaf's, lane i has both at i.
    """
    mask = where.values if is_axis(where) else where
    if mask is None or isinstance(mask, jax.core.Tracer):
        return np.True_
    mask = np.asarray(mask, bool)
    paired = is_axis(leaf) and is_axis(where) and leaf.name == where.name
    if is_axis(where) and not paired:
        mask = mask.any(axis=0)
    shared = is_axis(leaf) and not paired
    if shared:
        mask = mask[None]
    fits = mask.shape[shared:] == values.shape[shared : mask.ndim]
    return mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)) if fits else np.True_


def _check_numbers(label: str, values: np.ndarray, precision: str, counts: ArrayLike, finite: bool) -> None:
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
    count, first = _breaches(values, np.isfinite, counts)
    if count:
        at = first[0] if len(first) == 1 else first
        raise ValueError(
            f"{label} has {count} of {values.size} values that are not finite, the first at index {at} "
            f"({values[first]}); drop those rows, or keep them with a loss made with masked=True"
        )


def _breaches(values: np.ndarray, rule: Callable, counts: ArrayLike) -> tuple[int, tuple[int, ...]]:
    """Return how many values break a rule, and the index of the first, looking at some rows at once.

    Args:
      values: Any shape.
      rule: rule(rows): where it holds.
      counts: Broadcast to the values: which of them count.
    """
    count, first, counts = 0, (), np.broadcast_to(counts, values.shape)
    for at in row_blocks(values) if values.ndim else [...]:
        holds = rule(values[at])
        if holds.all():
            continue
        bad = ~holds & counts[at]
        if not count and bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            first = first and (first[0] + at.start, *first[1:])
        count += int(bad.sum())
    return count, first


def beyond_range(data: tuple, precision: str) -> str | None:
    """Return which data are so large or small that their squares overflow or underflow, and what to do; else None."""
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


def check_sigma(data: tuple, names: tuple[str, ...], loss: LossFunction, name: str = "data") -> None:
    """Refuse standard deviations that are not positive, and covariances that are none."""
    place = names.index("sigma")
    swept = is_axis(data[place])
    sigma = data[place].values if swept else data[place]
    y = data[1].values if is_axis(data[1]) else data[1]
    if isinstance(sigma, jax.core.Tracer) or isinstance(y, jax.core.Tracer):
        return
    sigma = np.asarray(sigma)
    shape, wanted = sigma.shape[swept:], np.shape(y)[is_axis(data[1]) :]
    where = data[names.index("where")] if "where" in names else None
    label = f"{name}[{place}] (sigma)"
    if shape == wanted * 2 and len(wanted) == 1:
        for one, mask in _covariances(data[place], sigma, where):
            _check_covariance(label, np.asarray(one[np.ix_(mask, mask)], np.float64))
        return
    if shape != wanted:
        matrix = f", or one covariance matrix of shape {wanted * 2}" if len(wanted) == 1 else ""
        raise ValueError(
            f"{label} has shape {shape} and y {wanted}; give one standard deviation for each entry of y{matrix}; for "
            f"one shared by all pass np.full({wanted}, sigma)"
        )
    count, first = _breaches(sigma, lambda rows: rows > 0, _counts(data[place], sigma, where))
    if count:
        raise ValueError(
            f"{label} has {count} of {sigma.size} values that are not positive, the first at index "
            f"{first[0] if len(first) == 1 else first} ({float(sigma[first]):g}); a standard deviation must be "
            f"positive: drop those points, or mask them with masked=True"
        )


def _covariances(leaf: PyTree, sigma: np.ndarray, where: PyTree) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each covariance matrix with each mask of its rows that some lane has, once."""
    matrices = sigma if is_axis(leaf) else sigma[None]
    masks = where.values if is_axis(where) else [np.ones(sigma.shape[-1], bool) if where is None else where]
    masks = np.asarray(masks, bool)
    if is_axis(leaf) and is_axis(where) and leaf.name == where.name:
        yield from zip(matrices, masks, strict=True)
    else:
        yield from itertools.product(matrices, np.unique(masks, axis=0))


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


def floating(data: tuple, call: Callable, precision: str, name: str = "data") -> tuple:
    """Return the data with whole and boolean arrays made floating, so that no arithmetic on them can overflow.

    An array stays whole if `call(data)` fails (or warns) with it floating: an index, a label, a mask; with as many
    bits as the precision has. Where one is an index and a number too, x.astype(int) at the index makes it floating
    elsewhere.

    Args:
      data: As `as_data` gives it; leaves may be axes.
      call: The loss as a function of the data.
      precision: Of the run.
      name: "data" or "validation".
    """
    leaves, structure = jax.tree.flatten(data, is_leaf=is_axis)
    whole_indices = given = [i for i, x in enumerate(leaves) if _is_whole(x)]
    if not whole_indices:
        return data

    def warnings_with(as_floats_at: Container[int]) -> set[str] | None:
        """Return what the call warns of with these leaves floating; None if it fails."""
        try:
            like = [shape_like(x, precision, as_float=i in as_floats_at) for i, x in enumerate(leaves)]
            with (
                precision_context(precision),
                enclosed_in_precision(call),
                warnings.catch_warnings(record=True) as warned,
            ):
                warnings.simplefilter("always")
                jax.eval_shape(lambda leaves: call(jax.tree.unflatten(structure, leaves)), like)
        except Exception:  # it does not take them so
            return None
        return {str(warning.message) for warning in warned}

    def works(as_floats_at: Container[int]) -> bool:
        new_warnings = warnings_with(as_floats_at)
        if not new_warnings:
            return new_warnings is not None
        anyway = warnings_with(())
        return anyway is None or new_warnings <= anyway

    if not works(whole_indices):
        whole_indices = [i for i in whole_indices if len(whole_indices) > 1 and works([i])]
    kept = [i for i in given if i not in whole_indices]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(data, is_leaf=is_axis)]
    for i in whole_indices:
        _say_rounding(f"{name}[{paths[i][0].idx}]{path_name('', paths[i][1:])}", leaves[i], precision)
        leaves[i] = _mapped(lambda x: _cast(x, float, np.float64), leaves[i])
    wide = np.dtype(np.int64 if precision == "float64" else np.int32)
    for i in kept:
        leaves[i] = _mapped(
            lambda x: _cast(x, wide) if x.dtype.kind in "iu" and x.dtype.itemsize < wide.itemsize else x, leaves[i]
        )
    return jax.tree.unflatten(structure, leaves)


def floating_of_loss(
    loss: Callable, params: PyTree, data: tuple, key: KeyLike | None, precision: str, name: str = "data"
) -> tuple:
    """Return the data of a run as `floating` makes them; axes, calls and marks may stand at the loss's arguments."""
    if precision == "float32":
        _say_merged(data, name)
    return floating(data, call_of(loss, params, key), precision, name)


TOLD_APART = 1000  # numbers of float32 between the least and the greatest of some data, below which it is said
LOOKED_AT = 1_000_000  # of some data, whether they are rounded


def _say_merged(data: tuple, name: str) -> None:
    """Warn of numbers so close to each other, for their size, that float32 hardly tells them apart."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(data, is_leaf=is_axis):
        values = leaf.values if is_axis(leaf) else leaf
        if not isinstance(values, np.ndarray) or values.dtype != np.float64 or not values.size:
            continue
        low, high = float(values.min()), float(values.max())
        top = max(abs(low), abs(high))
        with np.errstate(all="ignore"):
            apart = float(np.spacing(np.float32(top))) if top > np.finfo(np.float32).tiny else 0
            close = 0 < high - low < TOLD_APART * apart
            some = values.flat[:LOOKED_AT] if close else values.flat[:0]  # the array may be one on disk
            rounded = (some.astype(np.float32) != some).any()
        if rounded:
            warn(
                f"{name}[{path[0].idx}]{path_name('', path[1:])} lies between {low:.10g} and {high:.10g}, where "
                f'numbers of float32 are {apart:.3g} apart; subtract what they share, or pass precision="float64"'
            )


def _floated(x: object) -> object:
    return x if kept_of(x) else jnp.asarray(x, float)  # pyright: ignore[reportArgumentType]


def call_of(loss: Callable, params: PyTree, key: KeyLike | None) -> Callable[[tuple], None]:
    """Return the loss of a run as a function of the data, at the first value of each axis."""

    def call(given):
        for one in loss.values if is_axis(loss) else (loss,):
            first, start = _first((one, params))
            own = {"key": jax.random.key(0)} if key is not None and takes_key(first) else {}
            first(jax.tree.map(_floated, plain(resolve(start))), *given, **own)

    return call


def _first(tree: PyTree) -> PyTree:
    """Return the tree with the first value of each axis."""
    return choose(tree, dict.fromkeys(read({"": tree}), 0))


def _is_whole(x: object) -> bool:
    if isinstance(x, Axis):
        values = [x.values] if is_array(x.values) else jax.tree.leaves(x.values)
        return bool(values) and all(map(_is_whole, values))
    return is_array(x) and not is_key(x) and x.dtype.kind in "biu"


def shape_like(x: PyTree, precision: str, *, as_float: bool) -> PyTree:
    """Return the shape of a leaf, or of the first value of an axis, in the precision."""
    if isinstance(x, Axis):
        first = jax.tree.map(lambda x: x[:1], x.values) if is_array(x.values) else x.values[0]
        like = jax.tree.map(lambda x: shape_like(x, precision, as_float=as_float), first)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like) if is_array(x.values) else like
    if is_key(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    dtype = PRECISIONS[precision] if as_float else convert(np.zeros((), x.dtype), precision).dtype
    return jax.ShapeDtypeStruct(np.shape(x), dtype)


Range = tuple[int, int]  # the least and the greatest
SMALL = 215  # up to here no fourth power leaves int32: labels and small indices are not looked at


def has_large_indices(data: tuple) -> bool:
    """Return whether data that stay whole are so large that arithmetic on them may leave int32."""
    leaves = jax.tree.leaves(data, is_leaf=is_axis)
    ranges = [range_of(x.values if isinstance(x, Axis) else x) for x in leaves]
    return any(found and max(map(abs, found)) > SMALL for found in ranges)


def range_of(value: PyTree) -> Range | None:
    """Return the range of whole numbers that are known; None of any other value."""
    if isinstance(value, jax.core.Tracer) or not isinstance(value, (np.ndarray, np.generic, jax.Array, int)):
        return None
    dtype = np.asarray(value).dtype if isinstance(value, int) else value.dtype
    if getattr(dtype, "kind", "") not in {"b", "i", "u"} or not np.size(value):
        return None
    return int(np.min(value)), int(np.max(value))


def _mapped(function: Callable, x: PyTree) -> PyTree:
    """Return the function of a leaf, or of the values of an axis."""
    return Axis(x.name, jax.tree.map(function, x.values), x.labels) if isinstance(x, Axis) else function(x)


def _cast(x: PyTree, traced: PyTree, concrete: PyTree = None) -> PyTree:
    return x.astype(traced) if isinstance(x, jax.core.Tracer) else np.asarray(x, concrete or traced)


def _say_rounding(label: str, x: PyTree, precision: str) -> None:
    """Warn of whole numbers that the precision does not hold."""
    for values in jax.tree.leaves(x.values) if isinstance(x, Axis) else [x]:
        if isinstance(values, jax.core.Tracer) or values.dtype.itemsize < 4:
            continue
        flat = np.ravel(values)
        with np.errstate(invalid="ignore"):
            rounded = flat.astype(PRECISIONS[precision])
            lost = np.flatnonzero(rounded.astype(flat.dtype) != flat)
        if lost.size:
            remedy = "subtract what they share" + (', or pass precision="float64"' * (precision == "float32"))
            warn(
                f"{label} holds whole numbers that {precision} rounds, such as {flat[lost[0]]:,} to "
                f"{int(rounded[lost[0]]):,}; {remedy}"
            )
