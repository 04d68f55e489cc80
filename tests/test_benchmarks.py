"""The benchmarks at toy size: that peers do the same work, and what is written. No time is asserted anywhere."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.optimize

from benchmarks import gpu, lines, loop, minpack, results, timing
from benchmarks.__main__ import CASES, GROUPS, main, write_readme
from benchmarks.agreement import agree
from benchmarks.results import SPEED, THROUGHPUT, TIME, Row, Target, unmeasured
from benchmarks.timing import Seconds, Spread
from tests.shared.soak import soaking

ABOUT = {"jax": "0.12.0.1", "platform": "cpu", "machine": "2 cores, x86_64, Linux", "python": "3.12.1"}


@pytest.mark.parametrize("name", soaking(CASES, keep=("fit",)))
def test_every_case_runs_and_its_peers_agree(name):
    rows = CASES[name](quick=True)
    assert rows
    for row in rows:
        assert (row.value is None) == bool(row.why)
        assert row.value is None or (np.isfinite(row.value).all() and row.value == Spread(*sorted(row.value)))


def test_the_c_loop_descends_as_numpy_does():
    try:
        built = loop.build()
    except loop.NotBuilt as why:
        pytest.skip(str(why))
    own, (x, y) = lines.own_lanes(9), lines.thermometer()
    found = loop.descend(built, own, (x, y), steps=5)
    w, b, rate = (v.astype(float)[:, None] for v in (*own["params"].values(), own["rates"]["learning_rate"]))
    for _ in range(5):
        residual = w * x[None] + b - y[None]
        w, b = (p - rate * 2 * (residual * r).mean(1, keepdims=True) for p, r in ((w, x[None]), (b, 1)))
    loss = ((w * x[None] + b - y[None]) ** 2).mean(1)
    agree(found, {"params": {"w": w[:, 0], "b": b[:, 0]}, "loss": loss}, what="the C loop")


@pytest.mark.parametrize("theirs", [[1.0, 2.1], [1.0, np.nan], [1.0]])
def test_peers_that_did_other_work_are_not_timed(theirs):
    with pytest.raises(AssertionError, match="results differ"):
        agree({"loss": np.array([1.0, 2.0])}, {"loss": np.array(theirs)}, what="a case")


def test_nan_never_agrees_even_with_nan():
    with pytest.raises(AssertionError):
        agree(np.array([np.nan]), np.array([np.nan]), what="a case")


def test_contestants_take_turns():
    order = []
    timing.race({name: lambda name=name: order.append(name) for name in "AB"}, rounds=2, calls=2)
    assert "".join(order) == "AB" + "ABAB" * 2


def test_a_round_counts_the_quickest_call_and_times_taken_elsewhere():
    taken = iter([9.0, 3.0, 1.0, 2.0, 5.0])
    found = timing.race({"A": lambda: Seconds(next(taken))}, rounds=2, calls=2)
    np.testing.assert_array_equal(found["A"], [1.0, 2.0])


@pytest.mark.parametrize(
    "target, text, met, missed",
    [
        (Target(low=12), "at least 12", 12.0, 11.9),
        (Target(high=1.25), "at most 1.25", 1.25, 1.26),
        (Target(0.85, 1.15), "0.85 to 1.15", 1.0, 1.2),
    ],
)
def test_targets_are_for_the_median(target, text, met, missed):
    assert str(target) == text
    assert target.met(Spread(0.0, met, 1e9)) and not target.met(Spread(0.0, missed, 1e9))


def test_numbers_are_written_with_three_digits():
    written = [results.number(x) for x in (0.01234, 1.2345, 12.345, 123.45, 1234.5, 0.0)]
    assert written == ["0.0123", "1.23", "12.3", "123", "1,234", "0.0"]


def test_the_page_puts_versions_side_by_side(tmp_path):
    fit = Row("a fit", "a scan", TIME, Spread(1.0, 1.1, 1.5), Target(high=1.25))
    sweep = Row("a sweep", "vmap | scan", SPEED, Spread(1.0, 2.0, 3.0), Target(low=12))
    speed = Row("a sweep", "jaxfit", THROUGHPUT, Spread(100.0, 200.0, 300.0))
    missing = unmeasured("a sweep", "C loop", SPEED, "no C compiler")
    results.keep(tmp_path / "results", ABOUT, {"fit": [fit], "descent": [sweep, speed, missing]})
    older = ABOUT | {"jax": "0.10.1", "python": "3.11.9"}
    results.keep(tmp_path / "results", older, {"descent": [sweep._replace(target=Target(low=1))]})
    write_readme(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| case | against | target | jax 0.12.0.1, CPU | jax 0.10.1, CPU | GPU |" in page
    assert "| a fit | a scan | at most 1.25 | **1.1** (1 to 1.5), met | not measured | not measured |" in page
    assert (
        "| a sweep | vmap \\| scan | at least 12 or at least 1 | **2** (1 to 3), **not met** (at least 12) | "
        "**2** (1 to 3), met (at least 1) | not measured |" in page
    )
    assert "| a sweep | jaxfit |  | **200** (100 to 300) | not measured | not measured |" in page
    assert "| a sweep | C loop |  | not measured: no C compiler | not measured | not measured |" in page
    assert "Not measured: adam." in page and "| python | 3.12.1 | 3.11.9 |" in page
    assert [f"## {title}" in page for title in GROUPS] == [True] * len(GROUPS)


def test_a_gpu_gets_a_column_of_its_own(tmp_path):
    row = Row("a fit", "a scan", TIME, Spread(1.0, 1.1, 1.5))
    for platform in ("gpu", "cpu"):
        results.keep(tmp_path, ABOUT | {"platform": platform}, {"fit": [row]})
    assert [column.title for column in results.read(tmp_path)] == ["jax 0.12.0.1, CPU", "jax 0.12.0.1, GPU"]
    assert "not measured |" not in results.render(results.read(tmp_path), {"One fit": ["fit"]}).split("## Machines")[0]


def test_a_run_of_some_cases_keeps_the_others(tmp_path):
    row = Row("a fit", "a scan", TIME, Spread(1.0, 1.1, 1.5))
    path = results.keep(tmp_path, ABOUT, {"fit": [row], "adam": [row]})
    results.keep(tmp_path, ABOUT, {"fit": [row._replace(value=Spread(1.0, 1.0, 1.0))]})
    kept = results.read(tmp_path)[0].cases
    assert kept["adam"] == [row] and kept["fit"][0].value == Spread(1.0, 1.0, 1.0)
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_a_quick_run_writes_nothing(tmp_path, capsys):
    assert main(["progress", "--quick", "--folder", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())
    assert "with a progress bar" in capsys.readouterr().out


def test_the_cases_of_a_gpu_that_exceed_its_time_are_left_out(capsys):
    taken = []
    for name in gpu.in_time(480, lambda: sum(taken)):
        taken.append(gpu.SECONDS[name] if taken else 400)
    assert taken == [400, gpu.SECONDS["gpu-lanes"], gpu.SECONDS["fit"]] and sum(taken) == 480
    assert "gpu-widths is left out: it may take 120 s, and of 480 s 460 are gone" in capsys.readouterr().out
    assert set(gpu.SECONDS) <= set(CASES) and sum(gpu.SECONDS.values()) < 2 * gpu.BUDGET


def test_without_a_gpu_its_cases_are_named_and_nothing_is_written(tmp_path, capsys):
    if jax.default_backend() != "cpu":
        pytest.skip("there is a GPU")
    assert main(["--gpu", "--folder", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir()) and "gpu-fits, gpu-lanes, spots" in capsys.readouterr().out


def test_an_unknown_case_names_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        main(["fitt"])
    assert "there is no case 'fitt'; there are fit, torch" in capsys.readouterr().err


def test_what_is_written_names_no_machine(tmp_path):
    about = results.machine()
    assert set(about) == {"platform", "machine", "load before", "python", "jax", "jaxlib", "optax", "numpy"}
    assert str(Path.home()) not in json.dumps(about)


@pytest.mark.parametrize(
    ("form", "params", "predicted"),
    [
        (minpack.Form(decay=1, level=1), (3.0, 1.2, 0.4), lambda x, a, r, c: a * np.exp(-r * x) + c),
        (minpack.Form(decay=2), (0.8,), lambda x, r: np.exp(-r * x)),
        (
            minpack.Form(peaks=1, level=2),
            (3.0, 2.1, 0.7, 0.3, -0.1),
            lambda x, h, c, s, a, b: h * np.exp(-(((x - c) / s) ** 2) / 2) + a + b * x,
        ),
        (
            minpack.Form(spot=1),
            (3.0, 2.1, 1.7, 0.8, 0.3),
            lambda x, h, a, b, s, c: h * np.exp(-((x[:, 0] - a) ** 2 + (x[:, 1] - b) ** 2) / (2 * s**2)) + c,
        ),
    ],
)
def test_the_loop_over_minpack_finds_what_scipy_finds(form, params, predicted):
    try:
        built = minpack.build()
    except loop.NotBuilt as why:  # no compiler, or not MINPACK in C, which the project does not need
        pytest.skip(str(why))
    random, x, start = np.random.default_rng(0), np.linspace(0, 5, 40), np.array(params) * 1.1
    if form.spot:
        x = np.stack([x % 1 * 5, x], axis=1)
    y = predicted(x, *params) + 0.01 * random.standard_normal((3, 40))
    found = minpack.fit(built, form, x, y, start)
    theirs = [scipy.optimize.curve_fit(predicted, x, own, start) for own in y]
    assert np.isin(found.info, (1, 2, 3)).all()
    np.testing.assert_allclose(found.params, [p for p, _ in theirs], rtol=1e-6)  # both stop at 1.5e-8 of the squares
    np.testing.assert_allclose(found.errors, [np.sqrt(np.diag(c)) for _, c in theirs], rtol=1e-4)
    assert np.float64(5e-324) * 1.0 > 0, "the library has the process flush subnormal numbers"
