"""Depth multiplies: signals and gradients vanish or explode layer by layer, but for one scale of the initial weights.

A layer multiplies the gradient by a factor that the scale of its weights decides; after 48 layers it is that factor to
the power of 48. For relu layers the law is (scale / sqrt(2))^depth, exact in the scale, and the weights of variance 2
/ width (He's) sit at one. For tanh the signal cannot explode, but the gradient does: the lines over its map are the
mean-field law of infinitely wide layers. Trained is a chain of eight weights whose product is to be 1, from 160 scales
with 160 learning rates. Runs converge in a region with three borders: weights that are too small take 1 / scale^6
updates to grow, those that are too large overshoot in the first update, and above the rate 2 / 8 the minimum itself is
unstable. A net of seven relu layers has such a region, too, around He's scale.

Source: that small changes amplify through layers, and learning rate and initial values need care, say the notes on
gradient descent of the Microsoft AI course, section 4; the laws are of He et al. (2015), arXiv:1502.01852, and Poole
et al. (2016), arXiv:1606.05340. Cost: a minute on a CPU.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxfit as jf
from jaxfit import plots
from jaxfit.experiments import Check

LENGTH = 8  # weights in the chain
NET = jf.models.dense((1, *[8] * 7, 1), "relu")


@dataclass(frozen=True)
class Config:
    width: int = 64
    depth: int = 48
    scales: int = 40
    cells: int = 160  # of the chain's map, each way
    net_cells: int = 30
    net_steps: int = 400
    steps: int = 2_000
    tilt: float = 0.0  # of the chain's initial weights; unequal ones do not stay together


SECONDS, CHAOTIC = 27, True
QUICK = {"depth": 16, "scales": 8, "cells": 40, "net_cells": 9}
BREAK = {"tilt": 1.5}
ROWS = {"GD-4": "training"}


def deep(h, weights, scale, depth, v, relu):
    """The last of `depth` layers h = act(scale W h), with the activation relu where `relu` is one, else tanh."""

    def layer(h, own):
        w, number = own
        z = scale * (w @ h)
        out = jnp.where(relu > 0, jnp.maximum(z, 0), jnp.tanh(z))
        return jnp.where(number < depth, out, h), None

    return jax.lax.scan(layer, h, (weights, jnp.arange(len(weights), dtype=depth.dtype)))[0]


def readout(h, weights, scale, depth, v, relu):
    """The loss v . h of the last layer, as a function of the input."""
    return jnp.sum(deep(h, weights, scale, depth, v, relu) * v)


def signal(*arguments):
    return jnp.sqrt(jnp.mean(deep(*arguments) ** 2))


def chain(weights):
    return 0.5 * (jnp.prod(weights) - 1) ** 2


def weights_of(scale, tilt):
    """Weights whose product is scale^8, equal if the tilt is zero."""
    return scale * jnp.exp(tilt * jnp.linspace(-1, 1, LENGTH))


def scaled(scale, *, key):
    """He's initial weights, times the scale."""
    return [{"w": scale * layer["w"], "b": layer["b"]} for layer in NET.init(key)]


class Layers(NamedTuple):
    """Of one activation."""

    scales: np.ndarray  # (scales,)
    signal: np.ndarray  # (scales, depth) root mean square of the last layer, that of the input being 1
    gradient: np.ndarray  # (scales, depth) norm of the gradient by the input
    mean_field: np.ndarray  # (scales, depth) what the law says of the gradient


class Result(NamedTuple):
    relu: Layers
    tanh: Layers
    chain: Any  # Dataset over scale and learning_rate
    net: Any  # the same of a net
    steps: int


def compute(config: Config) -> Result:
    def rates(cells, low, high):
        return jf.Axis("learning_rate", np.geomspace(low, high, cells))

    scales = jf.Axis("scale", np.geomspace(0.2, 2, config.cells))
    chains = jf.sweep(
        chain, jf.Call(weights_of, scales, config.tilt), optimizer=jf.optimizers.sgd(rates(config.cells, 1e-3, 1.0)),
        steps=config.steps, stop=jf.Stop(loss_below=1e-12, loss_above=1e12), precision="float64",
    ).results  # fmt: skip
    x = np.linspace(-1, 1, 16)
    nets = jf.sweep(
        jf.losses.mse(NET), jf.Call(scaled, jf.Axis("scale", np.geomspace(0.1, 10, config.net_cells)), key=1),
        (x, np.sin(3 * x)), optimizer=jf.optimizers.sgd(rates(config.net_cells, 1e-4, 1.0)), steps=config.net_steps,
        stop=jf.Stop(loss_below=0.05, loss_above=1e12), precision="float64",
    ).results  # fmt: skip
    wide = np.geomspace(0.5, 4, config.scales)
    depth = np.arange(1, config.depth + 1)
    law = {
        "relu": np.array([(scale / np.sqrt(2)) ** depth for scale in wide]),
        "tanh": np.array([mean_field(scale, config.depth) for scale in wide]),
    }
    relu, tanh = layers(config, wide, law)
    return Result(
        relu=relu,
        tanh=tanh,
        chain=chains.transpose("scale", "learning_rate", ...),
        net=nets.transpose("scale", "learning_rate", ...),
        steps=config.steps,
    )


def layers(config: Config, scales: np.ndarray, law: dict[str, np.ndarray]) -> list[Layers]:
    """Looks at step 0 only: nothing is trained here."""
    keys = jax.random.split(jax.random.key(4), 3)
    weights = np.asarray(jax.random.normal(keys[0], (config.depth, config.width, config.width)))
    h, v = (np.asarray(jax.random.normal(key, (config.width,))) for key in keys[1:])
    h, v = h / np.sqrt(np.mean(h**2)), v / np.linalg.norm(v)
    data = (
        weights / np.sqrt(config.width), jf.Axis("scale", scales), jf.Axis("depth", 1.0 + np.arange(config.depth)), v,
        jf.Axis("activation", np.array([1.0, 0.0]), labels=["relu", "tanh"]),
    )  # fmt: skip
    found = jf.sweep(
        readout, h, data, optimizer=jf.optimizers.sgd(1.0), steps=1, record=jf.Record(what=(signal, "gradient_norm")),
        precision="float64",
    ).results.isel(step=0).transpose("activation", "scale", "depth", ...)  # fmt: skip
    signals, gradients = (found[f"history.{name}"] for name in ("signal", "gradient_norm"))
    return [Layers(scales, signals.sel(activation=a).values, gradients.sel(activation=a).values, law[a]) for a in law]


def mean_field(scale: float, depth: int) -> np.ndarray:
    """Gradient norm after 1, 2, ... layers h = tanh(scale W h) of infinite width, W of variance 1 / width.

    A layer multiplies its square by scale^2 E[sech(u)^4], u from N(0, q), and q = scale^2 E[h^2] of the layer before.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    q, squared, path = scale**2, 1.0, []
    for _ in range(depth):
        u = np.sqrt(q) * nodes
        squared *= scale**2 * np.sum(weights / np.cosh(u) ** 4)
        q = scale**2 * np.sum(weights * np.tanh(u) ** 2)
        path.append(np.sqrt(squared))
    return np.array(path)


def escape(scale: np.ndarray) -> np.ndarray:
    """Updates times rate until the chain arrives: the integral of dw / (w^7 (1 - w^8)) to the loss 1e-12."""
    end = (1 - np.sqrt(2e-12)) ** (1 / LENGTH)
    found = []
    for start in scale:
        w = 1 - np.geomspace(1 - start, 1 - end, 4001)
        speed = 1 / (w ** (LENGTH - 1) * (1 - w**LENGTH))
        found.append(np.sum((speed[1:] + speed[:-1]) / 2 * np.diff(w)))
    return np.array(found)


def thrown(scale: np.ndarray) -> np.ndarray:
    """The rate at which the first update leads from w to -w, where the loss is the same; above it farther still."""
    return 2 / (scale ** (LENGTH - 2) * (scale**LENGTH - 1))


def checks(result: Result) -> list[Check]:
    relu, tanh = result.relu, result.tanh
    depth = np.arange(1, relu.signal.shape[1] + 1)
    exact = depth * np.log10(relu.scales / relu.scales[0])[:, None]
    scale, rate = result.chain.scale.values, result.chain.learning_rate.values
    status = result.chain.status.values
    done, bad = status == jf.Status.CONVERGED, (status == jf.Status.DIVERGED) | (status == jf.Status.NOT_FINITE)
    across, up = scale[1] / scale[0] - 1, rate[1] / rate[0] - 1
    slow, large = rate < 0.05, (scale > 1.3) & (thrown(np.maximum(scale, 1.1)) > rate[0])
    first = scale[done.argmax(0)]
    shore = np.interp(-np.log(rate * result.steps), -np.log(escape(SMALL)), SMALL)
    lowest = np.where(bad.any(1), rate[bad.argmax(1)], np.nan)
    top = rate[done[(scale > 0.9) & (scale < 1)].all(0)].max()
    rows = [
        Check("relu: signal, in powers of ten from that of the smallest scale", exact,
              np.log10(relu.signal / relu.signal[0]), 1e-9 * depth, "GD-4, theory"),
        Check("relu: gradient, the same", exact, np.log10(relu.gradient / relu.gradient[0]), 1e-9 * depth,
              "GD-4, theory"),
        Check("relu: factor of a layer for the gradient at scale 1", 1 / np.sqrt(2), factor(relu), 0.03,
              "GD-4, He's law"),
        Check("tanh: powers of ten that a layer changes the gradient by", np.log10(tanh.mean_field[:, -1]) / depth[-1],
              np.log10(tanh.gradient[:, -1]) / depth[-1], 0.06, "GD-4, mean-field law"),
        Check("tanh: largest signal", True, bool(tanh.signal.max() < 1), source="GD-4, theory"),
        Check("chain: smallest scale that arrives in time, rates below 0.05", shore[slow], first[slow],
              1.5 * across * shore[slow], "GD-4, theory"),
        Check("chain: rate that throws it off, scales above 1.3", thrown(scale[large]), lowest[large],
              1.5 * up * thrown(scale[large]), "GD-4, theory"),
        Check("chain: largest rate that converges from all scales of 0.9 to 1", 2 / LENGTH, top, 1.5 * up * 2 / LENGTH,
              "GD-4, theory"),
    ]  # fmt: skip
    net = result.net.status.values == jf.Status.CONVERGED
    near = abs(np.log(result.net.scale.values)) < np.log(2.2)
    far = abs(np.log(result.net.scale.values)) > np.log(5)
    return [
        *rows,
        Check("net: some rate converges from about He's scale", True, bool(net[near].any()), source="GD-4"),
        Check("net: runs that converge from a scale five times off", 0, int(net[far].sum()), source="GD-4"),
    ]


SMALL = np.linspace(0.2, 0.95, 400)


def factor(layers: Layers) -> float:
    """By what a layer multiplies the gradient at scale 1, on average over the depth."""
    logs = np.log(layers.gradient[:, -1]) / layers.gradient.shape[1] - np.log(layers.scales)
    return float(np.exp(np.mean(logs)))


def draw(result: Result):
    return {"layers": draw_layers(result), "training": draw_training(result)}


def draw_layers(result: Result):
    space = {"wspace": 0.12, "top": 0.82, "left": 0.07, "right": 0.9, "bottom": 0.11}
    figure, axes = plots.panels([["signal", "relu", "tanh"]], size=(12.5, 5.2), gridspec_kw=space)
    figure.suptitle("Every layer multiplies: the size of a deep net's outputs, and of its gradients", x=0.07, ha="left")
    figure.text(
        0.07,
        0.905,
        "Color: powers of ten, measured. Dashed: the law. Mark on the axis: the scale at which a layer keeps the size.",
        color="#555555",
    )
    relu, tanh = result.relu, result.tanh
    depth = np.arange(1, relu.signal.shape[1] + 1)
    law = (relu.scales / np.sqrt(2))[:, None] ** depth
    panels = {
        "signal": ("relu: the signal", relu, relu.signal, law / np.sqrt(2)),
        "relu": ("relu: the gradient", relu, relu.gradient, law),
        "tanh": ("tanh: the gradient", tanh, tanh.gradient, tanh.mean_field),
    }
    for name, (title, layers, values, theory) in panels.items():
        ax = axes[name]
        image = plots.power_map(layers.scales, depth, np.log10(values).T, law=np.log10(theory).T, ax=ax)
        ax.set(title=title, xlabel="scale of the weights × √width")
        critical = 1 if name == "tanh" else np.sqrt(2)
        plots.few_ticks(ax.xaxis, [0.5, 1, 2, 4])
        plots.few_ticks(ax.yaxis, [1, 10, 20, 30, 40, 48])
        words = "1" if name == "tanh" else "√2, He"  # beside a mark on the axis, clear of the law's line
        ax.plot([critical] * 2, [0, 0.07], color="black", lw=2.4, transform=ax.get_xaxis_transform())
        ax.annotate(words, (critical, 1), (-5, 5), textcoords="offset points", ha="right", fontsize=9)
        if name != "signal":
            ax.tick_params(labelleft=False)
    axes["signal"].set_ylabel("layers")
    bar = figure.colorbar(image.collections[0], cax=figure.add_axes((0.92, 0.11, 0.012, 0.71)))
    bar.set_label("powers of ten")
    bar.outline.set_visible(False)
    return figure


def draw_training(result: Result):
    space = {"wspace": 0.2, "top": 0.82, "left": 0.07, "right": 0.88, "bottom": 0.11}
    figure, axes = plots.panels([["chain", "net"]], size=(12, 5.8), gridspec_kw=space)
    figure.suptitle(
        "A deep net converges only in a bounded region of initial weights and learning rates", x=0.07, ha="left"
    )
    figure.text(
        0.07,
        0.905,
        "Each cell is a run. Color: updates until the loss is below 10⁻¹², of the net 0.05.",
        color="#555555",
    )
    ax = axes["chain"]
    options = {"steps_range": (10, 2_000), "colorbar": False}
    plots.convergence_map(result.chain, x="scale", y="learning_rate", ax=ax, **options)
    scale = np.geomspace(1.001, 2, 200)
    shores = [
        (SMALL, escape(SMALL) / result.steps, "takes longer"),
        (scale, thrown(scale), "thrown off"),
        (np.array([0.2, 2]), np.array([2 / LENGTH] * 2), "rate 2 / 8"),
    ]
    for x, y, _ in shores:
        ax.plot(x, y, color="white", lw=2.4)
        ax.plot(x, y, color="black", lw=1.2, ls=(0, (4, 2)))
    plots.outlined(ax.text(0.29, 0.275, "2 / 8: the minimum is unstable above", fontsize=9))
    ax.set(title="A chain of eight weights", xlabel="initial weight", ylabel="learning rate", ylim=(1e-3, 1))
    plots.few_ticks(ax.xaxis, [0.2, 0.5, 1, 2])
    ax = axes["net"]
    plots.convergence_map(result.net, x="scale", y="learning_rate", ax=ax, **options)
    ax.axvline(1, color="black", lw=1.2)
    plots.outlined(ax.annotate("He's scale", (1, 1), (5, -14), textcoords="offset points", fontsize=9))
    ax.set(title="A net of seven relu layers", xlabel="initial weights, as a multiple of He's", ylabel="")
    plots.few_ticks(ax.xaxis, [0.1, 0.3, 1, 3, 10])
    place = figure.add_axes((0.905, 0.11, 0.013, 0.71))
    plots.steps_bar(place, 10, 2_000, cax=place)
    return figure
