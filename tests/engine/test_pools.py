"""Laws of the lane pool: a lane's result has the same bits however the work is cut."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.parts import block_length, pool_shape
from jaxfit.engine.pools import PoolShape
from jaxfit.engine.settings import counting, using
from jaxfit.verbs import sweeps
from tests.shared import small_sweeps
from tests.shared.problems import PROBLEMS
from tests.shared.soak import soaking

X = np.linspace(-1, 1, 24).reshape(12, 2)
Y = np.sin(2 * X[:, 0]) * X[:, 1]


def net(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def init(key):
    a, b = jax.random.split(key)
    return {"in": jax.random.normal(a, (2, 4)), "out": jax.random.normal(b, (4,))}


def run(rates, seeds, stop=jf.Stop(), slots=4):  # noqa: B008
    rate, seed = jf.Axis("rate", rates), jf.Axis("seed", seeds)
    params = jf.Call(init, key=seed)
    how = dict(steps=130, batches=jf.Batches(5), key=seed, stop=stop, slots=slots, record=jf.Record(every=10))
    loss = jf.losses.mse(net)
    grid = jf.sweep(loss, params, (X, Y), optimizer=jf.optimizers.adam(rate), **how)
    return grid.results.transpose("rate", "seed", ...)


RATES, SEEDS = [1e-3, 1e-2, 3e-2, 1e-1, 3e-1], [1, 2, 3]
RULES = {"no rule": jf.Stop(), "a rule": jf.Stop(loss_below=0.05)}


def same(a, b):
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


CUTS = {
    "workers": {"workers": 3, "block_seconds": 1e-9},
    "chunks": {"chunk": 60, "block_lanes": 4, "block_loads": 1},  # another program
}


@pytest.mark.parametrize("cuts", soaking(CUTS, keep=("workers",)))
@pytest.mark.parametrize("rule", soaking(RULES, keep=("a rule",)))
def test_chunks_blocks_and_workers_change_no_bit(rule, cuts):
    whole = run(RATES, SEEDS, RULES[rule])
    assert len(np.unique(whole.loss)) == 15
    with using(**CUTS[cuts]):
        same(whole, run(RATES, SEEDS, RULES[rule]))


def test_a_block_is_no_larger_than_its_results_allow():
    def block(bytes_of_results):
        with using(block_loads=2, block_bytes=bytes_of_results):
            return pool_shape(short, 4, 1).lanes

    plan = sweeps.plan_sweep(
        lambda p: p**2, jf.Axis("start", np.linspace(1, 2, 100)), optimizer=jf.optimizers.sgd(0.1), steps=5
    )
    (short,) = plan.parts
    assert short.needs.results == 20  # params, loss, status, steps and the loss at the start
    assert [block(n) for n in (2**26, 20 * 30, 20 * 5, 1)] == [128, 28, 8, 8]


@pytest.mark.soak
@pytest.mark.parametrize("rule", RULES)
def test_neighbours_and_places_change_no_bit(rule):
    whole = run(RATES, SEEDS, RULES[rule])
    turned = run(RATES[::-1], SEEDS[::-1], RULES[rule]).isel(rate=slice(None, None, -1), seed=slice(None, None, -1))
    part = run(RATES[1:4], SEEDS[1:], RULES[rule])
    same(whole, turned)
    same(whole.isel(rate=slice(1, 4), seed=slice(1, None)), part)


ENDS = {
    "gradient_norm": jf.Stop(gradient_norm_below=0.1),
    "params_change": jf.Stop(params_change_below=0.02),
    "patience": jf.Stop(patience=2),
}


def decay(p, x):
    return p["height"] * jnp.exp(-p["rate"] * x) + p["level"]


@pytest.mark.parametrize("rule", soaking(ENDS, keep=("gradient_norm",)))
@pytest.mark.parametrize("every", soaking([1, 3], keep=(1,)))
def test_the_last_record_of_a_lane_has_the_same_bits_among_other_neighbors(every, rule):
    """It is made by a step or by the check after a chunk, and neighbors decide where chunks end."""
    rng, lanes, x = np.random.default_rng(2), 41, np.linspace(0.0, 3.0, 24)
    true = rng.uniform(0.5, 2.0, (lanes, 3))
    ys = decay({"height": true[:, :1], "rate": true[:, 1:2], "level": true[:, 2:]}, x[None, :])
    ys = np.asarray(ys) + 0.05 * rng.normal(size=ys.shape)
    starts, rates = true * (1 + 0.3 * rng.normal(size=true.shape)), 10.0 ** rng.uniform(-2.0, -1.3, lanes)

    def histories(order):
        def axis(values):
            return jf.Axis("lane", values[order], labels=order)

        how = dict(record=jf.Record(every=every, what=("loss", "gradient_norm")), stop=ENDS[rule], steps=70, slots=16)
        how |= dict(validation=(x[::3], axis(ys[:, ::3]))) if rule == "patience" else {}
        params = {name: axis(starts[:, i]) for i, name in enumerate(("height", "rate", "level"))}
        optimizer = jf.optimizers.adam(axis(rates))
        return jf.sweep(jf.losses.mse(decay), params, (x, axis(ys)), optimizer=optimizer, **how).results.sortby("lane")

    ordered = histories(np.arange(lanes))
    assert len(np.unique(ordered.steps)) > 10
    for _ in range(4):
        same(ordered, histories(rng.permutation(lanes)))


def peaks_of(p, x):
    height, center, width = (p[name][:, None] for name in ("height", "center", "width"))
    return (height * jnp.exp(-0.5 * ((x[None, :] - center) / width) ** 2)).sum(axis=0) + p["level"]


@pytest.mark.parametrize("slots", soaking([3, 4, 8, 16], keep=(4, 8)))
@pytest.mark.parametrize("peaks", soaking([1, 2], keep=(1,)))
def test_every_slot_gives_a_lane_of_levenberg_marquardt_the_same_bits(slots, peaks):
    """Its arrays have their lanes last: a loop that takes eight numbers at once may round those left over otherwise."""
    x, centers = np.linspace(0.0, 10.0, 30), np.linspace(3.0, 7.0, 21)
    away = x[None, None, :] - centers[:, None, None] - 2 * np.arange(peaks)[None, :, None]
    ys = np.exp(-0.5 * (away / 0.7) ** 2).sum(axis=1) + 0.05 * np.sin(9 * x + 7 * centers[:, None])

    start = {"height": np.full(peaks, 1.0), "center": np.linspace(5, 7, peaks), "width": np.full(peaks, 0.8)}

    def fits(lanes):
        grid = jf.sweep(
            jf.losses.rss(peaks_of), start | {"level": 0.0}, (x, jf.Axis("lane", ys[lanes])), slots=slots, steps=40,
            optimizer=jf.optimizers.levenberg_marquardt(),
        )  # fmt: skip
        return (x.drop_vars("lane", errors="ignore") for x in (grid.results, jf.standard_errors(grid)))

    (forward, errors), (backward, others) = fits(np.arange(21)), fits(np.arange(21)[::-1])
    same(errors, others.isel(lane=slice(None, None, -1)))
    assert len(np.unique(forward.steps)) > 3
    same(forward, backward.isel(lane=slice(None, None, -1)))


@pytest.mark.parametrize("precision", soaking(["float32", "float64"], keep=1))
def test_lanes_that_are_alike_have_the_same_bits_in_all_slots(precision):
    """Of three params, the first is found from a sum of two products, which one rounding or the other may join."""
    rng, alike = np.random.default_rng(320), 16
    x = np.sort(rng.uniform(0, 10, 20))
    heights, level = rng.normal(size=(12, 2)), rng.normal(size=12)

    def model(p, x):
        heights, bump, wave = p["heights"], jnp.exp(-0.5 * ((x - 1) / 1.5) ** 2), jnp.sin(2 * x / 3)
        return p["base"] + jnp.zeros_like(x) + heights[0] * bump + heights[1] * wave

    ys = np.stack([model({"base": b, "heights": c}, x) for b, c in zip(level, heights, strict=True)])
    ys = ys + 0.1 * rng.normal(size=ys.shape)
    starts = {"base": level, "heights": heights + 0.5 * rng.normal(size=heights.shape)}
    starts, ys = jax.tree.map(lambda v: jf.Axis("lane", np.repeat(v, alike, axis=0)), (starts, ys))
    found = jf.sweep(
        jf.losses.mse(model), starts, (x, ys), precision=precision, slots=alike,
        optimizer=jf.optimizers.levenberg_marquardt(), steps=1,
    ).results  # fmt: skip
    for first in range(alike):
        same(found.isel(lane=slice(first, None, alike)), found.isel(lane=slice(0, None, alike)))


def test_a_rule_ends_lanes_at_different_steps_and_all_are_found():
    results = run(RATES, SEEDS, RULES["a rule"])
    converged = results.status == jf.Status.CONVERGED
    assert 3 < int(converged.sum()) and len(np.unique(results.steps)) > 4
    assert (results.steps.values[~converged.values] == 130).all()


def test_one_bad_lane_does_not_change_the_others_by_a_bit():
    """In lock-step, where the steps of all are made again and judged."""

    def lines(rates):
        start, optimizer = {"w": jf.Axis("w0", [-2.0, 0.0, 1.0]), "b": 0.0}, jf.optimizers.sgd(jf.Axis("rate", rates))
        return jf.sweep(PROBLEMS["line"].loss, start, PROBLEMS["line"].data, optimizer=optimizer, steps=200).results

    good, bad = lines([1e-3, 5e-3, 1e-2, 3e-2, 3.1e-2]), lines([1e-3, 5e-3, 1e-2, 3e-2, 1e30])
    assert (bad.status[:, -1] == jf.Status.DIVERGED).all() and (good.status == jf.Status.OUT_OF_STEPS).all()
    same(good.isel(rate=slice(4)), bad.isel(rate=slice(4)))


SCRIPT = """
import hashlib, sys
import jax
sys.path.insert(0, {root!r})
from tests.engine.test_pools import RATES, SEEDS, RULES, run, digest
from tests.shared import small_sweeps
from tests.shared.problems import PROBLEMS
print(len(jax.local_devices()), *(digest(run(RATES[:4], SEEDS[:2], RULES[rule])) for rule in {rules!r}))
small_sweeps.run(sys.argv[1], rates=small_sweeps.RATES[:{rates}])
"""


def digest(results) -> str:
    total = hashlib.sha256()
    for name in sorted(map(str, results.data_vars)):
        total.update(np.ascontiguousarray(results[name].values).tobytes())
    return total.hexdigest()


@pytest.mark.soak
@pytest.mark.parametrize(("rules", "rates"), [((), 2), (tuple(RULES), 7)])
def test_eight_devices_give_the_bits_of_one_and_the_same_files(rules, rates, tmp_path):
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    script = [sys.executable, "-c", SCRIPT.format(root=root, rules=rules, rates=rates), str(tmp_path / "eight")]
    out = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert out == ["8", *(digest(run(RATES[:4], SEEDS[:2], RULES[rule])) for rule in rules)]
    small_sweeps.run(tmp_path / "one", rates=small_sweeps.RATES[:rates])
    assert small_sweeps.contents(tmp_path / "eight") == small_sweeps.contents(tmp_path / "one")


@pytest.mark.parametrize("stop", soaking([jf.Stop(gradient_norm_below=0.2), jf.Stop()], keep=1))
@pytest.mark.parametrize("precision", soaking(["float32", "float64"], keep=("float64",)))
def test_the_pool_is_the_loop_over_single_fits(stop, precision):
    rates = np.geomspace(1e-3, 1.0, 23)
    t_u, t_c = jf.datasets.thermometer()
    loss, start, data = jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (0.1 * t_u, t_c)
    how = dict(steps=3000, stop=stop, precision=precision)
    grid = jf.sweep(loss, start, data, optimizer=jf.optimizers.sgd(jf.Axis("rate", rates)), slots=4, **how)
    for i, rate in enumerate(rates):
        fit = jf.fit(loss, start, data, optimizer=jf.optimizers.sgd(rate), **how)
        own = grid.results.isel(rate=i)
        assert own.status == fit.status and abs(int(own.steps) - fit.steps) <= (2 if precision == "float32" else 0)
        if fit.status != jf.Status.DIVERGED:
            np.testing.assert_allclose(own.loss, fit.loss, rtol=1e-4 if precision == "float32" else 1e-12)


def test_a_failure_in_a_worker_is_raised_where_sweep_was_called():
    def broken(event, times):
        if event == "block":
            raise RuntimeError("broken")

    with counting(broken), pytest.raises(RuntimeError, match="broken"):
        run(RATES, SEEDS, RULES["a rule"])


def test_between_start_and_end_a_sweep_on_batches_computes_no_loss_of_all_the_data():
    rows_seen: list[int] = []
    x = np.linspace(0, 1, 40, dtype=np.float32)

    def loss(w, x, y):
        jax.debug.callback(lambda rows: rows_seen.append(int(rows)), jnp.int32(len(x)))
        return jnp.mean((w * x - y) ** 2)

    rates = jf.Axis("rate", [0.1, 12.0, 0.2, 1e4])  # the second and the last diverge in the first stretch of steps
    with using(workers=1, chunk=64):
        grid = jf.sweep(
            loss, 0.0, (x, 2 * x), optimizer=jf.optimizers.sgd(rates), steps=600, batches=jf.Batches(4), key=0,
            validation=(x[:3], 2 * x[:3] + 1), slots=4,
        )  # fmt: skip
        jax.effects_barrier()
    assert rows_seen.count(40) == 3  # the start, the stretch that is run again to find the failures, and the end
    assert rows_seen.count(3) == 2  # of the validation data
    assert grid.results.status.values.tolist() == [2, 3, 2, 3]
    errors = grid.results.params.values.astype(float)[:, None] * x - 2 * x
    np.testing.assert_allclose(grid.results.loss[::2], np.mean(errors[::2] ** 2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(grid.results.validation_loss, np.mean((errors[:, :3] - 1) ** 2, axis=1), rtol=1e-5)
    assert np.isinf(grid.results.loss[1::2]).all()


@pytest.mark.soak
def test_two_pools_at_once_end_where_each_step_calls_lapack():
    """For nine params a step is of LAPACK, which some versions of jaxlib run on threads that wait for each other."""
    x = np.linspace(0, 3, 20)
    y = np.random.default_rng(0).normal(size=(32, 20))
    loss = jf.losses.rss(lambda p, x: jnp.cos(jnp.outer(x, jnp.arange(9.0))) @ p)
    grids = []

    def sweep():
        with using(workers=2):
            axis, method = jf.Axis("set", y), jf.optimizers.levenberg_marquardt()
            grids.append(jf.sweep(loss, np.zeros(9), (x, axis), optimizer=method, steps=50))

    thread = threading.Thread(target=sweep, daemon=True)  # so that one that waits for ever fails
    thread.start()
    thread.join(120)
    assert grids and (grids[0].results.status == jf.Status.CONVERGED).all()
    expected = np.linalg.lstsq(np.cos(np.outer(x, np.arange(9))), y.T, rcond=None)[0]
    np.testing.assert_allclose(grids[0].results["params"], expected.T, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("lanes", [1, 7, 8, 100, 1_000, 8_192, 20_000, 100_000])
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_no_share_of_the_blocks_is_longer_than_another_by_more_than_the_slots_of_its_blocks(lanes, shares):
    shape = PoolShape(slots=8, lanes=8_192, records=0)
    length = block_length(shape, lanes, shares)
    of_a_share = -(-lanes // (shares * shape.lanes))
    assert length % shape.slots == 0 and 0 < length <= shape.lanes
    assert of_a_share * length < lanes / shares + of_a_share * (shape.slots + 1)
    assert of_a_share * length * shares >= lanes


def test_a_block_has_the_values_of_its_lanes_whichever_they_are():
    """Those that a rung leaves may lie apart, with places on an axis that begin and end as those of neighbors do."""
    random, values = np.random.default_rng(0), np.arange(4.0)
    plan = sweeps.plan_sweep(
        lambda p, x: jnp.sum((p - x) ** 2), jf.Axis("start", values), (jf.Axis("set", 10 * values),),
        optimizer=jf.optimizers.sgd(0.1),
    )  # fmt: skip
    part = plan.parts[0].in_pool(PoolShape(8, 16, 0))
    some = [np.array([0, 2, 5, 7]), *(np.flatnonzero(random.random(16) < share) for share in random.random(40))]
    for members in [np.arange(16), *(x for x in some if len(x))]:
        columns = part.columns(members)
        filled = np.append(members, np.full(16 - len(members), members[-1]))
        places = part.along(filled)
        numbers = sorted(np.ravel(jax.tree.leaves(columns[key])[0]).tolist() for key in columns)
        expected = sorted([filled.tolist(), values[places["start"]].tolist(), (10 * values)[places["set"]].tolist()])
        assert numbers == expected
