"""The names of other libraries: every remedy names what exists, and fits the arguments of what it calls."""

import ast
import builtins
import importlib
import inspect
import re

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.problems.meanings import ARGUMENTS, ATTRIBUTES, EXAMPLES, IN_MODULE, NAMES, OF_GRID
from jaxfit.problems.messages import near_attribute

MODULES = (
    jf, jf.losses, jf.models, jf.optimizers, jf.optimizers.torch, jf.optimizers.keras, jf.optimizers.tfjs, jf.schedules,
    jf.searches, jf.datasets, jf.landscapes, jf.plots,
)  # fmt: skip
LIBRARIES = {  # what the users of each know by heart
    "SciPy": "minimize least_squares leastsq fmin differential_evolution basinhopping linregress Bounds p0",
    "lmfit": "Parameter Parameters Model Minimizer fit_report conf_interval GaussianModel LinearModel stderr redchi",
    "Keras": "Sequential Dense compile evaluate EarlyStopping ModelCheckpoint MeanSquaredError callbacks epochs",
    "PyTorch": "DataLoader MSELoss L1Loss CrossEntropyLoss Linear StepLR CosineAnnealingLR manual_seed backward lr",
    "Optax": "apply_updates inject_hyperparams cosine_decay_schedule l2_loss huber_loss global_norm chain",
    "scikit-learn": "LinearRegression Ridge MLPRegressor GridSearchCV train_test_split StandardScaler predict coef_",
}


def written(text: str) -> list[str]:
    """The expressions of an entry: between backticks, or all of it."""
    return [] if text.startswith("nothing") else re.findall("`([^`]+)`", text) or [text]


def parsed(code: str) -> ast.expr:
    return ast.parse(f"dict({code})" if re.match(r"\w+=(?!=)", code) else code, mode="eval").body


def found(node: ast.expr):
    """The object that a chain of names stands for, from `jf`; None if it begins elsewhere."""
    if isinstance(node, ast.Attribute):
        inner = found(node.value)
        return None if inner is None else getattr(inner, node.attr)
    return jf if isinstance(node, ast.Name) and node.id == "jf" else None


CODES = sorted(
    {
        code
        for text in (
            *NAMES.values(),
            *ATTRIBUTES.values(),
            *OF_GRID.values(),
            *(m for many in ARGUMENTS.values() for m in many),
            *(meaning for module in IN_MODULE.values() for meaning in module.values()),
        )  # fmt: skip
        if not text.isidentifier()
        for code in written(text)
    }
)


@pytest.mark.parametrize("code", CODES)
def test_what_is_to_be_written_exists_and_takes_these_arguments(code):
    known = {"jf", "np", "loss", "predict", "residuals", "params", "start", "data", "x", "y", "sigma", "weights", "f",
             "optimizer", "fit", "value", "low", "high", "function", "factory", "values", "where", "optax", "model",
             "i", "p", "key", "grid", "small", "large", "jax", "jnp", "schedule", "device", "x_sigma"}  # fmt: skip
    for node in ast.walk(parsed(code)):
        if isinstance(node, ast.Name):
            assert node.id in known or hasattr(builtins, node.id), node.id
        if isinstance(node, ast.Attribute):
            found(node)  # an AttributeError if it does not exist
        called = found(node.func) if isinstance(node, ast.Call) else None
        if called is not None and (inspect.isfunction(called) or inspect.isclass(called)):
            inspect.signature(called).bind(*node.args, **{word.arg: word.value for word in node.keywords})


def test_every_argument_that_is_meant_is_one_of_a_public_function():
    public = [getattr(module, name) for module in MODULES for name in module.__all__]
    takes = set().union(
        *(inspect.signature(f).parameters for f in public if inspect.isfunction(f)), ("low", "high", "size")
    )
    meant = {meaning for many in ARGUMENTS.values() for meaning in many if meaning.isidentifier()}
    assert not meant - takes and EXAMPLES


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_the_users_of_other_libraries_know_is_answered_by_meaning(library):
    for name in LIBRARIES[library].split():
        if name in ARGUMENTS:
            with pytest.raises(TypeError, match=f"has no argument {name!r}; (did you mean|write) "):
                jf.curve_fit(jf.models.line, **{name: 1.0})
        elif name in ATTRIBUTES and name not in NAMES:
            assert "; write " in near_attribute("the fit", name, ATTRIBUTES, ())
        elif not hasattr(jf, name):
            with pytest.raises(AttributeError, match=f"{name}'; write "):
                getattr(jf, name)


@pytest.mark.parametrize(
    ("module", "name", "meant"),
    [(jf, "mse", "jf.losses.mse"), (jf, "Adam", "jf.optimizers.adam"), (jf.losses, "adam", "jf.optimizers.adam"),
     (jf, "cosine", "jf.schedules.cosine"), (jf.models, "report", "jf.report"), (jf, "Minimise", "jf.fit"),
     (jf, "early_stopping", r"jf.Stop\(patience=5\)"), (jf.optimizers, "BFGS", "jf.optimizers.lbfgs")],
)  # fmt: skip
def test_a_name_of_another_module_is_answered_with_its_place(module, name, meant):
    with pytest.raises(AttributeError, match=rf"no (attribute )?{name!r}; write .*{meant}"):
        getattr(module, name)


def test_a_name_in_other_capitals_is_answered_with_its_own():
    with pytest.raises(AttributeError, match="'SGD'; did you mean sgd"):
        jf.optimizers.SGD  # noqa: B018


@pytest.mark.parametrize(
    ("function", "keyword", "meant"),
    [(jf.curve_fit, "p0", "did you mean start"), (jf.curve_fit, "bounds", "write `jf.Bounded"),
     (jf.curve_fit, "weights", r"sigma=1 / weights\)`"), (jf.fit, "x0", "did you mean params"),
     (jf.fit, "epochs", "did you mean steps"), (jf.fit, "lr", r"write optimizer=jf.optimizers.adam\(0.01\)"),
     (jf.fit, "sigma", r"write `jf.curve_fit\(predict, start, \(x, y\), sigma=sigma"), (jf.fit, "seed", "mean key"),
     (jf.fit, "batch_size", r"write batches=jf.Batches\(32\)"), (jf.fit, "tol", "write stop=jf.Stop"),
     (jf.sweep, "Verbose", "did you mean progress"), (jf.optimizers.adam, "lr", "did you mean learning_rate"),
     (jf.optimizers.adam, "beta_1", "did you mean b1"), (jf.intervals, "confidence", "did you mean level"),
     (jf.fit, "jac", "write nothing, since JAX differentiates")],
)  # fmt: skip
def test_an_argument_of_another_library_is_answered_by_meaning(function, keyword, meant):
    with pytest.raises(TypeError, match=f"has no argument {keyword!r}; .*{meant}"):
        function(**{keyword: 1.0})


@pytest.mark.soak
@pytest.mark.parametrize("code", CODES)
def test_what_is_to_be_written_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.linspace(0.0, 1.0, 40)
    y = 2.0 * x + 1.0 + 0.1 * np.sin(9 * x)
    predict = jf.models.line
    start = {"w": 1.0, "b": 0.0}
    optimizer = jf.optimizers.levenberg_marquardt()
    fit = jf.fit(jf.losses.mse(predict), start, (x, y), optimizer=optimizer, precision="float64")
    if "open(" in code:
        jf.sweep(jf.losses.mse(predict), {"w": jf.Axis("w", [0.0, 1.0]), "b": 0.0}, (x, y), optimizer=optimizer,
                 store="folder")  # fmt: skip
    if "load(" in code:
        jf.save(fit, "run.safetensors")
    of_params = "store=" in code or "jf.starts(" in code or "jf.Axis('a'" in code or "jf.Axis" not in code
    if of_params or "schedules" in code and "adam" not in code:
        code = code.replace("jf.sweep(loss, params", "jf.sweep(loss, swept")
    code = code.replace("name='a'", "name='w'")
    scope = dict(
        jf=jf, np=np, jax=jax, jnp=jnp, optax=optax, x=x, y=y, predict=predict, model=predict, start=start,
        params=start, data=(x, y),
        optimizer=jf.optimizers.adam(0.01), fit=fit, loss=jf.losses.mse(predict), sigma=0.1, weights=np.ones(40),
        where=np.ones(40, bool), value=1.0, low=0.0, high=2.0, function=lambda p: 2 * p["a"], factory=optax.sgd,
        values=[0.0, 1.0], f=lambda x, a, b: a * x + b, swept={"w": jf.Axis("w", [0.0, 1.0]), "b": 0.0},
        residuals=lambda p, x, y: p["w"] * x + p["b"] - y, x_sigma=0.01, schedule=lambda step: 0.1 / (1 + step),
        device=jax.devices()[0], large=fit,
    )  # fmt: skip
    if "small" in code:
        scope["small"] = jf.fit(jf.losses.mse(predict), start | {"b": jf.Fixed(1.0)}, (x, y), optimizer=optimizer)
    if "jf.starts(" in code:
        scope["params"] = {"w": jf.Bounded(1.0, -5.0, 5.0), "b": jf.Bounded(0.0, -5.0, 5.0)}
    if "grid" in code:
        rate = jf.Axis("rate", [0.1, 0.2])
        scope["grid"] = jf.sweep(scope["loss"], start, (x, y), optimizer=jf.optimizers.sgd(rate), steps=2,
                                 record=jf.Record(what=("loss",)))  # fmt: skip
    if "{'a'" in code and "surface" in code:
        scope["loss"] = lambda params, x, y: jnp.mean(jnp.square(params["a"] * x - y))
    if "jf.losses.least_squares" in code:
        assert callable(scope["residuals"])
    assert eval(compile(ast.Expression(parsed(code)), "<entry>", "eval"), scope) is not None


@pytest.mark.parametrize("path", IN_MODULE)
def test_a_module_answers_with_what_a_name_means_there(path):
    module = importlib.import_module(path)
    for name, meaning in IN_MODULE[path].items():
        with pytest.raises(AttributeError) as seen:
            getattr(module, name)
        assert f"write {meaning}." in str(seen.value), name


def test_a_line_of_measurements_is_no_layer_and_a_linear_schedule_no_model():
    for module, name, told in (
        (jf.models, "Linear", "jf.models.line"), (jf.models, "exponential", "jf.models.exponential_decay"),
        (jf.schedules, "linear", "jf.schedules.polynomial"), (jf.schedules, "step", "jf.schedules.stepwise"),
        (jf.losses, "cross_entropy", "jf.losses.softmax_cross_entropy"), (jf.plots, "history", "loss_history"),
        (jf, "stderr", "jf.standard_errors(fit)"), (jf.optimizers, "gradient_descent", "jf.optimizers.sgd"),
    ):  # fmt: skip
        with pytest.raises(AttributeError, match=re.escape(told)):
            getattr(module, name)


USERS = {  # what they try as `jf.NAME`, and a word of the answer
    "SciPy": "fmin_cg:lbfgs root:least_squares nnls:Bounded odr:orthogonal interp1d:spline simplex:lbfgs",
    "lmfit": "make_params:Bounded guess:None emcee:bootstrap redchi:reduced cov:covariance",
    "iminuit": "Minuit:fit migrad:lbfgs hesse:standard_errors minos:intervals UnbinnedNLL:likelihood fixto:Fixed",
    "Keras": "Dense:dense Layer:dense get_weights:params save_model:save load_model:load TensorBoard:Record",
    "PyTorch": "Trainer:fit no_grad:nothing nn:dense optim:optimizers train_step:step LambdaLR:schedule",
    "JAX": "tree_map:tree.map jac:backprop jit:compiled vmap:sweep hvp:sharpness",
    "scikit-learn": "SVR:dense fit_transform:standardize glm:poisson nls:curve_fit anova:f_test",
}


@pytest.mark.parametrize("name", [pair for pairs in USERS.values() for pair in pairs.split()])
def test_a_name_of_another_library_is_answered_by_meaning(name):
    name, word = name.split(":")
    with pytest.raises(AttributeError, match=rf"; write .*{re.escape(word)}"):
        getattr(jf, name)


@pytest.mark.parametrize("name", ["Wxyz", "torch_like", "qqq"])
def test_what_resembles_nothing_gets_no_guess(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'\\.$"):
        getattr(jf, name)
