"""Student's t, F and the beta distribution, of a few numbers in plain Python, of many by SciPy.

To import `scipy.special` takes about as long as a fit of a curve and its report.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from jaxfit.typing import ArrayLike

FEW = 16  # numbers
LARGE = 5000.0  # degrees of freedom from which an expansion has all digits


def t_quantile(freedom: ArrayLike, share: float) -> np.ndarray:
    """Return where Student's t has this share below it; normal for infinitely many degrees of freedom."""
    normal = NormalDist().inv_cdf(share)
    finite = np.where(np.isinf(freedom), 1.0, freedom)
    return np.where(np.isinf(freedom), normal, _each(_t_quantile, "stdtrit", finite, share))


def f_above(more: ArrayLike, rest: ArrayLike, f: ArrayLike) -> np.ndarray:
    """Return the probability of a larger F of more and rest degrees of freedom."""
    return _each(_f_above, "fdtrc", more, rest, f)


def f_quantile(more: ArrayLike, rest: ArrayLike, share: ArrayLike) -> np.ndarray:
    """Return where F has this share below it."""
    return _each(_f_quantile, "fdtri", more, rest, share)


def chi_squared_above(freedom: ArrayLike, chi: ArrayLike) -> np.ndarray:
    """Return the probability of a larger chi-squared."""
    from scipy import special

    return special.chdtrc(freedom, chi)


def beta_below(a: ArrayLike, b: ArrayLike, x: ArrayLike) -> np.ndarray:
    """Return the regularized incomplete beta function I_x(a, b)."""
    return _each(_beta_below, "betainc", a, b, x)


def _each(function: Callable[..., float], name: str, *arguments: ArrayLike) -> np.ndarray:
    """Return a function of broadcast arrays, by the one of this name in `scipy.special` if they are large."""
    arrays = np.broadcast_arrays(*(np.asarray(x, float) for x in arguments))
    if arrays[0].size > FEW or max((float(np.max(x)) for x in arrays if x.size), default=0.0) > 1e5:
        from scipy import special

        return getattr(special, name)(*arguments)
    values = [function(*(float(x) for x in row)) for row in zip(*(x.ravel() for x in arrays), strict=True)]
    return np.array(values).reshape(arrays[0].shape)


def _t_quantile(freedom: float, share: float) -> float:
    if not (freedom > 0 and 0 < share < 1):
        return math.nan
    if share < 0.5:
        return -_t_quantile(freedom, 1 - share)
    if freedom >= LARGE:  # Fisher and Cornish (1960), doi:10.1080/00401706.1960.10489895
        z, v = NormalDist().inv_cdf(share), freedom
        terms = (
            z,
            (z**3 + z) / 4,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        )
        return sum(term / v**power for power, term in enumerate(terms))
    above = 2 * (1 - share)
    if above < 0.5:  # so that small numbers are those that are solved for
        x = _beta_quantile(freedom / 2, 0.5, above)
        return math.sqrt(freedom * (1 - x) / x) if x > 0 else math.inf
    x = _beta_quantile(0.5, freedom / 2, 2 * share - 1)
    return math.sqrt(freedom * x / (1 - x))


def _f_above(more: float, rest: float, f: float) -> float:
    if not (more > 0 and rest > 0 and f >= 0):
        return math.nan
    return _beta_below(rest / 2, more / 2, rest / (rest + more * f))


def _f_quantile(more: float, rest: float, share: float) -> float:
    if not (more > 0 and rest > 0 and 0 < share < 1):
        return math.nan
    x = _beta_quantile(more / 2, rest / 2, share)
    return rest * x / (more * (1 - x)) if x < 1 else math.inf


def _beta_below(a: float, b: float, x: float) -> float:
    """Return I_x(a, b) by the continued fraction 8.17.22 of https://dlmf.nist.gov/8.17."""
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        return math.nan
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_below(b, a, 1 - x)
    value, top, below = 1.0, 1.0, 0.0  # of 1 + d1 / (1 + d2 / ...), by the way of Lentz
    for m in range(10_000):
        for d in (
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
            (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2)),
        ):
            top, below = 1 + d / top, 1 / (1 + d * below)
            value *= top * below
        if abs(top * below - 1) <= 2e-16:
            break
    return math.exp(_log_density(a, b, x) + math.log(x) + math.log1p(-x)) / (a * value)


def _log_density(a: float, b: float, x: float) -> float:
    return math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)


def _beta_quantile(a: float, b: float, share: float) -> float:
    """Return x with I_x(a, b) = share by Newton's steps in log(x), or halves of the interval."""
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(200):
        miss = _beta_below(a, b, x) - share
        low, high = (low, x) if miss > 0 else (x, high)
        step = miss * math.exp(min(700.0, -_log_density(a, b, x) - math.log(x)))
        new = x * math.exp(-step) if abs(step) < 50 else high
        if not low < new < high:
            new = (low + high) / 2 if low > 0 else high / 16
        if abs(new - x) <= 4e-16 * x:
            return new
        x = new
    return x
