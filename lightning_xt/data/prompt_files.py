"""Reader of prompt files."""

import codecs
from pathlib import Path
from typing import TypedDict

from lightning_xt.data.files.json_lines import ENDINGS, decode_line, parse_field


class Prompt(TypedDict):
    """One prompt: `id` is its line in the file, from 0, by which the outputs of all processes are sorted."""

    id: int
    prompt: str


def read_prompts(file: str | None, *, may_be_empty: bool = False) -> list[Prompt]:
    """Read the prompts of a UTF-8 text file, one per line; of a .jsonl file, the `prompt` of each line's object.

    Blank lines of a .jsonl file are skipped; blank lines of a text file are empty prompts.

    Args:
        file: the value of --data.predict_prompts.
        may_be_empty: whether the model can generate from an empty prompt.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no file was named, it is not UTF-8, or a line has no prompt.
    """
    if file is None:
        raise ValueError(
            "predict needs prompts: give a text file with one prompt per line, --data.predict_prompts FILE"
        )
    path = Path(file).expanduser()
    try:
        if not path.is_file():
            raise FileNotFoundError(f"--data.predict_prompts {file}: no such file; give a text file of prompts")
        content = path.read_bytes()
    except OSError as error:
        if error.errno is None:
            # The message above.
            raise
        raise ValueError(f"--data.predict_prompts {file}: {error.strerror}; make it readable") from error
    of_json = path.suffix.lower() in ENDINGS
    prompts = []
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines()):
        if of_json and not line.strip():
            continue
        place = f"--data.predict_prompts {file}: line {number + 1}"
        prompt = parse_field(line, place, "prompt", chosen=False) if of_json else decode_line(line, place)
        if not prompt and not may_be_empty:
            raise ValueError(
                f"{place} is empty, but a byte model continues at least one byte; write a prompt there or remove the "
                "line"
            )
        prompts.append(Prompt(id=number, prompt=prompt))
    if not prompts:
        raise ValueError(f"--data.predict_prompts {file}: the file is empty; write one prompt per line")
    return prompts
