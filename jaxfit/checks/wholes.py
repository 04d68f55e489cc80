"""Whole numbers among the data: floating, unless a function takes them only as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.checks.wording import path_name, warn
from jaxfit.enclosed import enclosed_in_precision
from jaxfit.losses import takes_key
from jaxfit.markers import Axis, choose, is_array, is_axis, is_key, read, resolve
from jaxfit.parameters import plain
from jaxfit.problems import PRECISIONS, convert, precision_context

PyTree = Any


def floating(data: tuple, call: Callable, precision: str, name: str = "data") -> tuple:
    """The data with whole and boolean arrays made floating, so that no arithmetic on them can overflow.

    An array stays whole if `call(data)` fails (or warns) with it floating: an index, a label, a mask; with 32 bits at
    least. Where one is an index and a number too, x.astype(int) at the index makes it floating elsewhere.

    Args:
      data: As `as_data` gives it; leaves may be axes.
      call: The loss as a function of the data.
      precision: Of the run.
      name: "data" or "validation".
    """
    leaves, structure = jax.tree.flatten(data, is_leaf=is_axis)
    whole = given = [i for i, x in enumerate(leaves) if _is_whole(x)]
    if not whole:
        return data

    def told(made: Container[int]) -> set[str] | None:
        """What the call warns of with these leaves floating; None if it fails."""
        try:
            like = [_like(x, precision, made=i in made) for i, x in enumerate(leaves)]
            with (
                precision_context(precision),
                enclosed_in_precision(call),
                warnings.catch_warnings(record=True) as warned,
            ):
                warnings.simplefilter("always")
                jax.eval_shape(lambda leaves: call(jax.tree.unflatten(structure, leaves)), like)
        except Exception:  # whatever it raises, it does not take them so
            return None
        return {str(warning.message) for warning in warned}

    def works(made: Container[int]) -> bool:
        found = told(made)
        if not found:
            return found is not None
        anyway = told(())
        return anyway is None or found <= anyway

    if not works(whole):
        whole = [i for i in whole if works([i])]
    kept = [i for i in given if i not in whole]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(data, is_leaf=is_axis)]
    for i in whole:
        _say_rounding(f"{name}[{paths[i][0].idx}]{path_name('', paths[i][1:])}", leaves[i], precision)
        leaves[i] = _mapped(lambda x: _cast(x, float, np.float64), leaves[i])
    for i in kept:
        leaves[i] = _mapped(
            lambda x: _cast(x, np.int32) if x.dtype.kind in "iu" and x.dtype.itemsize < 4 else x, leaves[i]
        )
    return jax.tree.unflatten(structure, leaves)


def floating_of_loss(
    loss: Callable, params: PyTree, data: tuple, key: Any, precision: str, name: str = "data"
) -> tuple:
    """`floating` for the loss of a run, at whose arguments axes, calls and marks may stand."""

    def call(given):
        for one in loss.values if is_axis(loss) else (loss,):
            first, start = _first((one, params))
            own = {"key": jax.random.key(0)} if key is not None and takes_key(first) else {}
            first(jax.tree.map(lambda x: jnp.asarray(x, float), plain(resolve(start))), *given, **own)

    return floating(data, call, precision, name)


def _first(tree: PyTree) -> PyTree:
    """The tree with the first value of each axis."""
    return choose(tree, dict.fromkeys(read({"": tree}), 0))


def _is_whole(x: Any) -> bool:
    if isinstance(x, Axis):
        values = [x.values] if is_array(x.values) else jax.tree.leaves(x.values)
        return bool(values) and all(map(_is_whole, values))
    return is_array(x) and not is_key(x) and x.dtype.kind in "biu"


def _like(x: Any, precision: str, *, made: bool) -> Any:
    """The shape of a leaf, or of the first value of an axis, in the precision."""
    if isinstance(x, Axis):
        first = jax.tree.map(lambda x: x[:1], x.values) if is_array(x.values) else x.values[0]
        like = jax.tree.map(lambda x: _like(x, precision, made=made), first)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), like) if is_array(x.values) else like
    if is_key(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    dtype = PRECISIONS[precision] if made else convert(np.zeros((), x.dtype), precision).dtype
    return jax.ShapeDtypeStruct(np.shape(x), dtype)


def _mapped(function: Callable, x: Any) -> Any:
    """The function of a leaf, or of the values of an axis."""
    return Axis(x.name, jax.tree.map(function, x.values), x.labels) if isinstance(x, Axis) else function(x)


def _cast(x: Any, traced: Any, concrete: Any = None) -> Any:
    return x.astype(traced) if isinstance(x, jax.core.Tracer) else np.asarray(x, concrete or traced)


def _say_rounding(label: str, x: Any, precision: str) -> None:
    """Warns of whole numbers that the precision does not hold."""
    for values in jax.tree.leaves(x.values) if isinstance(x, Axis) else [x]:
        if isinstance(values, jax.core.Tracer) or values.dtype.itemsize < 4:
            continue
        whole = np.ravel(values)
        with np.errstate(invalid="ignore"):
            rounded = whole.astype(PRECISIONS[precision])
            lost = np.flatnonzero(rounded.astype(whole.dtype) != whole)
        if lost.size:
            remedy = "subtract what they share" + (', or pass precision="float64"' * (precision == "float32"))
            warn(
                f"{label} holds whole numbers that {precision} rounds, such as {whole[lost[0]]:,} to "
                f"{int(rounded[lost[0]]):,}; {remedy}"
            )
