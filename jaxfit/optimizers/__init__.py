"""Optimizers as values: any Optax factory with its hyperparameters as leaves, so that they can be swept and traced.

The transformation is built inside the traced function: a new learning rate never recompiles. `torch`, `keras` and
`tfjs` hold the optimizers of these frameworks with their own names, arguments, defaults and arithmetic.
"""

import importlib
from typing import TYPE_CHECKING

from jaxfit.optimizers.building import NAMES, Optimizer, accumulated, clipped, each, optimizer, reduced_on_plateau
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
    muon,
    nadam,
    nesterov,
    radam,
    rmsprop,
    rprop,
    sgd,
    yogi,
)
from jaxfit.problems.messages import near_names

if TYPE_CHECKING:
    from jaxfit.optimizers import keras, tfjs, torch

__all__ = [
    "Optimizer", "accumulated", "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamw", "amsgrad", "clipped",
    "each",
    "keras", "lbfgs", "levenberg_marquardt", "lion", "momentum", "muon", "nadam", "nesterov", "optimizer", "radam",
    "reduced_on_plateau", "rmsprop",
    "rprop", "sgd", "tfjs", "torch", "yogi",
]  # fmt: skip
_unknown, __dir__ = near_names(
    __name__, __all__,
    f"There are: {', '.join(NAMES)}; any other Optax factory goes through jf.optimizer(factory, ...)",
)  # fmt: skip


def __getattr__(name: str):
    if name in ("keras", "tfjs", "torch"):  # imported when first asked for
        return importlib.import_module(f"jaxfit.optimizers.{name}")
    return _unknown(name)
