"""Numbers and places in words."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxfit.explanations.views import View
from jaxfit.markers import holds_call, resolve
from jaxfit.parameters import free
from jaxfit.problems import Problem


def marks_of(problem: Problem) -> Any:
    """The start with its marks, a call of it run."""
    return resolve(problem.params) if holds_call(problem.params) else problem.params


def times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.3g} times"


def count(steps: float) -> str:
    return f"{steps:,.0f}" if steps < 1e9 else "more than a billion"


def place(problem: Problem, where: np.ndarray) -> str:
    """The leaves in which there is anything of a mask over the free params."""
    at, names = 0, []
    for path, leaf in jax.tree_util.tree_leaves_with_path(free(marks_of(problem))):
        size = int(np.size(leaf))
        if where[at : at + size].any():
            names.append(jax.tree_util.keystr(path, simple=True, separator=".") or "params")
        at += size
    return ", ".join(names[:6]) + (" and others" if len(names) > 6 else "")


def slopes(problem: Problem, here: View) -> dict[str, float]:
    """The root mean square of the gradient in each leaf."""
    at, found = 0, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(free(problem.params)):
        size = int(np.size(leaf))
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
        found[name] = float(np.sqrt(np.mean(here.gradient[at : at + size] ** 2)))
        at += size
    return found


def scales(problem: Problem) -> str:
    """What is uneven in the columns of the first data, in words."""
    if not problem.data or np.ndim(problem.data[0]) not in (1, 2) or not np.size(problem.data[0]):
        return ""
    x = np.asarray(problem.data[0], float)
    columns = x[:, None] if x.ndim == 1 else x
    if columns.shape[0] < 2 or not np.isfinite(columns).all():
        return ""
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    if len(sizes) > 1 and sizes.min() > 0 and sizes.max() / sizes.min() > 10:
        large, small = int(np.argmax(sizes)), int(np.argmin(sizes))
        return (
            f": in data[0], column {large} is {sizes.max() / sizes.min():,.0f} times as large as column {small}; "
            f"jf.datasets.standardize would even them out"
        )
    if x.ndim == 1 and (sizes[0] > 10 or sizes[0] < 0.1 or abs(x.mean()) > 3 * x.std()):
        return (
            f": data[0] lies around {x.mean():.3g} ± {x.std():.2g}; jf.datasets.standardize would center and scale it"
        )
    return ""
