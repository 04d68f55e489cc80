"""The optimizers of PyTorch, Keras and TensorFlow.js give the losses that these gave themselves, step by step."""

import functools
import importlib.util
import inspect
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared import ported
from tests.shared.ported import CASES, FRAMEWORKS, RECORDED, STARTS, STEPS, live, loss_of
from tests.shared.soak import soaking

TRUTH = json.loads(RECORDED.read_text("utf-8"))
RATE = {"torch": "lr", "keras": "learning_rate", "tfjs": "learningRate"}
MODULES = {framework: getattr(jf.optimizers, framework) for framework in FRAMEWORKS}


def made(case, rate=None):
    factory = getattr(MODULES[case.framework], case.name)
    return factory(**{RATE[case.framework]: case.rate if rate is None else rate}, **case.given)


@functools.cache
def asked(problem):
    return lambda params: loss_of(problem, params, jnp.tanh)


@functools.cache
def slopes_of(problem):
    return jax.jit(jax.value_and_grad(asked(problem)))


def losses_of(case, problem, steps=STEPS):
    """The losses of a loop in Python, as a script has it."""

    def changing(t):
        return jnp.where(t < 20, 1.0, jnp.where(t < 35, 0.1, 0.5)) * case.rate

    with jax.enable_x64(True):
        params, losses = [jnp.asarray(x) for x in STARTS[problem]], []
        transformation = made(case, None if case.name == "Rprop" else changing).build()
        state, update = transformation.init(params), jax.jit(transformation.update)
        for _ in range(steps + 1):
            loss, slopes = slopes_of(problem)(params)
            losses.append(float(loss))
            updates, state = update(slopes, state, params)
            params = optax.apply_updates(params, updates)
    return losses


def numbers(row):
    return np.array([np.nan if x is None else x for x in row])


def test_every_optimizer_of_the_modules_is_recorded():
    for framework, module in MODULES.items():
        assert set(module.__all__) == set(TRUTH["defaults"][framework])
    assert set(TRUTH["losses"]) == set(map(str, CASES))


FIRST = [*{(case.framework, case.name): case for case in reversed(CASES)}.values()]


@pytest.mark.parametrize("problem", soaking(STARTS, keep=("layer",)))
@pytest.mark.parametrize("case", soaking(CASES, keep=FIRST), ids=str)
def test_the_losses_are_those_of_the_framework(case, problem):
    np.testing.assert_allclose(losses_of(case, problem), numbers(TRUTH["losses"][str(case)][problem]), rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_arguments_and_defaults_are_those_of_the_framework(framework):
    for name, theirs in TRUTH["defaults"][framework].items():
        mine = inspect.signature(getattr(MODULES[framework], name)).parameters
        assert set(mine) == set(theirs), name
        for key, p in mine.items():
            default = theirs[key] if not isinstance(theirs[key], list) else tuple(theirs[key])
            assert (None if p.default is p.empty else p.default) == default, (name, key)
        ordered = [key for key in theirs if mine[key].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert ordered == [key for key, p in mine.items() if p.kind is p.POSITIONAL_OR_KEYWORD], name


def along(problem, optimizer, **more):
    run = jf.fit(asked(problem), STARTS[problem], optimizer=optimizer, steps=STEPS, precision="float64", **more)
    return run.history.loss


BY_STEP = {"torch.RMSprop": "lr", "keras.RMSprop": "learning_rate", "tfjs.rmsprop": "learningRate"}


@pytest.mark.parametrize("name", soaking(BY_STEP, keep=("torch.RMSprop",)))
def test_a_fit_and_a_lane_of_a_sweep_give_them_too(name):
    framework, factory = name.split(".")
    case = next(c for c in CASES if f"{c.framework}.{c.name}" == name and c.given == {"momentum": 0.9})
    truth = TRUTH["losses"][str(case)]["valley"]
    rate = functools.partial(rate_of, case.rate)
    optimizer = getattr(MODULES[framework], factory)
    found = along("valley", optimizer(**{RATE[framework]: rate}, momentum=0.9))
    np.testing.assert_allclose(found, truth, rtol=1e-6)
    swept = optimizer(
        **{RATE[framework]: jf.Axis("rate", [0.003, case.rate])}, momentum=jf.Axis("momentum", [0.5, 0.9])
    )
    grid = jf.sweep(asked("valley"), STARTS["valley"], optimizer=swept, steps=20, precision="float64")
    np.testing.assert_allclose(grid.results.loss.sel(rate=case.rate, momentum=0.9), truth[20], rtol=1e-6)


def rate_of(first, t):
    return first * jnp.where(t < 20, 1.0, jnp.where(t < 35, 0.1, 0.5))


def half_square(p):
    return p**2 / 2


def nearly_flat(p):
    return 1e-8 * p


def ends(optimizer, steps, loss=half_square):
    return float(jf.fit(loss, 1.0, optimizer=optimizer, steps=steps, precision="float64").params)


def dropped(t):
    return jnp.where(t < 5, 1.0, 0.1)


def test_a_drop_of_the_rate_acts_at_once_in_torch_and_late_in_keras():
    """w**2 / 2 from 1 with rate 1 and momentum 0.9, the rate tenfold lower from update 5 on: the loop by hand."""

    def by_hand(after):
        w, buf = 1.0, 0.0
        for t in range(10):
            rate = 1.0 if t < 5 else 0.1
            buf = 0.9 * buf + (w if after else rate * w)
            w -= rate * buf if after else buf
        return w

    torch = ends(jf.optimizers.torch.SGD(lr=dropped, momentum=0.9), 10)
    keras = ends(jf.optimizers.keras.SGD(dropped, momentum=0.9), 10)
    np.testing.assert_allclose([torch, keras], [by_hand(True), by_hand(False)], rtol=1e-12)
    assert abs(torch - keras) > 0.1


def test_where_eps_stands_in_adam_shows_at_a_small_gradient():
    """0.1 g / (g + eps) with eps 1e-8 in torch, 1e-7 in TensorFlow.js, and 1e-7 / sqrt(1 - b2) in Keras."""
    moved = [
        1 - ends(factory(0.1), 1, nearly_flat)
        for factory in (jf.optimizers.torch.Adam, jf.optimizers.keras.Adam, jf.optimizers.tfjs.adam)
    ]
    expected = [0.1 * 1e-8 / (1e-8 + eps) for eps in (1e-8, 1e-7 / np.sqrt(1 - 0.999), 1e-7)]
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    np.testing.assert_allclose(moved, [0.05, 0.000315, 0.00909], rtol=1e-3)


def test_a_momentum_of_zero_on_an_axis_is_plain_descent():
    axis = jf.Axis("momentum", [0.0, 0.5])
    optimizer = jf.optimizers.torch.SGD(lr=0.1, momentum=axis, dampening=0.3)
    grid = jf.sweep(half_square, 1.0, optimizer=optimizer, steps=5, precision="float64")
    np.testing.assert_allclose(grid.results.params.sel(momentum=0.0), 0.9**5, rtol=1e-12)


def test_they_travel_to_other_processes_and_print_what_was_given():
    optimizer = jf.optimizers.torch.Adam(lr=0.1, betas=(0.8, 0.99))
    assert repr(optimizer) == "torch.Adam(learning_rate=0.1, betas=(0.8, 0.99))"
    assert repr(jf.optimizers.torch.Adam(lr=0.1, betas=[0.8, 0.99])) == repr(optimizer)
    again = pickle.loads(pickle.dumps(optimizer.call.function))
    assert again is optimizer.call.function


def test_a_beta_on_an_axis_stands_inside_the_pair():
    betas = (jf.Axis("beta1", [0.5, 0.9]), 0.99)
    optimizer = jf.optimizers.torch.Adam(lr=0.1, betas=betas)
    grid = jf.sweep(half_square, 1.0, optimizer=optimizer, steps=5, precision="float64")
    for beta in (0.5, 0.9):
        alone = ends(jf.optimizers.torch.Adam(lr=0.1, betas=(beta, 0.99)), 5)
        np.testing.assert_allclose(grid.results.params.sel(beta1=beta), alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (lambda: jf.optimizers.torch.Adam(lr=0.1, betas=(0.9, 1.5)), r"betas\[1\] is 1.5, but it must be a number in"),
        (
            lambda: jf.optimizers.torch.Adam(lr=0.1, betas=0.9),
            r"betas is 0.9, but it takes 2 numbers, as \(0.9, 0.999\)",
        ),
        (lambda: jf.optimizers.torch.Adam(lr=0.1, fused=True), "fused.*write nothing"),
        (lambda: jf.optimizers.torch.Adam(lr=0.1, beta1=0.8), "did you mean betas"),
        (lambda: jf.optimizers.torch.SGD(lr=-0.1), "learning_rate is -0.1.*a negative one climbs"),
        (lambda: jf.optimizers.torch.Muon(lr=0.1), "There are: ASGD"),
        (lambda: jf.optimizers.tfjs.sgd(), r"jf.optimizers.tfjs.sgd\(learningRate\)|learningRate"),
    ],
)
def test_what_does_not_fit_says_what_does(wrong, remedy):
    with pytest.raises((TypeError, ValueError, AttributeError), match=remedy):
        wrong()


def test_two_ways_to_clip_are_refused():
    optimizer = jf.optimizers.keras.SGD(0.1, clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match="clipnorm and clipvalue are given, but only one"):
        jf.fit(half_square, 1.0, optimizer=optimizer, steps=1)


SCHEDULES = {
    "stepwise": jf.schedules.stepwise(0.5, 0.5, 10),
    "milestones": jf.schedules.milestones(0.5, 0.1, at=(5, 22)),
    "exponential": jf.schedules.exponential(0.5, 0.9),
    "cosine": jf.schedules.cosine(0.5, STEPS, final=0.01),
    "cosine_restarts": jf.schedules.cosine_restarts(0.5, 6, longer=2, final=0.01),
    "one_cycle": jf.schedules.one_cycle(0.5, STEPS),
    "polynomial": jf.schedules.polynomial(0.5, STEPS, power=2.0),
    "warmup": jf.schedules.warmup(0.5, 10, start=0.2),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_are_those_of_pytorchs_scheduler(name):
    with jax.enable_x64(True):
        schedule = SCHEDULES[name]()
        found = [float(schedule(jnp.asarray(t))) for t in range(STEPS)]
    # a cosine ends at zero but for rounding: atol is 1e-11 of the largest rate and less
    np.testing.assert_allclose(found, TRUTH["schedules"][name], rtol=1e-6, atol=1e-12)


PLATEAUS = {
    "patient": {"factor": 0.5, "patience": 3},
    "absolute": {"factor": 0.5, "patience": 1, "threshold": 0.05, "relative": False, "cooldown": 4},
    "least": {"factor": 0.1, "patience": 0, "least": 0.003},
}


@pytest.mark.parametrize("name", soaking(PLATEAUS, keep=("absolute",)))
def test_a_rate_reduced_on_plateaus_and_a_clipped_norm_give_pytorchs_losses(name):
    """The loop clips by clip_grad_norm_ before the update, and calls the scheduler after it."""
    sgd = jf.optimizers.reduced_on_plateau(jf.optimizers.torch.SGD(lr=0.05), **PLATEAUS[name])
    found = along("valley", jf.optimizers.clipped(sgd, 20.0, eps=1e-6))
    np.testing.assert_allclose(found, TRUTH["plateaus"][name], rtol=1e-6)


def test_what_cannot_be_lowered_is_refused():
    for optimizer in (optax.sgd(0.1), jf.optimizers.sgd(jf.schedules.cosine(0.1, 9))):
        with pytest.raises(TypeError, match="has no learning_rate that is a number, which could be lowered"):
            jf.optimizers.reduced_on_plateau(optimizer)
    with pytest.raises(ValueError, match="norm is -1.0, but it must be a positive number"):
        jf.optimizers.clipped(jf.optimizers.sgd(0.1), -1.0)


@pytest.mark.parametrize(("like", "bias"), [("torch", True), ("keras", False), ("tfjs", False)])
def test_dense_layers_begin_as_in_the_framework(like, bias):
    """Means over 40,000 draws: the variance of a uniform distribution is bound**2 / 3; of a normal one cut at two
    standard deviations 0.7737 of it."""
    first, second = jf.models.dense((200, 200, 1)).init(0, like=like)
    bound = {"torch": 200**-0.5, "keras": (6 / 400) ** 0.5, "tfjs": 2 * (2 / 400) ** 0.5}[like]
    variance = bound**2 / 3 if like != "tfjs" else 0.773741 * 2 / 400
    w = np.asarray(first["w"])
    assert np.abs(w).max() <= bound * (1 + 1e-6) and np.abs(w).max() > 0.99 * bound
    assert abs(w.var() / variance - 1) < 5 * np.sqrt(2 / w.size) and abs(w.mean()) < 5 * np.sqrt(variance / w.size)
    assert (np.abs(np.asarray(first["b"])).max() > 0) == bias and second["w"].shape == (200, 1)
    with pytest.raises(ValueError, match="like is 'jax', but it must be one of 'torch', 'keras', 'tfjs'"):
        jf.models.dense((1, 1)).init(0, like="jax")


@pytest.mark.soak
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_frameworks_as_installed_give_what_is_recorded(framework):
    there = ported.has_tfjs() if framework == "tfjs" else importlib.util.find_spec(framework) is not None
    if not there:
        pytest.skip(f"{framework} is not installed")
    for case, found in live(framework).items():
        for problem, losses in found.items():
            np.testing.assert_allclose(
                numbers(losses), numbers(TRUTH["losses"][case][problem]), rtol=1e-6, err_msg=f"{case}, {problem}"
            )
    assert json.loads(json.dumps(ported.defaults_of(framework))) == TRUTH["defaults"][framework]
    if framework == "torch":
        assert ported.schedules_of_torch() == TRUTH["schedules"] and ported.plateaus_of_torch() == TRUTH["plateaus"]
