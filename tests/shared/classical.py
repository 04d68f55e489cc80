"""Groups of measurements that R ships in its package datasets, as curves of a few params, with starts.

Sources: Indometh, Theoph, Orange and DNase are in Pinheiro and Bates (2000), doi:10.1007/b98882; ChickWeight in Crowder
and Hand (1990); Puromycin and BOD in Bates and Watts (1988), doi:10.1002/9780470316757.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Groups(NamedTuple):
    """Curves of one form through several sets of measurements."""

    predict: Callable  # of (np or jnp, params, x)
    start: dict
    x: np.ndarray  # (n,), or (groups, n)
    y: np.ndarray  # (groups, n)
    linear: str | list  # names of the params that the curve is linear in
    named: Callable = lambda p: True  # of the params in alphabetical order: False if an exchange of terms gives others


def rows(text: str) -> np.ndarray:
    return np.array([[float(value) for value in line.split()] for line in text.strip().splitlines()])


def logistic(m, p, x):
    return p["asym"] / (1 + m.exp((p["mid"] - x) / p["scale"]))


GROUPS = {
    "Indometh": Groups(  # the concentration of indomethacin in plasma after hours, of 6 subjects
        lambda m, p, x: p["a"] * m.exp(-m.exp(p["k"]) * x) + p["b"] * m.exp(-m.exp(p["l"]) * x),
        {"a": 2.0, "k": 0.6, "b": 0.2, "l": -1.8},
        np.array([0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]),
        rows("""
            1.5 .94 .78 .48 .37 .19 .12 .11 .08 .07 .05
            2.03 1.63 .71 .7 .64 .36 .32 .2 .25 .12 .08
            2.72 1.49 1.16 .8 .8 .39 .22 .12 .11 .08 .08
            1.85 1.39 1.02 .89 .59 .4 .16 .11 .1 .07 .07
            2.05 1.04 .81 .39 .3 .23 .13 .11 .08 .1 .06
            2.31 1.44 1.03 .84 .64 .42 .24 .17 .13 .1 .09
        """),
        "ab", lambda p: p[2] >= p[3],
    ),
    "Theoph": Groups(  # the concentration of theophylline in serum after hours, of 12 subjects
        lambda m, p, x: p["a"] * (m.exp(-m.exp(p["k"]) * x) - m.exp(-m.exp(p["l"]) * x)),
        {"a": 10.0, "k": -2.5, "l": 0.5},
        rows("""
            0 .25 .57 1.12 2.02 3.82 5.1 7.03 9.05 12.12 24.37
            0 .27 .52 1 1.92 3.5 5.02 7.03 9 12 24.3
            0 .27 .58 1.02 2.02 3.62 5.08 7.07 9 12.15 24.17
            0 .35 .6 1.07 2.13 3.5 5.02 7.02 9.02 11.98 24.65
            0 .3 .52 1 2.02 3.5 5.02 7.02 9.1 12 24.35
            0 .27 .58 1.15 2.03 3.57 5 7 9.22 12.1 23.85
            0 .25 .5 1.02 2.02 3.48 5 6.98 9 12.05 24.22
            0 .25 .52 .98 2.02 3.53 5.05 7.15 9.07 12.1 24.12
            0 .3 .63 1.05 2.02 3.53 5.02 7.17 8.8 11.6 24.43
            0 .37 .77 1.02 2.05 3.55 5.05 7.08 9.38 12.1 23.7
            0 .25 .5 .98 1.98 3.6 5.02 7.03 9.03 12.12 24.08
            0 .25 .5 1 2 3.52 5.07 7.07 9.03 12.05 24.15
        """),
        rows("""
            .74 2.84 6.57 10.5 9.66 8.58 8.36 7.47 6.89 5.94 3.28
            0 1.72 7.91 8.31 8.33 6.85 6.08 5.4 4.55 3.01 .9
            0 4.4 6.9 8.2 7.8 7.5 6.2 5.3 4.9 3.7 1.05
            0 1.89 4.6 8.6 8.38 7.54 6.88 5.78 5.33 4.19 1.15
            0 2.02 5.63 11.4 9.33 8.74 7.56 7.09 5.9 4.37 1.57
            0 1.29 3.08 6.44 6.32 5.53 4.94 4.02 3.46 2.78 .92
            .15 .85 2.35 5.02 6.58 7.09 6.66 5.25 4.39 3.53 1.15
            0 3.05 3.05 7.31 7.56 6.59 5.88 4.73 4.57 3 1.25
            0 7.37 9.03 7.14 6.33 5.66 5.67 4.24 4.11 3.16 1.12
            .24 2.89 5.22 6.41 7.83 10.21 9.18 8.02 7.14 5.68 2.42
            0 4.86 7.24 8 6.81 5.87 5.22 4.45 3.62 2.69 .86
            0 1.25 3.96 7.82 9.72 9.75 8.57 6.59 6.11 4.57 1.17
        """),
        "a", lambda p: p[2] >= p[1],
    ),
    "Orange": Groups(  # the circumference in mm of 5 trees after days
        logistic, {"asym": 190.0, "mid": 700.0, "scale": 350.0},
        np.array([118.0, 484, 664, 1004, 1231, 1372, 1582]),
        rows("""
            30 58 87 115 120 142 145
            33 69 111 156 172 203 203
            30 51 75 108 115 139 140
            32 62 112 167 179 209 214
            30 49 81 125 142 174 177
        """),
        ["asym"],
    ),
    "DNase": Groups(  # the optical density by the logarithm of the concentration in ng/ml, of 11 runs of an assay
        logistic, {"asym": 2.35, "mid": 1.48, "scale": 1.04},
        np.log(np.repeat([0.04882812, 0.1953125, 0.390625, 0.78125, 1.5625, 3.125, 6.25, 12.5], 2)),
        rows("""
            .017 .018 .121 .124 .206 .215 .377 .374 .614 .609 1.019 1.001 1.334 1.364 1.73 1.71
            .045 .05 .137 .123 .225 .207 .401 .383 .672 .681 1.116 1.078 1.554 1.526 1.932 1.914
            .07 .068 .173 .165 .277 .248 .434 .426 .703 .689 1.067 1.077 1.629 1.479 2.003 1.884
            .011 .016 .118 .108 .2 .206 .364 .36 .62 .64 .979 .973 1.424 1.399 1.74 1.732
            .035 .035 .132 .135 .224 .22 .385 .39 .658 .647 1.06 1.031 1.425 1.409 1.75 1.738
            .086 .103 .191 .189 .272 .277 .44 .426 .686 .676 1.062 1.072 1.424 1.459 1.768 1.806
            .094 .092 .182 .182 .282 .273 .444 .439 .686 .668 1.052 1.035 1.409 1.392 1.759 1.739
            .054 .054 .152 .148 .226 .222 .392 .383 .658 .644 1.043 1.002 1.466 1.381 1.743 1.724
            .032 .043 .142 .155 .239 .242 .42 .395 .624 .705 1.046 1.026 1.398 1.405 1.693 1.729
            .052 .094 .164 .166 .259 .256 .439 .439 .69 .701 1.042 1.075 1.34 1.406 1.699 1.708
            .047 .057 .159 .155 .246 .252 .427 .411 .704 .684 .994 .98 1.421 1.385 1.715 1.721
        """),
        ["asym"],
    ),
    "ChickWeight": Groups(  # the weight in g after days, of 15 chicks
        logistic, {"asym": 300.0, "mid": 14.0, "scale": 6.0},
        np.array([0.0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 21]),
        rows("""
            42 51 59 64 76 93 106 125 149 171 199 205
            40 49 58 72 84 103 122 138 162 187 209 215
            43 39 55 67 84 99 115 138 163 187 198 202
            42 49 56 67 74 87 102 108 136 154 160 157
            41 42 48 60 79 106 141 164 197 199 220 223
            41 49 59 74 97 124 141 148 155 160 160 157
            41 49 57 71 89 112 146 174 218 250 288 305
            42 51 59 68 85 96 90 92 93 100 100 98
            41 44 52 63 74 81 89 96 101 112 120 124
            43 51 63 84 112 139 168 177 182 184 181 175
            41 49 56 62 72 88 119 135 162 185 195 205
            40 50 62 86 125 163 217 240 275 307 318 331
            41 55 64 77 90 95 108 111 131 148 164 167
            39 50 63 77 96 111 137 144 151 146 156 147
            41 53 64 87 123 158 201 238 287 332 361 373
        """),
        ["asym"],
    ),
    "Puromycin": Groups(  # the rate of a reaction with the treated enzyme, by the concentration in ppm
        lambda m, p, x: p["v"] * x / (p["k"] + x), {"v": 210.0, "k": 0.06},
        np.repeat([0.02, 0.06, 0.11, 0.22, 0.56, 1.1], 2),
        rows("76 47 97 107 123 139 159 152 191 201 207 200"),
        "v",
    ),
    "BOD": Groups(  # the biochemical oxygen demand in mg/l after days
        lambda m, p, x: p["asym"] * (1 - m.exp(-m.exp(p["rate"]) * x)), {"asym": 19.0, "rate": -0.6},
        np.array([1.0, 2, 3, 4, 5, 7]),
        rows("8.3 10.3 19 16 15.6 19.8"),
        ["asym"],
    ),
}  # fmt: skip
