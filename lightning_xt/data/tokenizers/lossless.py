"""Proof that a `tokenizer.json` decodes every text unchanged."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.library_files import list_steps

SPLITTERS = ("Digits", "FixedLength", "Punctuation", "Split")
"""Pre-tokenizers that only cut a text, unless they remove the pieces where they cut (UnicodeScripts loses a space)."""


def find_loss(described: dict[str, Any], library: Library, specials: Sequence[str]) -> str | None:
    """Describe a part of a byte-level BPE that may change a text or draw random numbers; None if there is none.

    Args:
        described: the content of the file.
        library: its tokenizer.
        specials: the special tokens, which no text may contain.
    """
    losses = chain(_find_step_losses(described), _find_model_losses(described["model"], specials))
    return next(chain(losses, _find_token_losses(described, library)), None)


def _find_step_losses(described: dict[str, Any]) -> Sequence[str]:
    steps = [*list_steps(described.get("normalizer")), *list_steps(described.get("pre_tokenizer"))]
    removing = [each["type"] for each in steps if each.get("behavior") == "Removed"]
    unknown = [each["type"] for each in steps if each["type"] not in (*SPLITTERS, "ByteLevel")]
    losses = [f"its {kind} changes or removes text" for kind in unknown + removing]
    in_bytes = [each for each in steps if each["type"] == "ByteLevel"]
    if len(in_bytes) != 1:
        losses.append(f"it has {len(in_bytes)} steps ByteLevel instead of 1")
    if any(each.get("add_prefix_space") for each in in_bytes):
        losses.append("its ByteLevel adds a space")
    return losses


def _find_model_losses(model: dict[str, Any], specials: Sequence[str]) -> Sequence[str]:
    merged = {"".join(each.split(" ") if isinstance(each, str) else each) for each in model["merges"]}
    return [f"its merges make text a special token, {each}" for each in specials if each in merged]


def _find_token_losses(described: dict[str, Any], library: Library) -> Sequence[str]:
    """Describe added tokens that are not decoded unchanged; special ones are never matched in a text."""
    added = [each for each in described.get("added_tokens") or () if not each["special"]]
    return [
        f"its added token {each['content']!r:.40} is not decoded unchanged"
        for each in added
        if each["lstrip"] or each["rstrip"] or library.decoder.decode([each["content"]]) != each["content"]
    ]
