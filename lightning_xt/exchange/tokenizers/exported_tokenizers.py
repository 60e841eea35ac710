"""Tokenizers in exported folders: their places, and the comparison of their ids."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer as Library

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.tokenizers.tokenizer_files import build_library, list_specials, write_tokenizer

PROBE = " Grüße,  naïve 東京 🙂\n\tdef f(x):\r\n  return x[0] "
"""Text whose ids are compared; the spelling of each special token follows."""
Encoder = Callable[[str], Sequence[int]]


class TokenizerPlace(NamedTuple):
    """Tokenizer, and its place in a folder.

    Args:
        use: the texts that it encodes: `source`, `target` or `text`.
        tokenizer: the tokenizer.
        folder: its folder, within that of the model.
        appends_end: True if a text ends with the end token, as the sources of an encoder-decoder do.
    """

    use: str
    tokenizer: Tokenizer
    folder: str
    appends_end: bool

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with the special ones that the model reads."""
        if not self.appends_end:
            return self.tokenizer.encode_prompt(text)
        end = self.tokenizer.end
        return [*self.tokenizer.encode(text), *([] if end is None else [end])]


def place_tokenizers(model: ExportedModel, *, apart: bool = False) -> list[TokenizerPlace]:
    """List the tokenizers of a folder: one, or that of sources, which users encode, and another in `target`.

    Args:
        model: the model.
        apart: True if an encoder-decoder has a folder for each, even if they are the same.
    """
    found = [TokenizerPlace(use, each, use, use == "source") for use, each in model.tokenizers.items()]
    if apart and len(found) > 1:
        return found
    return [found[0]._replace(folder="."), *([] if model.has_one_tokenizer else found[1:])]


def write_tokenizers(model: ExportedModel, folder: Path, *, apart: bool = False) -> list[TokenizerPlace]:
    """Write the tokenizers of a folder, and return their places."""
    places = place_tokenizers(model, apart=apart)
    for each in places:
        (folder / each.folder).mkdir(exist_ok=True)
        write_tokenizer(each.tokenizer, folder / each.folder, max_length=model.max_length, appends_end=each.appends_end)
    return places


def compare_tokenizers(
    model: ExportedModel, folder: Path, open_reader: Callable[[Path], tuple[str, Encoder]], *, apart: bool = False
) -> list[str]:
    """Compare the ids of a text with those of each tokenizer of a folder; return a sentence on each.

    Args:
        model: the model.
        folder: its folder.
        open_reader: returns the name of the library that reads the tokenizer of a folder, and its encoder.
        apart: as it was written.

    Raises:
        ValueError: the ids differ.
    """
    found = []
    for each in place_tokenizers(model, apart=apart):
        name = "tokenizer" if each.use == "text" or model.has_one_tokenizer else f"{each.use} tokenizer"
        if (library := build_library(each.tokenizer)) is None:
            found.append(_describe_missing(name, each))
            continue
        reader, encode = open_reader(folder / each.folder)
        names = [str(library.id_to_token(token)) for token in list_specials(each.tokenizer).values()]
        for text in (PROBE, " ".join(["a", *names, "b"])):
            if list(encode(text)) != each.encode(text):
                raise ValueError(
                    f"the export of {model.name} is wrong: {reader} encodes {text!r} with other ids than its {name}; "
                    "nothing was written"
                )
        found.append(f"{name}: {reader} gives the same ids")
    return found


def _describe_missing(name: str, place: TokenizerPlace) -> str:
    """Describe a tokenizer that is not a tokenizer.json."""
    if place.tokenizer.saved_content is None:
        return f"no {name}: {type(place.tokenizer).__name__} has no file for other libraries, so give ids there"
    file = Path(place.folder, place.tokenizer.saved_name)
    library = type(place.tokenizer).__name__
    return (
        f"{name}: {file} is not checked; encode with the library of {library}, since others assume other special tokens"
    )


def open_library(folder: Path) -> tuple[str, Encoder]:
    """Open the tokenizer of a folder with the library tokenizers."""
    import tokenizers

    library = Library.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    return f"tokenizers {tokenizers.__version__}", lambda text: library.encode(text).ids


def open_with_transformers(folder: Path) -> tuple[str, Encoder]:
    """Open the tokenizer of a folder with transformers, or with tokenizers if that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        return open_library(folder)
    import transformers

    found = transformers.AutoTokenizer.from_pretrained(folder)
    # It may be longer than the model reads, which would be a warning.
    found.model_max_length = 10**9
    return f"transformers {transformers.__version__}", lambda text: found(text).input_ids
