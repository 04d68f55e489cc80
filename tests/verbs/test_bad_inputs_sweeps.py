"""Bad sweeps are refused in words that help; what goes wrong in a lane stays in that lane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from tests.shared.bad_inputs import MASKED, SGD, START, Case, X, Y, check, fit, follows, named, own, sweep, with_
from tests.shared.soak import soaking

pytestmark = pytest.mark.usefixtures("nothing_was_compiled_before")


def both(name, values, others):
    return {"w": jf.Axis(name, values), "b": jf.Axis(name, others)}


def padded():
    x, y, where = jf.datasets.pad([(X, Y), (X[:4], Y[:4])])
    return sweep(MASKED, START, (jf.Axis("set", x), jf.Axis("set", y), jf.Axis("set", where)))


WRONG_SWEEPS = {
    "an empty axis": Case(lambda: jf.Axis("w0", []), ValueError, "Axis 'w0' is empty", "at least one value",
        lambda: jf.Axis("w0", [0.0])),
    "NaN on an axis": Case(lambda: jf.Axis("w0", [0.0, np.nan, 1.0]), ValueError,
        r"Axis 'w0': value 1 is NaN \(1 of 3\)", "leave it out",
        lambda: jf.Axis("w0", [0.0, 1.0])),
    "NaN on an axis of JAX's": Case(lambda: jf.Axis("w0", jnp.array([0.0, jnp.nan])), ValueError,
        "Axis 'w0': value 1 is NaN", "leave it out",
        lambda: jf.Axis("w0", jnp.array([0.0]))),
    "infinity on an axis of params": Case(
        lambda: sweep(params={"w": jf.Axis("w0", [0.0, np.inf]), "b": 0.0}), ValueError,
        r"params\['w'\] \(axis 'w0'\) is inf at index 1", "finite",
        lambda: sweep(params={"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0})),
    "numbers and text on one axis": Case(lambda: jf.Axis("w0", [0.0, "one"]), ValueError,
        r"value 1 is 'one' \(str\)", "of one kind",
        lambda: jf.Axis("w0", [0.0, 1.0])),
    "numbers and booleans on one axis": Case(lambda: jf.Axis("w0", [True, 1]), ValueError,
        r"value 1 is 1 \(int\)", "of one kind",
        lambda: jf.Axis("w0", [1, 2])),
    "text where numbers belong": Case(lambda: sweep(params={"w": jf.Axis("w0", ["a", "b"]), "b": 0.0}), TypeError,
        r"computes with params\['w'\] as with a number, but it is the text 'a'", "give a number to fit",
        lambda: sweep(params={"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0})),
    "a number as an axis": Case(lambda: jf.Axis("w0", 3.0), TypeError, r"Axis 'w0': values is 3.0", r"write \[3.0\]",
        lambda: jf.Axis("w0", [3.0])),
    "a scalar array as an axis": Case(lambda: jf.Axis("w0", np.array(3.0)), TypeError,
        r"Axis 'w0': values has no first axis", "a list",
        lambda: jf.Axis("w0", [np.array(3.0)])),
    "a set as an axis": Case(lambda: jf.Axis("w0", {1.0, 2.0}), TypeError, "Axis 'w0': values is a set", "pass a list",
        lambda: jf.Axis("w0", sorted({1.0, 2.0}))),
    "a dict as an axis": Case(lambda: jf.Axis("opt", {"sgd": SGD}), TypeError,
        "Axis 'opt': values is a dict", r"labels=list\(d\)",
        lambda d={"sgd": SGD}: jf.Axis("opt", list(d.values()), labels=list(d))),
    "a label twice": Case(lambda: jf.Axis("w0", [0.0, 1.0, 2.0], ["a", "b", "a"]), ValueError,
        r"label 2 \('a'\)", "labels must differ",
        lambda: jf.Axis("w0", [0.0, 1.0, 2.0], ["a", "b", "c"])),
    "labels too few": Case(lambda: jf.Axis("w0", [0.0, 1.0], ["a"]), ValueError,
        "Axis 'w0': 1 labels for 2 values", "one label a value",
        lambda: jf.Axis("w0", [0.0, 1.0], ["a", "b"])),
    "a name that is a number": Case(lambda: jf.Axis(3, [0.0]), TypeError, "name is 3", "non-empty string",
        lambda: jf.Axis("3", [0.0])),
    "a name that is empty": Case(lambda: jf.Axis("", [0.0]), TypeError, "name is ''", "non-empty string",
        lambda: jf.Axis("w0", [0.0])),
    **{
        f"the name {name!r}": Case(lambda n=name: sweep(params={"w": jf.Axis(n, [0.0, 1.0]), "b": 0.0}), ValueError,
            rf"axis name '{name}' \(at params\.w\)", "call the axis something else",
        lambda n=name: sweep(params={"w": jf.Axis(f"my {n}", [0.0, 1.0]), "b": 0.0}))
        for name in ("loss", "status", "steps", "validation_loss", "step", "params.w", "history.loss")
    },
    "one name with different lengths": Case(
        lambda: sweep(params=both("start", [0.0, 1.0], [0.0, 1.0, 2.0])), ValueError,
        "axis 'start' is used with different lengths: params.w has 2 values, params.b has 3", "equally many values",
        lambda: sweep(params=both("start", [0.0, 1.0], [0.0, 1.0]))),
    "no axis": Case(lambda: sweep(params=START), ValueError, "found no Axis", r"put jf\.Axis.* or call fit",
        lambda: sweep(params={"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0})),
    "too many programs": Case(
        lambda: sweep(
            params=START, key=0, data=(np.arange(99.0), np.arange(99.0)),
            batches=jf.Batches(size=jf.Axis("size", range(1, 90)))), ValueError,
        r"the axes size \(89 values\)", "at most 64",
        lambda: sweep(
            params=START, key=0, data=(np.linspace(0, 1, 99), np.linspace(0, 1, 99)),
            batches=jf.Batches(size=jf.Axis("size", range(1, 90, 45))))),
    "data sets of unequal length": Case(lambda: sweep(params=START, data=(jf.Axis("set", [X, X[:4]]), Y)), ValueError,
        r"data\[0\] \(x\): axis 'set' .*value 0 has \(8,\), value 1 has \(4,\)", r"jf\.datasets\.pad.*masked=True",
        lambda: padded()),
    "complex data on an axis": Case(
        lambda: sweep(params=START, data=(X, jf.Axis("set", np.stack([1j * Y, Y])))), TypeError,
        r"data\[1\] is complex", "real and imaginary parts",
        lambda: sweep(params=START, data=(X, jf.Axis("set", np.stack([1j * Y, Y]).imag)))),
    "a tolerance on an axis": Case(
        lambda: jf.optimizers.levenberg_marquardt(tolerance=jf.Axis("tolerance", [1e-3, -1e-3])), ValueError,
        r"tolerance is -0.001 \(value 1 of axis 'tolerance'\)", "pass 1e-4, or None",
        lambda: jf.optimizers.levenberg_marquardt(tolerance=jf.Axis("tolerance", [1e-3, 1e-4]))),
    "NaN in one of many data sets": Case(
        lambda: sweep(params=START, data=(X, jf.Axis("set", [Y, with_(Y, 2, np.nan)]))), ValueError,
        r"data\[1\] \(y\) has 1 of 16 .* index \(1, 2\)", "drop",
        lambda: sweep(
            MASKED, START, (X, jf.Axis("set", [Y, with_(Y, 2, np.nan)]), jf.Axis("set", [X >= 0, X != X[2]])))),
    "a seed below zero": Case(lambda: sweep(key=jf.Axis("seed", [0, -1])), ValueError,
        "Axis 'seed': value 1 is -1", r"integer of 0 to 2\*\*32 - 1",
        lambda: sweep(key=jf.Axis("seed", [0, 1]))),
    "a seed with a fraction": Case(lambda: sweep(key=jf.Axis("seed", [0, 1.5])), ValueError,
        "Axis 'seed': value 1 is 1.5", "integer",
        lambda: sweep(key=jf.Axis("seed", [0, 1]))),
    "a seed beyond 32 bits": Case(lambda: jf.Call(jf.models.line.init, key=jf.Axis("seed", [0, 2**32])), ValueError,
        "Axis 'seed': value 1 is 4294967296", "integer",
        lambda: jf.Call(jf.models.line.init, key=jf.Axis("seed", jax.random.split(jax.random.key(0), 2)))),
    "a seed twice": Case(lambda: sweep(key=jf.Axis("seed", [7, 7])), ValueError,
        r"Axis 'seed': value 1 \(7\)", "leave it out",
        lambda: sweep(key=jf.Axis("seed", [7]))),
    "steps on an axis": Case(lambda: sweep(steps=jf.Axis("n", [1, 2])), ValueError,
        r"steps is Axis\('n'", "whole number",
        lambda: sweep(steps=100)),
    "an optimizer that is none": Case(lambda: sweep(params=START, optimizer=jf.Axis("opt", ["sgd", "adam"])), TypeError,
        "optimizer is the text 'sgd'", r"jf\.optimizers",
        lambda: sweep(params=START, optimizer=jf.Axis("opt", [SGD, jf.optimizers.adam(0.1)]))),
    "half a slot": Case(lambda: sweep(slots=2.5), ValueError, "slots is 2.5", "whole number",
        lambda: sweep(slots=2)),
    "no slot": Case(lambda: sweep(slots=0), ValueError, "slots is 0", "whole number",
        lambda: sweep(slots=1)),
    "inside a jit": Case(
        lambda: jax.jit(lambda r: sweep(optimizer=jf.optimizers.sgd(r)).results.loss.values)(0.1), TypeError,
        "sweep .*cannot stand inside of a jit", r"jax\.vmap over jf\.fit",
        lambda: jax.vmap(lambda r: fit(optimizer=jf.optimizers.sgd(r)).loss)(jnp.array([0.1]))),
    "inside a vmap, by capture": Case(
        lambda: jax.vmap(lambda z: sweep(lambda p, x, y: own(p, x, y) * z).results.loss.values)(jnp.ones(2)), TypeError,
        "sweep .*captured", "call it outside",
        lambda: sweep(lambda p, x, y: own(p, x, y) * 2.0)),
}  # fmt: skip

CASES = named({"sweep": WRONG_SWEEPS})


@pytest.mark.parametrize("name", CASES)
def test_bad_sweeps_are_refused_with_the_argument_and_the_remedy_before_anything_compiles(name, events):
    check(CASES[name], events)


COMPILES = [  # programs of their own
    name for name in CASES
    if name.startswith("sweep: the name") or name.removeprefix("sweep: ") in (
        "too many programs", "data sets of unequal length", "NaN in one of many data sets",
        "an optimizer that is none", "half a slot", "no slot", "inside a jit", "inside a vmap, by capture",
        "one name with different lengths", "a seed below zero", "a seed with a fraction", "a seed twice")
]  # fmt: skip


@pytest.mark.parametrize("name", soaking(CASES, but=COMPILES))
def test_the_remedy_of_a_message_about_a_sweep_works(name):
    assert follows(CASES[name].mended)


def test_good_input_compiles_and_the_count_sees_it(events):
    fit(lambda p, x, y: own(p, x, y))
    assert len(events["program"]) == 1  # a stretch of steps, and its start
    sweep(lambda p, x, y: own(p, x, y))
    assert len(events["program"]) == 2  # a pool


WRONG_IN_STRUCTURE = {
    "steps": {"steps": 0},
    "lengths": {"data": (X, Y[:3])},
    "NaN": {"data": (X, Y * np.nan)},
    "params": {"params": {"w": 1j, "b": 0.0}},
    "a batch too large": {"batches": jf.Batches(size=9), "key": 0},
    "a missing key": {"batches": jf.Batches(size=2)},
    "a rule": {"stop": jf.Stop(patience=2)},
    "a seed": {"key": -1},
    "an optimizer": {"optimizer": "adam"},
    "a schedule": {"optimizer": jf.optimizers.sgd(lambda t: jnp.nan)},
}


@pytest.mark.parametrize("run", [fit, sweep])
@pytest.mark.parametrize("keywords", WRONG_IN_STRUCTURE.values(), ids=WRONG_IN_STRUCTURE)
def test_what_is_wrong_with_the_structure_is_found_before_the_loss_is_traced(run, keywords, traces):
    model = traces(jf.models.line)
    with pytest.raises((TypeError, ValueError)):
        run(jf.losses.mse(model), **keywords)
    assert model.count == 0


def test_results_larger_than_memory_are_refused_with_an_estimate_and_what_to_change():
    rates = jf.Axis("rate", np.logspace(-3, -1, 100))
    loss = lambda p, x, y: own(p, x, y)  # noqa: E731
    with (
        using(free_bytes=1000, unasked_bytes=0),
        pytest.raises(
            ValueError, match=r"100 lanes take [\d,]+ bytes .*but 1,000 bytes .* are free: sweep fewer lanes"
        ),
    ):
        sweep(loss, START, optimizer=jf.optimizers.sgd(rates))
    with (
        using(free_bytes=1000, unasked_bytes=0),
        pytest.raises(ValueError, match="record less often than every 2 steps or fewer things, sweep fewer lanes"),
    ):
        sweep(loss, START, optimizer=jf.optimizers.sgd(rates), record=jf.Record(every=2), steps=1000)


def one_bad(params, x, y):
    return own(params, x, y) + jnp.log(params["w"])


def test_a_lane_that_is_not_finite_changes_no_other_and_a_sweep_of_such_lanes_ends_and_says_so():
    def of(starts):
        return sweep(one_bad, {"w": jf.Axis("w0", starts), "b": 0.0}, slots=4)

    good, mixed, bad = of([1.0, 2.0, 3.0]), of([1.0, -1.0, 3.0]), of([-1.0, -2.0, -3.0])
    assert mixed.results.status.values.tolist() == [2, jf.Status.NOT_FINITE, 2]
    for name in ("loss", "params.w", "params.b"):
        a, b = good.results[name].values[[0, 2]], mixed.results[name].values[[0, 2]]
        assert a.tobytes() == b.tobytes()
    assert (bad.results.status == jf.Status.NOT_FINITE).all() and "3 not_finite" in str(bad)
    with pytest.raises(ValueError, match="no member of the grid ended well; see grid.results.status"):
        jf.best(bad)
    with pytest.raises(jf.NotConverged, match=r"3 of 3 lanes did not converge.*: jf.lane\(grid, w0=-1.0\)"):
        jf.require_converged(bad)
    assert jf.lane(bad, w0=-1.0).status == jf.Status.NOT_FINITE


@pytest.mark.soak
def test_slots_beyond_the_lanes_and_lanes_that_do_not_fill_the_slots_give_the_same_result():
    def run(slots):
        return sweep(params={"w": jf.Axis("w0", np.linspace(0, 1, 7)), "b": 0.0}, slots=slots).results

    few, many = run(3), run(64)
    np.testing.assert_allclose(few.loss, many.loss, rtol=1e-6)
    assert (few.status == many.status).all() and (few.steps == many.steps).all()


def test_the_same_problem_with_many_new_values_is_traced_once(traces):
    loss = traces(own)
    fit(loss, key=0)
    count = loss.count
    for i in range(200):
        fit(loss, {"w": float(i), "b": 0.0}, (X, Y + i), optimizer=jf.optimizers.sgd(0.1 / (i + 1)), key=i)
    assert loss.count == count
