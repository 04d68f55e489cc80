"""The table of More, Garbow and Hillstrom's problems is theirs: the printed least values, by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from tests.shared import mgh
from tests.shared.soak import soaking


def lowest(problem):
    """The least sum of squares that SciPy finds from the start, with the Jacobian by JAX."""
    with jax.enable_x64(True):
        residuals, slopes = jax.jit(problem.residuals), jax.jit(jax.jacfwd(problem.residuals))

        def numpy(function):
            return lambda x: np.asarray(function(jnp.asarray(x)))

        found = scipy.optimize.least_squares(
            numpy(residuals), problem.start, numpy(slopes), xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac",
            max_nfev=2000,
        )  # fmt: skip
    return 2 * found.cost


@pytest.mark.parametrize("name", soaking(mgh.PROBLEMS, keep=("Osborne 2", "Watson 6")))
def test_scipy_comes_down_to_a_printed_value(name):
    least = np.array(mgh.PROBLEMS[name].least)
    found = lowest(mgh.PROBLEMS[name])
    assert np.any(np.abs(found - least) <= np.where(least == 0, 1e-20, 1e-5 * least)), found  # six digits are printed
