"""Quantities with units, of astropy, pint and the like, are refused wherever numbers are given."""

import functools

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jaxfit as jf


class OfAstropy(np.ndarray):
    """What `astropy.units.Quantity` shows of itself."""

    unit = None

    def __getitem__(self, i):
        return astropy(np.asarray(self)[i], self.unit)

    @property
    def value(self):
        return np.asarray(self)

    def to_value(self, unit):
        assert unit == self.unit
        return np.asarray(self)


class OfPint:
    """What `pint.Quantity` shows of itself."""

    def __init__(self, magnitude, units):
        self.magnitude, self.units = np.asarray(magnitude, float), units
        self.shape, self.ndim, self.dtype = self.magnitude.shape, self.magnitude.ndim, self.magnitude.dtype

    def __array__(self, dtype=None, copy=None):
        return self.magnitude

    def __array_function__(self, *_):
        return NotImplemented

    def __array_ufunc__(self, *_):
        return NotImplemented

    def __len__(self):
        return len(self.magnitude)

    def __getitem__(self, i):
        return OfPint(self.magnitude[i], self.units)

    def m_as(self, unit):
        assert unit == self.units
        return self.magnitude


def astropy(x, unit):
    array = np.asarray(x, float).view(OfAstropy)
    array.unit = unit
    return array


X = np.linspace(0.0, 1.0, 8)
Y = 2 * X + 1 + 0.01 * np.sin(9 * X)
START = {"w": 1.0, "b": 0.0}
SGD, LOSS = jf.optimizers.sgd(0.1), jf.losses.mse(jf.models.line)


@functools.cache
def fit(weighted=False):
    return jf.curve_fit(jf.models.line, START, (X, Y), sigma=np.linspace(1.0, 2.0, 8) if weighted else None)


@functools.cache
def grid():
    return jf.sweep(LOSS, START | {"w": jf.Axis("w0", [1.0, 2.0])}, (X, Y), optimizer=SGD, steps=1)


PLACES = {
    r"data\[0\]": (X, lambda q: jf.curve_fit(jf.models.line, START, (q, Y))),
    r"data\[1\]": (Y, lambda q: jf.fit(LOSS, START, (X, q), optimizer=SGD, steps=1)),
    r"data\[1\]\['a'\]": (Y, lambda q: jf.fit(
        lambda p, x, d: jf.losses.mse(jf.models.line)(p, x, d["a"]), START, (X, {"a": q}), optimizer=SGD, steps=1)),
    "sigma": (np.ones(8), lambda q: jf.curve_fit(jf.models.line, START, (X, Y), sigma=q)),
    r"data\[2\]": (np.ones(8), lambda q: jf.fit(
        jf.losses.chi_squared(jf.models.line), START, (X, Y, q), optimizer=SGD, steps=1)),
    r"validation\[1\]": (Y, lambda q: jf.fit(LOSS, START, (X, Y), validation=(X, q), optimizer=SGD, steps=1)),
    r"params\['w'\]": (1.0, lambda q: jf.curve_fit(jf.models.line, START | {"w": q}, (X, Y))),
    r"params\['b'\]": (1.0, lambda q: jf.curve_fit(jf.models.line, START | {"b": jf.Fixed(q)}, (X, Y))),
    r"params\['w'\] ": (1.0, lambda q: jf.curve_fit(jf.models.line, START | {"w": jf.Bounded(q, 0, 9)}, (X, Y))),
    r"params\['w'\]: high": (9.0, lambda q: jf.curve_fit(jf.models.line, START | {"w": jf.Bounded(1, 0, q)}, (X, Y))),
    "Axis 'w0': values": (X, lambda q: jf.Axis("w0", q)),
    "Axis 'w1': values": (X, lambda q: jf.Axis("w1", [q[0], q[1]])),
    r"data\[0\]  ": (X, lambda q: jf.curve_fit(jf.models.line, START, (xr.DataArray(q), Y))),
    r"data\[0\]   ": (X, lambda q: jf.curve_fit(jf.models.line, START, (pd.Series([*q], dtype=object), Y))),
    r"x\[0\]": (X, lambda q: fit().predict(q)),
    "sgd: learning_rate": (0.1, lambda q: jf.optimizers.sgd(q)),
    "Stop: loss_below": (0.1, lambda q: jf.fit(
        LOSS, START, (X, Y), optimizer=SGD, steps=1, stop=jf.Stop(loss_below=q))),
    "delta": (1.0, lambda q: jf.losses.huber(jf.models.line, delta=q)),
    "strength": (1.0, lambda q: jf.losses.l2(q)),
    "Call: argument 's'": (1.0, lambda q: jf.Call(lambda s: s, s=q)),
    "lane: w0": (1.0, lambda q: jf.lane(grid(), w0=q)),
    "band: x": (X, lambda q: jf.band(fit(), q)),
    "band: sigma": (1.0, lambda q: jf.band(fit(weighted=True), X, kind="prediction", sigma=q)),
    "y": (Y, lambda q: LOSS(START, X, q)),
    "x ": (X, lambda q: jf.models.gaussian.guess(q, Y)),
    r"data\[1\] ": (Y, lambda q: jf.surface(LOSS, START | {"w": jf.Axis("w0", [1.0])}, (X, q))),
    r"data\[0\] ": (Y, lambda q: jf.curve_fit(jf.models.line, START, ([q[0], *X[1:]], Y))),
    r"what Tied\(<lambda>\) returned": (1.0, lambda q: jf.curve_fit(
        jf.models.line, START | {"b": jf.Tied(lambda p: q)}, (X, Y))),
    "Axis 'w2': labels": (X[:2], lambda q: jf.Axis("w2", [1.0, 2.0], labels=[q[0], q[1]])),
    "Axis 'w3': labels": (X[:2], lambda q: jf.Axis("w3", [1.0, 2.0], labels=q)),
    "Batches: size": (4, jf.Batches),
    "Record: every": (4, lambda q: jf.Record(every=q)),
    "steps": (4, lambda q: jf.fit(LOSS, START, (X, Y), optimizer=SGD, steps=q)),
    "steps ": (4, lambda q: jf.sweep(LOSS, START | {"w": jf.Axis("w0", [1.0])}, (X, Y), optimizer=SGD, steps=q)),
    "constant: rate": (0.1, jf.schedules.constant),
    "cosine: steps": (10, lambda q: jf.schedules.cosine(0.1, q)),
    "exponential: every": (10, lambda q: jf.schedules.exponential(0.1, 0.5, q)),
    "inverse_time: half": (10, lambda q: jf.schedules.inverse_time(0.1, q)),
    "polynomial: rate": (0.1, lambda q: jf.schedules.polynomial(q, 10)),
    "stepwise: factor": (0.5, lambda q: jf.schedules.stepwise(0.1, q, 10)),
    "warmup_cosine: warmup": (10, lambda q: jf.schedules.warmup_cosine(0.1, q, 100)),
    r"directions\['w'\]": (np.ones(1), lambda q: jf.curvature_along(
        LOSS, START, (X, Y), directions={"w": q, "b": np.ones(1)})),
}  # fmt: skip


@pytest.mark.parametrize("make", [astropy, OfPint], ids=["astropy", "pint"])
@pytest.mark.parametrize("place", PLACES)
def test_a_quantity_is_refused_by_name_with_its_unit_and_how_to_take_it_off(place, make):
    numbers, call = PLACES[place]
    off = {astropy: r"x\.to_value\('mV'\)", OfPint: r"x\.m_as\('mV'\)"}[make]
    with pytest.raises(TypeError, match=rf"^{place.strip()} has the unit mV.*would drop it: pass {off}") as caught:
        call(make(numbers, "mV"))
    assert "units that go with it" in str(caught.value)


def test_what_only_looks_like_a_quantity_passes():
    xarray = pytest.importorskip("xarray")
    x = xarray.DataArray(X, attrs={"units": "ms"})
    assert jf.curve_fit(jf.models.line, START, (x, Y)).loss == fit().loss
