"""From what is seen of a run to what it means: the kind, the story, its numbers, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxfit.curvature.limits import with_rate
from jaxfit.curvature.points import moved
from jaxfit.explanations.remedies import (
    AFFORDABLE,
    GOAL,
    Remedy,
    coming_down,
    downhill,
    noisy,
    onward,
    rate_of,
    redrawn,
    second_order,
    slower,
    smaller,
    start_at,
)
from jaxfit.explanations.symptoms import Curve, curve
from jaxfit.explanations.views import View, view
from jaxfit.explanations.words import count, marks_of, place, scales, slopes, times
from jaxfit.fits import Fit
from jaxfit.outcomes import growth, short
from jaxfit.problems import Problem, Status
from jaxfit.stability import limit_from_growth, stability_limit

Finding = tuple[str, list[str], dict[str, Any], str, dict[str, Any]]
SETTLED = 1e-4  # a share of all the loss could still fall: less is converged
STANDS = 1e-3  # a share of all it has fallen: less in the last fifth is standing still


def diagnose(run: Fit) -> Finding:
    """What happened to a run that recorded the loss of every step."""
    broke = run.status in (Status.DIVERGED, Status.NOT_FINITE)
    return of_trouble(run) if broke else of_end(run)


def told(kind: str, story: list[str], numbers: dict[str, Any], remedy: Remedy | None) -> Finding:
    advice, changes = remedy if remedy is not None else ("", {})
    return kind, [s for s in story if s], numbers, advice, changes


# A run that broke


def of_trouble(run: Fit) -> Finding:
    problem: Any = run.problem
    optimizer, start = problem.optimizer, view(problem)
    kind = "diverged" if run.status == Status.DIVERGED else "not finite"
    rate, steps = rate_of(optimizer), int(problem.steps)
    numbers: dict[str, Any] = {"steps": run.steps, "start_loss": start.loss, "sharpness": start.largest, "rate": rate}
    grown = growth(run)
    seen = _seen(run, grown)
    if run.note:
        return told("out of range", [seen, f"{run.note}."], numbers, second_order(problem))
    if not start.finite:
        where = place(problem, ~np.isfinite(start.gradient)) if np.isfinite(start.loss) else "the loss itself"
        story = [seen, f"At the start {where} is not finite, so that no step can be made from there."]
        return told("not defined", story, numbers, _beside(problem, start))
    known = [_limit(optimizer, start.largest)] + [limit_from_growth(optimizer, grown) if grown else None]
    limits = [x for x in known if x is not None and np.isfinite(x) and x > 0]
    uneven = scales(problem)
    story = [seen]
    if limits and rate:
        limit = min(limits)
        numbers |= {"limit": limit, "times": rate / limit}
        if rate < limit and not grown:
            story.append(
                f"At the start the law would allow {short(limit)}, more than the learning rate {short(rate)}: the loss "
                f"is steeper elsewhere."
            )
            return told(kind, story, numbers, coming_down(optimizer, rate / 3, max(2 * steps, 4000)))
        story.append(
            f"The learning rate {short(rate)} is {times(rate / limit)} the limit {short(limit)}, above which every "
            f"step overshoots by more than the one before."
        )
        lower = min(limit / 2, rate / 2)
        if noisy(problem):
            return told(kind, story, numbers, coming_down(optimizer, lower / 2, max(10 * steps, 4000)))
        need = 1.5 * start.steps_to(GOAL, lower, _momentum(optimizer))
        numbers |= {"condition": start.condition, "steps_needed": need}
        if start.bends_down:
            need = max(5.0 * steps, 5000)
        if need <= AFFORDABLE:
            longer = int(np.ceil(max(steps, min(10 * need, AFFORDABLE))))  # away from the start it may be flatter
            return told(kind, story, numbers, slower(optimizer, lower, longer))
        story.append(
            f"Below it gradient descent would need about {count(need)} steps, since the condition number is "
            f"{start.condition:.3g}{uneven}."
        )
        other = second_order(problem) or slower(optimizer, lower, AFFORDABLE)
        return told(kind, story, numbers, other)
    if rate is None:
        return told(kind, story, numbers, second_order(problem))
    reach = float(np.max(np.abs(start.newton))) if start.newton.any() else 1.0
    lower = min(rate / 10, max(10 * reach / max(steps, 2000), 1e-6 * rate))
    story.append(
        f"A Newton step from the start moves a param by at most {reach:.3g}; the rate is {short(rate)} a step."
    )
    return told(kind, story, numbers, coming_down(optimizer, lower, max(steps, 2000)))


def _seen(run: Fit, grown: float | None) -> str:
    where = f"after {run.steps:,} update{'s' * (run.steps != 1)}"
    if run.status == Status.NOT_FINITE:
        what = "the loss became NaN" if np.isnan(run.loss) else "a gradient was not finite while the loss still was"
    elif not np.isfinite(run.loss):
        what = f"the loss overflowed {run.precision or 'float32'}"
    else:
        what = f"the loss stood at {run.loss:.4g}, above its start of {float(run.start_loss):.4g}"
    return f"{where} {what}" + (f", growing {grown:,.3g}-fold a step." if grown and grown > 1.01 else ".")


def _beside(problem: Problem, start: View) -> Remedy:
    """A start a little to the side."""
    point = start.point + 0.05 * (1 + np.abs(start.point)) * np.random.default_rng(0).uniform(0.5, 1, start.point.shape)
    return Remedy("a start a little to the side", {"params": start_at(problem, point)})


# A run that went on to its end


def of_end(run: Fit) -> Finding:
    problem: Any = run.problem
    there = problem._replace(params=moved(marks_of(problem), run.params))
    here, seen = view(there), curve(run.history.loss)
    start_loss = float(run.start_loss if run.start_loss is not None else run.history.loss[0])
    share = here.excess / max(start_loss - here.loss + here.excess, 1e-300)
    numbers: dict[str, Any] = {
        "loss": here.loss, "gradient_norm": here.norm, "excess": here.excess, "sharpness": here.largest,
        "smallest": here.smallest, "condition": here.condition,
    }  # fmt: skip
    low = 0 <= here.loss < 1e-6 * start_loss
    if not here.finite:
        where = place(problem, ~np.isfinite(here.gradient))
        return told("not defined", [f"where it ended, {where} is not finite."], numbers, _beside(there, here))
    if here.idle.mean() > 0.1 and not low:
        return _dead(problem, here, numbers)
    if noisy(problem):
        return _noise(run, there, here, seen, numbers)
    stands = seen is None or abs(seen.recent_fall) < STANDS
    if not here.bends_down and (share < SETTLED or low) and here.largest > 0:
        return told("converged", _converged(run, here), numbers, None)
    found = downhill(there, here) if here.smallest < -1e-3 * here.largest else None
    rate, slack = rate_of(problem.optimizer), 1 - _momentum(problem.optimizer)
    if found is not None and _held(here, found[0], here.loss - found[1], rate, slack, run.steps):
        return _saddle(run, there, here, found, numbers)
    if seen is not None and (seen.rises > 0.15 and seen.swing > 1e-2 or _jumps(run, here, seen)):
        return _cycle(run, there, here, seen, numbers)
    if run.status == Status.CONVERGED:
        return told("converged", _converged(run, here), numbers, None)
    if found is not None and stands and _level(here, here.loss - found[1]):
        return _saddle(run, there, here, found, numbers)
    if stands and (here.bends_down or share > 0.5):
        return _plateau(run, there, here, numbers)
    return _descending(run, there, here, seen, numbers)


def _converged(run: Fit, here: View) -> list[str]:
    rule = "a stop rule was met" if run.status == Status.CONVERGED else "it has arrived, though no stop rule says so:"
    return [
        f"{rule} after {run.steps:,} updates; the gradient's norm is {here.norm:.3g}.",
        f"By the curvature the loss is {here.excess:.2g} above its least of {here.loss - here.excess:.6g}; condition "
        f"number {here.condition:.3g}.",
    ]


def _dead(problem: Problem, here: View, numbers: dict[str, Any]) -> Finding:
    dead = int(here.idle.sum())
    story = [
        f"{dead:,} of {len(here.idle):,} params ({place(problem, here.idle)}) have no gradient and no curvature: "
        f"nothing they could do would change the loss, as behind a relu that is never on or a tanh that always is."
    ]
    start = view(problem)
    point = redrawn(problem, start.point, start.idle if start.idle.any() else here.idle)
    return told("dead units", story, numbers | {"dead": dead}, _started_at(problem, point, "another start for those"))


def _noise(run: Fit, there: Problem, here: View, seen: Curve | None, numbers: dict[str, Any]) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), _limit(optimizer, here.largest)
    stands = seen is None or abs(seen.recent_fall) < 0.1
    story = [
        f"each step sees other data, and the params wander: the loss of all the data is {here.excess:.3g} above what "
        f"the curvature says is its least."
    ]
    start = min([x for x in (rate, limit and limit / 4) if x] or [0.01])
    if rate is None:
        return told("noise floor", story, numbers, Remedy("four times the steps", {"steps": 4 * steps}))
    need = 3 * here.steps_to(1e-2, start, _momentum(optimizer)) if limit else 0
    longer = int(min(max(4 * steps, 4000, need if np.isfinite(need) else 0), 10 * AFFORDABLE))
    return told("noise floor" if stands else "still descending", story, numbers, coming_down(optimizer, start, longer))


def _jumps(run: Fit, here: View, seen: Curve) -> bool:
    """Whether gradient descent falls ten times less than its slope promises: it crosses a kink to and fro."""
    rate, steps = rate_of(run.problem.optimizer), len(run.history.loss)
    if rate is None or _limit(run.problem.optimizer, 1.0) is None or here.largest > 0.1 / rate:
        return False
    fall = abs(seen.recent_fall) * (seen.first - seen.least) / (0.1 * steps)
    return abs(seen.recent_fall) < STANDS and rate * here.norm**2 > 10 * fall


def _cycle(run: Fit, there: Problem, here: View, seen: Curve, numbers: dict[str, Any]) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), _limit(optimizer, here.largest)
    numbers |= {"period": seen.period, "limit": limit, "rate": rate}
    period = f", with a period of about {seen.period} steps" if seen.period else ""
    story = [
        f"it swings and does not arrive: in the last fifth the loss rose in {100 * seen.rises:.0f} % of the steps"
        f"{period}."
    ]
    if rate is None:
        return told("limit cycle", story, numbers, second_order(there))
    if limit is not None and np.isfinite(limit) and rate > 0.5 * limit and not here.bends_down:
        story.append(
            f"The learning rate {short(rate)} is {times(rate / limit)} the limit {short(limit)} where it ended."
        )
        need = 1.5 * here.steps_to(GOAL, 0.5 * limit, _momentum(optimizer))
        if need <= AFFORDABLE:
            return told("limit cycle", story, numbers, slower(optimizer, limit / 2, max(steps, int(need))))
    return told("limit cycle", story, numbers, coming_down(optimizer, rate / 3, max(2 * steps, 4000)))


def _saddle(run: Fit, there: Problem, here: View, found: tuple[np.ndarray, float], numbers: dict[str, Any]) -> Finding:
    point, loss = found
    story = [
        f"it stands at a saddle: the gradient's norm is {here.norm:.3g}, but along one direction the loss curves down, "
        f"by {here.smallest:.3g} against {here.largest:.3g} upwards.",
        f"That way it falls from {here.loss:.6g} to {loss:.6g}.",
    ]
    return told("saddle", story, numbers, _started_at(there, point, "a start on that way", here.largest, least=100))


def _level(here: View, fall: float) -> bool:
    """Whether descent along the gradient has next to nothing to gain, beside what the way down has."""
    return here.norm**2 <= 0.1 * max(here.largest, abs(here.smallest)) * fall


def _held(here: View, point: np.ndarray, fall: float, rate: float | None, slack: float, steps: int) -> bool:
    """Whether leaving along the direction that curves down would take far longer than the run took."""
    distance = float(np.linalg.norm(point - here.point))
    ahead = abs(float(here.gradient @ here.downward)) / abs(here.smallest)
    if not _level(here, fall):
        return False
    if ahead < 1e-12 * distance or rate is None:
        return ahead < 1e-8 * distance
    return np.log(max(distance / ahead, 1.0)) / (rate / slack * abs(here.smallest)) > min(10 * steps, AFFORDABLE)


def _started_at(
    problem: Problem, point: np.ndarray, words: str, sharpness: float = 0.0, *, least: float = 30
) -> Remedy:
    """Another start, and a rate for it if the run's own is far from what the law allows there."""
    changes: dict[str, Any] = {"params": start_at(problem, point), "steps": max(int(problem.steps), 5000)}
    beyond = view(problem._replace(params=changes["params"]))
    limit, rate = _limit(problem.optimizer, max(beyond.largest, sharpness)), rate_of(problem.optimizer)
    if limit is not None and np.isfinite(limit) and rate and not limit / least < rate < limit / 4:
        new = limit / (100 if least == 100 and rate < limit else 10)
        changes["optimizer"] = with_rate(problem.optimizer, new)
        words += f", with learning_rate={short(new)}"
    return Remedy(words, changes)


def _plateau(run: Fit, there: Problem, here: View, numbers: dict[str, Any]) -> Finding:
    problem: Any = run.problem
    steep = slopes(there, here)
    story = [
        f"it stands on a plateau: the gradient's norm is {here.norm:.3g}, and the loss hardly curves "
        f"({here.largest:.3g})."
    ]
    if len(steep) > 1:
        least, most = min(steep, key=lambda k: steep[k]), max(steep, key=lambda k: steep[k])
        story.append(
            f"The gradient is least in {least} ({steep[least]:.2g}) and largest in {most} ({steep[most]:.2g})."
        )
    start = view(problem)
    found = smaller(problem, start)
    if found is None:
        return told("plateau", story, numbers, second_order(there))
    point, factor = found
    story.append(f"From a start {1 / factor:.3g} times smaller the slope is steeper.")
    return told("plateau", story, numbers, _started_at(problem, point, f"the start times {factor:.2g}"))


def _descending(run: Fit, there: Problem, here: View, seen: Curve | None, numbers: dict[str, Any]) -> Finding:
    optimizer, steps = there.optimizer, int(there.steps)
    rate, limit = rate_of(optimizer), _limit(optimizer, here.largest)
    uneven = scales(there)
    if limit is None or not np.isfinite(limit) or rate is None:
        return _descending_freely(run, there, here, numbers, rate, uneven)
    now = 1.5 * here.steps_to(GOAL, rate, _momentum(optimizer))
    fast = 1.5 * here.steps_to(GOAL, 0.5 * limit, _momentum(optimizer))
    numbers |= {"steps_needed": now, "limit": limit, "rate": rate}
    story = [
        f"the loss still falls; at this rate {count(now)} steps more would take off all but {GOAL:g} of the "
        f"{here.excess:.3g} that is left to gain."
    ]
    if here.bends_down:
        more = max(10 * steps, 5000)
        if rate < limit / 20:
            story.append(f"The rate {short(rate)} is {times(limit / rate)} below the limit {short(limit)}.")
            changed = {
                "params": start_at(there, here.point),
                "optimizer": with_rate(optimizer, limit / 4),
                "steps": more,
            }
            return told(
                "rate too small", story, numbers, Remedy(f"learning_rate={short(limit / 4)}, from here", changed)
            )
        return told("still descending", story, numbers, onward(there, here, more, f"{more:,} more steps, from here"))
    if now <= AFFORDABLE and now < 10 * fast:
        more = int(np.ceil(now))
        return told("still descending", story, numbers, onward(there, here, more, f"{more:,} more steps, from here"))
    if fast <= AFFORDABLE:
        story.append(f"The rate {short(rate)} is {times(limit / rate)} below the limit {short(limit)}.")
        more = max(int(np.ceil(fast)), 100)
        changed = {"params": start_at(there, here.point), "optimizer": with_rate(optimizer, limit / 2), "steps": more}
        advice = f"learning_rate={short(limit / 2)} and {more:,} steps, from here"
        return told("rate too small", story, numbers, Remedy(advice, changed))
    story.append(
        f"No rate below the limit {short(limit)} is fast: the condition number is {here.condition:.3g}{uneven}."
    )
    return told("badly scaled", story, numbers, second_order(there, start_at(there, here.point)))


def _descending_freely(
    run: Fit, there: Problem, here: View, numbers: dict[str, Any], rate: float | None, uneven: str
) -> Finding:
    """Of an optimizer whose pace no law tells."""
    optimizer, steps = there.optimizer, int(there.steps)
    reach = float(np.max(np.abs(here.newton))) if here.newton.any() else 0.0
    story = [f"the loss still falls: by the curvature there are {here.excess:.3g} left to gain."]
    if rate is not None and reach > rate * steps / 10 and not here.bends_down:
        story.append(f"The way that is left is {reach:.3g} for one param, and a step moves it by {short(rate)} or so.")
        return told("rate too small", story, numbers, second_order(there, start_at(there, here.point)))
    if here.bends_down:
        more, size = max(10 * steps, 5000), float(np.sqrt(np.mean(here.point**2)))
        if rate is not None and rate * steps < size:
            faster = 3 * size / steps
            story.append(f"In {steps:,} steps of {short(rate)} the params, of size {size:.2g}, could not go far.")
            changed = {"optimizer": with_rate(optimizer, faster), "params": start_at(there, here.point), "steps": more}
            return told("rate too small", story, numbers, Remedy(f"learning_rate={short(faster)}, from here", changed))
        return told("still descending", story, numbers, onward(there, here, more, f"{more:,} more steps, from here"))
    story.append(f"The condition number is {here.condition:.3g}{uneven}.")
    return told("badly scaled", story, numbers, second_order(there, start_at(there, here.point)))


# Words and small measures


def _limit(optimizer: Any, sharpness: float) -> float | None:
    """The law's learning rate for the plain Hessian, or None if there is none."""
    law = stability_limit(optimizer, sharpness)
    return float(law) if law.known and not law.preconditioned else None


def _momentum(optimizer: Any) -> float:
    b = optimizer.hyperparameters.get("momentum")
    return float(b) if b is not None and np.ndim(b) == 0 else 0.0
