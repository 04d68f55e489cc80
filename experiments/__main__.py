"""python -m experiments [NAME ...] [--list] [--figures DIR]: this project's experiments, and their figures anew."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxfit.experiments import main

from .texts import write_texts

FOLDER = Path(__file__).resolve().parent
FIGURES = FOLDER.parent / "figures"


def run(argv: Sequence[str]) -> int:
    status = main([str(FOLDER), "--figures", str(FIGURES), *argv], command="python -m experiments {name}")
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--figures", type=Path, default=FIGURES)
    options, _ = parser.parse_known_args(argv)
    if status in (0, 1) and not options.list:
        write_texts(options.figures)
    return status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
