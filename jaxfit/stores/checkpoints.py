"""Checkpoints: the state and history of a long run in a file, from which the same call resumes to the same bits."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxfit.engine.loops import End
from jaxfit.engine.settings import current, happened
from jaxfit.engine.single import Programs
from jaxfit.problems.axes import is_key
from jaxfit.stores import StoreError
from jaxfit.stores.files import as_path, digest, holding, pack, read, unpack, write
from jaxfit.stores.identity import PROGRAM, differences, environment, numbers_of, program_digest, program_names, refuse
from jaxfit.typing import PyTree

VERSION = "jaxfit checkpoint 1"


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
        texts = {"keys": json.dumps(kinds), "format": VERSION}
        texts |= {name: json.dumps(getattr(self, name), sort_keys=True) for name in ("identity", "words")}
        tensors = {f"{i:05d}": _bytes(x.tobytes()) for i, x in enumerate(raw)}
        tensors |= {name: _bytes(text.encode()) for name, text in texts.items()}
        tensors["place"] = np.array([saved.t, saved.ended, saved.steps])
        tensors["digest"] = _bytes(digest(pack(tensors)).encode())
        write(self.path, pack(tensors))
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
        tensors = unpack(read(self.path), self.path)
        told = tensors.pop("digest", np.zeros(0, np.uint8)).tobytes()
        if bytes(tensors.get("format", np.zeros(0, np.uint8))) != VERSION.encode():
            raise StoreError(f"checkpoint: {self.path} is no checkpoint of this version of jaxfit; use another path")
        if told != digest(pack(tensors)).encode():
            raise StoreError(f"checkpoint: {self.path} is damaged: its digest is not that of its contents; remove it")
        words = json.loads(tensors["words"].tobytes()) if "words" in tensors else {}
        identity = json.loads(tensors["identity"].tobytes())
        identity.pop("steps", None)
        found = differences(identity, self.identity, words={"": (words, self.words)})
        remedy = "Make the call as it was to go on, remove the file, or give this one another checkpoint="
        refuse(f"checkpoint: {self.path} is of another run", found, remedy)
        state, rows, end = self.shapes
        names, kinds = sorted(filter(str.isdigit, tensors)), json.loads(tensors["keys"].tobytes())
        numbered = iter(zip(names, kinds, strict=True))

        def restored(spec, height=()):
            (name, kind), raw = next(numbered), _raw(spec)
            values = np.frombuffer(tensors[name].tobytes(), raw.dtype).reshape((*height, *raw.shape[len(height) :]))
            return values.copy() if kind is None else jax.random.wrap_key_data(jax.numpy.asarray(values), impl=kind)

        state = jax.device_put(jax.tree.map(restored, state))
        pieces = [jax.tree.map(lambda spec: restored(spec, (-1,)), rows)]
        end = jax.tree.map(restored, end)
        t, ended, *steps = (int(x) for x in tensors["place"])
        return Saved(state, pieces, end, t, bool(ended), *(steps or [t]))


def _raw(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Return the shape and kind of what is written: of a key its data."""
    keys = jax.dtypes.issubdtype(spec.dtype, jax.dtypes.prng_key)
    return jax.eval_shape(jax.random.key_data, spec) if keys else spec


def _bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


@contextlib.contextmanager
def holding_file(path: object, programs: Programs, leaves: list, precision: str) -> Iterator[Checkpoint]:
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
            stack.enter_context(holding(lock))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: no checkpoint can be written here, so nothing was computed; choose "
                f"another folder",
                str(file),
            ) from error
        stack.callback(lock.unlink, missing_ok=True)
        yield Checkpoint(file, *_identity(programs, leaves, precision))


def _identity(programs: Programs, leaves: list, precision: str) -> tuple[dict[str, str], dict[str, str], tuple]:
    """Return what fixes the bits of a run, what its program is made of, and the shapes of what is kept of it."""
    state = jax.eval_shape(programs.begin, leaves)
    span = jax.ShapeDtypeStruct((), np.int32)
    lowered = programs.begin.lower(leaves), programs.judged.lower(leaves, state, span, span)
    training = programs.training(leaves)
    identity = environment(precision) | {PROGRAM: program_digest(*lowered)} | numbers_of(training)
    del identity["steps"]  # of which there may be more in a later call
    return identity, program_names(training), lowered[1].out_info
