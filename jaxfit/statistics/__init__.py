"""Statistics of a finished fit: errors of its params, of the curve and of any function of them.

Everything is computed in float64 with exact derivatives, for one fit or for every lane of a grid at once. Params that
the data do not determine get NaN.
"""

from jaxfit.problems.messages import near_names
from jaxfit.statistics.confidence import Band, Derived, Interval, band, intervals, propagate
from jaxfit.statistics.covariances import correlations, covariance, standard_errors
from jaxfit.statistics.diagnosis import Diagnostics, DurbinWatson, Influence, Runs, diagnostics, influence
from jaxfit.statistics.goodness import FTest, Goodness, Residuals, f_test, goodness_of_fit, residuals
from jaxfit.statistics.profiles import Profile, profile
from jaxfit.statistics.reports import report
from jaxfit.statistics.resampling import Resamples, bootstrap, monte_carlo
from jaxfit.statistics.tables import Report

__all__ = [
    "Band", "Derived", "Diagnostics", "DurbinWatson", "FTest", "Goodness", "Influence", "Interval", "Profile", "Report",
    "Resamples", "Residuals", "Runs", "band", "bootstrap", "correlations", "covariance", "diagnostics", "f_test",
    "goodness_of_fit", "influence", "intervals", "monte_carlo", "profile", "propagate", "report", "residuals",
    "standard_errors",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
