"""jaxfit: gradient descent as a value. One fit, a million fits side by side, and the picture that explains them."""

from jaxfit import datasets, losses, models, optimizers, schedules, searches
from jaxfit.curves import curve_fit
from jaxfit.fits import Fit, NotConverged, fit, require_converged
from jaxfit.graphs import Graph, backprop
from jaxfit.grids import Grid, best, lane
from jaxfit.interruptions import Interrupted
from jaxfit.landscapes import surface
from jaxfit.markers import Axis, Call
from jaxfit.memory import backward_memory, forward_memory
from jaxfit.optimizers import optimizer
from jaxfit.parameters import Bounded, Fixed, Tied
from jaxfit.problems import Batches, Record, Status, Stop
from jaxfit.stores import StoreError
from jaxfit.stores import open_dataset as open  # noqa: F401 (a star import leaves Python's own alone)
from jaxfit.sweeps import sweep
from jaxfit.updates import step
from jaxfit.verification import NotReproduced, verify

__all__ = [
    "Axis", "Batches", "Bounded", "Call", "Fit", "Fixed", "Graph", "Grid", "Interrupted", "NotConverged",
    "NotReproduced", "Record",
    "Status", "Stop", "StoreError", "Tied", "backprop", "backward_memory", "best", "curve_fit", "datasets", "fit",
    "forward_memory", "lane", "losses", "models", "optimizer", "optimizers", "require_converged", "schedules",
    "searches", "step", "surface", "sweep", "verify",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "plots":  # the only module that imports matplotlib
        import importlib

        return importlib.import_module("jaxfit.plots")
    raise AttributeError(f"module 'jaxfit' has no attribute {name!r}")
