"""Types that signatures name, for annotations of your own too: `from jaxfit.typing import Params`.

Where a value may be swept, its type has `Axis`; under `jax.jit`, `jax.vmap` and `jax.grad` an array may be a tracer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import optax
from jax import Array
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import numpy as np

    from jaxfit.optimizers.building import Optimizer
    from jaxfit.problems.axes import Axis, Call

__all__ = [
    "Array", "ArrayLike", "KeyLike", "LossFunction", "Model", "Number", "OptimizerLike", "Params", "PyTree",
    "Scalar", "Schedule", "Varied",
]  # fmt: skip

PyTree: TypeAlias = Any  # nested dicts, lists, tuples and dataclasses, with arrays or numbers at the leaves
Params: TypeAlias = PyTree  # of a loss or model; a start may also hold Fixed, Bounded, Tied and Axis, or be a Call
Scalar: TypeAlias = Any  # one number, or a () array of NumPy's or JAX's; in arguments also an axis of numbers
LossFunction: TypeAlias = Callable[..., Any]  # loss(params, *data) -> scalar: one of jf.losses, or a plain function
Model: TypeAlias = Callable[..., Any]  # model(params, x) -> array: one of jf.models, or a plain function
Number: TypeAlias = "float | Array"  # one number, which may be traced
Schedule: TypeAlias = Callable[[Any], Any]  # of the step, counted from 0
Varied: TypeAlias = "Axis | Call | Schedule | Array | np.ndarray"  # an axis of numbers, a schedule, or a 0-d array
KeyLike: TypeAlias = "int | Array | Axis"  # a seed or a key of jax.random.key
OptimizerLike: TypeAlias = "Optimizer | optax.GradientTransformation | optax.MultiSteps | Axis"


def __dir__() -> list[str]:
    return __all__
