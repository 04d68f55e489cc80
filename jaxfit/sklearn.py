"""A fit as an estimator of scikit-learn: `from jaxfit.sklearn import Regressor`. Needs jaxfit-toolkit[sklearn]."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxfit.losses import least_squares
from jaxfit.optimizers import levenberg_marquardt
from jaxfit.problems import Record, Status, Stop
from jaxfit.problems.enclosed import in_precision
from jaxfit.problems.messages import near_names
from jaxfit.typing import Array, ArrayLike, Model, OptimizerLike, Params, PyTree
from jaxfit.verbs.fits import fit

__all__ = ["Regressor"]
NOTHING = Record(what=())


def linear(params: Params, x: Array | np.ndarray) -> Array:
    """Return b + x @ w for x (n, features), or (n,) for one feature: the default model of a `Regressor`."""
    return params["b"] + jnp.reshape(x, (len(x), -1)) @ params["w"]


@dataclass(frozen=True)
class Weighted:
    """A residual function multiplied by the square root of the sample weights."""

    predict: Callable

    def __call__(self, params: Params, x: Array, y: Array, root: Array) -> Array:
        return root * (self.predict(params, x) - y)


def smallest(params: Params, x: Array, y: Array, root: Array) -> Array:
    """Return the residuals of `linear`, and 1e-6 of each slope in units of its feature.

    Of equal fits the one with the smallest slopes is then the best, where features depend on each other or are more
    than the samples; else nothing changes but the twelfth digit.
    """
    columns = root[:, None] * jnp.reshape(x, (len(x), -1))
    norms = jnp.sqrt(jnp.sum(columns * columns, axis=0))
    return jnp.concatenate([root * (linear(params, x) - y), 1e-6 * jnp.where(norms > 0, norms, 1) * params["w"]])


class Regressor(RegressorMixin, BaseEstimator):
    """A scikit-learn regressor that runs `jf.fit`, for pipelines, searches and scores.

    It minimizes sum(weight * (predict(params, x) - y)**2), unless another loss is given.

    Args:
      model: A function (params, x) -> (n,). x is (n,) if there is one feature, and (n, features) if there are
        several. None: the linear model b + x @ w, with the smallest w if several fit equally.
      start: The params to start from: any pytree, also with `jf.Fixed`, `jf.Bounded` and `jf.Tied`, or a function of
        (x, y) that makes them. None: the guess or the initialization of the model itself.
      loss: A function that makes a loss of the model, such as `jf.losses.mae`; None for weighted least squares.
      optimizer: None for Levenberg-Marquardt.
      steps, stop, precision: As for `jf.fit`.

    Attributes:
      params_: The fitted params, as NumPy arrays.
      loss_: () at the params.
      status_: A `jf.Status`.
      n_iter_: Number of steps.
      n_features_in_, feature_names_in_: As for any estimator.

    Example:
      >>> from jaxfit.sklearn import Regressor
      >>> t_u, t_c = jf.datasets.thermometer()
      >>> found = Regressor(jf.models.line).fit(t_u[:, None], t_c)
      >>> round(float(found.params_["w"]), 3)
      0.537
    """

    def __init__(
        self,
        model: Model | None = None,
        start: Params | Callable | None = None,
        *,
        loss: Callable | None = None,
        optimizer: OptimizerLike | None = None,
        steps: int = 1000,
        stop: Stop | None = None,
        precision: str | None = None,
    ):
        self.model = model
        self.start = start
        self.loss = loss
        self.optimizer = optimizer
        self.steps = steps
        self.stop = stop
        self.precision = precision

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Regressor:
        """Fit the params to the data.

        Args:
          X: (n, features).
          y: (n,).
          sample_weight: (n,) not negative; a weight of zero leaves the sample out, one of two counts it twice.

        Raises:
          ValueError, TypeError: For bad input; also for weights beside a loss of one's own.
        """
        given: Any = (X, y)
        checked: Any = validate_data(self, *given, dtype=np.float64, y_numeric=True)
        x, target = self._points(checked[0]), checked[1]
        model = linear if self.model is None else self.model
        optimizer = levenberg_marquardt() if self.optimizer is None else self.optimizer
        start = self._start(model, x, target)
        options: dict[str, Any] = {
            "optimizer": optimizer, "record": NOTHING, "steps": self.steps, "stop": self.stop or Stop(),
            "precision": self.precision,
        }  # fmt: skip
        if self.loss is None:
            residuals = smallest if model is linear else Weighted(model)
            root = np.sqrt(_weights(sample_weight, len(target)))
            run = fit(least_squares(residuals), start, (x, target, root), **options)
        elif sample_weight is not None:
            raise ValueError(
                "sample_weight weighs squares, but a loss was given, which has weights of its own; leave one of the "
                "two out"
            )
        else:
            run = fit(self.loss(model), start, (x, target), **options)
        self.params_ = jax.tree.map(lambda x: np.asarray(x)[()], run.params)
        self.loss_, self.status_, self.n_iter_ = float(run.loss), run.status, int(run.steps)
        judged = run.optimizer is not None and run.optimizer.traits.judges
        if run.status in (Status.DIVERGED, Status.NOT_FINITE) or (judged and run.status != Status.CONVERGED):
            warnings.warn(str(run).splitlines()[0], ConvergenceWarning, stacklevel=2)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the model's (n,) predictions at the fitted params, in float64; X is (n, features)."""
        check_is_fitted(self)
        checked: Any = validate_data(self, X, dtype=np.float64, reset=False)  # pyright: ignore[reportArgumentType]
        x = self._points(checked)
        model = linear if self.model is None else self.model
        with in_precision("float64", model):
            return np.asarray(model(self.params_, x), np.float64)

    @staticmethod
    def _points(X: np.ndarray) -> np.ndarray:
        return X[:, 0] if X.shape[1] == 1 else X

    def _start(self, model: Callable, x: np.ndarray, y: np.ndarray) -> PyTree:
        if self.start is not None:
            return self.start(x, y) if callable(self.start) else self.start
        if model is linear:
            return {"w": np.zeros(1 if x.ndim == 1 else x.shape[1]), "b": 0.0}
        guess: Callable | None = getattr(model, "guess", None)
        init: Callable | None = getattr(model, "init", None)
        if guess is not None:
            return guess(x, y)
        if init is not None:
            return init(0)
        raise ValueError(f"start is None, but {model!r} guesses and initializes nothing; give the params to start from")


def _weights(sample_weight: ArrayLike | None, n: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n)
    weight = np.asarray(sample_weight, np.float64)
    if weight.ndim == 0:
        return np.full(n, float(weight))
    if weight.shape != (n,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(
            f"sample_weight has shape {weight.shape}; it must hold {n} finite numbers, zero or more, one a sample"
        )
    if not weight.any():
        raise ValueError("sample_weight is zero for every sample, so that none counts; give some a weight")
    return weight


__getattr__, __dir__ = near_names(__name__, __all__)
