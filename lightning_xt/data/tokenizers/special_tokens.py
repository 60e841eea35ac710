"""Special tokens of files that others wrote: their usual names and their use."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_xt.data.tokenizers.base import Specials

USUAL = {
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<PAD>"),
    "start": ("<s>", "<bos>", "<start>", "[CLS]", "<|begin_of_text|>", "<|startoftext|>", "[BOS]", "<BOS>"),
    "end": ("</s>", "<eos>", "<end>", "<|endoftext|>", "<|end_of_text|>", "[SEP]", "[EOS]", "<EOS>"),
}
"""Usual names by use, the first that a file has counts."""
SHOWN = 8
"""Names in a message."""


class SpecialIds(NamedTuple):
    """Ids by use; None for one that there is not."""

    pad: int | None = None
    start: int | None = None
    end: int | None = None


def find_ids(place: str, known: Mapping[str, int], names: Mapping[str, str | None], specials: Specials) -> SpecialIds:
    """Find the special ids in use, by their names or by the usual ones.

    Args:
        place: name of the file in messages.
        known: the special tokens of the file that no text contains.
        names: the tokens that the options pad, start and end name; None for a usual one, an empty text for no token.
        specials: the use.

    Raises:
        ValueError: a named token is not a special one, the padding is also another, or documents have no end.
    """
    found: dict[str, int | None] = {}
    for use, name in names.items():
        if name == "":
            found[use] = None
            continue
        if name is not None and name not in known:
            raise ValueError(
                f"--data.tokenizer.{use} {name} is not a special token of {place}, which has {_show(known)}; name one"
            )
        usual = next((each for each in USUAL[use] if each in known), None)
        chosen = usual if name is None else name
        found[use] = None if chosen is None else known[chosen]
    if specials == "none":
        return SpecialIds()
    if specials == "documents":
        if found["end"] is None:
            raise ValueError(
                f"{place} has no special token of a usual name that could separate documents, but {_show(known)}; name "
                "one with --data.tokenizer.end, or omit --data.documents"
            )
        return SpecialIds(None, found["end"], found["end"])
    # As in T5 and BART, where the end token of one text opens the next.
    opens = found["end"] if found["start"] is None and names["start"] is None else found["start"]
    made = SpecialIds(found["pad"], opens, found["end"])
    # In T5, padding opens a target; the loss is not taken of the first token.
    opened_by_padding = names["pad"] is not None and names["pad"] == names["start"]
    if made.pad is not None and made.pad in (made.end, None if opened_by_padding else made.start):
        token = next(name for name, number in known.items() if number == made.pad)
        other = "end" if found["end"] == made.pad else "start"
        raise ValueError(
            f"{token} of {place} would be both the pad and the {other} token, but the loss skips padding; name another "
            f"with --data.tokenizer.pad or --data.tokenizer.{other}"
        )
    return made


def _show(known: Mapping[str, int]) -> str:
    names: Sequence[str] = list(known)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
