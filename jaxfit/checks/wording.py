"""How an argument's part is called, and a warning that points at the caller."""

from __future__ import annotations

import inspect
import os
import warnings

import jax


def path_name(root: str, path: tuple) -> str:
    return root + jax.tree_util.keystr(path)


def warn(message: str) -> None:
    """A warning that points at the caller's own line."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
