"""Interactive generation: the user and the model take turns."""

import contextlib
import sys
from collections.abc import Callable, Generator
from contextlib import closing

from lightning_xt.commands.generation.rendering import show, stream_pieces
from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.inference.conversation import Conversation
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.system.messages import find_own_sentence, make_visible

HELP = """\
What you type is appended to the text, and the model continues it; an empty line continues it as it is.
  /text   print the whole text      /undo   take back the last turn     /reset  begin again
  /help   print this                /quit   leave, as Ctrl-D does       //...   a text that begins with /
Ctrl-C stops a completion; what was generated stays.
"""
HELP_OF_PAIRS = """\
Each line that you type is translated by itself.
  /help   print this                /quit   leave, as Ctrl-D does       //...   a text that begins with /
Ctrl-C stops a translation.
"""


def converse(text_generator: TextGenerator, sampling: GenerationOptions, paint: Callable[[TextPiece], str]) -> None:
    """Read lines and complete or translate them until there are no more."""
    conversation = Conversation(text_generator, sampling) if isinstance(text_generator, TextCompleter) else None
    help_text = HELP_OF_PAIRS if conversation is None else HELP
    if sys.stdin.isatty():
        # Arrow keys, and lines of before.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        show(help_text)
    lines: list[str] = []
    warned = False
    while (line := _read_line()) is not None:
        if line.startswith("/") and not line.startswith("//"):
            if line.strip() == "/quit":
                break
            _run_command(line.strip(), conversation, help_text, paint)
            continue
        line = line[1:] if line.startswith("//") else line
        if conversation is not None:
            _answer(conversation.reply(line), paint)
            excess = text_generator.find_excess([conversation.text], sampling)
            if excess and not warned and sys.stdin.isatty():
                print(excess, file=sys.stderr, flush=True)
            warned = warned or excess is not None
        elif line.strip():
            lines.append(line)
            _answer(stream_pieces(text_generator, number_prompts(lines)[-1], sampling), paint)


def _read_line() -> str | None:
    """Read the next line, without its end; None if there are no more."""
    while True:
        try:
            if sys.stdin.isatty():
                return input("> ")
            line = sys.stdin.buffer.readline()
            return line.decode("utf-8", "surrogateescape").rstrip("\r\n") if line else None
        except KeyboardInterrupt:
            show("\n")
        except EOFError:
            show("\n")
            return None


def _run_command(
    line: str, conversation: Conversation | None, help_text: str, paint: Callable[[TextPiece], str]
) -> None:
    if line == "/help":
        show(help_text)
    elif conversation is not None and line == "/text":
        show(paint(TextPiece(conversation.text)) + "\n")
    elif conversation is not None and line == "/undo":
        if not conversation.undo():
            _report("there is no turn to take back")
    elif conversation is not None and line == "/reset":
        conversation.reset()
    else:
        known = "/help or /quit" if conversation is None else "/text, /undo, /reset, /help or /quit"
        _report(f"unknown command {line.split()[0]!r}; give {known}, or // for a text that begins with /")


def _answer(answer: Generator[TextPiece, None, None], paint: Callable[[TextPiece], str]) -> None:
    try:
        with closing(answer):
            for piece in answer:
                show(paint(piece))
    except KeyboardInterrupt:
        # What was generated stays; the next turn continues it.
        pass
    except ValueError as error:
        sentence = find_own_sentence(error)
        if sentence is None:
            raise
        _report(sentence)
        return
    show("\n")


def _report(sentence: str) -> None:
    print(f"lightning-xt: {make_visible(sentence)}", file=sys.stderr, flush=True)
