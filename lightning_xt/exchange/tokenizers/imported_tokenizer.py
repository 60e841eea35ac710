"""Tokenizers of folders that `transformers` has saved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.library_files import count_ids, named_encoding_errors, read_library
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.sentence_piece import SentencePiece
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.exchange.folders.folder_files import read_json
from lightning_xt.exchange.tokenizers.tokenizer_files import list_token_names
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError

FILES = (("tokenizer.json", TokenizerFile), ("tokenizer.model", SentencePiece), ("spiece.model", SentencePiece))
"""Files of tokenizers, the first that there is counts."""
UNREAD = ("source.spm", "target.spm", "vocab.json", "merges.txt")
"""Files of tokenizers that are not read, as those of OPUS-MT."""
MOST_PADDING = 1024
"""Most ids that round a table up; a tenth of a larger one."""
IDS = {"pad": "pad_token_id", "start": "decoder_start_token_id", "end": "eos_token_id"}
"""Names of the special ids in config.json, by use."""


@dataclass
class ImportedTokenizer:
    """Tokenizer of an imported model.

    Args:
        tokenizer: the tokenizer.
        remarks: sentences for the user.
    """

    tokenizer: Tokenizer
    remarks: list[str] = field(default_factory=list)

    @property
    def ids(self) -> dict[str, int | None]:
        """Special ids by use."""
        return {"pad": self.tokenizer.pad, "start": self.tokenizer.start, "end": self.tokenizer.end}


def read_tokenizer(folder: Path, config: Mapping[str, Any], size: int) -> ImportedTokenizer:
    """Read the tokenizer of a folder: tokenizer.json, else tokenizer.model, else ids as numbers.

    Args:
        folder: the folder.
        config: its config.json.
        size: number of ids of the weights.

    Raises:
        UserError: the tokenizer cannot be read, or is not that of the weights.
    """
    remarks: list[str] = []
    ids = _read_ids(folder, config, size, remarks)
    name, kind = next(((name, kind) for name, kind in FILES if (folder / name).is_file()), (None, None))
    if name is None or kind is None:
        unread = [each for each in UNREAD if (folder / each).is_file()]
        others = f", and {', '.join(unread)} are not read" if unread else ""
        remarks.append(f"{folder} has no tokenizer.json{others}, so texts are ids as numbers, such as 5 3 17")
        return ImportedTokenizer(Numbers(size, **_drop_repeated(ids)), remarks)
    try:
        tokenizer = _read_file(folder / name, kind, ids, size, remarks)
    except ValueError as error:
        raise UserError(f"{folder / name}: {error}") from error
    if _has_chat_template(folder):
        remarks.append(f"{folder} has a chat template, which is not read; special tokens that it spells are text here")
    return ImportedTokenizer(tokenizer, remarks)


def _read_file(
    file: Path, kind: type[TokenizerFile | SentencePiece], ids: dict[str, int | None], size: int, remarks: list[str]
) -> Tokenizer:
    """Read a file as the tokenizer of weights with `size` ids; ValueError if it cannot be."""
    content = file.read_bytes()
    if kind is TokenizerFile:
        library = _read_library(file, content)
        count, names = (
            count_ids(library),
            {each: library.id_to_token(each) for each in ids.values() if each is not None},
        )
        if ids["start"] is None and (start := _find_prepended(file.parent, library)) is not None:
            ids["start"], names[start] = start, library.id_to_token(start)
    else:
        own = kind(str(file))
        count = own.vocab_size
        names = dict(enumerate(list_token_names(own, count)))
    _check_count(file, count, size, ids, remarks)
    chosen = _name_ids(file, _drop_repeated(ids), names, remarks)
    options: dict[str, Any] = {"file": str(file), **chosen}
    if kind is TokenizerFile:
        # A model of SentencePiece names the others itself.
        chosen = {use: chosen.get(use, "") for use in IDS}
        options = {"model": _mark_special(file, content, chosen, remarks).decode("utf-8"), **chosen}
    # The tables of many models are padded to a round number.
    return kind(**options, padded_size=size if count < size else None)


def _read_library(file: Path, content: bytes) -> Library:
    try:
        return read_library(str(file), content)[1]
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_count(file: Path, count: int, size: int, ids: Mapping[str, int | None], remarks: list[str]) -> None:
    """Refuse the tokenizer of another model by a UserError; add a remark on ids that only the weights have."""
    found = f"{file} has {count} ids, but the weights have {size}"
    if count > size or size - count > max(MOST_PADDING, size // 10):
        raise UserError(
            f"{found}: it is the tokenizer of another model; copy that of this one, or remove the file to write texts "
            "as ids"
        )
    if outside := [use for use in ("start", "end") if (ids[use] or 0) >= count]:
        raise UserError(
            f"{found}, and {ids[outside[0]]} is the {outside[0]} token of the config: it is the tokenizer of another "
            "model; copy that of this one"
        )
    if count < size:
        remarks.append(f"{found}; the others stand for nothing")


def _name_ids(
    file: Path, ids: Mapping[str, int | None], names: Mapping[int, str | None], remarks: list[str]
) -> dict[str, str]:
    """Return the names of special ids by use, and add a remark on each that the tokenizer lacks."""
    found = {}
    for use, token in ids.items():
        if token is None:
            continue
        if (name := names.get(token)) is None:
            remarks.append(f"{file} has no token {token}, the {use} token of the config; there is none here")
        elif len(name) == 1:
            # Texts contain it. Configs often keep the ids of their class, which are those of other tokenizers.
            remarks.append(
                f"{IDS[use]} is {token}, which {file} has as the ordinary token {name!r}; it is not used. Correct "
                "it in generation_config.json and config.json, and import again, if texts have another"
            )
        else:
            found[use] = name
    return found


def _mark_special(file: Path, content: bytes, names: Mapping[str, str], remarks: list[str]) -> bytes:
    """Mark the tokens that the config names by use as special ones, which no text contains; add remarks."""
    described = json.loads(content)
    known = described.setdefault("added_tokens", [])
    changed = False
    for use, name in names.items():
        found = next((each for each in known if each["content"] == name), None)
        if not name or (found is not None and found["special"]):
            continue
        if found is None:
            found = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            number = Library.from_str(content.decode("utf-8")).token_to_id(name)
            known.append(found | {"id": number, "content": name, "special": True})
        else:
            found["special"] = True
        changed = True
        remarks.append(f"{name}, the {use} token, is an ordinary one in {file}; it is special in the copy of the run")
    if not changed:
        return content
    known.sort(key=lambda each: each["id"])
    return to_json(described).encode("utf-8")


def _read_ids(folder: Path, config: Mapping[str, Any], size: int, remarks: list[str]) -> dict[str, int | None]:
    """Return the special ids by use, as generation knows them; add a remark on each that is not used here."""
    known = {**config, **_read_optional(folder / "generation_config.json")}
    found: dict[str, int | None] = {}
    for use, name in IDS.items():
        value = known.get(name)
        if isinstance(value, list) and value:
            if len(value) > 1:
                remarks.append(f"{name} of {folder} is {value}; only the first is the {use} token here")
            value = value[0]
        found[use] = None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size:
            found[use] = value
        elif value is not None:
            remarks.append(f"{name} of {folder} is {value!r}, which is not an id from 0 to {size - 1}; it is not used")
    return found


def _drop_repeated(ids: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return special ids without a padding that is the end, of which a loss is taken."""
    return {**ids, "pad": None if ids["pad"] == ids["end"] else ids["pad"]}


def _find_prepended(folder: Path, library: Library) -> int | None:
    """Return the id that the tokenizer puts before every text; None if there is none."""
    with named_encoding_errors("it"):
        with_specials, without = (library.encode("a", add_special_tokens=each).ids for each in (True, False))
    if with_specials and with_specials[1:] == without:
        return int(with_specials[0])
    settings = _read_optional(folder / "tokenizer_config.json")
    name = settings.get("bos_token") if settings.get("add_bos_token") else None
    name = name.get("content") if isinstance(name, dict) else name
    return library.token_to_id(name) if isinstance(name, str) else None


def _has_chat_template(folder: Path) -> bool:
    settings = _read_optional(folder / "tokenizer_config.json")
    return bool(settings.get("chat_template")) or (folder / "chat_template.jinja").is_file()


def _read_optional(file: Path) -> dict[str, Any]:
    """Read a JSON mapping; empty if there is no such file."""
    return read_json(file) if file.is_file() else {}
