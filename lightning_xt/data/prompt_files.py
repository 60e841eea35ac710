"""Reader of prompt files."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict

from lightning_xt.data.files.json_lines import decode_line, is_json_lines, parse_field, split_lines
from lightning_xt.data.files.reading import read_whole


class Prompt(TypedDict):
    """One prompt: `id` is its line in the file, from 0, by which the outputs of all processes are sorted."""

    id: int
    prompt: str
    repeat: NotRequired[int]
    """Number of equal prompts before it, by which their random numbers differ; none = 0."""


def number_prompts(texts: Iterable[str]) -> list[Prompt]:
    """Return texts as prompts."""
    prompts = [Prompt(id=number, prompt=text) for number, text in enumerate(texts)]
    count_repeats(prompts, "prompt")
    return prompts


def batch_prompts(prompts: Sequence[Prompt], size: int, rank: int, world: int) -> list[list[Prompt]]:
    """Return the prompts of a process, rank, rank + world, ..., in lists of at most `size`.

    A process without prompts gets one empty list, because the processes wait for each other at the end.
    """
    own = list(prompts[rank::world])
    return [own[first : first + size] for first in range(0, len(own), size)] or [[]]


def count_repeats(items: Iterable[Any], key: str) -> None:
    """Set the `repeat` of prompts or sources whose text, at a key, has come before."""
    seen: Counter[str | None] = Counter()
    for each in items:
        if repeat := seen[each[key]]:
            each["repeat"] = repeat
        seen[each[key]] += 1


def read_prompts(
    file: str | None,
    option: str = "--data.predict_prompts",
    *,
    may_be_empty: bool = False,
    standard_input: bool = False,
) -> list[Prompt]:
    """Read the prompts of a UTF-8 text file, one per line; of a .jsonl file, the `prompt` of each line's object.

    A line ends in a newline, or a carriage return and a newline, as in files of pairs.
    Blank lines of a .jsonl file are skipped; blank lines of a text file are empty prompts.

    Args:
        file: the option's value, plain or .gz.
        option: the option that names the file.
        may_be_empty: whether the model can generate from an empty prompt.
        standard_input: whether - names standard input.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: no file was named, it cannot be read, it is not UTF-8, or a line has no prompt.
    """
    if file is None:
        raise ValueError(f"predict needs prompts: give a text file with one prompt per line, {option} FILE")
    if standard_input and file == "-":
        content = sys.stdin.buffer.read()
    else:
        content = read_whole(option, file, f"a text file of prompts{', or - for standard input' * standard_input}")
    of_json, prompts = is_json_lines(file), []
    for number, line in enumerate(split_lines(content)):
        if of_json and not line.strip():
            continue
        place = f"{option} {file}: line {number + 1}"
        prompt = parse_field(line, place, "prompt", chosen=False) if of_json else decode_line(line, place)
        if not prompt and not may_be_empty:
            raise ValueError(
                f"{place} is empty, but a model without a start token continues at least one token; write a prompt "
                "there or remove the line"
            )
        prompts.append(Prompt(id=number, prompt=prompt))
    if not prompts:
        raise ValueError(f"{option} {file}: the file is empty; write one prompt per line")
    count_repeats(prompts, "prompt")
    return prompts
