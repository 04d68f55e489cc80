"""What the curve of a loss gives away: whether it still falls, stands, swings or jumps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Of the losses of a run."""

    first: float
    last: float
    least: float
    recent_fall: float  # over the last fifth, of medians, as a share of all that it has fallen
    swing: float  # the spread of the last fifth, as a share of its mean height above the least ever
    period: int | None  # steps, if it swings regularly
    rises: float  # the share of rising steps in the last fifth


def curve(losses: np.ndarray) -> Curve | None:
    """The symptoms, from at least ten finite losses."""
    losses = np.asarray(losses, float)
    losses = losses[np.isfinite(losses)]
    if len(losses) < 10:
        return None
    tail = losses[-max(5, len(losses) // 5) :]
    half = len(tail) // 2
    early, late = np.median(tail[:half]), np.median(tail[half:])
    fallen = max(losses[0] - losses.min(), 1e-300)
    height = max(tail.mean() - losses.min(), 0.1 * abs(tail.mean()), 1e-300)
    return Curve(
        float(losses[0]),
        float(losses[-1]),
        float(losses.min()),
        float((early - late) / fallen),
        float(np.ptp(tail) / height),
        _period(tail),
        float(np.mean(np.diff(tail) > 0)),
    )


def _period(tail: np.ndarray) -> int | None:
    """The lag of the largest autocorrelation after its first dip, if it is above 0.5."""
    centered = tail - tail.mean()
    power = float(centered @ centered)
    if len(tail) < 8 or power <= (1e-12 * max(abs(tail.mean()), 1e-300)) ** 2:
        return None
    size = len(tail)
    spectrum = np.abs(np.fft.rfft(centered, 2 * size)) ** 2
    correlation = np.fft.irfft(spectrum)[: size // 2] / power * size / np.arange(size, size - size // 2, -1)
    dips = np.flatnonzero(correlation < 0)
    if not len(dips) or dips[0] + 1 >= len(correlation):
        return None
    lag = int(dips[0] + np.argmax(correlation[dips[0] :]))
    return lag if correlation[lag] > 0.5 else None
