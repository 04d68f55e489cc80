"""Marks at the leaves of a problem: `Axis` sweeps a leaf, `Call` computes one. One reader finds them all.

A problem is any pytree (params, hyperparameters, data, keys). `read(tree)` lists its axes in the order of first
mention; `choose(tree, indices)` puts single values in their place; `lanes(tree)` takes a tree of traced axes apart into
what all lanes share and what each owns.
"""

from jaxfit.markers.axes import Axis, Place, as_number, is_axis
from jaxfit.markers.calls import Call, holds_call, is_call, resolve, seeds
from jaxfit.markers.kinds import is_array, is_key
from jaxfit.markers.reading import Dimension, Mention, choose, fill, lanes, read, stacked

__all__ = [
    "Axis", "Call", "Dimension", "Mention", "Place", "as_number", "choose", "fill", "holds_call", "is_array", "is_axis",
    "is_call", "is_key", "lanes", "read", "resolve", "seeds", "stacked",
]  # fmt: skip
