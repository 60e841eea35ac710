"""Jobs of the serving engine: handles for clients."""

import logging
from collections.abc import Callable
from threading import RLock

from lightning_xt.inference.serving.events import ErrorEvent, Event, JobEnd

logger = logging.getLogger(__name__)


class Job:
    """Handle of a submitted job.

    Args:
        model: name of its model.
        num_sequences: rows that it needs at most.
        on_event: called with each event on the engine's thread. It must return at once; if it raises an exception, the
            job is cancelled.
        on_close: called once, with the job, when no event follows.
    """

    def __init__(
        self, model: str, num_sequences: int, on_event: Callable[[Event], None], on_close: Callable[["Job"], None]
    ) -> None:
        self.model, self.num_sequences = model, num_sequences
        self.running = False
        """True once its decoding has started."""
        self.outcome = ""
        """Outcome: "completed", "failed" or "cancelled"; empty before its end."""
        self._on_event, self._on_close = on_event, on_close
        # Reentrant: `on_event` may cancel its own job.
        self._lock = RLock()

    @property
    def closed(self) -> bool:
        """True once no event follows."""
        return bool(self.outcome)

    def cancel(self) -> None:
        """Cancel the job, from any thread: no event follows, and its rows are free at the next step."""
        self._close("cancelled")

    def send(self, event: Event) -> None:
        """Deliver an event, unless the job is closed; `JobEnd` and `ErrorEvent` close it."""
        with self._lock:
            if self.closed:
                return
            try:
                self._on_event(event)
            except Exception:
                logger.exception("the receiver of a job's events failed, so the job is cancelled")
                self._close("cancelled")
                return
            if isinstance(event, JobEnd | ErrorEvent):
                self._close("completed" if isinstance(event, JobEnd) else "failed")

    def _close(self, outcome: str) -> None:
        with self._lock:
            if self.closed:
                return
            self.outcome = outcome
        self._on_close(self)
