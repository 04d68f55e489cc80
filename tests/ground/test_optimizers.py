import functools

import jax
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.optimizers.building import JUDGES, NAMES
from tests.shared.problems import METHODS, PROBLEMS, plain_loop
from tests.shared.soak import soaking


def test_the_table_of_methods_has_every_named_optimizer():
    assert set(METHODS) | set(JUDGES) == set(NAMES)


@pytest.mark.parametrize("name", soaking(METHODS, keep=("adam", "rprop", "lion")))
def test_a_named_optimizer_does_what_optax_does_step_by_step(name):
    mine, theirs = METHODS[name]
    case = PROBLEMS["rosenbrock"]
    params, losses = plain_loop(case.loss, case.start, case.data, theirs(case.rate), 60)
    fit = jf.fit(case.loss, case.start, case.data, optimizer=mine(case.rate), steps=60)
    np.testing.assert_allclose(fit.history.loss, losses, rtol=2e-4, atol=1e-7)
    for a, b in zip(jax.tree.leaves(fit.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", soaking(["sgd", "momentum", "adam"], keep=("adam",)))
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


def test_each_entry_of_the_params_may_have_an_optimizer_of_its_own():
    case, rates = PROBLEMS["line"], {"w": 3e-3, "b": 5e-2}
    optimizer = jf.optimizers.each(**{name: jf.optimizers.sgd(rate) for name, rate in rates.items()})
    fit = jf.fit(case.loss, case.start, case.data, optimizer=optimizer, steps=20)
    params = case.start
    for _ in range(20):
        grads = jax.grad(case.loss)(params, *case.data)
        params = {name: params[name] - rate * grads[name] for name, rate in rates.items()}
    for name in rates:
        np.testing.assert_allclose(fit.params[name], params[name], rtol=1e-5)
    assert repr(optimizer) == "each(w=sgd(learning_rate=0.003), b=sgd(learning_rate=0.05))"


def test_the_rates_of_the_entries_are_leaves():
    case = PROBLEMS["line"]
    rate = jf.Axis("rate", np.array([1e-3, 3e-3]))
    optimizer = jf.optimizers.each(w=jf.optimizers.sgd(rate), b=jf.optimizers.adam(0.1))
    grid = jf.sweep(case.loss, case.start, case.data, optimizer=optimizer, steps=5)
    alone = jf.optimizers.each(w=jf.optimizers.sgd(3e-3), b=jf.optimizers.adam(0.1))
    fit = jf.fit(case.loss, case.start, case.data, optimizer=alone, steps=5)
    np.testing.assert_allclose(grid.results.loss.values[1], fit.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "given"),
    [({"w": 1.0, "b": 0.0}, ("w",)), ({"w": 1.0}, ("w", "b")), ((1.0, 0.0), ("w", "b"))],
)
def test_params_without_their_optimizers_are_an_error(params, given):
    optimizer = jf.optimizers.each(**dict.fromkeys(given, jf.optimizers.sgd(0.1)))
    with pytest.raises(ValueError, match=r"each: params are .*, but there are optimizers for (w|b, w|w, b);"):
        jf.fit(lambda p: sum(x**2 for x in jax.tree.leaves(p)), params, optimizer=optimizer)


def test_accumulated_gradients_of_equal_batches_are_the_gradient_of_all_rows():
    case = PROBLEMS["line"]
    x, y = (np.asarray(array)[:6] for array in case.data)
    optimizer = jf.optimizers.accumulated(jf.optimizers.momentum(0.01), every=3)
    params, opt_state = case.start, None
    whole = jf.fit(case.loss, case.start, (x, y), optimizer=jf.optimizers.momentum(0.01), steps=4)
    for turn in range(4):
        for part in range(3):
            before, rows = params, slice(2 * part, 2 * part + 2)
            params, _, _ = found = jf.step(
                case.loss, params, (x[rows], y[rows]), optimizer=optimizer, opt_state=opt_state
            )
            opt_state = found.opt_state
            assert (params == before) == (part < 2), (turn, part)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 0, 2.0, True, "3"])
def test_a_number_of_gradients_that_is_none_is_an_error(every):
    with pytest.raises(ValueError, match=r"accumulated: every is .*two or more"):
        jf.optimizers.accumulated(jf.optimizers.sgd(0.1), every)


def test_optimizers_made_of_others_refuse_what_is_none():
    with pytest.raises(ValueError, match="no optimizer is given"):
        jf.optimizers.each()
    with pytest.raises(TypeError, match="jf.optimizers.adam"):
        jf.optimizers.each(w="adam")
    with pytest.raises(TypeError, match="jf.optimizers.adam"):
        jf.optimizers.accumulated("adam", 2)


ADVERSARY = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
ASKING = {  # by what a loop tells their update beside the gradient
    "sam": (lambda: optax.contrib.sam(optax.sgd(0.01), ADVERSARY, opaque_mode=True), "grad_fn"),
    "sam in two steps": (lambda: optax.contrib.sam(optax.sgd(0.01), ADVERSARY), None),
    "sophia": (lambda: optax.contrib.sophia(0.01), "obj_fn"),
}


@pytest.mark.parametrize("name", soaking(ASKING, keep=("sam",)))
def test_an_optimizer_that_asks_for_the_loss_or_its_gradient_gets_it(name):
    make, asks = ASKING[name]
    case, rule = PROBLEMS["line"], make()
    given = [jax.numpy.asarray(x, np.float32) for x in case.data]
    told = {"grad_fn": lambda p, _: jax.grad(case.loss)(p, *given), "obj_fn": lambda p: case.loss(p, *given)}
    params = jax.tree.map(np.float32, case.start)
    state, losses = rule.init(params), []
    for _ in range(6):
        value, grads = jax.value_and_grad(case.loss)(params, *given)
        losses.append(value)
        updates, state = rule.update(grads, state, params, **{asks: told[asks]} if asks else {})
        params = optax.apply_updates(params, updates)
    run = jf.fit(case.loss, case.start, case.data, optimizer=rule, steps=6)
    np.testing.assert_allclose(run.history.loss[:6], losses, rtol=1e-5)


def test_a_missing_optimizer_among_hyperparameters_is_asked_for_as_such():
    with pytest.raises(TypeError, match=r"write base_optimizer=optax\.sgd\(0\.1\)"):
        jf.optimizer(optax.contrib.mechanize)
