"""Why a run ended as it did, in words with numbers, and the one change that is most likely to help."""

from jaxfit.explanations.explain import Explanation, explain

__all__ = ["Explanation", "explain"]
