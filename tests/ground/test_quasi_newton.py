"""L-BFGS ends where no step can improve in the precision, and claims nothing elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from tests.shared import mgh
from tests.shared.soak import soaking

LBFGS = jf.optimizers.lbfgs()


def squares(name):
    return mgh.loss_of(mgh.PROBLEMS[name].residuals)


@jax.custom_vjp
def once(x):
    """x, whose derivative is 1 and cannot be differentiated again by reverse mode."""
    return x


def _refuse(_, g):
    raise NotImplementedError("no second derivative")


once.defvjp(lambda x: (x, None), _refuse)


@jax.custom_vjp
def own_gradient(p):
    return jnp.sum((p - 1) ** 2) + 0.5


own_gradient.defvjp(lambda p: (own_gradient(p), p - 1), lambda kept, g: (once(2 * kept * g),))


@pytest.mark.soak
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_least_value_of_zero_ends(precision):
    fit = jf.fit(squares("Rosenbrock"), np.array([-1.2, 1.0]), optimizer=LBFGS, steps=2000, precision=precision)
    eps = np.finfo(precision).eps
    assert fit.status == jf.Status.CONVERGED and fit.steps < 100
    assert fit.loss < 16 * 900 * eps**2  # 900 is p |H| p / 2 at (1, 1): what moving the params by their eps changes
    np.testing.assert_allclose(fit.params, 1, rtol=1e4 * eps)


# Also from a hundred times its start, where the loss is 1e34: what has fallen far may still be far from its least.
@pytest.mark.usefixtures("nothing_was_compiled_before")  # each problem is a new function of one name
@pytest.mark.parametrize("name", soaking(mgh.PROBLEMS, keep=("Jennrich-Sampson",)))
def test_no_claim_is_false_on_problems_of_more_garbow_and_hillstrom(name):
    problem, loss = mgh.PROBLEMS[name], squares(name)
    for start in mgh.starts(problem):
        with jax.enable_x64(True):
            if not np.isfinite(jax.jit(loss)(start)):
                continue
        fit = jf.fit(loss, start, optimizer=LBFGS, steps=3000, precision="float64", record=jf.Record(what=()))
        assert fit.status != jf.Status.CONVERGED or mgh.is_minimum(problem, fit.params), (start, fit.loss)


@pytest.mark.soak
def test_a_saddle_is_no_minimum():
    """Of Biggs' function, to which a run goes from its start, whose symmetry each step keeps."""
    problem = mgh.PROBLEMS["Biggs"]
    fit = jf.fit(squares("Biggs"), problem.start, optimizer=LBFGS, steps=100, precision="float64")
    np.testing.assert_allclose(fit.loss, problem.least[1], rtol=1e-5)
    assert fit.status == jf.Status.OUT_OF_STEPS and not mgh.is_minimum(problem, fit.params)
    assert jf.explain(fit).kind == "saddle"


@pytest.mark.parametrize("name", soaking(["Powell badly scaled", "Meyer", "Osborne 1"], keep=()))
def test_what_is_solved_is_said_to_be(name):
    problem = mgh.PROBLEMS[name]
    fit = jf.fit(squares(name), problem.start, optimizer=LBFGS, steps=3000, precision="float64")
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.loss, problem.least[0], rtol=1e-5, atol=1e-25)


@pytest.mark.parametrize("factor", soaking([1, 100], keep=(1,)))
def test_more_params_than_are_probed_end_at_a_least_value_of_zero(factor):
    start = factor * np.tile([-1.2, 1.0], 40)
    loss = lambda x: jnp.sum(mgh.extended_rosenbrock(x) ** 2)  # noqa: E731
    fit = jf.fit(loss, start, optimizer=LBFGS, steps=400, precision="float64", record=jf.Record(what=()))
    assert fit.status == jf.Status.CONVERGED
    assert fit.loss < 16 * 40 * 900 * np.finfo(float).eps ** 2
    np.testing.assert_allclose(fit.params, 1, rtol=1e-11)


@pytest.mark.soak
def test_lanes_end_as_they_do_alone():
    starts = np.array([[-1.2, 1.0], [3.0, -2.0], [0.5, 4.0]])
    loss = squares("Rosenbrock")
    grid = jf.sweep(loss, jf.Axis("start", starts), optimizer=LBFGS, steps=300, precision="float64")
    assert (grid.results.status == jf.Status.CONVERGED).all() and (grid.results.loss < 1e-26).all()


@pytest.mark.soak
def test_a_bound_that_is_reached_does_not_keep_it_from_ending():
    start = jf.Bounded(np.array([-1.2, 0.4]), -2.0, 0.5)
    fit = jf.fit(squares("Rosenbrock"), start, optimizer=LBFGS, steps=500, precision="float64")
    assert fit.status == jf.Status.CONVERGED  # at x = .5, y = x**2: the loss is .25
    np.testing.assert_allclose(fit.params, [0.5, 0.25], rtol=1e-7)


@pytest.mark.soak
def test_a_runaway_param_is_no_minimum():
    loss = jf.losses.mse(lambda p, x: jnp.exp(-p["k"] * x) + 1)
    x = np.array([1.0, 2.0, 3.0])
    fit = jf.fit(loss, {"k": 1.0}, (x, np.full(3, 0.5)), optimizer=LBFGS, steps=300, precision="float64")
    assert fit.status != jf.Status.CONVERGED  # the loss falls as long as k grows


@pytest.mark.soak
def test_a_gradient_without_a_second_derivative_still_ends():
    fit = jf.fit(own_gradient, np.array([3.0, -2.0]), optimizer=LBFGS, steps=300, precision="float64")
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.params, [1.0, 1.0], rtol=1e-6)


def bowl(p, scale, least):
    return jnp.sum(scale * (p - least) ** 2)


@pytest.mark.parametrize(("start", "scale"), [(1e15, 1.0), (1e-15, 1.0), (1e10, 1e-10), (1.0, 1e-30)])
def test_a_start_or_loss_of_an_odd_size_arrives(start, scale):
    """The first gradient overflows in float32 when it is squared, or its step is lost in the rounding of the params."""
    least = np.array([3.0, 4.0])
    fit = jf.fit(bowl, np.full(2, start), (scale, least), optimizer=LBFGS, steps=20)
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.params, least, rtol=1e-5)


EXPONENTS = [-30, -15, -8, -4, 0, 4, 8, 12, 15, 18, 30]


@pytest.mark.soak
@pytest.mark.parametrize("size", [1, 2, 12])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_starts_and_losses_of_any_size_arrive(size, precision):
    """The least of scale * |p - c|**2 is at c; a run arrives unless the loss overflows at its start, which is said."""
    least = np.arange(3.0, 3 + size)
    starts = np.array([0.0, *(sign * 10.0**e for e in EXPONENTS for sign in (1, -1))])
    scales = np.array([1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30])
    pairs = np.stack(np.meshgrid(starts, scales), -1).reshape(-1, 2)
    data = jf.Axis("pair", pairs[:, 1]), least
    start = jf.Axis("pair", np.repeat(pairs[:, :1], size, axis=1))
    grid = jf.sweep(bowl, start, data, optimizer=LBFGS, steps=100, precision=precision).results
    finite = pairs[:, 1] * 100 * np.maximum(pairs[:, 0] ** 2, 100) < np.finfo(precision).max
    finite &= np.maximum(pairs[:, 0] ** 2, 1) * size < np.finfo(precision).max
    assert (grid.status[finite] == jf.Status.CONVERGED).all() and finite.mean() > 0.7
    np.testing.assert_allclose(grid.params[finite], np.broadcast_to(least, grid.params[finite].shape), rtol=1e-3)
    assert set(grid.status[~finite].values.tolist()) <= {jf.Status.CONVERGED, jf.Status.DIVERGED, jf.Status.NOT_FINITE}


@pytest.mark.soak
@pytest.mark.parametrize("power", [2, 4])
def test_a_tiny_start_beside_a_large_one_arrives(power):
    """The run of the fourth power goes from 1e8 to about 0 first, where steps of its start's size say nothing."""
    loss = lambda p: (p["a"] - 3) ** 2 + (p["b"] - 2) ** power  # noqa: E731
    fit = jf.fit(loss, {"a": 1e-15, "b": 1e8}, optimizer=LBFGS, steps=200)
    assert fit.status == jf.Status.CONVERGED
    lost = (16 * np.finfo(np.float32).eps * 2 * 3) ** 2  # the least loss above the rounding of a residual (a - 3)
    assert fit.loss <= lost
    np.testing.assert_allclose([fit.params["a"], fit.params["b"]], [3, 2], atol=1.1 * lost**0.25)


def drawn_starts(seed, size, count=100):
    """Params (count, size) of either sign and of any size over 12 decades."""
    draw = np.random.default_rng(seed)
    return draw.choice([-1, 1], (count, size)) * 10 ** (draw.uniform(-6, 6, (count, 1)) + draw.uniform(-0.3, 0.3, size))


BOWLS = {  # each of least 0, and of a sum of squares of its params there, whose rounding it cannot fall below
    "p**2": (lambda p: jnp.sum(p**2), 0.0),
    "p**4": (lambda p: jnp.sum(p**4), 0.0),
    "uneven p**4": (lambda p: jnp.sum(jnp.array([1.0, 1e3, 1e-3]) * p**4), 0.0),
    "|p|**3": (lambda p: jnp.sum(jnp.abs(p) ** 3), 0.0),
    "both": (lambda p: jnp.sum((p[:1] - 3) ** 2) + jnp.sum((p[1:] - 2) ** 4), 9.0),
}


@pytest.mark.parametrize("precision", soaking(["float32", "float64"], keep=("float32",)))
@pytest.mark.parametrize("name", soaking(BOWLS, keep=("p**4",)))
def test_no_claim_is_false_of_bowls_from_starts_of_any_size(name, precision):
    """From 3e4, p**4 in float32 comes down to 1e-11 in one step: there the rounding of the start ends, not the run."""
    loss, reach = BOWLS[name]
    starts = drawn_starts(len(name), 1 if name == "p**4" else 3)
    found = jf.sweep(loss, jf.Axis("start", starts), optimizer=LBFGS, steps=300, precision=precision).results
    claimed = found.status.values == jf.Status.CONVERGED
    assert (found.loss.values[claimed] <= 64 * np.finfo(precision).eps ** 2 * max(1, reach)).all()
    if name in ("p**2", "both") or (name, precision) == ("p**4", "float32"):  # of others a step takes but a part
        assert claimed.all()


def peaks(params, x):
    return params[0] * jnp.exp(-0.5 * ((x - params[1]) / params[2]) ** 2)


def decays(params, x):
    return params[0] * jnp.exp(-params[1] * x) + params[2]


@pytest.mark.soak
@pytest.mark.parametrize("curve", [peaks, decays])
def test_of_what_is_said_to_be_least_in_float32_newtons_steps_in_float64_take_no_more_than_an_idle_step(curve):
    """An idle step is one that lowers the loss by no more than eps**0.75 of it."""
    draw, count = np.random.default_rng(3), 200
    x = np.linspace(-5, 5, 40) if curve is peaks else np.linspace(0, 5, 40)
    true = np.stack([draw.uniform(0.5, 4, count), draw.uniform(0.3, 3, count), draw.uniform(0.3, 2, count)], axis=1)
    y = np.stack([curve(p, x) for p in true]) + 0.05 * draw.normal(size=(count, 40))
    starts = true * draw.uniform(0.6, 1.6, (count, 3))
    loss = jf.losses.rss(curve)
    found = jf.sweep(loss, jf.Axis("set", starts), (x, jf.Axis("set", y)), optimizer=LBFGS, steps=300).results
    claimed = found.status.values == jf.Status.CONVERGED
    assert claimed.mean() > 0.95

    def left(p, y):
        grads, hessian = jax.grad(loss)(p, x, y), jax.hessian(loss)(p, x, y)
        there = p - jnp.linalg.solve(hessian, grads)
        return 1 - loss(there, x, y) / loss(p, x, y)

    with jax.enable_x64(True):
        shares = np.asarray(jax.jit(jax.vmap(left))(found.params.values.astype(float), y))
    assert shares[claimed].max() <= np.finfo(np.float32).eps ** 0.75


X = np.linspace(0, 3, 20)
Y = 2 * np.exp(-X) + 0.05 * np.sin(9 * X)
TRADING = {  # models two of whose params trade against each other along a curve, and starts
    "shift": (lambda p, x: p[0] * jnp.exp(-p[1] * (x - p[2])), (1.0, 0.5, 0.1)),
    "ratio": (lambda p, x: p[0] * x / p[1] + p[2], (1.0, 0.5, 0.1)),
    "product": (lambda p, x: p[0] * p[1] * p[2] * jnp.exp(-p[3] * x), (1.0, 0.5, 0.7, 0.3)),
    "sum": (lambda p, x: p[0] * x + p[1] * x + p[2], (1.0, 0.5, 0.1)),
}


@pytest.mark.parametrize("name", soaking(TRADING, keep=("shift",)))
@pytest.mark.parametrize("precision", soaking(["float64", "float32"], keep=("float64",)))
def test_a_minimum_along_which_params_trade_is_known(name, precision):
    """The gradient that is left bends the loss down along the curve of all minima, by as much as itself."""
    model, start = TRADING[name]
    for factor in (1, 10 if precision == "float64" else 3):  # ten times a shift is a curve of zeros in float32
        fit = jf.fit(
            jf.losses.rss(model), factor * np.array(start), (X, Y), optimizer=LBFGS, steps=60, precision=precision
        )
        assert fit.status == jf.Status.CONVERGED and fit.steps < 40


@pytest.mark.soak
def test_a_saddle_between_minima_along_which_params_trade_is_no_minimum():
    """A slope a * b that must be negative, from a = b: at a = b = 0 the gradient is 0, and the loss bends down."""
    loss = jf.losses.rss(lambda p, x: p[0] * p[1] * x + p[2])
    fit = jf.fit(loss, np.array([0.7, 0.7, 0.1]), (X, Y), optimizer=LBFGS, steps=100, precision="float64")
    assert fit.status == jf.Status.OUT_OF_STEPS and jf.explain(fit).kind == "saddle"


IDLE = {  # models with a param that changes nothing where it starts: whether it does elsewhere
    "unused": (lambda p, x: p["a"] * x, {"a": 1.0, "m": 2.0}, False),
    "step": (lambda p, x: p["a"] * x + jax.nn.relu(x - p["m"]), {"a": 1.0, "m": 50.0}, True),
    "step to the left": (lambda p, x: p["a"] * x + jax.nn.relu(-x - 5 - p["m"]), {"a": 1.0, "m": 50.0}, True),
    "step of height 1": (lambda p, x: p["a"] * x + p["h"] * jax.nn.relu(x - p["m"]), dict(a=1.0, h=1.0, m=50.0), True),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the loss does not depend")
@pytest.mark.parametrize("name", ["unused", "step", "step to the left"])
def test_a_single_fit_tells_a_plateau_from_a_param_that_never_counts(name):
    model, start, plateau = IDLE[name]
    fit = jf.fit(jf.losses.rss(model), start, (X, Y), optimizer=jf.optimizers.levenberg_marquardt(), steps=30)
    assert fit.status == (jf.Status.OUT_OF_STEPS if plateau else jf.Status.NOT_DETERMINED)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:the loss does not depend")
@pytest.mark.parametrize("method", soaking(["lbfgs", "levenberg_marquardt"], keep=("levenberg_marquardt",)))
@pytest.mark.parametrize("name", soaking(IDLE, keep=("step of height 1",)))
def test_a_param_without_influence_is_not_determined_or_lies_on_a_plateau(name, method):
    model, start, plateau = IDLE[name]
    optimizer = getattr(jf.optimizers, method)()
    fit = jf.fit(jf.losses.rss(model), start, (X, Y), optimizer=optimizer, steps=30, precision="float64")
    lane = jf.sweep(
        jf.losses.rss(model), start, (X, jf.Axis("y", Y[None])), optimizer=optimizer, steps=30, precision="float64"
    )
    expected = jf.Status.OUT_OF_STEPS if plateau else jf.Status.NOT_DETERMINED
    assert fit.status == expected and (lane.results.status == expected).all()
    assert jf.explain(fit).kind == ("dead units" if plateau else "not determined")
    slope = (X @ Y) / (X @ X)
    np.testing.assert_allclose(fit.params["a"], slope, rtol=1e-7)


@pytest.mark.soak
@pytest.mark.parametrize("factor", [1, 10, 100])
def test_a_linear_problem_some_of_whose_params_do_not_count_ends_at_its_least(factor):
    problem = mgh.PROBLEMS["linear, rank one with zeros"]
    start = factor * np.asarray(problem.start, float)
    fit = jf.fit(squares("linear, rank one with zeros"), start, optimizer=LBFGS, steps=30, precision="float64")
    assert fit.status == jf.Status.NOT_DETERMINED and mgh.is_minimum(problem, fit.params)
    np.testing.assert_allclose(fit.loss, problem.least[0], rtol=1e-14)


def flattened(x):
    return jnp.sum((x - 1) ** 4) + jnp.sum((x - 1) ** 2)


AWAY = np.array([3.0, -2.0], np.float32)


def test_the_verdict_is_compiled_when_it_is_first_asked_for(events):
    soon = jf.fit(flattened, AWAY, optimizer=LBFGS, steps=2)
    assert soon.status == jf.Status.OUT_OF_STEPS and "settle" not in events["program"]
    fit = jf.fit(flattened, AWAY, optimizer=LBFGS)
    assert events["program"].count("settle") == 1 and fit.status == jf.Status.CONVERGED
    assert len(fit.history.loss) == fit.steps + 1 and fit.history.loss[-1] == fit.loss
    assert jf.fit(flattened, np.ones(2, np.float32), optimizer=LBFGS).steps == 0
    longer = jf.resume(soon, 1000)
    assert longer.steps == fit.steps and (longer.params == fit.params).all()


@pytest.mark.soak
def test_a_run_that_records_some_steps_judges_within_its_program_and_ends_alike():
    apart, within = (jf.fit(flattened, AWAY, optimizer=LBFGS, record=jf.Record(every=every)) for every in (1, 2))
    assert (apart.status, apart.steps) == (within.status, within.steps) == (jf.Status.CONVERGED, apart.steps)
    np.testing.assert_allclose(apart.params, within.params, rtol=1e-6)
