"""Standard deviations and covariances of measurements that are none."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxfit.markers import is_axis


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
