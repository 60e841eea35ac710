"""Labels of tokens in figures."""

from collections.abc import Iterable

from lightning_xt.data.tokenizers.base import Tokenizer

VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "→", "\r": "␍"})


def label_tokens(tokenizer: Tokenizer, ids: Iterable[int], without_text: str = "·") -> list[str]:
    """Return one visible label per id.

    A space is ␣ and a line break ↵. A character of several tokens stands at its last one. Special ids have their names
    in brackets.

    Args:
        tokenizer: decodes the ids.
        ids: tokens of a sequence.
        without_text: label of ids without text, such as the first bytes of a character.
    """
    names = {tokenizer.pad: "⟨pad⟩", tokenizer.start: "⟨start⟩", tokenizer.end: "⟨end⟩"}
    stream = tokenizer.stream()
    labels: list[str] = []
    for token in ids:
        special = names.get(token)
        # A special id ends the character before it.
        rest = stream.finish() if special is not None else ""
        if rest:
            labels[-1] += _make_visible(rest)
            stream = tokenizer.stream()
        labels.append(_make_visible(stream.push(token)) if special is None else special)
    if labels:
        labels[-1] += _make_visible(stream.finish())
    return [label or without_text for label in labels]


def label_vocabulary(tokenizer: Tokenizer, size: int) -> list[str]:
    """Return one visible label per id of a vocabulary; ids that are not characters by themselves have their number."""
    return [_label_alone(tokenizer, token) for token in range(size)]


def _label_alone(tokenizer: Tokenizer, token: int) -> str:
    (label,) = label_tokens(tokenizer, [token])
    return f"{label} {token}" if label in ("·", "\ufffd") else label


def _make_visible(text: str) -> str:
    visible = text.translate(VISIBLE)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in visible)
