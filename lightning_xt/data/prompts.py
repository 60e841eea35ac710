"""Prompts that `predict` continues."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

JSON_LINES = (".jsonl", ".ndjson")
"""Names of files that hold a JSON object on each line."""


class Prompt(TypedDict):
    """One prompt: `id` is its line in the file, from 0, by which the outputs of all processes are put in order."""

    id: int
    prompt: str


def read_prompts(file: str | None, *, may_be_empty: bool = False) -> list[Prompt]:
    """The prompts of a UTF-8 text file, one per line; of a .jsonl file the `prompt` of the object on each line.

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
    if not path.is_file():
        raise FileNotFoundError(f"--data.predict_prompts {file}: there is no such file; give a text file of prompts")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"--data.predict_prompts {file}: byte {error.start} is not UTF-8; save the file as UTF-8 text"
        ) from error
    except OSError as error:
        raise ValueError(f"--data.predict_prompts {file}: {error.strerror or error}; make it readable") from error
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise ValueError(f"--data.predict_prompts {file}: the file is empty; write one prompt per line")
    read: Callable[[str], str] = _from_json if path.suffix in JSON_LINES else _from_text
    prompts = []
    for number, line in enumerate(lines):
        try:
            prompt = read(line)
            if not prompt and not may_be_empty:
                raise _NoPromptError(
                    "is empty, but a byte model continues at least one byte; write a prompt there or remove the line"
                )
            prompts.append(Prompt(id=number, prompt=prompt))
        except _NoPromptError as error:
            raise ValueError(f"--data.predict_prompts {file}: line {number + 1} {error}") from error
    return prompts


class _NoPromptError(Exception):
    """A line that holds no prompt; the message says why, and what to do."""


def _from_text(line: str) -> str:
    return line


def _from_json(line: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise _NoPromptError(f"is no JSON ({error.msg}, column {error.colno}); write an object there") from error
    except RecursionError as error:
        raise _NoPromptError("is nested too deep; write a flat object there") from error
    if not isinstance(value, dict) or "prompt" not in value:
        found = f"an object with {', '.join(list(value)[:5]) or 'nothing'}" if isinstance(value, dict) else "no object"
        raise _NoPromptError(f'is {found}; each line is an object with a prompt: {{"prompt": "..."}}')
    prompt = value["prompt"]
    if not isinstance(prompt, str):
        raise _NoPromptError(f"has the prompt {json.dumps(prompt)[:40]}; it must be a string")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _NoPromptError(f"has half a character (a lone surrogate) at {error.start}; mend the text") from error
    return prompt
