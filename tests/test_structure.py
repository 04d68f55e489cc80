import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxfit"
ROOMS = [
    "meanings", "histories",
    "keywords", "origins", "stores", "shuffles", "datasets", "models", "losses", "markers", "schedules", "parameters",
    "methods", "least_squares", "quasi_newton", "optimizers", "preconditioners", "stability", "problems", "enclosed",
    "checks", "jaxprs", "tracing", "compiling", "sums", "steps", "graphs", "layouts", "pools", "programs", "progress",
    "interruptions", "fingerprints", "checkpoints", "judgments", "outcomes", "fits", "updates", "searches", "curves",
    "coordinates", "grids", "dispatch", "evaluating", "executors", "resuming", "reruns",
    "sweeps", "multistarts", "worker", "verification", "boundaries", "refinement", "landscapes", "curvature",
    "explanations", "statistics", "memory", "sklearn", "plots", "galleries", "experiments",
]  # fmt: skip


def files_of(room: str) -> list[Path]:
    """The files of a room: a module, or a package of them."""
    return [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted(PACKAGE.glob(f"{room}/*.py"))


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
    found = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert found - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    later = set(ROOMS[ROOMS.index(room) :])
    files = files_of(room)
    assert files and not set().union(*map(imports_of, files)) & (later - ({room} if len(files) > 1 else set()))


def test_only_the_plots_import_matplotlib():
    users = [
        room
        for room in ROOMS
        for path in files_of(room)
        if "import matplotlib" in path.read_text() or "from matplotlib" in path.read_text()
    ]
    assert set(users) <= {"plots", "experiments"}


def test_only_the_estimator_imports_scikit_learn():
    users = [
        room for room in ROOMS for path in files_of(room) if "sklearn" in path.read_text().replace("[sklearn]", "")
    ]
    assert users == ["sklearn"]
