"""Fits, sweeps, grids and searches that cannot run are refused in words that help, and each remedy works."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, SGD, START, Case, X, Y, check, fit, follows, named, own, sweep, with_
from tests.shared.soak import soaking

DATA, LINE, LM = (X, Y), jf.models.line, jf.optimizers.levenberg_marquardt()
NOISY = Y + 0.1 * np.cos(9 * X)
SIGMA = np.full(8, 0.1)
LOPSIDED = with_(np.eye(8), (0, 1), 0.1)
CHI = jf.losses.chi_squared(LINE)
RATES = jf.optimizers.sgd(jf.Axis("rate", np.geomspace(1e-3, 1e-1, 6)))
RECORD = jf.Record(every=2)
HELD_OUT = jf.Record(every=2, what=("loss", "validation_loss"))
INSIDE = {"w": jf.Bounded(1.0, 0.0, 2.0), "b": jf.Fixed(0.0)}


def curve(predict=LINE, start=START, data=(X, NOISY), **keywords):
    return jf.curve_fit(predict, start, data, **keywords)


def line_(params, x):
    return params["w"] * x + params["b"]


def pruned(prune, **keywords):
    return sweep(params=START, optimizer=RATES, **({"steps": 8, "record": RECORD, "prune": prune} | keywords))


def size(params, *data):
    return params["w"] ** 2 + params["b"] ** 2


def below(rung):
    return rung.values <= np.median(rung.values)


def high(results):
    return results.loss > 1.0


def refine(**keywords):
    return jf.refine(LOSS, {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, DATA, **(
        {"optimizer": SGD, "steps": 3, "depth": 1} | keywords))  # fmt: skip


@functools.cache
def grid(name):
    """The grids that several cases ask of, each made once."""
    return {
        "rates": lambda: sweep(params=START, optimizer=RATES),
        "starts": lambda: sweep(),
        "uneven": lambda: sweep(params={"w": jf.Axis("w0", [0.0, 0.1, 1.0]), "b": 0.0}),
        "bad": lambda: sweep(params=START, optimizer=jf.optimizers.sgd(jf.Axis("rate", [1e3, 1e4])), steps=30),
        "sets": lambda: sweep(params=START, data=(X, jf.Axis("set", np.stack([Y, 2 * Y])))),
        "widths": lambda: sweep(of_row, jf.Axis("n", [{"w": np.ones(1)}, {"w": np.ones(2)}])),
    }[name]()


class Uncertain:
    """As numbers of the package `uncertainties` look."""

    def __init__(self, nominal_value, std_dev=0.1):
        self.nominal_value, self.std_dev = nominal_value, std_dev


def uncertain(values):
    return np.array([Uncertain(float(v)) for v in values], object)


class Columns(dict):
    """As a table looks: columns by name, and an array as a whole."""

    columns = property(lambda self: list(self))

    def __array__(self, dtype=None, copy=None):
        return np.stack(list(self.values()), axis=1)


class OnDevice:
    """As a tensor looks that is on a GPU."""

    device, dtype, shape, requires_grad = "cuda:0", "float32", (8,), True

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def detach(self):
        return self

    def cpu(self):
        return X


TABLE = Columns(x=X, y=Y)


def padded():
    return np.stack([X, X]), np.stack([Y, Y]), np.stack([SIGMA, SIGMA]), np.stack([X >= 0, X < 0])


def masked_sets(*kept):
    loss = jf.losses.joint(days=jf.losses.each(jf.losses.chi_squared(LINE, masked=True)))
    data = tuple(x[list(kept)] for x in padded())
    return fit(loss, {"w": 1.0, "days": {"b": np.zeros(len(kept))}}, (data,), optimizer=LM, steps=9)


def of_row(params, x, y):
    return jnp.mean((jnp.sum(params["w"]) * x - y) ** 2)


def random(params, x, y, key):
    return own(params, x, y) + 0 * jax.random.normal(key)


def decides(learning_rate, fast=1.0):
    return optax.sgd(learning_rate * 2 if fast > 0 else learning_rate)


def weighted(params, x, y, sigma):
    return (LINE(params, x) - y) / sigma


CURVES = {
    "an axis": Case(lambda: curve(start={"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}), ValueError, "got an Axis",
        r"call jf\.sweep\(jf\.losses\.chi_squared\(predict\), start, \(x, y, sigma\)",
        lambda: jf.sweep(jf.losses.chi_squared(LINE), {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, (X, NOISY, SIGMA),
                         optimizer=jf.optimizers.levenberg_marquardt())),
    "absolute, a word": Case(lambda: curve(absolute_sigma="yes"), TypeError, "is 'yes'", "True or False",
        lambda: curve(sigma=0.1, absolute_sigma=True)),
    "absolute of nothing": Case(lambda: curve(absolute_sigma=True), ValueError, "no sigma", "pass sigma in the units",
        lambda: curve(sigma=0.1, absolute_sigma=True)),
    "a correlation alone": Case(lambda: curve(correlation=0.5), ValueError, "but no x_sigma", "pass both",
        lambda: curve(sigma=0.1, x_sigma=0.1, correlation=0.5)),
    "a delta alone": Case(lambda: curve(delta=0.5), ValueError, 'the loss is "linear"', 'pass loss="huber"',
        lambda: curve(delta=0.5, loss="huber")),
    "a loss of no name": Case(lambda: curve(loss="hubr"), ValueError, "'hubr'", "did you mean huber",
        lambda: curve(loss="huber")),
    "a robust loss with sigma": Case(lambda: curve(loss="huber", sigma=0.1), ValueError, "sigma is given with the loss",
        "leave it out", lambda: curve(loss="huber")),
    "a robust loss with sigmas": Case(lambda: curve(loss="huber", sigma=SIGMA), ValueError, "sigma is given with",
        r"fit jf\.losses\.least_squares of residuals over sigma",
        lambda: fit(jf.losses.least_squares(weighted), data=(X, NOISY, SIGMA), optimizer=LM, steps=9)),
    "two kinds of sigma": Case(lambda: curve(data=(X, uncertain(NOISY)), sigma=0.1), TypeError,
        "uncertainties of their",
        "leave sigma out", lambda: curve(data=(X, uncertain(NOISY)))),
    "two kinds of sigma, the given": Case(lambda: curve(data=(X, uncertain(NOISY)), sigma=0.1), TypeError,
        "uncertaintie",
        r"pass np\.array\(\[v\.nominal_value for v in y\]\) as y",
        lambda: curve(data=(X, np.array([v.nominal_value for v in uncertain(NOISY)])), sigma=0.1)),
    "no start": Case(lambda: curve(line_, None), TypeError, "line_.* guesses nothing", "give the params to start from",
        lambda: curve(line_)),
    "an error below zero": Case(lambda: curve(sigma=0.1, x_sigma=-0.1), ValueError, "x_sigma is -0.1", "zero or more",
        lambda: curve(sigma=0.1, x_sigma=0.1)),
    "a correlation of text": Case(lambda: curve(sigma=0.1, x_sigma="a"), TypeError, "x_sigma is 'a'",
        "array of numbers",
        lambda: curve(sigma=0.1, x_sigma=SIGMA)),
}  # fmt: skip

FITS = {
    "float64 inside a jit": Case(
        lambda: jax.jit(lambda w: fit(params=START | {"w": w}, precision="float64").loss)(1.0), ValueError,
        "needs 64-bit types there", r"with jax\.enable_x64\(True\):",
        lambda: wide(lambda w: fit(params=START | {"w": w}, precision="float64").loss)),
    "float64 inside a jit, given up": Case(
        lambda: jax.jit(lambda w: fit(params=START | {"w": w}, precision="float64").loss)(1.0), ValueError,
        "needs 64-bit types there", 'or pass precision="float32"',
        lambda: jax.jit(lambda w: fit(params=START | {"w": w}, precision="float32").loss)(1.0)),
    "outside of the loss": Case(lambda: fit(jf.losses.poisson(LINE), START | {"b": -9.0}, optimizer=LM), ValueError,
        "the loss at the start is", "start from params at which it is finite",
        lambda: fit(jf.losses.poisson(LINE), START | {"b": 1.0}, optimizer=LM)),
    "the state of another": Case(lambda: step(jf.optimizers.adam(0.1), step(SGD).opt_state), ValueError,
        "opt_state has",
        "None to start afresh", lambda: step(jf.optimizers.adam(0.1), None)),
    "the state of other params": Case(
        lambda: step(jf.optimizers.momentum(0.1), step(jf.optimizers.momentum(0.1), None, {"w": np.ones(3)}).opt_state),
        ValueError, "opt_state", "pass the .opt_state of the step before",
        lambda: step(jf.optimizers.momentum(0.1), step(jf.optimizers.momentum(0.1)).opt_state)),
    "L-BFGS on batches": Case(lambda: fit(optimizer=jf.optimizers.lbfgs(), batches=jf.Batches(2), key=0), ValueError,
        "compares the losses of different steps", "leave batches out", lambda: fit(optimizer=jf.optimizers.lbfgs())),
    "L-BFGS on batches, by Adam": Case(lambda: fit(optimizer=jf.optimizers.lbfgs(), batches=jf.Batches(2), key=0),
        ValueError, "compares the losses", r"jf\.optimizers\.adam\(1e-2\)",
        lambda: fit(optimizer=jf.optimizers.adam(1e-2), batches=jf.Batches(2), key=0)),
    "L-BFGS on noise": Case(lambda: fit(random, optimizer=jf.optimizers.lbfgs(), key=0), ValueError,
        "which a random one",
        "use a loss without a key", lambda: fit(own, optimizer=jf.optimizers.lbfgs())),
    "residuals behind a function": Case(lambda: fit(own, optimizer=LM), TypeError,
        "needs the residuals behind the loss",
        r"write a function residuals\(params, \*data\) and pass jf\.losses\.least_squares",
        lambda: fit(jf.losses.least_squares(lambda p, x, y: LINE(p, x) - y), optimizer=LM)),
    "residuals behind a function, by L-BFGS": Case(lambda: fit(own, optimizer=LM), TypeError, "needs the residuals",
        r"any loss does for jf\.optimizers\.lbfgs\(\)", lambda: fit(own, optimizer=jf.optimizers.lbfgs())),
    "batches of no data": Case(lambda: fit(lambda p: p["w"] ** 2 + p["b"] ** 2, data=(), batches=jf.Batches(2), key=0),
        ValueError, "takes no data of which rows", "leave batches out",
        lambda: fit(lambda p: p["w"] ** 2 + p["b"] ** 2, data=())),
    "batches of whole sets": Case(lambda: fit(*many(), batches=jf.Batches(2), key=0), ValueError, "a whole set",
        "leave batches out", lambda: fit(*many(), optimizer=jf.optimizers.sgd(1e-4))),
    "the gradient of a search": Case(
        lambda: fit(optimizer=jf.searches.random_search(0.1), key=0, stop=jf.Stop(gradient_norm_below=1e-3)),
        ValueError, "finds no gradient", "watch or record the loss or the params",
        lambda: fit(optimizer=jf.searches.random_search(0.1), key=0, stop=jf.Stop(loss_below=1e-3))),
    "the scale of gradient descent": Case(lambda: fit(record=jf.Record(what=("loss", "preconditioner"))), ValueError,
        "record: preconditioner is wanted for", "leave it out", lambda: fit(record=jf.Record(what=("loss",)))),
    "a factory that decides": Case(lambda: fit(optimizer=jf.optimizer(decides, learning_rate=0.01, fast=1.0)),
        TypeError,
        "decides by the value of a hyperparameter",
        r"jf\.optimizer\(functools\.partial\(factory, name=value\), \.\.\.\)",
        lambda: fit(optimizer=jf.optimizer(functools.partial(decides, fast=1.0), learning_rate=0.01))),
    "a function of no model": Case(lambda: fit(own).predict(X), TypeError, "predict needs the fit of a loss of a model",
        r"call the model itself: model\(fit\.params, x\)", lambda: LINE(fit(own).params, X)),
    "converged inside a jit": Case(
        lambda: jax.jit(lambda w: jf.require_converged(fit(params=START | {"w": w})).loss)(1.0), TypeError, "is traced",
        "call it on what the jit, vmap or grad returns",
        lambda: jf.require_converged(jax.jit(lambda w: fit(
            jf.losses.rss(LINE), START | {"w": w}, stop=jf.Stop(gradient_norm_below=1e9)))(1.0))),
}  # fmt: skip


def wide(function):
    with jax.enable_x64(True):
        return jax.jit(function)(1.0)


def step(optimizer, opt_state=None, params=START):
    loss = LOSS if params is START else lambda p, x, y: jnp.sum(p["w"] ** 2)
    return jf.step(loss, params, DATA, optimizer=optimizer, opt_state=opt_state)


def many():
    loss = jf.losses.joint(days=jf.losses.each(CHI))
    return (
        loss,
        {"w": 1.0, "days": {"b": np.zeros(2)}},
        ((np.stack([X, X]), np.stack([Y, Y]), np.stack([SIGMA, SIGMA])),),
    )


DATA_OF_RUNS = {
    "a table": Case(lambda: fit(data=TABLE), TypeError, "data is one table",
        r"such as data=\(table\['x'\], table\['y'\]\)",
        lambda table=TABLE: fit(data=(table["x"], table["y"]))),
    "a tensor on a GPU": Case(lambda: fit(data=(OnDevice(), Y)), TypeError, "gives no array away",
        r"x\.detach\(\)\.cpu",
        lambda: fit(data=(OnDevice().detach().cpu(), Y))),
    "a start with an uncertainty": Case(lambda: fit(params=START | {"w": Uncertain(1.0)}), TypeError, "a plain number",
        r"pass x\.nominal_value", lambda: fit(params=START | {"w": Uncertain(1.0).nominal_value})),
    "a set of nothing": Case(lambda: masked_sets(0, 1), ValueError, "is False everywhere in set 1", "leave the set out",
        lambda: masked_sets(0)),
    "one sigma for all": Case(lambda: fit(CHI, data=(X, Y, np.array(0.1))), ValueError, "data.2. .sigma. has shape ()",
        r"np\.full\(\(8,\), sigma\)", lambda: fit(CHI, data=(X, Y, np.full((8,), 0.1)), optimizer=SMALL)),
    "a sigma of zero": Case(lambda: fit(CHI, data=(X, Y, with_(SIGMA, 3, 0.0))), ValueError, "1 of 8 .*not positive",
        "or mask them with masked=True",
        lambda: fit(jf.losses.chi_squared(LINE, masked=True), data=(X, Y, with_(SIGMA, 3, 0.0), X != X[3]),
                    optimizer=SMALL)),
    "a covariance that is lopsided": Case(lambda: fit(CHI, data=(X, Y, LOPSIDED)), ValueError,
        "not symmetric", r"pass \(c \+ c\.T\) / 2",
        lambda: fit(CHI, data=(X, Y, (LOPSIDED + LOPSIDED.T) / 2), optimizer=SMALL)),
    "a covariance of one point twice": Case(lambda: fit(CHI, data=(X, Y, np.ones((8, 8)))), ValueError,
        "not positive definite", "add a variance to its diagonal",
        lambda: fit(CHI, data=(X, Y, np.ones((8, 8)) + 0.1 * np.eye(8)), optimizer=SMALL)),
    "an axis as data": Case(lambda: sweep(params=START, data=jf.Axis("set", [DATA, DATA])), TypeError,
        "stands at the arr",
        r"write data=\(", lambda: sweep(params=START, data=(jf.Axis("set", [X, X]), jf.Axis("set", [Y, Y])))),
    "seeds of floats": Case(lambda: sweep(key=jf.Axis("seed", np.array([0.0, 1.0]))), ValueError, "must be integers",
        r"values\.astype\(int\)", lambda: sweep(key=jf.Axis("seed", np.array([0.0, 1.0]).astype(int)))),
    "a key of floats": Case(lambda: fit(key=np.array([1.0, 2.0, 3.0])), TypeError, "key is an array of shape",
        "integer see",
        lambda: fit(key=3)),
    "a bound of NaN": Case(lambda: fit(params={"w": jf.Bounded(1.0, np.nan), "b": 0.0}), ValueError, "must not be NaN",
        "use None for none", lambda: fit(params={"w": jf.Bounded(1.0, None), "b": 0.0})),
    "bounds of another shape": Case(
        lambda: fit(own, {"w": jf.Bounded(1.0, np.zeros(3)), "b": 0.0}), ValueError, r"low has shape \(3,\)",
        "give one number", lambda: fit(own, {"w": jf.Bounded(1.0, 0.0), "b": 0.0})),
    "marks in marks": Case(lambda: fit(params={"w": jf.Fixed(jf.Bounded(1.0, 0.0)), "b": 0.0}), TypeError,
        "do not nest",
        "put one mark at each leaf", lambda: fit(params={"w": jf.Fixed(1.0), "b": jf.Bounded(0.0, -1.0)})),
    "tied to text": Case(lambda: fit(params={"w": 1.0, "b": jf.Tied(lambda p: "w")}), TypeError, "returned a str",
        "one number or array", lambda: fit(params={"w": 1.0, "b": jf.Tied(lambda p: p["w"])})),
    "tied in a circle": Case(
        lambda: fit(own, {"w": jf.Tied(lambda p: p["b"]), "b": jf.Tied(lambda p: p["w"]), "free": 1.0}),
        ValueError, "tied in a circle", "leaves that are free or fixed",
        lambda: fit(params={"w": 1.0, "b": jf.Tied(lambda p: p["w"])})),
    "a lane between two": Case(lambda: jf.lane(grid("rates"), rate=0.05, method="exact"), ValueError,
        "method is 'exact'",
        'it is "nearest", or left out', lambda: jf.lane(grid("rates"), rate=0.05, method="nearest")),
    "a lane off the values": Case(lambda: jf.lane(grid("uneven"), w0=0.5), ValueError, "none of the axis' values",
        "or method='nearest'", lambda: jf.lane(grid("uneven"), w0=0.5, method="nearest")),
    "a lane off the values, a neighbor": Case(lambda: jf.lane(grid("uneven"), w0=0.5), ValueError, "are 0.1 and 1.0",
        "pass one of them", lambda: jf.lane(grid("uneven"), w0=0.1)),
    "a text off the axis": Case(lambda: jf.lane(texts(), kind="hubr"), ValueError, "is not on the axis", "mean huber",
        lambda: jf.lane(texts(), kind="huber")),
}  # fmt: skip

SMALL = jf.optimizers.sgd(1e-4)


@functools.cache
def texts():
    losses = [LOSS, jf.losses.mse(line_)]
    return sweep(jf.Axis("kind", losses, ["mse", "huber"]), START)


GRIDS = {
    "over no dimension": Case(lambda: jf.best(grid("rates"), over=()), ValueError, "over names no dimension",
        "or leave it out for all", lambda: jf.best(grid("rates"))),
    "nobody ended well": Case(lambda: jf.best(grid("bad")), ValueError, "no member of the grid ended well",
        r"see grid\.results\.status, and jf\.explain of a lane", lambda: told(grid("bad"))),
    "no report of failures": Case(lambda: jf.report(grid("bad")), ValueError, "no member of the grid ended well",
        r"see grid\.results\.status", lambda: told(grid("bad"))),
    "optima of sets": Case(lambda: jf.optima(grid("sets")), ValueError, "which do not compare", "sweep one",
        lambda: jf.optima(grid("starts"))),
    "optima of shapes": Case(lambda: jf.optima(grid("widths")), ValueError, "params of different shapes",
        "sweep one shape",
        lambda: jf.optima(grid("starts"))),
    "starts of fixed params": Case(lambda: jf.starts({"w": jf.Fixed(1.0)}, 4, key=0), ValueError, "nothing to draw", "",
        lambda: jf.starts(INSIDE, 4, key=0)),
    "starts, logarithms of no param": Case(lambda: jf.starts(INSIDE, 4, key=0, log="v"), ValueError, "log names 'v'",
        "the params are 'b', 'w'",
        lambda: jf.starts({"w": jf.Bounded(1.0, 0.1, 2.0), "b": jf.Fixed(0.0)}, 4, key=0, log="w")),
    "starts with an axis": Case(lambda: jf.starts({"w": jf.Bounded(jf.Axis("w", [1.0]), 0.0, 2.0)}, 4, key=0),
        ValueError, "has an Axis already", "leave it out", lambda: jf.starts({"w": jf.Bounded(1.0, 0.0, 2.0)}, 4,
        key=0)),
    "starts of one bound": Case(lambda: jf.starts({"w": jf.Bounded(1.0, 0.0)}, 4, key=0), ValueError, "has no high",
        "between two finite bounds", lambda: jf.starts({"w": jf.Bounded(1.0, 0.0, 2.0)}, 4, key=0)),
    "a measure of a known name": Case(lambda: refine(measure={"loss": high}), ValueError,
        "is a variable of the results",
        "call the measure otherwise", lambda: refine(measure={"high": high})),
    "outcomes by a number": Case(lambda: refine(by=3), TypeError, "by is 3", "or a function of the results",
        lambda: refine(by=lambda results: results.loss < 0.1)),
    "outcomes by nothing": Case(lambda: refine(by="stat"), ValueError, "by='stat' is not one value",
        "did you mean status",
        lambda: refine(by="status")),
    "outcomes that are numbers": Case(lambda: refine(by=lambda results: results.loss), TypeError,
        "an outcome is a label",
        r"lambda results: results\.loss < 0\.1", lambda: refine(by=lambda results: results.loss < 0.1)),
    "outcomes that are rounded": Case(lambda: refine(by=lambda results: results.loss), TypeError,
        "compare or round them",
        r'np\.log10\(results\.steps\)\.astype\("int"\)',
        lambda: refine(by=lambda results: np.log10(results.steps).astype("int"))),
    "outcomes of half the members": Case(lambda: refine(by=lambda results: results.status[:1]), ValueError,
        "for 2 members",
        "one value for each", lambda: refine(by=lambda results: results.status)),
    "an axis of a taken name": Case(lambda: jf.refine(LOSS, {"w": jf.Axis("evaluated", [0.0, 1.0]), "b": 0.0}, DATA,
                                                      optimizer=SGD, steps=3), ValueError,
        "a part of the results of ref",
        "call the axis something else", lambda: refine()),
    "nothing to refine between": Case(
        lambda: jf.refine(LOSS, START, DATA, optimizer=jf.Axis("kind", [SGD, LATE], ["now", "later"]), steps=3),
        ValueError, "none of the axes kind runs over plain numbers", "use sweep",
        lambda: jf.sweep(LOSS, START, DATA, optimizer=jf.Axis("kind", [SGD, LATE], ["now", "later"]), steps=3)),
}  # fmt: skip

LATE = jf.optimizers.momentum(0.1, 0.9)


def told(grid):
    return np.asarray(grid.results.status), str(jf.explain(jf.lane(grid, rate=1e3)))


PRUNING = {
    "a number": Case(lambda: pruned(3), TypeError, "prune is 3", r"jf\.Halving\(factor=3, first=100\)",
        lambda: pruned(jf.Halving(factor=3, first=4))),
    "a name that is none": Case(lambda: jf.Halving(by=3), TypeError, "by is 3", "such as 'loss'",
        lambda: jf.Halving(by="loss")),
    "the highest of none": Case(lambda: jf.Halving(highest="yes"), TypeError, "highest is 'yes'", "True or False",
        lambda: jf.Halving(highest=True)),
    "over a number": Case(lambda: jf.Halving(over=3), TypeError, "over is 3", "such as 'rate'",
        lambda: jf.Halving(over="rate")),
    "over one twice": Case(lambda: jf.Halving(over=["rate", "rate"]), ValueError, "every dimension once", "",
        lambda: jf.Halving(over=["rate"])),
    "rungs of a number": Case(lambda: jf.Rungs(at=3, keep=below), TypeError, "at is 3", r"such as \[100, 300\]",
        lambda: jf.Rungs(at=[100, 300], keep=below)),
    "a rung at the end": Case(lambda: pruned(jf.Halving(first=8)), ValueError, "is not below steps=8", "lower it",
        lambda: pruned(jf.Halving(first=4))),
    "a rung at the end, later": Case(lambda: pruned(jf.Halving(first=8)), ValueError, "is not below steps=8",
        "or raise steps", lambda: pruned(jf.Halving(first=8), steps=10)),
    "a rung between records": Case(lambda: pruned(jf.Halving(first=3)), ValueError, "lies between two records",
        "let rungs be multiples of that", lambda: pruned(jf.Halving(first=4))),
    "over no dimension": Case(lambda: pruned(jf.Halving(first=4, over="rat")), ValueError, "is not a dimension",
        "did you mean rate", lambda: pruned(jf.Halving(first=4, over="rate"))),
    "groups of one": Case(
        lambda: sweep(prune=jf.Halving(first=2, over="w0"), params={"w": jf.Axis("w0", [0.0]), "b": 0.0}), ValueError,
        "every group has one lane", "let over name dimensions with more values",
        lambda: pruned(jf.Halving(first=4, over="rate"))),
    "by what is held out": Case(lambda: pruned(jf.Halving(first=4, by="validation_loss")), ValueError,
        "no validation d",
        r"pass validation=\(x, y\)",
        lambda: pruned(jf.Halving(first=4, by="validation_loss"), record=HELD_OUT, validation=(X, Y))),
    "by what is not recorded": Case(lambda: pruned(jf.Halving(first=4, by="gradient_norm")), ValueError, "not recorded",
        r"record=jf\.Record\(every=\.\.\., what=\('gradient_norm',\)\)",
        lambda: pruned(jf.Halving(first=4, by="gradient_norm"), record=jf.Record(every=2, what=("gradient_norm",)))),
    "by a vector": Case(lambda: pruned(jf.Halving(first=4, by="params"), record=jf.Record(every=2, what=("params",))),
        ValueError, "by='params' is not recorded as one number", r"what=\(size,\)\) of your function size\(params, ",
        lambda: pruned(jf.Halving(first=4, by="size"), record=jf.Record(every=2, what=(size,)))),
    "by a function that is not recorded": Case(lambda: pruned(jf.Halving(first=4, by="size")), ValueError,
        "by='size' is not recorded", r"what=\(size,\)\) of your function size\(params, \*data\), which returns one num",
        lambda: pruned(jf.Halving(first=4, by="size"), record=jf.Record(every=2, what=(size,)))),
    "by a name with a slip": Case(lambda: pruned(jf.Halving(first=4, by="los")), ValueError, "by='los' is not recorded",
        "there is loss; did you mean loss?", lambda: pruned(jf.Halving(first=4, by="loss"))),
    "what keeps no booleans": Case(lambda: pruned(jf.Rungs(at=[4], keep=lambda rung: rung.values)), TypeError,
        "returned float64", "one boolean for each", lambda: pruned(jf.Rungs(at=[4], keep=below))),
    "a choice of one number": Case(lambda: jf.Choice(3), TypeError, "values is 3", r"such as \[16, 32, 64\]",
        lambda: jf.Choice([16, 32, 64])),
    "a range of text": Case(lambda: jf.Uniform("a", 1), TypeError, "low is 'a'", "must be a number",
        lambda: jf.Uniform(0, 1)),
    "a range without an end": Case(lambda: jf.Uniform(0, np.inf), ValueError, "high is inf", "must be finite",
        lambda: jf.Uniform(0, 1)),
}  # fmt: skip

CASES = named({"curve": CURVES, "fit": FITS, "data": DATA_OF_RUNS, "grid": GRIDS, "pruning": PRUNING})


COMPILES = (
    "converged inside",
    "L-BFGS",
    "a lane",
    "a text",
    "nobody",
    "no report",
    "optima",
    "a function of no model",
    "outcomes by nothing",
)
REFUSED = [name for name in CASES if not name.partition(": ")[2].startswith(COMPILES)]
FREE = [  # remedies that compile nothing of their own
    name for name in CASES
    if name.startswith(("pruning: a choice", "pruning: a range", "pruning: the highest", "pruning: over one",
        "grid: starts",
                        "pruning: rungs of", "curve: absolute", "curve: a loss of",
        "curve: no start"))
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, keep=REFUSED))
def test_what_cannot_run_is_refused_in_words_that_help(name, events):
    check(CASES[name], events, may_compile=True)


@pytest.mark.parametrize("name", soaking(CASES, keep=FREE))
def test_the_remedy_of_a_message_about_a_run_works(name):
    assert follows(CASES[name].mended)
