"""A million lanes, and fits of data on disk: what they take in memory, and whether time grows with their number."""

from __future__ import annotations

import numpy as np

from benchmarks import fresh, lines
from benchmarks.results import MEMORY, TIME, Row, Target
from benchmarks.timing import race, spread

STEPS = 100


def memory(quick: bool) -> list[Row]:
    """Peak memory of a fresh process above what the results hold."""
    side = 32 if quick else 1000
    taken = np.array([fresh.run("memory", side, STEPS) for _ in range(1 if quick else 3)])
    case = f"{side * side:,} lanes x {STEPS} steps"
    return [Row(case, "its results", MEMORY, spread(taken), Target(high=200))]


def linearity(quick: bool) -> list[Row]:
    """Time a lane of many lanes, against that of few; the fixed cost of a call makes it less than 1."""
    few, many = (4, 16) if quick else (100, 1000)
    contestants = {"few": lines.sweep_of(few, STEPS), "many": lines.sweep_of(many, STEPS)}
    times = race(contestants, rounds=2 if quick else 5)
    ratio = (times["many"] / many**2) / (times["few"] / few**2)
    case = f"time a lane, {many**2:,} lanes x {STEPS} steps"
    return [Row(case, f"jaxfit, {few**2:,} lanes", TIME, spread(ratio), Target(high=1.15))]


def sets_on_disk(quick: bool) -> list[Row]:
    """Decays of 50 points read from an array on disk, block by block, and fitted into a store."""
    few, many = (100, 400) if quick else (300_000, 1_000_000)  # both fill blocks, and so run one program
    ratio, above = np.array([fresh.run("sets_on_disk", few, many) for _ in range(1 if quick else 3)]).T
    case = f"{many:,} decays of 50 points from an array on disk into a store"
    return [
        Row(f"time a set, {case}", f"jaxfit, {few:,} of them", TIME, spread(ratio), Target(high=1.15)),
        Row(case, "its results", MEMORY, spread(above), Target(high=300)),
    ]
