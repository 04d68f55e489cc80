"""Rules that stop lanes of a sweep early: at rungs, which are numbers of steps, they are ranked, and the best go on."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from jaxfit.problems import Training, name_of, whole_number
from jaxfit.problems.messages import did_you_mean, near_keywords


class Rung(NamedTuple):
    """The values of one group of lanes at a rung, from which a rule chooses.

    Attributes:
      step: The updates made.
      number: Which rung this is, from 0.
      values: (n,) float64, lower is better: what the rule ranks by, after `step` updates, or at the end of a lane that
        has converged before; infinite for a lane that failed, for NaN and for infinity of either sign. With
        `highest=True` the sign is turned.
      lanes: (n,) the numbers of the lanes, rising.

    Both arrays are read-only.

    Example:
      >>> jf.Rung(step=9, number=0, values=np.array([0.5, 0.1, np.inf]), lanes=np.arange(3)).values.argmin()
      np.int64(1)
    """

    step: int
    number: int
    values: np.ndarray
    lanes: np.ndarray


class Pruning(Protocol):
    """What `sweep` needs of a rule; every rule is a pure function of a rung."""

    @property
    def by(self) -> str: ...
    @property
    def over(self) -> str | Sequence[str] | None: ...
    @property
    def highest(self) -> bool: ...

    def rungs(self, steps: int) -> list[int]:
        """Return the rungs of a sweep of so many steps, rising, all below `steps`."""
        ...

    def keep(self, rung: Rung) -> np.ndarray:
        """Return (n,) booleans: which lanes of a group go on."""
        ...


@near_keywords
@dataclass(frozen=True)
class Halving:
    """A rule of successive halving: at each rung the best 1 / factor of the lanes go on, the others are PRUNED.

    Rungs are after first, first * factor, first * factor**2, ... updates, as long as that is below `steps`. Of n lanes
    n // factor go on, but at least one.

    Args:
      factor: A whole number, 2 or more.
      first: The first rung, in steps: a lane has made so many updates when it is ranked.
      by: What is ranked: "loss" (of all data), "validation_loss", or a name in `Record.what` of one number.
      over: The dimensions that compete: lanes are ranked along these, apart for each point of the others, as in
        `jf.best`. None for all.
      highest: Whether high values are good, such as an accuracy.

    Raises:
      TypeError, ValueError: If `factor` or `first` is not such a number, or `by` and `over` are no names.

    Source: Jamieson and Talwalkar (2016), arXiv:1502.07943.

    Example:
      >>> rates = jf.Axis("rate", np.logspace(-4, -0.5, 9))
      >>> grid = jf.sweep(
      ...     lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=90, prune=jf.Halving(factor=3, first=10)
      ... )
      >>> grid.results.steps.values.tolist()
      [10, 10, 10, 10, 10, 10, 30, 30, 90]
    """

    factor: int = 3
    first: int = 1
    by: str = "loss"
    over: str | Sequence[str] | None = None
    highest: bool = False

    def __post_init__(self):
        name = _check_names(self)
        object.__setattr__(self, "factor", whole_number(f"{name}: factor", self.factor, least=2))
        object.__setattr__(self, "first", whole_number(f"{name}: first", self.first))

    def rungs(self, steps: int) -> list[int]:
        return _powers(self.first, self.factor, steps)

    def keep(self, rung: Rung) -> np.ndarray:
        return lowest(rung.values, max(1, len(rung.values) // self.factor))


@near_keywords
@dataclass(frozen=True)
class Hyperband(Halving):
    """A rule of successive halving in brackets, of which some prune early and some late: Hyperband.

    Rungs are those of `Halving`, say K of them. Bracket b = 0 ... K prunes from rung b on, so that the last one ends
    only lanes that failed or stand above their start. Lanes are dealt to the brackets in the proportion ceil((K + 1)
    factor**(K - b) / (K - b + 1)) of the paper, evenly along every axis; each bracket is ranked on its own. A setting
    that is slow at first survives in the later brackets.

    Args:
      factor, first, by, over, highest: As for `Halving`.

    Raises:
      TypeError, ValueError: As for `Halving`.

    Source: Li et al. (2018), Journal of Machine Learning Research 18 (185).

    Example:
      >>> rates = jf.Axis("rate", np.logspace(-4, -0.5, 18))
      >>> rule = jf.Hyperband(factor=3, first=10)
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=90, prune=rule)
      >>> sorted(set(grid.results.steps.values.tolist())), bool(grid.results.loss.min() < 1e-6)
      ([10, 30, 90], True)
    """

    def brackets(self, lanes: np.ndarray, rungs: int) -> np.ndarray:
        """Return the bracket of each lane, a function of its number and of how many rungs there are."""
        shares = [-(-(rungs + 1) * self.factor**s // (s + 1)) for s in range(rungs, -1, -1)]
        ends = np.cumsum(shares) / sum(shares)
        spread = (
            np.asarray(lanes, np.uint64) * np.uint64(2654435769) % np.uint64(2**32)
        ) / 2**32  # by the golden ratio
        return np.searchsorted(ends[:-1], spread, side="right")


@near_keywords
@dataclass(frozen=True)
class Median:
    """A median rule: at each rung lanes worse than the median of all that are there are PRUNED.

    Rungs are after first, first + every, first + 2 every, ... updates, as long as that is below `steps`. A lane that is
    as good as the median goes on.

    Args:
      first: The first rung, in steps.
      every: Steps between rungs; None for `first`.
      by, over, highest: As for `Halving`.

    Raises:
      TypeError, ValueError: If `first` or `every` is not such a number, or `by` and `over` are no names.

    Source: Golovin et al. (2017), doi:10.1145/3097983.3098043, section 3.3; there the median is of running averages.

    Example:
      >>> rates = jf.Axis("rate", np.logspace(-4, -0.5, 8))
      >>> rule = jf.Median(first=10, every=40)
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=90, prune=rule)
      >>> grid.results.steps.values.tolist()
      [10, 10, 10, 10, 50, 50, 90, 90]
    """

    first: int = 1
    every: int | None = None
    by: str = "loss"
    over: str | Sequence[str] | None = None
    highest: bool = False

    def __post_init__(self):
        _check_names(self)
        object.__setattr__(self, "first", whole_number("Median: first", self.first))
        every = self.first if self.every is None else whole_number("Median: every", self.every)
        object.__setattr__(self, "every", every)

    def rungs(self, steps: int) -> list[int]:
        return list(range(self.first, steps, self.every or self.first))

    def keep(self, rung: Rung) -> np.ndarray:
        half = (len(rung.values) - 1) // 2  # of an even number the lower one of two: half of them go on
        return rung.values <= np.partition(rung.values, half)[half]


@near_keywords
@dataclass(frozen=True)
class Rungs:
    """A rule of your own: at these steps a function says which lanes go on.

    Args:
      at: The rungs, in steps, rising.
      keep: keep(rung) -> (n,) booleans, a pure function of a `Rung`: which lanes of the group go on. Failed lanes never
        do, whatever it returns. It is called for each rung and group, and before the sweep with made-up values.
      by, over, highest: As for `Halving`.

    Raises:
      TypeError, ValueError: If `at` is not rising whole numbers, `keep` cannot be called, or `by` and `over` are no
        names.

    Example:
      >>> rates = jf.Axis("rate", np.logspace(-4, -0.5, 8))
      >>> within = lambda rung: rung.values < 10 * rung.values.min()
      >>> rule = jf.Rungs(at=[20], keep=within)
      >>> grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rates), steps=90, prune=rule)
      >>> grid.results.steps.values.tolist()
      [20, 20, 20, 20, 20, 20, 20, 90]
    """

    at: Sequence[int]
    keep: Callable[[Rung], np.ndarray]
    by: str = "loss"
    over: str | Sequence[str] | None = None
    highest: bool = False

    def __post_init__(self):
        _check_names(self)
        if isinstance(self.at, str) or not hasattr(self.at, "__len__") or not len(self.at):
            raise TypeError(f"Rungs: at is {self.at!r}, but it must be a list of steps, such as [100, 300]")
        at = tuple(whole_number(f"Rungs: at[{i}]", step) for i, step in enumerate(self.at))
        if sorted(set(at)) != list(at):
            raise ValueError(f"Rungs: at is {list(at)}, but every rung must lie after the one before")
        object.__setattr__(self, "at", at)
        if not callable(self.keep):
            raise TypeError(f"Rungs: keep is {self.keep!r}, but it must be a function of a rung that returns booleans")

    def rungs(self, steps: int) -> list[int]:
        return list(self.at)


def _check_names(rule: Halving | Median | Rungs) -> str:
    """Return the name of the rule, after a check of the fields that all rules have."""
    name, over = type(rule).__name__, rule.over
    if not isinstance(rule.by, str):
        raise TypeError(f"{name}: by is {rule.by!r}, but it must be a name, such as 'loss' or 'validation_loss'")
    if not isinstance(rule.highest, (bool, np.bool_)):
        raise TypeError(f"{name}: highest is {rule.highest!r}, but it must be True or False")
    names = list(over) if isinstance(over, Sequence) and not isinstance(over, str) else [over]
    if over is not None and (not names or not all(isinstance(one, str) for one in names)):
        raise TypeError(f"{name}: over is {over!r}, but it must be a dimension's name, such as 'rate', or several")
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: over is {over!r}, but it must name every dimension once")
    if over is not None and not isinstance(over, str):
        object.__setattr__(rule, "over", tuple(names))
    return name


def _powers(first: int, factor: int, steps: int) -> list[int]:
    """Return first * factor**k below `steps`, by multiplying whole numbers: a quotient of logarithms is rounded."""
    powers = []
    while first < steps:
        powers.append(first)
        first *= factor
    return powers


def lowest(values: np.ndarray, count: int) -> np.ndarray:
    """Return where the `count` lowest of some values, none of them NaN, are; of equal ones those that come first."""
    if count >= len(values):
        return np.ones(len(values), bool)
    highest = np.partition(values, count - 1)[count - 1]  # of those chosen; a sort takes ten times as long
    chosen = values < highest
    chosen[np.flatnonzero(values == highest)[: count - int(chosen.sum())]] = True
    return chosen


# The rungs of a sweep


def as_text(rule: Pruning) -> str:
    """Return a rule as text that is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(rule))


def choices(rule: Pruning, rungs: Sequence[int], sizes: Mapping[str, int]) -> bytes:
    """Return which lanes a rule keeps at its rungs, of made-up values, as bits: a digest of the rule.

    A function is known to a store by its name alone, and that of an edited one is the same.
    """
    size = math.prod(sizes[name] for name in over_of(rule, sizes))
    count = max(9, 2048 // size)
    shares = np.arange(count * size, dtype=float).reshape(count, size) ** 2 * 0.6180339887498949 % 1  # spread evenly
    middles, widths = np.linspace(-10, 10, count)[:, None], np.geomspace(0.1, 20, 7)[np.arange(count) % 7, None]
    values = (-1 if rule.highest else 1) * np.exp(middles + widths * (shares - 0.5))
    kept = [
        _kept(rule, Rung(step, number, own, np.arange(size))) for number, step in enumerate(rungs) for own in values
    ]
    return np.packbits(kept).tobytes()


def check_pruning(rule: Pruning, training: Training, sizes: Mapping[str, int]) -> list[int]:
    """Return the rungs of a sweep, checked.

    Args:
      rule: As given to `sweep`.
      training: Of the sweep.
      sizes: Of its dimensions.

    Raises:
      TypeError: If it is no rule.
      ValueError: If its rungs are not below `steps` or between records, it ranks what is not there, or groups of one.
    """
    if isinstance(rule, type) or not all(hasattr(rule, name) for name in ("rungs", "keep", "by", "over", "highest")):
        raise TypeError(f"prune is {reprlib.repr(rule)}, but it must be a rule such as jf.Halving(factor=3, first=100)")
    steps, record, name = int(np.asarray(training.steps)), training.record, type(rule).__name__
    rungs = [whole_number(f"prune: {name}.rungs[{i}]", step) for i, step in enumerate(rule.rungs(steps))]
    if sorted(set(rungs)) != rungs:
        raise ValueError(f"prune: the rungs of {name} are {rungs}, but every rung must lie after the one before")
    if not rungs and not hasattr(rule, "first"):
        raise ValueError(f"prune: {name} has no rungs in {steps:,} steps, so that it prunes nothing")
    if not rungs or rungs[-1] >= steps:
        last = rungs[-1] if rungs else rule.first  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"prune: the rung at step {last:,} is not below steps={steps:,}, so that nothing is left to save there; "
            f"lower it, or raise steps"
        )
    off = [rung for rung in rungs if rung % record.every]
    if off:
        raise ValueError(
            f"prune: the rung at step {off[0]:,} lies between two records, which are made every {record.every:,} "
            f"steps; let rungs be multiples of that"
        )
    _check_by(rule, training)
    unknown = [name for name in over_of(rule, sizes) if name not in sizes]
    if unknown:
        raise ValueError(
            f"prune: over={unknown[0]!r} is not a dimension of the sweep, which has {', '.join(sizes)}"
            f"{did_you_mean(unknown[0], list(sizes))}"
        )
    size = math.prod(sizes[name] for name in over_of(rule, sizes))
    if size < 2:
        raise ValueError(
            "prune: every group has one lane, so that there is nothing to rank; "
            + ("let over name dimensions with more values" if rule.over else "sweep more of them, or leave prune out")
        )
    if not isinstance(rule, (Halving, Median)):
        _kept(rule, Rung(rungs[0], 0, np.arange(size, dtype=float), np.arange(size)))
    return rungs


def _check_by(rule: Pruning, training: Training) -> None:
    if rule.by == "loss" or (rule.by == "validation_loss" and training.validation is not None):
        return
    if rule.by == "validation_loss":
        raise ValueError('prune: by="validation_loss", but there are no validation data; pass validation=(x, y)')
    vectors = ("params", "gradient", "preconditioner")
    there = [name for name in training.record.names if name not in vectors]
    if rule.by not in there:
        held_out = ["validation_loss"] if training.validation is not None else []
        recorded = list(dict.fromkeys(["loss", *held_out, *there]))
        name = "size" if rule.by in vectors or not rule.by.isidentifier() else rule.by
        function = f"of your function {name}(params, *data), which returns one number, and by={name!r}"
        raise ValueError(
            f"prune: by={rule.by!r} is not recorded as one number for each lane, so that lanes cannot be ranked by it; "
            f"there is {', '.join(recorded)}{did_you_mean(rule.by, recorded)} Record it: "
            "record=jf.Record(every=..., what=("
            + ("'gradient_norm',))" if rule.by == "gradient_norm" else f"{name},)) {function}")
        )


def over_of(rule: Pruning, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the dimensions along which lanes compete."""
    if rule.over is None:
        return tuple(sizes)
    return (rule.over,) if isinstance(rule.over, str) else tuple(rule.over)


def survivors(
    rule: Pruning, step: int, number: int, rungs: int, values: np.ndarray, fine: np.ndarray, there: np.ndarray,
    sizes: Mapping[str, int],
) -> np.ndarray:  # fmt: skip
    """Return which lanes go on from a rung.

    Args:
      rule, step, number, rungs: The rule, and which of how many rungs this is.
      values: What is ranked, in the shape of the grid.
      fine: Whether a lane has not failed.
      there: Whether it has taken part so far.
      sizes: Of the grid's dimensions.
    """
    across, names = over_of(rule, sizes), list(sizes)
    order = sorted(range(len(names)), key=lambda i: names[i] in across)  # as in the grid: so lanes rise in a group
    groups = math.prod(size for name, size in sizes.items() if name not in across)
    numbers = np.arange(values.size).reshape(values.shape).transpose(order).reshape(groups, -1)
    signed = -values.astype(float) if rule.highest else values.astype(float)
    signed = np.where(fine & np.isfinite(signed), signed, np.inf).reshape(-1)
    goes, inside = np.zeros(values.size, bool), there.reshape(-1)
    for group in numbers:
        lanes = group[inside[group]]
        for members, prunes in _brackets(rule, lanes, number, rungs):
            if len(members):
                goes[members] = _kept(rule, Rung(step, number, signed[members], members)) if prunes else True
    return (goes & fine.reshape(-1) & (signed < np.inf)).reshape(values.shape)


def _brackets(rule: Pruning, lanes: np.ndarray, number: int, rungs: int) -> list[tuple[np.ndarray, bool]]:
    """Return the lanes that are ranked among themselves, and whether any are pruned at this rung."""
    if not isinstance(rule, Hyperband):
        return [(lanes, True)]
    brackets = rule.brackets(lanes, rungs)
    return [(lanes[brackets == b], number >= b) for b in range(rungs + 1)]


def _kept(rule: Pruning, rung: Rung) -> np.ndarray:
    """Return which lanes the rule keeps, checked."""
    for x in (rung.values, rung.lanes):
        x.flags.writeable = False
    goes_on = np.asarray(rule.keep(rung))
    if goes_on.shape != rung.values.shape or goes_on.dtype != np.bool_:
        raise TypeError(
            f"prune: {name_of(rule.keep)} returned {goes_on.dtype} of shape {goes_on.shape} for a rung of "
            f"{len(rung.values)} lanes, but it must return one boolean for each"
        )
    return goes_on
