"""Flow diagrams: boxes apart from each other and inside, arrows from border to border, labels beside them."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

from jaxfit import plots
from jaxfit.plots import Arrow, Box


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()
    yield
    matplotlib.pyplot.close("all")


RING = {
    "a": Box("first", ["x = 1", "a longer line of text"], (0, 0)),
    "b": Box("second", [], (1, 0)),
    "c": Box("third", ["1", "2", "3", "4"], (1, 1)),
    "d": Box("fourth", ["w"], (0, 1)),
}
ROUND = [Arrow("a", "b", "x"), Arrow("b", "c", "down"), Arrow("c", "d", "gradient"), Arrow("d", "a", "next")]


def drawn(boxes, arrows=(), size=(8.0, 4.0)):
    figure, axes = plots.panels("A", size=size)
    ax = plots.flow(boxes, arrows, ax=axes["A"])
    figure.draw_without_rendering()
    return ax


def frames(ax):
    return [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


def labels(ax, words):
    return [text.get_window_extent() for text in ax.texts if text.get_text() in words]


def ends(ax):
    return [(np.array(a.xyann), np.array(a.xy)) for a in ax.texts if getattr(a, "arrow_patch", None) is not None]


def test_boxes_and_labels_are_inside_and_apart():
    ax = drawn(RING, ROUND)
    boxes, words = frames(ax), labels(ax, {arrow.label for arrow in ROUND})
    assert (len(boxes), len(words)) == (4, 4)
    outer = ax.get_window_extent()
    for box in boxes + words:
        assert outer.x0 - 1 <= box.x0 and box.x1 <= outer.x1 + 1
        assert outer.y0 - 1 <= box.y0 and box.y1 <= outer.y1 + 1
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes + words, 2))


def test_every_text_of_a_box_is_inside_it():
    ax = drawn(RING)
    for box, frame in zip(RING.values(), frames(ax), strict=True):
        for extent in labels(ax, {box.title, "\n".join(box.lines)}):
            assert frame.x0 < extent.x0 and extent.x1 < frame.x1 and frame.y0 < extent.y0 and extent.y1 < frame.y1


def test_arrows_run_from_border_to_border_along_the_middles():
    ax = drawn(RING, ROUND)
    order = {name: frame.transformed(ax.transData.inverted()) for name, frame in zip(RING, frames(ax), strict=True)}
    for arrow, (start, end) in zip(ROUND, ends(ax), strict=True):
        for name, point in ((arrow.start, start), (arrow.end, end)):
            box = order[name]
            gaps = [abs(point[0] - box.x0), abs(point[0] - box.x1), abs(point[1] - box.y0), abs(point[1] - box.y1)]
            assert min(gaps) < 1e-6 and box.x0 - 1e-6 <= point[0] <= box.x1 + 1e-6


def test_a_way_there_and_one_back_lie_side_by_side():
    ax = drawn(RING, [Arrow("a", "b"), Arrow("b", "a")])
    (there, _), (_, back) = ends(ax)
    assert abs(there[1] - back[1]) == pytest.approx(18)


@pytest.mark.parametrize("size", [(0.8, 4.0), (8.0, 0.6)])
def test_axes_too_small_for_the_boxes_are_an_error_that_tells_the_size(size):
    with pytest.raises(ValueError, match=r"the boxes need \d\.\d inches, but the axes are \d\.\d inches"):
        drawn(RING, size=size)


def test_a_diagram_that_would_lie_is_an_error():
    row = {name: Box(name, at=(i, 0)) for i, name in enumerate("abc")}
    with pytest.raises(ValueError, match="the arrow from 'a' to 'c' passes through 'b'"):
        drawn(row, [Arrow("a", "c")])
    with pytest.raises(ValueError, match="an arrow's end is 'z', but there are the boxes 'a', 'b', 'c'"):
        drawn(row, [Arrow("a", "z")])
    with pytest.raises(ValueError, match=r"'a' and 'd' are both at \(0, 0\)"):
        drawn(row | {"d": Box("d", at=(0, 0))})
    with pytest.raises(ValueError, match="no room for 'a label that is much too long"):
        drawn(
            {"a": Box("a"), "b": Box("b", at=(1, 0))}, [Arrow("a", "b", "a label that is much too long " * 4)], (3, 1)
        )


def test_labels_keep_off_a_rectangle():
    _, axes = plots.panels("A", size=(4, 3))
    room = plots.Room(axes["A"])
    line = room.block([0, 1], [0.5, 0.5])
    room.keep([0, 0.5], [1, 1])
    assert room.near(line, "label", prefer=(0.5, 1)).get_position()[1] < 0.5
