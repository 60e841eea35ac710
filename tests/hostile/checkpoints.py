"""Checkpoint files that are damaged or hold something else."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hostile.case import Case, Content

RUN = "runs/tiny/0/checkpoints"
LAST = f"{RUN}/last.ckpt"
STEP = f"{RUN}/step-6.ckpt"
UNREADABLE = "in.ckpt cannot be read as a checkpoint: "


class Command:
    """Object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def cases() -> Iterator[Case]:
    """Yield all cases of checkpoints."""
    commands = {
        "info": ["info", "in.ckpt"],
        "generate": ["generate", "in.ckpt", "--prompt", "a"],
        "fit": ["fit", "-c", "tiny.yaml", "--init_from", "in.ckpt"],
        "validate": ["validate", "-c", "tiny.yaml", "--ckpt_path", "in.ckpt"],
    }
    for number, (name, content, says) in enumerate(_no_checkpoints()):
        for command in ("info", ("generate", "fit", "validate")[number % 3]):
            yield Case(
                name=f"checkpoint: {command}, {name}",
                command=commands[command],
                says=["in.ckpt", says],
                files={"in.ckpt": content},
            )
    for name, change, says in _changes():
        for command in ("generate", "validate"):
            yield Case(
                name=f"checkpoint: {command}, {name}",
                command=commands[command],
                says=[says],
                files={"in.ckpt": _change_file(LAST, change)},
            )
    for name, change, says in _averages():
        yield Case(
            name=f"checkpoint: average, {name}",
            command=["average", "runs/tiny"],
            says=[says],
            files={STEP: _change_file(STEP, change)},
        )
    for name, content, _ in list(_no_checkpoints())[:6]:
        yield Case(
            name=f"checkpoint: average, {name}",
            command=["average", "runs/tiny"],
            says=["step-6.ckpt cannot be read as a checkpoint: "],
            files={STEP: content},
        )
    for option, value in (("--last", "0"), ("--last", "-1"), ("--last", "99"), ("--last", "two"), ("--last", "1e9")):
        yield Case(
            name=f"checkpoint: average {option} {value}",
            command=["average", "runs/tiny", option, value],
            says=[option, value],
        )
    for value in ("in.txt", "runs", "no/in.ckpt", "runs/tiny/0/checkpoints"):
        yield Case(
            name=f"checkpoint: average --output {value}",
            command=["average", "runs/tiny", "--output", value],
            says=[f"--output {value}"],
        )
    pairs = ["--ckpt_path", "runs/pairs/0/checkpoints/last.ckpt"]
    yield Case(
        name="checkpoint: of another kind of model",
        command=["validate", "-c", "tiny.yaml", *pairs],
        says=["runs/pairs/0/checkpoints/last.ckpt", "holds a Seq2Seq"],
    )
    yield Case(
        name="checkpoint: weights of another kind of model",
        command=["fit", "-c", "tiny.yaml", "--init_from", "runs/pairs"],
        says=["runs/pairs/0/checkpoints", "holds a Seq2Seq"],
    )
    yield Case(
        name="checkpoint: a draft of another kind",
        command=["generate", "runs/tiny", "--prompt", "a", "--draft", "runs/pairs"],
        says=["--draft runs/pairs", "Seq2Seq"],
    )


def _no_checkpoints() -> Iterator[tuple[str, Content, str]]:
    yield "a pickle that runs a command", pickle.dumps(Command()), UNREADABLE
    yield "a checkpoint that runs a command", _save({"state_dict": Command()}), "loading that could run any code"
    yield "nothing", b"", UNREADABLE
    yield "a text", b"no checkpoint\n", UNREADABLE
    yield "cut in half", _cut(lambda size: size // 2), UNREADABLE
    yield "cut at its end", _cut(lambda size: size - 30), UNREADABLE
    yield "changed in the middle", _flip, UNREADABLE
    yield "zeros", bytes(4096), UNREADABLE
    yield "a zip of other things", _zip({"a.txt": b"a"}), "is a zip archive of other files"
    yield "a zip of a broken pickle", _zip({"a/data.pkl": b"\x80\x02]q\x00(K", "a/version": b"3"}), UNREADABLE
    yield "an empty zip", _zip({}), UNREADABLE
    yield "a program of TorchScript", _write_script, "is a TorchScript program"
    yield "a tensor", _save(torch.zeros(3)), "holds a Tensor, not a mapping"
    yield "a list", _save([1, 2]), "holds a list, not a mapping"
    yield "a whole module", _save(torch.nn.Linear(2, 2)), "loading that could run any code"
    yield "the old format of torch", _save({"a": 1}, _use_new_zipfile_serialization=False), UNREADABLE
    yield "a folder", lambda path: path.mkdir(), "in.ckpt"


def _changes() -> Iterator[tuple[str, Callable[[dict[str, Any]], Any], str]]:
    yield "a bare state_dict", lambda content: content["state_dict"], "it has no state_dict"
    yield "no weights", lambda content: _remove(content, "state_dict"), "it has no state_dict"
    yield "no step", lambda content: _remove(content, "global_step"), "it has no global_step"
    yield "a step that is a text", lambda content: {**content, "global_step": "six"}, "global_step"
    yield "weights that are a list", lambda content: {**content, "state_dict": [1]}, "state_dict"
    yield "a weight that is a text", lambda content: _change_weights(content, lambda value: "a"), "in.ckpt"
    yield "weights of another shape", lambda content: _change_weights(content, lambda value: value[..., :1]), "in.ckpt"
    yield "a weight is missing", _remove_weight, "in.ckpt"
    yield "a weight too many", _add_weight, "in.ckpt"
    yield "a later format", lambda content: _change_metadata(content, format=99), "format 99"
    yield "a format that is a text", lambda content: _change_metadata(content, format="one"), "format"
    yield "contents that are a list", lambda content: {**content, "lightning_xt": [1]}, "in.ckpt"


def _averages() -> Iterator[tuple[str, Callable[[dict[str, Any]], Any], str]]:
    yield (
        "weights of no number",
        lambda content: _change_weights(content, lambda value: value * torch.nan),
        "step-6.ckpt",
    )
    yield "infinite weights", lambda content: _change_weights(content, lambda value: value + torch.inf), "step-6.ckpt"
    yield (
        "weights of another shape",
        lambda content: _change_weights(content, lambda value: value[..., :1]),
        "not of one model",
    )
    yield "a weight that is a text", lambda content: _change_weights(content, lambda value: "a"), "step-6.ckpt"
    yield "a weight is missing", _remove_weight, "are not of one model"
    yield "a weight too many", _add_weight, "are not of one model"
    yield "a later format", lambda content: _change_metadata(content, format=99), "format 99"
    yield "no weights", lambda content: _remove(content, "state_dict"), "it has no state_dict"
    yield "a stranger's", lambda content: _remove(content, "lightning_xt"), "was not written by lightning-xt"


def _change_file(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        source = next(folder / file for folder in path.parents if (folder / file).is_file())
        torch.save(change(torch.load(source, weights_only=True)), path)

    return write


def _change_weights(content: dict[str, Any], change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {**content, "state_dict": {name: change(value) for name, value in content["state_dict"].items()}}


def _remove_weight(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "state_dict": dict(list(content["state_dict"].items())[1:])}


def _add_weight(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "state_dict": {**content["state_dict"], "decoder.more": torch.zeros(2)}}


def _change_metadata(content: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**content, "lightning_xt": {**content["lightning_xt"], **changed}}


def _remove(content: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in content.items() if each != name}


def _save(content: Any, **options: Any) -> bytes:
    made = io.BytesIO()
    torch.save(content, made, **options)
    return made.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def _cut(place: Callable[[int], int]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        content = _find_last(path).read_bytes()
        path.write_bytes(content[: place(len(content))])

    return write


def _flip(path: Path) -> None:
    content = bytearray(_find_last(path).read_bytes())
    middle = content.index(b"data.pkl") + 60
    content[middle : middle + 20] = bytes(byte ^ 0xFF for byte in content[middle : middle + 20])
    path.write_bytes(content)


def _find_last(path: Path) -> Path:
    return next(folder / LAST for folder in path.parents if (folder / LAST).is_file())


def _write_script(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"model/{name}", b"\x80\x02}q\x00.")
