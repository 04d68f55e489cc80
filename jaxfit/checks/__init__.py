"""Bad arguments, refused before anything compiles: each error names the argument, shows what came, says the remedy.

What is wrong with the structure of a call (shapes, trees, names, counts) is an exception; what goes wrong with the
numbers of a run is a `Status`.
"""

from jaxfit.checks.data import as_data, beyond_range, check_data
from jaxfit.checks.methods import too_few
from jaxfit.checks.params import as_params
from jaxfit.checks.posing import as_loss, pose, refuse_axes
from jaxfit.checks.rates import check_schedule
from jaxfit.checks.wholes import floating, floating_of_loss
from jaxfit.checks.wording import path_name, warn

__all__ = [
    "as_data", "as_loss", "as_params", "beyond_range", "check_data", "check_schedule", "floating", "floating_of_loss",
    "path_name", "pose", "refuse_axes", "too_few", "warn",
]  # fmt: skip
