"""Where in the user's own code something comes from: the last line outside of this package and the libraries."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
from collections.abc import Sequence
from typing import Any

import jax

from jaxfit.keywords import did_you_mean


def users_line(error: BaseException) -> str:
    """Where an error was raised."""
    return _last(error.__traceback__)


def nothing_there(error: LookupError, names: Sequence[str]) -> str:
    """What the user's own line asked the params for in vain."""
    key = error.args[0] if isinstance(error, KeyError) else None
    what = f"finds no {key!r}" if isinstance(error, KeyError) else f"fails: {error}"
    near = did_you_mean(str(key), names) if isinstance(error, KeyError) else "."
    return f"{users_line(error)} {what}; the params are {', '.join(names)}{near}"


def no_one_number(error: TypeError, params: Any) -> str | None:
    """What the user's own line took for one number though it is several params, and how to mark a param."""
    kinds = [kind for kind in (tuple, list, dict) if f"'{kind.__name__}'" in str(error)]
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda x: x is not params and type(x) in kinds)
    path, node = next(((path, node) for path, node in nodes if type(node) in kinds), ((), params))
    if type(node) not in kinds:
        return None
    name = f"params{jax.tree_util.keystr(path)}"
    if isinstance(node, dict):
        remedy = f"take one of its entries, {name}[{next(iter(node), 'name')!r}]"
    else:
        remedy = f"take one of its entries, {name}[0], or give one array, np.array([...])"
    return (
        f"{users_line(error)} computes with {name} as with a number, but it is a {type(node).__name__} of {len(node)}; "
        f"{remedy}; a param within bounds is jf.Bounded(value, low, high), and one that does not move jf.Fixed(value)"
    )


def line_of(equation: Any) -> str:
    """What an equation of a program was made by."""
    made = getattr(equation.source_info, "traceback", None)
    return "the loss" if made is None else _last(made.as_python_traceback())


def _last(trace: Any) -> str:
    theirs = (os.path.dirname(os.path.abspath(__file__)), sysconfig.get_path("stdlib"))
    for frame in reversed(traceback.extract_tb(trace)):
        if "site-packages" not in frame.filename and not frame.filename.startswith(theirs) and frame.lineno:
            code = (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
            place = f"{os.path.basename(frame.filename)}, line {frame.lineno},"
            return f"{place} `{code}`" if code else f"{place} in {frame.name},"
    return "the loss"
