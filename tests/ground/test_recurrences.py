"""Every named optimizer against the recurrence of its paper, in NumPy and in float64; and what each takes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.optimizers import recurrences
from jaxfit.optimizers.building import JUDGES, NAMES
from tests.shared.soak import soaking

RATE = 0.1


class Papers:
    """Generators of params after each update, of (params at the start, a function of step and params -> gradient)."""

    @staticmethod
    def sgd(p, g):
        for t in range(STEPS):
            p = p - RATE * g(t, p)
            yield p

    @staticmethod
    def momentum(p, g, beta=0.9, ahead=False):
        velocity = 0 * p
        for t in range(STEPS):
            slope = g(t, p)
            velocity = beta * velocity + slope
            p = p - RATE * (slope + beta * velocity if ahead else velocity)
            yield p

    @staticmethod
    def nesterov(p, g):
        return Papers.momentum(p, g, ahead=True)

    @staticmethod
    def adagrad(p, g, s=0.1, eps=1e-7):
        for t in range(STEPS):
            slope = g(t, p)
            s = s + slope**2
            p = p - RATE * slope / np.sqrt(s + eps)
            yield p

    @staticmethod
    def adadelta(p, g, rho=0.9, eps=1e-6):
        a = b = 0 * p
        for t in range(STEPS):
            slope = g(t, p)
            a = rho * a + (1 - rho) * slope**2
            step = np.sqrt(b + eps) / np.sqrt(a + eps) * slope
            b = rho * b + (1 - rho) * step**2
            p = p - RATE * step
            yield p

    @staticmethod
    def rmsprop(p, g, decay=0.9, eps=1e-8):
        v = 0 * p
        for t in range(STEPS):
            slope = g(t, p)
            v = decay * v + (1 - decay) * slope**2
            p = p - RATE * slope / np.sqrt(v + eps)
            yield p

    @staticmethod
    def adam(p, g, b1=0.9, b2=0.999, eps=1e-8, shrink=0.0, ahead=False):
        m = v = 0 * p
        for t in range(STEPS):
            k, slope = t + 1, g(t, p)
            m, v = b1 * m + (1 - b1) * slope, b2 * v + (1 - b2) * slope**2
            mean = m / (1 - b1**k)
            if ahead:
                mean = b1 * m / (1 - b1 ** (k + 1)) + (1 - b1) * slope / (1 - b1**k)
            p = p - RATE * (mean / (np.sqrt(v / (1 - b2**k)) + eps) + shrink * p)
            yield p

    @staticmethod
    def adamw(p, g):
        return Papers.adam(p, g, shrink=1e-4)

    @staticmethod
    def nadam(p, g):
        return Papers.adam(p, g, ahead=True)

    @staticmethod
    def adamax(p, g, b1=0.9, b2=0.999, eps=1e-8):
        m = u = 0 * p
        for t in range(STEPS):
            slope = g(t, p)
            m, u = b1 * m + (1 - b1) * slope, np.maximum(b2 * u, np.abs(slope) + eps)
            p = p - RATE / (1 - b1 ** (t + 1)) * m / u
            yield p

    @staticmethod
    def amsgrad(p, g, b1=0.9, b2=0.999, eps=1e-8, correct=True):
        m = v = most = 0 * p
        for t in range(STEPS):
            k, slope = t + 1, g(t, p)
            m, v = b1 * m + (1 - b1) * slope, b2 * v + (1 - b2) * slope**2
            most = np.maximum(most, v / (1 - b2**k) if correct else v)
            p = p - RATE * (m / (1 - b1**k) if correct else m) / (np.sqrt(most) + eps)
            yield p

    @staticmethod
    def adabelief(p, g, b1=0.9, b2=0.999, eps=1e-16):
        m = s = 0 * p
        for t in range(STEPS):
            k, slope = t + 1, g(t, p)
            m = b1 * m + (1 - b1) * slope
            s = b2 * s + (1 - b2) * (slope - m) ** 2 + eps
            p = p - RATE * m / (1 - b1**k) / (np.sqrt(s / (1 - b2**k)) + eps)
            yield p

    @staticmethod
    def radam(p, g, b1=0.9, b2=0.999, eps=1e-8, threshold=5.0):
        m = v = 0 * p
        most = 2 / (1 - b2) - 1
        for t in range(STEPS):
            k, slope = t + 1, g(t, p)
            m, v = b1 * m + (1 - b1) * slope, b2 * v + (1 - b2) * slope**2
            mean, rho = m / (1 - b1**k), most - 2 * k * b2**k / (1 - b2**k)
            if rho >= threshold:
                r = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
                mean = r * mean / (np.sqrt(v / (1 - b2**k)) + eps)
            p = p - RATE * mean
            yield p

    @staticmethod
    def yogi(p, g, b1=0.9, b2=0.999, eps=1e-3, correct=True):
        m, v = 0 * p, 0 * p + 1e-6
        for t in range(STEPS):
            k, slope = t + 1, g(t, p)
            m, v = b1 * m + (1 - b1) * slope, v - (1 - b2) * np.sign(v - slope**2) * slope**2
            first, second = (1 - b1**k, 1 - b2**k) if correct else (1, 1)
            p = p - RATE * m / first / (np.sqrt(v / second) + eps)
            yield p

    @staticmethod
    def lion(p, g, b1=0.9, b2=0.99, shrink=1e-3):
        m = 0 * p
        for t in range(STEPS):
            slope = g(t, p)
            p = p - RATE * (np.sign(b1 * m + (1 - b1) * slope) + shrink * p)
            m = b2 * m + (1 - b2) * slope
            yield p

    @staticmethod
    def muon(p, g):
        """Of params that are no matrix."""
        return Papers.nadam(p, g)

    @staticmethod
    def rprop(p, g):
        """With one Python branch for each param: the pseudo-code of the paper."""
        p, sizes, before = p.copy(), np.full(p.size, RATE), np.zeros(p.size)
        for t in range(STEPS):
            slopes = g(t, p)
            for i, slope in enumerate(slopes):
                if slope * before[i] > 0:
                    sizes[i] = min(sizes[i] * 1.2, 50.0)
                elif slope * before[i] < 0:
                    sizes[i] = max(sizes[i] * 0.5, 1e-6)
                    slope = 0.0
                p[i] -= sizes[i] * np.sign(slope)
                before[i] = slope
            yield p.copy()


STEPS = 60
ROUNDED = "adam", "adamw", "nadam", "amsgrad", "adabelief", "yogi"
PAPERS = {name: getattr(Papers, name) for name in NAMES if name not in JUDGES}
LETTER = {  # the settings that make them the paper's to the letter, where the default is what is done everywhere
    "amsgrad": ({"bias_correction_mu": False, "bias_correction_nu": False}, {"correct": False}),
    "yogi": ({"bias_correction": False}, {"correct": False}),
    "radam": ({"threshold": 4.0}, {"threshold": 4.0}),
    "adagrad": ({"initial_accumulator_value": 0.0, "eps": 0.0}, {"s": 0.0, "eps": 0.0}),
    "adadelta": ({"rho": 0.95}, {"rho": 0.95}),
}


def drawn(seed):
    """Gradients of a few scales, some of them turning often, some never."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=(STEPS, 5)) * 10.0 ** rng.uniform(-2, 2, 5) + rng.normal(size=5)
    return rng.normal(size=5), np.float32(slopes).astype(float)


def moved(transformation, start, slopes):
    """The params after each update by given gradients, in the precision that is on."""
    params, after = jax.tree.map(jnp.asarray, start), []
    state = transformation.init(params)
    update = jax.jit(transformation.update) if len(jax.tree.leaves(slopes)[0]) == STEPS else transformation.update
    for t in range(len(jax.tree.leaves(slopes)[0])):
        updates, state = update(jax.tree.map(lambda s, t=t: jnp.asarray(s[t]), slopes), state, params)
        params = optax.apply_updates(params, updates)
        after.append(np.concatenate([np.asarray(x, float) for x in jax.tree.leaves(params)]))
    return np.array(after)


def wide_and_narrow(optimizer, start, slopes):
    """The same in float64 and in float32."""
    narrow = moved(optimizer.build(), start.astype(np.float32), slopes.astype(np.float32))
    with jax.enable_x64(True):
        return moved(optimizer.build(), start, slopes), narrow


def test_the_papers_are_those_of_every_named_optimizer():
    assert set(PAPERS) == set(NAMES) - set(JUDGES)


@pytest.mark.parametrize("name", PAPERS)
def test_a_named_optimizer_is_its_papers_recurrence(name):
    start, slopes = drawn(len(name))
    expected = np.array(list(PAPERS[name](start, lambda t, p: slopes[t])))
    scale = 1 + np.abs(expected).max(axis=0)
    wide, narrow = wide_and_narrow(getattr(jf.optimizers, name)(RATE), start, slopes)
    assert (np.abs(wide - expected) <= 1e-12 * scale).all()
    # In float32 1 - b2**t carries the rounding of b2, up to eps / 4 / (1 - b2) of itself; its root half of that.
    eps = np.finfo(np.float32).eps
    bound = eps / 8 / (1 - 0.999) if name in ROUNDED else STEPS * eps
    assert (np.abs(narrow - expected) <= bound * scale).all()


@pytest.mark.parametrize("name", soaking(LETTER, keep=("amsgrad", "radam")))
def test_settings_make_it_the_paper_to_the_letter(name):
    options, theirs = LETTER[name]
    start, slopes = drawn(len(name) + 1)
    expected = np.array(list(PAPERS[name](start, lambda t, p: slopes[t], **theirs)))
    found, _ = wide_and_narrow(getattr(jf.optimizers, name)(RATE, **options), start, slopes)
    assert (np.abs(found - expected) <= 1e-12 * (1 + np.abs(expected).max(axis=0))).all()


def test_muon_moves_a_matrix_by_its_momentum_with_singular_values_about_one():
    rng = np.random.default_rng(3)
    slopes, p, momentum = rng.normal(size=(4, 3, 6)), rng.normal(size=(3, 6)), np.zeros((3, 6))
    start, expected = p, []
    for t, slope in enumerate(slopes):
        momentum = 0.95 * momentum + 0.05 * slope
        ahead = 0.95 * momentum / (1 - 0.95 ** (t + 2)) + 0.05 * slope / (1 - 0.95 ** (t + 1))
        x = ahead / np.linalg.norm(ahead)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        expected.append(p := p - 0.02 * np.sqrt(6 / 3) * x)
    with jax.enable_x64(True):
        found = moved(jf.optimizers.muon(0.02).build(), {"w": start}, {"w": slopes})
    np.testing.assert_allclose(found.reshape(4, 3, 6), expected, rtol=1e-6)  # of the eps in its norm


def test_rprop_moves_at_once_and_rests_where_the_gradient_turns():
    optimizer = jf.optimizers.rprop(0.1).build()
    state, steps = optimizer.init(jnp.zeros(())), []
    for slope in (1.0, 1.0, -1.0, -1.0, 1.0):
        update, state = optimizer.update(jnp.float32(slope), state)
        steps.append(float(update))
    np.testing.assert_allclose(steps, [-0.1, -0.12, 0.0, 0.06, 0.0], rtol=1e-6)  # as Riedmiller and Braun, and PyTorch


@pytest.mark.parametrize("b2", soaking([0.9, 0.99, 0.999, 0.9999], keep=(0.9, 0.9999)))
def test_radams_rho_keeps_its_digits_in_float32(b2):
    start, slopes = drawn(3)
    expected = np.array(list(Papers.radam(start, lambda t, p: slopes[t], b2=b2)))
    _, found = wide_and_narrow(jf.optimizers.radam(RATE, b2=b2), start, slopes)
    bound = STEPS * np.finfo(np.float32).eps * (1 + np.abs(expected).max(axis=0))
    assert (np.abs(found - expected) <= bound).all()


def test_yogi_stays_where_there_is_no_gradient():
    assert (moved(jf.optimizers.yogi(0.1).build(), np.ones(2, np.float32), np.zeros((5, 2), np.float32)) == 1).all()


FACTORIES = {name: getattr(optax, name) for name in PAPERS if name not in ("momentum", "nesterov", "muon")}


@pytest.mark.parametrize("name", FACTORIES)
def test_a_named_optimizer_takes_what_optaxs_factory_takes_with_its_defaults(name):
    theirs = inspect.signature(FACTORIES[name]).parameters
    mine = inspect.signature(getattr(jf.optimizers, name)).parameters
    assert set(theirs) <= set(mine)
    for key, parameter in theirs.items():
        if (name, key) != ("adadelta", "learning_rate"):  # None, with which Optax's climbs
            assert mine[key].default == parameter.default, key
    for key, parameter in mine.items():
        assert ("float" in parameter.annotation) == isinstance(parameter.default, float) or parameter.default in (
            inspect.Parameter.empty, None,
        ), key  # fmt: skip


OTHER = {  # a value of each hyperparameter that is not its default
    "b1": 0.1, "b2": 0.95, "eps": 0.02, "eps_root": 1e-4, "nesterov": True, "mu_dtype": "bfloat16", "rho": 0.7,
    "weight_decay": 0.05, "mask": (True, False), "weight_decay_mask": (True, False), "decay": 0.8, "momentum": 0.5,
    "initial_scale": 0.3, "eps_in_sqrt": False, "centered": True, "bias_correction": True, "threshold": 4.0,
    "initial_accumulator_value": 0.5, "bias_correction_mu": False, "bias_correction_nu": False, "eta_minus": 0.6,
    "eta_plus": 1.5, "min_step_size": 0.09, "max_step_size": 0.11, "accumulator_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(FACTORIES, keep=("rmsprop",)))
def test_every_hyperparameter_reaches_optaxs_factory(name):
    own = {"rprop": recurrences.rprop, "yogi": recurrences.yogi}
    rng = np.random.default_rng(5)
    start, slopes = (rng.normal(size=2), rng.normal(size=1)), (rng.normal(size=(9, 2)) + 1, rng.normal(size=(9, 1)))
    for key, parameter in inspect.signature(FACTORIES[name]).parameters.items():
        if key == "learning_rate":
            continue
        given = {key: not parameter.default if isinstance(parameter.default, bool) else OTHER[key]}
        needs = {"momentum": 0.5} if name in ("sgd", "rmsprop") and key in ("nesterov", "accumulator_dtype") else {}
        needs |= {"weight_decay": 0.05} if "mask" in key else {}
        with jax.enable_x64(True):
            found = moved(getattr(jf.optimizers, name)(RATE, **given, **needs).build(), start, slopes)
            theirs = moved(own.get(name, FACTORIES[name])(RATE, **given, **needs), start, slopes)
            default = moved(getattr(jf.optimizers, name)(RATE, **needs).build(), start, slopes)
        np.testing.assert_allclose(found, theirs, rtol=1e-9)
        if (name, key) != ("lion", "mu_dtype"):  # of which only the sign shows
            assert (found != default).any(), (name, key)


def test_a_mask_is_a_tree_of_booleans_or_a_function():
    x, y = np.linspace(-1, 1, 8), np.linspace(0, 2, 8)
    start = {"w": 1.0, "b": 0.5}
    loss = jf.losses.mse(jf.models.line)
    plain = jf.fit(
        loss, start, (x, y), optimizer=jf.optimizers.adamw(0.1, weight_decay=0.5, mask={"w": True, "b": False}), steps=9
    )
    by_function = jf.optimizers.adamw(0.1, weight_decay=0.5, mask=only_w)
    other = jf.fit(loss, start, (x, y), optimizer=by_function, steps=9)
    nothing = jf.fit(loss, start, (x, y), optimizer=jf.optimizers.adamw(0.1, weight_decay=0.0), steps=9)
    assert plain.params["w"] == other.params["w"] != nothing.params["w"]
    assert plain.params["b"] == other.params["b"]


def only_w(params):
    return {"w": True, "b": False}


@pytest.mark.parametrize(
    "factory", soaking([optax.adadelta, optax.adam, optax.sgd, optax.lion], keep=(optax.adadelta,))
)
def test_a_rate_of_none_is_refused_where_it_climbs(factory):
    given = {} if factory is optax.adadelta else {"learning_rate": None}
    with pytest.raises(TypeError, match=r"learning_rate is None.* climb; write learning_rate=1.0"):
        jf.optimizer(factory, **given)
    fit = jf.fit(lambda p: p**2, 1.0, optimizer=jf.optimizer(factory, learning_rate=1.0), steps=1)
    assert fit.params < 1  # the remedy


def test_a_rate_of_none_is_taken_where_it_goes_down():
    for factory in (optax.lbfgs, optax.adafactor, own_default):
        jf.optimizer(factory)
    fit = jf.fit(lambda p: p**2, 1.0, optimizer=jf.optimizer(own_default), steps=1)
    assert fit.params < 1


def own_default(learning_rate=None):
    return optax.sgd(0.1 if learning_rate is None else learning_rate)
