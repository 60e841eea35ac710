"""Stop strings: a text ends where the first of them begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TailStop:
    """Condition that ends a hypothesis.

    Args:
        tokens: most generated tokens to look at.
        met: called with the token before them, which may be the last of the prompt, and the last generated tokens of a
            hypothesis, newest last; True ends it.
    """

    tokens: int
    met: Callable[[Sequence[int]], bool]


class StopStrings:
    """Cutter of one text where its first stop string begins.

    Text arrives in pieces and is released once it is certain: a tail that may be the beginning of a stop string is held
    back. So no part of a stop string is ever shown, and the released pieces together are the text before the first
    stop string, wherever the pieces were cut. If two stop strings begin at the same place, the shorter one is complete
    first and ends the text. A stop string that begins earlier and is still incomplete is waited for.

    Args:
        stops: strings of at least one character.

    Raises:
        ValueError: a string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("stop has an empty string, which would end every text at once; omit it")
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""

    def push(self, piece: str) -> str:
        """Add the next text, possibly empty, and return the text that has become certain; none after a stop string."""
        if self.stopped:
            return ""
        self._held += piece
        found, partial = self._find_stop(), self._find_partial()
        self.stopped = found < len(self._held) and found <= partial
        return self._release(min(found, partial))

    def finish(self) -> str:
        """Return the rest of a text that ends here."""
        found = self._find_stop()
        self.stopped = self.stopped or found < len(self._held)
        return self._release(found)

    def _find_stop(self) -> int:
        """Return the start of the first stop string, or the end of the held text if there is none."""
        places = [self._held.find(stop) for stop in self.stops]
        return min((place for place in places if place >= 0), default=len(self._held))

    def _find_partial(self) -> int:
        """Return the start of the longest tail that begins a stop string, or the end if there is none."""
        length = len(self._held)
        longest = max(map(len, self.stops), default=0)
        starts = range(max(0, length - longest), length)
        return next((at for at in starts if any(stop.startswith(self._held[at:]) for stop in self.stops)), length)

    def _release(self, end: int) -> str:
        """Return the held text up to a place; drop the rest if the text has stopped."""
        released, self._held = self._held[:end], "" if self.stopped else self._held[end:]
        return released
