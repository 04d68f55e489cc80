"""A rule on the change of the params, where an update is skipped; and hyperparameters that are schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

O = jf.optimizers  # noqa: E741
STOP = jf.Stop(params_change_below=1e-4)


def bowl(p):
    return jnp.sum(jnp.array([1.0, 3.0]) * (p - 1) ** 2)


def late(t):
    return jnp.where(t < 7, 0.0, 0.1)


SKIPPING = {  # which make no step at first, or in between
    "MultiSteps": lambda: optax.MultiSteps(optax.sgd(0.1), 4),
    "accumulated": lambda: O.accumulated(O.sgd(0.1), 5),
    "warm-up": lambda: O.sgd(jf.schedules.warmup_cosine(0.1, 5, 500)),
    "late": lambda: O.adam(late, b1=0.5),  # with more momentum both params turn at once, and neither moves
    "apply_every": lambda: optax.chain(optax.apply_every(3), optax.sgd(0.05)),
    "Optax's Rprop": lambda: optax.rprop(0.1),
    "Rprop": lambda: O.rprop(0.1),
    "one part": lambda: O.each(a=O.sgd(0.1), b=O.accumulated(O.sgd(0.1), 6)),
    "random search": lambda: jf.searches.random_search(0.3, key=1),
}


@pytest.mark.parametrize("name", soaking(SKIPPING, keep=("MultiSteps", "one part")))
def test_a_skipped_update_is_no_small_change(name):
    start, loss = (np.array([4.0, -2.0]), bowl)
    if name == "one part":  # a starts at its minimum
        start, loss = {"a": 1.0, "b": 4.0}, lambda p: (p["a"] - 1) ** 2 + (p["b"] - 1) ** 2
    fit = jf.fit(loss, start, optimizer=SKIPPING[name](), steps=600, stop=STOP)
    if name == "random search":  # whose guesses are refused more and more often, and which never knows
        assert fit.steps > 30 and fit.loss < 0.1
        return
    assert fit.status == jf.Status.CONVERGED
    for leaf in jax.tree.leaves(fit.params):
        np.testing.assert_allclose(leaf, 1, atol=2e-3)


@pytest.mark.soak
def test_lanes_that_accumulate_stop_where_they_would_alone():
    rates = np.array([0.02, 0.1, 0.2], np.float32)
    optimizer = O.accumulated(O.sgd(jf.Axis("rate", rates)), 3)
    grid = jf.sweep(bowl, np.array([4.0, -2.0]), optimizer=optimizer, steps=2000, stop=STOP)
    for rate, steps, loss in zip(rates, grid.results.steps.values, grid.results.loss.values, strict=True):
        plain = jf.fit(bowl, np.array([4.0, -2.0]), optimizer=O.sgd(rate), steps=2000, stop=STOP)
        assert (steps, loss) == pytest.approx((3 * plain.steps, plain.loss), rel=1e-3)


def test_a_gradient_of_zero_is_a_change_of_zero():
    fit = jf.fit(bowl, np.ones(2), optimizer=O.momentum(0.1), steps=50, stop=STOP)
    assert fit.status == jf.Status.CONVERGED and fit.steps == 1


def test_an_update_lost_in_the_params_digits_is_a_change_of_zero():
    fit = jf.fit(lambda p: 1e-6 * p, 1e6, optimizer=O.sgd(0.1), steps=50, stop=STOP)
    assert fit.status == jf.Status.CONVERGED and fit.steps == 1


@pytest.mark.parametrize("given", soaking(["as it is", "as a factory", "accumulated"], keep=("accumulated",)))
def test_gradients_accumulate_in_the_precision_of_the_run(given):
    x, y = np.linspace(0, 1, 12), np.linspace(1, 3, 12) ** 2
    ready = {"accumulator_dtype": "float64"}
    with jax.enable_x64(True):
        optimizer = {
            "as it is": lambda: optax.MultiSteps(optax.sgd(0.1), 2, **ready),
            "as a factory": lambda: jf.optimizer(optax.MultiSteps, opt=O.sgd(0.1), every_k_schedule=2, **ready),
            "accumulated": lambda: O.accumulated(O.sgd(0.1), 2),
        }[given]()
    loss, start = jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.3}
    found = jf.fit(loss, start, (x, y), optimizer=optimizer, steps=20, precision="float64")
    plain = jf.fit(loss, start, (x, y), optimizer=O.sgd(0.1), steps=10, precision="float64")
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


SCHEDULED = {  # an optimizer with a hyperparameter of each step, and the same with numbers, made anew at each step
    "momentum": (lambda s: O.momentum(0.1, s), lambda v: optax.sgd(0.1, momentum=v)),
    "nesterov": (lambda s: O.nesterov(0.1, s), lambda v: optax.sgd(0.1, momentum=v, nesterov=True)),
    "adam b1": (lambda s: O.adam(0.1, b1=s), lambda v: optax.adam(0.1, b1=v)),
    "adam eps": (lambda s: O.adam(0.1, eps=s), lambda v: optax.adam(0.1, eps=v)),
    "rmsprop decay": (lambda s: O.rmsprop(0.1, decay=s), lambda v: optax.rmsprop(0.1, decay=v)),
    "adamw weight_decay": (lambda s: O.adamw(0.1, weight_decay=s), lambda v: optax.adamw(0.1, weight_decay=v)),
    "a factory": (
        lambda s: jf.optimizer(optax.adabelief, learning_rate=0.1, b2=s), lambda v: optax.adabelief(0.1, b2=v),
    ),
    "a rate that is a number": (lambda s: jf.optimizer(optax.fromage, learning_rate=s), optax.fromage),
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(SCHEDULED, keep=("adam b1",)))
def test_a_hyperparameter_may_be_a_schedule(name):
    mine, theirs = SCHEDULED[name]
    start = np.array([4.0, -2.0], np.float32)
    fit = jf.fit(bowl, start, optimizer=mine(jf.schedules.cosine(0.9, 10)), steps=12)
    params, state = jnp.asarray(start), theirs(0.9).init(start)

    @jax.jit
    def step(now, params, state):
        updates, state = theirs(now).update(jax.grad(bowl)(params), state, params)
        return optax.apply_updates(params, updates), state

    for t in range(12):
        params, state = step(0.9 * (1 + np.cos(np.pi * min(t / 10, 1))) / 2, params, state)
    np.testing.assert_allclose(fit.params, params, rtol=2e-5, atol=2e-6)


@pytest.mark.soak
def test_the_numbers_of_a_scheduled_momentum_are_swept():
    first = jf.Axis("first", [0.3, 0.9])
    optimizer = O.momentum(0.1, jf.schedules.exponential(first, 0.9))
    grid = jf.sweep(bowl, np.array([4.0, -2.0]), optimizer=optimizer, steps=9)
    for beta in (0.3, 0.9):
        alone = O.momentum(0.1, jf.schedules.exponential(beta, 0.9))
        fit = jf.fit(bowl, np.array([4.0, -2.0]), optimizer=alone, steps=9)
        np.testing.assert_allclose(grid.results.loss.sel(first=beta), fit.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: O.rprop(jf.schedules.constant(0.1)), TypeError, r"rprop: learning_rate .*takes no schedule.*0\.1"),
        (lambda: jf.optimizer(optax.rprop, learning_rate=late), TypeError, "rprop: learning_rate .*takes no schedule"),
        (lambda: jf.optimizer(optax.lbfgs, memory_size=late), TypeError, "memory_size .*takes no schedule"),
        (lambda: O.levenberg_marquardt(damping=jf.schedules.constant(0.1)), TypeError, "damping .*takes no schedule"),
        (lambda: O.accumulated(O.lbfgs(), 2), TypeError, "accumulated: lbfgs moves the params in its own way"),
        (lambda: O.each(w=O.levenberg_marquardt()), TypeError, "each: levenberg_marquardt moves"),
        (lambda: jf.fit(bowl, np.ones(2), optimizer=O.momentum(0.1, lambda t: 1.0 + t), steps=3), ValueError,
         r"at step 0: momentum is 1\.0, but it must be a number in \[0, 1\)"),
        (lambda: jf.fit(bowl, np.ones(2), optimizer=optax.MultiSteps, steps=3), TypeError, "write jf.optimizer"),
    ],
)  # fmt: skip
def test_what_takes_no_schedule_says_so(call, error, words):
    with pytest.raises(error, match=words):
        call()
