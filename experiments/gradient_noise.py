"""The gradient of a batch is right on average, and its error falls as one over the root of the batch's size.

At slope 0 and intercept 139 the slope of the loss over 33 blood pressures is -553; that of a single woman is anything
from -12,636 to 3,672, and for 19 of 33 it points the other way. The mean over all batches of one woman, or of four, is
the gradient of all 33, exactly: an unbiased estimate. Its standard deviation is
sigma / sqrt(m) * sqrt((n - m) / (n - 1)) for batches of m of n women, the last factor for drawing without replacement,
which ends in no error at all with m = n. Sixteen women, sixteen times the work, leave a fifth of the error of one.

The gradient of the mean is the mean of the gradients, in every entry of a network's matrices as in a line; and the 33
steps of an epoch, one woman each, see every woman once.

Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), section 3.3.1; Chollet, Deep Learning with Python,
second edition (2021), section 2.4.3; Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), section
2.2.2; notes on backpropagation and gradient descent, section 3. Cost: some seconds on a CPU.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

START = {"w": 0.0, "b": 139.0}
LOSS = jf.losses.mse(jf.models.line)
SIZES = (1, 4, 8, 16, 33)
BY_HAND = (3108.7, 1479.7, 971.5, 566.5, 0.0)  # standard deviations for these sizes
REPLACED = (4, 16)


@dataclass(frozen=True)
class Config:
    draws: int = 4096  # batches of each size
    sizes: tuple[int, ...] = SIZES
    intercept: float = 139.0


SECONDS = 19
QUICK = {"sizes": (1, 33)}  # each size is a program of its own
BREAK = {"intercept": 138.0}
ROWS = {"PDL-3.3.1": "", "GD-3.2": "", "CHOLLET-2.4.3.true": "", "TFJS-2.2.2.real": ""}


class Result(NamedTuple):
    full: np.ndarray  # (2,) gradient of all 33, by w and b
    singles: np.ndarray  # (33, 2) of one woman each
    means: np.ndarray  # (2, 2) mean over all batches of 1, and of 4
    spreads: np.ndarray  # (2,) standard deviation over all of them, of the slope's
    drawn: dict[int, np.ndarray]  # by size, (draws,) slope's gradients of batches without replacement
    replaced: dict[int, np.ndarray]  # with replacement
    epoch: np.ndarray  # (33, 2) gradients of the steps of one epoch of single women
    network: float  # largest difference between the gradient of the mean and the mean of gradients, over their size
    matrices: list[tuple[int, ...]]  # shapes of its params


def compute(config: Config) -> Result:
    age, pressure = data = jf.datasets.blood_pressure()
    start = START | {"b": config.intercept}

    def of(rows):
        """The gradient of the rows of each batch: (batches, 2)."""
        found = jax.vmap(lambda x, y: jax.grad(LOSS)(start, x, y))(age[rows], pressure[rows])
        return np.stack([found["w"], found["b"]], axis=1).astype(float)

    every = [of(np.array(list(itertools.combinations(range(33), m)))) for m in (1, 4)]

    def drawn(size, replace):
        """Of the batches that a run draws which hardly moves: (draws, 2)."""
        found = jf.fit(
            LOSS, start, data, optimizer=jf.optimizers.sgd(1e-15), steps=config.draws, key=size,
            batches=jf.Batches(size, replace), record=jf.Record(what=("gradient",)),
        ).history.gradient  # fmt: skip
        return np.stack([found["w"], found["b"]], axis=1)[: config.draws].astype(float)

    full = jf.step(LOSS, start, data, optimizer=jf.optimizers.sgd(1e-6)).grads
    net = jf.models.dense((1, 4, 3, 1))
    params = net.init(0)
    without = {size: drawn(size, False) for size in config.sizes}
    return Result(
        full=np.array([full["w"], full["b"]], float),
        singles=every[0],
        means=np.array([batches.mean(axis=0) for batches in every]),
        spreads=np.array([batches[:, 0].std() for batches in every]),
        drawn={size: batches[:, 0] for size, batches in without.items()},
        replaced={size: drawn(size, True)[:, 0] for size in REPLACED if size in config.sizes},
        epoch=without[1][:33],
        network=apart(jf.losses.mse(net), params, (age / 50, pressure / 140)),
        matrices=[leaf.shape for leaf in jax.tree.leaves(params)],
    )


def apart(loss, params, data) -> float:
    """How far the mean over points of the gradients is from the gradient of the mean, over its largest entry."""
    whole = jax.grad(loss)(params, *data)
    one_by_one = jax.vmap(lambda x, y: jax.grad(loss)(params, x[None], y[None]))(*map(jnp.asarray, data))
    pairs = list(zip(jax.tree.leaves(whole), jax.tree.leaves(one_by_one), strict=True))
    return max(float(jnp.max(jnp.abs(each.mean(0) - all_))) for all_, each in pairs) / max(
        float(jnp.max(jnp.abs(all_))) for all_, _ in pairs
    )


def law(result: Result, m) -> np.ndarray:
    """sigma / sqrt(m) * sqrt((n - m) / (n - 1)): batches without replacement."""
    return result.singles[:, 0].std() / np.sqrt(m) * np.sqrt((33 - np.asarray(m)) / 32)


def doubt(batches: np.ndarray) -> float:
    """Four standard errors of a standard deviation that is measured from these, of any distribution."""
    fourth = np.mean((batches - batches.mean()) ** 4) / max(batches.var(), 1e-30) ** 2
    return float(4 * batches.std() * np.sqrt(max(fourth - 1, 0) / (4 * len(batches))))


def checks(result: Result) -> list[Check]:
    sigma = result.singles[:, 0].std()
    rows = [
        Check("gradient of all 33", [-553.0909, 0.727273], result.full, [2e-3, 1e-4], "PDL-3.3.1, by hand"),
        Check("the steepest single ones", [-12636, 3672], extremes(result), 0.5, "PDL-3.3.1, enumeration"),
        Check("single ones that point uphill", 19, int(np.sum(result.singles[:, 0] > 0)), 0, "PDL-3.3.1, enumeration"),
        Check("mean of all single ones", result.full, result.means[0], [2e-3, 1e-4], "PDL-3.3.1, enumeration"),
        Check("mean of all 40,920 batches of 4", result.full, result.means[1], [2e-3, 1e-4], "PDL-3.3.1, enumeration"),
        Check("all batches of 1, of 4: deviation", law(result, [1, 4]), result.spreads, 0.2, "GD-3.2, law"),
        Check("deviation for 1, 4, 8, 16, 33", BY_HAND, law(result, SIZES), 0.06, "PDL-3.3.1, by hand"),
    ]
    for size, batches in result.drawn.items():
        what = f"{len(batches):,} batches of {size}"
        error = law(result, size).item() * 4 / np.sqrt(len(batches))
        rows += [
            Check(f"{what}: deviation", law(result, size).item(), batches.std(), doubt(batches) + 1e-2, "GD-3.2, law"),
            Check(f"{what}: mean", result.full[0], batches.mean(), error + 2e-2, "PDL-3.3.1, unbiased"),
        ]
    for size, batches in result.replaced.items():
        expected = sigma / np.sqrt(size)
        what = f"batches of {size} with replacement: deviation"
        rows.append(Check(what, expected, batches.std(), doubt(batches), "GD-3.2, sigma / sqrt(m)"))
    wrong = [float(np.mean(batches > 0)) for batches in result.drawn.values()]
    return [
        *rows,
        Check("an epoch of single women: the mean", result.full, result.epoch.mean(0), 2e-2, "CHOLLET-2.4.3.true"),
        Check("it sees every woman once", ordered(result.singles), ordered(result.epoch), 1e-1, "CHOLLET-2.4.3.true"),
        Check("all 33 in a batch: no noise", 0, np.ptp(result.drawn[33]), 1e-2, "CHOLLET-2.4.3.true"),
        Check("the larger, the fewer uphill", sorted(wrong)[::-1], wrong, 0, "CHOLLET-2.4.3.true"),
        Check("a network: mean of gradients - gradient of mean", 0, result.network, 2e-6, "TFJS-2.2.2.real"),
        Check("it has matrices", True, (4, 3) in result.matrices, source="TFJS-2.2.2.real"),
    ]


def extremes(result: Result) -> list[float]:
    return [float(result.singles[:, 0].min()), float(result.singles[:, 0].max())]


def ordered(gradients: np.ndarray) -> np.ndarray:
    return np.sort(gradients[:, 0])


def draw(result: Result):
    space = {"wspace": 0.2, "top": 0.8, "left": 0.07, "right": 0.98, "bottom": 0.12}
    figure, axes = plots.panels([["clouds", "law"]], size=(11, 4.9), gridspec_kw=space)
    figure.suptitle("Batches: the gradient is right on average, and the noise falls as 1 / √size", x=0.07, ha="left")
    words = f"Blood pressure against age, at slope 0 and intercept 139: {len(result.drawn[1]):,} batches of each size."
    figure.text(0.07, 0.885, words, color="#555555")

    ax = axes["clouds"]
    ax.set(xlim=(-15_500, 11_500), ylim=(-0.25, 5.6), xlabel="the batch's slope of the loss, by the slope of the line")
    ax.set_title("Every size has the same mean")
    ax.set_xticks([-10_000, -5000, 0, 5000], ["−10,000", "−5,000", "0", "5,000"])
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    edges = np.linspace(-13_000, 6000, 77)
    for level, size in enumerate(reversed(SIZES)):
        batches = result.drawn[size]
        counts, _ = np.histogram(batches, edges)
        heights = 0.85 * counts / counts.max()
        color = plots.BLUE if size < 33 else plots.DARK
        ax.fill_between(edges, level, level + np.append(heights, 0), step="post", color=color, alpha=0.8, lw=0)
        uphill = np.mean(batches > 0)
        ax.text(-15_400, level + 0.2, f"{size}" if size < 33 else "all 33", color=color, weight="bold")
        words = f"{100 * uphill:.0f} % point uphill" if size < 33 else "no noise"
        ax.text(11_400, level + 0.2, words, color=plots.RED if uphill > 0.1 else "#555555", ha="right")
    ax.plot([result.full[0]] * 2, [0, 5.15], color=plots.ORANGE, lw=1.3)
    words = f"of all 33: {result.full[0]:.0f} ".replace("-", "−")
    ax.text(result.full[0] + 150, 5.22, words, color=plots.ORANGE, ha="right")
    ax.axvline(0, color=plots.GREY, lw=0.8, ls=(0, (2, 2)))

    ax = axes["law"]
    ax.set(xscale="log", yscale="log", xlim=(0.85, 40), ylim=(90, 5000), xlabel="women in a batch")
    ax.set_title("Its standard deviation")
    plots.few_ticks(ax.xaxis, [1, 2, 4, 8, 16, 33])
    plots.few_ticks(ax.yaxis, [100, 300, 1000, 3000])
    m = np.array([*np.geomspace(1, 32, 200), *np.linspace(32, 32.95, 20)])
    sigma = result.singles[:, 0].std()
    ax.plot(m, sigma / np.sqrt(m), color=plots.GREEN, lw=1.3)
    ax.plot(m, law(result, m), color=plots.BLUE, lw=1.3)
    sizes = [size for size in SIZES if size < 33]
    ax.plot(sizes, [result.drawn[size].std() for size in sizes], "o", color=plots.BLUE, ms=6)
    ax.plot(REPLACED, [result.replaced[size].std() for size in REPLACED], "o", mfc="white", mec=plots.GREEN, ms=6.5)
    ax.annotate("", (33, 92), (33, 190), arrowprops={"arrowstyle": "-|>", "color": plots.BLUE, "lw": 1.3, "shrinkB": 0})
    ax.text(28, 105, "none for all 33", color=plots.BLUE, ha="right")
    ax.text(3.2, 2400, "each drawn from all:\nσ / √m", color=plots.GREEN, linespacing=1.35)
    ax.text(1.05, 420, "without replacement:\nσ / √m × √((n − m) / (n − 1))", color=plots.BLUE, linespacing=1.35)
    ax.text(1.05, 3550, f"σ = {sigma:,.0f}", color=plots.DARK)
    return figure
