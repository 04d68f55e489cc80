"""Evaluate a pure function of a tree at many members, in blocks, on every core and device.

A tree with an `Axis` at some leaves stands for many members. `evaluate` computes for all of them what is not a run: a
loss, an eigenvalue, a standard error.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.engine.compiling import compiled, worker_devices
from jaxfit.engine.settings import current
from jaxfit.engine.tracing import Structure
from jaxfit.problems import convert, precision_context
from jaxfit.problems.axes import Placeholder
from jaxfit.problems.dimensions import fill, lanes
from jaxfit.typing import PyTree


class Template(NamedTuple):
    """A tree whose axes are all traced, taken apart into what its members share and what each owns."""

    structure: Structure  # of the tree with a `Placeholder` instead of each axis
    leaves: list  # of it, in the precision
    columns: dict[str, PyTree]  # by the key of the place: the axis' values, with a leading axis; arrays, or `Rows`

    @property
    def spec(self) -> tuple:
        """What a program of it is compiled for: hashable."""
        columns = jax.tree.structure(self.columns), _shapes(self.columns)
        return self.structure, _shapes(self.leaves), *columns


seen = functools.partial(convert, copy=False)  # for a program that runs at once


def laid_out(tree: PyTree, precision: str, column: Callable[[PyTree, str], PyTree] = seen) -> Template:
    """Return a tree with axes as a template, every number in the precision; columns as column(values, precision)."""
    template, columns = lanes(tree)
    leaves, structure = jax.tree.flatten(template)
    columns = {key: jax.tree.map(lambda x: column(x, precision), values) for key, values in columns.items()}
    return Template(structure, [convert(x, precision) for x in leaves], columns)


def member_like(spec: tuple) -> tuple[PyTree, dict[str, PyTree]]:
    """Return the shapes of a template's tree and of one member's own values, for `fill`."""
    structure, leaves, tree, columns = spec
    shapes = [jax.ShapeDtypeStruct(shape[1:], dtype) for shape, dtype in columns]
    return jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*x) for x in leaves]), jax.tree.unflatten(tree, shapes)


def evaluate(
    function: Callable[[PyTree], PyTree],
    template: Template,
    where: Mapping[str, Any],
    precision: str,
    *,
    width: int = 1,
    options: tuple[tuple[str, str | int], ...] = (),
) -> PyTree:
    """Return function(member) for many members, as NumPy arrays with a leading axis of members.

    A program is compiled once for a function, a structure and a width. Each core or device takes every other call.

    Args:
      function: Pure, of one member's tree; hashable, so that it never recompiles.
      template: What the members are of.
      where: By the name of each axis, the position of every member along it: (members,) integers. Or the sizes of the
        axes, {name: int}: then all combinations, the last axis fastest.
      precision: Of the template.
      width: Members side by side; 1 evaluates one after another.
      options: Of the compiler.
    """
    grid = all(isinstance(x, int) for x in where.values())
    count = math.prod(where.values()) if grid else len(next(iter(where.values())))
    in_turn, width = width == 1, min(width, 1 << (count - 1).bit_length())
    team, most = worker_devices(), current().members
    blocks = max(1, min(most // width, -(-count // (len(team) * width))))
    firsts = range(0, count, width * blocks)
    team = team[: len(firsts)]
    sizes = tuple(where.items()) if grid else None
    names = () if grid else tuple(where)
    results_of_calls: list[PyTree] = [None] * len(firsts)
    with precision_context(precision):
        run = _program(
            function, template.spec, sizes, names, in_turn, width, blocks, options, jax.config.jax_enable_x64,
            current().of_programs,
        )  # fmt: skip

    def positions(first: int) -> np.int32 | tuple[np.ndarray, ...]:
        if grid:
            return np.int32(first)
        members = np.minimum(np.arange(first, first + width * blocks), count - 1)
        return tuple(np.asarray(where[name])[members].astype(np.int32).reshape(blocks, width) for name in names)

    def work(number: int) -> None:
        with precision_context(precision), jax.default_device(team[number]):
            leaves, columns = template.leaves, template.columns
            if len(firsts) > len(team):  # of one call they get there faster with it
                leaves, columns = jax.device_put((leaves, columns), team[number])
            for i in range(number, len(firsts), len(team)):
                kept = min(width * blocks, count - firsts[i])
                results = run(leaves, columns, positions(firsts[i]))
                results_of_calls[i] = jax.tree.map(
                    lambda x, n=kept: np.asarray(x).reshape(-1, *x.shape[2:])[:n], results
                )

    if len(team) == 1:
        work(0)
    else:
        workers = ThreadPoolExecutor(len(team))
        try:
            list(workers.map(work, range(len(team))))
        finally:
            workers.shutdown(cancel_futures=True)
    return (
        results_of_calls[0]
        if len(results_of_calls) == 1
        else jax.tree.map(lambda *parts: np.concatenate(parts), *results_of_calls)
    )


@functools.lru_cache(maxsize=128)
def _program(
    function: Callable,
    spec: tuple,
    sizes: tuple[tuple[str, int], ...] | None,
    names: tuple[str, ...],
    in_turn: bool,
    width: int,
    blocks: int,
    options: tuple[tuple[str, str | int], ...],
    x64: bool,
    settings: tuple,
) -> Callable:
    """Return the program (leaves, columns, positions) -> results (blocks, width, ...).

    Of a grid `positions` is the number of the first member.
    """
    structure = spec[0]

    def index_of(points: Array) -> Mapping[str, Array]:
        shape = tuple(size for _, size in sizes or ())
        points = jnp.minimum(points, math.prod(shape) - 1)
        return dict(
            zip([name for name, _ in sizes or ()], jnp.unravel_index(points, shape) if shape else (), strict=True)
        )

    def run(leaves, columns, positions):
        template = jax.tree.unflatten(structure, leaves)

        def member(at):
            values = {key: jax.tree.map(lambda x, k=key: x[at[Placeholder(k).name]], columns[key]) for key in columns}
            return function(fill(template, values))

        def block(which):
            if sizes is None:
                at = dict(zip(names, which, strict=True))
            else:
                at = index_of(positions + which * width + jnp.arange(width, dtype=np.int32))
            if not in_turn:
                return jax.vmap(member, axis_size=width)(at)
            return jax.tree.map(lambda x: jnp.asarray(x)[None], member({name: i[0] for name, i in at.items()}))

        return jax.lax.map(block, positions if sizes is None else jnp.arange(blocks, dtype=np.int32))

    return compiled(run, dict(options))


def _shapes(tree: PyTree) -> tuple:
    return tuple((np.shape(x), x.dtype) for x in jax.tree.leaves(tree))
