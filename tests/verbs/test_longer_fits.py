"""A fit that goes on with more steps is the fit that had them from the start, to the bit."""

import jax
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from tests.shared.interrupts import ended_by
from tests.shared.small_sweeps import LOSS, T_C, T_U
from tests.shared.soak import soaking

DATA = (0.1 * T_U, T_C)
HELD_OUT = tuple(x[:4] for x in DATA)
RECORDS = jf.Record(every=7, what=("loss", "validation_loss"))
NOISY = jf.optimizer(optax.noisy_sgd, learning_rate=1e-3, key=jax.random.key(0))
WAYS = {
    "adam on batches": {"optimizer": jf.optimizers.adam(0.01), "batches": jf.Batches(4), "key": 3,
                        "record": jf.Record(every=7, what=("loss", "params"))},
    "a rule in float64": {"stop": jf.Stop(gradient_norm_below=1.0), "precision": "float64"},
    "a rule that looks back a step": {"optimizer": jf.optimizers.momentum(1e-3, 0.9),
                                      "stop": jf.Stop(params_change_below=1e-6)},
    "patience": {"optimizer": jf.optimizers.adam(0.3), "stop": jf.Stop(patience=12), "validation": HELD_OUT},
    "patience by the week": {"optimizer": jf.optimizers.adam(0.3), "stop": jf.Stop(patience=8), "record": RECORDS,
                             "validation": HELD_OUT},
    "a method that judges": {"optimizer": jf.optimizers.lbfgs()},
    "a state with a key": {"optimizer": NOISY},
    "no history": {"record": jf.Record(what=())},
    "a start that rises": {"optimizer": jf.optimizers.sgd(0.1)},
}  # fmt: skip
QUICK = ("patience", "a method that judges", "a start that rises")


def decay(params, x):
    return params["a"] * jax.numpy.exp(-x / params["tau"])


def fit(steps, **keywords):
    how = {"optimizer": jf.optimizers.sgd(1e-2)} | keywords
    return jf.fit(LOSS, {"w": 1.0, "b": 0.0}, DATA, steps=steps, **how)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y) and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert str(a) == str(b)


@pytest.mark.parametrize("way", soaking(WAYS, keep=QUICK))
def test_a_fit_resumed_with_more_steps_is_the_longer_fit(way):
    whole = fit(140, **WAYS[way])
    for steps in (7, 77):
        same(jf.resume(fit(steps, **WAYS[way]), 140), whole)


@pytest.mark.parametrize("way", soaking(WAYS, keep=QUICK))
def test_a_finished_checkpoint_goes_on_with_more_steps(way, tmp_path):
    whole = fit(140, **WAYS[way])
    for steps in (7, 77, 140):
        same(fit(steps, checkpoint=tmp_path / "fit", **WAYS[way]), fit(steps, **WAYS[way]))
    same(fit(140, checkpoint=tmp_path / "fit", **WAYS[way]), whole)


def test_only_the_new_steps_are_made_and_none_after_an_end(tmp_path):
    short, still = fit(70), fit(70, stop=jf.Stop(loss_below=1e9))
    with counting() as events:
        jf.resume(short, 100)
        assert jf.resume(still, 100).steps == still.steps == 0
        fit(70, checkpoint=tmp_path / "fit")
        fit(90, checkpoint=tmp_path / "fit")
    assert sum(events["stretch"]) == 30 + 70 + 20


def test_a_lengthened_fit_goes_on_again_and_keeps_its_problem():
    twice = jf.resume(jf.resume(fit(20), 50), 120)
    same(twice, fit(120))
    assert int(twice.training.steps) == 120 and jf.explain(twice).fit is twice


def test_a_fit_that_ctrl_c_ended_goes_on_in_memory():
    with (
        using(stretch_steps=21, stretch_seconds=1e6),
        ended_by(KeyboardInterrupt, "stretch", 3),
        pytest.raises(jf.Interrupted) as caught,
    ):
        fit(100)
    assert caught.value.result.steps == 42
    same(jf.resume(caught.value.result, 100), fit(100))


def test_curve_fit_says_afterwards_what_its_sigma_was():
    x = np.linspace(0.0, 3.0, 12)
    start, data = {"a": 1.0, "tau": 9.0}, (x, 2 * np.exp(-x))
    short = jf.curve_fit(decay, start, data, sigma=0.1, steps=2, absolute_sigma=True)
    whole = jf.curve_fit(decay, start, data, sigma=0.1, absolute_sigma=True)
    longer = jf.resume(short, 1000)
    same(longer, whole)
    assert short.status == jf.Status.OUT_OF_STEPS and longer.absolute_sigma is True


def of_a_lane(short):
    rate = jf.Axis("rate", [1e-3, 1e-2])
    return jf.best(jf.sweep(LOSS, {"w": 1.0, "b": 0.0}, DATA, optimizer=jf.optimizers.sgd(rate), steps=5))


REFUSED = {
    "fewer steps": (lambda short: short, 69, ValueError, "has made 70 steps, and steps is 69 now, but a run goes on"),
    "no count": (lambda short: short, 80.5, ValueError, "steps is 80.5, but it must be a whole number"),
    "a lane": (of_a_lane, 80, ValueError, "a lane of a sweep, which keeps no state.*store= and make that call again"),
    "another stride": (lambda short: fit(70, record=jf.Record(every=20)), 80, ValueError,
                       "has made 70 steps, no multiple of Record.every=20, so that it cannot go on"),
    "no fit": (lambda short: {"w": 1.0}, 80, TypeError, "takes the fit of one run, but got a dict"),
    "a fit out of a jit": (lambda short: jax.jit(lambda r: fit(5, optimizer=jf.optimizers.sgd(r)))(1e-3), 80,
                           ValueError, "resume: the fit no longer knows its loss and data"),
}  # fmt: skip


@pytest.mark.parametrize("case", soaking(REFUSED, but=("a lane",)))
def test_what_cannot_go_on_is_refused(case):
    make, steps, error, text = REFUSED[case]
    with pytest.raises(error, match=text):
        jf.resume(make(fit(70)), steps)


def test_a_checkpoint_that_is_longer_is_refused_and_stays(tmp_path):
    fit(70, checkpoint=tmp_path / "fit")
    before = (tmp_path / "fit").read_bytes()
    with pytest.raises(ValueError, match=f"checkpoint: {tmp_path / 'fit'} has made 70 steps, and steps is 60 now"):
        fit(60, checkpoint=tmp_path / "fit")
    assert (tmp_path / "fit").read_bytes() == before
