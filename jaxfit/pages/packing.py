"""One self-contained HTML file: the style, the script, and the data as compressed text.

The data are a JSON header behind its length (4 bytes), then the columns that it lists, all deflated, in base64. So no
label of a user is ever read as markup: the script puts them into the page as text. A column of 32-bit numbers is kept
as the differences of successive bit patterns, each of their four bytes in a plane of its own, which compresses smooth
results several times better.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from jaxfit.stores.files import as_path, write
from jaxfit.stores.manifests import Json
from jaxfit.typing import ArrayLike

MANTISSA = 23  # bits of a float32 behind the first
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main id="page"><p class="quiet">Reading the data ...</p><noscript><p>This page needs JavaScript.</p></noscript></main>
<script id="data" type="text/plain">{data}</script>
<script>
{script}</script>
</body>
</html>
"""


def as_float32(values: ArrayLike) -> np.ndarray:
    """Return numbers in single precision; finite ones stay finite, and those that are not zero stay so."""
    values = np.asarray(values)
    if values.dtype == np.float32:
        return values
    info, wide = np.finfo(np.float32), values.astype(np.float64)
    finite = np.isfinite(wide)
    kept = np.where(finite, np.clip(wide, info.min, info.max), wide)
    tiny = finite & (wide != 0) & (np.abs(wide) < info.tiny)
    return np.where(tiny, np.copysign(info.tiny, wide), kept).astype(np.float32)


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Return float32 numbers rounded to this many bits behind the first; a relative error of at most 2**-(bits + 1)."""
    drop = MANTISSA - bits
    if drop <= 0:
        return values
    words = values.view(np.uint32)
    half = np.uint32(1 << (drop - 1))
    near = (words + half) & np.uint32((0xFFFFFFFF << drop) & 0xFFFFFFFF)
    nearest = near.view(np.float32)
    return np.where(np.isfinite(values) & np.isfinite(nearest), nearest, values)


def packed(header: Mapping[str, Json], columns: Mapping[str, np.ndarray]) -> bytes:
    """Return a header and columns (of uint8, int32 or float32) as compressed bytes; the header lists the columns.

    Raises:
      ValueError: If a number of the header is not finite: JSON has none such.
    """
    listed, parts = [], []
    for name, values in columns.items():
        flat = np.ascontiguousarray(values).ravel()
        listed.append({"name": name, "kind": flat.dtype.str[1:], "count": flat.size})
        if flat.dtype.itemsize == 4:
            words = np.diff(flat.view(np.uint32), prepend=np.uint32(0))
            flat = np.ascontiguousarray(words.astype("<u4").view(np.uint8).reshape(-1, 4).T)
        parts.append(flat.tobytes())
    head = json.dumps({**header, "columns": listed}, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")
    return zlib.compress(len(head).to_bytes(4, "little") + head + b"".join(parts), 6)


def unpacked(page: str) -> tuple[dict[str, Json], dict[str, np.ndarray]]:
    """Return the header and the columns of a page, as its script reads them."""
    text = page.partition('<script id="data" type="text/plain">')[2].partition("</script>")[0]
    content = zlib.decompress(base64.b64decode(text))
    at = 4 + int.from_bytes(content[:4], "little")
    header, columns = json.loads(content[4:at]), {}
    for column in header["columns"]:
        size = column["count"] * int(column["kind"][1:])
        values = np.frombuffer(content, np.uint8, size, at)
        at += size
        if column["kind"] != "u1":
            words = np.ascontiguousarray(values.reshape(4, -1).T).view("<u4").ravel()
            values = np.cumsum(words, dtype=np.uint32).view(column["kind"])
        columns[column["name"]] = values
    return header, columns


def page_of(title: str, content: bytes) -> str:
    """Return the text of a page around packed data."""
    own = Path(__file__).parent
    return SHELL.format(
        policy=POLICY,
        title=escape(title),
        style=(own / "explorer.css").read_text("utf-8"),
        data=base64.b64encode(content).decode(),
        script=(own / "explorer.js").read_text("utf-8"),
    )


def write_page(page: str, path: str | os.PathLike) -> Path:
    """Write a page to a file, atomically, and return its path."""
    path = as_path("path", path)
    write(path, page.encode("utf-8"))
    return path


def made_by() -> str:
    """Return the version of jaxfit and the time at which a page is made, as text."""
    import jaxfit

    return f"jaxfit {jaxfit.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
