"""What is seen of a run that has ended, judged once: `print`, `report` and `explain` only word it differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.losses import takes_key
from jaxfit.losses.base import is_masked
from jaxfit.problems.axes import holds_call
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.marks import free, plain, put, unflattened
from jaxfit.problems.problems import ENDED_WELL, Problem, convert_all, precision_context
from jaxfit.typing import ArrayLike, PyTree

if TYPE_CHECKING:
    from jaxfit.verbs.results import Fit

STANDS = 1e-3  # a share of all it has fallen: less in the last fifth is standing still
FAR = 1e4  # times its start: a param that went farther may have run away
FLAT = 1e-4  # of the loss: less for a tenth of such a param, and it no longer depends on it


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
    """Return the properties of a loss curve, from at least ten finite losses."""
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
    """Return the lag of the largest autocorrelation after its first negative value, if it is above 0.5."""
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


def swings(seen: Curve) -> bool:
    """Return whether the loss oscillates instead of settling."""
    return seen.rises > 0.15 and seen.swing > 1e-2


def pace(fit: Fit) -> str | None:
    """Return whether the loss "falls", "stands" or "swings" at the end of a run, or None if it is not clear.

    It cannot of less than ten records, or where every step sees other data.
    """
    history, training = fit.history, fit.training
    if history is None or "loss" not in history or np.ndim(history.loss) != 1:
        return None
    if training is not None and (training.batches is not None or takes_key(training.problem.loss)):
        return None
    seen = curve(history.loss)
    if seen is None:
        return "stands" if len(history.loss) > 2 and np.ptp(history.loss[-3:]) == 0 else None
    if swings(seen) or seen.recent_fall <= -STANDS:
        return "swings"
    return "stands" if seen.recent_fall < STANDS else "falls"


def no_data(fit: Fit) -> str:
    """Return an error text if the mask excludes all rows, otherwise ""."""
    if fit.problem is None or not is_masked(fit.problem.loss):
        return ""
    if isinstance(fit.problem.data[-1], jax.core.Tracer) or np.asarray(fit.problem.data[-1]).any():
        return ""
    return "where is False everywhere, so that there are no data"


class Runaway(NamedTuple):
    """A param that went far and to no end."""

    name: str
    place: int  # among the free numbers, in the order of their leaves
    start: float
    end: float


def runaways(fit: Fit) -> list[Runaway]:
    """The params that have gone ten thousand times as far as their start, to where the loss no longer depends on them.

    So does tau in exp(-x / tau) if it starts with the wrong sign: the least loss is at infinity. That the loss does not
    depend on a param is seen by its value at a tenth of it.
    """
    problem = fit.problem
    if problem is None or fit.status not in ENDED_WELL or holds_call(problem.params) or takes_key(problem.loss):
        return []
    leaves = jax.tree_util.tree_leaves_with_path(free(problem.params))
    ends = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fit.params)}
    if any(isinstance(x, jax.core.Tracer) for x in (*ends.values(), *(leaf for _, leaf in leaves))):
        return []
    names = [name for path, leaf in leaves for name in _names(path, leaf)]
    start = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for _, leaf in leaves] or [np.zeros(0)])
    end = np.concatenate(
        [np.ravel(np.asarray(ends[jax.tree_util.keystr(path)], np.float64)) for path, _ in leaves] or [np.zeros(0)]
    )
    far = np.flatnonzero(np.isfinite(end) & (np.abs(end) > FAR * np.where(start == 0, 1, np.abs(start))))
    if not len(far) or not np.isfinite(fit.loss):
        return []

    def loss_of(point):
        return loss_at(problem, fit.precision, start_at(problem, point))

    here, began = loss_of(end), 0.0 if fit.start_loss is None else abs(float(fit.start_loss))

    def flat(which):
        there = end.copy()
        there[which] /= 10
        return abs(loss_of(there) - here) <= FLAT * (abs(here) + FLAT * began)

    found = [i for i in far if flat([i])] or (list(far) if flat(far) else [])
    return [Runaway(names[i], int(i), float(start[i]), float(end[i])) for i in found]


def _names(path: tuple, leaf: ArrayLike) -> list[str]:
    name = jax.tree_util.keystr(path, simple=True, separator=".") or "params"
    if np.ndim(leaf) == 0:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*np.shape(leaf))]


def start_at(problem: Problem, point: np.ndarray) -> PyTree:
    """Return the marked start of the problem with its free numbers replaced, in the order of their leaves."""
    values = jax.tree.map(lambda x: x[()], unflattened(np.asarray(point, np.float64), free(problem.params)))
    return put(problem.params, values)


def loss_at(problem: Problem, precision: str | None, marked: PyTree) -> float:
    """Return the loss of all data at the values of a marked tree, in the precision of the run."""
    precision = precision or "float32"
    with precision_context(precision), enclosed_in_precision(problem.loss), np.errstate(all="ignore"):
        params, data = (jax.tree.map(jnp.asarray, convert_all(x, precision)) for x in (plain(marked), problem.data))
        return float(jax.jit(lambda params, data: problem.loss(params, *data))(params, data))
