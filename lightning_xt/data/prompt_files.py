"""Prompts that `predict` continues."""

import codecs
from pathlib import Path
from typing import TypedDict

from lightning_xt.data.files.json_lines import ENDINGS, decoded, text_of


class Prompt(TypedDict):
    """One prompt: `id` is its line in the file, from 0, by which the outputs of all processes are put in order."""

    id: int
    prompt: str


def read_prompts(file: str | None, *, may_be_empty: bool = False) -> list[Prompt]:
    """The prompts of a UTF-8 text file, one per line; of a .jsonl file the `prompt` of the object on each line.

    Blank lines of a .jsonl file are skipped; those of others are empty prompts.

    Args:
        file: what --data.predict_prompts was given.
        may_be_empty: whether a text can be drawn from nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no file was named, it is not UTF-8, or a line holds no prompt.
    """
    if file is None:
        raise ValueError(
            "predict needs prompts: give a text file with one prompt per line, --data.predict_prompts FILE"
        )
    path = Path(file).expanduser()
    try:
        if not path.is_file():
            raise FileNotFoundError(
                f"--data.predict_prompts {file}: there is no such file; give a text file of prompts"
            )
        content = path.read_bytes()
    except OSError as error:
        if error.errno is None:
            # The sentence above.
            raise
        raise ValueError(f"--data.predict_prompts {file}: {error.strerror}; make it readable") from error
    of_json = path.suffix.lower() in ENDINGS
    prompts = []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines()):
        if of_json and not line.strip():
            continue
        place = f"--data.predict_prompts {file}: line {number + 1}"
        prompt = text_of(line, place, "prompt", chosen=False) if of_json else decoded(line, place)
        if not prompt and not may_be_empty:
            raise ValueError(
                f"{place} is empty, but a byte model continues at least one byte; write a prompt there or remove the "
                "line"
            )
        prompts.append(Prompt(id=number, prompt=prompt))
    if not prompts:
        raise ValueError(f"--data.predict_prompts {file}: the file is empty; write one prompt per line")
    return prompts
