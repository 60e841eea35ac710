"""Predictions from earlier occurrences of the newest tokens, and the length of drafts."""

import pytest

from lightning_xt.generation.methods.prompt_lookup import choose_length, estimate_time
from lightning_xt.generation.search.repetition_index import LONGEST, MEMORY, RepetitionIndex


def index(text: str, ngram: int = 2) -> RepetitionIndex:
    """Index the characters of a text."""
    made = RepetitionIndex(ngram)
    made.extend([ord(each) for each in text])
    return made


def draft(text: str, number: int = 3, ngram: int = 2) -> str:
    """Return the drafted characters after a text."""
    return "".join(map(chr, index(text, ngram).draft(number)))


@pytest.mark.parametrize(
    ("text", "drafted"),
    [
        ("", ""),
        ("a", ""),
        ("abcd", ""),
        ("abcdab", "cda"),
        # The last occurrence, unless an earlier one repeats more of the newest tokens.
        ("abx ab- ab", "- a"),
        ("zabx ab- zab", "x a"),
        # A draft runs into itself.
        ("abab", "aba"),
        ("aaa", "aaa"),
        # After a token that was not predicted, the copy continues one place later, until an n-gram has occurred before.
        ("abcdefgh abcX", "efg"),
        ("abcdefgh cX abcX", " ab"),
    ],
)
def test_the_longest_repetition_is_continued(text: str, drafted: str) -> None:
    assert draft(text) == drafted


def test_tokens_in_pieces_are_tokens_at_once() -> None:
    text = "the theme of the thesis, the theme of the theory, the theme" * 3
    pieces = RepetitionIndex(3)
    for start in range(0, len(text), 7):
        pieces.extend([ord(each) for each in text[start : start + 7]])
    assert vars(pieces) == vars(index(text, 3))


def test_rates_are_counted_by_the_length_of_the_repetition() -> None:
    first = index("ab").rates
    assert first == [0.5, 0.5, 0.75, 0.875, 0.9375, 0.96875] and len(first) == LONGEST.bit_length() + 1
    # Of "ab" two tokens are repeated, and "c" was predicted; then "cX" refutes three.
    assert index("abcdab").rates == first
    # The prior counts as two predictions.
    assert index("abcdabc").rates[2] == pytest.approx((2 * 0.75 + 1) / 3)
    assert index("abcdabcX").rates[2] == pytest.approx((2 * 0.75 + 1) / 4)
    # After many, the last count most.
    before, after = (index("ab" * 200 + more).rates[-1] for more in ("", "X"))
    assert before > 0.99 and after == pytest.approx(before * (1 - 1 / MEMORY))


def test_the_expected_tokens_are_sums_of_products_of_rates() -> None:
    made = index("abcdab")
    made.rates = [0.0, 0.0, 0.5, 0.8, 0.0, 0.0]
    # Two repeated tokens, then three, then four.
    assert made.predict(3) == pytest.approx([0.5, 0.5 + 0.25, 0.5 + 0.25 + 0.2])
    assert made.predict(0) == [] and index("abc").predict(3) == []


def expect(chance: float, number: int) -> list[float]:
    """Return the expected tokens of drafts whose tokens are all accepted with one probability."""
    return [sum(chance**each for each in range(1, length + 1)) for length in range(1, number + 1)]


def test_drafts_are_as_long_as_they_save_time() -> None:
    assert choose_length([[]]) == choose_length([expect(0.2, 9)]) == 0
    assert choose_length([expect(1.0, 24)]) == 24
    chosen = choose_length([expect(0.8, 24)])
    speeds = [(1 + accepted) / estimate_time(1, 2 + n) for n, accepted in enumerate(expect(0.8, 24))]
    assert 1 < chosen < 24 and speeds[chosen - 1] == max(speeds) > 1


def test_one_row_of_many_does_not_make_all_of_them_wait() -> None:
    repeating, other = expect(1.0, 8), expect(1.0, 0)
    assert choose_length([repeating]) == 8
    assert choose_length([repeating] + 63 * [other]) == 0
    assert choose_length([repeating] * 64) == 8
    # A row near its end counts the tokens that it can still accept.
    assert choose_length([repeating, expect(1.0, 1)]) == 8
