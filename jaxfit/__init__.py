"""jaxfit: gradient descent as a value. One fit, a million fits side by side, and the picture that explains them."""

from jaxfit import datasets, losses, models, optimizers, schedules, searches
from jaxfit.curvature import curvature_along, hessian_spectrum, learning_rate_range, measured_limit, sharpness
from jaxfit.curves import curve_fit
from jaxfit.explanations import explain
from jaxfit.fits import Fit, NotConverged, fit, require_converged
from jaxfit.graphs import Graph, backprop
from jaxfit.grids import Grid, best, lane
from jaxfit.interruptions import Interrupted, OutOfMemory
from jaxfit.keywords import near_names as _near_names
from jaxfit.landscapes import surface
from jaxfit.markers import Axis, Call
from jaxfit.memory import backward_memory, forward_memory
from jaxfit.multistarts import Optima, optima, starts
from jaxfit.optimizers import optimizer
from jaxfit.parameters import Bounded, Fixed, Tied
from jaxfit.preconditioners import preconditioner
from jaxfit.problems import Batches, Record, Status, Stop
from jaxfit.refinement import refine
from jaxfit.stability import stability_limit
from jaxfit.statistics import (
    band,
    bootstrap,
    correlations,
    covariance,
    f_test,
    goodness_of_fit,
    intervals,
    monte_carlo,
    profile,
    propagate,
    report,
    residuals,
    standard_errors,
)
from jaxfit.stores import StoreError
from jaxfit.stores import open_dataset as open  # noqa: F401 (a star import leaves Python's own alone)
from jaxfit.sweeps import sweep
from jaxfit.updates import step
from jaxfit.verification import NotReproduced, verify

__all__ = [
    "Axis", "Batches", "Bounded", "Call", "Fit", "Fixed", "Graph", "Grid", "Interrupted", "NotConverged",
    "NotReproduced", "Optima", "OutOfMemory", "Record", "Status", "Stop", "StoreError", "Tied", "backprop",
    "backward_memory", "band", "best", "bootstrap", "correlations", "covariance", "curvature_along", "curve_fit",
    "datasets", "explain", "f_test", "fit", "forward_memory", "goodness_of_fit", "hessian_spectrum", "intervals",
    "lane", "learning_rate_range", "losses", "measured_limit", "models", "monte_carlo", "optima",
    "optimizer", "optimizers", "preconditioner", "profile", "propagate", "refine", "report", "require_converged",
    "residuals", "schedules", "searches", "sharpness", "stability_limit", "standard_errors", "starts", "step",
    "surface", "sweep", "verify",
]  # fmt: skip
__version__ = "0.1.0"
_unknown, __dir__ = _near_names(__name__, [*__all__, "open", "plots", "sklearn"])


def __getattr__(name: str):
    if name in ("plots", "sklearn"):  # the only modules that import matplotlib and scikit-learn
        import importlib

        return importlib.import_module(f"jaxfit.{name}")
    return _unknown(name)
