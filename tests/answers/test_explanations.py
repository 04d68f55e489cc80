"""What `explain` says of runs whose trouble is known; and that its advice, followed, helps."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.explanations import AT_ONCE, IN_THREE, TESTED
from jaxfit.explanations.failures import layers_of, orthogonal
from jaxfit.explanations.findings import smaller_start
from jaxfit.explanations.local_models import local_model
from jaxfit.verbs.summaries import curve
from tests.shared.failing_runs import MSE, failing, follow, of_quartic, of_well
from tests.shared.problems import PROBLEMS
from tests.shared.soak import soaking

LINE = PROBLEMS["line"]
RAW = jf.datasets.thermometer()
HELD_OUT = 4  # the rules were settled on runs of seeds 0 to 3


def thermometer(rate, steps=100, **options):
    return jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(rate), steps=steps, **options)


def plain(attempt):
    """Only gradient descent, so that few programs are compiled."""
    return list(attempt.options["optimizer"].hyperparameters) == ["learning_rate"] and (
        attempt.options["optimizer"].name == "sgd"
    )


@pytest.mark.soak
def test_following_the_advice_makes_failing_runs_arrive():
    rounds = [
        follow(attempt, fit)
        for make, count in ((of_quartic, 6), (of_well, 4))
        for attempt, fit in failing(count, makers=(make,), only=plain)
    ]
    assert len(rounds) == 10 and None not in rounds and np.mean(np.array(rounds) == 1) >= 0.8


@pytest.mark.soak
def test_following_the_advice_makes_failing_runs_of_every_kind_arrive():
    rounds = [follow(attempt, fit) for attempt, fit in failing(13, seed=HELD_OUT)]
    assert len(rounds) == TESTED
    in_three, at_once = np.mean([r is not None for r in rounds]), np.mean([r == 1 for r in rounds])
    assert at_once >= 0.95
    assert in_three == pytest.approx(IN_THREE, abs=0.02) and at_once == pytest.approx(AT_ONCE, abs=0.03)


def test_a_rate_beyond_the_limit_is_told_with_how_far_and_lowered():
    found = jf.explain(thermometer(0.05))
    assert found.kind == "diverged" and "1.52 times the limit 0.033" in str(found) and ".retry() does it" in str(found)
    assert f"such advice made {100 * AT_ONCE:.3g} % of {TESTED} failing runs arrive at once" in str(found)
    assert f"{100 * IN_THREE:.3g} % within three rounds" in str(found)
    np.testing.assert_allclose(found.numbers["limit"], 2 / found.numbers["sharpness"], rtol=1e-2)
    assert (
        set(found.remedy) == {"optimizer", "steps"}
        and found.remedy["optimizer"].hyperparameters["learning_rate"] < 0.033
    )
    again = jf.explain(found.retry())
    assert again.kind == "settled" and not again.remedy and again.retry() is again.fit
    assert "failing runs" not in str(again)


def test_a_run_cut_short_is_told_how_many_steps_it_lacks():
    fit = thermometer(1e-2)
    found = jf.explain(fit)
    assert found.kind == "still descending"
    x = np.column_stack([LINE.data[0], np.ones(11)])
    least = np.mean((x @ np.linalg.lstsq(x, LINE.data[1], rcond=None)[0] - LINE.data[1]) ** 2)
    np.testing.assert_allclose(found.numbers["excess"], fit.loss - least, rtol=1e-3)
    assert float(found.retry().loss) - least < 2e-4 * (fit.loss - least)


@pytest.mark.soak
def test_a_rate_far_below_the_limit_is_raised():
    found = jf.explain(thermometer(1e-5))
    assert found.kind == "rate too small" and "3,298 times below the limit 0.033" in str(found)
    np.testing.assert_allclose(found.retry().loss, 2.9276, rtol=1e-3)


def test_bad_scales_name_the_data_and_ask_for_a_method_that_has_none():
    fit = jf.fit(LINE.loss, LINE.start, RAW, optimizer=jf.optimizers.sgd(1e-4), steps=100)
    found = jf.explain(fit)
    assert found.kind == "badly scaled" and "data[0] lies around 51.8" in str(found)
    np.testing.assert_allclose(found.numbers["condition"], 33599, rtol=1e-2)
    assert found.remedy["optimizer"].name == "levenberg_marquardt"


@pytest.mark.soak
def test_a_lane_is_explained_like_a_fit():
    rate = jf.Axis("rate", [1e-5, 0.05])
    grid = jf.sweep(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(rate), steps=100)
    found = jf.explain(jf.lane(grid, rate=0.05))
    assert found.kind == "diverged" and found.fit.coords == {"rate": 0.05}


def test_a_saddle_is_told_by_its_negative_curvature():
    def saddle(p):
        return 0.5 * p["x"] ** 2 - 0.5 * p["y"] ** 2 + 0.25 * p["y"] ** 4

    found = jf.explain(jf.fit(saddle, {"x": 1.0, "y": 0.0}, optimizer=jf.optimizers.sgd(0.1), steps=300))
    assert found.kind == "saddle" and found.numbers["smallest"] == pytest.approx(-1)
    np.testing.assert_allclose(found.retry().loss, -0.25, atol=1e-5)


@pytest.mark.soak
def test_a_start_is_shrunk_only_where_that_makes_the_slope_steeper():
    def problem(start):
        return jf.fit(lambda p: jnp.tanh(p["x"]) ** 2, start, optimizer=jf.optimizers.sgd(0.1), steps=1).problem

    far, at_zero = problem({"x": 6.0}), problem({"x": 0.0})
    found = smaller_start(far, local_model(far))
    assert found is not None and 0.02 < found[1] < 0.5  # the slope is steepest at x = 0.66
    assert smaller_start(at_zero, local_model(at_zero)) is None


def chain(params):
    """A product of matrices of one number each: the slope of the i-th is |2 (p - 1) p| / w_i^2, p their product."""
    product = 1.0
    for layer in params:
        product = product * layer["w"][0, 0]
    return (product - 1) ** 2


def test_slopes_that_fall_from_layer_to_layer_are_told_in_order_with_their_numbers():
    sizes = np.array([100.0, 30, 10, 3, 1, 0.3, 1e-4])
    start = [{"w": w * np.ones((1, 1))} for w in sizes]
    found = jf.explain(jf.fit(chain, start, optimizer=jf.optimizers.adam(1e-6), steps=20))
    p = np.prod(sizes)
    assert found.kind == "vanishing gradient"
    np.testing.assert_allclose(list(found.numbers["slopes"].values()), 2 * abs(p - 1) * p / sizes**2, rtol=1e-4)
    told = "layer 0: 9e-04, layer 1: 1e-02, layer 2: 9e-02, layer 3: 1e+00, layer 4: 9e+00, layer 5: 1e+02, layer 6: "
    assert told in str(found) and "moved layer 0 by 0e+00 of its size, layer 6 by 2e-01" in str(found)
    values = np.abs([layer["w"].item() for layer in found.remedy["params"]])
    np.testing.assert_allclose(values, values[0])  # then all slopes are the same
    rising = [{"w": w * np.ones((1, 1))} for w in sizes[::-1]]
    falls = jf.explain(jf.fit(chain, rising, optimizer=jf.optimizers.adam(1e-9), steps=20))
    assert falls.kind == "exploding gradient" and "times larger in the first layers than in the last" in str(falls)


def test_layers_are_told_by_the_tree_or_by_their_numbers_and_in_the_order_of_those():
    w, b = np.ones((2, 2)), np.ones(2)
    flat = {"w2": w, "b2": b, "w10": w, "w1": w, "b1": b, "scale": b}
    nested = {"encoder": {"w": w, "b": b}, "blocks": [{"w": w}, {"w": w}], "norm": {"scale": b}}

    def layers(params):
        loss = lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(p))  # noqa: E731
        return layers_of(jf.fit(loss, params, optimizer=jf.optimizers.sgd(0.1), steps=1).problem)

    assert [layer.name for layer in layers(flat)] == ["1", "2", "10"]
    places = [list(layer.where) for layer in layers(flat)]
    assert places[1] == [2, 3, *range(14, 18)]  # of b2 and w2, in the order b1 b2 scale w1 w10 w2
    assert [layer.name for layer in layers(nested)] == ["blocks.0", "blocks.1", "encoder"]
    assert layers({"w1": w, "w2": w}) == []


ROUNDING = 1e-12  # of sums of eight numbers of size one in float64, with room


@pytest.mark.soak
def test_matrices_of_an_even_start_keep_lengths_and_let_no_mean_through():
    for shape in ((8, 8), (8, 3), (3, 8), (1, 8), (8, 1), (2, 2)):
        matrix = orthogonal(np.random.default_rng(0), *shape)
        sides = [n for n in shape if n > 2]
        for axis in [i for i, n in enumerate(shape) if n > 2]:
            np.testing.assert_allclose(matrix.sum(axis=axis), 0, atol=ROUNDING)
        values = np.linalg.svd(matrix, compute_uv=False) / np.sqrt(max(1, shape[1] / shape[0]))
        kept = min(n - (n > 2) for n in shape) if sides else min(shape)
        np.testing.assert_allclose(values, np.arange(min(shape)) < kept, atol=ROUNDING)


@pytest.mark.soak
@pytest.mark.parametrize(("activation", "gain", "depth"), [("sigmoid", 0.5, 19), ("tanh", 0.2, 14), ("tanh", 6.0, 14)])
def test_a_deep_net_whose_gradient_vanishes_or_explodes_learns_from_an_even_start(activation, gain, depth):
    rng, widths = np.random.default_rng(1), (1, *[12] * depth, 1)
    start = [{"w": gain * rng.normal(size=s) / np.sqrt(s[0]), "b": np.zeros(s[1])} for s in itertools.pairwise(widths)]
    x = np.linspace(-1, 1, 32)
    loss, data = jf.losses.mse(jf.models.dense(widths, activation)), (x, np.sin(3 * x))
    found = jf.explain(jf.fit(loss, start, data, optimizer=jf.optimizers.sgd(0.003), steps=500))
    assert found.kind == ("vanishing gradient" if gain < 1 else "exploding gradient")
    assert list(found.numbers["slopes"]) == [str(i) for i in range(depth + 1)]
    assert found.retry().loss < 0.1 * np.var(data[1])


@pytest.mark.soak
def test_a_deep_net_that_learns_is_not_told_that_its_gradient_vanishes():
    sizes = np.array([3.0, 1, 0.3, 1])
    start = [{"w": w * np.ones((1, 1))} for w in sizes]
    assert jf.explain(jf.fit(chain, start, optimizer=jf.optimizers.sgd(0.01), steps=500)).kind == "settled"


@pytest.mark.soak
def test_other_troubles_have_their_names():
    def relu(p):
        return (jnp.maximum(p["w"] - 1, 0) * p["v"] - 1) ** 2 + (p["u"] - 1) ** 2

    dead_units = jf.fit(relu, {"w": -1.0, "v": 1.0, "u": 0.5}, optimizer=jf.optimizers.sgd(0.1), steps=100)
    assert jf.explain(dead_units).kind == "dead units" and jf.explain(dead_units).numbers["dead"] == 2
    swings = jf.fit(lambda p: jnp.abs(p - 0.3), 1.0, optimizer=jf.optimizers.sgd(0.2), steps=100)
    found = jf.explain(swings)
    assert found.kind == "limit cycle" and float(found.retry().loss) < 1e-2
    swings = jf.fit(lambda p: jnp.abs(p - 0.3), 1.03, optimizer=jf.optimizers.sgd(0.2), steps=100)
    assert jf.explain(swings).kind == "limit cycle" and jf.explain(swings).numbers["period"] == 2
    noisy = jf.fit(
        LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=3000, batches=jf.Batches(2), key=0
    )
    assert jf.explain(noisy).kind == "noise floor"
    nothing = jf.fit(lambda p: jnp.sqrt(p["x"] ** 2), {"x": 0.0}, optimizer=jf.optimizers.sgd(0.1))
    assert jf.explain(nothing).kind == "not defined"


def decay(p, x):
    return p["a"] * jnp.exp(-x / p["tau"]) + p["c"]


def peak(p, x):
    return p["h"] * jnp.exp(-0.5 * jnp.square((x - p["m"]) / p["s"])) + p["c"]


def chance(p, x):
    return jax.nn.sigmoid(x @ p["w"] + p["b"])


def least_deviance(x, won):
    """Newton's method on standardized columns, from zero: the likelihood is concave."""
    rows = np.column_stack([(x - x.mean(0)) / x.std(0), np.ones(len(won))])
    v = np.zeros(rows.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-rows @ v))
        v = v + np.linalg.solve(rows.T @ (rows * (p * (1 - p))[:, None]), rows.T @ (won - p))
    return 2 * np.sum(np.logaddexp(0, rows @ v) - won * (rows @ v))


T = np.linspace(0, 10, 50)
NOISE = 0.05 * np.random.default_rng(3).normal(size=50)
DECAY, PEAK = 3 * np.exp(-T / 2) + 0.5 + NOISE, 2 * np.exp(-0.5 * ((T - 6) / 0.7) ** 2) + 0.3 + NOISE
COLUMNS = np.random.default_rng(1).normal(size=(50, 2)) * [1, 50] + [0, 300]
WON = (COLUMNS @ [1.5, 0.02] + 100 * NOISE > 6).astype(float)
LM, SGD = jf.optimizers.levenberg_marquardt, jf.optimizers.sgd
ASTRAY = {  # runs that fail: model, start, data, optimizer, words of the advice, and how high a good run ends
    "a rate constant of the wrong sign": (
        jf.losses.rss(decay), {"a": 1.0, "tau": -1.0, "c": 0.0}, (T, DECAY), LM(), "a start of another size, tau=", 0.3,
    ),
    "a time in other units": (
        jf.losses.rss(decay), {"a": 1.0, "tau": 1.0, "c": 0.0}, (1e-9 * T, DECAY), LM(), "another size, tau=1e-07", 0.3,
    ),
    "a step far beyond a small param": (
        jf.losses.rss(decay), {"a": 1.0, "tau": 1e-9, "c": 0.0}, (1e-9 * T, DECAY), SGD(1e-3), "levenberg_marquardt()",
        0.3,
    ),
    "a peak beside the data": (
        jf.losses.rss(peak), {"h": 1.0, "m": 60.0, "s": 1.0, "c": 0.0}, (T, PEAK), LM(), "these, m=6, with 20,000", 0.3,
    ),
    "a peak between two points": (
        jf.losses.rss(peak), {"h": 1.0, "m": 5.0, "s": 1e-3, "c": 0.0}, (T, PEAK), LM(), "start for these, s=", 0.3,
    ),
    "columns of unlike scales": (
        jf.losses.binomial(chance), {"w": np.zeros(2), "b": 0.0}, (COLUMNS, WON, np.ones(50)), SGD(1e-3),
        "lbfgs(), which learns the curvature, in float64 and up to 5,000 steps", 1.001 * least_deviance(COLUMNS, WON),
    ),
    "a slope that is the same everywhere": (
        jf.losses.mae(jf.models.line), {"w": 0.0, "b": 0.0}, (T, 5 * T + 100), SGD(1e-3), "lbfgs()", 0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(ASTRAY, keep=("a time in other units", "a peak beside the data")))
def test_advice_brings_runs_from_poor_starts_to_their_curves_at_once(name):
    loss, start, data, optimizer, words, high = ASTRAY[name]
    fit = jf.fit(loss, start, data, optimizer=optimizer, steps=300, precision="float64", progress=False)
    assert not fit.loss <= high
    found = jf.explain(fit)
    assert words in found.advice
    again = found.retry()
    assert again.status in (jf.Status.CONVERGED, jf.Status.OUT_OF_STEPS) and again.loss <= high


@pytest.mark.soak
def test_steps_that_float32_rounds_away_are_told_with_float64_as_the_remedy():
    """Around 1e5 the numbers of float32 are 1/128 apart, and a step of 1e-3 times the slope is soon shorter."""
    start = {"h": 2.0, "m": 1e5 + 5.5, "s": 0.7, "c": 0.3}
    fit = jf.fit(jf.losses.rss(peak), start, (1e5 + T, PEAK), optimizer=SGD(1e-3), steps=2000, precision="float32")
    found = jf.explain(fit)
    assert "lost where float32 rounds" in str(found) and found.remedy["precision"] == "float64"
    assert found.retry().loss < fit.loss


@pytest.mark.soak
def test_a_schedule_at_its_end_begins_again_where_more_steps_are_advised():
    """Steps beyond the end of a cosine are of length zero."""
    x = np.random.default_rng(0).normal(size=(24, 2))
    data, faded = (x, x @ [1.0, -2.0]), SGD(jf.schedules.cosine(1e-3, 100))
    start = {"w": np.zeros(2), "b": 0.0}
    fit = jf.fit(MSE["plane"], start, data, optimizer=faded, steps=100, batches=jf.Batches(4), key=0)
    found = jf.explain(fit)
    assert found.kind in ("noise floor", "still descending") and "jf.schedules.cosine(0.001, 400)" in found.advice
    assert found.retry().loss < 0.8 * fit.loss


def behind_a_relu(p, threshold, zero):
    return (jnp.maximum(p["w"] - threshold, 0) * p["v"] - 1) ** 2 + (p["u"] - 1) ** 2 + zero * p["idle"]


@pytest.mark.soak
@pytest.mark.parametrize("silent", soaking([-1.0, -0.1, -5.0, -60.0], keep=(-1.0,)))
@pytest.mark.parametrize("threshold", soaking([1.0, 0.0, 30.0], keep=(1.0,)))
def test_units_behind_a_relu_are_not_taken_for_params_without_influence(silent, threshold):
    sgd, data = jf.optimizers.sgd(0.1), (threshold, 0.0)
    start = {"w": silent, "v": 1.0, "u": 0.5, "idle": jf.Fixed(0.0)}
    found = jf.explain(jf.fit(behind_a_relu, start, data, optimizer=sgd, steps=40))
    assert found.kind == "dead units" and found.numbers["dead"] == 2
    start = {"w": jf.Fixed(1 + threshold), "v": jf.Fixed(2.0), "u": 0.5, "idle": silent}
    found = jf.explain(jf.fit(behind_a_relu, start, data, optimizer=sgd, steps=40))
    assert found.kind == "not determined" and found.numbers["without_influence"] == 1


def test_the_local_model_of_a_quadratic_has_its_own_curvatures_and_directions():
    rng = np.random.default_rng(0)
    vectors, values = np.linalg.qr(rng.normal(size=(4, 4)))[0], np.array([-3.0, -2.0, 0.5, 4.0])
    matrix, slope, at = vectors * values[None, :] @ vectors.T, rng.normal(size=4), rng.normal(size=4)

    def loss(p, matrix, slope, zero):
        return p["a"] @ matrix @ p["a"] / 2 + slope @ p["a"] + zero * p["b"]

    start, data, rate = {"a": at, "b": 1.0}, (matrix, slope, 0.0), jf.optimizers.sgd(1e-3)
    run = jf.fit(loss, start, data, optimizer=rate, steps=1, precision="float64")
    here, parts = local_model(run.training.problem), vectors.T @ (matrix @ at + slope)
    # Zeros are known to the rounding of the largest eigenvalue, some eps of it: so are the products below.
    np.testing.assert_allclose(here.curvatures, np.sort([*values, 0.0]), atol=1e-12)
    np.testing.assert_allclose(here.newton[:4], -vectors[:, 2:] @ (parts[2:] / values[2:]), rtol=1e-10)
    assert here.excess == pytest.approx(np.sum(parts[2:] ** 2 / values[2:]) / 2, rel=1e-10)
    assert here.idle.tolist() == [False] * 4 + [True] and np.linalg.norm(here.downward) == pytest.approx(1)
    np.testing.assert_allclose(here.downward[:4] @ vectors[:, 2:], 0, atol=1e-12)


def test_a_cycle_is_known_by_its_period():
    steps = np.arange(400)
    found = curve(2 + np.sin(2 * np.pi * steps / 7))
    assert found is not None and found.period == 7 and found.rises == pytest.approx(0.5, abs=0.1)
    falling = curve(np.exp(-0.1 * steps))
    assert falling is not None and falling.rises == 0 and falling.period is None
    assert curve(np.ones(5)) is None


def test_what_cannot_be_explained_is_refused():
    with pytest.raises(TypeError, match="explain takes a fit, but got a dict"):
        jf.explain({})
    bare = dataclasses.replace(thermometer(1e-2), training=None)
    with pytest.raises(ValueError, match="no longer knows its loss"):
        jf.explain(bare)
