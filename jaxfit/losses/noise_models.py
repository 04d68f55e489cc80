"""What a loss says about the noise of the data, from which the errors of the params are estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["squares", "robust", "likelihood"]
SQUARES: Kind = "squares"  # a sum or mean of squares of residuals
ROBUST: Kind = "robust"  # a mean of rho(residuals), such as Huber's
LIKELIHOOD: Kind = "likelihood"  # the mean over rows of the negative log-likelihood


@dataclass(frozen=True)
class NoiseModel:
    """What statistics and reports need to know about a loss; it is what `Loss.noise_model` returns.

    Attributes:
      kind: One of the three above, which says where the noise is read: in the residuals (or a sigma), in the slopes of
        rho, in the second derivative. None if the loss does not tell its noise, so that params have no errors.
      sigma: Whether the residuals are in units of the standard deviation of the data. True if the loss takes this as
        the data `sigma`, False if it takes none, None if only the user knows.
      additive: Whether the loss is the sum of squares itself and no mean, so that the sum of two is one again.
      predicts: Whether the loss has `predict` and `residuals`, and these compare predict(params, x) with the data `y`.
      why_unknown: If the kind is None: why, and what to use instead; "" for a message in general terms.
    """

    kind: Kind | None = None
    sigma: bool | None = None
    additive: bool = False
    predicts: bool = False
    why_unknown: str = ""

    @property
    def counted(self) -> str:
        """What is counted as one observation."""
        return "rows" if self.kind == LIKELIHOOD else "residuals"

    def source(self, absolute: bool) -> str:
        """Return in words what the errors of the params are computed from.

        Args:
          absolute: Whether the residuals are in units of their standard deviation.
        """
        if self.kind == LIKELIHOOD:
            return "the curvature of the likelihood"
        if self.kind == ROBUST:
            return "Huber's formula, from the scatter of the residuals"
        return "sigma, as given" if absolute else "the scatter of the residuals"
