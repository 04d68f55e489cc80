"""Ctrl-C and SIGTERM in the middle of a run: what is finished is kept, and the exit status is the usual one."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a run; `result` holds what was finished."""

    def __init__(self, message: str, result: Any):
        super().__init__(message)
        self.result = result
        _exit_as_after_ctrl_c()


def _exit_as_after_ctrl_c() -> None:
    """Python leaves with status 130 after its own exception alone, and with 1 after one derived from it."""
    before = sys.excepthook
    if getattr(before, "after_ctrl_c", False):
        return

    def hook(kind, error, trace):
        before(kind, error, trace)
        if issubclass(kind, Interrupted):
            sys.exit(128 + signal.SIGINT)

    hook.after_ctrl_c = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.excepthook = hook


@contextlib.contextmanager
def terminating_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM ends a run as Ctrl-C does; after that the process gets the signal that it was sent."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    came = []

    def handler(number, frame):
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGTERM, before)
        if came:
            print(str(error) or "terminated before anything was finished", file=sys.stderr, flush=True)
            signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
