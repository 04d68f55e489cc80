"""Intervals from standard errors are right for a line, and miss the truth too often on one side for a curved model.

The blood pressures of 33 women again: the best line is 1.105 (21) mmHg a year; where the line is, and where a new
woman would be, are two bands of very different width. Then a curve that saturates, with six points: the demand for
oxygen of a sample of water over days. Its standard errors reach as far to one side as to the other, but the data do
not: with the rate held elsewhere, and the other param fitted anew, the sum of squares rises faster to the left than to
the right. The profile goes by that. Thousands of data sets are drawn from the fitted curve, with noise from an eighth
of what scatters these six points up to all of it (s, their own estimate). With little noise the curve is as good as
straight over it, and both intervals miss the truth once in forty to either side. The more noise, the more often the
standard error's lies too low and the seldomer too high; the profile's, which does not care how the curve's params are
written, stays at one in forty.

Source: Bates and Watts, Nonlinear Regression Analysis and Its Applications (1988), appendix 1, table A1.4, for the
oxygen; Dürr, Sick and Murina, Probabilistic Deep Learning (2020), section 3.1, for the women. Cost: half a minute on a
CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

DAYS = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 7.0])
OXYGEN = np.array([8.3, 10.3, 19.0, 16.0, 15.6, 19.8])  # mg / l
AGES = np.array([20.0, 50.0, 80.0])


@dataclass(frozen=True)
class Config:
    sets: int = 2000  # at each level of noise
    slope: float = 1.0  # scales the ages, to show that the checks notice


SHARES = np.array([1 / 8, 1 / 4, 1 / 2, 1])  # of the scatter of the oxygen, in the simulated data
SECONDS = 40
QUICK = {"sets": 1000}
BREAK = {"slope": 1.01}  # ages a hundredth longer, and the slope is not that of the book
ROWS = {}


def demand(params, days):
    """What has been taken up until then."""
    return params["most"] * (1 - jnp.exp(-params["rate"] * days))


class Result(NamedTuple):
    line: Any  # the fit to the women
    errors: dict[str, float]
    bands: tuple[Any, Any]  # at AGES: of the line, of a new woman
    closed: dict[str, Any]  # the same by textbook formulas
    curve: Any  # the fit to the oxygen
    curve_errors: dict[str, float]
    wald: Any  # intervals of both params
    profile: Any
    track: Any  # the profile of the rate
    reach: float  # Student's t
    held: list[float]  # rise of the sum of squares where the profile of the rate ends, by fits with it held there
    noise: np.ndarray  # mg / l, of the simulated data
    missed: dict[str, np.ndarray]  # at each noise, shares of data sets whose interval for the rate lies above, below
    sets: int


def compute(config: Config) -> Result:
    age, pressure = jf.datasets.blood_pressure()
    line = jf.curve_fit(jf.models.line, {"w": 1.0, "b": 100.0}, (config.slope * age, pressure))
    curve = jf.curve_fit(demand, {"most": 15.0, "rate": 1.0}, (DAYS, OXYGEN))
    wald, profile = jf.intervals(curve), jf.intervals(curve, "profile")
    errors = jf.standard_errors(curve)
    scatter = np.sqrt(float(curve.loss) / (len(DAYS) - 2))
    held = []
    for end in profile["rate"]:
        other = jf.curve_fit(demand, {"most": 20.0, "rate": jf.Fixed(float(end))}, (DAYS, OXYGEN))
        held.append(float((other.loss - curve.loss) / scatter**2))
    return Result(
        line=line,
        errors=jf.standard_errors(line),
        bands=(jf.band(line, AGES), jf.band(line, AGES, kind="prediction")),
        closed=textbook(age, pressure),
        curve=curve,
        curve_errors=errors,
        wald=wald,
        profile=profile,
        track=jf.profile(curve, points=61, reach=9.0)["rate"],
        reach=float((wald["rate"].high - curve.params["rate"]) / errors["rate"]),
        held=held,
        noise=SHARES * scatter,
        missed=missed(curve.params, SHARES * scatter, config.sets),
        sets=config.sets,
    )


def textbook(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Standard errors of the line and of the bands at AGES, by the sums over the data."""
    n, mean, square = len(x), np.mean(x), np.sum((x - np.mean(x)) ** 2)
    slope = np.sum((x - mean) * y) / square
    s = np.sqrt(np.sum((y - np.mean(y) - slope * (x - mean)) ** 2) / (n - 2))
    share = 1 / n + (AGES - mean) ** 2 / square
    return {
        "w": s / np.sqrt(square), "b": s * np.sqrt(1 / n + mean**2 / square),
        "line": s * np.sqrt(share), "new": s * np.sqrt(1 + share),
    }  # fmt: skip


def missed(truth: dict, levels: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """By method, the (levels, 2) shares of intervals that lie above the truth, and below it; the draws are the same."""
    drawn = np.random.default_rng(1988).normal(size=(count, len(DAYS)))
    sets = np.concatenate([np.asarray(demand(truth, DAYS), float) + level * drawn for level in levels])
    grid = jf.sweep(
        jf.losses.rss(demand), truth, (DAYS, jf.Axis("set", sets)), optimizer=jf.optimizers.levenberg_marquardt()
    )
    found = {}
    for method in ("wald", "profile"):
        ends = jf.intervals(grid, method)["params.rate"]
        above, below = ends.sel(end="low") > truth["rate"], ends.sel(end="high") < truth["rate"]
        found[method] = np.stack([side.values.reshape(len(levels), count).mean(axis=1) for side in (above, below)], 1)
    return found


def checks(result: Result) -> list[Check]:
    closed, (line, new) = result.closed, result.bands
    wald, profile = result.missed["wald"], result.missed["profile"]
    chance = 3 * np.sqrt(0.025 * 0.975 / result.sets)
    lopsided = wald[:, 1] - wald[:, 0]
    by_chance = 3 * np.sqrt(0.05 / result.sets)  # of the difference of two shares of 0.025
    return [
        Check("line: slope and intercept", [1.105, 87.67], [result.line.params[k] for k in "wb"], [5e-4, 5e-3],
              "PDL-CF"),
        Check("line: their standard errors", [closed["w"], closed["b"]], [result.errors[k] for k in "wb"],
              [1e-9, 1e-7], "closed form"),
        Check("line at 20, 50, 80 years: standard error", closed["line"], line.error, 1e-8, "closed form"),
        Check("a new woman there: standard error", closed["new"], new.error, 1e-8, "closed form"),
        Check("oxygen: most and rate", [19.143, 0.5311], [result.curve.params[k] for k in ("most", "rate")],
              [5e-4, 5e-5], "Bates and Watts 1988"),
        Check("oxygen: their standard errors", [2.496, 0.203], [result.curve_errors[k] for k in ("most", "rate")],
              [5e-4, 5e-4], "Bates and Watts 1988"),
        Check("rise of the sum of squares where the profile ends", result.reach**2, result.held, 1e-5,
              "Student's t squared"),
        Check("standard error, noise s / 8: misses to either side", 0.025, wald[0], chance,
              "one in forty: over little noise the curve is straight"),
        Check("profile, at every noise: misses to either side", 0.025, profile, chance,
              "one in forty, but for the intrinsic curvature"),
        Check("standard error, noise s: more often too low than too high, beyond chance", True,
              bool(lopsided[-1] > by_chance), source="theory: the profile of the rate rises faster to the left"),
        Check("standard error: the more so, the more noise (s / 8, s / 2, s)", True,
              bool(lopsided[0] < lopsided[2] < lopsided[3]), source="theory: the skewness is as large as the noise"),
    ]  # fmt: skip


def draw(result: Result):
    return {"": draw_women(result), "profile": draw_profile(result)}


def draw_women(result: Result):
    space = {"hspace": 0.12, "top": 0.86, "left": 0.1, "right": 0.97, "bottom": 0.09, "height_ratios": [3, 1]}
    figure, axes = plots.panels([["curve"], ["residuals"]], size=(8, 7), sharex=True, gridspec_kw=space)
    plots.fit(result.line, prediction=True, ax=axes["curve"], residuals=axes["residuals"])
    figure.suptitle("Confidence band of a line, and the interval for a new observation", x=0.1, ha="left")
    params, errors = result.line.params, result.errors
    words = (
        f"33 blood pressures: {params['w']:.2f} ± {errors['w']:.2f} mmHg a year, {params['b']:.0f} ± "
        f"{errors['b']:.0f} mmHg at birth. At 50 the line is known to {result.bands[0].error[1]:.1f} mmHg."
    )
    figure.text(0.1, 0.9, words, color="#555555")
    axes["curve"].set(ylabel="systolic blood pressure, mmHg")
    axes["residuals"].set(xlabel="age, years")
    return figure


def draw_profile(result: Result):
    space = {"wspace": 0.26, "top": 0.79, "left": 0.07, "right": 0.98, "bottom": 0.12, "width_ratios": [1, 1.1, 0.8]}
    figure, axes = plots.panels([["curve", "profile", "missed"]], size=(13, 5), gridspec_kw=space)
    figure.suptitle("Six points and a curved model: the profile's interval is not symmetric", x=0.07, ha="left")
    wald, profile = result.wald["rate"], result.profile["rate"]
    low = plots.number(round(float(wald.low), 2))
    words = (
        f"The rate of uptake is {result.curve.params['rate']:.3f} a day. By its standard error it lies between {low} "
        f"and {wald.high:.2f}, by the profile between {profile.low:.2f} and {profile.high:.2f}."
    )
    figure.text(0.07, 0.885, words, color="#555555")
    plots.fit(result.curve, ax=axes["curve"])
    axes["curve"].set(xlabel="days", ylabel="oxygen taken up, mg / l", title="The fit, and its band")
    axes["profile"].set_title("Sum of squares, the rate held fixed")
    plots.profile(result.track, result.curve_errors["rate"], reach=result.reach, name="rate, a day", ax=axes["profile"])
    draw_missed(result, axes["missed"])
    return figure


def draw_missed(result: Result, ax) -> None:
    ax.set_title("Intervals that miss the truth")
    ax.set(xscale="log", xlim=(SHARES[0] / 1.15, 1.15), ylim=(0, 0.056), ylabel="share of data sets")
    ax.set_xlabel("noise of the simulated data, in s")
    plots.few_ticks(ax.yaxis, [0, 0.025, 0.05])
    ax.set_xticks(SHARES, ["1/8", "1/4", "1/2", "1"])
    ax.minorticks_off()
    ax.axhline(0.025, color=plots.DARK, lw=1, ls=(0, (4, 3)))
    for method, color in (("profile", plots.BLUE), ("wald", plots.ORANGE)):
        for shares, style in zip(result.missed[method].T, ("-", "--"), strict=True):
            ax.plot(SHARES, shares, style, color=color, marker="o", ms=4)
    high, low = result.missed["wald"][-1]
    words = f"standard error,\ntoo low: {100 * low:.1f} %", f"standard error,\ntoo high: {100 * high:.1f} %"
    ax.text(0.42, 0.040, words[0], color=plots.ORANGE, ha="right", va="bottom")
    ax.text(0.42, 0.004, words[1], color=plots.ORANGE, ha="right", va="bottom")
    ax.text(SHARES[0], 0.0305, "profile, either way", color=plots.BLUE, va="bottom")
