"""The pages of the site that are written from code (reference, gallery, the five texts), and docstrings as RST."""

from __future__ import annotations

import collections
import importlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import ModuleType

import jaxfit

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
TOPICS = {  # of the names in jaxfit itself; whatever is missing stands under "More"
    "Fits": "fit step curve_fit resume save load Fit Status require_converged NotConverged Interrupted "
    "OutOfMemory cache",
    "What a fit is given": "Bounded Carried Fixed Tied Batches Record Stop optimizer",
    "Sweeps": "sweep Axis Call sample Uniform LogUniform Choice Halving Hyperband Median Rungs Rung ask tell "
    "Grid lane best refine starts optima Optima open verify NotReproduced StoreError",
    "What a fit is worth": "report standard_errors covariance correlations intervals profile bootstrap monte_carlo "
    "propagate band residuals goodness_of_fit f_test influence diagnostics",
    "Why it converged, or not": "explain sharpness hessian_spectrum curvature_along stability_limit measured_limit "
    "preconditioner learning_rate_range",
    "Landscapes and graphs": "surface backprop Graph backward_memory forward_memory",
}
MODULES = (
    "losses", "optimizers", "optimizers.torch", "optimizers.keras", "optimizers.tfjs", "schedules", "models", "plots",
    "landscapes", "datasets", "searches", "experiments",
    "sklearn", "statistics", "explanations", "graphs", "curvature",
)  # fmt: skip


def write(docs: Path, figures: Path) -> None:
    """Write the pages that come from code and figures into folders of `docs` that git ignores."""
    write_reference(docs / "reference")
    write_gallery(docs / "gallery", figures, docs / "explorers" / "gallery")
    texts = (figures / "texts.md").read_text()
    texts = re.sub(r"\]\(README\.md#(\w+)\)", r"](gallery/\1.md)", texts)
    texts = re.sub(r"\]\(([\w.-]+\.(?:png|gif))\)", lambda m: f"](gallery/{owner(m[1], figures)}.md)", texts)
    replace(docs / "texts.md", texts)


def owner(picture: str, figures: Path) -> str:
    """Return the experiment that a picture belongs to."""
    index = json.loads((figures / "index.json").read_text())
    return next(name for name, outcome in index.items() if picture in outcome["figures"])


def replace(path: Path, text: str) -> None:
    """Write a file unless it already says so: Sphinx then reads only what changed."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


# Reference


def write_reference(folder: Path) -> None:
    names = [*jaxfit.__all__, "open"]
    functions = [name for name in names if not isinstance(getattr(jaxfit, name), ModuleType)]
    told = {topic: listed.split() for topic, listed in TOPICS.items()}
    left = sorted(set(functions) - {name for listed in told.values() for name in listed})
    if left:
        told["More"] = left
    parts = [f"## {topic}\n\n{table('jaxfit', listed)}" for topic, listed in told.items()]
    modules = [importlib.import_module(f"jaxfit.{name}") for name in MODULES]
    links = "\n".join(f"- [`jf.{m.__name__[7:]}`]({m.__name__[7:]}.md): {first_line(m)}" for m in modules)
    toctree = ":::{toctree}\n:hidden:\n\n" + "\n".join(MODULES) + "\n:::\n"
    heading = "# Reference\n\nEvery public name, with an example. `import jaxfit as jf`.\n\n"
    replace(folder / "index.md", heading + "\n".join(parts) + f"\n## Modules\n\n{links}\n\n{toctree}")
    known = {getattr(jaxfit, name) for name in functions if callable(getattr(jaxfit, name))}
    for module in modules:
        own = [n for n in module.__all__ if callable(getattr(module, n)) and getattr(module, n) not in known]
        short = module.__name__[7:]
        text = f"# jf.{short}\n\n{(module.__doc__ or '').splitlines()[0]}\n\n{table(module.__name__, own)}"
        replace(folder / f"{short}.md", text)


def first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def table(module: str, names: Sequence[str]) -> str:
    rows = "\n   ".join(f"{module}.{name}" for name in names)
    return f"```{{eval-rst}}\n.. autosummary::\n   :toctree: api\n   :nosignatures:\n\n   {rows}\n```\n"


def docstring(app, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape what reads as markup in RST: our docstrings are plain text, with code between backquotes."""
    if lines and lines[0].startswith("Alias for field number"):  # of a NamedTuple
        lines[:] = []
    blocks, example = [[]], False  # in turns text and examples
    for line in lines:
        if example != (bool(line.strip()) and (example or line.lstrip().startswith(">>>"))):
            example = not example
            blocks.append([])
        blocks[-1].append(line)
    for i in range(0, len(blocks), 2):
        pieces = re.split(r"(`[^`]*`)", "\n".join(blocks[i]))
        pieces[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", piece) for piece in pieces[::2]]
        pieces[2::2] = [re.sub(r"^(?=\w)", r"\\ ", piece) for piece in pieces[2::2]]  # `Fit`s
        blocks[i] = "".join(pieces).split("\n") if blocks[i] else []
    lines[:] = [line for block in blocks for line in block]


FIELD = type(collections.namedtuple("_", "field").field)


def skip(app, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Leave out what scikit-learn adds to an estimator, and fields of a named tuple, which its docstring has."""
    return True if re.fullmatch(r"set_\w+_request", name) or isinstance(obj, FIELD) else None


# Gallery

FILTER = """<script>
document.getElementById("thumbnails-filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\\s+/);
  for (const card of document.querySelectorAll(".thumbnails a"))
    card.hidden = !words.every((word) => card.textContent.toLowerCase().includes(word));
});
</script>"""


def write_gallery(folder: Path, figures: Path, explorers: Path | None = None) -> None:
    """Write the gallery's pages; with `explorers`, a folder, run the sweeps whose pages they link to."""
    index = json.loads((figures / "index.json").read_text())
    cards = "\n".join(
        f'<a href="{name}.html"><img src="../_images/{thumbnail(outcome)}" alt="" loading="lazy">'
        f"<b>{escape(title(name))}</b><small>{escape(outcome['claim'])}</small></a>"
        for name, outcome in index.items()
    )
    find = '<input id="thumbnails-filter" type="search" placeholder="Filter by words" aria-label="Filter by words">'
    toctree = ":::{toctree}\n:hidden:\n\n" + "\n".join(index) + "\n:::\n"
    replace(
        folder / "index.md",
        "# Gallery\n\nEvery picture was drawn after all of its checks had passed; each page has them, the code and "
        f"the command.\n\n```{{raw}} html\n{find}\n<div class='thumbnails'>\n{cards}\n</div>\n{FILTER}\n```\n\n"
        f"{toctree}",
    )
    for name, outcome in index.items():
        replace(folder / f"{name}.md", figure_page(name, outcome, explorer_links(name, explorers) if explorers else ""))


def explorer_links(name: str, folder: Path) -> str:
    """Write a page for each large sweep that a figure shows, in the experiment's quick form; return their links.

    Sphinx copies `docs/explorers` beside the pages as it is. A page newer than its experiment is kept.
    """
    source = EXPERIMENTS / f"{name}.py"
    if "jf.sweep(" not in source.read_text():
        return ""
    listed = folder / f"{name}.json"
    if not listed.exists() or listed.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        told = []
        for number, grid in enumerate(large_sweeps(importlib.import_module(f"experiments.{name}")), 1):
            axes = " × ".join(f"{size} {axis}" for axis, size in grid.results.status.sizes.items())
            page = grid.to_html(folder / f"{name}-{number}.html", f"{title(name)}: {axes}")
            told.append([page.name, axes])
        listed.write_text(json.dumps(told))
    links = "\n".join(f'<li><a href="{page}">{escape(axes)}</a></li>' for page, axes in json.loads(listed.read_text()))
    if not links:
        return ""
    return (
        "## Explore\n\nIts sweeps as pages to move about in, with fewer lanes than the picture has:\n\n"
        f"```{{raw}} html\n<ul>\n{links}\n</ul>\n```\n\n"
    )


def large_sweeps(experiment: ModuleType) -> list[jaxfit.Grid]:
    """Return the three largest sweeps of an experiment's quick form, of those with at least 16 lanes."""
    sweep, grids = jaxfit.sweep, []

    def kept(*args, **options):
        grids.append(sweep(*args, **options))
        return grids[-1]

    jaxfit.sweep = kept
    try:
        experiment.compute(experiment.Config(**experiment.QUICK))
    finally:
        jaxfit.sweep = sweep
    large = [grid for grid in grids if grid.results.status.size >= 16]
    return sorted(large, key=lambda grid: -grid.results.status.size)[:3]


def title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def thumbnail(outcome: dict) -> str:
    return outcome["figures"][0]


def figure_page(name: str, outcome: dict, explore: str) -> str:
    source = (EXPERIMENTS / f"{name}.py").read_text()
    pictures = "\n\n".join(f"![{outcome['claim']}](../../figures/{picture})" for picture in outcome["figures"])
    rows = [["what", "published or theory", "measured", "tolerance", "source", "verdict"], *outcome["checks"]]
    rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    rows.insert(1, " | ".join(["---"] * 6))
    checks = "\n".join(f"| {row} |" for row in rows)
    calls = sorted(set(re.findall(r"\bjf\.([a-z_]+(?:\.[a-z_A-Z]+)?)\(", source)))
    calls = [call for call in calls if is_public(call)]
    uses = ", ".join(f"[`jf.{call}`](../reference/api/jaxfit.{call}.rst)" for call in calls)
    return (
        f"# {title(name)}\n\n{outcome['claim']}\n\n{pictures}\n\n{outcome['notes']}\n\n{explore}"
        f"## Checks\n\n{checks}\n\n"
        f"## Code\n\n`python -m experiments {name}` computes and draws it. It uses {uses}.\n\n"
        f"```{{literalinclude}} ../../experiments/{name}.py\n:language: python\n```\n"
    )


def is_public(call: str) -> bool:
    """Return whether the reference has a page of this call."""
    module, _, name = call.rpartition(".")
    home = importlib.import_module(f"jaxfit.{module}") if module in MODULES else jaxfit
    return name in home.__all__ and (module in MODULES) == bool(module)
