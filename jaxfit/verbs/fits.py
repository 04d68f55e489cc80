"""A single run from start to end: `fit`, and its result `Fit`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import jax
import numpy as np

from jaxfit.engine.host import interruption, out_of_memory_told, progress_bar, stretches, terminating_as_interrupted
from jaxfit.engine.loops import Best, End, State, unrolled
from jaxfit.engine.ranges import warn_of_overflow
from jaxfit.engine.settings import happened
from jaxfit.engine.single import Programs, prepare
from jaxfit.engine.tracing import check_alive, inspect_training
from jaxfit.losses import model_of, takes_key
from jaxfit.optimizers import Optimizer
from jaxfit.problems.axes import holds_call, is_array, is_axis, is_traced, resolve
from jaxfit.problems.checks.data import as_data, beyond_range, floating, has_large_indices
from jaxfit.problems.checks.posing import as_params, check_schedule, pose
from jaxfit.problems.enclosed import in_precision, resolved
from jaxfit.problems.marks import is_marked, plain, put
from jaxfit.problems.meanings import ATTRIBUTES
from jaxfit.problems.messages import near_attribute, near_keywords
from jaxfit.problems.problems import (
    ENDED_WELL,
    Batches,
    Problem,
    Record,
    Status,
    Stop,
    Training,
    chosen_precision,
    convert_all,
    name_of,
    precision_context,
)
from jaxfit.stores.checkpoints import Checkpoint, Saved, holding_file
from jaxfit.stores.files import as_path
from jaxfit.typing import Array, ArrayLike, KeyLike, OptimizerLike, PyTree, Scalar
from jaxfit.verbs import summaries
from jaxfit.verbs.histories import History

Result = TypeVar("Result")
LOSS, LOSSES = Record(what=("loss",)), Record(what=("loss", "validation_loss"))


@dataclass(frozen=True, eq=False)
class Known:
    """The fields of a fit that are not arrays.

    All of these compare equal, so that functions of fits are not compiled again for every problem. For the same reason
    a compiled function must not keep the values of its first call: if a leaf is traced, they are dropped.
    """

    training: Training | None = None
    precision: str | None = None
    note: str | None = None
    absolute_sigma: bool | None = None
    labels: dict[str, str] | None = None  # those of the coordinates that are no numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known)

    def __hash__(self) -> int:
        return hash(Known)


@dataclass(frozen=True, eq=False)
class Fit:
    """A run that has ended, with its final params, loss and status; a pytree.

    Attributes:
      params: Like the start.
      loss: () the loss of all data at params.
      status: A `Status`: how the run ended. If the run failed, params are those where the failure was first seen.
      steps: The number of updates up to params.
      history: `step` and everything that was recorded; the record of step k is after k updates, and step 0 is the
        start. None for a lane of a sweep that recorded nothing.
      validation_loss: () at params, or None.
      best_params, best_validation_loss, best_step: With patience, where the validation loss was lowest among the
        records and the end (NaN if it never was a number); otherwise None.
      coords: The coordinates of a lane in its sweep; None for a single fit.
      problem: The loss, the start, the data and the key of the run, with the user's own arrays; None for a fit that
        comes out of the caller's own `jax.jit` or `jax.vmap`. Its params keep the marks `Fixed`, `Bounded` and `Tied`.
      training: The problem with all other arguments of the run; None where `problem` is.
      absolute_sigma: Whether sigma is in the units of y, as given to `curve_fit`; None for other fits.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> run = jf.curve_fit(jf.models.line, None, (x, y))
      >>> type(run).__name__, run.status.name, round(float(run.loss), 3)
      ('Fit', 'CONVERGED', 32.204)
      >>> [round(float(v), 2) for v in run.predict([32.0, 212.0])]
      [-0.13, 96.49]
    """

    params: PyTree
    loss: Scalar
    status: Scalar
    steps: Scalar
    history: History | None = None
    validation_loss: Scalar = None
    coords: dict[str, Any] | None = None
    start_loss: Scalar = field(default=None, repr=False)
    training: Training | None = field(default=None, repr=False)
    precision: str | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)
    absolute_sigma: bool | None = field(default=None, repr=False)
    best_params: PyTree = field(default=None, repr=False)
    best_validation_loss: Scalar = field(default=None, repr=False)
    best_step: Scalar = field(default=None, repr=False)

    @property
    def problem(self) -> Problem | None:
        return None if self.training is None else self.training.problem

    @property
    def optimizer(self) -> Optimizer | None:
        return None if self.training is None else self.training.optimizer

    def predict(self, x: ArrayLike) -> Array | np.ndarray:
        """Return the prediction of the loss's model at x, with the params of the fit; for a classifier, the logits.

        Args:
          x: Inputs, as in the data.

        Raises:
          TypeError: If the loss has no model of its own, or one that takes a key.
        """
        model = None if self.problem is None else model_of(self.problem.loss)
        if model is None or takes_key(model):
            why = "forgot its problem" if self.problem is None else f"is of {name_of(self.problem.loss)}"
            raise TypeError(
                f"predict needs the fit of a loss of a model, such as jf.losses.mse(model), but this one {why}; call "
                f"the model itself: model(fit.params, x)"
            )
        precision = self.precision or "float32"
        (x,) = floating(as_data((x,), "x"), lambda given: model(self.params, *given), precision, "x")
        with in_precision(precision, model):
            found = model(self.params, convert_all(x, precision))
        return np.asarray(found) if precision == "float64" else found

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            own = [*(f.name for f in fields(self)), "problem", "optimizer", "predict"]
            raise AttributeError(near_attribute("a fit", name, ATTRIBUTES, own))

    def __repr__(self) -> str:
        leaves = jax.tree.leaves((self.params, self.loss, self.status, self.steps))
        if any_traced(leaves):
            return "Fit(traced)"
        if not all(isinstance(x, (int, float)) or is_array(x) for x in leaves) or not _is_status(self.status):
            return f"Fit({', '.join(f'{name}={getattr(self, name)!r}' for name in _FIT_LEAVES[:4])})"
        return summaries.summary_of_lanes(self) if np.ndim(self.status) else summaries.summary(_single(self))


def problem_of(fit: Fit, verb: str = "") -> Problem:
    """Return the problem of a fit.

    Raises:
      ValueError: As `training_of`.
    """
    return training_of(fit, verb).problem


def recorded(fit: Fit, name: str, who: str = "the fit") -> PyTree:
    """Return what a fit recorded under a name.

    Raises:
      ValueError: If it recorded no such thing; the message begins with `who`.
    """
    if fit.history is None or name not in fit.history:
        raise ValueError(f"{who} did not record its {name}; run it with record=jf.Record(what=('loss', {name!r}))")
    return fit.history[name]


def training_of(fit: Fit, verb: str = "") -> Training:
    """Return the training of a fit.

    Raises:
      ValueError: If the fit went through a transformation that dropped it; the message begins with the verb.
    """
    if fit.training is None:
        raise ValueError(
            f"{verb}{': ' * bool(verb)}the fit no longer knows its loss and data, which a jit or another "
            f"transformation of pytrees drops; use it as jf.fit returned it"
        )
    return fit.training


def pages() -> Any:
    """Return the pages, which lie above and are imported only when one is asked for, as `jf.plots` is."""
    return importlib.import_module("jaxfit.pages")


def any_traced(leaves: list) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in leaves)


def _is_status(status: object) -> bool:
    return bool(np.isin(np.asarray(status), list(Status)).all())


def _single(fit: Fit) -> Fit:
    """Return the fit with plain scalars instead of arrays, and its history only if it is that of a single run."""
    history = fit.history if fit.history is not None and np.ndim(fit.history["step"]) == 1 else None
    loss = np.asarray(fit.loss)[()]
    return replace(fit, loss=loss, status=Status(int(fit.status)), steps=int(fit.steps), history=history)


def _flatten(fit: Fit) -> tuple:
    coords = fit.coords or {}
    labels = {name: value for name, value in coords.items() if isinstance(value, str)}
    numbers = {name: getattr(fit, name) for name in _FIT_LEAVES}
    numbers["coords"] = fit.coords and {name: value for name, value in coords.items() if name not in labels}
    known = Known(fit.training, fit.precision, fit.note, fit.absolute_sigma, labels)
    traced = any_traced(jax.tree.leaves(numbers))
    return [(jax.tree_util.GetAttrKey(n), x) for n, x in numbers.items()], Known() if traced else known


def _unflatten(known: Known, children: Iterable) -> Fit:
    numbers: dict[str, Any] = dict(zip(_FIT_LEAVES, children, strict=True))
    if any_traced(jax.tree.leaves(list(numbers.values()))) or getattr(numbers["loss"], "ndim", 0):
        return Fit(**numbers)
    for name, kind in (("status", Status), ("steps", int)):  # as a map to NumPy arrays leaves them
        if isinstance(numbers[name], np.ndarray) and numbers[name].dtype.kind == "i":
            numbers[name] = kind(int(numbers[name]))
    kept = vars(known).copy()
    if labels := kept.pop("labels"):
        numbers["coords"] = labels | numbers["coords"]
    return Fit(**numbers, **kept)


_FIT_LEAVES = (
    "params", "loss", "status", "steps", "history", "validation_loss", "coords", "start_loss", "best_params",
    "best_validation_loss", "best_step",
)  # fmt: skip
jax.tree_util.register_pytree_with_keys(Fit, _flatten, _unflatten)


class NotConverged(RuntimeError):
    """A run, or at least one lane of a sweep, did not converge; raised by `require_converged`.

    Example:
      >>> short = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=2)
      >>> try:
      ...     jf.require_converged(short)
      ... except jf.NotConverged:
      ...     print("more steps are needed")
      more steps are needed
    """


@near_keywords
def require_converged(result: Result) -> Result:
    """Return a fit or a grid unchanged if every run in it converged.

    Args:
      result: A `Fit` or a `Grid`.

    Raises:
      NotConverged: If a run did not converge; the message says how it ended and what to do next.
      TypeError: If `result` is neither a fit nor a grid, or is traced.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> run = jf.require_converged(jf.curve_fit(jf.models.line, None, (x, y)))
      >>> round(float(run.params["w"]), 3)
      0.537
    """
    if isinstance(result, Fit):
        if isinstance(result.status, jax.core.Tracer):
            raise TypeError(
                "require_converged: the fit is traced, so that nobody knows yet how it ends; call it on what the jit, "
                "vmap or grad returns"
            )
        if not np.all(np.asarray(result.status) == Status.CONVERGED):
            raise NotConverged(str(result))
        return result
    if not hasattr(result, "results"):
        raise TypeError(
            f"require_converged takes a fit or a grid, but got a {type(result).__name__}; pass what jf.fit or jf.sweep "
            f"returned"
        )
    status = np.asarray(result.results.status)
    failed = status != Status.CONVERGED
    if failed.any():
        first = dict(zip(result.results.status.dims, np.argwhere(failed)[0].tolist(), strict=True))
        counts = ", ".join(f"{int((status == s).sum()):,} {s.name}" for s in Status if (status == s).any())
        raise NotConverged(
            f"{int(failed.sum()):,} of {status.size:,} lanes did not converge ({counts}); the first is at {first}"
        )
    return result


@near_keywords
def fit(
    loss: Callable,
    params: PyTree,
    data: tuple = (),
    *,
    optimizer: OptimizerLike,
    steps: int = 1000,
    stop: Stop = Stop(),  # noqa: B008 (frozen)
    record: Record | None = None,
    batches: Batches | None = None,
    key: KeyLike | None = None,
    validation: tuple | None = None,
    progress: bool | None = None,
    precision: str | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Fit:
    """Minimize a loss by the steps of an optimizer.

    Args:
      loss: Any pure function loss(params, *data) -> scalar. If it has an argument `key`, it gets the key of each step.
      params: The start: any pytree. Whole numbers become floats; every float takes the precision of the run. `Fixed`,
        `Bounded` and `Tied` may be leaves; results are plain numbers in the same tree.
      data: Passed to the loss after params.
      optimizer: `jf.optimizers.adam(0.1)`, `jf.optimizer(factory, ...)`, or a transformation of Optax.
      steps: The largest number of updates.
      stop: Conditions that end the run earlier.
      record: What the history holds; by default the loss of every step. With batches it is the loss of the batch.
      batches: Use random rows in each step instead of all data; needs a key.
      key: A PRNG key or a seed. Step t draws with fold_in(key, t).
      validation: Other data for the loss, which is evaluated on them but not trained on them.
      progress: Whether to show a progress bar on stderr; by default only in a terminal.
      precision: "float32" or "float64", whatever JAX's global setting. By default float64 for Levenberg-Marquardt; for
        all others as JAX has it: float64 where `jax_enable_x64` is on and params or data have 64 bits, else float32.
        float64 results are NumPy arrays.
      checkpoint: A file in which to save a long run every few seconds. The same call resumes where the run stopped and
        ends with the same bits; after the end it returns the saved result at once. A call that would give other bits is
        refused.

    Returns:
      A `Fit`. A run that fails is not an error: its `status` says so. Inside of `jax.jit`, `jax.vmap` or `jax.grad` the
      run is one masked scan, its fields are traced, and checks that need numbers are skipped.

    Raises:
      ValueError, TypeError: For bad input, before anything compiles.
      Interrupted: On Ctrl-C; its `result` is the run so far.
      OutOfMemory: If a step takes more memory than the device has.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> loss, start = jf.losses.rss(jf.models.line), {"w": 0.0, "b": 0.0}
      >>> run = jf.fit(loss, start, (x, y), optimizer=jf.optimizers.levenberg_marquardt())
      >>> run.status.name, round(float(run.params["w"]), 3), round(float(run.params["b"]), 2)
      ('CONVERGED', 0.537, -17.3)
    """
    precision = chosen_precision(precision, params, data, optimizer=optimizer)
    if record is None:
        record = LOSS if validation is None else LOSSES
    training = pose(
        loss, params, data, optimizer=optimizer, steps=steps, stop=stop, record=record, batches=batches, key=key,
        validation=validation, precision=precision,
    )  # fmt: skip
    if has_large_indices(training.problem.data):
        warn_of_overflow(training.problem, precision)
    count = int(training.steps)
    if checkpoint is not None:
        as_path("checkpoint", checkpoint)
    leaves = jax.tree.leaves(training, is_leaf=is_axis)
    swept = [x for x in leaves if is_axis(x)]
    if swept:
        raise ValueError(f"fit got {swept[0]}, but runs one problem; call sweep with the same arguments")
    if is_traced(leaves):
        check_alive(training)
        _check_untraced(checkpoint)
        return _traced_fit(convert_all(training, traced_precision(precision)), count)
    with precision_context(precision):
        if holds_call(training.problem.params):
            training = training.at(as_params(resolved(training.problem.params, precision), precision=precision))
        check_schedule(training.optimizer, count)
        programs, leaves = prepare(training, precision)
        if programs.captured:
            _check_untraced(checkpoint)
            return _traced_fit(programs.training(leaves), count)
        with out_of_memory_told(_SMALLER):
            if checkpoint is None:
                return _run(training, programs, leaves, count, precision, progress)
            with terminating_as_interrupted(), holding_file(checkpoint, programs, leaves, precision) as file:
                return _run(training, programs, leaves, count, precision, progress, file)


_SMALLER = (
    "make a step smaller, by batches=jf.Batches(size) or jax.checkpoint around a part of the loss "
    "(jf.backward_memory counts the bytes)"
)


def _check_untraced(checkpoint: object) -> None:
    if checkpoint is not None:
        raise TypeError(
            f"checkpoint is {str(checkpoint)!r}, but inside of a jit, vmap or grad nothing is written; call fit outside"
        )


def traced_precision(precision: str) -> str:
    if precision == "float64" and not jax.config.jax_enable_x64:
        raise ValueError(
            'precision is "float64", but inside of a jit, vmap or grad of your own that needs 64-bit types there: '
            'wrap the outermost call in `with jax.enable_x64(True):`, or pass precision="float32"'
        )
    return precision


def _traced_fit(training: Training, steps: int) -> Fit:
    training = training.at(as_params(resolve(training.problem.params)))
    problem = training.problem
    inspect_training(training)
    state, rows, end = unrolled(training, steps)
    every = training.record.every
    history = History({"step": np.arange(0, steps + 1, every), **rows})
    return Fit(
        plain(put(problem.params, state.params)),
        end.loss,
        state.status,
        state.steps,
        history,
        end.validation_loss,
        start_loss=state.start_loss,
        **best_of(state.best, lambda params: plain(put(problem.params, params))),
    )


def best_of(best: Best | None, own: Callable = lambda params: params) -> dict[str, Any]:
    """The fields of a fit that tell where its validation loss was lowest; `own` makes the user's tree of params."""
    if best is None:
        return {}
    return {"best_params": own(best.params), "best_validation_loss": best.validation_loss, "best_step": best.step}


def _run(
    training: Training,
    programs: Programs,
    leaves: list,
    total: int,
    precision: str,
    progress: bool | None,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    every = training.record.every
    pieces: list[dict[str, PyTree]] = []
    status, made, end, t = Status.NOT_RUN, 0, None, 0
    saved = None if checkpoint is None else checkpoint.load()
    latest: Saved | None = None
    if saved is None:
        state = programs.begin(leaves)
    else:
        state, pieces, end, t, _ = saved
        status, made = Status(int(state.status)), int(state.steps)
    bar = progress_bar(total, progress, "steps")
    bar.update(made)
    try:
        left = 0 if saved and saved.ended else total - t
        for count in stretches(left, programs.capacity * every, every, programs.pace):
            state, rows, end = _segment(programs, leaves, every, state, t, count)
            status, made = Status(int(state.status)), int(state.steps)
            if made == 0:
                _check_start(training, precision, state.start_loss)
            ended = status != Status.NOT_RUN
            kept = (made - t) // every + 1 if ended else count // every
            pieces.append(jax.tree.map(lambda x, k=kept: np.asarray(x)[:k], rows))
            t += count
            latest = Saved(state, list(pieces), end, t, ended or t >= total)
            if checkpoint is not None and (latest.ended or checkpoint.due()):
                checkpoint.save(latest)
            bar.update(made - bar.n)
            bar.set_postfix_str(f"loss {float(end.loss):.4g}", refresh=False)
            if ended:
                break
    except KeyboardInterrupt:
        interrupted = True
        if checkpoint is not None and latest is not None:
            checkpoint.save(latest)
    else:
        interrupted = False
    finally:
        bar.close()
    result: Any = None if end is None else _finished(training, state, status, made, end, pieces, precision)
    if interrupted:
        kept = "" if checkpoint is None else f", kept in {checkpoint.path}: the same call goes on from there"
        raise interruption(f"interrupted after {made:,} of {total:,} steps{kept}; .result holds the run so far", result)
    return result


def _check_start(training: Training, precision: str, loss: Scalar) -> None:
    """A start outside of where the loss is defined is an error; data too large for the precision are a status."""
    if not np.isfinite(loss) and beyond_range(training.problem.data, precision) is None:
        raise ValueError(
            f"the loss at the start is {float(loss)}: params are outside of where the loss is defined; start from "
            f"params at which it is finite"
        )


def _segment(programs: Programs, leaves: list, every: int, state: State, t: int, count: int) -> tuple:
    """One stretch of updates. Without a stop rule no step is judged, and a stretch that met trouble is run again."""
    happened("stretch", count)
    span = np.int32(t), np.int32(count)
    if not programs.judges_steps:
        new, rows, end = programs.plain(leaves, state, *span)
        losses = np.asarray(rows["loss"])[: -(-count // every)] if "loss" in rows else ()
        if np.isfinite(end.loss) and np.isfinite(losses).all() and int(new.status) != Status.NOT_FINITE:
            return new, rows, end
    return programs.judged(leaves, state, *span)


def _joined(*parts: np.ndarray) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _finished(
    training: Training,
    state: State,
    status: Status,
    made: int,
    end: End,
    pieces: list[dict[str, PyTree]],
    precision: str,
) -> Fit:
    rows = jax.tree.map(_joined, *pieces)
    every = training.record.every
    records = made // every + 1 if status != Status.NOT_RUN else -(-made // every)
    own = (lambda x: np.asarray(x)[()]) if precision == "float64" else (lambda x: x)
    loss = np.asarray(end.loss)[()]
    problem = training.problem
    start = convert_all(problem.params, precision) if is_marked(problem.params) else problem.params

    def users_own(params):
        return jax.tree.map(own, plain(put(start, params)))

    best = state.best and Best(state.best.params, *(np.asarray(x)[()] for x in state.best[1:]))
    fine = status in ENDED_WELL and loss > np.finfo(loss.dtype).tiny
    return Fit(
        params=users_own(state.params),
        loss=loss,
        status=status,
        steps=made,
        history=History({"step": np.arange(records) * every, **rows}),
        validation_loss=None if end.validation_loss is None else np.asarray(end.validation_loss)[()],
        start_loss=np.asarray(state.start_loss)[()],
        training=training,
        precision=precision,
        note=None if fine else beyond_range((*problem.data, *(training.validation or ())), precision),
        **best_of(best, users_own),
    )
