import jax
import pytest

from jaxfit.engine import single
from jaxfit.engine.settings import counting

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def traces():
    """Counts how often a function is traced: `counted = traces(f)`, then `counted.count`."""

    def counting(function):
        def counted(*args, **kwargs):
            counted.count += 1
            return function(*args, **kwargs)

        counted.count = 0
        return counted

    return counting


@pytest.fixture
def nothing_was_compiled_before():
    single.seen.clear()


@pytest.fixture
def events():
    """What happens while a test lasts, by event: `events["program"]` has an entry for each program compiled."""
    with counting() as found:
        yield found
