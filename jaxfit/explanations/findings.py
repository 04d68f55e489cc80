"""What a diagnosis returns, and the small measures that all of them share."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax

from jaxfit.curvature.limits import with_rate
from jaxfit.explanations.remedies import AFFORDABLE, Remedy, coming_down, noisy, rate_of, redrawn, start_at
from jaxfit.explanations.views import View, view
from jaxfit.explanations.words import place
from jaxfit.outcomes import short
from jaxfit.problems import Problem
from jaxfit.stability import is_number, stability_limit

Finding = tuple[str, list[str], dict[str, Any], str, dict[str, Any]]  # kind, story, numbers, advice, changes


def told(kind: str, story: list[str], numbers: dict[str, Any], remedy: Remedy | None) -> Finding:
    """A finding, without the sentences that say nothing."""
    advice, changes = remedy if remedy is not None else ("", {})
    return kind, [s for s in story if s], numbers, advice, changes


def dead(problem: Problem, start: View, here: View, numbers: dict[str, Any]) -> Finding:
    """Params that nothing moves, and a start at which they would be moved."""
    count = int(here.idle.sum())
    story = [
        f"{count:,} of {len(here.idle):,} params ({place(problem, here.idle)}) have no gradient and no curvature: "
        f"nothing they could do would change the loss, as behind a relu that is never on or a tanh that always is."
    ]
    point = redrawn(problem, start.point, start.idle if start.idle.any() else here.idle)
    return told("dead units", story, numbers | {"dead": count}, started_at(problem, point, "another start for those"))


def beside(problem: Problem, start: View) -> Remedy:
    """A start a little to the side."""
    point = start.point + 0.05 * (1 + np.abs(start.point)) * np.random.default_rng(0).uniform(0.5, 1, start.point.shape)
    return started_at(problem, point, "a start a little to the side", least=np.inf)


def started_at(problem: Problem, point: np.ndarray, words: str, sharpness: float = 0.0, *, least: float = 30) -> Remedy:
    """Another start, and what the learning rate has to be there.

    Where a law tells the limit the run's own rate is kept, unless it is far from that; else it comes down to nothing,
    since there is no telling how small it must become.
    """
    changes: dict[str, Any] = {"params": start_at(problem, point), "steps": max(int(problem.steps), AFFORDABLE)}
    optimizer, rate, steps = problem.optimizer, rate_of(problem.optimizer), changes["steps"]
    if rate is None:
        return Remedy(words, changes)
    if law_limit(optimizer, 1.0) is None or noisy(problem):
        down = coming_down(optimizer, rate, steps)
        return Remedy(f"{words}, with {down.advice}", changes | down.changes)
    limit = law_limit(optimizer, max(view(problem._replace(params=changes["params"])).largest, sharpness))
    if limit is not None and np.isfinite(limit) and not limit / least < rate < limit / 4:
        new = limit / (100 if least == 100 and rate < limit else 10)
        changes["optimizer"] = with_rate(optimizer, new)
        words += f", with learning_rate={short(new)}"
    return Remedy(words, changes)


def law_limit(optimizer: Any, sharpness: float) -> float | None:
    """The law's learning rate for the plain Hessian, or None if there is none."""
    law = stability_limit(optimizer, sharpness)
    return float(law) if law.known and not law.preconditioned else None


def momentum_of(optimizer: Any) -> float:
    b = optimizer.hyperparameters.get("momentum")
    return float(b) if is_number(b) else 0.0


def reach(optimizer: Any, rate: float, steps: int) -> float:
    """How far steps of an optimizer that takes no heed of the gradient's size can move a param; Adagrad's get shorter.

    Its k-th step is rate / sqrt(k) where the gradient stays as it is.
    """
    return rate * (2 * np.sqrt(steps) if optimizer.call.function is optax.adagrad else steps)
