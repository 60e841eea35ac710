"""Prompts of a file or of standard input."""

import codecs
import sys
from pathlib import Path

from lightning_xt.data.files.json_lines import ENDINGS, decode_line, parse_field
from lightning_xt.data.files.reading import read_whole
from lightning_xt.data.prompt_files import Prompt
from lightning_xt.system.messages import UserError


def read(source: str) -> list[Prompt]:
    """A prompt for each line of a file; of JSON lines the `prompt` of each object, blank lines left out.

    Args:
        source: a file, plain or .gz, or - for the lines of standard input.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: there is no prompt in it.
        ValueError: it cannot be read, or a line is no prompt.
    """
    place = f"--prompts {source}"
    path = Path(source)
    of_json = (path.stem if path.suffix.lower() == ".gz" else path.name).lower().endswith(ENDINGS)
    if source == "-":
        content = sys.stdin.buffer.read()
    else:
        content = read_whole("--prompts", source, "a text file, .jsonl, or - for standard input")
    content = content.removeprefix(codecs.BOM_UTF8)
    lines = content.removesuffix(b"\n").split(b"\n")
    prompts = []
    for number, line in enumerate(lines):
        line, at = line.removesuffix(b"\r"), f"{place}: line {number + 1}"
        if of_json and not line.strip():
            continue
        text = parse_field(line, at, "prompt", chosen=False) if of_json else decode_line(line, at)
        prompts.append(Prompt(id=number, prompt=text))
    if not content or not prompts:
        raise UserError(f"{place}: it is empty; write one prompt per line")
    return prompts
