"""Figures, texts, tables, histograms and embeddings for the loggers of a run, each as it shows them best.

A kind of logger is added by a `MediaWriter` that is registered for its class with `make_writer.register`.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_xt.training.loggers.projector_files import write_projector_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 5
"""Options that TensorBoard's table shows at first."""

Image = UInt8[np.ndarray, "height width 3"]


class MediaWriter:
    """Writer of media for one logger. This base writes nothing, for loggers that hold only numbers."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def write_image(self, name: str, image: Image, step: int) -> None:
        """Write an image."""

    def write_text(self, name: str, text: str, step: int) -> None:
        """Write a text, whose line breaks and spaces stay."""

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int) -> None:
        """Write a table of texts."""

    def write_histogram(self, name: str, values: Float[Tensor, "..."], step: int) -> None:
        """Write the distribution of values."""

    def write_embedding(self, name: str, vectors: Float[Tensor, "rows D"], labels: Sequence[str], step: int) -> None:
        """Write labelled vectors."""

    def write_results(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the options of a run, by dotted name, next to its final metrics."""


@singledispatch
def make_writer(logger: Logger) -> MediaWriter:
    """Make the writer for a logger."""
    # The modules of our loggers register the writers of Lightning's own, whose runs need not import them.
    from lightning_xt.training.loggers import mlflow, wandb  # noqa: F401

    found = make_writer.dispatch(type(logger))
    return MediaWriter(logger) if found is make_writer.dispatch(object) else found(logger)


@make_writer.register
def _(logger: TensorBoardLogger) -> MediaWriter:
    return TensorBoardWriter(logger)


class TensorBoardWriter(MediaWriter):
    """Writer for TensorBoard, ours or Lightning's. Texts and tables are Markdown there."""

    def write_image(self, name: str, image: Image, step: int) -> None:
        self.logger.experiment.add_image(name, image, step, dataformats="HWC")

    def write_text(self, name: str, text: str, step: int) -> None:
        self.logger.experiment.add_text(name, to_code_block(text), step)

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int) -> None:
        self.logger.experiment.add_text(name, to_markdown_table(columns, rows), step)

    def write_histogram(self, name: str, values: Float[Tensor, "..."], step: int) -> None:
        self.logger.experiment.add_histogram(name, values, step)

    def write_embedding(self, name: str, vectors: Float[Tensor, "rows D"], labels: Sequence[str], step: int) -> None:
        # Torch's own writer makes a folder for each step, and forgets the vectors of earlier starts.
        write_projector_files(Path(self.logger.experiment.log_dir), name, vectors, labels)

    def write_results(self, options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in options.items()
        }
        # The tab reads the values of metrics from the curves of these names.
        experiment, *session = hparams(values, dict(metrics))
        writer = self.logger.experiment._get_file_writer()
        for summary in (put_first(experiment, list(options)[:COLUMNS]), *session):
            writer.add_summary(summary)


def put_first(experiment: Any, names: Sequence[str]) -> Any:
    """Let TensorBoard's table of options show these columns, and the others on demand; by default it sorts by name."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    plugin = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin.content)
    for each in content.experiment.hparam_infos:
        each.differs = each.name in names
    plugin.content = content.SerializeToString()
    return experiment


@rank_zero_only
def log_figure(loggers: Iterable[Logger], name: str, figure: "Figure", step: int) -> None:
    """Log a figure of matplotlib as an image, drawn once for all loggers."""
    log_image(loggers, name, render(figure), step)


@rank_zero_only
def log_image(loggers: Iterable[Logger], name: str, image: Image, step: int) -> None:
    """Log an image."""
    for logger in loggers:
        make_writer(logger).write_image(name, image, step)


@rank_zero_only
def log_text(loggers: Iterable[Logger], name: str, text: str, step: int) -> None:
    """Log a text, whose line breaks and spaces stay."""
    for logger in loggers:
        make_writer(logger).write_text(name, text, step)


@rank_zero_only
def log_table(
    loggers: Iterable[Logger], name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int
) -> None:
    """Log a table of texts; no text is read as markup."""
    for logger in loggers:
        make_writer(logger).write_table(name, columns, rows, step)


@rank_zero_only
def log_histogram(loggers: Iterable[Logger], name: str, values: Float[Tensor, "..."], step: int) -> None:
    """Log the distribution of values."""
    for logger in loggers:
        make_writer(logger).write_histogram(name, values, step)


@rank_zero_only
def log_embedding(
    loggers: Iterable[Logger], name: str, vectors: Float[Tensor, "rows D"], labels: Sequence[str], step: int
) -> None:
    """Log labelled vectors."""
    for logger in loggers:
        make_writer(logger).write_embedding(name, vectors, labels, step)


@rank_zero_only
def log_results(loggers: Iterable[Logger], options: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Log the options of a run, by dotted name, next to its final metrics, which are curves of the run.

    The first options are those that a table shows at first.
    """
    for logger in loggers:
        make_writer(logger).write_results(options, metrics)


def render(figure: "Figure") -> Image:
    """Draw a figure of matplotlib without a display, and return its pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def make_printable(text: str) -> str:
    """Return a text with visible control characters; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def to_code_block(text: str) -> str:
    """Format text as a Markdown code block."""
    # Indented, because a text may contain the fence.
    return "\n".join("    " + line for line in make_printable(text).split("\n"))


def to_html(text: str) -> str:
    """Format text as HTML that keeps its spaces and line breaks."""
    return f"<pre>{html.escape(make_printable(text))}</pre>"


def to_markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format texts as a Markdown table whose cells are read literally."""
    lines = [columns, ["---"] * len(columns), *([_to_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _to_cell(text: str) -> str:
    """Return a text without any character that Markdown or HTML could read as markup."""
    visible = make_printable(text).replace("\n", "↵").replace("\t", "→").replace("  ", "\xa0 ")
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in visible)
