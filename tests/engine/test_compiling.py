"""Programs that outlive their process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

X = np.linspace(0.0, 1.0, 12)
DATA = X, 2 * X + 1 + 0.1 * np.sin(9 * X)
SECONDS = "jax_persistent_cache_min_compile_time_secs"


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_persistent_cache_min_compile_time_secs, jax.config.jax_compilation_cache_dir
    jax.config.update(SECONDS, 60.0)
    jf.cache(tmp_path / "programs")
    yield tmp_path / "programs"
    jf.cache(None)
    jax.config.update(SECONDS, before[0])
    assert jax.config.jax_compilation_cache_dir == before[1]


def fitted():
    """A fit of a function that this process has not compiled yet, and of which another made the same program."""
    return jf.fit(jf.losses.mse(lambda p, x: p["w"] * x + p["b"]), {"w": 1.0, "b": 0.0}, DATA,
                  optimizer=jf.optimizers.sgd(0.1), steps=20)  # fmt: skip


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.name.endswith("-cache"))


def test_every_program_of_jaxfit_is_kept_and_found_and_no_other(folder, events):
    first = fitted()
    kept = entries(folder)
    assert len(kept) == len(events["program"]) > 0
    jax.jit(lambda x: jnp.sin(x) + 0.123)(1.0)  # the user's, which compiles in less than a minute
    again = fitted()
    assert entries(folder) == kept and len(events["program"]) == 2 * len(kept)
    assert float(again.loss) == float(first.loss) and jax.config.jax_persistent_cache_min_compile_time_secs == 60
    jf.sweep(jf.losses.mse(jf.models.line), {"w": jf.Axis("w0", [0.0, 1.0]), "b": 0.0}, DATA,
             optimizer=jf.optimizers.sgd(0.1), steps=3)  # fmt: skip
    assert len(entries(folder)) > len(kept)


@pytest.mark.soak
@pytest.mark.filterwarnings("default:Error reading persistent compilation cache")
def test_a_damaged_entry_costs_time_and_no_result(folder, events):
    first = fitted()
    for path in entries(folder):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        again = fitted()
    assert float(again.loss) == float(first.loss)
    np.testing.assert_array_equal(again.history.loss, first.history.loss)


def test_a_folder_that_is_no_path_is_refused():
    with pytest.raises(TypeError, match=r"folder is 3, but it must be a path or None, as in jf.cache\('programs'\)"):
        jf.cache(3)
