"""Lines and planes through many params: against closed forms, and the laws that their directions promise."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.settings import using
from jaxfit.landscapes import between, hessian_plane, random_plane, trajectory_plane
from tests.shared.soak import soaking

RNG = np.random.default_rng(5)
TURN = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
VALUES = np.array([9.0, 5.0, 3.0, 2.0, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, -1.0, -4.0])
HESSIAN = TURN @ np.diag(VALUES) @ TURN.T
POINT = {"a": RNG.normal(size=(2, 4)), "b": RNG.normal(size=4)}  # 12 numbers
X = np.linspace(-1, 1, 9)[:, None]
GRID = np.array([-1.0, -0.5, 0.0, 0.75])


def flat(params):
    return jnp.concatenate([jnp.ravel(params["a"]), params["b"]])


def saddle(params, hessian):
    v = flat(params)
    return 0.5 * v @ hessian @ v


def net(params, x, scale=1.0):
    return jnp.sum(jnp.maximum(x @ params["w"], 0.0) @ params["v"] - jnp.sin(3 * scale * x)) ** 2


def row(params):
    return np.concatenate([np.ravel(params["a"]), params["b"]])


@pytest.mark.parametrize(
    "plane",
    [
        random_plane(POINT, key=0),
        random_plane(POINT, key=1, normalize="leaf"),
        random_plane(POINT, key=2, normalize="none"),
        between(POINT, {"a": -POINT["a"], "b": 2 * POINT["b"]}),
    ],
    ids=str,
)
def test_a_slice_of_a_quadratic_is_the_quadratic_of_its_directions(plane):
    surface = jf.surface(saddle, plane.at(*[GRID] * len(plane.names)), (HESSIAN,), precision="float64")
    assert surface.dims == plane.names and surface.attrs["slice"] == plane.about["slice"]
    directions = np.stack([row(d) for d in plane.directions])
    for index in np.ndindex(*surface.shape):
        v = row(POINT) + GRID[list(index)] @ directions
        assert float(surface[index]) == pytest.approx(0.5 * v @ HESSIAN @ v, rel=1e-12)
    line = surface.values if surface.ndim == 1 else surface.values[:, 2]  # through the center
    second = 2 * np.polyfit(GRID, line, 2)[0]
    assert second == pytest.approx(directions[0] @ HESSIAN @ directions[0], rel=1e-10)


def test_the_line_between_two_params_goes_from_one_to_the_other():
    end = {"a": POINT["a"] + 1, "b": POINT["b"]}
    plane = between(POINT, end)
    assert plane.about["distance"] == pytest.approx(np.sqrt(8))
    surface = jf.surface(saddle, plane.at([0, 1]), (HESSIAN,), precision="float64")
    assert surface.dims == ("between",)
    np.testing.assert_allclose(surface, [saddle(POINT, HESSIAN), saddle(end, HESSIAN)], rtol=1e-5)
    assert plane.project(end)["between"] == pytest.approx(1)


def test_each_filter_of_a_direction_is_as_large_as_that_of_the_params():
    first, second = random_plane(POINT, key=3).directions
    for direction in (first, second):
        np.testing.assert_allclose(np.linalg.norm(direction["a"], axis=0), np.linalg.norm(POINT["a"], axis=0))
        assert not direction["b"].any()
    assert abs(np.sum(first["a"] * second["a"])) < 0.99 * np.sum(POINT["a"] ** 2)
    for direction in random_plane(POINT, key=3, normalize="leaf").directions:
        assert np.linalg.norm(direction["b"]) == pytest.approx(np.linalg.norm(POINT["b"]))
    kernel = random_plane({"k": RNG.normal(size=(3, 3, 2, 5))}, key=1, count=1)
    squares = [np.sum(np.square(tree["k"]), axis=(0, 1, 2)) for tree in (kernel.center, *kernel.directions)]
    np.testing.assert_allclose(*squares)


@pytest.mark.soak
def test_a_network_with_its_weights_rescaled_has_the_same_landscape():
    """relu(x W) v is relu(x (10 W)) (v / 10): the reason for the norms of filters."""
    weights = {"w": RNG.normal(size=(1, 6)), "v": RNG.normal(size=(6, 1))}
    same = {"w": 10 * weights["w"], "v": weights["v"] / 10}
    one, other = (jf.surface(net, random_plane(p, key=4).at(), (X,), precision="float64") for p in (weights, same))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    raw = [jf.surface(net, random_plane(p, key=4, normalize="none").at(), (X,)) for p in (weights, same)]
    assert np.abs(raw[0] / raw[1] - 1).max() > 0.5


@pytest.fixture(scope="module")
def descent():
    record = jf.Record(every=4, what=("loss", "params"))
    bowl = TURN @ np.diag(np.abs(VALUES)) @ TURN.T
    optimizer = jf.optimizers.momentum(0.05, 0.8)
    return jf.fit(saddle, POINT, (bowl,), optimizer=optimizer, steps=120, record=record, precision="float64")


def test_the_plane_of_a_descent_holds_most_of_its_variance(descent):
    plane = trajectory_plane(descent)
    path = np.stack([row({k: v[i] for k, v in descent.history.params.items()}) for i in range(31)])
    centered = path - path.mean(axis=0)
    basis = np.stack([row(d) for d in plane.directions])
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)
    assert plane.about["captured"] == pytest.approx(np.sum((centered @ basis.T) ** 2) / np.sum(centered**2))
    for key in range(5):  # no other plane holds more
        other = np.linalg.qr(basis.T + 0.1 * np.random.default_rng(key).normal(size=(12, 2)))[0]
        assert np.sum((centered @ other) ** 2) < np.sum((centered @ basis.T) ** 2)
    along = plane.project(descent)
    assert along["component_1"][-1] == pytest.approx(0, abs=1e-9)  # its end is the center
    for values, (low, high) in zip(along.values(), plane.spans, strict=True):
        assert low < values.min() and values.max() < high
    assert f"{plane.about['captured']:.1%}" in str(plane)


def test_a_descent_of_two_params_lies_on_its_plane_with_its_losses():
    def bowl(p):
        return (p["x"] - 1) ** 2 + 10 * (p["x"] - p["y"]) ** 2

    record = jf.Record(what=("loss", "params"))
    options = {"optimizer": jf.optimizers.sgd(0.03), "steps": 40, "record": record, "precision": "float64"}
    fit = jf.fit(bowl, {"x": -1.0, "y": 2.0}, **options)
    plane = trajectory_plane(fit)
    assert plane.about["captured"] == pytest.approx(1, abs=1e-12)
    path = plane.project(fit)
    losses = [
        float(jf.surface(bowl, plane.at([x], [y]), precision="float64")[0, 0])
        for x, y in list(zip(*path.values(), strict=True))[:40:13]
    ]
    np.testing.assert_allclose(losses, fit.history.loss[:40:13], rtol=1e-9)


@pytest.mark.parametrize("size", soaking([512, 1], keep=(512,)), ids=["the Hessian", "products with it"])
def test_the_plane_of_the_hessian_is_that_of_its_eigenvectors(size):
    for which, places in {"largest": (0, 1), "ends": (0, 11)}.items():
        with using(dense_plane=size):
            plane = hessian_plane(saddle, POINT, (HESSIAN,), which=which)
        wanted = VALUES[list(places)]
        np.testing.assert_allclose(plane.about["eigenvalues"], wanted, rtol=1e-9)
        for direction, place in zip(plane.directions, places, strict=True):
            assert abs(row(direction) @ TURN[:, place]) == pytest.approx(1, abs=1e-8)
        captured = np.sum(wanted**2) / np.sum(VALUES**2)
        assert plane.about["captured"] == pytest.approx(captured, abs=1e-9 if size > 1 else 0.35 * captured)
    surface = jf.surface(saddle, plane.at(GRID, [0.0]), (HESSIAN,), precision="float64")
    assert 2 * np.polyfit(GRID, surface.values[:, 0], 2)[0] == pytest.approx(9, rel=1e-8)


@pytest.mark.soak
def test_what_is_fixed_stays_on_a_slice_and_what_is_tied_follows():
    marked = {"a": jf.Bounded(np.ones((2, 2)), low=0.0), "b": jf.Fixed(3.0), "c": jf.Tied(lambda p: 2 * p["a"][0, 0])}

    def loss(p):
        return jnp.sum(p["a"]) + 100 * p["b"] + 1000 * p["c"]

    plane = random_plane(marked, key=0, count=1)
    assert plane.directions[0]["b"] is None
    surface = jf.surface(loss, plane.at([0.0, 0.5]), precision="float64")
    moved = np.ones((2, 2)) + 0.5 * plane.directions[0]["a"]
    np.testing.assert_allclose(surface, [4 + 300 + 2000, moved.sum() + 300 + 2000 * moved[0, 0]], rtol=1e-12)
    assert plane.project({"a": moved, "b": 3.0, "c": 0.0})["random_1"] == pytest.approx(0.5)
    record = jf.Record(what=("loss", "params"))
    fit = jf.fit(lambda p: loss(p) ** 2, marked, optimizer=jf.optimizers.sgd(1e-9), steps=3, record=record)
    with pytest.raises(ValueError, match="on one line"):
        trajectory_plane(fit)


def test_other_slices_do_not_compile_again(traces):
    @traces
    def loss(params, hessian):
        return saddle(params, hessian)

    jf.surface(loss, random_plane(POINT, key=0).at(), (HESSIAN,))
    first = loss.count
    for key in (1, 2):
        plane = random_plane({"a": key * POINT["a"], "b": POINT["b"]}, key=key)
        assert float(jf.surface(loss, plane.at(), (HESSIAN,)).std()) > 0
    assert loss.count == first


def test_a_landscape_is_drawn_with_its_descent_and_what_it_holds(descent):
    plane = trajectory_plane(descent)
    bowl = TURN @ np.diag(np.abs(VALUES)) @ TURN.T
    surface = jf.surface(saddle, plane.at(), (bowl,))
    ax = jf.plots.landscape(surface, plane, {"momentum": descent})
    assert ax.get_title(loc="left").startswith("The plane of the descent: 89 % of the variance")
    assert ax.get_xlabel() == "component 1"
    line = next(line for line in ax.lines if len(line.get_xdata()) == 31)
    np.testing.assert_allclose(line.get_xdata(), plane.project(descent)["component_1"])
    curve = between(POINT, {"a": -POINT["a"], "b": POINT["b"]})
    ax = jf.plots.landscape(jf.surface(saddle, curve.at(), (bowl,)), curve)
    assert ax.get_ylabel() == "loss"
    plane = hessian_plane(saddle, POINT, (HESSIAN,), which="ends")
    ax = jf.plots.landscape(jf.surface(saddle, plane.at(), (HESSIAN,)), plane)
    assert ax.get_ylabel().endswith("= \N{MINUS SIGN}4")
    with pytest.raises(ValueError, match="the surface has the dimensions"):
        jf.plots.landscape(jf.surface(saddle, curve.at(), (bowl,)), plane)


def refuses(error, match, function, *args, **kwargs):
    with pytest.raises(error, match=match):
        function(*args, **kwargs)


def test_what_makes_no_slice_is_refused(descent):
    plane = random_plane(POINT, key=0)
    refuses(ValueError, "at got 1 sets of coordinates.*random_1, random_2", plane.at, GRID)
    refuses(TypeError, "coordinates along 'random_1'", plane.at, "abc", GRID)
    refuses(TypeError, "coordinates along 'random_2'", plane.at, GRID, [0.0, np.nan])
    refuses(ValueError, "no leaf of the params is an array of weights.*leaf", random_plane, {"w": 1.0, "b": 0.0}, key=0)
    refuses(ValueError, "normalize is 'layer'", random_plane, POINT, key=0, normalize="layer")
    refuses(ValueError, "count is 3", random_plane, POINT, key=0, count=3)
    refuses(TypeError, "lacks key", random_plane, POINT)
    refuses(TypeError, "params is a fit", random_plane, descent, key=0)
    refuses(TypeError, "goes through one point", random_plane, {"a": jf.Axis("a", GRID)}, key=0)
    refuses(ValueError, "must start from finite", random_plane, {"a": np.full((2, 2), np.nan)}, key=0)
    refuses(ValueError, "the same params", between, POINT, POINT)
    refuses(ValueError, "another tree", between, POINT, {"a": POINT["a"]})
    refuses(ValueError, r"second has leaves of shapes \[\(2, 4\), \(\)\]", between, POINT, POINT | {"b": 1.0})
    refuses(TypeError, "takes a fit", trajectory_plane, POINT)
    quiet = jf.fit(saddle, POINT, (HESSIAN,), optimizer=jf.optimizers.sgd(1e-3), steps=1)
    refuses(ValueError, "did not record its params", trajectory_plane, quiet)
    refuses(ValueError, "did not record its params", plane.project, quiet)
    refuses(ValueError, "which is 'smallest'", hessian_plane, saddle, POINT, (HESSIAN,), which="smallest")
    refuses(ValueError, "one number to move", hessian_plane, lambda p: p**2, 1.0)
    refuses(ValueError, "not finite", hessian_plane, lambda p: jnp.sum(jnp.abs(p) ** 1.5), np.zeros(3))
