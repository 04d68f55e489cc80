"""Who works on a store: a lock that the system lets go of when its holder dies."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxfit.stores.files import StoreError

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl: Any = None


@contextlib.contextmanager
def holding(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock of a file; several may hold it who share it.

    Raises:
      StoreError: If another holds it, with its name.
      OSError: If the file cannot be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(path, handle)
                raise StoreError(
                    f"{path.parent} is in use by {holder}; wait until it ends, stop it, or use another folder"
                ) from None
        if not shared:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            os.truncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode(), 0)
        try:
            yield
        finally:
            if not shared:
                os.truncate(handle, 0)
    finally:
        os.close(handle)


def _holder(path: Path, handle: int) -> str:
    """Who holds a lock: its file tells, or those of the shards that share it."""
    told = [os.pread(handle, 200, 0)]
    for shard in sorted(path.parent.glob("shard-*.lock")):
        with contextlib.suppress(OSError):
            told.append(shard.read_bytes()[:200])
    return " and ".join(text.decode(errors="replace") for text in told if text) or "another process"


@contextlib.contextmanager
def claim(folder: Path, name: str = "lock", *, shared: bool = False) -> Iterator[None]:
    """Makes the folder of a store if there is none, and holds its lock.

    Raises:
      StoreError: If another process holds it.
      OSError: If nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(holding(folder / name, shared=shared))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: nothing can be written to this store, so nothing was computed; choose "
                f"another folder, or read what is there with jf.open(path)",
                str(folder),
            ) from error
        yield
