"""The numbers that the five texts print, by id, with the tolerance to which they can be met."""

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxfit.experiments import Check

NUMBERS = json.loads(Path(__file__).with_name("published.json").read_text("utf-8"))


class Published(NamedTuple):
    """One published number, or a list of them."""

    row: str  # of texts.json: what in the text it belongs to
    printed: Any  # as the text has it
    expected: Any  # what a right program computes: the printed number, except where that is a misprint or truncated
    atol: Any
    rtol: float
    atol_float32: Any
    rtol_float32: float
    float64_only: bool  # float32 is not precise enough to meet it
    why: str = ""  # the printed number is not the right one

    def tolerance(self, precision: str) -> np.ndarray:
        """The absolute tolerance of a computation in that precision."""
        atol, rtol = (self.atol, self.rtol) if precision == "float64" else (self.atol_float32, self.rtol_float32)
        size = np.abs(np.where(np.isfinite(self.expected), self.expected, 0.0))
        return np.asarray(atol) + rtol * size


def published(name: str) -> Published:
    """The published number of that id. Raises a KeyError with near ids for an unknown one."""
    if name not in NUMBERS:
        raise KeyError(f"no published number {name!r}; near it: {', '.join(difflib.get_close_matches(name, NUMBERS))}")
    record = NUMBERS[name]
    return Published(**record | {key: float(record[key]) for key in ("printed", "expected") if record[key] == "inf"})


def check(name: str, measured: Any, what: str, *, precision: str = "float32") -> Check:
    """The check that a measured value meets the published number of that id."""
    number = published(name)
    if number.float64_only and precision != "float64":
        raise ValueError(f"{name} can be checked in float64 only")
    return Check(what, number.expected, measured, number.tolerance(precision), source=name)
