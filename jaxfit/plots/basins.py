"""Maps of a landscape: its relief, and where every start on it ends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LightSource, LinearSegmentedColormap, to_rgb

from jaxfit.plots.house import BLUE, GREEN, PALE, PINK, RED, house

LAND = LinearSegmentedColormap.from_list("land", ["#8fae7c", "#c9cf9b", "#efe3b4", "#e0b983", "#b98a63", "#f7f3ee"])
WATER = LinearSegmentedColormap.from_list("water", ["#123f6b", "#2f7fb8", "#86bfe2"])
BASINS = (BLUE, "#F0E442", GREEN, PINK, RED)
TINTS, LIGHTS, SPEEDS = 10, 14, 16  # few of each keep the files small, and bands of height look like a map's


@house
def relief(x: Any, y: Any, height: Any, *, water: Any = None, contours: Any = 12, ax: Axes) -> Axes:
    """A landscape seen from above: lit from the upper left, with lines of equal height, and lakes.

    Args:
      x: (columns,) and y: (rows,) coordinates, evenly spaced.
      height: (rows, columns).
      water: (rows, columns), True where a lake stands; None for dry land.
      contours: How many lines of equal height, or their heights.
      ax: The axes to draw on; new ones if None.
    """
    x, y, height = (np.asarray(v, float) for v in (x, y, height))
    wet = np.zeros(height.shape, bool) if water is None else np.asarray(water, bool)
    size = np.ptp(x) / np.ptp(height)
    right, up = np.diff(x[:2])[0], np.diff(y[:2])[0]
    light = LightSource(315, 38).hillshade(height * size, vert_exag=0.28, dx=right, dy=-up)  # rows run upwards here
    dry, low = height[~wet], height[wet]
    paint = LAND(_bands((height - dry.min()) / np.ptp(dry), TINTS))[..., :3]
    paint = paint * (0.42 + 0.68 * _bands(light, LIGHTS)[..., None])
    if wet.any():
        paint[wet] = WATER(_bands((low - low.min()) / np.ptp(low), TINTS))[..., :3]
    _map(ax, x, y, np.clip(paint, 0, 1))
    dry_only = np.where(wet, np.nan, height)
    ax.contour(x, y, dry_only, contours, colors="black", linewidths=0.45, linestyles="solid", alpha=0.3)
    return ax


@house
def basin_map(x: Any, y: Any, basin: Any, steps: Any = None, *, colors: Sequence[str] = BASINS, ax: Axes) -> Axes:
    """Where each start ends, by color; the darker, the more steps it took.

    Args:
      x: (columns,) and y: (rows,) the starts, evenly spaced.
      basin: (rows, columns) the number of the minimum that was reached; negative for none.
      steps: (rows, columns) until it was reached; None for flat colors.
      colors: One for each minimum; they repeat if there are more.
      ax: The axes to draw on; new ones if None.
    """
    basin = np.asarray(basin)
    palette = np.array([to_rgb(color) for color in colors])
    paint = 0.28 + 0.72 * palette[basin % len(palette)]
    if steps is not None:
        late = np.log(np.maximum(np.asarray(steps, float), 1))
        low, high = np.quantile(late, [0.02, 0.995])
        dark = _bands(np.clip((late - low) / max(high - low, 1e-9), 0, 1), SPEEDS)
        paint = paint * (1.05 - 0.6 * dark[..., None])
    paint[basin < 0] = to_rgb(PALE)
    return _map(ax, np.asarray(x, float), np.asarray(y, float), np.clip(paint, 0, 1))


def _bands(values: np.ndarray, count: int) -> np.ndarray:
    """From 0 to 1 in so many steps."""
    return np.minimum(np.floor(values * count), count - 1) / (count - 1)


def _map(ax: Axes, x: np.ndarray, y: np.ndarray, paint: np.ndarray) -> Axes:
    """An image on the coordinates of the cells' centers."""
    right, up = np.diff(x[:2])[0] / 2, np.diff(y[:2])[0] / 2
    extent = (x[0] - right, x[-1] + right, y[0] - up, y[-1] + up)
    ax.imshow(paint, origin="lower", extent=extent, interpolation="nearest", aspect="auto")
    return ax
