"""jaxfit: gradient descent as a value. One fit, a million fits side by side, and the picture that explains them."""

from jaxfit import datasets, losses, models, optimizers, schedules, searches
from jaxfit.curves import curve_fit
from jaxfit.fits import Fit, Interrupted, NotConverged, fit, require_converged, step
from jaxfit.graphs import Graph, backprop
from jaxfit.grids import Grid, best, lane
from jaxfit.landscapes import surface
from jaxfit.markers import Axis, Call
from jaxfit.memory import backward_memory, forward_memory
from jaxfit.multistarts import Optima, optima, starts
from jaxfit.optimizers import optimizer
from jaxfit.parameters import Bounded, Fixed, Tied
from jaxfit.problems import Batches, Record, Status, Stop
from jaxfit.statistics import (
    band,
    correlations,
    covariance,
    f_test,
    goodness_of_fit,
    intervals,
    propagate,
    residuals,
    standard_errors,
)
from jaxfit.sweeps import sweep

__all__ = [
    "Axis", "Batches", "Bounded", "Call", "Fit", "Fixed", "Graph", "Grid", "Interrupted", "NotConverged", "Optima",
    "Record", "Status", "Stop", "Tied", "backprop", "backward_memory", "best", "curve_fit", "datasets", "fit",
    "forward_memory", "lane", "losses", "models", "optima", "optimizer", "optimizers", "require_converged", "schedules",
    "searches", "starts", "step", "surface", "sweep",
    "band", "correlations", "covariance", "f_test", "goodness_of_fit", "intervals", "propagate", "residuals",
    "standard_errors",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in ("plots", "sklearn"):  # the only modules that import matplotlib and scikit-learn
        import importlib

        return importlib.import_module(f"jaxfit.{name}")
    raise AttributeError(f"module 'jaxfit' has no attribute {name!r}")
