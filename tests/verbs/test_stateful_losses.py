"""Losses that change a state (batch statistics, counters, dropout), against loops by hand and of Flax and Equinox."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import Case, check, follows

RNG = np.random.default_rng(7)
X = RNG.normal(2, 3, (24, 3)).astype(np.float32)
Y = np.sin(X[:, 0])
HELD = X[:6], Y[:6]


def made(key):
    drawn = jax.random.uniform(key, (4, 4), minval=-1.0)
    stats = {"mean": jnp.zeros(4), "var": jnp.ones(4), "seen": 0}
    return {"w": drawn[:3], "v": drawn[3] / 4, "stats": jf.Carried(stats)}


def net(params, x, mean, var):
    return jnp.tanh((x @ params["w"] - mean[None, :]) / jnp.sqrt(var + 1e-3)[None, :]) @ params["v"]


def trained(params, x, y, key):
    """A loss with batch statistics and noise."""
    old, hidden = params["stats"], x @ params["w"]
    mean, var = hidden.mean(0), hidden.var(0)
    stats = {
        "mean": 0.9 * old["mean"] + 0.1 * mean,
        "var": 0.9 * old["var"] + 0.1 * var,
        "seen": old["seen"] + 1,
    }
    noise = 0.01 * jax.random.uniform(jax.random.fold_in(key, old["seen"]))
    return jnp.mean((net(params, x, mean, var) - y + noise) ** 2), params | {"stats": stats}


@jax.jit
def evaluated(params, x, y):
    return jnp.mean((net(params, x, params["stats"]["mean"], params["stats"]["var"]) - y) ** 2)


LOSS, START, ADAM = jf.losses.stateful(trained, evaluated), made(jax.random.key(0)), jf.optimizers.adam(0.02)
SETTINGS = {"optimizer": ADAM, "steps": 12, "key": 5}


def by_hand(optimizer, steps, batch=lambda t: (X, Y)):
    """Return params, state and losses of a loop in JAX and Optax, with the state as auxiliary output."""
    weights, state = {name: START[name] for name in "wv"}, START["stats"].value
    memory, losses = optimizer.init(weights), []

    @jax.jit
    def step(weights, state, memory, t, data):
        def loss(weights):
            value, after = trained(weights | {"stats": state}, *data, jax.random.fold_in(jax.random.key(5), t))
            return value, after["stats"]

        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, memory = optimizer.update(grads, memory, weights)
        return optax.apply_updates(weights, updates), state, memory, value

    for t in range(steps):
        weights, state, memory, value = step(weights, state, memory, t, batch(t))
        losses.append(value)
    return weights, state, np.array(losses)


@pytest.fixture(scope="module")
def run():
    return jf.fit(LOSS, START, (X, Y), validation=HELD, **SETTINGS)


def test_a_fit_is_the_loop_by_hand_and_evaluates_with_the_state_of_its_end(run):
    weights, state, losses = by_hand(optax.adam(0.02), 12)
    np.testing.assert_allclose(run.history.loss[:12], losses, rtol=1e-5)  # 12 steps in float32
    for name in "wv":
        np.testing.assert_allclose(run.params[name], weights[name], rtol=1e-5, atol=1e-6)
    for name in state:
        np.testing.assert_allclose(run.params["stats"][name], state[name], rtol=1e-5, atol=1e-6)
    assert run.params["stats"]["seen"] == 12 and run.params["stats"]["seen"].dtype == np.int32
    np.testing.assert_allclose(run.loss, evaluated(run.params, X, Y), rtol=1e-6)
    np.testing.assert_allclose(run.validation_loss, evaluated(run.params, *HELD), rtol=1e-6)
    assert abs(run.loss - run.history.loss[-1]) > 0.01 and run.history.loss[0] == run.start_loss


def swept(**keywords):
    start = jf.Call(made, key=jf.Axis("seed", [0, 1]))
    return jf.sweep(LOSS, start, (X, Y), optimizer=ADAM, key=5, **keywords)


def test_lanes_of_a_sweep_carry_a_state_each(run):
    grid = swept(steps=12)
    lane = jf.lane(grid, seed=0)
    np.testing.assert_allclose(lane.loss, run.loss, rtol=1e-5)
    np.testing.assert_allclose(lane.params["stats"]["var"], run.params["stats"]["var"], rtol=1e-5)
    assert lane.params["stats"]["seen"] == 12 and grid.results["params.stats.mean"].shape == (2, 4)
    assert jf.best(grid).params["stats"]["seen"] == 12


@pytest.mark.soak
def test_lanes_go_on_from_a_store_with_their_states(tmp_path):
    swept(steps=5, store=tmp_path)
    longer, whole = swept(steps=12, store=tmp_path), swept(steps=12)
    np.testing.assert_array_equal(longer.results.loss, whole.results.loss)
    assert jf.lane(longer, seed=0).params["stats"]["seen"] == 12


def test_a_run_goes_on_and_is_read_back_with_its_state_to_the_bit(run, tmp_path):
    for checkpoint in (None, tmp_path / "run"):
        part = jf.fit(LOSS, START, (X, Y), validation=HELD, checkpoint=checkpoint, **SETTINGS | {"steps": 5})
        if checkpoint is None:
            longer = jf.resume(part, 12)
        else:
            longer = jf.fit(LOSS, START, (X, Y), validation=HELD, checkpoint=checkpoint, **SETTINGS)
        assert longer.loss == run.loss and longer.params["stats"]["seen"] == 12
        np.testing.assert_array_equal(longer.history.loss, run.history.loss)
    jf.save(run, tmp_path / "fit")
    read = jf.load(tmp_path / "fit", loss=LOSS)
    assert read.loss == run.loss and read.params["stats"]["seen"] == 12
    np.testing.assert_array_equal(read.params["stats"]["mean"], run.params["stats"]["mean"])


@pytest.mark.soak
def test_what_looks_at_a_fit_holds_its_state():
    run = jf.fit(LOSS, START, (X, Y), **SETTINGS)
    with jax.enable_x64(True):
        stats = jax.tree.map(lambda x: jnp.asarray(x, float), run.params["stats"])
        flat, back = jax.flatten_util.ravel_pytree({name: jnp.asarray(run.params[name], float) for name in "wv"})
        hessian = jax.hessian(lambda w: evaluated(back(w) | {"stats": stats}, X, Y))(flat)
        expected = np.abs(np.linalg.eigvalsh(hessian)).max()
    assert jf.sharpness(run).value == pytest.approx(expected, rel=1e-3)


@pytest.mark.soak
def test_batches_records_and_patience_carry_a_state():
    record = jf.Record(every=4, what=("loss", "params", "validation_loss"))
    run = jf.fit(
        LOSS, START, (X, Y), validation=HELD, record=record, batches=jf.Batches(8, replace=True), key=5,
        stop=jf.Stop(patience=2), optimizer=jf.optimizers.adam(0.3), steps=100,
    )  # fmt: skip
    assert run.status == jf.Status.STOPPED_EARLY
    seen = run.history.params["stats"]["seen"]
    assert seen.tolist() == run.history.step.tolist() and run.best_params["stats"]["seen"] == run.best_step
    np.testing.assert_allclose(run.best_validation_loss, evaluated(run.best_params, *HELD), rtol=1e-5)
    np.testing.assert_allclose(run.best_validation_loss, run.history.validation_loss.min(), rtol=1e-5)

    def batch(t):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), t), 0)
        rows = jax.random.randint(key, (8,), 0, len(X))
        return X[rows], Y[rows]

    _, _, losses = by_hand(optax.adam(0.3), 9, batch)
    np.testing.assert_allclose(run.history.loss[:3], losses[::4], rtol=1e-3)


@pytest.mark.soak
def test_a_survivor_of_pruning_is_the_lane_of_the_plain_sweep():
    start = jf.Call(made, key=jf.Axis("seed", range(9)))
    plain = jf.sweep(LOSS, start, (X, Y), optimizer=ADAM, steps=40, key=5)
    pruned = jf.sweep(LOSS, start, (X, Y), optimizer=ADAM, steps=40, key=5, prune=jf.Halving(factor=3, first=10))
    best = int(np.argmin(pruned.results.loss.values))
    assert pruned.results.steps[best] == 40 and pruned.results.loss[best] == plain.results.loss[best]
    seen = [int(jf.lane(pruned, seed=i).params["stats"]["seen"]) for i in range(9)]
    assert seen == pruned.results.steps.values.tolist() and set(seen) == {10, 30, 40}


@pytest.mark.soak
def test_entries_that_are_carried_or_fixed_need_no_optimizer_of_their_own():
    by_entry = jf.optimizers.each(w=ADAM, v=ADAM)
    run = jf.fit(LOSS, START, (X, Y), optimizer=by_entry, steps=12, key=5)
    np.testing.assert_allclose(run.loss, jf.fit(LOSS, START, (X, Y), **SETTINGS).loss, rtol=1e-5)
    with pytest.raises(ValueError, match="add sgd"):
        jf.fit(LOSS, START, (X, Y), optimizer=jf.optimizers.each(w=ADAM), steps=12, key=5)


@pytest.mark.soak
def test_steps_by_hand_traced_runs_and_penalties_carry_a_state(run):
    params, losses, memory = START, [], None
    for _ in range(3):
        step = jf.step(LOSS, params, (X, Y), optimizer=ADAM, key=5, opt_state=memory)
        params, losses, memory = step.params, [*losses, step.value], step.opt_state
    assert isinstance(params["stats"], jf.Carried) and params["stats"].value["seen"] == 3
    np.testing.assert_allclose(losses[0], run.history.loss[0], rtol=1e-6)

    def of(rate):
        return jf.fit(LOSS, START, (X, Y), optimizer=jf.optimizers.adam(rate), steps=12, key=5)

    np.testing.assert_allclose(jax.jit(of)(0.02).loss, run.loss, rtol=1e-5)
    slope = jax.grad(lambda rate: of(rate).loss)(0.02)
    assert slope == pytest.approx(float(of(0.0202).loss - of(0.0198).loss) / 0.0004, rel=0.1)
    penalized = jf.fit(LOSS + jf.losses.l2(0.1), START | {"stats": START["stats"]}, (X, Y), **SETTINGS)
    assert penalized.params["stats"]["seen"] == 12


# Refusals, and what they say to write


def no_state(params, x, y, key):
    return trained(params, x, y, key)[0]


BARE = START | {"stats": START["stats"].value}
OTHER = {"key": 5, "steps": 2, "optimizer": ADAM}
WRONG = {
    "a state that nothing is marked as": Case(lambda: jf.fit(LOSS, BARE, (X, Y), **OTHER), TypeError,
        r"stateful\(trained, evaluate=evaluated\) changes a state, but nothing", r"jf\.Carried\(stats\)",
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER)),
    "a loss that tells no state": Case(lambda: jf.fit(no_state, START, (X, Y), **OTHER), TypeError,
        "params hold what is jf.Carried", r"jf\.losses\.stateful\(function\)",
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER)),
    "a function that returns no params": Case(
        lambda: jf.fit(jf.losses.stateful(no_state), START, (X, Y), **OTHER), TypeError,
        "no_state returned a ", "`return loss, params`",
        lambda: jf.fit(jf.losses.stateful(trained), START, (X, Y), **OTHER)),
    "a function that returns its state alone": Case(
        lambda: jf.fit(jf.losses.stateful(lambda p, x, y, key: (p["w"].sum(), p["stats"])), START, (X, Y), **OTHER),
        TypeError, "the params as they are after it, in the same tree", r"return loss, params \| \{'stats': stats\}",
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER)),
    "a state of another shape": Case(
        lambda: jf.fit(jf.losses.stateful(lambda p, x, y: (p["w"].sum(), p | {"stats": jnp.zeros(2)})),
                       START | {"stats": jf.Carried(0.0)}, (X, Y), **OTHER | {"key": None}), TypeError,
        r"what is carried had shape \(\), and has \(2,\) after the step", "in the same tree",
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER)),
    "a method that looks at several params in a step": Case(
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER | {"optimizer": jf.optimizers.lbfgs()}), TypeError,
        "lbfgs asks for the loss at several params in a step", r"jf\.optimizers\.adam",
        lambda: jf.fit(LOSS, START, (X, Y), **OTHER)),
    "two losses that change a state": Case(lambda: jf.fit(LOSS + LOSS, START, (X, Y), **OTHER), TypeError,
        "has 2 terms that change the state", "make one function",
        lambda: jf.fit(LOSS + jf.losses.l2(0.1), START, (X, Y), **OTHER)),
    "a loss with a state returned beside it": Case(lambda: jf.fit(trained, BARE, (X, Y), **OTHER), TypeError,
        "the loss returned a tuple", r"a new state: jf\.losses\.stateful",
        lambda: jf.fit(jf.losses.stateful(trained), START, (X, Y), **OTHER)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_state_that_cannot_be_carried_is_refused_with_what_to_write(name, events):
    check(WRONG[name], events, may_compile=True)


@pytest.mark.soak
@pytest.mark.parametrize("name", WRONG)
def test_the_remedy_of_a_message_about_a_state_works(name):
    assert follows(WRONG[name].mended)


# Nets of other libraries: batch normalization and dropout


def in_nnx():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 8, use_bias=False, rngs=rngs)
            self.norm, self.drop = nnx.BatchNorm(8, momentum=0.9, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)
            self.last = nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(jnp.tanh(self.norm(self.first(x)))))[:, 0]

    def loss(net, x, y):
        net.train()
        return jnp.mean((net(x) - y) ** 2), net

    def later(net, x, y):
        net.eval()
        return jnp.mean((net(x) - y) ** 2)

    def loop(key, steps):
        net = Net(nnx.Rngs(key))
        optimizer, losses = nnx.Optimizer(net, optax.adam(0.02), wrt=nnx.Param), []

        @nnx.jit
        def step(net, optimizer):
            value, grads = nnx.value_and_grad(lambda net: loss(net, X, Y)[0])(net)
            optimizer.update(net, grads)
            return value

        losses = [step(net, optimizer) for _ in range(steps)]
        return losses, later(net, X, Y)

    return loss, later, lambda key: Net(nnx.Rngs(key)), loop


def with_linen():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(8, use_bias=False)(x))
            return nn.Dense(1)(nn.Dropout(0.2, deterministic=not train)(nn.tanh(x)))[:, 0]

    net = Net()

    def loss(variables, x, y, key):
        found, changed = net.apply(variables, x, True, rngs={"dropout": key}, mutable=["batch_stats"])
        return jnp.mean((found - y) ** 2), variables | changed

    def later(variables, x, y):
        return jnp.mean((net.apply(variables, x, False) - y) ** 2)

    def init(key):
        variables = net.init(key, X, False)
        return variables | {"batch_stats": jf.Carried(variables["batch_stats"])}

    def loop(key, steps):
        variables, optimizer = net.init(key, X, False), optax.adam(0.02)
        stats, params = variables["batch_stats"], variables["params"]
        memory, losses = optimizer.init(params), []

        @jax.jit
        def step(params, stats, memory, t):
            def value(params):
                key = jax.random.fold_in(jax.random.key(5), t)
                found, after = loss({"params": params, "batch_stats": stats}, X, Y, key)
                return found, after["batch_stats"]

            (found, new), grads = jax.value_and_grad(value, has_aux=True)(params)
            updates, memory = optimizer.update(grads, memory)
            return optax.apply_updates(params, updates), new, memory, found

        for t in range(steps):
            params, stats, memory, found = step(params, stats, memory, t)
            losses.append(found)
        return losses, later({"params": params, "batch_stats": stats}, X, Y)

    return loss, later, init, loop


def with_equinox():
    import equinox as eqx

    def built(key):
        first, last = jax.random.split(key)
        return eqx.nn.Sequential([
            eqx.nn.Linear(3, 8, use_bias=False, key=first), eqx.nn.BatchNorm(8, "batch", momentum=0.9, mode="ema"),
            eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.2), eqx.nn.Linear(8, 1, key=last),
        ])  # fmt: skip

    def many(net, state, x, key):
        keys = jax.random.split(key, len(x))
        run = jax.vmap(net, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        found, state = jax.vmap(lambda x, s, k: net(x, s, key=k), in_axes=(0, None, 0), out_axes=(0, None),
                                axis_name="batch")(x, state, keys) if key is not None else run(x, state)  # fmt: skip
        return found[:, 0], state

    def loss(params, x, y, key):
        found, state = many(params["net"], params["state"], x, key)
        return jnp.mean((found - y) ** 2), params | {"state": state}

    def later(params, x, y):
        net = eqx.nn.inference_mode(params["net"])
        found, _ = many(net, params["state"], x, jax.random.key(0))
        return jnp.mean((found - y) ** 2)

    def init(key):
        net, state = eqx.nn.make_with_state(built)(key)
        return {"net": net, "state": jf.Carried(state)}

    def loop(key, steps):
        net, state = eqx.nn.make_with_state(built)(key)
        optimizer = optax.adam(0.02)
        memory, losses = optimizer.init(eqx.filter(net, eqx.is_inexact_array)), []

        @eqx.filter_jit
        def step(net, state, memory, t):
            key = jax.random.fold_in(jax.random.key(5), t)

            def value(net):
                found, after = loss({"net": net, "state": state}, X, Y, key)
                return found, after["state"]

            (found, new), grads = eqx.filter_value_and_grad(value, has_aux=True)(net)
            updates, memory = optimizer.update(grads, memory)
            return eqx.apply_updates(net, updates), new, memory, found

        for t in range(steps):
            net, state, memory, found = step(net, state, memory, t)
            losses.append(found)
        return losses, later({"net": net, "state": state}, X, Y)

    return loss, later, init, loop


NETS = {"flax.nnx": in_nnx, "flax.linen": with_linen, "equinox": with_equinox}


@pytest.mark.soak
@pytest.mark.parametrize("library", NETS)
def test_batch_normalization_and_dropout_of_a_library_are_those_of_its_own_loop(library):
    pytest.importorskip(library)
    with jax.numpy_rank_promotion("allow"):
        compare(*NETS[library](), {} if library == "flax.nnx" else {"key": 5})


def compare(function, later, init, loop, keyed):
    losses, end = loop(jax.random.key(1), 20)
    loss = jf.losses.stateful(function, later)
    run = jf.fit(loss, init(jax.random.key(1)), (X, Y), optimizer=ADAM, steps=20, **keyed)
    np.testing.assert_allclose(run.history.loss[:20], losses, rtol=1e-4)  # of 20 steps in float32
    np.testing.assert_allclose(run.loss, end, rtol=1e-4)
    start = jf.Call(init, key=jf.Axis("seed", [0, 1]))
    grid = jf.sweep(loss, start, (X, Y), optimizer=ADAM, steps=20, **keyed)
    np.testing.assert_allclose(grid.results.loss.sel(seed=1), run.loss, rtol=1e-4)
    np.testing.assert_allclose(later(jf.lane(grid, seed=1).params, X, Y), run.loss, rtol=1e-4)
    assert (
        jf.resume(jf.fit(loss, init(jax.random.key(1)), (X, Y), optimizer=ADAM, steps=8, **keyed), 20).loss == run.loss
    )


@pytest.mark.soak
@pytest.mark.parametrize("mark", [jf.Carried, jf.Fixed])
def test_the_state_of_a_split_module_is_held_by_one_mark(mark):
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    graph, weights, state = nnx.split(net, nnx.Param, ...)

    def loss(params, x, y):
        net = nnx.merge(graph, params["weights"], params["state"], copy=True)
        value = jnp.mean((net(x).sum(-1) - y) ** 2)
        return value, params | {"state": nnx.state(net, nnx.Not(nnx.Param))}

    found = jf.losses.stateful(loss) if mark is jf.Carried else lambda *given: loss(*given)[0]
    with jax.numpy_rank_promotion("allow"):
        run = jf.fit(found, {"weights": weights, "state": mark(state)}, (X, Y), optimizer=ADAM, steps=4)
    changed = not np.array_equal(jax.tree.leaves(run.params["state"])[0], jax.tree.leaves(state)[0])
    assert changed == (mark is jf.Carried)
