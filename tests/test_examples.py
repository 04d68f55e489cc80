"""Every public name explains itself in one sentence, and shows a short example that runs."""

import doctest
import importlib
import inspect
import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxfit as jf

MODULES = (
    "losses", "models", "optimizers", "optimizers.torch", "optimizers.keras", "optimizers.tfjs", "schedules",
    "searches", "datasets", "landscapes", "plots",
)  # fmt: skip
VERBS = {
    "Check", "Draw", "Make", "Minimize", "Pad", "Return", "Run", "Set", "Shuffle", "Split", "Test", "Use", "Write",
}  # fmt: skip
ARTICLES = {"A", "An", "The"}
COMPILE_MUCH = {  # these run with the soak tests
    "jaxfit.sklearn.Regressor", "jf.Axis", "jf.Batches", "jf.Bounded", "jf.Call", "jf.Grid", "jf.Hyperband",
    "jf.Median", "jf.Optima", "jf.Rungs", "jf.best", "jf.bootstrap", "jf.explain", "jf.f_test", "jf.hessian_spectrum",
    "jf.landscapes.trajectory_plane", "jf.lane", "jf.learning_rate_range", "jf.losses.implicit_distance",
    "jf.losses.joint", "jf.losses.likelihood", "jf.losses.orthogonal_distance", "jf.losses.smoothness",
    "jf.measured_limit", "jf.models.exponential_gaussian", "jf.models.linear_rectangle", "jf.models.pearson_iv",
    "jf.models.skewed_voigt", "jf.models.smooth_step", "jf.models.spline", "jf.models.voigt", "jf.models.voigts",
    "jf.monte_carlo", "jf.open", "jf.optima", "jf.optimizers.lbfgs", "jf.optimizers.reduced_on_plateau",
    "jf.plots.backprop_animation", "jf.plots.convergence_map", "jf.plots.corner", "jf.plots.descent_animation",
    "jf.plots.fit", "jf.plots.learning_rate_range", "jf.plots.surface_3d", "jf.profile", "jf.propagate", "jf.refine",
    "jf.resume", "jf.starts", "jf.tell", "jf.verify",
}  # fmt: skip


def documented(value):
    """What carries the docstring of a public name: itself, or for a curve of `jf.models` its class."""
    return value if inspect.isclass(value) or callable(value) and hasattr(value, "__name__") else type(value)


def public():
    """The public names that can be called, each with what it names."""
    yield from ((f"jf.{name}", getattr(jf, name)) for name in [*jf.__all__, "open"])
    for module in MODULES:
        found = importlib.import_module(f"jaxfit.{module}")
        values = ((f"jf.{module}.{name}", getattr(found, name)) for name in found.__all__)
        yield from ((name, value) for name, value in values if not inspect.ismodule(value))
    for module, names in (("experiments", ("Check", "show")), ("sklearn", ("Regressor",))):
        found = importlib.import_module(f"jaxfit.{module}")
        yield from ((f"jaxfit.{module}.{name}", getattr(found, name)) for name in names)


FIRST = {id(value): name for name, value in reversed([*public()]) if callable(value)}
PUBLIC = {name: value for name, value in public() if FIRST.get(id(value)) == name}
MADE_BY_FUNCTIONS = {name for name, value in PUBLIC.items() if inspect.isclass(value) and name.count(".") == 2}
WITH_EXAMPLE = [name for name in PUBLIC if name not in MADE_BY_FUNCTIONS or name.startswith("jaxfit.")]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_first_line_of_a_docstring_says_what_is_done_or_what_it_is(name):
    value, text = documented(PUBLIC[name]), inspect.getdoc(documented(PUBLIC[name])) or ""
    line = text.split("\n")[0]
    words = ARTICLES if inspect.isclass(value) else VERBS
    assert line.split(" ")[0] in words, f"{name}: {line!r} begins with none of {', '.join(sorted(words))}"
    assert line.endswith(".") and len(line) <= 116, f"{name}: {line!r} is no sentence of one line"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] * (name in COMPILE_MUCH)) for name in WITH_EXAMPLE]
)
def test_the_example_of_a_docstring_runs_and_prints_what_it_says(
    name, tmp_path, monkeypatch, nothing_was_compiled_before
):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    text = inspect.getdoc(documented(PUBLIC[name])) or ""
    test = doctest.DocTestParser().get_doctest(text, {"np": np, "jf": jf}, name, None, None)
    assert "\nExample:\n  >>> " in text and test.examples, f"{name} has no example"
    printed = io.StringIO()
    try:
        failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=printed.write)
    finally:
        plt.close("all")
    assert not failed, printed.getvalue()
