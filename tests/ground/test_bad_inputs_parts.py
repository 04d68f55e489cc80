"""Losses, models, optimizers and data sets that cannot be are refused, and the remedy of each message works."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, MASKED, SGD, START, Case, X, Y, check, fit, follows, named, own
from tests.shared.soak import soaking

datasets, losses, models, optimizers, schedules, searches = (
    jf.datasets, jf.losses, jf.models, jf.optimizers, jf.schedules, jf.searches,
)  # fmt: skip
LINE, ADAM, SIGMA, POINTS = models.line, optimizers.adam(1e-2), np.full(8, 0.1), np.stack([X, Y], axis=1)
CHI, LABELS = losses.chi_squared(LINE), np.arange(8) % 3
TWO = {"w": 1.0, "day": {"b": 0.0}, "night": {"b": 0.0}}
JOINT = losses.joint(day=CHI, night=CHI)
MANY = losses.joint(days=losses.each(CHI))
SETS = (np.stack([X, X]), np.stack([Y, Y]), np.stack([SIGMA, SIGMA]))


@dataclasses.dataclass
class Unhashable:
    slope: float

    def __call__(self, params, x):
        return self.slope * params["w"] * x + params["b"]


@dataclasses.dataclass(eq=False)
class Hashable:
    slope: float
    __call__ = Unhashable.__call__


def two_arrays(params, x, y):
    return params["w"] * x, params["b"] - y


def joined(params, x, y):
    return jnp.concatenate(two_arrays(params, x, y)[:1])


def no_array(params, x, y):
    return None


def constant(params):
    return jnp.full(8, params["b"])


def classes(n):
    return lambda params, x: params["w"] * x[:, None] + params["b"] * jnp.arange(float(n))[None, :]


def circle(params, x):
    return jnp.sum(x**2, axis=1) - params["w"] ** 2


implicit = jax.jit(losses.implicit_distance(circle))  # one program; operation by operation it would be a hundred


def packed(x, *args):
    return args[0] * x + args[1]


def named_later(x, **p):
    return p["a"] * x + p["b"]


def moved(params, x, y):
    return own(params, x, y), params


def counted(params, x, y):
    return own(params, x, y), params | {"n": params["n"] + 1.0}


def stops(params, x, y):
    return own(params, x, y)


def is_gone(params):
    return {}


def weights(params):
    return params["w"]


CARRIED = START | {"n": jf.Carried(0.0)}
SMOOTH = {"predict": LINE, "strength": 0.1}

DATA_SETS = {
    "a part": Case(lambda: datasets.download_time("all"), ValueError, "part is 'all'", '"train" and "test"',
        lambda: datasets.download_time("train")),
    "text": Case(lambda: datasets.standardize(["1", "2"]), TypeError, "x holds <U1 values", r"np\.asarray\(x, dtype=f",
        lambda: datasets.standardize(np.asarray(["1", "2"], dtype=float))),
    "complex numbers": Case(lambda: datasets.standardize(X + 1j), TypeError, "complex128", "or take the real part",
        lambda: datasets.standardize((X + 1j).real)),
    "ragged": Case(lambda: datasets.standardize([[1.0], [1.0, 2.0]]), TypeError, "x is ragged", "or split them up",
        lambda: datasets.standardize([1.0, 2.0])),
    "split, a percentage": Case(lambda: datasets.split((X, Y), 20.0, key=0), ValueError, "held_out is 20", "0 and 1",
        lambda: datasets.split((X, Y), 0.2, key=0)),
    "split, no key": Case(lambda: datasets.split((X, Y), 0.2), ValueError, "key is missing", "such as key=0",
        lambda: datasets.split((X, Y), 0.2, key=0)),
    "split, nothing left": Case(lambda: datasets.split((X, Y), 0.01, key=0), ValueError, "of 8 rows holds out 0",
        "from 0.12 to 0.88", lambda: datasets.split((X, Y), 0.12, key=0)),
    "split, the other end": Case(lambda: datasets.split((X, Y), 0.99, key=0), ValueError, "of 8 rows holds out 8",
        "from 0.12 to 0.88", lambda: datasets.split((X, Y), 0.88, key=0)),
    "split, a mask": Case(lambda: datasets.split((X, Y), X > 0.5), TypeError, "held_out is array", "np.flatnonzero",
        lambda: datasets.split((X, Y), np.flatnonzero(X > 0.5))),
    "split, all": Case(lambda: datasets.split((X, Y), range(8)), ValueError, "names 8 of 8", "at least one row",
        lambda: datasets.split((X, Y), range(7))),
    "split, outside": Case(lambda: datasets.split((X, Y), [8]), ValueError, "the index 8", "run from 0 to 7",
        lambda: datasets.split((X, Y), [7])),
    "split, twice": Case(lambda: datasets.split((X, Y), [2, 2]), ValueError, "the index 2 more than once", "once$",
        lambda: datasets.split((X, Y), [2])),
    "split, an array": Case(lambda: datasets.split(X, [2]), TypeError, "data is a ndarray", r"such as \(x, y\)",
        lambda: datasets.split((X, Y), [2])),
    "split, unequal": Case(lambda: datasets.split((X, Y[:3]), [2]), ValueError, "data has shapes", "of one length",
        lambda: datasets.split((X[:3], Y[:3]), [2])),
    "split, empty": Case(lambda: datasets.split((X[:0], Y[:0]), [2]), ValueError, "no rows", "pass at least one",
        lambda: datasets.split((X, Y), [2])),
    "standardize, three axes": Case(lambda: datasets.standardize(X[None, None]), ValueError, "shape .1, 1, 8.",
        r"\(n,\) or \(n, columns\)", lambda: datasets.standardize(X[:, None])),
    "standardize, NaN": Case(lambda: datasets.standardize([1.0, np.nan, 2.0]), ValueError, "first at .1,.",
        "drop those rows", lambda: datasets.standardize([1.0, 2.0])),
    "standardize, a constant": Case(lambda: datasets.standardize(np.stack([X, 0 * X], 1)), ValueError,
        "column 1 of x is constant", "leave it out", lambda: datasets.standardize(X[:, None])),
    "scaler, other columns": Case(lambda: datasets.standardize(POINTS)[1].apply(np.ones((3, 3))), ValueError,
        "with 2 columns", "of length 2", lambda: datasets.standardize(POINTS)[1].apply(np.ones((3, 2)))),
    "pad, nothing": Case(lambda: datasets.pad([]), ValueError, "datasets is empty", "at least one",
        lambda: datasets.pad([(X, Y)])),
    "pad, one array": Case(lambda: datasets.pad([(X,)]), TypeError, "holds 1 arrays", r"a pair \(x, y\)",
        lambda: datasets.pad([(X, Y)])),
    "pad, unlike": Case(lambda: datasets.pad([(X, Y), (X, Y, Y)]), TypeError, "holds 3 arrays", r"or each \(x, y, sig",
        lambda: datasets.pad([(X, Y, Y), (X, Y, Y)])),
    "pad, other columns": Case(lambda: datasets.pad([(X, Y), (POINTS, Y)]), ValueError, "has shapes", "first axis only",
        lambda: datasets.pad([(X, Y), (X[:3], Y[:3])])),
    "batches, half": Case(lambda: next(datasets.batches((X, Y), 2.5, key=0)), TypeError, "size is 2.5", "whole number",
        lambda: next(datasets.batches((X, Y), 2, key=0))),
}  # fmt: skip

LOSSES = {
    "a key for none": Case(lambda: LOSS(START, X, Y, key=jax.random.key(0)), TypeError, "takes no key", "leave key out",
        lambda: LOSS(START, X, Y)),
    "integers too large": Case(lambda: LOSS(START, X, np.full(8, 2**40)), ValueError, "y holds integers too large",
        r"y\.astype\(float\)", lambda: LOSS(START, X, np.full(8, 2**40).astype(float))),
    "a strength as text": Case(lambda: losses.l2("0.1"), TypeError, "strength is '0.1'", "must be a number",
        lambda: losses.l2(0.1)),
    "a term of nothing": Case(lambda: (LOSS + no_array)(START, X, Y), TypeError, "returned None", "the number alone",
        lambda: (LOSS + stops)(START, X, Y)),
    "a term of other data": Case(lambda: (LOSS + (lambda p, z: p["w"]))(START, X, Y), TypeError, "all 2 data",
        r"as \*data if it ignores them", lambda: (LOSS + (lambda p, *data: p["w"]))(START, X, Y)),
    "a term of the params": Case(lambda: (LOSS + (lambda p, z: p["w"]))(START, X, Y), TypeError, "all 2 data",
        "or the params alone", lambda: (LOSS + (lambda p: p["w"]))(START, X, Y)),
    "a class that cannot be hashed": Case(lambda: losses.mse(Unhashable(2.0)), TypeError, "cannot be hashed",
        "or give its class eq=False", lambda: losses.mse(Hashable(2.0))(START, X, Y)),
    "two that change a state": Case(
        lambda: (losses.stateful(counted) + losses.stateful(counted)).advance(CARRIED, X, Y), TypeError,
        "2 terms that change the state", "make one function of them",
        lambda: losses.stateful(counted).advance(START | {"n": 0.0}, X, Y)),
    "stateful, without its params": Case(lambda: losses.stateful(own).advance(START, X, Y), TypeError, "own returned a",
        "`return loss, params`", lambda: losses.stateful(moved).advance(START, X, Y)),
    "mask of another length": Case(lambda: MASKED(START, X, Y, X[:3] > 0), ValueError, "where has shape .3,.",
        "one entry a row", lambda: MASKED(START, X, Y, X > 0)),
    "mask of nothing": Case(lambda: MASKED(START, X, Y, X > 9), ValueError, "where is False everywhere", "one row must",
        lambda: MASKED(START, X, Y, X > 0)),
    "masked, a mask": Case(lambda: losses.mse(LINE, masked=X > 0), TypeError, "masked is array", r"\(x, y, where\)",
        lambda: losses.mse(LINE, masked=True)(START, X, Y, X > 0)),
    "no rows": Case(lambda: LOSS(START, X[:0], Y[:0]), ValueError, "there is no data", "at least one row",
        lambda: LOSS(START, X[:1], Y[:1])),
    "sigma, one for all": Case(lambda: CHI(START, X, Y, np.array(0.1)), ValueError, "sigma has shape ()",
        r"pass np\.full\(\(8,\), sigma\)", lambda: CHI(START, X, Y, np.full((8,), 0.1))),
    "residuals in a tuple": Case(lambda: losses.least_squares(two_arrays)(START, X, Y), TypeError, "returned a tuple",
        r"join several with jnp\.concatenate",
        lambda: losses.least_squares(lambda p, x, y: jnp.concatenate(two_arrays(p, x, y)))(START, X, Y)),
    "a likelihood of nothing": Case(lambda: losses.likelihood(no_array)(START, X, Y), TypeError, "returned a NoneType",
        "one array: the log-likelihood of each point",
        lambda: losses.likelihood(lambda p, x, y: -((LINE(p, x) - y) ** 2))(START, X, Y)),
    "classes, no logits": Case(lambda: losses.softmax_cross_entropy(LINE)(START, X, LABELS[:, None]), ValueError,
        "the prediction has shape .8,.", r"let predict return logits \(n, classes\), for y give labels \(n,\)",
        lambda: losses.softmax_cross_entropy(classes(3))(START, X, LABELS)),
    "classes, floats": Case(lambda: losses.softmax_cross_entropy(classes(3))(START, X, 1.0 * LABELS), TypeError,
        "labels of type float", r"pass y\.astype\(int\)",
        lambda: losses.softmax_cross_entropy(classes(3))(START, X, (1.0 * LABELS).astype(int))),
    "classes, from one": Case(lambda: losses.softmax_cross_entropy(classes(3))(START, X, LABELS + 1), ValueError,
        "the label 3", "number the classes from 0",
        lambda: losses.softmax_cross_entropy(classes(3))(START, X, LABELS)),
    "classes, too few": Case(lambda: losses.softmax_cross_entropy(classes(2))(START, X, LABELS), ValueError,
        "the label 2", "or return more logits",
        lambda: losses.softmax_cross_entropy(classes(3))(START, X, LABELS)),
    "counts below zero": Case(lambda: losses.poisson(LINE)(START, X, Y - 2), ValueError, "y holds -1.0", "with a sigma",
        lambda: CHI(START, X, Y - 2, SIGMA)),
    "trials, one for all": Case(lambda: losses.binomial(LINE)(START, X, LABELS, np.array(5)), ValueError,
        "trials has shape ()", r"pass np\.full\(\(8,\), trials\)",
        lambda: losses.binomial(LINE)({"w": 0.1, "b": 0.2}, X, LABELS, np.full((8,), 5))),
    "trials, exchanged": Case(lambda: losses.binomial(LINE)(START, X, np.full(8, 5), LABELS), ValueError,
        "5 successes of 0 trials", r"\(x, y, trials\), in this order",
        lambda: losses.binomial(LINE)({"w": 0.1, "b": 0.2}, X, LABELS, np.full(8, 5))),
    "each, alone": Case(lambda: losses.each(CHI)(START, *SETS), TypeError, "of many data sets, for joint",
        r"jf\.losses\.joint\(sets=each\(chi_squared\(line\)\)\)",
        lambda: jf.losses.joint(sets=losses.each(CHI))({"w": 1.0, "sets": {"b": np.zeros(2)}}, SETS)),
    "joint, a function": Case(lambda: losses.joint(day=own), TypeError, "is no loss of jaxfit", r"losses\.chi_squared",
        lambda: losses.joint(day=jf.losses.chi_squared(LINE))),
    "joint, nothing": Case(lambda: losses.joint(), ValueError, "joint got no losses", r"joint\(day=chi_squared\(f\), n",
        lambda: losses.joint(day=losses.chi_squared(LINE), night=losses.poisson(LINE))),
    "joint, params in a list": Case(lambda: JOINT([1.0, 0.0], (X, Y, SIGMA), (X, Y, SIGMA)), TypeError, "params are .1",
        "those of each set under its name, and those that all have in common beside them",
        lambda: JOINT(TWO, (X, Y, SIGMA), (X, Y, SIGMA))),
    "joint, data side by side": Case(lambda: JOINT(TWO, X, Y, SIGMA), TypeError, r"the data \(day, night\)",
        r"\(\(x, y, sigma\), \(x, y, sigma\), \.\.\.\)", lambda: JOINT(TWO, (X, Y, SIGMA), (X, Y, SIGMA))),
    "each, one number for all": Case(lambda: MANY({"w": 1.0, "days": {"b": 0.0}}, SETS), ValueError,
        r"params of days\['b'\] have shape \(\), but there are 2 sets", r"such as np\.full\(\(2,\), 1\.0\)",
        lambda: MANY({"w": 1.0, "days": {"b": np.full((2,), 1.0)}}, SETS)),
    "each, one param for all": Case(lambda: MANY({"w": 1.0, "days": {"b": 0.0}}, SETS), ValueError, "of days",
        "a param that all have in common stands beside 'days', not in it",
        lambda: MANY({"w": 1.0, "b": 0.0}, SETS)),
    "orthogonal, correlations": Case(lambda: losses.orthogonal_distance(LINE, correlated=0.5), TypeError,
        "correlated is 0.5", "a part of the data",
        lambda: jax.jit(losses.orthogonal_distance(LINE, correlated=True))(START, X, Y, SIGMA, SIGMA, 5 * SIGMA)),
    "orthogonal, one sigma": Case(
        lambda: losses.orthogonal_distance(LINE)(START, X, Y, SIGMA, np.array(0.1)), ValueError,
        r"x_sigma has shape \(\)", r"np\.full\(\(8,\), x_sigma\)",
        lambda: jax.jit(losses.orthogonal_distance(LINE))(START, X, Y, SIGMA, np.full((8,), 0.1))),
    "orthogonal, two coordinates": Case(
        lambda: losses.orthogonal_distance(LINE)(START, POINTS, Y, SIGMA, SIGMA), ValueError, "one abscissa and one y",
        r"use jf\.losses\.implicit_distance", lambda: implicit(START, POINTS, 0.1 * POINTS + 1)),
    "implicit, x alone": Case(lambda: losses.implicit_distance(circle)(START, POINTS), TypeError,
        r"takes the data \(x, x_sigma\)", "",
        lambda: implicit(START, POINTS, 0.1 * POINTS + 1)),
    "implicit, x and y apart": Case(lambda: losses.implicit_distance(circle)(START, X, Y), ValueError,
        "x has shape .8,", r"np\.stack\(\[x, y\], axis=1\)",
        lambda: implicit(START, np.stack([X, Y], axis=1), np.full((8, 2), 0.1))),
    "implicit, one sigma": Case(lambda: losses.implicit_distance(circle)(START, POINTS, np.array(0.1)), ValueError,
        "x_sigma ()", r"np\.full\(x\.shape, x_sigma\)",
        lambda: implicit(START, POINTS, np.full(POINTS.shape, 0.1))),
    "implicit, a column": Case(
        lambda: losses.implicit_distance(lambda p, x: circle(p, x)[:, None])(START, POINTS, POINTS + 1), ValueError,
        "f has shape .8, 1.", "one a point", lambda: implicit(START, POINTS, POINTS + 1)),
    "smoothness, a number": Case(lambda: losses.smoothness(**SMOOTH, x=50), TypeError, "x is 50", r"np\.linspace\(0, 1",
        lambda: losses.smoothness(**SMOOTH, x=np.linspace(0, 1, 50))),
    "smoothness, two points": Case(lambda: losses.smoothness(**SMOOTH, x=[0.0, 1.0]), ValueError, "shape .2,.",
        "three points or more", lambda: losses.smoothness(**SMOOTH, x=[0.0, 0.5, 1.0])),
    "smoothness, unsorted": Case(lambda: losses.smoothness(**SMOOTH, x=[1.0, 0.0, 2.0, 2.0]), ValueError,
        "strictly increasing", r"np\.unique\(x\)",
        lambda: losses.smoothness(**SMOOTH, x=np.unique([1.0, 0.0, 2.0, 2.0]))),
    "smoothness, one number": Case(
        lambda: losses.smoothness(lambda p, x: p["w"], strength=0.1, x=X)({"w": np.ones(3)}), ValueError,
        "the prediction has shape .3,.", "one row for each point", lambda: losses.smoothness(**SMOOTH, x=X)(START)),
    "l2 of nothing": Case(lambda: losses.l2(0.1, of=is_gone)(START), ValueError, "no params to penalize", "with of=",
        lambda: losses.l2(0.1, of=weights)(START)),
    "noise, a number": Case(lambda: losses.input_noise(3, scale=0.1), TypeError, "loss is 3", r"such as mse\(line\)",
        lambda: losses.input_noise(losses.mse(LINE), scale=0.1)(START, X, Y, key=jax.random.key(0))),
    "noise, no data": Case(lambda: losses.input_noise(losses.l2(0.1), scale=0.1), TypeError, "takes no data",
        "wrap the loss of the data instead", lambda: losses.input_noise(LOSS, scale=0.1) + losses.l2(0.1)),
    "noise, no key": Case(lambda: losses.input_noise(LOSS, scale=0.1)(START, X, Y), TypeError, "it needs a key",
        r"pass key=jax\.random\.key\(0\)",
        lambda: losses.input_noise(LOSS, scale=0.1)(START, X, Y, key=jax.random.key(0))),
    "noise, called without data": Case(lambda: losses.input_noise(LOSS, scale=0.1)(START, key=jax.random.key(0)),
        TypeError, r"takes the data \(x, y\)", "",
        lambda: losses.input_noise(LOSS, scale=0.1)(START, X, Y, key=jax.random.key(0))),
    "what makes a loss": Case(lambda: fit(losses.mse), TypeError, "function mse, which makes a loss",
        r"call it: jf\.losses\.mse\(predict\)", lambda: fit(losses.mse(LINE))),
    "what makes a model": Case(lambda: losses.mse(models.polynomial), TypeError, "polynomial, which makes a model",
        r"call it: jf\.models\.polynomial\(degree\)", lambda: losses.mse(models.polynomial(1))),
    "a model without x": Case(lambda: losses.mse(constant), TypeError, r"predict takes \(params\), but",
        r"let it take x too.*lambda params, x: predict\(params\)",
        lambda predict=constant: losses.mse(lambda params, x: predict(params))(START, X, Y)),
}  # fmt: skip

MODELS = {
    "values": Case(lambda: models.from_function(Y), TypeError, "f is ", "itself and not its values",
        lambda: models.from_function(lambda x, a, b: a * x + b)),
    "unhashable": Case(lambda: models.from_function(Unhashable(2.0)), TypeError, "cannot be hashed", "a plain function",
        lambda: models.from_function(lambda x, a, b: Unhashable(2.0)({"w": a, "b": b}, x))),
    "a default that is none": Case(lambda: models.from_function(lambda x, a, kind="up": a * x), TypeError,
        "parameter 'kind' has the default 'up'", r"functools\.partial\(f, kind='up'\)", lambda: bound()),
    "arguments of no name": Case(lambda: models.from_function(packed), ValueError, r"takes \*args",
        "lambda x, a, b: f.x",
        lambda: models.from_function(lambda x, a, b: packed(x, a, b))({"a": 1.0, "b": 0.0}, X)),
    "arguments that come by name": Case(lambda: models.from_function(named_later), ValueError, "no parameters to fit",
        "write out those that come by name: lambda x, a, b: f.x, a=a, b=b.",
        lambda: models.from_function(lambda x, a, b: named_later(x, a=a, b=b))({"a": 1.0, "b": 0.0}, X)),
    "nothing to fit": Case(lambda: models.from_function(lambda x: jnp.sin(x)), ValueError, "no parameters to fit",
        r"lambda x, a, b: a \* f\(x\) \+ b",
        lambda: models.from_function(lambda x, a, b: a * jnp.sin(x) + b)({"a": 1.0, "b": 0.0}, X)),
    "arguments that cannot be read": Case(lambda: models.from_function(max), ValueError, "cannot be read",
        r"lambda x, a, b: f\(x, a, b\)", lambda: models.from_function(lambda x, a, b: max(x, a, b))),
    "widths, a number": Case(lambda: models.dense(16), TypeError, "widths is 16", r"such as \(1, 16, 1\)",
        lambda: models.dense((1, 16, 1))),
    "widths, one": Case(lambda: models.dense([16]), ValueError, "widths is .16", "inputs and the outputs",
        lambda: models.dense((1, 1))),
    "one point for a net": Case(lambda: NET2(NET2.init(0), np.ones(2)), ValueError, r"x has shape \(2,\)",
        r"write x\[None, :\], of shape \(1, 2\)", lambda: NET2(NET2.init(0), np.ones(2)[None, :])),
    "params of other widths": Case(lambda: NET2(models.dense((2, 5, 1)).init(0), POINTS), ValueError, "these widths",
        r"see init\(key\)", lambda: NET2(NET2.init(0), POINTS)),
    "a start like another": Case(lambda: NET2.init(0, "jax"), ValueError, "like is 'jax'", "one of 'torch'",
        lambda: NET2.init(0, "torch")),
    "coefficients": Case(lambda: models.polynomial(2)({"coefficients": np.ones(2)}, X), ValueError, r"has shape \(2,\)",
        r"takes \(3,\), the constant first", lambda: models.polynomial(2)({"coefficients": np.ones(3)}, X)),
    "orthogonal points": Case(lambda: models.orthogonal_polynomial(1, POINTS), ValueError, r"shape \(8, 2\)",
        "such as those of the data", lambda: models.orthogonal_polynomial(1, X)),
    "orthogonal degree": Case(lambda: models.orthogonal_polynomial(3, [0.0, 1.0, 1.0]), ValueError, "2 distinct points",
        "up to degree 1", lambda: models.orthogonal_polynomial(1, [0.0, 1.0, 1.0])),
    "knots out of order": Case(lambda: models.spline([0.0, 2.0, 2.0]), ValueError, "but 2 follows 2",
        r"np.unique\(knots\)", lambda: models.spline(np.unique([0.0, 2.0, 2.0]))),
    "one knot": Case(lambda: models.spline([0.0]), ValueError, r"knots has shape \(1,\)", r"np.linspace\(x.min",
        lambda: models.spline(np.linspace(X.min(), X.max(), 6))),
    "knots inside of x": Case(lambda: models.spline([X.min(), X.mean()]).guess(X, Y), ValueError, "but the knots from",
        "enclose x", lambda: models.spline([X.min(), X.max()]).guess(X, Y)),
    "coefficients of a spline": Case(lambda: models.spline([0.0, 1.0])({"coefficients": np.ones(3)}, X), ValueError,
        r"has shape \(3,\)", r"take \(4,\), as init\(key\)",
        lambda: models.spline([0.0, 1.0])(models.spline([0.0, 1.0]).init(0), X)),
    "kind of thermal": Case(lambda: models.thermal_distribution("fermi"), ValueError, "kind is 'fermi'",
        "mean 'fermi_dirac'", lambda: models.thermal_distribution("fermi_dirac")),
    "a line of two lengths": Case(lambda: models.line.least_squares(X, Y[:3]), ValueError, "x has shape .8,",
        "of one length", lambda: models.line.least_squares(X, Y)),
    "a line through NaN": Case(lambda: models.line.least_squares(X, Y * np.nan), ValueError, "x or y holds NaN",
        "drop those points", lambda: models.line.least_squares(X, Y)),
    "a line through one x": Case(lambda: models.line.least_squares(0 * X, Y), ValueError, "x is 0 at every point",
        "two different x", lambda: models.line.least_squares(X, Y)),
    "a sum with a number": Case(lambda: models.gaussian + 3, TypeError, "3 cannot be added to a model",
        "such as models.constant", lambda: models.gaussian + models.constant),
    "a sum with a function": Case(lambda: models.gaussian + own, TypeError, "cannot be added", "or write one function",
        lambda: losses.mse(lambda params, x: models.line(params, x) + params["c"] * x**2)(START | {"c": 1.0}, X, Y)),
    "half a count": Case(lambda: models.gaussians(1.5), TypeError, "count is 1.5", "whole number, 1 or more",
        lambda: models.gaussians(2)),
    "params of other names": Case(lambda: models.exponential_decay({"a": 1.0}, X), ValueError, "got the params 'a'",
        "a dict with 'amplitude', 'rate'", lambda: models.exponential_decay({"amplitude": 1.0, "rate": 1.0}, X)),
    "no parts": Case(lambda: models.sum(), ValueError, "sum got no parts", r"sum\(peak=models.gaussian, background=",
        lambda: models.sum(peak=models.gaussian, background=models.line)),
    "a part that is a function": Case(lambda: models.sum(a=own), TypeError, "part 'a' is", "such as models.gaussian",
        lambda: models.sum(a=models.gaussian)),
    "one name twice": Case(lambda: models.gaussian + models.gaussian, ValueError, "both have a param 'height'",
        r"models\.sum\(first=\.\.\., second=\.\.\.\)",
        lambda: models.sum(first=models.gaussian, second=models.gaussian)),
    "one name twice, of a kind": Case(lambda: models.gaussian + models.gaussian, ValueError, "both have a param",
        r"such as models\.gaussians\(2\)", lambda: models.gaussians(2)),
    "a guess through NaN": Case(lambda: models.gaussian.guess(X, with_nan()), ValueError, "y holds NaN",
        "mask them: by where= for guess", lambda: models.gaussian.guess(X, with_nan(), where=np.isfinite(with_nan()))),
    "a guess of two lengths": Case(lambda: models.gaussian.guess(X, Y[:3]), ValueError, r"y of shape \(3,\)",
        r"x \(n,\) and y \(n,\)", lambda: models.gaussian.guess(X, Y)),
    "a guess with a mask of numbers": Case(lambda: models.gaussian.guess(X, Y, where=X), ValueError, "type float",
        "one boolean for each of the 8", lambda: models.gaussian.guess(X, Y, where=X > 0.1)),
    "one param for two peaks": Case(lambda: models.gaussians(2)(PEAK, X), ValueError, "has shape ()", r"takes \(2,\)",
        lambda: models.gaussians(2)({name: np.full(2, value) for name, value in PEAK.items()}, X)),
}  # fmt: skip

NET2 = models.dense((2, 4, 1))
PEAK = dict(zip(models.gaussian.names, (1.0, 0.5, 0.1), strict=True))


def bound():
    return models.from_function(functools.partial(lambda x, a, kind="up": a * x, kind="up"))({"a": 1.0}, X)


def with_nan():
    return np.where(X == X[3], np.nan, np.exp(-(((X - 0.5) / 0.2) ** 2)))


def stepped(optimizer, params=START):
    return jf.step(LOSS, params, (X, Y), optimizer=optimizer)


OPTIMIZERS = {
    "a schedule": Case(lambda: fit(optimizer=schedules.cosine(0.1, 9)), TypeError, "but a schedule is a learning rate",
        r"write jf\.optimizers\.sgd\(\.\.\.\)", lambda: stepped(optimizers.sgd(schedules.cosine(0.1, 9)))),
    "a method as a part": Case(lambda: optimizers.clipped(optimizers.lbfgs(), 1.0), TypeError, "clipped: lbfgs moves",
        r"such as jf\.optimizers\.adam\(0\.1\)", lambda: optimizers.clipped(jf.optimizers.adam(0.1), 1.0)),
    "a rate of None": Case(lambda: fit(optimizer=jf.optimizer(optax.lion, learning_rate=None)), TypeError,
        "it would climb", "write learning_rate=1.0",
        lambda: jf.optimizer(optax.lion, learning_rate=1.0)),
    "a schedule of a whole number": Case(
        lambda: jf.optimizer(optax.lbfgs, memory_size=schedules.cosine(9.0, 9)), TypeError, "takes no schedule",
        "pass one number, such as memory_size=10", lambda: jf.optimizer(optax.lbfgs, memory_size=10)),
    "each, none": Case(lambda: optimizers.each(), ValueError, "no optimizer is given", r"each\(w=sgd\(0\.1\)\)",
        lambda: optimizers.each(w=optimizers.sgd(0.1))),
    "each, too few": Case(lambda: stepped(optimizers.each(w=SGD)), ValueError, "are optimizers for w", "add sgd",
        lambda: stepped(optimizers.each(w=SGD, b=optimizers.sgd(0.1)))),
    "each, held": Case(lambda: stepped(optimizers.each(w=SGD)), ValueError, "are optimizers for w", "set_to_zero",
        lambda: stepped(optimizers.each(w=SGD, b=optax.set_to_zero()))),
    "each, too many": Case(lambda: stepped(optimizers.each(w=SGD, b=SGD, c=SGD)), ValueError, "for b, c, w",
        "leave out those without an entry", lambda: stepped(optimizers.each(w=SGD, b=SGD))),
    "accumulated, one": Case(lambda: optimizers.accumulated(SGD, 1), ValueError, "every is 1",
        "for every single one pass the optimizer itself", lambda: SGD),
    "clipped, nothing": Case(lambda: optimizers.clipped(SGD, 0.0), ValueError, "norm is 0.0", "such as 1.0",
        lambda: optimizers.clipped(SGD, 1.0)),
    "plateau, a schedule": Case(lambda: optimizers.reduced_on_plateau(optimizers.sgd(schedules.cosine(0.1, 9))),
        TypeError, "no learning_rate that is a number", r"such as jf\.optimizers\.sgd\(0\.1\)",
        lambda: optimizers.reduced_on_plateau(jf.optimizers.sgd(0.1))),
    "plateau, half a step": Case(lambda: optimizers.reduced_on_plateau(SGD, patience=1.5), ValueError,
        "patience is 1.5", "whole number, zero or more", lambda: optimizers.reduced_on_plateau(SGD, patience=2)),
    "keras, two clips": Case(lambda: stepped(optimizers.keras.SGD(0.1, clipnorm=1.0, clipvalue=0.5)), ValueError,
        "clipnorm and clipvalue are given", "leave the others out",
        lambda: stepped(optimizers.keras.SGD(0.1, clipnorm=1.0))),
    "torch, one beta": Case(lambda: optimizers.torch.Adam(0.1, betas=0.9), TypeError, "betas is 0.9",
        r"takes 2 numbers, as \(0\.9, 0\.999\)", lambda: optimizers.torch.Adam(0.1, betas=(0.9, 0.999))),
    "a tolerance": Case(lambda: optimizers.levenberg_marquardt(tolerance=2.0), ValueError, "tolerance is 2.0",
        "pass 1e-4, or None", lambda: optimizers.levenberg_marquardt(tolerance=1e-4)),
    "a memory": Case(lambda: optimizers.lbfgs(memory=0), ValueError, "memory is 0", "at least 1",
        lambda: optimizers.lbfgs(memory=1)),
    "the sharpness of another": Case(
        lambda: jf.stability_limit(ADAM, jf.sharpness(LOSS, START, (X, Y))), ValueError,
        "is that of the plain Hessian", r"jf\.sharpness\(\.\.\., preconditioner=D\)",
        lambda: jf.stability_limit(ADAM, jf.sharpness(LOSS, START, (X, Y), preconditioner=START | {"b": 1.0}))),
    "the sharpness of the preconditioned": Case(
        lambda: jf.stability_limit(SGD, jf.sharpness(LOSS, START, (X, Y), preconditioner=START | {"b": 1.0})),
        ValueError, "is that of the preconditioned Hessian", r"jf\.sharpness\(\.\.\.\)",
        lambda: jf.stability_limit(SGD, jf.sharpness(LOSS, START, (X, Y)))),
    "a warm-up without a rest": Case(lambda: schedules.warmup_cosine(0.1, 9, 9), ValueError, "warmup is 9 of 9 steps",
        "warm up for fewer", lambda: schedules.warmup_cosine(0.1, 8, 9)),
    "milestones in disorder": Case(lambda: schedules.milestones(0.1, 0.1, (20, 10)), ValueError, r"at is \(20, 10\)",
        r"in order, such as \(10, 20\)", lambda: schedules.milestones(0.1, 0.1, (10, 20))),
    "evaluations of a gradient": Case(lambda: searches.evaluations(SGD, START), TypeError, "that only evaluates",
        r"jf\.searches\.random_search\(0\.1\)", lambda: searches.evaluations(jf.searches.random_search(0.1), START)),
    "the cost of a gradient": Case(lambda: searches.evaluations(SGD, START), TypeError, "that only evaluates",
        r"for a gradient see jf\.searches\.gradient_cost", lambda: searches.gradient_cost(LOSS, START, (X, Y))),
    "the cost of nothing": Case(lambda: searches.gradient_cost(lambda p: p, 1.0), ValueError, "no arithmetic was cou",
        "", lambda: searches.gradient_cost(lambda p: p * p, 1.0)),
    "differences, a word": Case(lambda: searches.finite_differences(0.1, delta=0.1, central="no"), TypeError,
        "central is 'no'", "True or False", lambda: searches.finite_differences(0.1, delta=0.1, central=False)),
    "none for a number": Case(lambda: optimizers.adam(1e-2, b1=None), TypeError, "adam: b1 is None, but it must be",
        "write b1=0.9, its default", lambda: fit(optimizer=optimizers.adam(1e-2, b1=0.9))),
}  # fmt: skip

STATES = {
    "names of several kinds": Case(lambda: fit(lambda p, x, y: p["w"] + p[1], {"w": 1.0, 1: 0.0}), TypeError,
        "keys of several kinds", "make all of them text",
        lambda: fit(lambda p, x, y: (p["w"] + p["1"]) ** 2, {"w": 1.0, "1": 0.0})),

    "returned, but none is carried": Case(lambda: fit(losses.stateful(counted), START | {"n": 0.0}), TypeError,
        "changes a state, but nothing in the params is marked", r"params \| \{'stats': jf\.Carried\(stats\)\}",
        lambda: fit(losses.stateful(counted), CARRIED)),
    "of another shape": Case(
        lambda: fit(losses.stateful(lambda p, x, y: (own(p, x, y), p | {"n": jnp.ones(3)})), CARRIED), TypeError,
        r"what is carried had shape \(\), and has \(3,\)", "in the same tree",
        lambda: fit(losses.stateful(counted), CARRIED)),
    "several losses a step": Case(lambda: fit(losses.stateful(counted), CARRIED, optimizer=optimizers.lbfgs()),
        TypeError, "a stateful one changes its state", r"jf\.optimizers\.adam\(1e-2\)",
        lambda: fit(losses.stateful(counted), CARRIED, optimizer=jf.optimizers.adam(1e-2))),
}  # fmt: skip

CASES = named({
    "data set": DATA_SETS, "loss": LOSSES, "model": MODELS, "optimizer": OPTIMIZERS, "state": STATES,
})  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_part_that_cannot_be_is_refused_in_words_that_help(name, events):
    check(CASES[name], events, may_compile=True)


COMPILES = [  # programs of their own; of each kind another row stays
    "loss: mask of another length", "loss: orthogonal, correlations", "loss: orthogonal, two coordinates",
    "model: a guess of two lengths", "model: a guess through NaN", "model: a start like another",
    "model: coefficients of a spline", "model: knots inside of x", "optimizer: a schedule of a whole number",
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, but=COMPILES))
def test_the_remedy_of_a_message_of_a_part_works(name):
    assert follows(CASES[name].mended)
