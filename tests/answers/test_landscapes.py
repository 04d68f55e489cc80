"""Surfaces: the loss itself at every point of a grid, labelled, in little memory, compiled once."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

AGE, PRESSURE = jf.datasets.blood_pressure()
MSE = jf.losses.mse(jf.models.line)
W, B = np.linspace(-1, 3, 41), np.linspace(0, 200, 23)
PLANE = {"w": jf.Axis("a", W), "b": jf.Axis("b", B)}


def squares(w, b, x=AGE, y=PRESSURE):
    """The mean squared error over the grid of w and b, in float64."""
    return np.mean((w[:, None, None] * x + b[None, :, None] - y) ** 2, axis=-1)


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 2e-6), ("float64", 1e-14)])
def test_a_surface_is_the_loss_at_every_point(precision, rounding):
    surface = jf.surface(MSE, PLANE, (AGE, PRESSURE), precision=precision)
    np.testing.assert_allclose(surface.values, squares(W, B), rtol=rounding)
    assert surface.dtype == precision and surface.attrs["precision"] == precision


def test_a_surface_equals_a_slow_loop_over_its_points():
    def loss(params, x, scale):
        return jnp.sum(jnp.abs(jnp.sin(scale * params["a"]["w"] * x) - params["c"][0])) + params["c"][1] ** 2

    x = np.linspace(-1, 1, 7)
    pairs = np.array([[0.0, 1.0], [0.5, -1.0], [2.0, 3.0]])
    surface = jf.surface(
        loss,
        {"c": jf.Axis("pair", pairs), "a": {"w": jf.Axis("w", [-1.0, 0.5])}},
        (x, jf.Axis("scale", [1.0, 2.0, 3.0, 4.0])),
        precision="float64",
    )
    assert surface.dims == ("pair", "w", "scale")
    for i, pair in enumerate(pairs):
        for w in (-1.0, 0.5):
            for scale in (1.0, 2.0, 3.0, 4.0):
                expected = np.sum(np.abs(np.sin(scale * w * x) - pair[0])) + pair[1] ** 2
                assert float(surface.sel(w=w, scale=scale)[i]) == pytest.approx(expected, rel=1e-14)


def test_dimensions_come_in_the_order_written_with_their_coordinates():
    surface = jf.surface(
        MSE, {"w": jf.Axis("slope", W), "b": jf.Axis("place", B, labels=list(map(str, B)))}, (AGE, AGE)
    )
    assert surface.dims == ("slope", "place") and surface.name == "loss"
    np.testing.assert_array_equal(surface.slope, W)
    assert list(surface.place.values) == list(map(str, B))
    turned = jf.surface(MSE, {"b": jf.Axis("place", B), "w": jf.Axis("slope", W)}, (AGE, AGE))
    assert turned.dims == ("place", "slope")
    np.testing.assert_array_equal(turned.values.T, surface.values)


def test_axes_of_one_name_make_the_loss_along_a_path():
    w, b = np.linspace(0, 1, 9), np.linspace(100, 50, 9)
    along = jf.surface(MSE, {"w": jf.Axis("t", w), "b": jf.Axis("t", b)}, (AGE, PRESSURE))
    assert along.dims == ("t",)
    np.testing.assert_allclose(along.values, np.diag(squares(w, b)), rtol=2e-6)
    np.testing.assert_array_equal(along["start.w"], w)


def test_a_surface_meets_the_losses_of_a_fit():
    record = jf.Record(what=("loss", "params"))
    fit = jf.fit(
        MSE, {"w": 0.0, "b": 139.0}, (AGE, PRESSURE), optimizer=jf.optimizers.sgd(4e-4), steps=20, record=record
    )
    path = {name: jf.Axis("t", values) for name, values in fit.history.params.items()}
    np.testing.assert_allclose(jf.surface(MSE, path, (AGE, PRESSURE)), fit.history.loss, rtol=1e-6)


def test_numbers_of_a_loss_and_of_a_call_may_be_swept():
    def start(*, slope, key):
        return {"w": slope, "b": jax.random.normal(key)}

    keys = jax.random.split(jax.random.key(3), 4)
    surface = jf.surface(
        jf.losses.huber(jf.models.line, delta=jf.Axis("delta", [0.5, 5.0])),
        jf.Call(start, slope=jf.Axis("slope", [0.0, 1.0, 2.0]), key=jf.Axis("seed", keys)),
        (AGE, PRESSURE),
    )
    assert surface.dims == ("delta", "slope", "seed")
    for (i, delta), (j, slope), k in [((0, 0.5), (2, 2.0), 1), ((1, 5.0), (0, 0.0), 3)]:
        residuals = slope * AGE + float(jax.random.normal(keys[k])) - PRESSURE
        size = np.abs(residuals)
        expected = np.mean(np.where(size <= delta, residuals**2 / 2, delta * (size - delta / 2)))
        assert float(surface[i, j, k]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.soak
def test_parts_of_the_program_become_an_axis_too():
    kinds = jf.Axis("kind", [MSE, jf.losses.mae(jf.models.line)], labels=["mse", "mae"])
    surface = jf.surface(kinds, PLANE, (AGE, PRESSURE))
    assert surface.dims == ("kind", "a", "b")
    np.testing.assert_allclose(surface.sel(kind="mse"), squares(W, B), rtol=2e-6)
    errors = np.mean(np.abs(W[:, None, None] * AGE + B[None, :, None] - PRESSURE), axis=-1)
    np.testing.assert_allclose(surface.sel(kind="mae"), errors, rtol=2e-6)

    def parabola(*, degree):
        return {"coefficients": jnp.ones(degree + 1)}

    widths = jf.surface(
        lambda p, x: jnp.sum(p["coefficients"] * x), jf.Call(parabola, degree=jf.Axis("degree", [0, 1, 4])), (3.0,)
    )
    np.testing.assert_array_equal(widths, [3.0, 6.0, 15.0])


@pytest.mark.soak
def test_a_loss_with_a_key_gets_that_of_step_0_at_every_point():
    def noisy(params, key):
        return params + jax.random.normal(key)

    surface = jf.surface(noisy, jf.Axis("a", [0.0, 1.0]), key=7)
    assert float(surface[1] - surface[0]) == pytest.approx(1, abs=1e-6)
    fit = jf.fit(noisy, 1.0, optimizer=jf.optimizers.sgd(0.1), steps=1, key=7)
    assert float(surface[1]) == pytest.approx(float(fit.history.loss[0]), rel=1e-6)
    seeds = jf.surface(noisy, 0.0, key=jf.Axis("seed", range(5)))
    assert list(seeds.seed) == list(range(5)) and len(np.unique(seeds)) == 5


def test_a_loss_without_a_gradient_has_a_surface():
    def steps(params):  # no warning that nothing can move, no error from what cannot be differentiated backwards
        return jax.lax.while_loop(lambda v: v > 1, lambda v: v / 2, jnp.ceil(params["a"]))

    surface = jf.surface(steps, {"a": jf.Axis("a", [0.2, 1.5, 2.5, 4.0])})
    np.testing.assert_array_equal(surface, [1.0, 1.0, 0.75, 1.0])


def test_where_the_loss_is_not_defined_the_surface_says_so():
    surface = jf.surface(lambda p: jnp.log(p), jf.Axis("a", [-1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(surface, [np.nan, -np.inf, 0.0])


def test_other_numbers_do_not_compile_again(traces):
    @traces
    def loss(params, x, y):
        return jnp.mean((params["w"] * x + params["b"] - y) ** 2)

    jf.surface(loss, PLANE, (AGE, PRESSURE))
    first = loss.count
    for factor in (2.0, 3.0, 4.0):
        axes = {"w": jf.Axis("a", factor * W), "b": jf.Axis("b", factor * B)}
        surface = jf.surface(loss, axes, (factor * AGE, PRESSURE))
        np.testing.assert_allclose(surface, squares(factor * W, factor * B, factor * AGE), rtol=2e-6)
    assert loss.count == first


@pytest.mark.soak
def test_points_times_data_are_never_held_in_memory():
    """In one array the work would take 200 * 200 * 50,000 numbers: 8 GB."""
    x = np.linspace(-1, 1, 50_000)
    axes = {"w": jf.Axis("w", np.linspace(-1, 1, 200)), "b": jf.Axis("b", np.linspace(-1, 1, 200))}
    jf.surface(MSE, axes, (x[:10], x[:10]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    surface = jf.surface(MSE, axes, (x, x))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes
    w, b = np.meshgrid(axes["w"].values, axes["b"].values, indexing="ij")
    np.testing.assert_allclose(surface, (w - 1) ** 2 * np.mean(x**2) + b**2, rtol=1e-5, atol=1e-6)


def test_a_grid_that_fills_no_whole_number_of_blocks_is_complete():
    a, b = np.linspace(-1, 1, 523), np.linspace(-2, 2, 401)  # more points than one call evaluates, both prime
    surface = jf.surface(lambda p: p["a"] ** 2 + 2 * p["b"] ** 2, {"a": jf.Axis("a", a), "b": jf.Axis("b", b)})
    np.testing.assert_allclose(surface, a[:, None] ** 2 + 2 * b[None, :] ** 2, rtol=1e-6, atol=1e-7)


# Bad input


def refuses(error, match, *args, **kwargs):
    with pytest.raises(error, match=match):
        jf.surface(*args, **kwargs)


def test_what_cannot_be_a_surface_is_refused():
    data = (AGE, PRESSURE)
    refuses(ValueError, "found no Axis.*jf.Axis", MSE, {"w": 1.0, "b": 0.0}, data)
    refuses(TypeError, "must return a scalar", lambda p, x, y: p["w"] * x, PLANE, data)
    refuses(TypeError, "loss is 3", 3, PLANE, data)
    refuses(TypeError, "data is one array", MSE, PLANE, AGE)
    refuses(ValueError, "data differ in length", MSE, PLANE, (AGE, PRESSURE[:-1]))
    refuses(ValueError, "precision is 'double'", MSE, PLANE, data, precision="double")
    refuses(TypeError, "no argument 'step'", MSE, PLANE, data, step=3)
    refuses(ValueError, "must start from finite numbers", MSE, PLANE | {"b": jf.Axis("b", [0.0, np.inf])}, data)
    refuses(ValueError, "different lengths", MSE, {"w": jf.Axis("t", W), "b": jf.Axis("t", B)}, data)
    refuses(ValueError, "also a variable", MSE, {"w": jf.Axis("loss", W), "b": 0.0}, data)
    refuses(ValueError, "key is None", lambda p, key: p, jf.Axis("a", [0.0, 1.0]))
    many = jf.Axis("kind", [lambda p, i=i: p * i for i in range(65)])
    refuses(ValueError, "65 programs.*at most 64", many, jf.Axis("a", [0.0, 1.0]))
    huge = {name: jf.Axis(name, np.zeros(2**11)) for name in "abc"}
    refuses(ValueError, "8,589,934,592 points.*coarser", lambda p: p["a"] + p["b"] + p["c"], huge)


def test_a_surface_inside_of_a_jit_is_refused():
    with pytest.raises(TypeError, match="cannot stand inside"):
        jax.jit(lambda x: jf.surface(lambda p: p * x, jf.Axis("a", [0.0, 1.0])))(1.0)
