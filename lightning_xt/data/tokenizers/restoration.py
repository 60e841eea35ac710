"""Texts that a tokenizer does not restore."""

from collections.abc import Callable

PROBES = {
    "upper case": "A aB",
    "spaces at the beginning": " a",
    "spaces at the end": "a ",
    "several spaces in a row": "a  b   c",
    "spaces before punctuation": "a , b . do n't",
    "line breaks": "a\nb\n\nc\r\n",
    "tabs": "a\tb",
    "accents": "caf\u00e9",
    "combining accents": "e\u0301",
    "compatibility characters such as \ufb01": "\ufb01 \u00bd \uff21",
    "control characters": "a\x01b\x7f",
    "the character \u2581": "a\u2581b",
    "rare characters": "\u65e5\u672c \U0001f642 \u05d0 \u2028 {~} 0123",
}
"""Texts with what tokenizers are known to alter."""


def describe_changes(restore: Callable[[str], str | None]) -> str | None:
    """Describe what encoding and decoding changes in texts; None if no known text is changed.

    Args:
        restore: encodes and decodes a text; None if it has characters for which there is no token.
    """
    found = {name: (text, restore(text)) for name, text in PROBES.items()}
    changed = [name for name, (text, made) in found.items() if made is not None and made != text]
    if any(made is None for _, made in found.values()):
        changed.append("characters for which it has no token")
    if not changed:
        return None
    *others, last = changed
    return "it does not keep " + (f"{', '.join(others)} and {last}" if others else last)
