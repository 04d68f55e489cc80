"""The catalog of curves: formulas against SciPy, guesses in noise, and R's classical data fitted from them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import jaxfit as jf
from tests.shared.soak import soaking

LM = jf.optimizers.levenberg_marquardt()
R = json.loads((Path(__file__).parent.parent / "shared" / "r_curves.json").read_text())
M = jf.models


def closed(name, x, p):
    """The formulas once more, by SciPy where it has them."""
    n = scipy.stats.norm
    return {
        "oral_dose": lambda a, b, c: a * b * c / (b - c) * (np.exp(-c * x) - np.exp(-b * x)),
        "stretched_exponential": lambda a, b, c: a * np.exp(-((b * x) ** c)),
        "delayed_rise": lambda a, b, c: a * (1 - np.exp(-b * (x - c))),
        "substrate_inhibition": lambda a, b, c: a * x / (b + x + x**2 / c),
        "arrhenius": lambda a, b: a * np.exp(-b / x),
        "asymmetric_hill": lambda a, b, c, d: a / (1 + (b / x) ** c) ** d,
        "cutoff_power_law": lambda a, b, c: a * x**b * np.exp(-c * x),
        "pseudo_voigt": lambda a, b, c, d: a * (d / (1 + ((x - b) / c) ** 2) + (1 - d) * 0.5 ** (((x - b) / c) ** 2)),
        "moffat": lambda a, b, c, d: a * (1 + ((x - b) / c) ** 2) ** -d,
        "split_lorentzian": lambda a, b, c, d: a / (1 + ((x - b) / np.where(x < b, c, d)) ** 2),
        "skewed_gaussian": lambda a, b, c, d: a * scipy.stats.skewnorm.pdf(x, d, b, c),
        "exponential_gaussian": lambda a, b, c, d: a * scipy.stats.exponnorm.pdf(x, 1 / (c * d), b, c),
        "log_normal": lambda a, b, c: a * np.exp(-((np.log(x / b) / c) ** 2) / 2),
        "fano": lambda a, b, c, d: a * (d * c + x - b) ** 2 / (c**2 + (x - b) ** 2),
        "doniach": lambda a, b, c, d: (
            a * np.cos(np.pi * d / 2 + (1 - d) * np.arctan((x - b) / c)) / (1 + ((x - b) / c) ** 2) ** ((1 - d) / 2)
        ),
        "smooth_step": lambda a, b, c: a * n.cdf((x - b) / c),
        "arctan_step": lambda a, b, c: a * (0.5 + np.arctan((x - b) / c) / np.pi),
        "rectangle": lambda a, b, c, d: a * (n.cdf((x - b) / d) - n.cdf((x - c) / d)),
    }[name](*p)


TRUE = {  # params in the order of `names`, on x from 0.2 to 12
    "oral_dose": (20.0, 1.1, 0.25), "stretched_exponential": (4.0, 0.3, 1.7), "delayed_rise": (3.0, 0.4, -1.0),
    "substrate_inhibition": (9.0, 2.0, 5.0), "arrhenius": (7.0, 3.0), "asymmetric_hill": (5.0, 3.0, 3.0, 0.5),
    "cutoff_power_law": (2.0, 1.5, 0.5), "pseudo_voigt": (3.0, 5.0, 0.8, 0.4), "moffat": (3.0, 5.0, 1.0, 1.6),
    "split_lorentzian": (3.0, 5.0, 0.6, 1.8), "skewed_gaussian": (6.0, 4.0, 2.0, 4.0),
    "exponential_gaussian": (6.0, 4.0, 0.5, 0.6), "log_normal": (3.0, 4.0, 0.4), "fano": (2.0, 5.0, 0.7, 1.5),
    "doniach": (3.0, 5.0, 0.6, 0.15), "smooth_step": (3.0, 5.0, 0.9), "arctan_step": (3.0, 5.0, 0.6),
    "rectangle": (3.0, 4.0, 8.0, 0.4),
}  # fmt: skip
X = np.linspace(0.2, 12, 120)


@pytest.mark.parametrize("name", TRUE)
def test_a_curve_is_its_formula(name):
    model, p = getattr(M, name), TRUE[name]
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(model)(dict(zip(model.names, p, strict=True)), X))
    # far tails are differences of numbers near 1: rounding there is 1e-16 of the height, and no part of the tail
    np.testing.assert_allclose(found, closed(name, X, p), rtol=1e-9, atol=1e-12)


def test_a_black_body_radiates_by_stefan_and_boltzmann():
    """pi times the integral over all wavelengths is sigma T**4; the peak lies by Wien's law."""
    with jax.enable_x64(True):
        found, _ = scipy.integrate.quad(
            lambda x: float(M.planck({"scale": 1.0, "temperature": 1000.0}, np.float64(x))), 0.5, 500, limit=200
        )
    tail = 1 - 2e-5  # beyond 500 and below 0.5 micrometers
    np.testing.assert_allclose(np.pi * found, 5.670374419e-8 * 1e12, rtol=1e-4 + 1 - tail)


def test_equal_rates_of_a_dose_are_a_limit_and_no_hole():
    with jax.enable_x64(True):
        dose = jax.jit(lambda a: M.oral_dose({"exposure": 2.0, "absorption": a, "elimination": 1.0}, 3.0))
        at = [float(dose(1 + e)) for e in (0.0, 1e-9, 1e-3)]
        slope = jax.grad(dose)(1.0)
    np.testing.assert_allclose(at[0], 2 * 3 * np.exp(-3), rtol=1e-12)
    np.testing.assert_allclose(at[:2], at[0], rtol=1e-8)
    np.testing.assert_allclose((at[2] - at[0]) / 1e-3, slope, rtol=2e-3)


# a rate, a power of x, a peak with a shape, and a step: each kind of guess has another grid of shapes
@pytest.mark.parametrize("name", soaking(TRUE, keep=("arctan_step",)))
def test_a_guess_is_near_the_truth_in_noise(name):
    """The guess explains nearly all of the curve: what it leaves is a tenth of it at most, in the root mean square."""
    model, p = getattr(M, name), TRUE[name]
    truth = closed(name, X, p)
    y = truth + 0.02 * truth.std() * np.random.default_rng(0).normal(size=len(X))
    guess = model.guess(X, y)
    with jax.enable_x64(True):
        left = np.asarray(jax.jit(model)(guess, X)) - truth
    assert np.sqrt(np.mean(left**2)) < 0.12 * truth.std(), guess


@pytest.mark.soak
@pytest.mark.parametrize("name", TRUE)
def test_a_fit_from_the_guess_finds_the_truth(name):
    model, p = getattr(M, name), TRUE[name]
    y = closed(name, X, p) + 1e-3 * closed(name, X, p).std() * np.random.default_rng(0).normal(size=len(X))
    fit = jf.curve_fit(model, None, (X, y))
    assert fit.status == jf.Status.CONVERGED
    far = (np.array([fit.params[n] for n in model.names]) - p) / np.array(
        [jf.standard_errors(fit)[n] for n in model.names]
    )
    assert (np.abs(far) < 5).all(), (fit.params, far)


CURVES = {
    "Theoph": M.oral_dose, "Puromycin": M.michaelis_menten, "DNase": M.logistic, "Orange": M.logistic,
    "Loblolly": M.exponential_decay + M.constant, "Indometh": M.exponentials(2), "BOD": M.exponential_rise,
    "ChickWeight": M.logistic,
}  # fmt: skip


@pytest.mark.parametrize("name", soaking(CURVES, keep=("BOD",)))
def test_one_fit_of_the_first_group_finds_the_sum_of_squares_of_r(name):
    group = next(iter(R[name].values()))
    x = np.log(group["x"]) if name == "DNase" else np.array(group["x"])
    fit = jf.curve_fit(CURVES[name], None, (x, np.array(group["y"])))
    np.testing.assert_allclose(fit.loss, group["rss"], rtol=1e-8)


def swept(name, x=lambda x: x):
    """All groups of a data set in one sweep, from guesses alone; their groups in order."""
    model, groups = CURVES[name], list(R[name].values())
    x, y, where = jf.datasets.pad([(x(np.array(g["x"])), np.array(g["y"])) for g in groups])
    axes = [jf.Axis("group", v) for v in (x, y, where)]
    start = jf.Call(model.guess, *axes)
    return jf.sweep(jf.losses.rss(model, masked=True), start, tuple(axes), optimizer=LM, steps=2000), groups


def check(grid, groups, *numbers):
    """Params to five digits of those of R's parametrization, in the sum of squares to eight."""
    np.testing.assert_allclose(grid.results.loss, [g["rss"] for g in groups], rtol=1e-8)
    expected = np.array([g["fit"] for g in groups]).T
    for mine, theirs in zip(numbers, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.soak
def test_theophylline_in_twelve_subjects():
    """R's Theoph by SSfol: lKe, lKa and lCl; ?SSfol prints -2.9196, 0.5752 and -3.9159 for the first subject."""
    grid, groups = swept("Theoph")
    r, dose = grid.results, np.array([g["dose"] for g in groups])
    np.testing.assert_allclose(groups[0]["fit"], [-2.9196, 0.5752, -3.9159], atol=5e-5)
    check(
        grid, groups, np.log(r["params.elimination"]), np.log(r["params.absorption"]),
        np.log(dose / r["params.exposure"]),
    )  # fmt: skip


@pytest.mark.soak
def test_puromycin_with_and_without():
    """?SSmicmen prints 212.7 and 0.06412 for the treated cells."""
    grid, groups = swept("Puromycin")
    check(grid, groups, grid.results["params.vmax"], grid.results["params.km"])


@pytest.mark.soak
def test_dnase_in_eleven_runs():
    """?SSlogis prints 2.34518, 1.48309 and 1.04146 for the first run, with x = log(conc)."""
    grid, groups = swept("DNase", np.log)
    np.testing.assert_allclose(groups[0]["fit"], [2.34518, 1.48309, 1.04146], atol=5e-6)
    r = grid.results
    check(grid, groups, r["params.capacity"], r["params.midpoint"], 1 / r["params.rate"])


@pytest.mark.soak
def test_orange_trees():
    grid, groups = swept("Orange")
    r = grid.results
    check(grid, groups, r["params.capacity"], r["params.midpoint"], 1 / r["params.rate"])


@pytest.mark.soak
def test_loblolly_pines():
    """?SSasymp prints 94.1282, -8.2508 and -3.2176 for seed 329."""
    grid, groups = swept("Loblolly")
    r = grid.results
    level = r["params.offset"]
    check(grid, groups, level, level + r["params.amplitude"], np.log(r["params.rate"]))


@pytest.mark.soak
def test_indomethacin_in_six_subjects():
    """?SSbiexp prints 2.0293, 0.5794, 0.1916 and -1.7878 for the first subject."""
    grid, groups = swept("Indometh")
    rates, heights = grid.results["params.rate"].to_numpy(), grid.results["params.amplitude"].to_numpy()
    order = np.argsort(-rates, axis=1)
    rates, heights = (np.take_along_axis(v, order, axis=1) for v in (rates, heights))
    check(grid, groups, heights[:, 0], np.log(rates[:, 0]), heights[:, 1], np.log(rates[:, 1]))


@pytest.mark.soak
def test_oxygen_demand():
    """?SSasympOrig prints 19.143 and -0.6328."""
    grid, groups = swept("BOD")
    check(grid, groups, grid.results["params.height"], np.log(grid.results["params.rate"]))


@pytest.mark.soak
def test_chicks_that_the_data_determine():
    """Of R's ChickWeight all but those whose limit lies beyond any weight, or that died young."""
    grid, groups = swept("ChickWeight")
    fine = np.array([len(g["x"]) > 8 and g["fit"][0] < 900 for g in groups])
    assert fine.sum() == 40
    r = grid.results.isel(group=np.flatnonzero(fine))
    groups = [g for g, yes in zip(groups, fine, strict=True) if yes]
    np.testing.assert_allclose(r.loss, [g["rss"] for g in groups], rtol=1e-8)
    expected = np.array([g["fit"] for g in groups])
    np.testing.assert_allclose(r["params.capacity"], expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(1 / r["params.rate"], expected[:, 2], rtol=1e-5)
