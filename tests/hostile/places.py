"""Paths without a file, or with something that is not a file."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hostile.case import Case, Content

LONG = "n" * 300
"""Name with more characters than a file's may have."""


def cases() -> Iterator[Case]:
    """Yield all cases of places."""
    for option, command in _list_readers().items():
        for name, path, content, says in _places():
            files = {} if content is None else {path: content}
            yield Case(
                name=f"place: {option} {name}",
                command=[path if part == "PATH" else part for part in command],
                says=[*_show(path), says],
                files=files,
            )
    yield Case(
        name="place: a pattern that matches nothing",
        command=["fit", "-c", "tiny.yaml", "--data.path", "no/**/*.txt"],
        says=["--data.path no/**/*.txt", "no file matches this pattern"],
    )
    yield Case(
        name="place: a folder without files",
        command=["fit", "-c", "tiny.yaml", "--data.path", "hollow"],
        says=["--data.path hollow", "the folder has no files"],
        files={"hollow/.hidden": b"a"},
    )
    yield Case(
        name="place: a link in a folder that leads nowhere",
        command=["fit", "-c", "tiny.yaml", "--data.path", "linked"],
        says=["--data.path linked", "is broken"],
        files={"linked/a.txt": b"a", "linked/b.txt": _make_link("nowhere")},
    )
    for name, output, says in (
        ("a folder", "runs", "runs"),
        ("no such folder", "no/out.jsonl", "there is no"),
        ("a file as folder", "corpus.txt/out.jsonl", "corpus.txt"),
        ("nothing", "", "--output"),
        ("a long name", LONG, "name"),
    ):
        for command in (["generate", "runs/tiny", "--prompt", "a", "--jsonl"], _predict_options()):
            yield Case(
                name=f"place: {command[0]} --output {name}",
                command=[*command, "--output", output],
                says=["--output", says],
            )
    for name, path, says in (
        ("a file", "corpus.txt", "cannot be made"),
        ("below a file", "corpus.txt/runs", "cannot be made"),
        ("a long name", LONG, "cannot be made"),
    ):
        yield Case(
            name=f"place: runs in {name}",
            command=["fit", "-c", "tiny.yaml", "--trainer.default_root_dir", path],
            says=[path, says],
        )
    for name in ("../elsewhere", "/tmp/elsewhere", "a/b", "..", ".", "", LONG, "a\nb"):
        yield Case(
            name=f"place: a run called {name[:20]!r}",
            command=["fit", "-c", "tiny.yaml", "--name", name],
            says=["--name"],
        )


def _list_readers() -> dict[str, list[str]]:
    """Return commands that read a file, by option."""
    return {
        "--data.path": ["fit", "-c", "tiny.yaml", "--data.path", "PATH"],
        "--prompts": ["generate", "runs/tiny", "--prompts", "PATH"],
        "-c": ["fit", "-c", "PATH"],
        "RUN": ["info", "PATH"],
        "--ckpt_path": ["validate", "-c", "tiny.yaml", "--ckpt_path", "PATH"],
        "--data.tokenizer.file": ["fit", "-c", "pairs.yaml", "--data.tokenizer.file", "PATH"],
    }


def _predict_options() -> list[str]:
    run = ["predict", "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best"]
    return [*run, "--data.predict_prompts", "prompts.txt"]


def _show(path: str) -> list[str]:
    """Return the part of a path that a sentence shows; other characters are escaped."""
    return [path.partition("\n")[0]] if path.isascii() else ["\\udcff.x"]


def _places() -> Iterator[tuple[str, str, Content | None, str]]:
    yield "is not there", "nowhere.x", None, "no"
    yield "is a pipe", "pipe.x", os.mkfifo, ""
    yield "is a socket", "socket.x", _make_socket, ""
    yield "is a link to itself", "loop.x", _make_link("loop.x"), ""
    yield "is a link to nothing", "dangling.x", _make_link("nothing"), ""
    yield "is a link to a device", "null.x", _make_link("/dev/null"), ""
    yield "is below a file", "corpus.txt/in.x", None, ""
    yield "has a line break", "a\nb", None, ""
    yield "has a long name", LONG, None, ""
    yield "is not UTF-8", "\udcff.x", None, ""
    yield "is empty", "", None, ""


def _make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _make_link(target: str):
    def write(path: Path) -> None:
        path.symlink_to(target)

    return write
