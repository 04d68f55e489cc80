"""Optimizers as values: any Optax factory with its hyperparameters as leaves, so that they can be swept and traced.

The transformation is built inside the traced function: a new learning rate never recompiles.
"""

from jaxfit.optimizers.building import NAMES, Optimizer, accumulated, each, optimizer
from jaxfit.optimizers.named import (
    adabelief,
    adadelta,
    adagrad,
    adam,
    adamax,
    adamw,
    amsgrad,
    lbfgs,
    levenberg_marquardt,
    lion,
    momentum,
    nadam,
    nesterov,
    radam,
    rmsprop,
    rprop,
    sgd,
    yogi,
)
from jaxfit.problems.messages import near_names

__all__ = [
    "Optimizer", "accumulated", "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamw", "amsgrad", "each",
    "lbfgs", "levenberg_marquardt", "lion", "momentum", "nadam", "nesterov", "optimizer", "radam", "rmsprop", "rprop",
    "sgd", "yogi",
]  # fmt: skip
__getattr__, __dir__ = near_names(
    __name__, __all__,
    f"There are: {', '.join(NAMES)}; any other Optax factory goes through jf.optimizer(factory, ...)",
)  # fmt: skip
