"""Pages: a sweep or a fit as one HTML file to explore in a browser, without a server or a network."""

import os
from pathlib import Path

from jaxfit.pages.fits import fit_page
from jaxfit.pages.laws import law_of
from jaxfit.pages.notebooks import notebook
from jaxfit.pages.packing import write_page
from jaxfit.pages.sweeps import sweep_page
from jaxfit.problems.messages import near_names
from jaxfit.stores import as_path
from jaxfit.verbs.grids import Grid
from jaxfit.verbs.results import Fit

__all__ = ["notebook", "write_fit", "write_sweep"]
__getattr__, __dir__ = near_names(__name__, __all__)


def write_sweep(grid: Grid, path: str | os.PathLike) -> Path:
    """Write the page of a sweep and return its path; `Grid.to_html` calls it."""
    path = as_path("path", path)
    return write_page(sweep_page(grid.results, title=path.stem, law=law_of(grid)), path)


def write_fit(fit: Fit, path: str | os.PathLike) -> Path:
    """Write the page of a fit and return its path; `Fit.to_html` calls it."""
    path = as_path("path", path)
    return write_page(fit_page(fit, title=path.stem), path)
