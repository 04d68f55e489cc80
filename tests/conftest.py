import logging

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


@pytest.fixture
def nothing_was_compiled_before(monkeypatch):
    from jaxfit.engine import single

    monkeypatch.setattr(single, "_seen", {})


@pytest.fixture
def compilations():
    """Counts the programs that XLA is asked to compile: `compilations.count`."""
    from tests.shared.bad_inputs import Compilations

    handler, logger = Compilations(), logging.getLogger("jax")
    logger.addHandler(handler)
    with jax.log_compiles():
        yield handler
    logger.removeHandler(handler)
