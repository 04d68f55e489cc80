"""Pages: what they hold is what was computed, labels stay text, and in a browser they do what they should."""

import json
import re
from html import escape
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import jaxfit as jf
from jaxfit.pages import main
from jaxfit.pages.fits import PROFILES, fit_page
from jaxfit.pages.packing import as_float32, rounded, unpacked
from jaxfit.pages.sweeps import law_of, sweep_page
from jaxfit.problems import Status
from tests.shared.browser import BROWSER, DRIVER, MISSING, browser
from tests.shared.soak import soaking

SCRIPT = Path(jf.__file__).parent / "pages" / "explorer.js"
HOSTILE = "</script><img src=x onerror='window.harmed=1'>\"&<!--"
STEEP = 10.0


def bowl(p):
    return 0.5 * (p["a"] ** 2 + STEEP * p["b"] ** 2)


@pytest.fixture(scope="module")
def grid():
    rate, b = jf.Axis("learning_rate", np.geomspace(1e-3, 10, 16)), jf.Axis("momentum", [0.0, 0.5, 0.9])
    start = {"a": jf.Axis("a", np.linspace(-3, 3, 5)), "b": 1.0}
    return jf.sweep(
        bowl, start, optimizer=jf.optimizers.momentum(rate, b), steps=100, record=jf.Record(10, ("loss",)),
        stop=jf.Stop(loss_below=1e-6), progress=False,
    )  # fmt: skip


def made(axes, *, records=0, seed=0, **more):
    """Results as of a sweep, of random numbers, without one."""
    random, dims = np.random.default_rng(seed), tuple(axes)
    shape = tuple(len(values) for values in axes.values())
    status = random.choice([1, 1, 2, 3, 4], shape).astype(np.int8)
    loss = np.where(status == 3, np.inf, np.where(status == 4, np.nan, random.lognormal(size=shape)))
    found = {"loss": (dims, loss.astype(np.float32)), "status": (dims, status),
             "steps": (dims, random.integers(0, 100, shape, np.int32)), **more}  # fmt: skip
    coords = dict(axes)
    if records:
        found["history.loss"] = (*dims, "step"), random.lognormal(size=(*shape, records)).astype(np.float32)
        coords["step"] = np.arange(records)
    return xr.Dataset(found, coords)


def test_a_page_holds_the_numbers_of_the_grid(grid):
    header, columns = unpacked(sweep_page(grid.results))
    r = grid.results
    assert [axis["name"] for axis in header["axes"]] == list(r.status.dims)
    for axis in header["axes"]:
        np.testing.assert_array_equal(axis["values"], r[axis["name"]].values)
    lanes = {"status": r.status, "steps": r.steps, "lane loss": r.loss, "lane final a": r["params.a"]}
    for name, values in lanes.items():
        np.testing.assert_array_equal(columns[name], np.ravel(values.values), err_msg=name)
    np.testing.assert_allclose(columns["curve history.loss"], np.ravel(r["history.loss"].values), rtol=2.0**-13)
    assert header["records"] == r.step.values.tolist() and header["notes"] == []
    assert {s: n for s, n in header["counts"].items() if n} == {
        str(s): int(n) for s, n in zip(*np.unique(r.status, return_counts=True), strict=True)
    }


@pytest.mark.parametrize("values", [
    [0.0, -0.0, 1e-300, -1e-300, 1e300, -1e300, np.inf, -np.inf, np.nan, 1.5], np.arange(5), [True, False],
])  # fmt: skip
def test_single_precision_keeps_what_is_finite_and_what_is_not_zero(values):
    found, values = as_float32(values), np.asarray(values, float)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(values))
    np.testing.assert_array_equal(np.sign(found), np.sign(values))
    middle = (np.abs(values) > 1e-37) & (np.abs(values) < 1e38)
    np.testing.assert_allclose(found[middle], values[middle], rtol=2.0**-24)


@pytest.mark.parametrize("bits", [10, 12, 23])
def test_rounding_keeps_as_many_bits_as_it_says(bits):
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 10.0 ** np.arange(-30, 30, 0.06)
    values = np.append(values.astype(np.float32), [np.inf, -np.inf, np.nan, 0, np.finfo(np.float32).max])
    values = values.astype(np.float32)
    found = rounded(values, bits)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(values))
    fine = np.isfinite(values)
    np.testing.assert_allclose(found[fine], values[fine], rtol=2.0 ** -(bits + 1) if bits < 23 else 0)


def test_labels_are_never_markup():
    page = sweep_page(made({HOSTILE: [HOSTILE, "b"]}), title=HOSTILE)
    assert page.count("</script>") == 2 and "<img" not in page and HOSTILE not in page
    header, _ = unpacked(page)
    assert header["title"] == HOSTILE and header["axes"][0]["words"] == [HOSTILE, "b"]


def test_a_page_asks_for_nothing_and_its_script_is_small(grid):
    page, script = sweep_page(grid.results), SCRIPT.read_bytes()
    assert len(script) <= 30_000
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
    assert set(re.findall(r"https?:[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", script)


@pytest.mark.parametrize("records", soaking([0, 41], keep=1))
def test_two_hundred_thousand_lanes_of_noise_fit_in_three_megabytes(records):
    axes = {"x": np.linspace(0, 1, 400), "y": np.geomspace(1e-3, 1, 250 if records else 500)}
    noise = np.random.default_rng(1).normal(size=tuple(map(len, axes.values())))
    results = made(axes, records=records, **{"params.w": (tuple(axes), noise)})
    page = sweep_page(results)
    header, columns = unpacked(page)
    assert len(page) <= 3_000_000
    assert len(columns["status"]) == results.status.size, header["notes"]
    assert (not records) == (header["notes"] == [])
    np.testing.assert_allclose(columns["lane w"], noise.ravel(), rtol=2.0**-11)


def test_a_coarsened_page_holds_the_best_lane_and_says_what_it_leaves_out():
    axes = {"x": np.arange(1500), "y": np.arange(1000)}  # 1.5 million lanes
    results = made(
        axes, **{f"params.{name}": (("x", "y"), np.random.default_rng(3).random((1500, 1000))) for name in "ab"}
    )
    best = results.loss.where(results.status == 1).argmin(...)
    page = sweep_page(results)
    header, columns = unpacked(page)
    assert len(page) <= 3_000_000 and len(columns["status"]) < results.status.size
    assert all(int(i) in axis["values"] for i, axis in zip(best.values(), header["axes"], strict=True))
    assert [axis["values"][i] for axis in header["axes"] for i in (0, -1)] == [0, 1499, 0, 999]
    assert "of 1,500,000 lanes" in header["notes"][0] and sum(header["counts"].values()) == 1_500_000
    ix = np.ix_(*(axis["values"] for axis in header["axes"]))
    np.testing.assert_array_equal(columns["status"], results.status.values[ix].ravel())


KINDS = {
    "words": ["a", "b c", "ü"], "flags": [True, False], "unsorted": [3.0, 1.0, 2.0], "infinite": [1.0, 2.0, np.inf],
    "integers": [8, 16, 32], "single": np.float32([0.1, 0.2, 0.3]), "one": [5.0], "close": [1.0, 1.0 + 1e-9, 2.0],
    "zero": [0.0, 1e-8, 1.0], "thirds": [1 / 3, 2 / 3, 1.0],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_every_value_of_an_axis_finds_its_lane(kind):
    from jaxfit.problems.dimensions import position

    values = np.asarray(KINDS[kind])
    (axis,) = unpacked(sweep_page(made({"x": values})))[0]["axes"]
    for i, code in enumerate(axis["code"]):
        assert position("lane", "x", values, eval(code)) == i, code


def test_a_param_whose_start_is_an_axis_is_told_from_it_and_its_record_is_not_told_twice():
    start, record = {"x": jf.Axis("x", [-1.0, 1.0])}, jf.Record(what=("loss", "params"))
    grid = jf.sweep(lambda p: p["x"] ** 2, start, optimizer=jf.optimizers.sgd(0.25), steps=1, record=record)
    header, columns = unpacked(sweep_page(grid.results))
    assert header["measures"] == ["loss", "final x"] and header["curves"] == ["history.loss", "history.params.x"]
    np.testing.assert_array_equal(columns["lane final x"], np.float32([-0.5, 0.5]))


def test_records_params_in_parts_and_other_variables_are_numbers_of_a_lane():
    axes, dims = {"x": [1.0, 2.0]}, ("x",)
    more = {"params.w": ((*dims, "params.w_dim_0"), [[1.0, 2.0], [3.0, np.nan]]),
            "params.large": ((*dims, "k"), np.zeros((2, 50))), "validation_loss": (dims, [0.5, 0.25]),
            "history.norm": ((*dims, "step"), [[9.0, 8.0, np.nan], [7.0, 6.0, 5.0]])}  # fmt: skip
    results = made(axes, records=3, **more)
    results["steps"].values[:] = [1, 2]
    header, columns = unpacked(sweep_page(results))
    assert header["measures"] == ["loss", "w[0]", "w[1]", "validation_loss", "last norm"]
    np.testing.assert_array_equal(columns["lane w[1]"], np.float32([2.0, np.nan]))
    np.testing.assert_array_equal(columns["lane last norm"], np.float32([8.0, 5.0]))
    assert "params.large" in header["notes"][0]


def test_the_law_of_heavy_ball_is_drawn_for_every_momentum(grid):
    law = law_of(grid)
    dims = grid.results.status.dims
    limit = xr.DataArray(law.limit, dims=dims).isel(a=0, learning_rate=0)
    np.testing.assert_allclose(limit, 2 * (1 + grid.results.momentum) / STEEP, rtol=1e-5)
    assert law.axis == "learning_rate" and law.words == "law: heavy ball: 2 (1 + b) / sharpness, at the best lane"


def test_where_no_law_is_known_none_is_drawn():
    rate = jf.Axis("learning_rate", [0.1, 0.2])
    for optimizer, data in ((jf.optimizers.adam(rate), ()), (jf.optimizers.sgd(rate), (jf.Axis("x", [1.0, 2.0]),))):
        swept = jf.sweep(lambda p, *x: p**2 * sum(x, 1.0), 1.0, data, optimizer=optimizer, steps=5, progress=False)
        assert law_of(swept) is None


def test_explore_writes_the_page_of_a_sweep_under_way(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, rate = tmp_path / "rates", jf.Axis("rate", np.linspace(0.1, 0.9, 40))
    optimizer = jf.Axis("kind", [jf.optimizers.sgd(rate), jf.optimizers.adam(rate)], labels=["sgd", "adam"])
    jf.sweep(lambda p: p**2, 3.0, optimizer=optimizer, steps=20, store=store, progress=False)
    next((store / "blocks").glob("1-*.safetensors")).unlink()  # that of Adam has not run
    assert main([str(store)]) == 0 and capsys.readouterr().out.split() == ["rates.html"]
    header, columns = unpacked((tmp_path / "rates.html").read_text("utf-8"))
    shape = [len(axis.get("values") or axis["words"]) for axis in header["axes"]]
    status = columns["status"].reshape(shape)
    kind = [axis["name"] for axis in header["axes"]].index("kind")
    assert (np.take(status, 0, kind) != Status.NOT_RUN).all() and (np.take(status, 1, kind) == Status.NOT_RUN).all()
    assert header["counts"]["0"] == 40 and header["title"] == "rates"
    assert main([str(store), "--title", "Two kinds"]) == 0 and capsys.readouterr().out.split() == ["rates.html"]
    assert unpacked((tmp_path / "rates.html").read_text("utf-8"))[0]["title"] == "Two kinds"
    assert main([str(tmp_path / "nothing")]) == 1 and "does not exist" in capsys.readouterr().err


def test_a_page_is_titled_by_its_file_or_as_asked(tmp_path, grid):
    fit = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=3)
    for result in (grid, fit):
        for title, above in ((None, "bowl"), ("A & <b>", "A & <b>")):
            page = result.to_html(tmp_path / "bowl.html", title).read_text("utf-8")
            assert unpacked(page)[0]["title"] == above
            assert re.search("<title>(.*)</title>", page)[1] == escape(above)
        with pytest.raises(TypeError, match="title is 3, but it must be a string"):
            result.to_html(tmp_path / "bowl.html", title=3)


def a_fit(**how):
    x = np.linspace(0, 10, 21)
    y = 5 * np.exp(-0.5 * ((x - 4) / 1.3) ** 2) + 0.2 * np.cos(20 * x)
    return jf.curve_fit(jf.models.gaussian, None, (x, y), **how)


def blocks_of(page):
    header, columns = unpacked(page)
    titles, found = None, {}
    for block in header["blocks"]:
        titles = block.get("title", titles)
        found.setdefault(titles, []).append(block)
    return found, columns


@pytest.fixture(scope="module")
def run():
    return a_fit(sigma=np.full(21, 0.2), absolute_sigma=True)


@pytest.fixture(scope="module")
def page_of_run(run, tmp_path_factory):
    return run.to_html(tmp_path_factory.mktemp("pages") / "fit.html")


def test_the_page_of_a_fit_holds_data_band_residuals_report_and_history(run, page_of_run):
    found, columns = blocks_of(page_of_run.read_text("utf-8"))
    curve, points = found["Data and curve"][1]["series"]
    x, y = run.problem.data[:2]
    np.testing.assert_allclose(columns[points["x"]], x, rtol=1e-6)
    np.testing.assert_allclose(columns[points["y"]], y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(columns[points["bars"]], 0.2, rtol=1e-6)
    expected = jf.band(run, columns[curve["x"]].astype(float))
    for name, value in {"y": expected.value, "low": expected.low, "high": expected.high}.items():
        np.testing.assert_allclose(columns[curve[name]], value, rtol=1e-4, atol=1e-5, err_msg=name)
    (left,) = found["Residuals over their standard deviation"][1]["series"]
    np.testing.assert_allclose(columns[left["y"]], jf.residuals(run).standardized, rtol=1e-5)
    report = jf.report(run)
    assert found["Params"][1]["rows"] == report.table()[1]
    assert dict(found["Params"][2]["copies"])["Copy as LaTeX"] == report.to_latex()
    assert found["Correlations"][1]["rows"][1][1:3] == [f"{r:+.3f}" for r in report.correlations[1, :2]]
    drawn, profiles = found[PROFILES][1:], jf.profile(run)
    assert [block["xlabel"] for block in drawn] == [row.name for row in report.rows]
    for block, row in zip(drawn, report.rows, strict=True):
        parabola, curve, level = block["series"]
        at = columns[curve["x"]].astype(float)
        known = profiles[row.name]
        expected = np.interp(known.values, at, columns[curve["y"]])
        shown = known.tau**2 < 8
        np.testing.assert_allclose(expected[shown], known.tau[shown] ** 2, atol=0.02)
        kept = columns[parabola["y"]] < 8
        np.testing.assert_allclose(columns[parabola["y"]][kept], (((at - row.value) / row.error) ** 2)[kept], atol=1e-3)
        np.testing.assert_allclose(columns[level["y"]], 1.96**2, rtol=1e-6)
    (loss,) = found["History of the loss"][1]["series"]
    np.testing.assert_allclose(columns[loss["y"]], run.history.loss, rtol=1e-6)


def test_the_csv_of_a_report_holds_its_numbers_in_full(run):
    import csv

    report = jf.report(run)
    rows = list(csv.DictReader(report.to_csv().splitlines()))
    expected = [*report.rows, *report.derived]  # whose starts are empty
    assert [row["name"] for row in rows] == [row.name for row in expected]
    for row, told in zip(expected, rows, strict=True):
        found = [float(told[name] or "nan") for name in ("value", "error", "low", "high", "start")]
        np.testing.assert_array_equal(found, row[1:6])


def test_a_fit_of_which_little_is_known_has_a_page_and_many_runs_have_none():
    plain = jf.fit(lambda p: (p["a"] ** 2).sum(), {"a": np.arange(3.0)}, optimizer=jf.optimizers.sgd(0.1), steps=5)
    found, _ = blocks_of(fit_page(plain))
    assert found["Params"][1]["rows"][2] == ["a[2]", f"{plain.params['a'][2]:.6g}"]
    assert "No errors are given" in found["Params"][2]["text"]
    diverged = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(3.0), steps=100)
    assert "diverged" in blocks_of(fit_page(diverged))[0][None][0]["text"]
    one = lambda p: jf.fit(lambda p: p**2, p, optimizer=jf.optimizers.sgd(0.1), steps=5)  # noqa: E731
    many = jax.jit(jax.vmap(one))(np.arange(2.0))
    with pytest.raises(ValueError, match="holds 2 runs"):
        fit_page(many)
    one = jax.tree.map(lambda x: x[0], many)
    assert "Params" in blocks_of(fit_page(one))[0]


def test_notebooks_show_results_as_small_html_with_labels_as_text(grid):
    start = jf.starts({"x": jf.Bounded(0.0, low=-2.0, high=2.0)}, count=4, key=0)
    sweep = jf.sweep(lambda p: (p["x"] ** 2 - 1) ** 2, start, optimizer=jf.optimizers.sgd(0.05), steps=50)
    run = jf.fit(lambda p: p[HOSTILE] ** 2, {HOSTILE: 3.0}, optimizer=jf.optimizers.sgd(0.1), steps=5)
    results = {
        "240 lanes": grid, f"{float(run.loss):.8g}": run, "starts": jf.optima(sweep), "try": jf.explain(run),
        "multiply": jf.backprop(lambda p: 2 * p[HOSTILE], {HOSTILE: 3.0}),
    }  # fmt: skip
    for words, result in results.items():
        shown = result._repr_html_()
        assert words in shown and "<script" not in shown and "<img" not in shown, (words, shown)
        assert len(shown) < 20_000
        tags = re.findall(r"<(/?)(\w+)[^>]*(?<!/)>", shown)
        assert sum(not end for end, _ in tags) == sum(bool(end) for end, _ in tags), "tags that are not closed"
    assert jf.best(grid).coords["momentum"] == float(re.search(r"momentum=([\d.]+)", grid._repr_html_())[1])


# In a browser


@pytest.fixture(scope="module")
def session():
    if not (BROWSER and DRIVER):
        pytest.skip(MISSING)
    with browser() as found:
        yield found


@pytest.fixture
def shown(session, grid, tmp_path):
    session.resize(1280, 900)
    session.open(grid.to_html(tmp_path / "bowl.html"))
    yield session
    assert session.log() == []
    assert session.run("return performance.getEntriesByType('resource').length") == 0


def call(session, card="#lane"):
    return session.run("return document.querySelector(arguments[0] + ' code').textContent", card)


def lane_of(session, grid, card="#lane"):
    return eval(call(session, card), {"jf": jf, "grid": grid})


def test_a_page_shows_the_best_lane_and_arrows_move_it(shown, grid):
    best = jf.best(grid).coords
    assert lane_of(shown, grid).coords == best
    shown.run("document.querySelector('canvas.map').focus()")
    x, y = ("learning_rate", "a") if best["learning_rate"] < 5 else (None, None)
    values = {name: grid.results[name].values.tolist() for name in (x, y)}
    shown.press("ArrowRight", "ArrowRight", "ArrowLeft")
    right = values[x][min(values[x].index(best[x]) + 1, 15)]
    assert lane_of(shown, grid).coords == best | {x: right}
    shown.press(*["ArrowDown"] * 9)
    assert lane_of(shown, grid).coords == best | {x: right, y: -3.0}


def test_enter_pins_a_lane_and_escape_unpins_it(shown, grid):
    shown.run("document.querySelector('canvas.map').focus()")
    count = "return document.querySelectorAll('#pins > .card').length"
    first = call(shown)
    shown.press("Enter", "ArrowRight", "Enter", "Enter")
    assert shown.run(count) == 2
    assert [call(shown, f"#pins > :nth-child({n})") for n in (1, 2)] == [first, call(shown)]
    shown.press("Escape")
    assert shown.run(count) == 1 and call(shown, "#pins > .card") == first
    shown.press("Escape")
    assert shown.run(count) == 0


def test_the_pointer_shows_the_lane_below_it_and_a_click_pins_it(shown, grid):
    width = shown.run("return document.querySelector('canvas.map').clientWidth")
    for i, j in ((0, 0), (15, 4), (7, 2)):
        across, up = (66 + (i + 0.5) * (width - 78) / 16) / width, 1 - (46 + (j + 0.5) * (460 - 56) / 5) / 460
        shown.point("canvas.map", across, up, click=(i == 7))
        coords = lane_of(shown, grid).coords
        assert (coords["learning_rate"], coords["a"]) == (grid.results.learning_rate[i], grid.results.a[j])
    assert call(shown, "#pins > .card") == call(shown)


def test_a_slider_moves_along_an_axis_that_is_not_drawn(shown, grid):
    before = lane_of(shown, grid).coords
    shown.run("""const slider = document.querySelector('input[type=range]'); slider.value = 0;
                 slider.dispatchEvent(new Event('input'));
                 return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))""")
    assert lane_of(shown, grid).coords == before | {"momentum": 0.0}


def test_a_brush_keeps_the_lanes_in_its_part_of_an_axis(shown, grid):
    shown.run("document.querySelector('#parallel').scrollIntoView({block: 'center'})")
    width = shown.run("return document.querySelector('#parallel').clientWidth")
    dims = list(grid.results.status.dims)
    stands = len(dims) + 4  # loss, steps, a, b
    across = (46 + dims.index("learning_rate") * (width - 92) / (stands - 1)) / width
    high, low = (40 - 10) / 300, (40 + 234 * 0.5) / 300  # from above the axis to its middle: the upper 8 of 16 rates
    shown.point("#parallel", across, low, drag=(across, high))
    text = shown.run("return document.querySelector('#kept').textContent")
    assert text == f"{grid.results.status.size // 2} of {grid.results.status.size} lanes"
    shown.run("document.querySelector('#clear').click()")
    assert "Drag" in shown.run("return document.querySelector('#kept').textContent")


def test_numbers_of_a_lane_are_those_of_the_grid(shown, grid):
    told = shown.run("""return [...document.querySelectorAll('#lane dt')].map((e) =>
                        [e.textContent, e.nextSibling.textContent])""")
    fit, told = lane_of(shown, grid), dict(told)
    assert told["status"] == "converged" and told["steps"] == str(fit.steps)
    mantissa, _, power = told["loss"].partition("×10")
    power = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    assert float(mantissa) * 10.0**power == pytest.approx(float(fit.loss), rel=1e-5)


def test_every_choice_of_axes_and_colors_draws_without_an_error(shown):
    shown.run("""for (const id of ['by', 'x', 'y']) {
                   const options = [...document.querySelector('#' + id).options].map((o) => o.value);
                   for (const value of options) {
                     const select = document.querySelector('#' + id);
                     select.value = value;
                     select.dispatchEvent(new Event('change'));
                   }
                 }""")
    assert json.loads(shown.run("return JSON.stringify(document.querySelector('#x').value)")) is not None


ODD = {
    "one axis": {"rate": np.geomspace(1e-3, 1, 30)},
    "words and flags": {"kind": ["sgd", "adam", "nesterov"], "nesterov?": [True, False]},
    "unsorted and infinite": {"scale": [1.0, np.inf, 0.1, 5.0, 2.0], "lambda": [3, 1, 2]},
    "five axes": {name: np.arange(3) for name in "abcde"},
    "hostile": {HOSTILE: [HOSTILE, "b"], "y": [1.0, 2.0]},
    "one lane": {"x": [1.0]},
}


@pytest.mark.parametrize("records", soaking([0, 3], keep=(3,)))
def test_sweeps_of_every_kind_are_shown(session, tmp_path, records):
    for name, axes in ODD.items():
        path = tmp_path / "odd.html"
        path.write_text(sweep_page(made(axes, records=records), title=HOSTILE), "utf-8")
        for width in (1280, 390):
            session.resize(width, 844)
            session.open(path)
            assert session.log() == [], name
            assert session.run("return document.documentElement.scrollWidth") <= width, name
        told = session.run("return [document.querySelector('h1').textContent, window.harmed, document.images.length]")
        assert told == [HOSTILE, None, 0]
        code = call(session).removeprefix("jf.lane(grid, ").removesuffix(")")
        assert set(eval(f"dict({code})")) == set(axes)


def test_a_sweep_in_which_nothing_ran_or_all_failed_is_shown(session, tmp_path):
    for status, value in ((0, np.nan), (3, np.inf), (4, np.nan)):
        results = made({"x": [1.0, 2.0], "y": [1.0, 2.0]}, records=2)
        results["status"].values[:], results["loss"].values[:] = status, value
        results["history.loss"].values[:] = value
        path = tmp_path / "failed.html"
        path.write_text(sweep_page(results), "utf-8")
        session.open(path)
        assert session.log() == []
        assert "No lane ended well" in session.run("return document.body.innerText")


def test_colors_follow_the_preferred_scheme(session, tmp_path, grid):
    path, seen = grid.to_html(tmp_path / "bowl.html"), []
    for dark in (False, True):
        session.resize(1280, 900, dark)
        session.open(path)
        seen.append(session.run("return getComputedStyle(document.body).backgroundColor"))
    assert seen == ["rgb(255, 255, 255)", "rgb(25, 25, 25)"]
    session.resize(1280, 900)


def test_the_page_of_a_fit_is_drawn_on_every_width(session, tmp_path, page_of_run):
    plain = jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(3.0), steps=100).to_html(tmp_path / "plain.html")
    for path, charts, words in ((page_of_run, 6, ["height", "Correlations", "Goodness"]), (plain, 1, ["diverged"])):
        for width in (1280, 390):
            session.resize(width, 844)
            session.open(path)
            assert session.log() == []
            assert session.run("return document.documentElement.scrollWidth") <= width
            assert session.run("return document.querySelectorAll('svg').length") == charts
            text = session.run("return document.body.innerText")
            assert all(word in text for word in words)
            assert "NaN" not in session.run("return document.querySelector('svg').outerHTML")


@pytest.mark.soak
def test_two_hundred_thousand_lanes_are_there_within_two_seconds(session, tmp_path):
    axes = {"x": np.linspace(0, 1, 400), "y": np.geomspace(1e-3, 1, 500)}
    path = tmp_path / "large.html"
    path.write_text(
        sweep_page(made(axes, **{"params.w": (tuple(axes), np.random.default_rng(3).random((400, 500)))})), "utf-8"
    )
    session.open(path)
    assert session.run("return performance.now()") < 2000
