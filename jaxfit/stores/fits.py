"""A single run on disk: a checkpoint, from which the same call resumes, and a saved fit."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfit import optimizers
from jaxfit.engine.loops import End
from jaxfit.engine.settings import current, happened
from jaxfit.engine.single import RunPrograms
from jaxfit.losses import Loss, takes_key
from jaxfit.optimizers import Optimizer
from jaxfit.problems import PRECISIONS, Batches, Record, Status, Stop, Training, convert_all, name_of
from jaxfit.problems.axes import is_array, is_key
from jaxfit.problems.enclosed import in_precision
from jaxfit.problems.marks import Bounded, Carried, Fixed, Tied, is_kept, is_mark, kept_of, with_kept
from jaxfit.problems.messages import near_keywords
from jaxfit.problems.posing import as_params, pose
from jaxfit.stores import files
from jaxfit.stores.files import StoreError, as_path
from jaxfit.stores.identity import PROGRAM, differences, environment, numbers_of, program_digest, program_names, refuse
from jaxfit.typing import OptimizerLike, PyTree
from jaxfit.verbs.results import FIT_LEAVES, Fit, History, any_traced, training_of

CHECKPOINT = "jaxfit checkpoint 1"


class Saved(NamedTuple):
    """The saved state of a run."""

    state: PyTree
    pieces: list[dict[str, PyTree]]  # the history so far, in consecutive pieces
    end: End
    t: int  # the next step
    ended: bool
    steps: int  # that it was to make at most


class Checkpoint:
    """The file of a run, which may not exist yet; `holding_file` opens one."""

    def __init__(self, path: Path, identity: Mapping[str, str], words: Mapping[str, str], shapes: tuple):
        self.path, self.identity, self.words, self.shapes = path, dict(identity), dict(words), shapes
        self.last, self.took = time.monotonic(), 0.0

    def due(self) -> bool:
        limits = current()
        return time.monotonic() - self.last > max(limits.checkpoint_seconds, self.took / limits.checkpoint_share)

    def save(self, saved: Saved) -> None:
        began = time.monotonic()
        rows = jax.tree.map(lambda *x: np.concatenate(x), *saved.pieces)
        leaves = jax.tree.leaves((saved.state, rows, saved.end))
        kinds = [str(jax.random.key_impl(x)) if is_key(x) else None for x in leaves]
        raw = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]
        texts = {"keys": json.dumps(kinds), "format": CHECKPOINT}
        texts |= {name: json.dumps(getattr(self, name), sort_keys=True) for name in ("identity", "words")}
        tensors = {f"{i:05d}": _bytes(x.tobytes()) for i, x in enumerate(raw)}
        tensors |= {name: _bytes(text.encode()) for name, text in texts.items()}
        tensors["place"] = np.array([saved.t, saved.ended, saved.steps])
        tensors["digest"] = _bytes(files.digest(files.pack(tensors)).encode())
        files.write(self.path, files.pack(tensors))
        self.last = time.monotonic()
        self.took = self.last - began
        happened("checkpoint", self.path)

    def load(self) -> Saved | None:
        """Return what the file holds; None if there is none.

        Raises:
          ValueError: If it is of another run: with the fields that differ.
          StoreError: If it is damaged.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return None
        tensors = files.unpack(files.read(self.path), self.path)
        recorded = tensors.pop("digest", np.zeros(0, np.uint8)).tobytes()
        if bytes(tensors.get("format", np.zeros(0, np.uint8))) != CHECKPOINT.encode():
            raise StoreError(f"checkpoint: {self.path} is no checkpoint of this version of jaxfit; use another path")
        if recorded != files.digest(files.pack(tensors)).encode():
            raise StoreError(f"checkpoint: {self.path} is damaged: its digest is not that of its contents; remove it")
        words = json.loads(tensors["words"].tobytes()) if "words" in tensors else {}
        identity = json.loads(tensors["identity"].tobytes())
        identity.pop("steps", None)
        changes = differences(identity, self.identity, words={"": (words, self.words)})
        remedy = "Make the call as it was to go on, remove the file, or give this one another checkpoint="
        refuse(f"checkpoint: {self.path} is of another run", changes, remedy)
        state, rows, end = self.shapes
        names, kinds = sorted(filter(str.isdigit, tensors)), json.loads(tensors["keys"].tobytes())
        numbered = iter(zip(names, kinds, strict=True))

        def restored(spec, height=()):
            name, kind = next(numbered)
            raw = spec if kind is None else jax.eval_shape(jax.random.key_data, spec)
            values = np.frombuffer(tensors[name].tobytes(), raw.dtype).reshape((*height, *raw.shape[len(height) :]))
            return values.copy() if kind is None else jax.random.wrap_key_data(jax.numpy.asarray(values), impl=kind)

        state = jax.device_put(jax.tree.map(restored, state))
        pieces = [jax.tree.map(lambda spec: restored(spec, (-1,)), rows)]
        end = jax.tree.map(restored, end)
        t, ended, *steps = (int(x) for x in tensors["place"])
        return Saved(state, pieces, end, t, bool(ended), *(steps or [t]))


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


@contextlib.contextmanager
def holding_file(path: object, programs: RunPrograms, leaves: list, precision: str) -> Iterator[Checkpoint]:
    """Open the checkpoint of a run, and lock it for this process.

    Raises:
      TypeError, ValueError: If `path` is no path.
      StoreError: If another process holds it, or it is a folder.
      OSError: If nothing can be written there.
    """
    file = as_path("checkpoint", path)
    if file.is_dir():
        raise StoreError(f"checkpoint: {file} is a folder, but a checkpoint is one file; write {file / 'fit'}")
    lock = file.with_name(f"{file.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.holding(lock))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: no checkpoint can be written here, so nothing was computed; choose "
                f"another folder",
                str(file),
            ) from error
        stack.callback(lock.unlink, missing_ok=True)
        yield Checkpoint(file, *_identity(programs, leaves, precision))


def _identity(programs: RunPrograms, leaves: list, precision: str) -> tuple[dict[str, str], dict[str, str], tuple]:
    """Return what fixes the bits of a run, what its program is made of, and the shapes of what is kept of it."""
    span = jax.ShapeDtypeStruct((), np.int32)
    lowered = programs.judged.lower(leaves, programs.begin(leaves), span, span)
    training = programs.training(leaves)
    identity = environment(precision) | {PROGRAM: program_digest(lowered)} | numbers_of(training)
    del identity["steps"]  # of which there may be more in a later call
    return identity, program_names(training), lowered.out_info


# Saved fits

FORMAT, VERSION = "jaxfit fit", 1
KINDS = "biuf"  # of the arrays that are written
NUMBERS = [name for name in FIT_LEAVES if name not in ("status", "steps")]
WORDS = "note", "absolute_sigma"


@near_keywords
def save(fit: Fit, path: str | os.PathLike) -> Path:
    """Write a fit to a file of text (JSON), and return its path: `load` reads back the same bits.

    The file holds numbers and names, and no code: params, loss, status, history, the start with its marks, the data,
    and how the run was asked for. Loss and model are kept by name, and given again to `load`.

    Args:
      fit: From `fit`, `curve_fit` or `lane`.
      path: The file to write, such as "fit.json"; one that is there is replaced, never in part.

    Raises:
      TypeError: If it is no fit of one run; if its params or data are other than dicts, lists and tuples of numbers.
      ValueError: If it no longer knows its problem.
      OSError: If the file cannot be written.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> name = jf.save(run, "fit.json")
      >>> again = jf.load("fit.json", loss=jf.losses.chi_squared(jf.models.line))
      >>> bool(again.params["w"] == run.params["w"]), jf.standard_errors(again) == jf.standard_errors(run)
      (True, True)
    """
    file = as_path("path", path)
    if not isinstance(fit, Fit):
        raise TypeError(f"save takes a fit, but got a {type(fit).__name__}; a sweep is kept by jf.sweep(..., store=)")
    if any_traced(jax.tree.leaves(fit)) or np.ndim(fit.status):
        raise TypeError("save takes the fit of one run, not a traced one or many; save what jf.fit returned")
    training = training_of(fit, "save")
    problem, record = training.problem, training.record
    fields: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "precision": fit.precision, "status": Status(fit.status).name,
        "steps": int(fit.steps), "loss_name": _name(problem.loss), "optimizer": _written(training.optimizer),
        "start": _encode(problem.params, "params"), "data": _encode(problem.data, "data"),
        "key": _encode(problem.key, "key"), "most_steps": int(training.steps),
        "stop": _encode(dict(vars(training.stop)), "stop"),
        "record": [record.every, [x for x in record.what if isinstance(x, str)]],
        "batches": training.batches and [int(training.batches.size), bool(training.batches.replace)],
        "validation": _encode(training.validation, "validation"),
    }  # fmt: skip
    for name in NUMBERS:
        value = getattr(fit, name)
        fields[name] = _encode(dict(value) if isinstance(value, History) else value, name)
    fields |= {name: getattr(fit, name) for name in WORDS}
    files.write(file, files.with_digest(fields))
    return file


@near_keywords
def load(
    path: str | os.PathLike, loss: Callable, *, params: PyTree = None, optimizer: OptimizerLike | None = None
) -> Fit:
    """Return the fit that `save` wrote, with the same bits and the loss given again.

    Args:
      path: The file.
      loss: The loss of the fit, written as it was: its name must be that in the file, and at the params of the fit it
        must have the loss that the file tells.
      params: The start as it was given to the fit; needed only if a leaf was `Tied` or a function, as functions are not
        in the file.
      optimizer: The optimizer as it was given; needed only if it is none of `jf.optimizers` with numbers alone.

    Raises:
      StoreError: If the file cannot be read, is damaged, or is of a later version; the message names it.
      ValueError: If the loss is another; if params or optimizer are needed.
      TypeError: If `path` is no path, or the loss cannot be called.

    Example:
      >>> run = jf.curve_fit(jf.models.line, None, jf.datasets.thermometer())
      >>> name = jf.save(run, "fit.json")
      >>> round(float(jf.load("fit.json", loss=jf.losses.chi_squared(jf.models.line)).loss), 3)
      32.204
    """
    file = as_path("path", path)
    fields = _read(file)
    try:
        return _loaded(file, fields, loss, params, optimizer)
    except (KeyError, IndexError, AttributeError) as error:
        raise StoreError(f"{file} holds no whole fit ({type(error).__name__}: {error}); save it again") from error


def _read(file: Path) -> dict[str, Any]:
    content = files.read(file)
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} is no saved fit, or is damaged: {error}; save it again") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise StoreError(f"{file} is no saved fit; give a file that jf.save wrote")
    if fields.get("version") != VERSION:
        raise StoreError(
            f"{file} has version {fields.get('version')!r} of the format, but this jaxfit reads {VERSION}; use the "
            f"jaxfit that wrote it"
        )
    if not files.is_whole(fields):
        raise StoreError(f"{file} is damaged: its digest is not that of its contents; save the fit again")
    return fields


def _loaded(file: Path, fields: dict[str, Any], loss: Callable, params: PyTree, optimizer: OptimizerLike | None) -> Fit:
    if _name(loss) != fields["loss_name"]:
        raise ValueError(
            f"{file} is a fit of {fields['loss_name']}, but loss is {_name(loss)}; give the loss of the fit"
        )
    if optimizer is None:
        name, numbers = fields["optimizer"]
        if numbers is None:
            raise ValueError(f"{file} is a fit by {name}, which is not in the file; give it again: optimizer=")
        method: OptimizerLike = getattr(optimizers, name)(**_decode(numbers, file))
    else:
        method = optimizer
    if params is None:
        params = _decode(fields["start"], file)
        missing = [x for x in jax.tree.leaves(params) if isinstance(x, _Function)]
        if missing:
            raise ValueError(f"{file} is a fit in which {missing[0].where} is a function, which is not in the file; "
                             f"give the start again: params=")  # fmt: skip
    elif json.loads(json.dumps(_encode(as_params(params, inside=True), "params"))) != fields["start"]:
        raise ValueError(
            f"{file} is a fit from another start than params; leave it out, or give what the fit was given"
        )
    precision, (every, what) = fields["precision"], fields["record"]
    training = pose(
        loss, params, _decode(fields["data"], file), optimizer=method, steps=fields["most_steps"],
        stop=Stop(**_decode(fields["stop"], file)), record=Record(every, tuple(what)), precision=precision,
        batches=fields["batches"] and Batches(*fields["batches"]), key=_decode(fields["key"], file),
        validation=_decode(fields["validation"], file),
    )  # fmt: skip
    numbers = {name: _decode(fields[name], file) for name in NUMBERS}
    for name in ("params", "best_params"):
        if numbers[name] is not None:
            numbers[name] = with_kept(training.problem.params, numbers[name])
    if precision == "float32":
        numbers["params"] = _as_jax(numbers["params"])
    if numbers["history"] is not None:
        rows = {name: x if name != "params" else with_kept(training.problem.params, x)
                for name, x in numbers["history"].items()}  # fmt: skip
        numbers["history"] = History(rows)
    fit = Fit(
        **numbers, status=Status[fields["status"]], steps=fields["steps"], training=training, precision=precision,
        **{name: fields[name] for name in WORDS},
    )  # fmt: skip
    _check_loss(file, fit, training)
    return fit


def _check_loss(file: Path, fit: Fit, training: Training) -> None:
    """Refuse a loss that has another value at the params than the file records."""
    loss: Any = training.problem.loss
    if takes_key(loss) or not np.isfinite(fit.loss):
        return
    precision = fit.precision or "float32"
    with in_precision(precision, loss):
        data = convert_all(training.problem.data, precision)
        value = float(loss(_as_jax(fit.params), *data))
    recorded, start = float(fit.loss), abs(float(fit.start_loss or 0))
    close = float(np.finfo(PRECISIONS[precision]).eps) ** 0.5
    if not abs(value - recorded) <= close * (abs(recorded) + close * start):
        raise ValueError(
            f"{file} records a loss of {recorded:.8g} at its params, but {_name(loss)} has {value:.8g} there, so that "
            f"the model is another than that of the fit; give that of the fit"
        )


@dataclass(frozen=True)
class _Function:
    """A placeholder for a function, which is not saved."""

    where: str


def _as_jax(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x if kept_of(x) else jnp.asarray(x), params)


def _name(loss: Callable) -> str:
    loss = loss.func if isinstance(loss, jax.tree_util.Partial) else loss
    return repr(loss) if isinstance(loss, Loss) else name_of(loss)


def _written(optimizer: Optimizer) -> list:
    """Return the name of an optimizer and its numbers; None for these if `jf.optimizers` has none of that name."""
    numbers = {name: x for name, x in optimizer.hyperparameters.items()}
    try:
        same = repr(getattr(optimizers, optimizer.name)(**numbers)) == repr(optimizer)
        return [optimizer.name, _encode(numbers, "optimizer") if same else None]
    except (AttributeError, TypeError, ValueError):
        return [repr(optimizer), None]


def _encode(x: PyTree, where: str) -> Any:
    """Return a tree as JSON, whose numbers read back to the bit.

    Raises:
      TypeError: For what is neither a number nor a dict, list or tuple of them.
    """
    if x is None or isinstance(x, bool) or type(x) is int or (type(x) is float and math.isfinite(x)):
        return x
    if type(x) is float:
        return {"float": repr(x)}
    if isinstance(x, str):
        return {"text": x}
    if type(x) is dict and all(type(name) in (str, int) for name in x):
        return {"dict": [[name, _encode(value, f"{where}.{name}")] for name, value in x.items()]}
    if isinstance(x, (list, tuple)) and type(x) in (list, tuple):
        return {type(x).__name__: [_encode(value, f"{where}.{i}") for i, value in enumerate(x)]}
    if is_kept(x):
        return {"fixed": _encode(x.own, where)} if is_array(x.own) else _encode(x.own, where)
    if isinstance(x, Carried):
        return {"carried": _encode(x.value, where)}
    if isinstance(x, Fixed):
        return {"fixed": _encode(x.value, where)}
    if isinstance(x, Bounded):
        return {"bounded": [_encode(value, where) for value in (x.value, x.low, x.high)]}
    if isinstance(x, Tied):
        return {"tied": where}
    if is_key(x):
        key: Any = x
        return {"key": str(jax.random.key_impl(key)), "data": _encode(np.asarray(jax.random.key_data(key)), where)}
    if callable(x) and not is_array(x):
        return {"function": where}
    if is_array(x) and np.asarray(x).dtype.kind in KINDS:
        array = np.asarray(x)
        wide = array.astype(np.float64) if array.dtype.kind == "f" else array
        flat = [v if not isinstance(v, float) or math.isfinite(v) else repr(v) for v in wide.ravel().tolist()]
        return {"array": array.dtype.name, "shape": list(array.shape), "values": flat}
    raise TypeError(
        f"save: {where} is a {type(x).__name__}, but a file holds dicts, lists and tuples of numbers; let the params "
        f"be a dict of arrays, or keep the fit with a tool for your own classes"
    )


def _decode(x: Any, file: Path) -> PyTree:
    if not isinstance(x, dict):
        return x
    if "dict" in x:
        return {name: _decode(value, file) for name, value in x["dict"]}
    if "list" in x or "tuple" in x:
        values = (_decode(value, file) for value in x["list" if "list" in x else "tuple"])
        return list(values) if "list" in x else tuple(values)
    if "float" in x:
        return float(x["float"])
    if "text" in x:
        return x["text"]
    for name, mark in (("fixed", Fixed), ("carried", Carried)):
        if name in x:  # inside of which what is kept needs no mark
            inner = _decode(x[name], file)
            return mark(jax.tree.map(lambda v: v.value if is_mark(v) else v, inner, is_leaf=is_mark))
    if "bounded" in x:
        return Bounded(*(_decode(value, file) for value in x["bounded"]))
    if "key" in x:
        return jax.random.wrap_key_data(jnp.asarray(_decode(x["data"], file)), impl=x["key"])
    if "tied" in x:
        raise ValueError(
            f"{file} is a fit in which {x['tied']} was tied by a function, which is not in the file; give the start "
            f"again: params="
        )
    if "function" in x:
        return _Function(x["function"])
    return np.array(x["values"], x["array"]).reshape(x["shape"])[()]
