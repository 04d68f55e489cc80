"""Reference data with their units and sources; functions that split, standardize, pad and batch data.

Data are a tuple of arrays whose first axes run along the same n rows: `(x, y)`.
"""

from __future__ import annotations

import numbers
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from jaxfit.problems.axes import as_key, refuse_unit
from jaxfit.problems.messages import near_keywords, near_names

Floats = NDArray[np.float64]

# fmt: off
_THERMOMETER_UNKNOWN = (
    35.7, 55.9, 58.2, 81.9, 56.3, 48.9, 33.9, 21.8, 48.4, 60.4, 68.4,
)
_THERMOMETER_CELSIUS = (
    0.5, 14.0, 15.0, 28.0, 11.0, 8.0, 3.0, -4.0, 6.0, 13.0, 21.0,
)
_AGE = (
    22, 41, 52, 23, 41, 54, 24, 46, 56, 27, 47, 57, 28, 48, 58, 9, 49, 59, 30, 49, 63, 32, 50, 67, 33, 51, 71, 35,
    51, 77, 40, 51, 81,
)
_PRESSURE = (
    131, 139, 128, 128, 171, 105, 116, 137, 145, 106, 111, 141, 114, 115, 153, 123, 133, 157, 117, 128, 155, 122,
    183, 176, 99, 130, 172, 121, 133, 178, 147, 144, 217,
)
_BOWL_X = (
    0.4967141530112327, -0.13826430117118466, 0.6476885381006925, 1.5230298564080254, -0.23415337472333597,
    -0.23413695694918055, 1.5792128155073915, 0.7674347291529088, -0.4694743859349521, 0.5425600435859647,
    -0.46341769281246226, -0.46572975357025687, 0.24196227156603412, -1.913280244657798, -1.7249178325130328,
    -0.5622875292409727, -1.0128311203344238, 0.3142473325952739, -0.9080240755212109, -1.4123037013352915,
    1.465648768921554, -0.22577630048653566, 0.06752820468792384, -1.4247481862134568, -0.5443827245251827,
    0.11092258970986608, -1.1509935774223028, 0.37569801834567196, -0.600638689918805, -0.2916937497932768,
    -0.6017066122293969, 1.8522781845089378, -0.013497224737933921, -1.0577109289559004, 0.822544912103189,
    -1.2208436499710222, 0.2088635950047554, -1.9596701238797756, -1.3281860488984305, 0.19686123586912352,
    0.7384665799954104, 0.1713682811899705, -0.11564828238824053, -0.3011036955892888, -1.4785219903674274,
    -0.7198442083947086, -0.4606387709597875, 1.0571222262189157, 0.3436182895684614, -1.763040155362734,
)
_BOWL_Y = (
    1.8207981224060277, 0.47665341841249886, 0.9707665377947338, 3.1347061452488933, 1.796846147772615,
    1.697143162167018, 1.7399952922847528, 1.4582223533016943, 0.8617890454686118, 2.5181051707083237,
    0.05740806934224779, 0.34861126976592594, 0.1356272975600059, -2.1094868687384687, 0.08760798988116525,
    1.7939524993298503, -0.08484124191475764, 2.317780230487298, 0.45361194952642325, -1.0574234559404156,
    2.827044374429968, 2.3122602659794333, 1.0317021655779721, 1.1398954696005494, -2.164127828614927,
    1.9328250940850897, -0.06394650918413157, 1.0766906678798045, 0.4911220866166973, -1.2792626643941696,
    0.17862149993309115, 3.2093907560206842, 2.464396820003582, -0.5759811472295477, 1.0140513092100014,
    -0.7226006935555588, 2.12426571270683, -0.6309190142200911, -0.8579462526654693, 1.7101286689824797,
    1.835544129343451, 2.14001327172286, 0.18229862373440708, 0.37123415781294306, -0.870630143499585,
    -1.1833591565268273, 0.8354815061047887, 2.3181774983988053, 1.3487317462109223, -0.9976272887378809,
)
_TRAIN_MB = (
    0.08, 9.0, 0.001, 0.1, 8.0, 5.0, 0.1, 6.0, 0.05, 0.5, 0.002, 2.0, 0.005, 10.0, 0.01, 7.0, 6.0, 5.0, 1.0, 1.0,
)
_TRAIN_SECONDS = (
    0.135, 0.739, 0.067, 0.126, 0.646, 0.435, 0.069, 0.497, 0.068, 0.116, 0.07, 0.289, 0.076, 0.744, 0.083, 0.56,
    0.48, 0.399, 0.153, 0.149,
)
_TEST_MB = (
    5.0, 0.2, 0.001, 9.0, 0.002, 0.02, 0.008, 4.0, 0.001, 1.0, 0.005, 0.08, 0.8, 0.2, 0.05, 7.0, 0.005, 0.002, 8.0,
    0.008,
)
_TEST_SECONDS = (
    0.425, 0.098, 0.052, 0.686, 0.066, 0.078, 0.07, 0.375, 0.058, 0.136, 0.052, 0.063, 0.183, 0.087, 0.066, 0.558,
    0.066, 0.068, 0.61, 0.057,
)
# fmt: on


@near_keywords
def thermometer() -> tuple[Floats, Floats]:
    """Return readings of a wall thermometer in an unknown unit, and the same temperatures in degrees Celsius.

    Returns:
      t_u: (11,) in the unknown unit, which turns out to be degrees Fahrenheit: t_c = 5/9 (t_u - 32).
      t_c: (11,) in degrees Celsius.

    Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.2.2.

    Example:
      >>> t_u, t_c = jf.datasets.thermometer()
      >>> float(t_u[0]), float(t_c[0])
      (35.7, 0.5)
    """
    return np.array(_THERMOMETER_UNKNOWN), np.array(_THERMOMETER_CELSIUS)


@near_keywords
def thermometer_split() -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return the thermometer's 9 training and 2 validation readings, (t_u, t_c) each, in the printed order.

    The shuffle in the book was not seeded, so the indices are copied from its output.

    Source: Stevens, Antiga and Viehmann, Deep Learning with PyTorch (2020), section 5.5.3.

    Example:
      >>> train, validation = jf.datasets.thermometer_split()
      >>> train[0].shape, validation[1].tolist()
      ((9,), [15.0, 21.0])
    """
    t_u, t_c = thermometer()
    train, validation = [9, 6, 5, 8, 4, 7, 0, 1, 3], [2, 10]
    return (t_u[train], t_c[train]), (t_u[validation], t_c[validation])


@near_keywords
def blood_pressure() -> tuple[Floats, Floats]:
    """Return age and systolic blood pressure of 33 healthy American women.

    Returns:
      age: (33,) in years.
      pressure: (33,) in mmHg.

    Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), chapter 3; the values stand in its companion
    repository github.com/tensorchiefs/dl_book.

    Example:
      >>> age, pressure = jf.datasets.blood_pressure()
      >>> age.shape, float(pressure[0])
      ((33,), 131.0)
    """
    return np.array(_AGE, float), np.array(_PRESSURE, float)


@near_keywords
def bowl() -> tuple[Floats, Floats]:
    """Return 50 simulated points, dimensionless: x ~ N(0, 1), y = x + 1 + N(0, 1), (50,) each.

    The numbers are those of NumPy's legacy generator with seed 42 (x drawn first), kept as literals because newer
    generators draw others.

    Source: Dürr, Sick and Murina, Probabilistic Deep Learning (2020), section 3.2.2; github.com/tensorchiefs/dl_book.

    Example:
      >>> x, y = jf.datasets.bowl()
      >>> x.shape, round(float(x[0]), 3)
      ((50,), 0.497)
    """
    return np.array(_BOWL_X), np.array(_BOWL_Y)


@near_keywords
def download_time(part: str = "train") -> tuple[Floats, Floats]:
    """Return size and download time of 20 files for training, or of 20 others for testing.

    Args:
      part: "train" or "test".

    Returns:
      size_mb: (20,) in megabytes.
      time_s: (20,) in seconds.

    Raises:
      ValueError: If `part` is neither.

    Source: Cai, Bileschi, Nielsen and Chollet, Deep Learning with JavaScript (2020), listing 2.1.

    Example:
      >>> size_mb, time_s = jf.datasets.download_time("test")
      >>> size_mb.shape, float(time_s[0])
      ((20,), 0.425)
    """
    if part not in ("train", "test"):
        raise ValueError(f'part is {part!r}; this data set has two parts, "train" and "test"')
    if part == "train":
        return np.array(_TRAIN_MB), np.array(_TRAIN_SECONDS)
    return np.array(_TEST_MB), np.array(_TEST_SECONDS)


def as_numbers(name: str, value: ArrayLike) -> Any:
    """Return the value as an array of real numbers: JAX arrays as they are, all else as NumPy's in native byte order.

    Raises:
      TypeError: If it holds text, objects or complex numbers, or is ragged; the message calls it `name`.
    """
    refuse_unit(name, value)
    try:
        array: Any = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise TypeError(f"{name} is ragged: its rows have different lengths; pad them, or split them up") from None
    real = (np.floating, np.integer, np.bool_)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in real):
        raise TypeError(
            f"{name} holds {array.dtype} values, but must hold real numbers; convert it first, for instance "
            f"np.asarray({name}, dtype=float), or take the real part"
        )
    return (
        array if isinstance(array, jax.Array) or array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    )


def as_floats(name: str, value: ArrayLike) -> Any:
    """Return `as_numbers` with integers and booleans converted to floats, so that arithmetic cannot overflow."""
    array = as_numbers(name, value)
    return array if jnp.issubdtype(array.dtype, np.floating) else array.astype(float)


@near_keywords
def split(
    data: tuple[ArrayLike, ...], held_out: float | Sequence[int] | np.ndarray, key: int | Array | None = None
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Split the rows into two groups, one for training and one for validation.

    Args:
      data: Arrays of equal length n, such as (x, y).
      held_out: The fraction of rows to validate with, in (0, 1), rounded to whole rows, or the indices of those rows.
      key: An integer seed or a key for the shuffle; not used with indices.

    Returns:
      train, validation: One tuple of arrays each. Rows drawn by fraction are in shuffled order; with indices the
      validation rows are in the order given and the training rows in that of the data.

    Raises:
      ValueError: If lengths differ, a side would be empty, an index is repeated or outside the data, or a fraction
        comes without a key.
      TypeError: If `data` is not a tuple of numeric arrays, or `held_out` neither a fraction nor indices.

    Example:
      >>> train, validation = jf.datasets.split(jf.datasets.thermometer(), 0.2, key=0)
      >>> train[0].shape, validation[0].shape
      ((9,), (2,))
    """
    arrays = _rows("data", data)
    n = len(arrays[0])
    if isinstance(held_out, numbers.Real) and not isinstance(held_out, (numbers.Integral, np.bool_)):
        train, validation = _split_by_fraction(n, float(held_out), key)
    else:
        train, validation = _split_by_indices(n, held_out)
    return tuple(a[train] for a in arrays), tuple(a[validation] for a in arrays)


def _split_by_fraction(n: int, held_out: float, key: int | Array | None) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; as a fraction it must lie between 0 and 1, both excluded")
    if key is None:
        raise ValueError(f"key is missing: held_out={held_out} draws rows at random; pass a seed, such as key=0")
    count = round(held_out * n)
    if not 0 < count < n:
        raise ValueError(
            f"held_out is {held_out}, which of {n} rows holds out {count}; both sides need at least one row: "
            f"choose a fraction from {1 / n:.2g} to {1 - 1 / n:.2g}"
        )
    shuffled = np.asarray(jax.random.permutation(as_key(key), n))
    return shuffled[: n - count], shuffled[n - count :]


def _split_by_indices(n: int, held_out: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    indices = np.asarray(held_out)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise TypeError(
            f"held_out is {reprlib.repr(held_out)}; it must be a fraction in (0, 1) or a list of row indices, such as "
            f"[2, 10] (np.flatnonzero makes one from a mask)"
        )
    if not 0 < len(indices) < n:
        raise ValueError(f"held_out names {len(indices)} of {n} rows; both sides need at least one row")
    outside = indices[(indices < 0) | (indices >= n)]
    if outside.size:
        raise ValueError(f"held_out holds the index {outside[0]}; with {n} rows indices run from 0 to {n - 1}")
    rows, counts = np.unique(indices, return_counts=True)
    if len(rows) < len(indices):
        raise ValueError(f"held_out holds the index {rows[np.argmax(counts)]} more than once; name each row once")
    return np.setdiff1d(np.arange(n), indices), indices


def _rows(name: str, data: tuple[ArrayLike, ...]) -> tuple[np.ndarray, ...]:
    """Return the arrays of a data tuple, checked to have equally many rows, and at least one."""
    if not isinstance(data, tuple) or not data:
        raise TypeError(f"{name} is a {type(data).__name__}; it must be a tuple of arrays, such as (x, y) or (x,)")
    arrays = tuple(np.asarray(as_numbers(f"{name}[{i}]", array)) for i, array in enumerate(data))
    shapes = [a.shape for a in arrays]
    if any(not shape for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{name} has shapes {shapes}; the first axes must be of one length, the number of rows")
    if not len(arrays[0]):
        raise ValueError(f"{name} has shapes {shapes}: there are no rows; pass at least one")
    return arrays


class Scaler(NamedTuple):
    """A transformation z = (x - mean) / scale by column, and its inverse."""

    mean: np.ndarray  # (columns,), or () for data of one axis; the unit of x
    scale: np.ndarray  # the same shape and unit; positive

    def apply(self, x: ArrayLike) -> Any:
        """Return z; x is (..., columns), or of any shape for a scaler of one column."""
        given = as_floats("x", x)
        return (given - self._like(given, self.mean, "x")) / self._like(given, self.scale, "x")

    def undo(self, z: ArrayLike) -> Array | np.ndarray:
        """Return the x that `apply` made z of, in its own unit."""
        given = as_floats("z", z)
        return given * self._like(given, self.scale, "z") + self._like(given, self.mean, "z")

    @staticmethod
    def _like(x: np.ndarray, column: np.ndarray, name: str) -> np.ndarray:
        if column.ndim and x.shape[-1:] != column.shape:
            raise ValueError(
                f"{name} has shape {x.shape}, but was standardized with {len(column)} columns; "
                f"its last axis must be of length {len(column)}"
            )
        return column.reshape((1,) * (x.ndim - 1) + column.shape) if column.ndim else column


@near_keywords
def standardize(x: ArrayLike) -> tuple[Floats, Scaler]:
    """Return z = (x - mean) / scale, with mean 0 and standard deviation 1 (divisor n) in every column, and its scaler.

    Args:
      x: (n,) or (n, columns), in any unit.

    Returns:
      z: The same shape, without unit.
      scaler: `scaler.apply(new_x)` does the same to other data, `scaler.undo(z)` goes back.

    Raises:
      ValueError: If a column is constant or holds NaN or infinity, or the shape is another one.

    Example:
      >>> z, scaler = jf.datasets.standardize(np.array([1.0, 3.0]))
      >>> z.tolist(), scaler.undo(z).tolist()
      ([-1.0, 1.0], [1.0, 3.0])
    """
    x = np.asarray(as_numbers("x", x), float)
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"x has shape {x.shape}; it must be (n,) or (n, columns) with at least one row")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        raise ValueError(
            f"x has {len(bad)} values that are NaN or infinite, the first at {tuple(bad[0].tolist())}; drop those rows"
        )
    spread = np.ptp(x, axis=0)
    if not np.all(spread):
        which = f"column {int(np.argmin(spread))} of x" if x.ndim == 2 else "x"
        value = x[0, np.argmin(spread)] if x.ndim == 2 else x[0]
        raise ValueError(f"{which} is constant ({value:g}) and has no scale to divide by; leave it out")
    mean = np.mean(x, axis=0)
    # Squares of values in units of the spread neither overflow nor underflow.
    scaler = Scaler(mean, spread * np.sqrt(np.mean(((x - mean) / spread) ** 2, axis=0)))
    return scaler.apply(x), scaler


@near_keywords
def pad(datasets: Sequence[tuple[ArrayLike, ...]]) -> tuple[np.ndarray, ...]:
    """Pad data sets of different length to one length, for losses with masked=True.

    Args:
      datasets: (x, y) each, or (x, y, sigma) and so on, whose first axes are an n of their own.

    Returns:
      x, y, ...: (data sets, largest n, ...); rows beyond a data set's own are zero.
      where: (data sets, largest n), True at a data set's own rows.

    Raises:
      ValueError: If there is no data set, or shapes differ in more than n.
      TypeError: If an entry is not a tuple of as many numeric arrays, two or more.

    Example:
      >>> short, long = (np.ones(2), np.ones(2)), (np.ones(3), np.ones(3))
      >>> x, y, where = jf.datasets.pad([short, long])
      >>> where.tolist()
      [[True, True, False], [True, True, True]]
    """
    if not isinstance(datasets, (list, tuple)):
        raise TypeError(f"datasets is {reprlib.repr(datasets)}, but it must be a list of pairs: [(x, y), (x, y)]")
    sets = [_rows(f"datasets[{i}]", one) for i, one in enumerate(datasets)]
    if not sets:
        raise ValueError("datasets is empty; pass at least one (x, y)")
    for i, one in enumerate(sets):
        if len(one) < 2 or len(one) != len(sets[0]):
            more = f", and datasets[0] {len(sets[0])}" if len(one) > 1 else ""
            raise TypeError(
                f"datasets[{i}] holds {len(one)} arrays{more}; each data set must be a pair (x, y), or each (x, y, "
                f"sigma)"
            )
        if [a.shape[1:] for a in one] != [a.shape[1:] for a in sets[0]]:
            raise ValueError(
                f"datasets[{i}] has shapes {[a.shape for a in one]}, datasets[0] has {[a.shape for a in sets[0]]}; "
                f"they may differ in their first axis only"
            )
    n = max(len(one[0]) for one in sets)
    where = np.array([np.arange(n) < len(one[0]) for one in sets])
    return *(_stack(arrays, n) for arrays in zip(*sets, strict=True)), where


def _stack(arrays: Sequence[np.ndarray], n: int) -> np.ndarray:
    stacked = np.zeros((len(arrays), n, *arrays[0].shape[1:]), np.result_type(*arrays))
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked


@near_keywords
def batches(data: tuple[ArrayLike, ...], size: int, key: int | Array) -> Iterator[tuple[np.ndarray, ...]]:
    """Shuffle all rows and return an iterator over mini-batches of `size` rows: one epoch.

    Rows that do not fill a last batch (n modulo size of them) are left out; another key leaves out others.

    Args:
      data: Arrays of equal length n, such as (x, y).
      size: Rows in a batch, 1 to n.
      key: An integer seed or a key for the shuffle.

    Raises:
      ValueError: If `size` is not in 1 .. n.
      TypeError: If `size` is not a whole number.

    Example:
      >>> [x.shape for x, y in jf.datasets.batches(jf.datasets.thermometer(), size=5, key=0)]
      [(5,), (5,)]
    """
    arrays = _rows("data", data)
    n = len(arrays[0])
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise TypeError(f"size is {size!r}; the number of rows in a batch must be a whole number")
    if not 1 <= size <= n:
        raise ValueError(f"size is {size}; with {n} rows of data a batch holds 1 to {n}")
    order = np.asarray(jax.random.permutation(as_key(key), n))
    starts = range(0, n - size + 1, int(size))
    return (tuple(a[order[start : start + size]] for a in arrays) for start in starts)


__all__ = [
    "batches", "blood_pressure", "bowl", "download_time", "pad", "split", "standardize", "thermometer",
    "thermometer_split",
]  # fmt: skip
__getattr__, __dir__ = near_names(__name__, __all__)
