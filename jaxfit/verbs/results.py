"""The result of a single run: `Fit`, with its `History`; and whether a run converged."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import jax
import numpy as np

from jaxfit.engine.loops import Best
from jaxfit.losses import model_of, takes_key
from jaxfit.losses.joint import params_of_model
from jaxfit.optimizers import Optimizer
from jaxfit.problems import Problem, Status, Training, convert_all, name_of
from jaxfit.problems.axes import is_array, is_key
from jaxfit.problems.data import as_data, floating
from jaxfit.problems.enclosed import in_precision
from jaxfit.problems.marks import Kept, released
from jaxfit.problems.meanings import ATTRIBUTES
from jaxfit.problems.messages import near_attribute, near_keywords
from jaxfit.typing import Array, ArrayLike, PyTree, Scalar
from jaxfit.verbs import summaries
from jaxfit.verbs.summaries import numbers_in

if TYPE_CHECKING:
    from pandas import DataFrame

    from jaxfit.stores.fits import Saved


class History(Mapping):
    """Records of a run by name: `history.step` (k,), `history.loss` (k,), ...; also a mapping: `history["loss"]`.

    What is recorded under the name of a method of mappings ("items", "values") is reached as `history["items"]` alone.
    """

    def __init__(self, rows: dict[str, PyTree]):
        self._rows = rows

    def __getitem__(self, name: str) -> PyTree:
        if name not in self._rows:
            raise KeyError(self._lacks(name))
        return released(self._rows[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __eq__(self, other: object) -> bool:
        return self is other  # arrays have no one answer

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> PyTree:
        rows = self.__dict__.get("_rows", {})
        if name in rows:
            return released(rows[name])
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(self._lacks(name))

    def to_dataframe(self) -> DataFrame:
        """Return the records of one run as a `pandas.DataFrame` indexed by the step: what is one number in each."""
        import pandas as pd

        columns = {
            jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(x)
            for name in self._rows if name != "step"
            for path, x in jax.tree_util.tree_leaves_with_path({name: self[name]}) if np.ndim(x) == 1
        }  # fmt: skip
        return pd.DataFrame(columns, index=pd.Index(np.asarray(self.step), name="step"))

    def _lacks(self, name: str) -> str:
        rows = self.__dict__.get("_rows", {})
        return (
            f"history has no {name!r}; it holds {', '.join(rows)}. Ask for more with "
            f"record=jf.Record(what=({', '.join(repr(n) for n in [*rows, name] if n != 'step')}))"
        )

    def __dir__(self):
        return [*self._rows, "get", "items", "keys", "to_dataframe", "values"]

    def __repr__(self) -> str:
        shape = np.shape(self._rows.get("step", ()))  # pyright: ignore[reportCallIssue,reportArgumentType]
        lanes = f" of {'x'.join(map(str, shape[:-1]))} lanes" if len(shape) > 1 else ""
        return f"History({', '.join(self._rows)}; {shape[-1] if shape else 'no'} records{lanes})"


jax.tree_util.register_pytree_with_keys(
    History,
    lambda h: ([(jax.tree_util.GetAttrKey(name), value) for name, value in h._rows.items()], tuple(h._rows)),
    lambda names, children: History(dict(zip(names, children, strict=True))),
)


Result = TypeVar("Result")


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
    last: Saved | None = None
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
    coords: dict[str, Scalar | str] | None = None
    start_loss: Scalar = field(default=None, repr=False)
    training: Training | None = field(default=None, repr=False)
    precision: str | None = field(default=None, repr=False)
    note: str | None = field(default=None, repr=False)
    absolute_sigma: bool | None = field(default=None, repr=False)
    best_params: PyTree = field(default=None, repr=False)
    best_validation_loss: Scalar = field(default=None, repr=False)
    best_step: Scalar = field(default=None, repr=False)
    last: Saved | None = field(default=None, repr=False)  # what `resume` goes on from, without the history

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
            params = params_of_model(self.problem and self.problem.loss, "fit.params")
            why = "has no problem any more" if self.problem is None else f"is of {name_of(self.problem.loss)}"
            raise TypeError(
                f"predict needs the fit of a loss of a model, such as jf.losses.mse(model), but this one {why}; call "
                f"the model itself: model({params}, x)"
            )
        precision = self.precision or "float32"
        (x,) = floating(as_data((x,), "x"), lambda given: model(self.params, *given), precision, "x")
        with in_precision(precision, model):
            prediction = model(self.params, convert_all(x, precision))
        return np.asarray(prediction) if precision == "float64" else prediction

    def to_html(self, path: str | os.PathLike, title: str | None = None) -> Path:
        """Write a page to look at the fit in a browser, and return its path.

        The page is one file that needs no server and no network: data and curve with its band, residuals, the report
        with buttons to copy it, correlations, profiles of up to six params, and the history of the loss; whatever of
        these the fit has.

        Args:
          path: The file to write; one that is there is replaced.
          title: What stands above; by default the name of the file without its ending.

        Raises:
          TypeError, ValueError: If `path` is no path or `title` no string; if the fit is traced or holds many runs.
          OSError: If it cannot be written.
        """
        return pages().write_fit(self, path, title)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            own = [*(f.name for f in fields(self)), "problem", "optimizer", "predict", "to_html"]
            raise AttributeError(near_attribute("a fit", name, ATTRIBUTES, own))

    def _repr_html_(self) -> str:
        return pages().notebook(self)

    def __repr__(self) -> str:
        leaves = jax.tree.leaves((numbers_in(self), self.loss, self.status, self.steps))
        if any_traced(leaves):
            return "Fit(traced)"
        concrete = all(isinstance(x, (int, float)) or is_array(x) for x in leaves)
        if not concrete or not np.isin(np.asarray(self.status), list(Status)).all():
            return f"Fit({', '.join(f'{name}={getattr(self, name)!r}' for name in FIT_LEAVES[:4])})"
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
        what = tuple(dict.fromkeys(("loss", name)))
        raise ValueError(f"{who} did not record its {name}; run it with record=jf.Record(what={what})")
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


def any_traced(leaves: list) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in leaves)


def _single(fit: Fit) -> Fit:
    """Return the fit with plain scalars instead of arrays, and its history only if it is that of a single run."""
    history = fit.history if fit.history is not None and np.ndim(fit.history["step"]) == 1 else None
    loss = np.asarray(fit.loss)[()]
    return replace(fit, loss=loss, status=Status(int(fit.status)), steps=int(fit.steps), history=history)


def _flatten(fit: Fit) -> tuple:
    coords = fit.coords or {}
    labels = {name: value for name, value in coords.items() if isinstance(value, str)}
    numbers = {name: getattr(fit, name) for name in FIT_LEAVES}
    for name in ("params", "best_params"):
        numbers[name] = _without_objects(numbers[name])
    numbers["coords"] = fit.coords and {name: value for name, value in coords.items() if name not in labels}
    known = Known(**{name: getattr(fit, name) for name in vars(Known()) if name != "labels"}, labels=labels)
    traced = any_traced(jax.tree.leaves(numbers))
    return [(jax.tree_util.GetAttrKey(n), x) for n, x in numbers.items()], Known() if traced else known


def _without_objects(params: PyTree) -> PyTree:
    """Return params in which what is no number is no leaf, so that a fit may leave a jit and be mapped to arrays."""

    def is_plain(x):
        return isinstance(x, (int, float)) or is_array(x) and not is_key(x)

    if all(map(is_plain, jax.tree.leaves(params))):
        return params
    return jax.tree.map(lambda x: x if is_plain(x) else Kept(x), params)


def _unflatten(known: Known, children: Iterable) -> Fit:
    numbers: dict[str, PyTree] = dict(zip(FIT_LEAVES, children, strict=True))
    for name in ("params", "best_params"):
        numbers[name] = released(numbers[name])
    if any_traced(jax.tree.leaves(list(numbers.values()))) or getattr(numbers["loss"], "ndim", 0):
        return Fit(**numbers)
    concrete = np.ndarray if known.training is None else (np.ndarray, jax.Array)  # what a jit returns is not waited for
    for name, kind in (("status", Status), ("steps", int)):  # as a map to arrays leaves them
        if isinstance(numbers[name], concrete) and numbers[name].dtype.kind == "i":
            numbers[name] = kind(int(numbers[name]))
    kept = vars(known).copy()
    if labels := kept.pop("labels"):
        numbers["coords"] = labels | numbers["coords"]
    return Fit(**numbers, **kept)


FIT_LEAVES = tuple(f.name for f in fields(Fit) if f.name not in vars(Known()))


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
                "require_converged: the fit is traced, so that its status is not known yet; call it on what the jit, "
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
        at = zip(result.results.status.dims, np.argwhere(failed)[0], strict=True)
        first = ", ".join(f"{name}={result.results[name].values[i : i + 1].tolist()[0]!r}" for name, i in at)
        counts = ", ".join(f"{int((status == s).sum()):,} {s.name}" for s in Status if (status == s).any())
        raise NotConverged(
            f"{int(failed.sum()):,} of {status.size:,} lanes did not converge ({counts}); look at the first: "
            f"jf.lane(grid, {first})"
        )
    return result


def best_of(best: Best | None, own: Callable = lambda params: params) -> dict[str, PyTree]:
    """Return the fields of a fit on its lowest validation loss; `own` makes the user's tree of params."""
    if best is None:
        return {}
    return {"best_params": own(best.params), "best_validation_loss": best.validation_loss, "best_step": best.step}


def pages() -> Any:
    """Return the pages, which lie above and are imported only when one is asked for, as `jf.plots` is."""
    return importlib.import_module("jaxfit.pages")
