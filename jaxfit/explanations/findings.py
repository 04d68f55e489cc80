"""Changes to a call of `fit`, each with its advice in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import optax

from jaxfit import schedules
from jaxfit.explanations.local_models import (
    LocalModel,
    free_leaves,
    gradients_at,
    leaf_name,
    leaf_names,
    local_model,
    losses_at,
)
from jaxfit.losses import Loss, takes_key
from jaxfit.optimizers import Optimizer, lbfgs, levenberg_marquardt
from jaxfit.optimizers.building import with_rate
from jaxfit.optimizers.stability import is_concrete_number, stability_limit
from jaxfit.problems import Problem, Training
from jaxfit.problems.marks import Bounded, Fixed, free, is_mark, released, unflattened, values_of
from jaxfit.typing import ArrayLike, PyTree
from jaxfit.verbs.summaries import round_down, short, start_at

AFFORDABLE = 20_000  # updates; if more are needed, another method is proposed
GOAL = 1e-4  # of the excess of the loss: what the proposed number of steps leaves


Numbers: TypeAlias = dict[str, Any]  # those that a story tells, by name
Changes: TypeAlias = dict[str, Any]  # keyword arguments of `jf.fit` that replace those of a run


class Remedy(NamedTuple):
    """A change to a call of `fit`."""

    advice: str
    changes: Changes


def rate_of(optimizer: Optimizer) -> float | None:
    """Return the learning rate, if it is one number."""
    rate = optimizer.hyperparameters.get("learning_rate")
    return None if rate is None or callable(rate) or np.ndim(rate) else float(rate)


def noisy(training: Training) -> bool:
    """Return whether the loss differs from step to step."""
    return training.batches is not None or takes_key(training.problem.loss)


def second_order(training: Training, start: PyTree | None = None) -> Remedy | None:
    """Return the remedy of Levenberg-Marquardt if there are enough residuals, else of L-BFGS; None for a noisy loss."""
    if noisy(training):
        return None
    problem = training.problem
    changes: Changes = {"precision": "float64"} | ({} if start is None else {"params": start})
    count = sum(int(np.size(x)) for x in jax.tree.leaves(free(problem.params)))
    known = isinstance(problem.loss, Loss) and problem.loss.knows_residuals
    if known and count <= 200 and _residuals(problem) >= count:
        changes |= {"optimizer": levenberg_marquardt(), "steps": 500}
        words = "levenberg_marquardt(), which no scale of params or data slows down, in float64 and up to 500 steps"
    else:
        changes |= {"optimizer": lbfgs(), "steps": 5000}
        words = "lbfgs(), which learns the curvature, in float64 and up to 5,000 steps"
    if training.optimizer.name == changes["optimizer"].name:
        changes |= {"optimizer": training.optimizer, "steps": 10 * int(training.steps)}
        words = f"{changes['steps']:,} steps in float64"
    return Remedy(words + ("" if start is None else ", from here"), changes)


def _residuals(problem: Problem) -> int:
    try:
        params = values_of(problem.params)
        blocks = jax.eval_shape(lambda p, d: problem.loss.blocks(released(p), *d), params, problem.data)
    except Exception:  # noqa: BLE001 (a user's loss may refuse; then there are none)
        return 0
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves([b.residuals for b in blocks]))


def slower(optimizer: Optimizer, rate: float, steps: int) -> Remedy:
    """Return the remedy of a lower learning rate."""
    rate = round_down(rate)
    changes: Changes = {"optimizer": with_rate(optimizer, rate), "steps": steps}
    return Remedy(f"learning_rate={short(rate)} and {steps:,} steps", changes)


def decaying(optimizer: Optimizer, rate: float, steps: int) -> Remedy:
    """Return the remedy of a learning rate that decreases to zero as a cosine."""
    changes: Changes = {"optimizer": with_rate(optimizer, schedules.cosine(rate, float(steps))), "steps": steps}
    return Remedy(f"a decreasing rate: jf.schedules.cosine({short(rate)}, {steps:,}) and {steps:,} steps", changes)


def from_here(problem: Problem, here: LocalModel, advice: str, changes: Changes) -> Remedy:
    """Return the remedy of a start at the end of the run, with other changes."""
    return Remedy(f"{advice}, from here", changes | {"params": start_at(problem, here.point)})


def downhill(problem: Problem, here: LocalModel) -> tuple[np.ndarray, float] | None:
    """Return the best point along the direction of most negative curvature, both ways, and its loss."""
    size = max(float(np.linalg.norm(here.point)), 1.0)
    lengths = size * np.geomspace(1e-3, 3.0, 24)
    points = here.point + np.concatenate([lengths, -lengths])[:, None] * here.downward
    losses = losses_at(problem, points)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    lowest = int(np.argmin(losses))
    return (points[lowest], float(losses[lowest])) if losses[lowest] < here.loss else None


def redrawn(problem: Problem, point: np.ndarray, idle: np.ndarray) -> np.ndarray:
    """Return the point with idle params redrawn: normal of variance 2 / fan-in in matrices, zero in vectors."""
    rng, parts = np.random.default_rng(0), []
    for _, leaf, own in free_leaves(problem):
        size, shape = int(np.size(leaf)), np.shape(leaf)
        new = rng.normal(size=size) * np.sqrt(2 / shape[0]) if len(shape) > 1 else np.zeros(size)
        parts.append(np.where(idle[own], new, point[own]))
    return np.concatenate(parts)


def smaller_start(problem: Problem, start: LocalModel, which: ArrayLike = True) -> tuple[np.ndarray, float] | None:
    """Return the start times the factor, of ten, with the largest gradient; None if none increases the gradient.

    Multiplied are the params of the mask `which`; a gradient that is not finite is the least.
    """
    factors = np.geomspace(0.02, 1.0, 10)
    points = [np.where(which, f * start.point, start.point) for f in factors]
    models = [local_model(problem._replace(params=start_at(problem, point))) for point in points]
    slopes = [one.norm if one.finite else -1.0 for one in models]
    best = int(np.argmax(slopes))
    return (points[best], float(factors[best])) if slopes[best] > max(1.1 * slopes[-1], 0) else None


@dataclass(frozen=True)
class Finding:
    """What happened to a run, and what to change; the fields are those of `jf.Explanation`."""

    kind: str
    story: tuple[str, ...]
    numbers: Numbers
    advice: str
    remedy: Changes


def finding(kind: str, story: list[str], numbers: Numbers, remedy: Remedy | None) -> Finding:
    """Return a finding with the sentences that are not empty."""
    advice, changes = remedy if remedy is not None else ("", {})
    return Finding(kind, tuple(s for s in story if s), numbers, advice, changes)


def without_influence(problem: Problem, here: LocalModel, numbers: Numbers) -> Finding | None:
    """Return the finding of params without influence: their gradient is zero here and at random points, near and far.

    The points lie on both sides: a unit behind a relu is silent on one of them only.
    """
    sizes = np.array([0.1, 1, 3, 10, 30, 100])
    ways = sizes[:, None] * np.random.default_rng(0).normal(size=(len(sizes), here.point.size))
    places = [*ways, *-ways, *(here.point + sign * (1 + np.abs(here.point)) * way for way in ways for sign in (1, -1))]
    losses, gradients = gradients_at(problem, np.stack(places))
    finite = np.isfinite(losses) & np.isfinite(gradients).all(axis=1)
    if not finite.any() or gradients[finite][:, here.idle].any():
        return None
    names = leaf_names(problem, here.idle)
    story = [f"the data do not determine {names}: there the gradient is zero, here and elsewhere."]
    held = _held_fixed(problem.params, here.idle)
    remedy = None if held is None else Remedy(f"jf.Fixed for {names}", {"params": held})
    return finding("not determined", story, numbers | {"without_influence": int(here.idle.sum())}, remedy)


def _held_fixed(params: PyTree, idle: np.ndarray) -> PyTree | None:
    """Return the start with the idle params fixed; None if a leaf is idle in part, or all are idle."""
    leaves, structure = jax.tree.flatten(params, is_leaf=is_mark)
    masks = structure.flatten_up_to(unflattened(idle, free(params)))  # None for what is fixed or tied
    if idle.all() or any(mask is not None and mask.any() != mask.all() for mask in masks):
        return None
    values = [x.value if isinstance(x, Bounded) else x for x in leaves]
    held = [Fixed(value) if mask is not None and mask.all() else x
            for x, value, mask in zip(leaves, values, masks, strict=True)]  # fmt: skip
    return jax.tree.unflatten(structure, held)


def dead_units(training: Training, start: LocalModel, here: LocalModel, numbers: Numbers) -> Finding:
    """Return the finding of params without gradient and curvature, with another start for them."""
    problem, count = training.problem, int(here.idle.sum())
    story = [
        f"{count:,} of {len(here.idle):,} params ({leaf_names(problem, here.idle)}) have no gradient and no curvature: "
        f"no change of them changes the loss, as behind a relu that is always zero, a saturated tanh, or in a peak "
        f"where there are no data."
    ]
    point = _with_influence(problem, start.point, start.idle if start.idle.any() else here.idle)
    remedy = started_at(training, point, f"another start for these{_values(problem, start.point, point)}")
    return finding("dead units", story, numbers | {"dead": count}, remedy)


def _values(problem: Problem, old: np.ndarray, new: np.ndarray) -> str:
    """Return the new values of the params that differ, such as ", m=6, s=1"; "" if one of them is in an array."""
    changed = [(path, leaf, own) for path, leaf, own in free_leaves(problem) if (old[own] != new[own]).any()]
    if any(np.ndim(leaf) for _, leaf, _ in changed):
        return ""
    return "".join(f", {leaf_name(path)}={new[own][0]:.4g}" for path, _, own in changed)


PARTS = 9  # places among the data where a param without influence is tried
UNFELT = 1e-12  # of the loss: what a step of a param's own size changes at most where it has no influence


def _with_influence(problem: Problem, point: np.ndarray, idle: np.ndarray) -> np.ndarray:
    """Return the point with idle params redrawn; where the gradient by them is still lost in rounding, or not finite,
    the lowest of those with one of them at zero or among the data, or all at one, where it is neither.

    A peak of height and width zero is redrawn in vain; at a place among the data it meets them.
    """
    ones = np.where(idle, 1.0, point)
    among = [0.0, *_among_data(problem)]
    single = [np.where(np.arange(point.size) == i, value, point) for i in np.flatnonzero(idle)[:64] for value in among]
    places = np.stack([redrawn(problem, point, idle), ones, *single])
    losses, gradients = gradients_at(problem, places)
    felt = np.abs(gradients * np.maximum(np.abs(places), 1)) > UNFELT * np.abs(losses)[:, None]
    fine = np.isfinite(losses) & np.isfinite(gradients).all(axis=1) & felt[:, idle].any(axis=1)
    return places[0 if fine[0] or not fine.any() else np.argmin(np.where(fine, losses, np.inf))]


def _among_data(problem: Problem) -> np.ndarray:
    """Return values that divide the first data into parts of as many points, if each point is one number."""
    x = np.asarray(problem.data[0]) if problem.data else np.zeros(0)
    if x.ndim != 1 or not x.size or x.dtype.kind not in "iuf" or not np.isfinite(x).all():
        return np.zeros(0)
    return np.quantile(x, np.linspace(0, 1, PARTS + 2)[1:-1])


def displaced(training: Training, start: LocalModel) -> Remedy:
    """Return the remedy of a start displaced by about 5 %, or of a smaller one where that is not defined either."""
    point = start.point + 0.05 * (1 + np.abs(start.point)) * np.random.default_rng(0).uniform(0.5, 1, start.point.shape)
    better, problem, broken = None, training.problem, ~np.isfinite(start.gradient)
    if broken.any() and not local_model(problem._replace(params=start_at(problem, point))).finite:
        better = smaller_start(problem, start, broken)
    if better is not None:
        return started_at(training, better[0], f"{leaf_names(problem, broken)} times {better[1]:.2g}", least=np.inf)
    return started_at(training, point, "a start a little to the side", least=np.inf)


def started_at(
    training: Training, point: np.ndarray, words: str, sharpness: float = 0.0, *, least: float = 30
) -> Remedy:
    """Return the remedy of another start, with a learning rate for it.

    If the stability limit is known, the learning rate of the run stays unless it is far from the limit; else the rate
    decreases to zero, because the right one is not known.
    """
    problem, optimizer, rate = training.problem, training.optimizer, rate_of(training.optimizer)
    changes: Changes = {"params": start_at(problem, point), "steps": max(int(training.steps), AFFORDABLE)}
    steps = changes["steps"]
    if rate is not None and (law_limit(optimizer, 1.0) is None or noisy(training)):
        down = decaying(optimizer, rate, steps)
        return Remedy(f"{words}, with {down.advice}", changes | down.changes)
    if rate is None:
        return Remedy(with_numbers(words, training, steps), changes)
    limit = law_limit(optimizer, max(local_model(problem._replace(params=changes["params"])).largest, sharpness))
    if limit is not None and np.isfinite(limit) and not limit / least < rate < limit / 4:
        new = limit / (100 if least == 100 and rate < limit else 10)
        changes["optimizer"] = with_rate(optimizer, new)
        return Remedy(with_numbers(words, training, steps, new), changes)
    return Remedy(with_numbers(words, training, steps), changes)


def with_numbers(words: str, training: Training, steps: int, rate: float | None = None) -> str:
    """Return advice with its learning rate if there is a new one, and with its steps if they are not the run's own."""
    numbers = [f"learning_rate={short(rate)}"] if rate is not None else []
    numbers += [f"{steps:,} steps"] if steps != training.steps else []
    return f"{words}, with {' and '.join(numbers)}" if numbers else words


def law_limit(optimizer: Optimizer, sharpness: float) -> float | None:
    """Return the stability limit of the learning rate, or None if no law without a preconditioner is known."""
    law = stability_limit(optimizer, sharpness)
    return float(law) if law.known and not law.preconditioned else None


def momentum_of(optimizer: Optimizer) -> float:
    b = optimizer.hyperparameters.get("momentum")
    return float(b) if b is not None and is_concrete_number(b) else 0.0


def farthest_move(optimizer: Optimizer, rate: float, steps: int) -> float:
    """Return how far a param can move in `steps` of an optimizer whose step length does not depend on the gradient's.

    The k-th step of Adagrad is rate / sqrt(k) if the gradient stays the same.
    """
    return rate * (2 * np.sqrt(steps) if optimizer.call.function is optax.adagrad else steps)
