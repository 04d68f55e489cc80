"""The curve of a range test: the loss against the learning rate that grows."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxfit.plots.house import BLUE, DARK, RED, house
from jaxfit.plots.labels import Room, few_ticks, round_ticks


@house
def learning_rate_range(
    test: Any, *, law: float | None = None, law_label: str = "law", color: str = BLUE, ax: Axes
) -> Axes:
    """The loss after each step of a range test against the rate of the step, where it turns up, and what to use.

    Args:
      test: Of `jf.learning_rate_range`.
      law: A learning rate to draw as a line, such as that of `jf.stability_limit`.
      law_label: What it says.
      color: Of the curve.
      ax: The axes to draw on; new ones if None.
    """
    rates, losses = np.asarray(test.curve.learning_rate), np.asarray(test.curve, float)
    shown = np.isfinite(losses) & (losses > 0)
    top = 30 * losses[shown][0]
    bottom = losses[shown].min()
    size = np.log10(top / bottom)
    ax.set(xscale="log", yscale="log", xlim=(rates[0], rates[-1]), ylim=(bottom * 10 ** (-0.12 * size), top))
    few_ticks(ax.xaxis, round_ticks(*ax.get_xlim()))
    few_ticks(ax.yaxis, round_ticks(*ax.get_ylim()))
    ax.set(xlabel="learning rate of the step", ylabel="loss after the step")
    ax.plot(rates[shown], losses[shown], color=color, lw=1.8)
    room = Room(ax)
    room.block(rates[shown], np.minimum(losses[shown], top))
    marks = [(law, law_label, DARK, "--")] if law is not None else []
    if np.isfinite(test.suggested):
        marks += [(test.suggested, f"suggested: {test.suggested:.2g}", color, ":")]
    lines = []
    for rate, label, shade, style in marks:
        ax.axvline(rate, color=shade, lw=1.1, ls=style, zorder=1)
        lines.append((room.block([rate, rate], ax.get_ylim()), label, shade))
    if np.isfinite(test.turn):
        least = losses[np.argmin(np.abs(rates - test.turn))]
        ax.plot([test.turn], [least], "o", color=RED, ms=6, zorder=3)
        spot = room.block([test.turn], [least], width=10)
        room.near(spot, f"turns up at {test.turn:.3g}", color=RED)
    for line, label, shade in lines:
        room.near(line, label, color=shade, prefer=(1, 0.9) if shade is DARK else (0, 0.1))
    return ax
