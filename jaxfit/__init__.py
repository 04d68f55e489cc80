"""jaxfit: gradient descent as a value. One fit, a million fits side by side, and the picture that explains them."""

from jaxfit import datasets, losses, models, optimizers, schedules, searches
from jaxfit.curvature import curvature_along, hessian_spectrum, learning_rate_range, measured_limit, sharpness
from jaxfit.curves import curve_fit
from jaxfit.explanations import explain
from jaxfit.fits import Fit, Interrupted, NotConverged, fit, require_converged, step
from jaxfit.graphs import Graph, backprop
from jaxfit.grids import Grid, best, lane
from jaxfit.landscapes import surface
from jaxfit.markers import Axis, Call
from jaxfit.memory import backward_memory, forward_memory
from jaxfit.optimizers import optimizer
from jaxfit.parameters import Bounded, Fixed, Tied
from jaxfit.preconditioners import preconditioner
from jaxfit.problems import Batches, Record, Status, Stop
from jaxfit.stability import stability_limit
from jaxfit.sweeps import sweep

__all__ = [
    "Axis", "Batches", "Bounded", "Call", "Fit", "Fixed", "Graph", "Grid", "Interrupted", "NotConverged", "Record",
    "Status", "Stop", "Tied", "backprop", "backward_memory", "best", "curvature_along", "curve_fit", "datasets",
    "explain", "fit", "forward_memory", "hessian_spectrum", "lane", "learning_rate_range", "losses", "measured_limit",
    "models", "optimizer", "optimizers", "preconditioner", "require_converged", "schedules", "searches", "sharpness",
    "stability_limit", "step", "surface", "sweep",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "plots":  # the only module that imports matplotlib
        import importlib

        return importlib.import_module("jaxfit.plots")
    raise AttributeError(f"module 'jaxfit' has no attribute {name!r}")
