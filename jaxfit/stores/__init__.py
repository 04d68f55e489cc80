"""Stores: results on disk in block files with checksums, described by a manifest, and read as one Dataset."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaxfit.problems.messages import near_keywords, near_names
from jaxfit.stores.files import StoreError, as_path

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["StoreError", "open_dataset"]
__getattr__, __dir__ = near_names(__name__, __all__)


@near_keywords
def open_dataset(path: str | os.PathLike, *, damaged: str = "error") -> Dataset:
    """Return the results of a sweep with a store as an `xarray.Dataset`, also while the sweep still runs.

    Blocks are read and checked when their values are used; lanes that have not run have status 0 (NOT_RUN) and NaN.
    Lanes that run after the store was opened are seen when it is opened again. `.load()` reads everything into memory;
    `.to_zarr(...)` (with the extra `export`) and `.to_netcdf(..., engine="scipy")` write it in another format.

    Args:
      path: The folder that was given to `jf.sweep(..., store=)`.
      damaged: What to do with a block whose bytes are not those that were written: "error", or "skip" to treat its
        lanes as not run.

    Raises:
      StoreError: If the folder is not a store, or a file that is needed is damaged; the message names the file.
      TypeError, ValueError: If `path` is not a path, or `damaged` is another word.

    Example:
      >>> rates = jf.Axis("rate", [0.1, 0.5, 1.5])
      >>> sgd = jf.optimizers.sgd(rates)
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=sgd, steps=20, store="rates")
      >>> jf.open("rates").status.values.tolist() == grid.results.status.values.tolist()
      True
    """
    import xarray as xr

    from jaxfit.stores.opening import Store

    if hasattr(path, "results"):
        raise TypeError("path is a grid, which is open already: its results are grid.results, its folder grid.store")
    if damaged not in ("error", "skip"):
        raise ValueError(f'damaged is {damaged!r}, but it must be "error", or "skip" to leave such lanes out')
    return xr.open_dataset(as_path("path", path), engine=Store, damaged=damaged)
