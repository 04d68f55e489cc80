"""Pictures of loss surfaces: labels apart, paths on the surface and in front of it, animations that tell the truth."""

import dataclasses
import io
import itertools

import jax
import matplotlib
import numpy as np
import pytest
from PIL import Image

import jaxfit as jf
from jaxfit import landscapes, plots
from jaxfit.plots import descents
from jaxfit.plots.house import RED

RECORD = jf.Record(what=("loss", "params"))
DATA = jf.datasets.bowl()
MSE = jf.losses.mse(jf.models.line)


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()
    yield
    matplotlib.pyplot.close("all")


def bowl(params):
    return params["x"] ** 2 + 2 * params["y"] ** 2


def descend(optimizer=None, steps=12, **options):
    optimizer = jf.optimizers.sgd(0.1) if optimizer is None else optimizer
    return jf.fit(bowl, {"x": -3.0, "y": -3.0}, optimizer=optimizer, steps=steps, record=RECORD, **options)


def surface(n=60):
    reach = np.linspace(-3.3, 3.3, n)
    return jf.surface(bowl, {"x": jf.Axis("x", reach), "y": jf.Axis("y", reach)})


@pytest.fixture(scope="module")
def runs():
    return {"plain": descend(), "momentum": descend(jf.optimizers.momentum(0.05), steps=40)}


def boxes(ax):
    ax.figure.draw_without_rendering()
    return {text: text.get_window_extent() for text in ax.texts if text.get_text()}


def assert_apart_and_inside(ax):
    frame = ax.get_window_extent()
    for box in boxes(ax).values():
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1 and frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1
    for one, other in itertools.combinations(boxes(ax).values(), 2):
        assert not one.overlaps(other)


# The way of a fit


def test_a_trail_is_the_recorded_params_and_the_loss_of_all_the_data(runs):
    way = landscapes.trail(runs["plain"])
    np.testing.assert_allclose(way.params["x"], -3 * 0.8 ** np.arange(13), rtol=1e-5)
    np.testing.assert_allclose(way.loss, 9 * 0.64 ** np.arange(13) + 18 * 0.36 ** np.arange(13), rtol=1e-5)
    assert list(way.step) == list(range(13))
    batches = jf.fit(
        MSE, {"w": 3.0, "b": 3.0}, DATA, optimizer=jf.optimizers.sgd(0.1), steps=5, record=RECORD,
        batches=jf.Batches(size=2), key=0,
    )  # fmt: skip
    way, (x, y) = landscapes.trail(batches), DATA
    expected = np.mean((way.params["w"][:, None] * x + way.params["b"][:, None] - y) ** 2, axis=1)
    np.testing.assert_allclose(way.loss, expected, rtol=1e-5)
    assert not np.allclose(batches.history.loss, expected, rtol=0.1)


def test_between_two_records_a_trail_goes_straight_in_the_params_not_in_the_loss(runs):
    way = landscapes.trail(runs["plain"], between=3)
    x, y = way.params["x"], way.params["y"]
    assert len(x) == 49 and way.step[2] == 0.5
    assert x[2] == pytest.approx((x[0] + x[4]) / 2, rel=1e-6)
    np.testing.assert_allclose(way.loss, x**2 + 2 * y**2, rtol=1e-5)
    assert way.loss[2] < (way.loss[0] + way.loss[4]) / 2 - 0.1


@pytest.mark.soak
def test_a_trail_says_what_a_fit_lacks(runs):
    with pytest.raises(TypeError, match="takes a fit, but got a Dataset"):
        landscapes.trail(jf.sweep(bowl, {"x": jf.Axis("x", [1.0]), "y": 0.0}, optimizer=jf.optimizers.sgd(0.1)).results)
    with pytest.raises(ValueError, match="did not record its params.*record="):
        landscapes.trail(jf.fit(bowl, {"x": 1.0, "y": 1.0}, optimizer=jf.optimizers.sgd(0.1), steps=2))
    with pytest.raises(ValueError, match="no longer knows its loss"):
        landscapes.trail(dataclasses.replace(runs["plain"], training=None))


@pytest.mark.soak
def test_a_lane_of_a_sweep_has_a_trail():
    rate = jf.Axis("rate", [0.05, 0.1])
    start = {"x": -3.0, "y": -3.0}
    grid = jf.sweep(bowl, start, optimizer=jf.optimizers.sgd(rate), steps=12, record=RECORD)
    way = landscapes.trail(jf.lane(grid, rate=0.1))
    np.testing.assert_allclose(way.loss, 9 * 0.64 ** np.arange(13) + 18 * 0.36 ** np.arange(13), rtol=1e-5)


# From above


def test_contours_paths_and_points_are_labeled_apart_from_each_other(runs):
    ax = plots.contour(surface(), runs, {"start": (-3, -3), "minimum": (0, 0)})
    assert_apart_and_inside(ax)
    texts = [text.get_text() for text in ax.texts]
    assert {"plain", "momentum", "start", "minimum"} <= set(texts) and len(texts) >= 4 + 5
    colors = {text.get_text(): text.get_color() for text in ax.texts}
    assert colors["plain"] == ax.lines[0].get_color() != ax.lines[1].get_color() == colors["momentum"]


def test_a_contour_lies_where_the_loss_has_the_number_on_it():
    ax = plots.contour(surface(), levels=[2, 8, 18])
    named = [text for text in ax.texts if text.get_text() in ("2", "8", "18")]
    assert len(named) == 3
    for text in named:
        x, y = text.get_position()
        assert x**2 + 2 * y**2 == pytest.approx(float(text.get_text()), rel=0.05)


def test_a_path_is_drawn_where_the_fit_went_and_long_ones_without_dots(runs):
    ax = plots.contour(surface(), {"plain": runs["plain"], "given": (np.linspace(0, 1, 200), np.zeros(200))})
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.asarray(runs["plain"].history.params["x"], float))
    assert (ax.lines[0].get_marker(), ax.lines[1].get_marker()) == ("o", "None")
    turned = plots.contour(surface().transpose("y", "x"), {"plain": runs["plain"]})
    np.testing.assert_array_equal(turned.lines[0].get_ydata(), ax.lines[0].get_xdata())
    assert turned.get_xlabel() == "y"


def test_levels_are_few_round_and_closer_where_the_surface_is_flat():
    ax = plots.contour(surface(), levels=6, filled=False)
    levels = np.array(ax.collections[0].levels)
    assert len(levels) == 5 and np.all(np.diff(levels, 2) > 0)
    assert all(len(f"{level:.10g}".replace(".", "").strip("0")) <= 2 for level in levels)


def test_a_surface_with_holes_can_be_drawn():
    log = jf.surface(
        lambda p: -p["x"] * jax.numpy.log(p["x"]) + p["y"] ** 2,
        {"x": jf.Axis("x", np.linspace(-1, 2, 30)), "y": jf.Axis("y", np.linspace(-1, 1, 30))},
    )
    assert_apart_and_inside(plots.contour(log))


# In perspective


def test_in_perspective_a_path_has_the_heights_of_the_loss_and_lies_in_front(runs):
    ax = plots.surface_3d(surface(), runs, {"start": (-3, -3, 27)})
    assert_apart_and_inside(ax)
    assert not ax.computed_zorder
    mesh = next(c for c in ax.collections if type(c).__name__ == "Poly3DCollection")
    on_it = [line for line in ax.lines if line.get_zorder() >= 10]
    assert len(on_it) == 2 * 2 + 1  # a line and its dots for each, and the start
    for line in on_it:
        x, y, z = line.get_data_3d()
        np.testing.assert_allclose(z, np.square(x) + 2 * np.square(y), rtol=1e-5)
        assert line.get_zorder() > mesh.get_zorder()
    floor = [line for line in ax.lines if line.get_zorder() < mesh.get_zorder()]
    assert len(floor) == 2 and all(np.all(np.asarray(line.get_data_3d()[2]) == ax.get_zlim()[0]) for line in floor)
    assert {"plain", "momentum", "start"} <= {text.get_text() for text in ax.texts}


def test_the_axes_in_perspective_are_kept_if_given_and_none_of_the_loss_lies_below_the_surface(runs):
    _, axes = matplotlib.pyplot.subplots(subplot_kw={"projection": "3d"})
    ax = plots.surface_3d(surface(), {"plain": runs["plain"]}, ax=axes)
    assert ax is axes and min(ax.get_zticks()) >= -1e-6


@pytest.mark.parametrize("view", [(38, -60), (20, 30), (60, -120)])
def test_the_axes_in_perspective_lie_inside_of_a_new_frame_with_all_their_numbers(view):
    x, y = jf.Axis("x", np.linspace(-2.0, 8.0, 9)), jf.Axis("y", np.linspace(-25.0, 15.0, 9))
    figure = plots.surface_3d(jf.surface(bowl, {"x": x, "y": y}), view=view).figure
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis, figure.axes[0].zaxis):
        box = axis.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


# Wrong calls


def test_what_cannot_be_drawn_is_refused(runs):
    with pytest.raises(ValueError, match=r"two dimensions.*surface.sel"):
        plots.contour(surface().expand_dims(rate=2))
    with pytest.raises(ValueError, match=r"has params x, y.*dimensions a, b"):
        plots.contour(surface().rename(x="a", y="b"), {"plain": runs["plain"]})
    with pytest.raises(ValueError, match="did not record its params"):
        plots.contour(surface(), {"run": jf.fit(bowl, {"x": 1.0, "y": 1.0}, optimizer=jf.optimizers.sgd(0.1), steps=1)})
    with pytest.raises(ValueError, match="projection='3d'"):
        plots.surface_3d(surface(), ax=matplotlib.pyplot.subplots()[1])
    with pytest.raises(ValueError, match="no losses"):
        plots.surface_3d(surface(), {"path": ([0.0, 1.0], [0.0, 1.0])})
    three = jf.fit(
        lambda p: p["a"] ** 2 + p["b"] ** 2 + p["c"] ** 2, {"a": 1.0, "b": 1.0, "c": 1.0},
        optimizer=jf.optimizers.sgd(0.1), steps=2, record=RECORD,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"two scalar params, but the fit has a \(\), b \(\), c \(\)"):
        plots.descent_animation(three)


@pytest.mark.parametrize("draw", [plots.contour, plots.surface_3d])
def test_a_path_that_is_none_is_told_by_its_label_if_it_has_one(draw):
    quiet = jf.fit(bowl, {"x": 1.0, "y": 1.0}, optimizer=jf.optimizers.sgd(0.1), steps=1)
    with pytest.raises(ValueError, match=r"^the fit did not record its params; run it with record="):
        draw(surface(), quiet)
    with pytest.raises(ValueError, match=r"^the fit 'plain' did not record"):
        draw(surface(), {"plain": quiet})
    with pytest.raises(TypeError, match=r"^paths is a list, but .* a dict by label, such as \{'descent': fit\}"):
        draw(surface(), [quiet])
    with pytest.raises(TypeError, match=r"^points is a tuple, .*such as \{'start': \(x, y\)\}"):
        draw(surface(), points=(1.0, 2.0))
    for path in (([0.0, 1.0],), ([0.0, 1.0], [0.0]), 3.0, "plain"):
        with pytest.raises(ValueError, match=r"^the path 'plain' is .* sequences of one length"):
            draw(surface(), {"plain": path})


# Moving


def frames(animation):
    image, found = Image.open(io.BytesIO(animation)), []
    for number in range(image.n_frames):
        image.seek(number)
        found.append((np.asarray(image.convert("RGB")).astype(int), image.info["duration"]))
    return found


def red(picture):
    """Where the pixels are of the color of what moves: rows, columns."""
    color = np.array([int(RED[i : i + 2], 16) for i in (1, 3, 5)])
    return np.nonzero(np.abs(picture - color).max(axis=-1) < 8)


@pytest.mark.soak
def test_an_animation_is_small_the_same_in_every_run_and_pauses_at_the_end():
    fit = jf.fit(MSE, {"w": 3.0, "b": 3.0}, DATA, optimizer=jf.optimizers.sgd(0.1), steps=30, record=RECORD)
    animation = plots.descent_animation(fit, frames=8)
    assert plots.descent_animation(fit, frames=8) == animation
    assert len(plots.gif(animation)) < 100_000
    shown = frames(animation)
    assert len(shown) == 8 and shown[-1][1] > 5 * shown[0][1]


def test_last_bits_of_a_loss_do_not_show_above_an_animation():
    shown = {descents.four_digits(float(np.float32(0.29505) + bits * np.float32(3e-8))) for bits in range(-3, 4)}
    assert shown == {"0.2951"}


def test_in_an_animation_the_point_goes_down_and_the_line_turns():
    fit = jf.fit(MSE, {"w": 3.0, "b": 3.0}, DATA, optimizer=jf.optimizers.sgd(0.1), steps=30, record=RECORD)
    (first, _), *_, (last, _) = frames(plots.descent_animation(fit, frames=5))
    half = first.shape[1] // 2
    line = []
    for picture in (first, last):
        rows, columns = red(picture)
        right = columns > half
        line.append(-np.polyfit(columns[right], rows[right], 1)[0])  # pixels grow downwards
    unit = line[1] / float(fit.params["w"])
    assert line[0] / unit == pytest.approx(3.0, rel=0.05)
    rows, columns = red(last)
    left = columns < half
    before = red(first)[1]
    assert np.sum(left) > 1.3 * np.sum(before < half)  # the tail has grown
    assert np.min(columns[left]) < np.min(before[before < half]) - 50  # from (3, 3) to the lower left


@pytest.mark.soak
def test_a_loss_without_a_model_is_shown_against_the_updates(runs):
    shown = frames(plots.descent_animation(runs["plain"], frames=6))
    half = shown[0][0].shape[1] // 2
    places = [np.mean(red(picture)[1][red(picture)[1] > half]) for picture, _ in shown]
    assert np.all(np.diff(places) > 0)


def test_an_arrow_leads_from_point_to_point_where_they_are_seen(runs):
    ax = plots.surface_3d(surface(), points={"here": (1.0, 2.0, 9.0)})
    plots.arrow_3d((1.0, 2.0, 9.0), (0.0, 0.0, 0.0), ax=ax)
    ax.figure.draw_without_rendering()
    arrow = next(text for text in ax.texts if not text.get_text())
    dot = next(line for line in ax.lines if line.get_zorder() == 12)
    np.testing.assert_allclose(ax.transData.transform(arrow.xyann), dot.get_transform().transform(dot.get_xydata())[0])


@pytest.mark.soak
def test_surfaces_are_the_same_bytes_in_every_run_and_leave_the_users_settings_alone(runs):
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        for draw in (plots.contour, plots.surface_3d):
            first, second = (plots.png(draw(surface(), {"plain": runs["plain"]}).figure) for _ in range(2))
            assert first == second and len(first) < plots.LARGEST
        assert dict(matplotlib.rcParams) == before
