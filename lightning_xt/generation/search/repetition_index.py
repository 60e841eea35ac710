"""Earlier occurrences of the newest tokens of a row."""

from collections.abc import Sequence

LONGEST = 16
"""Longest repetition that is distinguished, in tokens."""
CANDIDATES = 8
"""Occurrences of an n-gram that are compared, the last first."""
MEMORY = 50
"""Predictions of which a rate is the mean, about; older ones count less and less."""
PRIOR = 2
"""Predictions for which a rate stands before there are any."""


class RepetitionIndex:
    """Index of the n-grams of a row, which predicts its next token, and counts how often it was right.

    The predicted token is the one that followed the longest repetition of the newest tokens. After a wrong token the
    next one is predicted from the next place, as in a copy with one token changed, until the newest n-gram has occurred
    before.

    Args:
        ngram: tokens of the shortest repetition that is looked up.
    """

    def __init__(self, ngram: int) -> None:
        self.ngram = ngram
        self.tokens: list[int] = []
        self._source: int | None = None
        """Place of the predicted token. None = no n-gram has occurred twice."""
        self._repeated = 0
        """Tokens before that place that are also the newest tokens, `LONGEST` at most."""
        self._last: dict[tuple[int, ...], int] = {}
        """Place after the last occurrence of each n-gram."""
        self._earlier: list[int | None] = [None]
        """For each place, the place after the occurrence before of the n-gram that ends there."""
        # By the bits of the length: 0, 1, 2 to 3, 4 to 7, ... repeated tokens. The longer, the likelier.
        self.rates = [1 - 0.5 ** max(1, bits) for bits in range(LONGEST.bit_length() + 1)]
        """Fraction of right predictions, by the bits of the number of repeated tokens."""
        self._counts = [PRIOR] * len(self.rates)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens, each of which shows whether its prediction was right."""
        for token in tokens:
            if self._source is not None:
                right = self.tokens[self._source] == token
                self._count(self._repeated.bit_length(), right)
                self._source, self._repeated = self._source + 1, min(self._repeated + 1, LONGEST) if right else 0
            self.tokens.append(token)
            self._look_up()

    def predict(self, most: int) -> list[float]:
        """Return how many tokens of a draft of 1, 2, ... and `most` tokens are right, on average."""
        if self._source is None:
            return []
        expected, total, chance = [], 0.0, 1.0
        for step in range(most):
            chance *= self.rates[min(self._repeated + step, LONGEST).bit_length()]
            total += chance
            expected.append(total)
        return expected

    def draft(self, number: int) -> list[int]:
        """Return the predicted next tokens; none if no n-gram has occurred twice."""
        if self._source is None:
            return []
        # A draft may run into itself, so a short period repeats.
        period = len(self.tokens) - self._source
        return [self.tokens[self._source + step % period] for step in range(number)]

    def _count(self, bits: int, right: bool) -> None:
        """Update a rate by a prediction."""
        self._counts[bits] = min(self._counts[bits] + 1, MEMORY)
        self.rates[bits] += (right - self.rates[bits]) / self._counts[bits]

    def _look_up(self) -> None:
        """Index the newest n-gram, and find a longer repetition than the current one."""
        place = len(self.tokens)
        candidate: int | None = None
        if place >= self.ngram:
            newest = tuple(self.tokens[place - self.ngram :])
            candidate, self._last[newest] = self._last.get(newest), place
        self._earlier.append(candidate)
        if self._repeated == LONGEST:
            return
        for _ in range(CANDIDATES):
            if candidate is None:
                return
            repeated = self._measure(candidate)
            if repeated > self._repeated:
                self._source, self._repeated = candidate, repeated
            candidate = self._earlier[candidate]

    def _measure(self, place: int) -> int:
        """Count the tokens before a place that are also the newest tokens; at least an n-gram."""
        tokens, end, repeated = self.tokens, len(self.tokens), min(self.ngram, LONGEST)
        while repeated < min(LONGEST, place) and tokens[place - 1 - repeated] == tokens[end - 1 - repeated]:
            repeated += 1
        return repeated
