"""Write the page of a store, also while its sweep still runs: `python -m jaxfit explore STORE [FILE]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxfit.pages.packing import write_page
from jaxfit.pages.sweeps import sweep_page
from jaxfit.stores import StoreError, open_dataset


def main(words: Sequence[str] | None = None) -> int:
    """Write a page; the exit status is 0 when it is written, 1 after an error."""
    parser = argparse.ArgumentParser(prog="python -m jaxfit explore", description=str(__doc__))
    parser.add_argument("store", metavar="STORE", help="the folder given to jf.sweep(..., store=)")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the page; by default STORE.html")
    given = parser.parse_args(words)
    try:
        store = Path(given.store)
        page = sweep_page(open_dataset(store, damaged="skip"), title=store.resolve().name)
        print(write_page(page, given.file or store.resolve().with_suffix(".html").name))
    except (StoreError, OSError, ValueError, TypeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0
