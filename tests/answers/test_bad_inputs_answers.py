"""Statistics, curvature, slices and graphs refuse what they cannot answer, and the remedy of each message works."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import landscapes
from tests.shared.bad_inputs import LOSS, SGD, START, Case, X, Y, check, fit, follows, named, sweep
from tests.shared.soak import soaking

DATA, LINE, LM = (X, Y), jf.models.line, jf.optimizers.levenberg_marquardt()
NOISY = Y + 0.1 * np.cos(9 * X)
SIGMA = np.full(8, 0.1)
CHI, UNEVEN = jf.losses.chi_squared(LINE), np.linspace(0.1, 0.2, 8)
SWEPT = {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}
WITH_PARAMS = jf.Record(what=("loss", "params"))
SCALE = {"w": 1.0, "b": 2.0}
NET = jf.models.dense((1, 2, 1))
SMALL = {"w": jf.Fixed(2.0), "b": 0.0}
COUNTS = np.array([2.0, 3.0, 2.0, 4.0, 5.0, 4.0, 6.0, 7.0])


def squares(p):
    return p["w"] ** 2 + 3.0 * p["b"] ** 2


def kinked(p):
    return jnp.sqrt(jnp.abs(p["w"])) ** 3 + p["b"] ** 2


def density(params, x, y):
    return -((LINE(params, x) - y) ** 2)


def of_density(params, x, y):
    return -density(params, x, y)


@jax.custom_vjp
def rule(x):
    return x * x


rule.defvjp(lambda x: (x * x, x), lambda x, g: (3.0 * x * g,))


def ruled(p):
    return rule(p)


def with_key(p, key):
    return p**2 + 0 * jax.random.normal(key)


@functools.cache
def run(name):
    """The fits and grids that several cases ask of, each made once."""
    return {
        "line": lambda: jf.curve_fit(LINE, START, (X, NOISY)),
        "uneven": lambda: jf.curve_fit(LINE, START, (X, NOISY), sigma=UNEVEN),
        "small": lambda: jf.curve_fit(LINE, SMALL, (X, NOISY)),
        "counts": lambda: fit(jf.losses.poisson(LINE), {"w": 4.0, "b": 2.0}, (X, COUNTS), optimizer=LM, steps=30),
        "huber": lambda: fit(jf.losses.huber(LINE), data=(X, NOISY), optimizer=LM, steps=30),
        "density": lambda: fit(jf.losses.likelihood(density), data=(X, NOISY), optimizer=jf.optimizers.lbfgs(),
        steps=50),
        "logistic": lambda: fit(jf.losses.sigmoid_cross_entropy(LINE), data=(X, (np.arange(8) % 3 > 0) * 1.0),
                                optimizer=jf.optimizers.lbfgs(), steps=50),
        "joint": lambda: fit(jf.losses.joint(a=CHI), {"a": START}, ((X, NOISY, SIGMA),), optimizer=LM, steps=30),
        "random": lambda: fit(jf.losses.input_noise(LOSS, scale=0.1), key=0),
        "recorded": lambda: fit(record=WITH_PARAMS, optimizer=jf.optimizers.momentum(0.1, 0.9), steps=9),
        "plain": lambda: fit(),
        "grid": lambda: sweep(),
        "grid with params": lambda: sweep(record=WITH_PARAMS),
        "grid with scales": lambda: sweep(
            record=jf.Record(what=("loss", "params", "preconditioner")), optimizer=jf.optimizers.adam(0.1)),
        "grid of noisy lines": lambda: jf.sweep(LOSS, SWEPT, (X, NOISY), optimizer=LM, steps=9),
        "grid of losses": lambda: jf.sweep(
            jf.Axis("kind", [jf.losses.rss(LINE), jf.losses.poisson(LINE)], ["rss", "poisson"]), {"w": 4.0, "b": 2.0},
            (X, COUNTS), optimizer=LM, steps=9),
        "grid of means": lambda: jf.sweep(
            jf.Axis("kind", [jf.losses.rss(LINE), LOSS], ["rss", "mse"]), START, (X, NOISY), optimizer=LM, steps=9),
        "grid of deltas": lambda: jf.sweep(
            jf.losses.huber(LINE, delta=jf.Axis("delta", [0.5, 2.0])), START, (X, NOISY), optimizer=LM, steps=9),
        "grid of Huber losses": lambda: jf.sweep(
            jf.Axis("delta", [jf.losses.huber(LINE, delta=d) for d in (0.5, 2.0)], [0.5, 2.0]), START, (X, NOISY),
            optimizer=LM, steps=9),
        "grid of widths": lambda: jf.sweep(
            jf.losses.least_squares(of_row), jf.Axis("n", [{"w": np.ones(1)}, {"w": np.ones(2)}]), (X, NOISY),
            optimizer=LM, steps=9),
    }[name]()  # fmt: skip


def of_row(params, x, y):
    return jnp.sum(params["w"]) * x - y


def draws(kind):
    return jf.monte_carlo(run(kind), 0, 9)


PREDICT, CONFIDE = {"kind": "prediction"}, {"kind": "confidence"}

STATISTICS = {
    "band, sigma of the curve": Case(lambda: jf.band(run("line"), X, sigma=0.1), ValueError, "sigma is given, but the",
        'pass kind="prediction"', lambda: jf.band(run("uneven"), X, sigma=0.1, kind="prediction")),
    "band, sigma of another length": Case(lambda: jf.band(run("uneven"), X, sigma=np.ones(3), **PREDICT), ValueError,
        r"shape \(3,\)", "or one for each prediction", lambda: jf.band(run("uneven"), X, sigma=np.ones(8), **PREDICT)),
    "band, sigma that differs": Case(lambda: jf.band(run("uneven"), X, **PREDICT), ValueError, "differs from point to",
        "pass sigma=, one standard deviation", lambda: jf.band(run("uneven"), X, sigma=0.1, **PREDICT)),
    "band, sigma of none": Case(lambda: jf.band(fitted_mse(), X, sigma=0.1, **PREDICT), ValueError,
        "takes it from the res",
        "leave it out", lambda: jf.band(fitted_mse(), X, **PREDICT)),
    "band of counts": Case(lambda: jf.band(run("counts"), X, **PREDICT), ValueError, "by its own distribution",
        r"scipy\.stats\.poisson\.interval\(level, fit\.predict\(x\)\)", lambda: poisson_quantiles(run("counts"))),
    "band of counts, the curve's": Case(lambda: jf.band(run("counts"), X, **PREDICT), ValueError, "by its own distrib",
        'or use kind="confidence"', lambda: jf.band(run("counts"), X, **CONFIDE)),
    "band, robust": Case(lambda: jf.band(run("huber"), X, **PREDICT), ValueError, "how the bulk of the observations",
        'use kind="confidence"', lambda: jf.band(run("huber"), X, **CONFIDE)),
    "covariance of the random": Case(lambda: jf.covariance(run("random")), TypeError, "is random", "without noise",
        lambda: jf.covariance(fitted_mse())),
    "covariance of losses": Case(lambda: jf.covariance(run("grid of losses")), ValueError, "tell of different noise",
        r"take one lane: jf\.lane\(grid, \.\.\.\)",
        lambda: jf.covariance(jf.lane(run("grid of losses"), kind="poisson"))),
    "covariance of an axis": Case(lambda: jf.covariance(run("grid of Huber losses")), TypeError, "the loss is an axis",
        r"jf\.lane\(grid, \.\.\.\)", lambda: jf.covariance(jf.lane(run("grid of Huber losses"), delta=2.0))),
    "covariance, no sigma": Case(lambda: jf.covariance(run("huber"), absolute_sigma=True), ValueError, "has no sigma",
        "leave it out", lambda: jf.covariance(run("huber"))),
    "covariance of shapes": Case(lambda: jf.covariance(run("grid of widths")), ValueError, "differ in shape from lane",
        r"take one: jf\.lane\(grid, \.\.\.\)", lambda: jf.covariance(jf.lane(run("grid of widths"), n=0))),
    "diagnostics of a density": Case(lambda: jf.diagnostics(run("density")), TypeError, "of a known standard deviation",
        "", lambda: jf.diagnostics(run("line"))),
    "residuals of a density": Case(lambda: jf.residuals(run("density")), TypeError, "only losses of squares",
        "call the model for the others", lambda: LINE(run("density").params, X)),
    "f_test of a density": Case(lambda: jf.f_test(run("small"), run("density")), TypeError, "is no fit by squares",
        "rss, mse", lambda: jf.f_test(run("small"), run("line"))),
    "f_test of other data": Case(lambda: jf.f_test(run("small"), other_data()), ValueError, "fits of different data",
        r"the same \(x, y, sigma\)", lambda: jf.f_test(run("small"), run("line"))),
    "f_test, exchanged": Case(lambda: jf.f_test(run("line"), run("small")), ValueError, "the larger model goes second",
        r"f_test\(small, large\)", lambda: jf.f_test(run("small"), run("line"))),
    "profile of a Huber loss": Case(lambda: jf.intervals(run("huber"), "profile"), TypeError, "a profile is of sums",
        'use method="wald"', lambda: jf.intervals(run("huber"), method="wald")),
    "intervals, a key": Case(lambda: jf.intervals(run("line"), key=0), ValueError, "draws nothing", "leave it out",
        lambda: jf.intervals(run("line"))),
    "monte_carlo of a Huber loss": Case(lambda: draws("huber"), TypeError, "not normal", r"use jf\.bootstrap",
        lambda: jf.bootstrap(run("huber"), 0, 9)),
    "monte_carlo of a density": Case(lambda: draws("density"), TypeError, "does not say how its data are drawn",
        r"use jf\.bootstrap, which draws points again", lambda: jf.bootstrap(run("density"), 0, 9, kind="pairs")),
    "bootstrap of counts in sets": Case(lambda: jf.bootstrap(joint_counts(), 0, 9), TypeError, "no points of one kind",
        r"use jf\.intervals\(fit\)", lambda: jf.intervals(joint_counts())),
    "bootstrap, too much": Case(lambda: jf.bootstrap(run("line"), 0, 10**9), ValueError, "data sets take",
        "ask for fewer samples", lambda: jf.bootstrap(run("line"), 0, 9)),
    "bootstrap of counts, too much": Case(lambda: jf.bootstrap(run("counts"), 0, 10**9), ValueError, "data sets take",
        "ask for fewer samples", lambda: jf.bootstrap(run("counts"), 0, 9)),
    "covariance of many params": Case(
        lambda: jf.covariance(jf.curve_fit(with_many, START | {"many": jf.Fixed(MANY)}, (X, NOISY))), ValueError,
        "there are 5,002 params",
        "let what stays constant stand in the model",
        lambda: jf.covariance(jf.curve_fit(with_constants, START, (X, NOISY)))),
    "bootstrap of programs": Case(lambda: jf.bootstrap(run("grid of means"), 0, 9), ValueError, "by 2 programs",
        r"jf\.lane\(grid, \.\.\.\)", lambda: jf.bootstrap(jf.lane(run("grid of means"), kind="mse"), 0, 9)),
    "report, derived": Case(lambda: jf.report(run("line"), derived=3), TypeError, "derived is 3",
        "functions of the par",
        lambda: jf.report(run("line"), derived={"ratio": lambda p: p["w"] / p["b"]})),
    "report, a name that is taken": Case(lambda: jf.report(run("line"), derived={"w": lambda p: 2 * p["w"]}),
        ValueError,
        "derived has 'w', which is a param", "another name",
        lambda: jf.report(run("line"), derived={"twice": lambda p: 2 * p["w"]})),
    "a fit that has not ended": Case(lambda: jf.explain(unended()), ValueError, "the run has not ended", "run it again",
        lambda: jf.explain(run("plain"))),
}  # fmt: skip


MANY = np.full(5000, 1e-3)


def with_many(p, x):
    return jnp.sum(p["many"]) * p["w"] * x + p["b"]


def with_constants(p, x):
    return with_many(p | {"many": MANY}, x)


@functools.cache
def fitted_mse():
    return fit(data=(X, NOISY), optimizer=LM, steps=30)


@functools.cache
def other_data():
    return jf.curve_fit(LINE, START, (X, NOISY + 1))


@functools.cache
def joint_counts():
    return fit(
        jf.losses.joint(a=jf.losses.poisson(LINE)), {"a": {"w": 4.0, "b": 2.0}}, ((X, COUNTS),), optimizer=LM, steps=30
    )  # fmt: skip


def poisson_quantiles(fit, level=0.9):
    from scipy import stats

    return stats.poisson.interval(level, fit.predict(X))


def unended():
    return dataclasses.replace(run("plain"), status=np.int32(jf.Status.NOT_RUN))


def line_plane():
    return landscapes.random_plane(START, key=0, normalize="leaf")


def surface_of(params, loss=LOSS, data=DATA):
    return jf.surface(loss, params, data)


CURVATURE = {
    "a tolerance": Case(lambda: jf.sharpness(LOSS, START, DATA, tolerance=2), ValueError, "tolerance is 2", "as 1e-3",
        lambda: jf.sharpness(LOSS, START, DATA, tolerance=1e-3)),
    "history of no run": Case(lambda: jf.sharpness(LOSS, START, DATA, history=True), ValueError, "there is no run",
        r"pass a fit or a grid: sharpness\(fit, \.\.\.\)", lambda: jf.sharpness(run("recorded"), history=True)),
    "recorded by no run": Case(lambda: jf.sharpness(LOSS, START, DATA, preconditioner="recorded"), ValueError,
        "no run that recorded one", "pass the numbers themselves",
        lambda: jf.sharpness(LOSS, START, DATA, preconditioner=SCALE)),
    "recorded by a fit": Case(lambda: jf.sharpness(LOSS, START, DATA, preconditioner="recorded"), ValueError,
        "no run that recorded one", r"or a fit: sharpness\(fit, preconditioner='recorded'\)",
        lambda: jf.sharpness(jf.lane(run("grid with scales"), w0=0.0), preconditioner="recorded")),
    "a preconditioner of a part": Case(lambda: jf.sharpness(LOSS, START, DATA, preconditioner={"w": 1.0}), ValueError,
        "preconditioner has the shapes", r"jf\.preconditioner\(optimizer, opt_state\)", lambda: by_adam(LOSS)),
    "a preconditioner of zero": Case(lambda: jf.sharpness(LOSS, START, DATA, preconditioner=SCALE | {"b": 0.0}),
        ValueError, "must be positive", "after one update at least", lambda: by_adam(LOSS)),
    "a preconditioner for a grid": Case(lambda: jf.sharpness(run("grid"), preconditioner=SCALE), TypeError, "of a grid",
        "pass the fit of one lane", lambda: jf.sharpness(jf.lane(run("grid"), w0=0.0), preconditioner=SCALE)),
    "a preconditioner at the ends": Case(lambda: jf.sharpness(run("grid with scales"), preconditioner="recorded"),
        ValueError, "keeps no preconditioner of its lanes' ends", "ask with history=True",
        lambda: jf.sharpness(run("grid with scales"), preconditioner="recorded", history=True)),
    "the history of a grid": Case(lambda: jf.sharpness(run("grid"), history=True), ValueError, "did not record its par",
        r"sweep with record=jf\.Record\(every=\.\.\., what=\('params',\)\)",
        lambda: jf.sharpness(sweep(record=jf.Record(every=1, what=("params",))), history=True)),
    "more eigenvalues than params": Case(lambda: jf.sharpness(LOSS, START, DATA, count=3), ValueError, "count is 3",
        "ask for at most so many", lambda: jf.sharpness(LOSS, START, DATA, count=2)),
    "a direction of no length": Case(
        lambda: jf.curvature_along(LOSS, START, DATA, directions={"w": np.zeros(1), "b": np.zeros(1)}), ValueError,
        "number 0 has length 0", "give it one",
        lambda: jf.curvature_along(LOSS, START, DATA, directions={"w": np.ones(1), "b": np.zeros(1)})),
    "an axis along directions": Case(
        lambda: jf.curvature_along(LOSS, SWEPT, DATA, directions={"w": np.ones(1), "b": np.ones(1)}), ValueError,
        "but looks at one point", "or jf.sharpness, which takes axes", lambda: jf.sharpness(LOSS, SWEPT, DATA)),
    "rates of many starts": Case(lambda: jf.learning_rate_range(LOSS, SWEPT, DATA, optimizer=SGD, steps=5), ValueError,
        "runs one problem", "call it for each",
        lambda: [jf.learning_rate_range(LOSS, START | {"w": w}, DATA, optimizer=SGD, steps=5) for w in (0.0, 1.0)]),
}  # fmt: skip


def by_adam(loss):
    adam = jf.optimizers.adam(0.1)
    return jf.sharpness(
        loss, START, DATA, preconditioner=jf.preconditioner(adam, jf.step(loss, START, DATA, optimizer=adam).opt_state)
    )


SLICES = {
    "a surface inside a jit": Case(lambda: jax.jit(lambda z: surface_of(SWEPT | {"b": z}).values)(1.0), TypeError,
        "surface .*jit", "call it outside", lambda: surface_of(SWEPT)),
    "too fine a surface": Case(
        lambda: surface_of({"w": jf.Axis("w", np.arange(2.0**16)), "b": jf.Axis("b", np.arange(2.0**16))}), ValueError,
        "make 4,294,967,296 points", "make the grid coarser",
        lambda: surface_of({"w": jf.Axis("w", np.arange(2.0**3)), "b": jf.Axis("b", np.arange(2.0**3))})),
    "the trail of a grid": Case(lambda: landscapes.trail(run("grid with params")), TypeError, "got a Grid",
        r"jf\.lane\(grid, \.\.\.\)", lambda: landscapes.trail(jf.lane(run("grid with params"), w0=0.0))),
    "coordinates that are none": Case(lambda: line_plane().at([np.nan], [0.0]), TypeError, "must be finite numbers",
        r"np\.linspace\(-1, 1, 51\)", lambda: line_plane().at(np.linspace(-1, 1, 51), [0.0])),
    "coordinates of one": Case(lambda: line_plane().at([0.0]), ValueError, "has 2 directions", "one set for each",
        lambda: line_plane().at([0.0], [1.0])),
    "a random plane of numbers": Case(lambda: landscapes.random_plane(START, key=0), ValueError, "nothing moves",
        'take normalize="leaf"', lambda: landscapes.random_plane(START, key=0, normalize="leaf")),
    "a random plane of zeros": Case(lambda: landscapes.random_plane({"w": np.zeros((2, 2))}, key=0), ValueError,
        "all are zero", 'or "none"', lambda: landscapes.random_plane({"w": np.zeros((2, 2))}, key=0, normalize="none")),
    "a plane at an axis": Case(lambda: landscapes.random_plane(SWEPT, key=0), TypeError, "one point",
        "give its numbers",
        lambda: landscapes.random_plane(START, key=0, normalize="leaf")),
    "the plane of one number": Case(
        lambda: landscapes.trajectory_plane(jf.fit(lambda p: p**2, 1.0, optimizer=SGD, steps=3, record=WITH_PARAMS)),
        ValueError, "moves one number", "draw its loss with surface",
        lambda: jf.surface(lambda p: p**2, jf.Axis("p", np.linspace(-1, 1, 5)))),
    "the plane of a line": Case(
        lambda: landscapes.trajectory_plane(fit(record=WITH_PARAMS, steps=1)), ValueError, "lie on one line",
        "record more of them", lambda: landscapes.trajectory_plane(run("recorded"))),
    "the line of a line": Case(
        lambda: landscapes.trajectory_plane(fit(record=WITH_PARAMS, steps=1)), ValueError, "lie on one line",
        r"or see the line with between\(start, end\)",
        lambda: surface_of(landscapes.between(START, run("plain").params).at())),
    "the Hessian's other plane": Case(lambda: landscapes.hessian_plane(squares, START, which="small"), ValueError,
        "which is 'small'", '"largest" or "ends"', lambda: landscapes.hessian_plane(squares, START, which="ends")),
    "the Hessian of one number": Case(lambda: landscapes.hessian_plane(lambda p: p**2, 1.0), ValueError, "one number",
        "draw its loss with surface", lambda: jf.surface(lambda p: p**2, jf.Axis("p", np.linspace(-1, 1, 5)))),
    "the Hessian at a kink": Case(lambda: landscapes.hessian_plane(kinked, {"w": 0.0, "b": 1.0}), ValueError,
        "not fini",
        "take others", lambda: landscapes.hessian_plane(kinked, {"w": 1.0, "b": 1.0})),
    "a path of another tree": Case(lambda: line_plane().project({"v": 1.0}), ValueError, "path is another tree",
        "give params like them", lambda: line_plane().project(START)),
    "a path of another shape": Case(lambda: line_plane().project({"w": np.ones((2, 2)), "b": np.ones((2, 2))}),
        ValueError, "path has leaves of shapes", "one more first axis",
        lambda: line_plane().project({"w": np.ones(2), "b": np.ones(2)})),
}  # fmt: skip


def graph(loss=LOSS, params=START, data=DATA, **keywords):
    return jf.backprop(loss, params, data, **keywords)


GRAPHS = {
    "half a precision": Case(lambda: graph(precision="half"), ValueError, "precision is 'half'", '"float32" or',
        lambda: graph(precision="float64")),
    "a loss's value": Case(lambda: graph(LOSS(START, X, Y)), TypeError, "loss is ",
        r"a function loss\(params, \*data\)",
        lambda: graph(LOSS)),
    "no key": Case(lambda: jf.backprop(with_key, 1.0), ValueError, "key is None", "pass a seed, key=0",
        lambda: jf.backprop(with_key, 1.0, key=0)),
    "a key for none": Case(lambda: graph(key=0), TypeError, "no argument named `key`", "leave key out", graph),
    "inside a jit": Case(lambda: jax.jit(lambda w: graph(params=START | {"w": w}).loss)(1.0), TypeError, "not known",
        "call it outside", graph),
    "inside a grad, by capture": Case(lambda: jax.grad(lambda z: jf.backprop(lambda p: p * z, 1.0).loss)(1.0),
        TypeError,
        "uses a value traced", "call backprop outside of it", lambda: jf.backprop(lambda p: p * 1.0, 1.0)),
    "a side effect": Case(lambda: jf.backprop(prints, 2.0), TypeError, "has a side effect", "take it out",
        lambda: jf.backprop(lambda p: p**2, 2.0)),
    "to networkx": Case(lambda: without_networkx(), ImportError, "is not installed",
        r"or use to_dot\(\) or to_mermaid\(\)",
        lambda: graph().to_dot() and graph().to_mermaid()),
    "no such call": Case(lambda: graph(open="relu"), ValueError, "open has 'relu'", "there are: ", graph),
    "a derivative of its own": Case(lambda: jf.backprop(ruled, 2.0, open="rule"), ValueError, "a derivative of its own",
        "leave it folded", lambda: jf.backprop(ruled, 2.0)),
    "boxes": Case(lambda: graph().fold(3), ValueError, "boxes is 3", "4 or more", lambda: graph().fold(4)),
    "no such node": Case(lambda: graph()["v"], KeyError, "no nodes are called 'v'", "the names are ",
        lambda: graph()["w"]),
    "along the edges of a folded one": Case(lambda: graph().fold(4).along(0), ValueError, "folded graph",
        "ask the graph that it was folded from", lambda: graph().along(first_edge())),
    "along no edge": Case(lambda: graph().along(999), ValueError, "edge 999", "with one can be moved",
        lambda: graph().along(first_edge())),
    "a step by L-BFGS": Case(lambda: graph().update(jf.optimizers.lbfgs()), TypeError, "more than a gradient",
        r"use jf\.step", lambda: jf.step(LOSS, START, DATA, optimizer=jf.optimizers.lbfgs())),
    "no derivative": Case(lambda: jf.backprop(called_back, 2.0), TypeError, "has no derivative", "jax.custom_vjp",
        lambda: jf.backprop(ruled, 2.0)),
}  # fmt: skip


def without_networkx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "networkx", None)
        return graph().to_networkx()


def first_edge():
    return next(i for i, edge in enumerate(graph().edges) if edge.gradient is not None)


def prints(p):
    jax.debug.print("{}", p)
    return p**2


def called_back(p):
    return jax.pure_callback(lambda x: np.float32(x), jax.ShapeDtypeStruct((), jnp.float32), p) ** 2


CASES = named({"statistics": STATISTICS, "curvature": CURVATURE, "slice": SLICES, "graph": GRAPHS})


COMPILES = [  # programs of their own
    name for name in CASES
    if name.partition(": ")[2].startswith(("bootstrap", "monte_carlo", "covariance of", "diagnostics", "residuals of",
                                             "f_test of a d", "profile", "band of", "band, robust"))
    or "a grid" in name or "at the ends" in name or name.startswith("slice: the ") or "a step by" in name
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, but=COMPILES))
def test_what_has_no_answer_is_refused_in_words_that_help(name, events):
    check(CASES[name], events, may_compile=True)


KEPT = [name for name in CASES if name not in COMPILES and name.startswith(("curvature: a ", "graph: ", "slice: "))]


@pytest.mark.parametrize("name", soaking(CASES, keep=KEPT))
def test_the_remedy_of_a_message_about_an_answer_works(name):
    assert follows(CASES[name].mended)
