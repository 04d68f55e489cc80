import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.schedules import NAMES
from tests.shared.problems import PROBLEMS
from tests.shared.soak import soaking

CASE = PROBLEMS["line"]
T = np.arange(0, 61, 5)

TABLE = {  # the schedule, its formula, and the schedule of Optax that is the same
    "constant": (jf.schedules.constant(0.02), lambda t: 0.02, optax.constant_schedule(0.02)),
    "exponential": (
        jf.schedules.exponential(0.02, 0.8, every=7),
        lambda t: 0.02 * 0.8 ** (t / 7),
        optax.exponential_decay(0.02, 7, 0.8),
    ),
    "stepwise": (
        jf.schedules.stepwise(0.02, 0.5, 20),
        lambda t: 0.02 * 0.5 ** (t // 20),
        optax.exponential_decay(0.02, 20, 0.5, staircase=True),
    ),
    "inverse_time": (jf.schedules.inverse_time(0.02, 15), lambda t: 0.02 / (1 + t / 15), None),
    "polynomial": (
        jf.schedules.polynomial(0.02, 40, power=2, final=0.001),
        lambda t: 0.001 + 0.019 * (1 - min(t / 40, 1)) ** 2,
        optax.polynomial_schedule(0.02, 0.001, 2, 40),
    ),
    "cosine": (
        jf.schedules.cosine(0.02, 40, final=0.001),
        lambda t: 0.001 + 0.019 * (1 + np.cos(np.pi * min(t, 40) / 40)) / 2,
        optax.cosine_decay_schedule(0.02, 40, 0.05),
    ),
    "warmup_cosine": (
        jf.schedules.warmup_cosine(0.02, 10, 50, final=0.001),
        lambda t: 0.002 * t if t < 10 else 0.001 + 0.019 * (1 + np.cos(np.pi * min(t - 10, 40) / 40)) / 2,
        optax.warmup_cosine_decay_schedule(0.0, 0.02, 10, 50, 0.001),
    ),
    "milestones": (
        jf.schedules.milestones(0.02, 0.5, at=(10, 31)),
        lambda t: 0.02 * 0.5 ** ((t >= 10) + (t >= 31)),
        optax.piecewise_constant_schedule(0.02, {10: 0.5, 31: 0.5}),
    ),
    "cosine_restarts": (
        jf.schedules.cosine_restarts(0.02, 5, longer=2, factor=0.5, final=0.001),
        lambda t: restarted(t, 5, 2, 0.5),
        None,
    ),
    "one_cycle": (jf.schedules.one_cycle(0.02, 50), lambda t: cycled(t, 50), None),
    "warmup": (
        jf.schedules.warmup(jf.schedules.exponential(0.02, 0.8, every=7), 20, start=0.25),
        lambda t: 0.02 * 0.8 ** (t / 7) * min(1, 0.25 + 0.75 * t / 20),
        None,
    ),
}


def restarted(t, length, longer, factor):
    """One cycle after the other."""
    top = 0.02
    while t >= length:
        t, length, top = t - length, length * longer, top * factor
    return 0.001 + (top - 0.001) * (1 + np.cos(np.pi * t / length)) / 2


def cycled(t, steps):
    def between(start, end, part):
        return end + (start - end) / 2 * (1 + np.cos(np.pi * min(part, 1)))

    top = 0.3 * steps - 1
    if t <= top:
        return between(0.02 / 25, 0.02, t / top)
    return between(0.02, 0.02 / 25 / 1e4, (t - top) / (steps - 1 - top))


def test_the_table_has_every_schedule():
    assert set(TABLE) == set(NAMES)


@pytest.mark.parametrize("name", TABLE)
def test_a_schedule_is_its_formula_and_that_of_optax(name):
    schedule, formula, theirs = TABLE[name]
    found = [float(schedule()(jnp.int32(t))) for t in T]
    np.testing.assert_allclose(found, [formula(int(t)) for t in T], rtol=2e-6)
    if theirs is not None:
        np.testing.assert_allclose(found, [float(theirs(jnp.int32(t))) for t in T], rtol=2e-6)


@pytest.mark.parametrize("name", soaking(TABLE, keep=("warmup_cosine",)))
def test_a_fit_takes_the_rate_of_each_step_from_its_schedule(name):
    schedule, formula, _ = TABLE[name]
    record = jf.Record(what=("params", "gradient"))
    history = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=jf.optimizers.sgd(schedule), steps=60, record=record)
    w, slope = (np.asarray(part["w"], float) for part in (history.history.params, history.history.gradient))
    expected = np.array([formula(t) for t in range(60)]) * slope[:-1]
    np.testing.assert_allclose(w[:-1] - w[1:], expected, atol=4 * np.finfo(np.float32).eps * np.abs(w).max())


def test_the_numbers_of_a_schedule_are_swept_in_one_program(traces):
    loss = traces(lambda p, x, y: CASE.loss(p, x, y))

    def optimizer(rate, factor):
        return jf.optimizers.sgd(jf.schedules.exponential(rate, factor, every=10))

    axes = jf.Axis("rate", [0.01, 0.02]), jf.Axis("factor", [0.5, 0.9, 1.0])
    grid = jf.sweep(loss, CASE.start, CASE.data, optimizer=optimizer(*axes), steps=40)
    seen = loss.count
    jf.sweep(loss, CASE.start, CASE.data, optimizer=optimizer(jf.Axis("rate", [0.03, 0.04]), axes[1]), steps=40)
    assert loss.count == seen
    assert dict(grid.results.loss.sizes) == {"rate": 2, "factor": 3}
    alone = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=optimizer(0.02, 0.9), steps=40)
    np.testing.assert_allclose(grid.results.loss.sel(rate=0.02, factor=0.9), alone.loss, rtol=1e-5)


def test_an_axis_of_whole_numbers_is_swept_as_numbers():
    every = jf.Axis("every", [5, 10, 20])
    optimizer = jf.optimizers.sgd(jf.schedules.stepwise(0.02, 0.1, every))
    grid = jf.sweep(CASE.loss, CASE.start, CASE.data, optimizer=optimizer, steps=40)
    assert (np.diff(grid.results.loss) < 0).all()  # the later the rate falls, the farther it comes


@pytest.mark.soak
def test_schedules_of_different_kinds_stand_on_one_axis():
    kinds = jf.Axis("kind", [TABLE[name][0] for name in ("constant", "cosine")], labels=["constant", "cosine"])
    grid = jf.sweep(CASE.loss, CASE.start, CASE.data, optimizer=jf.optimizers.sgd(kinds), steps=60)
    for kind in ("constant", "cosine"):
        fit = jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=jf.optimizers.sgd(TABLE[kind][0]), steps=60)
        np.testing.assert_allclose(grid.results.loss.sel(kind=kind), fit.loss, rtol=1e-5)


def test_a_schedule_prints_as_it_is_written():
    schedule = jf.schedules.inverse_time(0.1, 20)
    assert repr(jf.optimizers.sgd(schedule)) == "sgd(learning_rate=inverse_time(rate=0.1, half=20.0))"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jf.schedules.constant(-0.1), ValueError, "constant: rate is -0.1, but it must be a positive"),
        (lambda: jf.schedules.exponential(0.1, 0.0), ValueError, "exponential: factor is 0.0"),
        (lambda: jf.schedules.stepwise(0.1, 0.5, 0), ValueError, "stepwise: every is 0"),
        (lambda: jf.schedules.inverse_time(np.inf, 3), ValueError, "inverse_time: rate is inf"),
        (lambda: jf.schedules.cosine("0.1", 100), TypeError, "cosine: rate is '0.1'"),
        (lambda: jf.schedules.cosine(0.1, [100]), TypeError, r"cosine: steps is \[100\]"),
        (lambda: jf.schedules.cosine(0.1, 100, final=-1), ValueError, "cosine: final is -1, .* zero or more"),
        (lambda: jf.schedules.polynomial(0.1, 100, power=0), ValueError, "polynomial: power is 0"),
        (lambda: jf.schedules.warmup_cosine(0.1, 100, 100), ValueError, "warmup is 100 of 100 steps"),
        (lambda: jf.schedules.constant(jf.Axis("rate", [0.1, -1.0])), ValueError, r"-1.0 \(value 1 of axis 'rate'\)"),
        (lambda: jf.schedules.cosine(0.1, stepz=3), TypeError, "did you mean steps"),
        (lambda: jf.schedules.exponental, AttributeError, "did you mean exponential"),
    ],
)
def test_a_bad_number_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_schedule_is_no_optimizer():
    with pytest.raises(TypeError, match=r"optimizer is cosine\(.*a schedule is a learning rate"):
        jf.fit(CASE.loss, CASE.start, CASE.data, optimizer=jf.schedules.cosine(0.1, 10), steps=1)


@pytest.mark.parametrize("longer", [1.0, 1.5, 2.0, 3.0])
def test_cosine_restarts_begin_where_the_cycles_before_end(longer):
    rate, starts, length = jf.schedules.cosine_restarts(0.5, 10, longer=longer)(), [0.0], 10.0
    for _ in range(5):
        starts.append(starts[-1] + length)
        length *= longer
    np.testing.assert_allclose([rate(jnp.float32(t)) for t in starts], 0.5, rtol=1e-3)
    whole = [int(np.ceil(t)) for t in starts[1:]]
    assert all(float(rate(jnp.int32(t))) > float(rate(jnp.int32(t - 2))) for t in whole)


def test_milestones_in_disorder_are_refused():
    for at in ((), (20, 10), (10, 10), (1.5,), "ab"):
        with pytest.raises(
            ValueError, match=r"milestones: at is .* whole numbers of steps in order, such as \(10, 20\)"
        ):
            jf.schedules.milestones(0.1, 0.5, at=at)


@pytest.mark.soak
def test_the_numbers_of_a_warmed_schedule_are_axes_too():
    axis = jf.Axis("every", [5.0, 10.0])
    rate = jf.schedules.warmup(jf.schedules.stepwise(0.1, 0.5, axis), 4)
    grid = jf.sweep(lambda p: p**2, 1.0, optimizer=jf.optimizers.sgd(rate), steps=12)
    for every in (5.0, 10.0):
        p = 1.0
        for t in range(12):
            p -= 2 * p * 0.1 * 0.5 ** (t // every) * min(t / 4, 1)
        np.testing.assert_allclose(grid.results.params.sel(every=every), p, rtol=1e-5)
