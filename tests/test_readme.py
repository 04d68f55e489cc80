import re
import textwrap
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest

import jaxfit as jf
from jaxfit import experiments

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(text):
    return next(b for b in BLOCKS if text in b)


def test_the_lines_of_the_readme_run_and_print_what_it_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    scope: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), scope)
    run, printed = scope["fit"], capsys.readouterr().out.splitlines()[0]
    shown = next(line for line in README.splitlines() if line.startswith("    diverged"))
    assert printed == shown.strip()
    exec(compile(BLOCKS[1].replace("256", "32").replace("129", "5"), "README.md", "exec"), scope)
    assert "diverged" in capsys.readouterr().out
    exec(compile(block('store="runs/line"'), "README.md", "exec"), scope)
    assert "Verification(blocks=" in capsys.readouterr().out and scope["wide"].precision == "float64"
    exec(compile(block("ThreadPoolExecutor(2)"), "README.md", "exec"), scope)
    assert scope["grid"].results.equals(jf.open("runs/shared"))
    exec(compile(block("jf.curve_fit"), "README.md", "exec"), scope)
    assert capsys.readouterr().out.count("converged: the params settled") == 2
    with jax.numpy_rank_promotion("allow"):
        fewer = block("nets =").replace("range(10)", "range(3)").replace("[8, 16, 32]", "[8]")
        exec(compile(fewer, "README.md", "exec"), scope)
    assert scope["nets"].results.loss.dims == ("seed", "width", "optimizer", "rate")
    capsys.readouterr()
    scope["fit"] = run  # of the first block; others have called theirs so since
    exec(compile(block("jf.explain"), "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert printed.startswith("diverged") and "converged" in printed and scope["bend"] > 5000
    exec(compile(block("jf.surface"), "README.md", "exec"), scope)
    assert scope["surface"].dims == ("w", "b") and scope["ax"].get_xlabel() == "w"
    exec(compile(block("jf.backprop"), "README.md", "exec"), scope)
    table = re.search(r"    edge .*?(?=\n\n)", README, re.S)
    assert table and textwrap.dedent(table[0]) in capsys.readouterr().out


@pytest.mark.soak
def test_the_curves_of_the_readme_run_and_the_report_says_how_many_starts_met(capsys):
    matplotlib.use("Agg")
    scope: dict = {"jf": jf, "jax": jax, "np": np}
    for text in ("def cooling", "jf.report(found", "peak.guess", "def wave"):
        exec(compile(block(text), "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    quoted = re.search(r'one line says "(.*?); ', README)
    assert quoted and quoted[1] in printed
    optima = re.search(r"the lowest of (\d+)", quoted[1])
    assert optima and f"{optima[1]} optima from 100 starts" in printed
    assert set(scope["low"]) == set(scope["high"]) == {"size", "rate", "phase"}


def test_the_experiment_of_the_readme_makes_a_checked_figure(tmp_path):
    matplotlib.use("Agg")
    (tmp_path / "slope.py").write_text(textwrap.dedent(block("class Config")))
    assert experiments.main([str(tmp_path)]) == 0
    assert (tmp_path / "figures" / "slope.png").exists()


def test_every_file_the_readme_names_is_there():
    root = Path(__file__).parent.parent
    missing = [name for name in re.findall(r"\]\(([^)#]+)\)", README) if not (root / name).exists()]
    assert not missing
