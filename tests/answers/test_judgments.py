"""What `print`, `report` and `explain` say of a run is one judgment in three wordings."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.verbs.summaries import pace, runaways, silent
from tests.shared.failing_runs import failing, of_quartic, of_well
from tests.shared.soak import soaking

BROKEN = {"diverged", "not finite"}
ENDED = {
    "settled", "still descending", "rate too small", "badly scaled", "noise floor", "limit cycle", "saddle", "plateau",
    "runaway params",
}  # fmt: skip


def assert_in_agreement(fit):
    """No sentence of one text denies one of another."""
    found, text = jf.explain(fit), str(fit).splitlines()[0]
    told = " ".join(found.story)
    if fit.status == jf.Status.OUT_OF_STEPS:
        assert found.kind not in BROKEN | {"converged", "stopped early"}
        assert "a stop rule was met" not in told and "arrived" not in told
        assert ("still running" in text) == (pace(fit) in (None, "falls") and fit.loss != 0 and not runaways(fit))
    else:
        assert found.kind not in ENDED
    for words, there in (
        ("still falls", "still running"),
        ("stands still", "standing still"),
        ("up and down", "up and"),
    ):
        assert words not in told or there in text
    assert found.kind != "still descending" or "still running" in text
    assert (found.kind == "runaway params") == ("ran away" in text)
    if hasattr(fit.problem.loss, "noise_model") or type(fit.problem.loss).__name__ in ("Residual", "ChiSquared"):
        said = reported(fit)
        assert said is None or text.split(": ", 1)[1] in said


def reported(fit):
    """The report, or for a fit that has none what it is refused with; None for a loss without errors of its params."""
    try:
        return str(jf.report(fit))
    except jf.NotConverged as error:
        return str(error)
    except TypeError as error:
        assert "mae(" in str(error) and "no curvature to read errors from" in str(error)
        return None


def plain(attempt):
    return attempt.options["optimizer"].name == "sgd"


@pytest.mark.soak
def test_the_texts_agree_on_runs_that_fail():
    for _, fit in failing(3, makers=(of_quartic, of_well), only=plain):
        assert_in_agreement(fit)


@pytest.mark.soak
@pytest.mark.filterwarnings("default")
def test_the_texts_agree_on_failing_runs_of_every_kind():
    for seed in range(2):
        for _, fit in failing(6, seed=seed):
            assert_in_agreement(fit)


X = np.linspace(0, 10, 40)
DECAY = 3 * np.exp(-X / 2.5) + 0.05 * np.random.default_rng(0).normal(size=40)


def decay(params, x):
    return params["A"] * jnp.exp(-x / params["tau"])


@pytest.mark.parametrize("sign", soaking([1, -1], keep=(1,)))
def test_a_param_that_runs_away_is_told_in_all_texts_and_brought_back_by_the_remedy(sign):
    fit = jf.curve_fit(decay, {"A": 1.0, "tau": -5.0}, (X, sign * DECAY))
    found, report = jf.explain(fit), str(jf.report(fit))
    assert found.kind == "runaway params" and found.numbers["runaways"]["tau"][0] == -5.0
    for text in (str(fit), report, str(found)):
        assert "tau ran away from -5 to" in text and "jf.Bounded" in text and "let it run on" not in text
    again = found.retry()
    assert again.status == jf.Status.CONVERGED and again.params["tau"] == pytest.approx(2.5, rel=0.1)
    assert not runaways(again) and jf.explain(again).kind == "converged"


@pytest.mark.soak
def test_a_param_that_no_other_sign_helps_is_bounded():
    fit = jf.fit(lambda p: 1 + 1 / (1 + jnp.square(p["a"])), {"a": 1.0}, optimizer=jf.optimizers.adam(1e6), steps=300)
    found = jf.explain(fit)
    assert found.kind == "runaway params" and repr(found.remedy["params"]["a"]).startswith("Bounded(1.0, low=")
    again = found.retry()
    assert 1 < again.params["a"] <= 100 and not runaways(again)


@pytest.mark.soak
def test_a_large_param_that_the_data_need_has_not_run_away():
    fit = jf.curve_fit(lambda p, x: p["k"] * x, {"k": 1.0}, (X, 1e9 * X + np.sin(5 * X)))
    assert fit.params["k"] == pytest.approx(1e9) and not runaways(fit) and "ran away" not in str(fit)


@pytest.mark.soak
def test_a_run_that_stands_far_above_its_least_loss_has_not_arrived():
    """NIST's MGH10 from its first start: its least sum of squares is 87.9."""
    x = np.arange(50, 130, 5.0)
    y = np.array([34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307,
                  2872.0])  # fmt: skip

    def mgh10(params, x):
        return params["b1"] * jnp.exp(params["b2"] / (x + params["b3"]))

    fit = jf.curve_fit(mgh10, {"b1": 2.0, "b2": 4e5, "b3": 25000.0}, (x, y), steps=200)
    assert_in_agreement(fit)
    if fit.loss > 100:
        found = jf.explain(fit)
        assert found.kind not in ("converged", "settled") and found.remedy
        assert "levenberg_marquardt" not in found.advice  # which it was


def test_a_bowl_whose_loss_is_zero_is_not_told_to_run_on():
    for steps in (1, 50):
        fit = jf.fit(
            lambda p: p["x"] ** 2 + p["y"] ** 2, {"x": 3.0, "y": 1.0}, optimizer=jf.optimizers.sgd(0.5), steps=steps
        )
        found = jf.explain(fit)
        assert fit.loss == 0 and found.kind == "settled" and found.retry() is found.fit
        assert "give it more steps" not in str(found.retry()) + str(found)
        assert_in_agreement(fit)


def test_with_batches_the_loss_that_is_printed_is_that_of_all_the_data_throughout():
    rng = np.random.default_rng(0)
    x, y = X, 2 * X + rng.normal(size=40)
    loss = jf.losses.mse(lambda p, x: p["w"] * x)
    fit = jf.fit(loss, {"w": 0.0}, (x, y), optimizer=jf.optimizers.sgd(1e-4), steps=100, batches=jf.Batches(3), key=0)
    first, second, *_ = str(fit).splitlines()
    assert f"(loss {float(loss({'w': 0.0}, x, y)):.6g} at the start, {float(fit.loss):.6g} now)" in first
    assert second.startswith(f"  loss    {fit.loss:.8g} of all the data")
    assert f"{float(fit.history.loss[-1]):.6g}" not in str(fit)


def test_a_run_that_diverged_is_told_in_plain_words():
    t_u, t_c = jf.datasets.thermometer()
    loss = jf.losses.mse(jf.models.line)
    fit = jf.fit(loss, {"w": 1.0, "b": 0.0}, (t_u, t_c), optimizer=jf.optimizers.sgd(1e-2), steps=100)
    assert str(fit).splitlines()[0].endswith("so the limit is near 3.4e-4. Lower the learning rate: try 1e-4.")
    assert_in_agreement(fit)


@pytest.mark.parametrize("name", soaking(["levenberg_marquardt", "lbfgs"], but=("lbfgs",)))
def test_a_param_that_ran_away_has_no_error_in_the_report(name):
    optimizer = getattr(jf.optimizers, name)()
    fit = jf.fit(jf.losses.rss(decay), {"A": 1.0, "tau": -5.0}, (X, DECAY), optimizer=optimizer, steps=500)
    report = jf.report(fit)
    amplitude, tau = report.rows
    assert tau.role == "ran away" and np.isnan([tau.error, tau.low, tau.high]).all()
    assert np.isfinite([amplitude.error, amplitude.low]).all()
    assert not report.pairs()
    assert max(map(len, str(report).splitlines()[6:])) < 90


SILENT = {  # models that have no slope in c, wherever it is, and optimizers
    "unused": (lambda p, x: p["a"] * x, jf.optimizers.levenberg_marquardt()),
    "rounded": (lambda p, x: p["a"] * x + jnp.round(p["c"]), jf.optimizers.sgd(0.01)),
}


@pytest.mark.filterwarnings("ignore:the loss does not depend")
@pytest.mark.parametrize("case", soaking(SILENT, keep=("rounded",)))
def test_a_param_that_changes_nothing_anywhere_is_not_determined_and_fixed_by_the_remedy(case):
    model, optimizer = SILENT[case]
    fit = jf.fit(jf.losses.mse(model), {"a": 1.0, "c": 2.0}, (X, 3 * X + np.sin(X)), optimizer=optimizer, steps=200)
    found = jf.explain(fit)
    assert found.kind == "not determined" and isinstance(found.remedy["params"]["c"], jf.Fixed)
    assert found.retry(stop=jf.Stop(gradient_norm_below=1e-3)).status == jf.Status.CONVERGED


@pytest.mark.soak
def test_params_that_change_nothing_where_they_are_are_named_in_all_texts_and_get_another_start():
    """A step at x = 50, as steep as if it were a jump, of data that end at 10: elsewhere both of its params matter."""
    step = jf.losses.rss(lambda p, x: p["a"] / (1 + jnp.exp(p["k"] * (x - p["m"]))))
    fit = jf.fit(
        step, {"a": 1.0, "k": 30.0, "m": 50.0}, (X, DECAY), optimizer=jf.optimizers.levenberg_marquardt(), steps=60
    )
    assert fit.status == jf.Status.OUT_OF_STEPS and fit.loss == pytest.approx(np.sum((DECAY - DECAY.mean()) ** 2))
    assert [*silent(fit)] == ["k", "m"]
    found, told = jf.explain(fit), "k, m change nothing there; start them elsewhere, or hold them with jf.Fixed"
    assert found.kind == "dead units" and "(k, m)" in str(found)
    assert told in str(fit) and told in str(jf.report(fit))
    assert_in_agreement(fit)
    assert found.retry().loss < 0.1 * fit.loss


@pytest.mark.soak
def test_a_start_whose_gradient_overflows_is_made_smaller_by_the_remedy():
    """exp(1500) is infinite: the curve is 0 there, and its slope 0 * inf."""
    y = 10 / (1 + np.exp(-0.9 * (X - 6)))
    curve = lambda p, x: p["a"] / (1 + jnp.exp(-p["k"] * (x - p["m"])))  # noqa: E731
    fit = jf.curve_fit(curve, {"a": 1.0, "k": 30.0, "m": 50.0}, (X, y))
    assert fit.status == jf.Status.NOT_FINITE and "an exp that overflows" in str(fit)
    found = jf.explain(fit)
    assert found.kind == "not defined" and "the gradient in k, m is not finite" in str(found)
    again = found.retry()
    assert again.status == jf.Status.CONVERGED
    np.testing.assert_allclose([again.params[name] for name in "akm"], [10.0, 0.9, 6.0], rtol=1e-6)


@pytest.mark.soak
def test_a_loss_of_zero_is_the_end_also_where_a_param_lost_its_influence_there():
    fit = jf.curve_fit(decay, {"A": 1.0, "tau": 2.0}, (X, 0 * X))
    assert fit.loss == 0
    assert jf.explain(fit).kind in ("settled", "converged", "not determined")


def line(p, x):
    return p["w"] * x + p["b"]


@pytest.mark.soak
def test_a_lane_with_fewer_points_than_params_is_explained():
    masks = np.ones((2, 40), bool)
    masks[1, 1:] = False
    few = jf.sweep(
        jf.losses.mse(line, masked=True), {"w": 1.0, "b": 0.0}, (X, DECAY, jf.Axis("set", masks)),
        optimizer=jf.optimizers.levenberg_marquardt(),
    )  # fmt: skip
    found = jf.explain(jf.lane(few, set=1))
    assert found.kind == "not determined" and "do not determine all of the params" in found.story[0]
    outside = jf.sweep(lambda p: jnp.log(p) ** 2, jf.Axis("p", [-1.0, 2.0]), optimizer=jf.optimizers.sgd(0.1), steps=20)
    found = jf.explain(jf.lane(outside, p=-1.0))
    assert found.kind == "not finite" and "outside of where the loss is defined" in found.story[0]


@pytest.mark.soak
def test_a_run_that_patience_ended_is_not_told_to_run_on():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)), draw.normal(size=40)
    fit = jf.fit(
        jf.losses.mse(lambda p, x: x @ p), jnp.zeros(3), (x[:20], y[:20]), optimizer=jf.optimizers.adam(0.01),
        stop=jf.Stop(patience=3), validation=(x[20:], y[20:]),
    )  # fmt: skip
    assert fit.status == jf.Status.STOPPED_EARLY
    assert "run on" not in str(jf.report(fit)) and "standard errors from the minimum" in str(jf.report(fit))


@pytest.mark.soak
def test_a_number_of_an_array_that_ran_away_is_found_in_the_report():
    model = lambda p, x: p[0] * jnp.exp(-x / p[1])  # noqa: E731
    fit = jf.fit(
        jf.losses.rss(model), jnp.array([1.0, -5.0]), (X, DECAY), optimizer=jf.optimizers.levenberg_marquardt(),
        steps=300,
    )  # fmt: skip
    assert [row.role for row in jf.report(fit).rows] == ["free", "ran away"]


LOSSES = {
    "square": lambda p: p**2,
    "shifted": lambda p: (p - 1) ** 2,
    "quartic": lambda p: p**4,
    "lifted": lambda p: 1 + p**2,
    "cosh": lambda p: jnp.cosh(p) - 1,
    "small": lambda p: 1e-30 * p**2,
    "large": lambda p: 1e30 * (p - 3) ** 2,
}


def drawn(seed, count):
    """Fits of one param from starts of any size, some of whose losses underflow or overflow."""
    draw, optimizers = np.random.default_rng(seed), jf.optimizers
    made = [optimizers.sgd(0.1), optimizers.momentum(0.05, 0.9), optimizers.adam(0.1), optimizers.lbfgs()]
    for _ in range(count):
        name, precision = draw.choice(list(LOSSES)), draw.choice(["float32", "float64"])
        start, optimizer = float(draw.choice([-1, 1]) * 10 ** draw.uniform(-30, 12)), made[draw.integers(len(made))]
        with np.errstate(over="ignore"):
            if not np.isfinite(np.asarray(LOSSES[name](np.asarray(start, precision)))):
                continue
        yield name, jf.fit(LOSSES[name], start, optimizer=optimizer, steps=60, precision=str(precision))


def assert_true(name, fit):
    """What is said holds in closed form: all but one of the losses have one minimum, without another flat place."""
    assert_in_agreement(fit)
    kind, eps = jf.explain(fit).kind, np.finfo(fit.precision).eps
    least, at = (1.0 if name == "lifted" else 0.0), {"shifted": 1.0, "large": 3.0}.get(name, 0.0)
    if fit.status == jf.Status.CONVERGED:
        assert fit.loss - least <= 64 * eps**2 * max(1, at) ** 2 * {"large": 1e30}.get(name, 1.0) + eps * least
    moved = abs(float(fit.params) - at) < 0.5 * abs(float(fit.problem.params) - at)
    if kind == "limit cycle":
        assert pace(fit) == "swings"
    assert kind not in ("runaway params", "saddle", "not determined") and (kind != "plateau" or not moved)


@pytest.mark.soak
def test_what_is_said_of_bowls_from_starts_of_any_size_is_true():
    for name, fit in drawn(0, 3):
        assert_true(name, fit)


@pytest.mark.soak
def test_what_is_said_of_many_bowls_from_starts_of_any_size_is_true():
    for seed in range(11):
        for name, fit in drawn(seed, 20):
            assert_true(name, fit)


@pytest.mark.parametrize("far", [1e4, 1e30])
def test_a_run_from_far_away_that_still_halves_its_loss_has_not_settled(far):
    x = np.linspace(-1, 1, 20)
    y = 2 * x + 1 + 0.1 * np.sin(20 * x)
    fit = jf.fit(
        lambda p, x, y: jnp.mean((p["a"] * x + p["b"] - y) ** 2), {"a": far, "b": far}, (x, y),
        optimizer=jf.optimizers.sgd(0.2), steps=30, precision="float64",
    )  # fmt: skip
    assert jf.explain(fit).kind == "still descending" and "still running" in str(fit)
    assert_in_agreement(fit)


@pytest.mark.soak
@pytest.mark.parametrize("offset", [1.0, 1e6])
def test_a_param_that_arrives_far_from_a_tiny_start_did_not_run_away(offset):
    """Its least is at 3, and the loss at 0.3 is that at 3 but for 7e-6 of itself."""
    fit = jf.fit(lambda p: (p - 3) ** 2 + offset, 1e-12, optimizer=jf.optimizers.lbfgs(), precision="float64")
    assert fit.status == jf.Status.CONVERGED and not runaways(fit)
    np.testing.assert_allclose(fit.params, 3, rtol=1e-7)
    assert jf.explain(fit).kind == "converged"


def test_a_param_that_gradient_descent_takes_far_from_a_tiny_start_did_not_run_away():
    fit = jf.fit(lambda p: (p - 3) ** 2 + 1e6, 1e-12, optimizer=jf.optimizers.sgd(0.1), steps=99, precision="float64")
    assert not runaways(fit) and jf.explain(fit).kind != "runaway params"
    np.testing.assert_allclose(fit.params, 3, rtol=1e-7)


def test_a_param_that_never_mattered_did_not_run_away():
    fit = jf.fit(lambda p: 1e-20 * (p - 3) ** 2, 1e-15, optimizer=jf.optimizers.adam(0.1), steps=20)
    assert fit.params > 1e4 * 1e-15 and not runaways(fit)


def test_an_explanation_tells_of_data_whose_squares_underflow():
    x = np.arange(1.0, 9.0)
    loss = jf.losses.mse(lambda p, x: p["a"] * x)
    method = jf.optimizers.levenberg_marquardt()
    fit = jf.fit(loss, {"a": 0.0}, (x, 2e-30 * x), optimizer=method, precision="float32")
    assert "underflows float32" in str(fit) and "underflows float32" in str(jf.explain(fit))


def peak(p, x):
    return p["h"] * jnp.exp(-0.5 * jnp.square((x - p["m"]) / p["w"]))


FAR_AWAY = {  # peaks that begin where there are no data, and optimizers
    "40 widths away": ({"h": 1.0, "m": 40.0, "w": 1.0}, jf.optimizers.levenberg_marquardt()),
    "upside down": ({"h": -1.0, "m": 30.0, "w": 2.0}, jf.optimizers.sgd(0.01)),
    "400 widths away": ({"h": 1.0, "m": 400.0, "w": 1.0}, jf.optimizers.lbfgs()),
}


@pytest.mark.parametrize("name", soaking(FAR_AWAY, keep=("40 widths away",)))
def test_a_peak_far_from_all_data_is_called_one_thing_and_finds_them_by_the_remedy(name):
    """Its slopes are 1e-192 and the like, of which a Hessian would make a saddle, and a table errors of 1e27."""
    start, optimizer = FAR_AWAY[name]
    y = 3 * np.exp(-0.5 * np.square((X - 4) / 1.2)) + 0.05 * np.random.default_rng(5).normal(size=40)
    fit = jf.fit(jf.losses.rss(peak), start, (X, y), optimizer=optimizer, steps=100, precision="float64")
    found, report = jf.explain(fit), jf.report(fit)
    assert found.kind == "dead units" and found.numbers["dead"] == 3 and "h, m, w change nothing there" in str(fit)
    assert all(row.role == "not determined" and np.isnan([row.error, row.low, row.high]).all() for row in report.rows)
    assert "let it run on" not in str(report) and "leverage" not in str(report)
    assert_in_agreement(fit)
    again = found.retry()
    np.testing.assert_allclose([again.params["h"], again.params["m"]], [3, 4], rtol=0.05)


@pytest.mark.soak
def test_params_of_which_only_a_product_counts_ran_away_and_did_not_settle():
    """A Lorentzian that moves to infinity as its height grows is a constant: no minimum, and no run settles there."""
    x = np.linspace(0, 10, 41)
    noise = np.random.default_rng(0).normal(size=82)[41:]
    y = 3 / (1 + np.square(x - 5)) + 0.05 * noise
    loss = jf.losses.rss(lambda p, x: p["h"] / (1 + jnp.square((x - p["m"]) / p["w"])))
    fit = jf.fit(loss, {"h": 1.0, "m": 45.0, "w": 1.0}, (x, y), optimizer=jf.optimizers.levenberg_marquardt())
    assert fit.status == jf.Status.OUT_OF_STEPS and fit.params["m"] > 1e8 * 45
    assert "m ran away from 45 to" in str(fit) and "the loss standing still: bound them" in str(fit)
    assert jf.explain(fit).kind == "runaway params"
    assert_in_agreement(fit)


@pytest.mark.parametrize("middle", soaking([16.0, 17.0, 23.0], keep=(17.0,)))
def test_a_peak_not_far_enough_to_be_without_any_slope_has_no_errors_all_the_same(middle):
    """Its slopes of 1e-11 would be errors of 1e14; at 23 a step from another start must not be 1e34 long."""
    y = 3 * np.exp(-0.5 * np.square((X - 4) / 1.2)) + 0.05 * np.random.default_rng(5).normal(size=40)
    start, slow = {"h": 1.0, "m": middle, "w": 1.0}, jf.optimizers.sgd(1e-3)
    fit = jf.fit(jf.losses.rss(peak), start, (X, y), optimizer=slow, steps=100)
    assert all(row.role == "not determined" and np.isnan(row.error) for row in jf.report(fit).rows)
    if middle == 23:
        assert jf.explain(fit).retry().params["m"] == pytest.approx(4, rel=0.05)


def test_params_that_change_the_loss_together_alone_are_at_a_saddle_and_not_without_influence():
    """At zero neither w nor v of the product w v has a slope; u, which the loss never sees there, is another matter."""
    sgd = jf.optimizers.sgd(0.1)

    def product(p, dead):
        return jnp.square(p["w"] * p["v"] - 1) + dead * jnp.maximum(p["u"], 0)

    zeros = {"w": 0.0, "v": 0.0, "u": jf.Fixed(0.0)}
    fit = jf.fit(product, zeros, (0.0,), optimizer=sgd, steps=40)
    assert not silent(fit) and "change nothing" not in str(fit)
    found = jf.explain(fit)
    assert found.kind == "saddle" and found.retry().loss == pytest.approx(0, abs=1e-6)
    assert [*silent(jf.fit(product, zeros | {"u": -1.0}, (1.0,), optimizer=sgd, steps=40))] == ["u"]


def test_a_param_below_its_error_is_not_said_to_change_nothing():
    """At the minimum, moved by a hundredth, it changes a loss of a thousand points by less than float32 shows."""
    x = np.linspace(-1, 1, 1000)
    y = 2 + np.random.default_rng(1).normal(size=1000)
    fit = jf.fit(jf.losses.mse(line), {"w": 0.0, "b": 0.0}, (x, y), optimizer=jf.optimizers.sgd(0.4), steps=100)
    assert abs(fit.params["w"]) < 0.1 and not silent(fit) and "change" not in str(fit)
    assert jf.explain(fit).kind == "settled"
