"""Learning rates, and schedules of them, that a run could not use."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.datasets import refuse_unit
from jaxfit.losses import Loss, takes_key
from jaxfit.optimizers import Optimizer
from jaxfit.optimizers.hyperparameters import check_hyperparameter, schedules_of
from jaxfit.optimizers.stability import has_preconditioner, unknown
from jaxfit.problems.axes import is_array, is_axis
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.messages import warn
from jaxfit.problems.problems import PRECISIONS, Problem, Record, Stop, Training, whole
from jaxfit.typing import LossFunction, PyTree, Scalar


def check_rate(optimizer: Optimizer, precision: str) -> None:
    """Refuses a learning rate that the precision rounds to zero or infinity."""
    rate = optimizer.hyperparameters.get("learning_rate")
    numbers = rate.values if is_axis(rate) else rate
    if isinstance(numbers, jax.core.Tracer) or not (is_array(numbers) or isinstance(numbers, float)):
        return
    limits = np.finfo(PRECISIONS[precision])
    if isinstance(numbers, float) and limits.tiny <= numbers <= limits.max:
        return
    numbers = np.atleast_1d(np.asarray(numbers, np.float64))
    bad = np.flatnonzero((numbers > limits.max) | (numbers < limits.tiny))
    if bad.size:
        raise ValueError(
            f"learning_rate is {numbers[bad[0]]:g}, which {precision} cannot hold; it must lie between "
            f"{limits.tiny:.1g} and {limits.max:.1g}: choose other units for the data"
            + (', or precision="float64"' * (precision == "float32"))
        )


def check_schedule(optimizer: Optimizer, steps: int) -> None:
    """Refuse a schedule that does not give one number which its hyperparameter can be, at the first step and the last.

    A learning rate may be zero in some steps.
    """
    for name, schedule in schedules_of(optimizer).items():
        for t in (0, steps - 1):
            with enclosed_in_precision(schedule):
                value: Scalar = schedule(jnp.int32(t))
            if isinstance(value, jax.core.Tracer) and value.shape == ():
                continue
            if not (isinstance(value, (int, float)) or is_array(value)) or np.shape(value) != ():
                found = f"shape {np.shape(value)}" if is_array(value) else reprlib.repr(value)
                raise ValueError(
                    f"{name}: the schedule returned {found} at step {t}, but it must return one number, a scalar"
                )
            if name == "learning_rate":
                if not 0 <= float(value) < np.inf:
                    raise ValueError(
                        f"{name}: the schedule returned {float(value):.6g} at step {t}; it must be finite, zero or more"
                    )
            else:
                check_hyperparameter(f"{optimizer.name}, at step {t}", name, float(value))
    for part in optimizer.hyperparameters.values():
        if isinstance(part, Optimizer):
            check_schedule(part, steps)


def check_gradient_known(optimizer: Optimizer, stop: Stop, record: Record) -> None:
    """Refuses to watch or record the gradient of a method that finds none."""
    if optimizer.traits.finds_gradient:
        return
    asked = [f"record: {name}" for name in ("gradient", "gradient_norm") if name in record.what]
    asked += ["Stop: gradient_norm_below"] if stop.gradient_norm_below is not None else []
    if asked:
        raise ValueError(
            f"{asked[0]} is asked for, but {optimizer.name} finds no gradient; watch or record the loss or the params"
        )


def check_scale_known(optimizer: Optimizer, record: Record) -> None:
    """Refuses to record the preconditioner of an optimizer that has none."""
    if "preconditioner" in record.what and not has_preconditioner(optimizer):
        raise ValueError(f"record: preconditioner is asked for, but {unknown(optimizer)}; leave it out")


def check_stop(stop: Stop, *, precision: str, validation: tuple | None) -> None:
    """Refuses a rule that cannot work, and warns of one that cannot be met in the precision."""
    if not isinstance(stop, Stop):
        raise TypeError(f"stop is {stop!r}, but it must be a value such as jf.Stop(gradient_norm_below=1e-4)")
    eps, tiny = float(np.finfo(PRECISIONS[precision]).eps), float(np.finfo(PRECISIONS[precision]).tiny)
    for name, value in vars(stop).items():
        refuse_unit(f"Stop: {name}", value)
        numbers = value.values if is_axis(value) else value
        if value is None or isinstance(numbers, jax.core.Tracer):
            continue
        numbers = np.asarray(numbers)
        if numbers.dtype.kind not in "iuf" or (numbers.ndim and not is_axis(value)) or np.isnan(numbers).any():
            raise ValueError(
                f"Stop: {name} is {reprlib.repr(value)}, but it must be a number, or None for no such rule"
            )
        least = eps / 100 if name in ("gradient_norm_below", "params_change_below") else tiny
        if least != tiny and (numbers <= 0).any():
            raise ValueError(f"Stop: {name} is {value!r}, but a norm is never below that; it must be positive")
        if name != "patience" and ((0 < numbers) & (numbers < least)).any():
            warn(
                f"Stop: {name}={np.min(numbers):.3g} is below what {precision} can tell from zero here, {least:.1g}, "
                f"so that it may never be met; raise it" + (', or use precision="float64"' * (precision == "float32"))
            )
        if name == "patience":
            if (numbers < 1).any() or (numbers % 1 != 0).any():
                raise ValueError(f"Stop: patience is {value!r}, but it counts records: a whole number, at least 1")
            if validation is None:
                raise ValueError(
                    "Stop: patience watches the validation loss, but there is none; pass validation=(x, y)"
                )


def check_key(problem: Problem, *, drawn: bool) -> None:
    """Refuses randomness without a key: of a loss, or of batches that are drawn."""
    if problem.key is not None:
        return
    if drawn:
        raise ValueError("key is None, but batches are drawn at random; pass a seed, key=0, or a key of jax.random.key")
    if any(map(takes_key, _each(problem.loss))):
        raise ValueError("key is None, but the loss takes a key; pass a seed, key=0, or a key of jax.random.key")


def check_batches(training: Training) -> None:
    """Refuses batches that the data cannot fill."""
    batches = training.batches
    if batches is None:
        return
    data = jax.tree.leaves(training.problem.data, is_leaf=is_axis)
    shapes = [np.shape(x.values)[1:] if is_axis(x) else np.shape(x) for x in data]
    rows = next((shape[0] for shape in shapes if shape), 0)
    for position, size in enumerate(_each(batches.size)):
        where = f" (value {position} of axis {batches.size.name!r})" if is_axis(batches.size) else ""
        if whole(f"batches: size{where}", size) > rows:
            raise ValueError(
                f"batches: size is {size}{where}, but the data have {rows} points; a batch takes from 1 to {rows}"
            )


def _each(x: PyTree) -> Sequence:
    """The values of an axis, or the one value."""
    return x.values if is_axis(x) else [x]


def check_methods(training: Training) -> None:
    """Refuses what a method cannot work with: a loss without residuals, batches, randomness."""
    losses = _each(training.problem.loss)
    for optimizer in _each(training.optimizer):
        if is_axis(optimizer):
            check_methods(replace(training, optimizer=optimizer))
            continue
        name, traits = optimizer.name, optimizer.traits
        if traits.deterministic:
            if training.batches is not None:
                raise ValueError(
                    f"batches: {name} compares the losses of different steps, so every step needs all the data; "
                    f"leave batches out, or use an optimizer such as jf.optimizers.adam(1e-2)"
                )
            if any(map(takes_key, losses)):
                raise ValueError(
                    f"loss: {name} compares the losses of different steps, which a random one changes; use a loss "
                    f"without a key, or an optimizer such as jf.optimizers.adam(1e-2)"
                )
        if traits.residuals:
            for loss in losses:
                _check_residuals(name, loss)


def _check_residuals(name: str, loss: LossFunction) -> None:
    if not (isinstance(loss, Loss) and loss.knows_residuals):
        shown = getattr(getattr(loss, "func", loss), "__name__", None) or repr(loss)
        raise TypeError(
            f"loss: {name} needs the residuals behind the loss, which {shown} does not tell; write a function "
            f"residuals(params, *data) and pass jf.losses.least_squares(residuals), or use mse, rss, chi_squared or "
            f"huber of jf.losses with any penalties of its own; any loss does for jf.optimizers.lbfgs()"
        )
