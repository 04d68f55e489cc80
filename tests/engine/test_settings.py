"""Settings hold where they are changed and nowhere else, and every event has its entry."""

import re
from pathlib import Path

import numpy as np
import pytest

import jaxfit as jf
from jaxfit.engine.compiling import known_options
from jaxfit.engine.settings import EVENTS, Settings, counting, current, using
from tests.shared.soak import soaking


def test_a_setting_holds_inside_and_is_put_back_also_after_an_error():
    before = current()
    with pytest.raises(RuntimeError), using(workers=3):
        with using(chunk=8):
            assert (current().workers, current().chunk) == (3, 8)
        assert (current().workers, current().chunk) == (3, Settings().chunk)
        raise RuntimeError
    assert current() is before


def test_there_is_no_setting_of_another_name():
    with pytest.raises(TypeError, match="block_lane"), using(block_lane=4):
        pass


def test_a_setting_that_programs_contain_makes_another_program_and_the_same_result(events):
    fits, loss = [], lambda p: (p - 1.0) ** 2
    for rows in (64, 128, 64):
        with using(stretch_rows=rows):
            fits.append(jf.fit(loss, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=70))
    assert len(events["program"]) == 2  # a stretch from the start for each; the third fit finds that of the first
    assert len({float(fit.loss) for fit in fits}) == 1 and {len(fit.history.loss) for fit in fits} == {71}


def test_options_of_the_compiler_make_another_program_and_the_same_result(events):
    fits, loss = [], lambda p: (p - 1.0) ** 2
    for options in ((), (("xla_backend_optimization_level", 0),), ()):
        with using(compiler=options):
            fits.append(jf.fit(loss, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=7))
    assert len(events["program"]) == 2
    np.testing.assert_allclose([fit.loss for fit in fits], 4 * 0.64**7, rtol=1e-5)  # 7 steps in float32
    assert known_options((("no_option_of_any_compiler", 1), ("xla_backend_optimization_level", 0))) == {
        "xla_backend_optimization_level": 0
    }


@pytest.mark.parametrize("every", soaking([1, 7, 30], keep=(7,)))
def test_stretches_are_multiples_of_the_stride_of_records(every):
    with using(stretch_steps=21), counting() as found:
        jf.fit(lambda p: p**2, 3.0, optimizer=jf.optimizers.sgd(0.1), steps=100, record=jf.Record(every=every))
    assert sum(found["stretch"]) == 100 and all(count % every == 0 for count in found["stretch"][:-1])
    assert max(found["stretch"]) == max(every, 21 // every * every)


def test_every_event_has_an_entry():
    sources = [path.read_text("utf-8") for path in Path(jf.__file__).parent.rglob("*.py")]
    assert {name for text in sources for name in re.findall(r'happened\("([^"]+)"', text)} == set(EVENTS)
