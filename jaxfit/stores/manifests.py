"""The manifest of a store: a sorted JSON file that is the same for every run of a sweep, and a file of coordinates.

All fields are checked when it is read, so that a file from an unknown source does no harm; no path is made of its text.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from jaxfit.stores import files
from jaxfit.stores.blocks import BlockMap, Blocks, Stage
from jaxfit.stores.files import StoreError, as_path

Json: TypeAlias = Any  # what json.loads returns
FORMAT, VERSION = "jaxfit sweep", 1
MANIFEST, BLOCKS = "manifest.json", "blocks"
_OWN = re.compile(
    r"manifest\.json|blocks|lock|round-[0-9a-f]{32}\.safetensors|shard-\d+-of-\d+\.lock|coordinates-[0-9a-f]{32}\.safetensors|\..*\.tmp"
)
DTYPES = ("float64", "float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")


class StoredVariable(NamedTuple):
    """One variable of the results, stored as a tensor of each part."""

    tensor: str
    extra: tuple[str, ...]  # dimensions after those of the grid
    dtype: str
    attributes: dict[str, Json]


class StoredPart(NamedTuple):
    """The lanes of one program, as described by a manifest."""

    choice: dict[str, int]  # the index along each static dimension
    dynamic: list[str]  # the other dimensions
    block: int  # lanes in a block, at most
    slots: int
    records: int
    tensors: dict[str, list]  # by name: [dtype, shape] of what is kept of a lane
    words: dict[str, str]  # what its program is made of, for messages
    every: int = 0  # the stride of records; 0 in old stores


class StoredStage(NamedTuple):
    """Lanes that go on after others have ended; both masks are over all points of the grid, in order."""

    since: int  # the step from which they go on; 0 if they start anew
    steps: int  # to which they run
    members: np.ndarray  # which have steps to make
    there: np.ndarray  # which are still compared with each other: these, and lanes that have converged


class Manifest(NamedTuple):
    """The contents of a store."""

    identity: dict[str, str]  # everything except the axes that determines the bits of the results
    axes: dict[str, dict[str, str]]  # by dimension, then by path in the arguments: a digest of the values
    segments: tuple[dict[str, int], ...]  # the size of every dimension after each growth
    names: tuple[str, ...]  # of the segments; part of the digests of blocks
    parts: dict[str, StoredPart]  # by key
    variables: dict[str, StoredVariable]
    coordinates: dict[str, tuple[tuple[str, ...], np.ndarray]]
    attributes: dict[str, Json]
    base: int = 0  # the steps to which the lanes of the segments run; 0 in old stores
    steps: int = 0  # those to which lanes run that nothing ends before
    stages: tuple[StoredStage, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return self.segments[-1]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically."""
    arrays, coordinates = {}, []
    for name, (dims, values) in manifest.coordinates.items():
        entry: dict[str, Json] = {"name": name, "dims": list(dims)}
        if values.dtype.kind == "U":
            entry["texts"] = values.tolist()
        else:
            entry["array"] = f"{len(arrays):04d}"
            arrays[entry["array"]] = values
        coordinates.append(entry)
    packed = files.pack(arrays)
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "identity": manifest.identity,
        "dimensions": list(manifest.sizes),
        "axes": manifest.axes,
        "segments": [list(sizes.values()) for sizes in manifest.segments],
        "names": list(manifest.names),
        "parts": {key: part._asdict() for key, part in manifest.parts.items()},
        "variables": {
            name: variable._asdict() | {"attributes": _pairs(variable.attributes)}
            for name, variable in manifest.variables.items()
        },
        "order": list(manifest.variables),
        "coordinates": coordinates,
        "arrays": files.digest(packed),
        "attributes": _pairs(manifest.attributes),
        "base": manifest.base,
        "steps": manifest.steps,
        "rounds": [[stage.since, stage.steps, files.digest(_masks(stage))] for stage in manifest.stages],
    }
    for stage in manifest.stages:
        files.write(folder / f"round-{files.digest(_masks(stage))}.safetensors", _masks(stage))
    files.write(folder / _arrays_name(fields["arrays"]), packed)
    files.write(folder / MANIFEST, files.with_digest(fields))
    for path in folder.glob("coordinates-*.safetensors"):
        if path.name != _arrays_name(fields["arrays"]):
            path.unlink(missing_ok=True)


def _masks(stage: StoredStage) -> bytes:
    return files.pack({"members": stage.members, "there": stage.there})


def with_stage(manifest: Manifest, since: int, steps: int, members: np.ndarray, there: np.ndarray) -> Manifest:
    """Return the manifest with one more stage; masks are in the shape of the grid."""
    stage = StoredStage(since, steps, members.reshape(-1), there.reshape(-1))
    identity = {"before": manifest.names[-1], "since": since, "steps": steps, "lanes": files.digest(_masks(stage))}
    return manifest._replace(
        stages=(*manifest.stages, stage), names=(*manifest.names, files.digest(files.as_json(identity)))
    )


def _pairs(attributes: dict[str, Json]) -> list[list]:
    """Return a dict as pairs, whose order sorted JSON keeps."""
    return [[name, value] for name, value in attributes.items()]


def _arrays_name(name: str) -> str:
    return f"coordinates-{name}.safetensors"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a store.

    Raises:
      StoreError: If it is missing, damaged, of another version, or says what cannot be.
    """
    path = folder / MANIFEST
    if not has_manifest(folder):
        there = "holds no manifest.json, so it is no store of a sweep" if folder.is_dir() else "does not exist"
        raise StoreError(f"{folder} {there}; pass the folder that was given to jf.sweep(..., store=)")
    fields = _fields(path)
    try:
        return _checked(folder, fields)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise StoreError(f"{path} says what cannot be ({type(error).__name__}: {error}); {_REMEDY}") from error


_REMEDY = "remove it and make the same sweep with the same store= again: its blocks are kept"


def _fields(path: Path) -> dict[str, Json]:
    try:
        fields = json.loads(files.read(path, 2**30), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is no JSON ({str(error)[:100]}); {_REMEDY}") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise StoreError(f"{path} is not of a jaxfit sweep; use another folder for the store")
    if fields.get("version") != VERSION:
        raise StoreError(
            f"{path} is of version {fields.get('version')!r}, but this jaxfit reads version {VERSION}; use the jaxfit "
            f"that wrote it, or another folder"
        )
    if not files.is_whole(fields):
        raise StoreError(f"{path} is damaged: its digest is not that of its contents; {_REMEDY}")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _checked(folder: Path, fields: dict[str, Json]) -> Manifest:
    dimensions = [_text_of(name) for name in fields["dimensions"]]
    segments = tuple(
        dict(zip(dimensions, (_whole(n, 1) for n in sizes), strict=True)) for sizes in _list(fields["segments"])
    )
    names = tuple(_hexadecimal(name) for name in fields["names"])
    stages = tuple(_stage(folder, entry, segments[-1]) for entry in _list(fields.get("rounds", [])))
    count = len(segments) + len(stages)
    if len(set(dimensions)) != len(dimensions) or not dimensions or not segments or len(names) != count:
        raise ValueError("the dimensions and segments do not agree")
    for before, after in zip(segments, segments[1:], strict=False):
        if any(before[name] > after[name] for name in dimensions):
            raise ValueError("a segment shrinks")
    if math.prod(segments[-1].values()) > 2**40:
        raise ValueError("there are more lanes than anyone runs")
    variables = {}
    for name in _list(fields["order"]):
        entry = fields["variables"][_text_of(name)]
        extra = tuple(_text_of(x) for x in entry["extra"])
        tensor, kind = _text_of(entry["tensor"]), _dtype(entry["dtype"])
        variables[name] = StoredVariable(tensor, extra, kind, dict(entry["attributes"]))
    parts = {key: _part(key, part, segments[-1]) for key, part in fields["parts"].items()}
    sizes = [math.prod(segments[-1][name] for name in part.dynamic) for part in parts.values()]
    if sum(sizes) != math.prod(segments[-1].values()):
        raise ValueError("the parts do not make up the grid")
    manifest = Manifest(
        identity={_text_of(k): _text_of(v) for k, v in fields["identity"].items()},
        axes={_text_of(k): {_text_of(a): _text_of(b) for a, b in v.items()} for k, v in fields["axes"].items()},
        segments=segments, names=names, parts=parts, variables=variables, stages=stages,
        coordinates=_coordinates(folder, fields, segments[-1]), attributes=dict(fields["attributes"]),
        base=_whole(fields.get("base", 0)), steps=_whole(fields.get("steps", 0)),
    )  # fmt: skip
    for variable in variables.values():
        if any(variable.tensor not in part.tensors for part in parts.values()):
            raise ValueError(f"no part has a tensor {variable.tensor!r}")
    return manifest


def _stage(folder: Path, entry: Json, sizes: dict[str, int]) -> StoredStage:
    since, steps, name = _list(entry)
    path = folder / f"round-{_hexadecimal(name)}.safetensors"
    content = files.read(path)
    if files.digest(content) != name:
        raise StoreError(
            f"{path} is damaged: its bytes are not those that were written; restore it, or remove the store"
        )
    masks = files.unpack(content, path)
    members, there = masks["members"], masks["there"]
    if any(mask.dtype != bool or mask.shape != (math.prod(sizes.values()),) for mask in (members, there)):
        raise ValueError("a stage is of another grid")
    return StoredStage(_whole(since), _whole(steps, 1), members, there)


def _part(key: str, entry: dict[str, Json], sizes: dict[str, int]) -> StoredPart:
    choice = {name: entry["choice"][name] for name in sizes if name in entry["choice"]}  # sorted JSON lost the order
    inside = all(0 <= index < sizes[name] for name, index in choice.items())
    if not inside or len(choice) < len(entry["choice"]) or key != part_key(choice):
        raise ValueError(f"part {key!r} has the choice {choice}")
    dynamic = [_text_of(name) for name in _list(entry["dynamic"])]
    if sorted([*choice, *dynamic]) != sorted(sizes):
        raise ValueError(f"part {key!r} has the dimensions {dynamic}")
    tensors = {_text_of(name): [_dtype(d), [_whole(n) for n in s]] for name, (d, s) in entry["tensors"].items()}
    if any(math.prod(shape) > 2**40 for _, shape in tensors.values()):
        raise ValueError(f"part {key!r} has tensors larger than any memory")
    words = {_text_of(name): _text_of(text) for name, text in entry.get("words", {}).items()}
    block, slots, records = _whole(entry["block"], 1), _whole(entry["slots"], 1), _whole(entry["records"])
    return StoredPart(choice, dynamic, block, slots, records, tensors, words, _whole(entry.get("every", 0)))


def _coordinates(folder: Path, fields: dict[str, Json], sizes: dict[str, int]) -> dict[str, Json]:
    path = folder / _arrays_name(_hexadecimal(fields["arrays"]))
    content = files.read(path) if path.exists() else b""
    if files.digest(content) != fields["arrays"]:
        remedy = _REMEDY.replace("it", "manifest.json", 1)
        raise StoreError(f"{path} is damaged: its bytes are not those that were written; {remedy}")
    arrays, coordinates = files.unpack(content, path), {}
    for entry in _list(fields["coordinates"]):
        name, dims = _text_of(entry["name"]), tuple(_text_of(x) for x in entry["dims"])
        texts = entry.get("texts")
        values = arrays[entry["array"]] if texts is None else np.array([_text_of(text) for text in texts], str)
        if len(dims) != 1 or values.ndim != 1 or dims[0] in sizes and len(values) != sizes[dims[0]]:
            raise ValueError(f"coordinate {name!r} is of another size")
        coordinates[name] = (dims, values)
    if not set(sizes) <= set(coordinates):
        raise ValueError("a dimension has no coordinate")
    return coordinates


def part_key(choice: dict[str, int]) -> str:
    return ".".join(str(int(index)) for index in choice.values()) or "all"


def _must(x: Json, holds: bool, what: str) -> Json:
    if not holds:
        raise ValueError(f"{str(x)[:40]!r} is no {what}")
    return x


def _list(x: Json) -> list:
    return _must(x, isinstance(x, list), "list")


def _text_of(x: Json) -> str:
    return _must(x, isinstance(x, str) and len(x) <= 100_000, "text")


def _whole(x: Json, least: int = 0) -> int:
    return _must(x, isinstance(x, int) and not isinstance(x, bool) and least <= x < 2**31, "count")


def _dtype(x: Json) -> str:
    return _must(x, x in DTYPES, "kind of number")


def _hexadecimal(x: Json) -> str:
    return _must(x, isinstance(x, str) and re.fullmatch("[0-9a-f]{32}", x) is not None, "digest")


def block_maps(manifest: Manifest) -> dict[str, BlockMap]:
    """Return for each part, by key, which block file holds which of its lanes."""
    return {key: _block_map(key, part, manifest) for key, part in manifest.parts.items()}


SHARES = 16  # into which the lanes of a small sweep or stage are cut, for workers that may join later


def _block_map(key: str, part: StoredPart, manifest: Manifest) -> BlockMap:
    segments, sizes, stages = manifest.segments, manifest.sizes, []
    index = tuple(part.choice.get(name, slice(None)) for name in sizes)
    for stage in manifest.stages:
        members = np.flatnonzero(stage.members.reshape(tuple(sizes.values()))[index])
        block = max(part.slots, min(part.block, -(-len(members) // (SHARES * part.slots)) * part.slots))
        stages.append(Stage(members, stage.since, stage.steps, block))
    boxes = tuple(
        (int(all(i < sizes[name] for name, i in part.choice.items())), *(sizes[name] for name in part.dynamic))
        for sizes in segments
    )
    tensors = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in part.tensors.items()}
    return BlockMap(key, boxes, part.block, tensors, part.every, manifest.base, manifest.steps, tuple(stages))


def has_manifest(folder: Path) -> bool:
    return os.path.lexists(folder / MANIFEST)


def segment_name(identity: dict[str, str], axes: dict[str, dict[str, str]], sizes: dict[str, int]) -> str:
    """Return the name of a segment, part of the digests of its blocks: blocks of another sweep do not fit."""
    return files.digest(files.as_json({"identity": identity, "axes": axes, "sizes": sizes}))


def blocks_of(folder: Path, manifest: Manifest, *, skip: bool = False) -> Blocks:
    return Blocks(folder / BLOCKS, manifest.names, skip)


def as_folder(store: object) -> Path:
    """Return the folder that `store=` names: a new one, an empty one, or one that holds a sweep.

    Raises:
      TypeError, ValueError: If it is no path.
      StoreError: If it is a file, or holds something else.
    """
    folder = as_path("store", store)
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"store: {folder} is a file, but a store is a folder; use another name")
    if folder.is_dir():
        there = sorted(path.name for path in folder.iterdir())
        others = [name for name in there if not _OWN.fullmatch(name)]
        if others and MANIFEST not in there:
            raise StoreError(f"store: {folder} holds other things ({others[0]}) and no manifest.json; use a new folder")
    return folder
