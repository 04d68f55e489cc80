"""The layers that CONTRIBUTING.md draws are those of the code."""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import jaxfit as jf
from jaxfit.engine.settings import counting, using

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxfit"
PICTURE = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("```text\n")[1].split("```")[0]
LAYERS = {  # by the name of a room, a module or a folder of jaxfit: the number of its layer
    room.rstrip("/"): int(line[0])
    for line in PICTURE.splitlines()
    if re.match(r"\d ", line)
    for room in line.split("|")[0].split()[2:]
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The rooms that a file imports from, inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxfit":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxfit."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxfit.")}
    return found & set(LAYERS)


OUTSIDE = {"__init__", "__main__"}  # what users import, and the command line: above all layers
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem not in OUTSIDE]


def test_every_room_has_a_layer():
    there = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert there - OUTSIDE == set(LAYERS)
    assert len(list(PACKAGE.glob("[!_]*"))) <= 30


@pytest.mark.parametrize("room", LAYERS)
def test_imports_point_to_the_same_layer_or_down(room):
    files = [path for path in FILES if room_of(path) == room]
    assert files
    for path in files:
        above = {other for other in imports_of(path) if LAYERS[other] > LAYERS[room]}
        assert not above, f"{path.relative_to(ROOT)} imports from {above}, which lies above it"


def test_no_module_has_the_name_of_a_public_function():
    functions = {name for name in (*jf.__all__, "open") if callable(getattr(jf, name))}
    assert not functions & {path.stem for path in FILES}


MODULES = {  # the documented ones, each with the values among its public names that are neither functions nor classes
    "datasets": set(), "experiments": set(), "landscapes": set(), "losses": set(), "models": {"ACTIVATIONS"},
    "optimizers": {"keras", "tfjs", "torch"}, "schedules": set(), "searches": set(), "sklearn": set(),
    "plots": {"BLUE", "DARK", "GREEN", "GREY", "LARGEST", "ORANGE", "PALE", "PINK", "RED", "SKY"},
}  # fmt: skip


def test_the_package_lists_its_public_names_and_its_documented_modules():
    assert dir(jf) == sorted({*jf.__all__, "open", *MODULES})


def test_what_the_package_imports_later_is_what_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (later,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module, alias.name) for node in later.body for alias in node.names}
    names = {(f"jaxfit.{module}", name) for module, names in jf._LATER.items() for name in names}
    assert seen == names | {("jaxfit", name) for name in jf._MODULES}
    for module, name in names:
        assert getattr(jf, name) is getattr(importlib.import_module(module), name)
    for name in jf._MODULES:
        assert getattr(jf, name) is importlib.import_module(f"jaxfit.{name}")


INSIDE = [f"optimizers.{framework}" for framework in MODULES["optimizers"]]


@pytest.mark.parametrize(
    "name", [*MODULES, *sorted(INSIDE), "stores", "statistics", "curvature", "graphs", "explanations"]
)
def test_a_module_lists_nothing_but_documented_functions_and_classes(name):
    module = importlib.import_module(f"jaxfit.{name}")
    assert dir(module) == sorted(module.__all__)
    public = {name: getattr(module, name) for name in module.__all__}
    assert {name for name, value in public.items() if not callable(value)} == MODULES.get(name, set())
    assert all(inspect.getdoc(value) for value in public.values() if callable(value))
    modules = {name for name, value in public.items() if inspect.ismodule(value)}
    assert modules <= MODULES.get(name, set()) and not any(name.startswith("_") for name in public)


def test_only_the_pictures_import_matplotlib():
    users = {room_of(p) for p in FILES if re.search("^ *(import|from) matplotlib", p.read_text("utf-8"), re.M)}
    assert users and all(LAYERS[room] == 5 for room in users)


def test_only_the_estimator_imports_scikit_learn():
    users = {room_of(p) for p in FILES if re.search("^ *(import|from) sklearn", p.read_text("utf-8"), re.M)}
    assert users == {"sklearn"}


def test_only_the_engine_reads_jaxprs():
    """What `jaxprs` wraps, nothing else unwraps: equations and the values of literals."""
    reads = r"\.(eqns|invars|outvars|constvars|source_info)\b|eval_jaxpr"
    assert [p.name for p in FILES if re.search(reads, p.read_text("utf-8"))] == ["jaxprs.py"]


def test_the_docstring_of_a_function_begins_with_what_it_does():
    """An imperative; of properties, which are read like fields, the thing itself."""
    other = re.compile(r"(The|A|An|Whether|Which|How|What|Where|Each|Every|Inside|In|Of|As)\b|[^A-Z]")
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and not any("property" in ast.unparse(d) for d in node.decorator_list):
                if other.match(ast.get_docstring(node) or "Return"):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not found


@pytest.mark.parametrize(("event", "most"), [("stretch", 12), ("block", 16)], ids=["fit", "sweep"])
def test_a_warm_call_reaches_the_compiled_step_through_few_files(event, most):
    """A reader who follows a call has no more files to open than that; what comes after the step is not counted."""
    rate = 1e-4 if event == "stretch" else jf.Axis("rate", [1e-4, 1e-3])
    run, folder = jf.fit if event == "stretch" else jf.sweep, str(PACKAGE)
    call = functools.partial(
        run, jf.losses.mse(jf.models.line), {"w": 1.0, "b": 0.0}, jf.datasets.thermometer(),
        optimizer=jf.optimizers.sgd(rate), steps=10,
    )  # fmt: skip
    entered = set()

    def enter(frame, what, _):
        if what == "call" and frame.f_code.co_filename.startswith(folder):
            entered.add(frame.f_code.co_filename)

    with using(workers=1):  # this thread, the only one that is followed
        call()
        with counting(lambda name, _: sys.setprofile(None) if name == event else None):
            sys.setprofile(enter)
            try:
                call()
            finally:
                sys.setprofile(None)
    names = sorted(str(Path(name).relative_to(folder)) for name in entered)
    assert "problems/posing.py" in names and len(names) <= most, names


def test_the_test_files_that_are_named_in_code_and_texts_are_there():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/**/*.py")]
    texts = [path for path in texts if not path.relative_to(ROOT).parts[0].startswith((".", "build"))]
    named = re.compile(r"\btests/[\w/*]+\.py\b|(?<=-m )tests(?:\.\w+)+|(?<=[\"'])tests(?:\.\w+)+(?=[\"':])")
    found = {name for path in texts for name in named.findall(path.read_text("utf-8"))}
    paths = {name: name if "/" in name else name.replace(".", "/") + ".py" for name in found}
    assert "tests/*/test_bad_inputs*.py" in found and "tests.shared.combinations" in found
    assert not [name for name, path in paths.items() if not [*ROOT.glob(path)]]


def test_the_source_distribution_holds_all_that_git_tracks(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a checkout")  # but an unpacked distribution, whose files git does not list
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {*listing.stdout.split()} - held == {".ci/run"}
