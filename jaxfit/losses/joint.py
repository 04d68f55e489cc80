"""Losses of several data sets, each with its own model, that have params in common."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxfit.losses.base import Block, Loss, NoiseModel, is_masked, leaves_of, noise_model_of_sum, takes_key
from jaxfit.problems.messages import near_keywords, shown
from jaxfit.typing import Params, PyTree


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
    def knows_residuals(self) -> bool:
        return all(loss.knows_residuals for loss in self.losses)

    def __call__(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        return jnp.sum(jnp.stack([loss(own, *given) for loss, own, given in self._each(params, data)]))

    def blocks(self, params: Params, *data: PyTree, key: Array | None = None) -> tuple[Block, ...]:
        return tuple(block for loss, own, given in self._each(params, data) for block in loss.blocks(own, *given))

    def pointwise(self, params: Params, *data: PyTree, key: Array | None = None) -> Array:
        """Return minus the log-likelihood of each point of all sets, if all tell it."""
        found = [loss.pointwise(own, *given) for loss, own, given in self._each(params, data)]  # pyright: ignore[reportAttributeAccessIssue]
        return jnp.concatenate([jnp.ravel(x) for x in found])

    def saturated(self, *data: PyTree) -> Array | float:
        """Return () minus twice the log-likelihood of predictions that are the data, of a sum of deviances."""
        takers = [(loss, own) for loss, own in zip(self.losses, data, strict=True) if loss.noise_model().deviance]
        return sum(loss.saturated(*own) for loss, own in takers)  # pyright: ignore[reportAttributeAccessIssue]

    def noise_model(self) -> NoiseModel:
        why = (
            f"{self} joins losses of different units; join sums of squares in units of sigma (chi_squared) and "
            f"deviances (poisson, binomial), or sums of squares of one unit (rss)"
        )
        return noise_model_of_sum([loss.noise_model() for loss in self.losses], why)

    def _each(self, params: Params, data: tuple) -> list[tuple[Loss, Params, tuple]]:
        """Return each loss with its params and data."""
        if not isinstance(params, dict):
            raise TypeError(
                f"{self}: params are {shown(params)}, but they must be a dict: those of each set under its name, and "
                f"those that all have in common beside them"
            )
        if len(data) != len(self.names) or not all(isinstance(own, (tuple, list)) for own in data):
            raise TypeError(
                f"{self} takes the data ({', '.join(self.names)}), a tuple for each: "
                f"((x, y, sigma), (x, y, sigma), ...)"
            )
        common = {name: value for name, value in params.items() if name not in self.names}
        return [
            (loss, common | dict(params.get(name, {})), tuple(own))
            for name, loss, own in zip(self.names, self.losses, data, strict=True)
        ]

    def __repr__(self) -> str:
        named = [f"{name}={loss}" for name, loss in zip(self.names, self.losses, strict=True)]
        return f"joint({', '.join(named)})"


@near_keywords
def joint(**losses: Loss) -> Joint:
    """Return the sum of the losses of several data sets, of any lengths and models, that have params in common.

    The params are a dict: under the name of a set those that are its own, beside them those that all have in common.
    A model gets both in one dict, the set's own first where a name stands in both. The data are a tuple for each set,
    in the order of the names: `jf.fit(loss, params, ((x, y, sigma), (x, y, sigma)), ...)`. A fit, its errors, intervals
    and report are those of all sets together.

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
        if not isinstance(loss, Loss) or is_masked(loss) or takes_key(loss):
            why = (
                "is masked: sets may have any lengths"
                if is_masked(loss)
                else "is random"
                if isinstance(loss, Loss)
                else ""
            )
            raise TypeError(
                f"joint: {name} is {shown(loss)}, which {why or 'is no loss of jaxfit'}; give one such as "
                f"jf.losses.chi_squared(model)"
            )
    return Joint(tuple(losses), tuple(losses.values()))
