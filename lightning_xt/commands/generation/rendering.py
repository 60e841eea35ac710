"""Rendering of text for terminals, in colours that say how probable it was."""

import math
import os
import sys
from collections.abc import Callable, Generator

from lightning_xt.data.prompt_files import Prompt
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.system.messages import make_visible

COLORS = ((0.9, 40), (0.5, 148), (0.2, 220), (0.05, 208), (0.0, 196))
"""Least probability, and the colour among a terminal's 256: green, lime, yellow, orange, red."""


def show(text: str) -> None:
    """Write to standard output, at once."""
    # A terminal that cannot show a character shows its code; bytes of the prompt pass through as they came.
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") == "utf8":
        sys.stdout.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    else:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def stream_pieces(
    text_generator: TextGenerator, prompt: Prompt, sampling: GenerationOptions
) -> Generator[TextPiece, None, None]:
    """Yield pieces of a completion as they become certain; report on standard error what of the prompt is ignored."""
    if problem := text_generator.find_problem(prompt["prompt"]):
        print(make_visible(problem), file=sys.stderr)
    yield from text_generator.stream_text(prompt["prompt"], sampling, prompt.get("repeat", 0))


def choose_renderer(show_probabilities: bool, color: str, *, terminal: bool) -> Callable[[TextPiece], str]:
    """Return the function that renders a piece of text, coloured by its probability if `show_probabilities`.

    `color` is always, never, or auto for a terminal where NO_COLOR is not set. A terminal shows control characters and
    does not obey them.
    """
    here = terminal and not os.environ.get("NO_COLOR")
    colored = show_probabilities and (color == "always" or (color == "auto" and here))
    write = make_visible if terminal else str
    return lambda piece: _color(write(piece.text), piece) if colored else write(piece.text)


def _color(text: str, piece: TextPiece) -> str:
    """Return the text in the colour of its probability; text of the prompt has none."""
    if piece.log_prob is None:
        return text
    probability = math.exp(piece.log_prob)
    color = next(color for least, color in COLORS if probability >= least)
    return f"\x1b[38;5;{color}m{text}\x1b[0m"
