"""The runner of checked figures, on folders of tiny experiments; and this project's own, that their checks can fail."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxfit import experiments
from jaxfit.experiments import Check
from tests.shared.soak import soaking

ROOT = Path(__file__).parents[2]
GOOD = '''"""Two and two are four.

Source: arithmetic. Cost: nothing.
"""
from dataclasses import dataclass

from jaxfit.experiments import Check
from jaxfit import plots

@dataclass(frozen=True)
class Config:
    a: float = 2.0

def compute(config):
    return config.a + 2

def checks(result):
    return [Check("sum", 4.0, result, 1e-9, source="a table | of sums")]

def draw(result):
    figure, axes = plots.panels("A", size=(2, 2))
    axes["A"].plot([0, 1], [0, result])
    return figure
'''
WRONG = GOOD.replace("a: float = 2.0", "a: float = 3.0")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


def write(folder, **sources):
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)


def run(folder, *names):
    return experiments.main([str(folder), *names])


def readme(folder):
    return (folder / "figures" / "README.md").read_text("utf-8")


def snapshot(folder):
    return {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}


# Checks


@pytest.mark.parametrize(
    ("expected", "measured", "tolerance", "passed"),
    [
        (1.0, 1.1, 0.1 + 1e-12, True),
        (1.0, 1.1, 0.09, False),
        (np.nan, np.nan, 1.0, False),
        (1.0, np.nan, np.inf, False),
        (np.inf, np.inf, 0.0, True),
        (np.inf, -np.inf, 0.0, False),
        (1.0, np.inf, 1e300, False),
        (1.0, 2.0, np.inf, False),
        (1.0, 1.0, np.nan, False),
        (1.0, 1.0, -1.0, False),
        ([1.0, 2.0], [1.0, 2.05], 0.1, True),
        ([1.0, 2.0], [1.0, 2.05], [0.1, 0.01], False),
        ([1.0, np.inf], [1.0, np.inf], 0.1, True),
        (1.0, [1.0, 1.0, 1.3], 0.2, False),
        (1.0, [], 0.2, False),
        ([1.0, 2.0], 1.0, 5.0, False),
        ([1.0, 2.0], [[1.0], [2.0]], 5.0, False),
        ("DIVERGED", "DIVERGED", 0.0, True),
        ("DIVERGED", "CONVERGED", 9.0, False),
        ("4", 4, 9.0, False),
        (True, True, 0.0, True),
        (True, np.bool_(False), 9.0, False),
        (True, 1.0, 9.0, False),
        (3, np.int32(3), 0, True),
        (2**53, 2**53 + 2, 0, False),
    ],
)
def test_a_check_passes_only_within_its_tolerance(expected, measured, tolerance, passed):
    assert Check("x", expected, measured, tolerance).passed is passed


def test_a_long_array_is_shown_by_its_worst_entry():
    what, expected, measured, tolerance, source, verdict = Check("w", np.zeros(9), np.eye(9)[3] * 2, 1.0, "law").cells()
    assert (what, expected, measured, tolerance, source, verdict) == ("w (worst of 9)", "0", "2", "1", "law", "FAILED")


@pytest.mark.parametrize(
    ("value", "tolerance", "text"),
    [
        (1763.884644, 0.018, "1763.884644"),
        (1763.8846435546875, 0.018, "1763.885"),
        (1 / 3, 1e-3, "0.3333"),
        (np.inf, 0.0, "inf"),
        ([1.5, np.pi], 0.01, "[1.5, 3.142]"),
        (True, 0.0, "True"),
        (np.float32(0.1), 1e-4, "0.1"),
    ],
)
def test_numbers_are_shown_to_one_digit_beyond_their_tolerance(value, tolerance, text):
    assert experiments.show(value, tolerance) == text


# The runner


def test_an_experiment_that_passes_is_drawn_and_indexed(folder, capsys):
    write(folder, sums=GOOD)
    assert run(folder) == 0
    assert (folder / "figures" / "sums.png").read_bytes().startswith(b"\x89PNG")
    text = readme(folder)
    for part in (
        "## sums",
        "![Two and two are four.](sums.png)",
        r"a table \| of sums",
        "`python -m jaxfit.experiments studies sums`",
    ):
        assert part in text
    assert "1 of 1 experiments passed" in capsys.readouterr().out


def test_the_figures_are_the_same_bytes_in_every_run(folder):
    write(folder, sums=GOOD, wrong=WRONG)
    run(folder)
    first = snapshot(folder)
    run(folder)
    assert snapshot(folder) == first
    assert set(first) == {"sums.png", "README.md", "index.json"}


def test_nothing_of_this_machine_gets_into_the_index(folder):
    write(folder, sums=GOOD, broken=GOOD.replace("return config.a", "raise OSError(__file__)"))
    run(folder)
    for file in ("README.md", "index.json"):
        assert str(folder.parent) not in (folder / "figures" / file).read_text("utf-8")


def test_a_failing_experiment_keeps_its_old_picture_but_not_its_place_of_honor(folder, capsys):
    write(folder, sums=GOOD)
    run(folder)
    picture = (folder / "figures" / "sums.png").read_bytes()
    write(folder, sums=WRONG.replace("[0, 1], [0, result]", "[0, 1], [1, 0]"))
    assert run(folder) == 1
    assert (folder / "figures" / "sums.png").read_bytes() == picture
    assert "**FAILED**: 1 of 1 checks failed" in readme(folder)
    assert "sums.png" not in readme(folder)
    assert "FAILED" in capsys.readouterr().out


def test_a_failing_experiment_draws_nothing(folder):
    write(folder, wrong=WRONG)
    assert run(folder) == 1
    assert not (folder / "figures" / "wrong.png").exists()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (GOOD.replace("return config.a + 2", "raise ZeroDivisionError"), "it raised ZeroDivisionError"),
        (GOOD.replace("return config.a + 2", "raise SystemExit(0)"), "it raised SystemExit"),
        (GOOD.replace("figure, axes", "1 / 0; figure, axes"), "it raised ZeroDivisionError"),
        (GOOD.replace('Check("sum", 4.0, result, 1e-9, source="a table | of sums")', ""), "it checks nothing"),
        (GOOD.replace("def draw", "def sketch"), "it raised AttributeError"),
        (GOOD[GOOD.index("from") :], "it raised AttributeError"),
        (GOOD.replace("4.0, result, 1e-9", "[4.0, 4.0], [result] * 3, [1e-9, 1e-9]"), "1 of 1 checks failed"),
        (GOOD.replace("4.0, result, 1e-9", "[4.0] * 9, [result] * 9, [1e-9] * 2"), "it raised ValueError"),
        (GOOD.replace("return figure", "return {}"), "it raised ValueError"),
        (GOOD.replace("return figure", "return {'../x': figure}"), "it raised ValueError"),
        ("def compute(:", "it raised SyntaxError"),
    ],
)
def test_what_goes_wrong_in_one_experiment_does_not_stop_the_others(folder, source, why):
    write(folder, broken=source, sums=GOOD)
    assert run(folder) == 1
    index = json.loads((folder / "figures" / "index.json").read_text("utf-8"))
    assert index["broken"]["why"] == why
    assert index["sums"]["why"] == ""
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"sums.png"}


def test_running_some_by_name_keeps_the_entries_of_the_others(folder):
    write(folder, sums=GOOD, more=GOOD, gone=GOOD)
    run(folder)
    (folder / "gone.py").unlink()
    write(folder, sums=WRONG)
    assert run(folder, "more") == 0
    text = readme(folder)
    assert "## sums" in text and "FAILED" not in text and "## gone" not in text
    assert text.index("## more") < text.index("## sums")


def test_several_figures_of_one_experiment_carry_their_suffix(folder):
    write(
        folder,
        sums=GOOD.replace("return figure", "return {'left': figure, 'right': plots.panels('A', size=(1, 1))[0]}"),
    )
    assert run(folder) == 0
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"sums-left.png", "sums-right.png"}
    assert "(sums-left.png)" in readme(folder) and "(sums-right.png)" in readme(folder)


def test_experiments_import_their_siblings_and_leave_nothing_loaded(folder):
    importing = GOOD.replace("from dataclasses", "from helper import TWO\nfrom dataclasses").replace("+ 2", "+ TWO")
    write(folder, helper="TWO = 2", sums=importing)
    path = list(sys.path)
    assert run(folder) == 0
    assert sys.path == path
    assert not {"helper", "experiment_sums"} & set(sys.modules)
    assert "helper" not in readme(folder)


def test_an_edited_file_is_read_again(folder):
    write(folder, sums=GOOD)
    assert run(folder) == 0
    write(folder, sums=WRONG)
    assert run(folder) == 1


def test_experiments_of_a_package_import_relatively(folder):
    write(folder, __init__="", helper="TWO = 2")
    write(
        folder,
        sums=GOOD.replace("from dataclasses", "from .helper import TWO\nfrom dataclasses").replace("+ 2", "+ TWO"),
    )
    assert run(folder) == 0
    assert "studies" not in sys.modules


def test_a_list_runs_nothing(folder, capsys):
    write(folder, sums=GOOD, _helper="", plain="x = 1")
    assert experiments.main([str(folder), "--list"]) == 0
    assert capsys.readouterr().out == "sums: Two and two are four.\n"
    assert not (folder / "figures").exists()


def test_figures_go_where_they_are_asked_to(folder):
    write(folder, sums=GOOD)
    target = folder.parent / "pictures"
    assert experiments.main([str(folder), "--figures", str(target)]) == 0
    assert (target / "sums.png").exists()
    assert "`python -m jaxfit.experiments studies sums --figures pictures`" in (target / "README.md").read_text("utf-8")


# Wrong calls


def refused(capsys, *argv):
    assert experiments.main([str(a) for a in argv]) == 2
    return capsys.readouterr().err


def test_an_unknown_name_is_answered_with_near_ones(folder, capsys):
    write(folder, thermometer=GOOD, sums=GOOD)
    assert "did you mean thermometer?" in refused(capsys, folder, "termometer")
    assert "there are sums, thermometer" in refused(capsys, folder, "zzz")
    assert not (folder / "figures").exists()


def test_a_folder_that_is_missing_or_empty_is_an_error(folder, capsys):
    assert "not a folder" in refused(capsys, folder / "nowhere")
    assert "holds no experiment" in refused(capsys, folder)


def test_a_place_that_cannot_be_written_is_an_error_before_anything_is_computed(folder, capsys):
    ran = folder / "ran"
    write(folder, sums=GOOD.replace("return config.a", f"open({str(ran)!r}, 'w'); return config.a"))
    (folder / "taken").write_text("a file, not a folder")
    assert "cannot write figures" in refused(capsys, folder, "--figures", folder / "taken")
    assert not ran.exists()


def test_a_readme_of_somebody_else_is_not_overwritten(folder, capsys):
    write(folder, sums=GOOD)
    (folder / "README.md").write_text("mine")
    assert "would be lost" in refused(capsys, folder, "--figures", folder)
    assert (folder / "README.md").read_text() == "mine"


def test_an_index_that_cannot_be_read_is_an_error(folder, capsys):
    write(folder, sums=GOOD)
    (folder / "figures").mkdir()
    (folder / "figures" / "index.json").write_text("[1, 2")
    assert "delete it" in refused(capsys, folder)


def test_an_interruption_keeps_what_is_finished(folder, capsys):
    write(folder, a=GOOD, b=GOOD.replace("return config.a + 2", "raise KeyboardInterrupt"), c=GOOD)
    assert run(folder) == 130
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"a.png"}
    assert "## a" in readme(folder) and "## b" not in readme(folder)


def test_an_animation_is_written_as_a_gif(folder):
    image = "b'GIF89a' + bytes(20)"
    write(folder, sums=GOOD.replace("return figure", f"return {{'': figure, 'moving': {image}}}"))
    assert run(folder) == 0
    assert (folder / "figures" / "sums-moving.gif").read_bytes().startswith(b"GIF89a")
    assert "(sums.png)" in readme(folder) and "(sums-moving.gif)" in readme(folder)
    write(folder, sums=GOOD.replace("return figure", "return b'<svg>'"))
    assert run(folder) == 1


# This project's experiments

OWN = experiments.discover(ROOT / "experiments")
SHORT = ("learning_rates",)  # the others are in make soak
OPEN: set[str] = set()


def module(name):
    return importlib.import_module(f"experiments.{name}")


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def rows_of(own, **setting):
    return [Check(*row) for row in own.checks(own.compute(own.Config(**setting)))]


def passes(rows):
    return bool(rows) and all(row.passed for row in rows)


@pytest.mark.parametrize("name", soaking(OWN, keep=SHORT))
def test_every_experiment_names_one_setting_whose_change_breaks_its_checks(name):
    own, texts = module(name), module("texts")
    assert len(own.BREAK) == 1
    quick = getattr(own, "QUICK", {})
    rows = rows_of(own, **quick)
    assert passes(rows)
    assert not passes(rows_of(own, **quick | own.BREAK))
    checked = {texts.row_of(row.source) for row in rows}
    assert set(getattr(own, "ROWS", {})) <= checked, "a row that is covered has a check of its own"


@pytest.mark.parametrize("name", OWN)
def test_every_experiment_stands_in_the_index_with_a_check_of_each_of_its_rows(name):
    own, texts = module(name), module("texts")
    entry = json.loads((ROOT / "figures" / "index.json").read_text("utf-8"))[name]
    assert entry["why"] == "" and all((ROOT / "figures" / file).exists() for file in entry["figures"])
    assert set(getattr(own, "ROWS", {})) <= {texts.row_of(cells[4]) for cells in entry["checks"] if cells[-1] == "ok"}


def test_every_row_of_the_texts_is_covered():
    texts = module("texts")
    covered = set(texts.places())
    assert len(texts.ROWS) == 131
    assert covered <= set(texts.ROWS)
    assert set(texts.ROWS) - covered == OPEN


def test_every_published_number_is_met_in_the_index():
    """The index is rewritten by every run of the experiments, and the figures beside it are those of that run."""
    index = json.loads((ROOT / "figures" / "index.json").read_text("utf-8"))
    met = {cells[4] for entry in index.values() for cells in entry["checks"] if cells[-1] == "ok"}
    numbers = module("published").NUMBERS
    assert {name for name in numbers if name not in met and numbers[name]["row"] not in OPEN} == set()


def test_the_index_of_the_texts_leads_to_files_that_are_there():
    text = (ROOT / "figures" / "texts.md").read_text("utf-8")
    links = set(re.findall(r"\]\(([^)#]+)", text))
    assert links
    assert all((ROOT / "figures" / link).exists() for link in links)


@pytest.mark.parametrize(
    ("source", "row"),
    [
        ("PDL-nb02.step1", "PDL-X3"),
        ("PDL-F3.1, theory", "PDL-F3.1"),
        ("PDL-F3.11", "PDL-F3.11"),
        ("DLWPT-Out7.sgd", "DLWPT-Out7.sgd"),
        ("DLWPT-Out7: shapes", "DLWPT-Out7"),
        ("theory", ""),
        ("", ""),
    ],
)
def test_a_check_belongs_to_the_row_that_its_source_names(source, row):
    assert module("texts").row_of(source) == row


@pytest.mark.soak
def test_this_projects_experiments_are_listed_from_any_folder(tmp_path):
    listed = subprocess.run(
        [sys.executable, "-m", "experiments", "--list"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.partition(":")[0] for line in listed.stdout.splitlines()] == OWN


# The published numbers


def test_a_published_number_becomes_a_check_with_the_tolerance_of_its_precision():
    published = module("published")
    row = published.check("DLWPT-Out18.e1.loss", 1763.88, "loss")
    number = published.published("DLWPT-Out18.e1.loss")
    assert row.expected == number.expected and row.source == "DLWPT-Out18.e1.loss"
    assert row.tolerance == pytest.approx(number.atol_float32 + number.rtol_float32 * 1763.884644)
    wide = published.check("DLWPT-Out18.e1.loss", 1763.88, "loss", precision="float64")
    assert wide.tolerance == pytest.approx(number.atol + number.rtol * 1763.884644)


def test_every_published_number_can_be_read():
    published = module("published")
    assert len(published.NUMBERS) == 177
    for name in published.NUMBERS:
        expected = np.asarray(published.published(name).expected, float)
        assert not np.isnan(expected).any()
    with pytest.raises(KeyError, match="Out17"):
        published.published("DLWPT-Out17.e1.lss")
