"""Text of others on a terminal and in commands to paste: row S16 of the list of reported cases."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.commands.generation.rendering import choose_renderer
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.system.messages import make_visible

LAST = "runs/tiny/0/checkpoints/last.ckpt"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J"


def save_changed(*path: str, value: Any) -> None:
    contents = holder = torch.load(LAST, weights_only=True)
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    torch.save(contents, "in.ckpt")


@pytest.mark.parametrize(
    "path",
    [
        ("lightning_xt", "version"), ("lightning_xt", "trainer", "precision"), ("lightning_xt", "versions", "torch"),
        ("datamodule_hyper_parameters", "path"), ("lightning_xt", "kind"), ("TextFiles", "hash"),
        ("hyper_parameters", "decoder", "class_path"), ("pytorch-lightning_version",),
    ],
)  # fmt: skip
def test_cases_s16_a_checkpoint_writes_no_escapes(
    path: tuple[str, ...], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_changed(*path, value=CLIPBOARD)
    commands = (["info", "in.ckpt"], ["info", "in.ckpt", "--json"], ["generate", "in.ckpt", "--prompt", "a"],
                ["validate", "-c", "tiny.yaml", "--ckpt_path", "in.ckpt"])  # fmt: skip
    for command in commands:
        main(command)
        told = capsys.readouterr()
        # The untrained model itself writes any bytes into a pipe.
        assert CLIPBOARD[:5] not in told.out + told.err, command


def test_cases_s16_a_terminal_shows_what_a_model_writes() -> None:
    piece = TextPiece(f"a{CLIPBOARD}\u202eb\tü\u200d\n", None)
    assert choose_renderer(False, "auto", terminal=False)(piece) == piece.text
    assert choose_renderer(False, "auto", terminal=True)(piece) == (
        "a\\x1b]52;c;cm0gLXJmIH4=\\x07\\x1b[2J\\u202eb\tü\u200d\n"
    )
    colored = choose_renderer(True, "auto", terminal=True)(TextPiece("\x1b[2J", -0.01))
    assert colored == "\x1b[38;5;40m\\x1b[2J\x1b[0m"


def test_cases_s16_every_control_character_is_shown() -> None:
    for code in [*range(32), *range(127, 160), 0x202E, 0x2066]:
        shown = make_visible(chr(code))
        assert shown == chr(code) if chr(code) in "\t\n" else shown.isprintable() and len(shown) > 1, code


def test_cases_s16_commands_to_paste_are_quoted(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "-c", "tiny.yaml", "--name", "a; touch pasted #"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sample = next(line for line in lines if line.startswith("sample: "))
    assert shlex.split(sample) == ["sample:", "lightning-xt", "generate", "runs/a; touch pasted #/0", "--prompt", "..."]
    board = next(line for line in lines if line.startswith("tensorboard: "))
    assert shlex.split(board)[-1] == "runs/a; touch pasted #/0"
