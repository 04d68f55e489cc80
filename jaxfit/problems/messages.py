"""Parts of error messages: names that resemble an unknown one, the line of the user's code, paths of leaves."""

from __future__ import annotations

import difflib
import functools
import inspect
import linecache
import os
import re
import reprlib
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

import jax

from jaxfit.problems.meanings import ARGUMENTS, EXAMPLES, IN_MODULE, NAMES
from jaxfit.typing import PyTree

_Function = TypeVar("_Function", bound=Callable)
_Value = TypeVar("_Value")
MODULES = (
    "jaxfit.losses", "jaxfit.models", "jaxfit.optimizers", "jaxfit.schedules", "jaxfit.searches", "jaxfit.datasets",
    "jaxfit.landscapes", "jaxfit.plots", "jaxfit.optimizers.torch", "jaxfit.optimizers.keras", "jaxfit.optimizers.tfjs",
)  # fmt: skip

NEARLY = 0.85  # the least similarity of a name to its misspelling


def did_you_mean(name: str, among: Sequence[str]) -> str:
    """Return the end of a sentence about an unknown name: a question after those of the others that resemble it."""
    near = [own for own in among if own.lower() == name.lower()]
    near = near or difflib.get_close_matches(name, among, n=3, cutoff=0.6)
    near = near or sorted((own for own in among if name.lower() in own.lower().split("_")), key=len)[:3]
    return f"; did you mean {' or '.join(near)}?" if near else "."


def shown(value: object) -> str:
    """Return how a message shows a value where a function was wanted: an array, the result of a call, by its shape."""
    shape = getattr(value, "shape", ())
    return f"an array of shape {shape}" if isinstance(shape, tuple) and shape else reprlib.repr(value)


def near_names(
    module: str, names: Sequence[str], beside: str = ""
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a module's `__getattr__` and `__dir__`.

    The first answers an unknown name with what to write for it, if another library has it, else with what resembles
    it; the second lists what the module offers, without what it is made of.

    Args:
      module: Its name.
      names: What it offers.
      beside: A sentence on what else there is.
    """

    def __getattr__(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        small = [own.lower() for own in names]
        hint = None
        if name.lower() not in small:
            hint = _equivalent(name, NAMES | IN_MODULE.get(module, {})) or _in_another_module(name, module)
        if hint is None and not difflib.get_close_matches(name.lower(), small, cutoff=NEARLY):
            hint = _equivalent(name, NAMES, NEARLY)
        answer = f"; write {hint}." if hint else did_you_mean(name, names)
        if beside:
            raise AttributeError(f"{module} has no {name!r}{answer} {beside}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}{answer}")

    def __dir__() -> list[str]:
        return sorted(names)

    return __getattr__, __dir__


def near_attribute(owner: str, name: str, meanings: dict[str, str], names: Sequence[str]) -> str:
    """Return a sentence about an attribute that an object does not have, with what to write or what resembles it."""
    hint = _equivalent(name, meanings, NEARLY)
    return f"{owner} has no {name!r}{f'; write {hint}.' if hint else did_you_mean(name, names)}"


def _equivalent(name: str, table: Mapping[str, _Value], cutoff: float = 1.0) -> _Value | None:
    """Return the entry of a table for a name, whatever its capitals and underscores, or for one that resembles it."""
    plain = name.lower().replace("_", "")
    known = {key.lower().replace("_", ""): value for key, value in table.items()}
    near = difflib.get_close_matches(plain, known, n=1, cutoff=cutoff if len(plain) > 5 else 1.0)
    return known[near[0]] if near else None


def _in_another_module(name: str, module: str) -> str | None:
    """Return where another imported module of jaxfit has this name, in small letters; None if none has."""
    for other in ("jaxfit", *MODULES):
        offered = getattr(sys.modules.get(other), "__all__", ())
        found = next((own for own in (name, name.lower()) if own in offered), None)
        if other != module and found:
            return f"{other.replace('jaxfit', 'jf', 1)}.{found}"
    return None


def near_keywords(function: _Function) -> _Function:
    """Return the function, or class, with an error for a call that does not fit its arguments: it says what fits."""
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    ordered = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = {*ordered, *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}

    def check(args: tuple, kwargs: dict[str, object]) -> None:
        first, given = ordered[: len(args)], kwargs.keys()
        if len(first) == len(args) and given <= names and given.isdisjoint(first) and needed <= given | set(first):
            return  # as nearly every call, which `bind` would take ten times longer to find
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            raise TypeError(_wrong_call(function, signature, args, kwargs)) from None

    if inspect.isclass(function):
        users_init = function.__init__

        @functools.wraps(users_init)
        def init(self, *args, **kwargs):
            check(args, kwargs)
            users_init(self, *args, **kwargs)

        function.__init__ = init
        return function  # pyright: ignore[reportReturnType]

    plain = not getattr(function, "takes_units", False)

    @functools.wraps(function)
    def checked(*args, **kwargs):
        check(args, kwargs)
        if plain and any(getattr(type(x), "with_units", False) for x in (*args, *kwargs.values())):
            raise TypeError(
                f"{function.__name__} takes plain numbers, but got a fit of quantities; pass its .fit, whose numbers "
                f"are in base units"
            )
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            if "sorting pytree dictionary keys" in str(error):
                raise TypeError(
                    f"{function.__name__}: a dict has keys of several kinds, such as text and numbers, which have no "
                    f"order; make all of them text"
                ) from error
            raise

    return checked  # pyright: ignore[reportReturnType]


def _wrong_call(function: Callable, signature: inspect.Signature, args: tuple, kwargs: dict[str, object]) -> str:
    """Return what is wrong with a call: an unknown name, too many arguments, one given twice, one that is missing."""
    name, parameters = function.__name__, dict(signature.parameters)
    if "self" in parameters:  # a method, whose caller does not write it
        parameters.pop("self")
        args = args[1:]
    takes = [p.name for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    ordered = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    kinds = {p.kind for p in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for keyword in kwargs:
            if keyword not in takes:
                hint = _how_to_write(keyword, takes)
                if hint == f"; did you mean {_start(ordered)}?" and len(args) > 1:
                    hint = f"; {_in_their_places(function, parameters, ordered)}."
                return f"{name} has no argument {keyword!r}{hint} It takes {', '.join(takes)}"
    if len(args) > len(ordered) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        others = f"name the others: {', '.join(f'{other}=' for other in by_name)}" if by_name else "leave out the rest"
        if function.__module__.startswith("jaxfit.losses") and ordered == ["predict"]:
            data = "(x, y, sigma)" if name == "chi_squared" else "(x, y)"
            others += f"; data go to the verb: jf.fit(jf.losses.{name}(predict), params, {data}, optimizer=...)"
        elif "data" in ordered:
            others = f"put all data into one tuple: (x, y), and {others}"
        elif inspect.Parameter.VAR_KEYWORD in kinds:
            others = "name the others, as in " + _form(function, parameters)
        return (
            f"{name} takes {len(ordered)} argument{'s' * (len(ordered) != 1)} by position ({', '.join(ordered)}), but "
            f"got {len(args)}; {others}"
        )
    twice = [own for own in ordered[: len(args)] if own in kwargs]
    if twice:
        once = f"give it once: {_form(function, parameters)}"
        if twice[0] == _start(ordered):
            once = _in_their_places(function, parameters, ordered)
        return f"{name} got {twice[0]!r} twice, by position and by name; {once}"
    given = {*ordered[: len(args)], *kwargs}
    *some, last = [p.name for p in parameters.values() if _required(p) and p.name not in given]
    lacks = f"{', '.join(some)} and {last}" if some else last
    return f"{name} lacks {lacks}; call it as {_form(function, parameters)}"


def _start(ordered: Sequence[str]) -> str | None:
    """Return what stands before the data of a verb: `start` or `params`; None of what takes no data."""
    before = ordered[: ordered.index("data")] if "data" in ordered else []
    return before[-1] if before else None


def _in_their_places(function: Callable, parameters: dict[str, inspect.Parameter], ordered: Sequence[str]) -> str:
    form = _form(function, parameters).replace(", data", ", (x, y)")
    return f"{_start(ordered)} has the second place, and all data in one tuple the third: {form}"


def _required(p: inspect.Parameter) -> bool:
    return p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)


def _how_to_write(keyword: str, takes: Sequence[str]) -> str:
    """Return what an unknown keyword is called here, or what to write for it, or which ones resemble it."""
    for meaning in _equivalent(keyword, ARGUMENTS, NEARLY) or ():
        given = re.match(r"`?(\w+)=", meaning)
        if meaning in takes:
            return f"; did you mean {meaning}?"
        if not meaning.isidentifier() and (given is None or given[1] in takes):
            return f"; write {meaning}."
    return did_you_mean(keyword, takes)


def _form(function: Callable, parameters: dict[str, inspect.Parameter]) -> str:
    """Return how a function is called, with what it cannot do without: jf.fit(loss, params, data, optimizer=...)."""
    path = function.__module__
    module = path if path in MODULES else ".".join(path.split(".")[:2])
    inside = f"{module.removeprefix('jaxfit.')}." if module in MODULES and function.__name__ != "optimizer" else ""
    words, ordered = [], list(parameters)
    before = ordered[: ordered.index("data") + 1] if "data" in ordered else []
    for p in parameters.values():
        if _required(p) or p.name in before:
            example = EXAMPLES.get(p.name, "...")
            words.append(p.name if p.kind is not p.KEYWORD_ONLY else f"{p.name}={example}")
        elif p.kind is p.VAR_KEYWORD:
            words.append(EXAMPLES.get(p.name, f"{p.name}=..."))
    name = "open" if function.__name__ == "open_dataset" else function.__name__
    return f"jf.{inside}{name}({', '.join(words)})"


def users_line(error: BaseException) -> str:
    """Return where an error was raised."""
    return _last(error.__traceback__)


def nothing_there(error: LookupError, names: Sequence[str]) -> str:
    """Return what the user's own line looked up in the params that is not there."""
    key = error.args[0] if isinstance(error, KeyError) else None
    what = f"finds no {key!r}" if isinstance(error, KeyError) else f"fails: {error}"
    near = did_you_mean(str(key), names) if isinstance(error, KeyError) else "."
    return f"{users_line(error)} {what}; the params are {', '.join(names)}{near}"


def no_names_there(error: TypeError, params: PyTree) -> str | None:
    """Return what the user's own line looked up by a name in something without names; None of another error."""
    if "string indexing" not in str(error) and "indices must be integers or slices, not str" not in str(error):
        return None
    if isinstance(params, dict):
        why = "in an array, which has none; a model is called as model(params, x), in this order"
    else:
        what = f"a {type(params).__name__} of {len(params)}" if isinstance(params, (list, tuple)) else "one array"
        why = f"though params is {what}; write params[0], or start from a dict, such as {{'w': 1.0, 'b': 0.0}}"
    return f"{users_line(error)} looks up a name {why}"


def no_one_number(error: TypeError, params: PyTree) -> str | None:
    """Return what the user's own line took for one number though it is several params, and how to mark a param."""
    nothing = [
        path for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda x: x is None) if leaf is None
    ]
    if nothing and "'NoneType'" in str(error):
        return (
            f"{users_line(error)} computes with {path_name('params', nothing[0])} as with a number, but it is None; "
            f"give each param a number to start from (only jf.curve_fit(curve, None, (x, y)) guesses, and all of them)"
        )
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


def line_of(trace: TracebackType | None) -> str:
    """Return the user's own line in a traceback; "the loss" if there is none."""
    return "the loss" if trace is None else _last(trace)


def _last(trace: TracebackType | None) -> str:
    theirs = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))), sysconfig.get_path("stdlib"))
    for frame in reversed(traceback.extract_tb(trace)):
        if "site-packages" not in frame.filename and not frame.filename.startswith(theirs) and frame.lineno:
            code = (frame.line or linecache.getline(frame.filename, frame.lineno)).strip()
            place = f"{os.path.basename(frame.filename)}, line {frame.lineno},"
            return f"{place} `{code}`" if code else f"{place} in {frame.name},"
    return "the loss"


def path_name(root: str, path: tuple) -> str:
    return root + jax.tree_util.keystr(path)


def warn(message: str) -> None:
    """Warn at the caller's own line."""
    roots = (os.path.dirname(os.path.abspath(__file__)), jax.__file__)
    ours = *(os.path.dirname(root) + os.sep for root in roots), functools.__file__  # of cached properties
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(ours):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
