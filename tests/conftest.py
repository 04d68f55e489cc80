import os
import tempfile

import jax
import pytest

from jaxfit.engine import single
from jaxfit.engine.settings import counting

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The workers of one run, and the processes that tests start, share what they compile: nothing outlives the run.
    FOLDER = tempfile.TemporaryDirectory(prefix="jaxfit-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", FOLDER.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

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
