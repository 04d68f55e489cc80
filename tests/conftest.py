import gc
import os
import tempfile

import jax
import pytest

from jaxfit.engine import single
from jaxfit.engine.settings import counting, using

gc.disable()  # until all tests are collected: to look for what can be thrown away took a third of that time

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The workers of one run, and the processes that tests start, share what they compile: nothing outlives the run.
    FOLDER = tempfile.TemporaryDirectory(prefix="jaxfit-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", FOLDER.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

jax.config.update("jax_numpy_rank_promotion", "raise")

OLD = jax.__version_info__ < (0, 11)
# The compiler's effort in `make test`, else mostly compilation: numbers and laws depend on it by no more than rounding.
# Processes that tests start do as their parent does. jax 0.11 has no other emitters.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}  # both cores are busy
AS_USERS_DO = {"xla_backend_optimization_level": 3, "xla_cpu_parallel_codegen_split_count": 32}
QUICKLY |= {"xla_cpu_use_fusion_emitters": False} if OLD else {}
AS_USERS_DO |= {"xla_cpu_use_fusion_emitters": True} if OLD else {}
# Files about bits, memory, speed and the work of the compiler. In `make soak` all tests run the users' programs.
FOR_USERS = {
    *("test_benchmarks", "test_compiling", "test_pools", "test_settings", "test_shuffles", "test_sums"),
    *("test_agreement", "test_bad_inputs_disk", "test_combinations", "test_longer_fits"),
}


def pytest_configure(config):
    if quick(config):
        flags = [f"--{name}={str(value).lower()}" for name, value in QUICKLY.items()]
        os.environ["XLA_FLAGS"] = " ".join([*flags, *os.environ.get("XLA_FLAGS", "").split()])


def pytest_collection_finish():
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def what_stays():
    """What is there before a file of tests, compiled programs above all, is not looked through for what can go."""
    gc.freeze()


def quick(config) -> bool:
    return config.option.markexpr == "not soak"


@pytest.fixture(autouse=True, scope="module")
def compiler(request):
    """In quick tests of some files, jaxfit's programs are those that users run."""
    if quick(request.config) and {request.path.parent.name, request.path.stem} & FOR_USERS:
        with using(compiler=tuple(AS_USERS_DO.items())):
            yield
    else:
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
