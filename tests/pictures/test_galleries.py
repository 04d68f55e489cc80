"""A gallery's files change when a run says or shows something else, and only then; on any processor."""

import functools
import hashlib
import io
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxfit import experiments, galleries, plots
from jaxfit.galleries import LARGEST_CHANGE, same_picture, same_row
from tests.shared.soak import soaking

ROOT = Path(__file__).parents[2]
GOOD = '''"""A wave is drawn.

Source: none. Cost: nothing.
"""
from dataclasses import dataclass

import numpy as np

from jaxfit import plots
from jaxfit.experiments import Check

@dataclass(frozen=True)
class Config:
    shift: float = 0.0

def compute(config):
    return 1 + config.shift

def checks(result):
    return [Check("height", 1.0, result, 1e-3), Check("all", 0.0, np.linspace(-1, 1, 9) * 1e-9 * result, 1e-6)]

def draw(result):
    figure, axes = plots.panels("A", size=(3, 2))
    x = np.linspace(0, 7, 200)
    axes["A"].plot(x, result * np.sin(x))
    axes["A"].set_title("A wave")
    return figure
'''


@pytest.fixture(autouse=True)
def headless():
    plots.without_display()


@functools.cache
def picture(*, shift=0.0, title="A wave", size=8, color=plots.BLUE, digits=""):
    figure, axes = plots.panels("A", size=(2, 1.4))
    x = np.linspace(0, 7, 200)
    axes["A"].plot(x, np.sin(x) + shift, color=color)
    axes["A"].set(title=title, ylim=(-1.5, 1.5))
    with plots.style():
        axes["A"].text(1, -0.5, digits, fontsize=size, color="#555555")
    return plots.png(figure)


# Pictures

ALIKE = [tuple(pair) for pair in ("17", "27", "38", "56", "08", "89")]  # the digits that differ least


@pytest.mark.parametrize("shift", soaking([1e-15, 1e-9, 1e-6, 1e-3], keep=(1e-15, 1e-3)))
def test_a_picture_shows_the_same_when_a_line_moves_by_less_than_can_be_seen(shift):
    assert same_picture(picture(), picture(shift=shift))


def test_a_line_that_moves_by_a_pixel_a_word_and_a_color_are_changes():
    one_pixel = 3.0 / (1.4 * 160 * 0.77)  # the axes' height in data over that in pixels
    for change in ({"shift": one_pixel}, {"shift": -one_pixel}, {"title": "A wage"}, {"color": plots.RED}):
        assert not same_picture(picture(), picture(**change)), change


@pytest.mark.parametrize(("one", "other"), soaking([*itertools.combinations("0123456789", 2)], keep=ALIKE, names=2))
def test_a_digit_that_turns_into_another_is_a_change_even_in_the_smallest_labels(one, other):
    drawn = [picture(digits=f"0.1{digit}") for digit in (one, other)]
    pages = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) for png in drawn]
    assert np.abs(pages[0] - pages[1]).max() > LARGEST_CHANGE
    assert not same_picture(*drawn)


def test_an_animation_shows_the_same_only_frame_by_frame_and_in_its_time():
    def film(*shifts, duration=100):
        frames = [Image.open(io.BytesIO(picture(shift=shift))).convert("P") for shift in shifts]
        buffer = io.BytesIO()
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=duration)
        return buffer.getvalue()

    first = film(0.0, 0.2)
    assert same_picture(first, film(0.0, 0.2 + 1e-9))
    assert not same_picture(first, film(0.0, 0.3))
    assert not same_picture(first, film(0.0, 0.2, 0.3))
    assert not same_picture(first, film(0.0, 0.2, duration=200))
    assert not same_picture(first, picture())
    assert not same_picture(b"GIF89a", first)


# Rows


def cells(what="size", expected="1", measured="0.98", tolerance="0.02", source="law", verdict="ok"):
    return [what, expected, measured, tolerance, source, verdict]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"measured": "0.981"}, True),
        ({"measured": "1"}, True),
        ({"measured": "1.01"}, False),
        ({"measured": "nan"}, False),
        ({"measured": "[0.98, 1]"}, False),
        ({"expected": "1.01"}, True),
        ({"expected": "1.03"}, False),
        ({"expected": "True"}, False),
        ({"tolerance": "0.021"}, True),
        ({"tolerance": "0.03"}, False),
        ({"tolerance": "exact"}, False),
        ({"what": "length"}, False),
        ({"source": "theory"}, False),
        ({"verdict": "FAILED"}, False),
    ],
)
def test_a_recorded_row_stands_while_a_run_agrees_within_its_tolerance(change, same):
    assert same_row(cells(), cells(**change)) is same


def test_exact_rows_stand_only_to_the_digits_they_show():
    exact = cells(measured="673.45455", tolerance="exact")
    assert same_row(exact, cells(measured="673.45456", tolerance="exact"))
    assert not same_row(exact, cells(measured="673.4556", tolerance="exact"))
    words = cells("outcome", "DIVERGED", "DIVERGED", "exact")
    assert same_row(words, words) and not same_row(words, cells("outcome", "DIVERGED", "CONVERGED", "exact"))
    several = cells(expected="[1, 2]", measured="[1.01, 2.5]", tolerance="[0.02, 0.6]")
    assert same_row(several, cells(expected="[1, 2]", measured="[0.995, 2]", tolerance="[0.02, 0.6]"))
    assert not same_row(several, cells(expected="[1, 2]", measured="[0.98, 2.5]", tolerance="[0.02, 0.6]"))


def test_of_an_array_another_entry_may_be_the_worst():
    worst = cells("w (worst of 9)", "3", "3.01")
    assert same_row(worst, cells("w (worst of 9)", "7", "6.99"))
    assert not same_row(worst, cells("w (worst of 8)", "3", "3.01"))
    assert not same_row(cells("w (worst of 9)", verdict="FAILED"), worst)


# Runs


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "figures").iterdir())}


def run(folder, source):
    (folder / "wave.py").write_text(source)
    assert experiments.main([str(folder)]) == 0
    return files(folder)


def test_last_digits_change_no_file_and_anything_else_does(tmp_path):
    first = run(tmp_path, GOOD)
    for shift in ("1e-15", "-3e-9", "1e-5"):
        assert run(tmp_path, GOOD.replace("float = 0.0", f"float = {shift}")) == first
    changed = {
        "words": (GOOD.replace('"A wave"', '"One wave"'), {"wave.png"}),
        "claim": (GOOD.replace("A wave is drawn", "A wave is shown"), {"README.md", "index.json"}),
        "tolerance": (GOOD.replace("1e-3", "2e-3"), {"README.md", "index.json"}),
        "check": (GOOD.replace('"height"', '"top"'), {"README.md", "index.json"}),
    }
    for name, (source, expected) in changed.items():
        run(tmp_path, GOOD)
        before = files(tmp_path)
        after = run(tmp_path, source)
        assert {file for file in after if after[file] != before[file]} == expected, name


def test_a_picture_that_was_deleted_is_drawn_again(tmp_path):
    first = run(tmp_path, GOOD)
    (tmp_path / "figures" / "wave.png").unlink()
    assert run(tmp_path, GOOD) == first


def test_rows_and_pictures_are_of_the_same_run(tmp_path):
    run(tmp_path, GOOD)
    shifted = GOOD.replace("float = 0.0", "float = 0.0005").replace('"A wave"', '"One wave"')
    assert b"1.0005" in run(tmp_path, shifted)["index.json"]


def test_the_pictures_of_a_chaotic_experiment_stay_while_its_file_does(tmp_path):
    chaos = GOOD.replace("result * np.sin(x)", "np.random.default_rng().normal(size=200)")
    chaos = chaos.replace("def compute", "CHAOTIC = True\n\ndef compute")
    first = run(tmp_path, chaos)
    assert run(tmp_path, chaos) == first
    edited = run(tmp_path, chaos.replace("size=(3, 2)", "size=(3, 2.5)"))
    assert edited["wave.png"] != first["wave.png"]
    (tmp_path / "wave.py").write_text(chaos.replace("float = 0.0", "float = 0.5"))
    assert experiments.main([str(tmp_path)]) == 1


def test_the_quick_experiments_come_first(tmp_path, capsys):
    for name, cost in {"a": "SECONDS = 90", "b": "", "c": "SECONDS, CHAOTIC = 5, True"}.items():
        (tmp_path / f"{name}.py").write_text(GOOD.replace("def compute", f"{cost}\n\ndef compute"))
    assert experiments.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("[")] == ["b", "c", "a"]
    assert "GB of memory" in out.splitlines()[-1] or os.name == "nt"


def test_the_pictures_of_chaotic_experiments_are_those_of_their_files():
    """Or `make figures` would draw them anew wherever it runs first: run `python -m experiments NAME` and commit."""
    index = galleries.read_index(ROOT / "figures")
    for path in sorted((ROOT / "experiments").glob("*.py")):
        if experiments.constants(path).get("CHAOTIC"):
            assert index[path.stem].file == hashlib.sha256(path.read_bytes()).hexdigest()[:16], path.stem


CODES = {"default": "", "AVX2": "--xla_cpu_max_isa=AVX2", "SSE4_2": "--xla_cpu_max_isa=SSE4_2"}


@pytest.mark.soak
@pytest.mark.parametrize("code", CODES)
def test_all_figures_pass_and_change_no_file_whatever_the_processor(code, tmp_path):
    """In a clone of what is committed; XLA makes code for older processors too, whose last digits differ."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git, and a checkout")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} {CODES[code]}".strip()
    done = subprocess.run(
        [sys.executable, "-m", "experiments"],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": str(clone), "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert (done.returncode, failed, changed.stdout) == (0, [], ""), done.stderr[-2000:]
