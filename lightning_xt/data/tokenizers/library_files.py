"""Files of the `tokenizers` library: reading and checks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer as Library


def read_library(place: str, content: bytes) -> tuple[dict[str, Any], Library]:
    """Read a `tokenizer.json`.

    Args:
        place: name of the file in messages.
        content: the content of the file.

    Returns:
        The content as a mapping, completed by the library, and its tokenizer, which neither cuts nor pads, and to which
        the spelling of a special token is ordinary text.

    Raises:
        ValueError: the content is malformed or unsupported, or gives a text different ids each time.
    """
    try:
        mark = find_mark(json.loads(content))
        # The library may panic over a prefix.
        library = None if mark == "continuing_subword_prefix" else Library.from_buffer(content)
    except BaseException as error:
        if not _is_of_library(error):
            raise
        raise ValueError(
            f"{place} is not a tokenizer.json of the tokenizers library ({error}); save one with its Tokenizer.save"
        ) from error
    if library is None:
        raise ValueError(f"{place}: its model has a {mark}, which is not supported; train one without it")
    # Files of older versions, such as that of GPT-2, do not name the type of their model.
    described = json.loads(library.to_str())
    dropout = described["model"].get("dropout")
    if dropout:
        raise ValueError(
            f"{place} has dropout {dropout:g}, which encodes a text differently each time, so that no run could be "
            "repeated or resumed; set dropout in its model to null"
        )
    _check_ids(place, library.get_vocab())
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    return described, library


@contextmanager
def named_encoding_errors(place: str) -> Iterator[None]:
    """Turn an error of the library over a text into a ValueError that names the file."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, ValueError) or not _is_of_library(error):
            raise
        raise ValueError(
            f"{place} does not encode every text ({error}); use one with a token for what is unknown, or get the file "
            "again if it is damaged"
        ) from error


def _is_of_library(error: BaseException) -> bool:
    """Return True for an error of the library, which names no class of errors; its panics are not even an Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def find_mark(described: Any) -> str | None:
    """Return the name of the mark that a BPE puts at parts of words, None if it has none."""
    model = described.get("model") if isinstance(described, dict) else None
    if not isinstance(model, dict) or "merges" not in model:
        return None
    marks = ("continuing_subword_prefix", "end_of_word_suffix")
    return next((name for name in marks if model.get(name)), None)


def list_steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """List the steps of a normalizer, a pre-tokenizer or a decoder, those of sequences among them."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    parts = next((step[name] for name in ("normalizers", "pretokenizers", "decoders") if step.get(name)), ())
    return [each for part in parts for each in list_steps(part)]


def count_ids(library: Library) -> int:
    """Return the number of ids, those in gaps included."""
    return int(max(library.get_vocab().values())) + 1


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD: Python's form of command-line bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def _check_ids(place: str, vocab: dict[str, int]) -> None:
    ids = set(vocab.values())
    if not ids:
        raise ValueError(f"{place} has no tokens; train it on texts first")
    if len(ids) < len(vocab):
        raise ValueError(f"{place} uses an id twice; each must stand for one sub-word")
    # A model has weights for every id, used or not.
    if max(ids) >= 2 * len(ids):
        raise ValueError(
            f"{place} has {max(ids) + 1} ids, but only {len(ids)} sub-words; number them without large gaps"
        )
