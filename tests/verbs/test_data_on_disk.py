"""Data sets in an array on disk are read as their blocks run: memory does not grow with their number."""

import hashlib
import re
import tracemalloc

import numpy as np
import pytest
import xarray as xr

import jaxfit as jf
from jaxfit import problems
from jaxfit.engine.parts import pool_shape
from jaxfit.engine.settings import using
from jaxfit.stores.identity import values_digest
from jaxfit.verbs.sweeps import plan_sweep
from tests.shared.soak import soaking

POINTS = 200
X = np.linspace(0, 1, POINTS)


def level(params, x):
    return params + 0 * x


NEAR = np.finfo(float).eps ** (2 / 3)  # of a standard error: where Levenberg-Marquardt counts as converged
METHOD = jf.optimizers.levenberg_marquardt()


def sweep(y, sigma=None, start=0.0, optimizer=METHOD, **more):
    loss = (jf.losses.rss if sigma is None else jf.losses.chi_squared)(level)
    data = (X, *(jf.Axis("set", values) for values in (y, sigma) if values is not None))
    return jf.sweep(loss, start, data, optimizer=optimizer, steps=20, progress=False, **more)


def on_disk(path, sets, dtype):
    """An array of noise in a file, written by blocks."""
    y = np.lib.format.open_memmap(path, "w+", dtype, (sets, POINTS))
    for at in problems.row_blocks(y):
        y[at] = np.random.default_rng(at.start).normal(size=y[at].shape)
    del y
    return np.load(path, mmap_mode="r")


def peak_of(function):
    """The largest number of bytes that Python and NumPy took at once, above those at the beginning; and the result."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("stored", "dtype"),
    soaking([(True, ">f4"), (False, "float64"), (True, "float64"), (False, ">f4")], keep=1, names=2),
)
def test_a_sweep_over_sets_on_disk_never_takes_them_all_into_memory(tmp_path, dtype, stored):
    """The bound is half of what the values take in double precision, in which they are fitted."""
    y = on_disk(tmp_path / "y.npy", 20_000, dtype)
    with using(block_lanes=1024):
        sweep(y[:10_000], store=tmp_path / "first" if stored else None)  # which compiles the program
        peak, grid = peak_of(lambda: sweep(y, store=tmp_path / "store" if stored else None))
        whole = sweep(np.array(y))
    assert peak < 8 * y.size / 2
    assert (grid.results.status == jf.Status.CONVERGED).all()
    mean, error = np.mean(y, axis=1, dtype=float), np.std(y, axis=1, dtype=float) / np.sqrt(POINTS - 1)
    assert (np.abs(grid.results.params.values - mean) <= NEAR * error).all()
    for name in ("params", "loss", "steps"):
        assert np.array_equal(grid.results[name], whole.results[name]), name


@pytest.mark.soak
def test_errors_of_params_are_computed_in_pieces_of_the_sets_on_disk(tmp_path):
    """The standard error of a mean is s / sqrt(n - 1), with s the root of the mean square from it."""
    y = on_disk(tmp_path / "y.npy", 20_000, "float64")
    grid = sweep(y)
    with using(block_bytes=2**23):
        jf.standard_errors(sweep(y[:10_000]))  # which compiles the program
        peak, errors = peak_of(lambda: jf.standard_errors(grid))
    assert peak < y.nbytes / 2
    np.testing.assert_allclose(errors["params"], np.std(y, axis=1) / np.sqrt(POINTS - 1), rtol=1e-12)


def test_errors_in_pieces_are_those_of_all_lanes_at_once_where_axes_multiply():
    y = np.random.default_rng(0).normal(size=(50, POINTS))
    newton = jf.optimizers.sgd(0.5 / POINTS)  # which is at the mean after one step
    grid = sweep(y, start=jf.Axis("start", np.array([0.0, 1.0, 2.0])), optimizer=newton, precision="float64")
    at_once = jf.standard_errors(grid)
    with using(block_bytes=4 * 7 * 8 * (POINTS + 1)):  # seven lanes in a piece, and three in the last
        pieces = jf.standard_errors(grid)
    assert pieces.sizes == grid.results.sizes
    xr.testing.assert_allclose(pieces, at_once, rtol=1e-14)


@pytest.mark.soak
def test_memory_beyond_the_results_is_the_same_for_two_and_four_hundred_thousand_sets(tmp_path):
    """The results of a lane, of which the store keeps a number for the coordinate, take less than 100 bytes."""
    peaks = {}
    for sets in (20_000, 200_000, 400_000):
        y = on_disk(tmp_path / f"{sets}.npy", sets, "float64")
        peaks[sets], grid = peak_of(lambda y=y, sets=sets: sweep(y, store=tmp_path / f"store {sets}"))
        assert (grid.results.status == jf.Status.CONVERGED).all()
    assert peaks[400_000] - peaks[200_000] < 200_000 * 100


def test_what_is_wrong_with_numbers_is_counted_over_all_blocks(tmp_path):
    rows = problems.BLOCK_BYTES // (8 * POINTS)
    sets = 2 * rows + 3
    y, sigma = np.zeros((sets, POINTS)), np.ones((sets, POINTS))
    y[rows + 1, 7], y[-1, :2], sigma[rows, 5], sigma[-1, 3] = np.nan, np.inf, 0.0, -1.0
    wrong = re.escape(f"has 3 of {y.size} values that are not finite, the first at index ({rows + 1}, 7) (nan)")
    with pytest.raises(ValueError, match=wrong):
        sweep(y)
    wrong = re.escape(f"has 2 of {sigma.size} values that are not positive, the first at index ({rows}, 5) (0)")
    with pytest.raises(ValueError, match=wrong):
        sweep(np.zeros((sets, POINTS)), sigma)


@pytest.mark.parametrize("dtype", ["float64", "float32", ">f8", "int64"])
@pytest.mark.parametrize("first", [1, 30_000, 60_000])
def test_the_digest_of_values_is_that_of_all_their_bytes_at_once(dtype, first):
    y = np.arange(50_000 * 20).reshape(50_000, 20).astype(dtype)
    plain = y[:first].astype("int32" if dtype == "int64" else "float32")
    inner = hashlib.sha256(plain.tobytes()).hexdigest()[:32]
    outer = hashlib.sha256(f"{plain.dtype.name} (20,) {inner}\n".encode()).hexdigest()[:32]
    assert values_digest(y, first, "float32") == outer


def test_a_block_has_fewer_lanes_where_each_owns_much_data():
    """Of 64 MB, which a block may hold: 512 lanes of 16,384 numbers in double precision."""
    wide = np.broadcast_to(np.zeros(2**14), (2048, 2**14))
    data = (np.zeros(2**14), jf.Axis("set", wide))
    (part,) = plan_sweep(jf.losses.mse(level), 0.0, data, optimizer=METHOD).parts
    assert pool_shape(part, 8, 1).lanes == 512
