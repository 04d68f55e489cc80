"""python -m experiments [NAME ...] [--list]: run this project's experiments and rewrite their figures."""

import sys
from pathlib import Path

from jaxfit.experiments import main

FOLDER = Path(__file__).resolve().parent
FIGURES = FOLDER.parent / "figures"

if __name__ == "__main__":
    sys.exit(main([str(FOLDER), "--figures", str(FIGURES), *sys.argv[1:]], command="python -m experiments {name}"))
