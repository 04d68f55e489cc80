"""Data sets against the numbers printed about them; helpers against obvious versions and the laws they obey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfit import datasets


def test_the_thermometer_gives_the_printed_losses_and_turns_out_to_be_in_fahrenheit():
    t_u, t_c = datasets.thermometer()
    assert np.mean((t_u - t_c) ** 2) == pytest.approx(1763.8846, abs=5e-4)
    assert np.mean((np.polyval(np.polyfit(t_u, t_c, 1), t_u) - t_c) ** 2) == pytest.approx(2.9276, abs=1e-4)
    assert np.sqrt(np.mean((5 / 9 * (t_u - 32) - t_c) ** 2)) < 3


def test_the_printed_split_of_the_thermometer_is_a_split_of_it():
    t_u, t_c = datasets.thermometer()
    train, validation = datasets.thermometer_split()
    assert train[0].tolist() == [60.4, 33.9, 48.9, 48.4, 56.3, 21.8, 35.7, 55.9, 81.9]
    assert [v.tolist() for v in validation] == [[58.2, 68.4], [15.0, 21.0]]
    assert set(zip(*train, strict=True)) | set(zip(*validation, strict=True)) == set(zip(t_u, t_c, strict=True))


def test_blood_pressure_gives_the_printed_loss_and_the_closed_form():
    age, pressure = datasets.blood_pressure()
    assert (age[14], pressure[14], len(age)) == (58, 153, 33)
    assert np.mean((pressure - 139) ** 2) == pytest.approx(673.4545, abs=1e-4)
    assert np.polyfit(age, pressure, 1) == pytest.approx([1.1050216, 87.67143], abs=1e-5)


def test_the_bowl_is_drawn_from_numpys_legacy_stream_with_seed_42():
    stream = np.random.RandomState(42)  # noqa: NPY002
    x = stream.normal(0, 1, 50)
    y = x + 1 + stream.normal(0, 1, 50)
    np.testing.assert_allclose(datasets.bowl(), (x, y), rtol=1e-14)


@pytest.mark.parametrize(
    ("part", "moments", "least_squares"),
    [
        ("train", (60.848, 5.901, 34.184117), (0.06844009, 0.08682787)),
        ("test", (35.382, 3.854, 18.916284), (0.06947575, 0.06979046)),
    ],
)
def test_download_times_have_the_moments_of_the_listing(part, moments, least_squares):
    size, time = datasets.download_time(part)
    assert (size.sum(), time.sum(), size @ time) == pytest.approx(moments, rel=1e-9)
    assert np.polyfit(size, time, 1) == pytest.approx(least_squares, abs=1e-8)
    assert len(size) == len(time) == 20


def test_the_mean_absolute_download_time_is_the_loss_annotated_at_the_start():
    assert np.mean(np.abs(datasets.download_time()[1])) == pytest.approx(0.295, abs=6e-4)


def test_an_unknown_part_of_the_download_times_is_refused_with_the_parts_there_are():
    with pytest.raises(ValueError, match='part is \'validation\'; this data set has two parts, "train" and "test"'):
        datasets.download_time("validation")


@pytest.mark.parametrize("load", [datasets.thermometer, datasets.blood_pressure, datasets.bowl, datasets.download_time])
def test_spoiling_a_copy_leaves_the_data_alone(load):
    before = [column.copy() for column in load()]
    for column in load():
        assert column.dtype == np.float64
        column[:] = 0
    np.testing.assert_array_equal(load(), before)


# Keys


def same_key(a, b) -> bool:
    return bool(jnp.all(jax.random.key_data(a) == jax.random.key_data(b)))


@pytest.mark.parametrize("seed", [7, np.int32(7), np.uint8(7), np.array(7), jnp.asarray(7), jax.random.key(7)])
def test_seeds_of_every_kind_and_keys_give_the_same_key(seed):
    assert same_key(datasets.as_key(seed), jax.random.key(7))


def test_a_raw_key_gives_the_same_numbers_as_its_typed_form():
    raw = jnp.array([3, 5], jnp.uint32)
    expected = jax.random.normal(jax.random.wrap_key_data(raw), (4,))
    for key in (raw, np.asarray(raw)):
        np.testing.assert_array_equal(jax.random.normal(datasets.as_key(key), (4,)), expected)


def test_the_largest_seed_is_not_the_smallest():
    assert not same_key(datasets.as_key(2**32 - 1), datasets.as_key(0))


def test_traced_seeds_and_keys_give_the_keys_of_their_values():
    seeds = jnp.arange(3)
    expected = jnp.stack([jax.random.key(i) for i in range(3)])
    assert same_key(jax.vmap(datasets.as_key)(seeds), expected)
    assert same_key(jax.vmap(datasets.as_key)(expected), expected)
    assert same_key(jax.vmap(datasets.as_key)(jax.random.key_data(expected)), expected)


@pytest.mark.parametrize(
    ("key", "error", "shown"),
    [
        (-1, ValueError, "-1"),
        (2**32, ValueError, "4294967296"),
        (np.int64(2**40), ValueError, "1099511627776"),
        (0.5, ValueError, "0.5"),
        (True, TypeError, "True"),
        (None, TypeError, "None"),
        ("seed", TypeError, "'seed'"),
        (np.zeros(2), TypeError, r"shape \(2,\) and type float64"),
        (jax.random.split(jax.random.key(0), 3), ValueError, r"shape \(3,\)"),
    ],
)
def test_a_wrong_key_is_refused_by_name(key, error, shown):
    with pytest.raises(error, match=f"^key .*{shown}.*must be (an integer seed of 0 to|one key: choose one)"):
        datasets.as_key(key)


# Numbers


def test_numbers_in_every_container_come_out_as_equal_native_arrays():
    expected = np.array([1.0, 2.0, 3.0])
    frozen = expected.copy()
    frozen.setflags(write=False)
    for value in (
        [1, 2, 3],
        (1.0, 2, 3),
        frozen,
        np.repeat(expected, 2)[::2],
        expected.astype(">f8"),
        jnp.arange(1, 4),
    ):
        array = datasets.as_numbers("x", value)
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(jnp.asarray(array), expected)


@pytest.mark.parametrize("value", [["1", "2"], [None, 1], [1j], [object()], np.array(["2020-01-01"], "datetime64[D]")])
def test_what_is_no_real_number_is_refused_by_name_with_a_conversion(value):
    with pytest.raises(TypeError, match=r"^speed holds .* must hold real numbers; .*np.asarray\(speed, dtype=float\)"):
        datasets.as_numbers("speed", value)


def test_ragged_rows_are_refused_by_name():
    with pytest.raises(TypeError, match="^speed is ragged: .*pad them"):
        datasets.as_numbers("speed", [[1.0], [1.0, 2.0]])


# Splitting


def test_a_split_by_fraction_keeps_every_row_once_and_its_columns_together():
    x = np.arange(20.0)
    train, validation = datasets.split((x, 10 * x), 0.3, key=0)
    assert (len(train[0]), len(validation[0])) == (14, 6)
    assert sorted([*train[0], *validation[0]]) == x.tolist()
    for part in (train, validation):
        np.testing.assert_array_equal(part[1], 10 * part[0])
    assert train[0].tolist() != sorted(train[0])


def test_a_split_follows_its_key():
    x = np.arange(20.0)
    first, again, other = (datasets.split((x,), 0.3, key)[1][0].tolist() for key in (1, jax.random.key(1), 2))
    assert first == again != other


def test_a_fraction_of_the_thermometer_is_rounded_to_whole_rows_as_in_print():
    _, (held_out, _) = datasets.split(datasets.thermometer(), 0.2, key=0)
    assert len(held_out) == 2


def test_a_split_by_indices_keeps_both_orders_and_needs_no_key():
    train, validation = datasets.split((np.arange(5), np.arange(5) + 10), [3, 0])
    assert [a.tolist() for a in (*train, *validation)] == [[1, 2, 4], [11, 12, 14], [3, 0], [13, 10]]


@pytest.mark.parametrize(
    ("held_out", "error", "message"),
    [
        (0.0, ValueError, "held_out is 0.0; as a fraction it must lie between 0 and 1"),
        (1.5, ValueError, "held_out is 1.5; as a fraction it must lie between 0 and 1"),
        (
            0.01,
            ValueError,
            "of 5 rows holds out 0; both sides need at least one row: choose a fraction from 0.2 to 0.8",
        ),
        (0.99, ValueError, "of 5 rows holds out 5"),
        (2, TypeError, "held_out is 2; it must be a fraction .* or a list of row indices"),
        (True, TypeError, "held_out is True"),
        ("half", TypeError, "held_out is 'half'"),
        ([0.5], TypeError, r"held_out is \[0.5\]"),
        ([True, False, True, False, False], TypeError, "np.flatnonzero makes one from a mask"),
        ([], ValueError, "held_out names 0 of 5 rows; both sides need at least one"),
        (range(5), ValueError, "held_out names 5 of 5 rows"),
        ([5], ValueError, "held_out holds the index 5; with 5 rows indices run from 0 to 4"),
        ([-1], ValueError, "held_out holds the index -1"),
        ([1, 1], ValueError, "held_out holds the index 1 more than once; name each row once"),
    ],
)
def test_rows_that_cannot_be_held_out_are_refused(held_out, error, message):
    with pytest.raises(error, match=message):
        datasets.split((np.arange(5),), held_out, key=0)


def test_a_split_at_random_without_a_key_is_refused():
    with pytest.raises(ValueError, match="key is missing: .*pass a seed, such as key=0"):
        datasets.split((np.arange(5),), 0.4)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (np.ones((2, 5)), TypeError, r"data is a ndarray; it must be a tuple of arrays, such as \(x, y\)"),
        ((), TypeError, "data is a tuple; it must be a tuple of arrays"),
        (
            (np.ones(5), np.ones(4)),
            ValueError,
            r"data has shapes \[\(5,\), \(4,\)\]; the first axes must be of one length",
        ),
        ((np.ones(5), 1.0), ValueError, r"data has shapes \[\(5,\), \(\)\]"),
        ((np.ones(0), np.ones(0)), ValueError, "there are no rows; pass at least one"),
        ((np.ones(5), ["a"] * 5), TypeError, r"data\[1\] holds <U1 values"),
    ],
)
def test_data_that_are_no_rows_are_refused(data, error, message):
    with pytest.raises(error, match=message):
        datasets.split(data, [0])


# Standardizing


@pytest.mark.parametrize("shape", [(40,), (40, 3)])
def test_standardized_columns_have_mean_0_and_deviation_1_and_come_back(shape):
    x = 5 + 3 * np.random.default_rng(0).normal(size=shape)
    z, scaler = datasets.standardize(x)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(scaler.undo(z), x, rtol=1e-14)
    np.testing.assert_allclose(scaler.apply(x[:7]), z[:7], rtol=1e-14)
    assert scaler.mean.shape == scaler.scale.shape == shape[1:]


def test_a_scaler_works_on_jax_arrays_under_jit_and_as_its_argument():
    x = np.array([[1.0, 10.0], [2.0, 30.0], [4.0, 20.0]])
    z, scaler = datasets.standardize(x)
    np.testing.assert_allclose(jax.jit(scaler.apply)(jnp.asarray(x)), z, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda s, z: s.undo(z))(scaler, z), x, rtol=1e-6)
    np.testing.assert_allclose(scaler.apply(x[1]), z[1], rtol=1e-15)


def test_standardizing_survives_values_whose_squares_do_not():
    z, _ = datasets.standardize(np.array([1.0, 2.0, 3.0]))
    for factor in (1e300, 1e-300):
        np.testing.assert_allclose(datasets.standardize(factor * np.array([1.0, 2.0, 3.0]))[0], z, rtol=1e-14)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, 7.0], [2.0, 7.0]], r"column 1 of x is constant \(7\) and has no scale to divide by; leave it out"),
        ([0.1] * 10, r"^x is constant \(0.1\)"),
        ([1.0, np.nan, np.inf], r"x has 2 values that are NaN or infinite, the first at \(1,\); drop those rows"),
        (np.ones((2, 2, 2)), r"x has shape \(2, 2, 2\); it must be \(n,\) or \(n, columns\)"),
        ([], "x has shape .* at least one row"),
    ],
)
def test_what_has_no_scale_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        datasets.standardize(x)


def test_a_scaler_refuses_another_number_of_columns():
    _, scaler = datasets.standardize([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\), .* 2 columns; its last axis must be of length 2"):
        scaler.apply(np.ones((4, 3)))


# Padding and batching


def test_padded_data_sets_hold_their_own_rows_where_the_mask_is_true():
    sets = [(np.full((n, 2), n), np.arange(n) + 0.5) for n in (3, 1, 2)]
    x, y, where = datasets.pad(sets)
    assert (x.shape, y.shape, where.shape) == ((3, 3, 2), (3, 3), (3, 3))
    for i, (own_x, own_y) in enumerate(sets):
        np.testing.assert_array_equal(x[i][where[i]], own_x)
        np.testing.assert_array_equal(y[i][where[i]], own_y)
    assert (x[~where] == 0).all() and (y[~where] == 0).all()


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        ([], ValueError, r"datasets is empty; pass at least one \(x, y\)"),
        ([np.ones((2, 3))], TypeError, r"datasets\[0\] is a ndarray; it must be a tuple"),
        ([(np.ones(2),)], TypeError, r"datasets\[0\] holds 1 arrays; each data set must be a pair \(x, y\)"),
        ([(np.ones(2), np.ones(2)), (np.ones(2), np.ones(3))], ValueError, r"datasets\[1\] has shapes"),
        ([(np.ones(2), np.ones(2)), (np.ones((3, 1)), np.ones(3))], ValueError, r"datasets\[1\] .* first axis only"),
    ],
)
def test_data_sets_that_cannot_be_padded_are_refused(sets, error, message):
    with pytest.raises(error, match=message):
        datasets.pad(sets)


def test_the_batches_of_an_epoch_hold_no_row_twice_and_leave_the_remainder_out():
    x = np.arange(11)
    epoch = list(datasets.batches((x, 10 * x), 4, key=0))
    assert [len(batch_x) for batch_x, _ in epoch] == [4, 4]
    rows = np.concatenate([batch_x for batch_x, _ in epoch])
    assert len(set(rows)) == 8 and rows.tolist() != sorted(rows)
    assert all((batch_y == 10 * batch_x).all() for batch_x, batch_y in epoch)


def test_batches_of_one_key_are_the_same_and_of_another_key_others():
    first, again, other = (np.stack([b for (b,) in datasets.batches((np.arange(12),), 4, key)]) for key in (0, 0, 1))
    assert first.shape == (3, 4)
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "size is 0; with 11 rows of data a batch holds 1 to 11"),
        (12, ValueError, "size is 12; with 11 rows"),
        (2.0, TypeError, "size is 2.0; .* must be a whole number"),
        (True, TypeError, "size is True"),
    ],
)
def test_batches_of_a_wrong_size_are_refused_before_the_first_is_drawn(size, error, message):
    with pytest.raises(error, match=message):
        datasets.batches(datasets.thermometer(), size, key=0)
