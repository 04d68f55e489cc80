"""The identity of a run: everything that determines the bits of its results, as text that two processes can compare."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Callable, Mapping

import jax
import jaxlib
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxfit.engine.compiling import compiler_options
from jaxfit.problems import Rows, Training, by_rows, name_of, row_blocks
from jaxfit.problems.axes import is_key
from jaxfit.problems.messages import path_name
from jaxfit.stores.files import digest, digest_of
from jaxfit.typing import PyTree

_ISA = ("fma", "avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")


def versions() -> dict[str, str]:
    """Return the versions of the libraries whose arithmetic a result depends on."""
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "optax": optax.__version__}


def hardware() -> dict[str, str]:
    """Return the platform that programs run on, and the kind of its devices."""
    return {"platform": jax.default_backend(), "device": jax.local_devices()[0].device_kind}


def compiler_options_text() -> str:
    """Return the options that programs of many lanes are compiled with, as text."""
    return ", ".join(f"{name}={value}" for name, value in sorted(compiler_options(jax.default_backend()).items()))


def environment(precision: str) -> dict[str, str]:
    """Return the versions, the platform and the settings of JAX that a result depends on."""
    import jaxfit

    settings = {
        "jaxfit": jaxfit.__version__,
        **versions(),
        **hardware(),
        "precision": precision,
        "PRNG": f"{jax.config.jax_default_prng_impl}, partitionable {jax.config.jax_threefry_partitionable}",
        "matmul precision": str(jax.config.jax_default_matmul_precision),
        "XLA_FLAGS": " ".join(sorted(f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_APART))),
    }
    return settings | ({"instructions": _instructions()} if settings["platform"] == "cpu" else {})


_APART = ("--xla_force_host_platform_device_count", "--xla_dump")  # flags that do not change results


def _instructions() -> str:
    """Return the instruction set that programs are compiled for, as far as the system tells."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        flags = []
    return " ".join([platform.machine(), *(flag for flag in _ISA if flag in flags)])


@functools.lru_cache(maxsize=64)
def program_digest(*lowered: jax.stages.Lowered) -> str:
    """Return a digest of lowered programs: of their text, without the lines of source that they come from."""
    return digest(*(program.as_text().encode() for program in lowered))


def numbers_of(tree: PyTree) -> dict[str, str]:
    """Return every leaf of a tree under its path, as text made by `describe`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name("", path).replace("..", ".").lstrip("."): describe(x) for path, x in leaves}


def describe(x: ArrayLike) -> str:
    """Return a number as text, or the type, shape and digest of an array."""
    kind, values = _plain(x)
    return f"{kind} {values.item()!r}" if values.ndim == 0 else f"{kind} {values.shape} {digest(values.tobytes())}"


def values_digest(tree: PyTree, first: int, precision: str) -> str:
    """Return a digest of the first rows of every array of a tree, in a precision."""

    def column_text(x: PyTree) -> str:
        x = by_rows(x, precision)
        kind, values = (x.dtype.name, x) if isinstance(x, Rows) else _plain(x)
        rows = (values[at].tobytes() for at in row_blocks(values, first))
        return f"{kind} {values.shape[1:]} {digest_of(rows)}\n"

    return digest(*(column_text(x).encode() for x in jax.tree.leaves(tree)))


def _plain(x: ArrayLike) -> tuple[str, np.ndarray]:
    if is_key(x):
        return f"key ({jax.random.key_impl(x)})", np.asarray(jax.random.key_data(x))
    values = np.asarray(x)
    return values.dtype.name, values


PROGRAM = "program (loss, model, optimizer, rules, record)"
_ARRAY = re.compile(r"(.* \(.*\)) [0-9a-f]{32}")
Words = Mapping[str, str]


def program_names(training: Training) -> dict[str, str]:
    """Return the names of what the program of a run is made of, since its digest does not show which part changed."""
    problem, stop, record, batches = training.problem, training.stop, training.record, training.batches
    rules = [name for name, value in vars(stop).items() if value is not None]
    loss = getattr(problem.loss, "func", None)
    described = {
        "the loss": problem.loss if loss is None else name_of(loss),
        "the optimizer": training.optimizer,
        "the stop rule": ", ".join(rules) or "none",
        "the record": f"{', '.join(record.names)} every {record.every}" if record.what else "none",
        "the batching": batches or "none",
    }
    return {name: re.sub(r" at 0x[0-9a-f]+", "", str(value))[:200] for name, value in described.items()}


def differences(
    old: Words, new: Words, ignored: Callable[[str], bool] = lambda _: False, *,
    words: Mapping[str, tuple[Words, Words]], label: Callable[[str], str] = str,
) -> list[str]:  # fmt: skip
    """Return what differs between the identities of two runs, in words, the clearest first.

    Args:
      old, new: By name; names of a part of a sweep begin "part KEY: ".
      ignored: ignored(name): whether a name that only `new` has does not count.
      words: For each part ("" if there are none), `program_names` both programs, as far as they are known.
      label: label(part): the name of a part in messages.

    Returns:
      Settings and numbers with both values, then what the programs are made of, then arrays.
    """
    names = [*old, *(name for name in new if name not in old and not ignored(name))]
    by_rank: list[dict[str, list[str]]] = [{}, {}, {}]  # by rank: by text the parts
    converted = old.get("precision") != new.get("precision")
    for name in (name for name in names if old.get(name) != new.get(name)):
        part, own = _part_and_name(name)
        was, now = old.get(name, "absent"), new.get(name, "absent")
        if own == PROGRAM:
            rank, texts = 1, _program_differences(*words.get(part, ({}, {})))
        else:
            own = f"{own[:-1]} (in a mark)" if own.endswith(".") else own
            rank, texts = _value_difference(own, was, now)
            if converted and was.partition(" ")[2:] == now.partition(" ")[2:] != ("",):
                continue  # the same number in another precision
        for text in texts:
            by_rank[rank].setdefault(text, []).append(part)
    ranks = by_rank[:1] if converted else [*by_rank[:2], by_rank[2]]
    every = {_part_and_name(name)[0] for name in old if name.startswith("part ")} & {*words}
    texts = [_in_parts(text, parts, every, label) for rank in ranks for text, parts in rank.items()]
    named = [text for text in texts if _ANOTHER not in text]
    shaped = any(was != now for was, now in (_kinds(old, new, name) for name in names))
    return named if named and (shaped or converted) else named + [text for text in texts if _ANOTHER in text]


_ANOTHER = "was another"


def _program_differences(old: Words, new: Words) -> list[str]:
    named = [f"{name} was {was}, is now {new[name]}" for name, was in old.items() if new.get(name, was) != was]
    if named:
        return [f"the program differs: {text}" for text in named]
    if not old or not new:
        return [f"the {PROGRAM} {_ANOTHER}"]
    same = "; ".join(f"{name} is {was}" for name, was in old.items() if was != "none")
    return [f"the program {_ANOTHER}, though by name {same}: the code of one of these, or of the model, was changed"]


def _value_difference(name: str, was: str, now: str) -> tuple[int, list[str]]:
    """Return the rank and the text; of arrays the text has type and shape, without the digest."""
    kinds = [_ARRAY.sub(r"\1", text) for text in (was, now)]
    rank = 2 if [was, now] != kinds else 0
    other = " of other values" if kinds[0] == kinds[1] else ""
    return rank, [f"{name} was {kinds[0]}{other}, is now {kinds[1]}"]


def _kinds(old: Words, new: Words, name: str) -> tuple[str, str]:
    """Return the type of a value before and now; for arrays with the shape."""
    was, now = (_ARRAY.sub(r"\1", texts.get(name, "absent")) for texts in (old, new))
    return (was, now) if "(" in was + now else (was.split(" ")[0], now.split(" ")[0])


def _part_and_name(name: str) -> tuple[str, str]:
    part, colon, own = name.partition(": ")
    return (part, own) if colon and name.startswith("part ") else ("", name)


def _in_parts(text: str, parts: list[str], every: set[str], label: Callable[[str], str]) -> str:
    """Return the text with the parts for which it holds, unless it holds for all."""
    if parts == [""] or set(parts) >= every and len(every) > 1:
        return text
    more = f", and {len(parts) - 1} more" * (len(parts) > 1)
    return f"{text} ({label(parts[0])}{more})"


def refuse(what: str, changes: list[str], remedy: str) -> None:
    """Raise an error if there are differences.

    Raises:
      ValueError: With the fields that differ.
    """
    if changes:
        more = f"; and {len(changes) - 6} more" * (len(changes) > 6)
        raise ValueError(f"{what}: {'; '.join(changes[:6])}{more}. {remedy}")
