"""Explanations of runs that ended regularly: at a minimum, still descending, oscillating, or stalled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxfit.explanations.findings import (
    AFFORDABLE,
    GOAL,
    Finding,
    Numbers,
    Remedy,
    dead_units,
    decaying,
    displaced,
    downhill,
    farthest_move,
    finding,
    from_here,
    law_limit,
    momentum_of,
    noisy,
    rate_of,
    second_order,
    smaller_start,
    started_at,
    without_influence,
)
from jaxfit.explanations.local_models import (
    LocalModel,
    gradient_by_leaf,
    leaf_names,
    local_model,
    marks_of,
    scales,
    steps_text,
    times_text,
)
from jaxfit.losses.base import noise_model_of
from jaxfit.optimizers import Optimizer
from jaxfit.optimizers.building import with_rate
from jaxfit.problems import PRECISIONS, Problem, Status, Training
from jaxfit.problems.axes import Call
from jaxfit.problems.marks import put
from jaxfit.verbs import summaries
from jaxfit.verbs.results import Fit, problem_of, training_of
from jaxfit.verbs.summaries import HALVES, STANDS, advice, judges, loss_at, pace, short, start_at, swings, three_digits

SETTLED = 1e-4  # a run has settled if less than this share of the total decrease is left to gain
MANY = 0.1  # of the params: if fewer are without influence, a run does not stand because of them
ROUNDING = 1e-9  # of the loss: a method that judges itself has not arrived if more than this is left to gain


def finding_of_end(run: Fit) -> Finding:
    """Return the finding of a run that did not fail, by the loss curve and the curvature at its end."""
    training = training_of(run)
    problem, there = training.problem, training.at(put(marks_of(training.problem), run.params))
    here, seen = local_model(there.problem), summaries.curve(run.history.loss)
    start_loss = float(run.start_loss if run.start_loss is not None else run.history.loss[0])
    yardstick = min(start_loss, height_of_data(run))
    share = here.left / max(yardstick - here.loss + here.left, 1e-300)
    numbers: Numbers = {
        "loss": here.loss, "gradient_norm": here.norm, "excess": here.excess, "sharpness": here.largest,
        "smallest": here.smallest, "condition": here.condition,
    }  # fmt: skip
    exact, blur = here.loss == 0 and here.norm == 0, _blur(run, here)
    least = here.left <= blur and here.smallest * np.max(np.abs(here.point), initial=1.0) ** 2 > blur
    stands = pace(run) in (None, "stands")
    hidden = float(run.loss) == start_loss == 0 and stands  # by the rounding of the run's own precision
    low = exact or hidden or 0 <= here.loss < 1e-6 * yardstick
    unsure = run.status == Status.OUT_OF_STEPS and judges(run) and here.left > ROUNDING * abs(here.loss)
    if not here.finite:
        story = [f"where it ended, the gradient in {leaf_names(problem, ~np.isfinite(here.gradient))} is not finite."]
        return finding("not defined", story, numbers, displaced(there, here))
    if stuck := list(summaries.silent(run).values()):
        here = here._replace(idle=here.idle | np.isin(np.arange(here.idle.size), stuck))
    if here.idle.mean() > MANY and not low:
        found = without_influence(there.problem, here, numbers)
        return found or dead_units(training, local_model(problem), here, numbers)
    if noisy(training):
        return _noise(there, here, seen, numbers)
    arrived = {Status.CONVERGED: "converged", Status.NOT_DETERMINED: "not determined"}.get(run.status, "settled")
    falls = run.status == Status.OUT_OF_STEPS and pace(run) == "falls" and here.left > HALVES * abs(here.loss)
    there_already = share < SETTLED and not falls or low or least  # a start far away makes any share small
    if not here.bends_down and there_already and (here.largest > 0 or exact) and not unsure:
        return finding(arrived, _arrived(run, here), numbers, None)
    found = downhill(there.problem, here) if here.bends_down else None
    if found is not None and here.smallest < -1e-3 * here.largest and _held(here, found, training, run.steps):
        return _saddle(there, here, found, numbers)
    if _rounds_away(run, here, there.optimizer):
        story = ["the loss stands still, since most of a step is lost where float32 rounds the params."]
        changes = {"steps": AFFORDABLE, "precision": "float64"}
        remedy = from_here(there.problem, here, f"{AFFORDABLE:,} steps in float64", changes)
        return finding("badly scaled", story, numbers, remedy)
    if seen is not None and (swings(seen) or _jumps(run, here, seen)):
        return _cycle(there, here, seen, numbers)
    if run.status in (Status.CONVERGED, Status.NOT_DETERMINED):
        return finding(arrived, _arrived(run, here), numbers, None)
    gained = 0.0 if found is None else here.loss - found[1]
    worth = ROUNDING * abs(here.loss) if judges(run) else SETTLED * (yardstick - here.loss + gained)
    if found is not None and stands and _level(here, gained) and gained > worth:
        return _saddle(there, here, found, numbers)
    if pace(run) == "stands" and (here.bends_down or share > 0.5):
        return _plateau(run, there, here, numbers)
    return _descending(run, there, here, numbers)


def _blur(run: Fit, here: LocalModel) -> float:
    """Return the least difference between losses that the precision of the run shows where it ended."""
    about = np.finfo(PRECISIONS[run.precision or "float32"])
    return max(float(about.eps) * abs(here.loss), float(about.tiny))


def height_of_data(run: Fit) -> float:
    """Return the loss of predictions that are zero, if the loss compares predictions with data; else infinity."""
    problem = problem_of(run)
    if not noise_model_of(problem.loss).predicts:
        return np.inf
    y = problem.data[1]
    loss: Any = problem.loss
    nothing = replace(loss, predict=lambda params, x: jnp.zeros(np.shape(y)))
    return loss_at(problem._replace(loss=nothing), run.precision, {})


def _arrived(run: Fit, here: LocalModel) -> list[str]:
    if run.status == Status.CONVERGED:
        how = advice(run).removesuffix(".")
    elif run.status == Status.NOT_DETERMINED:
        how = (
            f"the data do not determine all of the params (jf.report names them), but the loss is at its least after "
            f"{run.steps:,} updates"
        )
    else:
        how = (
            f"the steps ran out after {run.steps:,} updates where almost nothing is left to gain, though no stop rule "
            f"was met"
        )
    return [
        f"{how}; the gradient's norm is {here.norm:.3g}.",
        f"By the curvature the loss is {here.left:.2g} above its least of {here.loss - here.left:.6g}; condition "
        f"number {three_digits(here.condition)}.",
    ]


def _moving(run: Fit) -> str:
    """Return what the loss did at the end, in the words of `print`."""
    return {"stands": "the loss stands still", "swings": "the loss goes up and down"}.get(
        str(pace(run)), "the loss still falls"
    )


def _longer(problem: Problem, here: LocalModel, steps: int) -> Remedy:
    return from_here(problem, here, f"{steps:,} more steps", {"steps": steps})


def _on_its_way(run: Fit) -> str:
    """Return the kind of a run that has not arrived, and whose learning rate is adequate."""
    return "still descending" if pace(run) in (None, "falls") else "badly scaled"


def _noise(there: Training, here: LocalModel, seen: summaries.LossCurve | None, numbers: Numbers) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), law_limit(optimizer, here.largest)
    stands = seen is None or abs(seen.recent_fall) < 0.1
    story = [
        f"each step uses other data, so that the params fluctuate: the loss of all the data is {here.excess:.3g} above "
        f"its minimum by the curvature."
    ]
    start = min([x for x in (rate, limit and limit / 4) if x] or [0.01])
    if rate is None:
        return finding("noise floor", story, numbers, _lengthened(optimizer, 4 * steps))
    need = 3 * here.steps_to(1e-2, start, momentum_of(optimizer)) if limit else 0
    longer = int(min(max(4 * steps, 4000, need if np.isfinite(need) else 0), 10 * AFFORDABLE))
    return finding("noise floor" if stands else "still descending", story, numbers, decaying(optimizer, start, longer))


def _lengthened(optimizer: Optimizer, steps: int) -> Remedy:
    """Return the remedy of more steps; a schedule, which has come to its end, begins again at its first rate."""
    rate = optimizer.hyperparameters.get("learning_rate")
    schedule: Any = rate() if isinstance(rate, Call) else rate
    first = float(np.asarray(schedule(0))) if callable(schedule) else 0.0
    return decaying(optimizer, first, steps) if first > 0 else Remedy(f"{steps:,} steps", {"steps": steps})


def _jumps(run: Fit, here: LocalModel, seen: summaries.LossCurve) -> bool:
    """Return whether gradient descent decreases the loss ten times less than the slope predicts, in a valley.

    The prediction is valid only if the learning rate is at most 1 / sharpness.
    """
    optimizer: Any = run.optimizer
    rate, steps = rate_of(optimizer), len(run.history.loss)
    if rate is None or law_limit(optimizer, 1.0) is None or here.largest > 1 / rate:
        return False
    total_fall, promised = seen.first - seen.least, 0.5 * rate * here.norm**2
    fall = abs(seen.recent_fall) * total_fall / (0.1 * steps)
    least = max(10 * fall, 10 * STANDS * total_fall / steps, 10 * _blur(run, here))
    return abs(seen.recent_fall) < STANDS and promised > least


def _cycle(there: Training, here: LocalModel, seen: summaries.LossCurve, numbers: Numbers) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), law_limit(optimizer, here.largest)
    numbers |= {"period": seen.period, "limit": limit, "rate": rate}
    period = f", with a period of about {seen.period} steps" if seen.period else ""
    story = [
        f"it oscillates and does not converge: in the last fifth the loss rose in {100 * seen.rises:.0f} % of the steps"
        f"{period}."
        if swings(seen)
        else "it oscillates across a valley: each step gains less than a tenth of what the slope predicts."
    ]
    if rate is None:
        return finding("limit cycle", story, numbers, second_order(there))
    if limit is not None and np.isfinite(limit) and rate > 0.5 * limit and not here.bends_down:
        story.append(
            f"The learning rate {short(rate)} is {times_text(rate / limit)} the limit {short(limit)} where it ended."
        )
        need = 3 * here.steps_to(GOAL, 0.5 * limit, momentum_of(optimizer))
        longer = int(max(2 * steps, 4000, min(need, AFFORDABLE)))
        return finding("limit cycle", story, numbers, decaying(optimizer, limit / 2, longer))
    return finding("limit cycle", story, numbers, decaying(optimizer, rate / 3, max(2 * steps, 4000)))


def _saddle(there: Training, here: LocalModel, descent: tuple[np.ndarray, float], numbers: Numbers) -> Finding:
    point, loss = descent
    story = [
        f"it {'is at' if _level(here, here.loss - loss) else 'approaches'} a saddle: the gradient's norm is "
        f"{here.norm:.3g}, and almost nothing of it points along a direction in which the loss curves down, by "
        f"{here.smallest:.3g} against {here.largest:.3g} upwards.",
        f"Along it the loss falls from {here.loss:.6g} to {loss:.6g}.",
    ]
    start = started_at(there, point, "a start along that direction", here.largest, least=100)
    return finding("saddle", story, numbers, start)


def _level(here: LocalModel, fall: float) -> bool:
    """Return whether the gain along the gradient is small beside that along the direction of negative curvature."""
    return here.norm**2 <= 0.1 * max(here.largest, abs(here.smallest)) * fall


def _held(here: LocalModel, descent: tuple[np.ndarray, float], training: Training, steps: int) -> bool:
    """Return whether escape along the direction of negative curvature would take far longer than the run."""
    point, loss = descent
    distance = float(np.linalg.norm(point - here.point))
    ahead = abs(float(here.gradient @ here.downward)) / abs(here.smallest)
    rate, slack = rate_of(training.optimizer), 1 - momentum_of(training.optimizer)
    if not _level(here, here.loss - loss):
        return ahead < 1e-12 * distance
    if ahead < 1e-12 * distance or rate is None:
        return ahead < 1e-8 * distance
    return np.log(max(distance / ahead, 1.0)) / (rate / slack * abs(here.smallest)) > min(10 * steps, AFFORDABLE)


def _plateau(run: Fit, there: Training, here: LocalModel, numbers: Numbers) -> Finding:
    training = training_of(run)
    steep = gradient_by_leaf(there.problem, here)
    story = [
        f"it is on a plateau: the loss stands still, with a gradient of norm {here.norm:.3g} and a largest curvature "
        f"of {here.largest:.3g}{scales(there.problem)}."
    ]
    if len(steep) > 1:
        least, most = min(steep, key=lambda k: steep[k]), max(steep, key=lambda k: steep[k])
        story.append(
            f"The gradient is least in {least} ({steep[least]:.2g}) and largest in {most} ({steep[most]:.2g})."
        )
    start = local_model(training.problem)
    better_start = smaller_start(training.problem, start)
    if better_start is None:
        return finding("plateau", story, numbers, second_order(there))
    point, factor = better_start
    story.append(f"From a start {1 / factor:.3g} times smaller the slope is steeper.")
    return finding("plateau", story, numbers, started_at(training, point, f"the start times {factor:.2g}"))


def _descending(run: Fit, there: Training, here: LocalModel, numbers: Numbers) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), law_limit(optimizer, here.largest)
    uneven = scales(there.problem)
    if limit is None or not np.isfinite(limit) or rate is None:
        return _descending_freely(run, there, here, numbers, rate, uneven)
    now = 1.5 * here.steps_to(GOAL, rate, momentum_of(optimizer))
    fast = 1.5 * here.steps_to(GOAL, 0.5 * limit, momentum_of(optimizer))
    numbers |= {"steps_needed": now, "limit": limit, "rate": rate}
    story = [
        f"{_moving(run)}; at this rate {steps_text(now)} steps more would take off all but {GOAL:g} of the "
        f"{here.excess:.3g} that is left to gain."
    ]
    below = f"The rate {short(rate)} is {times_text(limit / rate)} below the limit {short(limit)}."
    if here.bends_down:
        more = max(10 * steps, AFFORDABLE)
        if rate >= limit / 20:
            return finding(
                _on_its_way(run),
                story,
                numbers,
                _longer(there.problem, here, more),
            )
        changes = {"optimizer": with_rate(optimizer, limit / 4), "steps": more}
        remedy = from_here(there.problem, here, f"learning_rate={short(limit / 4)} and {more:,} steps", changes)
        return finding("rate too small", [*story, below], numbers, remedy)
    if now <= AFFORDABLE and now < 10 * fast:
        more = max(int(np.ceil(now)), 1000)  # beyond what the curvature tells, since it changes on the way
        return finding(_on_its_way(run), story, numbers, _longer(there.problem, here, more))
    if fast <= AFFORDABLE:
        more = max(int(np.ceil(2 * fast)), 1000)
        changes = {"optimizer": with_rate(optimizer, limit / 2), "steps": more}
        remedy = from_here(there.problem, here, f"learning_rate={short(limit / 2)} and {more:,} steps", changes)
        return finding("rate too small", [*story, below], numbers, remedy)
    story.append(
        f"No rate below the limit {short(limit)} is fast: the condition number is "
        f"{three_digits(here.condition)}{uneven}."
    )
    return finding("badly scaled", story, numbers, second_order(there, start_at(there.problem, here.point)))


def _rounds_away(run: Fit, here: LocalModel, optimizer: Optimizer) -> bool:
    """Return whether a run stands because most of a step of gradient descent is too short to change float32."""
    rate = rate_of(optimizer)
    if rate is None or law_limit(optimizer, 1.0) is None or run.precision == "float64" or pace(run) != "stands":
        return False
    rate /= 1 - momentum_of(optimizer)
    least = 0.5 * np.spacing(np.abs(here.point).astype(np.float32))
    lost = rate * np.abs(here.gradient) <= least
    return float(np.sum(here.gradient[lost] ** 2)) > 0.5 * here.norm**2


def _descending_freely(
    run: Fit, there: Training, here: LocalModel, numbers: Numbers, rate: float | None, uneven: str
) -> Finding:
    """Return the finding of a descending run whose optimizer has no known convergence rate."""
    steps, left = int(there.steps), float(np.max(np.abs(here.newton))) if here.newton.any() else 0.0
    story = [f"{_moving(run)}, and by the curvature there are {here.left:.3g} left to gain."]
    if here.left == 0 and not here.bends_down:
        story = [f"{_moving(run)} without curvature, so that its distance from the least is not known."]
        kind = _on_its_way(run) if rate is None else "rate too small"
        return finding(kind, story, numbers, second_order(there, start_at(there.problem, here.point)))
    if rate is not None and left > farthest_move(there.optimizer, rate, steps) / 10 and not here.bends_down:
        story.append(f"One param has {left:.3g} left to go, and a step moves it by about {short(rate)}.")
        return finding("rate too small", story, numbers, second_order(there, start_at(there.problem, here.point)))
    if here.bends_down and not judges(run):
        return _wandering(run, there, here, numbers, rate, story)
    if here.condition > 2:
        story.append(f"The condition number is {three_digits(here.condition)}{uneven}.")
    kind = _on_its_way(run) if judges(run) else "badly scaled"  # a method that judges itself suffers from no scale
    return finding(kind, story, numbers, second_order(there, start_at(there.problem, here.point)))


def _wandering(
    run: Fit, there: Training, here: LocalModel, numbers: Numbers, rate: float | None, story: list[str]
) -> Finding:
    """Return the finding where the loss has negative curvature, by the learning rate against the size of the params."""
    optimizer, steps = there.optimizer, int(there.steps)
    more, size = max(10 * steps, AFFORDABLE), float(np.sqrt(np.mean(here.point**2)))
    if rate is not None and farthest_move(optimizer, rate, steps) < size:
        story.append(f"In {steps:,} steps of {short(rate)} the params, of size {size:.2g}, cannot move far.")
        faster = decaying(optimizer, rate * 3 * size / farthest_move(optimizer, rate, steps), more)
        return finding("rate too small", story, numbers, from_here(there.problem, here, *faster))
    if rate is not None and rate > max(size, 1e-300) / 10:
        story = [
            f"a step moves every param by about {short(rate)}, and they are of size {size:.2g}: it cannot converge."
        ]
        calmer = decaying(optimizer, min(rate / 3, size / 10), more)
        return finding("limit cycle", story, numbers, from_here(there.problem, here, *calmer))
    return finding(_on_its_way(run), story, numbers, _longer(there.problem, here, more))
