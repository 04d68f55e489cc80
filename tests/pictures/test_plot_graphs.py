"""Pictures of computation graphs: nothing overlaps or is cropped, edges cross only where they must."""

import functools
import io
import itertools

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import jaxfit as jf
from jaxfit import plots
from jaxfit.plots.graph_layout import Extent, Link, arrange
from tests.shared.soak import soaking

X, Y = np.linspace(-1, 2, 7), np.linspace(3, 1, 7)
RATE = jf.optimizers.sgd(0.01)
LINE = jf.losses.mse(jf.models.line)


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()
    yield
    matplotlib.pyplot.close("all")


def forked(p, x):
    both = jnp.exp(p["a"] * x) + p["b"] * jnp.sin(p["a"])
    return both * both + jnp.tanh(p["b"]) / (1 + p["a"] ** 2)


def classes():
    model = jf.models.dense((3, 3, 3), "sigmoid")
    data = (np.eye(3), np.array([0, 1, 2]))
    return jf.backprop(jf.losses.softmax_cross_entropy(model), model.init(0), data)


GRAPHS = {
    "product": lambda: jf.backprop(lambda v, x, y: jnp.square(v * x - y), 0.0, (2.0, 5.0)),
    "line": lambda: jf.backprop(LINE, {"w": 0.0, "b": 139.0}, (X, Y)),
    "two losses": lambda: jf.backprop(LINE, {"w": 1.0, "b": 0.0}, (X, Y), validation=(X[:2], Y[:2])),
    "forks": lambda: jf.backprop(forked, {"a": 1.0, "b": 2.0}, (0.5,)),
    "classes": classes,
    "folded": lambda: classes().fold(9),
    "same argument": lambda: jf.backprop(lambda p: (p * p) @ (p + p), np.arange(3.0)),
    "unused": lambda: jf.backprop(lambda p: p["a"] ** 2, {"a": 1.0, "a long name, never used": 2.0}),
    "one node": lambda: jf.backprop(lambda p: p, 2.0),
    "several outputs": lambda: jf.backprop(lambda p: (s := jnp.split(p, 3))[0].sum() * s[2].sum(), np.arange(6.0)),
    "not a number": lambda: jf.backprop(lambda p: jnp.log(p - 2), 1.0),
}


@functools.cache
def graph_of(name):
    return GRAPHS[name]()


def extents(ax):
    ax.figure.draw_without_rendering()
    return {text: text.get_window_extent() for text in ax.texts if text.get_text()}


def assert_apart_and_inside(ax):
    texts = extents(ax)
    frame = ax.figure.bbox
    for text, box in texts.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text
    for (one, a), (other, b) in itertools.combinations(texts.items(), 2):
        assert not a.overlaps(b), (one, other)
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    for text, a in texts.items():
        inside = [b for b in boxes if a.overlaps(b)]
        assert len(inside) <= 1 and all(b.x0 <= a.x0 and a.x1 <= b.x1 for b in inside), text


def lines(ax):
    """The drawn edges as dense points in pixels."""
    found = []
    for patch in ax.patches:
        if isinstance(patch, FancyArrowPatch):
            path = ax.transData.transform_path(patch.get_path())
            found.append(np.concatenate([c.points(30) for c in curves(path)]))
    return found


class curves:
    """Straight and cubic pieces of a path."""

    def __init__(self, path):
        self.pieces, points = [], []
        for vertex, code in zip(path.vertices, path.codes, strict=True):
            points.append(vertex)
            if code == path.MOVETO:
                points = [vertex]
            elif code == path.LINETO or len(points) == 4:
                self.pieces.append(np.array(points))
                points = [vertex]

    def __iter__(self):
        return iter(curve(piece) for piece in self.pieces)


class curve:
    def __init__(self, points):
        self.corners = points

    def points(self, n):
        t = np.linspace(0, 1, n)[:, None]
        if len(self.corners) == 2:
            return self.corners[0] * (1 - t) + self.corners[1] * t
        a, b, c, d = self.corners
        return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def crossings(ax):
    """Pairs of edges that cross away from their ends."""
    count = 0
    for one, other in itertools.combinations(lines(ax), 2):
        count += bool(len(crossing(one, other)))
    return count


def crossing(one, other):
    a, b = one[:-1, None], one[1:, None]
    c, d = other[None, :-1], other[None, 1:]

    def side(p, q, r):
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    meet = (side(a, b, c) * side(a, b, d) < -1e-6) & (side(c, d, a) * side(c, d, b) < -1e-6)
    return np.argwhere(meet)


@pytest.mark.parametrize("direction", soaking(["right", "up"], keep=1))
@pytest.mark.parametrize("name", soaking(GRAPHS, but=("classes", "folded", "several outputs")))
def test_texts_and_boxes_are_apart_and_nothing_is_cropped(name, direction):
    ax = plots.backprop_graph(graph_of(name), direction=direction, optimizer=RATE if name != "two losses" else None)
    assert_apart_and_inside(ax)
    texts = extents(ax)
    points = np.concatenate(lines(ax))
    for text, box in texts.items():
        assert not np.any(np.all((box.min < points) & (points < box.max), axis=1)), text


@pytest.mark.parametrize(
    "name",
    soaking(["product", "line", "two losses", "same argument", "one node"], keep=("two losses", "same argument")),
)
def test_edges_cross_only_where_they_must(name):
    assert crossings(plots.backprop_graph(graph_of(name))) == 0


def test_a_graph_that_cannot_be_drawn_without_crossings_has_few():
    point = Extent(10, 5, 5)
    links = [Link(i, j, point, 1.0) for i in range(3) for j in range(3, 6)] + [
        Link(j, 6, point, 1.0) for j in (3, 4, 5)
    ]
    routes = arrange([point] * 7, links).routes
    assert 1 <= sum(bool(len(crossing(a, b))) for a, b in itertools.combinations(routes, 2)) <= 9


def test_a_way_of_gradients_is_straight():
    points = Extent(10, 5, 5)
    links = [Link(0, 2, points, 4.0), Link(1, 2, points, 1.0), Link(2, 3, points, 12.0)]
    layout = arrange([points] * 4, links)
    assert layout.nodes[0, 1] == layout.nodes[2, 1] == layout.nodes[3, 1] != layout.nodes[1, 1]
    assert np.all(np.diff(layout.nodes[[0, 2, 3], 0]) > 0)


def texts_of(ax, color):
    return [text.get_text() for text in ax.texts if text.get_color() == color]


def test_values_gradients_and_local_derivatives_have_colors_of_their_own():
    ax = plots.backprop_graph(graph_of("product"), optimizer=RATE, legend=False)
    assert sorted(texts_of(ax, plots.BLUE)) == sorted(["0", "2", "0", "5", "−5", "25"])
    assert sorted(texts_of(ax, plots.RED)) == sorted(["← −20", "← −10", "← −10", "← 1"])
    assert sorted(texts_of(ax, plots.GREEN)) == sorted(["local 2", "local 1", "local −10"])
    assert "0 → 0.2" in texts_of(ax, plots.DARK)
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    colors = [matplotlib.colors.to_hex(box.get_edgecolor()).upper() for box in boxes]
    assert colors.count(plots.BLUE) == 1
    assert [matplotlib.colors.to_hex(box.get_facecolor()) for box in boxes].count(plots.PALE) == 2


def test_values_stand_above_their_edge_and_gradients_below():
    ax = plots.backprop_graph(graph_of("product"), legend=False)
    height = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert height["25"] > height["square"] > height["← 1"]
    ax = plots.backprop_graph(graph_of("product"), direction="up", legend=False)
    place = {text.get_text(): text.get_position() for text in ax.texts}
    assert place["25"][0] < place["square"][0] < place["↓ 1"][0] and place["loss"][1] > place["v"][1]


def test_the_values_alone_can_be_drawn_in_the_same_places():
    graph = graph_of("product")
    forward, both = (plots.backprop_graph(graph, backward=b, legend=False) for b in (False, True))
    assert not texts_of(forward, plots.RED) and not texts_of(forward, plots.GREEN)
    assert [t.get_position() for t in forward.texts if t.get_color() == plots.BLUE] == [
        t.get_position() for t in both.texts if t.get_color() == plots.BLUE
    ]


def test_a_step_is_written_with_the_digits_that_show_it():
    age, pressure = (column[14:15] for column in jf.datasets.blood_pressure())
    graph = jf.backprop(jf.losses.mse(jf.models.line), {"w": 0.0, "b": 139.0}, (age, pressure))
    ax = plots.backprop_graph(graph, optimizer=jf.optimizers.sgd(0.0002))
    assert {"139 → 139.0056", "0 → 0.3248"} <= set(texts_of(ax, plots.DARK))


def test_gradients_that_meet_are_added_below_their_box():
    ax = plots.backprop_graph(jf.backprop(lambda p: p * 3 - p**2, 2.0))
    assert "3 + (−4) = −1" in texts_of(ax, plots.RED)


def test_of_two_losses_the_one_without_a_backward_pass_is_dashed():
    ax = plots.backprop_graph(graph_of("two losses"))
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    graph = graph_of("two losses")
    assert sum(arrow.get_linestyle() != "-" for arrow in arrows) == sum(e.gradient is None for e in graph.edges)


def test_a_number_that_one_operation_uses_stands_in_its_box():
    ax = plots.backprop_graph(jf.backprop(lambda p: 2 * p / 5, 3.0))
    assert {"2 ×", "÷ 5"} <= {text.get_text() for text in ax.texts}


@pytest.mark.soak
def test_a_thousand_equations_are_drawn_folded():
    def loop(params, x):
        for i in range(250):
            x = jnp.tanh(params[i % 2] * x + params[2] * 0.1)
        return x

    graph = jf.backprop(loop, [0.5, 0.7, 0.9], (1.0,))
    assert sum(node.operations for node in graph.nodes) == 1000
    np.testing.assert_allclose(graph.gradients, jax.jit(jax.grad(scanned))(jnp.array([0.5, 0.7, 0.9]), 1.0), rtol=1e-4)
    ax = plots.backprop_graph(graph)
    assert 5 < sum(isinstance(patch, FancyBboxPatch) for patch in ax.patches) < 60
    assert_apart_and_inside(ax)


def scanned(params, x):
    def turn(x, i):
        return jnp.tanh(params[i % 2] * x + params[2] * 0.1), None

    return jax.lax.scan(turn, x, jnp.arange(250))[0]


def test_a_graph_fits_into_axes_that_it_is_given():
    figure, (ax, _) = matplotlib.pyplot.subplots(1, 2, figsize=(7, 3))
    assert plots.backprop_graph(graph_of("forks"), ax=ax) is ax
    frame = ax.get_window_extent()
    for text, box in extents(ax).items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text


def test_a_picture_is_the_same_bytes_in_every_run_and_leaves_the_settings_alone():
    with matplotlib.rc_context({"font.size": 31}):
        before = dict(matplotlib.rcParams)
        first, second = (plots.png(plots.backprop_graph(graph_of("forks")).figure) for _ in range(2))
        assert first == second and len(first) < plots.LARGEST
        assert dict(matplotlib.rcParams) == before


def test_the_animation_sweeps_forward_and_back():
    graph = jf.backprop(lambda p, x, y: jnp.square(p["k"] * x + p["b"] - y), {"k": 0.0, "b": 0.0}, (2.0, 5.0))
    movie = plots.backprop_animation(graph, optimizer=RATE)
    assert movie[:4] == b"GIF8" and len(movie) < plots.LARGEST
    assert movie == plots.backprop_animation(graph, optimizer=RATE)
    frames = Image.open(io.BytesIO(movie))
    assert frames.n_frames == 1 + 5 + 5 + 1
    inks = []
    for i in range(frames.n_frames):
        frames.seek(i)
        inks.append(int((np.asarray(frames.convert("L")) < 200).sum()))
    assert inks[-1] > inks[5] > inks[0]


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="direction is 'left'"):
        plots.backprop_graph(graph_of("product"), direction="left")
