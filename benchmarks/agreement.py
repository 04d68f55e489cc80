"""Peers must have done the same work before they are timed."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

PyTree = Any


def agree(ours: PyTree, theirs: PyTree, *, rtol: float = 1e-3, atol: float = 1e-6, what: str) -> None:
    """Nothing, if all numbers are equal to within rounding.

    Raises:
      AssertionError: Otherwise, with the places where they differ; also if there are NaNs.
    """
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        place = f"{what}{jax.tree_util.keystr(path)}: the contestants' results differ"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, equal_nan=False, err_msg=place)
