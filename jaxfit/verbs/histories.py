"""The history of a run: its records by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax
import numpy as np

from jaxfit.typing import PyTree


class History(Mapping):
    """Records of a run by name: `history.step` (k,), `history.loss` (k,), ...; also a mapping: `history["loss"]`.

    What is recorded under the name of a method of mappings ("items", "values") is reached as `history["items"]` alone.
    """

    def __init__(self, rows: dict[str, PyTree]):
        self._rows = rows

    def __getitem__(self, name: str) -> PyTree:
        if name not in self._rows:
            raise KeyError(self._lacks(name))
        return self._rows[name]

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
            return rows[name]
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(self._lacks(name))

    def _lacks(self, name: str) -> str:
        rows = self.__dict__.get("_rows", {})
        return (
            f"history has no {name!r}; it holds {', '.join(rows)}. Ask for more with "
            f"record=jf.Record(what=({', '.join(repr(n) for n in [*rows, name] if n != 'step')}))"
        )

    def __dir__(self):
        return [*self._rows, "get", "items", "keys", "values"]

    def __repr__(self) -> str:
        shape = np.shape(self._rows.get("step", ()))  # pyright: ignore[reportCallIssue,reportArgumentType]
        lanes = f" of {'x'.join(map(str, shape[:-1]))} lanes" if len(shape) > 1 else ""
        return f"History({', '.join(self._rows)}; {shape[-1] if shape else 'no'} records{lanes})"


jax.tree_util.register_pytree_with_keys(
    History,
    lambda h: ([(jax.tree_util.GetAttrKey(name), value) for name, value in h._rows.items()], tuple(h._rows)),
    lambda names, children: History(dict(zip(names, children, strict=True))),
)
