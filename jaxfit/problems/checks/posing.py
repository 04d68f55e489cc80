"""The door: every verb's arguments come in here, and leave as a checked problem."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jaxfit.datasets import as_key
from jaxfit.losses import Loss, takes_data
from jaxfit.losses.base import label
from jaxfit.optimizers.building import as_optimizer
from jaxfit.problems.axes import Axis, is_array, is_axis
from jaxfit.problems.checks.data import as_data, check_data, floating_of_loss
from jaxfit.problems.checks.params import as_params, check_free
from jaxfit.problems.checks.training import (
    check_batches,
    check_gradient_known,
    check_key,
    check_methods,
    check_rate,
    check_scale_known,
    check_stop,
)
from jaxfit.problems.messages import shown
from jaxfit.problems.problems import PRECISIONS, Batches, Problem, Record, Stop, Training, whole
from jaxfit.problems.reading import seeds
from jaxfit.typing import KeyLike, OptimizerLike, PyTree


def pose(
    loss: Callable, params: PyTree, data: tuple, *, optimizer: OptimizerLike, steps: int, stop: Stop, record: Record,
    batches: Batches | None, key: KeyLike | None, validation: tuple | None, precision: str,
) -> Training:  # fmt: skip
    """Return the arguments of a run as a checked training, its numbers as the user gave them; axes may be anywhere."""
    _check_asked(loss, precision)
    if not isinstance(record, Record):
        raise TypeError(f"record is {record!r}, but it must be jf.Record(every=1, what=('loss',))")
    if batches is not None and not isinstance(batches, Batches):
        raise TypeError(f"batches is {batches!r}, but it must be a value such as jf.Batches(size=32)")
    example = loss.values[0] if is_axis(loss) else loss
    if batches is not None and not takes_data(example):
        raise ValueError(f"batches: {label(example)} takes no data of which rows could be drawn; leave batches out")
    problem = pose_question(loss, params, data, key, precision, rows=batches is not None)
    if validation is not None:
        validation = as_data(validation, "validation")
        validation = floating_of_loss(loss, params, validation, key, precision, "validation")
        check_data(validation, example, name="validation", precision=precision, rows=_by_row(example))
    elif "validation_loss" in record.what:
        raise ValueError('record asks for "validation_loss", but there are no validation data; pass validation=(x, y)')
    check_stop(stop, precision=precision, validation=validation)
    checked = _each(as_optimizer, optimizer)
    _each(lambda one: check_rate(one, precision), checked)
    _each(lambda one: check_gradient_known(one, stop, record), checked)
    _each(lambda one: check_scale_known(one, record), checked)
    training = Training(problem, checked, np.int32(whole("steps", steps)), stop, record, batches, validation)
    check_batches(training)
    check_methods(training)
    return training


def pose_question(
    loss: Callable, params: PyTree, data: tuple, key: KeyLike | None, precision: str, *, rows: bool = False
) -> Problem:  # fmt: skip
    """Return the arguments of a function that evaluates the loss as a checked problem; axes may stand anywhere.

    `rows` says that rows of the data will be drawn.
    """
    _check_asked(loss, precision)
    example = loss.values[0] if is_axis(loss) else loss
    data = floating_of_loss(loss, params, as_data(data), key, precision)
    check_data(data, example, precision=precision, rows=rows or _by_row(example))
    check_swept_numbers(loss)
    problem = Problem(_each(as_loss, loss), as_params(params, precision=precision), data, _as_keys(key))
    check_key(problem, drawn=rows)
    check_free(problem.params)
    return problem


def _check_asked(loss: object, precision: object) -> None:
    check_platform()
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f'precision is {precision!r}, but it must be "float32" or "float64"')
    if not (callable(loss) or is_axis(loss)):
        raise TypeError(
            f"loss is {shown(loss)}, but it must be a function loss(params, *data) -> scalar, such as "
            f"jf.losses.mse(model), itself and not its value"
        )


def _by_row(loss: Callable) -> bool:
    return isinstance(loss, Loss) and loss.by_row


def check_platform() -> None:
    """Refuses to run where JAX is told to use what is not there; it says so by an assertion, or at length.

    Raises:
      RuntimeError: With what was asked for, and what there is.
    """
    try:
        jax.default_backend()
    except (AssertionError, RuntimeError) as error:
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise RuntimeError(
            f"JAX is told to use the platform {jax.config.jax_platforms!r}, which is not here{why}; set "
            f"JAX_PLATFORMS=cpu, which is everywhere, or leave it out for the best there is; for an NVIDIA GPU install "
            f'"jaxfit-toolkit[cuda]"'
        ) from error


def refuse_axes(verb: str, problem: Problem | Training) -> None:
    """Refuses the axes of a sweep, for a verb of one run."""
    axes = [x for x in jax.tree.leaves(problem, is_leaf=is_axis) if is_axis(x)]
    if axes:
        raise ValueError(
            f"{axes[0]!r} stands for many runs, but {verb} makes one: pass one of its values, or call sweep"
        )


def _each(f: Callable, x: PyTree) -> PyTree:
    """f of x, or an axis of f of its values."""
    return Axis(x.name, [f(v) for v in x.values], x.labels) if is_axis(x) else f(x)


def as_loss(loss: Callable) -> Callable:
    """The loss as a pytree: its own, if it is one, or a `Partial` whose function is part of the program."""
    leaves = jax.tree.leaves(loss)
    return jax.tree_util.Partial(loss) if len(leaves) == 1 and leaves[0] is loss else loss


def check_swept_numbers(loss: Callable) -> None:
    """Refuses an axis of numbers that a loss of jaxfit's would refuse one by one."""
    for path, axis in jax.tree_util.tree_leaves_with_path(loss, is_leaf=is_axis):
        name = getattr(path[-1], "name", None) if path else None
        if is_axis(axis) and is_array(axis.values) and name in ("delta", "strength", "scale"):
            values = np.asarray(axis.values)
            bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)) | ((values == 0) & (name == "delta")))
            if bad.size:
                rule = "finite, and " + ("positive" if name == "delta" else "zero or more")
                raise ValueError(
                    f"{name} is {values[bad[0]]} (value {bad[0]} of axis {axis.name!r}); it must be {rule}"
                )


def _as_keys(key: PyTree) -> PyTree:
    return seeds(key) if is_axis(key) else None if key is None else as_key(key)
