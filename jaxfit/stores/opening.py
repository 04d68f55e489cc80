"""Open a store as an `xarray.Dataset` whose blocks are read when their values are used.

This works also while its sweep runs: lanes that have not run have status 0 and NaN. Only what needs xarray imports this
file, since xarray takes longer to import than a curve to fit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from xarray import Dataset, Variable
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from jaxfit.stores.blocks import Column
from jaxfit.stores.files import StoreError
from jaxfit.stores.manifests import Manifest, block_maps, blocks_of, read_manifest


class GridArray(BackendArray):
    """One variable of a grid, put together from a column of each part."""

    def __init__(self, columns: Sequence[Column], manifest: Manifest, dtype: str):
        self.columns, self.manifest = columns, manifest
        self.parts = list(manifest.parts.values())
        self.dims = list(manifest.sizes)
        self.shape = (*manifest.sizes.values(), *columns[0].shape[1:])
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._taken)

    def _taken(self, key: tuple) -> np.ndarray:
        """Return the values at the outer product of the indices of each dimension."""
        grid, tail = key[: len(self.dims)], key[len(self.dims) :]
        sizes = zip(self.manifest.sizes.items(), grid, strict=True)
        wanted = {name: np.atleast_1d(np.arange(size)[index]) for (name, size), index in sizes}
        out = np.zeros((*map(len, wanted.values()), *self.shape[len(self.dims) :]), self.dtype)
        for column, part in zip(self.columns, self.parts, strict=True):
            hit = [
                np.flatnonzero(at == part.choice[name]) if name in part.choice else np.arange(len(at))
                for name, at in wanted.items()
            ]
            if not all(map(len, hit)):
                continue
            flat = np.zeros([len(at) for at in hit], np.int64)
            crossing = np.ix_(*(wanted[name][own] for name, own in zip(wanted, hit, strict=True)))
            for name in part.dynamic:
                flat = flat * self.manifest.sizes[name] + crossing[self.dims.index(name)]
            out[np.ix_(*hit)] = column[flat]
        out = out[tuple(0 if isinstance(index, (int, np.integer)) else slice(None) for index in grid)]
        first = out.ndim - len(tail)
        for axis in reversed(range(len(tail))):
            out = out[(slice(None),) * (first + axis) + (tail[axis],)]
        return out


class Store(BackendEntrypoint):
    """Opens a sweep's folder for xarray: `xarray.open_dataset(path, engine=Store)`."""

    description = "the store of a jaxfit sweep"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "damaged")

    def open_dataset(
        self,
        filename_or_obj: str | os.PathLike,
        *,
        drop_variables: str | Iterable[str] | None = None,
        damaged: str = "error",
    ) -> Dataset:
        folder = Path(filename_or_obj)
        manifest = read_manifest(folder)
        blocks, parts = blocks_of(folder, manifest, skip=damaged == "skip"), block_maps(manifest).values()
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        variables = {}
        try:
            for name, variable in manifest.variables.items():
                if name not in dropped:
                    columns = [Column(blocks, part, variable.tensor) for part in parts]
                    lazy = indexing.LazilyIndexedArray(GridArray(columns, manifest, variable.dtype))
                    variables[name] = Variable((*manifest.sizes, *variable.extra), lazy, variable.attributes)
            return Dataset(variables, manifest.coordinates, manifest.attributes)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{folder / 'manifest.json'} says what cannot be: {error}; use another store") from error
