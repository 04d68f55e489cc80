"""Stop rules, records and batches that cannot work."""

from __future__ import annotations

import reprlib
from typing import Any

import jax
import numpy as np

from jaxfit.checks.wording import warn
from jaxfit.losses import takes_key
from jaxfit.markers import is_axis
from jaxfit.optimizers import Optimizer
from jaxfit.preconditioners import has_preconditioner, unknown
from jaxfit.problems import PRECISIONS, Problem, Record, Stop, whole


def check_gradient_known(optimizer: Optimizer, stop: Stop, record: Record) -> None:
    """Refuses to watch or record the gradient of a method that finds none."""
    if getattr(optimizer.call.function, "finds_gradient", True):
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


def check_stop(stop: Any, *, precision: str, validation: Any) -> None:
    """Refuses a rule that cannot work, and warns of one that cannot be met in the precision."""
    if not isinstance(stop, Stop):
        raise TypeError(f"stop is {stop!r}, but it must be a value such as jf.Stop(gradient_norm_below=1e-4)")
    eps, tiny = float(np.finfo(PRECISIONS[precision]).eps), float(np.finfo(PRECISIONS[precision]).tiny)
    for name, value in vars(stop).items():
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


def check_batches(problem: Problem) -> None:
    """Refuses batches that the data cannot fill, and randomness without a key."""
    batches = problem.batches
    if batches is not None:
        shapes = [
            np.shape(x.values)[1:] if is_axis(x) else np.shape(x)
            for x in jax.tree.leaves(problem.data, is_leaf=is_axis)
        ]
        rows = next((shape[0] for shape in shapes if shape), 0)
        swept = is_axis(batches.size)
        for position, size in enumerate(batches.size.values if swept else [batches.size]):
            where = f" (value {position} of axis {batches.size.name!r})" if swept else ""
            if whole(f"batches: size{where}", size) > rows:
                raise ValueError(
                    f"batches: size is {size}{where}, but the data have {rows} points; a batch takes from 1 to {rows}"
                )
        if problem.key is None:
            raise ValueError(
                "key is None, but batches are drawn at random; pass a seed, key=0, or a key of jax.random.key"
            )
    losses = problem.loss.values if is_axis(problem.loss) else [problem.loss]
    if problem.key is None and any(map(takes_key, losses)):
        raise ValueError("key is None, but the loss takes a key; pass a seed, key=0, or a key of jax.random.key")
