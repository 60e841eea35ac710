"""Tokenizers of folders that `transformers` has saved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.sentence_piece import SentencePiece
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.exchange.tokenizer_files import list_token_names
from lightning_xt.system.messages import UserError

FILES = (("tokenizer.json", TokenizerFile), ("tokenizer.model", SentencePiece), ("spiece.model", SentencePiece))
"""Files of tokenizers, the first that there is counts."""


@dataclass
class ImportedTokenizer:
    """Tokenizer of an imported model.

    Args:
        tokenizer: the tokenizer.
        config: its config, for the data of the run, with the name of its file in that run.
        files: contents of files for the folder of the run, by name.
        remarks: sentences for the user.
    """

    tokenizer: Tokenizer
    config: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
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
        UserError: the tokenizer cannot be read, or has more ids than the weights.
    """
    ids = _read_ids(folder, config)
    for name, kind in FILES:
        if (folder / name).is_file():
            return _read_file(folder / name, kind, ids, size)
    special = {use: each if each is not None and 0 <= each < size else None for use, each in ids.items()}
    options: dict[str, Any] = {"vocab_size": size, **special}
    remark = f"{folder} has no tokenizer.json, so texts are ids as numbers, such as 5 3 17"
    return ImportedTokenizer(Numbers(**options), {"class_path": "Numbers", "init_args": options}, {}, [remark])


def _read_file(
    file: Path, kind: type[TokenizerFile | SentencePiece], ids: Mapping[str, int | None], size: int
) -> ImportedTokenizer:
    content, remarks = file.read_bytes(), list[str]()
    try:
        names: dict[str, Any] = _name_ids(file, kind, ids)
        if kind is TokenizerFile:
            content, remarks = _mark_special(file, content, names)
            given: dict[str, Any] = {"model": content.decode("utf-8")}
        else:
            given = {"file": str(file)}
        tokenizer = kind(**given, **names)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    if tokenizer.vocab_size > size:
        raise UserError(
            f"{file} has {tokenizer.vocab_size} ids, but the weights have {size}: it is the tokenizer of another "
            "model; copy that of this one"
        )
    options = dict(names)
    if tokenizer.vocab_size < size:
        # The tables of many models are padded to a round number.
        tokenizer, options["padded_size"] = kind(**given, **names, padded_size=size), size
    made = {"class_path": kind.__name__, "init_args": {"file": file.name, **options}}
    return ImportedTokenizer(tokenizer, made, {file.name: content}, remarks)


def _mark_special(file: Path, content: bytes, names: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """Mark the tokens that the config names by use as special ones, which no text contains; return remarks too."""
    described = json.loads(content)
    known = described.setdefault("added_tokens", [])
    remarks = []
    for use, name in names.items():
        found = next((each for each in known if each["content"] == name), None)
        if not name or (found is not None and found["special"]):
            continue
        if found is None:
            found = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            known.append(
                found
                | {"id": Library.from_str(content.decode("utf-8")).token_to_id(name), "content": name, "special": True}
            )
        else:
            found["special"] = True
        remarks.append(f"{name}, the {use} token, is an ordinary one in {file}; it is special in the copy of the run")
    if not remarks:
        return content, remarks
    known.sort(key=lambda each: each["id"])
    return json.dumps(described, ensure_ascii=False).encode("utf-8"), remarks


def _read_ids(folder: Path, config: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the special ids by use, as generation knows them."""
    known = {**config, **_read_optional(folder / "generation_config.json")}
    found: dict[str, int | None] = {}
    for use, name in (("pad", "pad_token_id"), ("start", "decoder_start_token_id"), ("end", "eos_token_id")):
        value = known.get(name)
        # Some models have several end tokens.
        value = value[0] if isinstance(value, list) and value else value
        found[use] = value if isinstance(value, int) and not isinstance(value, bool) else None
    if found["start"] is None:
        found["start"] = _find_prepended(folder)
    if found["pad"] == found["end"]:
        found["pad"] = None
    return found


def _find_prepended(folder: Path) -> int | None:
    """Return the id that the tokenizer puts before every text; None if there is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        library = Library.from_file(str(file))
    except Exception as error:  # the library has no exception class
        raise UserError(f"{file} is not a tokenizer.json of the tokenizers library ({error}); copy it again") from error
    with_specials, without = (library.encode("a", add_special_tokens=each).ids for each in (True, False))
    if with_specials[1:] == without:
        return int(with_specials[0])
    settings = _read_optional(folder / "tokenizer_config.json")
    name = settings.get("bos_token") if settings.get("add_bos_token") else None
    name = name.get("content") if isinstance(name, dict) else name
    return library.token_to_id(name) if isinstance(name, str) else None


def _read_optional(file: Path) -> dict[str, Any]:
    """Read a JSON mapping; empty if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _name_ids(file: Path, kind: type[Tokenizer], ids: Mapping[str, int | None]) -> dict[str, str]:
    """Return the names of special ids; an empty name for one that there is not."""
    if kind is not TokenizerFile:
        own = kind(str(file))  # type: ignore[call-arg]
        pieces = list_token_names(own, own.vocab_size)
        # A model of SentencePiece names the others itself.
        return {use: pieces[each] for use, each in ids.items() if each is not None and each < len(pieces)}
    library = Library.from_file(str(file))
    return {use: "" if each is None else library.id_to_token(each) or "" for use, each in ids.items()}
