"""Every message that gives a remedy stands in a table of bad inputs, whose rows follow it."""

import ast
import importlib
import re
import traceback
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from jaxfit.engine import single

ROOT = Path(__file__).parents[1]
TABLES = [path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.glob("tests/*/test_bad_inputs*.py"))]

ELSEWHERE = {  # messages that no call with bad arguments gives, and what gives them
    "an extra that is not installed": "^ask: space|^tell: ",
    "a machine without a platform": "^JAX is told to use the platform",
    "bits that a machine changed": "suspect its memory|suspect the compiler|restore it, or remove the store",
    "a file that is larger than any, or forged": "more than any that jaxfit writes|says what cannot be:  ; use another",
    "Ctrl-C, and memory that is full": r"result holds the|^interrupted|^\. It stopped",
    "a refined map": "^best: at   none of the members",
    "quantities, in tests/verbs/test_quantities.py": "takes plain numbers, but got a fit of|a unit that starts at zero",
    "values traced around a whole call": "the loss captured a value of a jit",
    "failed lanes, which are counted": "lanes did not converge",
}


def sites():
    """{(file, line): (file, what the message says)} of what is raised with a remedy, which stands after a semicolon."""
    found = {}
    for path in sorted((ROOT / "jaxfit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                texts = [
                    x.value for x in ast.walk(node.exc) if isinstance(x, ast.Constant) and isinstance(x.value, str)
                ]
                text, name = " ".join(texts), str(path.relative_to(ROOT / "jaxfit"))
                if "; " in text:
                    found |= {(str(path), line): (name, text) for line in range(node.lineno, node.end_lineno + 1)}
    return found


def reached(table):
    """The lines through which the errors of a table come."""
    module = importlib.import_module(".".join(table.parts))
    getattr(module, "prepare", lambda: None)()
    lines = set()
    for case in getattr(module, "CASES", {}).values():
        single.seen.clear()
        with pytest.raises(case.error) as caught:
            case.call()
        plt.close("all")  # more than 20 are a warning
        lines |= {(frame.filename, frame.lineno) for frame in traceback.extract_tb(caught.value.__traceback__)}
    return lines


@pytest.mark.soak
def test_every_remedy_is_followed_by_a_row_of_a_table():
    known, lines = sites(), set().union(*map(reached, TABLES))
    missing = set(known.values()) - {known[place] for place in known.keys() & lines}
    unknown = [(name, text) for name, text in sorted(missing) if not re.search("|".join(ELSEWHERE.values()), text)]
    assert len(set(known.values())) > 350 and not unknown, unknown


def test_what_is_excepted_from_the_tables_is_still_said():
    texts = [text for _, text in sites().values()]
    for why, words in ELSEWHERE.items():
        assert all(any(re.search(one, text) for text in texts) for one in words.split("|")), why
