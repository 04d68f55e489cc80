"""The site lists every public name, its examples are whole, and its own checker finds what is broken."""

import ast
import re
from pathlib import Path
from types import ModuleType

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxfit as jf
from docs import pages
from docs.check import problems

DOCS = Path(pages.__file__).parent
WRITTEN = [path for path in sorted(DOCS.rglob("*.md")) if "code-cell" in path.read_text()]


def blocks(path):
    """The code of a page, cell by cell."""
    cells = re.findall(r"```\{code-cell\}\n(.*?)```", path.read_text(), re.S)
    return [re.sub(r"\A:tags:.*\n\n*", "", cell) for cell in cells]


def test_the_reference_lists_every_public_name_once(tmp_path):
    pages.write_reference(tmp_path)
    listed = re.findall(r"^   jaxfit\.(\w+)$", (tmp_path / "index.md").read_text(), re.M)
    functions = [name for name in [*jf.__all__, "open"] if not hasattr(getattr(jf, name), "__path__")]
    assert sorted(listed) == sorted(set(functions) - {"datasets", "searches", "schedules"})
    assert "## More" not in (tmp_path / "index.md").read_text(), "give each new name a topic in docs/pages.py"
    assert "jaxfit.losses.mse" in (tmp_path / "losses.md").read_text()


def test_each_figure_has_a_page_with_its_checks_and_each_card_leads_to_one(tmp_path):
    pages.write_gallery(tmp_path, DOCS.parent / "figures")
    index = (tmp_path / "index.md").read_text()
    for name in re.findall(r'href="(\w+)\.html"', index):
        assert "## Checks" in (tmp_path / f"{name}.md").read_text()
    assert index.count("<a ") == len(list(tmp_path.glob("*.md"))) - 1


def test_of_the_sweeps_of_an_experiment_the_largest_become_pages():
    def compute(rates):
        for count in rates:
            rate = jf.Axis("rate", np.linspace(0.1, 0.9, count))
            jf.sweep(lambda w: w**2, 1.0, optimizer=jf.optimizers.sgd(rate), steps=1)

    plain, experiment = jf.sweep, ModuleType("experiments.several")
    experiment.compute, experiment.Config, experiment.QUICK = compute, lambda rates: rates, {"rates": (15, 16, 18, 17)}
    assert [grid.results.status.size for grid in pages.large_sweeps(experiment)] == [18, 17, 16]
    assert jf.sweep is plain


@pytest.mark.soak
def test_a_figure_of_a_sweep_leads_to_its_explorer_and_another_has_none(tmp_path):
    links = pages.explorer_links("convergence_map", tmp_path)
    listed = re.findall(r'href="([\w.-]+)">([^<]+)</a>', links)
    assert [axes for _, axes in listed] == ["24 b0 × 24 learning_rate"] * 2 + ["12 learning_rate × 12 momentum"]
    made = [(tmp_path / page).stat().st_mtime_ns for page, _ in listed]
    heading = re.search("<title>(.*)</title>", (tmp_path / listed[0][0]).read_text("utf-8"))[1]
    assert heading == "Convergence map: 24 b0 × 24 learning_rate"
    assert pages.explorer_links("convergence_map", tmp_path) == links
    assert [(tmp_path / page).stat().st_mtime_ns for page, _ in listed] == made, "pages newer than it are kept"
    assert pages.explorer_links("backpropagation", tmp_path) == ""


def test_a_docstring_keeps_its_examples_and_escapes_what_reads_as_markup():
    lines = ["Return x**2 of `Fit`s and `a_`.", "", "Example:", "  >>> 2**3", "  8"]
    pages.docstring(None, "function", "f", None, None, lines)
    assert lines == [r"Return x\*\*2 of `Fit`\ s and `a_`.", "", "Example:", "  >>> 2**3", "  8"]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_are_python(path):
    assert blocks(path)
    for block in blocks(path):
        ast.parse(re.sub(r"\A%%writefile .*\n", "", block))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run_in_order(path, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    with jax.numpy_rank_promotion("allow"):
        for block in blocks(path):
            if file := re.match(r"%%writefile (.*)\n", block):
                Path(file[1]).write_text(block.removeprefix(file[0]))
            else:
                exec(compile(block, path.name, "exec"), scope)
    plt.close("all")


def test_the_checker_of_links_finds_lost_files_lost_places_and_what_is_loaded_from_elsewhere(tmp_path):
    (tmp_path / "b.html").write_text('<p id="here">')
    good = '<a href="b.html#here">b</a><a href="https://example.org">out</a><img src="data:image/png;base64,AA==">'
    (tmp_path / "a.html").write_text(good)
    assert problems(tmp_path) == []
    bad = '<a href="c.html">c</a><a href="b.html#there">b</a><script src="https://example.org/x.js"></script>'
    (tmp_path / "a.html").write_text(bad)
    assert [line.split(" ", 2)[2] for line in problems(tmp_path)] == [
        "leads nowhere", "names a place that is not there", "is loaded from the network",
    ]  # fmt: skip
    assert problems(tmp_path / "none") == [f"{tmp_path / 'none'} has no pages"]
