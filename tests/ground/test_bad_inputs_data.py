"""Bad data and models are refused in words that help, odd data work, and trouble in the numbers is a status."""

import datetime
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from tests.shared.bad_inputs import LOSS, MASKED, START, Case, X, Y, check, fit, follows, named, own, sweep, with_
from tests.shared.soak import soaking

pytestmark = pytest.mark.usefixtures("nothing_was_compiled_before")


def leaked(make):
    kept = []
    make(lambda z: kept.append(z) or z)(jnp.ones(2) if make is jax.vmap else 1.0)
    return kept[0]


AT = jf.losses.mse(lambda params, x: jnp.stack([params["w"], params["b"]])[x])
OF_JIT, OF_GRAD, OF_VMAP = leaked(jax.jit), leaked(jax.grad), leaked(jax.vmap)

HIDDEN = np.ma.masked_greater(Y, 2.0)
KEEP = ~np.ma.getmaskarray(HIDDEN)
MAE = jf.losses.mae(jf.models.line)
DATES = [datetime.datetime(2024, 3, 31, hour, tzinfo=datetime.UTC) for hour in range(8)]
RECORDS = np.zeros(8, [("u", float), ("v", int)])


class Uncertain:
    """As numbers of the package `uncertainties` look."""

    def __init__(self, nominal_value, std_dev):
        self.nominal_value, self.std_dev = nominal_value, std_dev


def uncertain(values, size):
    return np.array([Uncertain(v, size) for v in values], object)


def as_scipy(x, w, b):
    return w * x + b


# Models that cannot be trained, each for one reason


def calls_numpy(params, x):
    return np.sin(params["w"] * x) + params["b"]


def decides(params, x):
    return params["w"] * x if params["w"] > 0 else params["b"] * x


def needs_number(params, x):
    return float(params["w"]) * x + params["b"]


def loops(params, x):
    return sum(params["w"] * x for _ in range(params["b"]))


def draws(params, x):
    return params["w"] * x + np.random.default_rng().normal(size=8)


def draws_one(params, x):
    return params["w"] * x + np.random.default_rng().normal()


def counts(params, x, seen=[]):  # noqa: B006 (on purpose)
    seen.append(1)
    return params["w"] * x * len(seen)


def raises(params, x):
    raise RuntimeError("the spectrometer is off")


def predicts_column(params, x):
    return (params["w"] * x)[:, None]


def predicts_tuple(params, x):
    return params["w"] * x, params["b"]


def line_number(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def at(function, text):
    return rf"test_bad_inputs_\w+\.py, line {line_number(function, text)}, `.*{re.escape(text)}"


WRONG_DATA = {
    "NaN in x": Case(lambda: fit(data=(with_(X, 3, np.nan), Y)), ValueError,
        r"data\[0\] \(x\) has 1 of 8 values that are not finite, the first at index 3 \(nan\)",
        "drop those rows.*masked=True",
        lambda: fit(data=(X3[np.isfinite(X3)], Y[np.isfinite(X3)]))),
    "infinity in y": Case(lambda: fit(data=(X, with_(Y, [2, 5], -np.inf))), ValueError,
        r"data\[1\] \(y\) has 2 of 8 .* index 2 \(-inf\)", "drop those rows.*masked=True",
        lambda: fit(MASKED, data=(X, OTHER, np.isfinite(OTHER)))),
    "NaN in a matrix": Case(
        lambda: fit(own, data=(np.ones((8, 2)), with_(np.ones((8, 2)), (1, 1), np.nan))), ValueError,
        r"data\[1\] \(y\) has 1 of 16 .* index \(1, 1\)", "drop",
        lambda: fit(own, data=(np.ones((7, 2)), np.ones((7, 2))))),
    "NaN in a JAX array": Case(lambda: fit(data=(jnp.asarray(X).at[7].set(jnp.nan), Y)), ValueError,
        r"data\[0\] \(x\) .* index 7", "drop",
        lambda: fit(MASKED, data=(x := jnp.asarray(X).at[7].set(jnp.nan), Y, jnp.isfinite(x)))),
    "NaN in a dict": Case(
        lambda: fit(lambda p, d: own(p, d["x"], d["y"]), data=({"x": X, "y": Y * np.nan},)), ValueError,
        r"data\[0\]\['y'\] .*has 8 of 8", "drop",
        lambda: fit(lambda p, d: own(p, d["x"], d["y"]), data=({"x": X, "y": Y},))),
    "NaN in a row that counts": Case(lambda: fit(MASKED, data=(X, with_(Y, 0, np.nan), X > -1)), ValueError,
        r"data\[1\] \(y\) .* index 0", "masked",
        lambda: fit(MASKED, data=(X, with_(Y, 0, np.nan), X > 0))),
    "NaN in the validation data": Case(lambda: fit(validation=(X, Y * np.inf)), ValueError,
        r"validation\[1\] \(y\) has 8 of 8", "drop",
        lambda: fit(MASKED, data=(X, Y, X >= 0), validation=(X, with_(Y, 0, np.inf), X > 0))),
    "x and y of different length": Case(lambda: fit(data=(X, Y[:5])), ValueError,
        r"data differ in length: data\[0\] \(x\) has shape \(8,\), data\[1\] \(y\) has shape \(5,\)",
        "one entry per data point",
        lambda: fit(data=(X[:5], Y[:5]))),
    "different length in a loss of one's own": Case(lambda: fit(own, data=(X, Y[:5])), ValueError,
        r"data differ in length.*\(8,\).*\(5,\)", "one entry per data point",
        lambda: fit(own, data=(X[:5], Y[:5]))),
    "different length in batches": Case(
        lambda: fit(own, data=(X, Y[:5]), batches=jf.Batches(size=2), key=0), ValueError, r"\(8,\).*\(5,\)",
        "one entry per",
        lambda: fit(own, data=(X[:5], Y[:5]), batches=jf.Batches(size=2), key=0)),
    "validation of different length": Case(lambda: fit(own, validation=(X, Y[:5])), ValueError,
        r"validation differ in length.*\(8,\).*\(5,\)", "one entry per",
        lambda: fit(own, validation=(X[:5], Y[:5]))),
    "a column against a row": Case(lambda: fit(data=(X, Y[:, None])), ValueError,
        r"prediction has shape \(8,\), the target y \(8, 1\)", r"never broadcasts.*pass y\[:, 0\]",
        lambda: fit(data=(X, Y[:, None][:, 0]))),
    "one target for all": Case(lambda: fit(data=(X, Y[:1])), ValueError, r"\(8,\).*\(1,\)", "one entry per",
        lambda: fit(data=(X, np.full((8,), Y[0])))),
    "validation as a column": Case(lambda: fit(validation=(X, Y[:, None])), ValueError,
        r"validation: .*\(8,\).*\(8, 1\)", "y.:, 0.",
        lambda: fit(validation=(X, Y[:, None][:, 0]))),
    "a model that returns a column": Case(lambda: fit(jf.losses.mse(predicts_column)), ValueError,
        r"prediction has shape \(8, 1\), the target y \(8,\)",
        r"return predictions of shape \(8,\).*prediction\[:, 0\]",
        lambda: fit(
        jf.losses.mse(lambda p, x: predicts_column(p, x)[:, 0] + p["b"])
    )),
    "a model that returns a tuple": Case(lambda: fit(jf.losses.mse(predicts_tuple)), TypeError,
        "predict returned a tuple", "must return one array",
        lambda: fit(jf.losses.mse(lambda p, x: predicts_tuple(p, x)[0] + p["b"]))),
    "empty arrays": Case(lambda: fit(data=(X[:0], Y[:0])), ValueError,
        r"data\[0\] \(x\) has shape \(0,\)", "at least one point",
        lambda: fit(data=(X[:1], Y[:1]))),
    "no arrays": Case(lambda: fit(data=()), ValueError, "data holds no array", r"pass data=\(x, y\)",
        lambda: fit(data=(X, Y))),
    "one array too few": Case(lambda: fit(data=(X,)), TypeError,
        r"takes the data \(x, y\), but got 1 array;", r"takes \(x, y\)",
        lambda: fit(data=(X, Y))),
    "one array too many": Case(lambda: fit(own, data=(X, Y, Y)), TypeError,
        r"takes \(params, x, y\), but data has 3 items", "tuple handed to the loss after params",
        lambda: fit(own, data=(X, Y))),
    "a mask that counts nothing": Case(lambda: fit(MASKED, data=(X, Y, X > 9)), ValueError,
        r"data\[2\] \(where\) is False everywhere", "mark at least one row",
        lambda: fit(MASKED, data=(X, Y, X > 0.9))),
    "a mask of numbers": Case(lambda: fit(MASKED, data=(X, Y, np.ones(8, int))), TypeError,
        "where holds int32 values", r"where\.astype\(bool\)",
        lambda: fit(MASKED, data=(X, Y, np.ones(8, int).astype(bool)))),
    "an array instead of a tuple": Case(lambda: fit(data=X), TypeError,
        r"data is one array of shape \(8,\)", r"write data=\(x, y\)",
        lambda: fit(data=(X, Y))),
    "a dict instead of a tuple": Case(lambda: fit(data={"x": X, "y": Y}), TypeError,
        r"data is .* \(dict\)", r"write data=\(data\['x'\], data\['y'\]\), in the order in which the loss takes them",
        lambda: fit(data=(X, Y))),
    "no data at all": Case(lambda: fit(data=None), TypeError, "data is None", r"write data=\(x, y\)",
        lambda: fit(data=(X, Y))),
    "x in a tuple of its own": Case(lambda: fit(data=((X, X), Y)), TypeError,
        r"data\[0\] \(x\) is a tuple of arrays", r"takes one array there.*join them: np\.stack\(\[a, b\], axis=1\)",
        lambda: fit(
        jf.losses.mse(lambda p, x: p["w"] * x[:, 0] + p["b"] * x[:, 1]), data=(np.stack([X, X**2], axis=1), Y)
    )),
    "text": Case(lambda: fit(data=(X, ["1", "2", "3"])), TypeError,
        r"data\[1\] holds text", r"must be numbers.*astype\(float\)",
        lambda: fit(data=(X, np.asarray(list("12345678"), float)))),
    "bytes": Case(lambda: fit(data=(X, np.array([b"1"] * 8))), TypeError, r"data\[1\] holds bytes", "must be numbers",
        lambda: fit(data=(X, np.asarray(np.array([b"1"] * 8), float)))),
    "objects": Case(lambda: fit(data=(X, [None] * 8)), TypeError, r"data\[1\] holds objects", "must be numbers",
        lambda: fit(data=(X, np.asarray(np.array([1.0] * 8, object), float)))),
    "dates": Case(lambda: fit(data=(np.arange(8).astype("datetime64[D]"), Y)), TypeError,
        r"data\[0\] holds dates", r"count from the first: \(t - t\[0\]\) / np.timedelta64\(1, \"D\"\)",
        lambda: fit(data=(
        (t := np.arange(8).astype("datetime64[D]"), (t - t[0]) / np.timedelta64(1, "D"))[1] / 8, Y))),
    "dates with a time zone": Case(lambda: fit(data=(DATES, Y)), TypeError,
        r"data\[0\] holds dates", r"start = min\(t\), then np\.array",
        lambda: fit(data=(since(DATES) / 3600 / 8, Y))),
    "time spans": Case(lambda: fit(data=(np.arange(8).astype("timedelta64[h]"), Y)), TypeError,
        r"data\[0\] holds time spans", r"t / np\.timedelta64\(1, \"s\"\)",
        lambda: fit(data=(np.arange(8).astype("timedelta64[h]") / np.timedelta64(1, "s") / 3e4, Y))),
    "words": Case(lambda: fit(data=(list("abababab"), Y)), TypeError,
        r"data\[0\] holds text", "give each word a number",
        lambda: fit(data=(np.unique(list("abababab"), return_inverse=True)[1], Y))),
    "records": Case(lambda: fit(data=(RECORDS, Y)), TypeError, r"data\[0\] holds records", r"such as x\['u'\]",
        lambda: fit(data=(RECORDS["u"], Y))),
    "numbers with uncertainties as x": Case(lambda: fit(data=(uncertain(X, 0.1), Y)), TypeError,
        r"data\[0\] holds numbers with uncertainties", r"np\.array\(\[v\.nominal_value for v in x\]\)",
        lambda: fit(
        data=(np.array([v.nominal_value for v in uncertain(X, 0.1)]), Y)
    )),
    "one target for all as a number": Case(lambda: fit(data=(X, 0.0)), ValueError,
        r"prediction has shape \(8,\), the target y \(\)", r"np\.full\(\(8,\), y\)",
        lambda: fit(data=(X, np.full((8,), 0.0)))),
    "one x for all as a number": Case(lambda: fit(data=(1.0, Y)), ValueError,
        r"x has shape \(\) and y \(8,\)", r"pass np\.full\(\(8,\), x\)",
        lambda: fit(data=(np.full((8,), 1.0), Y))),
    "a model as SciPy's": Case(lambda: fit(jf.losses.mse(as_scipy)), TypeError,
        r"predict takes \(x, w, b\), but it is called as predict\(params, x\)", r"from_function.*\*params",
        lambda: fit(jf.losses.mse(jf.models.from_function(as_scipy)))),
    "a model as SciPy's, with a dict": Case(lambda: jf.curve_fit(as_scipy, START, (X, Y)), TypeError,
        r"predict takes \(x, w, b\)", r"predict\(x, \*\*params\)$",
        lambda: jf.curve_fit(
        lambda params, x: as_scipy(x, **params), START, (X, Y)
    )),
    "complex numbers": Case(lambda: fit(data=(X, Y * 1j)), TypeError,
        r"data\[1\] is complex", "real and imaginary parts",
        lambda: fit(data=((X + 1j).real, (Y * 1j).imag))),
    "complex numbers of JAX": Case(lambda: fit(data=(jnp.asarray(X + 1j), Y)), TypeError,
        r"data\[0\] is complex", "real",
        lambda: fit(data=((jnp.asarray(X + 1j)).real, Y))),
    "a masked array for a loss of one's own": Case(lambda: fit(own, data=(X, HIDDEN)), TypeError,
        r"data\[1\] is a masked array", r"keep = ~np\.ma\.getmaskarray\(y\), and data=\(x\[keep\], y\[keep\],\)",
        lambda: fit(own, data=(X[KEEP], HIDDEN[KEEP]))),
    "a masked array for several losses": Case(
        lambda: sweep(jf.Axis("kind", [LOSS, MAE]), START, (X, HIDDEN)), TypeError,
        r"data\[1\] is a masked array", r"y\.filled\(0\).*masked=True",
        lambda: sweep(
        jf.Axis("kind", [MASKED, jf.losses.mae(LINE, masked=True)]), START,
        (X, HIDDEN.filled(0), ~np.ma.getmaskarray(HIDDEN)),
    )),
    "masked entries of rows": Case(lambda: fit(data=(X, np.ma.masked_less(np.stack([Y, -Y], 1), -1.5))), TypeError,
        r"data\[1\] is a masked array in which single entries", r"np\.ma\.mask_rows\(y\)",
        lambda: fit(
        jf.losses.mse(lambda p, x: jnp.stack([p["w"] * x, p["b"] * x], 1)),
        data=(X, np.ma.mask_rows(np.ma.masked_less(np.stack([Y, -Y], 1), -1.5))),
    )),
    "a masked axis": Case(lambda: jf.Axis("w0", np.ma.masked_greater([1.0, 2.0], 1.5)), TypeError,
        "Axis 'w0': values is a masked array", r"values\.compressed\(\)",
        lambda: sweep(
        params={"w": jf.Axis("w0", np.ma.masked_greater([1.0, 2.0], 1.5).compressed()), "b": 0.0}
    )),
    "a ragged list": Case(lambda: fit(data=([[1.0], [1.0, 2.0]], Y)), ValueError, r"data\[0\] is ragged", "one length",
        lambda: fit(
        jf.losses.mse(lambda p, x: p["w"] * x[:, 0] + p["b"] * x[:, 1]), data=([[1.0, 2.0]] * 8, Y / 9)
    )),
    "a call among the data": Case(lambda: fit(data=(jf.Call(lambda: X), Y)), TypeError,
        r"data\[0\] is Call", "stands for params",
        lambda: fit(data=((lambda: X)(), Y))),
    "indices beyond 32 bits": Case(lambda: fit(AT, data=(np.array([1, 2**40] * 4), Y)), ValueError,
        r"data\[0\] \(x\) has whole numbers up to 1,099,511,627,776", r"do not fit.*astype\(float\)",
        lambda: fit(data=(WIDE.astype(float) * 1e-12, Y))),
    "unsigned indices beyond 32 bits": Case(lambda: fit(AT, data=(np.full(8, 2**31, np.uint32), Y)), ValueError,
        r"data\[0\] \(x\) has whole numbers up to 2,147,483,648", 'precision="float64"',
        lambda: fit(data=(np.full(8, 2**31, np.uint32).astype(float) * 1e-9, Y))),
    "unsigned indices beyond 64 bits": Case(
        lambda: fit(AT, data=(np.full(8, 2**63, np.uint64), Y), precision="float64"), ValueError,
        r"data\[0\] \(x\) has whole numbers", r"astype\(float\)$",
        lambda: fit(data=(np.full(8, 2**63, np.uint64).astype(float) * 1e-19, Y), precision="float64")),
    "an axis": Case(lambda: fit(params={"w": jf.Axis("w0", [1.0]), "b": 0.0}), ValueError, r"Axis\('w0'", "call sweep",
        lambda: sweep(params={"w": jf.Axis("w0", [1.0]), "b": 0.0})),
}  # fmt: skip

WRONG_MODELS = {
    "NumPy in the model": Case(lambda: fit(jf.losses.mse(calls_numpy)), TypeError,
        at(calls_numpy, "np.sin(params"), "hands a traced value to NumPy.*use jax.numpy",
        lambda: fit(jf.losses.mse(lambda p, x: jnp.sin(p["w"] * x) + p["b"]))),
    "a decision by a traced value": Case(lambda: fit(jf.losses.mse(decides)), TypeError,
        at(decides, 'if params["w"] > 0'), r"use jnp\.where\(",
        lambda: fit(
        jf.losses.mse(lambda p, x: jnp.where(p["w"] > 0, p["w"] * x, p["b"] * x) + p["b"])
    )),
    "the number of a traced value": Case(lambda: fit(jf.losses.mse(needs_number)), TypeError,
        at(needs_number, "float(params"), "not known yet.*jnp arrays",
        lambda: fit(jf.losses.mse(lambda p, x: p["w"] * x + p["b"]))),
    "a loop over a traced value": Case(lambda: fit(jf.losses.mse(loops)), TypeError,
        at(loops, 'range(params["b"])'), "not known yet.*jnp arrays",
        lambda: fit(jf.losses.mse(lambda p, x: p["w"] * x * jnp.floor(p["b"] + 1.0) + p["b"]))),
    "an array of NumPy's random numbers": Case(lambda: fit(jf.losses.mse(draws)), TypeError,
        "loss is not pure.*" + at(draws, "default_rng().normal(size=8)"), "jax.random.*argument named `key`",
        lambda: fit(
        jf.losses.mse(lambda p, x, key: p["w"] * x + p["b"] + jax.random.normal(key, (8,))), key=0
    )),
    "one of NumPy's random numbers": Case(lambda: fit(jf.losses.mse(draws_one)), TypeError,
        "loss is not pure.*" + at(draws_one, "default_rng().normal()"), "jax.random.*argument named `key`",
        lambda: fit(jf.losses.mse(lambda p, x, key: p["w"] * x + p["b"] + jax.random.normal(key)), key=0)),
    "a model with a state": Case(lambda: fit(jf.losses.mse(counts)), TypeError,
        "loss is not pure.*" + at(counts, "len(seen)"), "keep no state outside",
        lambda: fit(jf.losses.mse(lambda p, x: p["w"] * x * 2 + p["b"]))),
    "a model with an error of its own": Case(lambda: fit(jf.losses.mse(raises)), RuntimeError,
        "spectrometer", "^the spectrometer is off$",
        lambda: fit()),
    "a value leaked out of a jit": Case(lambda: fit(lambda p, x, y: own(p, x, y) * OF_JIT), ValueError,
        "the loss uses a value that leaked out", "pass them as data",
        lambda: fit(lambda p, x, y, z: own(p, x, y) * z, data=(X, Y, 2.0))),
    "a value leaked out of a grad": Case(
        lambda: fit(jf.losses.mse(lambda p, x: p["w"] * x * OF_GRAD)), ValueError,
        "uses a value that leaked out", "pass them as data",
        lambda: fit(lambda p, x, y, z: own(p, x, y) * z, data=(X, Y, 2.0))),
    "a value leaked out of a vmap": Case(lambda: fit(lambda p, x, y: own(p, x, y) * OF_VMAP), ValueError,
        "uses a value that leaked out", "pass them as data",
        lambda: fit(lambda p, x, y, z: own(p, x, y) * jnp.mean(z), data=(X, Y, jnp.ones(8)))),
    "a leaked value in a sweep": Case(lambda: sweep(lambda p, x, y: own(p, x, y) * OF_JIT), ValueError,
        "the loss uses a value that leaked out", "pass them as data",
        lambda: sweep(lambda p, x, y, z: own(p, x, y) * z, data=(X, Y, 2.0))),
    "a leaked value among the params": Case(lambda: fit(params={"w": OF_JIT, "b": 0.0}), ValueError,
        r"params\['w'\] is a value that leaked out", "return such values",
        lambda: fit(params={"w": jax.jit(lambda z: z)(1.0), "b": 0.0})),
    "a leaked value among the data": Case(lambda: fit(own, data=(OF_JIT, Y)), ValueError,
        r"data\[0\] is a value that leaked out", "return such values",
        lambda: fit(own, data=(jax.jit(lambda z: z)(X), Y))),
    "a leaked learning rate": Case(lambda: fit(optimizer=jf.optimizers.adam(OF_JIT)), ValueError,
        r"optimizer\.learning_rate is a value that leaked out", "return such values",
        lambda: fit(optimizer=jf.optimizers.adam(jax.jit(lambda z: z)(0.1)))),
    "a leaked value in what is recorded": Case(
        lambda: fit(record=jf.Record(what=("loss", lambda p, x, y: p["w"] * OF_JIT))), ValueError,
        "record: <lambda> uses a value that leaked out", "return such values",
        lambda: fit(record=jf.Record(what=("loss", lambda p, x, y: p["w"])))),
}  # fmt: skip

CASES = named({"data": WRONG_DATA, "model": WRONG_MODELS})


@pytest.mark.parametrize("name", CASES)
def test_bad_data_and_models_are_refused_with_the_argument_and_the_remedy_before_anything_compiles(name, events):
    check(CASES[name], events)


# What the messages say to do instead, word for word

X3, OTHER = with_(X, 3, np.nan), with_(Y, [2, 5], -np.inf)
LINE = jf.models.line
WIDE = np.array([1, 2**40] * 4)


def since(t):
    start = min(t)
    return np.array([(d - start).total_seconds() for d in t])


COMPILES = [  # programs of their own
    "data: x and y of different length", "data: validation as a column", "data: a model that returns a column",
    "data: a model that returns a tuple", "data: x in a tuple of its own", "data: a model as SciPy's, with a dict",
    "data: a masked array for a loss of one's own", "data: a masked array for several losses",
    "data: masked entries of rows", "data: a masked axis", "data: a ragged list", "data: an axis",
    "data: different length in batches", "data: NaN in the validation data", "data: infinity in y",
    "model: a decision by a traced value", "model: an array of NumPy's random numbers",
    "model: a value leaked out of a jit",
]  # fmt: skip


QUICK = [name for name in CASES if name.startswith("data: ") and name not in COMPILES]


@pytest.mark.parametrize("name", soaking(CASES, keep=QUICK))
def test_the_remedy_of_a_message_about_data_works(name):
    assert follows(CASES[name].mended)


def test_masked_rows_of_numpys_arrays_do_not_count():
    alone = fit(data=(X[KEEP], Y[KEEP]), steps=20)
    for x, y in ((X, HIDDEN), (np.ma.array(X, mask=~KEEP), Y), (np.ma.array(X, mask=~KEEP), HIDDEN)):
        for loss in (LOSS, MASKED) if x is X else (LOSS,):
            found = fit(loss, data=(x, y) if loss is LOSS else (x, y, X >= 0), steps=20)
            np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-5)
    both = fit(LOSS + jf.losses.l2(0.1), data=(X, HIDDEN), steps=20)
    np.testing.assert_allclose(
        both.loss, fit(LOSS + jf.losses.l2(0.1), data=(X[KEEP], Y[KEEP]), steps=20).loss, rtol=1e-5
    )
    watched = fit(validation=(X, HIDDEN), record=jf.Record(what=("loss", "validation_loss")))
    np.testing.assert_allclose(watched.loss, reference().loss, rtol=1e-6)
    expected = fit(validation=(X[KEEP], Y[KEEP]), record=jf.Record(what=("loss", "validation_loss")))
    np.testing.assert_allclose(watched.history.validation_loss, expected.history.validation_loss, rtol=1e-5)


def test_curve_fit_takes_masked_arrays_and_numbers_with_uncertainties():
    noisy = Y + 0.1 * np.cos(7 * X)
    hidden = np.ma.array(noisy, mask=~KEEP)
    for start in (START, None):
        run, alone = (jf.curve_fit(LINE, start, pair) for pair in ((X, hidden), (X[KEEP], noisy[KEEP])))
        np.testing.assert_allclose(run.params["w"], alone.params["w"], rtol=1e-9)
        np.testing.assert_allclose(jf.standard_errors(run)["w"], jf.standard_errors(alone)["w"], rtol=1e-6)
    sizes = np.linspace(0.1, 0.2, 8)
    y = np.array([Uncertain(v, s) for v, s in zip(noisy, sizes, strict=True)], object)
    told = jf.curve_fit(LINE, START, (X, noisy), sigma=sizes, absolute_sigma=True)
    for given in (y, list(y)):
        run = jf.curve_fit(LINE, START, (X, given))
        assert run.params["w"] == told.params["w"] and jf.standard_errors(run)["w"] == jf.standard_errors(told)["w"]
    both = jf.curve_fit(LINE, START, (uncertain(X, 0.05), y))
    told = jf.curve_fit(LINE, START, (X, noisy), sigma=sizes, x_sigma=0.05, absolute_sigma=True)
    assert both.params["w"] == told.params["w"] and jf.standard_errors(both)["w"] == jf.standard_errors(told)["w"]
    chi = jf.losses.chi_squared(LINE)
    assert (
        fit(chi, data=(X, y), optimizer=jf.optimizers.sgd(1e-4)).loss
        == fit(chi, data=(X, noisy, sizes), optimizer=jf.optimizers.sgd(1e-4)).loss
    )
    with pytest.raises(TypeError, match="sigma is given, but y holds numbers with uncertainties"):
        jf.curve_fit(LINE, START, (X, y), sigma=sizes)


class OnlyDLPack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **given):
        return self.array.__dlpack__(**given)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_what_only_speaks_dlpack_becomes_an_array():
    assert fit(data=(OnlyDLPack(X), OnlyDLPack(Y))).loss == reference().loss


def test_the_first_coordinate_of_data_sets_in_xarray_labels_their_axis():
    xarray = pytest.importorskip("xarray")
    sets = xarray.DataArray(np.stack([Y, 2 * Y]), dims=("run", "t"), coords={"run": [3, 7]})
    assert sweep(params=START, data=(X, jf.Axis("run", sets))).results.run.values.tolist() == [3, 7]


# Input that is odd, and works


@functools.cache
def reference():
    return fit()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


GOOD_DATA = {
    "lists": lambda: (X.tolist(), Y.tolist()),
    "a list of arrays": lambda: [X, Y],
    "read-only": lambda: (read_only(X), read_only(Y)),
    "not contiguous": lambda: (np.repeat(X, 2)[::2], np.stack([Y, Y], 1)[:, 0]),
    "backwards in memory": lambda: (X[::-1].copy()[::-1], Y),
    "big-endian": lambda: (X.astype(">f8"), Y.astype(">f8")),
    "float32": lambda: (X.astype(np.float32), Y.astype(np.float32)),
    "on the device": lambda: (jnp.asarray(X), jnp.asarray(Y)),
    "half on the device": lambda: (jnp.asarray(X), Y),
}


@pytest.mark.parametrize("make", GOOD_DATA.values(), ids=GOOD_DATA)
def test_data_of_any_make_give_the_same_bits_and_are_left_alone(make):
    data, before = make(), [np.array(item) for item in make()]
    found = fit(data=data)
    assert all(found.params[k] == reference().params[k] for k in "wb") and found.loss == reference().loss
    for item, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(item, copy)


def test_data_of_pandas_and_xarray_work():
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    frame = pandas.DataFrame({"x": X, "y": Y}, index=list("abcdefgh"))
    for data in [(frame.x, frame["y"]), (xarray.DataArray(X), xarray.DataArray(Y, dims="time"))]:
        assert fit(data=data).loss == reference().loss
    assert frame.equals(pandas.DataFrame({"x": X, "y": Y}, index=list("abcdefgh")))
    matrix = fit(lambda p, m: own(p, m[:, 0], m[:, 1]), data=(frame,))
    np.testing.assert_allclose(matrix.loss, reference().loss, rtol=1e-6)
    with pytest.raises(ValueError, match=r"data\[1\] \(y\) has 4 of 8 values that are not finite"):
        fit(data=(X, pandas.Series([1.0, None] * 4)))


def test_integers_of_any_size_and_order_are_data():
    numbers = np.arange(8)
    expected = fit(data=(numbers / 1.0, Y), optimizer=jf.optimizers.sgd(1e-3)).loss
    for kind in ("int8", "uint16", "int64", ">i4", ">i8", "list", "range"):
        x = {"list": numbers.tolist(), "range": range(8)}.get(kind)
        x = numbers.astype(kind) if x is None else x
        np.testing.assert_allclose(fit(data=(x, Y), optimizer=jf.optimizers.sgd(1e-3)).loss, expected, rtol=1e-6)


def test_rows_that_are_masked_may_hold_anything():
    where = np.arange(8) < 5
    x, y = with_(X, [5, 6], [np.nan, np.inf]), with_(Y, 7, -np.inf)
    found = fit(MASKED, data=(x, y, where), steps=50)
    alone = fit(data=(X[:5], Y[:5]), steps=50)
    np.testing.assert_allclose(found.loss, alone.loss, rtol=1e-5)
    np.testing.assert_allclose(found.params["w"], alone.params["w"], rtol=1e-5)


def test_float64_data_fitted_in_float32_say_so():
    assert "float32" in str(reference()) and reference().params["w"].dtype == np.float32


def test_fewer_points_than_params_work_and_the_summary_says_what_that_means():
    found = fit(data=(X[3:4], Y[3:4]), steps=500)
    assert found.loss < 1e-9
    assert "2 params are fitted to 1 point: underdetermined" in str(found)
    masked = fit(MASKED, data=(X, Y, np.arange(8) == 3))
    assert "2 params are fitted to 1 point" in str(masked)
    assert "note" not in str(reference())


def test_a_constant_x_is_flagged():
    assert "data[0] (x) is the same at every point" in str(fit(data=(np.full(8, 0.5), Y)))


@pytest.mark.soak
@pytest.mark.parametrize("place", ["loss", "model", "optimizer", "schedule"])
def test_a_live_tracer_of_the_users_own_transformation_gives_right_numbers(place):
    def run(z):
        if place == "loss":
            return fit(lambda p, x, y: own(p, x, y) * z).loss
        if place == "model":
            return fit(jf.losses.mse(lambda p, x: p["w"] * x * z + p["b"])).loss
        return fit(optimizer=optax.sgd(0.1 * z) if place == "optimizer" else jf.optimizers.sgd(lambda t: 0.1 * z)).loss

    values = [0.5, 1.5]
    plain = [float(run(value)) for value in values]
    np.testing.assert_allclose([jax.jit(run)(value) for value in values], plain, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(run)(jnp.array(values)), plain, rtol=1e-5)
    slope = (float(run(1.0 + 1e-2)) - float(run(1.0 - 1e-2))) / 2e-2
    np.testing.assert_allclose(jax.grad(run)(1.0), slope, rtol=1e-3)


# Trouble in the numbers: a status, and what to do


def bad_gradient(params, x, y):
    return jnp.where(params["b"] > 0, jnp.log(params["b"]), 0.0) + params["w"] ** 2


STATUSES = {
    "targets of 1e300": (lambda: fit(data=(X, Y * 1e300)), "DIVERGED",
        r"data\[1\] reaches 3e\+300, .*overflows float32: scale the data"),
    "targets of 1e300 in float64": (lambda: fit(data=(X, Y * 1e300), precision="float64"), "DIVERGED",
        "overflows float64: scale the data.$"),
    "squares beyond float32": (lambda: fit(data=(X, Y * 1e30)), "DIVERGED",
        'overflows float32: scale the data or use precision="float64"'),
    "x beyond float32": (lambda: fit(data=(X * 1e30, Y)), "DIVERGED", r"data\[0\] reaches 1e\+30, .*scale the data"),
    "squares within float64": (lambda: fit(data=(X, Y * 1e30), precision="float64"), "OUT_OF_STEPS",
        "give it more steps"),
    "targets of 1e-300": (lambda: fit(data=(X, Y * 1e-300)), "OUT_OF_STEPS",
        r"data\[1\] is at most 3e-300, .*rounds to zero: scale"),
    "squares below float32": (
        lambda: fit(params={"w": 0.0, "b": 0.0}, data=(X, Y * 1e-30), stop=jf.Stop(loss_below=1e-12)), "CONVERGED",
        'square underflows float32: scale the data or use precision="float64"'),
    "sqrt at zero": (lambda: fit(lambda p, x, y: jnp.sqrt(p["b"]) + p["w"] ** 2), "NOT_FINITE",
        "after 0 updates a gradient was not finite while the loss still was; .*log or sqrt"),
    "where over log": (lambda: fit(bad_gradient), "NOT_FINITE",
        "jnp.where does not protect a gradient: guard the argument too"),
    "NaN on the way": (
        lambda: fit(lambda p, x, y: p["w"] + jnp.log(p["w"]) + p["b"] ** 2, optimizer=jf.optimizers.sgd(0.3), steps=9),
        "NOT_FINITE", "after 2 updates the loss became NaN; params are those where it was first seen"),
    "a schedule that is NaN in the middle": (
        lambda: fit(optimizer=jf.optimizers.sgd(lambda t: jnp.where(t == 1, jnp.nan, 0.1)), steps=4), "NOT_FINITE",
        "after 2 updates"),
    "a rate too large": (lambda: fit(optimizer=jf.optimizers.sgd(50.0), steps=100), "DIVERGED",
        r"overflowed float32; it grew [\d,]+-fold a step, so the limit is near .* Lower the learning rate: try"),
    "a rate slightly too large": (lambda: fit(optimizer=jf.optimizers.sgd(0.9), steps=9), "DIVERGED",
        "above its start; .*try"),
    "too few steps": (fit, "OUT_OF_STEPS", "give it more steps, or a stop rule"),
}  # fmt: skip


COMPILES = ["squares below float32", "where over log", "NaN on the way", "a schedule that is NaN in the middle"]


@pytest.mark.parametrize("name", soaking(STATUSES, but=COMPILES))
def test_trouble_in_the_numbers_is_a_status_and_the_summary_says_what_to_do(name):
    call, status, text = STATUSES[name]
    found = call()
    assert found.status == jf.Status[status]
    assert re.search(text, str(found), re.MULTILINE), str(found)
    if "a gradient was not finite" in str(found):
        assert found.steps == 0 and found.params == {"w": 1.0, "b": 0.0}
