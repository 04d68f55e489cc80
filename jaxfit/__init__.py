"""jaxfit: gradient descent as a value. One fit, a million fits side by side, and the picture that explains them."""

from typing import TYPE_CHECKING

from jaxfit import datasets, losses, optimizers
from jaxfit.engine.compiling import cache
from jaxfit.engine.host import Interrupted, OutOfMemory
from jaxfit.optimizers import optimizer
from jaxfit.optimizers.stability import preconditioner, stability_limit
from jaxfit.problems import Batches, Record, Status, Stop
from jaxfit.problems.axes import Axis, Call
from jaxfit.problems.marks import Bounded, Carried, Fixed, Tied
from jaxfit.problems.messages import near_names as _near_names
from jaxfit.stores import StoreError
from jaxfit.stores import open_dataset as open  # noqa: F401 (a star import leaves Python's own alone)
from jaxfit.stores.fits import load, save
from jaxfit.verbs.curves import curve_fit
from jaxfit.verbs.fits import fit, resume, step
from jaxfit.verbs.results import Fit, NotConverged, require_converged

if TYPE_CHECKING:  # what `_LATER` imports when it is first asked for: a single fit needs half of the package
    from jaxfit import experiments, landscapes, models, plots, schedules, searches, sklearn  # noqa: F401
    from jaxfit.curvature import curvature_along, hessian_spectrum, learning_rate_range, measured_limit, sharpness
    from jaxfit.explanations import explain
    from jaxfit.graphs import Graph, backprop, backward_memory, forward_memory
    from jaxfit.landscapes import surface
    from jaxfit.problems.pruning import Halving, Hyperband, Median, Rung, Rungs
    from jaxfit.statistics import (
        band,
        bootstrap,
        correlations,
        covariance,
        diagnostics,
        f_test,
        goodness_of_fit,
        influence,
        intervals,
        monte_carlo,
        profile,
        propagate,
        report,
        residuals,
        standard_errors,
    )
    from jaxfit.stores.verification import NotReproduced, verify
    from jaxfit.verbs.grids import Grid, best, lane
    from jaxfit.verbs.multistarts import Optima, optima, starts
    from jaxfit.verbs.refinements import refine
    from jaxfit.verbs.sampling import Choice, LogUniform, Uniform, ask, sample, tell
    from jaxfit.verbs.sweeps import sweep

__all__ = [
    "Axis", "Batches", "Bounded", "Call", "Carried", "Choice", "Fit", "Fixed", "Graph", "Grid", "Halving", "Hyperband",
    "Interrupted", "LogUniform", "Median", "NotConverged", "NotReproduced", "Optima", "OutOfMemory", "Record", "Rung",
    "Rungs", "Status", "Stop", "StoreError", "Tied", "Uniform", "ask", "backprop", "backward_memory", "band", "best",
    "bootstrap", "cache", "correlations", "covariance", "curvature_along", "curve_fit", "datasets", "diagnostics",
    "explain", "f_test", "fit", "forward_memory", "goodness_of_fit", "hessian_spectrum", "influence", "intervals",
    "landscapes", "lane", "learning_rate_range", "load", "losses", "measured_limit", "models", "monte_carlo", "optima",
    "optimizer", "optimizers", "preconditioner", "profile", "propagate", "refine", "report", "require_converged",
    "residuals", "resume", "sample", "save", "schedules", "searches", "sharpness", "stability_limit", "standard_errors",
    "starts", "step", "surface", "sweep", "tell", "verify",
]  # fmt: skip
__version__ = "0.1.0"
_MODULES = "experiments", "landscapes", "models", "plots", "schedules", "searches", "sklearn"
_LATER = {  # by module the names that come from it; plots and sklearn alone import matplotlib and scikit-learn
    "curvature": ("curvature_along", "hessian_spectrum", "learning_rate_range", "measured_limit", "sharpness"),
    "explanations": ("explain",),
    "graphs": ("Graph", "backprop", "backward_memory", "forward_memory"),
    "landscapes": ("surface",),
    "problems.pruning": ("Halving", "Hyperband", "Median", "Rung", "Rungs"),
    "statistics": (
        "band", "bootstrap", "correlations", "covariance", "diagnostics", "f_test", "goodness_of_fit", "influence",
        "intervals", "monte_carlo", "profile", "propagate", "report", "residuals", "standard_errors",
    ),
    "stores.verification": ("NotReproduced", "verify"),
    "verbs.grids": ("Grid", "best", "lane"),
    "verbs.multistarts": ("Optima", "optima", "starts"),
    "verbs.refinements": ("refine",),
    "verbs.sampling": ("Choice", "LogUniform", "Uniform", "ask", "sample", "tell"),
    "verbs.sweeps": ("sweep",),
}  # fmt: skip
_HOMES = {name: module for module, names in _LATER.items() for name in names}
_unknown, __dir__ = _near_names(__name__, [*__all__, "open", *sorted({*_MODULES} - {*__all__})])


def __getattr__(name: str):
    import importlib

    if name in _HOMES:
        value = globals()[name] = getattr(importlib.import_module(f"jaxfit.{_HOMES[name]}"), name)
        return value
    if name in _MODULES or name in _LATER:
        return importlib.import_module(f"jaxfit.{name}")
    return _unknown(name)
