"""Training stores what it has computed: its memory grows with depth times batch, that of a prediction with the batch.

The backward pass needs what the forward pass computed. Of a tanh layer of width 64 it keeps two arrays, the output and
its slope, so that a net of L layers and a batch of n rows keep 4 n (2 x 64 L + 2) bytes in float32. The loss alone
drops each layer as soon as the next is done. The cure is to keep less and compute again: with a checkpoint around
every layer only its input is kept, and around every group of sqrt(L) layers only the groups' inputs.

All bytes are read off the programs that JAX makes of loss and gradient, by `jaxfit.backward_memory` and
`jaxfit.forward_memory`: every intermediate array counted once, params and data not.

Source: the notes on gradient descent of the Microsoft AI course, section 1.3; checkpoints are of Griewank (1992),
doi:10.1080/10556789208805505. Cost: some seconds on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

WIDTH = 64


@dataclass(frozen=True)
class Config:
    depths: tuple[int, ...] = (1, 4, 9, 16, 25, 36, 49, 64)
    batches: tuple[int, ...] = (1, 32, 64, 128, 256, 512)
    batch: int = 128  # where the depth varies
    depth: int = 16  # where the batch varies
    activation: str = "tanh"


SECONDS = 12
QUICK = {"depths": (1, 4, 9, 16), "batches": (1, 32, 128)}
BREAK = {"activation": "linear"}  # whose slope is a constant: half as much to keep
ROWS = {"GD-1.3": ""}
KINDS = ("training", "a checkpoint for each layer", "a checkpoint for √L layers", "the loss alone")


class Result(NamedTuple):
    depths: np.ndarray
    batches: np.ndarray
    batch: int
    depth: int
    by_depth: dict[str, np.ndarray]  # bytes for each kind
    by_batch: dict[str, np.ndarray]


def compute(config: Config) -> Result:
    by_depth = [measured(config.activation, depth, config.batch) for depth in config.depths]
    by_batch = [measured(config.activation, config.depth, batch) for batch in config.batches]
    columns = [{kind: np.array([row[kind] for row in rows]) for kind in KINDS} for rows in (by_depth, by_batch)]
    return Result(np.array(config.depths), np.array(config.batches), config.batch, config.depth, *columns)


def measured(activation: str, depth: int, batch: int) -> dict[str, int]:
    """Bytes by kind, of a net of that many hidden layers on that many rows."""
    model = jf.models.dense((1, *[WIDTH] * depth, 1), activation)
    params = jax.eval_shape(lambda: model.init(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    x = np.linspace(-1, 1, batch)
    groups = {"a checkpoint for each layer": 1, "a checkpoint for √L layers": round(depth**0.5)}
    found = {kind: jf.backward_memory(grouped(activation, size), params, (x, x)) for kind, size in groups.items()}
    found["training"] = jf.backward_memory(jf.losses.mse(model), params, (x, x))
    found["the loss alone"] = jf.forward_memory(jf.losses.mse(model), params, (x, x))
    return found


def grouped(activation: str, size: int) -> Any:
    """The loss of the net, with a checkpoint around every so many hidden layers."""
    act = jf.models.ACTIVATIONS[activation]

    @jax.checkpoint
    def group(h, layers):
        for layer in layers:
            h = act(h @ layer["w"] + layer["b"][None])
        return h

    def loss(params, x, y):
        *hidden, last = params
        h = x[:, None]
        for first in range(0, len(hidden), size):
            h = group(h, hidden[first : first + size])
        return jnp.mean(((h @ last["w"] + last["b"][None])[:, 0] - y) ** 2)

    return loss


def law(depth: Any, batch: Any) -> dict[str, Any]:
    """Bytes: of each kind so many arrays of the width, and of scalars, for each row."""
    arrays = {"training": 2 * depth, "a checkpoint for each layer": depth, "a checkpoint for √L layers": depth**0.5}
    return {kind: 4 * batch * (WIDTH * count + 2) for kind, count in arrays.items()} | {
        "the loss alone": 4 * (2 * batch * WIDTH + WIDTH) + 0 * depth
    }


def checks(result: Result) -> list[Check]:
    rows = []
    for by, found, wanted in (
        ("depth", result.by_depth, law(result.depths, result.batch)),
        ("batch", result.by_batch, law(result.depth, result.batches)),
    ):
        rows += [Check(f"{kind}: bytes by {by}", wanted[kind], found[kind], 0, "GD-1.3, theory") for kind in KINDS]
    rows.append(
        Check("training over the loss alone, at the greatest depth", float(result.depths[-1]),
              result.by_depth["training"][-1] / result.by_depth["the loss alone"][-1], 0.02 * result.depths[-1],
              "GD-1.3, theory")
    )  # fmt: skip
    return rows


def draw(result: Result):
    space = {"wspace": 0.24, "top": 0.8, "left": 0.08, "right": 0.97, "bottom": 0.12}
    figure, axes = plots.panels([["depth", "batch"]], size=(11, 5.2), gridspec_kw=space)
    figure.suptitle("Training stores what it has computed: memory grows with depth times batch", x=0.08, ha="left")
    words = f"tanh layers of width {WIDTH}, float32. Dots: bytes counted in the programs. Lines: the law."
    figure.text(0.08, 0.885, words, color="#555555")
    colors: dict[str, str] = dict(zip(KINDS, (plots.RED, plots.BLUE, plots.GREEN, plots.DARK), strict=True))
    for name, x, found, title in (
        ("depth", result.depths, result.by_depth, f"Deeper nets, {result.batch} rows"),
        ("batch", result.batches, result.by_batch, f"Larger batches, {result.depth} layers"),
    ):
        ax = axes[name]
        line = np.linspace(0, x[-1], 201)
        curves = law(line, result.batch) if name == "depth" else law(result.depth, line)
        ax.set(xlim=(0, 1.03 * x[-1]), ylim=(0, 1.1 * found["training"][-1] / 2**20), title=title)
        for kind in KINDS:
            ax.plot(line, curves[kind] / 2**20, color=colors[kind], lw=1.3)
            ax.plot(x, found[kind] / 2**20, "o", color=colors[kind], ms=5, mec="white", mew=0.6)
        room = plots.Room(ax)
        paths = {kind: room.block(line, curves[kind] / 2**20, width=9) for kind in KINDS}
        for kind, path in paths.items():
            room.near(path, kind, prefer=(0.9, 0.6), color=colors[kind])
    axes["depth"].set(xlabel="layers L", ylabel="MiB kept")
    axes["batch"].set(xlabel="rows in a batch", ylabel="")
    plots.few_ticks(axes["depth"].xaxis, [1, 16, 25, 36, 49, 64])
    return figure
