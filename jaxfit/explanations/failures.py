"""Explanations of runs that failed: diverged, non-finite, without a valid start, params ran away, stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from jaxfit.explanations.findings import (
    AFFORDABLE,
    GOAL,
    Changes,
    Finding,
    Numbers,
    Remedy,
    dead_units,
    decaying,
    displaced,
    finding,
    law_limit,
    momentum_of,
    noisy,
    rate_of,
    second_order,
    slower,
)
from jaxfit.explanations.local_models import LocalModel, count, leaves_of, local_model, scales, times
from jaxfit.optimizers.building import with_rate
from jaxfit.optimizers.stability import limit_from_growth
from jaxfit.problems.marks import Bounded, Fixed, Tied, free, is_mark
from jaxfit.problems.problems import Problem, Status
from jaxfit.verbs.results import Fit, problem_of, training_of
from jaxfit.verbs.summaries import Runaway, advice, growth, loss_at, ran_away, short, start_at

HIGH = 100  # times the first loss: a loss that ended lower did not grow from step to step
FAR = 20  # the largest factor by which a limit from the growth at the end may be below that at the start


def of_trouble(run: Fit) -> Finding:
    """Return the finding of a run that diverged or became not finite."""
    training = training_of(run)
    problem, optimizer, start = training.problem, training.optimizer, local_model(training.problem)
    kind = "diverged" if run.status == Status.DIVERGED else "not finite"
    rate, steps = rate_of(optimizer), int(training.steps)
    numbers: Numbers = {"steps": run.steps, "start_loss": start.loss, "sharpness": start.largest, "rate": rate}
    grown = growth(run)
    seen = _seen(run, grown)
    if run.note:
        return finding("out of range", [seen, f"{run.note}."], numbers, second_order(training))
    if not start.finite:
        where = leaves_of(problem, ~np.isfinite(start.gradient)) if np.isfinite(start.loss) else "the loss itself"
        story = [seen, f"At the start {where} is not finite, so that no step can be made from there."]
        return finding("not defined", story, numbers, displaced(training, start))
    if start.idle.mean() > 0.5:
        found = dead_units(training, start, start, numbers)
        return replace(found, story=(seen, *found.story))
    if rate is None:
        return finding(kind, [seen], numbers, second_order(training))
    known = [law_limit(optimizer, start.largest)] + [limit_from_growth(optimizer, grown) if grown else None]
    limits = [x for x in known if x is not None and np.isfinite(x) and x > 0]
    if limits:
        return _beyond(run, kind, seen, start, numbers, limits)
    longest = float(np.max(np.abs(start.newton))) if start.newton.any() else 1.0
    longer = max(steps, 5000)
    lower = min(rate / 10, max(10 * longest / longer, 1e-6 * rate))
    story = [seen, f"A Newton step from the start moves a param by at most {longest:.3g}; the rate is {short(rate)}."]
    return finding(kind, story, numbers, decaying(optimizer, lower, longer))


def _beyond(run: Fit, kind: str, seen: str, start: LocalModel, numbers: Numbers, limits: list[float]) -> Finding:
    """Explain a divergence of an optimizer whose limit is known."""
    training = training_of(run)
    optimizer, steps, rate = training.optimizer, int(training.steps), numbers["rate"]
    limit, story = min(limits), [seen]
    numbers = numbers | {"limit": limit, "times": rate / limit}
    grows = (growth(run) or 0) > 1.01 and not run.loss < HIGH * float(run.start_loss)
    if rate < limit and not grows:
        story.append(
            f"At the start the law would allow {short(limit)}, more than the learning rate {short(rate)}: the loss "
            f"is steeper elsewhere."
        )
        return finding(kind, story, numbers, decaying(optimizer, rate / 3, max(2 * steps, 4000)))
    story.append(
        f"The learning rate {short(rate)} is {times(rate / limit)} the limit {short(limit)}, above which every "
        f"step overshoots by more than the one before."
    )
    lower = min(limit / 2, rate / 2)
    if np.isnan(run.loss):
        story.append("The loss is not defined everywhere: near the edge steps must be smaller than the law says.")
        lower /= 5
    if noisy(training):
        return finding(kind, story, numbers, decaying(optimizer, lower / 2, max(10 * steps, 4000)))
    if not grows:
        story.append("It does not grow from step to step, so that it is steeper elsewhere than at the start.")
        return finding(kind, story, numbers, decaying(optimizer, lower, max(10 * steps, 4000)))
    if limit < max(limits) / FAR:
        story.append(
            f"That is by its growth at the end; at the start the law would allow {short(max(limits))}: the loss is no "
            f"quadratic, and grew the faster the higher it was."
        )
        return finding(kind, story, numbers, decaying(optimizer, min(max(limits), rate) / FAR, AFFORDABLE))
    need = 1.5 * start.steps_to(GOAL, lower, momentum_of(optimizer))
    numbers |= {"condition": start.condition, "steps_needed": need}
    if start.bends_down:
        need = max(5.0 * steps, 5000)
    if need <= AFFORDABLE:
        longer = int(np.ceil(max(steps, min(10 * need, AFFORDABLE))))  # away from the start it may be flatter
        return finding(kind, story, numbers, slower(optimizer, lower, longer))
    story.append(
        f"Below it gradient descent would need about {count(need)} steps, since the condition number is "
        f"{start.condition:.3g}{scales(training.problem)}."
    )
    return finding(kind, story, numbers, second_order(training) or slower(optimizer, lower, AFFORDABLE))


def _seen(run: Fit, grown: float | None) -> str:
    where = f"after {run.steps:,} update{'s' * (run.steps != 1)}"
    if run.status == Status.NOT_FINITE:
        what = "the loss became NaN" if np.isnan(run.loss) else "a gradient was not finite while the loss still was"
    elif not np.isfinite(run.loss):
        what = f"the loss overflowed {run.precision or 'float32'}"
    else:
        what = f"the loss stood at {run.loss:.4g}, above its start of {float(run.start_loss):.4g}"
    return f"{where} {what}" + (f", growing {grown:,.3g}-fold a step." if grown and grown > 1.01 else ".")


ROOM = 100  # times its start: the bounds that are proposed for a runaway param


def of_runaways(run: Fit, far: Sequence[Runaway]) -> Finding:
    """Return the finding of runaway params; the remedy is a start with the other sign, or bounds."""
    problem = problem_of(run)
    story = [
        f"{ran_away(far)}.",
        f"The loss is {float(run.loss):.6g} there, and the same at a tenth of that.",
    ]
    numbers = {"loss": float(run.loss), "runaways": {one.name: (one.start, one.end) for one in far}}
    return finding("runaway params", story, numbers, _turned(run, problem, far) or _bounded(problem, far))


def _turned(run: Fit, problem: Problem, far: Sequence[Runaway]) -> Remedy | None:
    """Return the start with the other sign of the runaway params, if the loss is lower there and nothing is bounded."""
    if any(isinstance(x, Bounded) for x in jax.tree.leaves(problem.params, is_leaf=is_mark)):
        return None
    leaves = [np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(free(problem.params))]
    start = np.concatenate(leaves)
    other = start.copy()
    other[[one.place for one in far]] *= -1
    there, here = (loss_at(problem, run.precision, start_at(problem, point)) for point in (other, start))
    if not there < here:
        return None
    turned = ", ".join(f"{one.name}={-one.start:.4g}" for one in far[:4])
    return Remedy(f"a start with the other sign, {turned}", {"params": start_at(problem, other)})


def _bounded(problem: Problem, far: Sequence[Runaway]) -> Remedy:
    """Return bounds for the runaway params, of the same sign as their start and within a factor of a hundred of it."""
    places, at = {one.place for one in far}, 0

    def leaf(x):
        nonlocal at
        if isinstance(x, (Fixed, Tied)):
            return x
        value, old = (x.value, (x.low, x.high)) if isinstance(x, Bounded) else (x, (None, None))
        flat = np.ravel(np.asarray(value, np.float64))
        which = np.isin(np.arange(at, at + flat.size), list(places)).reshape(np.shape(value))
        at += flat.size
        if not which.any():
            return x
        start = flat.reshape(np.shape(value))
        size = np.where(start == 0, 1.0, np.abs(start))
        low = np.where(which, np.where(start > 0, size / ROOM, -size * ROOM), -np.inf)
        high = np.where(which, np.where(start < 0, -size / ROOM, size * ROOM), np.inf)
        low, high = (
            np.fmax(low, np.nan if old[0] is None else old[0]),
            np.fmin(high, np.nan if old[1] is None else old[1]),
        )
        return Bounded(value, low[()], high[()])

    params = jax.tree.map(leaf, problem.params, is_leaf=is_mark)
    names = ", ".join(one.name for one in far[:4])
    return Remedy(f"jf.Bounded for {names}, within {ROOM} times the start", {"params": params})


def of_patience(run: Fit) -> Finding:
    """Return the finding of a run stopped by its patience; a remedy only if it never improved on its start."""
    training = training_of(run)
    numbers = {
        "best_validation_loss": float(run.best_validation_loss), "best_step": int(run.best_step),
        "validation_loss": float(run.validation_loss), "loss": float(run.loss),
    }  # fmt: skip
    story = [advice(run)]
    if run.best_step > 0:
        return finding("stopped early", story, numbers, None)
    story.append("It never improved on its start: the steps are too large, or the patience is too short.")
    changes: Changes = {"stop": replace(training.stop, patience=10 * int(training.stop.patience))}
    words, rate = f"patience={10 * int(training.stop.patience)}", rate_of(training.optimizer)
    if rate is not None:
        changes["optimizer"] = with_rate(training.optimizer, rate / 10)
        words += f" and learning_rate={short(rate / 10)}"
    return finding("stopped early", story, numbers, Remedy(words, changes))
