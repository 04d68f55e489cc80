"""Scripts as people have them, and the same in jaxfit: equal results. Soak tests run the other side live."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.soak import soaking

X = np.linspace(0.0, 4.0, 50)
Y = 2.5 * np.exp(-1.3 * X) + 0.5 + 0.05 * np.cos(9 * X)
START = {"a": 2.0, "b": 1.0, "c": 0.0}


def decay(p, x):
    return p["a"] * jnp.exp(-p["b"] * x) + p["c"]


LOSS = jf.losses.mse(decay)


def needs(*names):
    """Skip a test where a library is not installed, which only a soak test asks for."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return [pytest.importorskip(name) for name in names]


# A loop in Optax: clipping, a schedule, decay of some params, another optimizer for others, updates of several steps


def only_a(params):
    return {name: name == "a" for name in params}


TRANSFORMATIONS = {
    "chain": lambda: optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.add_decayed_weights(0.1, mask=only_a),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(0.1, 30)),
    ),
    "multi_transform": lambda: optax.multi_transform(
        {"fast": optax.adam(0.1), "slow": optax.sgd(0.01), "none": optax.set_to_zero()},
        {"a": "fast", "b": "slow", "c": "none"},
    ),
    "MultiSteps": lambda: optax.MultiSteps(optax.adam(0.1), every_k_schedule=3),
}
IN_JAXFIT = {  # the same with numbers that may be swept
    "multi_transform": jf.optimizers.each(a=jf.optimizers.adam(0.1), b=jf.optimizers.sgd(0.01), c=optax.set_to_zero()),
    "MultiSteps": jf.optimizers.accumulated(jf.optimizers.adam(0.1), 3),
}


def loop_in_optax(optimizer, steps):
    params = jax.tree.map(jnp.float32, START)
    state, losses = optimizer.init(params), []
    for _ in range(steps):
        value, grads = jax.value_and_grad(LOSS)(params, jnp.float32(X), jnp.float32(Y))
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    return losses


@pytest.mark.parametrize("name", soaking(TRANSFORMATIONS, keep=("multi_transform",)))
def test_a_loop_in_optax(name):
    expected = loop_in_optax(TRANSFORMATIONS[name](), 30)
    for optimizer in (TRANSFORMATIONS[name](), IN_JAXFIT.get(name)):
        if optimizer is not None:
            run = jf.fit(LOSS, START, (X, Y), optimizer=optimizer, steps=30)
            np.testing.assert_allclose(run.history.loss[:30], expected, rtol=2e-5)  # of 30 steps in float32


@pytest.mark.soak
def test_clipping_and_decay_by_name_are_those_of_the_chain():
    chain = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.1, mask=only_a))
    named = jf.optimizers.clipped(jf.optimizers.adamw(0.1, weight_decay=0.1, mask=only_a), 0.5)
    run = jf.fit(LOSS, START, (X, Y), optimizer=named, steps=30)
    np.testing.assert_allclose(run.history.loss[:30], loop_in_optax(chain, 30), rtol=2e-5)


# SciPy


def scipys_decay(x, a, b, c):
    return a * np.exp(-b * x) + c


def jaxs_decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


def test_scipys_curve_fit():
    from scipy.optimize import curve_fit

    popt, pcov = curve_fit(scipys_decay, X, Y, p0=(2.0, 1.0, 0.0), sigma=np.full(50, 0.1), absolute_sigma=True)
    run = jf.curve_fit(jf.models.from_function(jaxs_decay), START, (X, Y), sigma=np.full(50, 0.1), absolute_sigma=True)
    np.testing.assert_allclose([run.params[k] for k in "abc"], popt, rtol=1e-6)
    np.testing.assert_allclose([jf.standard_errors(run)[k] for k in "abc"], np.sqrt(np.diag(pcov)), rtol=1e-4)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scipys_odr():
    odr = pytest.importorskip("scipy.odr")
    data = odr.RealData(X, Y, sx=0.05, sy=0.1)
    found = odr.ODR(data, odr.Model(lambda beta, x: scipys_decay(x, *beta)), beta0=[2.0, 1.0, 0.0]).run()
    run = jf.curve_fit(decay, START, (X, Y), sigma=0.1, x_sigma=0.05, absolute_sigma=True)
    np.testing.assert_allclose([run.params[k] for k in "abc"], found.beta, rtol=1e-5)


# lmfit


@pytest.mark.soak
def test_an_lmfit_session():
    (lmfit,) = needs("lmfit")
    model = lmfit.Model(scipys_decay)
    params = model.make_params(a=2.0, b=dict(value=1.0, min=0), c=dict(expr="0.2 * a"))
    result = model.fit(Y, params, x=X)
    run = jf.curve_fit(decay, {"a": 2.0, "b": jf.Bounded(1.0, low=0.0), "c": jf.Tied(lambda p: 0.2 * p["a"])}, (X, Y))
    for name in "abc":
        np.testing.assert_allclose(run.params[name], result.params[name].value, rtol=1e-5)
    errors = jf.standard_errors(run)
    np.testing.assert_allclose([errors["a"], errors["b"]], [result.params[k].stderr for k in "ab"], rtol=1e-3)
    assert run.loss == pytest.approx(result.chisqr, rel=1e-6)


# PyTorch and Keras: a small network, from the same weights

NET = jf.models.dense((1, 8, 1), "tanh")
WAVE = np.sin(2 * np.linspace(-1.5, 1.5, 40))[:, None]
PLACES = np.linspace(-1.5, 1.5, 40)[:, None]


def weights():
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), NET.init(3, like="torch"))


def losses_in_jaxfit(optimizer, steps):
    loss = jf.losses.mse(NET)
    return jf.fit(loss, weights(), (PLACES, WAVE), optimizer=optimizer, steps=steps, precision="float64").history.loss


@pytest.mark.soak
def test_a_training_loop_in_pytorch():
    (torch,) = needs("torch")
    net = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    with torch.no_grad():
        for layer, start in zip((net[0], net[2]), weights(), strict=True):
            layer.weight.copy_(torch.tensor(start["w"].T))
            layer.bias.copy_(torch.tensor(start["b"]))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.5)
    x, y, losses = torch.tensor(PLACES), torch.tensor(WAVE), []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(net(x), y)
        losses.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        scheduler.step()

    rate = jf.schedules.stepwise(0.02, 0.5, every=20)
    ours = jf.optimizers.clipped(jf.optimizers.torch.AdamW(lr=rate, weight_decay=0.05), 0.5, eps=1e-6)
    np.testing.assert_allclose(losses_in_jaxfit(ours, 59), losses, rtol=1e-9)


@pytest.mark.soak
def test_a_fit_in_keras():
    (keras,) = needs("keras")
    start = [array for layer in weights() for array in (layer["w"], layer["b"])]  # drawn in float32
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        dense = keras.layers.Dense
        net = keras.Sequential([keras.Input((1,)), dense(8, "tanh", dtype="float64"), dense(1, dtype="float64")])
        net.set_weights(start)
        optimizer = keras.optimizers.RMSprop(0.01, momentum=0.5, weight_decay=0.1)
        net.compile(optimizer=optimizer, loss="mse")
        told = net.fit(PLACES, WAVE, batch_size=40, epochs=40, shuffle=False, verbose=0)
    ours = jf.optimizers.keras.RMSprop(0.01, momentum=0.5, weight_decay=0.1)
    np.testing.assert_allclose(losses_in_jaxfit(ours, 39), told.history["loss"], rtol=1e-5)


# Optuna


@pytest.mark.soak
def test_a_search_in_optuna():
    (optuna,) = needs("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rates = [1e-3, 1e-2, 0.1, 0.3, 1.0]

    def objective(trial):
        rate = trial.suggest_categorical("rate", rates)
        return float(jf.fit(LOSS, START, (X, Y), optimizer=jf.optimizers.sgd(rate), steps=50).loss)

    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"rate": rates}))
    study.optimize(objective)

    grid = jf.sweep(LOSS, START, (X, Y), optimizer=jf.optimizers.sgd(jf.Axis("rate", rates)), steps=50)
    assert float(jf.best(grid).coords["rate"]) == pytest.approx(study.best_params["rate"])
    assert float(jf.best(grid).loss) == pytest.approx(study.best_value, rel=1e-4)


# Networks of other libraries, in a fit and in a sweep over seeds

SEEDS = jf.Axis("seed", [0, 1, 2])
COLUMN, WAVES = PLACES.astype(np.float32), WAVE.astype(np.float32)


def with_equinox():
    import equinox as eqx

    def made(key):
        return eqx.nn.MLP(1, 1, 8, 1, key=key)

    _, rest = eqx.partition(made(jax.random.key(0)), eqx.is_inexact_array)
    model = lambda params, x: jax.vmap(eqx.combine(params, rest))(x)  # noqa: E731
    return model, lambda key: eqx.filter(made(key), eqx.is_inexact_array)


def with_linen():
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))

    net = Net()
    return net.apply, lambda key: net.init(key, COLUMN)


def with_nnx():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.last = nnx.Linear(1, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.tanh(self.first(x)))

    graph, _, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    return lambda params, x: nnx.merge(graph, params, rest)(x), lambda key: nnx.state(Net(nnx.Rngs(key)), nnx.Param)


def with_haiku():
    import haiku as hk

    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 1], activation=jnp.tanh)(x)))
    return net.apply, lambda key: net.init(key, COLUMN)


NETS = {"equinox": with_equinox, "flax.linen": with_linen, "flax.nnx": with_nnx, "haiku": with_haiku}


@pytest.mark.soak
@pytest.mark.parametrize("library", NETS)
def test_a_net_of_another_library_is_trained_from_several_seeds(library):
    needs(library)
    model, init = NETS[library]()
    optimizer, loss = jf.optimizers.adam(0.02), jf.losses.mse(model)
    grid = jf.sweep(loss, jf.Call(init, key=SEEDS), (COLUMN, WAVES), optimizer=optimizer, steps=300)
    assert (grid.results.loss < 0.15).all() and len(set(grid.results.loss.values.tolist())) == 3
    alone = jf.fit(loss, init(jax.random.key(1)), (COLUMN, WAVES), optimizer=optimizer, steps=20)
    lanes = jf.sweep(loss, jf.Call(init, key=SEEDS), (COLUMN, WAVES), optimizer=optimizer, steps=20)
    np.testing.assert_allclose(lanes.results.loss.sel(seed=1), alone.loss, rtol=1e-4)


# Data of other libraries

TIMES = np.arange(8) * 0.5


def tables():
    import pandas
    import polars

    columns = {"x": TIMES, "y": 2 * TIMES + 1}
    return {"pandas": pandas.DataFrame(columns, index=list("abcdefgh")), "polars": polars.DataFrame(columns)}


def of(x, y):
    return float(jf.fit(jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, (x, y), optimizer=GENTLE, steps=5).loss)


GENTLE = jf.optimizers.sgd(0.01)


@pytest.mark.soak
def test_tables_dates_and_tensors_of_other_libraries():
    pandas, polars, torch, unumpy, xarray = needs("pandas", "polars", "torch", "uncertainties.unumpy", "xarray")
    expected = of(TIMES, 2 * TIMES + 1)
    days = np.datetime64("2024-03-31", "ms") + np.arange(8) * np.timedelta64(12, "h")
    for name, table in tables().items():
        assert of(table["x"], table["y"]) == expected, name
        with pytest.raises(TypeError, match=r"data is one table .*data=\(table\['x'\], table\['y'\]\)"):
            jf.fit(jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, table, optimizer=GENTLE, steps=5)
    assert of(torch.tensor(TIMES), torch.tensor(2 * TIMES + 1)) == expected
    hot = torch.tensor(TIMES, requires_grad=True)
    with pytest.raises(TypeError, match=r"pass x\.detach\(\)$"):
        of(hot, 2 * TIMES + 1)
    assert of(hot.detach(), 2 * TIMES + 1) == expected
    for dates in (days, pandas.Series(days), polars.Series(days), xarray.DataArray(days, dims="t")):
        with pytest.raises(TypeError, match=r"count from the first: .*\(t - t\[0\]\) / np\.timedelta64\(1, "):
            of(dates, 2 * TIMES + 1)
        t = np.asarray(dates, "datetime64[ns]")
        assert of((t - t[0]) / np.timedelta64(1, "D"), 2 * TIMES + 1) == expected
    zoned = pandas.Series(days).dt.tz_localize("Europe/Berlin", nonexistent="shift_forward")
    for dates in (zoned, pandas.DatetimeIndex(zoned), list(zoned)):
        with pytest.raises(TypeError, match=r"start = min\(t\), then np\.array"):
            of(dates, 2 * TIMES + 1)
        start = min(dates)
        assert np.isfinite(of(np.array([(d - start).total_seconds() for d in dates]) / 86400, 2 * TIMES + 1))
    missing = pandas.Series([1.0, None] * 4, dtype="Float64")
    with pytest.raises(ValueError, match="4 of 8 values that are not finite"):
        of(TIMES, missing)
    run = jf.curve_fit(jf.models.line, None, (TIMES, unumpy.uarray(2 * TIMES + 1, 0.1)))
    told = jf.curve_fit(jf.models.line, None, (TIMES, 2 * TIMES + 1), sigma=0.1, absolute_sigma=True)
    assert jf.standard_errors(run)["w"] == jf.standard_errors(told)["w"]
