"""Explanations of runs that failed: diverged, non-finite, without a valid start, params ran away, stopped early.

Also of gradients that vanish or explode from layer to layer, because of the start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxfit.curvature.lanczos import Extreme
from jaxfit.explanations import local_models
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
    with_numbers,
)
from jaxfit.explanations.local_models import (
    LocalModel,
    free_leaves,
    leaf_names,
    local_model,
    marks_of,
    steps_text,
    times_text,
)
from jaxfit.losses import l2
from jaxfit.optimizers.building import with_rate
from jaxfit.optimizers.stability import limit_from_growth
from jaxfit.problems import Problem, Status, Training
from jaxfit.problems.marks import Bounded, Fixed, Tied, flattened, free, is_mark, put, unflattened
from jaxfit.verbs import summaries
from jaxfit.verbs.evaluations import Arguments, at_one
from jaxfit.verbs.results import Fit, problem_of, training_of
from jaxfit.verbs.summaries import Runaway, advice, growth, short, start_at, three_digits

HIGH = 100  # times the first loss: a loss that ended lower did not grow from step to step
FAR = 20  # the largest factor by which a limit from the growth at the end may be below that at the start
SEEN = 3  # updates from which on a loss is seen to grow from step to step, or not to
ROOM = 100  # times its start: the bounds that are proposed for a runaway param
FALL, RISE = 1e3, 100  # a gradient vanishes or explodes if slopes differ by these factors between last and first layers
FLAT = 1e-4  # of the loss: a layer is flat if a change by its own size would change the loss by less, to first order
STAYED = 0.01  # of a layer's norm: a layer that moved less has not been trained
LOW = 1e-6  # of the first loss: a run that reached it has no such problem
SIZES = 10.0 ** np.arange(-12, 13)  # by which the start of a runaway param is multiplied
GAINS = np.geomspace(0.5, 16, 16)  # by which the matrices of a new start are multiplied


def finding_of_trouble(run: Fit) -> Finding:
    """Return the finding of a run that diverged or became not finite."""
    training = training_of(run)
    problem, optimizer, start = training.problem, training.optimizer, local_model(training.problem)
    kind = "diverged" if run.status == Status.DIVERGED else "not finite"
    rate, steps = rate_of(optimizer), int(training.steps)
    numbers: Numbers = {"steps": run.steps, "start_loss": start.loss, "sharpness": start.largest, "rate": rate}
    grown = growth(run)
    stood = run.status == Status.DIVERGED and np.isfinite(run.loss)
    growing = f", growing {summaries.growth_text(grown)} a step" if grown and grown > 1.01 else ""
    began = f" of {float(run.start_loss):.4g}" if stood else ""
    seen = f"{summaries.after_updates(run)} {summaries.failure_seen(run)}{began}{growing}."
    if run.note:
        return finding("out of range", [seen, f"{run.note}."], numbers, second_order(training))
    if not start.finite:
        where = "the loss itself"
        if np.isfinite(start.loss):
            where = f"the gradient in {leaf_names(problem, ~np.isfinite(start.gradient))}"
        story = [seen, f"At the start {where} is not finite, so that no step can be made from there."]
        return finding("not defined", story, numbers, displaced(training, start))
    if start.idle.mean() > 0.5:
        dead = dead_units(training, start, start, numbers)
        return replace(dead, story=(seen, *dead.story))
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
    sudden = run.steps < SEEN  # too soon to tell how it grows
    unseen = start.left - start.excess > GOAL * start.left  # along directions that are flat in the units of the params
    if rate < limit and not grows:
        story.append(
            f"At the start the law would allow {short(limit)}, more than the learning rate {short(rate)}: the loss "
            f"is steeper elsewhere."
        )
        return finding(kind, story, numbers, decaying(optimizer, rate / 3, max(2 * steps, 4000)))
    story.append(
        f"The learning rate {short(rate)} is {times_text(rate / limit)} the limit {short(limit)}, above which every "
        f"step overshoots by more than the one before."
    )
    lower = min(limit / 2, rate / 2)
    if np.isnan(run.loss):
        story.append("The loss is not defined everywhere: near the edge steps must be smaller than the law says.")
        lower /= 5
    if noisy(training):
        return finding(kind, story, numbers, decaying(optimizer, lower / 2, max(10 * steps, 4000)))
    need = np.inf if unseen else 1.5 * start.steps_to(GOAL, lower, momentum_of(optimizer))
    if not grows and not (sudden and need > AFFORDABLE and not start.bends_down):
        if not sudden:
            story.append("It does not grow from step to step, so that it is steeper elsewhere than at the start.")
        return finding(kind, story, numbers, decaying(optimizer, lower, max(10 * steps, 4000)))
    if limit < max(limits) / FAR:
        story.append(
            f"That is by its growth at the end; at the start the law would allow {short(max(limits))}: the loss is no "
            f"quadratic, and grew the faster the higher it was."
        )
        return finding(kind, story, numbers, decaying(optimizer, min(max(limits), rate) / FAR, AFFORDABLE))
    numbers |= {"condition": start.condition, "steps_needed": need}
    if start.bends_down:
        need = max(5.0 * steps, 5000)
    if need <= AFFORDABLE:
        longer = int(np.ceil(max(steps, min(10 * need, AFFORDABLE))))  # away from the start it may be flatter
        return finding(kind, story, numbers, slower(optimizer, lower, longer))
    story.append(
        f"Below it gradient descent would need about {steps_text(need)} steps, since the condition number is "
        f"{three_digits(start.condition)}{local_models.scales(training.problem)}."
    )
    return finding(kind, story, numbers, second_order(training) or slower(optimizer, lower, AFFORDABLE))


def finding_of_runaways(run: Fit, far: Sequence[Runaway]) -> Finding:
    """Return the finding of runaway params; the remedy is another start, another method, or bounds."""
    training = training_of(run)
    problem, thrown = training.problem, _thrown(training, far)
    story = [
        f"{summaries.ran_away(far)}.",
        f"The loss is {float(run.loss):.6g} there" + ", and the same at a tenth of that" * far[0].flat + ".",
        thrown,
    ]
    remedy = (second_order(training) if thrown else _elsewhere(problem, far)) or _bounded(problem, far)
    numbers = {"loss": float(run.loss), "runaways": {one.name: (one.start, one.end) for one in far}}
    return finding("runaway params", story, numbers, remedy)


def finding_of_separation(run: Fit, sentence: str) -> Finding:
    """Return the finding of yes-or-no data that no finite params describe best; the remedy is a penalty."""
    loss: Any = problem_of(run).loss
    remedy = Remedy("the loss with a penalty, + jf.losses.l2(0.01)", {"loss": loss + l2(0.01)})
    return finding("separated outcomes", [f"{sentence}."], {"loss": float(run.loss)}, remedy)


def _elsewhere(problem: Problem, far: Sequence[Runaway]) -> Remedy | None:
    """Return the start with the other sign or another size of the runaway params, if the loss is lower there.

    Another size is one at which the loss is lower than at a tenth and at ten times of it: at infinity, where the params
    went, it may be lower still. None if a param is bounded.
    """
    if any(isinstance(x, Bounded) for x in jax.tree.leaves(problem.params, is_leaf=is_mark)):
        return None
    start, ran = flattened(free(problem.params)), [one.place for one in far]
    alone = np.where(np.arange(start.size) == np.array(ran[:4])[:, None], 1.0, 0.0)  # (k, n)
    turned = 1 - 2 * np.vstack([np.isin(np.arange(start.size), ran)[None], alone])
    sized = 1 + (np.outer([1, -1], SIZES)[:, None, :, None] - 1) * alone[:, None]  # (2, k, sizes, n)
    factors = np.vstack([turned, sized.reshape(-1, start.size)])
    here, *found = local_models.losses_at(problem, np.vstack([start, factors * start]))
    losses = np.where(np.isfinite(found), found, np.inf)
    ladders = losses[len(turned) :].reshape(-1, len(SIZES))
    beside = np.minimum(ladders[:, :-2], ladders[:, 2:])
    ladders[:, 1:-1] = np.where(ladders[:, 1:-1] < (1 - FLAT) * beside, ladders[:, 1:-1], np.inf)
    ladders[:, [0, -1]] = np.inf
    best = int(np.argmin(losses))
    if not losses[best] < here:
        return None
    new = factors[best] * start
    how = "with the other sign" if best < len(turned) else "of another size"
    values = ", ".join([f"{one.name}={new[one.place]:.4g}" for one in far if new[one.place] != one.start][:4])
    return Remedy(f"a start {how}, {values}", {"params": start_at(problem, new)})


def _thrown(training: Training, far: Sequence[Runaway]) -> str:
    """Return a sentence if the first step of gradient descent is far longer than a runaway param, otherwise ""."""
    rate = rate_of(training.optimizer)
    if rate is None or law_limit(training.optimizer, 1.0) is None or noisy(training):
        return ""
    start = flattened(free(training.problem.params))
    slopes = local_models.gradients_at(training.problem, start[None])[1][0]
    steps = [rate * abs(slopes[one.place]) for one in far]
    names = [one.name for one, step in zip(far, steps, strict=True) if step > FAR * abs(one.start) > 0]
    return f"A step from the start moves {', '.join(names[:4])} by more than {FAR} times the start." if names else ""


def _bounded(problem: Problem, far: Sequence[Runaway]) -> Remedy:
    """Return bounds for the runaway params, of the same sign as their start and within a factor of a hundred of it."""
    leaves, structure = jax.tree.flatten(problem.params, is_leaf=is_mark)
    ran = np.isin(np.arange(flattened(free(problem.params)).size), [one.place for one in far])
    masks = structure.flatten_up_to(unflattened(ran, free(problem.params)))  # None for what is fixed or tied

    def leaf(x, which):
        if which is None or not which.any():
            return x
        value, below, above = (x.value, x.low, x.high) if isinstance(x, Bounded) else (x, None, None)
        start = np.asarray(value, np.float64)
        size = np.where(start == 0, 1.0, np.abs(start))
        low = np.where(which, np.where(start > 0, size / ROOM, -size * ROOM), -np.inf)
        high = np.where(which, np.where(start < 0, -size / ROOM, size * ROOM), np.inf)
        low = low if below is None else np.fmax(low, below)
        high = high if above is None else np.fmin(high, above)
        return Bounded(value, low[()], high[()])

    params = jax.tree.unflatten(structure, map(leaf, leaves, masks))
    names = ", ".join(one.name for one in far[:4])
    return Remedy(f"jf.Bounded for {names}, within {ROOM} times the start", {"params": params})


def finding_of_patience(run: Fit) -> Finding:
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


def finding_of_pruning(run: Fit) -> Finding:
    """Return the finding of a lane that a rule of its sweep stopped; how it would have ended is not known."""
    numbers = {"steps": int(run.steps), "loss": float(run.loss)}
    steps = int(training_of(run).steps)
    remedy = Remedy(f"run it alone for all {steps:,} steps", {"steps": steps})
    return finding("pruned", [advice(run)], numbers, remedy)


class Layer(NamedTuple):
    """The leaves of one layer."""

    name: str
    where: np.ndarray  # (k,) positions of its numbers among the free params


class LayerSlopes(NamedTuple):
    """Slopes and changes of the layers of a run, from the first to the last."""

    layers: list[Layer]
    start: np.ndarray  # (n,) the free params
    slopes: np.ndarray  # (layers,) at the start
    moved: np.ndarray  # (layers,) distance from start to end over the norm at the start
    flat: bool  # whether all layers are flat, at the start and at 1.1 times the start


def finding_of_layers(run: Fit) -> Finding | None:
    """Return a finding if the gradient vanishes or explodes across layers and so kept the loss high; else None."""
    training = training_of(run)
    layers, first, goal = layers_of(training.problem), float(run.history.loss[0]), training.stop.loss_below
    met = goal is not None and run.loss < float(goal)
    if not layers or met or not np.isfinite(first) or run.loss < LOW * first:
        return None
    profile = layer_slopes(run, layers)
    if not (np.isfinite(profile.slopes).all() and (profile.slopes > 0).all()):
        return None
    third = -(-len(layers) // 3)
    early, late, trend = profile.slopes[:third], profile.slopes[-third:], _trend(profile.slopes)
    failed = run.status in (Status.DIVERGED, Status.NOT_FINITE) or run.loss > 0.5 * first
    falls = late.max() > FALL * early.min() and trend > 0.8
    if falls and (profile.moved[0] < STAYED or failed) or profile.flat and failed:
        return _finding_of(training, profile, "vanishing gradient")
    seen = summaries.curve(run.history.loss)
    jumps = seen is not None and (seen.rises > 0.15 or abs(seen.recent_fall) < summaries.STANDS)
    if early.max() > RISE * late.min() and trend < -0.8 and (failed or jumps):
        return _finding_of(training, profile, "exploding gradient")
    return None


def layers_of(problem: Problem) -> list[Layer]:
    """Return the layers that have a matrix, in the order of their names and numbers; none if fewer than three.

    The leaves of a layer have the same parent in a nested tree, such as [3] of a list of {"w": , "b": }; in a flat tree
    they have the same number at the end of their names, such as w3 and b3.
    """
    by_layer: dict[str, list[np.ndarray]] = {}
    matrices = set()
    for path, leaf, own in free_leaves(problem):
        names = [jax.tree_util.keystr((key,), simple=True) for key in path]
        number = re.search(r"\d+$", names[-1]) if names else None
        name = ".".join(names[:-1]) if len(names) > 1 else number.group() if number else "".join(names)
        by_layer.setdefault(name, []).append(np.arange(own.start, own.stop))
        if np.ndim(leaf) > 1:
            matrices.add(name)
    ordered = sorted(matrices, key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)])
    return [Layer(name, np.concatenate(by_layer[name])) for name in ordered] if len(ordered) > 2 else []


def layer_slopes(run: Fit, layers: list[Layer]) -> LayerSlopes:
    """Return the slopes at the start of a run, and how far the run moved each layer."""
    problem = problem_of(run)
    marked = marks_of(problem)
    start, end = (flattened(free(marks)) for marks in (marked, put(marked, run.params)))
    _, near = local_models.gradients_at(problem, np.stack([start, 1.1 * start]))
    gains = np.array([[abs(g[layer.where] @ start[layer.where]) for layer in layers] for g in near])
    sizes = np.array([max(np.linalg.norm(start[layer.where]), 1e-300) for layer in layers])
    far = np.array([np.linalg.norm((end - start)[layer.where]) for layer in layers])
    flat = bool(np.all(gains < FLAT * abs(float(run.history.loss[0]))))
    return LayerSlopes(layers, start, slopes_at(layers, near[0], start), far / sizes, flat)


def slopes_at(layers: list[Layer], gradient: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return (layers,) norms of the gradient over those of the params."""
    norms = [[np.linalg.norm(v[layer.where]) for layer in layers] for v in (gradient, point)]
    return np.array(norms[0]) / np.maximum(norms[1], 1e-300)


def _trend(slopes: np.ndarray) -> float:
    """Return the rank correlation of slopes with the order of the layers: 1 if they increase from layer to layer."""
    ranks = np.argsort(np.argsort(slopes))
    return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])


def _finding_of(training: Training, profile: LayerSlopes, kind: str) -> Finding:
    layers, slopes, far = profile.layers, profile.slopes, profile.moved
    listed = ", ".join(f"layer {layer.name}: {slope:.0e}" for layer, slope in zip(layers, slopes, strict=True))
    ratio = slopes.max() / slopes.min()
    numbers: Numbers = {
        "slopes": dict(zip([layer.name for layer in layers], slopes.tolist(), strict=True)),
        "moved": dict(zip([layer.name for layer in layers], far.tolist(), strict=True)), "ratio": float(ratio),
    }  # fmt: skip
    first, last = layers[0].name, layers[-1].name
    less = "smaller" if kind == "vanishing gradient" else "larger"
    story = [
        f"at the start the gradient, over the size of the params, is {short(ratio)} times {less} in the first layers "
        f"than in the last."
    ]
    if profile.flat:
        story = [f"at the start the gradient of every layer is almost zero: at most {slopes.max():.0e} of its params."]
    story.append(f"{listed}.")
    if kind == "vanishing gradient" and not profile.flat:
        story.append(f"So the run moved layer {first} by {far[0]:.0e} of its size, layer {last} by {far[-1]:.0e}.")
    better_start = balanced(training.problem, profile)
    if better_start is None:
        return finding(kind, story, numbers, second_order(training))
    point, gain, left = better_start
    story.append(
        f"With orthogonal matrices whose rows and columns sum to zero, times {gain:.2g}, the slopes are within "
        f"{times_text(left)} of each other."
    )
    return finding(kind, story, numbers, _begun(training, point, f"a start of such matrices, times {gain:.2g}"))


def _begun(training: Training, point: np.ndarray, words: str) -> Remedy:
    """Return the remedy of another start, with a learning rate from the sharpness there.

    Unlike `started_at` it computes no whole `LocalModel`, which is expensive for a deep network.
    """
    problem, optimizer, rate = training.problem, training.optimizer, rate_of(training.optimizer)
    new = None
    changes: Changes = {"params": start_at(problem, point), "steps": max(int(training.steps), AFFORDABLE)}
    if rate is None:
        return Remedy(with_numbers(words, training, changes["steps"]), changes)
    if law_limit(optimizer, 1.0) is None:
        size = float(np.sqrt(np.mean(point**2)))
        down = decaying(optimizer, rate if size / 1000 < rate < size / 30 else size / 200, changes["steps"])
        return Remedy(f"{words}, with {down.advice}", changes | down.changes)
    arguments = Arguments(problem._replace(params=changes["params"]), None, 1e-2)
    limit = law_limit(optimizer, float(at_one(Extreme(1, "largest"), arguments, "float64")[0].values[0]))
    if limit is not None and np.isfinite(limit) and not limit / 10 < rate < limit / 4:
        rate = new = limit / 10
        changes["optimizer"] = with_rate(optimizer, rate)
    if noisy(training):
        down = decaying(optimizer, rate, changes["steps"])
        return Remedy(f"{words}, with {down.advice}", changes | down.changes)
    return Remedy(with_numbers(words, training, changes["steps"], new), changes)


def balanced(problem: Problem, profile: LayerSlopes) -> tuple[np.ndarray, float, float] | None:
    """Return a start with similar slopes in all layers: (free params, gain, largest slope over the smallest).

    Its matrices are orthogonal, which preserves norms. Their rows and columns sum to zero, which removes the mean of
    the activations, such as 1/2 of a sigmoid. For each of 16 gains the ratio |gradient| |params| / loss is computed in
    every layer; the gain is chosen whose worst layer has a ratio nearest to one. Vectors and bounded leaves stay.
    Returns None if the largest slope over the smallest is not at least halved, unless all layers were flat.

    Source: Saxe, McClelland and Ganguli (2014), arXiv:1312.6120; Pennington, Schoenholz and Ganguli (2017),
    arXiv:1711.04735.
    """
    drawn, at, parts = np.random.default_rng(0), 0, []
    matrix = np.zeros(len(profile.start), bool)
    for leaf in jax.tree.leaves(marks_of(problem), is_leaf=is_mark):
        if isinstance(leaf, (Fixed, Tied)):
            continue
        value = np.asarray(leaf.value if isinstance(leaf, Bounded) else leaf, float)
        leaf_numbers = value.ravel()
        if value.ndim > 1 and not isinstance(leaf, Bounded):
            leaf_numbers = orthogonal(drawn, int(np.prod(value.shape[:-1])), value.shape[-1]).ravel()
            matrix[at : at + leaf_numbers.size] = True
        parts.append(leaf_numbers)
        at += leaf_numbers.size
    unit = np.concatenate(parts)
    points = np.where(matrix, GAINS[:, None] * unit, unit)
    losses, gradients = local_models.gradients_at(problem, points)
    slopes = np.array([slopes_at(profile.layers, g, p) for g, p in zip(gradients, points, strict=True)])
    sizes = np.array([[np.linalg.norm(p[layer.where]) for layer in profile.layers] for p in points])
    with np.errstate(all="ignore"):
        worst = np.abs(np.log(slopes * sizes**2 / np.abs(losses)[:, None])).max(axis=1)
    if not np.isfinite(worst).any():
        return None
    best = int(np.nanargmin(np.where(np.isfinite(worst), worst, np.nan)))
    ratio = float(slopes[best].max() / slopes[best].min())
    better = profile.flat or ratio < profile.slopes.max() / profile.slopes.min() / 2
    return (points[best], float(GAINS[best]), ratio) if better else None


def orthogonal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return a matrix (rows, columns) with equal nonzero singular values.

    Rows and columns sum to zero if they are longer than two. The singular values are one, or sqrt(columns / rows) if
    there are more columns than rows.
    """
    matrix = rng.normal(size=(rows, columns))
    matrix = matrix - matrix.mean(axis=0) if rows > 2 else matrix
    matrix = matrix - matrix.mean(axis=1, keepdims=True) if columns > 2 else matrix
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return np.sqrt(max(1, columns / rows)) * (left * (values > 1e-9 * values[0])) @ right
