"""Errors of decode steps, as clients receive them."""

import logging

from lightning_xt.inference.text_generator import NO_MEMORY

logger = logging.getLogger(__name__)


def explain_failure(error: Exception) -> Exception:
    """Return the error for the clients of a failed step, without the tensors that its traceback holds.

    Too little memory becomes a MemoryError with a way out. A ValueError stays. Any other error is logged.
    """
    causes = (error, error.__cause__)
    if any(isinstance(each, MemoryError) or _lacks_memory(each) for each in causes):
        logger.warning("there is not enough memory for a step: %s", error)
        return MemoryError(
            "there is not enough memory for the requests of this step; shorten them, or serve with fewer rows or tokens"
        )
    if not isinstance(error, ValueError):
        logger.error("a decode step failed", exc_info=error)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _lacks_memory(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in NO_MEMORY)
