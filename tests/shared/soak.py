"""What `make soak` runs beside what `make test` does."""

from collections.abc import Collection
from typing import Any

import pytest


def soaking(
    cases: Collection, *, keep: Collection | int | None = None, but: Collection = (), names: int = 1
) -> list[Any]:
    """The cases for `parametrize`: those to keep, the first so many, or all but some, run in every test.

    The others run on request. A name that none of the cases has would let all of them go, and is an error. With
    `names` more than 1, a case holds the values of several arguments.
    """
    cases = list(cases)
    if isinstance(keep, int):
        quick = range(keep)
    else:
        keep = cases if keep is None else keep
        missing = [case for case in (*keep, *but) if case not in cases]
        assert not missing, f"no such cases: {missing}"
        quick = [i for i, case in enumerate(cases) if case in keep and case not in but]
    values = [case if names > 1 else (case,) for case in cases]
    return [pytest.param(*v, marks=() if i in quick else pytest.mark.soak) for i, v in enumerate(values)]
