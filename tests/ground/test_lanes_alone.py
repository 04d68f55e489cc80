"""Lanes of a sweep by Levenberg-Marquardt end as single fits do: determined or not, few points, bounds of one side."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

LM, Status = jf.optimizers.levenberg_marquardt, jf.Status
LANES = 4
KINDS = {"determined": (30, 0), "redundant": (30, 1), "few points": (1, 0)}  # points, directions without influence
CASES = [(kind, count, precision) for kind in KINDS for count in range(2, 13) for precision in ("float64", "float32")]
QUICK = (("determined", 3, "float64"), ("redundant", 7, "float64"), ("few points", 2, "float32"))


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
