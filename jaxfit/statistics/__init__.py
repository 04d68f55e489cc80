"""What a finished fit is worth: errors of its params, of the curve and of all that follows from them.

Everything is computed in float64 with exact derivatives, for one fit or for every lane of a grid at once. What the data
do not determine gets no number.
"""

from jaxfit.statistics.covariances import correlations, covariance, standard_errors
from jaxfit.statistics.goodness import FTest, Goodness, Residuals, f_test, goodness_of_fit, residuals
from jaxfit.statistics.intervals import Interval, intervals
from jaxfit.statistics.propagation import Band, Derived, band, propagate

__all__ = [
    "Band", "Derived", "FTest", "Goodness", "Interval", "Residuals", "band", "correlations", "covariance", "f_test",
    "goodness_of_fit", "intervals", "propagate", "residuals", "standard_errors",
]  # fmt: skip
