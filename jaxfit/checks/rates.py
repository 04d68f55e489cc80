"""Learning rates, and schedules of them, that a run could not use."""

from __future__ import annotations

import reprlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit.enclosed import enclosed_in_precision
from jaxfit.markers import is_array, is_axis
from jaxfit.optimizers import Optimizer, check_hyperparameter, schedules_of
from jaxfit.problems import PRECISIONS


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
                value: Any = schedule(jnp.int32(t))
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
