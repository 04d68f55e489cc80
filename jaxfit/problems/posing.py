"""The arguments of every verb, checked before anything compiles: they become a `Problem` or a `Training`."""

from __future__ import annotations

import inspect
import reprlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FunctionType

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit import losses
from jaxfit.losses import Loss, takes_data, takes_key
from jaxfit.losses.base import is_stateful, label
from jaxfit.optimizers import Optimizer
from jaxfit.optimizers.building import as_optimizer, schedules_of
from jaxfit.optimizers.methods import check_hyperparameter
from jaxfit.optimizers.stability import has_preconditioner, unknown
from jaxfit.problems import PRECISIONS, Batches, Problem, Record, Stop, Training, whole_number
from jaxfit.problems.axes import Axis, Call, as_key, is_array, is_axis, is_key, refuse_unit, resolve, seeds
from jaxfit.problems.bounds import check_bounds
from jaxfit.problems.data import as_data, check_data, floating_of_loss, is_foreign
from jaxfit.problems.enclosed import enclosed_in_precision
from jaxfit.problems.foreign import (
    LIBRARIES,
    as_array,
    as_plain_function,
    from_other_libraries,
    masked_alike,
    refuse_foreign_params,
    refuse_foreign_start,
    with_settings_kept,
)
from jaxfit.problems.marks import (
    Bounded,
    Carried,
    Fixed,
    Tied,
    counted,
    free,
    is_array_of_integers,
    is_kept,
    is_mark,
    kept_of,
)
from jaxfit.problems.messages import path_name, shown, warn
from jaxfit.typing import KeyLike, LossFunction, OptimizerLike, PyTree, Scalar


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
    if is_foreign(data, validation):
        loss, (data, validation) = masked_alike(loss, data=data, validation=validation)
    problem = pose_question(loss, params, data, key, precision, rows=batches is not None)
    example = loss.values[0] if is_axis(loss) else loss
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
    training = Training(problem, checked, np.int32(whole_number("steps", steps)), stop, record, batches, validation)
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
    if not isinstance(loss, (Loss, FunctionType)):
        loss = as_plain_function(loss)
    if is_foreign(data):
        loss, data = from_other_libraries(loss, data)
    example = loss.values[0] if is_axis(loss) else loss
    data = floating_of_loss(loss, params, as_data(data), key, precision)
    check_data(data, example, precision=precision, rows=rows or _by_row(example))
    check_swept_numbers(loss)
    params = as_params(params, precision=precision, stateful=is_stateful(example))
    problem = Problem(_each(as_loss, loss), params, data, _as_keys(key))
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
    if isinstance(loss, FunctionType) and vars(losses).get(loss.__name__) is loss:
        raise TypeError(
            f"loss is the function {loss.__name__}, which makes a loss; call it: jf.losses.{loss.__name__}"
            f"({next(iter(inspect.signature(loss).parameters))})"
        )


def _by_row(loss: Callable) -> bool:
    return isinstance(loss, Loss) and loss.by_row


def check_platform() -> None:
    """Refuse to run where JAX is set to a platform that is not there; JAX itself says so by an assertion, or at length.

    Raises:
      RuntimeError: With what was wanted for, and what there is.
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
    """Refuse the axes of a sweep, for a verb of one run."""
    axes = [x for x in jax.tree.leaves(problem, is_leaf=is_axis) if is_axis(x)]
    if axes:
        raise ValueError(
            f"{axes[0]!r} stands for many runs, but {verb} makes one: pass one of its values, or call sweep"
        )


def _each(f: Callable, x: PyTree) -> PyTree:
    """Return f of x, or an axis of f of its values."""
    return Axis(x.name, [f(v) for v in x.values], x.labels) if is_axis(x) else f(x)


def as_loss(loss: Callable) -> Callable:
    """Return the loss as a pytree: its own, if it is one, or a `Partial` whose function is part of the program."""
    leaves = jax.tree.leaves(loss)
    return jax.tree_util.Partial(loss) if len(leaves) == 1 and leaves[0] is loss else loss


def check_swept_numbers(loss: Callable) -> None:
    """Refuse an axis of numbers that a loss of jaxfit's would refuse one by one."""
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


def check_rate(optimizer: Optimizer, precision: str) -> None:
    """Refuse a learning rate that the precision rounds to zero or infinity."""
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
                description = f"shape {np.shape(value)}" if is_array(value) else reprlib.repr(value)
                raise ValueError(
                    f"{name}: the schedule returned {description} at step {t}, but it must return one number, a scalar"
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
    """Refuse to watch or record the gradient of a method that finds none."""
    if optimizer.traits.finds_gradient:
        return
    wanted = [f"record: {name}" for name in ("gradient", "gradient_norm") if name in record.what]
    wanted += ["Stop: gradient_norm_below"] if stop.gradient_norm_below is not None else []
    if wanted:
        raise ValueError(
            f"{wanted[0]} is wanted for, but {optimizer.name} finds no gradient; watch or record the loss or the params"
        )


def check_scale_known(optimizer: Optimizer, record: Record) -> None:
    """Refuse to record the preconditioner of an optimizer that has none."""
    if "preconditioner" in record.what and not has_preconditioner(optimizer):
        raise ValueError(f"record: preconditioner is wanted for, but {unknown(optimizer)}; leave it out")


def check_stop(stop: Stop, *, precision: str, validation: tuple | None) -> None:
    """Refuse a rule that cannot work, and warn of one that cannot be met in the precision."""
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
    """Refuse randomness without a key: of a loss, or of batches that are drawn."""
    if problem.key is not None:
        return
    if drawn:
        raise ValueError("key is None, but batches are drawn at random; pass a seed, key=0, or a key of jax.random.key")
    if any(map(takes_key, _values(problem.loss))):
        raise ValueError("key is None, but the loss takes a key; pass a seed, key=0, or a key of jax.random.key")


def check_batches(training: Training) -> None:
    """Refuse batches that the data cannot fill, and those of data whose rows are whole sets with own params."""
    batches = training.batches
    if batches is None:
        return
    for loss in _values(training.problem.loss):
        if any(any(getattr(term, "many", ())) for term in getattr(loss, "terms", (loss,))):
            raise ValueError(
                f"batches: a row of these data is a whole set with params of its own, so that {label(loss)} needs all "
                f"of them in every step; leave batches out"
            )
    data = jax.tree.leaves(training.problem.data, is_leaf=is_axis)
    shapes = [np.shape(x.values)[1:] if is_axis(x) else np.shape(x) for x in data]
    rows = next((shape[0] for shape in shapes if shape), 0)
    for position, size in enumerate(_values(batches.size)):
        where = f" (value {position} of axis {batches.size.name!r})" if is_axis(batches.size) else ""
        if whole_number(f"batches: size{where}", size) > rows:
            raise ValueError(
                f"batches: size is {size}{where}, but the data have {rows} points; a batch takes from 1 to {rows}"
            )


def _values(x: PyTree) -> Sequence:
    """Return the values of an axis, or the one value."""
    return x.values if is_axis(x) else [x]


def check_methods(training: Training) -> None:
    """Refuse what a method cannot work with: a loss without residuals, batches, randomness."""
    losses = _values(training.problem.loss)
    for optimizer in _values(training.optimizer):
        if is_axis(optimizer):
            check_methods(replace(training, optimizer=optimizer))
            continue
        name, traits = optimizer.name, optimizer.traits
        if any(map(is_stateful, losses)) and not traits.takes_gradients:
            raise TypeError(
                f"loss: {name} asks for the loss at several params in a step, but a stateful one changes its state "
                f"with each; use an optimizer such as jf.optimizers.adam(1e-2)"
            )
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


def with_start(problem: Problem) -> Problem:
    """Return the problem with its start made, if a `Call` makes it."""
    params = as_params(resolve(problem.params), stateful=is_stateful(problem.loss))
    return problem._replace(params=jax.tree.map(lambda x: jnp.asarray(x, float) if isinstance(x, float) else x, params))


def as_params(
    params: PyTree, *, root: str = "params", precision: str = "float64", finite: bool = True, inside: bool = False,
    stateful: bool | None = False,
) -> PyTree:  # fmt: skip
    """Return the params with whole scalars made floats, and marks at what is no float; axes and calls stay.

    A whole number that stands alone is a number to fit, as a float is. An array of integers is kept, with a warning,
    since it may have been meant as a start; functions, text, booleans and PRNG keys are kept. Unless `finite`, NaN and
    infinity pass. `inside` says that they stand inside of a mark or an axis, where nothing need be free; `stateful`,
    that the loss is, or None inside of a mark, where the library of a module is not asked what it trains.

    Raises:
      ValueError: If there is no leaf, or one is not finite, or not in the precision.
      TypeError: If a leaf is complex, half precision or another object; if none is a number that can move.
    """

    if hasattr(params, "start_loss") and hasattr(params, "params"):
        raise TypeError(f"{root} is a fit; pass its params: fit.params")
    if not isinstance(params, (dict, list, tuple, float)):
        refuse_foreign_params(root, params)

    def leaf(path, x):
        name = path_name(root, path)
        if isinstance(x, (Call, Tied)) or is_kept(x):  # a call's arguments are not params
            return x
        if isinstance(x, Fixed):
            inner = jax.tree.map(counted, x.value, is_leaf=is_kept) if isinstance(x, Carried) else x.value
            value = as_params(inner, root=name, precision=precision, finite=finite, inside=True, stateful=None)
            return Carried(value) if isinstance(x, Carried) else value if is_kept(value) else Fixed(value)
        if isinstance(x, Bounded):
            value = leaf(path, x.value) if isinstance(x.value, Axis) else check(name, x.value)
            low, high = check_bounds(name, value, x.low, x.high)
            return Bounded(value, low, high)
        if isinstance(x, Axis):
            if is_array(x.values):
                return Axis(x.name, check(name + f" (axis {x.name!r})", x.values, swept=True), x.labels)
            return Axis(
                x.name,
                [
                    as_params(v, root=f"{name}[{i}]", precision=precision, inside=True, stateful=stateful)
                    for i, v in enumerate(x.values)
                ],
                x.labels,
            )
        mark = kept_of(x)
        if mark is not None and not inside and is_array_of_integers(x):
            warn(
                f"{name} is an array of integers (dtype {x.dtype}), which stays as it is, as a gradient cannot move "
                f"it; make it floats with .astype(float) to fit it, or say that it stays with jf.Fixed(array)"
            )
        return check(name, x) if mark is None else mark

    def check(name, x, swept=False):
        refuse_unit(name, x)
        if type(x) not in (float, int, np.ndarray) and not isinstance(x, (np.generic, jax.Array)):
            refuse_foreign_start(name, x)
        if isinstance(x, (str, bytes)):
            raise TypeError(f"{name} is the text {x!r}, but a bounded or swept param is a number; give it as one")
        if callable(x) and not hasattr(x, "dtype"):
            raise TypeError(
                f"{name} is the function {getattr(x, '__name__', type(x).__name__)}, but a bounded param is a number; "
                f"give a number, or the function without its mark"
            )
        if is_key(x):
            raise TypeError(
                f"{name} is a PRNG key, but a bounded or swept param is a number; run the initializer with it: "
                f"jf.Call(init, key=key)"
            )
        if isinstance(x, jax.core.Tracer):
            dtype, shape = x.dtype, x.shape
        else:
            if hasattr(x, "nominal_value"):
                raise TypeError(f"{name} is {x!r}, but a start is a plain number; pass x.nominal_value")
            x = as_array(x, name) if hasattr(x, "detach") else x
            array = np.asarray(x)
            dtype, shape = array.dtype, array.shape
        if dtype.kind in "OUSMm":
            raise TypeError(
                f"{name} is {reprlib.repr(x)} ({type(x).__name__}), but params are numbers or arrays of them; convert "
                f"it with np.asarray(x, float), or keep it in the model"
            )
        if dtype.kind == "c":
            raise TypeError(f"{name} is complex, but params are real; use two leaves for its real and imaginary part")
        if dtype.kind == "b":
            raise TypeError(
                f"{name} is boolean, but a bounded or swept param is a number; let an axis of whole params sweep a "
                f'switch: jf.Axis(name, [{{"w": 1.0, "on": True}}, {{"w": 1.0, "on": False}}])'
            )
        if dtype.kind in "iu":
            if shape[1:] if swept else shape:
                raise TypeError(
                    f"{name} is an array of integers (dtype {dtype}), which cannot be moved by a gradient; "
                    f"make it floats with {'.astype(float)' if is_array(x) else 'np.asarray(x, float)'}"
                )
            return x.astype(float) if isinstance(x, jax.core.Tracer) else np.asarray(x, np.float64)
        if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
            raise TypeError(
                f"{name} is {dtype}, but runs are made in float32 or float64; convert it with .astype('float32')"
            )
        if finite and not isinstance(x, jax.core.Tracer):
            numbers = np.asarray(x)
            bad = ~(np.abs(numbers) <= np.finfo(PRECISIONS[precision]).max)
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                at = f" at index {first[0] if len(first) == 1 else first}" if first else ""
                large = np.isfinite(numbers[first])
                raise ValueError(
                    f"{name} is {numbers[first]}{at}, "
                    + (f"too large for {precision}; " if large else "but a run must start from finite numbers; ")
                    + ('choose other units, or precision="float64"' if large else "give another start")
                )
        return x

    def marked(x):
        return isinstance(x, (Axis, Call)) or is_mark(x)

    if not jax.tree.leaves(params, is_leaf=marked):
        raise ValueError(
            f"{root} is {params!r}, which has no leaf to move; give at least one number (None is an empty subtree)"
        )
    if stateful is not None and any(name in sys.modules for name in LIBRARIES):
        params = with_settings_kept(params, stateful=stateful)
    if not inside:
        _refuse_all_kept(params, root, marked)
    return jax.tree_util.tree_map_with_path(leaf, params, is_leaf=marked)


def _refuse_all_kept(params: PyTree, root: str, marked: Callable) -> None:
    """Refuse params of which no leaf is a number, with what each kind of leaf is good for."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=marked)
    if not all(is_kept(x) or not marked(x) and kept_of(x) for _, x in leaves):
        return
    path, x = leaves[0]
    x = x.own if is_kept(x) else x
    if is_array_of_integers(x):
        what, remedy = f"an array of integers (dtype {x.dtype})", "make it floats with .astype(float)"
    elif is_key(x):
        what, remedy = "a PRNG key", "run the initializer with it: jf.Call(init, key=key)"
    elif callable(x):
        what = f"the function {getattr(x, '__name__', type(x).__name__)}"
        remedy = "call it, or let jf.Call(function, *args) make the start"
    else:
        what = f"the text {x!r}" if isinstance(x, str) else reprlib.repr(x)
        remedy = "give at least one number, such as float(x) of a text"
    raise TypeError(
        f"{path_name(root, path)} is {what}, which stays as it is, and nothing else in the params can move; {remedy}"
    )


def check_free(params: PyTree) -> None:
    """Refuse params of which none may move."""
    if not jax.tree.leaves(free(params), is_leaf=lambda x: isinstance(x, (Axis, Call))):
        raise ValueError(
            "params are all fixed or tied, so that nothing can move; leave one free, or call the loss itself"
        )
