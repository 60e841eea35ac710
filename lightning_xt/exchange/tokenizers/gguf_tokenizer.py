"""Tokenizers in gguf files: byte-level byte-pair encodings, and bytes as such an encoding without merges."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.tokenizers.exported_tokenizers import Encoder
from lightning_xt.exchange.tokenizers.tokenizer_files import build_library, list_specials

SPLITS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+",
}
"""Patterns that split a text before merging, by the names that llama.cpp has for them."""
PLACEHOLDER = "\u3040 \u3097"
"""Merge of two characters that stand for no byte; the format has no empty list of merges."""


@dataclass(frozen=True)
class BytePairs:
    """Byte-pair encoding.

    Args:
        tokens: spelling of each id; "" for an id that stands for nothing.
        special: ids of special tokens.
        merges: pairs in the order of their rank.
        split: name of the pattern that splits texts.
    """

    tokens: list[str]
    special: frozenset[int]
    merges: list[str]
    split: str


def read_byte_pairs(model: ExportedModel) -> BytePairs:
    """Return the tokenizer of a model; MisfitError if llama.cpp has none that reads texts the same way."""
    tokenizer = model.target_tokenizer
    library = build_library(tokenizer)
    described: dict[str, Any] = {} if library is None else json.loads(library.to_str())
    kind, split = described.get("model") or {}, None
    if kind.get("type") == "BPE" and (described.get("decoder") or {}).get("type") == "ByteLevel":
        split = None if described.get("normalizer") else _find_split(described["pre_tokenizer"], kind["merges"])
    if split is None:
        raise MisfitError(
            f"{model.name} has the tokenizer {type(tokenizer).__name__}, but gguf is written for bytes and byte-level "
            "BPE with the splits of GPT-2, Llama 3 or Qwen only; train with --data.tokenizer BPE, or use --format hf"
        )
    spelled = {token: text for text, token in library.get_vocab(with_added_tokens=True).items()}  # type: ignore[union-attr]
    merges = [each if isinstance(each, str) else " ".join(each) for each in kind["merges"]]
    special = frozenset(each["id"] for each in described["added_tokens"] if each["special"])
    return BytePairs([spelled.get(token, "") for token in range(model.vocab_size)], special, merges, split)


def write_byte_pairs(writer: Any, pairs: BytePairs, model: ExportedModel) -> None:
    """Write a tokenizer to a file."""
    import gguf

    types = [
        gguf.TokenType.CONTROL if token in pairs.special else gguf.TokenType.NORMAL if text else gguf.TokenType.UNUSED
        for token, text in enumerate(pairs.tokens)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pairs.split)
    writer.add_token_list([text or f"[PAD{token}]" for token, text in enumerate(pairs.tokens)])
    writer.add_token_types(types)
    writer.add_token_merges(pairs.merges or [PLACEHOLDER])
    ids = list_specials(model.target_tokenizer)
    # Readers take id 11 for an end token that a file does not name. No UTF-8 text has the last byte.
    ids.setdefault("eos", min(pairs.special, default=255))
    for name, token in ids.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token("bos" in ids)
    writer.add_add_eos_token(False)


def open_byte_pairs(file: Path) -> tuple[str, Encoder]:
    """Build the tokenizer of a file as llama.cpp does, from its tokens, merges and split."""
    import gguf

    fields = {name: each.contents() for name, each in gguf.GGUFReader(file).fields.items()}
    start = "tokenizer.ggml."
    kinds, split = fields[f"{start}token_type"], fields[f"{start}pre"]
    # The spelling of a special token in a text is text.
    named = enumerate(zip(fields[f"{start}tokens"], kinds, strict=True))
    vocab = {text: token for token, (text, kind) in named if kind == gguf.TokenType.NORMAL}
    merges = [pair for each in fields[f"{start}merges"] if {*(pair := tuple(each.split(" ")))} <= vocab.keys()]
    library = Library(models.BPE(vocab=vocab, merges=merges, ignore_merges=split == "llama-bpe"))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLITS[split]), "isolated"), to_bytes])
    prefix = [fields[f"{start}bos_token_id"]] if fields[f"{start}add_bos_token"] else []
    return f"gguf {version('gguf')}", lambda text: [*prefix, *library.encode(text).ids]


def _find_split(described: Any, merges: list[Any]) -> str | None:
    """Return the name of the pattern of a pre-tokenizer; None if there is none."""
    steps = described.get("pretokenizers", [described]) if described else []
    if not steps or steps[-1]["type"] != "ByteLevel" or any(each.get("add_prefix_space") for each in steps):
        return None
    if not merges or (len(steps) == 1 and steps[0].get("use_regex", True)):
        # Without merges every split gives the same bytes.
        return "gpt-2"
    patterns = [(each.get("pattern") or {}).get("Regex") for each in steps[:-1]]
    return next((name for name, pattern in SPLITS.items() if patterns == [pattern]), None)
