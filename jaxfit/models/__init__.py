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
)
from jaxfit.models.peaks import gaussian, gaussian_2d, gaussians, lorentzian, lorentzians, voigt, voigts
from jaxfit.models.shaped_peaks import (
    arctan_step,
    doniach,
    exponential_gaussian,
    fano,
    log_normal,
    moffat,
    pseudo_voigt,
    rectangle,
    skewed_gaussian,
    smooth_step,
    split_lorentzian,
)
from jaxfit.models.terms import Curve, Several, Sum, sum
from jaxfit.problems.messages import near_names

__all__ = [
    "ACTIVATIONS", "Curve", "Dense", "FromFunction", "Line", "OrthogonalPolynomial", "Polynomial", "Several", "Sum",
    "arctan_step", "arrhenius", "asymmetric_hill", "constant", "cutoff_power_law", "damped_oscillation",
    "delayed_rise", "dense", "doniach", "exponential_decay", "exponential_gaussian", "exponential_growth",
    "exponential_rise", "exponentials", "fano", "from_function", "gaussian", "gaussian_2d", "gaussians", "gompertz",
    "hill", "line", "log_normal", "logistic", "lorentzian", "lorentzians", "michaelis_menten", "moffat", "oral_dose",
    "orthogonal_polynomial", "planck", "polynomial", "power_law", "pseudo_voigt", "rectangle", "skewed_gaussian",
    "smooth_step", "split_lorentzian", "stretched_exponential", "substrate_inhibition", "sum", "voigt", "voigts",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
