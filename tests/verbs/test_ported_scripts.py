"""Scripts as people have them, and the same in jaxfit: equal results. Soak tests run the other side live."""

import json
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared import ported
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
    update, gradient = jax.jit(optimizer.update), jax.jit(jax.value_and_grad(LOSS))
    for _ in range(steps):
        value, grads = gradient(params, jnp.float32(X), jnp.float32(Y))
        updates, state = update(grads, state, params)
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


# Loops of PyTorch, Keras and TensorFlow.js, and a study of Optuna: what they printed is in RECORDED

NET = jf.models.dense((1, 8, 1), "tanh")
WAVE = np.sin(2 * np.linspace(-1.5, 1.5, 40))[:, None]
PLACES = np.linspace(-1.5, 1.5, 40)[:, None]
RECORDED = {  # the loss at every tenth step, by PyTorch 2.13.0, Keras 3.15.1, TensorFlow.js 4.22.0, Optuna 5.0.0
    "torch": [0.406365675037, 0.106268592649, 0.0718682606211, 0.0546288229663, 0.0456924993039, 0.042029583867],
    "keras": [0.406365681952, 0.104937426986, 0.0822324593743, 0.0742355663227],
    "tfjs": [0.260143353925, 0.0567313663108, 0.0157762981706, 0.00561834685296],
    "optuna": [0.3, 0.00249205692671],  # the best rate, and its loss
}


def weights():
    turns = np.arange(8.0)
    return [
        {"w": np.cos(turns)[None, :], "b": np.sin(2 * turns) / 2},
        {"w": np.cos(3 * turns)[:, None] / 2, "b": np.zeros(1)},
    ]


def losses_in_jaxfit(optimizer, steps):
    loss = jf.losses.mse(NET)
    return jf.fit(loss, weights(), (PLACES, WAVE), optimizer=optimizer, steps=steps, precision="float64").history.loss


def loop_in_pytorch():
    """AdamW with a rate by steps and a clipped gradient."""
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
    return losses


def pytorchs_in_jaxfit():
    rate = jf.schedules.stepwise(0.02, 0.5, every=20)
    optimizer = jf.optimizers.torch.AdamW(lr=rate, weight_decay=0.05)
    return losses_in_jaxfit(jf.optimizers.clipped(optimizer, 0.5, eps=1e-6), 59)


def fit_in_keras():
    (keras,) = needs("keras")
    start = [array for layer in weights() for array in (layer["w"], layer["b"])]
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
            net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
            net.set_weights(start)
            rate = keras.optimizers.schedules.ExponentialDecay(0.02, 20, 0.5)
            optimizer = keras.optimizers.AdamW(rate, weight_decay=0.1)
            net.compile(optimizer=optimizer, loss="mse")
            told = net.fit(PLACES, WAVE, batch_size=40, epochs=40, shuffle=False, verbose=0)
    finally:
        keras.config.set_floatx(before)
    return told.history["loss"]


def kerass_in_jaxfit():
    rate = jf.schedules.exponential(0.02, 0.5, every=20)
    return losses_in_jaxfit(jf.optimizers.keras.AdamW(rate, weight_decay=0.1), 39)


LOOP = """
globalThis.Float32Array = Float64Array;
console.warn = () => {};
const tf = require('@tensorflow/tfjs');
const {x, y, start} = JSON.parse(require('fs').readFileSync(0));
tf.setBackend('cpu').then(() => {
  const [a, b, c] = ['a', 'b', 'c'].map(name => tf.variable(tf.scalar(start[name])));
  const optimizer = tf.train.adam(0.05), losses = [];
  const predict = x => a.mul(x.mul(b).neg().exp()).add(c);
  for (let step = 0; step < 40; step++) {
    const loss = optimizer.minimize(() => tf.losses.meanSquaredError(tf.tensor1d(y), predict(tf.tensor1d(x))), true);
    losses.push(loss.dataSync()[0]);
  }
  console.log(JSON.stringify(losses));
});
"""


def loop_in_tfjs():
    if not ported.has_tfjs():
        pytest.skip("needs Node and TFJS, a folder in which @tensorflow/tfjs is installed")
    asked = json.dumps({"x": X.tolist(), "y": Y.tolist(), "start": START})
    command = ["node", "-e", LOOP]
    ran = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, cwd=ported.tfjs_folder())
    return json.loads(ran.stdout.splitlines()[-1])


def tfjss_in_jaxfit():
    adam = jf.optimizers.tfjs.adam(0.05)
    return jf.fit(LOSS, START, (X, Y), optimizer=adam, steps=39, precision="float64").history.loss


RATES = [1e-3, 1e-2, 0.1, 0.3, 1.0]


def study_in_optuna():
    """The best rate and its loss after 50 steps."""
    (optuna,) = needs("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"rate": RATES}))
    study.optimize(lambda trial: loop_in_optax(optax.sgd(trial.suggest_categorical("rate", RATES)), 51)[-1])
    return [study.best_params["rate"], study.best_value]


def optunas_in_jaxfit():
    grid = jf.sweep(LOSS, START, (X, Y), optimizer=jf.optimizers.sgd(jf.Axis("rate", RATES)), steps=50)
    best = jf.best(grid)
    return np.array([float(best.coords["rate"]), float(best.loss)])


SCRIPTS = {  # how close: Keras computes its rate, and Optax and jaxfit here all, in float32
    "torch": (loop_in_pytorch, pytorchs_in_jaxfit, 1e-9),
    "keras": (fit_in_keras, kerass_in_jaxfit, 1e-6),
    "tfjs": (loop_in_tfjs, tfjss_in_jaxfit, 1e-9),
    "optuna": (study_in_optuna, optunas_in_jaxfit, 1e-4),
}


@pytest.mark.parametrize("name", soaking(SCRIPTS, keep=("torch",)))
def test_a_script_gives_what_its_framework_gave(name):
    _, ours, close = SCRIPTS[name]
    found = ours()
    np.testing.assert_allclose(found[:: 10 if len(found) > 2 else 1], RECORDED[name], rtol=close)


@pytest.mark.soak
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_framework_gives_what_it_gave(name):
    theirs, ours, close = SCRIPTS[name]
    losses = theirs()
    np.testing.assert_allclose(losses[:: 10 if len(losses) > 2 else 1], RECORDED[name], rtol=close)
    np.testing.assert_allclose(ours(), losses, rtol=close)


# Networks of other libraries, in a fit and in sweeps over seeds and widths

SEEDS = jf.Axis("seed", [0, 1, 2])
COLUMN = PLACES.astype(np.float32)
WAVES = (WAVE + 0.3).astype(np.float32)  # without the shift the gradient of a bias is rounding, which Adam enlarges


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


WIDTHS = [4, 8]


def losses_by_width(model):
    return jf.Axis("width", [jf.losses.mse(model(width)) for width in WIDTHS], labels=WIDTHS)


def equinox_by_width():
    import equinox as eqx

    loss = lambda net, x, y: jnp.mean((jax.vmap(net)(x) - y) ** 2)  # noqa: E731
    return loss, lambda key, width: eqx.nn.MLP(1, 1, width, 1, key=key)


def linen_by_width():
    from flax import linen as nn

    def net(width):
        return nn.Sequential([nn.Dense(width), nn.tanh, nn.Dense(1)])

    return losses_by_width(lambda width: net(width).apply), lambda key, width: net(width).init(key, COLUMN)


def nnx_by_width():
    from flax import nnx

    def net(key, width):
        rngs = nnx.Rngs(key)
        return nnx.Sequential(nnx.Linear(1, width, rngs=rngs), nnx.tanh, nnx.Linear(width, 1, rngs=rngs))

    return (lambda net, x, y: jnp.mean((net(x) - y) ** 2)), net


def haiku_by_width():
    import haiku as hk

    def net(width):
        return hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([width, 1], activation=jnp.tanh)(x)))

    return losses_by_width(lambda width: net(width).apply), lambda key, width: net(width).init(key, COLUMN)


BY_WIDTH = {
    "equinox": equinox_by_width, "flax.linen": linen_by_width, "flax.nnx": nnx_by_width, "haiku": haiku_by_width,
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("library", BY_WIDTH)
def test_nets_of_another_library_sweep_over_seeds_and_widths(library):
    needs(library)
    loss, make = BY_WIDTH[library]()
    optimizer, data = jf.optimizers.adam(0.02), (COLUMN, WAVES)
    start = jf.Call(make, key=SEEDS, width=jf.Axis("width", WIDTHS))
    grid = jf.sweep(loss, start, data, optimizer=optimizer, steps=20)
    assert dict(grid.results.loss.sizes) == {"seed": 3, "width": 2}
    for k, width in enumerate(WIDTHS):
        one = loss.values[k] if isinstance(loss, jf.Axis) else loss
        alone = jf.fit(one, make(jax.random.key(1), width), data, optimizer=optimizer, steps=20)
        np.testing.assert_allclose(grid.results.loss.sel(seed=1, width=width), alone.loss, rtol=1e-4)


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
