"""The summary of a run: its loss curve and params, judged once, and the text of `print` with the next thing to do.

`report` and `explain` word the same judgments differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.losses import Binomial, takes_key
from jaxfit.losses.base import is_masked, noise_model_of
from jaxfit.optimizers.stability import is_concrete_number, limit_from_growth
from jaxfit.problems import ENDED_WELL, PRECISIONS, Problem, Status, convert_all, precision_context
from jaxfit.problems.axes import holds_call
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.marks import Bounded, flattened, free, is_mark, put, released, unflattened, values_of, without_kept
from jaxfit.typing import ArrayLike, PyTree

if TYPE_CHECKING:
    from jaxfit.verbs.results import Fit

STANDS = 1e-3  # a share of all it has fallen: less in the last fifth is standing still,
HALVES = 0.5  # unless that was so much of what was left, as after a start far away
FAR = 1e4  # times its start: a param that went farther may have run away
GONE = 1e8  # times its start, or 1: one that went farther has, if no run settles there
PROBED = 64  # params up to which `print` looks for those without influence
FLAT = 1e-4  # of the loss: less for a tenth of such a param, and it no longer depends on it


class LossCurve(NamedTuple):
    """Properties of the loss curve of a run."""

    first: float
    last: float
    least: float
    recent_fall: float  # over the last fifth, of medians, as a share of all that it has fallen
    recent_share: float  # the same, as a share of what there was
    swing: float  # the spread of the last fifth, as a share of its mean height above the least ever
    period: int | None  # steps, if it swings regularly
    rises: float  # the share of rising steps in the last fifth


def curve(losses: np.ndarray) -> LossCurve | None:
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
    return LossCurve(
        first=float(losses[0]), last=float(losses[-1]), least=float(losses.min()),
        recent_fall=float((early - late) / fallen),
        recent_share=float((early - late) / max(abs(early), abs(late), 1e-300)), swing=float(np.ptp(tail) / height),
        period=_period(tail), rises=float(np.mean(np.diff(tail) > 0)),
    )  # fmt: skip


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


def swings(seen: LossCurve) -> bool:
    """Return whether the loss oscillates instead of settling."""
    return seen.rises > 0.15 and seen.swing > 1e-2


def pace(fit: Fit) -> str | None:
    """Return whether the loss "falls", "stands" or "swings" at the end of a run, or None if it is not clear.

    It is not clear with less than ten records, or where every step sees other data.
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
    return "stands" if seen.recent_fall < STANDS and seen.recent_share < HALVES else "falls"


def no_data(fit: Fit) -> str:
    """Return an error text if the mask excludes all rows, otherwise ""."""
    if fit.problem is None or not is_masked(fit.problem.loss):
        return ""
    if isinstance(fit.problem.data[-1], jax.core.Tracer) or np.asarray(fit.problem.data[-1]).any():
        return ""
    return "where is False everywhere, so that there are no data"


class Runaway(NamedTuple):
    """A param that moved far without reaching a minimum."""

    name: str
    place: int  # among the free numbers, in the order of their leaves
    start: float
    end: float
    flat: bool = True  # whether the loss is the same at a tenth of it; else it stands still where the param is


def runaways(fit: Fit) -> list[Runaway]:
    """Return the params that went ten thousand times as far as their start, where the loss does not depend on them.

    So does tau in exp(-x / tau) if it starts with the wrong sign: the least loss is at infinity. That the loss does not
    depend on a param is seen by its value at a tenth of it and at ten times as much.
    """
    if fit.status not in ENDED_WELL or not np.isfinite(fit.loss) or (numbers := _free_numbers(fit)) is None:
        return []
    names, start, end = numbers
    far = np.flatnonzero(np.isfinite(end) & (np.abs(end) > FAR * np.where(start == 0, 1, np.abs(start))))
    if not len(far):
        return []
    moved = [*far, far]
    places = np.tile(end, (1 + 3 * len(moved), 1))
    for i, which in enumerate(moved, 1):
        places[i, which] /= 10
        places[i + len(moved), which] *= 10
        places[i + 2 * len(moved), which] = start[which]
    here, *there = _losses_at(fit, places)
    if here == 0:
        return []
    less, more, back = np.abs(np.subtract(there, here)).reshape(3, -1)
    began = 0.0 if fit.start_loss is None else abs(float(fit.start_loss))
    same = FLAT * (abs(here) + FLAT * np.fmin(began, back))
    *flat, all_flat = (np.fmax(less, more) <= same) & ~(back <= same)  # what never mattered did not run away
    gone = far[flat] if any(flat) else far if all_flat else np.array([], int)
    without_flat = not gone.size and fit.status == Status.OUT_OF_STEPS and pace(fit) == "stands"
    if without_flat:  # as where a product of two such params is all that counts
        gone = np.flatnonzero(np.isfinite(end) & (np.abs(end) > GONE * np.maximum(np.abs(start), 1)))
    return [Runaway(names[i], int(i), float(start[i]), float(end[i]), not without_flat) for i in gone]


SATURATED = 1e-3  # a chance so near to what came out


def separated(fit: Fit) -> str:
    """Return a sentence on a fit of yes-or-no data whose likelihood grows for ever as its params do, otherwise "".

    So it is if a chance of 1/2 tells all successes from all failures, and the loss is no higher twice as far from the
    start or from zero, or with one param doubled; or if all points are predicted with certainty but those at fewer
    values of x than there are params.

    Source: Albert and Anderson (1984), doi:10.1093/biomet/71.1.1.
    """
    problem = fit.problem
    loss: Any = None if problem is None else problem.loss
    if not isinstance(loss, Binomial) or fit.status not in ENDED_WELL or (numbers := _free_numbers(fit)) is None:
        return ""
    _, start, end = numbers
    marks = jax.tree.leaves(problem.params, is_leaf=is_mark)
    if fit.status == Status.CONVERGED and any(isinstance(x, Bounded) for x in marks):
        return ""
    with precision_context("float64"), enclosed_in_precision(loss), np.errstate(all="ignore"):
        params, data = (jax.tree.map(jnp.asarray, convert_all(x, "float64")) for x in (fit.params, problem.data))
        x, y, trials, *where = data
        missed = np.ravel(loss.counts(released(params), data).residuals)
    y, trials, rows = np.ravel(y), np.ravel(trials), np.asarray(x).reshape(np.size(y), -1)
    counts = (np.ravel(where[0]) if where else True) & (trials > 0)
    off = np.where((y == 0) | (y == trials), abs(missed) / np.maximum(trials, 1), 1)[counts]
    rows = rows[counts]
    undecided = len(np.unique(rows[off > SATURATED], axis=0))
    if not (len(off) and off.max() < 0.5) and not 0 < undecided < len(end) <= len(np.unique(rows, axis=0)):
        return ""
    if off.max() < 0.5:
        single = end + np.diag(end)[:PROBED]  # of a model slope * (x - middle) the slope alone runs away
        here, *beyond = _losses_at(fit, np.vstack([end, 2 * end - start, 2 * end, single]), "float64")
        if not np.min(beyond) <= here:
            return ""
    return (
        "successes and failures are separated: the likelihood grows for ever with the params, and no finite ones are "
        "best; bound them with jf.Bounded, or add a penalty to the loss, + jf.losses.l2(0.01), a normal prior of "
        "standard deviation 10"
    )


def silent(fit: Fit) -> dict[str, int]:
    """Return the params without influence where a run out of steps stands, and their places among the free numbers.

    Moved by a hundredth, at least of 1, each leaves the loss as it is, in float64: what float32 does not show may still
    be less than its error only. So it is beside that place too: at w = v = 0 neither changes w * v alone, but both do.
    """
    if fit.status != Status.OUT_OF_STEPS or fit.loss == 0 or pace(fit) != "stands" or runaways(fit):
        return {}
    numbers = _free_numbers(fit)
    if numbers is None or not 0 < len(numbers[0]) <= PROBED:
        return {}
    names, _, end = numbers
    moves = 0.01 * np.maximum(np.abs(end), 1)
    beside = end + moves * np.random.default_rng(0).uniform(-1, 1, end.size)
    places = np.vstack([end, end + np.diag(moves), beside, beside + np.diag(moves)])
    try:
        losses = _losses_at(fit, places, "float64").reshape(2, -1)
    except TypeError:  # a model that works in float32 alone
        return {}
    same = losses[:, 1:] == losses[:, :1]
    nothing = same[0] & (same[1] | ~np.isfinite(losses[1, 0]))
    return {name: place for place, name in enumerate(names) if nothing[place]}


def numbers_in(fit: Fit) -> PyTree:
    """Return the params of a fit with None at each leaf that was no number to fit."""
    problem = fit.problem
    return without_kept(fit.params, None if problem is None or holds_call(problem.params) else problem.params)


def _free_numbers(fit: Fit) -> tuple[list[str], np.ndarray, np.ndarray] | None:
    """Return the names, starts and ends of all free numbers; None for a random loss, or a start made by a `Call`."""
    problem = fit.problem
    if problem is None or holds_call(problem.params) or takes_key(problem.loss):
        return None
    leaves = jax.tree_util.tree_leaves_with_path(free(problem.params))
    ends = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(numbers_in(fit))}
    if any(isinstance(x, jax.core.Tracer) for x in (*ends.values(), *(leaf for _, leaf in leaves))):
        return None
    names = [name for path, leaf in leaves for name in _names(path, leaf)]
    end = [ends[jax.tree_util.keystr(path)] for path, _ in leaves]
    return names, flattened([leaf for _, leaf in leaves]), flattened(end)


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
    return float(_losses(problem, precision, [marked])[0])


def _losses_at(fit: Fit, points: np.ndarray, precision: str | None = None) -> np.ndarray:
    """Return the (k,) losses of a run's problem at (k, n) free numbers, by default in its precision."""
    problem: Any = fit.problem
    return _losses(problem, precision or fit.precision, [start_at(problem, point) for point in points])


def _losses(problem: Problem, precision: str | None, marked: Sequence[PyTree]) -> np.ndarray:
    precision = precision or "float32"
    with precision_context(precision), enclosed_in_precision(problem.loss), np.errstate(all="ignore"):
        params, data = (
            jax.tree.map(jnp.asarray, convert_all(x, precision)) for x in ([values_of(m) for m in marked], problem.data)
        )
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *params)

        @jax.jit
        def each(stacked, data):
            def one(_, params):
                return None, problem.loss(released(params), *data)

            return jax.lax.scan(one, None, stacked, length=len(marked))[1]

        return np.asarray(each(stacked, data))


def growth_of(losses: np.ndarray) -> float | None:
    """Return the growth factor of the loss per step just before the end: the median of the last three ratios.

    Args:
      losses: (k,) at consecutive records; the infinite one at the end does not count.
    """
    losses = np.asarray(losses, np.float64)
    losses = losses[np.isfinite(losses)][-4:]
    if len(losses) < 2 or (losses <= 0).any():
        return None
    ratio = float(np.median(losses[1:] / losses[:-1]))
    return ratio if ratio > 1 else None


def round_down(x: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is not above x."""
    power = 10.0 ** np.floor(np.log10(x))
    return float(f"{next(m for m in (5, 2, 1) if m * power <= x * (1 + 1e-9)) * power:.0e}")


def short(x: float) -> str:
    """Return a learning rate with two digits as text: 0.033, 3.4e-4, 1e-4."""
    if 1e-3 <= x < 1e3:
        return f"{x:.2g}"
    digits, _, power = f"{x:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def three_digits(x: float) -> str:
    """Return a number with three digits as text, without a power of ten up to a million: 0.033, 33,600."""
    return f"{float(f'{x:.3g}'):,.0f}" if 1e3 <= abs(x) < 1e6 else f"{x:.3g}"


def text_table(rows: Sequence[Sequence[str]], left: Sequence[bool], *, rule: bool = True) -> list[str]:
    """Return rows of cells as lines of text in aligned columns.

    Args:
      rows: The first one is the header.
      left: For each column, whether it is aligned to the left.
      rule: Whether a line stands under the header.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([c.ljust(w) if a else c.rjust(w) for c, w, a in zip(cells, widths, left, strict=True)] for cells in rows)
    lines = ["  ".join(cells).rstrip() for cells in padded]
    return [lines[0], *["─" * (sum(widths) + 2 * (len(widths) - 1))] * rule, *lines[1:]]


def advice(fit: Fit) -> str:
    """Return one or two sentences: what happened, with numbers, and what to change."""
    where = after_updates(fit)
    if fit.status in ENDED_WELL and (far := runaways(fit)):
        how = "the steps ran out" if fit.status == Status.OUT_OF_STEPS else "it stopped"
        return f"{how} {where}, but {ran_away(far)}."
    if apart := separated(fit):
        how = "the steps ran out" if fit.status == Status.OUT_OF_STEPS else "it stopped"
        return f"{how} {where}, but {apart}."
    if fit.status == Status.CONVERGED:
        stopped = judges(fit) and not (fit.training is not None and fit.training.stop.converges)
        return f"{'the params settled' if stopped else 'a stop rule was met'} {where}."
    if fit.status == Status.STOPPED_EARLY:
        return f"{_patience(fit)} {where}."
    if fit.status == Status.PRUNED:
        return (
            f"pruned {where}, where other lanes were better: its loss is that of this step, not of its end; to see how "
            f"it would have ended, sweep without prune= or run it alone."
        )
    if fit.status == Status.NOT_DETERMINED:
        return (
            f"the loss is at its least {where}, but the data do not determine all of the params: fix one of them with "
            f"jf.Fixed, or merge those that act alike (jf.report names them)."
        )
    if fit.status == Status.OUT_OF_STEPS:
        return _out_of_steps(fit, where)
    if fit.status == Status.NOT_RUN:
        return "it has not finished; run it again to go on."
    if fit.status == Status.NOT_FINITE:
        return _not_finite(fit, where)
    seen = failure_seen(fit)
    if fit.steps == 0:
        return f"{seen} at the start{_note(fit) or '; scale the data, or start elsewhere'}."
    if fit.note:
        return f"{where} {seen}{_note(fit)}."
    grown = growth(fit)
    if grown is None:
        return f"{where} {seen}. {_slower(fit)}"
    grew = f"it grew {growth_text(grown)} a step"
    limit = limit_from_growth(fit.optimizer, grown) if fit.optimizer is not None else None
    if limit is None:
        return f"{where} {seen}; {grew}. {_slower(fit)}"
    return (
        f"{where} {seen}; {grew}, so the limit is near {short(limit)}. "
        f"Lower the learning rate: try {short(round_down(limit / 2))}."
    )


def after_updates(fit: Fit) -> str:
    return f"after {int(fit.steps):,} update{'s' * int(fit.steps != 1)}"


def failure_seen(fit: Fit) -> str:
    """Return in words what the loss was where a run failed."""
    if fit.status == Status.NOT_FINITE:
        return "the loss became NaN" if np.isnan(fit.loss) else "a gradient was not finite while the loss still was"
    if not np.isfinite(fit.loss):
        return f"the loss overflowed {fit.precision or 'float32'}"
    return f"the loss stood at {fit.loss:.4g}, above its start"


def judges(fit: Fit) -> bool:
    """Return whether the method judges its own convergence."""
    return fit.optimizer is not None and fit.optimizer.traits.judges


def ran_away(far: Sequence[Runaway]) -> str:
    """Return a sentence about params that ran away: from where to where, and the remedy."""
    names = [f"{one.name} ran away from {one.start:.4g} to {one.end:.4g}" for one in far[:4]]
    more = f" and {len(far) - 4:,} more did too" * (len(far) > 4)
    it = "it" if len(far) == 1 else "them"
    where = f"where the loss no longer depends on {it}" if far[0].flat else "the loss standing still"
    return f"{', '.join(names)}{more}, {where}: bound {it} with jf.Bounded, or start elsewhere, as with the other sign"


def _out_of_steps(fit: Fit, where: str) -> str:
    """Return advice by the behavior of the loss at the end; it must agree with that of `explain`."""
    if fit.loss == 0:
        return f"the steps ran out {where} at a loss of 0; a stop rule would end it there."
    how = pace(fit)
    if how == "stands":
        still = f"the steps ran out {where}, the loss standing still{_start_and_now(fit)}"
        if names := silent(fit):
            listed = ", ".join([*names][:4]) + f" and {len(names) - 4:,} more" * (len(names) > 4)
            change, them = ("changes", "it") if len(names) == 1 else ("change", "them")
            still += f": {listed} {change} nothing there; start {them} elsewhere, or hold {them} with jf.Fixed"
        return f"{still}."
    if how == "swings":
        return f"the steps ran out {where}, the loss going up and down{_start_and_now(fit)}."
    return f"still running {where}{_start_and_now(fit)}; give it more steps, or a stop rule if this is close enough."


def _patience(fit: Fit) -> str:
    """Return a sentence: for how long the validation loss had no new minimum, and where its minimum was."""
    lasted = "for as long as the patience allows"
    if fit.training is not None:
        patience, every = int(fit.training.stop.patience), fit.training.record.every
        stride = f", one every {every:,} steps," if every > 1 else ""
        lasted = f"in {patience:,} record{'s' * (patience != 1)}{stride}"
    best = f"{float(fit.best_validation_loss):.6g} at step {int(fit.best_step):,}, whose params are best_params;"
    return f"the validation loss has had no new lowest {lasted} since {best} it ended"


def _not_finite(fit: Fit, where: str) -> str:
    if empty := no_data(fit):
        return f"the loss is not a number: {empty}."
    never = fit.best_step is not None and np.isnan(fit.best_validation_loss)
    if never and np.isfinite(fit.loss):
        return f"{where} the validation loss had never been a number; look at the validation data."
    return (
        f"{where} {failure_seen(fit)}; params are those where it was first seen. Look there for log or sqrt of a "
        f"number that is not positive, a division by zero, or an exp that overflows (jnp.where does not protect a "
        f"gradient: guard the argument too){_note(fit)}"
    )


def growth(fit: Fit) -> float | None:
    history = fit.history
    if history is not None and "loss" in history and len(history.step) > 1 and history.step[1] == 1:
        return growth_of(history.loss)
    if fit.start_loss is None or not 0 < fit.start_loss < np.inf or fit.steps < 1:
        return None
    final = fit.loss if np.isfinite(fit.loss) else float(np.finfo(PRECISIONS[fit.precision or "float32"]).max)
    ratio = (float(final) / float(fit.start_loss)) ** (1 / (fit.steps - 0.5 * np.isinf(fit.loss)))
    return ratio if ratio > 1 else None


def _start_and_now(fit: Fit) -> str:
    """Return the loss of all data at the start and at the end, where they are known."""
    first, last = fit.start_loss, fit.loss
    if first is None or not np.isfinite([float(first), float(last)]).all():
        return ""
    return f" (loss {float(first):.6g} at the start, {float(last):.6g} now)"


def _slower(fit: Fit) -> str:
    if judges(fit):  # it has no learning rate
        return "Start elsewhere, or bound the params with jf.Bounded."
    rate: Any = fit.optimizer.hyperparameters.get("learning_rate") if fit.optimizer is not None else None
    return f"Lower the learning rate tenfold{f': try {short(float(rate) / 10)}' if is_concrete_number(rate) else ''}."


def _note(fit: Fit) -> str:
    return f"; {fit.note}" if fit.note else ""


def growth_text(ratio: float) -> str:
    """Return a growth as text: 3.5e+20-fold, 3,345-fold, 1.25-fold, 1.000012-fold."""
    if ratio >= 1e9:
        return f"{ratio:.3g}-fold"
    return f"{ratio:,.0f}-fold" if ratio >= 10 else f"{ratio:.3g}-fold" if ratio >= 1.01 else f"{ratio:.6f}-fold"


def summary(fit: Fit) -> str:
    """Return the text of `print(fit)`: the outcome, the advice, the loss and the params."""
    name = Status(fit.status).name.lower().replace("_", " ")
    lines = [f"{name}: {advice(fit)}", f"  loss    {fit.loss:.8g}{_loss_label(fit)}", *_params_lines(numbers_in(fit))]
    more = len(jax.tree.leaves(numbers_in(fit))) - 12
    lines += [f"          and {more} more leaves"] * (more > 0)
    settings = [repr(fit.optimizer)] if fit.optimizer is not None else []
    settings += [fit.precision] if fit.precision else []
    settings += [f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in (fit.coords or {}).items()]
    if settings:
        lines.append(f"  with    {', '.join(settings)}")
    notes = [fit.note] if fit.note and fit.status not in (Status.NOT_FINITE, Status.DIVERGED) else []
    lines += [f"  note    {note}" for note in (*notes, *doubts(fit))]
    if fit.problem is not None and fit.status not in (Status.CONVERGED, Status.NOT_RUN):
        lines.append("  more    jf.explain(fit)")
    return "\n".join(lines)


def summary_of_lanes(fit: Fit) -> str:
    """Return the text for a fit whose fields hold many runs, as `jax.vmap` returns it."""
    status, loss = np.asarray(fit.status), np.asarray(fit.loss)
    counts = [(int((status == s).sum()), s.name.lower().replace("_", " ")) for s in Status if (status == s).any()]
    text = ", ".join(f"{count:,} {name}" for count, name in counts)
    lines = [f"Fit of {'x'.join(map(str, status.shape))} lane{'s' * (status.size != 1)}: {text}"]
    return "\n".join([*lines, f"  loss    {_numbers(loss)}", *_params_lines(numbers_in(fit))])


def _params_lines(params: PyTree) -> list[str]:
    """Return a line for each leaf, of the first twelve."""
    labels = [(jax.tree_util.keystr(path, simple=True, separator=".") or "params", leaf)
              for path, leaf in jax.tree_util.tree_leaves_with_path(params)[:12]]  # fmt: skip
    return [f"  {'      ' if i else 'params'}  {label} = {_numbers(leaf)}" for i, (label, leaf) in enumerate(labels)]


def doubts(fit: Fit) -> list[str]:
    """Return warnings about the params that follow from the data; computed only when needed."""
    if fit.problem is None or not noise_model_of(fit.problem.loss).predicts:
        return []
    x, y, *more = (np.asarray(item) for item in fit.problem.data)
    if is_masked(fit.problem.loss):
        x, y = x[more[-1]], y[more[-1]]
        if not y.size:
            return []  # which the outcome says
    moving = numbers_in(fit) if holds_call(fit.problem.params) else free(fit.problem.params)
    params, warnings = sum(np.size(leaf) for leaf in jax.tree.leaves(moving)), []
    if params > y.size:
        warnings.append(
            f"{params} params are fitted to {y.size} point{'s' * (y.size != 1)}: underdetermined, others fit as well"
        )
    if x.ndim and len(x) > 1 and (x == x[:1]).all():
        warnings.append(
            "data[0] (x) is the same at every point: only the prediction there is determined, not the params"
        )
    tiny = np.finfo(PRECISIONS[fit.precision or "float32"]).tiny
    for i, item in enumerate((x, y)):
        top = np.abs(item).max()
        if 0 < top < tiny:
            warnings.append(f"data[{i}] is at most {top:.3g}, which {fit.precision} rounds to zero: scale the data")
    return warnings


def _loss_label(fit: Fit) -> str:
    """Return the label of the loss that says of which data it is, and that of the validation loss."""
    batches = fit.training is not None and fit.training.batches is not None
    text = " of all the data, not of a batch" if batches else ""
    if fit.validation_loss is not None:
        text += f"   validation {fit.validation_loss:.8g}"
    if fit.best_step is not None:
        text += f"   best validation {float(fit.best_validation_loss):.8g} at step {int(fit.best_step):,}"
    return text


def _numbers(leaf: ArrayLike) -> str:
    array = np.asarray(leaf)
    if array.ndim == 0:
        return f"{array:.6g}"
    if array.size <= 6:
        return np.array2string(array, precision=5, separator=", ")
    shape = "x".join(map(str, array.shape))
    return f"{shape} numbers from {array.min():.4g} to {array.max():.4g}, mean {array.mean():.4g}"
