"""Read, write and lock files: a file is written under another name, flushed and renamed: never in part."""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import reprlib
import socket
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


class StoreError(RuntimeError):
    """A file or folder that cannot be used: damaged, in use by another process, or not a store.

    Example:
      >>> try:
      ...     jf.open(".")
      ... except jf.StoreError:
      ...     print("not a store")
      not a store
    """


def as_path(name: str, value: object) -> Path:
    """Return an argument as a path.

    Raises:
      TypeError, ValueError: If it is no path, or one that no file system takes.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        shown = reprlib.repr(value).partition("\n")[0]
        raise TypeError(f"{name} is {shown} ({type(value).__name__}), but it must be a path such as {name}='runs/a'")
    text = os.fspath(value)
    if not text or "\0" in text or any(len(os.fsencode(part)) > 255 for part in Path(text).parts):
        shown = text if len(text) < 60 else f"{text[:50]}... ({len(text)} characters)"
        raise ValueError(f"{name} is {shown!r}, which no file system takes as a path; use a short one such as 'runs/a'")
    return Path(text)


def digest(*parts: bytes) -> str:
    """Return a digest of contents, 32 hexadecimal digits."""
    return digest_of(parts)


def digest_of(parts: Iterable[bytes]) -> str:
    """Return the digest of contents that are made one after another."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:32]


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: at any moment it is complete, or as it was before.

    Raises:
      OSError: With the path, and what to do.
    """
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _not_written(path, error) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
      OSError: With the path, and what to do.
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise StoreError(f"{path} is a file, but it must be a folder; remove it") from None
    except OSError as error:
        raise _not_written(path, error) from error


def removed(path: Path) -> OSError:
    """Return the error that a file of a store is gone while it is in use."""
    return _not_written(path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def _not_written(path: Path, error: OSError) -> OSError:
    gone = "its folder was removed, with what was in it; leave it where it is, and make the same call again"
    kept = "what was written before is kept; make room, or make the folder writable, and make the same call again"
    why = gone if error.errno == errno.ENOENT else kept
    return OSError(error.errno, f"{error.strerror or error}: {why}", str(path))


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def as_json(fields: dict[str, Any]) -> bytes:
    """Return fields as sorted JSON; the same fields give the same bytes."""
    return json.dumps(fields, sort_keys=True, indent=1, allow_nan=False).encode()


def with_digest(fields: dict[str, Any]) -> bytes:
    """Return fields as JSON, with a digest of them that `is_whole` compares."""
    return as_json(fields | {"digest": digest(as_json(fields))})


def is_whole(fields: dict[str, Any]) -> bool:
    """Remove the digest from fields that `with_digest` wrote; return whether it matches them."""
    recorded = fields.pop("digest", None)
    return recorded == digest(as_json(fields))


def read(path: Path, most: int = 2**40) -> bytes:
    """Return the contents of a plain file.

    Raises:
      StoreError: If it is none, or cannot be read.
    """
    try:
        if not path.exists() and not path.is_symlink():
            raise StoreError(f"{path} does not exist; check the path, from {Path.cwd()}")
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no plain file"
            raise StoreError(f"{path} is {what}, but it must be a file; remove it")
        if path.stat().st_size > most:
            raise StoreError(f"{path} has {path.stat().st_size:,} bytes, more than any that jaxfit writes; remove it")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def pack(tensors: dict[str, np.ndarray]) -> bytes:
    """Return arrays as the bytes of a safetensors file; the same arrays give the same bytes."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x) for name, x in tensors.items()})


def unpack(content: bytes, path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no safetensors file: {error}; remove it") from error


try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl: Any = None


@contextlib.contextmanager
def holding(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, which several may share.

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
    """Return who holds a lock, as its file says, or the files of the shards that share it."""
    texts = [os.pread(handle, 200, 0)]
    for shard in sorted(path.parent.glob("shard-*.lock")):
        with contextlib.suppress(OSError):
            texts.append(shard.read_bytes()[:200])
    return " and ".join(text.decode(errors="replace") for text in texts if text) or "another process"


@contextlib.contextmanager
def claim(folder: Path, name: str = "lock", *, shared: bool = False) -> Iterator[None]:
    """Make the folder of a store if there is none, and hold its lock.

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
