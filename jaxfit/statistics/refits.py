"""Many refits of a finished problem as one sweep: of other residuals, or with one of its params held."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.fits import Fit
from jaxfit.losses import Block, Loss
from jaxfit.markers import Axis, Call, Mention, is_axis, stacked
from jaxfit.parameters import Bounded, Fixed, Tied, again, is_mark
from jaxfit.problems import Problem
from jaxfit.statistics.lanes import Group, groups_of

PyTree = Any
NAME = "refit"


class _OfBlocks(Loss):
    """A loss that is known by its blocks."""

    loss: Loss

    @property
    def by_row(self) -> bool:
        return False

    @property
    def knows_residuals(self) -> bool:
        return True

    def __call__(self, params: Any, *data: Any, key: Any = None) -> Array:
        total = jnp.zeros(())
        for block in self.blocks(params, *data):
            rho = block.rho or jnp.square
            total = total + block.weight * jnp.sum(rho(block.residuals))
        return total

    def __repr__(self) -> str:
        return f"refit of {self.loss!r}"


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Shifted(_OfBlocks):
    """A loss with its residuals moved and weighed: scale * (residuals - shift), block by block."""

    loss: Loss

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("shift", "scale", *self.loss.data_names)

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        shifts, scales, *data = data  # pyright: ignore[reportAssignmentType]
        return tuple(
            block._replace(residuals=scale * (block.residuals - shift))
            for block, shift, scale in zip(self.loss.blocks(params, *data), shifts, scales, strict=True)
        )


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Held(_OfBlocks):
    """A loss and a spring, stiffness * (number - target)**2, at one number of the user's tree.

    Its data begin with which number, the target and the stiffness. Wherever the spring comes to rest, the loss is the
    least one with the number there, and its slope by the number is 2 * stiffness * (target - number).
    """

    loss: Loss

    @property
    def data_names(self) -> tuple[str, ...]:
        return ("which", "target", "stiffness", *self.loss.data_names)

    def blocks(self, params: Any, *data: Any, key: Any = None) -> tuple[Block, ...]:
        which, target, stiffness, *rest = data
        number = jax.flatten_util.ravel_pytree(params)[0][which]
        return (*self.loss.blocks(params, *rest), Block(number - target, stiffness))


class Refits:
    """The lanes of a result, each taken several times, for sweeps over one axis.

    Raises:
      ValueError: If the lanes belong to several programs.
    """

    def __init__(self, verb: str, result: Any, times: int):
        groups = groups_of(result)
        if len(groups) != 1:
            raise ValueError(
                f"{verb}: the grid was run by {len(groups)} programs, one for each value of an axis that is part of a "
                f"program; take one lane at a time: jf.lane(grid, ...)"
            )
        self.group: Group = groups[0]
        self.single = isinstance(result, Fit)
        self.lane = np.repeat(np.arange(self.group.size), times)
        self.along = {name: places[self.lane] for name, places in self.group.along.items()}

    @property
    def problem(self) -> Problem:
        return self.group.problem

    def of_lanes(self, values: Any) -> Any:
        """Numbers of each lane, (lanes, ...), as an axis over the refits; of one fit as they are."""
        values = np.asarray(values)
        return values[0] if self.single else Axis(NAME, values[self.lane])

    def collapsed(self, tree: PyTree) -> PyTree:
        """A tree with every axis replaced by one over the refits."""

        def one(x):
            if not is_axis(x):
                return x
            taken = self.along[x.name]
            return jax.tree.map(lambda v: Axis(NAME, np.asarray(v)[taken]), stacked(Mention(x, "", True)))

        return jax.tree.map(one, tree, is_leaf=is_axis)

    def marked(self, tree: PyTree) -> PyTree:
        """The marks of the problem around the params where the lanes ended, as `free` or `complete` take them."""
        leaves, structure = jax.tree.flatten(self.problem.params, is_leaf=_whole)
        parts = structure.flatten_up_to(tree)
        made = []
        for mark, value in zip(leaves, parts, strict=True):
            value = jax.tree.map(self.of_lanes, value)
            if isinstance(mark, Fixed):
                made.append(Fixed(value))
            elif isinstance(mark, Bounded):
                made.append(Bounded(value, *self.collapsed((mark.low, mark.high))))
            else:
                made.append(mark if isinstance(mark, Tied) else value)
        return jax.tree.unflatten(structure, made)

    def started(self, moved: PyTree) -> PyTree:
        """The marks around starts of their own: `moved` is what is free of the params, (refits, ...) at each leaf."""
        axes = jax.tree.map(lambda x: Axis(NAME, np.asarray(x)), moved)
        return again(self.marked(self.group.params), axes)


def _whole(x: Any) -> bool:
    return is_mark(x) or is_axis(x) or isinstance(x, Call)
