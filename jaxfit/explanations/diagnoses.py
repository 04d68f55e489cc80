"""From what is seen of a run to what it means: the kind, the story, its numbers, and the remedy."""

from __future__ import annotations

from jaxfit.explanations.breakdowns import of_trouble
from jaxfit.explanations.endings import of_end
from jaxfit.explanations.escapes import of_patience, of_runaways
from jaxfit.explanations.findings import Finding
from jaxfit.explanations.layers import of_layers
from jaxfit.fits import Fit
from jaxfit.judgments import runaways
from jaxfit.problems import Status


def diagnose(run: Fit) -> Finding:
    """What happened to a run that recorded the loss of every step."""
    if far := runaways(run):
        return of_runaways(run, far)
    if run.status == Status.STOPPED_EARLY:
        return of_patience(run)
    found = of_layers(run)
    if found is not None:
        return found
    broke = run.status in (Status.DIVERGED, Status.NOT_FINITE)
    return of_trouble(run) if broke else of_end(run)
