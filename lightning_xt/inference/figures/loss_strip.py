"""Figure of a text whose tokens are coloured by their losses."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from lightning_xt.inference.figures.canvas import BAR, Canvas, Colours, Pixels

COLUMNS = 100
"""Characters of a line."""
CELL, SIZE = (8, 18), 13
"""Pixels of a character, and of the font."""
EDGE, TITLE = 10, 28
"""Pixels around the text, and above it."""


def draw_loss_strip(labels: Sequence[str], losses: Sequence[float], most: float, title: str = "") -> Pixels:
    """Draw a text, token by token, each on a ground that is the redder the larger its loss is.

    Args:
        labels: visible text of each token; ↵ ends a line. The loss of a token without text, such as the first byte of a
            character, is added to that of the next one.
        losses: loss of each token in bits; NaN for a token that is not predicted, whose ground stays white.
        most: loss of the darkest ground, such as that of a uniform choice from the vocabulary.
        title: line above the text.
    """
    lines = list(_wrap(labels, losses))
    longest = max((len(line) for line in lines), default=0)
    grid = np.full((max(4, len(lines)), max(40, longest)), np.nan)
    for row, line in enumerate(lines):
        grid[row, : len(line)] = [loss for _, loss in line]
    width, height = grid.shape[1] * CELL[0], grid.shape[0] * CELL[1]
    canvas = Canvas(width + 3 * EDGE + BAR + 52, height + TITLE + EDGE)

    def colour(values: np.ndarray) -> Colours:
        return _choose_colours(values, most)

    canvas.write(title, EDGE, TITLE / 2, SIZE)
    canvas.paint(colour(grid), EDGE, TITLE, CELL)
    for row, line in enumerate(lines):
        for column, (character, _) in enumerate(line):
            if character != "␣":
                x, y = EDGE + (column + 0.5) * CELL[0], TITLE + (row + 0.5) * CELL[1]
                canvas.write(character, x, y, SIZE, "mm")
    step = max(1, round(most / 4))
    ticks = [*(float(tick) for tick in range(0, 4 * step, step) if tick < most), most]
    canvas.draw_bar(colour, ticks, (width + 2 * EDGE, TITLE, height), SIZE - 2, "bits")
    return canvas.pixels


def _choose_colours(losses: np.ndarray, most: float) -> Colours:
    """Choose grounds on which black text is readable; white for NaN."""
    from matplotlib import colormaps

    fraction = np.nan_to_num(losses / most).clip(0, 1)
    colours = colormaps["YlOrRd"](0.75 * fraction)
    # From white, and not from the pale yellow of the map.
    pale = np.minimum(1.0, 4 * fraction)[..., None]
    return np.asarray(pale * colours + (1 - pale))


def _wrap(labels: Sequence[str], losses: Sequence[float]) -> Iterator[list[tuple[str, float]]]:
    """Cut the characters of the tokens, each with its token's loss, into lines."""
    line: list[tuple[str, float]] = []
    held = 0.0
    for label, loss in zip(labels, losses, strict=True):
        loss += held
        held = 0.0 if label or math.isnan(loss) else loss
        for character in label:
            line.append((character, loss))
            if character == "↵" or len(line) == COLUMNS:
                yield line
                line = []
    if line:
        yield line
