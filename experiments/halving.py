"""Of 2,048 trainings, halving by 3 finds the best for a ninth of the steps; by 27 it stops most of the good ones.

A net of one hidden layer learns scikit-learn's 1,797 handwritten digits. Its settings are drawn: learning rate, the
steps over which that warms up, momentum, weight decay and width (a mask over 16 hidden units, so that all widths are
one program), each with two sizes of batches. They are ranked at steps 9, 27 and 81 by the loss of the 297 digits that
none trains on. Those that go on end with the same bits as in the full sweep: a rule only decides where the steps go.

It goes wrong for late bloomers: a setting with a long warm-up or a long memory stands back at step 9, and may be among
the best at step 243. Halving by 3 leaves them room. Halving by 27, which saves half as much again, stops twelve of the
best twenty at its first rung. Here it still finds the best of all, ranked 63rd where 75 went on; of searches among 256
settings drawn from these it finds theirs in half, halving by 3 in nine of ten. Since a rule is a pure function of a
rung, and changes no bit of what goes on, such searches are read off the full sweep.

Hyperband keeps some settings whatever they are like, and pays twice as much as halving by 3; the median rule keeps half
at a time, and pays three times as much. Random search runs a few settings to their end: for the steps of halving by 3,
its best is worse.

Source: Jamieson and Talwalkar (2016), arXiv:1502.07943, Li et al. (2018), Journal of Machine Learning Research 18
(185), and Golovin et al. (2017), doi:10.1145/3097983.3098043, for the rules; the figure is our own. Cost: under a
minute on two cores.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

UNITS, TRAINED = 16, 1_500
BATCHES = (8, 32)
EVERY, STEPS = 9, 243
SEARCHES = 300  # among an eighth of the settings each
RUNGS = (9, 27, 81)
BEST = 0.01  # the share of settings that count as the best; ten at least


@dataclass(frozen=True)
class Config:
    trials: int = 1_024  # each with two sizes of batches
    seed: int = 0
    highest: bool = False  # whether high losses are kept


SECONDS, CHAOTIC = 40, True
QUICK = {"trials": 128}
BREAK = {"highest": True}
ROWS = {}


class Result(NamedTuple):
    count: int
    losses: dict[str, np.ndarray]  # by rule: (settings, records) of the validation data; NaN after a setting's end
    ends: dict[str, np.ndarray]  # by rule: (settings,) at the last step; infinite if it was stopped or failed
    steps: dict[str, np.ndarray]  # by rule: (settings,) that were made
    differ: dict[str, int]  # by rule: numbers of settings that went to the end that differ from those of the full sweep


def net(params, x):
    there = jnp.arange(UNITS)[None] < params["width"]
    hidden = jnp.where(there, jnp.tanh(x @ params["first"] + params["shift"][None]), 0.0)
    return hidden @ params["second"] + params["bias"][None]


def descent(rate, momentum, decay, warmup):
    """Descent whose rate rises over so many steps, and falls to zero at the end like a cosine."""

    def schedule(count):
        return rate * jnp.minimum(1.0, (count + 1) / warmup) * 0.5 * (1 + jnp.cos(jnp.pi * count / STEPS))

    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(schedule, momentum))


def compute(config: Config) -> Result:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
    space = {
        "rate": jf.LogUniform(1e-3, 3.0),
        "momentum": jf.Uniform(0.0, 0.99),
        "decay": jf.LogUniform(1e-5, 1e-1),
        "warmup": jf.Uniform(1.0, 122.0),
        "width": jf.Choice([4.0, 8.0, 16.0]),
    }
    drawn = jf.sample(space, config.trials, key=config.seed)
    first, second = jax.random.split(jax.random.key(config.seed))
    start = {
        "first": jax.random.normal(first, (x.shape[1], UNITS)) / x.shape[1] ** 0.5,
        "second": jax.random.normal(second, (UNITS, 10)) / UNITS**0.5,
        "shift": jnp.zeros(UNITS),
        "bias": jnp.zeros(10),
        "width": jf.Fixed(drawn["width"]),
    }
    method = jf.optimizer(descent, **{name: drawn[name] for name in ("rate", "momentum", "decay", "warmup")})
    ranked: dict[str, Any] = {"by": "validation_loss", "highest": config.highest}
    rules = {
        "full": None,
        "halving by 3": jf.Halving(3, RUNGS[0], **ranked),
        "halving by 27": jf.Halving(27, RUNGS[0], **ranked),
        "Hyperband": jf.Hyperband(3, RUNGS[0], **ranked),
        "median": jf.Median(27, 54, **ranked),
    }
    grids = {
        name: jf.sweep(
            jf.losses.softmax_cross_entropy(net), start, (x[:TRAINED], y[:TRAINED]), optimizer=method, steps=STEPS,
            batches=jf.Batches(jf.Axis("batch", list(BATCHES)), replace=True), key=config.seed, prune=rule,
            validation=(x[TRAINED:], y[TRAINED:]), record=jf.Record(every=EVERY, what=("validation_loss",)),
        ).results
        for name, rule in rules.items()
    }  # fmt: skip
    full = grids["full"]
    return Result(
        count=full.status.size,
        losses={
            name: own["history.validation_loss"].values.reshape(full.status.size, -1) for name, own in grids.items()
        },
        ends={name: ended(own) for name, own in grids.items()},
        steps={name: own.steps.values.ravel() for name, own in grids.items()},
        differ={name: differences(own, full) for name, own in grids.items()},
    )


def ended(results: Any) -> np.ndarray:
    fine = results.status == jf.Status.OUT_OF_STEPS
    return results.validation_loss.where(fine, np.inf).values.ravel()


def differences(results: Any, full: Any) -> int:
    """How many numbers of the settings that went to the end are not, to the bit, those of the full sweep."""
    there = (results.status == jf.Status.OUT_OF_STEPS).values
    return sum(int(np.sum(results[name].values[there] != full[name].values[there])) for name in full.data_vars)


def going_on(result: Result, rule: str) -> list[int]:
    """How many settings go on from each rung."""
    return [int(np.sum(result.steps[rule] > rung)) for rung in RUNGS]


def spent(result: Result, rule: str) -> int:
    return int(result.steps[rule].astype(int).sum())


def above(result: Result, rule: str) -> float:
    """The best end of a rule over that of the full sweep."""
    return float(result.ends[rule].min() / result.ends["full"].min())


def by_chance(result: Result, count: float | np.ndarray, share: float) -> np.ndarray:
    """The quantile of the best end of so many settings drawn at random, from all of them.

    All of `count` are worse than the k-th best of n with a chance of about (1 - k / n)**count.
    """
    ends = np.sort(result.ends["full"])
    k = np.ceil((1 - (1 - share) ** (1 / np.asarray(count))) * len(ends)).astype(int)
    return ends[np.clip(k, 1, len(ends)) - 1]


def best_of(result: Result) -> np.ndarray:
    """The numbers of the settings that are best in the full sweep, in order."""
    return np.argsort(result.ends["full"], kind="stable")[: max(10, round(BEST * result.count))]


def lost(result: Result, rule: str) -> float:
    """The share of those that a rule stops at its first rung."""
    return float(np.mean(result.steps[rule][best_of(result)] == RUNGS[0]))


def halved(result: Result, factor: int, lanes: np.ndarray) -> float:
    """How far above the best of some settings halving ends, as a factor: read off the full sweep."""
    losses, ends, rule = result.losses["full"], result.ends["full"], jf.Halving(factor, RUNGS[0])
    here = lanes
    for number, step in enumerate(rule.rungs(STEPS)):
        values = losses[here, step // EVERY]
        values = np.where(np.isfinite(values), values, np.inf).astype(float)
        here = here[rule.keep(jf.Rung(step, number, values, here))]
    return float(ends[here].min() / ends[lanes].min())


def searches(result: Result, factor: int) -> np.ndarray:
    """(searches,) that of many searches among an eighth of the settings, in rising order."""
    rng = np.random.default_rng(0)
    drawn = [np.sort(rng.choice(result.count, result.count // 8, replace=False)) for _ in range(SEARCHES)]
    return np.sort([halved(result, factor, lanes) for lanes in drawn])


def found(result: Result, factor: int) -> float:
    """The share of these that ends at the best."""
    return float(np.mean(searches(result, factor) == 1))


def checks(result: Result) -> list[Check]:
    n = result.count
    counts = [n // 3, n // 9, n // 27]
    fair = spent(result, "halving by 3") / STEPS
    rows = [
        Check(f"{name}: numbers of the settings that went to the end that differ from the full sweep's", 0,
              result.differ[name], source="the law of prune=: the same bits")
        for name in list(INKS)[1:]
    ]  # fmt: skip
    saved = spent(result, "full") / spent(result, "halving by 3")
    return [
        *rows,
        Check("halving by 3: settings that go on from steps 9, 27 and 81", counts, going_on(result, "halving by 3"),
              source="a third, rounded down, each time"),
        Check("full sweep over halving by 3: lane-steps", 9.0, saved, 0.5,
              "243 n over 9 n + 18 n / 3 + 54 n / 9 + 162 n / 27"),
        Check("halving by 3: its best loss over that of the full sweep", 1.0, above(result, "halving by 3"), 0.15),
        Check("Hyperband: the same", 1.0, above(result, "Hyperband"), 0.15),
        Check("median: the same", 1.0, above(result, "median"), 0.15),
        Check("as many lane-steps at random: a worse best in half of the cases and more", True,
              bool(by_chance(result, fair, 0.5) > result.ends["halving by 3"].min())),
        Check("late bloomers: share of the best hundredth that halving by 3 stops at step 9", 0.0,
              lost(result, "halving by 3"), 0.2),
        Check("that halving by 27 stops there", 0.6, lost(result, "halving by 27"), 0.35),
        Check("halving by 3 of the sweep is what is read off the full one", above(result, "halving by 3"),
              halved(result, 3, np.arange(result.count)), 0.0, "the law of prune=: the same bits"),
        Check("halving by 27: the same", above(result, "halving by 27"),
              halved(result, 27, np.arange(result.count)), 0.0, "the law of prune=: the same bits"),
        Check("searches among an eighth: halving by 3 finds the best more often than by 27", True,
              found(result, 3) > found(result, 27)),
    ]  # fmt: skip


INKS = {
    "full": plots.DARK, "halving by 3": plots.RED, "halving by 27": plots.PINK, "Hyperband": plots.BLUE,
    "median": plots.GREEN,
}  # fmt: skip


def draw(result: Result):
    space = {"wspace": 0.2, "top": 0.82, "left": 0.055, "right": 0.985, "bottom": 0.11}
    figure, axes = plots.panels([["spent", "late", "searches"]], size=(15, 5.8), gridspec_kw=space)
    used, all_of_them = (spent(result, name) / 1e3 for name in ("halving by 3", "full"))
    title = (
        f"Halving by 3 finds the best of {result.count:,} settings for {used:.0f} of {all_of_them:.0f} thousand steps"
    )
    figure.suptitle(title, x=0.055, ha="left")
    words = (
        "A net that learns handwritten digits; settings of learning rate, warm-up, momentum, weight decay, width and "
        "batches. The loss is that of digits which it never sees."
    )
    figure.text(0.055, 0.895, words, color="#555555")
    draw_spent(result, axes["spent"])
    draw_late(result, axes["late"])
    draw_searches(result, axes["searches"])
    return figure


def draw_spent(result: Result, ax: Any) -> None:
    least, whole = result.ends["full"].min(), spent(result, "full")
    counts = np.geomspace(8, result.count, 60)
    for low, high, alpha in ((0.1, 0.9, 0.25), (0.25, 0.75, 0.35)):
        band = [by_chance(result, counts, share) / least for share in (low, high)]
        ax.fill_between(counts * STEPS, *band, color="#bbbbbb", alpha=alpha, lw=0)
    ax.plot(counts * STEPS, by_chance(result, counts, 0.5) / least, color="#888888", lw=1.2)
    ax.text(counts[0] * STEPS, 11, "gray: random search,\nmedian, 50 and 80 %", color="#777777", va="top")
    for k, (name, color) in enumerate(sorted(INKS.items(), key=lambda one: spent(result, one[0]))):
        losses = np.where(np.isfinite(result.losses[name]), result.losses[name], np.nan)
        steps = EVERY * np.cumsum(np.isfinite(losses).sum(axis=0)[1:])
        ax.plot(steps, np.nanmin(losses, axis=0)[1:] / least, color=color, lw=1.8)
        end, low = (steps[-1], above(result, name)), 0.86 * 0.88**k
        ax.plot([end[0]] * 2, [end[1], low], color=color, lw=0.9)
        ax.plot(*end, "o", color=color, ms=7, mec="white", zorder=5)
        words = f"{name}: {100 * spent(result, name) / whole:.0f} % "
        ax.text(end[0], low, words, color=color, ha="right", va="center", weight="bold")
    ax.set(xscale="log", yscale="log", ylim=(0.46, 12), xlabel="steps of all settings together")
    ax.set_ylabel("best loss at that time, over the best of all at the end")
    plots.few_ticks(ax.yaxis, [1, 2, 5, 10])
    ax.set_title("What the best costs")


STOPPED = {9: "#d9d9d9", 27: "#b3cde3", 81: "#6baed6", STEPS: plots.RED}


def draw_late(result: Result, ax: Any) -> None:
    early, ends, steps = result.losses["full"][:, 1], result.ends["full"], result.steps["halving by 3"]
    fine = np.isfinite(ends) & np.isfinite(early)
    for k, (step, color) in enumerate(STOPPED.items()):
        own = fine & (steps == step)
        ax.plot(early[own], ends[own], "o", ms=3, color=color, mec="none", zorder=2 + (step == STEPS))
        words = f"by 3: stopped at step {step}" if step < STEPS else "by 3: to the end"
        ax.plot(0.05, 0.955 - 0.055 * k, "o", ms=6, color=color, transform=ax.transAxes)
        ax.text(0.08, 0.955 - 0.055 * k, words, color="#555555", va="center", transform=ax.transAxes)
    best = best_of(result)
    late = best[result.steps["halving by 27"][best] == RUNGS[0]]
    ax.plot(early[late], ends[late], "o", ms=7, mfc="none", mec=plots.PINK, mew=1.3, zorder=5)
    cut = np.sort(early[fine])[result.count // 27]
    ax.axvline(cut, color=plots.PINK, lw=1, ls=(0, (4, 2)))
    ax.text(cut, 0.86 * ends.min(), "by 27: these go on ", color=plots.PINK, ha="right", weight="bold")
    ax.set(xscale="log", yscale="log", xlabel="loss at step 9", ylabel="loss at step 243")
    ax.set(xlim=(0.9 * early[fine].min(), 3.2), ylim=(0.8 * ends.min(), 4))
    plots.few_ticks(ax.xaxis, [1, 1.5, 2, 3])
    plots.few_ticks(ax.yaxis, [0.05, 0.1, 0.2, 0.5, 1, 2])
    ax.set_title(f"By 27, {len(late)} of the best {len(best)} are out at step 9 (rings)")


def draw_searches(result: Result, ax: Any) -> None:
    share = 100 * (np.arange(SEARCHES) + 0.5) / SEARCHES
    for k, (factor, color) in enumerate(((27, plots.PINK), (9, plots.ORANGE), (3, plots.RED))):
        ax.plot(share, searches(result, factor), color=color, lw=2)
        words = f"by {factor}: finds the best in {100 * found(result, factor):.0f} %"
        ax.text(0.05, 0.93 - 0.065 * k, words, color=color, weight="bold", transform=ax.transAxes)
    ax.set(yscale="log", xlim=(0, 100), ylim=(0.95, 6), xlabel="searches, %", ylabel="where it ends, over their best")
    plots.few_ticks(ax.yaxis, [1, 2, 5])
    ax.set_title(f"{SEARCHES} searches among {result.count // 8} of the settings")
