"""What is asked: a problem, and its training, as pytrees, whose numbers are leaves and whose program is the structure.

The modules beside it hold what may stand in a call (axes, marks, pruning), and check it before anything compiles.
"""

from __future__ import annotations

import enum
import math
import reprlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.problems.axes import Axis, is_array, is_axis, refuse_unit
from jaxfit.problems.messages import near_keywords
from jaxfit.typing import OptimizerLike, PyTree, Scalar

if TYPE_CHECKING:
    from jaxfit.optimizers.building import Optimizer


class Status(enum.IntEnum):
    """The outcome of a run, as an integer with a name.

    Example:
      >>> jf.Status.CONVERGED.name, int(jf.Status.CONVERGED), int(jf.Status.NOT_RUN)
      ('CONVERGED', 1, 0)
    """

    NOT_RUN = 0  # while it moves: still running
    CONVERGED = 1  # by a stop rule, or the verdict of a method that judges itself; by nothing else
    OUT_OF_STEPS = 2
    DIVERGED = 3  # the loss became infinite, passed `loss_above`, or ended above its start
    NOT_FINITE = 4  # the loss became NaN, or a gradient not finite
    STOPPED_EARLY = 5  # the validation loss had no new lowest for as long as `patience` allows
    PRUNED = 6  # by a rule of a sweep, which compares its lanes at rungs; params and loss are those of that step
    NOT_DETERMINED = 7  # by a method that judges itself: the loss is at its least, but the data leave some params open


# whose loss means something
ENDED_WELL = Status.CONVERGED, Status.OUT_OF_STEPS, Status.STOPPED_EARLY, Status.NOT_DETERMINED
STATUSES = max(Status) + 1  # the length of an array that counts lanes by status


@near_keywords
@dataclass(frozen=True)
class Stop:
    """A set of conditions that end a run before its last step.

    Which thresholds are set is part of the program; their values are data, so a new value does not recompile.

    Attributes:
      loss_below: CONVERGED where loss < loss_below.
      gradient_norm_below: CONVERGED where the Euclidean norm of the gradient over all params is below it.
      params_change_below: CONVERGED where the norm of the last update, over all params, is below it.
      loss_above: DIVERGED where loss > loss_above.
      patience: STOPPED_EARLY after this many records of the validation loss without a new minimum. A record is made
        every `Record.every` steps, so patience=5 with every=10 means 50 steps.

    With mini-batches the conditions apply to the loss and gradient of the step's batch.

    Example:
      >>> sgd = jf.optimizers.sgd(0.25)
      >>> run = jf.fit(lambda p: p**2, 4.0, optimizer=sgd, stop=jf.Stop(loss_below=0.1))
      >>> run.status.name, run.steps, float(run.params)
      ('CONVERGED', 4, 0.25)
    """

    loss_below: Scalar = None
    gradient_norm_below: Scalar = None
    params_change_below: Scalar = None
    loss_above: Scalar = None
    patience: Scalar = None

    @property
    def converges(self) -> bool:
        """Whether there is a rule by which a run has converged."""
        return any(x is not None for x in (self.loss_below, self.gradient_norm_below, self.params_change_below))

    @property
    def watches(self) -> bool:
        """Whether any rule has to be looked at in every step."""
        return any(value is not None for value in vars(self).values())


jax.tree_util.register_dataclass(
    Stop,
    data_fields=["loss_below", "gradient_norm_below", "params_change_below", "loss_above", "patience"],
    meta_fields=[],
)


@jax.tree_util.register_static
@near_keywords
@dataclass(frozen=True)
class Record:
    """A rule for the history: what is recorded during a run, and how often.

    Attributes:
      every: Steps between two records; step 0 is recorded.
      what: Any of "loss", "params", "gradient", "gradient_norm", "validation_loss", "preconditioner" (the numbers by
        which an adaptive optimizer divides the gradient of each param at this step), and functions
        f(params, *data) -> scalar, which are recorded under their names. No name may occur twice.

    Example:
      >>> record = jf.Record(every=5, what=("loss", "params"))
      >>> run = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.5), steps=10, record=record)
      >>> run.history["step"].tolist(), run.history["params"].tolist()
      ([0, 5, 10], [3.0, 0.0, 0.0])
    """

    every: int = 1
    what: Sequence[str | Callable] = ("loss",)

    WHAT = ("loss", "params", "gradient", "gradient_norm", "validation_loss", "preconditioner")  # no field: unannotated

    def __post_init__(self):
        every = whole_number("Record: every", self.every)
        object.__setattr__(self, "every", every)
        if not (isinstance(self.what, (str, Sequence)) or callable(self.what)):
            raise TypeError(
                f"Record: what is {self.what!r}, but it must be a tuple of what to record, such as ('loss',)"
            )
        what = (self.what,) if isinstance(self.what, str) or callable(self.what) else tuple(self.what)
        for item in what:
            if not (callable(item) or item in Record.WHAT):
                raise ValueError(
                    f"Record: what has {item!r}, but takes {', '.join(map(repr, Record.WHAT))} "
                    f"and functions f(params, *data) -> scalar"
                )
        object.__setattr__(self, "what", what)
        names = self.names
        for position, (name, item) in enumerate(zip(names, what, strict=True)):
            if name in names[:position] or callable(item) and name in (*Record.WHAT, "step"):
                raise ValueError(
                    f"Record: what has {name!r} as item {position}, but that name is taken; the history holds one "
                    f"thing of each name: give every function one of its own with def"
                )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item if isinstance(item, str) else name_of(item) for item in self.what)


@near_keywords
@dataclass(frozen=True)
class Batches:
    """A rule for mini-batches: random rows of the data for each step, drawn with fold_in(key, step).

    If a loss is masked, some rows do not count. A batch with no row that counts is filled with the next rows that do,
    so that every step has data.

    Attributes:
      size: Rows in a batch; 1 means single samples.
      replace: If False, every epoch is a new shuffle cut into batches, and the remaining rows (fewer than `size`) are
        left out of that epoch. If True, each row of each batch is drawn from all rows.

    Example:
      >>> x, y = jf.datasets.thermometer()
      >>> start, sgd = {"w": 0.0, "b": 0.0}, jf.optimizers.sgd(1e-5)
      >>> loss = jf.losses.mse(jf.models.line)
      >>> run = jf.fit(loss, start, (x, y), optimizer=sgd, steps=10, batches=jf.Batches(4), key=0)
      >>> run.steps
      10
    """

    size: Scalar
    replace: bool = False

    def __post_init__(self):
        if not isinstance(self.size, Axis):
            object.__setattr__(self, "size", whole_number("Batches: size", self.size))
        if not isinstance(self.replace, (bool, np.bool_)):
            raise TypeError(f"Batches: replace is {self.replace!r}, but it must be True or False")


def _flatten_batches(batches: Batches):
    swept = isinstance(batches.size, Axis)
    return ((batches.size,) if swept else ()), (None if swept else batches.size, batches.replace)


jax.tree_util.register_pytree_with_keys(
    Batches,
    lambda b: ([(jax.tree_util.GetAttrKey("size"), c) for c in _flatten_batches(b)[0]], _flatten_batches(b)[1]),
    lambda aux, children: Batches(children[0] if children else aux[0], aux[1]),
)


class Problem(NamedTuple):
    """A loss, its params with their marks, and its data. All but the leaves is part of a program."""

    loss: Callable  # a pytree: jaxfit's own, or jax.tree_util.Partial around a plain function
    params: PyTree  # the start
    data: tuple
    key: Array | None = None


@dataclass(frozen=True, eq=False)
class Training:
    """A problem, and how it is trained: all that a run needs."""

    problem: Problem
    optimizer: Optimizer
    steps: Scalar  # int32
    stop: Stop
    record: Record
    batches: Batches | None = None
    validation: tuple | None = None

    def arguments(self) -> dict[str, PyTree]:
        """Return what a run is called with, by name, in the order of the leaves: stores and checkpoints rely on it."""
        loss, params, data, key = self.problem
        return {
            "loss": loss, "params": params, "data": data, "optimizer": self.optimizer, "stop": self.stop,
            "record": self.record, "steps": self.steps, "batches": self.batches, "key": key,
            "validation": self.validation,
        }  # fmt: skip

    def at(self, params: PyTree) -> Training:
        """Return the same training from other params."""
        return replace(self, problem=self.problem._replace(params=params))


def _unflatten_training(_: None, arguments: Iterable[PyTree]) -> Training:
    loss, params, data, optimizer, stop, record, steps, batches, key, validation = arguments
    return Training(Problem(loss, params, data, key), optimizer, steps, stop, record, batches, validation)


jax.tree_util.register_pytree_with_keys(
    Training,
    lambda t: ([(jax.tree_util.GetAttrKey(name), x) for name, x in t.arguments().items()], None),
    _unflatten_training,
)


def whole_number(name: str, value: object, *, least: int = 1) -> int:
    """Return a whole number from `least` to what int32 holds.

    Raises:
      ValueError: If it is anything else.
      TypeError: If it has a unit.
    """
    refuse_unit(name, value)
    most, such_as = np.iinfo(np.int32).max, 100
    concrete = isinstance(value, (int, float)) or is_array(value) and not isinstance(value, jax.core.Tracer)
    number = np.asarray(value) if concrete else None
    if number is not None and number.ndim == 0 and number.dtype.kind in "iuf":  # and so not boolean
        if float(number).is_integer() and least <= number <= most:
            return int(number)
        if np.isfinite(number):
            such_as = min(max(int(number), least), most)
    raise ValueError(
        f"{name} is {reprlib.repr(value)}, but it must be a whole number from {least} to {most:,}, such as {such_as:,}"
    )


def name_of(function: Callable) -> str:
    """Return the name of a function, also of one wrapped by functools.partial or made by a class."""
    return getattr(function, "__name__", None) or name_of(getattr(function, "func", type(function)))


PRECISIONS = {"float32": np.float32, "float64": np.float64}
WIDTHS = {"float32": (np.dtype("float32"), np.dtype("int32")), "float64": (np.dtype("float64"), np.dtype("int64"))}


def chosen_precision(precision: str | None, *given: PyTree, optimizer: OptimizerLike | None = None) -> str:
    """Return the precision asked for; else what the optimizer (or one on an axis) needs; else JAX's for what is given.

    That is float64 where `jax_enable_x64` is on, unless arrays are given and none of them has 64 bits.
    """
    if precision is not None:
        return precision
    if isinstance(optimizer, Axis) and not is_array(optimizer.values):
        return max(chosen_precision(None, *given, optimizer=one) for one in optimizer.values)
    traits = getattr(optimizer, "traits", None)  # which a transformation of Optax does not have
    needed = None if traits is None else traits.precision
    wide = jax.config.jax_enable_x64 and switched_precision() is None and _may_be_wide(given)
    return needed or ("float64" if wide else "float32")


def _may_be_wide(given: PyTree) -> bool:
    leaves = jax.tree.leaves(given, is_leaf=is_axis)
    flat = [y for x in leaves for y in (jax.tree.leaves(x.values) if isinstance(x, Axis) else [x])]
    sizes = [x.dtype.itemsize for x in flat if is_array(x) and jnp.issubdtype(x.dtype, jnp.number)]
    return not sizes or max(sizes) == 8


_here = threading.local()


def precision_context(precision: str) -> AbstractContextManager:
    """Turn 64-bit types on for float64 and off for float32 inside of the context, in this thread only."""
    return nullcontext() if jax.config.jax_enable_x64 == (precision == "float64") else _switched(precision)


@contextmanager
def _switched(precision: str) -> Iterator[None]:
    before, _here.precision = switched_precision(), precision
    try:
        with jax.enable_x64(precision == "float64"):
            yield
    finally:
        _here.precision = before


def switched_precision() -> str | None:
    """Return the precision of the run that is going on in this thread, if it is not that of the caller's JAX."""
    return getattr(_here, "precision", None)


def convert(x: PyTree, precision: str, *, copy: bool = True) -> PyTree:
    """Return a number or array in the precision: a float takes it, integers, booleans and keys stay what they are.

    A traced leaf stays traced, a JAX array of the right type stays where it is, all else becomes a NumPy array: a copy,
    unless it is only looked at and has the type already.
    """
    floating, integer = WIDTHS[precision]
    if isinstance(x, jax.core.Tracer):
        return x.astype(floating) if jnp.issubdtype(x.dtype, jnp.floating) else x
    if isinstance(x, jax.Array) and (jnp.issubdtype(x.dtype, jax.dtypes.extended) or x.dtype in (floating, bool)):
        return x
    host = np.asarray(x)
    if host.dtype.kind in "iu" and host.dtype.itemsize == 8:
        return host.astype(integer, copy=copy)
    if host.dtype.kind in "biu":
        return host.astype(host.dtype.newbyteorder("="), copy=copy)
    if host.dtype == floating:
        return host.astype(floating, copy=copy)
    with np.errstate(over="ignore", under="ignore"):
        return host.astype(floating)


def convert_all(tree: PyTree, precision: str) -> PyTree:
    return jax.tree.map(lambda x: convert(x, precision), tree)


BLOCK_BYTES = 2**21  # of an array that is looked through, so that of one on disk little is in memory at once


def row_blocks(x: np.ndarray | Rows, first: int | None = None) -> Iterator[slice]:
    """Yield the slices that cut the first rows of an array, or all, into blocks of `BLOCK_BYTES`."""
    length = max(1, BLOCK_BYTES // max(1, math.prod(x.shape[1:]) * x.dtype.itemsize))
    end = x.shape[0] if first is None else min(first, x.shape[0])
    yield from (slice(i, min(i + length, end)) for i in range(0, end, length))


class Rows:
    """An array of NumPy in a precision; a large one is converted as its rows are taken, so that no others are read."""

    def __init__(self, values: np.ndarray, precision: str):
        self.precision, self.large = precision, values.nbytes > BLOCK_BYTES
        self.values = np.asarray(values) if self.large else convert(values, precision)
        self.shape, self.dtype = values.shape, convert(values[:0], precision).dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        return convert(self.values[rows], self.precision)

    def padded(self, rows: np.ndarray | slice, length: int) -> np.ndarray:
        """Return some rows, the last one repeated up to a length."""
        taken, filled = self.values[rows], np.empty((length, *self.shape[1:]), self.dtype)
        with np.errstate(over="ignore", under="ignore"):
            filled[: len(taken)] = taken
        filled[len(taken) :] = filled[len(taken) - 1]
        return filled


def by_rows(x: PyTree, precision: str) -> PyTree:
    """Return a number or array as `convert` does; an array of NumPy as `Rows`."""
    return Rows(x, precision) if isinstance(x, np.ndarray) else convert(x, precision)
