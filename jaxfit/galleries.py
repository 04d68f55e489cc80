"""A gallery: a folder of pictures, an index.json of what stands behind each, and a README.md that shows them.

What a run finds replaces what is recorded only if it says something else. Where all checks agree with the recorded
ones within their tolerances and all pictures show the same, the files stay as they are, to the byte: last digits,
which change from one processor to another, change no file. Of a chaotic experiment, whose pictures show one run of
many that rounding alone makes different, the pictures stay while its file is the same.
"""

import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

MARK = "<!-- Written by jaxfit.experiments: what is edited here is lost at the next run. -->"
HEAD = (
    "Every picture here was drawn after all of its checks had passed. A run whose checks agree with these within their "
    "tolerances, and whose pictures show the same, leaves all as it is."
)


class UsageError(Exception):
    """The call is wrong; nothing has been computed."""


class Outcome(NamedTuple):
    """The entry of an experiment in the index."""

    claim: str
    notes: str
    why: str  # why it failed; "" if it passed
    figures: list[str]  # file names, empty if it failed
    checks: list[list[str]]  # Check.cells() of every row
    file: str = ""  # of a chaotic experiment: the digest of its file


def keep(figures: Path, name: str, fresh: Outcome, images: Mapping[str, bytes]) -> tuple[Outcome, bool]:
    """Write the pictures of an experiment if they or its checks have changed.

    Returns:
      What the index is to tell, and whether the pictures were written.
    """
    kept = read_index(figures).get(name)
    if kept is not None and stands(figures, kept, fresh, images):
        return fresh._replace(checks=kept.checks), False
    for file, image in images.items():
        _replace(figures / file, image)
    return fresh, bool(images)


def stands(figures: Path, kept: Outcome, fresh: Outcome, images: Mapping[str, bytes]) -> bool:
    """Return whether the record of an experiment agrees with the result of a run."""
    if fresh.why or kept.why or kept.figures != fresh.figures or kept.file != fresh.file:
        return False
    if len(kept.checks) != len(fresh.checks) or not all(map(same_row, kept.checks, fresh.checks)):
        return False
    files = [figures / file for file in images]
    if not all(file.exists() for file in files):
        return False
    chaotic = bool(fresh.file)
    return chaotic or all(same_picture(file.read_bytes(), images[file.name]) for file in files)


def same_row(kept: Sequence[str], fresh: Sequence[str]) -> bool:
    """Return whether two rows of cells, both of checks that passed, agree within their tolerance.

    Of an array only its worst entry is in a row, which may be another one each time.
    """
    what, expected, measured, tolerance, source, verdict = range(6)
    if any(kept[i] != fresh[i] for i in (what, source, verdict)) or kept[verdict] != "ok":
        return False
    if "(worst of" in kept[what]:
        return True
    allowed = _numbers(kept[tolerance].replace("exact", "0")) or [0.0]
    return _close(kept[tolerance], fresh[tolerance], [0.0], TWO_DIGITS) and all(
        _close(kept[i], fresh[i], allowed, EIGHT_DIGITS) for i in (expected, measured)
    )


TWO_DIGITS, EIGHT_DIGITS = 0.1, 1e-7  # what numbers that are shown with so many may differ by, relatively


def _close(kept: str, fresh: str, allowed: Sequence[float], relative: float) -> bool:
    """Return whether two cells are the same text, or numbers no farther apart than allowed, or than their digits show.

    What is allowed is itself known to two digits, 5 %.
    """
    first, second = _numbers(kept), _numbers(fresh)
    if kept == fresh or first is None or second is None:
        return kept == fresh
    allowed = list(allowed) * len(first) if len(allowed) == 1 else allowed
    return len(allowed) == len(first) == len(second) and all(
        a == b or abs(a - b) <= max(1.05 * c, relative * abs(a)) for a, b, c in zip(first, second, allowed, strict=True)
    )


def _numbers(cell: str) -> list[float] | None:
    """Return the numbers of a cell such as "0.98" or "[1, 2]"; None if it shows something else."""
    try:
        return [float(part) for part in cell.removeprefix("[").removesuffix("]").split(", ")]
    except ValueError:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; skip it if its contents are the same."""
    if path.exists() and path.read_bytes() == content:
        return
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def prepare(figures: Path) -> None:
    """Make the folder of figures and check that it can be written, before anything is computed."""
    try:
        figures.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=figures).close()
    except OSError as error:
        raise UsageError(f"cannot write figures to {figures}: {error.strerror or error}") from None
    readme = figures / "README.md"
    if readme.exists() and not readme.read_text("utf-8", "replace").startswith(MARK):
        raise UsageError(f"{readme} was not written by this program and would be lost: choose other --figures")
    read_index(figures)


def read_index(figures: Path) -> dict[str, Outcome]:
    path = figures / "index.json"
    try:
        return {name: Outcome(**entry) for name, entry in json.loads(path.read_text("utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise UsageError(f"{path} is not an index of figures: delete it and run all experiments") from None


def write_index(figures: Path, outcomes: Mapping[str, Outcome], command: str) -> None:
    """Write index.json, and README.md with the picture, claim, checks and command of every experiment."""
    facts = {name: outcome._asdict() for name, outcome in outcomes.items()}
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False)
    _replace(figures / "index.json", (text + "\n").encode())
    sections = [MARK, "# Figures", HEAD]
    sections += [section(name, outcomes[name], command.replace("{name}", name)) for name in sorted(outcomes)]
    _replace(figures / "README.md", ("\n\n".join(sections) + "\n").encode())


def section(name: str, outcome: Outcome, command: str) -> str:
    """Return the part of README.md on one experiment. A failed one shows no picture and only the checks that failed."""
    count = len(outcome.checks)
    if outcome.why:
        failed = [row for row in outcome.checks if row[-1] != "ok"]
        verdict = f"**FAILED**: {outcome.why}. A picture of it in this folder would be from an earlier run."
        body = [verdict, *([markdown(failed)] if failed else [])]
    else:
        pictures = [f"![{outcome.claim}]({file})" for file in outcome.figures]
        rows = markdown(outcome.checks)
        if count > 8:
            rows = f"<details><summary>{count} checks, all passed</summary>\n\n{rows}\n\n</details>"
        body = [*pictures, rows]
    return "\n\n".join(part for part in (f"## {name}", outcome.claim, *body, outcome.notes, f"`{command}`") if part)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [("what", "published or theory", "measured", "tolerance", "source", "verdict"), ("---",) * 6, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


BLUR = 3.0  # pixels, about a stroke of a letter
LARGEST_CHANGE = 10.0  # of 255


def same_picture(kept: bytes, fresh: bytes) -> bool:
    """Return whether two PNGs or GIFs show the same, frame by frame.

    They do if they are as large, and no channel of their difference, blurred by `BLUR` pixels, exceeds
    `LARGEST_CHANGE` anywhere. A line of the house is w = 3.8 pixels wide and at most 255 levels from its ground; moved
    sideways by d pixels it changes the blurred picture by 255 w d / (sqrt(2 pi e) BLUR^2) = 26 d levels at most, so
    that 10 levels are 0.4 pixels, a sixteenth of a millimeter. A digit of the smallest labels that turns into another
    changes more: some 20 pixels of full ink and more, 255 * 20 / (2 pi BLUR^2) = 90 levels at its middle.
    """
    if kept == fresh:
        return True
    try:
        pictures = [Image.open(io.BytesIO(picture)) for picture in (kept, fresh)]
        if _timing(pictures[0]) != _timing(pictures[1]):
            return False
        return all(_alike(*(_frame(p, i) for p in pictures)) for i in range(getattr(pictures[0], "n_frames", 1)))
    except (OSError, ValueError):  # one of them is no picture
        return False


def _timing(picture: Image.Image) -> list:
    """Return the milliseconds of every frame, after the size."""
    timing: list = [picture.size]
    for i in range(getattr(picture, "n_frames", 1)):
        picture.seek(i)
        timing.append(picture.info.get("duration"))
    return timing


def _frame(picture: Image.Image, number: int) -> np.ndarray:
    picture.seek(number)
    return np.asarray(picture.convert("RGB"), np.float32)


def _alike(kept: np.ndarray, fresh: np.ndarray) -> bool:
    change = gaussian_filter(fresh - kept, (BLUR, BLUR, 0))
    return bool(np.max(np.abs(change)) <= LARGEST_CHANGE)
