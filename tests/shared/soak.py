"""What `make soak` runs beside what `make test` does."""

from collections.abc import Iterable
from typing import Any

import pytest


def soaking(cases: Iterable, *, keep: Iterable | None = None, but: Iterable = ()) -> list[Any]:
    """The cases for `parametrize`: those to keep, or all but some, run in every test; the others only on request."""
    quick = [case for case in cases if (keep is None or case in keep) and case not in but]
    return [case if case in quick else pytest.param(case, marks=pytest.mark.soak) for case in cases]
