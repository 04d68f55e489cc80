"""Explanations: why a run ended as it did, with numbers, and the one change that is most likely to help."""

from jaxfit.explanations.diagnoses import Explanation, explain
from jaxfit.problems.messages import near_names

__all__ = ["Explanation", "explain"]
__getattr__, __dir__ = near_names(__name__, __all__)
