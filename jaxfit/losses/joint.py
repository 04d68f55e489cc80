"""Losses of several data sets, each with its own model, that have params in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxfit.losses.base import Block, Loss, NoiseModel, is_masked, leaves_of, noise_model_of_sum, takes_key
from jaxfit.problems.axes import is_array
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import Params, PyTree


class Sets(NamedTuple):
    """Data sets of one loss, with params of their own and params in common."""

    loss: Loss
    own: dict[str, PyTree]  # if they are many, the arrays of each along their first axis
    common: dict[str, PyTree]
    data: tuple  # like `own`
    many: bool  # whether the sets are those of `each`

    def map(self, function: Callable, *more: PyTree) -> Any:
        """Return function(params, *data, *more) of the set; if they are many, of all of them along a first axis."""
        if not self.many:
            return function(self.common | self.own, *self.data, *more)
        leaves, structure = jax.tree.flatten(self.own)
        arrays = [x for x in leaves if is_array(x)]

        def one(arrays, data, more):
            given = iter(arrays)
            own = jax.tree.unflatten(structure, [next(given) if is_array(x) else x for x in leaves])
            return function(self.common | own, *data, *more)

        return jax.vmap(one)(arrays, self.data, more)

    def blocks(self) -> tuple[Block, ...]:
        if not self.many:
            return self.loss.blocks(self.common | self.own, *self.data)
        robust = []

        def one(params, *data):
            found = self.loss.blocks(params, *data)
            robust[:] = [block.rho is not None for block in found]
            return [(block.residuals, jnp.asarray(block.weight, float), block.variance) for block in found]

        parts = zip(self.map(one), robust, strict=True)
        return tuple(self._block(i, r, weight, variance, yes) for i, ((r, weight, variance), yes) in enumerate(parts))

    def _block(self, i: int, residuals: Array, weight: Array, variance: Array | None, robust: bool) -> Block:
        """Return one block of all sets, of which each has a rho and a weight of its own."""
        weight = jnp.broadcast_to(jnp.reshape(weight, weight.shape + (1,) * (residuals.ndim - weight.ndim)),
                                  residuals.shape)  # fmt: skip
        if not robust:
            return Block(residuals * jnp.sqrt(weight), 1.0)

        def of_set(params, *given):
            own: Any = self.loss.blocks(params, *given[:-1])[i].rho
            return own(given[-1])

        def rho(r):
            each = self.map(of_set, jnp.reshape(r, (len(residuals), -1)))
            return jnp.reshape(each, jnp.shape(r))

        return Block(residuals, weight, rho, variance)


@leaves_of("loss")
@dataclass(frozen=True, eq=False, repr=False)
class Each(Loss):
    """The loss made by `each`, for `joint`."""

    loss: Loss

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        raise TypeError(f"{self} is a loss of many data sets, for joint: jf.losses.joint(sets={self})")

    def noise_model(self) -> NoiseModel:
        return self.loss.noise_model()

    def __repr__(self) -> str:
        return f"each({self.loss})"


@leaves_of("losses")
@dataclass(frozen=True, eq=False, repr=False)
class Joint(Loss):
    """The loss made by `joint`."""

    names: tuple[str, ...]
    losses: tuple[Loss, ...]

    @property
    def data_names(self) -> tuple[str, ...]:
        return self.names

    @property
    def by_row(self) -> bool:
        return False

    @property
    def many(self) -> tuple[bool, ...]:
        """Which names stand for many data sets."""
        return tuple(isinstance(loss, Each) for loss in self.losses)

    @property
    def knows_residuals(self) -> bool:
        return all(_of_one(loss).knows_residuals for loss in self.losses)

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(sets.map(sets.loss)) for sets in self.sets(params, *data)]))

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        return tuple(block for sets in self.sets(params, *data) for block in sets.blocks())

    def pointwise(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return minus the log-likelihood of each point of all sets, if all tell it."""
        found = [sets.map(sets.loss.pointwise) for sets in self.sets(params, *data)]  # pyright: ignore[reportAttributeAccessIssue]
        return jnp.concatenate([jnp.ravel(x) for x in found])

    def saturated(self, *data: PyTree) -> Array | float:
        """Return () minus twice the log-likelihood of predictions that are the data, of a sum of deviances."""
        takers = [(loss, own) for loss, own in zip(self.losses, data, strict=True) if loss.noise_model().deviance]
        each = [
            jnp.sum(jax.vmap(_of_one(loss).saturated)(*own) if isinstance(loss, Each) else loss.saturated(*own))  # pyright: ignore[reportAttributeAccessIssue]
            for loss, own in takers
        ]
        return sum(each)

    def noise_model(self) -> NoiseModel:
        why = (
            f"{self} joins losses of different units; join sums of squares in units of sigma (chi_squared) and "
            f"deviances (poisson, binomial), or sums of squares of one unit (rss); robust losses stand as each(...) of "
            f"one name"
        )
        return noise_model_of_sum([loss.noise_model() for loss in self.losses], why)

    def apart(self, params: Params) -> tuple[dict[str, PyTree], list[dict[str, PyTree]]]:
        """Return the params that all sets have in common, and those of each name."""
        if not isinstance(params, dict):
            raise TypeError(
                f"{self}: params are {shown(params)}, but they must be a dict: those of each set under its name, and "
                f"those that all have in common beside them"
            )
        common = {name: value for name, value in params.items() if name not in self.names}
        return common, [dict(params.get(name) or {}) for name in self.names]

    def sets(self, params: Params, *data: PyTree) -> list[Sets]:
        """Return the data sets with their params, those of a name together."""
        common, owned = self.apart(params)
        if len(data) != len(self.names) or not all(isinstance(given, (tuple, list)) for given in data):
            raise TypeError(
                f"{self} takes the data ({', '.join(self.names)}), a tuple for each: "
                f"((x, y, sigma), (x, y, sigma), ...)"
            )
        found = []
        for name, loss, own, given in zip(self.names, self.losses, owned, data, strict=True):
            if isinstance(loss, Each):
                _check_many(name, own, tuple(given))
            found.append(Sets(_of_one(loss), own, common, tuple(given), isinstance(loss, Each)))
        return found

    def member(self, i: int) -> Loss:
        """Return the loss of the sets of one name."""
        return _of_one(self.losses[i])

    def hidden(self, *data: PyTree) -> Any:
        """Return how many residuals masks leave out."""
        hidden: Any = 0
        for loss, given in zip(map(_of_one, self.losses), data, strict=True):
            if is_masked(loss):
                where, y = (given[loss.data_names.index(name)] for name in ("where", "y"))
                hidden = hidden + (where.size - where.sum()) * (y.size // where.size)
        return hidden

    def __repr__(self) -> str:
        named = [f"{name}={loss}" for name, loss in zip(self.names, self.losses, strict=True)]
        return f"joint({', '.join(named)})"


def params_of_model(loss: Any, params: str) -> str:
    """Return the code for the params that a model takes, of a loss of data sets those of the first set."""
    if not isinstance(loss, Joint):
        return params
    own = f"{params}[{loss.names[0]!r}]"
    return f"{params} | " + (f"{{name: value[0] for name, value in {own}.items()}}" if loss.many[0] else own)


def _of_one(loss: Loss) -> Loss:
    return loss.loss if isinstance(loss, Each) else loss


def _check_many(name: str, own: PyTree, data: PyTree) -> None:
    """Raise a ValueError if the arrays of the sets of `each` do not have one entry for each of them."""
    lengths = {}
    for what, tree in (("data", data), ("params", own)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if is_array(leaf) or np.isscalar(leaf):
                lengths[f"{what} of {name}{jax.tree_util.keystr(path)}"] = np.shape(leaf)
    first = next(iter(lengths.values()))
    for label, shape in lengths.items():
        if shape[:1] != first[:1] or not shape:
            raise ValueError(
                f"{label} have shape {shape}, but there are {first[0] if first else 'no'} sets: each array of their "
                f"data and own params has one entry a set along its first axis, such as np.full({first[:1]}, 1.0); a "
                f"param that all have in common stands beside {name!r}, not in it"
            )


@near_keywords
def each(loss: Loss) -> Each:
    """Return the loss of many data sets of one kind, to stand in `joint` under one name.

    The data under that name are those of the loss with one more axis in front, one entry a set: x (K, n), y (K, n), and
    so are the params that are the sets' own. For sets of unequal length, `jf.datasets.pad` makes such arrays, and the
    loss is one with masked=True.

    Args:
      loss: Of one set, as for `joint`, also with a mask.

    Raises:
      TypeError: If it is no loss of jaxfit, or is random.

    Example:
      >>> decay = jf.losses.chi_squared(jf.models.exponential_decay, masked=True)
      >>> t, u = np.arange(4.0), np.arange(3.0)
      >>> sets = [(t, 4 * np.exp(-t), np.ones(4)), (u, 2 * np.exp(-u), np.ones(3))]
      >>> start = {"rate": 0.5, "days": {"amplitude": np.ones(2)}}
      >>> loss = jf.losses.joint(days=jf.losses.each(decay))
      >>> run = jf.fit(loss, start, (jf.datasets.pad(sets),), optimizer=jf.optimizers.levenberg_marquardt())
      >>> run.params["days"]["amplitude"].round(6).tolist()
      [4.0, 2.0]
    """
    _check_member("each", "the loss", loss, masks=True)
    return Each(loss)


def _check_member(verb: str, name: str, loss: Loss, masks: bool) -> None:
    if not isinstance(loss, Loss) or takes_key(loss) or (is_masked(loss) and not masks):
        why = (
            "is no loss of jaxfit"
            if not isinstance(loss, Loss)
            else "is random"
            if takes_key(loss)
            else "is masked: sets may have any lengths"
        )
        raise TypeError(f"{verb}: {name} is {shown(loss)}, which {why}; give one such as jf.losses.chi_squared(model)")


@near_keywords
def joint(**losses: Loss) -> Joint:
    """Return the sum of the losses of several data sets, of any lengths and models, that have params in common.

    The params are a dict: under the name of a set those that are its own, beside them those that all have in common.
    A model gets both in one dict, the set's own first where a name stands in both. The data are a tuple for each set,
    in the order of the names: `jf.fit(loss, params, ((x, y, sigma), (x, y, sigma)), ...)`. A fit, its errors, intervals
    and report are those of all sets together. `each` puts many sets of one kind under one name.

    Levenberg-Marquardt eliminates the params of each set by its own residuals, so that its cost grows linearly with the
    sets; unless a param is tied to another.

    Args:
      **losses: By name of the set: losses of jaxfit, such as `chi_squared(model)`, without masks.

    Raises:
      TypeError: If a loss is none of jaxfit, is random or masked; when called, if params or data are not as above.
      ValueError: If there is none.

    Example:
      >>> decay = jf.losses.chi_squared(jf.models.exponential_decay)
      >>> loss = jf.losses.joint(day=decay, night=decay)
      >>> t, u = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0])
      >>> data = (t, 4 * np.exp(-t), np.ones(3)), (u, 2 * np.exp(-u), np.ones(2))
      >>> start = {"rate": 0.5, "day": {"amplitude": 1.0}, "night": {"amplitude": 1.0}}
      >>> run = jf.fit(loss, start, data, optimizer=jf.optimizers.levenberg_marquardt())
      >>> round(float(run.params["rate"]), 6), round(float(run.params["night"]["amplitude"]), 6)
      (1.0, 2.0)
    """
    if not losses:
        raise ValueError("joint got no losses; give one for each data set: joint(day=chi_squared(f), night=poisson(g))")
    for name, loss in losses.items():
        _check_member("joint", name, loss, masks=False)
    return Joint(tuple(losses), tuple(losses.values()))
