import jax
import pytest

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
