"""Pictures: labels lie inside the axes, apart from each other, on what they name; the user's settings stay."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from PIL import Image

from jaxfit import plots
from jaxfit.problems import Status
from tests.shared.soak import soaking

CONVERGED, OUT_OF_STEPS, DIVERGED, NOT_FINITE = 1, 2, 3, 4


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()
    yield
    matplotlib.pyplot.close("all")


def grid(status, *, x=None, y=None, steps=None):
    """Results of a sweep with these outcomes over `rate` (to the right) and `start` (upwards)."""
    status = np.asarray(status)
    rows, columns = status.shape
    steps = np.full(status.shape, 100) if steps is None else steps
    coordinates = {
        "start": np.linspace(-1, 1, rows) if y is None else y,
        "rate": np.geomspace(1e-4, 1, columns) if x is None else x,
    }
    dims = ("start", "rate")
    return xr.Dataset({"status": (dims, status), "steps": (dims, steps)}, coords=coordinates)


def window(text):
    return text.get_window_extent()


def boxes(ax):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts if text.get_text()]


def assert_labels_are_apart_and_inside(ax):
    found, frame = boxes(ax), ax.get_window_extent()
    for box in found:
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1 and frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)


def half_planes(n=64):
    """Converged below a slanted edge, out of steps left of it, diverged right."""
    row, column = np.indices((n, n))
    return np.where(column > 0.75 * n, DIVERGED, np.where(column + 0.2 * row < 0.4 * n, OUT_OF_STEPS, CONVERGED))


def island(n=64):
    row, column = np.indices((n, n))
    return np.where(np.hypot(row - 20, column - 40) < 18, DIVERGED, OUT_OF_STEPS)


def bands(n=64):
    row, _ = np.indices((n, n))
    return np.where(row < n // 3, OUT_OF_STEPS, np.where(row < n // 2, NOT_FINITE, DIVERGED))


def corner(n=64):
    row, column = np.indices((n, n))
    return np.where((row > 50) | (column > 50), DIVERGED, CONVERGED)


@pytest.mark.parametrize("layout", soaking([half_planes, island, bands, corner], keep=(half_planes, bands)))
def test_each_region_of_a_map_is_labeled_inside_itself(layout):
    status = layout()
    ax = plots.convergence_map(grid(status), x="rate", y="start", law=0.03)
    assert_labels_are_apart_and_inside(ax)
    words = {DIVERGED: "diverges", OUT_OF_STEPS: "not converged\nafter 100 steps", NOT_FINITE: "not a number"}
    labels = {text.get_text(): box for text, box in zip(ax.texts, boxes(ax), strict=True)}
    for outcome in set(np.unique(status)) & set(words):
        box = labels[words[outcome]]
        corners = np.array([[box.x0, box.y0], [box.x0, box.y1], [box.x1, box.y0], [box.x1, box.y1]])
        rate, start = ax.transData.inverted().transform(corners).T
        results = grid(status)
        column = np.abs(np.log(results.rate.values)[:, None] - np.log(rate)).argmin(0)
        row = np.abs(results.start.values[:, None] - start).argmin(0)
        assert (status[row, column] == outcome).all()
    assert any("0.03" in label for label in labels)


def test_a_region_too_small_for_its_label_gets_none():
    status = np.full((64, 64), CONVERGED)
    status[:3, :3] = DIVERGED
    ax = plots.convergence_map(grid(status), x="rate", y="start")
    assert not ax.texts


@pytest.mark.parametrize("outcome", soaking([CONVERGED, OUT_OF_STEPS, DIVERGED, NOT_FINITE, 5, 0], keep=(CONVERGED, 0)))
def test_a_map_of_one_outcome_can_be_drawn(outcome):
    ax = plots.convergence_map(grid(np.full((8, 8), outcome)), x="rate", y="start")
    assert_labels_are_apart_and_inside(ax)


def test_the_law_follows_its_rows_when_a_coordinate_descends():
    law, y = np.geomspace(1e-3, 1e-1, 32), np.linspace(1, -1, 32)
    ax = plots.convergence_map(grid(half_planes(32), y=y), x="rate", y="start", law=law, law_label="law")
    drawn = ax.lines[-1]
    np.testing.assert_allclose(drawn.get_xdata()[1:-1], law[::-1])
    np.testing.assert_allclose(drawn.get_ydata()[1:-1], y[::-1])


def test_the_axis_of_a_geometric_coordinate_is_logarithmic_and_of_another_not():
    ax = plots.convergence_map(grid(half_planes()), x="rate", y="start")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    ax = plots.convergence_map(grid(half_planes(), x=np.linspace(1, 2, 64)), x="rate", y="start")
    assert ax.get_xscale() == "linear"


def test_a_map_says_which_dimensions_it_cannot_show():
    results = grid(half_planes()).expand_dims(seed=2)
    with pytest.raises(ValueError, match="seed.*results.sel"):
        plots.convergence_map(results, x="rate", y="start")


def test_speed_is_colored_and_every_other_outcome_has_its_own_color():
    status = half_planes()
    steps = np.where(status == CONVERGED, np.geomspace(10, 1000, 64)[None].repeat(64, 0), 1000).astype(int)
    ax = plots.convergence_map(grid(status, steps=steps), x="rate", y="start")
    colors = ax.collections[0].get_array().reshape(64, 64, 3)
    assert len(np.unique(colors[status == DIVERGED], axis=0)) == 1
    assert len(np.unique(colors[status == OUT_OF_STEPS], axis=0)) == 1
    assert len(np.unique(colors[status == CONVERGED], axis=0)) > 10


def descents():
    k = np.arange(2001)
    return {
        "slow": 100 * 0.999**k + 1,
        "fast": 100 * 0.9**k + 1,
        "run-off": np.where(k[:120] < 90, 100 * 2.0 ** k[:120], np.inf),
    }


def test_a_loss_that_leaves_what_float64_holds_is_drawn_up_to_there():
    """Steps of gradient descent on p**2 with the rate 1.5 multiply the loss by 4, from 9 to infinity in 510 of them."""
    losses = 9.0 * np.append(4.0 ** np.arange(510), np.inf)
    ax = plots.loss_history({"too fast": losses})
    low, high = ax.get_ylim()
    assert 0 < low < 9 and losses[500] < high < np.inf
    assert len(ax.get_yticks()) <= 5 and "too fast" in {text.get_text() for text in ax.texts}


def test_every_curve_of_a_loss_history_is_labeled_in_its_color():
    ax = plots.loss_history(descents())
    assert_labels_are_apart_and_inside(ax)
    assert [text.get_text() for text in ax.texts if text.get_text()] == list(descents())
    colors = {text.get_text(): text.get_color() for text in ax.texts}
    assert [colors[label] for label in descents()] == [line.get_color() for line in ax.lines]


def test_labels_do_not_lie_on_curves():
    ax = plots.loss_history(descents())
    for line in ax.lines:
        pixels = ax.transData.transform(np.stack([line.get_xdata(), line.get_ydata()], 1))
        pixels = pixels[np.isfinite(pixels).all(1)]
        assert not any(box.contains(*pixel) for box in boxes(ax) for pixel in pixels)


def test_a_loss_that_becomes_infinite_leaves_through_the_top():
    ax = plots.loss_history({"run-off": [1.0, 1e3, 1e6, np.inf]})
    arrow = next(text for text in ax.texts if text.get_text() == "")
    assert arrow.xy == (3, ax.get_ylim()[1])


def test_labels_do_not_lie_on_the_way_out():
    ax = plots.loss_history({"run-off": [5.0, np.inf], "slow": 5 * 0.99 ** np.arange(2000)})
    label = next(box for text, box in zip(ax.texts, map(window, ax.texts), strict=True) if text.get_text() == "run-off")
    way = ax.transData.transform([(0, 5.0), (1, ax.get_ylim()[1])])
    assert not any(label.contains(*point) for point in np.linspace(*way, 50))


@pytest.mark.parametrize(
    "losses",
    soaking(
        [[3.0], [1.0, 1.0, 1.0], [np.inf], [np.nan, 1.0], [0.0, 0.0], [1.0, 0.0], [2.0, -3.0]],
        keep=([3.0], [np.inf], [np.nan, 1.0], [2.0, -3.0]),
    ),
)
def test_a_short_or_strange_history_can_be_drawn(losses):
    assert_labels_are_apart_and_inside(plots.loss_history({"run": losses}))


def test_the_lines_of_a_fit_are_labeled():
    x = np.linspace(0, 10, 30)
    ax = plots.line_fit(x, 2 * x + np.sin(x), {"fit": (2.0, 0.3), "truth": (1.5, 0.0)})
    assert_labels_are_apart_and_inside(ax)
    assert {text.get_text() for text in ax.texts} == {"fit", "truth"}


@pytest.mark.parametrize("factor", soaking([0.5, -0.4, -1.15], keep=(0.5, -1.15)))
def test_the_points_of_a_descent_are_numbered(factor):
    path, curve = 1 - factor ** np.arange(6), np.linspace(-2, 4, 100)
    ax = plots.descent_1d(path, (path - 1) ** 2, (curve, (curve - 1) ** 2))
    assert_labels_are_apart_and_inside(ax)
    numbers = [text.get_text().split("\N{EN DASH}") for text in ax.texts]
    assert numbers[0][0] == "0" and numbers[-1][-1] == "5"


# The house


def every_picture(ax=None):
    path, curve = 0.5 ** np.arange(4), np.linspace(-1, 1, 30)
    options = {} if ax is None else {"ax": ax}
    yield plots.convergence_map(grid(half_planes()), x="rate", y="start", law=0.05, **options)
    yield plots.loss_history(descents(), **options)
    yield plots.line_fit([0.0, 1.0, 2.0], [0.0, 1.1, 1.9], {"fit": (1.0, 0.0)}, **options)
    yield plots.descent_1d(path, path**2, (curve, curve**2), **options)


def test_a_picture_is_drawn_on_the_axes_it_is_given():
    _, ax = matplotlib.pyplot.subplots()
    for picture in every_picture(ax):
        assert picture is ax


@pytest.mark.soak
def test_a_picture_makes_axes_of_its_own_if_it_is_given_none():
    axes = list(every_picture())
    assert len({id(ax.figure) for ax in axes}) == len(axes)


def test_the_settings_of_the_user_stay_as_they_are():
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        for ax in every_picture():
            assert plots.png(ax)[:4] == b"\x89PNG"
            assert ax.get_facecolor() != (1, 0, 0, 1)
        assert dict(matplotlib.rcParams) == before


@pytest.mark.soak
def test_a_picture_is_the_same_bytes_in_every_run():
    first, second = [plots.png(ax) for ax in every_picture()], [plots.png(ax.figure) for ax in every_picture()]
    assert first == second
    assert all(len(picture) < plots.LARGEST for picture in first)


def test_a_picture_of_noise_is_refused_for_its_size():
    figure, axes = plots.panels("A", size=(5, 5))
    axes["A"].imshow(np.random.default_rng(0).random((600, 600, 3)), interpolation="none")
    with pytest.raises(ValueError, match="more than 200,000"):
        plots.png(figure)


def test_ticks_are_few_and_round():
    assert plots.round_ticks(1, 10) == [1, 2, 5, 10]
    assert plots.round_ticks(1e-3, 0.1) == pytest.approx([1e-3, 3e-3, 1e-2, 3e-2, 0.1])
    assert plots.round_ticks(1, 1e39) == pytest.approx([1, 1e10, 1e20, 1e30])
    assert plots.round_ticks(1e-307, 1e307) == pytest.approx([1e-200, 1, 1e200])
    assert [plots.number(v) for v in (np.inf, -np.inf, np.nan)] == ["inf", "-inf", "nan"]
    assert [plots.number(v) for v in (0, 0.03, 20_000, 3e-5, 1e10, -0.5)] == [
        "0",
        "0.03",
        "20,000",
        r"$3 \times 10^{-5}$",
        "$10^{10}$",
        "\N{MINUS SIGN}0.5",
    ]


@pytest.mark.parametrize(
    ("ticks", "written"),
    [
        ([5e-5, 1e-4, 1e-3], ["0.00005", "0.0001", "0.001"]),
        ([1e-15, 1e-5, 1.0], ["$10^{-15}$", "$10^{-5}$", "$10^{0}$"]),
        ([0.0, 3e-7, 2e-6], ["0", "$3 \\times 10^{-7}$", "$2 \\times 10^{-6}$"]),
        ([0.01, 1.0, 1e6], ["$10^{-2}$", "$10^{0}$", "$10^{6}$"]),
        ([0.1, 20_000.0], ["0.1", "20,000"]),
    ],
)
def test_the_ticks_of_an_axis_are_in_one_notation(ticks, written):
    ax = plots.panels("A", size=(2, 2))[1]["A"]
    plots.few_ticks(ax.xaxis, ticks)
    assert [ax.xaxis.get_major_formatter()(tick, i) for i, tick in enumerate(ticks)] == written


def test_the_codes_of_the_outcomes_are_those_of_the_library():
    assert (CONVERGED, OUT_OF_STEPS, DIVERGED, NOT_FINITE) == tuple(Status)[1:5]


def test_in_a_large_picture_thin_lines_keep_their_ink_and_the_paper_stays_white():
    figure, axes = plots.panels("A", size=(9, 6))
    shades = np.linspace(0, 1, 900)
    axes["A"].imshow(np.sin(40 * shades[:, None] * (shades + 0.3)), cmap="viridis", extent=(0, 1, 0, 1))
    axes["A"].plot([0.2, 0.8], [0.5, 0.5], color=plots.RED, lw=3)
    image = Image.open(io.BytesIO(plots.png(figure)))
    assert image.mode == "P"
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert tuple(pixels[0]) == (255, 255, 255)
    assert np.sum(np.all(pixels == [int(plots.RED[i : i + 2], 16) for i in (1, 3, 5)], axis=1)) > 500


# Landscapes


def painted(ax):
    return np.asarray(ax.images[0].get_array())


def test_a_basin_map_gives_each_minimum_its_color_and_later_starts_a_darker_one():
    x = y = np.linspace(0, 1, 4)
    basin = np.array([[0, 0, 1, 1]] * 4)
    basin[0, 0] = -1
    steps = np.array([[1, 1000, 1, 1000]] * 4)
    ax = plots.basin_map(x, y, basin, steps, colors=("#0000ff", "#ff0000"))
    paint = painted(ax)
    assert paint[1, 0].argmax() == 2 and paint[1, 2].argmax() == 0
    assert paint[1, 1].sum() < 0.7 * paint[1, 0].sum()
    assert tuple(paint[0, 0]) == pytest.approx(to_rgb(plots.PALE))
    assert ax.images[0].get_extent() == pytest.approx([-1 / 6, 7 / 6, -1 / 6, 7 / 6])
    flat = painted(plots.basin_map(x, y, basin, colors=("#0000ff", "#ff0000")))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 3


def test_a_relief_is_lit_from_the_upper_left_and_its_lakes_are_blue():
    x = y = np.linspace(-1, 1, 41)
    height = np.exp(-3 * (x[None] ** 2 + y[:, None] ** 2))
    water = height < np.quantile(height, 0.2)
    paint = painted(plots.relief(x, y, height, water=water))
    assert paint[30, 10].sum() > 1.3 * paint[10, 30].sum()  # the same height on both sides of the hill
    assert (paint[water].argmax(1) == 2).all() and (paint[~water].argmax(1) != 2).mean() > 0.9


def test_a_power_map_is_red_above_one_and_blue_below_with_the_law_as_named_lines():
    powers = np.outer(np.ones(5), [-9.0, -3.0, 0.0, 3.0, 9.0])
    ax = plots.power_map(np.geomspace(0.1, 10, 5), np.arange(1, 6), powers, law=powers)
    colors = ax.collections[0].to_rgba(ax.collections[0].get_array())[0]
    assert colors[0][2] > colors[0][0] and colors[-1][0] > colors[-1][2]
    assert min(colors[2][:3]) > 0.9
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    assert {"1", "$10^{3}$", "$10^{-6}$"} <= {text.get_text() for text in ax.texts}


def test_an_outlined_text_has_an_edge():
    text = plots.outlined(plots.panels("A", size=(2, 2))[1]["A"].text(0.5, 0.5, "deep"), color="yellow")
    assert text.get_color() == "yellow" and len(text.get_path_effects()) == 1
