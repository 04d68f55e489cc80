"""Axes that are drawn: points spread evenly over ranges, which move together."""

import numpy as np
import pytest
from scipy.stats import qmc

import jaxfit as jf
from jaxfit.verbs.sampling import MOST_SOBOL, sobol_points


def test_points_are_more_even_than_a_latin_hypercube_and_the_key_tells_them():
    """Centered discrepancy of 128 points in 4 dimensions: 3.5e-4 by SciPy's scrambled Sobol, 2e-3 by its hypercube."""
    found = [qmc.discrepancy(sobol_points(128, 4, seed)) for seed in range(8)]
    plain = [qmc.discrepancy(qmc.LatinHypercube(4, seed=seed).random(128)) for seed in range(8)]
    assert max(found) < 5e-4 < min(plain) / 2
    assert (sobol_points(5, 3, 1) == sobol_points(5, 3, 1)).all() and (
        sobol_points(5, 3, 1) != sobol_points(5, 3, 2)
    ).all()
    assert (sobol_points(5, 3, 1) == sobol_points(8, 3, 1)[:5]).all()  # more points keep those that were there


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
def test_any_count_of_points_lies_in_the_unit_box(count):
    found = sobol_points(count, 2, 0)
    assert found.shape == (count, 2) and (found >= 0).all() and (found < 1).all()
    if count.bit_count() == 1:
        np.testing.assert_array_equal(np.sort(np.floor(found * count), axis=0), np.arange(count)[:, None] * np.ones(2))


def test_beyond_the_dimensions_of_sobol_a_hypercube_is_drawn():
    found = sobol_points(4, MOST_SOBOL + 1, 0)
    np.testing.assert_array_equal(np.sort(np.floor(found * 4), axis=0), np.arange(4)[:, None] * np.ones(MOST_SOBOL + 1))


def test_ranges_are_drawn_in_equal_lengths_equal_ratios_and_equal_shares():
    space = {"rate": jf.LogUniform(1e-5, 1e-1), "decay": jf.Uniform(-1, 3), "size": jf.Choice([1.0, 2.0, 4.0, 8.0])}
    drawn = jf.sample(space | {"kept": "as it is"}, 64, key=0)
    rate, decay, size = (np.asarray(drawn[name].values) for name in space)
    np.testing.assert_array_equal(np.sort(np.floor((np.log10(rate) + 5) * 16)), np.arange(64))
    np.testing.assert_array_equal(np.sort(np.floor((decay + 1) * 16)), np.arange(64))
    assert np.unique(size, return_counts=True)[1].tolist() == [16] * 4
    assert drawn["kept"] == "as it is" and {drawn[name].name for name in space} == {"trial"}


def test_a_sweep_of_drawn_axes_has_one_dimension_and_tells_each_value():
    drawn = jf.sample({"rate": jf.LogUniform(1e-3, 0.5), "momentum": jf.Uniform(0, 0.9)}, 16, key=1, name="setting")
    method = jf.optimizers.momentum(drawn["rate"], drawn["momentum"])
    grid = jf.sweep(lambda p: p**2, 3.0, optimizer=method, steps=9)
    assert grid.results.loss.dims == ("setting",)
    told = grid.results["optimizer.learning_rate"].values
    np.testing.assert_array_equal(told, drawn["rate"].values)
    assert jf.best(grid).coords["optimizer.momentum"] in drawn["momentum"].values


BAD = {
    "nothing to draw": (lambda: jf.sample({"rate": 0.1}, 8, key=0), ValueError, "in which nothing is to be drawn"),
    "no count": (lambda: jf.sample(jf.Uniform(0, 1), 0, key=0), ValueError, "count is 0, but it must be"),
    "ends turned": (lambda: jf.Uniform(1, 0), ValueError, "low is 1 and high is 0, but low must be below high"),
    "zero ratio": (lambda: jf.LogUniform(0, 1), ValueError, "low is 0, but ratios need positive numbers; see jf.Uni"),
    "no number": (lambda: jf.Uniform("a", 1), TypeError, "low is 'a', but it must be a number"),
    "infinite": (lambda: jf.Uniform(0, np.inf), ValueError, "high is inf, but it must be finite"),
    "text": (lambda: jf.Choice("adam"), TypeError, "values is 'adam', but it must be a list"),
    "a set": (lambda: jf.Choice({16, 32}), TypeError, r"values is .*, but it must be a list of them"),
    "a dictionary": (lambda: jf.Choice({"small": 16}), TypeError, "but it must be a list of them"),
    "empty": (lambda: jf.Choice([]), ValueError, "values is empty; give at least one"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_ranges_are_refused(case):
    call, error, text = BAD[case]
    with pytest.raises(error, match=text):
        call()
