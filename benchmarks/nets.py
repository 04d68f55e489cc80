"""A two-layer tanh net over the learning rates of its layers: the boundary of trainability.

Source: Sohl-Dickstein (2024), arXiv:2402.06184; here in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import jaxfit as jf
from benchmarks import peers
from benchmarks.agreement import agree
from benchmarks.lines import single
from benchmarks.results import SPEED, THROUGHPUT, Row
from benchmarks.sweeps import US, WIDE, at_least, by_hand, in_torch
from benchmarks.timing import Seconds, clock, race, spread

LOSS = jf.losses.mse(peers.tanh_net)


class Setting(NamedTuple):
    side: int  # learning rates of each layer
    steps: int
    share: int  # the peers, in which no lane ends early, run this fraction of the steps
    torch_share: int
    points: int
    width: int

    def data(self) -> tuple[np.ndarray, ...]:
        """x (points, width), y (points,), and the start: hidden (width, width), output (width,)."""
        random = np.random.default_rng(0)
        shapes = (self.points, self.width), (self.points,), (self.width, self.width), (self.width,)
        return single(tuple(random.standard_normal(shape) for shape in shapes))

    def rates(self) -> np.ndarray:
        return np.geomspace(1e-3, 1e6, self.side, dtype=np.float32)

    def sweep(self, steps: int) -> jf.Grid:
        x, y, hidden, output = self.data()
        axes = {name: jf.Axis(name, self.rates()) for name in ("hidden", "output")}
        optimizer = jf.optimizer(peers.sgd_by_layer, **axes)
        return jf.sweep(LOSS, {"hidden": hidden, "output": output}, (x, y), optimizer=optimizer, steps=steps)

    def own_lanes(self) -> dict:
        """The same lanes for a peer, in the same order."""
        first, second = (v.ravel() for v in np.meshgrid(self.rates(), self.rates(), indexing="ij"))
        _, _, hidden, output = self.data()
        start = {"hidden": hidden, "output": output}
        everywhere = {name: np.broadcast_to(v, (self.side**2, *v.shape)) for name, v in start.items()}
        return {"params": everywhere, "rates": {"hidden": first, "output": second}}

    def in_torch(self) -> dict:
        """The arguments of torch's loop."""
        x, y, hidden, output = (v.tolist() for v in self.data())
        rates = {name: rate.tolist() for name, rate in self.own_lanes()["rates"].items()}
        start = {"hidden": hidden, "output": output}
        return {"x": x, "y": y, "start": start, "rates": rates, "steps": self.steps // self.torch_share}


TOY = Setting(side=4, steps=20, share=5, torch_share=5, points=8, width=4)
PAPER = Setting(side=64, steps=500, share=10, torch_share=100, points=272, width=16)


def trainability(quick: bool) -> list[Row]:
    """The paper's map; lanes that blow up end early in jaxfit, in the peers none does."""
    net = TOY if quick else PAPER
    lanes = net.side**2
    case = f"{net.side} x {net.side} learning rates of a tanh net of width {net.width}, {net.steps:,} steps"
    whole, calm = f"{case}: all of it", calm_lanes(net)
    calls, made = peers_of(net, case, calm), lanes * net.steps
    useful = int(net.sweep(net.steps).results.steps.sum())
    soon = net.sweep(net.steps // net.torch_share).results.loss.values.ravel()
    arguments, ten = net.in_torch(), at_least(10)
    torch = in_torch(whole, "net_vmap", arguments, soon, share=net.torch_share, target=ten, where=calm)
    with torch as (theirs, rows):
        contestants = {US: lambda: net.sweep(net.steps), **calls, **theirs}
        times = race(contestants, rounds=2 if quick else 3, warm=False)
    best, peer = min((times[name] for name in calls), key=np.median), "the better of the two by hand"
    a_step, counts = (useful / times[US]) / (made / best), dict.fromkeys(times, made) | {US: useful}
    return [
        Row(f"{case}: a lane-step", peer, SPEED, spread(a_step), at_least(1)),
        Row(whole, peer, SPEED, spread(best / times[US]), at_least(1)),
        *(Row(whole, name, SPEED, spread(times[name] / times[US]), ten) for name in theirs),
        *rows,
        *(Row(case, name, THROUGHPUT, spread(counts[name] / times[name] / 1e6)) for name in times),
    ]


def calm_lanes(net: Setting) -> np.ndarray:
    """(lanes,) where learning rates are so small that rounding does not decide where a lane goes."""
    rates = net.own_lanes()["rates"]
    return (rates["hidden"] < 1) & (rates["output"] < 1)


def peers_of(net: Setting, case: str, calm: np.ndarray) -> dict[str, Callable]:
    """The programs written by hand, checked, each running a share of the steps."""
    few = net.steps // net.share
    x, y, _, _ = net.data()
    lane = peers.descending(peers.tanh_net_mse, peers.sgd_by_layer, few)
    calls = {}
    soon = net.sweep(few).results.loss.values.ravel()
    for name, run in by_hand(lane, net.own_lanes(), (x, y), WIDE, size=4).items():
        agree(soon[calm], run()["loss"][calm], what=f"{case}, {name}")
        calls[f"{name} ({few:,} steps, times {net.share})"] = lambda run=run: Seconds(net.share * clock(run))
    return calls
