"""Lanes of a sweep by Levenberg-Marquardt end as single fits do: determined or not, few points, bounds of one side."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.optimizers.methods import Proposal, Traits
from tests.shared.soak import soaking

LM, Status = jf.optimizers.levenberg_marquardt, jf.Status
LANES = 4
KINDS = {"determined": (30, 0), "redundant": (30, 1), "few points": (1, 0)}  # points, directions without influence
CASES = [(kind, count, precision) for kind in KINDS for count in range(2, 13) for precision in ("float64", "float32")]
QUICK = (("redundant", 3, "float64"),)


def predict(params, x):
    z = x @ jnp.concatenate([params["low"][None], params["free"], params["high"][None]])
    return z + jnp.tanh(z)


@pytest.mark.parametrize("case", soaking(CASES, keep=QUICK))
def test_lanes_end_as_they_do_alone(case):
    """The first param has a lower bound, the last an upper one; some are active in some of the lanes."""
    kind, count, precision = case
    rng, eps = np.random.default_rng(count), np.finfo(precision).eps
    points, idle = KINDS[kind]
    matrix = rng.normal(size=(points, count - idle)) @ rng.normal(size=(count - idle, count))
    truths = rng.normal(size=(LANES, count))
    starts = rng.normal(size=(LANES, count))
    starts[:, 0], starts[:, -1] = np.abs(starts[:, 0]), -np.abs(starts[:, -1])

    z = truths @ matrix.T
    ys = z + np.tanh(z) + 0.1 * rng.normal(size=z.shape)

    def params(of):
        return {
            "low": jf.Bounded(of(starts[:, 0]), low=0.0),
            "free": of(starts[:, 1:-1]),
            "high": jf.Bounded(of(starts[:, -1]), high=0.0),
        }

    options = {"optimizer": LM(), "steps": 300, "precision": precision}
    loss, lanes = jf.losses.rss(predict), lambda x: jf.Axis("lane", x)
    grid = jf.sweep(loss, params(lanes), (matrix, lanes(ys)), **options)
    for i in range(LANES):
        alone = jf.fit(loss, params(lambda x, i=i: x[i]), (matrix, ys[i]), **options)
        lane = jf.lane(grid, lane=i)
        assert lane.status == alone.status, (i, lane.status, alone.status)
        assert lane.status in (Status.CONVERGED, Status.NOT_DETERMINED)
        assert idle == 0 or kind != "redundant" or lane.status == Status.NOT_DETERMINED or active(lane.params)
        for name, value in alone.params.items():
            np.testing.assert_allclose(lane.params[name], value, rtol=64 * eps**0.5, atol=64 * eps**0.5)


def active(params):
    """Whether a param lies on its bound, which may determine the rest."""
    return params["low"] == 0 or params["high"] == 0


class Halved(NamedTuple):
    """A method of one's own that remembers the loss at the params: it halves them."""

    def init(self, objective, params):
        return objective(params)

    def step(self, objective, params, memory):
        there = jax.tree.map(lambda p: p / 2, params)
        return Proposal(memory, None, there, objective(there))


def halved():
    return Halved()


halved.traits = Traits(judges=True, finds_gradient=False)
REMEMBERING = {"lm": LM(), "lbfgs": jf.optimizers.lbfgs(), "own": jf.optimizer(halved)}
ENDS = {"out of steps": jf.Stop(), "below": jf.Stop(loss_below=0.05)}


@pytest.mark.parametrize("end", soaking(ENDS, keep=("out of steps",)))
@pytest.mark.parametrize("name", soaking(REMEMBERING, keep=("own",)))
def test_a_lane_that_ends_tells_the_loss_at_its_params(name, end):
    """Whatever the method remembers of the params where it would go next."""
    x = np.linspace(-1.0, 1.5, 7)
    y = 0.7 * x + 0.3 + 0.1 * np.sin(9 * x)
    loss = jf.losses.mse(jf.models.line)
    options = {"optimizer": REMEMBERING[name], "steps": 2, "stop": ENDS[end], "precision": "float64"}
    grid = jf.sweep(loss, {"w": jf.Axis("w", [0.0, 0.1, 2.0]), "b": 0.0}, (x, y), **options)
    for i in range(3):
        lane = jf.lane(grid, w=float(grid.results.w[i]))
        there = np.mean((lane.params["w"] * x + lane.params["b"] - y) ** 2)
        assert float(lane.loss) == pytest.approx(there, rel=1e-10)
    alone = jf.fit(loss, {"w": 2.0, "b": 0.0}, (x, y), **options)
    assert (lane.steps, lane.status) == (alone.steps, alone.status)
    np.testing.assert_allclose(lane.loss, alone.loss, rtol=1e-10)


def test_a_traced_fit_that_ends_early_tells_the_loss_at_its_params():
    x = np.linspace(-1.0, 1.5, 7)
    loss = jf.losses.mse(jf.models.line)

    @jax.jit
    def loss_and_params(w):
        run = jf.fit(loss, {"w": w, "b": 1.0}, (x, 0.7 * x), optimizer=jf.optimizer(halved), steps=20,
                     stop=jf.Stop(loss_below=0.5), precision="float32")  # fmt: skip
        return run.loss, run.params, run.steps

    found, params, steps = loss_and_params(3.0)
    assert 0 < int(steps) < 20
    assert float(found) == pytest.approx(
        np.mean((float(params["w"]) * x + float(params["b"]) - 0.7 * x) ** 2), rel=1e-5
    )


def test_a_fit_that_ends_between_two_records_tells_the_loss_at_its_params():
    x = np.linspace(-1.0, 1.5, 7)
    loss, start = jf.losses.mse(jf.models.line), {"w": jf.Bounded(3.0, low=0.0), "b": 1.0}
    run = jf.fit(loss, start, (x, 0.7 * x), optimizer=jf.optimizer(halved), steps=20,
                 stop=jf.Stop(loss_below=0.5), record=jf.Record(every=7), precision="float32")  # fmt: skip
    assert 0 < run.steps % 7 < 6
    there = np.mean((float(run.params["w"]) * x + float(run.params["b"]) - 0.7 * x) ** 2)
    assert float(run.loss) == pytest.approx(there, rel=1e-5)
