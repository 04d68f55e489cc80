"""Plots: each function draws one picture from numbers and returns the axes.

Every function takes `ax=None` and makes new axes if none are given. Pictures have the house style, with labels on the
curves instead of legends; the caller's rcParams do not change.
"""

from jaxfit.plots.descents import descent_1d, descent_animation, learning_rate_range, line_fit, loss_history
from jaxfit.plots.graphs import Arrow, Box, backprop_animation, backprop_graph, flow
from jaxfit.plots.house import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    LARGEST,
    ORANGE,
    PALE,
    PINK,
    RED,
    SKY,
    Room,
    few_ticks,
    gif,
    house,
    number,
    outlined,
    panels,
    png,
    round_ticks,
    style,
    without_display,
)
from jaxfit.plots.maps import basin_map, convergence_map, power_map, relief, steps_bar
from jaxfit.plots.surfaces import arrow_3d, contour, landscape, surface_3d
from jaxfit.plots.uncertainties import corner, fit, profile
from jaxfit.problems.messages import near_names

__all__ = [
    "BLUE", "DARK", "GREEN", "GREY", "LARGEST", "ORANGE", "PALE", "PINK", "RED", "SKY", "Arrow", "Box", "Room",
    "arrow_3d", "backprop_animation", "backprop_graph", "basin_map", "contour", "convergence_map", "corner",
    "descent_1d", "descent_animation", "few_ticks", "fit", "flow", "gif", "house", "landscape", "learning_rate_range",
    "line_fit", "loss_history", "number", "outlined", "panels", "png", "power_map", "profile", "relief",
    "round_ticks", "steps_bar", "style", "surface_3d", "without_display",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
