"""Errors of decode steps, as clients receive them."""

import logging

from lightning_xt.inference.memory_errors import NO_MEMORY
from lightning_xt.inference.serving.events import StepError
from lightning_xt.system.messages import find_own_sentence

logger = logging.getLogger(__name__)


def explain_failure(error: Exception) -> Exception:
    """Return the error for the clients of a failed step, without the tensors that its traceback holds.

    Too little memory, and an error with a sentence of this package, become a StepError. Any other error is logged.
    """
    causes = (error, error.__cause__)
    if any(isinstance(each, MemoryError) or _lacks_memory(each) for each in causes):
        logger.warning("there is not enough memory for a step: %s", error)
        return StepError(
            "there is not enough memory for the requests of this step; shorten them, or serve with fewer rows or tokens"
        )
    # The sentence is known by its traceback, which the client does not get.
    if sentence := find_own_sentence(error):
        return StepError(sentence)
    logger.error("a decode step failed", exc_info=error)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _lacks_memory(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in NO_MEMORY)
