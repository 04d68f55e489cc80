"""Losses and penalties: values called as `loss(params, *data)`, which return a scalar and add up with `+`.

A loss is hashable, and equal to any other made of equal arguments, so that one written in place never recompiles. It is
also a pytree: its numbers (`delta`, `strength`) are leaves, which may be traced or swept; all the rest is static.
"""

from jaxfit.losses.base import Block, Loss, Penalty, Plain, Sum, data_names, model_of, takes_data, takes_key
from jaxfit.losses.joint import Each, Joint, each, joint
from jaxfit.losses.likelihoods import (
    Binomial,
    ChiSquared,
    CrossEntropy,
    LeastSquares,
    Likelihood,
    Poisson,
    binomial,
    chi_squared,
    least_squares,
    likelihood,
    poisson,
    softmax_cross_entropy,
)
from jaxfit.losses.orthogonal import ImplicitDistance, OrthogonalDistance, implicit_distance, orthogonal_distance
from jaxfit.losses.regression import Residual, arctan, cauchy, huber, mae, mse, rss, soft_l1, tukey
from jaxfit.losses.regularization import L2, InputNoise, Smoothness, input_noise, l2, smoothness
from jaxfit.losses.stateful import Stateful, stateful
from jaxfit.problems.messages import near_names

__all__ = [
    "Binomial", "Block", "ChiSquared", "CrossEntropy", "Each", "ImplicitDistance", "InputNoise", "Joint", "L2",
    "LeastSquares", "Likelihood", "Loss", "OrthogonalDistance", "Penalty", "Plain", "Poisson", "Residual",
    "Smoothness", "Stateful", "Sum", "arctan", "binomial", "cauchy", "chi_squared", "data_names", "each", "huber",
    "implicit_distance", "input_noise", "joint", "l2", "least_squares", "likelihood", "mae", "model_of", "mse",
    "orthogonal_distance", "poisson", "rss", "smoothness", "soft_l1", "softmax_cross_entropy", "stateful",
    "takes_data", "takes_key", "tukey",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
