"""Curvature: eigenvalues of the Hessian from Hessian-vector products, and the learning rates that they allow."""

from jaxfit.curvature.limits import MeasuredLimit, RangeTest, learning_rate_range, measured_limit
from jaxfit.curvature.spectra import Along, Sharpness, Spectrum, curvature_along, hessian_spectrum, sharpness
from jaxfit.problems.messages import near_names

__all__ = [
    "Along", "MeasuredLimit", "RangeTest", "Sharpness", "Spectrum", "curvature_along", "hessian_spectrum",
    "learning_rate_range", "measured_limit", "sharpness",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
