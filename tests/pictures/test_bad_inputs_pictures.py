"""Plots, pages, galleries and estimators refuse what they cannot show, and the remedy of each message works."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import experiments, galleries, landscapes
from jaxfit.plots import Arrow, Box
from tests.shared.bad_inputs import LOSS, SGD, START, Case, X, Y, check, fit, follows, named, sweep
from tests.shared.soak import soaking

LINE = jf.models.line
NOISY = Y + 0.1 * np.cos(9 * X)
WITH_PARAMS = jf.Record(what=("loss", "params"))
GRID = {"w": jf.Axis("w", np.linspace(-1, 1, 5)), "b": jf.Axis("b", np.linspace(-1, 1, 5))}


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


@functools.cache
def line():
    return jf.curve_fit(LINE, START, (X, NOISY))


@functools.cache
def recorded():
    return fit(record=WITH_PARAMS)


@functools.cache
def surface(count=2):
    more = {"c": jf.Axis("c", [0.0, 1.0])} if count == 3 else {}
    return jf.surface(bowl, GRID | more)


def bowl(p):
    return p["w"] ** 2 + p["b"] ** 2 + p.get("c", 0.0)


def graph():
    return jf.backprop(LOSS, START, (X, Y))


def seven(**keywords):
    fitted = jf.curve_fit(jf.models.polynomial(6), None, (np.linspace(-1, 1, 20), np.cos(np.arange(20.0) ** 2)))
    return jf.plots.corner(fitted, **keywords)


def columns():
    return fit(jf.losses.mse(lambda p, x: p["w"] * x + p["b"]), data=(np.stack([X, X], 1), np.stack([Y, Y], 1)),
               optimizer=jf.optimizers.levenberg_marquardt(), steps=9)  # fmt: skip


def logarithmic(scale, x=X - 2):
    axes = plt.subplots()[1]
    axes.set_xscale("log")
    if scale:
        axes.set_xscale(scale)
    return jf.plots.fit(jf.curve_fit(LINE, START, (x, NOISY)), ax=axes)


def flow(boxes, arrows=(), size=(6, 4)):
    axes = plt.subplots(figsize=size)[1]
    return jf.plots.flow({name: Box(name, at=at) for name, at in boxes.items()}, arrows, ax=axes)


def no_model(params, x, y):
    return jnp.mean(jnp.square(LINE(params, x) - y))


def drawn(params):
    axes = plt.subplots()[1]
    axes.plot(X, Y, "o")
    return axes.plot(X, LINE(params, X))


def mapped(results):
    return jf.plots.convergence_map(results, x="rate", y="start", ax=plt.subplots()[1])


def three():
    return swept().results


@functools.cache
def swept():
    rates, starts = jf.optimizers.sgd(jf.Axis("rate", [0.1, 0.3])), jf.Axis("start", [1.0, 2.0])
    return jf.sweep(of_data, starts, (jf.Axis("size", [1.0, 2.0]),), optimizer=rates, steps=9)


def of_data(p, scale):
    return scale * p**2


def on(make, *arguments, **keywords):
    return make(*arguments, ax=plt.subplots()[1], **keywords)


PLOTS = {
    "the plane of three params": Case(
        lambda: jf.plots.descent_animation(jf.fit(
            lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 2 + p["c"] ** 2, START | {"c": 1.0}, optimizer=SGD, steps=2,
            record=WITH_PARAMS)), ValueError, "drawn over two scalar params", r"hold the others with jf\.Fixed",
        lambda: jf.plots.descent_animation(jf.fit(
            lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 2 + p["c"] ** 2, START | {"c": jf.Fixed(1.0)}, optimizer=SGD,
            steps=2, record=WITH_PARAMS), frames=2)),
    "a direction": Case(lambda: jf.plots.backprop_graph(graph(), direction="left"), ValueError, "direction is 'left'",
        '"right", "up" or "down"', lambda: jf.plots.backprop_graph(graph(), direction="up")),
    "an arrow to no box": Case(lambda: flow({"a": (0, 0)}, [Arrow("a", "b")]), ValueError, "an arrow's end is 'b'",
        "there are the boxes 'a'", lambda: flow({"a": (0, 0), "b": (2, 0)}, [Arrow("a", "b")])),
    "two boxes at a place": Case(lambda: flow({"a": (0, 0), "b": (0, 0)}), ValueError, "are both at",
        "move one of them",
        lambda: flow({"a": (0, 0), "b": (1, 0)})),
    "boxes on a small page": Case(lambda: flow({"a" * 40: (0, 0), "b" * 40: (1, 0)}, size=(2, 2)), ValueError,
        "the boxes need .* inches, but the axes are", "make the axes larger, or the texts shorter",
        lambda: flow({"a" * 40: (0, 0), "b" * 40: (1, 0)}, size=(16, 2))),
    "an arrow through a box": Case(lambda: flow({"a": (0, 0), "b": (1, 0), "c": (2, 0)}, [Arrow("a", "c")]), ValueError,
        "passes through 'b'", "move a box", lambda: flow({"a": (0, 0), "b": (1, 1), "c": (2, 0)}, [Arrow("a", "c")])),
    "an animation that is a picture": Case(lambda: jf.plots.gif(b"\x89PNG"), ValueError, "these begin with b'.x89PNG'",
        r"of a still picture use jf\.plots\.png\(figure\)", lambda: jf.plots.png(plt.figure())),
    "a picture of several axes": Case(lambda: jf.plots.png(jf.plots.fit(line())), TypeError, "axes, but got a dict",
        "axes that a plot returned, one if they are several",
        lambda: jf.plots.png(jf.plots.fit(line())["curve"])),
    "a GIF by its file": Case(lambda: jf.plots.gif("descent.gif"), TypeError, "the bytes of a GIF, but got a str",
        r"those of jf\.plots\.descent_animation\(...\)", lambda: jf.plots.gif(b"GIF89a")),
    "a map of three": Case(lambda: mapped(three()), ValueError, "cannot show", r"choose the rest with results\.sel",
        lambda: mapped(three().sel(size=1.0))),
    "a grid's losses": Case(lambda: on(jf.plots.loss_history, swept()), TypeError, "losses, but got a Grid",
        r"or of a grid one lane: jf\.lane\(grid, ...\)", lambda: on(jf.plots.loss_history, {"fit": recorded()})),
    "a lane without losses": Case(lambda: on(jf.plots.loss_history, jf.lane(swept(), rate=0.1, start=1.0, size=1.0)),
        ValueError, "did not record its loss", r"record=jf\.Record\(what=\('loss',\)\)",
        lambda: on(jf.plots.loss_history, fit(record=jf.Record(what=("loss",))))),
    "a map of a grid": Case(lambda: on(jf.plots.convergence_map, swept(), x="rate", y="start"), TypeError,
        "results, but got a Grid",
        r"pass its grid\.results", lambda: mapped(three().sel(size=1.0))),
    "a grid's rates": Case(lambda: on(jf.plots.learning_rate_range, swept()), TypeError, "a range test, but got a Grid",
        r"what jf\.learning_rate_range returned", lambda: on(jf.plots.learning_rate_range, jf.learning_rate_range(
            LOSS, START, (X, Y), optimizer=SGD, steps=20))),
    "a grid's graph": Case(lambda: jf.plots.backprop_graph(swept()), TypeError, "a graph, but got a Grid",
        r"what jf\.backprop\(loss, params, data\) returned", lambda: jf.plots.backprop_graph(graph())),
    "a graph's animation": Case(lambda: jf.plots.backprop_animation(swept()), TypeError, "a graph, but got a Grid",
        r"what jf\.backprop", lambda: jf.plots.backprop_animation(jf.backprop(lambda p: p**2, 3.0))),
    "boxes without names": Case(lambda: on(jf.plots.flow, swept()), TypeError, "boxes by name, but got a Grid",
        r"such as \{\"a\": jf\.plots\.Box", lambda: flow({"a": (0, 0)})),
    "a grid's surface": Case(lambda: on(jf.plots.contour, swept()), TypeError, "is a Grid",
        r"such as grid\.results\.loss", lambda: on(jf.plots.contour, swept().results.loss.sel(size=1.0))),
    "a surface of three": Case(lambda: on(jf.plots.contour, surface(3)), ValueError, "has two dimensions",
        r"surface\.sel", lambda: on(jf.plots.contour, surface(3).sel(c=0.0))),
    "the least of three": Case(lambda: on(jf.plots.contour, surface(3)), ValueError, "has two dimensions",
        r"surface\.min", lambda: on(jf.plots.contour, surface(3).min("c"))),
    "paths in a list": Case(lambda: on(jf.plots.contour, surface(), [recorded()]), TypeError, "paths is a list",
        r"such as \{'descent': fit\}", lambda: on(jf.plots.contour, surface(), {"descent": recorded()})),
    "a path of a number": Case(lambda: on(jf.plots.contour, surface(), {"a": 3.0}), ValueError, "the path 'a' is 3.0",
        r"or \(x, y\)", lambda: on(jf.plots.contour, surface(), {"a": ([0.0, 1.0], [0.0, 1.0])})),
    "a path of other params": Case(lambda: on(jf.plots.contour, surface(), {"a": {"v": [0.0]}}), ValueError,
        "has params v",
        r"or give the path as \(x, y\)", lambda: on(jf.plots.contour, surface(), {"a": ([0.0], [0.0])})),
    "a path of other names": Case(lambda: on(jf.plots.contour, of_other_names(), recorded()), ValueError,
        "has params b, w",
        "name the axes like the params", lambda: on(jf.plots.contour, surface(), recorded())),
    "flat axes": Case(lambda: on(jf.plots.surface_3d, surface()), ValueError, "axes made with projection='3d'",
        "not on a Axes", lambda: jf.plots.surface_3d(surface(), ax=plt.figure().add_subplot(projection="3d"))),
    "a path without heights": Case(lambda: jf.plots.surface_3d(surface(), {"a": ([0.0, 1.0], [0.0, 1.0])}), ValueError,
        "has no losses", r"or \(x, y, loss\)",
        lambda: jf.plots.surface_3d(surface(), {"a": ([0.0, 1.0], [0.0, 1.0], [0.0, 2.0])})),
    "a surface of another slice": Case(lambda: on(jf.plots.landscape, surface(), plane()), ValueError, "but the slice",
        r"make it with jf\.surface\(loss, plane\.at\(\), data\)",
        lambda: on(jf.plots.landscape, jf.surface(LOSS, plane().at(*[np.linspace(-1, 1, 5)] * 2), (X, Y)), plane())),
    "a curve of columns": Case(lambda: jf.plots.fit(columns()), ValueError, r"x has shape \(8, 2\)",
        "fit and draw one col",
        lambda: jf.plots.fit(line())),
    "logarithms of what is negative": Case(lambda: logarithmic(None), ValueError, "no x is above zero",
        r"set_xscale\('linear'\)", lambda: logarithmic("linear")),
    "logarithms of what is negative, on both sides": Case(lambda: logarithmic(None), ValueError, "no x is above zero",
        "or 'symlog'", lambda: logarithmic("symlog")),
    "a profile without its error": Case(lambda: on(jf.plots.profile, profiles()["w"]), TypeError, "without an error",
        r'jf\.profile\(fit\)\["a"\] and jf\.standard_errors\(fit\)\["a"\]',
        lambda: on(jf.plots.profile, profiles()["w"], jf.standard_errors(line())["w"])),
    "a profile of params": Case(lambda: on(jf.plots.profile, START), TypeError, "without an error",
        'a fit and name="a"',
        lambda: on(jf.plots.profile, line(), name="w")),
    "a profile of no name": Case(lambda: on(jf.plots.profile, line()), ValueError, "with an error are b, w", "name one",
        lambda: on(jf.plots.profile, line(), name="w")),
    "a curve of params": Case(lambda: jf.plots.fit(START), TypeError, "got a dict",
        r"pass what jf\.fit or jf\.curve_fit",
        lambda: jf.plots.fit(line())),
    "a curve of no model": Case(lambda: jf.plots.fit(fit(no_model)), TypeError, "no_model has no model that predicts",
        r"draw the points and model\(fit\.params, x\)", lambda: drawn(fit(no_model).params)),
    "a corner of many": Case(lambda: seven(), ValueError, "7 params have an error", "choose with names=",
        lambda: seven(names=["coefficients[0]", "coefficients[1]"])),
}  # fmt: skip


def profiles():
    return jf.profile(line())


def plane():
    return landscapes.random_plane(START, key=0, normalize="leaf")


@functools.cache
def of_other_names():
    return jf.surface(bowl, {"w": jf.Axis("slope", np.linspace(-1, 1, 5)), "b": jf.Axis("b", np.linspace(-1, 1, 5))})


def page(result):
    with tempfile.TemporaryDirectory() as folder:
        return Path(result.to_html(f"{folder}/page.html")).stat().st_size


def many():
    return jax.vmap(lambda w: fit(params=START | {"w": w}))(np.array([0.0, 1.0]))


PAGES = {
    "a traced fit": Case(lambda: jax.jit(lambda w: page(fit(params=START | {"w": w})))(1.0), TypeError,
        "the fit is traced", "call it on what the jit, vmap or grad returns",
        lambda: page(jax.jit(lambda w: fit(params=START | {"w": w}))(1.0))),
    "many fits": Case(lambda: page(many()), ValueError, "holds 2 runs", r"jax\.tree\.map\(lambda x: x\[0\], fit\)",
        lambda: page(jax.tree.map(lambda x: x[0], many()))),
    "many fits in a sweep": Case(lambda: page(many()), ValueError, "holds 2 runs", r"or use jf\.sweep",
        lambda: page(sweep())),
}  # fmt: skip

PARTS = "from typing import NamedTuple\nclass Config(NamedTuple): n: int = 1\ndef compute(config): return 1\n"
GOOD = f'"""A claim."""\n{PARTS}def checks(result): return [("one", 1, 1, 0)]\ndef draw(result): return None\n'


def folder(files, use):
    with tempfile.TemporaryDirectory() as name:
        for path, text in files.items():
            (Path(name) / path).write_text(text)
        return use(Path(name).resolve())


def loaded(path):
    with experiments.importable(path):
        return experiments.load(path, "a")


def prepared(path):
    galleries.prepare(path)


FOLDERS = {
    "no folder": Case(lambda: folder({}, lambda path: experiments.discover(path / "no")), experiments.UsageError,
        "is not a folder", "name the folder that holds the experiments",
        lambda: folder({"a.py": GOOD}, experiments.discover)),
    "no experiment": Case(lambda: folder({"a.py": "x = 1"}, experiments.discover), experiments.UsageError,
        "holds no experiment", "a file NAME.py with Config", lambda: folder({"a.py": GOOD}, experiments.discover)),
    "no such experiment": Case(lambda: experiments.choose(["rates"], ["rate"]), experiments.UsageError, "named 'rate'",
        "did you mean rates", lambda: experiments.choose(["rates"], ["rates"])),
    "an experiment without a claim": Case(lambda: folder({"a.py": GOOD.partition('\n')[2]}, loaded), AttributeError,
        "a.py lacks",
        "a docstring, which is its claim", lambda: folder({"a.py": GOOD}, loaded)),
    "an experiment without a check": Case(lambda: folder({"a.py": GOOD.replace("checks", "tests")}, loaded),
        AttributeError, "a.py lacks", "checks", lambda: folder({"a.py": GOOD}, loaded)),
    "a picture of no name": Case(lambda: experiments.rendered({"a/b": plt.figure()}, "x"), ValueError, "draw returned",
        "no suffix a path", lambda: experiments.rendered({"a": plt.figure()}, "x")),
    "another's README": Case(lambda: folder({"README.md": "mine"}, prepared), experiments.UsageError, "would be lost",
        "choose other --figures", lambda: folder({}, lambda path: prepared(path / "figures"))),
    "no index": Case(lambda: folder({"index.json": "[1]"}, galleries.read_index), experiments.UsageError,
        "is not an ind",
        "delete it", lambda: folder({}, galleries.read_index)),
}  # fmt: skip


def regress(model=None, start=None, loss=None, **keywords):
    sklearn = pytest.importorskip("jaxfit.sklearn")
    return sklearn.Regressor(model, start=start, loss=loss).fit(X[:, None], NOISY, **keywords)


def own(params, x):
    return params["w"] * x + params["b"]


ESTIMATORS = {
    "no start": Case(lambda: regress(own), ValueError, "guesses and initializes nothing",
        "give the params to start from",
        lambda: regress(own, START).loss_),
    "weights of another length": Case(lambda: regress(sample_weight=np.ones(3)), ValueError, r"shape \(3,\)",
        "8 finite numbers", lambda: regress(sample_weight=np.ones(8)).loss_),
    "weights of zero": Case(lambda: regress(sample_weight=np.zeros(8)), ValueError, "zero for every sample",
        "give some a weight", lambda: regress(sample_weight=1.0 * (X > 0.5)).loss_),
    "weights beside a loss": Case(lambda: regress(LINE, loss=jf.losses.huber, sample_weight=np.ones(8)), ValueError,
        "a loss was given", "leave one of the two out", lambda: regress(LINE, loss=jf.losses.huber).loss_),
}  # fmt: skip

CASES = named({"plot": PLOTS, "page": PAGES, "folder": FOLDERS, "estimator": ESTIMATORS})


COMPILES = (
    "the plane of three",
    "a profile",
    "a corner",
    "many fits",
    "a map",
    "a traced",
    "weights beside",
    "logarithms",
)
REFUSED = [name for name in CASES if not name.partition(": ")[2].startswith(COMPILES)]
FREE = [  # remedies that compile nothing of their own
    name for name in CASES
    if name.startswith(("folder: ", "plot: an a", "plot: two", "plot: boxes", "plot: a surface of three",
        "plot: a path of a"))
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, keep=REFUSED))
def test_what_cannot_be_shown_is_refused_in_words_that_help(name, events):
    check(CASES[name], events, may_compile=True)


@pytest.mark.parametrize("name", soaking(CASES, keep=FREE))
def test_the_remedy_of_a_message_about_a_picture_works(name):
    assert follows(CASES[name].mended)
