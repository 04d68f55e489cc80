"""Errors in x: published fits, and a dense fit of params and true abscissas together as the slow and obvious way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxfit as jf

LM = jf.optimizers.levenberg_marquardt()

# Pearson (1901), doi:10.1080/14786440109462720, with the weights of York (1966), doi:10.1139/p66-090
X = np.array([0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
Y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
X_SIGMA = np.array([1000, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1]) ** -0.5
SIGMA = np.array([1, 1.8, 4, 8, 20, 20, 70, 70, 100, 500]) ** -0.5


def fuller(params, x):
    return params[0] + params[1] * jnp.expm1(params[2] * x) ** 2


def dense(f, p, x, y, sigma, x_sigma, r=0.0):
    """Params, their covariance for noise of one unit, and the sum: all n + k unknowns in one Jacobian."""
    k, free = len(p), x_sigma > 0

    def residuals(z):
        u = np.where(free, 0, x)
        u[free] = z[k:]
        a = np.where(free, (u - x) / np.where(free, x_sigma, 1), 0)
        b = (f(z[:k], u) - y) / sigma
        return np.concatenate([a, (b - r * a) / np.sqrt(1 - r**2)])

    start = np.concatenate([p, x[free]])
    found = scipy.optimize.least_squares(
        residuals, start, jac="3-point", x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    covariance = np.linalg.inv(found.jac.T @ found.jac)[:k, :k]
    return found.x[:k], covariance, 2 * found.cost


@pytest.fixture(scope="module")
def york():
    return jf.curve_fit(jf.models.line, None, (X, Y), SIGMA, True, x_sigma=X_SIGMA)


def test_pearsons_points_with_yorks_weights_have_the_published_line(york):
    assert york.status == jf.Status.CONVERGED
    np.testing.assert_allclose([york.params["w"], york.params["b"]], [-0.480533, 5.479910], atol=5e-7)
    np.testing.assert_allclose(york.loss, 11.866353, atol=5e-7)
    errors = jf.standard_errors(york)  # of the least squares estimation: York and others (2004), doi:10.1119/1.1632486
    np.testing.assert_allclose([errors["w"], errors["b"]], [0.057985, 0.294971], atol=5e-7)


def test_one_flag_scales_errors_and_covariance_alike(york):
    scaled = jf.curve_fit(jf.models.line, None, (X, Y), SIGMA, x_sigma=X_SIGMA)
    np.testing.assert_allclose(scaled.params["w"], york.params["w"], rtol=1e-12)
    errors, covariance = jf.standard_errors(scaled), jf.covariance(scaled)
    np.testing.assert_allclose([errors["w"], errors["b"]], [0.070620, 0.359247], atol=5e-7)  # sd_beta of ODRPACK
    np.testing.assert_allclose(covariance["w"]["w"], errors["w"] ** 2, rtol=1e-12)


@pytest.mark.soak
def test_the_example_of_the_guide_of_odrpack():
    """Boggs, Byrd, Rogers and Schnabel (1992), User's Reference Guide for ODRPACK, 2.C.i; data of Fuller (1987)."""
    x = np.array([0, 0, 5, 7, 7.5, 10, 16, 26, 30, 34, 34.5, 100])
    y = np.array([1265, 1263.6, 1258, 1254, 1253, 1249.8, 1237, 1218, 1220.6, 1213.8, 1215.5, 1212])
    held = np.isin(x, (0, 100))  # whose x is certain
    x_sigma = np.where(held, 0.0, 1.0)
    fit = jf.curve_fit(fuller, np.array([1500.0, -50.0, -0.1]), (x, y), x_sigma=x_sigma)
    np.testing.assert_allclose(fit.params, [1264.65481, -54.0184100, -0.0878497122], rtol=2e-6)  # its tolerance
    exact = dense(lambda p, x: p[0] + p[1] * np.expm1(p[2] * x) ** 2, fit.params, x, y, np.ones(12), x_sigma)
    np.testing.assert_allclose(fit.params, exact[0], rtol=1e-7)
    np.testing.assert_allclose(jf.standard_errors(fit), [1.03493, 1.58400, 0.00633220], rtol=5e-5)


def made():
    rng = np.random.default_rng(5)
    x = np.linspace(-2, 3, 25)
    noisy = x + rng.normal(0, 0.15, 25)
    for name, f, p in (
        ("peak", lambda p, x: p[0] * np.exp(-(((x - p[1]) / p[2]) ** 2)), [3.0, 0.4, 1.2]),
        ("parabola", lambda p, x: p[0] + p[1] * x + p[2] * x**2, [1.0, -0.6, 0.3]),
        ("growth", lambda p, x: p[0] * np.exp(p[1] * x), [1.0, 0.7]),
        ("wave", lambda p, x: p[0] * np.sin(p[1] * x + p[2]), [2.0, 1.3, 0.2]),
    ):
        yield pytest.param(f, np.array(p), noisy, f(p, x) + rng.normal(0, 0.1, 25), id=name)


CASES = list(made())
MODELS = {
    "peak": lambda p, x: p[0] * jnp.exp(-(((x - p[1]) / p[2]) ** 2)),
    "parabola": lambda p, x: p[0] + p[1] * x + p[2] * x**2,
    "growth": lambda p, x: p[0] * jnp.exp(p[1] * x),
    "wave": lambda p, x: p[0] * jnp.sin(p[1] * x + p[2]),
}


@pytest.mark.parametrize(
    ("f", "p", "x", "y"), [*CASES[:1], *(pytest.param(*c.values, id=c.id, marks=pytest.mark.soak) for c in CASES[1:])]
)
def test_params_and_errors_are_those_of_a_fit_with_the_abscissas_as_params(f, p, x, y, request):
    model = MODELS[request.node.callspec.id]
    r = np.linspace(-0.8, 0.9, 25)
    sigma, x_sigma = np.full(25, 0.1), np.where(np.arange(25) % 5, 0.15, 0.0)
    r[x_sigma == 0] = 0
    fit = jf.curve_fit(model, p, (x, y), sigma, True, x_sigma=x_sigma, correlation=r)
    expected, covariance, least = dense(f, p, x, y, sigma, x_sigma, r)
    assert fit.status == jf.Status.CONVERGED
    np.testing.assert_allclose(fit.loss, least, rtol=1e-7)
    np.testing.assert_allclose(fit.params, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(jf.covariance(fit), covariance, rtol=2e-3, atol=1e-8)


def test_without_errors_in_x_it_is_chi_squared():
    one, both = jf.losses.chi_squared(jf.models.line), jf.losses.orthogonal_distance(jf.models.line)
    params = {"w": 0.3, "b": 1.0}
    values = jax.jit(lambda *data: (both(params, *data, 0 * X), one(params, *data)))(X, Y, SIGMA)
    np.testing.assert_allclose(*values, rtol=1e-6)


@pytest.mark.soak
def test_the_loss_has_the_second_derivatives_of_the_least_sum():
    """By differences of the least sum over the abscissas, which `dense` finds with the params held."""
    loss = jf.losses.orthogonal_distance(lambda p, x: p[0] * x**2 + p[1])
    data = X[1:5], Y[1:5], np.full(4, 0.5), np.full(4, 0.3)
    with jax.enable_x64(True):
        p = jnp.array([0.4, 1.0])
        hessian = np.asarray(jax.jit(jax.hessian(loss))(p, *data))
        gradient = jax.jit(jax.grad(loss))
        h = 1e-5
        slopes = [(gradient(p.at[i].add(h), *data) - gradient(p.at[i].add(-h), *data)) / (2 * h) for i in range(2)]
        np.testing.assert_allclose(hessian, np.stack(slopes), rtol=1e-6)
        assert abs(hessian - hessian.T).max() < 1e-9 * abs(hessian).max()

        def least(q):
            def one(x, y):
                f = lambda u: ((u - x) / 0.3) ** 2 + ((q[0] * u**2 + q[1] - y) / 0.5) ** 2  # noqa: E731
                return scipy.optimize.minimize_scalar(f, bracket=(x - 0.1, x + 0.1), tol=1e-12).fun

            return sum(one(x, y) for x, y in zip(*data[:2], strict=True))

        np.testing.assert_allclose(jax.jit(loss)(p, *data), least([0.4, 1.0]), rtol=1e-9)


def test_slopes_by_a_param_have_derivatives_by_x_and_by_numbers_that_the_model_holds():
    """By central differences, whose own error is about the square of their step."""
    y, sigma, x_sigma, step = Y[1:5], np.full(4, 0.5), np.full(4, 0.3), 1e-4

    def slope(point):  # a number that the model holds, then x
        loss = jf.losses.orthogonal_distance(lambda p, x: p * x**2 + point[0])
        return jax.jvp(lambda p: loss(p, point[1:], y, sigma, x_sigma), (0.4,), (1.0,))[1]

    with jax.enable_x64(True):
        point, moves = np.array([1.0, *X[1:5]]), step * np.eye(5)
        found = jax.jit(jax.vmap(jax.value_and_grad(slope)))(np.concatenate([[point], point + moves, point - moves]))
        np.testing.assert_allclose(found[1][0], (found[0][1:6] - found[0][6:]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.soak
def test_lanes_end_and_err_as_fits_alone(york):
    noise = np.random.default_rng(0).normal(0, 1, (2, 4, 10))
    noise[:, 0] = 0
    xs, ys = X + X_SIGMA * noise[0], Y + SIGMA * noise[1]
    data = jf.Axis("set", xs), jf.Axis("set", ys), SIGMA, X_SIGMA
    grid = jf.sweep(
        jf.losses.orthogonal_distance(jf.models.line), {"w": -0.5, "b": 5.0}, data, optimizer=LM, steps=100
    )  # fmt: skip
    np.testing.assert_allclose(grid.results["params.w"][0], york.params["w"], rtol=1e-9)
    errors = jf.standard_errors(grid)["params.w"]
    np.testing.assert_allclose(errors[0], jf.standard_errors(york)["w"], rtol=1e-7)
    for i in (1, 3):
        expected, covariance, _ = dense(lambda p, x: p[0] * x + p[1], [-0.5, 5.0], xs[i], ys[i], SIGMA, X_SIGMA)
        np.testing.assert_allclose(grid.results["params.w"][i], expected[0], rtol=1e-6)
        np.testing.assert_allclose(errors[i], covariance[0, 0] ** 0.5, rtol=1e-4)


def test_a_masked_point_counts_for_nothing():
    loss = jf.losses.orthogonal_distance(jf.models.line, masked=True)
    more = [np.append(v, n) for v, n in ((X, np.nan), (Y, np.nan), (SIGMA, np.nan), (X_SIGMA, np.nan))]
    with jax.enable_x64(True):
        found = jax.jit(jax.value_and_grad(loss))({"w": -0.48, "b": 5.0}, *more, np.arange(11) < 10)
        alone = jf.losses.orthogonal_distance(jf.models.line)
        expected = jax.jit(jax.value_and_grad(alone))({"w": -0.48, "b": 5.0}, X, Y, SIGMA, X_SIGMA)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[1]["w"], expected[1]["w"], rtol=1e-12)


@pytest.mark.soak
def test_a_profile_and_a_band_of_a_line_with_errors_in_x(york):
    found = jf.intervals(york, "profile")["w"]

    def rise(w):
        def least(b):
            return ((Y - w * X - b) ** 2 / (SIGMA**2 + w**2 * X_SIGMA**2)).sum()

        return scipy.optimize.minimize_scalar(least, bracket=(5, 6), tol=1e-12).fun - york.loss - 3.841458820694124

    ends = scipy.optimize.brentq(rise, -0.8, -0.481), scipy.optimize.brentq(rise, -0.48, -0.2)
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-5)
    curve, c = jf.band(york, [2.0]), jf.covariance(york)
    expected = 4 * c["w"]["w"] + 4 * c["w"]["b"] + c["b"]["b"]
    np.testing.assert_allclose(curve.error[0] ** 2, expected, rtol=1e-9)


def test_what_does_not_fit_together_is_refused():
    line = jf.models.line
    with pytest.raises(ValueError, match=r"data\[3\] \(x_sigma\) has shape \(3,\)"):
        jf.curve_fit(line, None, (X, Y), SIGMA, x_sigma=np.ones(3))
    with pytest.raises(ValueError, match=r"x has shape \(10, 2\) and y \(10,\); .* use jf.losses.implicit_distance"):
        jf.losses.orthogonal_distance(lambda p, x: x @ p)(np.ones(2), np.ones((10, 2)), Y, SIGMA, X_SIGMA)
    with pytest.raises(ValueError, match="correlation is given, but no x_sigma"):
        jf.curve_fit(line, None, (X, Y), SIGMA, correlation=0.1)
    with pytest.raises(ValueError, match="correlation is 1.0"):
        jf.curve_fit(line, None, (X, Y), SIGMA, x_sigma=0.1, correlation=1.0)
    with pytest.raises(ValueError, match="x_sigma is -0.1"):
        jf.curve_fit(line, None, (X, Y), SIGMA, x_sigma=-0.1)


FULLER = np.array([  # Fuller (1987), Measurement Error Models, page 244; the guide of ODRPACK, its implicit example
    (0.50, -0.12), (1.20, -0.60), (1.60, -1.00), (1.86, -1.40), (2.12, -2.54), (2.36, -3.36), (2.44, -4.00),
    (2.36, -4.75), (2.06, -5.25), (1.74, -5.64), (1.34, -5.97), (0.90, -6.32), (-0.28, -6.44), (-0.78, -6.44),
    (-1.36, -6.41), (-1.90, -6.25), (-2.50, -5.88), (-2.88, -5.50), (-3.18, -5.24), (-3.44, -4.86),
])  # fmt: skip
GANDER = np.array([(1, 7), (2, 6), (5, 8), (7, 7), (9, 5), (3, 7), (6, 2), (8, 4)], float)
LEVENBERG = jf.optimizers.levenberg_marquardt()


def conic(b, x):
    u, v = x[:, 0] - b[0], x[:, 1] - b[1]
    return b[2] * u**2 + 2 * b[3] * u * v + b[4] * v**2 - 1


def ellipse(p, x):
    u, v = x[:, 0] - p["x"], x[:, 1] - p["y"]
    cosine, sine = jnp.cos(p["angle"]), jnp.sin(p["angle"])
    return ((cosine * u + sine * v) / p["a"]) ** 2 + ((cosine * v - sine * u) / p["b"]) ** 2 - 1


def circle(p, x):
    return (x[:, 0] - p["x"]) ** 2 + (x[:, 1] - p["y"]) ** 2 - p["radius"] ** 2


def implicit(f, start, points, sigma=1.0):
    return jf.fit(jf.losses.implicit_distance(f), start, (points, np.full(points.shape, sigma)), optimizer=LEVENBERG)


@pytest.fixture(scope="module")
def fitted_ellipse():
    return implicit(conic, np.array([-1.0, -3.0, 0.09, 0.02, 0.08]), FULLER)


@pytest.mark.soak
def test_the_implicit_example_of_the_guide_of_odrpack(fitted_ellipse):
    """ODRPACK's own run, as the tests of scipy.odr record it, stops within 1e-6 of the params."""
    beta = [-0.9993809167281279, -2.9310484652026476, 0.0875730502693354, 0.0162299708984738, 0.0797537982976416]
    errors = [0.1113840353364371, 0.1097673310686467, 0.0041060738314314, 0.0027500347539902, 0.0034962501532468]
    np.testing.assert_allclose(fitted_ellipse.params, beta, rtol=5e-6)
    np.testing.assert_allclose(jf.standard_errors(fitted_ellipse, absolute_sigma=False), errors, rtol=5e-5)


@pytest.mark.soak
def test_the_geometric_circle_and_ellipse_of_gander_golub_and_strebel():
    """Gander, Golub and Strebel (1994), doi:10.1007/BF01934268: center, radius; center, axes, angle."""
    round_ = implicit(circle, {"x": 5.0, "y": 5.0, "radius": 3.0}, GANDER[:6]).params
    np.testing.assert_allclose([round_[k] for k in ("x", "y", "radius")], [4.7398, 2.9835, 4.7142], atol=6e-5)
    long = implicit(ellipse, {"x": 4.0, "y": 5.0, "a": 5.0, "b": 3.0, "angle": 0.3}, GANDER).params
    found = [long[k] for k in ("x", "y", "a", "b", "angle")]
    np.testing.assert_allclose(found, [2.6996, 3.8160, 6.5187, 3.0319, 0.3596], atol=6e-5)


@pytest.mark.soak
def test_distances_from_an_ellipse_are_those_of_a_search_along_it():
    """From outside, from inside and with unequal errors, which stretch the plane; each within the valley of its x."""
    rng, p = np.random.default_rng(0), {"x": 0.5, "y": -0.2, "a": 3.0, "b": 2.0, "angle": 0.4}
    points, sigma = rng.normal(size=(30, 2)) * (2.5, 2.0), rng.uniform(0.5, 2.0, size=(30, 2))
    points = points[np.abs(ellipse(p, points) + 0.2) > 0.35]  # but for the middle, which has several valleys
    sigma = sigma[: len(points)]
    with jax.enable_x64(True):
        found = np.asarray(jf.losses.implicit_distance(ellipse).residuals(p, points, sigma))
    t = np.linspace(0, 2 * np.pi, 20_001)
    u, v = 3 * np.cos(t), 2 * np.sin(t)
    there = np.stack([0.5 + np.cos(0.4) * u - np.sin(0.4) * v, -0.2 + np.sin(0.4) * u + np.cos(0.4) * v], 1)
    square = np.sum(((there[None] - points[:, None]) / sigma[:, None]) ** 2, axis=2)
    lower = (square <= np.roll(square, 1, 1)) & (square <= np.roll(square, -1, 1))
    for i, e in enumerate(found):
        valleys = np.sqrt(square[i][lower[i]])
        assert np.min(np.abs(valleys - abs(e))) < 1e-5 and abs(e) <= valleys.max() + 1e-5
    np.testing.assert_array_equal(np.sign(found), np.sign(ellipse(p, points)))
    assert np.mean(np.abs(found) < np.sqrt(square.min(1)) + 1e-5) > 0.9


@pytest.mark.soak
def test_keplers_ellipse_lies_within_its_errors():
    """An orbit of eccentricity 0.6 around the origin, its focus: r = p - e x, from points with errors of 0.02."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    r = 1.2 / (1 + 0.6 * np.cos(turn))
    points = np.stack([r * np.cos(turn), r * np.sin(turn)], 1) + 0.02 * np.random.default_rng(2).normal(size=(60, 2))

    def orbit(p, x):
        return jnp.hypot(x[:, 0], x[:, 1]) + p["eccentricity"] * x[:, 0] - p["parameter"]

    fit = implicit(orbit, {"eccentricity": 0.3, "parameter": 1.0}, points, 0.02)
    error = jf.standard_errors(fit)
    assert abs(fit.params["eccentricity"] - 0.6) < 3 * error["eccentricity"] < 0.02
    assert abs(fit.params["parameter"] - 1.2) < 3 * error["parameter"] < 0.02
    assert abs(jf.goodness_of_fit(fit).reduced_chi_squared - 1) < 4 * np.sqrt(2 / 58)


@pytest.mark.parametrize(
    ("function", "x", "sigma", "message"),
    [
        (circle, np.ones((5, 2)), np.ones((5, 1)), r"x_sigma \(5, 1\); both are \(n, d\)"),
        (circle, np.ones(5), np.ones(5), r"x has shape \(5,\)"),
        (lambda p, x: x * p["x"], np.ones((5, 2)), np.ones((5, 2)), r"f has shape \(5, 2\) for x \(5, 2\); it returns"),
    ],
)
def test_points_of_an_implicit_curve_that_do_not_fit_are_refused(function, x, sigma, message):
    with pytest.raises(ValueError, match=message):
        jf.fit(
            jf.losses.implicit_distance(function), {"x": 0.0, "y": 0.0, "radius": 1.0}, (x, sigma), optimizer=LEVENBERG
        )


def test_coordinates_apart_are_refused_with_how_to_put_them_together():
    x, y = np.array([3.0, 0.0, 2.0]), np.array([0.0, 3.1, 2.2])
    loss = jf.losses.implicit_distance(lambda p, x: x[:, 0] ** 2 + x[:, 1] ** 2 - p**2)
    with pytest.raises(ValueError, match=r"x has shape \(3,\).*np.stack\(\[x, y\], axis=1\), and x_sigma their errors"):
        loss(3.0, x, y)
    points = np.stack([x, y], axis=1)
    with pytest.raises(ValueError, match=r"np.full\(x.shape, x_sigma\)$"):
        loss(3.0, points, np.array(0.1))
    assert np.isfinite(jax.jit(loss)(3.0, points, np.full(points.shape, 0.1)))
