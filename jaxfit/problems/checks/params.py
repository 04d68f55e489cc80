"""Params that no gradient can move."""

from __future__ import annotations

import reprlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.datasets import refuse_unit
from jaxfit.problems.axes import Axis, is_array
from jaxfit.problems.marks import Bounded, Fixed, Tied, check_bounds, free, is_mark
from jaxfit.problems.messages import path_name
from jaxfit.problems.problems import PRECISIONS
from jaxfit.problems.reading import Call
from jaxfit.typing import PyTree


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
        refuse_unit(name, x)
        if isinstance(x, (str, bytes)):
            raise TypeError(
                f"{name} is the text {x!r}, but params are numbers; keep settings out of them, in the model itself"
            )
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{name} is a PRNG key, but params are numbers; run the initializer with it, jf.Call(init, key=key), "
                f"or keep it out of them (with Flax NNX: graph, params, rest = nnx.split(model, nnx.Param, ...))"
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
                f"{name} is boolean, but params are floats; a switch belongs in the model, not in its params, and "
                f"whether a param moves is told by its mark: jf.Fixed(value)"
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


def check_free(params: PyTree) -> None:
    """Refuses params of which none may move."""
    if not jax.tree.leaves(free(params), is_leaf=lambda x: isinstance(x, (Axis, Call))):
        raise ValueError(
            "params are all fixed or tied, so that nothing can move; leave one free, or call the loss itself"
        )
