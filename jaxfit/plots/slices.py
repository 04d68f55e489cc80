"""Slices of a landscape of many params, with what they hold and the descents on them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxfit.landscapes import Slice
from jaxfit.plots.house import BLUE, house
from jaxfit.plots.labels import number
from jaxfit.plots.surfaces import contour


@house
def landscape(surface: Any, plane: Slice, paths: Mapping[str, Any] | None = None, *, levels: Any = 8, ax: Axes) -> Axes:
    """The loss over a slice, descents projected onto it, and in the title how much it holds of what it is to show.

    Args:
      surface: `jf.surface(loss, plane.at(), data)`.
      plane: The slice; a line is drawn as a curve.
      paths: {label: fit with its params recorded, or params like its own, one or many}; only over planes.
      levels: As in `contour`.
      ax: The axes to draw on; new ones if None.

    Raises:
      ValueError: If the surface is of another slice, or a path does not fit it.
    """
    if getattr(surface, "dims", None) != plane.names:
        raise ValueError(
            f"landscape: the surface has the dimensions {getattr(surface, 'dims', None)}, but the slice {plane.names}; "
            f"make it with jf.surface(loss, plane.at(), data)"
        )
    words = [name.replace("_", " ") for name in plane.names]
    if "eigenvalues" in plane.about:
        shown = [number(float(f"{value:.3g}")) for value in plane.about["eigenvalues"]]
        words = [f"{word}, \N{GREEK SMALL LETTER LAMDA} = {value}" for word, value in zip(words, shown, strict=True)]
    if len(words) == 1:
        ax.plot(surface[plane.names[0]], surface, color=BLUE)
        ax.set(xlabel=words[0], ylabel="loss")
    else:
        drawn = {label: tuple(plane.project(path).values()) for label, path in (paths or {}).items()}
        starts = [("start", (float(x[0]), float(y[0]))) for x, y in drawn.values()][:1]
        contour(surface, drawn, dict(starts), levels=levels, ax=ax)
        ax.set(xlabel=words[0], ylabel=words[1])
    ax.set_title(title(surface.attrs))
    return ax


def title(about: Mapping[str, Any]) -> str:
    """What a slice is, and how much it holds."""
    what = str(about["slice"])
    held = f": {_percent(about['captured'])} of the {about['captures']}" if "captured" in about else ""
    return what[0].upper() + what[1:] + held


def _percent(part: float) -> str:
    """Of almost all so many digits that it is not rounded to all."""
    digits = 0 if part < 0.985 else int(np.clip(np.floor(-np.log10(max(1 - part, 1e-9))) - 1, 1, 4))
    return f"{100 * part:.{digits}f} %"
