"""Models: values called as `model(params, x)`.

Networks, polynomials and functions of one's own have an `init(key)` that makes their params; curves have a
`guess(x, y)` that starts them from the data, and add up: `gaussian + line`. Equal arguments give equal models, so a
model written in place never recompiles.
"""

from jaxfit.models.functions import (
    ACTIVATIONS,
    Dense,
    FromFunction,
    Line,
    OrthogonalPolynomial,
    Polynomial,
    constant,
    dense,
    from_function,
    line,
    orthogonal_polynomial,
    polynomial,
)
from jaxfit.models.growth_and_decay import (
    damped_oscillation,
    exponential_decay,
    exponential_growth,
    exponential_rise,
    exponentials,
    gompertz,
    hill,
    logistic,
    michaelis_menten,
    power_law,
)
from jaxfit.models.kinetics import (
    arrhenius,
    asymmetric_hill,
    cutoff_power_law,
    delayed_rise,
    oral_dose,
    planck,
    stretched_exponential,
    substrate_inhibition,
    thermal_distribution,
)
from jaxfit.models.peaks import gaussian, gaussian_2d, gaussians, lorentzian, lorentzians, voigt, voigts
from jaxfit.models.resonances import driven_oscillator, fano
from jaxfit.models.shaped_peaks import (
    doniach,
    exponential_gaussian,
    log_normal,
    moffat,
    pearson_iv,
    pseudo_voigt,
    skewed_gaussian,
    skewed_voigt,
    split_lorentzian,
)
from jaxfit.models.splines import Spline, spline
from jaxfit.models.steps import (
    arctan_rectangle,
    arctan_step,
    linear_rectangle,
    linear_step,
    logistic_rectangle,
    rectangle,
    smooth_step,
)
from jaxfit.models.terms import Curve, Several, Sum, sum
from jaxfit.problems.messages import near_names

__all__ = [
    "ACTIVATIONS", "Curve", "Dense", "FromFunction", "Line", "OrthogonalPolynomial", "Polynomial", "Several", "Spline",
    "Sum", "arctan_rectangle", "arctan_step", "arrhenius", "asymmetric_hill", "constant", "cutoff_power_law",
    "damped_oscillation", "delayed_rise", "dense", "doniach", "driven_oscillator", "exponential_decay",
    "exponential_gaussian", "exponential_growth", "exponential_rise", "exponentials", "fano", "from_function",
    "gaussian", "gaussian_2d", "gaussians", "gompertz", "hill", "line", "linear_rectangle", "linear_step", "log_normal",
    "logistic", "logistic_rectangle", "lorentzian", "lorentzians", "michaelis_menten", "moffat", "oral_dose",
    "orthogonal_polynomial", "pearson_iv", "planck", "polynomial", "power_law", "pseudo_voigt", "rectangle",
    "skewed_gaussian", "skewed_voigt", "smooth_step", "spline", "split_lorentzian", "stretched_exponential",
    "substrate_inhibition", "sum", "thermal_distribution", "voigt", "voigts",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
