import os
import tempfile

import jax
import pytest

from jaxfit.engine import single
from jaxfit.engine.compiling import known_options
from jaxfit.engine.settings import counting, using

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The workers of one run, and the processes that tests start, share what they compile: nothing outlives the run.
    FOLDER = tempfile.TemporaryDirectory(prefix="jaxfit-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", FOLDER.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

jax.config.update("jax_numpy_rank_promotion", "raise")


QUICKLY = (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False))
AS_USERS_DO = {"tests", "engine", "verbs"}  # examples; bits, memory and the work of the compiler


@pytest.fixture(autouse=True, scope="module")
def compiler(request):
    """Quick tests of numbers and laws, which no compiler may change by more than rounding, compile in half the time."""
    if request.path.parent.name in AS_USERS_DO or request.config.option.markexpr == "soak":
        yield
        return
    with using(compiler=tuple(known_options(QUICKLY).items())):
        yield


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
