"""What Python or JAX would say in its own words is said with the argument, the rule and what to write."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxfit as jf

X = np.arange(6.0)
DATA = X, 2 * X + 1
NAMED = {"w": 1.0, "b": 0.0}


def line(params, x):
    return params["w"] * x + params["b"]


def fit(predict, params):
    return jf.fit(jf.losses.mse(predict), params, DATA, optimizer=jf.optimizers.sgd(0.01), steps=5)


UNNAMED = "looks up a name though params is"
CALLS = {  # the call, what is said, and the call that this tells to make
    "a list for a dict": (lambda: fit(line, [1.0, 0.0]), f"{UNNAMED} a list of 2; write", lambda: fit(line, NAMED)),
    "a tuple for a dict": (lambda: fit(line, (1.0, 0.0)), f"{UNNAMED} a tuple of 2", lambda: fit(line, NAMED)),
    "an array for a dict": (lambda: fit(line, np.ones(2)), f"{UNNAMED} one array; write", lambda: fit(line, NAMED)),
    "x before params": (
        lambda: fit(lambda x, params: line(params, x), NAMED), r"called as model\(params, x\), in this order",
        lambda: fit(lambda params, x: line(params, x), NAMED),
    ),
    "keys of two kinds": (
        lambda: fit(lambda p, x: p["w"] * x + p[1], {"w": 1.0, 1: 0.0}), "fit: a dict has keys of several kinds",
        lambda: fit(lambda p, x: p["w"] * x + p["1"], {"w": 1.0, "1": 0.0}),
    ),
    "a param that is None": (
        lambda: fit(line, {"w": None, "b": 0.0}), r"computes with params\['w'\] .* it is None; give each param",
        lambda: fit(line, NAMED),
    ),
    "a model without x": (
        lambda: fit(lambda p: (p["w"] + p["b"]) * jnp.ones(6), NAMED), r"predict takes \(p\), but .* let it take x too",
        lambda: fit(lambda p, x: (p["w"] + p["b"]) * jnp.ones(6), NAMED),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_a_call_is_refused_with_what_to_write_and_that_runs(case):
    wrong, told, right = CALLS[case]
    with pytest.raises(TypeError, match=told):
        wrong()
    assert np.isfinite(right().loss)


def test_what_a_grid_does_not_have_is_answered_with_what_to_write():
    rate = jf.Axis("rate", [0.1, 0.2])
    grid = jf.sweep(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(rate), steps=2)
    for name, told in (
        ("loss", "grid.results.loss"),
        ("best_params_", "jf.best(grid).params"),
        ("sel", "jf.lane(grid, "),
    ):
        with pytest.raises(AttributeError) as error:
            getattr(grid, name)
        assert f"a grid has no {name!r}; write {told}" in str(error.value)
    with pytest.raises(AttributeError, match="did you mean results"):
        _ = grid.result
    assert not hasattr(grid, "_private")
