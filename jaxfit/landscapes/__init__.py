"""The loss as a landscape: surfaces over any axes, and slices of it through params of any number."""

from jaxfit.landscapes.slices import Slice, between, hessian_plane, random_plane, trajectory_plane
from jaxfit.landscapes.surfaces import Trail, surface, trail
from jaxfit.problems.messages import near_names

__all__ = [
    "Slice", "Trail", "between", "hessian_plane", "random_plane", "surface", "trail", "trajectory_plane",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
