import jax
import numpy as np
import pytest

import jaxfit as jf
from jaxfit.problems.axes import Placeholder, resolve
from jaxfit.problems.dimensions import choose, fill, lanes, read


def test_dimensions_come_in_the_order_of_first_mention_not_sorted():
    tree = {"params": {"w": jf.Axis("late", [1.0, 2.0]), "b": jf.Axis("early", [0.0])}, "x": jf.Axis("more", [3.0])}
    assert list(read(tree)) == ["late", "early", "more"]


def test_an_axis_inside_another_axis_is_found_after_it():
    rate = jf.Axis("rate", [0.1, 0.2])
    tree = {"optimizer": jf.Axis("optimizer", [jf.optimizers.sgd(rate), jf.optimizers.adam(rate)])}
    found = read(tree)
    assert list(found) == ["optimizer", "rate"]
    assert found["optimizer"].static and not found["rate"].static


@pytest.mark.parametrize(
    ("place", "static"),
    [
        ({"params": {"n": jf.Axis("a", [1, 2])}}, False),
        ({"params": jf.Call(lambda width: width, width=jf.Axis("a", [1, 2]))}, True),
        ({"params": jf.Call(lambda scale: scale, scale=jf.Axis("a", [1.0, 2.0]))}, False),
        ({"batches": jf.Batches(jf.Axis("a", [1, 2]))}, True),
        ({"params": jf.Axis("a", [{"w": 1.0}, {"w": 2.0}])}, False),
        ({"params": jf.Axis("a", [{"w": 1.0}, {"v": 2.0}])}, True),
        ({"optimizer": jf.Axis("a", [jf.optimizers.sgd(0.1), jf.optimizers.sgd(0.2)])}, False),
        ({"optimizer": jf.Axis("a", [jf.optimizers.sgd(0.1), jf.optimizers.adam(0.2)])}, True),
    ],
)
def test_numbers_are_traced_and_parts_of_the_program_are_static(place, static):
    assert read(place, static_places=("batches",))["a"].static is static


def test_choosing_puts_values_in_place_also_inside_other_axes():
    rate = jf.Axis("rate", [0.1, 0.2])
    tree = {"o": jf.Axis("kind", [jf.optimizers.sgd(rate), jf.optimizers.adam(rate)]), "w": jf.Axis("w", [5.0, 6.0])}
    chosen = choose(tree, {"kind": 1, "rate": 1, "w": 0})
    assert repr(chosen["o"]) == "adam(learning_rate=0.2)" and chosen["w"] == 5.0


def test_lanes_and_fill_are_inverse_to_each_other():
    tree = {"a": jf.Axis("x", [1.0, 2.0]), "b": {"c": jf.Axis("y", [3.0, 4.0]), "d": 7.0}}
    template, columns = lanes(tree)
    own = {key: values[1] for key, values in columns.items()}
    assert fill(template, own) == {"a": 2.0, "b": {"c": 4.0, "d": 7.0}}
    assert [Placeholder(key).name for key in columns] == ["x", "y"]


def test_a_call_runs_with_its_static_and_traced_arguments_in_their_places():
    call = jf.Call(lambda n, scale, *, kind: (n, scale, kind), 3, 0.5, kind="a")
    leaves, structure = jax.tree.flatten(call)
    assert leaves == [0.5]
    assert resolve({"p": jax.tree.unflatten(structure, [0.25])}) == {"p": (3, 0.25, "a")}


def test_integer_seeds_for_a_key_become_keys_labelled_by_the_seeds():
    call = jf.Call(lambda key: jax.random.normal(key), key=jf.Axis("seed", [7, 8]))
    axis = call.kwargs["key"]
    assert axis.labels == [7, 8]
    assert np.array_equal(jax.random.key_data(axis.values[1]), jax.random.key_data(jax.random.key(8)))
