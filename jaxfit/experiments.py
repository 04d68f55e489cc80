"""Checked figures: a claim, a computation, a table of checks, and a picture that is drawn only if they all pass.

    python -m jaxfit.experiments FOLDER [NAME ...] [--list] [--figures DIR]

An experiment is a file NAME.py of FOLDER with a docstring (first paragraph: the claim; then source and cost) and

    Config            a frozen dataclass whose defaults are the setting of the picture
    compute(config)   every number, as one result; pure
    checks(result)    a sequence of Check(what, expected, measured, tolerance, source)
    draw(result)      a matplotlib figure, or {suffix: figure} for several; an animation is the bytes of a GIF;
                      computes nothing

and, where it applies,

    SECONDS           about how long it takes; of several, the quick ones come first
    CHAOTIC = True    its pictures show one run of many that rounding alone makes different

Files that begin with "_" or define none of the four are helpers: experiments may import them. The figures, a README.md
that shows them with their checks, and an index.json that remembers the facts go to FOLDER/figures; files that already
say and show what a run finds stay as they are (`jaxfit.galleries`). The exit status is 0 if every experiment passed, 1
if one failed, 2 if the call was wrong, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxfit import plots
from jaxfit.galleries import Outcome, UsageError, keep, prepare, read_index, write_index
from jaxfit.problems.messages import near_names
from jaxfit.typing import ArrayLike
from jaxfit.verbs.summaries import text_table

__all__ = ["Check", "main", "show"]

Value = Any  # numbers, or what is compared as it is: a text, a status, a boolean
Picture = Figure | bytes  # a figure, or the bytes of a GIF

PARTS = ("Config", "compute", "checks", "draw")

# Checks


class Check(NamedTuple):
    """A check of one number: |measured - expected| <= tolerance, elementwise.

    NaN never passes; infinities, booleans and strings pass only if they are equal; one expected number may be compared
    with a whole array of measured ones, but two arrays need equal shapes.

    Example:
      >>> from jaxfit.experiments import Check
      >>> check = Check("the slope in degrees Celsius per unit", expected=0.556, measured=0.537, tolerance=0.05)
      >>> abs(check.measured - check.expected) <= check.tolerance
      True
    """

    what: str
    expected: Value
    measured: Value
    tolerance: ArrayLike = 0.0  # absolute, in the units of expected; one for all or one per entry
    source: str = ""  # where the expected value comes from

    @property
    def passed(self) -> bool:
        return bool(np.all(agree(self.expected, self.measured, self.tolerance)))

    def cells(self) -> list[str]:
        """Return what, expected, measured, tolerance, source, verdict; a long array is represented by its worst."""
        what, expected, measured, tolerance = self.what, self.expected, self.measured, self.tolerance
        if np.size(measured) > 4 and _numeric(measured) and np.shape(expected) in ((), np.shape(measured)):
            expected, measured, tolerance = _worst(expected, measured, tolerance)
            what += f" (worst of {np.size(self.measured):,})"
        shown = show(expected, tolerance), show(measured, tolerance), _rounded(tolerance)
        return [what, *shown, self.source, "ok" if self.passed else "FAILED"]


def agree(expected: Value, measured: Value, tolerance: ArrayLike) -> bool | np.ndarray:
    """Return where the measured value is within a finite tolerance of the expected one; other values must be equal."""
    if not (_numeric(expected) and _numeric(measured)):
        return np.asarray(expected).dtype.kind == np.asarray(measured).dtype.kind and np.array_equal(expected, measured)
    if not np.size(measured) or np.shape(expected) not in ((), np.shape(measured)):
        return False
    wanted, found, allowed = (np.asarray(value, float) for value in (expected, measured, tolerance))
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(wanted), abs(found - wanted) <= allowed, found == wanted) & np.isfinite(allowed)


def _numeric(value: Value) -> bool:
    return np.asarray(value).dtype.kind in "iuf"


def _worst(expected: ArrayLike, measured: ArrayLike, tolerance: ArrayLike) -> tuple[float, float, float]:
    wanted, found, allowed = np.broadcast_arrays(*(np.asarray(v, float) for v in (expected, measured, tolerance)))
    with np.errstate(invalid="ignore"):
        excess = np.where(wanted == found, -allowed, abs(found - wanted) - allowed)
    excess = np.where(np.isnan(excess), np.inf, excess)
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return float(wanted[worst]), float(found[worst]), float(allowed[worst])


def show(value: Value, tolerance: Value = 0.0) -> str:
    """Return a value as text, rounded to one digit more than the tolerance resolves.

    A number with few digits is written in full.

    Example:
      >>> from jaxfit.experiments import show
      >>> show(2 / 3, tolerance=0.01)
      '0.667'
    """
    if np.size(value) > 6:
        return f"an array of shape {np.shape(value)}"
    if np.ndim(value):
        entries = np.asarray(value)
        allowed = np.broadcast_to(tolerance if np.shape(tolerance) in ((), entries.shape) else 0.0, entries.shape)
        return "[" + ", ".join(show(v, t) for v, t in zip(entries, allowed, strict=True)) + "]"
    if not _numeric(value) or hasattr(value, "name"):
        return str(getattr(value, "name", value))
    number = float(value)
    if not np.isfinite(number) or float(f"{number:.10g}") == number:
        return f"{number:.10g}"
    if not tolerance > 0:
        return f"{number:.8g}"
    beyond = np.ceil(-np.log10(tolerance)) + 1  # decimal places
    return f"{number:.{int(np.clip(np.floor(np.log10(abs(number))) + 1 + beyond, 3, 10))}g}"


def _rounded(tolerance: ArrayLike) -> str:
    if not np.any(tolerance):
        return "exact"
    return f"{tolerance:.2g}" if not np.ndim(tolerance) else f"[{', '.join(f'{t:.2g}' for t in np.ravel(tolerance))}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the cells of the checks as aligned lines of text."""
    head = ("what", "expected", "measured", "tolerance", "verdict")
    body = [(what, expected, measured, tolerance, verdict) for what, expected, measured, tolerance, _, verdict in rows]
    return "\n".join("  " + line for line in text_table([head, *body], [True] * len(head), rule=False))


# Finding and loading


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None


def _defines(tree: ast.Module) -> set[str]:
    """Return the names that a module's top level binds, conditional ones left aside."""
    names = {getattr(node, "name", "") for node in tree.body}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def discover(folder: Path) -> list[str]:
    """Return the sorted names of a folder's experiments. A file that does not parse counts: it fails and says why."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the folder that holds the experiments")
    files = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
    trees = {path.stem: _tree(path) for path in files}
    names = [name for name, tree in trees.items() if tree is None or _defines(tree) & set(PARTS)]
    if not names:
        raise UsageError(f"{folder} holds no experiment: an experiment is a file NAME.py with {', '.join(PARTS)}")
    return names


def choose(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted names, all if none is wanted; raise a UsageError with near matches for an unknown one."""
    wanted = list(dict.fromkeys(name.removesuffix(".py") for name in wanted)) or list(names)
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
            raise UsageError(f"no experiment named {name!r}: {hint}")
    return wanted


def describe(path: Path) -> tuple[str, str]:
    """Return the claim (the docstring's first paragraph on one line) and the notes (the rest), without an import."""
    tree = _tree(path)
    claim, _, notes = ((ast.get_docstring(tree) if tree else None) or "").partition("\n\n")
    return " ".join(claim.split()), notes.strip()


def _package(folder: Path) -> tuple[Path, str]:
    """Return what has to be on the search path, and the folder's package with its final dot; "" if it is none."""
    package = ""
    while (folder / "__init__.py").exists():
        folder, package = folder.parent, f"{folder.name}.{package}"
    return folder, package


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let the folder's files find each other inside of the context; what they loaded is forgotten afterwards."""
    path, before = str(_package(folder)[0]), set(sys.modules)
    sys.path.insert(0, path)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(path)
        for name in set(sys.modules) - before:
            if folder in Path(getattr(sys.modules[name], "__file__", None) or os.sep).resolve().parents:
                del sys.modules[name]


def load(folder: Path, name: str) -> ModuleType:
    """Return the module of an experiment, as one of its package if the folder is one; call it inside `importable`."""
    path, package = folder / f"{name}.py", _package(folder)[1]
    if package:
        module = importlib.import_module(package + name)
        if Path(module.__file__ or "").resolve() != path:
            raise ImportError(f"another package named {package[:-1]} has been imported already: rename {folder}")
    else:
        module = ModuleType(f"experiment_{name}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # dataclasses look themselves up there
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    missing = [part for part in PARTS if not hasattr(module, part)]
    if missing or not (module.__doc__ or "").strip():
        raise AttributeError(f"{path.name} lacks {' and '.join(missing) or 'a docstring, which is its claim'}")
    return module


# Running


def run(folder: Path, name: str) -> tuple[Outcome, dict[str, bytes]]:
    """Compute, check and, if all is well, draw one experiment; return its outcome and its pictures by file name.

    An error inside it is reported, never raised.
    """
    path = folder / f"{name}.py"
    claim, notes = describe(path)
    cells, images, digest = [], {}, ""
    try:
        with importable(folder):
            module = load(folder, name)
            result = module.compute(module.Config())
            rows = [Check(*row) for row in module.checks(result)]
            cells, why = [row.cells() for row in rows], verdict(rows)
            if getattr(module, "CHAOTIC", False):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            if not why:
                with plots.style():
                    images = rendered(module.draw(result), name)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        why, images = f"it raised {type(error).__name__}", {}
    return Outcome(claim, notes, why, sorted(images), cells, digest), images


def verdict(rows: Sequence[Check]) -> str:
    """Return why these checks fail, or "" if they pass."""
    failed = sum(not row.passed for row in rows)
    if not rows:
        return "it checks nothing"
    return f"{failed} of {len(rows)} checks failed" if failed else ""


def rendered(drawn: Picture | Mapping[str, Picture], name: str) -> dict[str, bytes]:
    """Return the pictures as files: NAME.png, or NAME-SUFFIX.png of each."""
    drawn = drawn if isinstance(drawn, Mapping) else {"": drawn}
    if not drawn or any(Path(f"x{suffix}").name != f"x{suffix}" for suffix in drawn):
        raise ValueError(f"draw returned {list(drawn)}: it must be at least one figure, and no suffix a path")
    images = {}
    for suffix, picture in drawn.items():
        kind, image = ("gif", plots.gif(picture)) if isinstance(picture, bytes) else ("png", plots.png(picture))
        images[f"{name}-{suffix}.{kind}" if suffix else f"{name}.{kind}"] = image
    return images


# The command


def main(argv: Sequence[str] | None = None, *, command: str = "") -> int:
    """Run, or list, the experiments of a folder; return the exit status.

    Args:
      argv: FOLDER [NAME ...] [--list] [--figures DIR]; the command line's if None.
      command: How the reader of README.md runs one experiment, with {name} where its name goes.
    """
    parser = argparse.ArgumentParser("python -m jaxfit.experiments", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*", help="the experiments to run; all if none is named")
    parser.add_argument("--list", action="store_true", help="print the names and claims; run nothing")
    parser.add_argument("--figures", metavar="DIR", type=Path, help="where pictures go; FOLDER/figures if not given")
    options = parser.parse_intermixed_args(argv)
    folder = options.folder.resolve()
    figures = (options.figures or folder / "figures").resolve()
    try:
        names = discover(folder)
        wanted = choose(names, options.names)
        if options.list:
            print("\n".join(f"{name}: {describe(folder / f'{name}.py')[0]}" for name in wanted))
            return 0
        prepare(figures)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plots.without_display()
    return run_all(folder, names, wanted, figures, command or _command(folder, figures))


def _command(folder: Path, figures: Path) -> str:
    """Return the command as typed beside the folder; no path of this machine gets into README.md."""
    command = f"python -m jaxfit.experiments {folder.name} {{name}}"
    if figures == folder / "figures":
        return command
    inside = figures.is_relative_to(folder.parent)
    return f"{command} --figures {figures.relative_to(folder.parent).as_posix() if inside else 'DIR'}"


def run_all(folder: Path, names: Sequence[str], wanted: Sequence[str], figures: Path, command: str) -> int:
    """Run the wanted experiments, printing and keeping the outcome of each as soon as it is there."""
    passed, started = 0, time.perf_counter()
    wanted = sorted(wanted, key=lambda name: constants(folder / f"{name}.py").get("SECONDS", 0))
    count = f"{len(wanted)} experiments, the quick ones first" if len(wanted) > 1 else "1 experiment"
    print(f"{count}; figures go to {_near(figures)}", flush=True)
    try:
        for name in announced(wanted):
            began = time.perf_counter()
            fresh, images = run(folder, name)
            outcome, drawn = keep(figures, name, fresh, images)
            kept = {other: entry for other, entry in read_index(figures).items() if other in names}
            write_index(figures, kept | {name: outcome}, command)
            passed += not outcome.why
            tqdm.write(report(name, fresh, drawn, time.perf_counter() - began))
            sys.stdout.flush()
            jax.clear_caches()  # the next one shares no program with this one
    except KeyboardInterrupt:
        print("interrupted: what had been finished is kept", file=sys.stderr)
        return 130
    spent = time.perf_counter() - started
    took = f"{spent:.0f} s" if spent < 100 else f"{spent / 60:.0f} minutes"
    print(f"{passed} of {len(wanted)} experiments passed in {took}{_memory()}; "
          f"their figures: {_near(figures / 'README.md')}")  # fmt: skip
    return 0 if passed == len(wanted) else 1


def constants(path: Path) -> dict[str, float | bool]:
    """Return SECONDS and CHAOTIC of an experiment's file, those that it has, without importing it."""
    found = {}
    for node in getattr(_tree(path), "body", []):
        if isinstance(node, ast.Assign):
            names, values = (getattr(side, "elts", [side]) for side in (node.targets[0], node.value))
            pairs = zip(names, values, strict=False)  # a tuple may be made by a call
            found |= {
                name.id: value.value
                for name, value in pairs
                if getattr(name, "id", "") in ("SECONDS", "CHAOTIC") and isinstance(value, ast.Constant)
            }
    return found


def _memory() -> str:
    """Return the most memory that this process has held so far, where the system tells."""
    try:
        import resource
    except ImportError:  # not on Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return f", with at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB of memory"


def announced(names: Sequence[str]) -> Iterable[str]:
    """Yield the names, with a bar on a terminal and a line each elsewhere."""
    bar = tqdm(names, disable=not sys.stderr.isatty(), leave=False, unit="experiment")
    for number, name in enumerate(bar, 1):
        bar.set_description(name)
        if bar.disable:
            print(f"[{number}/{len(names)}] {name} ...", flush=True)
        yield name


def report(name: str, outcome: Outcome, drawn: bool, seconds: float) -> str:
    count, files = len(outcome.checks), ", ".join(outcome.figures)
    pictures = f"drew {files}" if drawn else f"{files}: as before"
    passed = f"{count} check{'s' * (count != 1)} passed in {seconds:.1f} s, {pictures}"
    lines = [f"{name}: {outcome.claim}", *([table(outcome.checks)] if count else [])]
    return "\n".join([*lines, f"{name}: " + (f"FAILED: {outcome.why}" if outcome.why else passed), ""])


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


__getattr__, __dir__ = near_names(__name__, __all__)
if __name__ == "__main__":
    sys.exit(main())
