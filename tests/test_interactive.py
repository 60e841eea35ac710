"""Conversations with a model on the command line."""

import io
import sys

import pytest
import warm
from served_models import make_completer

from lightning_xt.cli import main
from lightning_xt.commands.generation.interactive import HELP, HELP_OF_PAIRS, _run_command
from lightning_xt.commands.generation.rendering import choose_renderer
from lightning_xt.inference.conversation import Conversation, Turn
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.models.decoder import Decoder

SEED = "2"
"""Seed with which all completions here are text."""
TALK = ["generate", "runs/tiny", "--interactive", "--max_new_tokens", "4", "--top_k", "20"]


@pytest.fixture
def typed(monkeypatch, capsys):
    """Return a function that runs a conversation with typed text, and returns the output."""

    def run(text, *args, command=TALK):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        capsys.readouterr()
        assert main([*command, *args]) == 0
        return capsys.readouterr()

    return run


def test_each_turn_continues_the_whole_conversation(trained, typed, capsys):
    printed = typed("fox\nthe \n\n/text\n", "--seed", SEED).out
    assert "\ufffd" not in printed
    text = printed.removesuffix("\n").split("\n")[-1]
    assert text.startswith("fox") and "the " in text
    # Equal to a prompt with the whole conversation.
    said = "fox"
    expected = ""
    for turn, more in enumerate(("", "the ", "")):
        said += more
        capsys.readouterr()
        assert main(["generate", "runs/tiny", "--prompt", said, *TALK[3:], "--seed", str(int(SEED) + turn)]) == 0
        whole = capsys.readouterr().out.removesuffix("\n")
        expected += whole.removeprefix(said) + "\n"
        said = whole
    assert printed == expected + said + "\n"


def test_a_turn_reads_only_what_is_new(trained, typed, monkeypatch):
    forward, read = Decoder.forward, []

    def counted(self, tokens, **options):
        read.append(tokens.shape[1])
        return forward(self, tokens, **options)

    monkeypatch.setattr(Decoder, "forward", counted)
    typed("the quick\nfox\n\n")
    # The next turn reads the last token of an answer.
    assert read == [9, 1, 1, 1, 1 + 3, 1, 1, 1, 1, 1, 1, 1]


def test_commands(trained, typed):
    def shown(text):
        found = typed(text)
        assert found.err == ""
        return found.out

    first = shown("fox\n")
    assert shown("fox\nthe\n/undo\n/text\n").endswith("fox" + first)
    assert shown("fox\n/reset\n/text\nfox\n") == first + "\n" + first
    assert shown("fox\n/quit\nthe\n") == first
    assert shown("/help\n") == HELP
    assert shown("//x\n/text\n").split("\n")[-2].startswith("/x")
    found = typed("/undo\n/nope\n\n")
    assert found.out == ""
    assert found.err.splitlines() == [
        "lightning-xt: there is no turn to take back",
        "lightning-xt: unknown command '/nope'; give /text, /undo, /reset, /help or /quit, or // for a text that "
        "begins with /",
        "lightning-xt: there is no text to continue yet; write at least one character",
    ]


def test_a_mistake_of_a_turn_does_not_end_the_session(fresh, typed):
    learned = "--model.decoder.embeddings=[{class_path: LearnedPositions, init_args: {max_length: 12}}]"
    assert main(["fit", "-c", "tiny.yaml", learned, "--trainer.max_steps", "3"]) == 0
    found = typed("fox\nmuch too long for it\n/text\n")
    assert "the model's positions reach only 12" in found.err and found.err.count("\n") == 1
    first, text = found.out.removesuffix("\n").split("\n")
    assert text == "fox" + first


def test_an_interrupt_stops_an_answer_and_keeps_the_session(trained, typed, monkeypatch):
    whole = typed("fox\n", "--seed", SEED).out.removesuffix("\n")
    forward, seen = Decoder.forward, []

    def interrupt(self, tokens, *, cache=None, **options):
        seen.append(tokens.shape[1])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return forward(self, tokens, cache=cache, **options)

    monkeypatch.setattr(Decoder, "forward", interrupt)
    found = typed("fox\n/text\nthe\n", "--seed", SEED)
    shown, text, _ = found.out.split("\n", 2)
    assert whole.startswith(shown) and text == "fox" + shown
    # An interrupted forward is repeated.
    assert seen == [3, 1, 1, 3 + 2 + 3, 1, 1, 1]


def test_a_terminal_asks_for_lines(trained, typed, monkeypatch, capsys):
    expected = typed("fox\nthe\n").out
    typing = iter(["fox", KeyboardInterrupt(), "the", EOFError()])

    def line(prompt):
        assert prompt == "> "
        if isinstance(given := next(typing), BaseException):
            raise given
        return given

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", line)
    assert main(TALK) == 0
    first, second = expected.removesuffix("\n").split("\n")
    assert capsys.readouterr().out == f"{HELP}{first}\n\n{second}\n\n"


def test_line_ends_of_other_systems_and_a_byte_that_is_not_text(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fox\r\na\xff"), encoding="utf-8"))
    assert main(TALK) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 2


def test_a_real_process_is_driven_through_a_pipe(trained, typed):
    expected = typed("fox\nthe\n/text\n").out
    done = warm.run(TALK, content=b"fox\nthe\n/text\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == expected


def test_sources_are_translated_line_by_line(finished_pairs, monkeypatch, typed):
    monkeypatch.chdir(finished_pairs)
    command = ["generate", "runs/pairs", "--interactive", "--max_new_tokens", "4"]
    alone = typed("", command=["generate", "runs/pairs", "--prompt", "a dog", "--max_new_tokens", "4"]).out
    found = typed("red man\n\na dog\n/undo\n/help\n", command=command)
    assert found.out.endswith(alone + HELP_OF_PAIRS)
    assert found.err.startswith("lightning-xt: unknown command '/undo'; give /help or /quit, or //")


def test_cases_d5_a_line_typed_again_draws_again(finished_pairs, monkeypatch, typed):
    monkeypatch.chdir(finished_pairs)
    command = ["generate", "runs/pairs", "--interactive", "--temperature", "1"]
    again = typed("a dog\na dog\n", command=command).out
    alone = ["generate", "runs/pairs", "--temperature", "1", "--prompt", "a dog"]
    first = typed("", command=alone).out
    assert again.startswith(first) and again.removeprefix(first) != first
    assert typed("", command=[*alone, "--prompt", "a dog"]).out == again


def test_a_terminal_does_not_obey_what_the_model_wrote(capsys):
    conversation = Conversation(make_completer(), GenerationOptions())
    conversation._turns.append(Turn([], "a\x1b[2Jb"))
    _run_command("/text", conversation, HELP, choose_renderer(False, "auto", terminal=True))
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"
