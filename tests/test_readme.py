import re
from pathlib import Path

import matplotlib

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def block(text):
    return next(b for b in BLOCKS if text in b)


def test_the_lines_of_the_readme_run_and_print_what_it_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    scope: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), scope)
    printed = capsys.readouterr().out.splitlines()[0]
    shown = next(line for line in README.splitlines() if line.startswith("    diverged"))
    assert printed == shown.strip()
    exec(compile(BLOCKS[1].replace("256", "32").replace("129", "5"), "README.md", "exec"), scope)
    assert "diverged" in capsys.readouterr().out
    exec(compile(block("jf.report"), "README.md", "exec"), scope)
    assert capsys.readouterr().out.startswith("fit     converged") and scope["low"] < 14.73 < scope["high"]
    exec(compile(block("jf.explain"), "README.md", "exec"), scope)
    printed = capsys.readouterr().out
    assert printed.startswith("diverged") and "converged" in printed and len(BLOCKS) == 4


def test_every_file_the_readme_names_is_there():
    root = Path(__file__).parent.parent
    missing = [name for name in re.findall(r"\]\(([^)#]+)\)", README) if not (root / name).exists()]
    assert not missing
