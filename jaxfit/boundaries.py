"""The boundary between the labels of an array's cells, found without asking for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def trace_boundary(evaluate: Callable, sizes: Sequence[int], axes: Sequence[int], depth: int) -> np.ndarray:
    """Labels of an array's cells, only those evaluated that have a neighbor of another label, and a lattice.

    Args:
      evaluate: Takes flat numbers of cells, returns a label for each.
      sizes: Of the array.
      axes: Those with neighbors; the others are so many arrays side by side.
      depth: The lattice has every 2^depth-th cell.

    Returns:
      The array of labels. A region of one label that is joined by neighbors, diagonal ones too, is complete if any cell
      of it was evaluated.
    """
    labels, known = None, np.zeros(sizes, bool)
    for stride in (2**k for k in reversed(range(depth + 1))):
        lattice = np.ix_(*(points(size, stride if i in axes else 1) for i, size in enumerate(sizes)))
        while True:
            wanted = np.zeros(sizes, bool)
            wanted[lattice] = True if labels is None else mixed(labels[lattice], axes) & ~known[lattice]
            numbers = np.flatnonzero(wanted)
            if not len(numbers):
                break
            found = np.asarray(evaluate(numbers))
            labels = np.zeros(sizes, found.dtype) if labels is None else labels.astype(np.result_type(labels, found))
            labels.flat[numbers] = found
            known.flat[numbers] = True
            labels = labels.ravel()[nearest(known, axes)]
    return labels  # pyright: ignore[reportReturnType] (the first lattice is never empty)


def points(size: int, stride: int) -> np.ndarray:
    """Every so many of an axis, and its last."""
    return np.unique(np.append(np.arange(0, size, stride), size - 1))


def nearest(known: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The flat number of the known cell nearest to each along `axes`, at the same place of the others."""
    from scipy.ndimage import distance_transform_edt

    order = [*(i for i in range(known.ndim) if i not in axes), *axes]
    inner = [known.shape[i] for i in axes]
    turned = np.arange(known.size).reshape(known.shape).transpose(order)
    found = []
    for cells in turned.reshape(-1, *inner):
        index: Any = distance_transform_edt(~known.ravel()[cells], return_distances=False, return_indices=True)
        found.append(cells[tuple(index)])
    return np.reshape(found, turned.shape).transpose(np.argsort(order))


def interpolate(
    values: np.ndarray, known: np.ndarray, labels: np.ndarray, axes: Sequence[int], depth: int
) -> np.ndarray:
    """Values linear between the cells of the same label on ever finer lattices, as `trace_boundary` went through them.

    Args:
      values: What every cell has now; those of known ones stay, as do those between which there is no finite number.
      known: Which cells were evaluated.
      labels: Of all cells.
      axes, depth: As they were for `trace_boundary`.
    """
    found = values.astype(float)
    for stride in (2**k for k in reversed(range(depth))):
        lattice = [points(size, 2 * stride if i in axes else 1) for i, size in enumerate(found.shape)]
        for axis in axes:
            coarse = lattice[axis]
            fine = points(found.shape[axis], stride)
            new = np.setdiff1d(fine, coarse)
            low, high = coarse[np.searchsorted(coarse, new) - 1], coarse[np.searchsorted(coarse, new)]
            here, below, above = (np.ix_(*lattice[:axis], at, *lattice[axis + 1 :]) for at in (new, low, high))
            part = ((new - low) / (high - low)).reshape([-1 if i == axis else 1 for i in range(found.ndim)])
            with np.errstate(invalid="ignore", over="ignore"):
                between = (1 - part) * found[below] + part * found[above]
            same = (labels[below] == labels[here]) & (labels[above] == labels[here]) & ~known[here]
            found[here] = np.where(same & np.isfinite(between), between, found[here])
            lattice[axis] = fine
    return found


def mixed(labels: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Where one of the neighbors along `axes`, diagonal ones too, has another label."""
    out = np.zeros(labels.shape, bool)
    for shift in _neighbors(len(axes)):
        here, there = [slice(None)] * labels.ndim, [slice(None)] * labels.ndim
        for axis, step in zip(axes, shift, strict=True):
            here[axis] = slice(max(step, 0), labels.shape[axis] + min(step, 0))
            there[axis] = slice(max(-step, 0), labels.shape[axis] + min(-step, 0))
        differs = labels[tuple(here)] != labels[tuple(there)]
        out[tuple(here)] |= differs
        out[tuple(there)] |= differs
    return out


def _neighbors(count: int) -> Iterator[tuple[int, ...]]:
    """One of each pair of opposite directions."""
    return (shift for shift in itertools.product((-1, 0, 1), repeat=count) if shift > (0,) * count)
