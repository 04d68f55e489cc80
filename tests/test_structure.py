import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxfit"
ROOMS = [
    "keywords", "datasets", "models", "losses", "markers", "optimizers", "problems", "checks", "tracing", "steps",
    "pools", "programs", "progress", "outcomes", "fits", "grids", "workers", "sweeps", "plots", "experiments",
]  # fmt: skip


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxfit"):
            names = [node.module.removeprefix("jaxfit").removeprefix(".")]
            found |= {n.partition(".")[0] or alias.name for n in names for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("jaxfit.")}
    return found


def test_every_module_has_its_place_in_the_order():
    assert {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    later = set(ROOMS[ROOMS.index(room) :])
    assert not imports_of(PACKAGE / f"{room}.py") & later


def test_only_the_plots_import_matplotlib():
    users = [
        p.stem
        for p in PACKAGE.glob("*.py")
        if "import matplotlib" in p.read_text() or "from matplotlib" in p.read_text()
    ]
    assert set(users) <= {"plots", "experiments"}
