"""Tokenizers in the files that `transformers` and other readers of `tokenizer.json` take."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SPECIALS, SpecialBytes
from lightning_xt.exchange.folders.json_files import write_json

BYTE_SPECIALS = ("<pad>", "<s>", "</s>")
"""Names of the special ids of SpecialBytes."""
END_OF_TEXT = "<|endoftext|>"
"""Name of the byte that separates documents."""


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length: int, appends_end: bool = False) -> bool:
    """Write `tokenizer.json` and its config, or the file of another library; return False if there is none.

    Args:
        tokenizer: the tokenizer.
        folder: the folder of the model.
        max_length: most tokens of a text.
        appends_end: True if a text ends with the end token, as the sources of an encoder-decoder do.
    """
    library = build_library(tokenizer)
    if library is None:
        if tokenizer.saved_content is not None:
            (folder / tokenizer.saved_name).write_bytes(tokenizer.saved_content)
        return tokenizer.saved_content is not None
    _add_specials_to_texts(library, tokenizer, appends_end)
    library.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        # The spelling of a special token in a text is text.
        "split_special_tokens": True,
        **{f"{name}_token": library.id_to_token(each) for name, each in list_specials(tokenizer).items()},
    }
    write_json(folder / "tokenizer_config.json", config)
    return True


def list_token_names(tokenizer: Tokenizer, size: int) -> list[str]:
    """Return the spelling of each id in the library of the tokenizer, all different; the number if there is none."""
    library = build_library(tokenizer)
    if library is not None:
        named: list[str | None] = [library.id_to_token(token) for token in range(size)]
    elif tokenizer.saved_name == "tokenizer.model" and tokenizer.saved_content is not None:
        named = [*_list_pieces(tokenizer.saved_content)]
    else:
        return [str(token) for token in range(size)]
    named += [None] * (size - len(named))
    spare = "<unused_{}>" if not any((each or "").startswith("<unused_") for each in named) else "<unused_id_{}>"
    return [spare.format(token) if name is None else name for token, name in enumerate(named)]


def _list_pieces(content: bytes) -> list[str]:
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_proto=content)
    return [str(library.id_to_piece(token)) for token in range(library.get_piece_size())]


def list_specials(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the special ids by the names that `transformers` has for them."""
    found = {"bos": tokenizer.start, "eos": tokenizer.end, "pad": tokenizer.pad}
    return {name: each for name, each in found.items() if each is not None}


def build_library(tokenizer: Tokenizer) -> Library | None:
    """Return the tokenizer as one of the `tokenizers` library with the same ids; None if it cannot be one."""
    if isinstance(tokenizer, Bytes):
        return _build_bytes(0, {} if tokenizer.end is None else {tokenizer.end: END_OF_TEXT})
    if isinstance(tokenizer, SpecialBytes):
        return _build_bytes(SPECIALS, dict(enumerate(BYTE_SPECIALS)))
    if tokenizer.trained_state is None or tokenizer.saved_name != "tokenizer.json":
        return None
    return Library.from_str(tokenizer.trained_state)


def _build_bytes(first: int, names: dict[int, str]) -> Library:
    """Build a tokenizer in which byte b is the id first + b, and some ids have names."""
    alphabet = _list_byte_characters()
    vocab = {alphabet[byte]: first + byte for byte in range(256) if first + byte not in names}
    vocab |= {name: token for token, name in names.items()}
    library = Library(models.BPE(vocab=vocab, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(names[token], special=True, normalized=False) for token in sorted(names)])
    return library


def _list_byte_characters() -> list[str]:
    """Return the character by which the library writes each byte."""
    # Printable bytes stand for themselves; the others follow from U+0100 on.
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _add_specials_to_texts(library: Library, tokenizer: Tokenizer, appends_end: bool) -> None:
    """Let the library add the special tokens that this package adds to a prompt or a source."""
    added = tokenizer.end if appends_end else tokenizer.start
    kept: Any = _keep_own_steps(library)
    if added is None:
        library.post_processor = kept
        return
    name = library.id_to_token(added)
    single = f"$A {name}" if appends_end else f"{name} $A"
    step = processors.TemplateProcessing(single=single, special_tokens=[(name, added)])
    library.post_processor = step if kept is None else processors.Sequence([kept, step])


def _keep_own_steps(library: Library) -> Any:
    """Return the post-processor that changes no ids but places in the text; None if there is none."""
    described = json.loads(library.to_str())["post_processor"]
    return processors.ByteLevel(trim_offsets=False) if described and described["type"] == "ByteLevel" else None
