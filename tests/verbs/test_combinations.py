"""Random sweeps: each runs, opens again, and equals single fits; `tests/shared/combinations.py` says how."""

import pytest

from tests.shared.combinations import SMALL, SPACE, check, drawn, fails, legal, simplest
from tests.shared.soak import soaking

# A combination may make a ready optimizer of its own, which one process must not count up from test to test.
pytestmark = pytest.mark.usefixtures("nothing_was_compiled_before")


def holds(spec):
    try:
        check(spec)
    except Exception as error:
        raise AssertionError(f"{spec} fails, and as simple as it can be {simplest(spec, fails)}") from error


@pytest.mark.parametrize("seed", soaking(range(12), keep=range(1)))
def test_a_small_combination_runs_opens_again_and_equals_single_fits(seed):
    holds(drawn(seed, SMALL))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(300))
def test_any_combination_runs_opens_again_and_equals_single_fits(seed):
    holds(drawn(seed))


def test_a_combination_that_fails_is_made_as_simple_as_it_can_be():
    spec = next(s for s in map(drawn, range(1000)) if s["optimizer"] == "kinds" and s["keep"] == "grown")
    found = simplest(spec, lambda s: s["optimizer"] == "kinds" and s["keep"] != "memory")
    simple = {name: choices[0] for name, choices in SPACE.items()}
    assert found == simple | {"optimizer": "kinds", "keep": "store"} and legal(found)


def test_three_hundred_seeds_draw_every_choice():
    specs = [drawn(seed) for seed in range(300)]
    for name, choices in SPACE.items():
        assert {spec[name] for spec in specs} == set(choices), name


FOUND = {
    "a random loss whose run ends before its neighbors'": {"loss": "noisy", "stop": "change", "steps": 4, "slots": 2},
    "keys on an executor": {"loss": "net", "keep": "executor"},
    "the loss of a lane out of steps": {"params": "plain", "optimizer": "judges", "steps": 1},
}


@pytest.mark.soak
@pytest.mark.parametrize("what", FOUND)
def test_what_random_combinations_found_holds(what):
    simple = {name: choices[0] for name, choices in SPACE.items()}
    holds(simple | {"params": "w axis"} | FOUND[what])
