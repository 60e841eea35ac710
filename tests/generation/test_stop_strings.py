"""Stop strings: for any cut into pieces, a text ends where `str.find` finds the first of them."""

import itertools
from collections.abc import Iterator

import pytest

from lightning_xt.generation.stop_strings import StopStrings


def cut_before(text: str, stops: list[str]) -> str:
    """Return the text before the first of all stop strings."""
    places = [text.find(stop) for stop in stops if stop in text]
    return text[: min(places, default=len(text))]


def list_cuts(text: str) -> Iterator[list[str]]:
    """Yield every cut of a text into pieces of at least one character."""
    for bits in range(2 ** max(0, len(text) - 1)):
        places = [0, *(i + 1 for i in range(len(text) - 1) if bits >> i & 1), len(text)]
        yield [text[a:b] for a, b in itertools.pairwise(places)]


def push_all(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """Push pieces, and return the text and whether a stop string ended it; each output must be a prefix of the text."""
    watch, shown, expected = StopStrings(stops), "", cut_before("".join(pieces), stops)
    for piece in pieces:
        shown += watch.push(piece)
        assert expected.startswith(shown)
    shown += watch.finish()
    assert watch.push("more") == ("" if watch.stopped else StopStrings(stops).push("more"))
    return shown, watch.stopped


TEXTS = [
    ("abcabcd", ["abcd"]),
    ("aaabaab", ["aab"]),
    ("aabaabaaa", ["aabaaa"]),
    ("ababac", ["abac", "bab"]),
    ("one\n\ntwo", ["\n\n", "two"]),
    ("grüße 🦊.", ["ße 🦊"]),
    ("abcdef", ["cd", "abcdef"]),
    ("abcdeX", ["cd", "abcdef"]),
    ("abcde", ["cd", "abcdef"]),
    ("xabcab", ["abc", "ab"]),
    ("xyz", ["z"]),
    ("xyz", ["x"]),
    ("xyz", ["xyz", "y"]),
    ("xyz", ["xyzz", "zz"]),
    ("xyz", []),
    ("", ["a"]),
]


@pytest.mark.parametrize(("text", "stops"), TEXTS, ids=repr)
def test_every_way_of_cutting_a_text(text: str, stops: list[str]) -> None:
    expected = cut_before(text, stops), any(stop in text for stop in stops)
    for pieces in list_cuts(text):
        assert push_all(pieces, stops) == expected, pieces
        # Tokens within a character of several bytes give empty pieces.
        assert push_all([part for piece in pieces for part in ("", piece, "")], stops) == expected, pieces


def test_every_short_text_of_two_letters() -> None:
    strings = ["".join(each) for n in (1, 2, 3) for each in itertools.product("ab", repeat=n)]
    texts = ["".join(each) for each in itertools.product("ab", repeat=5)]
    for stops in map(list, itertools.combinations(strings, 2)):
        for text in texts:
            expected = cut_before(text, stops), any(stop in text for stop in stops)
            for pieces in ([text], list(text), [text[:2], text[2:]], [text[:3], text[3:]]):
                assert push_all(pieces, stops) == expected, (pieces, stops)


def test_shows_all_that_is_certain_and_no_more() -> None:
    watch = StopStrings(["</s>", "END"])
    pieces = ["one <", "two </", "three EN", "", "N E", "N"]
    assert [watch.push(piece) for piece in pieces] == ["one ", "<two ", "</three ", "", "ENN ", ""]
    assert not watch.stopped
    assert watch.finish() == "EN" and not watch.stopped


@pytest.mark.parametrize("text", ["aaab", "abababac", "xaaaaab"])
def test_no_more_is_held_than_could_be_a_stop_string(text: str) -> None:
    stops = ["aab", "babac"]
    watch, shown = StopStrings(stops), ""
    for end in range(1, len(text) + 1):
        shown += watch.push(text[end - 1])
        if watch.stopped:
            break
        held = text[len(shown) : end]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
    assert watch.stopped and shown == cut_before(text, stops)


def test_stops_as_soon_as_it_is_certain() -> None:
    watch = StopStrings(["ab", "abc", "xaby"])
    assert watch.push("1a") == "1" and not watch.stopped
    assert watch.push("b") == "" and watch.stopped, "of two at the same place the shorter is complete first"
    assert watch.push("c") == "" and watch.finish() == ""


def test_waits_for_one_that_begins_earlier() -> None:
    for rest, expected in (("y", ""), ("z", "x")):
        watch = StopStrings(["ab", "xaby"])
        assert watch.push("1xab") == "1" and not watch.stopped
        assert watch.push(rest) == expected and watch.stopped
    watch = StopStrings(["ab", "xaby"])
    watch.push("1xab")
    assert watch.finish() == "x" and watch.stopped


def test_after_a_stop_nothing_comes() -> None:
    watch = StopStrings(["."])
    assert watch.push("one. two") == "one" and watch.stopped
    assert watch.push(" three. four") == "" and watch.finish() == "" and watch.stopped


def test_refuses_an_empty_string() -> None:
    message = "stop has an empty string, which would end every text at once; omit it"
    with pytest.raises(ValueError, match=message):
        StopStrings(["a", ""])
