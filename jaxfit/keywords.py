"""Names that do not exist, answered with those that resemble them."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable)


def did_you_mean(name: str, among: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: a question after those of the others that resemble it."""
    near = difflib.get_close_matches(name, among, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(near)}?" if near else "."


def near_names(module: str, names: Sequence[str]) -> Callable[[str], Any]:
    """A module's `__getattr__`: it answers an unknown name with those of its own that resemble it."""

    def __getattr__(name: str) -> Any:
        raise AttributeError(f"module {module!r} has no attribute {name!r}{did_you_mean(name, names)}")

    return __getattr__


def near_keywords(function: _Function) -> _Function:
    """Lets a function, or a class, answer an unknown keyword or one argument too many with what it takes."""
    parameters = inspect.signature(function).parameters.values()
    takes = [p.name for p in parameters]
    ordered = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def check(args: tuple, kwargs: dict[str, Any]) -> None:
        for name in kwargs:
            if name not in takes:
                near = did_you_mean(name, takes)
                raise TypeError(f"{function.__name__} has no argument {name!r}{near} It takes {', '.join(takes)}")
        if len(args) > len(ordered):
            raise TypeError(
                f"{function.__name__} takes {len(ordered)} arguments by position ({', '.join(ordered)}), but got "
                f"{len(args)}; " + ("put all data into one tuple: (x, y)" if "data" in ordered else "name the others")
            )

    if inspect.isclass(function):
        made = function.__init__

        @functools.wraps(made)
        def init(self, *args, **kwargs):
            check(args, kwargs)
            made(self, *args, **kwargs)

        function.__init__ = init
        return function  # pyright: ignore[reportReturnType]

    @functools.wraps(function)
    def checked(*args, **kwargs):
        check(args, kwargs)
        return function(*args, **kwargs)

    return checked  # pyright: ignore[reportReturnType]
