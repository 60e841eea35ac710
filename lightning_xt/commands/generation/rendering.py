"""Writes text for people: on terminals of any language, in colours that say how probable it was."""

import math
import os
import sys
from collections.abc import Callable, Generator

from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import TextGenerator

COLORS = ((0.9, 40), (0.5, 148), (0.2, 220), (0.05, 208), (0.0, 196))
"""Least probability, and the colour among a terminal's 256: green, lime, yellow, orange, red."""


def show(text: str) -> None:
    """Writes to standard output, at once."""
    # A terminal that cannot show a character shows its code; bytes of the prompt pass through as they came.
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") == "utf8":
        sys.stdout.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    else:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def pieces(text_generator: TextGenerator, text: str, sampling: GenerationOptions) -> Generator[TextPiece, None, None]:
    """What is shown for one text, as it becomes certain; what of it is not read is told on standard error.

    Args:
        text_generator: completes or translates.
        text: what is answered.
        sampling: how.

    Raises:
        ValueError: the text cannot be answered.
    """
    if problem := text_generator.find_problem(text):
        print(problem, file=sys.stderr)
    yield from text_generator.stream_text(text, sampling)


def painter(show_probabilities: bool, color: str) -> Callable[[TextPiece], str]:
    """What turns a piece of text into what is written.

    Args:
        show_probabilities: whether probabilities are asked for.
        color: always, never, or auto for where standard output is a terminal and NO_COLOR is not set.
    """
    here = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return _painted if show_probabilities and (color == "always" or (color == "auto" and here)) else _plain


def _plain(piece: TextPiece) -> str:
    return piece.text


def _painted(piece: TextPiece) -> str:
    """The text in the colour of its probability; what was given has none."""
    if piece.log_prob is None:
        return piece.text
    probability = math.exp(piece.log_prob)
    color = next(color for least, color in COLORS if probability >= least)
    return f"\x1b[38;5;{color}m{piece.text}\x1b[0m"
