"""Figures of attention weights."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lightning_xt.inference.figures.canvas import BAR, Canvas, Colours, Pixels, measure

COLUMNS = 4
"""Panels side by side."""
LEAST, MOST, PANEL = 12, 28, 384
"""Least and most pixels of a token, and pixels of a panel that are wanted."""
FONT = 16
"""Most pixels of the font of labels."""
GAP, TITLE = 14, 26
"""Pixels between panels, and of the line above each."""
UNSEEN = (0.89, 0.89, 0.91, 1.0)
"""Colour of a pair without weight."""


def draw_attention(
    weights: Float[Tensor, "panels i j"], queries: Sequence[str], keys: Sequence[str], titles: Sequence[str]
) -> Pixels:
    """Draw weights as panels, such as one for each head of a layer.

    The darker, the larger the weight; colours grow with its root, so that small ones are seen. Grey pairs have no
    weight, as those of a query and a later key. Negative weights are red.

    Args:
        weights: weight of each key for each query.
        queries: label of each query, from the top.
        keys: label of each key, from the left.
        titles: title of each panel.
    """
    values = weights.float().cpu().numpy()
    colour, ticks = _choose_colours(values)
    panels, rows, columns = values.shape
    cell = max(LEAST, min(MOST, PANEL // max(rows, columns)))
    size = min(FONT, cell - 2)
    across = min(COLUMNS, panels)
    down = -(-panels // across)
    left, upright = 10 + measure(queries, size), any(len(label) > 1 for label in keys)
    bottom = 6 + (measure(keys, size) if upright else cell)
    width, height = columns * cell + GAP, rows * cell + TITLE
    canvas = Canvas(left + across * width + BAR + 8 + measure(["0.2"], size), down * height + bottom)
    for number, panel in enumerate(values):
        line, place = divmod(number, across)
        x, y = left + place * width, TITLE + line * height
        canvas.paint(np.where(panel[..., None] == 0, UNSEEN, colour(panel)), x, y, (cell, cell))
        canvas.write(titles[number], x + (width - GAP) / 2, y - TITLE / 2, size + 2, "mm")
        for row, label in enumerate(queries if place == 0 else ()):
            canvas.write(label, x - 4, y + (row + 0.5) * cell, size, "rm")
        # Nothing is below the last panel of a column.
        for column, label in enumerate(keys if number + across >= panels else ()):
            middle, under = x + (column + 0.5) * cell, y + rows * cell + 3
            canvas.write(label, middle, under, size, "mt", upright=upright)
    canvas.draw_bar(colour, ticks, (left + across * width, TITLE, rows * cell), size)
    return canvas.pixels


def _choose_colours(values: Float[np.ndarray, "panels i j"]) -> tuple[Callable[[np.ndarray], Colours], list[float]]:
    """Choose the colours of weights, and the ticks of their bar."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm, TwoSlopeNorm

    most = max(1.0, float(np.abs(values).max(initial=0)))
    if (values < 0).any():
        signed = TwoSlopeNorm(0.0, -most, most)
        return lambda values: colormaps["RdBu"](signed(values)), [-most, 0.0, most]
    root = PowerNorm(0.5, 0.0, most)
    return lambda values: colormaps["Blues"](root(values)), [0.0, 0.2, 0.4, 0.6, 0.8, most]
