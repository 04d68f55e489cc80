"""Ends a run at one of its events."""

from contextlib import AbstractContextManager

from jaxfit.engine.settings import counting


def ended_by(error: BaseException | type[BaseException], event: str, times: int) -> AbstractContextManager:
    """Inside, an event raises an error when it happens for the n-th time."""

    def end(now: str, count: int) -> None:
        if (now, count) == (event, times):
            raise error

    return counting(end)
