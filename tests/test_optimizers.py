import functools

import jax
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.optimizers import JUDGES, NAMES
from tests.problems import METHODS, PROBLEMS, plain_loop


def test_the_table_of_methods_has_every_named_optimizer():
    assert set(METHODS) | set(JUDGES) == set(NAMES)


@pytest.mark.parametrize("name", METHODS)
def test_a_named_optimizer_does_what_optax_does_step_by_step(name):
    mine, theirs = METHODS[name]
    case = PROBLEMS["rosenbrock"]
    params, losses = plain_loop(case.loss, case.start, case.data, theirs(case.rate), 60)
    fit = jf.fit(case.loss, case.start, case.data, optimizer=mine(case.rate), steps=60)
    np.testing.assert_allclose(fit.history.loss, losses, rtol=2e-4, atol=1e-7)
    for a, b in zip(jax.tree.leaves(fit.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_one_step_has_the_bits_of_the_plain_optimizer(name):
    mine, theirs = METHODS[name]
    case = PROBLEMS["line"]
    lazy = jf.step(case.loss, case.start, case.data, optimizer=mine(case.rate))
    ready = jf.step(case.loss, case.start, case.data, optimizer=theirs(case.rate))
    for a, b in zip(jax.tree.leaves(lazy.params), jax.tree.leaves(ready.params), strict=True):
        assert np.array_equal(a, b)


def test_floats_are_leaves_and_everything_else_is_structure():
    leaves, structure = jax.tree.flatten(jf.optimizer(optax.sgd, learning_rate=0.1, momentum=0.9, nesterov=True))
    assert leaves == [0.1, 0.9]
    same = jax.tree.structure(jf.optimizer(optax.sgd, learning_rate=0.5, momentum=0.1, nesterov=True))
    other = jax.tree.structure(jf.optimizer(optax.sgd, learning_rate=0.5, momentum=0.1, nesterov=False))
    assert structure == same and hash(structure) == hash(same) and structure != other


def test_a_schedule_made_of_traced_numbers_sweeps_and_does_not_recompile(traces):
    case = PROBLEMS["line"]
    loss = traces(lambda p, x, y: case.loss(p, x, y))

    def decaying(initial):
        schedule = jf.optimizer(tenth_less, init_value=initial)
        return jf.optimizer(optax.sgd, learning_rate=schedule)

    first = jf.fit(loss, case.start, case.data, optimizer=decaying(1e-2), steps=50)
    seen = loss.count
    second = jf.fit(loss, case.start, case.data, optimizer=decaying(2e-2), steps=50)
    assert loss.count == seen
    ready = optax.sgd(optax.exponential_decay(2e-2, 10, 0.9))
    _, losses = plain_loop(case.loss, case.start, case.data, ready, 50)
    np.testing.assert_allclose(second.history.loss, losses, rtol=1e-4)
    assert first.loss != second.loss


tenth_less = functools.partial(optax.exponential_decay, transition_steps=10, decay_rate=0.9)


def test_a_factory_of_ones_own_is_an_optimizer():
    def clipped(rate, most):
        return optax.chain(optax.clip_by_global_norm(most), optax.sgd(rate))

    case = PROBLEMS["line"]
    fit = jf.fit(case.loss, case.start, case.data, optimizer=jf.optimizer(clipped, rate=0.01, most=1.0), steps=30)
    _, losses = plain_loop(case.loss, case.start, case.data, clipped(0.01, 1.0), 30)
    np.testing.assert_allclose(fit.history.loss, losses, rtol=1e-4)


def test_the_printed_form_can_be_read():
    assert repr(jf.optimizers.momentum(0.1, 0.9)) == "sgd(learning_rate=0.1, momentum=0.9)"
