import io
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using
from tests.shared.interrupts import ended_by
from tests.shared.problems import METHODS, PROBLEMS, line, plain_loop, quadratic, thermometer
from tests.shared.soak import soaking

LINE = PROBLEMS["line"]


def close(a, b, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **kwargs), a, b)


@pytest.mark.parametrize("problem", soaking(PROBLEMS, keep=()))
@pytest.mark.parametrize("method", soaking(["sgd", "momentum", "adam"], keep=()))
def test_a_fit_is_the_python_loop(problem, method):
    case = PROBLEMS[problem]
    mine, theirs = METHODS[method]
    params, losses = plain_loop(case.loss, case.start, case.data, theirs(case.rate / 5), 120)
    fit = jf.fit(case.loss, case.start, case.data, optimizer=mine(case.rate / 5), steps=120)
    close(fit.params, params, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(fit.history.loss, losses, rtol=1e-3, atol=1e-6)
    assert fit.steps == 120 and fit.history.step.tolist() == list(range(121))
    assert fit.loss == fit.history.loss[-1]


def test_the_first_fit_by_gradient_descent_compiles_one_program():
    with counting() as events:
        fit = jf.fit(lambda p: (p - 1.0) ** 2, 0.0, optimizer=jf.optimizers.sgd(0.25), steps=10)
    assert events["program"] == ["segment"] and fit.loss == fit.history.loss[-1] == 2.0**-20 and fit.start_loss == 1.0


def test_float64_follows_the_closed_form_of_gradient_descent_on_a_quadratic():
    rate, steps = 0.05, 200
    fit = jf.fit(quadratic, [3.0, -2.0], optimizer=jf.optimizers.sgd(rate), steps=steps, precision="float64")
    close(fit.params, [3 * (1 - rate) ** steps, -2 * (1 - 10 * rate) ** steps], rtol=1e-12)
    assert isinstance(fit.params[0], np.float64) and fit.history.loss.dtype == np.float64
    assert not jax.config.jax_enable_x64


def test_float64_works_in_a_thread_and_leaves_other_threads_alone():
    found = {}

    def run():
        found["fit"] = jf.fit(quadratic, [3.0, -2.0], optimizer=jf.optimizers.sgd(0.05), steps=9, precision="float64")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found["fit"].loss.dtype == np.float64 and jnp.asarray(1.0).dtype == jnp.float32


def test_float32_is_float32_even_where_the_caller_has_64_bit_types_on():
    with jax.enable_x64(True):
        fit = jf.fit(quadratic, [3.0, -2.0], optimizer=jf.optimizers.sgd(0.05), steps=9, precision="float32")
    assert fit.loss.dtype == np.float32


def test_the_history_has_the_stride_and_the_things_asked_for():
    record = jf.Record(every=7, what=("loss", "params", "gradient", "gradient_norm", mean_residual))
    every = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=50)
    fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=50, record=record)
    assert fit.history.step.tolist() == list(range(0, 50, 7))
    np.testing.assert_allclose(fit.history.loss, every.history.loss[::7], rtol=1e-6)
    norms = np.hypot(fit.history.gradient["w"], fit.history.gradient["b"])
    np.testing.assert_allclose(fit.history.gradient_norm, norms, rtol=1e-5)
    x, y = LINE.data
    p = fit.history.params
    np.testing.assert_allclose(fit.history.mean_residual, p["w"] * x.mean() + p["b"] - y.mean(), rtol=1e-4, atol=1e-4)
    close(fit.params, every.params, rtol=1e-6)


def mean_residual(params, x, y):
    return jnp.mean(line(params, x) - y)


@pytest.mark.parametrize("steps", soaking([1, 2, 999, 1000, 1001, 2500], keep=(1001,)))
@pytest.mark.parametrize("every", soaking([1, 10], keep=(10,)))
def test_history_is_whole_whatever_the_stretches(steps, every):
    how = {"optimizer": jf.optimizers.sgd(1e-2), "steps": steps, "record": jf.Record(every)}
    with using(stretch_rows=64):
        fit = jf.fit(LINE.loss, LINE.start, LINE.data, **how)
    assert fit.history.step.tolist() == list(range(0, steps + 1, every))
    _, losses = plain_loop(LINE.loss, LINE.start, LINE.data, optax.sgd(1e-2), steps)
    np.testing.assert_allclose(fit.history.loss, losses[::every], rtol=1e-4)


def test_trouble_is_found_at_its_step_and_the_params_stay_there():
    t_u, t_c = jf.datasets.thermometer()
    fit = jf.fit(LINE.loss, LINE.start, (t_u, t_c), optimizer=jf.optimizers.sgd(1e-2), steps=100)
    assert (fit.status, fit.steps) == (jf.Status.DIVERGED, 10)
    assert np.isinf(fit.loss) and np.isfinite(fit.history.loss[:-1]).all() and len(fit.history.loss) == 11
    assert np.isfinite([*fit.params.values()]).all()
    text = str(fit)
    assert "after 10 updates the loss overflowed float32" in text
    assert "3,345-fold a step" in text and "limit is near 3.4e-4" in text and "try 1e-4." in text


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_moves_the_params():
    def loss(p):
        return jnp.where(p > 0.5, jnp.sqrt(jnp.maximum(p - 0.5, 0.0)), 0.0) + p

    fit = jf.fit(loss, 1.0, optimizer=jf.optimizers.sgd(0.1), steps=50)
    assert fit.status == jf.Status.NOT_FINITE and np.isfinite(fit.params) and fit.params <= 0.5
    assert np.isfinite(fit.loss) and "gradient was not finite" in str(fit)


def test_a_run_that_ends_above_its_start_has_diverged():
    fit = jf.fit(quadratic, [3.0, -2.0], optimizer=jf.optimizers.sgd(0.2001), steps=2000)
    assert fit.status == jf.Status.DIVERGED and np.isfinite(fit.loss) and fit.steps == 2000


def test_a_run_at_the_optimum_has_not_diverged_for_a_rounding():
    x, y = thermometer()
    slope, intercept = np.polyfit(x, y, 1)
    fit = jf.fit(LINE.loss, {"w": slope, "b": intercept}, (x, y), optimizer=jf.optimizers.sgd(1e-2), steps=300)
    assert fit.status == jf.Status.OUT_OF_STEPS


@pytest.mark.parametrize(
    "rule",
    soaking(
        [
            (jf.Stop(params_change_below=1e-3), lambda h, k: k > 0 and 1e-2 * h.gradient_norm[k - 1] < 1e-3),
            (jf.Stop(loss_below=3.0), lambda h, k: h.loss[k] < 3.0),
            (jf.Stop(gradient_norm_below=0.05), lambda h, k: h.gradient_norm[k] < 0.05),
        ],
        keep=1,
    ),
)
def test_each_rule_stops_at_the_first_step_that_meets_it(rule):
    stop, reached = rule
    record = jf.Record(what=("loss", "gradient_norm"))
    free = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=6000, record=record)
    fit = jf.fit(
        LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=6000, record=record, stop=stop
    )
    first = next(k for k in range(6001) if reached(free.history, k))
    assert fit.status == jf.Status.CONVERGED and abs(fit.steps - first) <= 1 and 0 < first < 6000
    assert len(fit.history.loss) == fit.steps + 1


def test_loss_above_is_divergence():
    t_u, t_c = jf.datasets.thermometer()
    stop = jf.Stop(loss_above=1e6)
    fit = jf.fit(LINE.loss, LINE.start, (t_u, t_c), optimizer=jf.optimizers.sgd(1e-2), steps=100, stop=stop)
    assert (fit.status, fit.steps) == (jf.Status.DIVERGED, 1)


@pytest.mark.soak
def test_patience_counts_records_without_a_new_lowest_validation_loss():
    train, held_out = jf.datasets.thermometer_split()
    scaled = [(0.1 * x, y) for x, y in (train, held_out)]
    away = (scaled[1][0], 1.5 * scaled[1][0])  # the fit passes by these on its way
    fit = jf.fit(
        LINE.loss, LINE.start, scaled[0], optimizer=jf.optimizers.sgd(1e-3), steps=5000, validation=away,
        stop=jf.Stop(patience=5), record=jf.Record(every=3, what=("validation_loss",)),
    )  # fmt: skip
    losses = fit.history.validation_loss
    assert fit.status == jf.Status.STOPPED_EARLY
    assert len(losses) - 1 - np.argmin(losses) == 5 and fit.steps == 3 * (len(losses) - 1)


def test_validation_is_watched_and_never_trained_on():
    train, held_out = jf.datasets.thermometer_split()
    kwargs = dict(optimizer=jf.optimizers.sgd(1e-4), steps=40)
    alone = jf.fit(LINE.loss, LINE.start, train, **kwargs)
    beside = jf.fit(LINE.loss, LINE.start, train, validation=held_out, **kwargs)
    np.testing.assert_allclose(alone.history.loss, beside.history.loss, rtol=1e-6)
    x, y = held_out
    expected = np.mean((beside.params["w"] * x + beside.params["b"] - y) ** 2)
    np.testing.assert_allclose(beside.validation_loss, expected, rtol=1e-5)
    assert beside.history.validation_loss[-1] == beside.validation_loss


@pytest.mark.parametrize("size", soaking([1, 3, 4, 11], keep=(4,)))
def test_without_replacement_every_epoch_uses_each_row_at_most_once(size):
    rows = np.arange(11.0)
    fit = jf.fit(
        lambda p, x: jnp.sum(2.0**x) + p**2, 0.0, (rows,), optimizer=jf.optimizers.sgd(0.1), steps=66,
        batches=jf.Batches(size), key=0,
    )  # fmt: skip
    per_epoch = 11 // size
    masks = fit.history.loss[:-1].astype(int)
    epochs = [masks[i : i + per_epoch] for i in range(0, len(masks) - per_epoch + 1, per_epoch)]
    for epoch in epochs:
        assert all(bin(m).count("1") == size for m in epoch)
        assert bin(np.bitwise_or.reduce(epoch)).count("1") == size * per_epoch
    if size < 11:
        assert len({tuple(e) for e in epochs}) > 1


@pytest.mark.soak
def test_with_replacement_rows_come_back_and_all_are_equally_likely():
    fit = jf.fit(
        lambda p, x: jnp.sum(10.0**x) + p**2, 0.0, (np.arange(5.0),), optimizer=jf.optimizers.sgd(0.1), steps=4000,
        batches=jf.Batches(2, replace=True), key=1,
    )  # fmt: skip
    digits = np.array([[int(d) for d in f"{int(round(v)):05d}"] for v in fit.history.loss[:-1]])
    assert (digits.sum(axis=1) == 2).all() and (digits == 2).any()
    share = digits.sum(axis=0) / digits.sum()
    np.testing.assert_allclose(share, 0.2, atol=5 * np.sqrt(0.16 / 8000))


def test_the_same_key_gives_the_same_bits_and_another_key_others():
    def run(key):
        return jf.fit(
            LINE.loss,
            LINE.start,
            LINE.data,
            optimizer=jf.optimizers.sgd(1e-2),
            steps=30,
            batches=jf.Batches(3),
            key=key,
        )

    assert np.array_equal(run(5).history.loss, run(jax.random.key(5)).history.loss)
    assert not np.array_equal(run(5).history.loss, run(6).history.loss)


def test_the_loss_of_a_run_with_batches_is_of_all_the_data():
    fit = jf.fit(
        LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=30, batches=jf.Batches(3), key=0
    )
    params = jax.tree.map(np.asarray, fit.params)
    x, y = LINE.data
    np.testing.assert_allclose(fit.loss, np.mean((params["w"] * x + params["b"] - y) ** 2), rtol=1e-5)


def test_a_loss_that_takes_a_key_gets_the_key_of_its_step():
    def noisy(params, key):
        return params**2 + jax.random.uniform(key)

    fit = jf.fit(noisy, 0.0, optimizer=jf.optimizers.sgd(0.1), steps=5, key=3)
    expected = [jax.random.uniform(jax.random.fold_in(jax.random.key(3), t)) for t in range(6)]
    np.testing.assert_allclose(fit.history.loss, expected, rtol=1e-6)


def test_new_numbers_compile_nothing(traces):
    model = traces(line)
    x, y = thermometer()

    def run(rate, w, shift, steps=50):
        loss = jf.losses.mse(model)
        return jf.fit(loss, {"w": w, "b": 0.0}, (x + shift, y), optimizer=jf.optimizers.sgd(rate), steps=steps)

    run(1e-2, 1.0, 0.0)
    run(0.9, 1.0, 0.0)  # diverges: the program that watches every step
    seen = model.count
    with _no_compilation():
        for k in range(5):
            run(1e-3 * (k + 1), 2.0 * k, 0.1 * k)
            run(0.5 + k, 2.0 * k, 0.1 * k)
        run(1e-3, 1.0, 0.0, steps=70)
    assert model.count == seen


class _no_compilation:
    """Fails if JAX compiles anything inside."""

    def __enter__(self):
        self.compiled = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event, *_, **__):
        if event.endswith("backend_compile_duration") and self.compiled is not None:
            self.compiled.append(event)

    def __exit__(self, kind, *_):
        found, self.compiled = self.compiled, None
        assert kind is not None or not found, f"{len(found)} compilations"


def of_all(function):
    """A function at every place of an array; of one number, the first of them."""
    return lambda x: jax.vmap(function)(jnp.atleast_1d(x))[0]


# in a jit each transformation is one program; without, JAX compiles the backward pass operation by operation
IN = {"jit": jax.jit, "vmap": of_all, "jit of vmap": lambda f: jax.jit(of_all(f))}


@pytest.mark.parametrize("way", soaking(IN, keep=("jit of vmap",)))
def test_it_works_inside_the_callers_jit_and_vmap(way):
    def final(rate):
        return jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(rate), steps=40).loss

    for rate in (0.005, 0.01):
        np.testing.assert_allclose(IN[way](final)(rate), final(rate), rtol=1e-5)


@pytest.mark.parametrize("wrap", soaking([jax.jit, lambda f: f], keep=1), ids=["compiled", "plain"])
def test_the_gradient_of_the_final_loss_with_respect_to_the_learning_rate_is_right(wrap):
    def final(rate, start):
        return jf.fit(quadratic, [3.0, start], optimizer=jf.optimizers.sgd(rate), steps=25).loss

    def exact(rate, start):
        return 0.5 * (9 * (1 - rate) ** 50 + 10 * start**2 * (1 - 10 * rate) ** 50)

    found, expected = (wrap(jax.grad(f, (0, 1)))(0.03, -2.0) for f in (final, exact))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.soak
@pytest.mark.parametrize("wrap", soaking([jax.jit, lambda f: f], keep=1), ids=["compiled", "plain"])
def test_gradients_go_through_data_and_momentum_too(wrap):
    x, y = thermometer()

    def final(shift, **how):
        data = (x, jnp.float32(y) + shift)
        return jf.fit(LINE.loss, LINE.start, data, optimizer=jf.optimizers.momentum(1e-3, 0.5), steps=20, **how).loss

    h = 1e-2
    numeric = (final(jnp.float32(h)) - final(jnp.float32(-h))) / (2 * h)
    np.testing.assert_allclose(wrap(jax.grad(final))(jnp.float32(0.0)), numeric, rtol=1e-3)


@pytest.mark.parametrize("wrap", soaking([jax.jit, lambda f: f], keep=1), ids=["compiled", "plain"])
def test_a_closure_over_a_live_tracer_works(wrap):
    x, y = thermometer()

    def final(shift):
        def loss(p):
            return jnp.mean((p["w"] * x + p["b"] - y - shift) ** 2)

        return jf.fit(loss, LINE.start, optimizer=jf.optimizers.sgd(1e-2), steps=20).loss

    h = 1e-2
    values, slopes = wrap(lambda s: jax.vmap(jax.value_and_grad(final))(jnp.array([s])))(0.7)
    np.testing.assert_allclose(values[0], final(0.7), rtol=1e-5)
    np.testing.assert_allclose(slopes[0], (final(0.7 + h) - final(0.7 - h)) / (2 * h), rtol=1e-3)


@pytest.mark.soak
def test_a_traced_run_ends_where_a_plain_one_does():
    stop = jf.Stop(gradient_norm_below=0.5)
    kwargs = dict(steps=4000, stop=stop, record=jf.Record(every=10))
    plain = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), **kwargs)

    @jax.jit
    def traced(rate):
        fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(rate), **kwargs)
        return fit.status, fit.steps, fit.params, fit.history.loss

    status, steps, params, losses = traced(1e-2)
    assert status == plain.status and abs(int(steps) - plain.steps) <= 1
    close(params, plain.params, rtol=1e-4)
    assert np.isnan(losses[int(steps) // 10 + 1 :]).all() and np.isfinite(losses[: int(steps) // 10 + 1]).all()


def test_a_fit_is_a_pytree_that_forgets_its_problem_in_a_jit_alone():
    fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=5)
    again = jax.tree.map(lambda x: x, fit)
    assert fit.problem is not None and again.problem is fit.problem and jax.jit(lambda x: x)(fit).problem is None
    close(again.params, fit.params)


def test_one_step_returns_params_loss_and_gradient_and_carries_the_state():
    x, y = LINE.data
    params, value, grads = jf.step(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2))
    assert params["w"] == np.float32(1.0) - np.float32(1e-2) * grads["w"]
    np.testing.assert_allclose(value, np.mean((x - y) ** 2), rtol=1e-6)
    np.testing.assert_allclose(grads["w"], np.mean(2 * (x - y) * x), rtol=1e-5)
    state, here = None, LINE.start
    for _ in range(10):
        taken = jf.step(LINE.loss, here, LINE.data, optimizer=jf.optimizers.momentum(1e-3), opt_state=state)
        here, state = taken.params, taken.opt_state
    fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.momentum(1e-3), steps=10)
    close(here, fit.params, rtol=1e-5)


def test_a_bar_is_shown_on_request_and_changes_nothing(capsys):
    kwargs = dict(optimizer=jf.optimizers.sgd(1e-2), steps=3000)
    quiet = jf.fit(LINE.loss, LINE.start, LINE.data, **kwargs)
    assert capsys.readouterr().err == ""
    shown = jf.fit(LINE.loss, LINE.start, LINE.data, progress=True, **kwargs)
    assert "steps" in capsys.readouterr().err
    assert np.array_equal(quiet.history.loss, shown.history.loss)


def test_ctrl_c_keeps_what_was_done():
    with (
        using(stretch_steps=100, stretch_seconds=1e6),
        ended_by(KeyboardInterrupt, "stretch", 3),
        pytest.raises(jf.Interrupted, match="after 200 of 1,000 steps") as caught,
    ):
        jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=1000)
    assert caught.value.result.status == jf.Status.NOT_RUN and len(caught.value.result.history.loss) == 200


def test_require_converged_raises_the_printed_outcome():
    fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=5)
    with pytest.raises(jf.NotConverged, match="still running after 5 updates"):
        jf.require_converged(fit)
    done = jf.fit(
        LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=5000, stop=jf.Stop(loss_below=5.0)
    )
    assert jf.require_converged(done) is done


IMPORTED = """
import sys, jax, optax
before = {*sys.modules}
import jaxfit
print(*{*sys.modules} - before)
"""


def test_importing_jaxfit_imports_no_other_library_and_only_what_a_single_fit_needs():
    new = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTED], capture_output=True, text=True, check=True
    ).stdout.split()
    own = {name.removeprefix("jaxfit.") for name in new if name.split(".")[0] == "jaxfit"}
    assert "verbs.fits" in own and not own & {*jf._LATER, *jf._MODULES}
    assert {name.split(".")[0] for name in new} - {"jaxfit"} <= {*sys.stdlib_module_names, "numpy"}


def test_printing_is_for_people():
    fit = jf.fit(LINE.loss, LINE.start, LINE.data, optimizer=jf.optimizers.sgd(1e-2), steps=5)
    out = io.StringIO()
    print(fit, file=out)
    assert out.getvalue().startswith("out of steps: still running after 5 updates")
    assert "w = " in out.getvalue() and "sgd(learning_rate=0.01), float32" in out.getvalue()
