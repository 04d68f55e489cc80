"""Every public function and class refuses what it cannot take, before anything compiles."""

import dataclasses
import functools
import inspect
import tempfile

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit import landscapes
from tests.shared.bad_inputs import LOSS, SGD, START, Case, X, Y, check, fit, follows, named, own, sweep
from tests.shared.soak import soaking

DATA = (X, Y)
NOISY, LM = Y + 0.1 * np.cos(9 * X), jf.optimizers.levenberg_marquardt()
SWEPT = {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}
WITHIN = {"w": jf.Bounded(1.0, 0.0, 2.0), "b": jf.Fixed(0.0)}
A_FIT = "takes a fit or the grid of a sweep, but got"
PASS = r"pass what jf\.fit, jf\.curve_fit or jf\.sweep returned"
NOISE = r"write the residuals as a function and fit jf\.losses\.least_squares"


def prepare():
    """Make what the cases ask of: when the first of them runs, and not in every process that reads this file."""
    global FIT, GRID, OF_OWN, SETS, FORGOTTEN
    FIT, GRID, OF_OWN = fit(), sweep(), fit(own)
    SETS = sweep(params=START, data=(X, jf.Axis("set", np.stack([Y, 2 * Y]))))
    FORGOTTEN = dataclasses.replace(FIT, training=None)


@pytest.fixture(scope="module", autouse=True)
def prepared():
    prepare()


def refine(**keywords):
    return jf.refine(LOSS, SWEPT, DATA, **({"optimizer": SGD, "steps": 3} | keywords))


@functools.cache
def well():
    return jf.curve_fit(jf.models.line, None, (X, NOISY))


def stepped_by(optimizer):
    return jf.preconditioner(optimizer, jf.step(LOSS, START, DATA, optimizer=optimizer).opt_state)


def residuals(params, x, y):
    return params["w"] * x + params["b"] - y


def opened(**keywords):
    with tempfile.TemporaryDirectory() as folder:
        sweep(store=folder)
        return jf.open(path=folder, **keywords).load()


def kept():
    with tempfile.TemporaryDirectory() as folder:
        return jf.load(jf.save(FIT, f"{folder}/fit.json"), LOSS)


MARKERS = {
    "Axis, labels as text": Case(lambda: jf.Axis("a", [1.0, 2.0], "ab"), TypeError, "labels is 'ab'", "a list with",
        lambda: jf.Axis("a", [1.0, 2.0], list("ab"))),
    "Axis, labels as a number": Case(lambda: jf.Axis("a", [1.0], 3), TypeError, "Axis 'a': labels is 3", "a list with",
        lambda: jf.Axis("a", [1.0], [3])),
    "Bounded, another word": Case(lambda: jf.Bounded(1.0, lower=0.0), TypeError, "no argument 'lower'", "mean low",
        lambda: jf.Bounded(1.0, low=0.0)),
    "Bounded, exchanged": Case(lambda: fit(params={"w": jf.Bounded(1.0, 2.0, 0.0), "b": 0.0}), ValueError,
        r"params\['w'\]: low is 2 and high is 0", "swap them",
        lambda: fit(params={"w": jf.Bounded(1.0, 0.0, 2.0), "b": 0.0})),
    "Bounded, a start outside": Case(lambda: fit(params={"w": jf.Bounded(1.0, 2.0, 3.0), "b": 0.0}), ValueError,
        r"params\['w'\] starts at 1, below low=2", "start between the bounds",
        lambda: fit(params={"w": jf.Bounded(2.5, 2.0, 3.0), "b": 0.0})),
    "Bounded, text": Case(lambda: fit(params={"w": jf.Bounded(1.0, "a"), "b": 0.0}), TypeError,
        r"params\['w'\]: low is 'a'", "must be a number, or None",
        lambda: fit(params={"w": jf.Bounded(1.0, None, 2.0), "b": 0.0})),
    "Fixed, all": Case(lambda: fit(params=jf.Fixed(START)), ValueError, "params are all fixed", "leave one free",
        lambda: fit(params={"w": jf.Fixed(1.0), "b": 0.0})),
    "Fixed, text": Case(lambda: fit(params={"w": jf.Fixed("a"), "b": 0.0}), TypeError, "text 'a'", "a number to fit",
        lambda: fit(params={"w": jf.Fixed(1.0), "b": 0.0})),
    "Carried, by no state": Case(lambda: fit(params={"w": jf.Carried(1.0), "b": 0.0}), TypeError,
        "params hold what is jf.Carried", "or hold the leaf with jf.Fixed",
        lambda: fit(params={"w": jf.Fixed(1.0), "b": 0.0})),
    "Tied, a number": Case(lambda: jf.Tied(3.0), TypeError, "Tied: function is 3.0", "function of the params",
        lambda: fit(params={"a": 1.0, "b": 0.0, "w": jf.Tied(lambda p: 2 * p["a"])})),
    "Tied, to nothing": Case(lambda: fit(params={"w": 1.0, "b": jf.Tied(lambda p: p["ww"])}), ValueError,
        r"params\['b'\] is tied, but .* finds no 'ww'; the params are b, w", "did you mean w",
        lambda: fit(params={"w": 1.0, "b": jf.Tied(lambda p: p["w"])})),
    "Tied, to no place": Case(lambda: fit(own, params=[1.0, jf.Tied(lambda p: p[2])]), ValueError,
        r"params\[1\] is tied, but .* index out of range", "the params are 0, 1",
        lambda: fit(lambda p, x, y: own({"w": p[0], "b": p[1]}, x, y), params=[1.0, jf.Tied(lambda p: p[0])])),
    "Call, a number": Case(lambda: jf.Call(3), TypeError, "Call: function is 3", "pass the function and its",
        lambda: fit(params=jf.Call(lambda w: {"w": w, "b": 0.0}, 3.0))),
    "Batches, nothing": Case(lambda: jf.Batches(None), ValueError, "Batches: size is None", "whole number from 1",
        lambda: jf.Batches(100)),
    "Record, a number": Case(lambda: jf.Record(what=3), TypeError, "Record: what is 3", r"\('loss',\)",
        lambda: jf.Record(what=("loss",))),
    "Stop, another word": Case(lambda: jf.Stop(tolerance=1e-3), TypeError, "no argument 'tolerance'", "It takes loss_",
        lambda: jf.Stop(gradient_norm_below=1e-3)),
    "optimizer, a word": Case(lambda: jf.optimizer("adam"), TypeError, "factory is 'adam'", r"such as optax\.adam",
        lambda: jf.optimizer(optax.adam, learning_rate=0.1)),
}  # fmt: skip

RUNS = {
    "fit, a fit as params": Case(lambda: fit(params=FIT), TypeError, "params is a fit", r"its params: fit\.params",
        lambda: fit(params=FIT.params)),
    "sweep, an unknown word": Case(lambda: sweep(folder="runs"), TypeError, "no argument 'folder'", "It takes.*store",
        lambda: sweep()),
    "step, an axis": Case(lambda: jf.step(LOSS, SWEPT, DATA, optimizer=SGD), ValueError,
        r"Axis\('w0', 2 values\) stands for many runs", "step makes one: pass one of its values",
        lambda: jf.step(LOSS, START, DATA, optimizer=SGD)),
    "step, an unknown word": Case(lambda: jf.step(LOSS, START, DATA, optimizer=SGD, state=()), TypeError,
        "no argument 'state'", "did you mean opt_state",
        lambda: jf.step(LOSS, START, DATA, optimizer=SGD, opt_state=None)),
    "curve_fit, no such param": Case(lambda: jf.curve_fit(lambda p, x: p["v"] * x, START, DATA), ValueError,
        "finds no 'v'", "the params are b, w",
        lambda: jf.curve_fit(lambda p, x: p["w"] * x + p["b"], START, DATA)),
    "curve_fit, exchanged": Case(lambda: jf.curve_fit(START, jf.models.line, DATA), TypeError,
        "predict is {", r"function of \(params, x\)",
        lambda: jf.curve_fit(jf.models.line, START, DATA)),
    "curve_fit, sigma as text": Case(lambda: jf.curve_fit(jf.models.line, START, DATA, "a"), TypeError,
        "sigma is 'a'", "a number or an array of numbers",
        lambda: jf.curve_fit(jf.models.line, START, DATA, 0.1)),
    "curve_fit, x and y apart": Case(lambda: jf.curve_fit(jf.models.line, X, Y), TypeError,
        "data is array", r"the pair \(x, y\)",
        lambda: jf.curve_fit(jf.models.line, None, (X, Y))),
    "refine, half a depth": Case(lambda: refine(depth=1.5), ValueError, "depth is 1.5", "whole number from 0",
        lambda: refine(depth=1)),
    "refine, another filling": Case(lambda: refine(fill="cubic"), ValueError, "fill is 'cubic'", "'nearest' or",
        lambda: refine(depth=1, fill="linear")),
    "refine, over nothing": Case(lambda: refine(over=3), TypeError, "refine: over is 3", "axis's name, such as 'w0'",
        lambda: refine(depth=1, over="w0")),
    "refine, over no axis": Case(lambda: refine(over="rate"), ValueError, "over='rate' is no axis", "can be of w0",
        lambda: refine(depth=1, over="w0")),
    "refine, a store": Case(lambda: refine(store="s"), TypeError, "refine has no argument 'store'", "It takes loss",
        lambda: refine(depth=1)),
    "refine, a measure of no name": Case(lambda: refine(measure=len), TypeError, "measure is", "dictionary of functio",
        lambda: refine(depth=1, measure={"low": lambda results: results.loss < 0.1})),
    "starts, no bounds": Case(lambda: jf.starts(START, 9, key=0), ValueError, "params 'b' is free", r"jf\.Bounded\(",
        lambda: jf.starts({"w": jf.Bounded(1.0, low=0.0, high=10.0), "b": jf.Fixed(0.0)}, 9, key=0)),
    "starts, no count": Case(lambda: jf.starts(WITHIN, 0, key=0), ValueError, "count is 0", "whole number from 1",
        lambda: jf.starts(WITHIN, 1, key=0)),
    "starts, no key": Case(lambda: jf.starts(WITHIN, 9, key="a"), TypeError, "key is 'a'", "integer seed",
        lambda: jf.starts(WITHIN, 9, key=0)),
    "starts, logarithms of 0": Case(lambda: jf.starts(WITHIN, 9, key=0, log=True), ValueError,
        "params 'w' has low=0", "log needs positive bounds",
        lambda: jf.starts({"w": jf.Bounded(1.0, 0.1, 2.0), "b": jf.Fixed(0.0)}, 9, key=0, log=True)),
    "backprop, an axis": Case(lambda: jf.backprop(LOSS, SWEPT, DATA), TypeError, "many runs", "one of its values",
        lambda: jf.backprop(LOSS, START, DATA)),
    "backprop, open": Case(lambda: jf.backprop(LOSS, START, DATA, open=3), TypeError, "open is 3", "name of a call",
        lambda: jf.backprop(LOSS, START, DATA, open=True)),
    "forward_memory, an axis": Case(lambda: jf.forward_memory(LOSS, SWEPT, DATA), ValueError, "many runs", "one of",
        lambda: jf.forward_memory(LOSS, START, DATA)),
    "forward_memory, an array": Case(lambda: jf.forward_memory(LOSS, START, X), TypeError, "data is one array", "x, y",
        lambda: jf.forward_memory(LOSS, START, (X, Y))),
    "backward_memory, text": Case(lambda: jf.backward_memory(LOSS, {"w": "a"}, DATA), TypeError, "text 'a'", "number",
        lambda: jf.backward_memory(LOSS, START, DATA)),
    "backward_memory, half": Case(lambda: jf.backward_memory(LOSS, START, DATA, precision="half"), ValueError,
        "precision is 'half'", '"float32" or "float64"',
        lambda: jf.backward_memory(LOSS, START, DATA, precision="float64")),
    "surface, no axis": Case(lambda: jf.surface(LOSS, START, DATA), ValueError, "no Axis", r"put jf\.Axis",
        lambda: jf.surface(LOSS, SWEPT, DATA)),
    "surface, an unknown word": Case(lambda: jf.surface(LOSS, SWEPT, DATA, steps=3), TypeError, "'steps'", "It takes",
        lambda: jf.surface(LOSS, SWEPT, DATA)),
}  # fmt: skip

RESULTS = {
    "best, a fit": Case(lambda: jf.best(FIT), TypeError, "best takes the grid of a sweep, but got a fit", "jf.sweep",
        lambda: jf.best(GRID)),
    "best, by nothing": Case(lambda: jf.best(GRID, by="los"), ValueError, "by='los'", "there are loss",
        lambda: jf.best(GRID, by="loss")),
    "best, over nothing": Case(lambda: jf.best(GRID, over="rate"), ValueError, "over='rate'", "it has w0",
        lambda: jf.best(GRID, over="w0")),
    "best, over a number": Case(lambda: jf.best(GRID, over=3), TypeError, "over is 3", "name, such as 'w0'",
        lambda: jf.best(GRID, over="w0")),
    "best, an unknown word": Case(lambda: jf.best(GRID, key="loss"), TypeError, "no argument 'key'", "did you mean by",
        lambda: jf.best(GRID, by="loss")),
    "lane, a fit": Case(lambda: jf.lane(FIT, w0=0.0), TypeError, "lane takes the grid.*got a fit", "jf.sweep returned",
        lambda: jf.lane(GRID, w0=0.0)),
    "lane, nowhere": Case(lambda: jf.lane(GRID), ValueError, "w0 is missing", "such as w0=0.0",
        lambda: jf.lane(GRID, w0=0.0)),
    "lane, another axis": Case(lambda: jf.lane(GRID, rate=1.0), ValueError, "no dimension 'rate'", "it has w0",
        lambda: jf.lane(GRID, w0=1.0)),
    "lane, outside": Case(lambda: jf.lane(GRID, w0=9.0), ValueError, "w0=9.0 lies outside", "from 0.0 to 1.0",
        lambda: jf.lane(GRID, w0=1.0)),
    "lane, many": Case(lambda: jf.lane(GRID, w0=[0.0, 1.0]), TypeError, r"w0 is \[0.0, 1.0\]", r"results\.sel\(",
        lambda: GRID.results.sel(w0=[0.0, 1.0])),
    "require_converged, params": Case(lambda: jf.require_converged(START), TypeError, "got a dict", "pass what",
        lambda: jf.require_converged(jf.curve_fit(jf.models.line, None, DATA))),
    "explain, a grid": Case(lambda: jf.explain(GRID), TypeError, "explain takes a fit, but got a Grid", r"jf\.lane\(",
        lambda: jf.explain(jf.lane(GRID, w0=0.0))),
    "explain, a fit that forgot": Case(lambda: jf.explain(FORGOTTEN), ValueError, "no longer knows its loss", "use it",
        lambda: jf.explain(FIT)),
    "optima, a fit": Case(lambda: jf.optima(FIT), TypeError, "optima takes the grid.*got a fit", "jf.sweep returned",
        lambda: jf.optima(GRID)),
    "optima, a tolerance": Case(lambda: jf.optima(GRID, tolerance=-1), ValueError, "tolerance is -1", "such as 1e-3",
        lambda: jf.optima(GRID, tolerance=1e-3)),
    "optima, by something": Case(lambda: jf.optima(GRID, by="steps"), ValueError, "by is 'steps'", '"params" or "loss',
        lambda: jf.optima(GRID, by="loss")),
    "verify, a fit": Case(lambda: jf.verify(FIT), TypeError, "verify takes the grid.*got a Fit", "jf.sweep returned",
        lambda: jf.verify(GRID)),
    "verify, a part of a lane": Case(lambda: jf.verify(GRID, sample=1.5), ValueError, "sample is 1.5", "whole number",
        lambda: jf.verify(GRID, sample=1)),
    "verify, a seed": Case(lambda: jf.verify(GRID, seed=-1), ValueError, "seed is -1", "whole number, 0 or more",
        lambda: jf.verify(GRID, seed=0)),
    "verify, a tolerance": Case(lambda: jf.verify(GRID, rtol=0), ValueError, "rtol is 0", "positive, finite number",
        lambda: jf.verify(GRID, rtol=1e-3)),
    "open, a grid": Case(lambda: jf.open(GRID), TypeError, "path is a grid", r"its results are grid\.results",
        lambda: GRID.results),
    "open, a number": Case(lambda: jf.open(3), TypeError, r"path is 3 \(int\)", "must be a path",
        lambda: opened()),
    "open, an unknown word": Case(lambda: jf.open("s", engine="zarr"), TypeError, "no argument 'engine'", "It takes",
        lambda: opened(damaged="skip")),
    "preconditioner, none": Case(lambda: jf.preconditioner(SGD, ()), ValueError, "sgd keeps no scale", "adam.* do$",
        lambda: stepped_by(jf.optimizers.rmsprop(0.1))),
    "preconditioner, no state": Case(lambda: jf.preconditioner(jf.optimizers.adam(0.1), None), ValueError,
        "opt_state is a NoneType", r"pass the \.opt_state of jf\.step",
        lambda: stepped_by(jf.optimizers.adam(0.1))),
}  # fmt: skip

CURVATURE = {
    "sharpness, a loss alone": Case(lambda: jf.sharpness(LOSS), TypeError, "params are missing", "sharpness.loss, par",
        lambda: jf.sharpness(LOSS, START, DATA)),
    "sharpness, a fit and more": Case(lambda: jf.sharpness(FIT, START), TypeError, "beside a Fit", "loss itself",
        lambda: jf.sharpness(FIT.problem.loss, START, DATA)),
    "sharpness, an end": Case(lambda: jf.sharpness(LOSS, START, DATA, end="left"), ValueError, "'left'", "'largest'",
        lambda: jf.sharpness(LOSS, START, DATA, end="smallest")),
    "sharpness, none": Case(lambda: jf.sharpness(LOSS, START, DATA, count=0), ValueError, "count is 0", "whole number",
        lambda: jf.sharpness(LOSS, START, DATA, count=1)),
    "sharpness, history": Case(lambda: jf.sharpness(FIT, history=True), ValueError, "not record its", "what=..loss",
        lambda: jf.sharpness(fit(record=jf.Record(what=("loss", "params"))), history=True)),
    "hessian_spectrum, a fit": Case(lambda: jf.hessian_spectrum(LOSS, FIT, DATA), TypeError, "is a fit", "fit.params",
        lambda: jf.hessian_spectrum(LOSS, FIT.params, DATA)),
    "hessian_spectrum, no depth": Case(lambda: jf.hessian_spectrum(LOSS, START, DATA, depth=0), ValueError,
        "depth is 0", "whole number from 2",
        lambda: jf.hessian_spectrum(LOSS, START, DATA, depth=2)),
    "curvature_along, a single one": Case(lambda: jf.curvature_along(LOSS, START, DATA, directions=START), ValueError,
        "directions has the shapes", r"d\[None\]",
        lambda: jf.curvature_along(
            LOSS, START, DATA, directions={name: np.asarray(d)[None] for name, d in START.items()})),
    "stability_limit, exchanged": Case(lambda: jf.stability_limit(3.0, SGD), TypeError, "sharpness is sgd", "first$",
        lambda: jf.stability_limit(SGD, 3.0)),
    "stability_limit, a fit": Case(lambda: jf.stability_limit(SGD, FIT), TypeError, r"\(Fit\)", r"jf\.sharpness\(",
        lambda: jf.stability_limit(SGD, jf.sharpness(LOSS, START, DATA))),
    "stability_limit, nothing": Case(lambda: jf.stability_limit(SGD, None), TypeError, "is None", "it is a number",
        lambda: jf.stability_limit(SGD, jf.sharpness(LOSS, START, DATA))),
    "stability_limit, a word": Case(lambda: jf.stability_limit("sgd", 3.0), TypeError, "text 'sgd'", "mean sgd",
        lambda: jf.stability_limit(jf.optimizers.sgd(0.1), 3.0)),
    "measured_limit, between": Case(lambda: jf.measured_limit(LOSS, START, DATA, optimizer=SGD, between=(1, 0.1)),
        ValueError, r"between is \(1, 0.1\)", "the lower one first",
        lambda: jf.measured_limit(LOSS, START, DATA, optimizer=SGD, between=(0.1, 10))),
    "measured_limit, no rate": Case(
        lambda: jf.measured_limit(LOSS, START, DATA, optimizer=jf.optimizers.lbfgs()), ValueError,
        "no hyperparameter named learning_rate", r"jf\.optimizers\.adam",
        lambda: jf.measured_limit(LOSS, START, DATA, optimizer=jf.optimizers.momentum(0.1))),
    "learning_rate_range, from zero": Case(
        lambda: jf.learning_rate_range(LOSS, START, DATA, optimizer=SGD, between=(0, 1)), ValueError,
        r"between is \(0, 1\)", "two positive learning rates",
        lambda: jf.learning_rate_range(LOSS, START, DATA, optimizer=SGD, between=(1e-6, 1.0))),
    "learning_rate_range, stop": Case(lambda: jf.learning_rate_range(LOSS, START, DATA, optimizer=SGD, stop=1),
        TypeError, "no argument 'stop'", "It takes loss",
        lambda: jf.learning_rate_range(LOSS, START, DATA, optimizer=SGD, steps=20)),
    "random_plane, a fit": Case(lambda: landscapes.random_plane(FIT, key=0), TypeError, "is a fit", "fit.params",
        lambda: landscapes.random_plane(FIT.params, key=0, normalize="leaf")),
    "random_plane, three": Case(lambda: landscapes.random_plane(START, key=0, count=3), ValueError, "is 3", "1 or 2",
        lambda: landscapes.random_plane(START, key=0, count=2, normalize="leaf")),
    "random_plane, a norm": Case(lambda: landscapes.random_plane(START, key=0, normalize="l2"), ValueError,
        "normalize is 'l2'", "one of 'filter'",
        lambda: landscapes.random_plane(START, key=0, normalize="leaf")),
    "hessian_plane, a fit": Case(lambda: landscapes.hessian_plane(LOSS, FIT, DATA), TypeError, "a fit", "fit.params",
        lambda: landscapes.hessian_plane(LOSS, FIT.params, DATA)),
    "between, one point": Case(lambda: landscapes.between(START, START), ValueError, "same params", "no line",
        lambda: landscapes.between(START, FIT.params)),
    "trajectory_plane, params": Case(lambda: landscapes.trajectory_plane(START), TypeError, "got a dict", "pass what",
        lambda: landscapes.trajectory_plane(fit(record=jf.Record(what=("loss", "params"))))),
}  # fmt: skip


def of_result(name, **keywords):
    verb = getattr(jf, name)
    return {
        f"{name}, params": Case(lambda: verb(START, **keywords), TypeError, f"{name} {A_FIT} {{", PASS,
        lambda: verb(well(), **keywords)),
        f"{name}, a fit that forgot": Case(lambda: verb(FORGOTTEN, **keywords), ValueError,
            f"{name}: the fit no longer knows its loss", r"use it as jf\.fit returned it",
        lambda: verb(well(), **keywords)),
        f"{name}, an unknown word": Case(lambda: verb(FIT, confidence=0.9, **keywords), TypeError,
            f"{name} has no argument 'confidence'", "It takes ",
        lambda: verb(well(), **keywords)),
    }  # fmt: skip


def of_level(name, *arguments):
    verb = getattr(jf, name)
    return {
        f"{name}, percent": Case(lambda: verb(FIT, *arguments, level=95), ValueError, "level is 95", r"pass 0\.95",
        lambda: verb(well(), *arguments, level=0.95)),
        f"{name}, a level as text": Case(lambda: verb(FIT, *arguments, level="0.95"), TypeError,
            f"{name}: level is '0.95'", "a number between 0 and 1",
        lambda: verb(well(), *arguments, level=0.95)),
    }  # fmt: skip


STATISTICS = {
    **of_result("covariance"), **of_result("correlations"), **of_result("standard_errors"), **of_result("residuals"),
    **of_result("goodness_of_fit"), **of_result("intervals"), **of_result("report"), **of_result("band", x=X),
    **of_result("influence"), **of_result("diagnostics"),
    **of_result("propagate", function=lambda p: p["w"]),
    **of_result("bootstrap", key=0), **of_result("monte_carlo", key=0),
    **of_level("intervals"), **of_level("report"), **of_level("band", X),
    "covariance, no residuals": Case(lambda: jf.covariance(OF_OWN), TypeError, "the noise behind the loss", NOISE,
        lambda: jf.covariance(fit(jf.losses.least_squares(residuals), optimizer=LM, steps=9))),
    "covariance, sigma as text": Case(lambda: jf.covariance(FIT, absolute_sigma="yes"), TypeError,
        "absolute_sigma is 'yes'", "True, False or None",
        lambda: jf.covariance(well(), absolute_sigma=None)),
    "covariance, no sigma": Case(lambda: jf.covariance(FIT, absolute_sigma=True), ValueError, "no sigma", "leave it",
        lambda: jf.covariance(
            fit(jf.losses.chi_squared(jf.models.line), data=(X, Y, np.full(8, 0.1)), optimizer=LM, steps=9),
            absolute_sigma=True)),
    "residuals, no residuals": Case(lambda: jf.residuals(OF_OWN), TypeError, "the noise behind the loss", NOISE,
        lambda: jf.residuals(fit(jf.losses.least_squares(residuals), optimizer=LM, steps=9))),
    "f_test, a number": Case(lambda: jf.f_test(3, FIT), TypeError, f"f_test: small {A_FIT} 3", PASS,
        lambda: jf.f_test(
            jf.curve_fit(jf.models.line, {"w": 1.0, "b": jf.Fixed(0.0)}, (X, NOISY)), well())),
    "intervals, a method": Case(lambda: jf.intervals(FIT, "bootstrp"), ValueError, "'bootstrp'", "did you mean bootst",
        lambda: jf.intervals(well(), "bootstrap", key=0, samples=9)),
    "intervals, no key": Case(lambda: jf.intervals(FIT, "bootstrap"), ValueError, "needs a key", "pass key=0",
        lambda: jf.intervals(well(), "bootstrap", key=0, samples=9)),
    "report, a grid of many data sets": Case(lambda: jf.report(SETS), ValueError,
        "lanes of this grid have different data", r"jf\.report\(jf\.lane\(grid, \.\.\.\)\)",
        lambda: jf.report(jf.lane(
            jf.sweep(LOSS, START, (X, jf.Axis("set", np.stack([NOISY, 2 * NOISY]))), optimizer=LM, steps=9), set=0))),
    "report, units": Case(lambda: jf.report(FIT, {"w": 3}), TypeError, "unit of w is 3", 'a text such as "mm"',
        lambda: jf.report(well(), {"w": "mm"})),
    "report, units of nothing": Case(lambda: jf.report(FIT, {"v": "m"}), ValueError, "units has 'v'", "is no param",
        lambda: jf.report(well(), {"w": "m"})),
    "band, a kind": Case(lambda: jf.band(FIT, X, kind="predict"), ValueError, "kind is 'predict'", '"prediction"',
        lambda: jf.band(well(), X, kind="prediction")),
    "band, x as text": Case(lambda: jf.band(FIT, "x"), TypeError, r"x\[0\] holds text", "must be numbers",
        lambda: jf.band(well(), X)),
    "band, no model": Case(lambda: jf.band(OF_OWN, X), TypeError, "has no model that predicts", r"jf\.propagate\(",
        lambda: jf.propagate(well(), lambda p: p["w"] * 0.5 + p["b"])),
    "propagate, a number": Case(lambda: jf.propagate(FIT, 3.0), TypeError, "function is 3.0", "function of the params",
        lambda: jf.propagate(well(), lambda p: p["w"])),
    "propagate, NumPy": Case(lambda: jf.propagate(FIT, lambda p: np.sin(p["w"])), TypeError,
        "hands a traced value to NumPy", r"jnp\.sin instead",
        lambda: jf.propagate(well(), lambda p: jnp.sin(p["w"]))),
    "propagate, no such param": Case(lambda: jf.propagate(FIT, lambda p: p["ww"]), ValueError,
        "finds no 'ww'; the params are b, w", "did you mean w",
        lambda: jf.propagate(well(), lambda p: p["w"])),
    "propagate, of two": Case(lambda: jf.propagate(FIT, lambda p, x: p["w"] * x), TypeError,
        r"function takes \(p, x\)", r"lambda params: function\(params, x\)",
        lambda: jf.propagate(well(), lambda params: (lambda p, x: p["w"] * x)(params, 2.0))),
    "propagate, a text": Case(lambda: jf.propagate(FIT, lambda p: "w"), TypeError, "is no number or array", "a str",
        lambda: jf.propagate(well(), lambda p: p["w"])),
    "propagate, nothing": Case(lambda: jf.propagate(FIT, lambda p: None), TypeError, "returned None", "return one",
        lambda: jf.propagate(well(), lambda p: p["w"])),
    "bootstrap, no key": Case(lambda: jf.bootstrap(FIT, None), ValueError, "needs a key", "pass key=0",
        lambda: jf.bootstrap(well(), key=0, samples=9)),
    "bootstrap, a kind": Case(lambda: jf.bootstrap(FIT, 0, kind="rows"), ValueError, "'rows'", '"residuals" or "pairs',
        lambda: jf.bootstrap(well(), 0, 9, kind="pairs")),
    "bootstrap, samples": Case(lambda: jf.bootstrap(FIT, 0, 2.5), ValueError, "samples is 2.5", "whole number from 1",
        lambda: jf.bootstrap(well(), 0, 9)),
    "monte_carlo, a seed": Case(lambda: jf.monte_carlo(FIT, -1), ValueError, "key is -1", "integer seed",
        lambda: jf.monte_carlo(well(), 0, 9)),
    "profile, a grid": Case(lambda: jf.profile(GRID), TypeError, "one fit, but got a Grid", r"jf\.lane\(grid",
        lambda: jf.profile(jf.lane(jf.sweep(LOSS, SWEPT, (X, NOISY), optimizer=LM, steps=9), w0=0.0), 2)),
    "profile, points": Case(lambda: jf.profile(FIT, 1), ValueError, "points is 1", "whole number from 2",
        lambda: jf.profile(well(), 2)),
    "profile, reach as text": Case(lambda: jf.profile(FIT, reach="3"), ValueError, "reach is '3'", "positive number",
        lambda: jf.profile(well(), 2, reach=3)),
}  # fmt: skip

SEARCHES = {
    "Halving, a factor": Case(lambda: jf.Halving(factor=1), ValueError, "factor is 1", "whole number from 2",
        lambda: jf.Halving(factor=2)),
    "Hyperband, first": Case(lambda: jf.Hyperband(first=0), ValueError, "first is 0", "whole number from 1",
        lambda: jf.Hyperband(first=1)),
    "Median, every": Case(lambda: jf.Median(every=0), ValueError, "every is 0", "whole number from 1",
        lambda: jf.Median(every=1)),
    "Rungs, falling": Case(lambda: jf.Rungs(at=[3, 2], keep=lambda rung: rung.values < 1), ValueError,
        r"at is \[3, 2\]", "after the one before",
        lambda: jf.Rungs(at=[2, 3], keep=lambda rung: rung.values < 1)),
    "Rung, none": Case(lambda: jf.Rungs(at=[3], keep=3), TypeError, "keep is 3", "function",
        lambda: jf.Rungs(at=[3], keep=lambda rung: rung.values < 1)),
    "sample, nothing": Case(lambda: jf.sample({}, 4, key=0), ValueError, r"space is \{\}", r"jf\.LogUniform",
        lambda: jf.sample({"rate": jf.LogUniform(1e-5, 1e-1)}, 4, key=0)),
    "sample, a count": Case(lambda: jf.sample({"a": jf.Uniform(0, 1)}, 0, key=0), ValueError, "count is 0", "from 1",
        lambda: jf.sample({"a": jf.Uniform(0, 1)}, 1, key=0)),
    "Uniform, reversed": Case(lambda: jf.Uniform(1, 0), ValueError, "low is 1 and high is 0", "low must be below high",
        lambda: jf.Uniform(0, 1)),
    "LogUniform, zero": Case(lambda: jf.LogUniform(0, 1), ValueError, "low is 0", r"jf\.Uniform",
        lambda: jf.Uniform(0, 1)),
    "Choice, empty": Case(lambda: jf.Choice([]), ValueError, "values is empty", "at least one",
        lambda: jf.Choice([1])),
    "resume, a number": Case(lambda: jf.resume(3, 10), TypeError, "got a int", r"what jf\.fit returned",
        lambda: jf.resume(FIT, 10)),
    "save, a number": Case(lambda: jf.save(3, "fit.json"), TypeError, "got a int", "store=",
        lambda: kept()),
    "load, a number": Case(lambda: jf.load(3, LOSS), TypeError, "path is 3", "a path such as",
        lambda: kept()),
    "load, no file": Case(lambda: jf.load("no such.json", LOSS), jf.StoreError, "no such.json does not exist", "check",
        lambda: kept()),
}  # fmt: skip

PARTS = {
    "datasets, pad": Case(lambda: jf.datasets.pad(3), TypeError, "datasets is 3", r"\[\(x, y\), \(x, y\)\]",
        lambda: jf.datasets.pad([(X, Y), (X, Y)])),
    "datasets, batches": Case(lambda: next(iter(jf.datasets.batches(DATA, 0, key=0))), ValueError, "is 0", "1 to 8",
        lambda: next(iter(jf.datasets.batches(DATA, 8, key=0)))),
    "losses, a number": Case(lambda: jf.losses.mse(3), TypeError, "predict is 3", "pass a function",
        lambda: jf.losses.mse(jf.models.line)),
    "losses, a sum": Case(lambda: LOSS + 3, TypeError, "3 cannot be added to a loss", "add a loss",
        lambda: LOSS + jf.losses.l2(0.1)),
    "losses, delta": Case(lambda: jf.losses.huber(jf.models.line, delta=0), ValueError, "delta is 0", "positive",
        lambda: jf.losses.huber(jf.models.line, delta=1)),
    "models, a degree": Case(lambda: jf.models.polynomial(-1), ValueError, "degree is -1", "0 or more",
        lambda: jf.models.polynomial(0)),
    "models, widths": Case(lambda: jf.models.dense([1, 0, 1]), ValueError, r"widths\[1\] is 0", "1 or more",
        lambda: jf.models.dense([1, 1, 1])),
    "models, an activation": Case(lambda: jf.models.dense([1, 2, 1], activation="tan"), ValueError, "'tan'", "'tanh'",
        lambda: jf.models.dense([1, 2, 1], activation="tanh")),
    "schedules, no such": Case(lambda: jf.schedules.cosin, AttributeError, "no 'cosin'", "did you mean cosine",
        lambda: jf.schedules.cosine(0.1, 9)),
    "schedules, a rate": Case(lambda: jf.schedules.cosine(-1.0, 9), ValueError, "rate is -1.0", "positive, finite",
        lambda: jf.schedules.cosine(1.0, 9)),
    "searches, a scale": Case(lambda: jf.searches.random_search(-1.0), ValueError, "scale is -1.0", "positive, finite",
        lambda: jf.searches.random_search(1.0)),
    "cache, a number": Case(lambda: jf.cache(3), TypeError, "folder is 3", "a path or None",
        lambda: jf.cache(None)),
}  # fmt: skip

CASES = named({
    "marker": MARKERS, "run": RUNS, "result": RESULTS, "curvature": CURVATURE, "statistics": STATISTICS, "part": PARTS,
    "search": SEARCHES,
})  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_verb_refuses_what_it_cannot_take_before_anything_compiles(name, events):
    check(CASES[name], events)


FREE = [  # which compile nothing of their own
    name for name in CASES
    if name.startswith(("part: ", "search: "))
    or name.partition(": ")[2].startswith(("Axis", "Batches", "Record", "Stop", "best", "lane", "random_plane"))
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, keep=FREE))
def test_the_remedy_of_a_message_of_a_verb_works(name):
    assert follows(CASES[name].mended)


# What a run makes, and what is raised: nobody calls these; and what needs an extra.
MADE = {
    "ask",  # which with tell needs an extra: tests/verbs/test_trials.py
    "tell",
    "Fit",
    "Graph",
    "Grid",
    "Interrupted",
    "NotConverged",
    "NotReproduced",
    "Optima",
    "OutOfMemory",
    "Status",
    "StoreError",
}


def test_no_public_name_is_forgotten():
    seen = {name.partition(": ")[2].partition(",")[0] for name in CASES}
    called = {name for name in (*jf.__all__, "open") if not inspect.ismodule(getattr(jf, name))}
    assert called - MADE <= seen


@pytest.mark.parametrize("name", sorted(n for n in (*jf.__all__, "open") if inspect.isfunction(getattr(jf, n))))
def test_an_unknown_keyword_is_answered_with_what_there_is(name):
    if name in ("lane", "optimizer"):  # which take any
        return
    with pytest.raises(TypeError, match="nonsense|takes 1 positional|unexpected"):
        getattr(jf, name)(nonsense=np.pi)


@pytest.mark.parametrize(
    ("room", "name", "meant"),
    [(jf, "standrd_errors", "standard_errors"), (jf.losses, "mae_", "mae"), (jf.models, "gausian", "gaussian"),
     (jf.datasets, "blood_presure", "blood_pressure"), (jf.optimizers, "adm", "adam"),
     (jf.searches, "random", "random_search"),
     (jf.schedules, "cosin", "cosine"), (landscapes, "plane", "random_plane"), (jf.plots, "contours", "contour")],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_answered_with_one_that_does(room, name, meant):
    with pytest.raises(AttributeError, match=f"{name}'; did you mean {meant}"):
        getattr(room, name)
    assert hasattr(room, meant)
