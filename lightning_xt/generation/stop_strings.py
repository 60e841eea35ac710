"""Texts that end where one of several strings begins."""

from collections.abc import Sequence


class StopStrings:
    """Cuts one text where the first stop string in it begins, however it is cut into pieces.

    A text that grows piece by piece is given away as far as it is certain: the end that may be the beginning of a stop
    string is held back. So nothing of a stop string is ever shown, and the pieces given away are together what stands
    before the first of all stop strings in the whole text. Where two begin at the same place, the shorter one is
    complete first and ends the text. One that begins earlier and is still incomplete is waited for.

    Args:
        stops: strings of at least one character.

    Raises:
        ValueError: an empty string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("stop has an empty string, with which every text would end at once; leave it out")
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain now and was not before.

        Args:
            piece: what comes next; it may be empty. After a stop string it counts for nothing.
        """
        if self.stopped:
            return ""
        self._held += piece
        found, begun = self._found(), self._begun()
        self.stopped = found < len(self._held) and found <= begun
        return self._give(min(found, begun))

    def finish(self) -> str:
        """The rest of a text that ends here."""
        found = self._found()
        self.stopped = self.stopped or found < len(self._held)
        return self._give(found)

    def _found(self) -> int:
        """Where the first stop string begins; the end where there is none."""
        places = [self._held.find(stop) for stop in self.stops]
        return min((place for place in places if place >= 0), default=len(self._held))

    def _begun(self) -> int:
        """Where the longest end begins with which a stop string begins; the end where there is none."""
        length = len(self._held)
        longest = max(map(len, self.stops), default=0)
        ends = range(max(0, length - longest), length)
        return next((end for end in ends if any(stop.startswith(self._held[end:]) for stop in self.stops)), length)

    def _give(self, end: int) -> str:
        """The held text up to a place; of the rest nothing is kept once the text has stopped."""
        given, self._held = self._held[:end], "" if self.stopped else self._held[end:]
        return given
