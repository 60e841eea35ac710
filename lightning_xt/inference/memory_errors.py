"""Errors of too little memory, with a way out."""

from collections.abc import Iterator
from contextlib import contextmanager

NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""Phrases of torch's RuntimeErrors, one for each kind of device."""


@contextmanager
def explain_out_of_memory(doing: str, way_out: str) -> Iterator[None]:
    """Turn an out-of-memory error of the work `doing` into a ValueError with a way out besides a smaller batch."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(phrase in str(error) for phrase in NO_MEMORY):
            raise
        raise ValueError(
            f"there is not enough memory to {doing}; lower --batch (of predict --sampling.batch), or {way_out}"
        ) from error
