"""Canvas: coloured cells and labels, measured in pixels.

Figures of hundreds of labels are drawn here by Pillow, with the fonts and colour maps of matplotlib: its axes and texts
would take ten times as long, which training would wait for.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

BAR = 8
"""Width of a colour bar in pixels."""

Pixels = UInt8[np.ndarray, "height width 3"]
Colours = Float[np.ndarray, "rows columns 4"]
Anchor = Literal["lm", "rm", "mm", "mb", "mt"]
"""Horizontal (left, right, middle) and vertical (middle, bottom, top) place of a text at its point."""


class Canvas:
    """White image.

    Args:
        width: pixels.
        height: pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image

        self._image = Image.new("RGB", (width, height), "white")

    @property
    def pixels(self) -> Pixels:
        """The image as an array."""
        return np.asarray(self._image).copy()

    def paint(self, colours: Colours, x: int, y: int, cell: tuple[int, int]) -> None:
        """Paint cells of one width and height, the first of which begins at x, y."""
        from PIL import Image

        small = Image.fromarray((255 * colours[..., :3]).round().astype(np.uint8))
        size = (small.width * cell[0], small.height * cell[1])
        self._image.paste(small.resize(size, Image.Resampling.NEAREST), (x, y))

    def write(self, text: str, x: float, y: float, size: int, anchor: Anchor = "lm", *, upright: bool = False) -> None:
        """Write one line at x, y, in pixels of height; upright, it reads from the bottom."""
        if not text:
            return
        image = _draw_text(text, size)
        if upright:
            image = image.rotate(90, expand=True)
        across = {"l": 0.0, "m": image.width / 2, "r": float(image.width)}[anchor[0]]
        down = {"t": 0.0, "m": image.height / 2, "b": float(image.height)}[anchor[1]]
        self._image.paste("black", (round(x - across), round(y - down)), image)

    def draw_bar(
        self,
        colour: Callable[[np.ndarray], Colours],
        ticks: Sequence[float],
        area: tuple[int, int, int],
        size: int,
        unit: str = "",
    ) -> None:
        """Draw a colour bar.

        Args:
            colour: returns the colours of values.
            ticks: labelled values, the least first and the most last.
            area: left edge, top and height.
            size: height of the labels.
            unit: text after the label of the most.
        """
        (x, y, height), (low, high) = area, (ticks[0], ticks[-1])
        self.paint(colour(np.linspace(high, low, height)[:, None]), x, y, (BAR, 1))
        for tick in ticks:
            text = f"{tick:.3g} {unit}" if tick == high and unit else f"{tick:.3g}"
            self.write(text, x + BAR + 4, y + (high - tick) / (high - low) * height, size)


def measure(labels: Sequence[str], size: int) -> int:
    """Return the width of the longest label."""
    return max((round(_load_font(size).getlength(label)) for label in labels), default=0)


@lru_cache(maxsize=4096)
def _draw_text(text: str, size: int) -> "Image":
    """Draw a text as a mask, whose height depends on the size only."""
    from PIL import Image, ImageDraw

    font = _load_font(size)
    above, below = font.getmetrics()
    image = Image.new("L", (max(1, round(font.getlength(text))), above + below))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return image


@lru_cache(maxsize=8)
def _load_font(size: int) -> "FreeTypeFont":
    """Load matplotlib's monospaced font."""
    import matplotlib
    from PIL import ImageFont

    # Without the ligatures and right-to-left layout that some installations of Pillow have and others lack.
    layout = ImageFont.Layout.BASIC
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSansMono.ttf", size, layout_engine=layout)
